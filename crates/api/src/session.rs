//! Signing in.

use ids::{ApiTokenId, FleetId, UserName};
use serde::{Deserialize, Serialize};

use crate::Timestamp;

/// `POST /api/v1/session`
#[derive(Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct SignInRequest {
    pub name: UserName,
    pub password: String,
}

/// Answer to a sign-in. The token is shown once; send it as `Authorization: Bearer TOKEN`.
#[derive(Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct SignInResponse {
    pub token: String,
    pub expires_at: Timestamp,
    pub user: WhoAmI,
}

/// `GET /api/v1/session`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct WhoAmI {
    pub name: UserName,
    /// `viewer`, `operator`, `admin` or `owner`.
    pub role: String,
    /// When the session or the API token ends.
    pub expires_at: Timestamp,
    /// The API token that asks; absent for a session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_id: Option<ApiTokenId>,
}

/// `GET /api/v1/fleet/root`: what signed things are verified from. Who relies on it begins with a root key of
/// their own: this answer proves nothing about itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct FleetRoot {
    /// Root metadata envelopes from version 1, base64.
    pub root_chain: Vec<String>,
}

/// `PUT /api/v1/fleet/root`: the next version of root metadata. What it may do rests on the root keys'
/// signatures, not on who sends it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct FleetRootRequest {
    /// Its envelope with all signatures, base64.
    pub envelope: String,
}

/// `GET /api/v1/fleet`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct FleetInfo {
    pub fleet_id: FleetId,
    /// Version of the control plane.
    pub version: String,
    pub epoch: u64,
    pub root_version: u64,
    pub root_expires_at: Timestamp,
    /// `host:port` of the agents' listener.
    pub agent_addresses: Vec<String>,
}

/// `GET /health`: answered with 200 when the control plane can do its work; anything else is a problem.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Health {
    /// `ok`.
    pub status: String,
}
