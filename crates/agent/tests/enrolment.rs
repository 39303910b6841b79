//! Enrolment with the real program: the good way, and every way it is interrupted or deceived.

mod support;

use std::os::unix::fs::PermissionsExt as _;

use support::{
    Machine,
    listener::{Listener, ServerKey},
    plane::{EnrolFault, Plane},
    until,
};

#[tokio::test]
async fn a_machine_becomes_a_host_and_says_so_again() {
    let (plane, machine) = (Plane::start().await, Machine::new());
    let token = plane.fleet.token_text();
    machine.enrol(&token).await.check(0, &["host 'web1'", "policy.toml", "serverflow-agent run"]);

    let enrolment = machine.json("enrolment.json");
    assert_eq!(enrolment["host"], plane.fleet.receipt().host.to_string());
    assert_eq!(enrolment["roles"][0], "app");
    for name in ["identity.key.pem", "sealing.key.pem", "fingerprint.key", "enrolment.json", "journal.db"] {
        let mode = std::fs::metadata(machine.file(name)).expect(name).permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{name}");
    }
    assert_eq!(std::fs::metadata(machine.state()).expect("made").permissions().mode() & 0o777, 0o700);
    assert!(!machine.file("enrolment.pending.json").exists());
    assert!(!machine.holds(plane.fleet.token.secret.as_slice()), "the secret is nowhere on disk");
    assert!(!machine.holds(token.trim().as_bytes()), "nor is the token");

    machine.enrol(&token).await.check(0, &["already", "nothing was changed", "If it was revoked"]);
    machine.run(&["enroll"]).await.check(0, &["already"]);
    let other = Plane::start().await;
    machine.enrol(&other.fleet.token_text()).await.check(1, &["another fleet", "--state-dir"]);
    assert_eq!(plane.fleet.enrolments(), 1);
    assert_eq!(other.fleet.enrolments(), 0);
}

#[tokio::test]
async fn an_owners_policy_is_never_overwritten() {
    let (plane, machine) = (Plane::start().await, Machine::new());
    let policy = machine.token_file("").with_file_name("mine.toml");
    std::fs::write(&policy, "actions = []\n").expect("written");
    let (token, policy_text) = (machine.token_file(&plane.fleet.token_text()), policy.to_str().expect("a path"));
    let arguments = ["enroll", "--token-file", token.to_str().expect("a path"), "--policy", policy_text];
    machine.run(&arguments).await.check(0, &[policy_text]);
    assert_eq!(std::fs::read_to_string(&policy).expect("there"), "actions = []\n");
    assert!(!machine.file("policy.toml").exists());
    // `run` and its kin find it again without being told.
    machine.run(&["policy", "check"]).await.check(0, &[policy_text, "Allowed actions  command.cancel"]);
}

#[tokio::test]
async fn a_lost_receipt_is_asked_for_again_without_the_secret() {
    let (plane, machine) = (Plane::start().await, Machine::new());
    plane.fleet.fail_with(EnrolFault::ReceiptLost);
    machine.enrol(&plane.fleet.token_text()).await.check(4, &["connection was lost", "nothing is lost"]);
    let host = plane.fleet.receipt().host;
    assert!(machine.file("enrolment.pending.json").exists() && !machine.file("enrolment.json").exists());
    assert!(!machine.holds(plane.fleet.token.secret.as_slice()));
    machine.run(&["run"]).await.check(1, &["not enrolled"]);
    machine.run(&["doctor"]).await.check(1, &["begun and not finished", "serverflow-agent enroll"]);

    plane.fleet.fail_with(EnrolFault::None);
    machine.run(&["enroll"]).await.check(0, &["interrupted", "host 'web1'"]);
    assert_eq!(machine.json("enrolment.json")["host"], host.to_string());
    assert_eq!(plane.fleet.enrolments(), 1, "one token, one host");
    assert!(!machine.file("enrolment.pending.json").exists());
}

#[tokio::test]
async fn a_secret_that_never_arrived_is_sent_again_with_the_same_keys() {
    let (plane, machine) = (Plane::start().await, Machine::new());
    plane.fleet.fail_with(EnrolFault::SecretLost);
    machine.enrol(&plane.fleet.token_text()).await.check(4, &["nothing is lost"]);
    let key = std::fs::read(machine.file("identity.key.pem")).expect("made");
    plane.fleet.fail_with(EnrolFault::None);
    // Without the token there is no receipt to be had, and it says what is missing.
    machine.run(&["enroll"]).await.check(1, &["not valid", "serverflow host enroll"]);
    machine.enrol(&plane.fleet.token_text()).await.check(0, &["host 'web1'"]);
    assert_eq!(std::fs::read(machine.file("identity.key.pem")).expect("kept"), key);
}

#[tokio::test]
async fn a_kill_between_secret_and_receipt_loses_nothing() {
    let (plane, machine) = (Plane::start().await, Machine::new());
    plane.fleet.fail_with(EnrolFault::Silence);
    let token = machine.token_file(&plane.fleet.token_text());
    let mut first = machine.start(&["enroll", "--token-file", token.to_str().expect("a path")]);
    until("the token is redeemed", || (plane.fleet.enrolments() == 1).then_some(())).await;
    assert!(machine.file("enrolment.pending.json").exists(), "it was durable before the secret was sent");
    first.kill().await.expect("killed");
    plane.fleet.fail_with(EnrolFault::None);
    machine.enrol(&plane.fleet.token_text()).await.check(0, &["host 'web1'"]);
    assert_eq!(plane.fleet.enrolments(), 1);
    assert_eq!(machine.json("enrolment.json")["host"], plane.fleet.receipt().host.to_string());
}

#[tokio::test]
async fn someone_in_between_never_sees_the_secret() {
    let (plane, machine) = (Plane::start().await, Machine::new());
    let (heard, mut streams) = tokio::sync::mpsc::unbounded_channel();
    let between = Listener::start(ServerKey::signed_by_an_authority(), move |_| {
        heard.send(()).expect("the test listens");
        async {}
    })
    .await;
    let mut token = plane.fleet.token.clone();
    token.address = between.address.to_string();
    let text = token.to_text().expect("a token");
    machine.enrol(&text).await.check(1, &["not pinned", &between.pin.to_string(), "Ask an administrator"]);
    assert!(streams.try_recv().is_err(), "not a word was said to it");
    assert!(!machine.file("enrolment.pending.json").exists());
    // The control: the same token at the honest address.
    machine.enrol(&plane.fleet.token_text()).await.check(0, &["host 'web1'"]);
}

#[tokio::test]
async fn what_is_wrong_with_a_token_is_said() {
    let (plane, machine) = (Plane::start().await, Machine::new());
    let text = plane.fleet.token_text();
    machine.enrol("something").await.check(2, &["not a join token", "serverflow host enroll"]);
    machine.enrol(&text[..text.len() - 9]).await.check(2, &["damaged or incomplete"]);
    machine.run(&["enroll", "--token-file", "/nonexistent"]).await.check(2, &["/nonexistent"]);
    machine.run(&["enroll"]).await.check(2, &["--token-file"]);
    assert!(!machine.state().exists(), "nothing is left of a wrong token");

    let mut unknown = plane.fleet.token.clone();
    unknown.token = ids::TokenId::from_bytes([9; 16]);
    let unknown = unknown.to_text().expect("a token");
    machine.enrol(&unknown).await.check(1, &["refused", "not valid", "serverflow host enroll NAME"]);

    let mut wrong_root = plane.fleet.token.clone();
    wrong_root.root_sha256 = ids::Sha256([9; 32]);
    let wrong_root = wrong_root.to_text().expect("a token");
    machine.enrol(&wrong_root).await.check(1, &["root metadata", "token and address belong together"]);

    let mut nobody = plane.fleet.token.clone();
    nobody.address = "127.0.0.1:1".to_owned();
    let nobody = nobody.to_text().expect("a token");
    machine.enrol(&nobody).await.check(4, &["cannot reach the control plane at 127.0.0.1:1", "nothing listens"]);
    assert_eq!(plane.fleet.enrolments(), 0);
    machine.enrol(&text).await.check(0, &["host 'web1'"]);
}
