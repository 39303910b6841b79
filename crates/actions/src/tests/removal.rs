//! Removals that are not interrupted, or that stop half-way.

use serde_json::json;

use super::scene::{context, deploy, ends, picture, remove, run, service, shop, shop_with, world};
use crate::outcome::OutcomeStatus::{Failed, Succeeded};

#[test]
fn a_network_that_somebody_else_joined_stays_and_is_named() {
    let mut world = world();
    ends(&mut world, &deploy(shop_with("web:1")), 1, Succeeded);
    world.engine.foreign_joined.insert("shop_default".to_owned());
    let outcome = ends(&mut world, &remove(), 2, Succeeded);
    assert_eq!(outcome.result["networks_left"], json!(["shop_default"]), "{}", outcome.message);
    assert!(outcome.message.contains("shop_default stays"), "{}", outcome.message);
    assert_eq!(picture(&world).lines().filter(|line| line.starts_with("container")).count(), 0);
    // The name is free again.
    ends(&mut world, &deploy(shop_with("web:1")), 3, Succeeded);
}

#[test]
fn removing_keeps_volumes_and_nothing_else() {
    let mut world = world();
    ends(&mut world, &deploy(shop_with("web:1")), 1, Succeeded);
    ends(&mut world, &deploy(shop_with("web:2")), 2, Succeeded);
    let outcome = ends(&mut world, &remove(), 3, Succeeded);
    assert_eq!(outcome.result["removed"], json!(["shop-web-1", "shop-db-1"]));
    assert_eq!(outcome.result["volumes_kept"], json!(["shop_data"]));
    assert_eq!(picture(&world), "volume shop_data\n");
    let outcome = ends(&mut world, &remove(), 4, Succeeded);
    assert!(outcome.message.starts_with("nothing to remove"), "{}", outcome.message);
}

#[test]
fn a_removal_that_stopped_half_way_is_finished_before_the_next_deploy() {
    let mut tried = 0;
    for point in 0.. {
        let mut world = world();
        ends(&mut world, &deploy(shop_with("web:1")), 1, Succeeded);
        let seen = world.engine.effects_seen();
        world.engine.down_from_effect = Some(seen + point);
        let outcome = run(&mut world, &remove(), &context(2));
        if world.engine.effects_seen() <= seen + point {
            break;
        }
        tried += 1;
        assert_eq!(outcome.status, Failed, "{}", outcome.message);
        world.engine.down_from_effect = None;
        ends(&mut world, &deploy(shop(json!({ "web": service("web:2") }))), 3, Succeeded);
        let names: Vec<String> = world.engine.containers(world.clock).into_iter().map(|c| c.name).collect();
        assert_eq!(names, ["shop-web-1"], "at {point}: {}", outcome.message);
    }
    assert!(tried >= 8, "only {tried} effects were tried");
}

#[test]
fn removing_an_app_that_never_was_is_a_mistake() {
    let mut world = world();
    let outcome = ends(&mut world, &remove(), 1, Failed);
    assert!(outcome.message.contains("no app named shop"), "{}", outcome.message);
}
