//! `environment` and `labels`: a mapping, or a list of `NAME=value`.

use std::collections::BTreeMap;

use actions::spec::Text;
use zeroize::Zeroizing;

use crate::{
    limits::{NAME_BYTES_MAX, TEXT_BYTES_MAX},
    reading::{Field, Reading},
};

/// Labels of this prefix say who owns a container; a file may not forge them.
const OWN_LABELS: &str = "io.serverflow.";

/// Reads `environment`. Every value will be sealed, also one that no variable reached: what stands in
/// an environment is more often a secret than not.
pub(super) fn environment(reading: &mut Reading<'_>, field: &Field<'_>) -> BTreeMap<String, Zeroizing<String>> {
    let mut environment = BTreeMap::new();
    for (name, item, raw) in pairs(reading, field) {
        let Some(value) = environment_value(reading, &item, &name, raw) else { continue };
        if value.len() + name.len() + 1 > TEXT_BYTES_MAX {
            reading.refuse(&item, format!("the entry has more than {TEXT_BYTES_MAX} bytes"));
            continue;
        }
        if environment.insert(name, value).is_some() {
            reading.refuse_with(&item, "the variable is set twice", "remove one of them");
        }
    }
    environment
}

/// Kernel parameters: they travel readable, for the host's policy judges them.
pub(super) fn sysctls(reading: &mut Reading<'_>, field: &Field<'_>) -> BTreeMap<String, String> {
    let known = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-' | b'/');
    let mut sysctls = BTreeMap::new();
    for (name, item, raw) in pairs(reading, field) {
        if !(1..=NAME_BYTES_MAX).contains(&name.len()) || !name.bytes().all(known) {
            reading.refuse_with(&item, "the name is not one of a kernel parameter", "write it as net.core.somaxconn");
            continue;
        }
        let Some(value) = raw.and_then(|raw| reading.interpolate(&item, raw)) else {
            if raw.is_none() {
                reading.refuse(&item, "the kernel parameter has no value");
            }
            continue;
        };
        if value.text.is_empty() || value.text.len() > NAME_BYTES_MAX || value.text.chars().any(char::is_control) {
            reading.refuse_value(&item, &value, "a kernel parameter's value is a number or a few words");
            continue;
        }
        if sysctls.insert(name, value.text.to_string()).is_some() {
            reading.refuse_with(&item, "the kernel parameter is set twice", "remove one of them");
        }
    }
    sysctls
}

fn environment_value(
    reading: &mut Reading<'_>,
    item: &Field<'_>,
    name: &str,
    raw: Option<&str>,
) -> Option<Zeroizing<String>> {
    if !is_environment_name(name) {
        // Not shown: an entry of a list without `=` may be a value that lost its name.
        let hint =
            "an environment variable's name has letters, digits, underscores, dots and hyphens; no spaces around =";
        reading.refuse_with(item, "the name of the environment variable is not one", hint);
        return None;
    }
    let Some(raw) = raw else {
        // Without a value it comes from where the deploy is asked for, and is left out if it is not there.
        let Some(value) = reading.variable(item, name).map(|value| Zeroizing::new(value.to_owned())) else {
            let hint = "set it, or remove the entry";
            reading.note(item, format!("the variable {name} is not set; the entry is left out"), hint);
            return None;
        };
        if value.contains('\0') {
            reading.refuse(item, "the value from the environment has a NUL character");
            return None;
        }
        return Some(value);
    };
    Some(reading.interpolate(item, raw)?.text)
}

pub(super) fn is_environment_name(name: &str) -> bool {
    let known = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
    (1..=NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(known) && !name.as_bytes()[0].is_ascii_digit()
}

/// Labels of a service: sealed where a variable reached the value.
pub(super) fn labels(reading: &mut Reading<'_>, service: &str, field: &Field<'_>) -> BTreeMap<String, Text> {
    let mut labels = BTreeMap::new();
    for (key, item, raw) in pairs(reading, field) {
        if check_label_key(reading, &item, &key).is_none() {
            continue;
        }
        let Some(value) = reading.interpolate(&item, raw.unwrap_or_default()) else { continue };
        let text = reading.text(format!("{service}/labels/{key}"), value);
        if labels.insert(key, text).is_some() {
            reading.refuse_with(&item, "the label is set twice", "remove one of them");
        }
    }
    labels
}

/// Labels of a network or volume, and annotations: they travel readable, so no variable may stand in them.
pub(crate) fn plain_labels(reading: &mut Reading<'_>, field: &Field<'_>) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::new();
    for (key, item, raw) in pairs(reading, field) {
        if check_label_key(reading, &item, &key).is_none() {
            continue;
        }
        let Some(value) = reading.interpolate(&item, raw.unwrap_or_default()) else { continue };
        if value.reached {
            let hint = "it travels readable; write it without variables";
            reading.refuse_with(&item, "a variable stands here, but this text cannot be sealed", hint);
        }
        if labels.insert(key, value.text.to_string()).is_some() {
            reading.refuse_with(&item, "the label is set twice", "remove one of them");
        }
    }
    labels
}

/// The pairs of either form: name, place, value as written. Names are not interpolated.
fn pairs<'n>(reading: &mut Reading<'_>, field: &Field<'n>) -> Vec<(String, Field<'n>, Option<&'n str>)> {
    let mut pairs = Vec::new();
    if field.is_list() {
        for item in reading.list(field).unwrap_or_default() {
            match item.raw() {
                Some(raw) => {
                    let (name, value) = raw.split_once('=').map_or((raw, None), |(name, value)| (name, Some(value)));
                    if name.contains('$') {
                        let hint = "write the name out; variables may stand after the =";
                        reading.refuse_with(&item, "a `$` stands in the name, where no variable is put in", hint);
                    } else {
                        pairs.push((name.to_owned(), item, value));
                    }
                }
                None => reading.refuse(&item, format!("expected `NAME=value`, found {}", item.node.shape())),
            }
        }
        return pairs;
    }
    for entry in reading.mapping(field).unwrap_or_default() {
        if entry.raw().is_some() || entry.is_null() {
            let raw = entry.raw();
            pairs.push((entry.key.to_owned(), entry, raw));
        } else {
            reading.refuse(&entry, format!("expected a single value, found {}", entry.node.shape()));
        }
    }
    pairs
}

fn check_label_key(reading: &mut Reading<'_>, field: &Field<'_>, key: &str) -> Option<()> {
    if key.to_ascii_lowercase().starts_with(OWN_LABELS) {
        let hint = "these labels say which fleet, host and release own a container; choose another name";
        reading.refuse_with(field, format!("labels beginning with {OWN_LABELS} are set by ServerFlow alone"), hint);
        return None;
    }
    check_key(reading, field, key)
}

/// A key of a label or an option: not empty, bounded, no control characters, no blanks.
pub(super) fn check_key(reading: &mut Reading<'_>, field: &Field<'_>, key: &str) -> Option<()> {
    let odd = |c: char| c.is_control() || c.is_whitespace() || c == '=';
    if key.is_empty() || key.len() > NAME_BYTES_MAX || key.contains(odd) {
        let message =
            format!("the name is empty, longer than {NAME_BYTES_MAX} bytes, or has a blank or control character");
        reading.refuse(field, message);
        return None;
    }
    Some(())
}
