//! Sessions that are open, one's own and those of accounts one looks after.

use std::sync::Arc;

use api::SessionSummary;
use axum::{Json, extract::State, http::StatusCode};
use fleet::{
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
    problem::{ApiError, Kind},
    state::Shared,
};

/// Whose; one's own when absent.
#[derive(Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub(super) struct Whose {
    user: Option<UserName>,
}

impl Whose {
    /// The account, if the one who asks may see it.
    pub(super) async fn account(self, shared: &Shared, actor: &Principal) -> Result<UserId, ApiError> {
        match self.user {
            Some(name) if name != actor.user_name => Ok(users::find(shared, actor, &name).await?.id),
            _ => Ok(actor.user),
        }
    }
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
    Query(whose): Query<Whose>,
) -> Result<Json<Vec<SessionSummary>>, ApiError> {
    let user = whose.account(&shared, &actor).await?;
    let sessions = shared.store.user_sessions(user, shared.now()).await?;
    Ok(Json(sessions.into_iter().map(|session| shown(session, &actor)).collect()))
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
