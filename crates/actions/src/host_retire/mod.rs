//! `host.retire`: the host leaves its fleet. The agent's loop carries it out itself, because what goes are
//! the loop's own orders and the host's own keys; it stands in the registry so that it has a name, a schema
//! and a hash like every other order.

use serde::{Deserialize, Serialize};

use crate::{
    engine, limits,
    outcome::Outcome,
    port::{ActionContext, ActionPort},
    registry::{Action, ActionInfo, Class, OnRestart},
};

/// The name of the action that takes a host out of its fleet.
pub const RETIRE_ACTION: &str = "host.retire";

/// Takes the host out of its fleet: its orders and secrets go, its containers stay.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct HostRetire {}

impl Action for HostRetire {
    const INFO: ActionInfo = ActionInfo {
        name: RETIRE_ACTION,
        version: 1,
        title: "Take the host out of the fleet",
        class: Class::Destructive,
        on_restart: OnRestart::Rerun,
        timeout: limits::READ_TIMEOUT,
        schema: include_str!("schema.v1.json"),
    };

    async fn run<P: ActionPort>(&self, context: &ActionContext, _: &mut P) -> Outcome {
        if context.dry_run {
            return engine::would(&[
                "end every order that waits, and take none any more",
                "forget every app's releases, and destroy the keys that open this host's secrets",
                "leave containers, networks, volumes and mounted files as they are",
                "report, destroy the identity key, and never dial again",
            ]);
        }
        Outcome::failed("retiring is the agent's own work, not an action to run".to_owned())
    }
}
