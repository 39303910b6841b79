//! Accounts, their sessions and API tokens, and how often one may ask.

use axum::http::{Method, StatusCode};
use fleet::{
    model::{UserChange, UserRole},
    ports::Store as _,
};
use ids::DurationMs;
use serde_json::{Value, json};

use super::world::{Answer, NEW_PASSWORD, NOW, PASSWORD, World, facts};
use crate::limits;

const DAY: DurationMs = DurationMs::from_days(1);

async fn put(world: &World, path: &str, body: &Value) -> Answer {
    world.send(World::request(Method::PUT, path, Some(&world.token), Some(body))).await
}

async fn with(world: &World, token: &str, path: &str) -> Answer {
    world.send(World::request(Method::GET, path, Some(token), None)).await
}

async fn signs_in(world: &World, name: &str, password: &str) -> Option<String> {
    let body = json!({ "name": name, "password": password });
    let answer = world.send(World::request(Method::POST, "/api/v1/session", None, Some(&body))).await;
    answer.json["token"].as_str().map(str::to_owned)
}

#[tokio::test]
async fn an_account_lives_from_its_making_to_its_end() {
    let world = World::of(UserRole::Owner).await;
    let body = json!({ "name": "bob", "role": "operator", "password": PASSWORD });
    let made = world.post("/api/v1/users", &body).await;
    assert_eq!((made.status, &made.json["role"]), (StatusCode::CREATED, &json!("operator")), "{made:?}");
    assert!(!made.text.contains("argon2") && !made.text.contains(PASSWORD), "{}", made.text);
    assert_eq!(world.post("/api/v1/users", &body).await.problem(), "user-exists");
    let token = signs_in(&world, "bob", PASSWORD).await.expect("signed in");
    assert_eq!(with(&world, &token, "/api/v1/session").await.json["role"], "operator");

    let changed = put(&world, "/api/v1/users/bob/role", &json!({ "role": "viewer" })).await;
    assert_eq!(changed.json["role"], "viewer", "{changed:?}");
    assert_eq!(with(&world, &token, "/api/v1/session").await.json["role"], "viewer", "at once");

    let disabled = world.post("/api/v1/users/bob/disable", &json!({})).await;
    assert!(disabled.json["disabled_at"].is_string(), "{disabled:?}");
    assert_eq!(with(&world, &token, "/api/v1/session").await.problem(), "not-signed-in");
    assert_eq!(signs_in(&world, "bob", PASSWORD).await, None);
    world.post("/api/v1/users/bob/enable", &json!({})).await;
    assert_eq!(with(&world, &token, "/api/v1/session").await.problem(), "not-signed-in", "sessions do not come back");
    assert!(signs_in(&world, "bob", PASSWORD).await.is_some());

    assert_eq!(world.delete("/api/v1/users/bob").await.status, StatusCode::NO_CONTENT);
    assert_eq!(signs_in(&world, "bob", PASSWORD).await, None);
    assert_eq!(world.get("/api/v1/users/bob").await.problem(), "user-not-found");
    let again = world.post("/api/v1/users", &body).await;
    assert!(again.problem() == "user-exists" && again.text.contains("is deleted"), "{again:?}");
    let names: Vec<Value> = world.get("/api/v1/users").await.json["items"].as_array().unwrap().clone();
    assert_eq!(names.iter().map(|user| user["name"].as_str().unwrap()).collect::<Vec<_>>(), ["ada"]);
}

#[tokio::test]
async fn admins_look_after_viewers_and_operators_and_owners_after_all() {
    let world = World::of(UserRole::Admin).await;
    world.user("root", UserRole::Owner).await;
    world.user("other", UserRole::Admin).await;
    for name in ["root", "other", "ada"] {
        let path = |more: &str| format!("/api/v1/users/{name}{more}");
        let answers = [
            put(&world, &path("/role"), &json!({ "role": "viewer" })).await,
            world.post(&path("/disable"), &json!({})).await,
            world.delete(&path("")).await,
        ];
        assert!(answers.iter().all(|answer| answer.problem() == "not-allowed"), "{answers:?}");
    }
    for role in ["admin", "owner"] {
        let body = json!({ "name": "new", "role": role, "password": PASSWORD });
        assert_eq!(world.post("/api/v1/users", &body).await.problem(), "not-allowed");
    }
    let reset = put(&world, "/api/v1/users/root/password", &json!({ "password": NEW_PASSWORD })).await;
    assert_eq!(reset.problem(), "not-allowed");
    assert!(signs_in(&world, "root", PASSWORD).await.is_some());
}

#[tokio::test]
async fn a_fleet_keeps_an_owner() {
    let world = World::of(UserRole::Owner).await;
    let down = put(&world, "/api/v1/users/ada/role", &json!({ "role": "admin" })).await;
    assert_eq!((down.status, down.problem()), (StatusCode::CONFLICT, "last-owner"));
    assert_eq!(world.delete("/api/v1/users/ada").await.problem(), "own-account");
    let second = world.user("second", UserRole::Owner).await;
    world.change(&second, UserChange::Disable(NOW)).await;
    let down = put(&world, "/api/v1/users/ada/role", &json!({ "role": "admin" })).await;
    assert_eq!(down.problem(), "last-owner", "a disabled one does not count");
    world.post("/api/v1/users/second/enable", &json!({})).await;
    assert_eq!(put(&world, "/api/v1/users/ada/role", &json!({ "role": "admin" })).await.status, StatusCode::OK);
}

#[tokio::test]
async fn the_own_password_needs_the_old_one_and_every_session_ends() {
    let world = World::of(UserRole::Viewer).await;
    let path = "/api/v1/users/ada/password";
    let missing = put(&world, path, &json!({ "password": NEW_PASSWORD })).await;
    assert_eq!(missing.json["errors"][0]["field"], "old_password");
    let wrong = put(&world, path, &json!({ "password": NEW_PASSWORD, "old_password": "wrong" })).await;
    assert_eq!((wrong.problem(), &wrong.json["errors"][0]["field"]), ("invalid", &json!("old_password")));
    let short = put(&world, path, &json!({ "password": "short", "old_password": PASSWORD })).await;
    assert_eq!(short.json["errors"][0]["field"], "password");
    let other = world.token_until(NOW.plus(DAY)).await;
    let done = put(&world, path, &json!({ "password": NEW_PASSWORD, "old_password": PASSWORD })).await;
    assert_eq!(done.status, StatusCode::OK, "{done:?}");
    for token in [&world.token, &other] {
        assert_eq!(with(&world, token, "/api/v1/session").await.problem(), "not-signed-in");
    }
    assert_eq!(signs_in(&world, "ada", PASSWORD).await, None);
    assert!(signs_in(&world, "ada", NEW_PASSWORD).await.is_some());
}

#[tokio::test]
async fn old_passwords_are_guessed_no_faster_than_at_the_door() {
    let world = World::of(UserRole::Viewer).await;
    let body = json!({ "password": NEW_PASSWORD, "old_password": "wrong" });
    let guess = async || {
        let request = World::request(Method::PUT, "/api/v1/users/ada/password", Some(&world.token), Some(&body));
        world.send_from([10, 200, 0, 1], request).await
    };
    for _ in 0..limits::SIGN_INS_PER_NAME_AND_PEER {
        assert_eq!(guess().await.problem(), "invalid");
    }
    assert_eq!(guess().await.problem(), "too-many-sign-ins");
}

#[tokio::test]
async fn sessions_are_listed_and_ended_by_their_account_and_who_looks_after_it() {
    let world = World::of(UserRole::Operator).await;
    let (bob, later) = (world.user("bob", UserRole::Viewer).await, NOW.plus(DAY));
    let (_, of_bob) = world.signed_in(&bob, later).await;
    let (other, second) = world.signed_in(&world.user, later).await;
    let list = world.get("/api/v1/sessions").await;
    let listed: Vec<_> = list.json["items"].as_array().unwrap().iter().map(|it| (&it["id"], &it["current"])).collect();
    assert_eq!(listed, [(&json!(second), &json!(false)), (&json!(world.session), &json!(true))]);
    assert_eq!(list.json["items"][0]["address"], "192.0.2.9");
    assert_eq!(world.get("/api/v1/sessions?user=bob").await.problem(), "not-allowed");
    assert_eq!(world.delete(&format!("/api/v1/sessions/{of_bob}")).await.problem(), "session-not-found");
    assert_eq!(world.delete(&format!("/api/v1/sessions/{second}")).await.status, StatusCode::NO_CONTENT);
    assert_eq!(with(&world, &other, "/api/v1/session").await.problem(), "not-signed-in");
    assert_eq!(world.delete("/api/v1/users/ada/sessions").await.status, StatusCode::NO_CONTENT);
    assert_eq!(world.get("/api/v1/session").await.problem(), "not-signed-in");

    let world = World::of(UserRole::Admin).await;
    let bob = world.user("bob", UserRole::Viewer).await;
    let (token, id) = world.signed_in(&bob, later).await;
    assert_eq!(world.get("/api/v1/sessions?user=bob").await.json["items"][0]["id"], json!(id));
    assert_eq!(world.delete(&format!("/api/v1/sessions/{id}")).await.status, StatusCode::NO_CONTENT);
    assert_eq!(with(&world, &token, "/api/v1/session").await.problem(), "not-signed-in");
}

#[tokio::test]
async fn an_api_token_is_shown_once_used_as_its_role_and_revoked() {
    let world = World::of(UserRole::Operator).await;
    world.host("alpha").await;
    let made = world.post("/api/v1/tokens", &json!({ "name": "ci", "role": "viewer", "ttl_seconds": 3600 })).await;
    assert_eq!(made.status, StatusCode::CREATED, "{made:?}");
    let (token, id) = (made.json["token"].as_str().unwrap().to_owned(), made.json["id"].as_str().unwrap().to_owned());
    let list = world.get("/api/v1/tokens").await;
    assert!(!list.text.contains(&token), "shown once");
    let listed = &list.json["items"][0];
    assert_eq!((&listed["status"], &listed["last_used_at"]), (&json!("active"), &Value::Null));

    let who = with(&world, &token, "/api/v1/session").await;
    assert_eq!((&who.json["role"], &who.json["token_id"]), (&json!("viewer"), &json!(id)));
    assert_eq!(world.get("/api/v1/tokens").await.json["items"][0]["last_used_at"], api::Timestamp(NOW).to_string());
    let send = |path: &str, body: &Value| World::request(Method::POST, path, Some(&token), Some(body));
    assert_eq!(world.send(send("/api/v1/operations", &facts(&["alpha"]))).await.status, StatusCode::ACCEPTED);
    let refused = world.send(send("/api/v1/operations", &super::world::deploy(&["alpha"]))).await;
    assert_eq!(refused.problem(), "not-allowed", "the account may, its token may not");
    assert_eq!(world.send(send("/api/v1/tokens", &json!({}))).await.problem(), "not-allowed", "no token makes another");
    let rows = world.store.audit(0, 1000).await.unwrap();
    let proposal = rows.iter().find(|row| row.kind == envelope::audit::AuditKind::Proposal).unwrap();
    assert_eq!(proposal.actor, format!("ada (token {id})"), "the log tells a token from its account");

    assert_eq!(world.delete(&format!("/api/v1/tokens/{id}")).await.status, StatusCode::NO_CONTENT);
    let ended = with(&world, &token, "/api/v1/session").await;
    assert!(ended.problem() == "not-signed-in" && ended.text.contains("was revoked"), "{ended:?}");
    assert_eq!(world.get("/api/v1/tokens").await.json["items"][0]["status"], "revoked");
}

#[tokio::test]
async fn an_api_token_weakens_with_its_account_and_has_bounds() {
    let world = World::of(UserRole::Owner).await;
    let bob = world.user("bob", UserRole::Admin).await;
    let (token, _) = world.api_token(&bob, UserRole::Admin, NOW.plus(DAY)).await;
    assert_eq!(with(&world, &token, "/api/v1/users").await.status, StatusCode::OK);
    assert_eq!(put(&world, "/api/v1/users/bob/role", &json!({ "role": "viewer" })).await.status, StatusCode::OK);
    assert_eq!(with(&world, &token, "/api/v1/users").await.problem(), "not-allowed");
    for body in [
        json!({ "role": "king" }),
        json!({ "ttl_seconds": 59 }),
        json!({ "ttl_seconds": u64::MAX }),
        json!({ "name": "x".repeat(65) }),
        json!({ "secret": "mine" }),
    ] {
        assert_eq!(world.post("/api/v1/tokens", &body).await.problem(), "invalid", "{body}");
    }
    for _ in 0..fleet::limits::API_TOKENS_PER_USER_MAX {
        world.api_token(&world.user, UserRole::Viewer, NOW.plus(DAY)).await;
    }
    assert_eq!(world.post("/api/v1/tokens", &json!({})).await.problem(), "limit-reached");
}

#[tokio::test]
async fn strangers_accounts_and_addresses_are_slowed_down_apart() {
    let world = World::of(UserRole::Viewer).await;
    let ask = async |peer: [u8; 4], token: Option<&str>, path: &str| {
        world.send_from(peer, World::request(Method::GET, path, token, None)).await
    };
    let (token, knocking, path) = (world.token.as_str(), [192, 0, 2, 1], "/api/v1/hosts");
    for n in 0..limits::REQUESTS_PER_STRANGER {
        let path = ["/api/v1/hosts", "/health", "/nothing"][n as usize % 3];
        assert_ne!(ask(knocking, None, path).await.status, StatusCode::TOO_MANY_REQUESTS, "{n}");
    }
    for path in ["/api/v1/hosts", "/health", "/nothing"] {
        let slowed = ask(knocking, None, path).await;
        assert_eq!((slowed.problem(), slowed.header("retry-after")), ("too-many-requests", "1"), "{path}");
    }
    assert_eq!(ask(knocking, Some(token), path).await.status, StatusCode::OK, "who is signed in is let in");
    assert_eq!(ask([192, 0, 2, 2], None, "/health").await.status, StatusCode::OK, "others are not slowed down");

    for n in 1..limits::REQUESTS_PER_ACCOUNT {
        let answer = ask([198, 51, 100, (n % 200) as u8], Some(token), path).await;
        assert_eq!(answer.status, StatusCode::OK, "{n}");
    }
    assert_eq!(ask([198, 51, 100, 1], Some(token), path).await.problem(), "too-many-requests");
    let api_token = world.api_token(&world.user, UserRole::Viewer, NOW.plus(DAY)).await.0;
    assert_eq!(ask([198, 51, 100, 1], Some(&api_token), path).await.status, StatusCode::OK, "a token has its own");
}
