//! A second person stands before what needs one. Each attack is one change to steps that succeed without it.

mod support;

use envelope::{
    keys::{SigningKey, role},
    messages::{Approval, ApprovalThresholds, Order, ReportStatus, SealedRef, SealedValue},
};
use ids::{DurationMs, HostEpoch, HostId, OperationId, Sha256, sha256};
use session::frames::ControlFrame;
use support::World;

const PLAN: Sha256 = Sha256([7; 32]);

fn approver(n: u8) -> SigningKey<role::Approver> {
    SigningKey::from_seed(&[100 + n; 32])
}

/// A fleet in which destruction takes two of three people, with its host connected.
fn world() -> World {
    world_with(|_| {})
}

fn world_with(change: impl FnOnce(&mut envelope::messages::RootMetadata)) -> World {
    let mut world = World::with_root(|root| {
        root.approver_keys = (0..3).map(|n| approver(n).public()).collect();
        root.approvals = ApprovalThresholds { change: 0, destructive: 2 };
        change(root);
    });
    world.connect();
    world
}

/// What a person who was shown that order signs.
fn approval(world: &World, order: &Order) -> Approval {
    let now = world.host.now.wall;
    Approval {
        fleet: order.fleet,
        host: order.host,
        host_epoch: HostEpoch(1),
        operation: order.operation,
        action: order.action.clone(),
        action_version: order.action_version,
        parameters_sha256: sha256(&order.parameters),
        sealed: order.sealed.clone(),
        plan_sha256: PLAN,
        bind_plan: true,
        approved_at: now,
        expires: now.plus(DurationMs::from_days(1)),
    }
}

fn signed(n: u8, approval: &Approval) -> Vec<u8> {
    approver(n).sign(approval).into_envelope()
}

/// Delivers an order with those approvals, to its end unless it runs.
fn deliver(world: &mut World, order: &Order, sealed: Vec<SealedValue>, approvals: Vec<Vec<u8>>) {
    let command = world.plane.seal(&world.keys.command, order, world.host.now.wall);
    world.to_host.push(ControlFrame::Deliver { command, sealed, approvals });
    world.settle();
}

/// One attack: the steps with its change are refused in those words, and without it the order runs.
#[track_caller]
fn attack(words: &str, change: impl Fn(&mut World, &mut Order, &mut Vec<Vec<u8>>)) {
    for attacked in [true, false] {
        let mut world = world();
        let mut order = world.order("disk.wipe", "");
        let mut approvals = (1..3).map(|n| signed(n, &approval(&world, &order))).collect();
        if attacked {
            change(&mut world, &mut order, &mut approvals);
        }
        deliver(&mut world, &order, Vec::new(), approvals);
        let id = order.command;
        assert_eq!(world.host.starts.contains_key(&id), !attacked);
        if attacked {
            assert_eq!(world.status(id), Some(ReportStatus::Rejected));
            let said = world.message(id);
            assert!(said.starts_with("approvals: ") && said.contains(words), "{said}");
        } else {
            assert_eq!(world.host.plans[&id], Some(PLAN));
            world.finish(id);
            assert_eq!(world.status(id), Some(ReportStatus::Succeeded));
        }
    }
}

#[test]
fn nothing_runs_without_enough_people() {
    attack("it needs 2, and 0 of the 0", |_, _, approvals| approvals.clear());
    attack("it needs 2, and 1 of the 1", |_, _, approvals| approvals.truncate(1));
}

#[test]
fn an_own_approval_does_not_count() {
    attack("is the requester's own", |_, order, _| order.requester = Some(approver(2).key_id()));
}

#[test]
fn one_key_counts_once() {
    attack("approved twice", |world, order, approvals| {
        let mut again = approval(world, order);
        again.expires = again.expires.plus(DurationMs(1));
        approvals[1] = signed(1, &again);
    });
}

#[test]
fn an_edited_approval_does_not_count() {
    for at in [0usize, 40, 90] {
        attack("does not verify", |_, _, approvals| {
            let place = at % approvals[0].len();
            approvals[0][place] ^= 1;
        });
    }
}

#[test]
fn a_key_that_is_not_in_the_root_does_not_count() {
    attack("does not verify", |world, order, approvals| approvals[0] = signed(9, &approval(world, order)));
}

#[test]
fn an_approval_of_something_else_does_not_count() {
    type Edit = fn(&mut Approval);
    let edits: [(&str, Edit); 7] = [
        ("another host", |it| it.host = HostId::from_bytes([0xb2; 16])),
        ("another epoch of the host", |it| it.host_epoch = HostEpoch(2)),
        ("another operation", |it| it.operation = OperationId::from_bytes([9; 16])),
        ("another action", |it| it.action = "app.deploy".parse().expect("a name")),
        ("another version of the action", |it| it.action_version += 1),
        ("another parameters", |it| it.parameters_sha256 = Sha256([1; 32])),
        ("another sealed values", |it| {
            it.sealed = vec![SealedRef { name: "web/PASSWORD".to_owned(), sha256: Sha256([1; 32]) }];
        }),
    ];
    for (words, edit) in edits {
        attack(words, |world, order, approvals| {
            let mut other = approval(world, order);
            edit(&mut other);
            approvals[0] = signed(1, &other);
        });
    }
}

#[test]
fn an_expired_approval_does_not_count_by_whichever_clock_is_latest() {
    let brief = |world: &World, order: &Order| {
        let mut brief = approval(world, order);
        brief.expires = brief.approved_at.plus(DurationMs(2_000));
        brief
    };
    attack("expired", |world, order, approvals| {
        approvals[0] = signed(1, &brief(world, order));
        world.advance(DurationMs(3_000));
    });
    // Its wall clock was set back: the control plane's time still says that it is over.
    attack("expired", |world, order, approvals| {
        approvals[0] = signed(1, &brief(world, order));
        world.host.now.boot = world.host.now.boot.plus(DurationMs(3_000));
    });
}

/// Its thirty days are counted from now at the latest, whatever it says of itself.
#[test]
fn an_approval_that_is_dated_ahead_does_not_count() {
    for ahead in [DurationMs::from_mins(10), DurationMs(1 << 63)] {
        attack("ahead", |world, order, approvals| {
            let mut dated = approval(world, order);
            dated.approved_at = dated.approved_at.plus(ahead);
            dated.expires = dated.approved_at.plus(DurationMs(1));
            approvals[0] = signed(1, &dated);
        });
    }
}

#[test]
fn an_approval_by_a_dropped_key_does_not_count() {
    attack("does not verify", |world, _, _| {
        let next = world.keys.next(&world.plane.root, |root| {
            root.approver_keys.remove(1);
        });
        world.plane.root.advance(&next).expect("it follows");
        world.cut();
        world.connect();
    });
}

#[test]
fn a_key_dropped_while_the_order_waits_stops_it() {
    let mut world = world_with(|root| root.approvals = ApprovalThresholds { change: 2, destructive: 2 });
    let first = world.order("app.deploy", "shop");
    let of = |world: &World, order: &Order| (1..3).map(|n| signed(n, &approval(world, order))).collect::<Vec<_>>();
    let approvals = of(&world, &first);
    deliver(&mut world, &first, Vec::new(), approvals);
    let second = world.order("app.deploy", "shop");
    let approvals = of(&world, &second);
    deliver(&mut world, &second, Vec::new(), approvals);
    assert!(!world.host.starts.contains_key(&second.command), "it waits for the lock");
    let next = world.keys.next(&world.plane.root, |root| {
        root.approver_keys.remove(1);
    });
    world.plane.root.advance(&next).expect("it follows");
    world.cut();
    world.connect();
    world.finish(first.command);
    assert_eq!(world.status(first.command), Some(ReportStatus::Succeeded), "what had begun goes on");
    assert_eq!(world.status(second.command), Some(ReportStatus::Rejected));
    assert!(world.message(second.command).contains("does not verify"), "{}", world.message(second.command));
}

#[test]
fn approvals_are_used_up_by_one_command_and_stay_so() {
    let mut world = world();
    let order = world.order("disk.wipe", "");
    let approvals: Vec<_> = (1..3).map(|n| signed(n, &approval(&world, &order))).collect();
    deliver(&mut world, &order, Vec::new(), approvals.clone());
    world.finish(order.command);
    let mut again = world.order("disk.wipe", "");
    again.operation = order.operation;
    deliver(&mut world, &again, Vec::new(), approvals.clone());
    assert_eq!(world.status(again.command), Some(ReportStatus::Rejected));
    assert!(world.message(again.command).contains("were used by command"), "{}", world.message(again.command));

    world.crash(0);
    world.connect();
    let mut later = world.order("disk.wipe", "");
    later.operation = order.operation;
    deliver(&mut world, &later, Vec::new(), approvals);
    assert_eq!(world.status(later.command), Some(ReportStatus::Rejected), "a restart forgets nothing");
    assert_eq!(world.host.starts.keys().collect::<Vec<_>>(), [&order.command]);

    let other = world.order("disk.wipe", "");
    let approvals = (1..3).map(|n| signed(n, &approval(&world, &other))).collect();
    deliver(&mut world, &other, Vec::new(), approvals);
    assert!(world.host.starts.contains_key(&other.command), "another operation's are its own");
}

#[test]
fn one_approval_that_is_bound_binds_the_plan_whatever_the_others_say() {
    for bound in [[false, true], [true, false], [true, true]] {
        let mut world = world();
        let order = world.order("disk.wipe", "");
        let one = |n: u8, bind_plan| signed(n, &Approval { bind_plan, ..approval(&world, &order) });
        let approvals = vec![one(1, bound[0]), one(2, bound[1])];
        deliver(&mut world, &order, Vec::new(), approvals);
        assert_eq!(world.host.plans[&order.command], Some(PLAN), "{bound:?}");
    }
    let mut world = world();
    let order = world.order("disk.wipe", "");
    let unbound = Approval { bind_plan: false, ..approval(&world, &order) };
    let approvals = vec![signed(1, &unbound), signed(2, &unbound)];
    deliver(&mut world, &order, Vec::new(), approvals);
    assert_eq!(world.host.plans[&order.command], None, "nobody asked for it");
    attack("bound to different plans", |world, order, approvals| {
        approvals[0] = signed(1, &Approval { plan_sha256: Sha256([8; 32]), ..approval(world, order) });
    });
}

#[test]
fn the_hosts_owner_may_ask_for_more_and_never_for_less() {
    for (owner, given, runs) in [(3, 2, false), (3, 3, true), (1, 1, false), (0, 2, true)] {
        let mut world = world();
        world.host.registry.approvals_min = owner;
        let order = world.order("disk.wipe", "");
        let approvals = (0..given).map(|n| signed(n, &approval(&world, &order))).collect();
        deliver(&mut world, &order, Vec::new(), approvals);
        assert_eq!(world.host.starts.contains_key(&order.command), runs, "{owner} asked for, {given} given");
    }
}

#[test]
fn what_only_reads_and_what_only_stops_needs_nobody() {
    let mut world = world_with(|root| root.approvals = ApprovalThresholds { change: 1, destructive: 1 });
    world.host.registry.approvals_min = 3;
    let mut dry = world.order("disk.wipe", "");
    dry.dry_run = true;
    deliver(&mut world, &dry, Vec::new(), Vec::new());
    assert!(world.host.starts.contains_key(&dry.command), "a dry run reads");
    let cancel = world.command("command.cancel", &dry.command.to_string());
    world.settle();
    assert_eq!(world.status(cancel), Some(ReportStatus::Succeeded));
}

#[test]
fn an_order_accepted_when_it_needed_nobody_does_not_start_when_it_does() {
    let mut world = world_with(|root| root.approvals = ApprovalThresholds::default());
    let first = world.command("app.deploy", "shop");
    world.settle();
    let second = world.order("app.deploy", "shop");
    let approvals = (1..3).map(|n| signed(n, &approval(&world, &second))).collect();
    deliver(&mut world, &second, Vec::new(), approvals);
    let next = world.keys.next(&world.plane.root, |root| root.approvals.change = 2);
    world.plane.root.advance(&next).expect("it follows");
    world.cut();
    world.connect();
    world.finish(first);
    assert_eq!(world.status(second.command), Some(ReportStatus::Rejected));
    assert!(world.message(second.command).contains("propose it again"), "{}", world.message(second.command));
}

#[test]
fn a_resumed_command_goes_on_with_its_plan_and_only_back_without_its_approvals() {
    for dropped in [false, true] {
        let mut world = world_with(|root| root.approvals.change = 2);
        let order = world.order("app.deploy", "shop");
        let approvals = (1..3).map(|n| signed(n, &approval(&world, &order))).collect();
        deliver(&mut world, &order, Vec::new(), approvals);
        assert!(world.host.starts.contains_key(&order.command));
        if dropped {
            let next = world.keys.next(&world.plane.root, |root| {
                root.approver_keys.remove(1);
            });
            world.plane.root.advance(&next).expect("it follows");
            world.cut();
            world.connect();
        }
        world.advance(DurationMs::from_days(2));
        world.crash(0);
        world.settle();
        assert_eq!(world.host.running.get(&order.command), Some(&dropped), "only back: {dropped}");
        let plan = if dropped { None } else { Some(PLAN) };
        assert_eq!(world.host.plans[&order.command], plan, "approvals do not expire under what has begun");
    }
}
