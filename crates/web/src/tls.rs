//! Encrypted connections. Keys never come into this room: whoever holds them makes a connection of a
//! socket, and this room sees what is inside.

use std::{io, sync::Arc};

use futures_util::future::BoxFuture;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};

/// A connection as HTTP sees it.
pub trait Connection: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Connection for T {}

/// Who encrypts the people's connections.
pub trait Tls: Send + Sync {
    /// The handshake. It has [`crate::limits::HANDSHAKE_TIME_MAX`].
    fn accept(self: Arc<Self>, tcp: TcpStream) -> BoxFuture<'static, io::Result<Box<dyn Connection>>>;
    /// Whether the certificate in use is valid for this name or address (no port, no brackets).
    fn certifies(&self, name: &str) -> bool;
}
