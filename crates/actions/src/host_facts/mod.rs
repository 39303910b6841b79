//! `host.facts`: what the host is. Proves that order, agent and engine reach each other.

use serde::{Deserialize, Serialize};

use crate::{
    effect::Effect,
    engine::{self, Engine},
    limits,
    outcome::Outcome,
    port::{ActionContext, ActionPort},
    registry::{Action, ActionInfo, Class, OnRestart},
};

/// Kernel, distribution, Docker Engine and resources of the host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct HostFacts {}

impl Action for HostFacts {
    const INFO: ActionInfo = ActionInfo {
        name: "host.facts",
        version: 1,
        title: "Show what a host is",
        class: Class::Read,
        on_restart: OnRestart::Rerun,
        timeout: limits::READ_TIMEOUT,
        schema: include_str!("schema.v1.json"),
    };

    async fn run<P: ActionPort>(&self, context: &ActionContext, port: &mut P) -> Outcome {
        if context.dry_run {
            return engine::would(&["read kernel, distribution, Docker Engine and resources of the host"]);
        }
        match Engine::impatient(port).json(Effect::HostFacts).await {
            Ok(facts) => Outcome::succeeded("read the facts of the host", facts),
            Err(error) => Outcome::failed(format!("the facts of the host could not be read: {error}")),
        }
    }
}
