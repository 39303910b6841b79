//! Signing in and out.

use axum::http::{Method, StatusCode};
use envelope::audit::AuditKind;
use fleet::ports::Store as _;
use serde_json::{Value, json};
use tokio::time::{Duration, Instant, sleep};

use super::world::{Answer, PASSWORD, World};
use crate::{limits, routes};

async fn sign_in(world: &World, name: &str, password: &str) -> Answer {
    let body = json!({ "name": name, "password": password });
    world.send(World::request(Method::POST, "/api/v1/session", None, Some(&body))).await
}

#[tokio::test]
async fn a_person_signs_in_is_known_and_signs_out() {
    let world = World::new().await;
    let answer = sign_in(&world, "ada", PASSWORD).await;
    assert_eq!(answer.status, StatusCode::CREATED, "{answer:?}");
    assert_eq!(answer.json["user"]["role"], "admin");
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
async fn sign_ins_are_slowed_down_by_name_whether_or_not_it_exists() {
    for name in ["ada", "eve"] {
        let world = World::new().await;
        for _ in 0..limits::SIGN_INS_PER_NAME {
            assert_eq!(sign_in(&world, name, "wrong").await.status, StatusCode::UNAUTHORIZED);
        }
        let slowed = sign_in(&world, name, PASSWORD).await;
        assert_eq!((slowed.status, slowed.problem()), (StatusCode::TOO_MANY_REQUESTS, "too-many-sign-ins"));
        assert_eq!(slowed.header("retry-after"), (limits::SIGN_IN_NAME_REFILL.0 / 1000).to_string());
        assert_eq!(sign_in(&world, "bob", "wrong").await.status, StatusCode::UNAUTHORIZED, "others are not");
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

async fn refusals(world: &World, least: usize) -> Vec<(String, Value)> {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let rows = world.store.audit(0, 1000).await.unwrap();
        let refused = rows.into_iter().filter(|row| row.kind == AuditKind::SignInRefused);
        let refused: Vec<_> =
            refused.map(|row| (row.subject, serde_json::from_slice(&row.record.unwrap()).unwrap())).collect();
        if refused.len() >= least {
            return refused;
        }
        assert!(Instant::now() < deadline, "{least} refusals in the log within 10 s; found {refused:?}");
        sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn refused_sign_ins_are_recorded_together_and_without_what_was_typed() {
    let world = World::new().await;
    for (name, password) in [("ada", "x1"), ("ada", "x2"), ("my-secret-pass", "x3"), ("another.one", "x4")] {
        sign_in(&world, name, password).await;
    }
    assert_eq!(refusals(&world, 2).await.len(), 2, "the first of each");
    routes::tell_refusals(&world.shared, true).await;
    let mut told = refusals(&world, 4).await;
    told.sort_by(|a, b| a.0.cmp(&b.0));
    assert_eq!(told.len(), 4, "{told:?}");
    assert_eq!(told.iter().filter(|(subject, _)| subject == "user ada").count(), 2);
    for (subject, record) in told {
        assert_eq!(record["count"], 1);
        assert!(subject == "user ada" || record["name"].is_null(), "{subject} {record}");
        assert!(!record.to_string().contains("secret"), "{record}");
    }
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
