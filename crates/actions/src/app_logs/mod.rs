//! `app.logs`: the last lines an app's containers wrote, as a bounded snapshot.

use ids::{AppName, ServiceName};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::{
    effect::{ContainerState, EffectError},
    engine::{self, Engine},
    limits,
    outcome::Outcome,
    port::{ActionContext, ActionPort},
    registry::{Action, ActionInfo, Class, Fault, OnRestart},
    release::is_parked,
};

/// The last log lines of an app, or of one of its services.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct AppLogs {
    /// The app.
    #[cfg_attr(test, schemars(with = "String"))]
    pub app: AppName,
    /// One of its services; absent means all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(with = "Option<String>"))]
    pub service: Option<ServiceName>,
    /// Lines per service, counted from the end: 1 to 2000, 100 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tail: Option<u32>,
}

impl Action for AppLogs {
    const INFO: ActionInfo = ActionInfo {
        name: "app.logs",
        version: 1,
        title: "Show an app's last log lines",
        class: Class::Read,
        on_restart: OnRestart::Rerun,
        timeout: limits::READ_TIMEOUT,
        schema: include_str!("schema.v1.json"),
    };

    fn check(&self) -> Result<(), Fault> {
        match self.tail {
            Some(n) if !(1..=limits::LOGS_TAIL_MAX).contains(&n) => {
                Err(Fault::new("tail", format!("{n} lines: ask for 1 to {}", limits::LOGS_TAIL_MAX)))
            }
            _ => Ok(()),
        }
    }

    fn app(&self) -> Option<&AppName> {
        Some(&self.app)
    }

    async fn run<P: ActionPort>(&self, context: &ActionContext, port: &mut P) -> Outcome {
        if context.dry_run {
            return engine::would(&["read the last log lines of the app's containers"]);
        }
        match self.read(&mut Engine::impatient(port)).await {
            Ok(outcome) => outcome,
            Err(error) => Outcome::failed(format!("the logs of {} could not be read: {error}", self.app)),
        }
    }
}

impl AppLogs {
    async fn read<P: ActionPort>(&self, engine: &mut Engine<'_, P>) -> Result<Outcome, EffectError> {
        let state = engine.observe(&self.app).await?;
        let mut containers: Vec<ContainerState> =
            state.containers.into_iter().filter(|container| !is_parked(&container.name)).collect();
        containers.sort_by(|a, b| a.name.cmp(&b.name));
        if containers.is_empty() {
            return Ok(Outcome::failed(format!("this host runs no app named {}; see `serverflow app list`", self.app)));
        }
        if let Some(wanted) = &self.service {
            let known: Vec<String> = containers.iter().map(|container| container.service.clone()).collect();
            containers.retain(|container| container.service == wanted.as_str());
            if containers.is_empty() {
                let known = known.join(", ");
                return Ok(Outcome::failed(format!("app {} has no service {wanted} here; it has {known}", self.app)));
            }
        }
        let share = limits::LOGS_BYTES_MAX / containers.len();
        let mut logs = Vec::new();
        for container in containers {
            let text = engine.logs(&container.name, self.tail.unwrap_or(limits::LOGS_TAIL_DEFAULT)).await?;
            let kept = engine::last_lines(&text, share);
            logs.push(json!({
                "service": container.service,
                "container": container.name,
                "truncated": kept.len() < text.len(),
                "text": kept,
            }));
        }
        let message = format!("last log lines of {} from {}", self.app, engine::count(logs.len(), "container"));
        Ok(Outcome::succeeded(message, json!({ "app": self.app, "logs": logs })))
    }
}
