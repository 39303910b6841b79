//! The door of a running control plane for `admin` on the same machine: a Unix socket in the data
//! directory, which only its owner may enter. One line of JSON in, one line out.

use std::{
    fs::{self, File, Permissions},
    io,
    os::{fd::AsRawFd as _, unix::fs::PermissionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use fleet::ports::Store;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{UnixListener, UnixStream},
    time::{sleep, timeout},
};

use crate::{
    admin::{Answer, Request, perform},
    clock,
    hub::Hub,
    limits,
};

const NAME: &str = "admin.sock";

/// Why the running control plane could not be asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SocketError {
    #[error(
        "another program has the database in {path} open and does not answer: if it is a control plane, run this as its user or as root, or stop it first"
    )]
    Away {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the running control plane did not do it; its log says more")]
    NoAnswer,
}

/// The socket by way of its open directory: the path of a socket has little room, a data directory's
/// may be long.
fn path_in(directory: &Path) -> io::Result<(File, PathBuf)> {
    let directory = File::open(directory)?;
    let path = PathBuf::from(format!("/proc/self/fd/{}/{NAME}", directory.as_raw_fd()));
    Ok((directory, path))
}

/// Opens the door. The caller has the database's lock, so a socket that is there is nobody's.
pub(crate) fn listen(data_dir: &Path) -> io::Result<UnixListener> {
    let (_directory, path) = path_in(data_dir)?;
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&path)?;
    fs::set_permissions(&path, Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Answers, one at a time, until dropped.
pub(crate) async fn serve(listener: UnixListener, store: Arc<dyn Store>, hub: Arc<Hub>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let answered = timeout(limits::ADMIN_TIMEOUT, answer(stream, &*store, &hub)).await;
                if let Ok(Err(error)) = answered {
                    tracing::warn!(%error, "a request on the machine's own socket was not answered");
                }
            }
            Err(error) => {
                tracing::warn!(%error, "the machine's own socket accepts nobody now");
                sleep(limits::ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn answer(mut stream: UnixStream, store: &dyn Store, hub: &Hub) -> io::Result<()> {
    let by = stream.peer_cred()?.uid();
    // The directory lets nobody else in; this holds even where it was opened up by mistake.
    if by != rustix::process::geteuid().as_raw() && by != 0 {
        tracing::warn!(user = by, "another user was refused at the machine's own socket");
        return Ok(());
    }
    let mut line = String::new();
    let (read, mut write) = stream.split();
    BufReader::new(read.take(limits::ADMIN_LINE_BYTES_MAX)).read_line(&mut line).await?;
    let request: Request = serde_json::from_str(&line).map_err(io::Error::other)?;
    tracing::info!(user = by, what = request.word(), "asked on the machine itself");
    let done = perform(store, Some(hub), request, by, clock::now()).await;
    let done: Answer = done.unwrap_or_else(|error| Err(error.to_string()));
    let text = serde_json::to_vec(&done).map_err(io::Error::other)?;
    write.write_all(&text).await?;
    write.write_all(b"\n").await
}

/// Asks the control plane that runs on this data directory.
pub(crate) async fn ask(data_dir: &Path, request: &Request) -> Result<Answer, SocketError> {
    let away = |source| SocketError::Away { path: data_dir.to_owned(), source };
    let asked = async {
        let (_directory, path) = path_in(data_dir)?;
        let mut stream = UnixStream::connect(&path).await?;
        let mut line = serde_json::to_vec(request).map_err(io::Error::other)?;
        line.push(b'\n');
        stream.write_all(&line).await?;
        let mut answer = Vec::new();
        stream.take(limits::ADMIN_ANSWER_BYTES_MAX).read_to_end(&mut answer).await?;
        Ok(answer)
    };
    let timed_out = || away(io::ErrorKind::TimedOut.into());
    let answer = timeout(limits::ADMIN_TIMEOUT, asked).await.map_err(|_| timed_out())?.map_err(away)?;
    serde_json::from_slice(&answer).map_err(|_| SocketError::NoAnswer)
}
