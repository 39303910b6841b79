//! People who are shut out, or may do less, between the judgement of their request and what it does: while
//! its body comes, or while a password is hashed. Every route that leaves something is walked.

use std::sync::Arc;

use axum::{
    body::Body,
    extract::Request,
    http::{Method, StatusCode, header},
    middleware::{Next, from_fn},
};
use envelope::audit::AuditKind;
use fleet::{
    model::{User, UserChange, UserRole},
    ports::{Store as _, Write},
};
use futures_util::{StreamExt as _, stream};
use ids::DurationMs;
use serde_json::{Value, json};
use store::SqliteStore;
use tower::ServiceExt as _;

use super::{
    scenes,
    world::{NEW_PASSWORD, NOW, World, entry},
};
use crate::{access::Access, edge::Peer, routes};

async fn changed(store: &SqliteStore, was: User, change: UserChange) {
    let audit = entry(AuditKind::AccountChange);
    store.write(Write::UserChange { was, change, audit }).await.unwrap();
}

async fn problem(router: axum::Router, mut request: Request) -> (StatusCode, Value) {
    request.extensions_mut().insert(Peer(([10, 9, 9, 9], 50_000).into()));
    let response = router.oneshot(request).await.unwrap();
    let status = response.status();
    let bytes = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
    (status, serde_json::from_slice::<Value>(&bytes).unwrap_or_default()["type"].take())
}

#[tokio::test]
async fn whoever_is_shut_out_or_lowered_after_the_judgement_changes_nothing() {
    let (mut walked, gone) = (0, "urn:serverflow:not-signed-in");
    let lowered = [
        (UserChange::Delete(NOW), StatusCode::UNAUTHORIZED, gone),
        (UserChange::Role(UserRole::Viewer), StatusCode::FORBIDDEN, "urn:serverflow:not-allowed"),
    ];
    for route in routes::table().into_iter().filter(|route| route.access != Access::Open && route.leaf.is_some()) {
        for (change, status, kind) in lowered.clone() {
            let world = World::of(UserRole::Owner).await;
            world.user("another", UserRole::Owner).await;
            let what = format!("{} {} {change:?}", route.method, route.path);
            let scene = scenes::scene(&world, &route).await.expect(&what);
            let (store, user) = (world.store.clone(), world.user.clone());
            let router = routes::router_around(&world.shared, |handler| {
                let (store, user, change) = (Arc::clone(&store), user.clone(), change.clone());
                handler.route_layer(from_fn(move |request: Request, next: Next| {
                    let (store, user, change) = (Arc::clone(&store), user.clone(), change.clone());
                    async move {
                        changed(&store, user, change).await;
                        next.run(request).await
                    }
                }))
            });
            let before = world.store.audit_position().size;
            let (answered, problem) = problem(router, scene.request).await;
            // Sessions and tokens of a deleted account go with it, so there is none to end.
            let gone = matches!(change, UserChange::Delete(_)) && route.path.ends_with("s/{id}");
            assert!(
                answered == status && problem == kind || gone && answered == StatusCode::NOT_FOUND,
                "{what}: {answered}"
            );
            assert_eq!(world.store.audit_position().size, before + 1, "{what}: only the account's own change");
            walked += 1;
        }
    }
    assert!(walked >= 2 * 18, "{walked}");
}

/// The whole way: an owner sends five bytes of a new account, is deleted, and sends the rest.
#[tokio::test]
async fn a_body_that_was_begun_by_somebody_who_is_deleted_meanwhile_makes_no_account() {
    let world = World::of(UserRole::Owner).await;
    world.user("another", UserRole::Owner).await;
    let body = json!({ "name": "mallory", "role": "owner", "password": NEW_PASSWORD }).to_string();
    let (begun, rest) = body.split_at(5);
    let (begun, rest) = (begun.to_owned(), rest.to_owned());
    let (store, user) = (world.store.clone(), world.user.clone());
    let then = stream::once(async move {
        changed(&store, user, UserChange::Delete(NOW)).await;
        Ok::<_, std::io::Error>(rest)
    });
    let mut request = World::request(Method::POST, "/api/v1/users", Some(&world.token), None);
    request.headers_mut().insert(header::CONTENT_TYPE, "application/json".parse().unwrap());
    *request.body_mut() = Body::from_stream(stream::once(async move { Ok(begun) }).chain(then));
    let answer = problem(world.router.clone(), request).await;
    assert_eq!(answer, (StatusCode::UNAUTHORIZED, json!("urn:serverflow:not-signed-in")));
    assert_eq!(world.store.user_by_name("mallory".parse().unwrap()).await, Ok(None));
}

/// The same with an API token that is revoked, which the account itself outlives.
#[tokio::test]
async fn a_token_that_is_revoked_meanwhile_orders_nothing() {
    let world = World::of(UserRole::Owner).await;
    world.host("alpha").await;
    let (token, id) = world.api_token(&world.user, UserRole::Viewer, NOW.plus(DurationMs::from_days(1))).await;
    let store = world.store.clone();
    let router = routes::router_around(&world.shared, |handler| {
        let store = store.clone();
        handler.route_layer(from_fn(move |request: Request, next: Next| {
            let store = Arc::clone(&store);
            async move {
                let audit = entry(AuditKind::AccountChange);
                store.write(Write::ApiTokenRevoke { token: id, at: NOW, audit }).await.unwrap();
                next.run(request).await
            }
        }))
    });
    let body = super::world::facts(&["alpha"]);
    let request = World::request(Method::POST, "/api/v1/operations", Some(&token), Some(&body));
    let answer = problem(router, request).await;
    assert_eq!(answer, (StatusCode::UNAUTHORIZED, json!("urn:serverflow:not-signed-in")));
    let operation = body["operation_id"].as_str().unwrap().parse().unwrap();
    assert_eq!(world.store.operation(operation).await, Ok(None));
}
