//! The keys of the version in force, each checked and of its role; and those that verify what was signed before.

use super::{TrustedRoot, Unverified};
use crate::keys::{VerifyingKey, role};

impl TrustedRoot {
    /// Session keys in force.
    #[must_use]
    pub fn session_keys(&self) -> &[VerifyingKey<role::Session>] {
        &self.last.keys.session
    }

    /// Every session key that any version held here lists: a receipt stays what it was when keys change.
    #[must_use]
    pub fn session_keys_ever(&self) -> Vec<VerifyingKey<role::Session>> {
        let mut ever = self.session_keys().to_vec();
        // Each was verified before it was held.
        for version in self.chain.iter().filter_map(|envelope| Unverified::parse(envelope).ok()) {
            for key in version.keys.session {
                if !ever.contains(&key) {
                    ever.push(key);
                }
            }
        }
        ever
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
