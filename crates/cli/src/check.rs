//! `app check`: the files as a deploy would read them, and what a host would make of them.

use actions::{
    policy::{Policy, Refusal},
    spec::AppSpec,
};
use serde::Serialize;

use crate::{
    app_files,
    arguments::AppFiles,
    exit::{Ended, Failure, Kind},
    output::{Output, Paint, clean, clean_line},
};

/// What `app check --json` prints.
#[derive(Serialize)]
struct CheckDocument<'a> {
    app: &'a str,
    services: Vec<&'a str>,
    /// Names of the values that a deploy would seal to its hosts.
    sealed: Vec<&'a str>,
    notes: &'a [compose::Problem],
    /// What the policy that enrolment writes would refuse.
    policy: Vec<PolicyLine>,
    spec: &'a AppSpec,
}

/// One thing that a host's owner has to allow.
#[derive(Serialize)]
struct PolicyLine {
    what: String,
    /// The line of `policy.toml` that allows it.
    line: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    advice: Option<String>,
}

impl From<Refusal> for PolicyLine {
    fn from(Refusal { what, line, advice, .. }: Refusal) -> Self {
        Self { what, line, advice }
    }
}

pub(crate) fn run(output: &Output, files: &AppFiles) -> Result<Ended, Failure> {
    let composed = app_files::read(files)?;
    let policy = Policy::parse(Policy::default_text())
        .map_err(|error| Failure::new(Kind::NotWell, format!("the default policy cannot be read: {error}")))?;
    let document = CheckDocument {
        app: composed.spec.app.as_str(),
        services: composed.spec.services.keys().map(|name| name.as_str()).collect(),
        sealed: composed.secrets.keys().map(|name| name.0.as_str()).collect(),
        notes: &composed.notes,
        policy: policy.refusals(&composed.spec).into_iter().map(PolicyLine::from).collect(),
        spec: &composed.spec,
    };
    output.result(&document, words)?;
    Ok(Ended::Well)
}

fn words(document: &CheckDocument<'_>, paint: Paint) -> String {
    let mut text = String::new();
    for note in document.notes {
        text.push_str(&format!("note: {}\n", clean(&note.to_string())));
    }
    let services = document.services.join(", ");
    let sealed = match document.sealed.len() {
        0 => "nothing is sealed".to_owned(),
        1 => "1 value is sealed".to_owned(),
        n => format!("{n} values are sealed"),
    };
    text.push_str(&format!("{}: {services}; {sealed}\n", paint.bold(document.app)));
    if document.policy.is_empty() {
        text.push_str("a host with the default policy takes it\n");
        return text;
    }
    text.push_str("a host's owner has to allow, in policy.toml:\n");
    for PolicyLine { what, line, advice } in &document.policy {
        let advice = advice.as_ref().map(|advice| format!(" ({})", clean_line(advice))).unwrap_or_default();
        text.push_str(&format!("  {}\n    because {}{advice}\n", clean_line(line), clean_line(what)));
    }
    text
}
