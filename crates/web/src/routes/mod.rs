//! Every path there is, in one table: method, path, who may use it, and what answers. The router is
//! made from the table and from nothing else, so a path that is not in it is 404, and one that
//! needs a role is behind [`crate::access::authorise`].

mod actions;
mod apps;
mod audit;
mod commands;
mod fleet;
mod health;
mod hosts;
mod operations;
mod page;
mod session;

use std::sync::Arc;

use ::fleet::model::UserRole::{Admin, Viewer};
use axum::{
    Router,
    extract::DefaultBodyLimit,
    handler::Handler,
    http::Method,
    middleware::from_fn_with_state,
    routing::{MethodFilter, MethodRouter, on},
};

pub(crate) use self::session::tell_refusals;
use crate::{
    access::{Access, authorise},
    edge, limits,
    problem::{ApiError, Kind},
    state::Shared,
};

/// One line of the table.
pub(crate) struct Route {
    #[cfg_attr(not(test), expect(dead_code, reason = "the handler holds it; tests walk the table by it"))]
    pub(crate) method: Method,
    pub(crate) path: &'static str,
    pub(crate) access: Access,
    handler: MethodRouter<Arc<Shared>>,
}

fn route<H, T>(method: Method, path: &'static str, access: Access, handler: H) -> Route
where
    H: Handler<T, Arc<Shared>>,
    T: 'static,
{
    let filter = match method {
        Method::POST => MethodFilter::POST,
        Method::DELETE => MethodFilter::DELETE,
        // GET answers HEAD as well.
        _ => MethodFilter::GET,
    };
    Route { method, path, access, handler: on(filter, handler) }
}

/// The table. Roles are the least ones; what an action asks for beyond (a change needs an operator)
/// is decided in [`::fleet::operation`], by the action's class.
pub(crate) fn table() -> Vec<Route> {
    const OPEN: Access = Access::Open;
    const VIEWER: Access = Access::Role(Viewer);
    const ADMIN: Access = Access::Role(Admin);
    let get = || Method::GET;
    let post = || Method::POST;
    let delete = || Method::DELETE;
    vec![
        route(get(), "/", OPEN, page::landing),
        route(get(), "/health", OPEN, health::health),
        route(get(), "/metrics", OPEN, health::metrics),
        route(post(), "/api/v1/session", OPEN, session::sign_in),
        route(get(), "/api/v1/session", VIEWER, session::who_am_i),
        route(delete(), "/api/v1/session", VIEWER, session::sign_out),
        route(get(), "/api/v1/fleet", VIEWER, fleet::info),
        route(get(), "/api/v1/hosts", VIEWER, hosts::list),
        route(post(), "/api/v1/hosts", ADMIN, hosts::join_token),
        route(get(), "/api/v1/hosts/{name}", VIEWER, hosts::show),
        route(delete(), "/api/v1/hosts/{name}", ADMIN, hosts::revoke),
        route(get(), "/api/v1/actions", VIEWER, actions::list),
        route(get(), "/api/v1/actions/{name}", VIEWER, actions::show),
        route(post(), "/api/v1/operations", VIEWER, operations::propose),
        route(get(), "/api/v1/operations/{id}", VIEWER, operations::show),
        route(get(), "/api/v1/operations/{id}/events", VIEWER, operations::watch),
        route(get(), "/api/v1/commands", VIEWER, commands::list),
        route(get(), "/api/v1/commands/{id}", VIEWER, commands::show),
        route(get(), "/api/v1/commands/{id}/events", VIEWER, commands::watch),
        route(post(), "/api/v1/commands/{id}/cancel", VIEWER, commands::cancel),
        route(get(), "/api/v1/apps", VIEWER, apps::list),
        route(get(), "/api/v1/apps/{name}", VIEWER, apps::show),
        route(get(), "/api/v1/audit", VIEWER, audit::list),
        route(get(), "/api/v1/audit/export", VIEWER, audit::export),
    ]
}

/// The router of the table.
pub(crate) fn router(shared: &Arc<Shared>) -> Router {
    let mut router = Router::new();
    for Route { path, access, handler, .. } in table() {
        let handler = match access {
            Access::Open => handler.layer(DefaultBodyLimit::max(limits::BODY_BYTES_OPEN_MAX)),
            Access::Role(role) => handler.route_layer(from_fn_with_state((shared.clone(), role), authorise)),
        };
        router = router.route(path, handler);
    }
    router
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(DefaultBodyLimit::max(limits::BODY_BYTES_MAX))
        .layer(from_fn_with_state(shared.clone(), edge::around))
        .with_state(shared.clone())
}

async fn not_found() -> ApiError {
    ApiError::new(Kind::NotFound, "there is nothing at this path; the API is under /api/v1")
}

async fn method_not_allowed() -> ApiError {
    ApiError::new(Kind::MethodNotAllowed, "this path has no such method; the `Allow` header names those it has")
}
