//! `env_file`: variables of a service from files. `environment` wins over them, later files over
//! earlier ones.

use std::collections::BTreeMap;

use zeroize::{Zeroize as _, Zeroizing};

use super::pairs::is_environment_name;
use crate::{
    assemble::file_path,
    dotenv::{self, Variables},
    limits::FILE_BYTES_MAX,
    reading::{Field, Reading, is_extension},
    sources::Found,
    units,
};

/// One file as the service names it.
struct Named<'n> {
    at: Field<'n>,
    path: String,
    hidden: bool,
    required: bool,
    raw: bool,
}

pub(super) fn read(reading: &mut Reading<'_>, field: &Field<'_>) -> BTreeMap<String, Zeroizing<String>> {
    let mut all = BTreeMap::new();
    for item in reading.one_or_more(field) {
        let named = if item.is_mapping() { long(reading, &item) } else { short(reading, &item) };
        let Some(named) = named else { continue };
        let Some(Variables { mut variables, bare }) = content(reading, &named) else { continue };
        for name in bare {
            // As an entry of `environment` without a value.
            if let Some(value) = reading.variable(&named.at, &name) {
                variables.insert(name, value.to_owned());
            }
        }
        for (name, mut value) in variables {
            if is_environment_name(&name) {
                all.insert(name, Zeroizing::new(value));
                continue;
            }
            value.zeroize();
            let message = "a name in this file is not one of an environment variable";
            reading.refuse_with(&named.at, message, "names have letters, digits, underscores, dots and hyphens");
        }
    }
    all
}

fn short<'n>(reading: &mut Reading<'_>, item: &Field<'n>) -> Option<Named<'n>> {
    let (path, value) = file_path(reading, item)?;
    Some(Named { at: item.clone(), path, hidden: value.reached, required: true, raw: false })
}

fn long<'n>(reading: &mut Reading<'_>, item: &Field<'n>) -> Option<Named<'n>> {
    let (mut path, mut required, mut raw) = (None, true, false);
    for entry in reading.mapping(item)? {
        match entry.key {
            "path" => {
                let (read, value) = file_path(reading, &entry)?;
                path = Some((read, value.reached, entry));
            }
            "required" => required = reading.parsed(&entry, units::switch)?,
            "format" => {
                raw = reading.parsed(&entry, |text| match text {
                    "raw" => Ok(true),
                    "dotenv" => Ok(false),
                    _ => Err("the format is raw or dotenv; leave it out for NAME=value with quotes and variables"),
                })?;
            }
            key if is_extension(key) => {}
            _ => reading.unknown_key(&entry, "`env_file`", &["path", "required", "format"], &[]),
        }
    }
    let Some((path, hidden, at)) = path else {
        reading.refuse_with(item, "`env_file` has no `path`", "name the file: `path: web.env`");
        return None;
    };
    Some(Named { at, path, hidden, required, raw })
}

fn content(reading: &mut Reading<'_>, named: &Named<'_>) -> Option<Variables> {
    match reading.sources.find(&named.path, FILE_BYTES_MAX) {
        Found::Here(bytes) => {
            let read = if named.raw {
                dotenv::raw_file(&named.path, bytes)
            } else {
                let sources = &reading.sources;
                let scope = sources.scope(named.at.node.at);
                dotenv::file(&named.path, bytes, &|name| sources.variable(scope, name))
            };
            match read {
                Ok(variables) => Some(variables),
                Err(mut problem) => {
                    if named.hidden {
                        // A variable chose the path.
                        problem = problem.moved(reading.sources.file(named.at.at), named.at.at);
                    }
                    reading.problems.add(problem);
                    None
                }
            }
        }
        Found::Absent if !named.required => None,
        found => {
            reading.refuse_file(&named.at, &named.path, named.hidden, &found);
            None
        }
    }
}
