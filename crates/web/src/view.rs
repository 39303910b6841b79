//! From what is stored to what the API shows. Signed things are verified again on the way out, so
//! that "verified by" is a statement about these very bytes.

pub(crate) mod keys;
mod reporter;

use std::collections::{BTreeMap, BTreeSet};

use api::{
    CommandDetail, CommandSummary, HostStatus, HostSummary, OperationCommand, OperationResponse, OperationState,
    OperationSummary, SignedOrder, SignedReport,
};
use data_encoding::BASE64;
use envelope::{
    Payload,
    messages::{Command as SignedCommand, Report, ReportStatus},
    root::TrustedRoot,
    verify,
};
use fleet::{
    list::{CommandLine, OperationLine},
    model::{Command, CommandFilter, CommandStatus, Host, HostStanding, Operation, OperationKind},
    operation::{OperationProgress, operation_progress},
    ports::{Notifier, Store, StoreError},
    releases::AgentRelease,
};
use futures_util::future::try_join_all;
use ids::{HostId, KeyId, OperationId, UnixMs};
use serde_json::{Value, value::to_value};

pub(crate) use self::reporter::Reporter;
use crate::limits;

/// Said of an envelope that no key verifies.
const VERIFIED_BY_NONE: &str = "none";

pub(crate) fn status(status: CommandStatus) -> api::CommandStatus {
    match status {
        CommandStatus::Held => api::CommandStatus::Held,
        CommandStatus::Queued => api::CommandStatus::Queued,
        CommandStatus::Delivered => api::CommandStatus::Delivered,
        CommandStatus::Accepted => api::CommandStatus::Accepted,
        CommandStatus::Running => api::CommandStatus::Running,
        CommandStatus::Succeeded => api::CommandStatus::Succeeded,
        CommandStatus::Failed => api::CommandStatus::Failed,
        CommandStatus::RolledBack => api::CommandStatus::RolledBack,
        CommandStatus::Rejected => api::CommandStatus::Rejected,
        CommandStatus::Expired => api::CommandStatus::Expired,
        CommandStatus::Unknown => api::CommandStatus::Unknown,
        CommandStatus::Cancelled => api::CommandStatus::Cancelled,
    }
}

pub(crate) fn status_read(status: api::CommandStatus) -> CommandStatus {
    match status {
        api::CommandStatus::Held => CommandStatus::Held,
        api::CommandStatus::Queued => CommandStatus::Queued,
        api::CommandStatus::Delivered => CommandStatus::Delivered,
        api::CommandStatus::Accepted => CommandStatus::Accepted,
        api::CommandStatus::Running => CommandStatus::Running,
        api::CommandStatus::Succeeded => CommandStatus::Succeeded,
        api::CommandStatus::Failed => CommandStatus::Failed,
        api::CommandStatus::RolledBack => CommandStatus::RolledBack,
        api::CommandStatus::Rejected => CommandStatus::Rejected,
        api::CommandStatus::Expired => CommandStatus::Expired,
        api::CommandStatus::Unknown => CommandStatus::Unknown,
        api::CommandStatus::Cancelled => CommandStatus::Cancelled,
    }
}

const fn report_word(status: ReportStatus) -> &'static str {
    match status {
        ReportStatus::Succeeded => "succeeded",
        ReportStatus::Failed => "failed",
        ReportStatus::RolledBack => "rolled_back",
        ReportStatus::Cancelled => "cancelled",
        ReportStatus::Rejected => "rejected",
        ReportStatus::Expired => "expired",
        ReportStatus::Revoked => "revoked",
        ReportStatus::Unknown => "unknown",
    }
}

/// `name@version`.
pub(crate) fn action(command: &Command) -> String {
    format!("{}@{}", command.order.action, command.order.action_version)
}

pub(crate) fn command_summary(command: &Command) -> CommandSummary {
    CommandSummary {
        command_id: command.order.command,
        operation_id: command.order.operation,
        host: command.host_name.clone(),
        action: action(command),
        app: command.app.clone(),
        dry_run: command.order.dry_run,
        status: status(command.status),
        message: command.message.clone(),
        requested_by: command.requested_by.clone(),
        proposed_at: command.order.proposed_at.into(),
        settled_at: command.settled_at.map(Into::into),
    }
}

pub(crate) fn command_line(line: CommandLine) -> CommandSummary {
    CommandSummary {
        command_id: line.command,
        operation_id: line.operation,
        host: line.host_name,
        action: format!("{}@{}", line.action, line.action_version),
        app: line.app,
        dry_run: line.dry_run,
        status: status(line.status),
        message: line.message,
        requested_by: line.requested_by,
        proposed_at: line.proposed_at.into(),
        settled_at: line.settled_at.map(Into::into),
    }
}

/// `reporter` is the command's host.
pub(crate) fn command_detail(command: &Command, reporter: &Reporter, root: &TrustedRoot) -> CommandDetail {
    let orders = command.seals.iter().map(|seal| SignedOrder {
        sequence: seal.sequence.0,
        expires_at: seal.expires.into(),
        envelope: BASE64.encode(&seal.envelope),
        payload_type: SignedCommand::TYPE.to_owned(),
        verified_by: command_key(root, &seal.envelope)
            .map_or_else(|| VERIFIED_BY_NONE.to_owned(), |key| key.to_string()),
    });
    let report = command.report.as_deref().and_then(|envelope| reporter.verified(envelope));
    CommandDetail {
        summary: command_summary(command),
        parameters: serde_json::from_slice(&command.order.parameters).unwrap_or(Value::Null),
        sealed_values: command.order.sealed.iter().map(|sealed| sealed.name.clone()).collect(),
        deliver_by: command.order.deliver_by.into(),
        delivered_at: command.delivered_at.map(Into::into),
        accepted_at: command.accepted_at.map(Into::into),
        started_at: command.started_at.map(Into::into),
        orders: orders.collect(),
        report: report.map(|report| SignedReport {
            sequence: report.sequence.0,
            status: report_word(report.status).to_owned(),
            finished_at: report.finished_at.into(),
            result: report_result(&report),
            envelope: BASE64.encode(report.envelope()),
            payload_type: Report::TYPE.to_owned(),
            verified_by: report.key_id().to_string(),
        }),
    }
}

/// The command key of this fleet, present or past, that verifies an order.
fn command_key(root: &TrustedRoot, envelope: &[u8]) -> Option<KeyId> {
    let by = |root: &TrustedRoot| verify::<SignedCommand>(envelope, root.command_keys()).ok().map(|it| it.key_id());
    let past = || {
        let chain = root.chain();
        let earlier = (1..chain.len()).rev().filter_map(|length| TrustedRoot::from_stored(&chain[..length]).ok());
        earlier.into_iter().find_map(|root| by(&root))
    };
    by(root).or_else(past)
}

/// The `result` part of a report's `{message, result}`.
fn report_result(report: &Report) -> Value {
    let whole: Value = serde_json::from_slice(&report.result).unwrap_or(Value::Null);
    match whole {
        Value::Object(mut parts) => parts.remove("result").unwrap_or(Value::Null),
        _ => Value::Null,
    }
}

pub(crate) fn operation_line(line: OperationLine) -> OperationSummary {
    OperationSummary {
        operation_id: line.operation,
        kind: match line.kind {
            OperationKind::Single => "single",
            OperationKind::Deploy => "deploy",
        }
        .to_owned(),
        state: state(line.commands.iter().map(|(status, _)| *status)),
        requested_by: line.requested_by,
        created_at: line.created_at.into(),
        dry_run: line.dry_run,
        selector: line.selector,
        commands: line.commands.into_iter().map(|(is, count)| (status(is), count)).collect(),
    }
}

fn state(commands: impl IntoIterator<Item = CommandStatus>) -> OperationState {
    match operation_progress(commands) {
        OperationProgress::Going => OperationState::Running,
        OperationProgress::Succeeded => OperationState::Succeeded,
        OperationProgress::EndedOtherwise => OperationState::Failed,
    }
}

/// An operation with its commands, in the order they were made. `head` is what is stored of it, if that is to be shown;
/// `hosts` holds at least the commands' own.
pub(crate) fn operation(
    id: OperationId,
    head: Option<Operation>,
    commands: &[Command],
    hosts: &BTreeMap<HostId, Reporter>,
) -> OperationResponse {
    let mut room = limits::RESULTS_BYTES_MAX;
    let mut result = |command: &Command| {
        let envelope = command.report.as_deref()?;
        room = room.checked_sub(envelope.len())?;
        Some(report_result(&*hosts.get(&command.order.host)?.verified(envelope)?))
    };
    let commands_shown = commands.iter().map(|command| OperationCommand {
        command_id: command.order.command,
        host: command.host_name.clone(),
        action: action(command),
        status: status(command.status),
        message: command.message.clone(),
        result: result(command),
    });
    OperationResponse {
        notes: Vec::new(),
        operation_id: id,
        commands: commands_shown.collect(),
        state: state(commands.iter().map(|command| command.status)),
        approvals_needed: head.as_ref().map(|head| head.approvals).filter(|needed| *needed > 0),
        selector: head.and_then(|head| head.selector),
    }
}

/// Every command of an operation, in the order they were made.
pub(crate) async fn operation_commands(store: &dyn Store, id: OperationId) -> Result<Vec<Command>, StoreError> {
    let mut commands: Vec<Command> = Vec::new();
    loop {
        let before = commands.last().map(|command| command.order.command);
        let filter = CommandFilter { operation: Some(id), before, limit: limits::LIST_MAX, ..CommandFilter::default() };
        let page = store.commands(filter).await?;
        let more = page.len() >= limits::LIST_MAX as usize;
        commands.extend(page);
        if !more {
            break;
        }
    }
    commands.reverse();
    Ok(commands)
}

/// Who reported on some commands, all asked for at once: the store reads together what waits.
pub(crate) async fn reporters_of(
    store: &dyn Store,
    commands: &[Command],
) -> Result<BTreeMap<HostId, Reporter>, StoreError> {
    let reported = commands.iter().filter(|command| command.report.is_some());
    let ids: BTreeSet<HostId> = reported.map(|command| command.order.host).collect();
    let hosts = try_join_all(ids.into_iter().map(|id| store.host(id))).await?.into_iter().flatten();
    let reporters = hosts.map(|host| async move { Ok((host.id, Reporter::of(store, host).await?)) });
    Ok(try_join_all(reporters).await?.into_iter().collect())
}

/// An operation as the API shows it, from the store.
pub(crate) async fn operation_read(store: &dyn Store, id: OperationId) -> Result<OperationResponse, StoreError> {
    let commands = operation_commands(store, id).await?;
    let hosts = reporters_of(store, &commands).await?;
    Ok(operation(id, store.operation(id).await?, &commands, &hosts))
}

pub(crate) fn host_summary(host: &Host, notifier: &dyn Notifier, now: UnixMs) -> HostSummary {
    let connected = notifier.connected(host.id).is_some();
    HostSummary {
        id: host.id,
        name: host.name.clone(),
        status: match host.standing {
            HostStanding::Revoked { .. } => HostStatus::Revoked,
            HostStanding::Quarantined { .. } => HostStatus::Quarantined,
            HostStanding::Active if connected => HostStatus::Connected,
            HostStanding::Active => HostStatus::Offline,
        },
        roles: host.roles.clone(),
        labels: host.labels.clone(),
        agent_version: host.agent_version.clone(),
        agent_release: AgentRelease::of(&host.agent_version).map(|release| match release {
            AgentRelease::Newer => api::AgentRelease::Newer,
            AgentRelease::TooOld => api::AgentRelease::TooOld,
        }),
        last_seen: if connected { Some(now.into()) } else { host.last_seen.map(Into::into) },
        clock_skew_ms: host.clock_skew_ms,
    }
}

/// A stored JSON document, or null where there is none.
pub(crate) fn json(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap_or(Value::Null)
}

/// Whether a deploy's result says that health was proved.
pub(crate) fn is_verified(result: &Value) -> bool {
    result.get("verified") == Some(&Value::Bool(true))
}

/// An API type as JSON; these types have no form that JSON cannot hold.
pub(crate) fn value<T: serde::Serialize>(document: &T) -> Value {
    to_value(document).unwrap_or(Value::Null)
}
