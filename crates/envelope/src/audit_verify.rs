//! Verifying an export of the audit log: offline, with nothing but the root's public key.
//!
//! The export claims what happened; every claim is checked against signatures that lead back to
//! that key, or against the tree that the audit key signed. What a control plane that lies could
//! still do is leave out its newest entries. It cannot change, remove or reorder an entry that a
//! signed head covers, and it cannot hide one that a host has seen: hosts put the heads they were
//! shown into their signed reports.

mod chains;
mod export;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use ids::{AuditLogId, CommandId, FleetId, HostId, ReportSequence, Revision, RootVersion, Sequence, Sha256, UnixMs};

use self::chains::Chains;
pub use self::export::{AuditExport, ExportedEntry};
use crate::{
    VerifyError,
    audit::{AuditKind, AuditLeaf},
    envelope::verify,
    keys::{VerifyingKey, role},
    merkle::Frontier,
    messages::{AuditHead, LogPosition, PublicKeyBytes},
    root::{RootError, TrustedRoot},
};

/// What holds of an export that verifies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditVerdict {
    pub fleet: FleetId,
    pub log: AuditLogId,
    /// Version of root metadata in force.
    pub root_version: RootVersion,
    /// Entries in the export.
    pub entries: u64,
    /// Of these, how many the newest signed head covers. Those above are only claimed.
    pub signed: u64,
    /// When the newest head was signed.
    pub signed_at: UnixMs,
    /// Entries whose record is not in the export: their place and hash are verified, nothing more.
    pub without_record: u64,
    /// Hosts whose receipt verified.
    pub hosts: u64,
    /// Signed orders, each sealed version counted.
    pub orders: u64,
    /// Signed reports.
    pub reports: u64,
    /// Signed approvals.
    pub approvals: u64,
    /// Gaps in hosts' chains of reports that the log itself records.
    pub gaps: u64,
    /// Entries by which the control plane itself says that something was wrong: alarms and forks.
    /// Their records say what.
    pub alarms: u64,
    /// Orders without a report whose time had passed when the newest head was signed: the host never
    /// got them, was revoked, or has not said how they ended.
    pub outstanding: Vec<Outstanding>,
}

/// An order without a report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outstanding {
    pub command: CommandId,
    pub host: HostId,
    pub deliver_by: UnixMs,
    /// Entry of its last sealed version.
    pub index: u64,
}

/// Where an export does not verify. `index` is the entry's, from 0.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuditFault {
    /// The chain of root metadata does not start from the given root key, or breaks.
    #[error("the chain of root metadata does not verify from the given root key")]
    Root(#[source] RootError),
    /// No root metadata at all.
    #[error("the export holds no root metadata, so nothing in it can be verified")]
    NoRoot,
    /// Entries are missing or out of order.
    #[error("entry {expected} is missing: {found} stands in its place")]
    Index { expected: u64, found: u64 },
    /// A record is another than its entry's hash says.
    #[error("the record of entry {index} does not have the hash the log holds: it was changed")]
    Record { index: u64 },
    /// Entries, and no head that signs them.
    #[error("the export holds entries and no signed head: nothing shows that they are the log")]
    NoHead,
    /// A head does not verify.
    #[error("signed head number {number} does not verify under an audit key of the root metadata")]
    Head {
        number: usize,
        #[source]
        source: VerifyError,
    },
    /// A head is about another fleet or log.
    #[error("signed head number {number} is of another fleet or log")]
    HeadElsewhere { number: usize },
    /// A head covers more entries than there are.
    #[error("{what} covers {size} entries, but the export ends after {entries}: entries are missing")]
    Truncated { what: String, size: u64, entries: u64 },
    /// The entries are not those that were signed, or that a host was shown.
    #[error("{what} does not lie on this log: its {size} entries were others, so the log was rewritten or forked")]
    Forked { what: String, size: u64 },
    /// A receipt does not verify.
    #[error("enrolment receipt number {number} does not verify under a session key of the root metadata")]
    Receipt {
        number: usize,
        #[source]
        source: VerifyError,
    },
    /// Two receipts for one host, with different keys.
    #[error("host {host} has receipts for two different keys")]
    TwoKeys { host: HostId },
    /// An order does not verify.
    #[error("the order in entry {index} does not verify under a command key of the root metadata")]
    Order {
        index: u64,
        #[source]
        source: VerifyError,
    },
    /// An order of another fleet.
    #[error("the order in entry {index} is for another fleet")]
    OrderElsewhere { index: u64 },
    /// A sequence was used again or went backwards.
    #[error("the order in entry {index} has sequence {sequence} of host {host}, but {before} was given out before it")]
    Sequence { index: u64, host: HostId, sequence: Sequence, before: Sequence },
    /// One command id with two contents.
    #[error("command {command} in entry {index} says something else than when it was sealed before")]
    OrderChanged { index: u64, command: CommandId },
    /// An approval does not verify.
    #[error("the approval in entry {index} does not verify under an approver key of the root metadata")]
    Approval {
        index: u64,
        #[source]
        source: VerifyError,
    },
    /// An approval of another fleet.
    #[error("the approval in entry {index} is for another fleet")]
    ApprovalElsewhere { index: u64 },
    /// A report does not verify.
    #[error("the report in entry {index} does not verify under the key of any enrolled host")]
    Report {
        index: u64,
        #[source]
        source: VerifyError,
    },
    /// A change of keys is not signed by the host's key and by the new one.
    #[error("the change of a host's keys in entry {index} does not verify")]
    Keys {
        index: u64,
        #[source]
        source: VerifyError,
    },
    /// A change of keys that does not follow from the keys the host had, or brings a key that was used before.
    #[error("the change of keys in entry {index} does not follow from the keys that host {host} had then")]
    KeysElsewhere { index: u64, host: HostId },
    /// What is signed under the new keys cannot be verified.
    #[error("entry {index} changes a host's keys, but the export lacks its record; export the log again")]
    KeysMissing { index: u64 },
    /// The end of a host's quarantine is not signed by a command key.
    #[error("the guard reset in entry {index} does not verify under any command key of the root metadata")]
    Reset {
        index: u64,
        #[source]
        source: VerifyError,
    },
    /// It does not lead on from where the log says that the host was.
    #[error("the guard reset in entry {index} does not follow from what the log says of host {host} before it")]
    ResetElsewhere { index: u64, host: HostId },
    /// A standing order is not signed by a command key, or is another fleet's.
    #[error(
        "the standing order in entry {index} does not verify for this fleet under any command key of the root metadata"
    )]
    Standing { index: u64 },
    /// Revisions of one host only rise.
    #[error(
        "the standing order in entry {index} has revision {revision} of host {host}, and the log has one as high before it"
    )]
    StandingRevision { index: u64, host: HostId, revision: Revision },
    /// A host's key signed for another host, or after it was retired.
    #[error(
        "the report in entry {index} speaks for host {host}, but another host signed it, or a key of that host that was \
         retired before"
    )]
    ReportSigner { index: u64, host: HostId },
    /// A report answers an order that the log does not hold before it, and no alarm stands beside it.
    #[error("the report in entry {index} answers an order of command {command} that the log does not hold")]
    NoOrder { index: u64, command: CommandId },
    /// Two reports for one place, or one that does not follow from the last.
    #[error(
        "report {sequence} of host {host} in entry {index} does not follow from the one before it: the chain forks"
    )]
    ReportFork { index: u64, host: HostId, sequence: ReportSequence },
    /// Reports are missing, and the log does not say so.
    #[error(
        "reports of host {host} are missing before report {sequence} in entry {index}, and the log does not say so"
    )]
    ReportGap { index: u64, host: HostId, sequence: ReportSequence },
    /// A host was shown more of the log before a restore than root metadata says there was.
    #[error(
        "the report in entry {index} names {size} entries of the audit log before the restore, and root metadata says it had {named}"
    )]
    BeyondRestore { index: u64, size: u64, named: u64 },
    /// A host was shown a head of a log that nobody knows.
    #[error("the report in entry {index} names a head of the unknown audit log {log}")]
    UnknownLog { index: u64, log: AuditLogId },
}

/// Keys that were ever in force, by role, and the logs they were for.
struct Trust {
    root: TrustedRoot,
    session: Vec<VerifyingKey<role::Session>>,
    command: Vec<VerifyingKey<role::Command>>,
    approver: Vec<VerifyingKey<role::Approver>>,
    audit: Vec<VerifyingKey<role::Audit>>,
    /// Logs before a restore, and where root metadata says each stood.
    earlier_logs: BTreeMap<AuditLogId, LogPosition>,
}

impl Trust {
    fn build(chain: &[Vec<u8>], root_key: PublicKeyBytes) -> Result<Self, AuditFault> {
        let (first, rest) = chain.split_first().ok_or(AuditFault::NoRoot)?;
        let root = TrustedRoot::pin_key(first, root_key).map_err(AuditFault::Root)?;
        let mut trust = Self {
            root,
            session: Vec::new(),
            command: Vec::new(),
            approver: Vec::new(),
            audit: Vec::new(),
            earlier_logs: BTreeMap::new(),
        };
        trust.collect();
        for envelope in rest {
            trust.root.advance(envelope).map_err(AuditFault::Root)?;
            trust.collect();
        }
        Ok(trust)
    }

    fn collect(&mut self) {
        fn add<R: crate::keys::KeyRole>(all: &mut Vec<VerifyingKey<R>>, now: &[VerifyingKey<R>]) {
            for key in now {
                if !all.iter().any(|known| known.key_id() == key.key_id()) {
                    all.push(*key);
                }
            }
        }
        add(&mut self.session, self.root.session_keys());
        add(&mut self.command, self.root.command_keys());
        add(&mut self.approver, self.root.approver_keys());
        add(&mut self.audit, core::slice::from_ref(self.root.audit_key()));
        self.earlier_logs.extend(self.root.current().restored_log.map(|position| (position.log, position)));
    }
}

/// A claim that the log's first `size` entries have this root.
struct Claim {
    what: String,
    root: Sha256,
}

/// Claims by size; `entries` are checked against them in one pass.
#[derive(Default)]
struct Claims(BTreeMap<u64, Vec<Claim>>);

impl Claims {
    fn add(&mut self, what: String, position: LogPosition) {
        self.0.entry(position.size).or_default().push(Claim { what, root: position.root });
    }

    fn check(&self, entries: &[ExportedEntry]) -> Result<(), AuditFault> {
        let mut tree = Frontier::new();
        self.check_at(&tree)?;
        for entry in entries {
            let leaf = AuditLeaf::new(entry.time, entry.kind, &entry.actor, &entry.subject, entry.record_sha256);
            // A log of 2^64 entries does not fit into an export.
            let _ = tree.append(leaf.leaf_hash());
            self.check_at(&tree)?;
        }
        let size = entries.len() as u64;
        let beyond = self.0.range(size + 1..).next().and_then(|(size, claims)| Some((*size, claims.first()?)));
        match beyond {
            None => Ok(()),
            Some((claimed, claim)) => {
                Err(AuditFault::Truncated { what: claim.what.clone(), size: claimed, entries: size })
            }
        }
    }

    fn check_at(&self, tree: &Frontier) -> Result<(), AuditFault> {
        let Some(claims) = self.0.get(&tree.size()) else { return Ok(()) };
        let root = tree.root();
        match claims.iter().find(|claim| claim.root != root) {
            None => Ok(()),
            Some(claim) => Err(AuditFault::Forked { what: claim.what.clone(), size: tree.size() }),
        }
    }
}

/// Verifies an export from the root's public key alone.
///
/// # Errors
/// The first place where it does not verify.
pub fn verify_export(export: &AuditExport, root_key: PublicKeyBytes) -> Result<AuditVerdict, AuditFault> {
    let trust = Trust::build(&export.root_chain, root_key)?;
    let (fleet, log) = (trust.root.current().fleet, trust.root.current().audit_log);
    let without_record = check_records(&export.entries)?;
    let mut claims = Claims::default();
    let newest = check_heads(export, &trust, &mut claims)?;
    let restored = export.entries.iter().find(|entry| entry.kind == AuditKind::FleetRestored);
    let common = restored.map_or(u64::MAX, |entry| entry.index);
    let mut chains = Chains::new(fleet, (log, common), &trust, &export.receipts)?;
    for (at, entry) in export.entries.iter().enumerate() {
        chains.entry(entry, &export.entries[at + 1..], &mut claims)?;
    }
    claims.check(&export.entries)?;
    let (signed, signed_at) = newest.map_or((0, UnixMs(0)), |head| (head.position.size, head.time));
    Ok(AuditVerdict {
        fleet,
        log,
        root_version: trust.root.version(),
        entries: export.entries.len() as u64,
        signed,
        signed_at,
        without_record,
        hosts: chains.host_count(),
        orders: chains.order_count(),
        reports: chains.report_count(),
        approvals: chains.approval_count(),
        gaps: chains.gap_count(),
        alarms: export.entries.iter().filter(|entry| matches!(entry.kind, AuditKind::Alarm | AuditKind::Fork)).count()
            as u64,
        outstanding: chains.outstanding(signed_at),
    })
}

/// Every entry in its place, every record with its hash. Answers how many have no record.
fn check_records(entries: &[ExportedEntry]) -> Result<u64, AuditFault> {
    let mut without = 0;
    for (expected, entry) in (0u64..).zip(entries) {
        if entry.index != expected {
            return Err(AuditFault::Index { expected, found: entry.index });
        }
        match &entry.record {
            None => without += 1,
            Some(record) if ids::sha256(record) == entry.record_sha256 => {}
            Some(_) => return Err(AuditFault::Record { index: expected }),
        }
    }
    Ok(without)
}

/// Every head verifies and becomes a claim; answers the newest.
fn check_heads(export: &AuditExport, trust: &Trust, claims: &mut Claims) -> Result<Option<AuditHead>, AuditFault> {
    let (fleet, log) = (trust.root.current().fleet, trust.root.current().audit_log);
    let mut newest: Option<AuditHead> = None;
    for (number, envelope) in export.heads.iter().enumerate() {
        let head = verify::<AuditHead>(envelope, &trust.audit).map_err(|source| AuditFault::Head { number, source })?;
        // A log goes on from what the backup had of the one before it, so that one's heads are of its beginnings.
        let is_known = head.position.log == log || trust.earlier_logs.contains_key(&head.position.log);
        if head.fleet != fleet || !is_known {
            return Err(AuditFault::HeadElsewhere { number });
        }
        claims.add(format!("signed head number {number}"), head.position);
        if newest.as_ref().is_none_or(|known| known.position.size < head.position.size) {
            newest = Some(head.into_value());
        }
    }
    if newest.is_none() && !export.entries.is_empty() {
        return Err(AuditFault::NoHead);
    }
    Ok(newest)
}
