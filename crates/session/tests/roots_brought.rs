//! Root metadata that comes to an agent by another way than a session: from a file on its own machine, or over a
//! connection whose TLS key it does not know.

mod support;

use envelope::{
    keys::{SigningKey, role},
    messages::*,
};
use ids::*;
use session::{agent::io::*, control::Standing, frames::ControlFrame};
use support::{Host, World};

fn brought(chain: Vec<Vec<u8>>) -> Input {
    Input::RootChain { chain, quarantine: QuarantineId::from_bytes([0x51; 16]) }
}

#[test]
fn it_is_stored_before_it_is_used_with_no_connection_at_all() {
    let mut world = World::new();
    let second = world.keys.next(&world.plane.root, |_| {});
    let mut root = world.plane.root.clone();
    root.advance(&second).expect("it follows");
    let third = world.keys.next(&root, |_| {});
    world.host_input(brought(vec![second.clone(), third.clone()]));
    assert_eq!(world.host.disk.root_chain.len(), 1);
    assert!(world.host.events.is_empty(), "not in force before it is on disk");
    // Dies with one of the two on disk: a shorter chain, and a whole one.
    world.crash(1);
    assert_eq!(world.host.disk.root_chain.len(), 2);
    world.host_input(brought(vec![second, third]));
    world.sync();
    assert_eq!(world.host.disk.root_chain.len(), 3, "what is held is passed over");
    assert!(world.host.events.contains(&AgentEvent::RootAdvanced { version: RootVersion(3) }));
    world.plane.root = root;
    world.connect();
    assert_eq!(world.plane.root.version(), RootVersion(3), "a control plane that is behind takes it from here");
    assert!(world.plane.is_fit());
}

#[test]
fn what_does_not_verify_changes_nothing_and_what_came_before_it_counts() {
    let mut world = World::new();
    let good = world.keys.next(&world.plane.root, |_| {});
    let thief = SigningKey::<role::Root>::from_seed(&[0x77; 32]);
    let mut metadata = world.plane.root.current().clone();
    (metadata.version, metadata.root_keys) = (RootVersion(3), vec![thief.public()]);
    let forged = envelope::root::sign_root(&[&thief], &metadata);
    world.host_input(brought(vec![vec![0; 64]]));
    world.host_input(brought(vec![forged.clone()]));
    world.sync();
    assert_eq!(world.host.disk.root_chain.len(), 1);
    world.host_input(brought(vec![good, forged]));
    world.sync();
    assert_eq!(world.host.disk.root_chain.len(), 2);
    assert_eq!(world.host.events.iter().filter(|event| matches!(event, AgentEvent::Dropped { .. })).count(), 3);
}

/// An emergency root on a host whose control plane is in somebody else's hands.
#[test]
fn a_dropped_key_stops_what_it_had_ordered_and_ends_its_session() {
    for connected in [true, false] {
        let mut world = World::new();
        world.connect();
        let running = world.command("app.deploy", "shop");
        let waiting = world.command("app.deploy", "shop");
        world.settle();
        let next = world.keys.next(&world.plane.root, |root| {
            root.command_keys = vec![world.keys.command_next.public()];
            root.epoch = Epoch(2);
        });
        if !connected {
            world.host_input(Input::Disconnected);
        }
        world.host_input(brought(vec![next.clone()]));
        world.sync();
        let ended = matches!(world.host.closed.last(), Some((true, CloseReason::Renewal)));
        assert_eq!(ended, connected, "a session rests on its command key");
        world.plane.root.advance(&next).expect("it follows");
        world.keys.command = SigningKey::from_seed(&[33; 32]);
        world.connect();
        assert!(world.plane.is_fit());
        assert_eq!(world.status(waiting), Some(ReportStatus::Revoked));
        assert!(!world.host.starts.contains_key(&waiting));
        world.finish(running);
        assert_eq!(world.status(running), Some(ReportStatus::Succeeded));
    }
}

#[test]
fn a_session_key_that_is_dropped_in_the_middle_of_a_handshake_opens_no_session() {
    let mut world = World::new();
    let successor = SigningKey::<role::Session>::from_seed(&[0x22; 32]);
    let next = world.keys.next(&world.plane.root, |root| root.session_keys = vec![successor.public()]);
    world.dial();
    // Up to the proof, with the open on its way.
    while !world.to_host.iter().any(|frame| matches!(frame, ControlFrame::Open(_))) {
        world.sync();
        assert!(world.step_plane() || world.step_host(), "the handshake goes on");
    }
    world.host_input(brought(vec![next]));
    world.settle();
    assert!(matches!(world.host.closed.last(), Some((true, CloseReason::Renewal))), "{:?}", world.host.closed);
    assert!(!world.host.events.iter().any(|event| matches!(event, AgentEvent::SessionOpen { .. })));
}

#[test]
fn a_lost_journal_is_quarantined_before_a_chain_is_in_it() {
    for keep in [0, 1, 2] {
        let mut world = World::new();
        let pin = world.plane.root.payload_sha256();
        world.host = Host::start_with(JournalState::default(), pin, true);
        world.host_input(brought(world.plane.root.chain().to_vec()));
        world.crash(keep);
        let (quarantined, chain) = (world.host.disk.quarantine.is_some(), world.host.disk.root_chain.len());
        assert!(quarantined || chain == 0, "a journal with a chain counts as whole: {keep} writes kept");
        world.connect();
        assert!(matches!(world.plane.standing, Some(Standing::Quarantined(_))), "{keep} writes kept");
    }
}
