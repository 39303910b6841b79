//! Why a procedure cannot go on, and what follows from it.

use serde_json::json;

use crate::{
    container::Unusable,
    effect::{EffectError, EffectErrorKind},
    outcome::Outcome,
    policy::Refusal,
};

/// Why a procedure stops in the middle.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Stop {
    /// The agent's own durable state cannot be written: nothing more may be done, not even backwards.
    Journal(String),
    /// Docker did not answer for as long as the action may take: nothing more can be done now.
    Unreachable(String),
    /// Someone asked to stop.
    Cancelled,
    /// Something went wrong with the app itself, or Docker refused.
    Fault(Fault),
}

/// Something that went wrong, and with which containers.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Fault {
    /// What happened, to what, and what to do next.
    pub(crate) message: String,
    /// Service and container whose last lines may tell more.
    pub(crate) failing: Vec<(String, String)>,
}

impl Stop {
    pub(crate) fn fault(message: impl Into<String>) -> Self {
        Self::Fault(Fault { message: message.into(), failing: Vec::new() })
    }

    pub(crate) fn failing(service: &str, container: &str, message: impl Into<String>) -> Self {
        Self::Fault(Fault { message: message.into(), failing: vec![(service.to_owned(), container.to_owned())] })
    }

    /// The same, with words before a fault's message.
    pub(crate) fn context(self, words: &str) -> Self {
        match self {
            Self::Fault(fault) => Self::Fault(Fault { message: format!("{words}: {}", fault.message), ..fault }),
            other => other,
        }
    }

    /// What it means in words.
    pub(crate) fn words(&self) -> &str {
        match self {
            Self::Journal(message) | Self::Unreachable(message) => message,
            Self::Cancelled => "it was cancelled",
            Self::Fault(fault) => &fault.message,
        }
    }

    /// The end of an action that stopped before it touched anything.
    pub(crate) fn untouched(self, what_failed: &str) -> Outcome {
        if self == Self::Cancelled {
            return Outcome::cancelled("cancelled before anything was changed");
        }
        let message = format!("{what_failed}: {}. Nothing was changed", self.words().trim_end_matches('.'));
        let mut outcome = Outcome::failed(message);
        outcome.result = json!({ "changed": false });
        outcome
    }
}

impl From<EffectError> for Stop {
    fn from(error: EffectError) -> Self {
        match error.kind {
            EffectErrorKind::Journal => Self::Journal(error.message),
            EffectErrorKind::EngineUnreachable => Self::Unreachable(error.message),
            EffectErrorKind::ImageNotFound
            | EffectErrorKind::Conflict
            | EffectErrorKind::NotFound
            | EffectErrorKind::Refused => Self::fault(error.message),
        }
    }
}

impl From<Unusable> for Stop {
    fn from(why: Unusable) -> Self {
        Self::fault(why.to_string())
    }
}

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Self {
        Self::fault(refusal.to_string())
    }
}
