//! Operations, actions and apps.

use std::collections::BTreeMap;

use ids::{AppName, CommandId, HostName, OperationId, UserName};
use serde::{Deserialize, Serialize};
use zeroize::Zeroize as _;

use crate::{CommandStatus, FileProblem, Timestamp};

/// `POST /api/v1/operations`. The client chooses the id, so that a retried request is the same
/// request: 202 when it was taken up, 200 with the operation as it stands when it was known already,
/// 409 when the id belongs to another request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum OperationRequest {
    /// One action on some hosts.
    Single(SingleRequest),
    /// Plan, then deploy.
    Deploy(DeployRequest),
    /// As `deploy`, from Compose files that the control plane reads and seals.
    DeployBundle(DeployBundleRequest),
}

/// One action on some hosts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct SingleRequest {
    pub operation_id: OperationId,
    /// Action name, such as `host.facts`; the newest version the control plane knows.
    pub action: String,
    /// Hosts by name. For actions on an app, empty means every host that carries it.
    #[serde(default)]
    pub hosts: Vec<HostName>,
    /// Instead of names: which hosts, as in `GET /api/v1/hosts`. Resolved when the operation is made, to hosts that
    /// may get orders; for actions on an app, to those of them that carry it. None at all is an error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<String>,
    pub parameters: serde_json::Value,
    #[serde(default)]
    pub sealed: BTreeMap<HostName, Vec<SealedValue>>,
    #[serde(default)]
    pub dry_run: bool,
    /// How long it may wait for a host that is away, in seconds; 10 minutes when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue_for_seconds: Option<u64>,
}

/// A deploy of one app to one or more hosts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct DeployRequest {
    pub operation_id: OperationId,
    #[serde(default)]
    pub hosts: Vec<HostName>,
    /// As in [`SingleRequest::selector`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<String>,
    /// An `actions::spec::AppSpec`.
    pub spec: serde_json::Value,
    /// Values sealed to each host.
    #[serde(default)]
    pub sealed: BTreeMap<HostName, Vec<SealedValue>>,
    /// The same values sealed to every owner recovery key in force, so that the app can be brought to another host
    /// when this one is gone. Not with `dry_run`. Absent: the secrets cannot be recovered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recovery: Option<RecoveryCopy>,
    #[serde(default)]
    pub dry_run: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue_for_seconds: Option<u64>,
    /// Within how many seconds every service must be healthy, or all is put back: 1 to 1200; 120 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub healthy_within_seconds: Option<u64>,
    /// For how many seconds each service must stay healthy before it counts: at most 600, and not above the
    /// other; 2 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_healthy_seconds: Option<u64>,
}

/// A deploy of the app that some Compose files describe. The control plane reads them as the CLI does, with
/// nothing but what is in the request, and seals every secret to each host before anything is stored; who
/// must not trust it with plaintext uses the CLI, which seals before anything is sent. Sent again with the
/// same id it is the same request if the specification and the names of what is sealed are the same.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct DeployBundleRequest {
    pub operation_id: OperationId,
    #[serde(default)]
    pub hosts: Vec<HostName>,
    /// As in [`SingleRequest::selector`]. Sent again with the same id, the hosts are those of the first time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<String>,
    /// Contents by path, relative and plain: the Compose files and all they name. A `.env` beside the first
    /// Compose file stands behind `variables`.
    pub files: BTreeMap<String, BundleFile>,
    /// The Compose files among them, each merged over those before it.
    pub order: Vec<String>,
    #[serde(default)]
    pub variables: BTreeMap<String, String>,
    #[serde(default)]
    pub profiles: Vec<String>,
    /// Name of the app; wins over the files' own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<AppName>,
    #[serde(default)]
    pub dry_run: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue_for_seconds: Option<u64>,
    /// Within how many seconds every service must be healthy, or all is put back: 1 to 1200; 120 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub healthy_within_seconds: Option<u64>,
    /// For how many seconds each service must stay healthy before it counts: at most 600, and not above the
    /// other; 2 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_healthy_seconds: Option<u64>,
}

/// What one file holds.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(untagged)]
pub enum BundleFile {
    /// UTF-8 text.
    Text(String),
    /// Any bytes.
    Bytes(BundleBytes),
}

/// Bytes that are no text.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct BundleBytes {
    /// RFC 4648 section 4.
    pub base64: String,
}

impl core::fmt::Debug for DeployBundleRequest {
    /// Shows paths and names only: contents and variables hold secrets.
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("DeployBundleRequest")
            .field("operation_id", &self.operation_id)
            .field("hosts", &self.hosts)
            .field("selector", &self.selector)
            .field("files", &self.files.keys())
            .field("order", &self.order)
            .field("variables", &self.variables.keys())
            .finish_non_exhaustive()
    }
}

impl Drop for DeployBundleRequest {
    fn drop(&mut self) {
        self.variables.values_mut().for_each(|value| value.zeroize());
        for file in self.files.values_mut() {
            match file {
                BundleFile::Text(text) | BundleFile::Bytes(BundleBytes { base64: text }) => text.zeroize(),
            }
        }
    }
}

/// One value sealed to one host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct SealedValue {
    pub name: String,
    /// HPKE encapsulated key and ciphertext, base64.
    pub sealed: String,
}

/// The secrets of a deploy, sealed to a key of their own, which is sealed to each owner recovery key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct RecoveryCopy {
    pub keys: Vec<WrappedKey>,
    /// In the order of their names.
    pub values: Vec<SealedValue>,
}

/// The key of a recovery copy, sealed to one owner recovery key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct WrappedKey {
    /// Its public half, in hexadecimal.
    pub recovery_key: String,
    /// HPKE encapsulated key and ciphertext, base64.
    pub sealed: String,
}

/// `GET /api/v1/operations/{id}/release`: what a deploy was made of.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ReleaseDetail {
    pub operation_id: OperationId,
    pub app: AppName,
    /// An `actions::spec::AppSpec`.
    pub spec: serde_json::Value,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub healthy_within_seconds: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_healthy_seconds: Option<u64>,
    /// Absent when nothing was sealed, or not to the owner.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recovery: Option<RecoveryCopy>,
}

/// `PUT /api/v1/operations/{id}/recovery`: the recovery keys that open a deploy's secrets from now on. All that root
/// metadata lists, and no other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct RecoveryRewrapRequest {
    pub keys: Vec<WrappedKey>,
}

/// Answer to a proposal, and `GET /api/v1/operations/{id}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct OperationResponse {
    pub operation_id: OperationId,
    pub state: OperationState,
    /// What its hosts were selected by; absent when they were named. What it came to are the hosts of the commands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<String>,
    /// How many people must approve what it changes; absent when nobody has to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approvals_needed: Option<u32>,
    /// Every command so far; a later stage appears when the one before is in.
    pub commands: Vec<OperationCommand>,
    /// Worth knowing about the files of a `deploy_bundle`; only in the answer to that request.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<FileProblem>,
}

/// `GET /api/v1/operations`: a [`crate::Page`] of these, sorted by `created_at`, newest first unless asked
/// otherwise. Filters: `requested_by`, and `since` and `until` (times; the former included).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct OperationSummary {
    pub operation_id: OperationId,
    /// `single` or `deploy`.
    pub kind: String,
    pub state: OperationState,
    pub requested_by: UserName,
    pub created_at: Timestamp,
    pub dry_run: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<String>,
    /// How many of its commands stand where.
    pub commands: BTreeMap<CommandStatus, u64>,
}

/// Whether an operation goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum OperationState {
    /// Some command has no end, or a stage is still to come.
    Running,
    /// Everything ended well.
    Succeeded,
    /// Everything ended, something otherwise than well.
    Failed,
}

/// One command of an operation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct OperationCommand {
    pub command_id: CommandId,
    pub host: HostName,
    /// `name@version`.
    pub action: String,
    pub status: CommandStatus,
    pub message: String,
    /// The verified result, once there is one. Left out of answers that would become too large:
    /// see the command itself then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<serde_json::Value>,
}

/// Data of a server-sent event on `…/events`; the event's name is the tag. The stream begins with one
/// `command` event per known command. `/operations/{id}/events` ends after an `operation` event,
/// `/commands/{id}/events` after the `command` event with the command's end. A stream that ends
/// without them was cut (an hour's age, a restart, a sign-out): open it again, it begins with the
/// present state. Comments keep it alive; a status may be skipped, none is told twice.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// A command's status changed.
    Command { command_id: CommandId, host: HostName, action: String, status: CommandStatus, message: String },
    /// A running command says something. Lossy.
    Progress { command_id: CommandId, host: HostName, text: String },
    /// A piece of a command's stream, from that offset (bytes) on. Only of `/output`.
    Output { command_id: CommandId, host: HostName, offset: u64, text: String },
    /// The whole operation, when it ended.
    Operation { operation: OperationResponse },
}

/// `GET /api/v1/actions`: an array of these.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ActionSummary {
    pub name: String,
    pub version: u32,
    pub title: String,
    /// `read`, `change` or `destructive`.
    pub class: String,
    pub timeout_seconds: u64,
    pub schema_sha256: String,
    /// JSON Schema of its parameters.
    pub schema: serde_json::Value,
}

/// `GET /api/v1/apps`: a [`crate::Page`] of these, sorted by `name`. Filter: `host`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct AppSummary {
    pub name: AppName,
    pub instances: Vec<AppInstance>,
}

/// An app on one host.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct AppInstance {
    pub host: HostName,
    pub release: OperationId,
    pub deployed_at: Timestamp,
    /// False when nothing could prove that it is healthy.
    pub verified: bool,
    /// `running`, `partly_stopped` or `stopped`, as the last order that succeeded left it.
    #[serde(default = "running")]
    pub state: String,
}

/// What a control plane that does not say it knows of no other.
fn running() -> String {
    "running".to_owned()
}

/// `GET /api/v1/apps/{name}`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct AppDetail {
    #[serde(flatten)]
    pub summary: AppSummary,
    /// The last deploy's result per host.
    pub results: BTreeMap<HostName, serde_json::Value>,
}
