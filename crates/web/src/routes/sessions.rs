//! Sessions that are open, one's own and those of accounts one looks after.

use core::net::IpAddr;
use std::sync::Arc;

use api::{Page, SessionSummary};
use axum::{Json, extract::State, http::StatusCode};
use fleet::{
    list::{CredentialSort, SessionFilter},
    model::{Credential, Principal, UserSession},
    people,
    ports::Event,
};
use ids::{SessionId, UserId, UserName};
use serde::Deserialize;

use super::users;
use crate::{
    access::{self, Actor},
    input::{PathParameter, Query},
    list::{List, ListQuery},
    problem::{ApiError, Kind},
    state::Shared,
};

/// What sessions and API tokens are sorted by.
pub(super) const SORTS: &[&str] = &["-created_at", "expires_at"];
pub(super) const LIST: List = List { name: "sessions", sorts: SORTS };

#[derive(Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub(super) struct Filter {
    /// Whose; one's own when absent.
    user: Option<UserName>,
    /// The address they were made from.
    address: Option<IpAddr>,
    limit: Option<u32>,
    after: Option<String>,
    sort: Option<String>,
}

/// The account that is named, if the one who asks may see it; their own when none is.
pub(super) async fn whose(shared: &Shared, actor: &Principal, name: Option<UserName>) -> Result<UserId, ApiError> {
    match name {
        Some(name) if name != actor.user_name => Ok(users::find(shared, actor, &name).await?.id),
        _ => Ok(actor.user),
    }
}

/// What the field of [`SORTS`] means.
pub(super) fn credential_sort(field: &str) -> CredentialSort {
    if field == "expires_at" { CredentialSort::Expires } else { CredentialSort::CreatedAt }
}

fn shown(session: UserSession, actor: &Principal) -> SessionSummary {
    SessionSummary {
        current: matches!(actor.credential, Credential::Session { id, .. } if id == session.id),
        id: session.id,
        user: session.user_name,
        created_at: session.created_at.into(),
        expires_at: session.expires.into(),
        address: session.peer,
    }
}

pub(super) async fn list(
    State(shared): State<Arc<Shared>>,
    Actor(actor): Actor,
    Query(filter): Query<Filter>,
) -> Result<Json<Page<SessionSummary>>, ApiError> {
    let sorted = LIST.read(ListQuery { limit: filter.limit, after: filter.after, sort: filter.sort })?;
    let user = whose(&shared, &actor, filter.user).await?;
    let filter = SessionFilter { user, now: shared.now(), peer: filter.address.map(|address| address.to_string()) };
    let sort = credential_sort(sorted.field);
    let listed = shared.store.user_sessions_list(filter, sort, sorted.page.clone()).await?;
    Ok(Json(sorted.answer(listed, |session| shown(session, &actor))))
}

pub(super) async fn end(
    State(shared): State<Arc<Shared>>,
    Actor(actor): Actor,
    PathParameter(id): PathParameter<SessionId>,
) -> Result<StatusCode, ApiError> {
    let missing =
        || ApiError::new(Kind::SessionNotFound, format!("there is no session {id}; see `serverflow session list`"));
    let session = shared.store.user_session_by_id(id).await?.ok_or_else(missing)?;
    let user = session.user;
    let write = people::session_end(&actor, &session, shared.now()).map_err(|error| match error {
        // Who may not look after others does not learn which sessions there are.
        people::PeopleError::NotAllowed { .. } if !people::looks_after_any(actor.role) => missing(),
        other => other.into(),
    })?;
    access::write(&shared, &actor, write).await?;
    shared.notifier.publish(Event::Account { user });
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn end_all(
    State(shared): State<Arc<Shared>>,
    Actor(actor): Actor,
    PathParameter(name): PathParameter<UserName>,
) -> Result<StatusCode, ApiError> {
    let user = users::find(&shared, &actor, &name).await?;
    let write = people::sessions_end(&actor, &user, shared.now())?;
    access::write(&shared, &actor, write).await?;
    shared.notifier.publish(Event::Account { user: user.id });
    Ok(StatusCode::NO_CONTENT)
}
