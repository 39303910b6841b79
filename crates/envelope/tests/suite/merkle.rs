//! The audit tree against the reference tree of Certificate Transparency, and against itself.

use data_encoding::HEXLOWER;
use envelope::{
    audit::{AuditKind, AuditLeaf, LEAF_BYTES, LeafError},
    merkle::{
        Frontier, Node, consistency_proof, consistency_proof_of, empty_root, inclusion_proof, join, leaf_hash, peaks,
        root, root_of_peaks, verify_consistency, verify_inclusion,
    },
};
use ids::{Sha256, UnixMs, sha256};
use proptest::prelude::*;

/// The eight leaves Certificate Transparency's own tests use.
fn reference_leaves() -> Vec<Sha256> {
    let leaves = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"];
    leaves.iter().map(|hex| leaf_hash(&HEXLOWER.decode(hex.as_bytes()).expect("hexadecimal"))).collect()
}

const REFERENCE_ROOTS: [&str; 8] = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
];

fn hex(hashes: &[Sha256]) -> Vec<String> {
    hashes.iter().map(ToString::to_string).collect()
}

#[test]
fn roots_match_the_reference_tree() {
    assert_eq!(empty_root().to_string(), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    assert_eq!(Frontier::new().root(), empty_root());
    let leaves = reference_leaves();
    let mut frontier = Frontier::new();
    for (count, expected) in (1..).zip(REFERENCE_ROOTS) {
        frontier.append(leaves[count - 1]).expect("room");
        assert_eq!(root(&leaves[..count]).to_string(), expected);
        assert_eq!(frontier.root().to_string(), expected);
        assert_eq!(frontier.size(), count as u64);
    }
}

#[test]
fn proofs_match_the_reference_tree() {
    let leaves = reference_leaves();
    let inclusion = |index, size: usize| hex(&inclusion_proof(&leaves[..size], index).expect("a leaf"));
    assert!(inclusion(0, 1).is_empty());
    let first_of_eight = [
        "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
    ];
    assert_eq!(inclusion(0, 8), first_of_eight);
    assert_eq!(
        inclusion(5, 8),
        [
            "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
            "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        ]
    );
    assert_eq!(inclusion(2, 3), [REFERENCE_ROOTS[1]]);
    let consistency = |old, new: usize| hex(&consistency_proof(&leaves[..new], old).expect("a smaller tree"));
    assert!(consistency(1, 1).is_empty());
    assert_eq!(consistency(1, 8), first_of_eight);
    assert_eq!(
        consistency(6, 8),
        [
            "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
            "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        ]
    );
    assert_eq!(
        consistency(2, 5),
        [
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        ]
    );
}

fn leaves(count: usize) -> Vec<Sha256> {
    (0..count).map(|n| leaf_hash(&n.to_be_bytes())).collect()
}

#[test]
fn every_leaf_of_small_trees_is_provable_and_no_other() {
    for size in 1..=33usize {
        let leaves = leaves(size);
        let tree = root(&leaves);
        for index in 0..size {
            let path = inclusion_proof(&leaves, index as u64).expect("a leaf");
            let holds = |hash, index: usize, size: usize, path: &[Sha256]| {
                verify_inclusion(hash, index as u64, size as u64, path, tree)
            };
            assert!(holds(leaves[index], index, size, &path), "{index} of {size}");
            assert!(!holds(sha256(b"another"), index, size, &path));
            assert!((0..size).all(|other| other == index || !holds(leaves[index], other, size, &path)));
            assert!(!holds(leaves[index], size, size, &path));
            assert!(!holds(leaves[index], index, size, &[&path[..], &[tree]].concat()));
            for at in 0..path.len() {
                let mut changed = path.clone();
                changed[at].0[0] ^= 1;
                assert!(!holds(leaves[index], index, size, &changed));
                assert!(!holds(leaves[index], index, size, &path[..at]));
            }
        }
        assert_eq!(inclusion_proof(&leaves, size as u64), None);
    }
}

#[test]
fn every_beginning_of_small_trees_is_provable_and_no_fork() {
    for new in 1..=33usize {
        let leaves = leaves(new);
        for old in 0..=new {
            let path = consistency_proof(&leaves, old as u64).expect("a beginning");
            let (old_root, new_root) = (root(&leaves[..old]), root(&leaves));
            let holds = |old_root, new_root, path: &[Sha256]| {
                verify_consistency(old as u64, old_root, new as u64, new_root, path)
            };
            assert!(holds(old_root, new_root, &path), "{old} of {new}");
            assert!(!holds(sha256(b"forked"), new_root, &path), "{old} of {new}");
            if 0 < old && old < new {
                let larger = verify_consistency(old as u64, old_root, 4 * new as u64, new_root, &path);
                assert!(!larger, "{old} of {new}: the path is too short for a tree of another height");
            }
            assert!(!holds(old_root, sha256(b"forked"), &path) || old == 0, "{old} of {new}");
            assert!(!holds(old_root, new_root, &[&path[..], &[new_root]].concat()));
            for at in 0..path.len() {
                let mut changed = path.clone();
                changed[at].0[0] ^= 1;
                assert!(!holds(old_root, new_root, &changed), "{old} of {new}, hash {at}");
                assert!(!holds(old_root, new_root, &path[..at]), "{old} of {new}, cut to {at}");
            }
        }
        assert_eq!(consistency_proof(&leaves, new as u64 + 1), None);
        assert!(!verify_consistency(new as u64 + 1, root(&leaves), new as u64, root(&leaves), &[]));
    }
}

/// The root of a full subtree, from the leaves.
fn subtree(leaves: &[Sha256], node: Node) -> Option<Sha256> {
    let width = 1usize << node.level;
    let start = usize::try_from(node.index).ok()? * width;
    leaves.get(start..start + width).map(root)
}

#[test]
fn proofs_from_subtrees_are_those_from_leaves() {
    for new in 0..=70usize {
        let leaves = leaves(new);
        let hashes: Vec<_> = peaks(new as u64).into_iter().map(|node| subtree(&leaves, node).expect("full")).collect();
        assert_eq!(root_of_peaks(&hashes), root(&leaves));
        let frontier = Frontier::from_peaks(new as u64, hashes).expect("they fit");
        assert_eq!((frontier.size(), frontier.root()), (new as u64, root(&leaves)));
        for old in 0..=new + 1 {
            let proof = consistency_proof_of(old as u64, new as u64, |node| subtree(&leaves, node).ok_or(node));
            assert_eq!(proof, Ok(consistency_proof(&leaves, old as u64)), "{old} of {new}");
        }
    }
    let leaves = leaves(16);
    assert_eq!(join(&leaves), root(&leaves));
    assert_eq!(Node { level: 2, index: 3 }.children(), Some([6, 7].map(|index| Node { level: 1, index })));
    assert_eq!(Node { level: 0, index: 3 }.children(), None);
    assert_eq!(Frontier::from_peaks(3, vec![leaves[0]]), None);
}

#[test]
fn a_proof_between_any_sizes_is_short() {
    for (old, new) in
        [(1, u64::MAX), (u64::MAX - 1, u64::MAX), (1 << 63, u64::MAX), (3, 1 << 62), (0x5555, (1 << 63) - 1)]
    {
        let proof =
            consistency_proof_of(old, new, |_| Ok::<_, ()>(Sha256::ZERO)).expect("no failure").expect("smaller");
        assert!(proof.len() <= 64, "{old} of {new}: {}", proof.len());
    }
}

#[test]
fn a_leaf_tells_which_subtrees_it_completes() {
    let leaves = leaves(64);
    let (mut frontier, mut told) = (Frontier::new(), 0);
    for (at, leaf) in leaves.iter().enumerate() {
        let mut levels = 0;
        let tell = |node: Node, hash| {
            assert_eq!(subtree(&leaves[..=at], node), Some(hash), "{node:?} after leaf {at}");
            assert_eq!(node.level, levels);
            levels += 1;
        };
        frontier.append_telling(*leaf, tell).expect("room");
        told += u32::from(levels);
        assert_eq!(frontier.root(), root(&leaves[..=at]));
    }
    assert_eq!(told, 127, "each node of the tree once");
}

#[test]
fn a_rewritten_past_is_not_consistent() {
    let honest = leaves(20);
    let mut rewritten = honest.clone();
    rewritten[3] = sha256(b"another story");
    let path = consistency_proof(&rewritten, 10).expect("a beginning");
    assert!(verify_consistency(10, root(&rewritten[..10]), 20, root(&rewritten), &path));
    assert!(!verify_consistency(10, root(&honest[..10]), 20, root(&rewritten), &path));
}

#[test]
fn a_leaf_keeps_its_bytes() {
    let time = UnixMs(0x0102_0304_0506);
    let leaf = AuditLeaf::new(time, AuditKind::Command, "admin", "host web", Sha256([0xab; 32]));
    let bytes = leaf.encode();
    let words = sha256(b"\x00\x00\x00\x05adminhost web");
    let expected = format!("01{}{}{}{words}", "0016", "0000010203040506", "ab".repeat(32));
    assert_eq!(HEXLOWER.encode(&bytes), expected);
    // Where one word ends and the next begins is hashed too.
    let shifted = AuditLeaf::new(time, AuditKind::Command, "adminh", "ost web", Sha256([0xab; 32]));
    assert_ne!(shifted.leaf_hash(), leaf.leaf_hash());
    assert_eq!(AuditLeaf::decode(&bytes), Ok(leaf));
    assert_eq!(leaf.leaf_hash(), sha256(&[&[0], &bytes[..]].concat()));
    assert_eq!(AuditLeaf::decode(&bytes[1..]), Err(LeafError::Length { length: LEAF_BYTES - 1 }));
    let with = |at: usize, byte: u8| {
        let mut changed = bytes;
        changed[at] = byte;
        AuditLeaf::decode(&changed)
    };
    assert_eq!(with(0, 2), Err(LeafError::Version { version: 2 }));
    assert_eq!(with(1, 0xff), Err(LeafError::Kind { number: 0xff16 }));
}

#[test]
fn kinds_have_stable_distinct_numbers_and_words() {
    let list: Vec<String> = AuditKind::ALL.iter().map(|kind| format!("{} {kind}\n", kind.number())).collect();
    expect_test::expect_file!["golden/audit_kinds.txt"].assert_eq(&list.concat());
    let (mut numbers, mut words): (Vec<_>, Vec<_>) =
        AuditKind::ALL.iter().map(|kind| (kind.number(), kind.as_str())).unzip();
    numbers.dedup();
    words.sort_unstable();
    words.dedup();
    assert_eq!((numbers.len(), words.len()), (AuditKind::ALL.len(), AuditKind::ALL.len()));
    assert!(AuditKind::ALL.iter().all(|kind| AuditKind::from_number(kind.number()) == Some(*kind)));
    assert_eq!(AuditKind::from_number(0), None);
}

proptest! {
    #[test]
    fn a_stored_frontier_goes_on_growing(before in 0usize..200, after in 0usize..50) {
        let leaves = leaves(before + after);
        let mut frontier = Frontier::new();
        for leaf in &leaves[..before] {
            frontier.append(*leaf).expect("room");
        }
        let mut reread = Frontier::from_bytes(&frontier.to_bytes()).expect("a frontier");
        prop_assert_eq!(&reread, &frontier);
        for leaf in &leaves[before..] {
            reread.append(*leaf).expect("room");
        }
        prop_assert_eq!(reread.root(), root(&leaves));
        prop_assert_eq!(reread.size(), leaves.len() as u64);
    }

    #[test]
    fn large_trees_verify(size in 1usize..600, at in any::<prop::sample::Index>(), old in any::<prop::sample::Index>()) {
        let leaves = leaves(size);
        let (index, old) = (at.index(size), old.index(size + 1));
        let tree = root(&leaves);
        let path = inclusion_proof(&leaves, index as u64).expect("a leaf");
        prop_assert!(verify_inclusion(leaves[index], index as u64, size as u64, &path, tree));
        let path = consistency_proof(&leaves, old as u64).expect("a beginning");
        prop_assert!(verify_consistency(old as u64, root(&leaves[..old]), size as u64, tree, &path));
        let from_nodes = consistency_proof_of(old as u64, size as u64, |node| subtree(&leaves, node).ok_or(node));
        prop_assert_eq!(from_nodes, Ok(Some(path)));
    }

    #[test]
    fn readers_never_panic(bytes: Vec<u8>, numbers: (u64, u64), path in prop::collection::vec(any::<[u8; 32]>(), 0..70)) {
        if let Ok(mut frontier) = Frontier::from_bytes(&bytes) {
            prop_assert_eq!(frontier.to_bytes(), bytes.clone());
            let _ = frontier.append(Sha256([0; 32]));
        }
        let _ = AuditLeaf::decode(&bytes);
        let path: Vec<_> = path.into_iter().map(Sha256).collect();
        let zero = Sha256::ZERO;
        prop_assert!(!verify_inclusion(zero, numbers.0, numbers.1, &path, zero));
        if numbers.0 != numbers.1 {
            prop_assert!(!verify_consistency(numbers.0, zero, numbers.1, zero, &path));
        }
    }
}

#[test]
fn a_full_tree_takes_no_more() {
    let full = [u64::MAX.to_be_bytes().to_vec(), vec![7; 64 * 32]].concat();
    let mut frontier = Frontier::from_bytes(&full).expect("a frontier");
    let before = frontier.clone();
    assert!(frontier.append(Sha256([1; 32])).is_err());
    assert_eq!(frontier, before);
    assert!(Frontier::from_bytes(&full[..full.len() - 1]).is_err());
    assert!(Frontier::from_bytes(&full[..full.len() - 32]).is_err());
}
