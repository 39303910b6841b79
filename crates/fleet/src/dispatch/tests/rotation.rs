//! A host's keys are rotated: exactly one key is in force afterwards, whatever is lost on the way, and
//! the old one is good for nothing but the reports it signed.

use envelope::{
    audit::AuditKind,
    audit_verify::verify_export,
    keys::{SigningKey, role},
    messages::*,
    verify,
};
use ids::*;
use session::{
    agent::io::CloseReason,
    frames::{AgentFrame, RefusalCode},
};

use super::{
    super::{Input, Note},
    world::{AGENT_SEED, FLEET, Fate, HOST, World},
};
use crate::{
    model::{CommandStatus, HostStanding},
    operation::{OperationRequest, Target, Work},
    ports::AuditRecord,
};

fn rotated() -> (World, CommandId) {
    let mut world = World::new();
    world.connect();
    let before = world.facts();
    world.settle();
    world.finish(ReportStatus::Succeeded);
    assert_eq!(world.status(before), CommandStatus::Succeeded);
    let id = world.rotate();
    world.settle();
    assert_eq!(world.agent.closed.last(), Some(&CloseReason::KeysStored));
    assert_eq!(world.store.former[0].last_report, None, "nothing was said under the new key yet");
    (world, id)
}

#[test]
fn the_first_session_under_the_new_key_retires_the_old_one() {
    let (mut world, id) = rotated();
    assert!(!world.status(id).is_end(), "an order to rotate ends when the new key is in use");
    world.connect();
    assert_eq!(world.status(id), CommandStatus::Succeeded);
    assert_eq!((world.store.host.host_epoch, world.agent.disk.host_epoch), (HostEpoch(2), Some(HostEpoch(2))));
    // The report of the order itself is already by the new key.
    assert_eq!(world.store.former[0].last_report, Some(ReportSequence(1)));
    let facts = world.facts();
    world.settle();
    world.finish(ReportStatus::Succeeded);
    assert_eq!(world.status(facts), CommandStatus::Succeeded);
    assert_eq!(world.store.leaves(AuditKind::HostKeyChange), 1);
    assert_eq!(world.store.leaves(AuditKind::Alarm), 0);
    let verdict = verify_export(&world.export(), world.keys.root.public()).expect("it follows the rotation");
    assert_eq!(verdict.reports, 3);
}

#[test]
fn keys_are_rotated_again_in_the_session_that_took_the_last_ones() {
    let (mut world, first) = rotated();
    world.connect();
    let second = world.rotate();
    world.settle();
    world.connect();
    assert_eq!((world.status(first), world.status(second)), (CommandStatus::Succeeded, CommandStatus::Succeeded));
    assert_eq!((world.store.host.host_epoch, world.agent.disk.host_epoch), (HostEpoch(3), Some(HostEpoch(3))));
    assert!(world.store.former.iter().all(|key| key.last_report.is_some()));
    verify_export(&world.export(), world.keys.root.public()).expect("it follows both rotations");
}

#[test]
fn an_export_without_a_rotation_or_with_one_of_another_key_does_not_verify() {
    let (mut world, _) = rotated();
    world.connect();
    let root = world.keys.root.public();
    verify_export(&world.export(), root).expect("it verifies as it is");
    let at = world.store.audit.iter().position(|entry| entry.kind == AuditKind::HostKeyChange).expect("recorded");
    let mut dropped = world.store.audit.clone();
    dropped.remove(at);
    let AuditRecord::Inline(genuine) = world.store.audit[at].record.clone() else { panic!("stored with the entry") };
    let old = SigningKey::<role::Agent>::from_seed(&AGENT_SEED);
    let rotation = verify::<KeyRotation>(&genuine, &[old.verifying()]).expect("by the old key").into_value();
    let thief = SigningKey::<role::Agent>::from_seed(&[0x66; 32]);
    for audit in [dropped, {
        let mut audit = world.store.audit.clone();
        audit[at].record = AuditRecord::Inline(thief.sign(&rotation).into_envelope());
        audit
    }] {
        world.store.audit = audit;
        verify_export(&world.export(), root).expect_err("the new key came from nowhere");
    }
}

#[test]
fn a_lost_receipt_strands_nobody() {
    for fate in [Fate::Applied, Fate::AppliedUnknown, Fate::Lost] {
        let mut world = World::new();
        world.connect();
        let id = world.rotate();
        // Until the rotation is about to be stored.
        while !world.to_control.iter().any(|frame| matches!(frame, AgentFrame::KeyRotation(_))) {
            let moved = world.step_work() | world.step_control() | world.step_agent();
            world.sync_agent();
            assert!(moved, "it is offered");
        }
        world.step_control();
        world.fates.push_back(fate);
        world.step_work();
        world.cut();
        world.agent.restart(None);
        for _ in 0..4 {
            world.connect();
        }
        assert_eq!(world.status(id), CommandStatus::Succeeded, "{fate:?}");
        assert_eq!(world.store.host.host_epoch, HostEpoch(2), "{fate:?}: and no further keys were made");
        assert_eq!(world.agent.disk.host_epoch, Some(HostEpoch(2)));
        assert_eq!(world.store.host.standing, HostStanding::Active, "{fate:?}");
    }
}

/// The answer came too late for the first try: refused with the new key, told under the old one that it is stored.
#[test]
fn an_agent_that_was_too_fast_with_its_new_key_comes_back_with_it() {
    let (mut world, id) = rotated();
    let stored = world.store.host.clone();
    let former = core::mem::take(&mut world.store.former);
    (world.store.host.host_epoch, world.store.host.identity_key) = (HostEpoch(1), former[0].identity_key);
    world.connect();
    assert!(matches!(world.agent.closed.last(), Some(CloseReason::Refused { reason: RefusalCode::NotAuthentic, .. })));
    (world.store.host.host_epoch, world.store.host.identity_key) = (stored.host_epoch, stored.identity_key);
    world.store.former = former;
    world.connect();
    assert_eq!(world.agent.closed.last(), Some(&CloseReason::KeysStored));
    assert_eq!(world.store.host.standing, HostStanding::Active, "it is not taken for an old copy");
    world.connect();
    assert_eq!(world.status(id), CommandStatus::Succeeded);
}

#[test]
fn a_command_accepted_before_a_rotation_runs_on_and_one_that_was_not_is_sealed_again() {
    let mut world = World::new();
    world.connect();
    let running = world.facts();
    world.settle();
    assert_eq!(world.status(running), CommandStatus::Running);
    let id = world.rotate();
    world.settle();
    let waiting = world.facts();
    world.connect();
    assert_eq!((world.status(id), world.status(waiting)), (CommandStatus::Succeeded, CommandStatus::Running));
    world.finish(ReportStatus::Succeeded);
    assert_eq!((world.status(running), world.status(waiting)), (CommandStatus::Succeeded, CommandStatus::Succeeded));
}

#[test]
fn a_state_from_before_the_rotation_gets_no_orders() {
    let mut world = World::new();
    world.connect();
    let old = world.agent.disk.clone();
    world.rotate();
    world.settle();
    world.connect();
    assert_eq!(world.store.host.host_epoch, HostEpoch(2));
    world.cut();
    world.agent.keys = HostEpoch(1);
    world.agent.restart(Some(old));
    let order = world.facts();
    world.connect();
    world.connect();
    assert!(matches!(world.store.host.standing, HostStanding::Quarantined { .. }));
    assert!(world.agent.disk.quarantine.is_some(), "and it knows itself");
    assert_eq!(world.status(order), CommandStatus::Queued);
}

/// A report in the chain's next place about a command that nobody knows.
fn report(world: &World, seed: &[u8; 32], host_epoch: u64) -> Vec<u8> {
    let last = world.store.host.last_report;
    let report = Report {
        fleet: FLEET,
        host: HOST,
        host_epoch: HostEpoch(host_epoch),
        command: CommandId::from_bytes([0xee; 16]),
        command_sha256: Sha256([1; 32]),
        command_sequence: Sequence(1),
        sequence: ReportSequence(last.sequence.0 + 1),
        previous: last.sha256,
        audit_head: None,
        status: ReportStatus::Succeeded,
        finished_at: world.now,
        result: b"{}".to_vec(),
        output_sha256: Sha256([0; 32]),
        output_truncated: false,
    };
    SigningKey::<role::Agent>::from_seed(seed).sign(&report).into_envelope()
}

#[test]
fn the_old_key_signs_no_report_after_its_last() {
    let next = sha256(&2u64.to_be_bytes()).0;
    for (seed, epoch, is_taken) in
        [(&next, 2, true), (&AGENT_SEED, 1, false), (&AGENT_SEED, 2, false), (&next, 1, false)]
    {
        let (mut world, _) = rotated();
        world.connect();
        let last = world.store.host.last_report.sequence;
        let forged = report(&world, seed, epoch);
        world.tell(Input::Received(AgentFrame::Report(forged)));
        world.settle();
        let taken = world.store.host.last_report.sequence > last;
        assert_eq!(
            taken,
            is_taken,
            "signed by {}, for epoch {epoch}",
            if seed == &next { "the new" } else { "the old" }
        );
        assert_eq!(world.closes.contains(&RefusalCode::NotAuthentic), !is_taken);
    }
}

/// What a session would have to say for a rotation to count, changed in one place each.
#[test]
fn keys_are_taken_only_from_both_keys_in_this_session() {
    type Change = fn(&mut KeyOffer);
    let changes: [(&str, Change); 7] = [
        ("", |_| {}),
        ("nonce", |offer| offer.control_nonce = Challenge([1; 32])),
        ("exporter", |offer| offer.exporter = TlsExporter([0x77; 32])),
        ("host", |offer| offer.host = HostId::from_bytes([9; 16])),
        ("fleet", |offer| offer.fleet = FleetId::from_bytes([9; 16])),
        ("epoch", |offer| offer.host_epoch = HostEpoch(3)),
        ("old key", |offer| offer.old_identity_key = SigningKey::<role::Agent>::from_seed(&[8; 32]).public()),
    ];
    let old = SigningKey::<role::Agent>::from_seed(&AGENT_SEED);
    let new = SigningKey::<role::Agent>::from_seed(&[0x42; 32]);
    let other = SigningKey::<role::Agent>::from_seed(&[8; 32]);
    for (what, change) in changes {
        for (signer, outer) in [(&new, &old), (&new, &other), (&other, &old)] {
            let is_genuine = what.is_empty() && core::ptr::eq(signer, &new) && core::ptr::eq(outer, &old);
            let mut world = World::new();
            world.connect();
            let exporter = world.exporter();
            let mut offer = KeyOffer {
                identity_key: new.public(),
                fleet: FLEET,
                host: HOST,
                host_epoch: HostEpoch(2),
                old_identity_key: old.public(),
                sealing_key: SealingKeyBytes([9; 32]),
                control_nonce: Challenge([0xcc; 32]),
                exporter,
            };
            change(&mut offer);
            let rotation = KeyRotation { fleet: FLEET, host: HOST, offer: signer.sign(&offer).into_envelope() };
            let frame = AgentFrame::KeyRotation(outer.sign(&rotation).into_envelope());
            world.tell(Input::Received(frame));
            while world.step_work() {}
            assert_eq!(world.store.host.host_epoch.0, if is_genuine { 2 } else { 1 }, "{what}");
            assert_eq!(world.store.leaves(AuditKind::Alarm), usize::from(!is_genuine), "{what}");
            assert_eq!(world.notes.contains(&Note::KeysRotated(HostEpoch(2))), is_genuine);
        }
    }
}

#[test]
fn a_rotation_that_is_only_planned_changes_nothing() {
    let mut world = World::new();
    world.connect();
    let id = OperationId::from_bytes(world.fresh_bytes());
    let command = world.propose(OperationRequest {
        id,
        work: Work::Action {
            action: "host.keys.rotate".parse().expect("a name"),
            version: None,
            parameters: b"{}".to_vec(),
        },
        targets: vec![Target { host: HOST, sealed: Vec::new() }],
        queue_for: None,
        dry_run: true,
        selector: None,
        recovery: None,
    });
    world.settle();
    world.finish(ReportStatus::Succeeded);
    assert_eq!(world.status(command), CommandStatus::Succeeded);
    assert_eq!((world.store.host.host_epoch, world.agent.keys), (HostEpoch(1), HostEpoch(1)));
}
