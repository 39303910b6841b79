//! What an action asks of the host beyond a plain container, and how the policy answers.

use core::net::IpAddr;

use ids::ServiceName;

use super::{Policy, Refusal, image::ImageReference, pattern::Bracketed};
use crate::{spec::PortProtocol, spec_read::security_option};

/// The name of the pseudo-registry of images that are only on this host.
const LOCAL: &str = "local";

/// One thing beyond a plain container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Demand {
    /// An image by the name the specification has; where it comes from is not known yet.
    Image { service: ServiceName, reference: String },
    /// An image whose origin is known.
    ResolvedImage { service: ServiceName, reference: String, origin: ImageOrigin },
    /// A port of the host.
    Publish {
        service: ServiceName,
        host_ip: IpAddr,
        host_port: Option<u16>,
        container_port: u16,
        protocol: PortProtocol,
    },
    /// A directory or file of the host.
    Bind { owner: String, app: String, source: String },
    /// All privileges of the host.
    Privileged { service: ServiceName },
    /// A namespace that is not the container's own.
    Namespace { service: ServiceName, kind: NamespaceKind, value: String },
    /// Docker's own socket, which is root on the host.
    DockerSocket { owner: String },
    /// A capability beyond the engine's default.
    Capability { service: ServiceName, name: String },
    /// A device of the host.
    Device { service: ServiceName, device: String },
    /// A log driver beyond those that only write files of the engine's own. The engine runs it as root,
    /// outside of the container: it dials networks and sockets of the host, and reads certificate files.
    LogDriver { service: ServiceName, driver: String },
    /// Options of a volume's driver.
    DriverOpts { volume: ServiceName, options: Vec<String> },
    /// A security option that may loosen what holds a container.
    SecurityOption { service: ServiceName, option: String },
    /// Being killed later than the host's own processes when memory runs out.
    OomScore { service: ServiceName, score: i32 },
    /// A rule that opens devices.
    DeviceRule { service: ServiceName, rule: String },
    /// Words for the runtime below the engine. Some of them are orders to it that are carried out as root
    /// outside of the container: runc makes properties of the systemd unit of `org.systemd.property.…`
    /// (programs to start among them), crun takes paths and hooks from `run.oci.…`.
    Annotation { service: ServiceName, key: String },
    /// A bind whose mounts made inside of the container show on the host.
    Propagation { service: ServiceName, propagation: String },
    /// A network that somebody else made.
    ExternalNetwork { network: ServiceName, external: String },
    /// A volume that somebody else made.
    ExternalVolume { volume: ServiceName, external: String },
}

/// Where an image came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImageOrigin {
    /// Only this host has it.
    Local,
    /// That registry has it.
    Registry(String),
}

/// Kinds of namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NamespaceKind {
    /// Network.
    Network,
    /// Processes.
    Pid,
    /// Shared memory and the like.
    Ipc,
    /// Users.
    User,
    /// Host name.
    Uts,
}

impl NamespaceKind {
    const fn word(self) -> &'static str {
        match self {
            Self::Network => "network",
            Self::Pid => "pid",
            Self::Ipc => "ipc",
            Self::User => "user",
            Self::Uts => "uts",
        }
    }
}

impl Policy {
    pub(super) fn allows(&self, demand: &Demand) -> bool {
        let registry = |name: &str| self.registries.iter().any(|allowed| allowed == name);
        match demand {
            Demand::Image { reference, .. } => reference
                .parse::<ImageReference>()
                .is_ok_and(|image| registry(&image.registry) || (!image.registry_named && registry(LOCAL))),
            Demand::ResolvedImage { origin: ImageOrigin::Local, .. } => registry(LOCAL),
            Demand::ResolvedImage { origin: ImageOrigin::Registry(name), .. } => registry(name),
            Demand::Publish { host_ip, host_port, .. } => {
                self.publish.iter().any(|pattern| pattern.covers(*host_ip, *host_port))
            }
            // A path that is relative lies below the first root by itself.
            Demand::Bind { source, .. } if !source.starts_with('/') => {
                !self.bind_roots.is_empty() && !source.split('/').any(|part| part == "..")
            }
            Demand::Bind { app, source, .. } => self.bind_roots.iter().any(|root| is_below(source, root, app)),
            Demand::Privileged { .. } => self.privileged,
            Demand::Namespace { kind: NamespaceKind::Network, .. } => self.host_network,
            Demand::Namespace { kind: NamespaceKind::Pid, .. } => self.host_pid,
            Demand::Namespace { kind: NamespaceKind::Ipc, .. } => self.host_ipc,
            Demand::Namespace { kind: NamespaceKind::User, .. } => self.host_user,
            Demand::Namespace { kind: NamespaceKind::Uts, .. } => self.host_uts,
            Demand::DockerSocket { .. } => self.docker_socket,
            Demand::Capability { name, .. } => {
                self.capabilities.iter().any(|allowed| capability_word(allowed) == capability_word(name))
            }
            Demand::Device { device, .. } => self.devices.iter().any(|allowed| allowed == device_path(device)),
            Demand::LogDriver { driver, .. } => self.log_drivers.iter().any(|allowed| allowed == driver),
            Demand::DriverOpts { .. } => self.driver_opts,
            Demand::SecurityOption { option, .. } => {
                self.security_opt.iter().any(|allowed| security_option(allowed) == security_option(option))
            }
            Demand::OomScore { .. } => self.oom_score_negative,
            Demand::DeviceRule { rule, .. } => self.device_cgroup_rules.iter().any(|allowed| allowed == rule),
            Demand::Annotation { key, .. } => self.annotations.iter().any(|allowed| allowed == key),
            Demand::Propagation { .. } => self.shared_binds,
            Demand::ExternalNetwork { external, .. } => {
                self.external_networks.iter().any(|allowed| allowed == external)
            }
            Demand::ExternalVolume { external, .. } => self.external_volumes.iter().any(|allowed| allowed == external),
        }
    }
}

/// Whether `source` lies under `<root>/<app>/`, judged by its text: the performer resolves links.
fn is_below(source: &str, root: &str, app: &str) -> bool {
    let plain = !source.split('/').any(|part| part == "..");
    plain
        && source
            .strip_prefix(root.trim_end_matches('/'))
            .and_then(|rest| rest.strip_prefix('/'))
            .and_then(|rest| rest.strip_prefix(app))
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// `CAP_NET_ADMIN`, `net_admin` and `NET_ADMIN` are the same.
fn capability_word(name: &str) -> String {
    let upper = name.to_ascii_uppercase();
    upper.strip_prefix("CAP_").map(str::to_owned).unwrap_or(upper)
}

/// The host's side of `/dev/x:/dev/y:rwm`.
fn device_path(device: &str) -> &str {
    device.split(':').next().unwrap_or(device)
}

impl Demand {
    /// What to tell a person when the policy says no.
    pub(super) fn refusal(&self) -> Refusal {
        let (owner, what, line, advice) = self.words();
        let kind = match self {
            Self::DriverOpts { .. } | Self::ExternalVolume { .. } => "volume",
            Self::ExternalNetwork { .. } => "network",
            _ => "service",
        };
        let what = match self {
            Self::Bind { .. } | Self::DockerSocket { .. } => format!("{owner} {what}"),
            _ => format!("{kind} {owner} {what}"),
        };
        let service = (kind == "service").then_some(owner);
        Refusal { what, service, line, advice }
    }

    fn words(&self) -> Words {
        match self {
            Self::Image { service, reference } => image_words(service, reference, &image_registry(reference)),
            Self::ResolvedImage { service, reference, origin } => {
                let registry = match origin {
                    ImageOrigin::Local => LOCAL,
                    ImageOrigin::Registry(name) => name,
                };
                image_words(service, reference, registry)
            }
            Self::Publish { service, host_ip, host_port, container_port, protocol } => {
                publish_words(service, *host_ip, *host_port, *container_port, *protocol)
            }
            Self::Bind { owner, app, source } => (
                owner.clone(),
                format!("mounts {source} of the host"),
                format!("[binds] roots = [\"<root>\"] with the directory at <root>/{app}/"),
                Some("A named volume needs no permission".to_owned()),
            ),
            Self::Privileged { service } => {
                (service.to_string(), "runs privileged".to_owned(), "[containers] privileged = true".to_owned(), None)
            }
            Self::Namespace { service, kind, value } => (
                service.to_string(),
                format!("joins the {} namespace {value:?}", kind.word()),
                format!("[containers] host_{} = true", kind.word()),
                None,
            ),
            Self::DockerSocket { owner } => (
                owner.clone(),
                "mounts the socket of Docker, which is root on this host".to_owned(),
                "[containers] docker_socket = true".to_owned(),
                None,
            ),
            Self::Capability { service, name } => (
                service.to_string(),
                format!("adds the capability {name}"),
                format!("[containers] capabilities = [\"{}\"]", capability_word(name)),
                None,
            ),
            Self::Device { service, device } => (
                service.to_string(),
                format!("uses the device {device}"),
                format!("[containers] devices = [\"{}\"]", device_path(device)),
                None,
            ),
            Self::LogDriver { service, driver } => (
                service.to_string(),
                format!("logs through the driver {driver:?}, which Docker runs as root outside of the container"),
                format!("[containers] log_drivers = [{driver:?}]"),
                Some("The drivers json-file, local and none need no permission".to_owned()),
            ),
            Self::DriverOpts { volume, options } => (
                volume.to_string(),
                format!("sets driver_opts ({}), which can mount any path of the host", options.join(", ")),
                "[volumes] driver_opts = true".to_owned(),
                Some("A plain named volume needs no permission".to_owned()),
            ),
            later => later_words(later),
        }
    }
}

/// The words for what came with version 2 of a specification.
fn later_words(demand: &Demand) -> Words {
    match demand {
        Demand::SecurityOption { service, option } => (
            service.to_string(),
            format!("sets the security option {option:?}, which may loosen what holds the container"),
            format!("[containers] security_opt = [{option:?}]"),
            None,
        ),
        Demand::OomScore { service, score } => (
            service.to_string(),
            format!("wants to be killed later than others when memory runs out (oom_score_adj {score})"),
            "[containers] oom_score_negative = true".to_owned(),
            Some("A score from 0 on needs no permission".to_owned()),
        ),
        Demand::DeviceRule { service, rule } => (
            service.to_string(),
            format!("opens devices by the rule {rule:?}"),
            format!("[containers] device_cgroup_rules = [{rule:?}]"),
            None,
        ),
        Demand::Annotation { service, key } => (
            service.to_string(),
            format!(
                "gives the runtime the annotation {key:?}, which the runtime may take as an order and carry out as root"
            ),
            format!("[containers] annotations = [{key:?}]"),
            Some("Labels need no permission, and are for people and programs alike".to_owned()),
        ),
        Demand::Propagation { service, propagation } => (
            service.to_string(),
            format!("mounts with the propagation {propagation}, by which its mounts show on the host"),
            "[binds] shared = true".to_owned(),
            Some("rprivate and rslave need no permission".to_owned()),
        ),
        Demand::ExternalNetwork { network, external } => (
            network.to_string(),
            format!("is {external:?} of this host, which this app did not make"),
            format!("[networks] external = [{external:?}]"),
            None,
        ),
        Demand::ExternalVolume { volume, external } => (
            volume.to_string(),
            format!("is {external:?} of this host, which this app did not make"),
            format!("[volumes] external = [{external:?}]"),
            None,
        ),
        // The caller has words for the others.
        _ => (String::new(), String::new(), String::new(), None),
    }
}

type Words = (String, String, String, Option<String>);

fn image_registry(reference: &str) -> String {
    reference.parse::<ImageReference>().map_or_else(|_| "?".to_owned(), |image| image.registry)
}

fn image_words(service: &ServiceName, reference: &str, registry: &str) -> Words {
    let origin =
        if registry == LOCAL { "which only this host has".to_owned() } else { format!("from the registry {registry}") };
    (
        service.to_string(),
        format!("uses the image {reference}, {origin}"),
        format!("[images] registries = [\"{registry}\"]"),
        None,
    )
}

fn publish_words(
    service: &ServiceName,
    host_ip: IpAddr,
    host_port: Option<u16>,
    container_port: u16,
    protocol: PortProtocol,
) -> Words {
    let suffix = match protocol {
        PortProtocol::Tcp => "",
        PortProtocol::Udp => "/udp",
    };
    let address = Bracketed(host_ip);
    let (shown, pattern, loopback) = match host_port {
        Some(port) => (format!("port {port}"), port.to_string(), format!("127.0.0.1:{port}:{container_port}{suffix}")),
        None => ("a free port".to_owned(), "*".to_owned(), format!("127.0.0.1::{container_port}{suffix}")),
    };
    let place = if host_ip.is_unspecified() {
        format!("every address of this host ({address})")
    } else {
        format!("address {address}")
    };
    (
        service.to_string(),
        format!("publishes {shown}{suffix} on {place}"),
        format!("[ports] publish = [\"{address}:{pattern}\"]"),
        (!host_ip.is_loopback()).then(|| format!("Write \"{loopback}\" to publish on this host's loopback only")),
    )
}
