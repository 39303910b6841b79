//! What is recorded of what people do, and how the log is read.

use std::collections::BTreeMap;

use axum::http::{Method, StatusCode};
use envelope::{audit::AuditKind, messages::ReportStatus};
use serde_json::json;

use super::world::{PASSWORD, World, command_ids, facts};
use crate::routes;

/// Every route that changes something, and the entry it leaves.
async fn changes(world: &World) -> BTreeMap<(Method, &'static str), Option<AuditKind>> {
    let mut left = BTreeMap::new();
    let mut last = world.audit_kinds().await.len();
    let mut note = async |method: Method, path: &'static str, status: StatusCode, expected: StatusCode| {
        assert_eq!(status, expected, "{method} {path}");
        let kinds = world.audit_kinds().await;
        left.insert((method, path), kinds.get(last..).and_then(<[AuditKind]>::last).copied());
        last = kinds.len();
    };
    let sign_in = json!({ "name": "ada", "password": PASSWORD });
    let answer = world.post("/api/v1/session", &sign_in).await;
    note(Method::POST, "/api/v1/session", answer.status, StatusCode::CREATED).await;
    let answer = world.post("/api/v1/hosts", &json!({ "name": "beta" })).await;
    note(Method::POST, "/api/v1/hosts", answer.status, StatusCode::CREATED).await;
    let answer = world.post("/api/v1/operations", &facts(&["alpha"])).await;
    note(Method::POST, "/api/v1/operations", answer.status, StatusCode::ACCEPTED).await;
    let command = command_ids(&answer)[0];
    let answer = world.post(&format!("/api/v1/commands/{command}/cancel"), &json!({})).await;
    note(Method::POST, "/api/v1/commands/{id}/cancel", answer.status, StatusCode::OK).await;
    let answer = world.delete("/api/v1/hosts/alpha").await;
    note(Method::DELETE, "/api/v1/hosts/{name}", answer.status, StatusCode::NO_CONTENT).await;
    let answer = world.delete("/api/v1/session").await;
    note(Method::DELETE, "/api/v1/session", answer.status, StatusCode::NO_CONTENT).await;
    left
}

#[tokio::test]
async fn every_route_that_changes_something_leaves_an_entry() {
    let world = World::new().await;
    world.host("alpha").await;
    let left = changes(&world).await;
    for route in routes::table() {
        if route.method == Method::GET {
            continue;
        }
        let entry = left.get(&(route.method.clone(), route.path));
        assert!(matches!(entry, Some(Some(_))), "{} {} leaves {entry:?}", route.method, route.path);
    }
    let kinds: Vec<AuditKind> = left.into_values().flatten().collect();
    for kind in [
        AuditKind::SignIn,
        AuditKind::TokenIssued,
        AuditKind::Proposal,
        AuditKind::Cancel,
        AuditKind::HostRevoked,
        AuditKind::SignOut,
    ] {
        assert!(kinds.contains(&kind), "{kind} in {kinds:?}");
    }
}

#[tokio::test]
async fn reading_leaves_no_entry() {
    let world = World::new().await;
    world.host("alpha").await;
    let before = world.audit_kinds().await;
    for path in ["/api/v1/hosts", "/api/v1/hosts/alpha", "/api/v1/audit", "/api/v1/audit/export", "/api/v1/commands"] {
        assert_eq!(world.get(path).await.status, StatusCode::OK);
    }
    assert_eq!(world.audit_kinds().await, before);
}

#[tokio::test]
async fn pages_are_ascending_and_the_last_one_is_the_default() {
    let world = World::new().await;
    for n in 0..6 {
        world.host(&format!("host{n}")).await;
    }
    let size = world.audit_kinds().await.len() as u64;
    let indexes = async |query: &str| {
        let answer = world.get(&format!("/api/v1/audit{query}")).await;
        let rows = answer.json.as_array().unwrap_or_else(|| panic!("{answer:?}")).clone();
        rows.iter().map(|row| row["index"].as_u64().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(indexes("").await, (0..size).collect::<Vec<_>>());
    assert_eq!(indexes("?limit=3").await, (size - 3..size).collect::<Vec<_>>());
    assert_eq!(indexes("?first=2&limit=3").await, [2, 3, 4]);
    assert_eq!(indexes("?first=1000").await, Vec::<u64>::new());
    assert_eq!(world.get("/api/v1/audit?first=-1").await.problem(), "request-unreadable");
    assert_eq!(world.get(&format!("/api/v1/audit?first={}", u64::MAX)).await.problem(), "invalid");
    let first = world.get("/api/v1/audit?first=0&limit=1").await;
    assert_eq!(first.json[0]["kind"], "fleet-created");
}

#[tokio::test]
async fn an_export_holds_everything_that_proves_the_log() {
    let world = World::new().await;
    let host = world.host("alpha").await;
    let command = command_ids(&world.post("/api/v1/operations", &facts(&["alpha"])).await)[0];
    world.start(command).await;
    world.settle(command, (ReportStatus::Succeeded, "done", json!({})), Vec::new(), None).await.unwrap();
    // More than one page of entries.
    for n in 0..crate::limits::EXPORT_ROWS / 2 {
        world.host(&format!("h{n}")).await;
    }
    let answer = world.get("/api/v1/audit/export").await;
    let export: api::AuditExport = serde_json::from_str(&answer.text).unwrap();
    let bytes = |text: &str| data_encoding::BASE64.decode(text.as_bytes()).unwrap();
    assert_eq!(export.root_chain.iter().map(|root| bytes(root)).collect::<Vec<_>>(), world.root.chain());
    assert_eq!(bytes(&export.receipts[0]), host.receipt);
    let mut size = 0;
    let mut rows = Vec::new();
    while let Some(last) = export.entries.get(size) {
        assert_eq!(last.index, size as u64, "ascending, without gaps");
        rows.push(last);
        size += 1;
    }
    assert_eq!(size as u64, world.store.audit_position().size);
    assert!(size > crate::limits::EXPORT_ROWS as usize);
    let mut tree = envelope::merkle::Frontier::new();
    for row in rows {
        let record = bytes(row.record.as_ref().unwrap());
        assert_eq!(ids::sha256(&record).to_string(), row.record_sha256, "{}", row.subject);
        let kind = AuditKind::from_number(row.kind as u16).unwrap();
        let time = ids::UnixMs(row.time_ms);
        let leaf = envelope::audit::AuditLeaf::new(time, kind, &row.actor, &row.subject, ids::sha256(&record));
        tree.append(leaf.leaf_hash()).unwrap();
    }
    assert_eq!(tree.root(), world.store.audit_position().root, "the tree can be built from the export alone");
    let stored = world.stored(command).await;
    let has =
        |record: &[u8]| export.entries.iter().any(|row| row.record.as_deref().map(bytes).as_deref() == Some(record));
    assert!(has(&stored.seals[0].envelope) && has(stored.report.as_ref().unwrap()), "signed bytes are records");
}
