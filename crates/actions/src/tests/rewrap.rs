//! Secrets sealed to the host's newest key, wherever it is interrupted.

use serde_json::{Value, json};

use super::scene::{context, deploy, ends, remove, request, run, shop_with, world};
use crate::{
    Request,
    outcome::OutcomeStatus::{Failed, Succeeded},
    simulated::{Death, Point, SimulatedPort, SimulatedWorld, drive},
};

fn rewrap() -> Request {
    request("app.secrets.rewrap", &json!({ "app": "shop" }))
}

/// Replaces the sealed bytes of every release in the journal.
fn sealed(world: &mut SimulatedWorld, bytes: &[u8]) {
    for (key, record) in &mut world.records {
        if key.contains("/release/") {
            let mut release: Value = serde_json::from_slice(record).unwrap();
            release["sealed"]["db/environment/PASSWORD"] = json!(data_encoding::BASE64.encode(bytes));
            *record = serde_json::to_vec(&release).unwrap();
        }
    }
}

fn stored(world: &SimulatedWorld) -> Vec<Vec<u8>> {
    let of = |record: &[u8]| {
        let release: Value = serde_json::from_slice(record).unwrap();
        let text = release["sealed"]["db/environment/PASSWORD"].as_str().unwrap().to_owned();
        data_encoding::BASE64.decode(text.as_bytes()).unwrap()
    };
    world.records.iter().filter(|(key, _)| key.contains("/release/")).map(|(_, record)| of(record)).collect()
}

fn two_releases() -> SimulatedWorld {
    let mut world = world();
    ends(&mut world, &deploy(shop_with("web:1")), 1, Succeeded);
    ends(&mut world, &deploy(shop_with("web:2")), 2, Succeeded);
    sealed(&mut world, b"old:secret");
    world
}

#[test]
fn every_kept_release_is_sealed_to_the_newest_key_and_no_container_is_touched() {
    let mut world = two_releases();
    let effects = world.engine.effects_seen();
    let mut dry = context(3);
    dry.dry_run = true;
    let planned = run(&mut world, &rewrap(), &dry);
    assert_eq!((planned.status, &planned.result["rewrapped"]), (Succeeded, &json!(2)), "{}", planned.message);
    assert_eq!(stored(&world), [b"old:secret"; 2], "a dry run");
    let outcome = ends(&mut world, &rewrap(), 3, Succeeded);
    assert_eq!(outcome.result, json!({ "releases": 2, "values": 2, "rewrapped": 2, "dry_run": false }));
    assert_eq!(stored(&world), [b"new:secret"; 2]);
    let again = ends(&mut world, &rewrap(), 4, Succeeded);
    assert!(again.message.contains("already"), "{}", again.message);
    assert_eq!(world.engine.effects_seen(), effects);
}

#[test]
fn what_no_key_opens_stays_as_it_is_and_is_named() {
    let mut world = two_releases();
    sealed(&mut world, b"lost:secret");
    let outcome = ends(&mut world, &rewrap(), 3, Failed);
    assert!(outcome.message.contains("PASSWORD"), "{}", outcome.message);
    assert_eq!(stored(&world), [b"lost:secret"; 2]);
    ends(&mut world, &remove(), 4, Succeeded);
    let gone = ends(&mut world, &rewrap(), 5, Failed);
    assert!(gone.message.contains("no app named shop"), "{}", gone.message);
}

#[test]
fn a_crash_at_any_point_leaves_values_that_open_and_another_run_finishes() {
    let mut points = 0;
    for point in 0.. {
        let mut world = two_releases();
        let died = {
            let mut port = SimulatedPort::new(&mut world);
            port.death = Some(Death::After(Point(point)));
            let died = drive(rewrap().run(&context(3), &mut port)).is_none();
            if port.points() <= point { break } else { died }
        };
        assert!(died);
        points += 1;
        let between = stored(&world);
        assert!(between.iter().all(|value| [&b"old:secret"[..], b"new:secret"].contains(&value.as_slice())));
        let mut resumed = context(3);
        resumed.resumed = true;
        assert_eq!(run(&mut world, &rewrap(), &resumed).status, Succeeded);
        assert_eq!(stored(&world), [b"new:secret"; 2]);
    }
    assert_eq!(points, 2, "one write for each release");
}
