//! Leaves of the audit log. A leaf holds the hash of a record, never its content, so content may be
//! pruned and the tree still verifies.
//!
//! Encoding, 75 bytes: version (1, = 1), kind (2, big-endian), time in Unix milliseconds (8,
//! big-endian), SHA-256 of the record (32), SHA-256 of actor and subject (32): of the actor's length in
//! bytes (4, big-endian), the actor and the subject, both UTF-8. There is one encoding per leaf.

use core::fmt;

use ids::{Sha256, UnixMs, sha256};

use crate::merkle;

const LEAF_VERSION: u8 = 1;
/// Length of an encoded leaf.
pub const LEAF_BYTES: usize = 75;

/// One leaf of the audit log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuditLeaf {
    pub time: UnixMs,
    pub kind: AuditKind,
    /// SHA-256 of the record: of the envelope's bytes, where there is one.
    pub record_sha256: Sha256,
    /// SHA-256 of who did it and what it was about: see [`AuditLeaf::new`].
    pub words_sha256: Sha256,
}

/// Why bytes are not a leaf.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LeafError {
    /// Another length.
    #[error("an audit leaf has {length} bytes instead of {LEAF_BYTES}")]
    Length { length: usize },
    /// Made by a later version.
    #[error("the audit leaf has version {version}; this program knows {LEAF_VERSION}")]
    Version { version: u8 },
    /// A kind this version does not know.
    #[error("the audit leaf is of unknown kind {number}")]
    Kind { number: u16 },
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident = $number:literal, $word:literal;)*) => {
        /// What a leaf is about. Numbers and words are stable: they are hashed, stored and shown.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u16)]
        pub enum AuditKind {
            $($(#[$doc])* $kind = $number,)*
        }

        impl AuditKind {
            /// Every kind, in the order of its numbers.
            pub const ALL: &'static [Self] = &[$(Self::$kind,)*];

            /// The kind's number.
            #[must_use]
            pub const fn number(self) -> u16 {
                self as u16
            }

            /// The kind with this number, if there is one.
            #[must_use]
            pub const fn from_number(number: u16) -> Option<Self> {
                match number {
                    $($number => Some(Self::$kind),)*
                    _ => None,
                }
            }

            /// The kind's word.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$kind => $word,)*
                }
            }
        }
    };
}

kinds! {
    /// The fleet and this log began.
    FleetCreated = 1, "fleet-created";
    /// The log continues another after a restore.
    FleetRestored = 2, "fleet-restored";
    /// Root metadata took effect.
    RootChange = 3, "root-change";
    /// A key of the control plane was made, put to use, or destroyed.
    KeyChange = 4, "key-change";
    /// A join token was made.
    TokenIssued = 10, "token-issued";
    /// A join token was withdrawn before it was used.
    TokenRevoked = 11, "token-revoked";
    /// A host was enrolled.
    Enrolment = 12, "enrolment";
    /// An enrolment with a known token was refused.
    EnrolmentRefused = 13, "enrolment-refused";
    /// A host was revoked.
    HostRevoked = 14, "host-revoked";
    /// A host's keys were rotated.
    HostKeyChange = 15, "host-key-change";
    /// A host got another name.
    HostRenamed = 16, "host-renamed";
    /// A host's labels changed.
    HostLabelled = 17, "host-labelled";
    /// An operation was proposed.
    Proposal = 20, "proposal";
    /// Someone approved an operation.
    Approval = 21, "approval";
    /// A command was sealed.
    Command = 22, "command";
    /// Someone asked for a command to be stopped.
    Cancel = 23, "cancel";
    /// A command ended without its host's word: it expired in the queue or its host was revoked.
    CommandSettled = 24, "command-settled";
    /// A report was verified.
    Report = 25, "report";
    /// Reports of a host are missing for good.
    ReportGap = 26, "report-gap";
    /// Two different reports claim the same place.
    Fork = 27, "fork";
    /// Someone refused an operation that needs approvals.
    ApprovalDenied = 28, "approval-denied";
    /// The secrets of a deploy were sealed to other owner recovery keys.
    SecretsRewrapped = 29, "secrets-rewrapped";
    /// A host went into quarantine.
    Quarantine = 30, "quarantine";
    /// A host was led out of quarantine.
    GuardReset = 31, "guard-reset";
    /// Something that should not be possible was seen, such as sequences nobody here signed.
    Alarm = 32, "alarm";
    /// Strangers were refused: one leaf a minute, with their number.
    RefusalCount = 33, "refusal-count";
    /// Someone asked for the end of a host's quarantine.
    QuarantineRelease = 34, "quarantine-release";
    /// A standing order was signed, for the first time or anew.
    StandingOrder = 35, "standing-order";
    /// Someone signed in.
    SignIn = 40, "sign-in";
    /// A sign-in was refused.
    SignInRefused = 41, "sign-in-refused";
    /// Someone signed out, or was signed out.
    SignOut = 42, "sign-out";
    /// An account, its rights or its credentials changed.
    AccountChange = 43, "account-change";
    /// Someone took a copy of the whole log.
    AuditExport = 44, "audit-export";
}

impl fmt::Display for AuditKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl AuditLeaf {
    /// The leaf of an entry: neither its record nor the words beside it can be changed unnoticed.
    #[must_use]
    pub fn new(time: UnixMs, kind: AuditKind, actor: &str, subject: &str, record_sha256: Sha256) -> Self {
        // Actors are short names; a length beyond 32 bits would only make the hash another one.
        let length = u32::try_from(actor.len()).unwrap_or(u32::MAX).to_be_bytes();
        let words = [length.as_slice(), actor.as_bytes(), subject.as_bytes()].concat();
        Self { time, kind, record_sha256, words_sha256: sha256(&words) }
    }

    /// The bytes that are hashed into the tree.
    #[must_use]
    pub fn encode(&self) -> [u8; LEAF_BYTES] {
        let mut bytes = [0; LEAF_BYTES];
        bytes[0] = LEAF_VERSION;
        bytes[1..3].copy_from_slice(&self.kind.number().to_be_bytes());
        bytes[3..11].copy_from_slice(&self.time.0.to_be_bytes());
        bytes[11..43].copy_from_slice(self.record_sha256.as_bytes());
        bytes[43..].copy_from_slice(self.words_sha256.as_bytes());
        bytes
    }

    /// Reads a leaf.
    ///
    /// # Errors
    /// See [`LeafError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, LeafError> {
        let bytes: &[u8; LEAF_BYTES] = bytes.try_into().map_err(|_| LeafError::Length { length: bytes.len() })?;
        let [version, kind_high, kind_low, t0, t1, t2, t3, t4, t5, t6, t7, hashes @ ..] = *bytes;
        if version != LEAF_VERSION {
            return Err(LeafError::Version { version });
        }
        let number = u16::from_be_bytes([kind_high, kind_low]);
        let kind = AuditKind::from_number(number).ok_or(LeafError::Kind { number })?;
        let time = UnixMs(u64::from_be_bytes([t0, t1, t2, t3, t4, t5, t6, t7]));
        let (mut record, mut words) = ([0; 32], [0; 32]);
        record.copy_from_slice(&hashes[..32]);
        words.copy_from_slice(&hashes[32..]);
        Ok(Self { time, kind, record_sha256: Sha256(record), words_sha256: Sha256(words) })
    }

    /// Its hash in the tree.
    #[must_use]
    pub fn leaf_hash(&self) -> Sha256 {
        merkle::leaf_hash(&self.encode())
    }
}
