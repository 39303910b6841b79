//! Hides secret values in whatever leaves the host: progress, messages, results, logs.
//!
//! It knows values, not places, so it works on text of any origin. It is the last line of defence
//! and not the only one: secrets have no `Debug`, and errors do not carry them.

mod finder;

use serde_json::Value;
use zeroize::Zeroizing;

use self::finder::Finder;
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
    /// Hidden wherever they occur.
    anywhere: Finder,
    /// Short ones, hidden where they stand by themselves.
    alone: Finder,
}

impl Masker {
    /// Takes the values to hide. Values of several lines are hidden line by line as well, because
    /// logs break them up; so are the readable lines of a file that is no text, which is sealed in base64. A
    /// value is hidden without the blanks around it, too, and in the forms that
    /// programs commonly write it in: escaped for JSON or a URL, and whole in base64. Values shorter
    /// than [`limits::MASK_CHARS_MIN`] characters and plain words of status (`true`, `unhealthy`) are
    /// not hidden.
    pub fn new<'a>(secrets: impl IntoIterator<Item = &'a str>) -> Self {
        let (mut anywhere, mut alone) = (Vec::new(), Vec::new());
        let mut take = |value: String| {
            let value = Zeroizing::new(value);
            let is_long = value.chars().nth(limits::MASK_ANYWHERE_CHARS_MIN - 1).is_some();
            if is_long { anywhere.push(value) } else { alone.push(value) }
        };
        for secret in secrets {
            // What is not worth hiding is not in any other form either.
            if is_worth_hiding(secret) {
                [secret, secret.trim()].into_iter().flat_map(forms).for_each(&mut take);
            }
            secret.lines().for_each(|line| line_forms(line, &mut take));
            let readable = readable(secret);
            readable.lines().filter(|line| is_worth_hiding(line)).for_each(|line| line_forms(line, &mut take));
        }
        Self { anywhere: Finder::new(anywhere), alone: Finder::new(alone) }
    }

    /// Leaves out the values that stand in `text` already, because whoever sees the output sees that
    /// too: an app's name, a port, a tag. For the open part of the order itself.
    #[must_use]
    pub fn except_open(self, text: &str) -> Self {
        Self { anywhere: self.anywhere.without(text), alone: self.alone.without(text) }
    }

    /// Bytes of the longest value: so much of one may stand at the end of a text that was cut.
    #[must_use]
    pub fn longest(&self) -> usize {
        self.anywhere.longest().max(self.alone.longest())
    }

    /// `text` with every known value replaced by [`MASKED`].
    #[must_use]
    pub fn mask(&self, text: &str) -> String {
        // What was hidden no longer counts as a neighbour of a short value.
        self.alone.masked(&self.anywhere.masked(text))
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
                if self.anywhere.contains(&text) || self.alone.contains(&text) {
                    *value = Value::String(MASKED.to_owned());
                }
            }
            Value::Null | Value::Bool(_) => {}
        }
    }
}

/// Neither too short to be hidden nor a plain word of status.
fn is_worth_hiding(value: &str) -> bool {
    let value = value.trim();
    value.chars().count() >= limits::MASK_CHARS_MIN && !STATUS_WORDS.contains(&value)
}

/// One line of a value as it is, without the blanks around it, and escaped.
fn line_forms(line: &str, take: impl FnMut(String)) {
    let forms = [line.to_owned(), line.trim().to_owned(), escaped(line), escaped(line.trim())];
    forms.into_iter().filter(|form| is_worth_hiding(form)).for_each(take);
}

/// What can be read in a file that is no text and so is sealed in base64, each run of it as a line. Empty for all else.
fn readable(secret: &str) -> Zeroizing<String> {
    let Ok(bytes) = data_encoding::BASE64.decode(secret.as_bytes()).map(Zeroizing::new) else {
        return Zeroizing::default();
    };
    let mut text = Zeroizing::new(String::with_capacity(bytes.len() + 1));
    let is_readable = |byte: &u8| matches!(byte, b' '..=b'~' | b'\t');
    for run in bytes.split(|byte| !is_readable(byte)).filter(|run| run.len() >= limits::MASK_ANYWHERE_CHARS_MIN) {
        text.extend(run.iter().copied().map(char::from));
        text.push('\n');
    }
    text
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
        f.debug_struct("Masker").field("values", &(self.anywhere.len() + self.alone.len())).finish()
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
    fn hides_each_readable_line_of_a_file_that_is_no_text() {
        let file = b"\xff\x00first-line-of-key\nline\n\tsecond \"line\" of key\r\n\x01";
        let masker = Masker::new([data_encoding::BASE64.encode(file).as_str()]);
        let text = "a first-line-of-key b line c second \"line\" of key d second \\\"line\\\" of key";
        assert_eq!(masker.mask(text), "a *** b line c *** d ***");
        // A password that happens to be base64 is hidden as such, and nothing else is.
        assert_eq!(format!("{:?}", Masker::new(["abcd1234"])), format!("{:?}", Masker::new(["abcd-123"])));
    }

    #[test]
    fn a_short_value_beside_a_hidden_one_is_hidden() {
        let masker = Masker::new(["hunter22", "1234"]);
        assert_eq!(masker.mask("hunter221234 12341234"), "****** 12341234");
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
