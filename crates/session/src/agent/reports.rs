//! Signing reports, sending them in order, and taking their acknowledgement.

use envelope::{
    Verified,
    messages::{Command, Report, ReportPosition, ReportStatus},
};
use ids::{CommandId, ReportSequence, Sha256};

use super::{
    AgentLoop, Clocks, QuarantineState,
    end::{fitting, shortened},
    io::*,
    outbox::Acknowledged,
    run::JobState,
    writes::After,
};
use crate::{frames::AgentFrame, limits};

impl AgentLoop {
    /// Signs the next report of the chain. Its write must follow at once: the number is given out.
    pub(super) fn sign_report(&mut self, now: Clocks, command: &Verified<Command>, end: End) -> StoredReport {
        let end = fitting(end);
        let sequence = ReportSequence(self.outbox.last.sequence.0 + 1);
        let signed = self.identity.identity.sign(&Report {
            fleet: self.identity.fleet,
            host: self.identity.host,
            host_epoch: self.identity.host_epoch,
            command: command.order.command,
            command_sha256: command.payload_sha256(),
            command_sequence: command.sequence,
            sequence,
            previous: self.outbox.last.sha256,
            audit_head: self.audit.durable,
            status: end.status,
            finished_at: self.time(now).unwrap_or(now.wall),
            result: end.result,
            output_sha256: end.output_sha256,
            output_truncated: end.output_truncated,
        });
        let sha256 = signed.payload_sha256();
        self.outbox.last = ReportPosition { sequence, sha256 };
        StoredReport { command: command.order.command, sequence, sha256, envelope: signed.into_envelope() }
    }

    /// A command without an end gets one: signed, numbered and made durable. In quarantine, and while it is
    /// open by which key, it waits without a number.
    pub(super) fn end_job(&mut self, now: Clocks, id: CommandId, end: End) {
        let is_switching = self.is_switching();
        let Some(job) = self.jobs.get_mut(&id) else { return };
        job.state = JobState::Ending;
        if self.quarantine != QuarantineState::No || is_switching {
            self.unnumbered.push((id, end));
            return;
        }
        let (command, kind) = (job.command.clone(), job.admitted.kind.clone());
        if kind == AdmittedKind::Retire && end.status == ReportStatus::Succeeded {
            self.retirement = Some(Retirement::Reported);
        }
        let report = self.sign_report(now, &command, end);
        let write = self.end_write(id, &kind, report.clone());
        self.persist(write, After::Done { report });
    }

    /// Sends what the window lets through, in an open session.
    pub(super) fn send_reports(&mut self) {
        while self.is_live()
            && let Some(report) = self.outbox.next()
        {
            self.send(AgentFrame::Report(report));
        }
    }

    /// Asks for the next of the reports that the control plane lost, if it lost any.
    pub(super) fn read_lost(&mut self) {
        if let Some((first, last)) = self.outbox.lost_to_read() {
            self.out.push(Effect::ReadReports { first, last });
        }
    }

    pub(super) fn report_acknowledged(&mut self, sequence: ReportSequence, sha256: Sha256) {
        match self.outbox.acknowledge(sequence, sha256) {
            Acknowledged::Oldest => {
                self.persist(JournalWrite::Acknowledge { sequence }, After::Acknowledged(sequence));
            }
            Acknowledged::Known => self.read_lost(),
            Acknowledged::TooEarly { missing } => {
                self.reject("acknowledgement", format!("it is for report {sequence}, and {missing} is missing there"));
            }
            Acknowledged::Differs => {
                self.reject("acknowledgement", format!("it holds another report {sequence} than this host sent"));
            }
        }
    }

    /// Output of a running command, for whoever watches: lost when nobody is there.
    pub(super) fn progress(&mut self, command: CommandId, text: String) {
        let running = self.jobs.get(&command).is_some_and(|job| job.state == JobState::Running);
        if running && self.is_live() {
            let text = match shortened(&text, limits::PROGRESS_BYTES_MAX) {
                whole if whole.len() == text.len() => text,
                part => part.to_owned(),
            };
            self.send(AgentFrame::Progress { command, text });
        }
    }

    /// A piece of a running command's stream. Nothing rests on it, and nothing is kept of it.
    pub(super) fn output(&mut self, command: CommandId, offset: u64, text: String) {
        let running = self.jobs.get(&command).is_some_and(|job| job.state == JobState::Running);
        if running && self.is_live() && text.len() <= limits::OUTPUT_BYTES_MAX {
            self.send(AgentFrame::Output { command, offset, text });
        }
    }

    /// Somebody watches, or nobody does any more. Of a command that does not run it means nothing.
    pub(super) fn output_lease(&mut self, command: CommandId, until: u64, over: bool) {
        if self.jobs.get(&command).is_some_and(|job| job.state == JobState::Running) {
            self.out.push(Effect::OutputLease { command, until, over });
        }
    }
}
