//! Lost acknowledgements, lost connections, failed transactions, restored copies.

use envelope::{audit::AuditKind, messages::ReportStatus};
use ids::{BootId, DurationMs, Sequence};
use session::frames::RefusalCode;

use super::{
    super::{Effect, Input},
    world::{Fate, World},
};
use crate::{
    limits,
    model::{CommandStatus, HostStanding},
};

/// Steps until the command was sent, and the host has not seen it.
fn until_sent(world: &mut World) {
    let before = world.delivered_count;
    while world.delivered_count == before {
        assert!(world.step_work(), "it is sent");
    }
}

#[test]
fn a_lost_delivery_is_sealed_again_and_runs_once() {
    let mut world = World::new();
    world.connect();
    let command = world.facts();
    until_sent(&mut world);
    world.connect();
    assert_eq!(world.seals(command), 2, "the hello showed that the first never came");
    world.finish(ReportStatus::Succeeded);
    assert_eq!(world.status(command), CommandStatus::Succeeded);
    assert_eq!(world.agent.fresh_starts[&command], 1);
}

#[test]
fn a_lost_acknowledgement_is_asked_for_with_the_stored_bytes() {
    let mut world = World::new();
    world.connect();
    let command = world.facts();
    until_sent(&mut world);
    while world.step_agent() {}
    world.sync_agent();
    assert_eq!(world.status(command), CommandStatus::Delivered, "the host has it, and its word is lost");
    world.connect();
    assert_eq!(world.seals(command), 1, "it is not sealed again");
    assert_eq!(world.status(command), CommandStatus::Running);
    world.finish(ReportStatus::Succeeded);
    assert_eq!(world.status(command), CommandStatus::Succeeded);
    assert_eq!(world.agent.fresh_starts[&command], 1);
}

#[test]
fn an_answer_lost_on_its_way_is_reported_again_and_acknowledged_again() {
    let mut world = World::new();
    world.connect();
    let command = world.facts();
    world.settle();
    let sent = world.agent.finish(ReportStatus::Succeeded, &serde_json::Value::Null);
    world.to_control.extend(sent);
    world.sync_agent();
    // Stored, and the acknowledgement does not arrive.
    while world.step_control() | world.step_work() {}
    assert_eq!(world.status(command), CommandStatus::Succeeded);
    assert_eq!(world.agent.disk.outbox.len(), 1);
    let acknowledged = world.acknowledged_count;
    world.connect();
    assert!(world.agent.disk.outbox.is_empty());
    assert_eq!(world.acknowledged_count, acknowledged + 1);
    assert_eq!(world.store.leaves(AuditKind::Report), 1);
}

#[test]
fn a_lost_delivery_past_its_time_expires_when_no_seal_is_good_any_more() {
    let mut world = World::new();
    world.connect();
    let command = world.facts();
    world.settle();
    world.cut();
    world.advance(limits::QUEUE_FOR_DEFAULT.min(DurationMs::from_mins(9)));
    world.connect();
    let lost = world.facts();
    until_sent(&mut world);
    world.cut();
    world.advance(DurationMs::from_mins(11));
    world.connect();
    assert_eq!(world.status(lost), CommandStatus::Expired);
    assert_eq!(world.status(command), CommandStatus::Running, "what the host has is its own");
    assert!(!world.agent.fresh_starts.contains_key(&lost));
}

/// Found by the simulation: the first of two seals arrives after all and runs, the second is lost, and the time to
/// deliver passes. Nobody may say that it never arrived.
#[test]
fn what_arrived_under_an_earlier_seal_does_not_expire_under_a_later_one() {
    let mut world = World::new();
    world.connect();
    let command = world.facts();
    until_sent(&mut world);
    let first = world.to_agent.pop_back().expect("it is under way");
    world.dial();
    let before = world.delivered_count;
    while world.delivered_count == before {
        if !world.step_work() && !world.step_control() {
            assert!(world.step_agent(), "it is sealed again and sent");
            world.sync_agent();
        }
    }
    assert_eq!(world.seals(command), 2);
    let second = world.to_agent.pop_back().expect("it is under way");
    world.to_agent.push_back(first);
    while world.step_agent() {}
    world.sync_agent();
    drop(second);
    world.cut();
    world.advance(DurationMs::from_mins(11));
    world.connect();
    assert_eq!(world.status(command), CommandStatus::Running, "the host was asked");
    world.finish(ReportStatus::Succeeded);
    assert_eq!(world.status(command), CommandStatus::Succeeded);
    assert_eq!(world.agent.fresh_starts[&command], 1);
}

/// The host carries on the time it was told when the session began, and would refuse orders of another time.
#[test]
fn a_session_whose_control_plane_was_given_another_time_ends() {
    for (set, by) in [("forward", DurationMs::from_mins(60)), ("back", DurationMs::from_mins(60))] {
        let mut world = World::new();
        world.connect();
        world.now = if set == "forward" { world.now.plus(by) } else { world.now.minus(by) };
        world.tell(Input::ClockSet(by));
        world.settle();
        assert_eq!(world.closes, [RefusalCode::Unavailable], "{set}");
        let command = world.facts();
        world.connect();
        assert_eq!(world.status(command), CommandStatus::Running, "{set}");
    }
}

#[test]
fn a_number_is_burned_with_its_failed_transaction() {
    for fate in [Fate::Lost, Fate::AppliedUnknown] {
        let mut world = World::new();
        world.connect();
        world.fates.push_back(fate);
        let commands = [world.facts(), world.facts(), world.facts()];
        world.settle();
        assert_eq!(world.delivered_count, 0, "nothing overtakes what failed");
        world.pass(limits::RETRY_FIRST);
        for command in commands {
            assert_eq!(world.status(command), CommandStatus::Running, "{fate:?}");
        }
        let first = &world.store.command(commands[0]).expect("stored").seals;
        assert!(first.last().expect("sealed").sequence > Sequence(1), "its number was not used again");
        let last = |id| world.store.command(id).and_then(|stored| stored.seals.last()).expect("sealed").sequence;
        assert!(commands.windows(2).all(|pair| last(pair[0]) < last(pair[1])), "still in order of proposal");
        world.finish(ReportStatus::Succeeded);
        assert!(commands.iter().all(|command| world.status(*command) == CommandStatus::Succeeded));
    }
}

#[test]
fn a_clock_set_back_does_not_keep_a_retry_waiting() {
    let mut world = World::new();
    world.connect();
    world.fates.push_back(Fate::Lost);
    let command = world.facts();
    world.settle();
    assert_eq!(world.status(command), CommandStatus::Queued, "the store failed");
    world.now = world.now.minus(DurationMs::from_mins(5));
    world.tell(Input::Tick);
    world.settle();
    assert_eq!(world.status(command), CommandStatus::Running);
}

#[test]
fn numbers_burned_in_an_earlier_session_cost_the_next_one_no_time() {
    let mut world = World::new();
    world.connect();
    world.fates.extend([Fate::Lost; 12]);
    let commands = [world.facts(), world.facts(), world.facts(), world.facts(), world.facts()];
    while !world.fates.is_empty() {
        world.pass(limits::RETRY_MAX);
    }
    world.cut();
    // The store knows of none of these numbers; the signer does.
    let burned = world.signed_count;
    assert!(burned >= 12, "{burned}");
    world.connect();
    for command in commands {
        assert_eq!(world.status(command), CommandStatus::Running, "at once, without any wait");
    }
}

#[test]
fn a_report_whose_transaction_failed_is_stored_later_and_only_then_acknowledged() {
    for fate in [Fate::Lost, Fate::AppliedUnknown] {
        let mut world = World::new();
        world.connect();
        let command = world.facts();
        world.settle();
        world.fates.push_back(fate);
        world.finish(ReportStatus::Succeeded);
        assert_eq!(world.acknowledged_count, 0);
        world.pass(limits::RETRY_FIRST);
        assert_eq!(world.status(command), CommandStatus::Succeeded);
        assert_eq!(world.acknowledged_count, 1, "{fate:?}");
        assert_eq!(world.store.leaves(AuditKind::Report), 1);
    }
}

#[test]
fn a_store_that_stays_away_is_tried_with_growing_waits() {
    let mut world = World::new();
    world.connect();
    world.fates.extend([Fate::Lost; 20]);
    let command = world.facts();
    world.settle();
    let mut waited = 0;
    while world.status(command) != CommandStatus::Running {
        world.pass(limits::RETRY_FIRST);
        waited += 1;
        assert!(waited < 5_000, "it recovers");
        if world.now.0 > world.store.host.enrolled_at.0 + 500_000 {
            world.fates.clear();
        }
    }
    assert!(waited > 20, "it does not hammer");
}

#[test]
fn the_signer_away_is_waited_for() {
    let mut world = World::new();
    world.connect();
    world.signer_down = true;
    let command = world.facts();
    world.settle();
    assert_eq!(world.status(command), CommandStatus::Queued);
    world.signer_down = false;
    world.pass(limits::RETRY_FIRST);
    assert_eq!(world.status(command), CommandStatus::Running);
}

#[test]
fn what_the_signer_refuses_for_good_ends_at_once_and_holds_nothing_back() {
    let mut world = World::new();
    let commands = [world.facts(), world.facts(), world.facts()];
    world.never_signed.extend(&commands[..2]);
    world.connect();
    world.settle();
    world.finish(ReportStatus::Succeeded);
    let status = commands.map(|command| world.status(command));
    assert_eq!(status, [CommandStatus::Rejected, CommandStatus::Rejected, CommandStatus::Succeeded]);
    let message = world.store.command(commands[0]).map(|stored| stored.message.clone()).unwrap_or_default();
    assert!(message.contains("signer refused it") && message.contains("it is not well-formed"), "{message}");
    assert_eq!(world.store.leaves(AuditKind::CommandSettled), 2);
}

#[test]
fn an_end_by_refusal_whose_transaction_failed_is_written_again() {
    let mut world = World::new();
    world.connect();
    let command = world.facts();
    world.never_signed.push(command);
    world.fates.push_back(Fate::Lost);
    world.settle();
    world.pass(limits::RETRY_MAX);
    world.settle();
    assert_eq!(world.status(command), CommandStatus::Rejected);
}

#[test]
fn a_restored_copy_of_the_host_gets_no_orders() {
    let mut world = World::new();
    world.connect();
    let copy = world.agent.disk.clone();
    let command = world.facts();
    world.settle();
    world.finish(ReportStatus::Succeeded);
    world.cut();
    world.agent.restart(Some(copy));
    let queued = world.facts();
    world.connect();
    assert!(matches!(world.store.host.standing, HostStanding::Quarantined { .. }));
    assert_eq!(world.store.leaves(AuditKind::Quarantine), 1);
    world.connect();
    assert_eq!(world.status(queued), CommandStatus::Queued);
    assert!(world.agent.disk.quarantine.is_some(), "the agent knows it by itself");
    assert_eq!(world.agent.fresh_starts.len(), 1);
    assert_eq!(world.status(command), CommandStatus::Succeeded);
}

#[test]
fn two_boots_that_take_turns_are_a_clone() {
    let mut world = World::new();
    world.connect();
    let first = world.agent.boot;
    world.cut();
    world.agent.boot = BootId::from_bytes([0xb1; 16]);
    world.agent.restart(None);
    world.connect();
    assert_eq!(world.store.host.standing, HostStanding::Active, "a reboot is no clone");
    let queued = world.facts();
    world.cut();
    world.agent.boot = first;
    world.agent.restart(None);
    let opened = world.opened;
    world.connect();
    assert!(matches!(world.store.host.standing, HostStanding::Quarantined { .. }));
    assert_eq!(world.closes, [RefusalCode::Quarantined]);
    assert_eq!(world.opened, opened, "nothing tells it to go on");
    world.connect();
    assert_eq!(world.closes.len(), 2, "and it stays so");
    assert_ne!(world.status(queued), CommandStatus::Succeeded);
}

#[test]
fn an_order_that_nobody_here_signed_is_an_alarm() {
    let mut world = World::new();
    world.connect();
    let command = world.facts();
    world.settle();
    world.finish(ReportStatus::Succeeded);
    world.cut();
    // The control plane never gave out that number.
    world.store.host.allocated = Sequence(0);
    world.store.host.acknowledged = Sequence(0);
    let queued = world.facts();
    world.connect();
    assert_eq!(world.store.leaves(AuditKind::Alarm), 1);
    assert!(matches!(world.store.host.standing, HostStanding::Quarantined { .. }));
    assert_eq!(world.status(queued), CommandStatus::Queued);
    assert_eq!(world.status(command), CommandStatus::Succeeded);
}

#[test]
fn quarantine_holds_while_it_cannot_be_stored() {
    let mut world = World::new();
    world.connect();
    let copy = world.agent.disk.clone();
    world.facts();
    world.settle();
    world.finish(ReportStatus::Succeeded);
    world.cut();
    world.agent.restart(Some(copy));
    let queued = world.facts();
    world.fates.extend([Fate::Lost; 3]);
    let signed = world.signed_count;
    world.connect();
    assert_eq!(world.status(queued), CommandStatus::Queued);
    for _ in 0..10 {
        world.tell(Input::QueueChanged);
        world.pass(limits::RETRY_FIRST);
        assert_eq!(world.status(queued), CommandStatus::Queued);
    }
    assert!(matches!(world.store.host.standing, HostStanding::Quarantined { .. }));
    assert_eq!(world.signed_count, signed, "nothing was even signed");
}

#[test]
fn a_seal_that_waited_too_long_for_the_store_is_never_stored() {
    let mut world = World::new();
    world.connect();
    let command = world.facts();
    // Signed, and its transaction could begin, but the store is busy with something else.
    while world.signed_count == 0 {
        world.tell(Input::QueueChanged);
        let signing = world.work.iter().position(|work| matches!(work, Effect::SignCommand { .. }));
        match signing {
            Some(at) => world.work.rotate_left(at),
            None => assert!(world.work.iter().all(|work| matches!(work, Effect::Load(_)))),
        }
        assert!(world.step_work());
    }
    world.advance(limits::QUEUE_FOR_DEFAULT.max(limits::SEAL_LIFETIME));
    world.advance(DurationMs(1));
    world.settle();
    assert_eq!((world.status(command), world.seals(command)), (CommandStatus::Expired, 0));
}

#[test]
fn crashes_of_the_host_at_every_step_run_nothing_twice() {
    for steps in 0..40 {
        let mut world = World::new();
        world.connect();
        let command = world.facts();
        for _ in 0..steps {
            if !(world.step_work() | world.step_agent() | world.step_control()) {
                world.sync_agent();
            }
        }
        world.cut();
        world.agent.restart(None);
        world.connect();
        world.finish(ReportStatus::Succeeded);
        assert_eq!(world.status(command), CommandStatus::Succeeded, "after {steps} steps");
    }
}
