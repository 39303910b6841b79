//! Accounts. Whose account one may touch is decided in [`fleet::people`]; that a fleet keeps an owner,
//! in the store.

use core::net::IpAddr;
use std::sync::Arc;

use api::{Page, UserCreateRequest, UserPasswordRequest, UserRoleRequest, UserStatus, UserSummary};
use axum::{
    Extension, Json,
    extract::State,
    http::StatusCode,
    response::{IntoResponse as _, Response},
};
use fleet::{
    limits::USERS_MAX,
    list::{UserFilter, UserSort},
    model::{Principal, User, UserRole},
    people,
    ports::{Event, StoreError, Write},
};
use ids::UserName;
use serde::Deserialize;
use zeroize::Zeroizing;

use super::session::{password_work, too_many};
use crate::{
    access::{self, Actor},
    credentials,
    edge::Peer,
    fresh,
    input::{JsonBody, PathParameter, Query},
    list::{List, ListQuery},
    problem::{ApiError, Kind},
    rate::Key,
    refusals::Refused,
    state::Shared,
};

fn shown(user: &User) -> UserSummary {
    UserSummary {
        id: user.id,
        name: user.name.clone(),
        role: user.role.as_str().to_owned(),
        created_at: user.created_at.into(),
        disabled_at: user.disabled_at.map(Into::into),
    }
}

pub(super) fn role(word: &str) -> Result<UserRole, ApiError> {
    word.parse().map_err(|error| ApiError::field("role", format!("{word:?} is {error}")))
}

pub(super) const LIST: List = List { name: "users", sorts: &["name", "created_at"] };

#[derive(Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub(super) struct Filter {
    /// `viewer`, `operator`, `admin` or `owner`.
    role: Option<String>,
    status: Option<UserStatus>,
    limit: Option<u32>,
    after: Option<String>,
    sort: Option<String>,
}

pub(super) async fn list(
    State(shared): State<Arc<Shared>>,
    Query(filter): Query<Filter>,
) -> Result<Json<Page<UserSummary>>, ApiError> {
    let sorted = LIST.read(ListQuery { limit: filter.limit, after: filter.after, sort: filter.sort })?;
    let sort = if sorted.field == "created_at" { UserSort::CreatedAt } else { UserSort::Name };
    let filter = UserFilter {
        role: filter.role.as_deref().map(role).transpose()?,
        is_disabled: filter.status.map(|status| status == UserStatus::Disabled),
    };
    let listed = shared.store.users_list(filter, sort, sorted.page.clone()).await?;
    Ok(Json(sorted.answer(listed, |user| shown(&user))))
}

/// The account of that name, if the one who asks may see it. Who may see none learns of none.
pub(super) async fn find(shared: &Shared, actor: &Principal, name: &UserName) -> Result<User, ApiError> {
    if actor.role < UserRole::Admin && actor.user_name != *name {
        let detail = format!("only {name} and admins may see this account; ask an admin");
        return Err(ApiError::new(Kind::NotAllowed, detail));
    }
    let missing =
        || ApiError::new(Kind::UserNotFound, format!("there is no account {name}; see `serverflow user list`"));
    shared.store.user_by_name(name.clone()).await?.ok_or_else(missing)
}

pub(super) async fn show(
    State(shared): State<Arc<Shared>>,
    Actor(actor): Actor,
    PathParameter(name): PathParameter<UserName>,
) -> Result<Json<UserSummary>, ApiError> {
    Ok(Json(shown(&find(&shared, &actor, &name).await?)))
}

async fn password_hash(shared: &Shared, password: Zeroizing<String>) -> Result<String, ApiError> {
    credentials::password_rule(&password)?;
    Ok(password_work(shared, move || credentials::password_hash(&password)).await??)
}

pub(super) async fn create(
    State(shared): State<Arc<Shared>>,
    Actor(actor): Actor,
    JsonBody(request): JsonBody<UserCreateRequest>,
) -> Result<Response, ApiError> {
    let UserCreateRequest { name, role: word, password } = request;
    let (password, now) = (Zeroizing::new(password), shared.now());
    let mut user = User {
        id: fresh::id(now)?,
        name,
        role: role(&word)?,
        password_hash: String::new(),
        created_at: now,
        disabled_at: None,
        approver: None,
    };
    // Judged before the work of hashing is spent on it.
    people::user_create(&actor, user.clone())?;
    if shared.store.users().await?.len() >= USERS_MAX {
        return Err(ApiError::new(Kind::LimitReached, format!("there are {USERS_MAX} accounts; delete some first")));
    }
    user.password_hash = password_hash(&shared, password).await?;
    let write = people::user_create(&actor, user.clone())?;
    access::write(&shared, &actor, write).await.map_err(|error| match error {
        StoreError::Conflict(why) => ApiError::new(Kind::UserExists, why),
        other => other.into(),
    })?;
    Ok((StatusCode::CREATED, Json(shown(&user))).into_response())
}

/// Writes a change, tells whoever is let in by that account, and shows it as it is then.
async fn change(shared: &Shared, actor: &Principal, user: &User, write: Write) -> Result<Json<UserSummary>, ApiError> {
    access::write(shared, actor, write).await?;
    shared.notifier.publish(Event::Account { user: user.id });
    let now = shared.store.user_by_name(user.name.clone()).await?;
    Ok(Json(shown(&now.unwrap_or_else(|| user.clone()))))
}

pub(super) async fn role_set(
    State(shared): State<Arc<Shared>>,
    Actor(actor): Actor,
    PathParameter(name): PathParameter<UserName>,
    JsonBody(UserRoleRequest { role: word }): JsonBody<UserRoleRequest>,
) -> Result<Json<UserSummary>, ApiError> {
    let (user, role) = (find(&shared, &actor, &name).await?, role(&word)?);
    let write = people::user_role_set(&actor, user.clone(), role, shared.now())?;
    if user.role == role {
        return Ok(Json(shown(&user)));
    }
    change(&shared, &actor, &user, write).await
}

/// One's own needs the old one, which counts as a sign-in.
pub(super) async fn password_set(
    State(shared): State<Arc<Shared>>,
    Actor(actor): Actor,
    Extension(Peer(peer)): Extension<Peer>,
    PathParameter(name): PathParameter<UserName>,
    JsonBody(request): JsonBody<UserPasswordRequest>,
) -> Result<Json<UserSummary>, ApiError> {
    let UserPasswordRequest { password, old_password } = request;
    let (password, old_password) = (Zeroizing::new(password), old_password.map(Zeroizing::new));
    let user = find(&shared, &actor, &name).await?;
    people::may_see(&actor, &user)?;
    credentials::password_rule(&password)?;
    if user.id == actor.user {
        let old = old_password.ok_or_else(|| ApiError::field("old_password", "give the password it has now"))?;
        old_password_checked(&shared, &user, old, peer.ip()).await?;
    }
    let hash = password_hash(&shared, password).await?;
    let write = people::user_password_set(&actor, user.clone(), hash, shared.now())?;
    change(&shared, &actor, &user, write).await
}

async fn old_password_checked(
    shared: &Shared,
    user: &User,
    old: Zeroizing<String>,
    peer: IpAddr,
) -> Result<(), ApiError> {
    let keys = Key::sign_in(&user.name, peer);
    shared.sign_in_rate.take_sign_in(&keys, shared.now()).map_err(|wait| {
        shared.refusals.note(Refused::TooManySignIns(Some(user.name.clone())), peer);
        too_many(wait)
    })?;
    let hash = user.password_hash.clone();
    if !password_work(shared, move || credentials::password_matches(&old, &hash)).await? {
        shared.refusals.note(Refused::SignIn(Some(user.name.clone())), peer);
        return Err(ApiError::field("old_password", "this is not the account's password"));
    }
    shared.sign_in_rate.give_back(&keys, shared.now());
    Ok(())
}

async fn enabled_set(
    shared: &Shared,
    actor: &Principal,
    name: &UserName,
    enabled: bool,
) -> Result<Json<UserSummary>, ApiError> {
    let user = find(shared, actor, name).await?;
    let write = people::user_enabled_set(actor, user.clone(), enabled, shared.now())?;
    if user.disabled_at.is_none() == enabled {
        return Ok(Json(shown(&user)));
    }
    change(shared, actor, &user, write).await
}

pub(super) async fn disable(
    State(shared): State<Arc<Shared>>,
    Actor(actor): Actor,
    PathParameter(name): PathParameter<UserName>,
) -> Result<Json<UserSummary>, ApiError> {
    enabled_set(&shared, &actor, &name, false).await
}

pub(super) async fn enable(
    State(shared): State<Arc<Shared>>,
    Actor(actor): Actor,
    PathParameter(name): PathParameter<UserName>,
) -> Result<Json<UserSummary>, ApiError> {
    enabled_set(&shared, &actor, &name, true).await
}

pub(super) async fn delete(
    State(shared): State<Arc<Shared>>,
    Actor(actor): Actor,
    PathParameter(name): PathParameter<UserName>,
) -> Result<StatusCode, ApiError> {
    let user = find(&shared, &actor, &name).await?;
    let write = people::user_delete(&actor, user.clone(), shared.now())?;
    let Json(_) = change(&shared, &actor, &user, write).await?;
    Ok(StatusCode::NO_CONTENT)
}
