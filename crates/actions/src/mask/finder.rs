//! Many values looked for in a text in one pass.
//!
//! A secret file of some thousand lines is some thousand values, and logs are long: looking for each value
//! by itself would take minutes. Here each place of the text costs one look at a table and, seldom, one
//! binary search, however many values there are. The values are kept once, and nothing is built from them.

use std::collections::BTreeSet;

use zeroize::Zeroizing;

use super::MASKED;
use crate::limits::{MASK_ANYWHERE_CHARS_MIN, MASK_CHARS_MIN};

/// Bits of the table of beginnings.
const TABLE_BITS: u32 = 16;

/// Values, all of them to be found anywhere or all of them only where they stand by themselves.
#[derive(Default)]
pub(super) struct Finder {
    /// Ascending, each once.
    values: Vec<Zeroizing<String>>,
    /// For each value the longest other one that it begins with.
    prefix: Vec<Option<usize>>,
    /// One bit for each hash of a value's first bytes.
    beginnings: Vec<u64>,
}

impl Finder {
    /// Values shorter than the shortest that is ever hidden are left out.
    pub(super) fn new(mut values: Vec<Zeroizing<String>>) -> Self {
        values.retain(|value| value.len() >= MASK_CHARS_MIN);
        values.sort_unstable_by(|a, b| a.as_str().cmp(b.as_str()));
        values.dedup();
        let mut finder =
            Self { prefix: Vec::with_capacity(values.len()), beginnings: vec![0; 1 << (TABLE_BITS - 6)], values };
        let mut open: Vec<usize> = Vec::new();
        for (index, value) in finder.values.iter().enumerate() {
            // In this order, what a value begins with comes before it, and all between the two begins with it as well.
            while open.last().is_some_and(|last| !value.starts_with(finder.values[*last].as_str())) {
                open.pop();
            }
            finder.prefix.push(open.last().copied());
            open.push(index);
            if let Some(bit) = hash(value.as_bytes()) {
                finder.beginnings[bit / 64] |= 1 << (bit % 64);
            }
        }
        finder
    }

    pub(super) fn len(&self) -> usize {
        self.values.len()
    }

    /// Bytes of the longest value.
    pub(super) fn longest(&self) -> usize {
        self.values.iter().map(|value| value.len()).max().unwrap_or_default()
    }

    pub(super) fn contains(&self, text: &str) -> bool {
        self.values.binary_search_by(|value| value.as_str().cmp(text)).is_ok()
    }

    /// Without the values that stand in `text`.
    pub(super) fn without(self, text: &str) -> Self {
        let found: BTreeSet<usize> = (0..text.len()).flat_map(|at| self.values_at(text, at)).collect();
        if found.is_empty() {
            return self;
        }
        let kept = self.values.into_iter().enumerate().filter(|(index, _)| !found.contains(index));
        Self::new(kept.map(|(_, value)| value).collect())
    }

    /// `text` with [`MASKED`] where a value stood; values that overlap are one.
    pub(super) fn masked(&self, text: &str) -> String {
        let mut masked = String::with_capacity(text.len());
        let mut copied = 0;
        let mut hidden: Option<(usize, usize)> = None;
        for at in 0..text.len() {
            let Some(longest) = self.values_at(text, at).next() else { continue };
            let end = at + self.values[longest].len();
            match &mut hidden {
                Some((_, until)) if at < *until => *until = end.max(*until),
                _ => {
                    if let Some((from, until)) = hidden.replace((at, end)) {
                        masked.push_str(&text[copied..from]);
                        masked.push_str(MASKED);
                        copied = until;
                    }
                }
            }
        }
        if let Some((from, until)) = hidden {
            masked.push_str(&text[copied..from]);
            masked.push_str(MASKED);
            copied = until;
        }
        masked.push_str(&text[copied..]);
        masked
    }

    /// The values that stand in `text` at this byte, longest first.
    fn values_at<'a>(&'a self, text: &'a str, at: usize) -> impl Iterator<Item = usize> + 'a {
        let rest = &text.as_bytes()[at..];
        let may_be =
            !self.values.is_empty() && hash(rest).is_some_and(|bit| self.beginnings[bit / 64] & (1 << (bit % 64)) != 0);
        // The greatest value that is not above the rest is what stands here, or begins with it.
        let greatest = if may_be { self.values.partition_point(|value| value.as_bytes() <= rest) } else { 0 };
        std::iter::successors(greatest.checked_sub(1), |index| self.prefix[*index]).filter(move |index| {
            let value = self.values[*index].as_str();
            rest.starts_with(value.as_bytes()) && counts_at(text, at, value)
        })
    }
}

// Every value has as many bytes as are hashed.
const _: () = assert!(MASK_CHARS_MIN >= 4);

/// A hash of the first four bytes.
fn hash(bytes: &[u8]) -> Option<usize> {
    let spread = u32::from_le_bytes(*bytes.first_chunk()?).wrapping_mul(0x9E37_79B1);
    usize::try_from(spread >> (32 - TABLE_BITS)).ok()
}

/// A short value counts only where it stands by itself: `1234` is not in `sha256:ab1234cd`.
fn counts_at(text: &str, at: usize, value: &str) -> bool {
    if value.chars().nth(MASK_ANYWHERE_CHARS_MIN - 1).is_some() {
        return true;
    }
    let before = text[..at].chars().next_back();
    let after = text[at + value.len()..].chars().next();
    let inside = |inner: Option<char>, outer: Option<char>| {
        inner.is_some_and(char::is_alphanumeric) && outer.is_some_and(char::is_alphanumeric)
    };
    !(inside(value.chars().next(), before) || inside(value.chars().next_back(), after))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn finder(values: &[String]) -> Finder {
        Finder::new(values.iter().cloned().map(Zeroizing::new).collect())
    }

    /// Which bytes of the text belong to a value, found by looking for each value at each place.
    fn hidden_slowly(values: &[String], text: &str) -> Vec<bool> {
        let mut hidden = vec![false; text.len()];
        for value in values.iter().filter(|value| value.len() >= MASK_CHARS_MIN) {
            let places = (0..text.len()).filter(|at| text.as_bytes()[*at..].starts_with(value.as_bytes()));
            for at in places.filter(|at| counts_at(text, *at, value)) {
                hidden[at..at + value.len()].fill(true);
            }
        }
        hidden
    }

    proptest! {
        #[test]
        fn hides_what_each_value_by_itself_would(
            values in prop::collection::vec("[ab é]{1,12}", 0..12),
            text in "[ab é]{0,60}",
        ) {
            let hidden = hidden_slowly(&values, &text);
            let masked = finder(&values).masked(&text);
            let seen: String = text.char_indices().filter(|(at, _)| !hidden[*at]).map(|(_, c)| c).collect();
            prop_assert_eq!(masked.replace(MASKED, ""), seen);
            prop_assert_eq!(masked.contains(MASKED), hidden.contains(&true));
        }

        #[test]
        fn what_stands_in_the_open_is_left_out(values in prop::collection::vec("[ab]{4,6}", 0..12), text in "[ab ]{0,30}") {
            let left = finder(&values).without(&text);
            prop_assert_eq!(left.masked(&text), text);
        }
    }

    #[test]
    fn tens_of_thousands_of_lines_are_looked_for_in_one_pass() {
        // Value by value this would be 10^10 comparisons, and the test would never end.
        let lines: Vec<String> = (0..60_000).map(|n| format!("    - key-{n:05}: value")).collect();
        let finder = finder(&lines);
        let text = lines.join("\n");
        let masked = finder.masked(&text);
        assert!(masked.lines().all(|line| line == MASKED));
        assert_eq!(masked.lines().count(), lines.len());
    }

    #[test]
    fn values_that_overlap_are_hidden_whole() {
        let finder = finder(&["abcdefgh".to_owned(), "efghijklmnop".to_owned()]);
        assert_eq!(finder.masked("x abcdefghijklmnop y abcdefghabcdefgh"), "x *** y ******");
    }
}
