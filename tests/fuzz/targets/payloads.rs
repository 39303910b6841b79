//! Authentic rubbish: any payload, signed by the right key. The first byte chooses the message.
#![no_main]

use serverflow_fuzz::{DOORS, signed};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Some((which, payload)) = bytes.split_first() else { return };
    let door = &DOORS[usize::from(*which) % DOORS.len()];
    let envelope = signed(door.payload_type, payload);
    if let Ok(again) = (door.open)(&envelope) {
        assert_eq!(again, envelope, "two forms of one {}", door.payload_type);
    }
});
