//! Standing orders through REST. What hosts make of them is tested where they are; here their reports are played.

use axum::http::StatusCode;
use envelope::{
    audit::AuditKind,
    keys::{SigningKey, role},
    messages::{ReportStatus, StandingOrder},
    verify,
};
use fleet::{model::UserRole, ports::Store as _};
use ids::{CommandId, OperationId, Revision, StandingOrderId};
use serde_json::{Value, json};

use super::world::{World, command_ids, facts, fresh};

const PATH: &str = "/api/v1/standing-orders";

/// One that restarts the app `shop` at night.
pub(super) fn request(host: &str) -> Value {
    let id: OperationId = fresh();
    json!({
        "operation_id": id, "host": host, "action": "app.restart", "parameters": { "app": "shop" },
        "schedule": "30 3 * * *", "zone": "Europe/Zurich",
    })
}

/// What is answered to an order and to its end that are known already.
pub(super) async fn sent_again(world: &World) -> [String; 2] {
    let body = request("alpha");
    world.post(PATH, &body).await;
    let ordered = world.post(PATH, &body).await.status;
    let id = listed(world).await[0]["standing_order_id"].as_str().unwrap().to_owned();
    let operation: OperationId = fresh();
    let end = json!({ "operation_id": operation, "host": "alpha" });
    world.post(&format!("{PATH}/{id}/drop"), &end).await;
    let ended = world.post(&format!("{PATH}/{id}/drop"), &end).await.status;
    [format!("POST {PATH} {}", ordered.as_u16()), format!("POST {PATH}/{{id}}/drop {}", ended.as_u16())]
}

async fn listed(world: &World) -> Vec<Value> {
    world.get(PATH).await.json.as_array().unwrap().clone()
}

async fn ends(world: &World, command: CommandId, status: ReportStatus) {
    world.start(command).await;
    world.settle(command, (status, "said", json!({})), Vec::new(), None).await.unwrap();
}

#[tokio::test]
async fn a_standing_order_is_signed_ordered_and_followed_by_its_hosts_words() {
    let world = World::of(UserRole::Operator).await;
    let host = world.host("alpha").await;
    let body = request("alpha");
    let answer = world.post(PATH, &body).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED, "{answer:?}");
    let command = world.stored(command_ids(&answer)[0]).await;
    assert_eq!(command.order.action.as_str(), "standing.install");

    // What is ordered is what was signed, and its leaf covers it.
    let first = listed(&world).await.remove(0);
    let id: StandingOrderId = first["standing_order_id"].as_str().unwrap().parse().unwrap();
    assert_eq!((first["state"].clone(), first["revision"].clone()), (json!("installing"), Value::Null));
    let envelope = world.store.standing_envelope(id).await.unwrap().unwrap();
    let key = SigningKey::<role::Command>::from_seed(&[2; 32]).verifying();
    let signed = verify::<StandingOrder>(&envelope, &[key]).unwrap();
    assert_eq!((signed.standing.host, signed.standing.order, signed.revision), (host.id, id, Revision(1)));
    assert_eq!(signed.standing.operation, command.order.operation);
    assert_eq!(signed.standing.parameters, br#"{"app":"shop"}"#);
    let rows = world.store.audit(0, 1000).await.unwrap();
    let leaf = rows.iter().find(|row| row.kind == AuditKind::StandingOrder).unwrap();
    assert_eq!(leaf.record.as_deref(), Some(envelope.as_slice()));

    // Sent again it is the same; another with that id is not.
    assert_eq!(world.post(PATH, &body).await.status, StatusCode::OK);
    let mut other = body.clone();
    other["schedule"] = json!("0 4 * * *");
    assert_eq!(world.post(PATH, &other).await.problem(), "operation-conflict");
    assert_eq!(listed(&world).await.len(), 1);

    ends(&world, command.order.command, ReportStatus::Succeeded).await;
    let installed = listed(&world).await.remove(0);
    assert_eq!((installed["state"].clone(), installed["revision"].clone()), (json!("installed"), json!(1)));
    assert_eq!(installed["outdated"], json!(false), "{installed}");

    let operation: OperationId = fresh();
    let end = json!({ "operation_id": operation, "host": "alpha" });
    let answer = world.post(&format!("{PATH}/{id}/drop"), &end).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED, "{answer:?}");
    assert_eq!(listed(&world).await[0]["state"], json!("dropping"));
    ends(&world, command_ids(&answer)[0], ReportStatus::Succeeded).await;
    assert_eq!(listed(&world).await[0]["state"], json!("dropped"));
}

#[tokio::test]
async fn what_makes_no_standing_order_is_refused_before_anything_is_signed() {
    let world = World::of(UserRole::Operator).await;
    world.host("alpha").await;
    let with = |field: &str, value: Value| {
        let mut body = request("alpha");
        body[field] = value;
        body
    };
    for (body, problem) in [
        (with("schedule", json!("99 * * * *")), "invalid"),
        (with("zone", json!("../etc")), "invalid"),
        (with("valid_for_seconds", json!(400 * 86_400)), "invalid"),
        (with("alone_for_seconds", json!(366 * 86_400)), "invalid"),
        (with("parameters", json!({ "app": 7 })), "invalid"),
        (with("action", json!("command.cancel")), "invalid"),
        (with("action", json!("standing.drop")), "invalid"),
        (with("action", json!("host.retire")), "invalid"),
        (with("action", json!("app.remove")), "not-allowed"),
        (with("action", json!("no.such")), "action-not-found"),
        (with("host", json!("beta")), "host-not-found"),
    ] {
        let answer = world.post(PATH, &body).await;
        assert_eq!(answer.problem(), problem, "{body}: {answer:?}");
    }
    assert!(listed(&world).await.is_empty());
    assert_eq!(world.store.standing_revision(world.host("gamma").await.id).await.unwrap(), Revision(0));

    // Nor does what was signed come in by the door of single actions, where anybody could play it.
    for action in ["standing.install", "standing.renew", "standing.drop"] {
        let mut body = facts(&["alpha"]);
        body["action"] = json!(action);
        body["parameters"] = json!({ "order": "AAAA" });
        assert_eq!(world.post("/api/v1/operations", &body).await.problem(), "invalid", "{action}");
    }
    assert_eq!(world.post(PATH, &request("alpha")).await.status, StatusCode::ACCEPTED);
}

#[tokio::test]
async fn each_standing_order_of_a_host_has_a_revision_of_its_own() {
    let world = World::of(UserRole::Operator).await;
    let (alpha, beta) = (world.host("alpha").await, world.host("beta").await);
    for host in ["alpha", "alpha", "beta", "alpha"] {
        assert_eq!(world.post(PATH, &request(host)).await.status, StatusCode::ACCEPTED);
    }
    let revision = async |host| world.store.standing_revision(host).await.unwrap();
    assert_eq!((revision(alpha.id).await, revision(beta.id).await), (Revision(3), Revision(1)));
    let of = |records: Vec<fleet::standing::StandingRecord>| -> Vec<u64> {
        records.iter().filter_map(|record| record.steps[0].seal).map(|seal| seal.revision.0).collect()
    };
    assert_eq!(of(world.store.standing_orders(Some(alpha.id)).await.unwrap()), [1, 2, 3]);
    assert_eq!(of(world.store.standing_orders(None).await.unwrap()).len(), 4);
}

#[tokio::test]
async fn there_is_room_for_so_many_and_those_that_ended_give_way() {
    let world = World::of(UserRole::Operator).await;
    world.host("alpha").await;
    let max = fleet::limits::STANDING_PER_HOST_MAX;
    let mut first = None;
    for _ in 0..max {
        let answer = world.post(PATH, &request("alpha")).await;
        assert_eq!(answer.status, StatusCode::ACCEPTED);
        first.get_or_insert(command_ids(&answer)[0]);
    }
    let full = world.post(PATH, &request("alpha")).await;
    assert_eq!(full.problem(), "changed-meanwhile", "{full:?}");
    // The host refuses one: it stands nowhere.
    let command = world.stored(first.unwrap()).await.order.command;
    ends(&world, command, ReportStatus::Rejected).await;
    assert_eq!(listed(&world).await[0]["state"], json!("refused"));
    assert_eq!(world.post(PATH, &request("alpha")).await.status, StatusCode::ACCEPTED);
    assert_eq!(listed(&world).await.len(), max);
}
