//! Hides secret values in whatever leaves the host: progress, messages, results, logs.
//!
//! It knows values, not places, so it works on text of any origin. It is the last line of defence
//! and not the only one: secrets have no `Debug`, and errors do not carry them.

use serde_json::Value;
use zeroize::Zeroizing;

use crate::limits;

/// What stands where a value stood.
pub const MASKED: &str = "***";

/// Members of results that are left as they are.
pub const STRUCTURAL: [&str; 15] = [
    "app",
    "change",
    "command_id",
    "container",
    "from",
    "image",
    "name",
    "pinned",
    "plan_sha256",
    "reference",
    "release",
    "release_from",
    "service",
    "state",
    "strategy",
];

/// Words by which actions and the engine say how something stands. A variable with such a value is no
/// secret worth hiding, and hiding it would make "is unhealthy" unreadable.
const STATUS_WORDS: [&str; 20] = [
    "cancelled",
    "completed",
    "created",
    "dead",
    "disabled",
    "enabled",
    "exited",
    "failed",
    "false",
    "healthy",
    "paused",
    "restarting",
    "running",
    "starting",
    "stopped",
    "succeeded",
    "true",
    "unchanged",
    "unhealthy",
    "unverified",
];

/// Values to hide.
#[derive(Default)]
pub struct Masker {
    /// Longest first, so that a value inside another does not leave the other's ends readable.
    values: Vec<Zeroizing<String>>,
}

impl Masker {
    /// Takes the values to hide. Values of several lines are hidden line by line as well, because
    /// logs break them up. A value is hidden without the blanks around it, too, and in the forms that
    /// programs commonly write it in: escaped for JSON or a URL, and whole in base64. Values shorter
    /// than [`limits::MASK_CHARS_MIN`] characters and plain words of status (`true`, `unhealthy`) are
    /// not hidden.
    pub fn new<'a>(secrets: impl IntoIterator<Item = &'a str>) -> Self {
        let mut values: Vec<Zeroizing<String>> = secrets
            .into_iter()
            .flat_map(|secret| {
                let whole = [secret, secret.trim()].into_iter().flat_map(forms);
                let lines = secret.lines().flat_map(|line| [line.to_owned(), line.trim().to_owned(), escaped(line)]);
                // What is not worth hiding is not in any other form either.
                let worth = is_worth_hiding(secret);
                whole.filter(move |_| worth).chain(lines.filter(|line| is_worth_hiding(line)))
            })
            .map(Zeroizing::new)
            .collect();
        values.sort_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.as_str().cmp(b.as_str())));
        values.dedup();
        Self { values }
    }

    /// Leaves out the values that stand in `text` already, because whoever sees the output sees that
    /// too: an app's name, a port, a tag. For the open part of the order itself.
    #[must_use]
    pub fn except_open(mut self, text: &str) -> Self {
        self.values.retain(|value| places(text, value).next().is_none());
        self
    }

    /// Bytes of the longest value: so much of one may stand at the end of a text that was cut.
    #[must_use]
    pub fn longest(&self) -> usize {
        self.values.first().map_or(0, |value| value.len())
    }

    /// `text` with every known value replaced by [`MASKED`].
    #[must_use]
    pub fn mask(&self, text: &str) -> String {
        let mut masked = text.to_owned();
        for value in &self.values {
            let found: Vec<usize> = places(&masked, value).collect();
            for at in found.into_iter().rev() {
                masked.replace_range(at..at + value.len(), MASKED);
            }
        }
        masked
    }

    /// Masks the strings and numbers in `value`. Left alone are names of members and the members in
    /// [`STRUCTURAL`]: they are made of the open part of the order, and machines read them.
    pub fn mask_json(&self, value: &mut Value) {
        match value {
            Value::String(text) => *text = self.mask(text),
            Value::Array(items) => items.iter_mut().for_each(|item| self.mask_json(item)),
            Value::Object(members) => {
                for (key, member) in members.iter_mut() {
                    if !(STRUCTURAL.contains(&key.as_str()) && (member.is_string() || member.is_number())) {
                        self.mask_json(member);
                    }
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

/// Where `value` stands in `text`, from left to right, without overlaps. A short value counts only
/// where it stands by itself: `1234` is not in `sha256:ab1234cd`.
fn places(text: &str, value: &str) -> impl Iterator<Item = usize> {
    let by_itself = value.chars().count() < limits::MASK_ANYWHERE_CHARS_MIN;
    text.match_indices(value).map(|(at, _)| at).filter(move |at| {
        let before = text[..*at].chars().next_back();
        let after = text[at + value.len()..].chars().next();
        let inside = |inner: Option<char>, outer: Option<char>| {
            inner.is_some_and(char::is_alphanumeric) && outer.is_some_and(char::is_alphanumeric)
        };
        !(by_itself && (inside(value.chars().next(), before) || inside(value.chars().next_back(), after)))
    })
}

/// Neither too short to be hidden nor a plain word of status.
fn is_worth_hiding(value: &str) -> bool {
    let value = value.trim();
    value.chars().count() >= limits::MASK_CHARS_MIN && !STATUS_WORDS.contains(&value)
}

/// A value in the forms in which programs write it.
fn forms(value: &str) -> [String; 6] {
    let escaped = escaped(value);
    // What Go's encoder does on top, so that JSON may stand in a web page.
    let for_pages = escaped.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026");
    let base64 = data_encoding::BASE64_NOPAD.encode(value.as_bytes());
    let base64_url = data_encoding::BASE64URL_NOPAD.encode(value.as_bytes());
    [value.to_owned(), escaped, for_pages, percent_encoded(value), base64, base64_url]
}

/// The value as JSON and most log formats write it.
fn escaped(value: &str) -> String {
    let quoted = Value::String(value.to_owned()).to_string();
    quoted[1..quoted.len() - 1].to_owned()
}

/// The value as it stands in a URL (RFC 3986, section 2.3: all but the unreserved is encoded).
fn percent_encoded(value: &str) -> String {
    let mut encoded = String::with_capacity(value.len());
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
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
    fn hides_the_forms_in_which_programs_write_a_value() {
        let masker = Masker::new(["p@ss/w<rd?&1>\n"]);
        for text in [
            "p@ss/w<rd?&1>",
            r"p@ss/w\u003crd?\u00261\u003e",
            "p%40ss%2Fw%3Crd%3F%261%3E",
            // As it came, and without the end of its line.
            "cEBzcy93PHJkPyYxPgo",
            "cEBzcy93PHJkPyYxPg",
        ] {
            assert_eq!(masker.mask(&format!("postgres://app:{text}@db")), "postgres://app:***@db", "{text}");
        }
    }

    #[test]
    fn hides_each_line_of_a_value_of_several_lines() {
        let masker = Masker::new(["-----BEGIN KEY-----\nMC4CAQ\n-----END KEY-----"]);
        assert_eq!(masker.mask("web-1 | MC4CAQ"), "web-1 | ***");
    }

    #[test]
    fn hides_in_a_document_but_not_in_what_machines_read() {
        let masker = Masker::new(["hunter22", "12345", "create"]);
        let mut value = json!({ "why": ["x hunter22", { "n": 12345, "m": 123 }], "b": true, "change": "create" });
        masker.mask_json(&mut value);
        assert_eq!(value, json!({ "why": ["x ***", { "n": "***", "m": 123 }], "b": true, "change": "create" }));
    }

    #[test]
    fn short_values_count_only_by_themselves() {
        let masker = Masker::new(["1234"]);
        assert_eq!(masker.mask("sha256:ab1234cd, pin 1234."), "sha256:ab1234cd, pin ***.");
    }

    #[test]
    fn what_the_order_says_in_the_open_is_not_hidden() {
        let masker = Masker::new(["shop", "hunter22"]).except_open(r#"{"app":"shop"}"#);
        assert_eq!(masker.mask("shop-web-1: hunter22"), "shop-web-1: ***");
    }

    #[test]
    fn words_of_status_stay_readable() {
        let masker = Masker::new(["unhealthy", "unhealthy-token"]);
        assert_eq!(masker.mask("web is unhealthy; unhealthy-token"), "web is unhealthy; ***");
    }

    #[test]
    fn debug_tells_no_value() {
        assert_eq!(format!("{:?}", Masker::new(["hunter22"])), "Masker { values: 2 }");
    }
}
