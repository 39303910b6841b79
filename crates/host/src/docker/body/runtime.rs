//! Settings that most containers leave as they are. What is not set is not sent.

use std::{collections::HashMap, path::Path};

use actions::effect::{ContainerRuntime, ContainerSpec};
use bollard::models::{
    ContainerCreateBody, HostConfig, Mount, MountBindOptions, MountBindOptionsPropagationEnum as Propagation,
    MountType, ResourcesUlimits,
};

use super::saturating;

fn some<T: Clone>(list: &[T]) -> Option<Vec<T>> {
    (!list.is_empty()).then(|| list.to_vec())
}

fn map(pairs: &std::collections::BTreeMap<String, String>) -> Option<HashMap<String, String>> {
    (!pairs.is_empty()).then(|| pairs.clone().into_iter().collect())
}

pub(super) fn of_container(body: ContainerCreateBody, runtime: &ContainerRuntime) -> ContainerCreateBody {
    ContainerCreateBody {
        hostname: runtime.hostname.clone(),
        domainname: runtime.domainname.clone(),
        open_stdin: runtime.stdin_open.then_some(true),
        tty: runtime.tty.then_some(true),
        ..body
    }
}

pub(super) fn of_host(config: HostConfig, runtime: &ContainerRuntime) -> HostConfig {
    let hosts: Vec<String> = runtime
        .extra_hosts
        .iter()
        .flat_map(|(name, addresses)| addresses.iter().map(move |address| format!("{name}:{address}")))
        .collect();
    let ulimits: Vec<ResourcesUlimits> = runtime
        .ulimits
        .iter()
        .map(|(name, limit)| ResourcesUlimits {
            name: Some(name.clone()),
            soft: Some(limit.soft),
            hard: Some(limit.hard),
        })
        .collect();
    let dns: Vec<String> = runtime.dns.iter().map(ToString::to_string).collect();
    HostConfig {
        cap_drop: some(&runtime.cap_drop),
        sysctls: map(&runtime.sysctls),
        ulimits: some(&ulimits),
        pids_limit: runtime.pids_limit,
        extra_hosts: some(&hosts),
        dns: some(&dns),
        dns_search: some(&runtime.dns_search),
        dns_options: some(&runtime.dns_opt),
        shm_size: runtime.shm_size_bytes.map(saturating),
        userns_mode: runtime.userns_mode.clone(),
        uts_mode: runtime.uts.clone(),
        memory_reservation: runtime.mem_reservation_bytes.map(saturating),
        memory_swap: runtime.memswap_limit_bytes,
        memory_swappiness: runtime.mem_swappiness.map(i64::from),
        oom_score_adj: runtime.oom_score_adj.map(i64::from),
        cpu_shares: runtime.cpu_shares.map(saturating),
        cpuset_cpus: runtime.cpuset.clone(),
        group_add: some(&runtime.group_add),
        device_cgroup_rules: some(&runtime.device_cgroup_rules),
        annotations: map(&runtime.annotations),
        masked_paths: runtime.system_paths_open.then(Vec::new),
        readonly_paths: runtime.system_paths_open.then(Vec::new),
        ..config
    }
}

/// A file or directory of the host. A source that is not there is an error, never made by the engine.
pub(super) fn bind(source: &str, target: &str, read_only: bool, propagation: Option<&str>) -> Mount {
    let propagation = propagation.map(|how| match how {
        "private" => Propagation::PRIVATE,
        "shared" => Propagation::SHARED,
        "rshared" => Propagation::RSHARED,
        "slave" => Propagation::SLAVE,
        "rslave" => Propagation::RSLAVE,
        _ => Propagation::RPRIVATE,
    });
    Mount {
        typ: Some(MountType::BIND),
        source: Some(source.to_owned()),
        target: Some(target.to_owned()),
        read_only: Some(read_only),
        bind_options: propagation.map(|how| MountBindOptions { propagation: Some(how), ..MountBindOptions::default() }),
        ..Mount::default()
    }
}

/// The container's files, each by itself, so that nothing else of their directory can be seen.
pub(super) fn file_mounts(spec: &ContainerSpec, files: &Path) -> Vec<Mount> {
    let directory = files.join(spec.app.as_str()).join(spec.files_directory());
    let mount = |(index, file): (usize, &actions::effect::ContainerFile)| {
        bind(&directory.join(index.to_string()).to_string_lossy(), &file.target, true, None)
    };
    spec.files.iter().enumerate().map(mount).collect()
}
