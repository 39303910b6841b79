//! From a request to an operation and its first commands.

use std::collections::BTreeMap;

use actions::{ActionInfo, Class, Request};
use envelope::{
    messages::{Order, SealedRef, SealedValue},
    recovery::RecoveryCopy,
};
use ids::{ActionName, AppName, DurationMs, FleetId, Sha256, UnixMs};
use serde_json::value::RawValue;

use super::{CommandIds, Grounds, OperationRequest, ProposeError, Proposed, Target, Work, standing::is_about_standing};
use crate::{
    limits,
    model::{Host, HostStanding, NewCommand, Operation, OperationKind, Principal, UserRole},
    record,
};

/// One action with its parameters, decoded once.
pub(super) struct Prepared {
    /// The version asked for, or the newest.
    pub(super) info: &'static ActionInfo,
    pub(super) action: ActionName,
    pub(super) parameters: Vec<u8>,
    pub(super) request: Request,
    /// Versions that can carry the parameters, newest first.
    pub(super) fitting: Vec<&'static ActionInfo>,
}

impl Prepared {
    /// Decodes parameters by the action's schema and rules.
    pub(super) fn new(action: ActionName, version: Option<u32>, parameters: Vec<u8>) -> Result<Self, ProposeError> {
        let newest = version.or_else(|| actions::latest(&action).map(|info| info.version)).unwrap_or(1);
        let request = Request::decode(&action, newest, &parameters)?;
        let least = version.unwrap_or_else(|| request.version_needed());
        let fitting = fitting(&action, least, newest);
        let info = actions::find(&action, newest).unwrap_or_else(|| request.info());
        Ok(Self { info, action, parameters, request, fitting })
    }

    /// The version in which this host gets the order: the newest that both sides have.
    pub(super) fn version_for(&self, host: &Host) -> Result<&'static ActionInfo, ProposeError> {
        version_for(host, &self.action, &self.fitting)
    }

    fn app(&self) -> Option<AppName> {
        self.request.app().cloned()
    }
}

/// Judges a request and makes its operation, with one command for each target. `hosts` holds at
/// least the targets, as stored; `ids` gives each command its id.
///
/// # Errors
/// The first rule the request breaks; nothing is to be stored then.
pub fn operation_propose(
    fleet: FleetId,
    grounds: Grounds,
    request: OperationRequest,
    actor: &Principal,
    hosts: &[Host],
    now: UnixMs,
    ids: &mut dyn CommandIds,
) -> Result<Proposed, ProposeError> {
    let request_sha256 = request_sha256(&request, actor);
    let targets = targets(request.targets, hosts)?;
    let (kind, detail, class, prepared) = match request.work {
        Work::Action { action, .. } if is_about_standing(&action) => {
            let message =
                format!("{action} is ordered by `serverflow standing install` and `serverflow standing drop` alone");
            return Err(ProposeError::invalid("action", message));
        }
        Work::Action { action, version, parameters } => {
            let prepared = Prepared::new(action, version, parameters)?;
            authorise(actor, prepared.info.class, &prepared.action)?;
            (OperationKind::Single, Vec::new(), prepared.info.class, prepared)
        }
        Work::Deploy { spec, timing } => {
            timing.check()?;
            let deploy = super::next::deploy_action();
            authorise(actor, Class::Change, &deploy)?;
            let prepared = Prepared::new(super::next::plan_action(), None, plan_parameters(&spec)?)?;
            // Both stages carry the same specification, so they need the same version of their schemas.
            let least = prepared.request.version_needed();
            let fitting = fitting(&deploy, least, latest(&deploy)?.version);
            for (host, _) in &targets {
                // The second stage is judged now too, so that no plan is made in vain.
                version_for(host, &deploy, &fitting)?;
            }
            (OperationKind::Deploy, timing.detail(&spec), Class::Change, prepared)
        }
    };
    if targets.iter().any(|(_, sealed)| !sealed.is_empty()) {
        authorise_sealed(actor)?;
    }
    let is_cancel = prepared.action.as_str() == actions::policy::CANCEL_ACTION;
    let approvals = if request.dry_run || is_cancel { 0 } else { grounds.needed(class) };
    let queue_for = queue_for(request.queue_for, approvals)?;
    let operation = Operation {
        id: request.id,
        kind,
        requested_by: actor.user_name.clone(),
        created_at: now,
        request_sha256,
        detail,
        queue_for_ms: queue_for.0,
        dry_run: request.dry_run,
        selector: request.selector,
        approvals,
        requester: grounds.requester,
    };
    let mut commands = Vec::with_capacity(targets.len());
    for (host, sealed) in targets {
        let info = prepared.version_for(host)?;
        let sealed = sealed_checked(&prepared, host, sealed)?;
        // What people must approve is planned first; the order itself is made when the plan is there.
        let stage = if approvals > 0 && kind == OperationKind::Single { Stage::Plan } else { Stage::Order };
        commands.push(command(fleet, &operation, stage, &prepared, info, host, sealed, now, ids));
    }
    let recovery = request.recovery.map(|copy| recovery_checked(&operation, &commands, copy)).transpose()?;
    let audit = record::proposal(&operation, &commands, recovery.as_ref(), 1, actor.audit_name(), now);
    Ok(Proposed { operation, commands, recovery, audit })
}

/// A recovery copy, of a deploy whose values it names, no more and no less.
fn recovery_checked(
    operation: &Operation,
    commands: &[NewCommand],
    copy: RecoveryCopy,
) -> Result<RecoveryCopy, ProposeError> {
    let invalid = |message: &str| ProposeError::invalid("recovery", message);
    if operation.kind != OperationKind::Deploy || operation.dry_run {
        return Err(invalid("only a deploy that is no dry run keeps a recovery copy; leave it out"));
    }
    copy.check().map_err(|error| invalid(&error.to_string()))?;
    let named = |command: &NewCommand| command.order.sealed.iter().map(|sealed| &sealed.name).eq(copy.names());
    if !commands.iter().all(named) {
        return Err(invalid("its values are not those that are sealed to the hosts"));
    }
    Ok(copy)
}

/// The newest version of an action of ours.
pub(super) fn latest(action: &ActionName) -> Result<&'static ActionInfo, ProposeError> {
    actions::latest(action)
        .ok_or_else(|| ProposeError::invalid("action", format!("this control plane has no action {action}")))
}

/// Least role that may order an action of that class.
fn role_needed(class: Class) -> UserRole {
    match class {
        Class::Read => UserRole::Viewer,
        Class::Change => UserRole::Operator,
        Class::Destructive => UserRole::Admin,
    }
}

/// Whether this person may order an action of that class.
///
/// # Errors
/// [`ProposeError::NotAllowed`] with the role it takes.
pub fn authorise(actor: &Principal, class: Class, action: &ActionName) -> Result<(), ProposeError> {
    let needs = role_needed(class);
    if actor.role < needs {
        return Err(ProposeError::NotAllowed { action: action.to_string(), needs, has: actor.role });
    }
    Ok(())
}

/// Sealed values take an operator, also where the action only reads: a plan tells which of them differ from
/// those in use, so whoever may send guesses learns when one is right.
fn authorise_sealed(actor: &Principal) -> Result<(), ProposeError> {
    let needs = UserRole::Operator;
    if actor.role < needs {
        let action = "an order with sealed values".to_owned();
        return Err(ProposeError::NotAllowed { action, needs, has: actor.role });
    }
    Ok(())
}

fn queue_for(asked: Option<DurationMs>, approvals: u32) -> Result<DurationMs, ProposeError> {
    let usual = if approvals > 0 { limits::QUEUE_FOR_APPROVAL_DEFAULT } else { limits::QUEUE_FOR_DEFAULT };
    let span = asked.unwrap_or(usual);
    if (limits::QUEUE_FOR_MIN..=limits::QUEUE_FOR_MAX).contains(&span) {
        return Ok(span);
    }
    let message = format!("between {} and {}", limits::QUEUE_FOR_MIN, limits::QUEUE_FOR_MAX);
    Err(ProposeError::invalid("queue_for", message))
}

/// The targets with their hosts, in the order asked for, each active and named once.
fn targets(asked: Vec<Target>, hosts: &[Host]) -> Result<Vec<(&Host, Vec<SealedValue>)>, ProposeError> {
    if asked.is_empty() || asked.len() > limits::TARGETS_MAX {
        return Err(ProposeError::invalid("hosts", format!("name between 1 and {} hosts", limits::TARGETS_MAX)));
    }
    let known: BTreeMap<_, _> = hosts.iter().map(|host| (host.id, host)).collect();
    let mut seen = std::collections::BTreeSet::new();
    let mut targets = Vec::with_capacity(asked.len());
    for target in asked {
        let host = *known.get(&target.host).ok_or(ProposeError::HostNotFound(target.host))?;
        if !seen.insert(host.id) {
            return Err(ProposeError::invalid("hosts", format!("host {} is named twice", host.name)));
        }
        host_active(host)?;
        targets.push((host, target.sealed));
    }
    Ok(targets)
}

pub(super) fn host_active(host: &Host) -> Result<(), ProposeError> {
    let why = match &host.standing {
        HostStanding::Active => return Ok(()),
        HostStanding::Quarantined { why } => {
            format!("is quarantined ({why}) and gets no orders; see `serverflow host quarantine list`")
        }
        HostStanding::Revoked { .. } => "is revoked and never gets an order again; enrol the machine anew".to_owned(),
    };
    Err(ProposeError::HostNotActive { name: host.name.to_string(), why })
}

/// The versions of an action from `least` to `newest`, newest first.
pub(super) fn fitting(action: &ActionName, least: u32, newest: u32) -> Vec<&'static ActionInfo> {
    (least..=newest).rev().filter_map(|version| actions::find(action, version)).collect()
}

/// The first of these versions that the host's agent has in exactly our form.
pub(super) fn version_for(
    host: &Host,
    action: &ActionName,
    fitting: &[&'static ActionInfo],
) -> Result<&'static ActionInfo, ProposeError> {
    if host.actions.is_empty() {
        // An agent says what it has in its first session.
        let why = "has not connected yet; start its agent with `serverflow-agent run`, then order it again".to_owned();
        return Err(ProposeError::HostNotActive { name: host.name.to_string(), why });
    }
    let mut differs = None;
    for info in fitting {
        let mut same = host.actions.iter().filter(|has| has.name == *action && has.version == info.version);
        match same.next() {
            Some(has) if has.schema_sha256 == info.schema_sha256() => return Ok(info),
            Some(_) => differs = differs.or(Some(info.version)),
            None => {}
        }
    }
    let (name, action_name) = (host.name.to_string(), action.to_string());
    if let Some(version) = differs {
        return Err(ProposeError::SchemaDiffers { host: name, action: action_name, version });
    }
    let has = host.actions.iter().filter(|has| has.name == *action).map(|has| has.version).max();
    let is_newer = has.is_some_and(|has| fitting.first().is_some_and(|newest| newest.version < has));
    let nearest = if is_newer { fitting.first() } else { fitting.last() };
    Err(ProposeError::ActionMissing {
        host: name,
        agent: if host.agent_version.is_empty() { "?".to_owned() } else { host.agent_version.clone() },
        action: action_name,
        version: nearest.map_or(1, |info| info.version),
        has,
    })
}

/// `{"spec": …}` around the specification's own bytes.
fn plan_parameters(spec: &[u8]) -> Result<Vec<u8>, ProposeError> {
    if spec.len() > limits::PARAMETERS_BYTES_MAX {
        let message = format!("{} bytes; at most {} are possible", spec.len(), limits::PARAMETERS_BYTES_MAX);
        return Err(ProposeError::invalid("spec", message));
    }
    let raw: &RawValue =
        serde_json::from_slice(spec).map_err(|error| ProposeError::invalid("spec", format!("not JSON: {error}")))?;
    Ok(format!("{{\"spec\":{raw}}}").into_bytes())
}

/// The sealed values of one target, ascending by name: exactly those the parameters name, within bounds.
pub(super) fn sealed_checked(
    prepared: &Prepared,
    host: &Host,
    mut sealed: Vec<SealedValue>,
) -> Result<Vec<SealedValue>, ProposeError> {
    let refused =
        |message: String| Err(ProposeError::invalid(format!("sealed values for host {}", host.name), message));
    sealed.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    if let Some(pair) = sealed.windows(2).find(|pair| pair[0].name == pair[1].name) {
        return refused(format!("{} is given twice", pair[0].name));
    }
    let wanted = prepared.request.secret_names();
    if let Some(missing) = wanted.iter().find(|name| sealed.binary_search_by(|value| value.name.cmp(&name.0)).is_err())
    {
        return refused(format!("{} is missing; seal it to this host", missing.0));
    }
    if sealed.len() > limits::SEALED_COUNT_MAX {
        return refused(format!("{} values; at most {} are possible", sealed.len(), limits::SEALED_COUNT_MAX));
    }
    let mut total = 0usize;
    for value in &sealed {
        if !wanted.contains(&actions::spec::SecretName(value.name.clone())) {
            return refused(format!("{} is not named by the parameters", value.name));
        }
        if value.name.len() > limits::SEALED_NAME_BYTES_MAX {
            return refused(format!("a name of {} bytes; at most {}", value.name.len(), limits::SEALED_NAME_BYTES_MAX));
        }
        let most = limits::SECRET_BYTES_MAX + limits::SEAL_OVERHEAD_BYTES;
        if !(limits::SEAL_OVERHEAD_BYTES..=most).contains(&value.bytes.len()) {
            return refused(format!("{} is not a sealed value: {} bytes", value.name, value.bytes.len()));
        }
        total += value.bytes.len();
    }
    if total > limits::SEALED_TOTAL_BYTES_MAX {
        return refused(format!("{total} bytes together; at most {} are possible", limits::SEALED_TOTAL_BYTES_MAX));
    }
    Ok(sealed)
}

/// What a command is in its operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// What was asked for, or a first stage of it.
    Order,
    /// A dry run of what was asked for, for those who approve it.
    Plan,
    /// What was asked for, once enough people have approved it.
    Held,
}

/// One command of an operation, in the version that its host gets.
#[allow(clippy::too_many_arguments, reason = "each is a different part of the order")]
pub(super) fn command(
    fleet: FleetId,
    operation: &Operation,
    stage: Stage,
    prepared: &Prepared,
    info: &ActionInfo,
    host: &Host,
    sealed: Vec<SealedValue>,
    now: UnixMs,
    ids: &mut dyn CommandIds,
) -> NewCommand {
    let refs = sealed.iter().map(|value| SealedRef { name: value.name.clone(), sha256: ids::sha256(&value.bytes) });
    let order = Order {
        fleet,
        host: host.id,
        command: ids.command_id(),
        operation: operation.id,
        proposed_at: now,
        deliver_by: now.plus(DurationMs(operation.queue_for_ms)),
        start_within_ms: limits::START_WITHIN.0,
        action: prepared.action.clone(),
        action_version: info.version,
        schema_sha256: info.schema_sha256(),
        parameters: prepared.parameters.clone(),
        sealed: refs.collect(),
        requester: operation.requester,
        dry_run: operation.dry_run || stage == Stage::Plan,
    };
    let held = (stage == Stage::Held).then(|| crate::approval::held_words(operation.id, 0, operation.approvals));
    NewCommand { order, app: prepared.app(), sealed, held }
}

/// SHA-256 over every part of a request and who made it, each part behind its length, so that two
/// different requests never encode alike. Targets count in order of host id, sealed values by name.
fn request_sha256(request: &OperationRequest, actor: &Principal) -> Sha256 {
    let mut bytes = Vec::new();
    let mut part = |content: &[u8]| {
        bytes.extend_from_slice(&(content.len() as u64).to_be_bytes());
        bytes.extend_from_slice(content);
    };
    part(b"serverflow operation request v1");
    part(request.id.as_bytes());
    part(actor.user.as_bytes());
    match &request.work {
        Work::Action { action, version, parameters } => {
            part(b"action");
            part(action.as_str().as_bytes());
            part(&version.unwrap_or(0).to_be_bytes());
            part(parameters);
        }
        Work::Deploy { spec, timing } => {
            part(b"deploy");
            part(&timing.detail(spec));
        }
    }
    part(&[u8::from(request.dry_run)]);
    part(&request.queue_for.unwrap_or(limits::QUEUE_FOR_DEFAULT).0.to_be_bytes());
    let mut targets: Vec<&Target> = request.targets.iter().collect();
    targets.sort_unstable_by_key(|target| target.host);
    part(&(targets.len() as u64).to_be_bytes());
    for target in targets {
        part(target.host.as_bytes());
        let mut sealed: Vec<&SealedValue> = target.sealed.iter().collect();
        sealed.sort_unstable_by(|a, b| (&a.name, &a.bytes).cmp(&(&b.name, &b.bytes)));
        part(&(sealed.len() as u64).to_be_bytes());
        for value in sealed {
            part(value.name.as_bytes());
            part(ids::sha256(&value.bytes).as_bytes());
        }
    }
    ids::sha256(&bytes)
}
