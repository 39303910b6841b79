//! What the control plane knows: hosts, commands, operations, apps, people. Plain values; the store
//! keeps them, the decisions beside this module change them.

mod people;

use envelope::messages::{LogPosition, Order, PublicKeyBytes, ReportPosition, SealedValue, SealingKeyBytes};
use ids::{
    ActionName, AppName, BootId, CommandId, HostEpoch, HostId, HostName, KeyId, OperationId, QuarantineId,
    ReportSequence, Role, RootVersion, Sequence, Sha256, TokenId, UnixMs, UserName,
};
use session::{frames::ActionRef, limits::PROTOCOL_GUARD_RESET};

pub use self::people::{
    ApiToken, Credential, NoSuchRole, Principal, TokenStanding, User, UserChange, UserRole, UserSession,
};
use crate::selector::Labels;

/// One enrolled host, as stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    pub id: HostId,
    pub name: HostName,
    pub roles: Vec<Role>,
    /// What its owner says of it; at most [`crate::limits::LABELS_PER_HOST_MAX`].
    pub labels: Labels,
    pub identity_key: PublicKeyBytes,
    pub sealing_key: SealingKeyBytes,
    pub host_epoch: HostEpoch,
    pub standing: HostStanding,
    /// What belongs to a quarantine, while it is in one.
    pub quarantine: HostQuarantine,
    /// Highest sequence ever given to a command of this host.
    pub allocated: Sequence,
    /// Highest sequence this host acknowledged (an `Accepted` frame or a report).
    pub acknowledged: Sequence,
    /// Its last verified and stored report.
    pub last_report: ReportPosition,
    /// Last audit head it reported.
    pub audit_head: Option<LogPosition>,
    /// Boot ids of its last sessions, latest first, at most two.
    pub boots: Vec<BootId>,
    pub actions: Vec<ActionRef>,
    pub agent_version: String,
    pub root_version: RootVersion,
    pub enrolled_at: UnixMs,
    /// How far its wall clock was ahead of the control plane's time when its last session opened, in milliseconds, if it
    /// said so.
    pub clock_skew_ms: Option<i64>,
    /// End of its last session; sessions going on are known to the registry of sessions only.
    pub last_seen: Option<UnixMs>,
    /// The signed receipt it was given.
    pub receipt: Vec<u8>,
}

impl Host {
    /// Whether whoever has its identity key may prove so. One that was revoked may not; one that was retired is told that
    /// its last report is stored, and nothing else ([`crate::dispatch::farewell`]).
    #[must_use]
    pub const fn may_prove_itself(&self) -> bool {
        !matches!(self.standing, HostStanding::Revoked { is_retired: false, .. })
    }

    /// The identity key by which a hello that names this epoch is judged: one before, if it was in force then, else the
    /// one on record.
    #[must_use]
    pub fn identity_key_of(&self, host_epoch: HostEpoch, former: &[FormerKey]) -> PublicKeyBytes {
        let before = former.iter().find(|key| key.host_epoch == host_epoch && host_epoch < self.host_epoch);
        before.map_or(self.identity_key, |key| key.identity_key)
    }
}

/// An identity key that a host had before the one on record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FormerKey {
    /// The epoch of the host in which it was in force.
    pub host_epoch: HostEpoch,
    pub identity_key: PublicKeyBytes,
    /// The last report it may have signed; `None` until the host has used the key after it.
    pub last_report: Option<ReportSequence>,
    pub replaced_at: UnixMs,
    /// Envelope of the rotation by which it was replaced.
    pub rotation: Vec<u8>,
}

/// Whether a host may get orders.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostStanding {
    /// Yes.
    Active,
    /// Its state and ours disagree: stored reports and root metadata only.
    Quarantined { why: String },
    /// Tombstone: never again. A retired one left by itself when it was told to, and has dropped its secrets.
    Revoked { at: UnixMs, is_retired: bool },
}

/// A quarantine as the control plane keeps it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HostQuarantine {
    /// Since when; unknown for those of before 0.2.
    pub since: Option<UnixMs>,
    /// Someone else signed for the host, or showed it another audit log.
    pub is_alarm: bool,
    /// Its agent is told to enter quarantine itself.
    pub is_told: bool,
    /// The quarantine of its agent that an admin said shall end.
    pub release: Option<QuarantineId>,
}

/// A quarantine that an agent said it is in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuarantineSeen {
    pub id: QuarantineId,
    /// When it said so last.
    pub at: UnixMs,
    pub boot: BootId,
    pub host_epoch: HostEpoch,
    /// Version of the protocol it speaks.
    pub protocol: u32,
    /// Highest command sequence it has seen.
    pub high: Sequence,
    pub last_report: ReportSequence,
}

impl QuarantineSeen {
    /// Why such an agent cannot be led on from where it is.
    #[must_use]
    pub fn hindrance(&self, host: &Host) -> Option<String> {
        if self.host_epoch != host.host_epoch {
            return Some(format!(
                "its state is from host epoch {}, and the keys on record are those of epoch {}, which it does not have; \
                 revoke the host and enrol the machine anew",
                self.host_epoch, host.host_epoch
            ));
        }
        (self.protocol < PROTOCOL_GUARD_RESET)
            .then(|| "its agent is too old to be released; upgrade it first (`serverflow host upgrade`)".to_owned())
    }
}

/// Where a command stands. The table of transitions is in [`crate::command`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum CommandStatus {
    /// Waits for people to approve it; not sealed.
    Held,
    /// Waits for its host; not sealed.
    Queued,
    /// Sealed and stored, sent or about to be.
    Delivered,
    /// Durably accepted by the host.
    Accepted,
    /// Durably started by the host.
    Running,
    Succeeded,
    Failed,
    RolledBack,
    /// Refused by the host before anything ran.
    Rejected,
    /// Never ran, and never will: too late.
    Expired,
    /// The host cannot say, or was revoked before it said.
    Unknown,
    Cancelled,
}

/// One command, as stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    pub order: Order,
    pub host_name: HostName,
    pub app: Option<AppName>,
    pub sealed: Vec<SealedValue>,
    /// Envelopes of the approvals stored for it, each by another key.
    pub approvals: Vec<Vec<u8>>,
    pub status: CommandStatus,
    /// One or a few sentences for a person; empty while nothing is to be said.
    pub message: String,
    pub requested_by: UserName,
    /// Every sealed version, ascending by sequence.
    pub seals: Vec<Seal>,
    /// The verified report's envelope, once there is one.
    pub report: Option<Vec<u8>>,
    pub delivered_at: Option<UnixMs>,
    pub accepted_at: Option<UnixMs>,
    pub started_at: Option<UnixMs>,
    pub settled_at: Option<UnixMs>,
}

/// One sealed version of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seal {
    pub sequence: Sequence,
    pub expires: UnixMs,
    /// SHA-256 of the payload bytes.
    pub payload_sha256: Sha256,
    pub envelope: Vec<u8>,
}

/// A command about to be stored for the first time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewCommand {
    pub order: Order,
    pub app: Option<AppName>,
    pub sealed: Vec<SealedValue>,
    /// It waits for approvals before it may be sealed; what is said of it meanwhile.
    pub held: Option<String>,
}

impl NewCommand {
    /// Whether it stops another command: always let through, because it makes room.
    #[must_use]
    pub fn is_cancel(&self) -> bool {
        self.order.action.as_str() == actions::policy::CANCEL_ACTION
    }
}

/// What a person asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    pub id: OperationId,
    pub kind: OperationKind,
    pub requested_by: UserName,
    pub created_at: UnixMs,
    /// SHA-256 of the whole request: the same id with another request is refused.
    pub request_sha256: Sha256,
    /// What later stages need: for a deploy, the specification (UTF-8 JSON of `actions::spec::AppSpec`).
    pub detail: Vec<u8>,
    /// How long after a stage's proposal a host may still get it, in milliseconds.
    pub queue_for_ms: u64,
    /// Only the plan.
    pub dry_run: bool,
    /// What its hosts were selected by, if they were not named. The hosts it came to are those of its commands.
    pub selector: Option<String>,
    /// How many people must approve what it changes; 0: none.
    pub approvals: u32,
    /// The requester's approver key, which never counts.
    pub requester: Option<KeyId>,
}

/// Kinds of operation, by their stages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OperationKind {
    /// One command per host.
    Single,
    /// `app.plan`, then `app.deploy` with the images the verified plan pinned.
    Deploy,
}

/// An app on one host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppInstance {
    pub app: AppName,
    pub host: HostId,
    pub host_name: HostName,
    /// The operation that made its present release.
    pub release: OperationId,
    pub deployed_at: UnixMs,
    /// As the last deploy, stop, start or restart left it that succeeded, by its verified report.
    pub state: AppInstanceState,
    /// The last deploy's result (UTF-8 JSON, as reported and verified).
    pub result: Vec<u8>,
}

/// Whether an app was stopped by an order. What became of its containers since is not said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AppInstanceState {
    /// No service is.
    Running,
    /// Some services are.
    PartlyStopped,
    /// All services are.
    Stopped,
}

impl AppInstanceState {
    /// As reports, the database and the API have it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::PartlyStopped => "partly_stopped",
            Self::Stopped => "stopped",
        }
    }

    /// The state of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        [Self::Running, Self::PartlyStopped, Self::Stopped].into_iter().find(|state| state.as_str() == name)
    }
}

/// A join token, as stored: never its secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinTokenRecord {
    pub id: TokenId,
    /// SHA-256 of the 32-byte secret (which has 256 bits of entropy, so a plain hash is enough).
    pub secret_sha256: Sha256,
    pub host_name: HostName,
    pub roles: Vec<Role>,
    pub created_by: UserName,
    pub created_at: UnixMs,
    pub expires: UnixMs,
    /// The host it became, once spent.
    pub spent_by: Option<HostId>,
}

/// One entry of the audit log, as read back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditRow {
    pub index: u64,
    pub time: UnixMs,
    pub kind: envelope::audit::AuditKind,
    /// Who: a user name, `host:NAME`, or `control-plane`.
    pub actor: String,
    /// What it was about: a host, command, operation or user, in words with ids.
    pub subject: String,
    pub record_sha256: Sha256,
    /// The record itself, unless it was pruned. For commands and reports the envelope's bytes.
    pub record: Option<Vec<u8>>,
}

/// A filter over commands. Newest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CommandFilter {
    pub host: Option<HostId>,
    pub operation: Option<OperationId>,
    pub status: Option<CommandStatus>,
    pub app: Option<AppName>,
    pub action: Option<ActionName>,
    /// Only those older than this one.
    pub before: Option<CommandId>,
    /// At most so many (1 to [`crate::limits::LIST_MAX`]).
    pub limit: u32,
}
