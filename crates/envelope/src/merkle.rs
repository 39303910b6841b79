//! The audit log's Merkle tree, as in RFC 6962 section 2.1: `SHA-256(0x00 ‖ leaf)` for leaves,
//! `SHA-256(0x01 ‖ left ‖ right)` for nodes, the left subtree the largest full one.
//!
//! The writer keeps a [`Frontier`] (a logarithm of hashes) and appends; proofs are computed from the
//! leaf hashes, or from the roots of full subtrees ([`Node`]). Verifiers follow RFC 9162 sections 2.1.3.2 and 2.1.4.2, which state the same tree's
//! verification as algorithms.

mod nodes;

use ids::{Sha256, sha256};

pub use self::nodes::{Node, consistency_nodes, consistency_proof_of, join, peaks, root_of_peaks};

/// Hash of a leaf's bytes.
#[must_use]
pub fn leaf_hash(leaf: &[u8]) -> Sha256 {
    let mut bytes = Vec::with_capacity(1 + leaf.len());
    bytes.push(0x00);
    bytes.extend_from_slice(leaf);
    sha256(&bytes)
}

fn node_hash(left: &Sha256, right: &Sha256) -> Sha256 {
    let mut bytes = [0x01; 65];
    bytes[1..33].copy_from_slice(left.as_bytes());
    bytes[33..].copy_from_slice(right.as_bytes());
    sha256(&bytes)
}

/// Root of the tree without leaves: SHA-256 of nothing.
#[must_use]
pub fn empty_root() -> Sha256 {
    sha256(b"")
}

/// The largest power of two below `n`, for `n` of at least 2: where a tree splits.
const fn split(n: usize) -> usize {
    1 << (usize::BITS - 1 - (n - 1).leading_zeros())
}

/// Root of the tree over these leaf hashes.
#[must_use]
pub fn root(leaves: &[Sha256]) -> Sha256 {
    match leaves {
        [] => empty_root(),
        [only] => *only,
        _ => {
            let (left, right) = leaves.split_at(split(leaves.len()));
            node_hash(&root(left), &root(right))
        }
    }
}

/// The right edge of a growing tree: enough to append and to know the root.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frontier {
    size: u64,
    /// Roots of the full subtrees, largest first: one for each bit set in `size`.
    peaks: Vec<Sha256>,
}

/// Why bytes are not a frontier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not the frontier of a Merkle tree: {length} bytes do not fit its size")]
pub struct FrontierError {
    length: usize,
}

/// The tree holds as many leaves as it can count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the Merkle tree is full")]
pub struct TreeFull;

impl Frontier {
    /// A tree without leaves.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Number of leaves.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// Adds one leaf.
    ///
    /// # Errors
    /// [`TreeFull`] after 2^64 − 1 leaves.
    pub fn append(&mut self, leaf_hash: Sha256) -> Result<(), TreeFull> {
        self.append_telling(leaf_hash, |_, _| {})
    }

    /// Root of the tree so far.
    #[must_use]
    pub fn root(&self) -> Sha256 {
        root_of_peaks(&self.peaks)
    }

    /// To be stored: size (8 bytes, big-endian), then the peaks, largest first.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = self.size.to_be_bytes().to_vec();
        self.peaks.iter().for_each(|peak| bytes.extend_from_slice(peak.as_bytes()));
        bytes
    }

    /// Reads what [`Self::to_bytes`] wrote.
    ///
    /// # Errors
    /// When the number of peaks does not fit the size.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, FrontierError> {
        let wrong = FrontierError { length: bytes.len() };
        let (size, rest) = bytes.split_first_chunk::<8>().ok_or(wrong)?;
        let size = u64::from_be_bytes(*size);
        let (peaks, tail) = rest.as_chunks::<32>();
        if !tail.is_empty() || peaks.len() != size.count_ones() as usize {
            return Err(wrong);
        }
        Ok(Self { size, peaks: peaks.iter().copied().map(Sha256).collect() })
    }
}

/// The hashes that lead from leaf `index` to the root over `leaves`, lowest first. `None` when there
/// is no such leaf.
#[must_use]
pub fn inclusion_proof(leaves: &[Sha256], index: u64) -> Option<Vec<Sha256>> {
    let index = usize::try_from(index).ok().filter(|&index| index < leaves.len())?;
    let mut path = Vec::new();
    inclusion_path(leaves, index, &mut path);
    Some(path)
}

fn inclusion_path(leaves: &[Sha256], index: usize, path: &mut Vec<Sha256>) {
    if leaves.len() < 2 {
        return;
    }
    let (left, right) = leaves.split_at(split(leaves.len()));
    if index < left.len() {
        inclusion_path(left, index, path);
        path.push(root(right));
    } else {
        inclusion_path(right, index - left.len(), path);
        path.push(root(left));
    }
}

/// Whether `path` shows that `leaf_hash` is leaf `index` of the tree of `size` leaves with this root.
#[must_use]
pub fn verify_inclusion(leaf_hash: Sha256, index: u64, size: u64, path: &[Sha256], expected_root: Sha256) -> bool {
    if index >= size {
        return false;
    }
    let (mut at, mut last) = (index, size - 1);
    let mut node = leaf_hash;
    for sibling in path {
        if last == 0 {
            return false;
        }
        if at & 1 == 1 || at == last {
            node = node_hash(sibling, &node);
            // A right edge without sibling climbs until it is a right child.
            while at & 1 == 0 && at != 0 {
                at >>= 1;
                last >>= 1;
            }
        } else {
            node = node_hash(&node, sibling);
        }
        at >>= 1;
        last >>= 1;
    }
    last == 0 && node == expected_root
}

/// The hashes that show the tree over the first `old_size` leaves to be a beginning of the tree over
/// `leaves`. Empty when nothing needs to be shown (sizes equal, or the old tree empty). `None` when
/// the old tree is larger.
#[must_use]
pub fn consistency_proof(leaves: &[Sha256], old_size: u64) -> Option<Vec<Sha256>> {
    let old_size = usize::try_from(old_size).ok().filter(|&size| size <= leaves.len())?;
    let mut path = Vec::new();
    if old_size > 0 {
        consistency_path(leaves, old_size, true, &mut path);
    }
    Some(path)
}

/// `whole`: the old tree's root is known to the verifier, so it is not repeated.
fn consistency_path(leaves: &[Sha256], old_size: usize, whole: bool, path: &mut Vec<Sha256>) {
    if old_size == leaves.len() {
        if !whole {
            path.push(root(leaves));
        }
        return;
    }
    let (left, right) = leaves.split_at(split(leaves.len()));
    if old_size <= left.len() {
        consistency_path(left, old_size, whole, path);
        path.push(root(right));
    } else {
        consistency_path(right, old_size - left.len(), false, path);
        path.push(root(left));
    }
}

/// Whether `path` shows the tree `(old_size, old_root)` to be a beginning of `(new_size, new_root)`.
#[must_use]
pub fn verify_consistency(old_size: u64, old_root: Sha256, new_size: u64, new_root: Sha256, path: &[Sha256]) -> bool {
    if old_size > new_size {
        return false;
    }
    if old_size == new_size {
        return path.is_empty() && old_root == new_root && (old_size > 0 || old_root == empty_root());
    }
    if old_size == 0 {
        return path.is_empty() && old_root == empty_root();
    }
    verify_growth(old_size, old_root, new_size, new_root, path)
}

/// Consistency of two trees, the old one not empty and smaller.
fn verify_growth(old_size: u64, old_root: Sha256, new_size: u64, new_root: Sha256, path: &[Sha256]) -> bool {
    // A full old tree is itself the first node of the path.
    let (start, rest) = match (old_size.is_power_of_two(), path) {
        (true, rest) => (old_root, rest),
        (false, [first, rest @ ..]) => (*first, rest),
        (false, []) => return false,
    };
    let skipped = (old_size - 1).trailing_ones();
    let at = |size: u64| (size - 1).checked_shr(skipped).unwrap_or(0);
    let (mut old_at, mut new_at) = (at(old_size), at(new_size));
    let (mut old_node, mut new_node) = (start, start);
    for sibling in rest {
        if new_at == 0 {
            return false;
        }
        if old_at & 1 == 1 || old_at == new_at {
            old_node = node_hash(sibling, &old_node);
            new_node = node_hash(sibling, &new_node);
            while old_at & 1 == 0 && old_at != 0 {
                old_at >>= 1;
                new_at >>= 1;
            }
        } else {
            new_node = node_hash(&new_node, sibling);
        }
        old_at >>= 1;
        new_at >>= 1;
    }
    new_at == 0 && old_node == old_root && new_node == new_root
}
