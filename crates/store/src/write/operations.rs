//! Operations, the commands they are made of, and ends that no report brings.

use std::collections::HashMap;

use envelope::recovery::RecoveryCopy;
use fleet::{
    command::CommandEvent,
    limits::OPEN_PER_HOST_MAX,
    model::{CommandStatus, NewCommand, Operation},
    ports::{Approved, Endorsed, StoreError, Written},
};
use ids::{CommandId, HostId, UnixMs};

use super::{Transaction, recovery, take, unknown};
use crate::{
    cipher::{Cipher, Place},
    codes::operation_kind_word,
    fault::Failure,
    rows::{Fields, bind_list, int, named_encode, pieces},
};

pub(super) async fn propose(
    t: &mut Transaction<'_>,
    operation: &Operation,
    commands: &[NewCommand],
    recovery: Option<&RecoveryCopy>,
) -> Result<Written, Failure> {
    // What is there already is no new order; and one question is cheaper than two.
    let same = sqlx::query(
        "SELECT request_sha256 FROM operations WHERE id = $1 \
         UNION ALL SELECT NULL FROM recoveries WHERE confirmed_at IS NULL LIMIT 1",
    );
    if let Some(row) = t.row("looking for an operation", same.bind(&operation.id.as_bytes()[..])).await? {
        if Fields::of(&row, "the operations").get::<Option<Vec<u8>>>()?.is_none() {
            return Err(Failure::Refused(StoreError::Recovering));
        }
        if Fields::of(&row, "the operations").hash()? == operation.request_sha256 {
            return Ok(Written::AlreadyProposed);
        }
        return Err(Failure::conflict(format!(
            "operation {} exists already and asks for something else; choose a new operation id",
            operation.id
        )));
    }
    let number = take(&mut t.numbers.operation);
    let detail = t.cipher.seal(Place::OPERATION_DETAIL, number, &operation.detail)?;
    let (created_at, queue_for_ms) = (int(operation.created_at.0)?, int(operation.queue_for_ms)?);
    let insert = t.later(
        "INSERT INTO operations (number, id, kind, requested_by, created_at, request_sha256, queue_for_ms, dry_run, detail, \
         selector, approvals, requester) ",
    );
    insert.push_values([detail], |mut values, detail| {
        values.push_bind(number).push_bind(operation.id.as_bytes().to_vec());
        values.push_bind(operation_kind_word(operation.kind)).push_bind(operation.requested_by.as_str().to_owned());
        values.push_bind(created_at).push_bind(operation.request_sha256.0.to_vec()).push_bind(queue_for_ms);
        values.push_bind(operation.dry_run).push_bind(detail);
        values.push_bind(operation.selector.clone()).push_bind(i64::from(operation.approvals));
        values.push_bind(operation.requester.map(|key| key.as_bytes().to_vec()));
    });
    if let Some(copy) = recovery {
        recovery::insert(t, number, copy);
    }
    if let Some(stray) = commands.iter().find(|command| command.order.operation != operation.id) {
        return Err(Failure::conflict(format!(
            "command {} belongs to operation {}, not to {}",
            stray.order.command, stray.order.operation, operation.id
        )));
    }
    let hosts = hosts_by_id(t, commands.iter().map(|command| command.order.host).collect()).await?;
    let mut placed = Vec::with_capacity(commands.len());
    for command in commands {
        let host = hosts.get(&command.order.host).ok_or_else(|| unknown("host", command.order.host))?;
        match host {
            HostPlace { revoked: true, .. } => {
                return Err(Failure::conflict(format!(
                    "host {} was revoked; nothing can be ordered from it",
                    command.order.host
                )));
            }
            HostPlace { open, .. } if *open >= i64::from(OPEN_PER_HOST_MAX) && !command.is_cancel() => {
                return Err(Failure::conflict(format!(
                    "host {} has {open} commands that have not ended, which is the most; cancel some, or wait for the host",
                    command.order.host
                )));
            }
            HostPlace { number: host, .. } => placed.push(PlacedCommand { command, host: *host, operation: number }),
        }
    }
    insert_commands(t, &placed).await?;
    Ok(Written::Done)
}

struct HostPlace {
    number: i64,
    revoked: bool,
    /// Commands without an end.
    open: i64,
}

async fn hosts_by_id(t: &mut Transaction<'_>, mut ids: Vec<HostId>) -> Result<HashMap<HostId, HostPlace>, Failure> {
    ids.sort_unstable();
    ids.dedup();
    let mut hosts = HashMap::with_capacity(ids.len());
    for piece in pieces(&ids) {
        t.room_for(piece.len()).await?;
        let select = t.later(
            "SELECT id, number, revoked_at IS NOT NULL, \
                 (SELECT count(*) FROM commands WHERE host = hosts.number AND settled_at IS NULL) \
                 FROM hosts WHERE id IN (",
        );
        bind_list(select, piece.iter().map(|id| id.as_bytes().to_vec()));
        for row in t.rows_together("looking for the hosts of an operation").await? {
            let mut fields = Fields::of(&row, "the hosts");
            hosts
                .insert(fields.id()?, HostPlace { number: fields.get()?, revoked: fields.get()?, open: fields.get()? });
        }
    }
    Ok(hosts)
}

/// A new command, its host and its operation found.
#[derive(Clone, Copy, Debug)]
pub(super) struct PlacedCommand<'w> {
    pub(super) command: &'w NewCommand,
    pub(super) host: i64,
    pub(super) operation: i64,
}

/// Inserts queued commands. Equal parameters of one call are stored once.
pub(super) async fn insert_commands(t: &mut Transaction<'_>, commands: &[PlacedCommand<'_>]) -> Result<(), Failure> {
    let mut texts: HashMap<&[u8], i64> = HashMap::new();
    for placed in commands {
        let text = placed.command.order.parameters.as_slice();
        if texts.contains_key(text) {
            continue;
        }
        let number = take(&mut t.numbers.parameters);
        let body = t.cipher.seal(Place::PARAMETERS, number, text)?;
        let insert = t.later("INSERT INTO parameters (number, body) ");
        insert.push_values([body], |mut values, body| {
            values.push_bind(number).push_bind(body);
        });
        t.ended("storing parameters", commands.len()).await?;
        texts.insert(text, number);
    }
    for piece in pieces(commands) {
        let mut rows = Vec::with_capacity(piece.len());
        for placed in piece {
            let parameters = texts[placed.command.order.parameters.as_slice()];
            rows.push(CommandInsert::of(placed, take(&mut t.numbers.command), parameters, t.cipher)?);
        }
        t.room_for(piece.len()).await?;
        let insert = t.later(
            "INSERT INTO commands (number, id, host, operation, status, action, app, sealed_last, fleet, proposed_at, \
             deliver_by, start_within_ms, action_version, schema_sha256, requester, dry_run, parameters, sealed_refs, \
             sealed_values, message, requested_by) ",
        );
        insert.push_values(rows, |mut values, row| {
            let order = &row.command.order;
            values.push_bind(row.number).push_bind(order.command.as_bytes().to_vec());
            let is_held = row.command.held.is_some();
            let status = if is_held { CommandStatus::Held } else { CommandStatus::Queued };
            values.push_bind(row.host).push_bind(row.operation).push_bind(status.as_str());
            values.push_bind(order.action.as_str()).push_bind(row.command.app.as_ref().map(|app| app.as_str()));
            values.push_bind(0i64).push_bind(order.fleet.as_bytes().to_vec());
            values.push_bind(row.proposed_at).push_bind(row.deliver_by).push_bind(row.start_within_ms);
            values.push_bind(i64::from(order.action_version)).push_bind(order.schema_sha256.0.to_vec());
            values.push_bind(order.requester.map(|key| key.as_bytes().to_vec())).push_bind(order.dry_run);
            values.push_bind(row.parameters).push_bind(row.sealed_refs).push_bind(row.sealed_values);
            values.push_bind(row.message);
            values.push("(SELECT requested_by FROM operations WHERE number = ");
            values.push_bind_unseparated(row.operation).push_unseparated(")");
        });
        t.ended("storing commands", piece.len()).await?;
    }
    Ok(())
}

struct CommandInsert<'w> {
    command: &'w NewCommand,
    number: i64,
    host: i64,
    operation: i64,
    parameters: i64,
    proposed_at: i64,
    deliver_by: i64,
    start_within_ms: i64,
    sealed_refs: Vec<u8>,
    sealed_values: Vec<u8>,
    message: Option<Vec<u8>>,
}

impl<'w> CommandInsert<'w> {
    fn of(placed: &PlacedCommand<'w>, number: i64, parameters: i64, cipher: &Cipher) -> Result<Self, Failure> {
        let PlacedCommand { command, host, operation } = *placed;
        let order = &command.order;
        Ok(Self {
            command,
            number,
            host,
            operation,
            parameters,
            proposed_at: int(order.proposed_at.0)?,
            deliver_by: int(order.deliver_by.0)?,
            start_within_ms: int(order.start_within_ms)?,
            sealed_refs: named_encode(order.sealed.iter().map(|one| (one.name.as_str(), one.sha256.0.as_slice()))),
            sealed_values: named_encode(command.sealed.iter().map(|one| (one.name.as_str(), one.bytes.as_slice()))),
            message: command
                .held
                .as_ref()
                .map(|message| cipher.seal(Place::COMMAND_MESSAGE, number, message.as_bytes()))
                .transpose()?,
        })
    }
}

pub(super) async fn command_end(
    t: &mut Transaction<'_>,
    command: CommandId,
    from: &[CommandStatus],
    status: CommandStatus,
    message: &str,
    at: UnixMs,
) -> Result<Written, Failure> {
    let (number, before) = standing(t, command).await?;
    if !from.contains(&before) {
        return Err(Failure::conflict(format!("command {command} is {before} by now")));
    }
    let event = match status {
        CommandStatus::Cancelled => CommandEvent::CancelledBeforeSealing,
        CommandStatus::Expired => CommandEvent::ExpiredUndelivered,
        CommandStatus::Rejected => CommandEvent::RefusedBySigner,
        other => return Err(Failure::conflict(format!("only a report can make command {command} {other}"))),
    };
    let after = before.after(event).map_err(|error| Failure::conflict(format!("command {command}: {error}")))?;
    let message = t.cipher.seal(Place::COMMAND_MESSAGE, number, message.as_bytes())?;
    let update = sqlx::query("UPDATE commands SET status = $1, message = $2, settled_at = $3 WHERE number = $4")
        .bind(after.as_str())
        .bind(message)
        .bind(int(at.0)?)
        .bind(number);
    t.run("ending a command", update).await?;
    Ok(Written::Done)
}

/// Stores one person's approvals of held commands; each that has as many as are needed is queued.
pub(super) async fn approve(t: &mut Transaction<'_>, approved: &Approved) -> Result<Written, Failure> {
    for Endorsed { command, envelope, stored_before, message } in &approved.commands {
        let (number, before) = standing(t, *command).await?;
        let after = before.after(CommandEvent::Approved);
        let after = after.map_err(|error| Failure::conflict(format!("command {command}: {error}")))?;
        let count = sqlx::query("SELECT count(*) FROM command_approvals WHERE command = $1").bind(number);
        let count = t.row("counting approvals", count).await?.ok_or_else(|| unknown("command", command))?;
        if Fields::of(&count, "the approvals").number()? != *stored_before as u64 {
            return Err(Failure::conflict(format!("somebody else approved command {command} meanwhile")));
        }
        let insert = sqlx::query(
            "INSERT INTO command_approvals (command, approver, envelope, stored_at) VALUES ($1, $2, $3, $4) \
             ON CONFLICT DO NOTHING",
        )
        .bind(number)
        .bind(&approved.key.as_bytes()[..])
        .bind(envelope.as_slice())
        .bind(int(approved.at.0)?);
        if t.run("storing an approval", insert).await? == 0 {
            let key = approved.key;
            return Err(Failure::conflict(format!("key {key} has approved command {command} already")));
        }
        let status = if message.is_some() { before } else { after };
        let message = message.as_ref().map(|message| t.cipher.seal(Place::COMMAND_MESSAGE, number, message.as_bytes()));
        let update = sqlx::query("UPDATE commands SET status = $1, message = $2 WHERE number = $3")
            .bind(status.as_str())
            .bind(message.transpose()?)
            .bind(number);
        t.run("noting an approval", update).await?;
    }
    Ok(Written::Done)
}

/// Ends held commands because an approver said no.
pub(super) async fn deny(
    t: &mut Transaction<'_>,
    commands: &[CommandId],
    message: &str,
    at: UnixMs,
) -> Result<Written, Failure> {
    for command in commands {
        let (number, before) = standing(t, *command).await?;
        let after = before.after(CommandEvent::Denied);
        let after = after.map_err(|error| Failure::conflict(format!("command {command}: {error}")))?;
        let message = t.cipher.seal(Place::COMMAND_MESSAGE, number, message.as_bytes())?;
        let update = sqlx::query("UPDATE commands SET status = $1, message = $2, settled_at = $3 WHERE number = $4")
            .bind(after.as_str())
            .bind(message)
            .bind(int(at.0)?)
            .bind(number);
        t.run("ending what was denied", update).await?;
    }
    Ok(Written::Done)
}

/// Row number and status of a command.
async fn standing(t: &mut Transaction<'_>, command: CommandId) -> Result<(i64, CommandStatus), Failure> {
    let select = sqlx::query("SELECT number, status FROM commands WHERE id = $1").bind(command.as_bytes().to_vec());
    let row = t.row("looking for a command", select).await?.ok_or_else(|| unknown("command", command))?;
    let mut fields = Fields::of(&row, "the commands");
    Ok((fields.get()?, fields.word()?))
}
