//! A fleet whose control plane other machines reach: HTTPS with a certificate of its own.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;
use tempfile::TempDir;

use crate::{
    cli::{Ran, run},
    fleet::text_of,
    program::{Program, binary, command, signal},
    wait::wait_until,
};

/// A control plane on an address that is not loopback.
pub struct FarFleet {
    folder: TempDir,
    /// What `init --json` printed.
    pub init: Value,
    pub address: Ipv4Addr,
    pub https_port: u16,
    agent_port: u16,
    token: String,
    control_plane: Option<Program>,
}

fn free_port(address: Ipv4Addr) -> u16 {
    let listener = TcpListener::bind((address, 0)).expect("a port");
    listener.local_addr().expect("its address").port()
}

impl FarFleet {
    /// Makes one on this address, whose agents and lines use `host`: a name for it, or the address itself.
    ///
    /// # Panics
    /// When that does not work.
    #[must_use]
    pub fn start(address: Ipv4Addr, host: &str) -> Self {
        let folder = tempfile::Builder::new().prefix("sf-e2e-far").tempdir().expect("a folder");
        let (https_port, agent_port) = (free_port(address), free_port(address));
        let mut init = command(&binary("serverflow-control-plane"));
        init.args(["init", "--json", "--agent-address", &format!("{host}:{agent_port}"), "--http-name", host]);
        init.args(["--http-name", &address.to_string(), "--data-dir"]).arg(folder.path().join("control-plane"));
        let init = run(init).ok().json();
        let token = fs::read_to_string(text_of(&init, "token_file")).expect("the token").trim().to_owned();
        let mut fleet = Self { folder, init, address, https_port, agent_port, token, control_plane: None };
        fleet.serve(&fs::read(binary("serverflow-agent")).expect("an agent"));
        fleet.up();
        fleet
    }

    /// A path in the fleet's own folder.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Has this program served to new machines.
    ///
    /// # Panics
    /// When the disk does not take it.
    pub fn serve(&self, program: &[u8]) {
        let folder = self.path("agents").join(std::env::consts::ARCH);
        fs::create_dir_all(&folder).expect("a folder");
        fs::write(folder.join("new"), program).expect("a program");
        fs::rename(folder.join("new"), folder.join("serverflow-agent")).expect("a program");
    }

    /// Starts the control plane (again).
    ///
    /// # Panics
    /// When it does not answer.
    pub fn up(&mut self) {
        let mut serve = command(&binary("serverflow-control-plane"));
        serve.args(["serve", "--data-dir"]).arg(self.path("control-plane"));
        serve.args(["--agent-listen", &SocketAddr::from((self.address, self.agent_port)).to_string()]);
        serve.args(["--http-listen", &SocketAddr::from((self.address, self.https_port)).to_string()]);
        serve.arg("--http-cert").arg(self.cert()).arg("--http-key").arg(text_of(&self.init, "http_key"));
        serve.arg("--agent-dir").arg(self.path("agents"));
        let mut program = Program::start("the control plane", serve, &self.path("control-plane.log"));
        wait_until("the control plane answers", || {
            assert!(program.is_running(), "the control plane ended:\n{}", program.said());
            self.cli(&["whoami"]).code == 0
        });
        self.control_plane = Some(program);
    }

    /// SIGHUP: files are to be read again.
    pub fn hang_up(&self) {
        if let Some(program) = &self.control_plane {
            signal(program.pid(), "HUP");
        }
    }

    /// Ends the control plane.
    pub fn down(&mut self) {
        if let Some(mut program) = self.control_plane.take() {
            program.kill_9();
        }
    }

    /// Asks the control plane whether it is well, as a container's health check does; `tls` is what it is told of HTTPS.
    ///
    /// # Panics
    /// When the program cannot be run.
    #[must_use]
    pub fn health(&self, tls: &[(&str, &PathBuf)]) -> Ran {
        let mut health = command(&binary("serverflow-control-plane"));
        health.args(["health", "--data-dir"]).arg(self.path("control-plane"));
        health.args(["--http-listen", &SocketAddr::from((self.address, self.https_port)).to_string()]);
        tls.iter().for_each(|(flag, file)| {
            health.arg(flag).arg(file);
        });
        run(health)
    }

    /// The key of the people's listener.
    #[must_use]
    pub fn key(&self) -> PathBuf {
        text_of(&self.init, "http_key").into()
    }

    /// The certificate people trust.
    #[must_use]
    pub fn cert(&self) -> PathBuf {
        text_of(&self.init, "http_cert").into()
    }

    /// The CLI, signed in over HTTPS by the bare address, not started yet.
    #[must_use]
    pub fn cli_command(&self, words: &[&str]) -> Command {
        let mut command = command(&binary("serverflow"));
        command.env("SERVERFLOW_URL", format!("https://{}:{}", self.address, self.https_port));
        command.env("SERVERFLOW_CA", self.cert()).env("SERVERFLOW_TOKEN", &self.token);
        command.env("HOME", self.path("home")).current_dir(self.folder.path()).args(words);
        command
    }

    /// Runs the CLI to its end.
    #[must_use]
    pub fn cli(&self, words: &[&str]) -> Ran {
        run(self.cli_command(words))
    }

    /// The lines for a machine, from `host enroll` or `host upgrade`.
    #[must_use]
    pub fn lines(&self, words: &[&str]) -> String {
        text_of(&self.cli(&[&["host"], words, &["--json"]].concat()).ok().json(), "install")
    }

    /// A host's field.
    #[must_use]
    pub fn host(&self, name: &str) -> Value {
        self.cli(&["host", "show", name, "--json"]).json()
    }

    /// Deploys a Compose file to one host.
    ///
    /// # Panics
    /// When the disk does not take the file.
    #[must_use]
    pub fn deploy(&self, app: &str, host: &str, text: &str) -> Ran {
        let path = self.path("compose.yaml");
        fs::write(&path, text).expect("a Compose file");
        let path = path.to_str().expect("a path in UTF-8");
        self.cli(&["app", "deploy", "--json", "--name", app, "--host", host, "-f", path])
    }
}

/// A program of the same use with another hash: what follows an ELF program's own bytes is not looked at.
///
/// # Panics
/// When the program cannot be read.
#[must_use]
pub fn another(program: &Path) -> Vec<u8> {
    let mut bytes = fs::read(program).expect("a program");
    bytes.extend_from_slice(b"another build");
    bytes
}
