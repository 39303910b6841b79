//! The one writer: takes what waits, commits it together, then acknowledges.

use std::{
    fs::File,
    path::{Path, PathBuf},
};

use envelope::messages::SealedValue;
use ids::{CommandId, Sequence};
use session::{
    agent::io::{JournalWrite, RingEntry, StoredReport},
    frames::Stage,
};
use sqlx::{Connection as _, Row as _, SqliteConnection};
use tokio::sync::{mpsc, oneshot};

use crate::{
    JournalError, Request, limits,
    read::{meta, stage_number},
};

type Done = oneshot::Sender<Result<(), JournalError>>;

/// Runs until every handle is gone or a write fails. `lock` is held as long.
pub(crate) async fn run(
    mut connection: SqliteConnection,
    mut queue: mpsc::Receiver<Request>,
    lock: File,
    path: PathBuf,
) {
    let mut batch = Vec::new();
    let mut closing = Vec::new();
    while queue.recv_many(&mut batch, limits::BATCH_MAX).await > 0 {
        let requests = batch.drain(..).filter_map(|request| match request {
            Request::Close { done } => {
                closing.push(done);
                None
            }
            request => Some(request),
        });
        match apply(&mut connection, requests.collect()).await {
            Ok(written) => {
                for done in written {
                    // The asker may be gone; what is durable stays durable.
                    let _ = done.send(Ok(()));
                }
            }
            Err(source) => {
                let error = JournalError::write(&path, source);
                tracing::error!(error = %error, source = ?std::error::Error::source(&error), "the journal cannot be written; nothing more will be accepted");
                break;
            }
        }
        if !closing.is_empty() {
            break;
        }
    }
    if let Err(error) = connection.close().await {
        tracing::warn!(%error, path = %Path::display(&path), "the journal did not close cleanly; it will recover at the next start");
    }
    drop(lock);
    for done in closing {
        let _ = done.send(());
    }
}

/// Applies a batch in one transaction; gives back whom to tell. Reads are answered inside it, so
/// they see every write queued before them.
async fn apply(connection: &mut SqliteConnection, batch: Vec<Request>) -> Result<Vec<Done>, sqlx::Error> {
    #[cfg(feature = "crash-points")]
    let point = batch.first().and_then(point);
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
    let mut written = Vec::with_capacity(batch.len());
    for request in batch {
        match request {
            Request::Write { write, done } => {
                apply_write(&mut transaction, write).await?;
                written.push(done);
            }
            Request::RecordWrite { key, record, done } => {
                record_write(&mut transaction, &key, record).await?;
                written.push(done);
            }
            Request::RecordRead { key, done } => {
                let record = record_read(&mut transaction, &key).await?;
                let _ = done.send(Ok(record));
            }
            Request::Close { .. } => {}
        }
    }
    transaction.commit().await?;
    #[cfg(feature = "crash-points")]
    if let Some(point) = point {
        point.after();
    }
    Ok(written)
}

/// The door of what the agent writes. Batches are of one then ([`limits::BATCH_MAX`]).
#[cfg(feature = "crash-points")]
fn point(request: &Request) -> Option<crash_points::Point> {
    use crash_points::{Passage, Point};
    match request {
        Request::Write { write, .. } => {
            let name = format!("{write:?}");
            let kind = name.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default();
            Some(Point::before("journal", kind, Passage::Aside))
        }
        Request::RecordWrite { key, record, .. } => {
            let what = if record.is_some() { "record" } else { "no record" };
            Some(Point::before("journal", &format!("{what} {key}"), Passage::Change))
        }
        Request::RecordRead { .. } | Request::Close { .. } => None,
    }
}

async fn apply_write(connection: &mut SqliteConnection, write: JournalWrite) -> Result<(), sqlx::Error> {
    match write {
        JournalWrite::Accept { entry, command, sealed, evict } => {
            ring_add(connection, &entry, evict).await?;
            open_add(connection, &entry, &command, &sealed).await
        }
        JournalWrite::Refuse { entry, report, evict } => {
            ring_add(connection, &entry, evict).await?;
            report_add(connection, &report).await
        }
        JournalWrite::Start { command } => {
            stage_set(connection, command, Stage::Started).await?;
            let query = "UPDATE open_command SET stage = $2 WHERE command = $1";
            let query = sqlx::query(query).bind(command.as_bytes().as_slice()).bind(stage_number(Stage::Started));
            query.execute(connection).await.map(drop)
        }
        JournalWrite::Resume { command } => {
            let query = "UPDATE open_command SET resumptions = resumptions + 1 WHERE command = $1";
            sqlx::query(query).bind(command.as_bytes().as_slice()).execute(connection).await.map(drop)
        }
        JournalWrite::Done { command, report } => {
            stage_set(connection, command, Stage::Done).await?;
            for query in ["DELETE FROM open_command WHERE command = $1", "DELETE FROM sealed_value WHERE command = $1"]
            {
                sqlx::query(query).bind(command.as_bytes().as_slice()).execute(&mut *connection).await?;
            }
            report_add(connection, &report).await
        }
        JournalWrite::Acknowledge { sequence } => acknowledge(connection, integer(sequence.0)?).await,
        JournalWrite::Root { version, envelope } => {
            let query = sqlx::query("INSERT INTO root (version, envelope) VALUES ($1, $2)");
            query.bind(integer(version.0)?).bind(envelope).execute(connection).await.map(drop)
        }
        JournalWrite::AuditHead { position } => {
            let size = position.size.to_be_bytes();
            let value = [position.log.as_bytes().as_slice(), &size, &position.root.0].concat();
            meta_set(connection, meta::AUDIT_HEAD, value).await
        }
        JournalWrite::Quarantine { id } => meta_set(connection, meta::QUARANTINE, id.as_bytes().to_vec()).await,
        JournalWrite::Clock { clock } => {
            let (time, at) = (clock.time.0.to_be_bytes(), clock.at.0.to_be_bytes());
            meta_set(connection, meta::CLOCK, [clock.boot.as_bytes().as_slice(), &time, &at].concat()).await
        }
    }
}

/// SQLite's integers are signed; counters beyond never occur, because jumps are bounded.
fn integer(counter: u64) -> Result<i64, sqlx::Error> {
    i64::try_from(counter).map_err(|error| sqlx::Error::Encode(Box::new(error)))
}

async fn meta_set(connection: &mut SqliteConnection, key: &'static str, value: Vec<u8>) -> Result<(), sqlx::Error> {
    let query = "INSERT INTO meta (key, value) VALUES ($1, $2) ON CONFLICT (key) DO UPDATE SET value = excluded.value";
    sqlx::query(query).bind(key).bind(value).execute(connection).await.map(drop)
}

async fn ring_add(
    connection: &mut SqliteConnection,
    entry: &RingEntry,
    evict: Option<CommandId>,
) -> Result<(), sqlx::Error> {
    if let Some(command) = evict {
        let query = sqlx::query("DELETE FROM ring WHERE command = $1").bind(command.as_bytes().as_slice());
        query.execute(&mut *connection).await?;
    }
    sqlx::query("INSERT INTO ring (command, sequence, order_sha256, stage) VALUES ($1, $2, $3, $4)")
        .bind(entry.command.as_bytes().as_slice())
        .bind(integer(entry.sequence.0)?)
        .bind(entry.order_sha256.0.as_slice())
        .bind(stage_number(entry.stage))
        .execute(&mut *connection)
        .await?;
    high_raise(connection, entry.sequence).await
}

/// The highest sequence only rises; big-endian values compare as the numbers do.
async fn high_raise(connection: &mut SqliteConnection, sequence: Sequence) -> Result<(), sqlx::Error> {
    let query = "INSERT INTO meta (key, value) VALUES ($1, $2) ON CONFLICT (key) DO UPDATE SET value = max(excluded.value, meta.value)";
    let query = sqlx::query(query).bind(meta::HIGH).bind(sequence.0.to_be_bytes().to_vec());
    query.execute(connection).await.map(drop)
}

async fn open_add(
    connection: &mut SqliteConnection,
    entry: &RingEntry,
    command: &[u8],
    sealed: &[SealedValue],
) -> Result<(), sqlx::Error> {
    sqlx::query("INSERT INTO open_command (command, sequence, envelope, stage) VALUES ($1, $2, $3, $4)")
        .bind(entry.command.as_bytes().as_slice())
        .bind(integer(entry.sequence.0)?)
        .bind(command)
        .bind(stage_number(Stage::Accepted))
        .execute(&mut *connection)
        .await?;
    for (position, value) in sealed.iter().enumerate() {
        sqlx::query("INSERT INTO sealed_value (command, position, name, bytes) VALUES ($1, $2, $3, $4)")
            .bind(entry.command.as_bytes().as_slice())
            .bind(integer(position as u64)?)
            .bind(value.name.as_str())
            .bind(value.bytes.as_slice())
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}

async fn stage_set(connection: &mut SqliteConnection, command: CommandId, stage: Stage) -> Result<(), sqlx::Error> {
    let query = sqlx::query("UPDATE ring SET stage = $2 WHERE command = $1");
    query.bind(command.as_bytes().as_slice()).bind(stage_number(stage)).execute(connection).await.map(drop)
}

async fn report_add(connection: &mut SqliteConnection, report: &StoredReport) -> Result<(), sqlx::Error> {
    sqlx::query("INSERT INTO report (sequence, command, sha256, envelope) VALUES ($1, $2, $3, $4)")
        .bind(integer(report.sequence.0)?)
        .bind(report.command.as_bytes().as_slice())
        .bind(report.sha256.0.as_slice())
        .bind(report.envelope.as_slice())
        .execute(&mut *connection)
        .await?;
    let position = [report.sequence.0.to_be_bytes().as_slice(), &report.sha256.0].concat();
    meta_set(connection, meta::LAST_REPORT, position).await
}

async fn acknowledge(connection: &mut SqliteConnection, sequence: i64) -> Result<(), sqlx::Error> {
    let query = "UPDATE report SET acknowledged = 1 WHERE sequence <= $1 AND acknowledged = 0";
    sqlx::query(query).bind(sequence).execute(&mut *connection).await?;
    let query = "DELETE FROM report WHERE acknowledged = 1 AND sequence <= $1";
    sqlx::query(query).bind(sequence - limits::ACKNOWLEDGED_REPORTS_KEPT).execute(connection).await.map(drop)
}

async fn record_write(
    connection: &mut SqliteConnection,
    key: &str,
    record: Option<Vec<u8>>,
) -> Result<(), sqlx::Error> {
    let query = match record {
        Some(value) => {
            let query = "INSERT INTO record (key, value) VALUES ($1, $2) ON CONFLICT (key) DO UPDATE SET value = excluded.value";
            sqlx::query(query).bind(key.to_owned()).bind(value)
        }
        None => sqlx::query("DELETE FROM record WHERE key = $1").bind(key.to_owned()),
    };
    query.execute(connection).await.map(drop)
}

async fn record_read(connection: &mut SqliteConnection, key: &str) -> Result<Option<Vec<u8>>, sqlx::Error> {
    let query = sqlx::query("SELECT value FROM record WHERE key = $1").bind(key.to_owned());
    query.fetch_optional(connection).await?.map(|row| row.try_get(0)).transpose()
}
