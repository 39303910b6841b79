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
    pub(crate) rule: Rule,
    pub(crate) kind: Kind,
}

/// What a tag of the Compose specification asks of the merge with the files before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Rule {
    /// As the key's own rule says.
    #[default]
    Merge,
    /// `!reset`: as if the key stood in none of the files.
    Reset,
    /// `!override`: this value alone counts.
    Override,
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
    /// Where what is made of other nodes stands.
    pub(crate) fn new(at: Place, kind: Kind) -> Rc<Self> {
        Rc::new(Self { at, rule: Rule::Merge, kind })
    }

    /// The value of a key, if this is a mapping that has it.
    pub(crate) fn get(&self, key: &str) -> Option<&Rc<Self>> {
        self.entries().iter().find(|entry| entry.key == key).map(|entry| &entry.value)
    }

    /// The entries of a mapping; none of anything else.
    pub(crate) fn entries(&self) -> &[Entry] {
        match &self.kind {
            Kind::Mapping(entries) => entries,
            _ => &[],
        }
    }

    /// How many values it holds, itself included.
    pub(crate) fn weight(&self) -> usize {
        match &self.kind {
            Kind::Null | Kind::Text(_) => 1,
            Kind::List(items) => items.iter().fold(1, |sum, item| sum.saturating_add(item.weight())),
            Kind::Mapping(entries) => entries.iter().fold(1, |sum, entry| sum.saturating_add(entry.value.weight())),
        }
    }

    /// Whether it says the same, wherever it stands.
    pub(crate) fn says_the_same(&self, other: &Self) -> bool {
        match (&self.kind, &other.kind) {
            (Kind::Null, Kind::Null) => true,
            (Kind::Text(a), Kind::Text(b)) => a == b,
            (Kind::List(a), Kind::List(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.says_the_same(b)),
            (Kind::Mapping(a), Kind::Mapping(b)) => {
                a.len() == b.len()
                    && a.iter().all(|entry| other.get(&entry.key).is_some_and(|b| entry.value.says_the_same(b)))
            }
            _ => false,
        }
    }

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
