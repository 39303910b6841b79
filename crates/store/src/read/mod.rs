//! Reading: each function is one look at the database, through one of a few read-only connections.

mod commands;
mod host_lists;
mod hosts;
mod keyset;
mod lists;
mod log;
mod people;
#[cfg(test)]
mod tests;

use fleet::ports::StoreError;
use sqlx::sqlite::SqliteRow;

pub(crate) use self::people::{session_by_token, session_of, token_by_id, token_of};
use crate::{sqlite::Reader, write::Statement};

impl Reader {
    async fn rows(&self, doing: &str, statement: Statement<'_>) -> Result<Vec<SqliteRow>, StoreError> {
        statement.fetch_all(&self.pool).await.map_err(|error| self.location.error(doing, &error))
    }

    async fn row(&self, doing: &str, statement: Statement<'_>) -> Result<Option<SqliteRow>, StoreError> {
        statement.fetch_optional(&self.pool).await.map_err(|error| self.location.error(doing, &error))
    }
}
