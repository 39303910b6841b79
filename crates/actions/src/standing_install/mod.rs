//! `standing.install`: a standing order begins to stand, or takes the place of one. The agent's loop carries it out itself,
//! because what it brings is signed by itself and judged by the loop's keys; it stands in the registry so that it has a
//! name, a schema and a hash like every other order.

use std::collections::BTreeSet;

use data_encoding::BASE64;
use envelope::{
    messages::{Standing, StandingOrder},
    standing::shown,
};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::{
    limits,
    outcome::Outcome,
    port::{ActionContext, ActionPort},
    registry::{Action, ActionInfo, Class, Fault, OnRestart, find},
    spec::SecretName,
};

/// Installs a standing order: an action that the host runs by itself at set times.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct StandingInstall {
    /// The signed standing order, in base64.
    pub order: String,
}

impl StandingInstall {
    /// The name it has.
    pub const NAME: &'static str = "standing.install";

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

    /// What it says that it would install. Proved by nothing: who carries it out verifies it first.
    #[must_use]
    pub fn said(&self) -> Option<StandingOrder> {
        shown(&self.envelope()).ok().map(|(_, order)| order)
    }

    /// How much it may change: as much as what it has run, and no less than a change. None when that is not known here.
    #[must_use]
    pub fn class(&self) -> Option<Class> {
        let Standing { action, action_version, .. } = self.said()?.standing;
        find(&action, action_version).map(|info| info.class.max(Class::Change))
    }
}

/// The bytes of a signed order in parameters.
pub(crate) fn decoded(order: &str) -> Option<Vec<u8>> {
    BASE64.decode(order.as_bytes()).ok()
}

/// That it is a standing order at all, in the one way of writing it down.
pub(crate) fn check(order: &str) -> Result<(), Fault> {
    let envelope = decoded(order).ok_or_else(|| Fault::new("order", "not base64 (RFC 4648 section 4)"))?;
    shown(&envelope).map(drop).map_err(|error| Fault::new("order", format!("not a signed standing order: {error}")))
}

impl Action for StandingInstall {
    const INFO: ActionInfo = ActionInfo {
        name: Self::NAME,
        version: 1,
        title: "Install a standing order",
        class: Class::Change,
        on_restart: OnRestart::Rerun,
        timeout: limits::READ_TIMEOUT,
        schema: include_str!("schema.v1.json"),
    };

    fn check(&self) -> Result<(), Fault> {
        check(&self.order)
    }

    /// Its values travel with the order that installs it.
    fn secret_names(&self) -> BTreeSet<SecretName> {
        let said = self.said().map(|order| order.standing.sealed).unwrap_or_default();
        said.into_iter().map(|sealed| SecretName(sealed.name)).collect()
    }

    async fn run<P: ActionPort>(&self, context: &ActionContext, _: &mut P) -> Outcome {
        match self.said().filter(|_| context.dry_run) {
            Some(order) => plan(&order),
            None => Outcome::failed("installing a standing order is the agent's own work, not an action to run"),
        }
    }
}

/// Everything that people approve when they approve this.
fn plan(order: &StandingOrder) -> Outcome {
    let Standing {
        order: id, action, action_version, parameters, sealed, schedule, zone, valid_until, alone_for, ..
    } = &order.standing;
    let text = String::from_utf8_lossy(parameters);
    let message = format!(
        "dry run: would have this host run {action} version {action_version} by itself at \"{schedule}\" ({zone}), until it is \
         dropped or {} ms since 1970 have passed, and for up to {alone_for} without a session; parameters: {text}",
        valid_until.0
    );
    let values: Vec<_> = sealed.iter().map(|value| json!({ "name": value.name, "sha256": value.sha256 })).collect();
    Outcome::succeeded(
        message,
        json!({
            "dry_run": true, "standing_order": id, "action": action, "action_version": action_version,
            "parameters": text, "sealed": values, "schedule": schedule, "zone": zone,
            "valid_until_ms": valid_until.0, "alone_for_ms": alone_for.0,
        }),
    )
}
