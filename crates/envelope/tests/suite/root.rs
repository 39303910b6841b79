//! The chain of root metadata: what is accepted, and every way of being refused.

use envelope::{
    SigningKey,
    keys::role::Root,
    messages::{PublicKeyBytes, RootMetadata},
    root::{RootError, TrustedRoot, check_structure, sign_root},
};
use ids::{DurationMs, Epoch, RootVersion, Sha256};

use crate::{
    samples::{NOW, id, root_metadata, sealing_key, seeded},
    wire::{Envelope, signature},
};

fn root(n: u8) -> SigningKey<Root> {
    seeded(n)
}

fn public(n: u8) -> PublicKeyBytes {
    root(n).public()
}

/// Version `version` with these root keys.
fn metadata(version: u64, keys: &[u8], threshold: u32) -> RootMetadata {
    RootMetadata {
        version: RootVersion(version),
        root_keys: keys.iter().map(|&n| public(n)).collect(),
        root_threshold: threshold,
        ..root_metadata()
    }
}

fn signed(metadata: &RootMetadata, by: &[u8]) -> Vec<u8> {
    let keys: Vec<_> = by.iter().map(|&n| root(n)).collect();
    sign_root(&keys.iter().collect::<Vec<_>>(), metadata)
}

/// Two of three, pinned.
fn pinned() -> TrustedRoot {
    let first = metadata(1, &[1, 2, 3], 2);
    let envelope = signed(&first, &[1, 2]);
    let hash = ids::sha256(&Envelope::of(&envelope).payload);
    TrustedRoot::pin(&envelope, hash).expect("a good first version")
}

fn threshold(error: Result<RootVersion, RootError>) -> Option<(u64, usize, u32)> {
    match error {
        Err(RootError::Threshold { by, valid, needed, .. }) => Some((by.0, valid, needed)),
        _ => None,
    }
}

#[test]
fn a_chain_is_followed_one_version_at_a_time() {
    let mut trusted = pinned();
    // Keys rotate: version 2 has 3, 4, 5; both thresholds are met by 2, 3, 4.
    let second = signed(&metadata(2, &[3, 4, 5], 2), &[2, 3, 4]);
    let candidate = trusted.preview(&second).expect("a good second version");
    assert_eq!(trusted.version(), RootVersion(1), "a preview changes nothing");
    assert_eq!(candidate.envelope(), second);
    assert_eq!(trusted.apply(candidate.clone()), Ok(RootVersion(2)));
    assert_eq!(trusted.payload_sha256(), candidate.payload_sha256());
    assert_eq!(trusted.current(), candidate.metadata());
    // The same candidate does not apply twice.
    assert_eq!(trusted.apply(candidate), Err(RootError::StaleCandidate { found: RootVersion(2) }));
    let third = signed(&metadata(3, &[4], 1), &[4, 5]);
    assert_eq!(trusted.advance(&third), Ok(RootVersion(3)));

    assert_eq!(trusted.chain().len(), 3);
    assert_eq!(trusted.chain_above(RootVersion(0)).len(), 3);
    assert_eq!(trusted.chain_above(RootVersion(1)), [second, third.clone()]);
    assert_eq!(trusted.chain_above(RootVersion(2)), [third]);
    assert!(trusted.chain_above(RootVersion(3)).is_empty());
    assert!(trusted.chain_above(RootVersion(9)).is_empty());
    assert_eq!(TrustedRoot::from_stored(trusted.chain()).as_ref(), Ok(&trusted));
}

#[test]
fn versions_cannot_be_skipped_repeated_or_taken_back() {
    let mut trusted = pinned();
    let second = signed(&metadata(2, &[1, 2, 3], 2), &[1, 2]);
    let third = signed(&metadata(3, &[1, 2, 3], 2), &[1, 2]);
    let not_next =
        |current, found| Err(RootError::NotNext { current: RootVersion(current), found: RootVersion(found) });
    assert_eq!(trusted.advance(&third), not_next(1, 3));
    assert_eq!(trusted.advance(&second), Ok(RootVersion(2)));
    assert_eq!(trusted.advance(&second), not_next(2, 2));
    assert_eq!(trusted.advance(&signed(&metadata(1, &[1, 2, 3], 2), &[1, 2])), not_next(2, 1));
    assert_eq!(trusted.advance(&third), Ok(RootVersion(3)));
}

#[test]
fn both_thresholds_must_be_met_by_distinct_keys() {
    let next = metadata(2, &[3, 4, 5], 2);
    let advance = |envelope: &[u8]| pinned().advance(envelope);
    assert_eq!(advance(&signed(&next, &[1, 2, 4, 5])), Ok(RootVersion(2)));
    assert_eq!(advance(&signed(&next, &[2, 3, 4])), Ok(RootVersion(2)), "key 3 counts for both");
    assert_eq!(threshold(advance(&signed(&next, &[3, 4, 5]))), Some((1, 1, 2)), "old threshold");
    assert_eq!(threshold(advance(&signed(&next, &[1, 2, 3]))), Some((2, 1, 2)), "new threshold");
    assert_eq!(threshold(advance(&signed(&next, &[7, 8, 9]))), Some((1, 0, 2)), "strangers");
    assert_eq!(threshold(advance(&signed(&next, &[]))), Some((1, 0, 2)), "nobody");
    // The library signs once for a key given twice.
    assert_eq!(threshold(advance(&signed(&next, &[1, 1, 4, 5]))), Some((1, 1, 2)));
}

#[test]
fn one_signature_is_not_counted_twice() {
    let next = metadata(2, &[1, 2, 3], 2);
    let good = Envelope::of(&signed(&next, &[1, 2]));
    assert_eq!(pinned().advance(&good.bytes()), Ok(RootVersion(2)));
    // Key 1's signature, again.
    let mut twice = Envelope::of(&signed(&next, &[1]));
    twice.signatures.push(twice.signatures[0].clone());
    assert!(matches!(pinned().advance(&twice.bytes()), Err(RootError::Envelope { .. })));
    // Key 1's signature under key 2's id.
    let mut relabelled = Envelope::of(&signed(&next, &[1]));
    let mut copy = relabelled.signatures[0].clone();
    copy.key_id = root(2).key_id().as_bytes().to_vec();
    relabelled.signatures.push(copy);
    relabelled.signatures.sort_by(|a, b| a.key_id.cmp(&b.key_id));
    assert_eq!(threshold(pinned().advance(&relabelled.bytes())), Some((1, 1, 2)));
    // Signatures in another order than the one form.
    let mut reordered = good;
    reordered.signatures.reverse();
    assert!(matches!(pinned().advance(&reordered.bytes()), Err(RootError::Envelope { .. })));
}

#[test]
fn only_root_keys_count() {
    let next = metadata(2, &[1, 2, 3], 2);
    let mut envelope = Envelope::of(&signed(&next, &[1, 2]));
    assert_eq!(pinned().advance(&envelope.bytes()), Ok(RootVersion(2)));
    // Seed 22 is a command key of the same metadata.
    envelope.signatures.retain(|signature| signature.key_id == root(1).key_id().as_bytes());
    envelope.signatures.push(signature(&[22; 32], &envelope.payload_type, &envelope.payload));
    envelope.signatures.sort_by(|a, b| a.key_id.cmp(&b.key_id));
    assert_eq!(threshold(pinned().advance(&envelope.bytes())), Some((1, 1, 2)));
}

#[test]
fn another_fleet_and_a_lower_epoch_are_refused() {
    let good = metadata(2, &[1, 2, 3], 2);
    assert_eq!(pinned().advance(&signed(&good, &[1, 2])), Ok(RootVersion(2)));
    let foreign = RootMetadata { fleet: id(99), ..good.clone() };
    let refused = pinned().advance(&signed(&foreign, &[1, 2]));
    assert_eq!(refused, Err(RootError::OtherFleet { expected: id(1), found: id(99) }));
    let lowered = RootMetadata { epoch: Epoch(2), ..good };
    let refused = pinned().advance(&signed(&lowered, &[1, 2]));
    assert_eq!(refused, Err(RootError::EpochLowered { current: Epoch(3), found: Epoch(2) }));
}

#[test]
fn the_pin_decides_where_a_chain_begins() {
    let envelope = signed(&metadata(5, &[1, 2, 3], 2), &[1, 2]);
    let hash = ids::sha256(&Envelope::of(&envelope).payload);
    assert_eq!(TrustedRoot::pin(&envelope, hash).map(|root| root.version()), Ok(RootVersion(5)));
    let pinned = Sha256([0; 32]);
    assert_eq!(TrustedRoot::pin(&envelope, pinned), Err(RootError::NotPinned { pinned, found: hash }));
    // The right bytes, too few signatures.
    let unsigned = signed(&metadata(5, &[1, 2, 3], 2), &[1]);
    assert!(matches!(TrustedRoot::pin(&unsigned, hash), Err(RootError::Threshold { valid: 1, .. })));
    // Signatures by keys of the version before do not hurt.
    let rotated = signed(&metadata(5, &[1, 2, 3], 2), &[1, 2, 8, 9]);
    assert!(TrustedRoot::pin(&rotated, hash).is_ok());
}

#[test]
fn a_root_key_in_hand_opens_version_one_only() {
    let first = signed(&metadata(1, &[1, 2, 3], 2), &[1, 2]);
    assert!(TrustedRoot::pin_key(&first, public(1)).is_ok());
    assert!(matches!(TrustedRoot::pin_key(&first, public(3)), Err(RootError::Threshold { .. })), "did not sign");
    assert!(matches!(TrustedRoot::pin_key(&first, public(9)), Err(RootError::Threshold { .. })), "is not a root key");
    let with_stranger = signed(&metadata(1, &[1, 2, 3], 2), &[1, 2, 9]);
    assert!(TrustedRoot::pin_key(&with_stranger, public(1)).is_ok());
    let refused = TrustedRoot::pin_key(&with_stranger, public(9));
    assert!(matches!(refused, Err(RootError::Threshold { .. })), "signed, and still is not a root key");
    let lone = signed(&metadata(1, &[1, 2, 3], 2), &[1]);
    assert!(matches!(TrustedRoot::pin_key(&lone, public(1)), Err(RootError::Threshold { valid: 1, .. })));
    let later = signed(&metadata(2, &[1, 2, 3], 2), &[1, 2]);
    assert_eq!(TrustedRoot::pin_key(&later, public(1)), Err(RootError::NotFirst { found: RootVersion(2) }));
}

#[test]
fn a_stored_chain_is_verified_again() {
    let empty: [&[u8]; 0] = [];
    assert!(matches!(TrustedRoot::from_stored(&empty), Err(RootError::ChainLength { length: 0, .. })));
    let first = signed(&metadata(1, &[1, 2, 3], 2), &[1, 2]);
    let second = signed(&metadata(2, &[1, 2, 3], 2), &[1, 2]);
    assert!(TrustedRoot::from_stored(&[&first, &second]).is_ok());
    assert!(TrustedRoot::from_stored(&[&second, &first]).is_err());
    assert!(TrustedRoot::from_stored(&[&first, &signed(&metadata(2, &[1, 2, 3], 2), &[1])]).is_err());
}

#[test]
fn only_the_last_version_is_judged_for_expiry() {
    let mut trusted = pinned();
    let year = DurationMs::from_days(365);
    let renewed = RootMetadata {
        // Issued by a clock that was behind: the floor does not fall back.
        issued: NOW.minus(year),
        expires: NOW.plus(year).plus(year),
        ..metadata(2, &[1, 2, 3], 2)
    };
    let late = NOW.plus(DurationMs::from_days(401));
    assert!(!trusted.is_expired(NOW.plus(DurationMs::from_days(400))));
    assert!(trusted.is_expired(late));
    assert_eq!(trusted.advance(&signed(&renewed, &[1, 2])), Ok(RootVersion(2)), "expired is no reason to stay");
    assert!(!trusted.is_expired(late));
    assert_eq!(trusted.issued_floor(), NOW);
}

/// Each edit breaks one rule; unedited, the metadata keeps them all.
#[test]
fn structure_is_checked_rule_by_rule() {
    type Edit = fn(&mut RootMetadata);
    assert_eq!(check_structure(&root_metadata()), Ok(()));
    let edits: [(&str, Edit); 24] = [
        ("versions begin", |root| root.version = RootVersion(0)),
        ("expire after", |root| root.expires = root.issued),
        ("one root key", |root| root.root_keys.clear()),
        ("at least 1", |root| root.root_threshold = 0),
        ("not exceed the number of root keys", |root| root.root_threshold = 2),
        ("not exceed the number of root keys", |root| root.root_threshold = u32::MAX),
        ("one session key", |root| root.session_keys.clear()),
        ("one command key", |root| root.command_keys.clear()),
        ("approval threshold", |root| root.approvals.destructive = 3),
        ("approval threshold", |root| root.approver_keys.clear()),
        ("two TLS pins", |root| root.tls_pins.truncate(1)),
        ("pin is listed twice", |root| root.tls_pins[1] = root.tls_pins[0]),
        ("one address", |root| root.addresses.clear()),
        ("host:port", |root| root.addresses[0] = "control.example".into()),
        ("another log", |root| root.audit_log = root.restored_log.expect("one").log),
        ("two roles", |root| root.session_keys[0] = root.command_keys[0]),
        ("two roles", |root| root.command_keys[0] = root.root_keys[0]),
        ("two roles", |root| root.approver_keys[0] = root.session_keys[0]),
        ("two roles", |root| root.audit_key = root.command_keys[1]),
        ("listed twice", |root| root.command_keys[1] = root.command_keys[0]),
        ("listed twice", |root| root.recovery_keys.push(root.recovery_keys[0])),
        ("limit", |root| root.tls_pins = (0..17).map(|n| Sha256([n; 32])).collect()),
        ("limit", |root| root.command_keys = (100..117).map(|n| seeded::<Root>(n).public()).collect()),
        ("limit", |root| root.recovery_keys = (100..117).map(sealing_key).collect()),
    ];
    for (rule, edit) in edits {
        let mut edited = root_metadata();
        edit(&mut edited);
        let error = check_structure(&edited).expect_err(rule);
        let named = error.to_string().contains(rule) || (rule == "limit" && matches!(error, RootError::Content { .. }));
        assert!(named, "expected {rule}, found {error}");
        // And no signature helps.
        let envelope = sign_root(&[&crate::samples::key()], &edited);
        let hash = ids::sha256(&Envelope::of(&envelope).payload);
        assert_eq!(TrustedRoot::pin(&envelope, hash), Err(error));
    }
}

#[test]
fn keys_come_with_the_version() {
    let trusted = pinned();
    let current = root_metadata();
    assert_eq!(trusted.session_keys().iter().map(|key| key.bytes()).collect::<Vec<_>>(), current.session_keys);
    assert_eq!(trusted.command_keys().iter().map(|key| key.bytes()).collect::<Vec<_>>(), current.command_keys);
    assert_eq!(trusted.approver_keys().iter().map(|key| key.bytes()).collect::<Vec<_>>(), current.approver_keys);
    assert_eq!(trusted.audit_key().bytes(), current.audit_key);
}
