//! Signing in and out. An unknown name and a wrong password get the same answer after the same
//! work, and neither says which it was.

use core::net::IpAddr;
use std::sync::Arc;

use api::{SignInRequest, SignInResponse, WhoAmI};
use axum::{
    Extension, Json,
    extract::State,
    http::StatusCode,
    response::{IntoResponse as _, Response},
};
use fleet::{
    model::{Credential, User, UserSession},
    ports::Write,
};
use ids::UserName;
use tokio::time::timeout;
use zeroize::Zeroizing;

use crate::{
    access::Actor,
    credentials,
    edge::Peer,
    input::JsonBody,
    limits,
    problem::{ApiError, Kind},
    records,
    sign_in_rate::RefusalsToTell,
    state::Shared,
};

/// Checked when there is no such account, so that it takes as long. Made with the parameters of
/// [`credentials::password_hash`] from a password nobody kept; a test holds it to them.
const NO_ACCOUNT_HASH: &str =
    "$argon2id$v=19$m=19456,t=2,p=1$c2VydmVyZmxvdy1ub25lIQ$Zkz1Sk2cSRm+KEvXzdSnGOC3rRkWVCWbLFVXuVpqyfs";

pub(super) async fn sign_in(
    State(shared): State<Arc<Shared>>,
    Extension(Peer(peer)): Extension<Peer>,
    JsonBody(request): JsonBody<SignInRequest>,
) -> Result<Response, ApiError> {
    let SignInRequest { name, password } = request;
    let (password, peer, now) = (Zeroizing::new(password), peer.ip(), shared.now());
    if let Err(wait) = shared.sign_in_rate.take(&name, peer, now) {
        shared.metrics.sign_in("throttled");
        return Err(too_many(wait.0.div_ceil(1000)));
    }
    let user = shared.store.user_by_name(name.clone()).await?;
    let Some(user) = user_checked(&shared, user.clone(), password).await? else {
        shared.metrics.sign_in("refused");
        note_refusal(&shared, user.map(|user| user.name), peer);
        return Err(ApiError::new(Kind::SignInRefused, "the user name or the password is wrong"));
    };
    shared.sign_in_rate.give_back(&name, peer, now);
    let (token, token_sha256) = credentials::bearer_token()?;
    let expires = now.plus(limits::SIGN_IN_LIFETIME);
    let audit = records::sign_in(&user, expires, peer, now);
    let session =
        UserSession { token_sha256, user: user.id, user_name: user.name, role: user.role, created_at: now, expires };
    let answer = WhoAmI {
        name: session.user_name.clone(),
        role: session.role.as_str().to_owned(),
        expires_at: session.expires.into(),
    };
    shared.store.write(Write::UserSessionCreate { session, audit }).await?;
    shared.metrics.sign_in("signed_in");
    let answer = SignInResponse { token: token.to_string(), expires_at: expires.into(), user: answer };
    Ok((StatusCode::CREATED, Json(answer)).into_response())
}

fn too_many(seconds: u64) -> ApiError {
    let detail = format!("too many sign-ins with this name or from this address; try again in {seconds} s");
    ApiError::new(Kind::TooManySignIns, detail).retry_after(seconds)
}

/// The account, if the password is its own.
async fn user_checked(
    shared: &Shared,
    user: Option<User>,
    password: Zeroizing<String>,
) -> Result<Option<User>, ApiError> {
    let turn = shared.password_checks.clone().acquire_owned();
    let Ok(Ok(turn)) = timeout(limits::PASSWORD_CHECK_WAIT_MAX, turn).await else {
        return Err(ApiError::new(Kind::Busy, "too many sign-ins at once; try again in a moment").retry_after(2));
    };
    let checked = tokio::task::spawn_blocking(move || {
        let hash = user.as_ref().map_or(NO_ACCOUNT_HASH, |user| user.password_hash.as_str());
        let matches = credentials::password_matches(&password, hash);
        drop(turn);
        user.filter(|_| matches)
    });
    checked.await.map_err(|error| {
        tracing::error!(%error, "a password check did not end");
        ApiError::new(Kind::Internal, "the password could not be checked; the control plane's log says why")
    })
}

/// Tells the audit log beside the answer, which must not take longer for a known name.
fn note_refusal(shared: &Arc<Shared>, account: Option<UserName>, peer: IpAddr) {
    if let Some(refusals) = shared.refusals.note(account, peer, shared.now()) {
        let shared = shared.clone();
        tokio::spawn(async move { tell(&shared, refusals).await });
    }
}

async fn tell(shared: &Shared, refusals: RefusalsToTell) {
    let RefusalsToTell { name, count, last_peer } = refusals;
    let entry = records::sign_in_refused(name.as_ref().map(UserName::as_str), count, last_peer, shared.now());
    if let Err(error) = shared.store.write(Write::Audit(entry)).await {
        tracing::error!(%error, count, "refused sign-ins could not be told to the audit log");
    }
}

/// Tells the audit log of refusals that have come due; with `all`, of every one.
pub(crate) async fn tell_refusals(shared: &Shared, all: bool) {
    for refusals in shared.refusals.due(shared.now(), all) {
        tell(shared, refusals).await;
    }
}

pub(super) async fn who_am_i(Actor(actor): Actor) -> Json<WhoAmI> {
    Json(WhoAmI { name: actor.user_name, role: actor.role.as_str().to_owned(), expires_at: actor.expires.into() })
}

pub(super) async fn sign_out(State(shared): State<Arc<Shared>>, Actor(actor): Actor) -> Result<StatusCode, ApiError> {
    let Credential::Session(token_sha256) = actor.credential else {
        return Err(ApiError::new(
            Kind::NotAllowed,
            "an API token does not sign out; revoke it with `serverflow token revoke ID`",
        ));
    };
    let audit = records::sign_out(&actor, shared.now());
    shared.store.write(Write::UserSessionEnd { token_sha256, audit }).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_for_no_account_takes_the_same_work() {
        let parameters = |hash: &str| hash.rsplitn(3, '$').last().map(str::to_owned);
        let real = credentials::password_hash("x").unwrap();
        assert_eq!(parameters(NO_ACCOUNT_HASH), parameters(&real));
        assert_eq!(NO_ACCOUNT_HASH.len(), real.len());
        // Well-formed, or it would be refused without any work.
        assert!(argon2::password_hash::phc::PasswordHash::new(NO_ACCOUNT_HASH).is_ok());
        assert!(!credentials::password_matches("", NO_ACCOUNT_HASH));
    }
}
