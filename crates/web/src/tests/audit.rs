//! What is recorded of what people do, and how the log is read.

use envelope::{audit::AuditKind, messages::ReportStatus};
use expect_test::expect_file;
use fleet::{model::UserRole, ports::Store as _};
use serde_json::json;

use super::{
    scenes,
    world::{World, command_ids, facts},
};
use crate::{access::Access, routes};

/// Each route is asked for what it is there for, in a world of its own, and the entries it left are
/// held against the table.
#[tokio::test]
async fn every_route_leaves_the_entry_of_its_line_and_no_other() {
    let mut gaps = String::new();
    for route in routes::table() {
        let world = World::of(UserRole::Owner).await;
        let what = format!("{} {}", route.method, route.path);
        let Some(scene) = scenes::scene(&world, &route).await else {
            gaps += &format!("{what}\n");
            continue;
        };
        let before = world.store.audit_position().size;
        let answer = world.send(scene.request).await;
        assert!(answer.status.is_success(), "{what}: {answer:?}");
        let rows = world.store.audit(before, 1000).await.unwrap();
        let left: Vec<_> = rows.iter().map(|row| (row.kind, row.actor.as_str())).collect();
        let expected: Vec<_> = route.leaf.iter().map(|kind| (*kind, "ada")).collect();
        assert_eq!(left, expected, "{what}");
        for row in &rows {
            assert!(row.subject.contains(&scene.subject), "{what}: {:?} is about {:?}", row.subject, scene.subject);
            assert!(row.record.as_ref().is_some_and(|record| !record.is_empty()), "{what}");
        }
    }
    expect_file!["golden/gaps.txt"].assert_eq(&gaps);
    assert_eq!(gaps, "", "these routes have no scene");
}

#[tokio::test]
async fn what_is_refused_leaves_no_entry() {
    for route in routes::table() {
        let (Access::Role(least) | Access::Person(least)) = route.access else { continue };
        let Some(role) = UserRole::ALL.into_iter().rev().find(|role| *role < least) else { continue };
        let world = World::of(role).await;
        let Some(scene) = scenes::scene(&world, &route).await else { continue };
        let before = world.store.audit_position();
        assert_eq!(world.send(scene.request).await.problem(), "not-allowed", "{} {}", route.method, route.path);
        assert_eq!(world.store.audit_position(), before);
    }
}

#[tokio::test]
async fn entries_are_newest_first_or_from_a_place_on() {
    let world = World::new().await;
    for n in 0..6 {
        world.host(&format!("host{n}")).await;
    }
    let size = world.audit_kinds().await.len() as u64;
    let indexes = async |query: &str| {
        let answer = world.get(&format!("/api/v1/audit{query}")).await;
        let rows = answer.json["items"].as_array().unwrap_or_else(|| panic!("{answer:?}")).clone();
        rows.iter().map(|row| row["index"].as_u64().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(indexes("").await, (0..size).rev().collect::<Vec<_>>());
    assert_eq!(indexes("?limit=3").await, (size - 3..size).rev().collect::<Vec<_>>());
    assert_eq!(indexes("?kind=fleet-created").await, [0]);
    assert_eq!(indexes("?sort=time&limit=2&actor=test").await, [0, 1]);
    assert_eq!(indexes("?actor=eve").await, Vec::<u64>::new());
    for query in ["?kind=x", "?first=1&kind=sign-in", "?first=1&sort=time", "?sort=index&actor=ada"] {
        assert_eq!(world.get(&format!("/api/v1/audit{query}")).await.problem(), "invalid", "{query}");
    }
    assert_eq!(indexes("?first=2&limit=3").await, [2, 3, 4]);
    assert_eq!(indexes("?first=1000").await, Vec::<u64>::new());
    assert_eq!(world.get("/api/v1/audit?first=-1").await.problem(), "request-unreadable");
    assert_eq!(world.get(&format!("/api/v1/audit?first={}", u64::MAX)).await.problem(), "invalid");
    let first = world.get("/api/v1/audit?first=0&limit=1").await;
    assert_eq!(first.json["items"][0]["kind"], "fleet-created");
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
    let before = world.store.audit_position();
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
    assert_eq!(size as u64 + 1, world.store.audit_position().size, "all but the export's own");
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
    assert_eq!(tree.root(), before.root, "the tree can be built from the export alone");
    let stored = world.stored(command).await;
    let has =
        |record: &[u8]| export.entries.iter().any(|row| row.record.as_deref().map(bytes).as_deref() == Some(record));
    assert!(has(&stored.seals[0].envelope) && has(stored.report.as_ref().unwrap()), "signed bytes are records");
}
