//! The control plane's keys, as loaded at start.

use envelope::keys::{SigningKey, role};
use keyfile::{KeyFileError, KeyKind};
use zeroize::Zeroizing;

use crate::{files::Files, tls::TlsKey};

/// What `serve` holds. Command keys are not among it: the signer has them, in a process of its own.
pub(crate) struct Keys {
    pub(crate) session: SigningKey<role::Session>,
    pub(crate) audit: SigningKey<role::Audit>,
    /// Another one, while a change of it is under way.
    pub(crate) audit_next: Option<SigningKey<role::Audit>>,
    pub(crate) tls: TlsKey,
    /// Encrypts what the database holds of results, parameters and records.
    pub(crate) data: Zeroizing<[u8; 32]>,
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
        // One that is half destroyed is none.
        audit_next: keyfile::read_seed(&files.audit_key_next(), KeyKind::Ed25519)
            .ok()
            .map(|seed| SigningKey::from_seed(&seed)),
        tls: TlsKey::from_pem(&keyfile::read_private(&files.tls_key())?)?,
        data: keyfile::read_symmetric(&files.data_key())?,
    })
}
