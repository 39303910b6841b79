//! What specifications demand, and that the default policy refuses the ways out of a container.

use ids::ActionName;
use serde_json::{Value, json};

use super::scene::{request, shop_with};
use crate::policy::Policy;

/// The refusal of the shop with one thing in it changed, if there is one.
fn refused(change: impl FnOnce(&mut Value)) -> Option<String> {
    let mut spec = shop_with("web:1");
    change(&mut spec);
    let request = request("app.plan", &json!({ "spec": spec }));
    let policy = Policy::parse(Policy::default_text()).unwrap();
    let name: ActionName = request.info().name.parse().unwrap();
    policy.judge(&name, request.info().class, &request.demands()).err().map(|refusal| refusal.line)
}

#[test]
fn a_plain_app_demands_nothing_special() {
    assert_eq!(refused(|_| {}), None);
    // Another service of the same app is no way out; nor is what only tightens or shapes the container.
    for (field, value) in [
        ("pid", json!("service:db")),
        ("ipc", json!("service:db")),
        ("ipc", json!("shareable")),
        ("security_opt", json!(["no-new-privileges:true"])),
        ("cap_drop", json!(["ALL"])),
        ("oom_score_adj", json!(500)),
        ("sysctls", json!({ "net.core.somaxconn": "1024" })),
    ] {
        assert_eq!(refused(|spec| spec["services"]["web"][field] = value.clone()), None, "{field}");
    }
    for driver in ["json-file", "local", "none"] {
        assert_eq!(refused(|spec| spec["services"]["web"]["logging"] = json!({ "driver": driver })), None);
    }
}

#[test]
fn ways_out_of_a_container_are_refused_by_their_line() {
    type Change = fn(&mut Value);
    let cases: [(Change, &str); 15] = [
        (|s| s["services"]["web"]["ports"][0]["host_ip"] = json!("0.0.0.0"), "[ports] publish = [\"0.0.0.0:8080\"]"),
        (|s| s["services"]["web"]["ports"][0]["host_ip"] = json!("::"), "[ports] publish = [\"[::]:8080\"]"),
        (|s| s["services"]["web"]["privileged"] = json!(true), "[containers] privileged = true"),
        (|s| s["services"]["web"]["network_mode"] = json!("host"), "[containers] host_network = true"),
        (|s| s["services"]["web"]["network_mode"] = json!("container:other"), "[containers] host_network = true"),
        (|s| s["services"]["web"]["pid"] = json!("host"), "[containers] host_pid = true"),
        (|s| s["services"]["web"]["ipc"] = json!("host"), "[containers] host_ipc = true"),
        (|s| s["services"]["web"]["cap_add"] = json!(["SYS_ADMIN"]), "[containers] capabilities = [\"SYS_ADMIN\"]"),
        (
            |s| s["services"]["web"]["devices"] = json!(["/dev/sda:/dev/sda:rwm"]),
            "[containers] devices = [\"/dev/sda\"]",
        ),
        // The engine itself dials the address, from the host's own network.
        (
            |s| {
                s["services"]["web"]["logging"] =
                    json!({ "driver": "syslog", "options": { "syslog-address": "unix:///var/run/docker.sock" } });
            },
            "[containers] log_drivers = [\"syslog\"]",
        ),
        (|s| s["services"]["web"]["logging"] = json!({ "driver": "" }), "[containers] log_drivers = [\"\"]"),
        (|s| s["services"]["web"]["image"] = json!("evil.example/web:1"), "[images] registries = [\"evil.example\"]"),
        (
            |s| s["volumes"]["data"]["driver_opts"] = json!({ "o": "bind", "device": "/" }),
            "[volumes] driver_opts = true",
        ),
        (|s| s["volumes"]["data"]["driver_opts"] = json!({ "type": "tmpfs" }), "[volumes] driver_opts = true"),
        // A volume that nobody mounts is judged as well.
        (|s| s["volumes"]["idle"] = json!({ "driver_opts": { "device": "/etc" } }), "[volumes] driver_opts = true"),
    ];
    for (change, line) in cases {
        assert_eq!(refused(change).as_deref(), Some(line));
    }
}

#[test]
fn ways_out_that_came_with_version_2_are_refused_by_their_line() {
    type Change = fn(&mut Value);
    let cases: [(Change, &str); 17] = [
        (
            |s| s["services"]["web"]["mounts"] = json!([{ "type": "bind", "source": "/", "target": "/a" }]),
            "[binds] roots = [\"<root>\"] with the directory at <root>/shop/",
        ),
        (
            |s| s["services"]["web"]["mounts"] = json!([{ "type": "bind", "source": "./a", "target": "/a" }]),
            "[binds] roots = [\"<root>\"] with the directory at <root>/shop/",
        ),
        (
            |s| s["services"]["web"]["mounts"] = json!([{ "type": "bind", "source": "/etc", "target": "/a" }]),
            "[binds] roots = [\"<root>\"] with the directory at <root>/shop/",
        ),
        (
            |s| {
                s["services"]["web"]["mounts"] =
                    json!([{ "type": "bind", "source": "/var/run/docker.sock", "target": "/a" }]);
            },
            "[containers] docker_socket = true",
        ),
        (|s| s["networks"]["n"] = json!({ "external": "proxy" }), "[networks] external = [\"proxy\"]"),
        (|s| s["volumes"]["v"] = json!({ "external": "shared" }), "[volumes] external = [\"shared\"]"),
        (
            |s| s["services"]["web"]["security_opt"] = json!(["seccomp=unconfined"]),
            "[containers] security_opt = [\"seccomp=unconfined\"]",
        ),
        (
            |s| s["services"]["web"]["security_opt"] = json!(["no-new-privileges:false"]),
            "[containers] security_opt = [\"no-new-privileges:false\"]",
        ),
        (|s| s["services"]["web"]["userns_mode"] = json!("host"), "[containers] host_user = true"),
        (|s| s["services"]["web"]["uts"] = json!("host"), "[containers] host_uts = true"),
        (|s| s["services"]["web"]["oom_score_adj"] = json!(-1), "[containers] oom_score_negative = true"),
        (
            |s| s["services"]["web"]["device_cgroup_rules"] = json!(["c 1:3 r"]),
            "[containers] device_cgroup_rules = [\"c 1:3 r\"]",
        ),
        // runc makes this a property of the container's systemd unit, which root's systemd runs.
        (
            |s| {
                s["services"]["web"]["annotations"] =
                    json!({ "org.systemd.property.ExecStopPost": "[('/bin/sh', ['sh', '-c', 'id'], false)]" });
            },
            "[containers] annotations = [\"org.systemd.property.ExecStopPost\"]",
        ),
        // crun starts what this names, on the host.
        (
            |s| s["services"]["web"]["annotations"] = json!({ "run.oci.handler": "wasm" }),
            "[containers] annotations = [\"run.oci.handler\"]",
        ),
        (
            |s| s["services"]["web"]["annotations"] = json!({ "com.example.team": "a" }),
            "[containers] annotations = [\"com.example.team\"]",
        ),
        (|s| s["services"]["web"]["pid"] = json!("container:other"), "[containers] host_pid = true"),
        (|s| s["services"]["web"]["ipc"] = json!("container:other"), "[containers] host_ipc = true"),
    ];
    for (change, line) in cases {
        assert_eq!(refused(change).as_deref(), Some(line));
    }
}

#[test]
fn an_annotation_is_allowed_by_its_whole_key_and_no_other() {
    let policy = Policy::parse(
        "actions = [\"app.*\"]\n[images]\nregistries = [\"docker.io\"]\n[ports]\npublish = [\"127.0.0.1:*\"]\n[containers]\nannotations = [\"org.systemd\", \"run.oci.*\", \"com.example.team\"]\n",
    )
    .unwrap();
    for (keys, allowed) in [
        (&["com.example.team"][..], true),
        (&["com.example.team.lead"], false),
        (&["com.example.team", "org.systemd.property.ExecStopPost"], false),
        (&["run.oci.handler"], false),
    ] {
        let mut spec = shop_with("web:1");
        let annotations: serde_json::Map<_, _> = keys.iter().map(|key| ((*key).to_owned(), json!("x"))).collect();
        spec["services"]["web"]["annotations"] = annotations.into();
        let request = request("app.plan", &json!({ "spec": spec }));
        let name: ActionName = "app.plan".parse().unwrap();
        let answer = policy.judge(&name, request.info().class, &request.demands());
        assert_eq!(answer.is_ok(), allowed, "{keys:?}: {answer:?}");
    }
}

#[test]
fn driver_options_that_bind_need_their_root_too() {
    let policy = Policy::parse("actions = [\"app.*\"]\n[images]\nregistries = [\"docker.io\"]\n[ports]\npublish = [\"127.0.0.1:*\"]\n[volumes]\ndriver_opts = true\n[binds]\nroots = [\"/srv\"]\n").unwrap();
    for (device, allowed) in [("/srv/shop/data", true), ("/srv/other", false), ("/", false), ("/srv/shop/../..", false)]
    {
        let mut spec = shop_with("web:1");
        spec["volumes"]["data"]["driver_opts"] = json!({ "type": "none", "o": "rw,bind", "device": device });
        let request = request("app.plan", &json!({ "spec": spec }));
        let name: ActionName = "app.plan".parse().unwrap();
        let answer = policy.judge(&name, request.info().class, &request.demands());
        assert_eq!(answer.is_ok(), allowed, "{device}: {answer:?}");
    }
}
