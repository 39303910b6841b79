//! `app deploy`, from the file to the last word.

use data_encoding::BASE64;
use envelope::seal::{SealContext, SealingSecretKey};
use serde_json::{Value, json};

use crate::{
    fleet_root,
    json::host,
    program::{Home, id},
    server::{Answer, Server},
};

const COMPOSE: &str = "name: shop
services:
  web:
    image: registry.example.org/web:1
    environment:
      PASSWORD: ${PASSWORD}
";

fn key() -> SealingSecretKey {
    SealingSecretKey::from_bytes(&[7; 32])
}

fn host_detail() -> Value {
    let public = BASE64.encode(&key().public().0);
    let mut detail = host("a", 1);
    let more = json!({"enrolled_at": "2023-11-14T22:13:20.000Z", "host_epoch": 1, "identity_key": "",
        "sealing_key": public, "receipt": fleet_root::receipt(key().public()), "root_version": 1, "highest_sequence": 0,
        "acknowledged_sequence": 0, "last_report_sequence": 0, "actions": [], "apps": []});
    detail.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
    detail
}

fn plan(unchanged: bool) -> Value {
    json!({"app": "shop", "release_from": null, "images": {}, "changes": [
        {"service": "web", "change": if unchanged { "unchanged" } else { "create" }, "reasons": []}],
        "networks": [], "volumes": [], "strategy": "stop-first", "why": "it publishes a port", "unchanged": unchanged,
        "verifiable": true, "without_probe": [], "plan_sha256": "00".repeat(32)})
}

fn command(number: u8, action: &str, status: &str, message: &str, result: Value) -> Value {
    json!({"command_id": id(number), "host": "a", "action": action, "status": status, "message": message, "result": result})
}

fn operation(state: &str, commands: &[Value]) -> Value {
    json!({"operation_id": id(9), "state": state, "commands": commands})
}

/// A control plane that answers the proposal and then the end.
fn server(proposal: Vec<Answer>, end: Value) -> Server {
    let running = operation("running", &[command(1, "app.plan@1", "running", "", json!(null))]);
    Server::new([
        ("GET /api/v1/hosts/a", vec![Answer::Json(200, host_detail())]),
        ("GET /api/v1/fleet/root", vec![Answer::Json(200, fleet_root::chain(1))]),
        ("POST /api/v1/operations", proposal),
        (
            "GET /api/v1/operations/00000000-0000-7000-8000-000000000009",
            vec![Answer::Json(200, running), Answer::Json(200, end)],
        ),
        (
            "GET /api/v1/operations/00000000-0000-7000-8000-000000000009/events",
            vec![Answer::Events(vec![
                json!({"event": "command", "command_id": id(1), "host": "a", "action": "app.plan@1", "status": "running", "message": ""}),
                json!({"event": "progress", "command_id": id(1), "host": "a", "text": "pulling \u{1b}[2J web:1"}),
                json!({"event": "something-newer", "x": 1}),
            ])],
        ),
    ])
}

fn proposed() -> Answer {
    Answer::Json(202, operation("running", &[command(1, "app.plan@1", "queued", "", json!(null))]))
}

fn home(server: &Server) -> Home {
    let home = Home::signed_in(&server.url).with("PASSWORD", "hunter2hunter2");
    home.write("compose.yaml", COMPOSE);
    home
}

const DEPLOY: [&str; 6] = ["app", "deploy", "-f", "compose.yaml", "--host", "a"];

fn deployed() -> Value {
    operation(
        "succeeded",
        &[
            command(1, "app.plan@1", "succeeded", "would create 1 service of shop", plan(false)),
            command(2, "app.deploy@1", "succeeded", "shop is deployed: 1 service changed, all healthy", json!({})),
        ],
    )
}

#[test]
fn how_long_health_may_take_is_sent_along_and_bounded() {
    let server = server(vec![proposed()], deployed());
    let home = home(&server);
    let with = |more: &[&str]| home.run(&[&DEPLOY[..], more].concat());
    for (flag, span, words) in [
        ("--healthy-within", "21m", "at most 20 min"),
        ("--healthy-within", "0s", "expected a span"),
        ("--min-healthy", "601s", "at most 10 min"),
    ] {
        let ran = with(&[flag, span]).code(2);
        assert!(ran.stderr.contains(words) && ran.stderr.contains(flag), "{}", ran.stderr);
    }
    assert!(server.heard_of("POST").is_empty());
    with(&["--healthy-within", "2m", "--min-healthy", "10s"]).code(0);
    let body = server.heard_of("POST")[0].json();
    assert_eq!((&body["healthy_within_seconds"], &body["min_healthy_seconds"]), (&json!(120), &json!(10)));
}

#[test]
fn a_start_and_a_restart_may_take_longer_and_a_stop_has_nothing_to_wait_for() {
    let server = server(vec![proposed()], deployed());
    let home = home(&server);
    for verb in ["start", "restart"] {
        home.run(&["app", verb, "shop", "--detach", "--healthy-within", "5m"]).code(0);
        let body = server.heard_of("POST").last().expect("it was asked for").json();
        assert_eq!(body["action"], format!("app.{verb}"));
        assert_eq!(body["parameters"], json!({"app": "shop", "timeout_ms": 300_000}));
        let ran = home.run(&["app", verb, "shop", "--healthy-within", "21m"]).code(2);
        assert!(ran.stderr.contains("at most 20 min"), "{}", ran.stderr);
    }
    home.run(&["app", "stop", "shop", "--healthy-within", "5m"]).code(2);
}

#[test]
fn a_deploy_seals_its_secrets_and_is_followed_to_its_end() {
    let server = server(vec![proposed()], deployed());
    let ran = home(&server).run(&DEPLOY).code(0);
    assert_eq!(ran.stdout, "a: succeeded: shop is deployed: 1 service changed, all healthy\n");
    for words in ["deploying shop on a", "a: app.plan: running", "a: pulling \u{fffd}[2J web:1", "+ web  create"] {
        assert!(ran.stderr.contains(words), "no {words:?} in\n{}", ran.stderr);
    }
    let sent = &server.heard_of("POST")[0];
    assert!(!String::from_utf8_lossy(&sent.body).contains("hunter2"), "no secret leaves in the clear");
    let body = sent.json();
    assert_eq!(
        (&body["kind"], &body["hosts"], &body["spec"]["app"]),
        (&json!("deploy"), &json!(["a"]), &json!("shop"))
    );
    let value = &body["sealed"]["a"][0];
    assert_eq!(value["name"], "web/environment/PASSWORD");
    let context = SealContext {
        fleet: id(8).parse().expect("an id"),
        host: id(1).parse().expect("an id"),
        app: "shop",
        name: "web/environment/PASSWORD",
        version: body["operation_id"].as_str().expect("text").parse().expect("an id"),
    };
    let sealed = BASE64.decode(value["sealed"].as_str().expect("text").as_bytes()).expect("base64");
    assert_eq!(key().open(&context, &sealed).expect("opens").as_slice(), b"hunter2hunter2");
}

#[test]
fn a_broken_connection_sends_the_same_request_again() {
    let server = server(vec![Answer::Cut, Answer::Cut, proposed()], deployed());
    let mut arguments = DEPLOY.to_vec();
    arguments.push("--json");
    let document = home(&server).run(&arguments).code(0).document();
    assert_eq!(document["state"], "succeeded");
    assert_eq!(document["commands"][1]["status"], "succeeded");
    let sent = server.heard_of("POST");
    assert_eq!(sent.len(), 3);
    assert!(sent.iter().all(|one| one.body == sent[0].body), "the same bytes, so the same request");
}

#[test]
fn a_roll_back_is_a_failure_that_shows_the_last_log_lines() {
    let failing = json!({"failing": [{"service": "web", "container": "shop-web", "logs": "no database\n"}]});
    let end = operation(
        "failed",
        &[
            command(1, "app.plan@1", "succeeded", "", plan(false)),
            command(
                2,
                "app.deploy@1",
                "rolled_back",
                "web became unhealthy. shop was put back as it was, and verified",
                failing,
            ),
        ],
    );
    let server = server(vec![proposed()], end);
    let ran = home(&server).run(&DEPLOY).code(1);
    let expected = expect_test::expect![[r"
        a: rolled back: web became unhealthy. shop was put back as it was, and verified
          last log lines of web:
            no database
    "]];
    expected.assert_eq(&ran.stdout);
    let mut arguments = DEPLOY.to_vec();
    arguments.push("--json");
    let document = home(&server).run(&arguments).code(1).document();
    assert_eq!(document["commands"][1]["status"], "rolled_back");
}

#[test]
fn nothing_to_change_is_success() {
    let end = operation(
        "succeeded",
        &[command(1, "app.plan@1", "succeeded", "nothing to change: shop runs as asked", plan(true))],
    );
    let server = server(vec![proposed()], end);
    let ran = home(&server).run(&DEPLOY).code(0);
    assert_eq!(ran.stdout, "a: succeeded: nothing to change: shop runs as asked\n");
}

#[test]
fn a_dry_run_prints_the_plan() {
    let end =
        operation("succeeded", &[command(1, "app.plan@1", "succeeded", "would create 1 service of shop", plan(false))]);
    let server = server(vec![proposed()], end);
    let mut arguments = DEPLOY.to_vec();
    arguments.push("--dry-run");
    let ran = home(&server).run(&arguments).code(0);
    let expected = expect_test::expect![[r#"
        a: would create 1 service of shop
          + web  create
          stop-first: it publishes a port
        dry run: nothing was changed
    "#]];
    expected.assert_eq(&ran.stdout);
    assert_eq!(server.heard_of("POST")[0].json()["dry_run"], true);
    arguments.push("--json");
    let document = home(&server).run(&arguments).code(0).document();
    assert_eq!(document["commands"][0]["plan"]["changes"][0]["change"], "create");
}

#[test]
fn detached_it_does_not_wait() {
    let server = server(vec![proposed()], deployed());
    let mut arguments = DEPLOY.to_vec();
    arguments.extend(["--detach", "--queue-for", "1h"]);
    let ran = home(&server).run(&arguments).code(0);
    assert!(ran.stdout.contains("goes on; watch it with `serverflow operation watch"), "{}", ran.stdout);
    assert!(server.heard_of("GET /api/v1/operations").is_empty());
    assert_eq!(server.heard_of("POST")[0].json()["queue_for_seconds"], 3600);
}

#[test]
fn every_problem_of_a_file_is_listed_and_nothing_is_sent() {
    let server = server(vec![proposed()], deployed());
    let home = home(&server);
    home.write("compose.yaml", "services:\n  web:\n    imagee: x\n    ports: [\"1:2:3:4\"]\n");
    let ran = home.run(&DEPLOY).code(2);
    assert!(ran.stderr.contains("compose.yaml:3:5: services.web.imagee: "), "{}", ran.stderr);
    assert!(ran.stderr.contains("compose.yaml:4:"), "{}", ran.stderr);
    let mut arguments = DEPLOY.to_vec();
    arguments.push("--json");
    let document = home.run(&arguments).code(2).error_document();
    assert!(document["problems"].as_array().is_some_and(|list| list.len() >= 2), "{document}");
    let lines = document["problems"].as_array().into_iter().flatten().map(|problem| &problem["line"]);
    assert!(lines.clone().any(|line| *line == 3) && lines.clone().any(|line| *line == 4), "{document}");
    assert!(server.heard().is_empty());
}

#[test]
fn a_host_whose_sealing_key_is_not_its_receipts_gets_no_secrets() {
    let mut detail = host_detail();
    detail["sealing_key"] = json!(BASE64.encode(&SealingSecretKey::from_bytes(&[8; 32]).public().0));
    let server = Server::new([
        ("GET /api/v1/hosts/a", vec![Answer::Json(200, detail)]),
        ("GET /api/v1/fleet/root", vec![Answer::Json(200, fleet_root::chain(1))]),
    ]);
    let ran = home(&server).run(&DEPLOY).code(1);
    assert!(ran.stderr.contains("nothing was sealed to it"), "{}", ran.stderr);
    assert!(server.heard_of("POST").is_empty());
}

#[test]
fn a_revoked_host_is_refused_before_anything_is_sealed() {
    let mut detail = host_detail();
    detail["status"] = json!("revoked");
    let server = Server::new([("GET /api/v1/hosts/a", vec![Answer::Json(200, detail)])]);
    let ran = home(&server).run(&DEPLOY).code(1);
    assert!(ran.stderr.contains("host a is revoked"), "{}", ran.stderr);
    assert!(server.heard_of("POST").is_empty());
}

#[test]
fn a_check_needs_nobody_signed_in_and_no_control_plane() {
    let home = Home::new().with("PASSWORD", "hunter2hunter2");
    home.write("compose.yaml", COMPOSE);
    home.write("open.yaml", "services: {web: {ports: [\"80:80\"], privileged: true, volumes: [\"./data:/data\"]}}");
    let ran = home.run(&["app", "check", "-f", "compose.yaml"]).code(0);
    let expected = expect_test::expect![[r#"
        shop: web; 1 value is sealed
        a host's owner has to allow, in policy.toml:
          [images] registries = ["registry.example.org"]
            because service web uses the image registry.example.org/web:1, from the registry registry.example.org
    "#]];
    expected.assert_eq(&ran.stdout);
    let document = home.run(&["app", "check", "-f", "compose.yaml", "-f", "open.yaml", "--json"]).code(0).document();
    let lines: Vec<&str> =
        document["policy"].as_array().expect("a list").iter().filter_map(|line| line["line"].as_str()).collect();
    for line in ["[ports] publish = [\"0.0.0.0:80\"]", "[containers] privileged = true"] {
        assert!(lines.contains(&line), "{lines:?}");
    }
    assert_eq!(document["spec"]["services"]["web"]["mounts"][0]["source"], "./data");
    assert_eq!(document["sealed"], json!(["web/environment/PASSWORD"]));
    assert!(document["notes"][0]["message"].as_str().is_some_and(|note| note.contains("is looked for on the host")));
    assert!(!document.to_string().contains("hunter2"));
    home.write("open.yaml", "services: {web: {portss: [], comand: x, env_file: [gone.env, /etc/hostname]}}");
    let document =
        home.run(&["app", "check", "-f", "compose.yaml", "-f", "open.yaml", "--json"]).code(2).error_document();
    let problems = document["problems"].as_array().expect("a list");
    assert_eq!(problems.len(), 4, "{document}");
    assert!(problems.iter().all(|problem| problem["file"] == "open.yaml" && problem["line"] == 1), "{document}");
}

#[test]
fn a_fleet_with_another_root_than_the_known_one_gets_no_secrets() {
    let server = server(Vec::new(), json!(null));
    let home = home(&server).with("SERVERFLOW_ROOT", "root.pub");
    home.write("root.pub", &fleet_root::root_key(2));
    let ran = home.run(&DEPLOY).code(1);
    assert!(ran.stderr.contains("somebody in its place"), "{}", ran.stderr);
    assert!(server.heard_of("POST").is_empty());
}

/// A recovery copy of `shop` as operation 3 deployed it, for the owner key [9; 32].
fn release(names: &[&str]) -> Value {
    use envelope::recovery::{RecoveryContext, recovery_copy};
    let context =
        RecoveryContext { fleet: id(8).parse().expect("an id"), app: "shop", version: id(3).parse().expect("an id") };
    let secrets = names.iter().map(|name| (*name, &b"hunter2hunter2"[..]));
    let owner = SealingSecretKey::from_bytes(&[9; 32]).public();
    let mut random = rand::rand_core::UnwrapErr(rand::rngs::SysRng);
    let copy =
        recovery_copy(&[owner], &context, secrets, &zeroize::Zeroizing::new([5; 32]), &mut random).expect("a copy");
    let key = |key: &envelope::recovery::WrappedKey| json!({"recovery_key": key.recovery_key.to_string(), "sealed": BASE64.encode(&key.bytes)});
    let value =
        |value: &envelope::messages::SealedValue| json!({"name": value.name, "sealed": BASE64.encode(&value.bytes)});
    json!({"operation_id": id(3), "app": "shop", "healthy_within_seconds": 60,
        "spec": {"app": "shop", "networks": {}, "volumes": {}, "services": {"web": {"image": "registry.example.org/web:1", "restart": "no",
            "environment": {"PASSWORD": {"sealed": "web/environment/PASSWORD"}}}}},
        "recovery": {"keys": copy.keys.iter().map(key).collect::<Vec<_>>(), "values": copy.values.iter().map(value).collect::<Vec<_>>()}})
}

fn shop_on_b() -> Value {
    json!({"name": "shop", "instances": [{"host": "b", "release": id(3), "deployed_at": "2023-11-14T22:08:20.000Z",
        "verified": true, "state": "running"}], "results": {"b": {"services": {"web": {
        "image": format!("registry.example.org/web@sha256:{}", "ab".repeat(32))}}}}})
}

/// Where `shop` runs on `b`, which is away, and may go to `a`.
fn mover(release: Value, end: Value) -> Server {
    let server = server(vec![proposed()], end);
    let mut b = host("b", 2);
    b["status"] = json!("offline");
    let more = host_detail();
    for field in [
        "enrolled_at",
        "host_epoch",
        "identity_key",
        "sealing_key",
        "receipt",
        "root_version",
        "highest_sequence",
        "acknowledged_sequence",
        "last_report_sequence",
        "actions",
        "apps",
    ] {
        b[field] = more[field].clone();
    }
    server.answer("GET /api/v1/apps/shop", Answer::Json(200, shop_on_b()));
    server.answer("GET /api/v1/hosts/b", Answer::Json(200, b));
    server.answer("GET /api/v1/operations/00000000-0000-7000-8000-000000000003/release", Answer::Json(200, release));
    server
}

const MOVE: [&str; 9] =
    ["app", "move", "shop", "--to", "a", "--recovery-key", "owner.key.pem", "--passphrase-file", "passphrase"];

fn with_owner_key(server: &Server) -> Home {
    let home = home(server);
    keyfile::write_seed_encrypted(
        &home.path().join("owner.key.pem"),
        keyfile::KeyKind::X25519,
        &[9; 32],
        "open sesame",
    )
    .expect("written");
    home.write("passphrase", "open sesame\n");
    home
}

#[test]
fn a_move_deploys_what_ran_with_its_secrets_sealed_anew() {
    let server = mover(release(&["web/environment/PASSWORD"]), deployed());
    let ran = with_owner_key(&server).run(&MOVE).code(0);
    assert!(ran.stderr.contains("b is not connected"), "{}", ran.stderr);
    let sent = server.heard_of("POST");
    assert_eq!(sent.len(), 1, "nothing is asked of a host that is away");
    assert!(!String::from_utf8_lossy(&sent[0].body).contains("hunter2"), "no secret leaves in the clear");
    let body = sent[0].json();
    assert_eq!((&body["hosts"], &body["healthy_within_seconds"]), (&json!(["a"]), &json!(60)));
    let image = body["spec"]["services"]["web"]["image"].as_str().expect("an image");
    assert!(image.starts_with("registry.example.org/web@sha256:"), "what ran, not what the tag means now: {image}");
    let context = SealContext {
        fleet: id(8).parse().expect("an id"),
        host: id(1).parse().expect("an id"),
        app: "shop",
        name: "web/environment/PASSWORD",
        version: body["operation_id"].as_str().expect("an id").parse().expect("an id"),
    };
    let sealed = BASE64.decode(body["sealed"]["a"][0]["sealed"].as_str().expect("a value").as_bytes()).expect("base64");
    assert_eq!(key().open(&context, &sealed).expect("opens").as_slice(), b"hunter2hunter2");
}

#[test]
fn a_move_stops_before_anything_is_lost() {
    let refused = |release: Value, more: &[&str], words: &str| {
        let server = mover(release, deployed());
        let ran = with_owner_key(&server).run(&[&MOVE[..], more].concat()).code(2);
        assert!(ran.stderr.contains(words), "{}", ran.stderr);
        assert!(server.heard_of("POST").is_empty());
    };
    let good = || release(&["web/environment/PASSWORD"]);
    let mut none = good();
    none.as_object_mut().expect("an object").remove("recovery");
    refused(none, &[], "not sealed to a recovery key");
    let mut with_data = good();
    with_data["spec"]["volumes"] = json!({"data": {}});
    with_data["spec"]["services"]["web"]["mounts"] = json!([{"type": "volume", "volume": "data", "target": "/data"},
        {"type": "bind", "source": "./html", "target": "/html"}]);
    refused(with_data.clone(), &[], "volume data, directory ./html");
    refused(good(), &["--from", "c"], "it is on b");
    let mut elsewhere = good();
    elsewhere["operation_id"] = json!(id(4));
    refused(elsewhere, &[], "cannot open");
    let server = mover(with_data, deployed());
    with_owner_key(&server).run(&[&MOVE[..], &["--leave-data"]].concat()).code(0);
}

#[test]
fn a_move_that_does_not_become_healthy_leaves_the_app_where_it_was() {
    let failed = operation(
        "failed",
        &[
            command(1, "app.plan@1", "succeeded", "", plan(false)),
            command(2, "app.deploy@1", "rolled_back", "web did not become healthy", json!({})),
        ],
    );
    let server = mover(release(&["web/environment/PASSWORD"]), failed);
    let ran = with_owner_key(&server).run(&MOVE).code(1);
    assert!(ran.stdout.contains("shop stays on b"), "{}", ran.stdout);
    assert_eq!(server.heard_of("POST").len(), 1);
}
