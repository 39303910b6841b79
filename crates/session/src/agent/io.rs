//! What goes into the agent's loop and what comes out. The loop has no clock, no randomness, no
//! network and no disk: the agent's shell, and the simulation, give it those.

pub use envelope::guard::RingEntry;
use envelope::{Verified, messages::*};
use ids::{
    ActionName, AppName, BootId, BootMs, Challenge, Class, CommandId, HostEpoch, OnRestart, OperationId, QuarantineId,
    ReportSequence, Revision, RootVersion, Sequence, Sha256, StandingOrderId, TlsExporter, UnixMs,
};

use super::rotation::NextKeys;
use crate::frames::{AgentFrame, ControlFrame, KeyRecord, RefusalCode, Stage};

/// The clocks at the moment of an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clocks {
    /// Boot-time clock: counts suspend, cannot be set.
    pub boot: BootMs,
    /// Wall clock: may be wrong.
    pub wall: UnixMs,
}

/// Something that happened.
#[derive(Debug)]
pub enum Input {
    /// A new TLS connection is up; `nonce` and `quarantine` are fresh randomness (the latter is
    /// used only if this session ends in quarantine).
    Connected { exporter: TlsExporter, nonce: Challenge, quarantine: QuarantineId },
    /// A frame came in on the current connection.
    Received(ControlFrame),
    /// Root metadata that came by another way than a session: from a file, or over a connection that
    /// carries nothing else. `quarantine` is fresh randomness.
    RootChain { chain: Vec<Vec<u8>>, quarantine: QuarantineId },
    /// The current connection is gone.
    Disconnected,
    /// The write with this number is durable. Writes are acknowledged in order.
    Persisted(WriteId),
    /// A running command says something to whoever watches (already masked).
    Progress { command: CommandId, text: String },
    /// A piece of a running command's stream (already masked), within what its lease allows.
    Output { command: CommandId, offset: u64, text: String },
    /// A running command ended (already masked).
    Finished { command: CommandId, end: End },
    /// What [`Effect::MakeKeys`] asked for is durable.
    KeysMade(Box<NextKeys>),
    /// It could not be made, and why.
    KeysFailed { why: String },
    /// What [`Effect::DropSecrets`] asked for is durable; or why it is not.
    SecretsDropped { failed: Option<String> },
    /// Answer to [`Effect::ReadReports`], ascending: the first of those that are still kept, or all; none when none is.
    ReportsRead(Vec<StoredReport>),
    /// Answer to [`Effect::ReadCredentials`].
    CredentialsRead { receipt: Vec<u8>, changes: Vec<KeyRecord> },
    /// The deadline asked for by [`Effect::WakeAt`] has come (or any time passed).
    Tick,
}

/// How an action ended, ready to be signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    pub status: ReportStatus,
    /// UTF-8 JSON `{"message": …, "result": …}`; see [`Report::result`].
    pub result: Vec<u8>,
    pub output_sha256: Sha256,
    pub output_truncated: bool,
}

/// Number of a durable write, rising.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WriteId(pub u64);

/// Something the shell must do, in the order given.
#[derive(Debug)]
pub enum Effect {
    /// Send on the current connection.
    Send(AgentFrame),
    /// Close the current connection. `retry`: dial again with back-off; else stay away (the words say what to do).
    Close { retry: bool, why: CloseReason },
    /// Make this durable (one transaction; several may share one fsync, in order), then say `Persisted`.
    Persist(WriteId, JournalWrite),
    /// Run it. The command's start is durable.
    Start(Box<StartCommand>),
    /// Ask a running command to stop and put things back. That it was asked is durable.
    Cancel(CommandId),
    /// Somebody watches a running command's stream, or (`over`) nobody does any more.
    OutputLease { command: CommandId, until: u64, over: bool },
    /// Make an identity key and a sealing key for this epoch of the host, or take those that an earlier process made
    /// for it. They are durable before `KeysMade` is said.
    MakeKeys { host_epoch: HostEpoch },
    /// Destroy every key by which a secret of this host is opened or told from another. Asked again, it is so already. It is
    /// durable before `SecretsDropped` is said.
    DropSecrets,
    /// This host has left its fleet, and the control plane knows: destroy the identity keys, and never dial again.
    Retired,
    /// Read the acknowledged reports from `first` to `last` that are still kept, for a control plane that lost them.
    ReadReports { first: ReportSequence, last: ReportSequence },
    /// Read this host's enrolment receipt, and the changes of its keys to the epochs above `above` and up to `up_to`, ascending: a
    /// restored control plane asks who this is.
    ReadCredentials { above: HostEpoch, up_to: HostEpoch },
    /// Wake the loop with `Tick` at this boot time at the latest.
    WakeAt(BootMs),
    /// Something an operator of this host should see in the log.
    Event(AgentEvent),
}

/// A command to run, exactly once.
#[derive(Debug)]
pub struct StartCommand {
    pub command: Verified<Command>,
    pub sealed: Vec<SealedValue>,
    /// An earlier run of the same command may have done part of it.
    pub resumed: bool,
    /// Its key or epoch is void by now: only put back.
    pub backwards_only: bool,
    /// It was asked to stop before this start: it is to stop, and to put things back, from the first moment.
    pub cancelled: bool,
    /// The plan that was approved: the action must come to it, under its lock and before its first effect, or end
    /// `rejected`.
    pub plan: Option<Sha256>,
}

/// One durable transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JournalWrite {
    /// `{high, nonce, ring += ACCEPTED, a place in the outbox}`, with the order's bytes and its approvals, which
    /// are used up by it.
    Accept {
        entry: RingEntry,
        command: Vec<u8>,
        sealed: Vec<SealedValue>,
        approvals: Vec<Vec<u8>>,
        burn: Option<Burn>,
        evict: Option<CommandId>,
    },
    /// `{high, nonce, ring += REFUSED, signed report}`.
    Refuse { entry: RingEntry, report: StoredReport, evict: Option<CommandId> },
    /// `{STARTED}`.
    Start { command: CommandId },
    /// One more run of a command that had been started: counted before it begins.
    Resume { command: CommandId },
    /// `{DONE, report}`: also ends commands that never started (cancelled, expired, revoked, unknown).
    Done { command: CommandId, report: StoredReport },
    /// `{DONE, report}` of the cancel `command`, and in the same transaction that `target`, which has no end
    /// yet, was asked to stop: there is never one without the other.
    Cancel { command: CommandId, target: CommandId, report: StoredReport },
    /// Reports up to this one are durable at the control plane.
    Acknowledge { sequence: ReportSequence },
    /// A verified root metadata envelope, stored before it is used.
    Root { version: RootVersion, envelope: Vec<u8> },
    /// The last verified audit head; `proved`: for the first time the log was proved
    /// to continue, so from now on it always must be.
    AuditHead { position: LogPosition, proved: bool },
    /// Quarantine entered.
    Quarantine { id: QuarantineId },
    /// A signed rotation to the keys of this epoch, before it is sent, and the guard reset that asked for them, if one did.
    /// Only the last ones of an epoch are kept.
    KeyOffer { host_epoch: HostEpoch, rotation: Vec<u8>, reset: Option<Vec<u8>> },
    /// The control plane's signed word that it stored that rotation. Kept for life.
    KeyReceipt { host_epoch: HostEpoch, receipt: Vec<u8> },
    /// The keys of this epoch are in force since that time of the control plane's, `{DONE, report}` of the orders that end
    /// with it, and the end of a quarantine, if a guard reset asked for them: before the reports.
    KeysTaken { host_epoch: HostEpoch, since: UnixMs, reset: Option<ResetTaken>, done: Vec<StoredReport> },
    /// `command` takes this host out of its fleet: what was kept of apps, and every sealed value, is dropped.
    Retire { command: CommandId },
    /// `{DONE, report}` of that command: nothing is left but to deliver the reports.
    Retired { command: CommandId, report: StoredReport },
    /// `{DONE, report}` of a command, and in the same transaction what it changes about this host's standing orders.
    Standing { command: CommandId, change: StandingChange, report: StoredReport },
    /// Time learnt from a `session-open`: calendar time at a boot-time clock reading of one boot.
    Clock { clock: StoredClock },
}

/// A signed report waiting for its acknowledgement, or kept after it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredReport {
    pub command: CommandId,
    pub sequence: ReportSequence,
    /// SHA-256 of its payload.
    pub sha256: Sha256,
    pub envelope: Vec<u8>,
}

/// What becomes of a host's standing orders.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StandingChange {
    /// It stands from now on, in place of one of the same id. Its revision is used up, whatever becomes of it.
    Put { standing: StoredStanding, revision: Revision },
    /// It does not stand any more, and nothing up to that revision will.
    Drop { order: StandingOrderId, revision: Revision },
}

/// A standing order, as installed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredStanding {
    pub order: StandingOrderId,
    pub envelope: Vec<u8>,
    pub sealed: Vec<SealedValue>,
}

/// Calendar time as of a boot-time clock reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoredClock {
    pub boot: BootId,
    pub time: UnixMs,
    pub at: BootMs,
}

/// Everything durable, as read at start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JournalState {
    /// Highest sequence durably seen.
    pub high: Sequence,
    /// Oldest first, at most [`crate::limits::RING_MAX`].
    pub ring: Vec<RingEntry>,
    /// Commands accepted or started and not done, in order of sequence.
    pub open: Vec<OpenCommand>,
    /// Position of the last report ever signed; `None` before the first.
    pub last_report: Option<ReportPosition>,
    /// Reports not acknowledged, ascending.
    pub outbox: Vec<StoredReport>,
    /// Root metadata envelopes, ascending from the version pinned at enrolment.
    pub root_chain: Vec<Vec<u8>>,
    pub audit_head: Option<LogPosition>,
    /// The audit log was once proved to continue what this host had seen.
    pub audit_proved: bool,
    pub quarantine: Option<QuarantineId>,
    pub clock: Option<StoredClock>,
    /// Approvals that were used up.
    pub burned: Vec<Burned>,
    /// The epoch whose keys are in force; `None` before the first rotation.
    pub host_epoch: Option<HostEpoch>,
    /// When they were taken, by the control plane's time.
    pub keys_since: Option<UnixMs>,
    /// The last epoch whose keys were offered.
    pub keys_offered: Option<HostEpoch>,
    /// The guard reset that asked for those.
    pub reset: Option<Vec<u8>>,
    /// How far this host is on its way out of the fleet.
    pub retirement: Option<Retirement>,
    /// Standing orders, by id.
    pub standing: Vec<StoredStanding>,
    /// Highest revision of a standing order ever taken: what was dropped is below it.
    pub standing_revision: Revision,
}

/// A host that leaves its fleet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retirement {
    /// It takes no other orders. Its secrets are going.
    Begun,
    /// They are gone, and that is reported. It is over once every report was acknowledged.
    Reported,
}

impl JournalState {
    /// Whether this host has left its fleet, and the control plane knows.
    #[must_use]
    pub fn has_left(&self) -> bool {
        self.retirement == Some(Retirement::Reported) && self.outbox.is_empty()
    }
}

/// What a guard reset makes of this host's memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResetTaken {
    /// Every sequence up to this is used up.
    pub high: Sequence,
    /// Where the chain of reports goes on.
    pub last_report: ReportPosition,
    /// The reports that waited, signed anew behind that. No other waits any more.
    pub outbox: Vec<StoredReport>,
}

/// An operation's approvals for one action, and the one command they were used for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Burned {
    pub operation: OperationId,
    pub action: ActionName,
    pub command: CommandId,
    /// Kept at least until then.
    pub until: UnixMs,
}

/// Approvals are used up; what was kept until before `forget_before` is forgotten.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Burn {
    pub burned: Burned,
    pub forget_before: UnixMs,
}

/// A command without an end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenCommand {
    pub id: CommandId,
    /// The command's envelope.
    pub command: Vec<u8>,
    pub sealed: Vec<SealedValue>,
    /// Envelopes of the approvals it came with.
    pub approvals: Vec<Vec<u8>>,
    /// `Accepted` or `Started`.
    pub stage: Stage,
    /// How often it was run again after the agent's process had ended while it ran.
    pub resumptions: u32,
    /// The first cancel that asked it to stop.
    pub cancelled_by: Option<CommandId>,
}

/// Judges an order against this host's registry and its owner's policy. Implemented by the agent.
pub trait Admission {
    /// Whether the order may run here.
    ///
    /// # Errors
    /// When the action, version or schema is not registered, the parameters do not decode, or
    /// policy says no; in words for a person, naming the policy line.
    fn judge(&self, order: &Order) -> Result<Admitted, Rejection>;

    /// What the action declares of itself, whatever policy says of it now: asked at start-up for
    /// commands that had been started. `None` when it is not registered or its parameters do not decode.
    fn declared(&self, order: &Order) -> Option<Admitted>;
}

/// What the loop needs to know of an order it may run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admitted {
    pub class: Class,
    pub on_restart: OnRestart,
    pub kind: AdmittedKind,
    /// How many approvals the host's owner asks for at least, whatever root metadata says.
    pub approvals_min: u32,
}

/// How an order runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AdmittedKind {
    /// At once, beside everything else.
    Free,
    /// One at a time per app.
    Locked(AppName),
    /// Stops another command; waits for no lock; handled by the loop itself.
    Cancel(CommandId),
    /// New keys for this host; waits for no lock; handled by the loop itself.
    RotateKeys,
    /// The end of this host in its fleet; waits until nothing else runs; handled by the loop itself.
    Retire,
    /// This signed standing order begins to stand; waits for no lock; handled by the loop itself.
    StandingInstall(Vec<u8>),
    /// A standing order, as it is, under another signature; the same.
    StandingRenew(Vec<u8>),
    /// A standing order ends, with all that was signed of it up to that revision; the same.
    StandingDrop(StandingOrderId, Revision),
}

impl AdmittedKind {
    /// Whether the loop itself does it, in one write that is its end.
    pub(super) const fn is_standing(&self) -> bool {
        matches!(self, Self::StandingInstall(_) | Self::StandingRenew(_) | Self::StandingDrop(..))
    }
}

/// Why an order may not run, in words for a person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    pub message: String,
}

/// Why a connection was closed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CloseReason {
    /// The control plane ended it.
    #[error("the control plane refused: {message}")]
    Refused { reason: RefusalCode, message: String },
    /// Something from the control plane did not verify.
    #[error("the control plane's {what} does not verify: {why}")]
    NotAuthentic { what: &'static str, why: String },
    /// A frame came that does not belong here.
    #[error("unexpected {frame} from the control plane")]
    Unexpected { frame: &'static str },
    /// It took too long.
    #[error("authentication was not finished within {seconds} s")]
    AuthenticationTimeout { seconds: u64 },
    /// Wall clock and boot-time clock drifted apart: time is learnt again.
    #[error("the clock of this host jumped by {milliseconds} ms; authenticating again")]
    ClockJump { milliseconds: u64 },
    /// At least hourly both sides prove themselves again; also when newer root metadata took away
    /// what this session rests on.
    #[error("the session is due for renewal")]
    Renewal,
    /// Quarantine was entered: the next hello names it.
    #[error("this host's state and the control plane's disagree; entering quarantine: {why}")]
    Quarantined { why: String },
    /// The host's new keys are on record: the next session uses them.
    #[error("the control plane has stored this host's new keys; dialling with them")]
    KeysStored,
    /// This host has left its fleet.
    #[error("this host has left its fleet")]
    Retired,
    /// More came than is held back here.
    #[error("the control plane sent more than {max} frames that had to wait")]
    TooManyHeld { max: usize },
}

/// Things worth a line in the agent's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AgentEvent {
    /// A session is open: orders may come.
    SessionOpen { skew_ms: i64 },
    /// A command was durably accepted.
    Accepted { command: CommandId, sequence: Sequence },
    /// A command was durably refused.
    Refused { command: CommandId, why: String },
    /// A message was thrown away before it could be attributed to a command; `count` of them since start.
    Dropped { why: String, count: u64 },
    /// A report was acknowledged.
    Acknowledged { sequence: ReportSequence },
    /// New root metadata is in force.
    RootAdvanced { version: RootVersion },
    /// Quarantine was entered, and why.
    Quarantined { why: String },
    /// New keys of this host are in force.
    KeysTaken { host_epoch: HostEpoch },
    /// A guard reset ended the quarantine.
    Released,
    /// The audit log continues what this host has seen of it, and has so many entries.
    AuditContinues { size: u64 },
    /// The audit log that the control plane shows does not continue what this host has seen. The session ended.
    AuditRefused { why: String },
}
