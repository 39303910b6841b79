//! Where an incoming report stands in its host's chain.

use envelope::messages::{Report, ReportPosition};
use ids::{ReportSequence, Sha256};

/// What an incoming report is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReportVerdict {
    /// The next of the chain: settle it, store it, acknowledge it.
    Next,
    /// On record already: acknowledge it, change nothing.
    Duplicate,
    /// Another report under a number on record, or one that does not go on from the last: an alarm.
    /// Not acknowledged.
    Fork,
    /// Reports from `first_missing` on never came: settle and acknowledge this one, and make the gap
    /// an audit leaf.
    Gap { first_missing: ReportSequence },
    /// Below the last on record, and none is on record under its number: it fills an earlier gap.
    Late,
}

/// Judges a verified report. `last`: the host's last report on record; `incoming`: SHA-256 of the
/// report's payload; `recorded`: the hash on record under its number, if there is one.
#[must_use]
pub fn judge_report(
    last: ReportPosition,
    report: &Report,
    incoming: Sha256,
    recorded: Option<Sha256>,
) -> ReportVerdict {
    let next = last.sequence.0.saturating_add(1);
    let recorded = if report.sequence == last.sequence { Some(last.sha256) } else { recorded };
    match (report.sequence.0, recorded) {
        (0, _) => ReportVerdict::Fork,
        (_, Some(recorded)) if recorded == incoming => ReportVerdict::Duplicate,
        (_, Some(_)) => ReportVerdict::Fork,
        (sequence, None) if sequence == next && report.previous == last.sha256 => ReportVerdict::Next,
        (sequence, None) if sequence == next => ReportVerdict::Fork,
        (sequence, None) if sequence > next => ReportVerdict::Gap { first_missing: ReportSequence(next) },
        (_, None) => ReportVerdict::Late,
    }
}

#[cfg(test)]
mod tests {
    use envelope::messages::ReportStatus;
    use ids::{CommandId, FleetId, HostEpoch, HostId, Sequence, UnixMs};

    use super::*;

    #[track_caller]
    fn check(sequence: u64, previous: u8, incoming: u8, recorded: Option<u8>, expected: ReportVerdict) {
        let last = ReportPosition { sequence: ReportSequence(7), sha256: Sha256([7; 32]) };
        let report = Report {
            fleet: FleetId::from_bytes([1; 16]),
            host: HostId::from_bytes([1; 16]),
            host_epoch: HostEpoch(1),
            command: CommandId::from_bytes([1; 16]),
            command_sha256: Sha256::ZERO,
            command_sequence: Sequence(1),
            sequence: ReportSequence(sequence),
            previous: Sha256([previous; 32]),
            audit_head: None,
            status: ReportStatus::Succeeded,
            finished_at: UnixMs(1),
            result: Vec::new(),
            output_sha256: Sha256::ZERO,
            output_truncated: false,
        };
        let recorded = recorded.map(|byte| Sha256([byte; 32]));
        assert_eq!(judge_report(last, &report, Sha256([incoming; 32]), recorded), expected);
    }

    #[test]
    fn every_place_in_the_chain() {
        check(8, 7, 8, None, ReportVerdict::Next);
        check(8, 6, 8, None, ReportVerdict::Fork);
        check(7, 6, 7, None, ReportVerdict::Duplicate);
        check(7, 6, 9, None, ReportVerdict::Fork);
        check(5, 4, 5, Some(5), ReportVerdict::Duplicate);
        check(5, 4, 6, Some(5), ReportVerdict::Fork);
        check(5, 4, 5, None, ReportVerdict::Late);
        check(10, 9, 10, None, ReportVerdict::Gap { first_missing: ReportSequence(8) });
        check(0, 0, 1, None, ReportVerdict::Fork);
    }
}
