//! Where a join token is read from: a file, standard input, or the terminal with its echo off. Never
//! an argument, which every user of the machine could see.

use std::{
    fs::File,
    io::{self, BufRead as _, IsTerminal as _, Read, Write as _},
    path::Path,
};

use envelope::token::{JoinToken, TokenError};
use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
use zeroize::Zeroizing;

use crate::limits;

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TokenReadError {
    #[error("cannot read the join token from {from}")]
    Io {
        from: String,
        #[source]
        source: io::Error,
    },
    #[error(transparent)]
    Token(#[from] TokenError),
    #[error(
        "no join token: give it with --token-file FILE, or --token-file - for standard input, or run this on a \
         terminal to be asked for it"
    )]
    None,
}

/// Reads the token; asks for it when no file is named and a person is there.
pub(crate) fn read(file: Option<&Path>) -> Result<JoinToken, TokenReadError> {
    let stdin = io::stdin();
    let text = match file {
        Some(path) if path == Path::new("-") => bounded(stdin.lock(), "standard input")?,
        Some(path) => {
            let from = path.display().to_string();
            let opened = File::open(path);
            bounded(opened.map_err(|source| TokenReadError::Io { from: from.clone(), source })?, &from)?
        }
        None if stdin.is_terminal() => ask()?,
        None => return Err(TokenReadError::None),
    };
    Ok(JoinToken::parse(&text)?)
}

fn bounded(from: impl Read, name: &str) -> Result<Zeroizing<String>, TokenReadError> {
    // Room for all of it at once: growing would leave copies of the secret behind.
    let mut text = Zeroizing::new(String::with_capacity(limits::TOKEN_FILE_BYTES_MAX as usize));
    from.take(limits::TOKEN_FILE_BYTES_MAX)
        .read_to_string(&mut text)
        .map_err(|source| TokenReadError::Io { from: name.to_owned(), source })?;
    Ok(text)
}

/// Asks on the terminal, without showing what is typed.
fn ask() -> Result<Zeroizing<String>, TokenReadError> {
    let fail = |source| TokenReadError::Io { from: "the terminal".to_owned(), source };
    eprint!("Join token (from `serverflow host enroll NAME`): ");
    io::stderr().flush().map_err(fail)?;
    let stdin = io::stdin();
    let before = tcgetattr(&stdin).map_err(|error| fail(error.into()))?;
    let mut silent = before.clone();
    silent.local_modes.remove(LocalModes::ECHO);
    tcsetattr(&stdin, OptionalActions::Flush, &silent).map_err(|error| fail(error.into()))?;
    let mut text = Zeroizing::new(String::with_capacity(limits::TOKEN_FILE_BYTES_MAX as usize));
    let line = stdin.lock().take(limits::TOKEN_FILE_BYTES_MAX).read_line(&mut text);
    tcsetattr(&stdin, OptionalActions::Now, &before).map_err(|error| fail(error.into()))?;
    eprintln!();
    line.map_err(fail)?;
    Ok(text)
}
