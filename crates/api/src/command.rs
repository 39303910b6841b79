//! Commands: one order to one host.

use ids::{AppName, CommandId, HostName, OperationId, UserName};
use serde::{Deserialize, Serialize};

use crate::{OperationResponse, Timestamp};

/// Where a command stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum CommandStatus {
    /// Waits for people to approve it.
    Held,
    Queued,
    Delivered,
    Accepted,
    Running,
    Succeeded,
    Failed,
    RolledBack,
    Rejected,
    Expired,
    Unknown,
    Cancelled,
}

impl CommandStatus {
    /// Every status, in the order of a command's life.
    pub const ALL: [Self; 12] = [
        Self::Held,
        Self::Queued,
        Self::Delivered,
        Self::Accepted,
        Self::Running,
        Self::Succeeded,
        Self::Failed,
        Self::RolledBack,
        Self::Rejected,
        Self::Expired,
        Self::Unknown,
        Self::Cancelled,
    ];

    /// Whether nothing more can happen.
    #[must_use]
    pub const fn is_final(self) -> bool {
        !matches!(self, Self::Held | Self::Queued | Self::Delivered | Self::Accepted | Self::Running)
    }

    /// The word used in JSON, flags and tables.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Held => "held",
            Self::Queued => "queued",
            Self::Delivered => "delivered",
            Self::Accepted => "accepted",
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::RolledBack => "rolled_back",
            Self::Rejected => "rejected",
            Self::Expired => "expired",
            Self::Unknown => "unknown",
            Self::Cancelled => "cancelled",
        }
    }
}

/// `GET /api/v1/commands`: a [`crate::Page`] of these, sorted by `proposed_at`, newest first unless asked
/// otherwise. Filters: `host`, `status`, `operation`, `app`, `action`, `requested_by`, and `since` and
/// `until` (times; the former included).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct CommandSummary {
    pub command_id: CommandId,
    pub operation_id: OperationId,
    pub host: HostName,
    /// `name@version`.
    pub action: String,
    pub app: Option<AppName>,
    pub dry_run: bool,
    pub status: CommandStatus,
    pub message: String,
    pub requested_by: UserName,
    pub proposed_at: Timestamp,
    pub settled_at: Option<Timestamp>,
}

/// `GET /api/v1/commands/{id}`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct CommandDetail {
    #[serde(flatten)]
    pub summary: CommandSummary,
    /// The parameters as signed.
    pub parameters: serde_json::Value,
    /// Names of the sealed values that travel beside.
    pub sealed_values: Vec<String>,
    pub deliver_by: Timestamp,
    pub delivered_at: Option<Timestamp>,
    pub accepted_at: Option<Timestamp>,
    pub started_at: Option<Timestamp>,
    /// Every sealed version, the last one last.
    pub orders: Vec<SignedOrder>,
    pub report: Option<SignedReport>,
}

/// One sealed version of an order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct SignedOrder {
    pub sequence: u64,
    pub expires_at: Timestamp,
    /// The envelope, base64.
    pub envelope: String,
    pub payload_type: String,
    /// Id of the command key that verifies it; `none` when no key of this fleet's root metadata does.
    pub verified_by: String,
}

/// The host's signed account.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct SignedReport {
    pub sequence: u64,
    /// How the host says it ended: `succeeded`, `failed`, `rolled_back`, `cancelled`, `rejected`,
    /// `expired`, `revoked` or `unknown`.
    pub status: String,
    pub finished_at: Timestamp,
    /// The action's result, by its documented shape.
    pub result: serde_json::Value,
    /// The envelope, base64.
    pub envelope: String,
    pub payload_type: String,
    /// Id of the identity key that verifies it.
    pub verified_by: String,
}

/// `POST /api/v1/commands/{id}/cancel`. The body may be left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct CancelRequest {
    /// Id for the operation that carries the cancellation to the host, so that a retried request is
    /// the same request; made by the control plane when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation_id: Option<OperationId>,
}

/// Answer to a cancellation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct CancelResponse {
    /// The command as it stands now: `cancelled` when it had not been sent.
    pub command: CommandSummary,
    /// The order to stop it, when its host may have it already. The command's own end comes with
    /// its report; watch the command, not this operation.
    pub operation: Option<OperationResponse>,
}
