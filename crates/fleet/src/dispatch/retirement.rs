//! Hosts that leave the fleet by themselves, at its word: `host.retire`.
//!
//! The report of such an order is the host's last, and the transaction that stores it revokes the host. Its agent ends
//! once it knows that. If the word was lost, it comes once more: it may prove who it is, and is told by a signed
//! session-open which report of it is the last on record. No session follows.

use actions::host_retire::RETIRE_ACTION;
use envelope::messages::SessionOpen;
use ids::UnixMs;
use session::frames::RefusalCode;

use super::{Established, HostSession, Note, opening::host_record};
use crate::{
    command::CommandEvent,
    model::{Command, CommandStatus, Host, HostStanding},
};

/// What a host that has left is told.
pub const RETIRED: &str = "this host has left the fleet; enrol the machine anew if it is to come back";

/// What a host that has left gets in place of a session, to be signed.
#[must_use]
pub fn farewell(peer: &Established, host: &Host) -> Option<SessionOpen> {
    let has_left = matches!(host.standing, HostStanding::Revoked { is_retired: true, .. });
    // The signer puts in its own time.
    has_left.then(|| peer.authenticated.open(&host_record(host), peer.root.current().epoch, UnixMs(0)))
}

/// Whether a command that ends so takes its host out of the fleet.
pub(super) fn retires(command: &Command, status: CommandStatus) -> bool {
    let is_retirement = command.order.action.as_str() == RETIRE_ACTION && !command.order.dry_run;
    is_retirement && status == CommandStatus::Succeeded
}

impl HostSession {
    /// The host is revoked, and has been told that its last report is stored.
    pub(super) fn retired(&mut self, now: UnixMs) {
        if let Some(host) = &mut self.host {
            host.standing = HostStanding::Revoked { at: now, is_retired: true };
        }
        for slot in core::mem::take(&mut self.slots) {
            if let Ok(status) = slot.command.status.after(CommandEvent::HostRevoked) {
                self.publish_command(&slot.command, status, "the host has left the fleet".to_owned());
            }
        }
        self.note(Note::Retired);
        self.close(RefusalCode::HostRefused, RETIRED);
    }
}
