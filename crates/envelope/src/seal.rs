//! Sealed values: secrets only one host can open, bound to where they belong.
//!
//! HPKE (RFC 9180) in base mode: DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, ChaCha20-Poly1305. The
//! associated data names fleet, host, app, name and version, so a sealed value does not open
//! anywhere else. Base mode says nothing about who sealed: the signed order carries the hash of the
//! sealed bytes.

use hpke::{
    Deserializable, Kem as _, OpModeR, OpModeS, Serializable, aead::ChaCha20Poly1305, kdf::HkdfSha256,
    kem::X25519HkdfSha256, rand_core::CryptoRng, single_shot_open, single_shot_seal_with_rng,
};
use ids::{FleetId, HostId, OperationId};
use zeroize::Zeroizing;

use crate::{
    keys::{self, KeyError},
    limits,
    messages::{Order, SealedValue, SealingKeyBytes},
};

type Kem = X25519HkdfSha256;

/// Separates these uses of HPKE from any other under the same key.
const INFO: &[u8] = b"serverflow sealed value v1";
const ENCAPSULATED_BYTES: usize = 32;

/// Where a sealed value belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SealContext<'a> {
    pub fleet: FleetId,
    pub host: HostId,
    /// The app's name.
    pub app: &'a str,
    /// `service/variable`, as in [`SealedValue::name`].
    pub name: &'a str,
    /// The operation it was sealed for.
    pub version: OperationId,
}

/// Why a value cannot be sealed or opened. Says nothing of the value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// The recipient's key is not acceptable.
    #[error("cannot seal {name:?}: the recipient's key is not acceptable")]
    Key { name: String, source: KeyError },
    /// The app's or value's name is empty or too long.
    #[error("a sealed value's {what} has {length} bytes; 1 to {max} are possible")]
    Name { what: &'static str, length: usize, max: usize },
    /// The value is too long.
    #[error("cannot seal {name:?}: the value has {length} bytes; at most {max} are allowed")]
    TooLong { name: String, length: usize, max: usize },
    /// The library refused to seal.
    #[error("cannot seal {name:?}")]
    Seal { name: String },
    /// Not sealed for this host, app, name and operation, or damaged.
    #[error("cannot open {name:?}: it was not sealed for this host, app, name and operation, or it was damaged")]
    Open { name: String },
    /// The values that came with an order are not the ones it names.
    #[error("the sealed values do not match the order: {what}")]
    Mismatch { what: &'static str },
}

impl SealContext<'_> {
    /// Fixed-size ids first, then each text behind its length: two contexts never give the same bytes.
    fn associated_data(&self) -> Result<Vec<u8>, SealError> {
        let mut bytes = Vec::with_capacity(56 + self.app.len() + self.name.len());
        bytes.extend_from_slice(self.fleet.as_bytes());
        bytes.extend_from_slice(self.host.as_bytes());
        bytes.extend_from_slice(self.version.as_bytes());
        push_text(&mut bytes, "app", self.app, limits::SEAL_APP_BYTES_MAX)?;
        push_text(&mut bytes, "name", self.name, limits::SEALED_NAME_BYTES_MAX)?;
        Ok(bytes)
    }
}

/// A text behind its length.
pub(crate) fn push_text(bytes: &mut Vec<u8>, what: &'static str, text: &str, max: usize) -> Result<(), SealError> {
    let length = text.len();
    let wrong = SealError::Name { what, length, max };
    if length == 0 || length > max {
        return Err(wrong);
    }
    bytes.extend_from_slice(&u16::try_from(length).map_err(|_| wrong)?.to_be_bytes());
    bytes.extend_from_slice(text.as_bytes());
    Ok(())
}

/// Seals `plaintext` to one key. `rng` must be a good random source. Returns the encapsulated key
/// (32 bytes) followed by the ciphertext and its tag.
///
/// # Errors
/// When the key is not acceptable, or a name or the value is too long.
pub fn seal(
    to: &SealingKeyBytes,
    context: &SealContext<'_>,
    plaintext: &[u8],
    rng: &mut impl CryptoRng,
) -> Result<Vec<u8>, SealError> {
    let name = || context.name.to_owned();
    let associated = context.associated_data()?;
    if plaintext.len() > limits::SECRET_BYTES_MAX {
        return Err(SealError::TooLong { name: name(), length: plaintext.len(), max: limits::SECRET_BYTES_MAX });
    }
    keys::check_sealing_key(to).map_err(|source| SealError::Key { name: name(), source })?;
    to_key(to, INFO, &associated, plaintext, rng).ok_or_else(|| SealError::Seal { name: name() })
}

/// Seals to a key that was checked. `None` when the library refuses.
pub(crate) fn to_key(
    to: &SealingKeyBytes,
    info: &[u8],
    associated: &[u8],
    plaintext: &[u8],
    rng: &mut impl CryptoRng,
) -> Option<Vec<u8>> {
    let key = <Kem as hpke::Kem>::PublicKey::from_bytes(&to.0).ok()?;
    let (encapsulated, ciphertext) = single_shot_seal_with_rng::<ChaCha20Poly1305, HkdfSha256, Kem>(
        &OpModeS::Base,
        &key,
        info,
        plaintext,
        associated,
        rng,
    )
    .ok()?;
    let mut sealed = encapsulated.to_bytes().to_vec();
    sealed.extend_from_slice(&ciphertext);
    Some(sealed)
}

/// The private X25519 key that opens what was sealed to a host (or to the owner, for recovery).
/// Zeroized when dropped; neither printed nor copied.
pub struct SealingSecretKey {
    inner: <Kem as hpke::Kem>::PrivateKey,
}

impl SealingSecretKey {
    /// From 32 bytes (RFC 7748 section 5), which must come from a good random source.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; 32]) -> Self {
        let inner = <Kem as hpke::Kem>::PrivateKey::from_bytes(bytes)
            .expect("invariant: any 32 bytes are an X25519 private key");
        Self { inner }
    }

    /// The bytes, for writing the key to where it is kept.
    #[must_use]
    pub fn to_bytes(&self) -> Zeroizing<[u8; 32]> {
        let mut bytes = Zeroizing::new([0; 32]);
        self.inner.write_exact(bytes.as_mut_slice());
        bytes
    }

    /// The public half.
    #[must_use]
    pub fn public(&self) -> SealingKeyBytes {
        let mut bytes = [0; 32];
        Kem::sk_to_pk(&self.inner).write_exact(&mut bytes);
        SealingKeyBytes(bytes)
    }

    /// Opens a sealed value in its context.
    ///
    /// # Errors
    /// When it was sealed for another key or context, or was changed. One error for all of these.
    pub fn open(&self, context: &SealContext<'_>, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, SealError> {
        let refused = || SealError::Open { name: context.name.to_owned() };
        let associated = context.associated_data()?;
        self.open_with(INFO, &associated, sealed).ok_or_else(refused)
    }

    /// Opens what was sealed for that use and place, or nothing.
    pub(crate) fn open_with(&self, info: &[u8], associated: &[u8], sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        if sealed.len() > limits::SECRET_BYTES_MAX + limits::SEAL_OVERHEAD_BYTES {
            return None;
        }
        let (encapsulated, ciphertext) = sealed.split_at_checked(ENCAPSULATED_BYTES)?;
        let encapsulated = <Kem as hpke::Kem>::EncappedKey::from_bytes(encapsulated).ok()?;
        single_shot_open::<ChaCha20Poly1305, HkdfSha256, Kem>(
            &OpModeR::Base,
            &self.inner,
            &encapsulated,
            info,
            ciphertext,
            associated,
        )
        .map(Zeroizing::new)
        .ok()
    }
}

/// Wraps a short secret for one key, without a context: `info` separates this use of the key from every other. The
/// encapsulated key (32 bytes) followed by the ciphertext and its tag.
///
/// # Errors
/// When the key is not acceptable.
pub fn wrap(to: &SealingKeyBytes, info: &[u8], secret: &[u8], rng: &mut impl CryptoRng) -> Result<Vec<u8>, KeyError> {
    keys::check_sealing_key(to)?;
    to_key(to, info, &[], secret, rng).ok_or(KeyError::Weak)
}

impl SealingSecretKey {
    /// What [`wrap`] was given; `None` when it was wrapped for another key or use, or changed.
    #[must_use]
    pub fn unwrap_secret(&self, info: &[u8], wrapped: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        self.open_with(info, &[], wrapped)
    }
}

/// Whether `values` are exactly the sealed values `order` names, in its order, and within
/// [`limits::SEALED_TOTAL_BYTES_MAX`] together.
///
/// # Errors
/// [`SealError::Mismatch`] says which of these does not hold.
pub fn check_sealed_values(order: &Order, values: &[SealedValue]) -> Result<(), SealError> {
    let mismatch = |what| Err(SealError::Mismatch { what });
    if values.len() != order.sealed.len() {
        return mismatch("their number differs");
    }
    let total = values.iter().fold(0usize, |sum, value| sum.saturating_add(value.bytes.len()));
    if total > limits::SEALED_TOTAL_BYTES_MAX {
        return mismatch("together they are too large");
    }
    for (named, value) in order.sealed.iter().zip(values) {
        if named.name != value.name {
            return mismatch("a name differs");
        }
        if named.sha256 != ids::sha256(&value.bytes) {
            return mismatch("a hash differs");
        }
    }
    Ok(())
}
