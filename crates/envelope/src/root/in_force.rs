//! The keys of the version in force, each checked and of its role.

use super::TrustedRoot;
use crate::keys::{VerifyingKey, role};

impl TrustedRoot {
    /// Session keys in force.
    #[must_use]
    pub fn session_keys(&self) -> &[VerifyingKey<role::Session>] {
        &self.last.keys.session
    }

    /// Command keys in force.
    #[must_use]
    pub fn command_keys(&self) -> &[VerifyingKey<role::Command>] {
        &self.last.keys.command
    }

    /// Approver keys in force.
    #[must_use]
    pub fn approver_keys(&self) -> &[VerifyingKey<role::Approver>] {
        &self.last.keys.approver
    }

    /// Root keys in force.
    #[must_use]
    pub fn root_keys(&self) -> &[VerifyingKey<role::Root>] {
        &self.last.keys.root
    }

    /// The audit key in force.
    #[must_use]
    pub const fn audit_key(&self) -> &VerifyingKey<role::Audit> {
        &self.last.keys.audit
    }
}
