//! Second persons: approver keys, what waits for approval, and what somebody said of it.

use ids::{CommandId, HostName, OperationId, UserName};
use serde::{Deserialize, Serialize};

use crate::{CommandStatus, Timestamp};

/// One approver key: `GET /api/v1/approvers`, an array of these. Those of accounts that may be seen by whoever asks, and
/// for admins also those in root metadata that are nobody's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ApproverSummary {
    /// Whose it is; absent when no account has registered it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<UserName>,
    pub key_id: String,
    /// 64 hexadecimal digits.
    pub public_key: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub registered_at: Option<Timestamp>,
    /// Whether root metadata lists it: only then does it count.
    pub in_force: bool,
}

/// `PUT /api/v1/users/{name}/approver`: the approver key of the own account, instead of the one before.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ApproverRequest {
    /// 64 hexadecimal digits. The private key stays on the machine that made it.
    pub public_key: String,
}

/// `GET /api/v1/commands/{id}/approval`: what somebody must see who is to approve a held command. Nothing in it needs to
/// be believed: order, plan, report and receipt are signed, or hashed in what is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ApprovalEvidence {
    pub command_id: CommandId,
    pub operation_id: OperationId,
    pub host: HostName,
    pub status: CommandStatus,
    pub message: String,
    pub requested_by: UserName,
    pub proposed_at: Timestamp,
    /// It ends when it has not reached its host by then.
    pub deliver_by: Timestamp,
    /// How many people must approve it; 0 when it needs nobody.
    pub needed: u32,
    /// The order, in the encoding that approvals and reports name the hash of, base64.
    pub order: String,
    /// The signed orders of the dry run that planned it (envelopes, base64), one for each time that it was sealed.
    pub plan_orders: Vec<String>,
    /// The host's signed report of that dry run (an envelope, base64).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan_report: Option<String>,
    /// The host's enrolment receipt (an envelope, base64), which names its identity key.
    pub receipt: String,
    /// Signed rotations of its keys since then (envelopes, base64), ascending.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub key_changes: Vec<String>,
    /// What has been said so far.
    pub approvals: Vec<ApprovalShown>,
}

/// One approval that is stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ApprovalShown {
    /// Whose key it is now; absent when it is nobody's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<UserName>,
    pub key_id: String,
    pub approved_at: Timestamp,
    pub expires_at: Timestamp,
    /// SHA-256 of the plan that was shown.
    pub plan_sha256: String,
    /// Whether the host's plan must still be that one when it begins.
    pub bind_plan: bool,
    /// Whether root metadata still lists its key.
    pub in_force: bool,
    /// The envelope, base64.
    pub envelope: String,
}

/// `POST /api/v1/operations/{id}/approvals`: all of them are taken, or none.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ApprovalRequest {
    /// Envelopes (base64), one for each host's held command, 1 to 500, signed with the own approver key.
    pub approvals: Vec<String>,
}

/// `POST /api/v1/operations/{id}/denial`: ends everything of the operation that is held.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct DenialRequest {
    /// Why, for whoever asked; at most 500 characters.
    #[serde(default)]
    pub because: String,
}
