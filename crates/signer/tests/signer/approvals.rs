//! What needs people is signed only with their approvals. Each attack is one change to steps that succeed without it.

use envelope::{
    SigningKey,
    keys::role,
    messages::{Approval, ApprovalThresholds, Command},
    signer_port::{SignError, Signer as _},
};
use ids::*;

use crate::room::*;

fn approver(n: u8) -> SigningKey<role::Approver> {
    SigningKey::from_seed(&[100 + n; 32])
}

/// A destructive order: a signer takes an action that it does not know for one.
fn destructive(sequence: u64) -> Command {
    let mut command = command(host(1), sequence);
    command.order.action = "disk.wipe".parse().unwrap();
    command
}

fn approval(command: &Command) -> Approval {
    let order = &command.order;
    Approval {
        fleet: order.fleet,
        host: order.host,
        host_epoch: command.host_epoch,
        operation: order.operation,
        action: order.action.clone(),
        action_version: order.action_version,
        parameters_sha256: sha256(&order.parameters),
        sealed: order.sealed.clone(),
        plan_sha256: sha256(b"plan"),
        bind_plan: true,
        approved_at: UnixMs(START),
        expires: UnixMs(START + 60_000),
    }
}

fn signed(n: u8, approval: &Approval) -> Vec<u8> {
    approver(n).sign(approval).into_envelope()
}

/// A signer of a fleet in which destruction takes two of three people.
async fn room(change: impl FnOnce(&mut envelope::messages::RootMetadata)) -> (Room, signer::LocalSigner) {
    let room = Room::new().await;
    let signer = room.open().unwrap();
    let next = root(2, &[key().public()], |root| {
        root.approver_keys = (0..3).map(|n| approver(n).public()).collect();
        root.approvals = ApprovalThresholds { change: 0, destructive: 2 };
        change(root);
    });
    signer.advance_root(vec![next]).await.unwrap();
    (room, signer)
}

type Change = fn(&Room, &mut Command, &mut Vec<Vec<u8>>);

async fn attack(words: &str, change: Change) {
    for attacked in [true, false] {
        let (room, signer) = room(|_| {}).await;
        let mut command = destructive(1);
        let mut approvals = vec![signed(1, &approval(&command)), signed(2, &approval(&command))];
        if attacked {
            change(&room, &mut command, &mut approvals);
        }
        match signer.sign_command(command, approvals).await {
            Err(SignError::Refused(why)) if attacked => {
                assert!(why.contains("approvals: ") && why.contains(words), "{why}")
            }
            Ok(_) if !attacked => {}
            other => panic!("attacked: {attacked}, {words}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn nothing_is_signed_without_enough_people() {
    attack("it needs 2, and 0 of the 0", |_, _, approvals| approvals.clear()).await;
    attack("it needs 2, and 1 of the 1", |_, _, approvals| approvals.truncate(1)).await;
    attack("approved twice", |_, _, approvals| approvals[0] = approvals[1].clone()).await;
    attack("at most 16", |_, _, approvals| *approvals = vec![approvals[0].clone(); 17]).await;
}

#[tokio::test]
async fn approvals_of_something_else_are_worth_nothing_here_either() {
    attack("is the requester's own", |_, command, _| command.order.requester = Some(approver(1).key_id())).await;
    attack("another parameters", |_, command, _| command.order.parameters = b"{\"a\":1}".to_vec()).await;
    attack("another host", |_, command, _| command.order.host = host(2)).await;
    attack("another epoch of the host", |_, command, _| command.host_epoch = HostEpoch(2)).await;
    attack("another operation", |_, command, _| command.order.operation = OperationId::from_bytes([1; 16])).await;
    attack("does not verify", |_, command, approvals| approvals[0] = signed(9, &approval(command))).await;
    attack("expired", |room, command, _| {
        room.set(START + 60_001);
        (command.issued, command.not_before) = (UnixMs(START + 60_001), UnixMs(START + 60_001));
    })
    .await;
}

#[tokio::test]
async fn what_needs_nobody_is_signed_without_approvals() {
    let (_room, signer) = room(|_| {}).await;
    let of = |action: &str, sequence| {
        let mut command = command(host(1), sequence);
        command.order.action = action.parse().unwrap();
        command
    };
    signer.sign_command(of("host.facts", 1), vec![]).await.unwrap();
    signer.sign_command(of("app.deploy", 2), vec![]).await.unwrap();
    let mut dry = destructive(3);
    dry.order.dry_run = true;
    signer.sign_command(dry, vec![]).await.unwrap();
    assert!(signer.sign_command(destructive(4), vec![]).await.is_err());
}

#[tokio::test]
async fn a_dropped_key_does_not_count_any_more() {
    for attacked in [true, false] {
        let (_room, signer) = room(|root| {
            if attacked {
                root.approver_keys.truncate(2);
            }
        })
        .await;
        let command = destructive(1);
        let approvals = vec![signed(1, &approval(&command)), signed(2, &approval(&command))];
        assert_eq!(signer.sign_command(command, approvals).await.is_ok(), !attacked);
    }
}
