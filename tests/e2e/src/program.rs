//! A program that runs beside the test: its output goes to a file, and it ends with the test.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use crate::wait::{wait_for, wait_within};

/// Lines of a log that a failing test prints.
const LAST_LINES: usize = 60;

/// The path of one of ServerFlow's programs.
///
/// # Panics
/// When `SERVERFLOW_BIN_DIR` is not set or does not hold it.
#[must_use]
pub fn binary(name: &str) -> PathBuf {
    let folder = std::env::var_os("SERVERFLOW_BIN_DIR")
        .expect("SERVERFLOW_BIN_DIR must name the directory with the built programs; tests/run.sh sets it");
    let path = Path::new(&folder).join(name);
    assert!(path.is_file(), "{} is not there: build the programs first (tests/run.sh does)", path.display());
    path
}

/// The path of a program that was built with the feature `crash-points`.
///
/// # Panics
/// As [`binary`].
#[must_use]
pub fn crash_binary(name: &str) -> PathBuf {
    binary(&format!("crash-points/{name}"))
}

/// A command whose environment is only what it needs: nothing of the tester's own session.
#[must_use]
pub fn command(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.env_clear().stdin(Stdio::null());
    for name in ["PATH", "TMPDIR", "DOCKER_HOST"] {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    command
}

/// A program in the background.
#[derive(Debug)]
pub struct Program {
    name: String,
    child: Option<Child>,
    log: PathBuf,
}

impl Program {
    /// Starts it; what it says goes to the end of the file `log`.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn start(name: &str, mut command: Command, log: &Path) -> Self {
        let out = File::options().create(true).append(true).open(log).expect("a log file");
        let err = out.try_clone().expect("a second handle of the log file");
        let child =
            command.stdout(out).stderr(err).spawn().unwrap_or_else(|error| panic!("cannot start {name}: {error}"));
        Self { name: name.to_owned(), child: Some(child), log: log.to_owned() }
    }

    /// Its process id.
    ///
    /// # Panics
    /// When it was ended.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("running").id()
    }

    /// Everything it said so far, in all its lives.
    #[must_use]
    pub fn said(&self) -> String {
        fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// Waits until it has said so.
    ///
    /// # Panics
    /// When it does not, or ends instead.
    pub fn wait_said(&mut self, words: &str) {
        let (log, name) = (self.log.clone(), self.name.clone());
        wait_for(&format!("{name} says {words:?}"), || {
            let said = fs::read_to_string(&log).unwrap_or_default();
            if !said.contains(words) {
                let ended = self.child.as_mut().and_then(|child| child.try_wait().ok().flatten());
                assert!(ended.is_none(), "{name} ended ({ended:?}) before it said {words:?}");
            }
            said.contains(words).then_some(())
        });
    }

    /// Ends it as a power cut would.
    pub fn kill_9(&mut self) {
        if let Some(mut child) = self.child.take() {
            // Already ended is fine.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Ends it in order (SIGTERM) and says how it went.
    ///
    /// # Panics
    /// When it does not end.
    pub fn terminate(&mut self) -> ExitStatus {
        let mut child = self.child.take().expect("running");
        signal(child.id(), "TERM");
        wait_within(Duration::from_secs(20), &format!("{} ends after SIGTERM", self.name), || {
            child.try_wait().expect("a child of ours")
        })
    }

    /// Waits until it ends by itself.
    ///
    /// # Panics
    /// When it does not.
    pub fn wait_ended(&mut self) -> ExitStatus {
        let mut child = self.child.take().expect("running");
        wait_for(&format!("{} ends", self.name), || child.try_wait().expect("a child of ours"))
    }

    /// How it ended, if it has: by itself, or by a signal.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        let ended = self.child.as_mut().and_then(|child| child.try_wait().ok().flatten());
        if ended.is_some() {
            self.child = None;
        }
        ended
    }

    /// Whether it runs.
    pub fn is_running(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }
}

/// The processes that this one started and that have not ended.
#[must_use]
pub fn children(pid: u32) -> Vec<u32> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let numbers = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let is_child = |it: &u32| {
        let status = fs::read_to_string(format!("/proc/{it}/status")).unwrap_or_default();
        let is = |wanted: &str| status.lines().any(|line| line == wanted);
        is(&format!("PPid:\t{pid}")) && !is("State:\tZ (zombie)")
    };
    numbers.filter(is_child).collect()
}

/// Sends a signal to a process that this test started.
pub fn signal(pid: u32, name: &str) {
    // `kill` may fail when the process has just ended, which the caller sees anyway.
    let _ = Command::new("kill").args(["-s", name, &pid.to_string()]).status();
}

impl Drop for Program {
    fn drop(&mut self) {
        self.kill_9();
        if std::thread::panicking() {
            let said = self.said();
            let lines: Vec<&str> = said.lines().collect();
            let last = &lines[lines.len().saturating_sub(LAST_LINES)..];
            eprintln!("--- {} said last ({}):\n{}\n---", self.name, self.log.display(), last.join("\n"));
        }
    }
}
