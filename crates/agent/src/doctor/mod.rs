//! `serverflow-agent doctor`: is everything right that an agent needs, and if not, what to do.
//!
//! Each check is made by itself and says one thing in plain words; what it found is data, so that a
//! person, a script and a test read the same.

mod checks;
mod engine;
mod network;

use std::{path::PathBuf, process::ExitCode};

use serde::Serialize;

use crate::{
    failure::{Failure, FailureKind},
    policy_check::path_in_use,
    state_dir::{Enrolment, StateDir},
    status::Status,
};

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Verdict {
    Ok,
    /// Works, but a person should look.
    Warn,
    /// Has to be mended.
    Fail,
}

/// One thing looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    /// One word for the thing.
    pub(crate) check: &'static str,
    pub(crate) verdict: Verdict,
    /// What was found.
    pub(crate) found: String,
    /// What to do next; nothing when all is well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) advice: Option<String>,
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
}

/// Makes every check and prints what was found.
pub(crate) async fn doctor(state: &StateDir, policy: Option<PathBuf>, as_json: bool) -> Result<ExitCode, Failure> {
    let findings = examine(state, policy).await;
    if as_json {
        let worst = worst(&findings);
        println!("{}", serde_json::json!({ "verdict": worst, "findings": findings }));
    } else {
        print!("{}", crate::failure::printable(&render(&findings)));
    }
    Ok(if worst(&findings) == Verdict::Fail { FailureKind::Failed.exit_code() } else { ExitCode::SUCCESS })
}

async fn examine(state: &StateDir, policy: Option<PathBuf>) -> Vec<Finding> {
    let status = Status::read(state).ok().flatten();
    if let Some(finding) = checks::retired(state, status.as_ref()) {
        return vec![finding];
    }
    let mut findings = Vec::new();
    let (enrolment, finding) = checks::enrolment(state);
    findings.push(finding);
    findings.extend(checks::state_directory(state));
    findings.extend(checks::state_files(state));
    let policy = path_in_use(state, policy);
    findings.push(checks::policy(&policy));
    if let Some(enrolment) = &enrolment {
        findings.push(checks::agent(state, status.as_ref()));
        findings.extend(network::proxies(|name| std::env::var(name).ok()));
        findings.extend(network::addresses(state, enrolment).await);
        findings.push(checks::clock(status.as_ref()));
        findings.extend(checks::root(status.as_ref()));
    }
    let (engine, root) = checks::docker(enrolment.as_ref()).await;
    findings.extend(engine);
    findings.extend(checks::disks(state, root.as_deref()));
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
        text.push_str(&format!("{mark}  {:<10} {}\n", finding.check, finding.found));
        if let Some(advice) = &finding.advice {
            text.push_str(&format!("                 → {advice}\n"));
        }
    }
    let count = |verdict| findings.iter().filter(|finding| finding.verdict == verdict).count();
    let end = match (count(Verdict::Fail), count(Verdict::Warn)) {
        (0, 0) => "Everything is right.".to_owned(),
        (0, warnings) => format!("Nothing stops the agent; {warnings} to look at."),
        (failures, warnings) => format!("{failures} to mend, {warnings} to look at."),
    };
    text.push_str(&format!("\n{end}\n"));
    text
}

/// The enrolment as the checks need it.
type Enrolled = Option<Enrolment>;

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    #[test]
    fn findings_read_as_words_and_as_data() {
        let findings = [
            Finding::ok("enrolment", "host 'web1' of fleet F"),
            Finding::warn("clock", "the clock is 40 s ahead", "Set up time synchronisation."),
            Finding::fail("docker", "Docker's socket does not exist", "Start Docker."),
        ];
        expect![[r"
            ok    enrolment  host 'web1' of fleet F
            warn  clock      the clock is 40 s ahead
                             → Set up time synchronisation.
            FAIL  docker     Docker's socket does not exist
                             → Start Docker.

            1 to mend, 1 to look at.
        "]]
        .assert_eq(&render(&findings));
        assert_eq!(worst(&findings), Verdict::Fail);
        expect![[r#"{"check":"clock","verdict":"warn","found":"the clock is 40 s ahead","advice":"Set up time synchronisation."}"#]]
            .assert_eq(&serde_json::to_string(&findings[1]).expect("data"));
        assert!(render(&findings[..1]).ends_with("\nEverything is right.\n"));
        assert!(render(&findings[..2]).ends_with("\nNothing stops the agent; 1 to look at.\n"));
    }
}
