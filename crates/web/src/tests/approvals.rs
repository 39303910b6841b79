//! Second persons: whose keys there are, what waits, who may approve and deny it.

use std::sync::Arc;

use axum::http::{Method, StatusCode};
use data_encoding::BASE64;
use envelope::{
    SigningKey,
    audit::AuditKind,
    keys::role,
    messages::{Approval, Order, ReportStatus},
    root::{Edit, TrustedRoot, next_version, sign_root},
    verify,
};
use fleet::{
    model::{CommandStatus, User, UserChange, UserRole},
    operation::{CommandIds as _, operation_next},
    ports::{Event, HostChange, Store as _, Write},
};
use ids::{CommandId, DurationMs, HostEpoch, OperationId, Sha256, sha256};
use serde_json::{Value, json};

use super::world::{Answer, NOW, World, command_ids, entry, facts};
use crate::fresh::FreshCommands;

pub(super) fn approver(n: u8) -> SigningKey<role::Approver> {
    SigningKey::from_seed(&[150 + n; 32])
}

/// Root metadata lists three approver keys, and destruction takes so many.
async fn needs(world: &World, count: u32) {
    let mut edits: Vec<Edit> = (0..3).map(|n| Edit::AddApprover(approver(n).public())).collect();
    edits.push(Edit::ApprovalsDestructive(count));
    advance(world, &edits).await;
}

async fn advance(world: &World, edits: &[Edit]) {
    let current = world.shared.root();
    let next = next_version(current.current(), edits, NOW).unwrap();
    let envelope = sign_root(&[&SigningKey::<role::Root>::from_seed(&[1; 32])], &next);
    let mut root = TrustedRoot::clone(&current);
    root.advance(&envelope).unwrap();
    let write = Write::RootAdvance { version: next.version, envelope, audit: entry(AuditKind::RootChange) };
    world.store.write(write).await.unwrap();
    world.shared.root_keeper.in_force(Arc::new(root)).await;
}

/// Their key's account.
async fn register(world: &World, user: &User, n: u8) {
    world.change(user, UserChange::Approver(approver(n).public(), NOW)).await;
}

/// What somebody asked for, and its held command.
pub(super) struct Held {
    pub(super) operation: OperationId,
    pub(super) command: CommandId,
}

/// Carol asks for the removal of an app, which takes so many people; her host has planned it.
pub(super) async fn held(world: &World, count: u32) -> Held {
    needs(world, count).await;
    let carol = world.user("carol", UserRole::Admin).await;
    register(world, &carol, 2).await;
    let token = world.signed_in(&carol, NOW.plus(DurationMs::from_days(1))).await.0;
    world.host("alpha").await;
    let mut body = facts(&["alpha"]);
    (body["action"], body["parameters"]) = (json!("app.remove"), json!({ "app": "shop" }));
    let answer = world.send(World::request(Method::POST, "/api/v1/operations", Some(&token), Some(&body))).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED, "{answer:?}");
    let plan = command_ids(&answer)[0];
    world.start(plan).await;
    let (planned, operation) = (world.stored(plan).await, body["operation_id"].as_str().unwrap().parse().unwrap());
    let stored = world.store.operation(operation).await.unwrap().unwrap();
    let host = world.store.host(planned.order.host).await.unwrap().unwrap();
    let mut fresh = FreshCommands::new(NOW).unwrap();
    let result = json!({ "app": "shop" });
    let next =
        operation_next(&stored, &host, &planned, CommandStatus::Succeeded, &result, NOW, &mut || fresh.command_id());
    let next = next.unwrap();
    let command = next[0].order.command;
    world.settle(plan, (ReportStatus::Succeeded, "would be removed", result), next, None).await.unwrap();
    let again = world.send(World::request(Method::POST, "/api/v1/operations", Some(&token), Some(&body))).await;
    assert_eq!(again.status, StatusCode::OK, "the same request is the same operation: {again:?}");
    Held { operation, command }
}

async fn approval(world: &World, held: &Held) -> Approval {
    let order = world.stored(held.command).await.order;
    Approval {
        fleet: order.fleet,
        host: order.host,
        host_epoch: HostEpoch(1),
        operation: order.operation,
        action: order.action.clone(),
        action_version: order.action_version,
        parameters_sha256: sha256(&order.parameters),
        sealed: order.sealed.clone(),
        plan_sha256: Sha256([7; 32]),
        bind_plan: true,
        approved_at: NOW,
        expires: NOW.plus(DurationMs::from_days(1)),
    }
}

pub(super) async fn body(world: &World, held: &Held, n: u8) -> Value {
    let approval = approval(world, held).await;
    json!({ "approvals": [BASE64.encode(approver(n).sign(&approval).envelope())] })
}

/// Ada, whose world it is, gets a key.
pub(super) async fn ada_approves(world: &World) {
    register(world, &world.user, 0).await;
}

async fn post(world: &World, held: &Held, what: &str, body: &Value) -> Answer {
    world.post(&format!("/api/v1/operations/{}/{what}", held.operation), body).await
}

#[tokio::test]
async fn what_was_asked_for_waits_until_enough_people_approved_it() {
    let world = World::of(UserRole::Viewer).await;
    let held = held(&world, 2).await;
    ada_approves(&world).await;
    let bob = world.user("bob", UserRole::Viewer).await;
    register(&world, &bob, 1).await;
    let mut events = world.told.events.subscribe();
    let answer = post(&world, &held, "approvals", &body(&world, &held, 0).await).await;
    assert_eq!((answer.status, &answer.json["state"]), (StatusCode::OK, &json!("running")), "{answer:?}");
    let shown = &answer.json["commands"][1];
    assert_eq!(shown["status"], "held");
    assert!(shown["message"].as_str().unwrap().starts_with("1 of 2 approvals; ask an approver"), "{shown}");
    let told = events.try_recv().unwrap();
    assert!(matches!(told, Event::Command { status: CommandStatus::Held, .. }), "{told:?}");
    let again = post(&world, &held, "approvals", &body(&world, &held, 0).await).await;
    assert_eq!(again.problem(), "approved-already");

    world.told.changes.lock().unwrap().clear();
    let token = world.signed_in(&bob, NOW.plus(DurationMs::from_days(1))).await.0;
    let path = format!("/api/v1/operations/{}/approvals", held.operation);
    let last = world.send(World::request(Method::POST, &path, Some(&token), Some(&body(&world, &held, 1).await))).await;
    assert_eq!((last.status, &last.json["commands"][1]["status"]), (StatusCode::OK, &json!("queued")), "{last:?}");
    let command = world.stored(held.command).await;
    assert_eq!((command.status, command.approvals.len()), (CommandStatus::Queued, 2));
    assert_eq!(*world.told.changes.lock().unwrap(), [(command.order.host, HostChange::Queue)], "its host's session");
    let late = post(&world, &held, "approvals", &body(&world, &held, 0).await).await;
    assert_eq!(late.problem(), "nothing-held");
}

#[tokio::test]
async fn what_an_approver_sees_is_what_was_signed() {
    let world = World::of(UserRole::Viewer).await;
    let held = held(&world, 2).await;
    ada_approves(&world).await;
    post(&world, &held, "approvals", &body(&world, &held, 0).await).await;
    let seen = world.get(&format!("/api/v1/commands/{}/approval", held.command)).await.json;
    let bytes = |field: &str| BASE64.decode(seen[field].as_str().unwrap().as_bytes()).unwrap();
    let stored = world.stored(held.command).await;
    assert_eq!(Order::decode(&bytes("order")).unwrap(), stored.order);
    assert_eq!(stored.order.requester, Some(approver(2).key_id()));
    let keys = world.root.command_keys();
    let sealed = BASE64.decode(seen["plan_orders"][0].as_str().unwrap().as_bytes()).unwrap();
    let plan = verify::<envelope::messages::Command>(&sealed, keys).unwrap();
    assert!(plan.order.dry_run && plan.order.parameters == stored.order.parameters);
    assert_eq!(bytes("receipt"), b"receipt of alpha");
    assert!(!bytes("plan_report").is_empty());
    assert_eq!((&seen["needed"], &seen["requested_by"], &seen["status"]), (&json!(2), &json!("carol"), &json!("held")));
    let said = &seen["approvals"][0];
    assert_eq!((&said["user"], &said["in_force"], &said["bind_plan"]), (&json!("ada"), &json!(true), &json!(true)));
    advance(&world, &[Edit::DropApprover(approver(0).public())]).await;
    let seen = world.get(&format!("/api/v1/commands/{}/approval", held.command)).await.json;
    assert_eq!(seen["approvals"][0]["in_force"], json!(false), "it is shown as what it is by now");
}

/// Each attack is one change to the steps of the test above that succeed.
#[tokio::test]
async fn nobody_approves_with_what_is_not_theirs() {
    let world = World::of(UserRole::Viewer).await;
    let held = held(&world, 2).await;
    let good = body(&world, &held, 0).await;
    let refused = async |body: &Value, problem: &str, words: &str| {
        let before = world.store.audit_position();
        let answer = post(&world, &held, "approvals", body).await;
        assert_eq!(answer.problem(), problem, "{answer:?}");
        assert!(answer.json["detail"].as_str().unwrap().contains(words), "{answer:?}");
        assert_eq!(world.store.audit_position(), before);
    };
    refused(&good, "not-allowed", "has no approver key").await;
    register(&world, &world.user, 9).await;
    refused(&good, "not-allowed", "is not in the fleet's root metadata").await;
    let user = world.store.user_by_name(world.user.name.clone()).await.unwrap().unwrap();
    register(&world, &user, 0).await;
    refused(&body(&world, &held, 1).await, "invalid", "does not verify under your approver key").await;
    refused(&json!({ "approvals": [] }), "invalid", "1 to 500").await;
    refused(&json!({ "approvals": ["!"] }), "invalid", "it is not base64").await;
    let envelope = good["approvals"][0].as_str().unwrap();
    refused(&json!({ "approvals": [envelope, envelope] }), "invalid", "there is one for host alpha already").await;
    let edited = Approval { parameters_sha256: Sha256([9; 32]), ..approval(&world, &held).await };
    let edited = json!({ "approvals": [BASE64.encode(approver(0).sign(&edited).envelope())] });
    refused(&edited, "invalid", "names another parameters").await;
    assert_eq!(post(&world, &held, "approvals", &good).await.status, StatusCode::OK);
}

#[tokio::test]
async fn whoever_asked_neither_approves_nor_denies_but_takes_it_back() {
    let world = World::of(UserRole::Viewer).await;
    let held = held(&world, 2).await;
    let carol = world.store.user_by_name("carol".parse().unwrap()).await.unwrap().unwrap();
    let token = world.signed_in(&carol, NOW.plus(DurationMs::from_days(1))).await.0;
    let body = body(&world, &held, 2).await;
    for (what, body) in [("approvals", &body), ("denial", &json!({}))] {
        let path = format!("/api/v1/operations/{}/{what}", held.operation);
        let answer = world.send(World::request(Method::POST, &path, Some(&token), Some(body))).await;
        assert_eq!(answer.problem(), "not-allowed");
        assert!(answer.json["detail"].as_str().unwrap().contains("whoever asks cannot approve it"), "{answer:?}");
    }
    let path = format!("/api/v1/commands/{}/cancel", held.command);
    let cancelled = world.send(World::request(Method::POST, &path, Some(&token), None)).await;
    assert_eq!((cancelled.status, &cancelled.json["command"]["status"]), (StatusCode::OK, &json!("cancelled")));
}

#[tokio::test]
async fn one_no_is_the_end_of_it() {
    let world = World::of(UserRole::Viewer).await;
    let held = held(&world, 2).await;
    assert_eq!(post(&world, &held, "denial", &json!({})).await.problem(), "not-allowed", "ada has no key yet");
    ada_approves(&world).await;
    let answer = post(&world, &held, "denial", &json!({ "because": "not on a Friday" })).await;
    assert_eq!((answer.status, &answer.json["state"]), (StatusCode::OK, &json!("failed")), "{answer:?}");
    let command = world.stored(held.command).await;
    assert_eq!(
        (command.status, command.message.as_str()),
        (CommandStatus::Cancelled, "denied by ada: not on a Friday")
    );
    assert_eq!(post(&world, &held, "approvals", &body(&world, &held, 0).await).await.problem(), "nothing-held");
    assert!(world.audit_kinds().await.contains(&AuditKind::ApprovalDenied));
}

#[tokio::test]
async fn a_key_is_registered_by_its_holder_alone_and_counts_when_root_metadata_says_so() {
    let world = World::of(UserRole::Admin).await;
    let bob = world.user("bob", UserRole::Viewer).await;
    let put = async |name: &str, public: &str| {
        let path = format!("/api/v1/users/{name}/approver");
        let body = json!({ "public_key": public });
        world.send(World::request(Method::PUT, &path, Some(&world.token), Some(&body))).await
    };
    let public = |n: u8| approver(n).public().to_string();
    let answer = put("ada", &public(0)).await;
    assert_eq!((answer.status, &answer.json["in_force"]), (StatusCode::OK, &json!(false)), "{answer:?}");
    let size = world.store.audit_position().size;
    assert_eq!(put("ada", &public(0)).await.json, answer.json, "the same again");
    assert_eq!(world.store.audit_position().size, size);
    assert_eq!(put("bob", &public(1)).await.problem(), "not-allowed", "not even an admin, for somebody else");
    assert_eq!(put("ada", "12").await.problem(), "invalid");
    assert_eq!(put("ada", &"00".repeat(32)).await.problem(), "invalid", "a weak key");
    register(&world, &bob, 1).await;
    assert_eq!(put("ada", &public(1)).await.problem(), "key-taken");
    needs(&world, 1).await;
    let list = world.get("/api/v1/approvers").await.json;
    let line = |at: usize| (list[at]["user"].clone(), list[at]["public_key"].clone(), list[at]["in_force"].clone());
    assert_eq!(line(0), (json!("ada"), json!(public(0)), json!(true)));
    assert_eq!(line(1), (json!("bob"), json!(public(1)), json!(true)));
    assert_eq!(line(2), (Value::Null, json!(public(2)), json!(true)), "nobody has registered it");
    let token = world.signed_in(&bob, NOW.plus(DurationMs::from_days(1))).await.0;
    let own = world.send(World::request(Method::GET, "/api/v1/approvers", Some(&token), None)).await.json;
    assert_eq!((own.as_array().unwrap().len(), &own[0]["user"]), (1, &json!("bob")));
    let other = put("ada", &public(2)).await;
    assert_eq!((other.status, &other.json["in_force"]), (StatusCode::OK, &json!(true)), "instead of the one before");
}
