//! The whole log, leaf by leaf: does each leaf's hash follow from its row, does each stored node follow from
//! the leaves, and does the tree have the signed root wherever a head says so? In time that grows with the
//! log (about a second for each million leaves); for `doctor`, not for opening.

use std::collections::BTreeMap;

use envelope::{
    audit::{AuditKind, AuditLeaf},
    merkle::{Frontier, Node},
};
use fleet::ports::StoreError;
use ids::Sha256;
use sqlx::{SqliteConnection, sqlite::SqliteRow};

use super::{full, nodes, tampered};
use crate::{
    fault::Location,
    limits,
    rows::{Fields, int},
};

/// What a whole look found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AuditExamined {
    /// Leaves, every one of them checked.
    pub leaves: u64,
    /// How many of them the newest signed head covers.
    pub signed: u64,
    /// Signed heads, the root of every one of them compared.
    pub heads: u64,
}

struct Look<'c> {
    connection: &'c mut SqliteConnection,
    location: &'c Location,
    /// False in a database of a version that stored no nodes.
    has_nodes: bool,
}

/// Looks at all of it. A log that grows meanwhile is looked at as far as it went at the beginning.
pub(crate) async fn examine(
    connection: &mut SqliteConnection,
    location: &Location,
) -> Result<AuditExamined, StoreError> {
    let failed = |error: sqlx::Error| location.error("reading the audit log", &error);
    let tables = "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name = 'audit_nodes'";
    let has_nodes: i64 = sqlx::query_scalar(tables).fetch_one(&mut *connection).await.map_err(failed)?;
    // The newest head first: what it covers is there when the end is read.
    let signed: i64 = sqlx::query_scalar("SELECT COALESCE(MAX(size), 0) FROM audit_heads")
        .fetch_one(&mut *connection)
        .await
        .map_err(failed)?;
    let end: i64 = sqlx::query_scalar("SELECT COALESCE(MAX(leaf) + 1, 0) FROM audit_leaves")
        .fetch_one(&mut *connection)
        .await
        .map_err(failed)?;
    let (signed, end) = (u64::try_from(signed).unwrap_or(0), u64::try_from(end).unwrap_or(0));
    if signed > end {
        return Err(tampered(location, format_args!("leaves after {end} are missing")));
    }
    let mut look = Look { connection, location, has_nodes: has_nodes > 0 };
    let (mut tree, mut heads) = (Frontier::new(), 0);
    while tree.size() < end {
        heads += look.piece(&mut tree, end, signed).await?;
    }
    Ok(AuditExamined { leaves: end, signed, heads })
}

impl Look<'_> {
    /// Some leaves, and what was stored of them. Answers how many heads were compared.
    async fn piece(&mut self, tree: &mut Frontier, end: u64, signed: u64) -> Result<u64, StoreError> {
        let first = tree.size();
        let rows = sqlx::query(
            "SELECT leaf, time, kind, actor, subject, record_sha256, leaf_sha256 FROM audit_leaves \
             WHERE leaf >= $1 AND leaf < $2 ORDER BY leaf LIMIT $3",
        )
        .bind(int(first)?)
        .bind(int(end)?)
        .bind(limits::LEAVES_PER_READ_MAX)
        .fetch_all(&mut *self.connection)
        .await
        .map_err(|error| self.location.error("reading the audit log", &error))?;
        if rows.is_empty() {
            return Err(self.tampered(format_args!("leaf {first} is missing")));
        }
        let until = (first + rows.len() as u64).min(signed);
        let heads = self.heads(first, until).await?;
        let mut made = BTreeMap::new();
        for row in &rows {
            let hash = self.leaf(row, tree.size())?;
            let tell = |node: Node, hash| {
                if nodes::is_stored(node) {
                    made.insert((node.level, node.index), hash);
                }
            };
            tree.append_telling(hash, tell).map_err(|_| full())?;
            if heads.get(&tree.size()).is_some_and(|root| *root != tree.root()) {
                return Err(self.tampered(format_args!("its root at size {} is not the signed one", tree.size())));
            }
        }
        self.nodes(&made).await?;
        Ok(heads.len() as u64)
    }

    /// A leaf's hash, as its row and its words have it.
    fn leaf(&self, row: &SqliteRow, expected: u64) -> Result<Sha256, StoreError> {
        let mut fields = Fields::of(row, "the audit log");
        let (leaf, time, kind) = (fields.number()?, fields.time()?, fields.small()?);
        let (actor, subject): (&str, &str) = (fields.get()?, fields.get()?);
        let (record, hash) = (fields.hash()?, fields.hash()?);
        if leaf != expected {
            return Err(self.tampered(format_args!("leaf {expected} is missing")));
        }
        let kind = u16::try_from(kind).ok().and_then(AuditKind::from_number);
        let follows = kind.is_some_and(|kind| AuditLeaf::new(time, kind, actor, subject, record).leaf_hash() == hash);
        if follows { Ok(hash) } else { Err(self.tampered(format_args!("leaf {leaf} does not say what it said"))) }
    }

    /// Roots of the heads above `first` and up to `until`, by size.
    async fn heads(&mut self, first: u64, until: u64) -> Result<BTreeMap<u64, Sha256>, StoreError> {
        let rows = sqlx::query("SELECT size, root FROM audit_heads WHERE size > $1 AND size <= $2")
            .bind(int(first)?)
            .bind(int(until)?)
            .fetch_all(&mut *self.connection)
            .await
            .map_err(|error| self.location.error("reading the audit heads", &error))?;
        let one = |row: &SqliteRow| {
            let mut fields = Fields::of(row, "the audit heads");
            Ok((fields.number()?, fields.hash()?))
        };
        rows.iter().map(one).collect()
    }

    /// Every node that these leaves complete is stored as it follows from them.
    async fn nodes(&mut self, made: &BTreeMap<(u8, u64), Sha256>) -> Result<(), StoreError> {
        if !self.has_nodes {
            return Ok(());
        }
        let lowest = made.keys().filter(|(level, _)| *level == limits::NODE_LEVELS).map(|(_, index)| *index);
        let mut stored = BTreeMap::new();
        if let (Some(first), Some(last)) = (lowest.clone().min(), lowest.max()) {
            self.stored(limits::NODE_LEVELS, first, last, &mut stored).await?;
        }
        // The higher ones are few: one for each 4,096 leaves.
        for (level, index) in made.keys().filter(|(level, _)| *level > limits::NODE_LEVELS) {
            self.stored(*level, *index, *index, &mut stored).await?;
        }
        match made.iter().find(|(node, hash)| stored.get(node) != Some(hash)) {
            None => Ok(()),
            Some(((level, index), _)) => {
                Err(self.tampered(format_args!("node {index} of level {level} is not that of its leaves")))
            }
        }
    }

    async fn stored(
        &mut self,
        level: u8,
        first: u64,
        last: u64,
        stored: &mut BTreeMap<(u8, u64), Sha256>,
    ) -> Result<(), StoreError> {
        let rows = sqlx::query("SELECT node, hash FROM audit_nodes WHERE level = $1 AND node >= $2 AND node <= $3")
            .bind(i64::from(level))
            .bind(int(first)?)
            .bind(int(last)?)
            .fetch_all(&mut *self.connection)
            .await
            .map_err(|error| self.location.error("reading the audit tree", &error))?;
        for row in &rows {
            let mut fields = Fields::of(row, "the audit tree");
            stored.insert((level, fields.number()?), fields.hash()?);
        }
        Ok(())
    }

    fn tampered(&self, what: core::fmt::Arguments<'_>) -> StoreError {
        tampered(self.location, what)
    }
}
