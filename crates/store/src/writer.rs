//! The one task that writes. Callers queue and wait; it takes whatever waits, without a timer, so a
//! lone write commits at once and a crowd shares one commit.

use std::sync::Arc;

use fleet::ports::{StoreError, Write, Written};
use sqlx::{Connection as _, QueryBuilder, SqliteConnection};
use tokio::sync::{mpsc, oneshot, watch};

use crate::{
    audit::{AuditLog, AuditPosition},
    cipher::Cipher,
    fault::{Failure, Location},
    limits,
    lock::DatabaseLock,
    rows::{Fields, int},
    sqlite::connect,
    write::{self, Numbers, Transaction},
};

type Answer = Result<Written, StoreError>;

enum Job {
    Write { write: Box<Write>, answer: oneshot::Sender<Answer> },
    Close { done: oneshot::Sender<()> },
    Mend,
}

/// The queue's entrance.
pub(crate) struct WriterHandle {
    queue: mpsc::Sender<Job>,
    impaired: watch::Receiver<bool>,
}

impl WriterHandle {
    pub(crate) async fn write(&self, write: Write) -> Answer {
        let closed = || StoreError::Unavailable("the control plane is shutting down; try again in a moment".to_owned());
        let (answer, wait) = oneshot::channel();
        self.queue.send(Job::Write { write: Box::new(write), answer }).await.map_err(|_| closed())?;
        wait.await.map_err(|_| closed())?
    }

    /// Whether the last transaction failed for want of a sound disk.
    pub(crate) fn is_impaired(&self) -> bool {
        *self.impaired.borrow()
    }

    /// Has it try a write that changes nothing.
    pub(crate) fn mend(&self) {
        // A full queue holds writes, which try the same.
        let _ = self.queue.try_send(Job::Mend);
    }

    pub(crate) async fn close(&self) {
        let (done, wait) = oneshot::channel();
        if self.queue.send(Job::Close { done }).await.is_ok() {
            // An error means that the writer is gone already.
            let _ = wait.await;
        }
    }
}

/// The writer's state between batches.
pub(crate) struct Writer {
    /// `None` after a failure that left the connection in an unknown state.
    connection: Option<SqliteConnection>,
    location: Location,
    cipher: Arc<Cipher>,
    numbers: Numbers,
    log: AuditLog,
    /// A commit failed, and what it left behind is not known.
    doubtful: bool,
    position: watch::Sender<AuditPosition>,
    /// Whether the last transaction failed for want of a sound disk.
    impaired: watch::Sender<bool>,
    /// Last field: given up after the connection is closed.
    lock: DatabaseLock,
}

impl Writer {
    /// Reads what the writer holds in memory and starts it.
    pub(crate) async fn start(
        mut connection: SqliteConnection,
        location: Location,
        cipher: Arc<Cipher>,
        lock: DatabaseLock,
    ) -> Result<(WriterHandle, watch::Receiver<AuditPosition>), StoreError> {
        let numbers = Numbers::load(&mut connection, &location).await?;
        let log = AuditLog::load(&mut connection, &location).await?;
        let (position, positions) = watch::channel(log.position());
        let (queue, jobs) = mpsc::channel(limits::QUEUE_MAX);
        let connection = Some(connection);
        let (impaired, impairment) = watch::channel(false);
        let writer = Self { connection, location, cipher, numbers, log, doubtful: false, position, impaired, lock };
        tokio::spawn(writer.run(jobs));
        Ok((WriterHandle { queue, impaired: impairment }, positions))
    }

    async fn run(mut self, mut jobs: mpsc::Receiver<Job>) {
        let mut batch = Vec::with_capacity(limits::BATCH_MAX);
        let mut closing = Vec::new();
        let mut is_mending = false;
        while jobs.recv_many(&mut batch, limits::BATCH_MAX).await > 0 {
            let mut writes = Vec::with_capacity(batch.len());
            let mut waiting = Vec::with_capacity(batch.len());
            for job in batch.drain(..) {
                match job {
                    Job::Write { write, answer } => {
                        writes.push(write);
                        waiting.push(answer);
                    }
                    Job::Mend => is_mending = true,
                    Job::Close { done } => {
                        // What is queued already is still done; then `recv_many` answers 0.
                        jobs.close();
                        closing.push(done);
                    }
                }
            }
            let writes: Vec<&Write> = writes.iter().map(|write| &**write).collect();
            let answers = self.batch(&writes).await;
            for (waiter, answer) in waiting.into_iter().zip(answers) {
                // Whoever asked may have gone; the write stands all the same.
                let _ = waiter.send(answer);
            }
            if core::mem::take(&mut is_mending) && *self.impaired.borrow() {
                self.mend().await;
            }
        }
        if let Some(connection) = self.connection.take()
            && let Err(error) = connection.close().await
        {
            tracing::warn!(%error, "closing the database failed; nothing that was answered is lost");
        }
        drop(self.lock);
        for done in closing {
            let _ = done.send(());
        }
    }

    /// One answer per write, in order.
    async fn batch(&mut self, writes: &[&Write]) -> Vec<Answer> {
        if writes.is_empty() {
            return Vec::new();
        }
        match self.commit(writes).await {
            Ok(answers) => answers,
            // One of them broke a rule that only the engine knows. Each alone shows which.
            Err(Failure::Refused(_)) if writes.len() > 1 => {
                let mut answers = Vec::with_capacity(writes.len());
                for write in writes {
                    let alone = self.commit(core::slice::from_ref(write)).await;
                    answers.push(alone.map_or_else(|error| Err(error.into_error()), |mut answers| answers.remove(0)));
                }
                answers
            }
            Err(failure) => {
                let error = failure.into_error();
                tracing::error!(%error, writes = writes.len(), "a transaction failed");
                writes.iter().map(|_| Err(error.clone())).collect()
            }
        }
    }

    /// One transaction. After an error nothing of it stands, unless the engine failed at the commit
    /// itself; then `doubtful` is set.
    async fn commit(&mut self, writes: &[&Write]) -> Result<Vec<Answer>, Failure> {
        if let Err(error) = self.recover().await {
            self.impaired.send_replace(true);
            return Err(Failure::Engine(error));
        }
        let connection = self.connection.as_mut().expect("invariant: `recover` connects");
        let (mut numbers, mut log) = (self.numbers, self.log.clone());
        let mut transaction = Transaction {
            connection,
            location: &self.location,
            cipher: &self.cipher,
            numbers: &mut numbers,
            log: &mut log,
            together: QueryBuilder::default(),
        };
        #[cfg(feature = "crash-points")]
        let point = crash_points::Point::before("store", &point_name(writes), crash_points::Passage::Change);
        let done = transact(&mut transaction, writes).await;
        match done {
            Ok(answers) => {
                #[cfg(feature = "crash-points")]
                point.after();
                (self.numbers, self.log) = (numbers, log);
                self.impaired.send_replace(false);
                if let Some(position) = self.log.publish() {
                    self.position.send_replace(position);
                }
                Ok(answers)
            }
            Err(failure) => {
                let is_engine = matches!(failure, Failure::Engine(_));
                self.doubtful |= is_engine;
                self.impaired.send_if_modified(|impaired| is_engine && !core::mem::replace(impaired, true));
                // The engine may have rolled back already; then this fails and says nothing.
                if sqlx::query("ROLLBACK").execute(&mut *connection).await.is_err() {
                    self.connection = None;
                    self.doubtful = true;
                }
                Err(failure)
            }
        }
    }

    /// Writes what stands there already, to see whether the disk takes it.
    async fn mend(&mut self) {
        let tried = match self.recover().await {
            Ok(()) => {
                let connection = self.connection.as_mut().expect("invariant: `recover` connects");
                let same = sqlx::query("UPDATE facts SET value = value WHERE name = 'key_check'");
                let tried = same.execute(connection).await;
                tried.map(drop).map_err(|error| self.location.error("trying to write", &error))
            }
            Err(error) => Err(error),
        };
        match tried {
            Ok(()) => {
                tracing::info!("the database can be written again");
                self.impaired.send_replace(false);
            }
            Err(error) => tracing::debug!(%error, "the database still cannot be written"),
        }
    }

    /// Connects again after a failure, and makes sure that memory and file agree.
    async fn recover(&mut self) -> Result<(), StoreError> {
        if self.connection.is_none() {
            self.connection = Some(connect(&self.location).await?);
        }
        if !self.doubtful {
            return Ok(());
        }
        let connection = self.connection.as_mut().expect("invariant: connected above");
        self.numbers = Numbers::load(connection, &self.location).await?;
        let row = sqlx::query("SELECT (SELECT count(*) FROM audit_leaves WHERE leaf = $1), (SELECT count(*) FROM audit_leaves WHERE leaf = $2)")
            .bind(int(self.log.position().size)? - 1)
            .bind(int(self.log.position().size)?)
            .fetch_one(&mut *connection)
            .await
            .map_err(|error| self.location.error("reading the audit log's end", &error))?;
        let mut fields = Fields::of(&row, "the audit log");
        let (last, beyond) = (fields.number()?, fields.number()?);
        let expected_last = u64::from(self.log.position().size > 0);
        if (last, beyond) != (expected_last, 0) {
            self.log = AuditLog::load(connection, &self.location).await?;
            self.position.send_replace(self.log.position());
        }
        self.doubtful = false;
        Ok(())
    }
}

/// What the door of the control plane's writes calls them. Batches are of one then ([`limits::BATCH_MAX`]).
#[cfg(feature = "crash-points")]
fn point_name(writes: &[&Write]) -> String {
    writes.iter().map(|write| write_name(write)).collect::<Vec<_>>().join("+")
}

#[cfg(feature = "crash-points")]
fn write_name(write: &Write) -> String {
    match write {
        Write::By { write, .. } => write_name(write),
        Write::Audit(entry) => format!("Audit {:?}", entry.kind),
        write => format!("{write:?}").split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default().to_owned(),
    }
}

async fn transact(t: &mut Transaction<'_>, writes: &[&Write]) -> Result<Vec<Answer>, Failure> {
    t.later("BEGIN IMMEDIATE");
    let answers = write::apply_all(t, writes).await?;
    t.later("COMMIT");
    t.run_together("committing").await?;
    Ok(answers)
}

#[cfg(test)]
mod tests {
    use envelope::audit::AuditKind;
    use fleet::ports::{AuditEntry, AuditRecord};
    use ids::UnixMs;
    use zeroize::Zeroizing;

    use super::*;
    use crate::{lock::create_private, schema};

    fn big() -> Write {
        Write::Audit(AuditEntry {
            time: UnixMs(1),
            kind: AuditKind::SignIn,
            actor: "anna".to_owned(),
            subject: "something long".to_owned(),
            record: AuditRecord::Inline(vec![7; 100_000]),
        })
    }

    async fn fresh() -> (tempfile::TempDir, Location, Arc<Cipher>, SqliteConnection) {
        let directory = tempfile::tempdir().unwrap();
        let location = Location(directory.path().join("serverflow.db"));
        create_private(&location.0).unwrap();
        let mut connection = connect(&location).await.unwrap();
        schema::migrate(&mut connection, &location, schema::MIGRATIONS).await.unwrap();
        (directory, location, Arc::new(Cipher::new(&Zeroizing::new([1; 32]))), connection)
    }

    /// SQLite's own bound on the file plays the full disk: the same code, from the same places.
    async fn bound(connection: &mut SqliteConnection, pages: u32) {
        let pragma = format!("PRAGMA max_page_count = {pages}");
        sqlx::raw_sql(sqlx::AssertSqlSafe(pragma)).execute(connection).await.unwrap();
    }

    #[tokio::test]
    async fn a_full_disk_refuses_and_loses_nothing() {
        let (_directory, location, cipher, mut connection) = fresh().await;
        bound(&mut connection, 200).await;
        let lock = DatabaseLock::take(&location.0).unwrap();
        let (handle, position) = Writer::start(connection, location.clone(), cipher, lock).await.unwrap();
        let mut stored = 0;
        let told = loop {
            match handle.write(big()).await {
                Ok(_) => stored += 1,
                Err(error) => break error,
            }
            assert!(stored < 100, "the bound is not in force");
        };
        assert!(matches!(&told, StoreError::Unavailable(why) if why.contains("the disk is full")), "{told}");
        assert!(stored > 0);
        let before = *position.borrow();
        assert_eq!(before.size, stored);
        // The bound is the connection's: the writer connects anew, and there is space again.
        assert_eq!(handle.write(big()).await, Ok(Written::Done));
        assert_eq!(position.borrow().size, stored + 1);
        let expected = *position.borrow();
        handle.close().await;

        let mut connection = connect(&location).await.unwrap();
        let log = AuditLog::load(&mut connection, &location).await.unwrap();
        assert_eq!(log.position(), expected, "what was answered is there, what was refused is not");
    }

    #[tokio::test]
    async fn memory_follows_the_file_after_a_failure() {
        let (_directory, location, cipher, mut connection) = fresh().await;
        let numbers = Numbers::load(&mut connection, &location).await.unwrap();
        let log = AuditLog::load(&mut connection, &location).await.unwrap();
        let (position, _keep) = watch::channel(log.position());
        let lock = DatabaseLock::take(&location.0).unwrap();
        let connection = Some(connection);
        let (impaired, _) = watch::channel(false);
        let mut writer =
            Writer { connection, location, cipher, numbers, log, doubtful: false, position, impaired, lock };
        assert_eq!(writer.batch(&[&big()]).await, [Ok(Written::Done)]);
        let before = writer.log.clone();
        assert_eq!(writer.batch(&[&big()]).await, [Ok(Written::Done)]);

        // A commit that reached the disk although it was answered with an error, on a connection that is gone.
        (writer.log, writer.doubtful, writer.connection) = (before, true, None);
        assert_eq!(writer.batch(&[&big()]).await, [Ok(Written::Done)]);
        assert_eq!(writer.log.position().size, 3);
        let mut connection = connect(&writer.location).await.unwrap();
        let stored = AuditLog::load(&mut connection, &writer.location).await.unwrap();
        assert_eq!(stored.position(), writer.log.position());
    }
}
