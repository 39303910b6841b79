//! The next version of root metadata, made from the present one and typed changes.

use ids::{AuditLogId, Sha256, UnixMs};

use super::{RootError, check_structure};
use crate::{
    limits,
    messages::{LogPosition, PublicKeyBytes, RootMetadata, SealingKeyBytes},
};

/// One thing that is to be different in the next version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Edit {
    /// Other root keys, and how many of them must sign from then on.
    RootKeys {
        keys: Vec<PublicKeyBytes>,
        threshold: u32,
    },
    /// In place of the present ones, in order of preference.
    Addresses(Vec<String>),
    /// One more key.
    AddRecoveryKey(SealingKeyBytes),
    DropRecoveryKey(SealingKeyBytes),
    AddSessionKey(PublicKeyBytes),
    DropSessionKey(PublicKeyBytes),
    AddCommandKey(PublicKeyBytes),
    DropCommandKey(PublicKeyBytes),
    AddApprover(PublicKeyBytes),
    DropApprover(PublicKeyBytes),
    /// Approvals that an action of class change needs.
    ApprovalsChange(u32),
    /// Approvals that an action of class destructive needs.
    ApprovalsDestructive(u32),
    /// In place of the present one.
    AuditKey(PublicKeyBytes),
    /// The log before stood there; from now on that other one is kept.
    RestoredLog {
        before: LogPosition,
        log: AuditLogId,
    },
    AddTlsPin(Sha256),
    DropTlsPin(Sha256),
    /// Lowest protocol version an agent may speak.
    ProtocolMin(u32),
    /// Voids everything signed before.
    RaiseEpoch,
}

/// Why there is no next version.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DraftError {
    /// It stands there already.
    #[error("the {what} {which} is listed already")]
    Listed { what: &'static str, which: String },
    /// Nothing to drop.
    #[error("the {what} {which} is not listed, so it cannot be dropped")]
    NotListed { what: &'static str, which: String },
    /// The clock of whoever drafts is wrong, or that of whoever made the present version was.
    #[error("the present version was issued later than this machine's clock says it is now: set the clock right first")]
    ClockBehind,
    /// The counter is at its end.
    #[error("there is no next {what}")]
    NoNext { what: &'static str },
    /// The result would break a rule.
    #[error(transparent)]
    Rule(#[from] RootError),
}

/// The version after `current`, with the changes made in their order; issued now, valid for
/// [`limits::ROOT_LIFETIME`]. Without changes it only lasts longer.
///
/// # Errors
/// When a change does not fit, or the result breaks a rule of [`check_structure`].
pub fn next_version(current: &RootMetadata, edits: &[Edit], issued: UnixMs) -> Result<RootMetadata, DraftError> {
    if issued < current.issued {
        return Err(DraftError::ClockBehind);
    }
    let version = current.version.next().ok_or(DraftError::NoNext { what: "version" })?;
    let expires = issued.plus(limits::ROOT_LIFETIME);
    let mut next = RootMetadata { version, issued, expires, ..current.clone() };
    for edit in edits {
        apply(&mut next, edit)?;
    }
    check_structure(&next)?;
    Ok(next)
}

fn apply(root: &mut RootMetadata, edit: &Edit) -> Result<(), DraftError> {
    match edit {
        Edit::RootKeys { keys, threshold } => {
            root.root_keys.clone_from(keys);
            root.root_threshold = *threshold;
        }
        Edit::Addresses(addresses) => root.addresses.clone_from(addresses),
        Edit::AddRecoveryKey(key) => add(&mut root.recovery_keys, *key, "recovery key")?,
        Edit::DropRecoveryKey(key) => drop_from(&mut root.recovery_keys, key, "recovery key")?,
        Edit::AddSessionKey(key) => add(&mut root.session_keys, *key, "session key")?,
        Edit::DropSessionKey(key) => drop_from(&mut root.session_keys, key, "session key")?,
        Edit::AddCommandKey(key) => add(&mut root.command_keys, *key, "command key")?,
        Edit::DropCommandKey(key) => drop_from(&mut root.command_keys, key, "command key")?,
        Edit::AddApprover(key) => add(&mut root.approver_keys, *key, "approver key")?,
        Edit::DropApprover(key) => drop_from(&mut root.approver_keys, key, "approver key")?,
        Edit::ApprovalsChange(count) => root.approvals.change = *count,
        Edit::ApprovalsDestructive(count) => root.approvals.destructive = *count,
        Edit::AuditKey(key) => root.audit_key = *key,
        Edit::RestoredLog { before, log } => (root.restored_log, root.audit_log) = (Some(*before), *log),
        Edit::AddTlsPin(pin) => add(&mut root.tls_pins, *pin, "TLS pin")?,
        Edit::DropTlsPin(pin) => drop_from(&mut root.tls_pins, pin, "TLS pin")?,
        Edit::ProtocolMin(least) => root.protocol_min = *least,
        Edit::RaiseEpoch => root.epoch = root.epoch.next().ok_or(DraftError::NoNext { what: "epoch" })?,
    }
    Ok(())
}

fn add<T: PartialEq + ToString>(list: &mut Vec<T>, item: T, what: &'static str) -> Result<(), DraftError> {
    if list.contains(&item) {
        return Err(DraftError::Listed { what, which: item.to_string() });
    }
    list.push(item);
    Ok(())
}

fn drop_from<T: PartialEq + ToString>(list: &mut Vec<T>, item: &T, what: &'static str) -> Result<(), DraftError> {
    let before = list.len();
    list.retain(|listed| listed != item);
    if list.len() == before { Err(DraftError::NotListed { what, which: item.to_string() }) } else { Ok(()) }
}
