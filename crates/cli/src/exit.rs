//! How a run of this program ends: what a failure says, and which exit code stands for it.
//!
//! Scripts rely on the codes: 0 done; 1 the operation ended otherwise than well; 2 usage or invalid
//! input; 3 not signed in or not allowed; 4 control plane not reachable; 130 interrupted.

use std::{fmt::Write as _, io, path::Path};

use api::{FieldError, Problem};
use serde::Serialize;

use crate::output::clean;

/// How a command ended that could say its say on standard output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// Exit code 0.
    Well,
    /// Exit code 1; standard output says what happened.
    NotWell,
}

impl Ended {
    /// [`Ended::Well`] if so.
    pub(crate) const fn well_if(well: bool) -> Self {
        if well { Self::Well } else { Self::NotWell }
    }
}

/// What kind of failure, by the exit code it leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// It was asked for, and did not end well.
    NotWell,
    /// Usage or invalid input: nothing was done.
    Invalid,
    /// Not signed in, or not allowed.
    NotAllowed,
    /// The control plane did not answer.
    Unreachable,
    /// Ctrl-C.
    Interrupted,
    /// Nobody reads standard output any more, as after `| head`: no failure to speak of.
    OutputClosed,
}

impl Kind {
    /// The process's exit code.
    pub(crate) const fn code(self) -> u8 {
        match self {
            Self::OutputClosed => 0,
            Self::NotWell => 1,
            Self::Invalid => 2,
            Self::NotAllowed => 3,
            Self::Unreachable => 4,
            Self::Interrupted => 130,
        }
    }

    /// The identifier of a failure that this program found itself.
    const fn urn(self) -> &'static str {
        match self {
            Self::NotWell | Self::OutputClosed => "urn:serverflow:cli:failed",
            Self::Invalid => "urn:serverflow:cli:invalid",
            Self::NotAllowed => "urn:serverflow:cli:not-signed-in",
            Self::Unreachable => "urn:serverflow:cli:unreachable",
            Self::Interrupted => "urn:serverflow:cli:interrupted",
        }
    }
}

/// Why a command did not do what was asked.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Failure {
    pub(crate) kind: Kind,
    /// What happened, to what.
    detail: String,
    /// What to do next.
    hint: Option<String>,
    /// Single fields that were wrong.
    fields: Vec<FieldError>,
    /// Places in a file that were wrong.
    places: Vec<compose::Problem>,
    /// How many more places there were.
    places_omitted: usize,
    /// What the control plane said, if it was the control plane.
    problem: Option<Box<Problem>>,
    /// The HTTP status code it answered with.
    pub(crate) status: Option<u16>,
}

impl Failure {
    /// What happened, and what to do next.
    pub(crate) fn words(&self) -> (&str, Option<&str>) {
        (&self.detail, self.hint.as_deref())
    }

    pub(crate) fn new(kind: Kind, detail: impl Into<String>) -> Self {
        let detail = detail.into();
        let (fields, places) = (Vec::new(), Vec::new());
        Self { kind, detail, hint: None, fields, places, places_omitted: 0, problem: None, status: None }
    }

    /// Usage or invalid input.
    pub(crate) fn invalid(detail: impl Into<String>) -> Self {
        Self::new(Kind::Invalid, detail)
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Something more to do next.
    pub(crate) fn and_hint(mut self, more: impl std::fmt::Display) -> Self {
        self.hint = Some(self.hint.map_or_else(|| more.to_string(), |hint| format!("{hint}; {more}")));
        self
    }

    pub(crate) fn fields(mut self, fields: Vec<FieldError>) -> Self {
        self.fields = fields;
        self
    }

    /// What is wrong with the files of an app.
    pub(crate) fn places(problems: compose::Problems, detail: impl Into<String>) -> Self {
        let mut failure = Self::invalid(detail);
        failure.places = problems.list;
        failure.places_omitted = problems.omitted;
        failure
    }

    /// A file that cannot be read or written.
    pub(crate) fn file(verb: &str, path: &Path, error: &io::Error) -> Self {
        Self::invalid(format!("cannot {verb} {}: {}", path.display(), io_words(error)))
    }

    /// What the control plane refused. `status` is the HTTP status code it answered with.
    pub(crate) fn refused(status: u16, problem: Problem) -> Self {
        let kind = kind_of_status(status);
        let mut failure = Self::new(kind, problem.detail.clone());
        failure.fields.clone_from(&problem.errors);
        // What its words advise already is not said twice.
        if status == 401 && !problem.detail.contains("serverflow login") {
            failure.hint = Some(SIGN_IN_HINT.to_owned());
        }
        failure.problem = Some(Box::new(problem));
        failure.status = Some(status);
        failure
    }

    /// Whether there is nothing at that path.
    pub(crate) fn is_not_found(&self) -> bool {
        self.status == Some(404)
    }

    /// The operating system gave no randomness.
    pub(crate) fn randomness() -> Self {
        Self::new(Kind::NotWell, "the operating system gives no random numbers, so nothing was sent")
    }

    /// The failure as lines for a person.
    pub(crate) fn lines(&self) -> String {
        let mut text = String::new();
        for place in &self.places {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{}", clean(&place.to_string()));
        }
        if self.places_omitted > 0 {
            let _ = writeln!(text, "… and {} more", self.places_omitted);
        }
        let _ = writeln!(text, "error: {}", clean(&self.detail));
        // A single field is often all that the detail is about.
        let is_said = |field: &FieldError| self.fields.len() == 1 && self.detail.contains(&field.message);
        for field in self.fields.iter().filter(|field| !is_said(field)) {
            let _ = writeln!(text, "  {}: {}", clean(&field.field), clean(&field.message));
        }
        if let Some(hint) = &self.hint {
            let _ = writeln!(text, "  {}", clean(hint));
        }
        text
    }

    /// The failure as a document for a script.
    pub(crate) fn document(&self) -> ErrorDocument<'_> {
        let problem = self.problem.as_deref();
        ErrorDocument {
            kind: problem.map_or(self.kind.urn(), |problem| &problem.kind),
            title: problem.map(|problem| problem.title.as_str()),
            http_status: problem.map(|problem| problem.status),
            exit_code: self.kind.code(),
            detail: &self.detail,
            hint: self.hint.as_deref(),
            errors: &self.fields,
            problems: &self.places,
            problems_omitted: self.places_omitted,
        }
    }
}

/// What to do when the control plane does not know who is asking.
pub(crate) const SIGN_IN_HINT: &str =
    "sign in with `serverflow login URL`, or set SERVERFLOW_TOKEN to a token that is still valid";

/// What `--json` writes to standard error when a command fails.
#[derive(Serialize)]
pub(crate) struct ErrorDocument<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    title: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    http_status: Option<u16>,
    exit_code: u8,
    detail: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<&'a str>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    errors: &'a [FieldError],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    problems: &'a [compose::Problem],
    #[serde(skip_serializing_if = "is_zero")]
    problems_omitted: usize,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's skip_serializing_if passes a reference")]
const fn is_zero(number: &usize) -> bool {
    *number == 0
}

/// Which kind of failure an HTTP status code stands for.
pub(crate) const fn kind_of_status(status: u16) -> Kind {
    match status {
        400 | 404 | 405 | 406 | 410 | 411 | 413 | 414 | 415 | 422 => Kind::Invalid,
        401 | 403 | 407 | 511 => Kind::NotAllowed,
        502..=504 => Kind::Unreachable,
        _ => Kind::NotWell,
    }
}

/// An IO error without the number the standard library appends.
pub(crate) fn io_words(error: &io::Error) -> String {
    let text = error.to_string();
    let words = text.split(" (os error").next().unwrap_or(&text);
    let mut letters = words.chars();
    letters.next().map_or_else(String::new, |first| first.to_lowercase().chain(letters).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_codes_lead_to_the_promised_exit_codes() {
        for (status, code) in [
            (400, 2),
            (401, 3),
            (403, 3),
            (404, 2),
            (409, 1),
            (413, 2),
            (422, 2),
            (429, 1),
            (500, 1),
            (502, 4),
            (503, 4),
            (504, 4),
        ] {
            assert_eq!(kind_of_status(status).code(), code, "{status}");
        }
    }

    #[test]
    fn a_refusal_keeps_the_words_and_names_the_fields() {
        let problem = Problem {
            kind: "urn:serverflow:invalid".to_owned(),
            title: "invalid input".to_owned(),
            status: 422,
            detail: "the parameters of host.facts are not valid".to_owned(),
            errors: vec![FieldError { field: "parameters.x".to_owned(), message: "unknown\u{1b}[2J".to_owned() }],
            problems: Vec::new(),
            problems_omitted: 0,
        };
        let unknown = Problem { detail: "sign in with `serverflow login`".to_owned(), ..problem.clone() };
        assert_eq!(Failure::refused(401, unknown).hint, None);
        assert!(Failure::refused(401, problem.clone()).hint.is_some());
        let failure = Failure::refused(422, problem);
        let expected = expect_test::expect![[r"
            error: the parameters of host.facts are not valid
              parameters.x: unknown�[2J
        "]];
        expected.assert_eq(&failure.lines());
        let json = serde_json::to_value(failure.document()).unwrap();
        assert_eq!((&json["type"], &json["exit_code"]), (&"urn:serverflow:invalid".into(), &2.into()));
        assert_eq!(json["errors"][0]["field"], "parameters.x");
    }

    #[test]
    fn a_field_that_the_detail_is_about_is_said_once() {
        let field = |name: &str| FieldError { field: name.to_owned(), message: "too long".to_owned() };
        let one = Failure::invalid("name: too long").fields(vec![field("name")]);
        assert_eq!(one.lines(), "error: name: too long\n");
        let two = Failure::invalid("name: too long").fields(vec![field("name"), field("role")]);
        assert_eq!(two.lines(), "error: name: too long\n  name: too long\n  role: too long\n");
        assert_eq!(one.and_hint("a").and_hint("b").words().1, Some("a; b"));
    }

    #[test]
    fn io_errors_are_said_without_numbers() {
        assert_eq!(io_words(&io::Error::from_raw_os_error(2)), "no such file or directory");
    }
}
