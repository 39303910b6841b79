//! A YAML document as a tree in which every node knows its place.
//!
//! `saphyr-parser` turns text into events; [`load`] turns events into [`Node`]s, puts aliases and
//! merge keys (`<<`) in, refuses duplicate keys, and holds the limits that keep a hostile file from
//! growing. Scalars stay texts: what a text means is decided by the key that reads it. The only
//! distinction made here is null (YAML 1.2 core schema: nothing, `~`, `null`, `Null`, `NULL`), so
//! `yes`, `on` and `no` are texts, as they are for Compose.

mod load;

use std::rc::Rc;

pub(crate) use load::load;

use crate::problem::Place;

/// One node of the tree. Aliases share it.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) at: Place,
    pub(crate) kind: Kind,
}

#[derive(Debug)]
pub(crate) enum Kind {
    Null,
    Text(String),
    List(Vec<Rc<Node>>),
    Mapping(Vec<Entry>),
}

/// One key with its value.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) key_at: Place,
    pub(crate) value: Rc<Node>,
}

impl Node {
    /// What it is, for messages.
    pub(crate) fn shape(&self) -> &'static str {
        match self.kind {
            Kind::Null => "nothing",
            Kind::Text(_) => "a single value",
            Kind::List(_) => "a list",
            Kind::Mapping(_) => "a mapping",
        }
    }
}

/// Appends a key to a path: `services` + `web` → `services.web`, other characters in brackets.
pub(crate) fn path_key(path: &str, key: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '<');
    if key.is_empty() || !key.chars().all(plain) {
        let shown = crate::problem::excerpt(key);
        return format!("{path}[{}]", shown.trim_matches('`'));
    }
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}
