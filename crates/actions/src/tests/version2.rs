//! What came with version 2 of a specification: bounds, files, binds, things that others made, and
//! when images are pulled.

use expect_test::expect;
use ids::ActionName;
use serde_json::{Value, json};

use super::scene::{
    context, deploy, deploy_parameters, ends, picture, request, service, shop, shop_on_the_host, shop_with, world,
    world_with_places,
};
use crate::{
    Request,
    app_plan::resolve,
    effect::ContainerSpec,
    outcome::OutcomeStatus::{Failed, RolledBack, Succeeded},
    simulated::{SimulatedPort, drive},
};

/// What is said of the web service with these fields.
fn said(fields: &Value) -> String {
    let mut spec = shop_with("web:1");
    for (field, value) in fields.as_object().unwrap() {
        spec["services"]["web"][field] = value.clone();
    }
    let name: ActionName = "app.plan".parse().unwrap();
    let parameters = json!({ "spec": spec }).to_string();
    let error = Request::decode(&name, 2, parameters.as_bytes()).expect_err("refused").to_string();
    error.strip_prefix("parameters of app.plan: spec.services.web.").unwrap_or(&error).to_owned()
}

/// Settings of a service that cannot be.
fn bad_settings() -> Vec<Value> {
    vec![
        json!({ "cap_drop": ["net raw"] }),
        json!({ "security_opt": ["seccomp=/etc/profile.json"] }),
        json!({ "device_cgroup_rules": ["c 1:3"] }),
        json!({ "sysctls": { "vm.swappiness": "1" } }),
        json!({ "sysctls": { "net.core.somaxconn": "1" }, "network_mode": "host" }),
        json!({ "sysctls": { "kernel.sem": "1" }, "ipc": "host" }),
        json!({ "sysctls": { "net.core.somaxconn": "1\n2" } }),
        json!({ "ulimits": { "files": { "soft": 1, "hard": 1 } } }),
        json!({ "ulimits": { "nofile": { "soft": 2, "hard": 1 } } }),
        json!({ "pids_limit": 0 }),
        json!({ "shm_size_bytes": 0 }),
        json!({ "mem_limit_bytes": 10, "mem_reservation_bytes": 11 }),
        json!({ "memswap_limit_bytes": 10 }),
        json!({ "mem_limit_bytes": 10, "memswap_limit_bytes": 9 }),
        json!({ "mem_swappiness": 101 }),
        json!({ "oom_score_adj": 1001 }),
        json!({ "cpu_shares": 1 }),
        json!({ "cpuset": "0 1" }),
        json!({ "hostname": "a b" }),
        json!({ "extra_hosts": { "db": ["here"] } }),
        json!({ "dns_search": ["a..b"] }),
        json!({ "dns_opt": ["ndots 2"] }),
        json!({ "expose": [{ "port": 0, "protocol": "tcp" }] }),
        json!({ "links": { "database": "nobody" } }),
        json!({ "links": { "database": "db" }, "network_mode": "none" }),
        json!({ "platform": "linux" }),
        json!({ "userns_mode": "private" }),
        json!({ "uts": "host", "hostname": "a" }),
        json!({ "hostname": "a", "network_mode": "service:db" }),
        json!({ "group_add": [""] }),
        json!({ "annotations": { "io.serverflow.x": "" } }),
    ]
}

#[test]
fn what_the_engine_would_refuse_is_refused_before() {
    let bind = |source: &str| json!({ "mounts": [{ "type": "bind", "source": source, "target": "/a" }] });
    let file = |mode: u32, target: &str| json!({ "files": [{ "target": target, "content": { "sealed": "x" }, "mode": mode }] });
    let places = [
        bind("data"),
        bind("./../other"),
        json!({ "mounts": [{ "type": "bind", "source": "./a", "target": "/a", "propagation": "up" }] }),
        file(0o4755, "/a"),
        file(0o444, "a"),
        file(0o444, "/a/"),
        json!({ "files": [
            { "target": "/a", "content": { "sealed": "x" } },
            { "target": "/a", "content": { "sealed": "y" } },
        ] }),
        json!({ "dns": vec!["10.0.0.1"; 300] }),
    ];
    let lines: Vec<String> = bad_settings().iter().chain(&places).map(said).collect();
    expect![[r#"
        cap_drop: "net raw" is not a capability: write it in upper case, such as NET_RAW, or ALL
        security_opt: "seccomp=/etc/profile.json" is none of no-new-privileges:true, no-new-privileges:false, seccomp=unconfined, systempaths=unconfined, apparmor=PROFILE, label=…
        device_cgroup_rules: "c 1:3" is not a rule: write it like "c 188:* rmw"
        sysctls: "vm.swappiness" is not a parameter of a container alone; those are net.*, fs.mqueue.*, kernel.msg*, kernel.sem and kernel.shm*. Set others on the host
        sysctls: "net.core.somaxconn" belongs to a namespace that this service shares, so it would be set for others as well; leave it out
        sysctls: "kernel.sem" belongs to a namespace that this service shares, so it would be set for others as well; leave it out
        sysctls: the value of "net.core.somaxconn" is empty, has several lines or is too long
        ulimits: "files" is none of core, cpu, data, fsize, locks, memlock, msgqueue, nice, nofile, nproc, rss, rtprio, rttime, sigpending, stack
        ulimits: nofile: from -1 (no limit) on, and soft not above hard
        pids_limit: -1 for no limit, or 1 to 4194304
        shm_size_bytes: at least 1 byte
        mem_reservation_bytes: not above mem_limit
        memswap_limit_bytes: needs mem_limit, because it counts memory and swap together
        memswap_limit_bytes: -1 for no limit of swap, or at least mem_limit
        mem_swappiness: 0 to 100
        oom_score_adj: -1000 to 1000
        cpu_shares: 2 to 262144
        cpuset: cores by number, such as 0-2,4
        hostname: letters, digits, hyphens and dots, each part 1 to 63 of them
        extra_hosts: "db": a host name with addresses, or host-gateway
        dns_search: "a..b" is not a domain
        dns_opt: "ndots 2" is not an option of the resolver, such as ndots:2
        expose: ports go from 1 to 65535
        links: database: nobody is not a service of this app, or the name is no host name
        links: a service with a network mode has no names for others; leave one out
        platform: os/architecture[/variant], such as linux/arm64
        userns_mode: "host" alone is known; leave it out for the container's own
        uts: a service that has the host's name cannot have one of its own
        hostname: a service in another container's network has that container's; set it there
        group_add: "" is not the name or number of a group
        annotations: the label "io.serverflow.x" is ServerFlow's own
        mounts[0]: "data" is not a path of the host: write it from /, or from ./ for the app's own directory, without ..
        mounts[0]: "./../other" is not a path of the host: write it from /, or from ./ for the app's own directory, without ..
        mounts[0]: propagation is one of rprivate, private, rslave, slave, rshared, shared
        files[0]: a mode is at most 0o777
        files[0]: "a" is not an absolute path inside the container
        files[0]: "/a/" is a directory; name the file itself
        files[1]: something else is mounted at /a already
        dns: 300 entries, more than the 256 that are possible"#]].assert_eq(&lines.join("\n"));
}

#[test]
fn external_things_are_used_as_they_are() {
    let refused = |kind: &str, entry: Value| {
        let mut spec = shop_with("web:1");
        spec[kind]["x"] = entry;
        let name: ActionName = "app.plan".parse().unwrap();
        Request::decode(&name, 2, json!({ "spec": spec }).to_string().as_bytes()).expect_err("refused").to_string()
    };
    for name in ["host", "bridge", "", "-a", "a/b"] {
        assert!(refused("networks", json!({ "external": name })).contains("is not the name of one"), "{name}");
    }
    assert!(refused("networks", json!({ "external": "a", "internal": true })).contains("leave out its other settings"));
    assert!(refused("volumes", json!({ "external": "a", "labels": { "b": "c" } })).contains("leave out its other"));
}

fn container(spec: Value, name: &str) -> ContainerSpec {
    let spec: crate::spec::AppSpec = serde_json::from_value(spec).unwrap();
    let pinned = |name: &ids::ServiceName| {
        let image = json!({ "reference": "x:1", "pinned": format!("sha256:{}", "a".repeat(64)), "local": true });
        (name.clone(), serde_json::from_value(image).unwrap())
    };
    let images = spec.services.keys().map(pinned).collect();
    let mut desired = resolve::desired(&spec, &images, &context(1)).unwrap();
    desired.remove(&name.parse::<ids::ServiceName>().unwrap()).unwrap()
}

#[test]
fn every_field_of_version_2_is_in_the_hash() {
    let of = |field: &str, value: Value| {
        let mut spec = shop_with("web:1");
        spec["services"]["web"][field] = value;
        container(spec, "web").config
    };
    let plain = of("restart", json!("unless_stopped"));
    let file =
        |mode: u32| json!([{ "target": "/a", "content": { "sealed": "db/environment/PASSWORD" }, "mode": mode }]);
    let all = [
        plain,
        of("cap_drop", json!(["ALL"])),
        of("security_opt", json!(["seccomp=unconfined"])),
        of("security_opt", json!(["systempaths=unconfined"])),
        of("hostname", json!("a")),
        of("hostname", json!("b")),
        of("domainname", json!("a")),
        of("files", file(0o444)),
        of("files", file(0o400)),
        of("mounts", json!([{ "type": "bind", "source": "./a", "target": "/a" }])),
        of("links", json!({ "a": "db" })),
        of("tty", json!(true)),
    ];
    let different: std::collections::BTreeSet<&String> = all.iter().collect();
    assert_eq!(different.len(), all.len());
}

#[test]
fn rotation_and_privileges_hold_unless_said_otherwise() {
    let with = |field: &str, value: Value| {
        let mut spec = shop_with("web:1");
        spec["services"]["web"][field] = value;
        container(spec, "web")
    };
    let options = |spec: &ContainerSpec| {
        spec.log_options.iter().map(|(key, value)| format!("{key}={}", value.as_str())).collect::<Vec<String>>()
    };
    let named = with("logging", json!({ "driver": "json-file", "options": { "labels": "a" } }));
    assert_eq!(options(&named), ["labels=a", "max-file=3", "max-size=10m"]);
    let sized = with("logging", json!({ "driver": "json-file", "options": { "max-size": "1m" } }));
    assert_eq!(options(&sized), ["max-size=1m"]);
    let other = with("logging", json!({ "driver": "local" }));
    assert_eq!(options(&other), Vec::<String>::new());

    assert_eq!(with("tty", json!(true)).security_opt, ["no-new-privileges:true"]);
    let both = with("security_opt", json!(["seccomp=unconfined", "systempaths=unconfined"]));
    assert_eq!(both.security_opt, ["no-new-privileges:true", "seccomp=unconfined"]);
    assert!(both.runtime.system_paths_open);
    let without = with("security_opt", json!(["no-new-privileges=false"]));
    assert_eq!(without.security_opt, ["no-new-privileges=false"]);
}

#[test]
fn files_come_with_the_container_and_go_with_it() {
    let mut world = world_with_places();
    ends(&mut world, &deploy(shop_on_the_host("web:1")), 1, Succeeded);
    let first = world.engine.files();
    assert_eq!(first.len(), 1, "{first:?}");
    // What is no secret of the container is in no record either.
    assert!(world.records.values().all(|record| !String::from_utf8_lossy(record).contains("hunter22-long")));
    ends(&mut world, &deploy(shop_on_the_host("web:2")), 2, Succeeded);
    let second = world.engine.files();
    assert_eq!(second.len(), 1);
    assert_ne!(first, second);
    ends(&mut world, &deploy(shop_on_the_host("web:sick")), 3, RolledBack);
    assert_eq!(world.engine.files(), second, "put back with its files");
    ends(&mut world, &deploy(shop_with("web:1")), 4, Succeeded);
    assert_eq!(world.engine.files(), Vec::<String>::new());
    ends(&mut world, &deploy(shop_on_the_host("web:1")), 5, Succeeded);
    ends(&mut world, &super::scene::remove(), 6, Succeeded);
    assert_eq!(world.engine.files(), Vec::<String>::new());
}

#[test]
fn base64_that_is_none_is_refused_before_anything_changes() {
    let mut spec = shop_on_the_host("web:1");
    spec["services"]["web"]["files"][0]["encoding"] = json!("base64");
    let mut world = world_with_places();
    let outcome = ends(&mut world, &deploy(spec), 1, Failed);
    assert!(outcome.message.contains("/run/secrets/key of service web does not hold base64"), "{}", outcome.message);
    assert!(!outcome.message.contains("hunter22"), "{}", outcome.message);
}

/// Somebody swaps a directory for a link while its container is being made.
#[test]
fn a_path_that_changes_between_create_and_start_is_put_back() {
    let mut world = world_with_places();
    ends(&mut world, &deploy(shop_on_the_host("web:1")), 1, Succeeded);
    let before = picture(&world);
    world.engine.places.swapped_after_create.insert("/srv/apps/shop/html".to_owned());
    let order = deploy(shop_on_the_host("web:2"));
    let context = context(2);
    let mut port = SimulatedPort::new(&mut world);
    let outcome = drive(order.run(&context, &mut port)).unwrap();
    // Made, judged once more, and never started: the start that follows is that of the old one.
    let at = port.calls.iter().position(|call| call == "container create shop-web-1").unwrap();
    assert_eq!(port.calls[at + 1], "foreign check shop");
    let removed = port.calls.iter().position(|call| call == "container remove shop-web-1").unwrap();
    assert!(!port.calls[at..removed].iter().any(|call| call.starts_with("container start")), "{:#?}", port.calls);
    assert_eq!(outcome.status, RolledBack, "{}", outcome.message);
    assert!(outcome.message.contains("/srv/apps/shop/html has a symbolic link in it"), "{}", outcome.message);
    assert_eq!(picture(&world), before);
}

#[test]
fn what_is_not_there_or_not_safe_is_said_before_anything_changes() {
    let fails = |change: fn(&mut Value)| {
        let mut spec = shop_on_the_host("web:1");
        change(&mut spec);
        let mut world = world_with_places();
        world.engine.places.containers.insert("shop-b-c-1".to_owned());
        let outcome = ends(&mut world, &deploy(spec), 1, Failed);
        assert!(world.engine.containers(world.clock).is_empty());
        outcome.message
    };
    expect![[r#"
        shop was not deployed: /srv/apps/shop/html does not exist. Nothing was changed
        shop was not deployed: service db mounts /srv/apps/shop/html/sub, which lies below /srv/apps/shop/html, where service web may write: it could make that path lead anywhere on the host. Mount the outer one read-only, or put the two beside each other. Nothing was changed
        shop was not deployed: the container name shop-b-c-1 is taken by another app. Nothing was changed"#]].assert_eq(
        &[
            fails(|spec| drop(spec["services"]["web"]["mounts"][0].as_object_mut().unwrap().remove("create"))),
            fails(|spec| {
                spec["services"]["db"]["mounts"] = json!([
                    { "type": "bind", "source": "/srv/apps/shop/html/sub", "target": "/a", "create": true },
                ]);
            }),
            fails(|spec| {
                spec["services"]["b-c"] = service("plain:1");
            }),
        ]
        .join("\n"),
    );
    let mut world = world();
    let outcome = ends(&mut world, &deploy(shop_on_the_host("web:1")), 1, Failed);
    assert!(outcome.message.contains("there is no network proxy"), "{}", outcome.message);
}

#[test]
fn a_deploy_for_another_plan_changes_nothing() {
    let mut world = world();
    ends(&mut world, &deploy(shop_with("web:1")), 1, Succeeded);
    let plan = ends(&mut world, &request("app.plan", &json!({ "spec": shop_with("web:2") })), 2, Succeeded);
    let mut parameters = deploy_parameters(shop_with("web:2"));
    parameters["plan_sha256"] = plan.result["plan_sha256"].clone();
    let order = request("app.deploy", &parameters);
    world.engine.container_kill("shop-db-1");
    let before = picture(&world);
    let outcome = ends(&mut world, &order, 3, Failed);
    assert!(outcome.message.contains("not as it was when this deploy was planned"), "{}", outcome.message);
    assert_eq!(picture(&world), before);
    // The plan that holds now does.
    let plan = ends(&mut world, &request("app.plan", &json!({ "spec": shop_with("web:2") })), 4, Succeeded);
    parameters["plan_sha256"] = plan.result["plan_sha256"].clone();
    ends(&mut world, &request("app.deploy", &parameters), 5, Succeeded);
}

#[test]
fn images_are_pulled_when_the_file_says() {
    let reference = "ghcr.io/owner/app:1";
    let plan = |field: Option<(&str, Value)>| {
        let mut service = service(reference);
        if let Some((name, value)) = field {
            service[name] = value;
        }
        request("app.plan", &json!({ "spec": shop(json!({ "web": service })) }))
    };
    let mut world = world();
    let pulls = |world: &mut _, order: &Request| {
        let context = context(1);
        let mut port = SimulatedPort::new(world);
        let outcome = drive(order.run(&context, &mut port)).unwrap();
        (outcome.status, port.calls.iter().filter(|call| call.starts_with("image pull")).count(), outcome.message)
    };
    let never = pulls(&mut world, &plan(Some(("pull_policy", json!("never")))));
    assert_eq!((never.0, never.1), (Failed, 0), "{}", never.2);
    assert!(never.2.contains("its pull_policy is never"), "{}", never.2);
    assert_eq!(pulls(&mut world, &plan(None)).1, 1, "it is not here");
    assert_eq!(pulls(&mut world, &plan(None)).1, 0, "it is");
    assert_eq!(pulls(&mut world, &plan(Some(("pull_policy", json!("missing"))))).1, 0);
    let always = pulls(&mut world, &plan(Some(("pull_policy", json!("always")))));
    assert_eq!((always.0, always.1), (Succeeded, 1), "{}", always.2);
    // Another processor's image is not the one asked for.
    let other = pulls(&mut world, &plan(Some(("platform", json!("linux/arm64")))));
    assert_eq!((other.0, other.1), (Failed, 1));
    assert!(other.2.contains("is for linux/amd64, not for linux/arm64"), "{}", other.2);
    assert_eq!(pulls(&mut world, &plan(Some(("platform", json!("linux/amd64"))))).1, 0);
}
