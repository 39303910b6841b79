//! `docker.containers`: every container of the host's engine, ours or not.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{
    effect::Effect,
    engine::{self, Engine},
    limits,
    outcome::Outcome,
    port::{ActionContext, ActionPort},
    registry::{Action, ActionInfo, Class, OnRestart},
};

/// Names, images and states of all containers on the host, ours or not.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct DockerContainers {}

impl Action for DockerContainers {
    const INFO: ActionInfo = ActionInfo {
        name: "docker.containers",
        version: 1,
        title: "List the containers of a host",
        class: Class::Read,
        on_restart: OnRestart::Rerun,
        timeout: limits::READ_TIMEOUT,
        schema: include_str!("schema.v1.json"),
    };

    async fn run<P: ActionPort>(&self, context: &ActionContext, port: &mut P) -> Outcome {
        if context.dry_run {
            return engine::would(&["list all containers of the host"]);
        }
        match Engine::impatient(port).json(Effect::ContainersList).await {
            Ok(list) => listed(list),
            Err(error) => Outcome::failed(format!("the containers of the host could not be listed: {error}")),
        }
    }
}

fn listed(list: Value) -> Outcome {
    let mut containers = match list {
        Value::Array(containers) => containers,
        other => vec![other],
    };
    let total = containers.len();
    containers.truncate(limits::CONTAINERS_MAX);
    let truncated = containers.len() < total;
    let message = match total {
        1 => "1 container".to_owned(),
        n if truncated => format!("{n} containers, the first {} listed", limits::CONTAINERS_MAX),
        n => format!("{n} containers"),
    };
    Outcome::succeeded(message, json!({ "containers": containers, "total": total, "truncated": truncated }))
}
