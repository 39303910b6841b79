//! Operations, commands, apps: from a request to a signed report.

use std::{future::poll_fn, pin::pin, task::Poll, time::Duration};

use axum::http::{Method, StatusCode};
use envelope::messages::ReportStatus;
use fleet::{
    model::{AppInstance, AppInstanceState, CommandStatus, NewCommand},
    operation::CommandIds as _,
    ports::{AppChange, HostChange, Store as _},
};
use ids::{CommandId, OperationId};
use serde_json::{Value, json};
use tokio::time::timeout;

use super::world::{NOW, World, command_ids, deploy, facts, fresh};
use crate::fresh::FreshCommands;

fn operation_id() -> OperationId {
    fresh()
}

fn other_command() -> CommandId {
    fresh()
}

#[tokio::test]
async fn a_request_becomes_commands_and_tells_their_hosts() {
    let world = World::new().await;
    let (alpha, beta) = (world.host("alpha").await, world.host("beta").await);
    let body = facts(&["alpha", "beta"]);
    let answer = world.post("/api/v1/operations", &body).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED, "{answer:?}");
    assert_eq!(answer.json["operation_id"], body["operation_id"]);
    assert_eq!(answer.json["state"], "running");
    let shown: Vec<_> =
        answer.json["commands"].as_array().unwrap().iter().map(|c| (&c["host"], &c["status"])).collect();
    assert_eq!(shown, [(&json!("alpha"), &json!("queued")), (&json!("beta"), &json!("queued"))]);
    let location = answer.header("location").to_owned();
    assert_eq!(world.get(&location).await.json, answer.json);
    let mut told = world.told.changes.lock().unwrap().clone();
    told.sort_by_key(|(host, _)| *host);
    assert_eq!(told, [(alpha.id, HostChange::Queue), (beta.id, HostChange::Queue)]);
}

/// Polls that so often, and then drops it, as the server does when a client goes away.
async fn polled<T>(work: impl Future<Output = T>, mut times: usize) -> Option<T> {
    let mut work = pin!(work);
    poll_fn(|context| {
        if times == 0 {
            return Poll::Ready(None);
        }
        times -= 1;
        work.as_mut().poll(context).map(Some)
    })
    .await
}

/// A request dropped after each number of polls, until one takes no more; how many of those dropped were carried out.
async fn dropped_everywhere(world: &World, round: usize) -> usize {
    let mut carried_out = 0;
    for times in 0.. {
        let host = world.host(&format!("host-{round}-{times}")).await;
        let body = facts(&[host.name.as_str()]);
        if polled(world.post("/api/v1/operations", &body), times).await.is_some() {
            break;
        }
        // Writes are done in the order they came in.
        world.host(&format!("later-{round}-{times}")).await;
        let id: OperationId = serde_json::from_value(body["operation_id"].clone()).unwrap();
        if world.store.operation(id).await.unwrap().is_some() {
            carried_out += 1;
            let is_told = || world.told.changes.lock().unwrap().contains(&(host.id, HostChange::Queue));
            let told = async {
                while !is_told() {
                    tokio::task::yield_now().await;
                }
            };
            timeout(Duration::from_secs(30), told).await.expect("the host is told");
        }
    }
    carried_out
}

#[tokio::test]
async fn a_client_that_goes_away_leaves_no_order_untold() {
    let world = World::new().await;
    // How many polls a request takes depends on how quick the database is, so one round may step over its write.
    for round in 0..100 {
        if dropped_everywhere(&world, round).await > 0 {
            return;
        }
    }
    panic!("no request was dropped between its write and its answer");
}

#[tokio::test]
async fn the_same_request_again_is_the_same_operation_and_another_is_refused() {
    let world = World::new().await;
    world.host("alpha").await;
    for body in [facts(&["alpha"]), deploy(&["alpha"])] {
        let first = world.post("/api/v1/operations", &body).await;
        assert_eq!(first.status, StatusCode::ACCEPTED, "{first:?}");
        world.told.changes.lock().unwrap().clear();
        let again = world.post("/api/v1/operations", &body).await;
        assert_eq!((again.status, &again.json), (StatusCode::OK, &first.json));
        assert_eq!(world.told.changes.lock().unwrap().len(), 1, "the host is told again");
        for (field, value) in [("dry_run", json!(true)), ("queue_for_seconds", json!(60)), ("hosts", json!(["beta"]))] {
            let mut other = body.clone();
            other[field] = value;
            let answer = world.post("/api/v1/operations", &other).await;
            assert_eq!((answer.status, answer.problem()), (StatusCode::CONFLICT, "operation-conflict"), "{field}");
        }
    }
    let mut other = deploy(&["alpha"]);
    let first = world.post("/api/v1/operations", &other).await;
    assert_eq!(first.status, StatusCode::ACCEPTED);
    for field in ["healthy_within_seconds", "min_healthy_seconds"] {
        let mut slower = other.clone();
        slower[field] = json!(60);
        assert_eq!(world.post("/api/v1/operations", &slower).await.problem(), "operation-conflict", "{field}");
    }
    other["spec"]["services"]["web"]["image"] = json!("shop:2");
    assert_eq!(world.post("/api/v1/operations", &other).await.problem(), "operation-conflict");
}

#[tokio::test]
async fn a_request_sent_again_after_its_host_was_revoked_is_still_known() {
    let world = World::new().await;
    world.host("alpha").await;
    let body = facts(&["alpha"]);
    world.post("/api/v1/operations", &body).await;
    world.delete("/api/v1/hosts/alpha").await;
    let again = world.post("/api/v1/operations", &body).await;
    assert_eq!(again.status, StatusCode::OK);
    assert_eq!(again.json["state"], "failed");
}

#[tokio::test]
async fn what_is_wrong_with_a_request_is_named() {
    let world = World::new().await;
    world.host("alpha").await;
    let check = async |edit: &dyn Fn(&mut Value), mut body: Value, problem: &str, field: Option<&str>| {
        edit(&mut body);
        let answer = world.post("/api/v1/operations", &body).await;
        assert_eq!(answer.problem(), problem, "{body}: {answer:?}");
        assert_eq!(answer.json["errors"][0]["field"].as_str(), field, "{body}: {answer:?}");
    };
    let set =
        |path: &'static str, value: Value| move |body: &mut Value| *body.pointer_mut(path).unwrap() = value.clone();
    check(&set("/hosts", json!(["gamma"])), facts(&["x"]), "host-not-found", None).await;
    check(&set("/hosts", json!([])), facts(&["x"]), "invalid", Some("hosts")).await;
    check(&set("/hosts", json!(["alpha", "alpha"])), facts(&["x"]), "invalid", Some("hosts")).await;
    check(&set("/action", json!("no.such")), facts(&["alpha"]), "action-not-found", None).await;
    check(&set("/action", json!("x")), facts(&["alpha"]), "invalid", Some("action")).await;
    check(&set("/parameters", json!({ "a": 1 })), facts(&["alpha"]), "invalid", Some("parameters.a")).await;
    check(&set("/spec/app", json!("A")), deploy(&["alpha"]), "invalid", Some("spec.app")).await;
    check(
        &set("/spec/services/web/restart", json!("x")),
        deploy(&["alpha"]),
        "invalid",
        Some("spec.services.web.restart"),
    )
    .await;
    let port_zero = json!([{ "host_ip": "127.0.0.1", "container_port": 0, "protocol": "tcp" }]);
    let add_ports = move |body: &mut Value| body["spec"]["services"]["web"]["ports"] = port_zero.clone();
    check(&add_ports, deploy(&["alpha"]), "invalid", Some("spec.services.web.ports[0]")).await;
    let many: Vec<String> = (0..20).map(|n| format!("host{n}")).collect();
    check(&set("/hosts", json!(many)), facts(&["x"]), "host-not-found", None).await;
    let add = |field: &'static str, value: Value| move |body: &mut Value| body[field] = value.clone();
    check(&add("queue_for_seconds", json!(u64::MAX)), facts(&["alpha"]), "invalid", Some("queue_for")).await;
    let sealed = json!({ "alpha": [{ "name": "a", "sealed": "***" }] });
    for (within, least) in [(0, 2), (1_201, 2), (1, 2), (60, 61), (1_200, 601), (u64::MAX, u64::MAX)] {
        let change = |body: &mut Value| {
            body["healthy_within_seconds"] = json!(within);
            body["min_healthy_seconds"] = json!(least);
        };
        let field = if (1..=1_200).contains(&within) { "min_healthy" } else { "healthy_within" };
        check(&change, deploy(&["alpha"]), "invalid", Some(field)).await;
    }
    check(&add("sealed", sealed), deploy(&["alpha"]), "invalid", Some("sealed.alpha[0].sealed")).await;
    check(&add("sealed", json!({ "beta": [] })), deploy(&["alpha"]), "invalid", Some("sealed.beta")).await;
    assert!(world.told.changes.lock().unwrap().is_empty(), "nothing was stored");
}

/// The deploy's second stage, as the dispatch machine makes it.
fn second_stage(plan: &fleet::model::Command) -> NewCommand {
    let mut order = plan.order.clone();
    order.command = FreshCommands::new(NOW).unwrap().command_id();
    order.action = "app.deploy".parse().unwrap();
    order.schema_sha256 = actions::latest(&order.action).unwrap().schema_sha256();
    NewCommand { order, app: plan.app.clone(), sealed: Vec::new(), held: None }
}

#[tokio::test]
async fn a_deploy_goes_on_until_its_second_stage_has_ended() {
    let world = World::new().await;
    let host = world.host("alpha").await;
    let answer = world.post("/api/v1/operations", &deploy(&["alpha"])).await;
    let location = answer.header("location").to_owned();
    let plan = command_ids(&answer)[0];
    let command = world.start(plan).await;
    assert_eq!(world.get(&location).await.json["commands"][0]["status"], "running");
    let next = second_stage(&command);
    let deploying = next.order.command;
    let planned = (ReportStatus::Succeeded, "planned", json!({ "unchanged": false }));
    world.settle(plan, planned, vec![next], None).await.unwrap();
    let between = world.get(&location).await;
    assert_eq!(between.json["state"], "running", "{between:?}");
    assert_eq!(command_ids(&between), [plan, deploying]);
    assert_eq!(between.json["commands"][0]["result"], json!({ "unchanged": false }));
    world.start(deploying).await;
    let app = AppChange::Deployed(AppInstance {
        app: "shop".parse().unwrap(),
        host: host.id,
        host_name: host.name.clone(),
        release: command.order.operation,
        deployed_at: NOW,
        state: AppInstanceState::Running,
        result: json!({ "verified": true, "release": "x" }).to_string().into_bytes(),
    });
    let done = (ReportStatus::Succeeded, "deployed", json!({ "verified": true }));
    world.settle(deploying, done, Vec::new(), Some(app)).await.unwrap();
    assert_eq!(world.get(&location).await.json["state"], "succeeded");

    let apps = world.get("/api/v1/apps").await;
    assert_eq!(
        (&apps.json["items"][0]["name"], &apps.json["items"][0]["instances"][0]["verified"]),
        (&json!("shop"), &json!(true))
    );
    assert_eq!(world.get("/api/v1/apps/shop").await.json["results"]["alpha"]["release"], "x");
    assert_eq!(world.get("/api/v1/apps/other").await.problem(), "app-not-found");
    assert_eq!(world.get("/api/v1/hosts/alpha").await.json["apps"], json!(["shop"]));

    // Verbs of an app act where it is.
    let remove = json!({ "kind": "single", "operation_id": operation_id(), "action": "app.remove", "parameters": { "app": "shop" } });
    let removed = world.post("/api/v1/operations", &remove).await;
    assert_eq!(removed.json["commands"][0]["host"], "alpha", "{removed:?}");
    let mut other = remove.clone();
    other["operation_id"] = json!(operation_id());
    other["parameters"]["app"] = json!("other");
    assert_eq!(world.post("/api/v1/operations", &other).await.problem(), "app-not-found");
}

#[tokio::test]
async fn a_command_is_shown_with_what_was_signed_and_what_verified_it() {
    let world = World::new().await;
    world.host("alpha").await;
    let command = command_ids(&world.post("/api/v1/operations", &facts(&["alpha"])).await)[0];
    world.start(command).await;
    world.settle(command, (ReportStatus::Failed, "no such luck", json!({ "a": 1 })), Vec::new(), None).await.unwrap();
    let shown = world.get(&format!("/api/v1/commands/{command}")).await.json;
    assert_eq!((&shown["status"], &shown["message"]), (&json!("failed"), &json!("no such luck")));
    let key = world.root.command_keys()[0].key_id().to_string();
    assert_eq!(shown["orders"][0]["verified_by"], key.as_str());
    assert_eq!(shown["orders"][0]["payload_type"], "application/vnd.serverflow.command.v1");
    let stored = world.stored(command).await;
    assert_eq!(shown["orders"][0]["envelope"], data_encoding::BASE64.encode(&stored.seals[0].envelope));
    assert_eq!((&shown["report"]["status"], &shown["report"]["result"]), (&json!("failed"), &json!({ "a": 1 })));
    assert_eq!(shown["report"]["envelope"], data_encoding::BASE64.encode(stored.report.as_ref().unwrap()));
    assert_ne!(shown["report"]["verified_by"], json!(""));
    let missing = world.get(&format!("/api/v1/commands/{}", other_command())).await;
    assert_eq!(missing.problem(), "command-not-found");
}

#[tokio::test]
async fn commands_are_listed_by_filter_page_by_page() {
    let world = World::new().await;
    world.host("alpha").await;
    world.host("beta").await;
    let first = command_ids(&world.post("/api/v1/operations", &facts(&["alpha", "beta"])).await);
    let second = world.post("/api/v1/operations", &facts(&["alpha"])).await;
    let last = command_ids(&second)[0];
    let list = async |query: &str| {
        let answer = world.get(&format!("/api/v1/commands{query}")).await;
        let ids = answer.json["items"].as_array().unwrap_or_else(|| panic!("{answer:?}")).clone();
        ids.into_iter().map(|command| command["command_id"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let text = |ids: &[ids::CommandId]| ids.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(list("").await, text(&[last, first[1], first[0]]));
    assert_eq!(list("?host=beta").await, text(&[first[1]]));
    assert_eq!(list("?limit=1").await, text(&[last]));
    assert_eq!(list("?sort=proposed_at&limit=2").await, text(&first));
    assert_eq!(list("?requested_by=ada&action=host.facts").await.len(), 3);
    assert_eq!(list("?requested_by=eve").await, text(&[]));
    let now = api::Timestamp(NOW).to_string();
    assert_eq!((list(&format!("?since={now}")).await.len(), list(&format!("?until={now}")).await.len()), (3, 0));
    assert_eq!(list("?status=running").await, text(&[]));
    assert_eq!(list(&format!("?operation={}", second.json["operation_id"].as_str().unwrap())).await, text(&[last]));
    for query in [
        "?limit=0",
        "?limit=501",
        "?status=x",
        "?host=no-such",
        "?hots=alpha",
        "?sort=host",
        "?after=x",
        "?since=today",
    ] {
        let answer = world.get(&format!("/api/v1/commands{query}")).await;
        assert!(answer.status.is_client_error(), "{query}");
        answer.problem();
    }
}

#[tokio::test]
async fn a_waiting_command_is_cancelled_here_and_a_sent_one_by_order() {
    let world = World::new().await;
    let host = world.host("alpha").await;
    let ids = [
        command_ids(&world.post("/api/v1/operations", &facts(&["alpha"])).await)[0],
        command_ids(&world.post("/api/v1/operations", &facts(&["alpha"])).await)[0],
    ];
    let path = |n: usize| format!("/api/v1/commands/{}/cancel", ids[n]);
    let waiting = world.post(&path(0), &json!({})).await;
    assert_eq!(waiting.status, StatusCode::OK, "{waiting:?}");
    assert_eq!((&waiting.json["command"]["status"], &waiting.json["operation"]), (&json!("cancelled"), &Value::Null));
    let again = world.post(&path(0), &json!({})).await;
    assert_eq!((again.status, &again.json), (StatusCode::OK, &waiting.json), "an answer may be lost");
    let unsent = world.send(World::request(Method::POST, &path(0), Some(&world.token), None)).await;
    assert_eq!(unsent.status, StatusCode::OK, "the body may be left out");

    world.start(ids[1]).await;
    world.told.changes.lock().unwrap().clear();
    let body = json!({ "operation_id": operation_id() });
    let sent = world.post(&path(1), &body).await;
    assert_eq!(sent.status, StatusCode::ACCEPTED, "{sent:?}");
    assert_eq!(sent.json["command"]["status"], "running");
    assert_eq!(sent.json["operation"]["commands"][0]["action"], "command.cancel@1");
    assert_eq!(*world.told.changes.lock().unwrap(), [(host.id, HostChange::Queue)]);
    let again = world.post(&path(1), &body).await;
    assert_eq!((again.status, &again.json["operation"]), (StatusCode::OK, &sent.json["operation"]));
    assert_eq!(world.post(&path(0), &body).await.problem(), "operation-conflict");
    assert_eq!(world.store.commands_open(host.id).await.unwrap().len(), 2);
    assert_eq!(world.stored(ids[0]).await.status, CommandStatus::Cancelled);
    world.settle(ids[1], (ReportStatus::Succeeded, "too late", json!({})), Vec::new(), None).await.unwrap();
    let late = world.post(&path(1), &json!({})).await;
    assert_eq!((late.status, late.problem()), (StatusCode::CONFLICT, "command-ended"));
}
