//! Which certificates are trusted: the system's, or those of one file (`--ca`) and no others. What is
//! wrong with a server's certificate is said in words, with what to do.

use std::path::Path;

use data_encoding::BASE64;
use reqwest::Certificate;
use rustls::{
    CertificateError, Error,
    pki_types::{CertificateDer, pem::PemObject as _},
};

use crate::{exit::Failure, files, limits};

/// Certificates of a file.
#[derive(Clone)]
pub(crate) struct Trust {
    pem: String,
    certificates: Vec<Certificate>,
}

impl Trust {
    /// Reads a file.
    pub(crate) fn read(path: &Path) -> Result<Self, Failure> {
        let text = files::read_text(path, limits::CA_FILE_BYTES_MAX)?;
        Self::parse(&text, &path.display().to_string())
    }

    /// Certificates in PEM; `from` says where they stood.
    pub(crate) fn parse(pem: &str, from: &str) -> Result<Self, Failure> {
        if pem.contains("PRIVATE KEY-----") {
            // Kept beside the session, it would lie around in a place that nobody guards as a key.
            let why = format!("{from} holds a private key, which should never leave the control plane's machine");
            return Err(Failure::invalid(why).hint("give the certificate alone: people.cert.pem, not people.key.pem"));
        }
        // Only what is a certificate is kept, in a form of our own: it is put into lines for other machines.
        let found: Result<Vec<CertificateDer<'_>>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
        let found = found.unwrap_or_default();
        let certificates: Result<Vec<_>, _> = found.iter().map(|der| Certificate::from_der(der)).collect();
        let certificates = certificates.unwrap_or_default();
        if certificates.is_empty() {
            let why = format!("{from} holds no certificate in PEM form (-----BEGIN CERTIFICATE-----)");
            return Err(Failure::invalid(why).hint("give the authority's certificate, or a self-signed one itself"));
        }
        let pem = found.iter().map(|der| pem_of(der)).collect();
        Ok(Self { pem, certificates })
    }

    /// As they were given.
    pub(crate) fn pem(&self) -> &str {
        &self.pem
    }

    /// For the HTTP client.
    pub(crate) fn certificates(&self) -> Vec<Certificate> {
        self.certificates.clone()
    }
}

/// One certificate in PEM (RFC 7468).
fn pem_of(der: &[u8]) -> String {
    const LINE: usize = 64;
    let text = BASE64.encode(der);
    // Base64 is ASCII, so each piece is text.
    let lines = text.as_bytes().chunks(LINE).map(|line| String::from_utf8_lossy(line).into_owned() + "\n");
    format!("-----BEGIN CERTIFICATE-----\n{}-----END CERTIFICATE-----\n", lines.collect::<String>())
}

/// What is wrong with TLS, and what to do about it, if it is TLS that went wrong. `is_given` says
/// that the trusted certificates came from a file.
pub(crate) fn words(error: &reqwest::Error, is_given: bool) -> Option<(String, String)> {
    let error = tls_error(error)?;
    let (what, hint) = match error {
        Error::InvalidCertificate(certificate) => certificate_words(certificate, is_given),
        Error::InvalidMessage(_) => (
            "it does not speak TLS".to_owned(),
            "check the port, and whether the address should begin with http:// (this machine only)",
        ),
        _ => return None,
    };
    Some((what, hint.to_owned()))
}

fn certificate_words(error: &CertificateError, is_given: bool) -> (String, &'static str) {
    use CertificateError as E;
    match error {
        E::Expired | E::ExpiredContext { .. } => (
            "its certificate has expired".to_owned(),
            "renew it there (a self-signed one: `serverflow-control-plane certificate`), and check this machine's clock",
        ),
        E::NotValidYet | E::NotValidYetContext { .. } => {
            ("its certificate is not valid yet".to_owned(), "check this machine's clock, and the control plane's")
        }
        E::NotValidForName | E::NotValidForNameContext { .. } => (
            "its certificate is for another name".to_owned(),
            "use a name or address that is in the certificate, or make one for this address (`serverflow-control-plane certificate --name …`)",
        ),
        // Whatever else it is: nothing that is trusted here stands behind it.
        _ if is_given => (
            "its certificate is not from the authority in the --ca file".to_owned(),
            "ask whoever runs the control plane for its present certificate; if nobody changed it, somebody may stand between",
        ),
        _ => (
            "its certificate is from an authority that this machine does not know".to_owned(),
            "if it is self-signed or from an authority of your own, get that certificate by a way you trust and give it with --ca FILE",
        ),
    }
}

/// The TLS library's own error below the others.
fn tls_error<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a Error> {
    if let Some(found) = error.downcast_ref::<Error>() {
        return Some(found);
    }
    // An IO error names as its source what stands below the error it wraps, not that error itself.
    let wrapped = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
    match wrapped {
        Some(wrapped) => tls_error(wrapped),
        None => tls_error(error.source()?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_a_certificate_or_with_a_key_is_refused() {
        let refused = |text: &str| Trust::parse(text, "ca.pem").map(drop).expect_err("refused").lines();
        assert!(refused("").contains("ca.pem holds no certificate"));
        assert!(refused("-----BEGIN CERTIFICATE-----\nAAA").contains("holds no certificate"));
        assert!(refused("-----BEGIN PRIVATE KEY-----\nAAA").contains("holds a private key"));
    }

    #[test]
    fn a_certificate_that_is_wrong_in_whatever_way_is_said_in_words_with_what_to_do() {
        for error in [CertificateError::UnknownIssuer, CertificateError::BadEncoding, CertificateError::BadSignature] {
            let (what, hint) = certificate_words(&error, false);
            assert!(what.contains("an authority that this machine does not know"), "{what}");
            assert!(hint.contains("--ca FILE"), "{hint}");
            assert!(certificate_words(&error, true).0.contains("the --ca file"));
        }
        assert!(certificate_words(&CertificateError::Expired, true).0.contains("expired"));
    }
}
