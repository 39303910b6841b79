//! Standing orders: what stands, and how people have one installed or dropped.

use std::sync::Arc;

use ::fleet::{
    model::{Host, HostStanding, Operation, Principal},
    operation::{
        Grounds, StandingRequest, standing_drop, standing_install, standing_judge, standing_order,
        standing_request_sha256,
    },
    ports::{StoreError, Written},
    standing::{StandingRecord, StandingState, Wanted},
};
use api::{StandingDropRequest, StandingOrderRequest, StandingOrderState, StandingOrderSummary};
use axum::{Json, extract::State, http::StatusCode, response::Response};
use envelope::{messages::Standing, root::OnlineRole, signer_port::SignError};
use ids::{KeyId, OperationId, Revision, Sha256, StandingOrderId};

use super::{
    hosts::living,
    operations::{answer, span, stored},
};
use crate::{
    access::Actor,
    fresh::{self, FreshCommands},
    input::{JsonBody, PathParameter},
    limits,
    problem::{ApiError, Kind},
    state::Shared,
};

pub(super) async fn list(State(shared): State<Arc<Shared>>) -> Result<Json<Vec<StandingOrderSummary>>, ApiError> {
    let records = shared.store.standing_orders(None).await?;
    let (hosts, key) =
        if records.is_empty() { (Vec::new(), None) } else { (shared.store.hosts().await?, key(&shared).await) };
    let root = shared.root();
    let shown = |record: &StandingRecord| {
        // What a host has that left the fleet is no order of the fleet any more.
        let is_left = |host: &Host| matches!(host.standing, HostStanding::Revoked { .. });
        let host = hosts.iter().find(|host| host.id == record.host).filter(|host| !is_left(host))?;
        summary(record, key.map(|key| Wanted::of(host, root.current(), key)))
    };
    Ok(Json(records.iter().filter_map(shown).collect()))
}

/// The command key in use, if the signer says so.
async fn key(shared: &Shared) -> Option<KeyId> {
    let held = shared.key_keeper.held().await.ok()?;
    held.iter().find(|held| held.role == OnlineRole::Command && held.is_in_use).map(|held| held.key.id())
}

fn summary(record: &StandingRecord, wanted: Option<Wanted>) -> Option<StandingOrderSummary> {
    let held = record.held();
    Some(StandingOrderSummary {
        standing_order_id: record.order,
        host: record.host_name.clone(),
        action: record.action.clone(),
        action_version: record.action_version,
        schedule: record.schedule.clone(),
        zone: record.zone.clone(),
        valid_until: record.valid_until.into(),
        alone_for_seconds: record.alone_for.0 / 1000,
        state: match record.state() {
            StandingState::Installing => StandingOrderState::Installing,
            StandingState::Installed => StandingOrderState::Installed,
            StandingState::Refused => StandingOrderState::Refused,
            StandingState::Dropping => StandingOrderState::Dropping,
            StandingState::Dropped => StandingOrderState::Dropped,
        },
        revision: held.map(|held| held.revision.0),
        signed_by: held.map(|held| held.key),
        outdated: wanted.map(|wanted| record.is_outdated(&wanted)),
        problem: record.problem().map(ToOwned::to_owned),
        requested_by: record.requested_by.clone(),
        created_at: record.created_at.into(),
        operation_id: record.steps.last()?.operation,
    })
}

/// Has one installed: signed first, because what people approve is what was signed, then ordered as anything else.
pub(super) async fn install(
    State(shared): State<Arc<Shared>>,
    Actor(actor): Actor,
    JsonBody(request): JsonBody<StandingOrderRequest>,
) -> Result<Response, ApiError> {
    let host = living(&shared, &request.host).await?;
    let asked = StandingRequest {
        operation: request.operation_id,
        action: request.action.parse().map_err(|error| ApiError::field("action", format!("{error}")))?,
        version: None,
        parameters: parameters(&request).into_bytes(),
        schedule: request.schedule,
        zone: request.zone,
        valid_for: span(request.valid_for_seconds),
        alone_for: span(request.alone_for_seconds),
    };
    let sha256 = standing_request_sha256(&asked, &actor, &host);
    if let Some(known) = shared.store.operation(asked.operation).await? {
        return again(&shared, &known, sha256).await;
    }
    let now = shared.now();
    let order: StandingOrderId = fresh::id(now)?;
    let standing = standing_judge(shared.root().current().fleet, &asked, order, &actor, &host, now)?;
    let grounds = grounds(&shared, &actor).await?;
    let mut conflict = None;
    for _ in 0..limits::REVISION_ATTEMPTS_MAX {
        let envelope = signed(&shared, &standing, &host).await?;
        let write = standing_install(grounds, &asked, envelope, &actor, &host, now, &mut FreshCommands::new(now)?)?;
        match stored(&shared, &actor, write).await {
            Ok(Written::Done) => return answer(&shared, asked.operation, StatusCode::ACCEPTED, Vec::new()).await,
            Ok(Written::AlreadyProposed) => break,
            // Somebody else's number was first; or the same id.
            Err(StoreError::Conflict(why)) => conflict = Some(why),
            Err(error) => return Err(error.into()),
        }
        if shared.store.operation(asked.operation).await?.is_some() {
            break;
        }
    }
    match (shared.store.operation(asked.operation).await?, conflict) {
        (Some(known), _) => again(&shared, &known, sha256).await,
        (None, why) => Err(StoreError::Conflict(why.unwrap_or_default()).into()),
    }
}

fn parameters(request: &StandingOrderRequest) -> String {
    if request.parameters.is_null() { "{}".to_owned() } else { request.parameters.to_string() }
}

/// The same request again is answered as it stands.
async fn again(shared: &Shared, known: &Operation, sha256: Sha256) -> Result<Response, ApiError> {
    if known.request_sha256 == sha256 {
        return answer(shared, known.id, StatusCode::OK, Vec::new()).await;
    }
    let detail =
        format!("operation {} exists already and asks for something else; choose a new operation id", known.id);
    Err(ApiError::new(Kind::OperationConflict, detail))
}

async fn grounds(shared: &Shared, actor: &Principal) -> Result<Grounds, ApiError> {
    let account = shared.store.user_by_name(actor.user_name.clone()).await?;
    let requester = account.and_then(|account| account.approver).map(|(key, _)| envelope::key_id(&key));
    Ok(Grounds { approvals: shared.root().current().approvals, requester })
}

/// Signed under the next revision that nobody has given out.
async fn signed(shared: &Shared, standing: &Standing, host: &Host) -> Result<Vec<u8>, ApiError> {
    let unavailable = |why: String| {
        ApiError::new(Kind::KeysUnavailable, format!("the standing order was not signed: {why}; try again"))
    };
    let mut last = shared.store.standing_revision(host.id).await?;
    for _ in 0..limits::REVISION_ATTEMPTS_MAX {
        let revision = last.next().ok_or_else(|| unavailable("no revision is left for this host".to_owned()))?;
        let (epoch, now) = (shared.root().current().epoch, shared.now());
        let order = standing_order(standing.clone(), host, epoch, revision, now);
        match shared.key_keeper.sign_standing(order).await {
            Ok(envelope) => return Ok(envelope),
            // Signed once and never stored: the signer knows of it.
            Err(SignError::SequenceTaken { high }) => last = last.max(Revision(high.0)),
            Err(error) => return Err(unavailable(error.to_string())),
        }
    }
    Err(unavailable("others have orders of this host signed at the same time".to_owned()))
}

/// Has one dropped.
pub(super) async fn end(
    State(shared): State<Arc<Shared>>,
    Actor(actor): Actor,
    PathParameter(order): PathParameter<StandingOrderId>,
    JsonBody(request): JsonBody<StandingDropRequest>,
) -> Result<Response, ApiError> {
    let host = living(&shared, &request.host).await?;
    let (id, now): (OperationId, _) = (request.operation_id, shared.now());
    let grounds = grounds(&shared, &actor).await?;
    let known = shared.store.standing_orders(Some(host.id)).await?;
    let last = match known.iter().find(|record| record.order == order) {
        Some(record) => record.last(),
        // Not on record: whatever was signed of it was signed before now.
        None => shared.store.standing_revision(host.id).await?,
    };
    let write = standing_drop(
        (shared.root().current().fleet, grounds),
        id,
        (order, last),
        &actor,
        &host,
        now,
        &mut FreshCommands::new(now)?,
    )?;
    let status = match stored(&shared, &actor, write).await? {
        Written::Done => StatusCode::ACCEPTED,
        Written::AlreadyProposed => StatusCode::OK,
    };
    answer(&shared, id, status, Vec::new()).await
}
