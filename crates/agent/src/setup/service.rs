//! What keeps the agent running: a unit of systemd, or nobody.

use std::{
    fs::{self, OpenOptions},
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use host::service::{ServiceError, is_systemd, start_detached, systemctl};

use super::{
    FileError,
    process::Running,
    program::{PROGRAM, remove},
};
use crate::{
    failure::{Failure, FailureKind},
    limits,
    state_dir::{self, StateDir},
};

/// The unit as packages ship it.
const PACKAGED_UNIT: &str = include_str!("../../../../deploy/units/serverflow-agent.service");
/// Where packages put the program.
const PACKAGED_PROGRAM: &str = "/usr/bin/serverflow-agent";
const UNIT_FILE: &str = "/etc/systemd/system/serverflow-agent.service";
const UNIT: &str = "serverflow-agent.service";

/// Who keeps the agent running.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keeper {
    Systemd,
    Nobody,
}

/// The unit for a program at its place outside of packages.
fn unit() -> String {
    PACKAGED_UNIT.replace(PACKAGED_PROGRAM, PROGRAM)
}

fn of_service(error: ServiceError) -> Failure {
    Failure::of(FailureKind::Failed, &error)
}

impl Keeper {
    pub(super) fn of_this_machine() -> Self {
        if is_systemd() { Self::Systemd } else { Self::Nobody }
    }

    /// The unit knows one state directory.
    pub(super) fn demand_usual_state(self, state: &StateDir) -> Result<(), Failure> {
        if self == Self::Nobody || state.path() == Path::new(state_dir::DEFAULT) {
            return Ok(());
        }
        let why = format!(
            "the unit of systemd keeps its state in {}, not in {}: leave out --state-dir, or write a unit of your own and use --no-start",
            state_dir::DEFAULT,
            state.path().display()
        );
        Err(Failure::new(FailureKind::Usage, why))
    }

    /// Writes the unit and has it started with the machine. Whether it changed.
    pub(super) fn set_up(self) -> Result<bool, Failure> {
        if self == Self::Nobody {
            return Ok(false);
        }
        let changed = write_unit(Path::new(UNIT_FILE)).map_err(Failure::failed)?;
        if changed {
            systemctl(&["daemon-reload"]).map_err(of_service)?;
        }
        systemctl(&["enable", "--quiet", UNIT]).map_err(of_service)?;
        Ok(changed)
    }

    /// Starts the agent, after the end of the one that runs.
    pub(super) async fn restart(self, program: &Path, state: &StateDir) -> Result<(), Failure> {
        if let Some(running) = Running::find(state).filter(|_| self == Self::Nobody) {
            running.end().await?;
        }
        match self {
            Self::Systemd => systemctl(&["restart", UNIT]).map_err(of_service),
            Self::Nobody => start(program, state),
        }
    }

    /// Ends the agent for good.
    pub(super) async fn stop(self, state: &StateDir) -> Result<(), Failure> {
        if self == Self::Systemd && Path::new(UNIT_FILE).exists() {
            systemctl(&["disable", "--quiet", "--now", UNIT]).map_err(of_service)?;
        }
        match Running::find(state) {
            Some(running) => running.end().await,
            None => Ok(()),
        }
    }

    /// Removes the unit.
    pub(super) fn remove(self) -> Result<(), Failure> {
        remove(Path::new(UNIT_FILE)).map_err(Failure::failed)?;
        match self {
            Self::Systemd => systemctl(&["daemon-reload"]).map_err(of_service),
            Self::Nobody => Ok(()),
        }
    }
}

/// Writes the unit if it is not there as it should be.
fn write_unit(path: &Path) -> Result<bool, FileError> {
    let wanted = unit();
    if fs::read_to_string(path).is_ok_and(|found| found == wanted) {
        return Ok(false);
    }
    let new = path.with_extension("service.new");
    let opened = OpenOptions::new().write(true).create(true).truncate(true).mode(0o644).open(&new);
    let mut file = opened.map_err(FileError::of("create", &new))?;
    file.write_all(wanted.as_bytes()).and_then(|()| file.sync_all()).map_err(FileError::of("write", &new))?;
    fs::rename(&new, path).map_err(FileError::of("replace", path))?;
    Ok(true)
}

/// Starts the agent beside this process. Its log lies in the state directory and begins anew when it
/// has grown large.
fn start(program: &Path, state: &StateDir) -> Result<(), Failure> {
    let path = state.log();
    let is_large = fs::metadata(&path).is_ok_and(|seen| seen.len() > limits::DETACHED_LOG_BYTES_MAX);
    let opened = OpenOptions::new().create(true).append(true).mode(0o600).open(&path);
    let log = opened.map_err(|source| Failure::failed(FileError::of("open the log", &path)(source)))?;
    if is_large {
        log.set_len(0).map_err(|source| Failure::failed(FileError::of("empty the log", &path)(source)))?;
    }
    let Some(directory) = state.path().to_str() else {
        return Err(Failure::new(FailureKind::Usage, "the state directory's path is no text"));
    };
    let words = ["run", "--detached", "--state-dir", directory];
    let started = start_detached(program, &words, log);
    started.map(drop).map_err(|source| Failure::failed(FileError::of("start", program)(source)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unit_is_the_packages_with_another_program() {
        let unit = unit();
        assert!(unit.contains("\nExecStart=/usr/local/bin/serverflow-agent run\n"), "{unit}");
        assert!(!unit.contains("=/usr/bin/"), "{unit}");
        assert!(unit.contains(&format!("\nStateDirectory={}\n", state_dir::DEFAULT.trim_start_matches("/var/lib/"))));
        for line in
            ["NoNewPrivileges=yes", "ProtectSystem=strict", "Restart=always", "SystemCallFilter=@system-service"]
        {
            assert!(unit.lines().any(|found| found == line), "{line}");
        }
    }

    #[test]
    fn a_unit_is_written_once_and_mended_when_it_differs() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join(UNIT);
        assert!(write_unit(&path).expect("written"));
        assert!(!write_unit(&path).expect("left alone"));
        fs::write(&path, "[Service]").expect("written");
        assert!(write_unit(&path).expect("mended"));
        assert_eq!(fs::read_dir(directory.path()).expect("readable").count(), 1);
    }
}
