//! Everything an action may do to a host. This list is the security review: an effect that is not
//! here cannot happen. `host` performs them against Docker; each is idempotent by name and label.

mod foreign;
mod runtime;

use std::collections::{BTreeMap, BTreeSet};

pub use foreign::{Foreign, ForeignBind};
pub use runtime::{ContainerFile, ContainerRuntime};

use ids::AppName;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::spec::{HealthcheckSpec, PortSpec, RestartPolicy};

/// Label keys by which ServerFlow knows its own things. Every clean-up filters on fleet *and* host.
pub mod label {
    /// Fleet id.
    pub const FLEET: &str = "io.serverflow.fleet";
    /// Host id.
    pub const HOST: &str = "io.serverflow.host";
    /// App name.
    pub const APP: &str = "io.serverflow.app";
    /// Service name within the app.
    pub const SERVICE: &str = "io.serverflow.service";
    /// Release (operation id) that created the container.
    pub const RELEASE: &str = "io.serverflow.release";
    /// Hash of the container's whole configuration: equal means nothing to change.
    pub const CONFIG: &str = "io.serverflow.config";
    /// Name of a network or volume as the file has it.
    pub const NAME: &str = "io.serverflow.name";
    /// Name the container was created under. One that was made by hand from an image which carries
    /// our labels (a `docker commit` of our container) has another name, and is not ours.
    pub const CONTAINER: &str = "io.serverflow.container";
}

/// One thing done to, or read from, the host. The performer adds the fleet and host labels, and
/// touches nothing that does not carry both.
#[derive(Clone, Debug)]
pub enum Effect {
    /// Reads what the engine knows of an image.
    ImageInspect { image: String },
    /// Pulls an image, for a platform if one is named; layers' progress goes to the action's progress.
    ImagePull { reference: String, platform: Option<String> },
    /// Gives an image a tag of ours, so that a prune keeps it.
    ImageTag { image: String, repository: String, tag: String },
    /// Takes a tag of ours away; absent is fine, and so is one that somebody's container still needs: it stays.
    ImageUntag { repository: String, tag: String },
    /// Reads every container, network and volume of one app on this host.
    AppObserve { app: AppName },
    /// Creates a network if absent.
    NetworkCreate { app: AppName, name: String, file_name: String, internal: bool, labels: BTreeMap<String, String> },
    /// Removes a network of ours; absent is fine.
    NetworkRemove { name: String },
    /// Creates a volume if absent.
    VolumeCreate {
        app: AppName,
        name: String,
        file_name: String,
        driver_opts: BTreeMap<String, String>,
        labels: BTreeMap<String, String>,
    },
    /// Judges what an app is to stand on and did not make itself: directories of the host, networks
    /// and volumes of others, and names of its containers that another app has. Changes nothing, but
    /// for missing directories when it is told to make them.
    ForeignCheck(Box<Foreign>),
    /// Writes the files of one container into a directory of the agent's own; one that is there is whole
    /// already, because its name is made from what is in it.
    FilesWrite { app: AppName, directory: String, files: Vec<ContainerFile> },
    /// Removes every directory of files of the app but these.
    FilesSweep { app: AppName, keep: BTreeSet<String> },
    /// Creates a container, not started. A container of that name with the same config label is left as it is.
    ContainerCreate(Box<ContainerSpec>),
    /// Starts a container; running is fine.
    ContainerStart { name: String },
    /// Stops a container within a grace period (milliseconds), then kills; stopped or absent is fine.
    ContainerStop { name: String, grace_ms: u64 },
    /// Sets when the engine starts a container again by itself. The container stays as it is otherwise.
    ContainerRestartPolicy { name: String, restart: RestartPolicy },
    /// Renames a container.
    ContainerRename { from: String, to: String },
    /// Removes a container of ours and its anonymous volumes, running or not; absent is fine.
    ContainerRemove { name: String },
    /// Reads one container.
    ContainerInspect { name: String },
    /// Reads the last lines a container wrote, both streams, oldest first.
    ContainerLogs { name: String, tail: u32 },
    /// Reads every container of the engine, ours or not (names, images, states; no environment).
    ContainersList,
    /// Reads what the host is: kernel, distribution, engine, resources.
    HostFacts,
}

/// Everything a container is made of, with the values opened. No `Serialize`: it holds secrets.
#[derive(Clone)]
pub struct ContainerSpec {
    pub app: AppName,
    pub service: String,
    pub release: String,
    pub config: String,
    pub name: String,
    /// Pinned reference or local id.
    pub image: String,
    pub command: Option<Vec<Zeroizing<String>>>,
    pub entrypoint: Option<Vec<Zeroizing<String>>>,
    pub environment: BTreeMap<String, Zeroizing<String>>,
    pub ports: Vec<PortSpec>,
    pub mounts: Vec<ContainerMount>,
    pub healthcheck: Option<ContainerHealthcheck>,
    pub restart: RestartPolicy,
    pub labels: BTreeMap<String, Zeroizing<String>>,
    pub user: Option<Zeroizing<String>>,
    pub working_dir: Option<Zeroizing<String>>,
    pub read_only: bool,
    pub init: Option<bool>,
    /// Engine network name → aliases.
    pub networks: BTreeMap<String, Vec<String>>,
    pub log_driver: String,
    pub log_options: BTreeMap<String, Zeroizing<String>>,
    pub stop_signal: Option<String>,
    pub stop_grace_period_ms: Option<u64>,
    pub mem_limit_bytes: Option<u64>,
    pub cpus_milli: Option<u64>,
    pub privileged: bool,
    pub cap_add: Vec<String>,
    pub devices: Vec<String>,
    pub network_mode: Option<String>,
    pub pid: Option<String>,
    pub ipc: Option<String>,
    /// `no-new-privileges` and the like.
    pub security_opt: Vec<String>,
    /// Settings that most containers leave as they are.
    pub runtime: ContainerRuntime,
    /// Files mounted into it read-only, from the directory that [`Effect::FilesWrite`] made.
    pub files: Vec<ContainerFile>,
}

impl ContainerSpec {
    /// Where its files lie, below the app's own directory. Made from the configuration, which covers
    /// their content, so another content is another directory, and a container that is put back finds its own.
    #[must_use]
    pub fn files_directory(&self) -> String {
        files_directory(&self.service, &self.config)
    }
}

/// The directory of files of a service's container with that configuration.
#[must_use]
pub fn files_directory(service: &str, config: &str) -> String {
    format!("{service}-{}", config.get(..FILES_DIRECTORY_DIGITS).unwrap_or(config))
}

/// Digits of the configuration's hash in the name of a directory of files.
const FILES_DIRECTORY_DIGITS: usize = 32;

impl core::fmt::Debug for ContainerSpec {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("ContainerSpec").field("name", &self.name).field("image", &self.image).finish_non_exhaustive()
    }
}

/// A mount with the engine's own names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ContainerMount {
    /// A named volume.
    Volume { volume: String, target: String, read_only: bool },
    /// A file or directory of the host, by its absolute path.
    Bind { source: String, target: String, read_only: bool, propagation: Option<String> },
    /// Memory.
    Tmpfs { target: String, size_bytes: Option<u64>, mode: Option<u32> },
}

/// A health check with its values opened: the specification for timing, the argv Docker wants
/// (`["CMD", …]`, `["CMD-SHELL", line]`, `["NONE"]`, or empty to inherit).
#[derive(Clone)]
pub struct ContainerHealthcheck {
    pub test: Vec<Zeroizing<String>>,
    pub timing: HealthcheckSpec,
}

/// What a performed effect found out.
#[derive(Clone, Debug)]
pub enum Observation {
    /// It is done (or was so already).
    Done,
    /// An image, if the engine has it.
    Image(Option<ImageState>),
    /// An app's things.
    App(AppState),
    /// A container, if it exists and is ours.
    Container(Option<ContainerState>),
    /// Log text, lossily decoded, not yet masked.
    Logs(String),
    /// A read action's result.
    Json(serde_json::Value),
}

/// An image as the engine knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageState {
    /// `sha256:…`
    pub id: String,
    /// `repository@sha256:…`, for each registry it came from.
    pub repo_digests: Vec<String>,
    /// Whether the image declares a health check.
    pub has_healthcheck: bool,
    /// `os/architecture`.
    pub platform: String,
}

/// An app's containers, networks and volumes on this host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppState {
    pub containers: Vec<ContainerState>,
    pub networks: Vec<String>,
    pub volumes: Vec<String>,
}

/// A container as the engine knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerState {
    pub id: String,
    pub name: String,
    pub service: String,
    pub release: String,
    pub config: String,
    pub image: String,
    pub run: RunState,
    pub health: Health,
    pub restart_count: u64,
    /// Exit code of its last end, while it runs or waits to be restarted; absent when it never ended.
    #[serde(default)]
    pub last_exit_code: Option<i64>,
    /// Boot-independent start time as the engine prints it (RFC 3339), empty when never started.
    pub started_at: String,
    /// Engine's words for why it could not start, if any.
    pub error: String,
    pub oom_killed: bool,
}

/// Whether a container runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunState {
    /// Made, never started.
    Created,
    /// Runs.
    Running,
    /// Between two attempts of the engine.
    Restarting,
    /// Frozen.
    Paused,
    /// Ended with this exit code.
    Exited {
        /// Exit code of the process.
        code: i64,
    },
    /// The engine could not take it down, or is taking it down.
    Dead,
}

/// What the engine's health check says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Health {
    /// No probe at all.
    None,
    /// Not decided yet.
    Starting,
    /// The last probe passed.
    Healthy,
    /// Too many failed.
    Unhealthy,
}

/// Why an effect did not happen, in words for a person.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct EffectError {
    /// What kind of failure, for the action to decide on.
    pub kind: EffectErrorKind,
    /// What happened, to what, and what to do next. Not yet masked.
    pub message: String,
}

/// Kinds of failure an action decides on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EffectErrorKind {
    /// The engine does not answer; it may come back.
    EngineUnreachable,
    /// The image does not exist, or access to it is refused.
    ImageNotFound,
    /// A name or a port is taken by something that is not ours.
    Conflict,
    /// The thing is not there.
    NotFound,
    /// The engine refused for another reason.
    Refused,
    /// The agent's own durable state could not be written; nothing more may be done.
    Journal,
}
