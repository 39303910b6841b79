//! A control plane that was restored from a backup meets a host that it does not know by the key that it speaks with: what shows
//! who a host is, and what does not.

mod support;

use envelope::{
    keys::{SigningKey, role},
    messages::*,
    seal::SealingSecretKey,
    verify,
};
use ids::*;
use session::{
    agent::io::{CloseReason, Input},
    control::*,
    frames::*,
};
use support::{FLEET, HOST, Keys, START, World};

const EXPORTER: TlsExporter = TlsExporter([8; 32]);

fn agent(seed: u8) -> SigningKey<role::Agent> {
    SigningKey::from_seed(&[seed; 32])
}

fn sealing(seed: u8) -> SealingKeyBytes {
    SealingSecretKey::from_bytes(&[seed; 32]).public()
}

fn receipt(key: &SigningKey<role::Session>, change: impl FnOnce(&mut EnrolReceipt)) -> Vec<u8> {
    let mut receipt = EnrolReceipt {
        fleet: FLEET,
        host: HOST,
        host_epoch: HostEpoch(1),
        name: "web-1".parse().expect("a name"),
        roles: Vec::new(),
        token: TokenId::from_bytes([1; 16]),
        identity_key: agent(51).public(),
        sealing_key: sealing(51),
        time: START,
    };
    change(&mut receipt);
    key.sign(&receipt).into_envelope()
}

fn changed(key: &SigningKey<role::Session>, (old, new): (u8, u8), epoch: u64) -> KeyRecord {
    let (host_epoch, identity) = (HostEpoch(epoch), agent(new));
    let offer = KeyOffer {
        identity_key: identity.public(),
        fleet: FLEET,
        host: HOST,
        host_epoch,
        old_identity_key: agent(old).public(),
        sealing_key: sealing(new),
        control_nonce: Challenge([1; 32]),
        exporter: TlsExporter([2; 32]),
    };
    let rotation = KeyRotation { fleet: FLEET, host: HOST, offer: identity.sign(&offer).into_envelope() };
    let rotation = agent(old).sign(&rotation);
    let stored = KeyReceipt {
        fleet: FLEET,
        host: HOST,
        host_epoch,
        identity_key: identity.public(),
        sealing_key: sealing(new),
        rotation_sha256: rotation.payload_sha256(),
        time: START,
    };
    KeyRecord { rotation: rotation.into_envelope(), receipt: Some(key.sign(&stored).into_envelope()) }
}

/// Somebody who brings something.
struct Caller {
    keys: Keys,
    root: envelope::root::TrustedRoot,
    on_record: Option<KeysOnRecord>,
    protocols: Vec<u32>,
    host_epoch: u64,
    /// Whose identity key signs the proof.
    seed: u8,
    receipt: Vec<u8>,
    changes: Vec<KeyRecord>,
}

impl Caller {
    /// An honest host, enrolled after the backup, whose keys were changed twice since.
    fn honest() -> Self {
        let keys = Keys::new();
        let (root, receipt) = (keys.chain(|_| {}), receipt(&keys.session, |_| {}));
        let changes = vec![changed(&keys.session, (51, 52), 2), changed(&keys.session, (52, 53), 3)];
        Self { keys, root, on_record: None, protocols: vec![1, 2], host_epoch: 3, seed: 53, receipt, changes }
    }

    fn call(self) -> Result<(HostEpoch, Box<Presented>), HandshakeError> {
        let hello = AgentHello {
            protocols: self.protocols,
            fleet: FLEET,
            host: HOST,
            host_epoch: HostEpoch(self.host_epoch),
            nonce: Challenge([3; 32]),
            boot: BootId::from_bytes([4; 16]),
            root_version: RootVersion(1),
            high: Sequence(0),
            last_report: ReportPosition::START,
            audit_head: None,
            quarantine: None,
            agent_version: "0.2.0".to_owned(),
        };
        let mut handshake = Handshake::new(FLEET, EXPORTER);
        handshake.receive(AgentFrame::Hello(hello.encode()))?;
        let identity = Identity::Wanted(self.on_record.clone());
        let (root, session_key, nonce) = (&self.root, &self.keys.session, Challenge([9; 32]));
        let frames = handshake.answer(&Answer { identity, root, session_key, nonce, time: START })?;
        let Some(ControlFrame::Hello(envelope)) = frames.last() else { panic!("no hello") };
        let control = verify::<ControlHello>(envelope, &[self.keys.session.verifying()]).expect("its session key's");
        let proof = SessionProof {
            fleet: FLEET,
            host: HOST,
            exporter: EXPORTER,
            control_nonce: nonce,
            hello_sha256: control.payload_sha256(),
        };
        handshake.receive(AgentFrame::Proof(agent(self.seed).sign(&proof).into_envelope()))?;
        let asked = handshake.receive(AgentFrame::Actions(Vec::new()))?;
        let above = self.on_record.as_ref().map_or(HostEpoch(1), |known| known.host_epoch);
        assert_eq!(asked, HandshakeStep::Ask(ControlFrame::CredentialsWanted { above }));
        match handshake.receive(AgentFrame::Credentials { receipt: self.receipt, changes: self.changes })? {
            HandshakeStep::Authenticated(it) => {
                Ok((it.hello.host_epoch, it.presented.expect("it is known by it alone")))
            }
            step => panic!("{step:?}"),
        }
    }
}

#[test]
fn a_receipt_and_the_changes_of_keys_since_show_who_a_host_is() {
    let (epoch, shown) = Caller::honest().call().expect("an honest host");
    assert_eq!((epoch, shown.host_epoch, shown.identity_key), (HostEpoch(3), HostEpoch(3), agent(53).public()));
    assert_eq!((shown.name.as_str(), shown.on_record, shown.rotations.len()), ("web-1", None, 2));
    assert!(shown.is_receipted && !shown.is_by_dropped_key);
    // With keys on record, from those on.
    let mut known = Caller::honest();
    known.on_record = Some(KeysOnRecord { host_epoch: HostEpoch(2), identity_key: agent(52).public() });
    known.changes.remove(0);
    let (_, shown) = known.call().expect("it leads on");
    assert_eq!((shown.on_record, shown.rotations.len()), (Some(HostEpoch(2)), 1));
    // A receipt for a change may have been lost, and a session key may be another by now: both are told.
    let mut lost = Caller::honest();
    lost.changes[1].receipt = None;
    assert!(!lost.call().expect("both keys signed").1.is_receipted);
    let mut dropped = Caller::honest();
    let other = SigningKey::<role::Session>::from_seed(&[22; 32]);
    let next = dropped.keys.next(&dropped.root, |root| root.session_keys = vec![other.public()]);
    dropped.root.advance(&next).expect("it follows");
    dropped.keys.session = other;
    assert!(dropped.call().expect("it was a session key").1.is_by_dropped_key);
}

#[test]
fn a_forged_receipt_another_hosts_and_a_borrowed_one_show_nothing() {
    let thief = SigningKey::<role::Session>::from_seed(&[0x77; 32]);
    let check = |what: &str, change: &dyn Fn(&mut Caller)| {
        let mut caller = Caller::honest();
        change(&mut caller);
        let error = caller.call().expect_err(what);
        let told = format!("{error:?}");
        assert!(!matches!(error, HandshakeError::Unexpected { .. }), "{what}: {told}");
    };
    check("a receipt that no session key signed", &|it| it.receipt = receipt(&thief, |_| {}));
    check("another host's receipt", &|it| {
        it.receipt = receipt(&it.keys.session, |it| it.host = HostId::from_bytes([2; 16]))
    });
    check("another fleet's", &|it| {
        it.receipt = receipt(&it.keys.session, |it| it.fleet = FleetId::from_bytes([2; 16]))
    });
    check("the host's own receipt, and a key of somebody else's", &|it| it.seed = 60);
    check("its first key, which was replaced since", &|it| it.seed = 51);
    check("a change that is left out", &|it| drop(it.changes.remove(0)));
    check("changes in another order", &|it| it.changes.swap(0, 1));
    check("a change to a key of the thief's", &|it| {
        it.changes[1] = changed(&it.keys.session, (60, 53), 3);
    });
    check("a receipt of a change that no session key signed", &|it| it.changes[1] = changed(&thief, (52, 53), 3));
    check("a receipt of another change", &|it| it.changes[1].receipt = it.changes[0].receipt.clone());
    check("another epoch than its keys are of", &|it| it.host_epoch = 4);
    check("keys that do not lead on from those on record", &|it| {
        it.on_record = Some(KeysOnRecord { host_epoch: HostEpoch(2), identity_key: agent(60).public() });
        it.changes.remove(0);
    });
    check("nothing newer than what is on record", &|it| {
        it.on_record = Some(KeysOnRecord { host_epoch: HostEpoch(3), identity_key: agent(53).public() });
        it.changes.clear();
    });
    check("an agent that cannot show it", &|it| it.protocols = vec![1]);
    check("more than is looked at", &|it| {
        let change = it.changes[0].clone();
        it.changes = vec![change; session::limits::KEY_CHANGES_SHOWN_MAX + 1];
    });
    assert!(Caller::honest().call().is_ok());
}

#[test]
fn an_agent_shows_who_it_is_to_a_control_plane_that_has_proved_itself_and_once() {
    // Before the control plane has proved itself it is out of place.
    let mut world = World::new();
    let why = world.tampered(|frame| match frame {
        ControlFrame::Hello(_) => ControlFrame::CredentialsWanted { above: HostEpoch(1) },
        frame => frame,
    });
    assert!(matches!(why, Some(CloseReason::Unexpected { .. })), "{why:?}");
    // In place of the open it is answered, and not a second time.
    let mut world = World::new();
    world.dial();
    while world.to_plane.len() < 2 {
        world.step_plane();
        world.step_host();
        world.sync();
    }
    assert!(matches!(world.to_plane[..], [AgentFrame::Proof(_), AgentFrame::Actions(_)]), "{:?}", world.to_plane);
    let wanted = || Input::Received(ControlFrame::CredentialsWanted { above: HostEpoch(1) });
    world.host_input(wanted());
    world.host_input(Input::CredentialsRead { receipt: vec![1], changes: Vec::new() });
    assert!(matches!(world.to_plane.last(), Some(AgentFrame::Credentials { .. })), "{:?}", world.to_plane);
    world.host_input(wanted());
    let (_, why) = world.host.closed.last().expect("it ends");
    assert!(matches!(why, CloseReason::NotAuthentic { .. }), "{why:?}");
}
