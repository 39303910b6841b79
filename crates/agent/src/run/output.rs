//! What a running command says: hashed whole, gathered, and handed on in pieces to whoever watches.
//!
//! The stream is lossy on its way (nobody may be watching, and a slow network must not hold up a
//! deploy); its hash is not. Every text becomes lines that end in a newline, so that the pieces put
//! together are the stream, and a complete one can be checked against the report.

use std::collections::VecDeque;

use ids::Sha256;
use sha2::{Digest as _, Sha256 as Hasher};

use crate::limits;

/// The output of one command.
#[derive(Default)]
pub(super) struct Output {
    hasher: Hasher,
    pending: VecDeque<u8>,
    truncated: bool,
}

impl Output {
    /// Takes a text, already masked.
    pub(super) fn push(&mut self, text: &str) {
        let line = text.strip_suffix('\n').unwrap_or(text);
        for bytes in [line.as_bytes(), b"\n"] {
            self.hasher.update(bytes);
            self.pending.extend(bytes);
        }
        if self.pending.len() > limits::PROGRESS_PENDING_BYTES_MAX {
            self.drop_oldest();
        }
    }

    /// Drops whole lines from the front, so that what is left begins with a line (or with a character,
    /// when one line is longer than all there is room for).
    fn drop_oldest(&mut self) {
        self.truncated = true;
        let excess = self.pending.len() - limits::PROGRESS_PENDING_BYTES_MAX;
        let line_end = self.pending.iter().skip(excess).position(|byte| *byte == b'\n').map(|at| excess + at + 1);
        let character = || (excess..self.pending.len()).find(|at| is_character_start(self.pending[*at]));
        let cut = line_end.filter(|end| *end < self.pending.len()).or_else(character).unwrap_or(excess);
        self.pending.drain(..cut);
    }

    /// Whether there is something to hand on.
    pub(super) fn is_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// The next piece, at most `max` bytes, ending between characters, with a line where possible.
    pub(super) fn take(&mut self, max: usize) -> String {
        let mut end = self.pending.len().min(max);
        if end < self.pending.len() {
            let line = self.pending.iter().take(end).rposition(|byte| *byte == b'\n').map(|at| at + 1);
            let character = || (1..=end).rev().find(|at| is_character_start(self.pending[*at]));
            end = line.or_else(character).unwrap_or(end);
        }
        let piece: Vec<u8> = self.pending.drain(..end).collect();
        String::from_utf8_lossy(&piece).into_owned()
    }

    /// Hash of the whole stream, and whether part of it was never handed on.
    pub(super) fn finish(&self) -> (Sha256, bool) {
        (Sha256(self.hasher.clone().finalize().into()), self.truncated)
    }
}

const fn is_character_start(byte: u8) -> bool {
    byte & 0b1100_0000 != 0b1000_0000
}

#[cfg(test)]
mod tests {
    use ids::sha256;

    use super::*;

    #[test]
    fn pieces_put_together_are_the_stream_that_is_hashed() {
        let mut output = Output::default();
        for text in ["pulling", "ääää\n", "", "done"] {
            output.push(text);
        }
        let mut stream = String::new();
        while output.is_pending() {
            let piece = output.take(6);
            assert!(!piece.is_empty() && piece.len() <= 6, "{piece:?}");
            stream.push_str(&piece);
        }
        assert_eq!(stream, "pulling\nääää\n\ndone\n");
        assert_eq!(output.finish(), (sha256(stream.as_bytes()), false));
    }

    #[test]
    fn the_oldest_lines_go_first_and_it_is_said() {
        let mut output = Output::default();
        let line = "x".repeat(1023);
        for _ in 0..=limits::PROGRESS_PENDING_BYTES_MAX / 1024 {
            output.push(&line);
        }
        output.push("last");
        let kept = output.take(usize::MAX);
        assert!(kept.len() <= limits::PROGRESS_PENDING_BYTES_MAX && kept.ends_with("\nlast\n"));
        assert!(kept.lines().all(|it| it == line || it == "last"), "only whole lines are left");
        assert!(output.finish().1, "truncated");
    }

    #[test]
    fn one_line_longer_than_all_room_is_cut_between_characters() {
        let mut output = Output::default();
        output.push(&"ä".repeat(limits::PROGRESS_PENDING_BYTES_MAX));
        let kept = output.take(usize::MAX);
        assert!(kept.len() <= limits::PROGRESS_PENDING_BYTES_MAX && !kept.contains('\u{fffd}'));
    }
}
