//! The one writer: takes what waits, commits it together, then acknowledges.

use std::{
    fs::File,
    path::{Path, PathBuf},
};

use envelope::{
    limits::SEQUENCE_JUMP_MAX,
    messages::{ReportPosition, SealedValue},
};
use ids::{CommandId, HostEpoch, Sequence, UnixMs};
use session::{
    agent::io::{
        Burn, Burned, JournalWrite, ResetTaken, Retirement, RingEntry, StandingChange, StoredReport, StoredStanding,
    },
    frames::Stage,
};
use sqlx::{Connection as _, QueryBuilder, Row as _, Sqlite, SqliteConnection};
use tokio::sync::{mpsc, oneshot};

use crate::{
    JournalError, Request, limits,
    read::{self, meta, retirement_number, stage_number},
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

/// Statements of a batch that run together. sqlx hands each text to a thread and waits for it, which costs
/// more than most statements do, so those of one write are one text: there are few of them, and each is
/// prepared once.
struct Texts<'c> {
    connection: &'c mut SqliteConnection,
    /// Parameters are written `?`, which count on from one statement to the next.
    together: QueryBuilder<Sqlite>,
}

impl Texts<'_> {
    /// Begins one more statement.
    fn next(&mut self, text: &str) -> &mut QueryBuilder<Sqlite> {
        if !self.together.sql().as_str().is_empty() {
            self.together.push("; ");
        }
        self.together.push(text)
    }

    /// Runs what was put together.
    async fn run(&mut self) -> Result<(), sqlx::Error> {
        let mut together = core::mem::take(&mut self.together);
        together.build().execute(&mut *self.connection).await.map(drop)
    }
}

/// Applies a batch in one transaction; gives back whom to tell. Reads are answered inside it, so
/// they see every write queued before them. After an error the transaction is left open and the
/// connection must be closed, which undoes it.
async fn apply(connection: &mut SqliteConnection, batch: Vec<Request>) -> Result<Vec<Done>, sqlx::Error> {
    if batch.is_empty() {
        return Ok(Vec::new());
    }
    #[cfg(feature = "crash-points")]
    let point = batch.first().and_then(point);
    let mut texts = Texts { connection, together: QueryBuilder::new("BEGIN IMMEDIATE") };
    let mut written = Vec::with_capacity(batch.len());
    for (at, request) in batch.into_iter().enumerate() {
        if at > 0 {
            texts.run().await?;
        }
        match request {
            Request::Write { write, done } => {
                apply_write(&mut texts, write)?;
                written.push(done);
            }
            Request::RecordWrite { key, record, done } => {
                record_write(&mut texts, key, record);
                written.push(done);
            }
            Request::RecordRead { key, done } => {
                texts.run().await?;
                let record = record_read(texts.connection, key).await?;
                let _ = done.send(Ok(record));
            }
            Request::ReportsRead { first, last, done } => {
                texts.run().await?;
                let path = Path::new("the agent's journal");
                let _ = done.send(read::acknowledged(texts.connection, path, first, last).await);
            }
            Request::KeysRead { above, up_to, done } => {
                texts.run().await?;
                let path = Path::new("the agent's journal");
                let _ = done.send(read::key_changes(texts.connection, path, above, up_to).await);
            }
            Request::Close { .. } => {}
        }
    }
    texts.next("COMMIT");
    texts.run().await?;
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
        Request::RecordRead { .. } | Request::ReportsRead { .. } | Request::KeysRead { .. } | Request::Close { .. } => {
            None
        }
    }
}

fn apply_write(texts: &mut Texts<'_>, write: JournalWrite) -> Result<(), sqlx::Error> {
    match write {
        JournalWrite::Accept { entry, command, sealed, approvals, burn, evict } => {
            ring_add(texts, &entry, evict);
            open_add(texts, &entry, command, sealed)?;
            approvals_add(texts, entry.command, approvals);
            if let Some(burn) = burn {
                burn_add(texts, burn)?;
            }
        }
        JournalWrite::Refuse { entry, report, evict } => {
            ring_add(texts, &entry, evict);
            report_add(texts, report)?;
        }
        JournalWrite::Start { command } => {
            stage_set(texts, command, Stage::Started);
            let update = texts.next("UPDATE open_command SET stage = ");
            update.push_bind(stage_number(Stage::Started)).push(" WHERE command = ").push_bind(bytes(command));
        }
        JournalWrite::Resume { command } => {
            let update = texts.next("UPDATE open_command SET resumptions = resumptions + 1 WHERE command = ");
            update.push_bind(bytes(command));
        }
        JournalWrite::Done { command, report } => done(texts, command, report)?,
        JournalWrite::Cancel { command, target, report } => {
            let update = texts.next("UPDATE open_command SET cancelled_by = coalesce(cancelled_by, ");
            update.push_bind(bytes(command)).push(") WHERE command = ").push_bind(bytes(target));
            done(texts, command, report)?;
        }
        JournalWrite::Acknowledge { sequence } => acknowledge(texts, integer(sequence.0)?),
        JournalWrite::Root { version, envelope } => {
            let insert = texts.next("INSERT INTO root (version, envelope) VALUES (");
            insert.push_bind(integer(version.0)?).push(", ").push_bind(envelope).push(")");
        }
        JournalWrite::AuditHead { position, proved } => {
            let size = position.size.to_be_bytes();
            let value = [position.log.as_bytes().as_slice(), &size, &position.root.0].concat();
            meta_set(texts, meta::AUDIT_HEAD, value);
            if proved {
                meta_set(texts, meta::AUDIT_PROVED, vec![1]);
            }
        }
        JournalWrite::Quarantine { id } => meta_set(texts, meta::QUARANTINE, id.as_bytes().to_vec()),
        JournalWrite::KeyOffer { host_epoch, rotation, reset } => {
            let insert = texts.next("INSERT INTO key_change (host_epoch, rotation, reset) VALUES (");
            insert.push_bind(integer(host_epoch.0)?).push(", ").push_bind(rotation).push(", ").push_bind(reset);
            insert.push(") ON CONFLICT (host_epoch) DO UPDATE SET rotation = excluded.rotation, ");
            insert.push("receipt = NULL, reset = excluded.reset");
        }
        JournalWrite::KeyReceipt { host_epoch, receipt } => {
            let update = texts.next("UPDATE key_change SET receipt = ").push_bind(receipt);
            update.push(" WHERE host_epoch = ").push_bind(integer(host_epoch.0)?);
        }
        JournalWrite::KeysTaken { host_epoch, since, reset, done: ended } => {
            keys_taken(texts, host_epoch, since, reset)?;
            ended.into_iter().try_for_each(|report| done(texts, report.command, report))?;
        }
        JournalWrite::Retire { .. } => retire(texts),
        JournalWrite::Retired { command, report } => {
            meta_set(texts, meta::RETIREMENT, vec![retirement_number(Retirement::Reported)]);
            done(texts, command, report)?;
        }
        JournalWrite::Standing { command, change, report } => standing(texts, change, command, report)?,
        JournalWrite::Clock { clock } => {
            let (time, at) = (clock.time.0.to_be_bytes(), clock.at.0.to_be_bytes());
            meta_set(texts, meta::CLOCK, [clock.boot.as_bytes().as_slice(), &time, &at].concat());
        }
    }
    Ok(())
}

/// Whatever is kept beyond a command's end goes here: a table of such things is one more word.
fn retire(texts: &mut Texts<'_>) {
    meta_set(texts, meta::RETIREMENT, vec![retirement_number(Retirement::Begun)]);
    for table in ["record", "sealed_value", "standing_order", "standing_value"] {
        texts.next("DELETE FROM ").push(table);
    }
}

fn keys_taken(
    texts: &mut Texts<'_>,
    host_epoch: HostEpoch,
    since: UnixMs,
    reset: Option<ResetTaken>,
) -> Result<(), sqlx::Error> {
    meta_set(texts, meta::HOST_EPOCH, host_epoch.0.to_be_bytes().to_vec());
    meta_set(texts, meta::KEYS_SINCE, since.0.to_be_bytes().to_vec());
    reset.map_or(Ok(()), |reset| start_anew(texts, reset))
}

fn bytes(command: CommandId) -> Vec<u8> {
    command.as_bytes().to_vec()
}

/// SQLite's integers are signed; such counters never come near, because they rise by steps.
fn integer(counter: u64) -> Result<i64, sqlx::Error> {
    i64::try_from(counter).map_err(|error| sqlx::Error::Encode(Box::new(error)))
}

/// Begins an insertion into `meta`; what follows says what becomes of a value that is there.
fn meta_put<'t>(texts: &'t mut Texts<'_>, key: &'static str, value: Vec<u8>) -> &'t mut QueryBuilder<Sqlite> {
    let insert = texts.next("INSERT INTO meta (key, value) VALUES (").push_bind(key).push(", ").push_bind(value);
    insert.push(") ON CONFLICT (key) DO UPDATE SET value = ")
}

fn meta_set(texts: &mut Texts<'_>, key: &'static str, value: Vec<u8>) {
    meta_put(texts, key, value).push("excluded.value");
}

fn ring_add(texts: &mut Texts<'_>, entry: &RingEntry, evict: Option<CommandId>) {
    if let Some(command) = evict {
        texts.next("DELETE FROM ring WHERE command = ").push_bind(bytes(command));
    }
    let insert = texts.next("INSERT INTO ring (command, sequence, order_sha256, stage) ");
    insert.push_values([entry], |mut values, entry| {
        // Whatever a signed order names, also beyond SQLite's integers: nothing compares it here.
        values.push_bind(bytes(entry.command)).push_bind(entry.sequence.0.cast_signed());
        values.push_bind(entry.order_sha256.0.to_vec()).push_bind(stage_number(entry.stage));
    });
    high_raise(texts, entry.sequence);
}

/// What [`envelope::guard::raise_high`] does: the highest sequence only rises, and not by a jump, or one refused order would
/// use up all numbers below its own. Big-endian values compare as the numbers do.
fn high_raise(texts: &mut Texts<'_>, sequence: Sequence) {
    let value = sequence.0.to_be_bytes().to_vec();
    // Nothing stored is zero: from there one may come this far.
    let Some(least) = sequence.0.checked_sub(SEQUENCE_JUMP_MAX).filter(|least| *least > 0) else {
        return high_set(texts, value);
    };
    let update = texts.next("UPDATE meta SET value = ").push_bind(value.clone());
    update.push(" WHERE key = ").push_bind(meta::HIGH).push(" AND value < ").push_bind(value);
    update.push(" AND value >= ").push_bind(least.to_be_bytes().to_vec());
}

fn high_set(texts: &mut Texts<'_>, value: Vec<u8>) {
    meta_put(texts, meta::HIGH, value).push("max(excluded.value, meta.value)");
}

fn open_add(
    texts: &mut Texts<'_>,
    entry: &RingEntry,
    command: Vec<u8>,
    sealed: Vec<SealedValue>,
) -> Result<(), sqlx::Error> {
    let sequence = integer(entry.sequence.0)?;
    let insert = texts.next("INSERT INTO open_command (command, sequence, envelope, stage) ");
    insert.push_values([command], |mut values, command| {
        values.push_bind(bytes(entry.command)).push_bind(sequence).push_bind(command);
        values.push_bind(stage_number(Stage::Accepted));
    });
    for (position, value) in (0i64..).zip(sealed) {
        let insert = texts.next("INSERT INTO sealed_value (command, position, name, bytes) ");
        insert.push_values([value], |mut values, value| {
            values.push_bind(bytes(entry.command)).push_bind(position).push_bind(value.name).push_bind(value.bytes);
        });
    }
    Ok(())
}

fn approvals_add(texts: &mut Texts<'_>, command: CommandId, approvals: Vec<Vec<u8>>) {
    for (position, envelope) in (0i64..).zip(approvals) {
        let insert = texts.next("INSERT INTO approval (command, position, envelope) VALUES (");
        insert.push_bind(bytes(command)).push(", ").push_bind(position).push(", ").push_bind(envelope).push(")");
    }
}

fn burn_add(texts: &mut Texts<'_>, burn: Burn) -> Result<(), sqlx::Error> {
    let Burned { operation, action, command, until } = burn.burned;
    // Far enough in any case; what an approver wrote must not keep the journal from being written.
    let until = i64::try_from(until.0).unwrap_or(i64::MAX);
    texts.next("DELETE FROM burned WHERE until < ").push_bind(integer(burn.forget_before.0)?);
    let insert = texts.next("INSERT INTO burned (operation, action, command, until) VALUES (");
    insert.push_bind(operation.as_bytes().to_vec()).push(", ").push_bind(action.to_string());
    insert.push(", ").push_bind(bytes(command)).push(", ").push_bind(until).push(")");
    Ok(())
}

fn done(texts: &mut Texts<'_>, command: CommandId, report: StoredReport) -> Result<(), sqlx::Error> {
    stage_set(texts, command, Stage::Done);
    texts.next("DELETE FROM open_command WHERE command = ").push_bind(bytes(command));
    texts.next("DELETE FROM sealed_value WHERE command = ").push_bind(bytes(command));
    texts.next("DELETE FROM approval WHERE command = ").push_bind(bytes(command));
    texts.next("DELETE FROM record WHERE key = ").push_bind(crate::plan_key(command));
    report_add(texts, report)
}

fn standing(
    texts: &mut Texts<'_>,
    change: StandingChange,
    command: CommandId,
    report: StoredReport,
) -> Result<(), sqlx::Error> {
    standing_change(texts, change);
    done(texts, command, report)
}

fn standing_change(texts: &mut Texts<'_>, change: StandingChange) {
    let (StandingChange::Put { standing: StoredStanding { order, .. }, revision }
    | StandingChange::Drop { order, revision }) = &change;
    let id = order.as_bytes().to_vec();
    texts.next("DELETE FROM standing_order WHERE id = ").push_bind(id.clone());
    texts.next("DELETE FROM standing_value WHERE standing_order = ").push_bind(id.clone());
    // It only rises; big-endian values compare as the numbers do.
    let put = meta_put(texts, meta::STANDING_REVISION, revision.0.to_be_bytes().to_vec());
    put.push("max(excluded.value, meta.value)");
    let StandingChange::Put { standing, .. } = change else { return };
    let insert = texts.next("INSERT INTO standing_order (id, envelope) VALUES (");
    insert.push_bind(id.clone()).push(", ").push_bind(standing.envelope).push(")");
    for (position, value) in (0i64..).zip(standing.sealed) {
        let insert = texts.next("INSERT INTO standing_value (standing_order, position, name, bytes) ");
        insert.push_values([value], |mut values, value| {
            values.push_bind(id.clone()).push_bind(position).push_bind(value.name).push_bind(value.bytes);
        });
    }
}

fn stage_set(texts: &mut Texts<'_>, command: CommandId, stage: Stage) {
    let update = texts.next("UPDATE ring SET stage = ").push_bind(stage_number(stage));
    update.push(" WHERE command = ").push_bind(bytes(command));
}

fn report_add(texts: &mut Texts<'_>, report: StoredReport) -> Result<(), sqlx::Error> {
    let sequence = integer(report.sequence.0)?;
    let position = [report.sequence.0.to_be_bytes().as_slice(), &report.sha256.0].concat();
    let insert = texts.next("INSERT INTO report (sequence, command, sha256, envelope) ");
    insert.push_values([report], |mut values, report| {
        values.push_bind(sequence).push_bind(bytes(report.command));
        values.push_bind(report.sha256.0.to_vec()).push_bind(report.envelope);
    });
    meta_set(texts, meta::LAST_REPORT, position);
    Ok(())
}

/// The chain of reports goes on behind another one than the last written here.
fn start_anew(texts: &mut Texts<'_>, reset: ResetTaken) -> Result<(), sqlx::Error> {
    let ResetTaken { high, last_report: ReportPosition { sequence, sha256 }, outbox } = reset;
    texts.next("DELETE FROM meta WHERE key = ").push_bind(meta::QUARANTINE);
    high_set(texts, high.0.to_be_bytes().to_vec());
    texts.next("DELETE FROM standing_order");
    texts.next("DELETE FROM standing_value");
    let delete = texts.next("DELETE FROM report WHERE acknowledged = 0 OR sequence > ");
    delete.push_bind(integer(sequence.0)?);
    if sequence.0 == 0 {
        texts.next("DELETE FROM meta WHERE key = ").push_bind(meta::LAST_REPORT);
    } else {
        meta_set(texts, meta::LAST_REPORT, [sequence.0.to_be_bytes().as_slice(), &sha256.0].concat());
    }
    outbox.into_iter().try_for_each(|report| report_add(texts, report))
}

fn acknowledge(texts: &mut Texts<'_>, sequence: i64) {
    let update = texts.next("UPDATE report SET acknowledged = 1 WHERE sequence <= ").push_bind(sequence);
    update.push(" AND acknowledged = 0");
    let delete = texts.next("DELETE FROM report WHERE acknowledged = 1 AND sequence <= ");
    delete.push_bind(sequence - limits::ACKNOWLEDGED_REPORTS_KEPT);
}

fn record_write(texts: &mut Texts<'_>, key: String, record: Option<Vec<u8>>) {
    match record {
        Some(value) => {
            let insert = texts.next("INSERT INTO record (key, value) VALUES (").push_bind(key);
            insert.push(", ").push_bind(value);
            insert.push(") ON CONFLICT (key) DO UPDATE SET value = excluded.value");
        }
        None => {
            texts.next("DELETE FROM record WHERE key = ").push_bind(key);
        }
    }
}

async fn record_read(connection: &mut SqliteConnection, key: String) -> Result<Option<Vec<u8>>, sqlx::Error> {
    let query = sqlx::query("SELECT value FROM record WHERE key = $1").bind(key);
    query.fetch_optional(connection).await?.map(|row| row.try_get(0)).transpose()
}
