//! After a restore from a backup, through REST: nothing is ordered, root metadata that does not fit is refused, and an owner
//! ends it.

use axum::http::{Method, StatusCode};
use data_encoding::BASE64;
use envelope::{
    messages::{LogPosition, ReportPosition},
    root::{Edit, TrustedRoot},
};
use fleet::{
    model::UserRole,
    ports::{Store as _, StoreError, Write},
    recovery::{self, Heard, Recovery, RecoveryWrite},
};
use ids::{AuditLogId, DurationMs, HostId, ReportSequence, Sequence, Sha256};
use serde_json::{Value, json};

use super::{
    root,
    scenes::Scene,
    world::{NOW, World, facts},
};
use crate::routes::Route;

const NEW_LOG: AuditLogId = AuditLogId::from_bytes([7; 16]);

pub(super) fn old_log(world: &World, size: u64) -> LogPosition {
    LogPosition { log: world.root.current().audit_log, size, root: Sha256([9; 32]) }
}

/// Marks the world's database as restored, and signs its account in anew.
async fn gathering(world: &World) -> String {
    let position = world.store.audit_position();
    let log = LogPosition { size: position.size, root: position.root, ..old_log(world, 0) };
    let recovery = Recovery { restored_at: NOW, backup_made_at: NOW, log, confirmed_at: None };
    world.store.write(Write::Recovery(Box::new(recovery::restored(recovery, 0)))).await.unwrap();
    world.signed_in(&world.user, NOW.plus(DurationMs::from_days(1))).await.0
}

fn restoring(world: &World, size: u64) -> [Edit; 2] {
    [Edit::RaiseEpoch, Edit::RestoredLog { before: old_log(world, size), log: NEW_LOG }]
}

/// Restored, and root metadata of after it in force: it waits to be confirmed. The token of who may do so.
pub(super) async fn restored(world: &World) -> String {
    let token = gathering(world).await;
    let body = root::request(world, &restoring(world, 1_000));
    let mut next = TrustedRoot::clone(&world.shared.root());
    next.advance(&BASE64.decode(body["envelope"].as_str().unwrap().as_bytes()).unwrap()).unwrap();
    world.shared.root_keeper.in_force(next.into()).await;
    token
}

/// An owner confirms that no host but those on the list is revoked.
pub(super) async fn scene(world: &World, route: &Route) -> Scene {
    let (token, body) = (restored(world).await, json!({ "revoke": [] }));
    let request = World::request(Method::POST, route.path, Some(&token), Some(&body));
    Scene { request, subject: "list of revoked hosts".to_owned() }
}

async fn heard(world: &World, host: HostId, size: u64) {
    let heard = Heard {
        at: NOW,
        high: Sequence(3),
        last_report: ReportPosition { sequence: ReportSequence(0), sha256: Sha256::ZERO },
        head: Some(old_log(world, size)),
    };
    world.store.write(Write::Recovery(Box::new(RecoveryWrite::Heard { host, heard }))).await.unwrap();
}

#[tokio::test]
async fn a_restored_control_plane_orders_nothing_before_an_owner_has_confirmed() {
    let mut world = World::of(UserRole::Owner).await;
    let (host, lost) = (world.host("alpha").await, world.host("beta").await);
    let before = world.token.clone();
    world.token = gathering(&world).await;
    let old = World::request(Method::GET, "/api/v1/fleet", Some(&before), None);
    assert_eq!(world.send(old).await.status, StatusCode::UNAUTHORIZED, "whoever was signed in is not any more");
    heard(&world, host.id, 40).await;

    let status = world.get("/api/v1/recovery").await.json;
    assert_eq!((&status["stage"], &status["log_before"]["size"]), (&json!("gathering"), &json!(40)), "{status}");
    assert_eq!((&status["hosts"][0]["orders_lost"], &status["hosts"][1]["heard_at"]), (&json!(3), &Value::Null));
    let join = json!({ "name": "gamma" });
    for (path, body) in [("/api/v1/operations", facts(&["alpha"])), ("/api/v1/hosts", join.clone())] {
        assert_eq!(world.post(path, &body).await.problem(), "recovering", "{path}");
    }
    let none = json!({ "revoke": [] });
    assert_eq!(world.post("/api/v1/recovery/confirm", &none).await.problem(), "recovering", "no root metadata yet");

    let put = async |edits: &[Edit]| {
        let body = root::request(&world, edits);
        world.send(World::request(Method::PUT, "/api/v1/fleet/root", Some(&world.token), Some(&body))).await
    };
    for (edits, why) in [
        (vec![], "does not raise the epoch"),
        (vec![Edit::RaiseEpoch], "does not name a new audit log"),
        (restoring(&world, 39).to_vec(), "at an earlier position than a host has seen"),
    ] {
        let answer = put(&edits).await;
        assert!(answer.problem() == "recovering" && answer.text.contains(why), "{answer:?}");
    }
    assert_eq!(put(&restoring(&world, 40)).await.status, StatusCode::OK);
    assert_eq!(world.post("/api/v1/operations", &facts(&["alpha"])).await.problem(), "recovering", "not confirmed");
    // A host that comes now and has seen more needs another version; the log stays the new one.
    heard(&world, lost.id, 41).await;
    let status = world.get("/api/v1/recovery").await.json;
    assert_eq!((&status["stage"], &status["hosts"][1]["is_ahead"]), (&json!("confirming"), &json!(true)), "{status}");
    let before = old_log(&world, 41);
    let other = Edit::RestoredLog { before, log: AuditLogId::from_bytes([8; 16]) };
    assert!(put(&[other]).await.text.contains("names another audit log once more"));
    assert_eq!(put(&[Edit::RestoredLog { before, log: NEW_LOG }]).await.status, StatusCode::OK);
    assert_eq!(put(&[]).await.status, StatusCode::OK, "any other change");

    let nobody = json!({ "revoke": ["nobody"] });
    assert_eq!(world.post("/api/v1/recovery/confirm", &nobody).await.problem(), "host-not-found");
    let confirmed = world.post("/api/v1/recovery/confirm", &json!({ "revoke": ["beta"] })).await;
    assert_eq!(confirmed.json["stage"], "over", "{confirmed:?}");
    assert_eq!(confirmed.json["revoked"][0]["name"], "beta");
    assert_eq!(world.post("/api/v1/operations", &facts(&["alpha"])).await.status, StatusCode::ACCEPTED);
    assert_eq!(world.post("/api/v1/hosts", &join).await.status, StatusCode::CREATED);
    assert_eq!(world.post("/api/v1/recovery/confirm", &none).await.problem(), "changed-meanwhile", "once");
}

#[tokio::test]
async fn tokens_of_before_a_restore_are_void() {
    let world = World::of(UserRole::Owner).await;
    let (token, id) = world.api_token(&world.user, UserRole::Owner, NOW.plus(DurationMs::from_days(1))).await;
    let ask = async |token: &str| world.send(World::request(Method::GET, "/api/v1/fleet", Some(token), None)).await;
    assert_eq!(ask(&token).await.status, StatusCode::OK);
    let anew = gathering(&world).await;
    assert_eq!(ask(&token).await.status, StatusCode::UNAUTHORIZED);
    assert!(world.store.api_token(id).await.unwrap().unwrap().revoked_at.is_some());
    assert_eq!(ask(&anew).await.status, StatusCode::OK);
    let again = world.store.write(Write::Recovery(Box::new(recovery::confirmed(String::new(), &[], NOW)))).await;
    assert!(again.is_ok(), "it waited to be confirmed");
    let again = world.store.write(Write::Recovery(Box::new(recovery::confirmed(String::new(), &[], NOW)))).await;
    assert!(matches!(again, Err(StoreError::Conflict(_))), "{again:?}");
}
