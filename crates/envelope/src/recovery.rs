//! Recovery copies: the secrets of one deploy, sealed a second time for the fleet's owner, so that an app
//! whose host is gone can be brought to another.
//!
//! Each copy has an X25519 key of its own, made for it and forgotten: the values are sealed to that key, and its
//! private half is sealed to every owner recovery key that root metadata lists. So a copy is as large as one
//! host's sealed values however many recovery keys there are, and a new recovery key needs 32 bytes sealed anew,
//! not the values. HPKE as in [`crate::seal`], with `info` texts of its own.
//!
//! Like every sealed value, a copy says nothing about who sealed it. Whoever stores it can put another in its place,
//! and so choose what secrets an app begins with elsewhere, but never read them.

use std::collections::BTreeMap;

use hpke::rand_core::CryptoRng;
use ids::{FleetId, OperationId, Sha256, sha256};
use zeroize::Zeroizing;

use crate::{
    keys, limits,
    messages::{SealedValue, SealingKeyBytes},
    seal::{SealError, SealingSecretKey, push_text, to_key},
};

/// For the values.
const INFO_VALUE: &[u8] = b"serverflow recovery value v1";
/// For the copy's own key.
const INFO_KEY: &[u8] = b"serverflow recovery key v1";

/// Which deploy a copy belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecoveryContext<'a> {
    pub fleet: FleetId,
    /// The app's name.
    pub app: &'a str,
    /// The operation that deployed it.
    pub version: OperationId,
}

/// The copy's own private key, sealed to one owner recovery key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WrappedKey {
    pub recovery_key: SealingKeyBytes,
    /// HPKE encapsulated key and ciphertext: [`limits::RECOVERY_WRAPPED_BYTES`].
    pub bytes: Vec<u8>,
}

/// All secrets of one deploy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecoveryCopy {
    /// One for each recovery key, 1 to [`limits::RECOVERY_KEYS_COUNT_MAX`].
    pub keys: Vec<WrappedKey>,
    /// Each secret by its name, sealed to the copy's own key.
    pub values: Vec<SealedValue>,
}

/// Secrets by name, as they were before they were sealed.
pub type OpenedSecrets = BTreeMap<String, Zeroizing<Vec<u8>>>;

/// Why a copy cannot be made or opened. Says nothing of the values.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecoveryError {
    /// The copy is not sealed to that key.
    #[error("the secrets were not sealed to recovery key {0}")]
    NotSealedTo(SealingKeyBytes),
    /// There is nobody to seal it to.
    #[error("root metadata names no owner recovery key")]
    NoKeys,
    /// It names a key or a value twice, or has too many.
    #[error("the recovery copy is not well formed: {0}")]
    Malformed(&'static str),
    #[error(transparent)]
    Seal(#[from] SealError),
}

impl RecoveryContext<'_> {
    fn associated_data(&self, name: Option<&str>) -> Result<Vec<u8>, SealError> {
        let mut bytes = Vec::with_capacity(40 + self.app.len() + name.map_or(0, str::len));
        bytes.extend_from_slice(self.fleet.as_bytes());
        bytes.extend_from_slice(self.version.as_bytes());
        push_text(&mut bytes, "app", self.app, limits::SEAL_APP_BYTES_MAX)?;
        if let Some(name) = name {
            push_text(&mut bytes, "name", name, limits::SEALED_NAME_BYTES_MAX)?;
        }
        Ok(bytes)
    }
}

/// Seals a deploy's secrets to every recovery key. `seed` becomes the copy's own key: 32 fresh random bytes that
/// are used for nothing else.
///
/// # Errors
/// When there is no recovery key, one is not acceptable, or a name or value is too long.
pub fn recovery_copy<'v>(
    recovery_keys: &[SealingKeyBytes],
    context: &RecoveryContext<'_>,
    secrets: impl IntoIterator<Item = (&'v str, &'v [u8])>,
    seed: &Zeroizing<[u8; 32]>,
    rng: &mut impl CryptoRng,
) -> Result<RecoveryCopy, RecoveryError> {
    let own = SealingSecretKey::from_bytes(seed);
    let to = own.public();
    let mut values = Vec::new();
    for (name, plaintext) in secrets {
        let associated = context.associated_data(Some(name))?;
        let (length, max) = (plaintext.len(), limits::SECRET_BYTES_MAX);
        if length > max {
            return Err(SealError::TooLong { name: name.to_owned(), length, max }.into());
        }
        let bytes = to_key(&to, INFO_VALUE, &associated, plaintext, rng).ok_or_else(|| refused(name))?;
        values.push(SealedValue { name: name.to_owned(), bytes });
    }
    Ok(RecoveryCopy { keys: wrap(&own, recovery_keys, context, rng)?, values })
}

fn refused(name: &str) -> SealError {
    SealError::Seal { name: name.to_owned() }
}

fn wrap(
    own: &SealingSecretKey,
    recovery_keys: &[SealingKeyBytes],
    context: &RecoveryContext<'_>,
    rng: &mut impl CryptoRng,
) -> Result<Vec<WrappedKey>, RecoveryError> {
    if recovery_keys.is_empty() {
        return Err(RecoveryError::NoKeys);
    }
    let associated = context.associated_data(None)?;
    let private = own.to_bytes();
    let mut wrapped = Vec::with_capacity(recovery_keys.len());
    for key in recovery_keys {
        let name = || format!("recovery key {key}");
        keys::check_sealing_key(key).map_err(|source| SealError::Key { name: name(), source })?;
        let bytes = to_key(key, INFO_KEY, &associated, private.as_slice(), rng).ok_or_else(|| refused(&name()))?;
        wrapped.push(WrappedKey { recovery_key: *key, bytes });
    }
    Ok(wrapped)
}

impl RecoveryCopy {
    /// Whether it is well formed: keys and values each once and within the limits, of the right sizes.
    ///
    /// # Errors
    /// Which of these does not hold.
    pub fn check(&self) -> Result<(), RecoveryError> {
        let malformed = |what| Err(RecoveryError::Malformed(what));
        check_wrapped(&self.keys)?;
        if self.values.is_empty() || self.values.len() > limits::SEALED_COUNT_MAX {
            return malformed("it has no value, or too many");
        }
        if self.values.windows(2).any(|pair| pair[0].name >= pair[1].name) {
            return malformed("its values are not in the order of their names, each once");
        }
        let total = self.values.iter().fold(0usize, |sum, value| sum.saturating_add(value.bytes.len()));
        if total > limits::SEALED_TOTAL_BYTES_MAX {
            return malformed("its values are too large together");
        }
        if self.values.iter().any(|value| value.name.len() > limits::SEALED_NAME_BYTES_MAX) {
            return malformed("a name is too long");
        }
        Ok(())
    }

    /// Names of its values, in order.
    pub fn names(&self) -> impl Iterator<Item = &String> {
        self.values.iter().map(|value| &value.name)
    }

    /// What an audit leaf says of it: SHA-256 over its values, each name and value behind its length (4 bytes, big
    /// endian), in order. The keys it is sealed to may change later; the values never do.
    #[must_use]
    pub fn values_sha256(&self) -> Sha256 {
        let mut bytes = Vec::new();
        for part in self.values.iter().flat_map(|value| [value.name.as_bytes(), &value.bytes]) {
            bytes.extend_from_slice(&u32::try_from(part.len()).unwrap_or(u32::MAX).to_be_bytes());
            bytes.extend_from_slice(part);
        }
        sha256(&bytes)
    }

    /// Opens every value with one of the recovery keys it is sealed to.
    ///
    /// # Errors
    /// When it is not sealed to that key, belongs to another deploy, or was changed.
    pub fn open(&self, key: &SealingSecretKey, context: &RecoveryContext<'_>) -> Result<OpenedSecrets, RecoveryError> {
        let own = self.own_key(key, context)?;
        let mut opened = BTreeMap::new();
        for SealedValue { name, bytes } in &self.values {
            let associated = context.associated_data(Some(name))?;
            let value = own.open_with(INFO_VALUE, &associated, bytes);
            let value = value.ok_or_else(|| SealError::Open { name: name.clone() })?;
            if opened.insert(name.clone(), value).is_some() {
                return Err(RecoveryError::Malformed("it names a value twice"));
            }
        }
        Ok(opened)
    }

    /// Its own key sealed to other recovery keys; the values stay as they are.
    ///
    /// # Errors
    /// As [`RecoveryCopy::open`] and [`recovery_copy`].
    pub fn rewrapped(
        &self,
        key: &SealingSecretKey,
        recovery_keys: &[SealingKeyBytes],
        context: &RecoveryContext<'_>,
        rng: &mut impl CryptoRng,
    ) -> Result<Vec<WrappedKey>, RecoveryError> {
        wrap(&self.own_key(key, context)?, recovery_keys, context, rng)
    }

    fn own_key(
        &self,
        key: &SealingSecretKey,
        context: &RecoveryContext<'_>,
    ) -> Result<SealingSecretKey, RecoveryError> {
        let public = key.public();
        let wrapped = self.keys.iter().find(|wrapped| wrapped.recovery_key == public);
        let wrapped = wrapped.ok_or(RecoveryError::NotSealedTo(public))?;
        let name = || SealError::Open { name: format!("recovery key {public}") };
        let private = key.open_with(INFO_KEY, &context.associated_data(None)?, &wrapped.bytes).ok_or_else(name)?;
        let private = Zeroizing::new(private.as_slice().try_into().map_err(|_| name())?);
        Ok(SealingSecretKey::from_bytes(&private))
    }
}

/// Whether wrapped keys are well formed: 1 to [`limits::RECOVERY_KEYS_COUNT_MAX`], each once, of the right size.
///
/// # Errors
/// Which of these does not hold.
pub fn check_wrapped(keys: &[WrappedKey]) -> Result<(), RecoveryError> {
    let malformed = |what| Err(RecoveryError::Malformed(what));
    if keys.is_empty() || keys.len() > limits::RECOVERY_KEYS_COUNT_MAX {
        return malformed("it is sealed to no recovery key, or to too many");
    }
    if keys.iter().any(|wrapped| wrapped.bytes.len() != limits::RECOVERY_WRAPPED_BYTES) {
        return malformed("a sealed key has another length");
    }
    let twice = |at: usize| keys[..at].iter().any(|earlier| earlier.recovery_key == keys[at].recovery_key);
    if (0..keys.len()).any(twice) {
        return malformed("it names a recovery key twice");
    }
    Ok(())
}
