//! How an action ended.

use serde::{Deserialize, Serialize};

/// The end of one action, before it is masked, signed and reported.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// How it ended.
    pub status: OutcomeStatus,
    /// One or a few sentences for a person: what happened, to what, what to do next.
    pub message: String,
    /// The action's result, by its documented shape.
    pub result: serde_json::Value,
}

impl Outcome {
    pub(crate) fn succeeded(message: impl Into<String>, result: serde_json::Value) -> Self {
        Self { status: OutcomeStatus::Succeeded, message: message.into(), result }
    }

    pub(crate) fn failed(message: impl Into<String>) -> Self {
        Self { status: OutcomeStatus::Failed, message: message.into(), result: serde_json::json!({}) }
    }

    pub(crate) fn cancelled(message: impl Into<String>) -> Self {
        Self { status: OutcomeStatus::Cancelled, message: message.into(), result: serde_json::json!({}) }
    }
}

/// The ends an action can have by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OutcomeStatus {
    /// Done as ordered.
    Succeeded,
    /// Not done; the message says what state the host is in.
    Failed,
    /// Not done, and everything was put back and verified.
    RolledBack,
    /// Stopped on request, and everything was put back.
    Cancelled,
}
