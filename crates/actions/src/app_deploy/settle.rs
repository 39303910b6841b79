//! What an earlier run left half-way comes first: this order's own, or another's that could not be
//! finished.

use serde_json::json;

use super::{commit, put_back};
use crate::{
    app_remove::remove_pending,
    engine::Engine,
    lifecycle,
    outcome::{Outcome, OutcomeStatus},
    port::{ActionContext, ActionPort},
    release::{Book, Pending, Phase, RecordedEnd, RunPhase},
};

/// What is left to do after looking at the record.
pub(crate) enum Settled {
    /// Nothing is pending: begin.
    Nothing,
    /// This order's own change was on its way forward.
    Forward,
    /// The order has ended.
    Ended(Outcome),
}

/// Finishes whatever the record has pending. Only this order's own way forward is left to the caller.
pub(crate) async fn settle_earlier<P: ActionPort>(
    context: &ActionContext,
    book: &mut Book,
    engine: &mut Engine<'_, P>,
) -> Settled {
    let Some(pending) = book.record.pending.clone() else {
        return Settled::Nothing;
    };
    engine.touched();
    match pending {
        Pending::Remove { .. } => match remove_pending(book, engine).await {
            Ok(_) => Settled::Nothing,
            Err(stop) => unsettled(book, "removal", stop.words()),
        },
        Pending::Run(pending) => {
            let own = pending.command == context.command;
            let outcome = match pending.phase {
                RunPhase::Stopping | RunPhase::Starting if own => return Settled::Forward,
                RunPhase::Stopping | RunPhase::Starting => {
                    let message = format!("an earlier {} had stopped half-way", pending.verb.noun());
                    let result = json!({ "app": book.record.app, "changed": false });
                    let (command, status) = (pending.command, OutcomeStatus::RolledBack);
                    lifecycle::put_back(RecordedEnd { command, status, message, result }, context, book, engine).await
                }
                RunPhase::Back(_) => lifecycle::go_back(context, book, engine).await,
            };
            ended(own, pending.verb.noun(), outcome, book)
        }
        Pending::Deploy(pending) => {
            let own = pending.command == context.command;
            let outcome = match pending.phase {
                Phase::Forward if own => return Settled::Forward,
                Phase::Forward => {
                    let end = RecordedEnd {
                        command: pending.command,
                        status: OutcomeStatus::RolledBack,
                        message: "an earlier deploy had stopped half-way".to_owned(),
                        result: json!({ "app": book.record.app, "changed": false }),
                    };
                    put_back::put_back(end, context, book, engine).await
                }
                Phase::Back(_) => put_back::go_back(context, book, engine).await,
                Phase::Clean(_) => commit::clean(book, engine).await,
            };
            ended(own, "deploy", outcome, book)
        }
    }
}

fn ended(own: bool, what: &str, outcome: Outcome, book: &Book) -> Settled {
    if own {
        Settled::Ended(outcome)
    } else if book.record.pending.is_some() {
        unsettled(book, what, &outcome.message)
    } else {
        Settled::Nothing
    }
}

fn unsettled(book: &Book, what: &str, why: &str) -> Settled {
    let mut outcome = Outcome::failed(format!(
        "nothing new was begun, because an earlier {what} of {} is still half-way: {why}",
        book.record.app
    ));
    outcome.result = json!({ "app": book.record.app, "changed": false, "rollback_pending": true });
    Settled::Ended(outcome)
}
