//! From a service of the specification to the whole of a container: values opened, careful
//! defaults set, and a keyed hash over everything, by which "nothing to change" is judged.

mod runtime;

use std::collections::BTreeMap;

use hmac::{Hmac, KeyInit, Mac};
use ids::{ReleaseId, ServiceName};
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::{
    effect::{ContainerHealthcheck, ContainerMount, ContainerRuntime, ContainerSpec},
    port::ActionContext,
    spec::{AppSpec, HealthTest, HealthcheckSpec, MountSpec, SealedText, SecretName, ServiceSpec, Text},
    spec_read,
};

/// Rotation of json-file logs where the app does not say otherwise: without it they fill the disk.
const LOG_DRIVER_DEFAULT: &str = "json-file";
const LOG_OPTIONS_DEFAULT: [(&str, &str); 2] = [("max-file", "3"), ("max-size", "10m")];

type Secrets = BTreeMap<SecretName, Zeroizing<String>>;

/// Why a container cannot be made from a specification.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unusable {
    /// A value the parameters refer to and that did not come with the order.
    #[error("the order refers to the secret {} but does not carry it; order the deploy again", .0.0)]
    Missing(SecretName),
    /// The sealed text of a file is not what its encoding says.
    #[error("the file {target} of service {service} does not hold base64 as it says; seal it again")]
    NotBase64 { service: ServiceName, target: String },
    /// A bind relative to a root where there is none.
    #[error("this host's policy has no root for {source_path}; its owner adds [binds] roots = [\"<root>\"]")]
    NoRoot { source_path: String },
}

fn open(text: &Text, secrets: &Secrets) -> Result<Zeroizing<String>, Unusable> {
    match text {
        Text::Plain(plain) => Ok(Zeroizing::new(plain.clone())),
        Text::Sealed(SealedText { sealed }) => {
            secrets.get(sealed).cloned().ok_or_else(|| Unusable::Missing(sealed.clone()))
        }
    }
}

fn open_all(texts: &[Text], secrets: &Secrets) -> Result<Vec<Zeroizing<String>>, Unusable> {
    texts.iter().map(|text| open(text, secrets)).collect()
}

fn open_map(
    texts: &BTreeMap<String, Text>,
    secrets: &Secrets,
) -> Result<BTreeMap<String, Zeroizing<String>>, Unusable> {
    texts.iter().map(|(key, text)| Ok((key.clone(), open(text, secrets)?))).collect()
}

/// The container that a service of this specification is, with `image` as its pinned image.
pub(crate) fn container(
    spec: &AppSpec,
    name: &ServiceName,
    service: &ServiceSpec,
    image: &str,
    release: ReleaseId,
    context: &ActionContext,
) -> Result<ContainerSpec, Unusable> {
    let secrets = &context.secrets;
    let (log_driver, log_options) = match &service.logging {
        Some(logging) => (logging.driver.clone(), open_map(&logging.options, secrets)?),
        None => {
            let options =
                LOG_OPTIONS_DEFAULT.map(|(key, value)| (key.to_owned(), Zeroizing::new(value.to_owned()))).into();
            (LOG_DRIVER_DEFAULT.to_owned(), options)
        }
    };
    let namespace = |mode: &Option<String>| {
        mode.as_ref().map(|mode| match mode.strip_prefix("service:") {
            Some(other) => format!("container:{}", spec_read::container_name(&spec.app, other)),
            None => mode.clone(),
        })
    };
    let mut container = ContainerSpec {
        app: spec.app.clone(),
        service: name.to_string(),
        release: release.to_string(),
        config: String::new(),
        name: spec_read::container_name(&spec.app, name.as_str()),
        image: image.to_owned(),
        command: service.command.as_ref().map(|argv| open_all(argv, secrets)).transpose()?,
        entrypoint: service.entrypoint.as_ref().map(|argv| open_all(argv, secrets)).transpose()?,
        environment: open_map(&service.environment, secrets)?,
        ports: service.ports.clone(),
        mounts: service.mounts.iter().map(|mount| mount_of(spec, mount, context)).collect::<Result<_, _>>()?,
        healthcheck: service.healthcheck.as_ref().map(|health| healthcheck(health, secrets)).transpose()?,
        restart: service.restart,
        labels: open_map(&service.labels, secrets)?,
        user: service.user.as_ref().map(|text| open(text, secrets)).transpose()?,
        working_dir: service.working_dir.as_ref().map(|text| open(text, secrets)).transpose()?,
        read_only: service.read_only,
        init: service.init,
        networks: networks(spec, name, service),
        log_driver,
        log_options,
        stop_signal: service.stop_signal.clone(),
        stop_grace_period_ms: service.stop_grace_period_ms,
        mem_limit_bytes: service.mem_limit_bytes,
        cpus_milli: service.cpus_milli,
        privileged: service.privileged,
        cap_add: service.cap_add.clone(),
        devices: service.devices.clone(),
        network_mode: namespace(&service.network_mode),
        pid: namespace(&service.pid),
        ipc: namespace(&service.ipc),
        security_opt: runtime::security_opt(service),
        runtime: runtime::runtime(spec, service),
        files: runtime::files(name, service, secrets)?,
    };
    container.config = config_hash(&container, &context.fingerprint_key);
    // After the hash: a container of an earlier release of this program is not replaced only for this.
    rotate(&mut container);
    Ok(container)
}

/// Logs that nothing bounds fill the disk, also where the app names the driver and not its size.
fn rotate(container: &mut ContainerSpec) {
    let is_bounded = container.log_options.contains_key("max-size");
    if container.log_driver == LOG_DRIVER_DEFAULT && !is_bounded {
        for (key, value) in LOG_OPTIONS_DEFAULT {
            container.log_options.entry(key.to_owned()).or_insert_with(|| Zeroizing::new(value.to_owned()));
        }
    }
}

fn networks(spec: &AppSpec, name: &ServiceName, service: &ServiceSpec) -> BTreeMap<String, Vec<String>> {
    spec_read::service_networks(service)
        .into_iter()
        .map(|(file_name, aliases)| {
            let settings = spec_read::network_spec(spec, &file_name);
            let mut all = vec![name.to_string()];
            all.extend(aliases.into_iter().filter(|alias| alias != name.as_str()));
            (spec_read::network_name(&spec.app, &file_name, &settings), all)
        })
        .collect()
}

fn mount_of(spec: &AppSpec, mount: &MountSpec, context: &ActionContext) -> Result<ContainerMount, Unusable> {
    Ok(match mount {
        MountSpec::Volume { volume, target, read_only } => ContainerMount::Volume {
            volume: spec_read::volume_engine_name(spec, volume),
            target: target.clone(),
            read_only: *read_only,
        },
        MountSpec::Bind { source, target, read_only, propagation, .. } => ContainerMount::Bind {
            source: context
                .policy
                .bind_source(&spec.app, source)
                .ok_or_else(|| Unusable::NoRoot { source_path: source.clone() })?,
            target: target.clone(),
            read_only: *read_only,
            propagation: propagation.clone(),
        },
        MountSpec::Tmpfs { target, size_bytes, mode } => {
            ContainerMount::Tmpfs { target: target.clone(), size_bytes: *size_bytes, mode: *mode }
        }
    })
}

fn healthcheck(health: &HealthcheckSpec, secrets: &Secrets) -> Result<ContainerHealthcheck, Unusable> {
    let word = |text: &str| Zeroizing::new(text.to_owned());
    let test = match &health.test {
        HealthTest::Disabled => vec![word("NONE")],
        HealthTest::Inherit => Vec::new(),
        HealthTest::Command(argv) => {
            let mut test = vec![word("CMD")];
            test.extend(open_all(argv, secrets)?);
            test
        }
        HealthTest::Shell(line) => vec![word("CMD-SHELL"), open(line, secrets)?],
    };
    Ok(ContainerHealthcheck { test, timing: health.clone() })
}

/// HMAC-SHA256 of one value under the host's own key, in hexadecimal.
pub(crate) fn fingerprint(key: &[u8; 32], value: &str) -> String {
    let mut mac = keyed(key);
    mac.update(value.as_bytes());
    ids::hex(&mac.finalize().into_bytes())
}

fn keyed(key: &[u8; 32]) -> Hmac<Sha256> {
    Hmac::<Sha256>::new_from_slice(key).expect("invariant: HMAC takes a key of any length (RFC 2104)")
}

/// HMAC over everything a container is made of, except which release made it. Keyed as a whole, so
/// that the label on the container tells nothing about the values in it.
fn config_hash(container: &ContainerSpec, key: &[u8; 32]) -> String {
    // Taken apart without `..`, so that a new field cannot be forgotten here.
    let ContainerSpec {
        app: _,
        service,
        release: _,
        config: _,
        name,
        image,
        command,
        entrypoint,
        environment,
        ports,
        mounts,
        healthcheck,
        restart,
        labels,
        user,
        working_dir,
        read_only,
        init,
        networks,
        log_driver,
        log_options,
        stop_signal,
        stop_grace_period_ms,
        mem_limit_bytes,
        cpus_milli,
        privileged,
        cap_add,
        devices,
        network_mode,
        pid,
        ipc,
        security_opt,
        runtime,
        files,
    } = container;
    let mut hash = FieldHash(keyed(key));
    hash.text("serverflow-container-v1");
    hash.texts([service, name, image]);
    hash.list(command.as_deref().map(|argv| argv.iter().map(|text| text.as_str())));
    hash.list(entrypoint.as_deref().map(|argv| argv.iter().map(|text| text.as_str())));
    hash.map(environment);
    hash.map(labels);
    hash.map(log_options);
    hash.list(user.as_ref().map(|text| [text.as_str()]));
    hash.list(working_dir.as_ref().map(|text| [text.as_str()]));
    match healthcheck {
        Some(health) => {
            hash.list(Some(health.test.iter().map(|text| text.as_str())));
            hash.text(&format!("{:?}", timing_of(&health.timing)));
        }
        None => hash.list(None::<[&str; 0]>),
    }
    // These hold no secrets, and their `Debug` forms name every field.
    hash.text(&format!("{ports:?} {mounts:?} {restart:?} {networks:?} {cap_add:?} {devices:?} {security_opt:?}"));
    hash.text(&format!("{read_only} {init:?} {log_driver:?} {stop_signal:?} {stop_grace_period_ms:?}"));
    hash.text(&format!("{mem_limit_bytes:?} {cpus_milli:?} {privileged} {network_mode:?} {pid:?} {ipc:?}"));
    // Only where there is any: a container without has the hash that 0.1 gave it.
    if *runtime != ContainerRuntime::default() {
        hash.text(&format!("{runtime:?}"));
    }
    for file in files {
        hash.texts([&file.target]);
        hash.text(&format!("{} {} {:o}", file.uid, file.gid, file.mode));
        hash.bytes(&file.content);
    }
    ids::hex(&hash.0.finalize().into_bytes())
}

fn timing_of(health: &HealthcheckSpec) -> [Option<u64>; 4] {
    [health.interval_ms, health.timeout_ms, health.retries.map(u64::from), health.start_period_ms]
}

/// Feeds fields to a hash so that no two different sequences of fields feed the same bytes.
struct FieldHash(Hmac<Sha256>);

impl FieldHash {
    fn number(&mut self, n: usize) {
        self.0.update(&(n as u64).to_be_bytes());
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len());
        self.0.update(bytes);
    }

    fn text(&mut self, text: &str) {
        self.bytes(text.as_bytes());
    }

    fn texts<'a>(&mut self, texts: impl IntoIterator<Item = &'a String>) {
        for text in texts {
            self.text(text);
        }
    }

    fn list<'a>(&mut self, list: Option<impl IntoIterator<Item = &'a str>>) {
        let Some(list) = list else {
            self.0.update(&[0]);
            return;
        };
        self.0.update(&[1]);
        let items: Vec<&str> = list.into_iter().collect();
        self.number(items.len());
        for item in items {
            self.text(item);
        }
    }

    fn map(&mut self, map: &BTreeMap<String, Zeroizing<String>>) {
        self.number(map.len());
        for (key, value) in map {
            self.text(key);
            self.text(value);
        }
    }
}
