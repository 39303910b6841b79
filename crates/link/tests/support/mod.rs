//! A listener as the control plane has it (TCP, TLS, exporter, gRPC), with whatever the test says
//! behind it. Also used by the agent's tests.

#![allow(dead_code, reason = "each test program uses a part of it")]

use std::{
    future::Future,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use ids::{Sha256, TlsExporter, sha256};
use link::{Purpose, Target};
use rcgen::{CertificateParams, Issuer, KeyPair, PublicKeyData as _};
use rustls::{
    ServerConfig,
    crypto::aws_lc_rs,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
};
use session::frames::{AgentFrame, ControlFrame};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::JoinHandle,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Request, Response, Status, Streaming,
    transport::{Server, server::Connected},
};
use wire::v1::{
    self,
    agent_link_server::{AgentLink, AgentLinkServer},
};

/// A TLS key with the certificate it shows.
pub(crate) struct ServerKey {
    pub(crate) config: ServerConfig,
    /// What a client pins.
    pub(crate) pin: Sha256,
}

impl ServerKey {
    /// A self-signed certificate, as the control plane's.
    pub(crate) fn self_signed() -> Self {
        let key = KeyPair::generate().expect("randomness");
        let certificate = CertificateParams::new(Vec::new()).expect("no names").self_signed(&key).expect("signed");
        Self::new(&key, vec![certificate.der().clone()], &[&rustls::version::TLS13])
    }

    /// A certificate for `127.0.0.1` that a certificate authority signed: valid for everyone who trusts it.
    pub(crate) fn signed_by_an_authority() -> Self {
        let (authority_key, key) = (KeyPair::generate().expect("randomness"), KeyPair::generate().expect("randomness"));
        let mut authority = CertificateParams::new(Vec::new()).expect("no names");
        authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let authority_certificate = authority.self_signed(&authority_key).expect("signed");
        let issuer = Issuer::from_params(&authority, &authority_key);
        let parameters = CertificateParams::new(vec!["127.0.0.1".to_owned()]).expect("an address");
        let certificate = parameters.signed_by(&key, &issuer).expect("signed");
        let chain = vec![certificate.der().clone(), authority_certificate.der().clone()];
        Self::new(&key, chain, &[&rustls::version::TLS13])
    }

    pub(crate) fn new(
        key: &KeyPair,
        chain: Vec<rustls::pki_types::CertificateDer<'static>>,
        versions: &[&'static rustls::SupportedProtocolVersion],
    ) -> Self {
        let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(versions)
            .expect("supported versions")
            .with_no_client_auth()
            .with_single_cert(chain, private)
            .expect("key and certificate fit");
        config.alpn_protocols = vec![b"h2".to_vec()];
        Self { config, pin: sha256(&key.subject_public_key_info()) }
    }
}

/// One stream of an agent, as its handler sees it.
pub(crate) struct Stream {
    pub(crate) purpose: Purpose,
    pub(crate) exporter: TlsExporter,
    incoming: Streaming<v1::AgentFrame>,
    outgoing: mpsc::Sender<Result<v1::ControlFrame, Status>>,
}

impl Stream {
    /// The next frame; `None` when the agent ended the stream or the connection.
    pub(crate) async fn receive(&mut self) -> Option<AgentFrame> {
        let frame = self.incoming.message().await.ok().flatten()?;
        Some(frame.try_into().expect("the agent sends well-formed frames"))
    }

    pub(crate) async fn send(&self, frame: ControlFrame) {
        self.send_raw(frame.into()).await;
    }

    pub(crate) async fn send_raw(&self, frame: v1::ControlFrame) {
        // The agent may be gone; the test finds out by what it waits for.
        let _ = self.outgoing.send(Ok(frame)).await;
    }
}

type Handler = Arc<dyn Fn(Stream) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync>;

/// A running listener; it ends, connections and all, when dropped.
pub(crate) struct Listener {
    pub(crate) address: SocketAddr,
    pub(crate) pin: Sha256,
    accepted: Arc<AtomicUsize>,
    sockets: Sockets,
    roots: Roots,
    task: JoinHandle<()>,
}

/// What is answered to requests for root metadata, and what was asked.
#[derive(Clone, Default)]
pub(crate) struct Roots(Arc<Mutex<(Option<v1::RootsAnswer>, Vec<v1::RootsRequest>)>>);

impl Roots {
    /// From now on; without it, as by a control plane that has no such method.
    pub(crate) fn answer(&self, answer: v1::RootsAnswer) {
        self.0.lock().expect("no test panicked here").0 = Some(answer);
    }

    pub(crate) fn asked(&self) -> Vec<v1::RootsRequest> {
        self.0.lock().expect("no test panicked here").1.clone()
    }
}

/// A second handle to each connection, by which the test cuts it.
type Sockets = Arc<Mutex<Vec<std::net::TcpStream>>>;

impl Listener {
    /// Listens on a free port.
    pub(crate) async fn start<F>(key: ServerKey, handler: impl Fn(Stream) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let tcp = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        Self::start_on(tcp, key, handler)
    }

    pub(crate) fn start_on<F>(
        tcp: TcpListener,
        key: ServerKey,
        handler: impl Fn(Stream) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let address = tcp.local_addr().expect("it listens");
        let accepted = Arc::new(AtomicUsize::new(0));
        let (ready, connections) = mpsc::channel(16);
        let (tls, sockets) = (TlsAcceptor::from(Arc::new(key.config)), Sockets::default());
        tokio::spawn(accept(tcp, tls, ready, accepted.clone(), sockets.clone()));
        let handler: Handler = Arc::new(move |stream| Box::pin(handler(stream)));
        let roots = Roots::default();
        let service = AgentLinkServer::new(Service(handler, roots.clone()))
            .max_decoding_message_size(wire::limits::FRAME_BYTES_MAX);
        let serve = Server::builder().add_service(service).serve_with_incoming(ReceiverStream::new(connections));
        let task = tokio::spawn(async move { drop(serve.await) });
        Self { address, pin: key.pin, accepted, sockets, roots, task }
    }

    pub(crate) fn target(&self) -> Target {
        Target { address: self.address.to_string(), pins: vec![self.pin] }
    }

    pub(crate) fn roots(&self) -> &Roots {
        &self.roots
    }

    /// TCP connections accepted so far.
    pub(crate) fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }

    /// Cuts every connection, as a network would.
    pub(crate) fn cut(&self) {
        for socket in self.sockets.lock().expect("no test panicked here").drain(..) {
            // It may be gone already.
            let _ = socket.shutdown(std::net::Shutdown::Both);
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.task.abort();
        self.cut();
    }
}

async fn accept(
    tcp: TcpListener,
    tls: TlsAcceptor,
    ready: mpsc::Sender<io::Result<Accepted>>,
    accepted: Arc<AtomicUsize>,
    sockets: Sockets,
) {
    loop {
        let connection = tokio::select! {
            connection = tcp.accept() => connection,
            () = ready.closed() => return,
        };
        let Ok((stream, _)) = connection else { return };
        accepted.fetch_add(1, Ordering::SeqCst);
        let stream = stream.into_std().expect("a socket");
        sockets.lock().expect("no test panicked here").push(stream.try_clone().expect("a second handle"));
        let stream = TcpStream::from_std(stream).expect("a socket");
        let (tls, ready) = (tls.clone(), ready.clone());
        tokio::spawn(async move {
            let Ok(tls) = tls.accept(stream).await else { return };
            let exporter = tls.get_ref().1.export_keying_material([0; 32], b"EXPORTER-Channel-Binding", None);
            let Ok(exporter) = exporter else { return };
            let _ = ready.send(Ok(Accepted { tls, exporter: TlsExporter(exporter) })).await;
        });
    }
}

struct Service(Handler, Roots);

type Frames = ReceiverStream<Result<v1::ControlFrame, Status>>;

impl Service {
    fn open(&self, purpose: Purpose, request: Request<Streaming<v1::AgentFrame>>) -> Response<Frames> {
        let exporter = *request.extensions().get::<TlsExporter>().expect("every connection has one");
        let (outgoing, frames) = mpsc::channel(16);
        tokio::spawn((self.0)(Stream { purpose, exporter, incoming: request.into_inner(), outgoing }));
        Response::new(ReceiverStream::new(frames))
    }
}

#[tonic::async_trait]
impl AgentLink for Service {
    type EnrolStream = Frames;
    type SessionStream = Frames;

    async fn enrol(&self, request: Request<Streaming<v1::AgentFrame>>) -> Result<Response<Frames>, Status> {
        Ok(self.open(Purpose::Enrol, request))
    }

    async fn session(&self, request: Request<Streaming<v1::AgentFrame>>) -> Result<Response<Frames>, Status> {
        Ok(self.open(Purpose::Session, request))
    }

    async fn roots(&self, request: Request<v1::RootsRequest>) -> Result<Response<v1::RootsAnswer>, Status> {
        let mut roots = self.1.0.lock().expect("no test panicked here");
        roots.1.push(request.into_inner());
        roots.0.clone().map(Response::new).ok_or_else(|| Status::unimplemented("no such method"))
    }
}

struct Accepted {
    tls: TlsStream<TcpStream>,
    exporter: TlsExporter,
}

impl Connected for Accepted {
    type ConnectInfo = TlsExporter;

    fn connect_info(&self) -> TlsExporter {
        self.exporter
    }
}

impl AsyncRead for Accepted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_read(context, buffer)
    }
}

impl AsyncWrite for Accepted {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tls).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_shutdown(context)
    }
}
