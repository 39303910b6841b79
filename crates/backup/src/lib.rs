//! A backup file: named pieces of any length in one stream, encrypted whole, and found whole or not at all.
//!
//! Everything is under one fresh key, which the file's head holds once for each way of opening it: sealed to an owner
//! recovery key (HPKE), or under a passphrase (scrypt). The content is cut into chunks of 64 KiB, each encrypted with its number
//! and with whether it is the last, and bound to the head: a chunk that was changed, moved, left out or added does not open, nor does
//! a file that was cut. Nobody but the holder of a passphrase can make a file that opens with it; to a recovery key
//! anyone can seal, so whoever opens one has to know by other means whose it is.
//!
//! The room knows neither what the pieces are nor where they go. `docs/RECOVERY.md` has the format.

mod head;
pub mod limits;
mod name;
mod read;
mod stream;
mod write;

pub use self::{
    head::{Lock, Opener, Way},
    name::is_name,
    read::{Piece, Reader},
    write::Writer,
};

use std::io;

/// Why a backup file was not written or not read. No secret is in it.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// Whoever writes it names no way to open it.
    #[error("a backup needs an owner recovery key or a passphrase to open it with")]
    NoLock,
    /// Too many ways to open it.
    #[error("a backup is sealed to at most {} keys", limits::LOCKS_MAX)]
    TooManyLocks,
    /// An owner recovery key is unusable.
    #[error(
        "the owner recovery key {key} cannot be sealed to; drop it with `serverflow root propose --drop-recovery-key`"
    )]
    Key { key: String },
    /// Too short to protect anything.
    #[error("the passphrase has fewer than {} characters; choose a longer one", limits::PASSPHRASE_CHARS_MIN)]
    PassphraseShort,
    /// The system gives no randomness.
    #[error("the operating system gave no randomness")]
    Randomness,
    /// A piece's name is not one.
    #[error("{name:?} cannot be the name of a piece of a backup")]
    Name { name: String },
    /// A piece was of another length than was said before.
    #[error("{name} changed its length while it was read; make the backup again")]
    Length { name: String },
    /// Something else.
    #[error("this is no ServerFlow backup")]
    NotABackup,
    /// Of a later program.
    #[error(
        "this backup has format {found}, and this program reads {}: use the release that made it, or a newer one",
        limits::FORMAT
    )]
    Format { found: u32 },
    /// The head says what cannot be.
    #[error("the backup's head is damaged ({why}); use another copy or an older backup")]
    Head { why: String },
    /// Not with this key or passphrase.
    #[error("{way} does not open this backup; it opens with {}", ways.join(", or "))]
    Locked { way: &'static str, ways: Vec<String> },
    /// A chunk does not open, or there is none where one must be.
    #[error(
        "the backup was changed or cut: chunk {chunk} (at byte {at}) does not open. Nothing was put in place; use another \
         copy or an older backup"
    )]
    Damaged { chunk: u64, at: u64 },
    /// What is in it is not what a backup holds.
    #[error("the backup's content is wrong ({why}); it was made by another program")]
    Content { why: String },
    /// The file system refused.
    #[error("{doing} failed: {source}")]
    Io {
        doing: &'static str,
        #[source]
        source: io::Error,
    },
}

fn io_at(doing: &'static str) -> impl Fn(io::Error) -> BackupError {
    move |source| BackupError::Io { doing, source }
}

#[cfg(test)]
mod tests;
