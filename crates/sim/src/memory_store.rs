//! The control plane's store in memory: what each transaction of `fleet::ports` means, with the same
//! preconditions as on disk. A write either happens whole or not at all.

use std::collections::BTreeMap;

use envelope::{
    audit::{AuditKind, AuditLeaf},
    merkle,
    messages::{LogPosition, PublicKeyBytes},
};
use fleet::{
    command::CommandEvent,
    dispatch::SignedHead,
    model::{
        Command, CommandStatus, FormerKey, Host, HostQuarantine, HostStanding, NewCommand, Operation, QuarantineSeen,
    },
    ports::{
        Approved, AuditEntry, AuditRecord, Endorsed, HostKeyRotation, KeptReport, Settlement, StandingProposal,
        StoreError, Write, Written,
    },
    standing::{StandingRecord, StandingState, StandingStep},
};
use ids::{CommandId, HostId, OperationId, Revision, Sequence, Sha256, StandingOrderId, UnixMs, UserName, sha256};

/// Everything durable at the control plane.
#[derive(Default)]
pub(crate) struct MemoryStore {
    pub(crate) hosts: BTreeMap<HostId, Host>,
    pub(crate) former_keys: BTreeMap<HostId, Vec<FormerKey>>,
    /// Quarantines that agents said they are in, the latest last.
    pub(crate) quarantines: BTreeMap<HostId, Vec<QuarantineSeen>>,
    pub(crate) commands: BTreeMap<CommandId, Command>,
    pub(crate) operations: BTreeMap<OperationId, Operation>,
    /// Order of proposal.
    pub(crate) proposed: Vec<CommandId>,
    pub(crate) audit: AuditLog,
    standing: BTreeMap<StandingOrderId, StandingRow>,
    revisions: BTreeMap<HostId, Revision>,
}

/// A standing order, and the last envelope that was signed of it.
struct StandingRow {
    record: StandingRecord,
    envelope: Vec<u8>,
}

/// The audit log: its leaves, and the heads signed over them.
#[derive(Default)]
pub(crate) struct AuditLog {
    pub(crate) kinds: Vec<AuditKind>,
    pub(crate) leaves: Vec<Sha256>,
    pub(crate) heads: Vec<SignedHead>,
}

impl AuditLog {
    fn append(&mut self, entry: &AuditEntry) {
        let (AuditRecord::Inline(record) | AuditRecord::Envelope(record)) = &entry.record;
        let leaf = AuditLeaf::new(entry.time, entry.kind, &entry.actor, &entry.subject, sha256(record));
        self.kinds.push(entry.kind);
        self.leaves.push(leaf.leaf_hash());
    }

    pub(crate) fn size(&self) -> u64 {
        self.leaves.len() as u64
    }

    /// Root over the first so many leaves. `None` when there are fewer.
    pub(crate) fn root_at(&self, size: u64) -> Option<Sha256> {
        self.leaves.get(..usize::try_from(size).ok()?).map(merkle::root)
    }

    pub(crate) fn head_at(&self, size: u64) -> Option<LogPosition> {
        self.heads.iter().map(|head| head.position).find(|position| position.size == size)
    }

    /// What a thief or an old backup leaves of it: the first so many leaves and the heads over them.
    pub(crate) fn cut(&mut self, size: usize) {
        self.kinds.truncate(size);
        self.leaves.truncate(size);
        self.heads.retain(|head| head.position.size <= size as u64);
    }
}

fn conflict<T>(what: &str) -> Result<T, StoreError> {
    Err(StoreError::Conflict(what.to_owned()))
}

impl MemoryStore {
    /// Every identity key that the host has, or had.
    pub(crate) fn identities(&self, host: HostId) -> Vec<PublicKeyBytes> {
        let former = self.former_keys.get(&host).into_iter().flatten().map(|key| key.identity_key);
        former.chain(self.hosts.get(&host).map(|host| host.identity_key)).collect()
    }

    pub(crate) fn commands_open(&self, host: HostId) -> Vec<Command> {
        let of_host = |command: &&Command| command.order.host == host && !command.status.is_end();
        self.proposed.iter().filter_map(|id| self.commands.get(id)).filter(of_host).cloned().collect()
    }

    pub(crate) fn apply(&mut self, write: &Write) -> Result<Written, StoreError> {
        match write {
            Write::OperationPropose { operation, commands, audit, .. } => {
                if let Some(known) = self.operations.get(&operation.id) {
                    let is_same = known.request_sha256 == operation.request_sha256;
                    return if is_same {
                        Ok(Written::AlreadyProposed)
                    } else {
                        conflict("the id names another request")
                    };
                }
                self.operations.insert(operation.id, operation.clone());
                self.insert(commands, &operation.requested_by);
                self.audit.append(audit);
            }
            Write::StandingPropose(proposal) => self.propose_standing(proposal)?,
            Write::CommandSeal { .. } => self.seal(write)?,
            Write::CommandStage { command, host, sequence, stage, at } => {
                self.stage(*command, *host, *sequence, (*stage).into(), *at)?;
            }
            Write::CommandSettle(settlement) => self.settle(settlement)?,
            Write::HostRetire(settlement) => {
                if matches!(self.host_mut(settlement.host)?.standing, HostStanding::Revoked { .. }) {
                    return conflict("the host is revoked already");
                }
                self.settle(settlement)?;
                self.revoke(settlement.host, settlement.at, true)?;
            }
            Write::ReportKeep(kept) => self.keep(kept)?,
            Write::CommandEnd { command, from, status, message, at, audit } => {
                let Some(row) = self.commands.get_mut(command) else { return conflict("no such command") };
                if !from.contains(&row.status) {
                    return conflict("the command moved on");
                }
                (row.status, row.message, row.settled_at) = (*status, message.clone(), Some(*at));
                self.audit.append(audit);
            }
            Write::CommandsApprove(approved) => self.approve(approved)?,
            Write::HostRevoke { host, at, audit } => {
                self.revoke(*host, *at, false)?;
                self.audit.append(audit);
            }
            Write::AuditHead { position, envelope } => {
                self.audit.heads.push(SignedHead { position: *position, envelope: envelope.as_slice().into() });
            }
            Write::Audit(entry) => self.audit.append(entry),
            other => self.apply_host(other)?,
        }
        Ok(Written::Done)
    }

    fn propose_standing(&mut self, proposal: &StandingProposal) -> Result<(), StoreError> {
        let StandingProposal { host, order, kind, new, sealed, last, operation, commands, at, audit } = proposal;
        let row = self.host_mut(*host)?;
        let (host_name, id) = (row.name.clone(), row.id);
        if matches!(row.standing, HostStanding::Revoked { .. }) || self.operations.contains_key(&operation.id) {
            return conflict("the host is revoked, or the id is taken");
        }
        let seal = sealed.as_ref().map(|sealed| sealed.seal);
        if seal.is_some_and(|seal| seal.revision <= self.revision(id)) {
            return conflict("a higher revision was given out meanwhile");
        }
        let known = self.standing_records().into_iter().find(|record| record.order == *order);
        let ends = |record: &StandingRecord| matches!(record.state(), StandingState::Dropping | StandingState::Dropped);
        if known.is_some_and(|known| known.last() > *last && new.is_none() || sealed.is_some() && ends(&known)) {
            return conflict("it was signed anew meanwhile, or is being dropped");
        }
        self.revisions.extend(seal.map(|seal| (id, seal.revision)));
        let step = StandingStep {
            kind: *kind,
            operation: operation.id,
            seal,
            at: *at,
            ended: None,
            is_under_way: true,
            message: String::new(),
        };
        let envelope = sealed.as_ref().map(|sealed| sealed.envelope.clone());
        match (new, self.standing.get_mut(order)) {
            (Some(new), None) => {
                let record = StandingRecord {
                    order: *order,
                    host: id,
                    host_name,
                    action: new.action.clone(),
                    action_version: new.action_version,
                    schedule: new.schedule.clone(),
                    zone: new.zone.clone(),
                    valid_until: new.valid_until,
                    alone_for: new.alone_for,
                    requested_by: operation.requested_by.clone(),
                    created_at: *at,
                    steps: vec![step],
                };
                self.standing.insert(*order, StandingRow { record, envelope: envelope.unwrap_or_default() });
            }
            (None, Some(row)) => {
                row.record.steps.push(step);
                row.envelope = envelope.unwrap_or_else(|| core::mem::take(&mut row.envelope));
            }
            _ => return conflict("no such standing order, or there is one already"),
        }
        self.operations.insert(operation.id, operation.clone());
        self.insert(commands, &operation.requested_by);
        self.audit.append(audit);
        Ok(())
    }

    pub(crate) fn revision(&self, host: HostId) -> Revision {
        self.revisions.get(&host).copied().unwrap_or_default()
    }

    pub(crate) fn standing_envelope(&self, order: StandingOrderId) -> Option<Vec<u8>> {
        self.standing.get(&order).map(|row| row.envelope.clone())
    }

    /// Each with how what was ordered about it ended, as its commands say.
    pub(crate) fn standing_records(&self) -> Vec<StandingRecord> {
        let record = |row: &StandingRow| {
            let mut record = row.record.clone();
            record.steps.iter_mut().for_each(|step| self.look_up(step));
            record
        };
        self.standing.values().map(record).collect()
    }

    fn look_up(&self, step: &mut StandingStep) {
        let of_step = |command: &&Command| command.order.operation == step.operation;
        let last = self.proposed.iter().rev().filter_map(|id| self.commands.get(id)).find(of_step);
        let Some(last) = last else { return };
        let is_over = last.status.is_end();
        step.is_under_way = !is_over && !last.order.dry_run && last.status != CommandStatus::Held;
        step.message.clone_from(&last.message);
        step.ended = match last.status {
            // A plan that led to no order.
            CommandStatus::Succeeded if last.order.dry_run => Some(CommandStatus::Failed),
            status => is_over.then_some(status),
        };
    }

    /// What is written about a host itself.
    fn apply_host(&mut self, write: &Write) -> Result<(), StoreError> {
        match write {
            Write::HostQuarantine { host, why, audit } => {
                let row = self.host_mut(*host)?;
                if matches!(row.standing, HostStanding::Revoked { .. }) {
                    return conflict("the host is revoked");
                }
                row.standing = HostStanding::Quarantined { why: why.clone() };
                let is_alarm = audit.kind == AuditKind::Alarm || row.quarantine.is_alarm;
                row.quarantine = HostQuarantine { since: Some(audit.time), is_alarm, ..HostQuarantine::default() };
                self.audit.append(audit);
            }
            Write::HostClock { host, skew_ms } => self.host_mut(*host)?.clock_skew_ms = Some(*skew_ms),
            Write::HostQuarantineSeen { host, seen } => {
                let known = self.quarantines.entry(*host).or_default();
                known.retain(|known| known.id != seen.id);
                known.push(seen.clone());
            }
            Write::HostRelease { host, quarantine, audit } => {
                let row = self.host_mut(*host)?;
                if !matches!(row.standing, HostStanding::Quarantined { .. }) {
                    return conflict("the host is not quarantined");
                }
                row.quarantine.is_told |= quarantine.is_none();
                row.quarantine.release = *quarantine;
                self.audit.append(audit);
            }
            Write::HostKeysRotate(rotation) => {
                self.rotate(rotation)?;
                self.audit.append(&rotation.audit);
            }
            Write::HostKeysRetire { host, last_report, .. } => {
                for key in self.former_keys.entry(*host).or_default() {
                    key.last_report.get_or_insert(*last_report);
                }
                let row = self.host_mut(*host)?;
                if row.standing == HostStanding::Active {
                    row.quarantine = HostQuarantine::default();
                }
            }
            Write::HostSeen { host, actions, agent_version, boots, root_version } => {
                let row = self.host_mut(*host)?;
                row.actions.clone_from(actions);
                row.agent_version.clone_from(agent_version);
                row.boots.clone_from(boots);
                row.root_version = *root_version;
            }
            Write::HostLeft { host, at } => self.host_mut(*host)?.last_seen = Some(*at),
            other => return Err(StoreError::Unavailable(format!("not part of the simulation: {other:?}"))),
        }
        Ok(())
    }

    fn host_mut(&mut self, host: HostId) -> Result<&mut Host, StoreError> {
        self.hosts.get_mut(&host).ok_or_else(|| StoreError::Conflict("no such host".to_owned()))
    }

    fn insert(&mut self, commands: &[NewCommand], requested_by: &UserName) {
        for new in commands {
            let host_name = self.hosts[&new.order.host].name.clone();
            let row = Command {
                order: new.order.clone(),
                host_name,
                app: new.app.clone(),
                sealed: new.sealed.clone(),
                approvals: Vec::new(),
                status: if new.held.is_some() { CommandStatus::Held } else { CommandStatus::Queued },
                message: new.held.clone().unwrap_or_default(),
                requested_by: requested_by.clone(),
                seals: Vec::new(),
                report: None,
                delivered_at: None,
                accepted_at: None,
                started_at: None,
                settled_at: None,
            };
            self.proposed.push(new.order.command);
            self.commands.insert(new.order.command, row);
        }
    }

    fn rotate(&mut self, rotation: &HostKeyRotation) -> Result<(), StoreError> {
        let is_used = self.hosts.values().any(|host| host.identity_key == rotation.identity_key)
            || self.former_keys.values().flatten().any(|key| key.identity_key == rotation.identity_key);
        let host = self.host_mut(rotation.host)?;
        if is_used || host.host_epoch != rotation.was || matches!(host.standing, HostStanding::Revoked { .. }) {
            return conflict("these keys cannot become the host's");
        }
        if let Some(released) = &rotation.released {
            if host.last_report != released.last_report || !matches!(host.standing, HostStanding::Quarantined { .. }) {
                return conflict("its reports went on, or it is quarantined no more");
            }
            (host.standing, host.allocated) = (HostStanding::Active, host.allocated.max(released.high));
            (host.boots, host.quarantine.since) = (Vec::new(), None);
        }
        let (host_epoch, identity_key, rotated) = (host.host_epoch, host.identity_key, rotation.rotation.clone());
        let (last_report, replaced_at) = (None, rotation.audit.time);
        let former = FormerKey { host_epoch, identity_key, last_report, replaced_at, rotation: rotated };
        (host.host_epoch, host.identity_key) = (rotation.host_epoch, rotation.identity_key);
        host.sealing_key = rotation.sealing_key;
        self.former_keys.entry(rotation.host).or_default().push(former);
        if rotation.released.is_some() {
            self.quarantines.remove(&rotation.host);
        }
        Ok(())
    }

    fn approve(&mut self, approved: &Approved) -> Result<(), StoreError> {
        for endorsed in &approved.commands {
            let Some(row) = self.commands.get(&endorsed.command) else { return conflict("no such command") };
            if row.status != CommandStatus::Held || row.approvals.len() != endorsed.stored_before {
                return conflict("it moved on");
            }
        }
        for Endorsed { command, envelope, message, .. } in &approved.commands {
            let Some(row) = self.commands.get_mut(command) else { return conflict("no such command") };
            row.approvals.push(envelope.clone());
            row.message = message.clone().unwrap_or_default();
            if message.is_none() {
                row.status = CommandStatus::Queued;
            }
        }
        approved.audit.iter().for_each(|entry| self.audit.append(entry));
        Ok(())
    }

    fn seal(&mut self, write: &Write) -> Result<(), StoreError> {
        let Write::CommandSeal { command, host, allocated_before, seal, at, audit } = write else { return Ok(()) };
        let host = self.host_mut(*host)?;
        if !matches!(host.standing, HostStanding::Active) {
            return conflict("the host gets no orders");
        }
        if host.allocated != *allocated_before || seal.sequence <= host.allocated {
            return conflict("another session took a number");
        }
        let id = host.id;
        let Some(row) = self.commands.get_mut(command) else { return conflict("no such command") };
        let event = if row.seals.is_empty() { CommandEvent::Sealed } else { CommandEvent::Resealed };
        row.status = row.status.after(event).map_err(|error| StoreError::Conflict(error.to_string()))?;
        row.delivered_at = Some(*at);
        row.seals.push(seal.clone());
        self.host_mut(id)?.allocated = seal.sequence;
        self.audit.append(audit);
        Ok(())
    }

    fn stage(
        &mut self,
        command: CommandId,
        host: HostId,
        sequence: Sequence,
        event: CommandEvent,
        at: UnixMs,
    ) -> Result<(), StoreError> {
        let Some(row) = self.commands.get_mut(&command) else { return conflict("no such command") };
        row.status = row.status.after(event).map_err(|error| StoreError::Conflict(error.to_string()))?;
        row.accepted_at = row.accepted_at.or(Some(at));
        let host = self.host_mut(host)?;
        host.acknowledged = host.acknowledged.max(sequence);
        Ok(())
    }

    fn settle(&mut self, settlement: &Settlement) -> Result<(), StoreError> {
        let host = self.host_mut(settlement.host)?;
        if host.last_report != settlement.expected_last {
            return conflict("another report came first");
        }
        let Some(row) = self.commands.get_mut(&settlement.command) else { return conflict("no such command") };
        if row.status.is_end() || row.status == CommandStatus::Queued {
            return conflict("the command cannot be ended by a report");
        }
        (row.status, row.message) = (settlement.status, settlement.message.clone());
        (row.report, row.settled_at) = (Some(settlement.envelope.clone()), Some(settlement.at));
        let requested_by = row.requested_by.clone();
        let host = self.host_mut(settlement.host)?;
        host.last_report = settlement.position;
        host.audit_head = settlement.audit_head.or(host.audit_head);
        host.acknowledged = host.acknowledged.max(settlement.sequence);
        self.insert(&settlement.follow_up, &requested_by);
        settlement.audit.iter().for_each(|entry| self.audit.append(entry));
        Ok(())
    }

    fn keep(&mut self, kept: &KeptReport) -> Result<(), StoreError> {
        let host = self.host_mut(kept.host)?;
        if host.last_report != kept.expected_last {
            return conflict("another report came first");
        }
        host.last_report = kept.position;
        host.audit_head = kept.audit_head.or(host.audit_head);
        host.acknowledged = host.acknowledged.max(kept.sequence);
        kept.audit.iter().for_each(|entry| self.audit.append(entry));
        Ok(())
    }

    fn revoke(&mut self, host: HostId, at: UnixMs, is_retired: bool) -> Result<(), StoreError> {
        let row = self.host_mut(host)?;
        if matches!(row.standing, HostStanding::Revoked { .. }) {
            return conflict("the host is revoked already");
        }
        row.standing = HostStanding::Revoked { at, is_retired };
        for command in self.commands.values_mut().filter(|command| command.order.host == host) {
            if let Ok(status) = command.status.after(CommandEvent::HostRevoked) {
                (command.status, command.settled_at) = (status, Some(at));
            }
        }
        Ok(())
    }
}
