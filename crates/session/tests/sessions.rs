//! Handshakes, time, root metadata, restarts and quarantine.

mod support;

use envelope::{
    keys::{SigningKey, role},
    messages::*,
};
use ids::*;
use session::{
    agent::io::*,
    control::Standing,
    frames::{AgentFrame, ControlFrame, RefusalCode, Stage},
};
use support::{Host, World};

/// Goes through a handshake in which every frame to the agent is changed by `tamper`; says how it ended.
fn tampered(world: &mut World, mut tamper: impl FnMut(ControlFrame) -> ControlFrame) -> Option<CloseReason> {
    let closed = world.host.closed.len();
    world.dial();
    while world.step_plane() || !world.to_host.is_empty() {
        for frame in std::mem::take(&mut world.to_host) {
            let frame = tamper(frame);
            world.host_input(Input::Received(frame));
            world.sync();
        }
    }
    world.host.closed.get(closed).map(|(_, why)| why.clone())
}

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
    assert_eq!(tampered(&mut world, |frame| frame), None);
    assert!(world.plane.is_fit());
    assert!(world.host.events.contains(&AgentEvent::SessionOpen { skew_ms: 0 }));
}

/// Replaces the control hello by another, signed with the true session key: a stolen one.
#[track_caller]
fn forged_hello(words: &str, change: impl Fn(&mut ControlHello)) {
    let mut world = World::new();
    let key = SigningKey::<role::Session>::from_seed(&world.keys.session.seed());
    let why = tampered(&mut world, |frame| match frame {
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
    forged_hello("did not offer", |hello| hello.protocol = 2);
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
    let why = tampered(&mut world, |frame| match frame {
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
    let why = tampered(&mut world, |frame| match frame {
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
            let why = tampered(&mut world, |frame| match frame {
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
        ControlFrame::Deliver { command: Vec::new(), sealed: Vec::new() },
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
fn newer_root_metadata_is_stored_before_it_is_used() {
    let mut world = World::new();
    let next = world.keys.next(&world.plane.root, |root| root.command_keys.push(world.keys.command_next.public()));
    world.plane.root.advance(&next).expect("it follows");
    world.dial();
    world.step_plane();
    world.step_host();
    world.step_host();
    assert!(world.to_plane.is_empty(), "the hello waits for the disk");
    assert_eq!(world.host.disk.root_chain.len(), 1);
    world.sync();
    assert_eq!(world.host.disk.root_chain.len(), 2);
    assert!(world.host.events.contains(&AgentEvent::RootAdvanced { version: RootVersion(2) }));
    world.settle();
    assert!(world.plane.is_fit());
    world.crash(0);
    world.connect();
    assert!(world.plane.is_fit());
}

#[test]
fn a_forged_root_is_refused_and_nothing_is_stored() {
    let mut world = World::new();
    let thief = SigningKey::<role::Root>::from_seed(&[0x77; 32]);
    let mut metadata = world.plane.root.current().clone();
    metadata.version = RootVersion(2);
    metadata.root_keys = vec![thief.public()];
    let forged = envelope::root::sign_root(&[&thief], &metadata);
    let why = tampered(&mut world, |frame| match frame {
        ControlFrame::RootChain(_) => ControlFrame::RootChain(vec![forged.clone()]),
        frame => frame,
    });
    assert!(matches!(why, Some(CloseReason::NotAuthentic { what: "root metadata", .. })));
    assert_eq!(world.host.disk.root_chain.len(), 1);
}

#[test]
fn a_control_plane_that_is_behind_takes_the_chain_from_the_agent() {
    for drops_session_key in [false, true] {
        let mut world = World::new();
        let old = world.plane.root.clone();
        let successor = SigningKey::<role::Session>::from_seed(&[0x22; 32]);
        let next = world.keys.next(&old, |root| {
            if drops_session_key {
                root.session_keys = vec![successor.public()];
            }
        });
        world.plane.root.advance(&next).expect("it follows");
        if drops_session_key {
            world.keys.session = SigningKey::from_seed(&[0x22; 32]);
        }
        world.connect();
        // Restored from an old copy: both metadata and key.
        world.plane.root = old;
        world.keys.session = SigningKey::from_seed(&[2; 32]);
        world.connect();
        assert_eq!(world.plane.root.version(), RootVersion(2), "drops {drops_session_key}");
        assert_eq!(world.plane.is_fit(), !drops_session_key);
        if drops_session_key {
            world.keys.session = SigningKey::from_seed(&[0x22; 32]);
            world.connect();
            assert!(world.plane.is_fit());
        }
    }
}

#[test]
fn dropping_a_key_stops_what_it_had_ordered_and_is_still_waiting() {
    let mut world = World::new();
    world.connect();
    let running = world.command("app.deploy", "shop");
    let waiting = world.command("app.deploy", "shop");
    world.settle();
    let next = world.keys.next(&world.plane.root, |root| {
        root.command_keys = vec![world.keys.command_next.public()];
        root.epoch = Epoch(2);
    });
    world.plane.root.advance(&next).expect("it follows");
    world.keys.command = SigningKey::from_seed(&[33; 32]);
    world.connect();
    assert!(world.plane.is_fit());
    assert_eq!(world.status(waiting), Some(ReportStatus::Revoked));
    assert!(!world.host.starts.contains_key(&waiting));
    world.finish(running);
    assert_eq!(world.status(running), Some(ReportStatus::Succeeded));
}

#[test]
fn root_metadata_in_a_session_that_takes_its_key_away_ends_it() {
    let mut world = World::new();
    world.connect();
    let keep = world.keys.next(&world.plane.root, |_| {});
    world.plane.root.advance(&keep).expect("it follows");
    world.to_host.push(ControlFrame::RootChain(vec![keep]));
    world.settle();
    assert!(world.host.closed.is_empty());
    let drop = world.keys.next(&world.plane.root, |root| root.command_keys = vec![world.keys.command_next.public()]);
    world.to_host.push(ControlFrame::RootChain(vec![drop]));
    // Held back until the metadata is durable, and gone with the session then.
    let id = world.command("host.facts", "");
    world.settle();
    assert!(matches!(world.host.closed.last(), Some((true, CloseReason::Renewal))));
    assert!(!world.host.starts.contains_key(&id));
}

/// Crashes after the start of `action` is durable; says how the command stands after the next session.
fn restarted(action: &str, change: impl FnOnce(&mut World)) -> (World, CommandId) {
    let mut world = World::new();
    world.connect();
    let id = world.command(action, "shop");
    world.settle();
    assert_eq!(world.host.starts[&id], (1, 1));
    change(&mut world);
    world.crash(0);
    (world, id)
}

#[test]
fn after_a_restart_each_action_goes_on_as_it_declares() {
    let (world, id) = restarted("app.deploy", |_| {});
    assert_eq!(world.host.starts[&id], (2, 1), "resumed at once");
    assert!(!world.host.running[&id]);

    let (mut world, id) = restarted("app.restart", |_| {});
    assert_eq!(world.host.starts[&id], (1, 1), "run again only after a session");
    world.connect();
    assert_eq!(world.host.starts[&id], (2, 1));
    world.finish(id);
    assert_eq!(world.status(id), Some(ReportStatus::Succeeded));

    let (mut world, id) = restarted("job.run", |_| {});
    world.connect();
    assert_eq!(world.host.starts[&id], (1, 1));
    assert_eq!(world.status(id), Some(ReportStatus::Unknown));
}

#[test]
fn what_may_not_go_on_is_only_put_back() {
    let (world, id) = restarted("app.deploy", |world| world.host.registry.forbidden = true);
    assert!(world.host.running[&id], "backwards only");

    let (mut world, id) = restarted("app.restart", |world| world.host.registry.forbidden = true);
    world.connect();
    assert_eq!(world.status(id), Some(ReportStatus::Unknown), "it may have done something");

    let (mut world, id) = restarted("app.deploy", |world| {
        let next = world.keys.next(&world.plane.root, |root| root.epoch = Epoch(2));
        world.host.disk.root_chain.push(next.clone());
        world.plane.root.advance(&next).expect("it follows");
    });
    assert!(world.host.running[&id], "its epoch is void: backwards only");
    world.connect();
    world.finish(id);
    assert_eq!(world.status(id), Some(ReportStatus::Succeeded));
}

#[test]
fn what_was_accepted_waits_for_a_session_after_a_restart() {
    let mut world = World::new();
    world.connect();
    let id = world.command("host.facts", "");
    world.step_host();
    world.host.sync_one();
    world.crash(0);
    world.host_input(Input::Tick);
    assert!(world.host.starts.is_empty());
    world.connect();
    assert_eq!(world.host.starts[&id], (1, 1));
}

#[test]
fn a_journal_that_does_not_verify_stops_the_agent() {
    let mut world = World::new();
    world.connect();
    world.command("app.deploy", "shop");
    world.settle();
    let load = |disk: JournalState, pin: Sha256| {
        let identity = support::host::identity(world.host.boot, pin);
        session::agent::AgentLoop::new(identity, disk, false, world.host.now, &world.host.registry).map(|_| ()).is_ok()
    };
    let pin = world.plane.root.payload_sha256();
    assert!(load(world.host.disk.clone(), pin));
    assert!(!load(world.host.disk.clone(), Sha256([1; 32])), "another pin");
    let mut disk = world.host.disk.clone();
    *disk.open[0].command.last_mut().expect("bytes") ^= 1;
    assert!(!load(disk, pin), "a changed command");
    let mut disk = world.host.disk.clone();
    disk.open[0].id = CommandId::from_bytes([1; 16]);
    assert!(!load(disk, pin), "a command under another id");
    let mut disk = world.host.disk.clone();
    disk.ring.push(disk.ring[0].clone());
    assert!(!load(disk, pin), "a command twice in the ring");
}

/// Runs one command, then puts the disk back as it was before, and connects.
fn restored(between: impl FnOnce(&mut World)) -> World {
    let mut world = World::new();
    world.connect();
    let copy = world.host.disk.clone();
    between(&mut world);
    world.host.unsynced.clear();
    world.host.disk = copy;
    world.crash(0);
    world.connect();
    world
}

#[test]
fn an_old_copy_of_the_state_is_quarantined_and_runs_nothing() {
    let mut world = restored(|world| {
        let id = world.command("host.facts", "");
        world.settle();
        world.finish(id);
    });
    assert!(matches!(world.host.closed.last(), Some((true, CloseReason::Quarantined { .. }))));
    let id = world.host.agent.quarantine().expect("it is in quarantine");
    assert_eq!(world.host.disk.quarantine, Some(id));
    // The next hello names it, and it stays through a restart.
    for _ in 0..2 {
        world.crash(0);
        world.connect();
        let Some(Standing::Quarantined(why)) = &world.plane.standing else { panic!("{:?}", world.plane.standing) };
        assert!(why.contains(&id.to_string()), "{why}");
    }
    let command = world.command("host.facts", "");
    world.settle();
    assert!(!world.host.starts.contains_key(&command));
    assert!(world.host.disk.ring.is_empty());
}

#[test]
fn a_copy_from_mid_command_does_not_run_it_again() {
    let mut world = World::new();
    world.connect();
    let id = world.command("app.restart", "shop");
    world.settle();
    let copy = world.host.disk.clone();
    world.finish(id);
    world.host.disk = copy;
    world.crash(0);
    world.connect();
    assert!(world.host.agent.quarantine().is_some());
    assert_eq!(world.host.starts[&id], (1, 1));
    assert_eq!(world.plane.reports_of(id), 1);
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
        let why = tampered(&mut world, |frame| match frame {
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
fn a_lost_journal_is_quarantined_before_the_first_word() {
    let mut world = World::new();
    let pin = world.plane.root.payload_sha256();
    world.host = Host::start_with(JournalState::default(), pin, true);
    world.dial();
    assert!(world.to_plane.is_empty(), "nothing is said before the quarantine is durable");
    world.settle();
    assert!(matches!(world.plane.standing, Some(Standing::Quarantined(_))));
    assert!(world.host.disk.quarantine.is_some());
    assert_eq!(world.host.disk.root_chain.len(), 1, "the chain came anew, from the pin on");
    assert!(world.host.closed.is_empty());
}

#[test]
fn in_quarantine_stored_reports_pass_and_new_ones_wait() {
    let mut world = World::new();
    world.plane.silent = true;
    world.connect();
    let reported = world.command("host.facts", "");
    let running = world.command("app.deploy", "shop");
    world.settle();
    world.finish(reported);
    world.plane.silent = false;
    world.plane.acknowledged_claim = Some(Sequence(9));
    world.connect();
    assert!(world.host.agent.quarantine().is_some());
    world.connect();
    assert!(world.host.disk.outbox.is_empty(), "the stored report passed");
    world.finish(running);
    assert_eq!(world.status(running), None);
    assert_eq!(world.host.disk.last_report.map(|last| last.sequence), Some(ReportSequence(1)));
}

#[test]
fn audit_heads_only_go_forward() {
    let mut world = World::new();
    world.connect();
    let head = |size: u64, root: u8, log: AuditLogId| AuditHead {
        fleet: support::FLEET,
        position: LogPosition { log, size, root: Sha256([root; 32]) },
        time: support::START,
    };
    let audit = SigningKey::<role::Audit>::from_seed(&world.keys.audit.seed());
    let send = |world: &mut World, key: &SigningKey<role::Audit>, head: AuditHead| {
        world.to_host.push(ControlFrame::AuditHead(key.sign(&head).into_envelope()));
        world.settle();
        (world.host.disk.audit_head.map(|position| position.size), world.host.closed.len())
    };
    assert_eq!(send(&mut world, &audit, head(5, 5, support::LOG)), (Some(5), 0));
    assert_eq!(send(&mut world, &audit, head(5, 5, support::LOG)), (Some(5), 0));
    assert_eq!(send(&mut world, &audit, head(4, 4, support::LOG)), (Some(5), 0), "an old head says nothing new");
    let id = world.command("host.facts", "");
    world.settle();
    world.finish(id);
    assert_eq!(world.plane.report_of(id).and_then(|report| report.audit_head).map(|head| head.size), Some(5));
    assert_eq!(send(&mut world, &audit, head(5, 6, support::LOG)), (Some(5), 1), "a fork");
    world.connect();
    let thief = SigningKey::<role::Audit>::from_seed(&[0x44; 32]);
    assert_eq!(send(&mut world, &thief, head(9, 9, support::LOG)), (Some(5), 2));
    world.connect();
    assert_eq!(send(&mut world, &audit, head(9, 9, AuditLogId::from_bytes([1; 16]))), (Some(5), 3));
}

#[test]
fn heads_that_come_while_one_is_written_fold_into_one_write() {
    let mut world = World::new();
    world.connect();
    for size in 1..=10 {
        let position = LogPosition { log: support::LOG, size, root: Sha256([7; 32]) };
        let head = AuditHead { fleet: support::FLEET, position, time: support::START };
        world.host_input(Input::Received(ControlFrame::AuditHead(world.keys.audit.sign(&head).into_envelope())));
    }
    assert_eq!(world.host.unsynced.len(), 1);
    world.host.sync_one();
    assert_eq!(world.host.unsynced.len(), 1);
    world.sync();
    assert_eq!(world.host.disk.audit_head.map(|head| head.size), Some(10));
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
