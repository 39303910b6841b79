//! Every effect against a real engine: done, done again, and refused where it must be.

use std::{collections::BTreeMap, time::Instant};

use crate::support::{Agent, docker, environment, image, probe, refused, secret};
use actions::{
    effect::{
        AppState, ContainerMount, ContainerSpec, Effect, EffectErrorKind, Health, ImageState, Observation, RunState,
        label,
    },
    spec::{PortProtocol, PortSpec, RestartPolicy},
};
use serde_json::Value;

fn network(agent: &Agent, what: &str, internal: bool) -> Effect {
    let labels = BTreeMap::from([("team".to_owned(), "a".to_owned())]);
    Effect::NetworkCreate {
        app: agent.app.clone(),
        name: agent.name(what),
        file_name: what.to_owned(),
        internal,
        labels,
    }
}

fn volume(agent: &Agent, what: &str) -> Effect {
    let (driver_opts, labels) = (BTreeMap::new(), BTreeMap::new());
    Effect::VolumeCreate {
        app: agent.app.clone(),
        name: agent.name(what),
        file_name: what.to_owned(),
        driver_opts,
        labels,
    }
}

fn port(host_port: Option<u16>) -> PortSpec {
    PortSpec { host_ip: [127, 0, 0, 1].into(), host_port, container_port: 8080, protocol: PortProtocol::Tcp }
}

fn inspected(kind: &str, name: &str) -> Value {
    let text = docker(&[kind, "inspect", name]);
    serde_json::from_str::<Value>(&text).expect("docker prints JSON")[0].take()
}

async fn observe(agent: &Agent) -> AppState {
    match agent.perform(Effect::AppObserve { app: agent.app.clone() }).await {
        Ok(Observation::App(state)) => state,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn networks_and_volumes_are_made_once_and_marked() {
    let agent = Agent::new();
    for _ in 0..2 {
        agent.done(network(&agent, "default", false)).await;
        agent.done(volume(&agent, "data")).await;
    }
    let found = inspected("network", &agent.name("default"));
    assert_eq!(found["Labels"][label::FLEET], agent.fleet.to_string());
    assert_eq!(found["Labels"][label::NAME], "default");
    assert_eq!(found["Labels"]["team"], "a");
    assert_eq!(inspected("volume", &agent.name("data"))["Labels"][label::APP], agent.app.as_str());

    let state = observe(&agent).await;
    assert_eq!((state.networks, state.volumes), (vec![agent.name("default")], vec![agent.name("data")]));

    let other = agent.perform(network(&agent, "default", true)).await;
    refused(other, EffectErrorKind::Conflict, &["internal=false", "another name"]);
    let mut opts = volume(&agent, "data");
    if let Effect::VolumeCreate { driver_opts, .. } = &mut opts {
        driver_opts.insert("type".to_owned(), "tmpfs".to_owned());
    }
    refused(agent.perform(opts).await, EffectErrorKind::Conflict, &["other driver options", "data was left"]);

    for _ in 0..2 {
        agent.done(Effect::NetworkRemove { name: agent.name("default") }).await;
    }
    assert_eq!(observe(&agent).await.networks, Vec::<String>::new());
}

#[tokio::test]
async fn a_container_is_made_as_specified_and_only_once() {
    let agent = Agent::new();
    for what in ["back", "front"] {
        agent.done(network(&agent, what, false)).await;
    }
    agent.done(volume(&agent, "data")).await;
    let spec = ContainerSpec {
        command: Some(vec![secret("serve")]),
        environment: environment(&[("GREETING", "a=b"), ("PORT", "8080")]),
        ports: vec![port(None)],
        mounts: vec![
            ContainerMount::Volume { volume: agent.name("data"), target: "/data".to_owned(), read_only: true },
            ContainerMount::Tmpfs { target: "/tmp".to_owned(), size_bytes: Some(1 << 20), mode: Some(0o1777) },
        ],
        restart: RestartPolicy::OnFailure { max_attempts: Some(4) },
        labels: environment(&[("team", "a"), (label::HOST, "forged")]),
        user: Some(secret("1000:1000")),
        working_dir: Some(secret("/data")),
        networks: BTreeMap::from([
            (agent.name("back"), vec!["web".to_owned()]),
            (agent.name("front"), vec!["web".to_owned(), "www".to_owned()]),
        ]),
        log_options: environment(&[("max-size", "10m"), ("max-file", "3")]),
        stop_signal: Some("SIGINT".to_owned()),
        stop_grace_period_ms: Some(2_500),
        mem_limit_bytes: Some(64 << 20),
        cpus_milli: Some(250),
        init: Some(false),
        ..agent.spec("web")
    };
    for _ in 0..2 {
        agent.done(Effect::ContainerCreate(Box::new(spec.clone()))).await;
    }
    let found = inspected("container", &spec.name);
    let (config, host) = (&found["Config"], &found["HostConfig"]);
    assert_eq!(config["Labels"][label::HOST], "01010101-0101-0101-0101-010101010101");
    assert_eq!(config["Labels"]["team"], "a");
    assert_eq!(config["Cmd"], serde_json::json!(["serve"]));
    assert_eq!(config["Entrypoint"], serde_json::json!(["/sample"]));
    assert!(config["Env"].as_array().is_some_and(|env| env.contains(&"GREETING=a=b".into())), "{}", config["Env"]);
    assert_eq!(config["Healthcheck"]["Interval"], 200_000_000);
    assert_eq!((&config["User"], &config["WorkingDir"]), (&"1000:1000".into(), &"/data".into()));
    assert_eq!((&config["StopSignal"], &config["StopTimeout"]), (&"SIGINT".into(), &3.into()));
    assert_eq!((&host["Memory"], &host["NanoCpus"]), (&(64 << 20).into(), &250_000_000.into()));
    assert_eq!(host["RestartPolicy"], serde_json::json!({"Name": "on-failure", "MaximumRetryCount": 4}));
    assert_eq!(host["LogConfig"]["Config"], serde_json::json!({"max-size": "10m", "max-file": "3"}));
    assert_eq!(host["SecurityOpt"], serde_json::json!(["no-new-privileges"]));
    assert_eq!((&host["ReadonlyRootfs"], &host["Privileged"]), (&true.into(), &false.into()));
    let aliases = |network: &str| found["NetworkSettings"]["Networks"][agent.name(network)]["Aliases"].to_string();
    assert!(aliases("back").contains("web") && aliases("front").contains("www"), "{found}");

    agent.done(Effect::ContainerStart { name: spec.name.clone() }).await;
    let up = agent.wait(&spec.name, |state| state.health == Health::Healthy).await;
    assert_eq!(up.run, RunState::Running);
    let mounts = docker(&["inspect", "-f", "{{json .HostConfig.Mounts}}", &spec.name]);
    assert!(mounts.contains("\"SizeBytes\":1048576") && mounts.contains("\"Mode\":1023"), "{mounts}");

    let changed = ContainerSpec { config: "c2".to_owned(), ..spec.clone() };
    let changed = agent.perform(Effect::ContainerCreate(Box::new(changed))).await;
    refused(changed, EffectErrorKind::Conflict, &[&spec.name, "another configuration", "r1"]);
    let in_use = agent.perform(Effect::NetworkRemove { name: agent.name("front") }).await;
    refused(in_use, EffectErrorKind::Conflict, &[&spec.name, "still use it"]);
}

#[tokio::test]
async fn a_creation_cut_in_the_middle_is_completed() {
    let agent = Agent::new();
    for what in ["a", "b"] {
        agent.done(network(&agent, what, false)).await;
    }
    let networks = BTreeMap::from([(agent.name("a"), Vec::new()), (agent.name("b"), vec!["alias".to_owned()])]);
    let spec = ContainerSpec { networks, ..agent.spec("web") };
    agent.done(Effect::ContainerCreate(Box::new(spec.clone()))).await;
    docker(&["network", "disconnect", &agent.name("b"), &spec.name]);
    agent.done(Effect::ContainerCreate(Box::new(spec.clone()))).await;
    let found = inspected("container", &spec.name);
    let aliases = found["NetworkSettings"]["Networks"][agent.name("b")]["Aliases"].to_string();
    assert!(aliases.contains("alias"), "{found}");
}

#[tokio::test]
async fn start_stop_and_remove_may_be_repeated_and_rename_is_strict() {
    let agent = Agent::new();
    let spec = agent.spec("web");
    let (name, renamed) = (spec.name.clone(), agent.name("old"));
    agent.done(Effect::ContainerCreate(Box::new(spec.clone()))).await;
    let made = agent.inspect(&name).await.expect("made");
    assert_eq!((made.run, made.started_at.as_str(), made.health), (RunState::Created, "", Health::None));
    agent.done(Effect::ContainerStop { name: name.clone(), grace_ms: 1000 }).await;
    for _ in 0..2 {
        agent.done(Effect::ContainerStart { name: name.clone() }).await;
    }
    let up = agent.wait(&name, |state| state.health == Health::Healthy).await;
    assert!(up.started_at.starts_with("20") && up.restart_count == 0 && up.error.is_empty(), "{up:?}");
    assert_eq!((up.service.as_str(), up.release.as_str(), up.config.as_str()), ("web", "r1", "c1"));
    assert_eq!(up.image, image());

    let rename = Effect::ContainerRename { from: name.clone(), to: renamed.clone() };
    agent.done(rename.clone()).await;
    refused(agent.perform(rename).await, EffectErrorKind::NotFound, &[&name]);
    assert_eq!(agent.inspect(&renamed).await.expect("renamed").id, up.id);
    assert_eq!(agent.inspect(&name).await, None);
    agent.done(Effect::ContainerCreate(Box::new(spec))).await;
    let both = agent.perform(Effect::ContainerRename { from: renamed.clone(), to: name.clone() }).await;
    refused(both, EffectErrorKind::Conflict, &["both exist"]);

    for (restart, word) in [(RestartPolicy::Always, "always"), (RestartPolicy::No, "no")] {
        agent.done(Effect::ContainerRestartPolicy { name: renamed.clone(), restart }).await;
        assert_eq!(docker(&["inspect", "--format", "{{.HostConfig.RestartPolicy.Name}}", &renamed]), word);
    }
    assert_eq!(agent.inspect(&renamed).await.expect("untouched otherwise").started_at, up.started_at);

    let began = Instant::now();
    for _ in 0..2 {
        agent.done(Effect::ContainerStop { name: renamed.clone(), grace_ms: 8_000 }).await;
    }
    assert!(began.elapsed().as_secs() < 7, "the sample app ends by itself when asked to");
    assert_eq!(agent.inspect(&renamed).await.expect("stopped").run, RunState::Exited { code: 0 });
    for _ in 0..2 {
        agent.done(Effect::ContainerRemove { name: renamed.clone() }).await;
    }
    agent.done(Effect::ContainerStop { name: renamed.clone(), grace_ms: 1000 }).await;
    let gone = agent.perform(Effect::ContainerStart { name: renamed.clone() }).await;
    refused(gone, EffectErrorKind::NotFound, &[&renamed]);
    let gone = agent.perform(Effect::ContainerRename { from: renamed.clone(), to: agent.name("new") }).await;
    refused(gone, EffectErrorKind::NotFound, &[&renamed]);
    let gone = agent.perform(Effect::ContainerLogs { name: renamed.clone(), tail: 5 }).await;
    refused(gone, EffectErrorKind::NotFound, &[&renamed]);
}

#[tokio::test]
async fn what_another_host_or_person_made_is_left_alone() {
    let agent = Agent::new();
    let other = agent.other_host();
    let theirs = agent.spec("theirs");
    let name = theirs.name.clone();
    let label = format!("{}={}", label::FLEET, agent.fleet);
    other.perform(Effect::ContainerCreate(Box::new(theirs.clone())), &mut |_| ()).await.expect("made");
    other.perform(Effect::ContainerStart { name: name.clone() }, &mut |_| ()).await.expect("started");
    let plain = agent.name("plain");
    docker(&["create", "--label", &label, "--name", &plain, image()]);
    docker(&["network", "create", "--label", &label, &agent.name("net")]);
    docker(&["volume", "create", "--label", &label, &agent.name("vol")]);
    let before =
        (inspected("container", &name)["State"]["StartedAt"].clone(), inspected("container", &plain)["Id"].clone());

    for name in [&name, &plain] {
        let create = ContainerSpec { name: name.clone(), ..agent.spec("theirs") };
        for effect in [
            Effect::ContainerCreate(Box::new(create)),
            Effect::ContainerStart { name: name.clone() },
            Effect::ContainerStop { name: name.clone(), grace_ms: 0 },
            Effect::ContainerRename { from: name.clone(), to: agent.name("mine") },
            Effect::ContainerRestartPolicy { name: name.clone(), restart: RestartPolicy::Always },
            Effect::ContainerRemove { name: name.clone() },
            Effect::ContainerLogs { name: name.clone(), tail: 5 },
        ] {
            refused(agent.perform(effect).await, EffectErrorKind::Conflict, &[name, "left untouched"]);
        }
        assert_eq!(agent.inspect(name).await, None);
    }
    let rename_over = agent.spec("mine");
    agent.done(Effect::ContainerCreate(Box::new(rename_over.clone()))).await;
    let onto = agent.perform(Effect::ContainerRename { from: rename_over.name, to: plain.clone() }).await;
    refused(onto, EffectErrorKind::Conflict, &[&plain, "left untouched"]);

    refused(agent.perform(network(&agent, "net", false)).await, EffectErrorKind::Conflict, &["left untouched"]);
    refused(agent.perform(volume(&agent, "vol")).await, EffectErrorKind::Conflict, &["left untouched"]);
    let remove = agent.perform(Effect::NetworkRemove { name: agent.name("net") }).await;
    refused(remove, EffectErrorKind::Conflict, &["left untouched"]);
    let mounts = vec![ContainerMount::Volume { volume: agent.name("vol"), target: "/v".to_owned(), read_only: false }];
    let mounting = ContainerSpec { mounts, ..agent.spec("web") };
    let mounting = agent.perform(Effect::ContainerCreate(Box::new(mounting))).await;
    refused(mounting, EffectErrorKind::Conflict, &["volume", "left untouched"]);
    let joining = ContainerSpec { networks: BTreeMap::from([(agent.name("net"), Vec::new())]), ..agent.spec("web") };
    let joining = agent.perform(Effect::ContainerCreate(Box::new(joining))).await;
    refused(joining, EffectErrorKind::Conflict, &["network", "left untouched"]);

    let after =
        (inspected("container", &name)["State"]["StartedAt"].clone(), inspected("container", &plain)["Id"].clone());
    assert_eq!(before, after);
    let seen: Vec<String> = observe(&agent).await.containers.into_iter().map(|container| container.name).collect();
    assert_eq!(seen, [agent.name("mine")]);
}

#[tokio::test]
async fn an_absent_volume_or_network_is_not_made_in_passing() {
    let agent = Agent::new();
    let mounts = vec![ContainerMount::Volume { volume: agent.name("nix"), target: "/v".to_owned(), read_only: false }];
    let result = agent.perform(Effect::ContainerCreate(Box::new(ContainerSpec { mounts, ..agent.spec("web") }))).await;
    refused(result, EffectErrorKind::NotFound, &["Volume", &agent.name("nix")]);
    let networks = BTreeMap::from([(agent.name("nix"), Vec::new())]);
    let result =
        agent.perform(Effect::ContainerCreate(Box::new(ContainerSpec { networks, ..agent.spec("web") }))).await;
    refused(result, EffectErrorKind::NotFound, &["Network", &agent.name("nix")]);
    assert_eq!(observe(&agent).await, AppState::default());
}

#[tokio::test]
async fn a_taken_port_is_named() {
    let agent = Agent::new();
    let first = agent.create_and_start(ContainerSpec { ports: vec![port(None)], ..agent.spec("first") }).await;
    let taken = docker(&["port", &first, "8080/tcp"]);
    let number = taken.rsplit(':').next().and_then(|text| text.parse().ok()).expect("a port");
    let second = ContainerSpec { ports: vec![port(Some(number))], ..agent.spec("second") };
    let name = second.name.clone();
    agent.done(Effect::ContainerCreate(Box::new(second))).await;
    let result = agent.perform(Effect::ContainerStart { name: name.clone() }).await;
    refused(result, EffectErrorKind::Conflict, &[&name, &format!("127.0.0.1:{number} is already taken"), "publish"]);
    assert_ne!(agent.inspect(&name).await.expect("made").run, RunState::Running);

    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let number = listener.local_addr().expect("bound").port();
    let third = ContainerSpec { ports: vec![port(Some(number))], ..agent.spec("third") };
    let name = third.name.clone();
    agent.done(Effect::ContainerCreate(Box::new(third))).await;
    let result = agent.perform(Effect::ContainerStart { name }).await;
    refused(result, EffectErrorKind::Conflict, &[&format!("127.0.0.1:{number} is already taken")]);
}

#[tokio::test]
async fn health_and_restarts_are_seen_as_they_happen() {
    let agent = Agent::new();
    let slow = ContainerSpec { environment: environment(&[("FAIL", "slow-health:1500")]), ..agent.spec("slow") };
    let slow = ContainerSpec {
        healthcheck: slow.healthcheck.map(|mut check| {
            check.timing.retries = Some(100);
            check
        }),
        ..slow
    };
    let slow = agent.create_and_start(slow).await;
    assert_eq!(agent.inspect(&slow).await.expect("up").health, Health::Starting);
    agent.wait(&slow, |state| state.health == Health::Healthy).await;

    let sick = ContainerSpec { environment: environment(&[("FAIL", "unhealthy")]), ..agent.spec("sick") };
    let sick = agent.create_and_start(sick).await;
    let seen = agent.wait(&sick, |state| state.health == Health::Unhealthy).await;
    assert_eq!(seen.run, RunState::Running);

    let none = ContainerSpec { healthcheck: Some(probe(&["NONE"])), ..agent.spec("none") };
    let none = agent.create_and_start(none).await;
    assert_eq!(agent.inspect(&none).await.expect("up").health, Health::None);

    let environment = environment(&[("FAIL", "exit:3")]);
    let restart = RestartPolicy::OnFailure { max_attempts: Some(2) };
    let crashing = agent.create_and_start(ContainerSpec { environment, restart, ..agent.spec("crash") }).await;
    let seen =
        agent.wait(&crashing, |state| state.run == RunState::Exited { code: 3 } && state.restart_count == 2).await;
    assert!(!seen.oom_killed, "{seen:?}");
}

#[tokio::test]
async fn logs_hold_both_streams_in_order() {
    let agent = Agent::new();
    let environment = environment(&[("FAIL", "crash-after:100")]);
    let name = agent.create_and_start(ContainerSpec { environment, ..agent.spec("web") }).await;
    agent.wait(&name, |state| state.run == RunState::Exited { code: 1 }).await;
    let both = "sample: listening on port 8080\nsample: crashing, as FAIL says\n";
    assert_eq!(agent.logs(&name, 100).await, both);
    assert_eq!(agent.logs(&name, 1).await, "sample: crashing, as FAIL says\n");
    assert_eq!(agent.logs(&name, 0).await, "");

    let silent = ContainerSpec { log_driver: "none".to_owned(), ..agent.spec("silent") };
    let name = agent.create_and_start(silent).await;
    let result = agent.perform(Effect::ContainerLogs { name: name.clone(), tail: 5 }).await;
    refused(result, EffectErrorKind::Refused, &[&name, "log driver"]);
}

#[tokio::test]
async fn a_program_that_is_not_in_the_image_is_explained() {
    let agent = Agent::new();
    let spec = ContainerSpec { entrypoint: Some(vec![secret("/nothing")]), ..agent.spec("web") };
    let name = spec.name.clone();
    agent.done(Effect::ContainerCreate(Box::new(spec))).await;
    let result = agent.perform(Effect::ContainerStart { name: name.clone() }).await;
    refused(result, EffectErrorKind::Refused, &[&name, "Check command, entrypoint", "/nothing"]);
    let state = agent.inspect(&name).await.expect("made");
    assert!(state.error.contains("/nothing"), "{state:?}");
}

#[tokio::test]
async fn images_are_read_tagged_and_untagged() {
    let agent = Agent::new();
    let inspect = async |image: String| match agent.perform(Effect::ImageInspect { image }).await {
        Ok(Observation::Image(state)) => state,
        other => panic!("{other:?}"),
    };
    let found: ImageState = inspect(image().to_owned()).await.expect("built");
    assert!(found.id.starts_with("sha256:") && found.has_healthcheck, "{found:?}");
    assert_eq!(found.platform, format!("linux/{}", if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }));
    assert_eq!(found.repo_digests, Vec::<String>::new());

    let (repository, tag) = (agent.name("keep"), "r1".to_owned());
    for _ in 0..2 {
        agent
            .done(Effect::ImageTag { image: found.id.clone(), repository: repository.clone(), tag: tag.clone() })
            .await;
    }
    assert_eq!(inspect(format!("{repository}:{tag}")).await.map(|image| image.id), Some(found.id.clone()));
    for _ in 0..2 {
        agent.done(Effect::ImageUntag { repository: repository.clone(), tag: tag.clone() }).await;
    }
    assert_eq!(inspect(format!("{repository}:{tag}")).await, None);
    assert!(inspect(found.id).await.is_some(), "the image itself stays");

    let result = agent.perform(Effect::ImageTag { image: agent.name("nix"), repository, tag }).await;
    refused(result, EffectErrorKind::ImageNotFound, &[&agent.name("nix")]);
    let absent = ContainerSpec { image: format!("{}:1", agent.name("nix")), ..agent.spec("web") };
    let result = agent.perform(Effect::ContainerCreate(Box::new(absent))).await;
    refused(result, EffectErrorKind::ImageNotFound, &[&agent.name("nix"), "Check its name and tag"]);
}

/// Somebody else's container may be the last user of an image. That must not keep an app from being
/// changed or removed for as long as the container is there.
#[tokio::test]
async fn a_tag_that_a_foreign_container_needs_stays_and_is_no_failure() {
    let agent = Agent::new();
    let (repository, tag) = (agent.name("keep"), "r1".to_owned());
    let (other, name) = (format!("{}:1", agent.name("other")), agent.name("foreign"));
    // An image that nothing else refers to.
    let base = docker(&["create", image()]);
    docker(&["commit", "--change", &format!("LABEL only={name}"), &base, &other]);
    docker(&["rm", &base]);
    let id = docker(&["image", "inspect", "--format", "{{.Id}}", &other]);
    agent.done(Effect::ImageTag { image: id.clone(), repository: repository.clone(), tag: tag.clone() }).await;
    docker(&["create", "--name", &name, &id]);
    docker(&["rmi", &other]);

    let untagged = agent.perform(Effect::ImageUntag { repository: repository.clone(), tag: tag.clone() }).await;
    let still = docker(&["image", "ls", "-q", &format!("{repository}:{tag}")]);
    docker(&["rm", &name]);
    agent.done(Effect::ImageUntag { repository: repository.clone(), tag: tag.clone() }).await;
    assert!(matches!(untagged, Ok(Observation::Done)), "{untagged:?}");
    assert!(!still.is_empty(), "the tag went from under a container that needs it");
    assert!(docker(&["image", "ls", "-q", &format!("{repository}:{tag}")]).is_empty(), "it goes once it can");
}

#[tokio::test]
async fn a_pull_that_cannot_work_says_why() {
    let agent = Agent::new();
    // Port 1 of the host itself: nothing listens there.
    let result =
        agent.perform(Effect::ImagePull { reference: "localhost:1/nothing:1".to_owned(), platform: None }).await;
    refused(result, EffectErrorKind::Refused, &["localhost:1/nothing:1", "registry could not be reached"]);
    let result = agent.perform(Effect::ImagePull { reference: "localhost:1/nothing".to_owned(), platform: None }).await;
    refused(result, EffectErrorKind::Refused, &["neither a tag nor a digest"]);
    let result = agent.perform(Effect::ImagePull { reference: "../containers/x:1".to_owned(), platform: None }).await;
    refused(result, EffectErrorKind::Refused, &["not an image reference"]);
}

#[tokio::test]
async fn the_whole_engine_is_listed_without_secrets() {
    let agent = Agent::new();
    let spec = ContainerSpec {
        environment: environment(&[("TOKEN", "s3cret-env")]),
        labels: environment(&[("note", "s3cret-label")]),
        ports: vec![port(None)],
        ..agent.spec("web")
    };
    let name = agent.create_and_start(spec).await;
    let plain = agent.name("plain");
    let label = format!("{}={}", label::FLEET, agent.fleet);
    docker(&["create", "--label", &label, "--label", "io.serverflow.app=forged", "--name", &plain, image()]);
    let Ok(Observation::Json(Value::Array(rows))) = agent.perform(Effect::ContainersList).await else {
        panic!("not a list");
    };
    let row =
        |name: &str| rows.iter().find(|row| row["name"] == name).unwrap_or_else(|| panic!("{name} is not listed"));
    let ours = row(&name);
    assert_eq!(
        (&ours["ours"], &ours["app"], &ours["service"]),
        (&true.into(), &agent.app.as_str().into(), &"web".into())
    );
    assert_eq!((&ours["state"], &ours["image"]), (&"running".into(), &image().into()));
    assert_eq!(ours["id"].as_str().map(str::len), Some(12));
    let published = docker(&["port", &name, "8080/tcp"]);
    assert_eq!(ours["ports"], serde_json::json!([format!("{published}->8080/tcp")]));
    assert_eq!((&row(&plain)["ours"], &row(&plain)["app"]), (&false.into(), &Value::Null));
    assert!(!Value::Array(rows).to_string().contains("s3cret"));
}
