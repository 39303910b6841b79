//! What a service says about others: whom it waits for, which networks it joins, whose namespaces
//! it shares. Whether those others exist is checked when all are read.

use actions::spec::DependencyCondition;
use ids::ServiceName;

use super::{Draft, process};
use crate::{
    limits::NAME_BYTES_MAX,
    reading::{Field, Reading, is_extension},
    units,
};

/// That a service waits for another.
pub(crate) struct Wait<'n> {
    pub(crate) service: ServiceName,
    pub(crate) condition: DependencyCondition,
    /// False: it does not wait if the other is left out.
    pub(crate) required: bool,
    pub(crate) field: Field<'n>,
}

pub(super) fn depends_on<'n>(reading: &mut Reading<'_>, draft: &mut Draft<'n>, field: &Field<'n>) {
    if field.is_list() {
        for item in reading.list(field).unwrap_or_default() {
            let Some(value) = reading.value(&item) else { continue };
            let Some(service) = reading.name(&item, &value, &value.text) else { continue };
            if draft.dependencies.iter().any(|other| other.service == service) {
                reading.refuse_with(&item, "it is in the list twice", "remove one of them");
                continue;
            }
            let condition = DependencyCondition::ServiceStarted;
            draft.dependencies.push(Wait { service, condition, required: true, field: item });
        }
        return;
    }
    for entry in reading.mapping(field).unwrap_or_default() {
        let Some(service) = reading.key_name(&entry) else { continue };
        // Nothing after the name: an entry of a list, merged with a mapping.
        let read = if entry.is_null() {
            Some((DependencyCondition::ServiceStarted, true))
        } else {
            condition(reading, &entry)
        };
        if let Some((condition, required)) = read {
            draft.dependencies.push(Wait { service, condition, required, field: entry });
        }
    }
}

fn condition(reading: &mut Reading<'_>, field: &Field<'_>) -> Option<(DependencyCondition, bool)> {
    const CONDITIONS: &str = "write service_started, service_healthy or service_completed_successfully";
    let (mut condition, mut required) = (None, true);
    for entry in reading.mapping(field)? {
        match entry.key {
            "condition" => {
                condition = Some(reading.parsed(&entry, |text| match text {
                    "service_started" => Ok(DependencyCondition::ServiceStarted),
                    "service_healthy" => Ok(DependencyCondition::ServiceHealthy),
                    "service_completed_successfully" => Ok(DependencyCondition::ServiceCompletedSuccessfully),
                    _ => Err(CONDITIONS),
                })?);
            }
            "required" => required = reading.parsed(&entry, units::switch)?,
            // Accepted where it says what happens anyway.
            "restart" => {
                if reading.parsed(&entry, units::switch)? {
                    let hint = "leave it out: a service is replaced when its own settings or image change";
                    reading.refuse_with(&entry, "`restart: true` is not supported here", hint);
                }
            }
            key if is_extension(key) => {}
            _ => reading.unknown_key(&entry, "a dependency", &["condition", "required", "restart"], &[]),
        }
    }
    if condition.is_none() {
        reading.refuse_with(field, "the dependency has no `condition`", CONDITIONS);
    }
    Some((condition?, required))
}

/// `SERVICE` or `SERVICE:NAME`. It waits for the other; the name is known to this service alone.
pub(super) fn links<'n>(reading: &mut Reading<'_>, draft: &mut Draft<'n>, field: &Field<'n>) {
    for item in reading.list(field).unwrap_or_default() {
        let Some(value) = reading.value(&item) else { continue };
        let (service, name) = value.text.split_once(':').unwrap_or((&value.text, &value.text));
        let Some(other) = reading.name(&item, &value, service) else { continue };
        if name != service {
            match alias(name) {
                Ok(name) => drop(draft.spec.links.insert(name, other.clone())),
                Err(reason) => {
                    reading.refuse_value(&item, &value, reason);
                    continue;
                }
            }
        }
        draft.shared.push((other, item));
    }
    reading.note(
        field,
        "services on one network reach each other by name without `links`; its names are known to this service alone",
        "use `aliases` under `networks` of the other service for names that all know, and `depends_on` to wait",
    );
}

pub(super) fn networks<'n>(reading: &mut Reading<'_>, draft: &mut Draft<'n>, field: &Field<'n>) {
    if field.is_list() {
        for item in reading.list(field).unwrap_or_default() {
            let Some(value) = reading.value(&item) else { continue };
            let Some(name) = reading.name(&item, &value, &value.text) else { continue };
            if draft.spec.networks.insert(name.clone(), Vec::new()).is_some() {
                reading.refuse_with(&item, "it is in the list twice", "remove one of them");
            }
            draft.networks.push((name, item));
        }
        return;
    }
    for entry in reading.mapping(field).unwrap_or_default() {
        let Some(name) = reading.key_name(&entry) else { continue };
        let aliases = membership(reading, &entry);
        draft.spec.networks.insert(name.clone(), aliases);
        draft.networks.push((name, entry));
    }
}

fn membership(reading: &mut Reading<'_>, field: &Field<'_>) -> Vec<String> {
    const LATER: &[(&str, &str)] = &[
        ("ipv4_address", "leave it out: services reach each other by name"),
        ("ipv6_address", "leave it out: services reach each other by name"),
        ("mac_address", "leave it out"),
        ("priority", "leave it out: networks are joined in the order of their names"),
        ("gw_priority", "leave it out"),
        ("link_local_ips", "leave it out"),
        ("driver_opts", "leave it out"),
        ("interface_name", "leave it out"),
    ];
    let mut aliases = Vec::new();
    for entry in reading.mapping(field).unwrap_or_default() {
        match entry.key {
            "aliases" => aliases = process::distinct(reading, &entry, alias),
            key if is_extension(key) => {}
            _ => reading.unknown_key(&entry, "a network of a service", &["aliases"], LATER),
        }
    }
    aliases
}

pub(super) fn alias(text: &str) -> Result<String, &'static str> {
    let known = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    if (1..=NAME_BYTES_MAX).contains(&text.len()) && text.bytes().all(known) {
        Ok(text.to_owned())
    } else {
        Err("an alias is a host name: letters, digits, hyphens, underscores and dots")
    }
}

/// `network_mode`, `pid`, `ipc`: one of `words`, `service:NAME` or `container:NAME`. Sharing another
/// service's namespace means waiting until that service runs.
pub(super) fn namespace<'n>(
    reading: &mut Reading<'_>,
    shared: &mut Vec<(ServiceName, Field<'n>)>,
    field: &Field<'n>,
    words: &[&str],
) -> Option<String> {
    let value = reading.value(field)?;
    if words.contains(&value.text.as_str()) {
        return Some(value.text.to_string());
    }
    if let Some(service) = value.text.strip_prefix("service:") {
        let service = reading.name(field, &value, service)?;
        shared.push((service.clone(), field.clone()));
        return Some(format!("service:{service}"));
    }
    if let Some(container) = value.text.strip_prefix("container:") {
        let container = reading.name(field, &value, container)?;
        return Some(format!("container:{container}"));
    }
    let reason = format!("write {}, service:NAME or container:NAME", words.join(", "));
    reading.refuse_value(field, &value, &reason);
    None
}
