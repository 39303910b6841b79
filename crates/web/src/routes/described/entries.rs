//! The entries, in the order of the table.

use api::{
    ActionSummary, AgentProgram, AppDetail, AppSummary, ApprovalEvidence, ApprovalRequest, ApproverRequest,
    ApproverSummary, AuditEntry, AuditExport, CancelRequest, CancelResponse, CommandDetail, CommandSummary,
    DenialRequest, Event, FleetInfo, FleetRoot, FleetRootRequest, Health, HostDetail, HostLabelRequest,
    HostReleaseRequest, HostReleaseResponse, HostRenameRequest, HostSummary, JoinTokenRequest, JoinTokenResponse,
    KeyChangeSummary, KeyList, KeyRevocationRequest, KeyRole, OperationRequest, OperationResponse, OperationSummary,
    Page, RecoveryClaimsRequest, RecoveryConfirmRequest, RecoveryRewrapRequest, RecoveryStatus, ReleaseDetail,
    SessionSummary, SignInRequest, SignInResponse, StandingDropRequest, StandingOrderRequest, StandingOrderSummary,
    TokenRequest, TokenResponse, TokenSummary, UserCreateRequest, UserPasswordRequest, UserRoleRequest, UserSummary,
    WhoAmI,
};
use axum::http::Method;
use ids::{
    ActionName, ApiTokenId, AppName, CommandId, HostName, OperationId, SessionId, Sha256, StandingOrderId, UserName,
};
use serde_json::Value;

use super::{Content, Operation};
use crate::{
    metrics,
    problem::Kind::{
        ActionMissing, ActionNotFound, AgentNotFound, AppNotFound, ApprovedAlready, Busy, Changed, CommandEnded,
        CommandNotFound, HostExists, HostNotActive, HostNotFound, Invalid, KeyChangeNotFound, KeyChangeOpen, KeyTaken,
        KeysUnavailable, LastOwner, LimitReached, NothingHeld, OperationConflict, OperationNotFound, OwnAccount,
        Recovering, RootKeyInUse, RootNotNext, RootRefused, SessionNotFound, SignInRefused, TokenNotFound,
        TooManyDownloads, TooManySignIns, UserExists, UserNotFound,
    },
    routes::{apps, audit, commands, hosts, operations, sessions, tokens, users},
};

/// One for each route.
pub(crate) fn operations() -> Vec<Operation> {
    [
        open(),
        own(),
        users(),
        sessions_and_tokens(),
        hosts(),
        keys(),
        operations_and_apps(),
        approvals(),
        commands(),
        standing_orders(),
        log(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn get(path: &'static str, id: &'static str, summary: &'static str) -> Operation {
    Operation::new(Method::GET, path, id, summary)
}
fn post(path: &'static str, id: &'static str, summary: &'static str) -> Operation {
    Operation::new(Method::POST, path, id, summary)
}
fn put(path: &'static str, id: &'static str, summary: &'static str) -> Operation {
    Operation::new(Method::PUT, path, id, summary)
}
fn delete(path: &'static str, id: &'static str, summary: &'static str) -> Operation {
    Operation::new(Method::DELETE, path, id, summary).answer(204, Content::Nothing)
}

fn open() -> Vec<Operation> {
    let html = Content::Text("text/html; charset=utf-8");
    vec![
        get("/", "landing_page_show", "A page for people").answer(200, html),
        get("/health", "health_show", "Whether the control plane can do its work").json::<Health>(200),
        get("/metrics", "metrics_show", "Metrics, for Prometheus").answer(200, Content::Text(metrics::CONTENT_TYPE)),
        get("/agents/{sha256}", "agent_download", "An agent's program")
            .at::<Sha256>()
            .answer(200, Content::Bytes)
            .may_be(&[AgentNotFound, TooManyDownloads, Busy]),
        get("/api/v1/openapi.json", "openapi_show", "This document").json::<Value>(200),
        post("/api/v1/session", "session_create", "Sign in with a password")
            .takes::<SignInRequest>()
            .json::<SignInResponse>(201)
            .may_be(&[SignInRefused, TooManySignIns, Busy]),
    ]
}

fn own() -> Vec<Operation> {
    vec![
        get("/api/v1/session", "session_show", "Who asks").json::<WhoAmI>(200),
        delete("/api/v1/session", "session_end", "Sign out"),
    ]
}

fn users() -> Vec<Operation> {
    let changed = [UserNotFound, OwnAccount, LastOwner, Changed];
    vec![
        get("/api/v1/users", "user_list", "Accounts").page::<users::Filter, Page<UserSummary>>(&users::LIST),
        post("/api/v1/users", "user_create", "Make an account")
            .takes::<UserCreateRequest>()
            .json::<UserSummary>(201)
            .may_be(&[UserExists, LimitReached, Busy]),
        get("/api/v1/users/{name}", "user_show", "One account: the own one, or any for admins")
            .at::<UserName>()
            .json::<UserSummary>(200)
            .may_be(&[UserNotFound]),
        delete("/api/v1/users/{name}", "user_delete", "Delete an account").at::<UserName>().may_be(&changed),
        put("/api/v1/users/{name}/role", "user_role_set", "Give an account another role")
            .at::<UserName>()
            .takes::<UserRoleRequest>()
            .json::<UserSummary>(200)
            .may_be(&changed),
        put("/api/v1/users/{name}/password", "user_password_set", "Set an account's password; its sessions end")
            .at::<UserName>()
            .takes::<UserPasswordRequest>()
            .json::<UserSummary>(200)
            .may_be(&changed)
            .may_be(&[TooManySignIns, Busy]),
        put("/api/v1/users/{name}/approver", "user_approver_set", "Register the own approver key")
            .at::<UserName>()
            .takes::<ApproverRequest>()
            .json::<ApproverSummary>(200)
            .may_be(&[KeyTaken]),
        get("/api/v1/approvers", "approver_list", "Approver keys: the own one, or all for admins")
            .json::<Vec<ApproverSummary>>(200),
        post("/api/v1/users/{name}/disable", "user_disable", "Let nobody in with an account")
            .at::<UserName>()
            .json::<UserSummary>(200)
            .may_be(&changed),
        post("/api/v1/users/{name}/enable", "user_enable", "Let an account in again")
            .at::<UserName>()
            .json::<UserSummary>(200)
            .may_be(&changed),
    ]
}

fn sessions_and_tokens() -> Vec<Operation> {
    vec![
        delete("/api/v1/users/{name}/sessions", "user_sessions_end", "End all sessions of an account")
            .at::<UserName>()
            .may_be(&[UserNotFound, Changed]),
        get("/api/v1/sessions", "session_list", "Open sessions of an account, the own one unless asked otherwise")
            .page::<sessions::Filter, Page<SessionSummary>>(&sessions::LIST)
            .may_be(&[UserNotFound]),
        delete("/api/v1/sessions/{id}", "session_end_one", "End a session")
            .at::<SessionId>()
            .may_be(&[SessionNotFound, Changed]),
        get("/api/v1/tokens", "token_list", "API tokens of an account, the own one unless asked otherwise")
            .page::<tokens::Filter, Page<TokenSummary>>(&tokens::LIST)
            .may_be(&[UserNotFound]),
        post("/api/v1/tokens", "token_create", "Make an API token of the own account")
            .takes::<TokenRequest>()
            .json::<TokenResponse>(201)
            .may_be(&[LimitReached]),
        delete("/api/v1/tokens/{id}", "token_revoke", "Revoke an API token")
            .at::<ApiTokenId>()
            .may_be(&[TokenNotFound, Changed]),
    ]
}

fn hosts() -> Vec<Operation> {
    let labels = "/api/v1/hosts/{name}/labels";
    vec![
        get("/api/v1/fleet", "fleet_show", "The fleet as a whole").json::<FleetInfo>(200),
        get("/api/v1/fleet/root", "fleet_root_show", "What signed things are verified from").json::<FleetRoot>(200),
        put("/api/v1/fleet/root", "fleet_root_advance", "Put the next root metadata in force")
            .takes::<FleetRootRequest>()
            .json::<FleetRoot>(200)
            .may_be(&[RootRefused, RootNotNext, RootKeyInUse, Recovering]),
        get("/api/v1/recovery", "recovery_show", "How far a restore from a backup is").json::<RecoveryStatus>(200),
        post("/api/v1/recovery/confirm", "recovery_confirm", "Confirm which hosts are revoked, after a restore")
            .takes::<RecoveryConfirmRequest>()
            .json::<RecoveryStatus>(200)
            .may_be(&[HostNotFound, Recovering, Changed]),
        post(
            "/api/v1/recovery/claims",
            "recovery_claims_decide",
            "Take hosts back that showed who they are, or refuse them",
        )
        .takes::<RecoveryClaimsRequest>()
        .json::<RecoveryStatus>(200)
        .may_be(&[Recovering, Changed]),
        get("/api/v1/agents", "agent_list", "Agent programs that are served").json::<Vec<AgentProgram>>(200),
        get("/api/v1/hosts", "host_list", "Hosts").page::<hosts::Filter, Page<HostSummary>>(&hosts::LIST),
        post("/api/v1/hosts", "host_join_token_create", "Make a join token for a new host")
            .takes::<JoinTokenRequest>()
            .json::<JoinTokenResponse>(201)
            .may_be(&[HostExists, Recovering, Changed]),
        get("/api/v1/hosts/{name}", "host_show", "One host")
            .at::<HostName>()
            .json::<HostDetail>(200)
            .may_be(&[HostNotFound]),
        post("/api/v1/hosts/{name}/rename", "host_rename", "Give a host another name")
            .at::<HostName>()
            .takes::<HostRenameRequest>()
            .json::<HostSummary>(200)
            .may_be(&[HostNotFound, HostNotActive, HostExists, Changed]),
        Operation::new(Method::PATCH, labels, "host_labels_change", "Set labels of a host and take some away")
            .at::<HostName>()
            .takes::<HostLabelRequest>()
            .json::<HostSummary>(200)
            .may_be(&[HostNotFound, HostNotActive, Changed]),
        post("/api/v1/hosts/{name}/quarantine/release", "host_quarantine_release", "End a host's quarantine")
            .at::<HostName>()
            .takes::<HostReleaseRequest>()
            .json::<HostReleaseResponse>(202)
            .may_be(&[HostNotFound, HostNotActive, Changed]),
        delete("/api/v1/hosts/{name}", "host_revoke", "Revoke a host, for good")
            .at::<HostName>()
            .may_be(&[HostNotFound, Changed]),
    ]
}

fn keys() -> Vec<Operation> {
    vec![
        get("/api/v1/keys", "key_list", "The control plane's own keys, and changes of them").json::<KeyList>(200),
        post("/api/v1/keys/{role}/rotation", "key_rotate", "Begin a change of one of them, or look how far it is")
            .at::<KeyRole>()
            .json::<KeyChangeSummary>(200)
            .may_be(&[KeyChangeOpen, KeysUnavailable, Changed]),
        post("/api/v1/keys/{role}/rotation/activate", "key_activate", "Use the new key without waiting for more hosts")
            .at::<KeyRole>()
            .json::<KeyChangeSummary>(200)
            .may_be(&[KeyChangeNotFound, KeyChangeOpen]),
        Operation::new(Method::DELETE, "/api/v1/keys/{role}/rotation", "key_rotation_abort", "Give a change up")
            .at::<KeyRole>()
            .json::<KeyChangeSummary>(200)
            .may_be(&[KeyChangeNotFound, KeyChangeOpen]),
        post("/api/v1/keys/command/revocation", "key_revoke", "Make ready to shut out a stolen command key")
            .takes::<KeyRevocationRequest>()
            .json::<KeyChangeSummary>(200)
            .may_be(&[KeysUnavailable, Changed]),
    ]
}

fn operations_and_apps() -> Vec<Operation> {
    let proposed = [HostNotFound, HostNotActive, ActionMissing, ActionNotFound, AppNotFound, OperationConflict];
    vec![
        get("/api/v1/actions", "action_list", "What can be asked of hosts").json::<Vec<ActionSummary>>(200),
        get("/api/v1/actions/{name}", "action_show", "The newest version of an action")
            .at::<ActionName>()
            .json::<ActionSummary>(200)
            .may_be(&[ActionNotFound]),
        get("/api/v1/operations", "operation_list", "Operations")
            .page::<operations::Filter, Page<OperationSummary>>(&operations::LIST),
        post("/api/v1/operations", "operation_create", "Ask for something; a change needs an operator")
            .takes::<OperationRequest>()
            .json::<OperationResponse>(202)
            .json::<OperationResponse>(200)
            .may_be(&proposed)
            .may_be(&[Changed, Recovering, Busy]),
        get("/api/v1/operations/{id}", "operation_show", "An operation as it stands")
            .at::<OperationId>()
            .json::<OperationResponse>(200)
            .may_be(&[OperationNotFound]),
        get("/api/v1/operations/{id}/events", "operation_watch", "What happens to an operation, as it happens")
            .at::<OperationId>()
            .answer(200, Content::Events(super::schema_of::<Event>()))
            .may_be(&[OperationNotFound, Busy]),
        get("/api/v1/operations/{id}/output", "operation_output_follow", "What its commands say, while somebody reads")
            .at::<OperationId>()
            .answer(200, Content::Events(super::schema_of::<Event>()))
            .may_be(&[OperationNotFound, Invalid, OperationConflict, Busy]),
        get("/api/v1/operations/{id}/release", "release_show", "What a deploy was made of, with its recovery copy")
            .at::<OperationId>()
            .json::<ReleaseDetail>(200)
            .may_be(&[OperationNotFound]),
        put(
            "/api/v1/operations/{id}/recovery",
            "recovery_rewrap",
            "Seal a deploy's secrets to the recovery keys of today",
        )
        .at::<OperationId>()
        .takes::<RecoveryRewrapRequest>()
        .json::<ReleaseDetail>(200)
        .may_be(&[OperationNotFound, Invalid, Changed]),
        get("/api/v1/apps", "app_list", "Apps and where they are")
            .page::<apps::Filter, Page<AppSummary>>(&apps::LIST)
            .may_be(&[HostNotFound]),
        get("/api/v1/apps/{name}", "app_show", "One app and its last results")
            .at::<AppName>()
            .json::<AppDetail>(200)
            .may_be(&[AppNotFound]),
    ]
}

/// What hosts do by themselves.
fn standing_orders() -> Vec<Operation> {
    vec![
        get("/api/v1/standing-orders", "standing_order_list", "What hosts run by themselves at set times").json::<Vec<
            StandingOrderSummary,
        >>(
            200
        ),
        post("/api/v1/standing-orders", "standing_order_install", "Have a standing order signed and installed")
            .takes::<StandingOrderRequest>()
            .json::<OperationResponse>(202)
            .json::<OperationResponse>(200)
            .may_be(&[HostNotFound, HostNotActive, ActionMissing, ActionNotFound, OperationConflict])
            .may_be(&[KeysUnavailable, Changed, Recovering]),
        post("/api/v1/standing-orders/{id}/drop", "standing_order_drop", "Have a standing order dropped")
            .at::<StandingOrderId>()
            .takes::<StandingDropRequest>()
            .json::<OperationResponse>(202)
            .json::<OperationResponse>(200)
            .may_be(&[HostNotFound, HostNotActive, ActionMissing, Changed, Recovering]),
    ]
}

/// What a second person says.
fn approvals() -> Vec<Operation> {
    vec![
        post("/api/v1/operations/{id}/approvals", "operation_approve", "Approve what an operation holds")
            .at::<OperationId>()
            .takes::<ApprovalRequest>()
            .json::<OperationResponse>(200)
            .may_be(&[OperationNotFound, NothingHeld, ApprovedAlready, Changed]),
        post("/api/v1/operations/{id}/denial", "operation_deny", "End what an operation holds")
            .at::<OperationId>()
            .may_take::<DenialRequest>()
            .json::<OperationResponse>(200)
            .may_be(&[OperationNotFound, NothingHeld, Invalid, Changed]),
        get("/api/v1/commands/{id}/approval", "command_approval_show", "What whoever approves a command must see")
            .at::<CommandId>()
            .json::<ApprovalEvidence>(200)
            .may_be(&[CommandNotFound, HostNotFound, OperationNotFound]),
    ]
}

fn commands() -> Vec<Operation> {
    let cancelled = [CommandNotFound, CommandEnded, HostNotFound, HostNotActive, ActionMissing, OperationConflict];
    vec![
        get("/api/v1/commands", "command_list", "Commands")
            .page::<commands::Filter, Page<CommandSummary>>(&commands::LIST)
            .may_be(&[HostNotFound]),
        get("/api/v1/commands/{id}", "command_show", "One command, with what was signed")
            .at::<CommandId>()
            .json::<CommandDetail>(200)
            .may_be(&[CommandNotFound, HostNotFound]),
        get("/api/v1/commands/{id}/events", "command_watch", "What happens to a command, as it happens")
            .at::<CommandId>()
            .answer(200, Content::Events(super::schema_of::<Event>()))
            .may_be(&[CommandNotFound, Busy]),
        post("/api/v1/commands/{id}/cancel", "command_cancel", "Stop a command; needs what the command needed")
            .at::<CommandId>()
            .may_take::<CancelRequest>()
            .json::<CancelResponse>(200)
            .json::<CancelResponse>(202)
            .may_be(&cancelled)
            .may_be(&[Changed, Recovering, Invalid]),
    ]
}

fn log() -> Vec<Operation> {
    vec![
        get("/api/v1/audit", "audit_list", "The audit log").page::<audit::Filter, Page<AuditEntry>>(&audit::LIST),
        get("/api/v1/audit/export", "audit_export", "The whole audit log with what proves it").json::<AuditExport>(200),
    ]
}
