//! Encryption at rest: XChaCha20-Poly1305 with a random nonce, under a key that stands in a file
//! beside the database and never in it. The associated data names table, column and row, so that a
//! value cannot be moved to another place without being noticed.

use chacha20poly1305::{
    KeyInit as _, XChaCha20Poly1305, XNonce,
    aead::{Aead as _, Payload},
};
use fleet::ports::StoreError;
use rand::{TryRng as _, rngs::SysRng};
use zeroize::Zeroizing;

const NONCE_BYTES: usize = 24;

/// A column whose values are encrypted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place(&'static str);

impl Place {
    pub(crate) const KEY_CHECK: Self = Self("facts.value");
    pub(crate) const OPERATION_DETAIL: Self = Self("operations.detail");
    pub(crate) const PARAMETERS: Self = Self("parameters.body");
    pub(crate) const COMMAND_MESSAGE: Self = Self("commands.message");
    pub(crate) const SEAL: Self = Self("command_seals.envelope");
    pub(crate) const REPORT: Self = Self("command_reports.envelope");
    pub(crate) const APP_RESULT: Self = Self("app_instances.result");
    pub(crate) const AUDIT_RECORD: Self = Self("audit_leaves.record");
    pub(crate) const STANDING_ENVELOPE: Self = Self("standing_steps.envelope");

    fn associated_data(self, row: i64) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.0.len() + 9);
        bytes.extend_from_slice(self.0.as_bytes());
        bytes.push(0);
        bytes.extend_from_slice(&row.to_be_bytes());
        bytes
    }
}

/// The key of one database.
pub(crate) struct Cipher {
    key: XChaCha20Poly1305,
}

impl Cipher {
    pub(crate) fn new(key: &Zeroizing<[u8; 32]>) -> Self {
        Self { key: XChaCha20Poly1305::new(key.as_slice().try_into().expect("invariant: the key has 32 bytes")) }
    }

    /// Nonce and ciphertext of `plain`, good at this place only.
    pub(crate) fn seal(&self, place: Place, row: i64, plain: &[u8]) -> Result<Vec<u8>, StoreError> {
        let mut nonce = [0; NONCE_BYTES];
        SysRng
            .try_fill_bytes(&mut nonce)
            .map_err(|error| StoreError::Unavailable(format!("the system gives no random numbers ({error})")))?;
        let payload = Payload { msg: plain, aad: &place.associated_data(row) };
        let sealed = self.key.encrypt(&XNonce::from(nonce), payload).map_err(|_| {
            StoreError::Unavailable(format!("a value of {} bytes is too long to be encrypted", plain.len()))
        })?;
        Ok([nonce.as_slice(), &sealed].concat())
    }

    /// What [`Cipher::seal`] was given.
    pub(crate) fn open(&self, place: Place, row: i64, sealed: &[u8]) -> Result<Vec<u8>, StoreError> {
        let corrupt = || {
            StoreError::Corrupt(format!(
                "{} of row {row} does not decrypt: it was changed or moved; restore the database from a backup",
                place.0
            ))
        };
        let (nonce, sealed) = sealed.split_first_chunk::<NONCE_BYTES>().ok_or_else(corrupt)?;
        let payload = Payload { msg: sealed, aad: &place.associated_data(row) };
        self.key.decrypt(&XNonce::from(*nonce), payload).map_err(|_| corrupt())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cipher(seed: u8) -> Cipher {
        Cipher::new(&Zeroizing::new([seed; 32]))
    }

    #[test]
    fn opens_at_its_own_place_only() {
        let sealed = cipher(1).seal(Place::REPORT, 7, b"text").unwrap();
        assert_eq!(cipher(1).open(Place::REPORT, 7, &sealed), Ok(b"text".to_vec()));
        assert!(cipher(1).open(Place::REPORT, 8, &sealed).is_err(), "another row");
        assert!(cipher(1).open(Place::SEAL, 7, &sealed).is_err(), "another column");
        assert!(cipher(2).open(Place::REPORT, 7, &sealed).is_err(), "another key");
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert!(cipher(1).open(Place::REPORT, 7, &changed).is_err(), "byte {at}");
        }
        assert!(cipher(1).open(Place::REPORT, 7, &sealed[..10]).is_err(), "shorter than a nonce");
    }

    #[test]
    fn the_same_text_never_looks_the_same() {
        let cipher = cipher(1);
        assert_ne!(cipher.seal(Place::SEAL, 1, b"text"), cipher.seal(Place::SEAL, 1, b"text"));
    }
}
