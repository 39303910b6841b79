//! What answers under each path. Which paths there are is in [`table`]; the router is made from that
//! and from nothing else, so a path that is not in it is 404, and one that needs a role is behind
//! [`crate::access::authorise`].

mod actions;
mod agents;
mod approvals;
mod apps;
mod audit;
mod bundle;
mod commands;
#[cfg(test)]
pub(crate) mod described;
mod fleet;
mod health;
mod hosts;
mod keys;
mod openapi;
mod operations;
mod page;
mod quarantine;
mod recovery;
mod restored;
mod session;
mod sessions;
mod standing;
mod table;
mod tokens;
mod users;

use std::sync::Arc;

use axum::{
    Extension, Router,
    extract::{DefaultBodyLimit, State},
    middleware::from_fn_with_state,
    routing::MethodRouter,
};

#[cfg(test)]
pub(crate) use self::{openapi::DOCUMENT, table::Route};
pub(crate) use self::{session::tell_refusals, table::table};
use crate::{
    access::{self, Access, authorise},
    edge::{self, Peer},
    limits,
    problem::{ApiError, Kind},
    state::Shared,
};

/// The router of the table.
pub(crate) fn router(shared: &Arc<Shared>) -> Router {
    router_around(shared, |handler| handler)
}

/// The same with something around each handler, within what judges who may use it.
pub(crate) fn router_around(
    shared: &Arc<Shared>,
    around: impl Fn(MethodRouter<Arc<Shared>>) -> MethodRouter<Arc<Shared>>,
) -> Router {
    let mut router = Router::new();
    for route in table() {
        let access = route.access;
        let handler = around(route.handler).route_layer(from_fn_with_state((shared.clone(), access), authorise));
        let handler = match access {
            Access::Open => handler.layer(DefaultBodyLimit::max(limits::BODY_BYTES_OPEN_MAX)),
            Access::Role(_) | Access::Person(_) => handler,
        };
        router = router.route(route.path, handler);
    }
    router
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(DefaultBodyLimit::max(limits::BODY_BYTES_MAX))
        .layer(from_fn_with_state(shared.clone(), edge::around))
        .with_state(shared.clone())
}

async fn not_found(State(shared): State<Arc<Shared>>, Extension(Peer(peer)): Extension<Peer>) -> ApiError {
    if let Err(too_many) = access::stranger(&shared, peer.ip()) {
        return too_many;
    }
    ApiError::new(Kind::NotFound, "there is nothing at this path; the API is under /api/v1")
}

async fn method_not_allowed() -> ApiError {
    ApiError::new(Kind::MethodNotAllowed, "this path has no such method; the `Allow` header names those it has")
}
