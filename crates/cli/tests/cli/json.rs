//! With `--json` every command writes exactly one document to standard output, and nothing else.

use serde_json::{Value, json};

use crate::{
    program::{Home, id},
    server::{Answer, Server},
};

pub(crate) fn host(name: &str, number: u8) -> Value {
    json!({"id": id(number), "name": name, "status": "connected", "roles": ["app"], "labels": {"env": "prod"},
           "agent_version": "0.1.0", "last_seen": "2023-11-14T22:13:20.000Z"})
}

fn command(status: &str) -> Value {
    json!({
        "command_id": id(1), "operation_id": id(2), "host": "a", "action": "host.facts@1", "app": null,
        "dry_run": false, "status": status, "message": "done", "requested_by": "admin",
        "proposed_at": "2023-11-14T22:13:20.000Z", "settled_at": null, "parameters": {}, "sealed_values": [],
        "deliver_by": "2023-11-14T22:13:20.000Z", "delivered_at": null, "accepted_at": null, "started_at": null,
        "orders": [], "report": null,
    })
}

fn operation() -> Value {
    let commands = json!([{"command_id": id(1), "host": "a", "action": "app.logs@1", "status": "succeeded",
        "message": "done", "result": {"app": "shop", "logs": [
            {"service": "web", "container": "shop-web", "text": "one\n", "truncated": false}]}}]);
    json!({"operation_id": id(2), "state": "succeeded", "commands": commands})
}

fn server() -> Server {
    let ok = |value: Value| vec![Answer::Json(200, value)];
    let token = json!({"token": "sf1.x", "name": "b", "roles": [], "expires_at": "2023-11-14T22:13:20.000Z"});
    let schema = json!({"properties": {}, "additionalProperties": false});
    let action = json!({"name": "host.facts", "version": 1, "title": "x", "class": "read", "timeout_seconds": 60,
        "schema_sha256": "", "schema": schema});
    let mut detail = host("a", 1);
    let more = json!({"enrolled_at": "2023-11-14T22:13:20.000Z", "host_epoch": 1, "identity_key": "", "sealing_key": "",
        "receipt": "", "root_version": 1, "highest_sequence": 0, "acknowledged_sequence": 0,
        "last_report_sequence": 0, "actions": [], "apps": []});
    detail.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
    let instance = json!({"host": "a", "release": id(2), "deployed_at": "2023-11-14T22:13:20.000Z", "verified": true});
    let app = json!({"name": "shop", "instances": [instance]});
    let app_detail = json!({"name": "shop", "instances": [instance], "results": {}});
    let entry = json!({"index": 0, "time": "2023-11-14T22:13:20.000Z", "kind": "sign-in", "actor": "admin",
        "subject": "admin", "record_sha256": ""});
    Server::new([
        (
            "GET /api/v1/session",
            ok(json!({"name": "admin", "role": "admin", "expires_at": "2099-01-01T00:00:00.000Z"})),
        ),
        ("GET /api/v1/hosts?limit=100", ok(json!({"items": [host("a", 1)]}))),
        ("GET /api/v1/hosts?limit=500", ok(json!({"items": [host("a", 1)]}))),
        ("GET /api/v1/hosts/a", ok(detail)),
        ("POST /api/v1/hosts", vec![Answer::Json(201, token)]),
        ("POST /api/v1/hosts/a/rename", ok(host("c", 1))),
        ("PATCH /api/v1/hosts/a/labels", ok(host("a", 1))),
        ("DELETE /api/v1/hosts/a", vec![Answer::Json(204, json!(null))]),
        ("GET /api/v1/apps?limit=100", ok(json!({"items": [app]}))),
        ("GET /api/v1/apps/shop", ok(app_detail)),
        ("POST /api/v1/operations", vec![Answer::Json(202, operation())]),
        ("GET /api/v1/actions", ok(json!([action]))),
        ("GET /api/v1/actions/host.facts", ok(action)),
        ("GET /api/v1/commands?host=a&status=failed&limit=100", ok(json!({"items": [command("failed")]}))),
        ("GET /api/v1/commands/00000000-0000-7000-8000-000000000001", ok(command("succeeded"))),
        (
            "POST /api/v1/commands/00000000-0000-7000-8000-000000000001/cancel",
            ok(json!({"command": command("cancelled"), "operation": null})),
        ),
        ("GET /api/v1/audit?limit=100", ok(json!({"items": [entry]}))),
        ("GET /api/v1/audit/export", ok(json!({"root_chain": [], "heads": [], "entries": [], "receipts": []}))),
    ])
}

#[test]
fn every_command_writes_exactly_one_document() {
    let server = server();
    let home = Home::signed_in(&server.url);
    home.write("root.pub", &"00".repeat(32));
    let command = id(1);
    for (line, code, pointer) in [
        ("whoami", 0, "/name"),
        ("host list", 0, "/0/status"),
        ("host show a", 0, "/status"),
        ("host enroll b --ttl 1h --role app", 0, "/token"),
        ("host rename a c", 0, "/name"),
        ("host label a env=prod old-", 0, "/labels"),
        ("host revoke a --yes", 0, "/status"),
        ("app list", 0, "/0/name"),
        ("app show shop", 0, "/instances/0/host"),
        ("app logs shop --service web --tail 5", 0, "/logs/0/text"),
        ("app remove shop", 0, "/commands/0/command_id"),
        ("app remove shop --detach", 0, "/operation_id"),
        ("app stop shop", 0, "/commands/0/command_id"),
        ("app start shop --service web --dry-run", 0, "/state"),
        ("app restart shop --host a --detach", 0, "/operation_id"),
        ("action list", 0, "/0/name"),
        ("action show host.facts", 0, "/schema"),
        ("action run host.facts --host a", 0, "/commands/0/status"),
        ("key rotate agent a", 0, "/rotated/0"),
        ("key rotate agent --all --wave 1", 0, "/rotated/0"),
        ("command list --host a --status failed", 0, "/0/command_id"),
        (&format!("command show {command}"), 0, "/status"),
        (&format!("command watch {command}"), 0, "/status"),
        (&format!("command cancel {command}"), 0, "/command/status"),
        ("audit list", 0, "/0/kind"),
        ("audit verify --root root.pub", 1, "/fault"),
        ("audit export out.json", 0, "/bytes"),
        ("audit export -", 0, "/entries"),
        ("doctor", 1, "/findings/0/found"),
        ("version", 0, "/version"),
    ] {
        let mut arguments: Vec<&str> = line.split(' ').collect();
        arguments.push("--json");
        let document = home.run(&arguments).code(code).document();
        assert!(document.pointer(pointer).is_some(), "{line} has no {pointer}: {document}");
    }
}

#[test]
fn every_command_says_something_to_people_without_it() {
    let server = server();
    let home = Home::signed_in(&server.url);
    let command = id(1);
    for (line, words) in [
        (
            "host list",
            "NAME  STATUS     ROLES  LABELS    AGENT  LAST SEEN\na     connected  app    env=prod  0.1.0  now\n",
        ),
        ("host rename a c", "a is now c\n"),
        ("host label a env=prod old-", "a: env=prod\n"),
        ("host enroll b", "sf1.x"),
        ("host revoke a --yes", "a is revoked"),
        ("app logs shop", "one\n"),
        ("app remove shop", "a: succeeded: done\n"),
        ("key rotate agent a", "1 host has new keys\n"),
        (&format!("command cancel {command}"), "is cancelled: done"),
        (&format!("command watch {command}"), "a: succeeded: done\n"),
        ("audit list", "sign-in"),
        ("audit export out.json", "out.json written"),
    ] {
        let ran = home.run(&line.split(' ').collect::<Vec<_>>()).code(0);
        assert!(ran.stdout.contains(words), "{line}: {}", ran.stdout);
        assert!(!ran.stdout.contains('\u{1b}'), "{line}: colours, and no terminal");
    }
    let coloured = home.run(&["host", "list", "--color", "always"]).code(0);
    assert!(coloured.stdout.contains("\u{1b}[32mconnected"), "{:?}", coloured.stdout);
}

#[test]
fn an_export_does_not_overwrite_a_file() {
    let server = server();
    let home = Home::signed_in(&server.url);
    home.write("out.json", "mine");
    home.run(&["audit", "export", "out.json"]).code(2);
    assert_eq!(std::fs::read_to_string(home.path().join("out.json")).expect("there"), "mine");
}

#[test]
fn an_output_that_nobody_reads_is_no_failure() {
    let server = server();
    let home = Home::signed_in(&server.url);
    let mut child = home.command(&["host", "list", "--json"]).spawn().expect("runs");
    drop(child.stdout.take());
    assert_eq!(child.wait().expect("ends").code(), Some(0));
}
