//! Recovery copies through REST: made with a deploy, kept, handed out, and sealed to other owner keys.

use axum::http::{Method, StatusCode};
use data_encoding::BASE64;
use envelope::{
    audit::AuditKind,
    messages::SealedValue,
    recovery::{RecoveryContext, RecoveryCopy, WrappedKey, recovery_copy},
    root::Edit,
    seal::SealingSecretKey,
};
use fleet::{
    model::{Principal, UserRole},
    operation::{DeployTiming, OperationRequest, Target, Work, operation_propose},
    ports::Store as _,
};
use ids::OperationId;
use rand::{rand_core::UnwrapErr, rngs::SysRng};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::{
    root,
    world::{Answer, NOW, World, fresh},
};

fn owner(number: u8) -> SealingSecretKey {
    SealingSecretKey::from_bytes(&[number; 32])
}

async fn put(world: &World, path: &str, body: &Value) -> Answer {
    world.send(World::request(Method::PUT, path, Some(&world.token), Some(body))).await
}

/// The fleet's owner has a recovery key, and lost those before.
async fn recovery_keys(world: &World, edits: &[Edit]) {
    let answer = put(world, "/api/v1/fleet/root", &root::request(world, edits)).await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
}

const SECRET: &str = "web/environment/PASSWORD";

/// An app deployed to `alpha` with one secret, by an owner, whoever is signed in.
pub(super) async fn deployed(world: &World) -> OperationId {
    let host = world.host("alpha").await;
    let id: OperationId = fresh();
    let spec = json!({ "app": "shop", "networks": {}, "volumes": {}, "services": { "web": { "image": "shop:1",
        "restart": "no", "environment": { "PASSWORD": { "sealed": SECRET } } } } });
    let request = OperationRequest {
        id,
        work: Work::Deploy { spec: spec.to_string().into_bytes(), timing: DeployTiming::default() },
        targets: vec![Target {
            host: host.id,
            sealed: vec![SealedValue { name: SECRET.to_owned(), bytes: vec![7; 50] }],
        }],
        queue_for: None,
        dry_run: false,
        selector: None,
        recovery: Some(copy(world, id, &[1], &[SECRET])),
    };
    let owner = Principal { role: UserRole::Owner, ..world.principal() };
    let fleet = world.root.current().fleet;
    let proposed =
        operation_propose(fleet, fleet::operation::Grounds::default(), request, &owner, &[host], NOW, &mut || fresh())
            .unwrap();
    world.store.write(proposed.into_write()).await.unwrap();
    id
}

fn copy(world: &World, id: OperationId, to: &[u8], names: &[&str]) -> RecoveryCopy {
    let to: Vec<_> = to.iter().map(|number| owner(*number).public()).collect();
    let secrets = names.iter().map(|name| (*name, &b"hunter2"[..]));
    recovery_copy(&to, &context(world, id), secrets, &Zeroizing::new([5; 32]), &mut UnwrapErr(SysRng)).unwrap()
}

/// The keys of `copy`, as a request has them.
fn keys(wrapped: &[WrappedKey]) -> Value {
    let shown =
        |key: &WrappedKey| json!({ "recovery_key": key.recovery_key.to_string(), "sealed": BASE64.encode(&key.bytes) });
    wrapped.iter().map(shown).collect()
}

pub(super) async fn rewrap_request(world: &World, id: OperationId, to: &[u8]) -> Value {
    let copy = world.store.recovery_copy(id).await.unwrap().unwrap();
    let to: Vec<_> = to.iter().map(|number| owner(*number).public()).collect();
    json!({ "keys": keys(&copy.rewrapped(&owner(1), &to, &context(world, id), &mut UnwrapErr(SysRng)).unwrap()) })
}

fn context(world: &World, version: OperationId) -> RecoveryContext<'static> {
    RecoveryContext { fleet: world.root.current().fleet, app: "shop", version }
}

/// What a release's document has, opened.
fn opened(world: &World, id: OperationId, release: &Value, key: u8) -> Option<Vec<u8>> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let bytes = |value: &Value| BASE64.decode(value.as_str().unwrap().as_bytes()).unwrap();
    let shown = &release["recovery"];
    let copy = RecoveryCopy {
        keys: shown["keys"]
            .as_array()
            .unwrap()
            .iter()
            .map(|key| WrappedKey {
                recovery_key: text(&key["recovery_key"]).parse().unwrap(),
                bytes: bytes(&key["sealed"]),
            })
            .collect(),
        values: shown["values"]
            .as_array()
            .unwrap()
            .iter()
            .map(|value| SealedValue { name: text(&value["name"]), bytes: bytes(&value["sealed"]) })
            .collect(),
    };
    let opened = copy.open(&owner(key), &context(world, id)).ok()?;
    Some(opened[SECRET].to_vec())
}

#[tokio::test]
async fn a_deploy_is_sealed_to_the_owner_who_opens_it_and_may_change_keys() {
    let world = World::of(UserRole::Owner).await;
    let id = deployed(&world).await;
    let path = format!("/api/v1/operations/{id}/release");
    let release = world.get(&path).await;
    assert_eq!((release.status, &release.json["app"]), (StatusCode::OK, &json!("shop")), "{release:?}");
    assert_eq!(release.json["spec"]["services"]["web"]["image"], "shop:1");
    assert!(!release.json.to_string().contains("hunter2"));
    assert_eq!(opened(&world, id, &release.json, 1).as_deref(), Some(&b"hunter2"[..]));

    let size = world.store.audit_position().size;
    let rows = world.store.audit(0, u32::try_from(size).unwrap()).await.unwrap();
    let record = |kind| {
        let row = rows.iter().rfind(|row| row.kind == kind).unwrap();
        serde_json::from_slice::<Value>(row.record.as_ref().unwrap()).unwrap()
    };
    let copy = world.store.recovery_copy(id).await.unwrap().unwrap();
    assert_eq!(record(AuditKind::Proposal)["recovery_sha256"], json!(copy.values_sha256()));

    let path_keys = format!("/api/v1/operations/{id}/recovery");
    let stale = rewrap_request(&world, id, &[2]).await;
    let refused = put(&world, &path_keys, &stale).await;
    assert_eq!(refused.problem(), "invalid", "a key that root metadata does not list: {refused:?}");
    recovery_keys(&world, &[Edit::AddRecoveryKey(owner(2).public()), Edit::DropRecoveryKey(owner(1).public())]).await;
    let answer = put(&world, &path_keys, &stale).await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    let release = world.get(&path).await;
    assert_eq!(opened(&world, id, &release.json, 2).as_deref(), Some(&b"hunter2"[..]));
    assert_eq!(opened(&world, id, &release.json, 1), None);
}

#[tokio::test]
async fn what_is_sealed_here_is_sealed_to_the_owner_too() {
    let world = World::of(UserRole::Owner).await;
    world.host("alpha").await;
    let id: OperationId = fresh();
    let files = json!({ "compose.yaml": "services: {web: {image: \"shop:1\", environment: {PASSWORD: hunter2}}}" });
    let body = json!({ "kind": "deploy_bundle", "operation_id": id, "hosts": ["alpha"], "files": files,
        "order": ["compose.yaml"], "name": "shop" });
    let answer = world.post("/api/v1/operations", &body).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED, "{answer:?}");
    let release = world.get(&format!("/api/v1/operations/{id}/release")).await;
    assert_eq!(opened(&world, id, &release.json, 1).as_deref(), Some(&b"hunter2"[..]));
    assert_eq!(world.post("/api/v1/operations", &body).await.status, StatusCode::OK, "the same again");
}

#[tokio::test]
async fn a_copy_that_a_client_made_names_the_values_of_the_hosts_and_the_keys_in_force() {
    let world = World::of(UserRole::Owner).await;
    world.host("alpha").await;
    let made = |to: &[u8], names: &[&str], id| {
        let copy = copy(&world, id, to, names);
        let value = |value: &SealedValue| json!({ "name": value.name, "sealed": BASE64.encode(&value.bytes) });
        json!({ "keys": keys(&copy.keys), "values": copy.values.iter().map(value).collect::<Vec<_>>() })
    };
    let name = "web/environment/A";
    let request = |id: OperationId, recovery: Value| {
        json!({
            "kind": "deploy", "operation_id": id, "hosts": ["alpha"],
            "spec": { "app": "shop", "services": { "web": { "image": "shop:1", "restart": "no",
                "environment": { "A": { "sealed": name } } } }, "networks": {}, "volumes": {} },
            "sealed": { "alpha": [{ "name": name, "sealed": BASE64.encode(&[7; 50]) }] }, "recovery": recovery,
        })
    };
    for (to, names, field) in [
        (&[1u8, 2][..], &[name][..], "recovery.keys"),
        (&[2], &[name], "recovery.keys"),
        (&[1], &["web/environment/B"], "recovery"),
        (&[1], &[name, "web/environment/B"], "recovery"),
    ] {
        let id = fresh();
        let answer = world.post("/api/v1/operations", &request(id, made(to, names, id))).await;
        assert_eq!(
            (answer.problem(), answer.json["errors"][0]["field"].as_str()),
            ("invalid", Some(field)),
            "{answer:?}"
        );
        assert_eq!(world.store.operation(id).await.unwrap(), None);
    }
    let id = fresh();
    let mut dry = request(id, made(&[1], &[name], id));
    dry["dry_run"] = json!(true);
    assert_eq!(world.post("/api/v1/operations", &dry).await.json["errors"][0]["field"], "recovery");
    let good = world.post("/api/v1/operations", &request(id, made(&[1], &[name], id))).await;
    assert_eq!(good.status, StatusCode::ACCEPTED, "{good:?}");
    // One without a copy, as clients before this sent it, is taken and cannot be recovered.
    let plain = fresh();
    let mut body = request(plain, Value::Null);
    body.as_object_mut().unwrap().remove("recovery");
    assert_eq!(world.post("/api/v1/operations", &body).await.status, StatusCode::ACCEPTED);
    assert_eq!(world.get(&format!("/api/v1/operations/{plain}/release")).await.json["recovery"], Value::Null);
    let path = format!("/api/v1/operations/{plain}/recovery");
    let answer = put(&world, &path, &rewrap_request(&world, id, &[1]).await).await;
    assert_eq!(answer.problem(), "operation-not-found", "{answer:?}");
}
