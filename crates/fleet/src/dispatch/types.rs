//! What goes into a host's session and what comes out.

use std::sync::Arc;

use envelope::{
    messages::{Command as CommandMessage, GuardReset, KeyReceipt, LogPosition, SessionOpen},
    root::TrustedRoot,
    signer_port::{SignError, SignedCommand},
};
use ids::{CommandId, DurationMs, HostEpoch, HostId, OperationId, UnixMs};
use session::{
    control::Authenticated,
    frames::{AgentFrame, ControlFrame, RefusalCode},
};

use crate::{
    model::{Command, FormerKey, Host, Operation},
    ports::{Event, StoreError, StreamLease, StreamPiece, Write, Written},
    recovery::RecoveryHost,
};

/// What a session starts from.
#[derive(Clone, Debug)]
pub struct Established {
    /// What `session::control::Handshake` established.
    pub authenticated: Authenticated,
    /// Root metadata in force, by which the handshake was judged.
    pub root: Arc<TrustedRoot>,
    /// What the audit log's own record says of the head in the agent's hello.
    pub head: HeadSeen,
    /// The host's keys before the one on record.
    pub former: Vec<FormerKey>,
    /// What the last restore from a backup means for this host; nothing when there never was one.
    pub recovery: Recovering,
}

/// What the last restore from a backup means for one host's session.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovering {
    /// No order goes out before somebody has confirmed which hosts are revoked.
    pub is_held: bool,
    /// The host, if the backup knew it.
    pub host: Option<RecoveryHost>,
}

/// What this control plane's record of signed heads says of the head that a host holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeadSeen {
    /// It holds none, or one that was signed here, or one of a log before this one.
    Continues,
    /// It was shown something that is no beginning of this log, and why that is so.
    Foreign(String),
}

/// A signed head of the audit log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedHead {
    pub position: LogPosition,
    /// Its envelope.
    pub envelope: Arc<[u8]>,
}

/// Something that happened.
#[derive(Debug)]
pub enum Input {
    /// Answer to [`Effect::Load`]: the host as stored and its commands without an end, in order of proposal.
    Loaded(Result<Option<(Host, Vec<Command>)>, StoreError>),
    /// Answer to [`Effect::LoadCommand`].
    CommandLoaded(Result<Option<Command>, StoreError>),
    /// Answer to [`Effect::LoadOperation`].
    OperationLoaded(Result<Option<Operation>, StoreError>),
    /// Answer to [`Effect::Write`].
    Written(WriteId, Result<Written, StoreError>),
    /// Answer to [`Effect::SignOpen`]: the envelope.
    OpenSigned(Result<Vec<u8>, SignError>),
    /// Answer to [`Effect::SignCommand`].
    CommandSigned(Result<SignedCommand, SignError>),
    /// Answer to [`Effect::SignReset`]: the envelope.
    ResetSigned(Result<Vec<u8>, SignError>),
    /// A frame came in. Only while [`super::HostSession::is_reading`] says so. Root metadata that the
    /// handshake handed out comes first, in this form.
    Received(AgentFrame),
    /// The host's queue in the store may have changed.
    QueueChanged,
    /// The audit log's newest signed head. Sent along when there is something to send.
    AuditHead(SignedHead),
    /// Newer root metadata is in force: this session ends, and the next is judged by it.
    RootChanged,
    /// The control plane's clock was set by so much since this session was opened. The host carries on the time it was
    /// told then, and would judge new orders by it: this session ends, and the next one tells it the time anew.
    ClockSet(DurationMs),
    /// Whoever watches a command's stream says so.
    StreamLease(StreamLease),
    /// The host was revoked.
    Revoked,
    /// A newer session of the same host was authenticated.
    Superseded,
    /// The control plane shuts down.
    ShuttingDown,
    /// The time asked for by [`Effect::WakeAt`] has come (or any time passed).
    Tick,
}

/// Something the shell must do, in the order given. Of loads and writes together at most one is
/// under way at any time, and of signatures at most one: the machine asks for the next only when it
/// has the answer.
#[derive(Debug)]
pub enum Effect {
    /// Send on this session's stream.
    Send(ControlFrame),
    /// Send this head with the proof that the log's first `from_size` leaves are a beginning of it, before anything else
    /// is sent. When no proof can be had, the stream ends.
    SendAuditProof { head: SignedHead, from_size: u64 },
    /// Have the signer sign a guard reset.
    SignReset(Box<GuardReset>),
    /// Sign this with the session key, and send it.
    SendKeyReceipt(KeyReceipt),
    /// Read the host and its commands without an end.
    Load(HostId),
    /// Read one command.
    LoadCommand(CommandId),
    /// Read one operation.
    LoadOperation(OperationId),
    /// Have a session-open signed.
    SignOpen(SessionOpen),
    /// Have a command signed; with it go the approvals (envelopes) that are stored for it.
    SignCommand { command: Box<CommandMessage>, approvals: Vec<Vec<u8>> },
    /// Apply one transaction.
    Write(WriteId, Box<Write>),
    /// Tell whoever watches.
    Publish(Event),
    /// A piece of a command's stream, for whoever watches it.
    Output(StreamPiece),
    /// Something for the control plane's log.
    Note(Note),
    /// The agent brought newer root metadata, now durable: it is in force, for every session.
    RootAdvanced(Arc<TrustedRoot>),
    /// Send [`ControlFrame::Refused`] with these, then end the stream. The machine does nothing more.
    Close { code: RefusalCode, message: String },
    /// Give [`Input::Tick`] at this time at the latest. Replaces the one before.
    WakeAt(UnixMs),
}

/// Number of a transaction within a session, rising.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WriteId(pub u64);

/// Things worth a line in the control plane's log.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Note {
    /// Orders may go out.
    #[error("session open")]
    Open,
    /// The agent is of a release that does not go with this control plane's.
    #[error("{0}")]
    AgentRelease(String),
    /// Orders do not go out.
    #[error("quarantined: {0}")]
    Quarantined(String),
    /// A transaction or a read failed; it is tried again from what is stored.
    #[error("{what} failed, reading again: {error}")]
    StoreFailed {
        /// What was to be done.
        what: &'static str,
        /// The store's words.
        error: StoreError,
    },
    /// The signer did not sign; it is tried again with another number.
    #[error("command {command} was not signed: {error}")]
    SignFailed {
        /// Which one.
        command: CommandId,
        /// The signer's words.
        error: SignError,
    },
    /// The host is told that its quarantine ends.
    #[error("the end of the host's quarantine is signed and sent")]
    ResetSent,
    /// It has ended.
    #[error("the host is quarantined no more")]
    Released,
    /// The host's keys are others from here on.
    #[error("the host's new keys are stored (host epoch {0})")]
    KeysRotated(HostEpoch),
    /// The host was retired, and is revoked from here on.
    #[error("the host has left the fleet")]
    Retired,
    /// A frame was thrown away.
    #[error("a frame was dropped: {0}")]
    Dropped(String),
    /// Somebody else than this control plane may be signing, or a host contradicts itself.
    #[error("ALARM: {0}")]
    Alarm(String),
    /// A report came again, or for a command that has ended.
    #[error("{0}")]
    Report(String),
}

/// Fresh randomness, for nonces and ids.
pub trait Entropy {
    /// Fills `bytes` with unpredictable ones.
    fn fill(&mut self, bytes: &mut [u8]);
}

impl<F: FnMut(&mut [u8])> Entropy for F {
    fn fill(&mut self, bytes: &mut [u8]) {
        self(bytes);
    }
}
