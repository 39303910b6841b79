//! One instance of every message, with every field set, and the keys that sign them.

use envelope::{
    Payload, SigningKey, VerifyError, VerifyingKey,
    keys::KeyRole,
    messages::*,
    open_enrol_proof, open_key_offer, open_receipt_request,
    root::{RootError, TrustedRoot, sign_root},
    seal::SealingSecretKey,
    verify,
};
use ids::*;

/// The same seed for every role: only role types and payload types keep them apart, which is what
/// the tests try to break.
pub(crate) const SEED: [u8; 32] = [0x42; 32];

pub(crate) fn key<R: KeyRole>() -> SigningKey<R> {
    SigningKey::from_seed(&SEED)
}

pub(crate) fn seeded<R: KeyRole>(n: u8) -> SigningKey<R> {
    SigningKey::from_seed(&[n; 32])
}

fn public(n: u8) -> PublicKeyBytes {
    seeded::<envelope::keys::role::Agent>(n).public()
}

pub(crate) fn id<K>(n: u8) -> Id<K> {
    Id::from_bytes([n; 16])
}

pub(crate) fn sealing_key(n: u8) -> SealingKeyBytes {
    SealingSecretKey::from_bytes(&[n; 32]).public()
}

pub(crate) const NOW: UnixMs = UnixMs(1_800_000_000_000);

pub(crate) fn root_metadata() -> RootMetadata {
    RootMetadata {
        version: RootVersion(1),
        issued: NOW,
        expires: NOW.plus(DurationMs::from_days(400)),
        fleet: id(1),
        root_keys: vec![key::<envelope::keys::role::Root>().public()],
        root_threshold: 1,
        addresses: vec!["control.example:7443".into(), "[2001:db8::1]:7443".into()],
        recovery_keys: vec![sealing_key(20)],
        session_keys: vec![public(21)],
        command_keys: vec![public(22), public(23)],
        approver_keys: vec![public(24), public(25)],
        approvals: ApprovalThresholds { change: 1, destructive: 2 },
        audit_key: public(26),
        audit_log: id(2),
        restored_log: Some(LogPosition { log: id(3), size: 77, root: Sha256([4; 32]) }),
        tls_pins: vec![Sha256([5; 32]), Sha256([6; 32])],
        protocol_min: 1,
        epoch: Epoch(3),
    }
}

pub(crate) fn enrol_hello() -> EnrolHello {
    EnrolHello {
        fleet: id(1),
        token: id(7),
        agent_nonce: Challenge([8; 32]),
        control_nonce: Challenge([9; 32]),
        exporter: TlsExporter([10; 32]),
        root_version: RootVersion(1),
        time: NOW,
    }
}

pub(crate) fn enrol_proof() -> EnrolProof {
    EnrolProof {
        fleet: id(1),
        token: id(7),
        identity_key: key::<envelope::keys::role::Agent>().public(),
        sealing_key: sealing_key(11),
        agent_nonce: Challenge([8; 32]),
        control_nonce: Challenge([9; 32]),
        exporter: TlsExporter([10; 32]),
        hello_sha256: Sha256([12; 32]),
    }
}

pub(crate) fn receipt_request() -> ReceiptRequest {
    ReceiptRequest {
        fleet: id(1),
        token: id(7),
        identity_key: key::<envelope::keys::role::Agent>().public(),
        agent_nonce: Challenge([8; 32]),
        control_nonce: Challenge([9; 32]),
        exporter: TlsExporter([10; 32]),
        hello_sha256: Sha256([12; 32]),
    }
}

pub(crate) fn enrol_receipt() -> EnrolReceipt {
    EnrolReceipt {
        fleet: id(1),
        host: id(13),
        host_epoch: HostEpoch(1),
        name: "web-1".parse().expect("a host name"),
        roles: vec![Role::Proxy, Role::App],
        token: id(7),
        identity_key: key::<envelope::keys::role::Agent>().public(),
        sealing_key: sealing_key(11),
        time: NOW,
    }
}

pub(crate) fn agent_hello() -> AgentHello {
    AgentHello {
        protocols: vec![1, 2, 300],
        fleet: id(1),
        host: id(13),
        host_epoch: HostEpoch(1),
        nonce: Challenge([8; 32]),
        boot: id(14),
        root_version: RootVersion(1),
        high: Sequence(41),
        last_report: ReportPosition { sequence: ReportSequence(40), sha256: Sha256([15; 32]) },
        audit_head: Some(LogPosition { log: id(2), size: 100, root: Sha256([16; 32]) }),
        quarantine: Some(id(17)),
        agent_version: "0.1.0".into(),
    }
}

pub(crate) fn control_hello() -> ControlHello {
    ControlHello {
        protocol: 2,
        fleet: id(1),
        host: id(13),
        agent_nonce: Challenge([8; 32]),
        control_nonce: Challenge([9; 32]),
        exporter: TlsExporter([10; 32]),
        agent_hello_sha256: Sha256([18; 32]),
        time: NOW,
        root_version: RootVersion(1),
    }
}

pub(crate) fn session_proof() -> SessionProof {
    SessionProof {
        fleet: id(1),
        host: id(13),
        exporter: TlsExporter([10; 32]),
        control_nonce: Challenge([9; 32]),
        hello_sha256: Sha256([12; 32]),
    }
}

pub(crate) fn session_open() -> SessionOpen {
    SessionOpen {
        fleet: id(1),
        host: id(13),
        host_epoch: HostEpoch(1),
        epoch: Epoch(3),
        exporter: TlsExporter([10; 32]),
        proof_sha256: Sha256([19; 32]),
        time: NOW,
        acknowledged: Sequence(41),
        last_report: ReportPosition { sequence: ReportSequence(40), sha256: Sha256([15; 32]) },
    }
}

pub(crate) fn command() -> Command {
    Command {
        order: Order {
            fleet: id(1),
            host: id(13),
            command: id(30),
            operation: id(31),
            proposed_at: NOW,
            deliver_by: NOW.plus(DurationMs::from_mins(10)),
            start_within_ms: 600_000,
            action: "app.deploy".parse().expect("an action name"),
            action_version: 1,
            schema_sha256: Sha256([32; 32]),
            parameters: br#"{"app":"shop"}"#.to_vec(),
            sealed: vec![
                SealedRef { name: "db/PASSWORD".into(), sha256: Sha256([33; 32]) },
                SealedRef { name: "web/TOKEN".into(), sha256: Sha256([34; 32]) },
            ],
            requester: Some(id(35)),
            dry_run: true,
        },
        host_epoch: HostEpoch(1),
        epoch: Epoch(3),
        sequence: Sequence(42),
        nonce: Nonce([36; 16]),
        issued: NOW,
        not_before: NOW,
        expires: NOW.plus(DurationMs::from_mins(5)),
    }
}

pub(crate) fn report() -> Report {
    Report {
        fleet: id(1),
        host: id(13),
        host_epoch: HostEpoch(1),
        command: id(30),
        command_sha256: Sha256([37; 32]),
        command_sequence: Sequence(42),
        sequence: ReportSequence(41),
        previous: Sha256([15; 32]),
        audit_head: Some(LogPosition { log: id(2), size: 100, root: Sha256([16; 32]) }),
        status: ReportStatus::RolledBack,
        finished_at: NOW,
        result: br#"{"message":"put back"}"#.to_vec(),
        output_sha256: Sha256([38; 32]),
        output_truncated: true,
    }
}

pub(crate) fn audit_head() -> AuditHead {
    AuditHead { fleet: id(1), position: LogPosition { log: id(2), size: 100, root: Sha256([16; 32]) }, time: NOW }
}

pub(crate) fn approval() -> Approval {
    Approval {
        fleet: id(1),
        host: id(13),
        host_epoch: HostEpoch(1),
        operation: id(31),
        action: "app.remove".parse().expect("an action name"),
        action_version: 1,
        parameters_sha256: Sha256([39; 32]),
        sealed: command().order.sealed,
        plan_sha256: Sha256([40; 32]),
        bind_plan: true,
        approved_at: NOW,
        expires: NOW.plus(DurationMs::from_days(1)),
    }
}

pub(crate) fn standing_order() -> StandingOrder {
    let order = command().order;
    StandingOrder {
        standing: Standing {
            fleet: order.fleet,
            host: order.host,
            order: id(41),
            operation: order.operation,
            action: "app.restart".parse().expect("an action name"),
            action_version: 1,
            schema_sha256: order.schema_sha256,
            parameters: order.parameters,
            sealed: order.sealed,
            schedule: "30 3 * * 1-5".into(),
            zone: "Europe/Zurich".into(),
            valid_until: NOW.plus(DurationMs::from_days(90)),
            alone_for: DurationMs::from_days(30),
        },
        host_epoch: HostEpoch(1),
        epoch: Epoch(3),
        revision: Revision(7),
        issued: NOW,
    }
}

pub(crate) fn guard_reset() -> GuardReset {
    GuardReset {
        fleet: id(1),
        host: id(13),
        epoch: Epoch(3),
        quarantine: id(17),
        host_epoch: HostEpoch(2),
        high: Sequence(42),
        last_report: ReportPosition { sequence: ReportSequence(40), sha256: Sha256([15; 32]) },
        time: NOW,
    }
}

pub(crate) fn key_offer() -> KeyOffer {
    KeyOffer {
        identity_key: key::<envelope::keys::role::Agent>().public(),
        fleet: id(1),
        host: id(13),
        host_epoch: HostEpoch(2),
        old_identity_key: public(43),
        sealing_key: sealing_key(44),
        control_nonce: Challenge([9; 32]),
        exporter: TlsExporter([10; 32]),
    }
}

pub(crate) fn key_rotation() -> KeyRotation {
    let offer = key::<envelope::keys::role::Agent>().sign(&key_offer()).into_envelope();
    KeyRotation { fleet: id(1), host: id(13), offer }
}

pub(crate) fn key_receipt() -> KeyReceipt {
    KeyReceipt {
        fleet: id(1),
        host: id(13),
        host_epoch: HostEpoch(2),
        identity_key: key::<envelope::keys::role::Agent>().public(),
        sealing_key: sealing_key(44),
        rotation_sha256: Sha256([45; 32]),
        time: NOW,
    }
}

/// One signed message as attackers meet it: its bytes, and the only door that opens it. The door says
/// no in words.
pub(crate) struct Case {
    pub(crate) payload_type: &'static str,
    pub(crate) envelope: Vec<u8>,
    pub(crate) open: fn(&[u8]) -> Result<(), String>,
}

fn words(error: VerifyError) -> String {
    match error {
        VerifyError::Content { source } => format!("content: {source}"),
        other => other.to_string(),
    }
}

fn open_with_key<T: Payload>(bytes: &[u8]) -> Result<(), String> {
    let keys: [VerifyingKey<T::Role>; 1] = [key().verifying()];
    verify::<T>(bytes, &keys).map(drop).map_err(words)
}

fn case<T: Payload>(value: &T, open: fn(&[u8]) -> Result<(), String>) -> Case {
    Case { payload_type: T::TYPE, envelope: key::<T::Role>().sign(value).into_envelope(), open }
}

fn open_root(bytes: &[u8]) -> Result<(), String> {
    let pinned = TrustedRoot::pin_key(bytes, key::<envelope::keys::role::Root>().public());
    pinned.map(drop).map_err(|error| match error {
        RootError::Content { source } => format!("content: {source}"),
        other => other.to_string(),
    })
}

/// Every signed message.
pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case {
            payload_type: envelope::root::ROOT_TYPE,
            envelope: sign_root(&[&key()], &root_metadata()),
            open: open_root,
        },
        case(&enrol_hello(), open_with_key::<EnrolHello>),
        case(&enrol_proof(), |bytes| open_enrol_proof(bytes).map(drop).map_err(words)),
        case(&receipt_request(), |bytes| open_receipt_request(bytes).map(drop).map_err(words)),
        case(&enrol_receipt(), open_with_key::<EnrolReceipt>),
        case(&control_hello(), open_with_key::<ControlHello>),
        case(&session_proof(), open_with_key::<SessionProof>),
        case(&session_open(), open_with_key::<SessionOpen>),
        case(&command(), open_with_key::<Command>),
        case(&report(), open_with_key::<Report>),
        case(&audit_head(), open_with_key::<AuditHead>),
        case(&approval(), open_with_key::<Approval>),
        case(&standing_order(), open_with_key::<StandingOrder>),
        case(&guard_reset(), open_with_key::<GuardReset>),
        case(&key_offer(), |bytes| open_key_offer(bytes).map(drop).map_err(words)),
        case(&key_rotation(), open_with_key::<KeyRotation>),
        case(&key_receipt(), open_with_key::<KeyReceipt>),
    ]
}
