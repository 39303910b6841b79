//! What a variable brought is sealed whole, and no message or `Debug` shows it.

mod bundles;

use std::collections::BTreeMap;

use actions::spec::Text;
use bundles::read_with;

/// Wraps the keys of one service.
fn service(keys: &str) -> String {
    let keys = keys.replace('\n', "\n    ");
    format!("services:\n  web:\n    image: nginx\n    {keys}\n")
}

const SECRET: &str = "hunter2 'with\" ; $odd &things";

#[test]
fn a_text_that_a_variable_reached_is_sealed_whole() {
    let variables = BTreeMap::from([("S".to_owned(), "swordfish".to_owned()), ("T".to_owned(), "1.27".to_owned())]);
    let yaml = service(
        "environment: {PLAIN: text, FROM: null, ABSENT: null, S: null}\ncommand: run --key=$S\nentrypoint: [a, \"$S\", b]\n\
         labels: {l: \"$S\", m: n}\nuser: $S\nworking_dir: /$S\nhealthcheck: {test: [CMD, probe, \"$S\"]}\n\
         logging: {options: {tag: \"x-$S\"}}",
    )
    .replace("nginx", "nginx:$T");
    let composed = read_with("c.yaml", yaml.as_bytes(), &variables).unwrap();
    let names: Vec<&str> = composed.secrets.keys().map(|name| name.0.as_str()).collect();
    assert_eq!(
        names,
        [
            "web/command/0",
            "web/command/1",
            "web/entrypoint/1",
            "web/environment/PLAIN",
            "web/environment/S",
            "web/healthcheck/test/1",
            "web/labels/l",
            "web/logging/options/tag",
            "web/user",
            "web/working_dir",
        ]
    );
    let web = &composed.spec.services[&"web".parse().unwrap()];
    assert_eq!(web.image, "nginx:1.27");
    assert_eq!(web.labels["m"], Text::Plain("n".to_owned()));
    let told = format!("{composed:?}{}", serde_json::to_string(&composed.spec).unwrap());
    assert!(!told.contains("swordfish"), "{told}");
    // Whether a variable is set does not decide whether its place is sealed.
    let default = read_with("c.yaml", service("user: ${WHO:-nobody}").as_bytes(), &BTreeMap::new()).unwrap();
    assert_eq!(default.secrets.values().map(|text| text.as_str()).collect::<Vec<_>>(), ["nobody"]);
    assert!(read_with("c.yaml", service("user: $$x").as_bytes(), &BTreeMap::new()).unwrap().secrets.is_empty());
}

#[test]
fn no_message_shows_what_a_variable_brought() {
    // One secret that nothing accepts, and some that pass for a name, a port or a number.
    let secrets = [SECRET, "swordfish", "54321", "container:swordfish"];
    for (keys, secret) in PLACES_OF_A_VARIABLE.iter().flat_map(|keys| secrets.map(|secret| (keys, secret))) {
        let variables = BTreeMap::from([("S".to_owned(), secret.to_owned())]);
        let yaml = service(keys);
        let told = match read_with("c.yaml", yaml.as_bytes(), &variables) {
            // Any text is a path below the app's folder.
            Ok(_) if secret == SECRET && !keys.starts_with("volumes: [\"./") => panic!("{keys} was read"),
            Ok(composed) => format!("{:?}", composed.notes),
            Err(problems) => format!("{problems} {problems:?}"),
        };
        for part in ["hunter2", "swordfish", "54321"] {
            assert!(!told.contains(part), "{keys}: {told}");
        }
    }
    let variables = BTreeMap::from([("S".to_owned(), SECRET.to_owned())]);
    let image = "services: {web: {image: \"$S\"}}";
    let problems = read_with("c.yaml", image.as_bytes(), &variables).unwrap_err().to_string();
    assert!(problems.contains("hidden") && !problems.contains("hunter2"), "{problems}");
}

const PLACES_OF_A_VARIABLE: &[&str] = &[
    "command: run $S",
    "ports: [\"$S\"]",
    "ports: [{target: \"$S\"}]",
    "volumes: [\"$S\"]",
    "volumes: [\"$S:/x\"]",
    "volumes: [\"./$S:/x\"]",
    "volumes: [\"x:$S\"]",
    "volumes: [\"x:/x:$S\"]",
    "volumes: [{type: \"$S\", target: /x}]",
    "volumes: [{type: volume, source: \"$S\", target: /x}]",
    "user: $S",
    "working_dir: $S",
    "read_only: $S",
    "restart: $S",
    "mem_limit: $S",
    "cpus: $S",
    "stop_grace_period: $S",
    "stop_signal: $S",
    "healthcheck: {test: [\"$S\"]}",
    "healthcheck: {retries: $S}",
    "network_mode: $S",
    "network_mode: service:$S",
    "pid: container:$S",
    "networks: [\"$S\"]",
    "networks: {default: {aliases: [\"$S\"]}}",
    "depends_on: [\"$S\"]",
    "cap_add: [\"$S\"]",
    "devices: [\"$S\"]",
    "logging: {driver: \"$S\"}",
    "environment: {A: \"${NONE:?$S}\"}",
    "environment: [\"$S=x\"]",
    "environment: [\"hunter2 without a name\"]",
    "labels: [\"$S=x\"]",
    "labels: {io.serverflow.a: $S}",
    "volumes: [{type: bind, source: \"~/$S\", target: /x}]",
    "volumes: [\"../$S:/x\"]",
    "tmpfs: \"$S\"",
    "env_file: \"$S\"",
    "env_file: [{path: x, format: \"$S\"}]",
    "extends: \"$S\"",
    "extends: {service: web, file: \"../$S\"}",
    "configs: [\"$S\"]",
    "secrets: [{source: \"$S\"}]",
    "secrets: [{source: a, uid: \"$S\"}]",
    "hostname: \"$S!\"",
    "domainname: \"$S!\"",
    "extra_hosts: [\"$S\"]",
    "extra_hosts: {a: \"$S\"}",
    "dns: \"$S\"",
    "dns_search: \"$S!\"",
    "dns_opt: [\"$S!\"]",
    "expose: [\"$S!\"]",
    "sysctls: {a: \"$S\\n\"}",
    "ulimits: {nofile: \"$S!\"}",
    "pids_limit: \"$S!\"",
    "deploy: {replicas: \"$S\"}",
    "deploy: {mode: \"$S\"}",
    "deploy: {resources: {limits: {memory: \"$S!\"}}}",
    "deploy: {restart_policy: {condition: \"$S\"}}",
    "scale: \"$S\"",
    "profiles: [\"$S!\"]",
    "links: [\"$S\"]",
    "container_name: \"$S!\"",
    "platform: \"$S\"",
    "pull_policy: \"$S\"",
    "security_opt: [\"$S\"]",
    "group_add: [\"$S :\"]",
    "cpuset: \"$S!\"",
    "shm_size: \"$S!\"",
    "userns_mode: \"$S\"",
    "annotations: {a: \"$S\"}",
    "device_cgroup_rules: [\"$S\"]",
    "ports: [\"$S:80\", \"$S:81\"]",
    "ports: [{target: 80, published: \"$S\"}, {target: 81, published: \"$S\"}]",
];
