//! Rules of an app specification that types do not carry: names that point somewhere, no circle of
//! dependencies, bounds. Checked once, at decoding; whatever comes after may rely on them.

mod places;
mod runtime;

use std::collections::{BTreeMap, BTreeSet};

use ids::ServiceName;

use crate::{
    limits,
    policy::image::ImageReference,
    registry::Fault,
    spec::{AppSpec, HealthTest, SealedText, ServiceSpec, Text},
    spec_read,
};

/// Labels that only ServerFlow sets.
const RESERVED_LABELS: &str = "io.serverflow.";

pub(crate) fn check(spec: &AppSpec) -> Result<(), Fault> {
    bound("services", spec.services.len(), limits::SERVICES_MAX)?;
    bound("networks", spec.networks.len(), limits::NETWORKS_MAX)?;
    bound("volumes", spec.volumes.len(), limits::NETWORKS_MAX)?;
    if spec.services.is_empty() {
        return Err(Fault::new("spec.services", "an app has at least one service"));
    }
    for (name, service) in &spec.services {
        let at = format!("spec.services.{name}");
        service_check(spec, name, service, &at)?;
    }
    for (name, network) in &spec.networks {
        let at = format!("spec.networks.{name}");
        reserved(network.labels.keys(), &format!("{at}.labels"))?;
        let settings = network.internal || !network.labels.is_empty();
        external_check(network.external.as_ref(), settings, &at)?;
    }
    for (name, volume) in &spec.volumes {
        let at = format!("spec.volumes.{name}");
        reserved(volume.labels.keys(), &format!("{at}.labels"))?;
        let settings = !volume.driver_opts.is_empty() || !volume.labels.is_empty();
        external_check(volume.external.as_ref(), settings, &at)?;
    }
    if let Err(circle) = spec_read::start_order(spec) {
        let names: Vec<String> = circle.iter().map(ToString::to_string).collect();
        return Err(Fault::new(
            "spec.services",
            format!("these wait for each other in a circle: {}", names.join(", ")),
        ));
    }
    Ok(())
}

/// Pinned images: exactly one for each service, and of the repository that the service names.
pub(crate) fn images_check(
    spec: &AppSpec,
    images: &BTreeMap<ServiceName, crate::spec::PinnedImage>,
) -> Result<(), Fault> {
    if let Some(name) = spec.services.keys().find(|name| !images.contains_key(*name)) {
        return Err(Fault::new(
            "images",
            format!("service {name} has no pinned image; take all from app.plan's result"),
        ));
    }
    for (name, image) in images {
        let at = format!("images.{name}");
        let Some(service) = spec.services.get(name) else {
            return Err(Fault::new(at, "no such service in the specification"));
        };
        if image.reference != service.image {
            return Err(Fault::new(
                at,
                format!("is for {:?}, but the service names {:?}", image.reference, service.image),
            ));
        }
        if image.local {
            if !crate::policy::image::is_sha256_id(&image.pinned) {
                return Err(Fault::new(at, "a local image is pinned by its id, sha256: and 64 hexadecimal digits"));
            }
            continue;
        }
        let pinned: ImageReference = image.pinned.parse().map_err(|e| Fault::new(&at, format!("{e}")))?;
        let named: ImageReference = image.reference.parse().map_err(|e| Fault::new(&at, format!("{e}")))?;
        if pinned.digest.is_none() {
            return Err(Fault::new(at, "must be pinned by a digest (name@sha256:…)"));
        }
        if pinned.repository() != named.repository() {
            let words = format!("is pinned to {}, another repository than {}", pinned.repository(), named.repository());
            return Err(Fault::new(at, words));
        }
    }
    Ok(())
}

fn bound(what: &str, n: usize, max: usize) -> Result<(), Fault> {
    if n > max {
        Err(Fault::new(format!("spec.{what}"), format!("{n} {what}, more than the {max} an app may have")))
    } else {
        Ok(())
    }
}

/// What somebody else made has that one's settings, and a name as the engine takes it.
fn external_check(external: Option<&String>, settings: bool, at: &str) -> Result<(), Fault> {
    let Some(name) = external else { return Ok(()) };
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
    let starts = name.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
    // These are not networks of somebody, but ways to have none or the host's.
    let modes = ["host", "none", "bridge", "default"];
    if !starts || name.len() > 255 || !name.bytes().all(plain) || modes.contains(&name.as_str()) {
        return Err(Fault::new(
            format!("{at}.external"),
            format!("{name:?} is not the name of one that somebody made"),
        ));
    }
    if settings {
        return Err(Fault::new(at, "an external one is used as it is: leave out its other settings"));
    }
    Ok(())
}

fn service_check(spec: &AppSpec, name: &ServiceName, service: &ServiceSpec, at: &str) -> Result<(), Fault> {
    service.image.parse::<ImageReference>().map_err(|e| Fault::new(format!("{at}.image"), e.to_string()))?;
    for (variable, value) in &service.environment {
        if variable.is_empty() || variable.contains(['=', '\0']) {
            return Err(Fault::new(format!("{at}.environment"), format!("{variable:?} is not a variable's name")));
        }
        if matches!(value, Text::Plain(_)) {
            let words = "environment values are sealed: send them as secrets beside the order, and a reference here";
            return Err(Fault::new(format!("{at}.environment.{variable}"), words));
        }
    }
    for text in spec_read::texts(service) {
        if let Text::Plain(plain) = text
            && plain.contains('\0')
        {
            return Err(Fault::new(at, "a text with a NUL character"));
        }
    }
    reserved(service.labels.keys(), &format!("{at}.labels"))?;
    for (index, mount) in service.mounts.iter().enumerate() {
        places::mount_check(spec, mount, &format!("{at}.mounts[{index}]"))?;
    }
    for (index, port) in service.ports.iter().enumerate() {
        if port.container_port == 0 || port.host_port == Some(0) {
            return Err(Fault::new(format!("{at}.ports[{index}]"), "ports go from 1 to 65535"));
        }
    }
    for dependency in service.depends_on.keys() {
        if dependency == name || !spec.services.contains_key(dependency) {
            return Err(Fault::new(
                format!("{at}.depends_on"),
                format!("{dependency} is not another service of this app"),
            ));
        }
    }
    for network in service.networks.keys() {
        if !spec.networks.contains_key(network) && network.as_str() != spec_read::DEFAULT_NETWORK {
            return Err(Fault::new(format!("{at}.networks"), format!("{network} is not a network of this app")));
        }
    }
    namespaces_check(spec, service, at)?;
    places::files_check(service, at)?;
    runtime::check(spec, service, at)?;
    if let Some(health) = &service.healthcheck
        && matches!(&health.test, HealthTest::Command(argv) if argv.is_empty())
    {
        return Err(Fault::new(format!("{at}.healthcheck.test"), "a command has at least one word"));
    }
    if service.stop_grace_period_ms.is_some_and(|ms| ms > limits::STOP_GRACE_MAX.0) {
        return Err(Fault::new(format!("{at}.stop_grace_period_ms"), format!("at most {}", limits::STOP_GRACE_MAX)));
    }
    Ok(())
}

fn namespaces_check(spec: &AppSpec, service: &ServiceSpec, at: &str) -> Result<(), Fault> {
    let modes = [
        ("network_mode", &service.network_mode, ["host", "none"].as_slice()),
        ("pid", &service.pid, &["host"]),
        ("ipc", &service.ipc, &["host", "none", "private", "shareable"]),
    ];
    for (field, mode, words) in modes {
        let Some(mode) = mode else { continue };
        let at = format!("{at}.{field}");
        match mode.split_once(':') {
            Some(("service", other)) => {
                if !spec.services.keys().any(|name| name.as_str() == other) {
                    return Err(Fault::new(at, format!("{other} is not a service of this app")));
                }
            }
            Some(("container", other)) if other.parse::<ServiceName>().is_ok() => {}
            _ if words.contains(&mode.as_str()) => {}
            _ => {
                let words = words.join(", ");
                return Err(Fault::new(at, format!("{mode:?} is none of {words}, service:NAME, container:NAME")));
            }
        }
    }
    if service.network_mode.is_some() && !service.networks.is_empty() {
        return Err(Fault::new(format!("{at}.network_mode"), "a service has either networks or a network mode"));
    }
    Ok(())
}

fn reserved<'a>(mut keys: impl Iterator<Item = &'a String>, at: &str) -> Result<(), Fault> {
    match keys.find(|key| key.is_empty() || key.starts_with(RESERVED_LABELS)) {
        Some(key) => Err(Fault::new(at, format!("the label {key:?} is ServerFlow's own"))),
        None => Ok(()),
    }
}

/// Every sealed reference in the specification.
pub(crate) fn secret_names(spec: &AppSpec) -> BTreeSet<crate::spec::SecretName> {
    let texts = spec.services.values().flat_map(spec_read::texts).filter_map(|text| match text {
        Text::Sealed(SealedText { sealed }) => Some(sealed.clone()),
        Text::Plain(_) => None,
    });
    let files = spec.services.values().flat_map(|service| &service.files).map(|file| file.content.sealed.clone());
    texts.chain(files).collect()
}
