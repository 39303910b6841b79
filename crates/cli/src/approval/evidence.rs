//! What an approver is shown, verified here: nothing of it rests on the control plane's word. The root key that
//! this machine knows leads to the session keys that signed the host's receipt, the receipt to the host's
//! keys, those to its signed report of the dry run, and that to the order that was planned. The approval is made
//! from the very bytes that were shown.

use api::ApprovalEvidence;
use data_encoding::BASE64;
use envelope::{
    Verified, VerifyingKey,
    key_chain::HostKeys,
    keys::role,
    messages::{Approval, Command, Order, Report, ReportStatus},
    verify,
};
use ids::{DurationMs, HostEpoch, HostId, HostName, KeyId, OperationId, Sha256, UnixMs, sha256};
use serde::Deserialize;
use serde_json::Value;

use crate::roots::Roots;

/// What one host would do, and has signed that it would.
#[derive(Debug)]
pub(super) struct Checked {
    /// As the control plane has it.
    pub(super) host: HostName,
    /// As it was enrolled.
    pub(super) enrolled_as: HostName,
    pub(super) order: Order,
    /// Its present epoch.
    pub(super) host_epoch: HostEpoch,
    pub(super) plan: Plan,
    pub(super) plan_sha256: Sha256,
    pub(super) planned_at: UnixMs,
    /// As the control plane has it.
    pub(super) shown: ApprovalEvidence,
}

/// The result of a dry run, as its host signed it.
#[derive(Debug, Deserialize)]
pub(super) struct Plan {
    #[serde(default)]
    pub(super) message: String,
    #[serde(default)]
    pub(super) result: Value,
}

/// The keys a host has had, by its epochs.
struct Host {
    id: HostId,
    name: HostName,
    keys: Vec<HostKeys>,
}

fn decoded(what: &str, text: &str) -> Result<Vec<u8>, String> {
    BASE64.decode(text.as_bytes()).map_err(|_| format!("the {what} is not base64"))
}

fn host(shown: &ApprovalEvidence, roots: &Roots) -> Result<Host, String> {
    let receipt = roots.receipt(&decoded("receipt", &shown.receipt)?);
    let receipt = receipt.map_err(|why| format!("the host's enrolment receipt does not verify: {why}"))?;
    let mut keys = vec![HostKeys::enrolled(&receipt)];
    for rotation in &shown.key_changes {
        let mut next = keys[keys.len() - 1].clone();
        next.follow(&decoded("rotation of keys", rotation)?).map_err(|error| error.to_string())?;
        keys.push(next);
    }
    Ok(Host { id: receipt.host, name: receipt.name, keys })
}

impl Host {
    fn present(&self) -> HostEpoch {
        self.keys[self.keys.len() - 1].host_epoch
    }

    /// A report by the key of its own epoch.
    fn report(&self, envelope: &[u8]) -> Result<Verified<Report>, String> {
        for keys in &self.keys {
            let Ok(key) = VerifyingKey::<role::Agent>::try_from(keys.identity_key) else { continue };
            let Ok(report) = verify::<Report>(envelope, &[key]) else { continue };
            let is_its = (report.fleet, report.host, report.host_epoch) == (keys.fleet, self.id, keys.host_epoch);
            return if is_its { Ok(report) } else { Err("the host's report is of another host or epoch".to_owned()) };
        }
        Err("the host's report does not verify under its keys".to_owned())
    }
}

/// The sealed order that the report answers.
fn planned(shown: &ApprovalEvidence, report: &Report, roots: &Roots) -> Result<Order, String> {
    for text in &shown.plan_orders {
        let envelope = decoded("order of the plan", text)?;
        let Ok(command) = verify::<Command>(&envelope, &roots.command_keys) else { continue };
        if command.payload_sha256() == report.command_sha256 {
            return Ok(command.into_value().order);
        }
    }
    Err("no signed order is shown that the host's report answers".to_owned())
}

/// Verifies what the control plane shows of one held command of that operation.
///
/// # Errors
/// What does not verify.
pub(super) fn check(operation: OperationId, shown: ApprovalEvidence, roots: &Roots) -> Result<Checked, String> {
    let order = Order::decode(&decoded("order", &shown.order)?).map_err(|error| error.to_string())?;
    let host = host(&shown, roots)?;
    let report = shown.plan_report.as_deref().ok_or("there is no plan of it")?;
    let report = host.report(&decoded("report", report)?)?;
    let plan_order = planned(&shown, &report, roots)?;
    let about = |name: &str| format!("the plan is about another {name} than what is to be approved");
    let checks = [
        (order.operation == operation && plan_order.operation == operation, "operation"),
        (order.fleet == roots.fleet && plan_order.fleet == roots.fleet, "fleet"),
        (order.host == host.id && plan_order.host == host.id, "host"),
        (plan_order.action == order.action, "action"),
        (plan_order.action_version == order.action_version, "version of the action"),
        (plan_order.parameters == order.parameters, "set of parameters"),
        (plan_order.sealed == order.sealed, "set of sealed values"),
        (plan_order.dry_run && !order.dry_run, "kind of order"),
        (report.command == plan_order.command, "command"),
    ];
    if let Some((_, what)) = checks.into_iter().find(|(same, _)| !same) {
        return Err(about(what));
    }
    if report.status != ReportStatus::Succeeded {
        return Err("the host could not plan it".to_owned());
    }
    let plan: Plan = serde_json::from_slice(&report.result).map_err(|_| "the plan cannot be read".to_owned())?;
    Ok(Checked {
        host: shown.host.clone(),
        enrolled_as: host.name.clone(),
        host_epoch: host.present(),
        plan_sha256: sha256(&report.result),
        planned_at: report.finished_at,
        order,
        plan,
        shown,
    })
}

impl Checked {
    /// What is signed.
    pub(super) fn approval(&self, bind_plan: bool, now: UnixMs, expires: UnixMs) -> Approval {
        let order = &self.order;
        Approval {
            fleet: order.fleet,
            host: order.host,
            host_epoch: self.host_epoch,
            operation: order.operation,
            action: order.action.clone(),
            action_version: order.action_version,
            parameters_sha256: sha256(&order.parameters),
            sealed: order.sealed.clone(),
            plan_sha256: self.plan_sha256,
            bind_plan,
            approved_at: now,
            expires,
        }
    }

    /// How long an approval is of use: until the order is, and may have begun to wait for its lock.
    pub(super) fn of_use_until(&self) -> UnixMs {
        self.order.deliver_by.plus(DurationMs(self.order.start_within_ms))
    }

    pub(super) fn is_approved_by(&self, key: KeyId) -> bool {
        let key = key.to_string();
        self.shown.approvals.iter().any(|approval| approval.key_id == key)
    }
}

#[cfg(test)]
#[path = "evidence_tests.rs"]
mod tests;
