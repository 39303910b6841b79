//! Keys: one Rust type per role, so that a command key cannot verify a report.
//!
//! Ed25519 (RFC 8032), verified with `verify_strict`. A public key is checked where it enters: it
//! must be canonical, must not be of small order, and must have no torsion component.

use core::{fmt, marker::PhantomData};

use ed25519_dalek::Signer as _;
use ids::KeyId;
use zeroize::Zeroizing;

use crate::messages::{PublicKeyBytes, SealingKeyBytes};

/// What a key may sign.
pub trait KeyRole: Copy + Eq + fmt::Debug + Send + Sync + 'static {
    /// What a person calls a key of this role, such as `command key`.
    const NAME: &'static str;
}

/// The roles. They exist as types only.
pub mod role {
    macro_rules! roles {
        ($($(#[$doc:meta])* $role:ident, $name:literal;)*) => {$(
            $(#[$doc])*
            #[derive(Clone, Copy, PartialEq, Eq, Debug)]
            pub enum $role {}
            impl super::KeyRole for $role {
                const NAME: &'static str = $name;
            }
        )*};
    }
    roles! {
        /// Offline; signs root metadata only.
        Root, "root key";
        /// Online; signs hellos and enrolment receipts.
        Session, "session key";
        /// Online, held by the signer alone; signs commands and `session-open`.
        Command, "command key";
        /// Online; signs heads of the audit log.
        Audit, "audit key";
        /// On a person's machine; signs approvals.
        Approver, "approver key";
        /// On one host; signs proofs and reports.
        Agent, "agent identity key";
    }
}

/// Why bytes are not an acceptable public key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// No point of the curve has this encoding.
    #[error("not a point of the curve")]
    NotAPoint,
    /// The point has another encoding, which is the one to use.
    #[error("not the canonical encoding of its point")]
    NotCanonical,
    /// A point of small order: signatures under it prove nothing.
    #[error("a weak key (point of small order)")]
    Weak,
    /// A point outside the prime-order subgroup: verifiers could disagree about signatures.
    #[error("the key has a torsion component")]
    Torsion,
}

/// The id of a public key: the first 16 bytes of its SHA-256. A hint for look-up only.
#[must_use]
pub fn key_id(key: &PublicKeyBytes) -> KeyId {
    let hash = ids::sha256(&key.0);
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&hash.as_bytes()[..16]);
    KeyId::from_bytes(bytes)
}

/// Checks a public key as at registration.
///
/// # Errors
/// See [`KeyError`].
pub fn check_public_key(key: &PublicKeyBytes) -> Result<(), KeyError> {
    parse(key).map(drop)
}

fn parse(key: &PublicKeyBytes) -> Result<ed25519_dalek::VerifyingKey, KeyError> {
    let parsed = ed25519_dalek::VerifyingKey::from_bytes(&key.0).map_err(|_| KeyError::NotAPoint)?;
    let point = parsed.to_edwards();
    if point.compress().0 != key.0 {
        return Err(KeyError::NotCanonical);
    }
    if parsed.is_weak() {
        return Err(KeyError::Weak);
    }
    if !point.is_torsion_free() {
        return Err(KeyError::Torsion);
    }
    Ok(parsed)
}

/// The u-coordinates of small order below the field's prime 2^255 − 19 (RFC 7748 section 6.1 warns
/// of them; listed in "May the Fourth Be With You", Cremers and Jackson): an exchange with one of
/// them yields zero.
const SEALING_WEAK: [[u8; 32]; 5] = {
    let zero = [0; 32];
    let mut one = [0; 32];
    one[0] = 1;
    let order_8_a = [
        0xe0, 0xeb, 0x7a, 0x7c, 0x3b, 0x41, 0xb8, 0xae, 0x16, 0x56, 0xe3, 0xfa, 0xf1, 0x9f, 0xc4, 0x6a, 0xda, 0x09,
        0x8d, 0xeb, 0x9c, 0x32, 0xb1, 0xfd, 0x86, 0x62, 0x05, 0x16, 0x5f, 0x49, 0xb8, 0x00,
    ];
    let order_8_b = [
        0x5f, 0x9c, 0x95, 0xbc, 0xa3, 0x50, 0x8c, 0x24, 0xb1, 0xd0, 0xb1, 0x55, 0x9c, 0x83, 0xef, 0x5b, 0x04, 0x44,
        0x5c, 0xc4, 0x58, 0x1c, 0x8e, 0x86, 0xd8, 0x22, 0x4e, 0xdd, 0xd0, 0x9f, 0x11, 0x57,
    ];
    let mut minus_one = [0xff; 32];
    minus_one[0] = 0xec;
    minus_one[31] = 0x7f;
    [zero, one, order_8_a, order_8_b, minus_one]
};

/// Checks an X25519 public key (RFC 7748) as at registration: canonical (below 2^255 − 19, top bit
/// clear), not of small order.
///
/// # Errors
/// [`KeyError::NotCanonical`] or [`KeyError::Weak`].
pub fn check_sealing_key(key: &SealingKeyBytes) -> Result<(), KeyError> {
    let [first, middle @ .., last] = &key.0;
    let at_least_prime = *last == 0x7f && middle.iter().all(|&b| b == 0xff) && *first >= 0xed;
    if *last >= 0x80 || at_least_prime {
        return Err(KeyError::NotCanonical);
    }
    if SEALING_WEAK.contains(&key.0) {
        return Err(KeyError::Weak);
    }
    Ok(())
}

/// A private key of one role. Zeroized when dropped; neither printed nor copied.
pub struct SigningKey<R> {
    inner: ed25519_dalek::SigningKey,
    role: PhantomData<fn() -> R>,
}

impl<R: KeyRole> SigningKey<R> {
    /// From the 32-byte seed (RFC 8032 section 5.1.5), which must come from a good random source.
    #[must_use]
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self { inner: ed25519_dalek::SigningKey::from_bytes(seed), role: PhantomData }
    }

    /// The seed, for writing the key to where it is kept.
    #[must_use]
    pub fn seed(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.inner.to_bytes())
    }

    /// The public half.
    #[must_use]
    pub fn public(&self) -> PublicKeyBytes {
        PublicKeyBytes(self.inner.verifying_key().to_bytes())
    }

    /// The public half, ready to verify.
    #[must_use]
    pub fn verifying(&self) -> VerifyingKey<R> {
        // A public key made from a seed is a multiple of the base point by a clamped scalar:
        // canonical, of prime order, torsion-free. So it needs no check.
        VerifyingKey { inner: self.inner.verifying_key(), id: self.key_id(), role: PhantomData }
    }

    /// See [`key_id`].
    #[must_use]
    pub fn key_id(&self) -> KeyId {
        key_id(&self.public())
    }

    pub(crate) fn sign_bytes(&self, bytes: &[u8]) -> [u8; 64] {
        self.inner.sign(bytes).to_bytes()
    }
}

/// A public key of one role, checked as at registration.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct VerifyingKey<R> {
    inner: ed25519_dalek::VerifyingKey,
    id: KeyId,
    role: PhantomData<fn() -> R>,
}

impl<R: KeyRole> VerifyingKey<R> {
    /// See [`key_id`].
    #[must_use]
    pub const fn key_id(&self) -> KeyId {
        self.id
    }

    /// The key's bytes.
    #[must_use]
    pub fn bytes(&self) -> PublicKeyBytes {
        PublicKeyBytes(self.inner.to_bytes())
    }

    pub(crate) fn is_signed(&self, bytes: &[u8], signature: &[u8; 64]) -> bool {
        self.inner.verify_strict(bytes, &ed25519_dalek::Signature::from_bytes(signature)).is_ok()
    }
}

impl<R: KeyRole> VerifyingKey<R> {
    /// Of a key that [`check_public_key`] accepts, as whatever was decoded from a message is.
    pub(crate) fn checked(key: PublicKeyBytes) -> Result<Self, KeyError> {
        let inner = ed25519_dalek::VerifyingKey::from_bytes(&key.0).map_err(|_| KeyError::NotAPoint)?;
        Ok(Self { inner, id: key_id(&key), role: PhantomData })
    }
}

impl<R: KeyRole> TryFrom<PublicKeyBytes> for VerifyingKey<R> {
    type Error = KeyError;

    fn try_from(key: PublicKeyBytes) -> Result<Self, KeyError> {
        Ok(Self { inner: parse(&key)?, id: key_id(&key), role: PhantomData })
    }
}

impl<R: KeyRole> fmt::Debug for VerifyingKey<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}({})", R::NAME, self.id)
    }
}

#[cfg(test)]
mod vectors;
