//! API tokens: made by people for themselves, shown once, kept as the hash of a secret.

use std::sync::Arc;

use api::{Page, TokenRequest, TokenResponse, TokenStatus, TokenSummary};
use axum::{
    Json,
    extract::State,
    http::StatusCode,
    response::{IntoResponse as _, Response},
};
use fleet::{
    list::TokenFilter,
    model::{ApiToken, TokenStanding},
    people,
    ports::{Event, StoreError},
};
use ids::{ApiTokenId, DurationMs, UnixMs, UserName};
use serde::Deserialize;

use super::{
    sessions::{SORTS, credential_sort, whose},
    users,
};
use crate::{
    access::{self, Actor},
    credentials, fresh,
    input::{JsonBody, PathParameter, Query},
    list::{List, ListQuery},
    problem::{ApiError, Kind},
    state::Shared,
};

fn shown(token: ApiToken, now: UnixMs) -> TokenSummary {
    TokenSummary {
        status: match token.standing(now) {
            TokenStanding::Good => TokenStatus::Active,
            TokenStanding::Expired => TokenStatus::Expired,
            TokenStanding::Revoked => TokenStatus::Revoked,
            TokenStanding::AccountDisabled => TokenStatus::Disabled,
        },
        id: token.id,
        role: token.effective_role().as_str().to_owned(),
        name: token.name,
        user: token.user_name,
        created_at: token.created_at.into(),
        expires_at: token.expires.into(),
        last_used_at: token.last_used_at.map(Into::into),
    }
}

pub(super) const LIST: List = List { name: "tokens", sorts: SORTS };

#[derive(Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub(super) struct Filter {
    /// Whose; one's own when absent.
    user: Option<UserName>,
    status: Option<TokenStatus>,
    limit: Option<u32>,
    after: Option<String>,
    sort: Option<String>,
}

pub(super) async fn list(
    State(shared): State<Arc<Shared>>,
    Actor(actor): Actor,
    Query(filter): Query<Filter>,
) -> Result<Json<Page<TokenSummary>>, ApiError> {
    let sorted = LIST.read(ListQuery { limit: filter.limit, after: filter.after, sort: filter.sort })?;
    let (user, now) = (whose(&shared, &actor, filter.user).await?, shared.now());
    let standing = filter.status.map(|status| match status {
        TokenStatus::Active => TokenStanding::Good,
        TokenStatus::Expired => TokenStanding::Expired,
        TokenStatus::Revoked => TokenStanding::Revoked,
        TokenStatus::Disabled => TokenStanding::AccountDisabled,
    });
    let (filter, sort) = (TokenFilter { user, now, standing }, credential_sort(sorted.field));
    let listed = shared.store.api_tokens_list(filter, sort, sorted.page.clone()).await?;
    Ok(Json(sorted.answer(listed, |token| shown(token, now))))
}

pub(super) async fn create(
    State(shared): State<Arc<Shared>>,
    Actor(actor): Actor,
    JsonBody(request): JsonBody<TokenRequest>,
) -> Result<Response, ApiError> {
    let TokenRequest { name, role, ttl_seconds } = request;
    let now = shared.now();
    let id = fresh::id(now)?;
    let (text, secret_sha256) = credentials::api_token(id)?;
    let request = people::TokenRequest {
        id,
        secret_sha256,
        name,
        role: role.as_deref().map(users::role).transpose()?,
        lifetime: ttl_seconds.map(|seconds| DurationMs(seconds.saturating_mul(1000))),
    };
    let token = people::token_create(&actor, request, now)?;
    let write = people::token_created(&actor, token.clone());
    access::write(&shared, &actor, write).await.map_err(|error| match error {
        StoreError::Conflict(why) => ApiError::new(Kind::LimitReached, why),
        other => other.into(),
    })?;
    let answer = TokenResponse { token: text.to_string(), summary: shown(token, now) };
    Ok((StatusCode::CREATED, Json(answer)).into_response())
}

/// Revoking twice is the same as once.
pub(super) async fn revoke(
    State(shared): State<Arc<Shared>>,
    Actor(actor): Actor,
    PathParameter(id): PathParameter<ApiTokenId>,
) -> Result<StatusCode, ApiError> {
    let missing =
        || ApiError::new(Kind::TokenNotFound, format!("there is no API token {id}; see `serverflow token list`"));
    let token = shared.store.api_token(id).await?.ok_or_else(missing)?;
    let write = people::token_revoke(&actor, &token, shared.now()).map_err(|error| match error {
        // Who may not look after others does not learn which tokens there are.
        people::PeopleError::NotAllowed { .. } if !people::looks_after_any(actor.role) => missing(),
        other => other.into(),
    })?;
    access::write(&shared, &actor, write).await?;
    shared.notifier.publish(Event::Account { user: token.user });
    Ok(StatusCode::NO_CONTENT)
}
