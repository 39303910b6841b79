//! The form of `policy.toml`.

use serde::Deserialize;

use super::{
    Policy,
    pattern::{ActionPattern, PortPattern},
};
use crate::limits;

/// A policy file that cannot be understood, so that nothing is allowed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("policy.toml{}: {message}", line.map(|n| format!(", line {n}")).unwrap_or_default())]
pub struct PolicyError {
    /// Line, from 1, where it is known.
    pub line: Option<usize>,
    /// What is wrong; names the key if it is unknown.
    pub message: String,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct File {
    actions: Vec<ActionPattern>,
    images: Images,
    ports: Ports,
    binds: Binds,
    containers: Containers,
    networks: Networks,
    volumes: Volumes,
    approvals: Approvals,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Images {
    registries: Vec<String>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Ports {
    publish: Vec<PortPattern>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Binds {
    roots: Vec<BindRoot>,
    shared: bool,
}

#[derive(Deserialize)]
#[serde(try_from = "String")]
struct BindRoot(String);

impl TryFrom<String> for BindRoot {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let contained = !text.split('/').any(|part| part == ".." || part == ".");
        if text.starts_with('/') && text.trim_end_matches('/').len() > 1 && contained {
            Ok(Self(text))
        } else {
            Err(format!("{text:?} is not a root for binds: write an absolute path below /, without . or .."))
        }
    }
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Containers {
    privileged: bool,
    host_network: bool,
    host_pid: bool,
    host_ipc: bool,
    docker_socket: bool,
    capabilities: Vec<String>,
    devices: Vec<String>,
    log_drivers: Vec<String>,
    host_user: bool,
    host_uts: bool,
    oom_score_negative: bool,
    security_opt: Vec<String>,
    device_cgroup_rules: Vec<String>,
    annotations: Vec<String>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Approvals {
    change: u32,
    destructive: u32,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Networks {
    external: Vec<String>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Volumes {
    driver_opts: bool,
    external: Vec<String>,
}

pub(super) fn parse(text: &str) -> Result<Policy, PolicyError> {
    if text.len() > limits::POLICY_BYTES_MAX {
        let message = format!("{} bytes, more than the {} a policy may have", text.len(), limits::POLICY_BYTES_MAX);
        return Err(PolicyError { line: None, message });
    }
    let file: File = toml::from_str(text).map_err(|error| PolicyError {
        line: error.span().and_then(|span| text.get(..span.start)).map(|before| before.matches('\n').count() + 1),
        message: error.message().to_owned(),
    })?;
    Ok(Policy {
        actions: file.actions,
        registries: file.images.registries,
        publish: file.ports.publish,
        bind_roots: file.binds.roots.into_iter().map(|root| root.0).collect(),
        approvals_change: file.approvals.change,
        approvals_destructive: file.approvals.destructive,
        privileged: file.containers.privileged,
        host_network: file.containers.host_network,
        host_pid: file.containers.host_pid,
        host_ipc: file.containers.host_ipc,
        docker_socket: file.containers.docker_socket,
        capabilities: file.containers.capabilities,
        devices: file.containers.devices,
        log_drivers: file.containers.log_drivers,
        driver_opts: file.volumes.driver_opts,
        host_user: file.containers.host_user,
        host_uts: file.containers.host_uts,
        shared_binds: file.binds.shared,
        oom_score_negative: file.containers.oom_score_negative,
        security_opt: file.containers.security_opt,
        device_cgroup_rules: file.containers.device_cgroup_rules,
        annotations: file.containers.annotations,
        external_networks: file.networks.external,
        external_volumes: file.volumes.external,
    })
}
