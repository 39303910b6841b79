//! What every key's reader shares: the place it stands at, interpolation, sealing, and the list of
//! problems, which grows while reading goes on, so that a person sees all of them at once.

use std::collections::{BTreeMap, BTreeSet};

use actions::spec::{SealedText, SecretName, Text};
use ids::ServiceName;
use zeroize::Zeroizing;

use crate::{
    assemble::not_found_words,
    interpolate::{InterpolationError, Template},
    limits::{ENTRIES_MAX, LIST_ITEMS_MAX, SECRETS_BYTES_MAX},
    problem::{Collected, Place, Problem, excerpt},
    sources::{Found, Sources},
    suggest::nearest,
    yaml::{Entry, Kind, Node, path_key},
};

/// A node with the way to it.
#[derive(Clone, Debug)]
pub(crate) struct Field<'n> {
    pub(crate) node: &'n Node,
    /// Last key of the path; empty in a list.
    pub(crate) key: &'n str,
    /// Where a person looks for it: its key, or the item itself in a list.
    pub(crate) at: Place,
    pub(crate) path: String,
}

impl<'n> Field<'n> {
    pub(crate) fn root(node: &'n Node) -> Self {
        Self { node, key: "", at: node.at, path: String::new() }
    }

    fn entry(&self, entry: &'n Entry) -> Self {
        let path = path_key(&self.path, &entry.key);
        Self { node: &entry.value, key: &entry.key, at: entry.key_at, path }
    }

    fn item(&self, index: usize, node: &'n Node) -> Self {
        Self { node, key: "", at: node.at, path: format!("{}[{index}]", self.path) }
    }

    /// The entry of that key, if this is a mapping that has it.
    pub(crate) fn find(&self, key: &str) -> Option<Self> {
        self.node.entries().iter().find(|entry| entry.key == key).map(|entry| self.entry(entry))
    }

    pub(crate) fn is_null(&self) -> bool {
        matches!(self.node.kind, Kind::Null)
    }

    pub(crate) fn is_list(&self) -> bool {
        matches!(self.node.kind, Kind::List(_))
    }

    pub(crate) fn is_mapping(&self) -> bool {
        matches!(self.node.kind, Kind::Mapping(_))
    }

    /// A key of a section at the top.
    pub(crate) fn at_entry(entry: &'n Entry, section: &str) -> Self {
        Self { node: &entry.value, key: &entry.key, at: entry.key_at, path: path_key(section, &entry.key) }
    }

    /// The text as the file has it, before variables.
    pub(crate) fn raw(&self) -> Option<&'n str> {
        match &self.node.kind {
            Kind::Text(text) => Some(text),
            _ => None,
        }
    }
}

/// A text with its variables put in. Wiped when dropped; no `Debug`.
pub(crate) struct Value {
    pub(crate) text: Zeroizing<String>,
    /// Whether a variable stands in it, set or not: then it is sealed where sealing is possible,
    /// and never printed.
    pub(crate) reached: bool,
}

impl Value {
    /// The value for a message; hidden when a variable reached it.
    pub(crate) fn shown(&self) -> String {
        if self.reached { "the value (hidden: a variable reached it)".to_owned() } else { excerpt(&self.text) }
    }
}

/// The state of reading one app.
pub(crate) struct Reading<'a> {
    pub(crate) sources: Sources<'a>,
    pub(crate) problems: Collected,
    pub(crate) notes: Collected,
    noted_unset: BTreeSet<String>,
    /// Names that a variable chose: used, but not printed.
    hidden_names: BTreeSet<ServiceName>,
    /// It was said that variables bring too much.
    told_budget: bool,
    /// Once [`Self::secret_bytes`] is beyond its bound, empty texts stand in for those that follow: the
    /// file is refused then, and a variable of 100 KB could stand in it a hundred thousand times.
    pub(crate) secrets: BTreeMap<SecretName, Zeroizing<String>>,
    /// Bytes of all texts that are sealed, also of those left out.
    pub(crate) secret_bytes: usize,
}

impl<'a> Reading<'a> {
    pub(crate) fn new(sources: Sources<'a>) -> Self {
        Self {
            sources,
            problems: Collected::default(),
            notes: Collected::default(),
            noted_unset: BTreeSet::new(),
            hidden_names: BTreeSet::new(),
            told_budget: false,
            secrets: BTreeMap::new(),
            secret_bytes: 0,
        }
    }

    pub(crate) fn refuse(&mut self, field: &Field<'_>, message: impl Into<String>) {
        self.problems.add(Problem::new(self.sources.file(field.at), field.at, &field.path, message));
    }

    pub(crate) fn refuse_with(&mut self, field: &Field<'_>, message: impl Into<String>, hint: impl Into<String>) {
        self.problems.add(Problem::new(self.sources.file(field.at), field.at, &field.path, message).with_hint(hint));
    }

    pub(crate) fn note(&mut self, field: &Field<'_>, message: impl Into<String>, hint: impl Into<String>) {
        self.notes.add(Problem::new(self.sources.file(field.at), field.at, &field.path, message).with_hint(hint));
    }

    /// As [`Self::note`], where nothing need be done.
    pub(crate) fn note_plain(&mut self, field: &Field<'_>, message: impl Into<String>) {
        self.notes.add(Problem::new(self.sources.file(field.at), field.at, &field.path, message));
    }

    /// Refuses a value for a reason; prints the value only where that is safe.
    pub(crate) fn refuse_value(&mut self, field: &Field<'_>, value: &Value, reason: &str) {
        self.refuse(field, format!("{} is refused: {reason}", value.shown()));
    }

    /// Refuses a file that cannot be read; says nothing of one that is only needed still.
    pub(crate) fn refuse_file(&mut self, field: &Field<'_>, path: &str, hidden: bool, found: &Found<'_>) {
        if matches!(found, Found::Here(_) | Found::Needed) {
            return;
        }
        let shown = if hidden { "the file (hidden: a variable reached its path)".to_owned() } else { excerpt(path) };
        let (message, hint) = not_found_words(&shown, found);
        self.refuse_with(field, message, hint);
    }

    /// A variable as the file of `field` sees it.
    pub(crate) fn variable(&self, field: &Field<'_>, name: &str) -> Option<&str> {
        self.sources.variable(self.sources.scope(field.node.at), name)
    }

    /// Puts variables into `raw`, which stands at `field`.
    pub(crate) fn interpolate(&mut self, field: &Field<'_>, raw: &str) -> Option<Value> {
        // Told once, where it came to that.
        if self.told_budget {
            return None;
        }
        let mut unset = Vec::new();
        let resolved = Template::parse(raw).and_then(|template| {
            let text = template.resolve(&|name| self.variable(field, name), &mut unset, &self.sources.budget)?;
            Ok(Value { text, reached: template.has_variables() })
        });
        for name in unset {
            if self.noted_unset.insert(name.clone()) {
                let hint = "set it, or write `${NAME:-default}`; `$$` is a plain dollar sign";
                self.note(field, format!("the variable {name} is not set; nothing is put in its place"), hint);
            }
        }
        match resolved {
            Ok(value) => Some(value),
            Err(error) => {
                self.told_budget |= error == InterpolationError::Budget;
                let problem = Problem::new(self.sources.file(field.at), field.at, &field.path, error.to_string());
                self.problems.add(match error.hint() {
                    Some(hint) => problem.with_hint(hint),
                    None => problem,
                });
                None
            }
        }
    }

    /// A single value with its variables put in.
    pub(crate) fn value(&mut self, field: &Field<'_>) -> Option<Value> {
        match field.raw() {
            Some(raw) => self.interpolate(field, raw),
            None => {
                self.refuse(field, format!("expected a single value, found {}", field.node.shape()));
                None
            }
        }
    }

    /// A single value read by `parse`, whose reasons are static and so cannot carry the value.
    pub(crate) fn parsed<T>(&mut self, field: &Field<'_>, parse: fn(&str) -> Result<T, &'static str>) -> Option<T> {
        let value = self.value(field)?;
        match parse(&value.text) {
            Ok(parsed) => Some(parsed),
            Err(reason) => {
                self.refuse_value(field, &value, reason);
                None
            }
        }
    }

    /// A name of a service, network or volume, `text` being all or part of `value`.
    pub(crate) fn name(&mut self, field: &Field<'_>, value: &Value, text: &str) -> Option<ServiceName> {
        let Ok(name) = text.parse::<ServiceName>() else {
            let rule = "a name has 1 to 63 letters, digits, hyphens, underscores and dots, \
                and begins with a letter or digit";
            self.refuse_value(field, value, rule);
            return None;
        };
        if value.reached {
            self.hidden_names.insert(name.clone());
        }
        Some(name)
    }

    /// The key of `field` as such a name.
    pub(crate) fn key_name(&mut self, field: &Field<'_>) -> Option<ServiceName> {
        let value = Value { text: field.key.to_owned().into(), reached: false };
        self.name(field, &value, field.key)
    }

    /// The name for a message, unless a variable chose it.
    pub(crate) fn shown_name<'n>(&self, name: &'n ServiceName) -> Option<&'n str> {
        (!self.hidden_names.contains(name)).then_some(name.as_str())
    }

    /// Where no variable may stand, because the text cannot be sealed.
    pub(crate) fn plain_text(&mut self, field: &Field<'_>, why: &str) -> Option<String> {
        let value = self.value(field)?;
        if value.reached {
            self.refuse_with(
                field,
                "a variable stands here, but this text cannot be sealed",
                format!("{why}; write it without variables"),
            );
            return None;
        }
        Some(value.text.to_string())
    }

    /// Plain, or sealed whole as `name` when a variable reached it.
    pub(crate) fn text(&mut self, name: String, value: Value) -> Text {
        if value.reached { self.sealed(name, value.text) } else { Text::Plain(value.text.to_string()) }
    }

    /// Sealed whole as `name`.
    pub(crate) fn sealed(&mut self, name: String, text: Zeroizing<String>) -> Text {
        let name = SecretName(name);
        if self.secrets.contains_key(&name) {
            // One file that is granted twice travels once.
            return Text::Sealed(SealedText { sealed: name });
        }
        self.secret_bytes = self.secret_bytes.saturating_add(text.len());
        let text = if self.secret_bytes > SECRETS_BYTES_MAX { Zeroizing::default() } else { text };
        self.secrets.insert(name.clone(), text);
        Text::Sealed(SealedText { sealed: name })
    }

    /// The entries of a mapping. Nothing at all counts as an empty one.
    pub(crate) fn mapping<'n>(&mut self, field: &Field<'n>) -> Option<Vec<Field<'n>>> {
        match &field.node.kind {
            Kind::Mapping(entries) => Some(entries.iter().map(|entry| field.entry(entry)).collect()),
            Kind::Null => Some(Vec::new()),
            _ => {
                self.refuse(field, format!("expected a mapping (`key: value`), found {}", field.node.shape()));
                None
            }
        }
    }

    /// As [`Self::mapping`], bounded: for services, networks and volumes.
    pub(crate) fn named_entries<'n>(&mut self, field: &Field<'n>) -> Vec<Field<'n>> {
        let mut entries = self.mapping(field).unwrap_or_default();
        if entries.len() > ENTRIES_MAX {
            self.refuse(field, format!("{} entries; {ENTRIES_MAX} is the most", entries.len()));
            entries.truncate(ENTRIES_MAX);
        }
        entries
    }

    /// The items of a list, or the one value that stands for a list of one.
    pub(crate) fn one_or_more<'n>(&mut self, field: &Field<'n>) -> Vec<Field<'n>> {
        if field.raw().is_some() { vec![field.clone()] } else { self.list(field).unwrap_or_default() }
    }

    /// The items of a list. Nothing at all counts as an empty one.
    pub(crate) fn list<'n>(&mut self, field: &Field<'n>) -> Option<Vec<Field<'n>>> {
        match &field.node.kind {
            Kind::List(items) => {
                if items.len() > LIST_ITEMS_MAX {
                    self.refuse(field, format!("{} items in one list; {LIST_ITEMS_MAX} is the most", items.len()));
                }
                let items = items.iter().enumerate().take(LIST_ITEMS_MAX);
                Some(items.map(|(index, node)| field.item(index, node)).collect())
            }
            Kind::Null => Some(Vec::new()),
            _ => {
                self.refuse(field, format!("expected a list, found {}", field.node.shape()));
                None
            }
        }
    }

    /// The word a person most likely meant; not looked for when it would not be told anyway.
    pub(crate) fn nearest<'k>(&self, word: &str, known: &[&'k str]) -> Option<&'k str> {
        if self.problems.is_full() { None } else { nearest(word, known) }
    }

    /// Refuses a key that `whole` (such as "a service") does not have here.
    pub(crate) fn unknown_key(&mut self, field: &Field<'_>, whole: &str, known: &[&str], later: &[(&str, &str)]) {
        if self.problems.is_full() {
            return self.problems.count();
        }
        let shown = excerpt(field.key);
        if let Some((_, hint)) = later.iter().find(|(key, _)| *key == field.key) {
            return self.refuse_with(field, format!("the key {shown} is not supported here"), *hint);
        }
        let message = format!("{whole} has no key {shown}");
        let all: Vec<&str> = known.iter().copied().chain(later.iter().map(|(key, _)| *key)).collect();
        let meant = self.nearest(field.key, &all);
        let refused = later.iter().find(|(key, _)| Some(*key) == meant);
        match meant {
            _ if let Some((key, hint)) = refused => {
                self.refuse_with(field, message, format!("`{key}`, if that is meant, is not supported here: {hint}"));
            }
            Some(meant) => self.refuse_with(field, message, format!("did you mean `{meant}`?")),
            None => self.refuse_with(field, message, format!("known here: {}", known.join(", "))),
        }
    }
}

/// Whether a key is an extension, which anyone may add and nothing reads.
pub(crate) fn is_extension(key: &str) -> bool {
    key.starts_with("x-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sealed_takes_no_more_memory_than_may_be_sealed() {
        let variables = BTreeMap::new();
        let bundle = crate::Bundle { files: BTreeMap::new(), order: vec!["compose.yaml".to_owned()], complete: true };
        let mut reading = Reading::new(Sources::new(&bundle, &variables));
        let text = "x".repeat(100_000);
        for n in 0..50 {
            reading.sealed(format!("web/environment/{n}"), text.clone().into());
        }
        assert_eq!((reading.secret_bytes, reading.secrets.len()), (5_000_000, 50));
        let held: usize = reading.secrets.values().map(|text| text.len()).sum();
        assert!(held <= SECRETS_BYTES_MAX, "{held}");
    }
}
