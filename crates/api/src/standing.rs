//! Standing orders: what hosts run by themselves at set times.

use ids::{ActionName, HostName, KeyId, OperationId, StandingOrderId, UserName};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::Timestamp;

/// How a standing order stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum StandingOrderState {
    /// On its way to its host, or waits for people to approve it.
    Installing,
    /// Its host has it.
    Installed,
    /// Its host never took it.
    Refused,
    /// Its host is told to drop it.
    Dropping,
    /// Its host has dropped it.
    Dropped,
}

/// One line of `GET /api/v1/standing-orders`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct StandingOrderSummary {
    pub standing_order_id: StandingOrderId,
    pub host: HostName,
    pub action: ActionName,
    pub action_version: u32,
    /// Five fields, as in crontab(5).
    pub schedule: String,
    /// A name of the IANA time zone database.
    pub zone: String,
    pub valid_until: Timestamp,
    /// How long it goes on without a session of its host.
    pub alone_for_seconds: u64,
    pub state: StandingOrderState,
    /// The last that its host has taken; absent before it took any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<u64>,
    /// The command key that signed that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signed_by: Option<KeyId>,
    /// It does not run on its host until it is signed anew, which happens by itself. Absent when it is not known which
    /// command key is in use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outdated: Option<bool>,
    /// Why what was ordered last did not come about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    pub requested_by: UserName,
    pub created_at: Timestamp,
    /// What was ordered last about it.
    pub operation_id: OperationId,
}

/// `POST /api/v1/standing-orders`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct StandingOrderRequest {
    /// Chosen by the client: the same request sent twice is one operation.
    pub operation_id: OperationId,
    pub host: HostName,
    pub action: String,
    /// By the action's schema.
    #[serde(default)]
    pub parameters: Value,
    /// Five fields, as in crontab(5); names of months and days are not taken.
    pub schedule: String,
    /// A name of the IANA time zone database.
    pub zone: String,
    /// How long from now on it is valid: at most 399 days; 365 unless said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub valid_for_seconds: Option<u64>,
    /// How long it goes on without a session of its host: at most 365 days; 30 unless said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alone_for_seconds: Option<u64>,
}

/// `POST /api/v1/standing-orders/{id}/drop`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct StandingDropRequest {
    /// Chosen by the client.
    pub operation_id: OperationId,
    /// Where it stands: also of one that is not on record here.
    pub host: HostName,
}
