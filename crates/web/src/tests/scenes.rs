//! One request for each route that does what the route is there for, and what must stand before it.
//! The audit tests walk the table by it; a route without a scene fails them.

use axum::{
    body::Body,
    http::{Method, Request},
};
use envelope::messages::ReportStatus;
use fleet::{
    keys::ChangeState,
    model::{UserChange, UserRole},
    ports::AppChange,
};
use ids::DurationMs;
use serde_json::{Value, json};

use super::world::{NEW_PASSWORD, NOW, PASSWORD, World, command_ids, facts, follow, fresh};
use crate::routes::Route;

/// A request that will be granted.
pub(super) struct Scene {
    pub(super) request: Request<Body>,
    /// Words in the subject of the entry it leaves, if it leaves one.
    pub(super) subject: String,
}

/// The scene of a route, with everything in place. The world's account is `ada`; what has to be there
/// is made behind the API, so that it does not matter what she may do.
pub(super) async fn scene(world: &World, route: &Route) -> Option<Scene> {
    let request =
        |path: &str, body: Option<Value>| World::request(route.method.clone(), path, Some(&world.token), body.as_ref());
    let plain = |path: &str| Scene { request: request(path, None), subject: String::new() };
    let with = |path: &str, body: Option<Value>, subject: &str| Scene {
        request: request(path, body),
        subject: subject.to_owned(),
    };
    Some(match (&route.method, route.path) {
        (&Method::GET, path) => plain(&read(world, path).await?),
        (&Method::POST, "/api/v1/session") => {
            with(route.path, Some(json!({ "name": "ada", "password": PASSWORD })), "user ada")
        }
        (&Method::DELETE, "/api/v1/session") => with(route.path, None, "user ada"),
        (&Method::PUT, "/api/v1/users/{name}/approver")
        | (&Method::POST, "/api/v1/operations/{id}/approvals" | "/api/v1/operations/{id}/denial") => {
            let (path, body, subject) = approvals(world, route.path).await;
            with(&path, Some(body), &subject)
        }
        (method, path) if path.starts_with("/api/v1/users") => {
            let body = account(world, method, path).await;
            with(&path.replace("{name}", "bob"), body, "user bob")
        }
        (&Method::DELETE, "/api/v1/sessions/{id}") => {
            let (_, id) = world.signed_in(&world.user, NOW.plus(DurationMs::from_days(1))).await;
            with(&format!("/api/v1/sessions/{id}"), None, &format!("session {id}"))
        }
        (&Method::POST, "/api/v1/tokens") => with(route.path, Some(json!({ "name": "ci" })), "user ada: API token"),
        (&Method::DELETE, "/api/v1/tokens/{id}") => {
            let (_, id) = world.api_token(&world.user, UserRole::Viewer, NOW.plus(DurationMs::from_days(1))).await;
            with(&format!("/api/v1/tokens/{id}"), None, &format!("API token {id}"))
        }
        (&Method::PUT, "/api/v1/fleet/root") => {
            with(route.path, Some(super::root::request(world, &[])), "root metadata version 2")
        }
        (&Method::POST, "/api/v1/recovery/confirm") => super::restored::scene(world, route).await,
        (&Method::POST, "/api/v1/recovery/claims") => super::claims::scene(world, route).await,
        (&Method::POST, "/api/v1/keys/{role}/rotation") => with("/api/v1/keys/session/rotation", None, "session key"),
        (&Method::POST, "/api/v1/keys/command/revocation") => {
            with(route.path, Some(json!({ "key": world.root.current().command_keys[0].to_string() })), "shut out")
        }
        (_, path) if path.starts_with("/api/v1/keys/") => {
            world.key_change(ChangeState::Published).await;
            with(&path.replace("{role}", "session"), None, "session key")
        }
        (_, path) if path.starts_with("/api/v1/hosts") => return host(world, route).await,
        _ => {
            let (path, body, subject) = work(world, route).await?;
            with(&path, Some(body), &subject)
        }
    })
}

/// The same of what is asked of hosts: path, body and subject.
async fn work(world: &World, route: &Route) -> Option<(String, Value, String)> {
    Some(match (&route.method, route.path) {
        (&Method::POST, "/api/v1/operations") => {
            world.host("alpha").await;
            let body = facts(&["alpha"]);
            let subject = format!("operation {}", body["operation_id"].as_str().unwrap());
            (route.path.to_owned(), body, subject)
        }
        (&Method::PUT, "/api/v1/operations/{id}/recovery") => {
            let id = super::recovery::deployed(world).await;
            let body = super::recovery::rewrap_request(world, id, &[1]).await;
            (format!("/api/v1/operations/{id}/recovery"), body, "secrets of shop".to_owned())
        }
        (&Method::POST, "/api/v1/standing-orders") => {
            world.host("alpha").await;
            (route.path.to_owned(), super::standing::request("alpha"), "on host alpha, revision 1".to_owned())
        }
        (&Method::POST, "/api/v1/standing-orders/{id}/drop") => {
            world.host("alpha").await;
            // Also of one that is not on record.
            let (id, operation): (ids::StandingOrderId, ids::OperationId) = (fresh(), fresh());
            let body = json!({ "operation_id": operation, "host": "alpha" });
            (format!("/api/v1/standing-orders/{id}/drop"), body, format!("operation {operation}"))
        }
        (&Method::POST, "/api/v1/commands/{id}/cancel") => {
            world.host("alpha").await;
            let command = command_ids(&world.post("/api/v1/operations", &facts(&["alpha"])).await)[0];
            (format!("/api/v1/commands/{command}/cancel"), json!({}), format!("command {command}"))
        }
        _ => return None,
    })
}

/// A host, or about to be one.
async fn host(world: &World, route: &Route) -> Option<Scene> {
    let (verb, path) = (&route.method, route.path.replace("{name}", "alpha"));
    let host = world.host("alpha").await;
    let (body, subject) = match (verb, route.path.rsplit('/').next()?) {
        (&Method::POST, "hosts") => (Some(json!({ "name": "beta" })), "for host beta"),
        (&Method::POST, "rename") => (Some(json!({ "name": "omega" })), "is now omega"),
        (&Method::PATCH, "labels") => (Some(json!({ "labels": { "env": "prod" } })), "host alpha"),
        (&Method::POST, "release") => {
            world.quarantine(&host, true).await;
            (Some(json!({})), "host alpha")
        }
        (&Method::DELETE, _) => (None, "host alpha"),
        _ => return None,
    };
    let request = World::request(verb.clone(), &path, Some(&world.token), body.as_ref());
    Some(Scene { request, subject: subject.to_owned() })
}

/// What is asked for about bob, who is there unless he is to be made.
async fn account(world: &World, method: &Method, path: &str) -> Option<Value> {
    if method != Method::POST || path != "/api/v1/users" {
        let bob = world.user("bob", UserRole::Viewer).await;
        world.signed_in(&bob, NOW.plus(DurationMs::from_days(1))).await;
        if path.ends_with("/enable") {
            world.change(&bob, UserChange::Disable(NOW)).await;
        }
    }
    match path.rsplit('/').next() {
        Some("users") => Some(json!({ "name": "bob", "role": "viewer", "password": NEW_PASSWORD })),
        Some("role") => Some(json!({ "role": "operator" })),
        Some("password") => Some(json!({ "password": NEW_PASSWORD })),
        _ => None,
    }
}

/// What somebody says as a second person: where, what, and what is then recorded about.
async fn approvals(world: &World, path: &str) -> (String, Value, String) {
    if path.ends_with("/approver") {
        let public = super::approvals::approver(0).public().to_string();
        return (path.replace("{name}", "ada"), json!({ "public_key": public }), "user ada".to_owned());
    }
    let held = super::approvals::held(world, 2).await;
    super::approvals::ada_approves(world).await;
    let body = match path.ends_with("/approvals") {
        true => super::approvals::body(world, &held, 0).await,
        false => json!({ "because": "not today" }),
    };
    let operation = held.operation.to_string();
    (path.replace("{id}", &operation), body, format!("operation {operation}"))
}

/// Where to read something that is there.
async fn read(world: &World, pattern: &str) -> Option<String> {
    if !pattern.contains('{') {
        return Some(pattern.to_owned());
    }
    if pattern == "/agents/{sha256}" {
        std::fs::write(world.agent_file(), "program").unwrap();
        return Some(pattern.replace("{sha256}", &ids::sha256(b"program").to_string()));
    }
    let name = match pattern.strip_prefix("/api/v1/")?.split('/').next()? {
        "hosts" => {
            world.host("alpha").await;
            "alpha".to_owned()
        }
        "actions" => "host.facts".to_owned(),
        "users" => "ada".to_owned(),
        "apps" => {
            app(world).await;
            "shop".to_owned()
        }
        // Ended, so that their streams of events end.
        "operations" if pattern.ends_with("/output") => ended(world, &follow(&["alpha"])).await.0,
        "operations" if pattern.ends_with("/release") => super::recovery::deployed(world).await.to_string(),
        "operations" => ended(world, &facts(&["alpha"])).await.0,
        "commands" if pattern.ends_with("/approval") => super::approvals::held(world, 1).await.command.to_string(),
        "commands" => ended(world, &facts(&["alpha"])).await.1,
        _ => return None,
    };
    Some(pattern.replace("{name}", &name).replace("{id}", &name))
}

/// An operation and its one command, which has succeeded.
async fn ended(world: &World, request: &Value) -> (String, String) {
    world.host("alpha").await;
    let answer = world.post("/api/v1/operations", request).await;
    let command = command_ids(&answer)[0];
    world.start(command).await;
    world.settle(command, (ReportStatus::Succeeded, "done", json!({})), Vec::new(), None).await.unwrap();
    (answer.json["operation_id"].as_str().unwrap().to_owned(), command.to_string())
}

/// The app `shop` on the host `alpha`.
async fn app(world: &World) {
    let host = world.host("alpha").await;
    let answer = world.post("/api/v1/operations", &facts(&["alpha"])).await;
    let command = command_ids(&answer)[0];
    world.start(command).await;
    let app = AppChange::Deployed(fleet::model::AppInstance {
        app: "shop".parse().unwrap(),
        host: host.id,
        host_name: host.name,
        release: fresh(),
        deployed_at: NOW,
        state: fleet::model::AppInstanceState::Running,
        result: b"{}".to_vec(),
    });
    world.settle(command, (ReportStatus::Succeeded, "done", json!({})), Vec::new(), Some(app)).await.unwrap();
}
