//! A false control plane: it has whatever keys were stolen for it, and says whatever the test wants, on the wire
//! format and nothing above it.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    pin::Pin,
    sync::{Arc, Mutex, mpsc as channel},
    task::{Context, Poll},
    time::Duration,
};

use envelope::{
    keys::{SigningKey, role},
    messages::{AgentHello, AuditHead, ControlHello, LogPosition, SessionOpen},
    verify,
};
use ids::{Challenge, Epoch, FleetId, HostId, Sha256, TlsExporter, UnixMs, sha256};
use keyfile::KeyKind;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    runtime::{Handle, Runtime},
    sync::mpsc,
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Request, Response, Status, Streaming,
    transport::{Server, server::Connected},
};
use wire::v1::{
    self, AgentFrame, ControlFrame, RootsAnswer, RootsRequest,
    agent_frame::Frame as FromAgent,
    agent_link_server::{AgentLink, AgentLinkServer},
    control_frame::Frame as FromControl,
};

use crate::{
    fleet::Fleet,
    stranger::{Stranger, now},
    wait::PATIENCE,
};

/// How long a word from the other side may take.
const WORD_MAX: Duration = Duration::from_secs(30);

/// Keys taken from a control plane's disk.
pub struct Stolen {
    pub fleet: FleetId,
    pub session: SigningKey<role::Session>,
    pub command: SigningKey<role::Command>,
    pub audit: SigningKey<role::Audit>,
    pub tls: rcgen::KeyPair,
}

impl Stolen {
    /// All of them.
    ///
    /// # Panics
    /// When they cannot be read.
    #[must_use]
    pub fn from(fleet: &Fleet) -> Self {
        let seed = |name: &str| keyfile::read_seed(&fleet.data(name), KeyKind::Ed25519).expect("a key file");
        let tls = fs::read_to_string(fleet.data("keys/tls.key.pem")).expect("a key file");
        Self {
            fleet: fleet.id().parse().expect("a fleet id"),
            session: SigningKey::from_seed(&seed("keys/session.key.pem")),
            command: SigningKey::from_seed(&fleet.command_seed()),
            audit: SigningKey::from_seed(&seed("keys/audit.key.pem")),
            tls: rcgen::KeyPair::from_pem(&tls).expect("a TLS key"),
        }
    }
}

/// A key of the attacker's own.
///
/// # Panics
/// When there is no randomness.
#[must_use]
pub fn own_tls_key() -> rcgen::KeyPair {
    rcgen::KeyPair::generate().expect("a key")
}

/// The false control plane.
pub struct Evil {
    // Dropped last: the streams run on it.
    streams: channel::Receiver<EvilStream>,
    address: SocketAddr,
    /// Its part in exchanges of root metadata.
    pub roots: Arc<Mutex<EvilRoots>>,
    runtime: Runtime,
}

impl Evil {
    /// Listens with this TLS key, under a certificate for `127.0.0.1` as an authority would give it.
    ///
    /// # Panics
    /// When it cannot listen.
    #[must_use]
    pub fn start(tls: &rcgen::KeyPair) -> Self {
        let runtime = Runtime::new().expect("a runtime");
        let certificate = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned(), "localhost".to_owned()])
            .and_then(|parameters| parameters.self_signed(tls))
            .expect("a certificate");
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(tls.serialize_der()));
        let mut config =
            rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
                .with_protocol_versions(&[&rustls::version::TLS13])
                .expect("TLS 1.3")
                .with_no_client_auth()
                .with_single_cert(vec![certificate.der().clone()], key)
                .expect("a certificate that fits its key");
        config.alpn_protocols = vec![b"h2".to_vec()];
        let (told, streams) = channel::channel();
        let roots = Arc::<Mutex<EvilRoots>>::default();
        let service = Service { told: Mutex::new(told), roots: roots.clone() };
        let listener = runtime.block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))).expect("a port");
        let address = listener.local_addr().expect("its address");
        runtime.spawn(serve(listener, TlsAcceptor::from(Arc::new(config)), service));
        Self { streams, roots, address, runtime }
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// The next stream that an agent opens.
    ///
    /// # Panics
    /// When none comes.
    #[must_use]
    pub fn stream(&self) -> EvilStream {
        let mut stream = self.streams.recv_timeout(PATIENCE).expect("an agent dials in");
        stream.runtime = Some(self.runtime.handle().clone());
        stream
    }

    /// Whether a stream was opened that nobody took yet.
    #[must_use]
    pub fn has_stream(&self) -> bool {
        self.streams.try_recv().is_ok()
    }
}

async fn serve(listener: TcpListener, tls: TlsAcceptor, service: Service) {
    let (ready, connections) = mpsc::channel(4);
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let Ok(tls) = tls.accept(tcp).await else { continue };
            let exporter = tls.get_ref().1.export_keying_material([0; 32], b"EXPORTER-Channel-Binding", None);
            let Ok(exporter) = exporter else { continue };
            let _ = ready.send(Ok::<_, std::io::Error>(Bound { tls, exporter: TlsExporter(exporter) })).await;
        }
    });
    let service = AgentLinkServer::new(service).max_encoding_message_size(usize::MAX);
    // Ends with the test.
    let _ = Server::builder().add_service(service).serve_with_incoming(ReceiverStream::new(connections)).await;
}

struct Bound {
    tls: TlsStream<TcpStream>,
    exporter: TlsExporter,
}

impl Connected for Bound {
    type ConnectInfo = TlsExporter;

    fn connect_info(&self) -> TlsExporter {
        self.exporter
    }
}

impl AsyncRead for Bound {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.tls).poll_read(context, buffer)
    }
}

impl AsyncWrite for Bound {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.tls).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.tls).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.tls).poll_shutdown(context)
    }
}

struct Service {
    told: Mutex<channel::Sender<EvilStream>>,
    roots: Arc<Mutex<EvilRoots>>,
}

type Frames = ReceiverStream<Result<ControlFrame, Status>>;

impl Service {
    fn open(&self, request: Request<Streaming<AgentFrame>>) -> Result<Response<Frames>, Status> {
        let exporter = *request.extensions().get::<TlsExporter>().ok_or_else(|| Status::internal("no exporter"))?;
        let (outgoing, frames) = mpsc::channel(16);
        let stream = EvilStream { exporter, incoming: request.into_inner(), outgoing, runtime: None };
        let told = self.told.lock().map_err(|_| Status::internal("the test is over"))?;
        told.send(stream).map_err(|_| Status::internal("the test is over"))?;
        Ok(Response::new(ReceiverStream::new(frames)))
    }
}

#[tonic::async_trait]
impl AgentLink for Service {
    type EnrolStream = Frames;
    type SessionStream = Frames;

    async fn enrol(&self, request: Request<Streaming<AgentFrame>>) -> Result<Response<Frames>, Status> {
        self.open(request)
    }

    async fn session(&self, request: Request<Streaming<AgentFrame>>) -> Result<Response<Frames>, Status> {
        self.open(request)
    }

    async fn roots(&self, request: Request<RootsRequest>) -> Result<Response<RootsAnswer>, Status> {
        let mut roots = self.roots.lock().map_err(|_| Status::internal("the test is over"))?;
        roots.asked.push(request.into_inner());
        roots.answer.clone().map(Response::new).ok_or_else(|| Status::unimplemented("no such method"))
    }
}

/// What an attacker says to an agent that asks for root metadata, and what it was asked.
#[derive(Default)]
pub struct EvilRoots {
    /// None: as if there were no such method.
    pub answer: Option<RootsAnswer>,
    pub asked: Vec<RootsRequest>,
}

/// One agent's stream, in the attacker's hands.
pub struct EvilStream {
    pub exporter: TlsExporter,
    incoming: Streaming<AgentFrame>,
    outgoing: mpsc::Sender<Result<ControlFrame, Status>>,
    runtime: Option<Handle>,
}

impl EvilStream {
    fn handle(&self) -> Handle {
        self.runtime.clone().expect("invariant: set when the stream is handed out")
    }

    /// The agent's next word; `None` when it closed the stream.
    ///
    /// # Panics
    /// When it neither speaks nor closes.
    #[must_use]
    pub fn receive(&mut self) -> Option<FromAgent> {
        let word = self.handle().block_on(async { timeout(WORD_MAX, self.incoming.message()).await });
        word.expect("the agent speaks or closes").ok().flatten().and_then(|frame| frame.frame)
    }

    /// Reads on until the agent closes; what it said until then.
    #[must_use]
    pub fn rest(&mut self) -> Vec<FromAgent> {
        std::iter::from_fn(|| self.receive()).collect()
    }

    /// Says something. That the agent is gone shows in what it says next: nothing.
    pub fn send(&self, frame: FromControl) {
        let _ = self.handle().block_on(self.outgoing.send(Ok(ControlFrame { frame: Some(frame) })));
    }

    /// Delivers the bytes of an order.
    pub fn deliver(&self, command: &[u8]) {
        self.deliver_approved(command, Vec::new());
    }

    /// The same with approvals beside it.
    pub fn deliver_approved(&self, command: &[u8], approvals: Vec<Vec<u8>>) {
        self.send(FromControl::Deliver(v1::Deliver { command: command.to_vec(), sealed: Vec::new(), approvals }));
    }

    /// The agent's hello, and the hello answered under the stolen session key.
    ///
    /// # Panics
    /// When the agent says something else.
    pub fn greet(&mut self, stolen: &Stolen) -> AgentHello {
        let Some(FromAgent::Hello(bytes)) = self.receive() else { panic!("an agent begins with its hello") };
        let hello = AgentHello::decode(&bytes).expect("a hello");
        let answer = ControlHello {
            protocol: hello.protocols.last().copied().expect("a version"),
            fleet: stolen.fleet,
            host: hello.host,
            agent_nonce: hello.nonce,
            control_nonce: Challenge([7; 32]),
            exporter: self.exporter,
            agent_hello_sha256: sha256(&bytes),
            time: now(),
            root_version: hello.root_version,
        };
        self.send(FromControl::Hello(stolen.session.sign(&answer).into_envelope()));
        hello
    }

    /// The handshake up to an open session, as an honest control plane would do it, at this time; the agent's hello.
    ///
    /// # Panics
    /// When the agent says something else.
    pub fn open_at(&mut self, stolen: &Stolen, signer: &SigningKey<role::Command>, time: UnixMs) -> AgentHello {
        let hello = self.greet(stolen);
        let Some(FromAgent::Proof(proof)) = self.receive() else { panic!("an agent proves itself") };
        let proof_sha256 = crate::stranger::payload_sha256(&proof);
        let open = SessionOpen {
            fleet: stolen.fleet,
            host: hello.host,
            host_epoch: hello.host_epoch,
            epoch: Epoch(1),
            exporter: self.exporter,
            proof_sha256,
            time,
            acknowledged: hello.high,
            last_report: hello.last_report,
        };
        self.send(FromControl::Open(signer.sign(&open).into_envelope()));
        assert!(matches!(self.receive(), Some(FromAgent::Actions(_))), "an agent lists its actions");
        hello
    }

    /// [`Self::open_at`] the present time, under the fleet's own command key, and the very head that the host
    /// holds under the stolen audit key: without it the host takes no order.
    ///
    /// # Panics
    /// As that.
    pub fn open(&mut self, stolen: &Stolen) -> AgentHello {
        let hello = self.open_at(stolen, &stolen.command, now());
        if let Some(position) = hello.audit_head {
            self.show(stolen, position, position.size, &[]);
        }
        hello
    }

    /// Shows a head under the stolen audit key, and hashes that are to prove it from that size on.
    pub fn show(&self, stolen: &Stolen, position: LogPosition, from_size: u64, hashes: &[Sha256]) {
        let head = stolen.audit.sign(&AuditHead { fleet: stolen.fleet, position, time: now() }).into_envelope();
        let hashes = hashes.iter().map(|hash| hash.0.to_vec()).collect();
        self.send(FromControl::AuditConsistency(v1::AuditConsistency { head, from_size, hashes }));
    }

    /// Sits in between: carries every frame to the control plane and back until one side ends it.
    pub fn relay(self, control_plane: SocketAddr) {
        let handle = self.handle();
        let Self { mut incoming, outgoing, .. } = self;
        let Stranger { sender, mut receiver, .. } = Stranger::session(control_plane);
        let up = async move {
            while let Ok(Some(frame)) = incoming.message().await {
                if sender.send(frame).await.is_err() {
                    return;
                }
            }
        };
        let down = async move {
            while let Ok(Some(frame)) = receiver.message().await {
                if outgoing.send(Ok(frame)).await.is_err() {
                    return;
                }
            }
        };
        handle.block_on(async {
            let _ = timeout(WORD_MAX, async { tokio::join!(up, down) }).await;
        });
    }
}

/// The host an order is for, and the order itself, as signed by the fleet.
///
/// # Panics
/// When it is not.
#[must_use]
pub fn opened(stolen: &Stolen, envelope: &[u8]) -> (HostId, envelope::messages::Command) {
    let command = verify::<envelope::messages::Command>(envelope, &[stolen.command.verifying()]).expect("signed");
    (command.order.host, command.into_value())
}
