//! Accounts, their sessions and their API tokens.

use ids::{ApiTokenId, SessionId, UserId, UserName};
use serde::{Deserialize, Serialize};

use crate::Timestamp;

/// One account: `GET /api/v1/users` (a [`crate::Page`] of these, by name unless `sort` says `created_at`;
/// filters: `role`, and `status`: `active` or `disabled`), `GET /api/v1/users/{name}`, and the answer to a change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct UserSummary {
    pub id: UserId,
    pub name: UserName,
    /// `viewer`, `operator`, `admin` or `owner`.
    pub role: String,
    pub created_at: Timestamp,
    /// Since when nobody signs in with it, if so.
    pub disabled_at: Option<Timestamp>,
}

/// `POST /api/v1/users`
#[derive(Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct UserCreateRequest {
    pub name: UserName,
    /// `viewer`, `operator`, `admin` or `owner`.
    pub role: String,
    /// 12 characters to 1024 bytes.
    pub password: String,
}

/// `PUT /api/v1/users/{name}/role`
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct UserRoleRequest {
    /// `viewer`, `operator`, `admin` or `owner`.
    pub role: String,
}

/// `PUT /api/v1/users/{name}/password`. Every session of the account ends.
#[derive(Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct UserPasswordRequest {
    /// 12 characters to 1024 bytes.
    pub password: String,
    /// The password it has now; needed for the own account.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub old_password: Option<String>,
}

/// Whether anybody signs in with an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum UserStatus {
    Active,
    Disabled,
}

/// One open session: `GET /api/v1/sessions`, a [`crate::Page`] of these, newest first unless `sort` says
/// `created_at` or `expires_at`. Filters: `user` (another account than the own one), `address`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct SessionSummary {
    pub id: SessionId,
    pub user: UserName,
    pub created_at: Timestamp,
    pub expires_at: Timestamp,
    /// The address it was made from; empty when there was none.
    pub address: String,
    /// Whether it is the one that asks.
    pub current: bool,
}

/// `POST /api/v1/tokens`: an API token of the own account.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct TokenRequest {
    /// What it is for, at most 64 characters.
    #[serde(default)]
    pub name: String,
    /// The most it may do; at most the own role, and the own role when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// 60 to 31,622,400 (366 days); 30 days when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_seconds: Option<u64>,
}

/// Whether an API token is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum TokenStatus {
    Active,
    Expired,
    Revoked,
    /// Its account is disabled.
    Disabled,
}

/// One API token: `GET /api/v1/tokens`, a [`crate::Page`] of these, newest first unless `sort` says
/// `created_at` or `expires_at`. Filters: `user` (another account than the own one), `status`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct TokenSummary {
    pub id: ApiTokenId,
    pub name: String,
    pub user: UserName,
    /// What it may do now: at most the account's role.
    pub role: String,
    pub status: TokenStatus,
    pub created_at: Timestamp,
    pub expires_at: Timestamp,
    /// To within an hour.
    pub last_used_at: Option<Timestamp>,
}

/// Answer to `POST /api/v1/tokens`. The token is shown once; send it as `Authorization: Bearer TOKEN`.
#[derive(Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct TokenResponse {
    pub token: String,
    #[serde(flatten)]
    pub summary: TokenSummary,
}
