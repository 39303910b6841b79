//! Runs of programs that come to an end: the CLI's, and the agent's verbs.

use std::{
    fs::{self, File},
    process::{Child, Command},
    time::Duration,
};

use serde_json::Value;
use tempfile::NamedTempFile;

use crate::wait::wait_within;

/// No verb here takes longer on a busy machine.
const RUN_MAX: Duration = Duration::from_secs(150);

/// How a run ended.
#[derive(Debug)]
pub struct Ran {
    /// The command line, for messages.
    line: String,
    /// Its exit code; -1 when a signal ended it.
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Ran {
    /// Fails unless it ended with this exit code.
    ///
    /// # Panics
    /// With everything it said.
    pub fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, code, "exit code of `{}`\nstdout: {}\nstderr: {}", self.line, self.stdout, self.stderr);
        self
    }

    /// [`Self::expect`] 0.
    ///
    /// # Panics
    /// As that.
    pub fn ok(self) -> Self {
        self.expect(0)
    }

    /// The one JSON document on standard output.
    ///
    /// # Panics
    /// When there is none, or anything besides.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("`{}` should print one JSON document: {error}\n{self:#?}", self.line))
    }

    /// Both outputs.
    #[must_use]
    pub fn all(&self) -> String {
        format!("{}{}", self.stdout, self.stderr)
    }

    /// Fails unless these words are in what it said.
    ///
    /// # Panics
    /// With everything it said.
    pub fn says(self, words: &str) -> Self {
        assert!(
            self.all().contains(words),
            "`{}` should say {words:?}\nstdout: {}\nstderr: {}",
            self.line,
            self.stdout,
            self.stderr
        );
        self
    }
}

/// A run under way.
pub struct Running {
    line: String,
    child: Child,
    stdout: NamedTempFile,
    stderr: NamedTempFile,
}

impl Running {
    /// Starts it.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn start(mut command: Command) -> Self {
        let line = format!("{command:?}");
        let file = || NamedTempFile::new().expect("a temporary file");
        let (stdout, stderr) = (file(), file());
        // Appending, so that reading it meanwhile moves nothing.
        let handle = |file: &NamedTempFile| File::options().append(true).open(file.path()).expect("a second handle");
        let child = command.stdout(handle(&stdout)).stderr(handle(&stderr)).spawn();
        let child = child.unwrap_or_else(|error| panic!("cannot start {line}: {error}"));
        Self { line, child, stdout, stderr }
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// When it does not come.
    #[must_use]
    pub fn wait(mut self) -> Ran {
        let child = &mut self.child;
        let status =
            wait_within(RUN_MAX, &format!("the end of `{}`", self.line), || child.try_wait().expect("a child of ours"));
        let (stdout, stderr) = (text(&self.stdout), text(&self.stderr));
        Ran { line: self.line.clone(), code: status.code().unwrap_or(-1), stdout, stderr }
    }

    /// What it said on standard error so far: its progress.
    #[must_use]
    pub fn progress(&self) -> String {
        text(&self.stderr)
    }

    /// What it said on standard output so far.
    #[must_use]
    pub fn output(&self) -> String {
        text(&self.stdout)
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Ended already, unless the test fails.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let (out, err) = (text(&self.stdout), text(&self.stderr));
            eprintln!("--- {} said:\n{out}\n{err}\n---", self.line);
        }
    }
}

fn text(file: &NamedTempFile) -> String {
    fs::read(file.path()).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}

/// Runs it to its end.
#[must_use]
pub fn run(command: Command) -> Ran {
    Running::start(command).wait()
}
