//! Where a command can stand, and what moves it: one function, so that the store's transactions,
//! the dispatch machine and the published table (`docs/PROTOCOL.md`) cannot disagree.
//!
//! Two rules hold for every row. Nothing moves backwards: frames that come late, twice or out of
//! order are legal and change nothing. Ends are final: whatever is heard of an ended command later
//! is kept in the audit log, not in its status.

use core::{fmt, str::FromStr};

use envelope::messages::ReportStatus;
use session::frames::Stage;

use crate::model::CommandStatus;

/// Something that happened to a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CommandEvent {
    /// As many people approved it as its class needs.
    Approved,
    /// One of them said no.
    Denied,
    /// It got its first sequence and signature, durably.
    Sealed,
    /// A new session showed that the host never got it; it was sealed again.
    Resealed,
    /// The host accepted it durably (or says that it has ended, with the report on its way).
    StageAccepted,
    /// The host started it durably.
    StageStarted,
    /// A verified report of its end.
    Report(ReportStatus),
    /// Someone cancelled it before it was ever sealed.
    CancelledBeforeSealing,
    /// Its time passed, and its host cannot have got it: it was never sealed, or a hello showed
    /// that no sealed version arrived and all of them have expired.
    ExpiredUndelivered,
    /// Its host was revoked.
    HostRevoked,
    /// The signer refused it for good before it was ever sealed.
    RefusedBySigner,
}

/// An event that cannot happen to a command in that status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a command that is {from} cannot be {event}{}", if from.is_end() { ": its end is final" } else { "" })]
pub struct TransitionError {
    /// Where it stands.
    pub from: CommandStatus,
    /// What was to happen.
    pub event: CommandEvent,
}

/// One row of the published table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TransitionRow {
    /// Where the command stands.
    pub from: CommandStatus,
    /// What happens.
    pub event: CommandEvent,
    /// Where it stands then; `None` where the event is refused.
    pub to: Option<CommandStatus>,
}

impl CommandStatus {
    /// Every status, in the order of a command's life.
    pub const ALL: [Self; 12] = [
        Self::Held,
        Self::Queued,
        Self::Delivered,
        Self::Accepted,
        Self::Running,
        Self::Succeeded,
        Self::Failed,
        Self::RolledBack,
        Self::Rejected,
        Self::Expired,
        Self::Unknown,
        Self::Cancelled,
    ];

    /// Where a command stands after `event`.
    ///
    /// # Errors
    /// When the event cannot happen to a command in this status.
    pub fn after(self, event: CommandEvent) -> Result<Self, TransitionError> {
        use CommandEvent as E;
        let to = match (self, event) {
            (Self::Held, E::Approved) => Some(Self::Queued),
            (Self::Held, E::Denied) => Some(Self::Cancelled),
            (Self::Queued, E::Sealed) => Some(Self::Delivered),
            (Self::Held | Self::Queued, E::CancelledBeforeSealing | E::HostRevoked) => Some(Self::Cancelled),
            (Self::Queued, E::RefusedBySigner) => Some(Self::Rejected),
            (Self::Held | Self::Queued | Self::Delivered, E::ExpiredUndelivered) => Some(Self::Expired),
            // Never sealed: no host can have accepted, started or ended it.
            (Self::Held | Self::Queued, _) => None,

            (Self::Delivered, E::Resealed) => Some(Self::Delivered),
            (Self::Delivered, E::StageAccepted) => Some(Self::Accepted),
            (Self::Accepted | Self::Running, E::StageAccepted) => Some(self),
            (Self::Delivered | Self::Accepted | Self::Running, E::StageStarted) => Some(Self::Running),
            (Self::Delivered | Self::Accepted | Self::Running, E::Report(status)) => Some(Self::from(status)),
            (Self::Delivered | Self::Accepted | Self::Running, E::HostRevoked) => Some(Self::Unknown),
            (Self::Delivered | Self::Accepted | Self::Running, _) => None,

            // Ends: a late stage frame says nothing new, anything else is refused.
            (_, E::StageAccepted | E::StageStarted) => Some(self),
            (_, _) => None,
        };
        to.ok_or(TransitionError { from: self, event })
    }

    /// Whether this is an end.
    #[must_use]
    pub const fn is_end(self) -> bool {
        !matches!(self, Self::Held | Self::Queued | Self::Delivered | Self::Accepted | Self::Running)
    }

    /// The word used in the API, the database and the CLI.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Held => "held",
            Self::Queued => "queued",
            Self::Delivered => "delivered",
            Self::Accepted => "accepted",
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::RolledBack => "rolled_back",
            Self::Rejected => "rejected",
            Self::Expired => "expired",
            Self::Unknown => "unknown",
            Self::Cancelled => "cancelled",
        }
    }
}

impl From<ReportStatus> for CommandStatus {
    /// `Revoked` (its key or epoch became void while it waited) is a refusal by the host: `rejected`,
    /// and the message says why.
    fn from(status: ReportStatus) -> Self {
        match status {
            ReportStatus::Succeeded => Self::Succeeded,
            ReportStatus::Failed => Self::Failed,
            ReportStatus::RolledBack => Self::RolledBack,
            ReportStatus::Cancelled => Self::Cancelled,
            ReportStatus::Rejected | ReportStatus::Revoked => Self::Rejected,
            ReportStatus::Expired => Self::Expired,
            ReportStatus::Unknown => Self::Unknown,
        }
    }
}

impl fmt::Display for CommandStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A text that is no command status.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a command status: use one of held, queued, delivered, accepted, running, succeeded, failed, rolled_back, rejected, expired, unknown, cancelled"
)]
pub struct CommandStatusParseError(String);

impl FromStr for CommandStatus {
    type Err = CommandStatusParseError;

    fn from_str(text: &str) -> Result<Self, CommandStatusParseError> {
        let found = Self::ALL.into_iter().find(|status| status.as_str() == text);
        found.ok_or_else(|| CommandStatusParseError(text.chars().take(40).collect()))
    }
}

impl CommandEvent {
    /// Every event, in the order of a command's life.
    pub const ALL: [Self; 18] = [
        Self::Approved,
        Self::Denied,
        Self::Sealed,
        Self::Resealed,
        Self::StageAccepted,
        Self::StageStarted,
        Self::Report(ReportStatus::Succeeded),
        Self::Report(ReportStatus::Failed),
        Self::Report(ReportStatus::RolledBack),
        Self::Report(ReportStatus::Cancelled),
        Self::Report(ReportStatus::Rejected),
        Self::Report(ReportStatus::Expired),
        Self::Report(ReportStatus::Revoked),
        Self::Report(ReportStatus::Unknown),
        Self::CancelledBeforeSealing,
        Self::ExpiredUndelivered,
        Self::HostRevoked,
        Self::RefusedBySigner,
    ];
}

impl From<Stage> for CommandEvent {
    /// `Done` counts as accepted only: a refused command is done without ever having started.
    fn from(stage: Stage) -> Self {
        match stage {
            Stage::Accepted | Stage::Done => Self::StageAccepted,
            Stage::Started => Self::StageStarted,
        }
    }
}

impl fmt::Display for CommandEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Approved => "approved by enough people",
            Self::Denied => "denied by an approver",
            Self::Sealed => "sealed",
            Self::Resealed => "sealed again",
            Self::StageAccepted => "accepted by its host",
            Self::StageStarted => "started by its host",
            Self::Report(ReportStatus::Succeeded) => "reported succeeded",
            Self::Report(ReportStatus::Failed) => "reported failed",
            Self::Report(ReportStatus::RolledBack) => "reported rolled back",
            Self::Report(ReportStatus::Cancelled) => "reported cancelled",
            Self::Report(ReportStatus::Rejected) => "reported rejected",
            Self::Report(ReportStatus::Expired) => "reported expired",
            Self::Report(ReportStatus::Revoked) => "reported revoked",
            Self::Report(ReportStatus::Unknown) => "reported unknown",
            Self::CancelledBeforeSealing => "cancelled before sealing",
            Self::ExpiredUndelivered => "expired undelivered",
            Self::HostRevoked => "taken from a revoked host",
            Self::RefusedBySigner => "refused by the signer",
        })
    }
}

/// The whole table, status by status, event by event.
#[must_use]
pub fn transitions() -> Vec<TransitionRow> {
    let row = |from: CommandStatus, event| TransitionRow { from, event, to: from.after(event).ok() };
    CommandStatus::ALL
        .into_iter()
        .flat_map(|from| CommandEvent::ALL.into_iter().map(move |event| row(from, event)))
        .collect()
}

/// The table as Markdown, one line per status that is no end and one for all ends; `docs/PROTOCOL.md` holds it.
#[must_use]
pub fn transitions_markdown() -> String {
    use core::fmt::Write as _;
    let mut text = String::from("| status | event | becomes |\n|---|---|---|\n");
    let mut line = |from: &dyn fmt::Display, row: &TransitionRow| {
        if let Some(to) = row.to {
            let to = if row.from == to { "(unchanged)".to_owned() } else { to.to_string() };
            // Writing into a String cannot fail.
            let _ = writeln!(text, "| {from} | {} | {to} |", row.event);
        }
    };
    for row in transitions() {
        match row.from {
            from if !from.is_end() => line(&from, &row),
            // All ends have the same rows; a test proves it.
            CommandStatus::Succeeded => line(&"every end", &row),
            _ => {}
        }
    }
    text.push_str("\nEvery other pair is refused.\n");
    text
}

#[cfg(test)]
mod tests;
