//! One open command in a session: what is stored of it, and what this session did with it.

use actions::Request;
use ids::{CommandId, Sequence, UnixMs};

use crate::model::{Command, CommandStatus, Seal};

/// The action whose orders must get through even when much is under way.
const CANCEL: &str = "command.cancel";

/// One command without an end.
pub(super) struct Slot {
    /// As stored, and as this session's own writes changed it since.
    pub(super) command: Command,
    /// Highest sequence sent in this session: of a seal made in it, or of stored bytes sent again.
    pub(super) sent: Option<Sequence>,
    /// The host said something of it in this session.
    pub(super) acknowledged: bool,
    /// It is with the signer, or signed and waiting for its transaction.
    pub(super) sealing: bool,
    /// Why the signer will never sign it.
    pub(super) refused: Option<String>,
}

impl Slot {
    pub(super) fn new(command: Command) -> Self {
        Self { command, sent: None, acknowledged: false, sealing: false, refused: None }
    }

    pub(super) fn id(&self) -> CommandId {
        self.command.order.command
    }

    fn last_sequence(&self) -> Option<Sequence> {
        self.command.seals.last().map(|seal| seal.sequence)
    }

    /// Whether the host never got it, as far as its hello says: it has no number yet, or only
    /// numbers that lie above the host's highest and that this session did not send.
    pub(super) fn is_unsent(&self, high: Sequence) -> bool {
        match self.command.status {
            CommandStatus::Queued => true,
            CommandStatus::Delivered => {
                self.sent.is_none() && !self.acknowledged && self.last_sequence().is_none_or(|last| last > high)
            }
            _ => false,
        }
    }

    /// Whether one of its seals may have arrived: its number does not lie above the host's highest.
    /// A later seal says nothing of it: a host that knows the command answers from memory and takes
    /// no new number for it.
    pub(super) fn may_have_arrived(&self, high: Sequence) -> bool {
        self.command.seals.iter().any(|seal| seal.sequence <= high)
    }

    /// The seal to send once more so that the host says where the command stands: it got it in an
    /// earlier session, or may have got it and it is too late to seal it again.
    pub(super) fn seal_to_ask(&self, high: Sequence, now: UnixMs) -> Option<&Seal> {
        let last = self.command.seals.last()?;
        let is_late = now > self.command.order.deliver_by;
        let has_arrived = last.sequence <= high || (is_late && self.may_have_arrived(high));
        (self.sent.is_none() && !self.acknowledged && has_arrived).then_some(last)
    }

    /// The last seal whose number the host has behind it.
    pub(super) fn seal_passed(&self, high: Sequence) -> Option<&Seal> {
        self.command.seals.iter().rev().find(|seal| seal.sequence <= high)
    }

    /// Sent, and nothing heard.
    pub(super) fn is_unacknowledged(&self) -> bool {
        self.sent.is_some() && !self.acknowledged
    }

    pub(super) fn is_cancel(&self) -> bool {
        self.command.order.action.as_str() == CANCEL
    }

    /// The command that this one cancels.
    pub(super) fn cancels(&self) -> Option<CommandId> {
        let order = &self.command.order;
        match Request::decode(&order.action, order.action_version, &order.parameters) {
            Ok(Request::CommandCancel(cancel)) => Some(cancel.command_id),
            _ => None,
        }
    }

    /// Whether the sequence is one under which it was sealed.
    pub(super) fn has_sequence(&self, sequence: Sequence) -> bool {
        self.command.seals.iter().any(|seal| seal.sequence == sequence)
    }

    /// From when on it can no longer reach its host: its deadline, and the end of every seal.
    pub(super) fn undeliverable_after(&self) -> UnixMs {
        let seals = self.command.seals.iter().map(|seal| seal.expires);
        seals.fold(self.command.order.deliver_by, UnixMs::max)
    }
}

/// Takes what was just read, and keeps what this session did with each command.
pub(super) fn merge(old: Vec<Slot>, read: Vec<Command>) -> Vec<Slot> {
    let mut old: std::collections::BTreeMap<CommandId, Slot> = old.into_iter().map(|slot| (slot.id(), slot)).collect();
    let renew = |command: Command| match old.remove(&command.order.command) {
        Some(slot) => Slot { command, ..slot },
        None => Slot::new(command),
    };
    read.into_iter().map(renew).collect()
}
