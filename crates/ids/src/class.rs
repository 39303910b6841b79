//! What kind of thing an action is, for approvals, expiry and restarts.

use core::fmt;

use serde::{Deserialize, Serialize};

/// How much an action can hurt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// Changes nothing.
    Read,
    /// Changes something that can be changed back.
    Change,
    /// Destroys something for good.
    Destructive,
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Read => "read",
            Self::Change => "change",
            Self::Destructive => "destructive",
        })
    }
}

/// What an agent does at start-up with a command that was started and has no end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnRestart {
    /// Goes on from its own record, at once; backwards only if its key or epoch is void.
    Resume,
    /// Runs it again (it is idempotent), once a session has shown that this state is not an old copy.
    Rerun,
    /// Reports UNKNOWN.
    Unknown,
}
