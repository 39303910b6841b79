//! Root metadata that reaches hosts by other ways than a session, and control planes that are behind.

use std::fs;

use e2e::{
    evil::{Evil, own_tls_key},
    fleet::{Fleet, Host, text_of},
    wait::wait_until,
};
use envelope::{
    keys::{SigningKey, role},
    root::{Proposal, RootFile, sign_root},
};
use ids::{Sha256, sha256};
use rcgen::{KeyPair, PublicKeyData as _};
use serde_json::{Value, json};
use wire::v1;

/// A change of the fleet's root, signed by its one root key; `more` says what it is and where it goes.
fn propose(fleet: &Fleet, more: &[&str]) {
    fs::write(fleet.path("passphrase"), text_of(&fleet.init, "root_passphrase")).expect("written");
    let key = fleet.data("root.key.pem");
    let key = key.to_str().expect("UTF-8");
    let fixed = ["root", "propose", "--key", key, "--passphrase-file", "passphrase", "--yes"];
    fleet.cli(&[&fixed, more].concat()).ok();
}

fn path(fleet: &Fleet, name: &str) -> String {
    fleet.path(name).to_str().expect("UTF-8").to_owned()
}

fn trust(host: &Host) -> Value {
    host.verb(&["trust", "show", "--json"]).ok().json()
}

fn present(fleet: &Fleet) -> Value {
    fleet.cli(&["root", "show", "--json"]).ok().json()
}

#[test]
fn a_host_out_of_reach_takes_root_metadata_from_a_file_running_or_not() {
    let fleet = Fleet::start();
    let mut host = fleet.host("local");
    fleet.proxy.cut();
    fleet.cli(&["root", "export", "v1.json"]).ok();
    propose(&fleet, &["--from", "v1.json", "--raise-epoch", "--out", "v2.json"]);
    propose(&fleet, &["--from", "v2.json", "--renew", "--out", "v3.json"]);
    fleet.cli(&["root", "propose", "--from", "v3.json", "--renew", "--out", "unsigned.json"]).ok();
    let apply = |name: &str| host.verb(&["trust", "apply", &path(&fleet, name), "--json"]);

    apply("unsigned.json").expect(2).says("0 valid signatures by root keys of version 3; 1 are needed");
    fs::write(fleet.path("torn.json"), "{\"format\": \"serverflow-root\"").expect("written");
    apply("torn.json").expect(2).says("at line 1 column");
    apply("missing.json").expect(2);
    let before = trust(&host);
    assert_eq!((&before["version"], &before["epoch"], &before["running"]), (&json!(1), &json!(1), &json!(true)));
    let taken = apply("v2.json").ok().json();
    assert_eq!((&taken["version"], &taken["epoch"], &taken["running"]), (&json!(2), &json!(2), &json!(true)));
    // Again, and an older one, change nothing.
    assert_eq!(apply("v2.json").ok().json()["version"], 2);
    assert_eq!(apply("v1.json").ok().json()["version"], 2);

    host.kill_9();
    assert_eq!(trust(&host)["version"], 2, "it was on disk before it was answered");
    let taken = host.verb(&["trust", "apply", &path(&fleet, "v3.json"), "--json"]).ok().json();
    assert_eq!((&taken["version"], &taken["running"]), (&json!(3), &json!(false)));
    let other = Fleet::start();
    let theirs = path(&other, "theirs.json");
    other.cli(&["root", "export", &theirs]).ok();
    host.verb(&["trust", "apply", &theirs]).expect(1).says("is not part of that");
    assert_eq!(trust(&host)["version"], 3);

    // The control plane never heard of these: it takes them from the host.
    fleet.proxy.mend();
    host.start();
    wait_until("the control plane goes by version 3", || present(&fleet)["version"] == 3);
    fleet.wait_host("local", "connected");
    fleet.cli(&["action", "run", "host.facts", "--host", "local"]).ok();
}

#[test]
fn a_control_plane_whose_session_key_was_dropped_takes_the_metadata_that_says_so() {
    let fleet = Fleet::start();
    let host = fleet.host("local");
    let session = text_of(&present(&fleet)["session_keys"][0], "public_key");
    let successor = SigningKey::<role::Session>::from_seed(&[0x22; 32]).public().to_string();
    fleet.cli(&["root", "export", "v1.json"]).ok();
    let change = ["--add-session-key", &successor, "--drop-session-key", &session];
    propose(&fleet, &[&["--from", "v1.json", "--out", "v2.json"][..], &change].concat());
    host.verb(&["trust", "apply", &path(&fleet, "v2.json")]).ok();
    // The host cannot prove itself to a key that does not count any more, and need not: root keys signed.
    wait_until("the control plane goes by version 2", || present(&fleet)["version"] == 2);
    let entries = fleet.cli(&["audit", "list", "--kind", "root-change", "--json"]).ok().json();
    assert_eq!((entries.as_array().map(Vec::len), &entries[0]["actor"]), (Some(1), &json!("host:local")));
}

fn pin(key: &KeyPair) -> Sha256 {
    sha256(&key.subject_public_key_info())
}

/// The control plane goes over to its next TLS key, and has another next one.
fn go_over(fleet: &mut Fleet, next: &KeyPair) {
    fleet.control_plane_kill_9();
    let now = fs::read_to_string(fleet.data("keys/tls-next.key.pem")).expect("a key");
    fs::write(fleet.data("keys/tls.key.pem"), now).expect("written");
    fs::write(fleet.data("keys/tls-next.key.pem"), next.serialize_pem()).expect("written");
    fleet.control_plane_start();
}

#[test]
fn a_host_away_through_two_rotations_of_the_tls_key_comes_back_by_itself() {
    let mut fleet = Fleet::start();
    let mut host = fleet.host("local");
    host.kill_9();
    let pins: Vec<String> = present(&fleet)["tls_pins"]
        .as_array()
        .expect("pins")
        .iter()
        .map(|it| it.as_str().expect("text").to_owned())
        .collect();
    let (third, fourth) = (own_tls_key(), own_tls_key());
    propose(&fleet, &["--add-tls-pin", &pin(&third).to_string(), "--apply"]);
    go_over(&mut fleet, &third);
    propose(&fleet, &["--add-tls-pin", &pin(&fourth).to_string(), "--drop-tls-pin", &pins[0], "--apply"]);
    go_over(&mut fleet, &fourth);
    propose(&fleet, &["--drop-tls-pin", &pins[1], "--apply"]);
    let known: Vec<String> = trust(&host)["tls_pins"]
        .as_array()
        .expect("pins")
        .iter()
        .map(|it| it.as_str().expect("text").to_owned())
        .collect();
    assert_eq!(known, pins, "the host knows neither of the keys that are left");

    // First it meets a man in the middle, who has a certificate and a root of his own.
    let evil = Evil::start(&own_tls_key());
    fleet.proxy.lead_to(evil.address());
    host.start();
    let asked = |times: usize| {
        wait_until("the host asks for root metadata", || evil.roots.lock().expect("no panic").asked.len() >= times);
    };
    asked(1);
    fleet.cli(&["root", "export", "v4.json"]).ok();
    let file = RootFile::read(&fs::read(fleet.path("v4.json")).expect("there")).expect("whole");
    let mut forged = file.proposed.metadata().clone();
    let thief = SigningKey::<role::Root>::from_seed(&[0x66; 32]);
    (forged.version, forged.root_keys) = (ids::RootVersion(2), vec![thief.public()]);
    forged.tls_pins = vec![pin(&own_tls_key()), pin(&own_tls_key())];
    let envelopes = vec![sign_root(&[&thief], &forged)];
    assert!(Proposal::parse(&envelopes[0]).is_ok(), "well-formed, and signed by the wrong key");
    let answer = v1::RootsAnswer { root_version: 2, chain: Some(v1::RootChain { envelopes }) };
    let before = {
        let mut roots = evil.roots.lock().expect("no panic");
        roots.answer = Some(answer);
        roots.asked.len()
    };
    asked(before + 2);
    assert!(!evil.has_stream(), "nothing else was said to it");
    assert!(
        evil.roots
            .lock()
            .expect("no panic")
            .asked
            .iter()
            .all(|it| it.chain.as_ref().is_none_or(|it| it.envelopes.is_empty()))
    );
    assert_eq!(trust(&host)["version"], 1, "delay is all that was gained");

    fleet.proxy.lead_to(fleet.agent_listen());
    fleet.wait_host("local", "connected");
    assert_eq!(trust(&host)["version"], 4);
    fleet.cli(&["action", "run", "host.facts", "--host", "local"]).ok();
}
