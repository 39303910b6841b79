//! The one task that drives the agent's loop.

use std::{collections::VecDeque, time::Duration};

use futures_util::{StreamExt as _, future::BoxFuture, stream::FuturesOrdered};
use ids::{BootId, BootMs, Challenge, HostEpoch, QuarantineId, UnixMs};
use journal::{Journal, JournalError};
use session::{
    agent::{
        AgentLoop,
        io::{AgentEvent, Clocks, CloseReason, Effect, Input, JournalWrite, WriteId},
    },
    frames::RefusalCode,
};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc,
    time::{sleep, timeout},
};

use super::{
    RunError,
    clock::now,
    executor::{Executor, ExecutorEvent},
    link::{Link, LinkEvent},
    roots::Roots,
    status::StatusKeeper,
    stream::Piece,
};
use crate::{
    admission::HostAdmission,
    failure::words,
    host_keys::{self, SealingKeys},
    limits,
    state_dir::{Enrolment, StateDir},
    status::{ClockStatus, ConnectionStatus},
    trust::Handed,
};

/// Why the loop of the shell ended.
enum Ended {
    Signal(&'static str),
    /// This host has left its fleet.
    Retired,
    Failed(RunError),
}

/// What happened in the world.
enum Happened {
    Signal(&'static str),
    Written(WriteId, Result<(), JournalError>),
    Executor(ExecutorEvent),
    Piece(Piece),
    Link(LinkEvent),
    Handed(Handed),
    Time,
}

pub(super) struct Shell {
    agent: AgentLoop,
    admission: HostAdmission,
    journal: Journal,
    writes: FuturesOrdered<BoxFuture<'static, (WriteId, Result<(), JournalError>)>>,
    executor: Executor,
    /// Pieces of running commands' streams.
    pieces: mpsc::Receiver<Piece>,
    link: Link,
    roots: Roots,
    keeper: StatusKeeper,
    boot: BootId,
    /// Where keys are made, and who opens what is sealed to them.
    keys: (StateDir, SealingKeys),
    wake: Option<BootMs>,
    /// Of the present connection.
    address: String,
    /// What somebody on this machine hands over or asks.
    handed: mpsc::Receiver<Handed>,
    /// This host has left its fleet, and nothing is left to be done.
    has_left: bool,
}

/// How a run ended that did not fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ran {
    /// It was told to.
    ToItsEnd,
    /// This host has left its fleet: there is nothing to run any more.
    Retired,
}

impl Shell {
    pub(super) fn new(
        agent: AgentLoop,
        admission: HostAdmission,
        journal: Journal,
        (executor, pieces): (Executor, mpsc::Receiver<Piece>),
        roots: Roots,
        keeper: StatusKeeper,
        (boot, handed, keys): (BootId, mpsc::Receiver<Handed>, (StateDir, SealingKeys)),
    ) -> Self {
        let (writes, link, address, wake) = (FuturesOrdered::new(), Link::new(), String::new(), None);
        Self {
            agent,
            admission,
            journal,
            writes,
            executor,
            pieces,
            link,
            roots,
            keeper,
            boot,
            keys,
            wake,
            address,
            handed,
            has_left: false,
        }
    }

    /// Runs until a signal comes, the host has left its fleet, or the journal fails.
    pub(super) async fn run(mut self, first: Vec<Effect>) -> Result<Ran, RunError> {
        let listen = |kind| signal(kind).map_err(RunError::Signals);
        let mut terminate = listen(SignalKind::terminate())?;
        let mut interrupt = listen(SignalKind::interrupt())?;
        let ended = match self.first(first).await {
            Ok(()) => self.serve(&mut terminate, &mut interrupt).await,
            Err(error) => Ended::Failed(error),
        };
        self.end(ended).await
    }

    async fn first(&mut self, effects: Vec<Effect>) -> Result<(), RunError> {
        let mut inputs = VecDeque::new();
        for effect in effects {
            self.perform(effect, &mut inputs).await?;
        }
        self.feed(inputs).await
    }

    async fn serve(&mut self, terminate: &mut Signal, interrupt: &mut Signal) -> Ended {
        loop {
            let sleep_for = self.keep_status();
            let may_read = self.agent.may_read();
            let lane = self.link.output_lane().filter(|_| self.agent.takes_output());
            let happened = tokio::select! {
                _ = terminate.recv() => Happened::Signal("SIGTERM"),
                _ = interrupt.recv() => Happened::Signal("SIGINT"),
                Some((id, result)) = self.writes.next(), if !self.writes.is_empty() => Happened::Written(id, result),
                event = self.executor.next() => Happened::Executor(event),
                piece = piece(&mut self.pieces, lane) => Happened::Piece(piece),
                event = self.link.next(&self.roots.directions, may_read) => Happened::Link(event),
                Some(handed) = self.handed.recv() => Happened::Handed(handed),
                () = sleep(sleep_for) => Happened::Time,
            };
            let input = match happened {
                Happened::Signal(name) => return Ended::Signal(name),
                Happened::Written(id, Ok(())) => Some(Input::Persisted(id)),
                Happened::Written(_, Err(error)) | Happened::Executor(ExecutorEvent::JournalFailed(error)) => {
                    return Ended::Failed(RunError::JournalLost(error));
                }
                Happened::Executor(ExecutorEvent::Progress { command, text }) => {
                    Some(Input::Progress { command, text })
                }
                Happened::Executor(ExecutorEvent::Finished { command, end }) => Some(Input::Finished { command, end }),
                Happened::Piece(Piece { command, offset, text }) => Some(Input::Output { command, offset, text }),
                Happened::Link(event) => self.link_event(event),
                Happened::Handed(handed) => self.roots.hand(handed).and_then(brought),
                Happened::Time => Some(Input::Tick),
            };
            if let Some(input) = input
                && let Err(error) = self.feed(VecDeque::from([input])).await
            {
                return Ended::Failed(error);
            }
            if self.has_left {
                return Ended::Retired;
            }
        }
    }

    /// Hands inputs to the loop and does what it answers, until nothing is left.
    async fn feed(&mut self, mut inputs: VecDeque<Input>) -> Result<(), RunError> {
        while let Some(input) = inputs.pop_front() {
            let now = now();
            if self.wake.is_some_and(|at| at <= now.boot) {
                self.wake = None;
            }
            for effect in self.agent.handle(now, input, &self.admission) {
                self.perform(effect, &mut inputs).await?;
            }
        }
        Ok(())
    }

    async fn perform(&mut self, effect: Effect, inputs: &mut VecDeque<Input>) -> Result<(), RunError> {
        match effect {
            Effect::Send(frame) => {
                if !self.link.send(frame) {
                    tracing::warn!("the control plane takes nothing any more; closing the connection");
                    self.link.close(true);
                    self.disconnected("the control plane took nothing any more".to_owned(), false);
                    inputs.push_back(Input::Disconnected);
                }
            }
            Effect::Close { retry, why } => self.close(retry, &why),
            Effect::Persist(id, write) => self.persist(id, write).await?,
            Effect::Start(start) => {
                // What may be put back only, or is resumed at once, must not wait for a mended file.
                let policy = self.admission.policy.current().unwrap_or_else(|_| actions::policy::Policy::refuse_all());
                self.executor.start(*start, policy);
            }
            Effect::Cancel(command) => self.executor.cancel(command),
            Effect::OutputLease { command, until, over } => self.executor.lease(command, until, over),
            Effect::MakeKeys { host_epoch } => inputs.push_back(self.make_keys(host_epoch).await),
            Effect::DropSecrets => inputs.push_back(self.drop_secrets().await),
            Effect::Retired => self.has_left = true,
            Effect::ReadReports { first, last } => {
                let reports = self.journal.reports_acknowledged(first, last).await.map_err(RunError::JournalLost)?;
                tracing::warn!(
                    %first, %last, kept = reports.len(),
                    "the control plane has lost reports of this host; those that are kept are sent again"
                );
                inputs.push_back(Input::ReportsRead(reports));
            }
            Effect::ReadCredentials { above, up_to } => inputs.extend(self.credentials(above, up_to).await?),
            Effect::WakeAt(at) => self.wake = Some(at),
            Effect::Event(event) => self.event(event),
        }
        self.keeper.touch();
        Ok(())
    }

    /// What shows who this host is. Without a receipt nothing does.
    async fn credentials(&self, above: HostEpoch, up_to: HostEpoch) -> Result<Option<Input>, RunError> {
        tracing::warn!(
            "the control plane was restored from a backup and does not know this host; it is shown its receipt"
        );
        let changes = self.journal.key_changes(above, up_to).await.map_err(RunError::JournalLost)?;
        match Enrolment::read(&self.keys.0) {
            Ok(Some(Enrolment { receipt, .. })) => Ok(Some(Input::CredentialsRead { receipt, changes })),
            Ok(None) => Ok(None),
            Err(error) => {
                tracing::error!(error = words(&error), "the receipt cannot be read");
                Ok(None)
            }
        }
    }

    fn keys_taken(&self, host_epoch: HostEpoch) {
        tracing::info!(%host_epoch, "this host's new keys are in force, and the identity key before them is retired");
        if let Err(error) = host_keys::retire(&self.keys.0, host_epoch) {
            tracing::warn!(
                error = words(&error),
                "the retired identity key could not be removed; the next start tries again"
            );
        }
    }

    async fn make_keys(&self, host_epoch: HostEpoch) -> Input {
        let (state, sealing) = self.keys.clone();
        match tokio::task::spawn_blocking(move || host_keys::make(&state, host_epoch, &sealing)).await {
            Ok(Ok(next)) => Input::KeysMade(Box::new(next)),
            Ok(Err(error)) => Input::KeysFailed { why: words(&error) },
            Err(error) => Input::KeysFailed { why: words(&error) },
        }
    }

    async fn drop_secrets(&self) -> Input {
        tracing::warn!("this host leaves its fleet: the keys to its secrets are destroyed");
        let (state, sealing) = self.keys.clone();
        let failed = match tokio::task::spawn_blocking(move || host_keys::drop_secrets(&state, &sealing)).await {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(words(&error)),
            Err(error) => Some(words(&error)),
        };
        Input::SecretsDropped { failed }
    }

    async fn persist(&mut self, id: WriteId, write: JournalWrite) -> Result<(), RunError> {
        if let JournalWrite::Root { version, envelope } = &write {
            self.roots.pending.push_back((*version, envelope.clone()));
        }
        self.keeper.note_write(&write);
        let pending = self.journal.queue(write).await.map_err(RunError::JournalLost)?;
        self.writes.push_back(Box::pin(async move { (id, pending.durable().await) }));
        Ok(())
    }

    fn link_event(&mut self, event: LinkEvent) -> Option<Input> {
        match event {
            LinkEvent::Up { exporter, address } => {
                tracing::debug!(address, "TLS is up");
                self.address.clone_from(&address);
                self.keeper.connection(ConnectionStatus::Authenticating { address }, now());
                match (keyfile::random::<32>(), keyfile::random::<16>()) {
                    (Ok(nonce), Ok(quarantine)) => {
                        let (nonce, quarantine) = (Challenge(*nonce), QuarantineId::from_bytes(*quarantine));
                        Some(Input::Connected { exporter, nonce, quarantine })
                    }
                    (Err(error), _) | (_, Err(error)) => {
                        tracing::error!(%error, "cannot authenticate");
                        self.link.close(true);
                        self.disconnected(error.to_string(), false);
                        None
                    }
                }
            }
            LinkEvent::Frame(frame) => Some(Input::Received(frame)),
            LinkEvent::Down { why } => {
                tracing::warn!(why, "connection lost");
                self.disconnected(why, false);
                Some(Input::Disconnected)
            }
            LinkEvent::DialFailed { why, brought: chains } => {
                tracing::warn!(why, "cannot connect");
                self.disconnected(why, false);
                self.roots.first_newer(chains).and_then(brought)
            }
        }
    }

    fn close(&mut self, retry: bool, why: &CloseReason) {
        let text = why.to_string();
        match why {
            CloseReason::Renewal => tracing::info!("session is renewed"),
            CloseReason::Retired => tracing::info!("the control plane has this host's last report"),
            CloseReason::KeysStored => tracing::info!("the new keys are stored; dialling with them"),
            CloseReason::NotAuthentic { .. } => tracing::error!(why = text, "session ended"),
            _ if retry => tracing::warn!(why = text, "session ended"),
            _ => tracing::error!(
                why = text,
                "session ended; an administrator has to act. Asking again in {}",
                limits::STAY_AWAY
            ),
        }
        self.link.close(retry);
        self.disconnected(text, matches!(why, CloseReason::Refused { reason: RefusalCode::HostRefused, .. }));
    }

    fn disconnected(&mut self, error: String, is_refused: bool) {
        let now = now();
        let since = match &self.keeper.status.connection {
            ConnectionStatus::Disconnected { since, .. } => *since,
            _ => now.wall,
        };
        let next_attempt_at = self.link.next_attempt_in().map(|span| now.wall.plus(span));
        self.keeper.connection(ConnectionStatus::Disconnected { since, error, next_attempt_at, is_refused }, now);
    }

    fn event(&mut self, event: AgentEvent) {
        match event {
            AgentEvent::SessionOpen { skew_ms } => self.session_open(skew_ms),
            AgentEvent::Accepted { command, sequence } => tracing::info!(%command, %sequence, "command accepted"),
            AgentEvent::Refused { command, why } => tracing::warn!(%command, why, "command refused"),
            AgentEvent::Dropped { why, count } => {
                tracing::warn!(why, count, "a message from the control plane was refused");
            }
            AgentEvent::Acknowledged { sequence } => {
                tracing::debug!(%sequence, "report acknowledged");
                self.keeper.note_acknowledged(sequence);
            }
            AgentEvent::RootAdvanced { version } => {
                tracing::info!(%version, "new root metadata is in force");
                self.roots.durable(version);
                self.keeper.status.root = self.roots.status();
                self.keeper.status.directions = Some(self.roots.directions_status());
                self.link.dial_now();
            }
            AgentEvent::KeysTaken { host_epoch } => self.keys_taken(host_epoch),
            AgentEvent::Released => tracing::info!("this host is quarantined no more: it was released"),
            AgentEvent::AuditContinues { size } => self.keeper.audit_continues(size),
            AgentEvent::AuditRefused { why } => {
                tracing::error!(
                    why,
                    "the control plane's audit log does not continue what this host has seen: no order is taken. Find out \
                     what happened to the control plane before anything else"
                );
                self.keeper.audit_refused(why, now());
            }
            AgentEvent::Quarantined { why } => tracing::error!(
                why,
                "this host is quarantined: no order runs. `serverflow host quarantine list` says what can be done"
            ),
        }
    }

    fn session_open(&mut self, skew_ms: i64) {
        self.link.opened();
        let now = now();
        let time = UnixMs(now.wall.0.saturating_add_signed(skew_ms.saturating_neg()));
        self.keeper.status.clock = Some(ClockStatus { boot: self.boot, time, at: now.boot });
        tracing::info!(address = self.address, skew_ms, "session open");
        if skew_ms.unsigned_abs() > limits::SKEW_WARN.0 {
            tracing::warn!(
                skew_ms,
                "this host's clock is wrong; set up time synchronisation (chrony, systemd-timesyncd)"
            );
        }
        let connection = ConnectionStatus::Connected { address: self.address.clone(), since: now.wall };
        self.keeper.connection(connection, now);
    }

    /// Writes the status file if it is due; says how long to sleep at most.
    fn keep_status(&mut self) -> Duration {
        let now = now();
        self.keeper.quarantine(self.agent.quarantine(), now);
        let status = &mut self.keeper.status;
        status.commands.open = self.agent.open_commands();
        status.commands.running = self.executor.running();
        let policy_error = self.admission.policy.current().err();
        if status.policy.error != policy_error {
            status.policy.error = policy_error;
            self.keeper.touch();
        }
        self.keep_standing(now);
        let status_due = self.keeper.flush(now);
        let wake_due = self.wake.map(|at| at.since(now.boot));
        let due = status_due.into_iter().chain(wake_due).min();
        due.map_or(limits::SLEEP_MAX, |due| Duration::from_millis(due.0).min(limits::SLEEP_MAX))
    }

    /// What stands, as it is when it is written. Time alone may end an order, so it is looked at now and then.
    fn keep_standing(&mut self, now: Clocks) {
        if !self.keeper.status.standing.is_empty() && self.keeper.age(now).0 >= limits::STANDING_LOOK.0 {
            self.keeper.touch();
        }
        if self.keeper.is_due(now) {
            let standing = self.agent.standing_orders(now, &self.admission);
            self.keeper.status.standing = standing.into_iter().map(Into::into).collect();
        }
    }

    /// Closes the stream, makes durable what was asked for, and leaves running actions to their records,
    /// as a crash would.
    async fn end(self, ended: Ended) -> Result<Ran, RunError> {
        let Self { agent, mut executor, pieces, link, mut writes, journal, mut keeper, .. } = self;
        let result = match ended {
            Ended::Signal(name) => {
                let running = executor.running().len();
                tracing::info!(signal = name, running, "agent ends; what runs is resumed at its next start");
                Ok(Ran::ToItsEnd)
            }
            Ended::Retired => Ok(Ran::Retired),
            Ended::Failed(error) => Err(error),
        };
        link.shut_down().await;
        executor.abandon().await;
        drop((agent, executor, pieces));
        let flush = async {
            while let Some((_, Ok(()))) = writes.next().await {}
            journal.close().await;
        };
        if timeout(limits::SHUTDOWN_GRACE, flush).await.is_err() {
            tracing::warn!("the journal did not close in time; nothing that was acknowledged is lost");
        }
        let now = now();
        keeper.status.commands.running.clear();
        let since = now.wall;
        let last = if matches!(result, Ok(Ran::Retired)) {
            ConnectionStatus::Retired { since }
        } else {
            ConnectionStatus::Stopped { since }
        };
        keeper.connection(last, now);
        result
    }
}

/// Root metadata that came by another way than a session, for the loop.
fn brought(chain: Vec<Vec<u8>>) -> Option<Input> {
    match keyfile::random::<16>() {
        Ok(quarantine) => Some(Input::RootChain { chain, quarantine: QuarantineId::from_bytes(*quarantine) }),
        Err(error) => {
            tracing::error!(%error, "root metadata cannot be taken up");
            None
        }
    }
}

/// The next piece of a stream, once the connection has room for it; never while there is none. Cancel-safe.
async fn piece(pieces: &mut mpsc::Receiver<Piece>, lane: Option<mpsc::Sender<session::frames::AgentFrame>>) -> Piece {
    if let Some(lane) = lane
        && let Ok(_room) = lane.reserve().await
        && let Some(piece) = pieces.recv().await
    {
        return piece;
    }
    std::future::pending().await
}
