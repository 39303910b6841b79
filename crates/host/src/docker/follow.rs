//! What a container writes while it writes it: the same log that [`super::logs`] reads the end of, as
//! lines with their times.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use actions::{
    effect::{EffectError, EffectErrorKind},
    port::LogStart,
};
use bollard::{container::LogOutput, errors::Error, query_parameters::LogsOptionsBuilder};
use futures_util::{Stream, StreamExt as _};

use super::{
    container,
    engine::{Engine, Session},
    failure,
    logs::has_no_readable_log,
};
use crate::limits;

/// One line of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine {
    /// When it was written: RFC 3339 with nanoseconds, in UTC, as the engine prints it.
    pub time: String,
    /// Its text, lossily decoded, without its end. Not yet masked.
    pub text: String,
    /// Whether the rest of it was left out, because it is longer than [`limits::LOG_LINE_BYTES_MAX`].
    pub cut: bool,
}

/// The lines of one container's log, until the container ends or the engine goes away.
pub struct LogFollow {
    pieces: Pin<Box<dyn Stream<Item = Result<LogOutput, Error>> + Send>>,
    /// Of standard output and standard error: their lines come in pieces, and not in turn.
    halves: [Half; 2],
    after: Option<String>,
    ended: bool,
}

impl Engine {
    /// Opens the log of a container of ours, to be read until the container ends: the one thing that is
    /// read as a stream. Dropping it closes it.
    ///
    /// # Errors
    /// When the engine does not answer, or there is no such container of ours.
    pub async fn log_follow(&self, name: &str, start: &LogStart) -> Result<LogFollow, EffectError> {
        let session = self.session().await?;
        self.noticing(session.log_follow(name, start).await)
    }
}

impl Session {
    /// Opens the log of a container of ours, from `start` on.
    pub(super) async fn log_follow(&self, name: &str, start: &LogStart) -> Result<LogFollow, EffectError> {
        let own = self.container_own(name).await?.ok_or_else(|| container::absent("follow the log of", name))?;
        let tail = start.tail.map_or_else(|| "all".to_owned(), |lines| lines.min(limits::LOG_LINES_MAX).to_string());
        let since = start.after.as_deref().and_then(seconds).or(start.since.map(|at| at.0 / 1000));
        let options = LogsOptionsBuilder::default()
            .follow(true)
            .stdout(true)
            .stderr(true)
            .timestamps(true)
            .since(since.and_then(|at| i32::try_from(at).ok()).unwrap_or(0))
            .tail(&tail)
            .build();
        let pieces = Box::pin(self.docker.logs(&own.id, Some(options)));
        Ok(LogFollow { pieces, halves: Default::default(), after: start.after.clone(), ended: false })
    }
}

/// Seconds since 1970 of an RFC 3339 time in UTC, rounded down.
fn seconds(time: &str) -> Option<u64> {
    let number = |range: core::ops::Range<usize>| time.get(range)?.parse::<u64>().ok();
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    let (hour, minute, second) = (number(11..13)?, number(14..16)?, number(17..19)?);
    // Days from civil, Howard Hinnant's public description of the Gregorian calendar.
    let year = if month <= 2 { year.checked_sub(1)? } else { year };
    let (era, month) = (year / 400, (month + 9) % 12);
    let day_of_era =
        (year % 400) * 365 + (year % 400) / 4 - (year % 400) / 100 + (153 * month + 2) / 5 + day.checked_sub(1)?;
    let days = (era * 146_097 + day_of_era).checked_sub(719_468)?;
    Some(((days * 24 + hour) * 60 + minute) * 60 + second)
}

impl Stream for LogFollow {
    type Item = Result<LogLine, EffectError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        while !self.ended {
            let piece = match self.pieces.poll_next_unpin(context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(piece) => piece,
            };
            let line = match piece {
                Some(Ok(LogOutput::StdErr { message })) => self.halves[1].push(&message),
                Some(Ok(
                    LogOutput::StdOut { message } | LogOutput::StdIn { message } | LogOutput::Console { message },
                )) => self.halves[0].push(&message),
                Some(Err(error)) => {
                    self.ended = true;
                    match refused(&error) {
                        Some(refused) => return Poll::Ready(Some(Err(refused))),
                        // The container or the engine went away: that is an end like any other.
                        None => self.rest(),
                    }
                }
                None => {
                    self.ended = true;
                    self.rest()
                }
            };
            let is_new = |line: &LogLine| self.after.as_ref().is_none_or(|after| line.time > *after);
            if let Some(line) = line.filter(is_new) {
                return Poll::Ready(Some(Ok(line)));
            }
        }
        // A last half line of the other kind may be left.
        Poll::Ready(self.rest().map(Ok))
    }
}

impl LogFollow {
    /// What stands without an end when the log ends.
    fn rest(&mut self) -> Option<LogLine> {
        self.halves.iter_mut().find_map(Half::finish)
    }
}

/// The engine's word that this log can never be read; anything else is a cut.
fn refused(error: &Error) -> Option<EffectError> {
    let text = error.to_string();
    has_no_readable_log(&text).then(|| {
        failure::error(
            EffectErrorKind::Refused,
            "its log driver sends the log elsewhere; look there, or use json-file, local or journald".to_owned(),
        )
    })
}

/// A line that is not whole yet. The engine hands long lines on in pieces, each with a time before it.
#[derive(Default)]
struct Half {
    time: String,
    bytes: Vec<u8>,
    cut: bool,
}

impl Half {
    fn push(&mut self, piece: &[u8]) -> Option<LogLine> {
        let (time, text) = match piece.iter().position(|byte| *byte == b' ') {
            Some(at) if is_time(&piece[..at]) => (&piece[..at], &piece[at + 1..]),
            _ => (&piece[..0], piece),
        };
        if self.time.is_empty() {
            self.time = String::from_utf8_lossy(time).into_owned();
        }
        let is_whole = text.ends_with(b"\n");
        let text = text.strip_suffix(b"\n").unwrap_or(text);
        let text = if is_whole { text.strip_suffix(b"\r").unwrap_or(text) } else { text };
        let room = limits::LOG_LINE_BYTES_MAX - self.bytes.len();
        self.cut |= text.len() > room;
        self.bytes.extend_from_slice(&text[..text.len().min(room)]);
        is_whole.then(|| self.take())
    }

    fn finish(&mut self) -> Option<LogLine> {
        (!self.time.is_empty() || !self.bytes.is_empty()).then(|| self.take())
    }

    fn take(&mut self) -> LogLine {
        let half = core::mem::take(self);
        LogLine { time: half.time, text: String::from_utf8_lossy(&half.bytes).into_owned(), cut: half.cut }
    }
}

fn is_time(word: &[u8]) -> bool {
    word.len() >= 20 && word[0].is_ascii_digit() && word.get(10) == Some(&b'T') && word.ends_with(b"Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIME: &str = "2026-11-21T14:05:06.123456789Z";

    #[test]
    fn lines_come_whole_whatever_pieces_they_are_handed_on_in() {
        let mut half = Half::default();
        assert_eq!(half.push(format!("{TIME} first ").as_bytes()), None);
        let line = half.push(b"2026-11-21T14:05:06.223456789Z half\r\n").unwrap();
        assert_eq!(line, LogLine { time: TIME.to_owned(), text: "first half".to_owned(), cut: false });
        assert_eq!(half.push(format!("{TIME} \n").as_bytes()).unwrap().text, "");
        assert_eq!(half.push(format!("{TIME} unended").as_bytes()), None);
        assert_eq!(half.finish().unwrap().text, "unended");
        assert_eq!(half.finish(), None);
    }

    #[test]
    fn a_line_without_end_is_cut_in_bounded_memory() {
        let mut half = Half::default();
        for _ in 0..10 {
            assert_eq!(half.push(&[b'x'; 16 * 1024]), None);
            assert!(half.bytes.len() <= limits::LOG_LINE_BYTES_MAX);
        }
        let line = half.push(b"end\n").unwrap();
        assert_eq!((line.text.len(), line.cut), (limits::LOG_LINE_BYTES_MAX, true));
    }

    #[test]
    fn times_are_read_as_the_engine_prints_them() {
        assert_eq!(seconds(TIME), Some(1_795_269_906));
        assert_eq!(seconds("1970-01-01T00:00:00Z"), Some(0));
        assert_eq!(seconds("2024-02-29T23:59:59.5Z"), Some(1_709_251_199));
        assert_eq!(seconds("yesterday"), None);
    }
}
