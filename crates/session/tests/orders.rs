//! One order at a time, from delivery to acknowledged report, and every way it may not run.

mod support;

use envelope::messages::{ReportStatus, SealedRef, SealedValue};
use ids::{CommandId, DurationMs, Epoch, HostEpoch, HostId, Sequence, Sha256, UnixMs, sha256};
use session::{
    agent::io::{AgentEvent, CloseReason, Input},
    frames::{ControlFrame, Stage},
};
use support::World;

#[test]
fn an_order_runs_once_and_its_report_is_acknowledged() {
    let mut world = World::new();
    world.connect();
    assert!(world.plane.is_fit());
    let id = world.command("app.deploy", "shop");
    world.settle();
    assert_eq!(world.plane.stages[&id], Stage::Started);
    assert!(world.host.running.contains_key(&id));
    world.host_input(Input::Progress { command: id, text: "pulling".to_owned() });
    world.finish(id);
    assert_eq!(world.status(id), Some(ReportStatus::Succeeded));
    assert_eq!(world.plane.progress, ["pulling"]);
    assert_eq!(world.host.starts[&id], (1, 1));
    assert!(world.host.disk.outbox.is_empty(), "the acknowledgement is durable");
    assert!(world.host.disk.open.is_empty());
    assert_eq!(world.host.disk.high, Sequence(1));
}

#[test]
fn nothing_leaves_before_it_is_durable() {
    let mut world = World::new();
    world.connect();
    let id = world.command("host.facts", "");
    world.step_host();
    assert!(world.to_plane.is_empty(), "the acceptance is not durable yet");
    assert!(world.host.starts.is_empty());
    let sent = world.host.sync_one();
    assert_eq!(sent.len(), 1, "durable now: {sent:?}");
    assert!(world.host.starts.is_empty(), "its start is not durable yet");
    world.host.sync_one();
    assert_eq!(world.host.starts[&id], (1, 1));
}

/// Delivers one changed command; it must end without running, and say why.
#[track_caller]
fn refused(status: ReportStatus, words: &str, change: impl FnOnce(&mut envelope::messages::Command)) {
    let mut world = World::new();
    world.connect();
    let before = world.command("host.facts", "");
    world.settle();
    world.finish(before);
    let order = world.order("app.deploy", "shop");
    let mut command = world.plane.command(&order, world.host.now.wall);
    change(&mut command);
    let id = command.order.command;
    let envelope = world.keys.command.sign(&command).into_envelope();
    world.deliver(envelope.clone());
    assert_eq!(world.status(id), Some(status));
    assert!(world.message(id).contains(words), "{}", world.message(id));
    assert!(!world.host.starts.contains_key(&id));
    // Refused once is refused for good: neither the same bytes nor a restart changes that.
    world.deliver(envelope.clone());
    world.crash(0);
    world.connect();
    world.deliver(envelope);
    assert!(!world.host.starts.contains_key(&id));
    assert_eq!(world.plane.reports_of(id), 1);
}

#[test]
fn a_command_that_fails_a_check_ends_durably_and_says_which() {
    use ReportStatus::{Expired, Rejected, Unknown};
    refused(Unknown, "sequence", |c| c.sequence = Sequence(1));
    refused(Rejected, "sequence", |c| c.sequence = Sequence(u64::MAX));
    refused(Rejected, "time: it is valid only", |c| {
        c.not_before = UnixMs(c.not_before.0 + 31_000);
        c.expires = c.not_before;
    });
    refused(Expired, "time: it expired", |c| {
        c.not_before = UnixMs(c.not_before.0 - 60_000);
        c.expires = UnixMs(c.not_before.0 + 59_000);
    });
    refused(Expired, "time: it had to be delivered", |c| {
        c.order.proposed_at = UnixMs(c.issued.0 - 2);
        c.order.deliver_by = UnixMs(c.issued.0 - 1);
    });
    refused(Rejected, "time: it is valid for longer", |c| c.expires = UnixMs(c.not_before.0 + 300_001));
    refused(Rejected, "policy: no.such is not registered", |c| {
        c.order.action = "no.such".parse().expect("a name");
    });
    refused(Rejected, "sealed values", |c| {
        c.order.sealed = vec![SealedRef { name: "web/PASSWORD".to_owned(), sha256: Sha256([1; 32]) }];
    });
}

#[test]
fn a_jump_to_the_last_number_does_not_use_up_the_others() {
    let mut world = World::new();
    world.connect();
    let order = world.order("host.facts", "");
    let mut command = world.plane.command(&order, world.host.now.wall);
    command.sequence = Sequence(u64::MAX);
    world.deliver(world.keys.command.sign(&command).into_envelope());
    assert_eq!(world.host.disk.high, Sequence(0));
    let id = world.command("host.facts", "");
    world.settle();
    world.finish(id);
    assert_eq!(world.status(id), Some(ReportStatus::Succeeded));
}

/// Delivers one changed command; it cannot be tied to an order of this host, so the session ends.
#[track_caller]
fn dropped(words: &str, change: impl FnOnce(&mut envelope::messages::Command)) {
    let mut world = World::new();
    world.connect();
    let order = world.order("host.facts", "");
    let mut command = world.plane.command(&order, world.host.now.wall);
    change(&mut command);
    let before = world.host.disk.clone();
    world.deliver(world.keys.command.sign(&command).into_envelope());
    let Some((true, CloseReason::NotAuthentic { what: "command", why })) = world.host.closed.last() else {
        panic!("not closed: {:?}", world.host.closed);
    };
    assert!(why.contains(words), "{why}");
    assert!(world.host.events.iter().any(|event| matches!(event, AgentEvent::Dropped { count: 1, .. })));
    assert_eq!(world.host.disk, before);
}

#[test]
fn a_command_that_is_not_for_this_host_ends_the_session() {
    dropped("another fleet", |c| c.order.fleet = ids::FleetId::from_bytes([0xee; 16]));
    dropped("another host", |c| c.order.host = HostId::from_bytes([0xee; 16]));
    dropped("another epoch", |c| c.host_epoch = HostEpoch(2));
    dropped("voided the key or the epoch", |c| c.epoch = Epoch(0));
    dropped("epoch is not that of this host's root metadata", |c| c.epoch = Epoch(2));
}

#[test]
fn every_flipped_byte_of_a_command_is_noticed() {
    let mut world = World::new();
    let order = world.order("host.facts", "");
    let good = world.plane.seal(&world.keys.command, &order, world.host.now.wall);
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 1 << (at % 8);
        world.connect();
        let closed = world.host.closed.len();
        world.deliver(bad);
        assert_eq!(world.host.closed.len(), closed + 1, "byte {at}");
        assert!(world.host.starts.is_empty() && world.host.disk.ring.is_empty(), "byte {at}");
    }
    world.connect();
    world.deliver(good);
    assert_eq!(world.host.starts.len(), 1, "and the whole one runs");
}

#[test]
fn a_replayed_command_is_answered_and_not_run() {
    let mut world = World::new();
    world.connect();
    let order = world.order("host.facts", "");
    let envelope = world.plane.seal(&world.keys.command, &order, world.host.now.wall);
    world.deliver(envelope.clone());
    world.deliver(envelope.clone());
    world.finish(order.command);
    world.deliver(envelope.clone());
    world.crash(0);
    world.connect();
    world.deliver(envelope);
    assert_eq!(world.host.starts[&order.command], (1, 1));
    assert_eq!(world.plane.stages[&order.command], Stage::Done);
    assert_eq!(world.plane.reports_of(order.command), 1);
}

#[test]
fn the_same_id_with_another_content_is_a_conflict() {
    let mut world = World::new();
    world.connect();
    let mut order = world.order("app.deploy", "shop");
    world.send_order(&order);
    world.settle();
    order.parameters = b"blog".to_vec();
    world.send_order(&order);
    world.settle();
    assert!(matches!(world.host.closed.last(), Some((true, CloseReason::NotAuthentic { .. }))));
    world.connect();
    world.finish(order.command);
    assert_eq!(world.status(order.command), Some(ReportStatus::Succeeded), "the true one is untouched");
}

#[test]
fn an_order_sealed_again_after_a_lost_answer_runs_once() {
    let mut world = World::new();
    world.connect();
    let order = world.order("host.facts", "");
    world.send_order(&order);
    world.step_host();
    world.sync();
    world.cut(); // the acceptance never arrived
    world.connect();
    world.send_order(&order);
    world.settle();
    world.finish(order.command);
    assert_eq!(world.host.starts[&order.command], (1, 1));
    assert_eq!(world.plane.reports_of(order.command), 1);
    assert_eq!(world.plane.acknowledged, Sequence(1), "answered under the sequence it was taken with");
    assert_eq!(world.plane.allocated, Sequence(2));
    world.connect();
    assert!(world.plane.is_fit());
}

#[test]
fn sealed_values_must_be_those_the_order_names() {
    for (bytes, runs) in [(b"right", true), (b"wrong", false)] {
        let mut world = World::new();
        world.connect();
        let mut order = world.order("app.deploy", "shop");
        order.sealed = vec![SealedRef { name: "web/PASSWORD".to_owned(), sha256: sha256(b"right") }];
        let command = world.plane.seal(&world.keys.command, &order, world.host.now.wall);
        let sealed = vec![SealedValue { name: "web/PASSWORD".to_owned(), bytes: bytes.to_vec() }];
        world.to_host.push(ControlFrame::Deliver { command, sealed, approvals: Vec::new() });
        world.settle();
        assert_eq!(world.host.starts.contains_key(&order.command), runs);
    }
}

#[test]
fn one_change_per_app_in_order_and_reads_never_wait() {
    let mut world = World::new();
    world.connect();
    let first = world.command("app.deploy", "shop");
    let second = world.command("app.restart", "shop");
    let third = world.command("app.deploy", "shop");
    let other = world.command("app.deploy", "blog");
    let read = world.command("host.facts", "");
    world.settle();
    let running = |world: &World| world.host.running.keys().copied().collect::<Vec<CommandId>>();
    let sorted = |mut ids: Vec<CommandId>| {
        ids.sort();
        ids
    };
    assert_eq!(running(&world), sorted(vec![first, other, read]));
    world.finish(first);
    assert_eq!(running(&world), sorted(vec![first, other, read, second]));
    world.finish(second);
    assert_eq!(running(&world), sorted(vec![first, other, read, second, third]));
}

#[test]
fn a_dry_run_waits_for_no_lock() {
    let mut world = World::new();
    world.connect();
    world.command("app.deploy", "shop");
    let mut order = world.order("app.deploy", "shop");
    order.dry_run = true;
    world.send_order(&order);
    world.settle();
    assert!(world.host.running.contains_key(&order.command));
}

#[test]
fn what_waited_too_long_for_its_lock_expires() {
    let mut world = World::new();
    world.connect();
    world.command("app.deploy", "shop");
    let waiting = world.command("app.deploy", "shop");
    world.settle();
    world.advance(DurationMs::from_mins(31));
    world.host_input(Input::Tick);
    world.settle();
    assert_eq!(world.status(waiting), Some(ReportStatus::Expired));
}

#[test]
fn policy_is_asked_again_at_the_start() {
    let mut world = World::new();
    world.connect();
    let first = world.command("app.deploy", "shop");
    let waiting = world.command("app.deploy", "shop");
    world.settle();
    world.host.registry.forbidden = true;
    world.finish(first);
    assert_eq!(world.status(waiting), Some(ReportStatus::Rejected));
    assert!(world.message(waiting).contains("line 3"));
    assert!(!world.host.starts.contains_key(&waiting));
}

#[test]
fn a_class_that_needs_approvals_is_refused() {
    let mut world = World::with_root(|root| {
        root.approver_keys = vec![envelope::messages::PublicKeyBytes(
            *envelope::keys::SigningKey::<envelope::keys::role::Approver>::from_seed(&[6; 32])
                .public()
                .0
                .first_chunk()
                .expect("32"),
        )];
        root.approvals.destructive = 1;
    });
    world.connect();
    let wipe = world.command("disk.wipe", "");
    let deploy = world.command("app.deploy", "shop");
    world.settle();
    assert_eq!(world.status(wipe), Some(ReportStatus::Rejected));
    assert!(world.message(wipe).contains("approvals"));
    assert!(world.host.running.contains_key(&deploy));
}

#[test]
fn a_wrong_clock_stops_what_destroys_and_nothing_else() {
    let mut world = World::new();
    world.plane.time_offset = DurationMs::from_mins(6);
    world.connect();
    let now = world.host.now.wall.plus(DurationMs::from_mins(6));
    let mut sealed = |action: &str, parameters: &str| {
        let n = world.fresh();
        let order = world.plane.order(action, parameters, n, now);
        let envelope = world.plane.seal(&world.keys.command, &order, now);
        world.to_host.push(ControlFrame::Deliver { command: envelope, sealed: Vec::new(), approvals: Vec::new() });
        order.command
    };
    let wipe = sealed("disk.wipe", "");
    let deploy = sealed("app.deploy", "shop");
    world.settle();
    assert_eq!(world.status(wipe), Some(ReportStatus::Rejected));
    assert!(world.message(wipe).contains("clock"));
    assert!(world.host.running.contains_key(&deploy));
}

#[test]
fn an_expired_root_lets_reads_through_and_nothing_else() {
    let mut world = World::with_root(|root| root.expires = UnixMs(support::START.0 - 1));
    world.connect();
    let read = world.command("host.facts", "");
    let deploy = world.command("app.deploy", "shop");
    world.settle();
    assert!(world.host.running.contains_key(&read));
    assert_eq!(world.status(deploy), Some(ReportStatus::Rejected));
    assert!(world.message(deploy).contains("root metadata"));
}

#[test]
fn reports_wait_for_their_acknowledgement_and_are_sent_again() {
    let mut world = World::new();
    world.plane.silent = true;
    world.connect();
    let ids: Vec<CommandId> = (0..3).map(|_| world.command("host.facts", "")).collect();
    world.settle();
    for id in &ids {
        world.finish(*id);
    }
    assert_eq!(world.host.disk.outbox.len(), 3);
    world.crash(0);
    world.plane.silent = false;
    world.connect();
    assert!(world.host.disk.outbox.is_empty());
    assert_eq!(world.plane.received, [(1, 2), (2, 2), (3, 2)].into());
    assert!(ids.iter().all(|id| world.plane.reports_of(*id) == 1));
}

#[test]
fn too_many_outstanding_commands_are_refused_and_room_is_kept_for_cancels() {
    let mut world = World::new();
    world.plane.silent = true;
    world.connect();
    let first = world.command("app.deploy", "shop");
    for _ in 0..session::limits::OPEN_MAX {
        world.command("app.deploy", "shop");
    }
    world.settle();
    let refused: Vec<_> =
        world.plane.reports.values().filter(|(_, report)| report.status == ReportStatus::Rejected).collect();
    assert_eq!(refused.len(), 1);
    let cancel = world.command("command.cancel", &first.to_string());
    world.settle();
    assert_eq!(world.host.cancelled, [first]);
    assert_eq!(world.status(cancel), Some(ReportStatus::Succeeded));
}

#[test]
fn when_no_place_is_left_deliveries_wait_until_reports_are_taken() {
    let mut world = World::new();
    world.plane.silent = true;
    world.connect();
    // Refused at once, so each takes the place of a report until it is acknowledged.
    for _ in 0..session::limits::OUTBOX_PLACES_MAX {
        world.command("no.such", "");
        world.settle();
    }
    assert_eq!(world.host.disk.outbox.len(), session::limits::OUTBOX_PLACES_MAX);
    assert!(world.host.agent.may_read());
    let held: Vec<_> = (0..session::limits::HELD_FRAMES_MAX).map(|_| world.command("host.facts", "")).collect();
    world.settle();
    assert!(!world.host.agent.may_read(), "the agent stops reading");
    assert!(world.host.closed.is_empty());
    assert!(!world.host.starts.contains_key(&held[0]));
    // The window's reports are acknowledged one by one: places come free, in order.
    world.plane.silent = false;
    for (sequence, (sha256, _)) in world.plane.reports.clone() {
        let sequence = ids::ReportSequence(sequence);
        world.to_host.push(ControlFrame::ReportAcknowledged { sequence, sha256 });
    }
    world.settle();
    assert!(world.host.agent.may_read());
    // Those beyond what may run at once wait for their turn.
    assert_eq!(world.host.starts.len(), session::limits::RUNNING_FREE_MAX);
    assert!(world.host.starts.contains_key(&held[0]));
}

#[test]
fn the_ring_forgets_only_what_is_settled_and_what_it_forgot_never_runs() {
    let mut world = World::new();
    world.connect();
    let oldest = world.command("app.deploy", "shop");
    let order = world.order("host.facts", "");
    let forgotten = world.plane.seal(&world.keys.command, &order, world.host.now.wall);
    world.deliver(forgotten.clone());
    world.finish(order.command);
    for _ in 0..session::limits::RING_MAX {
        world.command("no.such", "");
        world.settle();
    }
    assert_eq!(world.host.disk.ring.len(), session::limits::RING_MAX);
    assert_eq!(world.host.disk.ring[0].command, oldest, "it is still running, so it is not forgotten");
    let remembers = |world: &World, id| world.host.disk.ring.iter().any(|entry| entry.command == id);
    assert!(!remembers(&world, order.command));
    // Ended, and its report not taken yet: still not forgotten.
    world.plane.silent = true;
    world.finish(oldest);
    world.command("no.such", "");
    world.settle();
    assert!(remembers(&world, oldest));
    world.plane.silent = false;
    world.connect();
    world.command("no.such", "");
    world.settle();
    assert!(!remembers(&world, oldest));
    world.deliver(forgotten);
    let reports: Vec<_> = world.plane.reports.values().filter(|(_, report)| report.command == order.command).collect();
    assert_eq!(reports.len(), 2);
    assert_eq!(reports[1].1.status, ReportStatus::Unknown);
    assert_eq!(world.host.starts[&order.command], (1, 1));
}

#[test]
fn a_result_that_does_not_fit_is_replaced_by_words() {
    let mut world = World::new();
    world.connect();
    let id = world.command("host.facts", "");
    world.settle();
    let end = session::agent::io::End {
        status: ReportStatus::Succeeded,
        result: vec![b' '; session::limits::RESULT_BYTES_MAX + 1],
        output_sha256: sha256(b"output"),
        output_truncated: false,
    };
    world.host_input(Input::Finished { command: id, end });
    world.settle();
    assert_eq!(world.status(id), Some(ReportStatus::Succeeded));
    assert!(world.message(id).contains("was left out"));
}
