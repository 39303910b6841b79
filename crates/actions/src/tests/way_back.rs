//! Putting back, where something stands in the way of it: time that is over, a person's hand on a
//! container, one that does not come back, and what an end says of it.

use serde_json::{Value, json};

use super::scene::{context, deploy, ends, lifecycle, picture, remove, request, run, service, shop, shop_with, world};
use crate::{
    Request, limits,
    outcome::OutcomeStatus::{Failed, RolledBack, Succeeded},
    port::ActionContext,
    simulated::{Behaviour, Death, Point, SimulatedImage, SimulatedPort, SimulatedWorld, drive},
};

/// `a` and `b` of these images, with nothing else.
fn two(a: &str, b: &str) -> Request {
    deploy(shop(json!({ "a": service(a), "b": service(b) })))
}

fn deployed(order: &Request) -> SimulatedWorld {
    let mut world = world();
    ends(&mut world, order, 1, Succeeded);
    world
}

fn names(world: &SimulatedWorld) -> Vec<String> {
    let mut names: Vec<String> = world.engine.containers(world.clock).into_iter().map(|c| c.name).collect();
    names.sort();
    names
}

/// The agent dies in the second order as soon as the host has these containers.
fn dies_with(prepared: fn() -> SimulatedWorld, order: &Request, wanted: &[&str]) -> SimulatedWorld {
    for point in 0.. {
        let mut world = prepared();
        let mut port = SimulatedPort::new(&mut world);
        port.death = Some(Death::After(Point(point)));
        assert_eq!(drive(order.run(&context(2), &mut port)), None, "{wanted:?} were never there together");
        if names(&world) == wanted {
            return world;
        }
    }
    unreachable!("the numbers do not end")
}

#[test]
fn a_change_whose_time_is_over_is_put_back() {
    let mut world = deployed(&deploy(shop(json!({ "a": service("web:1") }))));
    let minutes = |minutes: u64| minutes * 60_000;
    let late = SimulatedImage::local("web:2", Behaviour::Healthy { after_ms: minutes(19) });
    world.engine.image_add("web:2", late);
    let mut services = json!({ "a": service("web:2") });
    for (name, before) in [("b", "a"), ("c", "b"), ("d", "c"), ("e", "d")] {
        services[name] = service("web:2");
        services[name]["depends_on"] = json!({ before: "service_healthy" });
    }
    let mut parameters = super::scene::deploy_parameters(shop(services));
    parameters["timeout_ms"] = json!(minutes(20));
    let (before, began) = (picture(&world), world.clock);
    let outcome = ends(&mut world, &request("app.deploy", &parameters), 2, RolledBack);
    assert!(outcome.message.starts_with("the time for this order was over"), "{}", outcome.message);
    assert_eq!(picture(&world), before);
    let took = world.clock.since(began).0;
    assert!((minutes(60)..minutes(62)).contains(&took), "it took {took} ms");
}

#[test]
fn one_container_that_cannot_come_back_holds_up_no_other() {
    let prepared = || deployed(&two("web:1", "web:1"));
    let old = picture(&prepared());
    let order = two("web:2", "web:sick");
    let mut world = dies_with(prepared, &order, &["shop-a-1", "shop-a-1.previous", "shop-b-1", "shop-b-1.previous"]);
    // Somebody takes the name as soon as it is free.
    world.engine.foreign_names.insert("shop-a-1".to_owned());
    let outcome = ends(&mut world, &two("web:2", "web:2"), 3, Failed);
    assert_eq!(outcome.result["rollback_pending"], json!(true), "{}", outcome.message);
    assert!(outcome.message.contains("shop-a-1.previous could not get its name shop-a-1 back"), "{}", outcome.message);
    assert_eq!(names(&world), ["shop-a-1.previous", "shop-b-1"]);
    assert!(picture(&world).contains("container shop-b-1 web:1 Running Healthy"), "{}", picture(&world));
    // Nothing is forgotten: once the name is free, the next change finishes it.
    world.engine.foreign_names.clear();
    let outcome = ends(&mut world, &two("web:1", "web:1"), 4, Succeeded);
    assert_eq!(outcome.result["changed"], json!(false), "{}", outcome.message);
    assert_eq!(picture(&world), old);
}

fn one() -> SimulatedWorld {
    deployed(&deploy(shop(json!({ "a": service("web:1") }))))
}

#[test]
fn what_crashes_after_it_was_put_back_is_not_called_verified() {
    let order = deploy(shop(json!({ "a": service("web:sick") })));
    for after_ms in [1, 700, 1_900] {
        let mut world = dies_with(one, &order, &["shop-a-1", "shop-a-1.previous"]);
        // Whatever it needs is gone by now.
        world.engine.image_add("web:1", SimulatedImage::local("web:1", Behaviour::Exits { after_ms, code: 3 }));
        let back = ActionContext { resumed: true, backwards_only: true, ..context(2) };
        let outcome = run(&mut world, &order, &back);
        assert_eq!(outcome.status, Failed, "after {after_ms} ms: {}", outcome.message);
        assert_eq!(outcome.result["rollback_failed"], json!(true));
        assert!(outcome.message.contains("shop-a-1 is being tried again"), "{}", outcome.message);
    }
}

#[test]
fn what_was_put_back_has_held_before_it_counts() {
    let mut world = one();
    ends(&mut world, &deploy(shop(json!({ "a": service("web:sick") }))), 2, RolledBack);
    let containers = world.engine.containers(world.clock);
    let started: u64 = containers[0].started_at.parse().unwrap();
    assert!(world.clock.0 >= started + limits::MIN_HEALTHY_DEFAULT.0, "{} after {started}", world.clock.0);
}

#[test]
fn a_container_that_somebody_paused_is_left_so() {
    let mut world = deployed(&two("web:1", "web:1"));
    world.engine.container_pause("shop-a-1");
    let before = picture(&world);
    let outcome = ends(&mut world, &two("web:1", "web:sick"), 2, RolledBack);
    assert!(outcome.message.ends_with("put back as it was, and verified"), "{}", outcome.message);
    assert_eq!(picture(&world), before);
    // Nor does a restart of the other one that fails start it.
    world.engine.image_add("web:1", SimulatedImage::local("web:1", Behaviour::Unhealthy { after_ms: 1_000 }));
    let outcome = run(&mut world, &lifecycle("restart", &["b"]), &context(3));
    assert!(!outcome.message.contains("unpause"), "{}", outcome.message);
    assert!(picture(&world).contains("shop-a-1 web:1 Paused"), "{}", picture(&world));
}

#[test]
fn a_container_that_somebody_renamed_is_replaced_and_comes_back() {
    let renamed = || {
        let mut world = deployed(&two("web:1", "web:1"));
        world.engine.container_rename("shop-a-1", "by-hand");
        world
    };
    let mut world = renamed();
    let outcome = ends(&mut world, &two("web:1", "web:1"), 2, Succeeded);
    assert_eq!(outcome.result["services"]["a"]["change"], json!("replace"), "{}", outcome.message);
    assert_eq!(outcome.result["services"]["a"]["state"], json!("healthy"));
    assert_eq!(names(&world), ["shop-a-1", "shop-b-1"]);

    let mut world = renamed();
    let before = picture(&world);
    ends(&mut world, &two("web:1", "web:sick"), 2, RolledBack);
    assert_eq!(picture(&world), before);
}

#[test]
fn an_end_after_something_earlier_was_settled_says_so() {
    // A deploy is half-way, because Docker went away.
    let mut world = deployed(&deploy(shop_with("web:1")));
    let seen = world.engine.effects_seen();
    world.engine.down_from_effect = Some(seen + 12);
    let outcome = ends(&mut world, &deploy(shop_with("web:2")), 2, Failed);
    assert_eq!(outcome.result["rollback_pending"], json!(true), "{}", outcome.message);
    world.engine.down_from_effect = None;
    let outcome = ends(&mut world, &lifecycle("stop", &["stranger"]), 3, Failed);
    assert!(outcome.message.contains("has no service stranger"), "{}", outcome.message);
    assert!(outcome.message.contains("First an earlier deploy of shop"), "{}", outcome.message);
    assert!(!outcome.message.contains("Nothing was changed"), "{}", outcome.message);
    assert_eq!(outcome.result["changed"], json!(true));
    assert_eq!(outcome.result.get("absent"), None);
}

#[test]
fn an_end_after_which_the_app_is_gone_says_so() {
    let mut world = deployed(&two("web:1", "web:1"));
    let seen = world.engine.effects_seen();
    world.engine.down_from_effect = Some(seen + 4);
    let outcome = ends(&mut world, &remove(), 2, Failed);
    assert_eq!(outcome.result["removal_pending"], json!(true), "{}", outcome.message);
    world.engine.down_from_effect = None;
    let outcome = ends(&mut world, &lifecycle("start", &[]), 3, Failed);
    assert!(outcome.message.contains("First an earlier removal of shop"), "{}", outcome.message);
    assert_eq!((&outcome.result["absent"], &outcome.result["changed"]), (&json!(true), &json!(true)));
    let outcome = ends(&mut world, &remove(), 4, Failed);
    assert_eq!(outcome.result["absent"], json!(true), "{}", outcome.message);
}

#[test]
fn last_lines_are_bounded_as_a_whole() {
    let mut services = serde_json::Map::new();
    for n in 0..20 {
        let mut service = service("web:slow");
        for key in 0..40 {
            let key = format!("{}{key}", "K".repeat(200));
            service["environment"][key] = json!({ "sealed": "db/environment/PASSWORD" });
        }
        services.insert(format!("s{n}"), service);
    }
    let outcome = ends(&mut world(), &deploy(shop(Value::Object(services))), 1, RolledBack);
    let failing = outcome.result["failing"].as_array().unwrap();
    let logs: usize = failing.iter().map(|one| one["logs"].as_str().unwrap().len()).sum();
    assert_eq!(failing.len(), 20);
    assert!((100_000..=limits::FAILURE_LOGS_BYTES_MAX).contains(&logs), "{logs} bytes");
}
