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

fn claims(fleet: &Fleet) -> Vec<Value> {
    status(fleet)["claims"].as_array().expect("claims").clone()
}

fn claim(fleet: &Fleet, host: &str) -> Value {
    wait_for(&format!("{host} has shown who it is"), || claims(fleet).into_iter().find(|it| it["name"] == host))
}

/// Refused so far, by the words of its agent.
fn refusals(host: &Host) -> usize {
    host.said_times("session ended")
}

/// Changes what a host's agent believes of itself, and starts it.
fn started_as(host: &mut Host, change: impl FnOnce(&mut Value)) {
    host.agent().terminate();
    let file = host.state("enrolment.json");
    let mut enrolment: Value = serde_json::from_slice(&fs::read(&file).expect("enrolled")).expect("JSON");
    change(&mut enrolment);
    fs::write(&file, enrolment.to_string()).expect("written");
    host.start();
}

#[test]
fn hosts_that_the_backup_does_not_know_come_back_by_their_receipts_and_a_revoked_one_does_not() {
    let mut fleet = Fleet::start();
    let old = fleet.host("old");
    let backup = backed_up(&fleet);
    // What the backup does not know: a host, another one that was revoked, and a host's keys of today.
    let mut late = fleet.host("late");
    let mut gone = fleet.host("gone");
    fleet.cli(&["action", "run", "host.keys.rotate", "--host", "old", "--json"]).ok();
    for name in ["old", "late", "gone"] {
        facts(&fleet, name);
    }
    fleet.cli(&["host", "revoke", "gone", "--yes"]).ok();
    let late_id = late.id();
    restored(&mut fleet, &backup);

    // The revoked one tries: it has its receipt.
    gone.agent().terminate();
    gone.start();
    let (known, new) = (claim(&fleet, "old"), claim(&fleet, "late"));
    assert_eq!((&known["known_host_epoch"], &known["host_epoch"]), (&json!(1), &json!(2)), "{known:#}");
    assert_eq!((&new["host_id"], &new["known_host_epoch"]), (&json!(late_id), &Value::Null), "{new:#}");
    assert!([&known, &new].iter().all(|it| it["is_receipted"] == true && it["is_by_dropped_key"] == false));
    claim(&fleet, "gone");

    // Another machine comes as the new host with that one's receipt, and one with a receipt that was changed.
    let receipt = |host: &Host| {
        let enrolment = fs::read(host.state("enrolment.json")).expect("enrolled");
        serde_json::from_slice::<Value>(&enrolment).expect("JSON")["receipt"].clone()
    };
    let (of_late, of_gone, gone_id) = (receipt(&late), receipt(&gone), gone.id());
    let before = refusals(&gone);
    started_as(&mut gone, |it| (it["host"], it["receipt"]) = (json!(late_id), of_late.clone()));
    gone.wait_says_again("session ended", before);
    assert_eq!(claim(&fleet, "late")["key_id"], new["key_id"], "the receipt alone is nothing");
    let before = refusals(&late);
    started_as(&mut late, |it| it["receipt"] = of_gone.clone());
    late.wait_says_again("session ended", before);
    assert!(late.said().contains("unknown here or was revoked"), "{}", late.said());
    started_as(&mut gone, |it| (it["host"], it["receipt"]) = (json!(gone_id), of_gone));
    started_as(&mut late, |it| it["receipt"] = of_late);

    root_proposed(&fleet);
    fleet.cli(&["recovery", "confirm", "--none", "--yes"]).expect(1).says("wait to be taken back or refused");
    fleet.cli(&["recovery", "status"]).ok().says("recovery take NAME");
    for (name, code) in [("old", 1), ("late", 2), ("gone", 2)] {
        fleet.cli(&["action", "run", "host.facts", "--host", name]).expect(code);
    }
    fleet.cli(&["recovery", "refuse", "gone", "--yes"]).ok();
    fleet.cli(&["recovery", "confirm", "--none", "--yes"]).expect(1).says("late, old");
    fleet.cli(&["recovery", "take", "--all", "--yes"]).ok().says("taken back");
    fleet.cli(&["recovery", "confirm", "--none", "--yes"]).ok();
    for name in ["old", "late"] {
        fleet.wait_host(name, "connected");
        facts(&fleet, name);
    }
    assert_eq!(fleet.cli(&["host", "show", "gone", "--json"]).ok().json()["status"], "revoked");
    assert_eq!(claims(&fleet), [Value::Null; 0]);
    let kinds = |kind: &str| fleet.cli(&["audit", "list", "--kind", kind, "--json"]).ok().json();
    // Two orders to one, a change of keys among them, one to the other, and what was ordered now.
    wait_until("their reports are in the log", || kinds("report").as_array().map(Vec::len) == Some(5));
    assert_eq!(kinds("report-gap"), json!([]));
    let verdict = verified(&fleet);
    assert_eq!(verdict["hosts"], 3, "{verdict:#}");
    assert!(!old.said().contains("quarantine"), "{}", old.said());
}

#[test]
fn a_backup_made_in_the_middle_of_changes_of_keys_carries_every_key_of_them() {
    let mut fleet = Fleet::start();
    let mut host = fleet.host("local");
    facts(&fleet, "local");
    host.kill_9();
    fleet.wait_host("local", "offline");
    fs::write(fleet.path("root.passphrase"), text_of(&fleet.init, "root_passphrase")).expect("written");
    let rotate = |fleet: &Fleet, key: &str, role: &str, wait: &str| {
        let passphrase = path(fleet, "root.passphrase");
        let words =
            ["key", "rotate", role, "--key", key, "--passphrase-file", &passphrase, "--yes", "--json", "--wait", wait];
        fleet.cli(&words)
    };
    let roles = ["command", "session", "tls"];
    for role in roles {
        let key = fleet.data("root.key.pem");
        let waits = rotate(&fleet, key.to_str().expect("UTF-8"), role, "1s").expect(1).json();
        assert_eq!(waits["change"]["state"], "published", "{waits:#}");
    }
    let backup = backed_up(&fleet);
    restored(&mut fleet, &backup);
    host.start();
    recovered(&fleet, &["local"], &[]);
    for role in roles {
        let done = rotate(&fleet, &path(&fleet, "root.key.pem"), role, "1m").ok().json();
        assert_eq!((&done["done"], &done["change"]["state"]), (&json!(true), &json!("retired")), "{done:#}");
        fleet.wait_host("local", "connected");
        facts(&fleet, "local");
    }
    let held = fleet.cli(&["key", "list", "--json"]).ok().json();
    assert!(held["keys"].as_array().expect("keys").iter().all(|key| key["held"] == true), "{held:#}");
}
