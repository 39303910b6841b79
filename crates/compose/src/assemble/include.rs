//! `include`: other Compose files with folders and variables of their own, whose services, networks,
//! volumes, configs and secrets become this app's. What both define must be the same.

use std::{collections::BTreeMap, rc::Rc};

use super::{Assembly, Wanted, extends::file_path};
use crate::{
    dotenv,
    limits::{FILE_BYTES_MAX, INCLUDE_DEPTH_MAX},
    paths,
    problem::excerpt,
    reading::{Field, is_extension},
    sources::Found,
    yaml::{Entry, Kind, Node},
};

/// The sections an included file brings.
const SECTIONS: &[&str] = &["services", "networks", "volumes", "configs", "secrets"];

/// One `include`.
struct Include<'n> {
    /// The files, merged in this order; each with whether a variable reached its path.
    files: Vec<(String, bool, Field<'n>)>,
    folder: Option<String>,
    /// Files of variables: those that are named, which must be there.
    env_files: Option<Vec<(String, bool, Field<'n>)>>,
}

impl Assembly<'_, '_> {
    /// The tree with what it includes put in. `trail`: the files on the way here.
    pub(super) fn included_tree(&mut self, tree: Rc<Node>, trail: &mut Vec<String>) -> Rc<Node> {
        let root = Field::root(&tree);
        let Some(field) = root.find("include") else { return Rc::clone(&tree) };
        let entries = tree.entries().iter().filter(|entry| entry.key != "include").cloned().collect();
        let mut whole = Node::new(tree.at, Kind::Mapping(entries));
        if trail.len() > INCLUDE_DEPTH_MAX {
            self.reading.refuse(&field, format!("more than {INCLUDE_DEPTH_MAX} files include each other"));
            return whole;
        }
        for item in self.reading.list(&field).unwrap_or_default() {
            let Some(include) = self.include(&item) else { continue };
            let first = include.files.first().map(|(path, ..)| path.clone()).unwrap_or_default();
            if let Some(at) = trail.iter().position(|path| *path == first) {
                let message = format!("files include each other in a circle: {} → {first}", trail[at..].join(" → "));
                self.reading.refuse_with(&item, message, "remove one of these `include`");
                continue;
            }
            let folder = include.folder.clone().unwrap_or_else(|| paths::folder(&first).to_owned());
            let scope = self.include_scope(&item, &include, &folder);
            let files = include.files.iter().map(|(path, hidden, by)| Wanted {
                path: path.clone(),
                folder: Some(folder.clone()),
                scope,
                by: Some(by),
                hidden: *hidden,
            });
            if let Some(included) = self.model(files.collect(), trail) {
                whole = self.imported(&whole, &included);
            }
        }
        whole
    }

    fn include<'n>(&mut self, item: &Field<'n>) -> Option<Include<'n>> {
        if !item.is_mapping() {
            let (path, value) = file_path(self.reading, item)?;
            return Some(Include { files: vec![(path, value.reached, item.clone())], folder: None, env_files: None });
        }
        let mut include = Include { files: Vec::new(), folder: None, env_files: None };
        for entry in self.reading.mapping(item)? {
            match entry.key {
                "path" => include.files = self.paths(&entry),
                "project_directory" => include.folder = Some(file_path(self.reading, &entry)?.0),
                "env_file" => include.env_files = Some(self.paths(&entry)),
                key if is_extension(key) => {}
                _ => self.reading.unknown_key(&entry, "`include`", &["path", "project_directory", "env_file"], &[]),
            }
        }
        if include.files.is_empty() {
            self.reading.refuse_with(
                item,
                "`include` has no `path`",
                "name the Compose file: `path: other/compose.yaml`",
            );
            return None;
        }
        Some(include)
    }

    fn paths<'n>(&mut self, field: &Field<'n>) -> Vec<(String, bool, Field<'n>)> {
        let mut paths = Vec::new();
        for item in self.reading.one_or_more(field) {
            if let Some((path, value)) = file_path(self.reading, &item) {
                paths.push((path, value.reached, item));
            }
        }
        paths
    }

    /// The scope of the included files: the variables of their `env_file`, or of `.env` in their folder,
    /// behind those of the file that includes them.
    fn include_scope(&mut self, item: &Field<'_>, include: &Include<'_>, folder: &str) -> usize {
        let scope = self.reading.sources.scope(item.node.at);
        let beside = paths::joined(folder, ".env").unwrap_or_default();
        let own_folder = self.reading.sources.folder(item.node.at);
        let files: Vec<(String, bool, Option<&Field<'_>>)> = match &include.env_files {
            Some(files) => files.iter().map(|(path, hidden, field)| (path.clone(), *hidden, Some(field))).collect(),
            // The file's own `.env` counts already.
            None if folder == own_folder || !paths::is_below(&beside, &self.reading.sources.project) => return scope,
            None => vec![(beside, false, None)],
        };
        let mut own: BTreeMap<String, String> = BTreeMap::new();
        for (path, hidden, field) in files {
            let found = self.reading.sources.find(&path, FILE_BYTES_MAX);
            if let Found::Here(bytes) = found {
                let sources = &self.reading.sources;
                match dotenv::file(&path, bytes, &|name| sources.variable(scope, name)) {
                    Ok(read) => own.extend(read.variables),
                    Err(problem) => self.reading.problems.add(problem),
                }
            } else if let Some(field) = field {
                self.reading.refuse_file(field, &path, hidden, &found);
            }
        }
        if own.is_empty() { scope } else { self.reading.sources.add_scope(own, scope) }
    }

    /// `whole` with the sections of `included`.
    fn imported(&mut self, whole: &Rc<Node>, included: &Rc<Node>) -> Rc<Node> {
        let mut entries = whole.entries().to_vec();
        for section in SECTIONS {
            let Some(from) = included.entries().iter().find(|entry| entry.key == *section) else { continue };
            match entries.iter_mut().find(|entry| entry.key == *section) {
                Some(entry) => entry.value = self.imported_section(section, &entry.value, &from.value),
                None => entries.push(from.clone()),
            }
        }
        Node::new(whole.at, Kind::Mapping(entries))
    }

    fn imported_section(&mut self, section: &str, whole: &Rc<Node>, included: &Rc<Node>) -> Rc<Node> {
        self.copied = self.copied.saturating_add(whole.entries().len() + included.entries().len());
        let mut entries: Vec<Entry> = whole.entries().to_vec();
        for entry in included.entries() {
            match whole.get(&entry.key) {
                Some(here) if !here.says_the_same(&entry.value) => {
                    let message = format!(
                        "{} of `{section}` is also defined in {}, line {}, and differently",
                        excerpt(&entry.key),
                        self.reading.sources.file(here.at),
                        here.at.line
                    );
                    let field = Field::at_entry(entry, section);
                    let hint = "give one of them another name, or change what is included by a further file (`-f`)";
                    self.reading.refuse_with(&field, message, hint);
                }
                Some(_) => {}
                None => entries.push(entry.clone()),
            }
        }
        Node::new(whole.at, Kind::Mapping(entries))
    }
}
