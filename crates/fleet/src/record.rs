//! The audit log's entries as this room words them. A record holds hashes, ids and words, never
//! parameters, secrets or output: those stay with the command, where retention may prune them.

use envelope::{audit::AuditKind, messages::Order, recovery::RecoveryCopy};
use ids::{CommandId, HostEpoch, HostId, HostName, Sha256, StandingOrderId, UnixMs};
use serde_json::{Value, json};

use crate::{
    model::{Command, Host, NewCommand, Operation, OperationKind},
    ports::{AuditEntry, AuditRecord, SignedStanding},
};

/// Who acts when no person does.
pub(crate) const CONTROL_PLANE: &str = "control-plane";

/// The actor's name of a host.
pub(crate) fn host_actor(name: &HostName) -> String {
    format!("host:{name}")
}

fn inline(record: &Value) -> AuditRecord {
    AuditRecord::Inline(record.to_string().into_bytes())
}

fn order_line(order: &Order) -> Value {
    json!({
        "command": order.command,
        "host": order.host,
        "action": order.action,
        "version": order.action_version,
        "order_sha256": order.sha256(),
    })
}

/// An operation was granted, or its next stage was made.
pub(crate) fn proposal(
    operation: &Operation,
    commands: &[NewCommand],
    recovery: Option<&RecoveryCopy>,
    stage: u32,
    actor: String,
    now: UnixMs,
) -> AuditEntry {
    let kind = match operation.kind {
        OperationKind::Single => "single",
        OperationKind::Deploy => "deploy",
    };
    let mut record = json!({
        "operation": operation.id,
        "kind": kind,
        "stage": stage,
        "requested_by": operation.requested_by,
        "request_sha256": operation.request_sha256,
        "dry_run": operation.dry_run,
        "commands": commands.iter().map(|new| order_line(&new.order)).collect::<Vec<_>>(),
    });
    // Beside what it came to: the hosts of the commands.
    if let Some(selector) = &operation.selector {
        record["selector"] = json!(selector);
    }
    if let Some(copy) = recovery {
        record["recovery_sha256"] = json!(copy.values_sha256());
    }
    let subject = format!("operation {}", operation.id);
    AuditEntry { time: now, kind: AuditKind::Proposal, actor, subject, record: inline(&record) }
}

/// A command was sealed: the leaf covers its signed bytes, and is durable before they are sent.
pub(crate) fn command(order: &Order, host: &HostName, envelope: Vec<u8>, now: UnixMs) -> AuditEntry {
    let subject = format!("command {} ({}) to host {host}", order.command, order.action);
    let actor = CONTROL_PLANE.to_owned();
    AuditEntry { time: now, kind: AuditKind::Command, actor, subject, record: AuditRecord::Envelope(envelope) }
}

/// Somebody approved a held command: the leaf covers the signed bytes.
pub(crate) fn approval(command: &Command, actor: String, envelope: Vec<u8>, now: UnixMs) -> AuditEntry {
    let order = &command.order;
    let subject = format!("operation {} ({}) on host {}", order.operation, order.action, command.host_name);
    AuditEntry { time: now, kind: AuditKind::Approval, actor, subject, record: AuditRecord::Envelope(envelope) }
}

/// An approver said no.
pub(crate) fn approval_denied(
    operation: &Operation,
    held: &[&Command],
    actor: String,
    because: &str,
    now: UnixMs,
) -> AuditEntry {
    let commands: Vec<Value> = held.iter().map(|command| order_line(&command.order)).collect();
    let record = json!({ "operation": operation.id, "because": because, "commands": commands });
    let subject = format!("operation {}", operation.id);
    AuditEntry { time: now, kind: AuditKind::ApprovalDenied, actor, subject, record: inline(&record) }
}

/// A verified report: the leaf covers its signed bytes.
pub(crate) fn report(of: CommandId, host: &HostName, envelope: Vec<u8>, now: UnixMs) -> AuditEntry {
    let subject = format!("report of command {of}");
    AuditEntry {
        time: now,
        kind: AuditKind::Report,
        actor: host_actor(host),
        subject,
        record: AuditRecord::Envelope(envelope),
    }
}

/// Someone ended a command that was never sealed.
pub(crate) fn command_cancel(command: &Command, actor: String, why: &str, now: UnixMs) -> AuditEntry {
    command_end(AuditKind::Cancel, command, actor, why, now)
}

/// A command ended without its host's word.
pub(crate) fn command_settled(command: &Command, why: &str, now: UnixMs) -> AuditEntry {
    command_end(AuditKind::CommandSettled, command, CONTROL_PLANE.to_owned(), why, now)
}

fn command_end(kind: AuditKind, command: &Command, actor: String, why: &str, now: UnixMs) -> AuditEntry {
    let order = &command.order;
    let record = json!({ "command": order.command, "host": order.host, "was": command.status.as_str(), "why": why });
    let subject = format!("command {} ({}) for host {}", order.command, order.action, command.host_name);
    AuditEntry { time: now, kind, actor, subject, record: inline(&record) }
}

/// Something about one host that its owner must know of.
pub(crate) fn host_event(kind: AuditKind, host: HostId, name: &HostName, why: &str, now: UnixMs) -> AuditEntry {
    let record = json!({ "host": host, "why": why });
    let subject = format!("host {name}");
    AuditEntry { time: now, kind, actor: CONTROL_PLANE.to_owned(), subject, record: inline(&record) }
}

/// A host has left the fleet: an order told it to, and it did.
pub(crate) fn host_retired(host: &Host, command: CommandId, now: UnixMs) -> AuditEntry {
    let record = json!({ "host": host.id, "name": host.name, "retired_by": command });
    let subject = format!("host {} ({})", host.name, host.id);
    AuditEntry {
        time: now,
        kind: AuditKind::HostRevoked,
        actor: CONTROL_PLANE.to_owned(),
        subject,
        record: inline(&record),
    }
}

/// A host has new keys: the leaf covers the rotation as both its keys signed it.
pub(crate) fn host_keys(name: &HostName, host_epoch: HostEpoch, rotation: Vec<u8>, now: UnixMs) -> AuditEntry {
    let subject = format!("host {name}, keys of epoch {host_epoch}");
    let (actor, record) = (host_actor(name), AuditRecord::Inline(rotation));
    AuditEntry { time: now, kind: AuditKind::HostKeyChange, actor, subject, record }
}

/// A host is led out of quarantine: the leaf covers the reset as it was signed.
pub(crate) fn guard_reset(host: HostId, name: &HostName, envelope: Vec<u8>, now: UnixMs) -> AuditEntry {
    let (actor, subject) = (CONTROL_PLANE.to_owned(), format!("host {name} ({host})"));
    AuditEntry { time: now, kind: AuditKind::GuardReset, actor, subject, record: AuditRecord::Inline(envelope) }
}

/// A standing order was signed: the leaf covers the signed bytes, which name the operation that first brought it.
pub(crate) fn standing_order(
    order: StandingOrderId,
    host: &HostName,
    operation: &Operation,
    sealed: &SignedStanding,
    actor: String,
    now: UnixMs,
) -> AuditEntry {
    let revision = sealed.seal.revision;
    let subject = format!("standing order {order} on host {host}, revision {revision}, by operation {}", operation.id);
    let record = AuditRecord::Inline(sealed.envelope.clone());
    AuditEntry { time: now, kind: AuditKind::StandingOrder, actor, subject, record }
}

/// Newer root metadata came from a host.
pub(crate) fn root_change(
    version: ids::RootVersion,
    payload_sha256: Sha256,
    from: &HostName,
    now: UnixMs,
) -> AuditEntry {
    let record = json!({ "version": version, "payload_sha256": payload_sha256 });
    let subject = format!("root metadata version {version}");
    AuditEntry { time: now, kind: AuditKind::RootChange, actor: host_actor(from), subject, record: inline(&record) }
}
