//! Several files as one: the merge rules, `extends`, `include`, files of variables, profiles, and the
//! question for files that are still needed.

mod bundles;

use std::collections::BTreeMap;

use bundles::read_files;
use compose::{Bundle, Needed, Options, Refused, read};
use proptest::prelude::*;
use serde_json::{Value, json};

const BASE: &str = "services:\n  web:\n    image: nginx\n";

/// The service `web` of some files, all of them Compose files.
fn merged(base: &str, over: &str) -> Value {
    let indented = |keys: &str| format!("services:\n  web:\n    {}\n", keys.replace('\n', "\n    "));
    let (base, over) = (format!("{BASE}    {}\n", base.replace('\n', "\n    ")), indented(over));
    let files = [("compose.yaml", base.as_str()), ("override.yaml", over.as_str())];
    let composed = read_files(&files, 2, &[("P", "8080"), ("T", "/data")], &[]);
    let composed = composed.unwrap_or_else(|problems| panic!("{base}{over}{problems}"));
    let mut web = serde_json::to_value(composed.spec.services.values().next().unwrap()).unwrap();
    for (name, text) in &composed.secrets {
        if let Some(variable) = name.0.strip_prefix("web/environment/") {
            web["environment"][variable] = json!(text.as_str());
        }
    }
    web
}

fn check(base: &str, over: &str, pointer: &str, expected: Value) {
    let web = merged(base, over);
    assert_eq!(web.pointer(pointer).cloned().unwrap_or_default(), expected, "{base}\n---\n{over}\n{web}");
}

#[test]
fn single_values_and_commands_are_replaced() {
    check("user: a", "user: b", "/user", json!("b"));
    check("user: a", "image: other", "/user", json!("a"));
    check("user: a", "user:", "/user", json!(null));
    check("command: [a, b]", "command: [c]", "/command", json!(["c"]));
    check("command: [a, b]", "command: c d", "/command", json!(["c", "d"]));
    check("entrypoint: a", "entrypoint: []", "/entrypoint", json!([]));
    check(
        "healthcheck: {test: [CMD, a], retries: 2}",
        "healthcheck: {test: b, interval: 1s}",
        "/healthcheck",
        json!({"test": {"shell": "b"}, "retries": 2, "interval_ms": 1000}),
    );
}

#[test]
fn mappings_merge_and_lists_append() {
    check("cap_add: [NET_ADMIN]", "cap_add: [SYS_TIME, NET_ADMIN]", "/cap_add", json!(["NET_ADMIN", "SYS_TIME"]));
    check(
        "environment: {A: 1, B: 2}",
        "environment: [B=3, C=4]",
        "/environment",
        json!({"A": "1", "B": "3", "C": "4"}),
    );
    check("environment: [A=1]", "environment: {A: 2}", "/environment", json!({"A": "2"}));
    check("labels: {a: 1}", "labels: [b=2, a=3]", "/labels", json!({"a": "3", "b": "2"}));
    check("sysctls: [a.b=1]", "sysctls: {a.b: 2}", "/sysctls", json!({"a.b": "2"}));
    check("dns: 9.9.9.9", "dns: [1.1.1.1, 9.9.9.9]", "/dns", json!(["9.9.9.9", "1.1.1.1"]));
    check(
        "extra_hosts: {a: 1.1.1.1}",
        "extra_hosts: [\"a=2.2.2.2\"]",
        "/extra_hosts",
        json!({"a": ["1.1.1.1", "2.2.2.2"]}),
    );
    check("tmpfs: /run", "tmpfs: [/tmp]", "/mounts/1/target", json!("/tmp"));
    check("networks: [default]", "networks: {default: {aliases: [a]}}", "/networks", json!({"default": ["a"]}));
    check("networks: {default: {aliases: [a]}}", "networks: [default]", "/networks", json!({"default": ["a"]}));
    check(
        "networks: {default: {aliases: [a]}}",
        "networks: {default: {aliases: [b]}}",
        "/networks",
        json!({"default": ["a", "b"]}),
    );
    check(
        "ulimits: {nofile: 1, nproc: 2}",
        "ulimits: {nofile: {soft: 3, hard: 4}}",
        "/ulimits/nofile",
        json!({"soft": 3, "hard": 4}),
    );
    check(
        "logging: {driver: local, options: {a: 1}}",
        "logging: {driver: local, options: {b: 2}}",
        "/logging/options",
        json!({"a": "1", "b": "2"}),
    );
    check(
        "logging: {driver: local, options: {a: 1}}",
        "logging: {driver: json-file, options: {b: 2}}",
        "/logging/options",
        json!({"b": "2"}),
    );
    check("labels: {a: 1}", "labels:", "/labels", json!({"a": "1"}));
}

#[test]
fn items_with_one_identity_replace_each_other() {
    let ports = |base: &str, over: &str, expected: Value| {
        let web = merged(&format!("ports: [{base}]"), &format!("ports: [{over}]"));
        let shown: Vec<String> = web["ports"]
            .as_array()
            .unwrap()
            .iter()
            .map(|port| {
                format!("{}:{}>{}", port["host_ip"].as_str().unwrap(), port["host_port"], port["container_port"])
            })
            .collect();
        assert_eq!(json!(shown), expected, "{base} / {over}");
    };
    ports("\"8080:80\"", "\"8080:80\"", json!(["0.0.0.0:8080>80"]));
    ports("\"8080:80\"", "\"8081:80\"", json!(["0.0.0.0:8080>80", "0.0.0.0:8081>80"]));
    ports("\"8080:80\"", "{target: 80, published: 8080}", json!(["0.0.0.0:8080>80"]));
    ports("\"$P:80\"", "\"8080:80\"", json!(["0.0.0.0:8080>80"]));
    ports("\"127.0.0.1:8080:80\"", "\"8081:80\"", json!(["127.0.0.1:8080>80", "0.0.0.0:8081>80"]));
    check("volumes: [\"./a:/data\"]", "volumes: [\"./b:/data/\", \"./c:/c\"]", "/mounts/0/source", json!("./b"));
    check(
        "volumes: [\"./a:/data\"]",
        "volumes: [{type: tmpfs, target: $T}]",
        "/mounts",
        json!([{"type": "tmpfs", "target": "/data"}]),
    );
    check("devices: [\"/dev/a:/dev/x\"]", "devices: [\"/dev/b:/dev/x\"]", "/devices", json!(["/dev/b:/dev/x:rwm"]));
}

#[test]
fn dependencies_merge_by_name_in_either_form() {
    let files = [
        ("a.yaml", "services:\n  web: {image: a, depends_on: [db]}\n  db: {image: a}\n  q: {image: a}\n"),
        (
            "b.yaml",
            "services:\n  web:\n    depends_on: {q: {condition: service_healthy}, db: {condition: service_healthy}}\n",
        ),
    ];
    let composed = read_files(&files, 2, &[], &[]).unwrap();
    let web = serde_json::to_value(&composed.spec.services[&"web".parse().unwrap()]).unwrap();
    assert_eq!(web["depends_on"], json!({"db": "service_healthy", "q": "service_healthy"}));
    let reversed = [files[0], ("b.yaml", "services: {web: {depends_on: [q]}}")];
    let composed = read_files(&reversed, 2, &[], &[]).unwrap();
    let web = serde_json::to_value(&composed.spec.services[&"web".parse().unwrap()]).unwrap();
    assert_eq!(web["depends_on"], json!({"db": "service_started", "q": "service_started"}));
}

#[test]
fn reset_removes_and_override_replaces() {
    check("ports: [\"8080:80\"]", "ports: !reset []", "/ports", json!(null));
    check("user: a", "user: !reset null", "/user", json!(null));
    check("environment: {A: 1, B: 2}", "environment: {A: !reset null}", "/environment", json!({"B": "2"}));
    check("ports: [\"8080:80\"]", "ports: !override [\"9:9\"]", "/ports/0/host_port", json!(9));
    check("ports: [\"8080:80\"]", "ports: !override [\"9:9\"]", "/ports/1", json!(null));
    check("environment: {A: 1}", "environment: !override {B: 2}", "/environment", json!({"B": "2"}));
    check("user: !reset a", "init: true", "/user", json!(null));
}

#[test]
fn forms_that_do_not_go_together_are_refused_with_both_places() {
    let files = [
        ("a.yaml", "services: {web: {image: a, healthcheck: {retries: 1}}}"),
        ("b.yaml", "services:\n  web:\n    healthcheck: [a]\n"),
    ];
    let told = read_files(&files, 2, &[], &[]).unwrap_err().to_string();
    assert!(
        told.contains("b.yaml:3:18: services.web.healthcheck: a list stands here and a mapping in a.yaml, line 1: they cannot be merged"),
        "{told}"
    );
}

#[test]
fn problems_name_the_file_they_stand_in() {
    let files =
        [("a.yaml", "services: {web: {image: a, comand: x}}"), ("b.yaml", "services:\n  web:\n    portss: []\n")];
    let told = read_files(&files, 2, &[], &[]).unwrap_err().to_string();
    assert!(
        told.contains("a.yaml:1:28: services.web.comand:") && told.contains("b.yaml:3:5: services.web.portss:"),
        "{told}"
    );
}

#[test]
fn services_extend_others_of_their_file_and_of_other_files() {
    let files = [
        (
            "compose.yaml",
            "services:\n  web:\n    extends: {service: base, file: shared/common.yaml}\n    environment: {B: own}\n    ports: [\"8080:80\"]\n  job:\n    extends: web\n    ports: !reset []\n    command: run\n",
        ),
        (
            "shared/common.yaml",
            "services:\n  base:\n    extends: deeper\n    image: a\n    env_file: base.env\n    volumes: [\"./data:/data\"]\n    environment: {A: base, B: base}\n  deeper: {init: true, image: b, user: u}\n",
        ),
        ("shared/base.env", "FROM_FILE=1\nA=file\n"),
    ];
    let composed = read_files(&files, 1, &[], &[]).unwrap();
    let of = |name: &str| serde_json::to_value(&composed.spec.services[&name.parse().unwrap()]).unwrap();
    let (web, job) = (of("web"), of("job"));
    assert_eq!((&web["image"], &web["init"], &web["user"]), (&json!("a"), &json!(true), &json!("u")));
    assert_eq!(web["mounts"][0]["source"], "./shared/data", "paths start in the folder of their file");
    assert_eq!((job["ports"].clone(), job["command"].clone()), (json!(null), json!(["run"])));
    let secret =
        |name: &str| composed.secrets[&actions::spec::SecretName(format!("job/environment/{name}"))].to_string();
    assert_eq!((secret("A"), secret("B"), secret("FROM_FILE")), ("base".to_owned(), "own".to_owned(), "1".to_owned()));
}

#[test]
fn circles_are_named() {
    let circle = [
        ("a.yaml", "services: {one: {image: a, extends: {service: two, file: b.yaml}}}"),
        ("b.yaml", "services: {two: {extends: {service: one, file: a.yaml}}}"),
    ];
    let told = read_files(&circle, 1, &[], &[]).unwrap_err().to_string();
    assert!(told.contains("services extend each other in a circle: ") && told.contains("one → two → one"), "{told}");
    let include = [
        ("a.yaml", "include: [b.yaml]\nservices: {a: {image: a}}"),
        ("b.yaml", "include: [a.yaml]\nservices: {b: {image: a}}"),
    ];
    let told = read_files(&include, 1, &[], &[]).unwrap_err().to_string();
    assert!(
        told.contains("b.yaml:1:11: include[0]: files include each other in a circle: a.yaml → b.yaml → a.yaml"),
        "{told}"
    );
}

#[test]
fn included_files_have_folders_and_variables_of_their_own() {
    let files = [
        (
            "compose.yaml",
            "include:\n  - db/compose.yaml\n  - path: [cache/a.yaml, cache/b.yaml]\n    project_directory: .\n    env_file: [cache/vars.env]\nservices:\n  web: {image: \"web:${TAG:-none}\", depends_on: [db, cache]}\n",
        ),
        (
            "db/compose.yaml",
            "services:\n  db: {image: \"db:$TAG\", volumes: [\"./data:/data\", \"store:/store\"], environment: {O: \"$OUTER\"}}\nvolumes: {store: }\n",
        ),
        ("db/.env", "TAG=7\nOUTER=inner\n"),
        ("cache/a.yaml", "services: {cache: {image: \"cache:$TAG\", volumes: [\"./data:/data\"]}}"),
        ("cache/b.yaml", "services: {cache: {init: true}}"),
        ("cache/vars.env", "TAG=8\n"),
    ];
    let composed = read_files(&files, 1, &[("OUTER", "outer")], &[]).unwrap();
    let of = |name: &str| serde_json::to_value(&composed.spec.services[&name.parse().unwrap()]).unwrap();
    assert_eq!((of("web")["image"].clone(), of("db")["image"].clone()), (json!("web:none"), json!("db:7")));
    assert_eq!(of("db")["mounts"][0]["source"], "./db/data");
    assert_eq!((of("cache")["image"].clone(), of("cache")["init"].clone()), (json!("cache:8"), json!(true)));
    assert_eq!(of("cache")["mounts"][0]["source"], "./data", "project_directory says where paths start");
    assert_eq!(composed.secrets[&actions::spec::SecretName("db/environment/O".to_owned())].as_str(), "outer");
    assert!(composed.spec.volumes.contains_key(&"store".parse().unwrap()));
}

#[test]
fn what_is_included_may_not_say_otherwise_but_a_later_file_may() {
    let files = [
        ("compose.yaml", "include: [db.yaml]\nservices: {db: {image: other}}"),
        ("over.yaml", "services: {db: {image: third}}"),
        ("db.yaml", "services: {db: {image: db}}"),
    ];
    let told = read_files(&files, 1, &[], &[]).unwrap_err().to_string();
    assert!(
        told.contains("services.db: `db` of `services` is also defined in compose.yaml, line 2, and differently"),
        "{told}"
    );
    let files = [("compose.yaml", "include: [db.yaml]\nservices: {web: {image: a}}"), files[1], files[2]];
    let composed = read_files(&files, 2, &[], &[]).unwrap();
    assert_eq!(composed.spec.services[&"db".parse().unwrap()].image, "third");
}

#[test]
fn files_of_variables_stand_behind_the_environment() {
    let files = [
        (
            "compose.yaml",
            "services:\n  web:\n    image: a\n    env_file:\n      - a.env\n      - {path: b.env, required: true}\n      - {path: gone.env, required: false}\n      - {path: raw.env, format: raw}\n    environment: {OWN: env}\n",
        ),
        ("a.env", "A=1\nB=a-$A-$V\nOWN=file\nPASSED\nNOT_SET\n"),
        ("b.env", "A=2\n"),
        ("raw.env", "RAW='$V' # kept\n"),
    ];
    let composed = read_files(&files, 1, &[("V", "v"), ("PASSED", "p")], &[]).unwrap();
    let values: BTreeMap<&str, &str> =
        composed.secrets.iter().map(|(name, text)| (name.0.rsplit('/').next().unwrap(), text.as_str())).collect();
    let expected = [("A", "2"), ("B", "a-1-v"), ("OWN", "env"), ("PASSED", "p"), ("RAW", "'$V' # kept")];
    assert_eq!(values, BTreeMap::from(expected));
    let broken = [files[0], ("a.env", "A='hunter2\n"), files[2], files[3]];
    let told = read_files(&broken, 1, &[], &[]).unwrap_err().to_string();
    assert!(told.contains("a.env:1:3: A: the quote") && !told.contains("hunter2"), "{told}");
}

#[test]
fn profiles_say_who_takes_part() {
    let files = [(
        "compose.yaml",
        "services:\n  web: {image: a, depends_on: {dev: {condition: service_started, required: false}}}\n  dev: {image: b, profiles: [dev, debug]}\n  build: {build: ., profiles: [dev]}\n  job: {image: c, profiles: [job]}\n",
    )];
    let names = |variables: &[(&str, &str)], profiles: &[&str]| {
        read_files(&files, 1, variables, profiles)
            .map(|composed| composed.spec.services.keys().map(ToString::to_string).collect::<Vec<_>>().join(" "))
            .map_err(|problems| problems.to_string())
    };
    assert_eq!(names(&[], &[]).unwrap(), "web");
    assert_eq!(names(&[], &["debug"]).unwrap(), "dev web");
    assert_eq!(names(&[("COMPOSE_PROFILES", "job, debug")], &[]).unwrap(), "dev job web");
    assert_eq!(names(&[("COMPOSE_PROFILES", "job")], &["debug"]).unwrap(), "dev web", "what is asked for wins");
    assert!(names(&[], &["dev"]).unwrap_err().contains("services.build.build: the key `build` is not supported here"));
    assert!(names(&[], &["*"]).unwrap_err().contains("services.build.build"));
    let composed = read_files(&files, 1, &[], &["jobb"]).unwrap();
    let notes: Vec<String> = composed.notes.iter().map(ToString::to_string).collect();
    assert!(
        notes.iter().any(|note| note.contains("no service has the profile `jobb` (did you mean `job`?)")),
        "{notes:?}"
    );
    assert!(
        notes
            .iter()
            .any(|note| note.contains("services.job: the service is left out: its profiles (`job`) are not asked for"))
    );
}

fn needs(files: &[(&str, Option<&str>)], order: &[&str]) -> Result<Vec<String>, String> {
    let bundle = Bundle {
        files: files.iter().map(|(path, text)| ((*path).to_owned(), text.map(str::as_bytes))).collect(),
        order: order.iter().map(|path| (*path).to_owned()).collect(),
        complete: false,
    };
    let variables = BTreeMap::new();
    match read(&bundle, &Options { variables: &variables, app_name: None, fallback_name: Some("a"), profiles: &[] }) {
        Ok(_) => Ok(Vec::new()),
        Err(Refused::Needs(needed)) => Ok(needed.into_iter().map(|Needed { path, .. }| path).collect()),
        Err(Refused::Problems(problems)) => Err(problems.to_string()),
    }
}

#[test]
fn files_that_are_named_are_asked_for_below_the_project_and_nowhere_else() {
    let main = "include: [other/compose.yaml]\nservices:\n  web: {image: a, env_file: [web.env, sub/../b.env], secrets: [s], extends: {file: base.yaml, service: b}}\nsecrets: {s: {file: ./s.txt}, unused: {file: u.txt}}\n";
    assert_eq!(
        needs(&[("app/compose.yaml", Some(main))], &["app/compose.yaml"]).unwrap(),
        ["app/b.env", "app/base.yaml", "app/other/.env", "app/other/compose.yaml", "app/s.txt", "app/web.env"]
    );
    let told = needs(
        &[("app/compose.yaml", Some("include: [../../etc/passwd, /etc/passwd]\nservices: {web: {image: a}}"))],
        &["app/compose.yaml"],
    )
    .unwrap_err();
    assert!(
        told.contains("`../etc/passwd` lies outside of the folder") && told.contains("`/etc/passwd` lies outside"),
        "{told}"
    );
    // What a person named is read wherever it lies.
    let named = [
        ("app/compose.yaml", Some("services: {web: {image: a, env_file: ../common.env}}")),
        ("common.env", Some("A=1")),
    ];
    assert_eq!(needs(&named, &["app/compose.yaml"]), Ok(Vec::new()));
    // What is known to be absent is not asked for again.
    let absent = [("compose.yaml", Some("services: {web: {image: a, env_file: web.env}}")), ("web.env", None)];
    assert!(needs(&absent, &["compose.yaml"]).unwrap_err().contains("`web.env` is not there"));
    let without = needs(&[], &[]).unwrap_err();
    assert!(without.contains("no Compose file was given"), "{without}");
}

#[test]
fn files_that_multiply_are_refused() {
    let labels: String = (0..400).map(|n| format!("l{n}: x, ")).collect();
    let mut yaml = format!("services:\n  s0: {{image: a, labels: {{{labels}}}}}\n");
    for n in 1..200 {
        yaml.push_str(&format!("  s{n}: {{extends: s{}}}\n", if n < 15 { n - 1 } else { n % 14 }));
    }
    let told = read_files(&[("c.yaml", &yaml)], 1, &[], &[]).unwrap_err().to_string();
    assert!(told.contains("is the most one order may carry") || told.contains("values when they are merged"), "{told}");
    let chain: String = (1..60).map(|n| format!("  s{n}: {{extends: s{}}}\n", n + 1)).collect();
    let told = read_files(&[("c.yaml", &format!("services:\n{chain}  s60: {{image: a}}\n"))], 1, &[], &[])
        .unwrap_err()
        .to_string();
    assert!(told.contains("more than 16 services extend each other"), "{told}");
    let many: Vec<(String, String)> = (0..20)
        .map(|n| (format!("f{n}.yaml"), format!("include: [f{}.yaml]\nservices: {{s{n}: {{image: a}}}}", n + 1)))
        .collect();
    let files: Vec<(&str, &str)> = many.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
    assert!(read_files(&files, 1, &[], &[]).unwrap_err().to_string().contains("more than 8 files include each other"));
}

#[test]
fn configs_and_secrets_become_files() {
    let yaml = "services:\n  web:\n    image: a\n    configs: [site, {source: text, target: etc/x.conf, uid: \"101\", gid: 102, mode: 0440}]\n    secrets: [token, {source: key, target: /etc/key}, {source: token, target: again}]\nconfigs:\n  site: {file: ./site.conf}\n  text: {content: \"port=${P}\\n\"}\nsecrets:\n  token: {environment: TOKEN}\n  key: {file: key.bin}\n";
    let bundle = Bundle {
        files: BTreeMap::from([
            ("c.yaml".to_owned(), Some(yaml.as_bytes())),
            ("site.conf".to_owned(), Some(&b"server {}\n"[..])),
            ("key.bin".to_owned(), Some(&b"\xff\x00\x01"[..])),
        ]),
        order: vec!["c.yaml".to_owned()],
        complete: true,
    };
    let variables = BTreeMap::from([("P".to_owned(), "80".to_owned()), ("TOKEN".to_owned(), "s3cret".to_owned())]);
    let composed =
        read(&bundle, &Options { variables: &variables, app_name: None, fallback_name: Some("a"), profiles: &[] })
            .unwrap();
    let web = serde_json::to_value(&composed.spec.services[&"web".parse().unwrap()]).unwrap();
    assert_eq!(
        web["files"],
        json!([
            {"target": "/site", "content": {"sealed": "web/configs/site"}},
            {"target": "/etc/x.conf", "content": {"sealed": "web/configs/text"}, "uid": 101, "gid": 102, "mode": 0o440},
            {"target": "/run/secrets/token", "content": {"sealed": "web/secrets/token"}},
            {"target": "/etc/key", "content": {"sealed": "web/secrets/key"}, "encoding": "base64"},
            {"target": "/run/secrets/again", "content": {"sealed": "web/secrets/token"}},
        ])
    );
    let texts: Vec<&str> = composed.secrets.values().map(|text| text.as_str()).collect();
    assert_eq!(texts, ["server {}\n", "port=80\n", "/wAB", "s3cret"]);
}

/// A service's keys, with values that merge in every way there is.
fn keys() -> impl Strategy<Value = String> {
    let key = prop_oneof![
        "user: [a-c]",
        "command: \\[[a-c]\\]",
        "environment: \\{[A-C]: [1-3]\\}",
        "environment: \\[[A-C]=[1-3]\\]",
        "labels: \\{[a-c]: [1-3]\\}",
        "cap_add: \\[(NET_ADMIN|SYS_TIME)\\]",
        "ports: \\[\"[1-3]:[1-3]\"\\]",
        "volumes: \\[\"\\./[a-c]:/[a-c]\"\\]",
        "dns: (1\\.1\\.1\\.1|\\[9\\.9\\.9\\.9\\])",
        "healthcheck: \\{(retries: [1-3]|test: [a-c])\\}",
    ];
    proptest::collection::vec(key, 0..5).prop_map(|keys| {
        let mut once = BTreeMap::new();
        for key in keys {
            once.insert(key.split(':').next().unwrap_or_default().to_owned(), key);
        }
        once.into_values().map(|key| format!("    {key}\n")).collect()
    })
}

fn spec_of(files: &[&str]) -> Result<Value, String> {
    let named: Vec<(String, String)> = files
        .iter()
        .enumerate()
        .map(|(n, keys)| (format!("{n}.yaml"), format!("services:\n  web:\n    image: a\n{keys}")))
        .collect();
    let files: Vec<(&str, &str)> = named.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
    read_files(&files, files.len(), &[], &[])
        .map(|composed| {
            let texts: BTreeMap<&str, &str> =
                composed.secrets.iter().map(|(name, text)| (name.0.as_str(), text.as_str())).collect();
            json!([composed.spec, texts])
        })
        .map_err(|problems| problems.to_string())
}

proptest! {
    #[test]
    fn a_file_over_itself_or_over_nothing_is_itself(keys in keys()) {
        let alone = spec_of(&[&keys]);
        prop_assert_eq!(&spec_of(&[&keys, &keys]), &alone);
        prop_assert_eq!(&spec_of(&[&keys, ""]), &alone);
        prop_assert_eq!(&spec_of(&["", &keys]), &alone);
    }

    #[test]
    fn an_extended_service_is_a_merged_one(base in keys(), over in keys()) {
        let merged = spec_of(&[&base, &over]);
        let text = format!("services:\n  base:\n    image: a\n    profiles: [never]\n{base}  web:\n    extends: base\n    profiles: !reset []\n    image: a\n{over}");
        let extended = read_files(&[("0.yaml", &text)], 1, &[], &[]).map_err(|problems| problems.to_string());
        prop_assert_eq!(merged.is_ok(), extended.is_ok());
        if let (Ok(merged), Ok(extended)) = (merged, extended) {
            let web = serde_json::to_value(&extended.spec.services[&"web".parse().unwrap()]).unwrap();
            prop_assert_eq!(&merged[0]["services"]["web"], &web);
        }
    }

    #[test]
    fn any_two_files_are_read_or_refused(base in keys(), over in "[a-d:{}\\[\\]!<&* \n-]{0,80}") {
        let files = [("a.yaml", format!("services:\n  web:\n    image: a\n{base}")), ("b.yaml", over)];
        let files: Vec<(&str, &str)> = files.iter().map(|(path, text)| (*path, text.as_str())).collect();
        let _ = read_files(&files, 2, &[], &[]).map(drop);
    }
}
