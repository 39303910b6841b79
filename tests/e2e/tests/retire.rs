//! A host leaves the fleet at its word: what goes, what stays, and that both ends know, whatever is killed meanwhile.

use std::fs;

use e2e::{
    cli::Running,
    crash::{Points, ending_at, moments, points_of, tracing_to},
    docker::wait_healthy,
    fleet::{Environment, Fleet, Host, free_port},
    sample::web,
    wait::{wait_for, wait_until},
};

/// What `run` ends with when there is nothing to run any more.
const RETIRED: i32 = 5;

fn files(host: &Host) -> Vec<String> {
    let entries = fs::read_dir(host.state("")).expect("the state directory");
    let mut names: Vec<_> =
        entries.map(|it| it.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

fn has_keys(host: &Host) -> bool {
    files(host).iter().any(|name| ["identity.", "sealing.", "fingerprint."].iter().any(|kind| name.starts_with(kind)))
}

fn retire(fleet: &Fleet, name: &str) -> Running {
    fleet.cli_start(&["host", "retire", name, "--yes", "--json"])
}

fn is_retired(fleet: &Fleet, name: &str) -> bool {
    let shown = fleet.cli(&["host", "show", name, "--json"]).json();
    shown["status"] == "revoked" && shown["retired"] == true
}

/// Its agent ends by itself, and says each time it is started that there is nothing to run.
fn ends(host: &mut Host, what: &str) {
    let ended = host.agent().wait_ended();
    assert_eq!(ended.code(), Some(RETIRED), "{what}: {}", host.said());
    assert!(!has_keys(host), "{what}: {:?}", files(host));
    host.verb(&["run"]).expect(RETIRED).says("has left its fleet");
    host.verb(&["status"]).expect(1).says("left its fleet");
}

#[test]
fn a_retired_host_has_dropped_its_secrets_runs_on_and_never_comes_back() {
    let fleet = Fleet::start();
    let (mut host, _other) = (fleet.host("local"), fleet.host("other"));
    let (app, port) = (fleet.app("shop"), free_port());
    fleet.deploy(&app, "local", &web(port, &[("PASSWORD", "planted-secret-one")])).ok();
    let container = fleet.docker.names(&app).pop().expect("it runs");
    wait_healthy(&fleet.docker, &container);

    fleet.cli(&["host", "retire", "local", "--dry-run"]).ok().says("would end every order");
    fleet.cli(&["host", "retire", "local"]).expect(2).says("--yes");
    fleet.wait_host("local", "connected");
    assert!(has_keys(&host), "the control");
    // What a thief of its disk had copied before.
    let copy = fleet.path("copy-of-local");
    host.agent().terminate();
    let status = std::process::Command::new("cp").arg("-a").arg(host.state("")).arg(&copy).status().expect("cp runs");
    assert!(status.success());
    fleet.wait_host("local", "offline");
    fleet.cli(&["host", "retire", "local", "--yes"]).expect(1).says("serverflow host revoke local");
    host.start();
    fleet.wait_host("local", "connected");

    let ran = retire(&fleet, "local").wait();
    assert_eq!(ran.code, 0, "{ran:#?}\n{}", host.said());
    ends(&mut host, "told to leave");
    assert!(is_retired(&fleet, "local"));
    assert!(fleet.docker.container(&container).is_some_and(|it| it.running), "its containers run on");
    assert_eq!(host.verb(&["status", "--json"]).json()["last"]["connection"]["state"], "retired");
    host.verb(&["doctor"]).ok().says("uninstall");
    fleet.cli(&["host", "retire", "local", "--yes"]).expect(1).says("has left the fleet already");
    fleet.cli(&["action", "run", "host.facts", "--host", "local"]).expect(1).says("is revoked");

    // The copy comes back in its place: it may prove who it is, sees that it is old, and gets nothing.
    fs::remove_dir_all(host.state("")).expect("removed");
    fs::rename(&copy, host.state("")).expect("put back");
    host.start();
    host.agent().wait_said("this host is quarantined");
    assert!(is_retired(&fleet, "local"));
    host.kill_9();

    // The control: whoever was not told to leave takes orders as before, and the name may be used again.
    fleet.cli(&["action", "run", "host.facts", "--host", "other"]).ok();
    let _token = fleet.join_token("local", &[]);
    wait_until("the audit log verifies", || fleet.cli(&["audit", "verify", "--json"]).code == 0);
}

#[test]
fn a_host_whose_policy_forbids_it_stays_and_is_revoked_instead() {
    let fleet = Fleet::start();
    let mut host = fleet.host("local");
    let policy = fs::read_to_string(host.state("policy.toml")).expect("a policy");
    fs::write(host.state("policy.toml"), policy.replace("\"host.retire\",", "")).expect("written");
    let refused = retire(&fleet, "local").wait();
    assert_eq!(refused.code, 1, "{refused:#?}");
    assert!(refused.all().contains("host.retire"), "the line that would allow it is named: {refused:#?}");
    fleet.cli(&["action", "run", "host.facts", "--host", "local"]).ok();
    assert!(has_keys(&host));
    // The control: with the line it goes.
    fs::write(host.state("policy.toml"), policy).expect("written");
    assert_eq!(retire(&fleet, "local").wait().code, 0);
    ends(&mut host, "allowed");
}

#[test]
fn a_host_that_did_not_hear_that_its_last_report_is_stored_hears_it_signed() {
    let mut fleet = Fleet::start();
    let mut host = fleet.host("local");
    fleet.control_plane_kill_9();
    fleet.control_plane_with_crash_points();
    fleet.control_environment = ending_at("after store HostRetire #1");
    fleet.control_plane_start();
    fleet.wait_host("local", "connected");
    let running = retire(&fleet, "local");
    wait_for("the control plane ends behind its commit", || fleet.control_plane().ended());
    let reports = host.verb(&["status", "--json"]).json()["last"]["reports_waiting"].clone();
    assert_eq!(reports, 1, "nobody has told it");
    assert!(host.agent().is_running() && files(&host).iter().any(|name| name.starts_with("identity.")));
    fleet.control_environment = Environment::new();
    fleet.control_plane_start();
    ends(&mut host, "told again");
    assert!(is_retired(&fleet, "local"));
    let ran = running.wait();
    assert_eq!(ran.code, 0, "{ran:#?}");
    wait_until("the audit log verifies", || fleet.cli(&["audit", "verify", "--json"]).code == 0);
}

/// One host for each point: none of them comes back.
#[test]
fn an_agent_killed_anywhere_in_a_retirement_leaves_all_the_same() {
    let fleet = Fleet::start();
    let born = |name: &str, environment: Environment| {
        let mut host = fleet.host_enrolled(name);
        host.with_crash_points();
        host.environment = environment;
        host.start();
        fleet.wait_host(name, "connected");
        host
    };
    let trace = fleet.path("trace");
    let mut first = born("first", tracing_to(&trace));
    assert_eq!(retire(&fleet, "first").wait().code, 0, "{}", first.said());
    ends(&mut first, "in one go");
    let passed = points_of(&trace);
    // What the enrolment and the first session write comes before.
    let begin = passed.iter().position(|point| point.contains("journal Accept")).expect("it was accepted");
    let passed = passed[begin..].to_vec();
    for kind in ["journal Retire #", "file destroyed #1", "file destroyed #3", "journal Retired", "journal Acknowledge"]
    {
        assert!(passed.iter().any(|point| point.contains(kind)), "{kind} is a point: {passed:#?}");
    }
    let points = Points::new(moments(&passed));
    let mut number = 0;
    while let Some((point, tries)) = points.next() {
        number += 1;
        let (name, what) = (format!("host-{number}"), format!("retirement, killed {point}"));
        let mut host = born(&name, ending_at(&point));
        let running = retire(&fleet, &name);
        let ended = wait_for(&format!("{what}: the point, or the end"), || host.agent().ended());
        if ended.code() == Some(RETIRED) {
            points.not_reached(point, tries);
        }
        // Whatever it left, the next process carries through.
        host.restart_with(Environment::new());
        ends(&mut host, &what);
        let ran = running.wait();
        assert_eq!(ran.code, 0, "{what}: {ran:#?}\n{}", host.said());
        assert!(is_retired(&fleet, &name), "{what}");
    }
    points.all_visited("retirement of a host");
    wait_until("the audit log verifies", || fleet.cli(&["audit", "verify", "--json"]).code == 0);
}
