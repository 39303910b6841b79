//! `command.cancel`: asks a running command to stop and put things back. The agent's loop carries
//! it out itself, because it concerns other commands and must wait for no lock; it stands in the
//! registry so that it has a name, a schema and a hash like every other order.

use ids::CommandId;
use serde::{Deserialize, Serialize};

use crate::{
    engine, limits,
    outcome::Outcome,
    policy::CANCEL_ACTION,
    port::{ActionContext, ActionPort},
    registry::{Action, ActionInfo, Class, OnRestart},
};

/// Asks a command on the same host to stop and to put back what it did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct CommandCancel {
    /// The command to stop, as `command list` shows it.
    #[cfg_attr(test, schemars(with = "String"))]
    pub command_id: CommandId,
}

impl Action for CommandCancel {
    const INFO: ActionInfo = ActionInfo {
        name: CANCEL_ACTION,
        version: 1,
        title: "Stop a command",
        class: Class::Change,
        on_restart: OnRestart::Rerun,
        timeout: limits::READ_TIMEOUT,
        schema: include_str!("schema.v1.json"),
    };

    async fn run<P: ActionPort>(&self, context: &ActionContext, _: &mut P) -> Outcome {
        if context.dry_run {
            return engine::would(&["ask the command to stop and to put back what it did"]);
        }
        Outcome::failed(format!("cancelling {} is the agent's own work, not an action to run", self.command_id))
    }
}
