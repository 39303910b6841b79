//! The real agent program, and a control plane of the protocol's real machines behind real TLS, whose
//! storage is memory and whose faults the test chooses.

#![allow(dead_code, reason = "each test program uses a part of it")]

#[path = "../../../link/tests/support/mod.rs"]
pub(crate) mod listener;
pub(crate) mod plane;

use std::{
    path::{Path, PathBuf},
    process::{Output, Stdio},
    time::Duration,
};

use tokio::{
    process::{Child, Command},
    time::{sleep, timeout},
};

pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("not in time: {what}"))
}

/// Looks again and again until `done` gives something; polling, because a file tells nobody of its change.
pub(crate) async fn until<T>(what: &str, mut done: impl FnMut() -> Option<T>) -> T {
    let look = async {
        loop {
            match done() {
                Some(found) => return found,
                None => sleep(Duration::from_millis(20)).await,
            }
        }
    };
    within(what, look).await
}

/// A state directory and the program that works on it.
pub(crate) struct Machine {
    directory: tempfile::TempDir,
}

impl Machine {
    pub(crate) fn new() -> Self {
        Self { directory: tempfile::tempdir().expect("a temporary directory") }
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.directory.path().join("state")
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.state().join(name)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_serverflow-agent"));
        command.args(arguments).arg("--state-dir").arg(self.state());
        command.env("DOCKER_HOST", "unix:///nonexistent/docker.sock").stdin(Stdio::null());
        command.kill_on_drop(true);
        command
    }

    /// Runs a command to its end.
    pub(crate) async fn run(&self, arguments: &[&str]) -> Ended {
        within("the command's end", self.command(arguments).output()).await.expect("it can be started").into()
    }

    pub(crate) async fn enrol(&self, token: &str) -> Ended {
        let path = self.token_file(token);
        self.run(&["enroll", "--token-file", path.to_str().expect("a path")]).await
    }

    pub(crate) fn token_file(&self, token: &str) -> PathBuf {
        let path = self.directory.path().join("token");
        std::fs::write(&path, token).expect("written");
        path
    }

    /// Starts a command in the background; its output goes to a file.
    pub(crate) fn start(&self, arguments: &[&str]) -> Child {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.log_path()).expect("a log");
        self.command(arguments).stdout(Stdio::null()).stderr(log).spawn().expect("it can be started")
    }

    fn log_path(&self) -> PathBuf {
        self.directory.path().join("log")
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    pub(crate) fn json(&self, name: &str) -> serde_json::Value {
        serde_json::from_slice(&std::fs::read(self.file(name)).expect("the file is there")).expect("JSON")
    }

    /// Whether these bytes stand in any file of the state directory.
    pub(crate) fn holds(&self, needle: &[u8]) -> bool {
        fn search(directory: &Path, needle: &[u8]) -> bool {
            std::fs::read_dir(directory).expect("readable").any(|entry| {
                let bytes = std::fs::read(entry.expect("readable").path()).unwrap_or_default();
                bytes.windows(needle.len()).any(|window| window == needle)
            })
        }
        search(&self.state(), needle)
    }
}

/// How a command ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl From<Output> for Ended {
    fn from(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Self { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
    }
}

impl Ended {
    #[track_caller]
    pub(crate) fn check(self, code: i32, says: &[&str]) -> Self {
        assert_eq!(self.code, Some(code), "{self:?}");
        for word in says {
            assert!(self.out.contains(word) || self.err.contains(word), "does not say {word:?}: {self:?}");
        }
        self
    }
}
