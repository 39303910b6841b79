//! Reads: plans, logs, facts.

use expect_test::{expect, expect_file};
use serde_json::{Value, json};

use super::scene::{context, deploy, ends, picture, request, run, service, shop, shop_with, world};
use crate::{
    app_plan::{PlanResult, render_plan},
    outcome::OutcomeStatus::{Failed, Succeeded},
    policy::Policy,
    simulated::SimulatedWorld,
};

fn plan(world: &mut SimulatedWorld, spec: Value) -> PlanResult {
    let outcome = ends(world, &request("app.plan", &json!({ "spec": spec })), 7, Succeeded);
    serde_json::from_value(outcome.result).unwrap()
}

fn golden(name: &str, plan: &PlanResult) {
    let text = format!("{}\n{}\n", render_plan(plan), serde_json::to_string_pretty(plan).unwrap());
    expect_file![format!("{}/src/app_plan/golden/{name}.txt", env!("CARGO_MANIFEST_DIR"))].assert_eq(&text);
}

#[test]
fn plans_are_as_blessed() {
    let mut world = world();
    golden("first", &plan(&mut world, shop_with("web:1")));
    ends(&mut world, &deploy(shop_with("web:1")), 1, Succeeded);
    golden("unchanged", &plan(&mut world, shop_with("web:1")));
    golden("web-replaced", &plan(&mut world, shop_with("web:2")));
    let mut fewer = shop(json!({ "web": service("plain:1") }));
    fewer["services"]["web"]["networks"] = json!({ "inner": ["www"] });
    fewer["networks"] = json!({ "inner": { "internal": true } });
    golden("service-dropped-network-changed", &plan(&mut world, fewer));
}

#[test]
fn a_plan_touches_no_container_and_pulls_what_it_must_pin() {
    let mut world = world();
    let before = picture(&world);
    let plan = plan(&mut world, shop(json!({ "web": service("ghcr.io/owner/app:1") })));
    let image = plan.images.values().next().unwrap();
    assert!(image.pinned.starts_with("ghcr.io/owner/app@sha256:"), "{}", image.pinned);
    assert!(!image.local);
    assert_eq!(picture(&world), before);
    // What was planned can be deployed.
    let parameters = json!({ "spec": shop(json!({ "web": service("ghcr.io/owner/app:1") })), "images": plan.images });
    ends(&mut world, &request("app.deploy", &parameters), 2, Succeeded);
}

#[test]
fn an_unknown_image_is_explained() {
    let mut world = world();
    let order = request("app.plan", &json!({ "spec": shop(json!({ "web": service("nginx:99") })) }));
    let outcome = ends(&mut world, &order, 1, Failed);
    expect!["shop cannot be planned: image nginx:99 of service web does not exist, or this host may not read it: manifest for nginx:99 not found. Check its name and tag; for a private registry run `docker login` on the host. Nothing was changed"].assert_eq(&outcome.message);
}

#[test]
fn policy_judges_images_by_what_they_turn_out_to_be() {
    let mut world = world();
    let mut context = context(1);
    context.policy = Policy::parse("[images]\nregistries = [\"docker.io\"]\n").unwrap();
    let order = request("app.plan", &json!({ "spec": shop(json!({ "web": service("web:1") })) }));
    let outcome = run(&mut world, &order, &context);
    assert_eq!(outcome.status, Failed);
    expect![[r#"shop cannot be planned: this host's policy refuses: service web uses the image web:1, which only this host has. To allow it, the host's owner adds to policy.toml: [images] registries = ["local"]. Nothing was changed"#]].assert_eq(&outcome.message);
}

#[test]
fn logs_are_a_bounded_snapshot() {
    let mut world = world();
    ends(&mut world, &deploy(shop_with("web:1")), 1, Succeeded);
    let outcome = ends(&mut world, &request("app.logs", &json!({ "app": "shop", "service": "web" })), 2, Succeeded);
    assert_eq!(outcome.result["logs"][0]["text"], json!("web says hello\n"));
    let outcome = ends(&mut world, &request("app.logs", &json!({ "app": "shop", "service": "x" })), 3, Failed);
    expect!["app shop has no service x here; it has db, web"].assert_eq(&outcome.message);
    let outcome = ends(&mut world, &request("app.logs", &json!({ "app": "other" })), 4, Failed);
    expect!["this host runs no app named other; see `serverflow app list`"].assert_eq(&outcome.message);
}

#[test]
fn facts_and_containers_come_as_the_host_says() {
    let mut world = world();
    ends(&mut world, &deploy(shop_with("web:1")), 1, Succeeded);
    let outcome = ends(&mut world, &request("docker.containers", &json!({})), 2, Succeeded);
    assert_eq!(outcome.result["total"], json!(2));
    let outcome = ends(&mut world, &request("host.facts", &json!({})), 3, Succeeded);
    assert_eq!(outcome.result["cpus"], json!(2));
    world.engine.down_from_effect = Some(0);
    let outcome = ends(&mut world, &request("host.facts", &json!({})), 4, Failed);
    assert!(outcome.message.contains("Docker does not answer"), "{}", outcome.message);
}
