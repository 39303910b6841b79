//! One control plane per database: two would both allocate sequences from memory. The lock is the
//! kernel's, so it ends with the process however the process ends.

use std::{
    fs::{File, OpenOptions, TryLockError},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use fleet::ports::StoreError;

use crate::fault::file_error;

/// Held as long as the database may be written.
#[derive(Debug)]
pub(crate) struct DatabaseLock(#[expect(dead_code, reason = "the open file is the lock")] File);

impl DatabaseLock {
    /// Takes the lock beside the database, or says who may hold it.
    pub(crate) fn take(database: &Path) -> Result<Self, StoreError> {
        let path = database.with_added_extension("lock");
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&path)
            .map_err(|error| file_error("opening the lock", &path, &error))?;
        match file.try_lock() {
            Ok(()) => Ok(Self(file)),
            Err(TryLockError::WouldBlock) => Err(StoreError::Unavailable(format!(
                "{} is in use by another control plane; stop that one first, or give this one its own data directory",
                database.display()
            ))),
            Err(TryLockError::Error(error)) => Err(file_error("locking", &path, &error)),
        }
    }
}

/// Whether another process may write the database now.
///
/// # Errors
/// When the lock cannot be looked at.
pub fn is_in_use(database: &Path) -> Result<bool, StoreError> {
    let path = database.with_added_extension("lock");
    let file = match OpenOptions::new().write(true).open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(file_error("opening the lock", &path, &error)),
    };
    match file.try_lock() {
        Ok(()) => Ok(false),
        Err(TryLockError::WouldBlock) => Ok(true),
        Err(TryLockError::Error(error)) => Err(file_error("locking", &path, &error)),
    }
}

/// Makes the database file, if it is not there, readable by its owner only. SQLite gives its
/// write-ahead log the same mode.
pub(crate) fn create_private(database: &Path) -> Result<(), StoreError> {
    OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(database)
        .map(drop)
        .map_err(|error| file_error("opening", database, &error))
}
