//! Bounds of what version 2 of a specification added to a service. The engine would refuse most of it
//! as well, but only in the middle of a deploy.

use crate::{
    limits,
    registry::Fault,
    spec::{AppSpec, ServiceSpec},
    spec_read,
};

/// Limits of processes the kernel has (`getrlimit(2)`), as the engine names them.
const ULIMITS: [&str; 15] = [
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
];
/// Kernel parameters that belong to the container's own IPC namespace.
const SYSCTLS_IPC: [&str; 8] = [
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
    "kernel.shm_rmid_forced",
];
const SYSCTLS_IPC_PREFIX: &str = "fs.mqueue.";
const SYSCTLS_NETWORK_PREFIX: &str = "net.";

pub(super) fn check(spec: &AppSpec, service: &ServiceSpec, at: &str) -> Result<(), Fault> {
    lists(service, at)?;
    capabilities_and_options(service, at)?;
    sysctls(service, at)?;
    numbers(service, at)?;
    names(spec, service, at)?;
    namespaces(service, at)
}

fn fault<T>(at: &str, field: &str, message: impl Into<String>) -> Result<T, Fault> {
    Err(Fault::new(format!("{at}.{field}"), message))
}

/// Nothing may be longer than an order can sensibly need.
fn lists(service: &ServiceSpec, at: &str) -> Result<(), Fault> {
    let counts = [
        ("cap_drop", service.cap_drop.len()),
        ("security_opt", service.security_opt.len()),
        ("sysctls", service.sysctls.len()),
        ("extra_hosts", service.extra_hosts.values().map(Vec::len).sum()),
        ("dns", service.dns.len()),
        ("dns_search", service.dns_search.len()),
        ("dns_opt", service.dns_opt.len()),
        ("expose", service.expose.len()),
        ("links", service.links.len()),
        ("group_add", service.group_add.len()),
        ("device_cgroup_rules", service.device_cgroup_rules.len()),
        ("annotations", service.annotations.len()),
    ];
    let max = limits::SERVICE_LIST_MAX;
    match counts.into_iter().find(|(_, n)| *n > max) {
        Some((field, n)) => fault(at, field, format!("{n} entries, more than the {max} that are possible")),
        None => Ok(()),
    }
}

fn capabilities_and_options(service: &ServiceSpec, at: &str) -> Result<(), Fault> {
    let is_word = |name: &str| {
        !name.is_empty() && name.bytes().all(|b| b.is_ascii_uppercase() || b == b'_' || b.is_ascii_digit())
    };
    if let Some(name) = service.cap_drop.iter().find(|name| !is_word(name)) {
        return fault(
            at,
            "cap_drop",
            format!("{name:?} is not a capability: write it in upper case, such as NET_RAW, or ALL"),
        );
    }
    for option in &service.security_opt {
        let known = match spec_read::security_option(option) {
            (spec_read::NO_NEW_PRIVILEGES, value) => matches!(value, "true" | "false"),
            ("seccomp" | "systempaths", value) => value == "unconfined",
            ("apparmor" | "label", value) => is_plain(value),
            _ => false,
        };
        if !known {
            let words = "is none of no-new-privileges:true, no-new-privileges:false, seccomp=unconfined, systempaths=unconfined, apparmor=PROFILE, label=…";
            return fault(at, "security_opt", format!("{option:?} {words}"));
        }
    }
    for rule in &service.device_cgroup_rules {
        if !is_device_rule(rule) {
            return fault(at, "device_cgroup_rules", format!("{rule:?} is not a rule: write it like \"c 188:* rmw\""));
        }
    }
    Ok(())
}

/// `a|b|c MAJOR:MINOR [rwm]`, with `*` for any number.
fn is_device_rule(rule: &str) -> bool {
    let parts: Vec<&str> = rule.split(' ').collect();
    let [kind, numbers, access] = parts.as_slice() else { return false };
    let number =
        |text: &str| text == "*" || (!text.is_empty() && text.len() <= 6 && text.bytes().all(|b| b.is_ascii_digit()));
    matches!(*kind, "a" | "b" | "c")
        && numbers.split_once(':').is_some_and(|(major, minor)| number(major) && number(minor))
        && (1..=3).contains(&access.len())
        && access.bytes().all(|b| matches!(b, b'r' | b'w' | b'm'))
}

fn sysctls(service: &ServiceSpec, at: &str) -> Result<(), Fault> {
    let own_network = service.network_mode.as_deref().is_none_or(|mode| mode == "none");
    let own_ipc = service.ipc.as_deref().is_none_or(|mode| matches!(mode, "private" | "shareable" | "none"));
    for (key, value) in &service.sysctls {
        let of_network = key.starts_with(SYSCTLS_NETWORK_PREFIX);
        let of_ipc = SYSCTLS_IPC.contains(&key.as_str()) || key.starts_with(SYSCTLS_IPC_PREFIX);
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        if !(of_network || of_ipc) || !key.bytes().all(plain) || key.contains("..") {
            return fault(
                at,
                "sysctls",
                format!(
                    "{key:?} is not a parameter of a container alone; those are net.*, fs.mqueue.*, kernel.msg*, kernel.sem and kernel.shm*. Set others on the host"
                ),
            );
        }
        if (of_network && !own_network) || (of_ipc && !own_ipc) {
            let words =
                "belongs to a namespace that this service shares, so it would be set for others as well; leave it out";
            return fault(at, "sysctls", format!("{key:?} {words}"));
        }
        if value.is_empty() || value.len() > limits::SYSCTL_VALUE_CHARS_MAX || value.contains(['\0', '\n']) {
            return fault(at, "sysctls", format!("the value of {key:?} is empty, has several lines or is too long"));
        }
    }
    Ok(())
}

fn numbers(service: &ServiceSpec, at: &str) -> Result<(), Fault> {
    for (name, limit) in &service.ulimits {
        if !ULIMITS.contains(&name.as_str()) {
            return fault(at, "ulimits", format!("{name:?} is none of {}", ULIMITS.join(", ")));
        }
        let above = limit.hard != -1 && (limit.soft == -1 || limit.soft > limit.hard);
        if limit.soft < -1 || limit.hard < -1 || above {
            return fault(at, "ulimits", format!("{name}: from -1 (no limit) on, and soft not above hard"));
        }
    }
    if service.pids_limit.is_some_and(|n| n != -1 && !(1..=limits::PIDS_MAX).contains(&n)) {
        return fault(at, "pids_limit", format!("-1 for no limit, or 1 to {}", limits::PIDS_MAX));
    }
    let bytes_max = i64::MAX.unsigned_abs();
    if service.shm_size_bytes.is_some_and(|n| n == 0 || n > bytes_max) {
        return fault(at, "shm_size_bytes", "at least 1 byte");
    }
    if let Some(reserved) = service.mem_reservation_bytes
        && (reserved > bytes_max || service.mem_limit_bytes.is_some_and(|limit| reserved > limit))
    {
        return fault(at, "mem_reservation_bytes", "not above mem_limit");
    }
    if let Some(both) = service.memswap_limit_bytes {
        let Some(memory) = service.mem_limit_bytes else {
            return fault(at, "memswap_limit_bytes", "needs mem_limit, because it counts memory and swap together");
        };
        if both != -1 && u64::try_from(both).map_or(true, |both| both < memory) {
            return fault(at, "memswap_limit_bytes", "-1 for no limit of swap, or at least mem_limit");
        }
    }
    if service.mem_swappiness.is_some_and(|n| n > 100) {
        return fault(at, "mem_swappiness", "0 to 100");
    }
    if service.oom_score_adj.is_some_and(|n| !(-1000..=1000).contains(&n)) {
        return fault(at, "oom_score_adj", "-1000 to 1000");
    }
    if service.cpu_shares.is_some_and(|n| !(2..=262_144).contains(&n)) {
        return fault(at, "cpu_shares", "2 to 262144");
    }
    if service.expose.iter().any(|exposed| exposed.port == 0) {
        return fault(at, "expose", "ports go from 1 to 65535");
    }
    Ok(())
}

fn names(spec: &AppSpec, service: &ServiceSpec, at: &str) -> Result<(), Fault> {
    for (field, name) in [("hostname", &service.hostname), ("domainname", &service.domainname)] {
        if name.as_ref().is_some_and(|name| !is_host_name(name)) {
            return fault(at, field, "letters, digits, hyphens and dots, each part 1 to 63 of them");
        }
    }
    for (name, addresses) in &service.extra_hosts {
        let is_address = |text: &String| text == "host-gateway" || text.parse::<std::net::IpAddr>().is_ok();
        if !is_host_name(name) || addresses.is_empty() || !addresses.iter().all(is_address) {
            return fault(at, "extra_hosts", format!("{name:?}: a host name with addresses, or host-gateway"));
        }
    }
    if let Some(name) = service.dns_search.iter().find(|name| *name != "." && !is_host_name(name)) {
        return fault(at, "dns_search", format!("{name:?} is not a domain"));
    }
    if let Some(option) = service.dns_opt.iter().find(|option| !is_plain(option)) {
        return fault(at, "dns_opt", format!("{option:?} is not an option of the resolver, such as ndots:2"));
    }
    for (alias, other) in &service.links {
        if !is_host_name(alias) || !spec.services.contains_key(other) {
            return fault(
                at,
                "links",
                format!("{alias}: {other} is not a service of this app, or the name is no host name"),
            );
        }
        if service.network_mode.is_some() {
            return fault(at, "links", "a service with a network mode has no names for others; leave one out");
        }
    }
    if service.platform.as_ref().is_some_and(|platform| !is_platform(platform)) {
        return fault(at, "platform", "os/architecture[/variant], such as linux/arm64");
    }
    let is_cpuset =
        |text: &String| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit() || matches!(b, b',' | b'-'));
    if service.cpuset.as_ref().is_some_and(|text| text.len() > limits::SYSCTL_VALUE_CHARS_MAX || !is_cpuset(text)) {
        return fault(at, "cpuset", "cores by number, such as 0-2,4");
    }
    if let Some(group) = service.group_add.iter().find(|group| !is_plain(group)) {
        return fault(at, "group_add", format!("{group:?} is not the name or number of a group"));
    }
    let is_text = |text: &String| text.len() <= limits::ANNOTATION_CHARS_MAX && !text.contains('\0');
    if service.annotations.iter().any(|(key, value)| key.is_empty() || !is_text(key) || !is_text(value)) {
        return fault(
            at,
            "annotations",
            format!("a key and a text of at most {} characters", limits::ANNOTATION_CHARS_MAX),
        );
    }
    super::reserved(service.annotations.keys(), &format!("{at}.annotations"))
}

fn namespaces(service: &ServiceSpec, at: &str) -> Result<(), Fault> {
    for (field, mode) in [("userns_mode", &service.userns_mode), ("uts", &service.uts)] {
        if mode.as_ref().is_some_and(|mode| mode != "host") {
            return fault(at, field, "\"host\" alone is known; leave it out for the container's own");
        }
    }
    if service.uts.is_some() && (service.hostname.is_some() || service.domainname.is_some()) {
        return fault(at, "uts", "a service that has the host's name cannot have one of its own");
    }
    let shared = service
        .network_mode
        .as_deref()
        .is_some_and(|mode| mode.starts_with("service:") || mode.starts_with("container:"));
    let named = [
        ("hostname", service.hostname.is_some()),
        ("extra_hosts", !service.extra_hosts.is_empty()),
        ("dns", !service.dns.is_empty()),
        ("dns_search", !service.dns_search.is_empty()),
        ("dns_opt", !service.dns_opt.is_empty()),
        ("expose", !service.expose.is_empty()),
    ];
    match named.into_iter().find(|(_, used)| shared && *used) {
        Some((field, _)) => {
            fault(at, field, "a service in another container's network has that container's; set it there")
        }
        None => Ok(()),
    }
}

fn is_host_name(name: &str) -> bool {
    let is_part = |part: &str| {
        (1..=63).contains(&part.len())
            && part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
            && !part.starts_with('-')
    };
    name.len() <= 253 && name.split('.').all(is_part)
}

/// One word of ordinary characters.
fn is_plain(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b':' | b',' | b'/' | b'+');
    (1..=limits::SYSCTL_VALUE_CHARS_MAX).contains(&text.len()) && text.bytes().all(plain)
}

fn is_platform(text: &str) -> bool {
    let parts: Vec<&str> = text.split('/').collect();
    let word = |part: &&str| {
        !part.is_empty() && part.len() <= 32 && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
    };
    (2..=3).contains(&parts.len()) && parts.iter().all(word)
}
