//! Proofs of consistency (RFC 6962 section 2.1.2) between two sizes of the log. Full subtrees never change,
//! so what was read once is good for ever: a crowd of hosts that were shown the same head before, and are
//! shown the same one now, costs one computation.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    hash::Hash,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use envelope::{
    merkle::{consistency_nodes, consistency_proof_of},
    messages::LogPosition,
};
use fleet::ports::StoreError;
use ids::Sha256;

use super::nodes::{self, Tile, TileHashes};
use crate::{
    limits,
    rows::{Fields, int},
    sqlite::Reader,
};

/// The latest of something, by key; the oldest goes first.
struct Held<K, V> {
    entries: HashMap<K, V>,
    order: VecDeque<K>,
    max: usize,
}

impl<K: Copy + Eq + Hash, V> Held<K, V> {
    fn new(max: usize) -> Self {
        Self { entries: HashMap::new(), order: VecDeque::new(), max }
    }

    fn put(&mut self, key: K, value: V) {
        if self.entries.insert(key, value).is_some() {
            return;
        }
        self.order.push_back(key);
        if self.order.len() > self.max
            && let Some(oldest) = self.order.pop_front()
        {
            self.entries.remove(&oldest);
        }
    }
}

/// What is kept in memory.
struct Memory {
    tiles: Held<Tile, TileHashes>,
    proofs: Held<(u64, u64), Arc<[Sha256]>>,
    heads: Held<u64, LogPosition>,
}

/// Answers for proofs and for heads that were signed.
pub(crate) struct Proofs {
    reader: Reader,
    memory: Mutex<Memory>,
}

impl Proofs {
    pub(crate) fn new(reader: Reader) -> Self {
        let memory = Memory {
            tiles: Held::new(limits::TILES_HELD_MAX),
            proofs: Held::new(limits::PROOFS_HELD_MAX),
            heads: Held::new(limits::PROOFS_HELD_MAX),
        };
        Self { reader, memory: Mutex::new(memory) }
    }

    /// A panic elsewhere leaves it whole: each change is one insertion.
    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Shows the log's first `old` leaves to be a beginning of its first `new`.
    pub(crate) async fn consistency(&self, old: u64, new: u64) -> Result<Arc<[Sha256]>, StoreError> {
        if let Some(proof) = self.memory().proofs.entries.get(&(old, new)) {
            return Ok(proof.clone());
        }
        let path = consistency_nodes(old, new).ok_or_else(|| no_such(old, new))?;
        let wanted: Vec<_> = path.into_iter().flatten().collect();
        let missing = {
            let memory = self.memory();
            nodes::tiles_for(&wanted, |tile| memory.tiles.entries.get(&tile).map_or(0, Vec::len))
        };
        let read = self.read(&missing).await?;
        let mut memory = self.memory();
        let tile = |tile| read.get(&tile).or_else(|| memory.tiles.entries.get(&tile));
        let proof = consistency_proof_of(old, new, |node| nodes::hash_in(node, tile).map_err(|_| no_such(old, new)))?;
        let proof: Arc<[Sha256]> = proof.ok_or_else(|| no_such(old, new))?.into();
        for (tile, hashes) in read {
            memory.tiles.put(tile, hashes);
        }
        memory.proofs.put((old, new), proof.clone());
        Ok(proof)
    }

    async fn read(&self, tiles: &[Tile]) -> Result<BTreeMap<Tile, TileHashes>, StoreError> {
        if tiles.is_empty() {
            return Ok(BTreeMap::new());
        }
        let rows = self.reader.rows("reading the audit tree", nodes::select(tiles)?.build()).await?;
        nodes::read(&rows)
    }

    /// The head that was signed over so many leaves.
    pub(crate) async fn head_at(&self, size: u64) -> Result<Option<LogPosition>, StoreError> {
        if let Some(head) = self.memory().heads.entries.get(&size) {
            return Ok(Some(*head));
        }
        let Ok(number) = int(size) else { return Ok(None) };
        let select = sqlx::query("SELECT log, size, root FROM audit_heads WHERE size = $1").bind(number);
        let row = self.reader.row("reading the audit heads", select).await?;
        let head =
            row.as_ref().map(|row| Fields::of(row, "the audit heads").log_position_maybe()).transpose()?.flatten();
        if let Some(head) = head {
            self.memory().heads.put(size, head);
        }
        Ok(head)
    }
}

fn no_such(old: u64, new: u64) -> StoreError {
    StoreError::Conflict(format!("the audit log does not have {new} leaves, or {old} are more than that"))
}
