//! Chunks: ChaCha20-Poly1305 with the chunk's number and whether it is the last as nonce (the STREAM construction), and
//! the hash of the head as associated data.

use chacha20poly1305::{
    ChaCha20Poly1305, KeyInit as _, Nonce,
    aead::{Aead as _, Payload},
};
use ids::Sha256;

use crate::head::FileKey;

pub(crate) const MAGIC: &[u8; 8] = b"SFBAK1\r\n";
pub(crate) const TAG_BYTES: usize = 16;

/// Encrypts or opens the chunks of one file, in their order.
pub(crate) struct Chunks {
    cipher: ChaCha20Poly1305,
    head_sha256: Sha256,
    next: u64,
}

impl Chunks {
    pub(crate) fn new(key: &FileKey, head_sha256: Sha256) -> Self {
        let cipher = ChaCha20Poly1305::new(key.as_slice().try_into().expect("invariant: the key has 32 bytes"));
        Self { cipher, head_sha256, next: 0 }
    }

    /// Number of the next chunk, from 0.
    pub(crate) const fn next(&self) -> u64 {
        self.next
    }

    fn nonce(&mut self, is_last: bool) -> Nonce {
        let mut nonce = [0; 12];
        nonce[3..11].copy_from_slice(&self.next.to_be_bytes());
        nonce[11] = u8::from(is_last);
        self.next += 1;
        Nonce::from(nonce)
    }

    pub(crate) fn seal(&mut self, content: &[u8], is_last: bool) -> Vec<u8> {
        let nonce = self.nonce(is_last);
        let payload = Payload { msg: content, aad: &self.head_sha256.0 };
        self.cipher.encrypt(&nonce, payload).expect("invariant: a chunk is far shorter than the cipher can take")
    }

    pub(crate) fn open(&mut self, sealed: &[u8], is_last: bool) -> Option<Vec<u8>> {
        let nonce = self.nonce(is_last);
        self.cipher.decrypt(&nonce, Payload { msg: sealed, aad: &self.head_sha256.0 }).ok()
    }
}
