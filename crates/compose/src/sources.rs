//! The files of a bundle and the variables each of them sees.
//!
//! A place in a tree names its source: the file it stands in, the folder its relative paths start
//! from, and the scope its variables are looked up in. One file that is read for two reasons, such as
//! by two `include`s with variables of their own, is two sources.

use std::collections::BTreeMap;

use zeroize::Zeroize as _;

use crate::{
    interpolate::Budget,
    limits::{BUNDLE_BYTES_MAX, BUNDLE_FILES_MAX},
    paths,
    problem::Place,
};

/// The files a person gives.
pub struct Bundle<'a> {
    /// Contents by plain path: no `.` or doubled slashes in it, `..` only at its beginning. `None`: it was
    /// looked for and is not there.
    pub files: BTreeMap<String, Option<&'a [u8]>>,
    /// The Compose files, each merged over those before it. At least one.
    pub order: Vec<String>,
    /// Whether no more files can be had: what is not among them does not exist.
    pub complete: bool,
}

/// A file that the bundle lacks and must be asked for again with.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Needed {
    /// Its path, as a key of [`Bundle::files`]: below the folder of the first Compose file.
    pub path: String,
    /// More bytes than these would be refused.
    pub bytes_max: usize,
}

/// Whether a file can be read.
pub(crate) enum Found<'a> {
    Here(&'a [u8]),
    /// It does not exist.
    Absent,
    /// It was added to what is needed; reading goes on as if it were empty, for nothing comes of it.
    Needed,
    /// It lies where nothing is read from.
    Outside,
    /// There are too many files, or they are too large together.
    TooMuch,
}

struct Source {
    file: String,
    /// Where its relative paths start.
    folder: String,
    scope: usize,
}

/// Variables of an included file: those it brings stand behind all that were there before.
struct Scope {
    own: BTreeMap<String, String>,
    parent: usize,
}

impl Drop for Scope {
    fn drop(&mut self) {
        // Any of them may be a secret.
        self.own.values_mut().for_each(|value| value.zeroize());
    }
}

pub(crate) struct Sources<'a> {
    bundle: &'a Bundle<'a>,
    /// Folder of the first Compose file; nothing is asked for outside of it.
    pub(crate) project: String,
    variables: &'a BTreeMap<String, String>,
    /// The app's name once known: `${COMPOSE_PROJECT_NAME}`, as for Compose.
    pub(crate) project_name: Option<String>,
    list: Vec<Source>,
    scopes: Vec<Scope>,
    needed: BTreeMap<String, Needed>,
    bytes_read: usize,
    /// What may still be looked up of variables.
    pub(crate) budget: Budget,
}

/// The scope of the variables that the caller gave.
pub(crate) const OUTERMOST: usize = 0;

impl<'a> Sources<'a> {
    pub(crate) fn new(bundle: &'a Bundle<'a>, variables: &'a BTreeMap<String, String>) -> Self {
        let first = bundle.order.first().map(String::as_str).unwrap_or_default();
        let project = paths::folder(first).to_owned();
        let whole = Source { file: first.to_owned(), folder: project.clone(), scope: OUTERMOST };
        Self {
            bundle,
            project,
            variables,
            project_name: None,
            list: vec![whole],
            scopes: Vec::new(),
            needed: BTreeMap::new(),
            bytes_read: 0,
            budget: Budget::new(),
        }
    }

    /// Adds a file that is about to be read; `None` when there are too many.
    pub(crate) fn add(&mut self, file: &str, folder: &str, scope: usize) -> Option<u16> {
        if self.list.len() > BUNDLE_FILES_MAX {
            return None;
        }
        self.list.push(Source { file: file.to_owned(), folder: folder.to_owned(), scope });
        u16::try_from(self.list.len() - 1).ok()
    }

    pub(crate) fn add_scope(&mut self, own: BTreeMap<String, String>, parent: usize) -> usize {
        self.scopes.push(Scope { own, parent });
        self.scopes.len()
    }

    fn source(&self, at: Place) -> Option<&Source> {
        self.list.get(usize::from(at.source)).or(self.list.first())
    }

    pub(crate) fn file(&self, at: Place) -> &str {
        self.source(at).map(|source| source.file.as_str()).unwrap_or_default()
    }

    pub(crate) fn folder(&self, at: Place) -> &str {
        self.source(at).map(|source| source.folder.as_str()).unwrap_or_default()
    }

    pub(crate) fn scope(&self, at: Place) -> usize {
        self.source(at).map_or(OUTERMOST, |source| source.scope)
    }

    /// A variable as the scope sees it; outer ones win.
    pub(crate) fn variable(&self, scope: usize, name: &str) -> Option<&str> {
        if name == "COMPOSE_PROJECT_NAME" && self.project_name.is_some() {
            return self.project_name.as_deref();
        }
        // From the innermost outwards, the last one that has it counts.
        let (mut found, mut next) = (None, scope);
        while let Some(scope) = next.checked_sub(1).and_then(|index| self.scopes.get(index)) {
            found = scope.own.get(name).map(String::as_str).or(found);
            next = scope.parent;
        }
        self.variables.get(name).map(String::as_str).or(found)
    }

    /// Looks for a file by its plain path.
    pub(crate) fn find(&mut self, path: &str, bytes_max: usize) -> Found<'a> {
        match self.bundle.files.get(path) {
            Some(Some(bytes)) => {
                // What is too large by itself is refused by whoever reads it.
                if bytes.len() <= bytes_max {
                    self.bytes_read = self.bytes_read.saturating_add(bytes.len());
                }
                if self.bytes_read > BUNDLE_BYTES_MAX { Found::TooMuch } else { Found::Here(bytes) }
            }
            Some(None) => Found::Absent,
            None if !paths::is_below(path, &self.project) => Found::Outside,
            None if self.bundle.complete => Found::Absent,
            None if self.needed.len() >= BUNDLE_FILES_MAX => Found::TooMuch,
            None => {
                self.needed.insert(path.to_owned(), Needed { path: path.to_owned(), bytes_max });
                Found::Needed
            }
        }
    }

    /// What was looked for and may exist.
    pub(crate) fn take_needed(&mut self) -> Vec<Needed> {
        core::mem::take(&mut self.needed).into_values().collect()
    }
}
