//! Changes of the control plane's own keys through REST. Who holds the keys is played here; that those who really do
//! do so is tested where they are.

use std::sync::Arc;

use axum::http::StatusCode;
use envelope::{
    audit::AuditKind,
    keys::{SigningKey, role},
    messages::StandingOrder,
    root::{OnlineKey, OnlineRole, StagedKeys},
    signer_port::SignError,
};
use fleet::{
    keys::{ChangeState, HeldOnlineKey, KeyChange},
    model::UserRole,
    ports::{Later, Store as _, Write},
};
use ids::{DurationMs, RootVersion};
use serde_json::json;
use tokio::sync::{Mutex, OwnedMutexGuard};

use super::world::{NOW, World, entry};
use crate::KeyKeeper;

const PATH: &str = "/api/v1/keys/session/rotation";

fn key(seed: u8) -> OnlineKey {
    SigningKey::<role::Session>::from_seed(&[seed; 32]).public().into()
}

/// Holds the keys of the world's first root metadata, and makes one with seed 90.
#[derive(Default)]
pub(super) struct HeldHere {
    turn: Arc<Mutex<()>>,
}

/// The world's key of that role in use; see its root metadata.
fn in_use(role: OnlineRole) -> OnlineKey {
    match role {
        OnlineRole::Command => key(2),
        OnlineRole::Session => key(3),
        OnlineRole::Audit => key(4),
        OnlineRole::Tls => OnlineKey([9; 32]),
    }
}

impl KeyKeeper for HeldHere {
    fn turn(&self) -> Later<'_, OwnedMutexGuard<()>> {
        Box::pin(self.turn.clone().lock_owned())
    }

    fn held(&self) -> Later<'_, Result<Vec<HeldOnlineKey>, String>> {
        let held = |role| HeldOnlineKey { role, key: in_use(role), is_in_use: true, is_void: false, made_at: None };
        Box::pin(std::future::ready(Ok(OnlineRole::ALL.map(held).to_vec())))
    }

    fn prepare(&self, role: OnlineRole, stolen: Option<OnlineKey>) -> Later<'_, Result<StagedKeys, String>> {
        let (new, fresh) = match role {
            OnlineRole::Tls => (OnlineKey([10; 32]), OnlineKey([11; 32])),
            _ => (key(90), key(90)),
        };
        let old = stolen.unwrap_or_else(|| in_use(role));
        Box::pin(std::future::ready(Ok(StagedKeys { role, old, new, fresh, is_emergency: stolen.is_some() })))
    }

    fn sign_standing(&self, order: StandingOrder) -> Later<'_, Result<Vec<u8>, SignError>> {
        let signed = SigningKey::<role::Command>::from_seed(&[2; 32]).sign(&order).into_envelope();
        Box::pin(std::future::ready(Ok(signed)))
    }

    fn look(&self) {}
}

impl World {
    /// A change of the session key, in that state.
    pub(super) async fn key_change(&self, state: ChangeState) {
        let (role, fresh) = (OnlineRole::Session, key(90));
        let keys = StagedKeys { role, old: key(3), new: fresh, fresh, is_emergency: false };
        let change = KeyChange { state, ..KeyChange::new(keys, "test".to_owned(), NOW) };
        let audit = entry(AuditKind::KeyChange);
        self.store.write(Write::KeyChangeBegin { change: Box::new(change), audit }).await.unwrap();
    }
}

#[tokio::test]
async fn a_change_is_begun_once_hastened_and_given_up() {
    let world = World::of(UserRole::Owner).await;
    let begun = world.post(PATH, &json!(null)).await;
    assert_eq!((begun.status, &begun.json["state"]), (StatusCode::OK, &json!("prepared")), "{begun:?}");
    assert_eq!(
        (&begun.json["old_key"], &begun.json["new_key"]),
        (&json!(key(3).to_string()), &json!(key(90).to_string()))
    );
    assert_eq!(begun.json["begun_by"], "ada");
    let size = world.store.audit_position().size;
    let again = world.post(PATH, &json!(null)).await;
    assert_eq!((&again.json, world.store.audit_position().size), (&begun.json, size), "looked at, not begun again");

    let hastened = world.post(&format!("{PATH}/activate"), &json!(null)).await;
    assert_eq!((&hastened.json["state"], &hastened.json["activate_anyway"]), (&json!("prepared"), &json!(true)));
    let given_up = world.delete(PATH).await;
    assert_eq!((given_up.status, &given_up.json["state"]), (StatusCode::OK, &json!("withdrawn")), "{given_up:?}");
    let size = world.store.audit_position().size;
    assert_eq!(world.delete(PATH).await.json["state"], "withdrawn", "once is enough");
    assert_eq!(world.store.audit_position().size, size);
    for answer in [world.post(PATH, &json!(null)).await, world.post(&format!("{PATH}/activate"), &json!(null)).await] {
        assert_eq!((answer.status, answer.problem()), (StatusCode::CONFLICT, "key-change-open"), "{answer:?}");
    }
    let kinds = world.audit_kinds().await;
    assert_eq!(kinds.iter().filter(|kind| **kind == AuditKind::KeyChange).count(), 3, "{kinds:?}");
}

#[tokio::test]
async fn what_is_not_under_way_cannot_be_hastened_and_what_is_in_use_cannot_be_given_up() {
    let world = World::of(UserRole::Owner).await;
    for answer in [world.delete(PATH).await, world.post(&format!("{PATH}/activate"), &json!(null)).await] {
        assert_eq!((answer.status, answer.problem()), (StatusCode::NOT_FOUND, "key-change-not-found"), "{answer:?}");
    }
    world.key_change(ChangeState::Activated).await;
    for answer in [world.delete(PATH).await, world.post(&format!("{PATH}/activate"), &json!(null)).await] {
        assert_eq!((answer.status, answer.problem()), (StatusCode::CONFLICT, "key-change-open"), "{answer:?}");
    }
    let strange = world.post("/api/v1/keys/root/rotation", &json!(null)).await;
    assert_eq!(strange.problem(), "request-unreadable", "{strange:?}");
}

#[tokio::test]
async fn a_stolen_key_does_not_wait_for_another_change() {
    let world = World::of(UserRole::Owner).await;
    let path = "/api/v1/keys/command/revocation";
    world.post("/api/v1/keys/command/rotation", &json!(null)).await;
    let unknown = world.post(path, &json!({ "key": key(77).to_string() })).await;
    assert_eq!((unknown.status, unknown.problem()), (StatusCode::UNPROCESSABLE_ENTITY, "invalid"), "{unknown:?}");
    assert_eq!(world.post(path, &json!({ "key": "12" })).await.problem(), "invalid");
    let stolen = json!({ "key": key(2).to_string() });
    let begun = world.post(path, &stolen).await;
    assert_eq!((&begun.json["emergency"], &begun.json["state"]), (&json!(true), &json!("prepared")), "{begun:?}");
    let size = world.store.audit_position().size;
    assert_eq!(world.post(path, &stolen).await.json, begun.json);
    assert_eq!(world.store.audit_position().size, size);
    let rotated = world.post("/api/v1/keys/command/rotation", &json!(null)).await;
    assert_eq!((rotated.status, rotated.problem()), (StatusCode::CONFLICT, "key-change-open"), "{rotated:?}");
    assert!(rotated.json["detail"].as_str().unwrap().contains("key revoke command"), "{rotated:?}");
    let list = world.get("/api/v1/keys").await;
    let states: Vec<_> = list.json["changes"].as_array().unwrap().iter().map(|change| &change["state"]).collect();
    assert_eq!(states, ["prepared", "aborted"], "{list:?}");
}

#[tokio::test]
async fn the_list_names_every_key_and_who_is_waited_for() {
    let world = World::of(UserRole::Viewer).await;
    let alpha = world.host("alpha").await;
    world.host("beta").await;
    world.store.write(Write::HostLeft { host: alpha.id, at: NOW }).await.unwrap();
    world.key_change(ChangeState::Published).await;
    let moved = fleet::keys::KeyChangeMove {
        role: OnlineRole::Session,
        new: key(90),
        from: ChangeState::Published,
        to: ChangeState::Published,
        root_version: Some(RootVersion(2)),
        activated_at: None,
        is_anyway: false,
        at: NOW,
        audit: entry(AuditKind::KeyChange),
    };
    world.store.write(Write::KeyChangeMove(Box::new(moved))).await.unwrap();
    let list = world.get("/api/v1/keys").await;
    let keys = list.json["keys"].as_array().unwrap();
    let of = |role: &str| {
        keys.iter().filter(|key| key["role"] == role).map(|key| key["state"].as_str().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!((of("command"), of("audit")), (vec!["in_use"], vec!["in_use"]), "{keys:#?}");
    assert_eq!((of("session"), of("tls")), (vec!["in_use", "unlisted"], vec!["in_use", "listed"]), "{keys:#?}");
    let command = &keys[0];
    assert_eq!(command["key_id"], key(2).id().to_string());
    let due: api::Timestamp = NOW.plus(DurationMs::from_days(180)).into();
    assert_eq!(command["rotation_due_at"], json!(due), "listed since the fleet was made");
    let change = &list.json["changes"][0];
    assert_eq!((&change["hosts"], &change["hosts_acknowledged"]), (&json!(1), &json!(0)), "{change:#}");
    assert_eq!((&change["hosts_waiting"], &change["hosts_never_seen"]), (&json!(["alpha"]), &json!(["beta"])));
    assert!(!list.text.contains("seed"), "public halves only");
}
