//! Where passwords come from: a file, the terminal, or the operating system's randomness. Never the
//! command line, where other users of the machine could read them.

use std::path::Path;

use rand::{TryRng as _, rngs::SysRng};
use zeroize::Zeroizing;

use crate::{arguments::NewPassword, exit::Failure, files, limits, prompt};

/// Groups of a generated password, and characters of a group: 120 bits.
const GROUPS: usize = 6;
const GROUP_CHARS: usize = 4;
/// Without characters that are mistaken for each other; 32 of them, so that a byte maps evenly.
const ALPHABET: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";

/// A new password, and whether it was made here and has to be shown.
pub(crate) struct Chosen {
    pub(crate) password: Zeroizing<String>,
    pub(crate) is_generated: bool,
}

/// The first line of a file.
pub(crate) fn of_file(file: &Path) -> Result<Zeroizing<String>, Failure> {
    // Room for the end of the line.
    let text = Zeroizing::new(files::read_text(file, limits::PASSWORD_BYTES_MAX + 2)?);
    let line = text.lines().next().unwrap_or_default();
    if line.is_empty() {
        return Err(Failure::invalid(format!(
            "the first line of {} is empty; it should be the password",
            file.display()
        )));
    }
    Ok(Zeroizing::new(line.to_owned()))
}

/// A new password for `whose`: from the file, from the terminal, or made here.
pub(crate) fn new(from: &NewPassword, whose: &str) -> Result<Chosen, Failure> {
    let given = |password| Ok(Chosen { password, is_generated: false });
    match (&from.password_file, from.ask) {
        (Some(file), _) => given(of_file(file)?),
        (None, true) => given(asked(whose)?),
        (None, false) => Ok(Chosen { password: generated()?, is_generated: true }),
    }
}

/// Asked for twice, because nobody sees what is typed.
pub(crate) fn asked(whose: &str) -> Result<Zeroizing<String>, Failure> {
    let first = prompt::password(&format!("New password of {whose}: "))?;
    if prompt::password("The same again: ")? != first {
        return Err(Failure::invalid("the two are not the same; nothing was changed"));
    }
    Ok(first)
}

fn generated() -> Result<Zeroizing<String>, Failure> {
    let mut random = Zeroizing::new([0u8; GROUPS * GROUP_CHARS]);
    SysRng.try_fill_bytes(random.as_mut_slice()).map_err(|_| Failure::randomness())?;
    let mut password = Zeroizing::new(String::with_capacity(GROUPS * (GROUP_CHARS + 1)));
    for (at, byte) in random.iter().enumerate() {
        if at > 0 && at % GROUP_CHARS == 0 {
            password.push('-');
        }
        password.push(char::from(ALPHABET[usize::from(byte % 32)]));
    }
    Ok(password)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_passwords_differ_and_keep_the_rule() {
        let (one, other) = (generated().unwrap(), generated().unwrap());
        assert_ne!(*one, *other);
        assert_eq!((one.len(), one.split('-').count()), (29, GROUPS));
    }
}
