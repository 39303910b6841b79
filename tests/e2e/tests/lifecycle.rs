//! Stopping, starting and restarting an app, and following what it writes.

use std::{fs, time::Duration};

use e2e::{
    cli::Running,
    docker::{PrivateEngine, wait_healthy},
    fleet::{Fleet, free_port, text_of},
    http,
    program::signal,
    sample::web,
    wait::{wait_for, wait_until, wait_within},
};
use serde_json::Value;

/// Longer than a stream's lease: by then whoever is away has been noticed.
const LEASE_AND_MORE: Duration = Duration::from_secs(40);

fn serves(port: u16) -> bool {
    http::get(port, "/health").is_some_and(|answer| answer.status == 200)
}

fn state(fleet: &Fleet, app: &str) -> String {
    let apps = fleet.cli(&["app", "list", "--json"]).ok().json();
    let found = apps.as_array().expect("a list").iter().find(|it| it["name"] == app).expect("the app").clone();
    text_of(&found["instances"][0], "state")
}

fn policy(fleet: &Fleet, container: &str) -> String {
    text_of(&fleet.docker.inspect(container)["HostConfig"]["RestartPolicy"], "Name")
}

#[test]
fn an_app_is_stopped_started_and_restarted() {
    let fleet = Fleet::start();
    let mut host = fleet.host("local");
    let (app, port, docker) = (fleet.app("shop"), free_port(), &fleet.docker);
    let file = web(port, &[]).replace("    ports:", "    restart: always\n    ports:");
    fleet.deploy(&app, "local", &file).ok();
    let name = format!("{app}-web-1");
    let before = docker.container(&name).expect("a container");
    assert_eq!((state(&fleet, &app).as_str(), policy(&fleet, &name).as_str()), ("running", "always"));

    fleet.cli(&["app", "stop", &app, "--dry-run"]).ok().says("would stop web");
    assert!(serves(port), "a dry run stops nothing");
    fleet.cli(&["app", "stop", &app]).ok().says("1 service stopped");
    let stopped = docker.container(&name).expect("it is still there");
    assert!(!stopped.running && stopped.id == before.id);
    assert_eq!((state(&fleet, &app).as_str(), policy(&fleet, &name).as_str()), ("stopped", "no"));
    fleet.cli(&["app", "stop", &app]).ok().says("nothing to change");
    fleet.cli(&["app", "restart", &app]).expect(1).says("is stopped; start it with");

    // The agent's next life knows it as well.
    host.kill_9();
    host.start();
    fleet.wait_host("local", "connected");
    let started = fleet.cli(&["app", "start", &app, "--json"]).ok().json();
    assert_eq!(started["commands"][0]["result"]["verified"], true, "{started:#}");
    let running = docker.container(&name).expect("a container");
    assert!(serves(port) && running.id == before.id, "the same container again");
    assert_eq!((state(&fleet, &app).as_str(), policy(&fleet, &name).as_str()), ("running", "always"));

    fleet.cli(&["app", "restart", &app, "--service", "web"]).ok().says("1 service restarted");
    let again = docker.container(&name).expect("a container");
    assert!(serves(port) && again.id == before.id && again.started_at != running.started_at);

    // A deploy starts a stopped app.
    fleet.cli(&["app", "stop", &app]).ok();
    fleet.deploy(&app, "local", &file).ok();
    assert!(serves(port));
    assert_eq!((state(&fleet, &app).as_str(), policy(&fleet, &name).as_str()), ("running", "always"));
    // One that is rolled back leaves it stopped.
    fleet.cli(&["app", "stop", &app]).ok();
    let sick = web(port, &[("FAIL", "unhealthy")]).replace("    ports:", "    restart: always\n    ports:");
    fleet.deploy(&app, "local", &sick).expect(1);
    assert!(!docker.container(&name).expect("a container").running);
    assert_eq!((state(&fleet, &app).as_str(), policy(&fleet, &name).as_str()), ("stopped", "no"));
    fleet.cli(&["app", "remove", &app]).ok();
    assert!(docker.containers(&app).is_empty());
}

#[test]
fn a_stopped_app_stays_stopped_when_the_engine_restarts() {
    let mut engine = PrivateEngine::start();
    let fleet = Fleet::with_docker(engine.docker.clone());
    let _host = fleet.host("local");
    let (stopped, runs) = (fleet.app("stopped"), fleet.app("runs"));
    let file = "services:\n  web:\n    image: serverflow-sample:1\n    restart: always\n    network_mode: none\n    \
                stop_grace_period: 2s\n    healthcheck:\n      test: [\"CMD\", \"/sample\", \"check\"]\n      interval: 300ms\n";
    for app in [&stopped, &runs] {
        fleet.deploy(app, "local", file).ok();
    }
    fleet.cli(&["app", "stop", &stopped]).ok();
    engine.down();
    engine.up();
    // The engine starts what it starts before it answers; the other app shows that it has.
    wait_healthy(&engine.docker, &format!("{runs}-web-1"));
    assert!(!engine.docker.container(&format!("{stopped}-web-1")).expect("a container").running);
    fleet.cli(&["app", "start", &stopped]).ok();
    wait_healthy(&engine.docker, &format!("{stopped}-web-1"));
}

fn follow(fleet: &Fleet, app: &str) -> Running {
    fleet.cli_start(&["app", "logs", app, "--follow", "--json"])
}

/// The records that came so far.
fn records(running: &Running) -> Vec<Value> {
    running.output().lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

fn wait_line(running: &Running, words: &str, times: usize) {
    wait_for(&format!("{times} lines with {words:?}"), || {
        let all = records(running);
        let found = all.iter().filter(|it| it["line"].as_str().is_some_and(|line| line.contains(words))).count();
        (found >= times).then_some(())
    });
}

fn ended(fleet: &Fleet, id: &str, within: Duration) -> Value {
    wait_within(within, &format!("the end of {id}"), || {
        let command = fleet.command(id);
        (command["status"] == "succeeded").then_some(command)
    })
}

#[test]
fn logs_are_followed_across_a_restart_and_a_deploy_until_the_app_is_gone() {
    let fleet = Fleet::start();
    let _host = fleet.host("local");
    let (app, port) = (fleet.app("shop"), free_port());
    let secret = "s3cret-value-of-the-first";
    fleet.deploy(&app, "local", &web(port, &[("VERSION", secret)])).ok();
    let running = follow(&fleet, &app);
    wait_line(&running, "listening on port", 1);
    fleet.cli(&["app", "restart", &app]).ok();
    wait_line(&running, "listening on port", 2);
    fleet.deploy(&app, "local", &web(port, &[("VERSION", "s3cret-value-of-the-second")])).ok();
    wait_line(&running, "listening on port", 3);
    fleet.cli(&["app", "remove", &app]).ok();
    let ran = running.wait().ok();
    assert!(!ran.all().contains("s3cret-value"), "{ran:?}");
    let last: Value = serde_json::from_str(ran.stdout.lines().last().expect("an end")).expect("JSON");
    let result = &last["end"]["commands"][0]["result"];
    assert_eq!((&result["ended"], &result["lost_lines"]), (&Value::from("gone"), &Value::from(0)), "{last:#}");
    // What came is what the host signed: the program has checked it, and the report's own field says the same.
    assert!(result["output_bytes"].as_u64().is_some_and(|bytes| bytes > 100), "{last:#}");
    let line = &records_of(&ran.stdout)[0];
    assert_eq!((&line["host"], &line["service"]), (&Value::from("local"), &Value::from("web")), "{line:#}");
}

fn records_of(text: &str) -> Vec<Value> {
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

#[test]
fn a_stream_ends_with_whoever_watches_it() {
    let mut fleet = Fleet::start();
    let mut host = fleet.host("local");
    let app = fleet.app("shop");
    fleet.deploy(&app, "local", &web(free_port(), &[])).ok();

    // Ctrl-C: the stream ends in order, and the program with it.
    let running = follow(&fleet, &app);
    wait_line(&running, "listening on port", 1);
    let interrupted = fleet.wait_command("app.logs.follow", &[]);
    signal(running.pid(), "INT");
    running.wait().ok();
    let command = ended(&fleet, &interrupted, Duration::from_secs(10));
    assert_eq!(command["report"]["result"]["ended"], "unwatched", "{command:#}");

    // The viewer is killed.
    let known = fleet.commands("app.logs.follow");
    let running = follow(&fleet, &app);
    wait_line(&running, "listening on port", 1);
    let killed = fleet.wait_command("app.logs.follow", &known);
    signal(running.pid(), "KILL");
    let command = ended(&fleet, &killed, LEASE_AND_MORE);
    assert_eq!(command["report"]["result"]["ended"], "unwatched", "{command:#}");

    // The control plane is killed: the lease runs out on the host.
    let known = fleet.commands("app.logs.follow");
    let running = follow(&fleet, &app);
    wait_line(&running, "listening on port", 1);
    let cut = fleet.wait_command("app.logs.follow", &known);
    let before = host.said_times("command ended");
    signal(running.pid(), "KILL");
    fleet.control_plane_kill_9();
    wait_within(LEASE_AND_MORE, "the stream ends by itself", || {
        (host.said_times("command ended") > before).then_some(())
    });
    fleet.control_plane_start();
    // An agent that has dialled in vain waits up to a minute; a new process dials at once, with the report it has stored.
    host.kill_9();
    host.start();
    let command = ended(&fleet, &cut, LEASE_AND_MORE);
    assert_eq!(command["report"]["result"]["ended"], "unwatched", "{command:#}");
    wait_until("nothing runs any more", || fs::read_to_string(host.state("status.json")).is_ok());
    fleet.cli(&["app", "logs", &app, "--follow", "--service", "cache"]).expect(1).says("has no service cache");
}
