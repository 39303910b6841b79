//! Hosts: who is there, join tokens for new ones, revocation.

use std::sync::Arc;

use api::{
    HostDetail, HostLabelRequest, HostRenameRequest, HostStatus, HostSummary, JoinTokenRequest, JoinTokenResponse, Page,
};
use axum::{
    Json,
    extract::State,
    http::StatusCode,
    response::{IntoResponse as _, Response},
};
use data_encoding::BASE64;
use envelope::token::JoinToken;
use fleet::{
    list::{HostFilter, HostSort, StandingKind},
    model::{FormerKey, Host, HostStanding, JoinTokenRecord},
    ports::{Event, HostChange, HostEdit, StoreError, Write},
    selector::{ROLE_WORD, Selector, SelectorError},
};
use ids::{AppName, DurationMs, HostEpoch, HostName, Role, sha256};
use serde::Deserialize;

use super::quarantine;
use crate::{
    access::{self, Actor},
    fresh,
    input::{JsonBody, PathParameter, Query},
    lasting::to_the_end,
    limits,
    list::{List, ListQuery},
    problem::{ApiError, Kind},
    records,
    state::Shared,
    view,
};

pub(super) const LIST: List = List { name: "hosts", sorts: &["name", "enrolled_at"] };

#[derive(Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub(super) struct Filter {
    status: Option<HostStatus>,
    /// Such as `role=app,env=prod,env!=old,gpu,!spot`: all parts must hold.
    selector: Option<String>,
    app: Option<AppName>,
    limit: Option<u32>,
    after: Option<String>,
    sort: Option<String>,
}

/// Who is connected is known here alone, so a page may hold fewer than asked for: what was looked at is
/// bounded, and `next` goes on behind it.
pub(super) async fn list(
    State(shared): State<Arc<Shared>>,
    Query(filter): Query<Filter>,
) -> Result<Json<Page<HostSummary>>, ApiError> {
    let sorted = LIST.read(ListQuery { limit: filter.limit, after: filter.after, sort: filter.sort })?;
    let sort = if sorted.field == "enrolled_at" { HostSort::EnrolledAt } else { HostSort::Name };
    let standing = filter.status.map(|status| match status {
        HostStatus::Connected | HostStatus::Offline => StandingKind::Active,
        HostStatus::Quarantined => StandingKind::Quarantined,
        HostStatus::Revoked => StandingKind::Revoked,
    });
    let stored = HostFilter { standing, selector: selector(filter.selector.as_deref())?, app: filter.app };
    let (mut page, mut shown, mut next) = (sorted.page.clone(), Vec::new(), None);
    for _ in 0..limits::HOST_PAGES_MAX {
        let listed = shared.store.hosts_list(stored.clone(), sort, page.clone()).await?;
        let mut left = listed.items.into_iter();
        for (key, host) in left.by_ref() {
            let summary = view::host_summary(&host, &*shared.notifier, shared.now());
            page.after = Some(key);
            if filter.status.is_none_or(|status| summary.status == status) {
                shown.push(summary);
            }
            if shown.len() == sorted.page.limit as usize {
                break;
            }
        }
        let more = listed.more || left.next().is_some();
        next = page.after.as_ref().filter(|_| more).map(|key| sorted.cursor(key));
        if next.is_none() || shown.len() == sorted.page.limit as usize {
            break;
        }
    }
    Ok(Json(Page { items: shown, next }))
}

/// A selector as it was written.
pub(super) fn selector(text: Option<&str>) -> Result<Option<Selector>, ApiError> {
    let read = |text: &str| text.parse().map_err(|error: SelectorError| ApiError::field("selector", error.to_string()));
    text.map(read).transpose()
}

pub(super) fn not_found(name: &HostName) -> ApiError {
    ApiError::new(Kind::HostNotFound, format!("there is no host {name}; see `serverflow host list`"))
}

/// The host of that name; of revoked ones, the last that had it.
pub(super) async fn find(shared: &Shared, name: &HostName) -> Result<Host, ApiError> {
    shared.store.host_ever(name.clone()).await?.ok_or_else(|| not_found(name))
}

/// Asked again it is the same: a host that has the name already is left as it is.
pub(super) async fn rename(
    State(shared): State<Arc<Shared>>,
    Actor(actor): Actor,
    PathParameter(name): PathParameter<HostName>,
    JsonBody(request): JsonBody<HostRenameRequest>,
) -> Result<Json<HostSummary>, ApiError> {
    let host = living(&shared, &name).await?;
    let (to, now) = (request.name, shared.now());
    if to == host.name {
        return summary(&shared, &host).await;
    }
    if shared.store.host_by_name(to.clone()).await?.is_some() {
        let detail = format!("host {to} exists; choose another name, or first `serverflow host revoke {to}`");
        return Err(ApiError::new(Kind::HostExists, detail));
    }
    let audit = vec![records::host_renamed(&host, &to, &actor, now)];
    let edit = HostEdit { host: host.id, was: host.name.clone(), name: Some(to), labels: Vec::new(), at: now, audit };
    let write = access::by(&shared, &actor, Write::HostEdit(Box::new(edit)));
    let (store, notifier, id) = (shared.store.clone(), shared.notifier.clone(), host.id);
    to_the_end(async move {
        store.write(write).await?;
        notifier.publish(Event::Host { host: id });
        notifier.host_changed(id, HostChange::Renamed);
        Ok::<_, StoreError>(())
    })
    .await?;
    summary(&shared, &host).await
}

/// What is asked for and is so already is no change, and leaves no entry.
pub(super) async fn label(
    State(shared): State<Arc<Shared>>,
    Actor(actor): Actor,
    PathParameter(name): PathParameter<HostName>,
    JsonBody(request): JsonBody<HostLabelRequest>,
) -> Result<Json<HostSummary>, ApiError> {
    let host = living(&shared, &name).await?;
    if request.labels.keys().any(|key| key.as_str() == ROLE_WORD) {
        return Err(ApiError::field("labels.role", "roles are given with the join token; choose another word"));
    }
    let labels: Vec<_> =
        request.labels.into_iter().filter(|(key, value)| host.labels.get(key) != value.as_ref()).collect();
    if !labels.is_empty() {
        let now = shared.now();
        let audit = vec![records::host_labelled(&host, &labels, &actor, now)];
        let edit = HostEdit { host: host.id, was: host.name.clone(), name: None, labels, at: now, audit };
        access::write(&shared, &actor, Write::HostEdit(Box::new(edit))).await?;
        shared.notifier.publish(Event::Host { host: host.id });
    }
    summary(&shared, &host).await
}

pub(super) async fn living(shared: &Shared, name: &HostName) -> Result<Host, ApiError> {
    if let Some(host) = shared.store.host_by_name(name.clone()).await? {
        return Ok(host);
    }
    find(shared, name).await?;
    let detail = format!("host {name} is revoked, and what it was stays as it is; enrol the machine anew");
    Err(ApiError::new(Kind::HostNotActive, detail))
}

async fn summary(shared: &Shared, host: &Host) -> Result<Json<HostSummary>, ApiError> {
    let host = shared.store.host(host.id).await?.ok_or_else(|| not_found(&host.name))?;
    Ok(Json(view::host_summary(&host, &*shared.notifier, shared.now())))
}

/// The keys a host had before, the last first.
async fn former_keys(shared: &Shared, host: &Host) -> Result<Vec<FormerKey>, ApiError> {
    match host.host_epoch {
        HostEpoch(1) => Ok(Vec::new()),
        _ => Ok(shared.store.host_former_keys(host.id).await?),
    }
}

/// Signed rotations of a host's keys since its enrolment, ascending.
pub(super) async fn key_changes(shared: &Shared, host: &Host) -> Result<Vec<String>, ApiError> {
    Ok(rotations(&former_keys(shared, host).await?))
}

fn rotations(former: &[FormerKey]) -> Vec<String> {
    former.iter().rev().map(|key| BASE64.encode(&key.rotation)).collect()
}

pub(super) async fn show(
    State(shared): State<Arc<Shared>>,
    PathParameter(name): PathParameter<HostName>,
) -> Result<Json<HostDetail>, ApiError> {
    let host = find(&shared, &name).await?;
    let apps = shared.store.apps_on(host.id).await?;
    let former = former_keys(&shared, &host).await?;
    let keys_since = former.first().map_or(host.enrolled_at, |key| key.replaced_at);
    Ok(Json(HostDetail {
        summary: view::host_summary(&host, &*shared.notifier, shared.now()),
        enrolled_at: host.enrolled_at.into(),
        host_epoch: host.host_epoch.0,
        identity_key: BASE64.encode(&host.identity_key.0),
        sealing_key: BASE64.encode(&host.sealing_key.0),
        receipt: BASE64.encode(&host.receipt),
        key_changes: rotations(&former),
        root_version: host.root_version.0,
        highest_sequence: host.allocated.0,
        acknowledged_sequence: host.acknowledged.0,
        last_report_sequence: host.last_report.sequence.0,
        quarantine_reason: match &host.standing {
            HostStanding::Quarantined { why } => Some(why.clone()),
            _ => None,
        },
        quarantine: quarantine::detail(&shared, &host).await?,
        keys_since: Some(keys_since.into()),
        retired: matches!(host.standing, HostStanding::Revoked { is_retired: true, .. }),
        actions: host.actions.iter().map(|action| format!("{}@{}", action.name, action.version)).collect(),
        apps: apps.iter().map(ToString::to_string).collect(),
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
        created_by: actor.user_name.clone(),
        created_at: now,
        expires,
        spent_by: None,
    };
    let token = JoinToken {
        fleet: root.current().fleet,
        token: id,
        secret,
        root_sha256: root.payload_sha256(),
        spki_sha256: (shared.tls_spki_sha256)(),
        address: root.current().addresses.first().cloned().unwrap_or_default(),
    };
    let text = token.to_text().map_err(|error| {
        tracing::error!(%error, "the address in the root metadata makes no join token");
        ApiError::new(Kind::Internal, "the root metadata holds no address agents could dial; the log says more")
    })?;
    let audit = records::token_issued(&record);
    access::write(&shared, &actor, Write::TokenCreate { token: record, audit }).await.map_err(|error| match error {
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
        shared.notifier.host_changed(host.id, HostChange::Revoked);
        return Ok(StatusCode::NO_CONTENT);
    }
    let open = shared.store.commands_open(host.id).await?;
    let now = shared.now();
    let audit = records::host_revoked(&host, &actor, now);
    let write = access::by(&shared, &actor, Write::HostRevoke { host: host.id, at: now, audit });
    let (store, notifier, id) = (shared.store.clone(), shared.notifier.clone(), host.id);
    let written = to_the_end(async move {
        let written = store.write(write).await;
        // Whatever the answer was: a session that is open must look at once.
        notifier.host_changed(id, HostChange::Revoked);
        written
    });
    match written.await {
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
