//! The engine itself: who it is, and how its absence is told.

use std::os::unix::{fs::symlink, net::UnixListener};

use crate::support::{Agent, docker, refused};
use actions::effect::{Effect, EffectErrorKind, Observation};

#[tokio::test]
async fn the_engine_says_who_it_is() {
    let agent = Agent::new();
    let found = agent.engine.check().await.expect("the engine runs");
    assert_eq!(found.version, docker(&["version", "--format", "{{.Server.Version}}"]));
    assert_eq!(found.storage_driver, docker(&["info", "--format", "{{.Driver}}"]));
    assert_eq!(found.root.display().to_string(), docker(&["info", "--format", "{{.DockerRootDir}}"]));
    let cgroup = docker(&["info", "--format", "{{.CgroupVersion}} ({{.CgroupDriver}})"]);
    assert_eq!(found.cgroup, cgroup);
    assert!(found.api_version.starts_with("1."), "{found:?}");
}

#[tokio::test]
async fn facts_name_host_and_engine() {
    let agent = Agent::new();
    let Ok(Observation::Json(facts)) = agent.perform(Effect::HostFacts).await else { panic!("no facts") };
    assert_eq!(facts["docker"]["version"], docker(&["version", "--format", "{{.Server.Version}}"]));
    assert_eq!(facts["kernel"], docker(&["info", "--format", "{{.KernelVersion}}"]));
    assert_eq!(facts["cpus"].to_string(), docker(&["info", "--format", "{{.NCPU}}"]));
    assert_eq!(facts["memory_bytes"].to_string(), docker(&["info", "--format", "{{.MemTotal}}"]));
}

#[tokio::test]
async fn an_engine_may_be_down_at_start_and_come_back() {
    let dir = tempfile::tempdir().expect("a directory");
    let socket = dir.path().join("docker.sock");
    let agent = Agent::with_socket(Some(socket.clone()));
    let shown = socket.display().to_string();
    let observe = || agent.perform(Effect::ContainersList);
    refused(observe().await, EffectErrorKind::EngineUnreachable, &[&shown, "does not exist", "systemctl start docker"]);

    // A socket that its listener left behind.
    drop(UnixListener::bind(&socket).expect("a socket"));
    refused(observe().await, EffectErrorKind::EngineUnreachable, &[&shown, "nothing listens there"]);
    let Ok(Observation::Json(facts)) = agent.perform(Effect::HostFacts).await else { panic!("no facts") };
    assert!(facts["docker"]["error"].as_str().is_some_and(|error| error.contains(&shown)), "{facts}");
    assert!(facts["kernel"].is_string(), "{facts}");

    for _ in 0..2 {
        std::fs::remove_file(&socket).expect("removed");
        symlink("/var/run/docker.sock", &socket).expect("linked");
        observe().await.expect("the engine is back");
        std::fs::remove_file(&socket).expect("removed");
        refused(observe().await, EffectErrorKind::EngineUnreachable, &[&shown]);
        drop(UnixListener::bind(&socket).expect("a socket"));
    }
}
