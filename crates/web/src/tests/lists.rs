//! Lists page by page, the hosts that a selector means, and what a renamed host keeps.

use axum::http::StatusCode;
use envelope::{audit::AuditKind, token::JoinToken};
use fleet::{
    model::{UserChange, UserRole},
    ports::{HostChange, Store as _, StoreError, Write},
};
use ids::{DurationMs, sha256};
use serde_json::{Value, json};

use super::world::{NOW, World, command_ids, deploy, entry, facts, fresh};
use crate::{limits, routes::described};

/// Every item of a list, so many at a time; between two pages something happens.
async fn walked(world: &World, path: &str, limit: usize, mut between: impl AsyncFnMut()) -> Vec<Value> {
    let (mut items, mut after) = (Vec::new(), String::new());
    loop {
        let join = if path.contains('?') { '&' } else { '?' };
        let page = world.get(&format!("{path}{join}limit={limit}{after}")).await;
        assert_eq!(page.status, StatusCode::OK, "{page:?}");
        let found = page.json["items"].as_array().unwrap();
        assert!(found.len() <= limit);
        items.extend(found.iter().cloned());
        match page.json["next"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => return items,
        }
        between().await;
    }
}

fn names(items: &[Value]) -> Vec<&str> {
    items.iter().map(|item| item["name"].as_str().unwrap()).collect()
}

async fn label(world: &World, host: &str, labels: Value) {
    let path = format!("/api/v1/hosts/{host}/labels");
    let request =
        World::request(axum::http::Method::PATCH, &path, Some(&world.token), Some(&json!({ "labels": labels })));
    let answer = world.send(request).await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
}

#[tokio::test]
async fn what_is_added_meanwhile_neither_hides_nor_repeats_an_item() {
    let world = World::new().await;
    for name in ["bravo", "delta", "foxtrot", "hotel"] {
        world.host(name).await;
    }
    let mut new = ["alpha", "golf", "zulu"].into_iter();
    let found = walked(&world, "/api/v1/hosts", 1, async || {
        if let Some(name) = new.next() {
            world.host(name).await;
        }
    })
    .await;
    assert_eq!(names(&found), ["bravo", "delta", "foxtrot", "golf", "hotel", "zulu"]);
    let found = walked(&world, "/api/v1/hosts?sort=-name", 2, async || ()).await;
    assert_eq!(names(&found), ["zulu", "hotel", "golf", "foxtrot", "delta", "bravo", "alpha"]);
    // All were enrolled in the same millisecond: the order of enrolment still tells them apart.
    let found = walked(&world, "/api/v1/hosts?sort=enrolled_at", 3, async || ()).await;
    assert_eq!(names(&found), ["bravo", "delta", "foxtrot", "hotel", "alpha", "golf", "zulu"]);
}

#[tokio::test]
async fn every_list_pages_to_its_end_and_refuses_foreign_cursors() {
    let world = World::new().await;
    for name in ["a", "b", "c"] {
        world.host(name).await;
        world.post("/api/v1/operations", &facts(&[name])).await;
    }
    let cursor = world.get("/api/v1/hosts?limit=1").await.json["next"].as_str().unwrap().to_owned();
    for (path, count) in [("/api/v1/commands", 3), ("/api/v1/operations", 3), ("/api/v1/audit", 11)] {
        let found = walked(&world, path, 1, async || {
            world.post("/api/v1/operations", &facts(&["a"])).await;
        })
        .await;
        assert!(found.len() >= count, "newest first: what comes later is on no later page ({path})");
        let mut distinct: Vec<String> = found.iter().map(Value::to_string).collect();
        distinct.sort();
        distinct.dedup();
        assert_eq!(distinct.len(), found.len(), "{path}");
        let refused = world.get(&format!("{path}?after={cursor}")).await;
        assert_eq!((refused.status, refused.problem()), (StatusCode::UNPROCESSABLE_ENTITY, "invalid"), "{path}");
    }
    let refused = world.get(&format!("/api/v1/hosts?sort=-name&after={cursor}")).await;
    assert_eq!(refused.json["errors"][0]["field"], "after");
}

/// The lists of the table: each route that answers with a page.
#[tokio::test]
async fn no_list_takes_what_it_does_not_understand() {
    let world = World::new().await;
    world.host("alpha").await;
    let too_many = format!("limit={}", limits::LIST_MAX + 1);
    let mut lists = 0;
    for one in described::operations().into_iter().filter(|one| one.list.is_some()) {
        lists += 1;
        for query in ["sort=colour", "after=x", "limit=0", &too_many] {
            let refused = world.get(&format!("{}?{query}", one.path)).await;
            let field = query.split('=').next();
            assert_eq!(
                (refused.problem(), refused.json["errors"][0]["field"].as_str()),
                ("invalid", field),
                "{refused:?}"
            );
            assert!(!refused.json["errors"][0]["message"].as_str().unwrap().is_empty());
        }
        for query in ["colour=red", "limit=many", "sort=a&sort=b"] {
            let refused = world.get(&format!("{}?{query}", one.path)).await;
            assert_eq!(refused.problem(), "request-unreadable", "{} {query}", one.path);
        }
        let field = one.list.unwrap().sorts[0].trim_start_matches('-');
        for sort in [field.to_owned(), format!("-{field}")] {
            walked(&world, &format!("{}?sort={sort}", one.path), 1, async || ()).await;
        }
    }
    assert_eq!(lists, 8, "hosts, apps, commands, operations, audit, users, sessions, tokens");
    for (query, words) in [
        ("hosts?status=lost", "lost"),
        ("hosts?selector=role", "say which role"),
        ("hosts?app=No", "app"),
        ("commands?status=done", "done"),
        ("commands?since=yesterday", "since"),
        ("commands?host=nobody", "there is no host nobody"),
        ("operations?until=soon", "until"),
        ("audit?kind=party", "party"),
        ("audit?kind=sign-in&sort=index", "kind, actor, since and until"),
        ("users?role=king", "there are viewer, operator, admin and owner"),
        ("users?status=asleep", "asleep"),
        ("sessions?address=here", "address"),
        ("sessions?user=eve", "there is no account eve"),
        ("tokens?status=lost", "lost"),
    ] {
        let refused = world.get(&format!("/api/v1/{query}")).await;
        assert!(refused.status.is_client_error() && refused.text.contains(words), "{query}: {refused:?}");
    }
}

#[tokio::test]
async fn accounts_sessions_and_tokens_are_filtered_and_sorted() {
    let world = World::of(UserRole::Owner).await;
    let bob = world.user("bob", UserRole::Viewer).await;
    world.user("carl", UserRole::Viewer).await;
    let later = |hours: u64| NOW.plus(DurationMs::from_mins(60 * hours));
    let (_, of_bob) = world.api_token(&bob, UserRole::Viewer, later(3)).await;
    world.change(&bob, UserChange::Disable(NOW)).await;
    for (query, expected) in [
        ("", &["ada", "bob", "carl"][..]),
        ("?sort=-name", &["carl", "bob", "ada"]),
        ("?role=viewer", &["bob", "carl"]),
        ("?status=disabled", &["bob"]),
        ("?role=viewer&status=active", &["carl"]),
        ("?role=admin", &[]),
    ] {
        let found = walked(&world, &format!("/api/v1/users{query}"), 1, async || ()).await;
        assert_eq!(names(&found), expected, "{query}");
    }
    let (_, long) = world.signed_in(&world.user, later(40)).await;
    let (_, short) = world.signed_in(&world.user, later(2)).await;
    let ids = |found: Vec<Value>| found.iter().map(|item| item["id"].clone()).collect::<Vec<_>>();
    let own = json!(world.session);
    for (query, expected) in [
        ("", [&json!(short), &json!(long), &own].map(Clone::clone).to_vec()),
        ("?sort=expires_at", [&json!(short), &own, &json!(long)].map(Clone::clone).to_vec()),
        ("?address=192.0.2.9&user=ada&sort=created_at", [&own, &json!(long), &json!(short)].map(Clone::clone).to_vec()),
        ("?address=2001:db8::1", Vec::new()),
    ] {
        assert_eq!(ids(walked(&world, &format!("/api/v1/sessions{query}"), 2, async || ()).await), expected, "{query}");
    }
    let (_, first) = world.api_token(&world.user, UserRole::Viewer, later(9)).await;
    let (_, second) = world.api_token(&world.user, UserRole::Viewer, later(3)).await;
    world.delete(&format!("/api/v1/tokens/{first}")).await;
    for (query, expected) in [
        ("", vec![json!(second), json!(first)]),
        ("?sort=-expires_at", vec![json!(first), json!(second)]),
        ("?status=active", vec![json!(second)]),
        ("?status=revoked", vec![json!(first)]),
        ("?status=expired", vec![]),
        ("?user=bob&status=disabled", vec![json!(of_bob)]),
    ] {
        assert_eq!(ids(walked(&world, &format!("/api/v1/tokens{query}"), 1, async || ()).await), expected, "{query}");
    }
}

#[tokio::test]
async fn operations_are_listed_with_how_they_stand() {
    let world = World::new().await;
    for name in ["a", "b"] {
        world.host(name).await;
    }
    let answer = world.post("/api/v1/operations", &facts(&["a", "b"])).await;
    let command = command_ids(&answer)[0];
    world.post(&format!("/api/v1/commands/{command}/cancel"), &json!({})).await;
    let list = world.get("/api/v1/operations?requested_by=ada").await;
    let item = &list.json["items"][0];
    assert_eq!((&item["kind"], &item["state"]), (&json!("single"), &json!("running")));
    assert_eq!(item["commands"], json!({ "queued": 1, "cancelled": 1 }));
    assert_eq!(world.get("/api/v1/operations?requested_by=eve").await.json["items"], json!([]));
}

#[tokio::test]
async fn hosts_are_filtered_by_what_is_known_here_and_by_what_is_stored() {
    let world = World::new().await;
    let alpha = world.host("alpha").await;
    for name in ["beta", "gamma"] {
        world.host(name).await;
    }
    world.told.connected.lock().unwrap().push(alpha.id);
    label(&world, "beta", json!({ "env": "prod" })).await;
    label(&world, "gamma", json!({ "env": "test", "gpu": "2" })).await;
    world.delete("/api/v1/hosts/gamma").await;
    for (query, expected) in [
        ("?status=connected", &["alpha"][..]),
        ("?status=offline", &["beta"]),
        ("?status=revoked", &["gamma"]),
        ("?selector=env", &["beta", "gamma"]),
        ("?selector=role%3Dapp,env!%3Dprod", &["alpha", "gamma"]),
        ("?selector=env%3Dprod&status=offline", &["beta"]),
        ("?app=shop", &[]),
    ] {
        let found = walked(&world, &format!("/api/v1/hosts{query}"), 1, async || ()).await;
        assert_eq!(names(&found), expected, "{query}");
    }
    assert_eq!(world.get("/api/v1/hosts?selector=role").await.json["errors"][0]["field"], "selector");
}

#[tokio::test]
async fn an_order_by_selector_says_what_it_came_to() {
    let world = World::new().await;
    for name in ["alpha", "beta", "gamma"] {
        world.host(name).await;
        label(&world, name, json!({ "env": "prod" })).await;
    }
    world.delete("/api/v1/hosts/gamma").await;
    label(&world, "beta", json!({ "env": "old" })).await;
    let mut request = facts(&[]);
    request["selector"] = json!("role=app,env");
    let answer = world.post("/api/v1/operations", &request).await;
    assert_eq!((answer.status, &answer.json["selector"]), (StatusCode::ACCEPTED, &json!("role=app,env")));
    let hosts: Vec<&str> =
        answer.json["commands"].as_array().unwrap().iter().map(|command| command["host"].as_str().unwrap()).collect();
    assert_eq!(hosts, ["alpha", "beta"], "not the revoked one");
    let again = world.post("/api/v1/operations", &request).await;
    assert_eq!(again.status, StatusCode::OK, "the same request is the same operation");
    request["selector"] = json!("role=app");
    assert_eq!(world.post("/api/v1/operations", &request).await.problem(), "operation-conflict");
    let rows = world.store.audit(0, 1000).await.unwrap();
    let proposal = rows.iter().rfind(|row| row.kind == AuditKind::Proposal).unwrap();
    let record: Value = serde_json::from_slice(proposal.record.as_ref().unwrap()).unwrap();
    assert_eq!((&record["selector"], record["commands"].as_array().unwrap().len()), (&json!("role=app,env"), 2));

    let mut plan = deploy(&[]);
    plan["selector"] = json!("env=old");
    let answer = world.post("/api/v1/operations", &plan).await;
    assert_eq!((answer.status, &answer.json["commands"][0]["host"]), (StatusCode::ACCEPTED, &json!("beta")));
    for (selector, hosts) in [("env=none", json!([])), ("env=prod", json!(["alpha"])), ("role=king", json!([]))] {
        let mut request = facts(&[]);
        (request["selector"], request["hosts"]) = (json!(selector), hosts);
        let refused = world.post("/api/v1/operations", &request).await;
        assert_eq!(refused.json["errors"][0]["field"], "selector", "{refused:?}");
    }
}

#[tokio::test]
async fn labels_are_set_and_taken_away_and_recorded_once() {
    let world = World::new().await;
    world.host("alpha").await;
    label(&world, "alpha", json!({ "env": "prod", "zone": "eu" })).await;
    let entries =
        async || world.audit_kinds().await.into_iter().filter(|kind| *kind == AuditKind::HostLabelled).count();
    assert_eq!(entries().await, 1);
    label(&world, "alpha", json!({ "env": "prod", "gone": null })).await;
    assert_eq!(entries().await, 1, "nothing changed");
    label(&world, "alpha", json!({ "zone": null })).await;
    assert_eq!(world.get("/api/v1/hosts/alpha").await.json["labels"], json!({ "env": "prod" }));
    let patch = async |labels: Value| {
        let body = json!({ "labels": labels });
        let path = "/api/v1/hosts/alpha/labels";
        world.send(World::request(axum::http::Method::PATCH, path, Some(&world.token), Some(&body))).await
    };
    assert_eq!(patch(json!({ "role": "app" })).await.json["errors"][0]["field"], "labels.role");
    assert_eq!(patch(json!({ "Env": "x" })).await.status, StatusCode::UNPROCESSABLE_ENTITY);
    let many: serde_json::Map<String, Value> = (0..64).map(|n| (format!("k{n}"), json!("v"))).collect();
    assert_eq!(patch(Value::Object(many)).await.status, StatusCode::CONFLICT, "64 and one");
    assert_eq!(world.get("/api/v1/hosts/alpha").await.json["labels"], json!({ "env": "prod" }));
}

#[tokio::test]
async fn a_renamed_host_keeps_what_is_its_own_and_its_old_name_brings_nothing_along() {
    let world = World::new().await;
    let host = world.host("alpha").await;
    world.host("beta").await;
    label(&world, "alpha", json!({ "env": "prod" })).await;
    let command = command_ids(&world.post("/api/v1/operations", &facts(&["alpha"])).await)[0];
    // A token for the name that will be given, not used yet.
    let issued = world.post("/api/v1/hosts", &json!({ "name": "omega" })).await;
    let token = JoinToken::parse(issued.json["token"].as_str().unwrap()).unwrap();

    let rename =
        async |from: &str, to: &str| world.post(&format!("/api/v1/hosts/{from}/rename"), &json!({ "name": to })).await;
    assert_eq!(rename("alpha", "beta").await.problem(), "host-exists");
    assert_eq!(rename("none", "omega").await.problem(), "host-not-found");
    let renamed = rename("alpha", "omega").await;
    assert_eq!((renamed.status, &renamed.json["name"]), (StatusCode::OK, &json!("omega")));
    assert!(world.told.changes.lock().unwrap().contains(&(host.id, HostChange::Renamed)));
    assert_eq!(world.get("/api/v1/hosts/alpha").await.problem(), "host-not-found");
    let shown = world.get("/api/v1/hosts/omega").await;
    assert_eq!((&shown.json["id"], &shown.json["labels"]), (&json!(host.id), &json!({ "env": "prod" })));
    assert_eq!(shown.json["receipt"], data_encoding::BASE64.encode(&host.receipt), "as it was signed");
    let list = world.get("/api/v1/commands?host=omega").await;
    assert_eq!(list.json["items"][0]["command_id"], json!(command));
    assert_eq!(rename("omega", "omega").await.status, StatusCode::OK, "asked again, it is the same");

    // The unused token is void now, so that it cannot bring a machine in when the name is free again.
    assert_eq!(rename("omega", "last").await.status, StatusCode::OK);
    let mut stranger = host.clone();
    (stranger.id, stranger.name) = (fresh(), "omega".parse().unwrap());
    let write = Write::Enrol {
        token: token.token,
        secret_sha256: sha256(token.secret.as_slice()),
        now: NOW,
        host: Box::new(stranger),
        audit: entry(AuditKind::Enrolment),
    };
    assert_eq!(world.store.write(write).await, Err(StoreError::TokenRefused));
    let newcomer = world.host("alpha").await;
    assert_ne!(newcomer.id, host.id);
    let shown = world.get("/api/v1/hosts/alpha").await;
    assert_eq!((&shown.json["labels"], &shown.json["apps"]), (&json!({}), &json!([])));
    assert_eq!(world.get("/api/v1/commands?host=alpha").await.json["items"], json!([]));
}
