//! Parts of a container that most leave as they are.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use zeroize::Zeroizing;

use crate::spec::{ExposedPort, UlimitSpec};

/// Settings beyond those that version 1 of a specification had. Its default is what such a container has;
/// its `Debug` form goes into the hash of the configuration, and holds no secrets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ContainerRuntime {
    pub cap_drop: Vec<String>,
    pub sysctls: BTreeMap<String, String>,
    pub ulimits: BTreeMap<String, UlimitSpec>,
    pub pids_limit: Option<i64>,
    pub extra_hosts: BTreeMap<String, Vec<String>>,
    pub hostname: Option<String>,
    pub domainname: Option<String>,
    pub dns: Vec<IpAddr>,
    pub dns_search: Vec<String>,
    pub dns_opt: Vec<String>,
    pub expose: Vec<ExposedPort>,
    /// Further names of other containers, for this one alone: name → container.
    pub links: BTreeMap<String, String>,
    pub platform: Option<String>,
    pub shm_size_bytes: Option<u64>,
    pub userns_mode: Option<String>,
    pub uts: Option<String>,
    pub mem_reservation_bytes: Option<u64>,
    pub memswap_limit_bytes: Option<i64>,
    pub mem_swappiness: Option<u8>,
    pub oom_score_adj: Option<i32>,
    pub cpu_shares: Option<u64>,
    pub cpuset: Option<String>,
    pub group_add: Vec<String>,
    pub stdin_open: bool,
    pub tty: bool,
    pub device_cgroup_rules: Vec<String>,
    pub annotations: BTreeMap<String, String>,
    /// Kernel files that the engine hides or write-protects are as they are (`systempaths=unconfined`).
    pub system_paths_open: bool,
    /// Networks among those joined that somebody else made.
    pub external_networks: BTreeSet<String>,
    /// Volumes among those mounted that somebody else made.
    pub external_volumes: BTreeSet<String>,
}

/// One file for a container. No `Debug` of its content, and no `Serialize`: it may be a secret.
#[derive(Clone)]
pub struct ContainerFile {
    /// Absolute path inside the container.
    pub target: String,
    /// What is in it.
    pub content: Zeroizing<Vec<u8>>,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Permission bits.
    pub mode: u32,
}

impl core::fmt::Debug for ContainerFile {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("ContainerFile").field("target", &self.target).finish_non_exhaustive()
    }
}
