//! What one transaction does. Writes that come with every command go together (see [`hot`]); the
//! others are applied one by one, in their order, each within a savepoint if it has several
//! statements, so that one which is refused leaves no trace and its neighbours stand.

mod accounts;
mod claims;
mod flush;
mod host_keys;
mod hosts;
pub(crate) mod hot;
mod keys;
#[cfg(test)]
mod leaves;
mod operations;
mod people;
mod quarantines;
mod recovery;
mod restores;
mod standing;

use core::fmt::Display;

use fleet::ports::{AuditEntry, StoreError, Write, Written};
use sqlx::{
    QueryBuilder, Sqlite, SqliteConnection,
    query::Query,
    sqlite::{SqliteArguments, SqliteRow},
};

use crate::{
    audit::{AuditLog, AuditPosition, NewLeaf},
    cipher::Cipher,
    fault::{Failure, Location},
    limits,
    rows::Fields,
};

/// A statement with its arguments.
pub(crate) type Statement<'q> = Query<'q, Sqlite, SqliteArguments>;

/// Row numbers the writer gives itself; they only rise.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Numbers {
    operation: i64,
    command: i64,
    parameters: i64,
    seal: i64,
    app_instance: i64,
}

impl Numbers {
    pub(crate) async fn load(connection: &mut SqliteConnection, location: &Location) -> Result<Self, StoreError> {
        let row = sqlx::query(
            "SELECT (SELECT COALESCE(MAX(number), 0) FROM operations), (SELECT COALESCE(MAX(number), 0) FROM commands), \
             (SELECT COALESCE(MAX(number), 0) FROM parameters), (SELECT COALESCE(MAX(number), 0) FROM command_seals), \
             (SELECT COALESCE(MAX(number), 0) FROM app_instances)",
        )
        .fetch_one(connection)
        .await
        .map_err(|error| location.error("reading the last row numbers", &error))?;
        let mut fields = Fields::of(&row, "the last row numbers");
        Ok(Self {
            operation: fields.get()?,
            command: fields.get()?,
            parameters: fields.get()?,
            seal: fields.get()?,
            app_instance: fields.get()?,
        })
    }
}

/// The one after the last.
fn take(last: &mut i64) -> i64 {
    *last += 1;
    *last
}

/// The writer's transaction, while it runs.
///
/// sqlx hands each statement to a thread and waits for it; with one command at a time, that is where the
/// time goes. So statements whose answer nobody needs at once are put together ([`Self::later`]) and
/// handed over as one text, in their order, with the next one that must be answered.
pub(crate) struct Transaction<'t> {
    pub(crate) connection: &'t mut SqliteConnection,
    pub(crate) location: &'t Location,
    pub(crate) cipher: &'t Cipher,
    pub(crate) numbers: &'t mut Numbers,
    pub(crate) log: &'t mut AuditLog,
    /// Statements put together and not run; their parameters are written `?`, which count on from one
    /// statement to the next.
    pub(crate) together: QueryBuilder<Sqlite>,
}

impl Transaction<'_> {
    /// Begins one more of the statements that run together.
    pub(crate) fn later(&mut self, text: &str) -> &mut QueryBuilder<Sqlite> {
        if !self.together.sql().as_str().is_empty() {
            self.together.push("; ");
        }
        self.together.push(text)
    }

    /// Before a statement with so many rows: a long one does not go with what waits, because a text is
    /// prepared once only as long as it is one of few.
    pub(crate) async fn room_for(&mut self, rows: usize) -> Result<(), Failure> {
        if rows > limits::ROWS_TOGETHER_MAX { self.run_together("writing").await } else { Ok(()) }
    }

    /// Runs what was put together; the rows of all of it.
    pub(crate) async fn rows_together(&mut self, doing: &str) -> Result<Vec<SqliteRow>, Failure> {
        let mut together = core::mem::take(&mut self.together);
        if together.sql().as_str().is_empty() {
            return Ok(Vec::new());
        }
        let done = together.build().fetch_all(&mut *self.connection).await;
        done.map_err(|error| self.location.failure(doing, &error))
    }

    /// The same without rows.
    pub(crate) async fn run_together(&mut self, doing: &str) -> Result<(), Failure> {
        self.rows_together(doing).await.map(drop)
    }

    /// Ends a statement begun with [`Self::later`] that has so many rows: a long one does not wait either.
    pub(crate) async fn ended(&mut self, doing: &str, rows: usize) -> Result<(), Failure> {
        if rows > limits::ROWS_TOGETHER_MAX { self.run_together(doing).await } else { Ok(()) }
    }

    /// Runs a statement; answers how many rows it changed. `doing` is for messages.
    pub(crate) async fn run(&mut self, doing: &str, statement: Statement<'_>) -> Result<u64, Failure> {
        self.run_together(doing).await?;
        let done = statement.execute(&mut *self.connection).await;
        done.map(|done| done.rows_affected()).map_err(|error| self.location.failure(doing, &error))
    }

    pub(crate) async fn rows(&mut self, doing: &str, statement: Statement<'_>) -> Result<Vec<SqliteRow>, Failure> {
        self.run_together(doing).await?;
        statement.fetch_all(&mut *self.connection).await.map_err(|error| self.location.failure(doing, &error))
    }

    pub(crate) async fn row(&mut self, doing: &str, statement: Statement<'_>) -> Result<Option<SqliteRow>, Failure> {
        self.run_together(doing).await?;
        statement.fetch_optional(&mut *self.connection).await.map_err(|error| self.location.failure(doing, &error))
    }
}

/// Applies writes in their order, all in the transaction that is open.
pub(crate) async fn apply_all<'w>(
    transaction: &mut Transaction<'_>,
    writes: &'w [&'w Write],
) -> Result<Vec<Result<Written, StoreError>>, Failure> {
    let mut answers = Vec::with_capacity(writes.len());
    let mut leaves = Vec::new();
    let mut rest = writes;
    while let Some(first) = rest.first() {
        if hot::is_hot(first) {
            let (run, after) = rest.split_at(rest.iter().take_while(|write| hot::is_hot(write)).count());
            hot::apply(transaction, run, &mut answers, &mut leaves).await?;
            rest = after;
        } else {
            answers.push(apply_alone(transaction, first, &mut leaves).await?);
            rest = &rest[1..];
        }
    }
    crate::audit::append(transaction, &leaves).await?;
    Ok(answers)
}

/// One write. A refusal is an answer; only a failure of the engine is an error here.
async fn apply_alone<'w>(
    transaction: &mut Transaction<'_>,
    write: &'w Write,
    leaves: &mut Vec<NewLeaf<'w>>,
) -> Result<Result<Written, StoreError>, Failure> {
    let log = transaction.log.clone();
    let leaves_before = leaves.len();
    let savepoint = has_several_statements(write);
    if savepoint {
        transaction.later("SAVEPOINT one_write");
    }
    let answer = match apply_one(transaction, write, leaves).await {
        Ok(written) => Ok(written),
        Err(Failure::Refused(error)) => {
            *transaction.log = log;
            leaves.truncate(leaves_before);
            if savepoint {
                transaction.run("going back", sqlx::query("ROLLBACK TO one_write")).await?;
            }
            Err(error)
        }
        Err(engine) => return Err(engine),
    };
    if savepoint {
        transaction.later("RELEASE one_write");
    }
    Ok(answer)
}

/// One statement that fails undoes itself.
fn has_several_statements(write: &Write) -> bool {
    if let Write::By { write, .. } = write {
        return has_several_statements(write);
    }
    !matches!(
        write,
        Write::Audit(_)
            | Write::AuditHead { .. }
            | Write::TokenCreate { .. }
            | Write::HostSeen { .. }
            | Write::HostClock { .. }
            | Write::HostLeft { .. }
            | Write::HostQuarantine { .. }
            | Write::RootAdvance { .. }
            | Write::KeyChangeMove(_)
            | Write::CommandEnd { .. }
            | Write::UserSessionEnd { .. }
            | Write::UserSessionsEnd { .. }
            | Write::ApiTokenRevoke { .. }
            | Write::ApiTokenUsed { .. }
    )
}

async fn apply_one<'w>(
    t: &mut Transaction<'_>,
    write: &'w Write,
    leaves: &mut Vec<NewLeaf<'w>>,
) -> Result<Written, Failure> {
    let write = match write {
        Write::By { actor, at, write } => {
            accounts::stands(t, actor, *at).await?;
            &**write
        }
        write => write,
    };
    if let Write::HostRetire(settlement) = write {
        hot::settle_alone(t, write, settlement, leaves).await?;
        return hosts::revoke(t, settlement.host, settlement.at, true).await;
    }
    match change(t, write).await? {
        Change::Made => {
            leaves.extend(entries(write).iter().map(NewLeaf::of));
            Ok(Written::Done)
        }
        Change::Nothing(written) => Ok(written),
    }
}

/// What a write came to.
enum Change {
    /// It stands, and so do its audit entries.
    Made,
    /// All was so already: no news for the audit log.
    Nothing(Written),
}

impl Change {
    const fn if_any(any: bool) -> Self {
        if any { Self::Made } else { Self::Nothing(Written::Done) }
    }
}

async fn change(t: &mut Transaction<'_>, write: &Write) -> Result<Change, Failure> {
    let written = match write {
        Write::Initialise { root, admin, .. } => people::initialise(t, root, admin).await?,
        Write::TokenCreate { token, .. } => hosts::token_create(t, token).await?,
        Write::Enrol { token, secret_sha256, now, host, .. } => {
            hosts::enrol(t, *token, *secret_sha256, *now, host).await?
        }
        Write::OperationPropose { operation, commands, recovery, .. } => {
            operations::propose(t, operation, commands, recovery.as_ref()).await?
        }
        Write::StandingPropose(proposal) => standing::propose(t, proposal).await?,
        Write::RecoveryRewrap { operation, keys, .. } => recovery::rewrap(t, *operation, keys).await?,
        Write::CommandEnd { command, from, status, message, at, .. } => {
            operations::command_end(t, *command, from, *status, message, *at).await?
        }
        Write::CommandsApprove(approved) => operations::approve(t, approved).await?,
        Write::CommandsDeny { commands, message, at, .. } => operations::deny(t, commands, message, *at).await?,
        Write::HostRevoke { host, at, .. } => hosts::revoke(t, *host, *at, false).await?,
        Write::HostEdit(edit) => hosts::edit(t, edit).await?,
        Write::HostKeysRotate(rotation) => host_keys::rotate(t, rotation).await?,
        Write::HostKeysRetire { host, host_epoch, last_report } => {
            host_keys::retire(t, *host, *host_epoch, *last_report).await?
        }
        Write::HostQuarantine { host, why, audit } => quarantines::enter(t, *host, why, audit).await?,
        Write::HostQuarantineSeen { host, seen } => quarantines::seen(t, *host, seen).await?,
        Write::HostRelease { host, quarantine, .. } => quarantines::release(t, *host, *quarantine).await?,
        Write::HostSeen { host, actions, agent_version, boots, root_version } => {
            hosts::seen(t, *host, actions, agent_version, boots, *root_version).await?
        }
        Write::HostClock { host, skew_ms } => hosts::clock(t, *host, *skew_ms).await?,
        Write::HostLeft { host, at } => hosts::left(t, *host, *at).await?,
        Write::RootAdvance { version, envelope, .. } => people::root_advance(t, *version, envelope).await?,
        Write::KeyChangeBegin { change, .. } => keys::begin(t, change).await?,
        Write::KeyChangeMove(moved) => keys::change_move(t, moved).await?,
        Write::UserCreate { user, .. } => accounts::create(t, user).await?,
        Write::UserChange { was, change, .. } => accounts::change(t, was, change).await?,
        Write::UserSessionCreate { session, password_hash, .. } => {
            accounts::session_create(t, session, password_hash).await?
        }
        Write::UserSessionEnd { session, .. } => return Ok(Change::if_any(accounts::session_end(t, *session).await?)),
        Write::UserSessionsEnd { user, .. } => return Ok(Change::if_any(accounts::sessions_end(t, *user).await?)),
        Write::ApiTokenCreate { token, .. } => accounts::token_create(t, token).await?,
        Write::ApiTokenRevoke { token, at, .. } => {
            return Ok(Change::if_any(accounts::token_revoke(t, *token, *at).await?));
        }
        Write::ApiTokenUsed { token, at } => accounts::token_used(t, *token, *at).await?,
        Write::Recovery(write) => restores::change(t, write).await?,
        Write::Audit(_) => Written::Done,
        Write::AuditHead { position, envelope } => {
            t.log.accept_head(AuditPosition { size: position.size, root: position.root })?;
            people::audit_head(t, position, envelope).await?
        }
        Write::CommandSeal { .. } | Write::CommandStage { .. } | Write::CommandSettle(_) | Write::ReportKeep(_) => {
            unreachable!("invariant: hot writes are applied by `hot`")
        }
        Write::By { .. } | Write::HostRetire(_) => unreachable!("invariant: taken off before, and never around itself"),
    };
    Ok(if written == Written::Done { Change::Made } else { Change::Nothing(written) })
}

/// The audit entries of a write that is applied alone.
fn entries(write: &Write) -> &[AuditEntry] {
    match write {
        Write::Initialise { audit, .. } => audit,
        Write::TokenCreate { audit, .. }
        | Write::Enrol { audit, .. }
        | Write::OperationPropose { audit, .. }
        | Write::RecoveryRewrap { audit, .. }
        | Write::CommandEnd { audit, .. }
        | Write::CommandsDeny { audit, .. }
        | Write::HostRevoke { audit, .. }
        | Write::HostQuarantine { audit, .. }
        | Write::HostRelease { audit, .. }
        | Write::RootAdvance { audit, .. }
        | Write::KeyChangeBegin { audit, .. }
        | Write::UserSessionCreate { audit, .. }
        | Write::UserSessionEnd { audit, .. }
        | Write::UserCreate { audit, .. }
        | Write::UserChange { audit, .. }
        | Write::UserSessionsEnd { audit, .. }
        | Write::ApiTokenCreate { audit, .. }
        | Write::ApiTokenRevoke { audit, .. }
        | Write::Audit(audit) => core::slice::from_ref(audit),
        Write::HostEdit(edit) => &edit.audit,
        Write::CommandsApprove(approved) => &approved.audit,
        Write::StandingPropose(proposal) => core::slice::from_ref(&proposal.audit),
        Write::KeyChangeMove(moved) => core::slice::from_ref(&moved.audit),
        Write::HostKeysRotate(rotation) => core::slice::from_ref(&rotation.audit),
        Write::Recovery(write) => write.audit(),
        Write::HostKeysRetire { .. }
        | Write::HostQuarantineSeen { .. }
        | Write::HostSeen { .. }
        | Write::HostClock { .. }
        | Write::HostLeft { .. }
        | Write::AuditHead { .. }
        | Write::ApiTokenUsed { .. } => &[],
        Write::CommandSeal { .. } | Write::CommandStage { .. } | Write::CommandSettle(_) | Write::ReportKeep(_) => {
            unreachable!("invariant: hot writes are applied by `hot`")
        }
        Write::By { .. } | Write::HostRetire(_) => unreachable!("invariant: taken off before, and never around itself"),
    }
}

/// "host X is not known".
fn unknown(kind: &str, id: impl Display) -> Failure {
    Failure::conflict(format!("{kind} {id} is not known"))
}
