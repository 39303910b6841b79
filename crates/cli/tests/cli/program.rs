//! Runs the program with a clean environment and keeps what it said.

use std::{
    path::Path,
    process::{Command, Stdio},
};

use serde_json::Value;
use tempfile::TempDir;

/// The text of an id that ends in this number.
pub(crate) fn id(number: u8) -> String {
    format!("00000000-0000-7000-8000-0000000000{number:02x}")
}

/// Where the program runs: a home of its own.
pub(crate) struct Home {
    pub(crate) folder: TempDir,
    variables: Vec<(&'static str, String)>,
}

/// How a run ended.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ran {
    /// Asserts the exit code.
    pub(crate) fn code(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        self
    }

    /// The one document on standard output; nothing else may be said.
    pub(crate) fn document(&self) -> Value {
        assert_eq!(self.stderr, "", "only the document is written");
        serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("not one document ({e}):\n{}", self.stdout))
    }

    /// The one error document on standard error; nothing else may be said.
    pub(crate) fn error_document(&self) -> Value {
        assert_eq!(self.stdout, "", "no result is written");
        serde_json::from_str(&self.stderr).unwrap_or_else(|e| panic!("not one document ({e}):\n{}", self.stderr))
    }
}

impl Home {
    /// Nobody is signed in.
    pub(crate) fn new() -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        let path = folder.path().to_str().expect("UTF-8").to_owned();
        Self { folder, variables: vec![("HOME", path), ("PATH", "/usr/bin:/bin".to_owned())] }
    }

    /// Signed in by the environment.
    pub(crate) fn signed_in(url: &str) -> Self {
        Self::new().with("SERVERFLOW_URL", url).with("SERVERFLOW_TOKEN", "sfs_test")
    }

    pub(crate) fn with(mut self, name: &'static str, value: &str) -> Self {
        self.variables.push((name, value.to_owned()));
        self
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Writes a file into the home.
    pub(crate) fn write(&self, name: &str, content: &str) {
        std::fs::write(self.path().join(name), content).expect("written");
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_serverflow"));
        command
            .args(arguments)
            .env_clear()
            .envs(self.variables.iter().cloned())
            .current_dir(self.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Ran {
        let output = self.command(arguments).output().expect("the program runs");
        Ran {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).expect("UTF-8"),
            stderr: String::from_utf8(output.stderr).expect("UTF-8"),
        }
    }
}
