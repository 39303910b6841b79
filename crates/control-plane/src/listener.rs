//! The agents' door: TCP, TLS 1.3, and what the connection says of itself (peer, TLS exporter).
//!
//! TLS is accepted here and not by tonic, because the exporter (RFC 9266) must be read from the
//! connection that the stream will run on.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, atomic::AtomicUsize},
    task::{Context, Poll},
};

use ids::TlsExporter;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::Connected;

use crate::{
    limits,
    patience::{Patience, Proved},
    tls::ServedTls,
};

/// An agent's connection after its TLS handshake.
pub(crate) struct AgentConnection {
    tls: TlsStream<TcpStream>,
    info: ConnectionInfo,
    patience: Patience,
    /// Counts against [`limits::CONNECTIONS_MAX`] as long as the connection lives.
    _place: OwnedSemaphorePermit,
}

/// What a stream's handler knows of its connection.
#[derive(Clone, Debug)]
pub(crate) struct ConnectionInfo {
    pub(crate) peer: SocketAddr,
    pub(crate) exporter: TlsExporter,
    /// Whoever proves itself on the connection says so here, or the connection is cut.
    pub(crate) proved: Proved,
    /// How often root metadata was asked for on it.
    pub(crate) roots_asked: Arc<AtomicUsize>,
}

impl Connected for AgentConnection {
    type ConnectInfo = ConnectionInfo;

    fn connect_info(&self) -> ConnectionInfo {
        self.info.clone()
    }
}

impl AsyncRead for AgentConnection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        // HTTP/2 always has a read under way, so this is where the time is looked at.
        if self.patience.poll_over(context).is_ready() {
            let peer = self.info.peer;
            tracing::debug!(%peer, "a connection was cut: nobody proved anything on it");
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        Pin::new(&mut self.tls).poll_read(context, buffer)
    }
}

impl AsyncWrite for AgentConnection {
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

/// Accepts connections for as long as the receiving end lives.
pub(crate) fn accept(listener: TcpListener, tls: Arc<ServedTls>) -> ReceiverStream<io::Result<AgentConnection>> {
    let (ready, connections) = mpsc::channel(limits::HANDSHAKES_MAX);
    tokio::spawn(accept_loop(listener, tls, ready));
    ReceiverStream::new(connections)
}

async fn accept_loop(listener: TcpListener, tls: Arc<ServedTls>, ready: mpsc::Sender<io::Result<AgentConnection>>) {
    let handshakes = Arc::new(Semaphore::new(limits::HANDSHAKES_MAX));
    let places = Arc::new(Semaphore::new(limits::CONNECTIONS_MAX));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        let Ok(handshake) = handshakes.clone().acquire_owned().await else { return };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = ready.closed() => return,
        };
        let (tcp, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of file descriptors, or a connection gone before it was taken: neither lasts.
                tracing::warn!(%error, "an agent's connection could not be accepted");
                tokio::time::sleep(limits::ACCEPT_PAUSE).await;
                continue;
            }
        };
        let (tls, ready) = (TlsAcceptor::from(tls.config()), ready.clone());
        tokio::spawn(async move {
            match timeout(limits::TLS_TIMEOUT, shake_hands(tcp, peer, &tls, place)).await {
                Ok(Ok(connection)) => {
                    let _ = ready.send(Ok(connection)).await;
                }
                Ok(Err(error)) => tracing::debug!(%peer, %error, "a TLS handshake failed"),
                Err(_) => tracing::debug!(%peer, "a TLS handshake took too long"),
            }
            drop(handshake);
        });
    }
}

async fn shake_hands(
    tcp: TcpStream,
    peer: SocketAddr,
    tls: &TlsAcceptor,
    place: OwnedSemaphorePermit,
) -> io::Result<AgentConnection> {
    tcp.set_nodelay(true)?;
    let tls = tls.accept(tcp).await?;
    let exporter =
        tls.get_ref().1.export_keying_material([0; 32], b"EXPORTER-Channel-Binding", None).map_err(io::Error::other)?;
    let proved = Proved::default();
    let patience = Patience::new(proved.clone());
    let info = ConnectionInfo { peer, exporter: TlsExporter(exporter), proved, roots_asked: Arc::default() };
    Ok(AgentConnection { tls, info, patience, _place: place })
}
