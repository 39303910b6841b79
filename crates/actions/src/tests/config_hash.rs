//! The label by which "nothing to change" is judged: what an earlier release of this program wrote
//! on a container must still be what this one finds, or an upgrade would redeploy every app.

use expect_test::expect;
use serde_json::{Value, json};

use super::scene::{context, shop};
use crate::{app_plan::resolve, spec::AppSpec};

fn hashes(services: Value) -> String {
    let spec: AppSpec = serde_json::from_value(shop(services)).unwrap();
    let pinned = |name: &ids::ServiceName| {
        let image = json!({ "reference": "x:1", "pinned": format!("sha256:{}", "a".repeat(64)), "local": true });
        (name.clone(), serde_json::from_value(image).unwrap())
    };
    let images = spec.services.keys().map(pinned).collect();
    let desired = resolve::desired(&spec, &images, &context(1)).unwrap();
    desired.into_iter().map(|(name, container)| format!("{name} {}\n", container.config)).collect()
}

/// Each with the label that 0.1.0 gave it.
#[test]
fn a_container_of_0_1_0_is_known_again() {
    let sealed = json!({ "sealed": "db/environment/PASSWORD" });
    let everything = json!({
        "image": "x:1",
        "command": ["run", sealed],
        "entrypoint": ["/bin/entry"],
        "environment": { "PASSWORD": sealed },
        "ports": [
            { "host_ip": "127.0.0.1", "host_port": 8080, "container_port": 80, "protocol": "tcp" },
            { "host_ip": "::1", "container_port": 53, "protocol": "udp" },
        ],
        "mounts": [
            { "type": "volume", "volume": "data", "target": "/data", "read_only": true },
            { "type": "tmpfs", "target": "/tmp", "size_bytes": 65536, "mode": 511 },
        ],
        "healthcheck": { "test": { "shell": "true" }, "interval_ms": 1000, "timeout_ms": 2000, "retries": 3, "start_period_ms": 4000 },
        "restart": { "on_failure": { "max_attempts": 3 } },
        "labels": { "a": "b", "c": sealed },
        "user": "1000:1000",
        "working_dir": "/srv",
        "read_only": true,
        "init": true,
        "networks": { "default": ["alias", "zalias"] },
        "logging": { "driver": "local", "options": { "max-size": "1m" } },
        "stop_signal": "SIGINT",
        "stop_grace_period_ms": 3000,
        "mem_limit_bytes": 67_108_864,
        "cpus_milli": 500,
        "privileged": true,
        "cap_add": ["NET_ADMIN"],
        "devices": ["/dev/null:/dev/x:rw"],
        "pid": "service:plain",
        "ipc": "private",
    });
    let services = json!({
        "plain": { "image": "x:1", "restart": "always" },
        "all": everything,
        "host": { "image": "x:1", "restart": "no", "network_mode": "host", "healthcheck": { "test": "inherit" } },
        "shared": { "image": "x:1", "restart": "unless_stopped", "network_mode": "service:plain", "healthcheck": { "test": { "command": ["a", "b"] } } },
    });
    expect![[r#"
        all 103d2109ca4682d9beac68421bd1f5fe470783e3ba6cc5821c517cd6f6707855
        host 3c93101ffc431b523e2dad74b2453c02dd7328ff6373241e5b39994b2b79b84f
        plain 41483c8c5602f98255eb211d244274b13ec85cef91e8f676ada1d07119d0106b
        shared c640c4df6162745be4a32bb4195bc52902191ec32c25a099a29f31092b28f8de
    "#]]
    .assert_eq(&hashes(services));
}
