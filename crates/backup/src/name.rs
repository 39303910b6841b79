//! Names of pieces: relative paths of few, plain words, so that none can lead out of the directory it is unpacked into.

use crate::limits;

/// Whether a piece may be called that: words of `a-z`, `A-Z`, `0-9`, `.`, `_`, `-`, joined by `/`; none begins with a dot.
#[must_use]
pub fn is_name(name: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let is_word = |word: &str| !word.is_empty() && !word.starts_with('.') && word.chars().all(is_plain);
    name.len() <= limits::NAME_BYTES_MAX && name.split('/').all(is_word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_stays_below_its_directory() {
        for name in ["serverflow.db", "keys/tls-next.key.pem", "signer/keys/0a1b.key.pem"] {
            assert!(is_name(name), "{name}");
        }
        let long = "a".repeat(limits::NAME_BYTES_MAX + 1);
        for name in ["", "/", "/etc/passwd", "a//b", "a/", "..", "a/../b", ".hidden", "a/.b", "a b", "a\0b", "ä", &long]
        {
            assert!(!is_name(name), "{name:?}");
        }
    }
}
