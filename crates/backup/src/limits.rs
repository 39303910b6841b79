//! Every bound of this room, in one place.

/// The format this program writes and reads.
pub const FORMAT: u32 = 1;
/// Bytes of content in one chunk; what is held in memory at a time.
pub const CHUNK_BYTES: usize = 64 * 1024;
/// Bytes of the head.
pub const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Ways to open one backup: as many owner recovery keys as root metadata may name, and a passphrase.
pub const LOCKS_MAX: usize = envelope::limits::RECOVERY_KEYS_COUNT_MAX + 1;
/// Characters of a passphrase that is given.
pub const PASSPHRASE_CHARS_MIN: usize = 12;
/// scrypt's cost (log2 N) of a backup that is written; with r = 8 it takes 128 MiB and a moment.
pub const SCRYPT_LOG_N: u8 = 17;
/// Highest such cost that is taken from a file: 1 GiB. More would be an attack on whoever opens it.
pub const SCRYPT_LOG_N_MAX: u8 = 20;
/// scrypt's block size.
pub const SCRYPT_R: u32 = 8;
/// scrypt's parallelism.
pub const SCRYPT_P: u32 = 1;
/// Pieces in one backup.
pub const PIECES_MAX: usize = 1024;
/// Bytes of a piece's name.
pub const NAME_BYTES_MAX: usize = 128;
