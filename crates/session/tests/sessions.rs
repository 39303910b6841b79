//! Handshakes, time, root metadata, restarts and quarantine.

mod support;

use envelope::{
    keys::{SigningKey, role},
    messages::*,
};
use ids::*;
use session::{
    agent::io::*,
    control::{Answer, Handshake, Identity},
    frames::{AgentFrame, ControlFrame, RefusalCode, Stage},
};
use support::World;

#[track_caller]
fn not_authentic(why: Option<CloseReason>, words: &str) {
    match why {
        Some(CloseReason::NotAuthentic { why, .. }) => assert!(why.contains(words), "{why}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_untouched_handshake_opens_the_session() {
    let mut world = World::new();
    assert_eq!(world.tampered(|frame| frame), None);
    assert!(world.plane.is_fit());
    assert!(world.host.events.contains(&AgentEvent::SessionOpen { skew_ms: 0 }));
}

/// Replaces the control hello by another, signed with the true session key: a stolen one.
#[track_caller]
fn forged_hello(words: &str, change: impl Fn(&mut ControlHello)) {
    let mut world = World::new();
    let key = SigningKey::<role::Session>::from_seed(&world.keys.session.seed());
    let why = world.tampered(|frame| match frame {
        ControlFrame::Hello(bytes) => {
            let mut hello =
                envelope::verify::<ControlHello>(&bytes, &[key.verifying()]).expect("it verifies").into_value();
            change(&mut hello);
            ControlFrame::Hello(key.sign(&hello).into_envelope())
        }
        frame => frame,
    });
    not_authentic(why, words);
}

#[test]
fn a_hello_that_is_not_about_this_connection_is_refused() {
    forged_hello("did not offer", |hello| hello.protocol = 3);
    forged_hello("another fleet", |hello| hello.fleet = FleetId::from_bytes([9; 16]));
    forged_hello("another host", |hello| hello.host = HostId::from_bytes([9; 16]));
    forged_hello("nonce", |hello| hello.agent_nonce = Challenge([9; 32]));
    forged_hello("TLS connection", |hello| hello.exporter = TlsExporter([9; 32]));
    forged_hello("another hello", |hello| hello.agent_hello_sha256 = Sha256([9; 32]));
    forged_hello("withheld", |hello| hello.root_version = RootVersion(2));
}

/// Replaces the session-open by another, signed with the true command key.
#[track_caller]
fn forged_open(words: &str, change: impl Fn(&mut SessionOpen)) {
    let mut world = World::new();
    let key = SigningKey::<role::Command>::from_seed(&world.keys.command.seed());
    let why = world.tampered(|frame| match frame {
        ControlFrame::Open(bytes) => {
            let mut open =
                envelope::verify::<SessionOpen>(&bytes, &[key.verifying()]).expect("it verifies").into_value();
            change(&mut open);
            ControlFrame::Open(key.sign(&open).into_envelope())
        }
        frame => frame,
    });
    not_authentic(why, words);
}

#[test]
fn a_session_open_that_is_not_about_this_session_is_refused() {
    forged_open("another fleet", |open| open.fleet = FleetId::from_bytes([9; 16]));
    forged_open("another host", |open| open.host = HostId::from_bytes([9; 16]));
    forged_open("epoch is void", |open| open.epoch = Epoch(2));
    forged_open("TLS connection", |open| open.exporter = TlsExporter([9; 32]));
    forged_open("another proof", |open| open.proof_sha256 = Sha256([9; 32]));
}

#[test]
fn a_session_key_cannot_open_a_session() {
    let mut world = World::new();
    let session_key = SigningKey::<role::Command>::from_seed(&world.keys.session.seed());
    let command_key = world.keys.command.verifying();
    let why = world.tampered(|frame| match frame {
        ControlFrame::Open(bytes) => {
            let open = envelope::verify::<SessionOpen>(&bytes, &[command_key]).expect("it verifies").into_value();
            ControlFrame::Open(session_key.sign(&open).into_envelope())
        }
        frame => frame,
    });
    not_authentic(why, "not a valid command key");
}

#[test]
fn every_flipped_byte_of_the_handshake_is_noticed() {
    for target in ["hello", "session-open"] {
        let mut length = 1;
        let mut at = 0;
        while at < length {
            let mut world = World::new();
            let why = world.tampered(|frame| match frame {
                ControlFrame::Hello(mut bytes) if target == "hello" => {
                    length = bytes.len();
                    bytes[at] ^= 1 << (at % 8);
                    ControlFrame::Hello(bytes)
                }
                ControlFrame::Open(mut bytes) if target == "session-open" => {
                    length = bytes.len();
                    bytes[at] ^= 1 << (at % 8);
                    ControlFrame::Open(bytes)
                }
                frame => frame,
            });
            assert!(matches!(why, Some(CloseReason::NotAuthentic { .. })), "{target} byte {at}: {why:?}");
            at += 3;
        }
        assert!(length > 100);
    }
}

#[test]
fn someone_in_between_has_another_exporter_and_gets_nowhere() {
    let mut world = World::new();
    // The agent's connection ends at the one in between, who relays every frame on another connection.
    world.dial();
    world.plane.connected(TlsExporter([0xcc; 32]));
    world.settle();
    not_authentic(world.host.closed.pop().map(|(_, why)| why), "TLS connection");
    assert!(world.plane.standing.is_none());
}

#[test]
fn the_control_plane_refuses_a_proof_of_another_connection_and_another_key() {
    // Reflection and relaying: a proof made for one connection is handed in on another.
    let mut world = World::new();
    world.dial();
    world.step_plane();
    while world.step_host() {
        world.sync();
    }
    let proof = world.to_plane.iter().find(|frame| matches!(frame, AgentFrame::Proof(_))).expect("a proof").clone();
    world.dial();
    world.step_plane();
    world.to_plane = vec![proof.clone()];
    world.step_plane();
    assert_eq!(world.plane.error.as_ref().map(|error| error.refusal()), Some(RefusalCode::NotAuthentic));
    // An agent with another key says it is this host.
    let mut world = World::new();
    world.plane.identity_key = SigningKey::<role::Agent>::from_seed(&[0x66; 32]).public();
    world.connect();
    assert_eq!(world.plane.error.as_ref().map(|error| error.refusal()), Some(RefusalCode::NotAuthentic));
    assert!(matches!(
        world.host.closed.last(),
        Some((true, CloseReason::Refused { reason: RefusalCode::NotAuthentic, .. }))
    ));
}

#[test]
fn frames_out_of_place_end_the_connection_at_both_ends() {
    let frames = [
        ControlFrame::Open(Vec::new()),
        ControlFrame::Deliver { command: Vec::new(), sealed: Vec::new(), approvals: Vec::new() },
        ControlFrame::ReportAcknowledged { sequence: ReportSequence(1), sha256: Sha256::ZERO },
        ControlFrame::AuditHead(Vec::new()),
        ControlFrame::EnrolHello(Vec::new()),
        ControlFrame::EnrolReceipt(Vec::new()),
    ];
    for frame in frames {
        let mut world = World::new();
        world.dial();
        world.host_input(Input::Received(frame.clone()));
        assert!(matches!(world.host.closed.last(), Some((true, CloseReason::Unexpected { .. }))), "{}", frame.name());
    }
    let frames = [
        AgentFrame::RootChain(Vec::new()),
        AgentFrame::Proof(Vec::new()),
        AgentFrame::Actions(Vec::new()),
        AgentFrame::Report(Vec::new()),
        AgentFrame::ReceiptRequest(Vec::new()),
        AgentFrame::Hello(vec![1, 2, 3]),
    ];
    for frame in frames {
        let mut world = World::new();
        world.dial();
        world.to_plane = vec![frame.clone()];
        world.step_plane();
        assert_eq!(
            world.plane.error.as_ref().map(|error| error.refusal()),
            Some(RefusalCode::NotAuthentic),
            "{}",
            frame.name()
        );
    }
}

#[test]
fn authentication_takes_five_seconds_at_most() {
    let mut world = World::new();
    world.dial();
    world.advance(DurationMs(4_999));
    world.host_input(Input::Tick);
    assert!(world.host.closed.is_empty());
    world.advance(DurationMs(1));
    world.host_input(Input::Tick);
    assert!(matches!(world.host.closed.last(), Some((true, CloseReason::AuthenticationTimeout { seconds: 5 }))));
}

#[test]
fn a_session_is_renewed_within_the_hour() {
    let mut world = World::new();
    world.connect();
    world.advance(session::limits::RENEW_AFTER);
    world.host_input(Input::Tick);
    assert!(matches!(world.host.closed.last(), Some((true, CloseReason::Renewal))));
}

#[test]
fn a_jump_of_the_wall_clock_ends_the_session_before_anything_is_accepted() {
    for (milliseconds, closes) in [(30_000, false), (30_001, true)] {
        let mut world = World::new();
        world.connect();
        let id = world.command("host.facts", "");
        world.host.now.wall = world.host.now.wall.plus(DurationMs(milliseconds));
        world.settle();
        assert_eq!(world.host.closed.iter().any(|(_, why)| matches!(why, CloseReason::ClockJump { .. })), closes);
        assert_eq!(world.host.starts.contains_key(&id), !closes);
    }
}

#[test]
fn time_comes_from_the_session_not_from_the_wall() {
    let mut world = World::new();
    world.host.now.wall = UnixMs(support::START.0 - 3 * 86_400_000_000);
    let id = {
        let order = world.plane.order("host.facts", "", 1, support::START);
        // The control plane's clock is right: the session tells it.
        world.plane.time_offset = support::START.since(world.host.now.wall);
        world.connect();
        let envelope = world.plane.seal(&world.keys.command, &order, support::START);
        world.deliver(envelope);
        order.command
    };
    assert!(world.host.running.contains_key(&id));
}

#[test]
fn each_disagreement_in_a_session_open_quarantines() {
    let changes: [fn(&mut SessionOpen); 4] = [
        |open| open.host_epoch = HostEpoch(2),
        |open| open.acknowledged = Sequence(2),
        |open| open.last_report.sequence = ReportSequence(2),
        |open| open.last_report.sha256 = Sha256([9; 32]),
    ];
    for (at, change) in changes.into_iter().enumerate() {
        let mut world = World::new();
        world.connect();
        let id = world.command("host.facts", "");
        world.settle();
        world.finish(id);
        let key = SigningKey::<role::Command>::from_seed(&world.keys.command.seed());
        let why = world.tampered(|frame| match frame {
            ControlFrame::Open(bytes) => {
                let mut open =
                    envelope::verify::<SessionOpen>(&bytes, &[key.verifying()]).expect("verifies").into_value();
                change(&mut open);
                ControlFrame::Open(key.sign(&open).into_envelope())
            }
            frame => frame,
        });
        assert!(matches!(why, Some(CloseReason::Quarantined { .. })), "change {at}: {why:?}");
    }
}

#[test]
fn an_acknowledgement_of_another_report_ends_the_session_and_drops_nothing() {
    let mut world = World::new();
    world.plane.silent = true;
    world.connect();
    let id = world.command("host.facts", "");
    world.settle();
    world.finish(id);
    for (sequence, sha256) in [(1, Sha256([9; 32])), (7, Sha256::ZERO)] {
        let closed = world.host.closed.len();
        world.to_host.push(ControlFrame::ReportAcknowledged { sequence: ReportSequence(sequence), sha256 });
        world.settle();
        assert_eq!(world.host.closed.len(), closed + 1);
        assert_eq!(world.host.disk.outbox.len(), 1);
        world.connect();
    }
}

/// An acknowledgement that skips a report shows that it never arrived: it is sent again, not dropped.
#[test]
fn an_acknowledgement_that_skips_a_report_drops_nothing_and_brings_all_again() {
    let mut world = World::new();
    world.plane.silent = true;
    world.connect();
    for _ in 0..2 {
        let id = world.command("host.facts", "");
        world.settle();
        world.finish(id);
        world.settle();
    }
    let report = |world: &World, index: usize| world.host.disk.outbox[index].clone();
    let second = report(&world, 1);
    let acknowledged =
        |report: &StoredReport| ControlFrame::ReportAcknowledged { sequence: report.sequence, sha256: report.sha256 };
    world.to_host.push(acknowledged(&second));
    world.settle();
    assert_eq!(world.host.closed.len(), 1, "the session ends");
    assert_eq!(world.host.disk.outbox.len(), 2);
    // The control: in their order they go.
    world.connect();
    let first = report(&world, 0);
    world.to_host.push(acknowledged(&first));
    world.to_host.push(acknowledged(&second));
    world.settle();
    assert_eq!(world.host.disk.outbox.len(), 0);
}

#[test]
fn a_known_command_is_answered_with_its_report_while_that_is_kept() {
    let mut world = World::new();
    world.plane.silent = true;
    world.connect();
    let order = world.order("host.facts", "");
    let envelope = world.plane.seal(&world.keys.command, &order, world.host.now.wall);
    world.deliver(envelope.clone());
    world.finish(order.command);
    assert_eq!(world.plane.received[&1], 1);
    world.deliver(envelope.clone());
    assert_eq!(world.plane.received[&1], 2);
    assert_eq!(world.plane.stages[&order.command], Stage::Done);
    world.plane.silent = false;
    world.connect();
    assert!(world.host.disk.outbox.is_empty());
    world.deliver(envelope);
    assert_eq!(world.plane.received[&1], 3, "once at the session's start, and not again");
}

#[test]
fn a_revoked_host_stays_away_and_others_come_back() {
    for (reason, retry) in
        [(RefusalCode::HostRefused, false), (RefusalCode::Unavailable, true), (RefusalCode::Superseded, true)]
    {
        let mut world = World::new();
        world.connect();
        world.to_host.push(ControlFrame::Refused { reason, message: "no".to_owned() });
        world.settle();
        assert!(matches!(world.host.closed.last(), Some((found, CloseReason::Refused { .. })) if *found == retry));
    }
}

/// Replaces the proof by another, signed with the true identity key.
#[track_caller]
fn forged_proof(words: &str, change: impl Fn(&mut SessionProof)) {
    let mut world = World::new();
    world.dial();
    world.step_plane();
    while world.step_host() {
        world.sync();
    }
    let key = SigningKey::<role::Agent>::from_seed(&support::AGENT_SEED);
    for frame in &mut world.to_plane {
        if let AgentFrame::Proof(bytes) = frame {
            let mut proof =
                envelope::verify::<SessionProof>(bytes, &[key.verifying()]).expect("it verifies").into_value();
            change(&mut proof);
            *bytes = key.sign(&proof).into_envelope();
        }
    }
    world.settle();
    let error = world.plane.error.as_ref().expect("it is refused");
    assert_eq!(error.refusal(), RefusalCode::NotAuthentic);
    assert!(error.to_string().contains(words), "{error}");
}

#[test]
fn a_proof_that_is_not_about_this_connection_is_refused() {
    forged_proof("another fleet", |proof| proof.fleet = FleetId::from_bytes([9; 16]));
    forged_proof("another host", |proof| proof.host = HostId::from_bytes([9; 16]));
    forged_proof("TLS connection", |proof| proof.exporter = TlsExporter([9; 32]));
    forged_proof("this nonce", |proof| proof.control_nonce = Challenge([9; 32]));
    forged_proof("another hello", |proof| proof.hello_sha256 = Sha256([9; 32]));
}

/// Whoever reads either log must find which side to upgrade.
#[test]
fn without_a_common_protocol_both_sides_are_told_which_of_them_is_behind() {
    let refused = |protocols: Vec<u32>, least: u32| {
        let mut world = World::with_root(|root| root.protocol_min = least);
        world.dial();
        let Some(AgentFrame::Hello(bytes)) = world.to_plane.first() else { panic!("no hello") };
        let mut hello = AgentHello::decode(bytes).expect("it decodes");
        hello.protocols = protocols;
        let mut handshake = Handshake::new(support::FLEET, TlsExporter([1; 32]));
        handshake.receive(AgentFrame::Hello(hello.encode())).expect("a hello");
        let error = handshake
            .answer(&Answer {
                identity: Identity::OnRecord(SigningKey::<role::Agent>::from_seed(&support::AGENT_SEED).public()),
                root: &world.plane.root,
                session_key: &world.keys.session,
                nonce: Challenge([9; 32]),
                time: support::START,
            })
            .expect_err("nothing in common");
        let ControlFrame::Refused { reason, message } = error.frame() else { panic!("not refused") };
        assert_eq!(reason, RefusalCode::ProtocolVersion);
        world.host_input(Input::Received(ControlFrame::Refused { reason, message: message.clone() }));
        let (retry, why) = world.host.closed.last().expect("the agent's session ends");
        assert!(retry, "either side may be upgraded at any time");
        assert!(why.to_string().contains(&message), "{why}");
        format!("{error}; {message}")
    };
    for (offered, least, advice) in [
        (vec![3, 4], 1, "upgrade the control plane"),
        (vec![1], 2, "upgrade the agent with the lines of `serverflow host upgrade NAME`"),
        (vec![1, 3], 2, "upgrade both to one release"),
    ] {
        let said = refused(offered, least);
        assert_eq!(said.matches(advice).count(), 2, "in the control plane's log and in the agent's: {said}");
    }
}
