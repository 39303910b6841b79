//! A control plane that was brought back from a backup: what it may do, and when.
//!
//! It knows less than the hosts do. It may have forgotten orders it gave, numbers it used up, hosts it revoked and heads of the
//! audit log it showed. So it goes through three stages. *Gathering*: it proposes, seals and signs nothing, listens to
//! hosts only to learn how far they are, and takes root metadata. *Confirming*: root metadata that was issued since has raised the
//! epoch and begun another audit log; sessions open, reports come in, no order goes out. *Over*: an admin
//! has confirmed which hosts are revoked.

mod claims;

use envelope::{
    audit::AuditKind,
    limits::CLOCK_SKEW_MAX,
    messages::{AgentHello, LogPosition, ReportPosition, RootMetadata},
    root::TrustedRoot,
};
use ids::{HostId, HostName, Sequence, UnixMs};
use serde_json::json;

use crate::{
    ports::{AuditEntry, AuditRecord},
    record,
};

pub use self::claims::{Claim, NotNoted, NotTaken, RefusedHost, TakenHost, claimed, heads, refused, taken};

/// How far a restored control plane is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RecoveryStage {
    /// Root metadata of after the restore is not in force.
    Gathering,
    /// It is; which hosts are revoked has not been confirmed.
    Confirming,
    /// All is as before.
    Over,
}

/// The last time that this control plane was brought back from a backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovery {
    pub restored_at: UnixMs,
    pub backup_made_at: UnixMs,
    /// Where the audit log stood in the backup, by the id it had there.
    pub log: LogPosition,
    pub confirmed_at: Option<UnixMs>,
}

impl Recovery {
    /// How far it is under that root metadata. Any earlier change of the log was of another restore: only one that was issued after
    /// this restore can know of it.
    #[must_use]
    pub fn stage(&self, root: &TrustedRoot) -> RecoveryStage {
        let is_known_to_root = root.restored_at().is_some_and(|issued| issued >= self.restored_at);
        match (is_known_to_root, self.confirmed_at) {
            (false, _) => RecoveryStage::Gathering,
            (true, None) => RecoveryStage::Confirming,
            (true, Some(_)) => RecoveryStage::Over,
        }
    }
}

/// What a host said of itself after the restore, in a hello that its proof covers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heard {
    pub at: UnixMs,
    /// Highest command sequence it has seen.
    pub high: Sequence,
    pub last_report: ReportPosition,
    /// Last head of the audit log that it was shown.
    pub head: Option<LogPosition>,
}

impl Heard {
    #[must_use]
    pub const fn of(hello: &AgentHello, at: UnixMs) -> Self {
        Self { at, high: hello.high, last_report: hello.last_report, head: hello.audit_head }
    }

    /// Whether it says the same.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        Self { at: other.at, ..self.clone() } == *other
    }
}

/// One host in a recovery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecoveryHost {
    pub host: HostId,
    pub name: HostName,
    /// It is revoked, by the backup or since.
    pub is_revoked: bool,
    /// Highest sequence that the backup knew to be given out.
    pub allocated: Sequence,
    pub heard: Option<Heard>,
    /// Its numbers and reports go on where it stands, since then.
    pub adopted_at: Option<UnixMs>,
}

impl RecoveryHost {
    /// Whether a command of that sequence may have been sealed after the backup was made, and is unknown here.
    #[must_use]
    pub fn is_lost(&self, sequence: Sequence) -> bool {
        self.heard.as_ref().is_some_and(|heard| sequence > self.allocated && sequence <= heard.high)
    }
}

/// The farthest of these positions in the log of `own`, or that one.
#[must_use]
pub fn farthest(own: LogPosition, heads: &[LogPosition]) -> LogPosition {
    let of_it = heads.iter().copied().filter(|head| head.log == own.log);
    of_it.fold(own, |far, head| if head.size > far.size { head } else { far })
}

/// Where the log before the restore stood at least: what the next root metadata has to name. While it is gathered, that of the root
/// metadata in force; later the one that was named, and what hosts were heard to have seen of it since. `heads`: see [`heads`].
#[must_use]
pub fn log_before(recovery: &Recovery, root: &TrustedRoot, heads: &[LogPosition]) -> LogPosition {
    let current = root.current();
    let named = current.restored_log.filter(|_| recovery.stage(root) != RecoveryStage::Gathering);
    // Logs begin alike up to where the first of them was restored, so what the backup has is a part of each.
    farthest(named.unwrap_or(LogPosition { log: current.audit_log, ..recovery.log }), heads)
}

/// Why root metadata may not follow in a recovery, if it may not: only what voids all that was signed before, and names a new log and
/// where the old one stood, lets hosts tell this control plane from a thief with an old copy.
#[must_use]
pub fn hindered_by(
    recovery: &Recovery,
    root: &TrustedRoot,
    next: &RootMetadata,
    heads: &[LogPosition],
    now: UnixMs,
) -> Option<String> {
    let (current, before) = (root.current(), log_before(recovery, root, heads));
    let is_first = recovery.stage(root) == RecoveryStage::Gathering;
    let named = next.restored_log;
    let wrong = [
        (is_first && next.issued < recovery.restored_at, "was issued before the restore (is a clock wrong?)"),
        // Every order of before its issue is void: also those to come, as long as it lies ahead.
        (next.issued > now.plus(CLOCK_SKEW_MAX), "was issued later than it is now (is a clock wrong?)"),
        (is_first && next.epoch <= current.epoch, "does not raise the epoch"),
        (is_first && next.audit_log == current.audit_log, "does not name a new audit log"),
        (!is_first && next.audit_log != current.audit_log, "names another audit log once more"),
        (named.is_none_or(|named| named.log != before.log), "does not name the audit log before the restore"),
        (
            named.is_some_and(|named| named.size < before.size),
            "names the audit log before the restore at an earlier position than a host has seen",
        ),
    ];
    // A later version that leaves the old log as it was is any other change.
    if !is_first && named == current.restored_log && next.audit_log == current.audit_log {
        return None;
    }
    let (_, why) = wrong.into_iter().find(|(is_wrong, _)| *is_wrong)?;
    Some(format!(
        "this control plane was restored from a backup, and this version {why}: make it with `serverflow root propose --restored`"
    ))
}

/// A change of the recovery, in one transaction.
#[derive(Clone, Debug)]
pub enum RecoveryWrite {
    /// A backup was put in place: sign-ins, API tokens and join tokens are void, and every host's position is to be learned anew.
    Restored { recovery: Recovery, audit: AuditEntry },
    /// A host was heard.
    Heard { host: HostId, heard: Heard },
    /// From now on the host's numbers go on above its highest.
    Adopted { host: HostId, heard: Heard, audit: AuditEntry },
    /// Which hosts are revoked was confirmed: orders go out again. Refused while a claim is open.
    Confirmed { at: UnixMs, audit: AuditEntry },
    /// A host that is not known by the key that it speaks with showed who it is; a leaf when it is the first or another one.
    Claimed { claim: Box<Claim>, audit: Option<AuditEntry> },
    /// It is taken back: from here on it is a host like any other.
    Taken(Box<TakenHost>),
    /// It is not.
    Refused(Box<RefusedHost>),
}

impl RecoveryWrite {
    /// Its leaf, if it has one.
    #[must_use]
    pub fn audit(&self) -> &[AuditEntry] {
        match self {
            Self::Restored { audit, .. } | Self::Adopted { audit, .. } | Self::Confirmed { audit, .. } => {
                core::slice::from_ref(audit)
            }
            Self::Heard { .. } => &[],
            Self::Claimed { audit, .. } => audit.as_slice(),
            Self::Taken(taken) => &taken.audit,
            Self::Refused(refused) => core::slice::from_ref(&refused.audit),
        }
    }
}

fn leaf(actor: String, subject: String, record: &serde_json::Value, now: UnixMs) -> AuditEntry {
    let record = AuditRecord::Inline(record.to_string().into_bytes());
    AuditEntry { time: now, kind: AuditKind::FleetRestored, actor, subject, record }
}

fn log_line(position: &LogPosition) -> serde_json::Value {
    json!({ "log": position.log, "size": position.size, "root": position.root })
}

/// A backup was put in place by that user of the operating system.
#[must_use]
pub fn restored(recovery: Recovery, by: u32) -> RecoveryWrite {
    let record = json!({ "backup_made_ms": recovery.backup_made_at, "log": log_line(&recovery.log) });
    let audit = leaf(format!("machine (user {by})"), "control plane".to_owned(), &record, recovery.restored_at);
    RecoveryWrite::Restored { recovery, audit }
}

/// A host's first session under the root metadata of after the restore.
#[must_use]
pub fn adopted(host: &RecoveryHost, heard: Heard) -> RecoveryWrite {
    let record = json!({
        "host": host.host, "high": heard.high, "known_high": host.allocated,
        "last_report": { "sequence": heard.last_report.sequence, "sha256": heard.last_report.sha256 },
        "head": heard.head.as_ref().map(log_line),
    });
    let audit = leaf(record::CONTROL_PLANE.to_owned(), format!("host {}", host.name), &record, heard.at);
    RecoveryWrite::Adopted { host: host.host, heard, audit }
}

/// An admin has confirmed which hosts are revoked.
#[must_use]
pub fn confirmed(actor: String, revoked: &[HostId], at: UnixMs) -> RecoveryWrite {
    let record = json!({ "revoked": revoked });
    let audit = leaf(actor, "list of revoked hosts".to_owned(), &record, at);
    RecoveryWrite::Confirmed { at, audit }
}

#[cfg(test)]
mod tests {
    use ids::{AuditLogId, ReportSequence, Sha256};

    use super::*;

    fn host(n: u8, head: Option<(u8, u64)>) -> RecoveryHost {
        let at = |(log, size)| LogPosition { log: AuditLogId::from_bytes([log; 16]), size, root: Sha256([n; 32]) };
        RecoveryHost {
            host: HostId::from_bytes([n; 16]),
            name: format!("web-{n}").parse().expect("a name"),
            is_revoked: false,
            allocated: Sequence(4),
            heard: Some(Heard {
                at: UnixMs(1),
                high: Sequence(6),
                last_report: ReportPosition { sequence: ReportSequence(0), sha256: Sha256::ZERO },
                head: head.map(at),
            }),
            adopted_at: None,
        }
    }

    #[test]
    fn the_farthest_head_of_the_same_log_counts() {
        let own = LogPosition { log: AuditLogId::from_bytes([1; 16]), size: 10, root: Sha256([0; 32]) };
        assert_eq!(farthest(own, &[]), own);
        let hosts = [host(1, None), host(2, Some((1, 9))), host(3, Some((1, 12))), host(4, Some((2, 99)))];
        let far = farthest(own, &heads(&hosts, &[]));
        assert_eq!((far.size, far.root), (12, Sha256([3; 32])));
    }

    #[test]
    fn what_was_given_out_after_the_backup_is_lost() {
        let host = host(1, None);
        assert_eq!([4, 5, 6, 7].map(|n| host.is_lost(Sequence(n))), [false, true, true, false]);
        assert!(!RecoveryHost { heard: None, ..host }.is_lost(Sequence(5)));
    }
}
