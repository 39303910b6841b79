//! A fleet's root metadata and receipts, really signed.

use data_encoding::BASE64;
use envelope::{
    keys::{SigningKey, role},
    messages::{ApprovalThresholds, EnrolReceipt, RootMetadata, SealingKeyBytes},
    root::sign_root,
};
use ids::{AuditLogId, DurationMs, Epoch, HostEpoch, RootVersion, Sha256, TokenId, UnixMs};
use serde_json::{Value, json};

use crate::program::id;

const ISSUED: UnixMs = UnixMs(1_700_000_000_000);

fn root(seed: u8) -> SigningKey<role::Root> {
    SigningKey::from_seed(&[seed; 32])
}

fn session() -> SigningKey<role::Session> {
    SigningKey::from_seed(&[20; 32])
}

/// The public root key, as `--root FILE` wants it.
pub(crate) fn root_key(seed: u8) -> String {
    root(seed).public().to_string()
}

/// What `GET /api/v1/fleet/root` answers; `seed` makes the root key.
pub(crate) fn chain(seed: u8) -> Value {
    let metadata = RootMetadata {
        version: RootVersion(1),
        issued: ISSUED,
        expires: ISSUED.plus(DurationMs::from_days(400)),
        fleet: id(8).parse().expect("an id"),
        root_keys: vec![root(seed).public()],
        root_threshold: 1,
        addresses: vec!["control.example:7443".to_owned()],
        recovery_keys: Vec::new(),
        session_keys: vec![session().public()],
        command_keys: vec![SigningKey::<role::Command>::from_seed(&[21; 32]).public()],
        approver_keys: Vec::new(),
        approvals: ApprovalThresholds::default(),
        audit_key: SigningKey::<role::Audit>::from_seed(&[22; 32]).public(),
        audit_log: AuditLogId::from_bytes([6; 16]),
        restored_log: None,
        tls_pins: vec![Sha256([1; 32]), Sha256([2; 32])],
        protocol_min: 1,
        epoch: Epoch(1),
    };
    json!({"root_chain": [BASE64.encode(&sign_root(&[&root(seed)], &metadata))]})
}

/// The receipt of host number 1, base64.
pub(crate) fn receipt(sealing_key: SealingKeyBytes) -> String {
    let receipt = EnrolReceipt {
        fleet: id(8).parse().expect("an id"),
        host: id(1).parse().expect("an id"),
        host_epoch: HostEpoch(1),
        name: "a".parse().expect("a name"),
        roles: Vec::new(),
        token: TokenId::from_bytes([8; 16]),
        identity_key: SigningKey::<role::Agent>::from_seed(&[5; 32]).public(),
        sealing_key,
        time: ISSUED,
    };
    BASE64.encode(&session().sign(&receipt).into_envelope())
}
