//! The doors through which the control plane's shells reach the world on behalf of these decisions.
//! Only shells call ports; decisions are functions and machines that return what to write.

mod content;
mod notifier;

use std::sync::Arc;

use envelope::{
    audit::AuditKind,
    messages::LogPosition,
    recovery::{RecoveryCopy, WrappedKey},
};
use ids::{
    ApiTokenId, AppName, BootId, CommandId, HostEpoch, HostId, HostName, OperationId, QuarantineId, ReportSequence,
    Revision, RootVersion, Sequence, SessionId, Sha256, StandingOrderId, TokenId, UnixMs, UserId, UserName,
};
use session::frames::{ActionRef, Stage};

pub use self::{
    content::{
        AppChange, Approved, Endorsed, HostEdit, HostKeyRotation, KeptReport, NewStanding, Released, Settlement,
        SignedStanding, StandingProposal,
    },
    notifier::{Event, HostChange, Notifier, StreamLease, StreamPiece},
};
use crate::{
    keys::{KeyChange, KeyChangeMove},
    list::*,
    model::*,
    recovery::{Claim, Recovery, RecoveryHost, RecoveryWrite},
    standing::StandingRecord,
};

/// The signer's door stands beside the messages it signs, because its room depends on nothing else.
pub use envelope::signer_port::{Later, SignError, SignedCommand, Signer};

/// Durable state. Every write is one transaction, durable when its future resolves; its audit
/// entries are leaves of the same transaction.
pub trait Store: Send + Sync {
    /// Applies one transaction.
    fn write(&self, write: Write) -> Later<'_, Result<Written, StoreError>>;

    fn host(&self, id: HostId) -> Later<'_, Result<Option<Host>, StoreError>>;
    /// Identity keys that a host had before the one on record, latest first.
    fn host_former_keys(&self, id: HostId) -> Later<'_, Result<Vec<FormerKey>, StoreError>>;
    /// Quarantines that the agents of a quarantined host said they are in, latest first.
    fn host_quarantines(&self, id: HostId) -> Later<'_, Result<Vec<QuarantineSeen>, StoreError>>;
    /// A host and its commands that have no end, in order of proposal, whole; both as of one moment.
    fn host_open(&self, id: HostId) -> Later<'_, Result<Option<HostOpen>, StoreError>>;
    /// A host that is not revoked, by name.
    fn host_by_name(&self, name: HostName) -> Later<'_, Result<Option<Host>, StoreError>>;
    /// The host of that name; of revoked ones, the last that had it.
    fn host_ever(&self, name: HostName) -> Later<'_, Result<Option<Host>, StoreError>>;
    /// Hosts of these names, those that are not revoked first, then the last revoked.
    fn hosts_named(&self, names: Vec<HostName>) -> Later<'_, Result<Vec<Host>, StoreError>>;
    /// A page of hosts.
    fn hosts_list(
        &self,
        filter: HostFilter,
        sort: HostSort,
        page: ListPage,
    ) -> Later<'_, Result<Listed<Host>, StoreError>>;
    /// Every host, revoked ones last, by name.
    fn hosts(&self) -> Later<'_, Result<Vec<Host>, StoreError>>;
    fn join_token(&self, id: TokenId) -> Later<'_, Result<Option<JoinTokenRecord>, StoreError>>;
    /// Commands of one host that have no end, in order of proposal, whole.
    fn commands_open(&self, host: HostId) -> Later<'_, Result<Vec<Command>, StoreError>>;
    fn command(&self, id: CommandId) -> Later<'_, Result<Option<Command>, StoreError>>;
    /// Commands with all that belongs to them, newest first; for lists there is [`Store::commands_list`].
    fn commands(&self, filter: CommandFilter) -> Later<'_, Result<Vec<Command>, StoreError>>;
    /// A page of commands.
    fn commands_list(
        &self,
        filter: CommandListFilter,
        page: ListPage,
    ) -> Later<'_, Result<Listed<CommandLine>, StoreError>>;
    /// Queued commands whose deadline lies before `now`, those of the earliest ones, whole.
    fn commands_overdue(&self, now: UnixMs, limit: u32) -> Later<'_, Result<Vec<Command>, StoreError>>;
    /// A page of operations.
    fn operations_list(
        &self,
        filter: OperationFilter,
        page: ListPage,
    ) -> Later<'_, Result<Listed<OperationLine>, StoreError>>;
    fn operation(&self, id: OperationId) -> Later<'_, Result<Option<Operation>, StoreError>>;
    /// The values of an operation that were sealed to the owner, if any were.
    fn recovery_copy(&self, id: OperationId) -> Later<'_, Result<Option<RecoveryCopy>, StoreError>>;
    /// Instances of one app, or of all.
    fn apps(&self, app: Option<AppName>) -> Later<'_, Result<Vec<AppInstance>, StoreError>>;
    /// A page of apps by name, each with its instances; of one host only, or of all.
    fn apps_list(&self, host: Option<HostId>, page: ListPage) -> Later<'_, Result<Listed<AppLine>, StoreError>>;
    /// Names of the apps that a host carries.
    fn apps_on(&self, host: HostId) -> Later<'_, Result<Vec<AppName>, StoreError>>;
    /// Every account, by name.
    fn users(&self) -> Later<'_, Result<Vec<User>, StoreError>>;
    /// A page of accounts.
    fn users_list(
        &self,
        filter: UserFilter,
        sort: UserSort,
        page: ListPage,
    ) -> Later<'_, Result<Listed<User>, StoreError>>;
    fn user_by_name(&self, name: UserName) -> Later<'_, Result<Option<User>, StoreError>>;
    /// A session by the hash of its bearer token, expired or not.
    fn user_session(&self, token_sha256: Sha256) -> Later<'_, Result<Option<UserSession>, StoreError>>;
    fn user_session_by_id(&self, id: SessionId) -> Later<'_, Result<Option<UserSession>, StoreError>>;
    /// A page of an account's open sessions.
    fn user_sessions_list(
        &self,
        filter: SessionFilter,
        sort: CredentialSort,
        page: ListPage,
    ) -> Later<'_, Result<Listed<UserSession>, StoreError>>;
    /// An API token, whether it is taken or not.
    fn api_token(&self, id: ApiTokenId) -> Later<'_, Result<Option<ApiToken>, StoreError>>;
    /// A page of an account's API tokens.
    fn api_tokens_list(
        &self,
        filter: TokenFilter,
        sort: CredentialSort,
        page: ListPage,
    ) -> Later<'_, Result<Listed<ApiToken>, StoreError>>;
    /// Audit entries from `first` on, ascending, at most `limit`, with their records.
    fn audit(&self, first: u64, limit: u32) -> Later<'_, Result<Vec<AuditRow>, StoreError>>;
    /// A page of audit entries without their records.
    fn audit_list(
        &self,
        filter: AuditFilter,
        sort: AuditSort,
        page: ListPage,
    ) -> Later<'_, Result<Listed<AuditLine>, StoreError>>;
    /// Signed audit heads, ascending by size; the latest only, or all.
    fn audit_heads(&self, latest_only: bool) -> Later<'_, Result<Vec<Vec<u8>>, StoreError>>;
    /// Signed audit heads of more than `size` leaves, ascending, at most `limit`.
    fn audit_heads_after(&self, size: u64, limit: u32) -> Later<'_, Result<Vec<HeadLine>, StoreError>>;
    /// The head that was signed over so many leaves, if one was.
    fn audit_head_at(&self, size: u64) -> Later<'_, Result<Option<LogPosition>, StoreError>>;
    /// What shows the log's first `old` leaves to be a beginning of its first `new` (RFC 6962 section 2.1.2).
    fn audit_consistency(&self, old: u64, new: u64) -> Later<'_, Result<Arc<[Sha256]>, StoreError>>;
    /// Changes of the control plane's own keys, the open ones first, then the newest, at most
    /// [`crate::limits::KEY_CHANGES_MAX`].
    fn key_changes(&self) -> Later<'_, Result<Vec<KeyChange>, StoreError>>;
    /// How many commands without an end were delivered first in that time, both ends included.
    fn orders_under_way(&self, from: UnixMs, until: UnixMs) -> Later<'_, Result<u64, StoreError>>;
    /// The root metadata chain, ascending.
    fn root_chain(&self) -> Later<'_, Result<Vec<Vec<u8>>, StoreError>>;
    /// Standing orders, those of one host or of all, the newest last. Those that ended are among them.
    fn standing_orders(&self, _: Option<HostId>) -> Later<'_, Result<Vec<StandingRecord>, StoreError>> {
        Box::pin(core::future::ready(Ok(Vec::new())))
    }
    /// The last envelope that was signed of a standing order.
    fn standing_envelope(&self, _: StandingOrderId) -> Later<'_, Result<Option<Vec<u8>>, StoreError>> {
        Box::pin(core::future::ready(Ok(None)))
    }
    /// Highest revision of a standing order that this host was given.
    fn standing_revision(&self, _: HostId) -> Later<'_, Result<Revision, StoreError>> {
        Box::pin(core::future::ready(Ok(Revision(0))))
    }
    /// The last restore from a backup, if there ever was one.
    fn recovery(&self) -> Later<'_, Result<Option<Recovery>, StoreError>> {
        Box::pin(core::future::ready(Ok(None)))
    }
    /// Hosts in that recovery by name, or that one alone.
    fn recovery_hosts(&self, _: Option<HostId>) -> Later<'_, Result<Vec<RecoveryHost>, StoreError>> {
        Box::pin(core::future::ready(Ok(Vec::new())))
    }
    /// Hosts that are known since by what they brought alone, open ones and refused ones, by name; or what that one brought.
    fn recovery_claims(&self, _: Option<HostId>) -> Later<'_, Result<Vec<Claim>, StoreError>> {
        Box::pin(core::future::ready(Ok(Vec::new())))
    }
}

/// A host and its commands that have no end, in order of proposal.
pub type HostOpen = (Host, Vec<Command>);

/// One transaction.
#[derive(Clone, Debug)]
pub enum Write {
    /// First start: root metadata and the first owner.
    Initialise {
        root: Vec<u8>,
        admin: User,
        audit: Vec<AuditEntry>,
    },
    /// New join token. Refused when a host of that name exists and is not revoked.
    TokenCreate {
        token: JoinTokenRecord,
        audit: AuditEntry,
    },
    /// Burns the token (unspent, unexpired at `now`, secret hash equal, in constant time) and inserts the host.
    Enrol {
        token: TokenId,
        secret_sha256: Sha256,
        now: UnixMs,
        host: Box<Host>,
        audit: AuditEntry,
    },
    /// An operation and its first commands. The same id and request again changes nothing.
    OperationPropose {
        operation: Operation,
        commands: Vec<NewCommand>,
        /// Its values, sealed to the owner.
        recovery: Option<RecoveryCopy>,
        audit: AuditEntry,
    },
    /// Something ordered about a standing order. As `OperationPropose`, and refused when its revision is not above every
    /// one that the host was given, or when the host has as many as it may.
    StandingPropose(Box<StandingProposal>),
    /// A recovery copy is sealed to these keys from now on. A conflict when the operation has none.
    RecoveryRewrap {
        operation: OperationId,
        keys: Vec<WrappedKey>,
        audit: AuditEntry,
    },
    /// A command gets (or, after a lost delivery, gets again) a sequence. `allocated_before` must
    /// still be what is stored, and the command must still be queued or delivered.
    CommandSeal {
        command: CommandId,
        host: HostId,
        allocated_before: Sequence,
        seal: Seal,
        at: UnixMs,
        audit: AuditEntry,
    },
    /// The host acknowledged a command and says how far it is: the command moves by
    /// `CommandStatus::after(stage.into())`, the host's `acknowledged` rises to `sequence`.
    CommandStage {
        command: CommandId,
        host: HostId,
        sequence: Sequence,
        stage: Stage,
        at: UnixMs,
    },
    /// A verified report ends a command. `expected_last` must still be the host's last report.
    CommandSettle(Box<Settlement>),
    /// A verified report that ends a command, as [`Write::CommandSettle`], and with it its host's membership: what
    /// [`Write::HostRevoke`] does, in the same transaction. Its leaves say both.
    HostRetire(Box<Settlement>),
    /// A verified report that ends nothing (its command is unknown here, or has ended already): the
    /// host's chain moves on and the audit log keeps the report; no command changes.
    ReportKeep(Box<KeptReport>),
    /// Ends a command that never reached its host, or never can: cancelled or expired. Only from `from`.
    CommandEnd {
        command: CommandId,
        from: Vec<CommandStatus>,
        status: CommandStatus,
        message: String,
        at: UnixMs,
        audit: AuditEntry,
    },
    /// One person approves held commands of an operation, all or none: each must still be held, have the approvals it
    /// was judged with, and none by that key. Each that has enough is queued.
    CommandsApprove(Box<Approved>),
    /// An approver says no to held commands of an operation: all of them end, or none.
    CommandsDeny {
        commands: Vec<CommandId>,
        message: String,
        at: UnixMs,
        audit: AuditEntry,
    },
    /// Tombstone; queued commands are cancelled, others that have no end become unknown.
    HostRevoke {
        host: HostId,
        at: UnixMs,
        audit: AuditEntry,
    },
    /// Another name or other labels. A new name must not belong to a host that is not revoked; join
    /// tokens that name the old or the new one and were not used become void, so that no name
    /// brings along what was meant for another machine.
    HostEdit(Box<HostEdit>),
    /// Other keys, which the host offered. Refused when it is not in the epoch it `was`, when it is revoked, or when any
    /// host has or had that identity key. The keys before stay readable as [`FormerKey`].
    HostKeysRotate(Box<HostKeyRotation>),
    /// The host has used the keys of `host_epoch`: no report above `last_report` is by a key before them.
    HostKeysRetire {
        host: HostId,
        host_epoch: HostEpoch,
        last_report: ReportSequence,
    },
    /// Enters quarantine: an alarm if its leaf is one.
    HostQuarantine {
        host: HostId,
        why: String,
        audit: AuditEntry,
    },
    /// An agent said which quarantine it is in.
    HostQuarantineSeen {
        host: HostId,
        seen: QuarantineSeen,
    },
    /// An admin ends this quarantine of a quarantined host, which its agent must have named; or has its agent
    /// told to enter one, if it has not.
    HostRelease {
        host: HostId,
        quarantine: Option<QuarantineId>,
        audit: AuditEntry,
    },
    /// A session began and showed something new: actions, version, boot, root version.
    HostSeen {
        host: HostId,
        actions: Vec<ActionRef>,
        agent_version: String,
        boots: Vec<BootId>,
        root_version: RootVersion,
    },
    /// How far a host's clock is off.
    HostClock {
        host: HostId,
        skew_ms: i64,
    },
    /// A session ended.
    HostLeft {
        host: HostId,
        at: UnixMs,
    },
    /// Newer root metadata, verified.
    RootAdvance {
        version: RootVersion,
        envelope: Vec<u8>,
        audit: AuditEntry,
    },
    /// A change of one of the control plane's own keys begins. Refused when one of the role is open; that of a stolen
    /// key ends that one as aborted.
    KeyChangeBegin {
        change: Box<KeyChange>,
        audit: AuditEntry,
    },
    /// Such a change moves on. Refused when it is not where it is moved from.
    KeyChangeMove(Box<KeyChangeMove>),
    /// A new account. Refused when an account has, or a deleted one had, its name.
    UserCreate {
        user: User,
        audit: AuditEntry,
    },
    /// Changes an account. Refused when its role or password is not what it `was`, and
    /// ([`StoreError::LastOwner`]) when no owner who may sign in would be left.
    UserChange {
        was: User,
        change: UserChange,
        audit: AuditEntry,
    },
    /// A sign-in. Refused when the password that was checked is no longer the account's, or the
    /// account is disabled.
    UserSessionCreate {
        session: UserSession,
        password_hash: String,
        audit: AuditEntry,
    },
    UserSessionEnd {
        session: SessionId,
        audit: AuditEntry,
    },
    /// Ends every session of an account.
    UserSessionsEnd {
        user: UserId,
        audit: AuditEntry,
    },
    /// A new API token. Refused when the account is gone or disabled, or has too many.
    ApiTokenCreate {
        token: ApiToken,
        audit: AuditEntry,
    },
    ApiTokenRevoke {
        token: ApiTokenId,
        at: UnixMs,
        audit: AuditEntry,
    },
    /// An API token was seen in use.
    ApiTokenUsed {
        token: ApiTokenId,
        at: UnixMs,
    },
    /// What somebody asked for. `write` is refused when, in its own transaction, the credential is taken
    /// no more at `at` ([`StoreError::CredentialEnded`]) or lets its bearer do less than what the request was
    /// judged by ([`StoreError::RoleLowered`]): between the judgement and this moment lie a request's
    /// body and work. Only around writes that people ask for; never around another one of these.
    By {
        actor: Principal,
        at: UnixMs,
        write: Box<Write>,
    },
    /// A change of the recovery after a restore.
    Recovery(Box<RecoveryWrite>),
    /// Something that only the audit log records.
    Audit(AuditEntry),
    /// A signed head of the audit log.
    AuditHead {
        position: LogPosition,
        envelope: Vec<u8>,
    },
}

/// What a transaction answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Written {
    /// Done.
    Done,
    /// `OperationPropose` met its own id and the same request: nothing changed.
    AlreadyProposed,
}

/// Something to be recorded in the audit log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditEntry {
    pub time: UnixMs,
    pub kind: AuditKind,
    pub actor: String,
    pub subject: String,
    pub record: AuditRecord,
}

/// What an audit leaf's hash covers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuditRecord {
    /// Stored with the entry; UTF-8 JSON, or the envelope of what a host signed about itself.
    Inline(Vec<u8>),
    /// A command's or report's envelope, stored with the command; the hash is over its bytes.
    Envelope(Vec<u8>),
}

/// Why a store did not do it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// Something else changed first, or a precondition does not hold; nothing was written.
    #[error("{0}")]
    Conflict(String),
    /// The join token is unknown, spent, expired, or its secret is another. Deliberately one answer.
    #[error(
        "the join token is not valid (unknown, used, expired, or for another host); ask for a new one with `serverflow host enroll NAME`"
    )]
    TokenRefused,
    /// It would have left the fleet without an owner who may sign in; nothing was written.
    #[error("this is the last owner who can sign in, and a fleet needs one; make another account an owner first")]
    LastOwner,
    /// Whoever asked is not let in any more; nothing was written.
    #[error(
        "the sign-in or API token ended while the request was under way, or its account was disabled or deleted; nothing was changed. Sign in again with `serverflow login`"
    )]
    CredentialEnded,
    /// Whoever asked may do less than when the request was judged; nothing was written.
    #[error(
        "the role of whoever asked was lowered while the request was under way; nothing was changed. Send it again if the new role is enough for it"
    )]
    RoleLowered,
    /// Restored from a backup, and not confirmed yet; nothing was written.
    #[error(
        "this control plane was restored from a backup and orders nothing yet; `serverflow recovery status` says what is missing"
    )]
    Recovering,
    /// The database cannot be used now.
    #[error("the database cannot be used: {0}")]
    Unavailable(String),
    /// What is stored does not decode or does not match its checks.
    #[error("the database holds something that does not verify: {0}")]
    Corrupt(String),
}
