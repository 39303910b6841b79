//! The control plane's own keys, and changes of them.

use serde::{Deserialize, Serialize};

use crate::Timestamp;

/// Which of the control plane's own keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum KeyRole {
    /// Signs orders; the signer alone holds it.
    Command,
    /// Signs the control plane's hellos and receipts.
    Session,
    /// Signs heads of the audit log.
    Audit,
    /// Answers agents that dial; pinned.
    Tls,
}

/// How one of them stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum KeyState {
    /// It signs or answers now.
    InUse,
    /// Root metadata lists it, and it is not in use.
    Listed,
    /// It is made, and not in root metadata yet.
    Unlisted,
    /// Root metadata dropped it, and it is not destroyed yet.
    Void,
}

/// How far a change is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum KeyChangeState {
    /// Root metadata is to list the fresh key.
    Prepared,
    /// Hosts are to take root metadata that lists it.
    Published,
    /// The new key is in use; root metadata is to drop the old one.
    Activated,
    /// Given up; root metadata is to drop the fresh key if it lists it.
    Withdrawn,
    /// Done: the old key is destroyed.
    Retired,
    /// Given up: the fresh key is destroyed, or another change took over.
    Aborted,
}

/// `GET /api/v1/keys`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct KeyList {
    /// Those that root metadata lists, and those that are held.
    pub keys: Vec<KeySummary>,
    /// Changes of them, the open ones first, then the newest.
    pub changes: Vec<KeyChangeSummary>,
    /// What keeps this from being complete: a signer that does not answer. Its keys are shown as root metadata has them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// One of the control plane's own keys. The private half is nowhere in this API.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct KeySummary {
    pub role: KeyRole,
    /// The public key, hexadecimal; of a TLS key, the SHA-256 of its SubjectPublicKeyInfo.
    pub key: String,
    /// Its id; TLS keys have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_id: Option<String>,
    pub state: KeyState,
    /// False when root metadata lists it and nobody here holds it.
    pub held: bool,
    /// When it was made, or listed first. Absent when neither is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub made_at: Option<Timestamp>,
    /// When its rotation is advised; only for keys in use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotation_due_at: Option<Timestamp>,
}

/// A change of one of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct KeyChangeSummary {
    pub role: KeyRole,
    pub state: KeyChangeState,
    /// The old key was in wrong hands.
    pub emergency: bool,
    /// In use before, as in [`KeySummary`].
    pub old_key: String,
    /// In use after.
    pub new_key: String,
    /// The one made for this change: the new key, or the TLS key after it.
    pub fresh_key: String,
    pub begun_by: String,
    pub begun_at: Timestamp,
    /// When it reached its state.
    pub moved_at: Timestamp,
    /// It has stood still for longer than it should.
    pub stuck: bool,
    /// Version of root metadata under which it was published.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root_version: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub activated_at: Option<Timestamp>,
    /// Somebody said not to wait for all hosts.
    pub activate_anyway: bool,
    /// Hosts that are waited for, with those that hold that version. Zero before there is one, and for changes that ended.
    pub hosts: u64,
    /// Of those, the ones that hold it.
    pub hosts_acknowledged: u64,
    /// The others by name, at most 100.
    pub hosts_waiting: Vec<String>,
    /// Hosts in quarantine that do not hold it; nobody waits for them. At most 100.
    pub hosts_quarantined: Vec<String>,
    /// Hosts that were enrolled and never came; likewise.
    pub hosts_never_seen: Vec<String>,
    /// Orders under way that the old command key may have signed: a host that drops it does not start them any more.
    pub orders_under_way: u64,
    /// Standing orders that rest on the old command key: a host that drops it runs them no more until they are signed anew,
    /// which is under way.
    #[serde(default)]
    pub standing_orders: u64,
}

/// `POST /api/v1/keys/command/revocation`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct KeyRevocationRequest {
    /// The command key in wrong hands: its public key, hexadecimal, as root metadata lists it.
    pub key: String,
}
