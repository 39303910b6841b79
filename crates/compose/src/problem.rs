//! What is wrong with a file, said so that a person can go there and mend it.
//!
//! A problem never holds a value that is or could be a secret: environment values and texts that a
//! variable reached are described, not printed. The parsers of single values help by returning
//! `&'static str` reasons, which cannot carry a value.

use core::fmt;

use serde::Serialize;

use crate::limits::{EXCERPT_CHARS_MAX, PROBLEMS_MAX};

/// A place in a file; lines and columns count from 1, columns in characters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    /// Which file, by its number in [`crate::sources::Sources`].
    pub(crate) source: u16,
    pub(crate) line: u32,
    pub(crate) column: u32,
}

/// One thing that is wrong (or, among the notes, worth knowing).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// Path of the file as the caller named it.
    pub file: String,
    /// Line, from 1; 0 when the problem concerns the file as a whole.
    pub line: u32,
    /// Column in characters, from 1; 0 when the problem concerns the file as a whole.
    pub column: u32,
    /// Path of the key, such as `services.web.ports[0]`; empty when there is none.
    pub key: String,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl Problem {
    pub(crate) fn new(file: &str, at: Place, key: &str, message: impl Into<String>) -> Self {
        Self {
            file: file.to_owned(),
            line: at.line,
            column: at.column,
            key: key.to_owned(),
            message: message.into(),
            hint: None,
        }
    }

    pub(crate) fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl Problem {
    /// The same, told of another place: where its own must not be named.
    pub(crate) fn moved(self, file: &str, at: Place) -> Self {
        Self { file: file.to_owned(), line: at.line, column: at.column, ..self }
    }
}

impl fmt::Display for Problem {
    /// `file:line:column: key: message (hint)`; parts that are not known are left out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if self.line > 0 {
            write!(f, ":{}:{}", self.line, self.column)?;
        }
        if !self.key.is_empty() {
            write!(f, ": {}", self.key)?;
        }
        write!(f, ": {}", self.message)?;
        match &self.hint {
            Some(hint) => write!(f, " ({hint})"),
            None => Ok(()),
        }
    }
}

impl core::error::Error for Problem {}

/// Every problem of a bundle, by place; at least one, at most [`PROBLEMS_MAX`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problems {
    /// In the order of the file.
    pub list: Vec<Problem>,
    /// How many more there were.
    pub omitted: usize,
}

impl fmt::Display for Problems {
    /// One problem a line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.list.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            fmt::Display::fmt(problem, f)?;
        }
        if self.omitted > 0 {
            write!(f, "\n… and {} more", self.omitted)?;
        }
        Ok(())
    }
}

impl core::error::Error for Problems {}

impl From<Problem> for Problems {
    fn from(problem: Problem) -> Self {
        Self { list: vec![problem], omitted: 0 }
    }
}

/// Collects problems, bounded.
#[derive(Debug, Default)]
pub(crate) struct Collected {
    list: Vec<Problem>,
    omitted: usize,
}

impl Collected {
    pub(crate) fn add(&mut self, problem: Problem) {
        if self.list.contains(&problem) {
            return;
        }
        if self.list.len() < PROBLEMS_MAX {
            self.list.push(problem);
        } else {
            self.omitted += 1;
        }
    }

    /// Counts one that is told no more.
    pub(crate) fn count(&mut self) {
        self.omitted += 1;
    }

    /// Whether further problems are only counted, so that no work need go into their words.
    pub(crate) fn is_full(&self) -> bool {
        self.list.len() >= PROBLEMS_MAX
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Sorted by place; what stands at the same place keeps the order in which it was found.
    pub(crate) fn into_problems(mut self) -> Problems {
        self.list.sort_by(|a, b| (&a.file, a.line, a.column).cmp(&(&b.file, b.line, b.column)));
        Problems { list: self.list, omitted: self.omitted }
    }
}

/// A text of the file for a message: quoted, control characters made visible, cut when long.
pub(crate) fn excerpt(text: &str) -> String {
    let mut shown: String = text.chars().take(EXCERPT_CHARS_MAX).flat_map(char::escape_debug).collect();
    if text.chars().nth(EXCERPT_CHARS_MAX).is_some() {
        shown.push('…');
    }
    format!("`{shown}`")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn display_leaves_out_what_is_not_known() {
        let whole = Problem::new("a.yaml", Place::default(), "", "is empty");
        assert_eq!(whole.to_string(), "a.yaml: is empty");
        let placed = Problem::new("a.yaml", Place { source: 0, line: 3, column: 5 }, "services.web", "has no image")
            .with_hint("x");
        assert_eq!(placed.to_string(), "a.yaml:3:5: services.web: has no image (x)");
    }

    #[test]
    fn the_number_of_problems_is_bounded_and_the_rest_counted() {
        let mut collected = Collected::default();
        for line in (1..=PROBLEMS_MAX + 3).rev() {
            let line = u32::try_from(line).unwrap();
            collected.add(Problem::new("a", Place { source: 0, line, column: 1 }, "", "wrong"));
        }
        let problems = collected.into_problems();
        assert_eq!((problems.list.len(), problems.omitted), (PROBLEMS_MAX, 3));
        assert!(problems.list.is_sorted_by_key(|p| p.line));
        assert!(problems.to_string().ends_with("… and 3 more"));
    }

    #[test]
    fn an_excerpt_is_bounded_and_shows_control_characters() {
        assert_eq!(excerpt("a\u{1b}[31m"), "`a\\u{1b}[31m`");
        assert_eq!(excerpt(&"x".repeat(100)), format!("`{}…`", "x".repeat(EXCERPT_CHARS_MAX)));
    }
}
