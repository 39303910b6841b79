//! What each durable write does to the durable state. The real journal is tested against this, and
//! the simulation uses it as its disk, so there is one definition of what a transaction means.

use envelope::{guard::raise_high, messages::ReportPosition};
use ids::CommandId;

use super::io::{
    Burn, JournalState, JournalWrite, OpenCommand, ResetTaken, Retirement, RingEntry, StandingChange, StoredReport,
};
use crate::frames::Stage;

impl JournalState {
    /// Applies one transaction.
    pub fn apply(&mut self, write: &JournalWrite) {
        match write {
            JournalWrite::Accept { entry, command, sealed, approvals, burn, evict } => {
                self.remember(entry, *evict);
                if let Some(Burn { burned, forget_before }) = burn {
                    self.burned.retain(|old| old.until >= *forget_before);
                    self.burned.push(burned.clone());
                }
                let open = OpenCommand {
                    command: command.clone(),
                    sealed: sealed.clone(),
                    approvals: approvals.clone(),
                    stage: Stage::Accepted,
                    resumptions: 0,
                    cancelled_by: None,
                    id: entry.command,
                };
                self.open.push(open);
            }
            JournalWrite::Refuse { entry, report, evict } => {
                self.remember(entry, *evict);
                self.store_report(report);
            }
            JournalWrite::Start { command } => {
                for open in self.open.iter_mut().filter(|open| open.id == *command) {
                    open.stage = Stage::Started;
                }
                self.set_stage(*command, Stage::Started);
            }
            JournalWrite::Resume { command } => {
                for open in self.open.iter_mut().filter(|open| open.id == *command) {
                    open.resumptions += 1;
                }
            }
            JournalWrite::Done { command, report } => self.end(*command, report),
            JournalWrite::Cancel { command, target, report } => self.cancel(*command, *target, report),
            JournalWrite::Retire { .. } => {
                self.retirement = Some(Retirement::Begun);
                self.open.iter_mut().for_each(|open| open.sealed.clear());
                self.standing.clear();
            }
            JournalWrite::Retired { command, report } => {
                self.retirement = Some(Retirement::Reported);
                self.end(*command, report);
            }
            JournalWrite::Acknowledge { sequence } => self.outbox.retain(|report| report.sequence > *sequence),
            JournalWrite::Root { envelope, .. } => self.root_chain.push(envelope.clone()),
            JournalWrite::AuditHead { position, proved } => {
                self.audit_head = Some(*position);
                self.audit_proved |= *proved;
            }
            JournalWrite::Quarantine { id } => self.quarantine = Some(*id),
            JournalWrite::Clock { clock } => self.clock = Some(*clock),
            JournalWrite::KeyOffer { host_epoch, reset, .. } => {
                self.keys_offered = self.keys_offered.max(Some(*host_epoch));
                self.reset.clone_from(reset);
            }
            JournalWrite::KeyReceipt { .. } => {}
            JournalWrite::Standing { command, change, report } => {
                self.change_standing(change);
                self.end(*command, report);
            }
            JournalWrite::KeysTaken { host_epoch, since, reset, done } => {
                (self.host_epoch, self.keys_since) = (Some(*host_epoch), Some(*since));
                reset.iter().for_each(|reset| self.start_anew(reset));
                done.iter().for_each(|report| self.end(report.command, report));
            }
        }
    }

    fn cancel(&mut self, cancel: CommandId, target: CommandId, report: &StoredReport) {
        for open in self.open.iter_mut().filter(|open| open.id == target) {
            open.cancelled_by.get_or_insert(cancel);
        }
        self.end(cancel, report);
    }

    fn change_standing(&mut self, change: &StandingChange) {
        let (order, revision, put) = match change {
            StandingChange::Put { standing, revision } => (standing.order, *revision, Some(standing)),
            StandingChange::Drop { order, revision } => (*order, *revision, None),
        };
        self.standing_revision = self.standing_revision.max(revision);
        self.standing.retain(|standing| standing.order != order);
        self.standing.extend(put.cloned());
        self.standing.sort_by_key(|standing| standing.order);
    }

    fn start_anew(&mut self, reset: &ResetTaken) {
        self.quarantine = None;
        self.standing.clear();
        self.high = self.high.max(reset.high);
        self.last_report = Some(reset.last_report).filter(|last| *last != ReportPosition::START);
        self.outbox.clear();
        for report in &reset.outbox {
            self.store_report(report);
        }
    }

    fn end(&mut self, command: CommandId, report: &StoredReport) {
        self.open.retain(|open| open.id != command);
        self.set_stage(command, Stage::Done);
        self.store_report(report);
    }

    fn remember(&mut self, entry: &RingEntry, evict: Option<CommandId>) {
        self.high = raise_high(self.high, entry.sequence);
        self.ring.retain(|known| Some(known.command) != evict);
        self.ring.push(entry.clone());
    }

    fn set_stage(&mut self, command: CommandId, stage: Stage) {
        for entry in self.ring.iter_mut().filter(|entry| entry.command == command) {
            entry.stage = stage;
        }
    }

    fn store_report(&mut self, report: &StoredReport) {
        self.last_report = Some(ReportPosition { sequence: report.sequence, sha256: report.sha256 });
        self.outbox.push(report.clone());
    }
}
