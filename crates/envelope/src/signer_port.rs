//! The door to whoever holds the command key. The key's holder depends on this room alone, so the
//! door stands here, beside the messages it signs, and not among the control plane's other ports.

use core::{future::Future, pin::Pin};

use ids::{Sequence, Sha256};

use crate::messages::{Command, SessionOpen};

/// A boxed future, so that ports can be used as trait objects.
pub type Later<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Signs with the command key. Answers with the envelope's bytes; the implementation checks what it
/// can know (well-formed, strictly rising sequence per host, bounded jumps, rate) and uses its own clock.
pub trait Signer: Send + Sync {
    /// Signs a command. `issued`, `not_before` and `expires` are judged against the signer's clock.
    fn sign_command(&self, command: Command) -> Later<'_, Result<SignedCommand, SignError>>;
    /// Signs a session-open; the signer puts in its own time.
    fn sign_open(&self, open: SessionOpen) -> Later<'_, Result<Vec<u8>, SignError>>;
}

/// A signed command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedCommand {
    pub envelope: Vec<u8>,
    pub payload_sha256: Sha256,
}

/// Why the signer did not sign.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignError {
    /// It must not be signed.
    #[error("the signer refuses: {0}")]
    Refused(String),
    /// The sequence is not above `high`, the highest that the signer gave this host: numbers that were
    /// signed and never stored are known to the signer alone. Ask again above it.
    #[error("the signer has given this host every sequence up to {high}")]
    SequenceTaken { high: Sequence },
    /// The signer cannot be used now.
    #[error("the signer cannot be used: {0}")]
    Unavailable(String),
}
