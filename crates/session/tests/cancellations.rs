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
