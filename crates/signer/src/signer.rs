//! The thread that signs, and its queue.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
};

use envelope::{
    SigningKey,
    keys::role,
    messages::{Command, SessionOpen},
    signer_port::{Later, SignError, SignedCommand, Signer},
};
use ids::{FleetId, UnixMs};
use tokio::sync::{mpsc, oneshot};

use crate::{
    judge::{Judge, Raised},
    limits,
    state_file::{StateError, StateFile},
};

/// The signer's own clock: Unix milliseconds, from the system and not from whoever asks.
pub type Clock = Arc<dyn Fn() -> UnixMs + Send + Sync>;

/// What a signer needs.
pub struct SignerConfig {
    /// Signs commands and session-opens; nobody else has it.
    pub command_key: SigningKey<role::Command>,
    /// The only fleet it signs for.
    pub fleet: FleetId,
    /// Its record of sequences, made once by [`LocalSigner::create_state`]. A lock (`.lock`) appears beside it.
    pub state_path: PathBuf,
    /// See [`Clock`].
    pub clock: Clock,
}

enum Request {
    Command { command: Box<Command>, answer: oneshot::Sender<Result<SignedCommand, SignError>> },
    Open { open: Box<SessionOpen>, answer: oneshot::Sender<Result<Vec<u8>, SignError>> },
    Mend,
}

/// A signer in this process. Dropping it finishes what is queued and gives up the record's lock.
pub struct LocalSigner {
    /// `None` only while it is dropped.
    queue: Option<mpsc::Sender<Request>>,
    thread: Option<JoinHandle<()>>,
    /// Its record could not be written when last tried.
    impaired: Arc<AtomicBool>,
}

impl LocalSigner {
    /// Makes the record of sequences for a new fleet.
    ///
    /// # Errors
    /// When there is one already, or it cannot be written.
    pub fn create_state(path: &std::path::Path, fleet: FleetId) -> Result<(), StateError> {
        StateFile::create(path, fleet)
    }

    /// Reads the record of sequences and starts signing.
    ///
    /// # Errors
    /// When the record is missing, damaged, another fleet's, or in use.
    pub fn open(config: SignerConfig) -> Result<Self, StateError> {
        let SignerConfig { command_key, fleet, state_path, clock } = config;
        let state = StateFile::open(&state_path, fleet)?;
        let (queue, requests) = mpsc::channel(limits::QUEUE_MAX);
        let impaired = Arc::new(AtomicBool::new(false));
        let signing = Signing { key: command_key, state, judge: Judge::new(fleet), clock, impaired: impaired.clone() };
        let thread = std::thread::Builder::new()
            .name("signer".to_owned())
            .spawn(move || signing.run(requests))
            .map_err(|source| StateError::Io { doing: "starting the thread for", path: state_path, source })?;
        Ok(Self { queue: Some(queue), thread: Some(thread), impaired })
    }

    /// Whether its record of sequences could not be written when last tried: no order is signed meanwhile.
    #[must_use]
    pub fn is_impaired(&self) -> bool {
        self.impaired.load(Ordering::Relaxed)
    }

    /// Has it try again to write its record, without waiting for an order to sign.
    pub fn mend(&self) {
        if let Some(queue) = &self.queue {
            // A full queue holds orders, which try the same.
            let _ = queue.try_send(Request::Mend);
        }
    }

    async fn ask<T>(&self, request: Request, wait: oneshot::Receiver<Result<T, SignError>>) -> Result<T, SignError> {
        let stopped = || SignError::Unavailable("it has stopped; restart the control plane".to_owned());
        let queue = self.queue.as_ref().ok_or_else(stopped)?;
        queue.send(request).await.map_err(|_| stopped())?;
        wait.await.map_err(|_| stopped())?
    }
}

impl Signer for LocalSigner {
    fn sign_command(&self, command: Command) -> Later<'_, Result<SignedCommand, SignError>> {
        let (answer, wait) = oneshot::channel();
        Box::pin(self.ask(Request::Command { command: Box::new(command), answer }, wait))
    }

    fn sign_open(&self, open: SessionOpen) -> Later<'_, Result<Vec<u8>, SignError>> {
        let (answer, wait) = oneshot::channel();
        Box::pin(self.ask(Request::Open { open: Box::new(open), answer }, wait))
    }
}

impl Drop for LocalSigner {
    fn drop(&mut self) {
        self.queue = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the signer's thread ended by a panic");
        }
    }
}

/// What the thread owns.
struct Signing {
    key: SigningKey<role::Command>,
    state: StateFile,
    judge: Judge,
    clock: Clock,
    impaired: Arc<AtomicBool>,
}

impl Signing {
    fn run(mut self, mut requests: mpsc::Receiver<Request>) {
        let mut batch = Vec::with_capacity(limits::QUEUE_MAX);
        while requests.blocking_recv_many(&mut batch, limits::QUEUE_MAX) > 0 {
            self.batch(batch.drain(..));
        }
    }

    /// Whoever asked may have gone: an answer nobody takes is no loss, the sequence is burned.
    fn batch(&mut self, requests: impl Iterator<Item = Request>) {
        let now = (self.clock)();
        let mut raised = Raised::new();
        let mut granted = Vec::new();
        for request in requests {
            match request {
                Request::Mend => self.mend(),
                Request::Open { open, answer } => {
                    let _ = answer.send(self.open(*open, now));
                }
                Request::Command { command, answer } => {
                    let host = command.order.host;
                    let high = raised.get(&host).copied().unwrap_or_else(|| self.state.high(host));
                    match self.judge.command(&command, high, now) {
                        Ok(()) => {
                            raised.insert(host, command.sequence);
                            granted.push((command, answer));
                        }
                        Err(error) => {
                            let _ = answer.send(Err(error));
                        }
                    }
                }
            }
        }
        // The order matters: nothing is signed whose sequence could be given again after a crash.
        let durable = self.state.raise(&raised).map_err(|error| {
            tracing::error!(error = &error as &dyn core::error::Error, "the record of sequences cannot be written");
            SignError::Unavailable(error.to_string())
        });
        self.impaired.store(self.state.is_doubtful(), Ordering::Relaxed);
        for (command, answer) in granted {
            let signed = durable.clone().map(|()| {
                let signed = self.key.sign(&*command);
                let payload_sha256 = signed.payload_sha256();
                SignedCommand { envelope: signed.into_envelope(), payload_sha256 }
            });
            let _ = answer.send(signed);
        }
    }

    fn mend(&mut self) {
        match self.state.mend() {
            Ok(()) => tracing::info!("the record of sequences can be written again"),
            Err(error) => tracing::debug!(%error, "the record of sequences still cannot be written"),
        }
    }

    fn open(&mut self, open: SessionOpen, now: UnixMs) -> Result<Vec<u8>, SignError> {
        let open = SessionOpen { time: now, ..open };
        self.judge.open(&open, now)?;
        Ok(self.key.sign(&open).into_envelope())
    }
}
