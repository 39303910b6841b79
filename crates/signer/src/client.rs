//! A signer that is another process. It may end and come back at any time: requests wait a little for it, what was asked of
//! one that ended is answered as "not now", and whoever asked asks again.

use std::{
    collections::HashMap,
    io,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use envelope::{
    messages::{Command, GuardReset, PublicKeyBytes, SessionOpen, StandingOrder},
    signer_port::{Later, SignError, SignedCommand, Signer, SignerKeys},
};
use ids::{KeyId, RootVersion};
use tokio::{
    io::{AsyncWriteExt as _, BufReader},
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{mpsc, oneshot, watch},
    task::JoinHandle,
    time::{sleep, timeout},
};

use crate::{
    codec::{Answered, Asked},
    limits,
    socket::{dial, read_frame},
};

/// How the other process stands, as far as it is known here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It cannot be reached, or does not answer.
    Away {
        /// What was seen.
        why: String,
    },
    /// It answers.
    Here(SignerKeys),
}

type Question = (Asked, oneshot::Sender<Answered>);
type Link = Option<mpsc::Sender<Question>>;

/// A signer at the other end of a socket.
#[derive(Debug)]
pub struct RemoteSigner {
    path: PathBuf,
    link: watch::Receiver<Link>,
    standing: watch::Receiver<Standing>,
    task: JoinHandle<()>,
}

impl RemoteSigner {
    /// Begins to dial, and goes on for as long as this lives.
    #[must_use]
    pub fn dial(path: &Path) -> Self {
        let (links, link) = watch::channel(None);
        let (standings, standing) = watch::channel(Standing::Away { why: "it was not reached yet".to_owned() });
        let task = tokio::spawn(keep_connected(path.to_owned(), links, standings));
        Self { path: path.to_owned(), link, standing, task }
    }

    /// How it stood when last asked.
    #[must_use]
    pub fn standing(&self) -> Standing {
        self.standing.borrow().clone()
    }

    /// The same, as it changes.
    #[must_use]
    pub fn standings(&self) -> watch::Receiver<Standing> {
        self.standing.clone()
    }

    fn away(&self) -> SignError {
        let path = self.path.display();
        let why = match &*self.standing.borrow() {
            Standing::Away { why } => why.clone(),
            Standing::Here(_) => "it ended while it was asked".to_owned(),
        };
        SignError::Unavailable(format!("it does not answer at {path} ({why}); see whether it runs, and its log"))
    }

    async fn ask(&self, asked: Asked) -> Result<Answered, SignError> {
        let mut link = self.link.clone();
        let found = async { link.wait_for(Option::is_some).await.ok().and_then(|link| link.clone()) };
        let queue = timeout(limits::AWAY_PATIENCE, found).await.ok().flatten().ok_or_else(|| self.away())?;
        let (answer, wait) = oneshot::channel();
        queue.send((asked, answer)).await.map_err(|_| self.away())?;
        match wait.await.map_err(|_| self.away())? {
            Answered::Not(error) => Err(error),
            answered => Ok(answered),
        }
    }

    async fn ask_for<T>(&self, asked: Asked, take: impl FnOnce(Answered) -> Option<T>) -> Result<T, SignError> {
        let strange = || SignError::Unavailable("it answered something else than was asked".to_owned());
        take(self.ask(asked).await?).ok_or_else(strange)
    }

    /// In as many requests as frames are needed; the first chain of all has to fit into one.
    async fn hand_over(&self, chain: Vec<Vec<u8>>) -> Result<RootVersion, SignError> {
        let mut version = RootVersion(0);
        for part in parts(chain) {
            let take = |answered| if let Answered::Version(version) = answered { Some(version) } else { None };
            version = self.ask_for(Asked::AdvanceRoot(part), take).await?;
        }
        Ok(version)
    }
}

impl Drop for RemoteSigner {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn parts(chain: Vec<Vec<u8>>) -> Vec<Vec<Vec<u8>>> {
    let (mut parts, mut part, mut bytes) = (Vec::new(), Vec::new(), 0);
    for envelope in chain {
        if bytes + envelope.len() > limits::CHAIN_PART_BYTES_MAX && !part.is_empty() {
            parts.push(std::mem::take(&mut part));
            bytes = 0;
        }
        bytes += envelope.len();
        part.push(envelope);
    }
    parts.push(part);
    parts
}

async fn keep_connected(path: PathBuf, links: watch::Sender<Link>, standings: watch::Sender<Standing>) {
    let mut pause = limits::REDIAL_FIRST;
    loop {
        let why = match dial(&path).await {
            Ok(stream) => {
                let ended = connection(stream, &links, &standings).await;
                links.send_replace(None);
                if matches!(&*standings.borrow(), Standing::Here(_)) {
                    pause = limits::REDIAL_FIRST;
                }
                ended
            }
            Err(error) => error,
        };
        standings.send_replace(Standing::Away { why: why.to_string() });
        sleep(pause).await;
        pause = (pause * 2).min(limits::REDIAL_MAX);
    }
}

/// Questions by their number.
type Pending = Mutex<HashMap<u64, oneshot::Sender<Answered>>>;

/// Serves one connection to its end, and says why it ended.
async fn connection(stream: UnixStream, links: &watch::Sender<Link>, standings: &watch::Sender<Standing>) -> io::Error {
    let (read, write) = stream.into_split();
    let (queue, questions) = mpsc::channel(limits::QUEUE_MAX);
    links.send_replace(Some(queue.clone()));
    let pending = Pending::default();
    tokio::select! {
        error = write_questions(write, questions, &pending) => error,
        error = read_answers(BufReader::new(read), &pending) => error,
        () = watch_standing(&queue, standings) => io::ErrorKind::ConnectionAborted.into(),
    }
}

async fn write_questions(
    mut stream: OwnedWriteHalf,
    mut questions: mpsc::Receiver<Question>,
    pending: &Pending,
) -> io::Error {
    let mut number = 0;
    while let Some((asked, answer)) = questions.recv().await {
        number += 1;
        let frame = match asked.to_frame(number) {
            Ok(frame) => frame,
            Err(error) => {
                let _ = answer.send(Answered::Not(SignError::Refused(error.to_string())));
                continue;
            }
        };
        pending.lock().unwrap_or_else(PoisonError::into_inner).insert(number, answer);
        if let Err(error) = stream.write_all(&frame).await {
            return error;
        }
    }
    io::ErrorKind::ConnectionAborted.into()
}

async fn read_answers(mut stream: BufReader<OwnedReadHalf>, pending: &Pending) -> io::Error {
    loop {
        let frame = match read_frame(&mut stream).await {
            Ok(Some(frame)) => frame,
            Ok(None) => return io::Error::other("it closed the connection"),
            Err(error) => return error,
        };
        let (number, answered) = match Answered::from_frame(&frame) {
            Ok(answer) => answer,
            Err(error) => return io::Error::other(error),
        };
        let waiting = pending.lock().unwrap_or_else(PoisonError::into_inner).remove(&number);
        match waiting {
            // Whoever asked may have gone.
            Some(waiting) => drop(waiting.send(answered)),
            None => return io::Error::other("it answered what nobody asked"),
        }
    }
}

async fn watch_standing(queue: &mpsc::Sender<Question>, standings: &watch::Sender<Standing>) {
    loop {
        let (answer, wait) = oneshot::channel();
        if queue.send((Asked::Keys, answer)).await.is_err() {
            return;
        }
        let standing = match timeout(limits::STANDING_TIMEOUT, wait).await {
            Ok(Ok(Answered::Keys(keys))) => Standing::Here(keys),
            Ok(Ok(other)) => Standing::Away { why: format!("it answered {other:?}") },
            Ok(Err(_)) => return,
            Err(_) => Standing::Away { why: "it is reached and does not answer".to_owned() },
        };
        standings.send_if_modified(|known| {
            let is_new = *known != standing;
            *known = standing;
            is_new
        });
        sleep(limits::STANDING_INTERVAL).await;
    }
}

impl Signer for RemoteSigner {
    fn sign_command(&self, command: Command, approvals: Vec<Vec<u8>>) -> Later<'_, Result<SignedCommand, SignError>> {
        let take = |answered| if let Answered::Signed(signed) = answered { Some(signed) } else { None };
        Box::pin(self.ask_for(Asked::Command(Box::new(command), approvals), take))
    }

    fn sign_open(&self, open: SessionOpen) -> Later<'_, Result<Vec<u8>, SignError>> {
        let take = |answered| if let Answered::Envelope(envelope) = answered { Some(envelope) } else { None };
        Box::pin(self.ask_for(Asked::Open(Box::new(open)), take))
    }

    fn sign_reset(&self, reset: GuardReset) -> Later<'_, Result<Vec<u8>, SignError>> {
        let take = |answered| if let Answered::Envelope(envelope) = answered { Some(envelope) } else { None };
        Box::pin(self.ask_for(Asked::Reset(Box::new(reset)), take))
    }

    fn sign_standing(&self, order: StandingOrder) -> Later<'_, Result<Vec<u8>, SignError>> {
        let take = |answered| if let Answered::Envelope(envelope) = answered { Some(envelope) } else { None };
        Box::pin(self.ask_for(Asked::Standing(Box::new(order)), take))
    }

    fn advance_root(&self, chain: Vec<Vec<u8>>) -> Later<'_, Result<RootVersion, SignError>> {
        Box::pin(self.hand_over(chain))
    }

    fn keys(&self) -> Later<'_, Result<SignerKeys, SignError>> {
        let take = |answered| if let Answered::Keys(keys) = answered { Some(keys) } else { None };
        Box::pin(self.ask_for(Asked::Keys, take))
    }

    fn prepare_key(&self) -> Later<'_, Result<PublicKeyBytes, SignError>> {
        let take = |answered| if let Answered::Public(public) = answered { Some(public) } else { None };
        Box::pin(self.ask_for(Asked::PrepareKey, take))
    }

    fn activate_key(&self, key: KeyId) -> Later<'_, Result<(), SignError>> {
        Box::pin(self.ask_for(Asked::ActivateKey(key), done))
    }

    fn drop_key(&self, key: KeyId) -> Later<'_, Result<(), SignError>> {
        Box::pin(self.ask_for(Asked::DropKey(key), done))
    }
}

fn done(answered: Answered) -> Option<()> {
    matches!(answered, Answered::Done).then_some(())
}
