//! Where a signer keeps everything: one directory that only its user may enter.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use ids::{FleetId, KeyId};
use keyfile::KeyFileError;

use crate::state_file::{Record, StateError, StateFile};

/// Why a signer's directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    /// Another signer has it.
    #[error("{path} is in use by another signer; stop that one first")]
    InUse { path: PathBuf },
    /// There is one already where one was to be made.
    #[error("{path} holds a signer's keys already; they are not overwritten")]
    Exists { path: PathBuf },
    /// It says something that cannot be.
    #[error("{path} is damaged ({why}); bring the signer's directory back whole from the newest backup")]
    Damaged { path: PathBuf, why: String },
    /// A key that is needed is gone.
    #[error("the command key file {path} is missing; bring it back from the backup that its directory belongs to")]
    KeyMissing { path: PathBuf },
    /// The record of sequences.
    #[error("{0}")]
    State(#[from] StateError),
    /// A key file.
    #[error("{0}")]
    Key(#[from] KeyFileError),
    /// The system refused.
    #[error("{doing} {path} failed; see to the disk, and to the owner and mode of the directory")]
    Io { doing: &'static str, path: PathBuf, source: io::Error },
}

/// For `map_err`.
pub(crate) fn io_at(doing: &'static str, path: &Path) -> impl Fn(io::Error) -> PlaceError {
    move |source| PlaceError::Io { doing, path: path.to_owned(), source }
}

/// Paths below one directory.
#[derive(Clone, Debug)]
pub struct Place {
    directory: PathBuf,
}

impl Place {
    /// Looks at nothing yet.
    #[must_use]
    pub fn new(directory: &Path) -> Self {
        Self { directory: directory.to_owned() }
    }

    /// The directory itself.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Command keys, a file each.
    #[must_use]
    pub fn keys(&self) -> PathBuf {
        self.directory.join("keys")
    }

    /// One of them.
    #[must_use]
    pub fn key(&self, key: KeyId) -> PathBuf {
        self.keys().join(format!("{key}.key.pem"))
    }

    /// Root metadata, and which keys there are.
    #[must_use]
    pub fn trust(&self) -> PathBuf {
        self.directory.join("trust.json")
    }

    /// The highest sequence of each host.
    #[must_use]
    pub fn sequences(&self) -> PathBuf {
        self.directory.join("sequences")
    }

    /// The highest revision of each host's standing orders.
    #[must_use]
    pub fn revisions(&self) -> PathBuf {
        self.directory.join("revisions")
    }

    /// What was decided.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.directory.join("log.jsonl")
    }

    /// Where it listens, unless told otherwise.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.directory.join("signer.sock")
    }

    /// Where root puts what another user's control plane kept before there was a signer's user: `keys/command.key.pem`
    /// and `signer.state`.
    #[must_use]
    pub fn incoming(&self) -> PathBuf {
        self.directory.join("incoming")
    }

    /// Makes the directories and takes the place: nobody else may use it as long as the answer lives.
    pub(crate) fn take(&self) -> Result<File, PlaceError> {
        keyfile::private_directory(&self.keys())?;
        let path = self.directory.join("lock");
        let io = |doing| io_at(doing, &path);
        let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path);
        let file = file.map_err(io("opening"))?;
        match file.try_lock() {
            Ok(()) => Ok(file),
            Err(TryLockError::WouldBlock) => Err(PlaceError::InUse { path: self.directory.clone() }),
            Err(TryLockError::Error(error)) => Err(io("locking")(error)),
        }
    }
}

/// Reads the record of sequences of a signer that does not run: for how many hosts it signed. A torn end is cut off.
///
/// # Errors
/// When it is missing, damaged, of another fleet, or in use.
pub fn examine_sequences(place: &Place, fleet: FleetId) -> Result<usize, PlaceError> {
    Ok(StateFile::open(Record::Sequences, &place.sequences(), fleet)?.hosts())
}

/// Puts a whole file in place of another, durably: the old one or the new one is there, never half of one.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> Result<(), PlaceError> {
    let new_path = path.with_added_extension("new");
    let io = |doing| io_at(doing, &new_path);
    let mut options = OpenOptions::new();
    let mut file = options.create(true).truncate(true).write(true).mode(0o600).open(&new_path).map_err(io("making"))?;
    file.write_all(bytes).map_err(io("writing"))?;
    file.sync_all().map_err(io("syncing"))?;
    fs::rename(&new_path, path).map_err(io("renaming"))?;
    sync_parent(path)
}

/// Deletes a file durably; one that is not there is deleted.
pub(crate) fn remove(path: &Path) -> Result<(), PlaceError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io_at("deleting", path)(error)),
        _ => sync_parent(path),
    }
}

fn sync_parent(path: &Path) -> Result<(), PlaceError> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    match File::open(parent).and_then(|directory| directory.sync_all()) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io_at("syncing", parent)(error)),
        _ => Ok(()),
    }
}
