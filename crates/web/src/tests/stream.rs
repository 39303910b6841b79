//! Server-sent events.

use axum::{body::BodyDataStream, http::Method};
use envelope::messages::ReportStatus;
use fleet::{
    model::UserRole,
    ports::{Event, Notifier as _, Store as _, Write},
};
use futures_util::StreamExt as _;
use ids::DurationMs;
use serde_json::{Value, json};
use tokio::time::{Duration, timeout};
use tower::ServiceExt as _;

use super::openapi::event_is_documented;
use super::world::{NOW, World, command_ids, deploy, facts};
use crate::{edge::Peer, limits, records};

pub(super) struct Watcher {
    body: BodyDataStream,
    read: String,
}

impl Watcher {
    pub(super) async fn of(world: &World, path: &str) -> Self {
        let mut request = World::request(Method::GET, path, Some(&world.token), None);
        request.extensions_mut().insert(Peer(([127, 0, 0, 1], 50_000).into()));
        let response = world.router.clone().oneshot(request).await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Self { body: response.into_body().into_data_stream(), read: String::new() }
    }

    /// The next event with its name checked; none when the stream has ended.
    pub(super) async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some((frame, rest)) = self.read.split_once("\n\n") {
                let frame = frame.to_owned();
                self.read = rest.to_owned();
                let field = |name: &str| frame.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
                let Some(data) = field("data:") else { continue };
                let data: Value = serde_json::from_str(data).unwrap();
                event_is_documented(&data);
                assert_eq!(data["event"].as_str(), field("event:"));
                return Some(data);
            }
            let piece = timeout(Duration::from_secs(20), self.body.next()).await.expect("an event within 20 s");
            self.read += std::str::from_utf8(&piece?.unwrap()).unwrap();
        }
    }

    async fn status(&mut self) -> (String, String) {
        let event = self.next().await.expect("an event");
        assert_eq!(event["event"], "command", "{event}");
        (event["action"].as_str().unwrap().to_owned(), event["status"].as_str().unwrap().to_owned())
    }
}

fn said(action: &str, status: &str) -> (String, String) {
    (action.to_owned(), status.to_owned())
}

#[tokio::test]
async fn a_stream_begins_with_what_is_and_ends_with_the_operation() {
    let world = World::new().await;
    world.host("alpha").await;
    let answer = world.post("/api/v1/operations", &deploy(&["alpha"])).await;
    let plan = command_ids(&answer)[0];
    let command = world.stored(plan).await;
    let mut watcher = Watcher::of(&world, &format!("{}/events", answer.header("location"))).await;
    assert_eq!(watcher.status().await, said("app.plan@2", "queued"));
    world.start(plan).await;
    assert_eq!(watcher.status().await, said("app.plan@2", "delivered"));
    assert_eq!(watcher.status().await, said("app.plan@2", "running"));
    world.told.publish(Event::Progress {
        command: plan,
        operation: command.order.operation,
        host: command.order.host,
        text: "pulling\nshop:1".to_owned(),
    });
    let progress = watcher.next().await.unwrap();
    assert_eq!((&progress["text"], &progress["host"]), (&json!("pulling\nshop:1"), &json!("alpha")));
    let mut order = command.order.clone();
    order.command = super::world::fresh();
    order.action = "app.deploy".parse().unwrap();
    let deploying = order.command;
    let next = fleet::model::NewCommand { order, app: None, sealed: Vec::new(), held: None };
    world.settle(plan, (ReportStatus::Succeeded, "planned", json!({})), vec![next], None).await.unwrap();
    assert_eq!(watcher.status().await, said("app.plan@2", "succeeded"));
    assert_eq!(watcher.status().await, said("app.deploy@2", "queued"), "the second stage shows by itself");
    world.start(deploying).await;
    assert_eq!(watcher.status().await, said("app.deploy@2", "delivered"));
    assert_eq!(watcher.status().await, said("app.deploy@2", "running"));
    let rolled_back = (ReportStatus::RolledBack, "put back", json!({ "why": "unhealthy" }));
    world.settle(deploying, rolled_back, Vec::new(), None).await.unwrap();
    assert_eq!(watcher.status().await, said("app.deploy@2", "rolled_back"));
    let last = watcher.next().await.unwrap();
    assert_eq!((&last["event"], &last["operation"]["state"]), (&json!("operation"), &json!("failed")));
    assert_eq!(last["operation"]["commands"][1]["result"], json!({ "why": "unhealthy" }));
    assert_eq!(watcher.next().await, None);
    assert_eq!(world.shared.metrics.event_streams.get(), 0, "its place is free again");

    let mut late = Watcher::of(&world, &format!("{}/events", answer.header("location"))).await;
    assert_eq!(late.status().await, said("app.plan@2", "succeeded"));
    assert_eq!(late.status().await, said("app.deploy@2", "rolled_back"));
    assert_eq!(late.next().await.unwrap()["event"], "operation");
    assert_eq!(late.next().await, None);
}

#[tokio::test]
async fn a_commands_stream_ends_with_its_end_and_old_news_is_not_told() {
    let world = World::new().await;
    let host = world.host("alpha").await;
    let command = command_ids(&world.post("/api/v1/operations", &facts(&["alpha"])).await)[0];
    world.start(command).await;
    let mut watcher = Watcher::of(&world, &format!("/api/v1/commands/{command}/events")).await;
    assert_eq!(watcher.status().await, said("host.facts@1", "running"));
    let operation = world.stored(command).await.order.operation;
    let late = |status| Event::Command { command, operation, host: host.id, status, message: String::new() };
    world.told.publish(late(fleet::model::CommandStatus::Delivered));
    world.told.publish(late(fleet::model::CommandStatus::Running));
    world.settle(command, (ReportStatus::Succeeded, "done", json!({})), Vec::new(), None).await.unwrap();
    assert_eq!(watcher.status().await, said("host.facts@1", "succeeded"));
    assert_eq!(watcher.next().await, None);
}

#[tokio::test]
async fn a_stream_that_lags_reads_the_store_again() {
    let world = World::new().await;
    let host = world.host("alpha").await;
    let command = command_ids(&world.post("/api/v1/operations", &facts(&["alpha"])).await)[0];
    let mut watcher = Watcher::of(&world, &format!("/api/v1/commands/{command}/events")).await;
    assert_eq!(watcher.status().await, said("host.facts@1", "queued"));
    world.start(command).await;
    world.settle(command, (ReportStatus::Succeeded, "done", json!({})), Vec::new(), None).await.unwrap();
    // More than the channel holds: what was announced above is lost.
    for _ in 0..200 {
        world.told.publish(Event::Host { host: host.id });
    }
    assert_eq!(watcher.status().await, said("host.facts@1", "succeeded"));
    assert_eq!(watcher.next().await, None);
}

#[tokio::test]
async fn streams_end_when_the_program_does() {
    let world = World::new().await;
    world.host("alpha").await;
    let answer = world.post("/api/v1/operations", &facts(&["alpha"])).await;
    let mut watcher = Watcher::of(&world, &format!("{}/events", answer.header("location"))).await;
    watcher.status().await;
    world.closing.send_replace(true);
    assert_eq!(watcher.next().await, None);
}

#[tokio::test]
async fn a_stream_ends_when_its_reader_is_signed_out_and_quiet_ones_are_kept_alive() {
    let world = World::new().await;
    world.host("alpha").await;
    let answer = world.post("/api/v1/operations", &facts(&["alpha"])).await;
    let mut watcher = Watcher::of(&world, &format!("{}/events", answer.header("location"))).await;
    watcher.status().await;
    // Behind the API, so that nothing is announced: the stream has to ask by itself.
    let audit = records::sign_out(&world.principal(), super::world::NOW);
    world.store.write(Write::UserSessionEnd { session: world.session, audit }).await.unwrap();
    // The store's own waits are short of these spans; only this room's timers are moved on.
    tokio::time::pause();
    let mut ended = false;
    for _ in 0..20 {
        tokio::time::advance(limits::EVENT_HEARTBEAT).await;
        tokio::time::resume();
        let piece = timeout(Duration::from_secs(20), watcher.body.next()).await.expect("a comment or the end");
        tokio::time::pause();
        match piece {
            Some(piece) => assert!(piece.unwrap().starts_with(b": "), "a comment"),
            None => {
                ended = true;
                break;
            }
        }
    }
    assert!(ended);
}

#[tokio::test]
async fn streams_end_at_once_with_what_let_their_readers_in() {
    for end in ["session", "token", "disable"] {
        let mut world = World::of(UserRole::Owner).await;
        world.host("alpha").await;
        let answer = world.post("/api/v1/operations", &facts(&["alpha"])).await;
        let own = world.token.clone();
        let bob = world.user("bob", UserRole::Viewer).await;
        let later = NOW.plus(DurationMs::from_days(1));
        let (session, session_id) = world.signed_in(&bob, later).await;
        let (token, token_id) = world.api_token(&bob, UserRole::Viewer, later).await;
        world.token = if end == "token" { token } else { session };
        let mut watcher = Watcher::of(&world, &format!("{}/events", answer.header("location"))).await;
        watcher.status().await;
        world.token = own;
        let ended = match end {
            "session" => world.delete(&format!("/api/v1/sessions/{session_id}")).await,
            "token" => world.delete(&format!("/api/v1/tokens/{token_id}")).await,
            _ => world.post("/api/v1/users/bob/disable", &json!({})).await,
        };
        assert!(ended.status.is_success(), "{ended:?}");
        assert_eq!(watcher.next().await, None, "{end}");
    }
}

#[tokio::test]
async fn one_account_cannot_take_every_stream() {
    let world = World::of(UserRole::Viewer).await;
    world.host("alpha").await;
    let answer = world.post("/api/v1/operations", &facts(&["alpha"])).await;
    let path = format!("{}/events", answer.header("location"));
    let mut open = Vec::new();
    for _ in 0..limits::EVENT_STREAMS_PER_ACCOUNT_MAX {
        open.push(Watcher::of(&world, &path).await);
    }
    let refused = world.get(&path).await;
    assert_eq!((refused.problem(), refused.header("retry-after")), ("busy", "10"), "{refused:?}");
    let bob = world.user("bob", UserRole::Viewer).await;
    let (token, _) = world.signed_in(&bob, NOW.plus(DurationMs::from_days(1))).await;
    let mut request = World::request(Method::GET, &path, Some(&token), None);
    request.extensions_mut().insert(Peer(([127, 0, 0, 1], 50_000).into()));
    assert_eq!(world.router.clone().oneshot(request).await.unwrap().status(), 200, "others watch");
    drop(open.pop());
    Watcher::of(&world, &path).await;
}
