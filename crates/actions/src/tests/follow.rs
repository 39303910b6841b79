//! Following logs: across restarts and deploys, and to each of its ends.

use ids::{BootMs, DurationMs};
use serde_json::{Value, json};

use super::scene::{context, deploy, ends, lifecycle, remove, request, shop_with, world};
use crate::{
    limits,
    outcome::{
        Outcome,
        OutcomeStatus::{self, Cancelled, Failed, Succeeded},
    },
    port::{ActionContext, StreamRecord},
    simulated::{Point, SimulatedPort, SimulatedWorld, Surprise, drive},
};

fn deployed() -> SimulatedWorld {
    let mut world = world();
    ends(&mut world, &deploy(shop_with("web:1")), 1, Succeeded);
    world
}

/// What came of following, with what happens meanwhile (milliseconds from now on).
struct Followed {
    outcome: Outcome,
    lines: Vec<String>,
    took: DurationMs,
}

fn follow(
    world: &mut SimulatedWorld,
    parameters: &Value,
    surprises: &[(u64, Surprise)],
    prepare: impl FnOnce(&mut SimulatedPort<'_>),
) -> Followed {
    let began = world.clock;
    let order = request("app.logs.follow", parameters);
    let context = context(7);
    let mut port = SimulatedPort::new(world);
    port.surprises = surprises.iter().map(|(after, what)| (BootMs(began.0 + after), *what)).collect();
    port.surprises.reverse();
    prepare(&mut port);
    let outcome = drive(order.run(&context, &mut port)).unwrap();
    let lines = port
        .streamed
        .iter()
        .map(|record| match record {
            StreamRecord::Line { container, text, .. } => {
                format!("{container}: {}", text.split(" at ").next().unwrap())
            }
            StreamRecord::Note(note) => format!("({note})"),
        })
        .collect();
    Followed { outcome, lines, took: world.clock.since(began) }
}

fn ended(followed: &Followed, status: OutcomeStatus, ended: &str) {
    let Outcome { status: was, message, result } = &followed.outcome;
    assert_eq!((*was, &result["ended"]), (status, &json!(ended)), "{message}");
}

const SHOP: fn() -> Value = || json!({ "app": "shop" });

#[test]
fn it_goes_on_across_a_restart_and_a_deploy_and_ends_when_the_app_is_gone() {
    let mut world = deployed();
    let restart: Surprise = |world| drop(ends(world, &lifecycle("restart", &["web"]), 2, Succeeded));
    let redeploy: Surprise = |world| drop(ends(world, &deploy(shop_with("web:2")), 3, Succeeded));
    let removal: Surprise = |world| drop(ends(world, &remove(), 4, Succeeded));
    let surprises = [(20_000, restart), (40_000, redeploy), (80_000, removal)];
    let followed = follow(&mut world, &SHOP(), &surprises, |_| {});
    ended(&followed, Succeeded, "gone");
    let expected = [
        "shop-db-1: db started",
        "shop-web-1: web started",
        // The same container again, and then another one of that name.
        "(web: following container shop-web-1)",
        "shop-web-1: web started",
        "(web: following container shop-web-1)",
        "shop-web-1: web started",
    ];
    assert_eq!(followed.lines, expected);
    assert!(followed.took.0 >= 80_000 + limits::FOLLOW_GONE_AFTER.0, "{}", followed.took);
    assert!(followed.took.0 < 80_000 + 2 * limits::FOLLOW_GONE_AFTER.0, "{}", followed.took);
}

#[test]
fn it_ends_when_nobody_watches_at_its_limit_and_when_cancelled() {
    let lease = 10_000;
    let mut world = deployed();
    let until = BootMs(world.clock.0 + lease);
    let followed = follow(&mut world, &SHOP(), &[], |port| port.watched_until = until);
    ended(&followed, Succeeded, "unwatched");
    assert!((lease..lease + 2 * limits::FOLLOW_LOOK.0).contains(&followed.took.0), "{}", followed.took);

    let followed = follow(&mut deployed(), &SHOP(), &[], |_| {});
    ended(&followed, Succeeded, "limit");
    assert!(followed.took >= limits::FOLLOW_TIME_MAX && followed.took < limits::FOLLOW_TIMEOUT, "{}", followed.took);

    let followed = follow(&mut deployed(), &SHOP(), &[], |port| port.cancel_from = Some(Point(5)));
    ended(&followed, Cancelled, "cancelled");
}

#[test]
fn a_stopped_app_is_gone_and_one_that_is_being_changed_is_not() {
    let mut world = deployed();
    let stop: Surprise = |world| drop(ends(world, &lifecycle("stop", &[]), 2, Succeeded));
    let followed = follow(&mut world, &SHOP(), &[(5_000, stop)], |_| {});
    ended(&followed, Succeeded, "gone");
    // What it wrote before can still be read.
    let followed = follow(&mut world, &SHOP(), &[], |_| {});
    ended(&followed, Succeeded, "gone");
    assert_eq!(followed.lines.len(), 2, "{:?}", followed.lines);
    // A change that takes long, half-way: everything is down, and will come up again.
    world.records.insert("app/shop".to_owned(), {
        let mut record: Value = serde_json::from_slice(&world.records["app/shop"]).unwrap();
        record["pending"] = json!({ "remove": { "command": record["last_end"]["command"], "ran": [] } });
        record.to_string().into_bytes()
    });
    let followed = follow(&mut world, &SHOP(), &[], |_| {});
    ended(&followed, Succeeded, "limit");
}

#[test]
fn the_engine_may_go_away_for_a_while() {
    let mut world = deployed();
    let down: Surprise = |world| world.engine.down_until = Some(BootMs(world.clock.0 + 60_000));
    let removal: Surprise = |world| drop(ends(world, &remove(), 4, Succeeded));
    let followed = follow(&mut world, &SHOP(), &[(5_000, down), (90_000, removal)], |_| {});
    ended(&followed, Succeeded, "gone");
    assert!(followed.took.0 > 90_000, "{}", followed.took);
}

#[test]
fn what_is_not_there_cannot_be_followed() {
    let followed = follow(&mut world(), &SHOP(), &[], |_| {});
    ended(&followed, Failed, "failed");
    assert!(followed.outcome.message.contains("no app named shop"), "{}", followed.outcome.message);
    let wrong = json!({ "app": "shop", "service": "cache" });
    let followed = follow(&mut deployed(), &wrong, &[], |_| {});
    assert!(followed.outcome.message.contains("it has db, web"), "{}", followed.outcome.message);
    let one = json!({ "app": "shop", "service": "web", "tail": 0 });
    let followed = follow(&mut deployed(), &one, &[], |_| {});
    assert_eq!(followed.lines.len(), 0, "{:?}", followed.lines);
    // After a restart of the agent nobody knows what was sent.
    let resumed = ActionContext { resumed: true, ..context(7) };
    let outcome = super::scene::run(&mut deployed(), &request("app.logs.follow", &SHOP()), &resumed);
    assert_eq!(outcome.status, Failed, "{}", outcome.message);
}
