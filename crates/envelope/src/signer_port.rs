//! The door to whoever holds the command keys. Their holder depends on this room alone, so the
//! door stands here, beside the messages it signs, and not among the control plane's other ports.

use core::{future::Future, pin::Pin};

use ids::{KeyId, RootVersion, Sequence, Sha256, UnixMs};

use crate::{
    decode::DecodeError,
    envelope::Payload,
    messages::{Command, GuardReset, PublicKeyBytes, SessionOpen, StandingOrder},
};

/// A boxed future, so that ports can be used as trait objects.
pub type Later<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Holds the command keys and signs with the active one. Answers with the envelope's bytes; the
/// implementation checks what it can know (well-formed, strictly rising sequence per host, bounded
/// jumps, rate, its own copy of root metadata) and uses its own clock.
pub trait Signer: Send + Sync {
    /// Signs a command. `issued`, `not_before` and `expires` are judged against the signer's clock, `approvals`
    /// (envelopes) against its root metadata, if the command's class needs any.
    fn sign_command(&self, command: Command, approvals: Vec<Vec<u8>>) -> Later<'_, Result<SignedCommand, SignError>>;
    /// Signs a session-open; the signer puts in its own time.
    fn sign_open(&self, open: SessionOpen) -> Later<'_, Result<Vec<u8>, SignError>>;
    /// Signs the end of a quarantine; the signer puts in its own time. Every sequence up to `high` counts as given out
    /// from then on, so it must not be below the signer's own record ([`SignError::SequenceTaken`]).
    fn sign_reset(&self, reset: GuardReset) -> Later<'_, Result<Vec<u8>, SignError>>;
    /// Signs a standing order, or one that stands already anew; the signer puts in its own time. Its revision must be above
    /// every one that the signer gave this host ([`SignError::SequenceTaken`] names the highest).
    fn sign_standing(&self, order: StandingOrder) -> Later<'_, Result<Vec<u8>, SignError>>;
    /// Has the signer verify and take root metadata, ascending; what it has already is passed over. Its first
    /// chain begins its fleet, and must list a key that it holds. Durable when it answers: the version in force.
    fn advance_root(&self, chain: Vec<Vec<u8>>) -> Later<'_, Result<RootVersion, SignError>>;
    /// What the signer holds and by which root metadata it judges. Never a private key.
    fn keys(&self) -> Later<'_, Result<SignerKeys, SignError>>;
    /// A key for root metadata to list next: made and durable when its public half is answered. Asked again before
    /// root metadata lists that key, it answers the same one.
    fn prepare_key(&self) -> Later<'_, Result<PublicKeyBytes, SignError>>;
    /// From now on this key signs, which root metadata in force must list.
    fn activate_key(&self, key: KeyId) -> Later<'_, Result<(), SignError>>;
    /// Deletes a key that neither signs nor stands in root metadata in force.
    fn drop_key(&self, key: KeyId) -> Later<'_, Result<(), SignError>>;
}

/// A signed command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedCommand {
    pub envelope: Vec<u8>,
    pub payload_sha256: Sha256,
}

/// A command key that the signer holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeldKey {
    pub public: PublicKeyBytes,
    pub created_at: UnixMs,
    /// It signs, as long as it is listed.
    pub is_active: bool,
    /// Root metadata in force lists it.
    pub is_listed: bool,
    /// Root metadata listed it and does not any more: it never signs again.
    pub is_void: bool,
}

impl HeldKey {
    /// See [`crate::key_id`].
    #[must_use]
    pub fn key_id(&self) -> KeyId {
        crate::key_id(&self.public)
    }
}

/// What a signer holds, and how it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignerKeys {
    /// Version and payload hash of the root metadata it judges by; none before it has a fleet.
    pub root: Option<(RootVersion, Sha256)>,
    /// What it writes could not be written when last tried: it signs no command meanwhile.
    pub is_impaired: bool,
    /// Oldest first.
    pub keys: Vec<HeldKey>,
}

impl SignerKeys {
    /// Whether it has a key to sign with.
    #[must_use]
    pub fn can_sign(&self) -> bool {
        self.keys.iter().any(|key| key.is_active && key.is_listed)
    }
}

/// Why the signer did not sign.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignError {
    /// It must not be signed.
    #[error("the signer refuses: {0}")]
    Refused(String),
    /// The sequence is not above `high`, the highest that the signer gave this host: numbers that were
    /// signed and never stored are known to the signer alone. Ask again above it. Of a standing order it is the revision.
    #[error("the signer has given this host every sequence up to {high}")]
    SequenceTaken { high: Sequence },
    /// The signer cannot be used now.
    #[error("the signer cannot be used: {0}")]
    Unavailable(String),
}

/// What would be signed of a message: how it is handed to a signer elsewhere.
#[must_use]
pub fn payload_bytes<T: Payload>(message: &T) -> Vec<u8> {
    message.encode_payload()
}

/// A message that someone asks to have signed. It is as strictly read as a signed one, and proves nothing.
///
/// # Errors
/// When the bytes are not the one encoding of an acceptable message.
pub fn payload_from_bytes<T: Payload>(bytes: &[u8]) -> Result<T, DecodeError> {
    T::decode_payload(bytes)
}
