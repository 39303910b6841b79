//! Asking the person at the terminal: a line, a yes, or a password that is not shown.
//!
//! Passwords are read key by key with the terminal's own echo and signals off, so that Ctrl-C too
//! gives the terminal back as it was.

use std::{
    fs::{File, OpenOptions},
    io::{self, BufRead as _, IsTerminal as _, Read as _, Write as _},
};

use rustix::termios::{LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcsetattr};
use zeroize::Zeroizing;

use crate::{
    exit::{Failure, Kind, io_words},
    limits,
};

/// Asks for a line and shows what is typed.
pub(crate) fn line(question: &str, otherwise: &str) -> Result<String, Failure> {
    if !io::stdin().is_terminal() {
        return Err(Failure::invalid(format!("there is no terminal to ask on: {otherwise}")));
    }
    let failed = |error: io::Error| Failure::invalid(format!("cannot ask on the terminal: {}", io_words(&error)));
    let mut stderr = io::stderr().lock();
    stderr.write_all(question.as_bytes()).and_then(|()| stderr.flush()).map_err(failed)?;
    let mut answer = String::new();
    io::stdin().lock().take(4096).read_line(&mut answer).map_err(failed)?;
    Ok(answer.trim().to_owned())
}

/// Asks for a password on the terminal, whatever standard input is.
pub(crate) fn password(question: &str) -> Result<Zeroizing<String>, Failure> {
    let mut terminal = OpenOptions::new().read(true).write(true).open("/dev/tty").map_err(|_| {
        Failure::invalid("there is no terminal to ask for the password on")
            .hint("use --password-file FILE, or `-` for standard input")
    })?;
    let failed = |error: io::Error| Failure::invalid(format!("cannot ask on the terminal: {}", io_words(&error)));
    terminal.write_all(question.as_bytes()).map_err(failed)?;
    let quiet = Quiet::new(&terminal).map_err(failed)?;
    let typed = typed(&terminal).map_err(failed);
    drop(quiet);
    // The line that was typed had no end on the screen.
    terminal.write_all(b"\n").map_err(failed)?;
    typed?.ok_or_else(|| Failure::new(Kind::Interrupted, "interrupted; nothing was sent"))
}

/// A terminal without echo, until dropped.
struct Quiet<'a> {
    terminal: &'a File,
    before: Termios,
}

impl<'a> Quiet<'a> {
    fn new(terminal: &'a File) -> io::Result<Self> {
        let before = tcgetattr(terminal)?;
        let mut quiet = before.clone();
        quiet.local_modes.remove(LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG | LocalModes::IEXTEN);
        quiet.special_codes[SpecialCodeIndex::VMIN] = 1;
        quiet.special_codes[SpecialCodeIndex::VTIME] = 0;
        tcsetattr(terminal, OptionalActions::Flush, &quiet)?;
        Ok(Self { terminal, before })
    }
}

impl Drop for Quiet<'_> {
    fn drop(&mut self) {
        // Nothing better can be done than to try.
        let _ = tcsetattr(self.terminal, OptionalActions::Flush, &self.before);
    }
}

/// Reads keys up to the end of the line. `None` after Ctrl-C.
fn typed(mut keys: impl io::Read) -> io::Result<Option<Zeroizing<String>>> {
    let mut line = Zeroizing::new(Vec::with_capacity(limits::PASSWORD_BYTES_MAX));
    let mut key = Zeroizing::new([0]);
    loop {
        match keys.read_exact(key.as_mut_slice()) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => break,
            read => read?,
        }
        match key[0] {
            b'\r' | b'\n' | 0x04 => break,
            0x03 => return Ok(None),
            // Backspace takes a whole character, of which UTF-8 may have several bytes.
            0x08 | 0x7f => while line.pop().is_some_and(|byte| byte & 0xc0 == 0x80) {},
            // Ctrl-U: begin again.
            0x15 => line.clear(),
            byte if line.len() < limits::PASSWORD_BYTES_MAX => line.push(byte),
            _ => return Err(io::Error::other("the password is too long")),
        }
    }
    let text = core::str::from_utf8(&line).map_err(|_| io::Error::other("the password is not UTF-8"))?;
    Ok(Some(Zeroizing::new(text.to_owned())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_make_a_line_as_people_expect() {
        let check = |keys: &[u8], line: Option<&str>| {
            assert_eq!(typed(keys).unwrap().as_deref().map(String::as_str), line, "{keys:?}");
        };
        check(b"secret\nmore", Some("secret"));
        check("pä\u{7f}\u{7f}x\r".as_bytes(), Some("x"));
        check(b"\x7f\x7fab\x15cd\n", Some("cd"));
        check(b"secret\x03", None);
        check(b"no end", Some("no end"));
        assert!(typed(&[b'x'; limits::PASSWORD_BYTES_MAX + 1][..]).is_err());
        assert!(typed(&b"\xff\n"[..]).is_err());
    }
}
