//! Every path there is, in one table: method, path, who may use it, what it leaves in the audit log,
//! and what answers.
//!
//! Roles are the least ones. What an action asks for beyond (a change needs an operator) is decided in
//! [`::fleet::operation`] by the action's class, and whose account one may touch in [`::fleet::people`].
//! A new path is one line here, one in `described`, and one in the tests' `scenes`.

use std::sync::Arc;

use ::fleet::model::UserRole::{Admin, Operator, Owner, Viewer};
use axum::{
    handler::Handler,
    http::Method,
    routing::{MethodFilter, MethodRouter, on},
};
use envelope::audit::AuditKind;

use super::{
    actions, agents, approvals, apps, audit, commands, fleet, health, hosts, keys, openapi, operations, page,
    quarantine, recovery, restored, session, sessions, standing, tokens, users,
};
use crate::{access::Access, state::Shared};

/// One line of the table.
pub(crate) struct Route {
    #[cfg_attr(not(test), expect(dead_code, reason = "the handler holds it; tests walk the table by it"))]
    pub(crate) method: Method,
    pub(crate) path: &'static str,
    pub(crate) access: Access,
    /// The entry in the audit log that it leaves when it did what was asked; one at most.
    #[cfg_attr(not(test), expect(dead_code, reason = "the handler writes it; tests hold it to this"))]
    pub(crate) leaf: Option<AuditKind>,
    pub(super) handler: MethodRouter<Arc<Shared>>,
}

fn route<H, T>(method: Method, path: &'static str, access: Access, leaf: Option<AuditKind>, handler: H) -> Route
where
    H: Handler<T, Arc<Shared>>,
    T: 'static,
{
    let filter = match method {
        Method::POST => MethodFilter::POST,
        Method::PUT => MethodFilter::PUT,
        Method::PATCH => MethodFilter::PATCH,
        Method::DELETE => MethodFilter::DELETE,
        // GET answers HEAD as well.
        _ => MethodFilter::GET,
    };
    Route { method, path, access, leaf, handler: on(filter, handler) }
}

const OPEN: Access = Access::Open;
const VIEWER: Access = Access::Role(Viewer);
/// Signed in, not by an API token.
const PERSON: Access = Access::Person(Viewer);
const PERSON_ADMIN: Access = Access::Person(Admin);
const OPERATOR: Access = Access::Role(Operator);
const ADMIN: Access = Access::Role(Admin);
const OWNER: Access = Access::Role(Owner);
/// Leaves nothing in the audit log.
const NO_LEAF: Option<AuditKind> = None;
const ACCOUNT: Option<AuditKind> = Some(AuditKind::AccountChange);
const GET: Method = Method::GET;
const POST: Method = Method::POST;
const PATCH: Method = Method::PATCH;
const PUT: Method = Method::PUT;
const DELETE: Method = Method::DELETE;

const RELEASE: &str = "/api/v1/hosts/{name}/quarantine/release";

/// The table.
pub(crate) fn table() -> Vec<Route> {
    [open(), people(), hosts(), keys(), work(), standing_orders(), log()].into_iter().flatten().collect()
}

fn open() -> Vec<Route> {
    vec![
        route(GET, "/", OPEN, NO_LEAF, page::landing),
        route(GET, "/health", OPEN, NO_LEAF, health::health),
        route(GET, "/metrics", OPEN, NO_LEAF, health::metrics),
        route(GET, "/agents/{sha256}", OPEN, NO_LEAF, agents::program),
        route(GET, "/api/v1/openapi.json", OPEN, NO_LEAF, openapi::document),
        route(POST, "/api/v1/session", OPEN, Some(AuditKind::SignIn), session::sign_in),
    ]
}

fn people() -> Vec<Route> {
    vec![
        route(GET, "/api/v1/session", VIEWER, NO_LEAF, session::who_am_i),
        route(DELETE, "/api/v1/session", PERSON, Some(AuditKind::SignOut), session::sign_out),
        route(GET, "/api/v1/users", ADMIN, NO_LEAF, users::list),
        route(POST, "/api/v1/users", PERSON_ADMIN, ACCOUNT, users::create),
        route(GET, "/api/v1/users/{name}", VIEWER, NO_LEAF, users::show),
        route(DELETE, "/api/v1/users/{name}", PERSON_ADMIN, ACCOUNT, users::delete),
        route(PUT, "/api/v1/users/{name}/role", PERSON_ADMIN, ACCOUNT, users::role_set),
        route(PUT, "/api/v1/users/{name}/password", PERSON, ACCOUNT, users::password_set),
        route(PUT, "/api/v1/users/{name}/approver", PERSON, ACCOUNT, approvals::approver_set),
        route(GET, "/api/v1/approvers", VIEWER, NO_LEAF, approvals::approvers),
        route(POST, "/api/v1/users/{name}/disable", PERSON_ADMIN, ACCOUNT, users::disable),
        route(POST, "/api/v1/users/{name}/enable", PERSON_ADMIN, ACCOUNT, users::enable),
        route(DELETE, "/api/v1/users/{name}/sessions", PERSON, Some(AuditKind::SignOut), sessions::end_all),
        route(GET, "/api/v1/sessions", VIEWER, NO_LEAF, sessions::list),
        route(DELETE, "/api/v1/sessions/{id}", PERSON, Some(AuditKind::SignOut), sessions::end),
        route(GET, "/api/v1/tokens", VIEWER, NO_LEAF, tokens::list),
        route(POST, "/api/v1/tokens", PERSON, ACCOUNT, tokens::create),
        route(DELETE, "/api/v1/tokens/{id}", PERSON, ACCOUNT, tokens::revoke),
    ]
}

fn hosts() -> Vec<Route> {
    vec![
        route(GET, "/api/v1/fleet", VIEWER, NO_LEAF, fleet::info),
        route(GET, "/api/v1/fleet/root", VIEWER, NO_LEAF, fleet::root),
        route(PUT, "/api/v1/fleet/root", OWNER, Some(AuditKind::RootChange), fleet::root_advance),
        route(GET, "/api/v1/recovery", ADMIN, NO_LEAF, restored::status),
        route(POST, "/api/v1/recovery/confirm", OWNER, Some(AuditKind::FleetRestored), restored::confirm),
        route(POST, "/api/v1/recovery/claims", OWNER, Some(AuditKind::FleetRestored), restored::decide),
        route(GET, "/api/v1/agents", VIEWER, NO_LEAF, agents::list),
        route(GET, "/api/v1/hosts", VIEWER, NO_LEAF, hosts::list),
        route(POST, "/api/v1/hosts", ADMIN, Some(AuditKind::TokenIssued), hosts::join_token),
        route(GET, "/api/v1/hosts/{name}", VIEWER, NO_LEAF, hosts::show),
        route(POST, "/api/v1/hosts/{name}/rename", ADMIN, Some(AuditKind::HostRenamed), hosts::rename),
        route(PATCH, "/api/v1/hosts/{name}/labels", ADMIN, Some(AuditKind::HostLabelled), hosts::label),
        route(POST, RELEASE, ADMIN, Some(AuditKind::QuarantineRelease), quarantine::release),
        route(DELETE, "/api/v1/hosts/{name}", ADMIN, Some(AuditKind::HostRevoked), hosts::revoke),
    ]
}

fn keys() -> Vec<Route> {
    let leaf = Some(AuditKind::KeyChange);
    vec![
        route(GET, "/api/v1/keys", VIEWER, NO_LEAF, keys::list),
        route(POST, "/api/v1/keys/{role}/rotation", OWNER, leaf, keys::rotate),
        route(POST, "/api/v1/keys/{role}/rotation/activate", OWNER, leaf, keys::activate),
        route(DELETE, "/api/v1/keys/{role}/rotation", OWNER, leaf, keys::abort),
        route(POST, "/api/v1/keys/command/revocation", OWNER, leaf, keys::revoke),
    ]
}

fn work() -> Vec<Route> {
    vec![
        route(GET, "/api/v1/actions", VIEWER, NO_LEAF, actions::list),
        route(GET, "/api/v1/actions/{name}", VIEWER, NO_LEAF, actions::show),
        route(GET, "/api/v1/operations", VIEWER, NO_LEAF, operations::list),
        route(POST, "/api/v1/operations", VIEWER, Some(AuditKind::Proposal), operations::propose),
        route(GET, "/api/v1/operations/{id}", VIEWER, NO_LEAF, operations::show),
        route(GET, "/api/v1/operations/{id}/events", VIEWER, NO_LEAF, operations::watch),
        route(GET, "/api/v1/operations/{id}/output", VIEWER, NO_LEAF, operations::output),
        route(GET, "/api/v1/operations/{id}/release", ADMIN, NO_LEAF, recovery::release),
        route(PUT, "/api/v1/operations/{id}/recovery", OWNER, Some(AuditKind::SecretsRewrapped), recovery::rewrap),
        route(POST, "/api/v1/operations/{id}/approvals", PERSON, Some(AuditKind::Approval), approvals::approve),
        route(POST, "/api/v1/operations/{id}/denial", PERSON, Some(AuditKind::ApprovalDenied), approvals::deny),
        route(GET, "/api/v1/commands", VIEWER, NO_LEAF, commands::list),
        route(GET, "/api/v1/commands/{id}", VIEWER, NO_LEAF, commands::show),
        route(GET, "/api/v1/commands/{id}/approval", VIEWER, NO_LEAF, approvals::evidence),
        route(GET, "/api/v1/commands/{id}/events", VIEWER, NO_LEAF, commands::watch),
        route(POST, "/api/v1/commands/{id}/cancel", VIEWER, Some(AuditKind::Cancel), commands::cancel),
        route(GET, "/api/v1/apps", VIEWER, NO_LEAF, apps::list),
        route(GET, "/api/v1/apps/{name}", VIEWER, NO_LEAF, apps::show),
    ]
}

fn standing_orders() -> Vec<Route> {
    vec![
        route(GET, "/api/v1/standing-orders", VIEWER, NO_LEAF, standing::list),
        route(POST, "/api/v1/standing-orders", OPERATOR, Some(AuditKind::StandingOrder), standing::install),
        route(POST, "/api/v1/standing-orders/{id}/drop", OPERATOR, Some(AuditKind::Proposal), standing::end),
    ]
}

fn log() -> Vec<Route> {
    vec![
        route(GET, "/api/v1/audit", VIEWER, NO_LEAF, audit::list),
        route(GET, "/api/v1/audit/export", VIEWER, Some(AuditKind::AuditExport), audit::export),
    ]
}
