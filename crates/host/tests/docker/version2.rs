//! What came with version 2 of a specification, against a real engine: every setting read back, files
//! that travel with the order, directories of the host, and things that others made.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::{MetadataExt as _, symlink},
    path::{Path, PathBuf},
};

use actions::{
    effect::{
        ContainerFile, ContainerMount, ContainerRuntime, ContainerSpec, Effect, EffectErrorKind, Foreign, ForeignBind,
        Health, Observation,
    },
    spec::{ExposedPort, PortProtocol, RestartPolicy, UlimitSpec},
};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::support::{Agent, docker, image, refused, secret};

fn inspected(name: &str) -> Value {
    let text = docker(&["container", "inspect", name]);
    serde_json::from_str::<Value>(&text).expect("docker prints JSON")[0].take()
}

fn words(text: &str) -> Vec<String> {
    vec![text.to_owned()]
}

fn pair(key: &str, value: &str) -> BTreeMap<String, String> {
    BTreeMap::from([(key.to_owned(), value.to_owned())])
}

fn network(agent: &Agent, what: &str) -> Effect {
    let (name, file_name) = (agent.name(what), what.to_owned());
    Effect::NetworkCreate { app: agent.app.clone(), name, file_name, internal: false, labels: BTreeMap::new() }
}

fn settings(agent: &Agent) -> ContainerRuntime {
    ContainerRuntime {
        cap_drop: words("ALL"),
        sysctls: pair("net.core.somaxconn", "1024"),
        ulimits: BTreeMap::from([("nofile".to_owned(), UlimitSpec { soft: 512, hard: 1024 })]),
        pids_limit: Some(50),
        extra_hosts: BTreeMap::from([("db".to_owned(), words("10.0.0.1"))]),
        hostname: Some("box".to_owned()),
        domainname: Some("example".to_owned()),
        dns: vec!["10.0.0.53".parse().expect("an address")],
        dns_search: words("example"),
        dns_opt: words("ndots:2"),
        expose: vec![ExposedPort { port: 9000, protocol: PortProtocol::Udp }],
        links: pair("database", &agent.name("db")),
        shm_size_bytes: Some(1 << 20),
        mem_reservation_bytes: Some(8 << 20),
        oom_score_adj: Some(100),
        cpu_shares: Some(512),
        cpuset: Some("0".to_owned()),
        group_add: words("65534"),
        stdin_open: true,
        tty: true,
        device_cgroup_rules: words("c 1:3 r"),
        system_paths_open: true,
        platform: cfg!(target_arch = "x86_64").then(|| "linux/amd64".to_owned()),
        ..ContainerRuntime::default()
    }
}

#[tokio::test]
async fn every_setting_reaches_the_engine() {
    let agent = Agent::new();
    agent.done(network(&agent, "default")).await;
    let runtime = settings(&agent);
    let networks = BTreeMap::from([(agent.name("default"), words("web"))]);
    let spec = ContainerSpec { runtime, networks, mem_limit_bytes: Some(64 << 20), ..agent.spec("web") };
    let name = agent.create_and_start(spec).await;
    agent.wait(&name, |state| state.health == Health::Healthy).await;
    let found = inspected(&name);
    let (config, host) = (&found["Config"], &found["HostConfig"]);
    for (field, wanted) in [
        ("CapDrop", json!(["ALL"])),
        ("Sysctls", json!({ "net.core.somaxconn": "1024" })),
        ("Ulimits", json!([{ "Name": "nofile", "Soft": 512, "Hard": 1024 }])),
        ("PidsLimit", json!(50)),
        ("ExtraHosts", json!(["db:10.0.0.1"])),
        ("Dns", json!(["10.0.0.53"])),
        ("DnsSearch", json!(["example"])),
        ("DnsOptions", json!(["ndots:2"])),
        ("ShmSize", json!(1 << 20)),
        ("MemoryReservation", json!(8 << 20)),
        ("OomScoreAdj", json!(100)),
        ("CpuShares", json!(512)),
        ("CpusetCpus", json!("0")),
        ("GroupAdd", json!(["65534"])),
        ("DeviceCgroupRules", json!(["c 1:3 r"])),
        ("MaskedPaths", json!([])),
        ("ReadonlyPaths", json!([])),
    ] {
        assert_eq!(host[field], wanted, "{field}");
    }
    for (field, wanted) in
        [("Hostname", json!("box")), ("Domainname", json!("example")), ("OpenStdin", json!(true)), ("Tty", json!(true))]
    {
        assert_eq!(config[field], wanted, "{field}");
    }
    assert!(config["ExposedPorts"]["9000/udp"].is_object(), "{config}");
    let links = &found["NetworkSettings"]["Networks"][agent.name("default")]["Links"];
    assert_eq!(*links, json!([format!("{}:database", agent.name("db"))]));
}

/// Made only: not every machine lets a process be killed later than others, and started is what comes after.
#[tokio::test]
async fn settings_of_the_host_reach_the_engine() {
    let agent = Agent::new();
    let runtime = ContainerRuntime {
        userns_mode: Some("host".to_owned()),
        uts: Some("host".to_owned()),
        memswap_limit_bytes: Some(-1),
        pids_limit: Some(-1),
        oom_score_adj: Some(-5),
        ..ContainerRuntime::default()
    };
    let spec = ContainerSpec { runtime, mem_limit_bytes: Some(64 << 20), ..agent.spec("host") };
    let name = spec.name.clone();
    agent.done(Effect::ContainerCreate(Box::new(spec))).await;
    let host = inspected(&name)["HostConfig"].take();
    assert_eq!((&host["UsernsMode"], &host["UTSMode"]), (&json!("host"), &json!("host")));
    assert_eq!((&host["OomScoreAdj"], &host["MemorySwap"]), (&json!(-5), &json!(-1)));

    // An engine that would drop them without a word says so instead; a newer one takes them.
    let runtime = ContainerRuntime { annotations: pair("a", "b"), ..ContainerRuntime::default() };
    let spec = ContainerSpec { runtime, ..agent.spec("notes") };
    match agent.perform(Effect::ContainerCreate(Box::new(spec))).await {
        Ok(_) => assert_eq!(inspected(&agent.name("notes"))["HostConfig"]["Annotations"], json!({ "a": "b" })),
        Err(error) => assert!(error.message.contains("does not know annotations"), "{error}"),
    }
}

/// A container's file system, as its process sees it.
fn inside(name: &str, path: &str) -> PathBuf {
    let pid = docker(&["inspect", "-f", "{{.State.Pid}}", name]);
    PathBuf::from(format!("/proc/{pid}/root{path}"))
}

#[tokio::test]
async fn files_are_in_the_container_and_nowhere_else() {
    let base = tempfile::tempdir().expect("a directory");
    let mut agent = Agent::new();
    agent.engine = agent.engine.with_files(base.path().join("files"));
    let content = "s3cret in a file";
    let file = |target: &str, uid: u32, mode: u32| ContainerFile {
        target: target.to_owned(),
        content: Zeroizing::new(content.as_bytes().to_vec()),
        uid,
        gid: uid,
        mode,
    };
    // A root that is read-only, and a process that is not root (the image's own user).
    let files = vec![file("/run/secrets/key", 65_534, 0o400), file("/etc/app/deep/conf", 0, 0o444)];
    let restart = RestartPolicy::Always;
    let spec =
        ContainerSpec { files: files.clone(), restart, command: Some(vec![secret("serve")]), ..agent.spec("web") };
    let directory = spec.files_directory();
    for _ in 0..2 {
        agent
            .done(Effect::FilesWrite { app: agent.app.clone(), directory: directory.clone(), files: files.clone() })
            .await;
    }
    let name = agent.create_and_start(spec).await;
    agent.wait(&name, |state| state.health == Health::Healthy).await;
    let check = || {
        for (path, uid, mode) in [("/run/secrets/key", 65_534, 0o400), ("/etc/app/deep/conf", 0, 0o444)] {
            let seen = inside(&name, path);
            assert_eq!(fs::read_to_string(&seen).expect("readable"), content);
            let found = fs::metadata(&seen).expect("there");
            assert_eq!((found.uid(), found.gid(), found.mode() & 0o7777), (uid, uid, mode), "{path}");
            let written = fs::write(&seen, "x").expect_err("the mount is read-only, for root as well");
            assert_eq!(written.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
        }
    };
    check();
    // Without the agent: the engine has all it needs.
    docker(&["restart", "-t", "0", &name]);
    agent.wait(&name, |state| state.health == Health::Healthy).await;
    check();
    assert!(!docker(&["inspect", &name]).contains(content), "the configuration names places only");
    let place = base.path().join("files").join(agent.app.as_str());
    assert_eq!(fs::metadata(&place).expect("there").mode() & 0o777, 0o700);

    agent.done(Effect::FilesSweep { app: agent.app.clone(), keep: BTreeSet::from([directory]) }).await;
    check();
    agent.done(Effect::ContainerRemove { name }).await;
    agent.done(Effect::FilesSweep { app: agent.app.clone(), keep: BTreeSet::new() }).await;
    assert!(!place.exists());
}

/// A root of binds with a directory for the agent's app.
struct Roots {
    base: tempfile::TempDir,
}

impl Roots {
    fn new(agent: &Agent) -> Self {
        let base = tempfile::tempdir().expect("a directory");
        fs::create_dir_all(base.path().join(agent.app.as_str()).join("html")).expect("made");
        Self { base }
    }

    fn path(&self, agent: &Agent, below: &str) -> String {
        let root = fs::canonicalize(self.base.path()).expect("a path");
        root.join(agent.app.as_str()).join(below).display().to_string()
    }

    fn foreign(&self, agent: &Agent, source: &str, make: bool) -> Effect {
        let root = fs::canonicalize(self.base.path()).expect("a path");
        Effect::ForeignCheck(Box::new(Foreign {
            app: agent.app.clone(),
            roots: vec![root.display().to_string()],
            docker_socket: false,
            binds: vec![ForeignBind {
                service: "web".to_owned(),
                source: source.to_owned(),
                read_only: false,
                create: make,
            }],
            networks: BTreeSet::new(),
            volumes: BTreeSet::new(),
            containers: BTreeSet::new(),
            make,
        }))
    }
}

fn bind(source: &str) -> ContainerMount {
    ContainerMount::Bind { source: source.to_owned(), target: "/html".to_owned(), read_only: false, propagation: None }
}

#[tokio::test]
async fn a_directory_of_the_host_is_seen_inside() {
    let agent = Agent::new();
    let roots = Roots::new(&agent);
    let source = roots.path(&agent, "fresh/one");
    agent.done(roots.foreign(&agent, &source, true)).await;
    fs::write(Path::new(&source).join("page"), "hello").expect("written");
    let spec = ContainerSpec { mounts: vec![bind(&source)], ..agent.spec("web") };
    let name = agent.create_and_start(spec).await;
    assert_eq!(fs::read_to_string(inside(&name, "/html/page")).expect("readable"), "hello");
    // Again, beside its own container: nothing has changed.
    agent.done(roots.foreign(&agent, &source, false)).await;
    let gone = roots.path(&agent, "gone");
    let spec = ContainerSpec { mounts: vec![bind(&gone)], ..agent.spec("late") };
    let made = agent.perform(Effect::ContainerCreate(Box::new(spec))).await;
    assert!(made.is_err(), "the engine makes no directory by itself");
    assert!(!Path::new(&gone).exists());
}

#[tokio::test]
async fn a_directory_swapped_for_a_link_is_found_before_the_start() {
    let agent = Agent::new();
    let roots = Roots::new(&agent);
    let source = roots.path(&agent, "html");
    agent.done(roots.foreign(&agent, &source, true)).await;
    let spec = ContainerSpec { mounts: vec![bind(&source)], ..agent.spec("web") };
    agent.done(Effect::ContainerCreate(Box::new(spec))).await;
    fs::remove_dir(&source).expect("removed");
    symlink("/etc", &source).expect("swapped");
    let judged = agent.perform(roots.foreign(&agent, &source, false)).await;
    refused(judged, EffectErrorKind::Refused, &["is a symbolic link", &source]);
}

#[tokio::test]
async fn nothing_lies_below_what_another_container_may_write_to() {
    let agent = Agent::new();
    let roots = Roots::new(&agent);
    let (source, above) = (roots.path(&agent, "html"), roots.path(&agent, ""));
    let label = format!("{}={}", actions::effect::label::FLEET, agent.fleet);
    let run = |name: &str, mount: &str| {
        // Of the same fleet only so that it is cleaned up; without the host's label it is a stranger.
        docker(&["create", "--label", &label, "--name", &agent.name(name), "-v", mount, image()]);
    };
    run("writer", &format!("{above}:/all"));
    let judged = agent.perform(roots.foreign(&agent, &source, false)).await;
    refused(judged, EffectErrorKind::Refused, &["it lies below", &agent.name("writer")]);
    docker(&["rm", &agent.name("writer")]);
    run("reader", &format!("{above}:/all:ro"));
    agent.done(roots.foreign(&agent, &source, false)).await;
    // A volume that is a bind in disguise.
    let volume = agent.name("disguise");
    let device = format!("device={above}");
    docker(&[
        "volume",
        "create",
        "--label",
        &label,
        "--opt",
        "type=none",
        "--opt",
        "o=bind",
        "--opt",
        &device,
        &volume,
    ]);
    run("disguised", &format!("{volume}:/all"));
    let judged = agent.perform(roots.foreign(&agent, &source, false)).await;
    refused(judged, EffectErrorKind::Refused, &["it lies below", &agent.name("disguised")]);
}

#[tokio::test]
async fn what_others_made_is_used_and_left() {
    let agent = Agent::new();
    let label = format!("{}={}", actions::effect::label::FLEET, agent.fleet);
    let (network, volume) = (agent.name("proxy"), agent.name("shared"));
    let foreign = |networks: &[&String], volumes: &[&String], containers: &[&str]| {
        Effect::ForeignCheck(Box::new(Foreign {
            app: agent.app.clone(),
            roots: Vec::new(),
            docker_socket: false,
            binds: Vec::new(),
            networks: networks.iter().map(|name| (*name).clone()).collect(),
            volumes: volumes.iter().map(|name| (*name).clone()).collect(),
            containers: containers.iter().map(|name| (*name).to_owned()).collect(),
            make: false,
        }))
    };
    let absent = agent.perform(foreign(&[&network], &[], &[])).await;
    refused(absent, EffectErrorKind::NotFound, &["docker network create", &network]);
    let absent = agent.perform(foreign(&[], &[&volume], &[])).await;
    refused(absent, EffectErrorKind::NotFound, &["docker volume create", &volume]);
    docker(&["network", "create", "--label", &label, &network]);
    docker(&["volume", "create", "--label", &label, &volume]);
    let name = agent.name("web");
    agent.done(foreign(&[&network], &[&volume], &[&name])).await;
    let mounts = vec![ContainerMount::Volume { volume: volume.clone(), target: "/media".to_owned(), read_only: false }];
    let spec =
        ContainerSpec { mounts, networks: BTreeMap::from([(network.clone(), words("web"))]), ..agent.spec("web") };
    let theirs = agent.perform(Effect::ContainerCreate(Box::new(spec.clone()))).await;
    refused(theirs, EffectErrorKind::Conflict, &["did not create"]);
    let runtime = ContainerRuntime {
        external_networks: BTreeSet::from([network.clone()]),
        external_volumes: BTreeSet::from([volume.clone()]),
        ..ContainerRuntime::default()
    };
    agent.create_and_start(ContainerSpec { runtime, ..spec }).await;
    assert!(inspected(&name)["NetworkSettings"]["Networks"][&network].is_object());
    agent.done(Effect::ContainerRemove { name: name.clone() }).await;
    docker(&["network", "inspect", &network]);
    docker(&["volume", "inspect", &volume]);
    // A name that somebody else's container has.
    docker(&["create", "--label", &label, "--name", &name, image()]);
    let taken = agent.perform(foreign(&[], &[], &[&name])).await;
    refused(taken, EffectErrorKind::Conflict, &[&name]);
}

/// `docker commit` puts our labels into an image; what somebody runs from it is not ours.
#[tokio::test]
async fn a_copy_made_by_hand_is_not_ours() {
    let agent = Agent::new();
    let name = agent.create_and_start(agent.spec("web")).await;
    let (copy, tag) = (agent.name("copy"), format!("{}:1", agent.name("image")));
    docker(&["commit", &name, &tag]);
    docker(&["create", "--name", &copy, &tag]);
    assert!(agent.inspect(&copy).await.is_none());
    let removed = agent.perform(Effect::ContainerRemove { name: copy.clone() }).await;
    refused(removed, EffectErrorKind::Conflict, &["did not create"]);
    let state = match agent.perform(Effect::AppObserve { app: agent.app.clone() }).await {
        Ok(Observation::App(state)) => state,
        other => panic!("{other:?}"),
    };
    assert_eq!(state.containers.iter().map(|found| &found.name).collect::<Vec<_>>(), [&name]);
    // One that was renamed by hand still is: its image has no labels of ours.
    let renamed = agent.name("renamed");
    docker(&["rename", &name, &renamed]);
    assert!(agent.inspect(&renamed).await.is_some());
    docker(&["rm", "-f", &copy, &renamed]);
    docker(&["rmi", &tag]);
}
