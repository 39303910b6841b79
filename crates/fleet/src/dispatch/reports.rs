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
    verify,
};
use ids::{CommandId, OperationId, ReportSequence, UnixMs};
use serde::Deserialize;
use session::frames::{ControlFrame, RefusalCode};

use super::{
    Effect, Entropy, HostSession, Note,
    lane::{After, Busy},
};
use crate::{
    command::CommandEvent,
    limits,
    model::{Command, CommandStatus, HostStanding, Operation},
    operation::{app_change, may_have_next, operation_next},
    ports::{AuditEntry, Event, KeptReport, Settlement, StoreError, Write},
    record,
};

/// Where a report belongs in its host's chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Next,
    AfterGap,
    Again,
    /// Before the last: the stored report must be compared.
    Earlier,
    Fork,
}

fn place(last: ReportPosition, report: &Verified<Report>) -> Place {
    let ReportPosition { sequence, sha256 } = last;
    if report.sequence < sequence {
        return Place::Earlier;
    }
    if report.sequence == sequence {
        return if report.payload_sha256() == sha256 { Place::Again } else { Place::Fork };
    }
    if Some(report.sequence) != sequence.next() {
        return Place::AfterGap;
    }
    if report.previous == sha256 { Place::Next } else { Place::Fork }
}

/// What a stored report changes here.
pub(super) struct Settled {
    position: ReportPosition,
    command_sequence: ids::Sequence,
    ended: Option<EndedCommand>,
    has_follow_up: bool,
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
        let (Some(envelope), Some(key), Some(host)) = (self.reports.front(), &self.identity, &self.host) else {
            return;
        };
        let report = match verify::<Report>(envelope, core::slice::from_ref(key)) {
            Ok(report) => report,
            Err(error) => {
                return self.report_refused(format!("a report of host {} does not verify: {error}", host.name), now);
            }
        };
        if (report.fleet, report.host, report.host_epoch) != (self.peer.fleet, host.id, host.host_epoch) {
            return self
                .report_refused(format!("host {} sent a report of another fleet, host or epoch", host.name), now);
        }
        match place(host.last_report, &report) {
            Place::Again => self.report_again(&report),
            Place::Fork => self.report_fork(&report, now),
            Place::Earlier => self.read_command(report),
            Place::Next | Place::AfterGap => {
                let known = self.slots.iter().find(|slot| slot.id() == report.command);
                match known.map(|slot| slot.command.clone()) {
                    Some(command) => self.report_of(report, command, now, entropy),
                    None => self.read_command(report),
                }
            }
        }
    }

    fn read_command(&mut self, report: Verified<Report>) {
        self.out.push(Effect::LoadCommand(report.command));
        self.lane.busy = Busy::LoadingCommand(Box::new(report));
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

    fn report_again(&mut self, report: &Verified<Report>) {
        self.note(Note::Report(format!("report {} came again", report.sequence)));
        self.acknowledge(position(report));
    }

    fn report_fork(&mut self, report: &Verified<Report>, now: UnixMs) {
        self.reports.clear();
        let why = format!("it sent another report {} than follows from what is stored here", report.sequence);
        self.note(Note::Alarm(why.clone()));
        self.quarantine_as(AuditKind::Fork, why, Some(RefusalCode::Quarantined), now);
    }

    /// The command of the first report was read.
    pub(super) fn command_loaded(&mut self, answer: Result<Option<Command>, StoreError>, now: UnixMs) {
        if !matches!(self.lane.busy, Busy::LoadingCommand(_)) {
            return;
        }
        let Busy::LoadingCommand(report) = core::mem::replace(&mut self.lane.busy, Busy::Idle) else { return };
        let command = match answer {
            Err(error) => return self.store_failed("reading a command", error, now),
            Ok(command) => command,
        };
        self.lane.retry.succeeded();
        let Some(host) = &self.host else { return };
        if report.sequence <= host.last_report.sequence {
            return match command.and_then(|command| self.stored_position(&command)) {
                Some(stored) if stored.sequence == report.sequence && stored != position(&report) => {
                    self.report_fork(&report, now);
                }
                // The same; or kept in the audit log alone, where nothing depends on it.
                _ => self.report_again(&report),
            };
        }
        let id = report.command;
        match command {
            Some(command) if command.order.host == self.peer.host && !command.status.is_end() => {
                // It was proposed or sealed since the queue was read.
                self.lane.needs_load = true;
                if !self.slots.iter().any(|slot| slot.id() == id) {
                    self.slots.push(super::slot::Slot::new(command));
                }
            }
            Some(command) if command.order.host == self.peer.host => {
                let why = format!("command {id} had ended as {} before its host reported on it", command.status);
                self.report_keep(&report, Note::Report(why), None, now);
            }
            Some(_) => {
                let why = format!("it reported on command {id}, which is another host's");
                self.report_keep(&report, Note::Alarm(why.clone()), Some(why), now);
            }
            None => {
                let why = format!("it reported on command {id}, which is unknown here");
                self.report_keep(&report, Note::Alarm(why), None, now);
            }
        }
    }

    /// Position of the report that a command was settled by.
    fn stored_position(&self, command: &Command) -> Option<ReportPosition> {
        let envelope = command.report.as_ref()?;
        let report = verify::<Report>(envelope, core::slice::from_ref(self.identity.as_ref()?)).ok()?;
        Some(position(&report))
    }

    fn report_of(&mut self, report: Verified<Report>, command: Command, now: UnixMs, entropy: &mut dyn Entropy) {
        let is_ours = |seal: &crate::model::Seal| {
            seal.payload_sha256 == report.command_sha256 && seal.sequence == report.command_sequence
        };
        if !command.seals.iter().any(is_ours) {
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
        let mut follow_up = Vec::new();
        if let Some(operation) = operation {
            let mut ids = || {
                let mut random = [0; 10];
                entropy.fill(&mut random);
                CommandId::new_v7(now, random)
            };
            match operation_next(operation, host, command, status, &result, now, &mut ids) {
                Ok(next) => follow_up = next,
                Err(error) => {
                    status = CommandStatus::Failed;
                    message = format!("the plan succeeded, but the deploy could not be ordered: {error}");
                }
            }
            if !follow_up.is_empty() {
                audit.push(record::proposal(operation, &follow_up, 2, record::CONTROL_PLANE.to_owned(), now));
            }
        }
        let position = position(report);
        let settled = Settled {
            position,
            command_sequence: report.command_sequence,
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
        self.write(Write::CommandSettle(Box::new(settlement)), After::Settled(Box::new(settled)));
    }

    /// The leaf of a report, and one for what is missing before it.
    fn report_leaves(&self, report: &Verified<Report>, now: UnixMs) -> Vec<AuditEntry> {
        let Some(host) = &self.host else { return Vec::new() };
        let mut leaves = vec![record::report(report.command, &host.name, report.envelope().to_vec(), now)];
        if place(host.last_report, report) == Place::AfterGap {
            let first = host.last_report.sequence.next().unwrap_or(ReportSequence(u64::MAX));
            let why = format!("reports {first} to before {} are missing here", report.sequence);
            leaves.push(record::host_event(AuditKind::ReportGap, host.id, &host.name, &why, now));
        }
        leaves
    }

    /// A report that ends nothing moves the chain on, and stays in the audit log.
    fn report_keep(&mut self, report: &Verified<Report>, note: Note, quarantine: Option<String>, now: UnixMs) {
        let mut audit = self.report_leaves(report, now);
        let Some(host) = &self.host else { return };
        if let Note::Alarm(why) = &note {
            audit.push(record::host_event(AuditKind::Alarm, host.id, &host.name, why, now));
        }
        let position = position(report);
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
            position,
            command_sequence: sequence,
            ended: None,
            has_follow_up: false,
            note: Some(note),
            quarantine,
        };
        self.write(Write::ReportKeep(Box::new(kept)), After::Settled(Box::new(settled)));
    }

    /// A report is durable: now it is acknowledged.
    pub(super) fn settled(&mut self, settled: Settled, now: UnixMs) {
        let Settled { position, command_sequence, ended, has_follow_up, note, quarantine } = settled;
        if let Some(host) = &mut self.host {
            host.last_report = position;
            host.acknowledged = host.acknowledged.max(command_sequence);
        }
        self.acknowledge(position);
        if let Some(note) = note {
            self.note(note);
        }
        if let Some(EndedCommand { command, operation, status, message }) = ended {
            self.slot_remove(command);
            let host = self.peer.host;
            self.out.push(Effect::Publish(Event::Command { command, operation, host, status, message }));
        }
        self.lane.needs_load |= has_follow_up;
        let is_active = self.host.as_ref().is_some_and(|host| host.standing == HostStanding::Active);
        if let Some(why) = quarantine.filter(|_| is_active) {
            self.quarantine(why, Some(RefusalCode::Quarantined), now);
        }
    }
}

fn position(report: &Verified<Report>) -> ReportPosition {
    ReportPosition { sequence: report.sequence, sha256: report.payload_sha256() }
}
