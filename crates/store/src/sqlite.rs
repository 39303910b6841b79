//! Opening and closing the SQLite store, and its side of the port.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use envelope::{messages::LogPosition, recovery::RecoveryCopy};
use fleet::{
    keys::KeyChange,
    list::{
        AppLine, AuditFilter, AuditLine, AuditSort, CommandLine, CommandListFilter, CredentialSort, HeadLine,
        HostFilter, HostSort, ListPage, Listed, OperationFilter, OperationLine, SessionFilter, TokenFilter, UserFilter,
        UserSort,
    },
    model::{
        ApiToken, AppInstance, AuditRow, Command, CommandFilter, FormerKey, Host, JoinTokenRecord, Operation,
        QuarantineSeen, User, UserSession,
    },
    ports::{HostOpen, Later, Store, StoreError, Write, Written},
    recovery::{Claim, Recovery, RecoveryHost},
    standing::StandingRecord,
};
use ids::{
    ApiTokenId, AppName, CommandId, HostId, HostName, OperationId, Revision, SessionId, Sha256, StandingOrderId,
    TokenId, UnixMs, UserName,
};
use sqlx::{
    ConnectOptions as _, Connection as _, SqliteConnection,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous},
};
use tokio::sync::watch;
use zeroize::Zeroizing;

use crate::{
    audit::{
        AuditPosition,
        proofs::Proofs,
        whole::{self, AuditExamined},
    },
    cipher::{Cipher, Place},
    fault::{self, Location},
    limits, lock,
    read::standing::Looks,
    readers::Readers,
    schema,
    writer::{Writer, WriterHandle},
};

/// Text under `facts.key_check`; that it decrypts shows that the key is the right one.
const KEY_CHECK: &[u8] = b"serverflow data key";

/// What a store needs to open.
pub struct StoreConfig {
    /// The database file. Its directory must exist; the file is made if it is not there. Two more
    /// files appear beside it (`-wal`, `-shm`) and a lock (`.lock`).
    pub path: PathBuf,
    /// Encrypts what could hold a secret. Must be the same for the life of the database and must not
    /// be kept in it; without it the database cannot be opened.
    pub data_key: Zeroizing<[u8; 32]>,
}

/// How readers see the database.
#[derive(Clone)]
pub(crate) struct Reader {
    pub(crate) readers: Arc<Readers>,
    pub(crate) cipher: Arc<Cipher>,
    pub(crate) location: Location,
}

/// The store over SQLite. Dropping it is safe at any time: what was answered is durable.
pub struct SqliteStore {
    reader: Reader,
    looks: Looks,
    proofs: Proofs,
    writer: WriterHandle,
    position: watch::Receiver<AuditPosition>,
}

impl SqliteStore {
    /// Opens the database, brings its schema forward and reads the audit tree's edge. Must be called
    /// within a tokio runtime, on which the writer then runs.
    ///
    /// # Errors
    /// `Unavailable` when another control plane has it open, the file or directory cannot be
    /// written, the disk is full, or a newer program wrote it; `Corrupt` when the file is damaged,
    /// the data key is another, or the audit log does not match its last signed head.
    pub async fn open(config: StoreConfig) -> Result<Self, StoreError> {
        let StoreConfig { path, data_key } = config;
        let lock = lock::DatabaseLock::take(&path)?;
        lock::create_private(&path)?;
        let location = Location(path);
        let cipher = Arc::new(Cipher::new(&data_key));
        let mut connection = connect(&location).await?;
        quick_check(&mut connection, &location).await?;
        schema::migrate(&mut connection, &location, schema::MIGRATIONS).await?;
        key_check(&mut connection, &location, &cipher).await?;
        let readers = Readers::open(options(&location).read_only(true)).await;
        let readers = Arc::new(readers.map_err(|error| location.error("opening readers", &error))?);
        let reader = Reader { readers, cipher: Arc::clone(&cipher), location: location.clone() };
        let (writer, position) = Writer::start(connection, location, cipher, lock).await?;
        let proofs = Proofs::new(reader.clone());
        Ok(Self { looks: Looks::start(reader.clone()), proofs, reader, writer, position })
    }

    /// Size and root of the audit log as durable now.
    #[must_use]
    pub fn audit_position(&self) -> AuditPosition {
        *self.position.borrow()
    }

    /// The same as a channel that changes with each commit that added leaves; whoever signs heads
    /// waits on it.
    #[must_use]
    pub fn audit_positions(&self) -> watch::Receiver<AuditPosition> {
        self.position.clone()
    }

    /// Leaf hashes from index `first` on, at most `limit` (bounded by [`limits::AUDIT_ROWS_MAX`]):
    /// what inclusion and consistency proofs (RFC 6962 section 2.1) are made of.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn audit_leaf_hashes(&self, first: u64, limit: u32) -> Result<Vec<Sha256>, StoreError> {
        self.reader.audit_leaf_hashes(first, limit).await
    }

    /// Whether the last transaction failed because the database could not be written.
    #[must_use]
    pub fn is_impaired(&self) -> bool {
        self.writer.is_impaired()
    }

    /// Has it try again, without waiting for something to write.
    pub fn mend(&self) {
        self.writer.mend();
    }

    /// Finishes what was asked, then closes the file and gives up its lock. Later writes are refused.
    pub async fn close(&self) {
        // The writer last: only it can put what stands in the log into the database and take the log away.
        self.reader.readers.close().await;
        self.writer.close().await;
    }
}

fn options(location: &Location) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(&location.0)
        .foreign_keys(true)
        .busy_timeout(limits::BUSY_TIMEOUT)
        .disable_statement_logging()
}

/// A connection that writes.
pub(crate) async fn connect(location: &Location) -> Result<SqliteConnection, StoreError> {
    options(location)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .connect()
        .await
        .map_err(|error| location.error("opening", &error))
}

/// Reads the first page and the schema, and every page of a file that is not too large for that, so that a
/// damaged file is named before anything else fails.
async fn quick_check(connection: &mut SqliteConnection, location: &Location) -> Result<(), StoreError> {
    let failed = |error: &sqlx::Error| location.error("opening", error);
    sqlx::query("SELECT count(*) FROM sqlite_schema").fetch_one(&mut *connection).await.map_err(|e| failed(&e))?;
    let bytes = std::fs::metadata(&location.0).map_or(0, |file| file.len());
    if bytes > limits::CHECKED_WHOLE_BYTES_MAX { Ok(()) } else { whole_check(connection, location).await }
}

async fn whole_check(connection: &mut SqliteConnection, location: &Location) -> Result<(), StoreError> {
    let check = sqlx::query_scalar::<_, String>("PRAGMA quick_check(1)").fetch_one(connection).await;
    match check.map_err(|error| location.error("opening", &error))?.as_str() {
        "ok" => Ok(()),
        what => {
            Err(StoreError::Corrupt(format!("{} is damaged ({what}); restore it from a backup", location.0.display())))
        }
    }
}

async fn key_check(connection: &mut SqliteConnection, location: &Location, cipher: &Cipher) -> Result<(), StoreError> {
    if key_is_right(connection, location, cipher).await? {
        return Ok(());
    }
    sqlx::query("INSERT INTO facts (name, value) VALUES ('key_check', $1)")
        .bind(cipher.seal(Place::KEY_CHECK, 0, KEY_CHECK)?)
        .execute(connection)
        .await
        .map(drop)
        .map_err(|error| location.error("checking the data key", &error))
}

/// False when nothing was sealed yet that could tell.
async fn key_is_right(
    connection: &mut SqliteConnection,
    location: &Location,
    cipher: &Cipher,
) -> Result<bool, StoreError> {
    let row = sqlx::query_scalar::<_, Vec<u8>>("SELECT value FROM facts WHERE name = 'key_check'")
        .fetch_optional(connection)
        .await
        .map_err(|error| location.error("checking the data key", &error))?;
    let Some(sealed) = row else { return Ok(false) };
    match cipher.open(Place::KEY_CHECK, 0, &sealed) {
        Ok(text) if text == KEY_CHECK => Ok(true),
        _ => Err(StoreError::Corrupt(format!(
            "{} was made with another data key; give the key file that belongs to it (it is in the same backup)",
            location.0.display()
        ))),
    }
}

/// What an examination read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Examined {
    /// Root metadata envelopes from version 1.
    pub root_chain: Vec<Vec<u8>>,
    /// The audit log, leaf by leaf.
    pub audit: AuditExamined,
    /// Hosts that are not revoked.
    pub hosts: u64,
}

/// Looks at a database, also while a control plane writes it: every page, the data key, every leaf of the
/// audit log, and the root metadata in it. Nothing is changed, and no schema is brought forward.
///
/// # Errors
/// `Unavailable` when the file cannot be read; `Corrupt` when it is damaged the data key is another, or
/// the audit log is not the one that was signed.
pub async fn examine(config: StoreConfig) -> Result<Examined, StoreError> {
    let StoreConfig { path, data_key } = config;
    let location = Location(path);
    let cipher = Arc::new(Cipher::new(&data_key));
    // Without a log beside it nobody has the file open, and everything is in it: reading makes no file then.
    let is_at_rest = !wal(&location).exists();
    let readers = Readers::open(options(&location).read_only(true).immutable(is_at_rest)).await;
    let readers = Arc::new(readers.map_err(|error| location.error("opening", &error))?);
    let reader = Reader { readers, cipher, location };
    let examined = examined(&reader).await;
    reader.readers.close().await;
    examined
}

/// Writes all of a database as of one moment into a new file, 0600, also while a control plane writes it.
///
/// # Errors
/// When the database cannot be read, or `to` exists or cannot be written. Nothing is left at `to` then but what was there.
pub async fn snapshot(database: &Path, to: &Path) -> Result<(), StoreError> {
    let (location, target) = (Location(database.to_owned()), Location(to.to_owned()));
    if std::fs::exists(to).map_err(|error| fault::file_error("looking at", to, &error))? {
        return Err(StoreError::Conflict(format!("{} exists already", to.display())));
    }
    lock::create_private(to)?;
    let is_at_rest = !wal(&location).exists();
    let copied = async {
        let mut connection = options(&location).read_only(true).immutable(is_at_rest).connect().await?;
        // One statement is one moment: what is written meanwhile is not in it.
        let path = to.to_string_lossy().into_owned();
        sqlx::query("VACUUM INTO $1").bind(path).execute(&mut connection).await?;
        connection.close().await
    };
    let copied: Result<(), sqlx::Error> = copied.await;
    let synced = copied.map_err(|error| target.error("copying the database into", &error)).and_then(|()| {
        let file = std::fs::File::open(to).and_then(|file| file.sync_all());
        file.map_err(|error| fault::file_error("writing", to, &error))
    });
    if synced.is_err() {
        // Half of a database is worth nothing; whoever asked hears of the error.
        let _ = std::fs::remove_file(to);
    }
    synced
}

fn wal(location: &Location) -> PathBuf {
    let mut name = location.0.clone().into_os_string();
    name.push("-wal");
    name.into()
}

async fn examined(reader: &Reader) -> Result<Examined, StoreError> {
    let mut reading = reader.readers.take().await.map_err(|error| reader.location.error("opening", &error))?;
    whole_check(&mut reading.connection, &reader.location).await?;
    key_is_right(&mut reading.connection, &reader.location, &reader.cipher).await?;
    let audit = whole::examine(&mut reading.connection, &reader.location).await?;
    let hosts = "SELECT count(*) FROM hosts WHERE revoked_at IS NULL";
    let hosts: i64 = sqlx::query_scalar(hosts)
        .fetch_one(&mut reading.connection)
        .await
        .map_err(|error| reader.location.error("counting hosts", &error))?;
    reading.done();
    Ok(Examined { root_chain: reader.root_chain().await?, audit, hosts: u64::try_from(hosts).unwrap_or(0) })
}

impl Store for SqliteStore {
    fn write(&self, write: Write) -> Later<'_, Result<Written, StoreError>> {
        Box::pin(self.writer.write(write))
    }
    fn host(&self, id: HostId) -> Later<'_, Result<Option<Host>, StoreError>> {
        Box::pin(self.looks.host(id))
    }
    fn host_former_keys(&self, id: HostId) -> Later<'_, Result<Vec<FormerKey>, StoreError>> {
        Box::pin(self.reader.host_former_keys(id))
    }
    fn host_quarantines(&self, id: HostId) -> Later<'_, Result<Vec<QuarantineSeen>, StoreError>> {
        Box::pin(self.reader.host_quarantines(id))
    }
    fn host_open(&self, id: HostId) -> Later<'_, Result<Option<HostOpen>, StoreError>> {
        Box::pin(self.looks.host_open(id))
    }
    fn host_by_name(&self, name: HostName) -> Later<'_, Result<Option<Host>, StoreError>> {
        Box::pin(self.reader.host_by_name(name))
    }
    fn host_ever(&self, name: HostName) -> Later<'_, Result<Option<Host>, StoreError>> {
        Box::pin(self.reader.host_ever(name))
    }
    fn hosts_named(&self, names: Vec<HostName>) -> Later<'_, Result<Vec<Host>, StoreError>> {
        Box::pin(self.reader.hosts_named(names))
    }
    fn hosts_list(
        &self,
        filter: HostFilter,
        sort: HostSort,
        page: ListPage,
    ) -> Later<'_, Result<Listed<Host>, StoreError>> {
        Box::pin(self.reader.hosts_list(filter, sort, page))
    }
    fn hosts(&self) -> Later<'_, Result<Vec<Host>, StoreError>> {
        Box::pin(self.reader.hosts())
    }
    fn join_token(&self, id: TokenId) -> Later<'_, Result<Option<JoinTokenRecord>, StoreError>> {
        Box::pin(self.reader.join_token(id))
    }
    fn commands_open(&self, host: HostId) -> Later<'_, Result<Vec<Command>, StoreError>> {
        Box::pin(self.reader.commands_open(host))
    }
    fn command(&self, id: CommandId) -> Later<'_, Result<Option<Command>, StoreError>> {
        Box::pin(self.reader.command(id))
    }
    fn commands(&self, filter: CommandFilter) -> Later<'_, Result<Vec<Command>, StoreError>> {
        Box::pin(self.reader.commands(filter))
    }
    fn commands_list(
        &self,
        filter: CommandListFilter,
        page: ListPage,
    ) -> Later<'_, Result<Listed<CommandLine>, StoreError>> {
        Box::pin(self.reader.commands_list(filter, page))
    }
    fn commands_overdue(&self, now: UnixMs, limit: u32) -> Later<'_, Result<Vec<Command>, StoreError>> {
        Box::pin(self.reader.commands_overdue(now, limit))
    }
    fn operations_list(
        &self,
        filter: OperationFilter,
        page: ListPage,
    ) -> Later<'_, Result<Listed<OperationLine>, StoreError>> {
        Box::pin(self.reader.operations_list(filter, page))
    }
    fn operation(&self, id: OperationId) -> Later<'_, Result<Option<Operation>, StoreError>> {
        Box::pin(self.reader.operation(id))
    }
    fn recovery_copy(&self, id: OperationId) -> Later<'_, Result<Option<RecoveryCopy>, StoreError>> {
        Box::pin(self.reader.recovery_copy(id))
    }
    fn apps(&self, app: Option<AppName>) -> Later<'_, Result<Vec<AppInstance>, StoreError>> {
        Box::pin(self.reader.apps(app))
    }
    fn apps_list(&self, host: Option<HostId>, page: ListPage) -> Later<'_, Result<Listed<AppLine>, StoreError>> {
        Box::pin(self.reader.apps_list(host, page))
    }
    fn apps_on(&self, host: HostId) -> Later<'_, Result<Vec<AppName>, StoreError>> {
        Box::pin(self.reader.apps_on(host))
    }
    fn users(&self) -> Later<'_, Result<Vec<User>, StoreError>> {
        Box::pin(self.reader.users())
    }
    fn users_list(
        &self,
        filter: UserFilter,
        sort: UserSort,
        page: ListPage,
    ) -> Later<'_, Result<Listed<User>, StoreError>> {
        Box::pin(self.reader.users_list(filter, sort, page))
    }
    fn user_by_name(&self, name: UserName) -> Later<'_, Result<Option<User>, StoreError>> {
        Box::pin(self.reader.user_by_name(name))
    }
    fn user_session(&self, token_sha256: Sha256) -> Later<'_, Result<Option<UserSession>, StoreError>> {
        Box::pin(self.reader.user_session(token_sha256))
    }
    fn user_session_by_id(&self, id: SessionId) -> Later<'_, Result<Option<UserSession>, StoreError>> {
        Box::pin(self.reader.user_session_by_id(id))
    }
    fn user_sessions_list(
        &self,
        filter: SessionFilter,
        sort: CredentialSort,
        page: ListPage,
    ) -> Later<'_, Result<Listed<UserSession>, StoreError>> {
        Box::pin(self.reader.user_sessions_list(filter, sort, page))
    }
    fn api_token(&self, id: ApiTokenId) -> Later<'_, Result<Option<ApiToken>, StoreError>> {
        Box::pin(self.reader.api_token(id))
    }
    fn api_tokens_list(
        &self,
        filter: TokenFilter,
        sort: CredentialSort,
        page: ListPage,
    ) -> Later<'_, Result<Listed<ApiToken>, StoreError>> {
        Box::pin(self.reader.api_tokens_list(filter, sort, page))
    }
    fn audit(&self, first: u64, limit: u32) -> Later<'_, Result<Vec<AuditRow>, StoreError>> {
        Box::pin(self.reader.audit(first, limit))
    }
    fn audit_list(
        &self,
        filter: AuditFilter,
        sort: AuditSort,
        page: ListPage,
    ) -> Later<'_, Result<Listed<AuditLine>, StoreError>> {
        Box::pin(self.reader.audit_list(filter, sort, page))
    }
    fn audit_heads_after(&self, size: u64, limit: u32) -> Later<'_, Result<Vec<HeadLine>, StoreError>> {
        Box::pin(self.reader.audit_heads_after(size, limit))
    }
    fn audit_heads(&self, latest_only: bool) -> Later<'_, Result<Vec<Vec<u8>>, StoreError>> {
        Box::pin(self.reader.audit_heads(latest_only))
    }
    fn audit_head_at(&self, size: u64) -> Later<'_, Result<Option<LogPosition>, StoreError>> {
        Box::pin(self.proofs.head_at(size))
    }
    fn audit_consistency(&self, old: u64, new: u64) -> Later<'_, Result<Arc<[Sha256]>, StoreError>> {
        Box::pin(self.proofs.consistency(old, new))
    }
    fn key_changes(&self) -> Later<'_, Result<Vec<KeyChange>, StoreError>> {
        Box::pin(self.reader.key_changes())
    }
    fn orders_under_way(&self, from: UnixMs, until: UnixMs) -> Later<'_, Result<u64, StoreError>> {
        Box::pin(self.reader.orders_under_way(from, until))
    }
    fn root_chain(&self) -> Later<'_, Result<Vec<Vec<u8>>, StoreError>> {
        Box::pin(self.reader.root_chain())
    }
    fn standing_orders(&self, host: Option<HostId>) -> Later<'_, Result<Vec<StandingRecord>, StoreError>> {
        Box::pin(self.reader.standing_orders(host))
    }
    fn standing_envelope(&self, order: StandingOrderId) -> Later<'_, Result<Option<Vec<u8>>, StoreError>> {
        Box::pin(self.reader.standing_envelope(order))
    }
    fn standing_revision(&self, host: HostId) -> Later<'_, Result<Revision, StoreError>> {
        Box::pin(self.reader.standing_revision(host))
    }
    fn recovery(&self) -> Later<'_, Result<Option<Recovery>, StoreError>> {
        Box::pin(self.reader.recovery())
    }
    fn recovery_hosts(&self, host: Option<HostId>) -> Later<'_, Result<Vec<RecoveryHost>, StoreError>> {
        Box::pin(self.reader.recovery_hosts(host))
    }
    fn recovery_claims(&self, host: Option<HostId>) -> Later<'_, Result<Vec<Claim>, StoreError>> {
        Box::pin(self.reader.recovery_claims(host))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What "durable when answered" rests on; no test can pull the plug, so the settings are checked.
    #[tokio::test]
    async fn the_writer_syncs_each_commit_and_readers_cannot_write() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("serverflow.db");
        let store =
            SqliteStore::open(StoreConfig { path: path.clone(), data_key: Zeroizing::new([1; 32]) }).await.unwrap();
        let mut writer = connect(&Location(path)).await.unwrap();
        for (pragma, expected) in [("synchronous", 2), ("foreign_keys", 1), ("busy_timeout", 10_000)] {
            let select = sqlx::AssertSqlSafe(format!("PRAGMA {pragma}"));
            let value: i64 = sqlx::query_scalar(select).fetch_one(&mut writer).await.unwrap();
            assert_eq!(value, expected, "{pragma}");
        }
        let mode: String = sqlx::query_scalar("PRAGMA journal_mode").fetch_one(&mut writer).await.unwrap();
        assert_eq!(mode, "wal");
        let mut reading = store.reader.readers.take().await.unwrap();
        assert!(sqlx::query("DELETE FROM facts").execute(&mut reading.connection).await.is_err());
    }
}
