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
    stop::Stop,
};

/// What is left to do after looking at the record.
pub(crate) enum Settled {
    /// Nothing is pending any more: begin. What was settled before.
    Before(Earlier),
    /// This order's own change was on its way forward.
    Forward,
    /// The order has ended.
    Ended(Outcome),
}

/// Another order's change that was half-way, and is not any more.
#[derive(Default)]
pub(crate) struct Earlier {
    /// What became of it, in words; absent when nothing was half-way.
    words: Option<String>,
    /// Whether it was a removal: then nothing of the app is left.
    removed: bool,
}

impl Earlier {
    /// The end of an order that stopped before it touched anything itself.
    pub(crate) fn untouched(&self, stop: Stop, what_failed: &str) -> Outcome {
        let Some(words) = &self.words else { return stop.untouched(what_failed) };
        let mut outcome = match stop {
            Stop::Cancelled => Outcome::cancelled(format!("{what_failed}: it was cancelled before it began. {words}")),
            stop => Outcome::failed(format!("{what_failed}: {}. {words}", stop.words().trim_end_matches('.'))),
        };
        outcome.result = json!({ "changed": true });
        if self.removed {
            outcome.result["absent"] = json!(true);
        }
        outcome
    }
}

/// Finishes whatever the record has pending. Only this order's own way forward is left to the caller.
pub(crate) async fn settle_earlier<P: ActionPort>(
    context: &ActionContext,
    book: &mut Book,
    engine: &mut Engine<'_, P>,
) -> Settled {
    let Some(pending) = book.record.pending.clone() else {
        return Settled::Before(Earlier::default());
    };
    engine.touched();
    let app = book.record.app.clone();
    match pending {
        Pending::Remove { .. } => match remove_pending(book, engine).await {
            Ok(_) => {
                let words = format!("First an earlier removal of {app}, which was half-way, was finished");
                Settled::Before(Earlier { words: Some(words), removed: true })
            }
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
        let words = format!("First an earlier {what} of {}, which was half-way, was settled", book.record.app);
        let words = Some(format!("{words}: {}", outcome.message.trim_end_matches('.')));
        Settled::Before(Earlier { words, removed: false })
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
