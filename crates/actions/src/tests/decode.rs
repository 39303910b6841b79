//! Reading parameters: what is refused, in which words, and that nothing panics.

use expect_test::expect;
use ids::ActionName;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::scene::{deploy_parameters, shop_with};
use crate::{Request, actions, limits};

fn error(name: &str, parameters: &Value) -> String {
    let name: ActionName = name.parse().unwrap();
    let version = crate::latest(&name).map_or(1, |info| info.version);
    Request::decode(&name, version, parameters.to_string().as_bytes()).unwrap_err().to_string()
}

/// The shop with one thing in it changed.
fn with(change: impl FnOnce(&mut Value)) -> String {
    let mut parameters = json!({ "spec": shop_with("web:1") });
    change(&mut parameters["spec"]);
    error("app.plan", &parameters)
}

#[test]
fn errors_name_the_place() {
    let errors = [
        with(|spec| spec["services"]["web"]["imgae"] = json!("x")),
        with(|spec| spec["services"]["web"]["ports"][0]["host_ip"] = json!("here")),
        with(|spec| spec["services"]["web"]["ports"][0]["container_port"] = json!(0)),
        with(|spec| spec["services"]["web"]["image"] = json!("Not An Image")),
        with(|spec| spec["services"]["web"]["environment"] = json!({ "KEY": "in the open" })),
        with(|spec| spec["services"]["web"]["depends_on"] = json!({ "nobody": "service_started" })),
        with(|spec| spec["services"]["db"]["depends_on"] = json!({ "web": "service_started" })),
        with(|spec| spec["services"]["db"]["mounts"][0]["volume"] = json!("other")),
        with(|spec| spec["services"]["db"]["mounts"][0]["target"] = json!("relative")),
        with(|spec| spec["services"]["web"]["networks"] = json!({ "unknown": [] })),
        with(|spec| spec["services"]["web"]["network_mode"] = json!("bridge")),
        with(|spec| spec["services"]["web"]["labels"] = json!({ "io.serverflow.fleet": "x" })),
        with(|spec| spec["services"] = json!({})),
        with(|spec| spec["app"] = json!("No Name")),
        error("app.logs", &json!({ "app": "shop", "tail": 100_000 })),
        error("app.remove", &json!({})),
        error("app.unknown", &json!({})),
    ];
    expect![[r#"
        parameters of app.plan: spec.services.web.imgae: unknown field `imgae`, expected one of `image`, `command`, `entrypoint`, `environment`, `ports`, `mounts`, `healthcheck`, `restart`, `labels`, `user`, `working_dir`, `read_only`, `init`, `depends_on`, `networks`, `logging`, `stop_signal`, `stop_grace_period_ms`, `mem_limit_bytes`, `cpus_milli`, `privileged`, `cap_add`, `devices`, `network_mode`, `pid`, `ipc`, `cap_drop`, `security_opt`, `sysctls`, `ulimits`, `pids_limit`, `extra_hosts`, `hostname`, `domainname`, `dns`, `dns_search`, `dns_opt`, `expose`, `links`, `platform`, `pull_policy`, `shm_size_bytes`, `userns_mode`, `uts`, `mem_reservation_bytes`, `memswap_limit_bytes`, `mem_swappiness`, `oom_score_adj`, `cpu_shares`, `cpuset`, `group_add`, `stdin_open`, `tty`, `device_cgroup_rules`, `annotations`, `files`
        parameters of app.plan: spec.services.web.ports[0].host_ip: invalid IP address syntax
        parameters of app.plan: spec.services.web.ports[0]: ports go from 1 to 65535
        parameters of app.plan: spec.services.web.image: "Not An Image" is not an image reference (names have lower-case letters, digits, and single . _ - between them); write it like nginx:1.27 or ghcr.io/owner/name:tag
        parameters of app.plan: spec.services.web.environment.KEY: environment values are sealed: send them as secrets beside the order, and a reference here
        parameters of app.plan: spec.services.web.depends_on: nobody is not another service of this app
        parameters of app.plan: spec.services: these wait for each other in a circle: db, web
        parameters of app.plan: spec.services.db.mounts[0]: other is not a volume of this app
        parameters of app.plan: spec.services.db.mounts[0]: "relative" is not an absolute path inside the container
        parameters of app.plan: spec.services.web.networks: unknown is not a network of this app
        parameters of app.plan: spec.services.web.network_mode: "bridge" is none of host, none, service:NAME, container:NAME
        parameters of app.plan: spec.services.web.labels: the label "io.serverflow.fleet" is ServerFlow's own
        parameters of app.plan: spec.services: an app has at least one service
        parameters of app.plan: spec.app: "No Name" is not an app name: use 1 to 48 lower-case letters, digits, hyphens and underscores, beginning and ending with a letter or digit
        parameters of app.logs: tail: 100000 lines: ask for 1 to 2000
        parameters of app.remove: .: missing field `app`
        this program has no action app.unknown version 1; see `serverflow action list` for those it has, or upgrade it"#]].assert_eq(&errors.join("\n"));
}

#[test]
fn images_of_a_deploy_are_held_against_the_specification() {
    let change = |change: fn(&mut Value)| {
        let mut parameters = deploy_parameters(shop_with("web:1"));
        change(&mut parameters);
        error("app.deploy", &parameters)
    };
    let errors = [
        change(|p| drop(p["images"].as_object_mut().unwrap().remove("web"))),
        change(|p| p["images"]["web"]["pinned"] = json!("sha256:12")),
        change(|p| p["images"]["web"]["local"] = json!(false)),
        change(|p| p["images"]["web"]["reference"] = json!("web:2")),
        change(|p| p["images"]["other"] = p["images"]["web"].clone()),
        change(|p| p["timeout_ms"] = json!(1)),
        change(|p| p["min_healthy_ms"] = json!(599_000)),
    ];
    expect![[r#"
        parameters of app.deploy: images: service web has no pinned image; take all from app.plan's result
        parameters of app.deploy: images.web: a local image is pinned by its id, sha256: and 64 hexadecimal digits
        parameters of app.deploy: images.web: must be pinned by a digest (name@sha256:…)
        parameters of app.deploy: images.web: is for "web:2", but the service names "web:1"
        parameters of app.deploy: images.other: no such service in the specification
        parameters of app.deploy: timeout_ms: between 1000 and 1200000 milliseconds
        parameters of app.deploy: min_healthy_ms: at most 120000 milliseconds, and not above timeout_ms"#]]
    .assert_eq(&errors.join("\n"));
}

#[test]
fn an_order_of_an_earlier_version_holds_nothing_that_came_later() {
    let decode = |name: &str, version: u32, parameters: &Value| {
        let name: ActionName = name.parse().unwrap();
        Request::decode(&name, version, parameters.to_string().as_bytes()).map_err(|error| error.to_string())
    };
    let old = deploy_parameters(shop_with("web:1"));
    assert_eq!(decode("app.deploy", 1, &old).unwrap().version_needed(), 1);
    assert_eq!(decode("app.deploy", 2, &old).unwrap().version_needed(), 1);
    let mut new = old.clone();
    new["spec"]["services"]["web"]["hostname"] = json!("web");
    assert_eq!(decode("app.deploy", 2, &new).unwrap().version_needed(), 2);
    let mut approved = old.clone();
    approved["plan_sha256"] = json!("0".repeat(64));
    assert_eq!(decode("app.deploy", 2, &approved).unwrap().version_needed(), 2);
    let plan = json!({ "spec": new["spec"] });
    expect![[r#"
        parameters of app.deploy: spec.services.web.hostname: app.deploy version 1 has no such field; order version 2, or leave it out
        parameters of app.deploy: plan_sha256: app.deploy version 1 has no such field; order version 2, or leave it out
        parameters of app.plan: spec.services.web.hostname: app.plan version 1 has no such field; order version 2, or leave it out
        this program has no action app.deploy version 3; see `serverflow action list` for those it has, or upgrade it"#]]
    .assert_eq(
        &[
            decode("app.deploy", 1, &new),
            decode("app.deploy", 1, &approved),
            decode("app.plan", 1, &plan),
            decode("app.deploy", 3, &old),
        ]
        .map(Result::unwrap_err)
        .join("\n"),
    );
}

/// Whatever the newest schema knows of a specification and the first does not is counted as newer:
/// otherwise it would be sent to agents that do not know it.
#[test]
fn every_field_that_came_later_is_told_apart() {
    let service = |text: &str| {
        let schema: Value = serde_json::from_str(text).unwrap();
        let properties = schema["$defs"]["ServiceSpec"]["properties"].as_object().unwrap().clone();
        properties.into_iter().map(|(name, _)| name).collect::<std::collections::BTreeSet<String>>()
    };
    let first = service(include_str!("../app_plan/schema.v1.json"));
    let newest = service(include_str!("../app_plan/schema.v2.json"));
    let sample = |field: &str| match field {
        "sysctls" | "annotations" => json!({ "a.b": "1" }),
        "ulimits" => json!({ "nofile": { "soft": 1, "hard": 2 } }),
        "extra_hosts" => json!({ "a": ["10.0.0.1"] }),
        "links" => json!({ "database": "db" }),
        "expose" => json!([{ "port": 1, "protocol": "tcp" }]),
        "dns" => json!(["10.0.0.1"]),
        "files" => json!([{ "target": "/a", "content": { "sealed": "web/files/a" } }]),
        "cap_drop" | "security_opt" | "dns_search" | "dns_opt" | "group_add" | "device_cgroup_rules" => json!(["a"]),
        "stdin_open" | "tty" => json!(true),
        "pull_policy" => json!("always"),
        "hostname" | "domainname" | "platform" | "userns_mode" | "uts" | "cpuset" => json!("a"),
        _ => json!(3),
    };
    for field in newest.difference(&first) {
        let mut spec = shop_with("web:1");
        spec["services"]["web"][field] = sample(field);
        let spec: crate::spec::AppSpec = serde_json::from_value(spec).unwrap();
        assert_eq!(spec.field_of_version_2(), Some(format!("services.web.{field}")));
    }
    let changed = |change: fn(&mut Value)| {
        let mut spec = shop_with("web:1");
        change(&mut spec);
        serde_json::from_value::<crate::spec::AppSpec>(spec).unwrap().field_of_version_2()
    };
    let bind = changed(|spec| {
        spec["services"]["web"]["mounts"] = json!([{ "type": "bind", "source": "./a", "target": "/a" }])
    });
    assert_eq!(bind.as_deref(), Some("services.web.mounts[0]"));
    assert_eq!(
        changed(|spec| spec["networks"]["n"] = json!({ "external": "n" })).as_deref(),
        Some("networks.n.external")
    );
    assert_eq!(
        changed(|spec| spec["volumes"]["data"]["external"] = json!("n")).as_deref(),
        Some("volumes.data.external")
    );
    assert_eq!(changed(|_| ()), None);
}

#[test]
fn size_and_encoding_are_checked_first() {
    let name: ActionName = "host.facts".parse().unwrap();
    let big = vec![b' '; limits::PARAMETERS_BYTES_MAX + 1];
    assert!(Request::decode(&name, 1, &big).unwrap_err().to_string().contains("262144"));
    assert!(Request::decode(&name, 1, b"{}\xff").unwrap_err().to_string().contains("UTF-8"));
    assert!(Request::decode(&name, 1, b"{} {}").is_err());
    assert!(Request::decode(&name, 2, b"{}").is_err());
    assert!(Request::decode(&name, 1, b"{}").is_ok());
    let deep = "[".repeat(100_000);
    assert!(Request::decode(&name, 1, deep.as_bytes()).is_err());
}

proptest! {
    #[test]
    fn decoding_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300), which in 0..actions().len()) {
        let name: ActionName = actions()[which].name.parse().unwrap();
        let _ = Request::decode(&name, actions()[which].version, &bytes);
    }

    /// A byte changed anywhere in good parameters gives a request or an error; and what is a
    /// request can be asked everything.
    #[test]
    fn damaged_parameters_never_panic(at in 0usize..2_000, byte in any::<u8>()) {
        let mut bytes = deploy_parameters(shop_with("web:1")).to_string().into_bytes();
        let at = at % bytes.len();
        bytes[at] = byte;
        let name: ActionName = "app.deploy".parse().unwrap();
        if let Ok(request) = Request::decode(&name, 2, &bytes) {
            let _ = (request.demands(), request.secret_names(), request.lock(), request.info());
        }
    }
}
