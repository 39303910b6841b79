//! The stored nodes of the audit log's tree: what opening finds, what only a whole look finds, proofs, and how they come
//! into a database that has none.

use super::*;

/// A log of so many leaves, with a head over its first `signed`.
async fn long_log(leaves: u64, signed: u64) -> tempfile::TempDir {
    let (directory, store) = scratch().await;
    for first in (0..leaves).step_by(500) {
        if first >= signed {
            sign_head(&store).await;
        }
        let writes = (first..leaves.min(first + 500)).map(|n| Write::Audit(entry(AuditKind::SignIn, &n.to_string())));
        let answers = futures(writes.map(|write| store.write(write)).collect()).await;
        assert!(answers.iter().all(Result::is_ok));
    }
    sign_head(&store).await;
    store.close().await;
    directory
}

/// Signs what the log is now, if that is new.
async fn sign_head(store: &SqliteStore) {
    let AuditPosition { size, root } = store.audit_position();
    let position = LogPosition { log: AuditLogId::from_bytes([3; 16]), size, root };
    let _ = store.write(Write::AuditHead { position, envelope: format!("head {size}").into_bytes() }).await;
}

async fn meddled(directory: &Path, change: &'static str) {
    use sqlx::{ConnectOptions as _, sqlite::SqliteConnectOptions};
    let mut intruder = SqliteConnectOptions::new().filename(path(directory)).connect().await.unwrap();
    sqlx::raw_sql(change).execute(&mut intruder).await.unwrap();
    sqlx::Connection::close(intruder).await.unwrap();
}

/// What opening finds without reading the whole log, and what only a look at all of it finds.
#[tokio::test]
async fn a_long_log_that_was_changed_is_found_at_once_or_by_the_whole_look() {
    let changes = [
        ("DELETE FROM audit_leaves WHERE leaf >= 9000", Some("are missing"), "missing"),
        ("DELETE FROM audit_leaves WHERE leaf = 8999", Some("missing"), "missing"),
        (
            "UPDATE audit_nodes SET hash = zeroblob(32) WHERE level = 12 AND node = 1",
            Some("not the signed one"),
            "of level 12",
        ),
        ("DELETE FROM audit_nodes WHERE level = 12 AND node = 0", Some("node 0 of level 12 is missing"), "of level 12"),
        ("DELETE FROM audit_leaves WHERE leaf = 4000", None, "leaf 4000 is missing"),
        ("UPDATE audit_leaves SET actor = 'nobody' WHERE leaf = 70", None, "leaf 70 does not say what it said"),
        ("UPDATE audit_nodes SET hash = zeroblob(32) WHERE level = 6 AND node = 3", None, "node 3 of level 6"),
        ("UPDATE audit_heads SET root = zeroblob(32) WHERE size = 5000", None, "at size 5000 is not the signed one"),
    ];
    let whole = long_log(9_001, 5_000).await;
    for (change, at_once, by_all) in changes {
        let directory = tempfile::tempdir().unwrap();
        std::fs::copy(path(whole.path()), path(directory.path())).unwrap();
        let look = || store::examine(StoreConfig { path: path(directory.path()), data_key: Zeroizing::new([1; 32]) });
        let sound = look().await.unwrap().audit;
        assert_eq!((sound.leaves, sound.signed), (9_001, 9_001));
        meddled(directory.path(), change).await;
        let found = look().await.unwrap_err().to_string();
        assert!(found.contains(by_all), "{change}: {found}");
        match (at_once, try_open(path(directory.path()), 1).await) {
            (Some(words), Err(error)) => assert!(error.to_string().contains(words), "{change}: {error}"),
            (None, Ok(store)) => store.close().await,
            (_, opened) => panic!("{change}: {:?}", opened.err()),
        }
    }
}

#[tokio::test]
async fn proofs_from_the_stored_tree_are_those_of_all_leaves() {
    let directory = long_log(5_000, 5_000).await;
    let store = open(directory.path()).await;
    let mut leaves = Vec::new();
    while leaves.len() < 5_000 {
        leaves.extend(store.audit_leaf_hashes(leaves.len() as u64, 1_000).await.unwrap());
    }
    for (old, new) in [(0, 5_000), (1, 5_000), (63, 64), (64, 4_097), (4_096, 4_999), (4_999, 5_000), (3_333, 3_333)] {
        let expected = merkle::consistency_proof(&leaves[..new], old).unwrap();
        // The second time from memory, the third with some of the tiles in memory.
        for _ in 0..2 {
            let proof = store.audit_consistency(old, new as u64).await.unwrap();
            assert_eq!(*proof, *expected, "{old} of {new}");
        }
        let sizes = (merkle::root(&leaves[..usize::try_from(old).unwrap()]), merkle::root(&leaves[..new]));
        assert!(merkle::verify_consistency(old, sizes.0, new as u64, sizes.1, &expected));
    }
    for (old, new) in [(2, 1), (1, 5_001), (5_001, 9_000)] {
        assert!(matches!(store.audit_consistency(old, new).await, Err(StoreError::Conflict(_))), "{old} of {new}");
    }
    let head = store.audit_head_at(5_000).await.unwrap().unwrap();
    assert_eq!(head.root, store.audit_position().root);
    assert_eq!(store.audit_head_at(4_999).await, Ok(None));
    assert_eq!(store.audit_head_at(u64::MAX).await, Ok(None));
    // The newest tile grows: what was kept of it in memory is no obstacle.
    for number in 0..200 {
        let size = store.audit_position().size;
        let proof = store.audit_consistency(4_990, size).await.unwrap();
        leaves.extend(store.audit_leaf_hashes(leaves.len() as u64, 1_000).await.unwrap());
        assert_eq!(*proof, *merkle::consistency_proof(&leaves, 4_990).unwrap(), "{size}");
        done(&store, Write::Audit(entry(AuditKind::SignIn, &number.to_string()))).await;
    }
}

/// A database of before there were nodes: they are filled in, wherever the filling was cut off.
#[tokio::test]
async fn nodes_of_an_older_log_are_filled_in() {
    let directory = long_log(9_001, 9_001).await;
    let store = open(directory.path()).await;
    let before = store.audit_position();
    let proof = store.audit_consistency(4_444, 9_001).await.unwrap();
    store.close().await;
    let cuts = [
        "DELETE FROM audit_nodes",
        "DELETE FROM audit_nodes WHERE (node + 1) << level > 4096",
        "DELETE FROM audit_nodes WHERE (node + 1) << level > 64",
    ];
    for cut in cuts {
        meddled(directory.path(), cut).await;
        let store = open(directory.path()).await;
        assert_eq!(store.audit_position(), before, "{cut}");
        assert_eq!(store.audit_consistency(4_444, 9_001).await.unwrap(), proof, "{cut}");
        store.close().await;
        let config = StoreConfig { path: path(directory.path()), data_key: Zeroizing::new([1; 32]) };
        assert_eq!(store::examine(config).await.unwrap().audit.leaves, 9_001, "{cut}");
    }
}
