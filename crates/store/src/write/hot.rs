//! The writes that come with every command: sealed, accepted or started, settled. A batch may hold a
//! thousand of them, so they are not applied statement by statement: the rows a run of them touches
//! are read at once, each write is judged and applied to these rows in memory, in its order, and what
//! changed goes back in a few statements of many rows. A write is judged whole before it changes
//! anything, so a refused one leaves no trace and needs no savepoint.

use std::collections::HashMap;

use envelope::messages::{LogPosition, ReportPosition};
use fleet::{
    command::CommandEvent,
    model::{AppInstance, CommandStatus, Seal},
    ports::{AppChange, KeptReport, Settlement, StoreError, Write, Written},
};
use ids::{CommandId, HostId, OperationId, ReportSequence, Sequence, UnixMs};
use session::frames::Stage;

use super::{
    Transaction, flush,
    operations::{PlacedCommand, insert_commands},
    take,
};
use crate::{
    audit::{NewLeaf, RecordPlace},
    fault::Failure,
    rows::{Fields, bind_list, int, pieces},
};

/// Whether a write belongs here.
pub(crate) fn is_hot(write: &Write) -> bool {
    matches!(
        write,
        Write::CommandSeal { .. } | Write::CommandStage { .. } | Write::CommandSettle(_) | Write::ReportKeep(_)
    )
}

#[derive(Clone, Debug)]
pub(super) struct CommandRow {
    pub(super) number: i64,
    pub(super) host: HostId,
    pub(super) operation: OperationId,
    pub(super) operation_number: i64,
    pub(super) status: CommandStatus,
    pub(super) sealed_last: Sequence,
    pub(super) delivered_at: Option<UnixMs>,
    pub(super) accepted_at: Option<UnixMs>,
    pub(super) started_at: Option<UnixMs>,
    pub(super) settled_at: Option<UnixMs>,
    /// A new message; `None` leaves the stored one.
    pub(super) message: Option<String>,
    pub(super) changed: bool,
}

#[derive(Clone, Debug)]
pub(super) struct HostRow {
    pub(super) number: i64,
    pub(super) revoked: bool,
    pub(super) quarantined: bool,
    pub(super) allocated: Sequence,
    pub(super) acknowledged: Sequence,
    pub(super) last_report: ReportPosition,
    pub(super) audit_head: Option<LogPosition>,
    pub(super) changed: bool,
}

/// The rows a run of writes touches, and what it adds.
#[derive(Debug, Default)]
struct Run<'w> {
    commands: HashMap<CommandId, CommandRow>,
    hosts: HashMap<HostId, HostRow>,
    seals: Vec<(i64, i64, &'w Seal)>,
    reports: Vec<(i64, &'w [u8])>,
    follow_ups: Vec<PlacedCommand<'w>>,
    apps: Vec<(i64, &'w AppChange)>,
}

/// Applies a run of hot writes; adds one answer per write, and their leaves.
pub(crate) async fn apply<'w>(
    t: &mut Transaction<'_>,
    writes: &'w [&'w Write],
    answers: &mut Vec<Result<Written, StoreError>>,
    leaves: &mut Vec<NewLeaf<'w>>,
) -> Result<(), Failure> {
    let mut run = Run::default();
    run.load_commands(t, writes).await?;
    run.load_hosts(t, writes).await?;
    for write in writes {
        let done = match write {
            Write::CommandSeal { command, host, allocated_before, seal, at, audit } => {
                let number = take(&mut t.numbers.seal);
                run.seal(number, (*command, *host), *allocated_before, seal, *at).map(|()| {
                    leaves.push(NewLeaf::beside(audit, &seal.envelope, RecordPlace::Seal(number)));
                })
            }
            Write::CommandStage { command, host, sequence, stage, at } => {
                run.stage((*command, *host), *sequence, *stage, *at)
            }
            Write::CommandSettle(settlement) => {
                run.settle(settlement).map(|command| leaves.extend(leaves_of(settlement, command)))
            }
            Write::ReportKeep(kept) => run.keep(kept).map(|()| leaves.extend(kept.audit.iter().map(NewLeaf::of))),
            _ => unreachable!("invariant: only hot writes come here"),
        };
        answers.push(done.map(|()| Written::Done));
    }
    run.flush(t).await
}

/// A settlement that other changes follow in the same transaction; its leaves.
pub(super) async fn settle_alone<'w>(
    t: &mut Transaction<'_>,
    write: &'w Write,
    settlement: &'w Settlement,
    leaves: &mut Vec<NewLeaf<'w>>,
) -> Result<(), Failure> {
    let mut run = Run::default();
    run.load_commands(t, &[write]).await?;
    run.load_hosts(t, &[write]).await?;
    let command = run.settle(settlement).map_err(Failure::Refused)?;
    leaves.extend(leaves_of(settlement, command));
    run.flush(t).await
}

/// The report's envelope stands beside them, with its command.
fn leaves_of(settlement: &Settlement, command: i64) -> impl Iterator<Item = NewLeaf<'_>> {
    let place = RecordPlace::Report(command);
    settlement.audit.iter().map(move |entry| NewLeaf::beside(entry, &settlement.envelope, place))
}

/// The command it moves, if any, and the host.
fn target(write: &Write) -> (Option<CommandId>, HostId) {
    match write {
        Write::CommandSeal { command, host, .. } | Write::CommandStage { command, host, .. } => (Some(*command), *host),
        Write::CommandSettle(settlement) | Write::HostRetire(settlement) => (Some(settlement.command), settlement.host),
        Write::ReportKeep(kept) => (None, kept.host),
        _ => unreachable!("invariant: only hot writes come here"),
    }
}

fn follow_ups(write: &Write) -> &[fleet::model::NewCommand] {
    match write {
        Write::CommandSettle(settlement) | Write::HostRetire(settlement) => &settlement.follow_up,
        _ => &[],
    }
}

fn conflict<T>(what: String) -> Result<T, StoreError> {
    Err(StoreError::Conflict(what))
}

/// What a [`HostRow`] is made of, of `hosts h` and `host_state s`.
macro_rules! host_columns {
    () => {
        "h.id, h.number, h.revoked_at IS NOT NULL, h.quarantine_why IS NOT NULL, s.allocated, s.acknowledged, \
         s.report_sequence, s.report_sha256, s.head_log, s.head_size, s.head_root"
    };
}

fn host_of(fields: &mut Fields<'_>) -> Result<(HostId, HostRow), StoreError> {
    let id = fields.id()?;
    let host = HostRow {
        number: fields.get()?,
        revoked: fields.get()?,
        quarantined: fields.get()?,
        allocated: Sequence(fields.number()?),
        acknowledged: Sequence(fields.number()?),
        last_report: ReportPosition { sequence: ReportSequence(fields.number()?), sha256: fields.hash()? },
        audit_head: fields.log_position_maybe()?,
        changed: false,
    };
    Ok((id, host))
}

/// Reading what a run touches.
impl Run<'_> {
    async fn load_commands(&mut self, t: &mut Transaction<'_>, writes: &[&Write]) -> Result<(), Failure> {
        // Follow-ups are looked for as well: their ids must be new.
        let new = writes.iter().flat_map(|write| follow_ups(write)).map(|new| new.order.command);
        let mut ids: Vec<CommandId> = writes.iter().filter_map(|write| target(write).0).chain(new).collect();
        ids.sort_unstable();
        ids.dedup();
        for piece in pieces(&ids) {
            t.room_for(piece.len()).await?;
            let select = t.later(concat!(
                "SELECT ",
                host_columns!(),
                ", c.id, c.number, o.id, c.operation, c.status, c.sealed_last, c.delivered_at, c.accepted_at, \
                 c.started_at, c.settled_at FROM commands c JOIN hosts h ON h.number = c.host \
                 JOIN host_state s ON s.host = h.number JOIN operations o ON o.number = c.operation WHERE c.id IN (",
            ));
            bind_list(select, piece.iter().map(|id| id.as_bytes().to_vec()));
            for row in t.rows_together("reading commands").await? {
                let mut fields = Fields::of(&row, "the commands");
                let (host, host_row) = host_of(&mut fields)?;
                self.hosts.entry(host).or_insert(host_row);
                let id = fields.id()?;
                let command = CommandRow {
                    number: fields.get()?,
                    host,
                    operation: fields.id()?,
                    operation_number: fields.get()?,
                    status: fields.word()?,
                    sealed_last: Sequence(fields.number()?),
                    delivered_at: fields.time_maybe()?,
                    accepted_at: fields.time_maybe()?,
                    started_at: fields.time_maybe()?,
                    settled_at: fields.time_maybe()?,
                    message: None,
                    changed: false,
                };
                self.commands.insert(id, command);
            }
        }
        Ok(())
    }

    async fn load_hosts(&mut self, t: &mut Transaction<'_>, writes: &[&Write]) -> Result<(), Failure> {
        let new = writes.iter().flat_map(|write| follow_ups(write)).map(|new| new.order.host);
        let mut ids: Vec<HostId> = writes.iter().map(|write| target(write).1).chain(new).collect();
        // Most came with their commands.
        ids.retain(|id| !self.hosts.contains_key(id));
        ids.sort_unstable();
        ids.dedup();
        for piece in pieces(&ids) {
            t.room_for(piece.len()).await?;
            let select = t.later(concat!(
                "SELECT ",
                host_columns!(),
                " FROM hosts h JOIN host_state s ON s.host = h.number WHERE h.id IN (",
            ));
            bind_list(select, piece.iter().map(|id| id.as_bytes().to_vec()));
            for row in t.rows_together("reading hosts").await? {
                let (id, host) = host_of(&mut Fields::of(&row, "the hosts"))?;
                self.hosts.insert(id, host);
            }
        }
        Ok(())
    }
}

/// Judging and applying, in memory.
impl<'w> Run<'w> {
    fn rows(&self, (command, host): (CommandId, HostId)) -> Result<(CommandRow, HostRow), StoreError> {
        let Some(command_row) = self.commands.get(&command).filter(|row| row.host == host) else {
            return conflict(format!("host {host} has no command {command}"));
        };
        Ok((command_row.clone(), self.host_row(host)?))
    }

    fn host_row(&self, host: HostId) -> Result<HostRow, StoreError> {
        match self.hosts.get(&host) {
            None => conflict(format!("host {host} is not known")),
            Some(HostRow { revoked: true, .. }) => conflict(format!("host {host} was revoked")),
            Some(row) => Ok(row.clone()),
        }
    }

    fn put(&mut self, (command, host): (CommandId, HostId), mut command_row: CommandRow, mut host_row: HostRow) {
        command_row.changed = true;
        host_row.changed = true;
        self.commands.insert(command, command_row);
        self.hosts.insert(host, host_row);
    }

    fn seal(
        &mut self,
        number: i64,
        whose: (CommandId, HostId),
        allocated_before: Sequence,
        seal: &'w Seal,
        at: UnixMs,
    ) -> Result<(), StoreError> {
        let (mut command, mut host) = self.rows(whose)?;
        if host.quarantined {
            return conflict(format!("host {} is quarantined and gets no orders", whose.1));
        }
        if host.allocated != allocated_before || seal.sequence <= allocated_before {
            return conflict(format!(
                "host {} stands at sequence {}; {} after {allocated_before} does not follow",
                whose.1, host.allocated, seal.sequence
            ));
        }
        int(seal.sequence.0)?;
        int(seal.expires.0)?;
        let event = if command.status == CommandStatus::Queued { CommandEvent::Sealed } else { CommandEvent::Resealed };
        command.status = moved(whose.0, command.status, event)?;
        command.sealed_last = seal.sequence;
        command.delivered_at = Some(at);
        host.allocated = seal.sequence;
        self.seals.push((number, command.number, seal));
        self.put(whose, command, host);
        Ok(())
    }

    fn stage(
        &mut self,
        whose: (CommandId, HostId),
        sequence: Sequence,
        stage: Stage,
        at: UnixMs,
    ) -> Result<(), StoreError> {
        let (mut command, mut host) = self.rows(whose)?;
        check_sequence(whose.0, &command, sequence)?;
        command.status = moved(whose.0, command.status, CommandEvent::from(stage))?;
        command.accepted_at.get_or_insert(at);
        if stage == Stage::Started {
            command.started_at.get_or_insert(at);
        }
        host.acknowledged = host.acknowledged.max(sequence);
        self.put(whose, command, host);
        Ok(())
    }

    /// Answers the command's number.
    fn settle(&mut self, settlement: &'w Settlement) -> Result<i64, StoreError> {
        let whose = (settlement.command, settlement.host);
        let (mut command, mut host) = self.rows(whose)?;
        host.chain(whose.1, settlement.expected_last, settlement.position, settlement.audit_head)?;
        check_sequence(whose.0, &command, settlement.sequence)?;
        // Any report may end it or none may; which end it is was decided from the report.
        let event = CommandEvent::Report(envelope::messages::ReportStatus::Unknown);
        moved(whose.0, command.status, event)?;
        if !settlement.status.is_end() {
            return conflict(format!("a report cannot leave command {} {}", whose.0, settlement.status));
        }
        let placed = self.place_follow_ups(settlement, &command)?;
        if let Some(
            AppChange::Deployed(AppInstance { host: other, .. })
            | AppChange::Ran { host: other, .. }
            | AppChange::Removed { host: other, .. },
        ) = &settlement.app
            && *other != whose.1
        {
            return conflict(format!("a report of host {} says nothing about apps on host {other}", whose.1));
        }
        command.status = settlement.status;
        command.message = Some(settlement.message.clone());
        command.settled_at = Some(settlement.at);
        command.accepted_at.get_or_insert(settlement.at);
        host.acknowledged = host.acknowledged.max(settlement.sequence);
        self.reports.push((command.number, &settlement.envelope));
        self.follow_ups.extend(placed);
        self.apps.extend(settlement.app.iter().map(|change| (host.number, change)));
        let number = command.number;
        self.put(whose, command, host);
        Ok(number)
    }

    fn keep(&mut self, kept: &KeptReport) -> Result<(), StoreError> {
        let mut host = self.host_row(kept.host)?;
        host.chain(kept.host, kept.expected_last, kept.position, kept.audit_head)?;
        int(kept.sequence.0)?;
        host.acknowledged = host.acknowledged.max(kept.sequence);
        host.changed = true;
        self.hosts.insert(kept.host, host);
        Ok(())
    }

    fn place_follow_ups(
        &self,
        settlement: &'w Settlement,
        command: &CommandRow,
    ) -> Result<Vec<PlacedCommand<'w>>, StoreError> {
        let mut placed: Vec<PlacedCommand<'w>> = Vec::with_capacity(settlement.follow_up.len());
        for new in &settlement.follow_up {
            let order = &new.order;
            if order.operation != command.operation {
                return conflict(format!(
                    "command {} belongs to another operation than what it follows",
                    order.command
                ));
            }
            let others = self.follow_ups.iter().chain(&placed).map(|other| other.command.order.command);
            if self.commands.contains_key(&order.command) || others.into_iter().any(|other| other == order.command) {
                return conflict(format!("command {} exists already", order.command));
            }
            let Some(host) = self.hosts.get(&order.host).filter(|host| !host.revoked) else {
                return conflict(format!("host {} is not known, or was revoked", order.host));
            };
            placed.push(PlacedCommand { command: new, host: host.number, operation: command.operation_number });
        }
        Ok(placed)
    }
}

impl HostRow {
    /// The next report of the host's chain.
    fn chain(
        &mut self,
        host: HostId,
        expected_last: ReportPosition,
        position: ReportPosition,
        audit_head: Option<LogPosition>,
    ) -> Result<(), StoreError> {
        let last = self.last_report;
        if last != expected_last {
            let (is, was) = (last.sequence, expected_last.sequence);
            return conflict(format!("the last report of host {host} is number {is} by now, or another number {was}"));
        }
        // A report that fills an earlier gap leaves the chain, and the newer head, where they stand.
        if position == last {
            return Ok(());
        }
        if position.sequence <= last.sequence {
            return conflict(format!(
                "report {} of host {host} does not follow number {}",
                position.sequence, last.sequence
            ));
        }
        int(position.sequence.0)?;
        int(audit_head.map_or(0, |head| head.size))?;
        self.last_report = position;
        self.audit_head = audit_head.or(self.audit_head);
        Ok(())
    }
}

fn moved(command: CommandId, from: CommandStatus, event: CommandEvent) -> Result<CommandStatus, StoreError> {
    from.after(event).map_err(|error| StoreError::Conflict(format!("command {command}: {error}")))
}

fn check_sequence(id: CommandId, command: &CommandRow, sequence: Sequence) -> Result<(), StoreError> {
    if sequence.0 == 0 || sequence > command.sealed_last {
        return conflict(format!("command {id} was never sealed with sequence {sequence}"));
    }
    Ok(())
}

/// Writing back.
impl Run<'_> {
    async fn flush(self, t: &mut Transaction<'_>) -> Result<(), Failure> {
        flush::commands(t, self.commands.into_values().filter(|row| row.changed).collect()).await?;
        flush::hosts(t, self.hosts.into_values().filter(|row| row.changed).collect()).await?;
        flush::seals(t, &self.seals).await?;
        flush::reports(t, &self.reports).await?;
        insert_commands(t, &self.follow_ups).await?;
        for (host, change) in self.apps {
            match change {
                AppChange::Deployed(instance) => flush::app_put(t, host, instance).await?,
                AppChange::Ran { app, state, .. } => flush::app_ran(t, host, app, *state).await?,
                AppChange::Removed { app, .. } => flush::app_remove(t, host, app).await?,
            }
        }
        Ok(())
    }
}
