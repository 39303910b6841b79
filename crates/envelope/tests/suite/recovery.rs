//! Recovery copies: the owner's key opens them where they belong, and new owner keys need no value sealed anew.

use envelope::{
    limits,
    messages::SealingKeyBytes,
    recovery::{RecoveryContext, RecoveryCopy, RecoveryError, check_wrapped, recovery_copy},
    seal::{SealError, SealingSecretKey},
};
use proptest::prelude::*;
use zeroize::Zeroizing;

use crate::{samples::id, seal::CountingRng};

const CONTEXT: fn() -> RecoveryContext<'static> = || RecoveryContext { fleet: id(1), app: "shop", version: id(3) };

fn owner(number: u8) -> SealingSecretKey {
    SealingSecretKey::from_bytes(&[number; 32])
}

fn made(owners: &[u8]) -> RecoveryCopy {
    let keys: Vec<SealingKeyBytes> = owners.iter().map(|number| owner(*number).public()).collect();
    let secrets: [(&str, &[u8]); 2] = [("db/environment/PASSWORD", b"hunter2"), ("web/environment/EMPTY", b"")];
    recovery_copy(&keys, &CONTEXT(), secrets, &Zeroizing::new([5; 32]), &mut CountingRng(0)).expect("a copy")
}

#[test]
fn every_owner_key_opens_a_copy_in_its_place_and_no_other_key_does() {
    let copy = made(&[1, 2]);
    copy.check().expect("well formed");
    for number in [1, 2] {
        let opened = copy.open(&owner(number), &CONTEXT()).expect("opens");
        assert_eq!(opened["db/environment/PASSWORD"].as_slice(), b"hunter2");
        assert_eq!(opened["web/environment/EMPTY"].as_slice(), b"");
    }
    assert_eq!(copy.open(&owner(3), &CONTEXT()), Err(RecoveryError::NotSealedTo(owner(3).public())));
    let elsewhere = [
        RecoveryContext { fleet: id(9), ..CONTEXT() },
        RecoveryContext { app: "shoq", ..CONTEXT() },
        RecoveryContext { version: id(9), ..CONTEXT() },
    ];
    for context in elsewhere {
        let refused = copy.open(&owner(1), &context);
        assert!(matches!(refused, Err(RecoveryError::Seal(SealError::Open { .. }))), "{context:?}: {refused:?}");
    }
}

#[test]
fn values_cannot_change_places_and_no_byte_can_change() {
    let copy = made(&[1]);
    let mut swapped = copy.clone();
    let (one, other) = (copy.values[0].bytes.clone(), copy.values[1].bytes.clone());
    (swapped.values[0].bytes, swapped.values[1].bytes) = (other, one);
    assert!(swapped.open(&owner(1), &CONTEXT()).is_err());
    for at in 0..copy.values[0].bytes.len() {
        let mut changed = copy.clone();
        changed.values[0].bytes[at] ^= 1;
        assert!(changed.open(&owner(1), &CONTEXT()).is_err(), "byte {at} of a value");
    }
    for at in 0..copy.keys[0].bytes.len() {
        let mut changed = copy.clone();
        changed.keys[0].bytes[at] ^= 1;
        assert!(changed.open(&owner(1), &CONTEXT()).is_err(), "byte {at} of the key");
    }
}

#[test]
fn a_new_owner_key_opens_what_was_sealed_before_it_and_a_dropped_one_no_longer() {
    let mut copy = made(&[1]);
    let values = copy.values.clone();
    copy.keys = copy
        .rewrapped(&owner(1), &[owner(2).public()], &CONTEXT(), &mut CountingRng(50))
        .expect("the old key opens it");
    assert_eq!(copy.values, values);
    let opened = copy.open(&owner(2), &CONTEXT()).expect("opens");
    assert_eq!(opened["db/environment/PASSWORD"].as_slice(), b"hunter2");
    assert_eq!(copy.open(&owner(1), &CONTEXT()), Err(RecoveryError::NotSealedTo(owner(1).public())));
    let stranger = copy.rewrapped(&owner(1), &[owner(1).public()], &CONTEXT(), &mut CountingRng(60));
    assert_eq!(stranger, Err(RecoveryError::NotSealedTo(owner(1).public())));
}

#[test]
fn copies_for_nobody_and_malformed_ones_are_refused() {
    let nobody = recovery_copy(&[], &CONTEXT(), [("a", &b"x"[..])], &Zeroizing::new([5; 32]), &mut CountingRng(0));
    assert_eq!(nobody, Err(RecoveryError::NoKeys));
    let weak = recovery_copy(
        &[SealingKeyBytes([0; 32])],
        &CONTEXT(),
        [("a", &b"x"[..])],
        &Zeroizing::new([5; 32]),
        &mut CountingRng(0),
    );
    assert!(matches!(weak, Err(RecoveryError::Seal(SealError::Key { .. }))));
    let good = made(&[1, 2]);
    let mut bad = vec![];
    for change in [
        |copy: &mut RecoveryCopy| copy.keys.clear(),
        |copy: &mut RecoveryCopy| copy.keys[1] = copy.keys[0].clone(),
        |copy: &mut RecoveryCopy| copy.keys[0].bytes.truncate(79),
        |copy: &mut RecoveryCopy| copy.values.clear(),
        |copy: &mut RecoveryCopy| copy.values.swap(0, 1),
        |copy: &mut RecoveryCopy| copy.values[1] = copy.values[0].clone(),
        |copy: &mut RecoveryCopy| copy.values[0].bytes = vec![0; limits::SEALED_TOTAL_BYTES_MAX],
        |copy: &mut RecoveryCopy| copy.values[0].name = "a".repeat(limits::SEALED_NAME_BYTES_MAX + 1),
    ] {
        let mut copy = good.clone();
        change(&mut copy);
        bad.push(copy);
    }
    for copy in bad {
        assert!(matches!(copy.check(), Err(RecoveryError::Malformed(_))), "{:?}", copy.keys.len());
    }
    assert_eq!(check_wrapped(&good.keys), Ok(()));
}

proptest! {
    #[test]
    fn whatever_was_sealed_comes_back(
        secrets in proptest::collection::btree_map("[a-z]{1,8}/environment/[A-Z_]{1,16}", proptest::collection::vec(any::<u8>(), 0..200), 1..6),
        owners in proptest::collection::btree_set(1u8..250, 1..5),
        seed in any::<[u8; 32]>(),
    ) {
        let keys: Vec<SealingKeyBytes> = owners.iter().map(|number| owner(*number).public()).collect();
        let given = secrets.iter().map(|(name, value)| (name.as_str(), value.as_slice()));
        let copy = recovery_copy(&keys, &CONTEXT(), given, &Zeroizing::new(seed), &mut CountingRng(1)).expect("a copy");
        prop_assert_eq!(copy.check(), Ok(()));
        for number in owners {
            let opened = copy.open(&owner(number), &CONTEXT()).expect("opens");
            let opened: std::collections::BTreeMap<_, _> = opened.into_iter().map(|(name, value)| (name, value.to_vec())).collect();
            prop_assert_eq!(&opened, &secrets);
        }
    }
}
