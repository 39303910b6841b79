//! What a host's hello says about its state: fit for orders, an old copy, or a sign that someone
//! else signed.

use envelope::messages::{AgentHello, ReportPosition};
use ids::{BootId, HostEpoch, Sequence};

/// What the control plane has stored about a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostRecord<'a> {
    pub host_epoch: HostEpoch,
    /// Highest sequence in an `Accepted` frame or a report, of those allocated here.
    pub acknowledged: Sequence,
    /// Highest sequence ever given to a command of this host.
    pub allocated: Sequence,
    /// Last verified and stored report.
    pub last_report: ReportPosition,
    /// Boot ids of its sessions, latest first, each different from its neighbours. At least the last
    /// two must be kept for a clone to be seen.
    pub boots: &'a [BootId],
}

/// What follows from a hello. Nothing is delivered unless [`Standing::Fit`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Orders may go out.
    Fit,
    /// The host's state is an old copy or a clone: stored reports and root metadata only.
    Quarantined(String),
    /// Someone else signed for this host: nothing more is signed until an admin acts.
    Alarm(String),
}

/// Judges a hello whose session is authenticated.
#[must_use]
pub fn judge(hello: &AgentHello, record: &HostRecord<'_>) -> Standing {
    // Before all else: a thief of the command key could drive the host into quarantine afterwards.
    if hello.high > record.allocated {
        let (theirs, ours) = (hello.high, record.allocated);
        return Standing::Alarm(format!(
            "it has seen command sequence {theirs}, and none above {ours} was ever signed here: a command key may be stolen"
        ));
    }
    if let Some(id) = hello.quarantine {
        return Standing::Quarantined(format!("its agent has put itself into quarantine {id}"));
    }
    if hello.host_epoch != record.host_epoch {
        let (theirs, ours) = (hello.host_epoch, record.host_epoch);
        return Standing::Quarantined(format!("it is in host epoch {theirs}, and epoch {ours} is on record"));
    }
    if hello.high < record.acknowledged {
        let (theirs, ours) = (hello.high, record.acknowledged);
        return Standing::Quarantined(format!(
            "its highest command sequence is {theirs}, but it acknowledged {ours}: its state is an old copy"
        ));
    }
    let (theirs, ours) = (hello.last_report, record.last_report);
    if theirs.sequence < ours.sequence {
        return Standing::Quarantined(format!(
            "its last report is {}, but report {} is on record: its state is an old copy",
            theirs.sequence, ours.sequence
        ));
    }
    if theirs.sequence == ours.sequence && theirs.sha256 != ours.sha256 {
        return Standing::Quarantined(format!("its report {} is not the one on record", theirs.sequence));
    }
    if record.boots.iter().skip(1).any(|boot| *boot == hello.boot) && record.boots.first() != Some(&hello.boot) {
        return Standing::Quarantined(
            "a boot that had ended has come back: two machines take turns as this host, or one was restored".to_owned(),
        );
    }
    Standing::Fit
}

/// The highest acknowledged sequence after an `Accepted` frame or a report that names `sequence`.
/// Numbers never given out here do not count: a command that a thief of the command key signed is
/// refused by its host with a report that names them.
#[must_use]
pub fn acknowledged_after(record: &HostRecord<'_>, sequence: Sequence) -> Sequence {
    if sequence <= record.allocated { record.acknowledged.max(sequence) } else { record.acknowledged }
}

/// The boot ids to keep after a session of `boot`: latest first, at most `max`.
#[must_use]
pub fn boots_after(boots: &[BootId], boot: BootId, max: usize) -> Vec<BootId> {
    let earlier = boots.iter().copied().skip(usize::from(boots.first() == Some(&boot)));
    core::iter::once(boot).chain(earlier).take(max).collect()
}

#[cfg(test)]
mod tests {
    use ids::{Challenge, FleetId, HostId, QuarantineId, ReportSequence, RootVersion, Sha256};

    use super::*;

    const BOOTS: [BootId; 2] = [BootId::from_bytes([2; 16]), BootId::from_bytes([1; 16])];

    fn record() -> HostRecord<'static> {
        HostRecord {
            host_epoch: HostEpoch(1),
            acknowledged: Sequence(5),
            allocated: Sequence(8),
            last_report: ReportPosition { sequence: ReportSequence(3), sha256: Sha256([3; 32]) },
            boots: &BOOTS,
        }
    }

    fn hello() -> AgentHello {
        AgentHello {
            protocols: vec![1],
            fleet: FleetId::from_bytes([1; 16]),
            host: HostId::from_bytes([1; 16]),
            host_epoch: HostEpoch(1),
            nonce: Challenge([0; 32]),
            boot: BOOTS[0],
            root_version: RootVersion(1),
            high: Sequence(6),
            last_report: ReportPosition { sequence: ReportSequence(3), sha256: Sha256([3; 32]) },
            audit_head: None,
            quarantine: None,
            agent_version: String::new(),
        }
    }

    #[track_caller]
    fn check(change: impl FnOnce(&mut AgentHello), expected: &str) {
        let mut hello = hello();
        change(&mut hello);
        let found = match judge(&hello, &record()) {
            Standing::Fit => "fit",
            Standing::Quarantined(_) => "quarantined",
            Standing::Alarm(_) => "alarm",
        };
        assert_eq!(found, expected);
    }

    #[test]
    fn each_disagreement_has_its_consequence() {
        check(|_| {}, "fit");
        check(|h| h.high = Sequence(5), "fit");
        check(|h| h.high = Sequence(8), "fit");
        check(|h| h.high = Sequence(9), "alarm");
        check(|h| h.high = Sequence(4), "quarantined");
        check(|h| h.host_epoch = HostEpoch(2), "quarantined");
        check(|h| h.host_epoch = HostEpoch(0), "quarantined");
        check(|h| h.last_report.sequence = ReportSequence(4), "fit");
        check(|h| h.last_report.sequence = ReportSequence(2), "quarantined");
        check(|h| h.last_report.sha256 = Sha256([4; 32]), "quarantined");
        check(|h| h.quarantine = Some(QuarantineId::from_bytes([1; 16])), "quarantined");
        let after_a_thief = |h: &mut AgentHello| {
            h.high = Sequence(9);
            h.quarantine = Some(QuarantineId::from_bytes([1; 16]));
        };
        check(after_a_thief, "alarm");
        check(|h| (h.high, h.host_epoch) = (Sequence(9), HostEpoch(2)), "alarm");
        check(|h| h.boot = BootId::from_bytes([3; 16]), "fit");
        check(|h| h.boot = BOOTS[1], "quarantined");
    }

    #[test]
    fn only_numbers_given_out_are_acknowledged() {
        assert_eq!(acknowledged_after(&record(), Sequence(8)), Sequence(8));
        assert_eq!(acknowledged_after(&record(), Sequence(3)), Sequence(5));
        assert_eq!(acknowledged_after(&record(), Sequence(u64::MAX)), Sequence(5));
    }

    #[test]
    fn boots_are_kept_latest_first_and_bounded() {
        let new = BootId::from_bytes([3; 16]);
        assert_eq!(boots_after(&[], new, 2), [new]);
        assert_eq!(boots_after(&BOOTS, BOOTS[0], 2), BOOTS);
        assert_eq!(boots_after(&BOOTS, new, 2), [new, BOOTS[0]]);
    }
}
