//! What follows from a command that ended: the next stage of its operation, and what it did to the
//! list of apps.

use std::collections::BTreeMap;

use actions::{app_plan::PlanResult, spec::PinnedImage};
use ids::{ActionName, ServiceName, UnixMs};
use serde::Serialize;
use serde_json::value::RawValue;

use super::{
    CommandIds, DeployTiming, ProposeError,
    propose::{Prepared, Stage, command, host_active, sealed_checked},
};
use crate::{
    model::{AppInstance, AppInstanceState, Command, CommandStatus, Host, NewCommand, Operation, OperationKind},
    ports::AppChange,
};

const PLAN: &str = "app.plan";
const DEPLOY: &str = "app.deploy";
const REMOVE: &str = "app.remove";
const STOP: &str = "app.stop";
const START: &str = "app.start";
const RESTART: &str = "app.restart";

fn action(name: &'static str) -> ActionName {
    name.parse().expect("invariant: the names above obey the rule for action names")
}

pub(super) fn plan_action() -> ActionName {
    action(PLAN)
}

pub(super) fn deploy_action() -> ActionName {
    action(DEPLOY)
}

/// Whether the end of this command may ask for another stage, so that its operation must be read.
#[must_use]
pub(crate) fn may_have_next(command: &Command, status: CommandStatus) -> bool {
    // A dry run may be the plan that people are shown.
    status == CommandStatus::Succeeded && (command.order.dry_run || command.order.action.as_str() == PLAN)
}

/// The commands of the stage after a command that ended, from its verified result (the `result`
/// part of the report's JSON). Empty when the operation ends here: every other kind of operation, a
/// dry run, a plan that did not succeed, a plan that finds nothing to change (the app's record stays
/// as it is). The values sealed for the plan go with the deploy: their context is the operation.
///
/// # Errors
/// When the plan succeeded, but no order can be made from it; the words go into the plan's message.
pub fn operation_next(
    operation: &Operation,
    host: &Host,
    ended: &Command,
    status: CommandStatus,
    result: &serde_json::Value,
    now: UnixMs,
    ids: &mut dyn CommandIds,
) -> Result<Vec<NewCommand>, ProposeError> {
    if operation.dry_run || !may_have_next(ended, status) {
        return Ok(Vec::new());
    }
    if ended.order.dry_run {
        return held(operation, host, ended, now, ids);
    }
    if operation.kind != OperationKind::Deploy {
        return Ok(Vec::new());
    }
    let plan: PlanResult = serde_json::from_value(result.clone())
        .map_err(|error| ProposeError::invalid("plan", format!("the host's plan cannot be read: {error}")))?;
    if plan.unchanged {
        return Ok(Vec::new());
    }
    host_active(host)?;
    let (timing, spec) = DeployTiming::of_detail(&operation.detail)
        .map_err(|error| ProposeError::invalid("spec", format!("the stored specification is not JSON: {error}")))?;
    let prepared = Prepared::new(deploy_action(), None, deploy_parameters(spec, &plan, timing)?)?;
    let info = prepared.version_for(host)?;
    let sealed = sealed_checked(&prepared, host, ended.sealed.clone())?;
    let stage = if operation.approvals > 0 { Stage::Plan } else { Stage::Order };
    Ok(vec![command(ended.order.fleet, operation, stage, &prepared, info, host, sealed, now, ids)])
}

/// The order behind a plan that people must approve: the very same, but no dry run. Its bytes are made now, so that what
/// they approve is what is sent.
fn held(
    operation: &Operation,
    host: &Host,
    plan: &Command,
    now: UnixMs,
    ids: &mut dyn CommandIds,
) -> Result<Vec<NewCommand>, ProposeError> {
    if operation.approvals == 0 {
        return Ok(Vec::new());
    }
    host_active(host)?;
    let order = &plan.order;
    let prepared = Prepared::new(order.action.clone(), Some(order.action_version), order.parameters.clone())?;
    let info = prepared.version_for(host)?;
    let sealed = sealed_checked(&prepared, host, plan.sealed.clone())?;
    Ok(vec![command(order.fleet, operation, Stage::Held, &prepared, info, host, sealed, now, ids)])
}

/// Parameters of `app.deploy`. Its `plan_sha256` is left out: nobody granted this very plan, the deploy was ordered
/// together with it, and the host plans again. Between the two a container that keeps crashing, which is what many a
/// deploy mends, looks another way each time, and a change that was half-way is put back first.
fn deploy_parameters(spec: &RawValue, plan: &PlanResult, timing: DeployTiming) -> Result<Vec<u8>, ProposeError> {
    #[derive(Serialize)]
    struct Parameters<'a> {
        spec: &'a RawValue,
        images: &'a BTreeMap<ServiceName, PinnedImage>,
        #[serde(flatten)]
        timing: DeployTiming,
    }
    serde_json::to_vec(&Parameters { spec, images: &plan.images, timing })
        .map_err(|error| ProposeError::invalid("plan", format!("its images cannot be written down: {error}")))
}

/// What a command that ended did to the list of apps. `result` is the `result` part of the report.
#[must_use]
pub fn app_change(
    ended: &Command,
    status: CommandStatus,
    result: &serde_json::Value,
    now: UnixMs,
) -> Option<AppChange> {
    if ended.order.dry_run {
        return None;
    }
    let app = ended.app.clone()?;
    // Another order may have taken it away without a report that says so: a removal that was finished later.
    let is_change = [DEPLOY, STOP, START, RESTART, REMOVE].contains(&ended.order.action.as_str());
    if is_change && result.get("absent") == Some(&serde_json::Value::Bool(true)) {
        return Some(AppChange::Removed { app, host: ended.order.host });
    }
    if status != CommandStatus::Succeeded {
        return None;
    }
    // A deploy that found nothing to change left an older release in place.
    let told = result.get("release").and_then(serde_json::Value::as_str).and_then(|text| text.parse().ok());
    match ended.order.action.as_str() {
        DEPLOY => Some(AppChange::Deployed(AppInstance {
            app,
            host: ended.order.host,
            host_name: ended.host_name.clone(),
            release: told.unwrap_or(ended.order.operation),
            deployed_at: now,
            state: AppInstanceState::Running,
            result: result.to_string().into_bytes(),
        })),
        STOP | START | RESTART => {
            let state = result.get("state").and_then(serde_json::Value::as_str).and_then(AppInstanceState::named)?;
            Some(AppChange::Ran { app, host: ended.order.host, state })
        }
        REMOVE => Some(AppChange::Removed { app, host: ended.order.host }),
        _ => None,
    }
}
