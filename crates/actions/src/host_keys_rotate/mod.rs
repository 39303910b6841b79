//! `host.keys.rotate`: new identity and sealing keys for the host. The agent's loop carries it out
//! itself, because the keys are the session's own; it stands in the registry so that it has a name, a
//! schema and a hash like every other order.

use serde::{Deserialize, Serialize};

use crate::{
    engine, limits,
    outcome::Outcome,
    policy::ROTATE_KEYS_ACTION,
    port::{ActionContext, ActionPort},
    registry::{Action, ActionInfo, Class, OnRestart},
};

/// Gives the host new identity and sealing keys; the old identity key is retired.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct HostKeysRotate {}

impl Action for HostKeysRotate {
    const INFO: ActionInfo = ActionInfo {
        name: ROTATE_KEYS_ACTION,
        version: 1,
        title: "Give the host new keys",
        class: Class::Change,
        on_restart: OnRestart::Rerun,
        timeout: limits::READ_TIMEOUT,
        schema: include_str!("schema.v1.json"),
    };

    async fn run<P: ActionPort>(&self, context: &ActionContext, _: &mut P) -> Outcome {
        if context.dry_run {
            return engine::would(&["make new identity and sealing keys, and retire the identity key in use"]);
        }
        Outcome::failed("new keys are the agent's own work, not an action to run".to_owned())
    }
}
