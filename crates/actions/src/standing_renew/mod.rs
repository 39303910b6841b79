//! `standing.renew`: an installed standing order under a signature in force, its content as it was. The agent's loop
//! carries it out itself, as `standing.install`.

use data_encoding::BASE64;
use serde::{Deserialize, Serialize};

use crate::{
    engine, limits,
    outcome::Outcome,
    policy::RENEW_ACTION,
    port::{ActionContext, ActionPort},
    registry::{Action, ActionInfo, Class, Fault, OnRestart},
    standing_install::{check, decoded},
};

/// Puts a new signature under a standing order that is installed, byte for byte as it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct StandingRenew {
    /// The same standing order, signed anew, in base64.
    pub order: String,
}

impl StandingRenew {
    /// With these signed bytes.
    #[must_use]
    pub fn of(envelope: &[u8]) -> Self {
        Self { order: BASE64.encode(envelope) }
    }

    /// The signed bytes.
    #[must_use]
    pub fn envelope(&self) -> Vec<u8> {
        decoded(&self.order).unwrap_or_default()
    }
}

impl Action for StandingRenew {
    const INFO: ActionInfo = ActionInfo {
        name: RENEW_ACTION,
        version: 1,
        title: "Sign an installed standing order anew",
        class: Class::Change,
        on_restart: OnRestart::Rerun,
        timeout: limits::READ_TIMEOUT,
        schema: include_str!("schema.v1.json"),
    };

    fn check(&self) -> Result<(), Fault> {
        check(&self.order)
    }

    async fn run<P: ActionPort>(&self, context: &ActionContext, _: &mut P) -> Outcome {
        if context.dry_run {
            return engine::would(&["put another signature under a standing order, which stays as it is"]);
        }
        Outcome::failed("renewing a standing order is the agent's own work, not an action to run")
    }
}
