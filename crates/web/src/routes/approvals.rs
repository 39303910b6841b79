//! What people must approve: whose keys there are, what an approver must see, and what one says.
//!
//! A signature is made elsewhere and judged by hosts. Here only its bringer is known, so here it is seen
//! that nobody brings another's, or approves what they asked for themselves.

use std::{collections::BTreeMap, sync::Arc};

use api::{
    ApprovalEvidence, ApprovalRequest, ApprovalShown, ApproverRequest, ApproverSummary, DenialRequest,
    OperationResponse,
};
use axum::{Json, extract::State};
use data_encoding::BASE64;
use envelope::{
    VerifyingKey, key_id,
    keys::role,
    messages::{Approval, PublicKeyBytes},
    root::TrustedRoot,
};
use fleet::{
    approval::{self, ApproveError, Matter},
    model::{Command, CommandStatus, Host, Operation, Principal, User},
    people,
    ports::{Event, HostChange, StoreError, Write},
};
use ids::{CommandId, HostId, KeyId, OperationId, UserName};

use crate::{
    access::{self, Actor},
    input::{JsonBody, JsonBodyMaybe, PathParameter},
    lasting::to_the_end,
    limits,
    problem::{ApiError, Kind},
    routes::{commands, hosts, operations},
    state::Shared,
    view,
};

pub(super) async fn approvers(
    State(shared): State<Arc<Shared>>,
    Actor(actor): Actor,
) -> Result<Json<Vec<ApproverSummary>>, ApiError> {
    let root = shared.root();
    let is_listed = |public: &PublicKeyBytes| root.current().approver_keys.contains(public);
    let line = |user: Option<UserName>, public: &PublicKeyBytes, at: Option<ids::UnixMs>| ApproverSummary {
        user,
        key_id: key_id(public).to_string(),
        public_key: public.to_string(),
        registered_at: at.map(Into::into),
        in_force: is_listed(public),
    };
    let users = shared.store.users().await?;
    let seen = users.iter().filter(|user| people::may_see(&actor, user).is_ok());
    let own =
        seen.filter_map(|user| user.approver.map(|(public, at)| line(Some(user.name.clone()), &public, Some(at))));
    let mut all: Vec<ApproverSummary> = own.collect();
    if people::looks_after_any(actor.role) {
        let is_somebodys = |public: &&PublicKeyBytes| {
            users.iter().any(|user| user.approver.is_some_and(|(registered, _)| registered == **public))
        };
        let nobodys = root.current().approver_keys.iter().filter(|public| !is_somebodys(public));
        all.extend(nobodys.map(|public| line(None, public, None)));
    }
    Ok(Json(all))
}

/// Only the own: who could register a key for somebody else could approve in their name.
pub(super) async fn approver_set(
    State(shared): State<Arc<Shared>>,
    Actor(actor): Actor,
    PathParameter(name): PathParameter<UserName>,
    JsonBody(ApproverRequest { public_key }): JsonBody<ApproverRequest>,
) -> Result<Json<ApproverSummary>, ApiError> {
    let refused = |why: String| ApiError::field("public_key", why);
    let public: PublicKeyBytes = public_key.parse().map_err(|why: &str| refused(why.to_owned()))?;
    VerifyingKey::<role::Approver>::try_from(public).map_err(|error| refused(error.to_string()))?;
    if actor.user_name != name {
        return Err(people::PeopleError::NotOwn { name }.into());
    }
    let (user, now) = (own_account(&shared, &actor).await?, shared.now());
    let write = people::user_approver_set(&actor, user.clone(), public, now)?;
    let at = match user.approver {
        // The same request again.
        Some((registered, at)) if registered == public => at,
        _ => {
            access::write(&shared, &actor, write).await.map_err(|error| match error {
                StoreError::Conflict(why) => ApiError::new(Kind::KeyTaken, why),
                other => other.into(),
            })?;
            now
        }
    };
    Ok(Json(ApproverSummary {
        user: Some(user.name),
        key_id: key_id(&public).to_string(),
        public_key: public.to_string(),
        registered_at: Some(at.into()),
        in_force: shared.root().current().approver_keys.contains(&public),
    }))
}

/// Whoever asks, as they are by now.
async fn own_account(shared: &Shared, actor: &Principal) -> Result<User, ApiError> {
    let user = shared.store.user_by_name(actor.user_name.clone()).await?;
    Ok(user.filter(|user| user.id == actor.user).ok_or(StoreError::CredentialEnded)?)
}

/// What an approver must see of one command.
pub(super) async fn evidence(
    State(shared): State<Arc<Shared>>,
    PathParameter(id): PathParameter<CommandId>,
) -> Result<Json<ApprovalEvidence>, ApiError> {
    let command = commands::find(&shared, id).await?;
    let operation = operation(&shared, command.order.operation).await?;
    let host = commands::host_of(&shared, &command).await?;
    let stages = view::operation_commands(&*shared.store, operation.id).await?;
    let plan = stages.iter().find(|stage| is_plan_of(stage, &command));
    let (root, users) = (shared.root(), shared.store.users().await?);
    Ok(Json(ApprovalEvidence {
        command_id: id,
        operation_id: operation.id,
        host: host.name.clone(),
        status: view::status(command.status),
        message: command.message.clone(),
        requested_by: operation.requested_by.clone(),
        proposed_at: command.order.proposed_at.into(),
        deliver_by: command.order.deliver_by.into(),
        needed: if operation.approvals == 0 { 0 } else { approval::needed(&operation, &command.order, &root) },
        order: BASE64.encode(&command.order.encode()),
        plan_orders: plan.iter().flat_map(|plan| &plan.seals).map(|seal| BASE64.encode(&seal.envelope)).collect(),
        plan_report: plan.and_then(|plan| plan.report.as_deref()).map(|report| BASE64.encode(report)),
        receipt: BASE64.encode(&host.receipt),
        key_changes: hosts::key_changes(&shared, &host).await?,
        approvals: command.approvals.iter().filter_map(|envelope| shown(envelope, &root, &users)).collect(),
    }))
}

fn is_plan_of(stage: &Command, command: &Command) -> bool {
    let (plan, order) = (&stage.order, &command.order);
    plan.dry_run && !order.dry_run && plan.host == order.host && plan.action == order.action
}

/// Whether its key still counts is said, not hidden: any key that ever signed it reads it.
fn shown(envelope: &[u8], root: &TrustedRoot, users: &[User]) -> Option<ApprovalShown> {
    let chain = root.chain();
    let by = |root: &TrustedRoot| envelope::verify::<Approval>(envelope, root.approver_keys()).ok();
    let past = || {
        let earlier = (1..chain.len()).rev().filter_map(|length| TrustedRoot::from_stored(&chain[..length]).ok());
        earlier.into_iter().find_map(|root| by(&root))
    };
    let now = by(root);
    let in_force = now.is_some();
    let approval = now.or_else(past)?;
    let key: KeyId = approval.key_id();
    let is_its = |user: &&User| user.approver.is_some_and(|(public, _)| key_id(&public) == key);
    Some(ApprovalShown {
        user: users.iter().find(is_its).map(|user| user.name.clone()),
        key_id: key.to_string(),
        approved_at: approval.approved_at.into(),
        expires_at: approval.expires.into(),
        plan_sha256: approval.plan_sha256.to_string(),
        bind_plan: approval.bind_plan,
        in_force,
        envelope: BASE64.encode(envelope),
    })
}

async fn operation(shared: &Shared, id: OperationId) -> Result<Operation, ApiError> {
    shared.store.operation(id).await?.ok_or_else(|| operations::not_found(id))
}

pub(super) async fn approve(
    State(shared): State<Arc<Shared>>,
    Actor(actor): Actor,
    PathParameter(id): PathParameter<OperationId>,
    JsonBody(ApprovalRequest { approvals }): JsonBody<ApprovalRequest>,
) -> Result<Json<OperationResponse>, ApiError> {
    let most = limits::APPROVALS_PER_REQUEST_MAX;
    if !(1..=most).contains(&approvals.len()) {
        return Err(ApiError::field("approvals", format!("1 to {most}, one for each host")));
    }
    let decode = |(index, text): (usize, String)| {
        let field = format!("approvals[{index}]");
        BASE64.decode(text.as_bytes()).map_err(|_| ApiError::field(field, "it is not base64"))
    };
    let envelopes: Vec<Vec<u8>> = approvals.into_iter().enumerate().map(decode).collect::<Result<_, _>>()?;
    say(&shared, &actor, id, |matter, user| approval::approve(matter, &actor, user, envelopes.clone())).await
}

pub(super) async fn deny(
    State(shared): State<Arc<Shared>>,
    Actor(actor): Actor,
    PathParameter(id): PathParameter<OperationId>,
    JsonBodyMaybe(DenialRequest { because }): JsonBodyMaybe<DenialRequest>,
) -> Result<Json<OperationResponse>, ApiError> {
    say(&shared, &actor, id, |matter, user| approval::deny(matter, &actor, user, &because)).await
}

/// Judges what somebody says by what is stored, stores it, and tells the hosts' sessions and whoever watches. Somebody
/// else may say something in between: then it is judged anew.
async fn say(
    shared: &Shared,
    actor: &Principal,
    id: OperationId,
    judge: impl Fn(&Matter<'_>, &User) -> Result<Write, ApproveError>,
) -> Result<Json<OperationResponse>, ApiError> {
    for _ in 0..limits::APPROVE_TRIES_MAX {
        let operation = operation(shared, id).await?;
        let commands = view::operation_commands(&*shared.store, id).await?;
        let hosts = hosts_of_held(shared, &commands).await?;
        let user = own_account(shared, actor).await?;
        let root = shared.root();
        let now = shared.now();
        let matter = Matter { operation: &operation, commands: &commands, hosts: &hosts, root: &root, now };
        let write = judge(&matter, &user)?;
        let held = approval::held(&commands).map(|command| (command.order.command, command.order.host)).collect();
        match store(shared, access::by(shared, actor, write), held).await {
            Ok(()) => return Ok(Json(view::operation_read(&*shared.store, id).await?)),
            Err(StoreError::Conflict(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(ApiError::new(Kind::Changed, format!("operation {id} keeps moving; look at it again and repeat")))
}

async fn hosts_of_held(shared: &Shared, commands: &[Command]) -> Result<BTreeMap<HostId, Host>, ApiError> {
    let mut hosts = BTreeMap::new();
    for command in approval::held(commands) {
        hosts.extend(shared.store.host(command.order.host).await?.map(|host| (host.id, host)));
    }
    Ok(hosts)
}

async fn store(shared: &Shared, write: Write, held: Vec<(CommandId, HostId)>) -> Result<(), StoreError> {
    let (store, notifier) = (shared.store.clone(), shared.notifier.clone());
    to_the_end(async move {
        store.write(write).await?;
        for (id, host) in held {
            let Some(command) = store.command(id).await? else { continue };
            if command.status != CommandStatus::Held {
                notifier.host_changed(host, HostChange::Queue);
            }
            let (operation, status, message) = (command.order.operation, command.status, command.message);
            notifier.publish(Event::Command { command: id, operation, host, status, message });
        }
        Ok(())
    })
    .await
}
