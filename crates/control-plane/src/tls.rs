//! The agents' listener speaks TLS 1.3 with a key of its own. Agents trust the key's hash, not a
//! certificate authority, so the certificate is made anew from the key at each start.

use std::sync::{Arc, PoisonError, RwLock};

use ids::{Sha256, sha256};
use rcgen::{CertificateParams, DnType, KeyPair, PublicKeyData as _};
use rustls::{
    ServerConfig,
    crypto::aws_lc_rs,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
    version::TLS13,
};
use zeroize::Zeroizing;

/// An ECDSA P-256 key.
pub(crate) struct TlsKey(KeyPair);

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsError {
    #[error("the TLS key could not be made or read: {0}")]
    Key(#[from] rcgen::Error),
    #[error("TLS cannot be set up")]
    Setup(#[from] rustls::Error),
}

impl TlsKey {
    /// A fresh key.
    ///
    /// # Errors
    /// When the operating system gives no randomness.
    pub(crate) fn generate() -> Result<Self, TlsError> {
        Ok(Self(KeyPair::generate()?))
    }

    /// Reads what [`TlsKey::to_pem`] wrote.
    ///
    /// # Errors
    /// When it is no PKCS#8 key in PEM.
    pub(crate) fn from_pem(pem: &str) -> Result<Self, TlsError> {
        Ok(Self(KeyPair::from_pem(pem)?))
    }

    /// PKCS#8 in PEM.
    pub(crate) fn to_pem(&self) -> Zeroizing<String> {
        Zeroizing::new(self.0.serialize_pem())
    }

    /// SHA-256 of its SubjectPublicKeyInfo: what agents pin.
    pub(crate) fn pin(&self) -> Sha256 {
        sha256(&self.0.subject_public_key_info())
    }

    /// TLS 1.3 and nothing older; no tickets, no early data, HTTP/2 only.
    ///
    /// # Errors
    /// When the certificate cannot be signed.
    pub(crate) fn server_config(&self) -> Result<Arc<ServerConfig>, TlsError> {
        let mut parameters = CertificateParams::new(Vec::new())?;
        parameters.distinguished_name.push(DnType::CommonName, "ServerFlow control plane");
        let certificate = parameters.self_signed(&self.0)?;
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.0.serialize_der()));
        let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(&[&TLS13])?
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        config.send_tls13_tickets = 0;
        config.max_early_data_size = 0;
        Ok(Arc::new(config))
    }
}

/// What the agents' listener answers new connections with; those that are open go on.
pub(crate) struct ServedTls(RwLock<(Arc<ServerConfig>, Sha256)>);

impl ServedTls {
    /// # Errors
    /// When no certificate can be made from the key.
    pub(crate) fn new(key: &TlsKey) -> Result<Self, TlsError> {
        Ok(Self(RwLock::new((key.server_config()?, key.pin()))))
    }

    /// From now on, new connections get this key.
    ///
    /// # Errors
    /// As [`Self::new`]; then nothing changes.
    pub(crate) fn serve(&self, key: &TlsKey) -> Result<(), TlsError> {
        let next = (key.server_config()?, key.pin());
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = next;
        Ok(())
    }

    /// For a connection that comes now.
    pub(crate) fn config(&self) -> Arc<ServerConfig> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).0.clone()
    }

    /// The pin of the key in use.
    pub(crate) fn pin(&self) -> Sha256 {
        self.0.read().unwrap_or_else(PoisonError::into_inner).1
    }
}
