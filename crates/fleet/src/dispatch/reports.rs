//! A host's reports: verified, placed in its chain, matched with the order they answer, stored, and
//! only then acknowledged.
//!
//! A report is one of four things. *Next* in the chain: it ends its command. *Again*: the
//! acknowledgement was lost; it is acknowledged again. *Fork*: another report in a place that is
//! taken, or one that does not follow from the last; the host is quarantined and the session ends.
//! *After a gap*: reports in between are missing here; that is recorded and the report is taken. A
//! next report whose command is unknown here (this control plane lost it), or has an end already,
//! moves the chain on and is kept in the audit log alone: the host has done its part, and an
//! unacknowledged report would keep a place in its outbox for ever.

use envelope::{
    Verified,
    audit::AuditKind,
    messages::{Report, ReportPosition, ReportStatus},
};
use ids::{CommandId, OperationId, UnixMs};
use serde::Deserialize;
use session::{
    control::{ReportVerdict, judge_report},
    frames::{ControlFrame, RefusalCode},
};

use super::{
    Effect, Entropy, HostSession, Note,
    lane::{After, Busy},
    retirement,
};
use crate::{
    command::CommandEvent,
    limits,
    model::{Command, CommandStatus, Host, HostStanding, NewCommand, Operation, Seal},
    operation::{app_change, may_have_next, operation_next},
    ports::{AuditEntry, Event, KeptReport, Settlement, StoreError, Write},
    record,
};

/// Whether what is known of a command was read for this report, or with the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Read {
    Before,
    Now,
}

/// What a stored report changes here.
pub(super) struct Settled {
    /// The report's own place.
    acknowledged: ReportPosition,
    /// Where the host's chain stands with it.
    position: ReportPosition,
    command_sequence: ids::Sequence,
    ended: Option<EndedCommand>,
    has_follow_up: bool,
    /// The host has left the fleet with it.
    retires: bool,
    note: Option<Note>,
    /// Why the host is to be quarantined for it.
    quarantine: Option<String>,
}

struct EndedCommand {
    command: CommandId,
    operation: OperationId,
    status: CommandStatus,
    message: String,
}

/// The result part of a report: UTF-8 JSON `{message, result}`.
#[derive(Default, Deserialize)]
struct ReportResult {
    #[serde(default)]
    message: String,
    #[serde(default)]
    result: serde_json::Value,
}

impl ReportResult {
    /// What cannot be read is left out; the report itself is kept whole.
    fn read(report: &Report) -> Self {
        let mut read: Self = serde_json::from_slice(&report.result).unwrap_or_default();
        if read.message.is_empty() && report.status == ReportStatus::Revoked {
            read.message = "its signing key or epoch was revoked before it started; order it again".to_owned();
        }
        if let Some((at, _)) = read.message.char_indices().nth(limits::MESSAGE_CHARS_MAX) {
            read.message.truncate(at);
            read.message.push('…');
        }
        read
    }
}

impl HostSession {
    /// Deals with the first report in the queue, as far as it goes without reading.
    pub(super) fn report_next(&mut self, now: UnixMs, entropy: &mut dyn Entropy) {
        let (Some(envelope), Some(host)) = (self.reports.front(), &self.host) else {
            return;
        };
        let report = match self.keys.open(envelope) {
            Ok(report) => report,
            Err(error) => {
                return self.report_refused(format!("a report of host {} does not verify: {error}", host.name), now);
            }
        };
        if let Some(why) = self.report_key_fault(&report) {
            return self.report_refused(why, now);
        }
        let known = self.slots.iter().find(|slot| slot.id() == report.command);
        match known.map(|slot| slot.command.clone()) {
            Some(command) if report.sequence >= host.last_report.sequence => {
                self.report_placed(report, Some(command), Read::Before, now, entropy);
            }
            // What is stored of it must be compared.
            _ => self.read_command(report),
        }
    }

    fn read_command(&mut self, report: Verified<Report>) {
        self.out.push(Effect::LoadCommand(report.command));
        self.lane.busy = Busy::LoadingCommand(Box::new(report));
    }

    /// The command of the first report was read.
    pub(super) fn command_loaded(
        &mut self,
        answer: Result<Option<Command>, StoreError>,
        now: UnixMs,
        entropy: &mut dyn Entropy,
    ) {
        if !matches!(self.lane.busy, Busy::LoadingCommand(_)) {
            return;
        }
        let Busy::LoadingCommand(report) = core::mem::replace(&mut self.lane.busy, Busy::Idle) else { return };
        match answer {
            Err(error) => self.store_failed("reading a command", error, now),
            Ok(command) => {
                self.lane.retry.ready();
                self.report_placed(*report, command, Read::Now, now, entropy);
            }
        }
    }

    /// A verified report, and what is stored of its command.
    fn report_placed(
        &mut self,
        report: Verified<Report>,
        command: Option<Command>,
        read: Read,
        now: UnixMs,
        entropy: &mut dyn Entropy,
    ) {
        let Some(host) = &self.host else { return };
        let recorded = command.as_ref().and_then(|command| self.stored_position(command));
        let recorded = recorded.filter(|stored| stored.sequence == report.sequence).map(|stored| stored.sha256);
        let id = report.command;
        match (judge_report(host.last_report, &report, report.payload_sha256(), recorded), command) {
            (ReportVerdict::Duplicate, _) => self.report_again(&report),
            (ReportVerdict::Fork, _) => self.report_fork(&report, now),
            (_, Some(command)) if command.order.host == self.host_id() && !command.status.is_end() => {
                self.report_of(report, command, read, now, entropy);
            }
            // Nothing depends on it any more, and the chain has gone on.
            (ReportVerdict::Late, _) => self.report_again(&report),
            // Its seal was lost with the control plane, so nobody can say that it answers the command that ended.
            (_, Some(command)) if self.is_lost(&report) && command.order.host == self.host_id() => {
                self.report_lost(&report, now);
            }
            (_, Some(command)) if command.order.host == self.host_id() => {
                let why = format!("command {id} had ended as {} before its host reported on it", command.status);
                self.report_keep(&report, Note::Report(why), None, now);
            }
            (_, Some(_)) => {
                let why = format!("it reported on command {id}, which is another host's");
                self.report_keep(&report, Note::Alarm(why.clone()), Some(why), now);
            }
            (_, None) if self.is_lost(&report) => self.report_lost(&report, now),
            (_, None) => {
                let why = format!("it reported on command {id}, which is unknown here");
                self.report_keep(&report, Note::Alarm(why), None, now);
            }
        }
    }

    /// It was authentic as a session, and then said something that is not: recorded, and the end.
    fn report_refused(&mut self, why: String, now: UnixMs) {
        self.reports.clear();
        let Some(host) = &self.host else { return };
        let audit = record::host_event(AuditKind::Alarm, host.id, &host.name, &why, now);
        self.write_first(Write::Audit(audit), After::Alarmed { why, close: RefusalCode::NotAuthentic });
    }

    fn acknowledge(&mut self, position: ReportPosition) {
        self.reports.pop_front();
        self.send_audit_head();
        self.send(ControlFrame::ReportAcknowledged { sequence: position.sequence, sha256: position.sha256 });
    }

    pub(super) fn report_again(&mut self, report: &Verified<Report>) {
        self.note(Note::Report(format!("report {} came again", report.sequence)));
        self.acknowledge(position_of(report));
    }

    fn report_fork(&mut self, report: &Verified<Report>, now: UnixMs) {
        self.reports.clear();
        let why = format!("it sent another report {} than follows from what is stored here", report.sequence);
        self.note(Note::Alarm(why.clone()));
        self.is_forked = true;
        // A host that is quarantined already keeps its session: sent away, it would come back at once and say the same,
        // and each time a leaf would be written.
        let is_known = self.host.as_ref().is_some_and(|host| host.standing != HostStanding::Active);
        let close = (!is_known).then_some(RefusalCode::Quarantined);
        self.quarantine_as(AuditKind::Fork, why, close, now);
    }

    /// Position of the report that a command was settled by.
    fn stored_position(&self, command: &Command) -> Option<ReportPosition> {
        let envelope = command.report.as_ref()?;
        let report = self.keys.open(envelope).ok()?;
        Some(position_of(&report))
    }

    fn report_of(
        &mut self,
        report: Verified<Report>,
        command: Command,
        read: Read,
        now: UnixMs,
        entropy: &mut dyn Entropy,
    ) {
        let is_ours =
            |seal: &Seal| seal.payload_sha256 == report.command_sha256 && seal.sequence == report.command_sequence;
        if !command.seals.iter().any(is_ours) {
            if read == Read::Before {
                // Before an alarm is raised, what is stored now is asked.
                return self.read_command(report);
            }
            if self.is_lost(&report) {
                // Sealed once more after the backup was made. That it had been given out before is known here, and so it ends.
                return match command.status {
                    CommandStatus::Held | CommandStatus::Queued => self.report_lost(&report, now),
                    _ => self.settle(&report, &command, None, now, entropy),
                };
            }
            let why =
                format!("it reported on command {}, but on other signed bytes than were made here", report.command);
            return self.report_keep(&report, Note::Alarm(why.clone()), Some(why), now);
        }
        if may_have_next(&command, CommandStatus::from(report.status)) {
            self.out.push(Effect::LoadOperation(command.order.operation));
            self.lane.busy = Busy::LoadingOperation(Box::new(report), Box::new(command));
            return;
        }
        self.settle(&report, &command, None, now, entropy);
    }

    /// The operation of the first report's command was read.
    pub(super) fn operation_loaded(
        &mut self,
        answer: Result<Option<Operation>, StoreError>,
        now: UnixMs,
        entropy: &mut dyn Entropy,
    ) {
        if !matches!(self.lane.busy, Busy::LoadingOperation(..)) {
            return;
        }
        let Busy::LoadingOperation(report, command) = core::mem::replace(&mut self.lane.busy, Busy::Idle) else {
            return;
        };
        match answer {
            Err(error) => self.store_failed("reading an operation", error, now),
            Ok(operation) => self.settle(&report, &command, operation.as_ref(), now, entropy),
        }
    }

    /// One transaction: report, status, next stage, list of apps, audit leaves.
    fn settle(
        &mut self,
        report: &Verified<Report>,
        command: &Command,
        operation: Option<&Operation>,
        now: UnixMs,
        entropy: &mut dyn Entropy,
    ) {
        let Some(host) = &self.host else { return };
        let mut status = match command.status.after(CommandEvent::Report(report.status)) {
            Ok(status) => status,
            Err(error) => return self.report_keep(report, Note::Report(error.to_string()), None, now),
        };
        let ReportResult { mut message, result } = ReportResult::read(report);
        let mut audit = self.report_leaves(report, now);
        audit.extend(self.lost_remark(report, now));
        let mut follow_up = Vec::new();
        // What was asked for before a restore is not carried on: nobody knows whether it was called off since.
        if let Some(operation) = operation.filter(|_| !self.is_void(&command.order)) {
            match self.next_stage(operation, command, status, &result, now, entropy) {
                Ok(next) => follow_up = next,
                Err(why) => (status, message) = (CommandStatus::Failed, why),
            }
            if !follow_up.is_empty() {
                audit.push(record::proposal(operation, &follow_up, None, 2, record::CONTROL_PLANE.to_owned(), now));
            }
        }
        let retires = retirement::retires(command, status);
        if retires {
            audit.push(record::host_retired(host, report.command, now));
        }
        let position = self.position_with(report, host);
        let settled = Settled {
            acknowledged: position_of(report),
            position,
            command_sequence: report.command_sequence,
            retires,
            ended: Some(EndedCommand {
                command: report.command,
                operation: command.order.operation,
                status,
                message: message.clone(),
            }),
            has_follow_up: !follow_up.is_empty(),
            note: None,
            quarantine: None,
        };
        let settlement = Settlement {
            host: host.id,
            expected_last: host.last_report,
            position,
            envelope: report.envelope().to_vec(),
            command: report.command,
            sequence: report.command_sequence,
            status,
            message,
            audit_head: report.audit_head,
            at: now,
            follow_up,
            app: app_change(command, status, &result, now),
            audit,
        };
        let settlement = Box::new(settlement);
        let write = if retires { Write::HostRetire(settlement) } else { Write::CommandSettle(settlement) };
        self.write(write, After::Settled(Box::new(settled)));
    }

    /// What follows from a command that ended, or why nothing can.
    fn next_stage(
        &self,
        operation: &Operation,
        command: &Command,
        status: CommandStatus,
        result: &serde_json::Value,
        now: UnixMs,
        entropy: &mut dyn Entropy,
    ) -> Result<Vec<NewCommand>, String> {
        let Some(host) = &self.host else { return Ok(Vec::new()) };
        let mut ids = || {
            let mut random = [0; 10];
            entropy.fill(&mut random);
            CommandId::new_v7(now, random)
        };
        match operation_next(operation, host, command, status, result, now, &mut ids) {
            Ok(next) if self.takes_approvals() || next.iter().all(|new| new.held.is_none()) => Ok(next),
            Ok(_) => Err(format!("the plan succeeded, but {}", self.approvals_missing())),
            Err(error) => Err(format!("the plan succeeded, but it could not be ordered: {error}")),
        }
    }

    /// The leaf of a report, and one for what is missing before it.
    fn report_leaves(&self, report: &Verified<Report>, now: UnixMs) -> Vec<AuditEntry> {
        let Some(host) = &self.host else { return Vec::new() };
        let mut leaves = vec![record::report(report.command, &host.name, report.envelope().to_vec(), now)];
        let verdict = judge_report(host.last_report, report, report.payload_sha256(), None);
        if let ReportVerdict::Gap { first_missing } = verdict {
            let why = format!("reports from {first_missing} to before {} are missing here", report.sequence);
            leaves.push(record::host_event(AuditKind::ReportGap, host.id, &host.name, &why, now));
        }
        leaves
    }

    /// Where the chain stands with this report: it never goes back.
    fn position_with(&self, report: &Verified<Report>, host: &Host) -> ReportPosition {
        if report.sequence < host.last_report.sequence { host.last_report } else { position_of(report) }
    }

    /// A report that ends nothing moves the chain on, and stays in the audit log.
    pub(super) fn report_keep(
        &mut self,
        report: &Verified<Report>,
        note: Note,
        quarantine: Option<String>,
        now: UnixMs,
    ) {
        let Some(host) = &self.host else { return };
        let why = if let Note::Alarm(why) = &note { Some(why.as_str()) } else { None };
        let remark = why.map(|why| record::host_event(AuditKind::Alarm, host.id, &host.name, why, now));
        self.report_keep_as(report, note, remark, quarantine, now);
    }

    /// The same, with an entry of one's own that says what is wrong with it.
    pub(super) fn report_keep_as(
        &mut self,
        report: &Verified<Report>,
        note: Note,
        remark: Option<AuditEntry>,
        quarantine: Option<String>,
        now: UnixMs,
    ) {
        let mut audit = self.report_leaves(report, now);
        audit.extend(remark);
        let Some(host) = &self.host else { return };
        let position = self.position_with(report, host);
        // Nothing was signed above what was allocated: a number beyond it is not believed.
        let sequence = report.command_sequence.min(host.allocated);
        let kept = KeptReport {
            host: host.id,
            expected_last: host.last_report,
            position,
            sequence,
            audit_head: report.audit_head,
            audit,
        };
        let settled = Settled {
            acknowledged: position_of(report),
            position,
            command_sequence: sequence,
            ended: None,
            has_follow_up: false,
            retires: false,
            note: Some(note),
            quarantine,
        };
        self.write(Write::ReportKeep(Box::new(kept)), After::Settled(Box::new(settled)));
    }

    /// A report is durable: now it is acknowledged.
    pub(super) fn settled(&mut self, settled: Settled, now: UnixMs) {
        let Settled { acknowledged, position, command_sequence, ended, has_follow_up, retires, note, quarantine } =
            settled;
        if let Some(host) = &mut self.host {
            host.last_report = position;
            host.acknowledged = host.acknowledged.max(command_sequence);
        }
        self.acknowledge(acknowledged);
        if let Some(note) = note {
            self.note(note);
        }
        if let Some(EndedCommand { command, operation, status, message }) = ended {
            self.slot_remove(command);
            let host = self.host_id();
            self.out.push(Effect::Publish(Event::Command { command, operation, host, status, message }));
        }
        self.lane.needs_load |= has_follow_up;
        if retires {
            self.out.push(Effect::Publish(Event::Host { host: self.host_id() }));
            return self.retired(now);
        }
        if let Some(why) = quarantine {
            self.quarantine(why, Some(RefusalCode::Quarantined), now);
        }
    }
}

fn position_of(report: &Verified<Report>) -> ReportPosition {
    ReportPosition { sequence: report.sequence, sha256: report.payload_sha256() }
}
