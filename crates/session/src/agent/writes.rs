//! What each durable write releases. Writes are numbered, acknowledged in order, and only their
//! acknowledgement lets frames and starts out.

use envelope::{guard::raise_high, messages::LogPosition};
use ids::{CommandId, HostEpoch, ReportSequence, RootVersion, Sha256};

use super::{AgentLoop, Turn, io::*, run::JobState};
use crate::frames::{AgentFrame, Stage};

/// What to do once a write is durable.
pub(super) enum After {
    Nothing,
    Accepted(CommandId),
    Refused { report: StoredReport, why: String },
    Started(CommandId),
    Resumed(CommandId),
    Done { report: StoredReport },
    Cancelled { report: StoredReport, target: CommandId },
    Acknowledged(ReportSequence),
    Root(RootVersion),
    AuditHead(LogPosition),
    Quarantine,
    KeyOffer(Sha256),
    KeyReceipt,
    RetireBegun,
    KeysTaken { host_epoch: HostEpoch, reset: Option<ResetTaken>, done: Vec<StoredReport> },
}

impl AgentLoop {
    pub(super) fn persist(&mut self, write: JournalWrite, after: After) {
        let id = WriteId(self.writes_next);
        self.writes_next += 1;
        self.writes.push_back((id, after));
        self.out.push(Effect::Persist(id, write));
    }

    /// Writes up to `id` are durable.
    pub(super) fn persisted(&mut self, turn: &Turn<'_, impl Admission>, id: WriteId) {
        while self.writes.front().is_some_and(|(front, _)| *front <= id) {
            if let Some((_, after)) = self.writes.pop_front() {
                self.release(turn, after);
            }
        }
    }

    fn release(&mut self, turn: &Turn<'_, impl Admission>, after: After) {
        match after {
            After::Nothing => {}
            After::Accepted(command) => self.accepted_durable(command),
            After::Refused { report, why } => self.refused_durable(report, why),
            After::Started(command) => self.started_durable(turn.now, command),
            After::Resumed(command) => self.run_job(turn.now, command),
            After::Done { report } => self.done_durable(report),
            After::Cancelled { report, target } => {
                self.ask_to_stop(target, report.command);
                self.done_durable(report);
            }
            After::Acknowledged(sequence) => self.event(AgentEvent::Acknowledged { sequence }),
            After::Root(version) => self.root_durable(version),
            After::AuditHead(position) => self.audit_head_durable(position),
            After::Quarantine => self.quarantine_durable(),
            After::KeyOffer(rotation) => self.key_offer_durable(rotation),
            After::KeyReceipt => self.key_receipt_durable(),
            After::RetireBegun => self.retire_begun(),
            After::KeysTaken { host_epoch, reset, done } => {
                self.event(AgentEvent::KeysTaken { host_epoch });
                if let Some(reset) = reset {
                    self.reset_durable(reset);
                }
                for report in done {
                    self.done_durable(report);
                }
            }
        }
    }

    fn accepted_durable(&mut self, command: CommandId) {
        let Some(job) = self.jobs.get_mut(&command) else { return };
        // A cancel that overtook it may have ended it already.
        if job.state == JobState::Accepting {
            job.state = JobState::Waiting;
            self.waiting.push_back(command);
        }
        let sequence = job.command.sequence;
        self.sequence_durable(command);
        self.event(AgentEvent::Accepted { command, sequence });
        if self.is_live() {
            self.send(AgentFrame::Accepted { command, sequence, stage: Stage::Accepted });
        }
    }

    fn done_durable(&mut self, report: StoredReport) {
        self.guard.memory.set_stage(report.command, Stage::Done);
        self.jobs.remove(&report.command);
        self.outbox.store(report);
    }

    fn refused_durable(&mut self, report: StoredReport, why: String) {
        let command = report.command;
        self.sequence_durable(command);
        self.refusals_pending -= 1;
        self.outbox.store(report);
        self.event(AgentEvent::Refused { command, why });
    }

    /// The ring's entry of this command is durable, and with it the highest sequence it raised.
    fn sequence_durable(&mut self, command: CommandId) {
        self.guard.pending.remove(&command);
        if let Some(entry) = self.guard.memory.get(command) {
            self.guard.durable_high = raise_high(self.guard.durable_high, entry.sequence);
        }
    }

    fn started_durable(&mut self, now: Clocks, command: CommandId) {
        self.guard.memory.set_stage(command, Stage::Started);
        if self.is_live()
            && let Some(job) = self.jobs.get(&command)
        {
            let sequence = job.command.sequence;
            self.send(AgentFrame::Accepted { command, sequence, stage: Stage::Started });
        }
        self.run_job(now, command);
    }
}
