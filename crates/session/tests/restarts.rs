//! What a restart keeps, what an old copy of the state gives away, and what a hello may claim.

mod support;

use envelope::messages::*;
use ids::*;
use session::{agent::io::*, control::Standing, frames::AgentFrame, limits::RESUMPTIONS_MAX};
use support::{Host, World};

/// A sequence that is being written counts as seen, or the control plane would conclude that its order
/// never arrived and could end it as expired while it runs. A report counts once it is durable.
#[test]
fn a_hello_counts_orders_being_written_and_only_durable_reports() {
    let mut world = World::new();
    world.connect();
    let reported = world.command("host.facts", "");
    world.settle();
    let end = session::agent::end_message(ReportStatus::Succeeded, "done", &serde_json::Value::Null);
    world.host_input(Input::Finished { command: reported, end });
    world.command("host.facts", "");
    world.step_host();
    assert_eq!(world.host.unsynced.len(), 2, "an end and an acceptance are being written");
    let mut claimed = || {
        world.dial();
        let Some(AgentFrame::Hello(bytes)) = world.to_plane.first() else { panic!("no hello") };
        let hello = AgentHello::decode(bytes).expect("it decodes");
        world.sync();
        (hello.high, hello.last_report.sequence)
    };
    assert_eq!(claimed(), (Sequence(2), ReportSequence(0)));
    assert_eq!(claimed(), (Sequence(2), ReportSequence(1)));
}

/// Crashes after the start of `action` is durable; says how the command stands after the next session.
fn restarted(action: &str, change: impl FnOnce(&mut World)) -> (World, CommandId) {
    let mut world = World::new();
    world.connect();
    let id = world.command(action, "shop");
    world.settle();
    assert_eq!(world.host.starts[&id], (1, 1));
    change(&mut world);
    world.crash(0);
    world.sync();
    (world, id)
}

#[test]
fn what_ends_the_agent_each_time_is_given_up_in_words() {
    let (mut world, id) = restarted("app.deploy", |_| {});
    for _ in 1..RESUMPTIONS_MAX {
        world.crash(0);
        world.sync();
    }
    let runs = RESUMPTIONS_MAX as usize + 1;
    assert_eq!(world.host.starts[&id], (runs, 1));
    world.crash(0);
    world.sync();
    assert_eq!(world.host.starts[&id], (runs, 1), "not once more");
    world.connect();
    assert_eq!(world.status(id), Some(ReportStatus::Unknown));
    let report = world.plane.report_of(id).expect("a report");
    let text = String::from_utf8_lossy(&report.result).into_owned();
    assert!(text.contains("each of the 11 times it ran this"), "{text}");
    let next = world.command("app.deploy", "shop");
    world.settle();
    assert_eq!(world.host.starts[&next], (1, 1), "and the host goes on");
}

#[test]
fn after_a_restart_each_action_goes_on_as_it_declares() {
    let (world, id) = restarted("app.deploy", |_| {});
    assert_eq!(world.host.starts[&id], (2, 1), "resumed at once");
    assert!(!world.host.running[&id]);

    let (mut world, id) = restarted("app.restart", |_| {});
    assert_eq!(world.host.starts[&id], (1, 1), "run again only after a session");
    world.connect();
    assert_eq!(world.host.starts[&id], (2, 1));
    world.finish(id);
    assert_eq!(world.status(id), Some(ReportStatus::Succeeded));

    let (mut world, id) = restarted("job.run", |_| {});
    world.connect();
    assert_eq!(world.host.starts[&id], (1, 1));
    assert_eq!(world.status(id), Some(ReportStatus::Unknown));
}

#[test]
fn what_may_not_go_on_is_only_put_back() {
    let (world, id) = restarted("app.deploy", |world| world.host.registry.forbidden = true);
    assert!(world.host.running[&id], "backwards only");

    let (mut world, id) = restarted("app.restart", |world| world.host.registry.forbidden = true);
    world.connect();
    assert_eq!(world.status(id), Some(ReportStatus::Unknown), "it may have done something");

    let (mut world, id) = restarted("app.deploy", |world| {
        let next = world.keys.next(&world.plane.root, |root| root.epoch = Epoch(2));
        world.host.disk.root_chain.push(next.clone());
        world.plane.root.advance(&next).expect("it follows");
    });
    assert!(world.host.running[&id], "its epoch is void: backwards only");
    world.connect();
    world.finish(id);
    assert_eq!(world.status(id), Some(ReportStatus::Succeeded));
}

#[test]
fn what_was_accepted_waits_for_a_session_after_a_restart() {
    let mut world = World::new();
    world.connect();
    let id = world.command("host.facts", "");
    world.step_host();
    world.host.sync_one();
    world.crash(0);
    world.host_input(Input::Tick);
    assert!(world.host.starts.is_empty());
    world.connect();
    assert_eq!(world.host.starts[&id], (1, 1));
}

#[test]
fn a_journal_that_does_not_verify_stops_the_agent() {
    let mut world = World::new();
    world.connect();
    world.command("app.deploy", "shop");
    world.settle();
    let load = |disk: JournalState, pin: Sha256| {
        let identity = support::host::identity(world.host.boot, pin);
        session::agent::AgentLoop::new(identity, disk, false, world.host.now, &world.host.registry).map(|_| ()).is_ok()
    };
    let pin = world.plane.root.payload_sha256();
    assert!(load(world.host.disk.clone(), pin));
    assert!(!load(world.host.disk.clone(), Sha256([1; 32])), "another pin");
    let mut disk = world.host.disk.clone();
    *disk.open[0].command.last_mut().expect("bytes") ^= 1;
    assert!(!load(disk, pin), "a changed command");
    let mut disk = world.host.disk.clone();
    disk.open[0].id = CommandId::from_bytes([1; 16]);
    assert!(!load(disk, pin), "a command under another id");
    let mut disk = world.host.disk.clone();
    disk.ring.push(disk.ring[0].clone());
    assert!(!load(disk, pin), "a command twice in the ring");
}

/// Runs one command, then puts the disk back as it was before, and connects.
fn restored(between: impl FnOnce(&mut World)) -> World {
    let mut world = World::new();
    world.connect();
    let copy = world.host.disk.clone();
    between(&mut world);
    world.host.unsynced.clear();
    world.host.disk = copy;
    world.crash(0);
    world.connect();
    world
}

#[test]
fn an_old_copy_of_the_state_is_quarantined_and_runs_nothing() {
    let mut world = restored(|world| {
        let id = world.command("host.facts", "");
        world.settle();
        world.finish(id);
    });
    assert!(matches!(world.host.closed.last(), Some((true, CloseReason::Quarantined { .. }))));
    let id = world.host.agent.quarantine().expect("it is in quarantine");
    assert_eq!(world.host.disk.quarantine, Some(id));
    // The next hello names it, and it stays through a restart.
    for _ in 0..2 {
        world.crash(0);
        world.connect();
        let Some(Standing::Quarantined(why)) = &world.plane.standing else { panic!("{:?}", world.plane.standing) };
        assert!(why.contains(&id.to_string()), "{why}");
    }
    let command = world.command("host.facts", "");
    world.settle();
    assert!(!world.host.starts.contains_key(&command));
    assert!(world.host.disk.ring.is_empty());
}

#[test]
fn a_copy_from_mid_command_does_not_run_it_again() {
    let mut world = World::new();
    world.connect();
    let id = world.command("app.restart", "shop");
    world.settle();
    let copy = world.host.disk.clone();
    world.finish(id);
    world.host.disk = copy;
    world.crash(0);
    world.connect();
    assert!(world.host.agent.quarantine().is_some());
    assert_eq!(world.host.starts[&id], (1, 1));
    assert_eq!(world.plane.reports_of(id), 1);
}

#[test]
fn a_lost_journal_is_quarantined_before_the_first_word() {
    let mut world = World::new();
    let pin = world.plane.root.payload_sha256();
    world.host = Host::start_with(JournalState::default(), pin, true);
    world.dial();
    assert!(world.to_plane.is_empty(), "nothing is said before the quarantine is durable");
    world.settle();
    assert!(matches!(world.plane.standing, Some(Standing::Quarantined(_))));
    assert!(world.host.disk.quarantine.is_some());
    assert_eq!(world.host.disk.root_chain.len(), 1, "the chain came anew, from the pin on");
    assert!(world.host.closed.is_empty());
}

#[test]
fn in_quarantine_stored_reports_pass_and_new_ones_wait() {
    let mut world = World::new();
    world.plane.silent = true;
    world.connect();
    let reported = world.command("host.facts", "");
    let running = world.command("app.deploy", "shop");
    world.settle();
    world.finish(reported);
    world.plane.silent = false;
    world.plane.acknowledged_claim = Some(Sequence(9));
    world.connect();
    assert!(world.host.agent.quarantine().is_some());
    world.connect();
    assert!(world.host.disk.outbox.is_empty(), "the stored report passed");
    world.finish(running);
    assert_eq!(world.status(running), None);
    assert_eq!(world.host.disk.last_report.map(|last| last.sequence), Some(ReportSequence(1)));
}

#[test]
fn time_outlives_the_process_and_not_the_boot() {
    for (same_boot, ahead) in [(true, DurationMs::from_mins(10)), (false, DurationMs(0))] {
        let mut world = World::new();
        world.plane.time_offset = DurationMs::from_mins(10);
        world.connect();
        let now = world.host.now.wall.plus(world.plane.time_offset);
        let order = world.plane.order("app.deploy", "shop", 1, now);
        let envelope = world.plane.seal(&world.keys.command, &order, now);
        world.deliver(envelope);
        if !same_boot {
            world.host.boot = BootId::from_bytes([0xbb; 16]);
        }
        world.crash(0);
        world.sync();
        world.finish(order.command);
        world.connect();
        let finished = world.plane.report_of(order.command).expect("resumed and ended").finished_at;
        assert_eq!(finished, world.host.now.wall.plus(ahead), "same boot: {same_boot}");
    }
}

#[test]
fn what_was_being_started_when_quarantine_came_does_not_start() {
    let mut world = World::new();
    world.connect();
    let id = world.command("host.facts", "");
    world.step_host();
    world.host.sync_one();
    assert_eq!(world.host.unsynced.len(), 1, "its start is being written");
    world.plane.acknowledged_claim = Some(Sequence(9));
    world.dial();
    while world.step_plane() || world.step_host() {}
    assert!(world.host.agent.quarantine().is_some());
    world.sync();
    assert!(!world.host.starts.contains_key(&id));
}
