//! Root metadata on its way to a host and back, and what its changes do to orders.

mod support;

use envelope::{
    keys::{SigningKey, role},
    messages::*,
};
use ids::*;
use session::{
    agent::io::*,
    control::{Answer, Handshake, HandshakeError, HandshakeStep, Identity},
    frames::{AgentFrame, ControlFrame},
};
use support::World;

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
    let why = world.tampered(|frame| match frame {
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
fn before_its_proof_a_host_brings_root_metadata_once() {
    let mut world = World::new();
    let agent_hello = {
        world.dial();
        world.to_plane.remove(0)
    };
    let chain = || AgentFrame::RootChain(vec![vec![0; 1024]]);
    let nonce = Challenge([7; 32]);
    let key = Some(SigningKey::<role::Agent>::from_seed(&support::AGENT_SEED).public());
    let mut handshake = Handshake::new(support::FLEET, TlsExporter([1; 32]));
    assert!(matches!(handshake.receive(agent_hello), Ok(HandshakeStep::LookUp(_))));
    let (root, session_key) = (&world.plane.root, &world.keys.session);
    let answer = Answer { identity: Identity::from(key), root, session_key, nonce, time: support::START };
    assert!(handshake.answer(&answer).is_ok());
    assert!(matches!(handshake.receive(chain()), Ok(HandshakeStep::RootChain(_))));
    assert!(
        matches!(handshake.receive(chain()), Err(HandshakeError::RootChain { .. })),
        "memory is bounded by a frame"
    );
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
fn what_was_being_started_when_its_key_was_dropped_runs_nothing() {
    for is_dropped in [true, false] {
        let mut world = World::new();
        world.connect();
        let id = world.command("host.facts", "");
        world.step_host();
        let next = world.keys.next(&world.plane.root, |root| {
            if is_dropped {
                root.command_keys = vec![world.keys.command_next.public()];
            }
        });
        world.plane.root.advance(&next).expect("it follows");
        world.to_host.push(ControlFrame::RootChain(vec![next]));
        while world.step_host() {}
        // Its acceptance, then the metadata; the start was asked for in between, and comes last.
        world.host.sync_one();
        assert_eq!(world.host.unsynced.len(), 2, "metadata and start are being written");
        world.sync();
        assert_eq!(world.host.starts.contains_key(&id), !is_dropped);
        if is_dropped {
            world.keys.command = SigningKey::from_seed(&[33; 32]);
            world.connect();
            assert_eq!(world.status(id), Some(ReportStatus::Revoked));
        }
    }
}

#[test]
fn an_order_under_a_dropped_key_is_good_for_the_question_what_became_of_it_and_for_nothing_else() {
    let mut world = World::new();
    world.connect();
    let (lost, done) = (world.order("host.facts", ""), world.order("host.facts", ""));
    let now = world.host.now.wall;
    let lost_bytes = world.plane.seal(&world.keys.command, &lost, now);
    let done_bytes = world.plane.seal(&world.keys.command, &done, now);
    world.deliver(done_bytes.clone());
    world.settle();
    world.finish(done.command);
    let unused = world.order("host.facts", "");
    let unused_bytes = world.plane.seal(&world.keys.command, &unused, now);
    let next = world.keys.next(&world.plane.root, |root| {
        root.command_keys = vec![world.keys.command_next.public()];
        root.epoch = Epoch(2);
    });
    world.plane.root.advance(&next).expect("it follows");
    world.keys.command = SigningKey::from_seed(&[33; 32]);
    world.connect();
    // Its number was passed over: it never runs, and the host says so.
    world.deliver(lost_bytes);
    world.deliver(done_bytes);
    world.settle();
    assert!(world.plane.is_fit());
    assert_eq!(world.status(lost.command), Some(ReportStatus::Unknown));
    assert_eq!(world.status(done.command), Some(ReportStatus::Succeeded));
    assert!(!world.host.starts.contains_key(&lost.command));
    // One whose number is not used up moves nothing on.
    world.deliver(unused_bytes);
    world.settle();
    assert!(matches!(world.host.closed.last(), Some((true, CloseReason::NotAuthentic { what: "command", .. }))));
    assert!(world.status(unused.command).is_none() && !world.host.starts.contains_key(&unused.command));
    world.connect();
    let fresh = world.command("host.facts", "");
    world.settle();
    assert!(world.host.starts.contains_key(&fresh), "a new one under the new key runs");
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

#[test]
fn nothing_proposed_before_a_restore_of_the_control_plane_runs() {
    let mut world = World::new();
    let before = world.order("host.facts", "");
    world.advance(DurationMs(10));
    let restored = world.keys.next(&world.plane.root, |root| {
        root.issued = UnixMs(support::START.0 + 5);
        root.restored_log = Some(LogPosition { log: root.audit_log, size: 7, root: Sha256([7; 32]) });
        root.audit_log = AuditLogId::from_bytes([0x11; 16]);
    });
    world.plane.root.advance(&restored).expect("it follows");
    // A later version changes nothing about when the restore was.
    world.advance(DurationMs(1_000));
    let after = world.order("host.facts", "");
    let later = world.keys.next(&world.plane.root, |root| root.issued = UnixMs(support::START.0 + 60_000));
    world.plane.root.advance(&later).expect("it follows");
    world.connect();
    world.send_order(&before);
    world.send_order(&after);
    world.settle();
    assert_eq!(world.status(before.command), Some(ReportStatus::Expired));
    assert!(world.message(before.command).contains("restored"));
    assert!(world.host.running.contains_key(&after.command));
}
