//! What was approved is what happens: before the first effect of an order whose approvals are bound to a plan, the
//! action plans once more, under the lock that it will act under, and must come to that very plan.
//!
//! That it did is durable before the action begins, and as long as the command has no end: an action that is
//! resumed after a crash has changed the host, so it would plan something else.

use std::sync::Arc;

use actions::{Request, outcome::OutcomeStatus, port::ActionContext};
use envelope::messages::ReportStatus;
use ids::sha256;
use serde_json::{Value, json};
use session::agent::{
    end_message,
    io::{End, StartCommand},
};

use super::{Doors, ExecutorEvent, SharedOutput, Stream, masker, result};

/// What the journal holds under the command's key.
const CHECKED: &[u8] = b"checked";

/// `None` when the action may begin; else how the command ends.
pub(super) async fn check(
    start: &StartCommand,
    request: &Request,
    context: &mut ActionContext,
    doors: &Doors,
) -> Option<End> {
    let plan = start.plan?;
    // What may only be put back does nothing that was to be approved.
    if start.backwards_only || context.dry_run {
        return None;
    }
    let (order, journal) = (&start.command.order, &doors.tools.journal);
    let key = journal::plan_key(order.command);
    match journal.record_read(&key).await {
        Ok(Some(_)) => return None,
        Ok(None) => {}
        Err(error) => return Some(journal_failed(doors, error).await),
    }
    let outcome = {
        let (output, stream) = (Arc::new(SharedOutput::default()), Arc::new(Stream::default()));
        let masker = masker(context, request);
        let mut port = doors.port(order, request, &masker, &output, &stream);
        context.dry_run = true;
        let outcome = request.run(context, &mut port).await;
        context.dry_run = false;
        let (succeeded, cancelled) =
            (outcome.status == OutcomeStatus::Succeeded, outcome.status == OutcomeStatus::Cancelled);
        let words = masker.mask(&outcome.message);
        (succeeded, cancelled, words, result::encode(outcome, &masker).1)
    };
    let (succeeded, cancelled, words, bytes) = outcome;
    if cancelled {
        return Some(end_message(
            ReportStatus::Cancelled,
            "cancelled before it began; nothing was changed",
            &Value::Null,
        ));
    }
    if !succeeded {
        return Some(rejected(&format!("it cannot be planned again, so nothing was done: {words}")));
    }
    let now = sha256(&bytes);
    if now != plan {
        return Some(rejected(&format!(
            "the plan changed since it was approved (approved {plan}, now {now}), so nothing was done; propose it again. \
             Now it would be: {words}"
        )));
    }
    match journal.record_write(&key, Some(CHECKED.to_vec())).await {
        Ok(()) => None,
        Err(error) => Some(journal_failed(doors, error).await),
    }
}

fn rejected(message: &str) -> End {
    end_message(ReportStatus::Rejected, &format!("approvals: {message}"), &json!({ "refused_by": "approvals" }))
}

async fn journal_failed(doors: &Doors, error: journal::JournalError) -> End {
    let message = format!("the agent's journal cannot be used ({error}); nothing was done");
    let _ = doors.events.send(ExecutorEvent::JournalFailed(error)).await;
    end_message(ReportStatus::Failed, &message, &Value::Null)
}
