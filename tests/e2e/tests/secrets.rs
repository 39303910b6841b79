//! Secrets that outlive their host: the owner's recovery key opens them, a host seals what it keeps to its newest key.

use std::{fs, path::Path};

use e2e::{
    cli::{Ran, run},
    docker::{PrivateEngine, wait_healthy},
    fleet::{Fleet, Host, text_of},
    program::{binary, command},
    wait::wait_until,
};
use serde_json::{Value, json};

const FILE: &str = "services:\n  web:\n    image: serverflow-sample:1\n    network_mode: none\n    stop_grace_period: 2s\n    \
    environment: {PASSWORD: \"planted-secret-one\"}\n    healthcheck:\n      test: [\"CMD\", \"/sample\", \"check\"]\n      \
    interval: 300ms\n";
const SECRET: &str = "planted-secret-one";

/// A machine with nothing but the CLI: no sign-in, no address.
fn offline(fleet: &Fleet, words: &[&str]) -> Ran {
    let mut command = command(&binary("serverflow"));
    command.env("HOME", fleet.path("elsewhere")).current_dir(fleet.path(".")).args(words);
    run(command)
}

/// An owner recovery key in this file; its public half. Its passphrase is beside it.
fn owner_key(fleet: &Fleet, name: &str) -> String {
    let made = offline(fleet, &["secret", "recovery-key", "--out", name, "--json"]).ok().json();
    fs::write(fleet.path(&format!("{name}.passphrase")), text_of(&made, "passphrase")).expect("written");
    text_of(&made, "public_key")
}

fn root_change(fleet: &Fleet, more: &[&str]) {
    fs::write(fleet.path("passphrase"), text_of(&fleet.init, "root_passphrase")).expect("written");
    let key = fleet.data("root.key.pem");
    let key = key.to_str().expect("UTF-8");
    let fixed = ["root", "propose", "--key", key, "--passphrase-file", "passphrase", "--apply", "--yes"];
    fleet.cli(&[&fixed, more].concat()).ok();
}

fn with_key(fleet: &Fleet, words: &[&str], name: &str) -> Ran {
    let passphrase = format!("{name}.passphrase");
    fleet.cli(&[words, &["--recovery-key", name, "--passphrase-file", &passphrase]].concat())
}

fn sealing_keys(host: &Host) -> usize {
    let names = fs::read_dir(host.state(".")).expect("a folder").map(|entry| entry.expect("an entry").file_name());
    names.filter(|name| name.to_string_lossy().starts_with("sealing")).count()
}

#[test]
fn an_app_moves_with_its_secrets_to_another_host_also_when_its_own_is_gone() {
    let engine = PrivateEngine::start();
    let fleet = Fleet::start();
    let mut first = fleet.host("first");
    let token = fleet.join_token("second", &[]);
    let mut second = Host::unborn(&fleet, "second");
    second.use_docker(&engine.docker);
    second.enrol(&token).ok();
    second.start();
    fleet.wait_host("second", "connected");
    let app = fleet.app("moves");
    let name = format!("{app}-web-1");

    // Without a recovery key, what one host opens is lost with it.
    fleet.deploy(&app, "first", FILE).ok();
    fleet.cli(&["app", "move", &app, "--to", "second"]).expect(2).says("not sealed to a recovery key");
    let (public, stranger) = (owner_key(&fleet, "owner.key.pem"), owner_key(&fleet, "stranger.key.pem"));
    root_change(&fleet, &["--add-recovery-key", &public]);
    fleet.wait_host("first", "connected");
    fleet.wait_host("second", "connected");
    with_key(&fleet, &["secret", "rewrap"], "owner.key.pem").expect(1).says("not sealed to any recovery key");
    fleet.deploy(&app, "first", &FILE.replace("{PASSWORD", "{MORE: \"1\", PASSWORD")).ok();

    let to_second = ["app", "move", &app, "--to", "second"];
    fleet.cli(&to_second).expect(2).says("--recovery-key");
    with_key(&fleet, &to_second, "stranger.key.pem").expect(2).says("were not sealed to recovery key");
    with_key(&fleet, &[&to_second[..], &["--dry-run"]].concat(), "owner.key.pem").ok().says("nothing was changed");
    assert!(engine.docker.containers(&app).is_empty());
    with_key(&fleet, &to_second, "owner.key.pem").ok();
    wait_healthy(&engine.docker, &name);
    assert_eq!(engine.docker.variable(&name, "PASSWORD").as_deref(), Some(SECRET));
    assert!(fleet.docker.containers(&app).is_empty(), "it is gone where it was");

    // Another recovery key takes over, and opens what was sealed before it.
    let next = owner_key(&fleet, "next.key.pem");
    root_change(&fleet, &["--add-recovery-key", &next, "--drop-recovery-key", &public]);
    with_key(&fleet, &["secret", "rewrap"], "stranger.key.pem").expect(2);
    let done = with_key(&fleet, &["secret", "rewrap", "--json"], "owner.key.pem").ok().json();
    assert_eq!(done[0]["outcome"], "rewrapped", "{done:#}");
    let done = with_key(&fleet, &["secret", "rewrap", "--json"], "next.key.pem").ok().json();
    assert_eq!(done[0]["outcome"], "unchanged", "{done:#}");
    assert_ne!(stranger, next);

    // The host is lost: the app comes back elsewhere, and nothing is asked of the lost one.
    second.kill_9();
    fleet.wait_host("second", "offline");
    let back = ["app", "move", &app, "--to", "first", "--from", "second"];
    with_key(&fleet, &back, "owner.key.pem").expect(2).says("were not sealed to recovery key");
    with_key(&fleet, &back, "next.key.pem").ok().says("is not connected");
    wait_healthy(&fleet.docker, &name);
    assert_eq!(fleet.docker.variable(&name, "PASSWORD").as_deref(), Some(SECRET));
    nothing_in_the_clear(&fleet);
    fleet.cli(&["app", "remove", &app, "--host", "first"]).ok();
    first.kill_9();
}

/// No file of the control plane has the secret.
fn nothing_in_the_clear(fleet: &Fleet) {
    fn walk(path: &Path) {
        for entry in fs::read_dir(path).expect("a folder").map(|entry| entry.expect("an entry").path()) {
            if entry.is_dir() {
                walk(&entry);
            } else if let Ok(bytes) = fs::read(&entry) {
                let found = bytes.windows(SECRET.len()).any(|window| window == SECRET.as_bytes());
                assert!(!found, "the secret stands in {}", entry.display());
            }
        }
    }
    walk(&fleet.path("control-plane"));
}

#[test]
fn a_host_seals_what_it_keeps_to_its_newest_key() {
    let fleet = Fleet::start();
    let mut host = fleet.host("local");
    let app = fleet.app("rewrap");
    fleet.deploy(&app, "local", FILE).ok();
    let rewrap = || -> Value {
        let done = fleet.cli(&["secret", "rewrap", "--host", "local", "--json"]).ok().json();
        done[0]["commands"][0]["result"].clone()
    };
    assert_eq!(rewrap(), json!({ "releases": 1, "values": 1, "rewrapped": 0, "dry_run": false }));
    fleet.cli(&["key", "rotate", "agent", "local"]).ok();
    assert_eq!(sealing_keys(&host), 2);
    // Nobody has to hurry: the earlier key still opens it.
    fleet.cli(&["app", "restart", &app]).ok();
    assert_eq!(rewrap()["rewrapped"], 1);
    assert_eq!(rewrap()["rewrapped"], 0);
    host.kill_9();
    host.start();
    wait_until("the host is back", || fleet.cli(&["app", "logs", &app]).code == 0);
    fleet.cli(&["app", "remove", &app]).ok();
    fleet.cli(&["secret", "rewrap", "--host", "local"]).ok().says("no apps on these hosts");
}
