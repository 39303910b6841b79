//! Where the two ends of the signer's socket meet: paths, and who may come.

use std::{
    fs::{self, File, Permissions},
    io,
    os::{fd::AsRawFd as _, unix::fs::PermissionsExt as _},
    path::{Path, PathBuf},
};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _},
    net::{UnixListener, UnixStream},
    time::timeout,
};

use crate::{
    codec::{LENGTH_BYTES, frame_length},
    limits,
};

/// The socket by way of its open directory: the path of a socket has little room, a data directory's may be long.
fn short(path: &Path) -> io::Result<(File, PathBuf)> {
    let no_name = || io::Error::new(io::ErrorKind::InvalidInput, "a socket needs a directory and a name");
    let (parent, name) = path.parent().zip(path.file_name()).ok_or_else(no_name)?;
    let directory = File::open(if parent.as_os_str().is_empty() { Path::new(".") } else { parent })?;
    let path = PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd())).join(name);
    Ok((directory, path))
}

/// Listens. The caller has the signer's directory to itself, so a socket that is there is nobody's. With `others`, users of
/// the socket's group may connect too; who may ask is judged by [`Peers`] all the same.
///
/// # Errors
/// When the socket cannot be made.
pub fn listen(path: &Path, others: bool) -> io::Result<UnixListener> {
    let (_directory, path) = short(path)?;
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&path)?;
    fs::set_permissions(&path, Permissions::from_mode(if others { 0o660 } else { 0o600 }))?;
    Ok(listener)
}

pub(crate) async fn dial(path: &Path) -> io::Result<UnixStream> {
    let (_directory, path) = short(path)?;
    UnixStream::connect(&path).await
}

/// Users, by number, who may ask for signatures: the signer's own, root (who could read the keys anyway), and those named.
#[derive(Clone, Debug)]
pub struct Peers(Vec<u32>);

impl Peers {
    /// Its own user, root, and these.
    #[must_use]
    pub fn new(more: &[u32]) -> Self {
        let own = rustix::process::geteuid().as_raw();
        Self([own, 0].iter().chain(more).copied().collect())
    }

    /// Whether the system says that this peer is one of them.
    pub(crate) fn admits(&self, stream: &UnixStream) -> bool {
        match stream.peer_cred() {
            Ok(peer) if self.0.contains(&peer.uid()) => true,
            Ok(peer) => {
                tracing::warn!(user = peer.uid(), "another user was refused at the signer's socket");
                false
            }
            Err(error) => {
                tracing::warn!(%error, "somebody who could not be known was refused at the signer's socket");
                false
            }
        }
    }
}

/// The next frame, without its length; `None` at the end of the connection. It may be long in coming, but not in its
/// middle.
pub(crate) async fn read_frame(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<Vec<u8>>> {
    let mut length = [0; LENGTH_BYTES];
    if stream.read(&mut length[..1]).await? == 0 {
        return Ok(None);
    }
    let rest = async {
        stream.read_exact(&mut length[1..]).await?;
        let mut frame = vec![0; frame_length(length).map_err(io::Error::other)?];
        stream.read_exact(&mut frame).await?;
        Ok(Some(frame))
    };
    timeout(limits::FRAME_TIMEOUT, rest).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}
