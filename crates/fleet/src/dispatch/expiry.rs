//! Commands that can no longer reach their host: a forgotten order never fires weeks later, and a
//! person who looks sees how it ended.

use ids::UnixMs;

use super::{HostSession, lane::After, slot::Slot};
use crate::{
    command::CommandEvent,
    model::{Command, CommandStatus},
    ports::Write,
    record,
};

/// The transactions that end queued and held commands whose time has passed, of whatever hosts; for a timer
/// over hosts that have no session. A conflict means that something else came first: ignore it.
#[must_use]
pub fn expire_queued(now: UnixMs, commands: &[Command]) -> Vec<Write> {
    let is_late = |command: &&Command| {
        matches!(command.status, CommandStatus::Held | CommandStatus::Queued) && now > command.order.deliver_by
    };
    commands.iter().filter(is_late).filter_map(|command| expired(command, now).map(|(write, ..)| write)).collect()
}

fn expired(command: &Command, now: UnixMs) -> Option<(Write, CommandStatus, String)> {
    let message = match command.status {
        CommandStatus::Held => {
            "not enough people approved it in time, so it was never sent and never ran; order it again, or with \
             --queue-for to let it wait longer"
                .to_owned()
        }
        _ => format!(
            "it never reached host {} before its deadline and never ran; order it again when the host is back, or with \
             --queue-for to let it wait longer",
            command.host_name
        ),
    };
    ended(command, CommandEvent::ExpiredUndelivered, message, now)
}

fn refused(command: &Command, why: &str, now: UnixMs) -> Option<(Write, CommandStatus, String)> {
    let message = format!("the control plane's signer refused it, so it was never sent and never ran: {why}");
    ended(command, CommandEvent::RefusedBySigner, message, now)
}

/// The end of a command that its host never got, with the leaf that says why. `None` when it cannot end so.
pub(super) fn ended(
    command: &Command,
    event: CommandEvent,
    message: String,
    now: UnixMs,
) -> Option<(Write, CommandStatus, String)> {
    let status = command.status.after(event).ok()?;
    let audit = record::command_settled(command, &message, now);
    let write = Write::CommandEnd {
        command: command.order.command,
        from: vec![command.status],
        status,
        message: message.clone(),
        at: now,
        audit,
    };
    Some((write, status, message))
}

impl HostSession {
    /// Ends the first command that the signer will never sign. One that was sealed before may have arrived:
    /// it waits for its deadline. False when there is none.
    pub(super) fn refuse_next(&mut self, now: UnixMs) -> bool {
        let end = |slot: &Slot| slot.refused.as_deref().and_then(|why| refused(&slot.command, why, now));
        let found = self.slots.iter().find_map(|slot| Some((slot.id(), end(slot)?)));
        let Some((command, (write, status, message))) = found else { return false };
        self.write(write, After::Ended { command, status, message });
        true
    }

    /// When this command is to be ended as undeliverable, if it waits for that.
    pub(super) fn expires_at(&self, slot: &Slot) -> Option<UnixMs> {
        if slot.sealing {
            return None;
        }
        match slot.command.status {
            CommandStatus::Held | CommandStatus::Queued => Some(slot.command.order.deliver_by),
            // Only a hello that can be believed says that a sealed command never arrived, and only
            // when it lies below every seal; otherwise the host is asked.
            CommandStatus::Delivered
                if self.takes_orders() && slot.is_unsent(self.high()) && !slot.may_have_arrived(self.high()) =>
            {
                Some(slot.undeliverable_after())
            }
            _ => None,
        }
    }

    /// Ends the first command whose time has passed. False when there is none.
    pub(super) fn expire_next(&mut self, now: UnixMs) -> bool {
        let is_late = |slot: &&Slot| self.expires_at(slot).is_some_and(|at| now > at);
        let Some(slot) = self.slots.iter().find(is_late) else { return false };
        let command = slot.id();
        let Some((write, status, message)) = expired(&slot.command, now) else { return false };
        self.write(write, After::Ended { command, status, message });
        true
    }
}
