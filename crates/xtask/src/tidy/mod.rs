//! The rules, and the run over all of them.

use core::fmt;

use crate::workspace;

mod attackers;
mod bans;
mod dependencies;
mod length;
mod ratchet;
mod rooms;
mod rust_text;
mod schemas;
mod sources;
mod units;

/// A place where a rule does not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Finding {
    /// The rule's short name.
    pub(crate) rule: &'static str,
    /// `path`, `path:line` or a package's name.
    pub(crate) place: String,
    /// What is wrong, why the rule exists, and what to do.
    pub(crate) message: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}\n    {}", self.place, self.rule, self.message)
    }
}

/// Whether recorded limits may be written anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Check,
    Bless,
}

/// Checks every rule over the repository this program was built from.
///
/// # Errors
/// A sentence, when git, cargo or a recorded list cannot be read: then nothing is known, which is not "tidy".
pub(crate) fn run(mode: Mode) -> Result<Vec<Finding>, String> {
    let top = workspace::top()?;
    let packages = workspace::packages(&top)?;
    let files = workspace::text_files(&top)?;

    let mut findings = Vec::new();
    for rule in rooms::RULES {
        for who in rule.who {
            if packages.iter().any(|package| package.name == *who) {
                findings.extend(rooms::check_reach(rule, who, &workspace::reach(&top, who)?));
            }
        }
    }
    findings.extend(rooms::check_known(&packages));
    findings.extend(rooms::check_direct(&packages));
    findings.extend(rooms::check_binaries(&packages));
    findings.extend(dependencies::check(&packages, &files));
    findings.extend(attackers::check(&files));
    findings.extend(bans::check(&files));
    findings.extend(sources::check(&files));
    findings.extend(units::check(&files));
    findings.extend(ratchet::check(&top, &files, mode)?);
    findings.extend(schemas::check(&top, &files, mode)?);
    findings.sort_by(|a, b| (&a.place, a.rule).cmp(&(&b.place, b.rule)));
    Ok(findings)
}
