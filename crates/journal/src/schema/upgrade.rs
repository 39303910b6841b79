//! Journals of released versions, brought forward by this program: everything is readable, and an
//! agent killed at any statement of any step leaves the journal as it was before that step or after it.

use std::path::{Path, PathBuf};

use session::{agent::io::JournalState, frames::Stage};
use sqlx::{AssertSqlSafe, ConnectOptions as _, sqlite::SqliteConnectOptions};
use tempfile::TempDir;

use super::*;
use crate::Journal;

/// A step that no release has, so that there is one to interrupt whatever the last release was.
const NEXT: &[&str] = &[
    "CREATE TABLE of_a_test (command BLOB PRIMARY KEY, stage INTEGER NOT NULL) STRICT",
    "INSERT INTO of_a_test SELECT command, stage FROM ring",
    "ALTER TABLE report ADD COLUMN of_a_test INTEGER NOT NULL DEFAULT 7",
    "UPDATE report SET of_a_test = sequence",
];

/// A copy of the journal as an agent of 0.1.0 left it.
fn copied() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.db");
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/upgrade/fixtures/0.1.0/agent/journal.db");
    std::fs::copy(fixture, &path).unwrap();
    (folder, path)
}

async fn connect(path: &Path) -> SqliteConnection {
    SqliteConnectOptions::new().filename(path).connect().await.unwrap()
}

/// What a power cut would leave of a journal now: its file and its log.
fn cut(path: &Path) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("journal.db");
    std::fs::copy(path, &copy).unwrap();
    let log = |path: &Path| PathBuf::from(format!("{}-wal", path.display()));
    if log(path).exists() {
        std::fs::copy(log(path), log(&copy)).unwrap();
    }
    (folder, copy)
}

fn check(state: &JournalState) {
    assert_eq!(state.ring.len(), 7);
    assert!(state.ring.iter().all(|entry| entry.stage == Stage::Done));
    assert_eq!(state.ring.last().map(|entry| entry.sequence), Some(state.high), "no order of then runs again");
    assert_eq!(state.last_report.map(|last| last.sequence.0), Some(7));
    assert_eq!((state.root_chain.len(), state.open.len(), state.outbox.len()), (1, 0, 0));
    assert!(state.audit_head.is_some() && state.clock.is_some() && state.quarantine.is_none());
}

#[tokio::test]
async fn a_journal_of_0_1_is_brought_forward_and_whole() {
    let (_folder, path) = copied();
    assert_eq!(number(&mut connect(&path).await, "PRAGMA user_version").await.unwrap(), 1, "what 0.1.0 wrote");
    for _ in 0..2 {
        let opened = Journal::open(&path).await.unwrap();
        assert!(!opened.created, "a journal that is taken for a new one would quarantine its host");
        check(&opened.state);
        opened.journal.close().await;
    }
    let steps = i64::try_from(STEPS.len()).unwrap();
    assert_eq!(number(&mut connect(&path).await, "PRAGMA user_version").await.unwrap(), steps);
}

#[tokio::test]
async fn a_step_that_is_cut_off_at_any_statement_stands_whole_or_not_at_all() {
    let all: Vec<&[&str]> = STEPS.iter().copied().chain([NEXT]).collect();
    for done in 1..all.len() {
        for reached in 0..=all[done].len() {
            let (_folder, path) = copied();
            let mut connection = connect(&path).await;
            bring(&mut connection, &path, &all[..done]).await.unwrap();
            sqlx::raw_sql("PRAGMA cache_size = 1; BEGIN").execute(&mut connection).await.unwrap();
            for statement in &all[done][..reached] {
                sqlx::raw_sql(AssertSqlSafe(*statement)).execute(&mut connection).await.unwrap();
            }
            let (_left, left) = cut(&path);
            drop(connection);
            let mut connection = connect(&left).await;
            let version = number(&mut connection, "PRAGMA user_version").await.unwrap();
            assert_eq!(version, i64::try_from(done).unwrap(), "step {done} cut after {reached} statements");
            bring(&mut connection, &left, &all).await.unwrap();
            connection.close().await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_journal_of_a_newer_agent_is_refused_in_words() {
    let (_folder, path) = copied();
    let all: Vec<&[&str]> = STEPS.iter().copied().chain([NEXT]).collect();
    let mut connection = connect(&path).await;
    bring(&mut connection, &path, &all).await.unwrap();
    connection.close().await.unwrap();
    let refused = Journal::open(&path).await.err().map(|error| error.to_string()).unwrap_or_default();
    assert!(refused.contains("newer agent") && refused.contains("install that version again"), "{refused}");
}
