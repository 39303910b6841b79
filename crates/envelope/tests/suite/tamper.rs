//! Attackers who change envelopes, or pass one off as another. Every test first shows that the
//! untouched envelope opens.

use envelope::{
    SigningKey, VerifyError, VerifyingKey,
    keys::role,
    limits::{ENVELOPE_BYTES_MAX, SELF_SIGNED_BYTES_MAX},
    messages::{Command, Report},
    open_enrol_proof, verify,
};
use prost::Message as _;

use crate::{
    samples::{SEED, cases, command, enrol_proof, key, report, seeded},
    wire::{Envelope, field_bytes, signature},
};

#[test]
fn every_changed_byte_is_refused() {
    for case in cases() {
        assert_eq!((case.open)(&case.envelope), Ok(()), "{}", case.payload_type);
        for at in 0..case.envelope.len() {
            for mask in [0x01, 0x08, 0x80, 0xff] {
                let mut changed = case.envelope.clone();
                changed[at] ^= mask;
                assert!((case.open)(&changed).is_err(), "{}: byte {at} ^ {mask:#x}", case.payload_type);
            }
        }
    }
}

#[test]
fn every_cut_and_every_added_byte_is_refused() {
    for case in cases() {
        assert_eq!((case.open)(&case.envelope), Ok(()), "{}", case.payload_type);
        for length in 0..case.envelope.len() {
            assert!((case.open)(&case.envelope[..length]).is_err(), "{}: cut to {length}", case.payload_type);
        }
        for byte in 0..=255 {
            let mut longer = case.envelope.clone();
            longer.push(byte);
            assert!((case.open)(&longer).is_err(), "{}: {byte} added", case.payload_type);
        }
    }
}

#[test]
fn no_message_passes_for_another() {
    for (at, case) in cases().iter().enumerate() {
        for (other_at, other) in cases().iter().enumerate() {
            let opened = (other.open)(&case.envelope);
            if at == other_at {
                assert_eq!(opened, Ok(()));
                continue;
            }
            // As it is, at another door whose key is the very same.
            let why = opened.expect_err("another type");
            let by_type = why.contains("type: expected") || why.contains("expected application/vnd");
            // A message of one kind that brings its own key is not even readable as the other.
            let unreadable = why.contains("not well-formed");
            // Larger than such a message may be.
            let too_large = why.contains("size: ");
            assert!(by_type || unreadable || too_large || why.contains("not acceptable"), "{why}");

            // Renamed: the type is signed.
            let mut renamed = Envelope::of(&case.envelope);
            renamed.payload_type = other.payload_type.to_owned();
            assert!((other.open)(&renamed.bytes()).is_err(), "{} as {}", case.payload_type, other.payload_type);
            // And back at its own door.
            assert!((case.open)(&renamed.bytes()).is_err(), "{} as {}", case.payload_type, other.payload_type);
        }
    }
}

#[test]
fn payload_types_are_distinct() {
    let mut types: Vec<_> = cases().iter().map(|case| case.payload_type).collect();
    types.sort_unstable();
    types.dedup();
    assert_eq!(types.len(), cases().len());
    assert!(types.iter().all(|name| name.starts_with("application/vnd.serverflow.") && name.ends_with(".v1")));
}

#[test]
fn the_same_bytes_signed_without_the_type_are_refused() {
    let payload = Envelope::of(key::<role::Command>().sign(&command()).envelope()).payload;
    let keys = [key::<role::Command>().verifying()];
    let right = Envelope::signed(&SEED, "application/vnd.serverflow.command.v1", payload.clone());
    assert!(verify::<Command>(&right.bytes(), &keys).is_ok());
    let mut bare = right;
    use ed25519_dalek::Signer as _;
    bare.signatures[0].signature = ed25519_dalek::SigningKey::from_bytes(&SEED).sign(&payload).to_bytes().to_vec();
    let refused = verify::<Command>(&bare.bytes(), &keys);
    assert_eq!(refused.err(), Some(VerifyError::BadSignature { key: keys[0].key_id() }));
}

#[test]
fn a_stranger_is_refused_whatever_key_id_it_claims() {
    let trusted = [key::<role::Command>().verifying(), seeded::<role::Command>(2).verifying()];
    let signed = key::<role::Command>().sign(&command());
    assert!(verify::<Command>(signed.envelope(), &trusted).is_ok());
    // No keys: nothing verifies.
    let none: [VerifyingKey<role::Command>; 0] = [];
    assert!(matches!(verify::<Command>(signed.envelope(), &none), Err(VerifyError::NoKey { .. })));
    // Its own key id: unknown.
    let stranger = SigningKey::<role::Command>::from_seed(&[9; 32]).sign(&command());
    assert!(matches!(verify::<Command>(stranger.envelope(), &trusted), Err(VerifyError::NoKey { .. })));
    // A trusted key's id.
    let mut claimed = Envelope::of(stranger.envelope());
    claimed.signatures[0].key_id = trusted[0].key_id().as_bytes().to_vec();
    let refused = verify::<Command>(&claimed.bytes(), &trusted);
    assert_eq!(refused.err(), Some(VerifyError::BadSignature { key: trusted[0].key_id() }));
    // A good signature under an unknown id is not tried with other keys.
    let mut hidden = Envelope::of(signed.envelope());
    hidden.signatures[0].key_id = vec![0; 16];
    assert!(matches!(verify::<Command>(&hidden.bytes(), &trusted), Err(VerifyError::NoKey { .. })));
}

#[test]
fn exactly_one_signature_is_needed() {
    let keys = [key::<role::Agent>().verifying(), seeded::<role::Agent>(2).verifying()];
    let one = Envelope::of(key::<role::Agent>().sign(&report()).envelope());
    assert!(verify::<Report>(&one.bytes(), &keys).is_ok());
    let mut none = one.clone();
    none.signatures.clear();
    assert_eq!(verify::<Report>(&none.bytes(), &keys).err(), Some(VerifyError::SignatureCount { count: 0 }));
    let mut two = one.clone();
    two.signatures.push(signature(&[2; 32], &two.payload_type, &two.payload));
    two.signatures.sort_by(|a, b| a.key_id.cmp(&b.key_id));
    assert_eq!(verify::<Report>(&two.bytes(), &keys).err(), Some(VerifyError::SignatureCount { count: 2 }));
    let mut twice = one;
    twice.signatures.push(twice.signatures[0].clone());
    assert_eq!(verify::<Report>(&twice.bytes(), &keys).err(), Some(VerifyError::Malformed));
}

#[test]
fn unknown_fields_of_the_envelope_are_refused() {
    let keys = [key::<role::Agent>().verifying()];
    let good = key::<role::Agent>().sign(&report()).into_envelope();
    assert!(verify::<Report>(&good, &keys).is_ok());
    for number in [4, 1000] {
        let mut more = good.clone();
        more.extend(field_bytes(number, b"more"));
        assert_eq!(verify::<Report>(&more, &keys).err(), Some(VerifyError::Malformed));
    }
}

#[test]
fn size_is_judged_before_anything_else() {
    let keys = [key::<role::Command>().verifying()];
    let oversize = vec![0; ENVELOPE_BYTES_MAX + 1];
    let (length, max) = (oversize.len(), ENVELOPE_BYTES_MAX);
    assert_eq!(verify::<Command>(&oversize, &keys).err(), Some(VerifyError::TooLarge { length, max }));
    assert_eq!(verify::<Command>(&oversize[1..], &keys).err(), Some(VerifyError::Malformed));
    let (length, max) = (SELF_SIGNED_BYTES_MAX + 1, SELF_SIGNED_BYTES_MAX);
    assert_eq!(open_enrol_proof(&oversize[..length]).err(), Some(VerifyError::TooLarge { length, max }));
}

#[test]
fn the_largest_legal_command_fits_its_limits() {
    use envelope::{Payload as _, limits, messages::SealedRef};
    let mut large = command();
    large.order.parameters = vec![b' '; limits::PARAMETERS_BYTES_MAX];
    let name = |n: usize| format!("{n:0>width$}", width = limits::SEALED_NAME_BYTES_MAX);
    large.order.sealed =
        (0..limits::SEALED_COUNT_MAX).map(|n| SealedRef { name: name(n), sha256: ids::Sha256([1; 32]) }).collect();
    let keys = [key::<role::Command>().verifying()];
    let signed = key::<role::Command>().sign(&large);
    assert_eq!(verify::<Command>(signed.envelope(), &keys).map(|it| it.into_value()), Ok(large.clone()));
    assert_eq!(large.check(), Ok(()));
    large.order.parameters.push(b' ');
    assert!(large.check().is_err());
    let refused = verify::<Command>(key::<role::Command>().sign(&large).envelope(), &keys);
    assert!(matches!(refused, Err(VerifyError::Content { .. })), "{refused:?}");
}

#[test]
fn a_key_the_message_brings_must_be_acceptable_and_sign() {
    let proof = enrol_proof();
    let good = key::<role::Agent>().sign(&proof);
    let opened = open_enrol_proof(good.envelope()).expect("a good proof");
    assert_eq!((*opened).clone(), proof);
    assert_eq!(opened.key_id(), envelope::key_id(&proof.identity_key));
    // Somebody else's key inside.
    let mut other = proof.clone();
    other.identity_key = seeded::<role::Agent>(5).public();
    assert!(matches!(open_enrol_proof(key::<role::Agent>().sign(&other).envelope()), Err(VerifyError::NoKey { .. })));
    // The neutral element, under which a signature by nobody verifies elsewhere.
    let mut weak = proof;
    weak.identity_key.0 = [0; 32];
    weak.identity_key.0[0] = 1;
    let mut forged = Envelope::of(key::<role::Agent>().sign(&weak).envelope());
    forged.signatures[0].key_id = envelope::key_id(&weak.identity_key).as_bytes().to_vec();
    forged.signatures[0].signature = vec![0; 64];
    forged.signatures[0].signature[0] = 1;
    assert!(matches!(open_enrol_proof(&forged.bytes()), Err(VerifyError::Key { .. })));
}

#[test]
fn what_is_verified_is_what_was_signed() {
    let signed = key::<role::Command>().sign(&command());
    let verified = verify::<Command>(signed.envelope(), &[key::<role::Command>().verifying()]).expect("verifies");
    assert_eq!(*verified, *signed.value());
    assert_eq!(verified.payload_sha256(), signed.payload_sha256());
    assert_eq!(verified.payload_sha256(), ids::sha256(&Envelope::of(signed.envelope()).payload));
    assert_eq!(verified.envelope(), signed.envelope());
    assert_eq!(verified.key_id(), signed.key_id());
    assert_eq!(Envelope::of(signed.envelope()).encode_to_vec(), signed.envelope());
}
