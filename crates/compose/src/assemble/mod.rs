//! Many files → one tree, in the order Compose has: each file is read, its services are extended
//! ([`extends`]), what it includes is put in ([`include`]), and it is merged over the files before it
//! ([`merge`]). Every node still knows its file, and with it the folder its paths start from and the
//! variables it sees.

mod extends;
mod identity;
mod include;
mod merge;

use std::{collections::BTreeMap, rc::Rc};

use crate::{
    interpolate::Template,
    limits::{BUNDLE_BYTES_MAX, BUNDLE_FILES_MAX, FILE_BYTES_MAX, NODES_MAX},
    problem::{Place, Problem},
    reading::{Field, Reading},
    sources::{Found, OUTERMOST, Sources},
    yaml::{self, Kind, Node},
};

pub(crate) use extends::file_path;
use merge::{Merger, without_resets};

/// A file's tree and its number among the sources.
#[derive(Clone)]
struct Loaded {
    tree: Rc<Node>,
    source: u16,
}

/// A file to be read, and who says so.
struct Wanted<'f, 'n> {
    path: String,
    /// Where its relative paths start; its own folder when absent.
    folder: Option<String>,
    scope: usize,
    by: Option<&'f Field<'n>>,
    /// Whether a variable reached the path, which then is not printed.
    hidden: bool,
}

pub(crate) struct Assembly<'r, 'a> {
    reading: &'r mut Reading<'a>,
    /// Files by path, folder and scope.
    loaded: BTreeMap<(String, String, usize), Option<Loaded>>,
    /// Services with all they extend put in, by source and name.
    extended: BTreeMap<(u16, String), Option<Rc<Node>>>,
    copied: usize,
}

/// Reads and joins the Compose files. What is wrong is among the problems; without any file that could
/// be read there is no tree.
pub(crate) fn assemble(reading: &mut Reading<'_>, order: &[String]) -> Option<Rc<Node>> {
    let mut assembly = Assembly { reading, loaded: BTreeMap::new(), extended: BTreeMap::new(), copied: 0 };
    let folder = assembly.reading.sources.project.clone();
    let wanted = order.iter().map(|path| Wanted {
        path: path.clone(),
        folder: Some(folder.clone()),
        scope: OUTERMOST,
        by: None,
        hidden: false,
    });
    let tree = assembly.model(wanted.collect(), &mut Vec::new())?;
    if assembly.copied > NODES_MAX {
        let message = format!("the files grow beyond {NODES_MAX} values when they are merged and extended");
        assembly.reading.refuse(&Field::root(&tree), message);
    }
    Some(without_resets(&tree))
}

impl<'a> Assembly<'_, 'a> {
    /// Some files as one: each with what it extends and includes, over those before it.
    fn model(&mut self, files: Vec<Wanted<'_, '_>>, trail: &mut Vec<String>) -> Option<Rc<Node>> {
        let mut whole: Option<Rc<Node>> = None;
        for wanted in files {
            let Some(loaded) = self.load(&wanted) else { continue };
            let tree = self.extended_tree(&loaded);
            trail.push(wanted.path);
            let tree = self.included_tree(tree, trail);
            trail.pop();
            whole = Some(match whole {
                Some(base) => self.merged(&base, &tree, &mut Vec::new()),
                None => tree,
            });
        }
        whole
    }

    fn merged(&mut self, base: &Rc<Node>, over: &Rc<Node>, path: &mut Vec<String>) -> Rc<Node> {
        let Reading { sources, problems, .. } = &mut *self.reading;
        Merger { sources, problems, copied: &mut self.copied }.merge(base, over, path)
    }

    /// Reads one file, once for each folder and scope.
    fn load(&mut self, wanted: &Wanted<'_, '_>) -> Option<Loaded> {
        let folder = wanted.folder.clone().unwrap_or_else(|| crate::paths::folder(&wanted.path).to_owned());
        let key = (wanted.path.clone(), folder.clone(), wanted.scope);
        if let Some(loaded) = self.loaded.get(&key) {
            return loaded.clone();
        }
        let loaded = self.load_new(wanted, &folder);
        self.loaded.insert(key, loaded.clone());
        loaded
    }

    fn load_new(&mut self, wanted: &Wanted<'_, '_>, folder: &str) -> Option<Loaded> {
        let bytes = match self.reading.sources.find(&wanted.path, FILE_BYTES_MAX) {
            Found::Here(bytes) => bytes,
            Found::Needed => return None,
            found => {
                self.not_found(wanted, &found);
                return None;
            }
        };
        let Some(source) = self.reading.sources.add(&wanted.path, folder, wanted.scope) else {
            self.not_found(wanted, &Found::TooMuch);
            return None;
        };
        match yaml::load(&wanted.path, source, bytes, &mut self.reading.problems) {
            Ok(tree) => Some(Loaded { tree, source }),
            Err(problem) => {
                self.reading.problems.add(problem);
                None
            }
        }
    }

    fn not_found(&mut self, wanted: &Wanted<'_, '_>, found: &Found<'_>) {
        match wanted.by {
            Some(field) => self.reading.refuse_file(field, &wanted.path, wanted.hidden, found),
            None => {
                let (message, hint) = not_found_words("the file", found);
                let problem = Problem::new(&wanted.path, Place::default(), "", message);
                self.reading.problems.add(problem.with_hint(hint));
            }
        }
    }
}

/// What is wrong with a file that was looked for, and what to do.
pub(crate) fn not_found_words(what: &str, found: &Found<'_>) -> (String, &'static str) {
    match found {
        Found::Outside => (
            format!("{what} lies outside of the folder of the first Compose file, and nothing is read from there"),
            "move it into that folder; `serverflow app deploy` also reads it where it is if `--with-file` names it",
        ),
        Found::TooMuch => (
            format!(
                "{what} is one too many: the app's files are more than {BUNDLE_FILES_MAX}, or larger than {BUNDLE_BYTES_MAX} bytes together"
            ),
            "put large files into the image, or split the app",
        ),
        Found::Absent | Found::Here(_) | Found::Needed => (
            format!("{what} is not there"),
            "look at the path; it starts in the folder of the Compose file that names it",
        ),
    }
}

/// A text with its variables put in, without a word about what is wrong: whoever reads it says so.
fn quiet(sources: &Sources<'_>, node: &Node) -> Option<String> {
    let Kind::Text(raw) = &node.kind else { return None };
    let scope = sources.scope(node.at);
    let template = Template::parse(raw).ok()?;
    let text = template.resolve(&|name| sources.variable(scope, name), &mut Vec::new(), &sources.budget).ok()?;
    Some(text.to_string())
}
