//! After a restore from a backup.

use ids::{AuditLogId, HostId, HostName, Sha256};
use serde::{Deserialize, Serialize};

use crate::Timestamp;

/// Where an audit log stood.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct LogPosition {
    pub log: AuditLogId,
    /// Entries.
    pub size: u64,
    /// Merkle tree hash over them, hexadecimal.
    pub root: Sha256,
}

/// One host in a recovery.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct RecoveryHost {
    pub host_id: HostId,
    pub name: HostName,
    /// When it proved itself after the restore; absent when it has not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heard_at: Option<Timestamp>,
    /// Orders that it was given after the backup was made, at most: as far as it says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub orders_lost: Option<u64>,
    /// It has seen more of the audit log than root metadata says there was: no order goes to it before other root metadata does.
    pub is_ahead: bool,
    /// Its numbers and reports go on where it stands.
    pub is_taken_up: bool,
}

/// A host that is not known by the key that it speaks with, and showed by its enrolment receipt and the changes of its keys who it
/// is. It gets nothing before an owner has taken it back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct RecoveryClaim {
    pub host_id: HostId,
    /// When it was enrolled; of a host that the backup knows, its name there.
    pub name: HostName,
    /// Which keys the backup knows it by, counted from 1; absent when it does not know the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub known_host_epoch: Option<u64>,
    /// Which keys it speaks with.
    pub host_epoch: u64,
    /// Id of the identity key that it speaks with, hexadecimal.
    pub key_id: String,
    pub enrolled_at: Timestamp,
    pub first_heard_at: Timestamp,
    pub heard_at: Timestamp,
    /// A session key of this fleet vouches for every change of its keys.
    pub is_receipted: bool,
    /// One of the session keys that vouch for it was dropped since: whoever had stolen it could have made this.
    pub is_by_dropped_key: bool,
    /// It has seen more of the audit log than root metadata says there was.
    pub is_ahead: bool,
}

/// A host that is revoked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct RevokedHost {
    pub host_id: HostId,
    pub name: HostName,
    pub revoked_at: Timestamp,
}

/// `GET /api/v1/recovery`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct RecoveryStatus {
    /// `none` (never restored), `gathering` (root metadata of after the restore is missing), `confirming` (the list of revoked hosts
    /// is to be confirmed) or `over`.
    pub stage: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restored_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup_made_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confirmed_at: Option<Timestamp>,
    /// Where the audit log before the restore stood at least, by the backup and by all hosts heard.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_before: Option<LogPosition>,
    /// Hosts that the backup knows and that are not revoked, by name.
    pub hosts: Vec<RecoveryHost>,
    /// Hosts that wait to be taken back or refused, by name.
    #[serde(default)]
    pub claims: Vec<RecoveryClaim>,
    /// Hosts that are revoked here. One that was revoked after the backup was made is not among them.
    pub revoked: Vec<RevokedHost>,
}

/// `POST /api/v1/recovery/confirm`: which hosts are revoked, and that there are no others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct RecoveryConfirmRequest {
    /// Hosts to revoke now, because they were revoked after the backup was made.
    pub revoke: Vec<HostName>,
}

/// One claim, with the key that it was seen with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct RecoveryClaimRef {
    pub host_id: HostId,
    pub key_id: String,
}

/// `POST /api/v1/recovery/claims`: what becomes of hosts that showed who they are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct RecoveryClaimsRequest {
    /// These are hosts again, with the keys that they speak with.
    #[serde(default)]
    pub take: Vec<RecoveryClaimRef>,
    /// These are not. One that the backup does not know is revoked from now on.
    #[serde(default)]
    pub refuse: Vec<RecoveryClaimRef>,
}
