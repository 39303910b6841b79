//! The running agent against a control plane of the real machines: orders, replays, refusals, cuts,
//! kills, a lost journal.

mod support;

use envelope::messages::{Report, ReportStatus};
use rustix::process::{Pid, Signal, kill_process};
use session::frames::{ControlFrame, Stage};
use support::{
    Machine,
    plane::{Heard, Plane},
    until, within,
};
use tokio::process::Child;

async fn enrolled() -> (Plane, Machine) {
    let (plane, machine) = (Plane::start().await, Machine::new());
    machine.enrol(&plane.fleet.token_text()).await.check(0, &[]);
    (plane, machine)
}

fn deliver(command: &[u8]) -> ControlFrame {
    ControlFrame::Deliver { command: command.to_vec(), sealed: Vec::new(), approvals: Vec::new() }
}

fn message(report: &Report) -> String {
    let result: serde_json::Value = serde_json::from_slice(&report.result).expect("JSON");
    result["message"].as_str().expect("a message").to_owned()
}

async fn connected(machine: &Machine) {
    let state =
        || machine.file("status.json").exists().then(|| machine.json("status.json")["connection"]["state"].clone());
    until("the agent is connected", || state().filter(|state| state == "connected").map(drop)).await;
}

fn signal(agent: &Child, signal: Signal) {
    let pid = Pid::from_raw(agent.id().expect("it runs").cast_signed()).expect("a process");
    kill_process(pid, signal).expect("signalled");
}

#[tokio::test]
async fn an_order_runs_once_and_is_reported_whatever_is_said_again() {
    let (mut plane, machine) = enrolled().await;
    let _agent = machine.start(&["run"]);
    let (command, bytes) = plane.fleet.order("host.facts", "{}");
    plane.fleet.say(deliver(&bytes));
    let report = plane.report().await;
    assert_eq!((report.command, report.status), (command, ReportStatus::Succeeded));
    assert_eq!(report.output_sha256, ids::sha256(b""), "it said nothing");

    // Said again: its stored status is the answer, and nothing runs.
    plane.fleet.say(deliver(&bytes));
    loop {
        match plane.hear().await {
            Heard::Accepted(again, Stage::Done) => break assert_eq!(again, command),
            Heard::Accepted(..) => {}
            other => panic!("expected the stored status, got {other:?}"),
        }
    }
    // One flipped byte ends the session and runs nothing; the next session goes on.
    let (_, mut forged) = plane.fleet.order("host.facts", "{}");
    let last = forged.len() - 1;
    forged[last] ^= 1;
    plane.fleet.say(deliver(&forged));
    let hello = plane.hello().await;
    assert_eq!((hello.high.0, hello.last_report.sequence.0), (1, 1));
    let (command, bytes) = plane.fleet.order("host.facts", "{}");
    plane.fleet.say(deliver(&bytes));
    assert_eq!(plane.report().await.command, command);
}

#[tokio::test]
async fn the_owners_policy_has_the_last_word_and_names_its_line() {
    let (mut plane, machine) = enrolled().await;
    let _agent = machine.start(&["run"]);
    let policy = machine.file("policy.toml");
    std::fs::write(&policy, "actions = [\"docker.containers\"]\n").expect("written");
    let (command, bytes) = plane.fleet.order("host.facts", "{}");
    plane.fleet.say(deliver(&bytes));
    let report = plane.report().await;
    assert_eq!((report.command, report.status), (command, ReportStatus::Rejected));
    let text = message(&report);
    assert!(text.contains("actions = [\"host.facts\"]") && text.contains(policy.to_str().expect("a path")), "{text}");

    // The same order never runs, even when the owner changes their mind; a new one does.
    std::fs::write(&policy, "actions = [\"host.facts\"]\n").expect("written");
    plane.fleet.say(deliver(&bytes));
    let (second, bytes) = plane.fleet.order("host.facts", "{}");
    plane.fleet.say(deliver(&bytes));
    let report = plane.report().await;
    assert_eq!((report.command, report.status), (second, ReportStatus::Succeeded));

    std::fs::remove_file(&policy).expect("removed");
    let (_, bytes) = plane.fleet.order("host.facts", "{}");
    plane.fleet.say(deliver(&bytes));
    let report = plane.report().await;
    assert_eq!(report.status, ReportStatus::Rejected);
    assert!(message(&report).contains("does not exist"), "{}", message(&report));
    assert!(machine.log().contains("every order is refused"), "{}", machine.log());
    machine.run(&["doctor"]).await.check(1, &["FAIL  policy"]);
}

#[tokio::test]
async fn an_action_without_its_engine_fails_in_words() {
    let (mut plane, machine) = enrolled().await;
    let _agent = machine.start(&["run"]);
    let (command, bytes) = plane.fleet.order("docker.containers", "{}");
    plane.fleet.say(deliver(&bytes));
    let report = plane.report().await;
    assert_eq!((report.command, report.status), (command, ReportStatus::Failed));
    assert!(message(&report).contains("/nonexistent/docker.sock"), "{}", message(&report));
}

#[tokio::test]
async fn a_cut_network_is_dialled_again_and_a_kill_loses_nothing() {
    let (mut plane, machine) = enrolled().await;
    let mut agent = machine.start(&["run"]);
    let (_, bytes) = plane.fleet.order("host.facts", "{}");
    plane.fleet.say(deliver(&bytes));
    plane.report().await;
    plane.listener.cut();
    let hello = plane.hello().await;
    assert_eq!((hello.high.0, hello.last_report.sequence.0, hello.quarantine), (1, 1, None));
    connected(&machine).await;

    agent.kill().await.expect("killed");
    machine.run(&["status"]).await.check(1, &["not running"]);
    let _agent = machine.start(&["run"]);
    let hello = plane.hello().await;
    assert_eq!((hello.high.0, hello.last_report.sequence.0, hello.quarantine), (1, 1, None));
    let (command, bytes) = plane.fleet.order("host.facts", "{}");
    plane.fleet.say(deliver(&bytes));
    assert_eq!(plane.report().await.command, command);
}

#[tokio::test]
async fn it_ends_in_order_and_tells_how_it_stands() {
    let (mut plane, machine) = enrolled().await;
    machine.run(&["status"]).await.check(1, &["never ran"]);
    let mut agent = machine.start(&["run"]);
    plane.hello().await;
    connected(&machine).await;
    let ended = machine.run(&["status"]).await.check(0, &["connected to 127.0.0.1", "Host 'web1'"]);
    assert!(ended.err.is_empty(), "{ended:?}");
    let status: serde_json::Value =
        serde_json::from_str(&machine.run(&["status", "--json"]).await.check(0, &[]).out).expect("JSON");
    assert_eq!((&status["running"], &status["enrolled"]["name"]), (&true.into(), &"web1".into()));
    machine.run(&["run"]).await.check(1, &["another serverflow-agent"]);

    let doctor = machine.run(&["doctor"]).await.check(1, &["FAIL  docker", "ok    address", "ok    clock"]);
    assert!(doctor.out.contains("1 to mend"), "{doctor:?}");
    let doctor = machine.run(&["doctor", "--json"]).await.check(1, &[]);
    let doctor: serde_json::Value = serde_json::from_str(&doctor.out).expect("JSON");
    assert_eq!(doctor["verdict"], "fail");

    signal(&agent, Signal::TERM);
    let ended = within("the agent's end", agent.wait()).await.expect("it ended");
    assert!(ended.success(), "{ended:?} {}", machine.log());
    machine.run(&["status"]).await.check(1, &["ended in order"]);
    assert!(matches!(plane.hear().await, Heard::Ended));
}

#[tokio::test]
async fn without_its_control_plane_it_waits_and_says_so() {
    let (plane, machine) = enrolled().await;
    drop(plane);
    let mut agent = machine.start(&["run"]);
    let waiting = || {
        let status = machine.file("status.json").exists().then(|| machine.json("status.json"))?;
        (status["connection"]["state"] == "disconnected").then_some(())
    };
    until("it says that it is not connected", waiting).await;
    machine.run(&["status"]).await.check(4, &["not connected", "cannot reach the control plane"]);
    signal(&agent, Signal::INT);
    assert!(within("the agent's end", agent.wait()).await.expect("it ended").success());
}

#[tokio::test]
async fn a_lost_journal_means_quarantine() {
    let (mut plane, machine) = enrolled().await;
    let mut agent = machine.start(&["run"]);
    let (_, bytes) = plane.fleet.order("host.facts", "{}");
    plane.fleet.say(deliver(&bytes));
    plane.report().await;
    agent.kill().await.expect("killed");
    for name in ["journal.db", "journal.db-wal", "journal.db-shm"] {
        let _ = std::fs::remove_file(machine.file(name));
    }
    let _agent = machine.start(&["run"]);
    let hello = plane.hello().await;
    assert!(hello.quarantine.is_some());
    let (_, bytes) = plane.fleet.order("host.facts", "{}");
    plane.fleet.say(deliver(&bytes));
    let quarantined = || (!machine.json("status.json")["quarantine"].is_null()).then_some(());
    until("status tells of it", quarantined).await;
    machine.run(&["status"]).await.check(1, &["Quarantine", "serverflow host quarantine list"]);
    machine.run(&["doctor"]).await.check(1, &["in quarantine"]);
    until("the order was refused", || machine.log().contains("this host is in quarantine").then_some(())).await;
}
