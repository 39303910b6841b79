//! The audit log of a world, as an owner exports it.

use envelope::{
    audit_verify::{AuditExport, ExportedEntry},
    keys::{SigningKey, role},
    messages::*,
};
use ids::*;

use super::world::*;
use crate::ports::{AuditEntry, AuditRecord};

impl World {
    /// The audit log so far, as it is exported.
    pub(crate) fn export(&self) -> AuditExport {
        let entry = |(index, entry): (u64, &AuditEntry)| {
            let (AuditRecord::Inline(record) | AuditRecord::Envelope(record)) = &entry.record;
            ExportedEntry {
                index,
                time: entry.time,
                kind: entry.kind,
                actor: entry.actor.clone(),
                subject: entry.subject.clone(),
                record_sha256: sha256(record),
                record: Some(record.clone()),
            }
        };
        let entries: Vec<ExportedEntry> = (0..).zip(&self.store.audit).map(entry).collect();
        let leaves = self.leaves();
        let log = self.root.current().audit_log;
        let position = LogPosition { log, size: leaves.len() as u64, root: envelope::merkle::root(&leaves) };
        let head = AuditHead { fleet: FLEET, position, time: self.now };
        let receipt = EnrolReceipt {
            fleet: FLEET,
            host: HOST,
            host_epoch: HostEpoch(1),
            name: self.store.host.name.clone(),
            roles: Vec::new(),
            token: TokenId::from_bytes([8; 16]),
            identity_key: SigningKey::<role::Agent>::from_seed(&AGENT_SEED).public(),
            sealing_key: self.store.host.sealing_key,
            time: START,
        };
        AuditExport {
            root_chain: self.root.chain().to_vec(),
            heads: vec![SigningKey::<role::Audit>::from_seed(&AUDIT_SEED).sign(&head).into_envelope()],
            receipts: vec![self.keys.session.sign(&receipt).into_envelope()],
            entries,
        }
    }
}
