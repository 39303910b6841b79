//! The machine's service manager, and programs that go on without one.
//!
//! Only what a person at this machine asked for (`serverflow-agent install`, `uninstall`) comes here;
//! no order does.

use std::{
    fs::File,
    io,
    path::Path,
    process::{Command, Stdio},
};

/// Where systemd keeps something exactly while it is this machine's service manager (`sd_booted(3)`).
const SYSTEMD_RUNS: &str = "/run/systemd/system";
const SYSTEMCTL: &str = "/usr/bin/systemctl";

/// Why systemd did not do it.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// `systemctl` is not there.
    #[error("cannot run {SYSTEMCTL}")]
    Start(#[source] io::Error),
    /// It ended otherwise than well.
    #[error("`systemctl {words}` failed: {said}")]
    Failed {
        /// What it was asked.
        words: String,
        /// What it said.
        said: String,
    },
}

/// Whether systemd manages this machine's services.
#[must_use]
pub fn is_systemd() -> bool {
    Path::new(SYSTEMD_RUNS).is_dir()
}

/// Asks systemd for something and waits until it is done.
///
/// # Errors
/// With what it said.
pub fn systemctl(words: &[&str]) -> Result<(), ServiceError> {
    let mut command = Command::new(SYSTEMCTL);
    let ended = command.args(words).stdin(Stdio::null()).output().map_err(ServiceError::Start)?;
    if ended.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&ended.stderr).trim().to_owned();
    Err(ServiceError::Failed { words: words.join(" "), said })
}

/// Starts a program that goes on when this one has ended. What it says goes to `log`; its process id.
///
/// # Errors
/// When it cannot be started.
pub fn start_detached(program: &Path, words: &[&str], log: File) -> io::Result<u32> {
    let errors = log.try_clone()?;
    let mut command = Command::new(program);
    command.args(words).current_dir("/").stdin(Stdio::null()).stdout(log).stderr(errors);
    Ok(command.spawn()?.id())
}
