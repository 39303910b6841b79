//! The ratchet on lengths: what is too long today is written down in `crates/xtask/ratchet.json` and may only
//! shrink. There is no command that adds an entry; a new one is written by hand and defended in review.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};

use crate::workspace::TextFile;

use super::length::{FILE_LINES_MAX, FUNCTION_LINES_MAX, Lengths, offenders};
use super::{Finding, Mode};

const LIST: &str = "crates/xtask/ratchet.json";

/// Judges `files` by the list; with [`Mode::Bless`] the list is tightened first.
pub(crate) fn check(top: &Path, files: &[TextFile], mode: Mode) -> Result<Vec<Finding>, String> {
    let text = std::fs::read_to_string(top.join(LIST)).map_err(|error| format!("{LIST}: {error}"))?;
    let mut recorded = parse(&text)?;
    let now = offenders(files);
    if mode == Mode::Bless {
        recorded = shrink(&recorded, &now);
        std::fs::write(top.join(LIST), print(&recorded)).map_err(|error| format!("{LIST}: {error}"))?;
    }
    Ok(judge(&recorded, &now))
}

fn judge(recorded: &Lengths, now: &Lengths) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut over = |place: &str, what: &str, lines: u64, limit: u64, allowed: Option<u64>| {
        let message = match allowed {
            Some(allowed) if lines <= allowed => return,
            Some(allowed) => {
                format!("{what} has {lines} lines and had {allowed}: what is on the list may only shrink.")
            }
            None => format!("{what} has {lines} lines; the limit is {limit}. Split it where a reader would pause."),
        };
        findings.push(Finding { rule: "length", place: place.to_owned(), message });
    };
    for (path, lines) in &now.files {
        over(path, "the file", *lines, FILE_LINES_MAX, recorded.files.get(path).copied());
    }
    for (name, lengths) in &now.functions {
        let allowed = recorded.functions.get(name);
        for (nth, lines) in lengths.iter().enumerate() {
            over(name, "the function", *lines, FUNCTION_LINES_MAX, allowed.and_then(|a| a.get(nth)).copied());
        }
    }
    if shrink(recorded, now) != *recorded {
        findings.push(Finding {
            rule: "length-list",
            place: LIST.to_owned(),
            message:
                "some entries are larger than the code is now. Run `cargo xtask tidy --bless` to tighten them, so \
                      that nothing grows back."
                    .to_owned(),
        });
    }
    findings
}

/// `recorded`, with each entry at most what it is `now`. Never adds.
fn shrink(recorded: &Lengths, now: &Lengths) -> Lengths {
    let files = recorded.files.iter().filter_map(|(path, old)| Some((path.clone(), *old.min(now.files.get(path)?))));
    let functions = recorded.functions.iter().filter_map(|(name, old)| {
        let lengths = old.iter().zip(now.functions.get(name)?).map(|(old, now)| *old.min(now)).collect();
        Some((name.clone(), lengths))
    });
    Lengths { files: files.collect(), functions: functions.collect() }
}

fn parse(text: &str) -> Result<Lengths, String> {
    let bad = |what: &str| format!("{LIST}: {what}");
    let value: Value = serde_json::from_str(text).map_err(|error| bad(&error.to_string()))?;
    let map = |key: &str| value[key].as_object().ok_or_else(|| bad(&format!("`{key}` is not an object")));
    let number = |value: &Value| value.as_u64().ok_or_else(|| bad("a length is not a whole number"));
    let mut lengths = Lengths::default();
    for (path, lines) in map("files")? {
        lengths.files.insert(path.clone(), number(lines)?);
    }
    for (name, list) in map("functions")? {
        let list = list.as_array().ok_or_else(|| bad("a function's lengths are not a list"))?;
        lengths.functions.insert(name.clone(), list.iter().map(number).collect::<Result<_, _>>()?);
    }
    Ok(lengths)
}

fn print(lengths: &Lengths) -> String {
    let functions: BTreeMap<&String, &Vec<u64>> = lengths.functions.iter().collect();
    let value = json!({ "files": lengths.files, "functions": functions });
    format!("{value:#}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lengths(files: &[(&str, u64)], functions: &[(&str, &[u64])]) -> Lengths {
        Lengths {
            files: files.iter().map(|(path, lines)| ((*path).to_owned(), *lines)).collect(),
            functions: functions.iter().map(|(name, lines)| ((*name).to_owned(), lines.to_vec())).collect(),
        }
    }

    #[test]
    fn what_is_listed_and_has_not_grown_passes() {
        let list = lengths(&[("a.rs", 600)], &[("a.rs::f", &[90, 80])]);
        assert_eq!(judge(&list, &list), []);
    }

    #[test]
    fn new_and_grown_offenders_are_found() {
        let list = lengths(&[("a.rs", 600)], &[("a.rs::f", &[90])]);
        let now = lengths(&[("a.rs", 601), ("b.rs", 501)], &[("a.rs::f", &[90, 71]), ("b.rs::g", &[75])]);
        let places: Vec<String> = judge(&list, &now).into_iter().map(|finding| finding.place).collect();
        assert_eq!(places, ["a.rs", "b.rs", "a.rs::f", "b.rs::g"]);
    }

    #[test]
    fn blessing_shrinks_and_never_adds() {
        let list = lengths(&[("a.rs", 600), ("gone.rs", 700)], &[("a.rs::f", &[90, 80])]);
        let now = lengths(&[("a.rs", 550), ("new.rs", 900)], &[("a.rs::f", &[95])]);
        let shrunk = shrink(&list, &now);
        assert_eq!(shrunk, lengths(&[("a.rs", 550)], &[("a.rs::f", &[90])]));
        assert!(judge(&list, &now).iter().any(|finding| finding.rule == "length-list"));
        assert!(judge(&shrunk, &now).iter().all(|finding| finding.rule == "length"));
    }

    #[test]
    fn the_list_reads_back_as_written() {
        let list = lengths(&[("a.rs", 600)], &[("a.rs::f", &[90, 80])]);
        assert_eq!(parse(&print(&list)).unwrap(), list);
        assert!(parse("{\"files\": {\"a\": -1}, \"functions\": {}}").is_err());
        assert!(parse("{}").is_err());
    }
}
