//! Roots of full subtrees, stored at every sixth level of the tree, and what is computed from them: the
//! levels in between follow from at most 32 stored hashes. A tile is what is read at once: 64 neighbours
//! of one stored level.

use std::collections::{BTreeMap, BTreeSet};

use envelope::merkle::{Node, join, peaks};
use fleet::ports::StoreError;
use ids::Sha256;
use sqlx::{Connection as _, QueryBuilder, Sqlite, SqliteConnection, sqlite::SqliteRow};

use super::{Frontier, full, tampered};
use crate::{
    fault::{Failure, Location},
    limits,
    rows::{Fields, int, pieces},
    write::Transaction,
};

/// Levels between two stored ones.
const STEP: u8 = limits::NODE_LEVELS;

/// Whether nodes of this level are stored in `audit_nodes`. Leaves have their own table.
pub(crate) const fn is_stored(node: Node) -> bool {
    node.level > 0 && node.level.is_multiple_of(STEP)
}

/// Neighbours of one stored level.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Tile {
    level: u8,
    number: u64,
}

/// A tile's hashes, from its first place on. The tile at the tree's edge holds fewer.
pub(crate) type TileHashes = Vec<Sha256>;

/// Where a node's stored descendants stand.
struct Place {
    tile: Tile,
    from: usize,
    until: usize,
}

fn place(node: Node) -> Place {
    let above = node.level % STEP;
    let first = node.index << above;
    let from = usize::try_from(first % (1 << STEP)).unwrap_or(usize::MAX);
    let tile = Tile { level: node.level - above, number: first >> STEP };
    Place { tile, from, until: from + (1 << above) }
}

/// Tiles that must be read for these nodes, beyond those that `held` says reach far enough.
pub(crate) fn tiles_for(nodes: &[Node], held: impl Fn(Tile) -> usize) -> Vec<Tile> {
    let missing = nodes.iter().map(|node| place(*node)).filter(|place| held(place.tile) < place.until);
    missing.map(|place| place.tile).collect::<BTreeSet<_>>().into_iter().collect()
}

/// A node's hash from its tile. The error is the first stored node that is missing for it.
pub(crate) fn hash_in<'t>(node: Node, tile: impl FnOnce(Tile) -> Option<&'t TileHashes>) -> Result<Sha256, Node> {
    let place = place(node);
    let hashes = tile(place.tile).map_or(&[][..], Vec::as_slice);
    hashes.get(place.from..place.until).map(join).ok_or_else(|| {
        let index = (place.tile.number << STEP) + hashes.len() as u64;
        Node { level: place.tile.level, index }
    })
}

/// One question for all of these tiles.
pub(crate) fn select(tiles: &[Tile]) -> Result<QueryBuilder<Sqlite>, StoreError> {
    let mut select = QueryBuilder::new("");
    for (at, tile) in tiles.iter().enumerate() {
        select.push(if at > 0 { " UNION ALL " } else { "" });
        let (first, end) = (int(tile.number << STEP)?, int((tile.number + 1) << STEP)?);
        if tile.level == 0 {
            select.push("SELECT 0, leaf, leaf_sha256 FROM audit_leaves WHERE leaf >= ").push_bind(first);
            select.push(" AND leaf < ").push_bind(end);
        } else {
            select.push("SELECT level, node, hash FROM audit_nodes WHERE level = ").push_bind(i64::from(tile.level));
            select.push(" AND node >= ").push_bind(first).push(" AND node < ").push_bind(end);
        }
    }
    Ok(select)
}

/// The answer to [`select`]. A tile ends before the first place that has no row.
pub(crate) fn read(rows: &[SqliteRow]) -> Result<BTreeMap<Tile, TileHashes>, StoreError> {
    let mut found = BTreeMap::new();
    for row in rows {
        let mut fields = Fields::of(row, "the audit tree");
        let (level, index, hash) = (fields.small()?, fields.number()?, fields.hash()?);
        found.insert((u8::try_from(level).unwrap_or(u8::MAX), index), hash);
    }
    let mut tiles: BTreeMap<Tile, TileHashes> = BTreeMap::new();
    for ((level, index), hash) in found {
        let hashes = tiles.entry(Tile { level, number: index >> STEP }).or_default();
        if hashes.len() as u64 == index % (1 << STEP) {
            hashes.push(hash);
        }
    }
    Ok(tiles)
}

/// The edge that the tree had at this size.
pub(crate) async fn peaks_at(
    connection: &mut SqliteConnection,
    location: &Location,
    size: u64,
) -> Result<Frontier, StoreError> {
    let wanted = peaks(size);
    let tiles = tiles_for(&wanted, |_| 0);
    let rows = if tiles.is_empty() {
        Vec::new()
    } else {
        let rows = select(&tiles)?.build().fetch_all(connection).await;
        rows.map_err(|error| location.error("reading the audit tree", &error))?
    };
    let tiles = read(&rows)?;
    let hashes = wanted.iter().map(|node| hash_in(*node, |tile| tiles.get(&tile))).collect::<Result<Vec<_>, Node>>();
    let hashes = hashes.map_err(|missing| match missing {
        Node { level: 0, index } => tampered(location, format_args!("leaf {index} is missing")),
        Node { level, index } => tampered(location, format_args!("node {index} of level {level} is missing")),
    })?;
    Ok(Frontier::from_peaks(size, hashes).expect("invariant: one hash for each peak"))
}

/// Stores nodes within the writer's transaction. Not together with what waits: it comes once in 64 leaves.
pub(crate) async fn append(t: &mut Transaction<'_>, nodes: &[(Node, Sha256)]) -> Result<(), Failure> {
    const DOING: &str = "writing the audit tree";
    for piece in pieces(nodes) {
        t.run_together("writing").await?;
        push_nodes(t.later("INSERT INTO audit_nodes (level, node, hash) "), piece)?;
        t.run_together(DOING).await?;
    }
    Ok(())
}

fn push_nodes(insert: &mut QueryBuilder<Sqlite>, nodes: &[(Node, Sha256)]) -> Result<(), StoreError> {
    let mut tuples = Vec::with_capacity(nodes.len());
    for (node, hash) in nodes {
        tuples.push((i64::from(node.level), int(node.index)?, hash.0.to_vec()));
    }
    insert.push_values(tuples, |mut values, (level, index, hash)| {
        values.push_bind(level).push_bind(index).push_bind(hash);
    });
    Ok(())
}

/// Leaves in the log, and how many of them stored nodes cover.
pub(crate) async fn extent(connection: &mut SqliteConnection, location: &Location) -> Result<(u64, u64), StoreError> {
    let row = sqlx::query(
        "SELECT (SELECT COALESCE(MAX(leaf) + 1, 0) FROM audit_leaves), \
         (SELECT COALESCE(MAX(node) + 1, 0) FROM audit_nodes WHERE level = $1)",
    )
    .bind(i64::from(STEP))
    .fetch_one(connection)
    .await
    .map_err(|error| location.error("reading the audit log's end", &error))?;
    let mut fields = Fields::of(&row, "the audit log");
    let (leaves, nodes) = (fields.number()?, fields.number()?);
    Ok((leaves, nodes << STEP))
}

/// Fills in the nodes of leaves that have none: those written by a program that stored none. Each piece is
/// one transaction, so whatever cuts it off, the next opening goes on from there.
pub(crate) async fn fill(connection: &mut SqliteConnection, location: &Location) -> Result<(), StoreError> {
    let (leaves, covered) = extent(connection, location).await?;
    if covered > leaves {
        return Err(tampered(location, format_args!("leaves after {leaves} are missing")));
    }
    let goal = (leaves >> STEP) << STEP;
    if covered == goal {
        return Ok(());
    }
    tracing::info!(leaves = goal - covered, "preparing the audit log for quick opening; this is done once");
    let mut frontier = peaks_at(connection, location, covered).await?;
    while frontier.size() < goal {
        let end = goal.min(frontier.size() + limits::LEAVES_PER_FILL_MAX);
        frontier = fill_piece(connection, location, frontier, end).await?;
    }
    Ok(())
}

async fn fill_piece(
    connection: &mut SqliteConnection,
    location: &Location,
    mut frontier: Frontier,
    end: u64,
) -> Result<Frontier, StoreError> {
    let failed = |error: sqlx::Error| location.error("filling in the audit tree", &error);
    let mut transaction = connection.begin().await.map_err(failed)?;
    while frontier.size() < end {
        let mut nodes = Vec::new();
        for (leaf, hash) in leaf_hashes(&mut transaction, location, frontier.size(), end).await? {
            if leaf != frontier.size() {
                return Err(tampered(location, format_args!("leaf {} is missing", frontier.size())));
            }
            let tell = |node, hash| {
                if is_stored(node) {
                    nodes.push((node, hash));
                }
            };
            frontier.append_telling(hash, tell).map_err(|_| full())?;
        }
        for piece in pieces(&nodes) {
            let mut insert = QueryBuilder::new("INSERT INTO audit_nodes (level, node, hash) ");
            push_nodes(&mut insert, piece)?;
            insert.build().execute(&mut *transaction).await.map_err(failed)?;
        }
    }
    transaction.commit().await.map_err(failed)?;
    Ok(frontier)
}

/// Leaf hashes from `first` on, before `end`, at most [`limits::LEAVES_PER_READ_MAX`]. Never none.
async fn leaf_hashes(
    connection: &mut SqliteConnection,
    location: &Location,
    first: u64,
    end: u64,
) -> Result<Vec<(u64, Sha256)>, StoreError> {
    let rows =
        sqlx::query("SELECT leaf, leaf_sha256 FROM audit_leaves WHERE leaf >= $1 AND leaf < $2 ORDER BY leaf LIMIT $3")
            .bind(int(first)?)
            .bind(int(end)?)
            .bind(limits::LEAVES_PER_READ_MAX)
            .fetch_all(connection)
            .await
            .map_err(|error| location.error("reading the audit log", &error))?;
    if rows.is_empty() {
        return Err(tampered(location, format_args!("leaf {first} is missing")));
    }
    let one = |row: &SqliteRow| {
        let mut fields = Fields::of(row, "the audit log");
        Ok((fields.number()?, fields.hash()?))
    };
    rows.iter().map(one).collect()
}
