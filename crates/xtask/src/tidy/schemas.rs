//! Frozen action schemas. The hash of an action's parameter schema is part of every signed command, so the file
//! of a version that has been recorded never changes and never goes: a new wording is a new version.

use std::collections::BTreeMap;
use std::path::Path;

use crate::workspace::{self, TextFile};

use super::{Finding, Mode};

const LIST: &str = "crates/xtask/frozen-schemas.json";

type Hashes = BTreeMap<String, String>;

/// Judges the schema files by the list of hashes; with [`Mode::Bless`] new files are added to it first.
pub(crate) fn check(top: &Path, files: &[TextFile], mode: Mode) -> Result<Vec<Finding>, String> {
    let text = std::fs::read_to_string(top.join(LIST)).map_err(|error| format!("{LIST}: {error}"))?;
    let mut recorded: Hashes = serde_json::from_str(&text).map_err(|error| format!("{LIST}: {error}"))?;
    let paths: Vec<&str> = files.iter().map(|file| file.path.as_str()).filter(|path| is_schema(path)).collect();
    let now = workspace::sha256(top, &paths)?;
    if mode == Mode::Bless {
        for (path, hash) in &now {
            recorded.entry(path.clone()).or_insert_with(|| hash.clone());
        }
        let text = serde_json::to_string_pretty(&recorded).map_err(|error| format!("{LIST}: {error}"))?;
        std::fs::write(top.join(LIST), text + "\n").map_err(|error| format!("{LIST}: {error}"))?;
    }
    Ok(judge(&recorded, &now))
}

/// `crates/actions/src/<action>/schema.v<version>.json`, at any depth of folders.
fn is_schema(path: &str) -> bool {
    let version = |name: &str| {
        let digits = name.strip_prefix("schema.v").and_then(|rest| rest.strip_suffix(".json"));
        digits.is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()))
    };
    path.strip_prefix("crates/actions/src/")
        .and_then(|rest| rest.rsplit_once('/'))
        .is_some_and(|(_, name)| version(name))
}

fn judge(recorded: &Hashes, now: &Hashes) -> Vec<Finding> {
    let finding = |path: &str, message: &str| Finding {
        rule: "frozen-schema",
        place: path.to_owned(),
        message: message.to_owned(),
    };
    let mut findings = Vec::new();
    for (path, frozen) in recorded {
        match now.get(path) {
            Some(hash) if hash == frozen => {}
            Some(_) => findings.push(finding(
                path,
                "this schema is frozen and has changed. Its hash is signed into commands, and agents refuse another one. \
                 Put it back, and make the change in a new version beside it.",
            )),
            None => findings.push(finding(
                path,
                "this schema is frozen and is gone. Agents in the field may still run that version; put it back.",
            )),
        }
    }
    for path in now.keys().filter(|path| !recorded.contains_key(*path)) {
        findings.push(finding(
            path,
            "a new schema that is not frozen yet. When its wording stands, run `cargo xtask tidy --bless`.",
        ));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hashes(pairs: &[(&str, &str)]) -> Hashes {
        pairs.iter().map(|(path, hash)| ((*path).to_owned(), (*hash).to_owned())).collect()
    }

    #[test]
    fn unchanged_schemas_pass() {
        let list = hashes(&[("a", "1"), ("b", "2")]);
        assert_eq!(judge(&list, &list), []);
    }

    #[test]
    fn changed_missing_and_new_schemas_are_found() {
        let list = hashes(&[("changed", "1"), ("gone", "2")]);
        let now = hashes(&[("changed", "9"), ("new", "3")]);
        let places: Vec<String> = judge(&list, &now).into_iter().map(|finding| finding.place).collect();
        assert_eq!(places, ["changed", "gone", "new"]);
    }

    #[test]
    fn schema_files_are_told_by_their_path() {
        assert!(is_schema("crates/actions/src/app_deploy/schema.v1.json"));
        assert!(is_schema("crates/actions/src/app/deploy/schema.v12.json"));
        assert!(!is_schema("crates/actions/src/app_deploy/schema.json"));
        assert!(!is_schema("crates/actions/src/app_deploy/schema.vx.json"));
        assert!(!is_schema("crates/compose/src/x/schema.v1.json"));
    }
}
