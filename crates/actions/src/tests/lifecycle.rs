//! Stops, starts and restarts that are not interrupted, and what others do with a stopped app.

use serde_json::{Value, json};

use super::scene::{context, deploy, ends, lifecycle, picture, remove, request, run, service, shop, shop_with, world};
use crate::{
    Request,
    outcome::{
        Outcome,
        OutcomeStatus::{Cancelled, Failed, RolledBack, Succeeded},
    },
    simulated::{Behaviour, Point, SimulatedImage, SimulatedPort, SimulatedWorld, drive},
};

fn deployed(spec: Value) -> SimulatedWorld {
    let mut world = world();
    ends(&mut world, &deploy(spec), 1, Succeeded);
    world
}

/// What was done to containers, in short.
fn calls(world: &mut SimulatedWorld, order: &Request, n: u8) -> (Outcome, Vec<String>) {
    let context = context(n);
    let mut port = SimulatedPort::new(world);
    let outcome = drive(order.run(&context, &mut port)).unwrap();
    let calls = port.calls.iter().filter_map(|call| call.strip_prefix("container ")).map(str::to_owned).collect();
    (outcome, calls)
}

fn running(world: &SimulatedWorld) -> Vec<String> {
    let lines = picture(world);
    let running = lines.lines().filter(|line| line.starts_with("container") && line.contains("Running"));
    running.map(|line| line.split(' ').nth(1).unwrap().to_owned()).collect()
}

#[test]
fn stopping_goes_backwards_with_each_services_grace_and_keeps_the_engine_from_starting_it() {
    let mut spec = shop_with("web:1");
    spec["services"]["web"]["restart"] = json!("always");
    spec["services"]["db"]["stop_grace_period_ms"] = json!(45_000);
    let mut world = deployed(spec);
    let before = picture(&world);
    let (outcome, stops) = calls(&mut world, &lifecycle("stop", &[]), 2);
    assert_eq!(outcome.status, Succeeded, "{}", outcome.message);
    assert_eq!(
        stops,
        [
            "restart policy shop-web-1",
            "stop shop-web-1 (10000 ms)",
            "restart policy shop-db-1",
            "stop shop-db-1 (45000 ms)"
        ]
    );
    assert_eq!(outcome.result["state"], "stopped");
    assert_eq!(outcome.result["services"]["web"]["state"], "stopped");
    assert_eq!(world.engine.started_by_engine(), Vec::<String>::new());
    let (outcome, starts) = calls(&mut world, &lifecycle("start", &[]), 3);
    assert_eq!((outcome.status, &outcome.result["verified"]), (Succeeded, &json!(true)), "{}", outcome.message);
    assert_eq!(
        starts,
        ["restart policy shop-db-1", "start shop-db-1", "restart policy shop-web-1", "start shop-web-1"]
    );
    assert_eq!(outcome.result["state"], "running");
    assert_eq!(picture(&world), before);
}

#[test]
fn what_is_so_already_is_left_and_said() {
    let mut world = deployed(shop_with("web:1"));
    let (outcome, touched) = calls(&mut world, &lifecycle("start", &[]), 2);
    assert_eq!((outcome.message.as_str(), touched.len()), ("nothing to change: shop runs already", 0));
    ends(&mut world, &lifecycle("stop", &[]), 3, Succeeded);
    let (outcome, touched) = calls(&mut world, &lifecycle("stop", &[]), 4);
    assert_eq!((outcome.message.as_str(), touched.len()), ("nothing to change: shop is stopped already", 0));
    assert_eq!((&outcome.result["changed"], &outcome.result["state"]), (&json!(false), &json!("stopped")));
    // The same order again answers as it did.
    let again = run(&mut world, &lifecycle("stop", &[]), &context(3));
    assert!(again.message.contains("2 services stopped"), "{}", again.message);
}

#[test]
fn some_services_take_along_what_they_need() {
    let mut world = deployed(shop_with("web:1"));
    let outcome = ends(&mut world, &lifecycle("stop", &["web"]), 2, Succeeded);
    assert_eq!(outcome.result["state"], "partly_stopped");
    assert_eq!(running(&world), ["shop-db-1"]);
    ends(&mut world, &lifecycle("stop", &["db"]), 3, Succeeded);
    assert_eq!(running(&world), Vec::<String>::new());
    // What it depends on comes first.
    ends(&mut world, &lifecycle("start", &["web"]), 4, Succeeded);
    assert_eq!(running(&world), ["shop-db-1", "shop-web-1"]);
    let outcome = ends(&mut world, &lifecycle("stop", &["cache"]), 5, Failed);
    assert!(outcome.message.contains("has no service cache; it has db, web"), "{}", outcome.message);

    let mut spec = shop(json!({ "vpn": service("plain:1"), "web": service("plain:1") }));
    spec["services"]["web"]["network_mode"] = json!("service:vpn");
    let mut world = deployed(spec);
    let (_, touched) = calls(&mut world, &lifecycle("restart", &["vpn"]), 2);
    assert_eq!(
        touched,
        ["stop shop-web-1 (10000 ms)", "stop shop-vpn-1 (10000 ms)", "start shop-vpn-1", "start shop-web-1"]
    );
}

#[test]
fn a_one_shot_service_runs_again_only_if_it_never_completed() {
    let spec = |migrate: &str| {
        let mut web = service("web:1");
        web["depends_on"] = json!({ "migrate": "service_completed_successfully" });
        shop(json!({ "migrate": { "image": migrate, "restart": "no" }, "web": web }))
    };
    let mut world = deployed(spec("migrate:1"));
    let (_, stops) = calls(&mut world, &lifecycle("stop", &[]), 2);
    assert_eq!(stops, ["restart policy shop-web-1", "stop shop-web-1 (10000 ms)"]);
    // What has completed does not make a stopped app one that runs.
    let (outcome, touched) = calls(&mut world, &lifecycle("restart", &[]), 9);
    assert_eq!((outcome.status, touched.len()), (Failed, 0));
    assert!(
        outcome.message.contains("shop is stopped; start it with `serverflow app start shop`"),
        "{}",
        outcome.message
    );
    let (outcome, starts) = calls(&mut world, &lifecycle("start", &[]), 3);
    assert_eq!(starts, ["restart policy shop-web-1", "start shop-web-1"], "{}", outcome.message);
    let (outcome, named) = calls(&mut world, &lifecycle("restart", &["migrate"]), 4);
    assert_eq!(named, ["start shop-migrate-1"], "{}", outcome.message);

    // A server that ends with 0 when it is told to has completed nothing.
    let mut world = deployed(shop(json!({ "web": { "image": "polite:1", "restart": "no" } })));
    ends(&mut world, &lifecycle("stop", &[]), 2, Succeeded);
    assert_eq!(running(&world), Vec::<String>::new());
    ends(&mut world, &lifecycle("start", &[]), 3, Succeeded);
    assert_eq!(running(&world), ["shop-web-1"]);
    // Nor is it up to date as it is for a deploy.
    ends(&mut world, &lifecycle("stop", &[]), 4, Succeeded);
    ends(&mut world, &deploy(shop(json!({ "web": { "image": "polite:1", "restart": "no" } }))), 5, Succeeded);
    assert_eq!(running(&world), ["shop-web-1"]);
}

#[test]
fn a_start_that_fails_stops_again_and_shows_the_last_lines_masked() {
    let mut world = deployed(shop_with("web:1"));
    ends(&mut world, &lifecycle("stop", &[]), 2, Succeeded);
    let before = picture(&world);
    world.engine.image_add("db:1", SimulatedImage::local("db:1", Behaviour::Unhealthy { after_ms: 200 }));
    let outcome = ends(&mut world, &lifecycle("start", &[]), 3, RolledBack);
    assert!(outcome.message.contains("service db") && outcome.message.contains("put back"), "{}", outcome.message);
    let logs = outcome.result["failing"][0]["logs"].as_str().unwrap();
    assert!(logs.contains("db says hello") && logs.contains("PASSWORD=***"), "{logs}");
    let record = String::from_utf8_lossy(&world.records["app/shop"]).into_owned();
    assert!(!record.contains("hunter22"), "a secret is in the journal");
    assert_eq!(picture(&world), before);
}

#[test]
fn a_restart_that_does_not_come_up_is_no_success() {
    let mut world = deployed(shop_with("web:1"));
    world.engine.image_add("web:1", SimulatedImage::local("web:1", Behaviour::Unhealthy { after_ms: 20_000 }));
    let outcome = ends(&mut world, &lifecycle("restart", &[]), 2, Failed);
    assert_eq!(outcome.result["rollback_failed"], true, "{}", outcome.message);
    // It is left running: there is nothing better.
    assert_eq!(running(&world), ["shop-db-1", "shop-web-1"]);
    let mut world = deployed(shop_with("web:1"));
    ends(&mut world, &lifecycle("stop", &[]), 2, Succeeded);
    let outcome = ends(&mut world, &lifecycle("restart", &[]), 3, Failed);
    assert!(outcome.message.contains("serverflow app start shop"), "{}", outcome.message);
}

#[test]
fn a_cancellation_anywhere_puts_back() {
    for (prepared, verb) in [(false, "stop"), (true, "start"), (false, "restart")] {
        let mut cancelled = 0;
        for point in 0.. {
            let mut world = deployed(shop_with("web:1"));
            if prepared {
                ends(&mut world, &lifecycle("stop", &[]), 2, Succeeded);
            }
            let before = picture(&world);
            let context = context(3);
            let mut port = SimulatedPort::new(&mut world);
            port.cancel_from = Some(Point(point));
            let outcome = drive(lifecycle(verb, &[]).run(&context, &mut port)).unwrap();
            let points = port.points();
            if outcome.status == Succeeded {
                assert!(point > 3, "{verb} at {point}: {}", outcome.message);
            } else {
                cancelled += 1;
                assert_eq!(outcome.status, Cancelled, "{verb} at {point}: {}", outcome.message);
                assert_eq!(picture(&world), before, "{verb} at {point}: {}", outcome.message);
            }
            if point > points {
                break;
            }
        }
        assert!(cancelled >= 4, "{verb}: only {cancelled} cancellations");
    }
}

#[test]
fn a_dry_run_says_what_would_happen_and_touches_nothing() {
    let mut world = deployed(shop_with("web:1"));
    let before = picture(&world);
    for (verb, words) in
        [("stop", "would stop web, db"), ("restart", "would restart db, web"), ("start", "nothing to start")]
    {
        let context = crate::port::ActionContext { dry_run: true, ..context(2) };
        let outcome = run(&mut world, &lifecycle(verb, &[]), &context);
        assert!(outcome.message.contains(words), "{}", outcome.message);
    }
    assert_eq!(picture(&world), before);
}

#[test]
fn a_roll_back_leaves_stopped_what_was_stopped() {
    let mut spec = shop_with("web:1");
    spec["services"]["web"]["restart"] = json!("always");
    let mut world = deployed(spec.clone());
    ends(&mut world, &lifecycle("stop", &[]), 2, Succeeded);
    let before = picture(&world);
    let plan = ends(&mut world, &request("app.plan", &json!({ "spec": spec })), 3, Succeeded);
    assert_eq!(plan.result["changes"][0]["reasons"], json!(["it was stopped by an order"]));
    spec["services"]["web"]["image"] = json!("web:sick");
    ends(&mut world, &deploy(spec.clone()), 4, RolledBack);
    assert_eq!(picture(&world), before);
    spec["services"]["web"]["image"] = json!("web:1");
    ends(&mut world, &deploy(spec), 5, Succeeded);
    assert_eq!(world.engine.started_by_engine().len(), 2);
    let outcome = ends(&mut world, &lifecycle("start", &[]), 6, Succeeded);
    assert!(outcome.message.starts_with("nothing to change"), "{}", outcome.message);
}

#[test]
fn what_stopped_half_way_is_put_back_before_the_next_change() {
    let mut tried = 0;
    for next in ["deploy", "remove", "start"] {
        for point in 0.. {
            let mut world = deployed(shop_with("web:1"));
            let before = picture(&world);
            let seen = world.engine.effects_seen();
            world.engine.down_from_effect = Some(seen + point);
            let outcome = run(&mut world, &lifecycle("stop", &[]), &context(2));
            if world.engine.effects_seen() <= seen + point {
                break;
            }
            tried += 1;
            assert_eq!(outcome.status, Failed, "{}", outcome.message);
            world.engine.down_from_effect = None;
            let order = match next {
                "deploy" => deploy(shop_with("web:1")),
                "remove" => remove(),
                _ => lifecycle("start", &[]),
            };
            ends(&mut world, &order, 3, Succeeded);
            if next == "remove" {
                assert_eq!(picture(&world), "volume shop_data\n", "at {point}");
            } else {
                let same =
                    |text: &str| text.lines().filter(|line| !line.contains("tag") && !line.contains("record")).count();
                assert_eq!((running(&world).len(), same(&picture(&world))), (2, same(&before)), "{next} at {point}");
                assert_eq!(world.engine.started_by_engine().len(), 2, "{next} at {point}");
            }
        }
    }
    assert!(tried >= 15, "only {tried} effects were tried");
}

#[test]
fn what_is_not_there_cannot_be_stopped_or_started() {
    let mut world = world();
    for verb in ["stop", "start", "restart"] {
        let outcome = ends(&mut world, &lifecycle(verb, &[]), 1, Failed);
        assert!(outcome.message.contains("no app named shop"), "{}", outcome.message);
    }
    let decode = |parameters: Value| {
        Request::decode(&"app.stop".parse().unwrap(), 1, parameters.to_string().as_bytes()).unwrap_err().to_string()
    };
    assert!(decode(json!({ "app": "shop", "services": [] })).contains("leave it out for all"));
    assert!(decode(json!({ "app": "shop", "services": ["a", "a"] })).contains("named twice"));
}
