//! Root metadata through REST: what is put in force, what is refused, and who is told.

use std::sync::Arc;

use axum::http::{Method, StatusCode};
use data_encoding::BASE64;
use envelope::{
    audit::AuditKind,
    keys::{SigningKey, role},
    messages::RootMetadata,
    root::{Edit, TrustedRoot, next_version, sign_root},
};
use fleet::{
    model::UserRole,
    ports::{Later, Store as _},
};
use ids::{DurationMs, RootVersion, Sha256};
use serde_json::{Value, json};
use tokio::sync::watch;

use super::world::{Answer, NOW, World};
use crate::RootKeeper;

const PATH: &str = "/api/v1/fleet/root";

/// A control plane that signs with the session key of the world's first root metadata.
pub(super) struct Keeper(pub(super) watch::Sender<Arc<TrustedRoot>>);

impl RootKeeper for Keeper {
    fn hindered_by<'a>(&'a self, next: &'a RootMetadata) -> Later<'a, Option<String>> {
        let is_dropped = !next.session_keys.contains(&SigningKey::<role::Session>::from_seed(&[3; 32]).public());
        Box::pin(std::future::ready(is_dropped.then(|| "it drops the session key in use".to_owned())))
    }

    fn in_force(&self, root: Arc<TrustedRoot>) -> Later<'_, ()> {
        self.0.send_replace(root);
        Box::pin(std::future::ready(()))
    }

    fn recovered(&self, _: fleet::recovery::Recovery) {}
}

fn root_key(seed: u8) -> SigningKey<role::Root> {
    SigningKey::from_seed(&[seed; 32])
}

/// The next version with these edits, signed by those root keys. The world's own has seed 1.
fn signed(world: &World, edits: &[Edit], by: &[u8]) -> Value {
    let current = world.shared.root();
    let next = next_version(current.current(), edits, NOW).unwrap();
    let keys: Vec<_> = by.iter().map(|seed| root_key(*seed)).collect();
    json!({ "envelope": BASE64.encode(&sign_root(&keys.iter().collect::<Vec<_>>(), &next)) })
}

pub(super) fn request(world: &World, edits: &[Edit]) -> Value {
    signed(world, edits, &[1])
}

async fn put(world: &World, body: &Value) -> Answer {
    world.send(World::request(Method::PUT, PATH, Some(&world.token), Some(body))).await
}

#[tokio::test]
async fn the_next_version_comes_into_force_and_is_recorded_with_what_changes() {
    let world = World::of(UserRole::Owner).await;
    let approver = SigningKey::<role::Approver>::from_seed(&[50; 32]).public();
    let body = request(&world, &[Edit::AddApprover(approver), Edit::ApprovalsDestructive(1)]);
    let answer = put(&world, &body).await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    assert_eq!(answer.json["root_chain"].as_array().unwrap().len(), 2);
    assert_eq!(world.shared.root().version(), RootVersion(2), "in force at once");
    assert_eq!(world.store.root_chain().await.unwrap().len(), 2, "and stored");
    assert_eq!(world.get("/api/v1/fleet").await.json["root_version"], 2);

    let size = world.store.audit_position().size;
    let rows = world.store.audit(size - 1, 1).await.unwrap();
    assert_eq!((rows[0].kind, rows[0].actor.as_str()), (AuditKind::RootChange, "ada"));
    let record: Value = serde_json::from_slice(rows[0].record.as_ref().unwrap()).unwrap();
    assert_eq!((&record["version"], &record["applied_by"]), (&json!(2), &json!("ada")));
    let words: Vec<_> = record["changes"].as_array().unwrap().iter().map(|change| change["field"].clone()).collect();
    assert_eq!(words, ["approver_keys", "approvals.destructive"], "{record}");

    // The same again, as after a lost answer, changes and records nothing.
    let again = put(&world, &body).await;
    assert_eq!((again.status, world.store.audit_position().size), (StatusCode::OK, size));
}

#[tokio::test]
async fn what_does_not_verify_or_follow_is_refused_in_words() {
    let world = World::of(UserRole::Owner).await;
    let before = world.store.audit_position();
    let check = async |body: Value, problem: &str, words: &str| {
        let answer = put(&world, &body).await;
        assert_eq!(answer.problem(), problem, "{answer:?}");
        assert!(answer.json["detail"].as_str().unwrap().contains(words), "{answer:?}");
    };
    check(signed(&world, &[], &[]), "root-refused", "0 valid signatures").await;
    check(signed(&world, &[], &[9]), "root-refused", "have it signed").await;
    let two = Edit::RootKeys { keys: vec![root_key(1).public(), root_key(21).public()], threshold: 2 };
    check(signed(&world, core::slice::from_ref(&two), &[1]), "root-refused", "1 valid signatures").await;
    check(json!({ "envelope": "no base64!" }), "invalid", "base64").await;
    check(json!({ "envelope": "AAAA" }), "root-refused", "not well-formed").await;
    check(json!({}), "invalid", "envelope").await;

    let mut late = next_version(world.root.current(), &[], NOW).unwrap();
    late.version = RootVersion(3);
    let skipping = sign_root(&[&root_key(1)], &late);
    check(json!({ "envelope": BASE64.encode(&skipping) }), "root-not-next", "exactly the next").await;
    let mut expired = next_version(world.root.current(), &[], NOW).unwrap();
    (expired.issued, expired.expires) = (NOW.minus(DurationMs(2)), NOW.minus(DurationMs(1)));
    let expired = sign_root(&[&root_key(1)], &expired);
    check(json!({ "envelope": BASE64.encode(&expired) }), "root-refused", "expired").await;
    assert_eq!(world.store.audit_position(), before);
    assert_eq!(put(&world, &signed(&world, &[two], &[1, 21])).await.status, StatusCode::OK, "both signed");
}

#[tokio::test]
async fn a_key_that_is_in_use_stays() {
    let world = World::of(UserRole::Owner).await;
    let own = world.root.current().session_keys[0];
    let other = SigningKey::<role::Session>::from_seed(&[60; 32]).public();
    let dropped = request(&world, &[Edit::AddSessionKey(other), Edit::DropSessionKey(own)]);
    let answer = put(&world, &dropped).await;
    assert_eq!((answer.status, answer.problem()), (StatusCode::CONFLICT, "root-key-in-use"));
    assert_eq!(world.store.root_chain().await.unwrap().len(), 1);
    assert_eq!(put(&world, &request(&world, &[Edit::AddSessionKey(other)])).await.status, StatusCode::OK);
}

#[tokio::test]
async fn of_two_that_race_one_wins_and_the_other_hears_of_it() {
    let world = World::of(UserRole::Owner).await;
    let pin = |n: u8| request(&world, &[Edit::AddTlsPin(Sha256([n; 32]))]);
    let (one, two) = (pin(70), pin(71));
    let (first, second) = tokio::join!(put(&world, &one), put(&world, &two));
    let (won, lost) = if first.status == StatusCode::OK { (first, second) } else { (second, first) };
    assert_eq!(won.status, StatusCode::OK, "{won:?}");
    assert_eq!((lost.status, lost.problem()), (StatusCode::CONFLICT, "root-not-next"), "{lost:?}");
    assert!(lost.json["detail"].as_str().unwrap().contains("propose the change anew"), "{lost:?}");
    assert_eq!(world.store.root_chain().await.unwrap().len(), 2);
}
