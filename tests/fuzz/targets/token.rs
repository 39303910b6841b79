//! A join token, as somebody pastes it.
#![no_main]

use envelope::token::JoinToken;

libfuzzer_sys::fuzz_target!(|text: &str| {
    if let Ok(token) = JoinToken::parse(text) {
        let again = token.to_text().expect("what was read can be written");
        assert_eq!(again.as_str(), text.trim(), "two forms of one token");
    }
});
