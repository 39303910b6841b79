//! `health`: asks the control plane that runs with this configuration whether it is well, as a
//! container's health check or a script does, without any other program.
//!
//! Over HTTPS it accepts exactly the certificate that the configuration names, whatever its names and
//! dates say: this is the program asking itself. The agents' listener is known by its key.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

use ids::{Sha256, sha256};
use rustls::{
    CertificateError as Refused, ClientConfig, DigitallySignedStruct, Error, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, aws_lc_rs, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::ParsedCertificate,
    version::TLS13,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::{config::Config, limits, people_tls};

/// Why the control plane is not well, or cannot be asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HealthError {
    #[error("nobody answers at {address}: the control plane does not run, or listens elsewhere (http_listen)")]
    NoAnswer { address: SocketAddr, source: io::Error },
    #[error(
        "what answers at {address} speaks HTTPS, and this configuration has no certificate: give --http-cert and --http-key as `serve` has them, or the same --config"
    )]
    Https { address: SocketAddr },
    #[error("what answers at {address} is not this control plane: it does not show its certificate or key")]
    Tls { address: SocketAddr, source: io::Error },
    #[error("the control plane at {address} did not answer within {} s", limits::HEALTH_TIMEOUT.as_secs())]
    Timeout { address: SocketAddr },
    #[error("the control plane at {address} is not well: {answer}. Its log says more")]
    Unwell { address: SocketAddr, answer: String },
    #[error("{0}")]
    Certificate(#[from] people_tls::CertificateError),
}

/// Asks once.
///
/// # Errors
/// Unless it is well.
pub(crate) async fn run(config: Config) -> Result<(), HealthError> {
    let address = reachable(config.http_listen);
    timeout(limits::HEALTH_TIMEOUT, ask(&config, address)).await.unwrap_or(Err(HealthError::Timeout { address }))
}

/// Whether the agents' listener shows the key that agents pin.
///
/// # Errors
/// Unless it does.
pub(crate) async fn agents(listen: SocketAddr, pin: Sha256) -> Result<(), HealthError> {
    let address = reachable(listen);
    let ask = async {
        let tcp = TcpStream::connect(address).await.map_err(|source| HealthError::NoAnswer { address, source })?;
        shake_hands(tcp, address, Expected::Key(pin), b"h2").await.map(drop)
    };
    timeout(limits::HEALTH_TIMEOUT, ask).await.unwrap_or(Err(HealthError::Timeout { address }))
}

async fn shake_hands(
    tcp: TcpStream,
    address: SocketAddr,
    expected: Expected,
    protocol: &[u8],
) -> Result<TlsStream<TcpStream>, HealthError> {
    let failed = |source| HealthError::Tls { address, source };
    let config = client(expected, protocol).map_err(|error| failed(io::Error::other(error)))?;
    let name = ServerName::IpAddress(address.ip().into());
    TlsConnector::from(Arc::new(config)).connect(name, tcp).await.map_err(failed)
}

/// Where a listener on every address is found on this machine.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(if address.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() });
    }
    address
}

async fn ask(config: &Config, address: SocketAddr) -> Result<(), HealthError> {
    let no_answer = |source| HealthError::NoAnswer { address, source };
    let tcp = TcpStream::connect(address).await.map_err(no_answer)?;
    let answer = match &config.https {
        None => exchange(tcp).await.map_err(no_answer)?,
        Some((cert, _)) => {
            let only = Expected::Certificate(people_tls::leaf(cert)?);
            exchange(shake_hands(tcp, address, only, b"http/1.1").await?).await.map_err(no_answer)?
        }
    };
    if answer.starts_with(TLS_ALERT) {
        return Err(HealthError::Https { address });
    }
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let line = head.lines().next().unwrap_or_default();
    if line.split(' ').nth(1) == Some("200") {
        return Ok(());
    }
    let answer = format!("{line} {}", body.trim()).replace(char::is_control, "\u{fffd}");
    Err(HealthError::Unwell { address, answer: answer.trim().to_owned() })
}

/// How a record begins with which a TLS listener answers what is no TLS (RFC 8446, 5.1 and 6).
const TLS_ALERT: &str = "\u{15}\u{3}";

async fn exchange(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> io::Result<String> {
    stream.write_all(b"GET /health HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await?;
    let mut bytes = Vec::new();
    stream.take(limits::HEALTH_ANSWER_BYTES_MAX).read_to_end(&mut bytes).await?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// What a listener of ours shows.
#[derive(Debug)]
enum Expected {
    Certificate(CertificateDer<'static>),
    /// SHA-256 of its SubjectPublicKeyInfo.
    Key(Sha256),
}

impl Expected {
    fn is(&self, shown: &CertificateDer<'_>) -> bool {
        match self {
            Self::Certificate(certificate) => shown == certificate,
            Self::Key(pin) => ParsedCertificate::try_from(shown)
                .is_ok_and(|parsed| sha256(parsed.subject_public_key_info().as_ref()) == *pin),
        }
    }
}

fn client(expected: Expected, protocol: &[u8]) -> Result<ClientConfig, Error> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier = Only { expected, provider: provider.clone() };
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    config.alpn_protocols = vec![protocol.to_vec()];
    Ok(config)
}

/// Accepts one certificate or key, which must have signed the handshake.
#[derive(Debug)]
struct Only {
    expected: Expected,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Only {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if self.expected.is(end_entity) {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(Error::InvalidCertificate(Refused::ApplicationVerificationFailure))
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_on_every_address_is_asked_on_loopback() {
        let check = |listen: &str, asked: &str| {
            assert_eq!(reachable(listen.parse().unwrap()), asked.parse().unwrap());
        };
        check("0.0.0.0:8443", "127.0.0.1:8443");
        check("[::]:8443", "[::1]:8443");
        check("192.0.2.7:8443", "192.0.2.7:8443");
    }

    #[tokio::test]
    async fn only_ok_is_well() {
        for (answer, well) in [
            ("HTTP/1.1 200 OK\r\n\r\n{}", true),
            ("HTTP/1.1 503 Service Unavailable\r\n\r\n{\"detail\":\"the disk is full\"}", false),
            ("SSH-2.0-OpenSSH\r\n", false),
            ("", false),
        ] {
            let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
            let address = listener.local_addr().unwrap();
            let server = tokio::spawn(async move {
                let (mut stream, _) = listener.accept().await.unwrap();
                // To its end: closing with something unread would reset the connection under the answer.
                let mut asked = Vec::new();
                while !asked.ends_with(b"\r\n\r\n") {
                    asked.push(stream.read_u8().await.unwrap());
                }
                stream.write_all(answer.as_bytes()).await.unwrap();
                asked
            });
            let answered = exchange(TcpStream::connect(address).await.unwrap()).await.unwrap_or_default();
            assert!(server.await.unwrap().starts_with(b"GET /health HTTP/1.1\r\n"));
            assert_eq!(answered.split(' ').nth(1) == Some("200"), well, "{answer}");
        }
    }
}
