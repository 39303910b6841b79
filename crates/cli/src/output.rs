//! What goes to standard output and standard error, and how.
//!
//! With `--json` a command writes exactly one JSON document: its result to standard output, or, when
//! it could not do what was asked, an error document to standard error. Without it, results go to
//! standard output, progress and errors to standard error. Whatever came from elsewhere is cleaned
//! of control characters first, so that a log line cannot drive somebody's terminal.

use std::{
    borrow::Cow,
    fmt::Display,
    io::{self, IsTerminal as _, Write as _},
};

use anstream::{AutoStream, ColorChoice};
use anstyle::{AnsiColor, Style};
use api::{CommandStatus, OperationState};
use serde::Serialize;

use crate::{
    arguments::Color,
    exit::{Failure, Kind, io_words},
};

/// Where a command's words go.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Output {
    json: bool,
    quiet: bool,
    /// Whether standard output takes colours.
    pub(crate) paint: Paint,
    /// Whether standard error takes colours.
    error_paint: Paint,
}

impl Output {
    pub(crate) fn new(json: bool, quiet: bool, color: Color) -> Self {
        let takes = |auto: ColorChoice| match color {
            Color::Always => true,
            Color::Never => false,
            Color::Auto => auto != ColorChoice::Never,
        };
        Self {
            json,
            quiet,
            paint: Paint(!json && takes(AutoStream::choice(&io::stdout()))),
            error_paint: Paint(!json && takes(AutoStream::choice(&io::stderr()))),
        }
    }

    /// The same without progress, for what is over in a moment.
    pub(crate) const fn without_progress(&self) -> Self {
        Self { quiet: true, ..*self }
    }

    /// Whether progress is shown.
    pub(crate) const fn shows_progress(&self) -> bool {
        !self.json && !self.quiet
    }

    /// Whether documents are printed instead of words.
    pub(crate) const fn is_json(&self) -> bool {
        self.json
    }

    /// The colours for standard output.
    pub(crate) const fn paint(&self) -> Paint {
        self.paint
    }

    /// The one result of a command: as a document, or in the words `human` finds.
    pub(crate) fn result<T: Serialize + ?Sized>(
        &self,
        value: &T,
        human: impl FnOnce(&T, Paint) -> String,
    ) -> Result<(), Failure> {
        if !self.json {
            return to_stdout(human(value, self.paint).as_bytes());
        }
        let mut text = serde_json::to_vec_pretty(value)
            .map_err(|e| Failure::new(Kind::NotWell, format!("the result could not be written as JSON: {e}")))?;
        text.push(b'\n');
        to_stdout(&text)
    }

    /// A line of progress, for people only. `text` may hold colours of [`Self::progress_paint`].
    pub(crate) fn progress(&self, text: impl Display) {
        if self.shows_progress() {
            // Nobody may be there to read it, which is no reason to stop.
            let _ = writeln!(io::stderr().lock(), "{text}");
        }
    }

    /// A line about something that did not go well beside a result that is shown; for people only,
    /// since a document says it itself.
    pub(crate) fn problem(&self, text: impl Display) {
        if !self.json {
            let red = self.error_paint.of(AnsiColor::Red.on_default().bold());
            // As with progress.
            let _ = writeln!(io::stderr().lock(), "{red}error:{red:#} {text}");
        }
    }

    /// The colours for [`Self::progress`].
    pub(crate) const fn progress_paint(&self) -> Paint {
        self.error_paint
    }

    /// Why the command failed.
    pub(crate) fn failure(&self, failure: &Failure) {
        if failure.kind == Kind::OutputClosed {
            return;
        }
        let mut stderr = io::stderr().lock();
        if self.json {
            if let Ok(text) = serde_json::to_string_pretty(&failure.document()) {
                let _ = writeln!(stderr, "{text}");
            }
            return;
        }
        let text = failure.lines();
        let red = self.error_paint.of(AnsiColor::Red.on_default().bold());
        let text = if self.error_paint.0 { text.replacen("error:", &format!("{red}error:{red:#}"), 1) } else { text };
        let _ = stderr.write_all(text.as_bytes());
    }
}

/// Writes all of it to standard output.
pub(crate) fn to_stdout(bytes: &[u8]) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    let written = stdout.write_all(bytes).and_then(|()| stdout.flush());
    written.map_err(|error| match error.kind() {
        io::ErrorKind::BrokenPipe => Failure::new(Kind::OutputClosed, "nobody reads the output"),
        _ => Failure::new(Kind::NotWell, format!("cannot write to standard output: {}", io_words(&error))),
    })
}

/// Whether standard output is a terminal, which control characters could drive.
pub(crate) fn stdout_is_terminal() -> bool {
    io::stdout().is_terminal()
}

/// Styles, if the stream takes them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Paint(pub(crate) bool);

impl Paint {
    /// The style, or none.
    pub(crate) fn of(self, style: Style) -> Style {
        if self.0 { style } else { Style::new() }
    }

    /// `text` in this style.
    pub(crate) fn on(self, style: Style, text: impl Display) -> String {
        let style = self.of(style);
        format!("{style}{text}{style:#}")
    }

    /// `text` in bold.
    pub(crate) fn bold(self, text: impl Display) -> String {
        self.on(Style::new().bold(), text)
    }
}

/// The style of a command's status.
pub(crate) const fn status_style(status: CommandStatus) -> Style {
    match status {
        CommandStatus::Held | CommandStatus::Queued | CommandStatus::Delivered | CommandStatus::Accepted => {
            Style::new().dimmed()
        }
        CommandStatus::Running => AnsiColor::Cyan.on_default(),
        CommandStatus::Succeeded => AnsiColor::Green.on_default(),
        CommandStatus::Cancelled | CommandStatus::Expired => AnsiColor::Yellow.on_default(),
        CommandStatus::Failed | CommandStatus::RolledBack | CommandStatus::Rejected | CommandStatus::Unknown => {
            AnsiColor::Red.on_default()
        }
    }
}

/// The style of an operation's state.
pub(crate) const fn operation_style(state: OperationState) -> Style {
    match state {
        OperationState::Running => AnsiColor::Cyan.on_default(),
        OperationState::Succeeded => AnsiColor::Green.on_default(),
        OperationState::Failed => AnsiColor::Red.on_default(),
    }
}

/// Characters that could drive a terminal, or turn the direction of what follows.
fn is_unsafe(c: char) -> bool {
    (c.is_control() && !matches!(c, '\n' | '\t')) || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// `text` with every such character replaced.
pub(crate) fn clean(text: &str) -> Cow<'_, str> {
    if text.contains(is_unsafe) {
        Cow::Owned(text.replace("\r\n", "\n").replace(is_unsafe, "\u{fffd}"))
    } else {
        Cow::Borrowed(text)
    }
}

/// [`clean`], on one line.
pub(crate) fn clean_line(text: &str) -> String {
    clean(text).split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_from_elsewhere_cannot_drive_a_terminal() {
        assert_eq!(clean("a\tb\r\nc"), "a\tb\nc");
        assert_eq!(clean("\u{1b}]0;title\u{7}x\u{9b}2J\u{202e}"), "\u{fffd}]0;title\u{fffd}x\u{fffd}2J\u{fffd}");
        assert_eq!(clean_line("one\n  two\tthree"), "one two three");
    }

    #[test]
    fn without_colours_nothing_is_added() {
        assert_eq!(Paint(false).bold("x"), "x");
        assert_eq!(Paint(true).bold("x"), "\u{1b}[1mx\u{1b}[0m");
    }
}
