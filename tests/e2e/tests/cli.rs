//! The CLI as scripts use it: with `--json` exactly one document and nothing else, in its documented shape, and an
//! exit code that says how it went.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use e2e::{
    cli::{Ran, run},
    fleet::{Fleet, free_port, text_of},
    http,
    program::{binary, command, signal},
    sample::web,
    wait::wait_until,
};
use serde_json::{Value, json};

/// The document, after checking that standard error kept quiet.
fn document(ran: Ran) -> Value {
    assert_eq!(ran.stderr, "", "with --json, people's words are left out");
    ran.json()
}

/// Fails unless the document has exactly these fields.
fn has_fields(value: &Value, fields: &[&str]) {
    let object = value.as_object().unwrap_or_else(|| panic!("an object: {value:#}"));
    let mut found: Vec<&str> = object.keys().map(String::as_str).collect();
    let mut wanted = fields.to_vec();
    found.sort_unstable();
    wanted.sort_unstable();
    assert_eq!(found, wanted, "{value:#}");
}

/// The one problem document on standard error, for runs that could not do what was asked.
fn problem(ran: Ran, code: i32) -> Value {
    let ran = ran.expect(code);
    assert_eq!(ran.stdout, "");
    let problem: Value = serde_json::from_str(&ran.stderr).unwrap_or_else(|error| panic!("{error}: {ran:#?}"));
    assert_eq!(problem["exit_code"], code, "{problem:#}");
    assert!(problem["detail"].is_string(), "{problem:#}");
    problem
}

const COMMAND: [&str; 11] = [
    "command_id",
    "operation_id",
    "host",
    "action",
    "app",
    "dry_run",
    "status",
    "message",
    "requested_by",
    "proposed_at",
    "settled_at",
];

#[test]
fn every_command_prints_one_document_of_its_documented_shape() {
    let fleet = Fleet::start();
    let _host = fleet.host("local");
    let (app, port) = (fleet.app("shop"), free_port());

    has_fields(&document(fleet.cli(&["version", "--json"]).ok()), &["name", "version"]);
    has_fields(&document(fleet.cli(&["whoami", "--json"]).ok()), &["url", "name", "role", "expires_at"]);
    let token = document(fleet.cli(&["host", "enroll", "next", "--role", "app", "--json"]).ok());
    has_fields(&token, &["token", "name", "roles", "expires_at", "install"]);

    let hosts = document(fleet.cli(&["host", "list", "--json"]).ok());
    has_fields(&hosts[0], &["id", "name", "status", "roles", "labels", "agent_version", "last_seen", "clock_skew_ms"]);
    assert_eq!((&hosts[0]["status"], &hosts[0]["roles"]), (&json!("connected"), &json!(["app"])));
    let host = document(fleet.cli(&["host", "show", "local", "--json"]).ok());
    assert_eq!(host["id"], hosts[0]["id"]);

    let path = fleet.compose(&web(port, &[]));
    let deploy = ["app", "deploy", "--json", "--name", &app, "--host", "local", "-f", &path];
    let plan = document(fleet.cli(&[&deploy[..], &["--dry-run"]].concat()).ok());
    assert!(plan["commands"][0]["plan"]["plan_sha256"].is_string(), "{plan:#}");
    let deployed = document(fleet.cli(&deploy).ok());
    let last = deployed["commands"].as_array().and_then(|all| all.last()).expect("a command");
    for field in ["command_id", "host", "status", "message"] {
        assert!(last[field].is_string(), "{field}: {deployed:#}");
    }
    assert!(deployed["operation_id"].is_string());

    let apps = document(fleet.cli(&["app", "list", "--json"]).ok());
    has_fields(&apps[0], &["name", "instances"]);
    has_fields(&apps[0]["instances"][0], &["host", "state", "release", "deployed_at", "verified"]);
    has_fields(&document(fleet.cli(&["app", "show", &app, "--json"]).ok()), &["name", "instances", "results"]);
    let logs = document(fleet.cli(&["app", "logs", &app, "--tail", "3", "--json"]).ok());
    has_fields(&logs["logs"][0], &["host", "service", "container", "truncated", "text"]);

    let actions = document(fleet.cli(&["action", "list", "--json"]).ok());
    let names: Vec<&str> = actions.as_array().expect("a list").iter().filter_map(|it| it["name"].as_str()).collect();
    for name in ["app.deploy", "app.plan", "app.logs", "app.remove", "docker.containers", "host.facts"] {
        assert!(names.contains(&name), "{name} in {names:?}");
    }
    let action = document(fleet.cli(&["action", "show", "host.facts", "--json"]).ok());
    has_fields(&action, &["name", "version", "title", "class", "timeout_seconds", "schema_sha256", "schema"]);
    let facts = document(fleet.cli(&["action", "run", "host.facts", "--host", "local", "--json"]).ok());
    assert!(facts["commands"][0]["result"].is_object(), "{facts:#}");

    commands_and_audit(&fleet);
    let removed = document(fleet.cli(&["app", "remove", &app, "--json"]).ok());
    assert_eq!(removed["commands"][0]["status"], "succeeded", "{removed:#}");
    let revoked = document(fleet.cli(&["host", "revoke", "local", "--yes", "--json"]).ok());
    assert_eq!(revoked["status"], "revoked");
}

fn commands_and_audit(fleet: &Fleet) {
    let commands = document(fleet.cli(&["command", "list", "--host", "local", "--status", "succeeded", "--json"]).ok());
    has_fields(&commands[0], &COMMAND);
    let id = text_of(&commands[0], "command_id");
    let shown = document(fleet.cli(&["command", "show", &id, "--json"]).ok());
    let order = &shown["orders"][0];
    has_fields(order, &["sequence", "expires_at", "envelope", "payload_type", "verified_by"]);
    assert_eq!(order["payload_type"], "application/vnd.serverflow.command.v1");
    let report = &shown["report"];
    has_fields(report, &["sequence", "status", "finished_at", "result", "envelope", "payload_type", "verified_by"]);
    assert_eq!(document(fleet.cli(&["command", "watch", &id, "--json"]).ok())["status"], "succeeded");
    let entries = document(fleet.cli(&["audit", "list", "--limit", "3", "--json"]).ok());
    has_fields(&entries[0], &["index", "time", "kind", "actor", "subject", "record_sha256"]);
}

#[test]
fn an_export_verifies_from_the_root_key_alone_and_a_changed_one_does_not() {
    let fleet = Fleet::start();
    let _host = fleet.host("local");
    fleet.cli(&["action", "run", "host.facts", "--host", "local"]).ok();
    let whole = |ran: &Ran| ran.code == 0 && ran.json()["leaves"] == ran.json()["leaves_signed"];
    wait_until("a head covers the newest leaf", || whole(&fleet.cli(&["audit", "verify", "--json"])));
    let verdict = fleet.cli(&["audit", "verify", "--json"]).ok().json();
    assert_eq!((&verdict["verified"], &verdict["hosts"], &verdict["commands"]), (&json!(true), &json!(1), &json!(1)));
    assert_eq!(verdict["reports"], 1, "{verdict:#}");

    let path = fleet.path("audit.json");
    let exported = document(fleet.cli(&["audit", "export", path.to_str().expect("a path"), "--json"]).ok());
    has_fields(&exported, &["file", "bytes"]);
    fleet.cli(&["audit", "export", path.to_str().expect("a path")]).expect(2).says("exist");
    let export: Value = serde_json::from_str(&fs::read_to_string(&path).expect("an export")).expect("JSON");

    // Offline: no control plane, no token, only the root's public key.
    let root = fleet.data("root.pub");
    let verify = |path: &Path, root: &Path| {
        let mut offline = command(&binary("serverflow"));
        offline.args(["audit", "verify", "--json"]).arg(path).arg("--root").arg(root);
        run(offline)
    };
    assert_eq!(document(verify(&path, &root).ok())["verified"], true);

    let swap = |it: &mut Value, what: &str| {
        let (one, two) = (it["entries"][1][what].take(), it["entries"][2][what].take());
        (it["entries"][1][what], it["entries"][2][what]) = (two, one);
    };
    type Tamper<'a> = (&'a str, &'a dyn Fn(&mut Value));
    let tampering: [Tamper<'_>; 7] = [
        ("a record", &|it| swap(it, "record")),
        ("a record with its hash", &|it| {
            swap(it, "record");
            swap(it, "record_sha256");
        }),
        ("a time", &|it| it["entries"][2]["time_ms"] = 1.into()),
        ("who did it", &|it| it["entries"][2]["actor"] = "somebody".into()),
        ("what it was about", &|it| it["entries"][2]["subject"] = "something".into()),
        ("a missing entry", &|it| drop(it["entries"].as_array_mut().map(|all| all.remove(1)))),
        ("no heads", &|it| it["heads"] = json!([])),
    ];
    for (what, tamper) in tampering {
        let mut changed = export.clone();
        tamper(&mut changed);
        assert_ne!(changed, export, "{what}");
        let path = fleet.path("tampered.json");
        fs::write(&path, changed.to_string()).expect("written");
        let verdict = verify(&path, &root).expect(1).json();
        assert_eq!(verdict["verified"], false, "{what}");
        assert!(verdict["fault"].is_string(), "{what}: {verdict:#}");
    }
    // Another fleet's root.
    let other = fleet.path("other.pub");
    fs::write(&other, "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a\n").expect("written");
    assert_eq!(verify(&path, &other).expect(1).json()["verified"], false);
}

#[test]
fn exit_codes_say_how_it_went() {
    let mut fleet = Fleet::start();
    // 2: usage and invalid input.
    for words in [
        &["frobnicate"][..],
        &["host", "enroll", "Not A Name"],
        &["host", "enroll", "web", "--ttl", "99d"],
        &["app", "deploy", "-f", "/no/such/file.yaml", "--host", "local"],
        &["command", "show", "7"],
        &["command", "list", "--status", "done"],
        &["audit", "list", "--limit", "0"],
        &["host", "revoke", "local"],
    ] {
        problem(fleet.cli(&[words, &["--json"]].concat()), 2);
        let plain = fleet.cli(words).expect(2);
        assert!(plain.stdout.is_empty() && !plain.stderr.is_empty(), "{plain:#?}");
    }
    let wrong = fleet.compose("services:\n  web:\n    image: x\n    imagee: y\n");
    let refused = problem(fleet.cli(&["app", "deploy", "--json", "-f", &wrong, "--host", "local", "--name", "x"]), 2);
    assert!(refused.to_string().contains("imagee"), "{refused:#}");
    // No such thing: what was asked for does not exist.
    for words in [&["host", "show", "nobody"][..], &["app", "show", "nothing"], &["action", "show", "no.such"]] {
        let missing = fleet.cli(&[words, &["--json"]].concat());
        assert!([1, 2].contains(&missing.code), "{missing:#?}");
        assert_eq!(missing.stdout, "");
    }

    // 3: not signed in, or with a token that is not one.
    problem(run(fleet.cli_stranger(&["host", "list", "--json"])), 3);
    let mut guessed = fleet.cli_stranger(&["host", "list", "--json"]);
    guessed.env("SERVERFLOW_TOKEN", "sfs_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA");
    problem(run(guessed), 3);

    signs_in_and_out(&fleet);

    // 4: nobody there.
    fleet.control_plane_kill_9();
    for words in [&["host", "list"][..], &["whoami"], &["audit", "verify"]] {
        let away = problem(fleet.cli(&[words, &["--json"]].concat()), 4);
        assert!(away["detail"].as_str().is_some_and(|detail| detail.contains("127.0.0.1")), "{away:#}");
    }
}

fn signs_in_and_out(fleet: &Fleet) {
    let url = format!("http://127.0.0.1:{}", fleet.http_port);
    let password = fleet.path("password");
    fs::write(&password, text_of(&fleet.init["admin"], "password")).expect("written");
    let login = |file: &Path| {
        let file = file.to_str().expect("a path");
        run(fleet.cli_stranger(&["login", &url, "--user", "admin", "--password-file", file, "--json"]))
    };
    let wrong = fleet.path("wrong-password");
    fs::write(&wrong, "not the password").expect("written");
    problem(login(&wrong), 3);
    let signed_in = document(login(&password).ok());
    assert_eq!((&signed_in["name"], &signed_in["role"]), (&json!("admin"), &json!("owner")));
    let whoami = document(run(fleet.cli_stranger(&["whoami", "--json"])).ok());
    assert_eq!(whoami["name"], "admin");
    let out = document(run(fleet.cli_stranger(&["logout", "--json"])).ok());
    assert_eq!(out["signed_out"], true);
    problem(run(fleet.cli_stranger(&["whoami", "--json"])), 3);
}

#[test]
fn the_agents_own_verbs_say_how_it_stands() {
    let fleet = Fleet::start();
    let mut host = fleet.host_enrolled("local");
    host.verb(&["status"]).expect(1).says("never ran");
    host.start();
    fleet.wait_host("local", "connected");
    wait_until("the agent says so itself", || host.verb(&["status"]).code == 0);
    let status = host.verb(&["status", "--json"]).ok().json();
    assert_eq!((&status["running"], &status["enrolled"]["name"]), (&json!(true), &json!("local")));
    host.verb(&["policy", "check"]).ok();
    assert!(host.verb(&["policy", "check", "--json"]).ok().json().is_object());
    let broken = fleet.path("policy.toml");
    fs::write(&broken, "actions = [\"host.facts\"]\n[ports]\npublsh = []\n").expect("written");
    host.verb(&["policy", "check", broken.to_str().expect("a path")]).expect(2).says("publsh");
    let doctor = host.verb(&["doctor", "--json"]);
    assert!(doctor.json().is_object() || doctor.json().is_array(), "{doctor:#?}");
    assert_eq!(doctor.code, 0, "{doctor:#?}");

    fleet.proxy.cut();
    wait_until("it notices", || host.verb(&["status"]).code == 4);
    host.agent().terminate();
    host.verb(&["status"]).expect(1).says("not running");
    // Nobody's machine.
    let stranger = e2e::fleet::Host::unborn(&fleet, "nobody");
    stranger.verb(&["run"]).expect(1).says("not enrolled");
}

#[test]
fn ctrl_c_leaves_the_operation_to_go_on_and_says_so() {
    let fleet = Fleet::start();
    let _host = fleet.host("local");
    let app = fleet.app("shop");
    let slow =
        web(free_port(), &[("FAIL", "slow-health:1500")]).replace("retries: 3", "retries: 3\n      start_period: 30s");
    let path = fleet.compose(&slow);
    let running = fleet.cli_start(&["app", "deploy", "--name", &app, "--host", "local", "-f", &path]);
    wait_until("its container runs", || fleet.docker.containers(&app).iter().any(|it| it.running));
    signal(running.pid(), "INT");
    let ran = running.wait().expect(130);
    assert!(ran.stderr.contains("command watch") || ran.stderr.contains("goes on"), "{ran:#?}");
    let id = fleet.wait_command("app.deploy", &[]);
    assert_eq!(fleet.cli(&["command", "watch", &id, "--json"]).ok().json()["status"], "succeeded");
}

#[test]
fn the_control_plane_says_what_is_wrong_before_it_starts_and_answers_nobody_it_does_not_know() {
    let fleet = Fleet::start();
    let control_plane = |words: &[&str]| {
        let mut command = command(&binary("serverflow-control-plane"));
        command.args(words);
        run(command)
    };
    let data = fleet.path("control-plane");
    let data = data.to_str().expect("a path");
    control_plane(&["init", "--data-dir", data]).expect(2).says("exists already");
    let taken = format!("127.0.0.1:{}", fleet.http_port);
    control_plane(&["serve", "--data-dir", data, "--agent-listen", "127.0.0.1:0", "--http-listen", &taken])
        .expect(1)
        .says("--http-listen");
    control_plane(&["serve", "--data-dir", "/no/such/place"]).expect(1).says("init");
    control_plane(&["config", "check", "--http-listen", "0.0.0.0:1"]).expect(2).says("loopback");
    let config = fleet.path("wrong.toml");
    fs::write(&config, "log_levle = \"info\"\n").expect("written");
    control_plane(&["config", "check", "--config", config.to_str().expect("a path")]).expect(2).says("log_levle");

    let get = |path: &str| http::get(fleet.http_port, path).expect("an answer");
    assert_eq!(get("/health").status, 200);
    let metrics = get("/metrics");
    assert!(metrics.status == 200 && metrics.body.contains("# EOF"), "{metrics:?}");
    for path in ["hosts", "fleet", "commands", "apps", "actions", "audit", "audit/export", "session"] {
        let refused = get(&format!("/api/v1/{path}"));
        assert_eq!(refused.status, 401, "{path}: {refused:?}");
    }
    let command_key = fleet.command_key_file();
    let command_key = command_key.to_str().expect("a path in UTF-8");
    for name in [
        command_key,
        "signer/trust.json",
        "signer/sequences",
        "signer/log.jsonl",
        "keys/data.key",
        "root.key.pem",
        "admin.token",
        "serverflow.db",
    ] {
        let mode = fs::metadata(fleet.data(name)).expect("a file").permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{name} is its owner's alone");
    }
    let root_key = fs::read_to_string(fleet.data("root.key.pem")).expect("a key");
    assert!(root_key.starts_with("-----BEGIN ENCRYPTED PRIVATE KEY-----"), "{root_key}");
}
