//! A container specification as the engine takes it. Pure: the same specification always gives the
//! same request, so what is sent can be tested without an engine.
//!
//! Only what every API version since 1.41 knows is used; in particular one network is joined at
//! creation and the others are connected afterwards, because 1.41 refuses more than one.

mod runtime;

use std::{collections::HashMap, path::Path, time::Duration};

use actions::{
    effect::{ContainerHealthcheck, ContainerMount, ContainerSpec, label},
    spec::{PortProtocol, PortSpec, RestartPolicy as Restart},
};
use bollard::models::{
    ContainerCreateBody, DeviceMapping, EndpointSettings, HealthConfig, HostConfig, HostConfigLogConfig, Mount,
    MountTmpfsOptions, MountType, NetworkingConfig, PortBinding, PortMap, RestartPolicy, RestartPolicyNameEnum,
};
use zeroize::Zeroizing;

use super::ownership::Owner;
use crate::limits;

/// The request that creates `spec`'s container, with its files below `files`.
pub(super) fn create_body(spec: &ContainerSpec, owner: Owner, files: &Path) -> ContainerCreateBody {
    let extra = spec.labels.iter().map(|(key, value)| (key.as_str(), value.as_str()));
    let labels = owner.labels(
        extra,
        [
            (label::APP, spec.app.as_str().to_owned()),
            (label::SERVICE, spec.service.clone()),
            (label::RELEASE, spec.release.clone()),
            (label::CONFIG, spec.config.clone()),
            (label::CONTAINER, spec.name.clone()),
        ],
    );
    let mut exposed: Vec<String> = spec.ports.iter().map(port_key).collect();
    exposed.extend(spec.runtime.expose.iter().map(|port| key(port.port, port.protocol)));
    let body = ContainerCreateBody {
        image: Some(spec.image.clone()),
        cmd: spec.command.as_deref().map(opened),
        entrypoint: spec.entrypoint.as_deref().map(opened),
        env: Some(spec.environment.iter().map(|(name, value)| format!("{name}={}", value.as_str())).collect()),
        exposed_ports: (!exposed.is_empty()).then_some(exposed),
        healthcheck: spec.healthcheck.as_ref().map(health_config),
        labels: Some(labels),
        user: spec.user.as_ref().map(|user| user.as_str().to_owned()),
        working_dir: spec.working_dir.as_ref().map(|dir| dir.as_str().to_owned()),
        stop_signal: spec.stop_signal.clone(),
        stop_timeout: spec.stop_grace_period_ms.map(|ms| i64::from(grace_seconds(ms))),
        host_config: Some(host_config(spec, files)),
        networking_config: first_network(spec),
        ..ContainerCreateBody::default()
    };
    runtime::of_container(body, &spec.runtime)
}

fn host_config(spec: &ContainerSpec, files: &Path) -> HostConfig {
    let options = spec.log_options.iter().map(|(key, value)| (key.clone(), value.as_str().to_owned())).collect();
    let mounts: Vec<Mount> = spec.mounts.iter().map(mount).chain(runtime::file_mounts(spec, files)).collect();
    let config = HostConfig {
        port_bindings: (!spec.ports.is_empty()).then(|| port_bindings(&spec.ports)),
        mounts: (!mounts.is_empty()).then_some(mounts),
        restart_policy: Some(restart_policy(spec.restart)),
        readonly_rootfs: Some(spec.read_only),
        init: spec.init,
        log_config: Some(HostConfigLogConfig { typ: Some(spec.log_driver.clone()), config: Some(options) }),
        memory: spec.mem_limit_bytes.map(saturating),
        // Thousandths of a core to billionths.
        nano_cpus: spec.cpus_milli.map(|milli| saturating(milli.saturating_mul(1_000_000))),
        privileged: Some(spec.privileged),
        cap_add: (!spec.cap_add.is_empty()).then(|| spec.cap_add.clone()),
        devices: (!spec.devices.is_empty()).then(|| spec.devices.iter().map(|text| device(text)).collect()),
        network_mode: spec.network_mode.clone().or_else(|| spec.networks.keys().next().cloned()),
        pid_mode: spec.pid.clone(),
        ipc_mode: spec.ipc.clone(),
        security_opt: (!spec.security_opt.is_empty()).then(|| spec.security_opt.clone()),
        ..HostConfig::default()
    };
    runtime::of_host(config, &spec.runtime)
}

fn first_network(spec: &ContainerSpec) -> Option<NetworkingConfig> {
    if spec.network_mode.is_some() {
        return None;
    }
    let (name, aliases) = spec.networks.iter().next()?;
    Some(NetworkingConfig { endpoints_config: Some(HashMap::from([(name.clone(), endpoint(aliases, spec))])) })
}

/// A container's place in one network, and what it calls others there.
pub(super) fn endpoint(aliases: &[String], spec: &ContainerSpec) -> EndpointSettings {
    let links: Vec<String> = spec.runtime.links.iter().map(|(alias, name)| format!("{name}:{alias}")).collect();
    EndpointSettings {
        aliases: Some(aliases.to_vec()),
        links: (!links.is_empty()).then_some(links),
        ..EndpointSettings::default()
    }
}

fn opened(words: &[Zeroizing<String>]) -> Vec<String> {
    words.iter().map(|word| word.as_str().to_owned()).collect()
}

fn saturating(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// The engine counts grace in whole seconds; a process never gets less than it was promised.
pub(super) fn grace_seconds(grace_ms: u64) -> i32 {
    i32::try_from(grace_ms.min(limits::STOP_GRACE_MS_MAX).div_ceil(1000)).unwrap_or(i32::MAX)
}

fn health_config(check: &ContainerHealthcheck) -> HealthConfig {
    let nanos = |ms: Option<u64>| ms.map(|ms| i64::try_from(Duration::from_millis(ms).as_nanos()).unwrap_or(i64::MAX));
    HealthConfig {
        test: Some(opened(&check.test)),
        interval: nanos(check.timing.interval_ms),
        timeout: nanos(check.timing.timeout_ms),
        retries: check.timing.retries.map(i64::from),
        start_period: nanos(check.timing.start_period_ms),
        start_interval: None,
    }
}

fn port_key(port: &PortSpec) -> String {
    key(port.container_port, port.protocol)
}

fn key(port: u16, protocol: PortProtocol) -> String {
    let protocol = match protocol {
        PortProtocol::Tcp => "tcp",
        PortProtocol::Udp => "udp",
    };
    format!("{port}/{protocol}")
}

fn port_bindings(ports: &[PortSpec]) -> PortMap {
    let mut map = PortMap::new();
    for port in ports {
        let binding = PortBinding {
            host_ip: Some(port.host_ip.to_string()),
            // Empty lets the engine choose.
            host_port: Some(port.host_port.map_or_else(String::new, |number| number.to_string())),
        };
        map.entry(port_key(port)).or_default().get_or_insert_default().push(binding);
    }
    map
}

fn mount(mount: &ContainerMount) -> Mount {
    match mount {
        ContainerMount::Volume { volume, target, read_only } => Mount {
            typ: Some(MountType::VOLUME),
            source: Some(volume.clone()),
            target: Some(target.clone()),
            read_only: Some(*read_only),
            ..Mount::default()
        },
        ContainerMount::Bind { source, target, read_only, propagation } => {
            runtime::bind(source, target, *read_only, propagation.as_deref())
        }
        ContainerMount::Tmpfs { target, size_bytes, mode } => Mount {
            typ: Some(MountType::TMPFS),
            target: Some(target.clone()),
            tmpfs_options: Some(MountTmpfsOptions {
                size_bytes: size_bytes.map(saturating),
                mode: mode.map(i64::from),
                options: None,
            }),
            ..Mount::default()
        },
    }
}

pub(super) fn restart_policy(restart: Restart) -> RestartPolicy {
    let (name, attempts) = match restart {
        Restart::No => (RestartPolicyNameEnum::NO, None),
        Restart::Always => (RestartPolicyNameEnum::ALWAYS, None),
        Restart::UnlessStopped => (RestartPolicyNameEnum::UNLESS_STOPPED, None),
        Restart::OnFailure { max_attempts } => (RestartPolicyNameEnum::ON_FAILURE, max_attempts.map(i64::from)),
    };
    RestartPolicy { name: Some(name), maximum_retry_count: attempts }
}

/// `/dev/x[:/dev/y[:rwm]]`.
fn device(text: &str) -> DeviceMapping {
    let mut parts = text.splitn(3, ':');
    let on_host = parts.next().unwrap_or_default().to_owned();
    let inside = parts.next().map_or_else(|| on_host.clone(), str::to_owned);
    let permissions = parts.next().unwrap_or("rwm").to_owned();
    DeviceMapping {
        path_on_host: Some(on_host),
        path_in_container: Some(inside),
        cgroup_permissions: Some(permissions),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::BTreeMap;

    use actions::{
        effect::{ContainerFile, ContainerRuntime},
        spec::{ExposedPort, HealthTest, HealthcheckSpec, UlimitSpec},
    };
    use expect_test::expect_file;
    use ids::{FleetId, HostId};

    use super::*;

    fn secret(text: &str) -> Zeroizing<String> {
        Zeroizing::new(text.to_owned())
    }

    fn secrets(pairs: &[(&str, &str)]) -> BTreeMap<String, Zeroizing<String>> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), secret(value))).collect()
    }

    pub(crate) fn owner() -> Owner {
        Owner { fleet: FleetId::from_bytes([1; 16]), host: HostId::from_bytes([2; 16]) }
    }

    pub(crate) fn least() -> ContainerSpec {
        ContainerSpec {
            app: "blog".parse().expect("a name"),
            service: "web".to_owned(),
            release: "r1".to_owned(),
            config: "c1".to_owned(),
            name: "blog-web".to_owned(),
            image: "sha256:00".to_owned(),
            command: None,
            entrypoint: None,
            environment: BTreeMap::new(),
            ports: Vec::new(),
            mounts: Vec::new(),
            healthcheck: None,
            restart: Restart::UnlessStopped,
            labels: BTreeMap::new(),
            user: None,
            working_dir: None,
            read_only: false,
            init: None,
            networks: BTreeMap::from([("blog_default".to_owned(), vec!["web".to_owned()])]),
            log_driver: "json-file".to_owned(),
            log_options: BTreeMap::new(),
            stop_signal: None,
            stop_grace_period_ms: None,
            mem_limit_bytes: None,
            cpus_milli: None,
            privileged: false,
            cap_add: Vec::new(),
            devices: Vec::new(),
            network_mode: None,
            pid: None,
            ipc: None,
            security_opt: Vec::new(),
            runtime: ContainerRuntime::default(),
            files: Vec::new(),
        }
    }

    fn port(host_ip: &str, host_port: Option<u16>, protocol: PortProtocol) -> PortSpec {
        PortSpec { host_ip: host_ip.parse().expect("an address"), host_port, container_port: 53, protocol }
    }

    fn full() -> ContainerSpec {
        ContainerSpec {
            command: Some(vec![secret("serve"), secret("--fast")]),
            entrypoint: Some(vec![secret("/sample")]),
            environment: secrets(&[("A", "1"), ("EMPTY", ""), ("EQUALS", "a=b")]),
            ports: vec![
                port("127.0.0.1", Some(5353), PortProtocol::Udp),
                port("::1", Some(5353), PortProtocol::Udp),
                port("0.0.0.0", None, PortProtocol::Tcp),
            ],
            mounts: vec![
                ContainerMount::Volume { volume: "blog_data".to_owned(), target: "/data".to_owned(), read_only: true },
                ContainerMount::Tmpfs { target: "/tmp".to_owned(), size_bytes: Some(1024), mode: Some(0o1777) },
                ContainerMount::Tmpfs { target: "/run".to_owned(), size_bytes: None, mode: None },
                ContainerMount::Bind {
                    source: "/srv/blog/html".to_owned(),
                    target: "/html".to_owned(),
                    read_only: true,
                    propagation: Some("rslave".to_owned()),
                },
            ],
            healthcheck: Some(ContainerHealthcheck {
                test: vec![secret("CMD"), secret("/probe")],
                timing: HealthcheckSpec {
                    test: HealthTest::Inherit,
                    interval_ms: Some(1_500),
                    timeout_ms: Some(200),
                    retries: Some(5),
                    start_period_ms: Some(u64::MAX),
                },
            }),
            restart: Restart::OnFailure { max_attempts: Some(3) },
            labels: secrets(&[("team", "a"), (label::FLEET, "forged"), (label::CONFIG, "forged")]),
            user: Some(secret("1000:1000")),
            working_dir: Some(secret("/srv")),
            read_only: true,
            init: Some(true),
            networks: BTreeMap::from([
                ("blog_a".to_owned(), vec!["web".to_owned(), "www".to_owned()]),
                ("blog_b".to_owned(), Vec::new()),
            ]),
            log_options: secrets(&[("max-size", "10m")]),
            stop_signal: Some("SIGINT".to_owned()),
            stop_grace_period_ms: Some(1_001),
            mem_limit_bytes: Some(u64::MAX),
            cpus_milli: Some(1_500),
            privileged: true,
            cap_add: vec!["NET_ADMIN".to_owned()],
            devices: vec!["/dev/a".to_owned(), "/dev/a:/dev/b".to_owned(), "/dev/a:/dev/b:r".to_owned()],
            pid: Some("host".to_owned()),
            ipc: Some("private".to_owned()),
            security_opt: vec!["no-new-privileges".to_owned()],
            runtime: all_settings(),
            files: vec![ContainerFile {
                target: "/run/secrets/key".to_owned(),
                content: Zeroizing::new(b"not in the request".to_vec()),
                uid: 0,
                gid: 0,
                mode: 0o400,
            }],
            ..least()
        }
    }

    fn all_settings() -> ContainerRuntime {
        let words = |text: &str| vec![text.to_owned()];
        let pair = |key: &str, value: &str| BTreeMap::from([(key.to_owned(), value.to_owned())]);
        ContainerRuntime {
            cap_drop: words("ALL"),
            sysctls: pair("net.core.somaxconn", "1024"),
            ulimits: BTreeMap::from([("nofile".to_owned(), UlimitSpec { soft: 1024, hard: -1 })]),
            pids_limit: Some(100),
            extra_hosts: BTreeMap::from([("db".to_owned(), vec!["10.0.0.1".to_owned(), "host-gateway".to_owned()])]),
            hostname: Some("box".to_owned()),
            domainname: Some("example".to_owned()),
            dns: vec!["10.0.0.53".parse().expect("an address")],
            dns_search: words("example"),
            dns_opt: words("ndots:2"),
            expose: vec![ExposedPort { port: 9000, protocol: PortProtocol::Udp }],
            links: pair("database", "blog-db-1"),
            platform: Some("linux/amd64".to_owned()),
            shm_size_bytes: Some(1 << 20),
            userns_mode: Some("host".to_owned()),
            uts: Some("host".to_owned()),
            mem_reservation_bytes: Some(1 << 22),
            memswap_limit_bytes: Some(-1),
            mem_swappiness: Some(10),
            oom_score_adj: Some(-5),
            cpu_shares: Some(512),
            cpuset: Some("0".to_owned()),
            group_add: words("audio"),
            stdin_open: true,
            tty: true,
            device_cgroup_rules: words("c 1:3 r"),
            annotations: pair("a", "b"),
            system_paths_open: true,
            external_networks: std::collections::BTreeSet::new(),
            external_volumes: std::collections::BTreeSet::new(),
        }
    }

    fn shown(spec: &ContainerSpec) -> String {
        // Through a value, because its keys are sorted.
        let value = serde_json::to_value(create_body(spec, owner(), Path::new("/state/files"))).expect("a request");
        format!("{value:#}\n")
    }

    #[test]
    fn everything_specified_is_sent() {
        expect_file!["golden/body_full.json"].assert_eq(&shown(&full()));
    }

    #[test]
    fn nothing_else_is_sent() {
        expect_file!["golden/body_least.json"].assert_eq(&shown(&least()));
    }

    #[test]
    fn a_network_mode_excludes_networks() {
        let body =
            create_body(&ContainerSpec { network_mode: Some("none".to_owned()), ..full() }, owner(), Path::new("/"));
        assert_eq!(body.networking_config, None);
        assert_eq!(body.host_config.and_then(|host| host.network_mode).as_deref(), Some("none"));
    }

    #[test]
    fn a_process_never_gets_less_grace_than_promised() {
        let got: Vec<i32> = [0, 1, 1_000, 1_001, u64::MAX].into_iter().map(grace_seconds).collect();
        assert_eq!(got, [0, 1, 1, 2, 3600]);
    }
}
