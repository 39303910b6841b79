//! Stopping a command: by ending it here while it was never sealed, by an order to its host after.

use actions::Class;
use ids::{ActionName, FleetId, OperationId, UnixMs};
use serde_json::json;

use super::{
    CommandIds, Grounds, OperationRequest, ProposeError, Proposed, Target, Work, operation_propose, propose::authorise,
};
use crate::{
    command::CommandEvent,
    model::{Command, CommandStatus, Host, Principal},
    ports::Write,
    record,
};

const CANCEL: &str = "command.cancel";

/// How a command is to be stopped.
#[derive(Clone, Debug)]
pub enum CancelDecision {
    /// It was never sealed: this transaction ends it. On a conflict it was sealed meanwhile: read
    /// it and decide again.
    End(Box<Write>),
    /// Its host may have it: this orders the host to stop it and put things back.
    Order(Box<Proposed>),
}

/// Where the cancelling operation comes from.
#[derive(Clone, Copy, Debug)]
pub struct CancelOrigin<'a> {
    /// The fleet.
    pub fleet: FleetId,
    /// Id of the operation that cancels, if there has to be one.
    pub operation: OperationId,
    /// Who asks.
    pub actor: &'a Principal,
    /// When.
    pub now: UnixMs,
}

/// Why a command is not stopped.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CancelError {
    /// It has an end.
    #[error("command {command} has ended already: {status}")]
    Ended {
        /// Which one.
        command: ids::CommandId,
        /// How it ended.
        status: CommandStatus,
    },
    /// A cancellation cannot be cancelled.
    #[error("command {0} is a cancellation itself; let it end")]
    IsCancel(ids::CommandId),
    /// The order to stop it was not granted.
    #[error(transparent)]
    Refused(#[from] ProposeError),
}

/// Decides how to stop `command`, which was just read, on `host`.
///
/// # Errors
/// When it has ended, is a cancellation, or the person may not.
pub fn command_cancel(
    origin: CancelOrigin<'_>,
    command: &Command,
    host: &Host,
    ids: &mut dyn CommandIds,
) -> Result<CancelDecision, CancelError> {
    let cancel: ActionName = CANCEL.parse().expect("invariant: the name obeys the rule for action names");
    let CancelOrigin { fleet, operation, actor, now } = origin;
    if command.status.is_end() {
        return Err(CancelError::Ended { command: command.order.command, status: command.status });
    }
    if let Ok(status) = command.status.after(CommandEvent::CancelledBeforeSealing) {
        // Whoever asked for a command may take it back while it was never sealed.
        if actor.user_name != command.requested_by {
            authorise(actor, Class::Change, &cancel)?;
        }
        let message = format!("cancelled by {} before it was sent", actor.user_name);
        let audit = record::command_cancel(command, actor.audit_name(), &message, now);
        return Ok(CancelDecision::End(Box::new(Write::CommandEnd {
            command: command.order.command,
            from: vec![command.status],
            status,
            message,
            at: now,
            audit,
        })));
    }
    if command.order.action == cancel {
        return Err(CancelError::IsCancel(command.order.command));
    }
    let request = OperationRequest {
        id: operation,
        work: Work::Action {
            action: cancel,
            version: None,
            parameters: json!({ "command_id": command.order.command }).to_string().into_bytes(),
        },
        targets: vec![Target { host: host.id, sealed: Vec::new() }],
        queue_for: None,
        dry_run: false,
        selector: None,
        recovery: None,
    };
    let proposed = operation_propose(fleet, Grounds::default(), request, actor, core::slice::from_ref(host), now, ids)?;
    Ok(CancelDecision::Order(Box::new(proposed)))
}
