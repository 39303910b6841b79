//! Compose files → the typed specification that `app.deploy` carries.
//!
//! A bundle of files and a map of variables go in; a resolved [`AppSpec`], the plaintext of what
//! must be sealed, and notes come out — or every problem that was found, each with file, line,
//! column, key, and what to do. Nothing is ever dropped silently: a key is understood, or it is
//! refused by name. This room never sees a disk or an environment; whoever calls it brings both, so
//! a file that was sent to a server cannot reach into that server.
//!
//! The way of one file: `yaml` makes a tree with places, `project` walks it key by key through
//! `reading` (interpolation, sealing, problems), `relations` checks what holds between services.
//!
//! **Secrets.** Every environment value is sealed, and so is every text of a service that a variable
//! reached; never sealed are images, ports, names, paths of mounts, sizes, spans of time, switches, and
//! what the host's policy must be able to read. No message prints a value that is sealed or that a
//! variable reached.

mod dotenv;
mod health;
mod image;
mod interpolate;
pub mod limits;
mod mounts;
mod paths;
mod ports;
mod problem;
mod project;
mod reading;
mod relations;
mod service;
mod suggest;
mod units;
mod words;
mod yaml;

use core::fmt;
use std::collections::BTreeMap;

use actions::spec::{AppSpec, SecretName};
use ids::AppName;
use zeroize::Zeroizing;

pub use dotenv::{dotenv, dotenv_over};
pub use problem::{Problem, Problems};

use problem::{Collected, Place};
use reading::{Field, Reading};

/// The files a person gives.
pub struct Bundle<'a> {
    /// Contents by path, as the path shall stand in messages. This version reads exactly one.
    pub files: BTreeMap<String, &'a [u8]>,
    /// Which of them is the Compose file.
    pub main: &'a str,
}

/// What the caller knows besides the files. No `Debug`: variables hold secrets.
pub struct Options<'a> {
    /// Variables for `${…}` and for environment entries without a value.
    pub variables: &'a BTreeMap<String, String>,
    /// Wins over the file's `name`.
    pub app_name: Option<AppName>,
    /// Used when neither is given: the name of the file's folder, which is made to fit (lower case,
    /// other characters left out).
    pub fallback_name: Option<&'a str>,
}

/// What a bundle means.
pub struct Composed {
    /// The app, fully resolved.
    pub spec: AppSpec,
    /// The plaintext of every sealed text of `spec`; the caller seals it to the host.
    pub secrets: BTreeMap<SecretName, Zeroizing<String>>,
    /// Worth telling, in the order of the file: obsolete keys, variables that are not set.
    pub notes: Vec<Problem>,
}

impl fmt::Debug for Composed {
    /// Shows the names of secrets only.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Composed")
            .field("spec", &self.spec)
            .field("secrets", &self.secrets.keys())
            .field("notes", &self.notes)
            .finish()
    }
}

/// Reads a bundle. The same bundle and options always give the same result.
///
/// # Errors
/// Every problem found, by place, at most [`limits::PROBLEMS_MAX`]. A file that is no YAML or breaks
/// a limit of size ends the reading with that one problem.
pub fn read(bundle: &Bundle<'_>, options: &Options<'_>) -> Result<Composed, Problems> {
    let whole = |file: &str, message: String| Problem::new(file, Place::default(), "", message);
    if let Some(other) = bundle.files.keys().find(|path| *path != bundle.main) {
        let problem = whole(other, format!("this version reads one Compose file, and that is {}", bundle.main));
        return Err(problem.with_hint("put everything into one file").into());
    }
    let Some(bytes) = bundle.files.get(bundle.main) else {
        return Err(whole(bundle.main, "the bundle does not hold this file".to_owned()).into());
    };
    let mut problems = Collected::default();
    let tree = match yaml::load(bundle.main, bytes, &mut problems) {
        Ok(tree) => tree,
        Err(problem) => {
            problems.add(problem);
            return Err(problems.into_problems());
        }
    };
    let mut reading = Reading::new(bundle.main, options.variables, problems);
    let root = Field::root(&tree);
    let spec = project::read(&mut reading, &root, options);
    check_sizes(&mut reading, &root, spec.as_ref());
    match spec {
        Some(spec) if reading.problems.is_empty() => {
            Ok(Composed { spec, secrets: reading.secrets, notes: reading.notes.into_problems().list })
        }
        _ => Err(reading.problems.into_problems()),
    }
}

/// The specification and its secrets must fit into one order.
fn check_sizes(reading: &mut Reading<'_>, root: &Field<'_>, spec: Option<&AppSpec>) {
    let json_bytes = spec.and_then(|spec| serde_json::to_vec(spec).ok()).map_or(0, |json| json.len());
    if json_bytes > limits::SPEC_BYTES_MAX {
        let most = limits::SPEC_BYTES_MAX;
        let message = format!("the app's specification has {json_bytes} bytes; {most} is the most one order may carry");
        reading.refuse_with(root, message, "split it into several apps");
    }
    let secret_bytes = reading.secret_bytes;
    if secret_bytes > limits::SECRETS_BYTES_MAX {
        let most = limits::SECRETS_BYTES_MAX;
        let message = format!("the environment and other sealed texts have {secret_bytes} bytes; {most} is the most");
        reading.refuse_with(root, message, "put large files into the image");
    }
}
