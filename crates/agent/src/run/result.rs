//! The end of an action as it goes into a report: masked, and small enough to be signed.
//!
//! A result that is too large is not thrown away: long texts keep their ends (the last lines of a log
//! say most), long lists their beginnings, and both the message and the field `left_out` say so.

use actions::{
    mask::Masker,
    outcome::{Outcome, OutcomeStatus},
};
use envelope::{limits::RESULT_BYTES_MAX, messages::ReportStatus};
use serde_json::{Value, json};

/// Longest message, in bytes; the last ones are cut.
const MESSAGE_BYTES_MAX: usize = session::limits::MESSAGE_BYTES_MAX;
/// Bounds tried one after another until the result fits: bytes of one text, entries of one list.
const BOUNDS: [(usize, usize); 6] = [(65_536, 1_000), (16_384, 500), (4_096, 200), (1_024, 100), (256, 50), (64, 10)];
/// Room kept for the note on what was left out.
const NOTE_BYTES: usize = 256;

/// Status and bytes of the report's result.
pub(super) fn encode(outcome: Outcome, masker: &Masker) -> (ReportStatus, Vec<u8>) {
    let status = match outcome.status {
        OutcomeStatus::Succeeded => ReportStatus::Succeeded,
        OutcomeStatus::Failed => ReportStatus::Failed,
        OutcomeStatus::RolledBack => ReportStatus::RolledBack,
        OutcomeStatus::Cancelled => ReportStatus::Cancelled,
    };
    let message = bounded_message(masker.mask(&outcome.message));
    let mut result = outcome.result;
    masker.mask_json(&mut result);
    (status, bounded(&message, result))
}

/// A message that may stand in a result: cut at its end when it is too long.
pub(super) fn bounded_message(message: String) -> String {
    if message.len() <= MESSAGE_BYTES_MAX {
        return message;
    }
    let end = floor_boundary(&message, MESSAGE_BYTES_MAX - '…'.len_utf8());
    format!("{}…", &message[..end])
}

fn bounded(message: &str, result: Value) -> Vec<u8> {
    let whole = json!({ "message": message, "result": result }).to_string().into_bytes();
    if whole.len() <= RESULT_BYTES_MAX {
        return whole;
    }
    for (text_max, list_max) in BOUNDS {
        let mut cut = Cut { text_max, list_max, texts: 0, lists: 0 };
        let mut shorter = result.clone();
        cut.shorten(&mut shorter);
        let note = cut.note();
        if let Value::Object(members) = &mut shorter {
            members.insert("left_out".to_owned(), Value::String(note.clone()));
        }
        let end = floor_boundary(message, MESSAGE_BYTES_MAX - NOTE_BYTES);
        let message = format!("{} ({note})", &message[..end]);
        let bytes = json!({ "message": message, "result": shorter }).to_string().into_bytes();
        if bytes.len() <= RESULT_BYTES_MAX {
            return bytes;
        }
    }
    let end = floor_boundary(message, MESSAGE_BYTES_MAX - NOTE_BYTES);
    let message = format!("{} (the result was too large for a report and was left out)", &message[..end]);
    json!({ "message": message, "result": null }).to_string().into_bytes()
}

/// One pass of shortening, and what it did.
struct Cut {
    text_max: usize,
    list_max: usize,
    texts: usize,
    lists: usize,
}

impl Cut {
    fn shorten(&mut self, value: &mut Value) {
        match value {
            Value::String(text) if text.len() > self.text_max => {
                let start = ceil_boundary(text, text.len() - self.text_max);
                *text = format!("…{}", &text[start..]);
                self.texts += 1;
            }
            Value::Array(items) => {
                if items.len() > self.list_max {
                    // Lines of a log: the last say most. Anything else: the first, as it was sorted.
                    if items.iter().all(Value::is_string) {
                        items.drain(..items.len() - self.list_max);
                    } else {
                        items.truncate(self.list_max);
                    }
                    self.lists += 1;
                }
                items.iter_mut().for_each(|item| self.shorten(item));
            }
            Value::Object(members) => members.values_mut().for_each(|member| self.shorten(member)),
            _ => {}
        }
    }

    fn note(&self) -> String {
        let (texts, text_max, lists, list_max) = (self.texts, self.text_max, self.lists, self.list_max);
        match (texts, lists) {
            (_, 0) => format!("too large for a report: {texts} texts were cut to their last {text_max} bytes"),
            (0, _) => format!("too large for a report: {lists} lists were cut to {list_max} entries"),
            _ => format!(
                "too large for a report: {texts} texts were cut to their last {text_max} bytes and {lists} lists to \
                 {list_max} entries"
            ),
        }
    }
}

fn floor_boundary(text: &str, at: usize) -> usize {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

fn ceil_boundary(text: &str, at: usize) -> usize {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at += 1;
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(message: &str, result: Value) -> Value {
        let outcome = Outcome { status: OutcomeStatus::Succeeded, message: message.to_owned(), result };
        let (status, bytes) = encode(outcome, &Masker::new(["hunter22"]));
        assert_eq!(status, ReportStatus::Succeeded);
        assert!(bytes.len() <= RESULT_BYTES_MAX, "{} bytes", bytes.len());
        let value: Value = serde_json::from_slice(&bytes).expect("JSON");
        assert!(value["message"].as_str().expect("a message").len() <= MESSAGE_BYTES_MAX);
        value
    }

    #[test]
    fn what_fits_stays_as_it_is_but_for_secrets() {
        let value = check("set hunter22", json!({ "env": ["x=hunter22"] }));
        assert_eq!(value, json!({ "message": "set ***", "result": { "env": ["x=***"] } }));
    }

    #[test]
    fn long_logs_keep_their_ends_and_long_lists_their_beginnings() {
        let log = format!("first{}ü last", "ü".repeat(RESULT_BYTES_MAX));
        let lines: Vec<String> = (0..RESULT_BYTES_MAX / 10).map(|n| format!("line {n}")).collect();
        let entries: Vec<Value> = (0..RESULT_BYTES_MAX / 10).map(|n| json!({ "n": n })).collect();
        let value = check("read", json!({ "log": log, "lines": lines, "entries": entries }));
        let result = &value["result"];
        assert!(result["log"].as_str().expect("text").ends_with("ü last"));
        assert_eq!(result["lines"].as_array().and_then(|it| it.last()), lines.last().map(|it| json!(it)).as_ref());
        assert_eq!(result["entries"][0], json!({ "n": 0 }));
        assert!(value["message"].as_str().expect("text").contains("too large for a report"));
        assert!(result["left_out"].as_str().expect("a note").contains("lists"));
    }

    #[test]
    fn what_cannot_be_shortened_is_left_out_in_words() {
        let members: serde_json::Map<_, _> = (0..RESULT_BYTES_MAX / 8).map(|n| (format!("k{n}"), json!(n))).collect();
        let value = check(&"m".repeat(2 * MESSAGE_BYTES_MAX), Value::Object(members));
        assert_eq!(value["result"], Value::Null);
        assert!(value["message"].as_str().expect("text").ends_with("was left out)"));
    }
}
