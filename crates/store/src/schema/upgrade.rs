//! Databases of released versions, brought forward by this program: everything is readable, the audit
//! log verifies, and a program killed at any statement of any step leaves the database as it was
//! before that step or after it. `tests/upgrade/make-fixture.sh` made them, with the programs of then.

use std::path::{Path, PathBuf};

use envelope::{
    audit_verify::{AuditExport, ExportedEntry, verify_export},
    messages::PublicKeyBytes,
};
use fleet::{
    model::{CommandFilter, CommandStatus, HostStanding},
    ports::Store as _,
};
use tempfile::TempDir;
use zeroize::Zeroizing;

use super::*;
use crate::{SqliteStore, StoreConfig, sqlite::connect};

/// A step that no release has, so that there is one to interrupt whatever the last release was.
const NEXT: Migration = Migration {
    version: MIGRATIONS.len() as i64 + 1,
    name: "of a test",
    sql: "CREATE TABLE of_a_test (number INTEGER PRIMARY KEY, host INTEGER NOT NULL);
          INSERT INTO of_a_test SELECT number, host FROM commands;
          ALTER TABLE hosts ADD COLUMN of_a_test INTEGER NOT NULL DEFAULT 7;
          UPDATE hosts SET of_a_test = number;
          DROP INDEX commands_operation",
};

fn fixture(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/upgrade/fixtures/0.1.0/control-plane").join(file)
}

/// A copy of the database as 0.1.0 left it.
fn copied() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("serverflow.db");
    std::fs::copy(fixture("serverflow.db"), &path).unwrap();
    (folder, path)
}

/// What a power cut would leave of a database now: its file and its log.
fn cut(path: &Path) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("serverflow.db");
    std::fs::copy(path, &copy).unwrap();
    let log = |path: &Path| PathBuf::from(format!("{}-wal", path.display()));
    if log(path).exists() {
        std::fs::copy(log(path), log(&copy)).unwrap();
    }
    (folder, copy)
}

fn hex<const N: usize>(file: &str) -> [u8; N] {
    let text = std::fs::read_to_string(fixture(file)).unwrap();
    let digit = |at: usize| u8::from_str_radix(&text[at * 2..at * 2 + 2], 16).unwrap();
    core::array::from_fn(digit)
}

async fn open(path: &Path) -> Result<SqliteStore, StoreError> {
    SqliteStore::open(StoreConfig { path: path.to_owned(), data_key: Zeroizing::new(hex("keys/data.key")) }).await
}

/// Everything that 0.1.0 had stored is read, decrypted and as it was.
async fn check(store: &SqliteStore) {
    let hosts = store.hosts().await.unwrap();
    let names: Vec<&str> = hosts.iter().map(|host| host.name.as_str()).collect();
    assert_eq!(names, ["away", "web-1", "gone"]);
    assert!(matches!(hosts[2].standing, HostStanding::Revoked { .. }), "what was revoked stays so");
    assert!(hosts[1].actions.iter().any(|action| action.name.as_str() == "app.deploy"));

    let commands = store.commands(CommandFilter { limit: 100, ..CommandFilter::default() }).await.unwrap();
    assert_eq!(commands.len(), 8);
    let count = |status| commands.iter().filter(|command| command.status == status).count();
    assert_eq!((count(CommandStatus::RolledBack), count(CommandStatus::Queued)), (1, 1));
    for command in &commands {
        assert!(!command.order.parameters.is_empty());
        assert!(store.operation(command.order.operation).await.unwrap().is_some());
        let has_ended = command.status != CommandStatus::Queued;
        assert_eq!((command.seals.len() == 1, command.report.is_some()), (has_ended, has_ended), "{}", command.status);
    }
    let waiting = store.commands_open(hosts[0].id).await.unwrap();
    assert_eq!(waiting.len(), 1, "an order that waits goes on waiting");
    assert!(store.user_by_name("admin".parse().unwrap()).await.unwrap().is_some());
    audit(store).await;
}

/// The audit log verifies from the root's public key alone, up to the last signed head.
async fn audit(store: &SqliteStore) {
    let entry = |row: fleet::model::AuditRow| ExportedEntry {
        index: row.index,
        time: row.time,
        kind: row.kind,
        actor: row.actor,
        subject: row.subject,
        record_sha256: row.record_sha256,
        record: row.record,
    };
    let export = AuditExport {
        root_chain: store.root_chain().await.unwrap(),
        heads: store.audit_heads(false).await.unwrap(),
        receipts: store.hosts().await.unwrap().into_iter().map(|host| host.receipt).collect(),
        entries: store.audit(0, 1000).await.unwrap().into_iter().map(entry).collect(),
    };
    let verdict = verify_export(&export, PublicKeyBytes(hex("root.pub"))).unwrap();
    assert_eq!((verdict.hosts, verdict.orders, verdict.reports, verdict.without_record), (3, 7, 7, 0));
    assert_eq!(store.audit_position().size, verdict.entries);
}

async fn steps(path: &Path) -> usize {
    let mut connection = connect(&Location(path.to_owned())).await.unwrap();
    let rows: i64 =
        sqlx::query("SELECT count(*) FROM schema_migrations").fetch_one(&mut connection).await.unwrap().get(0);
    usize::try_from(rows).unwrap()
}

#[tokio::test]
async fn a_database_of_0_1_is_brought_forward_and_whole() {
    let (_folder, path) = copied();
    assert_eq!(steps(&path).await, 1, "the fixture is what 0.1.0 wrote");
    let store = open(&path).await.unwrap();
    check(&store).await;
    store.close().await;
    assert_eq!(steps(&path).await, MIGRATIONS.len());
    let again = open(&path).await.unwrap();
    check(&again).await;
    again.close().await;
}

/// Statements of a step. No text of ours has a semicolon within a statement.
fn statements(migration: &Migration) -> Vec<String> {
    let lines: Vec<&str> = migration.sql.lines().filter(|line| !line.trim_start().starts_with("--")).collect();
    let text = lines.join("\n");
    text.split(';').map(str::trim).filter(|text| !text.is_empty()).map(str::to_owned).collect()
}

#[tokio::test]
async fn a_step_that_is_cut_off_at_any_statement_stands_whole_or_not_at_all() {
    let all: Vec<Migration> = MIGRATIONS.iter().copied().chain([NEXT]).collect();
    let mut cuts = 0;
    for done in 1..all.len() {
        let statements = statements(&all[done]);
        for reached in 0..=statements.len() {
            let (_folder, path) = copied();
            let location = Location(path.clone());
            let mut connection = connect(&location).await.unwrap();
            migrate(&mut connection, &location, &all[..done]).await.unwrap();
            // A small cache makes SQLite write pages of the open transaction to the log before its end.
            sqlx::raw_sql("PRAGMA cache_size = 1; BEGIN").execute(&mut connection).await.unwrap();
            for statement in &statements[..reached] {
                sqlx::raw_sql(AssertSqlSafe(statement.clone())).execute(&mut connection).await.unwrap();
            }
            let (_left, left) = cut(&path);
            drop(connection);
            assert_eq!(steps(&left).await, done, "{} cut after {reached} statements", all[done].name);
            let mut connection = connect(&Location(left.clone())).await.unwrap();
            migrate(&mut connection, &Location(left.clone()), &all).await.unwrap();
            connection.close().await.unwrap();
            assert_eq!(steps(&left).await, all.len());
            cuts += 1;
        }
    }
    assert!(cuts > 5, "there was something to cut");
}

#[tokio::test]
async fn what_is_cut_between_two_steps_is_brought_forward_from_there() {
    for done in 1..=MIGRATIONS.len() {
        let (_folder, path) = copied();
        let location = Location(path.clone());
        let mut connection = connect(&location).await.unwrap();
        migrate(&mut connection, &location, &MIGRATIONS[..done]).await.unwrap();
        let (_left, left) = cut(&path);
        drop(connection);
        let store = open(&left).await.unwrap();
        check(&store).await;
        store.close().await;
        assert_eq!(steps(&left).await, MIGRATIONS.len());
    }
}

#[tokio::test]
async fn a_database_of_a_newer_program_is_refused_and_left_alone() {
    let (_folder, path) = copied();
    let location = Location(path.clone());
    let mut connection = connect(&location).await.unwrap();
    let newer: Vec<Migration> = MIGRATIONS.iter().copied().chain([NEXT]).collect();
    migrate(&mut connection, &location, &newer).await.unwrap();
    connection.close().await.unwrap();
    let before = std::fs::read(&path).unwrap();
    let refused = open(&path).await.err().map(|error| error.to_string()).unwrap_or_default();
    assert!(refused.contains("written by a newer control plane"), "{refused}");
    assert!(refused.contains("restore the backup made before the upgrade"), "{refused}");
    assert!(std::fs::read(&path).unwrap() == before, "nothing was changed");
}
