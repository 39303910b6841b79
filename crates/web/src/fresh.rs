//! Fresh ids and secrets, from the operating system's randomness.

use core::sync::atomic::{AtomicU64, Ordering};

use fleet::operation::CommandIds;
use ids::{CommandId, Id, IdKind, UnixMs, sha256};
use rand::{TryRng as _, rngs::SysRng};
use zeroize::Zeroizing;

use crate::credentials::CredentialError;

/// Random bytes for a secret.
pub(crate) fn secret<const N: usize>() -> Result<Zeroizing<[u8; N]>, CredentialError> {
    let mut bytes = Zeroizing::new([0u8; N]);
    SysRng.try_fill_bytes(bytes.as_mut_slice()).map_err(|_| CredentialError::Randomness)?;
    Ok(bytes)
}

/// A new id.
pub(crate) fn id<K: IdKind>(now: UnixMs) -> Result<Id<K>, CredentialError> {
    Ok(Id::new_v7(now, *secret::<10>()?))
}

/// Any number of command ids from one draw: SHA-256 of 32 random bytes and a counter.
pub(crate) struct FreshCommands {
    now: UnixMs,
    seed: Zeroizing<[u8; 32]>,
    next: u64,
}

impl FreshCommands {
    pub(crate) fn new(now: UnixMs) -> Result<Self, CredentialError> {
        Ok(Self { now, seed: secret()?, next: 0 })
    }
}

impl CommandIds for FreshCommands {
    fn command_id(&mut self) -> CommandId {
        let mut bytes = Zeroizing::new([0u8; 40]);
        bytes[..32].copy_from_slice(self.seed.as_slice());
        bytes[32..].copy_from_slice(&self.next.to_be_bytes());
        self.next += 1;
        let mut random = [0u8; 10];
        random.copy_from_slice(&sha256(bytes.as_slice()).as_bytes()[..10]);
        CommandId::new_v7(self.now, random)
    }
}

/// Ids of requests, unique in this process and unlikely to repeat in the next.
pub(crate) struct RequestIds {
    process: String,
    next: AtomicU64,
}

impl RequestIds {
    pub(crate) fn new() -> Result<Self, CredentialError> {
        Ok(Self { process: ids::hex(secret::<4>()?.as_slice()), next: AtomicU64::new(1) })
    }

    pub(crate) fn next(&self) -> String {
        format!("{}-{}", self.process, self.next.fetch_add(1, Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_ids_differ_within_a_draw_and_between_draws() {
        let now = UnixMs(1_700_000_000_000);
        let (mut one, mut other) = (FreshCommands::new(now).unwrap(), FreshCommands::new(now).unwrap());
        let ids = [one.command_id(), one.command_id(), other.command_id()];
        assert!(ids[0] != ids[1] && ids[0] != ids[2] && ids[1] != ids[2], "{ids:?}");
    }
}
