//! `networks` and `volumes` at the top of the file.

use std::collections::BTreeMap;

use actions::spec::{NetworkSpec, VolumeSpec};
use ids::{AppName, ServiceName};

use crate::{
    limits::NAME_BYTES_MAX,
    reading::{Field, Reading, is_extension},
    service, units,
};

pub(crate) const NETWORK_KEYS: &[&str] =
    &["name", "driver", "internal", "labels", "external", "attachable", "enable_ipv4", "enable_ipv6"];
const NETWORK_LATER: &[(&str, &str)] = &[
    ("driver_opts", "leave it out"),
    (
        "ipam",
        "leave it out: the engine chooses free addresses; a network made with addresses of its own is named with `external: true`",
    ),
];
pub(crate) const VOLUME_KEYS: &[&str] = &["name", "driver", "driver_opts", "labels", "external"];
/// The network of services that name none.
pub(crate) const DEFAULT_NETWORK: &str = "default";

pub(crate) fn networks(
    reading: &mut Reading<'_>,
    root: &Field<'_>,
    app: Option<&AppName>,
) -> BTreeMap<ServiceName, NetworkSpec> {
    read_named(reading, root.find("networks"), |reading, field| network(reading, field, app))
}

pub(crate) fn volumes(
    reading: &mut Reading<'_>,
    root: &Field<'_>,
    app: Option<&AppName>,
) -> BTreeMap<ServiceName, VolumeSpec> {
    read_named(reading, root.find("volumes"), |reading, field| volume(reading, field, app))
}

/// Reads `name: …` entries, each by `read`.
fn read_named<'n, 'a, T>(
    reading: &mut Reading<'a>,
    field: Option<Field<'n>>,
    read: impl Fn(&mut Reading<'a>, &Field<'n>) -> T,
) -> BTreeMap<ServiceName, T> {
    let mut named = BTreeMap::new();
    let Some(field) = field else { return named };
    for entry in reading.named_entries(&field) {
        let read = read(reading, &entry);
        if let Some(name) = reading.key_name(&entry) {
            named.insert(name, read);
        }
    }
    named
}

fn network(reading: &mut Reading<'_>, field: &Field<'_>, app: Option<&AppName>) -> NetworkSpec {
    let mut network = NetworkSpec { external: external(reading, field, "network"), ..NetworkSpec::default() };
    for entry in reading.mapping(field).unwrap_or_default() {
        match entry.key {
            "external" => {}
            "name" => name(reading, &entry, field.key, network.external.is_some(), app, "network"),
            "driver" => {
                reading.parsed(&entry, |driver| match driver {
                    "bridge" => Ok(()),
                    _ => Err("only the driver bridge is supported here; a network of another kind is made on the host and named with `external: true`"),
                });
            }
            "internal" => network.internal = reading.parsed(&entry, units::switch).unwrap_or_default(),
            "labels" => network.labels = service::plain_labels(reading, &entry),
            "attachable" => {
                reading.parsed(&entry, units::switch);
                reading.note_plain(&entry, "`attachable` has no effect: it serves swarms only");
            }
            "enable_ipv4" => {
                if reading.parsed(&entry, units::switch) == Some(false) {
                    reading.refuse(&entry, "a network without IPv4 is not supported here");
                }
            }
            "enable_ipv6" => {
                if reading.parsed(&entry, units::switch) == Some(true) {
                    let hint = "leave it out: the engine's default holds; or make the network on the host and name it with `external: true`";
                    reading.refuse_with(&entry, "IPv6 of a single network is not supported here", hint);
                }
            }
            key if is_extension(key) => {}
            _ => reading.unknown_key(&entry, "a network", NETWORK_KEYS, NETWORK_LATER),
        }
    }
    if network.external.is_some() && (network.internal || !network.labels.is_empty()) {
        reading.refuse_with(field, "an external network has no settings here", "leave `external` and `name` alone");
    }
    network
}

fn volume(reading: &mut Reading<'_>, field: &Field<'_>, app: Option<&AppName>) -> VolumeSpec {
    const READABLE: &str = "driver options travel readable, and the host's policy judges them";
    let mut volume = VolumeSpec { external: external(reading, field, "volume"), ..VolumeSpec::default() };
    for entry in reading.mapping(field).unwrap_or_default() {
        match entry.key {
            "external" => {}
            "name" => name(reading, &entry, field.key, volume.external.is_some(), app, "volume"),
            "driver" => {
                reading.parsed(&entry, |driver| match driver {
                    "local" => Ok(()),
                    _ => Err("only the driver local is supported here; a volume of another kind is made on the host and named with `external: true`"),
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
            key if is_extension(key) => {}
            _ => reading.unknown_key(&entry, "a volume", VOLUME_KEYS, &[]),
        }
    }
    if volume.external.is_some() && !(volume.driver_opts.is_empty() && volume.labels.is_empty()) {
        reading.refuse_with(field, "an external volume has no settings here", "leave `external` and `name` alone");
    }
    volume
}

/// The name on the engine of what somebody else made, if it is that: `external: true` with `name`, or
/// `external: {name: …}` as old files have it.
fn external(reading: &mut Reading<'_>, field: &Field<'_>, what: &str) -> Option<String> {
    let entry = field.find("external")?;
    let mut name = field.find("name");
    if entry.is_mapping() {
        for inner in reading.mapping(&entry)? {
            match inner.key {
                "name" => name = Some(inner),
                _ => reading.unknown_key(&inner, &format!("an external {what}"), &["name"], &[]),
            }
        }
    } else if !reading.parsed(&entry, units::switch)? {
        return None;
    }
    match name {
        Some(name) => reading.parsed(&name, engine_name),
        None => engine_name(field.key).ok(),
    }
}

fn engine_name(text: &str) -> Result<String, &'static str> {
    let known = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
    let begins = text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
    if begins && text.len() <= NAME_BYTES_MAX && text.bytes().all(known) {
        Ok(text.to_owned())
    } else {
        Err("the engine's names have letters, digits, hyphens, underscores and dots, and begin with a letter or digit")
    }
}

/// `name` of what the app makes itself: honoured where it says what happens anyway.
fn name(reading: &mut Reading<'_>, entry: &Field<'_>, key: &str, external: bool, app: Option<&AppName>, what: &str) {
    if external {
        return;
    }
    let Some(value) = reading.value(entry) else { return };
    if app.is_some_and(|app| value.text.as_str() == format!("{app}_{key}")) {
        return;
    }
    let message = format!("a {what} of the app has no name of its own: it is called after the app and its key");
    let hint =
        format!("leave `name` out; a {what} that exists already, made outside the app, is named with `external: true`");
    reading.refuse_with(entry, message, hint);
}
