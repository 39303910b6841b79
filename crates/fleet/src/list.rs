//! Lists, a page at a time. A page begins behind a key (the sorted value and the row's own number),
//! never at a count, so that what is inserted meanwhile neither hides nor repeats a row, and so that
//! the last page costs as much as the first.

use ids::{ActionName, AppName, CommandId, HostId, HostName, OperationId, UnixMs, UserId, UserName};

use crate::{
    model::{AppInstance, CommandStatus, OperationKind, TokenStanding, UserRole},
    selector::Selector,
};

/// What a list is sorted by, as one row has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListValue {
    /// A time (Unix milliseconds) or a count.
    Number(u64),
    /// A name.
    Text(String),
}

/// A place in a sorted list: behind the row that has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListKey {
    /// The sorted value.
    pub value: ListValue,
    /// The row's number, which tells equal values apart and never changes.
    pub row: u64,
}

/// Which part of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListPage {
    /// Greatest first.
    pub descending: bool,
    /// Only what follows this place; from the beginning when absent.
    pub after: Option<ListKey>,
    /// At most so many: 1 to [`crate::limits::LIST_MAX`].
    pub limit: u32,
}

/// A page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed<T> {
    /// Each row with its place.
    pub items: Vec<(ListKey, T)>,
    /// Whether there are rows behind the last.
    pub more: bool,
}

/// What hosts are sorted by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HostSort {
    /// By name.
    #[default]
    Name,
    /// By the time of enrolment.
    EnrolledAt,
}

/// What a host may get, as a filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StandingKind {
    /// Orders.
    Active,
    /// Nothing for now.
    Quarantined,
    /// Nothing ever again.
    Revoked,
}

/// Which hosts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostFilter {
    /// Only these; all when absent.
    pub standing: Option<StandingKind>,
    /// Only those it selects.
    pub selector: Option<Selector>,
    /// Only those that carry the app.
    pub app: Option<AppName>,
}

/// Which commands. Sorted by the time of their proposal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CommandListFilter {
    pub host: Option<HostId>,
    pub operation: Option<OperationId>,
    pub status: Option<CommandStatus>,
    pub app: Option<AppName>,
    pub action: Option<ActionName>,
    pub requested_by: Option<UserName>,
    /// Proposed then or later.
    pub since: Option<UnixMs>,
    /// Proposed earlier.
    pub until: Option<UnixMs>,
}

/// A command as lists show it: nothing of it is opened but its message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandLine {
    pub command: CommandId,
    pub operation: OperationId,
    pub host: HostId,
    pub host_name: HostName,
    pub action: ActionName,
    pub action_version: u32,
    pub app: Option<AppName>,
    pub dry_run: bool,
    pub status: CommandStatus,
    pub message: String,
    pub requested_by: UserName,
    pub proposed_at: UnixMs,
    pub settled_at: Option<UnixMs>,
}

/// Which operations. Sorted by the time they were made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OperationFilter {
    pub requested_by: Option<UserName>,
    /// Made then or later.
    pub since: Option<UnixMs>,
    /// Made earlier.
    pub until: Option<UnixMs>,
}

/// An operation as lists show it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OperationLine {
    pub operation: OperationId,
    pub kind: OperationKind,
    pub requested_by: UserName,
    pub created_at: UnixMs,
    pub dry_run: bool,
    /// What its hosts were selected by, if they were not named.
    pub selector: Option<String>,
    /// How many of its commands stand where.
    pub commands: Vec<(CommandStatus, u64)>,
}

/// An app and where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppLine {
    pub name: AppName,
    pub instances: Vec<AppInstance>,
}

/// What accounts are sorted by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UserSort {
    /// By name.
    #[default]
    Name,
    /// By the time they were made.
    CreatedAt,
}

/// Which accounts. Deleted ones are on no list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UserFilter {
    pub role: Option<UserRole>,
    /// Only those that nobody signs in with, or only the others.
    pub is_disabled: Option<bool>,
}

/// What sign-ins and API tokens are sorted by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CredentialSort {
    /// By the time they were made.
    #[default]
    CreatedAt,
    /// By the time they end.
    Expires,
}

/// Which sessions: those of one account that are open at a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionFilter {
    pub user: UserId,
    /// Only what expires later.
    pub now: UnixMs,
    /// Only those that came from this address, as it is kept.
    pub peer: Option<String>,
}

/// Which API tokens of one account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenFilter {
    pub user: UserId,
    /// When the standing is judged.
    pub now: UnixMs,
    /// Only those that stand so, as [`crate::model::ApiToken::standing`] says it.
    pub standing: Option<TokenStanding>,
}

/// A signed head of the audit log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeadLine {
    /// Leaves it covers.
    pub size: u64,
    pub envelope: Vec<u8>,
}

/// What entries of the audit log are sorted by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AuditSort {
    /// By their time, then by their place in the log.
    #[default]
    Time,
    /// By their place in the log.
    Index,
}

/// Which entries of the audit log. All but `first` go with [`AuditSort::Time`] alone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuditFilter {
    /// From this place on; goes with [`AuditSort::Index`] alone.
    pub first: Option<u64>,
    pub kind: Option<envelope::audit::AuditKind>,
    pub actor: Option<String>,
    /// Then or later.
    pub since: Option<UnixMs>,
    /// Earlier.
    pub until: Option<UnixMs>,
}

/// An entry of the audit log without its record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditLine {
    pub index: u64,
    pub time: UnixMs,
    pub kind: envelope::audit::AuditKind,
    pub actor: String,
    pub subject: String,
    pub record_sha256: ids::Sha256,
}
