//! Hides secret values in whatever leaves the host: progress, messages, results, logs.
//!
//! It knows values, not places, so it works on text of any origin. It is the last line of defence
//! and not the only one: secrets have no `Debug`, and errors do not carry them.

use serde_json::Value;
use zeroize::Zeroizing;

use crate::limits;

/// What stands where a value stood.
pub const MASKED: &str = "***";

/// Values to hide.
#[derive(Default)]
pub struct Masker {
    /// Longest first, so that a value inside another does not leave the other's ends readable.
    values: Vec<Zeroizing<String>>,
}

impl Masker {
    /// Takes the values to hide. Values of several lines are hidden line by line as well, because
    /// logs break them up; values shorter than [`limits::MASK_CHARS_MIN`] characters are not hidden.
    pub fn new<'a>(secrets: impl IntoIterator<Item = &'a str>) -> Self {
        let mut values: Vec<Zeroizing<String>> = secrets
            .into_iter()
            .flat_map(|secret| core::iter::once(secret).chain(secret.lines()))
            .flat_map(|part| [part.to_owned(), escaped(part)])
            .filter(|part| part.trim().chars().count() >= limits::MASK_CHARS_MIN)
            .map(Zeroizing::new)
            .collect();
        values.sort_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.as_str().cmp(b.as_str())));
        values.dedup();
        Self { values }
    }

    /// `text` with every known value replaced by [`MASKED`].
    #[must_use]
    pub fn mask(&self, text: &str) -> String {
        let mut masked = text.to_owned();
        for value in &self.values {
            if masked.contains(value.as_str()) {
                masked = masked.replace(value.as_str(), MASKED);
            }
        }
        masked
    }

    /// Masks every string in `value`, keys of objects included.
    pub fn mask_json(&self, value: &mut Value) {
        match value {
            Value::String(text) => *text = self.mask(text),
            Value::Array(items) => items.iter_mut().for_each(|item| self.mask_json(item)),
            Value::Object(members) => {
                let taken = core::mem::take(members);
                for (key, mut member) in taken {
                    self.mask_json(&mut member);
                    members.insert(self.mask(&key), member);
                }
            }
            // A number may be a secret's digits (`12345`): its text decides.
            Value::Number(number) => {
                let text = number.to_string();
                if self.values.iter().any(|secret| secret.as_str() == text) {
                    *value = Value::String(MASKED.to_owned());
                }
            }
            Value::Null | Value::Bool(_) => {}
        }
    }
}

/// The value as JSON and most log formats write it.
fn escaped(value: &str) -> String {
    let quoted = Value::String(value.to_owned()).to_string();
    quoted[1..quoted.len() - 1].to_owned()
}

impl core::fmt::Debug for Masker {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Masker").field("values", &self.values.len()).finish()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn hides_values_longest_first_and_leaves_short_ones() {
        let masker = Masker::new(["hunter22", "hunter22-extra", "yes", "a\"quoted\"b"]);
        assert_eq!(masker.mask("pw=hunter22-extra; old=hunter22; ok=yes"), "pw=***; old=***; ok=yes");
        assert_eq!(masker.mask(r#"{"v":"a\"quoted\"b"} a"quoted"b"#), r#"{"v":"***"} ***"#);
    }

    #[test]
    fn hides_each_line_of_a_value_of_several_lines() {
        let masker = Masker::new(["-----BEGIN KEY-----\nMC4CAQ\n-----END KEY-----"]);
        assert_eq!(masker.mask("web-1 | MC4CAQ"), "web-1 | ***");
    }

    #[test]
    fn hides_in_every_place_of_a_document() {
        let masker = Masker::new(["hunter22", "12345"]);
        let mut value = json!({ "hunter22": ["x hunter22", { "n": 12345, "m": 123 }], "b": true });
        masker.mask_json(&mut value);
        assert_eq!(value, json!({ "***": ["x ***", { "n": "***", "m": 123 }], "b": true }));
    }

    #[test]
    fn debug_tells_no_value() {
        assert_eq!(format!("{:?}", Masker::new(["hunter22"])), "Masker { values: 1 }");
    }
}
