//! Ends made here rather than by an action: refusals, expiry, cancels. Their result has the same
//! shape as an action's: UTF-8 JSON `{"message": …, "result": …}`.

use envelope::messages::ReportStatus;
use ids::sha256;
use serde_json::{Value, json};

use super::io::End;
use crate::limits;

/// An end with words for a person, machine-readable detail (or `null`), and no output.
#[must_use]
pub fn end_message(status: ReportStatus, message: &str, detail: &Value) -> End {
    let message = shortened(message, limits::MESSAGE_BYTES_MAX);
    let result = json!({ "message": message, "result": detail }).to_string().into_bytes();
    End { status, result, output_sha256: sha256(b""), output_truncated: false }
}

/// At most `max` bytes of `text`, cut between characters.
pub(super) fn shortened(text: &str, max: usize) -> &str {
    let mut end = text.len().min(max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// An action's end as it can be signed: a result beyond the limit gives way to words that say so.
pub(super) fn fitting(end: End) -> End {
    if end.result.len() <= limits::RESULT_BYTES_MAX {
        return end;
    }
    let message = format!(
        "the action ended, but its result has {} bytes, more than the {} that fit into a report, and was left out",
        end.result.len(),
        limits::RESULT_BYTES_MAX
    );
    End { result: end_message(end.status, &message, &Value::Null).result, ..end }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_cut_between_characters() {
        assert_eq!(shortened("aé", 3), "aé");
        assert_eq!(shortened("aé", 2), "a");
        assert_eq!(shortened("", 2), "");
    }

    #[test]
    fn a_result_beyond_the_limit_is_replaced_and_the_rest_kept() {
        let end = |bytes| End {
            status: ReportStatus::Succeeded,
            result: vec![b'x'; bytes],
            output_sha256: sha256(b"output"),
            output_truncated: true,
        };
        assert_eq!(fitting(end(limits::RESULT_BYTES_MAX)), end(limits::RESULT_BYTES_MAX));
        let cut = fitting(end(limits::RESULT_BYTES_MAX + 1));
        assert!(String::from_utf8_lossy(&cut.result).contains("was left out"));
        assert_eq!(
            (cut.status, cut.output_sha256, cut.output_truncated),
            (ReportStatus::Succeeded, sha256(b"output"), true)
        );
    }
}
