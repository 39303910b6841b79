//! Hosts with their commands that have no end, many at once. An order to a whole fleet makes every session
//! look at its host in the same moment; as with writes, whatever waits is read together, without a timer,
//! so that a lone look is answered at once and a crowd shares a few statements.

use std::collections::HashMap;

use fleet::{
    model::Host,
    ports::{HostOpen, StoreError},
};
use ids::HostId;
use sqlx::{QueryBuilder, Row as _, Sqlite, sqlite::SqliteRow};
use tokio::sync::{mpsc, oneshot};

use super::{commands, hosts};
use crate::{
    limits,
    rows::{bind_list, pieces},
    sqlite::Reader,
};

type Answer = Result<Option<HostOpen>, StoreError>;

struct Ask {
    host: HostId,
    with_commands: bool,
    answer: oneshot::Sender<Answer>,
}

/// Entrance of the queue of looks.
pub(crate) struct Looks {
    queue: mpsc::Sender<Ask>,
}

impl Looks {
    /// Starts the task that reads; it ends when this is dropped.
    pub(crate) fn start(reader: Reader) -> Self {
        let (queue, asks) = mpsc::channel(limits::QUEUE_MAX);
        tokio::spawn(run(reader, asks));
        Self { queue }
    }

    /// The host alone.
    pub(crate) async fn host(&self, host: HostId) -> Result<Option<Host>, StoreError> {
        Ok(self.look(host, false).await?.map(|(host, _)| host))
    }

    /// The host and its open commands, as of one moment.
    pub(crate) async fn host_open(&self, host: HostId) -> Answer {
        self.look(host, true).await
    }

    async fn look(&self, host: HostId, with_commands: bool) -> Answer {
        let closed = || StoreError::Unavailable("the control plane is shutting down; try again in a moment".to_owned());
        let (answer, wait) = oneshot::channel();
        self.queue.send(Ask { host, with_commands, answer }).await.map_err(|_| closed())?;
        wait.await.map_err(|_| closed())?
    }
}

async fn run(reader: Reader, mut asks: mpsc::Receiver<Ask>) {
    let mut batch = Vec::with_capacity(limits::ROWS_PER_STATEMENT_MAX);
    while asks.recv_many(&mut batch, limits::ROWS_PER_STATEMENT_MAX).await > 0 {
        let mut ids: Vec<HostId> = batch.iter().map(|ask| ask.host).collect();
        ids.sort_unstable();
        ids.dedup();
        let with_commands = batch.iter().any(|ask| ask.with_commands);
        let read = reader.standings(&ids, with_commands).await;
        for ask in batch.drain(..) {
            let answer = read.as_ref().map(|read| read.get(&ask.host).cloned()).map_err(Clone::clone);
            // Whoever asked may have gone.
            let _ = ask.answer.send(answer);
        }
    }
}

impl Reader {
    async fn standings(&self, ids: &[HostId], with_commands: bool) -> Result<HashMap<HostId, HostOpen>, StoreError> {
        let mut all = HashMap::with_capacity(ids.len());
        for piece in pieces(ids) {
            let rows = self.rows("reading hosts", select(piece, with_commands).build()).await?;
            // Both statements answer in one list of rows, told apart by their width.
            let (of_commands, of_hosts): (Vec<&SqliteRow>, Vec<&SqliteRow>) =
                rows.iter().partition(|row| row.len() == commands::COLUMNS);
            for row in of_hosts {
                let (host, _) = hosts::host(row)?;
                all.insert(host.id, (host, Vec::new()));
            }
            for command in self.commands_of(of_commands)? {
                if let Some((_, open)) = all.get_mut(&command.order.host) {
                    open.push(command);
                }
            }
        }
        Ok(all)
    }
}

/// Two reads in one transaction, and in one text, because each text costs a change of threads.
fn select(ids: &[HostId], with_commands: bool) -> QueryBuilder<Sqlite> {
    let bytes = || ids.iter().map(|id| id.as_bytes().to_vec());
    let mut select = QueryBuilder::new(if with_commands { "BEGIN; " } else { "" });
    select.push(hosts::SELECT_HOSTS).push("WHERE h.id IN (");
    bind_list(&mut select, bytes());
    if with_commands {
        select.push("; ").push(commands::SELECT);
        select.push("WHERE c.settled_at IS NULL AND c.host IN (SELECT number FROM hosts WHERE id IN (");
        bind_list(&mut select, bytes());
        select.push(")").push(commands::ORDER).push("; COMMIT");
    }
    select
}

#[cfg(test)]
mod tests {
    use sqlx::{Connection as _, SqliteConnection};

    use super::*;
    use crate::{fault::Location, schema};

    /// What is read of a host must not grow with what others have, nor with what has ended.
    #[tokio::test]
    async fn open_commands_are_found_by_their_index() {
        let mut connection = SqliteConnection::connect("sqlite::memory:").await.unwrap();
        schema::migrate(&mut connection, &Location("test.db".into()), schema::MIGRATIONS).await.unwrap();
        for ids in [vec![HostId::from_bytes([1; 16])], vec![HostId::from_bytes([2; 16]); 4]] {
            let select = select(&ids, true);
            let of_commands = select.sql().as_str().split("; ").nth(2).unwrap().to_owned();
            let explain = sqlx::AssertSqlSafe(format!("EXPLAIN QUERY PLAN {of_commands}"));
            let rows = sqlx::query(explain).fetch_all(&mut connection).await.unwrap();
            let plan: Vec<String> = rows.iter().map(|row| row.get::<String, _>("detail")).collect();
            assert!(plan.iter().any(|step| step.contains("commands_open")), "{plan:#?}");
            assert!(!plan.iter().any(|step| step.starts_with("SCAN")), "{plan:#?}");
        }
    }

    /// The width of a row says what it is of.
    #[tokio::test]
    async fn the_two_kinds_of_rows_differ_in_width() {
        let mut connection = SqliteConnection::connect("sqlite::memory:").await.unwrap();
        schema::migrate(&mut connection, &Location("test.db".into()), schema::MIGRATIONS).await.unwrap();
        let width = async |connection: &mut SqliteConnection, text: String| {
            let statement =
                sqlx::Executor::prepare(connection, sqlx::SqlSafeStr::into_sql_str(sqlx::AssertSqlSafe(text)));
            sqlx::Statement::columns(&statement.await.unwrap()).len()
        };
        let of_commands = format!("{}{}", commands::SELECT, commands::ORDER);
        assert_eq!(width(&mut connection, of_commands).await, commands::COLUMNS);
        assert_ne!(width(&mut connection, hosts::SELECT_HOSTS.to_owned()).await, commands::COLUMNS);
    }
}
