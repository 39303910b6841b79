//! Questions about an app specification that several actions ask: what it demands of the host, in
//! which order its services start, and which names its things have on the engine.

use std::collections::{BTreeMap, BTreeSet};

use ids::{AppName, ServiceName};

use crate::{
    effect::ImageState,
    policy::{Demand, ImageOrigin, NamespaceKind, image::ImageReference},
    spec::{
        AppSpec, DependencyCondition, HealthTest, MountSpec, NetworkSpec, PinnedImage, RestartPolicy, ServiceSpec,
        Text, VolumeSpec,
    },
};

/// The network of services that name none.
pub(crate) const DEFAULT_NETWORK: &str = "default";
/// Log drivers that write nothing but files in the engine's own directory, and take no path or address.
const LOG_DRIVERS_CONTAINED: [&str; 3] = ["json-file", "local", "none"];

/// Every text of a service that may be sealed.
pub(crate) fn texts(service: &ServiceSpec) -> Vec<&Text> {
    let mut texts: Vec<&Text> = Vec::new();
    texts.extend(service.command.iter().flatten());
    texts.extend(service.entrypoint.iter().flatten());
    texts.extend(service.environment.values());
    texts.extend(service.labels.values());
    texts.extend(&service.user);
    texts.extend(&service.working_dir);
    if let Some(logging) = &service.logging {
        texts.extend(logging.options.values());
    }
    match service.healthcheck.as_ref().map(|health| &health.test) {
        Some(HealthTest::Command(argv)) => texts.extend(argv),
        Some(HealthTest::Shell(line)) => texts.push(line),
        Some(HealthTest::Disabled | HealthTest::Inherit) | None => {}
    }
    texts
}

/// What the specification demands, apart from images.
fn demands_without_images(spec: &AppSpec) -> Vec<Demand> {
    let mut demands = Vec::new();
    for (name, service) in &spec.services {
        demands.extend(service.ports.iter().map(|port| Demand::Publish {
            service: name.clone(),
            host_ip: port.host_ip,
            host_port: port.host_port,
            container_port: port.container_port,
            protocol: port.protocol,
        }));
        if service.privileged {
            demands.push(Demand::Privileged { service: name.clone() });
        }
        demands.extend(runtime_demands(name, service));
        demands.extend(bind_demands(&spec.app, name, service));
        let namespace = |kind, value: &str| Demand::Namespace { service: name.clone(), kind, value: value.to_owned() };
        if let Some(mode) = service.network_mode.as_deref()
            && mode != "none"
            && !mode.starts_with("service:")
        {
            demands.push(namespace(NamespaceKind::Network, mode));
        }
        // Another service of the same app is no more of the host than the service itself.
        if let Some(mode) = service.pid.as_deref()
            && !mode.starts_with("service:")
        {
            demands.push(namespace(NamespaceKind::Pid, mode));
        }
        if let Some(mode) = service.ipc.as_deref()
            && !matches!(mode, "private" | "none" | "shareable")
            && !mode.starts_with("service:")
        {
            demands.push(namespace(NamespaceKind::Ipc, mode));
        }
        demands
            .extend(service.cap_add.iter().map(|cap| Demand::Capability { service: name.clone(), name: cap.clone() }));
        demands.extend(
            service.devices.iter().map(|device| Demand::Device { service: name.clone(), device: device.clone() }),
        );
        if let Some(logging) = &service.logging
            && !LOG_DRIVERS_CONTAINED.contains(&logging.driver.as_str())
        {
            demands.push(Demand::LogDriver { service: name.clone(), driver: logging.driver.clone() });
        }
    }
    for (name, volume) in &spec.volumes {
        demands.extend(volume_demands(&spec.app, name, volume));
        let external = volume.external.clone();
        demands.extend(external.map(|external| Demand::ExternalVolume { volume: name.clone(), external }));
    }
    for (name, network) in &spec.networks {
        let external = network.external.clone();
        demands.extend(external.map(|external| Demand::ExternalNetwork { network: name.clone(), external }));
    }
    demands
}

/// The option of `security_opt` that takes set-uid programs their power.
pub(crate) const NO_NEW_PRIVILEGES: &str = "no-new-privileges";

/// Key and value of a security option, which Docker parts by either sign; without one its value is `true`.
pub(crate) fn security_option(option: &str) -> (&str, &str) {
    option.split_once(['=', ':']).unwrap_or((option, "true"))
}

/// The option that takes away the engine's cover over parts of `/proc` and `/sys`; it stands for two settings of the API.
pub(crate) fn opens_system_paths(option: &str) -> bool {
    security_option(option) == ("systempaths", "unconfined")
}

/// What a service demands by version 2's fields, apart from mounts.
fn runtime_demands(name: &ServiceName, service: &ServiceSpec) -> Vec<Demand> {
    let service_name = || name.clone();
    let mut demands = Vec::new();
    for option in &service.security_opt {
        if security_option(option) != (NO_NEW_PRIVILEGES, "true") {
            demands.push(Demand::SecurityOption { service: service_name(), option: option.clone() });
        }
    }
    if service.userns_mode.is_some() {
        let (kind, value) = (NamespaceKind::User, "host".to_owned());
        demands.push(Demand::Namespace { service: service_name(), kind, value });
    }
    if service.uts.is_some() {
        let (kind, value) = (NamespaceKind::Uts, "host".to_owned());
        demands.push(Demand::Namespace { service: service_name(), kind, value });
    }
    if let Some(score) = service.oom_score_adj.filter(|score| *score < 0) {
        demands.push(Demand::OomScore { service: service_name(), score });
    }
    let rules = service.device_cgroup_rules.iter().cloned();
    demands.extend(rules.map(|rule| Demand::DeviceRule { service: service_name(), rule }));
    let keys = service.annotations.keys().cloned();
    demands.extend(keys.map(|key| Demand::Annotation { service: service_name(), key }));
    demands
}

/// Paths that lead to Docker's socket on every usual host; what they resolve to is judged again on the host.
const DOCKER_SOCKETS: [&str; 2] = ["/var/run/docker.sock", "/run/docker.sock"];

fn bind_demands(app: &AppName, name: &ServiceName, service: &ServiceSpec) -> Vec<Demand> {
    let of = |mount: &MountSpec| match mount {
        MountSpec::Bind { source, .. } if DOCKER_SOCKETS.contains(&source.as_str()) => {
            vec![Demand::DockerSocket { owner: format!("service {name}") }]
        }
        MountSpec::Bind { source, propagation, .. } => {
            let owner = format!("service {name}");
            let shares = propagation.as_deref().filter(|how| matches!(*how, "shared" | "rshared"));
            let back = shares.map(|how| Demand::Propagation { service: name.clone(), propagation: how.to_owned() });
            let bind = Demand::Bind { owner, app: app.to_string(), source: source.clone() };
            core::iter::once(bind).chain(back).collect()
        }
        MountSpec::Volume { .. } | MountSpec::Tmpfs { .. } => Vec::new(),
    };
    service.mounts.iter().flat_map(of).collect()
}

/// Driver options, and what they mount if they are a bind mount in disguise.
fn volume_demands(app: &AppName, name: &ServiceName, volume: &VolumeSpec) -> Vec<Demand> {
    if volume.driver_opts.is_empty() {
        return Vec::new();
    }
    let options = volume.driver_opts.keys().cloned().collect();
    let mut demands = vec![Demand::DriverOpts { volume: name.clone(), options }];
    let device = volume.driver_opts.get("device").map(String::as_str).unwrap_or_default();
    let binds = volume.driver_opts.get("o").is_some_and(|o| o.split(',').any(|word| word == "bind" || word == "rbind"));
    if binds {
        let owner = format!("volume {name}");
        demands.push(Demand::Bind { owner: owner.clone(), app: app.to_string(), source: device.to_owned() });
        if device.contains("docker.sock") {
            demands.push(Demand::DockerSocket { owner });
        }
    }
    demands
}

/// What a plan of this specification demands, before images are resolved.
pub(crate) fn demands_unresolved(spec: &AppSpec) -> Vec<Demand> {
    let images = spec
        .services
        .iter()
        .map(|(name, service)| Demand::Image { service: name.clone(), reference: service.image.clone() });
    images.chain(demands_without_images(spec)).collect()
}

/// What a deploy of this specification with these images demands.
pub(crate) fn demands_resolved(spec: &AppSpec, images: &BTreeMap<ServiceName, PinnedImage>) -> Vec<Demand> {
    images.iter().map(|(name, image)| image_demand(name, image)).chain(demands_without_images(spec)).collect()
}

/// What one resolved image demands.
pub(crate) fn image_demand(service: &ServiceName, image: &PinnedImage) -> Demand {
    let origin = match image.pinned.parse::<ImageReference>() {
        Ok(pinned) if !image.local => ImageOrigin::Registry(pinned.registry),
        _ => ImageOrigin::Local,
    };
    Demand::ResolvedImage { service: service.clone(), reference: image.reference.clone(), origin }
}

/// The services whose namespaces a service shares.
pub(crate) fn namespace_parents(service: &ServiceSpec) -> impl Iterator<Item = &str> {
    [&service.network_mode, &service.pid, &service.ipc]
        .into_iter()
        .filter_map(|mode| mode.as_deref().and_then(|mode| mode.strip_prefix("service:")))
}

/// What a service waits for: its declared dependencies, and the services whose namespaces it shares.
pub(crate) fn dependencies(spec: &AppSpec, service: &ServiceSpec) -> BTreeMap<ServiceName, DependencyCondition> {
    let mut all: BTreeMap<ServiceName, DependencyCondition> = namespace_parents(service)
        .filter_map(|parent| spec.services.keys().find(|name| name.as_str() == parent))
        .map(|name| (name.clone(), DependencyCondition::ServiceStarted))
        .collect();
    all.extend(service.depends_on.iter().map(|(name, condition)| (name.clone(), *condition)));
    all
}

/// Services such that each comes after those it waits for; by name where that leaves a choice.
///
/// # Errors
/// The services that wait for each other in a circle.
pub(crate) fn start_order(spec: &AppSpec) -> Result<Vec<ServiceName>, Vec<ServiceName>> {
    let mut waiting: BTreeMap<&ServiceName, BTreeSet<ServiceName>> =
        spec.services.iter().map(|(name, service)| (name, dependencies(spec, service).into_keys().collect())).collect();
    let mut order: Vec<ServiceName> = Vec::new();
    while !waiting.is_empty() {
        let ready = waiting.iter().find(|(_, on)| on.iter().all(|name| order.contains(name))).map(|(name, _)| *name);
        let Some(name) = ready else {
            return Err(waiting.into_keys().cloned().collect());
        };
        waiting.remove(name);
        order.push(name.clone());
    }
    Ok(order)
}

/// Whether a service is meant to end: someone waits for it to complete, or it is not restarted
/// after ending well.
pub(crate) fn is_one_shot(spec: &AppSpec, name: &ServiceName) -> bool {
    let awaited = spec
        .services
        .values()
        .any(|other| other.depends_on.get(name) == Some(&DependencyCondition::ServiceCompletedSuccessfully));
    let restart = spec.services.get(name).map(|service| service.restart);
    awaited || matches!(restart, Some(RestartPolicy::No | RestartPolicy::OnFailure { .. }))
}

/// Whether the engine will say anything about a service's health.
pub(crate) fn has_probe(service: &ServiceSpec, image: &ImageState) -> bool {
    match service.healthcheck.as_ref().map(|health| &health.test) {
        Some(HealthTest::Disabled) => false,
        Some(HealthTest::Command(_) | HealthTest::Shell(_)) => true,
        Some(HealthTest::Inherit) | None => image.has_healthcheck,
    }
}

/// The container of a service.
pub(crate) fn container_name(app: &AppName, service: &str) -> String {
    format!("{app}-{service}-1")
}

/// The engine's name of a network. An engine's network cannot be altered, so one with settings of
/// its own carries their hash: other settings are another network, and the way back stays open.
pub(crate) fn network_name(app: &AppName, file_name: &str, network: &NetworkSpec) -> String {
    if let Some(external) = &network.external {
        return external.clone();
    }
    if *network == NetworkSpec::default() {
        return format!("{app}_{file_name}");
    }
    let settings = format!("{}\n{:?}", network.internal, network.labels);
    format!("{app}_{file_name}_{}", &ids::sha256(settings.as_bytes()).to_string()[..8])
}

/// The engine's name of a volume.
pub(crate) fn volume_name(app: &AppName, file_name: &str) -> String {
    format!("{app}_{file_name}")
}

/// The engine's name of a volume of this specification, whoever made it.
pub(crate) fn volume_engine_name(spec: &AppSpec, file_name: &ServiceName) -> String {
    let external = spec.volumes.get(file_name).and_then(|volume| volume.external.clone());
    external.unwrap_or_else(|| volume_name(&spec.app, file_name.as_str()))
}

/// The settings of a network, by its name in the file.
pub(crate) fn network_spec(spec: &AppSpec, file_name: &str) -> NetworkSpec {
    spec.networks.iter().find(|(name, _)| name.as_str() == file_name).map(|(_, n)| n.clone()).unwrap_or_default()
}

/// The networks a service joins by name in the file, with extra aliases.
pub(crate) fn service_networks(service: &ServiceSpec) -> BTreeMap<String, Vec<String>> {
    if service.network_mode.is_some() {
        return BTreeMap::new();
    }
    if service.networks.is_empty() {
        return BTreeMap::from([(DEFAULT_NETWORK.to_owned(), Vec::new())]);
    }
    service.networks.iter().map(|(name, aliases)| (name.to_string(), aliases.clone())).collect()
}

/// Networks of the app's own that some service joins: name in the file → name on the engine.
pub(crate) fn networks_used(spec: &AppSpec) -> BTreeMap<String, String> {
    spec.services
        .values()
        .flat_map(|service| service_networks(service).into_keys())
        .filter(|file_name| network_spec(spec, file_name).external.is_none())
        .map(|file_name| {
            let engine_name = network_name(&spec.app, &file_name, &network_spec(spec, &file_name));
            (file_name, engine_name)
        })
        .collect()
}

/// Volumes of the app's own that some service mounts: name in the file → name on the engine.
pub(crate) fn volumes_used(spec: &AppSpec) -> BTreeMap<ServiceName, String> {
    spec.services
        .values()
        .flat_map(|service| &service.mounts)
        .filter_map(|mount| match mount {
            MountSpec::Volume { volume, .. } => Some((volume.clone(), volume_name(&spec.app, volume.as_str()))),
            MountSpec::Bind { .. } | MountSpec::Tmpfs { .. } => None,
        })
        .filter(|(volume, _)| spec.volumes.get(volume).is_none_or(|volume| volume.external.is_none()))
        .collect()
}
