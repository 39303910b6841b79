//! What an agent takes of the audit log, and what it refuses: each attack fails, and the same steps without the
//! attacker's change go through.

mod support;

use envelope::{
    audit::{AuditKind, AuditLeaf},
    keys::{SigningKey, role},
    merkle::{consistency_proof, root},
    messages::*,
};
use ids::*;
use session::{agent::io::*, frames::ControlFrame};
use support::World;

/// A log of so many entries; `story` tells which past it has from entry 3 on.
fn log(size: usize, story: &str) -> Vec<Sha256> {
    let leaf = |n: usize| {
        let words = if n < 3 { String::new() } else { story.to_owned() };
        AuditLeaf::new(UnixMs(n as u64), AuditKind::SignIn, "anna", &words, sha256(&n.to_be_bytes())).leaf_hash()
    };
    (0..size).map(leaf).collect()
}

fn position(of: AuditLogId, leaves: &[Sha256]) -> LogPosition {
    LogPosition { log: of, size: leaves.len() as u64, root: root(leaves) }
}

fn signed(world: &World, position: LogPosition) -> Vec<u8> {
    let head = AuditHead { fleet: support::FLEET, position, time: support::START };
    world.keys.audit.sign(&head).into_envelope()
}

/// The head over `leaves`, with the proof from so many of them.
fn proof(world: &World, leaves: &[Sha256], from: usize) -> ControlFrame {
    let hashes = consistency_proof(leaves, from as u64).expect("it grew");
    ControlFrame::AuditConsistency {
        head: signed(world, position(support::LOG, leaves)),
        from_size: from as u64,
        hashes,
    }
}

/// Sends a frame; answers the size of what the host has kept, and how many sessions have ended.
fn send(world: &mut World, frame: ControlFrame) -> (Option<u64>, usize) {
    world.to_host.push(frame);
    world.settle();
    (world.host.disk.audit_head.map(|position| position.size), world.host.closed.len())
}

/// A host that has seen so many entries, in a new session.
fn having_seen(size: usize) -> World {
    let mut world = World::new();
    world.connect();
    let frame = proof(&world, &log(size, "as it was"), 0);
    assert_eq!(send(&mut world, frame), (Some(size as u64), 0));
    world.connect();
    world
}

fn refusal(world: &World) -> Option<&str> {
    world.host.events.iter().rev().find_map(|event| match event {
        AgentEvent::AuditRefused { why } => Some(why.as_str()),
        _ => None,
    })
}

#[test]
fn a_log_that_goes_on_is_followed_and_named_in_reports() {
    let mut world = having_seen(5);
    for (from, size) in [(5, 5), (5, 6), (6, 64), (64, 1000)] {
        let frame = proof(&world, &log(size, "as it was"), from);
        assert_eq!(send(&mut world, frame), (Some(size as u64), 0));
    }
    let id = world.command("host.facts", "");
    world.settle();
    world.finish(id);
    let reported = world.plane.report_of(id).and_then(|report| report.audit_head);
    assert_eq!(reported, Some(position(support::LOG, &log(1000, "as it was"))));
    world.crash(0);
    world.connect();
    let frame = proof(&world, &log(2000, "as it was"), 1000);
    assert_eq!(send(&mut world, frame), (Some(2000), 0), "away for long, and a proof is as short");
    assert_eq!(refusal(&world), None);
}

/// One attack: the frame that a control plane without the true log can make. The host keeps what it had.
#[track_caller]
fn refused(words: &str, frame: impl FnOnce(&World) -> ControlFrame) {
    let mut world = having_seen(20);
    let honest = proof(&world, &log(30, "as it was"), 20);
    let frame = frame(&world);
    let before = world.host.disk.audit_head;
    assert_eq!(send(&mut world, frame), (Some(20), 1), "{words}");
    assert_eq!(world.host.disk.audit_head, before);
    assert!(refusal(&world).is_some_and(|why| why.contains(words)), "{words}: {:?}", refusal(&world));
    // The session is over; the next one is judged by what was seen before.
    world.connect();
    assert_eq!(send(&mut world, honest), (Some(30), 1), "without the attacker's change it goes on");
}

#[test]
fn truncated_or_forked_log() {
    refused("it was cut", |world| proof(world, &log(10, "as it was"), 0));
    refused("it was cut", |world| proof(world, &log(19, "as it was"), 10));
    refused("rewritten or forked", |world| proof(world, &log(20, "another past"), 20));
    refused("rewritten or forked", |world| proof(world, &log(30, "another past"), 20));
    refused("begins at size 3", |world| proof(world, &log(30, "another past"), 3));
    refused("begins at size 0", |world| proof(world, &log(30, "another past"), 0));
    refused("rewritten or forked", |world| {
        let ControlFrame::AuditConsistency { head, from_size, mut hashes } = proof(world, &log(30, "as it was"), 20)
        else {
            panic!("a proof")
        };
        hashes[1].0[7] ^= 1;
        ControlFrame::AuditConsistency { head, from_size, hashes }
    });
    refused("rewritten or forked", |world| {
        let ControlFrame::AuditConsistency { head, from_size, hashes } = proof(world, &log(30, "as it was"), 20) else {
            panic!("a proof")
        };
        ControlFrame::AuditConsistency { head, from_size, hashes: hashes[1..].to_vec() }
    });
}

#[test]
fn audit_key_stolen() {
    // Whoever has it signs any log: what a host has seen stands against it, whatever the signature says.
    let mut world = having_seen(20);
    let thief = SigningKey::<role::Audit>::from_seed(&world.keys.audit.seed());
    let forged = log(40, "what the thief wants to have been");
    let head = AuditHead { fleet: support::FLEET, position: position(support::LOG, &forged), time: support::START };
    let envelope = thief.sign(&head).into_envelope();
    for from in [0, 20] {
        let hashes = consistency_proof(&forged, from).expect("it grew");
        let frame = ControlFrame::AuditConsistency { head: envelope.clone(), from_size: from, hashes };
        let ended = world.host.closed.len();
        assert_eq!(send(&mut world, frame), (Some(20), ended + 1));
        world.connect();
    }
    // Another key signs nothing at all.
    let stranger = SigningKey::<role::Audit>::from_seed(&[0x44; 32]);
    let honest = log(40, "as it was");
    let head = AuditHead { position: position(support::LOG, &honest), ..head };
    let hashes = consistency_proof(&honest, 20).expect("it grew");
    let frame = |key: &SigningKey<role::Audit>| ControlFrame::AuditConsistency {
        head: key.sign(&head).into_envelope(),
        from_size: 20,
        hashes: hashes.clone(),
    };
    assert_eq!(send(&mut world, frame(&stranger)), (Some(20), 3));
    world.connect();
    assert_eq!(send(&mut world, frame(&thief)), (Some(40), 3), "the true log goes on under it");
}

#[test]
fn withheld_heads_are_noticed_before_the_first_order() {
    let mut world = having_seen(20);
    let id = world.command("host.facts", "");
    world.settle();
    assert!(!world.host.starts.contains_key(&id));
    assert_eq!((world.host.disk.high, world.host.closed.len()), (Sequence(0), 1));
    assert!(refusal(&world).is_some_and(|why| why.contains("before any proof")));
    world.connect();
    let frame = proof(&world, &log(20, "as it was"), 20);
    send(&mut world, frame);
    let id = world.command("host.facts", "");
    world.settle();
    assert!(world.host.starts.contains_key(&id), "shown the same head, the host takes orders");
}

#[test]
fn a_host_that_has_seen_nothing_takes_orders_and_the_first_head() {
    let mut world = World::new();
    world.connect();
    let id = world.command("host.facts", "");
    world.settle();
    assert!(world.host.starts.contains_key(&id));
    let frame = proof(&world, &log(20, "as it was"), 7);
    assert_eq!(send(&mut world, frame), (None, 1), "a proof from nowhere");
    world.connect();
    let frame = proof(&world, &log(20, "as it was"), 0);
    assert_eq!(send(&mut world, frame), (Some(20), 1));
}

#[test]
fn version_stripping_does_not_take_the_proofs_away() {
    let mut world = having_seen(20);
    let key = SigningKey::<role::Session>::from_seed(&world.keys.session.seed());
    let why = world.tampered(|frame| match frame {
        ControlFrame::Hello(bytes) => {
            let hello = envelope::verify::<ControlHello>(&bytes, &[key.verifying()]).expect("it verifies").into_value();
            ControlFrame::Hello(key.sign(&ControlHello { protocol: 1, ..hello }).into_envelope())
        }
        frame => frame,
    });
    assert!(matches!(&why, Some(CloseReason::NotAuthentic { why, .. }) if why.contains("without proofs")), "{why:?}");
    assert_eq!(world.tampered(|frame| frame), None);
}

#[test]
fn a_head_alone_does_not_belong_into_a_session_with_proofs() {
    let mut world = having_seen(5);
    let head = signed(&world, position(support::LOG, &log(9, "as it was")));
    assert_eq!(send(&mut world, ControlFrame::AuditHead(head)), (Some(5), 1));
    assert!(matches!(world.host.closed.last(), Some((true, CloseReason::Unexpected { .. }))));
}

#[test]
fn another_log_is_taken_only_when_root_metadata_says_where_the_old_one_stood() {
    let stood = |size: usize, story: &str| Some(position(support::LOG, &log(size, story)));
    for (restored, goes_on) in [
        (None, false),
        (stood(19, "as it was"), false),
        (stood(20, "another past"), false),
        (stood(20, "as it was"), true),
        (stood(25, "as it was"), true),
    ] {
        let mut world = having_seen(20);
        let new = AuditLogId::from_bytes([0x11; 16]);
        let next = world.keys.next(&world.plane.root, |root| {
            root.audit_log = new;
            root.restored_log = restored;
        });
        world.plane.root.advance(&next).expect("it follows");
        // A later version still says so.
        let later = world.keys.next(&world.plane.root, |_| {});
        world.plane.root.advance(&later).expect("it follows");
        world.connect();
        let leaves = log(2, "after the restore");
        let head = signed(&world, position(new, &leaves));
        let frame = ControlFrame::AuditConsistency { head, from_size: 0, hashes: Vec::new() };
        let expected = if goes_on { (Some(2), 0) } else { (Some(20), 1) };
        assert_eq!(send(&mut world, frame), expected, "{restored:?}");
        assert_eq!(refusal(&world).is_none(), goes_on);
    }
}

#[test]
fn heads_that_come_while_one_is_written_fold_into_one_write() {
    let mut world = World::new();
    world.connect();
    for size in 1..=10 {
        let frame = proof(&world, &log(size, "as it was"), size - 1);
        world.host_input(Input::Received(frame));
    }
    assert_eq!(world.host.unsynced.len(), 1);
    world.host.sync_one();
    assert_eq!(world.host.unsynced.len(), 1);
    world.sync();
    assert_eq!(world.host.disk.audit_head.map(|head| head.size), Some(10));
}
