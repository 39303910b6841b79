//! The root metadata of a test's world, and who keeps it.

use std::sync::Arc;

use envelope::{
    keys::{SigningKey, role},
    messages::{ApprovalThresholds, RootMetadata},
    root::TrustedRoot,
    seal::SealingSecretKey,
};
use ids::{AuditLogId, DurationMs, Epoch, FleetId, RootVersion, Sha256};
use tokio::sync::watch;

use super::world::{NOW, World};
use crate::RootKeeper;

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

/// A control plane that signs with the session key of the world's first root metadata.
pub(super) struct Keeper(pub(super) watch::Sender<Arc<TrustedRoot>>);

impl RootKeeper for Keeper {
    fn hindered_by(&self, next: &RootMetadata) -> Option<String> {
        let own = SigningKey::<role::Session>::from_seed(&[3; 32]).public();
        (!next.session_keys.contains(&own)).then(|| "it drops the session key in use".to_owned())
    }

    fn in_force(&self, root: Arc<TrustedRoot>) {
        self.0.send_replace(root);
    }

    fn recovered(&self, _: fleet::recovery::Recovery) {}
}
