//! Signing in and out.

use axum::http::{Method, StatusCode};
use envelope::audit::AuditKind;
use fleet::{model::UserRole, ports::Store as _};
use serde_json::{Value, json};

use super::world::{Answer, NOW, PASSWORD, World};
use crate::{limits, routes};

fn request(name: &str, password: &str) -> axum::extract::Request {
    let body = json!({ "name": name, "password": password });
    World::request(Method::POST, "/api/v1/session", None, Some(&body))
}

/// From an address of its own.
async fn sign_in(world: &World, name: &str, password: &str) -> Answer {
    world.send(request(name, password)).await
}

/// From an address that is always the same.
async fn sign_in_again(world: &World, name: &str, password: &str) -> Answer {
    world.send_from([10, 200, 0, 1], request(name, password)).await
}

#[tokio::test]
async fn a_person_signs_in_is_known_and_signs_out() {
    let world = World::new().await;
    let answer = sign_in(&world, "ada", PASSWORD).await;
    assert_eq!(answer.status, StatusCode::CREATED, "{answer:?}");
    assert_eq!(answer.json["user"]["role"], "admin");
    assert_eq!(answer.json["user"].get("token_id"), None);
    let token = answer.json["token"].as_str().unwrap().to_owned();
    let with = async |method| world.send(World::request(method, "/api/v1/session", Some(&token), None)).await;
    let who = with(Method::GET).await;
    assert_eq!((who.json["name"].as_str(), &who.json["expires_at"]), (Some("ada"), &answer.json["expires_at"]));
    assert_eq!(with(Method::DELETE).await.status, StatusCode::NO_CONTENT);
    assert_eq!(with(Method::GET).await.problem(), "not-signed-in");
    let kinds = world.audit_kinds().await;
    assert!(kinds.ends_with(&[AuditKind::SignIn, AuditKind::SignOut]), "{kinds:?}");
}

#[tokio::test]
async fn an_unknown_name_and_a_wrong_password_get_the_same_answer() {
    let world = World::new().await;
    let (unknown, wrong) = (sign_in(&world, "eve", PASSWORD).await, sign_in(&world, "ada", "wrong").await);
    assert_eq!(unknown.problem(), "sign-in-refused");
    assert_eq!((unknown.status, &unknown.text), (wrong.status, &wrong.text));
    let names = |answer: &Answer| answer.headers.keys().map(|name| name.as_str().to_owned()).collect::<Vec<_>>();
    assert_eq!(names(&unknown), names(&wrong));
}

#[tokio::test]
async fn sign_ins_are_slowed_down_by_name_and_address_whether_or_not_the_name_exists() {
    for name in ["ada", "eve"] {
        let world = World::new().await;
        for _ in 0..limits::SIGN_INS_PER_NAME_AND_PEER {
            assert_eq!(sign_in_again(&world, name, "wrong").await.status, StatusCode::UNAUTHORIZED);
        }
        let slowed = sign_in_again(&world, name, PASSWORD).await;
        assert_eq!((slowed.status, slowed.problem()), (StatusCode::TOO_MANY_REQUESTS, "too-many-sign-ins"));
        assert_eq!(slowed.header("retry-after"), (limits::SIGN_IN_NAME_AND_PEER_REFILL.0 / 1000).to_string());
        assert_eq!(sign_in_again(&world, "bob", "wrong").await.status, StatusCode::UNAUTHORIZED, "others are not");
        let elsewhere = sign_in(&world, name, PASSWORD).await.status;
        let expected = if name == "ada" { StatusCode::CREATED } else { StatusCode::UNAUTHORIZED };
        assert_eq!(elsewhere, expected, "whoever knocks shuts nobody else out");
    }
}

#[tokio::test]
async fn a_stranger_makes_the_control_plane_hold_no_more_than_a_name_and_a_password() {
    let world = World::new().await;
    let longest = "\u{1}".repeat(crate::credentials::PASSWORD_BYTES_MAX);
    assert_eq!(sign_in(&world, "ada", &longest).await.problem(), "sign-in-refused", "escaped it is six times as long");
    let answer = sign_in(&world, "ada", &"x".repeat(limits::BODY_BYTES_OPEN_MAX)).await;
    assert_eq!((answer.status, answer.problem()), (StatusCode::PAYLOAD_TOO_LARGE, "too-large"));
}

/// What the audit log was told of refusals so far.
async fn refusals(world: &World) -> Vec<(String, Value)> {
    routes::tell_refusals(&world.shared, false).await;
    let rows = world.store.audit(0, 1000).await.unwrap();
    let refused = rows.into_iter().filter(|row| row.kind == AuditKind::SignInRefused);
    let mut refused: Vec<_> =
        refused.map(|row| (row.subject, serde_json::from_slice(&row.record.unwrap()).unwrap())).collect();
    refused.sort_by(|a: &(String, Value), b| a.0.cmp(&b.0));
    refused
}

#[tokio::test]
async fn refused_sign_ins_are_recorded_together_and_without_what_was_typed() {
    let world = World::new().await;
    for (name, password) in [("ada", "x1"), ("my-secret-pass", "x2")] {
        sign_in(&world, name, password).await;
    }
    assert_eq!(refusals(&world).await.len(), 2, "the first of each");
    for (name, password) in [("ada", "x3"), ("ada", "x4"), ("another.one", "x5")] {
        sign_in(&world, name, password).await;
    }
    assert_eq!(refusals(&world).await.len(), 2, "not within a minute");
    routes::tell_refusals(&world.shared, true).await;
    let told = refusals(&world).await;
    let counts: Vec<_> = told.iter().map(|(subject, record)| (subject.as_str(), record["count"].as_u64())).collect();
    let unknown = "unknown user names";
    assert_eq!(counts, [(unknown, Some(1)), (unknown, Some(1)), ("user ada", Some(1)), ("user ada", Some(2))]);
    for (subject, record) in told {
        assert!(subject == "user ada" || record["name"].is_null(), "{subject} {record}");
        assert!(!record.to_string().contains("secret"), "{record}");
    }
}

#[tokio::test]
async fn sign_ins_that_are_too_many_and_credentials_that_ended_are_recorded_too() {
    let world = World::new().await;
    for _ in 0..limits::SIGN_INS_PER_NAME_AND_PEER + 3 {
        sign_in_again(&world, "eve", "wrong").await;
    }
    for _ in 0..limits::SIGN_INS_PER_NAME_AND_PEER + 2 {
        sign_in_again(&world, "ada", "wrong").await;
    }
    let expired = world.token_until(NOW).await;
    let (token, id) = world.api_token(&world.user, UserRole::Viewer, NOW).await;
    for token in [&expired, &token, "sfs_nobody"] {
        let answer = world.send(World::request(Method::GET, "/api/v1/hosts", Some(token), None)).await;
        assert_eq!(answer.problem(), "not-signed-in");
    }
    let told = refusals(&world).await;
    let subjects: Vec<_> = told.iter().map(|(subject, _)| subject.as_str()).collect();
    let of_token = format!("user ada: API token {id}");
    let (expired, many) = ("user ada: expired session", "user ada: too many sign-ins");
    assert_eq!(subjects, ["too many sign-ins", "unknown user names", "user ada", of_token.as_str(), expired, many]);
    let counts: Vec<_> = told.iter().map(|(_, record)| record["count"].as_u64().unwrap()).collect();
    let looked_at = u64::from(limits::SIGN_INS_PER_NAME_AND_PEER);
    assert_eq!(counts, [3, looked_at, looked_at, 1, 1, 2]);
    assert!(told.iter().all(|(_, record)| record["last_peer"].as_str().unwrap().starts_with("10.")), "{told:?}");
}

#[tokio::test]
async fn a_sign_in_with_other_fields_is_refused_by_name() {
    let world = World::new().await;
    let request = World::request(Method::POST, "/api/v1/session", None, Some(&json!({ "name": "ada" })));
    assert_eq!(world.send(request).await.problem(), "invalid");
    let body = json!({ "name": "ada", "password": "x", "admin": true });
    let answer = world.send(World::request(Method::POST, "/api/v1/session", None, Some(&body))).await;
    assert_eq!(answer.json["errors"][0]["field"], "admin");
}
