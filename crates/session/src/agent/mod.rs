//! The agent's side: its loop from a connection to signed reports, and its enrolment.
//!
//! [`AgentLoop`] is one machine in several files: `handshake` (who is there, what time is it, is this
//! state an old copy), `intake` (the checks of a command, in their order), `run` (locks, starts,
//! ends), `cancel`, `standing`, `reports`, and `writes` (what each durable write releases). Its memory runs ahead
//! of the disk, so that many writes can share one fsync; what leaves it does not: a frame or a start
//! that rests on a write is released by that write's acknowledgement.

mod approvals;
mod audit;
mod cancel;
mod credentials;
mod end;
mod enrol;
mod handshake;
mod intake;
pub mod io;
mod outbox;
mod reports;
mod reset;
mod retire;
mod roots;
mod rotation;
mod run;
mod standing;
mod start_up;
mod state;
mod writes;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use envelope::{
    guard::{ReplayGuard, Room},
    keys::{SigningKey, role},
};
use ids::{BootId, BootMs, CommandId, Epoch, FleetId, HostEpoch, HostId, QuarantineId, Sequence, Sha256, UnixMs};

use self::{
    approvals::Burns,
    audit::AuditSeen,
    handshake::{Connection, Phase},
    intake::Beside,
    io::*,
    outbox::Outbox,
    roots::Roots,
    rotation::KeyChange,
    run::Job,
    standing::StandingOrders,
    writes::After,
};
pub use self::{
    end::end_message,
    enrol::{EnrolEffect, EnrolError, EnrolInput, EnrolLoop, Enrolled, PendingEnrolment},
    rotation::NextKeys,
    standing::StandingShown,
    start_up::LoadError,
};
use crate::{
    frames::{ActionRef, AgentFrame, ControlFrame},
    limits,
};

/// Who this agent is. Fixed while it runs.
pub struct AgentIdentity {
    pub fleet: FleetId,
    pub host: HostId,
    pub host_epoch: HostEpoch,
    pub identity: SigningKey<role::Agent>,
    /// When these keys came into force, by the control plane's time.
    pub keys_since: UnixMs,
    /// The kernel's id of this boot.
    pub boot: BootId,
    /// Version of the agent program, at most 64 bytes.
    pub agent_version: String,
    /// The actions it has; listed in each session.
    pub actions: Vec<ActionRef>,
    /// SHA-256 of the root metadata payload pinned at enrolment: what the stored chain must begin with.
    pub root_sha256: Sha256,
    /// Keys for the epoch after this one that are durable here: a rotation was begun.
    pub next: Option<NextKeys>,
}

/// Time as the control plane's signer told it, carried on by the boot-time clock.
#[derive(Clone, Copy)]
struct TrustedClock {
    time: UnixMs,
    at: BootMs,
}

/// Whether orders may run at all.
#[derive(Clone, Copy, PartialEq, Eq)]
enum QuarantineState {
    No,
    /// Being made durable.
    Entering(QuarantineId),
    In(QuarantineId),
}

/// What the replay guard holds in memory.
struct Guard {
    /// Runs ahead of the disk, so that acceptance is serial while writes are in flight.
    memory: ReplayGuard,
    /// Highest sequence known to be durable.
    durable_high: Sequence,
    /// Entries whose write is not durable: not answered for yet.
    pending: BTreeSet<CommandId>,
}

/// One input with what it needs to be judged.
struct Turn<'a, A> {
    now: Clocks,
    admission: &'a A,
}

/// The agent's loop. See the module's text.
pub struct AgentLoop {
    identity: AgentIdentity,
    roots: Roots,
    /// Verified newer root metadata on its way to the disk; not used before it is there.
    roots_next: Option<Roots>,
    guard: Guard,
    burned: Burns,
    jobs: BTreeMap<CommandId, Job>,
    /// Accepted and not started, first come first.
    waiting: VecDeque<CommandId>,
    outbox: Outbox,
    /// Refusals signed and not durable yet: each will need a place.
    refusals_pending: usize,
    /// Ends that came in quarantine, or while it is open which key signs them: they get no number yet.
    unnumbered: Vec<(CommandId, End)>,
    audit: AuditSeen,
    keys: KeyChange,
    retirement: Option<Retirement>,
    standing: StandingOrders,
    quarantine: QuarantineState,
    /// Why quarantine is being entered, for the log.
    quarantine_why: String,
    /// The identity key was there and the journal was not.
    state_missing: bool,
    /// A session has shown that this state is no old copy: what waited since the last start may run.
    cleared: bool,
    clock: Option<TrustedClock>,
    connection: Option<Connection>,
    writes_next: u64,
    writes: VecDeque<(WriteId, After)>,
    dropped: u64,
    wake: Option<BootMs>,
    out: Vec<Effect>,
}

impl AgentLoop {
    /// Takes one input and says what to do, in order.
    pub fn handle(&mut self, now: Clocks, input: Input, admission: &impl Admission) -> Vec<Effect> {
        let turn = Turn { now, admission };
        self.check_deadlines(now);
        match input {
            Input::Connected { exporter, nonce, quarantine } => self.connect(now, exporter, nonce, quarantine),
            Input::Received(frame) => self.receive(&turn, frame),
            Input::RootChain { chain, quarantine } => self.root_chain_brought(&chain, quarantine),
            Input::Disconnected => self.connection = None,
            Input::Persisted(id) => self.persisted(&turn, id),
            Input::Progress { command, text } => self.progress(command, text),
            Input::Output { command, offset, text } => self.output(command, offset, text),
            Input::Finished { command, end } => self.finished(now, command, end),
            Input::KeysMade(next) => self.keys_made(now, *next),
            Input::KeysFailed { why } => self.keys_failed(now, &why),
            Input::SecretsDropped { failed } => self.secrets_dropped(&turn, failed.as_deref()),
            Input::ReportsRead(reports) => self.outbox.put_lost(reports),
            Input::CredentialsRead { receipt, changes } => self.credentials_read(receipt, changes),
            Input::Tick => {}
        }
        self.settle(now);
        self.release_held(&turn);
        self.schedule(&turn);
        self.send_reports();
        self.leave();
        self.ask_to_wake(now);
        core::mem::take(&mut self.out)
    }

    /// What waited for a key to be decided on goes on.
    fn settle(&mut self, now: Clocks) {
        if matches!(self.connection, Some(Connection { phase: Phase::Settling, .. })) {
            self.say_hello();
        }
        if self.quarantine == QuarantineState::No && !self.is_switching() {
            for (id, end) in core::mem::take(&mut self.unnumbered) {
                self.end_job(now, id, end);
            }
        }
    }

    /// Whether the shell may read the next frame. False while too much waits for the disk or for a
    /// place; a frame handed in regardless is held or, past the limit, ends the connection.
    #[must_use]
    pub fn may_read(&self) -> bool {
        let held = self.connection.as_ref().map_or(0, |connection| connection.held.len());
        held < limits::HELD_FRAMES_MAX && self.writes.len() < limits::PENDING_WRITES_MAX
    }

    /// Whether a piece of a stream handed in now would be sent. Until then it is better kept back.
    #[must_use]
    pub fn takes_output(&self) -> bool {
        self.is_live()
    }

    /// The quarantine this agent is in, for `status` and `doctor`.
    #[must_use]
    pub const fn quarantine(&self) -> Option<QuarantineId> {
        match self.quarantine {
            QuarantineState::No => None,
            QuarantineState::Entering(id) | QuarantineState::In(id) => Some(id),
        }
    }

    /// Commands that have no end yet.
    #[must_use]
    pub fn open_commands(&self) -> usize {
        self.jobs.len()
    }

    /// Whether every write asked for is durable and nothing runs: the moment to exit in order.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.writes.is_empty() && !self.jobs.values().any(Job::is_active)
    }

    /// The control plane's time, once known in this boot.
    fn time(&self, now: Clocks) -> Option<UnixMs> {
        self.clock.map(|clock| clock.time.plus(now.boot.since(clock.at)))
    }

    fn epoch(&self) -> Option<Epoch> {
        self.roots.current().map(|root| root.epoch)
    }

    fn send(&mut self, frame: AgentFrame) {
        self.out.push(Effect::Send(frame));
    }

    fn event(&mut self, event: AgentEvent) {
        self.out.push(Effect::Event(event));
    }

    /// A message that cannot be tied to a command: counted, and said in the log.
    fn drop_message(&mut self, why: String) {
        self.dropped += 1;
        self.event(AgentEvent::Dropped { why, count: self.dropped });
    }

    fn close(&mut self, retry: bool, why: CloseReason) {
        if self.connection.take().is_some() {
            self.out.push(Effect::Close { retry, why });
        }
    }

    /// Something from the control plane does not verify: counted, and the session ends.
    fn reject(&mut self, what: &'static str, why: String) {
        self.drop_message(format!("{what}: {why}"));
        self.close(true, CloseReason::NotAuthentic { what, why });
    }

    fn is_live(&self) -> bool {
        matches!(self.connection, Some(Connection { phase: Phase::Live(_), .. }))
    }

    fn check_deadlines(&mut self, now: Clocks) {
        let Some(connection) = &self.connection else { return };
        if let Phase::Live(live) = &connection.phase {
            let drift = live.drift(now);
            if drift > limits::CLOCK_DRIFT_MAX {
                self.close(true, CloseReason::ClockJump { milliseconds: drift.0 });
            } else if now.boot >= live.renew_at() {
                self.close(true, CloseReason::Renewal);
            }
        } else if now.boot >= connection.authenticate_by() {
            let seconds = limits::AUTHENTICATION_MAX.0 / 1000;
            self.close(true, CloseReason::AuthenticationTimeout { seconds });
        }
    }

    /// Asks for a wake-up at the next deadline, unless it is asked for already.
    fn ask_to_wake(&mut self, now: Clocks) {
        let connection = self.connection.as_ref().map(|connection| match &connection.phase {
            Phase::Live(live) => live.renew_at(),
            _ => connection.authenticate_by(),
        });
        let next = connection.into_iter().chain(self.next_start_deadline()).min();
        let asked = self.wake.filter(|at| *at > now.boot);
        if let Some(at) = next
            && asked.is_none_or(|asked| at < asked)
        {
            self.wake = Some(at);
            self.out.push(Effect::WakeAt(at));
        }
    }

    /// Frames that must wait go behind those that wait already; others are handled at once.
    fn receive(&mut self, turn: &Turn<'_, impl Admission>, frame: ControlFrame) {
        let Some(connection) = &self.connection else { return };
        let urgent = matches!(
            frame,
            ControlFrame::ReportAcknowledged { .. } | ControlFrame::Refused { .. } | ControlFrame::OutputLease { .. }
        );
        let blocked = !connection.held.is_empty() || self.roots_next.is_some();
        if !urgent && (blocked || self.must_wait(&frame, 0)) {
            let Some(connection) = &mut self.connection else { return };
            if connection.held.len() >= limits::HELD_FRAMES_MAX {
                self.close(true, CloseReason::TooManyHeld { max: limits::HELD_FRAMES_MAX });
            } else {
                connection.held.push_back(frame);
            }
            return;
        }
        self.dispatch(turn, frame);
    }

    /// Goes on with held frames, in order, as far as possible.
    fn release_held(&mut self, turn: &Turn<'_, impl Admission>) {
        while self.roots_next.is_none() {
            let Some(connection) = &mut self.connection else { return };
            let Some(frame) = connection.held.pop_front() else { return };
            // What has waited once waits for ordinary room, so as not to be refused for want of it.
            if self.must_wait(&frame, limits::OUTBOX_PLACES_RESERVED) {
                if let Some(connection) = &mut self.connection {
                    connection.held.push_front(frame);
                }
                return;
            }
            self.dispatch(turn, frame);
        }
    }

    /// A delivery when there are not more than `places` left for reports: at zero not even a refusal fits.
    fn must_wait(&self, frame: &ControlFrame, places: usize) -> bool {
        matches!(frame, ControlFrame::Deliver { .. })
            && (self.places_free() <= places || self.ring_room() == Room::Full)
    }

    fn dispatch(&mut self, turn: &Turn<'_, impl Admission>, frame: ControlFrame) {
        let Some(connection) = &self.connection else { return };
        match (&connection.phase, frame) {
            (_, ControlFrame::Refused { reason, message }) => self.refused(reason, message),
            (Phase::Entering { .. } | Phase::Settling, _) => {}
            (Phase::AwaitHello { .. } | Phase::Live(_), ControlFrame::RootChain(chain)) => self.root_chain(&chain),
            (Phase::AwaitHello { .. }, ControlFrame::Hello(bytes)) => self.control_hello(&bytes),
            (Phase::AwaitOpen { .. }, ControlFrame::Open(bytes)) => self.session_open(turn.now, &bytes),
            (Phase::AwaitOpen { protocol, .. }, ControlFrame::CredentialsWanted { above })
                if *protocol >= limits::PROTOCOL_CREDENTIALS =>
            {
                self.credentials_wanted(above);
            }
            (Phase::Live(_), ControlFrame::Deliver { command, sealed, approvals }) => {
                if self.audit_stands() {
                    self.deliver(turn, &command, Beside { sealed, approvals });
                }
            }
            (Phase::Live(_), ControlFrame::ReportAcknowledged { sequence, sha256 }) => {
                self.report_acknowledged(sequence, sha256);
            }
            (Phase::Live(_), ControlFrame::KeyReceipt(bytes)) => self.key_receipt(&bytes),
            (Phase::Live(_), ControlFrame::GuardReset(bytes)) => {
                if self.audit_stands() {
                    self.guard_reset(turn.now, &bytes);
                }
            }
            (Phase::Live(_), ControlFrame::OutputLease { command, until, over }) => {
                self.output_lease(command, until, over);
            }
            (Phase::Live(live), ControlFrame::AuditHead(bytes)) if live.protocol < limits::PROTOCOL_AUDIT_PROOFS => {
                self.audit_head(&bytes);
            }
            (Phase::Live(live), ControlFrame::AuditConsistency { head, from_size, hashes })
                if live.protocol >= limits::PROTOCOL_AUDIT_PROOFS =>
            {
                self.audit_consistency(&head, from_size, &hashes);
            }
            (_, frame) => {
                let frame = frame.name();
                self.drop_message(format!("unexpected {frame}"));
                self.close(true, CloseReason::Unexpected { frame });
            }
        }
    }
}
