//! Compose files → the typed specification that `app.deploy` carries.
//!
//! A bundle of files and a map of variables go in; a resolved [`AppSpec`], the plaintext of what
//! must be sealed, and notes come out — or every problem that was found, each with file, line,
//! column, key, and what to do — or the files that are named in those and still needed. Nothing is ever
//! dropped silently: a key is understood, or it is refused by name. This room never sees a disk or an
//! environment; whoever calls it brings both, so a file that was sent to a server cannot reach into that
//! server.
//!
//! The way of the files: `yaml` makes trees with places, `assemble` makes one of them (`extends`,
//! `include`, the merge of several files), `project` walks it key by key through `reading`
//! (interpolation, sealing, problems), `relations` checks what holds between services.
//!
//! **Secrets.** Every environment value and every file of `configs` and `secrets` is sealed, and so is
//! every text of a service that a variable reached; never sealed are images, ports, names, paths of
//! mounts, sizes, spans of time, switches, and what the host's policy must be able to read. No message
//! prints a value that is sealed or that a variable reached.

mod assemble;
mod dotenv;
mod files;
mod health;
mod image;
mod interpolate;
pub mod limits;
mod mounts;
mod paths;
mod ports;
mod problem;
mod profiles;
mod project;
mod reading;
mod relations;
mod resources;
mod service;
mod sources;
mod suggest;
#[cfg(test)]
mod table;
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
pub use sources::{Bundle, Needed};

use problem::Place;
use reading::{Field, Reading};
use sources::Sources;

/// What the caller knows besides the files. No `Debug`: variables hold secrets.
pub struct Options<'a> {
    /// Variables for `${…}` and for environment entries without a value.
    pub variables: &'a BTreeMap<String, String>,
    /// Wins over the file's `name`.
    pub app_name: Option<AppName>,
    /// Used when neither is given: the name of the file's folder, which is made to fit (lower case,
    /// other characters left out).
    pub fallback_name: Option<&'a str>,
    /// Profiles asked for; `*` stands for all. None at all: those of the variable `COMPOSE_PROFILES`, which
    /// is a list with commas.
    pub profiles: &'a [String],
}

/// What a bundle means.
pub struct Composed {
    /// The app, fully resolved.
    pub spec: AppSpec,
    /// The plaintext of every sealed text of `spec`; the caller seals it to the host.
    pub secrets: BTreeMap<SecretName, Zeroizing<String>>,
    /// Worth telling, in the order of the files: obsolete keys, variables that are not set.
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

/// Why nothing came of a bundle.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Its files name others, which it lacks: add each, or `None` for one that does not exist, and read
    /// again. At least one; never of a bundle that is complete.
    #[error("{} more files are needed", .0.len())]
    Needs(Vec<Needed>),
    /// Something is wrong with them.
    #[error(transparent)]
    Problems(#[from] Problems),
}

/// The plain form of a path, as keys of [`Bundle::files`] have it.
#[must_use]
pub fn plain_path(path: &str) -> String {
    paths::plain(path)
}

/// Reads a bundle. The same bundle and options always give the same result.
///
/// # Errors
/// Every problem found, by place, at most [`limits::PROBLEMS_MAX`]; or the files that are needed.
pub fn read(bundle: &Bundle<'_>, options: &Options<'_>) -> Result<Composed, Refused> {
    let mut reading = Reading::new(Sources::new(bundle, options.variables));
    let spec = assemble::assemble(&mut reading, &bundle.order).and_then(|tree| {
        let root = Field::root(&tree);
        let spec = project::read(&mut reading, &root, options);
        check_sizes(&mut reading, &root, spec.as_ref());
        spec
    });
    let needed = reading.sources.take_needed();
    if !needed.is_empty() {
        return Err(Refused::Needs(needed));
    }
    match spec {
        Some(spec) if reading.problems.is_empty() => {
            Ok(Composed { spec, secrets: reading.secrets, notes: reading.notes.into_problems().list })
        }
        _ if reading.problems.is_empty() => {
            let problem = Problem::new("", Place::default(), "", "no Compose file was given");
            Err(Problems::from(problem.with_hint("name at least one")).into())
        }
        _ => Err(reading.problems.into_problems().into()),
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
    let count = reading.secrets.len();
    if count > limits::SEALED_COUNT_MAX {
        let most = limits::SEALED_COUNT_MAX;
        let message = format!("the app has {count} sealed texts; {most} is the most one order may carry");
        reading.refuse_with(root, message, "split it into several apps, or put some of them into the image");
    }
    if let Some(name) = reading.secrets.keys().find(|name| name.0.len() > limits::SEALED_NAME_BYTES_MAX) {
        let most = limits::SEALED_NAME_BYTES_MAX;
        let message = format!("the place of a sealed text, {}, has more than {most} bytes", problem::excerpt(&name.0));
        reading.refuse_with(root, message, "give the service or the variable a shorter name");
    }
    let Some(spec) = spec else { return };
    let bounds = [
        ("services", spec.services.len(), actions::limits::SERVICES_MAX),
        ("networks", spec.networks.len(), actions::limits::NETWORKS_MAX),
        ("volumes", spec.volumes.len(), actions::limits::NETWORKS_MAX),
    ];
    for (what, count, most) in bounds {
        if count > most {
            let message = format!("the app has {count} {what}; {most} is the most one order may carry");
            reading.refuse_with(root, message, "split it into several apps");
        }
    }
}
