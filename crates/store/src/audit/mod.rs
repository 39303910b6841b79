//! The audit log's tree (RFC 6962) beside its rows. The writer holds the frontier in memory and gives
//! each leaf its index; the rows, with their leaf hashes and the nodes they complete ([`nodes`]), are
//! inserted in the transaction of what they record. Opening reads the frontier from the stored nodes, a
//! few rows whatever the log's length, and compares it with the last signed head; [`whole`] looks at
//! every leaf.

pub(crate) mod nodes;
pub(crate) mod proofs;
pub(crate) mod whole;

use std::collections::VecDeque;

use envelope::{
    audit::AuditLeaf,
    merkle::{Frontier, Node},
};
use fleet::ports::{AuditEntry, AuditRecord, StoreError};
use ids::{Sha256, sha256};
use sqlx::{SqliteConnection, sqlite::SqliteRow};

use crate::{
    cipher::{Cipher, Place},
    fault::{Failure, Location},
    limits,
    rows::{Fields, int, pieces},
    write::Transaction,
};

/// Size and root of the log, as durable on disk: what a head may be signed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuditPosition {
    /// Leaves.
    pub size: u64,
    /// Merkle tree hash (RFC 6962 section 2.1) over them.
    pub root: Sha256,
}

/// Where a leaf's record stands.
#[derive(Clone, Copy, Debug)]
pub(crate) enum RecordPlace {
    /// With the leaf.
    Leaf,
    /// The envelope in this row of `command_seals`.
    Seal(i64),
    /// The envelope of this command's report.
    Report(i64),
}

/// A leaf about to be appended.
#[derive(Debug)]
pub(crate) struct NewLeaf<'w> {
    entry: &'w AuditEntry,
    place: RecordPlace,
}

impl<'w> NewLeaf<'w> {
    /// A leaf whose record has no other place.
    pub(crate) fn of(entry: &'w AuditEntry) -> Self {
        Self { entry, place: RecordPlace::Leaf }
    }

    /// A leaf of a write that stores `envelope` at `place`; a record of other bytes stays with the leaf.
    pub(crate) fn beside(entry: &'w AuditEntry, envelope: &[u8], place: RecordPlace) -> Self {
        match &entry.record {
            AuditRecord::Envelope(bytes) if bytes == envelope => Self { entry, place },
            _ => Self::of(entry),
        }
    }
}

/// The tree as the writer knows it.
#[derive(Clone)]
pub(crate) struct AuditLog {
    frontier: Frontier,
    /// Size of the last signed head; 0 before the first.
    head_size: u64,
    /// Positions published and not older than the last head: those a head may come back for.
    published: VecDeque<AuditPosition>,
}

impl AuditLog {
    pub(crate) fn position(&self) -> AuditPosition {
        AuditPosition { size: self.frontier.size(), root: self.frontier.root() }
    }

    /// Remembers the present position as one that is durable. Returns it if it is new.
    pub(crate) fn publish(&mut self) -> Option<AuditPosition> {
        let position = self.position();
        if self.published.back() == Some(&position) {
            return None;
        }
        if self.published.len() == limits::POSITIONS_REMEMBERED_MAX {
            self.published.pop_front();
        }
        self.published.push_back(position);
        Some(position)
    }

    /// Whether a signed head over this position may be stored, and that from now on it is.
    pub(crate) fn accept_head(&mut self, head: AuditPosition) -> Result<(), StoreError> {
        if head.size <= self.head_size {
            return Err(StoreError::Conflict(format!(
                "an audit head of size {} is stored already; one of size {} says nothing new",
                self.head_size, head.size
            )));
        }
        if !self.published.contains(&head) {
            return Err(StoreError::Conflict(format!(
                "the audit log never stood at size {} with root {}; sign the position it has now",
                head.size, head.root
            )));
        }
        self.head_size = head.size;
        self.published.retain(|position| position.size >= head.size);
        Ok(())
    }

    /// Reads the tree's edge from the stored nodes and checks it against the last head.
    pub(crate) async fn load(connection: &mut SqliteConnection, location: &Location) -> Result<Self, StoreError> {
        let head = last_head(connection, location).await?;
        nodes::fill(connection, location).await?;
        let (size, _) = nodes::extent(connection, location).await?;
        if head.is_some_and(|head| head.size > size) {
            return Err(tampered(location, format_args!("leaves after {size} are missing")));
        }
        if let Some(head) = head
            && nodes::peaks_at(connection, location, head.size).await?.root() != head.root
        {
            return Err(tampered(location, format_args!("its root at size {} is not the signed one", head.size)));
        }
        let frontier = nodes::peaks_at(connection, location, size).await?;
        let head_size = head.map_or(0, |head| head.size);
        let mut log = Self { frontier, head_size, published: VecDeque::new() };
        log.publish();
        Ok(log)
    }

    /// The row of a leaf; the nodes it completes are added to `made`.
    fn row<'w>(
        &mut self,
        cipher: &Cipher,
        leaf: &NewLeaf<'w>,
        made: &mut Vec<(Node, Sha256)>,
    ) -> Result<LeafRow<'w>, StoreError> {
        let entry = leaf.entry;
        let index = int(self.frontier.size())?;
        let (AuditRecord::Inline(record) | AuditRecord::Envelope(record)) = &entry.record;
        let record_sha256 = sha256(record);
        let leaf_sha256 =
            AuditLeaf::new(entry.time, entry.kind, &entry.actor, &entry.subject, record_sha256).leaf_hash();
        let row = LeafRow {
            leaf: index,
            time: int(entry.time.0)?,
            kind: i64::from(entry.kind.number()),
            actor: &entry.actor,
            subject: &entry.subject,
            record_sha256,
            leaf_sha256,
            record: match leaf.place {
                RecordPlace::Leaf => Some(cipher.seal(Place::AUDIT_RECORD, index, record)?),
                _ => None,
            },
            record_seal: if let RecordPlace::Seal(number) = leaf.place { Some(number) } else { None },
            record_report: if let RecordPlace::Report(command) = leaf.place { Some(command) } else { None },
        };
        let tell = |node, hash| {
            if nodes::is_stored(node) {
                made.push((node, hash));
            }
        };
        self.frontier.append_telling(leaf_sha256, tell).map_err(|_| full())?;
        Ok(row)
    }
}

/// Appends leaves, in order, within the writer's transaction.
pub(crate) async fn append(t: &mut Transaction<'_>, leaves: &[NewLeaf<'_>]) -> Result<(), Failure> {
    let mut made = Vec::new();
    for piece in pieces(leaves) {
        let mut rows = Vec::with_capacity(piece.len());
        for leaf in piece {
            rows.push(t.log.row(t.cipher, leaf, &mut made)?);
        }
        t.room_for(piece.len()).await?;
        let insert = t.later(
            "INSERT INTO audit_leaves (leaf, time, kind, actor, subject, record_sha256, leaf_sha256, \
             record, record_seal, record_report) ",
        );
        insert.push_values(rows, |mut values, row| {
            values.push_bind(row.leaf).push_bind(row.time).push_bind(row.kind);
            values.push_bind(row.actor.to_owned()).push_bind(row.subject.to_owned());
            values.push_bind(row.record_sha256.0.to_vec()).push_bind(row.leaf_sha256.0.to_vec());
            values.push_bind(row.record).push_bind(row.record_seal).push_bind(row.record_report);
        });
        t.ended("writing the audit log", piece.len()).await?;
    }
    nodes::append(t, &made).await
}

/// The last signed head, if there is one.
async fn last_head(
    connection: &mut SqliteConnection,
    location: &Location,
) -> Result<Option<AuditPosition>, StoreError> {
    let row = sqlx::query("SELECT size, root FROM audit_heads ORDER BY size DESC LIMIT 1")
        .fetch_optional(connection)
        .await
        .map_err(|error| location.error("reading the audit log", &error))?;
    let read = |row: &SqliteRow| {
        let mut fields = Fields::of(row, "the audit heads");
        Ok(AuditPosition { size: fields.number()?, root: fields.hash()? })
    };
    row.as_ref().map(read).transpose()
}

struct LeafRow<'w> {
    leaf: i64,
    time: i64,
    kind: i64,
    actor: &'w str,
    subject: &'w str,
    record_sha256: Sha256,
    leaf_sha256: Sha256,
    record: Option<Vec<u8>>,
    record_seal: Option<i64>,
    record_report: Option<i64>,
}

fn full() -> StoreError {
    StoreError::Unavailable("the audit log has reached the largest size it can have".to_owned())
}

fn tampered(location: &Location, what: core::fmt::Arguments<'_>) -> StoreError {
    StoreError::Corrupt(format!(
        "the audit log in {} was cut or changed: {what}; restore the database from a backup and find out who wrote to it",
        location.0.display()
    ))
}
