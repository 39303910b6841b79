//! `app.deploy`: makes a release the one that runs, or leaves the host as it was.
//!
//! Read `deploy::run` first: the whole operation is one straight line there, and each step is a
//! file beside it.

pub(crate) mod commit;
pub(crate) mod deploy;
pub(crate) mod health;
pub(crate) mod put_back;
mod settle;
pub(crate) mod switch;
pub(crate) mod verify;

use std::collections::{BTreeMap, BTreeSet};

use ids::{AppName, DurationMs, ServiceName, Sha256};
use serde::{Deserialize, Serialize};

use crate::{
    limits,
    outcome::Outcome,
    policy::Demand,
    port::{ActionContext, ActionPort},
    registry::{Action, ActionInfo, Class, Fault, Lock, OnRestart},
    spec::{AppSpec, PinnedImage, SecretName},
    spec_check, spec_read,
};

pub(crate) use settle::{Earlier, Settled, settle_earlier};

/// Makes a release of an app the one that runs, waits until it is healthy, or puts everything back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct AppDeploy {
    /// The app as it shall be.
    pub spec: AppSpec,
    /// One pinned image for each service, as `app.plan` found them.
    #[cfg_attr(test, schemars(with = "BTreeMap<String, PinnedImage>"))]
    pub images: BTreeMap<ServiceName, PinnedImage>,
    /// Longest time to wait for health, in milliseconds: 1000 to 1200000, 120000 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// How long each service must stay healthy before it counts, in milliseconds: at most 600000, 2000 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_healthy_ms: Option<u64>,
    /// The plan this deploy was granted for, by its `plan_sha256`: if the host would do anything
    /// else by now, nothing is done. (Version 2.)
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(with = "Option<String>"))]
    pub plan_sha256: Option<Sha256>,
}

impl AppDeploy {
    fn health_deadline(&self) -> DurationMs {
        self.timeout_ms.map_or(limits::HEALTH_DEADLINE_DEFAULT, DurationMs)
    }

    fn min_healthy(&self) -> DurationMs {
        self.min_healthy_ms.map_or(limits::MIN_HEALTHY_DEFAULT, DurationMs)
    }
}

impl Action for AppDeploy {
    const INFO: ActionInfo = ActionInfo {
        name: "app.deploy",
        version: 2,
        title: "Deploy an app",
        class: Class::Change,
        on_restart: OnRestart::Resume,
        timeout: limits::CHANGE_TIMEOUT,
        schema: include_str!("schema.v2.json"),
    };
    const EARLIER: &'static [(u32, &'static str)] = &[(1, include_str!("schema.v1.json"))];

    fn field_beyond(&self, version: u32) -> Option<String> {
        if version >= 2 {
            return None;
        }
        let own = self.plan_sha256.is_some().then(|| "plan_sha256".to_owned());
        own.or_else(|| self.spec.field_of_version_2().map(|field| format!("spec.{field}")))
    }

    fn check(&self) -> Result<(), Fault> {
        spec_check::check(&self.spec)?;
        spec_check::images_check(&self.spec, &self.images)?;
        let (least, most) = (limits::HEALTH_DEADLINE_MIN, limits::HEALTH_DEADLINE_MAX);
        if !(least..=most).contains(&self.health_deadline()) {
            return Err(Fault::new("timeout_ms", format!("between {} and {} milliseconds", least.0, most.0)));
        }
        let most = limits::MIN_HEALTHY_MAX.min(self.health_deadline());
        if self.min_healthy() > most {
            return Err(Fault::new(
                "min_healthy_ms",
                format!("at most {} milliseconds, and not above timeout_ms", most.0),
            ));
        }
        Ok(())
    }

    fn lock(&self) -> Lock {
        Lock::App(self.spec.app.clone())
    }

    fn app(&self) -> Option<&AppName> {
        Some(&self.spec.app)
    }

    fn demands(&self) -> Vec<Demand> {
        spec_read::demands_resolved(&self.spec, &self.images)
    }

    fn secret_names(&self) -> BTreeSet<SecretName> {
        spec_check::secret_names(&self.spec)
    }

    async fn run<P: ActionPort>(&self, context: &ActionContext, port: &mut P) -> Outcome {
        deploy::run(self, context, port).await
    }
}
