//! Deploys and removals that are not interrupted.

use expect_test::expect;
use serde_json::json;

use super::scene::{
    context, deploy, deploy_parameters, ends, picture, remove, request, run, service, shop, shop_with, world,
};
use crate::{
    outcome::OutcomeStatus::{Cancelled, Failed, RolledBack, Succeeded},
    simulated::{Point, SimulatedPort, drive},
};

#[test]
fn first_deploy_comes_up_in_order_and_is_verified() {
    let mut world = world();
    let order = deploy(shop_with("web:1"));
    let context = context(1);
    let mut port = SimulatedPort::new(&mut world);
    let outcome = drive(order.run(&context, &mut port)).unwrap();
    let changing: Vec<&String> =
        port.calls.iter().filter(|call| !call.contains("inspect") && !call.contains("observe")).collect();
    expect![[r#"
        [
            "write app/shop",
            "write app/shop/release/01010101-0101-0101-0101-010101010101",
            "image tag serverflow/shop-db:010101010101",
            "image tag serverflow/shop-web:010101010101",
            "network create shop_default",
            "volume create shop_data",
            "container create shop-db-1",
            "container start shop-db-1",
            "container create shop-web-1",
            "container start shop-web-1",
            "write app/shop",
            "files sweep shop (2 kept)",
            "write app/shop",
        ]
    "#]]
    .assert_debug_eq(&changing);
    assert_eq!(outcome.status, Succeeded, "{}", outcome.message);
    expect!["shop is deployed: 2 services changed, all healthy"].assert_eq(&outcome.message);
    assert_eq!(outcome.result["verified"], json!(true));
    expect![[r#"
        container shop-db-1 db:1 Running Healthy
        container shop-web-1 web:1 Running Healthy
        network shop_default
        record app/shop
        record app/shop/release/01010101-0101-0101-0101-010101010101
        starts with the engine shop-db-1
        starts with the engine shop-web-1
        tag serverflow/shop-db:010101010101
        tag serverflow/shop-web:010101010101
        volume shop_data
    "#]]
    .assert_eq(&picture(&world));
}

#[test]
fn the_same_again_changes_nothing_and_says_so() {
    let mut world = world();
    let order = deploy(shop_with("web:1"));
    ends(&mut world, &order, 1, Succeeded);
    let before = picture(&world);
    let outcome = ends(&mut world, &order, 2, Succeeded);
    assert_eq!(outcome.result["changed"], json!(false));
    assert!(outcome.message.starts_with("nothing to change"), "{}", outcome.message);
    assert_eq!(picture(&world), before);
}

#[test]
fn only_what_changed_is_replaced() {
    let mut world = world();
    ends(&mut world, &deploy(shop_with("web:1")), 1, Succeeded);
    let db = world.engine.containers(world.clock).into_iter().find(|c| c.service == "db").unwrap();
    let outcome = ends(&mut world, &deploy(shop_with("web:2")), 2, Succeeded);
    assert!(world.engine.containers(world.clock).iter().any(|c| c.id == db.id), "db was replaced");
    assert_eq!(outcome.result["services"]["db"]["change"], json!("unchanged"));
    assert_eq!(outcome.result["services"]["web"]["change"], json!("replace"));
    expect![[r#"
        container shop-db-1 db:1 Running Healthy
        container shop-web-1 web:2 Running Healthy
        network shop_default
        record app/shop
        record app/shop/release/01010101-0101-0101-0101-010101010101
        record app/shop/release/02020202-0202-0202-0202-020202020202
        starts with the engine shop-db-1
        starts with the engine shop-web-1
        tag serverflow/shop-db:010101010101
        tag serverflow/shop-db:020202020202
        tag serverflow/shop-web:010101010101
        tag serverflow/shop-web:020202020202
        volume shop_data
    "#]]
    .assert_eq(&picture(&world));
}

#[test]
fn a_changed_secret_replaces_without_telling_it() {
    let mut world = world();
    ends(&mut world, &deploy(shop_with("web:1")), 1, Succeeded);
    let mut context = context(2);
    for value in context.secrets.values_mut() {
        *value = zeroize::Zeroizing::new("other-secret".to_owned());
    }
    context.dry_run = true;
    let outcome = run(&mut world, &deploy(shop_with("web:1")), &context);
    let plan: crate::app_plan::PlanResult = serde_json::from_value(outcome.result).unwrap();
    expect![[r#"
        would replace 1 service of shop
          ~ db   replace    environment PASSWORD changed
          = web  unchanged
          image of db: db:1 = sha256:554a4fc4a615bec87da50c62abff59ee6de6e95a87cef45bf37558687b37bc84 (only on this host)
          image of web: web:1 = sha256:8724d338e126049234c1d85057d87a9e9991a703bb402e390abba5dc99f26361 (only on this host)
          stop-first: each service has one container under a fixed name, so the old one stops before the new one starts
    "#]].assert_eq(&crate::app_plan::render_plan(&plan));
}

/// Deploys that on top of a healthy release, and as a first release: both must go back.
fn goes_back(web: &str) -> (String, String) {
    let mut first = world();
    let untouched = picture(&first);
    let outcome = ends(&mut first, &deploy(shop_with(web)), 1, RolledBack);
    assert_eq!(outcome.result["volumes_kept"], json!(["shop_data"]));
    let left: Vec<String> = picture(&first).lines().map(str::to_owned).collect();
    assert_eq!(left, ["record app/shop", "volume shop_data"], "left over of a first deploy; before: {untouched}");

    let mut second = world();
    ends(&mut second, &deploy(shop_with("web:1")), 1, Succeeded);
    let before = picture(&second);
    let outcome_second = ends(&mut second, &deploy(shop_with(web)), 2, RolledBack);
    assert_eq!(picture(&second), before);
    (outcome.message, outcome_second.message)
}

#[test]
fn an_unhealthy_container_fails_at_once_and_goes_back() {
    let (first, second) = goes_back("web:sick");
    expect!["service web: container shop-web-1 is unhealthy: its health check failed too often. Nothing of shop is left on this host but its volumes: shop_data"].assert_eq(&first);
    expect!["service web: container shop-web-1 is unhealthy: its health check failed too often. shop was put back as it was, and verified"].assert_eq(&second);
}

#[test]
fn other_ends_of_a_container_go_back_with_words() {
    let messages: Vec<String> =
        ["web:slow", "web:crash", "web:oom", "web:broken"].into_iter().map(|web| goes_back(web).1).collect();
    expect![[r#"
        [
            "not healthy within 2 min: web (not healthy yet). See the last log lines; allow more time with `--healthy-within` if the app needs it. shop was put back as it was, and verified",
            "service web: container shop-web-1 ended with exit code 3 and is being restarted over and over. shop was put back as it was, and verified",
            "service web: container shop-web-1 was killed because it used more memory than it may (out of memory). shop was put back as it was, and verified",
            "service web: container shop-web-1 could not be started: cannot start shop-web-1: exec format error. shop was put back as it was, and verified",
        ]
    "#]].assert_debug_eq(&messages);
}

#[test]
fn the_failing_containers_last_lines_are_reported_masked() {
    let mut world = world();
    world.engine.image_add(
        "db:1",
        crate::simulated::SimulatedImage::local("db:1", crate::simulated::Behaviour::Unhealthy { after_ms: 100 }),
    );
    let outcome = ends(&mut world, &deploy(shop_with("web:1")), 1, RolledBack);
    assert_eq!(outcome.result["failing"][0]["logs"], json!("db says hello\nPASSWORD=***\n"));
    let recorded: Vec<u8> = world.records.values().flatten().copied().collect();
    assert!(!String::from_utf8_lossy(&recorded).contains("hunter22"), "a secret was recorded in the open");
}

#[test]
fn no_probe_is_unverified_in_that_word() {
    let mut world = world();
    let outcome = ends(&mut world, &deploy(shop(json!({ "web": service("plain:1") }))), 1, Succeeded);
    assert_eq!(outcome.result["verified"], json!(false));
    assert!(outcome.message.starts_with("unverified"), "{}", outcome.message);
}

fn with_migration(image: &str) -> serde_json::Value {
    shop(json!({
        "migrate": { "image": image, "restart": "no" },
        "web": {
            "image": "web:1",
            "restart": "unless_stopped",
            "depends_on": { "migrate": "service_completed_successfully" },
        },
    }))
}

#[test]
fn a_one_shot_service_counts_by_its_exit_code() {
    let mut world = world();
    let outcome = ends(&mut world, &deploy(with_migration("migrate:1")), 1, Succeeded);
    assert_eq!(outcome.result["services"]["migrate"]["state"], json!("completed"));
    assert_eq!(outcome.result["verified"], json!(true));
    let outcome = ends(&mut world, &deploy(with_migration("migrate:bad")), 2, RolledBack);
    assert!(outcome.message.contains("exit code 1"), "{}", outcome.message);
}

#[test]
fn a_taken_port_or_name_goes_back() {
    let mut world = world();
    world.engine.foreign_ports.insert(8080);
    let outcome = ends(&mut world, &deploy(shop_with("web:1")), 1, RolledBack);
    assert!(outcome.message.contains("port 8080"), "{}", outcome.message);
    world.engine.foreign_ports.clear();
    world.engine.foreign_names.insert("shop-web-1".to_owned());
    let outcome = ends(&mut world, &deploy(shop_with("web:1")), 2, RolledBack);
    assert!(outcome.message.contains("shop-web-1 is taken"), "{}", outcome.message);
}

#[test]
fn services_can_exchange_their_ports() {
    let app = |a: u16, b: u16| {
        let port =
            |p: u16| json!([{ "host_ip": "127.0.0.1", "host_port": p, "container_port": 80, "protocol": "tcp" }]);
        shop(json!({
            "a": { "image": "web:1", "restart": "unless_stopped", "ports": port(a) },
            "b": { "image": "web:1", "restart": "unless_stopped", "ports": port(b) },
        }))
    };
    let mut world = world();
    ends(&mut world, &deploy(app(8001, 8002)), 1, Succeeded);
    ends(&mut world, &deploy(app(8002, 8001)), 2, Succeeded);
}

#[test]
fn a_service_that_left_the_file_goes() {
    let mut world = world();
    ends(&mut world, &deploy(shop_with("web:1")), 1, Succeeded);
    let outcome = ends(&mut world, &deploy(shop(json!({ "web": service("web:2") }))), 2, Succeeded);
    assert_eq!(outcome.result["changed"], json!(true));
    let names: Vec<String> = world.engine.containers(world.clock).into_iter().map(|c| c.name).collect();
    assert_eq!(names, ["shop-web-1"]);
    assert_eq!(world.engine.volumes(), ["shop_data"]);
}

#[test]
fn a_network_with_other_settings_is_another_network() {
    let app = |internal: bool| {
        let mut app =
            shop(json!({ "web": { "image": "web:1", "restart": "unless_stopped", "networks": { "inner": [] } } }));
        app["networks"] = json!({ "inner": { "internal": internal } });
        app
    };
    let mut world = world();
    ends(&mut world, &deploy(app(false)), 1, Succeeded);
    assert_eq!(world.engine.networks(), ["shop_inner"]);
    ends(&mut world, &deploy(app(true)), 2, Succeeded);
    let networks = world.engine.networks();
    assert_eq!(networks.len(), 1);
    assert_ne!(networks, ["shop_inner"]);
}

#[test]
fn what_ended_by_itself_is_started_again() {
    let mut world = world();
    let order = deploy(shop_with("web:1"));
    ends(&mut world, &order, 1, Succeeded);
    world.engine.container_kill("shop-web-1");
    let outcome = ends(&mut world, &order, 2, Succeeded);
    assert_eq!(outcome.result["services"]["web"]["change"], json!("restart"));
    assert_eq!(outcome.result["services"]["web"]["state"], json!("healthy"));
}

#[test]
fn five_releases_stay() {
    let mut world = world();
    for n in 1..=8 {
        let web = if n % 2 == 0 { "web:1" } else { "web:2" };
        ends(&mut world, &deploy(shop_with(web)), n, Succeeded);
    }
    assert_eq!(world.records.keys().filter(|key| key.contains("/release/")).count(), 5);
    assert_eq!(world.engine.tags().len(), 5 * 2);
}

#[test]
fn an_image_that_is_gone_fails_before_anything_is_touched() {
    let mut world = world();
    ends(&mut world, &deploy(shop_with("web:1")), 1, Succeeded);
    let before = picture(&world);
    let outcome = ends(&mut world, &deploy(shop_with("web:unknown")), 2, Failed);
    assert!(outcome.message.ends_with("Nothing was changed"), "{}", outcome.message);
    assert_eq!(picture(&world), before);
}

#[test]
fn an_order_that_ended_answers_the_same_when_it_is_resumed() {
    let mut world = world();
    for (n, web, status) in [(1, "web:1", Succeeded), (2, "web:sick", RolledBack), (3, "web:2", Succeeded)] {
        let order = deploy(shop_with(web));
        let first = ends(&mut world, &order, n, status);
        let before = picture(&world);
        let mut again = context(n);
        again.resumed = true;
        assert_eq!(run(&mut world, &order, &again), first);
        assert_eq!(picture(&world), before);
    }
}

#[test]
fn cancelled_anywhere_it_is_one_release_or_the_other() {
    let order = deploy(shop_with("web:2"));
    let prepared = || {
        let mut world = world();
        ends(&mut world, &deploy(shop_with("web:1")), 1, Succeeded);
        world
    };
    let mut clean = prepared();
    let old = picture(&clean);
    let context = context(2);
    let mut port = SimulatedPort::new(&mut clean);
    drive(order.run(&context, &mut port)).unwrap();
    let points = port.points();
    let new = picture(&clean);
    let mut cancelled = 0;
    for point in 0..points {
        let mut world = prepared();
        let mut port = SimulatedPort::new(&mut world);
        port.cancel_from = Some(Point(point));
        let outcome = drive(order.run(&context, &mut port)).unwrap();
        let now = picture(&world);
        match outcome.status {
            Cancelled => assert_eq!(now, old, "cancelled at {point}"),
            Succeeded => assert_eq!(now, new, "cancelled too late at {point}"),
            other => panic!("cancelled at {point}: {other:?} {}", outcome.message),
        }
        cancelled += u64::from(outcome.status == Cancelled);
    }
    assert!(cancelled > points / 3, "only {cancelled} of {points} ended as cancelled");
}

#[test]
fn docker_away_for_a_while_is_waited_for_anywhere() {
    let order = deploy(shop_with("web:2"));
    let mut point = 0;
    loop {
        let mut world = world();
        ends(&mut world, &deploy(shop_with("web:1")), 1, Succeeded);
        let seen = world.engine.effects_seen();
        world.engine.down_from_effect = Some(seen + point);
        world.engine.down_until = Some(world.clock.plus(ids::DurationMs::from_secs(50)));
        ends(&mut world, &order, 2, Succeeded);
        if world.engine.effects_seen() <= seen + point {
            break;
        }
        point += 1;
    }
    assert!(point >= 20, "only {point} effects were tried");
}

#[test]
fn an_answer_that_is_lost_is_asked_for_again_anywhere() {
    let order = deploy(shop_with("web:2"));
    let mut point = 0;
    loop {
        let mut world = world();
        ends(&mut world, &deploy(shop_with("web:1")), 1, Succeeded);
        let seen = world.engine.effects_seen();
        world.engine.answer_lost_at_effect = Some(seen + point);
        ends(&mut world, &order, 2, Succeeded);
        if world.engine.effects_seen() <= seen + point {
            break;
        }
        point += 1;
    }
    assert!(point >= 20, "only {point} effects were tried");
}

#[test]
fn docker_that_never_comes_back_fails_and_the_next_change_puts_back_first() {
    let order = deploy(shop_with("web:2"));
    let mut tried = 0;
    for point in 0.. {
        let mut world = world();
        ends(&mut world, &deploy(shop_with("web:1")), 1, Succeeded);
        let old = picture(&world);
        let seen = world.engine.effects_seen();
        world.engine.down_from_effect = Some(seen + point);
        let outcome = run(&mut world, &order, &context(2));
        if world.engine.effects_seen() <= seen + point {
            break;
        }
        tried += 1;
        world.engine.down_from_effect = None;
        if outcome.status == Succeeded {
            assert_eq!(outcome.result["cleanup_pending"], json!(true), "{}", outcome.message);
            continue;
        }
        assert_eq!(outcome.status, Failed, "{}", outcome.message);
        // The next change asks for the old release: after putting back there is nothing to change.
        let next = ends(&mut world, &deploy(shop_with("web:1")), 3, Succeeded);
        assert_eq!(next.result["changed"], json!(false), "at {point}: {}", next.message);
        assert_eq!(picture(&world), old, "at {point}");
    }
    assert!(tried >= 20, "only {tried} effects were tried");
}

#[test]
fn a_network_that_somebody_else_joined_stays_and_stops_no_later_change() {
    let mut world = world();
    let mut spec = shop_with("web:1");
    spec["networks"]["extra"] = json!({});
    spec["services"]["web"]["networks"] = json!({ "default": [], "extra": [] });
    ends(&mut world, &deploy(spec), 1, Succeeded);
    world.engine.foreign_joined.insert("shop_extra".to_owned());
    let outcome = ends(&mut world, &deploy(shop_with("web:1")), 2, Succeeded);
    assert_eq!(outcome.result.get("cleanup_pending"), None, "{}", outcome.message);
    assert!(world.engine.networks().contains(&"shop_extra".to_owned()), "it is in use");
    ends(&mut world, &deploy(shop_with("web:2")), 3, Succeeded);
    world.engine.foreign_joined.clear();
    ends(&mut world, &deploy(shop_with("web:1")), 4, Succeeded);
    assert!(!world.engine.networks().contains(&"shop_extra".to_owned()), "it goes once it is free");
}

#[test]
fn a_journal_that_cannot_be_written_stops_everything() {
    for point in 0..60 {
        let mut world = world();
        ends(&mut world, &deploy(shop_with("web:1")), 1, Succeeded);
        let old = picture(&world);
        let order = deploy(shop_with("web:2"));
        let context = context(2);
        let mut port = SimulatedPort::new(&mut world);
        port.journal_fails_from = Some(Point(point));
        let outcome = drive(order.run(&context, &mut port)).unwrap();
        if outcome.status == Succeeded {
            continue;
        }
        assert_eq!(outcome.status, Failed, "{}", outcome.message);
        ends(&mut world, &deploy(shop_with("web:1")), 3, Succeeded);
        assert_eq!(picture(&world), old, "at {point}");
    }
}

#[test]
fn a_rollback_that_fails_is_a_failure_and_says_so() {
    let mut world = world();
    ends(&mut world, &deploy(shop_with("web:1")), 1, Succeeded);
    let mut sick = shop_with("web:sick");
    // The port that the old release had is taken by a stranger while it is away.
    sick["services"]["web"]["ports"][0]["host_port"] = json!(8081);
    let order = deploy(sick);
    let context = context(2);
    world.engine.foreign_ports.insert(8080);
    let mut port = SimulatedPort::new(&mut world);
    let outcome = drive(order.run(&context, &mut port)).unwrap();
    assert_eq!(outcome.status, Failed, "{}", outcome.message);
    assert_eq!(outcome.result["rollback_failed"], json!(true));
    assert!(outcome.message.contains("port 8080"), "{}", outcome.message);
    world.engine.foreign_ports.clear();
    ends(&mut world, &deploy(shop_with("web:1")), 3, Succeeded);
}

#[test]
fn waiting_for_the_health_of_what_has_no_probe_is_refused_before_anything_is_touched() {
    let mut world = world();
    let before = picture(&world);
    let app = shop(json!({
        "db": service("plain:1"),
        "web": { "image": "web:1", "restart": "unless_stopped", "depends_on": { "db": "service_healthy" } },
    }));
    let outcome = ends(&mut world, &deploy(app), 1, Failed);
    assert!(outcome.message.contains("health check"), "{}", outcome.message);
    assert_eq!(picture(&world), before);
}

#[test]
fn a_dry_run_changes_nothing() {
    let mut world = world();
    ends(&mut world, &deploy(shop_with("web:1")), 1, Succeeded);
    let before = picture(&world);
    let records = world.records.clone();
    let mut dry = context(2);
    dry.dry_run = true;
    let orders = [
        deploy(shop_with("web:2")),
        remove(),
        request("app.plan", &json!({ "spec": shop(json!({ "web": service("ghcr.io/owner/app:1") })) })),
        request("app.logs", &json!({ "app": "shop" })),
        request("host.facts", &json!({})),
        request("docker.containers", &json!({})),
        request("command.cancel", &json!({ "command_id": "018bcfe5-6800-7fff-bfff-ffffffffffff" })),
    ];
    for order in orders {
        let outcome = run(&mut world, &order, &dry);
        assert_eq!(outcome.status, Succeeded, "{}", outcome.message);
        assert_eq!(picture(&world), before, "{}", order.info().name);
        assert_eq!(world.records, records, "{}", order.info().name);
    }
}

#[test]
fn parameters_pin_what_the_specification_names() {
    let mut parameters = deploy_parameters(shop_with("web:1"));
    parameters["images"]["web"] =
        json!({ "reference": "web:1", "pinned": format!("docker.io/evil/web@sha256:{}", "a".repeat(64)) });
    let name = "app.deploy".parse().unwrap();
    let error = crate::Request::decode(&name, 1, parameters.to_string().as_bytes()).unwrap_err();
    assert!(error.to_string().contains("another repository"), "{error}");
}
