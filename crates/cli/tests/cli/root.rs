//! `root …` as keepers of keys run it: mostly with no control plane anywhere.

use std::{fs, os::unix::fs::PermissionsExt as _};

use data_encoding::BASE64;
use envelope::{
    keys::{SigningKey, role},
    root::{RootFile, RootKeys, TrustedRoot},
};
use keyfile::KeyKind;
use serde_json::{Value, json};

use crate::{
    fleet_root,
    program::{Home, Ran},
    server::{Answer, Server},
};

const PASSPHRASE: &str = "abcde-fghjk";

fn chain() -> TrustedRoot {
    let text = fleet_root::chain(1)["root_chain"][0].as_str().expect("base64").to_owned();
    TrustedRoot::first(&BASE64.decode(text.as_bytes()).expect("base64")).expect("it verifies")
}

/// A home with the fleet's chain in a file, the root key that signed it, its public half, and their passphrase.
fn keeper(home: Home) -> Home {
    home.write("root.json", &RootFile::of_chain(&chain()).expect("a file").write().expect("text"));
    home.write("root.pub", &fleet_root::root_key(1));
    home.write("passphrase", PASSPHRASE);
    key_file(&home, "root.key.pem", 1);
    home
}

fn key_file(home: &Home, name: &str, seed: u8) {
    let path = home.path().join(name);
    keyfile::write_seed_encrypted(&path, KeyKind::Ed25519, &[seed; 32], PASSPHRASE).expect("written");
}

/// Public halves of root keys made of these seeds, as `root init` writes them.
fn root_keys(home: &Home, threshold: u32, seeds: &[u8]) {
    let keys = seeds.iter().map(|seed| SigningKey::<role::Root>::from_seed(&[*seed; 32]).public()).collect();
    home.write("root-keys.json", &RootKeys { threshold, keys }.write().expect("text"));
    for seed in seeds {
        key_file(home, &format!("{seed}.key.pem"), *seed);
    }
}

fn sign(home: &Home, key: &str, more: &[&str]) -> Ran {
    let fixed = ["root", "sign", "p.json", "--key", key, "--passphrase-file", "passphrase", "--yes", "--json"];
    home.run(&[&fixed, more].concat())
}

fn text(home: &Home, name: &str) -> String {
    fs::read_to_string(home.path().join(name)).expect("a file")
}

#[test]
fn init_makes_keys_that_only_their_own_passphrases_open() {
    let home = Home::new();
    let made =
        home.run(&["root", "init", "--threshold", "2", "--keys", "3", "--out", "keys", "--json"]).code(0).document();
    let keys = made["keys"].as_array().expect("keys");
    assert_eq!((keys.len(), &made["threshold"]), (3, &json!(2)));
    for (at, key) in keys.iter().enumerate() {
        let path = home.path().join(key["file"].as_str().expect("a path"));
        assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
        let open = |key: &Value| {
            keyfile::read_seed_encrypted(&path, KeyKind::Ed25519, key["passphrase"].as_str().expect("one"))
        };
        let seed = open(key).expect("its own passphrase");
        assert_eq!(SigningKey::<role::Root>::from_seed(&seed).public().to_string(), key["public_key"]);
        assert!(open(&keys[(at + 1) % 3]).is_err(), "another's passphrase");
    }
    let public = RootKeys::read(text(&home, "keys/root-keys.json").as_bytes()).expect("public halves");
    assert_eq!((public.threshold, public.keys.len()), (2, 3));
    let before = text(&home, "keys/root-1.key.pem");
    let again = home.run(&["root", "init", "--threshold", "1", "--keys", "1", "--out", "keys"]).code(2);
    assert!(again.stderr.contains("root-1.key.pem"), "{again:?}");
    assert_eq!(text(&home, "keys/root-1.key.pem"), before, "a key is never overwritten, nor removed");
    let never = home.run(&["root", "init", "--threshold", "3", "--keys", "2", "--out", "other"]).code(2);
    assert!(never.stderr.contains("of 2 keys, 3 can never sign") && !home.path().join("other").exists(), "{never:?}");
}

#[test]
fn a_rotation_goes_from_keeper_to_keeper_with_no_network() {
    let home = keeper(Home::new());
    root_keys(&home, 2, &[11, 12, 13]);
    let proposed =
        ["root", "propose", "--from", "root.json", "--root-keys", "root-keys.json", "--out", "p.json", "--json"];
    let shown = home.run(&proposed).code(0).document();
    assert_eq!((&shown["proposed"]["version"], &shown["complete"]), (&json!(2), &json!(false)));
    let words: Vec<_> = shown["changes"].as_array().expect("changes").iter().map(|it| it["field"].clone()).collect();
    assert_eq!(words, ["root_keys", "root_keys", "root_keys", "root_keys", "root_threshold", "expires"]);
    home.run(&proposed).code(2);

    let refused = home.run(&["root", "apply", "p.json", "--yes"]).code(2);
    assert!(
        refused.stderr.contains("1 more root keys of version 1")
            && refused.stderr.contains("2 more root keys of version 2")
    );
    let before = text(&home, "p.json");
    key_file(&home, "stranger.key.pem", 99);
    assert!(sign(&home, "stranger.key.pem", &[]).code(2).error_document()["detail"].to_string().contains("neither"));
    home.write("passphrase", "another");
    assert!(sign(&home, "root.key.pem", &[]).code(2).stderr.contains("passphrase does not open"));
    home.write("passphrase", PASSPHRASE);
    assert_eq!(text(&home, "p.json"), before, "what is refused changes nothing");

    for (key, missing) in
        [("12.key.pem", [1, 1]), ("12.key.pem", [1, 1]), ("root.key.pem", [0, 1]), ("11.key.pem", [0, 0])]
    {
        let shown = sign(&home, key, &[]).code(0).document();
        let left: Vec<_> =
            shown["signatures"].as_array().expect("two").iter().map(|it| it["missing"].clone()).collect();
        assert_eq!(left, missing, "{key}");
    }
    let shown = home.run(&["root", "show", "p.json"]).code(0);
    assert!(shown.stdout.contains("2 of 3 root keys must sign from then on (1 until then)"), "{}", shown.stdout);
    let file = RootFile::read(text(&home, "p.json").as_bytes()).expect("whole");
    assert_eq!(file.completed().expect("complete").current().root_threshold, 2);
    let away = home.run(&["root", "apply", "p.json", "--yes"]).code(3);
    assert!(away.stderr.contains("serverflow login"), "complete, and nobody is signed in: {away:?}");
}

#[test]
fn a_chain_that_nothing_vouches_for_is_not_signed() {
    // Two of two; the second key signed version 1 only with the first, and then lost that signature.
    let home = keeper(Home::new());
    root_keys(&home, 1, &[1, 11]);
    let propose = |from: &str, out: &str, flags: &[&str]| {
        home.run(&[&["root", "propose", "--from", from, "--out", out][..], flags].concat()).code(0);
    };
    propose("root.json", "p.json", &["--root-keys", "root-keys.json"]);
    sign(&home, "1.key.pem", &[]).code(0);
    fs::rename(home.path().join("p.json"), home.path().join("v2.json")).expect("renamed");
    // From here on key 11 is a root key that never signed.
    propose("v2.json", "p.json", &["--raise-epoch"]);
    let refused = sign(&home, "11.key.pem", &[]).code(2);
    assert!(
        refused.stderr.contains("signed nothing in this chain") && refused.stderr.contains("--root FILE"),
        "{refused:?}"
    );
    home.write("other.pub", &fleet_root::root_key(2));
    let refused = sign(&home, "11.key.pem", &["--root", "other.pub"]).code(2);
    assert!(refused.stderr.contains("do not sign it"), "{refused:?}");
    let signed = sign(&home, "11.key.pem", &["--root", "root.pub"]).code(0).document();
    assert_eq!(signed["complete"], true);
}

#[test]
fn files_that_cannot_be_used_say_where() {
    let home = keeper(Home::new());
    let refused = |name: &str, words: &str| {
        let ran = home.run(&["root", "show", name]).code(2);
        assert!(ran.stderr.contains(name) && ran.stderr.contains(words), "{words}: {ran:?}");
    };
    home.write("torn.json", &text(&home, "root.json")[..100]);
    refused("torn.json", "line 5 column");
    home.write("other.json", "{\"format\": \"x\"}");
    refused("other.json", "expected \"serverflow-root\"");
    refused("missing.json", "no such file");
    let nothing = home.run(&["root", "propose", "--from", "root.json"]).code(2);
    assert!(nothing.stderr.contains("nothing would change"), "{nothing:?}");
    let odd = home.run(&["root", "propose", "--from", "root.json", "--approvals-change", "2"]).code(2);
    assert!(odd.stderr.contains("must not exceed the number of approver keys"), "{odd:?}");
}

/// A control plane that answers with one version, and takes another.
fn server() -> Server {
    let present = fleet_root::chain(1);
    Server::new([("GET /api/v1/fleet/root", vec![Answer::Json(200, present)])])
}

#[test]
fn one_root_key_proposes_signs_and_applies_in_one_line() {
    let server = server();
    let home = keeper(Home::signed_in(&server.url).with("SERVERFLOW_ROOT", "root.pub"));
    let line = [
        "root",
        "propose",
        "--address",
        "new.example:7443",
        "--key",
        "root.key.pem",
        "--passphrase-file",
        "passphrase",
    ];
    let line = [&line[..], &["--apply", "--yes", "--json"]].concat();
    // This control plane takes nothing; what it was sent is what matters here.
    home.run(&line).code(2);
    let sent = server.heard_of("PUT /api/v1/fleet/root");
    let envelope = sent[0].json()["envelope"].as_str().map(|text| BASE64.decode(text.as_bytes())).expect("one");
    let mut root = chain();
    root.advance(&envelope.expect("base64")).expect("it is signed and follows");
    assert_eq!(root.current().addresses, ["new.example:7443"]);

    let shown = home.run(&["root", "show", "--json"]).code(0).document();
    assert_eq!((&shown["version"], &shown["expired"]), (&json!(1), &json!(true)), "made in 2023");
    home.run(&["root", "export", "e.json"]).code(0);
    assert_eq!(RootFile::read(text(&home, "e.json").as_bytes()).expect("whole").completed(), Ok(chain()));

    let other = keeper(Home::signed_in(&server.url).with("SERVERFLOW_ROOT", "other.pub"));
    other.write("other.pub", &fleet_root::root_key(2));
    let refused = other.run(&line).code(1);
    assert!(refused.stderr.contains("does not begin with the root key known here"), "{refused:?}");
    assert_eq!(server.heard_of("PUT").len(), 1, "another fleet's root is not built upon");
}
