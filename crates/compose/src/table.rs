//! The table of docs/COMPOSE.md against what is read: every key of the table has a case here that
//! shows what it does, and every key that is known stands in the table.

use std::collections::{BTreeMap, BTreeSet};

use crate::{Bundle, Options, files, health, mounts, project, resources, service};

const DOCUMENT: &str = include_str!("../../../docs/COMPOSE.md");

/// What comes of a file.
enum Means {
    /// The specification holds this.
    Spec(&'static str),
    /// A note says this.
    Note(&'static str),
    /// It is refused with this.
    Refused(&'static str),
}

use Means::{Note, Refused, Spec};

/// Sections of the table.
const TOP: &str = "Top level";
const SERVICES: &str = "Services";
const MOUNTS: &str = "Mounts";
const RESOURCES: &str = "Networks and volumes";
const FILES: &str = "Configs and secrets";

/// Keys of the whole file: key, file, what comes of it.
const TOP_CASES: &[(&str, &str, Means)] = &[
    ("name", "name: shop", Spec(r#""app":"shop""#)),
    ("services", "x-a: 1", Spec(r#""services":{"web":"#)),
    ("networks", "networks: {n: }", Spec(r#""n":{}"#)),
    ("volumes", "volumes: {v: }", Spec(r#""volumes":{"v":{}}"#)),
    ("configs", "configs: {c: {content: x, external: true}}", Refused("which a swarm keeps")),
    ("secrets", "secrets: {s: {file: x, external: true}}", Refused("which a swarm keeps")),
    ("include", "include: [other.yaml]", Spec(r#""other":{"image":"o""#)),
    ("version", "version: '3'", Note("obsolete")),
    ("models", "models: {}", Refused("run the model as a service")),
];

/// Keys of a service: key, value, what comes of it.
const SERVICE_CASES: &[(&str, &str, Means)] = &[
    ("image", "nginx:1", Spec(r#""image":"nginx:1""#)),
    ("command", "a b", Spec(r#""command":["a","b"]"#)),
    ("entrypoint", "[a, b c]", Spec(r#""entrypoint":["a","b c"]"#)),
    ("environment", "{A: 1}", Spec(r#""environment":{"A":{"sealed":"web/environment/A"}}"#)),
    ("env_file", "web.env", Spec(r#""environment":{"E":{"sealed":"web/environment/E"}}"#)),
    ("ports", "[\"127.0.0.1:80:80\"]", Spec(r#""host_port":80"#)),
    ("expose", "[80]", Spec(r#""expose":[{"port":80,"protocol":"tcp"}]"#)),
    ("volumes", "[\"data:/data:ro\"]", Spec(r#"{"type":"volume","volume":"data","target":"/data","read_only":true}"#)),
    ("tmpfs", "/run", Spec(r#"{"type":"tmpfs","target":"/run"}"#)),
    ("configs", "[c]", Spec(r#"{"target":"/c","content":{"sealed":"web/configs/c"}}"#)),
    ("secrets", "[s]", Spec(r#"{"target":"/run/secrets/s","content":{"sealed":"web/secrets/s"}}"#)),
    ("healthcheck", "{test: a, start_interval: 1s}", Note("`interval` holds during the start period")),
    ("restart", "on-failure:2", Spec(r#""restart":{"on_failure":{"max_attempts":2}}"#)),
    ("deploy", "{resources: {limits: {memory: 64m}}}", Spec(r#""mem_limit_bytes":67108864"#)),
    ("scale", "2", Refused("the number is 1")),
    ("profiles", "[p]", Refused("every service is left out")),
    ("extends", "{service: other, file: other.yaml}", Spec(r#""user":"extended""#)),
    ("labels", "[a=b]", Spec(r#""labels":{"a":"b"}"#)),
    ("annotations", "{a: b}", Spec(r#""annotations":{"a":"b"}"#)),
    ("user", "1:1", Spec(r#""user":"1:1""#)),
    ("group_add", "[audio]", Spec(r#""group_add":["audio"]"#)),
    ("working_dir", "/a", Spec(r#""working_dir":"/a""#)),
    ("read_only", "true", Spec(r#""read_only":true"#)),
    ("init", "true", Spec(r#""init":true"#)),
    ("stdin_open", "true", Spec(r#""stdin_open":true"#)),
    ("tty", "true", Spec(r#""tty":true"#)),
    ("depends_on", "[nobody]", Refused("no service is called `nobody`")),
    ("links", "[\"web:www\"]", Refused("in a circle")),
    ("networks", "{default: {aliases: [a]}}", Spec(r#""networks":{"default":["a"]}"#)),
    ("container_name", "a", Note("becomes an alias")),
    ("hostname", "a", Spec(r#""hostname":"a""#)),
    ("domainname", "a", Spec(r#""domainname":"a""#)),
    ("extra_hosts", "[\"a=1.2.3.4\"]", Spec(r#""extra_hosts":{"a":["1.2.3.4"]}"#)),
    ("dns", "1.2.3.4", Spec(r#""dns":["1.2.3.4"]"#)),
    ("dns_search", "a.b", Spec(r#""dns_search":["a.b"]"#)),
    ("dns_opt", "[use-vc]", Spec(r#""dns_opt":["use-vc"]"#)),
    ("logging", "{driver: local}", Spec(r#""logging":{"driver":"local"}"#)),
    ("stop_signal", "SIGINT", Spec(r#""stop_signal":"SIGINT""#)),
    ("stop_grace_period", "1m", Spec(r#""stop_grace_period_ms":60000"#)),
    ("mem_limit", "64m", Spec(r#""mem_limit_bytes":67108864"#)),
    ("mem_reservation", "64m", Spec(r#""mem_reservation_bytes":67108864"#)),
    ("memswap_limit", "-1", Spec(r#""memswap_limit_bytes":-1"#)),
    ("mem_swappiness", "1", Spec(r#""mem_swappiness":1"#)),
    ("oom_score_adj", "-5", Spec(r#""oom_score_adj":-5"#)),
    ("shm_size", "1m", Spec(r#""shm_size_bytes":1048576"#)),
    ("cpus", "1.5", Spec(r#""cpus_milli":1500"#)),
    ("cpu_shares", "512", Spec(r#""cpu_shares":512"#)),
    ("cpuset", "0-1", Spec(r#""cpuset":"0-1""#)),
    ("pids_limit", "10", Spec(r#""pids_limit":10"#)),
    ("ulimits", "{nofile: 9}", Spec(r#""ulimits":{"nofile":{"soft":9,"hard":9}}"#)),
    ("sysctls", "[a.b=1]", Spec(r#""sysctls":{"a.b":"1"}"#)),
    ("cap_drop", "[all]", Spec(r#""cap_drop":["ALL"]"#)),
    ("privileged", "true", Spec(r#""privileged":true"#)),
    ("cap_add", "[cap_net_admin]", Spec(r#""cap_add":["NET_ADMIN"]"#)),
    ("devices", "[/dev/a]", Spec(r#""devices":["/dev/a:/dev/a:rwm"]"#)),
    ("device_cgroup_rules", "[c 1:3 r]", Spec(r#""device_cgroup_rules":["c 1:3 r"]"#)),
    ("network_mode", "host", Spec(r#""network_mode":"host""#)),
    ("pid", "host", Spec(r#""pid":"host""#)),
    ("ipc", "private", Spec(r#""ipc":"private""#)),
    ("userns_mode", "host", Spec(r#""userns_mode":"host""#)),
    ("uts", "host", Spec(r#""uts":"host""#)),
    ("security_opt", "[seccomp:unconfined]", Spec(r#""security_opt":["seccomp=unconfined"]"#)),
    ("platform", "linux/arm/v7", Spec(r#""platform":"linux/arm/v7""#)),
    ("pull_policy", "never", Spec(r#""pull_policy":"never""#)),
    ("attach", "false", Note("no effect")),
    ("develop", "{watch: []}", Note("no effect")),
];

/// Parts of mounts: key, item of `volumes`, what comes of it.
const MOUNT_CASES: &[(&str, &str, Means)] = &[
    ("name:/path[:ro|rw]", "\"data:/d\"", Spec(r#"{"type":"volume","volume":"data","target":"/d"}"#)),
    ("./here:/path[:ro|rw]", "\"./h:/d\"", Note("is looked for on the host")),
    ("/here:/path", "\"/h.d/x:/d\"", Spec(r#"{"type":"bind","source":"/h.d/x","target":"/d","create":true}"#)),
    ("type", "{type: image, target: /d}", Refused("the type is volume, bind or tmpfs")),
    ("source", "{type: bind, source: /h, target: /d}", Spec(r#""source":"/h""#)),
    ("target", "{type: tmpfs}", Refused("the mount has no `target`")),
    ("read_only", "{type: bind, source: /h, target: /d, read_only: true}", Spec(r#""read_only":true"#)),
    (
        "bind",
        "{type: bind, source: /h, target: /d, bind: {create_host_path: false, propagation: rslave}}",
        Spec(r#"{"type":"bind","source":"/h","target":"/d","propagation":"rslave"}"#),
    ),
    ("tmpfs", "{type: tmpfs, target: /d, tmpfs: {mode: 0o700}}", Spec(r#""mode":448"#)),
    ("volume", "{type: volume, source: data, target: /d, volume: {nocopy: true}}", Refused("nocopy")),
    ("consistency", "{type: bind, source: /h, target: /d, consistency: cached}", Note("no effect on Linux")),
];

/// Networks and volumes: key, file, what comes of it.
const RESOURCE_CASES: &[(&str, &str, Means)] = &[
    ("networks.*.driver", "networks: {n: {driver: overlay}}", Refused("only the driver bridge")),
    ("networks.*.internal", "networks: {n: {internal: true}}", Spec(r#""n":{"internal":true}"#)),
    ("networks.*.labels", "networks: {n: {labels: {a: b}}}", Spec(r#""n":{"labels":{"a":"b"}}"#)),
    ("volumes.*.labels", "volumes: {v: {labels: [a=$A]}}", Refused("cannot be sealed")),
    ("networks.*.external", "networks: {n: {external: true}}", Spec(r#""n":{"external":"n"}"#)),
    ("volumes.*.external", "volumes: {v: {external: {name: old}}}", Spec(r#""v":{"external":"old"}"#)),
    ("networks.*.name", "networks: {n: {external: true, name: proxy}}", Spec(r#""n":{"external":"proxy"}"#)),
    ("volumes.*.name", "volumes: {v: {name: mine}}", Refused("has no name of its own")),
    ("networks.*.attachable", "networks: {n: {attachable: true}}", Note("swarms only")),
    ("networks.*.enable_ipv4", "networks: {n: {enable_ipv4: false}}", Refused("without IPv4")),
    ("networks.*.enable_ipv6", "networks: {n: {enable_ipv6: true}}", Refused("IPv6 of a single network")),
    ("volumes.*.driver", "volumes: {v: {driver: nfs}}", Refused("only the driver local")),
    ("volumes.*.driver_opts", "volumes: {v: {driver_opts: {o: bind}}}", Spec(r#""driver_opts":{"o":"bind"}"#)),
    ("networks.*.ipam", "networks: {n: {ipam: {}}}", Refused("the key `ipam` is not supported here")),
    ("networks.*.driver_opts", "networks: {n: {driver_opts: {}}}", Refused("`driver_opts` is not supported here")),
];

/// Configs and secrets: key, value of what the service is granted, what comes of it.
const FILE_CASES: &[(&str, &str, Means)] = &[
    ("configs.*.file", "{file: web.env}", Spec(r#""sealed":"web/configs/x""#)),
    ("secrets.*.file", "{file: gone}", Refused("`gone` is not there")),
    ("configs.*.environment", "{environment: GONE}", Refused("the variable `GONE` is not set")),
    ("secrets.*.environment", "{environment: A}", Spec(r#""sealed":"web/secrets/x""#)),
    ("configs.*.content", "{content: \"$A\"}", Spec(r#""sealed":"web/configs/x""#)),
    ("configs.*.external", "{external: true}", Refused("which a swarm keeps")),
    ("secrets.*.external", "{external: true}", Refused("which a swarm keeps")),
    ("configs.*.name", "{content: a, name: b}", Note("`name` has no effect")),
    ("secrets.*.name", "{environment: A, name: b}", Note("`name` has no effect")),
    ("configs.*.labels", "{content: a, labels: {}}", Note("`labels` has no effect")),
    ("secrets.*.labels", "{environment: A, labels: {}}", Note("`labels` has no effect")),
    (
        "configs.*.template_driver",
        "{content: a, template_driver: golang}",
        Refused("`template_driver` is not supported"),
    ),
    ("secrets.*.driver", "{environment: A, driver: x}", Refused("`driver` is not supported here")),
    ("secrets.*.driver_opts", "{environment: A, driver_opts: {}}", Refused("`driver_opts` is not supported here")),
    (
        "secrets.*.template_driver",
        "{environment: A, template_driver: x}",
        Refused("`template_driver` is not supported"),
    ),
];

/// Keys of the compose-spec for a service, whether or not they are known here.
const SPECIFIED: &str = "annotations attach blkio_config build cap_add cap_drop cgroup cgroup_parent command configs \
    container_name cpu_count cpu_percent cpu_period cpu_quota cpu_rt_period cpu_rt_runtime cpu_shares cpus cpuset \
    credential_spec depends_on deploy develop device_cgroup_rules devices dns dns_opt dns_search domainname entrypoint \
    env_file environment expose extends external_links extra_hosts gpus group_add healthcheck hostname image init ipc \
    isolation label_file labels links logging mac_address mem_limit mem_reservation mem_swappiness memswap_limit models \
    network_mode networks oom_kill_disable oom_score_adj pid pids_limit platform ports post_start pre_stop privileged \
    profiles provider pull_policy pull_refresh_after read_only restart runtime scale secrets security_opt shm_size \
    stdin_open stop_grace_period stop_signal storage_opt sysctls tmpfs tty ulimits use_api_socket user userns_mode uts \
    volumes volumes_from working_dir";

/// The keys of the document's tables, by section.
fn documented() -> BTreeMap<String, BTreeSet<String>> {
    let (mut keys, mut section): (BTreeMap<String, BTreeSet<String>>, _) = (BTreeMap::new(), String::new());
    for line in DOCUMENT.lines() {
        if let Some(heading) = line.strip_prefix("## ") {
            section = heading.to_owned();
        }
        let Some(row) = line.strip_prefix("| `") else { continue };
        // A bar within a cell is escaped.
        let cell = row.replace("\\|", "\u{1}");
        let cell = format!("`{}", cell.split('|').next().unwrap_or_default());
        let spans = cell.split('`').skip(1).step_by(2).map(|span| span.replace('\u{1}', "|"));
        keys.entry(section.clone()).or_default().extend(spans);
    }
    keys
}

/// Reads a file that has what the cases name.
fn check(key: &str, top: &str, service: &str, means: &Means) {
    let image = if service.starts_with("image:") { "" } else { "    image: nginx\n" };
    let yaml = format!("{top}\nservices:\n  web:\n{image}    {service}\n");
    let files = [
        ("compose.yaml", yaml.as_str()),
        ("other.yaml", "services: {other: {image: o, user: extended}}"),
        ("web.env", "E=1\n"),
    ];
    let bundle = Bundle {
        files: files.iter().map(|(path, text)| ((*path).to_owned(), Some(text.as_bytes()))).collect(),
        order: vec!["compose.yaml".to_owned()],
        complete: true,
    };
    let variables = BTreeMap::from([("A".to_owned(), "a".to_owned())]);
    let options = Options { variables: &variables, app_name: None, fallback_name: Some("a"), profiles: &[] };
    let read = crate::read(&bundle, &options);
    let (told, expected) = match (&read, means) {
        (Ok(composed), Spec(expected)) => (serde_json::to_string(&composed.spec).unwrap(), expected),
        (Ok(composed), Note(expected)) => (format!("{:?}", composed.notes), expected),
        (Err(problems), Refused(expected)) => (problems.to_string(), expected),
        (Ok(_), Refused(expected)) => panic!("{key}: was read, not refused with {expected}\n{yaml}"),
        (Err(problems), _) => panic!("{key}: {problems}\n{yaml}"),
    };
    assert!(told.contains(expected), "{key}: {told}\ndoes not contain\n{expected}\n{yaml}");
}

#[test]
fn every_key_does_what_its_case_says() {
    for (key, top, means) in TOP_CASES.iter().chain(RESOURCE_CASES) {
        check(key, top, "init: true", means);
    }
    for (key, value, means) in SERVICE_CASES {
        let top = "volumes: {data: }\nconfigs: {c: {content: x}}\nsecrets: {s: {environment: A}}";
        check(key, top, &format!("{key}: {value}"), means);
    }
    for (key, item, means) in MOUNT_CASES {
        check(key, "volumes: {data: }", &format!("volumes: [{item}]"), means);
    }
    for (key, value, means) in FILE_CASES {
        let section = key.split('.').next().unwrap_or_default();
        check(key, &format!("{section}: {{x: {value}}}"), &format!("{section}: [x]"), means);
    }
    for (key, hint) in service::LATER {
        check(key, "", &format!("{key}: {{}}"), &Refused("is not supported here"));
        assert!(hint.len() > 10, "{key} says what to do instead");
    }
}

#[test]
fn every_key_of_the_table_has_a_case_and_every_case_stands_in_the_table() {
    let keys = |cases: &[(&str, &str, Means)]| cases.iter().map(|(key, ..)| (*key).to_owned()).collect::<BTreeSet<_>>();
    let mut services = keys(SERVICE_CASES);
    services.extend(service::LATER.iter().map(|(key, _)| (*key).to_owned()));
    let cases = BTreeMap::from([
        (TOP, keys(TOP_CASES)),
        (SERVICES, services),
        (MOUNTS, keys(MOUNT_CASES)),
        (RESOURCES, keys(RESOURCE_CASES)),
        (FILES, keys(FILE_CASES)),
    ]);
    let documented = documented();
    for (section, cases) in cases {
        assert_eq!(documented.get(section), Some(&cases), "{section}: the table and its cases differ");
    }
}

#[test]
fn every_key_that_is_known_stands_in_the_table() {
    let documented = documented();
    let section = |name: &str| &documented[name];
    let missing = |name: &str, keys: &[&str], prefix: &str| -> Vec<String> {
        keys.iter().map(|key| format!("{prefix}{key}")).filter(|key| !section(name).contains(key)).collect()
    };
    assert_eq!(missing(TOP, project::KEYS, ""), Vec::<String>::new());
    assert_eq!(missing(SERVICES, service::KEYS, ""), Vec::<String>::new());
    assert_eq!(missing(MOUNTS, mounts::KEYS, ""), Vec::<String>::new());
    assert_eq!(missing(RESOURCES, resources::NETWORK_KEYS, "networks.*."), Vec::<String>::new());
    assert_eq!(missing(RESOURCES, resources::VOLUME_KEYS, "volumes.*."), Vec::<String>::new());
    assert_eq!(missing(FILES, files::KEYS, "configs.*."), Vec::<String>::new());
    for key in health::KEYS.iter().chain(files::GRANT_KEYS) {
        assert!(DOCUMENT.contains(&format!("`{key}")), "{key}");
    }
    let specified: Vec<&str> = SPECIFIED.split_whitespace().collect();
    assert_eq!(missing(SERVICES, &specified, ""), Vec::<String>::new(), "a key of Compose is not in the table");
}
