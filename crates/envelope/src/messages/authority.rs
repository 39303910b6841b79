//! What carries authority beyond one command: a second person's word, an order that stands, and the
//! ways a host gets new keys or leaves its quarantine.

use ids::{
    ActionName, Challenge, DurationMs, Epoch, FleetId, HostEpoch, HostId, OperationId, QuarantineId, Revision,
    Sequence, Sha256, StandingOrderId, TlsExporter, UnixMs,
};

use super::{PublicKeyBytes, ReportPosition, SealedRef, SealingKeyBytes};

/// A person's word that one operation may happen on one host. Signed by an approver key, on that
/// person's machine; the control plane only carries it.
///
/// It covers what the order asks for and not the order itself, so it is given before the order is
/// sealed and holds when it is sealed again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Approval {
    pub fleet: FleetId,
    pub host: HostId,
    pub host_epoch: HostEpoch,
    pub operation: OperationId,
    pub action: ActionName,
    pub action_version: u32,
    /// SHA-256 of the order's parameters.
    pub parameters_sha256: Sha256,
    /// The order's sealed values, in ascending order of name.
    pub sealed: Vec<SealedRef>,
    /// SHA-256 of the plan that was shown to the approver.
    pub plan_sha256: Sha256,
    /// Whether the plan must still be that one when the host starts.
    pub bind_plan: bool,
    pub approved_at: UnixMs,
    /// At most [`crate::limits::APPROVAL_LIFETIME_MAX`] after `approved_at`.
    pub expires: UnixMs,
}

/// An order that outlives the command that installs it. Signed by a command key; void when that key is
/// dropped or an epoch is raised.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StandingOrder {
    pub standing: Standing,
    pub host_epoch: HostEpoch,
    pub epoch: Epoch,
    /// Strictly rising per host, whichever order it is about.
    pub revision: Revision,
    pub issued: UnixMs,
}

/// What a standing order says that signing it anew does not change: the same content needs no new
/// approval.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    pub fleet: FleetId,
    pub host: HostId,
    pub order: StandingOrderId,
    /// The operation that first installed it: what its sealed values are bound to.
    pub operation: OperationId,
    pub action: ActionName,
    pub action_version: u32,
    pub schema_sha256: Sha256,
    /// UTF-8 JSON, at most 256 KiB.
    pub parameters: Vec<u8>,
    /// Names and SHA-256 of its sealed values, in ascending order of name.
    pub sealed: Vec<SealedRef>,
    /// Five fields, as in crontab(5).
    pub schedule: String,
    /// A name of the IANA time zone database.
    pub zone: String,
    pub valid_until: UnixMs,
    /// How long after the host's last session it goes on running.
    pub alone_for: DurationMs,
}

/// Ends one quarantine, and no other. Signed by a command key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuardReset {
    pub fleet: FleetId,
    pub host: HostId,
    pub epoch: Epoch,
    pub quarantine: QuarantineId,
    /// The host's epoch from then on: the one after its present one.
    pub host_epoch: HostEpoch,
    /// Every command sequence up to this is used up.
    pub high: Sequence,
    /// The host's reports go on behind this one.
    pub last_report: ReportPosition,
    pub time: UnixMs,
}

/// A host's new keys, bound to the session in which they are offered. Signed by the new identity key,
/// which it brings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyOffer {
    pub identity_key: PublicKeyBytes,
    pub fleet: FleetId,
    pub host: HostId,
    /// The host's epoch from which on they count.
    pub host_epoch: HostEpoch,
    pub old_identity_key: PublicKeyBytes,
    pub sealing_key: SealingKeyBytes,
    /// The control plane's, of this session.
    pub control_nonce: Challenge,
    pub exporter: TlsExporter,
}

/// Agent → control plane: my keys become those of the offer. Signed by the old identity key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRotation {
    pub fleet: FleetId,
    pub host: HostId,
    /// Envelope of the [`KeyOffer`].
    pub offer: Vec<u8>,
}

/// Control plane → agent: the rotation is stored. Signed by a session key; kept for life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyReceipt {
    pub fleet: FleetId,
    pub host: HostId,
    pub host_epoch: HostEpoch,
    pub identity_key: PublicKeyBytes,
    pub sealing_key: SealingKeyBytes,
    /// SHA-256 of the payload of the [`KeyRotation`].
    pub rotation_sha256: Sha256,
    pub time: UnixMs,
}
