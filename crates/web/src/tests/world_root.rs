//! The root metadata of a test's world.

use envelope::{
    keys::{SigningKey, role},
    messages::{ApprovalThresholds, RootMetadata},
    seal::SealingSecretKey,
};
use ids::{AuditLogId, DurationMs, Epoch, FleetId, RootVersion, Sha256};

use super::world::{NOW, World};

pub(super) fn root_metadata(root: &SigningKey<role::Root>, command: &SigningKey<role::Command>) -> RootMetadata {
    RootMetadata {
        version: RootVersion(1),
        issued: NOW,
        expires: NOW.plus(DurationMs::from_days(400)),
        fleet: FleetId::from_bytes([5; 16]),
        root_keys: vec![root.public()],
        root_threshold: 1,
        addresses: vec!["control.example.org:7443".to_owned()],
        recovery_keys: vec![SealingSecretKey::from_bytes(&World::RECOVERY_SECRET).public()],
        session_keys: vec![SigningKey::<role::Session>::from_seed(&[3; 32]).public()],
        command_keys: vec![command.public()],
        approver_keys: Vec::new(),
        approvals: ApprovalThresholds::default(),
        audit_key: SigningKey::<role::Audit>::from_seed(&[4; 32]).public(),
        audit_log: AuditLogId::from_bytes([6; 16]),
        restored_log: None,
        tls_pins: vec![Sha256([9; 32]), Sha256([10; 32])],
        protocol_min: 1,
        epoch: Epoch(0),
    }
}
