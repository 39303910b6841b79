//! A control plane that lies shows nothing that passes. Each lie is one change to evidence that does.

use envelope::{
    keys::SigningKey,
    messages::{KeyOffer, KeyRotation, SealedRef, SealingKeyBytes},
};
use ids::{Challenge, CommandId, Epoch, FleetId, Nonce, ReportSequence, Sequence, TlsExporter};
use serde_json::json;

use super::*;
use crate::{
    roots::tests as roots,
    sample::{self, NOW},
};

fn host_id() -> HostId {
    HostId::from_bytes([1; 16])
}

fn operation() -> OperationId {
    sample::id(8).parse().unwrap()
}

fn order(dry_run: bool) -> Order {
    Order {
        fleet: roots::fleet(),
        host: host_id(),
        command: CommandId::from_bytes([if dry_run { 2 } else { 3 }; 16]),
        operation: operation(),
        proposed_at: NOW,
        deliver_by: NOW.plus(DurationMs::from_days(1)),
        start_within_ms: 3_600_000,
        action: "app.remove".parse().unwrap(),
        action_version: 1,
        schema_sha256: sha256(b"schema"),
        parameters: br#"{"app":"shop"}"#.to_vec(),
        sealed: vec![],
        requester: None,
        dry_run,
    }
}

fn agent(seed: u8) -> SigningKey<role::Agent> {
    SigningKey::from_seed(&[seed; 32])
}

/// What an honest control plane has, before it is shown.
struct Evidence {
    order: Order,
    plan: Order,
    command_key: u8,
    report: Report,
    identity: u8,
    receipt: Vec<u8>,
    key_changes: Vec<Vec<u8>>,
}

fn sealed(order: &Order, key: u8) -> envelope::Signed<Command> {
    let command = Command {
        order: order.clone(),
        host_epoch: HostEpoch(1),
        epoch: Epoch(1),
        sequence: Sequence(4),
        nonce: Nonce([1; 16]),
        issued: NOW,
        not_before: NOW,
        expires: NOW.plus(DurationMs::from_mins(5)),
    };
    SigningKey::<role::Command>::from_seed(&[key; 32]).sign(&command)
}

fn evidence() -> Evidence {
    let plan = order(true);
    let report = Report {
        fleet: roots::fleet(),
        host: host_id(),
        host_epoch: HostEpoch(1),
        command: plan.command,
        command_sha256: sealed(&plan, 3).payload_sha256(),
        command_sequence: Sequence(4),
        sequence: ReportSequence(1),
        previous: Sha256::ZERO,
        audit_head: None,
        status: ReportStatus::Succeeded,
        finished_at: NOW,
        result: json!({ "message": "shop would be removed", "result": { "app": "shop" } }).to_string().into_bytes(),
        output_sha256: sha256(b""),
        output_truncated: false,
    };
    let receipt = roots::receipt(host_id(), SealingKeyBytes([9; 32]), 1);
    Evidence { order: order(false), plan, command_key: 3, report, identity: 5, receipt, key_changes: Vec::new() }
}

impl Evidence {
    fn shown(&self) -> ApprovalEvidence {
        let report = agent(self.identity).sign(&self.report);
        ApprovalEvidence {
            command_id: self.order.command,
            operation_id: operation(),
            host: "web-1".parse().unwrap(),
            status: api::CommandStatus::Held,
            message: "0 of 1 approvals".to_owned(),
            requested_by: "ada".parse().unwrap(),
            proposed_at: NOW.into(),
            deliver_by: NOW.into(),
            needed: 1,
            order: BASE64.encode(&self.order.encode()),
            plan_orders: vec![BASE64.encode(sealed(&self.plan, self.command_key).envelope())],
            plan_report: Some(BASE64.encode(report.envelope())),
            receipt: BASE64.encode(&self.receipt),
            key_changes: self.key_changes.iter().map(|change| BASE64.encode(change)).collect(),
            approvals: Vec::new(),
        }
    }
}

#[test]
fn what_is_shown_is_what_is_signed() {
    let roots = roots::roots();
    let checked = check(operation(), evidence().shown(), &roots).unwrap();
    assert_eq!(checked.plan.message, "shop would be removed");
    assert_eq!((checked.host.as_str(), checked.enrolled_as.as_str()), ("web-1", "first-name"));
    let approval = checked.approval(true, NOW, checked.of_use_until());
    assert_eq!(approval.plan_sha256, sha256(&evidence().report.result));
    assert_eq!(approval.parameters_sha256, sha256(br#"{"app":"shop"}"#));
    assert_eq!(approval.expires, NOW.plus(DurationMs::from_mins(25 * 60)));
}

#[track_caller]
fn lie(words: &str, change: impl FnOnce(&mut Evidence)) {
    let roots = roots::roots();
    let mut evidence = evidence();
    change(&mut evidence);
    let said = check(operation(), evidence.shown(), &roots).expect_err(words);
    assert!(said.contains(words), "{said}");
}

#[test]
fn a_plan_of_something_else_is_not_shown_as_this_ones() {
    // The plan's own order and its report go together in each; only what is to be approved is another.
    lie("another set of parameters", |it| it.order.parameters = br#"{"app":"bank"}"#.to_vec());
    lie("another action", |it| it.order.action = "app.deploy".parse().unwrap());
    lie("another version of the action", |it| it.order.action_version = 2);
    lie("another host", |it| it.order.host = HostId::from_bytes([7; 16]));
    lie("another fleet", |it| it.order.fleet = FleetId::from_bytes([7; 16]));
    lie("another operation", |it| it.order.operation = sample::id(9).parse().unwrap());
    lie("another kind of order", |it| it.order.dry_run = true);
    let other = SealedRef { name: "web/environment/KEY".to_owned(), sha256: sha256(b"other") };
    lie("another set of sealed values", |it| it.order.sealed = vec![other]);
}

#[test]
fn a_plan_that_the_host_did_not_sign_is_not_shown() {
    lie("does not verify under its keys", |it| it.identity = 6);
    lie("no signed order is shown that the host's report answers", |it| it.plan.parameters = b"{}".to_vec());
    lie("no signed order is shown", |it| it.command_key = 4);
    lie("enrolment receipt does not verify", |it| *it.receipt.last_mut().unwrap() ^= 1);
    lie("enrolment receipt does not verify", |it| it.receipt = roots::receipt(host_id(), SealingKeyBytes([9; 32]), 3));
    lie("another host or epoch", |it| it.report.host = HostId::from_bytes([7; 16]));
    lie("another host or epoch", |it| it.report.host_epoch = HostEpoch(2));
    lie("could not plan it", |it| it.report.status = ReportStatus::Failed);
    lie("another command", |it| it.report.command = CommandId::from_bytes([3; 16]));
    // A receipt of another host, whose keys signed another host's report.
    lie("another host", |it| it.receipt = roots::receipt(HostId::from_bytes([7; 16]), SealingKeyBytes([9; 32]), 1));
}

#[test]
fn a_plan_from_before_a_rotation_stands_and_the_approval_names_the_new_epoch() {
    let rotated = |old: u8| {
        let offer = KeyOffer {
            fleet: roots::fleet(),
            host: host_id(),
            host_epoch: HostEpoch(2),
            old_identity_key: agent(old).public(),
            identity_key: agent(6).public(),
            sealing_key: SealingKeyBytes([9; 32]),
            control_nonce: Challenge([1; 32]),
            exporter: TlsExporter([2; 32]),
        };
        let offer = agent(6).sign(&offer).into_envelope();
        agent(old).sign(&KeyRotation { fleet: roots::fleet(), host: host_id(), offer }).into_envelope()
    };
    let roots = roots::roots();
    let with = |key_changes| Evidence { key_changes, ..evidence() };
    let checked = check(operation(), with(vec![rotated(5)]).shown(), &roots).unwrap();
    assert_eq!(checked.host_epoch, HostEpoch(2));
    assert!(check(operation(), with(vec![rotated(7)]).shown(), &roots).is_err(), "it does not follow");
}
