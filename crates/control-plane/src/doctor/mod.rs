//! `doctor`: is everything right that a control plane needs, and if not, what to do. It changes nothing
//! and may run beside a control plane that serves.
//!
//! Each check says one thing in plain words; what it found is data, so that a person, a script and a
//! test read the same.

mod certificate;
mod checks;
mod dates;
mod files;
mod signer;

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

use ids::UnixMs;
use serde::Serialize;

use crate::{clock, config::Config, files::Files, keys};

#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct DoctorArgs {
    /// Print one JSON document on standard output and nothing else
    #[arg(long)]
    json: bool,
}

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
enum Verdict {
    Ok,
    /// Works, but a person should look.
    Warn,
    /// Has to be mended.
    Fail,
}

/// One thing looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Finding {
    /// One word for the thing.
    check: &'static str,
    verdict: Verdict,
    /// What was found.
    found: String,
    /// What to do next; nothing when all is well, or what was found says it.
    #[serde(skip_serializing_if = "Option::is_none")]
    advice: Option<String>,
}

impl Finding {
    fn ok(check: &'static str, found: impl Into<String>) -> Self {
        Self { check, verdict: Verdict::Ok, found: found.into(), advice: None }
    }

    fn warn(check: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { check, verdict: Verdict::Warn, found: found.into(), advice: Some(advice.into()) }
    }

    fn fail(check: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { check, verdict: Verdict::Fail, found: found.into(), advice: Some(advice.into()) }
    }

    /// An error whose own words say what to do.
    fn error(check: &'static str, error: &dyn std::error::Error) -> Self {
        Self { check, verdict: Verdict::Fail, found: crate::told(error).replace("\n  because: ", ": "), advice: None }
    }
}

/// What `doctor --json` prints.
#[derive(Serialize)]
struct Document<'a> {
    verdict: Verdict,
    findings: &'a [Finding],
}

/// Makes every check and prints what was found.
pub(crate) async fn run(config: &Config, args: DoctorArgs) -> ExitCode {
    let findings = examine(config, clock::now()).await;
    let verdict = worst(&findings);
    let text = if args.json {
        serde_json::to_string(&Document { verdict, findings: &findings }).expect("invariant: words and no maps") + "\n"
    } else {
        render(&findings)
    };
    let mut out = io::stdout();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) if verdict != Verdict::Fail => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

async fn examine(config: &Config, now: UnixMs) -> Vec<Finding> {
    let files = Files::new(&config.data_dir);
    let (directory, is_there) = files::directory(&files);
    let (mut findings, mut pin) = (vec![directory], None);
    if is_there {
        findings.extend(files::owned(&files));
        let (loaded, found) = files::keys(&files);
        findings.extend(found);
        pin = loaded.as_ref().map(|keys| keys.tls.pin());
        let (database, root) = checks::database(&files, loaded.as_ref(), now).await;
        findings.extend(database);
        findings.push(signer::signer(config, &files, root.as_ref()).await);
        findings.extend(checks::disks(files.directory()));
    }
    findings.extend(certificate::people(config, now));
    findings.extend(checks::listeners(config, checks::is_running(&files), pin).await);
    findings.push(checks::agents(config));
    findings
}

fn worst(findings: &[Finding]) -> Verdict {
    findings.iter().map(|finding| finding.verdict).max().unwrap_or(Verdict::Ok)
}

fn render(findings: &[Finding]) -> String {
    let mut text = String::new();
    for finding in findings {
        let mark = match finding.verdict {
            Verdict::Ok => "ok  ",
            Verdict::Warn => "warn",
            Verdict::Fail => "FAIL",
        };
        text.push_str(&format!("{mark}  {:<11} {}\n", finding.check, finding.found));
        if let Some(advice) = &finding.advice {
            text.push_str(&format!("                  → {advice}\n"));
        }
    }
    let count = |verdict| findings.iter().filter(|finding| finding.verdict == verdict).count();
    let end = match (count(Verdict::Fail), count(Verdict::Warn)) {
        (0, 0) => "Everything is right.".to_owned(),
        (0, warnings) => format!("Nothing stops the control plane; {warnings} to look at."),
        (failures, warnings) => format!("{failures} to mend, {warnings} to look at."),
    };
    text.push_str(&format!("\n{end}\n"));
    text
}

#[cfg(test)]
mod tests;
