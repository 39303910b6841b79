//! Which version of the schemas that carry a specification its content needs. The types are those
//! of the newest; an older agent knows fewer fields, and refuses what it does not know.

use super::{AppSpec, MountSpec, ServiceSpec};

impl AppSpec {
    /// Least version of `app.plan` and `app.deploy` that can carry this specification: 1 if it
    /// holds nothing that came later.
    #[must_use]
    pub fn version_needed(&self) -> u32 {
        if self.field_of_version_2().is_some() { 2 } else { 1 }
    }

    /// Path of the first field in use that version 1 has not, such as `services.web.cap_drop`.
    pub(crate) fn field_of_version_2(&self) -> Option<String> {
        for (name, service) in &self.services {
            if let Some(field) = in_service(service) {
                return Some(format!("services.{name}.{field}"));
            }
        }
        let networks = self.networks.iter().find(|(_, network)| network.external.is_some());
        let volumes = self.volumes.iter().find(|(_, volume)| volume.external.is_some());
        networks
            .map(|(name, _)| format!("networks.{name}.external"))
            .or_else(|| volumes.map(|(name, _)| format!("volumes.{name}.external")))
    }
}

fn in_service(service: &ServiceSpec) -> Option<String> {
    if let Some(index) = service.mounts.iter().position(|mount| matches!(mount, MountSpec::Bind { .. })) {
        return Some(format!("mounts[{index}]"));
    }
    let of_version_2 = [
        ("cap_drop", !service.cap_drop.is_empty()),
        ("security_opt", !service.security_opt.is_empty()),
        ("sysctls", !service.sysctls.is_empty()),
        ("ulimits", !service.ulimits.is_empty()),
        ("pids_limit", service.pids_limit.is_some()),
        ("extra_hosts", !service.extra_hosts.is_empty()),
        ("hostname", service.hostname.is_some()),
        ("domainname", service.domainname.is_some()),
        ("dns", !service.dns.is_empty()),
        ("dns_search", !service.dns_search.is_empty()),
        ("dns_opt", !service.dns_opt.is_empty()),
        ("expose", !service.expose.is_empty()),
        ("links", !service.links.is_empty()),
        ("platform", service.platform.is_some()),
        ("pull_policy", service.pull_policy.is_some()),
        ("shm_size_bytes", service.shm_size_bytes.is_some()),
        ("userns_mode", service.userns_mode.is_some()),
        ("uts", service.uts.is_some()),
        ("mem_reservation_bytes", service.mem_reservation_bytes.is_some()),
        ("memswap_limit_bytes", service.memswap_limit_bytes.is_some()),
        ("mem_swappiness", service.mem_swappiness.is_some()),
        ("oom_score_adj", service.oom_score_adj.is_some()),
        ("cpu_shares", service.cpu_shares.is_some()),
        ("cpuset", service.cpuset.is_some()),
        ("group_add", !service.group_add.is_empty()),
        ("stdin_open", service.stdin_open),
        ("tty", service.tty),
        ("device_cgroup_rules", !service.device_cgroup_rules.is_empty()),
        ("annotations", !service.annotations.is_empty()),
        ("files", !service.files.is_empty()),
    ];
    of_version_2.into_iter().find(|(_, used)| *used).map(|(field, _)| field.to_owned())
}
