//! The files that root metadata travels in between the keepers of its keys, and to a host out of reach.
#![no_main]

use envelope::root::{RootFile, RootKeys};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(file) = RootFile::read(bytes) {
        let written = file.write().expect("what was read can be written");
        let again = RootFile::read(written.as_bytes()).and_then(|again| again.write());
        assert!(again.is_ok_and(|again| again == written), "the same again");
    }
    if let Ok(keys) = RootKeys::read(bytes) {
        let written = keys.write().expect("what was read can be written");
        let again = RootKeys::read(written.as_bytes()).and_then(|again| again.write());
        assert!(again.is_ok_and(|again| again == written), "the same again");
    }
});
