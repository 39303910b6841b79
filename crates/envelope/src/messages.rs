//! Every signed message, as plain values. Encoding, decoding and their checks live beside this
//! module; the shapes are specified in `docs/PROTOCOL.md` and `proto/serverflow/signed/v1/`.

mod authority;

pub use self::authority::{Approval, GuardReset, KeyOffer, KeyReceipt, KeyRotation, Standing, StandingOrder};

use ids::{
    ActionName, AuditLogId, BootId, Challenge, CommandId, Epoch, FleetId, HostEpoch, HostId, HostName, KeyId, Nonce,
    OperationId, QuarantineId, ReportSequence, Role, RootVersion, Sequence, Sha256, TlsExporter, TokenId, UnixMs,
};

/// 32 bytes of an Ed25519 public key (RFC 8032). Checked (canonical, not weak, torsion-free) when
/// decoded from a message; by itself only bytes. Text form: hexadecimal.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKeyBytes(pub [u8; 32]);

/// 32 bytes of an X25519 public key (RFC 7748). Checked (canonical, not of small order) when decoded
/// from a message; by itself only bytes. Text form: hexadecimal.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SealingKeyBytes(pub [u8; 32]);

macro_rules! key_text {
    ($($key:ident)*) => {$(
        impl core::fmt::Display for $key {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                f.write_str(&ids::hex(&self.0))
            }
        }
        impl core::fmt::Debug for $key {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                core::fmt::Display::fmt(self, f)
            }
        }
        impl core::str::FromStr for $key {
            type Err = &'static str;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                let bytes = data_encoding::HEXLOWER_PERMISSIVE.decode(text.as_bytes()).ok();
                let bytes = bytes.and_then(|bytes| bytes.try_into().ok());
                bytes.map(Self).ok_or("expected a public key: 64 hexadecimal digits")
            }
        }
    )*};
}
key_text! { PublicKeyBytes SealingKeyBytes }

/// Root metadata: who may sign what in this fleet. Signed by the root keys of its own version and
/// of the version before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RootMetadata {
    pub version: RootVersion,
    pub issued: UnixMs,
    pub expires: UnixMs,
    pub fleet: FleetId,
    pub root_keys: Vec<PublicKeyBytes>,
    /// How many distinct root keys must sign. At least 1.
    pub root_threshold: u32,
    /// `host:port` of the agents' listener, in order of preference.
    pub addresses: Vec<String>,
    /// X25519 keys to which secrets are sealed as well. May be empty.
    pub recovery_keys: Vec<SealingKeyBytes>,
    pub session_keys: Vec<PublicKeyBytes>,
    pub command_keys: Vec<PublicKeyBytes>,
    pub approver_keys: Vec<PublicKeyBytes>,
    /// Approvals a class of action needs.
    pub approvals: ApprovalThresholds,
    pub audit_key: PublicKeyBytes,
    pub audit_log: AuditLogId,
    /// The log before a restore, and where it stood.
    pub restored_log: Option<LogPosition>,
    /// SHA-256 of the TLS keys' SubjectPublicKeyInfo: now and next. At least two.
    pub tls_pins: Vec<Sha256>,
    /// Lowest protocol version an agent may speak.
    pub protocol_min: u32,
    pub epoch: Epoch,
}

/// How many approvals each class needs. Zero: none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ApprovalThresholds {
    pub change: u32,
    pub destructive: u32,
}

/// Where an audit log stood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogPosition {
    pub log: AuditLogId,
    pub size: u64,
    pub root: Sha256,
}

/// Control plane → agent at enrolment. Signed by a session key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnrolHello {
    pub fleet: FleetId,
    pub token: TokenId,
    pub agent_nonce: Challenge,
    pub control_nonce: Challenge,
    pub exporter: TlsExporter,
    pub root_version: RootVersion,
    pub time: UnixMs,
}

/// Agent → control plane at enrolment. Signed by the identity key it brings. The token's secret
/// travels beside it, inside TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnrolProof {
    pub fleet: FleetId,
    pub token: TokenId,
    pub identity_key: PublicKeyBytes,
    pub sealing_key: SealingKeyBytes,
    pub agent_nonce: Challenge,
    pub control_nonce: Challenge,
    pub exporter: TlsExporter,
    pub hello_sha256: Sha256,
}

/// Agent → control plane, asking again for a receipt that was lost. Signed by the identity key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReceiptRequest {
    pub fleet: FleetId,
    pub token: TokenId,
    pub identity_key: PublicKeyBytes,
    pub agent_nonce: Challenge,
    pub control_nonce: Challenge,
    pub exporter: TlsExporter,
    pub hello_sha256: Sha256,
}

/// Control plane → agent: you are this host now. Signed by a session key; kept for life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnrolReceipt {
    pub fleet: FleetId,
    pub host: HostId,
    pub host_epoch: HostEpoch,
    pub name: HostName,
    pub roles: Vec<Role>,
    pub token: TokenId,
    pub identity_key: PublicKeyBytes,
    pub sealing_key: SealingKeyBytes,
    pub time: UnixMs,
}

/// The agent's first words in a session. Not signed: its hash is in what the control plane signs,
/// which the agent's proof then covers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentHello {
    /// Protocol versions it speaks, ascending.
    pub protocols: Vec<u32>,
    pub fleet: FleetId,
    pub host: HostId,
    pub host_epoch: HostEpoch,
    pub nonce: Challenge,
    pub boot: BootId,
    pub root_version: RootVersion,
    /// Highest command sequence taken, durable or on its way to the disk; 0 before the first. After a
    /// crash it may be lower again, but never below one that was acknowledged.
    pub high: Sequence,
    pub last_report: ReportPosition,
    pub audit_head: Option<LogPosition>,
    pub quarantine: Option<QuarantineId>,
    /// Version of the agent program, for people.
    pub agent_version: String,
}

/// Where a chain of reports stands. Sequence 0 and [`Sha256::ZERO`] before the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReportPosition {
    pub sequence: ReportSequence,
    /// SHA-256 of the last report's payload bytes.
    pub sha256: Sha256,
}

impl ReportPosition {
    /// Before the first report.
    pub const START: Self = Self { sequence: ReportSequence(0), sha256: Sha256::ZERO };
}

/// Control plane → agent in a session. Signed by a session key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControlHello {
    /// The protocol version it chose among the agent's.
    pub protocol: u32,
    pub fleet: FleetId,
    pub host: HostId,
    pub agent_nonce: Challenge,
    pub control_nonce: Challenge,
    pub exporter: TlsExporter,
    /// SHA-256 of the agent's hello as received.
    pub agent_hello_sha256: Sha256,
    pub time: UnixMs,
    pub root_version: RootVersion,
}

/// Agent → control plane: it is I. Signed by the identity key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionProof {
    pub fleet: FleetId,
    pub host: HostId,
    pub exporter: TlsExporter,
    pub control_nonce: Challenge,
    /// SHA-256 of the control hello's payload bytes.
    pub hello_sha256: Sha256,
}

/// Control plane → agent: orders may follow. Signed by a command key, with the signer's own clock.
/// The agent's time and its judgement of its own state rest on this.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionOpen {
    pub fleet: FleetId,
    pub host: HostId,
    pub host_epoch: HostEpoch,
    pub epoch: Epoch,
    pub exporter: TlsExporter,
    /// SHA-256 of the session proof's payload bytes.
    pub proof_sha256: Sha256,
    pub time: UnixMs,
    /// Highest sequence the control plane saw acknowledged (an `Accepted` frame or a report).
    pub acknowledged: Sequence,
    pub last_report: ReportPosition,
}

/// What an order says that sealing does not change. The replay guard keeps its hash: same id with
/// another content is a conflict.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    pub fleet: FleetId,
    pub host: HostId,
    pub command: CommandId,
    pub operation: OperationId,
    pub proposed_at: UnixMs,
    /// Never accepted later than this.
    pub deliver_by: UnixMs,
    /// Once accepted, never started later than this long after `issued`, in milliseconds (at most an hour).
    pub start_within_ms: u64,
    pub action: ActionName,
    pub action_version: u32,
    pub schema_sha256: Sha256,
    /// UTF-8 JSON, at most 256 KiB; encoded once, when proposed.
    pub parameters: Vec<u8>,
    /// Names and SHA-256 of the sealed values that travel beside, in ascending order of name.
    pub sealed: Vec<SealedRef>,
    /// The requester's approver key, which never counts as an approval.
    pub requester: Option<KeyId>,
    /// Only the plan is asked for: nothing may change.
    pub dry_run: bool,
}

/// Names one sealed value.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SealedRef {
    pub name: String,
    /// SHA-256 of the sealed bytes.
    pub sha256: Sha256,
}

/// One sealed value, as it travels beside an order.
#[derive(Clone, PartialEq, Eq)]
pub struct SealedValue {
    pub name: String,
    /// HPKE encapsulated key and ciphertext.
    pub bytes: Vec<u8>,
}

impl core::fmt::Debug for SealedValue {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("SealedValue").field("name", &self.name).finish_non_exhaustive()
    }
}

/// A command: an order, sealed for delivery. Signed by a command key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    pub order: Order,
    pub host_epoch: HostEpoch,
    pub epoch: Epoch,
    pub sequence: Sequence,
    pub nonce: Nonce,
    pub issued: UnixMs,
    pub not_before: UnixMs,
    /// At most 5 minutes after `not_before`; bounds acceptance.
    pub expires: UnixMs,
}

/// How a command ended, as its host says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ReportStatus {
    Succeeded,
    Failed,
    RolledBack,
    Cancelled,
    /// Refused before anything ran: by registry, schema, approvals or policy.
    Rejected,
    /// Came or waited too long; never ran.
    Expired,
    /// Its key or epoch became void while it waited; never ran.
    Revoked,
    /// The host cannot say whether it ran.
    Unknown,
}

/// The agent's signed account of a command's end. Signed by the identity key of its `host_epoch`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    pub fleet: FleetId,
    pub host: HostId,
    pub host_epoch: HostEpoch,
    pub command: CommandId,
    /// SHA-256 of the command's payload bytes.
    pub command_sha256: Sha256,
    /// Sequence of the command.
    pub command_sequence: Sequence,
    pub sequence: ReportSequence,
    /// SHA-256 of the previous report's payload bytes; [`Sha256::ZERO`] for the first.
    pub previous: Sha256,
    pub audit_head: Option<LogPosition>,
    pub status: ReportStatus,
    pub finished_at: UnixMs,
    /// UTF-8 JSON `{message, result}`, at most 256 KiB.
    pub result: Vec<u8>,
    /// SHA-256 of the full output stream.
    pub output_sha256: Sha256,
    pub output_truncated: bool,
}

/// Head of the audit log. Signed by the audit key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditHead {
    pub fleet: FleetId,
    pub position: LogPosition,
    pub time: UnixMs,
}
