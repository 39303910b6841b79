//! The typed, fully resolved form of an app: what `compose` produces, what `app.plan` and
//! `app.deploy` carry as parameters, and what a release records. Everything is explicit; no field
//! is ever dropped silently (unknown fields are refused at decoding).

mod runtime;
mod version;

use std::collections::BTreeMap;

pub use runtime::{ExposedPort, FileSpec, PullPolicy, TextEncoding, UlimitSpec};

use ids::{AppName, ServiceName};
use serde::{Deserialize, Serialize};

/// One app: services, networks and volumes under one name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct AppSpec {
    /// Name of the app; also prefix of its containers, networks and volumes.
    #[cfg_attr(test, schemars(with = "String"))]
    pub app: AppName,
    /// Services by name. At least one.
    #[cfg_attr(test, schemars(with = "BTreeMap<String, ServiceSpec>"))]
    pub services: BTreeMap<ServiceName, ServiceSpec>,
    /// Networks by their name in the file. A service that names none joins `default`.
    #[cfg_attr(test, schemars(with = "BTreeMap<String, NetworkSpec>"))]
    pub networks: BTreeMap<ServiceName, NetworkSpec>,
    /// Named volumes by their name in the file.
    #[cfg_attr(test, schemars(with = "BTreeMap<String, VolumeSpec>"))]
    pub volumes: BTreeMap<ServiceName, VolumeSpec>,
}

/// The name of a sealed value: `service/place`, such as `web/environment/DATABASE_URL`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(transparent)]
pub struct SecretName(pub String);

/// A text that is either plain or sealed whole (because a variable reached it, or because it is an
/// environment value).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(untagged)]
pub enum Text {
    /// Readable by everyone who sees the order.
    Plain(String),
    /// Travels beside the order, sealed to the host.
    Sealed(SealedText),
}

/// A reference to a sealed value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct SealedText {
    /// Which one.
    pub sealed: SecretName,
}

/// One service: one container on this host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ServiceSpec {
    /// Image reference as written, such as `docker.io/library/nginx:1.27` or `serverflow-sample:1`.
    pub image: String,
    /// Replaces the image's command.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<Vec<Text>>,
    /// Replaces the image's entry point.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entrypoint: Option<Vec<Text>>,
    /// Environment by variable name; values always sealed.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub environment: BTreeMap<String, Text>,
    /// Published ports.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<PortSpec>,
    /// Mounts: named volumes and tmpfs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mounts: Vec<MountSpec>,
    /// Health check; absent means the image's own, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<HealthcheckSpec>,
    /// What the engine does when the container ends.
    pub restart: RestartPolicy,
    /// Labels of the container, beside ours.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, Text>,
    /// User (and group) the process runs as.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<Text>,
    /// Working directory of the process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub working_dir: Option<Text>,
    /// Root file system mounted read-only.
    #[serde(default, skip_serializing_if = "is_false")]
    pub read_only: bool,
    /// Runs an init as process 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub init: Option<bool>,
    /// Services that must have reached a condition before this one starts.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[cfg_attr(test, schemars(with = "BTreeMap<String, DependencyCondition>"))]
    pub depends_on: BTreeMap<ServiceName, DependencyCondition>,
    /// Networks joined, by name in the file, with extra aliases.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[cfg_attr(test, schemars(with = "BTreeMap<String, Vec<String>>"))]
    pub networks: BTreeMap<ServiceName, Vec<String>>,
    /// Log driver; absent means json-file, rotated at 10 MB, 3 files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logging: Option<LoggingSpec>,
    /// Signal that asks the process to end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_signal: Option<String>,
    /// How long it may take to end before it is killed, in milliseconds; absent means 10 s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_grace_period_ms: Option<u64>,
    /// Memory limit in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mem_limit_bytes: Option<u64>,
    /// CPU limit in thousandths of a core.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpus_milli: Option<u64>,
    /// All privileges of the host. Only if the host's policy says yes.
    #[serde(default, skip_serializing_if = "is_false")]
    pub privileged: bool,
    /// Capabilities on top of the engine's default. Only if the host's policy says yes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cap_add: Vec<String>,
    /// Devices (`/dev/x:/dev/y:rwm`). Only if the host's policy says yes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub devices: Vec<String>,
    /// `host`, `none`, `service:x` or `container:x`. `host` and `container:` only if the host's policy says yes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network_mode: Option<String>,
    /// PID namespace. Only if the host's policy says yes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<String>,
    /// IPC namespace. Only if the host's policy says yes (`private` and `none` always may).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipc: Option<String>,
    // From here on: version 2 of the schemas that carry a specification.
    /// Capabilities taken from the engine's default, upper case without `CAP_`; `ALL` takes them all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cap_drop: Vec<String>,
    /// Security options as the engine takes them, such as `seccomp=unconfined`. What loosens the
    /// default only if the host's policy says yes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub security_opt: Vec<String>,
    /// Kernel parameters of the container's own namespaces.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub sysctls: BTreeMap<String, String>,
    /// Resource limits of the process (`setrlimit(2)`), by name such as `nofile`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub ulimits: BTreeMap<String, UlimitSpec>,
    /// Processes at most; -1 for no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pids_limit: Option<i64>,
    /// Names in the container's `/etc/hosts`, with their addresses or `host-gateway`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub extra_hosts: BTreeMap<String, Vec<String>>,
    /// Host name inside the container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// NIS domain name inside the container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domainname: Option<String>,
    /// Resolvers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dns: Vec<std::net::IpAddr>,
    /// Search domains of the resolver.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dns_search: Vec<String>,
    /// Options of the resolver, such as `ndots:2`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dns_opt: Vec<String>,
    /// Ports that are declared and not published.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub expose: Vec<ExposedPort>,
    /// Further names under which this service alone reaches another: name → service.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[cfg_attr(test, schemars(with = "BTreeMap<String, String>"))]
    pub links: BTreeMap<String, ServiceName>,
    /// Platform to pull and run, `os/architecture[/variant]`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<String>,
    /// When the image is pulled; absent means: when the host has no image of that name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pull_policy: Option<PullPolicy>,
    /// Size of `/dev/shm` in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shm_size_bytes: Option<u64>,
    /// User namespace: `host` alone is known. Only if the host's policy says yes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub userns_mode: Option<String>,
    /// UTS namespace: `host` alone is known. Only if the host's policy says yes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uts: Option<String>,
    /// Memory the engine tries to leave the container under pressure, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mem_reservation_bytes: Option<u64>,
    /// Memory and swap together in bytes; -1 for no limit of swap.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memswap_limit_bytes: Option<i64>,
    /// Readiness to swap, 0 to 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mem_swappiness: Option<u8>,
    /// How readily the kernel kills it when memory runs out, -1000 to 1000. Below 0 only if the host's policy says yes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oom_score_adj: Option<i32>,
    /// Weight of CPU time against others, 2 to 262144; the engine's default is 1024.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_shares: Option<u64>,
    /// Cores it may use, such as `0-2,4`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpuset: Option<String>,
    /// Further groups of the process, by name or number.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub group_add: Vec<String>,
    /// Standard input stays open.
    #[serde(default, skip_serializing_if = "is_false")]
    pub stdin_open: bool,
    /// A terminal is allocated.
    #[serde(default, skip_serializing_if = "is_false")]
    pub tty: bool,
    /// Rules of the device control group. Only if the host's policy says yes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub device_cgroup_rules: Vec<String>,
    /// OCI annotations of the container.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Files that travel with the order (`configs`, `secrets`), each sealed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<FileSpec>,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's skip_serializing_if passes a reference")]
fn is_false(flag: &bool) -> bool {
    !*flag
}

/// One published port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct PortSpec {
    /// Address of the host to listen on. `0.0.0.0` when the file names none; policy judges it.
    #[cfg_attr(test, schemars(with = "String"))]
    pub host_ip: std::net::IpAddr,
    /// Port on the host; absent lets the engine choose.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_port: Option<u16>,
    /// Port inside the container.
    pub container_port: u16,
    /// Transport.
    pub protocol: PortProtocol,
}

/// Transport of a published port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum PortProtocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// One mount.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(tag = "type", rename_all = "lowercase", deny_unknown_fields)]
pub enum MountSpec {
    /// A named volume of this app.
    Volume {
        /// Its name in the file.
        #[cfg_attr(test, schemars(with = "String"))]
        volume: ServiceName,
        /// Absolute path inside the container.
        target: String,
        /// Whether the container may not write.
        #[serde(default, skip_serializing_if = "is_false")]
        read_only: bool,
    },
    /// A file or directory of the host. Only below `<root>/<app>/` of an allowed root. (Version 2.)
    Bind {
        /// Absolute path on the host; or beginning with `./`, below `<first allowed root>/<app>/`.
        source: String,
        /// Absolute path inside the container.
        target: String,
        /// Whether the container may not write.
        #[serde(default, skip_serializing_if = "is_false")]
        read_only: bool,
        /// Makes the directory (root, 0755) if it is not there; without it an absent source is refused.
        #[serde(default, skip_serializing_if = "is_false")]
        create: bool,
        /// Mount propagation: `rprivate` (the default), `private`, `rslave`, `slave`, `rshared`, `shared`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        propagation: Option<String>,
    },
    /// A temporary file system in memory.
    Tmpfs {
        /// Absolute path inside the container.
        target: String,
        /// Size limit in bytes.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        size_bytes: Option<u64>,
        /// Permission bits, such as 0o1777.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        mode: Option<u32>,
    },
}

/// How the engine judges health.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct HealthcheckSpec {
    /// The probe; `Disabled` switches the image's own off.
    pub test: HealthTest,
    /// Time between probes, in milliseconds; absent means the engine's 30 s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval_ms: Option<u64>,
    /// Time one probe may take, in milliseconds; absent means the engine's 30 s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// Failed probes in a row until unhealthy; absent means the engine's 3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retries: Option<u32>,
    /// Time in which failed probes do not count, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_period_ms: Option<u64>,
}

/// The probe of a health check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum HealthTest {
    /// No probe, not even the image's.
    Disabled,
    /// The image's own probe, with other timing.
    Inherit,
    /// An argv inside the container.
    Command(Vec<Text>),
    /// A line for the container's own shell.
    Shell(Text),
}

/// What the engine does when the container ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum RestartPolicy {
    /// Leaves it ended.
    No,
    /// Starts it again, also after the engine restarts.
    Always,
    #[default]
    /// As `Always`, unless someone stopped it. The default for services no one waits to complete.
    UnlessStopped,
    /// Starts it again after a non-zero exit, at most so many times (absent: no limit).
    OnFailure {
        /// Limit of attempts.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        max_attempts: Option<u32>,
    },
}

/// What a dependency must have reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum DependencyCondition {
    /// Its container runs.
    ServiceStarted,
    /// Its health check passes.
    ServiceHealthy,
    /// It ended with exit code 0.
    ServiceCompletedSuccessfully,
}

/// Log driver and its options.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct LoggingSpec {
    /// Driver name.
    pub driver: String,
    /// Options as the driver takes them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub options: BTreeMap<String, Text>,
}

/// One network.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct NetworkSpec {
    /// Name on the engine of a network that somebody else made; it is joined, never changed. Only if
    /// the host's policy says yes. (Version 2.)
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external: Option<String>,
    /// No way out of it.
    #[serde(default, skip_serializing_if = "is_false")]
    pub internal: bool,
    /// Labels beside ours.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

/// One named volume.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct VolumeSpec {
    /// Name on the engine of a volume that somebody else made; it is used, never removed. Only if
    /// the host's policy says yes. (Version 2.)
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external: Option<String>,
    /// Options of the `local` driver. They can mount any path of the host, so only if its policy says yes.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub driver_opts: BTreeMap<String, String>,
    /// Labels beside ours.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

/// An image reference resolved on the host to something that cannot change under us.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct PinnedImage {
    /// The reference as the specification has it.
    pub reference: String,
    /// `repository@sha256:…`, or the id `sha256:…` of a local image that no registry knows.
    pub pinned: String,
    /// True when `pinned` is a local id.
    #[serde(default, skip_serializing_if = "is_false")]
    pub local: bool,
}
