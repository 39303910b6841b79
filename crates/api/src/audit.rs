//! The audit log.

use serde::{Deserialize, Serialize};

use crate::Timestamp;

/// `GET /api/v1/audit`: a [`crate::Page`] of these, sorted by `time` (newest first unless asked otherwise) or by
/// `index`. Filters with `time`: `kind`, `actor`, `since`, `until` (times; the former included). With
/// `first`, a place in the log, the list is sorted by `index` from there on, and takes no other filter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct AuditEntry {
    pub index: u64,
    pub time: Timestamp,
    pub kind: String,
    pub actor: String,
    pub subject: String,
    /// SHA-256 of the record, hexadecimal.
    pub record_sha256: String,
}

/// `GET /api/v1/audit/export`: everything an offline verifier needs besides the root's public key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct AuditExport {
    /// Root metadata envelopes from version 1, base64.
    pub root_chain: Vec<String>,
    /// Signed heads, ascending by size, base64.
    pub heads: Vec<String>,
    /// Every leaf, ascending.
    pub entries: Vec<AuditExportEntry>,
    /// Enrolment receipts of all hosts, base64.
    pub receipts: Vec<String>,
}

/// One leaf and its record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct AuditExportEntry {
    pub index: u64,
    pub time_ms: u64,
    /// Stable number of the kind.
    pub kind: u32,
    pub actor: String,
    pub subject: String,
    pub record_sha256: String,
    /// The record, base64; absent when pruned.
    pub record: Option<String>,
}
