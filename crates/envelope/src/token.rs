//! The join token: what a new host is handed so that it knows its fleet and may enter it once.
//!
//! Text: `sf1.` and base64url (RFC 4648 section 5, no padding) of fleet id (16), token id (16),
//! secret (32), SHA-256 of the root metadata's payload (32), SHA-256 of the TLS key's
//! SubjectPublicKeyInfo (32), length of the address (1), address. It holds a secret: read it from a
//! file or standard input, never from arguments.

use core::fmt;

use data_encoding::BASE64URL_NOPAD;
use ids::{FleetId, Sha256, TokenId};
use zeroize::Zeroizing;

use crate::{address, limits};

const PREFIX: &str = "sf1.";
const FIXED_BYTES: usize = 16 + 16 + 32 + 32 + 32 + 1;

/// A join token. It holds a secret, so it is neither printed nor compared.
#[derive(Clone)]
pub struct JoinToken {
    pub fleet: FleetId,
    pub token: TokenId,
    /// Shown to the control plane once, inside the pinned connection.
    pub secret: Zeroizing<[u8; 32]>,
    /// SHA-256 of the payload of the root metadata to begin with.
    pub root_sha256: Sha256,
    /// SHA-256 of the control plane's TLS SubjectPublicKeyInfo.
    pub spki_sha256: Sha256,
    /// `host:port` of the agents' listener.
    pub address: String,
}

/// Why a text is not a join token. Never shows the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Not the beginning of a token.
    #[error("not a join token: it does not begin with sf1.; copy the whole line `serverflow host enroll` printed")]
    Prefix,
    /// Too long, damaged, or cut off.
    #[error("the join token is damaged or incomplete; copy the whole line `serverflow host enroll` printed")]
    Damaged,
    /// The address in it is not `host:port`.
    #[error(
        "the address in the join token is not of the form host:port; make a new token with `serverflow host enroll`"
    )]
    Address,
}

impl JoinToken {
    /// The token as text, to be handed over in confidence.
    ///
    /// # Errors
    /// When the address is not `host:port` of at most 255 bytes.
    pub fn to_text(&self) -> Result<Zeroizing<String>, TokenError> {
        if !address::is_valid(&self.address) {
            return Err(TokenError::Address);
        }
        let length = u8::try_from(self.address.len()).map_err(|_| TokenError::Address)?;
        let mut bytes = Zeroizing::new(Vec::with_capacity(FIXED_BYTES + self.address.len()));
        bytes.extend_from_slice(self.fleet.as_bytes());
        bytes.extend_from_slice(self.token.as_bytes());
        bytes.extend_from_slice(self.secret.as_slice());
        bytes.extend_from_slice(self.root_sha256.as_bytes());
        bytes.extend_from_slice(self.spki_sha256.as_bytes());
        bytes.push(length);
        bytes.extend_from_slice(self.address.as_bytes());
        // Room for all of it at once: growing would leave copies of the secret behind.
        let mut text = Zeroizing::new(String::with_capacity(PREFIX.len() + BASE64URL_NOPAD.encode_len(bytes.len())));
        text.push_str(PREFIX);
        BASE64URL_NOPAD.encode_append(&bytes, &mut text);
        Ok(text)
    }

    /// Reads a token; white space around it is ignored.
    ///
    /// # Errors
    /// See [`TokenError`].
    pub fn parse(text: &str) -> Result<Self, TokenError> {
        let text = text.trim_ascii();
        if text.len() > limits::TOKEN_TEXT_BYTES_MAX {
            return Err(TokenError::Damaged);
        }
        let encoded = text.strip_prefix(PREFIX).ok_or(TokenError::Prefix)?;
        let bytes = BASE64URL_NOPAD.decode(encoded.as_bytes()).map_err(|_| TokenError::Damaged)?;
        Self::from_bytes(&Zeroizing::new(bytes)).ok_or(TokenError::Damaged)?.checked()
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (fleet, rest) = bytes.split_first_chunk::<16>()?;
        let (token, rest) = rest.split_first_chunk::<16>()?;
        let (secret, rest) = rest.split_first_chunk::<32>()?;
        let (root, rest) = rest.split_first_chunk::<32>()?;
        let (spki, rest) = rest.split_first_chunk::<32>()?;
        let (&length, address) = rest.split_first()?;
        if address.len() != usize::from(length) {
            return None;
        }
        Some(Self {
            fleet: FleetId::from_bytes(*fleet),
            token: TokenId::from_bytes(*token),
            secret: Zeroizing::new(*secret),
            root_sha256: Sha256(*root),
            spki_sha256: Sha256(*spki),
            address: core::str::from_utf8(address).ok()?.to_owned(),
        })
    }

    fn checked(self) -> Result<Self, TokenError> {
        if address::is_valid(&self.address) { Ok(self) } else { Err(TokenError::Address) }
    }
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinToken").field("token", &self.token).field("address", &self.address).finish_non_exhaustive()
    }
}
