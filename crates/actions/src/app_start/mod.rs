//! `app.start`: starts an app that was stopped.

use ids::{AppName, DurationMs, ServiceName};
use serde::{Deserialize, Serialize};

use crate::{
    lifecycle::{self, Order, Verb},
    limits,
    outcome::Outcome,
    port::{ActionContext, ActionPort},
    registry::{Action, ActionInfo, Class, Fault, Lock, OnRestart},
};

/// Starts an app's containers in the order of their dependencies, and waits until they are healthy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct AppStart {
    /// The app.
    #[cfg_attr(test, schemars(with = "String"))]
    pub app: AppName,
    /// Some of its services; absent means all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(with = "Option<Vec<String>>"))]
    pub services: Option<Vec<ServiceName>>,
    /// Longest time to wait for health, in milliseconds: 1000 to 1200000, 120000 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

impl Action for AppStart {
    const INFO: ActionInfo = ActionInfo {
        name: "app.start",
        version: 1,
        title: "Start an app",
        class: Class::Change,
        on_restart: OnRestart::Resume,
        timeout: limits::CHANGE_TIMEOUT,
        schema: include_str!("schema.v1.json"),
    };

    fn check(&self) -> Result<(), Fault> {
        lifecycle::services_check(self.services.as_deref())?;
        lifecycle::timeout_check(self.timeout_ms)
    }

    fn lock(&self) -> Lock {
        Lock::App(self.app.clone())
    }

    fn app(&self) -> Option<&AppName> {
        Some(&self.app)
    }

    async fn run<P: ActionPort>(&self, context: &ActionContext, port: &mut P) -> Outcome {
        let order = Order {
            verb: Verb::Start,
            app: &self.app,
            services: self.services.as_deref().unwrap_or_default(),
            health_deadline: self.timeout_ms.map_or(limits::HEALTH_DEADLINE_DEFAULT, DurationMs),
        };
        lifecycle::run(&order, context, port).await
    }
}
