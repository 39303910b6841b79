//! Trusts a server for its key alone.

use std::sync::{Arc, Mutex, PoisonError};

use ids::{Sha256, sha256};
use rustls::{
    CertificateError, DigitallySignedStruct, Error, OtherError, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::ParsedCertificate,
};

/// Which keys a server may have.
#[derive(Clone, Debug)]
pub(crate) enum Accepted {
    /// These.
    Pinned(Vec<Sha256>),
    /// Any at all: for a connection on which nothing is believed that is not signed by root keys.
    Any,
}

/// Accepts exactly the keys whose SHA-256 over the SubjectPublicKeyInfo (RFC 5280) is pinned. The
/// handshake signature is verified as ever, so the server must hold the private key.
#[derive(Debug)]
pub(crate) struct PinnedKeys {
    accepted: Accepted,
    provider: Arc<CryptoProvider>,
    presented: Arc<Presented>,
}

/// What the server showed, for an error that helps.
#[derive(Debug, Default)]
pub(crate) struct Presented(Mutex<Option<Sha256>>);

impl Presented {
    /// The pin of a key that was refused.
    pub(crate) fn refused(&self) -> Option<Sha256> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, pin: Sha256) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(pin);
    }
}

#[derive(Debug, thiserror::Error)]
#[error("the server's key is not pinned")]
struct NotPinned;

impl PinnedKeys {
    pub(crate) fn new(accepted: Accepted, provider: Arc<CryptoProvider>) -> (Self, Arc<Presented>) {
        let presented = Arc::new(Presented::default());
        (Self { accepted, provider, presented: presented.clone() }, presented)
    }
}

impl ServerCertVerifier for PinnedKeys {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let certificate = ParsedCertificate::try_from(end_entity)?;
        let pin = sha256(certificate.subject_public_key_info().as_ref());
        let is_accepted = match &self.accepted {
            Accepted::Pinned(pins) => pins.contains(&pin),
            Accepted::Any => true,
        };
        if is_accepted {
            return Ok(ServerCertVerified::assertion());
        }
        self.presented.set(pin);
        Err(Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(NotPinned)))))
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("TLS 1.2 is not spoken here".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
