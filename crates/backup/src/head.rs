//! The head: in the clear, how the file's key can be had.

use chacha20poly1305::{ChaCha20Poly1305, KeyInit as _, Nonce, aead::Aead as _};
use data_encoding::{BASE64, HEXLOWER};
use envelope::{
    messages::SealingKeyBytes,
    seal::{self, SealingSecretKey},
};
use rand::{TryRng as _, rand_core::UnwrapErr, rngs::SysRng};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::{BackupError, limits};

/// Separates this use of an owner recovery key from any other.
const INFO: &[u8] = b"serverflow backup v1";
const KEY_BYTES: usize = 32;
const SALT_BYTES: usize = 16;

/// The key that the content is encrypted with.
pub(crate) type FileKey = Zeroizing<[u8; KEY_BYTES]>;

/// What a backup is to be opened with; at least one.
#[derive(Clone, Default)]
pub struct Lock {
    pub recovery_keys: Vec<SealingKeyBytes>,
    pub passphrase: Option<Zeroizing<String>>,
}

/// What opens a backup.
pub enum Opener {
    Passphrase(Zeroizing<String>),
    /// The private half of an owner recovery key.
    RecoveryKey(SealingSecretKey),
}

/// A way in which a backup can be opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Way {
    Passphrase,
    RecoveryKey(SealingKeyBytes),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Head {
    format: u32,
    slots: Vec<Slot>,
}

#[derive(Serialize, Deserialize)]
#[serde(tag = "opens_with", rename_all = "snake_case", deny_unknown_fields)]
enum Slot {
    Passphrase { log_n: u8, salt: String, key: String },
    RecoveryKey { public: String, key: String },
}

fn random<const N: usize>() -> Result<Zeroizing<[u8; N]>, BackupError> {
    let mut bytes = Zeroizing::new([0; N]);
    SysRng.try_fill_bytes(bytes.as_mut_slice()).map_err(|_| BackupError::Randomness)?;
    Ok(bytes)
}

/// A key from a passphrase and a salt (RFC 7914).
fn stretched(passphrase: &str, salt: &[u8], log_n: u8) -> Result<Zeroizing<[u8; KEY_BYTES]>, BackupError> {
    let wrong = || BackupError::Head { why: format!("a cost of 2^{log_n} cannot be") };
    let parameters = scrypt::Params::new(log_n, limits::SCRYPT_R, limits::SCRYPT_P).map_err(|_| wrong())?;
    let mut key = Zeroizing::new([0; KEY_BYTES]);
    scrypt::scrypt(passphrase.as_bytes(), salt, &parameters, key.as_mut_slice()).map_err(|_| wrong())?;
    Ok(key)
}

/// The salt makes each such key one that is used once, so the nonce says nothing.
fn wrapping(key: &Zeroizing<[u8; KEY_BYTES]>) -> (ChaCha20Poly1305, Nonce) {
    let cipher = ChaCha20Poly1305::new(key.as_slice().try_into().expect("invariant: the key has 32 bytes"));
    (cipher, Nonce::default())
}

impl Head {
    /// A fresh key, and a head from which it can be had.
    pub(crate) fn new(lock: &Lock) -> Result<(Self, FileKey), BackupError> {
        let count = lock.recovery_keys.len() + usize::from(lock.passphrase.is_some());
        if count == 0 {
            return Err(BackupError::NoLock);
        }
        if count > limits::LOCKS_MAX {
            return Err(BackupError::TooManyLocks);
        }
        let file_key = random::<KEY_BYTES>()?;
        let mut slots = Vec::with_capacity(count);
        for public in &lock.recovery_keys {
            let wrapped = seal::wrap(public, INFO, file_key.as_slice(), &mut UnwrapErr(SysRng));
            let wrapped = wrapped.map_err(|_| BackupError::Key { key: public.to_string() })?;
            slots.push(Slot::RecoveryKey { public: public.to_string(), key: BASE64.encode(&wrapped) });
        }
        if let Some(passphrase) = &lock.passphrase {
            if passphrase.chars().count() < limits::PASSPHRASE_CHARS_MIN {
                return Err(BackupError::PassphraseShort);
            }
            let salt = random::<SALT_BYTES>()?;
            let (cipher, nonce) = wrapping(&stretched(passphrase, salt.as_slice(), limits::SCRYPT_LOG_N)?);
            let wrapped = cipher.encrypt(&nonce, file_key.as_slice()).expect("invariant: 32 bytes can be encrypted");
            let (salt, key) = (HEXLOWER.encode(salt.as_slice()), BASE64.encode(&wrapped));
            slots.push(Slot::Passphrase { log_n: limits::SCRYPT_LOG_N, salt, key });
        }
        Ok((Self { format: limits::FORMAT, slots }, file_key))
    }

    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("invariant: words and numbers")
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Result<Self, BackupError> {
        /// What every format has.
        #[derive(Deserialize)]
        struct Any {
            format: u32,
        }
        let wrong = |why: String| BackupError::Head { why };
        let any: Any = serde_json::from_slice(bytes).map_err(|error| wrong(error.to_string()))?;
        if any.format != limits::FORMAT {
            return Err(BackupError::Format { found: any.format });
        }
        let head: Self = serde_json::from_slice(bytes).map_err(|error| wrong(error.to_string()))?;
        if head.slots.is_empty() || head.slots.len() > limits::LOCKS_MAX {
            return Err(wrong(format!("{} ways to open it", head.slots.len())));
        }
        Ok(head)
    }

    /// How the file can be opened, as it says itself.
    pub(crate) fn ways(&self) -> Vec<Way> {
        let way = |slot: &Slot| match slot {
            Slot::Passphrase { .. } => Some(Way::Passphrase),
            Slot::RecoveryKey { public, .. } => Some(Way::RecoveryKey(public.parse().ok()?)),
        };
        self.slots.iter().filter_map(way).collect()
    }

    /// The file's key.
    pub(crate) fn open(&self, opener: &Opener) -> Result<FileKey, BackupError> {
        for slot in &self.slots {
            if let Some(key) = slot.open(opener)? {
                return Ok(key);
            }
        }
        let way = match opener {
            Opener::Passphrase(_) => "this passphrase",
            Opener::RecoveryKey(_) => "this recovery key",
        };
        Err(BackupError::Locked { way, ways: self.ways().iter().map(ToString::to_string).collect() })
    }
}

impl Slot {
    /// `None` when this opener is for another slot.
    fn open(&self, opener: &Opener) -> Result<Option<FileKey>, BackupError> {
        let decoded = |text: &str| {
            BASE64.decode(text.as_bytes()).map_err(|_| BackupError::Head { why: "a key is not base64".to_owned() })
        };
        let key = match (self, opener) {
            (Self::Passphrase { log_n, salt, key }, Opener::Passphrase(passphrase)) => {
                if *log_n > limits::SCRYPT_LOG_N_MAX {
                    return Err(BackupError::Head { why: format!("it asks for a cost of 2^{log_n}") });
                }
                let wrong = |_| BackupError::Head { why: "the salt is not hexadecimal".to_owned() };
                let salt = HEXLOWER.decode(salt.as_bytes()).map_err(wrong)?;
                let (cipher, nonce) = wrapping(&stretched(passphrase, &salt, *log_n)?);
                cipher.decrypt(&nonce, decoded(key)?.as_slice()).ok().map(Zeroizing::new)
            }
            (Self::RecoveryKey { public, key }, Opener::RecoveryKey(private))
                if *public == private.public().to_string() =>
            {
                private.unwrap_secret(INFO, &decoded(key)?)
            }
            _ => None,
        };
        Ok(key.and_then(|key| key.as_slice().try_into().ok().map(Zeroizing::new)))
    }
}

impl core::fmt::Display for Way {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Passphrase => f.write_str("its passphrase"),
            Self::RecoveryKey(public) => write!(f, "the owner recovery key {public}"),
        }
    }
}
