//! The export itself: what `serverflow audit verify` reads, and the REST API gives out, as JSON.
//! Envelopes and records are base64 (RFC 4648, with padding), hashes hexadecimal, kinds words.

use ids::{Sha256, UnixMs};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::audit::AuditKind;

/// An audit log, whole, with what is needed to verify it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuditExport {
    /// Root metadata envelopes from version 1, ascending.
    #[serde(with = "envelopes")]
    pub root_chain: Vec<Vec<u8>>,
    /// Signed heads, in any order. At least the newest.
    #[serde(with = "envelopes")]
    pub heads: Vec<Vec<u8>>,
    /// The enrolment receipt of every host there ever was.
    #[serde(with = "envelopes")]
    pub receipts: Vec<Vec<u8>>,
    /// Every entry from the first, ascending.
    pub entries: Vec<ExportedEntry>,
}

/// One entry of the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExportedEntry {
    /// From 0.
    pub index: u64,
    pub time: UnixMs,
    #[serde(with = "kind")]
    pub kind: AuditKind,
    /// Who; in words for people, and part of what is hashed.
    pub actor: String,
    /// About what; in words for people, and part of what is hashed.
    pub subject: String,
    pub record_sha256: Sha256,
    /// What the hash is of: the envelope for orders and reports. Absent when it was pruned.
    #[serde(with = "record", default, skip_serializing_if = "Option::is_none")]
    pub record: Option<Vec<u8>>,
}

fn to_text(bytes: &[u8]) -> String {
    data_encoding::BASE64.encode(bytes)
}

fn from_text<E: de::Error>(text: &str) -> Result<Vec<u8>, E> {
    data_encoding::BASE64.decode(text.as_bytes()).map_err(|error| E::custom(format!("not base64: {error}")))
}

mod envelopes {
    use super::*;

    pub(super) fn serialize<S: Serializer>(list: &[Vec<u8>], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(list.iter().map(|bytes| to_text(bytes)))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Vec<u8>>, D::Error> {
        let texts = Vec::<String>::deserialize(deserializer)?;
        texts.iter().map(|text| from_text(text)).collect()
    }
}

mod record {
    use super::*;

    #[allow(clippy::ref_option, reason = "serde's `with` passes a reference to the field")]
    pub(super) fn serialize<S: Serializer>(record: &Option<Vec<u8>>, serializer: S) -> Result<S::Ok, S::Error> {
        record.as_ref().map(|bytes| to_text(bytes)).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<u8>>, D::Error> {
        Option::<String>::deserialize(deserializer)?.map(|text| from_text(&text)).transpose()
    }
}

mod kind {
    use super::*;

    #[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's `with` passes a reference to the field")]
    pub(super) fn serialize<S: Serializer>(kind: &AuditKind, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(kind.as_str())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<AuditKind, D::Error> {
        let word = String::deserialize(deserializer)?;
        let found = AuditKind::ALL.iter().find(|kind| kind.as_str() == word);
        found
            .copied()
            .ok_or_else(|| de::Error::custom(format!("{word:?} is not a kind of audit entry this program knows")))
    }
}
