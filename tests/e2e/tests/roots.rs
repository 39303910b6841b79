//! Root metadata through a fleet's life: the real programs, from a person's intent to every agent.

use std::fs;

use e2e::{
    cli::{Ran, run},
    fleet::{Fleet, text_of},
    program::{binary, command},
    wait::wait_until,
};
use serde_json::{Value, json};

/// Gives the passphrase that `init` printed in a file.
fn passphrase(fleet: &Fleet) {
    fs::write(fleet.path("passphrase"), text_of(&fleet.init, "root_passphrase")).expect("written");
}

/// Runs the CLI on a machine with nothing but it: no sign-in, no address.
fn offline(fleet: &Fleet, words: &[&str]) -> Ran {
    let mut command = command(&binary("serverflow"));
    command.env("HOME", fleet.path("elsewhere")).current_dir(fleet.path(".")).args(words);
    run(command)
}

/// Waits until a host holds that version.
fn wait_version(fleet: &Fleet, host: &str, version: u64) {
    wait_until(&format!("host {host} holds root metadata version {version}"), || {
        let shown = fleet.cli(&["host", "show", host, "--json"]).json();
        shown["root_version"] == version && shown["status"] == "connected"
    });
}

fn root_key(fleet: &Fleet) -> String {
    fleet.data("root.key.pem").to_str().expect("UTF-8").to_owned()
}

/// Signs with one of the keys that `root init --json` printed.
fn sign_with(fleet: &Fleet, made: &Value, at: usize, file: &str) -> Ran {
    let key = &made["keys"][at];
    fs::write(fleet.path("p"), text_of(key, "passphrase")).expect("written");
    let root = fleet.data("root.pub");
    let root = root.to_str().expect("UTF-8");
    offline(
        fleet,
        &["root", "sign", file, "--key", &text_of(key, "file"), "--passphrase-file", "p", "--yes", "--root", root],
    )
}

#[test]
fn one_root_key_becomes_two_of_three_made_offline_and_hosts_follow() {
    let fleet = Fleet::start();
    let _host = fleet.host("local");
    passphrase(&fleet);
    let made =
        offline(&fleet, &["root", "init", "--threshold", "2", "--keys", "3", "--out", "keys", "--json"]).ok().json();
    fleet.cli(&["root", "propose", "--root-keys", "keys/root-keys.json", "--out", "v2.json"]).ok();
    fleet.cli(&["root", "apply", "v2.json", "--yes"]).expect(2).says("2 more root keys of version 2");
    sign_with(&fleet, &made, 2, "v2.json").ok().says("1 more root keys of version 1");
    sign_with(&fleet, &made, 0, "v2.json").ok();
    let key = root_key(&fleet);
    fleet.cli(&["root", "apply", "v2.json", "--yes"]).expect(2).says("1 more root keys of version 1");
    offline(&fleet, &["root", "sign", "v2.json", "--key", &key, "--passphrase-file", "passphrase", "--yes"])
        .ok()
        .says("root apply v2.json");
    offline(&fleet, &["root", "show", "v2.json"]).ok().says("2 of 3 root keys must sign from then on (1 until then)");
    fleet.cli(&["root", "apply", "v2.json", "--yes"]).ok().says("Version 2 is in force");
    wait_version(&fleet, "local", 2);
    // The same file again, as after a lost answer.
    fleet.cli(&["root", "apply", "v2.json", "--yes"]).ok();

    // From now on the old key alone is worth nothing, and one of the three is not enough.
    let old = ["root", "propose", "--renew", "--key", &key, "--passphrase-file", "passphrase", "--apply", "--yes"];
    fleet.cli(&old).expect(2).says("neither");
    fleet
        .cli(&["root", "propose", "--address", &fleet.proxy.address().to_string(), "--renew", "--out", "v3.json"])
        .ok();
    sign_with(&fleet, &made, 1, "v3.json").ok();
    fleet.cli(&["root", "apply", "v3.json", "--yes"]).expect(2).says("1 more root keys of version 2");
    sign_with(&fleet, &made, 2, "v3.json").ok();
    fleet.cli(&["root", "apply", "v3.json", "--yes"]).ok();
    wait_version(&fleet, "local", 3);
    fleet.cli(&["action", "run", "host.facts", "--host", "local"]).ok();

    let shown = fleet.cli(&["root", "show", "--json"]).ok().json();
    assert_eq!((&shown["version"], &shown["root_threshold"], &shown["expired"]), (&json!(3), &json!(2), &json!(false)));
    let entries = fleet.cli(&["audit", "list", "--kind", "root-change", "--json"]).ok().json();
    assert_eq!(entries.as_array().map(Vec::len), Some(2), "{entries:#}");
    assert_eq!(entries[0]["actor"], "admin");
    // From the public key of version 1, the chain leads here.
    wait_until("the log is signed to its end", || {
        let verdict = fleet.cli(&["audit", "verify", "--json"]).json();
        assert_eq!((&verdict["verified"], &verdict["root_version"]), (&json!(true), &json!(3)), "{verdict:#}");
        verdict["leaves"] == verdict["leaves_signed"]
    });
}

#[test]
fn with_one_root_key_a_change_is_one_line() {
    let fleet = Fleet::start();
    let _host = fleet.host("local");
    passphrase(&fleet);
    let approver = "3b6a27bcceb6a42d62a3a8d02a6f0d73653215771de243a63ac048a18b59da29";
    let key = root_key(&fleet);
    let change = |flags: &[&str]| {
        let fixed = ["root", "propose", "--key", &key, "--passphrase-file", "passphrase", "--apply", "--yes", "--json"];
        fleet.cli(&[&fixed, flags].concat())
    };
    let shown = change(&["--add-approver", approver, "--approvals-destructive", "1"]).ok().json();
    assert_eq!((&shown["applied"], &shown["proposed"]["version"]), (&json!(true), &json!(2)));
    wait_version(&fleet, "local", 2);
    let shown = fleet.cli(&["root", "show", "--json"]).ok().json();
    assert_eq!(shown["approver_keys"][0]["public_key"], approver);
    assert_eq!(shown["approvals_destructive"], 1);

    // A key that the control plane uses cannot go, and a stranger's signature is none.
    let command = text_of(&shown["command_keys"][0], "public_key");
    let other = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
    let refused = change(&["--add-command-key", other, "--drop-command-key", &command]).expect(1);
    assert!(refused.stderr.contains("drops the command key"), "{refused:?}");
    offline(&fleet, &["root", "init", "--threshold", "1", "--keys", "1", "--out", "strange"]).ok();
    assert_eq!(fleet.cli(&["root", "show", "--json"]).ok().json()["version"], 2);

    // Somebody who is not an owner may look, and not more.
    fs::write(fleet.path("password"), "long enough words").expect("written");
    fleet.cli(&["user", "create", "ada", "--role", "admin", "--password-file", "password"]).ok();
    fleet
        .cli(&[
            "root",
            "propose",
            "--renew",
            "--key",
            &key,
            "--passphrase-file",
            "passphrase",
            "--out",
            "v3.json",
            "--yes",
        ])
        .ok();
    let token =
        text_of(&fleet.cli(&["token", "create", "--name", "t", "--role", "admin", "--json"]).ok().json(), "token");
    let mut apply = fleet.cli_command(&["root", "apply", "v3.json", "--yes"]);
    apply.env("SERVERFLOW_TOKEN", token);
    run(apply).expect(3).says("needs the role owner");
    fleet.cli(&["root", "apply", "v3.json", "--yes"]).ok();
    wait_version(&fleet, "local", 3);
}

#[test]
fn a_fleet_begins_with_root_keys_that_never_were_here() {
    let fleet = Fleet::start();
    let made =
        offline(&fleet, &["root", "init", "--threshold", "2", "--keys", "2", "--out", "keys", "--json"]).ok().json();
    let data = fleet.path("second");
    let control = |words: &[&str]| {
        let mut command = command(&binary("serverflow-control-plane"));
        command.current_dir(fleet.path(".")).args(words).arg("--data-dir").arg(&data);
        run(command)
    };
    control(&["init", "--root-keys", "keys/root-keys.json", "--agent-address", "127.0.0.1:7444"])
        .ok()
        .says("waits for its root");
    control(&["serve"]).expect(1).says("is not signed yet");
    fs::copy(data.join("root-proposal.json"), fleet.path("first.json")).expect("copied");
    control(&["init", "--finish", "first.json"]).expect(2).says("2 more of its root keys' signatures");
    let sign = |at: usize| {
        let key = &made["keys"][at];
        fs::write(fleet.path("p"), text_of(key, "passphrase")).expect("written");
        offline(
            &fleet,
            &["root", "sign", "first.json", "--key", &text_of(key, "file"), "--passphrase-file", "p", "--yes"],
        )
    };
    sign(0).ok();
    control(&["init", "--finish", "first.json"]).expect(2).says("1 more");
    sign(1).ok().says("init --finish first.json");
    let finished = control(&["init", "--finish", "first.json", "--json"]).ok().json();
    assert!(finished.get("root_passphrase").is_none() && finished["admin"]["password"].is_string(), "{finished:#}");
    control(&["doctor", "--json"]);
    control(&["init", "--finish", "first.json"]).expect(2).says("was initialised before");
}
