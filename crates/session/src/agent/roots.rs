//! The root metadata an agent goes by, with what must be remembered of older versions: which command
//! keys there ever were (to recognise a command accepted under a key dropped since), and when the
//! control plane was last restored (to refuse what was proposed before).

use envelope::{
    keys::{VerifyingKey, role},
    messages::{LogPosition, RootMetadata},
    root::{RootError, TrustedRoot},
};
use ids::{AuditLogId, RootVersion, Sha256, UnixMs};

/// A verified chain. Empty only when an agent lost its journal: then nothing verifies until the
/// chain has come again, from the pinned version on.
#[derive(Clone)]
pub(super) struct Roots {
    pin: Sha256,
    trusted: Option<TrustedRoot>,
    restored_log: Option<LogPosition>,
    /// Where each log before the present one stood, as the versions held say.
    logs_before: Vec<LogPosition>,
    restored_at: Option<UnixMs>,
    command_keys_ever: Vec<VerifyingKey<role::Command>>,
}

impl Roots {
    /// Verifies a stored chain from the version whose payload hash was pinned at enrolment.
    pub(super) fn load(pin: Sha256, chain: &[Vec<u8>]) -> Result<Self, RootError> {
        let mut roots = Self {
            pin,
            trusted: None,
            restored_log: None,
            logs_before: Vec::new(),
            restored_at: None,
            command_keys_ever: Vec::new(),
        };
        for envelope in chain {
            roots.advance(envelope)?;
        }
        Ok(roots)
    }

    /// Takes the next version (or the pinned one, when there is none yet).
    pub(super) fn advance(&mut self, envelope: &[u8]) -> Result<RootVersion, RootError> {
        match &mut self.trusted {
            Some(trusted) => {
                trusted.advance(envelope)?;
            }
            None => self.trusted = Some(TrustedRoot::pin(envelope, self.pin)?),
        }
        let Some(trusted) = &self.trusted else { return Ok(RootVersion(0)) };
        let current = trusted.current();
        if current.restored_log != self.restored_log {
            self.restored_log = current.restored_log;
            self.restored_at = current.restored_log.map(|_| current.issued);
            self.logs_before.extend(current.restored_log);
        }
        for key in trusted.command_keys() {
            if !self.command_keys_ever.contains(key) {
                self.command_keys_ever.push(*key);
            }
        }
        Ok(current.version)
    }

    pub(super) fn holds(&self, envelope: &[u8]) -> bool {
        self.trusted.as_ref().is_some_and(|root| root.holds(envelope))
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.trusted.is_none()
    }

    pub(super) fn current(&self) -> Option<&RootMetadata> {
        self.trusted.as_ref().map(TrustedRoot::current)
    }

    pub(super) fn version(&self) -> RootVersion {
        self.current().map_or(RootVersion(0), |root| root.version)
    }

    pub(super) fn session_keys(&self) -> &[VerifyingKey<role::Session>] {
        self.trusted.as_ref().map_or(&[], |root| root.session_keys())
    }

    pub(super) fn command_keys(&self) -> &[VerifyingKey<role::Command>] {
        self.trusted.as_ref().map_or(&[], |root| root.command_keys())
    }

    /// Every command key of every version held, for commands accepted earlier.
    pub(super) fn command_keys_ever(&self) -> &[VerifyingKey<role::Command>] {
        &self.command_keys_ever
    }

    pub(super) fn approver_keys(&self) -> &[VerifyingKey<role::Approver>] {
        self.trusted.as_ref().map_or(&[], |root| root.approver_keys())
    }

    /// It cannot be earlier than this.
    pub(super) fn issued_floor(&self) -> UnixMs {
        self.trusted.as_ref().map_or(UnixMs(0), TrustedRoot::issued_floor)
    }

    pub(super) fn audit_keys(&self) -> Vec<VerifyingKey<role::Audit>> {
        self.trusted.iter().map(|root| *root.audit_key()).collect()
    }

    /// Where a log before the present one stood; the last word on it.
    pub(super) fn log_before(&self, log: AuditLogId) -> Option<LogPosition> {
        self.logs_before.iter().rev().find(|position| position.log == log).copied()
    }

    /// Nothing proposed before this moment may run.
    pub(super) const fn restored_at(&self) -> Option<UnixMs> {
        self.restored_at
    }

    /// Judged by the larger of the wall clock and the newest root-signed issue time, so that a clock
    /// set back does not bring an expired root to life.
    pub(super) fn is_expired(&self, wall: UnixMs) -> bool {
        self.trusted.as_ref().is_none_or(|root| root.is_expired(wall.max(root.issued_floor())))
    }

    pub(super) fn chain_above(&self, version: RootVersion, max: usize) -> Vec<Vec<u8>> {
        let mut chain = self.trusted.as_ref().map_or_else(Vec::new, |root| root.chain_above(version));
        chain.truncate(max);
        chain
    }
}
