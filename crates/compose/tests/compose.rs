//! Whole files through the public door: realistic projects against golden specifications, wrong ones
//! against golden messages; `merging.rs`, `hostile.rs` and `secrets.rs` hold the rest.
//!
//! `tests/corpus/NAME/` and `tests/refused/NAME/` hold a project each; `case.json` says how it is read
//! (`order`, `profiles`, `variables`), and `golden.json` or `golden.txt` what comes of it.
//! `UPDATE_EXPECT=1` blesses both.

mod bundles;

use std::collections::BTreeMap;

use actions::spec::{AppSpec, RestartPolicy};
use bundles::{Project, projects, read_with};
use compose::{Bundle, Composed, Options, Refused, read};
use expect_test::expect_file;

fn read_plain(yaml: &str) -> Result<Composed, Refused> {
    read_with("compose.yaml", yaml.as_bytes(), &BTreeMap::new())
}

fn shown(composed: &Composed) -> String {
    let secrets: BTreeMap<&str, &str> =
        composed.secrets.iter().map(|(name, text)| (name.0.as_str(), text.as_str())).collect();
    let notes: Vec<String> = composed.notes.iter().map(ToString::to_string).collect();
    let whole = serde_json::json!({ "spec": composed.spec, "secrets": secrets, "notes": notes });
    format!("{}\n", serde_json::to_string_pretty(&whole).unwrap())
}

#[test]
fn realistic_projects_become_golden_specifications() {
    let projects = projects("corpus");
    assert!(projects.len() >= 45, "the corpus has shrunk to {}", projects.len());
    for path in projects {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let project = Project::open(&path);
        let composed = project.read().unwrap_or_else(|problems| panic!("{name}: {problems}"));
        expect_file![path.join("golden.json")].assert_eq(&shown(&composed));
        let again = project.read().unwrap();
        assert_eq!(shown(&again), shown(&composed), "{name} is read differently the second time");
        let json = serde_json::to_string(&composed.spec).unwrap();
        assert_eq!(serde_json::from_str::<AppSpec>(&json).unwrap(), composed.spec, "{name} does not round-trip");
        let plan = actions::latest(&"app.plan".parse().unwrap()).unwrap();
        let parameters = format!(r#"{{"spec":{json}}}"#);
        let decoded = actions::Request::decode(&plan.name.parse().unwrap(), plan.version, parameters.as_bytes());
        assert!(decoded.is_ok(), "{name} is nothing a host takes: {:?}", decoded.err());
    }
}

#[test]
fn wrong_projects_are_refused_with_golden_messages() {
    let projects = projects("refused");
    assert!(projects.len() >= 18, "only {} wrong projects", projects.len());
    for path in projects {
        let problems = Project::open(&path).read().expect_err(&path.display().to_string());
        expect_file![path.join("golden.txt")].assert_eq(&format!("{problems}\n"));
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

/// Keys of a service, and what the specification then holds.
const VALUES: &[(&str, &str)] = &[
    ("command: nginx -g 'daemon off;'", r#""command":["nginx","-g","daemon off;"]"#),
    ("command: [sleep, 10]", r#""command":["sleep","10"]"#),
    ("command: []", r#""command":[]"#),
    ("command: \"\"", r#""command":[]"#),
    ("command:", r#""image":"nginx","restart""#),
    ("entrypoint: /bin/tini --", r#""entrypoint":["/bin/tini","--"]"#),
    ("labels: [a=b, c]", r#""labels":{"a":"b","c":""}"#),
    ("labels: {on: yes, n: 5}", r#""labels":{"n":"5","on":"yes"}"#),
    ("restart: no", r#""restart":"no""#),
    ("restart: on-failure:3", r#""restart":{"on_failure":{"max_attempts":3}}"#),
    ("user: 1000", r#""user":"1000""#),
    ("working_dir: /srv//app/", r#""working_dir":"/srv/app""#),
    ("read_only: true\ninit: false", r#""read_only":true,"init":false"#),
    ("mem_limit: 512m\ncpus: 0.5", r#""mem_limit_bytes":536870912,"cpus_milli":500"#),
    ("cpus: \"1.25\"", r#""cpus_milli":1250"#),
    ("stop_grace_period: 1m30s\nstop_signal: SIGINT", r#""stop_signal":"SIGINT","stop_grace_period_ms":90000"#),
    ("healthcheck: {test: curl -f localhost}", r#""healthcheck":{"test":{"shell":"curl -f localhost"}}"#),
    ("healthcheck: {test: [NONE]}", r#""test":"disabled""#),
    ("healthcheck: {disable: true}", r#""test":"disabled""#),
    ("healthcheck: {interval: 5s}", r#"{"test":"inherit","interval_ms":5000}"#),
    ("ports: [80]", r#""ports":[{"host_ip":"0.0.0.0","container_port":80,"protocol":"tcp"}]"#),
    (
        "ports: [{target: 80, published: \"8080\", host_ip: 127.0.0.1, protocol: udp, mode: host}]",
        r#"{"host_ip":"127.0.0.1","host_port":8080,"container_port":80,"protocol":"udp"}"#,
    ),
    (
        "volumes: [{type: tmpfs, target: /run, tmpfs: {size: 64m, mode: 0o1777}}]",
        r#"{"type":"tmpfs","target":"/run","size_bytes":67108864,"mode":1023}"#,
    ),
    ("logging: {options: {max-size: 1m, max-file: 3}}", r#""options":{"max-file":"3","max-size":"1m"}"#),
    ("privileged: true\ncap_add: [cap_net_admin]", r#""privileged":true,"cap_add":["NET_ADMIN"]"#),
    ("devices: [/dev/ttyUSB0]", r#""devices":["/dev/ttyUSB0:/dev/ttyUSB0:rwm"]"#),
    ("network_mode: host\npid: host\nipc: shareable", r#""network_mode":"host","pid":"host","ipc":"shareable""#),
    ("x-anything: {goes: [here]}\ninit: true", r#""init":true"#),
    (
        "volumes: [\"./html:/srv:ro\", \"/srv/data:/data\", \"./app.conf:/etc/app.conf\", \".:/all\"]",
        r#""mounts":[{"type":"bind","source":"./html","target":"/srv","read_only":true,"create":true},{"type":"bind","source":"/srv/data","target":"/data","create":true},{"type":"bind","source":"./app.conf","target":"/etc/app.conf"},{"type":"bind","source":"./","target":"/all","create":true}]"#,
    ),
    (
        "volumes: [{type: bind, source: /srv/x, target: /x, bind: {create_host_path: false, propagation: rslave}}]",
        r#"{"type":"bind","source":"/srv/x","target":"/x","propagation":"rslave"}"#,
    ),
    ("tmpfs: /run:size=64m", r#"{"type":"tmpfs","target":"/run","size_bytes":67108864}"#),
    ("tmpfs: [/run, /tmp]", r#"{"type":"tmpfs","target":"/run"},{"type":"tmpfs","target":"/tmp"}"#),
    ("cap_drop: [all]\ncap_add: [NET_BIND_SERVICE]", r#""cap_drop":["ALL"]"#),
    ("security_opt: [\"no-new-privileges:true\"]", r#""security_opt":["no-new-privileges=true"]"#),
    ("sysctls: [net.core.somaxconn=1024]", r#""sysctls":{"net.core.somaxconn":"1024"}"#),
    ("sysctls: {net.core.somaxconn: 1024}", r#""sysctls":{"net.core.somaxconn":"1024"}"#),
    (
        "ulimits: {nproc: 65535, nofile: {soft: 20000, hard: 40000}}",
        r#""ulimits":{"nofile":{"soft":20000,"hard":40000},"nproc":{"soft":65535,"hard":65535}}"#,
    ),
    ("pids_limit: -1", r#""pids_limit":-1"#),
    (
        "extra_hosts: [\"a:10.0.0.1\", \"a=::1\", \"gw:host-gateway\"]",
        r#""extra_hosts":{"a":["10.0.0.1","::1"],"gw":["host-gateway"]}"#,
    ),
    ("extra_hosts: {a: [10.0.0.1, 10.0.0.2]}", r#""extra_hosts":{"a":["10.0.0.1","10.0.0.2"]}"#),
    ("hostname: a.b\ndomainname: c.d", r#""hostname":"a.b","domainname":"c.d""#),
    (
        "dns: 9.9.9.9\ndns_search: [a.b]\ndns_opt: [\"ndots:2\"]",
        r#""dns":["9.9.9.9"],"dns_search":["a.b"],"dns_opt":["ndots:2"]"#,
    ),
    (
        "expose: [80, 8000-8001/udp]",
        r#""expose":[{"port":80,"protocol":"tcp"},{"port":8000,"protocol":"udp"},{"port":8001,"protocol":"udp"}]"#,
    ),
    ("platform: linux/arm64\npull_policy: if_not_present", r#""platform":"linux/arm64","pull_policy":"missing""#),
    ("shm_size: 1gb", r#""shm_size_bytes":1073741824"#),
    ("userns_mode: host\nuts: host", r#""userns_mode":"host","uts":"host""#),
    (
        "mem_limit: 1g\nmem_reservation: 512m\nmemswap_limit: -1\nmem_swappiness: 10\noom_score_adj: 500",
        r#""mem_reservation_bytes":536870912,"memswap_limit_bytes":-1,"mem_swappiness":10,"oom_score_adj":500"#,
    ),
    ("cpu_shares: 512\ncpuset: 0-1", r#""cpu_shares":512,"cpuset":"0-1""#),
    ("group_add: [audio, 1001]", r#""group_add":["audio","1001"]"#),
    ("stdin_open: true\ntty: true", r#""stdin_open":true,"tty":true"#),
    ("device_cgroup_rules: [\"c 1:3 mr\"]", r#""device_cgroup_rules":["c 1:3 mr"]"#),
    ("annotations: {com.example.a: b}", r#""annotations":{"com.example.a":"b"}"#),
    ("container_name: shop-web", r#""networks":{"default":["shop-web"]}"#),
    (
        "deploy: {resources: {limits: {cpus: '0.5', memory: 64M, pids: 10}, reservations: {memory: 16M}}, replicas: 1}",
        r#""mem_limit_bytes":67108864,"cpus_milli":500,"pids_limit":10,"mem_reservation_bytes":16777216"#,
    ),
    (
        "deploy: {restart_policy: {condition: on-failure, max_attempts: 3, delay: 5s}}",
        r#""restart":{"on_failure":{"max_attempts":3}}"#,
    ),
    ("deploy: {restart_policy: {condition: any}}", r#""restart":"always""#),
    ("healthcheck: {interval: 5s, start_interval: 1s}", r#"{"test":"inherit","interval_ms":5000}"#),
    ("networks: {default: {aliases: [www]}}", r#""networks":{"default":["www"]}"#),
    ("user: ~", r#""image":"nginx","restart""#),
];

#[test]
fn values_of_one_service() {
    VALUES.iter().for_each(|(keys, expected)| check_service(keys, expected));
}

/// Keys of a service that are refused, and what is said.
const WRONG_VALUES: &[(&str, &str)] = &[
    ("comand: x", "compose.yaml:4:5: services.web.comand: a service has no key `comand` (did you mean `command`?)"),
    ("biuld: .", "services.web.biuld: a service has no key `biuld` (`build`, if that is meant, is not supported here"),
    ("build: .", "services.web.build: the key `build` is not supported here"),
    ("env_file: .env", "services.web.env_file: `.env` is not there"),
    ("zzz: 1", "a service has no key `zzz` (known here: image, command,"),
    ("ports: [\"80:80:80\"]", "services.web.ports[0]: `80:80:80` is refused: the address"),
    ("ports: [{published: 80}]", "services.web.ports[0]: the port has no `target`"),
    ("ports: [{target: 80, published: 80-81}]", "`published` is a range"),
    (
        "ports: [\"127.0.0.1:80:80\", \"80:81\"]",
        "ports[1]: port 80 of the host is taken already, by services.web.ports[0]",
    ),
    ("volumes: [\"../html:/srv\"]", "services.web.volumes[0]: `../html:/srv` leaves the app's folder"),
    ("volumes: [\"./a/../../html:/srv\"]", "leaves the app's folder"),
    ("volumes: [\"/a/../b:/x\"]", "a path of the host has no `..`"),
    ("volumes: [\"/a:/x:ro,shiny\"]", "after the second colon stands ro or rw"),
    ("volumes: [\"C:\\\\x:/x\"]", "volumes[0]"),
    ("volumes: [{type: bind, target: /x}]", "services.web.volumes[0]: the bind has no `source`"),
    ("volumes: [{type: bind, source: /a, target: /x, bind: {selinux: z}}]", "the key `selinux` is not supported here"),
    ("volumes: [{type: bind, source: /a, target: /x, bind: {propagation: up}}]", "write rprivate"),
    ("tmpfs: /run:exec", "the options known are"),
    ("tmpfs: [/run]\nvolumes: [\"x:/run\"]", "have the same target"),
    ("deploy: {replicas: 2}", "services.web.deploy.replicas: `2` is refused: the number is 1"),
    ("scale: 0", "the number is 1"),
    ("deploy: {mode: replicated-job}", "write replicated or global"),
    ("deploy: {resources: {reservations: {devices: []}}}", "the key `devices` is not supported here"),
    ("mem_limit: 1g\ndeploy: {resources: {limits: {memory: 2g}}}", "`mem_limit` of the service says something else"),
    ("deploy: {restart_policy: {condition: sometimes}}", "the condition is none, on-failure or any"),
    ("configs: [site]", "no config is called `site`"),
    ("secrets: [{target: x}]", "it has no `source`"),
    ("ulimits: {nofiles: 1}", "did you mean `nofile`?"),
    ("ulimits: {nofile: {soft: 2, hard: 1}}", "the soft limit is above the hard one"),
    ("sysctls: {net.core.somaxconn: }", "the kernel parameter has no value"),
    ("extra_hosts: [\"db\"]", "a host is written name=address"),
    ("dns: resolver", "a resolver is an IP address"),
    ("hostname: -x", "a host name has letters"),
    ("pull_policy: daily", "write always, missing"),
    ("pull_policy: build", "images are not built here"),
    ("platform: linux", "a platform is written os/architecture"),
    ("expose: [\"80:80\"]", "one of the container alone"),
    ("uts: container:x", "the only value is host"),
    ("security_opt: [\"seccomp:./p.json\"]", "profiles of your own are not sent along"),
    ("device_cgroup_rules: [x]", "a device rule is written"),
    ("links: [nobody]", "no service is called `nobody`"),
    ("stop_grace_period: 11m", "a host waits for 10 minutes at most"),
    ("env_file: ~/x.env", "`~` is another folder for everybody"),
    ("env_file: /etc/passwd", "lies outside of the folder of the first Compose file"),
    ("env_file: [{required: false}]", "`env_file` has no `path`"),
    ("extends: nobody", "the service it extends is not in that file"),
    ("extends: web", "services extend each other in a circle: web → web"),
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
    ("labels: {io.serverflow.app: x}", "services.web.labels[io.serverflow.app]: labels beginning with io.serverflow."),
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
    ("healthcheck: {test: x, disable: true}", "remove one of them"),
    ("network_mode: bridge", "write host, none, service:NAME or container:NAME"),
    ("network_mode: service:db", "no service is called `db`"),
    ("network_mode: service:web", "in a circle: web → web"),
    ("network_mode: host\nnetworks: [a]", "exclude each other"),
    ("network_mode: host\nports: [80]", "cannot be published"),
    ("networks: [front]", "no network is called `front`"),
    ("networks: {default: {ipv4_address: 1.2.3.4}}", "not supported here"),
    ("depends_on: [wbe]", "no service is called `wbe` (did you mean `web`?)"),
    ("depends_on: {web: {}}", "the dependency has no `condition`"),
    ("depends_on: {web: {condition: ready}}", "`ready` is refused"),
    ("cap_add: [NET_ADMIN, CAP_NET_ADMIN]", "in the list twice"),
    ("image: postgres", "the key `image` is given twice; the first is on line 3"),
    ("user: \"a\\0b\"", "the text has a NUL character"),
    ("init: !custom x", "the tag `!custom` is not understood"),
    ("user: $", "the `$` at character 1"),
    ("user: ${WHO:?say who}", "services.web.user: the variable WHO must be set: say who"),
];

#[test]
fn wrong_values_of_one_service() {
    for &(keys, expected) in WRONG_VALUES {
        check_refused(&service(keys), expected);
    }
}

/// Files that are refused, and what is said.
const WRONG_FILES: &[(&str, &str)] = &[
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
    ("services: {a: {image: a}}\nmodels: {}", "the key `models` is not supported here"),
    ("services: {a: {image: a}}\n---\nservices: {}", "a second YAML document begins here"),
    ("services:\n\tweb: {}", "a line here is indented with a tab"),
    ("services: {a: {image: a}", "not valid YAML"),
    ("services: {a: {image: *nobody}}", "unknown anchor"),
    ("services: &all {a: *all}", "the alias refers to something that contains it"),
    ("services: {a: {image: a, <<: text}}", "`<<` takes a mapping"),
    ("services: {? [a] : {image: a}}", "a key must be a plain text"),
    ("services: {a: {image: a}}\nvolumes: {v: {external: true, labels: {a: b}}}", "an external volume has no settings"),
    ("services: {a: {image: a}}\nvolumes: {v: {external: true, name: a b}}", "the engine's names have letters"),
    ("services: {a: {image: a}}\nsecrets: {s: {external: true}}", "an external secret, which a swarm keeps"),
    ("services: {a: {image: a}}\nsecrets: {s: {content: x}}", "a secret does not stand in the Compose file itself"),
    ("services: {a: {image: a}}\nsecrets: {s: {}}", "the secret has no content"),
    ("services: {a: {image: a}}\nconfigs: {s: {content: x, file: y}}", "from more than one place"),
    ("services: {a: {image: a, configs: [c]}}\nconfigs: {c: {environment: GONE}}", "the variable `GONE` is not set"),
    ("services: {a: {image: a, secrets: [c]}}\nsecrets: {c: {file: ../x}}", "lies outside of the folder"),
    ("include: [other.yaml]\nservices: {a: {image: a}}", "include[0]: `other.yaml` is not there"),
    ("include: [https://example.org/x]\nservices: {a: {image: a}}", "it is an address"),
    ("services: {a: {image: a, profiles: [p]}}", "every service is left out"),
    ("services: {a: {image: a, depends_on: [b]}, b: {image: b, profiles: [p]}}", "the service it needs is left out"),
    ("services: {a: {image: a}}\nvolumes: {v: {driver: nfs}}", "only the driver local"),
    ("services: {a: {image: a}}\nvolumes: {v: {name: x}}", "a volume of the app has no name of its own"),
    ("services: {a: {image: a}}\nnetworks: {n: {driver: overlay}}", "only the driver bridge"),
    (
        "services: {a: {image: a}}\nnetworks: {n: {external: true, internal: true}}",
        "an external network has no settings",
    ),
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
];

#[test]
fn wrong_files_as_a_whole() {
    for &(yaml, expected) in WRONG_FILES {
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
        let files = BTreeMap::from([("c".to_owned(), Some(yaml.as_bytes()))]);
        let bundle = Bundle { files, order: vec!["c".to_owned()], complete: true };
        let options = Options {
            variables: &variables,
            app_name: option.map(|name| name.parse().unwrap()),
            fallback_name: folder,
            profiles: &[],
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
