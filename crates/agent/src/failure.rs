//! How a command of this program ends when it does not end well: words for a person, and an exit
//! code for a script. The codes are those of the CLI.

use std::{error::Error, fmt, process::ExitCode};

/// What kind of end it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FailureKind {
    /// It did not work, or `doctor` found something that must be mended.
    Failed = 1,
    /// The request itself is wrong: arguments, a token that is none, a policy that does not parse.
    Usage = 2,
    /// The control plane does not answer.
    Unreachable = 4,
    /// This host has left its fleet: whoever starts the agent need not start it again.
    Retired = 5,
}

impl FailureKind {
    pub(crate) fn exit_code(self) -> ExitCode {
        ExitCode::from(self as u8)
    }
}

/// An end with words.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) kind: FailureKind,
    pub(crate) message: String,
}

impl Failure {
    pub(crate) fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    pub(crate) fn of(kind: FailureKind, error: &dyn Error) -> Self {
        Self { kind, message: words(error) }
    }

    /// Something on this host did not work.
    pub(crate) fn failed(error: impl Error) -> Self {
        Self::of(FailureKind::Failed, &error)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&printable(&self.message))
    }
}

/// A text as it may go to a terminal. Parts of it may have come over the network, from something that
/// was never authenticated, and control characters could drive the terminal.
pub(crate) fn printable(text: &str) -> String {
    let turns = |c: char| matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    text.chars()
        .map(|c| if (c.is_control() && !matches!(c, '\n' | '\t')) || turns(c) { '\u{fffd}' } else { c })
        .collect()
}

/// An error with its causes, in one line. Errors name their source and do not repeat it.
pub(crate) fn words(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_from_elsewhere_cannot_drive_a_terminal() {
        let failure = Failure::new(FailureKind::Unreachable, "it said: \u{1b}]0;x\u{7}\u{9b}2J\u{202e}ü\n");
        assert_eq!(failure.to_string(), "it said: \u{fffd}]0;x\u{fffd}\u{fffd}2J\u{fffd}ü\n");
    }
}
