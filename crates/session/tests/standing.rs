//! Standing orders on their host: what is taken, what stays, what runs. Each attack is one change to steps that succeed
//! without it.

mod support;

use envelope::{
    keys::{SigningKey, role},
    messages::*,
};
use ids::*;
use session::{
    agent::{StandingShown, io::*},
    frames::ControlFrame,
    limits,
};
use support::World;

fn id(n: u8) -> StandingOrderId {
    StandingOrderId::from_bytes([n; 16])
}

/// One that has `app.restart` run at three in the morning.
fn standing(world: &World, n: u8, revision: u64, operation: OperationId) -> StandingOrder {
    let now = world.host.now.wall;
    StandingOrder {
        standing: Standing {
            fleet: support::FLEET,
            host: support::HOST,
            order: id(n),
            operation,
            action: "app.restart".parse().expect("an action's name"),
            action_version: 1,
            schema_sha256: Sha256([9; 32]),
            parameters: b"shop".to_vec(),
            sealed: Vec::new(),
            schedule: "0 3 * * *".to_owned(),
            zone: "UTC".to_owned(),
            valid_until: now.plus(DurationMs::from_days(90)),
            alone_for: DurationMs::from_days(30),
        },
        host_epoch: HostEpoch(1),
        epoch: world.plane.root.current().epoch,
        revision: Revision(revision),
        issued: now,
    }
}

/// An order that brings a signed standing order, of the operation that it names.
fn bringing(world: &mut World, action: &str, operation: OperationId, envelope: &[u8]) -> Order {
    let order = world.order(action, &hex(envelope));
    Order { operation, ..order }
}

fn operation(n: u8) -> OperationId {
    OperationId::from_bytes([n; 16])
}

/// Delivers it to its end, with those approvals.
fn ends(world: &mut World, order: &Order, approvals: Vec<Vec<u8>>) -> ReportStatus {
    let command = world.plane.seal(&world.keys.command, order, world.host.now.wall);
    world.to_host.push(ControlFrame::Deliver { command, sealed: Vec::new(), approvals });
    world.settle();
    world.status(order.command).expect("it has an end")
}

/// Installs that very order; says how that ended.
fn install(world: &mut World, key: &SigningKey<role::Command>, order: &StandingOrder) -> (ReportStatus, String) {
    brought(world, "standing.install", key, order)
}

fn brought(
    world: &mut World,
    action: &str,
    key: &SigningKey<role::Command>,
    order: &StandingOrder,
) -> (ReportStatus, String) {
    let command = bringing(world, action, order.standing.operation, key.sign(order).envelope());
    let status = ends(world, &command, Vec::new());
    (status, world.message(command.command))
}

fn drop_order(world: &mut World, n: u8) -> ReportStatus {
    drop_up_to(world, n, 0)
}

fn drop_up_to(world: &mut World, n: u8, revision: u64) -> ReportStatus {
    let order = world.order("standing.drop", &format!("{} {revision}", id(n)));
    ends(world, &order, Vec::new())
}

fn shown(world: &World) -> Vec<StandingShown> {
    world.host.agent.standing_orders(world.host.now, &world.host.registry)
}

fn hindrance(world: &World) -> Option<String> {
    shown(world).into_iter().next().expect("one stands").hindrance
}

fn connected() -> World {
    let mut world = World::new();
    world.connect();
    world
}

fn command_key() -> SigningKey<role::Command> {
    support::Keys::new().command
}

#[test]
fn what_was_signed_before_its_end_and_comes_after_it_is_not_installed() {
    let (mut world, key) = (connected(), command_key());
    let late = standing(&world, 1, 4, operation(1));
    assert_eq!(drop_up_to(&mut world, 1, 4), ReportStatus::Succeeded);
    world.crash(0);
    world.connect();
    let (status, message) = install(&mut world, &key, &late);
    assert_eq!(status, ReportStatus::Rejected);
    assert!(message.contains("revision"), "{message}");
    // An end that would use up all numbers is no honest one.
    assert_eq!(drop_up_to(&mut world, 1, u64::MAX), ReportStatus::Rejected);
    let next = standing(&world, 2, 5, operation(2));
    assert_eq!(install(&mut world, &key, &next).0, ReportStatus::Succeeded);
}

#[test]
fn a_standing_order_stands_until_it_is_dropped_and_no_played_bytes_bring_it_back() {
    let (mut world, key) = (connected(), command_key());
    let first = standing(&world, 1, 1, operation(1));
    assert_eq!(install(&mut world, &key, &first).0, ReportStatus::Succeeded);
    world.crash(0);
    world.connect();
    let here = shown(&world);
    assert_eq!((here.len(), here[0].order, here[0].revision, here[0].hindrance.clone()), (1, id(1), Revision(1), None));

    // The attack: the bytes that installed it, while it stands and once it is dropped, also after a restart.
    let (status, why) = install(&mut world, &key, &first);
    assert_eq!(status, ReportStatus::Rejected);
    assert!(why.starts_with("standing order: revision: 1 is not above 1"), "{why}");
    assert_eq!(drop_order(&mut world, 1), ReportStatus::Succeeded);
    for restart in [false, true] {
        if restart {
            world.crash(0);
            world.connect();
        }
        assert!(shown(&world).is_empty());
        assert_eq!(install(&mut world, &key, &first).0, ReportStatus::Rejected, "restart: {restart}");
        assert!(shown(&world).is_empty());
    }
    // An old revision of another order is no better.
    let other = standing(&world, 2, 1, operation(2));
    assert_eq!(install(&mut world, &key, &other).0, ReportStatus::Rejected);
    // The control: the same content, given out anew.
    let anew = standing(&world, 1, 2, operation(1));
    assert_eq!(install(&mut world, &key, &anew).0, ReportStatus::Succeeded);
    assert_eq!(shown(&world).len(), 1);
}

#[test]
fn a_standing_order_of_another_host_fleet_epoch_or_key_is_not_installed() {
    type Change = fn(&mut StandingOrder);
    let attacks: [(&str, Change); 8] = [
        ("ids: it is for another host", |order| order.standing.host = HostId::from_bytes([9; 16])),
        ("ids: it is for another fleet", |order| order.standing.fleet = FleetId::from_bytes([9; 16])),
        ("epochs: it was signed for host epoch 2", |order| order.host_epoch = HostEpoch(2)),
        ("epochs: it was signed in epoch 2", |order| order.epoch = Epoch(2)),
        ("revision: 18446744073709551615 is too far above", |order| order.revision = Revision(u64::MAX)),
        ("it belongs to another operation", |order| order.standing.operation = operation(77)),
        ("schedule: the hour", |order| order.standing.schedule = "0 99 * * *".to_owned()),
        ("sealed values are others", |order| {
            order.standing.sealed = vec![SealedRef { name: "web/environment/KEY".to_owned(), sha256: Sha256([1; 32]) }];
        }),
    ];
    for (words, change) in attacks {
        for attacked in [true, false] {
            let mut world = connected();
            let mut order = standing(&world, 1, 1, operation(1));
            if attacked {
                change(&mut order);
            }
            let command = bringing(&mut world, "standing.install", operation(1), command_key().sign(&order).envelope());
            let status = ends(&mut world, &command, Vec::new());
            assert_eq!(shown(&world).is_empty(), attacked, "{words}");
            let expected = if attacked { ReportStatus::Rejected } else { ReportStatus::Succeeded };
            assert_eq!(status, expected, "{words}");
            let said = world.message(command.command);
            assert!(!attacked || said.contains(words), "{said}");
        }
    }
    // Under a key that root metadata does not list, and with its schedule or its parameters edited.
    let mut world = connected();
    let good = standing(&world, 1, 1, operation(1));
    let stranger = SigningKey::from_seed(&[0x66; 32]);
    let (status, why) = install(&mut world, &stranger, &good);
    assert!(status == ReportStatus::Rejected && why.contains("not a valid command key"), "{why}");
    let envelope = command_key().sign(&good).into_envelope();
    for (what, text) in [("schedule", "0 3 * * *"), ("parameters", "shop")] {
        let mut edited = envelope.clone();
        let at = edited.windows(text.len()).position(|bytes| bytes == text.as_bytes()).expect("it is in there");
        edited[at] ^= 1;
        let command = bringing(&mut world, "standing.install", operation(1), &edited);
        assert_eq!(ends(&mut world, &command, Vec::new()), ReportStatus::Rejected, "{what}");
    }
    assert!(shown(&world).is_empty());
    assert_eq!(install(&mut world, &command_key(), &good).0, ReportStatus::Succeeded, "no number was used up");
}

/// The next version of root metadata, in force on both sides, in a new session.
fn root(world: &mut World, change: impl FnOnce(&mut RootMetadata)) {
    let next = world.keys.next(&world.plane.root, change);
    world.plane.root.advance(&next).expect("it follows");
    world.cut();
    world.connect();
    assert!(world.plane.is_fit());
}

#[test]
fn a_dropped_key_or_a_raised_epoch_stops_what_stands_until_it_is_signed_anew() {
    for emergency in [false, true] {
        let mut world = connected();
        let order = standing(&world, 1, 1, operation(1));
        assert_eq!(install(&mut world, &command_key(), &order).0, ReportStatus::Succeeded);
        let next = world.keys.command_next.public();
        root(&mut world, |root| root.command_keys.push(next));
        assert_eq!(hindrance(&world), None, "both keys stand");
        world.keys.command = SigningKey::from_seed(&[33; 32]);
        root(&mut world, |root| {
            root.command_keys = vec![next];
            root.epoch = Epoch(if emergency { 2 } else { 1 });
        });
        let why = hindrance(&world).expect("its key is void");
        assert!(why.contains("not a valid command key") && why.contains("signed anew"), "{why}");
        world.crash(0);
        world.connect();
        assert!(hindrance(&world).is_some(), "also after a restart");

        // The thief goes on with the old key: nothing of it is taken, neither as new nor as a renewal.
        let anew = |world: &World| StandingOrder {
            epoch: world.plane.root.current().epoch,
            revision: Revision(2),
            ..order.clone()
        };
        let theirs = anew(&world);
        assert_eq!(brought(&mut world, "standing.renew", &command_key(), &theirs).0, ReportStatus::Rejected);
        assert_eq!(install(&mut world, &command_key(), &theirs).0, ReportStatus::Rejected);
        assert!(hindrance(&world).is_some());
        // The control: the same under the key in force.
        let key = SigningKey::from_seed(&[33; 32]);
        assert_eq!(brought(&mut world, "standing.renew", &key, &theirs).0, ReportStatus::Succeeded);
        assert_eq!((hindrance(&world), shown(&world)[0].revision), (None, Revision(2)));
    }
}

#[test]
fn a_raised_epoch_alone_voids_what_stands() {
    let mut world = connected();
    let order = standing(&world, 1, 1, operation(1));
    assert_eq!(install(&mut world, &command_key(), &order).0, ReportStatus::Succeeded);
    root(&mut world, |root| root.epoch = Epoch(2));
    assert!(hindrance(&world).is_some_and(|why| why.contains("epoch 1, which root metadata has voided")));
    let anew = StandingOrder { epoch: Epoch(2), revision: Revision(2), ..order };
    assert_eq!(brought(&mut world, "standing.renew", &command_key(), &anew).0, ReportStatus::Succeeded);
    assert_eq!(hindrance(&world), None);
}

fn approver(n: u8) -> SigningKey<role::Approver> {
    SigningKey::from_seed(&[100 + n; 32])
}

fn approvals(order: &Order, count: u8) -> Vec<Vec<u8>> {
    let approval = Approval {
        fleet: order.fleet,
        host: order.host,
        host_epoch: HostEpoch(1),
        operation: order.operation,
        action: order.action.clone(),
        action_version: order.action_version,
        parameters_sha256: sha256(&order.parameters),
        sealed: order.sealed.clone(),
        plan_sha256: Sha256([7; 32]),
        bind_plan: false,
        approved_at: order.proposed_at,
        expires: order.proposed_at.plus(DurationMs::from_days(1)),
    };
    (0..count).map(|n| approver(n).sign(&approval).into_envelope()).collect()
}

/// In this fleet a change takes one person, and destruction takes two.
fn with_people() -> World {
    let mut world = World::with_root(|root| {
        root.approver_keys = (0..3).map(|n| approver(n).public()).collect();
        root.approvals = ApprovalThresholds { change: 1, destructive: 2 };
    });
    world.connect();
    world
}

#[test]
fn a_standing_order_takes_as_many_people_as_what_it_has_run() {
    for (action, needed) in [("app.restart", 1), ("disk.wipe", 2)] {
        for given in 0..=needed {
            let mut world = with_people();
            let mut order = standing(&world, 1, 1, operation(1));
            order.standing.action = action.parse().expect("an action's name");
            let command = bringing(&mut world, "standing.install", operation(1), command_key().sign(&order).envelope());
            let approvals = approvals(&command, given);
            let status = ends(&mut world, &command, approvals);
            assert_eq!(status == ReportStatus::Succeeded, given == needed, "{action} with {given}: {status:?}");
            assert_eq!(shown(&world).len(), usize::from(given == needed));
            let said = world.message(command.command);
            assert!(given == needed || said.starts_with("approvals: "), "{said}");
        }
    }
}

#[test]
fn a_renewal_needs_nobody_and_changes_nothing() {
    type Change = fn(&mut Standing);
    let edits: [(&str, Change); 5] = [
        ("its schedule", |standing| standing.schedule = "* * * * *".to_owned()),
        ("its action", |standing| standing.action = "disk.wipe".parse().expect("an action's name")),
        ("its parameters", |standing| standing.parameters = b"other".to_vec()),
        ("its end", |standing| standing.valid_until = standing.valid_until.plus(DurationMs(1))),
        ("what it does alone", |standing| standing.alone_for = DurationMs::from_days(365)),
    ];
    let mut world = with_people();
    let order = standing(&world, 1, 1, operation(1));
    let command = bringing(&mut world, "standing.install", operation(1), command_key().sign(&order).envelope());
    let people = approvals(&command, 1);
    assert_eq!(ends(&mut world, &command, people), ReportStatus::Succeeded);
    for (what, edit) in edits {
        let mut edited = StandingOrder { revision: Revision(2), ..order.clone() };
        edit(&mut edited.standing);
        let (status, why) = brought(&mut world, "standing.renew", &command_key(), &edited);
        assert_eq!(status, ReportStatus::Rejected, "{what}");
        assert!(why.contains("its content is not that of the installed one"), "{why}");
    }
    // Nor does it bring anything that is not there.
    let other = StandingOrder {
        standing: Standing { order: id(2), ..order.standing.clone() },
        revision: Revision(2),
        ..order.clone()
    };
    let (status, why) = brought(&mut world, "standing.renew", &command_key(), &other);
    assert!(status == ReportStatus::Rejected && why.contains("it is not installed"), "{why}");
    // The control: byte for byte the same.
    let anew = StandingOrder { revision: Revision(2), ..order };
    assert_eq!(brought(&mut world, "standing.renew", &command_key(), &anew).0, ReportStatus::Succeeded);
    assert_eq!(shown(&world)[0].revision, Revision(2));
}

#[test]
fn a_crash_at_any_write_leaves_a_standing_order_whole_or_not_at_all() {
    let (mut outcomes, mut steps) = ([0, 0], 0);
    for steps_made in 0..12 {
        for keep in 0..3 {
            let mut world = connected();
            let order = standing(&world, 1, 1, operation(1));
            let command = bringing(&mut world, "standing.install", operation(1), command_key().sign(&order).envelope());
            world.send_order(&command);
            for _ in 0..steps_made {
                if !(world.step_host() || world.step_plane()) && world.host.has_unsynced() {
                    let sent = world.host.sync_one();
                    world.to_plane.extend(sent);
                    steps += 1;
                }
            }
            world.crash(keep);
            let (is_here, revision) = (!world.host.disk.standing.is_empty(), world.host.disk.standing_revision);
            assert_eq!(is_here, revision == Revision(1), "what stands and its number are one write");
            let is_done = world.host.disk.open.iter().all(|open| open.id != command.command);
            let was_taken = world.host.disk.ring.iter().any(|entry| entry.command == command.command);
            assert_eq!(is_here, was_taken && is_done, "and so is the end of its command");
            outcomes[usize::from(is_here)] += 1;
            // Whoever went on, it ends once and stands once.
            world.connect();
            if was_taken {
                assert_eq!(world.status(command.command), Some(ReportStatus::Succeeded));
                assert_eq!((world.plane.reports_of(command.command), shown(&world).len()), (1, 1));
            }
        }
    }
    assert!(outcomes.iter().all(|count| *count > 0) && steps > 0, "both were met: {outcomes:?}");
}

#[test]
fn it_runs_when_policy_time_and_contact_allow_and_says_why_not() {
    let mut world = connected();
    let mut order = standing(&world, 1, 1, operation(1));
    order.standing.valid_until = world.host.now.wall.plus(DurationMs::from_days(200));
    assert_eq!(install(&mut world, &command_key(), &order).0, ReportStatus::Succeeded);
    assert_eq!(hindrance(&world), None);
    world.host.registry.forbidden = true;
    assert_eq!(hindrance(&world).as_deref(), Some("policy.toml line 3 says no"), "policy is asked at each run");
    world.host.registry.forbidden = false;

    world.cut();
    world.advance(DurationMs::from_days(30));
    assert_eq!(hindrance(&world), None, "alone for as long as it says");
    world.advance(DurationMs(1));
    assert!(hindrance(&world).is_some_and(|why| why.contains("has had no session for 30 days")));
    world.connect();
    assert_eq!(hindrance(&world), None, "the control plane was heard of");
    // A clock set back brings nothing to life, because the session's time is known.
    world.cut();
    world.advance(DurationMs::from_days(31));
    world.host.now.wall = world.host.now.wall.minus(DurationMs::from_days(31));
    assert!(hindrance(&world).is_some());
    world.host.now.wall = world.host.now.wall.plus(DurationMs::from_days(31));
    world.advance(DurationMs::from_days(200));
    assert!(hindrance(&world).is_some_and(|why| why.contains("it was valid until")));
}

#[test]
fn the_agents_own_work_cannot_be_scheduled_and_there_is_room_for_so_many() {
    let mut world = connected();
    let id = CommandId::from_bytes([1; 16]);
    for (n, action, parameters) in [(1, "command.cancel", id.to_string()), (2, "standing.drop", format!("{id} 1"))] {
        let mut order = standing(&world, n, 1, operation(n));
        order.standing.action = action.parse().expect("an action's name");
        order.standing.parameters = parameters.into_bytes();
        let (status, why) = install(&mut world, &command_key(), &order);
        assert!(status == ReportStatus::Rejected && why.contains("agent's own work"), "{action}: {why}");
    }
    let max = u8::try_from(limits::STANDING_ORDERS_MAX).expect("few");
    for n in 1..=max {
        let order = standing(&world, n, u64::from(n), operation(n));
        assert_eq!(install(&mut world, &command_key(), &order).0, ReportStatus::Succeeded, "{n}");
    }
    let order = standing(&world, max + 1, u64::from(max) + 1, operation(max + 1));
    let (status, why) = install(&mut world, &command_key(), &order);
    assert!(status == ReportStatus::Rejected && why.contains("which is the most"), "{why}");
    // In the place of one there is room, and after one was dropped.
    let order = standing(&world, max, u64::from(max) + 1, operation(max));
    assert_eq!(install(&mut world, &command_key(), &order).0, ReportStatus::Succeeded);
    assert_eq!(drop_order(&mut world, 1), ReportStatus::Succeeded);
    let order = standing(&world, max + 1, u64::from(max) + 2, operation(max + 1));
    assert_eq!(install(&mut world, &command_key(), &order).0, ReportStatus::Succeeded);
}

#[test]
fn a_journal_with_a_standing_order_that_nobody_signed_does_not_start() {
    let world = connected();
    let forged = SigningKey::<role::Command>::from_seed(&[0x66; 32]).sign(&standing(&world, 1, 1, operation(1)));
    for (envelope, starts) in [
        (forged.into_envelope(), false),
        (command_key().sign(&standing(&world, 1, 1, operation(1))).into_envelope(), true),
    ] {
        let mut disk = world.host.disk.clone();
        disk.standing = vec![StoredStanding { order: id(1), envelope, sealed: Vec::new() }];
        let identity = support::host::identity(world.host.boot, world.plane.root.payload_sha256());
        let loaded =
            session::agent::AgentLoop::new(identity, disk, false, world.host.now, &support::Registry::default());
        assert_eq!(loaded.is_ok(), starts);
    }
}

#[test]
fn a_quarantined_host_runs_nothing_by_itself() {
    let mut world = connected();
    let order = standing(&world, 1, 1, operation(1));
    assert_eq!(install(&mut world, &command_key(), &order).0, ReportStatus::Succeeded);
    world.cut();
    world.plane.acknowledged_claim = Some(Sequence(99));
    world.connect();
    assert!(world.host.agent.quarantine().is_some());
    assert_eq!(hindrance(&world).as_deref(), Some("this host is in quarantine"));
}
