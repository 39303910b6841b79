//! The control plane's own keys are changed while hosts work, and a stolen one is shut out: the real programs.

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use e2e::{
    cli::{Ran, run},
    fleet::{Fleet, text_of},
    program::{binary, command},
    wait::{wait_for, wait_until},
};
use serde_json::{Value, json};

/// `key …` with the fleet's one root key.
fn key(fleet: &Fleet, words: &[&str]) -> Ran {
    fs::write(fleet.path("passphrase"), text_of(&fleet.init, "root_passphrase")).expect("written");
    let root_key = fleet.data("root.key.pem");
    let root_key = root_key.to_str().expect("UTF-8");
    let signing = ["--key", root_key, "--passphrase-file", "passphrase", "--yes", "--json"];
    fleet.cli(&[&["key"], words, &signing].concat())
}

fn list(fleet: &Fleet) -> Value {
    fleet.cli(&["key", "list", "--json"]).ok().json()
}

/// The key of that role in use.
fn in_use(fleet: &Fleet, role: &str) -> String {
    let list = list(fleet);
    let keys = list["keys"].as_array().expect("keys");
    let key = keys.iter().find(|key| key["role"] == role && key["state"] == "in_use");
    text_of(key.unwrap_or_else(|| panic!("no {role} key in use: {list:#}")), "key")
}

fn facts(fleet: &Fleet, host: &str) -> Ran {
    fleet.cli(&["action", "run", "host.facts", "--host", host, "--json"])
}

/// Orders a host about until it is told to stop; each order must succeed.
fn steady(fleet: &Arc<Fleet>, host: &'static str, stop: &Arc<AtomicBool>) -> thread::JoinHandle<usize> {
    let (fleet, stop) = (fleet.clone(), stop.clone());
    thread::spawn(move || {
        let mut count = 0;
        while !stop.load(Ordering::Relaxed) {
            facts(&fleet, host).ok();
            count += 1;
        }
        count
    })
}

#[test]
fn every_key_is_changed_under_steady_orders_and_none_is_refused_or_lost() {
    let fleet = Fleet::start();
    let (_one, _two) = (fleet.host("one"), fleet.host("two"));
    let fleet = Arc::new(fleet);
    let stop = Arc::new(AtomicBool::new(false));
    let orders: Vec<_> = ["one", "two"].into_iter().map(|host| steady(&fleet, host, &stop)).collect();
    let before: Vec<String> = ["command", "session", "audit", "tls"].map(|role| in_use(&fleet, role)).to_vec();
    for (role, old) in ["command", "session", "audit", "tls"].into_iter().zip(&before) {
        let done = key(&fleet, &["rotate", role, "--wait", "2m"]).ok().json();
        assert_eq!((&done["done"], &done["change"]["state"]), (&json!(true), &json!("retired")), "{done:#}");
        assert_eq!(done["change"]["old_key"], *old, "{done:#}");
        let new = in_use(&fleet, role);
        assert!(new != *old && done["change"]["new_key"] == new, "{done:#}");
        // After the change, too, and with a host that dials anew.
        for host in ["one", "two"] {
            facts(&fleet, host).ok();
        }
    }
    stop.store(true, Ordering::Relaxed);
    let counts: Vec<usize> = orders.into_iter().map(|order| order.join().expect("every order succeeded")).collect();
    assert!(counts.iter().all(|count| *count >= 10), "{counts:?}");
    for command in fleet.commands("host.facts") {
        assert_eq!(command["status"], "succeeded", "{command:#}");
    }
    let entries = fleet.cli(&["audit", "list", "--kind", "key-change", "--json"]).ok().json();
    let words: Vec<_> = entries.as_array().expect("entries").iter().map(|entry| text_of(entry, "subject")).collect();
    for step in ["prepared", "published", "activated", "retired"] {
        assert_eq!(words.iter().filter(|word| word.ends_with(step)).count(), 4, "{step}: {words:#?}");
    }
    wait_until("the log is signed to its end, by whichever audit key", || {
        let verdict = fleet.cli(&["audit", "verify", "--json"]).json();
        assert_eq!(verdict["verified"], true, "{verdict:#}");
        verdict["leaves"] == verdict["leaves_signed"]
    });
    // Private halves of before are gone, and no file is left beside those in use.
    let mut names: Vec<_> = fs::read_dir(fleet.data("keys"))
        .expect("the keys")
        .map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8"))
        .collect();
    names.sort();
    assert_eq!(names, ["audit.key.pem", "data.key", "session.key.pem", "tls-next.key.pem", "tls.key.pem"]);
    assert_eq!(fs::read_dir(fleet.data("signer/keys")).expect("the signer's keys").count(), 1);
}

#[test]
fn a_change_waits_for_hosts_goes_on_after_kill_9_and_can_be_given_up() {
    let mut fleet = Fleet::start();
    let mut host = fleet.host("local");
    facts(&fleet, "local").ok();
    host.kill_9();
    fleet.wait_host("local", "offline");

    for role in ["command", "session", "tls"] {
        let old = in_use(&fleet, role);
        let waits = key(&fleet, &["rotate", role, "--wait", "2s"]).expect(1).json();
        assert_eq!((&waits["change"]["state"], &waits["done"]), (&json!("published"), &json!(false)), "{waits:#}");
        assert_eq!(waits["change"]["hosts_waiting"], json!(["local"]), "{waits:#}");
        assert!(text_of(&waits, "waits_for").contains("not yet: local"), "{waits:#}");
        fleet.control_plane_kill_9();
        fleet.control_plane_start();
        assert_eq!(in_use(&fleet, role), old, "not before the host has heard of it");
        let aborted = key(&fleet, &["rotate", role, "--abort"]).ok().json();
        assert_eq!(aborted["change"]["state"], "aborted", "{aborted:#}");
        assert_eq!(in_use(&fleet, role), old);
    }

    // Again; and the host comes back.
    let old = in_use(&fleet, "command");
    key(&fleet, &["rotate", "command", "--wait", "1s"]).expect(1);
    host.start();
    fleet.wait_host("local", "connected");
    wait_until("the new key is in use", || in_use(&fleet, "command") != old);
    fleet.control_plane_kill_9();
    fleet.control_plane_start();
    let done = key(&fleet, &["rotate", "command"]).ok().json();
    assert_eq!((&done["change"]["state"], &done["change"]["old_key"]), (&json!("retired"), &json!(old)), "{done:#}");
    fleet.wait_host("local", "connected");
    facts(&fleet, "local").ok();

    // Without any host that answers, when somebody says so.
    host.kill_9();
    fleet.wait_host("local", "offline");
    key(&fleet, &["rotate", "session", "--wait", "1s"]).expect(1);
    let done = key(&fleet, &["rotate", "session", "--activate-anyway"]).ok().json();
    assert_eq!(done["change"]["activate_anyway"], true, "{done:#}");
    host.start();
    fleet.wait_host("local", "connected");
    facts(&fleet, "local").ok();
}

#[test]
fn with_several_root_keys_a_change_goes_from_file_to_file() {
    let fleet = Fleet::start();
    let _host = fleet.host("local");
    let made = fleet.cli(&["root", "init", "--threshold", "2", "--keys", "2", "--out", "roots", "--json"]).ok().json();
    fs::write(fleet.path("passphrase"), text_of(&fleet.init, "root_passphrase")).expect("written");
    let (root, first) = (fleet.data("root.key.pem"), &made["keys"][0]);
    let sign = |file: &str, key: &str, passphrase: &str| {
        let offline = ["root", "sign", file, "--key", key, "--passphrase-file", passphrase, "--yes"];
        let mut sign = command(&binary("serverflow"));
        sign.env("SERVERFLOW_ROOT", fleet.data("root.pub")).env("HOME", fleet.path("elsewhere"));
        sign.current_dir(fleet.path(".")).args(offline);
        run(sign)
    };
    let keep = |at: usize| {
        let name = format!("passphrase-{at}");
        fs::write(fleet.path(&name), text_of(&made["keys"][at], "passphrase")).expect("written");
        (text_of(&made["keys"][at], "file"), name)
    };
    let (second, second_passphrase) = keep(1);
    let (_, first_passphrase) = keep(0);
    fleet.cli(&["root", "propose", "--root-keys", "roots/root-keys.json", "--out", "v2.json"]).ok();
    sign("v2.json", root.to_str().expect("UTF-8"), "passphrase").ok();
    sign("v2.json", &text_of(first, "file"), &first_passphrase).ok();
    sign("v2.json", &second, &second_passphrase).ok();
    fleet.cli(&["root", "apply", "v2.json", "--yes"]).ok();

    let old = in_use(&fleet, "command");
    let waits = fleet.cli(&["key", "rotate", "command", "--json"]).expect(1).json();
    assert_eq!((&waits["file"], &waits["change"]["state"]), (&json!("root-v3.json"), &json!("prepared")), "{waits:#}");
    // Looked at again, it is the same proposal; with one key at hand, it gets that signature.
    fleet.cli(&["key", "rotate", "command"]).expect(1).says("root sign --key KEYFILE root-v3.json");
    let one = ["key", "rotate", "command", "--key", &second, "--passphrase-file", &second_passphrase, "--yes"];
    fleet.cli(&one).expect(1).says("root-v3.json lacks");
    sign("root-v3.json", &text_of(first, "file"), &first_passphrase).ok();
    fleet.cli(&["root", "apply", "root-v3.json", "--yes"]).ok();
    // Both at hand.
    let both =
        [&one[..], &["--key", first["file"].as_str().expect("text"), "--passphrase-file", &first_passphrase, "--json"]];
    let done = fleet.cli(&both.concat()).ok().json();
    assert_eq!((&done["change"]["state"], &done["change"]["old_key"]), (&json!("retired"), &json!(old)), "{done:#}");
    facts(&fleet, "local").ok();
}

#[test]
fn a_stolen_command_key_is_shut_out_at_once_and_hosts_out_of_reach_by_a_file() {
    let fleet = Fleet::start();
    let (_near, mut far) = (fleet.host("near"), fleet.host("far"));
    far.kill_9();
    fleet.wait_host("far", "offline");
    let stolen = in_use(&fleet, "command");
    let epoch = fleet.cli(&["root", "show", "--json"]).ok().json()["epoch"].as_u64().expect("a number");
    let refused = fleet.cli(&["key", "revoke", "command", &"0".repeat(64), "--emergency"]).expect(2);
    refused.says("is no command key of this fleet");
    // An order that waits for a host is signed when that host comes, by then with another key.
    let waiting = fleet.cli_start(&["action", "run", "host.facts", "--host", "far", "--queue-for", "1h", "--json"]);
    wait_until("it waits", || fleet.commands("host.facts").iter().any(|command| command["status"] == "queued"));

    let done = key(&fleet, &["revoke", "command", &stolen, "--emergency"]).ok().json();
    assert_eq!((&done["change"]["state"], &done["change"]["emergency"]), (&json!("retired"), &json!(true)), "{done:#}");
    assert_eq!(done["change"]["hosts_waiting"], json!(["far"]), "{done:#}");
    let shown = fleet.cli(&["root", "show", "--json"]).ok().json();
    assert_eq!(shown["epoch"], epoch + 1, "what it signed is void");
    assert_ne!(in_use(&fleet, "command"), stolen);
    fleet.cli(&["key", "list"]).ok().says("Not reached yet: far.").says("serverflow-agent trust apply");
    // Said again, as after a lost answer, it is done.
    key(&fleet, &["revoke", "command", &stolen, "--emergency"]).ok();
    fleet.wait_host("near", "connected");
    facts(&fleet, "near").ok();

    fleet.cli(&["root", "export", "now.json"]).ok();
    far.verb(&["trust", "apply", fleet.path("now.json").to_str().expect("UTF-8")]).ok();
    assert_eq!(far.verb(&["trust", "show", "--json"]).ok().json()["version"], 2);
    far.start();
    waiting.wait().ok();
    wait_for("nobody is left", || {
        let change = &list(&fleet)["changes"][0];
        (change["hosts_waiting"] == json!([])).then_some(())
    });
    // Steps of before are no steps of now: the key in use changes as ever.
    key(&fleet, &["rotate", "command"]).ok();
    facts(&fleet, "far").ok();
}
