//! The SQLite store: the conformance suite, and what is its own: files, locks, crashes, encryption.

#[path = "sqlite/audit_tree.rs"]
mod audit_tree;
mod conformance;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use conformance::{
    commands::futures,
    fixtures::*,
    model::{Model, Step, step},
    selectors,
};
use envelope::{audit::AuditKind, merkle, messages::LogPosition};
use fleet::{
    model::OperationKind,
    ports::{Settlement, Store as _, StoreError, Write, Written},
};
use ids::{AuditLogId, CommandId, HostId};
use proptest::prelude::*;
use store::{AuditPosition, SqliteStore, StoreConfig};
use zeroize::Zeroizing;

fn path(directory: &Path) -> PathBuf {
    directory.join("serverflow.db")
}

async fn try_open(path: PathBuf, key: u8) -> Result<SqliteStore, StoreError> {
    SqliteStore::open(StoreConfig { path, data_key: Zeroizing::new([key; 32]) }).await
}

/// Opens; a store dropped a moment ago may still hold the lock.
async fn open(directory: &Path) -> SqliteStore {
    let opened = async {
        loop {
            match try_open(path(directory), 1).await {
                Err(StoreError::Unavailable(why)) if why.contains("in use") => tokio::task::yield_now().await,
                opened => break opened.unwrap(),
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(20), opened).await.expect("the lock is given up")
}

async fn scratch() -> (tempfile::TempDir, SqliteStore) {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).await;
    (directory, store)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conformance_suite() {
    for (name, case) in conformance::CASES {
        println!("case {name}");
        let (_directory, store) = scratch().await;
        case(&store).await;
        store.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_hundred_enrolments_by_one_token_exactly_one_wins() {
    let (_directory, store) = scratch().await;
    let store = Arc::new(store);
    let token = token("web-1", b"secret");
    done(&*store, Write::TokenCreate { token: token.clone(), audit: entry(AuditKind::TokenIssued, "t") }).await;
    let mut racers = tokio::task::JoinSet::new();
    for _ in 0..100 {
        let (store, token) = (Arc::clone(&store), token.clone());
        racers.spawn(async move { store.write(enrol_write(&token, b"secret", &host("web-1"))).await });
    }
    let answers = racers.join_all().await;
    assert_eq!(answers.iter().filter(|answer| **answer == Ok(Written::Done)).count(), 1);
    assert_eq!(answers.iter().filter(|answer| **answer == Err(StoreError::TokenRefused)).count(), 99);
    assert_eq!(store.hosts().await.unwrap().len(), 1);
    assert_eq!(audit_kinds(&*store).await, [AuditKind::TokenIssued, AuditKind::Enrolment]);
}

/// What waits is read together; nobody gets what belongs to another.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_that_looks_at_its_hosts_gets_each_its_own() {
    let (_directory, store) = scratch().await;
    let store = Arc::new(store);
    let operation = operation(OperationKind::Single);
    let mut known = Vec::new();
    for number in 0..200 {
        let host = enrolled(&*store, &format!("web-{number}")).await;
        let commands = if number % 3 == 0 { 2 } else { 0 };
        known.extend((0..commands).map(|_| new_command(&operation, &host, "host.facts")));
    }
    done(&*store, propose_write(&operation, &known)).await;
    let mut looking = tokio::task::JoinSet::new();
    // Each twice, and with those that are nobody's.
    let hosts = store.hosts().await.unwrap();
    for id in hosts.iter().chain(&hosts).map(|host| host.id).chain((0..9).map(|_| HostId::from_bytes(fresh()))) {
        let store = Arc::clone(&store);
        looking.spawn(async move { (id, store.host_open(id).await.unwrap(), store.host(id).await.unwrap()) });
    }
    for (id, open, alone) in looking.join_all().await {
        let expected = hosts.iter().find(|host| host.id == id);
        assert_eq!(alone.as_ref(), expected);
        assert_eq!(open.as_ref().map(|(host, _)| host), expected);
        let orders = open.iter().flat_map(|(_, commands)| commands).map(|command| &command.order);
        let expected = known.iter().filter(|new| new.order.host == id).map(|new| &new.order);
        assert!(orders.eq(expected), "the open commands of {id}");
    }
    store.close().await;
    assert!(matches!(store.host_open(hosts[0].id).await, Err(StoreError::Unavailable(_))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_shares_commits_and_each_is_answered_for_itself() {
    let (_directory, store) = scratch().await;
    let mut positions = store.audit_positions();
    positions.mark_unchanged();
    let host = enrolled(&store, "web-1").await;
    let command = queued(&store, &host).await;
    let mut writes = Vec::new();
    for number in 0..2_500u32 {
        writes.push(match number % 5 {
            0 => seal_write(&command, 77, 78),
            1 => Write::HostLeft { host: HostId::from_bytes(fresh()), at: NOW },
            _ => Write::Audit(entry(AuditKind::SignIn, &number.to_string())),
        });
    }
    let answers = futures(writes.into_iter().map(|write| store.write(write)).collect()).await;
    for (number, answer) in answers.iter().enumerate() {
        assert_eq!(answer.is_ok(), number % 5 > 1, "{number}: {answer:?}");
    }
    assert_eq!(store.audit_position().size, 3 + 1_500);
    assert!(positions.has_changed().unwrap());
}

#[tokio::test]
async fn leaf_hashes_prove_the_position() {
    let (_directory, store) = scratch().await;
    let empty = store.audit_position();
    assert_eq!(empty, AuditPosition { size: 0, root: merkle::empty_root() });
    for number in 0..13 {
        done(&store, Write::Audit(entry(AuditKind::SignIn, &number.to_string()))).await;
    }
    let leaves = store.audit_leaf_hashes(0, 100).await.unwrap();
    assert_eq!(store.audit_position(), AuditPosition { size: 13, root: merkle::root(&leaves) });
    assert_eq!(store.audit_leaf_hashes(10, 2).await.unwrap(), leaves[10..12]);
}

/// A copy of the files as a machine that lost its power would find them: nothing closed, no checkpoint.
fn crash_image(of: &Path) -> tempfile::TempDir {
    let image = tempfile::tempdir().unwrap();
    for name in ["serverflow.db", "serverflow.db-wal"] {
        std::fs::copy(of.join(name), image.path().join(name)).unwrap();
    }
    image
}

#[tokio::test]
async fn what_was_answered_is_there_after_a_crash() {
    let (directory, store) = scratch().await;
    let host = enrolled(&store, "web-1").await;
    let command = queued(&store, &host).await;
    done(&store, seal_write(&command, 0, 1)).await;
    let before = store.audit_position();
    let image = crash_image(directory.path());

    let survivor = open(image.path()).await;
    assert_eq!(survivor.audit_position(), before);
    assert_eq!(host_now(&survivor, &host).await, host_now(&store, &host).await);
    assert_eq!(survivor.commands_open(host.id).await, store.commands_open(host.id).await);
    done(&survivor, Write::CommandSettle(Box::new(settlement(&command, 1, 1)))).await;
    done(&survivor, seal_write(&queued(&survivor, &host).await, 1, 2)).await;
}

#[tokio::test]
async fn a_torn_log_loses_only_its_last_transaction() {
    let (directory, store) = scratch().await;
    let host = enrolled(&store, "web-1").await;
    let before = store.audit_position();
    let kept = std::fs::metadata(directory.path().join("serverflow.db-wal")).unwrap().len();
    queued(&store, &host).await;
    let image = crash_image(directory.path());
    let wal = std::fs::OpenOptions::new().write(true).open(image.path().join("serverflow.db-wal")).unwrap();
    let whole = wal.metadata().unwrap().len();
    assert!(whole > kept + 1);
    wal.set_len(whole - 1).unwrap();
    let survivor = open(image.path()).await;
    assert_eq!(survivor.audit_position(), before);
    assert_eq!(survivor.commands_open(host.id).await, Ok(vec![]));
    queued(&survivor, &host).await;
}

#[tokio::test]
async fn dropped_without_closing_and_opened_again() {
    let (directory, store) = scratch().await;
    let host = enrolled(&store, "web-1").await;
    let before = store.audit_position();
    drop(store);
    let store = open(directory.path()).await;
    assert_eq!(store.audit_position(), before);
    assert_eq!(store.hosts().await, Ok(vec![host]));
    store.close().await;
    let refused = store.write(Write::Audit(entry(AuditKind::SignIn, "late"))).await;
    assert!(matches!(refused, Err(StoreError::Unavailable(_))), "{refused:?}");
    open(directory.path()).await;
}

#[tokio::test]
async fn two_stores_do_not_share_a_file() {
    let (directory, _store) = scratch().await;
    let refused = try_open(path(directory.path()), 1).await.err().unwrap().to_string();
    assert!(refused.contains("in use by another control plane"), "{refused}");
}

#[tokio::test]
async fn another_data_key_is_refused() {
    let (directory, store) = scratch().await;
    store.close().await;
    let refused = try_open(path(directory.path()), 2).await.err().unwrap();
    assert!(matches!(&refused, StoreError::Corrupt(why) if why.contains("another data key")), "{refused}");
}

#[tokio::test]
async fn no_secret_is_in_the_files() {
    const SECRET: &[u8] = b"correct-horse-battery-staple";
    let text = || String::from_utf8(SECRET.to_vec()).unwrap();
    let (directory, store) = scratch().await;
    let host = enrolled(&store, "web-1").await;
    let mut operation = operation(fleet::model::OperationKind::Deploy);
    operation.detail = SECRET.to_vec();
    let mut command = new_command(&operation, &host, "app.deploy");
    command.order.parameters = SECRET.to_vec();
    done(&store, propose_write(&operation, core::slice::from_ref(&command))).await;
    let mut seal = seal_write(&command, 0, 1);
    if let Write::CommandSeal { seal, .. } = &mut seal {
        seal.envelope = SECRET.to_vec();
    }
    done(&store, seal).await;
    let instance = fleet::model::AppInstance {
        app: "shop".parse().unwrap(),
        host: host.id,
        host_name: host.name.clone(),
        release: operation.id,
        deployed_at: NOW,
        state: fleet::model::AppInstanceState::Running,
        result: SECRET.to_vec(),
    };
    let mut settled = Settlement {
        envelope: SECRET.to_vec(),
        message: text(),
        app: Some(fleet::ports::AppChange::Deployed(instance)),
        audit: vec![entry(AuditKind::Report, &text())],
        ..settlement(&command, 1, 1)
    };
    // The subject is for people and not secret; only the record is.
    settled.audit[0].subject = "a report".to_owned();
    done(&store, Write::CommandSettle(Box::new(settled))).await;
    let read = store.command(command.order.command).await.unwrap().unwrap();
    assert_eq!((read.message, read.report), (text(), Some(SECRET.to_vec())), "it is there for who has the key");

    let find = |needle: &[u8]| {
        let files =
            ["serverflow.db", "serverflow.db-wal"].map(|name| std::fs::read(directory.path().join(name)).unwrap());
        files.iter().any(|bytes| bytes.windows(needle.len()).any(|window| window == needle))
    };
    assert!(find(b"web-1") && find(command.order.command.as_bytes()), "the search finds what is not secret");
    assert!(!find(SECRET), "with the log");
    store.close().await;
    let bytes = std::fs::read(path(directory.path())).unwrap();
    assert!(!bytes.windows(SECRET.len()).any(|window| window == SECRET), "after the last checkpoint");
}

#[tokio::test]
async fn files_are_for_their_owner_only() {
    use std::os::unix::fs::PermissionsExt as _;
    let (directory, store) = scratch().await;
    enrolled(&store, "web-1").await;
    for file in std::fs::read_dir(directory.path()).unwrap() {
        let file = file.unwrap();
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o077, 0, "{:?}", file.file_name());
    }
}

#[tokio::test]
async fn a_log_that_was_changed_is_found_at_the_next_start() {
    use sqlx::{ConnectOptions as _, sqlite::SqliteConnectOptions};
    let changes = [
        ("DELETE FROM audit_leaves WHERE leaf = 1", "leaf 1 is missing"),
        ("DELETE FROM audit_leaves WHERE leaf = 3", "leaves after 3 are missing"),
        ("UPDATE audit_leaves SET leaf_sha256 = zeroblob(32) WHERE leaf = 2", "is not the signed one"),
    ];
    for (change, expected) in changes {
        let (directory, store) = scratch().await;
        for number in 0..4 {
            done(&store, Write::Audit(entry(AuditKind::SignIn, &number.to_string()))).await;
        }
        let AuditPosition { size, root } = store.audit_position();
        let position = LogPosition { log: AuditLogId::from_bytes([3; 16]), size, root };
        done(&store, Write::AuditHead { position, envelope: b"head".to_vec() }).await;
        store.close().await;
        let mut intruder = SqliteConnectOptions::new().filename(path(directory.path())).connect().await.unwrap();
        sqlx::query(change).execute(&mut intruder).await.unwrap();
        sqlx::Connection::close(intruder).await.unwrap();
        let refused = try_open(path(directory.path()), 1).await.err().unwrap();
        assert!(matches!(&refused, StoreError::Corrupt(why) if why.contains(expected)), "{change}: {refused}");
    }
}

#[tokio::test]
async fn a_damaged_or_foreign_file_is_named() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(path(directory.path()), [0x42; 8192]).unwrap();
    let refused = try_open(path(directory.path()), 1).await.err().unwrap();
    assert!(
        matches!(&refused, StoreError::Corrupt(why) if why.contains("serverflow.db") && why.contains("backup")),
        "{refused}"
    );

    let nowhere = try_open("/nonexistent/serverflow.db".into(), 1).await.err().unwrap();
    assert!(matches!(&nowhere, StoreError::Unavailable(why) if why.contains("does not exist")), "{nowhere}");
}

#[tokio::test]
async fn a_corrupt_page_is_found_when_it_is_read() {
    let (directory, store) = scratch().await;
    let host = enrolled(&store, "web-1").await;
    for _ in 0..50 {
        queued(&store, &host).await;
    }
    store.close().await;
    let mut bytes = std::fs::read(path(directory.path())).unwrap();
    // All but the header, the schema and the pages the opening reads.
    let from = bytes.len() / 2;
    bytes[from..].fill(0xa5);
    std::fs::write(path(directory.path()), &bytes).unwrap();
    let told = match try_open(path(directory.path()), 1).await {
        Err(error) => error,
        Ok(store) => store.commands_open(host.id).await.unwrap_err(),
    };
    assert!(matches!(&told, StoreError::Corrupt(why) if why.contains("backup")), "{told}");
}

#[tokio::test]
async fn unknown_things_are_not_there() {
    let (_directory, store) = scratch().await;
    assert_eq!(store.host(HostId::from_bytes(fresh())).await, Ok(None));
    assert_eq!(store.command(CommandId::from_bytes(fresh())).await, Ok(None));
    assert_eq!(store.hosts().await, Ok(vec![]));
    assert_eq!(store.apps(None).await, Ok(vec![]));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    #[test]
    fn selectors_select_in_the_database_what_they_say(
        shapes in prop::collection::vec(selectors::shape(), 1..12),
        asked in prop::collection::vec(selectors::selector(), 40),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (_directory, store) = scratch().await;
            selectors::compare(&store, &shapes, &asked).await;
        });
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    /// Random writes, in batches of random size, with a restart in the middle.
    #[test]
    fn random_writes_agree_with_the_model(batches in prop::collection::vec(prop::collection::vec(step(), 1..24), 1..8)) {
        run_against_model(&batches);
    }
}

fn run_against_model(batches: &[Vec<Step>]) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (directory, mut store) = scratch().await;
        let mut model = Model::begin(&store).await;
        for (number, batch) in batches.iter().enumerate() {
            model.put(&store, batch).await;
            model.compare(&store).await;
            if number == 2 {
                let before = store.audit_position();
                drop(store);
                store = open(directory.path()).await;
                assert_eq!(store.audit_position(), before);
            }
        }
        let leaves = store.audit_leaf_hashes(0, 1_000).await.unwrap();
        assert_eq!(store.audit_position().root, merkle::root(&leaves));
    });
}
