//! Typed identifiers, names, hashes and points in time, all as plain values.
//!
//! This room knows nothing of clocks or randomness: whoever makes an id brings both. Everything
//! else in the workspace stands on it, so it stays small and depends on nothing that does IO.

mod class;
mod counter;
mod hash;
mod id;
mod name;
mod time;

pub use class::{Class, OnRestart};
pub use counter::{Epoch, HostEpoch, ReportSequence, Revision, RootVersion, Sequence};
pub use hash::{Challenge, Nonce, Sha256, TlsExporter, sha256};
pub use id::{
    ApiTokenId, AuditLogId, BootId, CommandId, FleetId, HostId, Id, IdKind, IdParseError, KeyId, OperationId,
    QuarantineId, ReleaseId, SessionId, StandingOrderId, TokenId, UserId,
};
pub use name::{ActionName, AppName, HostName, LabelKey, LabelValue, NameError, Role, ServiceName, UserName};
pub use time::{BootMs, DurationMs, UnixMs};

/// Lower-case hexadecimal of `bytes`.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(bytes)
}
