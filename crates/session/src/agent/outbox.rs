//! The reports of this host: numbered and chained when signed, stored before they are sent, sent in
//! order within a window, kept until the control plane says that each is durable there.

use std::collections::VecDeque;

use envelope::messages::ReportPosition;
use ids::{CommandId, ReportSequence, Sha256};

use super::io::StoredReport;
use crate::limits;

/// What an acknowledgement from the control plane means.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Acknowledged {
    /// The oldest report can go.
    Oldest,
    /// Right, and an older report is missing over there.
    TooEarly { missing: ReportSequence },
    /// Long gone: a repetition.
    Known,
    /// The control plane holds another report under this number, or one never sent.
    Differs,
}

/// Durable reports and where the chain stands.
pub(super) struct Outbox {
    /// Last number given out; its report may not be durable yet.
    pub(super) last: ReportPosition,
    /// Last report known to be durable.
    pub(super) durable: ReportPosition,
    /// Durable and not acknowledged, ascending.
    stored: VecDeque<StoredReport>,
    /// How many of them were sent in this session.
    sent: usize,
}

impl Outbox {
    pub(super) fn new(last: Option<ReportPosition>, stored: Vec<StoredReport>) -> Self {
        let last = last.unwrap_or(ReportPosition::START);
        Self { last, durable: last, stored: stored.into(), sent: 0 }
    }

    /// Every report that waits, oldest first; none does any more.
    pub(super) fn take_all(&mut self) -> VecDeque<StoredReport> {
        self.sent = 0;
        core::mem::take(&mut self.stored)
    }

    pub(super) fn len(&self) -> usize {
        self.stored.len()
    }

    pub(super) fn holds(&self, command: CommandId) -> bool {
        self.stored.iter().any(|report| report.command == command)
    }

    /// A report became durable.
    pub(super) fn store(&mut self, report: StoredReport) {
        self.durable = ReportPosition { sequence: report.sequence, sha256: report.sha256 };
        self.stored.push_back(report);
    }

    /// A new session: everything is sent again, in order.
    pub(super) const fn rewind(&mut self) {
        self.sent = 0;
    }

    /// The next report to send, if the window has room.
    pub(super) fn next(&mut self) -> Option<Vec<u8>> {
        if self.sent >= limits::REPORT_WINDOW_MAX {
            return None;
        }
        let report = self.stored.get(self.sent)?;
        self.sent += 1;
        Some(report.envelope.clone())
    }

    /// The report of one command, if it was sent in this session already (else it comes in its turn).
    pub(super) fn again(&self, command: CommandId) -> Option<Vec<u8>> {
        let sent = self.stored.iter().take(self.sent);
        sent.rev().find(|report| report.command == command).map(|report| report.envelope.clone())
    }

    /// Takes an acknowledgement: of the oldest report only. The control plane stores reports in their
    /// order, so one that names a later report shows that an earlier one never arrived; nothing is
    /// dropped then, and the reports come again.
    pub(super) fn acknowledge(&mut self, sequence: ReportSequence, sha256: Sha256) -> Acknowledged {
        let Some(first) = self.stored.front() else { return self.acknowledge_absent(sequence) };
        if sequence < first.sequence {
            return Acknowledged::Known;
        }
        let Some(at) = self.stored.iter().position(|report| report.sequence == sequence) else {
            return Acknowledged::Differs;
        };
        if self.stored[at].sha256 != sha256 {
            return Acknowledged::Differs;
        }
        if at > 0 {
            return Acknowledged::TooEarly { missing: first.sequence };
        }
        self.stored.pop_front();
        self.sent = self.sent.saturating_sub(1);
        Acknowledged::Oldest
    }

    fn acknowledge_absent(&self, sequence: ReportSequence) -> Acknowledged {
        if sequence <= self.durable.sequence { Acknowledged::Known } else { Acknowledged::Differs }
    }

    /// The hash of a report still held here, by number.
    pub(super) fn hash_at(&self, sequence: ReportSequence) -> Option<Sha256> {
        if sequence == self.durable.sequence {
            return Some(self.durable.sha256);
        }
        self.stored.iter().find(|report| report.sequence == sequence).map(|report| report.sha256)
    }
}
