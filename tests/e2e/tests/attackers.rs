//! Attackers, each beside a control that succeeds: what differs between the two is what keeps the attacker out.
//!
//! Most of them hold more than they should be able to get: keys from the control plane's disk. What they still
//! cannot do with them is the point.

use std::fs;

use e2e::{
    evil::{Evil, Stolen, opened, own_tls_key},
    fleet::{Fleet, Host, free_port, text_of},
    orders::{captured, fresh, report, template},
    sample::web,
    stranger::now,
    wait::wait_until,
};
use envelope::{
    SigningKey,
    keys::role,
    messages::{AuditHead, ControlHello, LogPosition, ReportPosition, ReportStatus},
};
use ids::{Challenge, DurationMs, Epoch, RootVersion, Sequence, Sha256, TlsExporter};
use wire::v1::{self, agent_frame::Frame as FromAgent};

fn restart(host: &mut Host) {
    host.kill_9();
    host.start();
}

fn says_nothing_of_a_command(said: &[FromAgent]) -> bool {
    !said.iter().any(|frame| matches!(frame, FromAgent::Accepted(_) | FromAgent::Report(_)))
}

#[test]
fn a_captured_order_does_not_run_again_whoever_plays_it_and_when() {
    let fleet = Fleet::start();
    let (stolen, mut host) = (Stolen::from(&fleet), fleet.host("local"));
    let (app, docker, port) = (fleet.app("shop"), fleet.docker.clone(), free_port());
    fleet.deploy(&app, "local", &web(port, &[])).ok();
    let deploy = captured(&fleet, "app.deploy");
    fleet.cli(&["app", "remove", &app]).ok();
    let mut other = fleet.host_enrolled("other");

    let evil = Evil::start(&stolen.tls);
    fleet.proxy.lead_to(evil.address());
    for after in ["at once", "after a restart", "after kill -9"] {
        match after {
            "after a restart" => {
                host.agent().terminate();
                host.start();
            }
            _ => restart(&mut host),
        }
        let started = host.said_times("command started");
        let mut stream = evil.stream();
        stream.open(&stolen);
        stream.deliver(&deploy);
        // It answers with what it remembers, and only that.
        let known = loop {
            match stream.receive().expect("the session stays open") {
                FromAgent::Accepted(accepted) => break accepted,
                _ => continue,
            }
        };
        assert_eq!(known.stage(), v1::Stage::Done, "{after}");
        assert_eq!(host.said_times("command started"), started, "{after}: nothing starts");
        assert!(docker.containers(&app).is_empty(), "{after}");

        // The control: whoever has the command key can order something new.
        let next = opened(&stolen, &deploy).1.sequence.0 + 100;
        if after == "after kill -9" {
            let template = opened(&stolen, &deploy).1;
            let order = stolen.command.sign(&fresh(&template, next)).into_envelope();
            stream.deliver(&order);
            assert_eq!(report(&mut stream, &host).status, ReportStatus::Succeeded);
            assert_eq!(docker.containers(&app).len(), 1);
        }
    }
    host.kill_9();

    // Another host of the same fleet: the very bytes, in a session that is its own.
    other.start();
    let mut stream = evil.stream();
    stream.open(&stolen);
    stream.deliver(&deploy);
    assert!(says_nothing_of_a_command(&stream.rest()));
    other.agent().wait_said("it is for another host");
}

#[test]
fn not_one_byte_of_an_order_can_be_changed_and_nothing_else_passes_for_one() {
    let fleet = Fleet::start();
    let (stolen, mut host) = (Stolen::from(&fleet), fleet.host("local"));
    let template = template(&fleet, &stolen, "local");
    let good = stolen.command.sign(&fresh(&template, template.sequence.0 + 1)).into_envelope();

    let mut attacks: Vec<(String, Vec<u8>)> = Vec::new();
    let (length, step) = (good.len(), good.len() / 11);
    for at in (0..length).step_by(step).chain([length - 1, length - 40, length - 70]) {
        let mut bytes = good.clone();
        bytes[at] ^= 1 << (at % 8);
        attacks.push((format!("a bit flipped in byte {at} of {length}"), bytes));
    }
    attacks.push(("cut short".to_owned(), good[..length - 1].to_vec()));
    attacks.push(("with a byte too many".to_owned(), [&good[..], &[0]].concat()));
    attacks.push(("twice in a row".to_owned(), [&good[..], &good[..]].concat()));
    let mut foreign = fresh(&template, template.sequence.0 + 1);
    foreign.order.fleet = "00000000-0000-7000-8000-000000000001".parse().expect("an id");
    attacks.push(("for another fleet".to_owned(), stolen.command.sign(&foreign).into_envelope()));
    let mut old = fresh(&template, template.sequence.0 + 1);
    old.epoch = Epoch(2);
    attacks.push(("of another epoch".to_owned(), stolen.command.sign(&old).into_envelope()));
    let own: SigningKey<role::Command> = SigningKey::from_seed(&[9; 32]);
    attacks.push(("under another key".to_owned(), own.sign(&fresh(&template, 99)).into_envelope()));
    attacks.extend(other_payloads(&stolen));

    let evil = Evil::start(&stolen.tls);
    fleet.proxy.lead_to(evil.address());
    let started = host.said_times("command started");
    for (attack, bytes) in attacks {
        restart(&mut host);
        let mut stream = evil.stream();
        stream.open(&stolen);
        stream.deliver(&bytes);
        assert!(says_nothing_of_a_command(&stream.rest()), "{attack}: the session ends");
        assert_eq!(host.said_times("command started"), started, "{attack}");
    }

    // The control: the bytes as they were signed.
    restart(&mut host);
    let mut stream = evil.stream();
    stream.open(&stolen);
    stream.deliver(&good);
    assert_eq!(report(&mut stream, &host).status, ReportStatus::Succeeded);
}

/// Authentic messages of other kinds, in place of an order.
fn other_payloads(stolen: &Stolen) -> Vec<(String, Vec<u8>)> {
    let host = "00000000-0000-7000-8000-000000000001".parse().expect("an id");
    let hello = ControlHello {
        protocol: 1,
        fleet: stolen.fleet,
        host,
        agent_nonce: Challenge([1; 32]),
        control_nonce: Challenge([2; 32]),
        exporter: TlsExporter([3; 32]),
        agent_hello_sha256: Sha256([4; 32]),
        time: now(),
        root_version: RootVersion(1),
    };
    let open = envelope::messages::SessionOpen {
        fleet: stolen.fleet,
        host,
        host_epoch: ids::HostEpoch(1),
        epoch: Epoch(1),
        exporter: TlsExporter([3; 32]),
        proof_sha256: Sha256([5; 32]),
        time: now(),
        acknowledged: Sequence(0),
        last_report: ReportPosition::START,
    };
    let audit: SigningKey<role::Audit> = SigningKey::from_seed(&[8; 32]);
    let log = "00000000-0000-7000-8000-000000000002".parse().expect("an id");
    let position = LogPosition { log, size: 1, root: Sha256([6; 32]) };
    let head = AuditHead { fleet: stolen.fleet, position, time: now() };
    vec![
        ("a hello in place of an order".to_owned(), stolen.session.sign(&hello).into_envelope()),
        ("a session-open in place of an order".to_owned(), stolen.command.sign(&open).into_envelope()),
        ("an audit head in place of an order".to_owned(), audit.sign(&head).into_envelope()),
    ]
}

#[test]
fn somebody_in_between_gets_no_session_with_any_certificate_or_even_the_tls_key() {
    let fleet = Fleet::start();
    let (stolen, mut host) = (Stolen::from(&fleet), fleet.host("local"));

    // A certificate that any authority would be happy with, under a key that is not pinned.
    let evil = Evil::start(&own_tls_key());
    fleet.proxy.lead_to(evil.address());
    restart(&mut host);
    host.wait_says_again("not pinned", 0);
    assert!(!evil.has_stream(), "nothing was said to it");

    // The stolen TLS key, and every frame carried on: both ends sign what their own connection is bound to.
    let evil = Evil::start(&stolen.tls);
    fleet.proxy.lead_to(evil.address());
    restart(&mut host);
    evil.stream().relay(fleet.agent_listen());
    host.wait_says_again("bound to another TLS connection", 0);
    fleet.wait_host("local", "offline");

    // The session key as well: a hello that verifies, and no orders without the command key.
    let own: SigningKey<role::Command> = SigningKey::from_seed(&[9; 32]);
    restart(&mut host);
    let mut stream = evil.stream();
    stream.open_at(&stolen, &own, now());
    assert!(says_nothing_of_a_command(&stream.rest()));
    host.wait_says_again("session-open", 0);
    assert_eq!(host.said_times("session open"), 1, "only the true one, at the beginning");

    // Controls: with the command key it opens; and so does the true one again.
    restart(&mut host);
    evil.stream().open(&stolen);
    host.wait_says_again("session open", 1);
    fleet.proxy.lead_to(fleet.agent_listen());
    restart(&mut host);
    fleet.wait_host("local", "connected");
}

/// Truncated or forked log, and the audit key stolen: with every online key in one hand, a past that the host has not
/// seen is shown to it. It takes neither that nor an order.
#[test]
fn truncated_or_forked_log_and_audit_key_stolen() {
    let fleet = Fleet::start();
    let (stolen, mut host) = (Stolen::from(&fleet), fleet.host("local"));
    let template = template(&fleet, &stolen, "local");
    let high = template.sequence.0;
    let evil = Evil::start(&stolen.tls);
    fleet.proxy.lead_to(evil.address());
    let started = host.said_times("command started");
    let order = |sequence| stolen.command.sign(&fresh(&template, sequence)).into_envelope();
    type Forge = fn(LogPosition) -> Option<(LogPosition, u64)>;
    let attacks: [(&str, Forge); 5] = [
        ("no head at all", |_| None),
        ("cut", |held| Some((LogPosition { size: held.size - 1, root: Sha256([1; 32]), ..held }, held.size - 1))),
        ("another root", |held| Some((LogPosition { root: Sha256([1; 32]), ..held }, held.size))),
        ("longer and another", |held| {
            Some((LogPosition { size: held.size + 5, root: Sha256([1; 32]), ..held }, held.size))
        }),
        ("proved from nothing", |held| Some((LogPosition { size: held.size + 5, ..held }, 0))),
    ];
    for (number, (attack, forge)) in attacks.into_iter().enumerate() {
        restart(&mut host);
        let mut stream = evil.stream();
        let hello = stream.open_at(&stolen, &stolen.command, now());
        let held = hello.audit_head.expect("the host has seen the log");
        if let Some((forged, from)) = forge(held) {
            stream.show(&stolen, forged, from, &[Sha256([2; 32])]);
        }
        stream.deliver(&order(high + 1 + number as u64));
        assert!(says_nothing_of_a_command(&stream.rest()), "{attack}: the session ends");
        assert_eq!(host.said_times("command started"), started, "{attack}");
        host.wait_says_again("does not continue what this host has seen", number);
    }

    // The control: the same, without the attacker's change to the log.
    restart(&mut host);
    let mut stream = evil.stream();
    stream.open(&stolen);
    stream.deliver(&order(high + 10));
    assert_eq!(report(&mut stream, &host).status, ReportStatus::Succeeded);
}

#[test]
fn an_order_out_of_its_time_or_its_place_in_the_sequence_never_runs() {
    let fleet = Fleet::start();
    let (stolen, mut host) = (Stolen::from(&fleet), fleet.host("local"));
    let template = template(&fleet, &stolen, "local");
    let high = template.sequence.0;
    let evil = Evil::start(&stolen.tls);
    fleet.proxy.lead_to(evil.address());
    restart(&mut host);
    let mut stream = evil.stream();
    stream.open(&stolen);
    let started = host.said_times("command started");

    let hour = DurationMs::from_mins(60);
    let mut stale = fresh(&template, high + 1);
    stale.order.proposed_at = now().minus(hour);
    stale.order.deliver_by = now().minus(DurationMs::from_mins(30));
    let mut expired = fresh(&template, high + 2);
    expired.issued = now().minus(hour);
    expired.not_before = now().minus(hour);
    expired.expires = now().minus(DurationMs::from_mins(56));
    let mut early = fresh(&template, high + 3);
    early.not_before = now().plus(DurationMs::from_mins(10));
    early.expires = now().plus(DurationMs::from_mins(14));
    let far = fresh(&template, high + (1 << 33));
    let last = fresh(&template, u64::MAX);
    let repeated = fresh(&template, high);
    for (attack, order, status) in [
        ("past its deliver_by", stale, ReportStatus::Expired),
        ("expired", expired, ReportStatus::Expired),
        ("not valid yet", early, ReportStatus::Rejected),
        ("too far ahead", far, ReportStatus::Rejected),
        ("the last number there is", last, ReportStatus::Rejected),
        ("a sequence that was used", repeated, ReportStatus::Unknown),
    ] {
        let bytes = stolen.command.sign(&order).into_envelope();
        stream.deliver(&bytes);
        let refused = report(&mut stream, &host);
        assert_eq!((refused.command, refused.status), (order.order.command, status), "{attack}");
    }
    assert_eq!(host.said_times("command started"), started);

    // The control: in its time and place. What was refused has not used up the numbers below its own, on disk either.
    restart(&mut host);
    let mut stream = evil.stream();
    stream.open(&stolen);
    let good = fresh(&template, high + 10);
    stream.deliver(&stolen.command.sign(&good).into_envelope());
    let ran = std::iter::from_fn(|| Some(report(&mut stream, &host))).find(|ran| ran.command == good.order.command);
    assert_eq!(ran.map(|ran| ran.status), Some(ReportStatus::Succeeded));
}

#[test]
fn a_refused_order_stays_refused_when_it_is_sent_again() {
    let fleet = Fleet::start();
    let (stolen, mut host) = (Stolen::from(&fleet), fleet.host("local"));
    let template = template(&fleet, &stolen, "local");
    let high = template.sequence.0;
    let policy = host.state("policy.toml");
    let allows = fs::read_to_string(&policy).expect("a policy");
    fs::write(&policy, "actions = [\"app.*\"]\n").expect("a policy");
    let evil = Evil::start(&stolen.tls);
    fleet.proxy.lead_to(evil.address());
    restart(&mut host);
    let mut stream = evil.stream();
    stream.open(&stolen);
    let order = stolen.command.sign(&fresh(&template, high + 1)).into_envelope();
    stream.deliver(&order);
    let refused = report(&mut stream, &host);
    assert_eq!(refused.status, ReportStatus::Rejected);
    assert!(String::from_utf8_lossy(&refused.result).contains("host.facts"), "{refused:?}");

    // The owner changes their mind; the old order is not meant by that.
    fs::write(&policy, &allows).expect("a policy");
    let started = host.said_times("command started");
    stream.deliver(&order);
    assert_eq!(report(&mut stream, &host), refused, "the stored report, again");
    restart(&mut host);
    let mut stream = evil.stream();
    stream.open(&stolen);
    stream.deliver(&order);
    let answer = std::iter::from_fn(|| stream.receive()).find(|said| !matches!(said, FromAgent::Clock(_)));
    assert!(matches!(answer, Some(FromAgent::Accepted(_) | FromAgent::Report(_))), "{answer:?}");
    assert_eq!(host.said_times("command started"), started);

    // The control: the same, ordered anew.
    stream.deliver(&stolen.command.sign(&fresh(&template, high + 2)).into_envelope());
    let new = loop {
        let next = report(&mut stream, &host);
        if next.command != refused.command {
            break next;
        }
    };
    assert_eq!(new.status, ReportStatus::Succeeded);
}

#[test]
fn words_lost_around_a_delivery_neither_lose_nor_double_it() {
    let fleet = Fleet::start();
    let mut host = fleet.host("local");
    let facts = || fleet.cli_start(&["action", "run", "host.facts", "--host", "local", "--json"]);
    facts().wait().ok();

    // The order arrives, and every answer is lost: the control plane asks, and does not send it anew.
    let (known, started) = (fleet.commands("host.facts"), host.said_times("command started"));
    fleet.proxy.lose_up();
    let running = facts();
    host.wait_says_again("command ended", started);
    fleet.proxy.cut();
    fleet.proxy.mend();
    assert_eq!(running.wait().ok().json()["commands"][0]["status"], "succeeded");
    let id = fleet.wait_command("host.facts", &known);
    assert_eq!(fleet.command(&id)["orders"].as_array().map(Vec::len), Some(1), "signed once");
    assert_eq!(host.said_times("command started"), started + 1, "ran once");

    // The order itself is lost: it is signed anew, and runs once.
    let (known, started) = (fleet.commands("host.facts"), host.said_times("command started"));
    fleet.proxy.lose_down();
    let running = facts();
    let id = fleet.wait_command("host.facts", &known);
    wait_until("the order was signed and sent", || fleet.command(&id)["status"] == "delivered");
    fleet.proxy.cut();
    fleet.proxy.mend();
    assert_eq!(running.wait().ok().json()["commands"][0]["status"], "succeeded");
    let orders = fleet.command(&id)["orders"].as_array().cloned().expect("orders");
    assert_eq!(orders.len(), 2, "{orders:#?}");
    assert!(orders[0]["sequence"].as_u64() < orders[1]["sequence"].as_u64());
    assert_eq!(host.said_times("command started"), started + 1, "ran once");
    host.agent().terminate();
}

#[test]
fn volumes_are_no_way_to_the_hosts_own_files_even_with_the_command_key() {
    let fleet = Fleet::start();
    let (stolen, mut host) = (Stolen::from(&fleet), fleet.host("local"));
    let (app, docker, port) = (fleet.app("shop"), fleet.docker.clone(), free_port());
    let mounted = web(port, &[]).replace("    ports:", "    volumes: [\"root:/host\"]\n    ports:");
    let volume = "volumes:\n  root:\n    driver_opts: {type: none, o: bind, device: /}\n";
    let ran = fleet.deploy(&app, "local", &format!("{mounted}{volume}")).expect(1).json();
    let refused = ran["commands"].as_array().and_then(|all| all.last()).expect("a command");
    assert_eq!(refused["status"], "rejected", "{ran:#}");
    assert!(text_of(refused, "message").contains("driver_opts"), "{ran:#}");
    assert!(docker.things("volume", &app).is_empty());

    // The control: the same volume without options.
    fleet.deploy(&app, "local", &format!("{mounted}volumes:\n  root: {{}}\n")).ok();
    let genuine = opened(&stolen, &captured(&fleet, "app.deploy")).1;

    // Past the control plane, in an order that is signed: the host has the last word.
    let mut order = fresh(&genuine, genuine.sequence.0 + 50);
    let mut parameters: serde_json::Value = serde_json::from_slice(&order.order.parameters).expect("JSON");
    parameters["spec"]["app"] = fleet.app("evil").into();
    parameters["spec"]["volumes"]["root"]["driver_opts"] =
        serde_json::json!({"type": "none", "o": "bind", "device": "/"});
    order.order.parameters = parameters.to_string().into_bytes();
    let evil = Evil::start(&stolen.tls);
    fleet.proxy.lead_to(evil.address());
    restart(&mut host);
    let mut stream = evil.stream();
    stream.open(&stolen);
    stream.deliver(&stolen.command.sign(&order).into_envelope());
    let refused = report(&mut stream, &host);
    assert_eq!(refused.status, ReportStatus::Rejected);
    assert!(String::from_utf8_lossy(&refused.result).contains("driver_opts"), "{refused:?}");
    assert!(docker.containers(&fleet.app("evil")).is_empty());
    assert!(docker.things("volume", &fleet.app("evil")).is_empty());
}
