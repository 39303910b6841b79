//! The log: its rows, its records, its heads.

use envelope::{
    audit::{AuditKind, AuditLeaf},
    merkle,
    messages::LogPosition,
};
use fleet::{
    model::AuditRow,
    ports::{Store, Write},
};
use ids::{AuditLogId, Sha256, sha256};

use super::fixtures::*;

/// The root of what the log shows.
fn root_of(rows: &[AuditRow]) -> Sha256 {
    let leaf =
        |row: &AuditRow| AuditLeaf::new(row.time, row.kind, &row.actor, &row.subject, row.record_sha256).leaf_hash();
    merkle::root(&rows.iter().map(leaf).collect::<Vec<_>>())
}

pub(crate) async fn records_are_read_back_in_order(store: &dyn Store) {
    let host = enrolled(store, "web-1").await;
    let command = queued(store, &host).await;
    done(store, seal_write(&command, 0, 1)).await;
    done(store, Write::CommandSettle(Box::new(settlement(&command, 1, 1)))).await;
    done(store, Write::Audit(entry(AuditKind::SignInRefused, "berta"))).await;
    let rows = store.audit(0, 100).await.unwrap();
    use AuditKind as K;
    let kinds: Vec<AuditKind> = rows.iter().map(|row| row.kind).collect();
    assert_eq!(kinds, [K::TokenIssued, K::Enrolment, K::Proposal, K::Command, K::Report, K::SignInRefused]);
    for (index, row) in rows.iter().enumerate() {
        assert_eq!(row.index, index as u64);
        assert_eq!(sha256(row.record.as_ref().unwrap()), row.record_sha256);
        assert_eq!(row.time, NOW);
        assert_eq!(row.actor, "anna");
    }
    assert_eq!(rows[3].record, Some(seal(&command, 1).envelope));
    assert_eq!(rows[4].record, Some(settlement(&command, 1, 1).envelope));
    assert_eq!(rows[5].subject, "subject of berta");
    assert_eq!(store.audit(2, 2).await.unwrap(), rows[2..4]);
    assert_eq!(store.audit(6, 2).await, Ok(vec![]));
}

pub(crate) async fn refused_writes_leave_no_leaf(store: &dyn Store) {
    let host = enrolled(store, "web-1").await;
    let command = queued(store, &host).await;
    let before = store.audit(0, 100).await.unwrap();
    let refused = [
        seal_write(&command, 5, 6),
        Write::CommandSettle(Box::new(settlement(&command, 1, 1))),
        Write::TokenCreate { token: token("web-1", b"x"), audit: entry(AuditKind::TokenIssued, "x") },
    ];
    for write in refused {
        conflicts(store, write, "").await;
    }
    assert_eq!(store.audit(0, 100).await.unwrap(), before);
}

pub(crate) async fn heads_are_kept_ascending(store: &dyn Store) {
    let log = AuditLogId::from_bytes([3; 16]);
    let head = |size: u64, root: Sha256| Write::AuditHead {
        position: LogPosition { log, size, root },
        envelope: format!("head {size}").into_bytes(),
    };
    assert_eq!(store.audit_heads(true).await, Ok(vec![]));
    for number in 0..3 {
        done(store, Write::Audit(entry(AuditKind::SignIn, &number.to_string()))).await;
    }
    let rows = store.audit(0, 100).await.unwrap();
    conflicts(store, head(3, sha256(b"another root")), "never stood").await;
    conflicts(store, head(9, root_of(&rows)), "never stood").await;
    done(store, head(2, root_of(&rows[..2]))).await;
    conflicts(store, head(2, root_of(&rows[..2])), "stored already").await;
    conflicts(store, head(1, root_of(&rows[..1])), "stored already").await;
    done(store, head(3, root_of(&rows))).await;
    assert_eq!(store.audit_heads(false).await, Ok(vec![b"head 2".to_vec(), b"head 3".to_vec()]));
    assert_eq!(store.audit_heads(true).await, Ok(vec![b"head 3".to_vec()]));
}
