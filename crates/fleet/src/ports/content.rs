//! What the larger writes carry.

use envelope::messages::{LogPosition, PublicKeyBytes, ReportPosition, SealingKeyBytes};
use ids::{
    ActionName, AppName, CommandId, DurationMs, HostEpoch, HostId, HostName, KeyId, LabelKey, LabelValue, Revision,
    Sequence, StandingOrderId, UnixMs,
};

use super::AuditEntry;
use crate::{
    model::{AppInstance, AppInstanceState, CommandStatus, NewCommand, Operation},
    standing::{StandingSeal, StepKind},
};

/// What changes about a host by its owner's word.
#[derive(Clone, Debug)]
pub struct HostEdit {
    pub host: HostId,
    /// The name it had when this was decided; it must have it still.
    pub was: HostName,
    /// Its new name.
    pub name: Option<HostName>,
    /// Labels to set, and those to take away (`None`). Taking away what is not there is no error.
    pub labels: Vec<(LabelKey, Option<LabelValue>)>,
    pub at: UnixMs,
    pub audit: Vec<AuditEntry>,
}

/// New keys of a host, both signatures verified.
#[derive(Clone, Debug)]
pub struct HostKeyRotation {
    pub host: HostId,
    /// Its epoch before.
    pub was: HostEpoch,
    pub host_epoch: HostEpoch,
    pub identity_key: PublicKeyBytes,
    pub sealing_key: SealingKeyBytes,
    /// Its envelope.
    pub rotation: Vec<u8>,
    /// It answers a guard reset: the host is quarantined no more.
    pub released: Option<Released>,
    /// The same is the record.
    pub audit: AuditEntry,
}

/// Verified approvals of one person.
#[derive(Clone, Debug)]
pub struct Approved {
    /// The key that signed them.
    pub key: KeyId,
    pub commands: Vec<Endorsed>,
    pub at: UnixMs,
    /// One leaf for each; its record is the envelope.
    pub audit: Vec<AuditEntry>,
}

/// The approval of one command.
#[derive(Clone, Debug)]
pub struct Endorsed {
    pub command: CommandId,
    pub envelope: Vec<u8>,
    /// Approvals that were stored when it was judged.
    pub stored_before: usize,
    /// What is said of it from now on, if it goes on being held; else it is queued.
    pub message: Option<String>,
}

/// What a guard reset said, and what the host's row becomes by the rotation that answers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Released {
    /// Every sequence up to this is given out.
    pub high: Sequence,
    /// The host's last report, as its row must still have it.
    pub last_report: ReportPosition,
}

/// Something ordered about a standing order: its operation with the one command, and what is kept of it.
#[derive(Clone, Debug)]
pub struct StandingProposal {
    pub host: HostId,
    pub order: StandingOrderId,
    pub kind: StepKind,
    /// What it is, when it is new.
    pub new: Option<NewStanding>,
    /// What was signed. Its revision must be above every one of the host.
    pub sealed: Option<SignedStanding>,
    /// The highest revision that was signed of this order, as far as the proposal knows. Refused when another one came
    /// meanwhile, or its end.
    pub last: Revision,
    pub operation: Operation,
    pub commands: Vec<NewCommand>,
    pub at: UnixMs,
    pub audit: AuditEntry,
}

/// What people are shown of a standing order; the rest is in its envelope.
#[derive(Clone, Debug)]
pub struct NewStanding {
    pub action: ActionName,
    pub action_version: u32,
    pub schedule: String,
    pub zone: String,
    pub valid_until: UnixMs,
    pub alone_for: DurationMs,
}

/// A signed standing order.
#[derive(Clone, Debug)]
pub struct SignedStanding {
    pub seal: StandingSeal,
    pub envelope: Vec<u8>,
}

/// A verified report and everything that follows from it, in one transaction.
#[derive(Clone, Debug)]
pub struct Settlement {
    pub host: HostId,
    /// Report position before this report, as the host's row must still have it.
    pub expected_last: ReportPosition,
    /// Where the chain stands with it; `expected_last` itself when it fills an earlier gap.
    pub position: ReportPosition,
    pub envelope: Vec<u8>,
    pub command: CommandId,
    pub sequence: Sequence,
    pub status: CommandStatus,
    pub message: String,
    pub audit_head: Option<LogPosition>,
    pub at: UnixMs,
    /// The next stage of the operation, if this end asks for one.
    pub follow_up: Vec<NewCommand>,
    pub app: Option<AppChange>,
    pub audit: Vec<AuditEntry>,
}

/// A verified report that ends nothing, and what is recorded of it.
#[derive(Clone, Debug)]
pub struct KeptReport {
    pub host: HostId,
    /// Report position before this report, as the host's row must still have it.
    pub expected_last: ReportPosition,
    pub position: ReportPosition,
    /// Sequence of the command it is about; the host acknowledged at least this.
    pub sequence: Sequence,
    pub audit_head: Option<LogPosition>,
    /// The report's envelope is the record of the first.
    pub audit: Vec<AuditEntry>,
}

/// What a settled command did to the list of apps.
#[derive(Clone, Debug)]
pub enum AppChange {
    /// A release is current on the host.
    Deployed(AppInstance),
    /// The present release was stopped, started or restarted.
    Ran { app: AppName, host: HostId, state: AppInstanceState },
    /// The app is gone from the host.
    Removed { app: AppName, host: HostId },
}
