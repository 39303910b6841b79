//! One service: the list of its keys, and which reader takes each.

mod pairs;
mod process;
mod reach;

use actions::spec::{DependencyCondition, LoggingSpec, PortSpec, ServiceSpec, Text};
use ids::ServiceName;

use crate::{
    health, image, mounts, paths, ports,
    reading::{Field, Reading, is_extension},
    units,
};

pub(crate) use pairs::plain_labels;

/// Every key a service may have. A test checks that each is read.
pub(crate) const KEYS: &[&str] = &[
    "image",
    "command",
    "entrypoint",
    "environment",
    "ports",
    "volumes",
    "healthcheck",
    "restart",
    "labels",
    "user",
    "working_dir",
    "read_only",
    "init",
    "depends_on",
    "networks",
    "logging",
    "stop_signal",
    "stop_grace_period",
    "mem_limit",
    "cpus",
    "privileged",
    "cap_add",
    "devices",
    "network_mode",
    "pid",
    "ipc",
];

/// Keys that Compose has and this version has not, with what to do instead.
const LATER: &[(&str, &str)] = &[
    ("build", "build the image first, then name it in `image`"),
    ("cap_drop", "leave it out; containers already run with `no-new-privileges`"),
    ("cgroup_parent", "leave it out"),
    ("configs", "put settings into `environment` or into the image"),
    ("container_name", "leave it out: containers are named after the app and the service"),
    ("deploy", "write `mem_limit`, `cpus` and `restart` in the service itself"),
    ("develop", "leave it out: it serves development only"),
    ("dns", "leave it out; the host's resolver is used"),
    ("domainname", "use an alias in `networks` instead"),
    (
        "env_file",
        "write the variables under `environment`; `NAME:` without a value takes it from the environment or `.env`",
    ),
    ("expose", "leave it out: services on one network reach every port of each other"),
    ("extends", "use a YAML anchor and `<<` instead"),
    ("external_links", "join a common network instead"),
    ("extra_hosts", "use a network alias or a DNS name instead"),
    ("group_add", "set the group in `user`, as in 1000:1000"),
    ("hostname", "services reach each other by their names; for another name use an alias in `networks`"),
    ("links", "services on one network reach each other by name; use an alias in `networks` for another"),
    ("mem_reservation", "use `mem_limit`"),
    ("platform", "name an image made for the host's platform"),
    ("profiles", "write a Compose file of its own for each choice of services"),
    ("pull_policy", "leave it out: images are resolved and pulled by the deploy"),
    ("scale", "one container runs for each service; write a second service instead"),
    ("secrets", "put secrets into `environment`: its values are sealed to the host"),
    ("security_opt", "leave it out; `no-new-privileges` is always set"),
    ("shm_size", "mount memory at /dev/shm: `volumes` with `type: tmpfs` and `tmpfs: {size: 64m}`"),
    ("stdin_open", "leave it out: a deployed service has no terminal"),
    ("sysctls", "leave it out"),
    ("tmpfs", "use the long form under `volumes`: `type: tmpfs`, `target: /run`"),
    ("tty", "leave it out: a deployed service has no terminal"),
    ("ulimits", "leave it out; the engine's limits hold"),
    ("userns_mode", "leave it out"),
    ("volumes_from", "name the same volume in both services"),
];

/// What a service says about others, kept with its place until all services are read.
pub(crate) struct Draft<'n> {
    pub(crate) spec: ServiceSpec,
    pub(crate) field: Field<'n>,
    /// Where the file sets `restart`, if it does.
    pub(crate) restart: Option<Field<'n>>,
    pub(crate) dependencies: Vec<(ServiceName, DependencyCondition, Field<'n>)>,
    /// Services whose namespaces it shares; it waits for them as well.
    pub(crate) shared: Vec<(ServiceName, Field<'n>)>,
    pub(crate) networks: Vec<(ServiceName, Field<'n>)>,
    pub(crate) volumes: Vec<(ServiceName, Field<'n>)>,
    pub(crate) ports: Vec<(PortSpec, Field<'n>)>,
}

/// Reads one service. What it refuses is among the problems; the draft is then incomplete.
pub(crate) fn read<'n>(reading: &mut Reading<'_>, field: &Field<'n>) -> Draft<'n> {
    let mut draft = Draft {
        spec: ServiceSpec::default(),
        field: field.clone(),
        restart: None,
        dependencies: Vec::new(),
        shared: Vec::new(),
        networks: Vec::new(),
        volumes: Vec::new(),
        ports: Vec::new(),
    };
    let Some(entries) = reading.mapping(field) else { return draft };
    for entry in &entries {
        if !is_extension(entry.key) {
            read_key(reading, &mut draft, entry);
        }
    }
    let has = |key: &str| entries.iter().any(|entry| entry.key == key);
    if !has("image") && !has("build") {
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
    draft
}

fn read_key<'n>(reading: &mut Reading<'_>, draft: &mut Draft<'n>, field: &Field<'n>) {
    let service = draft.field.key;
    let spec = &mut draft.spec;
    match field.key {
        "image" => spec.image = reading.parsed(field, image::check).unwrap_or_default(),
        // Nothing means "as if the key were not there", as it does for Compose.
        key if KEYS.contains(&key) && field.is_null() => {}
        "command" => spec.command = process::argv(reading, service, field),
        "entrypoint" => spec.entrypoint = process::argv(reading, service, field),
        "environment" => spec.environment = pairs::environment(reading, service, field),
        "ports" => {
            draft.ports = ports::read(reading, field);
            spec.ports = draft.ports.iter().map(|(port, _)| port.clone()).collect();
        }
        "volumes" => spec.mounts = mounts::read(reading, field, &mut draft.volumes),
        "healthcheck" => spec.healthcheck = health::read(reading, service, field),
        "restart" => {
            draft.restart = Some(field.clone());
            spec.restart = process::restart(reading, field).unwrap_or(spec.restart);
        }
        "labels" => spec.labels = pairs::labels(reading, service, field),
        "user" => spec.user = checked_text(reading, service, field, user),
        "working_dir" => spec.working_dir = checked_text(reading, service, field, paths::absolute),
        "read_only" => spec.read_only = reading.parsed(field, units::switch).unwrap_or_default(),
        "init" => spec.init = reading.parsed(field, units::switch),
        "depends_on" => reach::depends_on(reading, draft, field),
        "networks" => reach::networks(reading, draft, field),
        "logging" => spec.logging = logging(reading, service, field),
        "stop_signal" => spec.stop_signal = reading.parsed(field, process::signal),
        "stop_grace_period" => spec.stop_grace_period_ms = reading.parsed(field, units::duration_ms),
        "mem_limit" => spec.mem_limit_bytes = reading.parsed(field, process::memory),
        "cpus" => spec.cpus_milli = reading.parsed(field, units::cpus_milli),
        "privileged" => spec.privileged = reading.parsed(field, units::switch).unwrap_or_default(),
        "cap_add" => spec.cap_add = process::distinct(reading, field, process::capability),
        "devices" => spec.devices = process::devices(reading, field),
        "network_mode" => spec.network_mode = reach::namespace(reading, &mut draft.shared, field, &["host", "none"]),
        "pid" => spec.pid = reach::namespace(reading, &mut draft.shared, field, &["host"]),
        "ipc" => {
            spec.ipc = reach::namespace(reading, &mut draft.shared, field, &["host", "private", "none", "shareable"])
        }
        _ => reading.unknown_key(field, "a service", KEYS, LATER),
    }
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

fn user(text: &str) -> Result<String, &'static str> {
    let part = |part: &str| {
        !part.is_empty() && part.len() <= 255 && !part.chars().any(|c| c.is_control() || c.is_whitespace() || c == ':')
    };
    let (user, group) = text.split_once(':').map_or((text, None), |(user, group)| (user, Some(group)));
    if part(user) && group.is_none_or(part) {
        Ok(text.to_owned())
    } else {
        Err("a user is a name or number, with a group after a colon if need be: 1000:1000")
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
        let bundle = Bundle { files: BTreeMap::from([("c".to_owned(), yaml.as_bytes())]), main: "c" };
        let options = Options { variables: &BTreeMap::new(), app_name: None, fallback_name: Some("a") };
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
