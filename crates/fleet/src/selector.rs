//! Which hosts are meant, by what is said of them: `role=app,env=prod,env!=old,gpu,!spot`. All parts
//! must hold.

use core::{fmt, str::FromStr};
use std::collections::BTreeMap;

use ids::{LabelKey, LabelValue, Role};

use crate::limits;

/// The word that stands for a host's roles; no label can have it.
pub const ROLE_WORD: &str = "role";

/// Labels of one host.
pub type Labels = BTreeMap<LabelKey, LabelValue>;

/// A choice of hosts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selector {
    text: String,
    requirements: Vec<Requirement>,
}

/// One part of a selector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Requirement {
    /// The host has the role, or (`is` false) has it not.
    Role { role: Role, is: bool },
    /// The label has the value; or (`is` false) has another one, or is not there.
    Label { key: LabelKey, value: LabelValue, is: bool },
    /// The label is there, or (`is` false) is not.
    Has { key: LabelKey, is: bool },
}

impl Requirement {
    /// Whether it holds for a host.
    #[must_use]
    pub fn holds(&self, roles: &[Role], labels: &Labels) -> bool {
        match self {
            Self::Role { role, is } => roles.contains(role) == *is,
            Self::Label { key, value, is } => (labels.get(key) == Some(value)) == *is,
            Self::Has { key, is } => labels.contains_key(key) == *is,
        }
    }
}

impl Selector {
    /// What it asks for; at least one.
    #[must_use]
    pub fn requirements(&self) -> &[Requirement] {
        &self.requirements
    }

    /// Whether it selects a host.
    #[must_use]
    pub fn selects(&self, roles: &[Role], labels: &Labels) -> bool {
        self.requirements.iter().all(|requirement| requirement.holds(roles, labels))
    }

    /// As it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// A text that is no selector.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SelectorError {
    /// It is too long, or has too many parts.
    #[error(
        "a selector has 1 to {} parts, and {} bytes at most",
        limits::SELECTOR_PARTS_MAX,
        limits::SELECTOR_BYTES_MAX
    )]
    Size,
    /// One part of it is wrong.
    #[error(
        "{part:?} is no part of a selector ({why}); write role=app, env=prod, env!=old, gpu or !gpu, apart by commas"
    )]
    Part {
        /// The part.
        part: String,
        /// What is wrong with it.
        why: String,
    },
}

impl FromStr for Selector {
    type Err = SelectorError;

    fn from_str(text: &str) -> Result<Self, SelectorError> {
        let text = text.trim();
        if text.is_empty() || text.len() > limits::SELECTOR_BYTES_MAX {
            return Err(SelectorError::Size);
        }
        let parts = text.split(',').map(|part| requirement(part.trim()));
        let requirements = parts.collect::<Result<Vec<_>, _>>()?;
        if requirements.len() > limits::SELECTOR_PARTS_MAX {
            return Err(SelectorError::Size);
        }
        Ok(Self { text: text.to_owned(), requirements })
    }
}

fn requirement(part: &str) -> Result<Requirement, SelectorError> {
    let wrong = |why: String| SelectorError::Part { part: part.to_owned(), why };
    let key = |text: &str| text.trim().parse::<LabelKey>().map_err(|error| wrong(error.to_string()));
    let Some((name, value)) = part.split_once('=') else {
        let (name, is) = part.strip_prefix('!').map_or((part, true), |name| (name, false));
        if name.trim() == ROLE_WORD {
            return Err(wrong("say which role".to_owned()));
        }
        return Ok(Requirement::Has { key: key(name)?, is });
    };
    let (name, is) = name.strip_suffix('!').map_or((name, true), |name| (name, false));
    let value = value.trim();
    if name.trim() == ROLE_WORD {
        let role = value.parse().map_err(|error: ids::NameError| wrong(error.to_string()))?;
        return Ok(Requirement::Role { role, is });
    }
    let value = value.parse().map_err(|error: ids::NameError| wrong(error.to_string()))?;
    Ok(Requirement::Label { key: key(name)?, value, is })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs.iter().map(|(key, value)| (key.parse().unwrap(), value.parse().unwrap())).collect()
    }

    #[test]
    fn all_parts_must_hold() {
        let labels = labels(&[("env", "prod"), ("gpu", "2")]);
        for (text, selects) in [
            ("role=app", true),
            ("role=dns", false),
            ("role!=dns", true),
            ("role!=app", false),
            ("env=prod", true),
            (" env = prod , gpu ", true),
            ("env!=prod", false),
            ("env!=old", true),
            ("zone!=eu", true),
            ("gpu", true),
            ("!gpu", false),
            ("zone", false),
            ("!zone", true),
            ("role=app,env=prod,env!=old,gpu", true),
            ("role=app,env=old", false),
        ] {
            let selector: Selector = text.parse().unwrap();
            assert_eq!(selector.selects(&[Role::App, Role::Proxy], &labels), selects, "{text}");
        }
    }

    #[test]
    fn what_is_no_selector_is_refused_with_its_part() {
        for (text, part) in [
            ("role", "role"),
            ("!role", "role"),
            ("role=king", "king"),
            ("env=", "env="),
            ("=x", "=x"),
            ("a,,b", "\"\""),
            ("Env=x", "Env"),
            ("env=a b", "a b"),
            ("env>1", "env>1"),
        ] {
            let error = text.parse::<Selector>().expect_err(text).to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
        assert_eq!("".parse::<Selector>(), Err(SelectorError::Size));
        assert_eq!("a".repeat(limits::SELECTOR_BYTES_MAX + 1).parse::<Selector>(), Err(SelectorError::Size));
        let many = vec!["a"; limits::SELECTOR_PARTS_MAX + 1].join(",");
        assert_eq!(many.parse::<Selector>(), Err(SelectorError::Size));
    }
}
