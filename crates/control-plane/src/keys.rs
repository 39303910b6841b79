//! The control plane's keys, as loaded at start.

use envelope::keys::{SigningKey, role};
use keyfile::{KeyFileError, KeyKind};
use zeroize::Zeroizing;

use crate::{files::Files, tls::TlsKey};

/// What `serve` holds. The command key goes to the signer and nowhere else.
pub(crate) struct Keys {
    pub(crate) session: SigningKey<role::Session>,
    pub(crate) command: SigningKey<role::Command>,
    pub(crate) audit: SigningKey<role::Audit>,
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
        command: SigningKey::from_seed(&*keyfile::read_seed(&files.command_key(), KeyKind::Ed25519)?),
        audit: SigningKey::from_seed(&*keyfile::read_seed(&files.audit_key(), KeyKind::Ed25519)?),
        tls: TlsKey::from_pem(&keyfile::read_private(&files.tls_key())?)?,
        data: keyfile::read_symmetric(&files.data_key())?,
    })
}
