//! Orders and reports of an export: each signed by whom it must be, each order given out once and
//! in sequence, each report following the last of its host and answering an order of this log.

use std::collections::BTreeMap;

use ids::{AuditLogId, CommandId, FleetId, HostEpoch, HostId, KeyId, Revision, Sequence, Sha256, UnixMs};

use super::{AuditFault, Claims, ExportedEntry, Outstanding, Trust};
use crate::{
    Verified, VerifyError,
    audit::AuditKind,
    envelope::{open_key_offer, verify},
    keys::{VerifyingKey, key_id, role},
    messages::{
        Approval, Command, EnrolReceipt, GuardReset, KeyRotation, LogPosition, Report, ReportPosition, StandingOrder,
    },
};

/// What is known of the log up to some entry.
pub(super) struct Chains<'a> {
    fleet: FleetId,
    log: AuditLogId,
    /// Entries that this log has in common with every one before it: those up to the first restore.
    common: u64,
    trust: &'a Trust,
    host_keys: Vec<VerifyingKey<role::Agent>>,
    hosts: BTreeMap<HostId, HostChain>,
    orders: BTreeMap<CommandId, OrderState>,
    /// Highest revision of a standing order so far.
    revisions: BTreeMap<HostId, Revision>,
    order_count: u64,
    report_count: u64,
    gap_count: u64,
    approval_count: u64,
    /// Records of orders or reports are missing, so what they held cannot be demanded.
    orders_pruned: bool,
    reports_pruned: bool,
}

struct HostChain {
    /// The key it was enrolled with.
    first: KeyId,
    /// Its keys by the epoch they count from, ascending.
    keys: Vec<(HostEpoch, KeyId)>,
    /// Epoch of its last report: under an older key it signs nothing more.
    reported: HostEpoch,
    allocated: Sequence,
    last_report: ReportPosition,
}

struct OrderState {
    host: HostId,
    order_sha256: Sha256,
    deliver_by: UnixMs,
    index: u64,
    /// Payload hash and sequence of each sealed version.
    seals: Vec<(Sha256, Sequence)>,
    reported: bool,
}

impl<'a> Chains<'a> {
    pub(super) fn new(
        fleet: FleetId,
        (log, common): (AuditLogId, u64),
        trust: &'a Trust,
        receipts: &[Vec<u8>],
    ) -> Result<Self, AuditFault> {
        let mut chains = Self {
            fleet,
            log,
            common,
            trust,
            host_keys: Vec::new(),
            hosts: BTreeMap::new(),
            orders: BTreeMap::new(),
            revisions: BTreeMap::new(),
            order_count: 0,
            report_count: 0,
            gap_count: 0,
            approval_count: 0,
            orders_pruned: false,
            reports_pruned: false,
        };
        for (number, envelope) in receipts.iter().enumerate() {
            chains.receipt(number, envelope)?;
        }
        Ok(chains)
    }

    fn receipt(&mut self, number: usize, envelope: &[u8]) -> Result<(), AuditFault> {
        let refused = |source| AuditFault::Receipt { number, source };
        let receipt = verify::<EnrolReceipt>(envelope, &self.trust.session).map_err(refused)?;
        let identity = receipt.identity_key;
        let key = VerifyingKey::try_from(identity).map_err(|source| refused(VerifyError::Key { source }))?;
        let id = key.key_id();
        let (keys, reported) = (vec![(receipt.host_epoch, id)], receipt.host_epoch);
        let (allocated, last_report) = (Sequence(0), ReportPosition::START);
        let start = HostChain { first: id, keys, reported, allocated, last_report };
        if self.hosts.entry(receipt.host).or_insert(start).first != id {
            return Err(AuditFault::TwoKeys { host: receipt.host });
        }
        self.host_keys.push(key);
        Ok(())
    }

    /// One entry; `following` are those after it.
    pub(super) fn entry(
        &mut self,
        entry: &ExportedEntry,
        following: &[ExportedEntry],
        claims: &mut Claims,
    ) -> Result<(), AuditFault> {
        match (entry.kind, &entry.record) {
            (AuditKind::Command, Some(record)) => self.order(entry.index, record),
            (AuditKind::Command, None) => {
                self.orders_pruned = true;
                Ok(())
            }
            (AuditKind::Report, Some(record)) => self.report(entry.index, record, following, claims),
            (AuditKind::Report, None) => {
                self.reports_pruned = true;
                Ok(())
            }
            (AuditKind::Approval, Some(record)) => self.approval(entry.index, record),
            (AuditKind::HostKeyChange, Some(record)) => self.rotation(entry.index, record),
            (AuditKind::GuardReset, Some(record)) => self.reset(entry.index, record),
            (AuditKind::StandingOrder, Some(record)) => self.standing(entry.index, record),
            (AuditKind::HostKeyChange, None) => Err(AuditFault::KeysMissing { index: entry.index }),
            _ => Ok(()),
        }
    }

    /// A person's word. Whether it was enough, and for this very order, hosts have judged.
    fn approval(&mut self, index: u64, record: &[u8]) -> Result<(), AuditFault> {
        let approval = verify::<Approval>(record, &self.trust.approver);
        let approval = approval.map_err(|source| AuditFault::Approval { index, source })?;
        if approval.fleet != self.fleet {
            return Err(AuditFault::ApprovalElsewhere { index });
        }
        self.approval_count += 1;
        Ok(())
    }

    /// A host's new keys: signed by its key so far and by the new one, which no host had before.
    fn rotation(&mut self, index: u64, record: &[u8]) -> Result<(), AuditFault> {
        let refused = |source| AuditFault::Keys { index, source };
        let rotation = verify::<KeyRotation>(record, &self.host_keys).map_err(refused)?;
        let offer = open_key_offer(&rotation.offer).map_err(refused)?;
        let host = rotation.host;
        let elsewhere = AuditFault::KeysElsewhere { index, host };
        let Some(chain) = self.hosts.get_mut(&host) else { return Err(elsewhere) };
        let (epoch, key) = chain.keys.last().copied().unwrap_or((HostEpoch(0), chain.first));
        let is_next = rotation.key_id() == key
            && (rotation.fleet, offer.fleet, offer.host) == (self.fleet, self.fleet, host)
            && key_id(&offer.old_identity_key) == key
            && Some(offer.host_epoch.0) == epoch.0.checked_add(1);
        if !is_next || self.host_keys.iter().any(|known| known.key_id() == offer.key_id()) {
            return Err(elsewhere);
        }
        let new = VerifyingKey::try_from(offer.identity_key).map_err(|source| refused(VerifyError::Key { source }))?;
        chain.keys.push((offer.host_epoch, new.key_id()));
        self.host_keys.push(new);
        Ok(())
    }

    /// The end of a quarantine: nothing given out before it, and no report before it, is left open by it.
    fn reset(&mut self, index: u64, record: &[u8]) -> Result<(), AuditFault> {
        let reset =
            verify::<GuardReset>(record, &self.trust.command).map_err(|source| AuditFault::Reset { index, source })?;
        let host = reset.host;
        let elsewhere = AuditFault::ResetElsewhere { index, host };
        let Some(chain) = self.hosts.get_mut(&host) else { return Err(elsewhere) };
        let epoch = chain.keys.last().map_or(HostEpoch(0), |(epoch, _)| *epoch);
        let follows = reset.fleet == self.fleet
            && epoch.0.checked_add(1) == Some(reset.host_epoch.0)
            && reset.high >= chain.allocated
            && (self.reports_pruned || reset.last_report == chain.last_report);
        if !follows {
            return Err(elsewhere);
        }
        chain.allocated = reset.high;
        Ok(())
    }

    /// What outlives the command that installs it. A host takes no revision twice, so none is given out twice.
    fn standing(&mut self, index: u64, record: &[u8]) -> Result<(), AuditFault> {
        let order = verify::<StandingOrder>(record, &self.trust.command).map_err(|_| AuditFault::Standing { index })?;
        if order.standing.fleet != self.fleet {
            return Err(AuditFault::Standing { index });
        }
        let (host, revision) = (order.standing.host, order.revision);
        let highest = self.revisions.entry(host).or_default();
        if revision <= *highest {
            return Err(AuditFault::StandingRevision { index, host, revision });
        }
        *highest = revision;
        Ok(())
    }

    fn order(&mut self, index: u64, record: &[u8]) -> Result<(), AuditFault> {
        let command =
            verify::<Command>(record, &self.trust.command).map_err(|source| AuditFault::Order { index, source })?;
        if command.order.fleet != self.fleet {
            return Err(AuditFault::OrderElsewhere { index });
        }
        let (host, sequence) = (command.order.host, command.sequence);
        if let Some(chain) = self.hosts.get_mut(&host) {
            if sequence <= chain.allocated {
                return Err(AuditFault::Sequence { index, host, sequence, before: chain.allocated });
            }
            chain.allocated = sequence;
        }
        let order_sha256 = command.order.sha256();
        let state = self.orders.entry(command.order.command).or_insert_with(|| OrderState {
            host,
            order_sha256,
            deliver_by: command.order.deliver_by,
            index,
            seals: Vec::new(),
            reported: false,
        });
        if state.order_sha256 != order_sha256 {
            return Err(AuditFault::OrderChanged { index, command: command.order.command });
        }
        state.index = index;
        state.seals.push((command.payload_sha256(), sequence));
        self.order_count += 1;
        Ok(())
    }

    fn report(
        &mut self,
        index: u64,
        record: &[u8],
        following: &[ExportedEntry],
        claims: &mut Claims,
    ) -> Result<(), AuditFault> {
        let report =
            verify::<Report>(record, &self.host_keys).map_err(|source| AuditFault::Report { index, source })?;
        let host = report.host;
        let may_sign = self.hosts.get_mut(&host).is_some_and(|chain| {
            let is_its_own = chain.keys.contains(&(report.host_epoch, report.key_id()));
            let may_sign = is_its_own && report.host_epoch >= chain.reported;
            chain.reported = chain.reported.max(report.host_epoch);
            may_sign
        });
        if !may_sign || report.fleet != self.fleet {
            return Err(AuditFault::ReportSigner { index, host });
        }
        self.follows(index, &report, following)?;
        self.answers(index, &report, following)?;
        if let Some(head) = report.audit_head {
            if head.log == self.log {
                // It was shown before it was reported, so it cannot cover the report itself.
                if head.size > index {
                    let what = format!("the head named by the report in entry {index}");
                    return Err(AuditFault::Truncated { what, size: head.size, entries: index });
                }
                claims.add(format!("the head named by the report in entry {index}"), head);
            } else {
                self.seen_before_restore(index, head, claims)?;
            }
        }
        self.report_count += 1;
        Ok(())
    }

    /// A head of a log before a restore: what the backup had of that log is here, and the rest is lost up to where root metadata
    /// says it stood.
    fn seen_before_restore(&self, index: u64, head: LogPosition, claims: &mut Claims) -> Result<(), AuditFault> {
        let named = self.trust.earlier_logs.get(&head.log);
        let named = named.ok_or(AuditFault::UnknownLog { index, log: head.log })?.size;
        if head.size > named {
            return Err(AuditFault::BeyondRestore { index, size: head.size, named });
        }
        if head.size <= self.common {
            claims.add(format!("the head of before the restore named by the report in entry {index}"), head);
        }
        Ok(())
    }

    /// Whether a report follows from the last of its host.
    fn follows(
        &mut self,
        index: u64,
        report: &Verified<Report>,
        following: &[ExportedEntry],
    ) -> Result<(), AuditFault> {
        let (host, sequence) = (report.host, report.sequence);
        let Some(chain) = self.hosts.get_mut(&host) else { return Err(AuditFault::ReportSigner { index, host }) };
        let last = chain.last_report;
        let is_next = last.sequence.next() == Some(sequence);
        if sequence <= last.sequence || (is_next && report.previous != last.sha256) {
            return Err(AuditFault::ReportFork { index, host, sequence });
        }
        if !is_next {
            // A control plane that lost reports records it right behind the report that showed it.
            let is_recorded = says(following, AuditKind::ReportGap);
            if !is_recorded && !self.reports_pruned {
                return Err(AuditFault::ReportGap { index, host, sequence });
            }
            self.gap_count += u64::from(is_recorded);
        }
        chain.last_report = ReportPosition { sequence, sha256: report.payload_sha256() };
        Ok(())
    }

    /// Whether a report answers an order that the log holds before it.
    fn answers(
        &mut self,
        index: u64,
        report: &Verified<Report>,
        following: &[ExportedEntry],
    ) -> Result<(), AuditFault> {
        let answered = (report.command_sha256, report.command_sequence);
        match self.orders.get_mut(&report.command) {
            Some(order) if order.host == report.host && order.seals.contains(&answered) => {
                order.reported = true;
                Ok(())
            }
            // A control plane that met such a report records an alarm right behind it.
            _ if self.orders_pruned || says(following, AuditKind::Alarm) => Ok(()),
            _ => Err(AuditFault::NoOrder { index, command: report.command }),
        }
    }

    pub(super) fn host_count(&self) -> u64 {
        self.hosts.len() as u64
    }

    pub(super) const fn order_count(&self) -> u64 {
        self.order_count
    }

    pub(super) const fn report_count(&self) -> u64 {
        self.report_count
    }

    pub(super) const fn approval_count(&self) -> u64 {
        self.approval_count
    }

    pub(super) const fn gap_count(&self) -> u64 {
        self.gap_count
    }

    /// Orders without a report whose time had passed at `at`, by entry.
    pub(super) fn outstanding(&self, at: UnixMs) -> Vec<Outstanding> {
        let open = self.orders.iter().filter(|(_, order)| !order.reported && order.deliver_by < at);
        let mut outstanding: Vec<Outstanding> = open
            .map(|(&command, order)| Outstanding {
                command,
                host: order.host,
                deliver_by: order.deliver_by,
                index: order.index,
            })
            .collect();
        outstanding.sort_unstable_by_key(|order| order.index);
        outstanding
    }
}

/// Entries right behind a report in which the control plane says what was wrong with it: a gap, an
/// alarm, or both, in the report's own transaction.
const REMARKS_MAX: usize = 2;

fn says(following: &[ExportedEntry], kind: AuditKind) -> bool {
    let remarks = following.iter().take(REMARKS_MAX);
    remarks
        .take_while(|entry| matches!(entry.kind, AuditKind::ReportGap | AuditKind::Alarm))
        .any(|entry| entry.kind == kind)
}
