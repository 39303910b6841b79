//! `app.plan`: resolves images and says what a deploy would change.

mod compare;
pub(crate) mod decide;
mod render;
pub(crate) mod resolve;

use std::collections::{BTreeMap, BTreeSet};

use ids::{AppName, ReleaseId, ServiceName, Sha256};
use serde::{Deserialize, Serialize};

use crate::{
    engine::Engine,
    limits,
    outcome::Outcome,
    policy::Demand,
    port::{ActionContext, ActionPort},
    registry::{Action, ActionInfo, Class, Fault, OnRestart},
    spec::{AppSpec, PinnedImage, SecretName},
    spec_check, spec_read,
};

pub use render::render_plan;

/// What a deploy of an app would change; pins its images.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct AppPlan {
    /// The app as it shall be.
    pub spec: AppSpec,
}

/// What a deploy would do to one service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// It has no container yet.
    Create,
    /// Its container is stopped and another takes its place.
    Replace,
    /// Its container is as it shall be but does not run: it is started.
    Restart,
    /// The specification has no such service any more.
    Remove,
    /// Nothing.
    Unchanged,
}

/// What a deploy would do to one service, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceChange {
    /// The service.
    pub service: String,
    /// What happens.
    pub change: Change,
    /// Why, in words; never with a value that may be secret.
    pub reasons: Vec<String>,
}

/// A network or volume that comes or goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ThingChange {
    /// Its name on the engine.
    pub name: String,
    /// Create or remove.
    pub change: Change,
}

/// How containers are exchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Strategy {
    /// The old container stops before the new one starts.
    StopFirst,
}

/// The result of `app.plan`, and of a dry run of `app.deploy`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanResult {
    /// The app.
    pub app: AppName,
    /// The release that runs now.
    pub release_from: Option<ReleaseId>,
    /// Pinned images by service.
    pub images: BTreeMap<ServiceName, PinnedImage>,
    /// Services whose image is not on the host; only in a dry run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unresolved: Vec<ServiceName>,
    /// Services in starting order, then those to be removed.
    pub changes: Vec<ServiceChange>,
    /// Networks to be made or removed.
    pub networks: Vec<ThingChange>,
    /// Volumes to be made. None is ever removed.
    pub volumes: Vec<ThingChange>,
    /// How containers are exchanged.
    pub strategy: Strategy,
    /// Why so.
    pub why: String,
    /// Whether a deploy would change nothing.
    pub unchanged: bool,
    /// Whether every service that keeps running has a health check.
    pub verifiable: bool,
    /// The services that have none.
    pub without_probe: Vec<ServiceName>,
    /// SHA-256 of this plan as JSON, with this field all zeros.
    pub plan_sha256: Sha256,
}

impl Action for AppPlan {
    const INFO: ActionInfo = ActionInfo {
        name: "app.plan",
        version: 2,
        title: "Show what a deploy would change",
        class: Class::Read,
        on_restart: OnRestart::Rerun,
        timeout: limits::PLAN_TIMEOUT,
        schema: include_str!("schema.v2.json"),
    };
    const EARLIER: &'static [(u32, &'static str)] = &[(1, include_str!("schema.v1.json"))];

    fn field_beyond(&self, version: u32) -> Option<String> {
        if version >= 2 { None } else { self.spec.field_of_version_2().map(|field| format!("spec.{field}")) }
    }

    fn check(&self) -> Result<(), Fault> {
        spec_check::check(&self.spec)
    }

    fn app(&self) -> Option<&AppName> {
        Some(&self.spec.app)
    }

    fn demands(&self) -> Vec<Demand> {
        spec_read::demands_unresolved(&self.spec)
    }

    fn secret_names(&self) -> BTreeSet<SecretName> {
        spec_check::secret_names(&self.spec)
    }

    async fn run<P: ActionPort>(&self, context: &ActionContext, port: &mut P) -> Outcome {
        let mut engine = Engine::patient(port, limits::PLAN_TIMEOUT);
        match resolve::plan(&self.spec, context, &mut engine).await {
            Ok(plan) => plan.into_outcome(),
            Err(stop) => stop.untouched(&format!("{} cannot be planned", self.spec.app)),
        }
    }
}

impl PlanResult {
    /// The plan as the end of an action that only planned.
    pub(crate) fn into_outcome(self) -> Outcome {
        let message = render::summary(&self);
        match serde_json::to_value(&self) {
            Ok(result) => Outcome::succeeded(message, result),
            Err(error) => Outcome::failed(format!("the plan of {} could not be written down: {error}", self.app)),
        }
    }
}
