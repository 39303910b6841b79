//! A second person stands before destruction: with the real programs, from the request to what becomes of the app, and
//! against somebody who has the control plane's keys.

use std::{fs, process::Command};

use data_encoding::BASE64;
use e2e::{
    cli::{Ran, Running, run},
    evil::{Evil, EvilStream, Stolen, opened},
    fleet::{Fleet, Host, free_port, text_of},
    sample::{web, web_service},
    stranger::{identity_of, now},
    wait::{wait_for, wait_until},
};
use envelope::{
    keys::{SigningKey, VerifyingKey, role},
    messages::{Approval, Command as Ordered, Report, ReportStatus},
    verify,
};
use ids::{CommandId, DurationMs, Nonce, OperationId, Sequence, sha256};
use serde_json::Value;
use wire::v1::agent_frame::Frame as FromAgent;

const PASSPHRASE: &str = "the words of an approver";

/// Somebody with a home of their own, signed in.
struct Person<'f> {
    fleet: &'f Fleet,
    name: &'static str,
}

impl<'f> Person<'f> {
    fn new(fleet: &'f Fleet, name: &'static str, role: &str) -> Self {
        let made = fleet.cli(&["user", "create", name, "--role", role, "--json"]).ok().json();
        let person = Self { fleet, name };
        let file = person.file("password", &text_of(&made, "password"));
        let url = format!("http://127.0.0.1:{}", fleet.http_port);
        person.cli(&["login", &url, "--user", name, "--password-file", &file]).ok();
        person
    }

    fn file(&self, kind: &str, text: &str) -> String {
        let path = self.fleet.path(&format!("{}.{kind}", self.name));
        fs::write(&path, format!("{text}\n")).expect("written");
        path.to_str().expect("UTF-8").to_owned()
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = self.fleet.cli_stranger(words);
        command.env("HOME", self.fleet.path(self.name)).env_remove("XDG_CONFIG_HOME");
        command
    }

    fn cli(&self, words: &[&str]) -> Ran {
        run(self.command(words))
    }

    fn start(&self, words: &[&str]) -> Running {
        Running::start(self.command(words))
    }

    /// Makes their key; answers its public half.
    fn key(&self) -> String {
        let passphrase = self.file("passphrase", PASSPHRASE);
        let made = self.cli(&["approver", "init", "--passphrase-file", &passphrase, "--json"]).ok().json();
        assert_eq!(made["in_force"], false, "{made:#}");
        text_of(&made, "public_key")
    }

    fn approve(&self, operation: &str, more: &[&str]) -> Ran {
        let passphrase = self.file("passphrase", PASSPHRASE);
        let fixed = ["approval", "approve", operation, "--passphrase-file", &passphrase, "--yes"];
        self.cli(&[&fixed, more].concat())
    }
}

/// Ada may order everything; bob and carol look at it first.
struct Scene<'f> {
    ada: Person<'f>,
    bob: Person<'f>,
    carol: Person<'f>,
    app: String,
}

/// In this fleet destruction takes so many people, each of the three has a key that counts, and an app runs.
fn scene(fleet: &Fleet, count: u32) -> Scene<'_> {
    let person = |name, role| Person::new(fleet, name, role);
    let (ada, bob, carol) = (person("ada", "admin"), person("bob", "viewer"), person("carol", "viewer"));
    let keys = [ada.key(), bob.key(), carol.key()];
    fs::write(fleet.path("root-passphrase"), text_of(&fleet.init, "root_passphrase")).expect("written");
    let (root, count) = (fleet.data("root.key.pem"), count.to_string());
    let mut words = vec!["root", "propose", "--key", root.to_str().expect("UTF-8"), "--passphrase-file"];
    words.extend(["root-passphrase", "--apply", "--yes", "--approvals-destructive", &count]);
    keys.iter().for_each(|key| words.extend(["--add-approver", key]));
    fleet.cli(&words).ok();
    wait_until("the host holds the new root metadata", || {
        let shown = fleet.cli(&["host", "show", "local", "--json"]).json();
        shown["root_version"] == 2 && shown["status"] == "connected"
    });
    let app = fleet.app("shop");
    fleet.deploy(&app, "local", &web(free_port(), &[])).ok();
    Scene { ada, bob, carol, app }
}

/// The operation that waits, once one does.
fn waiting(person: &Person<'_>) -> String {
    wait_for("something waits for approval", || {
        let held = person.cli(&["approval", "list", "--json"]).ok().json();
        held.as_array()?.first().map(|held| text_of(held, "operation_id"))
    })
}

fn is_there(fleet: &Fleet, app: &str) -> bool {
    !fleet.docker.containers(app).is_empty()
}

#[test]
fn destruction_waits_for_two_others_who_see_what_the_host_signed() {
    let fleet = Fleet::start();
    let _host = fleet.host("local");
    let Scene { ada, bob, carol, app } = scene(&fleet, 2);
    let listed = ada.cli(&["approver", "list", "--json"]).ok().json();
    assert!(listed.as_array().expect("a list").iter().all(|key| key["in_force"] == true), "{listed:#}");
    bob.cli(&["approver", "list"]).ok().says("bob");

    ada.cli(&["app", "remove", &app, "--host", "local", "--detach"]).ok();
    let operation = waiting(&bob);
    let removal = ada.start(&["operation", "watch", &operation]);
    wait_until("ada is told what is waited for", || removal.progress().contains("0 of 2 approvals; ask an approver"));
    assert!(is_there(&fleet, &app));

    ada.approve(&operation, &[]).expect(3).says("you asked for this");
    bob.cli(&["approval", "show", &operation])
        .ok()
        .says("app.remove@1 (destructive)")
        .says("asked by")
        .says("would be removed")
        .says("0 of 2 approvals");
    let approved = bob.approve(&operation, &["--json"]).ok().json();
    let shown = bob.cli(&["approval", "show", &operation, "--json"]).ok().json();
    assert_eq!(approved["approved"][0]["plan_sha256"], shown["hosts"][0]["plan_sha256"]);
    assert_eq!(shown["hosts"][0]["approvals"][0]["user"], "bob");
    bob.approve(&operation, &[]).expect(1).says("you have approved all that waits");
    wait_until("ada is told how many are missing", || removal.progress().contains("1 of 2 approvals"));
    assert!(is_there(&fleet, &app));
    carol.approve(&operation, &[]).ok();
    removal.wait().ok().says("removed");
    assert!(!is_there(&fleet, &app));
    carol.approve(&operation, &[]).expect(1).says("waits for approval");
    bob.cli(&["approval", "list"]).ok().says("nothing waits for approval");
    wait_until("the log is signed to its end, approvals and all", || {
        let verdict = fleet.cli(&["audit", "verify", "--json"]).json();
        assert_eq!((&verdict["verified"], &verdict["approvals"]), (&Value::Bool(true), &Value::from(2)), "{verdict:#}");
        verdict["leaves"] == verdict["leaves_signed"]
    });
}

#[test]
fn one_no_ends_it_and_whoever_asked_reads_why() {
    let fleet = Fleet::start();
    let _host = fleet.host("local");
    let Scene { ada, bob, app, .. } = scene(&fleet, 1);
    let removal = ada.start(&["app", "remove", &app, "--host", "local"]);
    let operation = waiting(&bob);
    ada.cli(&["approval", "deny", &operation, "--yes"]).expect(3).says("whoever asks");
    bob.cli(&["approval", "deny", &operation, "--because", "not before the backup", "--yes"]).ok();
    removal.wait().expect(1).says("denied by bob: not before the backup");
    assert!(is_there(&fleet, &app));
    // What only changes needs nobody here, and a dry run never does.
    ada.cli(&["app", "stop", &app]).ok();
    ada.cli(&["action", "run", "app.remove", "--host", "local", "--param", &format!("app={app}"), "--dry-run"]).ok();
}

#[test]
fn what_the_approver_saw_is_what_happens_unless_they_said_that_it_need_not_be() {
    let fleet = Fleet::start();
    let _host = fleet.host("local");
    let Scene { ada, bob, app, .. } = scene(&fleet, 1);
    for unbound in [false, true] {
        ada.cli(&["app", "remove", &app, "--host", "local", "--detach"]).ok();
        let operation = waiting(&bob);
        // The host is another one now: a service more, which nobody was shown.
        let name = if unbound { "cache" } else { "queue" };
        let more = web_service(free_port(), &[], "").replace("  web:", &format!("  {name}:"));
        fleet.deploy(&app, "local", &format!("{}{more}", web(free_port(), &[]))).ok();
        bob.approve(&operation, if unbound { &["--unbound"] } else { &[] }).ok();
        let ended = ada.cli(&["operation", "watch", &operation]);
        if unbound {
            ended.ok().says("removed");
        } else {
            ended.expect(1).says("the plan changed since it was approved");
        }
        assert_eq!(is_there(&fleet, &app), !unbound);
    }
}

#[test]
fn a_change_with_secrets_is_done_as_it_was_planned_and_shows_none_of_them() {
    let fleet = Fleet::start();
    let _host = fleet.host("local");
    let Scene { ada, bob, app, .. } = scene(&fleet, 1);
    let root = fleet.data("root.key.pem");
    let change = ["--passphrase-file", "root-passphrase", "--apply", "--yes", "--approvals-change", "1"];
    fleet.cli(&[&["root", "propose", "--key", root.to_str().expect("UTF-8")][..], &change].concat()).ok();
    let file = fleet.compose(&web(free_port(), &[("PASSWORD", "a-planted-secret")]));
    let before = fleet.docker.containers(&app).len();
    let deploy = ada.start(&["app", "deploy", "-f", &file, "--name", &app, "--host", "local"]);
    let operation = waiting(&bob);
    let shown = bob.cli(&["approval", "show", &operation]).ok().says("app.deploy@").says("(change)").says("PASSWORD");
    let all = bob.cli(&["approval", "show", &operation, "--json"]).ok().all();
    assert!(!shown.all().contains("a-planted-secret") && !all.contains("a-planted-secret"), "{shown:?}");
    assert_eq!(fleet.docker.containers(&app).len(), before);
    bob.approve(&operation, &[]).ok();
    deploy.wait().ok();
    let container = fleet.docker.inspect(&format!("{app}-web-1"));
    assert!(container["Config"]["Env"].to_string().contains("a-planted-secret"), "it runs with it");
}

/// The next report on this stream.
fn report(stream: &mut EvilStream, host: &Host) -> Report {
    let key: VerifyingKey<role::Agent> = identity_of(host).verifying();
    loop {
        if let FromAgent::Report(bytes) = stream.receive().expect("the session stays open") {
            break verify::<Report>(&bytes, &[key]).expect("a signed report").into_value();
        }
    }
}

/// An order that nothing is wrong with but who stands behind it.
fn fresh(old: &Ordered, sequence: u64) -> Ordered {
    let (now, mut command) = (now(), old.clone());
    command.order.command = CommandId::new_v7(now, *keyfile::random::<10>().expect("randomness"));
    command.order.operation = OperationId::new_v7(now, *keyfile::random::<10>().expect("randomness"));
    command.order.dry_run = false;
    command.order.requester = None;
    (command.order.proposed_at, command.order.deliver_by) = (now, now.plus(DurationMs::from_mins(10)));
    (command.sequence, command.nonce) = (Sequence(sequence), Nonce(*keyfile::random::<16>().expect("randomness")));
    (command.issued, command.not_before, command.expires) = (now, now, now.plus(DurationMs::from_mins(5)));
    command
}

fn approval(command: &Ordered) -> Approval {
    let order = &command.order;
    Approval {
        fleet: order.fleet,
        host: order.host,
        host_epoch: command.host_epoch,
        operation: order.operation,
        action: order.action.clone(),
        action_version: order.action_version,
        parameters_sha256: sha256(&order.parameters),
        sealed: order.sealed.clone(),
        plan_sha256: sha256(b"unseen"),
        bind_plan: false,
        approved_at: now(),
        expires: now().plus(DurationMs::from_mins(10)),
    }
}

/// Whoever has every key of the control plane: a destructive order takes a person's signature all the same.
#[test]
fn all_keys_of_the_control_plane_destroy_nothing_without_a_person() {
    let fleet = Fleet::start();
    let mut host = fleet.host("local");
    let Scene { ada, bob, app, .. } = scene(&fleet, 1);
    // One that was planned and never approved is the pattern.
    ada.cli(&["app", "remove", &app, "--host", "local", "--detach"]).ok();
    waiting(&bob);
    let stolen = Stolen::from(&fleet);
    let plan = text_of(&fleet.commands("app.remove")[1], "command_id");
    let order = fleet.command(&plan)["orders"][0].clone();
    let planned = opened(&stolen, &BASE64.decode(text_of(&order, "envelope").as_bytes()).expect("base64")).1;
    assert!(planned.order.dry_run);

    let evil = Evil::start(&stolen.tls);
    fleet.proxy.lead_to(evil.address());
    host.kill_9();
    host.start();
    let mut stream = evil.stream();
    stream.open(&stolen);
    let mut next = planned.sequence.0 + 100;
    let mut ordered = |approvals: &dyn Fn(&Ordered) -> Vec<Vec<u8>>| {
        next += 1;
        let command = fresh(&planned, next);
        let approvals = approvals(&command);
        stream.deliver_approved(&stolen.command.sign(&command).into_envelope(), approvals);
        let report = report(&mut stream, &host);
        (report.status, String::from_utf8_lossy(&report.result).into_owned())
    };
    let bobs = || {
        let file = fleet.path("bob").join(".config/serverflow/approver.key.pem");
        let seed = keyfile::read_seed_encrypted(&file, keyfile::KeyKind::Ed25519, PASSPHRASE).expect("bob's key");
        SigningKey::<role::Approver>::from_seed(&seed)
    };
    let thiefs = SigningKey::<role::Approver>::from_seed(&keyfile::random().expect("randomness"));
    for (what, words, approvals) in [
        ("none", "0 of the 0", &(|_: &Ordered| vec![]) as &dyn Fn(&Ordered) -> Vec<Vec<u8>>),
        ("of a key of the thief's", "does not verify", &|command| {
            vec![thiefs.sign(&approval(command)).into_envelope()]
        }),
        ("of a person, for something else", "another operation", &|command| {
            let other = OperationId::from_bytes([1; 16]);
            vec![bobs().sign(&Approval { operation: other, ..approval(command) }).into_envelope()]
        }),
        ("of a person, for another host", "another host", &|command| {
            let other = ids::HostId::from_bytes([1; 16]);
            vec![bobs().sign(&Approval { host: other, ..approval(command) }).into_envelope()]
        }),
    ] {
        let (status, said) = ordered(approvals);
        assert_eq!(status, ReportStatus::Rejected, "{what}: {said}");
        assert!(said.contains("approvals: ") && said.contains(words), "{what}: {said}");
        assert!(is_there(&fleet, &app), "{what}");
    }
    // The control: with a person's word for this very order it happens.
    let (status, said) = ordered(&|command| vec![bobs().sign(&approval(command)).into_envelope()]);
    assert_eq!(status, ReportStatus::Succeeded, "{said}");
    assert!(!is_there(&fleet, &app));
}
