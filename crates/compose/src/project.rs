//! The files as a whole: the keys at the top, and what must hold between services, networks and
//! volumes.

use std::collections::{BTreeMap, BTreeSet};

use actions::spec::{AppSpec, DependencyCondition, HealthTest, NetworkSpec, RestartPolicy};
use ids::{AppName, ServiceName};

use crate::{
    Options,
    files::Offered,
    profiles::Profiles,
    reading::{Field, Reading, is_extension},
    relations,
    resources::{self, DEFAULT_NETWORK},
    service,
    service::Draft,
};

pub(crate) const KEYS: &[&str] =
    &["name", "services", "volumes", "networks", "configs", "secrets", "include", "version"];
const LATER: &[(&str, &str)] = &[("models", "leave it out, and run the model as a service of its own")];

/// Reads the file. The result counts only if `reading` holds no problem afterwards.
pub(crate) fn read(reading: &mut Reading<'_>, root: &Field<'_>, options: &Options<'_>) -> Option<AppSpec> {
    let entries = reading.mapping(root)?;
    let app = app_name(reading, root, root.find("name").as_ref(), options);
    reading.sources.project_name = app.as_ref().map(|app| app.as_str().to_owned());
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
    let mut networks = resources::networks(reading, root, app.as_ref());
    let volumes = resources::volumes(reading, root, app.as_ref());
    let offered = Offered::read(reading, root);
    let mut profiles = Profiles::new(reading, options);
    let (mut drafts, mut left_out) = (BTreeMap::new(), BTreeSet::new());
    match root.find("services") {
        Some(field) => {
            services(reading, &field, &mut profiles, &offered, &mut drafts, &mut left_out);
            profiles.tell_unknown(reading, root);
            if drafts.is_empty() && reading.problems.is_empty() {
                let (message, hint) = if left_out.is_empty() {
                    ("no service stands here", "an app has at least one service with an image")
                } else {
                    ("every service is left out", "pass `--profile NAME` for those that are wanted")
                };
                reading.refuse_with(&field, message, hint);
            }
        }
        None => {
            reading.refuse_with(root, "the file has no `services`", "an app has at least one service with an image")
        }
    }
    join_default_network(&mut drafts, &mut networks);
    relations::forget_optional(reading, &mut drafts);
    relations::check(reading, &drafts, &left_out, &networks, &volumes);
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

/// Reads the services that take part, and names those that do not.
fn services<'n>(
    reading: &mut Reading<'_>,
    field: &Field<'n>,
    profiles: &mut Profiles,
    offered: &Offered<'n>,
    drafts: &mut BTreeMap<ServiceName, Draft<'n>>,
    left_out: &mut BTreeSet<ServiceName>,
) {
    for entry in reading.named_entries(field) {
        if !profiles.take(reading, &entry) {
            left_out.extend(reading.key_name(&entry));
            continue;
        }
        let draft = service::read(reading, &entry, offered);
        if let Some(name) = reading.key_name(&entry) {
            drafts.insert(name, draft);
        }
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
        .filter(|wait| wait.condition == DependencyCondition::ServiceCompletedSuccessfully)
        .map(|wait| wait.service.clone())
        .collect();
    let unprobed: BTreeSet<ServiceName> = drafts
        .iter()
        .filter(|(_, draft)| draft.spec.healthcheck.as_ref().is_some_and(|check| check.test == HealthTest::Disabled))
        .map(|(name, _)| name.clone())
        .collect();
    let mut services = BTreeMap::new();
    for (name, draft) in drafts {
        let mut spec = draft.spec;
        if let Some(alias) = draft.container_name {
            for aliases in spec.networks.values_mut().filter(|aliases| !aliases.contains(&alias)) {
                aliases.push(alias.clone());
            }
        }
        for (shared, _) in draft.shared {
            spec.depends_on.insert(shared, DependencyCondition::ServiceStarted);
        }
        for wait in draft.dependencies {
            if wait.condition == DependencyCondition::ServiceHealthy && unprobed.contains(&wait.service) {
                let message = format!("`{}` can never become healthy: its health check is switched off", wait.service);
                reading.refuse_with(&wait.field, message, "give it a health check, or wait for service_started");
            }
            spec.depends_on.insert(wait.service, wait.condition);
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
