//! Faults in mid-deploy: programs killed, Docker stopped, the network cut. Whatever happens, a deploy has one definite
//! end, one release runs, and nothing is left that no release owns.

use std::{fs, time::Duration};

use e2e::{
    clock::Clock,
    docker::{Container, Docker, PrivateEngine, SAMPLE},
    fleet::{Fleet, Host, free_port, text_of},
    http,
    sample::{web, web_that_hangs},
    wait::{holds_for, wait_until, wait_within},
};
use serde_json::Value;

fn serves(port: u16) -> bool {
    http::get(port, "/health").is_some_and(|answer| answer.status == 200)
}

/// Whether this release of the app is the one that runs, alone, under its name.
fn version(docker: &Docker, app: &str) -> String {
    let all: Vec<Container> = docker.containers(app);
    assert_eq!(all.len(), 1, "exactly one release, and nothing beside it: {all:#?}");
    assert!(all[0].running && all[0].name == format!("{app}-web-1"), "{all:#?}");
    docker.variable(&all[0].id, "VERSION").unwrap_or_default()
}

fn restart(host: &mut Host) {
    host.kill_9();
    host.start();
}

/// A point in a deploy that replaces one container, as Docker shows it from outside.
type Point = (&'static str, fn(&[Container], &str) -> bool);

const POINTS: [Point; 4] = [
    ("it was only just asked for", |_, _| true),
    ("the old one is stopped or renamed", |all, old| {
        all.iter().any(|it| it.id == old && (!it.running || !it.name.ends_with("-web-1")))
    }),
    ("the new one is made", |all, old| all.iter().any(|it| it.id != old)),
    ("the new one runs", |all, old| all.iter().any(|it| it.id != old && it.running)),
];

#[test]
fn an_agent_killed_in_mid_deploy_goes_on_or_back_and_leaves_one_release() {
    let fleet = Fleet::start();
    let mut host = fleet.host("local");
    let (app, docker, port) = (fleet.app("shop"), fleet.docker.clone(), free_port());
    fleet.deploy(&app, "local", &web(port, &[("VERSION", "0")])).ok();

    let mut runs = "0".to_owned();
    for (number, (point, reached)) in POINTS.into_iter().enumerate() {
        let old = docker.containers(&app)[0].id.clone();
        let new = (number + 1).to_string();
        let running = fleet.deploy_start(&app, "local", &web(port, &[("VERSION", &new)]));
        wait_until(point, || reached(&docker.containers(&app), &old));
        restart(&mut host);
        let ran = running.wait();
        let command = ran.json()["commands"].as_array().and_then(|all| all.last().cloned()).expect("a command");
        let code = match text_of(&command, "status").as_str() {
            "succeeded" => {
                runs = new;
                0
            }
            "rolled_back" => 1,
            other => panic!("{point}: {other} is no end a kill may lead to: {command:#}"),
        };
        assert_eq!((ran.code, &version(&docker, &app)), (code, &runs), "{point}: {command:#}");
        wait_until("what runs serves", || serves(port));
        assert_eq!(fleet.commands("app.deploy").len(), number + 2, "{point}: ordered once");
        assert!(docker.tags(&app).len() <= number + 2, "{point}: {:?}", docker.tags(&app));
    }

    // Killed while a version hangs, and then cancelled: the way back is taken by another life of the agent.
    let (known, before) = (fleet.commands("app.deploy"), version(&docker, &app));
    let running = fleet.deploy_start(&app, "local", &web_that_hangs(port));
    let id = fleet.wait_command("app.deploy", &known);
    wait_until("the hanging one runs", || docker.containers(&app).len() == 2);
    restart(&mut host);
    fleet.wait_host("local", "connected");
    fleet.cli(&["command", "cancel", &id]).ok();
    assert_eq!(running.wait().expect(1).json()["commands"][1]["status"], "cancelled");
    assert_eq!(version(&docker, &app), before);
}

#[test]
fn an_agent_killed_again_and_again_while_it_resumes_still_comes_to_one_end() {
    let fleet = Fleet::start();
    let mut host = fleet.host("local");
    let (app, docker, port) = (fleet.app("shop"), fleet.docker.clone(), free_port());
    fleet.deploy(&app, "local", &web(port, &[("VERSION", "1")])).ok();
    let old = docker.containers(&app)[0].id.clone();
    let running = fleet.deploy_start(&app, "local", &web(port, &[("VERSION", "2")]));
    wait_until("the new one is made", || docker.containers(&app).iter().any(|it| it.id != old));
    for _ in 0..4 {
        let resumed = host.said_times("resumed=true");
        restart(&mut host);
        host.wait_says_again("resumed=true", resumed);
    }
    let ran = running.wait();
    let status = text_of(&ran.json()["commands"][1], "status");
    let (code, runs) = if status == "succeeded" { (0, "2") } else { (1, "1") };
    assert!(["succeeded", "rolled_back"].contains(&status.as_str()), "{ran:#?}");
    assert_eq!((ran.code, version(&docker, &app).as_str()), (code, runs), "{ran:#?}");
    let id = text_of(&ran.json()["commands"][1], "command_id");
    assert_eq!(
        fleet.command(&id)["orders"].as_array().map(Vec::len),
        Some(1),
        "ordered once, resumed from its journal"
    );
    host.agent().terminate();
}

#[test]
fn two_deploys_of_one_app_at_once_take_turns() {
    let fleet = Fleet::start();
    let _host = fleet.host("local");
    let (app, docker, port) = (fleet.app("shop"), fleet.docker.clone(), free_port());
    let deploys: Vec<_> = ["1", "2", "3"]
        .iter()
        .map(|number| fleet.deploy_start(&app, "local", &web(port, &[("VERSION", number)])))
        .collect();
    for deploy in deploys {
        let ran = deploy.wait().ok().json();
        assert_eq!(ran["commands"][1]["status"], "succeeded", "{ran:#}");
    }
    assert!(["1", "2", "3"].contains(&version(&docker, &app).as_str()));
    wait_until("it serves", || serves(port));
    assert_eq!(fleet.commands("app.deploy").len(), 3);
}

#[test]
fn a_control_plane_killed_in_mid_deploy_learns_the_end_and_tells_who_waits() {
    let mut fleet = Fleet::start();
    let mut host = fleet.host("local");
    let (app, docker, port) = (fleet.app("shop"), fleet.docker.clone(), free_port());
    let slow = web(port, &[("FAIL", "slow-health:3000"), ("VERSION", "1")])
        .replace("retries: 3", "retries: 3\n      start_period: 30s");
    let running = fleet.deploy_start(&app, "local", &slow);
    wait_until("its container runs", || docker.containers(&app).iter().any(|it| it.running));
    fleet.control_plane_kill_9();
    let ended = host.said_times("command ended");
    // The agent carries the order out all the same, and keeps the report.
    host.wait_says_again("command ended", ended);
    fleet.control_plane_start();
    let ran = running.wait().ok().json();
    assert_eq!(ran["commands"][1]["status"], "succeeded", "the CLI waited through it: {ran:#}");
    let id = text_of(&ran["commands"][1], "command_id");
    assert_eq!(fleet.cli(&["command", "watch", &id, "--json"]).ok().json()["status"], "succeeded");
    assert_eq!(version(&docker, &app), "1");
    assert_eq!(host.said_times("command started"), 2, "a plan and a deploy");

    // Killed between the plan and the deploy, or while both are told: the second stage follows.
    let known = fleet.commands("app.plan");
    let running = fleet.deploy_start(&app, "local", &web(port, &[("VERSION", "2")]));
    let _ = fleet.wait_command("app.plan", &known);
    fleet.control_plane_kill_9();
    fleet.control_plane_start();
    assert_eq!(running.wait().ok().json()["commands"][1]["status"], "succeeded");
    assert_eq!(version(&docker, &app), "2");
    host.agent().terminate();
    verified(&fleet);
}

/// The audit log still verifies from the root key on.
fn verified(fleet: &Fleet) {
    wait_until("the audit log verifies", || fleet.cli(&["audit", "verify", "--json"]).code == 0);
}

#[test]
fn a_network_cut_in_mid_deploy_delays_the_news_and_nothing_else() {
    let fleet = Fleet::start();
    let mut host = fleet.host("local");
    let (app, docker, port) = (fleet.app("shop"), fleet.docker.clone(), free_port());
    let slow = web(port, &[("FAIL", "slow-health:2000"), ("VERSION", "1")])
        .replace("retries: 3", "retries: 3\n      start_period: 30s");
    let mut running = fleet.deploy_start(&app, "local", &slow);
    wait_until("its container runs", || docker.containers(&app).iter().any(|it| it.running));
    let ended = host.said_times("command ended");
    fleet.proxy.cut();
    host.wait_says_again("command ended", ended);
    fleet.wait_host("local", "offline");
    assert!(!running.has_ended(), "nobody can know yet");
    fleet.proxy.mend();
    assert_eq!(running.wait().ok().json()["commands"][1]["status"], "succeeded");
    assert_eq!(version(&docker, &app), "1");
    assert_eq!(host.said_times("command started"), 2, "a plan and a deploy");
    host.agent().terminate();
}

#[test]
fn docker_stopped_in_mid_deploy_is_said_and_what_was_begun_is_settled() {
    let mut engine = PrivateEngine::start();
    let fleet = Fleet::with_docker(engine.docker.clone());
    let _host = fleet.host("local");
    let docker = engine.docker.clone();
    let app = fleet.app("shop");
    // This engine has no networks of its own, so nothing can be published.
    let text = |more: &str| {
        format!(
            "services:\n  web:\n    image: {SAMPLE}\n    network_mode: none\n    stop_grace_period: 1s\n    healthcheck:\n      \
             test: [\"CMD\", \"/sample\", \"check\"]\n      interval: 300ms\n      timeout: 5s\n      retries: 3\n{more}"
        )
    };
    fleet.deploy(&app, "local", &text("    environment: {VERSION: \"1\"}\n")).ok();

    // It comes back: the deploy finds its end.
    let hangs = text("      start_period: 10m\n    environment: {FAIL: \"slow-health:600000\", VERSION: \"2\"}\n");
    let known = fleet.commands("app.deploy");
    let mut running = fleet.deploy_start(&app, "local", &hangs);
    let id = fleet.wait_command("app.deploy", &known);
    wait_until("the new one runs", || docker.containers(&app).len() == 2);
    engine.down();
    holds_for(Duration::from_secs(2), "the deploy waits for Docker", || !running.has_ended());
    engine.up();
    fleet.cli(&["command", "cancel", &id]).ok();
    let ran: Value = running.wait().expect(1).json();
    let command = &ran["commands"][1];
    assert!(["cancelled", "rolled_back"].contains(&text_of(command, "status").as_str()), "{ran:#}");
    assert_eq!(version(&docker, &app), "1");

    // It is not there at all: said in words, and nothing was touched.
    engine.down();
    let refused = fleet.cli(&["action", "run", "docker.containers", "--host", "local", "--json"]).expect(1).json();
    let message = text_of(&refused["commands"][0], "message");
    assert!(message.contains("Docker"), "{message}");
    engine.up();
    wait_within(Duration::from_secs(30), "the old one runs again", || {
        docker.containers(&app).iter().all(|it| it.running).then_some(())
    });
    assert_eq!(version(&docker, &app), "1");
}

#[test]
fn without_a_policy_everything_is_refused_in_words() {
    let fleet = Fleet::start();
    let host = fleet.host("local");
    fleet.cli(&["action", "run", "host.facts", "--host", "local"]).ok();
    let policy = host.state("policy.toml");
    let text = fs::read_to_string(&policy).expect("a policy");
    for broken in [None, Some("actions = [\"*\"]\nunknown = 1\n"), Some("")] {
        match broken {
            None => fs::remove_file(&policy).expect("removed"),
            Some(text) => fs::write(&policy, text).expect("written"),
        }
        let ran = fleet.cli(&["action", "run", "host.facts", "--host", "local", "--json"]).expect(1).json();
        assert_eq!(ran["commands"][0]["status"], "rejected", "{broken:?}: {ran:#}");
        assert!(text_of(&ran["commands"][0], "message").contains("policy"), "{broken:?}: {ran:#}");
    }
    fs::write(&policy, text).expect("written");
    fleet.cli(&["action", "run", "host.facts", "--host", "local"]).ok();
}

#[test]
fn hostile_files_are_refused_by_place_before_anything_is_sent() {
    let fleet = Fleet::start();
    let _host = fleet.host("local");
    let deep = format!("services:\n  web:\n    image: x\n    x-deep: {}1{}\n", "[".repeat(5000), "]".repeat(5000));
    let mut bomb = String::from("x-a: &a [\"lol\",\"lol\",\"lol\",\"lol\",\"lol\",\"lol\",\"lol\",\"lol\",\"lol\"]\n");
    for (name, of) in "bcdefghi".chars().zip("abcdefgh".chars()) {
        bomb.push_str(&format!("x-{name}: &{name} [*{of},*{of},*{of},*{of},*{of},*{of},*{of},*{of},*{of}]\n"));
    }
    bomb.push_str("services: {web: {image: x}}\n");
    let large = format!("# {}\nservices: {{web: {{image: x}}}}\n", "x".repeat(10 * 1024 * 1024));
    for (what, text) in [
        ("deep", deep),
        ("bomb", bomb),
        ("large", large),
        ("not YAML", "services: [\n  :::\n".to_owned()),
        ("binary", "services: \u{0}\n".to_owned()),
        ("unknown key", "services:\n  web:\n    image: x\n    enviroment: {}\n".to_owned()),
    ] {
        let path = fleet.compose(&text);
        let ran = fleet.cli(&["app", "deploy", "--host", "local", "--name", "x", "-f", &path]).expect(2);
        assert!(ran.stderr.contains("compose.yaml"), "{what}: {ran:#?}");
        assert!(what == "large" || ran.stderr.contains("compose.yaml:"), "{what}: file, line: {ran:#?}");
        let json = fleet.cli(&["app", "deploy", "--json", "--host", "local", "--name", "x", "-f", &path]).expect(2);
        let problem: Value =
            serde_json::from_str(&json.stderr).unwrap_or_else(|error| panic!("{what}: {error}: {json:#?}"));
        assert_eq!(problem["exit_code"], 2, "{what}: {problem:#}");
    }
    assert!(fleet.commands("app.plan").is_empty(), "nothing was sent");
}

#[test]
fn a_lost_or_restored_agent_state_ends_in_quarantine_and_not_in_a_second_run() {
    let fleet = Fleet::start();
    let mut host = fleet.host("local");
    fleet.cli(&["action", "run", "host.facts", "--host", "local"]).ok();
    host.agent().terminate();
    let saved: Vec<(String, Vec<u8>)> = fs::read_dir(host.state(""))
        .expect("a folder")
        .flatten()
        .filter_map(|entry| Some((entry.file_name().into_string().ok()?, fs::read(entry.path()).ok()?)))
        .filter(|(name, _)| name.starts_with("journal.db"))
        .collect();
    host.start();
    fleet.cli(&["action", "run", "host.facts", "--host", "local"]).ok();
    host.kill_9();
    for entry in fs::read_dir(host.state("")).expect("a folder").flatten() {
        if entry.file_name().to_string_lossy().starts_with("journal.db") {
            fs::remove_file(entry.path()).expect("removed");
        }
    }
    for (name, bytes) in saved {
        fs::write(host.state(&name), bytes).expect("restored");
    }
    host.start();
    fleet.wait_host("local", "quarantined");
    fleet.cli(&["action", "run", "host.facts", "--host", "local"]).expect(1).says("quarantined");
    host.verb(&["status"]).expect(1).says("Quarantine");
    is_led_out(&fleet, &host);
    // And without any memory.
    host.kill_9();
    for entry in fs::read_dir(host.state("")).expect("a folder").flatten() {
        if entry.file_name().to_string_lossy().starts_with("journal.db") {
            fs::remove_file(entry.path()).expect("removed");
        }
    }
    host.start();
    fleet.wait_host("local", "quarantined");
    is_led_out(&fleet, &host);
    wait_until("the audit log verifies", || fleet.cli(&["audit", "verify", "--json"]).code == 0);
}

/// Somebody who knows the machine ends its quarantine; it has new keys then, and takes orders.
fn is_led_out(fleet: &Fleet, host: &Host) {
    let epoch = || fleet.cli(&["host", "show", "local", "--json"]).json()["host_epoch"].as_u64().expect("an epoch");
    let before = epoch();
    wait_until("its agent has said which quarantine it is in", || {
        let listed = fleet.cli(&["host", "quarantine", "list", "--json"]).json();
        listed[0]["quarantine"]["agents"].as_array().is_some_and(|agents| agents.len() == 1)
    });
    fleet.cli(&["host", "quarantine", "release", "local", "--yes"]).ok().says("quarantine no more");
    fleet.wait_host("local", "connected");
    fleet.cli(&["action", "run", "host.facts", "--host", "local"]).ok();
    host.verb(&["status"]).ok();
    assert_eq!(epoch(), before + 1);
    fleet.cli(&["host", "quarantine", "list"]).ok().says("no host is in quarantine");
}

/// Set forward, its new orders would lie ahead of the time that a host was told when its session began; set back, they
/// would have expired. So the session ends, the host is told the time anew, and the order is carried out.
#[test]
fn a_control_plane_whose_clock_is_set_goes_on_giving_orders_that_are_taken() {
    let mut fleet = Fleet::start();
    let host = fleet.host("local");
    let clock = Clock::new(&fleet.path(""));
    fleet.control_plane_kill_9();
    fleet.control_environment = clock.environment();
    fleet.control_plane_start();
    fleet.wait_host("local", "connected");
    for (number, seconds) in [3_600, 0, -3_600].into_iter().enumerate() {
        clock.set(seconds);
        wait_until("an order is taken", || {
            let ran = fleet.cli(&["action", "run", "host.facts", "--host", "local", "--json"]);
            // Set back, the clock leaves nothing of what an address may ask at once: it comes back with time.
            assert!(ran.code == 0 || ran.all().contains("too many requests"), "{seconds} s: {ran:#?}");
            ran.code == 0
        });
        let told = host.said_times("the control plane's clock was set by");
        assert_eq!(told, number + 1, "{seconds} s: {}", host.said());
    }
    wait_until("the control plane says it too", || {
        fleet.control_plane().said().contains("this machine's clock was set")
    });
}
