//! One tree over another, by the merge rules of the Compose specification: mappings merge, lists
//! append, items with the same identity (a mount's target, a published port) replace each other, and
//! a few keys replace what was there. `!reset` and `!override` change that from within the file.

use std::{collections::BTreeMap, rc::Rc};

use super::identity::{Unique, identity};
use crate::{
    limits::NODES_MAX,
    problem::{Collected, Problem},
    sources::Sources,
    yaml::{Entry, Kind, Node, Rule, path_key},
};

/// How two values of one key become one.
#[derive(Clone, Copy, PartialEq, Eq)]
enum How {
    /// By their shapes.
    Natural,
    /// The later one counts.
    Replace,
    /// Mappings, or lists of `NAME=value`: by name.
    Pairs,
    /// As [`How::Pairs`], but a name may have several values.
    Hosts,
    /// Mappings, or lists of names: by name.
    Names,
    /// Options of one driver merge; another driver replaces them.
    Logging,
    /// Lists, or single values that stand for them.
    Texts,
    /// Lists whose items have an identity.
    Unique(Unique),
}

fn how(path: &[String]) -> How {
    let path: Vec<&str> = path.iter().map(String::as_str).collect();
    match path.as_slice() {
        ["services", _, "command" | "entrypoint"] | ["services", _, "healthcheck", "test"] => How::Replace,
        ["services", _, "environment" | "labels" | "annotations" | "sysctls"]
        | ["services", _, "deploy", "labels"]
        | ["networks" | "volumes" | "configs" | "secrets", _, "labels"] => How::Pairs,
        ["services", _, "extra_hosts"] => How::Hosts,
        ["services", _, "depends_on" | "networks"] => How::Names,
        ["services", _, "logging"] => How::Logging,
        ["services", _, "dns" | "dns_search" | "tmpfs"] => How::Texts,
        ["services", _, "env_file"] => How::Unique(Unique::EnvFile),
        ["services", _, "ports"] => How::Unique(Unique::Port),
        ["services", _, "volumes"] => How::Unique(Unique::Mount),
        ["services", _, "devices"] => How::Unique(Unique::Device),
        ["services", _, "configs"] => How::Unique(Unique::Config),
        ["services", _, "secrets"] => How::Unique(Unique::Secret),
        ["services", _, "ulimits", _] => How::Replace,
        _ => How::Natural,
    }
}

/// What merging needs to know and to tell.
pub(super) struct Merger<'s, 'a> {
    pub(super) sources: &'s Sources<'a>,
    pub(super) problems: &'s mut Collected,
    /// Values copied so far, in this app.
    pub(super) copied: &'s mut usize,
}

impl Merger<'_, '_> {
    /// `over` over `base`, both standing at `path`.
    pub(super) fn merge(&mut self, base: &Rc<Node>, over: &Rc<Node>, path: &mut Vec<String>) -> Rc<Node> {
        if over.rule == Rule::Override || base.rule == Rule::Reset || *self.copied > NODES_MAX {
            return Rc::clone(over);
        }
        match (how(path), &base.kind, &over.kind) {
            (How::Replace, ..) | (_, Kind::Null, _) => Rc::clone(over),
            (_, Kind::List(_) | Kind::Mapping(_), Kind::Null) => Rc::clone(base),
            (How::Pairs, ..) => match (entries(base, pair), entries(over, pair)) {
                (Some(base), Some(entries)) => self.pairs(base, &entries, over),
                _ => self.mismatch(base, over, path),
            },
            (How::Names, ..) => match (entries(base, name), entries(over, name)) {
                (Some(base), Some(entries)) => self.mappings(&base, &entries, over, path),
                _ => self.mismatch(base, over, path),
            },
            (How::Hosts, ..) => match (hosts(base), hosts(over)) {
                (Some(base), Some(over_items)) => self.appended(&base, &over_items, over, Unique::Text),
                _ => self.mismatch(base, over, path),
            },
            (How::Logging, ..) if driver(base).zip(driver(over)).is_some_and(|(a, b)| a != b) => Rc::clone(over),
            (How::Texts, ..) => self.appended(&items(base), &items(over), over, Unique::Text),
            (How::Unique(unique), ..) => self.appended(&items(base), &items(over), over, unique),
            (_, Kind::Mapping(a), Kind::Mapping(b)) => self.mappings(a, b, over, path),
            (_, Kind::List(a), Kind::List(b)) => self.appended(a, b, over, Unique::Text),
            (_, Kind::Text(_), Kind::Text(_) | Kind::Null) => Rc::clone(over),
            _ => self.mismatch(base, over, path),
        }
    }

    fn mappings(&mut self, base: &[Entry], over: &[Entry], whole: &Rc<Node>, path: &mut Vec<String>) -> Rc<Node> {
        *self.copied = self.copied.saturating_add(base.len() + over.len());
        let mut entries = base.to_vec();
        let mut places: BTreeMap<String, usize> =
            entries.iter().enumerate().map(|(index, entry)| (entry.key.clone(), index)).collect();
        for entry in over {
            let Some(&index) = places.get(&entry.key) else {
                places.insert(entry.key.clone(), entries.len());
                entries.push(entry.clone());
                continue;
            };
            if entry.key.starts_with("x-") || entry.value.rule == Rule::Reset {
                entries[index] = entry.clone();
                continue;
            }
            path.push(entry.key.clone());
            let value = self.merge(&entries[index].value, &entry.value, path);
            path.pop();
            // A value that stays where it was keeps its place as well.
            let key_at = if Rc::ptr_eq(&value, &entries[index].value) { entries[index].key_at } else { entry.key_at };
            entries[index] = Entry { key: entry.key.clone(), key_at, value };
        }
        Node::new(whole.at, Kind::Mapping(entries))
    }

    /// Later pairs replace earlier ones, also by nothing: `NAME:` takes the value from the variables.
    fn pairs(&mut self, mut entries: Vec<Entry>, over: &[Entry], whole: &Rc<Node>) -> Rc<Node> {
        *self.copied = self.copied.saturating_add(entries.len() + over.len());
        let mut places: BTreeMap<String, usize> =
            entries.iter().enumerate().map(|(index, entry)| (entry.key.clone(), index)).collect();
        for entry in over {
            match places.get(&entry.key) {
                Some(&index) => entries[index] = entry.clone(),
                None => {
                    places.insert(entry.key.clone(), entries.len());
                    entries.push(entry.clone());
                }
            }
        }
        Node::new(whole.at, Kind::Mapping(entries))
    }

    /// The items of `base` and then those of `over`; one with the identity of an earlier one takes its place.
    fn appended(&mut self, base: &[Rc<Node>], over: &[Rc<Node>], whole: &Rc<Node>, unique: Unique) -> Rc<Node> {
        *self.copied = self.copied.saturating_add(base.len() + over.len());
        let mut places = BTreeMap::new();
        for (index, item) in base.iter().enumerate() {
            if let Some(identity) = identity(self.sources, item, unique) {
                places.insert(identity, index);
            }
        }
        let mut items = base.to_vec();
        for item in over {
            let place = identity(self.sources, item, unique).and_then(|identity| places.remove(&identity));
            match place {
                Some(index) => items[index] = Rc::clone(item),
                None => items.push(Rc::clone(item)),
            }
        }
        Node::new(whole.at, Kind::List(items))
    }

    fn mismatch(&mut self, base: &Rc<Node>, over: &Rc<Node>, path: &[String]) -> Rc<Node> {
        let key = path.iter().fold(String::new(), |path, key| path_key(&path, key));
        let message = format!(
            "{} stands here and {} in {}, line {}: they cannot be merged",
            over.shape(),
            base.shape(),
            self.sources.file(base.at),
            base.at.line
        );
        let hint = "give both the same form, or write `!override` before this one to replace the other";
        self.problems.add(Problem::new(self.sources.file(over.at), over.at, &key, message).with_hint(hint));
        Rc::clone(over)
    }
}

/// The items of a list, or the one value that stands for a list of one.
fn items(node: &Rc<Node>) -> Vec<Rc<Node>> {
    match &node.kind {
        Kind::List(items) => items.clone(),
        Kind::Null => Vec::new(),
        Kind::Text(_) | Kind::Mapping(_) => vec![Rc::clone(node)],
    }
}

/// The entries of a mapping, or of a list whose items `read` makes entries of.
fn entries(node: &Rc<Node>, read: fn(&Rc<Node>) -> Option<Entry>) -> Option<Vec<Entry>> {
    match &node.kind {
        Kind::Mapping(entries) => Some(entries.clone()),
        Kind::List(items) => items.iter().map(read).collect(),
        Kind::Null => Some(Vec::new()),
        Kind::Text(_) => None,
    }
}

/// `NAME=value` or `NAME`.
fn pair(item: &Rc<Node>) -> Option<Entry> {
    let Kind::Text(text) = &item.kind else { return None };
    let (key, kind) = match text.split_once('=') {
        Some((key, value)) => (key, Kind::Text(value.to_owned())),
        None => (text.as_str(), Kind::Null),
    };
    Some(Entry { key: key.to_owned(), key_at: item.at, value: Node::new(item.at, kind) })
}

/// A name, which as a mapping has nothing else to say.
fn name(item: &Rc<Node>) -> Option<Entry> {
    let Kind::Text(text) = &item.kind else { return None };
    Some(Entry { key: text.clone(), key_at: item.at, value: Node::new(item.at, Kind::Null) })
}

/// `extra_hosts` as a list, each `name=address`.
fn hosts(node: &Rc<Node>) -> Option<Vec<Rc<Node>>> {
    let Kind::Mapping(entries) = &node.kind else {
        return matches!(node.kind, Kind::List(_) | Kind::Null).then(|| items(node));
    };
    let mut all = Vec::new();
    for entry in entries {
        for address in items(&entry.value) {
            let Kind::Text(address_text) = &address.kind else { return None };
            all.push(Node::new(address.at, Kind::Text(format!("{}={address_text}", entry.key))));
        }
    }
    Some(all)
}

fn driver(node: &Node) -> Option<&str> {
    match &node.get("driver")?.kind {
        Kind::Text(text) => Some(text),
        _ => None,
    }
}

/// Takes out what `!reset` removes. Nothing is copied where there is none.
pub(super) fn without_resets(node: &Rc<Node>) -> Rc<Node> {
    fn has_reset(node: &Node) -> bool {
        node.rule == Rule::Reset
            || match &node.kind {
                Kind::List(items) => items.iter().any(|item| has_reset(item)),
                Kind::Mapping(entries) => entries.iter().any(|entry| has_reset(&entry.value)),
                Kind::Null | Kind::Text(_) => false,
            }
    }
    if !has_reset(node) {
        return Rc::clone(node);
    }
    let kept = |node: &&Rc<Node>| node.rule != Rule::Reset;
    let kind = match &node.kind {
        Kind::List(items) => Kind::List(items.iter().filter(kept).map(without_resets).collect()),
        Kind::Mapping(entries) => Kind::Mapping(
            entries
                .iter()
                .filter(|entry| entry.value.rule != Rule::Reset)
                .map(|entry| Entry { value: without_resets(&entry.value), ..entry.clone() })
                .collect(),
        ),
        Kind::Null => Kind::Null,
        Kind::Text(text) => Kind::Text(text.clone()),
    };
    Node::new(node.at, kind)
}
