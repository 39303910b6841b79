//! Keeps the status file up to date: at once when something a person waits for changed, from time to
//! time when only numbers did.

use std::collections::VecDeque;

use ids::{BootMs, DurationMs, QuarantineId, ReportSequence};
use session::agent::io::{Clocks, JournalWrite};

use crate::{
    failure::words,
    limits,
    state_dir::StateDir,
    status::{AuditRefusal, AuditStatus, ConnectionStatus, Status},
};

pub(super) struct StatusKeeper {
    state: StateDir,
    pub(super) status: Status,
    /// Reports signed and not acknowledged, ascending.
    reports: VecDeque<ReportSequence>,
    changed: bool,
    written_at: BootMs,
    failing: bool,
}

impl StatusKeeper {
    pub(super) fn new(state: StateDir, status: Status, reports: impl IntoIterator<Item = ReportSequence>) -> Self {
        let reports = reports.into_iter().collect();
        Self { state, status, reports, changed: true, written_at: BootMs(0), failing: false }
    }

    /// A person may wait for this: written with the next look.
    pub(super) fn connection(&mut self, connection: ConnectionStatus, now: Clocks) {
        self.status.connection = connection;
        self.write(now);
    }

    /// Entered or ended: a person waits for that too.
    pub(super) fn quarantine(&mut self, quarantine: Option<QuarantineId>, now: Clocks) {
        if self.status.quarantine != quarantine {
            self.status.quarantine = quarantine;
            self.write(now);
        }
    }

    /// Something else changed.
    pub(super) const fn touch(&mut self) {
        self.changed = true;
    }

    /// A write went to the journal.
    pub(super) fn note_write(&mut self, write: &JournalWrite) {
        if let JournalWrite::Refuse { report, .. }
        | JournalWrite::Done { report, .. }
        | JournalWrite::Retired { report, .. }
        | JournalWrite::Cancel { report, .. }
        | JournalWrite::Standing { report, .. } = write
        {
            self.reports.push_back(report.sequence);
            self.changed = true;
        }
        if let JournalWrite::KeysTaken { reset, done, .. } = write {
            if let Some(reset) = reset {
                self.reports = reset.outbox.iter().map(|report| report.sequence).collect();
            }
            self.reports.extend(done.iter().map(|report| report.sequence));
            self.changed = true;
        }
    }

    pub(super) fn note_acknowledged(&mut self, sequence: ReportSequence) {
        while self.reports.front().is_some_and(|waiting| *waiting <= sequence) {
            self.reports.pop_front();
        }
        self.changed = true;
    }

    /// The audit log continues what this host has seen of it. Said with each head, so written with what else changes.
    pub(super) fn audit_continues(&mut self, size: u64) {
        self.changed |= self.status.audit.refused.is_some() || self.status.audit.seen.is_none();
        self.status.audit = AuditStatus { seen: Some(size), refused: None };
    }

    /// It does not.
    pub(super) fn audit_refused(&mut self, why: String, now: Clocks) {
        let since = self.status.audit.refused.as_ref().map_or(now.wall, |refused| refused.since);
        self.status.audit.refused = Some(AuditRefusal { since, why });
        self.changed = true;
    }

    /// Whether the next flush writes.
    pub(super) fn is_due(&self, now: Clocks) -> bool {
        self.changed && self.age(now) >= limits::STATUS_INTERVAL
    }

    /// How long ago it was written.
    pub(super) fn age(&self, now: Clocks) -> DurationMs {
        now.boot.since(self.written_at)
    }

    /// Writes what changed, unless it was written just now; says when to look again.
    pub(super) fn flush(&mut self, now: Clocks) -> Option<DurationMs> {
        if !self.changed {
            return None;
        }
        let since = self.age(now);
        if since < limits::STATUS_INTERVAL {
            return Some(DurationMs(limits::STATUS_INTERVAL.0 - since.0));
        }
        self.write(now);
        None
    }

    fn write(&mut self, now: Clocks) {
        self.changed = false;
        self.written_at = now.boot;
        self.status.updated_at = now.wall;
        self.status.reports_waiting = self.reports.len();
        match self.status.write(&self.state) {
            Ok(()) => self.failing = false,
            // The journal decides whether the agent may go on; this file is for people.
            Err(error) if !self.failing => {
                self.failing = true;
                tracing::warn!(error = words(&error), "the status file cannot be written");
            }
            Err(_) => {}
        }
    }
}
