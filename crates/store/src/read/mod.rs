//! Reading: each function is one look at the database, through one of a few read-only connections.

mod commands;
mod host_lists;
mod hosts;
mod keys;
mod keyset;
mod lists;
mod log;
mod people;
mod recovery;
mod restores;
pub(crate) mod standing;
mod standing_orders;
#[cfg(test)]
mod tests;

use fleet::ports::StoreError;
use sqlx::sqlite::SqliteRow;

pub(crate) use self::people::{session_by_token, session_of, token_by_id, token_of};
use crate::{sqlite::Reader, write::Statement};

impl Reader {
    pub(crate) async fn rows(&self, doing: &str, statement: Statement<'_>) -> Result<Vec<SqliteRow>, StoreError> {
        let failed = |error: sqlx::Error| self.location.error(doing, &error);
        let mut reading = self.readers.take().await.map_err(failed)?;
        let rows = statement.fetch_all(&mut reading.connection).await.map_err(failed)?;
        reading.done();
        Ok(rows)
    }

    pub(crate) async fn row(&self, doing: &str, statement: Statement<'_>) -> Result<Option<SqliteRow>, StoreError> {
        let failed = |error: sqlx::Error| self.location.error(doing, &error);
        let mut reading = self.readers.take().await.map_err(failed)?;
        let row = statement.fetch_optional(&mut reading.connection).await.map_err(failed)?;
        reading.done();
        Ok(row)
    }
}
