//! What the two ends say on a stream, as plain values. `wire` converts them from and to protobuf;
//! what is signed is an envelope's bytes, opened by the machine that receives it.

pub use envelope::guard::Stage;
use envelope::messages::SealedValue;
use ids::{
    ActionName, Challenge, CommandId, FleetId, HostEpoch, HostId, ReportSequence, RootVersion, Sequence, Sha256,
    TokenId,
};
use zeroize::Zeroizing;

/// Agent → control plane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AgentFrame {
    /// First frame of a session: an encoded `AgentHello`.
    Hello(Vec<u8>),
    /// Root metadata envelopes a control plane that is behind may lack, ascending.
    RootChain(Vec<Vec<u8>>),
    /// A `SessionProof` envelope.
    Proof(Vec<u8>),
    /// The actions this agent has; sent right after the proof.
    Actions(Vec<ActionRef>),
    /// A command was durably accepted, or is known from before: where it stands.
    Accepted { command: CommandId, sequence: Sequence, stage: Stage },
    /// Output of a running command: lossy, for whoever watches.
    Progress { command: CommandId, text: String },
    /// A piece of a command's stream, for whoever watches it, from that offset on.
    Output { command: CommandId, offset: u64, text: String },
    /// A `Report` envelope.
    Report(Vec<u8>),
    /// First frame of an enrolment.
    EnrolStart { token: TokenId, nonce: Challenge },
    /// An `EnrolProof` envelope and the token's secret.
    EnrolProof { proof: Vec<u8>, secret: TokenSecret },
    /// A `ReceiptRequest` envelope.
    ReceiptRequest(Vec<u8>),
    /// A `KeyRotation` envelope. From protocol version 2 on.
    KeyRotation(Vec<u8>),
    /// How far this host's wall clock is ahead of the control plane's time, in milliseconds; behind it, if negative. Once in a
    /// session, when it opens. From protocol version 2 on.
    Clock { skew_ms: i64 },
    /// What shows who this host is: the envelope of its enrolment receipt, and the changes of its keys since, ascending. Only
    /// when asked for.
    Credentials { receipt: Vec<u8>, changes: Vec<KeyRecord> },
}

/// Control plane → agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ControlFrame {
    /// Root metadata envelopes above the agent's version, ascending. Precedes the hello.
    RootChain(Vec<Vec<u8>>),
    /// A `ControlHello` envelope.
    Hello(Vec<u8>),
    /// A `SessionOpen` envelope.
    Open(Vec<u8>),
    /// A `Command` envelope, the sealed values it refers to, and the `Approval` envelopes of its order. Also asks
    /// for a known command's status.
    Deliver { command: Vec<u8>, sealed: Vec<SealedValue>, approvals: Vec<Vec<u8>> },
    /// A report is durable here and need not be sent again.
    ReportAcknowledged { sequence: ReportSequence, sha256: Sha256 },
    /// An `AuditHead` envelope. Protocol version 1 only.
    AuditHead(Vec<u8>),
    /// An `AuditHead` envelope, and what shows the log's first `from_size` leaves, which the agent has seen, to be
    /// a beginning of it. From protocol version 2 on.
    AuditConsistency { head: Vec<u8>, from_size: u64, hashes: Vec<Sha256> },
    /// An `EnrolHello` envelope; preceded by the root chain from version 1.
    EnrolHello(Vec<u8>),
    /// An `EnrolReceipt` envelope.
    EnrolReceipt(Vec<u8>),
    /// A `KeyReceipt` envelope. From protocol version 2 on.
    KeyReceipt(Vec<u8>),
    /// A `GuardReset` envelope. From protocol version 2 on.
    GuardReset(Vec<u8>),
    /// Somebody watches a command's stream: it may be sent up to that offset. `over`: nobody does any more.
    OutputLease { command: CommandId, until: u64, over: bool },
    /// This control plane was restored from a backup, and does not know the host by the key that it speaks with: it is to show who
    /// it is, by its receipt and the changes of its keys above that epoch. In place of the open. From protocol version 2 on.
    CredentialsWanted { above: HostEpoch },
    /// The stream ends, and why.
    Refused { reason: RefusalCode, message: String },
}

/// A change of a host's keys, as the host keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRecord {
    /// A `KeyRotation` envelope.
    pub rotation: Vec<u8>,
    /// The `KeyReceipt` envelope that answered it, unless that was lost.
    pub receipt: Option<Vec<u8>>,
}

/// Agent → control plane, on a connection whose TLS key the agent does not know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RootsRequest {
    pub fleet: FleetId,
    pub host: HostId,
    /// Newest version held; 0 for none.
    pub root_version: RootVersion,
    /// Envelopes the control plane lacks, ascending.
    pub chain: Vec<Vec<u8>>,
}

/// The answer to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RootsAnswer {
    /// Newest version held there.
    pub root_version: RootVersion,
    /// Envelopes above the agent's version, ascending.
    pub chain: Vec<Vec<u8>>,
}

impl AgentFrame {
    /// What a person calls it.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Hello(_) => "hello",
            Self::RootChain(_) => "root metadata",
            Self::Proof(_) => "proof",
            Self::Actions(_) => "list of actions",
            Self::Accepted { .. } => "acceptance",
            Self::Progress { .. } => "progress",
            Self::Output { .. } => "output",
            Self::Report(_) => "report",
            Self::EnrolStart { .. } => "start of enrolment",
            Self::EnrolProof { .. } => "proof of enrolment",
            Self::ReceiptRequest(_) => "request for a receipt",
            Self::KeyRotation(_) => "rotation of keys",
            Self::Clock { .. } => "clock",
            Self::Credentials { .. } => "credentials",
        }
    }
}

impl ControlFrame {
    /// What a person calls it.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::RootChain(_) => "root metadata",
            Self::Hello(_) => "hello",
            Self::Open(_) => "session-open",
            Self::Deliver { .. } => "command",
            Self::ReportAcknowledged { .. } => "acknowledgement",
            Self::AuditHead(_) => "audit head",
            Self::AuditConsistency { .. } => "proof of the audit log",
            Self::EnrolHello(_) => "enrolment hello",
            Self::EnrolReceipt(_) => "receipt",
            Self::KeyReceipt(_) => "receipt of keys",
            Self::GuardReset(_) => "guard reset",
            Self::OutputLease { .. } => "lease of a stream",
            Self::CredentialsWanted { .. } => "request for credentials",
            Self::Refused { .. } => "refusal",
        }
    }
}

/// The 32-byte secret of a join token. Zeroized, never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct TokenSecret(pub Zeroizing<[u8; 32]>);

impl core::fmt::Debug for TokenSecret {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("TokenSecret(…)")
    }
}

/// One action an agent has.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ActionRef {
    pub name: ActionName,
    pub version: u32,
    pub schema_sha256: Sha256,
}

/// Why a stream was ended by the control plane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RefusalCode {
    /// The join token is unknown, spent, expired, or for another host. Deliberately one answer.
    TokenRefused,
    /// This host is unknown or revoked.
    HostRefused,
    /// No common protocol version, or below the fleet's minimum.
    ProtocolVersion,
    /// A signature, a binding or a message did not verify.
    NotAuthentic,
    /// A newer session of the same host took over.
    Superseded,
    /// The host is quarantined; only stored reports and root metadata pass.
    Quarantined,
    /// A limit was passed.
    LimitExceeded,
    /// The control plane shuts down or cannot serve now; come back later.
    Unavailable,
}
