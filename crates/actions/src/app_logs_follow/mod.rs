//! `app.logs.follow`: what an app's containers write while they write it, for as long as somebody watches.

mod follow;

use ids::{AppName, ServiceName};
use serde::{Deserialize, Serialize};

use crate::{
    engine, limits,
    outcome::Outcome,
    port::{ActionContext, ActionPort},
    registry::{Action, ActionInfo, Class, Fault, OnRestart},
};

/// What an app's containers write from now on, as a stream that is leased to whoever watches it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct AppLogsFollow {
    /// The app.
    #[cfg_attr(test, schemars(with = "String"))]
    pub app: AppName,
    /// One of its services; absent means all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(with = "Option<String>"))]
    pub service: Option<ServiceName>,
    /// Lines per service to begin with, counted from the end: 0 to 2000, 100 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tail: Option<u32>,
    /// Of those, only what was written in the last so many milliseconds, at most 604800000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since_ms: Option<u64>,
}

impl Action for AppLogsFollow {
    const INFO: ActionInfo = ActionInfo {
        name: "app.logs.follow",
        version: 1,
        title: "Follow an app's log lines",
        class: Class::Read,
        on_restart: OnRestart::Rerun,
        timeout: limits::FOLLOW_TIMEOUT,
        schema: include_str!("schema.v1.json"),
    };

    fn check(&self) -> Result<(), Fault> {
        if let Some(lines) = self.tail.filter(|lines| *lines > limits::LOGS_TAIL_MAX) {
            return Err(Fault::new("tail", format!("{lines} lines: ask for 0 to {}", limits::LOGS_TAIL_MAX)));
        }
        if let Some(span) = self.since_ms.filter(|span| *span > limits::FOLLOW_SINCE_MAX.0) {
            let most = limits::FOLLOW_SINCE_MAX;
            return Err(Fault::new("since_ms", format!("{span} milliseconds: at most {} ({most})", most.0)));
        }
        Ok(())
    }

    fn app(&self) -> Option<&AppName> {
        Some(&self.app)
    }

    async fn run<P: ActionPort>(&self, context: &ActionContext, port: &mut P) -> Outcome {
        if context.dry_run {
            return engine::would(&["stream what the app's containers write, for as long as somebody watches"]);
        }
        if context.resumed {
            return Outcome::failed("the agent was restarted while it followed these logs; follow them again");
        }
        follow::run(self, port).await
    }
}
