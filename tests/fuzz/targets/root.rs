//! Root metadata, which is decoded before its threshold can be counted: from anybody, and signed by a key it may list.
#![no_main]

use envelope::{
    SigningKey,
    keys::role::Root,
    root::{ROOT_TYPE, TrustedRoot},
};
use serverflow_fuzz::{SEED, signed};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let key = SigningKey::<Root>::from_seed(&SEED).public();
    for envelope in [bytes.to_vec(), signed(ROOT_TYPE, bytes)] {
        let pinned = TrustedRoot::pin_key(&envelope, key);
        let stored = TrustedRoot::from_stored(&[&envelope]);
        if let Ok(root) = pinned {
            assert_eq!(Ok(&root), stored.as_ref(), "what is pinned can be stored");
            assert_eq!(root.chain(), [envelope.clone()]);
            assert!(root.clone().advance(&envelope).is_err(), "a version does not follow itself");
        }
    }
});
