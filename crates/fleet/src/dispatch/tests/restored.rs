//! A control plane that was put back to a backup: what was asked for before never goes out, what it forgot is not held against
//! the host, and nothing is ordered before somebody has said which hosts are revoked.

use std::sync::Arc;

use envelope::{
    audit::AuditKind,
    messages::{LogPosition, ReportPosition, ReportStatus},
    root::{TrustedRoot, sign_root},
};
use ids::{AuditLogId, DurationMs, Epoch, ReportSequence, RootVersion, Sequence, Sha256};

use super::{
    super::{Note, Recovering, cancel_void},
    store::MemoryStore,
    world::{HOST, World},
};
use crate::{
    model::{CommandStatus, HostStanding},
    ports::Write,
    recovery::{Heard, RecoveryHost},
};

/// The store comes back as it was, root metadata of after that is in force, and the host was taken up where it stands. Which hosts
/// are revoked was not confirmed.
fn restore(world: &mut World, backup: MemoryStore) {
    world.cut();
    world.advance(DurationMs::from_secs(1));
    world.heads.clear();
    let mut next = world.root.current().clone();
    (next.version, next.issued, next.epoch) = (RootVersion(next.version.0 + 1), world.now, Epoch(next.epoch.0 + 1));
    next.restored_log = Some(LogPosition { log: next.audit_log, size: 1_000, root: Sha256::ZERO });
    next.audit_log = AuditLogId::from_bytes([0x77; 16]);
    let mut root = TrustedRoot::clone(&world.root);
    root.advance(&sign_root(&[&world.keys.root], &next)).expect("it follows");
    world.root = Arc::new(root);
    let (known, disk) = (backup.host.allocated, &world.agent.disk);
    let last_report = disk.last_report.unwrap_or(ReportPosition::START);
    let heard = Heard { at: world.now, high: disk.high, last_report, head: disk.audit_head };
    let host = RecoveryHost {
        host: HOST,
        name: backup.host.name.clone(),
        is_revoked: false,
        allocated: known,
        adopted_at: Some(world.now),
        heard: Some(heard),
    };
    world.store = backup;
    world.store.host.allocated = known.max(world.agent.disk.high);
    world.recovery = Recovering { is_held: true, host: Some(host) };
    world.connect();
}

fn confirm(world: &mut World) {
    world.recovery.is_held = false;
    world.connect();
}

fn runs_one(world: &mut World) {
    let command = world.facts();
    world.settle();
    world.finish(ReportStatus::Succeeded);
    assert_eq!(world.status(command), CommandStatus::Succeeded);
}

#[test]
fn what_waited_when_the_backup_was_made_is_cancelled_and_never_sealed() {
    let mut world = World::new();
    let command = world.facts();
    let backup = world.store.clone();
    restore(&mut world, backup);
    assert_eq!((world.status(command), world.seals(command)), (CommandStatus::Cancelled, 0));
    confirm(&mut world);
    assert!(world.agent.fresh_starts.is_empty());
    runs_one(&mut world);
}

#[test]
fn nothing_is_sealed_before_somebody_has_confirmed_and_all_of_it_after() {
    let mut world = World::new();
    let backup = world.store.clone();
    restore(&mut world, backup);
    let command = world.facts();
    world.settle();
    world.connect();
    assert_eq!((world.status(command), world.seals(command)), (CommandStatus::Queued, 0));
    confirm(&mut world);
    world.finish(ReportStatus::Succeeded);
    assert_eq!(world.status(command), CommandStatus::Succeeded);
}

#[test]
fn what_was_sent_and_never_came_expires_and_is_not_sealed_again() {
    let mut world = World::new();
    world.connect();
    let command = world.facts();
    while world.delivered_count == 0 {
        assert!(world.step_work(), "it is sent");
    }
    let backup = world.store.clone();
    restore(&mut world, backup);
    assert_eq!(world.status(command), CommandStatus::Delivered, "no order goes out, and so none is given up");
    confirm(&mut world);
    assert_eq!((world.status(command), world.seals(command)), (CommandStatus::Expired, 1));
    assert!(world.agent.fresh_starts.is_empty());
    runs_one(&mut world);
}

#[test]
fn what_runs_since_before_the_backup_says_itself_how_it_ends() {
    let mut world = World::new();
    world.connect();
    let command = world.facts();
    world.settle();
    assert_eq!(world.status(command), CommandStatus::Running);
    let backup = world.store.clone();
    restore(&mut world, backup);
    world.finish(ReportStatus::Succeeded);
    assert_eq!(world.status(command), CommandStatus::Succeeded, "reports come in before the confirmation");
    assert_eq!((world.seals(command), world.agent.fresh_starts[&command]), (1, 1));
}

/// An order that the backup has as waiting was given out and carried out since.
#[test]
fn a_report_on_what_was_given_out_after_the_backup_is_kept_and_held_against_nobody() {
    let mut world = World::new();
    let command = world.facts();
    let backup = world.store.clone();
    world.connect();
    assert_eq!(world.seals(command), 1);
    let sent = world.agent.finish(ReportStatus::Succeeded, &serde_json::Value::Null);
    drop(sent);
    world.sync_agent();
    restore(&mut world, backup);
    assert_eq!(world.store.host.standing, HostStanding::Active);
    assert_eq!(world.store.host.last_report.sequence, ReportSequence(1), "it is in the chain");
    assert_eq!(world.status(command), CommandStatus::Cancelled, "here it was never given out");
    assert_eq!((world.store.leaves(AuditKind::Report), world.store.leaves(AuditKind::Alarm)), (1, 1));
    let says = |note: &Note| matches!(note, Note::Report(why) if why.contains("its order is lost"));
    assert!(world.notes.iter().any(says), "{:?}", world.notes);
    confirm(&mut world);
    runs_one(&mut world);
    let numbers = world.store.commands.iter().flat_map(|command| &command.seals).map(|seal| seal.sequence);
    assert_eq!(numbers.collect::<Vec<_>>(), [Sequence(2)], "numbers go on above the host's");
}

/// The backup has it as sent; it never came, and was sealed and carried out after the backup was made.
#[test]
fn what_was_sent_before_the_backup_and_sealed_again_after_it_ends_as_its_host_says() {
    let mut world = World::new();
    world.connect();
    let command = world.facts();
    while world.delivered_count == 0 {
        assert!(world.step_work(), "it is sent");
    }
    let backup = world.store.clone();
    world.connect();
    assert_eq!(world.seals(command), 2);
    let sent = world.agent.finish(ReportStatus::Succeeded, &serde_json::Value::Null);
    drop(sent);
    world.sync_agent();
    restore(&mut world, backup);
    assert_eq!((world.status(command), world.seals(command)), (CommandStatus::Succeeded, 1));
    assert_eq!(world.store.host.standing, HostStanding::Active);
    let kinds: Vec<_> = world.store.audit.iter().map(|entry| entry.kind).collect();
    let report = kinds.iter().position(|kind| *kind == AuditKind::Report).expect("it is in the log");
    assert_eq!(kinds.get(report + 1), Some(&AuditKind::Alarm), "and beside it that its seal is not");
    assert_eq!(world.agent.fresh_starts[&command], 1);
}

/// Without a restore the same report is another's doing.
#[test]
fn without_a_restore_a_report_on_what_was_never_given_out_is_not_taken_for_lost() {
    let mut world = World::new();
    let command = world.facts();
    let backup = world.store.clone();
    world.connect();
    let sent = world.agent.finish(ReportStatus::Succeeded, &serde_json::Value::Null);
    drop(sent);
    world.sync_agent();
    world.cut();
    world.store = backup;
    world.connect();
    assert!(matches!(world.store.host.standing, HostStanding::Quarantined { .. }));
    assert_ne!(world.status(command), CommandStatus::Succeeded);
}

#[test]
fn of_all_hosts_orders_what_was_never_sealed_is_cancelled_and_nothing_else() {
    let mut world = World::new();
    world.connect();
    let sealed = world.facts();
    world.settle();
    world.cut();
    let queued = world.facts();
    world.advance(DurationMs::from_secs(1));
    let restored_at = world.now;
    let later = world.facts();
    let writes = cancel_void(restored_at, world.now, &world.store.commands);
    let ended: Vec<_> = writes
        .iter()
        .map(|write| match write {
            Write::CommandEnd { command, status, .. } => (*command, *status),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(ended, [(queued, CommandStatus::Cancelled)], "not {sealed}, not {later}");
}
