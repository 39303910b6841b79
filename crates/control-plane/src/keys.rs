//! The control plane's keys, as loaded at start.

use envelope::{
    keys::{SigningKey, role},
    messages::PublicKeyBytes,
};
use ids::Sha256;
use keyfile::{KeyFileError, KeyKind};
use zeroize::Zeroizing;

use crate::{files::Files, tls::TlsKey};

/// What `serve` holds. Command keys are not among it: the signer has them, in a process of its own.
pub(crate) struct Keys {
    pub(crate) session: SigningKey<role::Session>,
    pub(crate) audit: SigningKey<role::Audit>,
    pub(crate) tls: TlsKey,
    /// Encrypts what the database holds of results, parameters and records.
    pub(crate) data: Zeroizing<[u8; 32]>,
}

/// The public halves of what this control plane signs and answers with; of its command keys the signer says so. One of
/// each: whoever lets a role have a second key, and use either, lists both here.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Held {
    pub(crate) session: PublicKeyBytes,
    pub(crate) audit: PublicKeyBytes,
    /// SHA-256 of the TLS key's SubjectPublicKeyInfo.
    pub(crate) tls: Sha256,
}

impl Keys {
    pub(crate) fn held(&self) -> Held {
        Held { session: self.session.public(), audit: self.audit.public(), tls: self.tls.pin() }
    }
}

/// Why a key is missing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KeysError {
    #[error("{0}")]
    File(#[from] KeyFileError),
    #[error("{0}")]
    Tls(#[from] crate::tls::TlsError),
}

pub(crate) fn load(files: &Files) -> Result<Keys, KeysError> {
    Ok(Keys {
        session: SigningKey::from_seed(&*keyfile::read_seed(&files.session_key(), KeyKind::Ed25519)?),
        audit: SigningKey::from_seed(&*keyfile::read_seed(&files.audit_key(), KeyKind::Ed25519)?),
        tls: TlsKey::from_pem(&keyfile::read_private(&files.tls_key())?)?,
        data: keyfile::read_symmetric(&files.data_key())?,
    })
}
