//! Attackers of hosts, against the real programs: old copies of an agent's state, a machine that was cloned, somebody with
//! a host's keys of yesterday or of today. Each beside a control that succeeds.

use std::fs;

use data_encoding::BASE64;
use e2e::{
    crash::{Hold, holding_at},
    evil::{Evil, Stolen, opened},
    fleet::{Environment, Fleet, Host, text_of},
    orders::{captured, fresh, report, template},
    program::signal,
    stranger::{Stranger, identity_in, identity_of, now, payload_sha256, plain_hello},
    wait::wait_until,
};
use envelope::{
    SigningKey,
    audit::AuditKind,
    keys::role,
    messages::{AgentHello, Command, Report, ReportPosition, ReportStatus},
};
use ids::{BootId, DurationMs, HostEpoch, HostId, ReportSequence, Sha256, sha256};
use serde_json::Value;
use wire::v1::{agent_frame::Frame as FromAgent, control_frame::Frame as FromControl};

const FACTS: [&str; 5] = ["action", "run", "host.facts", "--host", "local"];

fn journal_files(host: &Host) -> Vec<String> {
    let files = fs::read_dir(host.state("")).expect("the state directory").filter_map(Result::ok);
    let names = files.filter_map(|file| file.file_name().into_string().ok());
    names.filter(|name| name.starts_with("journal.db")).collect()
}

/// What the agent remembers now.
fn copied(host: &Host) -> Vec<(String, Vec<u8>)> {
    let read = |name: String| (name.clone(), fs::read(host.state(&name)).expect("a file of the journal"));
    journal_files(host).into_iter().map(read).collect()
}

/// It remembers that again, and nothing else.
fn put_back(host: &Host, copy: Vec<(String, Vec<u8>)>) {
    for name in journal_files(host) {
        fs::remove_file(host.state(&name)).expect("removed");
    }
    for (name, bytes) in copy {
        fs::write(host.state(&name), bytes).expect("put back");
    }
}

fn shown(fleet: &Fleet) -> Value {
    fleet.cli(&["host", "show", "local", "--json"]).ok().json()
}

/// Waits until the host's agent has said which quarantine it is in.
fn wait_named(fleet: &Fleet) {
    wait_until("the agent has said which quarantine it is in", || {
        shown(fleet)["quarantine"]["agents"].as_array().is_some_and(|agents| !agents.is_empty())
    });
}

fn release(fleet: &Fleet) {
    wait_named(fleet);
    fleet.cli(&["host", "quarantine", "release", "local", "--yes"]).ok();
    fleet.wait_host("local", "connected");
}

fn entries(fleet: &Fleet, kind: AuditKind) -> Vec<Value> {
    let listed = fleet.cli(&["audit", "list", "--kind", kind.as_str(), "--json"]).ok().json();
    listed.as_array().expect("a list").clone()
}

fn host_id(host: &Host) -> HostId {
    host.id().parse().expect("a host id")
}

/// An order that has ended: what its host got, and where its report stands in the chain.
fn ended(fleet: &Fleet, stolen: &Stolen, action: &str) -> (Command, Sha256, ReportPosition) {
    let id = text_of(&fleet.commands(action)[0], "command_id");
    let envelope = BASE64.decode(text_of(&fleet.command(&id)["report"], "envelope").as_bytes()).expect("base64");
    let sequence = fleet.command(&id)["report"]["sequence"].as_u64().expect("a number");
    let order = captured(fleet, action);
    let position = ReportPosition { sequence: ReportSequence(sequence), sha256: payload_sha256(&envelope) };
    (opened(stolen, &order).1, payload_sha256(&order), position)
}

/// Taken while an order was at work, and put back when it had long ended.
#[test]
fn a_copy_of_the_state_from_mid_command_starts_nothing_and_is_led_out() {
    let fleet = Fleet::start();
    let mut host = fleet.host("local");
    host.with_crash_points();
    let hold = Hold::new(fleet.path("hold"));
    host.restart_with(holding_at("after journal Start #1", &hold));
    fleet.wait_host("local", "connected");
    let running = fleet.cli_start(&FACTS);
    wait_until("it has started, durably", || hold.is_reached());
    let copy = copied(&host);
    hold.go();
    running.wait().ok();
    host.kill_9();
    put_back(&host, copy);
    host.restart_with(Environment::new());
    fleet.wait_host("local", "quarantined");
    fleet.cli(&FACTS).expect(1).says("quarantined");
    assert_eq!(host.said_times("command started"), 1, "it ran once, and not from the copy");
    release(&fleet);
    assert_eq!(host.said_times("command started"), 1, "nor once it is led out");
    assert_eq!(fleet.commands("host.facts")[0]["status"], "succeeded", "what was reported stands");

    // The control: the same moment, and the state of that very moment. It is carried out.
    let hold = Hold::new(fleet.path("hold-again"));
    host.restart_with(holding_at("after journal Start #1", &hold));
    fleet.wait_host("local", "connected");
    let running = fleet.cli_start(&FACTS);
    wait_until("it has started, durably", || hold.is_reached());
    host.restart_with(Environment::new());
    running.wait().ok();
    assert_eq!(host.said_times("command started"), 2);
}

/// Captured from the audit log, which shows it to whoever may read, and played with every online key of the fleet.
#[test]
fn an_old_guard_reset_played_again_leads_no_host_out() {
    let fleet = Fleet::start();
    let (stolen, mut host) = (Stolen::from(&fleet), fleet.host("local"));
    let goes_back = |host: &mut Host| {
        host.agent().terminate();
        let copy = copied(host);
        host.start();
        wait_until("it takes orders", || fleet.cli(&FACTS).code == 0);
        host.kill_9();
        put_back(host, copy);
        host.start();
        fleet.wait_host("local", "quarantined");
        wait_named(&fleet);
    };
    goes_back(&mut host);
    release(&fleet);
    let export = fleet.path("audit.json");
    fleet.cli(&["audit", "export", export.to_str().expect("UTF-8")]).ok();
    let export: Value = serde_json::from_slice(&fs::read(&export).expect("an export")).expect("JSON");
    let is_reset = |entry: &&Value| entry["kind"] == AuditKind::GuardReset.number();
    let reset = export["entries"].as_array().expect("entries").iter().find(is_reset).expect("it is in the log");
    let old = BASE64.decode(text_of(reset, "record").as_bytes()).expect("base64");

    let evil = Evil::start(&stolen.tls);
    let play = |host: &mut Host, why: &str| {
        let said = host.said_times(why);
        fleet.proxy.lead_to(evil.address());
        host.kill_9();
        host.start();
        let mut stream = evil.stream();
        stream.open(&stolen);
        stream.send(FromControl::GuardReset(old.clone()));
        let rest = stream.rest();
        assert!(!rest.iter().any(|frame| matches!(frame, FromAgent::KeyRotation(_))), "{why}: no new keys for it");
        host.wait_says_again(why, said);
        fleet.proxy.lead_to(fleet.agent_listen());
        host.kill_9();
        host.start();
    };
    play(&mut host, "this host is not quarantined");
    fleet.wait_host("local", "connected");
    goes_back(&mut host);
    play(&mut host, "it ends another quarantine than the one this host is in");
    fleet.wait_host("local", "quarantined");
    fleet.cli(&FACTS).expect(1).says("quarantined");

    // The control: one that is made for this quarantine.
    release(&fleet);
    wait_until("it takes orders", || fleet.cli(&FACTS).code == 0);
    assert_eq!(entries(&fleet, AuditKind::GuardReset).len(), 2);
}

/// Everything on the host's disk, on another machine: it has another boot id, and takes turns with the first.
#[test]
fn a_cloned_machine_gets_no_order_and_stops_those_of_the_first() {
    let fleet = Fleet::start();
    let (stolen, mut host) = (Stolen::from(&fleet), fleet.host("local"));
    fleet.cli(&FACTS).ok();
    let stolen_key = identity_of(&host);
    let twin = |boot: Option<BootId>| {
        let (order, _, last_report) = ended(&fleet, &stolen, "host.facts");
        let hello = plain_hello(&stolen, host_id(&host), order.sequence.0, last_report);
        let hello = AgentHello { boot: boot.unwrap_or(hello.boot), ..hello };
        let mut stranger = Stranger::session(fleet.agent_listen());
        let exporter = stranger.exporter;
        let open = stranger.introduce(&stolen, &hello, &stolen_key, exporter);
        let got = stranger.rest();
        assert!(!got.iter().any(|frame| matches!(frame, FromControl::Deliver(_))), "{got:?}");
        open
    };
    // The control: the agent's next process, as far as anybody can tell.
    let open = twin(None).expect("a session");
    assert_eq!(open.host_epoch, HostEpoch(1));
    wait_until("the first goes on", || fleet.cli(&FACTS).code == 0);

    let clone = BootId::from_bytes([9; 16]);
    twin(Some(clone)).expect("nobody has seen this boot before");
    fleet.wait_host("local", "quarantined");
    fleet.cli(&FACTS).expect(1).says("quarantined");
    host.wait_says_again("this host is quarantined", 0);

    // The one that is led out goes on alone: the other has a key that is nobody's.
    release(&fleet);
    wait_until("it takes orders", || fleet.cli(&FACTS).code == 0);
    let open = twin(Some(clone)).expect("a word that it is too late");
    assert_ne!(open.host_epoch, HostEpoch(1), "it is told that its keys are old");
    host.agent().terminate();
}

/// A report on this order, behind another: its place in the chain, and its bytes.
fn signed(
    key: &SigningKey<role::Agent>,
    command: &Command,
    command_sha256: Sha256,
    (host_epoch, after, status): (HostEpoch, ReportPosition, ReportStatus),
) -> (ReportPosition, Vec<u8>) {
    let sequence = ReportSequence(after.sequence.0 + 1);
    let report = key.sign(&Report {
        fleet: command.order.fleet,
        host: command.order.host,
        host_epoch,
        command: command.order.command,
        command_sha256,
        command_sequence: command.sequence,
        sequence,
        previous: after.sha256,
        audit_head: None,
        status,
        finished_at: now(),
        result: b"{\"message\":\"forged\",\"result\":null}".to_vec(),
        output_sha256: sha256(b""),
        output_truncated: false,
    });
    (ReportPosition { sequence, sha256: report.payload_sha256() }, report.into_envelope())
}

/// A host's keys were changed, and somebody has both the old and the new ones.
#[test]
fn reports_that_are_forged_dropped_or_reordered_across_a_rotation_are_found() {
    let fleet = Fleet::start();
    let (stolen, mut host) = (Stolen::from(&fleet), fleet.host("local"));
    fleet.cli(&FACTS).ok();
    let old = identity_of(&host);
    fleet.cli(&["key", "rotate", "agent", "local"]).ok();
    fleet.wait_host("local", "connected");
    let new = identity_in(&host, "identity.2.key.pem");
    host.kill_9();
    fleet.wait_host("local", "offline");
    let (facts, order, _) = ended(&fleet, &stolen, "host.facts");
    let (rotation, _, last) = ended(&fleet, &stolen, "host.keys.rotate");

    let sign = |key: &SigningKey<role::Agent>, host_epoch, after, status| {
        signed(key, &facts, order, (HostEpoch(host_epoch), after, status))
    };
    // Says it in a session of the host's own; whether it was acknowledged.
    let says = |last: ReportPosition, report: &[u8]| {
        let hello = plain_hello(&stolen, facts.order.host, rotation.sequence.0, last);
        let hello = AgentHello { host_epoch: HostEpoch(2), protocols: vec![1, 2], ..hello };
        let mut stranger = Stranger::session(fleet.agent_listen());
        let exporter = stranger.exporter;
        stranger.introduce(&stolen, &hello, &new, exporter).expect("a session");
        stranger.send(FromAgent::Report(report.to_vec()));
        loop {
            match stranger.receive().expect("an answer") {
                FromControl::ReportAcknowledged(_) => break true,
                FromControl::Refused(_) => break false,
                _ => {}
            }
        }
    };
    let sequence = || shown(&fleet)["last_report_sequence"].as_u64();
    let alarms = || entries(&fleet, AuditKind::Alarm).len();

    // Forged: by the key that was retired, in its own epoch and in the new one.
    for epoch in [1, 2] {
        let before = alarms();
        let (_, forged) = sign(&old, epoch, last, ReportStatus::Failed);
        assert!(!says(last, &forged), "epoch {epoch}");
        assert_eq!((alarms(), sequence()), (before + 1, Some(last.sequence.0)), "epoch {epoch}");
    }
    // The control: the same, by the key in force.
    let (first, genuine) = sign(&new, 2, last, ReportStatus::Failed);
    assert!(says(last, &genuine));
    assert_eq!(sequence(), Some(first.sequence.0));
    assert_eq!(fleet.commands("host.facts")[0]["status"], "succeeded", "an end that was reported stays");

    // Dropped: it is missed. Then it comes after all, behind the one that follows it.
    let (second, kept_back) = sign(&new, 2, first, ReportStatus::Failed);
    let (third, next) = sign(&new, 2, second, ReportStatus::Failed);
    assert!(says(third, &next));
    assert_eq!((sequence(), entries(&fleet, AuditKind::ReportGap).len()), (Some(third.sequence.0), 1));
    assert!(says(third, &kept_back));
    assert_eq!(sequence(), Some(third.sequence.0), "the chain does not go back");

    // Another one in a place that is taken.
    let (_, fork) = sign(&new, 2, second, ReportStatus::Unknown);
    assert!(!says(third, &fork));
    fleet.wait_host("local", "quarantined");
    assert_eq!(entries(&fleet, AuditKind::Fork).len(), 1);
}

/// A machine that sleeps does not notice, but its clocks go on. (A process that is stopped sees the very same.)
#[test]
fn an_order_that_slept_through_its_time_on_a_suspended_host_never_runs() {
    let fleet = Fleet::start();
    let (stolen, mut host) = (Stolen::from(&fleet), fleet.host("local"));
    let template = template(&fleet, &stolen, "local");
    let evil = Evil::start(&stolen.tls);
    fleet.proxy.lead_to(evil.address());
    host.kill_9();
    host.start();
    let mut stream = evil.stream();
    let opened = host.said_times("session open");
    stream.open(&stolen);
    host.wait_says_again("session open", opened);
    let started = host.said_times("command started");
    let pid = host.agent().pid();

    let mut order = fresh(&template, template.sequence.0 + 1);
    order.expires = order.issued.plus(DurationMs::from_secs(3));
    signal(pid, "STOP");
    stream.deliver(&stolen.command.sign(&order).into_envelope());
    wait_until("its time is over", || now() > order.expires.plus(DurationMs::from_secs(1)));
    signal(pid, "CONT");
    let refused = report(&mut stream, &host);
    assert_eq!((refused.command, refused.status), (order.order.command, ReportStatus::Expired));
    assert_eq!(host.said_times("command started"), started);

    // The control: it slept, and woke in time.
    let order = fresh(&template, template.sequence.0 + 2);
    signal(pid, "STOP");
    stream.deliver(&stolen.command.sign(&order).into_envelope());
    signal(pid, "CONT");
    let done = report(&mut stream, &host);
    assert_eq!((done.command, done.status), (order.order.command, ReportStatus::Succeeded));
}
