//! Reading parameters: what is refused, in which words, and that nothing panics.

use expect_test::expect;
use ids::ActionName;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::scene::{deploy_parameters, shop_with};
use crate::{Request, actions, limits};

fn error(name: &str, parameters: &Value) -> String {
    let name: ActionName = name.parse().unwrap();
    Request::decode(&name, 1, parameters.to_string().as_bytes()).unwrap_err().to_string()
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
        parameters of app.plan: spec.services.web.imgae: unknown field `imgae`, expected one of `image`, `command`, `entrypoint`, `environment`, `ports`, `mounts`, `healthcheck`, `restart`, `labels`, `user`, `working_dir`, `read_only`, `init`, `depends_on`, `networks`, `logging`, `stop_signal`, `stop_grace_period_ms`, `mem_limit_bytes`, `cpus_milli`, `privileged`, `cap_add`, `devices`, `network_mode`, `pid`, `ipc`
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
        parameters of app.plan: spec.app: "No Name" is not a app name: use 1 to 48 lower-case letters, digits, hyphens and underscores, beginning and ending with a letter or digit
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
        let _ = Request::decode(&name, 1, &bytes);
    }

    /// A byte changed anywhere in good parameters gives a request or an error; and what is a
    /// request can be asked everything.
    #[test]
    fn damaged_parameters_never_panic(at in 0usize..2_000, byte in any::<u8>()) {
        let mut bytes = deploy_parameters(shop_with("web:1")).to_string().into_bytes();
        let at = at % bytes.len();
        bytes[at] = byte;
        let name: ActionName = "app.deploy".parse().unwrap();
        if let Ok(request) = Request::decode(&name, 1, &bytes) {
            let _ = (request.demands(), request.secret_names(), request.lock(), request.info());
        }
    }
}
