//! Private keys on disk: PKCS#8 (RFC 5958, RFC 8410) in PEM, mode 0600, written once and durably.
//!
//! Ed25519 and X25519 keys are 32-byte seeds in version 1 structures, which OpenSSL reads as well.
//! The root key is encrypted with a passphrase (PBES2, scrypt, AES-256-CBC). No key here is ever in
//! a database, a log or an error.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use data_encoding::HEXLOWER;
use pkcs8::{
    AlgorithmIdentifierRef, EncryptedPrivateKeyInfoRef, ObjectIdentifier, PrivateKeyInfoRef, SecretDocument,
    der::{Encode as _, asn1::OctetStringRef, pem::LineEnding},
};
use rand::{TryRng as _, rngs::SysRng};
use zeroize::Zeroizing;

/// Largest key file read, in bytes.
const FILE_BYTES_MAX: u64 = 16 * 1024;
/// Length of a DER OCTET STRING header before a 32-byte seed.
const SEED_HEADER: [u8; 2] = [0x04, 0x20];
/// Words in a generated passphrase: 6 groups of 5 characters, 150 bits.
const PASSPHRASE_GROUPS: usize = 6;
const PASSPHRASE_GROUP_CHARS: usize = 5;
/// Without characters that are mistaken for each other; 32 of them, so a byte maps evenly.
const PASSPHRASE_ALPHABET: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";

/// Which kind of 32-byte key a file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyKind {
    /// Signs (RFC 8032).
    Ed25519,
    /// Agrees (RFC 7748).
    X25519,
}

impl KeyKind {
    /// Object identifier (RFC 8410 section 3).
    const fn oid(self) -> ObjectIdentifier {
        match self {
            Self::Ed25519 => ObjectIdentifier::new_unwrap("1.3.101.112"),
            Self::X25519 => ObjectIdentifier::new_unwrap("1.3.101.110"),
        }
    }
}

/// Why a key file could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// The file system refused.
    #[error("cannot {what} the key file {path}")]
    Io {
        /// What was being done.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
    /// Others may read it.
    #[error(
        "the key file {path} can be read by others (mode {mode:o}): run `chmod 600 {path}` and make sure nobody copied it"
    )]
    Permissions {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Not a key of the kind asked for.
    #[error("{path} does not hold a {kind:?} private key in PKCS#8 PEM form")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// The kind asked for.
        kind: KeyKind,
    },
    /// Not a symmetric key.
    #[error("{path} does not hold 32 bytes in hexadecimal; restore it from a backup")]
    Symmetric {
        /// The file.
        path: PathBuf,
    },
    /// The passphrase does not open it.
    #[error("the passphrase does not open {path}")]
    Passphrase {
        /// The file.
        path: PathBuf,
    },
    /// No randomness to be had.
    #[error("the operating system gave no randomness")]
    Randomness,
}

impl KeyFileError {
    /// Whether the file is there and holds no key: writing or destroying it was cut short, or its content was lost.
    #[must_use]
    pub fn is_torn(&self) -> bool {
        match self {
            Self::Malformed { .. } | Self::Symmetric { .. } => true,
            // Not even text.
            Self::Io { source, .. } => source.kind() == io::ErrorKind::InvalidData,
            Self::Permissions { .. } | Self::Passphrase { .. } | Self::Randomness => false,
        }
    }

    fn io(what: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Io { what, path: path.to_owned(), source }
    }
}

/// Fresh random bytes from the operating system.
///
/// # Errors
/// When it gives none.
pub fn random<const N: usize>() -> Result<Zeroizing<[u8; N]>, KeyFileError> {
    let mut bytes = Zeroizing::new([0; N]);
    SysRng.try_fill_bytes(bytes.as_mut_slice()).map_err(|_| KeyFileError::Randomness)?;
    Ok(bytes)
}

/// A passphrase a person can copy from paper: `xxxxx-xxxxx-…`, 150 bits of randomness.
///
/// # Errors
/// When the operating system gives no randomness.
pub fn passphrase() -> Result<Zeroizing<String>, KeyFileError> {
    let bytes = random::<{ PASSPHRASE_GROUPS * PASSPHRASE_GROUP_CHARS }>()?;
    let mut text = Zeroizing::new(String::with_capacity(bytes.len() + PASSPHRASE_GROUPS));
    for (index, byte) in bytes.iter().enumerate() {
        if index > 0 && index % PASSPHRASE_GROUP_CHARS == 0 {
            text.push('-');
        }
        text.push(char::from(PASSPHRASE_ALPHABET[usize::from(byte % 32)]));
    }
    Ok(text)
}

/// Writes a key to a new file, 0600, durably, whole or not at all: it is written beside, under the name that [`beside`]
/// gives, and renamed. What an earlier process left there is replaced, so one process at a time may write in a directory.
///
/// # Errors
/// When the file exists (a key is never overwritten) or cannot be written.
pub fn write_seed(path: &Path, kind: KeyKind, seed: &[u8; 32]) -> Result<(), KeyFileError> {
    let pem = pem_of(path, kind, &document(path, kind, seed)?, "PRIVATE KEY")?;
    write_whole(path, &pem)
}

/// Where a key lies while [`write_seed`] writes it.
#[must_use]
pub fn beside(path: &Path) -> PathBuf {
    path.with_extension("new")
}

/// Writes a key encrypted with a passphrase to a new file, 0600, durably.
///
/// # Errors
/// When the file exists or cannot be written.
pub fn write_seed_encrypted(path: &Path, kind: KeyKind, seed: &[u8; 32], passphrase: &str) -> Result<(), KeyFileError> {
    let document = with_info(path, kind, seed, |info| info.encrypt(passphrase).ok())?;
    write_text(path, &pem_of(path, kind, &document, "ENCRYPTED PRIVATE KEY")?)
}

/// Reads a key; refuses a file that others may read.
///
/// # Errors
/// When the file cannot be read, is too open, or is not a key of that kind.
pub fn read_seed(path: &Path, kind: KeyKind) -> Result<Zeroizing<[u8; 32]>, KeyFileError> {
    let pem = read_private(path)?;
    let (label, document) = SecretDocument::from_pem(&pem).map_err(|_| malformed(path, kind))?;
    if label != "PRIVATE KEY" {
        return Err(malformed(path, kind));
    }
    seed_of(path, kind, document.as_bytes())
}

/// Reads a key that is encrypted with a passphrase.
///
/// # Errors
/// As [`read_seed`], and when the passphrase is another.
pub fn read_seed_encrypted(path: &Path, kind: KeyKind, passphrase: &str) -> Result<Zeroizing<[u8; 32]>, KeyFileError> {
    let pem = read_private(path)?;
    let (_, document) = SecretDocument::from_pem(&pem).map_err(|_| malformed(path, kind))?;
    let encrypted = EncryptedPrivateKeyInfoRef::try_from(document.as_bytes()).map_err(|_| malformed(path, kind))?;
    let opened = encrypted.decrypt(passphrase).map_err(|_| KeyFileError::Passphrase { path: path.to_owned() })?;
    seed_of(path, kind, opened.as_bytes())
}

/// Writes a fresh symmetric key (32 random bytes, hexadecimal) to a new file, as [`write_seed`] does.
///
/// # Errors
/// As [`write_seed`].
pub fn write_symmetric(path: &Path) -> Result<Zeroizing<[u8; 32]>, KeyFileError> {
    let key = random::<32>()?;
    write_whole(path, &Zeroizing::new(HEXLOWER.encode(key.as_slice())))?;
    Ok(key)
}

/// Reads what [`write_symmetric`] wrote.
///
/// # Errors
/// When the file cannot be read, is too open, or holds something else.
pub fn read_symmetric(path: &Path) -> Result<Zeroizing<[u8; 32]>, KeyFileError> {
    let text = read_private(path)?;
    let wrong = || KeyFileError::Symmetric { path: path.to_owned() };
    let bytes = Zeroizing::new(HEXLOWER.decode(text.trim().as_bytes()).map_err(|_| wrong())?);
    bytes.as_slice().try_into().map(Zeroizing::new).map_err(|_| wrong())
}

/// Writes a secret text (a token, a password, a TLS key in PEM) to a new file, 0600, durably.
///
/// # Errors
/// When the file exists or cannot be written.
pub fn write_text(path: &Path, text: &str) -> Result<(), KeyFileError> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(|source| KeyFileError::io("create", path, source))?;
    file.write_all(text.as_bytes())
        .and_then(|()| file.sync_all())
        .map_err(|source| KeyFileError::io("write", path, source))?;
    sync_directory(path)
}

/// Reads a secret text; refuses a file that others may read.
///
/// # Errors
/// When it cannot be read, is too open, too large, or not UTF-8.
pub fn read_private(path: &Path) -> Result<Zeroizing<String>, KeyFileError> {
    let file = File::open(path).map_err(|source| KeyFileError::io("open", path, source))?;
    let metadata = file.metadata().map_err(|source| KeyFileError::io("read", path, source))?;
    let mode = metadata.mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(KeyFileError::Permissions { path: path.to_owned(), mode });
    }
    let mut text = Zeroizing::new(String::new());
    file.take(FILE_BYTES_MAX).read_to_string(&mut text).map_err(|source| KeyFileError::io("read", path, source))?;
    Ok(text)
}

/// Overwrites a file with zeros and removes it, durably; one that is not there is destroyed. What a disk or file system
/// keeps of old content beside the file is not in its reach.
///
/// # Errors
/// When it cannot be written or removed.
pub fn destroy(path: &Path) -> Result<(), KeyFileError> {
    let failed = |source| KeyFileError::io("destroy", path, source);
    match OpenOptions::new().write(true).open(path) {
        Ok(mut file) => {
            let length = file.metadata().map_err(failed)?.len().min(FILE_BYTES_MAX);
            let zeros = vec![0; usize::try_from(length).unwrap_or_default()];
            file.write_all(&zeros).and_then(|()| file.sync_all()).map_err(failed)?;
            fs::remove_file(path).map_err(failed)?;
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
    }
    sync_directory(path)
}

/// Makes a directory (and its parents) that only its owner may enter.
///
/// # Errors
/// When it cannot be made.
pub fn private_directory(path: &Path) -> Result<(), KeyFileError> {
    use std::os::unix::fs::DirBuilderExt as _;
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|source| KeyFileError::io("make the directory of", path, source))
}

fn malformed(path: &Path, kind: KeyKind) -> KeyFileError {
    KeyFileError::Malformed { path: path.to_owned(), kind }
}

/// Builds the PKCS#8 structure of a seed and hands it to `encode`.
fn with_info(
    path: &Path,
    kind: KeyKind,
    seed: &[u8; 32],
    encode: impl FnOnce(&PrivateKeyInfoRef<'_>) -> Option<SecretDocument>,
) -> Result<SecretDocument, KeyFileError> {
    let mut inner = Zeroizing::new([0; 34]);
    inner[..2].copy_from_slice(&SEED_HEADER);
    inner[2..].copy_from_slice(seed);
    let algorithm = AlgorithmIdentifierRef { oid: kind.oid(), parameters: None };
    let key = OctetStringRef::new(inner.as_slice()).map_err(|_| malformed(path, kind))?;
    encode(&PrivateKeyInfoRef::new(algorithm, key)).ok_or_else(|| malformed(path, kind))
}

fn document(path: &Path, kind: KeyKind, seed: &[u8; 32]) -> Result<SecretDocument, KeyFileError> {
    with_info(path, kind, seed, |info| {
        let bytes = Zeroizing::new(info.to_der().ok()?);
        SecretDocument::try_from(bytes.as_slice()).ok()
    })
}

fn pem_of(
    path: &Path,
    kind: KeyKind,
    document: &SecretDocument,
    label: &'static str,
) -> Result<Zeroizing<String>, KeyFileError> {
    document.to_pem(label, LineEnding::LF).map_err(|_| malformed(path, kind))
}

/// A new file that is there with its content, or not there.
fn write_whole(path: &Path, text: &str) -> Result<(), KeyFileError> {
    if path.symlink_metadata().is_ok() {
        return Err(KeyFileError::io("create", path, io::ErrorKind::AlreadyExists.into()));
    }
    let new = beside(path);
    destroy(&new)?;
    write_text(&new, text)?;
    fs::rename(&new, path).map_err(|source| KeyFileError::io("rename", &new, source))?;
    sync_directory(path)
}

fn seed_of(path: &Path, kind: KeyKind, der: &[u8]) -> Result<Zeroizing<[u8; 32]>, KeyFileError> {
    let info = PrivateKeyInfoRef::try_from(der).map_err(|_| malformed(path, kind))?;
    if info.algorithm.oid != kind.oid() || info.algorithm.parameters.is_some() {
        return Err(malformed(path, kind));
    }
    let seed = info.private_key.as_bytes().strip_prefix(&SEED_HEADER).ok_or_else(|| malformed(path, kind))?;
    seed.try_into().map(Zeroizing::new).map_err(|_| malformed(path, kind))
}

/// A new file is durable once its directory entry is.
fn sync_directory(path: &Path) -> Result<(), KeyFileError> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    File::open(directory)
        .and_then(|directory| directory.sync_all())
        .map_err(|source| KeyFileError::io("write the directory of", path, source))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn keys_come_back_as_written_and_are_private() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        for kind in [KeyKind::Ed25519, KeyKind::X25519] {
            let path = directory.path().join(format!("{kind:?}.key"));
            let seed = random().expect("randomness");
            write_seed(&path, kind, &seed).expect("written");
            assert_eq!(*read_seed(&path, kind).expect("read"), *seed);
            let mode = fs::metadata(&path).expect("exists").permissions().mode() & 0o777;
            assert_eq!(mode, 0o600);
            assert!(matches!(write_seed(&path, kind, &seed), Err(KeyFileError::Io { .. })), "never overwritten");
        }
        let other = directory.path().join("Ed25519.key");
        assert!(matches!(read_seed(&other, KeyKind::X25519), Err(KeyFileError::Malformed { .. })));
    }

    #[test]
    fn a_key_written_beside_is_there_whole_and_replaces_only_what_was_cut_short() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("identity.key.pem");
        fs::write(beside(&path), "-----BEGIN").expect("an earlier process died while it wrote");
        write_seed(&path, KeyKind::Ed25519, &[7; 32]).expect("written");
        assert_eq!(*read_seed(&path, KeyKind::Ed25519).expect("read"), [7; 32]);
        assert!(!beside(&path).exists());
        assert!(write_seed(&path, KeyKind::Ed25519, &[8; 32]).is_err(), "never overwritten");
        assert_eq!(*read_seed(&path, KeyKind::Ed25519).expect("read"), [7; 32]);
    }

    #[test]
    fn a_file_without_a_key_is_told_from_one_that_may_not_be_read() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("torn.key");
        write_seed(&path, KeyKind::Ed25519, &[7; 32]).expect("written");
        let whole = fs::read(&path).expect("read");
        let torn = [Vec::new(), whole[..whole.len() / 2].to_vec(), vec![0; whole.len()], vec![0xff; whole.len()]];
        for content in torn {
            fs::write(&path, content).expect("written");
            assert!(read_seed(&path, KeyKind::Ed25519).is_err_and(|error| error.is_torn()));
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("mode set");
        assert!(read_seed(&path, KeyKind::Ed25519).is_err_and(|error| !error.is_torn()));
        fs::remove_file(&path).expect("removed");
        assert!(read_seed(&path, KeyKind::Ed25519).is_err_and(|error| !error.is_torn()));
    }

    #[test]
    fn the_root_key_needs_its_passphrase() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("root.key");
        let (seed, phrase) = (random().expect("randomness"), passphrase().expect("randomness"));
        write_seed_encrypted(&path, KeyKind::Ed25519, &seed, &phrase).expect("written");
        assert_eq!(*read_seed_encrypted(&path, KeyKind::Ed25519, &phrase).expect("read"), *seed);
        assert!(matches!(
            read_seed_encrypted(&path, KeyKind::Ed25519, "another"),
            Err(KeyFileError::Passphrase { .. })
        ));
        assert!(read_seed(&path, KeyKind::Ed25519).is_err(), "not readable as a plain key");
    }

    #[test]
    fn a_symmetric_key_comes_back_and_nothing_else_passes_for_one() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("data.key");
        let key = write_symmetric(&path).expect("written");
        assert_eq!(*read_symmetric(&path).expect("read"), *key);
        let other = directory.path().join("other.key");
        write_text(&other, "abcd").expect("written");
        assert!(matches!(read_symmetric(&other), Err(KeyFileError::Symmetric { .. })));
    }

    #[test]
    fn a_key_others_may_read_is_refused() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("open.key");
        write_seed(&path, KeyKind::Ed25519, &[7; 32]).expect("written");
        assert!(read_seed(&path, KeyKind::Ed25519).is_ok());
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).expect("mode set");
        assert!(matches!(read_seed(&path, KeyKind::Ed25519), Err(KeyFileError::Permissions { mode: 0o640, .. })));
    }

    #[test]
    fn a_destroyed_file_is_overwritten_before_it_is_gone() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("key.pem");
        write_seed(&path, KeyKind::Ed25519, &[7; 32]).expect("written");
        let other_name = directory.path().join("other-name");
        fs::hard_link(&path, &other_name).expect("a second name for the same content");
        destroy(&path).expect("destroyed");
        destroy(&path).expect("once is enough");
        let left = fs::read(&other_name).expect("read");
        assert!(!path.exists() && !left.is_empty() && left.iter().all(|byte| *byte == 0));
    }
}
