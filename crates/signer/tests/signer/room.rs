//! A signer's directory, a clock the test sets, and root metadata.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use envelope::{
    SigningKey,
    keys::role,
    messages::{ApprovalThresholds, Command, Order, PublicKeyBytes, ReportPosition, RootMetadata, SessionOpen},
    root::sign_root,
    signer_port::{SignError, Signer as _},
};
use ids::*;
use signer::{LocalSigner, Place, PlaceError, SignerConfig};

pub(crate) const FLEET: FleetId = FleetId::from_bytes([7; 16]);
pub(crate) const START: u64 = 1_800_000_000_000;

pub(crate) struct Room {
    pub(crate) directory: tempfile::TempDir,
    now: Arc<AtomicU64>,
}

impl Room {
    /// Nothing in it.
    pub(crate) fn empty() -> Self {
        Self { directory: tempfile::tempdir().unwrap(), now: Arc::new(AtomicU64::new(START)) }
    }

    /// A signer's directory of that fleet, with [`key`] in it.
    pub(crate) async fn new() -> Self {
        let room = Self::empty();
        keep_earlier(room.directory.path());
        let signer = room.open().unwrap();
        signer.advance_root(vec![root(1, &[key().public()], |_| ())]).await.unwrap();
        room
    }

    pub(crate) fn place(&self) -> Place {
        Place::new(&self.directory.path().join("signer"))
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.place().sequences()
    }

    pub(crate) fn set(&self, now: u64) {
        self.now.store(now, Ordering::SeqCst);
    }

    pub(crate) fn open(&self) -> Result<LocalSigner, PlaceError> {
        let now = Arc::clone(&self.now);
        LocalSigner::open(SignerConfig {
            place: self.place(),
            earlier: Some(self.directory.path().to_owned()),
            class_of: |order| match order.action.as_str() {
                "host.facts" => Some(Class::Read),
                "app.deploy" => Some(Class::Change),
                _ => None,
            },
            clock: Arc::new(move || UnixMs(now.load(Ordering::SeqCst))),
        })
    }

    pub(crate) fn log(&self) -> Vec<serde_json::Value> {
        let text = std::fs::read_to_string(self.place().log()).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

/// What a control plane of before kept: [`key`], and sequences of the fleet.
pub(crate) fn keep_earlier(directory: &Path) {
    keyfile::private_directory(&directory.join("keys")).unwrap();
    keyfile::write_seed(&directory.join("keys/command.key.pem"), keyfile::KeyKind::Ed25519, &key().seed()).unwrap();
    // The empty record of fleet 7, as version 0.1 wrote it.
    let head = [b"SFSEQ1\r\n".as_slice(), FLEET.as_bytes()].concat();
    let sum = sha256(&head).as_bytes()[..8].to_vec();
    std::fs::write(directory.join("signer.state"), [head, sum].concat()).unwrap();
}

pub(crate) fn root_key() -> SigningKey<role::Root> {
    SigningKey::from_seed(&[11; 32])
}

/// Root metadata that lists these command keys, changed at will.
pub(crate) fn root(version: u64, command_keys: &[PublicKeyBytes], change: impl FnOnce(&mut RootMetadata)) -> Vec<u8> {
    let public = |n: u8| SigningKey::<role::Root>::from_seed(&[n; 32]).public();
    let mut metadata = RootMetadata {
        version: RootVersion(version),
        issued: UnixMs(START - 1_000),
        expires: UnixMs(START + 400 * 86_400_000),
        fleet: FLEET,
        root_keys: vec![root_key().public()],
        root_threshold: 1,
        addresses: vec!["control.example.org:7443".to_owned()],
        recovery_keys: vec![],
        session_keys: vec![public(12)],
        command_keys: command_keys.to_vec(),
        approver_keys: vec![],
        approvals: ApprovalThresholds::default(),
        audit_key: public(13),
        audit_log: AuditLogId::from_bytes([4; 16]),
        restored_log: None,
        tls_pins: vec![sha256(b"now"), sha256(b"next")],
        protocol_min: 1,
        epoch: Epoch(1),
    };
    change(&mut metadata);
    sign_root(&[&root_key()], &metadata)
}

pub(crate) fn key() -> SigningKey<role::Command> {
    SigningKey::from_seed(&[3; 32])
}

pub(crate) fn host(n: u8) -> HostId {
    HostId::from_bytes([n; 16])
}

pub(crate) fn command(host: HostId, sequence: u64) -> Command {
    let order = Order {
        fleet: FLEET,
        host,
        command: CommandId::from_bytes([9; 16]),
        operation: OperationId::from_bytes([8; 16]),
        proposed_at: UnixMs(START - 1_000),
        deliver_by: UnixMs(START + 600_000),
        start_within_ms: 60_000,
        action: "host.facts".parse().unwrap(),
        action_version: 1,
        schema_sha256: sha256(b"schema"),
        parameters: b"{}".to_vec(),
        sealed: vec![],
        requester: None,
        dry_run: false,
    };
    Command {
        order,
        host_epoch: HostEpoch(1),
        epoch: Epoch(1),
        sequence: Sequence(sequence),
        nonce: Nonce([1; 16]),
        issued: UnixMs(START),
        not_before: UnixMs(START),
        expires: UnixMs(START + 300_000),
    }
}

pub(crate) fn open_for(host: HostId) -> SessionOpen {
    SessionOpen {
        fleet: FLEET,
        host,
        host_epoch: HostEpoch(1),
        epoch: Epoch(1),
        exporter: TlsExporter([2; 32]),
        proof_sha256: sha256(b"proof"),
        time: UnixMs(12),
        acknowledged: Sequence(0),
        last_report: ReportPosition::START,
    }
}

pub(crate) async fn refusal(signer: &LocalSigner, command: Command) -> String {
    match signer.sign_command(command, vec![]).await {
        Err(SignError::Refused(why) | SignError::Unavailable(why)) => why,
        Err(error @ SignError::SequenceTaken { .. }) => error.to_string(),
        other => panic!("not refused: {other:?}"),
    }
}
