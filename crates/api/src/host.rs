//! Hosts.

use std::collections::BTreeMap;

use ids::{BootId, HostId, HostName, LabelKey, LabelValue, QuarantineId, Role, Sha256};
use serde::{Deserialize, Serialize};

use crate::Timestamp;

/// Whether a host can be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum HostStatus {
    /// A session is open.
    Connected,
    /// None is open.
    Offline,
    /// Its state and the control plane's disagree; it gets no orders.
    Quarantined,
    /// Never again.
    Revoked,
}

/// How an agent's release stands to the control plane's, when the two do not go together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum AgentRelease {
    /// Later: it is asked for what both know. The control plane should be upgraded.
    Newer,
    /// More than one release behind, which is not supported. The agent should be upgraded.
    TooOld,
}

/// `GET /api/v1/hosts`: a [`crate::Page`] of these, sorted by `name` or `enrolled_at`. Filters: `status`, `app`,
/// `selector` (`role=app,env=prod,env!=old,gpu,!spot`: all parts must hold).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct HostSummary {
    pub id: HostId,
    pub name: HostName,
    pub status: HostStatus,
    pub roles: Vec<Role>,
    #[serde(default)]
    pub labels: BTreeMap<LabelKey, LabelValue>,
    pub agent_version: String,
    /// Absent when its agent goes with this control plane.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_release: Option<AgentRelease>,
    /// Now while connected; else the end of its last session; absent before the first.
    pub last_seen: Option<Timestamp>,
    /// How far its clock was ahead of the control plane's time when its last session opened, in milliseconds; behind, if
    /// negative. Absent when its agent does not say so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock_skew_ms: Option<i64>,
}

/// `GET /api/v1/hosts/{name}`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct HostDetail {
    #[serde(flatten)]
    pub summary: HostSummary,
    pub enrolled_at: Timestamp,
    pub host_epoch: u64,
    /// Ed25519 public key, base64.
    pub identity_key: String,
    /// X25519 public key secrets are sealed to, base64.
    pub sealing_key: String,
    /// The signed enrolment receipt, base64.
    pub receipt: String,
    /// Signed rotations of its keys since then, base64, ascending: each leads from the keys before it to the next.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub key_changes: Vec<String>,
    pub root_version: u64,
    pub highest_sequence: u64,
    pub acknowledged_sequence: u64,
    pub last_report_sequence: u64,
    /// Why it is quarantined, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quarantine_reason: Option<String>,
    /// What is known of its quarantine, while it is in one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quarantine: Option<HostQuarantine>,
    /// Since when its keys are the ones on record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keys_since: Option<Timestamp>,
    /// It is revoked because it left the fleet when it was told to: its secrets are gone there.
    #[serde(default)]
    pub retired: bool,
    /// `name@version` of each action its agent has.
    pub actions: Vec<String>,
    /// Apps it carries.
    pub apps: Vec<String>,
}

/// A host's quarantine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct HostQuarantine {
    /// Absent when it began before this was noted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// Someone else signed orders for it, or showed it another audit log: only an owner ends this.
    pub is_alarm: bool,
    /// The quarantine that somebody said shall end: it ends with the next session of its agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub release: Option<QuarantineId>,
    /// Agents that say they are this host and in quarantine, latest first. Two are two machines.
    pub agents: Vec<QuarantinedAgent>,
    /// Commands sent to it that have no end: they may have run.
    pub commands_open: u64,
}

/// What an agent in quarantine said of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct QuarantinedAgent {
    pub quarantine_id: QuarantineId,
    /// When it said so last.
    pub seen_at: Timestamp,
    /// The kernel's id of its boot.
    pub boot_id: BootId,
    pub host_epoch: u64,
    pub highest_sequence: u64,
    pub last_report_sequence: u64,
    /// Why it cannot be released, in words; absent when it can.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hindrance: Option<String>,
}

/// `POST /api/v1/hosts/{name}/quarantine/release`, answered with [`HostReleaseResponse`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct HostReleaseRequest {
    /// Which agent's; may be left out when there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quarantine_id: Option<QuarantineId>,
}

/// What comes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct HostReleaseResponse {
    /// The quarantine that ends with this or the next session of its agent. Absent when no agent has named one yet: the
    /// next that comes is told to, and then it is to be asked again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quarantine_id: Option<QuarantineId>,
}

/// `POST /api/v1/hosts/{name}/rename`, answered with the host's [`HostSummary`]. Receipts keep the name the
/// host was enrolled with: what is signed rests on its id. Join tokens that name the old or the new name
/// and were not used become void.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct HostRenameRequest {
    pub name: HostName,
}

/// `PATCH /api/v1/hosts/{name}/labels`, answered with the host's [`HostSummary`]. Labels that are not named stay.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct HostLabelRequest {
    /// Labels to set; `null` takes one away. `role` cannot be a label.
    pub labels: BTreeMap<LabelKey, Option<LabelValue>>,
}

/// `POST /api/v1/hosts`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct JoinTokenRequest {
    pub name: HostName,
    #[serde(default)]
    pub roles: Vec<Role>,
    /// How long the token lives, in seconds; 15 minutes when absent, at most 7 days.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_seconds: Option<u64>,
}

/// The join token. Shown once, works once.
#[derive(Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct JoinTokenResponse {
    pub token: String,
    pub name: HostName,
    pub roles: Vec<Role>,
    pub expires_at: Timestamp,
}

/// An agent's program that the control plane serves at `/agents/SHA256`, to anyone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct AgentProgram {
    /// As `uname -m` prints it, such as `x86_64`.
    pub architecture: String,
    /// SHA-256 of the program, hexadecimal.
    pub sha256: Sha256,
    /// Its length in bytes.
    pub size_bytes: u64,
}
