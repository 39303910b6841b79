//! `${VARIABLE}` in values, with the forms of the Compose specification: `$A`, `${A}`, `$$`,
//! `${A:-default}`, `${A-default}`, `${A:?error}`, `${A?error}`, `${A:+other}`, `${A+other}`, nested.
//!
//! A text is parsed whole before anything is looked up, so a mistake in a default that is not used
//! is found as well. Errors name places and variables, never values.

use core::cell::Cell;

use zeroize::Zeroizing;

use crate::limits::{INTERPOLATION_DEPTH_MAX, TEXT_BYTES_MAX, VARIABLE_BYTES_MAX};

/// Bytes of variables that may still be looked up. Shared by everything that reads one app.
#[derive(Debug)]
pub(crate) struct Budget(Cell<usize>);

impl Budget {
    pub(crate) const fn new() -> Self {
        Self(Cell::new(VARIABLE_BYTES_MAX))
    }

    /// Once it is spent, nothing more is given, however little it is.
    fn spend(&self, bytes: usize) -> Result<(), InterpolationError> {
        let left = self.0.get().checked_sub(bytes);
        self.0.set(left.unwrap_or(0));
        if left.is_some() { Ok(()) } else { Err(InterpolationError::Budget) }
    }
}

/// A text with its variables found but not yet looked up.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Template(Vec<Piece>);

#[derive(Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Variable { name: String, rule: Rule },
}

/// What stands in when a variable is absent. `or_empty`: an empty value counts as absent (the forms
/// with a colon).
#[derive(Debug, PartialEq, Eq)]
enum Rule {
    Plain,
    Default { or_empty: bool, operand: Template },
    Required { or_empty: bool, message: String },
    Alternative { or_empty: bool, operand: Template },
}

/// Why a text cannot be put together. Characters count from 1.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum InterpolationError {
    #[error("the `$` at character {at} is not followed by a variable name")]
    Name { at: usize },
    #[error("the `${{` at character {at} is never closed")]
    Unclosed { at: usize },
    #[error("the `${{…}}` at character {at} has something after its name that is none of :- - :? ? :+ +")]
    Operator { at: usize },
    #[error("`${{…}}` nested deeper than {INTERPOLATION_DEPTH_MAX} levels")]
    Depth,
    #[error("the variable {name} must be set{}{message}", if message.is_empty() { "" } else { ": " })]
    Required { name: String, message: String },
    #[error("with its variables put in, the text has more than {TEXT_BYTES_MAX} bytes")]
    Length,
    #[error(
        "from here on the variables put in are more than {VARIABLE_BYTES_MAX} bytes together; nothing further was read"
    )]
    Budget,
    #[error("the value of the variable {name} has a NUL character")]
    Nul { name: String },
}

impl InterpolationError {
    /// What to do about it.
    pub(crate) fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Name { .. } | Self::Operator { .. } | Self::Unclosed { .. } => {
                Some("write `$$` for a dollar sign, `${NAME}` or `${NAME:-default}` for a variable")
            }
            Self::Required { .. } => Some("set it in the environment or in `.env` beside the file"),
            Self::Budget => Some("a long value belongs into a config or a secret, which is read once"),
            Self::Depth | Self::Length | Self::Nul { .. } => None,
        }
    }
}

impl Template {
    /// Finds the variables of `text`.
    pub(crate) fn parse(text: &str) -> Result<Self, InterpolationError> {
        let mut parser = Parser { text, at: 0 };
        parser.pieces(0, None).map(Self)
    }

    /// Whether any variable stands in it, set or not.
    pub(crate) fn has_variables(&self) -> bool {
        self.0.iter().any(|piece| matches!(piece, Piece::Variable { .. }))
    }

    /// Puts the values in. Names that are absent and have no rule count as empty and are added to
    /// `unset`.
    pub(crate) fn resolve<'v>(
        &self,
        lookup: &dyn Fn(&str) -> Option<&'v str>,
        unset: &mut Vec<String>,
        budget: &Budget,
    ) -> Result<Zeroizing<String>, InterpolationError> {
        let mut out = Zeroizing::new(String::new());
        self.resolve_into(lookup, unset, budget, &mut out)?;
        Ok(out)
    }

    fn resolve_into<'v>(
        &self,
        lookup: &dyn Fn(&str) -> Option<&'v str>,
        unset: &mut Vec<String>,
        budget: &Budget,
        out: &mut String,
    ) -> Result<(), InterpolationError> {
        for piece in &self.0 {
            match piece {
                Piece::Text(text) => push(out, text)?,
                Piece::Variable { name, rule } => {
                    let value = lookup(name);
                    budget.spend(value.map_or(0, str::len))?;
                    if value.is_some_and(|value| value.contains('\0')) {
                        return Err(InterpolationError::Nul { name: name.clone() });
                    }
                    let present = |or_empty: bool| value.filter(|value| !(or_empty && value.is_empty()));
                    match rule {
                        Rule::Plain => match value {
                            Some(value) => push(out, value)?,
                            None => unset.push(name.clone()),
                        },
                        Rule::Default { or_empty, operand } => match present(*or_empty) {
                            Some(value) => push(out, value)?,
                            None => operand.resolve_into(lookup, unset, budget, out)?,
                        },
                        Rule::Required { or_empty, message } => match present(*or_empty) {
                            Some(value) => push(out, value)?,
                            None => {
                                let (name, message) = (name.clone(), message.clone());
                                return Err(InterpolationError::Required { name, message });
                            }
                        },
                        Rule::Alternative { or_empty, operand } => {
                            if present(*or_empty).is_some() {
                                operand.resolve_into(lookup, unset, budget, out)?;
                            }
                        }
                    }
                }
            }
        }
        Ok(())
    }
}

fn push(out: &mut String, text: &str) -> Result<(), InterpolationError> {
    if out.len() + text.len() > TEXT_BYTES_MAX {
        return Err(InterpolationError::Length);
    }
    out.push_str(text);
    Ok(())
}

struct Parser<'t> {
    text: &'t str,
    at: usize,
}

impl<'t> Parser<'t> {
    fn rest(&self) -> &'t str {
        &self.text[self.at..]
    }

    fn character(&self, byte: usize) -> usize {
        self.text[..byte].chars().count() + 1
    }

    /// Reads until the end, or, inside braces opened at byte `opened`, past the brace that closes
    /// them. Braces in an operand may nest, so `${A:-{"x":1}}` is what it looks like.
    fn pieces(&mut self, depth: usize, opened: Option<usize>) -> Result<Vec<Piece>, InterpolationError> {
        let (mut pieces, mut plain, mut braces) = (Vec::new(), String::new(), 0usize);
        while let Some(c) = self.rest().chars().next() {
            match c {
                '$' if self.rest().starts_with("$$") => {
                    plain.push('$');
                    self.at += 2;
                }
                '$' => {
                    if !plain.is_empty() {
                        pieces.push(Piece::Text(core::mem::take(&mut plain)));
                    }
                    pieces.push(self.variable(depth)?);
                }
                '}' if opened.is_some() && braces == 0 => {
                    self.at += 1;
                    if !plain.is_empty() {
                        pieces.push(Piece::Text(plain));
                    }
                    return Ok(pieces);
                }
                c => {
                    match c {
                        '{' => braces += 1,
                        '}' => braces = braces.saturating_sub(1),
                        _ => {}
                    }
                    plain.push(c);
                    self.at += c.len_utf8();
                }
            }
        }
        if let Some(opened) = opened {
            return Err(InterpolationError::Unclosed { at: self.character(opened) });
        }
        if !plain.is_empty() {
            pieces.push(Piece::Text(plain));
        }
        Ok(pieces)
    }

    fn name(&mut self, dollar: usize) -> Result<String, InterpolationError> {
        let rest = self.rest();
        let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(rest.len());
        let name = &rest[..end];
        if name.is_empty() || name.as_bytes()[0].is_ascii_digit() {
            return Err(InterpolationError::Name { at: self.character(dollar) });
        }
        self.at += end;
        Ok(name.to_owned())
    }

    fn variable(&mut self, depth: usize) -> Result<Piece, InterpolationError> {
        let dollar = self.at;
        self.at += 1;
        if !self.rest().starts_with('{') {
            return Ok(Piece::Variable { name: self.name(dollar)?, rule: Rule::Plain });
        }
        if depth >= INTERPOLATION_DEPTH_MAX {
            return Err(InterpolationError::Depth);
        }
        self.at += 1;
        let name = self.name(dollar)?;
        let or_empty = self.rest().starts_with(':');
        self.at += usize::from(or_empty);
        let operator = self.rest().chars().next();
        if operator == Some('}') && !or_empty {
            self.at += 1;
            return Ok(Piece::Variable { name, rule: Rule::Plain });
        }
        let Some(operator @ ('-' | '?' | '+')) = operator else {
            let at = self.character(dollar);
            return Err(match operator {
                None => InterpolationError::Unclosed { at },
                Some(_) => InterpolationError::Operator { at },
            });
        };
        self.at += 1;
        let from = self.at;
        let operand = Template(self.pieces(depth + 1, Some(dollar))?);
        let rule = match operator {
            '-' => Rule::Default { or_empty, operand },
            '+' => Rule::Alternative { or_empty, operand },
            // As written: variables in it stay names, so that the message cannot show a value.
            _ => Rule::Required { or_empty, message: self.text[from..self.at - 1].to_owned() },
        };
        Ok(Piece::Variable { name, rule })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn resolve(text: &str) -> Result<(String, Vec<String>), InterpolationError> {
        let variables = BTreeMap::from([("A", "1"), ("EMPTY", ""), ("B", "two"), ("NUL", "a\0b")]);
        let mut unset = Vec::new();
        let out = Template::parse(text)?.resolve(&|name| variables.get(name).copied(), &mut unset, &Budget::new())?;
        Ok((out.to_string(), unset))
    }

    fn check(text: &str, expected: &str) {
        assert_eq!(resolve(text).map(|(out, _)| out), Ok(expected.to_owned()), "{text}");
    }

    fn check_error(text: &str, expected: &str) {
        assert_eq!(resolve(text).map_err(|error| error.to_string()), Err(expected.to_owned()), "{text}");
    }

    #[test]
    fn every_form_of_the_specification() {
        check("plain", "plain");
        check("$A-${B}!", "1-two!");
        check("$$A $${B}", "$A ${B}");
        check("$A$B", "1two");
        check("${EMPTY:-x}${EMPTY-x}${NONE-y}${NONE:-z}${A:-no}", "xyz1");
        check("${EMPTY:+x}${EMPTY+y}${A:+z}${NONE+no}${NONE:+no}", "yz");
        check("${A:?must}${EMPTY?must}", "1");
        check("${NONE:-${EMPTY:-${B}}}", "two");
        check("${NONE:-$A and $$}", "1 and $");
        check(r#"${NONE:-{"x":{"y":1}}}"#, r#"{"x":{"y":1}}"#);
        check("a}b{", "a}b{");
        check("${NONE}|$NONE", "|");
        check("größe-${A}", "größe-1");
    }

    #[test]
    fn absent_variables_are_named() {
        assert_eq!(resolve("${X} $Y ${A} ${Z:-}").map(|(_, unset)| unset), Ok(vec!["X".to_owned(), "Y".to_owned()]));
    }

    #[test]
    fn mistakes_are_named_without_values() {
        check_error("pa$", "the `$` at character 3 is not followed by a variable name");
        check_error("$(id)", "the `$` at character 1 is not followed by a variable name");
        check_error("é$1", "the `$` at character 2 is not followed by a variable name");
        check_error("${}", "the `$` at character 1 is not followed by a variable name");
        check_error("x ${A", "the `${` at character 3 is never closed");
        check_error("${A:-{}", "the `${` at character 1 is never closed");
        check_error("${A b}", "the `${…}` at character 1 has something after its name that is none of :- - :? ? :+ +");
        check_error("${A:}", "the `${…}` at character 1 has something after its name that is none of :- - :? ? :+ +");
        check_error("${NONE:?set $B now}", "the variable NONE must be set: set $B now");
        check_error("${EMPTY:?}", "the variable EMPTY must be set");
        check_error("${NUL}", "the value of the variable NUL has a NUL character");
        check_error("${A:-${", "the `$` at character 6 is not followed by a variable name");
        check_error(&"${A:-".repeat(40), "`${…}` nested deeper than 16 levels");
    }

    #[test]
    fn the_result_is_bounded() {
        let value = "x".repeat(TEXT_BYTES_MAX / 2);
        let template = Template::parse("$A$A$A").unwrap();
        assert_eq!(
            template.resolve(&|_| Some(&value), &mut Vec::new(), &Budget::new()).err(),
            Some(InterpolationError::Length)
        );
    }

    /// Also where nothing is put in: each look at a long value takes time.
    #[test]
    fn what_is_looked_up_is_bounded_over_all_texts() {
        let value = "x".repeat(TEXT_BYTES_MAX);
        let (budget, template) = (Budget::new(), Template::parse("${A:+}").unwrap());
        let resolve = || template.resolve(&|_| Some(&value), &mut Vec::new(), &budget).map(|text| text.len());
        for _ in 0..VARIABLE_BYTES_MAX / TEXT_BYTES_MAX {
            assert_eq!(resolve(), Ok(0));
        }
        assert_eq!(resolve(), Err(InterpolationError::Budget));
        let little = Template::parse("$A").unwrap().resolve(&|_| Some("x"), &mut Vec::new(), &budget);
        assert_eq!(little.err(), Some(InterpolationError::Budget), "once it is spent it stays so");
    }

    fn rendered(template: &Template) -> String {
        let piece = |piece: &Piece| match piece {
            Piece::Text(text) => text.replace('$', "$$"),
            Piece::Variable { name, rule } => {
                let colon = |or_empty: &bool| if *or_empty { ":" } else { "" };
                match rule {
                    Rule::Plain => format!("${{{name}}}"),
                    Rule::Default { or_empty, operand } => {
                        format!("${{{name}{}-{}}}", colon(or_empty), rendered(operand))
                    }
                    Rule::Required { or_empty, message } => format!("${{{name}{}?{message}}}", colon(or_empty)),
                    Rule::Alternative { or_empty, operand } => {
                        format!("${{{name}{}+{}}}", colon(or_empty), rendered(operand))
                    }
                }
            }
        };
        template.0.iter().map(piece).collect()
    }

    fn template() -> impl Strategy<Value = Template> {
        let name = "[A-Z_][A-Z0-9_]{0,4}";
        let text = "[a-z $:?+-]{1,6}".prop_map(Piece::Text);
        let plain = name.prop_map(|name| Piece::Variable { name, rule: Rule::Plain });
        let leaf = proptest::collection::vec(prop_oneof![text, plain], 0..3).prop_map(joined);
        leaf.prop_recursive(4, 24, 4, move |inner| {
            let variable = (name, any::<bool>(), inner, 0..3, "[a-z ]{0,6}").prop_map(
                |(name, or_empty, operand, kind, message)| Piece::Variable {
                    name,
                    rule: match kind {
                        0 => Rule::Default { or_empty, operand },
                        1 => Rule::Alternative { or_empty, operand },
                        _ => Rule::Required { or_empty, message },
                    },
                },
            );
            let text = "[a-z $]{1,6}".prop_map(Piece::Text);
            proptest::collection::vec(prop_oneof![text, variable], 0..4).prop_map(joined)
        })
    }

    /// Neighbouring texts as one, as the parser gives them.
    fn joined(pieces: Vec<Piece>) -> Template {
        let mut out: Vec<Piece> = Vec::new();
        for piece in pieces {
            match (out.last_mut(), piece) {
                (Some(Piece::Text(before)), Piece::Text(text)) => before.push_str(&text),
                (_, piece) => out.push(piece),
            }
        }
        Template(out)
    }

    proptest! {
        #[test]
        fn a_rendered_template_parses_to_itself(template in template()) {
            prop_assert_eq!(Template::parse(&rendered(&template)), Ok(template));
        }

        #[test]
        fn an_escaped_text_comes_back(text in any::<String>()) {
            let template = Template::parse(&text.replace('$', "$$")).unwrap();
            prop_assert!(!template.has_variables());
            prop_assert_eq!(&*template.resolve(&|_| None, &mut Vec::new(), &Budget::new()).unwrap(), &text);
        }

        #[test]
        fn any_text_is_parsed_or_refused(text in any::<String>(), near in "[${}:?+A-]{0,30}") {
            let _ = (Template::parse(&text), Template::parse(&near));
        }
    }
}
