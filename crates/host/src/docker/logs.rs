//! The last lines a container wrote.

use actions::effect::{EffectError, EffectErrorKind};
use bollard::{container::LogOutput, query_parameters::LogsOptionsBuilder};
use futures_util::{StreamExt as _, pin_mut};

use super::{container, engine::Session, failure};
use crate::limits;

/// Stands in the place of lines left out.
const CUT_MARK: &str = "[earlier lines left out]\n";

impl Session {
    /// At most `tail` lines of both streams in the order they were written, and at most
    /// [`limits::LOG_BYTES_MAX`] bytes of them: the newest.
    pub(super) async fn container_logs(&self, name: &str, tail: u32) -> Result<String, EffectError> {
        let own = self.container_own(name).await?.ok_or_else(|| container::absent("read the log of", name))?;
        let lines = tail.min(limits::LOG_LINES_MAX).to_string();
        let options = LogsOptionsBuilder::default().stdout(true).stderr(true).tail(&lines).build();
        let call = async {
            let stream = self.docker.logs(&own.id, Some(options));
            pin_mut!(stream);
            let mut text = Tail::default();
            while let Some(piece) = stream.next().await {
                text.push(&match piece? {
                    LogOutput::StdErr { message }
                    | LogOutput::StdOut { message }
                    | LogOutput::StdIn { message }
                    | LogOutput::Console { message } => message,
                });
            }
            Ok(text.into_text())
        };
        let read = self.call(&format!("read the log of container {name:?}"), limits::READ_TIMEOUT, call).await;
        read.map_err(|failed| unreadable(failed, name))
    }
}

/// Whether that is the engine's word for a log driver whose logs cannot be read back.
pub(super) fn has_no_readable_log(message: &str) -> bool {
    message.contains("logging driver does not support reading")
}

fn unreadable(failed: EffectError, name: &str) -> EffectError {
    if has_no_readable_log(&failed.message) {
        return failure::error(
            EffectErrorKind::Refused,
            format!(
                "The log of container {name:?} cannot be read here, because its log driver sends it elsewhere. Look \
                 there, or use json-file, local or journald."
            ),
        );
    }
    failed
}

/// The end of a text of any length, in bounded memory.
#[derive(Default)]
struct Tail {
    bytes: Vec<u8>,
    was_cut: bool,
}

impl Tail {
    fn push(&mut self, piece: &[u8]) {
        self.bytes.extend_from_slice(piece);
        // Cutting at twice the bound keeps the copying linear.
        if self.bytes.len() > 2 * limits::LOG_BYTES_MAX {
            self.cut();
        }
    }

    fn cut(&mut self) {
        let excess = self.bytes.len().saturating_sub(limits::LOG_BYTES_MAX);
        if excess > 0 {
            self.bytes.drain(..excess);
            self.was_cut = true;
        }
    }

    fn into_text(mut self) -> String {
        self.cut();
        if !self.was_cut {
            return String::from_utf8_lossy(&self.bytes).into_owned();
        }
        // The first line is probably half a line.
        let start = self.bytes.iter().position(|&b| b == b'\n').map_or(0, |at| at + 1);
        format!("{CUT_MARK}{}", String::from_utf8_lossy(&self.bytes[start..]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_log_keeps_its_end_and_whole_lines() {
        let mut tail = Tail::default();
        let line = format!("{}\n", "x".repeat(99));
        let count = 3 * limits::LOG_BYTES_MAX / line.len();
        for _ in 0..count {
            tail.push(line.as_bytes());
        }
        tail.push(b"last\n");
        let text = tail.into_text();
        assert!(text.len() <= limits::LOG_BYTES_MAX + CUT_MARK.len());
        assert!(text.starts_with(&format!("{CUT_MARK}{line}")) && text.ends_with("x\nlast\n"));
    }

    #[test]
    fn a_short_log_is_kept_as_it_is() {
        let mut tail = Tail::default();
        tail.push(b"one\n\xff");
        tail.push(b"two\n");
        assert_eq!(tail.into_text(), "one\n\u{fffd}two\n");
    }
}
