//! `install`, which makes this machine a host that stays one, and `uninstall`, which takes it back.
//!
//! Both may be interrupted anywhere and run again. An upgrade is an `install` of another program: the
//! old one is kept beside it until the new one has opened its session, and put back if it does not.

mod install;
mod process;
mod program;
mod service;
mod uninstall;

pub(crate) use install::{InstallArguments, install};
pub(crate) use uninstall::{UninstallArguments, uninstall};

use std::{io, path::PathBuf};

use crate::failure::{Failure, FailureKind};

/// Where the list of a Debian package's files lies while it is installed.
const PACKAGE_LIST: &str = "/var/lib/dpkg/info/serverflow-agent.list";

/// A file that could not be handled.
#[derive(Debug, thiserror::Error)]
#[error("cannot {what} {path}: check that its disk has room and is not read-only")]
struct FileError {
    what: &'static str,
    path: PathBuf,
    #[source]
    source: io::Error,
}

impl FileError {
    fn of(what: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self { what, path, source }
    }
}

/// Programs, units and services are root's.
fn demand_root(verb: &str) -> Result<(), Failure> {
    if rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let why = format!("`serverflow-agent {verb}` changes programs and services, so it needs root: run it with sudo");
    Err(Failure::new(FailureKind::Usage, why))
}

/// Two ways to install would undo each other.
fn demand_no_package(instead: &str) -> Result<(), Failure> {
    if !std::path::Path::new(PACKAGE_LIST).exists() {
        return Ok(());
    }
    let why = format!(
        "the Debian package serverflow-agent is installed here, and it has its own program and unit: {instead}"
    );
    Err(Failure::new(FailureKind::Usage, why))
}
