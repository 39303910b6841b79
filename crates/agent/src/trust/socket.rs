//! The door of a running agent for `trust` on the same machine: a Unix socket in the state directory. One JSON
//! document in, one out. What it is handed is judged like anything else, so it opens no way past the chain's rules.

use std::{
    fs::{self, File, Permissions},
    io,
    os::{fd::AsRawFd as _, unix::fs::PermissionsExt as _},
    path::{Path, PathBuf},
};

use data_encoding::BASE64;
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{UnixListener, UnixStream},
    sync::{mpsc, oneshot},
    task::JoinHandle,
    time::{sleep, timeout},
};

use crate::{limits, state_dir::StateDir};

const NAME: &str = "agent.sock";

/// The chain that is held then, or why nothing was taken.
pub(crate) type Answer = Result<Vec<Vec<u8>>, String>;

/// What somebody asks of the running agent: to take what is new in this chain, which may be empty.
pub(crate) struct Handed {
    pub(crate) chain: Vec<Vec<u8>>,
    pub(crate) answer: oneshot::Sender<Answer>,
}

/// What is said over the socket.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Request {
    Show,
    /// Envelopes, base64.
    Apply(Vec<String>),
}

impl Request {
    pub(super) fn apply(chain: &[Vec<u8>]) -> Self {
        Self::Apply(encoded(chain))
    }
}

fn encoded(chain: &[Vec<u8>]) -> Vec<String> {
    chain.iter().map(|envelope| BASE64.encode(envelope)).collect()
}

fn decoded(chain: &[String]) -> io::Result<Vec<Vec<u8>>> {
    chain.iter().map(|text| BASE64.decode(text.as_bytes()).map_err(io::Error::other)).collect()
}

/// Why a running agent could not be asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SocketError {
    #[error(
        "an agent has {path} open and does not answer: run this as its user or as root; if it was just upgraded, \
         restart it first"
    )]
    Away {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// The door of this process, as long as it is kept.
pub(crate) struct Door(Option<JoinHandle<()>>);

impl Door {
    pub(crate) fn close(self) {
        if let Some(task) = self.0 {
            task.abort();
        }
    }
}

/// The socket by way of its open directory: the path of a socket has little room, a state directory's may be long.
fn path_in(state: &StateDir) -> io::Result<(File, PathBuf)> {
    let directory = File::open(state.path())?;
    let path = PathBuf::from(format!("/proc/self/fd/{}/{NAME}", directory.as_raw_fd()));
    Ok((directory, path))
}

/// Opens the door. The caller has the journal's lock, so a socket that is there is nobody's.
pub(crate) fn door(state: &StateDir) -> (Door, mpsc::Receiver<Handed>) {
    let (to, handed) = mpsc::channel(limits::HANDED_MAX);
    match listen(state) {
        Ok(listener) => (Door(Some(tokio::spawn(serve(listener, to)))), handed),
        Err(error) => {
            tracing::warn!(%error, "the agent's own socket cannot be made: `trust` works only while the agent is stopped");
            (Door(None), handed)
        }
    }
}

fn listen(state: &StateDir) -> io::Result<UnixListener> {
    let (_directory, path) = path_in(state)?;
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&path)?;
    fs::set_permissions(&path, Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Answers, one at a time, until dropped.
async fn serve(listener: UnixListener, to: mpsc::Sender<Handed>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                if let Ok(Err(error)) = timeout(limits::HANDED_TIMEOUT, answer(stream, &to)).await {
                    tracing::warn!(%error, "a request on the agent's own socket was not answered");
                }
            }
            Err(error) => {
                tracing::warn!(%error, "the agent's own socket accepts nobody now");
                sleep(limits::ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn answer(mut stream: UnixStream, to: &mpsc::Sender<Handed>) -> io::Result<()> {
    let by = stream.peer_cred()?.uid();
    // The socket's mode lets nobody else in; this holds even where it was opened up by mistake.
    if by != rustix::process::geteuid().as_raw() && by != 0 {
        tracing::warn!(user = by, "another user was refused at the agent's own socket");
        return Ok(());
    }
    let mut text = Vec::new();
    (&mut stream).take(limits::HANDED_BYTES_MAX).read_to_end(&mut text).await?;
    let request: Request = serde_json::from_slice(&text).map_err(io::Error::other)?;
    let chain = match request {
        Request::Show => Vec::new(),
        Request::Apply(chain) => decoded(&chain)?,
    };
    let (answer, answered) = oneshot::channel();
    to.send(Handed { chain, answer }).await.map_err(io::Error::other)?;
    let answer: Answer = answered.await.map_err(io::Error::other)?;
    let text = serde_json::to_vec(&answer.map(|chain| encoded(&chain))).map_err(io::Error::other)?;
    stream.write_all(&text).await
}

/// Asks the agent that runs on this state directory.
pub(super) async fn ask(state: &StateDir, request: &Request) -> Result<Answer, SocketError> {
    let away = |source| SocketError::Away { path: state.path().to_owned(), source };
    let asked = async {
        let (_directory, path) = path_in(state)?;
        exchange(&path, request).await
    };
    let timed_out = || away(io::ErrorKind::TimedOut.into());
    timeout(limits::HANDED_TIMEOUT, asked).await.map_err(|_| timed_out())?.map_err(away)
}

async fn exchange(path: &Path, request: &Request) -> io::Result<Answer> {
    let mut stream = UnixStream::connect(path).await?;
    stream.write_all(&serde_json::to_vec(request).map_err(io::Error::other)?).await?;
    stream.shutdown().await?;
    let mut text = Vec::new();
    stream.take(limits::HANDED_BYTES_MAX).read_to_end(&mut text).await?;
    // An agent that ends before the answer leaves an empty one.
    let answer: Result<Vec<String>, String> = serde_json::from_slice(&text).map_err(io::Error::other)?;
    match answer {
        Ok(chain) => Ok(Ok(decoded(&chain)?)),
        Err(why) => Ok(Err(why)),
    }
}
