//! `app.stop`: takes an app down, and keeps it down.

use ids::{AppName, ServiceName};
use serde::{Deserialize, Serialize};

use crate::{
    lifecycle::{self, Order, Verb},
    limits,
    outcome::Outcome,
    port::{ActionContext, ActionPort},
    registry::{Action, ActionInfo, Class, Fault, Lock, OnRestart},
};

/// Stops an app's containers, and keeps them from starting by themselves. Nothing is removed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct AppStop {
    /// The app.
    #[cfg_attr(test, schemars(with = "String"))]
    pub app: AppName,
    /// Some of its services; absent means all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(with = "Option<Vec<String>>"))]
    pub services: Option<Vec<ServiceName>>,
}

impl Action for AppStop {
    const INFO: ActionInfo = ActionInfo {
        name: "app.stop",
        version: 1,
        title: "Stop an app",
        class: Class::Change,
        on_restart: OnRestart::Resume,
        timeout: limits::CHANGE_TIMEOUT,
        schema: include_str!("schema.v1.json"),
    };

    fn check(&self) -> Result<(), Fault> {
        lifecycle::services_check(self.services.as_deref())
    }

    fn lock(&self) -> Lock {
        Lock::App(self.app.clone())
    }

    fn app(&self) -> Option<&AppName> {
        Some(&self.app)
    }

    async fn run<P: ActionPort>(&self, context: &ActionContext, port: &mut P) -> Outcome {
        let order = Order {
            verb: Verb::Stop,
            app: &self.app,
            services: self.services.as_deref().unwrap_or_default(),
            health_deadline: limits::HEALTH_DEADLINE_DEFAULT,
        };
        lifecycle::run(&order, context, port).await
    }
}
