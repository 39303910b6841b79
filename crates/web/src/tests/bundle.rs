//! `deploy_bundle`: files of a request become a deploy, and reach for nothing but the request.

use axum::http::StatusCode;
use envelope::seal::{SealContext, SealingSecretKey};
use fleet::{model::UserRole, ports::Store as _};
use ids::OperationId;
use serde_json::{Value, json};

use super::world::{Answer, World, command_ids, fresh};

const COMPOSE: &str = "services:
  web:
    image: shop:${TAG}
    env_file: web.env
    environment: {PASSWORD: \"${PASSWORD}\"}
    configs: [site]
configs: {site: {file: conf/site.conf}}
";

fn request(files: Value, variables: Value) -> Value {
    let id: OperationId = fresh();
    json!({ "kind": "deploy_bundle", "operation_id": id, "hosts": ["alpha"], "files": files, "order": ["compose.yaml"],
        "variables": variables, "name": "shop" })
}

fn shop() -> Value {
    let files = json!({
        "compose.yaml": COMPOSE, ".env": "TAG=1\nPASSWORD=not-this\n", "web.env": "KEY=hunter2-key\n",
        "conf/site.conf": { "base64": "/wAB" },
    });
    request(files, json!({ "PASSWORD": "hunter2-password" }))
}

#[tokio::test]
async fn files_become_a_deploy_whose_secrets_only_the_host_opens() {
    let world = World::new().await;
    let host = world.host("alpha").await;
    let body = shop();
    let answer = world.post("/api/v1/operations", &body).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED, "{answer:?}");
    let command = world.stored(command_ids(&answer)[0]).await;
    let parameters: Value = serde_json::from_slice(&command.order.parameters).unwrap();
    assert_eq!(parameters["spec"]["services"]["web"]["image"], "shop:1");
    let names: Vec<&str> = command.order.sealed.iter().map(|sealed| sealed.name.as_str()).collect();
    assert_eq!(names, ["web/configs/site", "web/environment/KEY", "web/environment/PASSWORD"]);
    let id: OperationId = body["operation_id"].as_str().unwrap().parse().unwrap();
    let operation = world.store.operation(id).await.unwrap().unwrap();
    for stored in [format!("{operation:?}{command:?}"), String::from_utf8_lossy(&operation.detail).into_owned()] {
        assert!(!stored.contains("hunter2") && !stored.contains("not-this"), "{stored}");
    }
    assert!(!answer.json.to_string().contains("hunter2"));
    let key = SealingSecretKey::from_bytes(&World::SEALING_SECRET);
    let fleet = command.order.fleet;
    let open = |name: &str| {
        let context = SealContext { fleet, host: host.id, app: "shop", name, version: id };
        let value = command.sealed.iter().find(|value| value.name == name).unwrap();
        key.open(&context, &value.bytes).unwrap().to_vec()
    };
    assert_eq!(open("web/environment/PASSWORD"), b"hunter2-password", "the request's variables win over .env");
    assert_eq!(open("web/environment/KEY"), b"hunter2-key");
    assert_eq!(open("web/configs/site"), b"/wAB");
}

#[tokio::test]
async fn the_same_bundle_again_is_the_same_operation() {
    let world = World::new().await;
    world.host("alpha").await;
    let mut body = shop();
    let first = world.post("/api/v1/operations", &body).await;
    assert_eq!(first.status, StatusCode::ACCEPTED, "{first:?}");
    let again = world.post("/api/v1/operations", &body).await;
    assert_eq!((again.status, &again.json), (StatusCode::OK, &first.json));
    let mut slower = body.clone();
    slower["healthy_within_seconds"] = json!(300);
    assert_eq!(world.post("/api/v1/operations", &slower).await.problem(), "operation-conflict");
    slower["healthy_within_seconds"] = json!(1_201);
    let other: OperationId = fresh();
    slower["operation_id"] = json!(other);
    let answer = check_refused(&world, &slower, "healthy_within").await;
    assert!(answer.json.to_string().contains("between 1 s and 20 min"), "{answer:?}");
    body["variables"]["TAG"] = json!("2");
    assert_eq!(world.post("/api/v1/operations", &body).await.problem(), "operation-conflict");
}

#[tokio::test]
async fn a_bundle_is_sealed_to_the_hosts_that_are_selected_when_it_comes_first() {
    let world = World::new().await;
    for name in ["alpha", "beta", "gamma"] {
        world.host(name).await;
    }
    world.delete("/api/v1/hosts/beta").await;
    let mut body = shop();
    (body["hosts"], body["selector"]) = (json!([]), json!("role=app"));
    let first = world.post("/api/v1/operations", &body).await;
    assert_eq!((first.status, &first.json["selector"]), (StatusCode::ACCEPTED, &json!("role=app")), "{first:?}");
    let commands = first.json["commands"].as_array().unwrap();
    let hosts: Vec<&str> = commands.iter().map(|command| command["host"].as_str().unwrap()).collect();
    assert_eq!(hosts, ["alpha", "gamma"], "not the revoked one");
    for command in command_ids(&first) {
        assert_eq!(world.stored(command).await.order.sealed.len(), 3, "each has its own");
    }
    world.host("delta").await;
    let again = world.post("/api/v1/operations", &body).await;
    assert_eq!((again.status, &again.json["commands"]), (StatusCode::OK, &first.json["commands"]), "{again:?}");
    body["selector"] = json!("role=app,!x");
    assert_eq!(world.post("/api/v1/operations", &body).await.problem(), "operation-conflict");
    for (hosts, selector, field) in [
        (json!(["alpha"]), json!("role=app"), "selector"),
        (json!([]), json!("role=dns"), "selector"),
        (json!([]), json!("role"), "selector"),
        (json!([]), Value::Null, "hosts"),
    ] {
        let id: OperationId = fresh();
        (body["hosts"], body["selector"], body["operation_id"]) = (hosts, selector, json!(id));
        check_refused(&world, &body, field).await;
    }
}

#[tokio::test]
async fn notes_come_with_the_answer_and_problems_with_their_places() {
    let world = World::new().await;
    world.host("alpha").await;
    let noted = "version: '3'\nservices: {web: {image: a}}";
    let answer = world.post("/api/v1/operations", &request(json!({ "compose.yaml": noted }), json!({}))).await;
    assert_eq!(answer.json["notes"][0]["message"], "`version` is obsolete and has no effect", "{answer:?}");
    let wrong = "services:\n  web:\n    imagee: a\n    ports: [\"$S\"]\n";
    let files = json!({ "compose.yaml": wrong });
    let answer = world.post("/api/v1/operations", &request(files, json!({ "S": "hunter2" }))).await;
    assert_eq!((answer.status, answer.problem()), (StatusCode::UNPROCESSABLE_ENTITY, "invalid"), "{answer:?}");
    assert_eq!(answer.json["detail"], "the files have 3 problems; nothing was deployed");
    let problems = answer.json["problems"].as_array().unwrap();
    let place =
        |problem: &Value| format!("{}:{}:{} {}", problem["file"], problem["line"], problem["column"], problem["key"]);
    assert_eq!(place(&problems[1]), r#""compose.yaml":3:5 "services.web.imagee""#);
    assert_eq!(problems[1]["hint"], "did you mean `image`?");
    assert!(!answer.json.to_string().contains("hunter2"), "{answer:?}");
}

/// Refused with these words in one of its problems or its detail.
async fn check_refused(world: &World, body: &Value, words: &str) -> Answer {
    let answer = world.post("/api/v1/operations", body).await;
    assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY, "{body}: {answer:?}");
    assert!(answer.json.to_string().contains(words), "{body}: {answer:?}");
    answer
}

#[tokio::test]
async fn a_bundle_reaches_no_file_and_no_variable_of_the_control_plane() {
    let world = World::new().await;
    world.host("alpha").await;
    let one =
        |keys: &str| request(json!({ "compose.yaml": format!("services: {{web: {{image: a, {keys}}}}}") }), json!({}));
    for path in ["/etc/passwd", "../x", "../../../../etc/passwd", "a/../../x"] {
        for keys in [format!("env_file: {path}"), format!("extends: {{service: a, file: {path}}}")] {
            let answer =
                check_refused(&world, &one(&keys), "lies outside of the folder of the first Compose file").await;
            assert!(!answer.json.to_string().contains("root:"), "{answer:?}");
        }
        let secret = format!("services: {{web: {{image: a, secrets: [s]}}}}\nsecrets: {{s: {{file: {path}}}}}");
        check_refused(&world, &request(json!({ "compose.yaml": secret }), json!({})), "lies outside of the folder")
            .await;
        let include = format!("include: [{path}]\nservices: {{web: {{image: a}}}}");
        check_refused(&world, &request(json!({ "compose.yaml": include }), json!({})), "lies outside of the folder")
            .await;
        let mut files = json!({ "compose.yaml": "services: {web: {image: a}}" });
        files[path] = json!("A=1");
        check_refused(&world, &request(files, json!({})), "write a relative path").await;
        let mut ordered = one("init: true");
        ordered["order"] = json!(["compose.yaml", path]);
        check_refused(&world, &ordered, "write a relative path").await;
    }
    check_refused(&world, &one("env_file: Cargo.toml"), "`Cargo.toml` is not there").await;
    // PATH and HOME are set for this very process.
    for name in ["PATH", "HOME"] {
        check_refused(
            &world,
            &one(&format!("command: \"${{{name}:?unset}}\"")),
            &format!("the variable {name} must be set: unset"),
        )
        .await;
        let answer = world.post("/api/v1/operations", &one(&format!("environment: [{name}]"))).await;
        assert_eq!(answer.status, StatusCode::ACCEPTED, "{answer:?}");
        let command = world.stored(command_ids(&answer)[0]).await;
        assert!(command.order.sealed.is_empty(), "nothing of this process was taken");
    }
}

#[tokio::test]
async fn what_is_wrong_with_a_bundle_is_named() {
    let world = World::new().await;
    world.host("alpha").await;
    let check = async |field: &str, value: Value, named: &str| {
        let mut body = shop();
        body[field] = value;
        let answer = world.post("/api/v1/operations", &body).await;
        assert_eq!(answer.json["errors"][0]["field"].as_str(), Some(named), "{answer:?}");
    };
    check("order", json!([]), "order").await;
    check("hosts", json!([]), "hosts").await;
    check("name", json!("Shop!"), "name").await;
    check("files", json!({ "compose.yaml": { "base64": "%" } }), "files.compose.yaml.base64").await;
    check("surprise", json!(1), "surprise").await;
    let mut body = shop();
    body["files"][".env"] = json!("A='hunter2\n");
    let answer = check_refused(&world, &body, "the quote that opens here is never closed").await;
    assert!(!answer.json.to_string().contains("hunter2"), "{answer:?}");
}

#[tokio::test]
async fn a_viewer_gets_nothing_read() {
    let world = World::of(UserRole::Viewer).await;
    world.host("alpha").await;
    let answer = world.post("/api/v1/operations", &request(json!({ "compose.yaml": "[" }), json!({}))).await;
    assert_eq!((answer.status, answer.problem()), (StatusCode::FORBIDDEN, "not-allowed"), "{answer:?}");
}

#[tokio::test]
async fn files_are_read_in_turn() {
    let world = World::new().await;
    world.host("alpha").await;
    // Nobody gets a turn any more.
    world.shared.bundle_readers.close();
    let answer = world.post("/api/v1/operations", &shop()).await;
    assert_eq!((answer.status, answer.problem()), (StatusCode::SERVICE_UNAVAILABLE, "busy"));
    assert_eq!(answer.header("retry-after"), "5");
}
