//! A session under a control plane that was restored from a backup: what was asked for before that never goes out, and
//! reports on what it forgot are kept, not held against the host.

use envelope::{
    Verified,
    audit::AuditKind,
    messages::{Order, Report},
};
use ids::UnixMs;

use super::{HostSession, Note, expiry::ended, lane::After, slot::Slot};
use crate::{
    command::CommandEvent,
    model::{Command, CommandStatus},
    ports::{AuditEntry, Write},
    record,
};

/// The transactions that cancel held and queued commands which were proposed before that time, of whatever hosts. A conflict means
/// that something else came first: ignore it.
#[must_use]
pub fn cancel_void(restored_at: UnixMs, now: UnixMs, commands: &[Command]) -> Vec<Write> {
    let is_void = |command: &&Command| {
        matches!(command.status, CommandStatus::Held | CommandStatus::Queued) && command.order.proposed_at < restored_at
    };
    commands.iter().filter(is_void).filter_map(|command| voided(command, now).map(|(write, ..)| write)).collect()
}

/// How a command ends that its host never got: cancelled if it never had a number, else expired.
fn voided(command: &Command, now: UnixMs) -> Option<(Write, CommandStatus, String)> {
    let event = match command.status {
        CommandStatus::Held | CommandStatus::Queued => CommandEvent::CancelledBeforeSealing,
        _ => CommandEvent::ExpiredUndelivered,
    };
    let message = "it was proposed before this control plane was restored from a backup, and is never sent from here; if it was \
                   given out after the backup was made, its host's report is in the audit log. Order it again if it is still wanted"
        .to_owned();
    ended(command, event, message, now)
}

fn lost_words(report: &Report) -> String {
    format!(
        "command {} was sealed as {} after the backup was made from which this control plane was restored; its order is lost",
        report.command, report.command_sequence
    )
}

impl HostSession {
    /// Whether it was proposed before the last restore from a backup: agents refuse it, and it is not sealed.
    pub(super) fn is_void(&self, order: &Order) -> bool {
        self.peer.root.restored_at().is_some_and(|restored| order.proposed_at < restored)
    }

    /// Ends the first void command that the host never got. What it may have got, it says itself how it ended. False when there
    /// is none.
    pub(super) fn void_next(&mut self, now: UnixMs) -> bool {
        let high = self.high();
        let is_due = |slot: &&Slot| {
            self.is_void(&slot.command.order)
                && !slot.sealing
                && (matches!(slot.command.status, CommandStatus::Held | CommandStatus::Queued)
                    || (self.takes_orders() && slot.is_unsent(high) && !slot.may_have_arrived(high)))
        };
        let Some(slot) = self.slots.iter().find(is_due) else { return false };
        let command = slot.id();
        let Some((write, status, message)) = voided(&slot.command, now) else { return false };
        self.write(write, After::Ended { command, status, message });
        true
    }

    /// Whether it is about a command that was sealed after the backup was made, so that its seal is not here.
    pub(super) fn is_lost(&self, report: &Verified<Report>) -> bool {
        self.peer.recovery.host.as_ref().is_some_and(|host| host.is_lost(report.command_sequence))
    }

    /// Kept with an entry that says why there is no order for it.
    pub(super) fn report_lost(&mut self, report: &Verified<Report>, now: UnixMs) {
        let Some(host) = &self.host else { return };
        if report.sequence <= host.last_report.sequence {
            return self.report_again(report);
        }
        let remark = self.lost_remark(report, now);
        self.report_keep_as(report, Note::Report(lost_words(report)), remark, None, now);
    }

    /// What stands in the log right behind a report whose order's seal is lost: nobody can check there what it answers.
    pub(super) fn lost_remark(&self, report: &Verified<Report>, now: UnixMs) -> Option<AuditEntry> {
        let host = self.host.as_ref().filter(|_| self.is_lost(report))?;
        Some(record::host_event(AuditKind::Alarm, host.id, &host.name, &lost_words(report), now))
    }
}
