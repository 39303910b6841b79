//! The file as a whole: its top-level keys, and what must hold between services, networks and
//! volumes.

use std::collections::{BTreeMap, BTreeSet};

use actions::spec::{AppSpec, DependencyCondition, HealthTest, NetworkSpec, RestartPolicy, VolumeSpec};
use ids::{AppName, ServiceName};

use crate::{
    Options,
    reading::{Field, Reading, is_extension},
    relations, service,
    service::Draft,
    units,
};

const KEYS: &[&str] = &["name", "services", "volumes", "networks", "version"];
const LATER: &[(&str, &str)] = &[
    ("configs", "put settings into `environment` or into the image"),
    ("include", "put everything into one file"),
    ("models", "leave it out"),
    ("secrets", "put secrets into `environment`: its values are sealed to the host"),
];
const NETWORK_KEYS: &[&str] = &["driver", "internal", "labels", "external"];
const NETWORK_LATER: &[(&str, &str)] = &[
    ("attachable", "leave it out: it serves swarms only"),
    ("driver_opts", "leave it out"),
    ("enable_ipv4", "leave it out"),
    ("enable_ipv6", "leave it out; the engine's default holds"),
    ("ipam", "leave it out: the engine chooses free addresses"),
    ("name", "leave it out: networks are named after the app"),
];
const VOLUME_KEYS: &[&str] = &["driver", "driver_opts", "labels", "external"];
const VOLUME_LATER: &[(&str, &str)] = &[("name", "leave it out: volumes are named after the app")];
/// The network of services that name none.
const DEFAULT_NETWORK: &str = "default";

/// Reads the file. The result counts only if `reading` holds no problem afterwards.
pub(crate) fn read(reading: &mut Reading<'_>, root: &Field<'_>, options: &Options<'_>) -> Option<AppSpec> {
    let entries = reading.mapping(root)?;
    let find = |key: &str| entries.iter().find(|entry| entry.key == key);
    let app = app_name(reading, root, find("name"), options);
    reading.project_name = app.as_ref().map(|app| app.as_str().to_owned());
    for entry in &entries {
        match entry.key {
            "version" => reading.note(entry, "`version` is obsolete and has no effect", "remove it"),
            key if KEYS.contains(&key) || is_extension(key) => {}
            key if service::KEYS.contains(&key) => {
                let message = format!("`{key}` is a key of a service and stands at the top of the file");
                reading.refuse_with(entry, message, "indent it below `services:` and the service's name");
            }
            _ => reading.unknown_key(entry, "a Compose file", KEYS, LATER),
        }
    }
    let mut networks = find("networks").map(|field| read_named(reading, field, network)).unwrap_or_default();
    let volumes = find("volumes").map(|field| read_named(reading, field, volume)).unwrap_or_default();
    let mut drafts = BTreeMap::new();
    match find("services") {
        Some(field) => {
            drafts = read_named(reading, field, service::read);
            if drafts.is_empty() && reading.problems.is_empty() {
                reading.refuse_with(field, "no service stands here", "an app has at least one service with an image");
            }
        }
        None => {
            reading.refuse_with(root, "the file has no `services`", "an app has at least one service with an image")
        }
    }
    join_default_network(&mut drafts, &mut networks);
    relations::check(reading, &drafts, &networks, &volumes);
    let services = finished(reading, drafts);
    Some(AppSpec { app: app?, services, networks, volumes })
}

/// `--name`, then the file's `name`, then the folder's name made to fit, as Compose does.
fn app_name(
    reading: &mut Reading<'_>,
    root: &Field<'_>,
    field: Option<&Field<'_>>,
    options: &Options<'_>,
) -> Option<AppName> {
    let from_file = field.and_then(|field| {
        let value = reading.value(field)?;
        let parsed = value.text.parse().ok();
        if parsed.is_none() {
            let rule = "an app's name has 1 to 48 lower-case letters, digits, hyphens and underscores, \
                and begins and ends with a letter or digit";
            reading.refuse_value(field, &value, rule);
        }
        parsed
    });
    if options.app_name.is_some() || field.is_some() {
        return options.app_name.clone().or(from_file);
    }
    let folder = options.fallback_name.unwrap_or_default().to_lowercase();
    let kept: String =
        folder.chars().filter(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_')).collect();
    let name = kept.trim_matches(['-', '_']).parse().ok();
    if name.is_none() {
        reading.refuse_with(root, "the app has no name", "write `name: my-app` at the top, or pass --name");
    }
    name
}

/// Reads `name: …` entries, each by `read`.
fn read_named<'n, 'a, T>(
    reading: &mut Reading<'a>,
    field: &Field<'n>,
    read: fn(&mut Reading<'a>, &Field<'n>) -> T,
) -> BTreeMap<ServiceName, T> {
    let mut named = BTreeMap::new();
    for entry in reading.named_entries(field) {
        let read = read(reading, &entry);
        if let Some(name) = reading.key_name(&entry) {
            named.insert(name, read);
        }
    }
    named
}

fn network(reading: &mut Reading<'_>, field: &Field<'_>) -> NetworkSpec {
    let mut network = NetworkSpec::default();
    for entry in reading.mapping(field).unwrap_or_default() {
        match entry.key {
            "driver" => {
                reading.parsed(&entry, |driver| match driver {
                    "bridge" => Ok(()),
                    _ => Err("only the driver bridge is supported by this version"),
                });
            }
            "internal" => network.internal = reading.parsed(&entry, units::switch).unwrap_or_default(),
            "labels" => network.labels = service::plain_labels(reading, &entry),
            "external" => external(reading, &entry, "network"),
            key if is_extension(key) => {}
            _ => reading.unknown_key(&entry, "a network", NETWORK_KEYS, NETWORK_LATER),
        }
    }
    network
}

fn volume(reading: &mut Reading<'_>, field: &Field<'_>) -> VolumeSpec {
    const READABLE: &str = "driver options travel readable, and the host's policy judges them";
    let mut volume = VolumeSpec::default();
    for entry in reading.mapping(field).unwrap_or_default() {
        match entry.key {
            "driver" => {
                reading.parsed(&entry, |driver| match driver {
                    "local" => Ok(()),
                    _ => Err("only the driver local is supported by this version"),
                });
            }
            "driver_opts" => {
                for option in reading.mapping(&entry).unwrap_or_default() {
                    if let Some(text) = reading.plain_text(&option, READABLE) {
                        volume.driver_opts.insert(option.key.to_owned(), text);
                    }
                }
            }
            "labels" => volume.labels = service::plain_labels(reading, &entry),
            "external" => external(reading, &entry, "volume"),
            key if is_extension(key) => {}
            _ => reading.unknown_key(&entry, "a volume", VOLUME_KEYS, VOLUME_LATER),
        }
    }
    volume
}

fn external(reading: &mut Reading<'_>, field: &Field<'_>, what: &str) {
    if field.is_mapping() || reading.parsed(field, units::switch) == Some(true) {
        let message = format!("an external {what}, made outside the app, is not supported by this version");
        reading.refuse_with(field, message, format!("remove `external`: the app then makes its own {what}"));
    }
}

/// Puts services that name no network into `default`, so that the specification says so.
fn join_default_network(
    drafts: &mut BTreeMap<ServiceName, Draft<'_>>,
    networks: &mut BTreeMap<ServiceName, NetworkSpec>,
) {
    let Ok(name) = DEFAULT_NETWORK.parse::<ServiceName>() else { return };
    for draft in drafts.values_mut() {
        if draft.spec.networks.is_empty() && draft.spec.network_mode.is_none() {
            draft.spec.networks.insert(name.clone(), Vec::new());
        }
        if draft.spec.networks.contains_key(&name) {
            networks.entry(name.clone()).or_default();
        }
    }
}

/// Puts relations into the specifications and settles what depends on them: `restart` of a service
/// that another waits for to complete.
fn finished(
    reading: &mut Reading<'_>,
    drafts: BTreeMap<ServiceName, Draft<'_>>,
) -> BTreeMap<ServiceName, actions::spec::ServiceSpec> {
    let completed: BTreeSet<ServiceName> = drafts
        .values()
        .flat_map(|draft| &draft.dependencies)
        .filter(|(_, condition, _)| *condition == DependencyCondition::ServiceCompletedSuccessfully)
        .map(|(name, ..)| name.clone())
        .collect();
    let unprobed: BTreeSet<ServiceName> = drafts
        .iter()
        .filter(|(_, draft)| draft.spec.healthcheck.as_ref().is_some_and(|check| check.test == HealthTest::Disabled))
        .map(|(name, _)| name.clone())
        .collect();
    let mut services = BTreeMap::new();
    for (name, draft) in drafts {
        let mut spec = draft.spec;
        for (shared, _) in draft.shared {
            spec.depends_on.insert(shared, DependencyCondition::ServiceStarted);
        }
        for (dependency, condition, field) in draft.dependencies {
            if condition == DependencyCondition::ServiceHealthy && unprobed.contains(&dependency) {
                let message = format!("`{dependency}` can never become healthy: its health check is switched off");
                reading.refuse_with(&field, message, "give it a health check, or wait for service_started");
            }
            spec.depends_on.insert(dependency, condition);
        }
        if completed.contains(&name) {
            match (&draft.restart, spec.restart) {
                (None, _) => spec.restart = RestartPolicy::No,
                (Some(field), RestartPolicy::Always | RestartPolicy::UnlessStopped) => reading.refuse_with(
                    field,
                    "another service waits for this one to complete, but it would be started again each time",
                    "write `restart: \"no\"` or `restart: on-failure`",
                ),
                (Some(_), RestartPolicy::No | RestartPolicy::OnFailure { .. }) => {}
            }
        }
        services.insert(name, spec);
    }
    services
}
