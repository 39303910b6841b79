//! Bytes from anybody, at the door of every message. Whatever opens was signed in just this form: Ed25519 is
//! deterministic, so the same message signed again is the same envelope.
#![no_main]

use serverflow_fuzz::DOORS;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let opened: Vec<_> = DOORS.iter().filter_map(|door| (door.open)(bytes).ok()).collect();
    assert!(opened.len() <= 1, "one message opened at {} doors", opened.len());
    for again in opened {
        assert_eq!(again, bytes, "two forms of one message");
    }
});
