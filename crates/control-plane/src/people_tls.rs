//! HTTPS for people: a certificate and its key from files, read again when they change.
//!
//! A new certificate is for new connections; those that are open go on. Files that cannot be used
//! leave the old pair in use, and the log says so.

use std::{
    fs::File,
    io::{self, Read as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
};

use rustls::{
    ServerConfig,
    client::verify_server_name,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _},
    server::ParsedCertificate,
    version::TLS13,
};
use tokio::{
    net::TcpStream,
    signal::unix::{SignalKind, signal},
    time::{MissedTickBehavior, interval},
};
use tokio_rustls::TlsAcceptor;
use zeroize::Zeroizing;

use crate::{
    limits,
    stamp::{Stamp, stamp},
};

/// Why a certificate and its key cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CertificateError {
    #[error("cannot read {path}: {source}. Check the path, and that this user may read it")]
    Read { path: PathBuf, source: io::Error },
    #[error("{path} has more than {} bytes, which no certificate or key has", limits::CERTIFICATE_BYTES_MAX)]
    TooLarge { path: PathBuf },
    #[error(
        "every user of this machine may read the private key {path} (mode {mode:o}): `chmod 600 {path}`, and think about a new key"
    )]
    Exposed { path: PathBuf, mode: u32 },
    #[error("{path} holds no {what} in PEM form (-----BEGIN …-----)")]
    NotPem { path: PathBuf, what: &'static str },
    #[error("the certificate {cert} and the key {key} cannot be used together: {source}")]
    Pair { cert: PathBuf, key: PathBuf, source: rustls::Error },
}

/// The certificate in use.
pub(crate) struct PeopleTls {
    cert: PathBuf,
    key: PathBuf,
    loaded: RwLock<Arc<Loaded>>,
}

struct Loaded {
    config: Arc<ServerConfig>,
    leaf: CertificateDer<'static>,
    stamps: [Stamp; 2],
}

impl PeopleTls {
    /// Reads certificate and key.
    ///
    /// # Errors
    /// When they cannot be used, in words.
    pub(crate) fn load(cert: &Path, key: &Path) -> Result<Arc<Self>, CertificateError> {
        let loaded = RwLock::new(Arc::new(load(cert, key)?));
        Ok(Arc::new(Self { cert: cert.to_owned(), key: key.to_owned(), loaded }))
    }

    fn loaded(&self) -> Arc<Loaded> {
        // A panic elsewhere leaves the whole old pair or the whole new one.
        self.loaded.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reads the files again if they changed, or in any case.
    fn look(&self, in_any_case: bool) {
        if !in_any_case && self.loaded().stamps == [stamp(&self.cert), stamp(&self.key)] {
            return;
        }
        match load(&self.cert, &self.key) {
            Ok(loaded) => {
                *self.loaded.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(loaded);
                tracing::info!(certificate = %self.cert.display(), "new connections get the new certificate");
            }
            Err(error) => tracing::error!(%error, "the certificate is not replaced; the one before stays in use"),
        }
    }

    /// Looks every [`limits::CERTIFICATE_INTERVAL`], and on SIGHUP.
    pub(crate) async fn watch(self: Arc<Self>) {
        let mut hangup = match signal(SignalKind::hangup()) {
            Ok(hangup) => hangup,
            Err(error) => return tracing::error!(%error, "certificates are not watched: signals cannot be awaited"),
        };
        let mut ticks = interval(limits::CERTIFICATE_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let in_any_case = tokio::select! {
                _ = ticks.tick() => false,
                _ = hangup.recv() => true,
            };
            self.look(in_any_case);
        }
    }
}

impl web::Tls for PeopleTls {
    fn accept(
        self: Arc<Self>,
        tcp: TcpStream,
    ) -> std::pin::Pin<Box<dyn Future<Output = io::Result<Box<dyn web::Connection>>> + Send>> {
        let acceptor = TlsAcceptor::from(self.loaded().config.clone());
        Box::pin(async move { Ok(Box::new(acceptor.accept(tcp).await?) as Box<dyn web::Connection>) })
    }

    fn certifies(&self, name: &str) -> bool {
        certifies(&self.loaded().leaf, name)
    }
}

pub(crate) fn certifies(leaf: &CertificateDer<'_>, name: &str) -> bool {
    let (Ok(parsed), Ok(name)) = (ParsedCertificate::try_from(leaf), ServerName::try_from(name)) else { return false };
    verify_server_name(&parsed, &name).is_ok()
}

fn read(path: &Path) -> Result<(Zeroizing<Vec<u8>>, u32), CertificateError> {
    let fail = |source| CertificateError::Read { path: path.to_owned(), source };
    let file = File::open(path).map_err(fail)?;
    let mode = file.metadata().map_err(fail)?.mode() & 0o777;
    let mut bytes = Zeroizing::new(Vec::with_capacity(16 * 1024));
    file.take(limits::CERTIFICATE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(fail)?;
    if bytes.len() as u64 > limits::CERTIFICATE_BYTES_MAX {
        return Err(CertificateError::TooLarge { path: path.to_owned() });
    }
    Ok((bytes, mode))
}

fn chain(cert: &Path) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&read(cert)?.0).collect();
    let not_pem = || CertificateError::NotPem { path: cert.to_owned(), what: "certificate" };
    chain.ok().filter(|chain| !chain.is_empty()).ok_or_else(not_pem)
}

/// The certificate that the listener shows: the first of the file.
pub(crate) fn leaf(cert: &Path) -> Result<CertificateDer<'static>, CertificateError> {
    Ok(chain(cert)?.swap_remove(0))
}

fn load(cert: &Path, key: &Path) -> Result<Loaded, CertificateError> {
    // Before they are read: what changes meanwhile is seen at the next look.
    let stamps = [stamp(cert), stamp(key)];
    let not_pem = |path: &Path, what| CertificateError::NotPem { path: path.to_owned(), what };
    let chain = chain(cert)?;
    let (bytes, mode) = read(key)?;
    if mode & 0o007 != 0 {
        return Err(CertificateError::Exposed { path: key.to_owned(), mode });
    }
    let private = PrivateKeyDer::from_pem_slice(&bytes).map_err(|_| not_pem(key, "private key"))?;
    let leaf = chain[0].clone();
    let config = server_config(chain, private).map_err(|source| CertificateError::Pair {
        cert: cert.to_owned(),
        key: key.to_owned(),
        source,
    })?;
    Ok(Loaded { config: Arc::new(config), leaf, stamps })
}

/// TLS 1.3 and nothing older, HTTP/1.1, no early data.
fn server_config(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<ServerConfig, rustls::Error> {
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&TLS13])?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.max_early_data_size = 0;
    Ok(config)
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use super::*;
    use crate::certificate::{self, Made};

    fn make(directory: &Path, names: &[&str]) -> Made {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        certificate::make(directory, &names, ids::UnixMs(1_790_000_000_000)).expect("a certificate")
    }

    #[test]
    fn a_changed_pair_is_taken_up_and_a_broken_one_is_not() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let made = make(directory.path(), &["one.example"]);
        let tls = PeopleTls::load(&made.cert, &made.key).expect("a usable pair");
        let called = |name| web::Tls::certifies(&*tls, name);
        assert!(called("one.example") && !called("two.example"));

        make(directory.path(), &["two.example", "192.0.2.7", "2001:db8::7"]);
        assert!(!called("two.example"), "not before somebody looks");
        tls.look(false);
        assert!(called("two.example") && called("192.0.2.7") && called("2001:db8::7") && !called("one.example"));
        assert!(!called("192.0.2.8") && !called("sub.two.example") && !called(""));

        fs::write(&made.cert, "no certificate").expect("written");
        tls.look(false);
        assert!(called("two.example"), "the one before stays");
    }

    #[test]
    fn what_cannot_be_used_is_refused_in_words() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let made = make(directory.path(), &["one.example"]);
        let refused = |cert: &Path, key: &Path| PeopleTls::load(cert, key).map(drop).expect_err("refused").to_string();
        let other = tempfile::tempdir().expect("a temporary directory");
        let stranger = make(other.path(), &["one.example"]);
        assert!(refused(&made.cert, &stranger.key).contains("cannot be used together"));
        assert!(refused(&made.key, &made.key).contains("no certificate in PEM form"));
        assert!(refused(&made.cert, &made.cert).contains("no private key in PEM form"));
        assert!(refused(&other.path().join("none"), &made.key).contains("cannot read"));
        fs::set_permissions(&made.key, fs::Permissions::from_mode(0o644)).expect("changed");
        assert!(refused(&made.cert, &made.key).contains("chmod 600"));
        fs::set_permissions(&made.key, fs::Permissions::from_mode(0o640)).expect("changed");
        assert!(PeopleTls::load(&made.cert, &made.key).is_ok(), "a group of the owner's choice may read it");
    }
}
