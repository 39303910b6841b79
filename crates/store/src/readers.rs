//! The connections that read. Each is used by one reader at a time and given back when it is done; nothing
//! is asked of a connection between two reads, because every question to one costs a change of threads.

use std::sync::{Mutex, MutexGuard, PoisonError};

use sqlx::{ConnectOptions as _, Connection as _, SqliteConnection, sqlite::SqliteConnectOptions};
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::timeout,
};

use crate::limits;

/// At most [`limits::READERS_MAX`] connections, opened when they are first needed.
pub(crate) struct Readers {
    options: SqliteConnectOptions,
    places: Semaphore,
    idle: Mutex<Vec<SqliteConnection>>,
}

/// A connection in use. One that failed, or whose reader went away in the middle, is not given back: it is
/// closed, and another one opened when it is needed.
pub(crate) struct Reading<'r> {
    readers: &'r Readers,
    pub(crate) connection: SqliteConnection,
    _place: SemaphorePermit<'r>,
}

impl Readers {
    /// Opens the first, to see that it can be.
    pub(crate) async fn open(options: SqliteConnectOptions) -> Result<Self, sqlx::Error> {
        let first = options.connect().await?;
        Ok(Self { options, places: Semaphore::new(limits::READERS_MAX as usize), idle: Mutex::new(vec![first]) })
    }

    /// Waits for a connection, at most [`limits::READER_WAIT_MAX`].
    pub(crate) async fn take(&self) -> Result<Reading<'_>, sqlx::Error> {
        let place = match timeout(limits::READER_WAIT_MAX, self.places.acquire()).await {
            Ok(Ok(place)) => place,
            Ok(Err(_closed)) => return Err(sqlx::Error::PoolClosed),
            Err(_) => return Err(sqlx::Error::PoolTimedOut),
        };
        let idle = self.idle().pop();
        let connection = match idle {
            Some(connection) => connection,
            None => self.options.connect().await?,
        };
        Ok(Reading { readers: self, connection, _place: place })
    }

    /// Waits for those in use, then closes all. Whoever asks later is refused.
    pub(crate) async fn close(&self) {
        let all = self.places.acquire_many(limits::READERS_MAX).await;
        self.places.close();
        drop(all);
        let idle = core::mem::take(&mut *self.idle());
        for connection in idle {
            if let Err(error) = connection.close().await {
                tracing::debug!(%error, "a reader's connection did not close cleanly");
            }
        }
    }

    /// A panic elsewhere leaves the list whole: each change is one push or pop.
    fn idle(&self) -> MutexGuard<'_, Vec<SqliteConnection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reading<'_> {
    /// The connection is as it was: the next reader may have it.
    pub(crate) fn done(self) {
        self.readers.idle().push(self.connection);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn readers() -> (tempfile::TempDir, Readers) {
        let directory = tempfile::tempdir().unwrap();
        let options = SqliteConnectOptions::new().filename(directory.path().join("x.db")).create_if_missing(true);
        (directory, Readers::open(options).await.unwrap())
    }

    #[tokio::test]
    async fn what_is_given_back_is_used_again_and_what_is_not_is_replaced() {
        let (_directory, readers) = readers().await;
        for _ in 0..3 {
            readers.take().await.unwrap().done();
            assert_eq!(readers.idle().len(), 1);
        }
        drop(readers.take().await.unwrap());
        assert_eq!(readers.idle().len(), 0);
        let mut reading = readers.take().await.unwrap();
        let one: i64 = sqlx::query_scalar("SELECT 1").fetch_one(&mut reading.connection).await.unwrap();
        assert_eq!(one, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn places_are_bounded_and_waited_for() {
        let (_directory, readers) = readers().await;
        let mut taken = Vec::new();
        for _ in 0..limits::READERS_MAX {
            taken.push(readers.take().await.unwrap());
        }
        assert!(matches!(readers.take().await, Err(sqlx::Error::PoolTimedOut)));
        taken.pop().unwrap().done();
        taken.push(readers.take().await.unwrap());
        taken.into_iter().for_each(Reading::done);
        readers.close().await;
        assert!(matches!(readers.take().await, Err(sqlx::Error::PoolClosed)));
        assert!(readers.idle().is_empty());
    }
}
