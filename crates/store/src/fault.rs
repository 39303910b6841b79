//! What went wrong with the engine, in words: which file, and what to do about it.

use std::path::{Path, PathBuf};

use fleet::ports::StoreError;

/// Why one write, or a whole batch, did not happen.
#[derive(Debug)]
pub(crate) enum Failure {
    /// This write alone: nothing of it stands, its neighbours are untouched.
    Refused(StoreError),
    /// The engine failed; the state of the transaction is not known, so all of it goes.
    Engine(StoreError),
}

impl Failure {
    pub(crate) fn conflict(what: impl Into<String>) -> Self {
        Self::Refused(StoreError::Conflict(what.into()))
    }

    pub(crate) fn into_error(self) -> StoreError {
        match self {
            Self::Refused(error) | Self::Engine(error) => error,
        }
    }
}

impl From<StoreError> for Failure {
    /// A value that cannot be read or made: the transaction itself is sound.
    fn from(error: StoreError) -> Self {
        Self::Refused(error)
    }
}

/// Where the database is, for messages.
#[derive(Clone, Debug)]
pub(crate) struct Location(pub(crate) PathBuf);

/// Primary result codes of SQLite (<https://www.sqlite.org/rescode.html>); the low byte of an extended one.
mod code {
    pub(super) const PERM: i64 = 3;
    pub(super) const BUSY: i64 = 5;
    pub(super) const LOCKED: i64 = 6;
    pub(super) const READONLY: i64 = 8;
    pub(super) const IOERR: i64 = 10;
    pub(super) const CORRUPT: i64 = 11;
    pub(super) const FULL: i64 = 13;
    pub(super) const CANTOPEN: i64 = 14;
    pub(super) const CONSTRAINT: i64 = 19;
    pub(super) const NOTADB: i64 = 26;
}

fn primary_code(error: &sqlx::Error) -> Option<i64> {
    let extended: i64 = error.as_database_error()?.code()?.parse().ok()?;
    Some(extended & 0xff)
}

impl Location {
    /// `doing` is a gerund with its object: "reading the hosts".
    pub(crate) fn error(&self, doing: &str, error: &sqlx::Error) -> StoreError {
        let path = self.0.display();
        let unavailable = |help: &str| StoreError::Unavailable(format!("{doing} in {path} failed: {help}"));
        match primary_code(error) {
            Some(code::FULL) => unavailable("the disk is full; free some space, nothing stored is lost"),
            Some(code::READONLY | code::PERM) => {
                unavailable("the file or its directory is read-only; let the control plane's user write there")
            }
            Some(code::CANTOPEN) => unavailable(
                "the file cannot be opened; see that its directory exists and that the control plane's user may write there",
            ),
            Some(code::IOERR) => {
                unavailable(&format!("the disk reports an error ({error}); look at the system's log, then restart"))
            }
            Some(code::BUSY | code::LOCKED) => unavailable(
                "another program holds the file locked; close it (a database shell, a backup) and try again",
            ),
            Some(code::CORRUPT | code::NOTADB) => StoreError::Corrupt(format!(
                "{doing} in {path}: the file is damaged or no database ({error}); stop the control plane and restore it from a backup"
            )),
            _ => match error {
                sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) | sqlx::Error::ColumnNotFound(_) => {
                    StoreError::Corrupt(format!("{doing} in {path}: {error}; restore the database from a backup"))
                }
                sqlx::Error::PoolTimedOut => unavailable("all its readers are busy; try again"),
                _ => unavailable(&format!("{error}")),
            },
        }
    }

    /// The same for a statement of a write.
    pub(crate) fn failure(&self, doing: &str, error: &sqlx::Error) -> Failure {
        match primary_code(error) {
            Some(code::CONSTRAINT) => {
                let what = error.as_database_error().map_or("", |e| e.message());
                Failure::Refused(StoreError::Conflict(format!(
                    "{doing}: it would break a rule of the database ({what})"
                )))
            }
            _ => match self.error(doing, error) {
                corrupt @ StoreError::Corrupt(_) if primary_code(error).is_none() => Failure::Refused(corrupt),
                other => Failure::Engine(other),
            },
        }
    }
}

/// The same for files beside the database.
pub(crate) fn file_error(doing: &str, path: &Path, error: &std::io::Error) -> StoreError {
    let path = path.display();
    let help = match error.kind() {
        std::io::ErrorKind::PermissionDenied => {
            "the control plane's user may not do that; see to the directory's owner and mode"
        }
        std::io::ErrorKind::NotFound => "the directory does not exist; make it, or name another in the configuration",
        std::io::ErrorKind::ReadOnlyFilesystem => "the file system is read-only",
        std::io::ErrorKind::StorageFull => "the disk is full; free some space",
        _ => return StoreError::Unavailable(format!("{doing} {path} failed: {error}")),
    };
    StoreError::Unavailable(format!("{doing} {path} failed: {help}"))
}
