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
    #[error("cannot {what} the journal {path}: check the free space and the health of its disk")]
    Database {
        /// What was being done.
        what: &'static str,
        /// The journal.
        path: PathBuf,
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
        Self::Database { what: "open", path: path.to_owned(), source }
    }

    pub(crate) fn read(path: &Path, source: sqlx::Error) -> Self {
        Self::Database { what: "read", path: path.to_owned(), source }
    }

    pub(crate) fn write(path: &Path, source: sqlx::Error) -> Self {
        Self::Database { what: "write", path: path.to_owned(), source }
    }

    pub(crate) fn damaged(path: &Path, what: &str) -> Self {
        let why = format!(
            "is damaged ({what}); move the agent's state directory away, revoke this host with `serverflow host revoke` and enrol it again"
        );
        Self::Unusable { path: path.to_owned(), why }
    }
}
