//! `serverflow-agent policy check`: is the file valid, and what does it allow.

use std::{path::PathBuf, process::ExitCode};

use serde_json::json;

use crate::{
    admission::read_policy,
    failure::{Failure, FailureKind, words},
    state_dir::{Enrolment, StateDir},
};

/// The file `run` would use.
pub(crate) fn path_in_use(state: &StateDir, given: Option<PathBuf>) -> PathBuf {
    let enrolled = || Enrolment::read(state).ok().flatten().and_then(|enrolment| enrolment.policy);
    given.or_else(enrolled).unwrap_or_else(|| state.policy())
}

/// Says whether the file is valid, and which actions of this program it allows.
pub(crate) fn check(state: &StateDir, file: Option<PathBuf>, as_json: bool) -> Result<ExitCode, Failure> {
    let path = path_in_use(state, file);
    let judged = read_policy(&path).map(|policy| allowed_actions(&policy));
    if as_json {
        let document = match &judged {
            Ok((allowed, refused)) => json!({ "path": path, "valid": true, "allowed": allowed, "refused": refused }),
            Err(error) => json!({ "path": path, "valid": false, "error": words(error) }),
        };
        println!("{document}");
        return Ok(if judged.is_ok() { ExitCode::SUCCESS } else { FailureKind::Usage.exit_code() });
    }
    let (allowed, refused) = judged.map_err(|error| Failure::of(FailureKind::Usage, &error))?;
    println!("{} is valid.", path.display());
    println!("  Allowed actions  {}", list(&allowed));
    println!("  Refused actions  {}", list(&refused));
    Ok(ExitCode::SUCCESS)
}

/// Names of this program's actions that a policy allows, and those that it refuses.
pub(crate) fn allowed_actions(policy: &actions::policy::Policy) -> (Vec<&'static str>, Vec<&'static str>) {
    let allows = |info: &&actions::ActionInfo| {
        info.name.parse().is_ok_and(|name| policy.judge_action(&name, info.class).is_ok())
    };
    let (allowed, refused): (Vec<_>, Vec<_>) = actions::actions().iter().partition(allows);
    let names = |infos: Vec<&'static actions::ActionInfo>| {
        let mut names: Vec<&'static str> = infos.into_iter().map(|info| info.name).collect();
        names.dedup();
        names
    };
    (names(allowed), names(refused))
}

pub(crate) fn list(names: &[&str]) -> String {
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}
