//! The host owner's policy: the last word on what this host does, whoever signs the order.
//!
//! An action states what it demands ([`Demand`]); [`Policy::judge`] decides, and a refusal names
//! the line of `policy.toml` that would allow it. Everything is off unless a line says otherwise:
//! no file, an unknown key or an empty list refuses. Part of what an action demands is known only
//! once it looked at the host (where an image came from): the action asks again then, with
//! [`Demand::ResolvedImage`].

mod demand;
mod file;
pub mod image;
mod pattern;
#[cfg(test)]
mod tests;

use ids::ActionName;

pub use demand::{Demand, ImageOrigin, NamespaceKind};
pub use file::PolicyError;
use pattern::{ActionPattern, PortPattern};

use crate::{registry::Class, spec::AppSpec, spec_read};

/// The action that no policy blocks: an owner who forbids everything can still be asked to stop.
pub const CANCEL_ACTION: &str = "command.cancel";
/// The name of the action that gives the host new keys.
pub const ROTATE_KEYS_ACTION: &str = "host.keys.rotate";
/// The name of the action that puts a new signature under a standing order.
pub const RENEW_ACTION: &str = "standing.renew";
/// The name of the action that ends a standing order.
pub const DROP_ACTION: &str = "standing.drop";
/// What no policy forbids. New keys are made by the host itself, and a fleet must be able to retire old ones everywhere: its
/// own too, for which what stands must be signed anew, while the policy is asked about what it does at each run. And what
/// stands can be ended, as what runs can.
pub const ALWAYS_ALLOWED: [&str; 4] = [CANCEL_ACTION, ROTATE_KEYS_ACTION, RENEW_ACTION, DROP_ACTION];

/// What one host allows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    pub(crate) actions: Vec<ActionPattern>,
    pub(crate) registries: Vec<String>,
    pub(crate) publish: Vec<PortPattern>,
    pub(crate) bind_roots: Vec<String>,
    pub(crate) approvals_change: u32,
    pub(crate) approvals_destructive: u32,
    pub(crate) privileged: bool,
    pub(crate) host_network: bool,
    pub(crate) host_pid: bool,
    pub(crate) host_ipc: bool,
    pub(crate) docker_socket: bool,
    pub(crate) capabilities: Vec<String>,
    pub(crate) devices: Vec<String>,
    pub(crate) log_drivers: Vec<String>,
    pub(crate) driver_opts: bool,
    pub(crate) host_user: bool,
    pub(crate) host_uts: bool,
    pub(crate) shared_binds: bool,
    pub(crate) oom_score_negative: bool,
    pub(crate) security_opt: Vec<String>,
    pub(crate) device_cgroup_rules: Vec<String>,
    pub(crate) annotations: Vec<String>,
    pub(crate) external_networks: Vec<String>,
    pub(crate) external_volumes: Vec<String>,
}

/// What was demanded, by whom, and what would allow it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this host's policy refuses: {what}. {}To allow it, the host's owner adds to policy.toml: {line}", advice.as_ref().map(|text| format!("{text}. ")).unwrap_or_default())]
pub struct Refusal {
    /// What was demanded, and by which service.
    pub what: String,
    /// The service that demands it, if one does.
    pub service: Option<String>,
    /// The line of `policy.toml` that would allow it, such as `[ports] publish = ["0.0.0.0:80"]`.
    pub line: String,
    /// A way to go without it, if there is a usual one.
    pub advice: Option<String>,
}

impl Policy {
    /// Reads `policy.toml`.
    ///
    /// # Errors
    /// Names the line, and the key if it is unknown.
    pub fn parse(text: &str) -> Result<Self, PolicyError> {
        file::parse(text)
    }

    /// The commented file that enrolment writes.
    #[must_use]
    pub const fn default_text() -> &'static str {
        include_str!("default.toml")
    }

    /// Refuses everything but [`ALWAYS_ALLOWED`]: with this, what holds without a readable file is judged.
    #[must_use]
    pub fn refuse_all() -> Self {
        Self::default()
    }

    /// Allowed roots of binds.
    #[must_use]
    pub fn bind_roots(&self) -> &[String] {
        &self.bind_roots
    }

    /// Whether Docker's socket may be mounted.
    #[must_use]
    pub const fn docker_socket(&self) -> bool {
        self.docker_socket
    }

    /// The absolute path that a bind's source means for an app: as it is, or, beginning with `.`, below
    /// the app's directory in the first root. Without `.` parts and doubled slashes. `None` when there is no root.
    #[must_use]
    pub fn bind_source(&self, app: &ids::AppName, source: &str) -> Option<String> {
        let whole = if source.starts_with('/') {
            source.to_owned()
        } else {
            format!("{}/{app}/{source}", self.bind_roots.first()?)
        };
        let parts: Vec<&str> = whole.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
        Some(format!("/{}", parts.join("/")))
    }

    /// How many people must have approved an action of that class before this host does it, whatever the fleet's
    /// root metadata says: the larger number counts.
    #[must_use]
    pub const fn approvals_min(&self, class: Class) -> u32 {
        match class {
            Class::Read => 0,
            Class::Change => self.approvals_change,
            Class::Destructive => self.approvals_destructive,
        }
    }

    /// Whether this host does that action at all.
    ///
    /// # Errors
    /// The refusal, with the line that would allow it.
    pub fn judge_action(&self, action: &ActionName, class: Class) -> Result<(), Refusal> {
        if ALWAYS_ALLOWED.contains(&action.as_str()) || self.actions.iter().any(|pattern| pattern.matches(action)) {
            return Ok(());
        }
        Err(Refusal {
            what: format!("the {class} action {action}"),
            service: None,
            line: format!("actions = [\"{action}\"]"),
            advice: None,
        })
    }

    /// Whether this host does that action, with all it demands.
    ///
    /// # Errors
    /// The first refusal, with the line that would allow it.
    pub fn judge(&self, action: &ActionName, class: Class, demands: &[Demand]) -> Result<(), Refusal> {
        self.judge_action(action, class)?;
        self.judge_demands(demands)
    }

    /// Everything of an app that this policy refuses, as far as that is known before the host has looked at
    /// its images: what a person should know before anything is sent.
    #[must_use]
    pub fn refusals(&self, spec: &AppSpec) -> Vec<Refusal> {
        let demands = spec_read::demands_unresolved(spec);
        demands.iter().filter(|demand| !self.allows(demand)).map(Demand::refusal).collect()
    }

    /// Whether the demands alone are allowed; for those that come up once an action looked at the host.
    ///
    /// # Errors
    /// The first refusal, with the line that would allow it.
    pub fn judge_demands(&self, demands: &[Demand]) -> Result<(), Refusal> {
        demands.iter().try_for_each(|demand| if self.allows(demand) { Ok(()) } else { Err(demand.refusal()) })
    }
}
