//! The tree by its full subtrees: which of them a root or a proof is made of, so that whoever stores
//! subtrees' roots answers in a logarithm of reads.

use ids::Sha256;

use super::{Frontier, TreeFull, empty_root, node_hash};

/// A full subtree: the leaves from `index << level` up to `(index + 1) << level`. Level 0 is a leaf.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Node {
    pub level: u8,
    pub index: u64,
}

impl Node {
    /// The two halves. `None` for a leaf.
    #[must_use]
    pub fn children(self) -> Option<[Self; 2]> {
        let level = self.level.checked_sub(1)?;
        Some([Self { level, index: self.index * 2 }, Self { level, index: self.index * 2 + 1 }])
    }
}

/// Root of `2^n` neighbouring nodes' parent: joined pair by pair. The number of hashes must be a power of two.
#[must_use]
pub fn join(hashes: &[Sha256]) -> Sha256 {
    match hashes {
        [] => empty_root(),
        [only] => *only,
        _ => {
            let (left, right) = hashes.split_at(hashes.len() / 2);
            node_hash(&join(left), &join(right))
        }
    }
}

/// Full subtrees of the leaves from `start` (a multiple of the largest power of two that fits) up to
/// `end`, largest first.
fn spanning(start: u64, end: u64) -> Vec<Node> {
    let (mut at, mut nodes) = (start, Vec::new());
    for level in (0..64).rev() {
        if ((end - start) >> level) & 1 == 1 {
            nodes.push(Node { level, index: at >> level });
            at += 1 << level;
        }
    }
    nodes
}

/// Full subtrees that a tree of `size` leaves consists of, largest first: one for each bit set in `size`.
#[must_use]
pub fn peaks(size: u64) -> Vec<Node> {
    spanning(0, size)
}

/// Root over full subtrees' roots, largest first, as [`peaks`] lists them.
#[must_use]
pub fn root_of_peaks(peaks: &[Sha256]) -> Sha256 {
    let smallest_first = peaks.iter().rev().copied();
    smallest_first.reduce(|right, left| node_hash(&left, &right)).unwrap_or_else(empty_root)
}

/// What a consistency proof (RFC 6962 section 2.1.2) is made of: for each of its hashes, the full
/// subtrees (largest first) whose roots [`root_of_peaks`] joins to it.
///
/// `None` when the old tree is larger. Empty when nothing needs to be shown.
#[must_use]
pub fn consistency_nodes(old_size: u64, new_size: u64) -> Option<Vec<Vec<Node>>> {
    if old_size > new_size {
        return None;
    }
    let mut path = Vec::new();
    if old_size == 0 {
        return Some(path);
    }
    let (mut start, mut end, mut is_known) = (0, new_size, true);
    // From the whole tree down to the subtree that ends where the old tree does.
    while end != old_size {
        let middle = start + split(end - start);
        if old_size <= middle {
            path.push(spanning(middle, end));
            end = middle;
        } else {
            path.push(spanning(start, middle));
            (start, is_known) = (middle, false);
        }
    }
    // The old tree's root is known to the verifier when that subtree is all of it.
    if !is_known {
        path.push(spanning(start, end));
    }
    path.reverse();
    Some(path)
}

/// The largest power of two below `n`, for `n` of at least 2.
const fn split(n: u64) -> u64 {
    1 << (63 - (n - 1).leading_zeros())
}

/// The consistency proof between two sizes; `hash_of` gives the root of a full subtree, and its error is passed on.
///
/// # Errors
/// Those of `hash_of`.
pub fn consistency_proof_of<E>(
    old_size: u64,
    new_size: u64,
    mut hash_of: impl FnMut(Node) -> Result<Sha256, E>,
) -> Result<Option<Vec<Sha256>>, E> {
    let Some(path) = consistency_nodes(old_size, new_size) else { return Ok(None) };
    let mut proof = Vec::with_capacity(path.len());
    for nodes in path {
        let hashes = nodes.into_iter().map(&mut hash_of).collect::<Result<Vec<_>, E>>()?;
        proof.push(root_of_peaks(&hashes));
    }
    Ok(Some(proof))
}

impl Frontier {
    /// The right edge of a tree of `size` leaves, from the roots of its [`peaks`].
    ///
    /// `None` when their number does not fit.
    #[must_use]
    pub fn from_peaks(size: u64, peaks: Vec<Sha256>) -> Option<Self> {
        (peaks.len() == size.count_ones() as usize).then_some(Self { size, peaks })
    }

    /// As [`Self::append`]; tells of each full subtree that this leaf completes, the leaf itself first.
    ///
    /// # Errors
    /// [`TreeFull`] after 2^64 − 1 leaves.
    pub fn append_telling(&mut self, leaf_hash: Sha256, mut tell: impl FnMut(Node, Sha256)) -> Result<(), TreeFull> {
        let size = self.size.checked_add(1).ok_or(TreeFull)?;
        let (mut node, mut hash) = (Node { level: 0, index: self.size }, leaf_hash);
        tell(node, hash);
        // Each trailing one in the old size is a full subtree the new node completes into a larger one.
        for _ in 0..self.size.trailing_ones() {
            let left = self.peaks.pop().expect("invariant: one peak for each bit set in the size");
            hash = node_hash(&left, &hash);
            node = Node { level: node.level + 1, index: node.index / 2 };
            tell(node, hash);
        }
        self.peaks.push(hash);
        self.size = size;
        Ok(())
    }
}
