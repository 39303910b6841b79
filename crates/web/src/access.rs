//! Who asks: the bearer token of a request, looked up by its hash or its id, and the least role a
//! route needs. A route's handler runs only behind [`authorise`], or it is listed as open.
//!
//! There are no cookies: a browser sends nothing by itself, so no page of a stranger's can ask in
//! somebody's name.

use core::net::IpAddr;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use axum::{
    Extension,
    extract::{FromRequestParts, Request, State},
    http::{HeaderMap, header, request::Parts},
    middleware::Next,
    response::Response,
};
use fleet::{
    limits::API_TOKEN_USE_NOTED_PER,
    model::{ApiToken, Credential, Principal, TokenStanding, UserRole, UserSession},
    ports::{StoreError, Write, Written},
};
use ids::{ApiTokenId, DurationMs, UnixMs};
use subtle::ConstantTimeEq as _;

use crate::{
    credentials::{Bearer, bearer_read},
    edge::Peer,
    limits,
    problem::{ApiError, Kind},
    rate::Key,
    refusals::Refused,
    state::Shared,
};

/// Who may use a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// Anyone who reaches the listener.
    Open,
    /// Whoever brings a session or an API token with at least this role.
    Role(UserRole),
    /// Whoever is signed in with a password and at least this role: no API token reaches it.
    Person(UserRole),
}

/// Who asks, for handlers behind [`authorise`].
#[derive(Clone, Debug)]
pub(crate) struct Actor(pub(crate) Principal);

impl<S: Send + Sync> FromRequestParts<S> for Actor {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        // Only a route listed as open could get here without one, and then it fails closed.
        parts.extensions.get::<Self>().cloned().ok_or_else(not_signed_in)
    }
}

/// Lets a request through when its bearer token is one of an account with at least the role.
pub(crate) async fn authorise(
    State((shared, access)): State<(Arc<Shared>, Access)>,
    Extension(Peer(peer)): Extension<Peer>,
    mut request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    let (Access::Role(role) | Access::Person(role)) = access else {
        stranger(&shared, peer.ip())?;
        return Ok(next.run(request).await);
    };
    let found = match bearer(request.headers()).and_then(bearer_read) {
        Some(bearer) => find(&shared, bearer).await?,
        None => Found::Nobody,
    };
    let principal = match found {
        Found::Good(principal) => principal,
        Found::Nobody => {
            stranger(&shared, peer.ip())?;
            return Err(not_signed_in());
        }
        Found::Ended(what, why) => {
            shared.refusals.note(what, peer.ip());
            stranger(&shared, peer.ip())?;
            return Err(ApiError::new(Kind::NotSignedIn, why));
        }
    };
    tracing::Span::current().record("user", principal.user_name.as_str());
    within_rate(&shared, &principal)?;
    if let Access::Person(_) = access
        && !principal.credential.is_session()
    {
        let detail =
            "an API token may not do this: it concerns accounts and credentials; sign in with `serverflow login`";
        return Err(ApiError::new(Kind::NotAllowed, detail));
    }
    if principal.role < role {
        return Err(too_low(&principal, role));
    }
    request.extensions_mut().insert(Actor(principal));
    Ok(next.run(request).await)
}

/// Whose a bearer token is.
enum Found {
    Good(Principal),
    /// One that is known and not taken any more, and what to say of it.
    Ended(Refused, &'static str),
    Nobody,
}

async fn find(shared: &Shared, bearer: Bearer) -> Result<Found, ApiError> {
    let now = shared.now();
    match bearer {
        Bearer::Session(sha256) => {
            let session = shared.store.user_session(sha256).await?;
            Ok(session.map_or(Found::Nobody, |session| of_session(session, now)))
        }
        Bearer::Token(id, secret_sha256) => {
            let token = shared.store.api_token(id).await?;
            // Whether the id is known takes no secret to learn, and tells nothing.
            let token = token.filter(|token| bool::from(token.secret_sha256.0.ct_eq(&secret_sha256.0)));
            let Some(token) = token else { return Ok(Found::Nobody) };
            note_use(shared, &token, now).await;
            Ok(of_token(token, now))
        }
    }
}

fn of_session(session: UserSession, now: UnixMs) -> Found {
    if session.expires <= now {
        let why = "the session has expired; sign in again with `serverflow login`";
        return Found::Ended(Refused::Session(session.user_name), why);
    }
    Found::Good(Principal {
        user: session.user,
        user_name: session.user_name,
        role: session.role,
        credential: Credential::Session { id: session.id, token_sha256: session.token_sha256 },
        expires: session.expires,
    })
}

fn of_token(token: ApiToken, now: UnixMs) -> Found {
    let why = match token.standing(now) {
        TokenStanding::Good => {
            return Found::Good(Principal {
                user: token.user,
                role: token.effective_role(),
                user_name: token.user_name,
                credential: Credential::Token(token.id),
                expires: token.expires,
            });
        }
        TokenStanding::Expired => "the API token has expired; make another with `serverflow token create`",
        TokenStanding::Revoked => "the API token was revoked; make another with `serverflow token create`",
        TokenStanding::AccountDisabled => "the API token's account is disabled; ask an admin to enable it",
    };
    Found::Ended(Refused::Token(token.id, token.user_name), why)
}

/// Whether whoever was let in by this would be let in now.
pub(crate) async fn is_still_good(shared: &Shared, credential: Credential) -> bool {
    let now = shared.now();
    match credential {
        Credential::Session { token_sha256, .. } => {
            let session = shared.store.user_session(token_sha256).await;
            session.is_ok_and(|session| session.is_some_and(|session| session.expires > now))
        }
        Credential::Token(id) => {
            let token = shared.store.api_token(id).await;
            token.is_ok_and(|token| token.is_some_and(|token| token.standing(now) == TokenStanding::Good))
        }
    }
}

/// Writes what somebody asked for, if they may still ask for it in that moment: a body may have come
/// slowly, and a password's hash takes its time. Every write of a route behind [`authorise`] goes here.
pub(crate) async fn write(shared: &Shared, actor: &Principal, write: Write) -> Result<Written, StoreError> {
    shared.store.write(by(shared, actor, write)).await
}

/// The same write, for whoever has it done to the end.
pub(crate) fn by(shared: &Shared, actor: &Principal, write: Write) -> Write {
    Write::By { actor: actor.clone(), at: shared.now(), write: Box::new(write) }
}

/// When the use of each API token was noted last by this process.
#[derive(Default)]
pub(crate) struct TokensUsed(Mutex<HashMap<ApiTokenId, UnixMs>>);

impl TokensUsed {
    /// Whether it should be noted now; if so, it counts as noted.
    fn is_due(&self, token: &ApiToken, now: UnixMs) -> bool {
        let long_ago = |at: Option<UnixMs>| at.is_none_or(|at| now.distance(at) >= API_TOKEN_USE_NOTED_PER);
        let mut noted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !long_ago(token.last_used_at) || !long_ago(noted.get(&token.id).copied()) {
            return false;
        }
        if noted.len() >= limits::RATE_KEYS_MAX {
            noted.retain(|_, at| !long_ago(Some(*at)));
        }
        noted.insert(token.id, now);
        true
    }
}

/// One write an hour and token at most. That it fails hinders nobody.
async fn note_use(shared: &Shared, token: &ApiToken, now: UnixMs) {
    if token.standing(now) != TokenStanding::Good || !shared.tokens_used.is_due(token, now) {
        return;
    }
    if let Err(error) = shared.store.write(Write::ApiTokenUsed { token: token.id, at: now }).await {
        tracing::warn!(%error, token = %token.id, "the use of an API token could not be noted");
    }
}

/// Counts a request that nobody stands behind.
pub(crate) fn stranger(shared: &Shared, peer: IpAddr) -> Result<(), ApiError> {
    let taken = shared.request_rate.take(&[Key::stranger(peer)], shared.now());
    taken.map_err(|wait| too_many(wait, "from this address by somebody who is not signed in"))
}

fn within_rate(shared: &Shared, principal: &Principal) -> Result<(), ApiError> {
    let (key, whose) = match principal.credential {
        Credential::Session { .. } => (Key::Account(principal.user), "by this account"),
        Credential::Token(id) => (Key::Token(id), "with this API token"),
    };
    shared.request_rate.take(&[key], shared.now()).map_err(|wait| too_many(wait, whose))
}

/// `whose` ends the sentence "too many requests …".
pub(crate) fn too_many(wait: DurationMs, whose: &str) -> ApiError {
    let seconds = wait.0.div_ceil(1000);
    let detail = format!("too many requests {whose}; try again in {seconds} s");
    ApiError::new(Kind::TooManyRequests, detail).retry_after(seconds)
}

pub(crate) fn too_low(principal: &Principal, role: UserRole) -> ApiError {
    let detail = match principal.credential {
        Credential::Session { .. } => format!(
            "this needs the role {role}, and {} is {}; ask an admin to do it or to change the role",
            principal.user_name, principal.role
        ),
        Credential::Token(_) => format!(
            "this needs the role {role}, and this API token of {} is {}; make one with that role, if the account has it",
            principal.user_name, principal.role
        ),
    };
    ApiError::new(Kind::NotAllowed, detail)
}

fn not_signed_in() -> ApiError {
    ApiError::new(
        Kind::NotSignedIn,
        "sign in with `serverflow login`, or send a valid token as `Authorization: Bearer TOKEN`; the token is missing, expired or signed out",
    )
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return None };
    let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && (1..=limits::BEARER_BYTES_MAX).contains(&token.len())).then_some(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_well_formed_bearer_token_counts() {
        let check = |values: &[&str], token: Option<&str>| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(header::AUTHORIZATION, value.parse().unwrap());
            }
            assert_eq!(bearer(&headers), token, "{values:?}");
        };
        check(&["Bearer abc"], Some("abc"));
        check(&["bearer  abc "], Some("abc"));
        check(&[], None);
        check(&["Bearer"], None);
        check(&["Bearer "], None);
        check(&["Basic abc"], None);
        check(&["Bearer abc", "Bearer abd"], None);
        check(&[&format!("Bearer {}", "a".repeat(limits::BEARER_BYTES_MAX + 1))], None);
    }
}
