//! Hosts: who is there, join tokens for new ones, revocation.

use std::sync::Arc;

use api::{HostDetail, HostSummary, JoinTokenRequest, JoinTokenResponse};
use axum::{
    Json,
    extract::State,
    http::StatusCode,
    response::{IntoResponse as _, Response},
};
use data_encoding::BASE64;
use envelope::token::JoinToken;
use fleet::{
    model::{Host, HostStanding, JoinTokenRecord},
    ports::{Event, HostChange, StoreError, Write},
};
use ids::{DurationMs, HostName, Role, sha256};

use crate::{
    access::Actor,
    fresh,
    input::{JsonBody, PathParameter},
    limits,
    problem::{ApiError, Kind},
    records,
    state::Shared,
    view,
};

pub(super) async fn list(State(shared): State<Arc<Shared>>) -> Result<Json<Vec<HostSummary>>, ApiError> {
    let (hosts, now) = (shared.store.hosts().await?, shared.now());
    Ok(Json(hosts.iter().map(|host| view::host_summary(host, &*shared.notifier, now)).collect()))
}

pub(super) fn not_found(name: &HostName) -> ApiError {
    ApiError::new(Kind::HostNotFound, format!("there is no host {name}; see `serverflow host list`"))
}

/// The host of that name; of revoked ones, the last that had it.
pub(super) async fn find(shared: &Shared, name: &HostName) -> Result<Host, ApiError> {
    if let Some(host) = shared.store.host_by_name(name.clone()).await? {
        return Ok(host);
    }
    let revoked_at = |host: &Host| match host.standing {
        HostStanding::Revoked { at } => Some(at),
        _ => None,
    };
    let hosts = shared.store.hosts().await?;
    hosts.into_iter().filter(|host| host.name == *name).max_by_key(revoked_at).ok_or_else(|| not_found(name))
}

pub(super) async fn show(
    State(shared): State<Arc<Shared>>,
    PathParameter(name): PathParameter<HostName>,
) -> Result<Json<HostDetail>, ApiError> {
    let host = find(&shared, &name).await?;
    let apps = shared.store.apps(None).await?;
    Ok(Json(HostDetail {
        summary: view::host_summary(&host, &*shared.notifier, shared.now()),
        enrolled_at: host.enrolled_at.into(),
        host_epoch: host.host_epoch.0,
        identity_key: BASE64.encode(&host.identity_key.0),
        sealing_key: BASE64.encode(&host.sealing_key.0),
        receipt: BASE64.encode(&host.receipt),
        root_version: host.root_version.0,
        highest_sequence: host.allocated.0,
        acknowledged_sequence: host.acknowledged.0,
        last_report_sequence: host.last_report.sequence.0,
        quarantine_reason: match &host.standing {
            HostStanding::Quarantined { why } => Some(why.clone()),
            _ => None,
        },
        actions: host.actions.iter().map(|action| format!("{}@{}", action.name, action.version)).collect(),
        apps: apps.iter().filter(|app| app.host == host.id).map(|app| app.app.to_string()).collect(),
    }))
}

fn lifetime(seconds: Option<u64>) -> Result<DurationMs, ApiError> {
    let (least, most) = (limits::JOIN_TOKEN_LIFETIME_MIN, limits::JOIN_TOKEN_LIFETIME_MAX);
    let asked = seconds.map(|seconds| DurationMs(seconds.saturating_mul(1000)));
    let lifetime = asked.unwrap_or(limits::JOIN_TOKEN_LIFETIME_DEFAULT);
    if (least..=most).contains(&lifetime) {
        return Ok(lifetime);
    }
    Err(ApiError::field("ttl_seconds", format!("between {} and {}", least.0 / 1000, most.0 / 1000)))
}

pub(super) async fn join_token(
    State(shared): State<Arc<Shared>>,
    Actor(actor): Actor,
    JsonBody(request): JsonBody<JoinTokenRequest>,
) -> Result<Response, ApiError> {
    let JoinTokenRequest { name, mut roles, ttl_seconds } = request;
    let now = shared.now();
    let expires = now.plus(lifetime(ttl_seconds)?);
    roles.sort_unstable();
    roles.dedup();
    if roles.is_empty() {
        roles.push(Role::App);
    }
    let (secret, id, root) = (fresh::secret::<32>()?, fresh::id(now)?, shared.root());
    let record = JoinTokenRecord {
        id,
        secret_sha256: sha256(secret.as_slice()),
        host_name: name.clone(),
        roles: roles.clone(),
        created_by: actor.user_name,
        created_at: now,
        expires,
        spent_by: None,
    };
    let token = JoinToken {
        fleet: root.current().fleet,
        token: id,
        secret,
        root_sha256: root.payload_sha256(),
        spki_sha256: shared.tls_spki_sha256,
        address: root.current().addresses.first().cloned().unwrap_or_default(),
    };
    let text = token.to_text().map_err(|error| {
        tracing::error!(%error, "the address in the root metadata makes no join token");
        ApiError::new(Kind::Internal, "the root metadata holds no address agents could dial; the log says more")
    })?;
    let audit = records::token_issued(&record);
    shared.store.write(Write::TokenCreate { token: record, audit }).await.map_err(|error| match error {
        StoreError::Conflict(_) => ApiError::new(
            Kind::HostExists,
            format!("host {name} exists; choose another name, or first `serverflow host revoke {name}`"),
        ),
        other => other.into(),
    })?;
    let answer = JoinTokenResponse { token: text.to_string(), name, roles, expires_at: expires.into() };
    Ok((StatusCode::CREATED, Json(answer)).into_response())
}

/// Revoking twice is the same as once.
pub(super) async fn revoke(
    State(shared): State<Arc<Shared>>,
    Actor(actor): Actor,
    PathParameter(name): PathParameter<HostName>,
) -> Result<StatusCode, ApiError> {
    let host = find(&shared, &name).await?;
    if matches!(host.standing, HostStanding::Revoked { .. }) {
        return Ok(StatusCode::NO_CONTENT);
    }
    let open = shared.store.commands_open(host.id).await?;
    let now = shared.now();
    let audit = records::host_revoked(&host, &actor, now);
    let written = shared.store.write(Write::HostRevoke { host: host.id, at: now, audit }).await;
    // Whatever the answer was: a session that is open must look at once.
    shared.notifier.host_changed(host.id, HostChange::Revoked);
    match written {
        Ok(_) => {}
        Err(StoreError::Conflict(why)) => {
            let now_revoked = shared.store.host(host.id).await?;
            if !now_revoked.is_some_and(|host| matches!(host.standing, HostStanding::Revoked { .. })) {
                return Err(StoreError::Conflict(why).into());
            }
        }
        Err(error) => return Err(error.into()),
    }
    shared.notifier.publish(Event::Host { host: host.id });
    for command in open {
        let Some(command) = shared.store.command(command.order.command).await? else { continue };
        shared.notifier.publish(Event::Command {
            command: command.order.command,
            operation: command.order.operation,
            host: host.id,
            status: command.status,
            message: command.message,
        });
    }
    Ok(StatusCode::NO_CONTENT)
}
