//! The parts of a container that most leave as they are.

use std::collections::BTreeSet;

use ids::ServiceName;
use zeroize::Zeroizing;

use super::{Secrets, Unusable};
use crate::{
    effect::{ContainerFile, ContainerRuntime},
    spec::{AppSpec, MountSpec, ServiceSpec, TextEncoding},
    spec_read,
};

/// A process cannot gain privileges by a set-uid program.
const NO_NEW_PRIVILEGES: &str = "no-new-privileges:true";
/// Permission bits of a file that does not say.
const FILE_MODE_DEFAULT: u32 = 0o444;

/// Our default, unless the service says otherwise (which its host's policy has judged), and what it says.
pub(super) fn security_opt(service: &ServiceSpec) -> Vec<String> {
    let said: Vec<&String> = service.security_opt.iter().collect();
    let own = said.iter().any(|option| spec_read::security_option(option).0 == spec_read::NO_NEW_PRIVILEGES);
    let default = (!own).then(|| NO_NEW_PRIVILEGES.to_owned());
    let kept = said.into_iter().filter(|option| !spec_read::opens_system_paths(option)).cloned();
    default.into_iter().chain(kept).collect()
}

pub(super) fn runtime(spec: &AppSpec, service: &ServiceSpec) -> ContainerRuntime {
    let external_networks = spec_read::service_networks(service).into_keys().filter_map(|name| {
        let network = spec_read::network_spec(spec, &name);
        network.external
    });
    ContainerRuntime {
        cap_drop: service.cap_drop.clone(),
        sysctls: service.sysctls.clone(),
        ulimits: service.ulimits.clone(),
        pids_limit: service.pids_limit,
        extra_hosts: service.extra_hosts.clone(),
        hostname: service.hostname.clone(),
        domainname: service.domainname.clone(),
        dns: service.dns.clone(),
        dns_search: service.dns_search.clone(),
        dns_opt: service.dns_opt.clone(),
        expose: service.expose.clone(),
        links: service
            .links
            .iter()
            .map(|(alias, other)| (alias.clone(), spec_read::container_name(&spec.app, other.as_str())))
            .collect(),
        platform: service.platform.clone(),
        shm_size_bytes: service.shm_size_bytes,
        userns_mode: service.userns_mode.clone(),
        uts: service.uts.clone(),
        mem_reservation_bytes: service.mem_reservation_bytes,
        memswap_limit_bytes: service.memswap_limit_bytes,
        mem_swappiness: service.mem_swappiness,
        oom_score_adj: service.oom_score_adj,
        cpu_shares: service.cpu_shares,
        cpuset: service.cpuset.clone(),
        group_add: service.group_add.clone(),
        stdin_open: service.stdin_open,
        tty: service.tty,
        device_cgroup_rules: service.device_cgroup_rules.clone(),
        annotations: service.annotations.clone(),
        system_paths_open: service.security_opt.iter().any(|option| spec_read::opens_system_paths(option)),
        external_networks: external_networks.collect(),
        external_volumes: external_volumes(spec, service),
    }
}

fn external_volumes(spec: &AppSpec, service: &ServiceSpec) -> BTreeSet<String> {
    let mounted = service.mounts.iter().filter_map(|mount| match mount {
        MountSpec::Volume { volume, .. } => spec.volumes.get(volume),
        MountSpec::Bind { .. } | MountSpec::Tmpfs { .. } => None,
    });
    mounted.filter_map(|volume| volume.external.clone()).collect()
}

/// The files of a service, opened.
pub(super) fn files(
    name: &ServiceName,
    service: &ServiceSpec,
    secrets: &Secrets,
) -> Result<Vec<ContainerFile>, Unusable> {
    let mut files = Vec::with_capacity(service.files.len());
    for file in &service.files {
        let sealed = &file.content.sealed;
        let text = secrets.get(sealed).ok_or_else(|| Unusable::Missing(sealed.clone()))?;
        let content = match file.encoding {
            TextEncoding::Plain => text.as_bytes().to_vec(),
            TextEncoding::Base64 => data_encoding::BASE64
                .decode(text.as_bytes())
                .map_err(|_| Unusable::NotBase64 { service: name.clone(), target: file.target.clone() })?,
        };
        files.push(ContainerFile {
            target: file.target.clone(),
            content: Zeroizing::new(content),
            uid: file.uid.unwrap_or(0),
            gid: file.gid.unwrap_or(0),
            mode: file.mode.unwrap_or(FILE_MODE_DEFAULT),
        });
    }
    Ok(files)
}
