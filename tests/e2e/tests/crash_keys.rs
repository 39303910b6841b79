//! The agent killed before and after every write of its journal and of its key files while its keys are rotated.
//! Afterwards one key is in force at both ends: the order ended well, further orders run, and the audit log verifies.

use std::fs;

use e2e::{
    cli::Running,
    crash::{Points, dies, ending_at, moments, points_of, tracing_to},
    fleet::{Environment, Fleet, Host},
    wait::wait_until,
};

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
