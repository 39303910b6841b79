//! What the tests play with: images that behave, apps to deploy, and orders to run.

use std::collections::BTreeMap;

use ids::{ActionName, CommandId, FleetId, HostId, OperationId};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::{
    Request,
    outcome::{Outcome, OutcomeStatus},
    policy::Policy,
    port::ActionContext,
    simulated::{Behaviour, SimulatedImage, SimulatedPort, SimulatedWorld, drive},
    spec::SecretName,
};

/// Images by name, each with what its containers do.
pub(super) const IMAGES: [(&str, Behaviour); 9] = [
    ("db:1", Behaviour::Healthy { after_ms: 3_000 }),
    ("web:1", Behaviour::Healthy { after_ms: 1_000 }),
    ("web:2", Behaviour::Healthy { after_ms: 1_000 }),
    ("web:sick", Behaviour::Unhealthy { after_ms: 2_000 }),
    ("web:slow", Behaviour::Healthy { after_ms: 10_000_000 }),
    ("web:crash", Behaviour::Exits { after_ms: 700, code: 3 }),
    ("web:oom", Behaviour::OutOfMemory { after_ms: 700 }),
    ("plain:1", Behaviour::Runs),
    ("polite:1", Behaviour::EndsWellWhenStopped),
];

pub(super) fn world() -> SimulatedWorld {
    let mut world = SimulatedWorld::default();
    for (name, behaviour) in IMAGES {
        world.engine.image_add(name, SimulatedImage::local(name, behaviour));
    }
    world.engine.image_add("web:broken", SimulatedImage::local("web:broken", Behaviour::RefusesToStart));
    world
        .engine
        .image_add("migrate:1", SimulatedImage::local("migrate:1", Behaviour::Exits { after_ms: 900, code: 0 }));
    world
        .engine
        .image_add("migrate:bad", SimulatedImage::local("migrate:bad", Behaviour::Exits { after_ms: 900, code: 1 }));
    world.engine.registry_add(
        "ghcr.io/owner/app:1",
        SimulatedImage::registry("ghcr.io/owner/app:1", Behaviour::Healthy { after_ms: 1_000 }),
    );
    world
}

/// A service without anything special.
pub(super) fn service(image: &str) -> Value {
    json!({ "image": image, "restart": "unless_stopped" })
}

/// An app named `shop` with these services and a volume `data`.
pub(super) fn shop(services: Value) -> Value {
    json!({ "app": "shop", "services": services, "networks": {}, "volumes": { "data": {} } })
}

/// `db`, and `web` of that image that waits for it.
pub(super) fn shop_with(web: &str) -> Value {
    shop(json!({
        "db": {
            "image": "db:1",
            "restart": "unless_stopped",
            "environment": { "PASSWORD": { "sealed": "db/environment/PASSWORD" } },
            "mounts": [{ "type": "volume", "volume": "data", "target": "/data" }],
        },
        "web": {
            "image": web,
            "restart": "unless_stopped",
            "ports": [{ "host_ip": "127.0.0.1", "host_port": 8080, "container_port": 80, "protocol": "tcp" }],
            "depends_on": { "db": "service_healthy" },
        },
    }))
}

/// The shop with files that travel with the order, a directory of the host, and a network and a volume
/// that somebody else made.
pub(super) fn shop_on_the_host(web: &str) -> Value {
    let mut spec = shop_with(web);
    spec["networks"]["front"] = json!({ "external": "proxy" });
    spec["volumes"]["media"] = json!({ "external": "shared" });
    let web = &mut spec["services"]["web"];
    web["networks"] = json!({ "default": [], "front": [] });
    web["files"] = json!([{ "target": "/run/secrets/key", "content": { "sealed": "db/environment/PASSWORD" } }]);
    web["mounts"] = json!([
        { "type": "bind", "source": "./html", "target": "/html", "create": true },
        { "type": "volume", "volume": "media", "target": "/media" },
    ]);
    spec
}

/// A host that has what [`shop_on_the_host`] stands on.
pub(super) fn world_with_places() -> SimulatedWorld {
    let mut world = world();
    world.engine.places.networks.insert("proxy".to_owned());
    world.engine.places.volumes.insert("shared".to_owned());
    world
}

/// Pins every service's image to its local id.
pub(super) fn deploy_parameters(spec: Value) -> Value {
    let mut images = serde_json::Map::new();
    for (name, service) in spec["services"].as_object().unwrap() {
        let reference = service["image"].as_str().unwrap();
        let pinned = SimulatedImage::local(reference, Behaviour::Runs).state.id;
        images.insert(name.clone(), json!({ "reference": reference, "pinned": pinned, "local": true }));
    }
    json!({ "spec": spec, "images": images })
}

pub(super) fn request(name: &str, parameters: &Value) -> Request {
    let name: ActionName = name.parse().unwrap();
    let version = crate::latest(&name).unwrap().version;
    Request::decode(&name, version, parameters.to_string().as_bytes()).unwrap()
}

pub(super) fn deploy(spec: Value) -> Request {
    request("app.deploy", &deploy_parameters(spec))
}

pub(super) fn remove() -> Request {
    request("app.remove", &json!({ "app": "shop" }))
}

/// `app.stop`, `app.start` or `app.restart` of the shop; of all services when none is named.
pub(super) fn lifecycle(verb: &str, services: &[&str]) -> Request {
    let mut parameters = json!({ "app": "shop" });
    if !services.is_empty() {
        parameters["services"] = json!(services);
    }
    request(&format!("app.{verb}"), &parameters)
}

/// The n-th order's surroundings.
pub(super) fn context(n: u8) -> ActionContext {
    let secret = SecretName("db/environment/PASSWORD".to_owned());
    ActionContext {
        fleet: FleetId::from_bytes([1; 16]),
        host: HostId::from_bytes([2; 16]),
        command: CommandId::from_bytes([n; 16]),
        operation: OperationId::from_bytes([n; 16]),
        secrets: BTreeMap::from([(secret.clone(), Zeroizing::new("hunter22-long".to_owned()))]),
        sealed: BTreeMap::from([(secret, b"sealed bytes".to_vec())]),
        remembered: vec![Zeroizing::new("hunter22-long".to_owned())],
        fingerprint_key: Zeroizing::new([7; 32]),
        resumed: false,
        backwards_only: false,
        dry_run: false,
        policy: policy(),
    }
}

/// The default policy, with a root for binds and some things that others made.
pub(super) fn policy() -> Policy {
    let text = Policy::default_text().replace("roots = []", "roots = [\"/srv/apps\", \"/data\"]");
    Policy::parse(&text.replace("external = []", "external = [\"proxy\", \"shared\"]")).unwrap()
}

pub(super) fn run(world: &mut SimulatedWorld, request: &Request, context: &ActionContext) -> Outcome {
    let mut port = SimulatedPort::new(world);
    drive(request.run(context, &mut port)).expect("the simulated port never waits")
}

/// Runs and expects that end.
pub(super) fn ends(world: &mut SimulatedWorld, request: &Request, n: u8, status: OutcomeStatus) -> Outcome {
    let outcome = run(world, request, &context(n));
    assert_eq!(outcome.status, status, "{}", outcome.message);
    outcome
}

/// Everything on the host that a person would see, one thing a line.
pub(super) fn picture(world: &SimulatedWorld) -> String {
    let mut lines: Vec<String> = world
        .engine
        .containers(world.clock)
        .iter()
        .map(|c| {
            let image = IMAGES
                .iter()
                .map(|(name, _)| *name)
                .chain(["web:broken", "migrate:1", "migrate:bad"])
                .find(|name| SimulatedImage::local(name, Behaviour::Runs).state.id == c.image)
                .unwrap_or(c.image.as_str());
            format!("container {} {image} {:?} {:?}", c.name, c.run, c.health)
        })
        .collect();
    lines.extend(world.engine.started_by_engine().into_iter().map(|name| format!("starts with the engine {name}")));
    lines.extend(world.engine.networks().into_iter().map(|name| format!("network {name}")));
    lines.extend(world.engine.volumes().into_iter().map(|name| format!("volume {name}")));
    lines.extend(world.engine.tags().into_iter().map(|name| format!("tag {name}")));
    lines.extend(world.engine.files().into_iter().map(|name| format!("files {name}")));
    lines.extend(world.records.keys().map(|key| format!("record {key}")));
    lines.sort();
    lines.into_iter().map(|line| line + "\n").collect()
}
