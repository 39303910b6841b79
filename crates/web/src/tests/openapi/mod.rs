//! `docs/openapi.json`: made from the route table and the types, well formed, and what every answer of
//! every test is held to.

mod asked;
mod document;
mod schema;

use std::{collections::BTreeSet, sync::LazyLock};

use axum::http::{Method, StatusCode};
use expect_test::expect_file;
use fleet::model::UserRole;
use serde_json::{Value, json};

pub(super) use self::asked::Asked;
use self::schema::Check;
use super::{
    scenes,
    world::{World, command_ids, facts},
};
use crate::routes::{self, DOCUMENT, described::operations};

/// The document that is served.
static SERVED: LazyLock<Value> = LazyLock::new(|| serde_json::from_str(DOCUMENT).expect("JSON"));

/// # Panics
/// When an event of a stream is none that the document tells of.
pub(super) fn event_is_documented(event: &Value) {
    let schema = json!({ "$ref": "#/components/schemas/Event" });
    let wrong = Check { document: &SERVED }.value(&schema, event, "event").err();
    assert_eq!(wrong, None, "{event}");
}

/// Written anew with `UPDATE_EXPECT=1`.
#[test]
fn the_document_is_what_the_table_and_the_types_make() {
    let text = serde_json::to_string_pretty(&document::document()).unwrap() + "\n";
    expect_file!["../../../../../docs/openapi.json"].assert_eq(&text);
}

#[test]
fn every_route_has_an_operation_and_every_operation_a_route() {
    let of_table: BTreeSet<_> =
        routes::table().iter().map(|route| format!("{} {}", route.method, route.path)).collect();
    let paths = SERVED["paths"].as_object().unwrap();
    let of_document = |(path, methods): (&String, &Value)| {
        let methods: Vec<_> = methods.as_object().unwrap().keys().map(|word| word.to_uppercase()).collect();
        methods.into_iter().map(|method| format!("{method} {path}")).collect::<Vec<_>>()
    };
    assert_eq!(of_table, paths.iter().flat_map(of_document).collect());
    assert_eq!(of_table, operations().iter().map(|one| format!("{} {}", one.method, one.path)).collect());
}

#[test]
fn the_document_is_well_formed() {
    assert!(SERVED["openapi"].as_str().unwrap().starts_with("3.1."));
    let mut references = Vec::new();
    collect(&SERVED, "$ref", &mut references);
    for reference in &references {
        let found = Check { document: &SERVED }.resolved(reference.as_str().unwrap());
        assert!(found.is_some(), "{reference} points nowhere");
    }
    let components = ["schemas", "responses"].map(|part| (part, SERVED["components"][part].as_object().unwrap()));
    for (part, name) in components.iter().flat_map(|(part, all)| all.keys().map(move |name| (part, name))) {
        assert!(references.contains(&&json!(format!("#/components/{part}/{name}"))), "{name} is used nowhere");
        assert!(name.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c)), "{name} (OpenAPI 3.1, 4.8.7)");
    }
    let mut ids = BTreeSet::new();
    let tags = SERVED["tags"].as_array().unwrap();
    for (path, methods) in SERVED["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let what = format!("{method} {path}");
            let id = operation["operationId"].as_str().unwrap();
            assert!(ids.insert(id) && id.chars().all(|c| c.is_ascii_lowercase() || c == '_'), "{what}: {id}");
            assert!(tags.contains(&json!({ "name": operation["tags"][0] })), "{what}");
            let parameters = operation["parameters"].as_array().unwrap();
            let in_path = parameters.iter().filter(|parameter| parameter["in"] == "path");
            let named: Vec<_> =
                in_path.map(|parameter| format!("{{{}}}", parameter["name"].as_str().unwrap())).collect();
            let braced: Vec<_> = path.split('/').filter(|part| part.starts_with('{')).collect();
            assert_eq!(named, braced, "{what}");
            let names: BTreeSet<_> = parameters.iter().map(|parameter| parameter["name"].as_str()).collect();
            assert_eq!(names.len(), parameters.len(), "{what}");
            let responses = operation["responses"].as_object().unwrap();
            assert!(responses.keys().any(|status| status.starts_with('2')), "{what}");
            let said = |response: &Value| response["description"].is_string() || response["$ref"].is_string();
            assert!(responses.values().all(said), "{what}");
            let open = operation["security"] == json!([]);
            assert_eq!(open, !responses.contains_key("401") || path == "/api/v1/session" && method == "post", "{what}");
        }
    }
}

fn collect<'a>(value: &'a Value, key: &str, into: &mut Vec<&'a Value>) {
    match value {
        Value::Object(object) => {
            into.extend(object.get(key).filter(|found| found.is_string()));
            object.values().for_each(|value| collect(value, key, into));
        }
        Value::Array(array) => array.iter().for_each(|value| collect(value, key, into)),
        _ => {}
    }
}

/// Each route is asked for what it is there for. [`World::send`] holds the answers to the document, as it
/// does in every other test; here every answer that is no problem has to come once.
#[tokio::test]
async fn every_answer_the_document_promises_is_given() {
    let mut seen = BTreeSet::new();
    for route in routes::table() {
        let world = World::of(UserRole::Owner).await;
        let scene = scenes::scene(&world, &route).await.unwrap_or_else(|| panic!("{} has no scene", route.path));
        let answer = world.send(scene.request).await;
        seen.insert(format!("{} {} {}", route.method, route.path, answer.status.as_u16()));
    }
    let world = World::new().await;
    world.host("alpha").await;
    let asked = facts(&["alpha"]);
    let command = command_ids(&world.post("/api/v1/operations", &asked).await)[0];
    let again = world.post("/api/v1/operations", &asked).await.status;
    seen.insert(format!("POST /api/v1/operations {}", again.as_u16()));
    world.start(command).await;
    let ordered = world.post(&format!("/api/v1/commands/{command}/cancel"), &json!({})).await.status;
    seen.insert(format!("POST /api/v1/commands/{{id}}/cancel {}", ordered.as_u16()));
    seen.extend(super::standing::sent_again(&world).await);
    let promised = operations().into_iter().flat_map(|one| {
        let what = format!("{} {}", one.method, one.path);
        one.answers.into_iter().map(move |(status, _)| format!("{what} {status}"))
    });
    assert_eq!(seen, promised.collect());
}

#[tokio::test]
async fn the_document_is_open_to_anyone() {
    let world = World::new().await;
    let answer = world.send(World::request(Method::GET, "/api/v1/openapi.json", None, None)).await;
    assert_eq!((answer.status, answer.header("content-type")), (StatusCode::OK, "application/json"));
    assert_eq!(answer.json, *SERVED);
}

#[test]
fn what_is_not_as_documented_is_found() {
    let check = |name: &str, value: Value| {
        let schema = json!({ "$ref": format!("#/components/schemas/{name}") });
        Check { document: &SERVED }.value(&schema, &value, "").err()
    };
    let good = json!({ "name": "ada", "role": "admin", "expires_at": "2026-01-02T03:04:05.000Z" });
    assert_eq!(check("WhoAmI", good.clone()), None);
    let mut found = String::new();
    let mut wrong = |key: &str, value: Value| {
        let mut bad = good.clone();
        bad[key] = value;
        found += &format!("{}\n", check("WhoAmI", bad).unwrap_or_else(|| panic!("{key} was passed over")));
    };
    wrong("role", json!(7));
    wrong("name", Value::Null);
    wrong("expires_at", json!("yesterday"));
    wrong("token_id", json!("7"));
    wrong("secret", json!("hunter2"));
    found += &format!("{}\n", check("WhoAmI", json!({ "name": "ada", "role": "admin" })).unwrap());
    found += &format!("{}\n", check("HostStatus", json!("lost")).unwrap());
    found += &format!("{}\n", check("Event", json!({ "event": "command", "host": "a" })).unwrap());
    found += &format!("{}\n", check("AuditExport", json!([])).unwrap());
    assert_eq!(found.lines().count(), 9, "{found}");
    assert!(found.contains(".secret is not documented") && found.contains("expires_at is missing"), "{found}");
}
