//! `docs/RECOVERY.md`, carried out: each rehearsal runs the lines of its runbook as they stand in the text, with the words in
//! capitals filled in, and sees that what the text promises is so.

use std::{collections::BTreeMap, fs};

use e2e::{
    cli::{Ran, run},
    evil::{Evil, Stolen},
    fleet::{Fleet, Host, text_of},
    program::{binary, command},
    wait::wait_until,
};
use ids::Epoch;
use serde_json::{Value, json};

/// Lines of the runbook under that heading, without what is said about them.
fn lines(heading: &str) -> Vec<String> {
    let text =
        fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/RECOVERY.md")).expect("the runbooks");
    let part = text.split("\n## ").find(|part| part.starts_with(heading)).unwrap_or_else(|| panic!("no {heading:?}"));
    let mut lines = Vec::new();
    for block in part.split("```sh\n").skip(1) {
        let block = block.split("```").next().expect("an end of the block");
        lines.extend(block.lines().map(|line| line.split(" #").next().expect("a line").trim().to_owned()));
    }
    assert!(!lines.is_empty(), "{heading:?} has lines");
    lines
}

/// Who carries a runbook out: on the machine of the person, and on one host.
struct Hands<'a> {
    fleet: &'a Fleet,
    host: &'a Host,
    words: BTreeMap<&'static str, String>,
    /// Passphrase files by key file.
    passphrases: BTreeMap<String, String>,
}

impl<'a> Hands<'a> {
    fn new(fleet: &'a Fleet, host: &'a Host) -> Self {
        let root_key = fleet.data("root.key.pem").to_str().expect("UTF-8").to_owned();
        fs::write(fleet.path("passphrase"), text_of(&fleet.init, "root_passphrase")).expect("written");
        let root_public = fleet.data("root.pub").to_str().expect("UTF-8").to_owned();
        Self {
            fleet,
            host,
            passphrases: BTreeMap::from([(root_key.clone(), "passphrase".to_owned())]),
            words: BTreeMap::from([("ROOTKEY", root_key), ("ROOTPUB", root_public)]),
        }
    }

    fn filled(&self, line: &str) -> Vec<String> {
        let fill = |word: &str| {
            // Longer names first: ROOTKEY2 is not ROOTKEY and a 2.
            let mut word = word.to_owned();
            for (name, value) in self.words.iter().rev() {
                word = word.replace(name, value);
            }
            word
        };
        line.split_whitespace().map(fill).collect()
    }

    /// Runs a line as a person does who is asked for a passphrase and says yes.
    fn run(&self, line: &str) -> Ran {
        let words = self.filled(line);
        let (program, words) = words.split_first().expect("a program");
        let mut words: Vec<&str> = words.iter().map(String::as_str).collect();
        if let Some(at) = words.iter().position(|word| *word == "--key") {
            let passphrase = &self.passphrases[words[at + 1]];
            words.extend(["--passphrase-file", passphrase, "--yes"]);
        } else if words.starts_with(&["root", "apply"]) {
            words.push("--yes");
        }
        match program.as_str() {
            "serverflow" => self.fleet.cli(&words),
            "serverflow-agent" => {
                // A file that was brought there lies where the person is.
                let brought = |word: &str| {
                    let file = self.fleet.path(word);
                    if file.is_file() { file.to_str().expect("UTF-8").to_owned() } else { word.to_owned() }
                };
                let words: Vec<String> = words.iter().map(|word| brought(word)).collect();
                self.host.verb(&words.iter().map(String::as_str).collect::<Vec<_>>())
            }
            "serverflow-control-plane" => {
                let mut verb = command(&binary("serverflow-control-plane"));
                verb.current_dir(self.fleet.path(".")).args(words);
                run(verb)
            }
            other => panic!("{other} is no program of a runbook: {line}"),
        }
    }

    fn run_all(&self, lines: &[String]) {
        for line in lines {
            self.run(line).ok();
        }
    }
}

fn key_in_use(fleet: &Fleet, role: &str, field: &str) -> String {
    let list = fleet.cli(&["key", "list", "--json"]).ok().json();
    let of_role = |key: &&Value| key["role"] == role && key["state"] == "in_use";
    text_of(list["keys"].as_array().expect("keys").iter().find(of_role).expect("one in use"), field)
}

fn facts(fleet: &Fleet, host: &str) {
    fleet.cli(&["action", "run", "host.facts", "--host", host]).ok();
}

/// Whether the host lets somebody with these keys open a session.
fn opens(evil: &Evil, stolen: &Stolen, host: &Host) -> bool {
    let before = host.said_times("session open");
    evil.stream().opens(stolen, || host.said_times("session open") > before)
}

#[test]
fn a_stolen_command_key_is_shut_out_by_its_runbook() {
    let fleet = Fleet::start();
    let (_near, mut far) = (fleet.host("near"), fleet.host("far"));
    facts(&fleet, "far");
    far.kill_9();
    fleet.wait_host("far", "offline");
    let stolen = Stolen::from(&fleet);
    let id = key_in_use(&fleet, "command", "key_id");
    {
        let mut hands = Hands::new(&fleet, &far);
        hands.words.insert("KEY", id);
        let lines = lines("The command key was stolen");
        for line in &lines {
            let ran = hands.run(line).ok();
            if line.starts_with("serverflow key revoke") {
                hands.run("serverflow key list").ok().says("Not reached yet: far");
                facts(&fleet, "near");
            }
            if line.starts_with("serverflow audit list") {
                assert!(!ran.all().contains("alarm"), "nobody ordered anything: {}", ran.all());
            }
        }
    }
    // The host that was out of reach believes the thief no longer, and its owner as before.
    let evil = Evil::start(&stolen.tls);
    fleet.proxy.lead_to(evil.address());
    far.start();
    let shut_out = Stolen { epoch: Epoch(2), ..Stolen::from(&fleet) };
    let now = Stolen { epoch: Epoch(2), ..Stolen::from(&fleet) };
    assert!(!opens(&evil, &Stolen { command: stolen.command, ..shut_out }, &far), "the key is shut out there too");
    wait_until("whoever stole the new one as well is another matter", || opens(&evil, &now, &far));
    fleet.proxy.lead_to(fleet.agent_listen());
    wait_until("it takes orders again", || {
        fleet.cli(&["host", "show", "far", "--json"]).json()["status"] == "connected"
    });
    facts(&fleet, "far");
}

#[test]
fn a_stolen_tls_key_is_replaced_by_its_runbook() {
    let fleet = Fleet::start();
    let mut host = fleet.host("local");
    let pins = || fleet.cli(&["root", "show", "--json"]).ok().json()["tls_pins"].clone();
    let before = pins();
    // It is away all the while, and knows none of the keys that come.
    host.kill_9();
    fleet.wait_host("local", "offline");
    Hands::new(&fleet, &host).run_all(&lines("The TLS key was stolen"));
    let after = pins();
    for pin in before.as_array().expect("pins") {
        assert!(!after.as_array().expect("pins").contains(pin), "{pin} went: {after}");
    }
    host.start();
    fleet.wait_host("local", "connected");
    facts(&fleet, "local");
}

#[test]
fn stolen_session_and_audit_keys_are_replaced_by_their_runbook() {
    let fleet = Fleet::start();
    let mut host = fleet.host("local");
    facts(&fleet, "local");
    let stolen = Stolen::from(&fleet);
    let before = ["session", "audit", "tls"].map(|role| key_in_use(&fleet, role, "key"));
    Hands::new(&fleet, &host).run_all(&lines("The session key or the audit key was stolen"));
    let after = ["session", "audit", "tls"].map(|role| key_in_use(&fleet, role, "key"));
    assert!(before.iter().zip(&after).all(|(before, after)| before != after), "{before:?} {after:?}");
    fleet.wait_host("local", "connected");
    facts(&fleet, "local");
    // With a TLS key that the host knows, so that it is the session key that decides.
    let now = Stolen::from(&fleet);
    let evil = Evil::start(&now.tls);
    fleet.proxy.lead_to(evil.address());
    host.kill_9();
    host.start();
    assert!(!opens(&evil, &Stolen { session: stolen.session, ..Stolen::from(&fleet) }, &host));
    wait_until("with the one in use it would", || opens(&evil, &now, &host));
}

#[test]
fn a_root_key_that_is_gone_is_replaced_by_its_runbook() {
    let fleet = Fleet::start();
    let host = fleet.host("local");
    // A fleet of two of three, as the text has it; the third is gone.
    let made = fleet.cli(&["root", "init", "--threshold", "2", "--keys", "3", "--out", "old", "--json"]).ok().json();
    let mut hands = Hands::new(&fleet, &host);
    let keep = |hands: &mut Hands<'_>, made: &Value, at: usize, path: String| {
        let passphrase = format!("passphrase-{}-{at}", hands.passphrases.len());
        fs::write(fleet.path(&passphrase), text_of(&made["keys"][at], "passphrase")).expect("written");
        hands.passphrases.insert(path, passphrase);
    };
    for at in 0..2 {
        let path = text_of(&made["keys"][at], "file");
        keep(&mut hands, &made, at, path);
    }
    hands.run("serverflow root propose --root-keys old/root-keys.json --out first.json").ok();
    for line in [
        "root sign first.json --key ROOTKEY",
        "root sign first.json --key old/root-1.key.pem",
        "root sign first.json --key old/root-2.key.pem",
        "root apply first.json",
    ] {
        hands.run(&format!("serverflow {line}")).ok();
    }
    hands.words.insert("ROOTKEY", "old/root-1.key.pem".to_owned());
    hands.words.insert("ROOTKEY2", "old/root-2.key.pem".to_owned());
    hands.words.insert("NEWKEYS", "new".to_owned());
    for line in lines("A root key was lost or stolen") {
        if line.starts_with("serverflow root init") {
            let made = hands.run(&format!("{line} --json")).ok().json();
            for at in 0..3 {
                keep(&mut hands, &made, at, format!("new/root-{}.key.pem", at + 1));
            }
        } else {
            hands.run(&line).ok();
        }
    }
    // Two old keys, the stolen third among them or not, sign nothing any more.
    fleet.cli(&["root", "propose", "--renew", "--out", "late.json"]).ok();
    hands.run("serverflow root sign late.json --key old/root-1.key.pem").expect(2);
    hands.run("serverflow root sign late.json --key new/root-1.key.pem").ok();
    hands.run("serverflow root sign late.json --key new/root-3.key.pem").ok();
    hands.run("serverflow root apply late.json").ok();
    wait_until("the host holds it", || {
        fleet.cli(&["host", "show", "local", "--json"]).json()["root_version"] == json!(4)
    });
    facts(&fleet, "local");
}

#[test]
fn a_fleet_whose_root_is_gone_begins_anew_by_its_runbook() {
    let (old, new) = (Fleet::start(), Fleet::start());
    let mut host = old.host("web");
    facts(&old, "web");
    // The new fleet's machine is made by the text's own line, and then by the harness, which has a proxy before it.
    let mut hands = Hands::new(&new, &host);
    hands.words.insert("NEWDATA", new.path("made-anew").to_str().expect("UTF-8").to_owned());
    hands.words.insert("ADDRESS", "127.0.0.1:7443".to_owned());
    let token = new.join_token("web", &["--role", "app"]);
    hands.words.insert("TOKEN", token.to_str().expect("UTF-8").to_owned());
    let lines = lines("As many root keys as must sign were stolen");
    let [made, uninstall, enrol] = lines.as_slice() else { panic!("another runbook: {lines:?}") };
    hands.run(made).ok();
    assert!(new.path("made-anew/root.pub").exists());
    hands.run(enrol).expect(1);
    // What `uninstall` takes away on a machine is tried on a machine of its own (`second_machine`); of the state it leaves nothing.
    assert_eq!(uninstall, "serverflow-agent uninstall --purge");
    drop(hands);
    host.kill_9();
    fs::remove_dir_all(host.state("")).expect("removed");
    let mut hands = Hands::new(&new, &host);
    hands.words.insert("TOKEN", token.to_str().expect("UTF-8").to_owned());
    hands.run(enrol).ok();
    drop(hands);
    host.start();
    new.wait_host("web", "connected");
    facts(&new, "web");
    old.wait_host("web", "offline");
}
