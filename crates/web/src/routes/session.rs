//! Signing in and out. An unknown name and a wrong password get the same answer after the same
//! work, and neither says which it was.

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
    ports::{Event, Write},
};
use ids::DurationMs;
use tokio::time::timeout;
use zeroize::Zeroizing;

use crate::{
    access::{self, Actor},
    credentials,
    edge::Peer,
    fresh,
    input::JsonBody,
    limits,
    problem::{ApiError, Kind},
    rate::Key,
    records,
    refusals::Refused,
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
    let keys = Key::sign_in(&name, peer);
    let taken = shared.sign_in_rate.take_sign_in(&keys, now);
    let user = shared.store.user_by_name(name).await?;
    if let Err(wait) = taken {
        shared.metrics.sign_in("throttled");
        shared.refusals.note(Refused::TooManySignIns(user.map(|user| user.name)), peer);
        return Err(too_many(wait));
    }
    let Some(user) = user_checked(&shared, user.clone(), password).await? else {
        shared.metrics.sign_in("refused");
        shared.refusals.note(Refused::SignIn(user.map(|user| user.name)), peer);
        return Err(ApiError::new(Kind::SignInRefused, "the user name or the password is wrong"));
    };
    shared.sign_in_rate.give_back(&keys, now);
    let (token, token_sha256) = credentials::bearer_token()?;
    let expires = now.plus(limits::SIGN_IN_LIFETIME);
    let audit = records::sign_in(&user, expires, peer, now);
    let answer = WhoAmI {
        name: user.name.clone(),
        role: user.role.as_str().to_owned(),
        expires_at: expires.into(),
        token_id: None,
    };
    let session = UserSession {
        id: fresh::id(now)?,
        token_sha256,
        user: user.id,
        user_name: user.name,
        role: user.role,
        created_at: now,
        expires,
        peer: peer.to_string(),
    };
    shared.store.write(Write::UserSessionCreate { session, password_hash: user.password_hash, audit }).await?;
    shared.metrics.sign_in("signed_in");
    let answer = SignInResponse { token: token.to_string(), expires_at: expires.into(), user: answer };
    Ok((StatusCode::CREATED, Json(answer)).into_response())
}

pub(super) fn too_many(wait: DurationMs) -> ApiError {
    let seconds = wait.0.div_ceil(1000);
    let detail = format!("too many sign-ins with this name or from this address; try again in {seconds} s");
    ApiError::new(Kind::TooManySignIns, detail).retry_after(seconds)
}

/// The account, if the password is its own and it is not disabled.
async fn user_checked(
    shared: &Shared,
    user: Option<User>,
    password: Zeroizing<String>,
) -> Result<Option<User>, ApiError> {
    password_work(shared, move || {
        let hash = user.as_ref().map_or(NO_ACCOUNT_HASH, |user| user.password_hash.as_str());
        let matches = credentials::password_matches(&password, hash);
        // Only now, so that it takes as long for a disabled one.
        user.filter(|user| matches && user.disabled_at.is_none())
    })
    .await
}

/// Does what takes a core for a while: in turn, and beside whatever else is answered.
pub(super) async fn password_work<T: Send + 'static>(
    shared: &Shared,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, ApiError> {
    let turn = shared.password_checks.clone().acquire_owned();
    let Ok(Ok(turn)) = timeout(limits::PASSWORD_CHECK_WAIT_MAX, turn).await else {
        return Err(ApiError::new(Kind::Busy, "too many sign-ins at once; try again in a moment").retry_after(2));
    };
    let done = tokio::task::spawn_blocking(move || {
        let done = work();
        drop(turn);
        done
    });
    done.await.map_err(|error| {
        tracing::error!(%error, "a password check did not end");
        ApiError::new(Kind::Internal, "the password could not be checked; the control plane's log says why")
    })
}

/// Tells the audit log of refusals that have come due; with `all`, of every one.
pub(crate) async fn tell_refusals(shared: &Shared, all: bool) {
    for told in shared.refusals.due(shared.now(), all) {
        if let Err(error) = shared.store.write(Write::Audit(records::refused(&told, shared.now()))).await {
            tracing::error!(%error, ?told, "refusals could not be told to the audit log; they are told with the next");
            shared.refusals.put_back(told);
        }
    }
}

pub(super) async fn who_am_i(Actor(actor): Actor) -> Json<WhoAmI> {
    Json(WhoAmI {
        name: actor.user_name,
        role: actor.role.as_str().to_owned(),
        expires_at: actor.expires.into(),
        token_id: match actor.credential {
            Credential::Session { .. } => None,
            Credential::Token(id) => Some(id),
        },
    })
}

pub(super) async fn sign_out(State(shared): State<Arc<Shared>>, Actor(actor): Actor) -> Result<StatusCode, ApiError> {
    let Credential::Session { id: session, .. } = actor.credential else {
        let detail = "an API token does not sign out; revoke it with `serverflow token revoke ID`";
        return Err(ApiError::new(Kind::NotAllowed, detail));
    };
    let audit = records::sign_out(&actor, shared.now());
    access::write(&shared, &actor, Write::UserSessionEnd { session, audit }).await?;
    shared.notifier.publish(Event::Account { user: actor.user });
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
