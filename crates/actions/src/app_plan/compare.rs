//! Why a container has to be replaced, in words. Names of variables are told, values never.

use std::collections::{BTreeMap, BTreeSet};

use ids::ServiceName;

use super::decide::Known;
use crate::{
    release::ReleaseRecord,
    spec::{FileSpec, SecretName, ServiceSpec, Text},
};

pub(super) fn reasons(known: &Known<'_>, name: &ServiceName) -> Vec<String> {
    let unknown = || vec!["its container was made from another configuration".to_owned()];
    let Some(from) = known.from_record else { return unknown() };
    let (Some(old), Some(new)) = (from.spec.services.get(name), known.spec.services.get(name)) else {
        return unknown();
    };
    let mut reasons = Vec::new();
    if let (Some(old), Some(new)) = (from.images.get(name), known.images.get(name)) {
        if old.reference != new.reference {
            reasons.push(format!("image {} instead of {}", new.reference, old.reference));
        } else if old.pinned != new.pinned {
            reasons.push(format!("image {} has new content", new.reference));
        }
    }
    let values = Values { old: &from.fingerprints, new: known.fingerprints };
    maps(&mut reasons, "environment", &old.environment, &new.environment, &values);
    maps(&mut reasons, "label", &old.labels, &new.labels, &values);
    fields(&mut reasons, old, new, &values);
    if network_settings_differ(known, from, new) {
        reasons.push("settings of a network changed".to_owned());
    }
    if reasons.is_empty() { unknown() } else { reasons }
}

/// Fingerprints of sealed values, before and now.
struct Values<'a> {
    old: &'a BTreeMap<SecretName, String>,
    new: &'a BTreeMap<SecretName, String>,
}

impl Values<'_> {
    fn same(&self, old: &Text, new: &Text) -> bool {
        match (old, new) {
            (Text::Plain(old), Text::Plain(new)) => old == new,
            (Text::Sealed(old), Text::Sealed(new)) => {
                let before = self.old.get(&old.sealed);
                before.is_some() && before == self.new.get(&new.sealed)
            }
            _ => false,
        }
    }

    fn same_list(&self, old: Option<&Vec<Text>>, new: Option<&Vec<Text>>) -> bool {
        match (old, new) {
            (None, None) => true,
            (Some(old), Some(new)) => {
                old.len() == new.len() && old.iter().zip(new).all(|(old, new)| self.same(old, new))
            }
            _ => false,
        }
    }

    /// The same places, and the same content in each.
    fn same_files(&self, old: &ServiceSpec, new: &ServiceSpec) -> bool {
        let same = |(old, new): (&FileSpec, &FileSpec)| {
            let (before, now) = (Text::Sealed(old.content.clone()), Text::Sealed(new.content.clone()));
            let place = |file: &FileSpec| (file.target.clone(), file.encoding, file.uid, file.gid, file.mode);
            place(old) == place(new) && self.same(&before, &now)
        };
        old.files.len() == new.files.len() && old.files.iter().zip(&new.files).all(same)
    }

    fn same_option(&self, old: Option<&Text>, new: Option<&Text>) -> bool {
        match (old, new) {
            (None, None) => true,
            (Some(old), Some(new)) => self.same(old, new),
            _ => false,
        }
    }
}

fn maps(
    reasons: &mut Vec<String>,
    what: &str,
    old: &BTreeMap<String, Text>,
    new: &BTreeMap<String, Text>,
    values: &Values<'_>,
) {
    let keys: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    for key in keys {
        match (old.get(key), new.get(key)) {
            (None, Some(_)) => reasons.push(format!("{what} {key} added")),
            (Some(_), None) => reasons.push(format!("{what} {key} removed")),
            (Some(old), Some(new)) if !values.same(old, new) => reasons.push(format!("{what} {key} changed")),
            _ => {}
        }
    }
}

fn fields(reasons: &mut Vec<String>, old: &ServiceSpec, new: &ServiceSpec, values: &Values<'_>) {
    let sealable = [
        ("command", values.same_list(old.command.as_ref(), new.command.as_ref())),
        ("entrypoint", values.same_list(old.entrypoint.as_ref(), new.entrypoint.as_ref())),
        ("user", values.same_option(old.user.as_ref(), new.user.as_ref())),
        ("working_dir", values.same_option(old.working_dir.as_ref(), new.working_dir.as_ref())),
    ];
    let plain = [
        ("ports", old.ports == new.ports),
        ("volumes", old.mounts == new.mounts),
        ("healthcheck", old.healthcheck == new.healthcheck),
        ("restart", old.restart == new.restart),
        ("read_only", old.read_only == new.read_only),
        ("init", old.init == new.init),
        ("networks", old.networks == new.networks),
        ("logging", old.logging == new.logging),
        ("stop_signal", old.stop_signal == new.stop_signal),
        ("stop_grace_period", old.stop_grace_period_ms == new.stop_grace_period_ms),
        ("mem_limit", old.mem_limit_bytes == new.mem_limit_bytes),
        ("cpus", old.cpus_milli == new.cpus_milli),
        ("privileged", old.privileged == new.privileged),
        ("cap_add", old.cap_add == new.cap_add),
        ("devices", old.devices == new.devices),
        ("network_mode", old.network_mode == new.network_mode),
        ("pid", old.pid == new.pid),
        ("ipc", old.ipc == new.ipc),
    ];
    let later = later(old, new, values);
    for (field, same) in sealable.into_iter().chain(plain).chain(later) {
        if !same {
            reasons.push(format!("{field} changed"));
        }
    }
}

/// The fields that came with version 2.
fn later(old: &ServiceSpec, new: &ServiceSpec, values: &Values<'_>) -> [(&'static str, bool); 29] {
    [
        ("cap_drop", old.cap_drop == new.cap_drop),
        ("security_opt", old.security_opt == new.security_opt),
        ("sysctls", old.sysctls == new.sysctls),
        ("ulimits", old.ulimits == new.ulimits),
        ("pids_limit", old.pids_limit == new.pids_limit),
        ("extra_hosts", old.extra_hosts == new.extra_hosts),
        ("hostname", old.hostname == new.hostname),
        ("domainname", old.domainname == new.domainname),
        ("dns", old.dns == new.dns),
        ("dns_search", old.dns_search == new.dns_search),
        ("dns_opt", old.dns_opt == new.dns_opt),
        ("expose", old.expose == new.expose),
        ("links", old.links == new.links),
        ("platform", old.platform == new.platform),
        ("shm_size", old.shm_size_bytes == new.shm_size_bytes),
        ("userns_mode", old.userns_mode == new.userns_mode),
        ("uts", old.uts == new.uts),
        ("mem_reservation", old.mem_reservation_bytes == new.mem_reservation_bytes),
        ("memswap_limit", old.memswap_limit_bytes == new.memswap_limit_bytes),
        ("mem_swappiness", old.mem_swappiness == new.mem_swappiness),
        ("oom_score_adj", old.oom_score_adj == new.oom_score_adj),
        ("cpu_shares", old.cpu_shares == new.cpu_shares),
        ("cpuset", old.cpuset == new.cpuset),
        ("group_add", old.group_add == new.group_add),
        ("stdin_open", old.stdin_open == new.stdin_open),
        ("tty", old.tty == new.tty),
        ("device_cgroup_rules", old.device_cgroup_rules == new.device_cgroup_rules),
        ("annotations", old.annotations == new.annotations),
        ("files", values.same_files(old, new)),
    ]
}

fn network_settings_differ(known: &Known<'_>, from: &ReleaseRecord, new: &ServiceSpec) -> bool {
    new.networks.keys().any(|name| from.spec.networks.get(name) != known.spec.networks.get(name))
}
