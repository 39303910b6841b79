//! Standing orders: from what somebody asks for to what is signed, and from what is signed to the order that brings it.

use actions::{
    Class, class_for_people, host_retire::RETIRE_ACTION, standing_drop::StandingDrop,
    standing_install::StandingInstall, standing_renew::StandingRenew,
};
use envelope::{
    messages::{Standing, StandingOrder},
    standing::{check_schedule, shown},
};
use ids::{ActionName, DurationMs, Epoch, FleetId, OperationId, Revision, Sha256, StandingOrderId, UnixMs, UserName};
use serde_json::json;

use super::{
    CommandIds, Grounds, ProposeError,
    propose::{Prepared, Stage, authorise, command, fitting, host_active, version_for},
};
use crate::{
    limits,
    model::{Host, Operation, OperationKind, Principal},
    ports::{NewStanding, SignedStanding, StandingProposal, Write},
    record,
    standing::{StandingRecord, StandingSeal, StepKind},
};

/// What somebody wants a host to do by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StandingRequest {
    /// Chosen by the client, so that the same request sent twice is one operation.
    pub operation: OperationId,
    pub action: ActionName,
    /// Absent: the newest that the host and this control plane have.
    pub version: Option<u32>,
    /// UTF-8 JSON by the action's schema.
    pub parameters: Vec<u8>,
    pub schedule: String,
    pub zone: String,
    /// From the request on; absent means [`limits::STANDING_VALID_DEFAULT`].
    pub valid_for: Option<DurationMs>,
    /// Absent means [`limits::ALONE_FOR_DEFAULT`].
    pub alone_for: Option<DurationMs>,
}

/// What is signed of a request that is granted.
///
/// # Errors
/// The first rule it breaks.
pub fn standing_judge(
    fleet: FleetId,
    request: &StandingRequest,
    order: StandingOrderId,
    actor: &Principal,
    host: &Host,
    now: UnixMs,
) -> Result<Standing, ProposeError> {
    let StandingRequest { operation, action, version, parameters, schedule, zone, valid_for, alone_for } = request;
    let is_own = is_about_standing(action) || action.as_str() == RETIRE_ACTION;
    if is_own || actions::policy::ALWAYS_ALLOWED.contains(&action.as_str()) {
        return Err(ProposeError::invalid(
            "action",
            format!("{action} is the agent's own work, which no schedule can ask for"),
        ));
    }
    let prepared = Prepared::new(action.clone(), *version, parameters.clone())?;
    authorise(actor, prepared.info.class.max(Class::Change), action)?;
    host_active(host)?;
    if !prepared.request.secret_names().is_empty() {
        let message = "standing orders with secrets cannot be installed from here; deploy the app, and have a standing order \
                       that needs none act on it";
        return Err(ProposeError::invalid("parameters", message));
    }
    check_schedule(schedule, zone).map_err(|error| ProposeError::invalid("schedule", error.to_string()))?;
    let within = |field: &str, span: DurationMs, most: DurationMs| {
        let fits = DurationMs(1) <= span && span <= most;
        fits.then_some(span)
            .ok_or_else(|| ProposeError::invalid(field, format!("at most {most}, and more than nothing")))
    };
    let valid_for =
        within("valid_for", valid_for.unwrap_or(limits::STANDING_VALID_DEFAULT), limits::STANDING_VALID_MAX)?;
    let alone_for =
        within("alone_for", alone_for.unwrap_or(limits::ALONE_FOR_DEFAULT), envelope::limits::ALONE_FOR_MAX)?;
    let info = prepared.version_for(host)?;
    // The agent must be able to take it at all, before anything is signed.
    let install = install_action();
    version_for(host, &install, &fitting(&install, 1, 1))?;
    Ok(Standing {
        fleet,
        host: host.id,
        order,
        operation: *operation,
        action: action.clone(),
        action_version: info.version,
        schema_sha256: info.schema_sha256(),
        parameters: parameters.clone(),
        sealed: Vec::new(),
        schedule: schedule.clone(),
        zone: zone.clone(),
        valid_until: now.plus(valid_for),
        alone_for,
    })
}

/// The message to be signed: the signer puts in its time.
#[must_use]
pub fn standing_order(standing: Standing, host: &Host, epoch: Epoch, revision: Revision, now: UnixMs) -> StandingOrder {
    StandingOrder { standing, host_epoch: host.host_epoch, epoch, revision, issued: now }
}

/// The order that brings a signed standing order to its host for the first time.
///
/// # Errors
/// When it cannot be ordered.
pub fn standing_install(
    grounds: Grounds,
    request: &StandingRequest,
    envelope: Vec<u8>,
    actor: &Principal,
    host: &Host,
    now: UnixMs,
    ids: &mut dyn CommandIds,
) -> Result<Write, ProposeError> {
    let (signed, sealed) = sealed(envelope)?;
    let standing = &signed.standing;
    let parameters = json!(StandingInstall::of(&sealed.envelope)).to_string().into_bytes();
    let prepared = Prepared::new(install_action(), None, parameters)?;
    let class = class_for_people(&prepared.action, prepared.info.version, &prepared.parameters);
    let approvals = grounds.needed(class.unwrap_or(Class::Destructive));
    let operation = Operation {
        request_sha256: standing_request_sha256(request, actor, host),
        requester: grounds.requester,
        ..operation(request.operation, actor.user_name.clone(), now, approvals)
    };
    let new = NewStanding {
        action: standing.action.clone(),
        action_version: standing.action_version,
        schedule: standing.schedule.clone(),
        zone: standing.zone.clone(),
        valid_until: standing.valid_until,
        alone_for: standing.alone_for,
    };
    let actor = actor.audit_name();
    let subject = Subject {
        fleet: standing.fleet,
        kind: StepKind::Install,
        order: standing.order,
        new: Some(new),
        last: sealed.seal.revision,
        sealed: Some(sealed),
    };
    proposal(subject, operation, &prepared, host, actor, now, ids)
}

/// The order that brings the same content under another signature. Nobody asked for it.
///
/// # Errors
/// When it cannot be ordered.
pub fn standing_renew(
    record: &StandingRecord,
    envelope: Vec<u8>,
    id: OperationId,
    host: &Host,
    now: UnixMs,
    ids: &mut dyn CommandIds,
) -> Result<Write, ProposeError> {
    host_active(host)?;
    let (signed, sealed) = sealed(envelope)?;
    let parameters = json!(StandingRenew::of(&sealed.envelope)).to_string().into_bytes();
    let prepared = Prepared::new(action(actions::policy::RENEW_ACTION), None, parameters)?;
    let renewal = operation(id, record.requested_by.clone(), now, 0);
    let operation = Operation { queue_for_ms: limits::QUEUE_FOR_MAX.0, ..renewal };
    let actor = record::CONTROL_PLANE.to_owned();
    let subject = Subject {
        fleet: signed.standing.fleet,
        kind: StepKind::Renew,
        order: record.order,
        new: None,
        last: sealed.seal.revision,
        sealed: Some(sealed),
    };
    proposal(subject, operation, &prepared, host, actor, now, ids)
}

/// The order that ends a standing order, whether or not it is on record here. `last` is the highest revision that was signed
/// of it, so that nothing of it that is still on its way is installed afterwards.
///
/// # Errors
/// When it cannot be ordered.
pub fn standing_drop(
    (fleet, grounds): (FleetId, Grounds),
    id: OperationId,
    (order, last): (StandingOrderId, Revision),
    actor: &Principal,
    host: &Host,
    now: UnixMs,
    ids: &mut dyn CommandIds,
) -> Result<Write, ProposeError> {
    let parameters = json!(StandingDrop { standing_order: order, revision: last }).to_string().into_bytes();
    let prepared = Prepared::new(action(StandingDrop::NAME), None, parameters)?;
    authorise(actor, prepared.info.class, &prepared.action)?;
    host_active(host)?;
    let approvals = grounds.needed(prepared.info.class);
    let operation =
        Operation { requester: grounds.requester, ..operation(id, actor.user_name.clone(), now, approvals) };
    let actor = actor.audit_name();
    let subject = Subject { fleet, kind: StepKind::Drop, order, new: None, sealed: None, last };
    proposal(subject, operation, &prepared, host, actor, now, ids)
}

/// Actions that come about only here, because what they bring is signed or kept on record.
pub(super) fn is_about_standing(action: &ActionName) -> bool {
    [StandingInstall::NAME, StandingDrop::NAME, actions::policy::RENEW_ACTION].contains(&action.as_str())
}

fn action(name: &'static str) -> ActionName {
    name.parse().expect("invariant: the registry's names obey the rule for action names")
}

fn install_action() -> ActionName {
    action(StandingInstall::NAME)
}

/// What a signer answered, and what makes it count.
fn sealed(envelope: Vec<u8>) -> Result<(StandingOrder, SignedStanding), ProposeError> {
    let refused =
        |error| ProposeError::invalid("standing order", format!("the signer's answer cannot be read: {error}"));
    let (key, order) = shown(&envelope).map_err(refused)?;
    let (revision, host_epoch, epoch) = (order.revision, order.host_epoch, order.epoch);
    let seal = StandingSeal { revision, key, host_epoch, epoch };
    Ok((order, SignedStanding { seal, envelope }))
}

/// One that is asked for again is the same whatever was signed for it, so its own words are compared.
#[must_use]
pub fn standing_request_sha256(request: &StandingRequest, actor: &Principal, host: &Host) -> Sha256 {
    let StandingRequest { operation, action, version, parameters, schedule, zone, valid_for, alone_for } = request;
    let mut bytes = Vec::new();
    let mut part = |content: &[u8]| {
        bytes.extend_from_slice(&(content.len() as u64).to_be_bytes());
        bytes.extend_from_slice(content);
    };
    part(b"serverflow standing order request v1");
    part(operation.as_bytes());
    part(actor.user.as_bytes());
    part(host.id.as_bytes());
    part(action.as_str().as_bytes());
    part(&version.unwrap_or(0).to_be_bytes());
    part(parameters);
    part(schedule.as_bytes());
    part(zone.as_bytes());
    part(&valid_for.unwrap_or(limits::STANDING_VALID_DEFAULT).0.to_be_bytes());
    part(&alone_for.unwrap_or(limits::ALONE_FOR_DEFAULT).0.to_be_bytes());
    ids::sha256(&bytes)
}

fn operation(id: OperationId, requested_by: UserName, now: UnixMs, approvals: u32) -> Operation {
    let queue_for = if approvals > 0 { limits::QUEUE_FOR_APPROVAL_DEFAULT } else { limits::QUEUE_FOR_DEFAULT };
    Operation {
        id,
        kind: OperationKind::Single,
        requested_by,
        created_at: now,
        // Told apart by its id alone, unless somebody chose that.
        request_sha256: ids::sha256(id.as_bytes()),
        detail: Vec::new(),
        queue_for_ms: queue_for.0,
        dry_run: false,
        selector: None,
        approvals,
        requester: None,
    }
}

/// What a proposal is about.
struct Subject {
    fleet: FleetId,
    kind: StepKind,
    order: StandingOrderId,
    new: Option<NewStanding>,
    sealed: Option<SignedStanding>,
    last: Revision,
}

fn proposal(
    subject: Subject,
    operation: Operation,
    prepared: &Prepared,
    host: &Host,
    actor: String,
    now: UnixMs,
    ids: &mut dyn CommandIds,
) -> Result<Write, ProposeError> {
    let Subject { fleet, kind, order, new, sealed, last } = subject;
    let info = prepared.version_for(host)?;
    let stage = if operation.approvals > 0 { Stage::Plan } else { Stage::Order };
    let commands = vec![command(fleet, &operation, stage, prepared, info, host, Vec::new(), now, ids)];
    let audit = match &sealed {
        Some(sealed) => record::standing_order(order, &host.name, &operation, sealed, actor, now),
        None => record::proposal(&operation, &commands, None, 1, actor, now),
    };
    let proposal =
        StandingProposal { host: host.id, order, kind, new, sealed, last, operation, commands, at: now, audit };
    Ok(Write::StandingPropose(Box::new(proposal)))
}
