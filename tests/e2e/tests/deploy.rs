//! `app deploy` and its neighbours, from the Compose file to the container and back.

use std::{fs, net::TcpListener, path::Path};

use data_encoding::BASE64;
use e2e::{
    docker::{Docker, SAMPLE, wait_healthy},
    fleet::{Fleet, free_port, text_of},
    http,
    sample::{web, web_service, web_that_hangs},
    wait::wait_until,
};
use envelope::{
    keys::{VerifyingKey, role},
    messages::{Command, PublicKeyBytes, Report, ReportStatus},
    verify,
};
use serde_json::Value;

fn serves(port: u16) -> bool {
    http::get(port, "/health").is_some_and(|answer| answer.status == 200)
}

/// The last stage of a deploy to one host: its plan comes before it.
fn last_command(deployed: &Value) -> &Value {
    deployed["commands"].as_array().expect("commands").last().unwrap_or_else(|| panic!("a command: {deployed:#}"))
}

fn envelope_of(part: &Value) -> Vec<u8> {
    BASE64.decode(text_of(part, "envelope").as_bytes()).expect("base64")
}

#[test]
fn an_app_is_deployed_changed_looked_at_and_removed() {
    let fleet = Fleet::start();
    let _host = fleet.host("local");
    let (app, port, docker) = (fleet.app("shop"), free_port(), &fleet.docker);
    let first = format!(
        "{}volumes:\n  data: {{}}\n",
        web(port, &[("GREETING", "one")]).replace("    ports:", "    volumes: [\"data:/data\"]\n    ports:",)
    );

    // A dry run says what would happen, and nothing does.
    let path = fleet.compose(&first);
    let plan =
        fleet.cli(&["app", "deploy", "--dry-run", "--json", "--name", &app, "--host", "local", "-f", &path]).ok();
    let plan = last_command(&plan.json())["plan"].clone();
    assert_eq!(plan["changes"][0]["change"], "create", "{plan:#}");
    assert!(docker.containers(&app).is_empty() && docker.things("volume", &app).is_empty());

    let deployed = fleet.deploy(&app, "local", &first).ok().json();
    let command = last_command(&deployed);
    assert_eq!(command["status"], "succeeded", "{deployed:#}");
    assert!(serves(port));
    let container = docker.containers(&app).pop().expect("a container");
    is_signed(&fleet, &text_of(command, "command_id"));

    // The same again: nothing changes, nothing is started twice, and it says so.
    let again = fleet.deploy(&app, "local", &first).ok().json();
    assert!(text_of(last_command(&again), "message").contains("nothing to change"), "{again:#}");
    assert_eq!(docker.containers(&app), std::slice::from_ref(&container));

    // A changed environment replaces the container.
    let second = first.replace("\"one\"", "\"two\"");
    let path = fleet.compose(&second);
    let plan =
        fleet.cli(&["app", "deploy", "--dry-run", "--json", "--name", &app, "--host", "local", "-f", &path]).ok();
    assert_eq!(last_command(&plan.json())["plan"]["changes"][0]["change"], "replace");
    assert_eq!(docker.containers(&app), std::slice::from_ref(&container), "a dry run changes nothing");
    fleet.deploy(&app, "local", &second).ok();
    let replaced = docker.containers(&app);
    assert_eq!(replaced.len(), 1, "{replaced:?}");
    assert_ne!(replaced[0].id, container.id);
    assert_eq!(docker.variable(&replaced[0].id, "GREETING").as_deref(), Some("two"));
    assert!(serves(port));

    looked_at(&fleet, &app);
    fleet.cli(&["app", "remove", &app, "--json"]).ok();
    assert!(docker.containers(&app).is_empty() && docker.things("network", &app).is_empty());
    assert_eq!(docker.things("volume", &app), [format!("{app}_data")], "data stays");
    assert!(docker.tags(&app).is_empty(), "{:?}", docker.tags(&app));
    let apps = fleet.cli(&["app", "list", "--json"]).ok().json();
    assert!(apps.as_array().is_some_and(Vec::is_empty), "{apps:#}");
    fleet.cli(&["app", "remove", &app]).expect(2).says(&app);
}

/// What `command show` prints can be verified by somebody who trusts only the fleet's keys.
fn is_signed(fleet: &Fleet, id: &str) {
    let shown = fleet.command(id);
    assert_eq!(shown["status"], "succeeded");
    let (order, report) = (&shown["orders"][0], &shown["report"]);
    let command_key = envelope::SigningKey::<role::Command>::from_seed(&fleet.command_seed()).verifying();
    let command = verify::<Command>(&envelope_of(order), &[command_key]).expect("a signed order");
    assert_eq!(command.order.command.to_string(), id);
    assert_eq!(order["verified_by"], command.key_id().to_string());

    let host = fleet.cli(&["host", "show", "local", "--json"]).ok().json();
    let key = BASE64.decode(text_of(&host, "identity_key").as_bytes()).expect("base64").try_into().expect("32 bytes");
    let key = VerifyingKey::<role::Agent>::try_from(PublicKeyBytes(key)).expect("a key");
    let signed = verify::<Report>(&envelope_of(report), &[key]).expect("a signed report");
    assert_eq!(signed.status, ReportStatus::Succeeded);
    assert_eq!(signed.command_sha256, command.payload_sha256(), "it answers this very order");
    assert_eq!(report["verified_by"], signed.key_id().to_string());
    assert_eq!(report["result"]["verified"], true);
}

fn looked_at(fleet: &Fleet, app: &str) {
    let apps = fleet.cli(&["app", "list", "--json"]).ok().json();
    assert_eq!(apps[0]["name"], app, "{apps:#}");
    assert_eq!(apps[0]["instances"][0]["verified"], true, "{apps:#}");
    let shown = fleet.cli(&["app", "show", app, "--json"]).ok().json();
    assert_eq!(shown["results"]["local"]["services"]["web"]["state"], "healthy", "{shown:#}");
    let logs = fleet.cli(&["app", "logs", app, "--json", "--tail", "5"]).ok().json();
    assert!(text_of(&logs["logs"][0], "text").contains("listening on port 8080"), "{logs:#}");
    fleet.cli(&["app", "logs", app, "--service", "web"]).ok().says("sample: listening on port 8080");
    let facts = fleet.cli(&["action", "run", "docker.containers", "--host", "local", "--json"]).ok();
    assert!(facts.stdout.contains(&format!("{app}-web-1")), "{}", facts.stdout);
}

#[test]
fn a_version_that_is_not_healthy_is_put_back() {
    let fleet = Fleet::start();
    let _host = fleet.host("local");
    let (app, port, docker) = (fleet.app("shop"), free_port(), &fleet.docker);
    fleet.deploy(&app, "local", &web(port, &[])).ok();
    let before = docker.containers(&app);
    let tags = docker.tags(&app);

    for (fail, words) in [("unhealthy", "its health check failed"), ("exit:3", "ended")] {
        let failed = fleet.deploy(&app, "local", &web(port, &[("FAIL", fail)])).expect(1).json();
        let command = last_command(&failed);
        assert_eq!(command["status"], "rolled_back", "{failed:#}");
        assert!(text_of(command, "message").contains(words), "{failed:#}");
        assert!(text_of(command, "message").contains("put back as it was, and verified"), "{failed:#}");
        let report = fleet.command(&text_of(command, "command_id"))["report"].clone();
        let logs = text_of(&report["result"]["failing"][0], "logs");
        assert!(logs.contains("sample:"), "the failing container's last words: {report:#}");

        let after = docker.containers(&app);
        let ids =
            |all: &[e2e::docker::Container]| all.iter().map(|it| (it.id.clone(), it.name.clone())).collect::<Vec<_>>();
        assert_eq!(ids(&after), ids(&before), "the old container is back under its name");
        assert!(after[0].running);
        wait_healthy(docker, &after[0].name);
        assert!(serves(port));
        assert_eq!(docker.tags(&app), tags);
    }
}

#[test]
fn a_first_deploy_that_fails_leaves_nothing_but_its_volumes() {
    let fleet = Fleet::start();
    let _host = fleet.host("local");
    let (app, docker) = (fleet.app("shop"), &fleet.docker);
    let text =
        web(free_port(), &[("FAIL", "unhealthy")]).replace("    ports:", "    volumes: [\"data:/data\"]\n    ports:");
    let ran = fleet.deploy(&app, "local", &format!("{text}volumes:\n  data: {{}}\n")).expect(1).json();
    let command = last_command(&ran);
    assert_eq!(command["status"], "rolled_back", "{ran:#}");
    let message = text_of(command, "message");
    assert!(message.contains("Nothing of") && message.contains(&format!("{app}_data")), "{message}");
    assert!(docker.containers(&app).is_empty() && docker.things("network", &app).is_empty());
    assert_eq!(docker.things("volume", &app), [format!("{app}_data")]);
    assert!(docker.tags(&app).is_empty());
    let apps = fleet.cli(&["app", "list", "--json"]).ok().json();
    assert!(apps.as_array().is_some_and(Vec::is_empty), "{apps:#}");
}

#[test]
fn what_cannot_be_or_may_not_be_is_refused_in_words_and_nothing_is_left() {
    let fleet = Fleet::start();
    let _host = fleet.host("local");
    let (app, docker) = (fleet.app("shop"), &fleet.docker);
    let nothing_left = || assert!(docker.containers(&app).is_empty() && docker.things("network", &app).is_empty());

    let unknown = web(free_port(), &[]).replace(SAMPLE, "serverflow-e2e-no-such-image:1");
    let ran = fleet.deploy(&app, "local", &unknown).expect(1).json();
    assert_eq!(last_command(&ran)["status"], "failed", "{ran:#}");
    assert!(text_of(last_command(&ran), "message").contains("serverflow-e2e-no-such-image:1"), "{ran:#}");
    nothing_left();

    // Not on loopback: refused by the host's own policy, which names what to write instead and the line to change.
    let open = web(8080, &[]).replace("127.0.0.1:8080:8080", "8080:80");
    let ran = fleet.deploy(&app, "local", &open).expect(1).json();
    assert_eq!(last_command(&ran)["status"], "rejected", "{ran:#}");
    let message = text_of(last_command(&ran), "message");
    assert!(message.contains("127.0.0.1:8080:80") && message.contains("[ports] publish"), "{message}");
    nothing_left();

    for (key, line) in [
        ("privileged: true", "privileged"),
        ("network_mode: host", "host_network"),
        ("cap_add: [NET_ADMIN]", "capabilities"),
        ("devices: [\"/dev/kmsg:/dev/kmsg\"]", "devices"),
    ] {
        let asked = format!("services:\n  web:\n    image: {SAMPLE}\n    {key}\n");
        let ran = fleet.deploy(&app, "local", &asked).expect(1).json();
        assert_eq!(last_command(&ran)["status"], "rejected", "{key}: {ran:#}");
        let message = text_of(last_command(&ran), "message");
        assert!(message.contains("policy.toml") && message.contains(line), "{key}: {message}");
    }
    nothing_left();
}

#[test]
fn a_port_that_somebody_has_is_named_and_what_ran_before_runs_again() {
    let fleet = Fleet::start();
    let _host = fleet.host("local");
    let (app, docker, port) = (fleet.app("shop"), &fleet.docker, free_port());
    fleet.deploy(&app, "local", &web(port, &[])).ok();
    let before = docker.containers(&app)[0].id.clone();

    let foreign = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    let taken = foreign.local_addr().expect("its address").port();
    let other = fleet.app("other");
    let name = format!("{other}-foreign");
    let label = format!("io.serverflow.fleet={}", fleet.id());
    let theirs = free_port();
    // Somebody else's container; the label is for this test's clean-up only.
    docker
        .run(&[
            "run",
            "--detach",
            "--name",
            &name,
            "--label",
            &label,
            "-p",
            &format!("127.0.0.1:{theirs}:8080"),
            SAMPLE,
        ])
        .ok();

    for clash in [taken, theirs] {
        let ran = fleet.deploy(&app, "local", &web(clash, &[])).expect(1).json();
        assert_eq!(last_command(&ran)["status"], "rolled_back", "{ran:#}");
        assert!(text_of(last_command(&ran), "message").contains(&clash.to_string()), "{ran:#}");
        assert_eq!(docker.containers(&app)[0].id, before);
        assert!(serves(port), "what ran before runs again");
    }
    assert!(docker.container(&name).is_some_and(|container| container.running), "what is not ours is left alone");
}

#[test]
fn services_start_in_the_order_they_depend_and_without_a_probe_it_is_unverified() {
    let fleet = Fleet::start();
    let _host = fleet.host("local");
    let (app, docker, port) = (fleet.app("shop"), &fleet.docker, free_port());
    let with_prepare = |code: u8| {
        format!(
            "services:\n  prepare:\n    image: {SAMPLE}\n    command: [\"once\", \"{code}\", \"prepared by test\"]\n    \
             healthcheck: {{disable: true}}\n{}    depends_on:\n      prepare:\n        condition: \
             service_completed_successfully\n",
            web_service(port, &[], "")
        )
    };
    let ran = fleet.deploy(&app, "local", &with_prepare(5)).expect(1).json();
    assert_eq!(last_command(&ran)["status"], "rolled_back", "{ran:#}");
    let report = fleet.command(&text_of(last_command(&ran), "command_id"))["report"].clone();
    assert!(text_of(&report["result"]["failing"][0], "logs").contains("prepared by test"), "{report:#}");
    assert!(!serves(port) && docker.containers(&app).is_empty());

    let ran = fleet.deploy(&app, "local", &with_prepare(0)).ok().json();
    assert!(!text_of(last_command(&ran), "message").contains("unverified"), "{ran:#}");
    let ended = docker.inspect(&format!("{app}-prepare-1"))["State"]["FinishedAt"].clone();
    let started = docker.inspect(&format!("{app}-web-1"))["State"]["StartedAt"].clone();
    assert!(ended.as_str() < started.as_str(), "prepare ended at {ended} before web started at {started}");
    assert!(serves(port));

    let plain = fleet.app("plain");
    let text = format!("services:\n  web:\n    image: {SAMPLE}\n    healthcheck: {{disable: true}}\n");
    let ran = fleet.deploy(&plain, "local", &text).ok().json();
    assert!(text_of(last_command(&ran), "message").starts_with("unverified"), "{ran:#}");
    let report = fleet.command(&text_of(last_command(&ran), "command_id"))["report"].clone();
    assert_eq!(report["result"]["verified"], false, "{report:#}");
    let apps = fleet.cli(&["app", "show", &plain, "--json"]).ok().json();
    assert_eq!(apps["instances"][0]["verified"], false);
}

#[test]
fn a_deploy_that_is_cancelled_is_put_back() {
    let fleet = Fleet::start();
    let _host = fleet.host("local");
    let (app, docker, port) = (fleet.app("shop"), &fleet.docker, free_port());
    fleet.deploy(&app, "local", &web(port, &[])).ok();
    let before = docker.containers(&app)[0].id.clone();

    let known = fleet.commands("app.deploy");
    let running = fleet.deploy_start(&app, "local", &web_that_hangs(port));
    let id = fleet.wait_command("app.deploy", &known);
    wait_until("the new container runs", || docker.containers(&app).iter().any(|it| it.running && it.id != before));
    fleet.cli(&["command", "cancel", &id]).ok();
    let ran = running.wait().expect(1).json();
    assert_eq!(last_command(&ran)["status"], "cancelled", "{ran:#}");
    let after = docker.containers(&app);
    assert_eq!((after.len(), after[0].id.as_str()), (1, before.as_str()), "{after:?}");
    wait_until("the old version serves again", || serves(port));

    // Asked for again it is said again; one that ended otherwise is not cancelled any more.
    let status = fleet.command(&id)["status"].clone();
    fleet.cli(&["command", "cancel", &id]).ok().says("put back as it was");
    let first = text_of(fleet.commands("app.deploy").last().expect("the first deploy"), "command_id");
    fleet.cli(&["command", "cancel", &first]).expect(1).says("has ended already");
    assert_eq!(fleet.command(&id)["status"], status);
}

/// Every file below a folder that holds these bytes.
fn files_with(folder: &Path, needle: &[u8]) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder").flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(files_with(&path, needle));
        } else if let Ok(bytes) = fs::read(&path)
            && bytes.windows(needle.len()).any(|window| window == needle)
        {
            found.push(path.display().to_string());
        }
    }
    found
}

#[test]
fn a_secret_reaches_the_container_and_nothing_else() {
    const SECRET: &str = "plantedSecretValue7361";
    let mut fleet = Fleet::start();
    let mut host = fleet.host("local");
    let (app, docker, port) = (fleet.app("shop"), fleet.docker.clone(), free_port());
    // One deploy that ends well and one that fails, with the secret in an argument that the app prints as well.
    let text = format!(
        "services:\n  prepare:\n    image: {SAMPLE}\n    command: [\"once\", \"0\", \"it is ${{TOKEN}}\"]\n    \
         healthcheck: {{disable: true}}\n{}    depends_on:\n      prepare:\n        condition: \
         service_completed_successfully\n",
        web_service(port, &[("DATABASE_PASSWORD", SECRET)], "")
    );
    let path = fleet.compose(&text);
    let deploy = |path: &str, json: bool| {
        let mut words = vec!["app", "deploy", "--name", &app, "--host", "local", "-f", path];
        words.extend(json.then_some("--json"));
        let mut command = fleet.cli_command(&words);
        command.env("TOKEN", SECRET);
        e2e::cli::run(command)
    };
    let said = deploy(&path, false).ok();
    assert!(!said.all().contains(SECRET), "progress: {}", said.all());
    let container = docker.containers(&app).into_iter().find(|it| it.name.contains("web")).expect("web");
    assert_eq!(docker.variable(&container.id, "DATABASE_PASSWORD").as_deref(), Some(SECRET), "it arrived");

    let failing = fleet.compose(&text.replace("\"once\", \"0\"", "\"once\", \"9\""));
    let failed = deploy(&failing, true).expect(1);
    assert!(!failed.all().contains(SECRET), "the report of a failure: {}", failed.all());
    for command in fleet.commands("app.plan").iter().chain(&fleet.commands("app.deploy")) {
        let shown = fleet.command(&text_of(command, "command_id")).to_string();
        assert!(!shown.contains(SECRET), "command show: {shown}");
    }
    for words in [&["app", "show", &app, "--json"][..], &["audit", "list", "--json"], &["command", "list", "--json"]] {
        assert!(!fleet.cli(words).ok().all().contains(SECRET), "{words:?}");
    }
    let export = fleet.path("audit.json");
    fleet.cli(&["audit", "export", export.to_str().expect("a path")]).ok();
    // Both ends stopped, so that everything is on disk.
    host.agent().terminate();
    fleet.control_plane().terminate();
    for folder in ["control-plane", "host-local"] {
        assert_eq!(files_with(&fleet.path(folder), SECRET.as_bytes()), [""; 0], "in {folder}");
    }
    for file in ["control-plane.log", "host-local.log", "audit.json"] {
        assert!(!fs::read_to_string(fleet.path(file)).expect("a file").contains(SECRET), "{file}");
    }
}

#[test]
fn orders_wait_for_a_host_that_is_away_but_not_for_ever() {
    let fleet = Fleet::start();
    let mut host = fleet.host_enrolled("local");
    let (app, docker, port) = (fleet.app("shop"), Docker::default(), free_port());
    let path = fleet.compose(&web(port, &[]));
    let never = fleet.cli(&["app", "deploy", "--name", &app, "--host", "local", "-f", &path]).expect(1);
    assert!(never.stderr.contains("has not connected yet"), "{never:#?}");
    host.start();
    fleet.wait_host("local", "connected");
    host.agent().terminate();
    fleet.wait_host("local", "offline");

    let stale = fleet
        .cli(&[
            "app",
            "deploy",
            "--json",
            "--detach",
            "--queue-for",
            "1s",
            "--name",
            &fleet.app("stale"),
            "--host",
            "local",
            "-f",
            &path,
        ])
        .ok()
        .json();
    let stale = text_of(last_command(&stale), "command_id");
    let queued = fleet
        .cli(&[
            "app",
            "deploy",
            "--json",
            "--detach",
            "--queue-for",
            "1h",
            "--name",
            &app,
            "--host",
            "local",
            "-f",
            &path,
        ])
        .ok()
        .json();
    assert_eq!(last_command(&queued)["status"], "queued", "{queued:#}");
    assert_eq!(fleet.wait_settled(&stale)["status"], "expired");

    host.start();
    wait_until("the waiting order is carried out", || serves(port));
    let deploy = fleet.wait_command("app.deploy", &[]);
    assert_eq!(fleet.wait_settled(&deploy)["status"], "succeeded");
    let watched = fleet.cli(&["command", "watch", &deploy, "--json"]).ok().json();
    assert_eq!(watched["status"], "succeeded");
    assert!(docker.containers(&fleet.app("stale")).is_empty(), "a stale order never runs");
    assert_eq!(fleet.commands("app.deploy").len(), 1);
}
