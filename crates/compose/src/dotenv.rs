//! `.env` files, by the rules of Compose: `NAME=value`, `export NAME=value`, comments, single quotes
//! (taken literally), double quotes (escapes and variables), values over several lines in quotes.
//!
//! Messages name the line and the variable, never a value.

use std::collections::BTreeMap;

use crate::{
    interpolate::{Budget, Template},
    limits::{EXPANDED_BYTES_MAX, FILE_BYTES_MAX, NAME_BYTES_MAX, TEXT_BYTES_MAX},
    problem::{Place, Problem},
};

const FILE: &str = ".env";

/// What a file of variables says.
pub(crate) struct Variables {
    /// Names with their values.
    pub(crate) variables: BTreeMap<String, String>,
    /// Names without one: they stand for themselves in the environment.
    pub(crate) bare: Vec<String>,
}

/// Reads a `.env` file. Variables in its values are looked up in the file itself, upwards.
///
/// # Errors
/// The first line that is not understood.
pub fn dotenv(text: &str) -> Result<BTreeMap<String, String>, Problem> {
    dotenv_over(text, &BTreeMap::new())
}

/// As [`dotenv`], with an environment that wins over the file where its values refer to variables.
/// The result holds the file's variables only.
///
/// # Errors
/// The first line that is not understood.
pub fn dotenv_over(text: &str, environment: &BTreeMap<String, String>) -> Result<BTreeMap<String, String>, Problem> {
    read(FILE, text, &|name| environment.get(name).map(String::as_str)).map(|read| read.variables)
}

/// Reads the file at `path`; variables in its values are looked up by `environment`, then in the file itself.
pub(crate) fn file<'e>(
    path: &str,
    bytes: &[u8],
    environment: &dyn Fn(&str) -> Option<&'e str>,
) -> Result<Variables, Problem> {
    read(path, text(path, bytes)?, environment)
}

/// Reads the file at `path` as plain `NAME=value` lines: nothing is quoted, nothing is put in.
pub(crate) fn raw_file(path: &str, bytes: &[u8]) -> Result<Variables, Problem> {
    let mut read = Variables { variables: BTreeMap::new(), bare: Vec::new() };
    for (index, line) in text(path, bytes)?.lines().enumerate() {
        let line = line.trim_end_matches('\r');
        if line.trim().is_empty() || line.trim_start().starts_with('#') {
            continue;
        }
        let (name, value) = line.split_once('=').map_or((line, None), |(name, value)| (name, Some(value)));
        let known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
        if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.chars().all(known) || line.contains('\0') {
            let at = Place { source: 0, line: u32::try_from(index + 1).unwrap_or(u32::MAX), column: 1 };
            let problem = Problem::new(path, at, "", "the line is not NAME=value");
            return Err(problem.with_hint("with `format: raw` each line is NAME=value as it is, one variable a line"));
        }
        match value {
            Some(value) => drop(read.variables.insert(name.to_owned(), value.to_owned())),
            None => read.bare.push(name.to_owned()),
        }
    }
    Ok(read)
}

fn text<'b>(path: &str, bytes: &'b [u8]) -> Result<&'b str, Problem> {
    core::str::from_utf8(bytes).map_err(|_| {
        Problem::new(path, Place::default(), "", "the file is not UTF-8 text").with_hint("save it as UTF-8")
    })
}

fn read<'e>(path: &str, text: &str, environment: &dyn Fn(&str) -> Option<&'e str>) -> Result<Variables, Problem> {
    if text.len() > FILE_BYTES_MAX {
        let message = format!("the file has {} bytes, more than {FILE_BYTES_MAX}", text.len());
        return Err(Problem::new(path, Place::default(), "", message));
    }
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let read = Variables { variables: BTreeMap::new(), bare: Vec::new() };
    let mut reader = Reader { path, text, at: 0, read, environment, bytes: 0, budget: Budget::new() };
    while reader.line()? {}
    Ok(reader.read)
}

struct Reader<'t, 'e> {
    path: &'t str,
    text: &'t str,
    at: usize,
    read: Variables,
    environment: &'t dyn Fn(&str) -> Option<&'e str>,
    /// Of all values so far: each may repeat the ones before it.
    bytes: usize,
    /// What may still be looked up of them.
    budget: Budget,
}

enum Quote {
    None,
    Single,
    Double,
}

impl<'t> Reader<'t, '_> {
    fn rest(&self) -> &'t str {
        &self.text[self.at..]
    }

    fn problem(&self, at: usize, key: &str, message: impl Into<String>) -> Problem {
        let before = &self.text[..at];
        let line = u32::try_from(before.matches('\n').count() + 1).unwrap_or(u32::MAX);
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        Problem::new(
            self.path,
            Place { source: 0, line, column: u32::try_from(column).unwrap_or(u32::MAX) },
            key,
            message,
        )
    }

    fn skip(&mut self, which: impl Fn(char) -> bool) {
        self.at += self.rest().find(|c| !which(c)).unwrap_or(self.rest().len());
    }

    fn skip_line(&mut self) {
        self.skip(|c| c != '\n');
    }

    /// Reads one variable, comment or empty line; false at the end.
    fn line(&mut self) -> Result<bool, Problem> {
        self.skip(char::is_whitespace);
        if self.rest().is_empty() {
            return Ok(false);
        }
        if self.rest().starts_with('#') {
            self.skip_line();
            return Ok(true);
        }
        if let Some(after) = self.rest().strip_prefix("export")
            && after.starts_with([' ', '\t'])
        {
            self.at += "export".len();
            self.skip(|c| matches!(c, ' ' | '\t'));
        }
        let name = self.name()?;
        self.skip(|c| matches!(c, ' ' | '\t'));
        match self.rest().chars().next() {
            Some('=' | ':') => self.at += 1,
            // A bare name stands for itself in the environment, which the caller has anyway.
            None | Some('\n' | '\r' | '#') => {
                self.read.bare.push(name);
                self.skip_line();
                return Ok(true);
            }
            Some(_) => {
                return Err(self
                    .problem(self.at, &name, "after the name comes =")
                    .with_hint("write NAME=value, one variable a line"));
            }
        }
        let at = self.at;
        let value = self.value(&name)?;
        self.bytes += value.len();
        if self.bytes > EXPANDED_BYTES_MAX {
            let message = format!("the values of the file have more than {EXPANDED_BYTES_MAX} bytes together");
            return Err(self.problem(at, &name, message));
        }
        self.read.variables.insert(name, value);
        Ok(true)
    }

    fn name(&mut self) -> Result<String, Problem> {
        let from = self.at;
        let known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
        self.skip(known);
        let name = &self.text[from..self.at];
        if name.is_empty() || name.len() > NAME_BYTES_MAX || name.as_bytes()[0].is_ascii_digit() {
            return Err(self
                .problem(from, "", "a variable's name is expected here")
                .with_hint("write NAME=value, one variable a line; a value over several lines stands in quotes"));
        }
        Ok(name.to_owned())
    }

    fn value(&mut self, name: &str) -> Result<String, Problem> {
        self.skip(|c| matches!(c, ' ' | '\t'));
        let from = self.at;
        let (raw, quote) = match self.rest().chars().next() {
            Some('\'') => (self.quoted(name, '\'')?, Quote::Single),
            Some('"') => (self.quoted(name, '"')?, Quote::Double),
            _ => (self.unquoted(), Quote::None),
        };
        if raw.contains('\0') {
            return Err(self.problem(from, name, "the value has a NUL character"));
        }
        let value = match quote {
            Quote::Single => raw.to_owned(),
            Quote::Double => self.resolved(from, name, &unescaped(raw))?,
            Quote::None => self.resolved(from, name, raw)?,
        };
        if value.len() > TEXT_BYTES_MAX {
            return Err(self.problem(from, name, format!("the value has more than {TEXT_BYTES_MAX} bytes")));
        }
        Ok(value)
    }

    /// Up to the end of the line or a comment, without blanks at the end.
    fn unquoted(&mut self) -> &'t str {
        let from = self.at;
        self.skip_line();
        let line = &self.text[from..self.at];
        let comment = line.char_indices().zip(core::iter::once(' ').chain(line.chars()));
        let end = comment
            .filter(|((_, c), before)| *c == '#' && before.is_whitespace())
            .map(|((at, _), _)| at)
            .next()
            .unwrap_or(line.len());
        line[..end].trim_end()
    }

    /// What stands between two quotes; after the closing one, only a comment may follow.
    fn quoted(&mut self, name: &str, quote: char) -> Result<&'t str, Problem> {
        let opened = self.at;
        let mut escaped = false;
        let inner = &self.text[opened + 1..];
        let end = inner.find(|c: char| {
            let closes = c == quote && !escaped;
            escaped = c == '\\' && !escaped && quote == '"';
            closes
        });
        let Some(end) = end else {
            return Err(self.problem(opened, name, "the quote that opens here is never closed"));
        };
        self.at = opened + 1 + end + 1;
        self.skip(|c| matches!(c, ' ' | '\t' | '\r'));
        match self.rest().chars().next() {
            None | Some('\n') => {}
            Some('#') => self.skip_line(),
            Some(_) => {
                return Err(self.problem(self.at, name, "something stands after the closing quote"));
            }
        }
        Ok(&inner[..end])
    }

    fn resolved(&self, at: usize, name: &str, raw: &str) -> Result<String, Problem> {
        let own = |name: &str| self.read.variables.get(name).map(String::as_str);
        let lookup = |name: &str| (self.environment)(name).or_else(|| own(name));
        let resolved =
            Template::parse(raw).and_then(|template| template.resolve(&lookup, &mut Vec::new(), &self.budget));
        match resolved {
            Ok(value) => Ok(value.to_string()),
            Err(error) => {
                let problem = self.problem(at, name, error.to_string());
                Err(problem.with_hint("single quotes keep a dollar sign as it is; `$$` is a plain one elsewhere"))
            }
        }
    }
}

/// The escapes of double quotes. An escaped dollar sign becomes `$$`, which later stands for one.
fn unescaped(raw: &str) -> String {
    let mut out = String::with_capacity(raw.len());
    let mut chars = raw.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        match chars.next() {
            Some('n') => out.push('\n'),
            Some('r') => out.push('\r'),
            Some('t') => out.push('\t'),
            Some('$') => out.push_str("$$"),
            Some(other @ ('\\' | '"' | '\'')) => out.push(other),
            Some(other) => out.extend(['\\', other]),
            None => out.push('\\'),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(text: &str, expected: &[(&str, &str)]) {
        let expected = expected.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect();
        assert_eq!(dotenv(text), Ok(expected), "{text}");
    }

    fn check_error(text: &str, expected: &str) {
        assert_eq!(dotenv(text).map_err(|problem| problem.to_string()), Err(expected.to_owned()), "{text}");
    }

    #[test]
    fn every_form_of_a_line() {
        check("", &[]);
        check("# only a comment\n\n", &[]);
        check("A=1\nB = two words \r\nexport C=3\n  D: 4", &[("A", "1"), ("B", "two words"), ("C", "3"), ("D", "4")]);
        check("A=value # comment\nB=a#b\nC=# comment", &[("A", "value"), ("B", "a#b"), ("C", "")]);
        check("A='$x \\n # kept' # comment", &[("A", "$x \\n # kept")]);
        check(r#"A="a\tb\n\"c\" \$d \\ \q""#, &[("A", "a\tb\n\"c\" $d \\ \\q")]);
        check("A=\"first\nsecond\"\nB=1", &[("A", "first\nsecond"), ("B", "1")]);
        check("A=\nB=''\nC=\"\"", &[("A", ""), ("B", ""), ("C", "")]);
        check("A=x\nB=${A}y\nC=\"$A-${NONE:-z}\"\nD='${A}'", &[("A", "x"), ("B", "xy"), ("C", "x-z"), ("D", "${A}")]);
        check("A=1\nA=2", &[("A", "2")]);
        check("FROM_ENVIRONMENT\nA=1", &[("A", "1")]);
        check("export=1", &[("export", "1")]);
        check("\u{feff}A=größe", &[("A", "größe")]);
        check("URL=postgres://u:p@h/db?x=1&y=2", &[("URL", "postgres://u:p@h/db?x=1&y=2")]);
    }

    #[test]
    fn values_that_repeat_each_other_are_bounded_together() {
        let mut text = format!("A={}\n", "x".repeat(100_000));
        for n in 0..1_000 {
            text.push_str(&format!("B{n}=$A\n"));
        }
        let problem = dotenv(&text).expect_err("a hundred megabytes from a hundred kilobytes");
        assert!(problem.to_string().starts_with(".env:42:5: B40: the values of the file have more than"), "{problem}");
    }

    #[test]
    fn the_environment_wins_where_values_refer_to_it() {
        let environment = BTreeMap::from([("A".to_owned(), "outer".to_owned())]);
        let expected = BTreeMap::from([("A".to_owned(), "x".to_owned()), ("B".to_owned(), "outer".to_owned())]);
        assert_eq!(dotenv_over("A=x\nB=$A", &environment), Ok(expected));
    }

    #[test]
    fn mistakes_name_the_place_and_never_the_value() {
        check_error(
            "A=1\n=hunter2",
            ".env:2:1: a variable's name is expected here (write NAME=value, one variable a line; a value over several lines stands in quotes)",
        );
        check_error("A='hunter2", ".env:1:3: A: the quote that opens here is never closed");
        check_error("A=\"hunter2\" x", ".env:1:13: A: something stands after the closing quote");
        check_error("A hunter2", ".env:1:3: A: after the name comes = (write NAME=value, one variable a line)");
        check_error("A=a\0b", ".env:1:3: A: the value has a NUL character");
        check_error(
            "A=pa$!word",
            ".env:1:3: A: the `$` at character 3 is not followed by a variable name (single quotes keep a dollar sign as it is; `$$` is a plain one elsewhere)",
        );
    }

    proptest! {
        #[test]
        fn a_quoted_value_comes_back(name in "[A-Z_][A-Z0-9_]{0,8}", value in "[^\0\r]{0,40}") {
            let escaped = value.replace('\\', "\\\\").replace('"', "\\\"").replace('$', "\\$");
            prop_assert_eq!(dotenv(&format!("{name}=\"{escaped}\"")), Ok(BTreeMap::from([(name, value)])));
        }

        #[test]
        fn any_text_is_read_or_refused(text in any::<String>(), near in "([A-Z]{1,2}[= ]['\"$#\\\\a\n]{0,6}\n?){0,6}") {
            let _ = (dotenv(&text), dotenv(&near));
        }
    }
}
