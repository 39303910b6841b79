//! Every route, without a token and with too low a role. The routes come from the table itself, so
//! a new one is tested from the day it is there; who may use it is a golden file.

use axum::{
    body::Body,
    http::{Method, Request, StatusCode, header},
};
use envelope::audit::AuditKind;
use expect_test::expect_file;
use fleet::model::{UserChange, UserRole};
use ids::DurationMs;
use serde_json::{Value, json};

use super::world::{NOW, World, facts, fresh};
use crate::{access::Access, limits, routes};

fn path(pattern: &str) -> String {
    let id: ids::CommandId = fresh();
    pattern
        .replace("{name}", "some.name")
        .replace("{id}", &id.to_string())
        .replace("{sha256}", &"0".repeat(64))
        .replace("{role}", "session")
}

#[test]
fn who_may_use_what_is_as_written_down() {
    let mut lines = String::new();
    for route in routes::table() {
        let access = match route.access {
            Access::Open => "anyone".to_owned(),
            Access::Role(role) => role.to_string(),
            Access::Person(role) => format!("{role}, signed in"),
        };
        let leaf = route.leaf.map_or("-", AuditKind::as_str);
        lines += &format!("{:6} {:37} {access:20} {leaf}\n", route.method.as_str(), route.path);
    }
    expect_file!["golden/routes.txt"].assert_eq(&lines);
}

#[test]
fn no_line_of_the_table_stands_twice_and_what_changes_something_is_recorded() {
    let mut seen = std::collections::BTreeSet::new();
    for route in routes::table() {
        assert!(seen.insert((route.method.to_string(), route.path)), "{} {}", route.method, route.path);
        assert!(route.method == Method::GET || route.leaf.is_some(), "{} {} leaves nothing", route.method, route.path);
    }
}

/// Every kind of credential that is not taken, and what it is.
async fn not_taken(world: &World) -> Vec<(&'static str, Option<String>)> {
    let (later, early) = (NOW.plus(DurationMs::from_days(1)), NOW);
    let owner = UserRole::Owner;
    let disabled = world.user("disabled", owner).await;
    let disabled_token = world.api_token(&disabled, owner, later).await.0;
    let disabled_session = world.signed_in(&disabled, later).await.0;
    world.change(&disabled, UserChange::Disable(NOW)).await;
    let deleted = world.user("deleted", owner).await;
    let deleted_token = world.api_token(&deleted, owner, later).await.0;
    let deleted_session = world.signed_in(&deleted, later).await.0;
    world.change(&deleted, UserChange::Delete(NOW)).await;
    let (revoked, revoked_id) = world.api_token(&world.user, owner, later).await;
    let ended = world.delete(&format!("/api/v1/tokens/{revoked_id}")).await;
    assert_eq!(ended.status, StatusCode::NO_CONTENT);
    let good = world.api_token(&world.user, owner, later).await.0;
    // The last character holds two bits that are zero in what was made; another one is another secret.
    let forged = format!("{}{}", &good[..good.len() - 2], if good.ends_with("AA") { "BA" } else { "AA" });
    vec![
        ("not signed in", None),
        ("empty", Some(String::new())),
        ("of no form", Some("sfs_AAAA".to_owned())),
        ("expired session", Some(world.token_until(early).await)),
        ("session of a disabled account", Some(disabled_session)),
        ("session of a deleted account", Some(deleted_session)),
        ("expired API token", Some(world.api_token(&world.user, owner, early).await.0)),
        ("revoked API token", Some(revoked)),
        ("API token of a disabled account", Some(disabled_token)),
        ("API token of a deleted account", Some(deleted_token)),
        ("API token with another secret", Some(forged)),
    ]
}

#[tokio::test]
async fn nothing_that_needs_a_role_is_answered_without_a_credential_that_is_taken() {
    let world = World::of(UserRole::Owner).await;
    let mut denied = 0;
    let credentials = not_taken(&world).await;
    let before = world.store.audit_position();
    for route in routes::table() {
        if route.access == Access::Open {
            continue;
        }
        for (what, token) in &credentials {
            let path = path(route.path);
            // Not even a body that cannot be read is looked at.
            let request = World::request(route.method.clone(), &path, token.as_deref(), Some(&Value::Null));
            let answer = world.send(request).await;
            assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{} {path} {what}", route.method);
            assert_eq!(answer.problem(), "not-signed-in");
            assert_eq!(answer.header("www-authenticate"), "Bearer");
            denied += 1;
        }
    }
    assert!(denied >= 11 * 30, "{denied}");
    assert_eq!(world.store.audit_position(), before, "refusals are told together, not one by one");
}

#[tokio::test]
async fn a_role_that_is_too_low_is_denied_and_one_that_is_enough_is_not() {
    for role in UserRole::ALL {
        let world = World::of(role).await;
        let token = world.api_token(&world.user, UserRole::Owner, NOW.plus(DurationMs::from_days(1))).await.0;
        for route in routes::table() {
            let (Access::Role(least) | Access::Person(least)) = route.access else { continue };
            // One of its own for each, because some end it.
            let session = world.token_until(NOW.plus(DurationMs::from_days(1))).await;
            for (credential, taken) in [(&session, true), (&token, matches!(route.access, Access::Role(_)))] {
                let path = path(route.path).replace("some.name", "ada");
                let answer = world.send(World::request(route.method.clone(), &path, Some(credential), None)).await;
                let denied = answer.status == StatusCode::FORBIDDEN;
                let what = format!("{role} {} {path}: {answer:?}", route.method);
                // Beside the route, the rule of accounts: nobody but an owner changes an admin's role.
                let beyond = route.path.starts_with("/api/v1/users/") && role == UserRole::Admin;
                assert!(denied || (taken && role >= least), "{what}");
                assert!(!denied || !taken || role < least || beyond, "{what}");
                assert_ne!(answer.status, StatusCode::UNAUTHORIZED, "{what}");
                if denied {
                    assert_eq!(answer.problem(), "not-allowed");
                }
            }
        }
    }
}

#[tokio::test]
async fn what_an_action_needs_is_asked_for_beside_the_route() {
    let world = World::of(UserRole::Viewer).await;
    world.host("alpha").await;
    let answer = world.post("/api/v1/operations", &facts(&["alpha"])).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED, "a viewer may look: {answer:?}");
    let answer = world.post("/api/v1/operations", &super::world::deploy(&["alpha"])).await;
    assert_eq!((answer.status, answer.problem()), (StatusCode::FORBIDDEN, "not-allowed"));
}

#[tokio::test]
async fn unknown_paths_and_methods_are_problems() {
    let world = World::new().await;
    for path in ["/api/v1/secrets", "/api/v2/hosts", "/api/v1/hosts/", "/..%2f", "/favicon.ico", "//"] {
        for token in [None, Some(world.token.as_str())] {
            let answer = world.send(World::request(Method::GET, path, token, None)).await;
            assert_eq!((answer.status, answer.problem()), (StatusCode::NOT_FOUND, "not-found"), "{path}");
        }
    }
    let answer = world.send(World::request(Method::PUT, "/api/v1/hosts", Some(&world.token), None)).await;
    assert_eq!((answer.status, answer.problem()), (StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed"));
    assert!(answer.header("allow").contains("GET") && answer.header("allow").contains("POST"), "{answer:?}");
    let answer = world.send(World::request(Method::OPTIONS, "/api/v1/hosts", None, None)).await;
    assert_eq!(answer.status, StatusCode::METHOD_NOT_ALLOWED);
    assert!(answer.headers.get("access-control-allow-origin").is_none(), "no CORS");
}

#[tokio::test]
async fn other_peoples_names_for_this_server_are_refused_everywhere() {
    let world = World::new().await;
    for route in routes::table() {
        let mut request = World::request(route.method.clone(), &path(route.path), Some(&world.token), None);
        request.headers_mut().insert(header::HOST, "rebound.example:8080".parse().unwrap());
        let answer = world.send(request).await;
        assert_eq!(
            (answer.status, answer.problem()),
            (StatusCode::MISDIRECTED_REQUEST, "wrong-host"),
            "{}",
            route.path
        );
    }
    let mut request = World::request(Method::GET, "/health", None, None);
    request.headers_mut().insert(header::HOST, "Control.Example.Org".parse().unwrap());
    assert_eq!(world.send(request).await.status, StatusCode::OK);
}

#[tokio::test]
async fn every_answer_carries_the_careful_headers() {
    let world = World::new().await;
    for path in ["/", "/health", "/metrics", "/api/v1/fleet", "/api/v1/nothing"] {
        let answer = world.get(path).await;
        for (name, value) in
            [("x-content-type-options", "nosniff"), ("x-frame-options", "DENY"), ("cache-control", "no-store")]
        {
            assert_eq!(answer.header(name), value, "{path}");
        }
        let policy = answer.header("content-security-policy");
        assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"), "{path}: {policy}");
        assert!(!answer.header("x-request-id").is_empty());
    }
}

#[tokio::test]
async fn bodies_that_are_too_large_or_no_json_are_problems() {
    let world = World::new().await;
    let post = |body: Body, typed: bool| {
        let mut request = World::request(Method::POST, "/api/v1/operations", Some(&world.token), None);
        if typed {
            request.headers_mut().insert(header::CONTENT_TYPE, "application/json; charset=utf-8".parse().unwrap());
        }
        *request.body_mut() = body;
        request
    };
    let check = async |request: Request<Body>, status: StatusCode, problem: &str| {
        let answer = world.send(request).await;
        assert_eq!((answer.status, answer.problem()), (status, problem), "{answer:?}");
    };
    let large = vec![b' '; limits::BODY_BYTES_MAX + 1];
    check(post(Body::from(large), true), StatusCode::PAYLOAD_TOO_LARGE, "too-large").await;
    check(post(Body::from("{}"), false), StatusCode::UNSUPPORTED_MEDIA_TYPE, "not-json").await;
    check(post(Body::from("{"), true), StatusCode::BAD_REQUEST, "request-unreadable").await;
    check(post(Body::from("{}"), true), StatusCode::UNPROCESSABLE_ENTITY, "invalid").await;
}

#[tokio::test]
async fn metrics_health_and_the_page_are_for_anyone_and_tell_no_secret() {
    let world = World::new().await;
    world.host("alpha").await;
    world.get("/api/v1/hosts/alpha").await;
    let open = async |path: &str| world.send(World::request(Method::GET, path, None, None)).await;
    assert_eq!(open("/health").await.json, json!({ "status": "ok" }));
    let metrics = open("/metrics").await.text;
    for line in [
        "serverflow_agent_sessions 3",
        "serverflow_http_requests_total{method=\"GET\",route=\"/api/v1/hosts/{name}\",status=\"200\"} 1",
        "serverflow_command_events_total{status=\"rolled_back\"} 0",
        "serverflow_http_response_time_seconds_count{method=\"GET\",route=\"/health\"} 1",
        "serverflow_audit_entries 4",
        "# EOF",
    ] {
        assert!(metrics.lines().any(|found| found == line), "{line} in {metrics}");
    }
    assert!(!metrics.contains("alpha"), "routes, not paths");
    let page = open("/").await;
    assert!(page.text.contains("serverflow login") && page.text.contains("0.1.0-test"));
    assert!(!page.text.contains("{{") && !page.text.contains("<script") && !page.text.contains("://cdn"));
    let style = page.text.split("<style>").nth(1).and_then(|rest| rest.split("</style>").next()).unwrap();
    let hash = data_encoding::BASE64.encode(ids::sha256(style.as_bytes()).as_bytes());
    assert!(page.header("content-security-policy").contains(&format!("'sha256-{hash}'")), "the style is allowed");
}
