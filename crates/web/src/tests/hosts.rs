//! Hosts, join tokens, revocation, the fleet, the actions.

use axum::http::StatusCode;
use envelope::{audit::AuditKind, messages::ReportStatus, token::JoinToken};
use fleet::{
    model::{CommandStatus, UserRole},
    ports::{AuditEntry, AuditRecord, HostChange, HostKeyRotation, Store as _, Write},
};
use ids::{DurationMs, HostEpoch, Sha256, sha256};
use serde_json::json;

use super::world::{NOW, World, command_ids, facts};
use crate::view::Reporter;

#[tokio::test]
async fn a_join_token_holds_what_an_agent_needs_and_the_store_only_its_hash() {
    let world = World::new().await;
    let answer = world.post("/api/v1/hosts", &json!({ "name": "alpha", "ttl_seconds": 60 })).await;
    assert_eq!(answer.status, StatusCode::CREATED, "{answer:?}");
    assert_eq!(answer.json["roles"], json!(["app"]));
    assert_eq!(answer.json["expires_at"], api::Timestamp(NOW.plus(DurationMs::from_secs(60))).to_string());
    let token = JoinToken::parse(answer.json["token"].as_str().unwrap()).unwrap();
    assert_eq!(token.fleet, world.root.current().fleet);
    assert_eq!(token.root_sha256, world.root.payload_sha256());
    assert_eq!((token.spki_sha256, token.address.as_str()), (Sha256([9; 32]), "control.example.org:7443"));
    let stored = world.store.join_token(token.token).await.unwrap().unwrap();
    assert_eq!(stored.secret_sha256, sha256(token.secret.as_slice()));
    assert_eq!(stored.expires, NOW.plus(DurationMs::from_secs(60)));
    let rows = world.store.audit(0, 100).await.unwrap();
    let issued = rows.last().unwrap();
    assert_eq!((issued.kind, issued.actor.as_str()), (AuditKind::TokenIssued, "ada"));
    let record = String::from_utf8(issued.record.clone().unwrap()).unwrap();
    assert!(!record.contains(&ids::hex(token.secret.as_slice())), "{record}");
}

#[tokio::test]
async fn join_tokens_live_as_long_as_allowed_and_not_for_names_in_use() {
    let world = World::new().await;
    for (seconds, good) in [(9, false), (10, true), (604_800, true), (604_801, false), (u64::MAX, false)] {
        let answer = world.post("/api/v1/hosts", &json!({ "name": "alpha", "ttl_seconds": seconds })).await;
        assert_eq!(answer.status == StatusCode::CREATED, good, "{seconds}: {answer:?}");
        if !good {
            assert_eq!(answer.json["errors"][0]["field"], "ttl_seconds");
        }
    }
    let answer = world.post("/api/v1/hosts", &json!({ "name": "alpha" })).await;
    assert_eq!(answer.json["expires_at"], api::Timestamp(NOW.plus(DurationMs::from_mins(15))).to_string());
    world.host("beta").await;
    let answer = world.post("/api/v1/hosts", &json!({ "name": "beta" })).await;
    assert_eq!((answer.status, answer.problem()), (StatusCode::CONFLICT, "host-exists"));
    let answer = world.post("/api/v1/hosts", &json!({ "name": "Beta" })).await;
    assert_eq!(answer.json["errors"][0]["field"], "name");
}

#[tokio::test]
async fn hosts_are_listed_with_their_status_and_shown_with_their_keys() {
    let world = World::new().await;
    let (alpha, beta) = (world.host("alpha").await, world.host("beta").await);
    world.told.connected.lock().unwrap().push(alpha.id);
    let list = world.get("/api/v1/hosts").await;
    let status = |n: usize| (list.json["items"][n]["name"].clone(), list.json["items"][n]["status"].clone());
    assert_eq!(status(0), (json!("alpha"), json!("connected")));
    assert_eq!(status(1), (json!("beta"), json!("offline")));
    assert_eq!(list.json["items"][0]["last_seen"], api::Timestamp(NOW).to_string());
    assert!(list.json["items"][1]["last_seen"].is_null());
    let shown = world.get("/api/v1/hosts/beta").await;
    let key = data_encoding::BASE64.decode(shown.json["identity_key"].as_str().unwrap().as_bytes()).unwrap();
    assert_eq!(key, beta.identity_key.0);
    assert!(shown.json["actions"].as_array().unwrap().contains(&json!("app.deploy@1")));
    let missing = world.get("/api/v1/hosts/gamma").await;
    assert_eq!((missing.status, missing.problem()), (StatusCode::NOT_FOUND, "host-not-found"));
    assert_eq!(world.get("/api/v1/hosts/GAMMA").await.problem(), "request-unreadable");
}

#[tokio::test]
async fn revoking_ends_what_waits_closes_the_session_and_is_final() {
    let world = World::new().await;
    let host = world.host("alpha").await;
    let command = command_ids(&world.post("/api/v1/operations", &facts(&["alpha"])).await)[0];
    let mut events = world.told.events.subscribe();
    assert_eq!(world.delete("/api/v1/hosts/alpha").await.status, StatusCode::NO_CONTENT);
    assert!(world.told.changes.lock().unwrap().contains(&(host.id, HostChange::Revoked)));
    assert_eq!(world.stored(command).await.status, CommandStatus::Cancelled);
    let mut announced = Vec::new();
    while let Ok(event) = events.try_recv() {
        announced.push(format!("{event:?}"));
    }
    assert!(announced.iter().any(|event| event.contains("Cancelled")), "{announced:?}");
    assert_eq!(world.get("/api/v1/hosts/alpha").await.json["status"], "revoked");
    world.told.changes.lock().unwrap().clear();
    let again = world.delete("/api/v1/hosts/alpha").await;
    assert_eq!(again.status, StatusCode::NO_CONTENT);
    assert_eq!(*world.told.changes.lock().unwrap(), [(host.id, HostChange::Revoked)], "its session is told again");
    let kinds = world.audit_kinds().await;
    assert_eq!(kinds.iter().filter(|kind| **kind == AuditKind::HostRevoked).count(), 1);
    assert_eq!(world.delete("/api/v1/hosts/other").await.problem(), "host-not-found");
    let answer = world.post("/api/v1/operations", &facts(&["alpha"])).await;
    assert_eq!(answer.problem(), "host-not-active", "what is shown is not said to be missing");
    assert!(answer.json["detail"].as_str().unwrap().contains("is revoked"), "{answer:?}");
    let rename = world.post("/api/v1/hosts/alpha/rename", &json!({ "name": "beta" })).await;
    let label = {
        let (path, body) = ("/api/v1/hosts/alpha/labels", json!({ "labels": { "env": "prod" } }));
        world.send(World::request(axum::http::Method::PATCH, path, Some(&world.token), Some(&body))).await
    };
    for answer in [rename, label] {
        assert_eq!(answer.problem(), "host-not-active", "{answer:?}");
        assert!(answer.json["detail"].as_str().unwrap().contains("alpha is revoked"), "{answer:?}");
    }
    assert_eq!(world.post("/api/v1/hosts", &json!({ "name": "alpha" })).await.status, StatusCode::CREATED);
}

#[tokio::test]
async fn only_a_host_that_is_there_can_be_told_to_leave() {
    let world = World::new().await;
    let (alpha, _) = (world.host("alpha").await, world.host("beta").await);
    world.told.connected.lock().unwrap().push(alpha.id);
    let retire = |host: &str| {
        let mut request = facts(&[host]);
        request["action"] = json!("host.retire");
        request
    };
    let away = world.post("/api/v1/operations", &retire("beta")).await;
    assert_eq!(away.problem(), "host-not-active", "{away:?}");
    assert!(away.json["detail"].as_str().unwrap().contains("serverflow host revoke beta"), "{away:?}");
    let taken = world.post("/api/v1/operations", &retire("alpha")).await;
    assert_eq!(taken.status, StatusCode::ACCEPTED, "the control: {taken:?}");
    assert_eq!(world.get("/api/v1/hosts/alpha").await.json["retired"], false);
}

/// What a host said under a key that was rotated since is its word all the same, and nobody else's.
#[tokio::test]
async fn reports_of_before_a_rotation_are_shown_and_those_by_another_key_are_not() {
    let world = World::new().await;
    let host = world.host("alpha").await;
    let post = world.post("/api/v1/operations", &facts(&["alpha"])).await;
    let (id, operation) = (command_ids(&post)[0], post.json["operation_id"].as_str().unwrap().to_owned());
    world.start(id).await;
    world.settle(id, (ReportStatus::Succeeded, "done", json!({ "cpus": 4 })), Vec::new(), None).await.unwrap();
    let (command, operation) = (format!("/api/v1/commands/{id}"), format!("/api/v1/operations/{operation}"));
    let results = async || {
        let (command, operation) = (world.get(&command).await.json, world.get(&operation).await.json);
        (command["report"]["result"].clone(), operation["commands"][0]["result"].clone())
    };
    let known = (json!({ "cpus": 4 }), json!({ "cpus": 4 }));
    assert_eq!(results().await, known);
    let rotate = |was: u64| {
        let (actor, subject) = ("host:alpha".to_owned(), "host alpha".to_owned());
        let record = AuditRecord::Inline(Vec::new());
        let audit = AuditEntry { time: NOW, kind: AuditKind::HostKeyChange, actor, subject, record };
        let rotation = HostKeyRotation {
            host: host.id,
            was: HostEpoch(was),
            host_epoch: HostEpoch(was + 1),
            identity_key: World::identity(&format!("beta-{was}")).public(),
            sealing_key: host.sealing_key,
            rotation: Vec::new(),
            released: None,
            audit,
        };
        Write::HostKeysRotate(Box::new(rotation))
    };
    for was in [1, 2] {
        world.store.write(rotate(was)).await.unwrap();
        assert_eq!(results().await, known, "{was}");
    }
    // The same report, by a key that the host has only since: in the epoch that it names it was another's.
    let mut forged = world.stored(id).await;
    let genuine = envelope::own_report(forged.report.as_deref().unwrap()).unwrap();
    forged.report = Some(World::identity("beta-1").sign(&genuine).into_envelope());
    let host = world.store.host(host.id).await.unwrap().unwrap();
    let reporter = Reporter::of(&*world.store, host).await.unwrap();
    assert!(reporter.verified(forged.report.as_deref().unwrap()).is_none());
}

#[tokio::test]
async fn a_quarantine_ends_by_an_admin_and_an_alarm_by_an_owner() {
    let world = World::new().await;
    let host = world.host("alpha").await;
    let path = "/api/v1/hosts/alpha/quarantine/release";
    assert_eq!(world.post(path, &json!({})).await.status, StatusCode::CONFLICT, "it is in none");
    let id = world.quarantine(&host, true).await;
    let shown = world.get("/api/v1/hosts/alpha").await.json["quarantine"].clone();
    assert_eq!((&shown["agents"][0]["quarantine_id"], &shown["is_alarm"]), (&json!(id), &json!(false)));
    let unknown = json!({ "quarantine_id": ids::QuarantineId::from_bytes([7; 16]) });
    assert_eq!(world.post(path, &unknown).await.status, StatusCode::UNPROCESSABLE_ENTITY);
    world.told.changes.lock().unwrap().clear();
    let released = world.post(path, &json!({})).await;
    assert_eq!((released.status, &released.json["quarantine_id"]), (StatusCode::ACCEPTED, &json!(id)));
    assert_eq!(*world.told.changes.lock().unwrap(), [(host.id, HostChange::Queue)]);
    assert_eq!(world.get("/api/v1/hosts/alpha").await.json["quarantine"]["release"], json!(id));

    // Two machines say that they are the host: it must be said which is to go on.
    let clone = world.host("beta").await;
    let (one, _) = (world.quarantine(&clone, true).await, world.quarantine(&clone, true).await);
    let path = "/api/v1/hosts/beta/quarantine/release";
    assert_eq!(world.post(path, &json!({})).await.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(world.post(path, &json!({ "quarantine_id": one })).await.status, StatusCode::ACCEPTED);

    // Nobody has said which quarantine it is in: the agent that comes is told.
    let unseen = world.host("gamma").await;
    world.quarantine(&unseen, false).await;
    let told = world.post("/api/v1/hosts/gamma/quarantine/release", &json!({})).await;
    assert_eq!((told.status, told.json.get("quarantine_id")), (StatusCode::ACCEPTED, None));

    let audit = super::world::entry(AuditKind::Alarm);
    let stolen = world.host("delta").await;
    let write = Write::HostQuarantine { host: stolen.id, why: "a key may be stolen".to_owned(), audit };
    world.store.write(write).await.unwrap();
    let path = "/api/v1/hosts/delta/quarantine/release";
    for (role, expected) in [(UserRole::Admin, StatusCode::FORBIDDEN), (UserRole::Owner, StatusCode::ACCEPTED)] {
        let user = world.user(role.as_str(), role).await;
        let (token, _) = world.signed_in(&user, NOW.plus(DurationMs::from_days(1))).await;
        let request = World::request(axum::http::Method::POST, path, Some(&token), Some(&json!({})));
        assert_eq!(world.send(request).await.status, expected, "{role}");
    }
}

#[tokio::test]
async fn the_fleet_and_its_actions_are_told() {
    let world = World::new().await;
    let fleet = world.get("/api/v1/fleet").await;
    assert_eq!(fleet.json["agent_addresses"], json!(["control.example.org:7443"]));
    assert_eq!((&fleet.json["version"], &fleet.json["root_version"]), (&json!("0.1.0-test"), &json!(1)));
    let root = world.get("/api/v1/fleet/root").await;
    let chain: Vec<Vec<u8>> = root.json["root_chain"]
        .as_array()
        .unwrap()
        .iter()
        .map(|text| data_encoding::BASE64.decode(text.as_str().unwrap().as_bytes()).unwrap())
        .collect();
    assert_eq!(chain, world.root.chain(), "what a client verifies receipts from");
    let actions = world.get("/api/v1/actions").await;
    assert_eq!(actions.json.as_array().unwrap().len(), actions::actions().len());
    let action = world.get("/api/v1/actions/host.facts").await;
    assert_eq!((&action.json["class"], &action.json["version"]), (&json!("read"), &json!(1)));
    assert_eq!(action.json["schema"]["type"], "object");
    assert_eq!(world.get("/api/v1/actions/no.such").await.problem(), "action-not-found");
}
