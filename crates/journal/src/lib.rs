//! The agent's durable state: replay guard, open commands, reports, root metadata, actions' records.
//!
//! One SQLite file, one writer. Each [`JournalWrite`] is a transaction of its own in meaning; those
//! that wait together share one commit, in order, so that durability is paid once per batch. A write
//! is acknowledged only when it would survive a power cut (`synchronous=FULL`).

mod error;
pub mod limits;
mod read;
mod schema;
mod write;

use std::{
    fs::{File, OpenOptions, TryLockError},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use ids::{CommandId, HostEpoch, ReportSequence};
use session::{
    agent::io::{JournalState, JournalWrite, StoredReport},
    frames::KeyRecord,
};
use sqlx::{ConnectOptions as _, Connection as _, SqliteConnection, sqlite::SqliteConnectOptions};
use tokio::sync::{mpsc, oneshot};

pub use error::JournalError;

/// Key of the record that says that a command came to the plan that was approved. It goes with the command.
#[must_use]
pub fn plan_key(command: CommandId) -> String {
    format!("plan/{command}")
}

/// Handle to the journal. Cheap to clone; the file stays open until every handle is dropped.
#[derive(Clone, Debug)]
pub struct Journal {
    requests: mpsc::Sender<Request>,
}

/// What the writer is asked for.
#[derive(Debug)]
pub(crate) enum Request {
    Write {
        write: JournalWrite,
        done: oneshot::Sender<Result<(), JournalError>>,
    },
    RecordWrite {
        key: String,
        record: Option<Vec<u8>>,
        done: oneshot::Sender<Result<(), JournalError>>,
    },
    Close {
        done: oneshot::Sender<()>,
    },
    RecordRead {
        key: String,
        done: oneshot::Sender<Result<Option<Vec<u8>>, JournalError>>,
    },
    ReportsRead {
        first: ReportSequence,
        last: ReportSequence,
        done: oneshot::Sender<Result<Vec<StoredReport>, JournalError>>,
    },
    KeysRead {
        above: HostEpoch,
        up_to: HostEpoch,
        done: oneshot::Sender<Result<Vec<KeyRecord>, JournalError>>,
    },
}

/// A journal just opened.
#[derive(Debug)]
pub struct Opened {
    /// To write to.
    pub journal: Journal,
    /// What it held.
    pub state: JournalState,
    /// True when the file did not exist: with an identity key present, that means its state was lost.
    pub created: bool,
}

/// A queued write.
#[derive(Debug)]
pub struct Pending {
    result: oneshot::Receiver<Result<(), JournalError>>,
}

impl Pending {
    /// Resolves when the write is durable. Writes become durable in the order they were queued.
    ///
    /// # Errors
    /// As [`Journal::write`].
    pub async fn durable(self) -> Result<(), JournalError> {
        self.result.await.map_err(|_| JournalError::Closed)?
    }
}

impl Journal {
    /// Opens (or makes) the journal at `path` and reads it whole.
    ///
    /// # Errors
    /// When another process has it open, the file cannot be read or written, is not a journal, was
    /// written by a newer version, or fails its integrity check.
    pub async fn open(path: &Path) -> Result<Opened, JournalError> {
        let lock = lock(path)?;
        let created = !path.try_exists().map_err(|source| JournalError::io(path, source))?;
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(sqlx::sqlite::SqliteJournalMode::Wal)
            .synchronous(sqlx::sqlite::SqliteSynchronous::Full)
            .foreign_keys(true)
            .disable_statement_logging();
        let mut connection = SqliteConnection::connect_with(&options).await.map_err(|e| JournalError::open(path, e))?;
        restrict(path)?;
        schema::prepare(&mut connection, path).await?;
        let state = read::state(&mut connection, path).await?;
        let (requests, queue) = mpsc::channel(limits::QUEUE_MAX);
        tokio::spawn(write::run(connection, queue, lock, path.to_owned()));
        Ok(Opened { journal: Self { requests }, state, created })
    }

    /// Which step of the schema the journal at `path` has, whoever has it open; `None` when there is none.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn schema(path: &Path) -> Result<Option<i64>, JournalError> {
        if !path.try_exists().map_err(|source| JournalError::io(path, source))? {
            return Ok(None);
        }
        let options = SqliteConnectOptions::new().filename(path).disable_statement_logging();
        let fail = |source| JournalError::open(path, source);
        let mut connection = SqliteConnection::connect_with(&options).await.map_err(fail)?;
        let version = schema::version(&mut connection).await.map_err(fail)?;
        connection.close().await.map_err(fail)?;
        Ok(Some(version))
    }

    /// Applies one write; resolves when it is durable. A caller that needs an order awaits
    /// [`Journal::queue`] of one write before the next.
    ///
    /// # Errors
    /// When the disk refuses. Nothing after a failed write is applied: the journal is closed for good,
    /// and the agent must end and start again from what is durable.
    pub async fn write(&self, write: JournalWrite) -> Result<(), JournalError> {
        self.queue(write).await?.durable().await
    }

    /// Queues one write behind all queued before; it is durable once [`Pending::durable`] resolves.
    ///
    /// # Errors
    /// When the journal is closed.
    pub async fn queue(&self, write: JournalWrite) -> Result<Pending, JournalError> {
        let (done, result) = oneshot::channel();
        self.requests.send(Request::Write { write, done }).await.map_err(|_| JournalError::Closed)?;
        Ok(Pending { result })
    }

    /// Writes what is queued, closes the file, and resolves when another process may open it. Every
    /// later request through any handle fails with [`JournalError::Closed`].
    pub async fn close(&self) {
        let (done, closed) = oneshot::channel();
        if self.requests.send(Request::Close { done }).await.is_ok() {
            let _ = closed.await;
        }
    }

    /// Replaces an action's record (`None` removes it); resolves when it is durable.
    ///
    /// # Errors
    /// As [`Journal::write`].
    pub async fn record_write(&self, key: &str, record: Option<Vec<u8>>) -> Result<(), JournalError> {
        let (done, result) = oneshot::channel();
        let request = Request::RecordWrite { key: key.to_owned(), record, done };
        self.requests.send(request).await.map_err(|_| JournalError::Closed)?;
        result.await.map_err(|_| JournalError::Closed)?
    }

    /// Reads an action's record.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub async fn record_read(&self, key: &str) -> Result<Option<Vec<u8>>, JournalError> {
        let (done, result) = oneshot::channel();
        let request = Request::RecordRead { key: key.to_owned(), done };
        self.requests.send(request).await.map_err(|_| JournalError::Closed)?;
        result.await.map_err(|_| JournalError::Closed)?
    }

    /// Reads acknowledged reports that are still kept, ascending: those from `first` to `last`, at most
    /// [`limits::ACKNOWLEDGED_REPORTS_READ_MAX`] of them.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub async fn reports_acknowledged(
        &self,
        first: ReportSequence,
        last: ReportSequence,
    ) -> Result<Vec<StoredReport>, JournalError> {
        let (done, result) = oneshot::channel();
        let request = Request::ReportsRead { first, last, done };
        self.requests.send(request).await.map_err(|_| JournalError::Closed)?;
        result.await.map_err(|_| JournalError::Closed)?
    }

    /// Reads the changes of this host's keys to the epochs above `above` and up to `up_to`, ascending, at most
    /// [`session::limits::KEY_CHANGES_SHOWN_MAX`] of them.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub async fn key_changes(&self, above: HostEpoch, up_to: HostEpoch) -> Result<Vec<KeyRecord>, JournalError> {
        let (done, result) = oneshot::channel();
        self.requests.send(Request::KeysRead { above, up_to, done }).await.map_err(|_| JournalError::Closed)?;
        result.await.map_err(|_| JournalError::Closed)?
    }
}

/// Holds off a second agent on the same state. The kernel drops the lock with the process.
fn lock(path: &Path) -> Result<File, JournalError> {
    let lock_path = path.with_extension("lock");
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(&lock_path)
        .map_err(|source| JournalError::io(&lock_path, source))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(JournalError::InUse { path: path.to_owned() }),
        Err(TryLockError::Error(source)) => Err(JournalError::io(&lock_path, source)),
    }
}

/// Only the agent's user may read it.
fn restrict(path: &Path) -> Result<(), JournalError> {
    use std::os::unix::fs::PermissionsExt as _;
    let permissions = std::fs::Permissions::from_mode(0o600);
    std::fs::set_permissions(path, permissions).map_err(|source| JournalError::io(path, source))
}
