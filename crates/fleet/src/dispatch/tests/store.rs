//! The store's part of the contract in memory: every precondition a write states is checked.

use std::collections::BTreeMap;

use crate::{
    command::CommandEvent,
    model::*,
    ports::{AppChange, AuditEntry, AuditRecord, HostKeyRotation, Settlement, StoreError, Write, Written},
};
use envelope::audit::AuditKind;
use ids::{CommandId, HostId, OperationId, Sequence, UnixMs};

#[derive(Clone)]
pub(crate) struct MemoryStore {
    pub(crate) host: Host,
    pub(crate) former: Vec<FormerKey>,
    pub(crate) quarantines: Vec<QuarantineSeen>,
    /// In order of proposal.
    pub(crate) commands: Vec<Command>,
    pub(crate) operations: BTreeMap<OperationId, Operation>,
    pub(crate) apps: Vec<AppInstance>,
    pub(crate) audit: Vec<AuditEntry>,
    pub(crate) last_seen: Option<UnixMs>,
}

fn conflict(why: impl Into<String>) -> StoreError {
    StoreError::Conflict(why.into())
}

impl MemoryStore {
    pub(crate) fn new(host: Host) -> Self {
        Self {
            host,
            former: Vec::new(),
            quarantines: Vec::new(),
            commands: Vec::new(),
            operations: BTreeMap::new(),
            apps: Vec::new(),
            audit: Vec::new(),
            last_seen: None,
        }
    }

    pub(crate) fn load(&self, host: HostId) -> Option<(Host, Vec<Command>)> {
        let open = self.commands.iter().filter(|command| !command.status.is_end());
        (host == self.host.id).then(|| (self.host.clone(), open.cloned().collect()))
    }

    pub(crate) fn command(&self, id: CommandId) -> Option<&Command> {
        self.commands.iter().find(|command| command.order.command == id)
    }

    pub(crate) fn leaves(&self, kind: AuditKind) -> usize {
        self.audit.iter().filter(|entry| entry.kind == kind).count()
    }

    pub(crate) fn has_envelope(&self, envelope: &[u8]) -> bool {
        self.audit.iter().any(|entry| matches!(&entry.record, AuditRecord::Envelope(bytes) if bytes == envelope))
    }

    fn command_mut(&mut self, id: CommandId) -> Result<&mut Command, StoreError> {
        self.commands.iter_mut().find(|command| command.order.command == id).ok_or_else(|| conflict("no such command"))
    }

    fn rotate(&mut self, rotation: HostKeyRotation) -> Result<(), StoreError> {
        let is_used = self.former.iter().any(|key| key.identity_key == rotation.identity_key);
        if is_used || self.host.host_epoch != rotation.was {
            return Err(conflict("the keys were changed meanwhile"));
        }
        if let Some(released) = rotation.released {
            if self.host.last_report != released.last_report || self.host.standing == HostStanding::Active {
                return Err(conflict("its reports went on, or it is quarantined no more"));
            }
            self.host.standing = HostStanding::Active;
            self.host.allocated = self.host.allocated.max(released.high);
            self.host.boots.clear();
            self.quarantines.clear();
        }
        let (host_epoch, identity_key) = (self.host.host_epoch, self.host.identity_key);
        let (last_report, replaced_at) = (None, rotation.audit.time);
        let former = FormerKey { host_epoch, identity_key, last_report, replaced_at, rotation: rotation.rotation };
        self.former.insert(0, former);
        (self.host.host_epoch, self.host.identity_key) = (rotation.host_epoch, rotation.identity_key);
        self.host.sealing_key = rotation.sealing_key;
        self.audit.push(rotation.audit);
        Ok(())
    }

    fn insert(&mut self, new: NewCommand, requested_by: &ids::UserName) {
        self.commands.push(Command {
            order: new.order,
            host_name: self.host.name.clone(),
            app: new.app,
            sealed: new.sealed,
            approvals: Vec::new(),
            status: if new.held.is_some() { CommandStatus::Held } else { CommandStatus::Queued },
            message: new.held.unwrap_or_default(),
            requested_by: requested_by.clone(),
            seals: Vec::new(),
            report: None,
            delivered_at: None,
            accepted_at: None,
            started_at: None,
            settled_at: None,
        });
    }

    fn seal(&mut self, command: CommandId, allocated_before: Sequence, seal: Seal) -> Result<(), StoreError> {
        if self.host.allocated != allocated_before || seal.sequence <= allocated_before {
            return Err(conflict("another sequence was given out"));
        }
        if self.host.standing != HostStanding::Active {
            return Err(conflict("the host is not active"));
        }
        let stored = self.command_mut(command)?;
        let event = match stored.status {
            CommandStatus::Queued => CommandEvent::Sealed,
            _ => CommandEvent::Resealed,
        };
        stored.status = stored.status.after(event).map_err(|error| conflict(error.to_string()))?;
        self.host.allocated = seal.sequence;
        self.command_mut(command)?.seals.push(seal);
        Ok(())
    }

    fn settle(&mut self, settlement: Settlement) -> Result<(), StoreError> {
        if self.host.last_report != settlement.expected_last {
            return Err(conflict("another report was stored"));
        }
        let stored = self.command_mut(settlement.command)?;
        if stored.status.is_end() || stored.status == CommandStatus::Queued {
            return Err(conflict("its status"));
        }
        stored.status = settlement.status;
        stored.message = settlement.message;
        stored.report = Some(settlement.envelope);
        stored.settled_at = Some(settlement.at);
        let requested_by = stored.requested_by.clone();
        for new in settlement.follow_up {
            self.insert(new, &requested_by);
        }
        match settlement.app {
            Some(AppChange::Deployed(instance)) => self.apps.push(instance),
            Some(AppChange::Ran { app, host, state }) => {
                let of_it = self.apps.iter_mut().filter(|known| (&known.app, known.host) == (&app, host));
                of_it.for_each(|known| known.state = state);
            }
            Some(AppChange::Removed { app, host }) => {
                self.apps.retain(|instance| (&instance.app, instance.host) != (&app, host));
            }
            None => {}
        }
        self.host.last_report = settlement.position;
        self.host.audit_head = settlement.audit_head.or(self.host.audit_head);
        self.host.acknowledged = self.host.acknowledged.max(settlement.sequence);
        self.audit.extend(settlement.audit);
        Ok(())
    }

    pub(crate) fn apply(&mut self, write: Write) -> Result<Written, StoreError> {
        match write {
            Write::OperationPropose { operation, commands, audit, .. } => {
                for new in commands {
                    self.insert(new, &operation.requested_by);
                }
                self.operations.insert(operation.id, operation);
                self.audit.push(audit);
            }
            Write::CommandSeal { command, allocated_before, seal, audit, .. } => {
                self.seal(command, allocated_before, seal)?;
                self.audit.push(audit);
            }
            Write::CommandStage { command, sequence, stage, .. } => {
                let stored = self.command_mut(command)?;
                stored.status = stored.status.after(stage.into()).map_err(|error| conflict(error.to_string()))?;
                self.host.acknowledged = self.host.acknowledged.max(sequence);
            }
            Write::CommandSettle(settlement) => self.settle(*settlement)?,
            Write::ReportKeep(kept) => {
                if self.host.last_report != kept.expected_last {
                    return Err(conflict("another report was stored"));
                }
                self.host.last_report = kept.position;
                self.host.acknowledged = self.host.acknowledged.max(kept.sequence);
                self.audit.extend(kept.audit);
            }
            Write::CommandEnd { command, from, status, message, audit, .. } => {
                let stored = self.command_mut(command)?;
                if !from.contains(&stored.status) {
                    return Err(conflict("its status"));
                }
                (stored.status, stored.message) = (status, message);
                self.audit.push(audit);
            }
            Write::HostRevoke { at, audit, .. } => {
                self.revoke(at, false);
                self.audit.push(audit);
            }
            Write::HostRetire(settlement) => {
                let at = settlement.at;
                self.settle(*settlement)?;
                self.revoke(at, true);
            }
            Write::RootAdvance { audit, .. } | Write::Audit(audit) => self.audit.push(audit),
            other => self.apply_host(other)?,
        }
        Ok(Written::Done)
    }

    fn revoke(&mut self, at: UnixMs, is_retired: bool) {
        self.host.standing = HostStanding::Revoked { at, is_retired };
        for command in self.commands.iter_mut().filter(|command| !command.status.is_end()) {
            command.status = command.status.after(CommandEvent::HostRevoked).expect("every open status has this row");
        }
    }

    /// What a session writes about the host itself.
    fn apply_host(&mut self, write: Write) -> Result<(), StoreError> {
        match write {
            Write::HostQuarantine { why, audit, .. } => {
                if matches!(self.host.standing, HostStanding::Revoked { .. }) {
                    return Err(conflict("the host is revoked"));
                }
                self.host.standing = HostStanding::Quarantined { why };
                let is_alarm = audit.kind == AuditKind::Alarm || self.host.quarantine.is_alarm;
                self.host.quarantine =
                    HostQuarantine { since: Some(audit.time), is_alarm, ..HostQuarantine::default() };
                self.audit.push(audit);
            }
            Write::HostClock { skew_ms, .. } => self.host.clock_skew_ms = Some(skew_ms),
            Write::HostQuarantineSeen { seen, .. } => {
                self.quarantines.retain(|known| known.id != seen.id);
                self.quarantines.push(seen);
            }
            Write::HostRelease { quarantine, audit, .. } => {
                self.host.quarantine.is_told |= quarantine.is_none();
                self.host.quarantine.release = quarantine;
                self.audit.push(audit);
            }
            Write::HostKeysRotate(rotation) => self.rotate(*rotation)?,
            Write::HostKeysRetire { last_report, .. } => {
                for key in &mut self.former {
                    key.last_report.get_or_insert(last_report);
                }
                if self.host.standing == HostStanding::Active {
                    self.host.quarantine = HostQuarantine::default();
                }
            }
            Write::HostSeen { actions, agent_version, boots, root_version, .. } => {
                (self.host.actions, self.host.agent_version) = (actions, agent_version);
                (self.host.boots, self.host.root_version) = (boots, root_version);
            }
            Write::HostLeft { at, .. } => self.last_seen = Some(at),
            other => panic!("a session does not write {other:?}"),
        }
        Ok(())
    }
}
