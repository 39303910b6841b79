//! One service: the list of its keys, and which reader takes each.

mod bounds;
mod deploy;
mod env_file;
mod names;
mod pairs;
mod process;
mod reach;
mod security;

use std::collections::BTreeMap;

use actions::spec::{LoggingSpec, PortSpec, PullPolicy, ServiceSpec, Text};
use ids::ServiceName;
use zeroize::Zeroizing;

use crate::{
    files::{self, Grant, Offered},
    health, image, mounts, paths, ports,
    reading::{Field, Reading, is_extension},
    units,
};

pub(crate) use pairs::plain_labels;
pub(crate) use reach::Wait;

/// Every key a service may have. A test checks that each is read.
pub(crate) const KEYS: &[&str] = &[
    "image",
    "command",
    "entrypoint",
    "environment",
    "env_file",
    "ports",
    "expose",
    "volumes",
    "tmpfs",
    "configs",
    "secrets",
    "healthcheck",
    "restart",
    "deploy",
    "scale",
    "profiles",
    "extends",
    "labels",
    "annotations",
    "user",
    "group_add",
    "working_dir",
    "read_only",
    "init",
    "stdin_open",
    "tty",
    "depends_on",
    "links",
    "networks",
    "container_name",
    "hostname",
    "domainname",
    "extra_hosts",
    "dns",
    "dns_search",
    "dns_opt",
    "logging",
    "stop_signal",
    "stop_grace_period",
    "mem_limit",
    "mem_reservation",
    "memswap_limit",
    "mem_swappiness",
    "oom_score_adj",
    "shm_size",
    "cpus",
    "cpu_shares",
    "cpuset",
    "pids_limit",
    "ulimits",
    "sysctls",
    "privileged",
    "cap_add",
    "cap_drop",
    "security_opt",
    "devices",
    "device_cgroup_rules",
    "network_mode",
    "pid",
    "ipc",
    "userns_mode",
    "uts",
    "platform",
    "pull_policy",
    "attach",
    "develop",
];

/// Keys that Compose has and ServerFlow has not, with what to do instead.
pub(crate) const LATER: &[(&str, &str)] = &[
    ("blkio_config", "leave it out: there are no limits of disk traffic"),
    ("build", "build the image where you build, push it to a registry, and name it in `image`"),
    ("cgroup", "leave it out: a container has a control group namespace of its own"),
    ("cgroup_parent", "leave it out"),
    ("cpu_count", "it serves Windows; use `cpus`"),
    ("cpu_percent", "it serves Windows; use `cpus`"),
    ("cpu_period", "use `cpus`: quota divided by period"),
    ("cpu_quota", "use `cpus`: quota divided by period, which is 100000 unless set"),
    ("cpu_rt_period", "leave it out: the engine seldom grants real-time scheduling"),
    ("cpu_rt_runtime", "leave it out: the engine seldom grants real-time scheduling"),
    ("credential_spec", "leave it out: it serves Windows"),
    ("external_links", "join the other container's network: `networks` with `external: true` at the top"),
    ("gpus", "leave it out: devices beyond `devices` are not handed on"),
    ("isolation", "leave it out: it serves Windows"),
    ("label_file", "write them under `labels`"),
    ("mac_address", "leave it out: the engine chooses it"),
    ("models", "run the model as a service of its own"),
    ("oom_kill_disable", "use `oom_score_adj`"),
    ("post_start", "put it into the image's entry point, or into a service of its own that this one waits for"),
    ("pre_stop", "have the process do it when it gets its `stop_signal`"),
    ("provider", "run a service with an image instead"),
    ("pull_refresh_after", "use `pull_policy: always`: each deploy then pulls"),
    ("runtime", "leave it out: the engine's own runtime is used"),
    ("storage_opt", "leave it out"),
    ("use_api_socket", "leave it out: it would hand on the engine, which is root on the host"),
    ("volumes_from", "name the same volume in both services"),
];

/// What a service says about others, kept with its place until all services are read.
pub(crate) struct Draft<'n> {
    pub(crate) spec: ServiceSpec,
    pub(crate) field: Field<'n>,
    /// Where the file sets `restart`, if it does.
    pub(crate) restart: Option<Field<'n>>,
    pub(crate) dependencies: Vec<Wait<'n>>,
    /// Services whose namespaces it shares or that it links; it waits for them as well.
    pub(crate) shared: Vec<(ServiceName, Field<'n>)>,
    pub(crate) networks: Vec<(ServiceName, Field<'n>)>,
    pub(crate) volumes: Vec<(ServiceName, Field<'n>)>,
    pub(crate) ports: Vec<(PortSpec, Field<'n>)>,
    /// What becomes an alias on every network it joins.
    pub(crate) container_name: Option<String>,
}

/// What several keys say together.
#[derive(Default)]
struct Together<'n> {
    environment: BTreeMap<String, Zeroizing<String>>,
    env_files: BTreeMap<String, Zeroizing<String>>,
    deploy: deploy::Deploy<'n>,
}

/// Reads one service. What it refuses is among the problems; the draft is then incomplete.
pub(crate) fn read<'n>(reading: &mut Reading<'_>, field: &Field<'n>, offered: &Offered<'n>) -> Draft<'n> {
    let mut draft = Draft {
        spec: ServiceSpec::default(),
        field: field.clone(),
        restart: None,
        dependencies: Vec::new(),
        shared: Vec::new(),
        networks: Vec::new(),
        volumes: Vec::new(),
        ports: Vec::new(),
        container_name: None,
    };
    let Some(entries) = reading.mapping(field) else { return draft };
    let mut together = Together::default();
    for entry in &entries {
        if !is_extension(entry.key) {
            read_key(reading, &mut draft, &mut together, offered, entry);
        }
    }
    let has = |key: &str| entries.iter().any(|entry| entry.key == key && !entry.is_null());
    if !entries.iter().any(|entry| matches!(entry.key, "image" | "build")) {
        reading.refuse_with(field, "the service has no image", "name one: `image: docker.io/library/nginx:1.27`");
    }
    if draft.spec.network_mode.is_some() {
        if has("networks") {
            reading.refuse_with(field, "`networks` and `network_mode` exclude each other", "remove one of them");
        }
        if !draft.ports.is_empty() {
            reading.refuse_with(field, "`ports` cannot be published with a `network_mode`", "remove one of them");
        }
    }
    mounts::check_targets(reading, field, &draft.spec);
    let Together { environment, mut env_files, deploy } = together;
    env_files.extend(environment);
    for (name, value) in env_files {
        let text = reading.sealed(format!("{}/environment/{name}", field.key), value);
        draft.spec.environment.insert(name, text);
    }
    deploy.settle(reading, &mut draft);
    draft
}

fn read_key<'n>(
    reading: &mut Reading<'_>,
    draft: &mut Draft<'n>,
    together: &mut Together<'n>,
    offered: &Offered<'n>,
    field: &Field<'n>,
) {
    let service = draft.field.key;
    let spec = &mut draft.spec;
    match field.key {
        "image" => spec.image = reading.parsed(field, image::check).unwrap_or_default(),
        // Nothing means "as if the key were not there", as it does for Compose.
        key if KEYS.contains(&key) && field.is_null() => {}
        "command" => spec.command = process::argv(reading, service, field),
        "entrypoint" => spec.entrypoint = process::argv(reading, service, field),
        "environment" => together.environment = pairs::environment(reading, field),
        "env_file" => together.env_files = env_file::read(reading, field),
        "deploy" => together.deploy = deploy::read(reading, field),
        "scale" => together.deploy.scale(reading, field),
        // Both were looked at before: who takes part, and what it is made of.
        "profiles" | "extends" => {}
        "ports" => {
            draft.ports = ports::read(reading, field);
            spec.ports = draft.ports.iter().map(|(port, _)| port.clone()).collect();
        }
        "expose" => spec.expose = ports::exposed(reading, field),
        "volumes" => spec.mounts.extend(mounts::read(reading, field, &mut draft.volumes)),
        "tmpfs" => spec.mounts.extend(mounts::tmpfs(reading, field)),
        "configs" => spec.files.extend(files::granted(reading, service, field, Grant::Config, offered)),
        "secrets" => spec.files.extend(files::granted(reading, service, field, Grant::Secret, offered)),
        "healthcheck" => spec.healthcheck = health::read(reading, service, field),
        "restart" => {
            draft.restart = Some(field.clone());
            spec.restart = process::restart(reading, field).unwrap_or(spec.restart);
        }
        "labels" => spec.labels = pairs::labels(reading, service, field),
        "annotations" => spec.annotations = plain_labels(reading, field),
        "user" => spec.user = checked_text(reading, service, field, user),
        "working_dir" => spec.working_dir = checked_text(reading, service, field, paths::absolute),
        "depends_on" => reach::depends_on(reading, draft, field),
        "links" => reach::links(reading, draft, field),
        "networks" => reach::networks(reading, draft, field),
        "container_name" => draft.container_name = names::container_name(reading, field),
        "logging" => spec.logging = logging(reading, service, field),
        "network_mode" => spec.network_mode = reach::namespace(reading, &mut draft.shared, field, &["host", "none"]),
        "pid" => spec.pid = reach::namespace(reading, &mut draft.shared, field, &["host"]),
        "ipc" => {
            spec.ipc = reach::namespace(reading, &mut draft.shared, field, &["host", "private", "none", "shareable"])
        }
        "attach" => {
            reading.parsed(field, units::switch);
            reading.note_plain(field, "`attach` has no effect: nobody watches a deployed service's output");
        }
        "develop" => reading.note_plain(field, "`develop` has no effect on a deploy"),
        key if read_setting(reading, spec, key, field) => {}
        _ => reading.unknown_key(field, "a service", KEYS, LATER),
    }
}

/// Keys that say one thing about the container and nothing about anything else. False: it is none of them.
fn read_setting(reading: &mut Reading<'_>, spec: &mut ServiceSpec, key: &str, field: &Field<'_>) -> bool {
    match key {
        "read_only" => spec.read_only = reading.parsed(field, units::switch).unwrap_or_default(),
        "init" => spec.init = reading.parsed(field, units::switch),
        "stdin_open" => spec.stdin_open = reading.parsed(field, units::switch).unwrap_or_default(),
        "tty" => spec.tty = reading.parsed(field, units::switch).unwrap_or_default(),
        "stop_signal" => spec.stop_signal = reading.parsed(field, process::signal),
        "stop_grace_period" => spec.stop_grace_period_ms = reading.parsed(field, bounds::stop_grace_ms),
        "mem_limit" => spec.mem_limit_bytes = reading.parsed(field, bounds::memory),
        "mem_reservation" => spec.mem_reservation_bytes = reading.parsed(field, bounds::memory),
        "memswap_limit" => spec.memswap_limit_bytes = reading.parsed(field, bounds::memory_and_swap),
        "mem_swappiness" => spec.mem_swappiness = reading.parsed(field, bounds::swappiness),
        "oom_score_adj" => spec.oom_score_adj = reading.parsed(field, bounds::oom_score_adj),
        "shm_size" => spec.shm_size_bytes = reading.parsed(field, bounds::some_bytes),
        "cpus" => spec.cpus_milli = reading.parsed(field, units::cpus_milli),
        "cpu_shares" => spec.cpu_shares = reading.parsed(field, bounds::cpu_shares),
        "cpuset" => spec.cpuset = reading.parsed(field, bounds::cpuset),
        "pids_limit" => spec.pids_limit = reading.parsed(field, bounds::pids),
        "ulimits" => spec.ulimits = bounds::ulimits(reading, field),
        "sysctls" => spec.sysctls = pairs::sysctls(reading, field),
        "privileged" => spec.privileged = reading.parsed(field, units::switch).unwrap_or_default(),
        "cap_add" => spec.cap_add = process::distinct(reading, field, security::capability),
        "cap_drop" => spec.cap_drop = process::distinct(reading, field, security::capability),
        "security_opt" => spec.security_opt = process::distinct(reading, field, security::option),
        "devices" => spec.devices = security::devices(reading, field),
        "device_cgroup_rules" => spec.device_cgroup_rules = process::distinct(reading, field, security::device_rule),
        "group_add" => spec.group_add = process::distinct(reading, field, group),
        "hostname" => spec.hostname = reading.parsed(field, names::host),
        "domainname" => spec.domainname = reading.parsed(field, names::host),
        "extra_hosts" => spec.extra_hosts = names::extra_hosts(reading, field),
        "dns" => spec.dns = names::resolvers(reading, field),
        "dns_search" => spec.dns_search = names::search_domains(reading, field),
        "dns_opt" => spec.dns_opt = process::distinct(reading, field, names::resolver_option),
        "userns_mode" | "uts" => {
            let host = reading.parsed(field, |text| match text {
                "host" => Ok("host".to_owned()),
                _ => Err("the only value is host; leave the key out for a namespace of its own"),
            });
            if key == "uts" { spec.uts = host } else { spec.userns_mode = host }
        }
        "platform" => spec.platform = reading.parsed(field, image::platform),
        "pull_policy" => spec.pull_policy = reading.parsed(field, pull_policy),
        _ => return false,
    }
    true
}

/// A text that may be sealed, checked in either case.
fn checked_text(
    reading: &mut Reading<'_>,
    service: &str,
    field: &Field<'_>,
    check: fn(&str) -> Result<String, &'static str>,
) -> Option<Text> {
    let mut value = reading.value(field)?;
    match check(&value.text) {
        Ok(text) => value.text = text.into(),
        Err(reason) => {
            reading.refuse_value(field, &value, reason);
            return None;
        }
    }
    Some(reading.text(format!("{service}/{}", field.key), value))
}

fn is_user_or_group(part: &str) -> bool {
    !part.is_empty() && part.len() <= 255 && !part.chars().any(|c| c.is_control() || c.is_whitespace() || c == ':')
}

fn user(text: &str) -> Result<String, &'static str> {
    let (user, group) = text.split_once(':').map_or((text, None), |(user, group)| (user, Some(group)));
    if is_user_or_group(user) && group.is_none_or(is_user_or_group) {
        Ok(text.to_owned())
    } else {
        Err("a user is a name or number, with a group after a colon if need be: 1000:1000")
    }
}

fn group(text: &str) -> Result<String, &'static str> {
    if is_user_or_group(text) { Ok(text.to_owned()) } else { Err("a group is a name or number, such as 1000") }
}

fn pull_policy(text: &str) -> Result<PullPolicy, &'static str> {
    match text {
        "always" => Ok(PullPolicy::Always),
        "missing" | "if_not_present" => Ok(PullPolicy::Missing),
        "never" => Ok(PullPolicy::Never),
        "build" => Err("images are not built here: push the image to a registry and name it in `image`"),
        _ => Err(
            "write always, missing (or if_not_present) or never; images are looked at with each deploy, and at no other time",
        ),
    }
}

fn logging(reading: &mut Reading<'_>, service: &str, field: &Field<'_>) -> Option<LoggingSpec> {
    let mut spec = LoggingSpec { driver: "json-file".to_owned(), options: Default::default() };
    for entry in reading.mapping(field)? {
        match entry.key {
            "driver" => spec.driver = reading.parsed(&entry, log_driver)?,
            "options" => {
                for option in reading.mapping(&entry)? {
                    pairs::check_key(reading, &option, option.key)?;
                    let value = reading.value(&option)?;
                    let text = reading.text(format!("{service}/logging/options/{}", option.key), value);
                    spec.options.insert(option.key.to_owned(), text);
                }
            }
            key if is_extension(key) => {}
            _ => reading.unknown_key(&entry, "logging", &["driver", "options"], &[]),
        }
    }
    Some(spec)
}

fn log_driver(text: &str) -> Result<String, &'static str> {
    let known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/' | ':');
    if (1..=128).contains(&text.len()) && text.chars().all(known) {
        Ok(text.to_owned())
    } else {
        Err("a log driver is a name such as json-file, local or none")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::{Bundle, Options};

    fn problems(key: &str) -> String {
        let yaml = format!("services: {{web: {{image: a, {key}: {{x-y: [z]}}}}}}");
        let bundle = Bundle {
            files: BTreeMap::from([("c".to_owned(), Some(yaml.as_bytes()))]),
            order: vec!["c".to_owned()],
            complete: true,
        };
        let options = Options { variables: &BTreeMap::new(), app_name: None, fallback_name: Some("a"), profiles: &[] };
        crate::read(&bundle, &options).err().map(|problems| problems.to_string()).unwrap_or_default()
    }

    #[test]
    fn every_listed_key_is_read() {
        for key in KEYS {
            assert!(!problems(key).contains("has no key"), "{key} is listed as known, but nothing reads it");
        }
        for (key, hint) in LATER {
            assert!(!KEYS.contains(key), "{key} is listed as known and as not supported");
            assert!(problems(key).contains(hint), "{key}");
        }
        assert!(problems("frobnicate").contains("has no key"));
    }
}
