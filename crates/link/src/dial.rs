//! One connection: TCP, TLS with a pinned key, the exporter, one gRPC stream each way.

use std::{io, sync::Arc};

use http::Uri;
use hyper_util::rt::TokioIo;
use ids::{RootVersion, Sha256, TlsExporter};
use rustls::{ClientConfig, crypto::aws_lc_rs, pki_types::ServerName, version::TLS13};
use session::frames::{AgentFrame, ControlFrame, RootsAnswer, RootsRequest};
use tokio::{net::TcpStream, sync::mpsc, time::timeout};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};
use wire::v1::{self, agent_link_client::AgentLinkClient};

use crate::{
    limits,
    pin::{Accepted, PinnedKeys},
};

/// Whom to dial, and which keys it may have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// `host:port`; the host is a name, an IPv4 address or a bracketed IPv6 address.
    pub address: String,
    /// SHA-256 of each accepted key's SubjectPublicKeyInfo. Empty refuses everyone.
    pub pins: Vec<Sha256>,
}

/// What the stream is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// To become a host.
    Enrol,
    /// To be one.
    Session,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The address does not parse.
    #[error("the control plane's address {address:?} is not host:port")]
    Address {
        /// As configured.
        address: String,
    },
    /// Nothing answers there.
    #[error("cannot reach the control plane at {address}")]
    Connect {
        /// As configured.
        address: String,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
    /// It took too long.
    #[error("the control plane at {address} did not answer within {seconds} s ({phase})")]
    Timeout {
        /// As configured.
        address: String,
        /// The limit.
        seconds: u64,
        /// Which part took so long.
        phase: &'static str,
    },
    /// The key is not one of the pinned ones.
    #[error(
        "the server at {address} has a key that is not pinned (it showed {presented}): either this is not your control plane, or its TLS key was changed twice while this host was away"
    )]
    NotPinned {
        /// As configured.
        address: String,
        /// SHA-256 of the key it showed.
        presented: Sha256,
    },
    /// TLS failed otherwise.
    #[error("no TLS 1.3 connection to {address}: something other than a ServerFlow control plane may listen there")]
    Tls {
        /// As configured.
        address: String,
        /// What TLS said.
        #[source]
        source: io::Error,
    },
    /// TLS gave no exporter.
    #[error("TLS gave no channel binding for {address}")]
    Exporter {
        /// As configured.
        address: String,
    },
    /// The call was refused before any frame.
    #[error("the control plane at {address} refused the call: {message}")]
    Call {
        /// As configured.
        address: String,
        /// Its words.
        message: String,
    },
}

impl DialError {
    /// What a person can do about it.
    #[must_use]
    pub fn advice(&self) -> &'static str {
        match self {
            Self::Connect { source, .. } if source.raw_os_error().is_none() => {
                "The name does not resolve: look at /etc/resolv.conf, and try the name with `getent hosts`."
            }
            Self::Connect { source, .. } if source.kind() == io::ErrorKind::ConnectionRefused => {
                "The machine answers, and nothing listens on that port: start the control plane, or look at its firewall."
            }
            Self::Connect { .. } | Self::Timeout { .. } => {
                "Look at the network and at the firewalls between this host and the control plane."
            }
            Self::NotPinned { .. } => {
                "Ask an administrator which key the control plane has (its pins stand in the root metadata) before you \
                 trust this network."
            }
            Self::Tls { .. } => "See what listens there: a proxy in between must pass TLS through unopened.",
            Self::Call { .. } => "See what listens there, and read the control plane's log.",
            Self::Address { .. } | Self::Exporter { .. } => {
                "Ask an administrator for a right address of the control plane."
            }
        }
    }
}

/// Why a connection ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// The other side, or the network, ended it.
    #[error("the connection ended: {0}")]
    Ended(String),
    /// A frame came that does not decode.
    #[error("the control plane sent a malformed frame: {0}")]
    Frame(#[from] wire::FrameError),
}

/// An open connection with one stream each way.
#[derive(Debug)]
pub struct Connection {
    /// What both sides sign to bind their proofs to this very connection.
    pub exporter: TlsExporter,
    /// To the control plane.
    pub sender: FrameSender,
    /// From the control plane.
    pub receiver: FrameReceiver,
}

/// Sends frames; dropping it ends the stream.
#[derive(Clone, Debug)]
pub struct FrameSender(mpsc::Sender<v1::AgentFrame>);

impl FrameSender {
    /// Queues a frame; waits while [`limits::SEND_QUEUE_MAX`] frames are waiting.
    ///
    /// # Errors
    /// When the connection has ended.
    pub async fn send(&self, frame: AgentFrame) -> Result<(), LinkError> {
        self.0.send(frame.into()).await.map_err(|_| LinkError::Ended("nothing can be sent any more".to_owned()))
    }
}

/// Receives frames.
#[derive(Debug)]
pub struct FrameReceiver(tonic::Streaming<v1::ControlFrame>);

impl FrameReceiver {
    /// Waits for the next frame. Cancel-safe.
    ///
    /// # Errors
    /// When the connection has ended or a frame does not decode; nothing more comes then.
    pub async fn receive(&mut self) -> Result<ControlFrame, LinkError> {
        match self.0.message().await {
            Ok(Some(frame)) => Ok(frame.try_into()?),
            Ok(None) => Err(LinkError::Ended("the control plane closed it".to_owned())),
            Err(status) => Err(LinkError::Ended(status.message().to_owned())),
        }
    }
}

/// Opens a connection and one stream each way.
///
/// # Errors
/// See [`DialError`]; nothing was sent to a server whose key is not pinned.
pub async fn dial(target: &Target, purpose: Purpose) -> Result<Connection, DialError> {
    let tls = connect_tls(&target.address, Accepted::Pinned(target.pins.clone())).await?;
    let exporter = exporter(&tls).ok_or_else(|| DialError::Exporter { address: target.address.clone() })?;
    let mut client = AgentLinkClient::new(channel(tls))
        .max_decoding_message_size(wire::limits::FRAME_BYTES_MAX)
        .max_encoding_message_size(wire::limits::FRAME_BYTES_MAX);

    let (sender, frames) = mpsc::channel(limits::SEND_QUEUE_MAX);
    let frames = ReceiverStream::new(frames);
    let call = async {
        match purpose {
            Purpose::Enrol => client.enrol(frames).await,
            Purpose::Session => client.session(frames).await,
        }
    };
    let response = timeout(limits::CALL_TIMEOUT, call)
        .await
        .map_err(|_| timed_out(&target.address, limits::CALL_TIMEOUT, "opening the stream"))?
        .map_err(|status| DialError::Call { address: target.address.clone(), message: status.message().to_owned() })?;
    Ok(Connection { exporter, sender: FrameSender(sender), receiver: FrameReceiver(response.into_inner()) })
}

/// Opens a TLS connection as [`dial`] does, says nothing, and closes it: whether the address answers
/// with a pinned key.
///
/// # Errors
/// See [`DialError`].
pub async fn probe(target: &Target) -> Result<(), DialError> {
    connect_tls(&target.address, Accepted::Pinned(target.pins.clone())).await.map(drop)
}

/// Asks whoever answers at an address for root metadata above `request`'s version, and hands over what
/// `newer_than` says it lacks. Its TLS key may be any, so nothing else is said here, and what came is to be
/// verified as root metadata from a stranger. One connection, two calls at most.
///
/// # Errors
/// See [`DialError`]; a control plane that does not know this answers with [`DialError::Call`].
pub async fn exchange_roots(
    address: &str,
    request: RootsRequest,
    newer_than: impl Fn(RootVersion) -> Vec<Vec<u8>>,
) -> Result<RootsAnswer, DialError> {
    let mut client = AgentLinkClient::new(channel(connect_tls(address, Accepted::Any).await?))
        .max_decoding_message_size(wire::limits::FRAME_BYTES_MAX)
        .max_encoding_message_size(wire::limits::FRAME_BYTES_MAX);
    let answer = ask(&mut client, address, RootsRequest { chain: Vec::new(), ..request.clone() }).await?;
    if answer.root_version < request.root_version {
        let chain = newer_than(answer.root_version);
        return ask(&mut client, address, RootsRequest { chain, ..request }).await;
    }
    Ok(answer)
}

async fn ask(
    client: &mut AgentLinkClient<Channel>,
    address: &str,
    request: RootsRequest,
) -> Result<RootsAnswer, DialError> {
    let failed = |message: String| DialError::Call { address: address.to_owned(), message };
    let answer = timeout(limits::CALL_TIMEOUT, client.roots(v1::RootsRequest::from(request)))
        .await
        .map_err(|_| timed_out(address, limits::CALL_TIMEOUT, "exchange of root metadata"))?
        .map_err(|status| failed(status.message().to_owned()))?;
    answer.into_inner().try_into().map_err(|error: wire::FrameError| failed(error.to_string()))
}

fn timed_out(address: &str, limit: std::time::Duration, phase: &'static str) -> DialError {
    DialError::Timeout { address: address.to_owned(), seconds: limit.as_secs(), phase }
}

async fn connect_tls(address: &str, accepted: Accepted) -> Result<TlsStream<TcpStream>, DialError> {
    let address = &address.to_owned();
    let name = server_name(address).ok_or_else(|| DialError::Address { address: address.clone() })?;
    let tcp = timeout(limits::CONNECT_TIMEOUT, TcpStream::connect(address))
        .await
        .map_err(|_| timed_out(address, limits::CONNECT_TIMEOUT, "connecting"))?
        .map_err(|source| DialError::Connect { address: address.clone(), source })?;
    tcp.set_nodelay(true).map_err(|source| DialError::Connect { address: address.clone(), source })?;

    let provider = Arc::new(aws_lc_rs::default_provider());
    let (verifier, presented) = PinnedKeys::new(accepted, provider.clone());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .map_err(|error| DialError::Tls { address: address.clone(), source: io::Error::other(error) })?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    config.resumption = rustls::client::Resumption::disabled();

    let handshake = TlsConnector::from(Arc::new(config)).connect(name, tcp);
    timeout(limits::TLS_TIMEOUT, handshake)
        .await
        .map_err(|_| timed_out(address, limits::TLS_TIMEOUT, "TLS handshake"))?
        .map_err(|source| match presented.refused() {
            Some(presented) => DialError::NotPinned { address: address.clone(), presented },
            None => DialError::Tls { address: address.clone(), source },
        })
}

/// The host part of `host:port`, as TLS wants it.
fn server_name(address: &str) -> Option<ServerName<'static>> {
    let (host, port) = address.rsplit_once(':')?;
    port.parse::<u16>().ok()?;
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    ServerName::try_from(host.to_owned()).ok()
}

/// RFC 9266 `tls-exporter`: 32 bytes, empty context.
fn exporter(tls: &TlsStream<TcpStream>) -> Option<TlsExporter> {
    let (_, connection) = tls.get_ref();
    connection.export_keying_material([0; 32], b"EXPORTER-Channel-Binding", None).ok().map(TlsExporter)
}

/// A channel over this very connection. tonic asks its connector again after a cut; a silent second
/// dial would leave the channel binding behind, so it gets none.
fn channel(tls: TlsStream<TcpStream>) -> Channel {
    let mut only = Some(TokioIo::new(tls));
    let connector = tower::service_fn(move |_: Uri| {
        let connection = only.take().ok_or_else(|| io::Error::other("one connection, one session: dial anew"));
        async move { connection }
    });
    Endpoint::from_static("http://control-plane.serverflow.invalid")
        .http2_keep_alive_interval(limits::PING_INTERVAL)
        .keep_alive_timeout(limits::PING_TIMEOUT)
        .keep_alive_while_idle(true)
        .connect_with_connector_lazy(connector)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_addresses_and_nonsense_are_told_apart() {
        for good in ["control.example:7443", "127.0.0.1:7443", "[::1]:7443"] {
            assert!(server_name(good).is_some(), "{good}");
        }
        for bad in ["", "control.example", "control.example:", "control.example:99999", "bad name:1", ":7443"] {
            assert!(server_name(bad).is_none(), "{bad}");
        }
    }
}
