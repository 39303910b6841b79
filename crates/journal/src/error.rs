//! What can go wrong with the journal, and what to do then.

use std::{
    io,
    path::{Path, PathBuf},
};

/// Why the journal could not be opened or written.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// Another agent runs on the same state.
    #[error("another serverflow-agent has {path} open; stop it first (`serverflow-agent status` says which)")]
    InUse {
        /// The journal.
        path: PathBuf,
    },
    /// The file system refused.
    #[error("cannot use {path}: check its owner, its permissions and the free space on its disk")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
    /// SQLite refused.
    #[error("cannot {what} the journal {path}: {help}")]
    Database {
        /// What was being done.
        what: &'static str,
        /// The journal.
        path: PathBuf,
        /// What is wrong, and what to do.
        help: &'static str,
        /// What SQLite said.
        #[source]
        source: sqlx::Error,
    },
    /// Not ours, newer than us, or damaged.
    #[error("the journal {path} {why}")]
    Unusable {
        /// The journal.
        path: PathBuf,
        /// What is wrong, and what to do.
        why: String,
    },
    /// An earlier write failed, or the agent is ending.
    #[error("the journal is closed after an earlier failure; the agent has to be started again")]
    Closed,
}

impl JournalError {
    pub(crate) fn io(path: &Path, source: io::Error) -> Self {
        Self::Io { path: path.to_owned(), source }
    }

    pub(crate) fn open(path: &Path, source: sqlx::Error) -> Self {
        Self::database("open", path, source)
    }

    pub(crate) fn read(path: &Path, source: sqlx::Error) -> Self {
        Self::database("read", path, source)
    }

    pub(crate) fn write(path: &Path, source: sqlx::Error) -> Self {
        Self::database("write", path, source)
    }

    fn database(what: &'static str, path: &Path, source: sqlx::Error) -> Self {
        let help = match primary_code(&source) {
            Some(code::CORRUPT | code::NOTADB) => return Self::damaged(path, &source.to_string()),
            Some(code::FULL) => "the disk is full; free some space. Nothing that was acknowledged is lost",
            Some(code::READONLY | code::PERM | code::CANTOPEN) => {
                "the file, its directory or its file system is read-only, or not the agent's; let the agent's user write there"
            }
            Some(code::IOERR) => "the disk reports an error; look at the system's log, and see to the disk",
            _ => "check the free space and the health of its disk",
        };
        let path = path.to_owned();
        Self::Database { what, path, help, source }
    }

    pub(crate) fn damaged(path: &Path, what: &str) -> Self {
        let why = format!(
            "is damaged ({what}); move the agent's state directory away, revoke this host with `serverflow host revoke` and enrol it again"
        );
        Self::Unusable { path: path.to_owned(), why }
    }
}

/// Primary result codes of SQLite (<https://www.sqlite.org/rescode.html>); the low byte of an extended one.
mod code {
    pub(super) const PERM: i64 = 3;
    pub(super) const READONLY: i64 = 8;
    pub(super) const IOERR: i64 = 10;
    pub(super) const CORRUPT: i64 = 11;
    pub(super) const FULL: i64 = 13;
    pub(super) const CANTOPEN: i64 = 14;
    pub(super) const NOTADB: i64 = 26;
}

fn primary_code(error: &sqlx::Error) -> Option<i64> {
    let extended: i64 = error.as_database_error()?.code()?.parse().ok()?;
    Some(extended & 0xff)
}
