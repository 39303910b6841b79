//! What people must approve, from the proposal to its host, with the real machines of both ends.

use std::collections::BTreeMap;

use envelope::{
    SigningKey,
    keys::role,
    messages::{Approval, ApprovalThresholds, ReportStatus},
};
use ids::{CommandId, DurationMs, HostEpoch, sha256};

use super::{
    super::{Input, expire_queued},
    world::*,
};
use crate::{
    approval::{Matter, approve},
    model::{Command, CommandStatus, Principal, User, UserRole},
    ports::Write,
};

fn approver() -> SigningKey<role::Approver> {
    SigningKey::from_seed(&[70; 32])
}

/// A connected host of a fleet in which one person must look at what changes anything.
fn world() -> World {
    let mut world = World::with_root(|root| {
        root.approver_keys = vec![approver().public()];
        root.approvals = ApprovalThresholds { change: 1, destructive: 1 };
    });
    world.connect();
    world
}

/// The host has planned a removal: the order that is held for it.
fn held(world: &mut World) -> CommandId {
    let plan = world.remove();
    world.settle();
    assert_eq!(world.agent.running, [plan]);
    assert!(world.store.command(plan).expect("stored").order.dry_run);
    world.finish(ReportStatus::Succeeded);
    let held = world.store.commands.last().expect("a stage after it");
    assert_eq!((held.status, held.order.dry_run), (CommandStatus::Held, false));
    held.order.command
}

fn stored(world: &World, id: CommandId) -> Command {
    world.store.command(id).expect("it is stored").clone()
}

/// Bob approves it, and the session hears that something changed.
fn approved(world: &mut World, id: CommandId) {
    let command = stored(world, id);
    let order = &command.order;
    let approval = Approval {
        fleet: order.fleet,
        host: order.host,
        host_epoch: HostEpoch(1),
        operation: order.operation,
        action: order.action.clone(),
        action_version: order.action_version,
        parameters_sha256: sha256(&order.parameters),
        sealed: order.sealed.clone(),
        plan_sha256: sha256(b"what was shown"),
        bind_plan: true,
        approved_at: world.now,
        expires: world.now.plus(DurationMs::from_days(2)),
    };
    let bob = User {
        id: ids::UserId::from_bytes([8; 16]),
        name: "bob".parse().expect("a name"),
        role: UserRole::Viewer,
        password_hash: String::new(),
        created_at: world.now,
        disabled_at: None,
        approver: Some((approver().public(), world.now)),
    };
    let actor = Principal { user: bob.id, user_name: bob.name.clone(), ..session_of(UserRole::Viewer) };
    let hosts = BTreeMap::from([(world.store.host.id, world.store.host.clone())]);
    let operation = &world.store.operations[&order.operation];
    let commands = core::slice::from_ref(&command);
    let matter = Matter { operation, commands, hosts: &hosts, root: &world.root, now: world.now };
    let envelope = approver().sign(&approval).into_envelope();
    let Ok(Write::CommandsApprove(approved)) = approve(&matter, &actor, &bob, vec![envelope]) else {
        panic!("it is taken")
    };
    let row = world.store.commands.iter_mut().find(|command| command.order.command == id).expect("it is stored");
    row.approvals.extend(approved.commands.into_iter().map(|endorsed| endorsed.envelope));
    queued(world, id);
}

fn queued(world: &mut World, id: CommandId) {
    let row = world.store.commands.iter_mut().find(|command| command.order.command == id).expect("it is stored");
    row.status = CommandStatus::Queued;
    world.tell(Input::QueueChanged);
    world.settle();
}

#[test]
fn what_is_held_goes_nowhere_until_it_is_approved_and_then_with_its_approvals() {
    for forgotten in [true, false] {
        let mut world = world();
        let id = held(&mut world);
        let delivered = world.delivered_count;
        world.settle();
        world.connect();
        assert_eq!((world.status(id), world.seals(id)), (CommandStatus::Held, 0));
        assert_eq!(world.delivered_count, delivered, "not in another session either");
        // A control plane that lets it go by itself gets it signed here, and its host refuses it.
        if forgotten {
            queued(&mut world, id)
        } else {
            approved(&mut world, id)
        }
        if forgotten {
            assert_eq!(world.status(id), CommandStatus::Rejected);
            assert!(stored(&world, id).message.starts_with("approvals: "), "{}", stored(&world, id).message);
        } else {
            assert_eq!(world.agent.running, [id]);
            world.finish(ReportStatus::Succeeded);
            assert_eq!(world.status(id), CommandStatus::Succeeded);
        }
    }
}

#[test]
fn an_agent_that_cannot_carry_approvals_is_asked_for_no_more_than_the_plan() {
    for protocol in [1, 2] {
        let mut world = world();
        let speaks = |world: &mut World| {
            world.session.as_mut().expect("a session").peer.authenticated.protocol = protocol;
        };
        speaks(&mut world);
        let plan = world.remove();
        world.settle();
        world.finish(ReportStatus::Succeeded);
        let message = stored(&world, plan).message;
        assert_eq!(
            (world.store.commands.len(), message.contains("speaks protocol 1")),
            if protocol == 1 { (1, true) } else { (2, false) }
        );

        // Approved while it could, and it cannot any more.
        let mut world = self::world();
        let id = held(&mut world);
        speaks(&mut world);
        approved(&mut world, id);
        let is_refused = world.status(id) == CommandStatus::Rejected;
        assert_eq!((is_refused, world.seals(id)), if protocol == 1 { (true, 0) } else { (false, 1) });
    }
}

#[test]
fn what_nobody_approves_in_time_ends_and_says_so() {
    let mut world = world();
    let id = held(&mut world);
    let command = stored(&world, id);
    let deadline = command.order.deliver_by;
    assert!(expire_queued(deadline, core::slice::from_ref(&command)).is_empty());
    let writes = expire_queued(deadline.plus(DurationMs(1)), &[command]);
    let [Write::CommandEnd { status, message, .. }] = &writes[..] else { panic!("one ends") };
    assert_eq!(*status, CommandStatus::Expired);
    assert!(message.starts_with("not enough people approved it in time"), "{message}");
}
