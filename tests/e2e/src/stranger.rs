//! Somebody who dials the control plane and is no honest agent: frames as they are on the wire, TLS without any check.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, OnceLock},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use envelope::{
    keys::{SigningKey, role},
    messages::{AgentHello, ControlHello, ReportPosition, SessionOpen, SessionProof},
    verify,
};
use hyper_util::rt::TokioIo;
use ids::{BootId, Challenge, HostEpoch, HostId, RootVersion, Sequence, Sha256, TlsExporter, UnixMs, sha256};
use rustls::{
    ClientConfig, DigitallySignedStruct, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, aws_lc_rs, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use tokio::{net::TcpStream, runtime::Runtime, sync::mpsc, time::timeout};
use tokio_rustls::TlsConnector;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Streaming, transport::Endpoint};
use wire::v1::{
    self, AgentFrame, ControlFrame, agent_frame::Frame as FromAgent, agent_link_client::AgentLinkClient,
    control_frame::Frame as FromControl,
};

use crate::{evil::Stolen, fleet::Host};

const WORD_MAX: Duration = Duration::from_secs(30);

/// The wall clock.
///
/// # Panics
/// When it stands before 1970.
#[must_use]
pub fn now() -> UnixMs {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970");
    UnixMs(u64::try_from(since.as_millis()).expect("a clock before the year 500 million"))
}

/// All strangers share one runtime.
fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| Runtime::new().expect("a runtime"))
}

/// A stream to the control plane.
pub struct Stranger {
    pub exporter: TlsExporter,
    pub sender: mpsc::Sender<AgentFrame>,
    pub receiver: Streaming<ControlFrame>,
}

impl Stranger {
    /// Opens a session's stream.
    ///
    /// # Panics
    /// When nobody answers.
    #[must_use]
    pub fn session(address: SocketAddr) -> Self {
        runtime().block_on(open(address, true)).expect("a stream")
    }

    /// Opens an enrolment's stream.
    ///
    /// # Panics
    /// When nobody answers.
    #[must_use]
    pub fn enrolment(address: SocketAddr) -> Self {
        runtime().block_on(open(address, false)).expect("a stream")
    }

    /// Says something; whether anybody was there to take it.
    pub fn send(&self, frame: FromAgent) -> bool {
        runtime().block_on(self.sender.send(AgentFrame { frame: Some(frame) })).is_ok()
    }

    /// The control plane's next word; `None` when it closed the stream.
    ///
    /// # Panics
    /// When it neither speaks nor closes.
    #[must_use]
    pub fn receive(&mut self) -> Option<FromControl> {
        let word = runtime().block_on(async { timeout(WORD_MAX, self.receiver.message()).await });
        word.expect("the control plane speaks or closes").ok().flatten().and_then(|frame| frame.frame)
    }

    /// Reads on until the control plane closes; what it said until then.
    #[must_use]
    pub fn rest(&mut self) -> Vec<FromControl> {
        std::iter::from_fn(|| self.receive()).collect()
    }

    /// Says an agent's hello for this host, with this state.
    pub fn hello(&self, fleet: &Stolen, host: HostId, high: u64, last_report: ReportPosition) -> Vec<u8> {
        let hello = plain_hello(fleet, host, high, last_report).encode();
        self.send(FromAgent::Hello(hello.clone()));
        hello
    }

    /// Says that it is this host, under `identity`; whether the control plane opened a session for it. `exporter` is
    /// what the proof is bound to.
    pub fn authenticate(
        &mut self,
        fleet: &Stolen,
        host: HostId,
        identity: &SigningKey<role::Agent>,
        exporter: TlsExporter,
    ) -> Result<(), String> {
        let hello = plain_hello(fleet, host, 0, ReportPosition::START);
        self.introduce(fleet, &hello, identity, exporter).map(drop)
    }

    /// The same with a hello of any kind; what the session was opened with.
    ///
    /// # Errors
    /// What the control plane said instead.
    ///
    /// # Panics
    /// When what it says does not verify.
    pub fn introduce(
        &mut self,
        fleet: &Stolen,
        hello: &AgentHello,
        identity: &SigningKey<role::Agent>,
        exporter: TlsExporter,
    ) -> Result<SessionOpen, String> {
        self.send(FromAgent::Hello(hello.encode()));
        let answer = loop {
            match self.receive() {
                Some(FromControl::Hello(bytes)) => break bytes,
                Some(FromControl::RootChain(_)) => {}
                other => return Err(format!("instead of a hello: {other:?}")),
            }
        };
        let answer = verify::<ControlHello>(&answer, &[fleet.session.verifying()]).expect("a signed hello");
        let proof = identity.sign(&SessionProof {
            fleet: fleet.fleet,
            host: hello.host,
            exporter,
            control_nonce: answer.control_nonce,
            hello_sha256: answer.payload_sha256(),
        });
        self.send(FromAgent::Proof(proof.into_envelope()));
        self.send(FromAgent::Actions(v1::Actions { actions: Vec::new() }));
        match self.receive() {
            Some(FromControl::Open(bytes)) => {
                let open = verify::<SessionOpen>(&bytes, &[fleet.command.verifying()]).expect("a signed session-open");
                Ok(open.into_value())
            }
            other => Err(format!("instead of session-open: {other:?}")),
        }
    }
}

/// The hello of a host in its first epoch, on this machine.
///
/// # Panics
/// When the kernel has no boot id.
#[must_use]
pub fn plain_hello(fleet: &Stolen, host: HostId, high: u64, last_report: ReportPosition) -> AgentHello {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").expect("a boot id");
    AgentHello {
        protocols: vec![1],
        fleet: fleet.fleet,
        host,
        host_epoch: HostEpoch(1),
        nonce: Challenge([5; 32]),
        boot: boot.trim().parse::<BootId>().expect("a boot id"),
        root_version: RootVersion(1),
        high: Sequence(high),
        last_report,
        audit_head: None,
        quarantine: None,
        agent_version: "0.0.0".to_owned(),
    }
}

/// A host's first identity key, taken from its disk.
///
/// # Panics
/// When it cannot be read.
#[must_use]
pub fn identity_of(host: &Host) -> SigningKey<role::Agent> {
    identity_in(host, "identity.key.pem")
}

/// An identity key in this file of a host's.
///
/// # Panics
/// When it cannot be read.
#[must_use]
pub fn identity_in(host: &Host, file: &str) -> SigningKey<role::Agent> {
    let seed = keyfile::read_seed(&host.state(file), keyfile::KeyKind::Ed25519).expect("a key file");
    SigningKey::from_seed(&seed)
}

/// SHA-256 of the payload within an envelope, whoever signed it.
///
/// # Panics
/// When it is no envelope.
#[must_use]
pub fn payload_sha256(envelope: &[u8]) -> Sha256 {
    sha256(&payload_of(envelope))
}

/// The payload within an envelope: its first field (protobuf number 1, length-delimited).
///
/// # Panics
/// When it is no envelope.
#[must_use]
pub fn payload_of(envelope: &[u8]) -> Vec<u8> {
    assert_eq!(envelope.first(), Some(&0x0a), "field 1, length-delimited");
    let (mut length, mut at) = (0_usize, 1);
    for shift in (0..35).step_by(7) {
        let byte = envelope[at];
        at += 1;
        length |= usize::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            break;
        }
    }
    envelope[at..at + length].to_vec()
}

async fn open(address: SocketAddr, session: bool) -> io::Result<Stranger> {
    let (tls, exporter) = connect(address).await?;
    let mut only = Some(TokioIo::new(tls));
    let connector = tower::service_fn(move |_: http::Uri| {
        let connection = only.take().ok_or_else(|| io::Error::other("one connection"));
        async move { connection }
    });
    let channel = Endpoint::from_static("http://control-plane.invalid").connect_with_connector_lazy(connector);
    let mut client = AgentLinkClient::new(channel).max_encoding_message_size(usize::MAX);
    let (sender, frames) = mpsc::channel(64);
    let frames = ReceiverStream::new(frames);
    let answer = if session { client.session(frames).await } else { client.enrol(frames).await };
    let receiver = answer.map_err(io::Error::other)?.into_inner();
    Ok(Stranger { exporter, sender, receiver })
}

async fn connect(address: SocketAddr) -> io::Result<(tokio_rustls::client::TlsStream<TcpStream>, TlsExporter)> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(io::Error::other)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anyone(provider)))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let name = ServerName::IpAddress(address.ip().into());
    let tls = TlsConnector::from(Arc::new(config)).connect(name, TcpStream::connect(address).await?).await?;
    let exporter = tls.get_ref().1.export_keying_material([0; 32], b"EXPORTER-Channel-Binding", None);
    Ok((tls, TlsExporter(exporter.map_err(io::Error::other)?)))
}

/// A stranger does not care whom it speaks to.
#[derive(Debug)]
struct Anyone(Arc<CryptoProvider>);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("TLS 1.3 only".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
