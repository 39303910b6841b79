//! One host's session, from its handshake on: what is sealed and sent when, and what comes of what
//! the host says. A machine without IO; the shell (and the simulation) carries out its effects.
//!
//! What must hold:
//! - **Stored, then sent.** A command's number, signed bytes and audit leaf are durable before its
//!   first byte is sent. A number whose transaction failed is never used again.
//! - **One thing at a time.** Of reads and writes at most one is under way, so what the machine
//!   holds is what the store held then, and its own writes since. Others write too (a cancellation,
//!   a revocation, a newer session): every write states what it expects, and a conflict makes the
//!   machine read again. Signing runs beside it, one command at a time, a few ahead.
//! - **In order.** Commands are sealed in order of proposal and sent in order of number: whatever
//!   failed is read again before anything after it is sent, because an agent refuses for good every
//!   number below its highest.
//! - **Durable, then acknowledged.** A report is acknowledged when the transaction that holds it is.
//!
//! `handle` is the only way in; [`HostSession::is_reading`] tells the shell whether to read on.

mod acknowledge;
mod expiry;
mod heads;
mod keys;
mod lane;
mod opening;
mod recovering;
mod reports;
mod reset;
mod retirement;
mod sealing;
mod slot;
#[cfg(test)]
pub(crate) mod tests;
mod types;

use std::collections::{BTreeMap, VecDeque};

use ids::{CommandId, DurationMs, HostId, Sequence, UnixMs};
use session::frames::{AgentFrame, ControlFrame, RefusalCode, Stage};

pub use self::{
    expiry::expire_queued,
    recovering::cancel_void,
    retirement::{RETIRED, farewell},
    types::{Effect, Entropy, Established, HeadSeen, Input, Note, Recovering, SignedHead, WriteId},
};
use self::{
    heads::Heads,
    keys::HostKeys,
    lane::{Lane, Retry},
    reset::Resetting,
    sealing::Sealing,
    slot::Slot,
};
use crate::{
    limits,
    model::{Host, HostStanding},
    ports::Write,
};

/// How far the session is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The host's row has not been read.
    Loading,
    /// The session-open is being signed.
    Opening,
    /// The session-open was sent.
    Open,
    /// Over.
    Closed,
}

/// The machine for one stream of one host.
pub struct HostSession {
    peer: Established,
    phase: Phase,
    /// As stored, and as this session's own writes changed it since.
    host: Option<Host>,
    /// Something in this session put the host into quarantine, whether or not that is stored yet.
    quarantined: bool,
    /// Its reports fork from what is stored: no further one is taken in this session.
    is_forked: bool,
    keys: HostKeys,
    /// The host offered new keys in this session: what is sealed now waits for the next one.
    is_rotating: bool,
    /// That the keys before are retired is being stored.
    is_retiring: bool,
    resetting: Resetting,
    /// Highest sequence that the signer gave this host, once it said so.
    reset_high: Sequence,
    /// Commands without an end, in order of proposal.
    slots: Vec<Slot>,
    /// Frames that came before the host was read.
    early: VecDeque<AgentFrame>,
    /// Report envelopes not dealt with, in the order they came.
    reports: VecDeque<Vec<u8>>,
    /// What the host said of its progress and is not stored: the latest for each command.
    stages: BTreeMap<CommandId, (Sequence, Stage)>,
    lane: Lane,
    sealing: Sealing,
    sign_retry: Retry,
    heads: Heads,
    chain_taken: usize,
    progress_second: u64,
    progress_count: u32,
    started_at: UnixMs,
    wake_at: Option<UnixMs>,
    out: Vec<Effect>,
}

impl HostSession {
    /// Begins a session. The shell must have registered it with the notifier before carrying out
    /// the returned effects, so that no change of the queue falls between reading and hearing.
    #[must_use]
    pub fn new(peer: Established, now: UnixMs) -> (Self, Vec<Effect>) {
        let heads = Heads::new(peer.authenticated.hello.audit_head);
        let mut session = Self {
            peer,
            phase: Phase::Loading,
            host: None,
            quarantined: false,
            is_forked: false,
            keys: HostKeys::default(),
            is_rotating: false,
            is_retiring: false,
            resetting: Resetting::No,
            reset_high: reset::NONE,
            slots: Vec::new(),
            early: VecDeque::new(),
            reports: VecDeque::new(),
            stages: BTreeMap::new(),
            lane: Lane::new(),
            sealing: Sealing::default(),
            sign_retry: Retry::default(),
            heads,
            chain_taken: 0,
            progress_second: 0,
            progress_count: 0,
            started_at: now,
            wake_at: None,
            out: Vec::new(),
        };
        session.lane_next(now, &mut |_: &mut [u8]| {});
        session.wake(now);
        let effects = core::mem::take(&mut session.out);
        (session, effects)
    }

    /// Takes what happened and says what to do, in order. `now` is the control plane's clock;
    /// `entropy` gives nonces and the ids of follow-up commands.
    #[must_use]
    pub fn handle(&mut self, input: Input, now: UnixMs, entropy: &mut dyn Entropy) -> Vec<Effect> {
        if self.phase == Phase::Closed {
            return Vec::new();
        }
        self.take(input, now, entropy);
        if self.phase != Phase::Closed && now > self.started_at.plus(session::limits::SESSION_MAX) {
            self.close(RefusalCode::Unavailable, "the session is due for renewal; dial again");
        }
        self.lane_next(now, entropy);
        self.reset_next(now);
        self.ask_status(now);
        self.sign_next(now, entropy);
        self.deliver_held(now);
        self.wake(now);
        core::mem::take(&mut self.out)
    }

    /// Whether the shell may read another frame. While it is false, what the host sends waits in
    /// the connection: that is the back-pressure.
    #[must_use]
    pub fn is_reading(&self) -> bool {
        self.phase != Phase::Closed && self.waiting() < limits::FRAMES_WAITING_MAX
    }

    /// Whether the session is over.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.phase == Phase::Closed
    }

    /// The transaction that notes when the host was last seen; for the end of the stream.
    #[must_use]
    pub fn left(&self, now: UnixMs) -> Write {
        Write::HostLeft { host: self.host_id(), at: now }
    }

    fn take(&mut self, input: Input, now: UnixMs, entropy: &mut dyn Entropy) {
        match input {
            Input::Loaded(answer) => self.loaded(answer, now),
            Input::CommandLoaded(answer) => self.command_loaded(answer, now, entropy),
            Input::OperationLoaded(answer) => self.operation_loaded(answer, now, entropy),
            Input::Written(id, answer) => self.written(id, answer, now),
            Input::OpenSigned(answer) => self.open_signed(answer),
            Input::CommandSigned(answer) => self.command_signed(answer, now),
            Input::ResetSigned(answer) => self.reset_signed(answer, now),
            Input::Received(frame) => self.received(frame, now),
            Input::QueueChanged => self.lane.needs_load = true,
            Input::AuditHead(head) => self.heads.put(head),
            Input::RootChanged => self.close(
                RefusalCode::Unavailable,
                "what this session rests on (root metadata, the host's name) has changed; dial again",
            ),
            Input::ClockSet(by) => {
                let message = format!("the control plane's clock was set by {by} since this session began; dial again");
                self.close(RefusalCode::Unavailable, message);
            }
            Input::StreamLease(lease) => self.stream_lease(lease),
            Input::Revoked => self.close(RefusalCode::HostRefused, opening::REVOKED),
            Input::Superseded => self.close(RefusalCode::Superseded, "a newer session of this host took over"),
            Input::ShuttingDown => self.close(RefusalCode::Unavailable, "the control plane shuts down; dial again"),
            // Whatever timer there was, it may be spent.
            Input::Tick => self.wake_at = None,
        }
    }

    fn received(&mut self, frame: AgentFrame, now: UnixMs) {
        if self.host.is_none() {
            self.early.push_back(frame);
        } else {
            self.frame(frame, now);
        }
        // A shell that heeds `is_reading` stays far below this.
        if self.waiting() > 2 * limits::FRAMES_WAITING_MAX {
            self.close(RefusalCode::LimitExceeded, "more frames at once than a session may send");
        }
    }

    fn frame(&mut self, frame: AgentFrame, now: UnixMs) {
        if self.phase == Phase::Open && !matches!(frame, AgentFrame::RootChain(_)) {
            self.retire_keys();
        }
        match frame {
            AgentFrame::Accepted { command, sequence, stage } => self.accepted(command, sequence, stage),
            AgentFrame::Progress { command, text } => self.progress(command, text, now),
            AgentFrame::Output { command, offset, text } => self.output(command, offset, text),
            AgentFrame::Report(envelope) if self.takes_reports() => self.reports.push_back(envelope),
            // It comes again, signed anew.
            AgentFrame::Report(_) => {}
            AgentFrame::RootChain(chain) => self.root_chain(&chain, now),
            AgentFrame::KeyRotation(envelope) => self.key_rotation(envelope, now),
            AgentFrame::Clock { skew_ms } => self.clock(skew_ms),
            AgentFrame::Hello(_)
            | AgentFrame::Proof(_)
            | AgentFrame::Actions(_)
            | AgentFrame::EnrolStart { .. }
            | AgentFrame::EnrolProof { .. }
            | AgentFrame::ReceiptRequest(_)
            | AgentFrame::Credentials { .. } => {
                self.close(RefusalCode::NotAuthentic, "a frame that does not belong into a session");
            }
        }
    }

    fn host_id(&self) -> HostId {
        self.peer.authenticated.host
    }

    /// Highest sequence the host had when this session began.
    fn high(&self) -> Sequence {
        self.peer.authenticated.hello.high
    }

    fn waiting(&self) -> usize {
        self.early.len() + self.reports.len()
    }

    /// Whether orders may go to this host now.
    fn takes_orders(&self) -> bool {
        !self.quarantined
            && !self.is_rotating
            && !self.peer.recovery.is_held
            && self.phase == Phase::Open
            && self.host.as_ref().is_some_and(|host| host.standing == HostStanding::Active)
    }

    fn send(&mut self, frame: ControlFrame) {
        self.out.push(Effect::Send(frame));
    }

    fn note(&mut self, note: Note) {
        self.out.push(Effect::Note(note));
    }

    fn close(&mut self, code: RefusalCode, message: impl Into<String>) {
        if self.phase != Phase::Closed {
            self.phase = Phase::Closed;
            self.out.push(Effect::Close { code, message: message.into() });
        }
    }

    /// Asks to be woken for the nearest deadline to come, if it is another than was asked for. One
    /// that has passed waits for an answer or a retry, not for time.
    fn wake(&mut self, now: UnixMs) {
        if self.phase == Phase::Closed {
            return;
        }
        let deadlines = self.slots.iter().filter_map(|slot| self.expires_at(slot));
        let retries = [self.lane.retry.at(), self.sign_retry.at()].into_iter().flatten();
        let renewal = self.started_at.plus(session::limits::SESSION_MAX);
        let to_come = deadlines.chain(retries).filter(|at| *at >= now);
        let at = to_come.fold(renewal, UnixMs::min).plus(DurationMs(1));
        if self.wake_at != Some(at) {
            self.wake_at = Some(at);
            self.out.push(Effect::WakeAt(at));
        }
    }
}
