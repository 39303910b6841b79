//! Hosts that a restored control plane knows by what they brought: an owner takes them back, or refuses them, and until then
//! nothing is confirmed.

use axum::http::{Method, StatusCode};
use envelope::{
    audit::AuditKind,
    keys::{SigningKey, role},
    messages::{EnrolReceipt, KeyOffer, KeyReceipt, KeyRotation, ReportPosition, SealingKeyBytes},
    seal::SealingSecretKey,
};
use fleet::{
    model::{Host, HostStanding, UserRole},
    ports::{Store as _, Write},
    recovery::{self, Heard},
};
use ids::{Challenge, HostEpoch, HostId, ReportSequence, Sequence, Sha256, TlsExporter, TokenId};
use serde_json::{Value, json};
use session::{
    control::{KeysOnRecord, Presented},
    frames::KeyRecord,
};

use super::{
    restored,
    scenes::Scene,
    world::{NOW, World, facts},
};
use crate::routes::Route;

const PATH: &str = "/api/v1/recovery/claims";

fn agent(seed: u8) -> SigningKey<role::Agent> {
    SigningKey::from_seed(&[seed; 32])
}

fn sealing(seed: u8) -> SealingKeyBytes {
    SealingSecretKey::from_bytes(&[seed; 32]).public()
}

fn session_key() -> SigningKey<role::Session> {
    SigningKey::from_seed(&[3; 32])
}

fn receipt(world: &World, host: HostId, name: &str, seed: u8) -> Vec<u8> {
    let receipt = EnrolReceipt {
        fleet: world.root.current().fleet,
        host,
        host_epoch: HostEpoch(1),
        name: name.parse().unwrap(),
        roles: Vec::new(),
        token: TokenId::from_bytes([1; 16]),
        identity_key: agent(seed).public(),
        sealing_key: sealing(seed),
        time: NOW,
    };
    session_key().sign(&receipt).into_envelope()
}

/// A change of keys from one seed's to another's, with the receipt that was given for it.
fn change(world: &World, host: HostId, old: &SigningKey<role::Agent>, seed: u8, epoch: u64) -> KeyRecord {
    let (fleet, new, host_epoch) = (world.root.current().fleet, agent(seed), HostEpoch(epoch));
    let offer = KeyOffer {
        identity_key: new.public(),
        fleet,
        host,
        host_epoch,
        old_identity_key: old.public(),
        sealing_key: sealing(seed),
        control_nonce: Challenge([1; 32]),
        exporter: TlsExporter([2; 32]),
    };
    let rotation = old.sign(&KeyRotation { fleet, host, offer: new.sign(&offer).into_envelope() });
    let receipt = KeyReceipt {
        fleet,
        host,
        host_epoch,
        identity_key: new.public(),
        sealing_key: sealing(seed),
        rotation_sha256: rotation.payload_sha256(),
        time: NOW,
    };
    let receipt = Some(session_key().sign(&receipt).into_envelope());
    KeyRecord { rotation: rotation.into_envelope(), receipt }
}

/// A host enrolled after the backup, which has changed its keys once since, has come.
async fn stranger(world: &World, n: u8, name: &str) -> HostId {
    let host = HostId::from_bytes([n; 16]);
    let (receipt, change) = (receipt(world, host, name, n), change(world, host, &agent(n), n + 1, 2));
    came(world, host, None, receipt, vec![change]).await;
    host
}

async fn came(world: &World, host: HostId, known: Option<KeysOnRecord>, receipt: Vec<u8>, changes: Vec<KeyRecord>) {
    let root = world.shared.root();
    let presented = Presented::judge((root.current().fleet, host), known.as_ref(), &root, receipt, changes).unwrap();
    let last_report = ReportPosition { sequence: ReportSequence(2), sha256: Sha256([2; 32]) };
    let heard = Heard { at: NOW, high: Sequence(7), last_report, head: Some(restored::old_log(world, 41)) };
    let before = world.store.recovery_claims(Some(host)).await.unwrap().pop();
    let write = recovery::claimed(presented, heard, before.as_ref()).unwrap().expect("it is news");
    world.store.write(Write::Recovery(Box::new(write))).await.unwrap();
}

/// A restored world, and its owner's token in it.
async fn world() -> World {
    let mut world = World::of(UserRole::Owner).await;
    world.token = restored::restored(&world).await;
    world
}

async fn claims(world: &World) -> Vec<Value> {
    world.get("/api/v1/recovery").await.json["claims"].as_array().unwrap().clone()
}

fn reference(claim: &Value) -> Value {
    json!({ "host_id": claim["host_id"], "key_id": claim["key_id"] })
}

async fn host(world: &World, id: HostId) -> Host {
    world.store.host(id).await.unwrap().expect("a host")
}

/// An owner takes back a host that the backup does not know.
pub(super) async fn scene(world: &World, route: &Route) -> Scene {
    let token = restored::restored(world).await;
    let host = HostId::from_bytes([31; 16]);
    came(world, host, None, receipt(world, host, "late", 31), Vec::new()).await;
    let key = envelope::keys::key_id(&agent(31).public()).to_string();
    let body = json!({ "take": [{ "host_id": host, "key_id": key }] });
    let request = World::request(Method::POST, route.path, Some(&token), Some(&body));
    Scene { request, subject: "host late".to_owned() }
}

#[tokio::test]
async fn a_host_of_after_the_backup_is_taken_back_by_its_receipt_and_gets_nothing_before() {
    let world = world().await;
    let id = stranger(&world, 31, "late").await;
    let listed = claims(&world).await;
    assert_eq!(listed.len(), 1, "{listed:?}");
    assert_eq!((&listed[0]["name"], &listed[0]["host_epoch"]), (&json!("late"), &json!(2)));
    assert_eq!((&listed[0]["is_receipted"], &listed[0]["is_by_dropped_key"]), (&json!(true), &json!(false)));
    let status = world.get("/api/v1/recovery").await.json;
    assert_eq!(status["log_before"]["size"], 1_000, "what it has seen of the log counts, and this is no more");
    assert!(world.store.host(id).await.unwrap().is_none(), "it is no host yet");
    let confirm = world.post("/api/v1/recovery/confirm", &json!({ "revoke": [] })).await;
    assert!(confirm.problem() == "recovering" && confirm.text.contains("late"), "{confirm:?}");
    let none = recovery::confirmed(String::new(), &[], NOW);
    assert!(world.store.write(Write::Recovery(Box::new(none))).await.is_err(), "nor behind its back");

    let other = json!({ "take": [{ "host_id": id, "key_id": "00".repeat(16) }] });
    assert_eq!(world.post(PATH, &other).await.problem(), "changed-meanwhile", "another key than was looked at");
    let taken = world.post(PATH, &json!({ "take": [reference(&listed[0])] })).await;
    assert_eq!((taken.status, &taken.json["claims"]), (StatusCode::OK, &json!([])), "{taken:?}");
    let known = host(&world, id).await;
    assert_eq!((known.host_epoch, known.identity_key), (HostEpoch(2), agent(32).public()));
    assert_eq!(known.sealing_key, sealing(32));
    let former = world.store.host_former_keys(id).await.unwrap();
    assert_eq!((former.len(), former[0].identity_key), (1, agent(31).public()), "what it reported under it verifies");
    let kinds: Vec<_> = world.store.audit(0, 100).await.unwrap().iter().map(|row| row.kind).collect();
    assert!(kinds.contains(&AuditKind::HostKeyChange), "{kinds:?}");
    let heard = world.store.recovery_hosts(Some(id)).await.unwrap().pop().expect("it is to be taken up");
    assert_eq!((heard.adopted_at, heard.allocated), (None, Sequence(0)));
    let confirmed = world.post("/api/v1/recovery/confirm", &json!({ "revoke": [] })).await;
    assert_eq!(confirmed.json["stage"], "over", "{confirmed:?}");
    let order = world.post("/api/v1/operations", &facts(&["late"])).await;
    assert_eq!(order.problem(), "host-not-active", "it has not come yet, and so nobody knows what it can do");
}

#[tokio::test]
async fn a_host_revoked_after_the_backup_stays_out_whatever_it_shows() {
    let world = world().await;
    let id = stranger(&world, 31, "gone").await;
    let claim = reference(&claims(&world).await[0]);
    let refused = world.post(PATH, &json!({ "refuse": [claim] })).await;
    assert_eq!(refused.json["claims"], json!([]), "{refused:?}");
    assert!(matches!(host(&world, id).await.standing, HostStanding::Revoked { .. }), "known from now on as revoked");
    assert_eq!(refused.json["revoked"][0]["name"], "gone");
    // Its id is used up, so nobody can have it noted again.
    let root = world.shared.root();
    let (receipt, change) = (receipt(&world, id, "gone", 31), change(&world, id, &agent(31), 32, 2));
    let presented = Presented::judge((root.current().fleet, id), None, &root, receipt, vec![change]).unwrap();
    let last_report = ReportPosition::START;
    let heard = Heard { at: NOW, high: Sequence(0), last_report, head: None };
    let write = recovery::claimed(presented, heard, None).unwrap().unwrap();
    assert!(world.store.write(Write::Recovery(Box::new(write))).await.is_err());
    assert_eq!(world.post(PATH, &json!({ "take": [claim] })).await.problem(), "changed-meanwhile");
    // The same steps for one that was not revoked.
    let good = stranger(&world, 41, "good").await;
    let taken = world.post(PATH, &json!({ "take": [reference(&claims(&world).await[0])] })).await;
    assert_eq!(taken.status, StatusCode::OK, "{taken:?}");
    assert_eq!(host(&world, good).await.standing, HostStanding::Active);
}

#[tokio::test]
async fn a_known_host_with_later_keys_is_believed_by_the_better_evidence() {
    let world = world().await;
    let (id, old) = (HostId::from_bytes([60; 16]), agent(60));
    came(&world, id, None, receipt(&world, id, "alpha", 60), Vec::new()).await;
    let claim = reference(&claims(&world).await[0]);
    assert_eq!(world.post(PATH, &json!({ "take": [claim] })).await.status, StatusCode::OK);
    let known = host(&world, id).await;
    let on_record = || Some(KeysOnRecord { host_epoch: known.host_epoch, identity_key: old.public() });
    let receipt = || receipt(&world, known.id, "alpha", 60);
    // Whoever has the old key makes a change of keys of their own, which no session key vouches for.
    let forged = KeyRecord { receipt: None, ..change(&world, known.id, &old, 50, 2) };
    came(&world, known.id, on_record(), receipt(), vec![forged.clone()]).await;
    assert_eq!(claims(&world).await[0]["is_receipted"], false);
    came(&world, known.id, on_record(), receipt(), vec![change(&world, known.id, &old, 51, 2)]).await;
    let listed = claims(&world).await;
    assert_eq!(
        (listed.len(), &listed[0]["is_receipted"], &listed[0]["known_host_epoch"]),
        (1, &json!(true), &json!(1))
    );
    let root = world.shared.root();
    let again =
        Presented::judge((root.current().fleet, known.id), on_record().as_ref(), &root, receipt(), vec![forged]);
    let heard = Heard { at: NOW, high: Sequence(9), last_report: ReportPosition::START, head: None };
    let stands = world.store.recovery_claims(Some(known.id)).await.unwrap().pop();
    assert_eq!(recovery::claimed(again.unwrap(), heard, stands.as_ref()).unwrap_err(), recovery::NotNoted::Outranked);
    let taken = world.post(PATH, &json!({ "take": [reference(&listed[0])] })).await;
    assert_eq!(taken.status, StatusCode::OK, "{taken:?}");
    let now = host(&world, known.id).await;
    assert_eq!((now.host_epoch, now.identity_key), (HostEpoch(2), agent(51).public()));
}
