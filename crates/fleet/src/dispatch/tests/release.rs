//! A host in quarantine comes back by an admin's word and by nothing else; and what it does then is nothing that it may
//! have done already.

use envelope::{
    audit::AuditKind,
    audit_verify::verify_export,
    keys::{SigningKey, role},
    messages::*,
};
use ids::*;
use session::{agent::io::CloseReason, frames::ControlFrame};

use super::{
    super::Input,
    world::{AGENT_SEED, FLEET, HOST, World},
};
use crate::{
    model::{CommandStatus, HostStanding},
    ports::{AuditEntry, AuditRecord, Write},
};

impl World {
    fn release_as(&mut self, quarantine: Option<QuarantineId>) {
        let audit = AuditEntry {
            time: self.now,
            kind: AuditKind::QuarantineRelease,
            actor: "admin".to_owned(),
            subject: "host web-1".to_owned(),
            record: AuditRecord::Inline(b"{}".to_vec()),
        };
        self.store.apply(Write::HostRelease { host: HOST, quarantine, audit }).expect("it is stored");
        self.tell(Input::QueueChanged);
        self.settle();
    }

    /// Ends the quarantine that the agent said last it is in.
    fn release(&mut self) {
        let id = self.store.quarantines.last().expect("it said which").id;
        self.release_as(Some(id));
    }

    /// The last guard reset that was signed.
    fn reset(&self) -> Vec<u8> {
        let is_reset = |entry: &&AuditEntry| entry.kind == AuditKind::GuardReset;
        let entry = self.store.audit.iter().rfind(is_reset).expect("one was signed");
        let AuditRecord::Inline(record) = &entry.record else { panic!("a reset is stored with its leaf") };
        record.clone()
    }

    /// An order runs to its end.
    #[track_caller]
    fn works(&mut self) {
        let order = self.facts();
        self.settle();
        self.finish(ReportStatus::Succeeded);
        assert_eq!(self.status(order), CommandStatus::Succeeded);
    }

    fn is_quarantined(&self) -> bool {
        matches!(self.store.host.standing, HostStanding::Quarantined { .. })
    }

    fn epochs(&self) -> (u64, u64) {
        (self.store.host.host_epoch.0, self.agent.disk.host_epoch.map_or(1, |epoch| epoch.0))
    }
}

/// A host whose state was put back to one in which a command had been accepted that has run since, in quarantine; and that
/// command.
fn restored() -> (World, CommandId) {
    let mut world = World::new();
    world.connect();
    world.works();
    let ran = world.facts();
    while !world.agent.disk.open.iter().any(|open| open.id == ran) {
        assert!(world.step_work() | world.step_control() | world.step_agent());
        world.sync_agent();
    }
    let copy = world.agent.disk.clone();
    world.settle();
    world.finish(ReportStatus::Succeeded);
    assert_eq!(world.status(ran), CommandStatus::Succeeded);
    world.cut();
    world.agent.restart(Some(copy));
    world.connect();
    world.connect();
    assert!(world.is_quarantined() && world.agent.disk.quarantine.is_some());
    (world, ran)
}

#[test]
fn a_host_replaces_its_keys_at_half_their_life() {
    let mut world = World::new();
    world.connect();
    world.advance(DurationMs::from_days(40));
    world.connect();
    world.works();
    assert_eq!(world.epochs(), (1, 1), "they are good for a while yet");
    world.advance(DurationMs::from_days(10));
    world.connect();
    assert_eq!(world.agent.closed.last(), Some(&CloseReason::KeysStored), "nobody asked for it");
    world.connect();
    assert_eq!(world.epochs(), (2, 2));
    world.works();
    world.advance(DurationMs::from_days(40));
    world.connect();
    assert_eq!(world.epochs(), (2, 2), "the new ones count from when they were taken");
    verify_export(&world.export(), world.keys.root.public()).expect("it follows");
}

#[test]
fn a_restored_host_comes_back_and_does_nothing_twice() {
    let (mut world, ran) = restored();
    world.release();
    assert_eq!(world.agent.closed.last(), Some(&CloseReason::KeysStored));
    assert_eq!(world.store.host.standing, HostStanding::Active);
    world.connect();
    assert_eq!((world.epochs(), world.agent.disk.quarantine), ((2, 2), None));
    assert_eq!(world.agent.fresh_starts.get(&ran), Some(&1), "what its copy had accepted has run, and does not again");
    assert_eq!(world.status(ran), CommandStatus::Succeeded, "nor does what is known of it change");
    world.works();
    world.connect();
    assert!(!world.is_quarantined(), "it stays so");
    assert_eq!(world.store.leaves(AuditKind::Alarm), 0);
    verify_export(&world.export(), world.keys.root.public()).expect("it follows the reset");
}

#[test]
fn an_old_guard_reset_ends_no_other_quarantine() {
    let (mut world, _) = restored();
    let copy = world.agent.disk.clone();
    world.release();
    let old = world.reset();
    world.connect();
    world.works();
    world.to_agent.push_back(ControlFrame::GuardReset(old.clone()));
    world.settle();
    assert!(matches!(world.agent.closed.last(), Some(CloseReason::NotAuthentic { what: "guard reset", .. })));
    // The same machine from a later copy of its state, in a quarantine of its own.
    world.connect();
    let later = world.agent.disk.clone();
    world.works();
    world.cut();
    world.agent.restart(Some(later));
    world.connect();
    world.connect();
    let quarantine = world.agent.disk.quarantine;
    assert!(world.is_quarantined() && quarantine.is_some() && quarantine != copy.quarantine);
    world.to_agent.push_back(ControlFrame::GuardReset(old));
    world.settle();
    assert_eq!((world.agent.disk.quarantine, world.agent.disk.keys_offered), (quarantine, Some(HostEpoch(2))));
    world.connect();
    world.release();
    world.connect();
    assert_eq!((world.epochs(), world.agent.disk.quarantine), ((3, 3), None), "its own reset does");
    world.works();
}

/// What an agent asks of a reset, changed in one place each.
#[test]
fn a_guard_reset_counts_only_as_it_was_signed_for_this_quarantine() {
    type Change = fn(&mut GuardReset);
    let changes: [(&str, Change); 8] = [
        ("", |_| {}),
        ("fleet", |reset| reset.fleet = FleetId::from_bytes([9; 16])),
        ("host", |reset| reset.host = HostId::from_bytes([9; 16])),
        ("epoch", |reset| reset.epoch = Epoch(9)),
        ("quarantine", |reset| reset.quarantine = QuarantineId::from_bytes([9; 16])),
        ("host epoch", |reset| reset.host_epoch = HostEpoch(3)),
        ("highest sequence", |reset| reset.high = Sequence(0)),
        ("signer", |_| {}),
    ];
    for (what, change) in changes {
        let (mut world, _) = restored();
        let mut reset = GuardReset {
            fleet: FLEET,
            host: HOST,
            epoch: Epoch(1),
            quarantine: world.agent.disk.quarantine.expect("it is in one"),
            host_epoch: HostEpoch(2),
            high: world.store.host.allocated,
            last_report: world.store.host.last_report,
            time: world.now,
        };
        change(&mut reset);
        let thief = SigningKey::<role::Command>::from_seed(&[0x66; 32]);
        let key = if what == "signer" { &thief } else { &world.keys.command };
        let envelope = key.sign(&reset).into_envelope();
        world.to_agent.push_back(ControlFrame::GuardReset(envelope));
        world.step_agent();
        world.sync_agent();
        assert_eq!(world.agent.disk.reset.is_some(), what.is_empty(), "{what}");
    }
}

#[test]
fn a_host_that_was_never_quarantined_takes_no_reset() {
    let mut world = World::new();
    world.connect();
    let reset = GuardReset {
        fleet: FLEET,
        host: HOST,
        epoch: Epoch(1),
        quarantine: QuarantineId::from_bytes([1; 16]),
        host_epoch: HostEpoch(2),
        high: Sequence(9),
        last_report: ReportPosition::START,
        time: world.now,
    };
    let envelope = world.keys.command.sign(&reset).into_envelope();
    world.to_agent.push_back(ControlFrame::GuardReset(envelope));
    world.settle();
    assert!(matches!(world.agent.closed.last(), Some(CloseReason::NotAuthentic { what: "guard reset", .. })));
    world.connect();
    world.works();
}

#[test]
fn of_two_clones_the_one_that_is_released_comes_back_alone() {
    let mut world = World::new();
    world.connect();
    let (first, other) = (world.agent.boot, BootId::from_bytes([0xb1; 16]));
    world.works();
    let clone = world.agent.disk.clone();
    let switch = |world: &mut World, boot, disk| {
        world.cut();
        world.agent.boot = boot;
        world.agent.restart(disk);
        world.connect();
        world.connect();
    };
    switch(&mut world, other, None);
    assert!(!world.is_quarantined(), "a reboot is no clone");
    let machine = world.agent.disk.clone();
    switch(&mut world, first, Some(clone));
    let (clone, of_clone) = (world.agent.disk.clone(), world.agent.disk.quarantine);
    switch(&mut world, other, Some(machine));
    let of_machine = world.agent.disk.quarantine;
    assert!(of_clone.is_some() && of_machine.is_some() && of_clone != of_machine, "each is in its own");
    assert_eq!(world.store.quarantines.len(), 2);
    let machine = world.agent.disk.clone();
    switch(&mut world, first, Some(clone.clone()));
    world.release_as(of_machine);
    assert_eq!(world.store.leaves(AuditKind::GuardReset), 0, "nothing for the one that was not named");
    switch(&mut world, other, Some(machine));
    assert_eq!((world.epochs(), world.agent.disk.quarantine), ((2, 2), None));
    world.works();
    let reports = world.store.host.last_report;
    let (kept, keys) = (world.agent.disk.clone(), world.agent.keys);
    world.agent.keys = HostEpoch(1);
    switch(&mut world, first, Some(clone));
    assert!(world.is_quarantined(), "the other one is seen when it comes again");
    assert_eq!((world.store.host.last_report, world.store.host.host_epoch), (reports, HostEpoch(2)));
    world.agent.keys = keys;
    switch(&mut world, other, Some(kept));
    world.release();
    world.connect();
    assert_eq!(world.epochs(), (3, 3));
    world.works();
}

/// Somebody with the command key gave orders, and drove the host into quarantine afterwards.
#[test]
fn a_quarantine_does_not_hide_that_somebody_else_signed() {
    for is_stored in [true, false] {
        let mut world = World::new();
        world.connect();
        world.works();
        let copy = world.agent.disk.clone();
        world.works();
        world.cut();
        if is_stored {
            world.agent.restart(Some(copy.clone()));
            world.connect();
            assert!(world.is_quarantined() && !world.store.host.quarantine.is_alarm, "the control: an old copy alone");
            world.cut();
        }
        let id = ids::QuarantineId::from_bytes([5; 16]);
        let thief = session::agent::io::JournalState { high: Sequence(100), quarantine: Some(id), ..copy };
        for _ in 0..2 {
            world.agent.restart(Some(thief.clone()));
            world.connect();
            world.cut();
        }
        assert!(world.store.host.quarantine.is_alarm, "an owner has to look at it");
        assert_eq!(world.store.leaves(AuditKind::Alarm), 1, "said once");
    }
}

#[test]
fn after_an_alarm_the_numbers_that_someone_else_gave_out_are_used_up() {
    let mut world = World::new();
    world.connect();
    world.works();
    world.works();
    world.cut();
    let seen = world.agent.disk.high;
    (world.store.host.allocated, world.store.host.acknowledged) = (Sequence(0), Sequence(0));
    world.connect();
    assert_eq!(world.store.leaves(AuditKind::Alarm), 1);
    assert_eq!(world.agent.disk.quarantine, None, "its agent is not told before somebody asks for it");
    world.release_as(None);
    world.connect();
    world.connect();
    assert!(world.agent.disk.quarantine.is_some());
    world.release();
    world.connect();
    assert_eq!(world.epochs(), (2, 2));
    assert!(world.store.host.allocated >= seen);
    world.works();
    assert!(world.agent.disk.high > seen);
}

#[test]
fn reports_that_waited_are_signed_anew() {
    let mut world = World::new();
    world.connect();
    world.works();
    let copy = world.agent.disk.clone();
    let lost = world.facts();
    world.settle();
    world.finish(ReportStatus::Succeeded);
    world.cut();
    // In another past, on the same numbers: what ends now forks from what was reported.
    let mut other = copy.clone();
    world.agent.restart(Some(copy));
    world.connect();
    world.connect();
    other.quarantine = world.agent.disk.quarantine;
    let report = own_report(&world, &other);
    other.last_report = Some(ReportPosition { sequence: report.sequence, sha256: report.sha256 });
    other.outbox.push(report.clone());
    world.cut();
    world.agent.restart(Some(other));
    let (closes, forks) = (world.closes.len(), world.store.leaves(AuditKind::Fork));
    world.connect();
    assert_eq!(world.agent.disk.outbox.len(), 1, "the fork is not acknowledged");
    assert_eq!(world.closes.len(), closes, "sent away, it would come back at once and say the same");
    assert_eq!(world.store.leaves(AuditKind::Fork), forks + 1, "one leaf for it");
    world.connect();
    world.release();
    world.connect();
    world.connect();
    assert_eq!((world.epochs(), world.agent.disk.outbox.len()), ((2, 2), 0), "it was taken in its new place");
    assert_eq!(world.status(lost), CommandStatus::Succeeded);
    world.works();
}

/// A report in the next place of a copy's chain, which the host's true past has given to another.
fn own_report(world: &World, disk: &session::agent::io::JournalState) -> session::agent::io::StoredReport {
    let last = disk.last_report.expect("it reported before");
    let command = CommandId::from_bytes([0xee; 16]);
    let report = Report {
        fleet: FLEET,
        host: HOST,
        host_epoch: HostEpoch(1),
        command,
        command_sha256: Sha256([1; 32]),
        command_sequence: Sequence(1),
        sequence: ReportSequence(last.sequence.0 + 1),
        previous: last.sha256,
        audit_head: None,
        status: ReportStatus::Unknown,
        finished_at: world.now,
        result: b"{}".to_vec(),
        output_sha256: Sha256([0; 32]),
        output_truncated: false,
    };
    let signed = SigningKey::<role::Agent>::from_seed(&AGENT_SEED).sign(&report);
    let sha256 = signed.payload_sha256();
    session::agent::io::StoredReport { command, sequence: report.sequence, sha256, envelope: signed.into_envelope() }
}

/// The connection cut, or the agent killed, after so many steps of a release: in the end one key is in force at both
/// ends, and the host is quarantined no more.
#[test]
fn a_release_that_is_cut_anywhere_is_carried_through() {
    for with_crash in [false, true] {
        for steps in 0..60 {
            let (mut world, ran) = restored();
            let id = world.store.quarantines.last().expect("it said which").id;
            let audit = world.store.audit[0].clone();
            world.store.apply(Write::HostRelease { host: HOST, quarantine: Some(id), audit }).expect("it is stored");
            world.tell(Input::QueueChanged);
            for step in 0..steps {
                match step % 4 {
                    0 => drop(world.step_work()),
                    1 => drop(world.step_control()),
                    2 => drop(world.step_agent()),
                    _ => world.sync_agent(),
                }
            }
            world.cut();
            if with_crash {
                world.agent.restart(None);
            }
            for _ in 0..4 {
                world.connect();
            }
            let what = format!("cut after {steps} steps, killed: {with_crash}");
            assert_eq!((world.epochs(), world.agent.disk.quarantine), ((2, 2), None), "{what}");
            assert_eq!(world.store.host.standing, HostStanding::Active, "{what}");
            assert_eq!(world.agent.fresh_starts.get(&ran), Some(&1), "{what}");
            world.works();
        }
    }
}
