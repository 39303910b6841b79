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
    /// Acknowledged before, and sent once more to a control plane that lost them; ascending, all below `stored`.
    lost: VecDeque<StoredReport>,
    /// The first and the last of them that were not read yet.
    lost_unread: Option<(ReportSequence, ReportSequence)>,
    /// Some are being read.
    is_reading_lost: bool,
    /// Durable and not acknowledged, ascending.
    stored: VecDeque<StoredReport>,
    /// How many of both were sent in this session.
    sent: usize,
}

impl Outbox {
    pub(super) fn new(last: Option<ReportPosition>, stored: Vec<StoredReport>) -> Self {
        let last = last.unwrap_or(ReportPosition::START);
        let (lost, lost_unread, is_reading_lost) = (VecDeque::new(), None, false);
        Self { last, durable: last, lost, lost_unread, is_reading_lost, stored: stored.into(), sent: 0 }
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
    pub(super) fn rewind(&mut self) {
        self.sent = 0;
        self.lost.clear();
        (self.lost_unread, self.is_reading_lost) = (None, false);
    }

    /// The control plane's last report is this one. If it acknowledged later ones, it was restored from a backup since, and they go
    /// before all others.
    pub(super) fn lost_behind(&mut self, theirs: ReportSequence) {
        let end = self.stored.front().map_or(self.durable.sequence.0 + 1, |report| report.sequence.0);
        let first = theirs.0.saturating_add(1);
        self.lost_unread = (first < end).then_some((ReportSequence(first), ReportSequence(end - 1)));
    }

    /// The first and the last that are to be read now, when those read before have arrived. Nothing is sent before
    /// [`Self::put_lost`].
    pub(super) fn lost_to_read(&mut self) -> Option<(ReportSequence, ReportSequence)> {
        let wanted = self.lost_unread.filter(|_| self.lost.is_empty() && !self.is_reading_lost);
        self.is_reading_lost |= wanted.is_some();
        wanted
    }

    /// The next of them, some or all. None: no more are kept. What is missing is a gap, which the control plane records.
    pub(super) fn put_lost(&mut self, reports: Vec<StoredReport>) {
        if !core::mem::take(&mut self.is_reading_lost) {
            return;
        }
        let read = reports.last().map(|report| report.sequence.0);
        self.lost_unread = self
            .lost_unread
            .zip(read)
            .and_then(|((_, last), read)| (read < last.0).then_some((ReportSequence(read + 1), last)));
        self.lost = reports.into();
    }

    /// The next report to send, if the window has room.
    pub(super) fn next(&mut self) -> Option<Vec<u8>> {
        let is_waiting = self.lost_unread.is_some() && self.sent >= self.lost.len();
        if self.sent >= limits::REPORT_WINDOW_MAX || is_waiting {
            return None;
        }
        let report = match self.lost.get(self.sent) {
            Some(report) => report,
            None => self.stored.get(self.sent - self.lost.len())?,
        };
        self.sent += 1;
        Some(report.envelope.clone())
    }

    /// The report of one command, if it was sent in this session already (else it comes in its turn).
    pub(super) fn again(&self, command: CommandId) -> Option<Vec<u8>> {
        let sent = self.stored.iter().take(self.sent.saturating_sub(self.lost.len()));
        sent.rev().find(|report| report.command == command).map(|report| report.envelope.clone())
    }

    /// Takes an acknowledgement: of the oldest report only. The control plane stores reports in their
    /// order, so one that names a later report shows that an earlier one never arrived; nothing is
    /// dropped then, and the reports come again.
    pub(super) fn acknowledge(&mut self, sequence: ReportSequence, sha256: Sha256) -> Acknowledged {
        if let Some(first) = self.lost.front() {
            let (first, hash) = (first.sequence, first.sha256);
            return match sequence.cmp(&first) {
                core::cmp::Ordering::Less => Acknowledged::Known,
                core::cmp::Ordering::Equal if hash != sha256 => Acknowledged::Differs,
                core::cmp::Ordering::Equal => {
                    self.lost.pop_front();
                    self.sent = self.sent.saturating_sub(1);
                    Acknowledged::Known
                }
                core::cmp::Ordering::Greater => Acknowledged::TooEarly { missing: first },
            };
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn report(n: u64) -> StoredReport {
        let byte = u8::try_from(n).expect("few");
        StoredReport {
            command: CommandId::from_bytes([byte; 16]),
            sequence: ReportSequence(n),
            sha256: Sha256([byte; 32]),
            envelope: vec![byte],
        }
    }

    fn sent(outbox: &mut Outbox) -> Vec<u8> {
        core::iter::from_fn(|| outbox.next()).flatten().collect()
    }

    fn acknowledge(outbox: &mut Outbox, n: u64) -> Acknowledged {
        outbox.acknowledge(ReportSequence(n), Sha256([u8::try_from(n).expect("few"); 32]))
    }

    fn wanted(outbox: &mut Outbox, theirs: u64) -> Option<(u64, u64)> {
        outbox.rewind();
        outbox.lost_behind(ReportSequence(theirs));
        outbox.lost_to_read().map(|(first, last)| (first.0, last.0))
    }

    /// Reports up to 6; 5 and 6 are not acknowledged.
    fn outbox() -> Outbox {
        let last = ReportPosition { sequence: ReportSequence(6), sha256: Sha256([6; 32]) };
        Outbox::new(Some(last), vec![report(5), report(6)])
    }

    #[test]
    fn reports_that_a_control_plane_lost_go_before_the_others_and_each_once() {
        let mut outbox = outbox();
        assert_eq!(wanted(&mut outbox, 4), None, "it has what it acknowledged");
        assert_eq!(sent(&mut outbox), [5, 6]);
        assert_eq!(wanted(&mut outbox, 1), Some((2, 4)));
        assert_eq!((sent(&mut outbox), outbox.lost_to_read()), (Vec::new(), None), "they are being read");
        outbox.put_lost(vec![report(3)]);
        assert_eq!(sent(&mut outbox), [3], "report 2 is not kept any more, and more are to be read");
        assert_eq!(acknowledge(&mut outbox, 4), Acknowledged::TooEarly { missing: ReportSequence(3) });
        assert_eq!(acknowledge(&mut outbox, 3), Acknowledged::Known);
        assert_eq!(outbox.lost_to_read(), Some((ReportSequence(4), ReportSequence(4))));
        outbox.put_lost(vec![report(4)]);
        assert_eq!(sent(&mut outbox), [4, 5, 6]);
        assert_eq!(acknowledge(&mut outbox, 4), Acknowledged::Known);
        assert_eq!([5, 6].map(|n| acknowledge(&mut outbox, n)), [Acknowledged::Oldest, Acknowledged::Oldest]);
        assert_eq!(wanted(&mut outbox, 3), Some((4, 6)), "with none open");
        outbox.put_lost(Vec::new());
        assert_eq!((sent(&mut outbox), outbox.lost_to_read()), (Vec::new(), None), "none is kept");
    }

    #[test]
    fn another_hash_for_a_lost_report_ends_the_session() {
        let mut outbox = outbox();
        assert_eq!(wanted(&mut outbox, 3), Some((4, 4)));
        outbox.put_lost(vec![report(4)]);
        outbox.put_lost(vec![report(1)]);
        assert_eq!(sent(&mut outbox), [4, 5, 6], "an answer that nobody waits for changes nothing");
        assert_eq!(outbox.acknowledge(ReportSequence(4), Sha256([9; 32])), Acknowledged::Differs);
        assert_eq!(acknowledge(&mut outbox, 4), Acknowledged::Known);
    }
}
