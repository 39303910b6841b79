//! Cancellations: what they stop, and what they need for it.

mod support;

use envelope::messages::*;
use ids::*;
use support::World;

#[test]
fn a_cancel_stops_what_waits_and_what_runs() {
    let mut world = World::new();
    world.connect();
    let running = world.command("app.deploy", "shop");
    let waiting = world.command("app.deploy", "shop");
    world.settle();
    let cancel_waiting = world.command("command.cancel", &waiting.to_string());
    let cancel_running = world.command("command.cancel", &running.to_string());
    let cancel_nothing = world.command("command.cancel", &HostId::from_bytes([7; 16]).to_string());
    world.settle();
    assert_eq!(world.status(waiting), Some(ReportStatus::Cancelled));
    assert_eq!(world.status(cancel_waiting), Some(ReportStatus::Succeeded));
    assert_eq!(world.host.cancelled, [running]);
    assert_eq!(world.status(cancel_running), Some(ReportStatus::Succeeded));
    assert_eq!(world.status(cancel_nothing), Some(ReportStatus::Failed));
    assert_eq!(world.status(running), None, "it ends by its own report");
    world.finish(running);
    let late = world.command("command.cancel", &running.to_string());
    world.settle();
    assert!(world.message(late).contains("had ended already"));
}

/// Stopping something can only put back, so it needs nobody's approval; what it stops here is a read,
/// because no change runs in such a fleet.
#[test]
fn a_cancel_needs_no_approval() {
    let mut world = World::with_root(|root| {
        let approver = envelope::keys::SigningKey::<envelope::keys::role::Approver>::from_seed(&[6; 32]);
        root.approver_keys = vec![approver.public()];
        root.approvals.change = 1;
    });
    world.connect();
    let running = world.command("host.facts", "");
    let deploy = world.command("app.deploy", "shop");
    world.settle();
    assert_eq!(world.status(deploy), Some(ReportStatus::Rejected), "other changes need one");
    let cancel = world.command("command.cancel", &running.to_string());
    world.settle();
    assert_eq!(world.status(cancel), Some(ReportStatus::Succeeded), "{}", world.message(cancel));
    assert_eq!(world.host.cancelled, [running]);
}

#[test]
fn a_dry_run_of_a_cancel_stops_nothing() {
    let mut world = World::new();
    world.connect();
    let running = world.command("app.deploy", "shop");
    world.settle();
    let mut order = world.order("command.cancel", &running.to_string());
    order.dry_run = true;
    let command = world.plane.seal(&world.keys.command, &order, world.host.now.wall);
    world.deliver(command);
    world.settle();
    assert!(world.host.starts.contains_key(&order.command), "it is handed to the action, which only tells");
    assert!(world.host.cancelled.is_empty());
}

/// Cuts a cancellation of `target` after so many of its durable writes, with the next one durable and never
/// acknowledged if `kept`, and goes on from the disk in a new session.
fn cut_off(world: &mut World, target: CommandId, written: usize, kept: bool) -> CommandId {
    let cancel = world.command("command.cancel", &target.to_string());
    world.step_host();
    for _ in 0..written {
        let sent = world.host.sync_one();
        world.to_plane.extend(sent);
        while world.step_plane() {}
    }
    world.crash(usize::from(kept));
    world.sync();
    world.connect();
    cancel
}

/// Its acceptance, its start, its end: whichever of them was reached, the cancel is taken once, and what it stops
/// is told to stop by whatever process runs it.
#[test]
fn a_cancel_outlives_the_process_wherever_it_is_cut_off() {
    for (written, kept) in [(0, true), (1, false), (1, true), (2, false), (2, true), (3, false)] {
        let mut world = World::new();
        world.connect();
        let running = world.command("app.deploy", "shop");
        world.settle();
        let cancel = cut_off(&mut world, running, written, kept);
        let what = format!("{written} written, {kept}");
        assert_eq!(world.status(cancel), Some(ReportStatus::Succeeded), "{what}");
        assert!(world.message(cancel).contains("is running and was asked to stop"), "{what}");
        assert_eq!(world.host.starts[&running], (2, 1), "{what}");
        assert_eq!(world.host.cancelled.last(), Some(&running), "{what}");
        let asked = world.host.cancelled.len();
        world.crash(0);
        world.sync();
        assert_eq!(world.host.cancelled.len(), asked + 1, "{what}: and again by the process after that");
        world.connect();
        world.finish(running);
        assert!(world.host.disk.open.is_empty(), "{what}");
    }
}

/// Not even when the process ends between the cancel's end and its own.
#[test]
fn what_was_cancelled_while_it_waited_never_starts() {
    for kept in [false, true] {
        let mut world = World::new();
        world.connect();
        world.command("app.deploy", "shop");
        let waiting = world.command("app.deploy", "shop");
        world.settle();
        let cancel = cut_off(&mut world, waiting, if kept { 2 } else { 3 }, kept);
        assert_eq!(world.status(cancel), Some(ReportStatus::Succeeded));
        assert!(world.message(cancel).contains("was waiting and will not start"));
        assert_eq!(world.status(waiting), Some(ReportStatus::Cancelled));
        assert_eq!(world.message(waiting), format!("cancelled by {cancel} before it started"));
        assert!(!world.host.starts.contains_key(&waiting));
    }
}

#[test]
fn a_read_that_was_asked_to_stop_is_not_run_again() {
    let mut world = World::new();
    world.connect();
    let running = world.command("host.facts", "");
    world.settle();
    let cancel = cut_off(&mut world, running, 3, false);
    assert_eq!(world.status(cancel), Some(ReportStatus::Succeeded));
    assert_eq!(world.status(running), Some(ReportStatus::Cancelled));
    assert!(world.message(running).contains("nothing is left to be put back"), "{}", world.message(running));
    assert_eq!(world.host.starts[&running], (1, 1));
}

/// It stays what it is: of an action that cannot tell how far it got, nobody knows.
#[test]
fn a_cancel_does_not_make_known_what_is_unknown() {
    let mut world = World::new();
    world.connect();
    let running = world.command("job.run", "shop");
    world.settle();
    cut_off(&mut world, running, 3, false);
    assert_eq!(world.status(running), Some(ReportStatus::Unknown));
}

#[test]
fn a_cancel_that_comes_too_late_marks_nothing() {
    let mut world = World::new();
    world.connect();
    let running = world.command("app.deploy", "shop");
    world.settle();
    let cancel = world.command("command.cancel", &running.to_string());
    world.step_host();
    // It ends while the cancel is accepted and not started.
    let end = session::agent::end_message(ReportStatus::Succeeded, "done", &serde_json::Value::Null);
    world.host_input(session::agent::io::Input::Finished { command: running, end });
    world.settle();
    assert_eq!(world.status(running), Some(ReportStatus::Succeeded));
    assert_eq!(world.status(cancel), Some(ReportStatus::Failed));
    assert!(world.message(cancel).contains("had ended already"), "{}", world.message(cancel));
    assert!(world.host.cancelled.is_empty());
}

/// It ends while the cancel is being written: both are true, and each is said once.
#[test]
fn an_end_and_a_cancel_that_cross_are_both_reported() {
    let mut world = World::new();
    world.connect();
    let running = world.command("app.deploy", "shop");
    world.settle();
    let cancel = world.command("command.cancel", &running.to_string());
    world.step_host();
    world.host.sync_one();
    world.host.sync_one();
    assert_eq!(world.host.unsynced.len(), 1, "the cancel's end is being written");
    let end = session::agent::end_message(ReportStatus::Succeeded, "done", &serde_json::Value::Null);
    world.host_input(session::agent::io::Input::Finished { command: running, end });
    world.settle();
    assert_eq!(world.status(running), Some(ReportStatus::Succeeded));
    assert_eq!(world.status(cancel), Some(ReportStatus::Succeeded));
    assert!(world.host.cancelled.is_empty(), "there is nobody to tell any more");
}

#[test]
fn of_two_cancels_both_are_taken_and_the_first_is_named() {
    let mut world = World::new();
    world.connect();
    let running = world.command("app.deploy", "shop");
    world.settle();
    let first = world.command("command.cancel", &running.to_string());
    world.settle();
    let second = world.command("command.cancel", &running.to_string());
    world.settle();
    assert_eq!(world.status(first), Some(ReportStatus::Succeeded));
    assert_eq!(world.status(second), Some(ReportStatus::Succeeded));
    assert_eq!(world.host.disk.open[0].cancelled_by, Some(first));
}

/// Nobody sends them in that order; whoever does gets no command that runs after its end.
#[test]
fn a_cancel_that_overtakes_the_acceptance_of_its_target_ends_it() {
    let mut world = World::new();
    world.connect();
    let target = world.order("app.deploy", "shop");
    world.command("command.cancel", &target.command.to_string());
    world.send_order(&target);
    world.step_host();
    world.host.sync_one();
    world.step_host();
    assert_eq!(world.host.unsynced.len(), 2, "a start and an acceptance are being written");
    world.settle();
    assert_eq!(world.status(target.command), Some(ReportStatus::Cancelled));
    assert!(world.host.starts.is_empty() && world.host.disk.open.is_empty());
    let stages = world.host.disk.ring.iter().map(|entry| entry.stage);
    assert!(stages.into_iter().all(|stage| stage == session::frames::Stage::Done));
}
