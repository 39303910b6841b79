//! `backup` and `restore`: everything a control plane is, in one encrypted file, and back.
//!
//! What is written: the database as of one moment, the control plane's own keys and the data key, the signer's directory, and
//! the settings that are not about this machine. Not written: the root key, which does not belong here; the first
//! owner's token and the list of who is signed in, which a restore voids anyway.
//!
//! **Order.** A signer that had a record older than the database would sign a number twice. So its record is read after the database was
//! copied: the signer writes it before it signs, and the store keeps what was signed after that. Its root metadata is read before,
//! so that it is never ahead of the database's. Keys are read before and after, because one is made before the database
//! names it and deleted after the database has let go of it.

mod make;
mod restore;
#[cfg(test)]
mod tests;

use std::{
    io,
    path::{Path, PathBuf},
};

use backup::BackupError;
use fleet::ports::StoreError;
use ids::{AuditLogId, FleetId, RootVersion, UnixMs};
use keyfile::KeyFileError;
use serde::{Deserialize, Serialize};
use signer::PlaceError;
use zeroize::Zeroizing;

pub(crate) use self::{
    make::{BackupArgs, run as make},
    restore::{RestoreArgs, run as restore},
};
use crate::limits;

/// Names of pieces.
const MANIFEST: &str = "manifest.json";
const DATABASE: &str = "serverflow.db";
const ROOT_PUBLIC: &str = "root.pub";
const SETTINGS: &str = "settings.toml";
const KEYS: &str = "keys";
const SIGNER_TRUST: &str = "signer/trust.json";
const SIGNER_SEQUENCES: &str = "signer/sequences";
const SIGNER_KEYS: &str = "signer/keys";

/// Why there is no backup, or none was put in place.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("{path} does not hold a control plane: name its directory with --data-dir")]
    NotInitialised { path: PathBuf },
    #[error("{path} exists; a backup is never overwritten. Choose another name")]
    Exists { path: PathBuf },
    #[error("{path} holds something already: give a --data-dir that does not exist yet, or is empty")]
    NotEmpty { path: PathBuf },
    #[error("another backup of {path} is being made; wait for it")]
    Busy { path: PathBuf },
    #[error(
        "the signer is a service of its own (signer_socket): name its directory with --signer-dir, as in `--signer-dir \
         /var/lib/serverflow-signer`, and run this as root"
    )]
    SignerElsewhere,
    #[error(
        "there is no signer in {path}: start the control plane once, or name the signer's directory with --signer-dir"
    )]
    NoSigner { path: PathBuf },
    #[error("{0}")]
    Backup(#[from] BackupError),
    #[error("{0}")]
    Store(#[from] StoreError),
    #[error("{0}")]
    Signer(#[from] PlaceError),
    #[error("{0}")]
    Key(#[from] KeyFileError),
    #[error("the root metadata does not verify: {0}")]
    Root(#[from] envelope::root::RootError),
    #[error("{path} is not this fleet's: {why}. Give the backup of the fleet whose root key {root} holds")]
    OtherFleet { path: PathBuf, root: PathBuf, why: String },
    #[error("the backup {path} cannot be used: {why}. Nothing was put in place; use an older backup")]
    Unfit { path: PathBuf, why: String },
    #[error(
        "{path} holds no root public key: expected 64 hexadecimal digits, as in the file root.pub that `init` wrote"
    )]
    RootFile { path: PathBuf },
    #[error(
        "the backup opens with {}: give --passphrase-file FILE (`-` reads standard input), or --recovery-key KEYFILE", ways.join(", or ")
    )]
    NoOpener { ways: Vec<String> },
    #[error("the first line of {path} is empty; it should be the passphrase")]
    NoPassphrase { path: PathBuf },
    #[error("cannot {what} {path}: check the owner and the free space of its disk")]
    Io {
        what: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(
        "the backup's passphrase cannot be printed, and it is shown only once; {path} was removed again. Make it anew"
    )]
    Print {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

impl crate::Ending for Error {
    fn exit_code(&self) -> u8 {
        match self {
            Self::NotInitialised { .. }
            | Self::Exists { .. }
            | Self::NotEmpty { .. }
            | Self::SignerElsewhere
            | Self::NoSigner { .. }
            | Self::RootFile { .. }
            | Self::NoOpener { .. }
            | Self::NoPassphrase { .. }
            | Self::Backup(BackupError::PassphraseShort | BackupError::NotABackup | BackupError::Locked { .. }) => {
                crate::EXIT_INVALID
            }
            _ => 1,
        }
    }
}

fn io_error<'p>(what: &'static str, path: &'p Path) -> impl Fn(io::Error) -> Error + 'p {
    move |source| Error::Io { what, path: path.to_owned(), source }
}

/// What a backup says of itself, as its first piece.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Manifest {
    fleet_id: FleetId,
    made_ms: UnixMs,
    program_version: String,
    root_version: RootVersion,
    /// Hosts that were not revoked.
    hosts: u64,
    log: AuditLogId,
    /// Entries of the audit log.
    log_size: u64,
}

/// The first line of a file, or of standard input.
fn passphrase_of(path: &Path) -> Result<Zeroizing<String>, Error> {
    use std::io::Read as _;
    let mut text = Zeroizing::new(String::new());
    let read = if path == Path::new("-") {
        io::stdin().take(limits::PASSPHRASE_FILE_BYTES_MAX).read_to_string(&mut text)
    } else {
        std::fs::File::open(path)
            .and_then(|file| file.take(limits::PASSPHRASE_FILE_BYTES_MAX).read_to_string(&mut text))
    };
    read.map_err(io_error("read the passphrase from", path))?;
    match text.lines().next() {
        Some(line) if !line.is_empty() => Ok(Zeroizing::new(line.to_owned())),
        _ => Err(Error::NoPassphrase { path: path.to_owned() }),
    }
}
