//! Whole files through the public door: realistic ones against golden specifications, wrong ones
//! against golden messages; `hostile.rs` and `secrets.rs` hold the rest.
//!
//! `tests/corpus/NAME.yaml` (variables in `NAME.env`) becomes `NAME.json`; `tests/refused/NAME.yaml`
//! becomes `NAME.txt`. `UPDATE_EXPECT=1` blesses both.
#![allow(clippy::disallowed_methods, reason = "the room itself has no disk; its tests read their corpus")]

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use actions::spec::{AppSpec, RestartPolicy};
use compose::{Bundle, Composed, Options, Problems, dotenv, read};
use expect_test::expect_file;

fn read_with(file: &str, yaml: &[u8], variables: &BTreeMap<String, String>) -> Result<Composed, Problems> {
    let bundle = Bundle { files: BTreeMap::from([(file.to_owned(), yaml)]), main: file };
    read(&bundle, &Options { variables, app_name: None, fallback_name: Some("Sample App") })
}

fn read_plain(yaml: &str) -> Result<Composed, Problems> {
    read_with("compose.yaml", yaml.as_bytes(), &BTreeMap::new())
}

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(name)
}

fn files(name: &str) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder(name))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
        .collect();
    files.sort();
    files
}

fn variables_beside(path: &Path) -> BTreeMap<String, String> {
    std::fs::read_to_string(path.with_extension("env")).map(|text| dotenv(&text).unwrap()).unwrap_or_default()
}

fn shown(composed: &Composed) -> String {
    let secrets: BTreeMap<&str, &str> =
        composed.secrets.iter().map(|(name, text)| (name.0.as_str(), text.as_str())).collect();
    let notes: Vec<String> = composed.notes.iter().map(ToString::to_string).collect();
    let whole = serde_json::json!({ "spec": composed.spec, "secrets": secrets, "notes": notes });
    format!("{}\n", serde_json::to_string_pretty(&whole).unwrap())
}

#[test]
fn realistic_files_become_golden_specifications() {
    let files = files("corpus");
    assert!(files.len() >= 10, "the corpus has shrunk to {}", files.len());
    for path in files {
        let name = path.file_name().unwrap().to_str().unwrap();
        let yaml = std::fs::read(&path).unwrap();
        let variables = variables_beside(&path);
        let composed = read_with(name, &yaml, &variables).unwrap_or_else(|problems| panic!("{problems}"));
        expect_file![path.with_extension("json")].assert_eq(&shown(&composed));
        let again = read_with(name, &yaml, &variables).unwrap();
        assert_eq!(shown(&again), shown(&composed), "{name} is read differently the second time");
        let json = serde_json::to_string(&composed.spec).unwrap();
        assert_eq!(serde_json::from_str::<AppSpec>(&json).unwrap(), composed.spec, "{name} does not round-trip");
    }
}

#[test]
fn wrong_files_are_refused_with_golden_messages() {
    let files = files("refused");
    assert!(files.len() >= 8, "only {} wrong files", files.len());
    for path in files {
        let name = path.file_name().unwrap().to_str().unwrap();
        let yaml = std::fs::read(&path).unwrap();
        let problems = read_with(name, &yaml, &variables_beside(&path)).expect_err(name);
        expect_file![path.with_extension("txt")].assert_eq(&format!("{problems}\n"));
    }
}

/// Wraps the keys of one service.
fn service(keys: &str) -> String {
    let keys = keys.replace('\n', "\n    ");
    format!("services:\n  web:\n    image: nginx\n    {keys}\n")
}

fn check_service(keys: &str, expected: &str) {
    let composed = read_plain(&service(keys)).unwrap_or_else(|problems| panic!("{keys}: {problems}"));
    let json = serde_json::to_string(&composed.spec.services.values().next().unwrap()).unwrap();
    assert!(json.contains(expected), "{keys}:\n{json}\ndoes not contain\n{expected}");
}

fn check_refused(yaml: &str, expected: &str) {
    let problems = match read_plain(yaml) {
        Ok(composed) => panic!("{yaml}\nwas read as {composed:?}"),
        Err(problems) => problems.to_string(),
    };
    assert!(problems.contains(expected), "{yaml}\n{problems}\ndoes not contain\n{expected}");
}

#[test]
fn values_of_one_service() {
    check_service("command: nginx -g 'daemon off;'", r#""command":["nginx","-g","daemon off;"]"#);
    check_service("command: [sleep, 10]", r#""command":["sleep","10"]"#);
    check_service("command: []", r#""command":[]"#);
    check_service("command: \"\"", r#""command":[]"#);
    check_service("command:", r#""image":"nginx","restart""#);
    check_service("entrypoint: /bin/tini --", r#""entrypoint":["/bin/tini","--"]"#);
    check_service("labels: [a=b, c]", r#""labels":{"a":"b","c":""}"#);
    check_service("labels: {on: yes, n: 5}", r#""labels":{"n":"5","on":"yes"}"#);
    check_service("restart: no", r#""restart":"no""#);
    check_service("restart: on-failure:3", r#""restart":{"on_failure":{"max_attempts":3}}"#);
    check_service("user: 1000", r#""user":"1000""#);
    check_service("working_dir: /srv//app/", r#""working_dir":"/srv/app""#);
    check_service("read_only: true\ninit: false", r#""read_only":true,"init":false"#);
    check_service("mem_limit: 512m\ncpus: 0.5", r#""mem_limit_bytes":536870912,"cpus_milli":500"#);
    check_service("cpus: \"1.25\"", r#""cpus_milli":1250"#);
    check_service(
        "stop_grace_period: 1m30s\nstop_signal: SIGINT",
        r#""stop_signal":"SIGINT","stop_grace_period_ms":90000"#,
    );
    check_service("healthcheck: {test: curl -f localhost}", r#""healthcheck":{"test":{"shell":"curl -f localhost"}}"#);
    check_service("healthcheck: {test: [NONE]}", r#""test":"disabled""#);
    check_service("healthcheck: {disable: true}", r#""test":"disabled""#);
    check_service("healthcheck: {interval: 5s}", r#"{"test":"inherit","interval_ms":5000}"#);
    check_service("ports: [80]", r#""ports":[{"host_ip":"0.0.0.0","container_port":80,"protocol":"tcp"}]"#);
    check_service(
        "ports: [{target: 80, published: \"8080\", host_ip: 127.0.0.1, protocol: udp, mode: host}]",
        r#"{"host_ip":"127.0.0.1","host_port":8080,"container_port":80,"protocol":"udp"}"#,
    );
    check_service(
        "volumes: [{type: tmpfs, target: /run, tmpfs: {size: 64m, mode: 0o1777}}]",
        r#"{"type":"tmpfs","target":"/run","size_bytes":67108864,"mode":1023}"#,
    );
    check_service("logging: {options: {max-size: 1m, max-file: 3}}", r#""options":{"max-file":"3","max-size":"1m"}"#);
    check_service("privileged: true\ncap_add: [cap_net_admin]", r#""privileged":true,"cap_add":["NET_ADMIN"]"#);
    check_service("devices: [/dev/ttyUSB0]", r#""devices":["/dev/ttyUSB0:/dev/ttyUSB0:rwm"]"#);
    check_service(
        "network_mode: host\npid: host\nipc: shareable",
        r#""network_mode":"host","pid":"host","ipc":"shareable""#,
    );
    check_service("x-anything: {goes: [here]}\ninit: true", r#""init":true"#);
    check_service("networks: {default: {aliases: [www]}}", r#""networks":{"default":["www"]}"#);
    check_service("user: ~", r#""image":"nginx","restart""#);
}

#[test]
fn wrong_values_of_one_service() {
    for (keys, expected) in [
        ("comand: x", "compose.yaml:4:5: services.web.comand: a service has no key `comand` (did you mean `command`?)"),
        ("build: .", "services.web.build: the key `build` is not supported by this version"),
        ("env_file: .env", "the key `env_file` is not supported"),
        ("zzz: 1", "a service has no key `zzz` (known here: image, command,"),
        ("ports: [\"80:80:80\"]", "services.web.ports[0]: `80:80:80` is refused: the address"),
        ("ports: [{published: 80}]", "services.web.ports[0]: the port has no `target`"),
        ("ports: [{target: 80, published: 80-81}]", "`published` is a range"),
        (
            "ports: [\"127.0.0.1:80:80\", \"80:81\"]",
            "ports[1]: port 80 of the host is taken already, by services.web.ports[0]",
        ),
        ("volumes: [\"./html:/srv\"]", "services.web.volumes[0]: `./html:/srv` mounts files of the host (mounts of"),
        ("volumes: [\"/var/run/docker.sock:/x\"]", "mounts files of the host"),
        ("volumes: [\"C:\\\\x:/x\"]", "volumes[0]"),
        (
            "volumes: [{type: bind, source: /, target: /x}]",
            "services.web.volumes[0].type: the mount brings in files of the host",
        ),
        ("volumes: [/data]", "is a volume without a name"),
        ("volumes: [\"data:/data\"]", "no volume is called `data` (declare it at the top: `volumes: {data: }`)"),
        ("volumes: [\"data:data\"]", "it begins with /"),
        ("volumes: [\"data:/d:ro,z\"]", "SELinux"),
        ("volumes: [{type: tmpfs, target: /a}, {type: tmpfs, target: /a/}]", "two mounts have the same target"),
        ("volumes: [{type: tmpfs, target: /a, tmpfs: {mode: 1777}}]", "permission bits are octal"),
        ("command: a && b", "services.web.command: the line has an unquoted shell operator"),
        ("environment: {\"A B\": x}", "the name of the environment variable is not one"),
        ("environment: [A=1, A=2]", "the variable is set twice"),
        ("environment: {A: [1]}", "services.web.environment.A: expected a single value, found a list"),
        (
            "labels: {io.serverflow.app: x}",
            "services.web.labels[io.serverflow.app]: labels beginning with io.serverflow.",
        ),
        ("labels: {IO.ServerFlow.app: x}", "set by ServerFlow alone"),
        ("working_dir: srv", "`srv` is refused: a path inside the container is absolute"),
        ("read_only: yes", "`yes` is refused: expected true or false"),
        ("restart: sometimes", "write no, always"),
        ("restart: false", "write no, always"),
        ("mem_limit: 1m", "no memory limit below 6m"),
        ("mem_limit: much", "a size is a number"),
        ("stop_grace_period: 30", "the unit is missing"),
        ("stop_signal: SIGTREM", "`SIGTREM` is refused: a signal is a name"),
        ("healthcheck: {test: [curl]}", "a probe begins with CMD"),
        ("healthcheck: {test: [CMD]}", "wrong number of parts"),
        ("healthcheck: {retries: 0}", "at least 1 probe"),
        ("healthcheck: {interval: 0s}", "at least 1ms"),
        ("healthcheck: {start_interval: 1s}", "not supported by this version"),
        ("healthcheck: {test: x, disable: true}", "remove one of them"),
        ("network_mode: bridge", "write host, none, service:NAME or container:NAME"),
        ("network_mode: service:db", "no service is called `db`"),
        ("network_mode: service:web", "in a circle: web → web"),
        ("network_mode: host\nnetworks: [a]", "exclude each other"),
        ("network_mode: host\nports: [80]", "cannot be published"),
        ("networks: [front]", "no network is called `front`"),
        ("networks: {default: {ipv4_address: 1.2.3.4}}", "not supported by this version"),
        ("depends_on: [wbe]", "no service is called `wbe` (did you mean `web`?)"),
        ("depends_on: {web: {}}", "the dependency has no `condition`"),
        ("depends_on: {web: {condition: ready}}", "`ready` is refused"),
        ("cap_add: [NET_ADMIN, CAP_NET_ADMIN]", "in the list twice"),
        ("image: postgres", "the key `image` is given twice; the first is on line 3"),
        ("user: \"a\\0b\"", "the text has a NUL character"),
        ("init: !custom x", "the tag `!custom` is not understood"),
        ("user: $", "the `$` at character 1"),
        ("user: ${WHO:?say who}", "services.web.user: the variable WHO must be set: say who"),
    ] {
        check_refused(&service(keys), expected);
    }
}

#[test]
fn wrong_files_as_a_whole() {
    for (yaml, expected) in [
        ("", "the file holds nothing"),
        ("# nothing\n", "the file holds nothing"),
        ("[]", "expected a mapping (`key: value`), found a list"),
        ("hello", "expected a mapping (`key: value`), found a single value"),
        ("name: a", "the file has no `services`"),
        ("services: {}", "no service stands here"),
        ("services: {web: {}}", "the service has no image"),
        ("services: {web: }", "the service has no image"),
        ("services: {web: {image: }}", "expected a single value, found nothing"),
        ("services: {web: {image: Nginx}}", "an image name is lower case"),
        ("services: {\"we b\": {image: a}}", "services[we b]: `we b` is refused: a name has 1 to 63"),
        ("name: Web\nservices: {a: {image: a}}", "`Web` is refused: an app's name has 1 to 48"),
        ("services: {a: {image: a}}\nvolume: {}", "did you mean `volumes`?"),
        ("image: a", "`image` is a key of a service and stands at the top"),
        ("services: {a: {image: a}}\nsecrets: {}", "the key `secrets` is not supported"),
        ("services: {a: {image: a}}\n---\nservices: {}", "a second YAML document begins here"),
        ("services:\n\tweb: {}", "a line here is indented with a tab"),
        ("services: {a: {image: a}", "not valid YAML"),
        ("services: {a: {image: *nobody}}", "unknown anchor"),
        ("services: &all {a: *all}", "the alias refers to something that contains it"),
        ("services: {a: {image: a, <<: text}}", "`<<` takes a mapping"),
        ("services: {? [a] : {image: a}}", "a key must be a plain text"),
        ("services: {a: {image: a}}\nvolumes: {v: {external: true}}", "an external volume"),
        ("services: {a: {image: a}}\nvolumes: {v: {driver: nfs}}", "only the driver local"),
        ("services: {a: {image: a}}\nvolumes: {v: {name: x}}", "volumes are named after the app"),
        ("services: {a: {image: a}}\nnetworks: {n: {driver: overlay}}", "only the driver bridge"),
        ("services: {a: {image: a}}\nnetworks: {n: {external: {name: x}}}", "an external network"),
        ("services: {a: {image: a}}\nvolumes: {v: {driver_opts: {o: \"$X\"}}}", "cannot be sealed"),
        ("services: {a: {image: a}}\nnetworks: {n: {labels: {o: \"$X\"}}}", "cannot be sealed"),
        (
            "services: {a: {image: a, depends_on: [b]}, b: {image: b, depends_on: [c]}, c: {image: c, depends_on: [a]}}",
            "services wait for each other in a circle: a → b → c → a",
        ),
        (
            "services: {a: {image: a, ports: [\"1:1\"]}, b: {image: b, ports: [\"1:1\"]}}",
            "services.b.ports[0]: port 1 of the host is taken already, by services.a.ports[0]",
        ),
        (
            "services: {a: {image: a, restart: always}, b: {image: b, depends_on: {a: {condition: service_completed_successfully}}}}",
            "services.a.restart: another service waits for this one to complete",
        ),
        (
            "services: {a: {image: a, healthcheck: {disable: true}}, b: {image: b, depends_on: {a: {condition: service_healthy}}}}",
            "`a` can never become healthy",
        ),
    ] {
        check_refused(yaml, expected);
    }
}

#[test]
fn who_is_waited_for_to_complete_is_not_started_again() {
    let yaml = "
services:
  web: {image: a, depends_on: {job: {condition: service_completed_successfully}, db: {condition: service_healthy}}}
  job: {image: a}
  db: {image: a}
";
    let spec = read_plain(yaml).unwrap().spec;
    let restart = |name: &str| spec.services[&name.parse().unwrap()].restart;
    assert_eq!(restart("job"), RestartPolicy::No);
    assert_eq!(restart("web"), RestartPolicy::UnlessStopped);
    assert_eq!(restart("db"), RestartPolicy::UnlessStopped);
}

#[test]
fn the_name_comes_from_the_option_then_the_file_then_the_folder() {
    let variables = BTreeMap::new();
    let name = |yaml: &str, option: Option<&str>, folder: Option<&str>| {
        let bundle = Bundle { files: BTreeMap::from([("c".to_owned(), yaml.as_bytes())]), main: "c" };
        let options = Options {
            variables: &variables,
            app_name: option.map(|name| name.parse().unwrap()),
            fallback_name: folder,
        };
        read(&bundle, &options).map(|composed| composed.spec.app.to_string()).map_err(|problems| problems.to_string())
    };
    let (named, unnamed) = ("name: file\nservices: {a: {image: a}}", "services: {a: {image: a}}");
    assert_eq!(name(named, Some("option"), Some("folder")), Ok("option".to_owned()));
    assert_eq!(name(named, None, Some("folder")), Ok("file".to_owned()));
    assert_eq!(name(unnamed, None, Some("_My App 2.0-")), Ok("myapp20".to_owned()));
    assert!(name(unnamed, None, Some("日本")).unwrap_err().contains("the app has no name"));
    assert!(name(unnamed, None, None).unwrap_err().contains("the app has no name"));
}

#[test]
fn a_bundle_holds_its_main_file_and_no_other() {
    let variables = BTreeMap::new();
    let options = Options { variables: &variables, app_name: None, fallback_name: Some("a") };
    let missing = Bundle { files: BTreeMap::new(), main: "a.yaml" };
    assert!(read(&missing, &options).unwrap_err().to_string().contains("a.yaml: the bundle does not hold this file"));
    let yaml: &[u8] = b"services: {a: {image: a}}";
    let two =
        Bundle { files: BTreeMap::from([("a.yaml".to_owned(), yaml), ("b.yaml".to_owned(), yaml)]), main: "a.yaml" };
    assert!(read(&two, &options).unwrap_err().to_string().contains("b.yaml: this version reads one Compose file"));
}

#[test]
fn an_absent_variable_is_noted_once() {
    let composed =
        read_plain(&service("labels: {a: \"$GONE\", b: \"${GONE}\", c: \"$COMPOSE_PROJECT_NAME\"}")).unwrap();
    let notes: Vec<String> = composed.notes.iter().map(ToString::to_string).collect();
    assert_eq!(
        notes,
        ["compose.yaml:4:14: services.web.labels.a: the variable GONE is not set; nothing is put in its place \
        (set it, or write `${NAME:-default}`; `$$` is a plain dollar sign)"]
    );
    assert!(composed.secrets.values().any(|text| text.as_str() == "sampleapp"));
}
