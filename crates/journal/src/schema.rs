//! The journal's tables. Forward-only: `user_version` says which step a file has.

use std::path::Path;

use sqlx::{Connection as _, Row as _, SqliteConnection};

use crate::JournalError;

/// Marks a SQLite file as a ServerFlow agent journal (`application_id`, "SFaj").
const APPLICATION_ID: i64 = 0x5346_616a;

/// One step per released version of the schema.
const STEPS: &[&[&str]] = &[FOUNDATION, RESUMPTIONS, CANCELLATIONS, APPROVALS, KEY_CHANGES, RESETS, STANDING];

/// Since 0.2: how often a command was run again.
const RESUMPTIONS: &[&str] = &["ALTER TABLE open_command ADD COLUMN resumptions INTEGER NOT NULL DEFAULT 0"];

/// Since 0.2: which cancel asked a command to stop.
const CANCELLATIONS: &[&str] = &["ALTER TABLE open_command ADD COLUMN cancelled_by BLOB"];

/// Since 0.2: what a command's approvals were, and which were used up.
const APPROVALS: &[&str] = &[
    "CREATE TABLE approval (command BLOB NOT NULL, position INTEGER NOT NULL, envelope BLOB NOT NULL, PRIMARY KEY (command, position)) STRICT, WITHOUT ROWID",
    "CREATE TABLE burned (operation BLOB NOT NULL, action TEXT NOT NULL, command BLOB NOT NULL, until INTEGER NOT NULL, PRIMARY KEY (operation, action)) STRICT, WITHOUT ROWID",
];

/// Since 0.2: this host's keys after its first ones, by the epoch they count from.
const KEY_CHANGES: &[&str] =
    &["CREATE TABLE key_change (host_epoch INTEGER PRIMARY KEY, rotation BLOB NOT NULL, receipt BLOB) STRICT"];

/// Since 0.2: the guard reset that asked for keys.
const RESETS: &[&str] = &["ALTER TABLE key_change ADD COLUMN reset BLOB"];

/// Since 0.2: what this host does by itself at set times.
const STANDING: &[&str] = &[
    "CREATE TABLE standing_order (id BLOB PRIMARY KEY, envelope BLOB NOT NULL) STRICT, WITHOUT ROWID",
    "CREATE TABLE standing_value (standing_order BLOB NOT NULL, position INTEGER NOT NULL, name TEXT NOT NULL, bytes BLOB NOT NULL, PRIMARY KEY (standing_order, position)) STRICT, WITHOUT ROWID",
];

/// 0.1.
const FOUNDATION: &[&str] = &[
    "CREATE TABLE meta (key TEXT PRIMARY KEY, value BLOB NOT NULL) STRICT, WITHOUT ROWID",
    "CREATE TABLE ring (position INTEGER PRIMARY KEY AUTOINCREMENT, command BLOB NOT NULL UNIQUE, sequence INTEGER NOT NULL, order_sha256 BLOB NOT NULL, stage INTEGER NOT NULL) STRICT",
    "CREATE TABLE open_command (command BLOB PRIMARY KEY, sequence INTEGER NOT NULL, envelope BLOB NOT NULL, stage INTEGER NOT NULL) STRICT, WITHOUT ROWID",
    "CREATE TABLE sealed_value (command BLOB NOT NULL, position INTEGER NOT NULL, name TEXT NOT NULL, bytes BLOB NOT NULL, PRIMARY KEY (command, position)) STRICT, WITHOUT ROWID",
    "CREATE TABLE report (sequence INTEGER PRIMARY KEY, command BLOB NOT NULL, sha256 BLOB NOT NULL, envelope BLOB NOT NULL, acknowledged INTEGER NOT NULL DEFAULT 0) STRICT",
    "CREATE TABLE root (version INTEGER PRIMARY KEY, envelope BLOB NOT NULL) STRICT",
    "CREATE TABLE record (key TEXT PRIMARY KEY, value BLOB NOT NULL) STRICT, WITHOUT ROWID",
];

/// Checks what the file is and brings it to this version's schema.
pub(crate) async fn prepare(connection: &mut SqliteConnection, path: &Path) -> Result<(), JournalError> {
    bring(connection, path, STEPS).await
}

async fn bring(connection: &mut SqliteConnection, path: &Path, steps: &[&[&str]]) -> Result<(), JournalError> {
    let fail = |source| JournalError::open(path, source);
    let check: String = sqlx::query("PRAGMA quick_check(1)")
        .fetch_one(&mut *connection)
        .await
        .map_err(fail)?
        .try_get(0)
        .map_err(fail)?;
    if check != "ok" {
        return Err(JournalError::damaged(path, &check));
    }
    let version = version(connection).await.map_err(fail)?;
    let application = number(connection, "PRAGMA application_id").await.map_err(fail)?;
    if version > 0 && application != APPLICATION_ID {
        let why = "is a database of another program; choose another state directory".to_owned();
        return Err(JournalError::Unusable { path: path.to_owned(), why });
    }
    let done = usize::try_from(version).unwrap_or(usize::MAX);
    if done > steps.len() {
        let why = format!("was written by a newer agent (schema {version}); install that version again");
        return Err(JournalError::Unusable { path: path.to_owned(), why });
    }
    for (index, step) in steps.iter().enumerate().skip(done) {
        let mut transaction = connection.begin().await.map_err(fail)?;
        for statement in *step {
            // The texts are constants of this program.
            sqlx::query(sqlx::AssertSqlSafe(*statement)).execute(&mut *transaction).await.map_err(fail)?;
        }
        let mark = format!("PRAGMA user_version = {}; PRAGMA application_id = {APPLICATION_ID}", index + 1);
        sqlx::raw_sql(sqlx::AssertSqlSafe(mark)).execute(&mut *transaction).await.map_err(fail)?;
        transaction.commit().await.map_err(fail)?;
    }
    Ok(())
}

/// How many steps a file has.
pub(crate) async fn version(connection: &mut SqliteConnection) -> Result<i64, sqlx::Error> {
    number(connection, "PRAGMA user_version").await
}

async fn number(connection: &mut SqliteConnection, pragma: &'static str) -> Result<i64, sqlx::Error> {
    sqlx::query(pragma).fetch_one(connection).await?.try_get(0)
}

#[cfg(test)]
mod upgrade;
