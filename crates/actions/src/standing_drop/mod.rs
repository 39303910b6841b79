//! `standing.drop`: the end of a standing order. The agent's loop carries it out itself, as `standing.install`.

use ids::{Revision, StandingOrderId};
use serde::{Deserialize, Serialize};

use crate::{
    engine, limits,
    outcome::Outcome,
    policy::DROP_ACTION,
    port::{ActionContext, ActionPort},
    registry::{Action, ActionInfo, Class, OnRestart},
};

/// Drops a standing order: the host does not run it any more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct StandingDrop {
    /// The standing order, as `standing list` shows it.
    #[cfg_attr(test, schemars(with = "String"))]
    pub standing_order: StandingOrderId,
    /// The highest revision that was signed of it. What is signed up to there, and comes late, is not installed any more.
    #[cfg_attr(test, schemars(with = "u64"))]
    pub revision: Revision,
}

impl StandingDrop {
    /// The name it has.
    pub const NAME: &'static str = DROP_ACTION;
}

impl Action for StandingDrop {
    const INFO: ActionInfo = ActionInfo {
        name: Self::NAME,
        version: 1,
        title: "Drop a standing order",
        class: Class::Change,
        on_restart: OnRestart::Rerun,
        timeout: limits::READ_TIMEOUT,
        schema: include_str!("schema.v1.json"),
    };

    async fn run<P: ActionPort>(&self, context: &ActionContext, _: &mut P) -> Outcome {
        if context.dry_run {
            return engine::would(&["drop the standing order, which then does not run any more"]);
        }
        Outcome::failed(format!("dropping {} is the agent's own work, not an action to run", self.standing_order))
    }
}
