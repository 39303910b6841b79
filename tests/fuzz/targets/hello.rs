//! An agent's first words, which nobody has signed.
#![no_main]

use envelope::messages::AgentHello;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(hello) = AgentHello::decode(bytes) {
        assert_eq!(hello.encode(), bytes, "two forms of one hello");
    }
});
