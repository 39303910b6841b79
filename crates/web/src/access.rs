//! Who asks: the bearer token of a request, looked up by its hash, and the least role a route needs.
//! A route's handler runs only behind [`authorise`], or it is listed as open.

use std::sync::Arc;

use axum::{
    extract::{FromRequestParts, Request, State},
    http::{HeaderMap, header, request::Parts},
    middleware::Next,
    response::Response,
};
use fleet::model::{Credential, Principal, UserRole};

use crate::{
    credentials, limits,
    problem::{ApiError, Kind},
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
    mut request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    let (Access::Role(role) | Access::Person(role)) = access else { return Ok(next.run(request).await) };
    let token = bearer(request.headers()).ok_or_else(not_signed_in)?;
    let principal = principal(&shared, token).await?.ok_or_else(not_signed_in)?;
    tracing::Span::current().record("user", principal.user_name.as_str());
    if principal.role < role {
        let detail = format!(
            "this needs the role {role}, and {} is {}; ask an admin to do it or to change the role",
            principal.user_name, principal.role
        );
        return Err(ApiError::new(Kind::NotAllowed, detail));
    }
    request.extensions_mut().insert(Actor(principal));
    Ok(next.run(request).await)
}

/// Whose token it is.
async fn principal(shared: &Shared, token: &str) -> Result<Option<Principal>, ApiError> {
    let session = shared.store.user_session(credentials::bearer_sha256(token), shared.now()).await?;
    Ok(session.map(|session| Principal {
        user: session.user,
        user_name: session.user_name,
        role: session.role,
        credential: Credential::Session(session.token_sha256),
        expires: session.expires,
    }))
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
