//! The Docker Engine as the test sees it, past everything of ours: through its API where a test looks again and again,
//! and through the `docker` command for the rest.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use serde_json::Value;

use crate::{
    cli::{Ran, run},
    http,
    program::{Program, signal},
    wait::{wait_until, wait_within},
};

/// The image of the sample app; `deploy/sample/build-image.sh` makes it.
pub const SAMPLE: &str = "serverflow-sample:1";

/// One engine.
#[derive(Clone, Debug, Default)]
pub struct Docker {
    /// Its socket; the machine's usual one when absent.
    socket: Option<PathBuf>,
}

/// What Docker says of one container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    pub id: String,
    pub name: String,
    pub running: bool,
    pub started_at: String,
    /// Its restart policy, as the engine names it.
    pub restart: String,
    /// Its environment, as `NAME=value`.
    environment: Vec<String>,
}

impl Container {
    /// The value of a variable in its environment.
    #[must_use]
    pub fn variable(&self, name: &str) -> Option<String> {
        let of = |it: &String| it.strip_prefix(name)?.strip_prefix('=').map(str::to_owned);
        self.environment.iter().find_map(of)
    }
}

impl Docker {
    /// What `DOCKER_HOST` must be for programs that shall use this engine.
    #[must_use]
    pub fn host(&self) -> Option<String> {
        self.socket.as_ref().map(|socket| format!("unix://{}", socket.display()))
    }

    /// Runs `docker` with these words.
    #[must_use]
    pub fn run(&self, words: &[&str]) -> Ran {
        let mut command = Command::new("docker");
        if let Some(host) = self.host() {
            command.env("DOCKER_HOST", host);
        }
        command.args(words);
        run(command)
    }

    /// What the engine answers to a GET; `None` when it knows no such thing.
    fn asked(&self, path: &str) -> Option<Value> {
        let named = std::env::var("DOCKER_HOST").ok().and_then(|host| host.strip_prefix("unix://").map(PathBuf::from));
        let socket = self.socket.clone().or(named).unwrap_or_else(|| PathBuf::from("/var/run/docker.sock"));
        let answer =
            http::get_over(&socket, path).unwrap_or_else(|| panic!("no engine answers at {}", socket.display()));
        match answer.status {
            200 => Some(serde_json::from_str(&answer.body).expect("JSON")),
            404 => None,
            status => panic!("the engine answers {status} to {path}: {}", answer.body),
        }
    }

    /// The list at `path` of what bears a label of ours with this app.
    fn of_app(&self, path: &str, app: &str) -> Value {
        // {"label":["io.serverflow.app=<app>"]}; the name of an app needs no escape.
        let filters = format!("%7B%22label%22%3A%5B%22io.serverflow.app%3D{app}%22%5D%7D");
        let and = if path.contains('?') { '&' } else { '?' };
        self.asked(&format!("{path}{and}filters={filters}")).expect("a list")
    }

    /// Everything Docker knows of something.
    ///
    /// # Panics
    /// When it is not there.
    #[must_use]
    pub fn inspect(&self, name: &str) -> Value {
        self.run(&["inspect", name]).ok().json()[0].clone()
    }

    /// The containers of one app, by name; also those of no release.
    #[must_use]
    pub fn containers(&self, app: &str) -> Vec<Container> {
        let listed = self.of_app("/containers/json?all=true", app);
        let ids = listed.as_array().into_iter().flatten().filter_map(|it| it["Id"].as_str());
        let mut all: Vec<Container> = ids.filter_map(|id| self.container(id)).collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }

    /// `None` when it is not there (any more).
    #[must_use]
    pub fn container(&self, name: &str) -> Option<Container> {
        let value = self.asked(&format!("/containers/{name}/json"))?;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        Some(Container {
            id: text(&value["Id"]),
            name: text(&value["Name"]).trim_start_matches('/').to_owned(),
            running: value["State"]["Running"].as_bool().unwrap_or_default(),
            started_at: text(&value["State"]["StartedAt"]),
            restart: text(&value["HostConfig"]["RestartPolicy"]["Name"]),
            environment: value["Config"]["Env"].as_array().into_iter().flatten().map(text).collect(),
        })
    }

    /// Names of the containers of one app.
    #[must_use]
    pub fn names(&self, app: &str) -> Vec<String> {
        self.containers(app).into_iter().map(|container| container.name).collect()
    }

    /// The value of a variable in a container's environment.
    #[must_use]
    pub fn variable(&self, container: &str, name: &str) -> Option<String> {
        self.container(container)?.variable(name)
    }

    /// Names of networks or volumes of one app.
    #[must_use]
    pub fn things(&self, kind: &str, app: &str) -> Vec<String> {
        let listed = self.of_app(&format!("/{kind}s"), app);
        // Networks are a list; volumes have one, or null.
        let listed = if kind == "volume" { &listed["Volumes"] } else { &listed };
        let names = listed.as_array().into_iter().flatten().filter_map(|it| it["Name"].as_str());
        let mut all: Vec<String> = names.map(str::to_owned).collect();
        all.sort();
        all
    }

    /// Tags that keep an app's images, as `repository:tag`.
    #[must_use]
    pub fn tags(&self, app: &str) -> Vec<String> {
        let prefix = format!("serverflow/{app}-");
        let listed = self.asked("/images/json").expect("a list");
        let tags =
            listed.as_array().into_iter().flatten().flat_map(|it| it["RepoTags"].as_array().into_iter().flatten());
        let ours = tags.filter_map(Value::as_str).filter(|tag| tag.starts_with(&prefix));
        let mut all: Vec<String> = ours.map(str::to_owned).collect();
        all.sort();
        all
    }

    /// Removes everything that a fleet's hosts made here. What is gone already is fine.
    pub fn clean(&self, fleet: &str, apps: &str) {
        let filter = format!("label=io.serverflow.fleet={fleet}");
        let remove = |list: &[&str], rm: &[&str]| {
            let ids: Vec<String> = self.run(list).stdout.lines().map(str::to_owned).collect();
            if !ids.is_empty() {
                let words: Vec<&str> = rm.iter().copied().chain(ids.iter().map(String::as_str)).collect();
                let _ = self.run(&words);
            }
        };
        remove(&["ps", "--all", "--quiet", "--filter", &filter], &["rm", "--force", "--volumes"]);
        remove(&["network", "ls", "--quiet", "--filter", &filter], &["network", "rm"]);
        remove(&["volume", "ls", "--quiet", "--filter", &filter], &["volume", "rm", "--force"]);
        let reference = format!("reference=serverflow/{apps}-*");
        remove(&["images", "--filter", &reference, "--format", "{{.Repository}}:{{.Tag}}"], &["rmi", "--no-prune"]);
    }
}

/// An engine of this test's own, which it may stop and start. It has no network at all.
pub struct PrivateEngine {
    folder: tempfile::TempDir,
    program: Option<Program>,
    pub docker: Docker,
}

impl PrivateEngine {
    /// Starts one, with the sample image in it.
    ///
    /// # Panics
    /// When it does not come up, or this is not root, who alone may start one.
    #[must_use]
    pub fn start() -> Self {
        let user = run(Command::new("id")).ok().stdout;
        assert!(user.starts_with("uid=0("), "an engine of the test's own can be started by root alone; this is {user}");
        let folder = tempfile::Builder::new().prefix("sf-docker").tempdir().expect("a folder");
        let docker = Docker { socket: Some(folder.path().join("docker.sock")) };
        let mut engine = Self { folder, program: None, docker };
        engine.up();
        let archive = engine.path("sample.tar");
        let archive = archive.to_str().expect("a path in UTF-8");
        Docker::default().run(&["save", "--output", archive, SAMPLE]).ok();
        engine.docker.run(&["load", "--input", archive]).ok();
        engine
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Starts it (again).
    ///
    /// # Panics
    /// When it does not come up.
    pub fn up(&mut self) {
        // In a network namespace of its own: without a bridge, an engine removes the one the machine's engine uses.
        let mut command = Command::new("unshare");
        let host = self.docker.host().expect("invariant: a private engine has a socket");
        command.args(["--net", "dockerd", "--host", &host, "--bridge", "none", "--iptables=false", "--ip-masq=false"]);
        for (flag, name) in [("--data-root", "data"), ("--exec-root", "exec"), ("--pidfile", "pid")] {
            command.arg(flag).arg(self.path(name));
        }
        let mut program = Program::start("dockerd", command, &self.path("log"));
        wait_until("the private engine answers", || {
            assert!(program.is_running(), "the private engine ended:\n{}", program.said());
            self.docker.run(&["info", "--format", "{{.ID}}"]).code == 0
        });
        self.program = Some(program);
    }

    /// Ends it as a power cut would; its containers may run on without it.
    pub fn kill_9(&mut self) {
        if let Some(mut program) = self.program.take() {
            program.kill_9();
        }
        // Its containerd is asked to end by the kernel, and a new engine would wait for it in vain if it still did.
        let pid_file = self.path("exec/containerd/containerd.pid");
        let pid = std::fs::read_to_string(&pid_file).unwrap_or_default();
        if let Ok(pid) = pid.trim().parse::<u32>() {
            signal(pid, "KILL");
            let status = format!("/proc/{pid}/status");
            let is_gone = || std::fs::read_to_string(&status).map_or(true, |text| text.contains("State:\tZ"));
            wait_until("containerd is gone", is_gone);
            // Where nobody takes in orphans it stays a zombie, which a new engine would hold for one that runs.
            let _ = std::fs::remove_file(pid_file);
        }
    }

    /// Stops it in order: its containers end.
    pub fn down(&mut self) {
        if let Some(mut program) = self.program.take() {
            program.terminate();
        }
    }
}

impl Drop for PrivateEngine {
    fn drop(&mut self) {
        let ids = self.docker.run(&["ps", "--all", "--quiet"]).stdout;
        for id in ids.lines() {
            let _ = self.docker.run(&["rm", "--force", id]);
        }
        self.down();
        unmount_below(self.folder.path());
    }
}

/// What dockerd may leave mounted would keep its folder from being removed.
fn unmount_below(folder: &Path) {
    let mounts = std::fs::read_to_string("/proc/mounts").unwrap_or_default();
    let below =
        mounts.lines().filter_map(|line| line.split(' ').nth(1)).filter(|path| Path::new(path).starts_with(folder));
    for path in below {
        let _ = Command::new("umount").arg("--lazy").arg(path).status();
    }
}

/// Waits until Docker finds a container healthy.
///
/// # Panics
/// When it does not.
pub fn wait_healthy(docker: &Docker, name: &str) {
    wait_within(Duration::from_secs(30), &format!("{name} is healthy"), || {
        (docker.inspect(name)["State"]["Health"]["Status"] == "healthy").then_some(())
    });
}
