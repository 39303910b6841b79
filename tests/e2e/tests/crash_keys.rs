//! The agent killed before and after every write of its journal and of its key files while its keys are rotated, and while
//! its host is led out of quarantine. Afterwards one key is in force at both ends: the order ended well, further orders
//! run, and the audit log verifies.

use std::fs;

use e2e::{
    cli::Running,
    crash::{Points, dies, ending_at, moments, points_of, tracing_to},
    fleet::{Environment, Fleet, Host},
    wait::wait_until,
};
use serde_json::Value;

/// How many pairs of keys were made: their sealing keys stay.
fn epochs(host: &Host) -> usize {
    let files = fs::read_dir(host.state("")).expect("the state directory").filter_map(Result::ok);
    files.filter(|file| file.file_name().to_string_lossy().starts_with("sealing.")).count()
}

fn rotate(fleet: &Fleet) -> Running {
    fleet.cli_start(&["action", "run", "host.keys.rotate", "--host", "local", "--json"])
}

fn settle(fleet: &Fleet, host: &mut Host, running: Running, what: &str) {
    host.restart_with(Environment::new());
    let ran = running.wait();
    assert_eq!(ran.code, 0, "{what}: {ran:#?}\n{}", host.said());
    fleet.wait_host("local", "connected");
    let ran = fleet.cli(&["action", "run", "host.facts", "--host", "local"]);
    assert_eq!(ran.code, 0, "{what}: {ran:#?}\n{}", host.said());
    let files = fs::read_dir(host.state("")).expect("the state directory").filter_map(Result::ok);
    let half = files.filter(|file| file.path().extension().is_some_and(|it| it == "new")).count();
    assert_eq!(half, 0, "{what}: no half-written key is left");
    let files = fs::read_dir(host.state("")).expect("the state directory").filter_map(Result::ok);
    let identities = files.filter(|file| file.file_name().to_string_lossy().starts_with("identity.")).count();
    assert_eq!(identities, 1, "{what}: a retired identity key is gone");
}

#[test]
fn an_agent_killed_anywhere_in_a_rotation_has_one_key_afterwards() {
    let fleet = Fleet::start();
    let mut host = fleet.host("local");
    host.with_crash_points();
    let trace = fleet.path("trace");
    host.restart_with(tracing_to(&trace));
    let running = rotate(&fleet);
    let ran = running.wait();
    assert_eq!(ran.code, 0, "{ran:#?}");
    wait_until("it is reported", || host.said().contains("new keys are in force"));
    host.kill_9();
    let passed = points_of(&trace);
    for kind in ["file identity", "file sealing", "journal KeyOffer", "journal KeyReceipt", "journal KeysTaken"] {
        assert!(passed.iter().any(|point| point.contains(kind)), "{kind} is a point: {passed:#?}");
    }
    let points = Points::new(moments(&passed));
    while let Some((point, tries)) = points.next() {
        let what = format!("rotation, killed {point}");
        let before = epochs(&host);
        host.restart_with(ending_at(&point));
        let mut running = rotate(&fleet);
        if !dies(host.agent(), &what, || running.has_ended()) {
            points.not_reached(point, tries);
        }
        settle(&fleet, &mut host, running, &what);
        assert_eq!(epochs(&host), before + 1, "{what}: one order, one pair of keys");
    }
    points.all_visited("rotation of a host's keys");
    wait_until("the audit log verifies", || fleet.cli(&["audit", "verify", "--json"]).code == 0);
}

fn journal_files(host: &Host) -> Vec<String> {
    let files = fs::read_dir(host.state("")).expect("the state directory").filter_map(Result::ok);
    let names = files.filter_map(|file| file.file_name().into_string().ok());
    names.filter(|name| name.starts_with("journal.db")).collect()
}

/// The host carries out an order, and comes back from a copy of its journal from before it, with these variables.
fn put_back(fleet: &Fleet, host: &mut Host, environment: Environment) {
    host.restart_with(Environment::new());
    fleet.wait_host("local", "connected");
    host.agent().terminate();
    let saved: Vec<_> = journal_files(host).into_iter().map(|name| (fs::read(host.state(&name)), name)).collect();
    host.start();
    fleet.cli(&["action", "run", "host.facts", "--host", "local"]).ok();
    host.kill_9();
    for name in journal_files(host) {
        fs::remove_file(host.state(&name)).expect("removed");
    }
    for (bytes, name) in saved {
        fs::write(host.state(&name), bytes.expect("read before")).expect("put back");
    }
    host.restart_with(environment);
}

fn quarantine(fleet: &Fleet) -> Value {
    fleet.cli(&["host", "show", "local", "--json"]).json()["quarantine"].clone()
}

/// Whether the host is quarantined, and its agent has said so.
fn is_listed(fleet: &Fleet) -> bool {
    quarantine(fleet)["agents"].as_array().is_some_and(|agents| !agents.is_empty())
}

fn release(fleet: &Fleet) -> Running {
    fleet.cli_start(&["host", "quarantine", "release", "local", "--yes", "--json"])
}

/// A release that was begun, or begins now, is carried through.
fn comes_back(fleet: &Fleet, host: &mut Host, what: &str) {
    host.restart_with(Environment::new());
    wait_until(&format!("{what}: it is in quarantine, and says so, or is no more"), || {
        let shown = fleet.cli(&["host", "show", "local", "--json"]).json();
        shown["status"] == "connected" || is_listed(fleet)
    });
    if is_listed(fleet) {
        let ran = release(fleet).wait();
        // It may have been carried through in between, before the question or behind it.
        let is_over = ["not in quarantine", "changed-meanwhile"].iter().any(|words| ran.all().contains(words));
        assert!(ran.code == 0 || is_over, "{what}: {ran:#?}\n{}", host.said());
    }
    fleet.wait_host("local", "connected");
    let ran = fleet.cli(&["action", "run", "host.facts", "--host", "local"]);
    assert_eq!(ran.code, 0, "{what}: {ran:#?}\n{}", host.said());
}

#[test]
fn an_agent_killed_anywhere_in_a_release_is_led_out_all_the_same() {
    let fleet = Fleet::start();
    let mut host = fleet.host("local");
    host.with_crash_points();
    let trace = fleet.path("trace");
    put_back(&fleet, &mut host, tracing_to(&trace));
    wait_until("it is in quarantine, and says so", || is_listed(&fleet));
    let ran = release(&fleet).wait();
    assert_eq!(ran.code, 0, "{ran:#?}\n{}", host.said());
    wait_until("it is over", || host.said().contains("quarantined no more"));
    host.kill_9();
    let passed = points_of(&trace);
    for kind in ["journal Quarantine", "file identity", "journal KeyOffer", "journal KeyReceipt", "journal KeysTaken"] {
        assert!(passed.iter().any(|point| point.contains(kind)), "{kind} is a point: {passed:#?}");
    }
    let points = Points::new(moments(&passed));
    while let Some((point, tries)) = points.next() {
        let what = format!("release, killed {point}");
        put_back(&fleet, &mut host, ending_at(&point));
        let mut running = None;
        let has_ended = || match &mut running {
            None if is_listed(&fleet) => {
                running = Some(release(&fleet));
                false
            }
            None => false,
            Some(running) => running.has_ended(),
        };
        if !dies(host.agent(), &what, has_ended) {
            points.not_reached(point, tries);
        }
        comes_back(&fleet, &mut host, &what);
        drop(running.map(Running::wait));
    }
    points.all_visited("release of a host");
    wait_until("the audit log verifies", || fleet.cli(&["audit", "verify", "--json"]).code == 0);
}
