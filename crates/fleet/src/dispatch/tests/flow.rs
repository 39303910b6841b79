//! From proposal to settlement when nothing goes wrong, and what people do meanwhile.

use envelope::{audit::AuditKind, messages::ReportStatus};
use ids::DurationMs;
use session::frames::RefusalCode;

use super::{super::Input, world::World};
use crate::{
    dispatch::expire_queued,
    limits,
    model::{CommandStatus, HostStanding},
    ports::{AuditEntry, AuditRecord, Event, Write},
};

#[test]
fn a_command_goes_from_queued_to_succeeded() {
    let mut world = World::new();
    world.connect();
    let command = world.facts();
    world.settle();
    assert_eq!(world.status(command), CommandStatus::Running);
    world.finish(ReportStatus::Succeeded);
    assert_eq!(world.status(command), CommandStatus::Succeeded);
    assert_eq!(world.store.command(command).map(|stored| stored.message.as_str()), Some("done"));
    assert!(world.agent.disk.outbox.is_empty(), "the report was acknowledged");
    assert_eq!((world.store.leaves(AuditKind::Command), world.store.leaves(AuditKind::Report)), (1, 1));
    let seen: Vec<CommandStatus> = world
        .events
        .iter()
        .filter_map(|event| match event {
            Event::Command { status, .. } => Some(*status),
            _ => None,
        })
        .collect();
    assert_eq!(seen.first(), Some(&CommandStatus::Delivered));
    assert_eq!(seen.last(), Some(&CommandStatus::Succeeded));
}

#[test]
fn what_was_queued_while_the_host_was_away_goes_in_order_of_proposal() {
    let mut world = World::new();
    let commands: Vec<_> = (0..50).map(|_| world.facts()).collect();
    world.connect();
    while !world.agent.running.is_empty() {
        world.finish(ReportStatus::Succeeded);
    }
    let sequences: Vec<_> =
        commands.iter().map(|id| world.store.command(*id).expect("stored").seals[0].sequence.0).collect();
    assert_eq!(sequences, (1..=50).collect::<Vec<u64>>());
    assert!(commands.iter().all(|id| world.status(*id) == CommandStatus::Succeeded));
}

#[test]
fn the_window_is_bounded_and_a_cancellation_passes_it() {
    let mut world = World::new();
    world.connect();
    let first = world.remove();
    for _ in 1..limits::UNACKNOWLEDGED_MAX {
        world.remove();
    }
    // The host says nothing: its frames do not arrive.
    while world.step_work() {}
    assert_eq!(world.delivered_count, limits::UNACKNOWLEDGED_MAX);
    world.remove();
    while world.step_work() {}
    assert_eq!(world.delivered_count, limits::UNACKNOWLEDGED_MAX, "the window is full");
    world.cancel(first);
    while world.step_work() {}
    assert_eq!(world.delivered_count, limits::UNACKNOWLEDGED_MAX + 1, "a cancellation goes all the same");
}

#[test]
fn a_refused_order_is_refused_for_good() {
    let mut world = World::new();
    world.agent.registry.forbidden = Some("host.facts");
    world.connect();
    let command = world.facts();
    world.settle();
    assert_eq!(world.status(command), CommandStatus::Rejected);
    let message = world.store.command(command).expect("stored").message.clone();
    assert!(message.contains("policy.toml line 3"), "{message}");
    world.agent.registry.forbidden = None;
    world.connect();
    assert_eq!(world.status(command), CommandStatus::Rejected);
    assert!(world.agent.fresh_starts.is_empty());
}

#[test]
fn a_queued_command_is_cancelled_here() {
    let mut world = World::new();
    let command = world.facts();
    world.cancel(command);
    assert_eq!(world.status(command), CommandStatus::Cancelled);
    world.connect();
    assert!(world.agent.fresh_starts.is_empty());
    assert_eq!(world.store.leaves(AuditKind::Cancel), 1);
}

#[test]
fn a_running_command_is_stopped_by_its_host() {
    let mut world = World::new();
    world.connect();
    let command = world.remove();
    world.settle();
    world.cancel(command);
    world.settle();
    assert_eq!(world.agent.stopped, [command]);
    world.finish(ReportStatus::Cancelled);
    assert_eq!(world.status(command), CommandStatus::Cancelled);
}

#[test]
fn a_command_cancelled_between_signing_and_storing_is_never_sent() {
    let mut world = World::new();
    world.connect();
    let command = world.facts();
    // Read, signed; the transaction is about to begin.
    while world.store.command(command).is_some_and(|stored| stored.seals.is_empty())
        && !world.work.iter().any(|work| matches!(work, super::super::Effect::Write(..)))
    {
        assert!(world.step_work());
    }
    world.cancel(command);
    world.settle();
    assert_eq!(world.status(command), CommandStatus::Cancelled);
    assert_eq!(world.delivered_count, 0);
    let after = world.facts();
    world.settle();
    assert_eq!(world.status(after), CommandStatus::Running, "the session goes on");
}

#[test]
fn a_queued_command_expires_with_and_without_a_session() {
    let mut world = World::new();
    world.signer_down = true;
    world.connect();
    let command = world.facts();
    world.settle();
    assert_eq!(world.status(command), CommandStatus::Queued);
    world.pass(limits::QUEUE_FOR_DEFAULT);
    world.pass(DurationMs(5));
    assert_eq!(world.status(command), CommandStatus::Expired);

    let mut world = World::new();
    let command = world.facts();
    assert!(expire_queued(world.now.plus(limits::QUEUE_FOR_DEFAULT), &world.store.commands).is_empty());
    world.advance(limits::QUEUE_FOR_DEFAULT);
    world.advance(DurationMs(1));
    for write in expire_queued(world.now, &world.store.commands.clone()) {
        world.store.apply(write).expect("nothing came before");
    }
    assert_eq!(world.status(command), CommandStatus::Expired);
    assert_eq!(world.store.leaves(AuditKind::CommandSettled), 1);
}

#[test]
fn revocation_ends_an_open_session_and_every_later_one() {
    let mut world = World::new();
    world.connect();
    let running = world.facts();
    world.settle();
    let audit = AuditEntry {
        time: world.now,
        kind: AuditKind::HostRevoked,
        actor: "ada".to_owned(),
        subject: "host web-1".to_owned(),
        record: AuditRecord::Inline(b"{}".to_vec()),
    };
    let host = world.store.host.id;
    let at = world.now;
    world.store.apply(Write::HostRevoke { host, at, audit }).expect("it is revoked");
    world.tell(Input::Revoked);
    assert_eq!(world.closes, [RefusalCode::HostRefused]);
    world.settle();
    world.finish(ReportStatus::Succeeded);
    assert_eq!(world.status(running), CommandStatus::Unknown);
    world.connect();
    assert!(world.session.is_none(), "the handshake refuses it");
}

#[test]
fn revocation_that_was_only_seen_in_the_store_ends_the_session_too() {
    let mut world = World::new();
    world.connect();
    world.store.host.standing = HostStanding::Revoked { at: world.now, is_retired: false };
    world.tell(Input::QueueChanged);
    world.settle();
    assert_eq!(world.closes, [RefusalCode::HostRefused]);
}

#[test]
fn a_newer_session_ends_an_older_one() {
    let mut world = World::new();
    world.connect();
    world.tell(Input::Superseded);
    assert_eq!(world.closes, [RefusalCode::Superseded]);
    let session = world.session.as_mut().expect("its machine");
    assert!(session.is_closed() && !session.is_reading());
    assert!(session.handle(Input::QueueChanged, world.now, &mut |_: &mut [u8]| {}).is_empty(), "it does nothing more");
}

#[test]
fn a_session_is_renewed_within_the_hour() {
    let mut world = World::new();
    world.connect();
    world.pass(session::limits::SESSION_MAX);
    assert!(world.closes.is_empty());
    world.pass(DurationMs(1));
    assert_eq!(world.closes, [RefusalCode::Unavailable]);
}

#[test]
fn what_the_agent_is_gets_stored_once() {
    let mut world = World::new();
    world.connect();
    assert_eq!(world.store.host.boots, [world.agent.boot]);
    assert_eq!(world.store.host.agent_version, "0.1.0");
    world.dial();
    let mut writes = 0;
    while world.step_control() | world.step_agent() | {
        writes += usize::from(matches!(world.work.front(), Some(super::super::Effect::Write(..))));
        world.step_work()
    } {}
    assert_eq!(writes, 0, "nothing is written for a session that shows nothing new");
    assert_eq!(world.opened, 2);
}

#[test]
fn the_log_of_a_session_verifies_offline() {
    let mut world = World::new();
    world.connect();
    for _ in 0..3 {
        world.facts();
    }
    world.settle();
    world.finish(ReportStatus::Succeeded);
    let lost = world.facts();
    while world.seals(lost) == 0 {
        assert!(world.step_work());
    }
    world.connect();
    world.finish(ReportStatus::Failed);
    let export = world.export();
    let verdict = envelope::audit_verify::verify_export(&export, world.keys.root.public()).expect("it verifies");
    assert_eq!((verdict.orders, verdict.reports, verdict.alarms), (5, 4, 0));
    assert_eq!(verdict.outstanding, []);
    assert_eq!(verdict.signed, export.entries.len() as u64);
}

#[test]
fn how_far_a_hosts_clock_is_off_is_noted_when_its_session_opens() {
    let mut world = World::new();
    world.connect();
    assert_eq!(world.store.host.clock_skew_ms, Some(0));
    for (ahead_ms, noted) in [(90_000, 90_000), (90_400, 90_000), (0, 0)] {
        world.agent.now.wall = world.now.plus(DurationMs(ahead_ms));
        world.connect();
        assert_eq!(world.store.host.clock_skew_ms, Some(noted), "{ahead_ms} ms ahead");
    }
    world.agent.now.wall = world.now.minus(DurationMs(400_000));
    world.connect();
    assert_eq!(world.store.host.clock_skew_ms, Some(-400_000));
    world.facts();
    world.settle();
    world.finish(ReportStatus::Succeeded);
    assert_eq!(world.closes, [], "it takes orders all the same");
}
