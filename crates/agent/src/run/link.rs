//! Holds the connection: dials with back-off, carries frames, closes the old stream before it dials
//! a new one. It knows nothing of what the frames say.

use std::{sync::Arc, time::Duration};

use envelope::root::TrustedRoot;
use ids::{BootMs, DurationMs, FleetId, HostId, RootVersion, TlsExporter};
use link::{Backoff, Connection, DialError, LinkError, Purpose, Target, dial, exchange_roots};
use session::frames::{AgentFrame, ControlFrame, RootsAnswer, RootsRequest};
use tokio::{
    sync::mpsc,
    task::JoinHandle,
    time::{Instant, sleep_until, timeout},
};

use crate::{failure::words, limits};

/// Where to dial and which keys to accept there: what the current root metadata says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Directions {
    pub(super) addresses: Vec<String>,
    pub(super) pins: Vec<ids::Sha256>,
    /// What is said to a server that has none of these keys: who asks for root metadata, and what is held.
    pub(super) asks: Asks,
}

/// Who asks for newer root metadata.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Asks {
    pub(super) fleet: FleetId,
    pub(super) host: HostId,
    /// `None` when the chain was lost.
    pub(super) held: Option<Arc<TrustedRoot>>,
}

/// What happened to the connection.
#[derive(Debug)]
pub(super) enum LinkEvent {
    /// A connection is up.
    Up {
        exporter: TlsExporter,
        address: String,
    },
    Frame(ControlFrame),
    /// It ended from outside.
    Down {
        why: String,
    },
    /// No address could be reached. `brought` is root metadata from servers whose key is not known here, to be
    /// judged as if it came from anybody.
    DialFailed {
        why: String,
        brought: Vec<Vec<Vec<u8>>>,
    },
}

/// One connection in use.
struct Carried {
    outgoing: mpsc::Sender<AgentFrame>,
    /// Pieces of streams: sent when nothing else waits.
    output: mpsc::Sender<AgentFrame>,
    incoming: mpsc::Receiver<ControlFrame>,
    task: JoinHandle<LinkError>,
    since: BootMs,
}

type Dialled = Result<(String, Connection), Failed>;

/// No address could be reached.
struct Failed {
    errors: Vec<DialError>,
    brought: Vec<Vec<Vec<u8>>>,
}

enum State {
    Waiting { until: Instant },
    Dialling { task: JoinHandle<Dialled> },
    Up(Carried),
    Closing { task: JoinHandle<LinkError>, until: Instant, then_wait: Duration },
}

/// The connection, whatever its state.
pub(super) struct Link {
    backoff: Backoff,
    state: State,
}

impl Link {
    /// Dials at once.
    pub(super) fn new() -> Self {
        Self { backoff: Backoff::default(), state: State::Waiting { until: Instant::now() } }
    }

    /// The next event. Cancel-safe. While `may_read` is false no frame is taken, so that HTTP/2 holds
    /// the other side back.
    pub(super) async fn next(&mut self, directions: &Directions, may_read: bool) -> LinkEvent {
        loop {
            match &mut self.state {
                State::Waiting { until } => {
                    sleep_until(*until).await;
                    let directions = directions.clone();
                    self.state = State::Dialling { task: tokio::spawn(dial_any(directions)) };
                }
                State::Dialling { task } => match task.await {
                    Ok(Ok((address, connection))) => return self.carry(address, connection),
                    Ok(Err(Failed { errors, brought })) => {
                        let why = errors.iter().map(|error| words(error)).collect::<Vec<_>>().join("; ");
                        self.wait();
                        return LinkEvent::DialFailed { why, brought };
                    }
                    Err(error) => {
                        self.wait();
                        return LinkEvent::DialFailed { why: words(&error), brought: Vec::new() };
                    }
                },
                State::Up(carried) => {
                    if may_read && let Some(frame) = carried.incoming.recv().await {
                        return LinkEvent::Frame(frame);
                    }
                    let why = match (&mut carried.task).await {
                        Ok(error) => words(&error),
                        Err(error) => words(&error),
                    };
                    let since = carried.since;
                    self.backoff.session_ended(host::clock::boot_now().since(since));
                    self.wait();
                    return LinkEvent::Down { why };
                }
                State::Closing { task, until, then_wait } => {
                    let (until, then_wait) = (*until, *then_wait);
                    if tokio::time::timeout_at(until, &mut *task).await.is_err() {
                        task.abort();
                    }
                    self.state = State::Waiting { until: Instant::now() + then_wait };
                }
            }
        }
    }

    /// The session on the present connection is open.
    pub(super) fn opened(&mut self) {
        self.backoff.session_opened();
    }

    /// Other directions are in force: whoever waits to dial dials at once.
    pub(super) fn dial_now(&mut self) {
        if let State::Waiting { until } = &mut self.state {
            *until = Instant::now();
        }
    }

    /// Queues a frame for the present connection. `false` when too many wait: the connection is broken.
    /// Without a connection the frame is dropped; the loop says it again in the next one.
    pub(super) fn send(&mut self, frame: AgentFrame) -> bool {
        let State::Up(carried) = &self.state else { return true };
        let lossy = matches!(frame, AgentFrame::Progress { .. } | AgentFrame::Output { .. });
        let lane = if matches!(frame, AgentFrame::Output { .. }) { &carried.output } else { &carried.outgoing };
        match lane.try_send(frame) {
            Err(mpsc::error::TrySendError::Full(_)) => lossy,
            // Ended: that event is on its way.
            Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => true,
        }
    }

    /// The lane of streams of the present connection, to wait for room in.
    pub(super) fn output_lane(&self) -> Option<mpsc::Sender<AgentFrame>> {
        match &self.state {
            State::Up(carried) => Some(carried.output.clone()),
            State::Waiting { .. } | State::Dialling { .. } | State::Closing { .. } => None,
        }
    }

    /// Closes the present connection after what is queued was sent, and dials again: with back-off,
    /// or (`retry` false) after a long wait.
    pub(super) fn close(&mut self, retry: bool) {
        let State::Up(carried) = std::mem::replace(&mut self.state, State::Waiting { until: Instant::now() }) else {
            self.wait();
            return;
        };
        self.backoff.session_ended(host::clock::boot_now().since(carried.since));
        let then_wait = if retry { self.next_wait() } else { Duration::from_millis(limits::STAY_AWAY.0) };
        let until = Instant::now() + limits::CLOSE_GRACE;
        // Dropping the sender lets the task send what is queued, and end the stream.
        self.state = State::Closing { task: carried.task, until, then_wait };
    }

    /// When the next attempt is due, for whoever asks; `None` while there is one.
    pub(super) fn next_attempt_in(&self) -> Option<DurationMs> {
        let until = match &self.state {
            State::Waiting { until } => *until,
            State::Closing { until, then_wait, .. } => *until + *then_wait,
            State::Dialling { .. } | State::Up(_) => return None,
        };
        let span = until.saturating_duration_since(Instant::now());
        Some(DurationMs(u64::try_from(span.as_millis()).unwrap_or(u64::MAX)))
    }

    /// Ends the connection for good: what is queued is sent if that is quick.
    pub(super) async fn shut_down(self) {
        let task = match self.state {
            State::Up(carried) => {
                drop((carried.outgoing, carried.output, carried.incoming));
                carried.task
            }
            State::Closing { task, .. } => task,
            State::Waiting { .. } | State::Dialling { .. } => return,
        };
        let abort = task.abort_handle();
        if timeout(limits::CLOSE_GRACE, task).await.is_err() {
            abort.abort();
        }
    }

    fn wait(&mut self) {
        self.state = State::Waiting { until: Instant::now() + self.next_wait() };
    }

    fn next_wait(&mut self) -> Duration {
        // Without randomness the whole window is waited: slow, and never a stampede of retries.
        let random = keyfile::random::<8>().map_or(u64::MAX, |bytes| u64::from_le_bytes(*bytes));
        Duration::from_millis(self.backoff.next_wait(random).0)
    }

    fn carry(&mut self, address: String, connection: Connection) -> LinkEvent {
        let exporter = connection.exporter;
        let (outgoing, to_send) = mpsc::channel(limits::OUTGOING_FRAMES_MAX);
        let (output, output_to_send) = mpsc::channel(limits::OUTPUT_FRAMES_MAX);
        let (received, incoming) = mpsc::channel(limits::INCOMING_FRAMES_MAX);
        let task = tokio::spawn(carry(connection, to_send, output_to_send, received));
        self.state = State::Up(Carried { outgoing, output, incoming, task, since: host::clock::boot_now() });
        LinkEvent::Up { exporter, address }
    }
}

/// Tries every address in turn. Where no pin matched, the server is asked for root metadata that may say why.
async fn dial_any(directions: Directions) -> Dialled {
    let Directions { addresses, pins, asks } = directions;
    let mut errors = Vec::new();
    for address in addresses {
        let target = Target { address: address.clone(), pins: pins.clone() };
        match dial(&target, Purpose::Session).await {
            Ok(connection) => return Ok((address, connection)),
            Err(error) => errors.push(error),
        }
    }
    let mut brought = Vec::new();
    for error in &errors {
        let DialError::NotPinned { address, .. } = error else { continue };
        match asks.ask(address).await {
            Ok(answer) if answer.chain.is_empty() => {
                tracing::debug!(address, version = %answer.root_version, "whoever answers there has no newer root metadata");
            }
            Ok(answer) => brought.push(answer.chain),
            Err(error) => {
                tracing::debug!(address, error = words(&error), "whoever answers there gave no root metadata")
            }
        }
    }
    Err(Failed { errors, brought })
}

impl Asks {
    async fn ask(&self, address: &str) -> Result<RootsAnswer, DialError> {
        let root_version = self.held.as_ref().map_or(RootVersion(0), |root| root.version());
        let request = RootsRequest { fleet: self.fleet, host: self.host, root_version, chain: Vec::new() };
        let newer_than = |version| {
            let mut chain = self.held.as_ref().map_or_else(Vec::new, |root| root.chain_above(version));
            chain.truncate(session::limits::ROOT_CHAIN_FROM_AGENT_MAX);
            chain
        };
        exchange_roots(address, request, newer_than).await
    }
}

/// Carries frames until the connection ends. Ends the stream once nothing more can be queued.
async fn carry(
    connection: Connection,
    mut to_send: mpsc::Receiver<AgentFrame>,
    mut output: mpsc::Receiver<AgentFrame>,
    received: mpsc::Sender<ControlFrame>,
) -> LinkError {
    let Connection { sender, mut receiver, .. } = connection;
    let write = async move {
        loop {
            // Reports and acceptances never wait behind what somebody watches.
            let frame = tokio::select! {
                biased;
                Some(frame) = to_send.recv() => frame,
                Some(frame) = output.recv() => frame,
                else => break,
            };
            if sender.send(frame).await.is_err() {
                // The reading half learns why, and says it.
                std::future::pending::<()>().await;
            }
        }
    };
    let read = async move {
        loop {
            match receiver.receive().await {
                // Nobody takes it when the connection is being closed.
                Ok(frame) => drop(received.send(frame).await),
                Err(error) => return error,
            }
        }
    };
    let (mut write, mut read) = (std::pin::pin!(write), std::pin::pin!(read));
    let mut writing = true;
    loop {
        tokio::select! {
            () = &mut write, if writing => writing = false,
            error = &mut read => return error,
        }
    }
}
