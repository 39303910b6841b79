//! The database or the control plane's machine is lost, and comes back from a backup: the steps of `docs/RECOVERY.md`, by the real
//! programs. What was, is not played again, and what was shut out stays out.

use std::fs;

use e2e::{
    fleet::{Fleet, Host, text_of},
    http,
    wait::{wait_for, wait_until},
};
use serde_json::{Value, json};

const PASSPHRASE: &str = "correct horse battery staple";

fn facts(fleet: &Fleet, host: &str) -> Value {
    fleet.cli(&["action", "run", "host.facts", "--host", host, "--json"]).ok().json()
}

/// Backs the control plane up while it runs; the file's path.
fn backed_up(fleet: &Fleet) -> String {
    fs::write(fleet.path("backup.passphrase"), PASSPHRASE).expect("written");
    fs::write(fleet.path("root.passphrase"), text_of(&fleet.init, "root_passphrase")).expect("written");
    fs::copy(fleet.data("root.pub"), fleet.path("root.pub")).expect("kept elsewhere");
    fs::rename(fleet.data("root.key.pem"), fleet.path("root.key.pem")).expect("taken away");
    let (file, passphrase) = (path(fleet, "fleet.sfb"), path(fleet, "backup.passphrase"));
    let made = fleet.control_plane_verb(&["backup", &file, "--passphrase-file", &passphrase, "--json"]).ok().json();
    assert_eq!(made["fleet_id"], fleet.id());
    file
}

fn path(fleet: &Fleet, name: &str) -> String {
    fleet.path(name).to_str().expect("UTF-8").to_owned()
}

/// The machine is lost; another one takes the backup, and its first owner signs in.
fn restored(fleet: &mut Fleet, backup: &str) {
    fleet.control_plane_kill_9();
    fs::rename(fleet.path("control-plane"), fleet.path("lost")).expect("lost");
    let (root, passphrase) = (path(fleet, "root.pub"), path(fleet, "backup.passphrase"));
    let words = ["restore", backup, "--root", &root, "--passphrase-file", &passphrase];
    fleet.control_plane_verb(&words).ok().says("It orders nothing yet");
    fleet.control_plane_start();
    fleet.cli(&["host", "list"]).expect(3);
    sign_in(fleet);
}

/// The first owner, with the password that `init` printed.
fn sign_in(fleet: &mut Fleet) {
    let body = json!({ "name": fleet.init["admin"]["name"], "password": fleet.init["admin"]["password"] }).to_string();
    let headers = [("content-type", "application/json")];
    let answer = http::request(fleet.http_port, "POST", "/api/v1/session", &headers, &body).expect("an answer");
    let answer: Value = serde_json::from_str(&answer.body).expect("JSON");
    fleet.use_token(text_of(&answer, "token"));
}

fn status(fleet: &Fleet) -> Value {
    fleet.cli(&["recovery", "status", "--json"]).ok().json()
}

fn wait_heard(fleet: &Fleet, host: &str) {
    wait_until(&format!("{host} is heard"), || {
        let status = status(fleet);
        let hosts = status["hosts"].as_array().expect("hosts").clone();
        hosts.iter().any(|known| known["name"] == host && known["heard_at"].is_string())
    });
}

fn root_proposed(fleet: &Fleet) {
    root_changed(fleet, &["--restored"]);
}

fn root_changed(fleet: &Fleet, change: &[&str]) {
    let (key, passphrase) = (path(fleet, "root.key.pem"), path(fleet, "root.passphrase"));
    let words = ["root", "propose", "--key", &key, "--passphrase-file", &passphrase, "--apply", "--yes"];
    fleet.cli(&[&words, change].concat()).ok().says("is in force");
}

/// Every step after the restore, to the end; `revoked` are the hosts that were revoked after the backup was made.
fn recovered(fleet: &Fleet, heard: &[&str], revoked: &[&str]) {
    assert_eq!(status(fleet)["stage"], "gathering");
    heard.iter().for_each(|host| wait_heard(fleet, host));
    root_proposed(fleet);
    assert_eq!(status(fleet)["stage"], "confirming");
    let list = revoked.iter().flat_map(|name| ["--revoked", name]);
    let words: Vec<&str> = ["recovery", "confirm", "--yes"].into_iter().chain(list).collect();
    let none = if revoked.is_empty() { vec!["--none"] } else { Vec::new() };
    fleet.cli(&[words, none].concat()).ok().says("Orders go out again");
}

/// The log verifies to its end, from the root's public key alone.
fn verified(fleet: &Fleet) -> Value {
    wait_for("the log is signed to its end", || {
        let verdict = fleet.cli(&["audit", "verify", "--json"]).json();
        assert_eq!(verdict["verified"], true, "{verdict:#}");
        (verdict["leaves"] == verdict["leaves_signed"]).then_some(verdict)
    })
}

fn numbers(fleet: &Fleet) -> Vec<u64> {
    let entries = fleet.commands("host.facts");
    let shown = entries.iter().map(|command| fleet.command(&text_of(command, "command_id")));
    shown
        .flat_map(|command| command["orders"].as_array().cloned().unwrap_or_default())
        .map(|order| order["sequence"].as_u64().expect("a number"))
        .collect()
}

#[test]
fn a_lost_control_plane_comes_back_from_a_backup_and_orders_again() {
    let mut fleet = Fleet::start();
    let host = fleet.host("local");
    facts(&fleet, "local");
    let backup = backed_up(&fleet);
    // What the backup does not know: orders, and how far the log went.
    for _ in 0..3 {
        facts(&fleet, "local");
    }
    let (given, shown) = (numbers(&fleet), fleet.cli(&["host", "show", "local", "--json"]).ok().json());
    restored(&mut fleet, &backup);

    // Nothing is ordered before root metadata and a person say so.
    let order = ["action", "run", "host.facts", "--host", "local"];
    fleet.cli(&order).expect(1).says("restored from a backup");
    wait_heard(&fleet, "local");
    let heard = status(&fleet);
    assert_eq!(heard["hosts"][0]["orders_lost"], 3, "{heard:#}");
    root_proposed(&fleet);
    fleet.cli(&order).expect(1).says("restored from a backup");
    fleet.cli(&["recovery", "status"]).ok().says("recovery confirm");
    fleet.cli(&["recovery", "confirm", "--none", "--yes"]).ok();
    fleet.wait_host("local", "connected");
    facts(&fleet, "local");
    let after = numbers(&fleet);
    let highest = given.iter().max().expect("orders were given");
    assert!(after.iter().any(|number| number > highest), "numbers go on above the host's highest: {given:?} {after:?}");
    assert_eq!(shown["name"], "local");
    let verdict = verified(&fleet);
    assert_eq!(verdict["root_version"], 2, "{verdict:#}");
    // The host sends again what it reported since the backup: nothing of it is missing.
    let kinds = |kind: &str| fleet.cli(&["audit", "list", "--kind", kind, "--json"]).ok().json();
    wait_until("its reports are in the log", || kinds("report").as_array().map(Vec::len) == Some(5));
    assert_eq!(kinds("report-gap"), json!([]));
    assert!(!host.said().contains("quarantine"), "{}", host.said());
    assert_eq!(status(&fleet)["hosts"][0]["is_taken_up"], true);
}

#[test]
fn control_plane_restored_from_before_a_revocation_a_root_change_and_a_cancelled_order() {
    let mut fleet = Fleet::start();
    let (_good, mut bad): (Host, Host) = (fleet.host("good"), fleet.host("bad"));
    facts(&fleet, "bad");
    // An order that waits for its host when the backup is made, and is called off afterwards.
    bad.agent().terminate();
    fleet.wait_host("bad", "offline");
    let waiting =
        fleet.cli(&["action", "run", "host.facts", "--host", "bad", "--detach", "--queue-for", "1h", "--json"]);
    let waiting = waiting.ok().json();
    let command = text_of(&waiting["commands"][0], "command_id");
    let backup = backed_up(&fleet);
    fleet.cli(&["command", "cancel", &command]).ok();
    fleet.cli(&["host", "revoke", "bad", "--yes"]).ok();
    // Nor root metadata of after it, which the host that is there brings along.
    root_changed(&fleet, &["--renew"]);
    let held = || fleet.cli(&["host", "show", "good", "--json"]).ok().json()["root_version"] == 2;
    wait_until("the host holds version 2", held);
    restored(&mut fleet, &backup);

    // The backup knows neither that the order was called off nor that its host was revoked.
    assert_eq!(fleet.command(&command)["status"], "queued");
    bad.start();
    wait_until("the host has brought version 2", || fleet.cli(&["root", "show", "--json"]).ok().json()["version"] == 2);
    recovered(&fleet, &["good", "bad"], &["bad"]);
    let verdict = verified(&fleet);
    assert_eq!(verdict["root_version"], 3, "{verdict:#}");
    let refused = fleet.cli(&["host", "show", "bad", "--json"]).ok().json();
    assert_eq!(refused["status"], "revoked");
    assert_eq!(fleet.command(&command)["status"], "cancelled");
    let taken = fleet.cli(&["command", "list", "--host", "bad", "--json"]).ok().json();
    let orders = taken.as_array().expect("commands").iter().filter(|it| it["status"] == "succeeded").count();
    assert_eq!(orders, 1, "the one of before the backup, and none since");
    facts(&fleet, "good");
}

#[test]
fn an_order_of_before_a_restore_is_cancelled_and_the_same_order_given_anew_runs() {
    let mut fleet = Fleet::start();
    let mut host = fleet.host("local");
    host.agent().terminate();
    fleet.wait_host("local", "offline");
    let order = ["action", "run", "host.facts", "--host", "local", "--detach", "--queue-for", "1h", "--json"];
    let waiting = fleet.cli(&order).ok().json();
    let command = text_of(&waiting["commands"][0], "command_id");
    let backup = backed_up(&fleet);
    restored(&mut fleet, &backup);
    host.start();
    recovered(&fleet, &["local"], &[]);
    let ended = fleet.wait_settled(&command);
    assert_eq!(ended["status"], "cancelled", "{ended:#}");
    assert_eq!(ended["orders"], json!([]), "never sealed");
    let anew = fleet.cli(&order).ok().json();
    let ended = fleet.wait_settled(&text_of(&anew["commands"][0], "command_id"));
    assert_eq!(ended["status"], "succeeded", "{ended:#}");
}
