//! Streams of commands: from a host's session to whoever reads, leased.

use axum::http::{Method, StatusCode};
use envelope::messages::ReportStatus;
use fleet::ports::{StreamLease, StreamPiece};
use ids::{CommandId, HostId};
use serde_json::json;

use super::{
    stream::Watcher,
    world::{World, command_ids, facts, follow},
};
use crate::limits;

/// A stream that is read.
struct Scene {
    world: World,
    host: HostId,
    command: CommandId,
    path: String,
    watcher: Watcher,
}

async fn scene() -> Scene {
    let world = World::new().await;
    let host = world.host("alpha").await.id;
    let answer = world.post("/api/v1/operations", &follow(&["alpha"])).await;
    let command = command_ids(&answer)[0];
    world.start(command).await;
    let path = format!("{}/output", answer.header("location"));
    let watcher = Watcher::of(&world, &path).await;
    Scene { world, host, command, path, watcher }
}

impl Scene {
    fn put(&self, offset: u64, text: &str) {
        let (host, command, text) = (self.host, self.command, text.to_owned());
        self.world.shared.streams.put(StreamPiece { host, command, offset, text });
    }

    fn leases(&self) -> Vec<(HostId, StreamLease)> {
        self.world.told.leases.lock().unwrap().clone()
    }
}

#[tokio::test]
async fn what_comes_is_passed_on_until_the_command_has_ended_and_all_of_it_is_there() {
    let mut scene = scene().await;
    scene.put(0, "one\n");
    let first = scene.watcher.next().await.unwrap();
    assert_eq!((&first["event"], &first["text"], &first["offset"]), (&json!("output"), &json!("one\n"), &json!(0)));
    assert_eq!((&first["host"], &first["command_id"]), (&json!("alpha"), &json!(scene.command)));
    scene.put(4, "two\n");
    assert_eq!(scene.watcher.next().await.unwrap()["offset"], 4);

    // The report overtakes the last piece: that is waited for.
    let ended = (ReportStatus::Succeeded, "over", json!({ "output_bytes": 14 }));
    scene.world.settle(scene.command, ended, Vec::new(), None).await.unwrap();
    scene.put(8, "three\n");
    assert_eq!(scene.watcher.next().await.unwrap()["text"], "three\n");
    let last = scene.watcher.next().await.unwrap();
    assert_eq!((&last["event"], &last["operation"]["state"]), (&json!("operation"), &json!("succeeded")));
    assert_eq!(scene.watcher.next().await, None);
    assert_eq!(scene.world.shared.metrics.event_streams.get(), 0, "its place is free again");
    let window = limits::STREAM_WINDOW_BYTES as u64;
    let leases = scene.leases();
    assert!(!leases.is_empty(), "it was leased");
    for (host, lease) in leases {
        assert!(host == scene.host && lease.command == scene.command && !lease.over, "{lease:?}");
        assert!((window..=window + 14).contains(&lease.until), "{lease:?}");
    }
}

#[tokio::test]
async fn a_reader_that_goes_away_gives_the_lease_back() {
    let mut scene = scene().await;
    scene.put(0, "one\n");
    scene.watcher.next().await.unwrap();
    let second = scene.world.send(World::request(Method::GET, &scene.path, Some(&scene.world.token), None)).await;
    assert_eq!((second.status, second.problem()), (StatusCode::CONFLICT, "operation-conflict"), "{second:?}");
    drop(scene.watcher);
    let leases = scene.world.told.leases.lock().unwrap().clone();
    let last = leases.last().unwrap();
    assert!(last.0 == scene.host && last.1.command == scene.command && last.1.over, "{last:?}");
    // It may be read again.
    Watcher::of(&scene.world, &scene.path).await;
}

#[tokio::test]
async fn a_reader_that_takes_nothing_renews_nothing_and_is_sent_no_more_than_a_window() {
    let mut scene = scene().await;
    scene.put(0, "one\n");
    scene.watcher.next().await.unwrap();
    let window = limits::STREAM_WINDOW_BYTES;
    let held = scene.leases();
    let allowed = held.last().unwrap().1.until;
    assert!(allowed <= (window + 4) as u64, "{allowed}");
    // Longer than a lease lasts at the host: it runs out there, whatever this program does meanwhile.
    tokio::time::pause();
    for _ in 0..20 {
        tokio::time::advance(limits::STREAM_RENEW).await;
    }
    tokio::time::resume();
    scene.put(4, &format!("{}\n", "x".repeat(window - 1)));
    assert_eq!(scene.leases(), held, "nobody reads");
    // The reader moves on: what waited comes whole, and so much more is allowed.
    let next = scene.watcher.next().await.unwrap();
    assert_eq!((&next["offset"], next["text"].as_str().unwrap().len()), (&json!(4), window));
    scene.put(4 + window as u64, "on\n");
    assert_eq!(scene.watcher.next().await.unwrap()["text"], "on\n");
    let renewed = scene.leases().last().unwrap().1.until;
    assert!(renewed > allowed && renewed <= (2 * window + 7) as u64, "{renewed}");
}

#[tokio::test]
async fn only_what_streams_can_be_read() {
    let world = World::new().await;
    world.host("alpha").await;
    let answer = world.post("/api/v1/operations", &facts(&["alpha"])).await;
    let path = format!("{}/output", answer.header("location"));
    let refused = world.send(World::request(Method::GET, &path, Some(&world.token), None)).await;
    assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY, "{refused:?}");
    assert!(refused.json["detail"].as_str().unwrap().contains("has no stream"), "{refused:?}");
    assert_eq!(world.shared.metrics.event_streams.get(), 0, "its place is free again");
}
