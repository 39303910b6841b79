//! `app.remove`: takes an app off the host, and keeps its volumes.

mod remove;

use ids::AppName;
use serde::{Deserialize, Serialize};

use crate::{
    limits,
    outcome::Outcome,
    port::{ActionContext, ActionPort},
    registry::{Action, ActionInfo, Class, Lock, OnRestart},
};

pub(crate) use remove::remove_pending;

/// Stops and removes an app's containers and networks, and forgets its releases. Volumes stay.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct AppRemove {
    /// The app.
    #[cfg_attr(test, schemars(with = "String"))]
    pub app: AppName,
}

impl Action for AppRemove {
    const INFO: ActionInfo = ActionInfo {
        name: "app.remove",
        version: 1,
        title: "Remove an app",
        class: Class::Destructive,
        on_restart: OnRestart::Resume,
        timeout: limits::CHANGE_TIMEOUT,
        schema: include_str!("schema.v1.json"),
    };

    fn lock(&self) -> Lock {
        Lock::App(self.app.clone())
    }

    fn app(&self) -> Option<&AppName> {
        Some(&self.app)
    }

    async fn run<P: ActionPort>(&self, context: &ActionContext, port: &mut P) -> Outcome {
        remove::run(&self.app, context, port).await
    }
}
