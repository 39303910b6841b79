//! A fleet of the test's own: a control plane, and hosts whose agents run on this machine.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicUsize, Ordering},
};

use serde_json::Value;
use tempfile::TempDir;

use crate::{
    cli::{Ran, Running, run},
    docker::Docker,
    http,
    program::{Program, binary, command, crash_binary},
    proxy::Proxy,
    wait::{wait_for, wait_until},
};

/// A port that was free just now.
///
/// # Panics
/// When there is none.
#[must_use]
pub fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    listener.local_addr().expect("its address").port()
}

/// A control plane with its people's side.
pub struct Fleet {
    folder: TempDir,
    /// What `init --json` printed.
    pub init: Value,
    /// Between agents and control plane, always.
    pub proxy: Proxy,
    agent_listen: SocketAddr,
    pub http_port: u16,
    token: String,
    control_plane: Option<Program>,
    pub docker: Docker,
    apps: String,
    runs: AtomicUsize,
    control_program: PathBuf,
    /// Added to what the control plane's program finds in its environment at its next start.
    pub control_environment: Environment,
}

/// Variables for a program.
pub type Environment = Vec<(&'static str, PathBuf)>;

impl Fleet {
    /// Makes a fleet and starts its control plane.
    ///
    /// # Panics
    /// When that does not work.
    #[must_use]
    pub fn start() -> Self {
        Self::with_docker(Docker::default())
    }

    /// The same; its hosts use this engine.
    ///
    /// # Panics
    /// As [`Self::start`].
    #[must_use]
    pub fn with_docker(docker: Docker) -> Self {
        let folder = tempfile::Builder::new().prefix("sf-e2e").tempdir().expect("a folder");
        let agent_listen = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let proxy = Proxy::start(agent_listen);
        let mut init = command(&binary("serverflow-control-plane"));
        init.args(["init", "--json", "--agent-address", &proxy.address().to_string(), "--data-dir"]);
        init.arg(folder.path().join("control-plane"));
        let init = run(init).ok().json();
        let token = fs::read_to_string(init["token_file"].as_str().expect("the token's file")).expect("the token");
        let fleet_id = init["fleet_id"].as_str().expect("the fleet's id");
        let apps = format!("e2e{}", &fleet_id.replace('-', "")[24..]);
        let mut fleet = Self {
            folder,
            proxy,
            agent_listen,
            http_port: free_port(),
            token: token.trim().to_owned(),
            control_plane: None,
            docker,
            apps,
            runs: AtomicUsize::new(0),
            control_program: binary("serverflow-control-plane"),
            control_environment: Environment::new(),
            init,
        };
        fleet.control_plane_start();
        fleet
    }

    /// From the next start on, the control plane's program is the one that can be ended at any of its doors.
    pub fn control_plane_with_crash_points(&mut self) {
        self.control_program = crash_binary("serverflow-control-plane");
    }

    /// A path in the fleet's own folder.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A file of the control plane's data directory.
    #[must_use]
    pub fn data(&self, name: &str) -> PathBuf {
        self.path("control-plane").join(name)
    }

    /// The file of the signer's one command key.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn command_key_file(&self) -> PathBuf {
        let mut keys = fs::read_dir(self.data("signer/keys")).expect("the signer's keys");
        keys.next().expect("a key").expect("an entry").path()
    }

    /// That key.
    ///
    /// # Panics
    /// As [`Self::command_key_file`].
    #[must_use]
    pub fn command_seed(&self) -> [u8; 32] {
        *keyfile::read_seed(&self.command_key_file(), keyfile::KeyKind::Ed25519).expect("a key file")
    }

    /// The fleet's id.
    ///
    /// # Panics
    /// Never: `init` printed it.
    #[must_use]
    pub fn id(&self) -> &str {
        self.init["fleet_id"].as_str().expect("the fleet's id")
    }

    /// Where the control plane itself listens for agents, past the proxy.
    #[must_use]
    pub const fn agent_listen(&self) -> SocketAddr {
        self.agent_listen
    }

    /// A name for an app that no other test has.
    #[must_use]
    pub fn app(&self, name: &str) -> String {
        format!("{}-{name}", self.apps)
    }

    /// Starts the control plane (again) and waits until it answers.
    ///
    /// # Panics
    /// When it does not.
    pub fn control_plane_start(&mut self) {
        self.control_plane_spawn();
        let port = self.http_port;
        let program = self.control_plane();
        wait_until("the control plane answers", || {
            assert!(program.is_running(), "the control plane ended:\n{}", program.said());
            http::get(port, "/health").is_some_and(|answer| answer.status == 200)
        });
    }

    /// Starts the control plane and waits for nothing.
    pub fn control_plane_spawn(&mut self) {
        let mut serve = command(&self.control_program);
        serve.envs(self.control_environment.iter().map(|(name, value)| (name, value)));
        serve
            .args(["serve", "--log-level", "info,serverflow_control_plane=debug", "--data-dir"])
            .arg(self.path("control-plane"));
        serve.args(["--agent-listen", &self.agent_listen.to_string()]);
        serve.args(["--http-listen", &format!("127.0.0.1:{}", self.http_port)]);
        let program = Program::start("the control plane", serve, &self.path("control-plane.log"));
        self.control_plane = Some(program);
    }

    /// A verb of the control plane's program over this fleet's data, to its end.
    #[must_use]
    pub fn control_plane_verb(&self, words: &[&str]) -> Ran {
        let mut verb = command(&self.control_program);
        verb.args(words).arg("--data-dir").arg(self.path("control-plane"));
        verb.args(["--agent-listen", &self.agent_listen.to_string()]);
        verb.args(["--http-listen", &format!("127.0.0.1:{}", self.http_port)]);
        run(verb)
    }

    /// The control plane's program.
    ///
    /// # Panics
    /// When it was ended.
    pub fn control_plane(&mut self) -> &mut Program {
        self.control_plane.as_mut().expect("the control plane runs")
    }

    /// Ends the control plane as a power cut would.
    pub fn control_plane_kill_9(&mut self) {
        if let Some(mut program) = self.control_plane.take() {
            program.kill_9();
        }
    }

    /// A CLI command, signed in, not started yet.
    #[must_use]
    pub fn cli_command(&self, words: &[&str]) -> Command {
        let mut command = self.cli_stranger(words);
        command.env("SERVERFLOW_TOKEN", &self.token);
        command
    }

    /// A CLI command of somebody who is not signed in.
    #[must_use]
    pub fn cli_stranger(&self, words: &[&str]) -> Command {
        let mut command = command(&binary("serverflow"));
        command.env("SERVERFLOW_URL", format!("http://127.0.0.1:{}", self.http_port));
        command.env("SERVERFLOW_ROOT", self.data("root.pub"));
        command.env("HOME", self.path("home"));
        command.current_dir(self.folder.path());
        command.args(words);
        command
    }

    /// Runs the CLI to its end.
    #[must_use]
    pub fn cli(&self, words: &[&str]) -> Ran {
        run(self.cli_command(words))
    }

    /// Runs the CLI in the background.
    #[must_use]
    pub fn cli_start(&self, words: &[&str]) -> Running {
        Running::start(self.cli_command(words))
    }

    /// The bearer token of the first administrator.
    #[must_use]
    pub fn token(&self) -> &str {
        &self.token
    }

    /// From now on the CLI has this bearer token.
    pub fn use_token(&mut self, token: String) {
        self.token = token;
    }

    /// Writes a Compose file; its path.
    ///
    /// # Panics
    /// When the disk does not take it.
    #[must_use]
    pub fn compose(&self, text: &str) -> String {
        let number = self.runs.fetch_add(1, Ordering::Relaxed);
        let folder = self.path(&format!("compose-{number}"));
        fs::create_dir(&folder).expect("a folder");
        let path = folder.join("compose.yaml");
        fs::write(&path, text).expect("a Compose file");
        path.to_str().expect("a path in UTF-8").to_owned()
    }

    /// `app deploy --json` to one host, started. `text` is the Compose file.
    #[must_use]
    pub fn deploy_start(&self, app: &str, host: &str, text: &str) -> Running {
        self.cli_start(&["app", "deploy", "--json", "--name", app, "--host", host, "-f", &self.compose(text)])
    }

    /// `app deploy --json` to one host.
    #[must_use]
    pub fn deploy(&self, app: &str, host: &str, text: &str) -> Ran {
        self.deploy_start(app, host, text).wait()
    }

    /// `command show --json`.
    #[must_use]
    pub fn command(&self, id: &str) -> Value {
        self.cli(&["command", "show", id, "--json"]).ok().json()
    }

    /// The newest commands of one action, newest first.
    ///
    /// # Panics
    /// When the CLI does not answer with a list.
    #[must_use]
    pub fn commands(&self, action: &str) -> Vec<Value> {
        let list = self.cli(&["command", "list", "--json"]).ok().json();
        // In whichever version its host got it.
        let is_wanted = |it: &&Value| text_of(it, "action").rsplit_once('@').is_some_and(|(name, _)| name == action);
        list.as_array().expect("a list").iter().filter(is_wanted).cloned().collect()
    }

    /// Waits until a command of this action is there that is not in `known`; its id.
    #[must_use]
    pub fn wait_command(&self, action: &str, known: &[Value]) -> String {
        wait_for(&format!("a new {action} command"), || {
            let fresh = self
                .commands(action)
                .into_iter()
                .find(|it| known.iter().all(|old| old["command_id"] != it["command_id"]));
            fresh.map(|it| text_of(&it, "command_id"))
        })
    }

    /// Waits for a command's end.
    #[must_use]
    pub fn wait_settled(&self, id: &str) -> Value {
        let ended = ["succeeded", "failed", "rolled_back", "rejected", "expired", "unknown", "cancelled"];
        wait_for(&format!("the end of command {id}"), || {
            let command = self.command(id);
            command["status"].as_str().is_some_and(|status| ended.contains(&status)).then_some(command)
        })
    }

    /// A join token, as its file.
    #[must_use]
    pub fn join_token(&self, name: &str, more: &[&str]) -> PathBuf {
        let words: Vec<&str> = ["host", "enroll", name, "--json"].iter().copied().chain(more.iter().copied()).collect();
        let token = text_of(&self.cli(&words).ok().json(), "token");
        let path = self.path(&format!("{name}-{}.token", self.runs.fetch_add(1, Ordering::Relaxed)));
        fs::write(&path, token).expect("a token file");
        path
    }

    /// A host, enrolled, its agent not started.
    #[must_use]
    pub fn host_enrolled(&self, name: &str) -> Host {
        let token = self.join_token(name, &["--role", "app"]);
        let host = Host::unborn(self, name);
        host.enrol(&token).ok();
        host
    }

    /// A host with a connected agent.
    #[must_use]
    pub fn host(&self, name: &str) -> Host {
        let mut host = self.host_enrolled(name);
        host.start();
        self.wait_host(name, "connected");
        host
    }

    /// Waits for a host's status.
    pub fn wait_host(&self, name: &str, status: &str) {
        wait_until(&format!("host {name} is {status}"), || {
            self.cli(&["host", "show", name, "--json"]).json()["status"] == status
        });
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        // Agents are dropped with their hosts, which tests hold after the fleet, so before it.
        self.docker.clean(self.id(), &self.apps);
    }
}

/// A field that is text.
///
/// # Panics
/// When it is not.
#[must_use]
pub fn text_of(value: &Value, field: &str) -> String {
    value[field].as_str().unwrap_or_else(|| panic!("{field} should be text in {value:#}")).to_owned()
}

/// One host: an agent's state directory, and its agent.
pub struct Host {
    pub name: String,
    folder: PathBuf,
    log: PathBuf,
    docker_host: Option<String>,
    program: PathBuf,
    /// Added to what the agent finds in its environment at its next start.
    pub environment: Environment,
    agent: Option<Program>,
}

impl Host {
    /// A machine that is nobody's yet.
    #[must_use]
    pub fn unborn(fleet: &Fleet, name: &str) -> Self {
        let folder = fleet.path(&format!("host-{name}"));
        let log = fleet.path(&format!("host-{name}.log"));
        Self {
            name: name.to_owned(),
            folder,
            log,
            docker_host: fleet.docker.host(),
            program: binary("serverflow-agent"),
            environment: Environment::new(),
            agent: None,
        }
    }

    /// From its agent's next start on, this machine has another engine.
    pub fn use_docker(&mut self, docker: &Docker) {
        self.docker_host = docker.host();
    }

    /// From its next start on, the agent's program is the one that can be ended at any of its doors.
    pub fn with_crash_points(&mut self) {
        self.program = crash_binary("serverflow-agent");
    }

    /// A file of the agent's state directory.
    #[must_use]
    pub fn state(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// The id it was enrolled with.
    ///
    /// # Panics
    /// When it was not.
    #[must_use]
    pub fn id(&self) -> String {
        let text = fs::read_to_string(self.state("enrolment.json")).expect("enrolled");
        text_of(&serde_json::from_str(&text).expect("JSON"), "host")
    }

    fn agent_command(&self, words: &[&str]) -> Command {
        let mut command = command(&self.program);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.args(words).arg("--state-dir").arg(&self.folder);
        if let Some(host) = &self.docker_host {
            command.env("DOCKER_HOST", host);
        }
        command
    }

    /// A verb of the agent, to its end.
    #[must_use]
    pub fn verb(&self, words: &[&str]) -> Ran {
        run(self.agent_command(words))
    }

    /// `enroll`.
    ///
    /// # Panics
    /// When the token's path is not text.
    #[must_use]
    pub fn enrol(&self, token: &Path) -> Ran {
        self.enrol_start(token).wait()
    }

    /// `enroll`, in the background.
    ///
    /// # Panics
    /// When the token's path is not text.
    #[must_use]
    pub fn enrol_start(&self, token: &Path) -> Running {
        let token = token.to_str().expect("a path in UTF-8");
        Running::start(self.agent_command(&["enroll", "--token-file", token]))
    }

    /// Starts the agent.
    pub fn start(&mut self) {
        self.agent = Some(Program::start(&format!("agent {}", self.name), self.agent_command(&["run"]), &self.log));
    }

    /// The agent's program.
    ///
    /// # Panics
    /// When it was ended.
    pub fn agent(&mut self) -> &mut Program {
        self.agent.as_mut().expect("the agent runs")
    }

    /// Ends the agent as a power cut would.
    pub fn kill_9(&mut self) {
        if let Some(mut agent) = self.agent.take() {
            agent.kill_9();
        }
    }

    /// Everything its agents said.
    #[must_use]
    pub fn said(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// How often its agents said so.
    #[must_use]
    pub fn said_times(&self, words: &str) -> usize {
        self.said().matches(words).count()
    }

    /// Waits until its agents said it more often than `before`.
    pub fn wait_says_again(&self, words: &str, before: usize) {
        wait_until(&format!("agent {} says {words:?} once more", self.name), || self.said_times(words) > before);
    }
}
