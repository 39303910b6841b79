//! `user …`, `session …`, `token …` and `operation …`: what is asked, what is shown, and how refusals end.

use serde_json::{Value, json};

use crate::{
    program::{Home, id},
    server::{Answer, Server},
};

const TIME: &str = "2023-11-14T22:13:20.000Z";
const LATER: &str = "2099-01-01T00:00:00.000Z";

fn user(name: &str, role: &str) -> Value {
    json!({"id": id(1), "name": name, "role": role, "created_at": TIME, "disabled_at": null})
}

fn token(status: &str) -> Value {
    json!({"id": id(3), "name": "ci", "user": "ada", "role": "viewer", "status": status, "created_at": TIME,
        "expires_at": LATER, "last_used_at": null})
}

fn session() -> Value {
    json!({"id": id(2), "user": "ada", "created_at": TIME, "expires_at": LATER, "address": "192.0.2.7", "current": true})
}

fn operation() -> Value {
    let commands =
        json!([{"command_id": id(5), "host": "a", "action": "host.facts@1", "status": "failed", "message": "no"}]);
    json!({"operation_id": id(4), "state": "failed", "commands": commands})
}

fn operation_line() -> Value {
    json!({"operation_id": id(4), "kind": "single", "state": "failed", "requested_by": "ada", "created_at": TIME,
        "dry_run": false, "commands": {"failed": 1}})
}

fn problem(status: u16, kind: &str, detail: &str) -> Answer {
    let kind = format!("urn:serverflow:{kind}");
    Answer::Json(status, json!({"type": kind, "title": "Refused", "status": status, "detail": detail}))
}

fn server() -> Server {
    let ok = |value: Value| vec![Answer::Json(200, value)];
    let items = |items: Value| ok(json!({ "items": items }));
    let gone = || vec![Answer::Json(204, json!(null))];
    let mut made = token("active");
    made["token"] = json!("sft_secret");
    Server::new([
        ("GET /api/v1/session", ok(json!({"name": "ada", "role": "viewer", "expires_at": LATER, "token_id": id(3)}))),
        ("GET /api/v1/users?limit=100", items(json!([user("ada", "owner"), user("bob", "viewer")]))),
        (
            "GET /api/v1/users?role=viewer&status=disabled&sort=-created_at&limit=3",
            items(json!([user("bob", "viewer")])),
        ),
        ("GET /api/v1/users/bob", ok(user("bob", "viewer"))),
        ("POST /api/v1/users", vec![Answer::Json(201, user("bob", "viewer"))]),
        ("PUT /api/v1/users/bob/role", ok(user("bob", "admin"))),
        ("PUT /api/v1/users/bob/password", ok(user("bob", "viewer"))),
        ("PUT /api/v1/users/ada/password", ok(user("ada", "owner"))),
        ("POST /api/v1/users/bob/disable", ok(user("bob", "viewer"))),
        ("POST /api/v1/users/bob/enable", ok(user("bob", "viewer"))),
        ("DELETE /api/v1/users/bob", gone()),
        ("GET /api/v1/sessions?limit=100", items(json!([session()]))),
        ("GET /api/v1/sessions?user=bob&address=192.0.2.7&sort=expires_at&limit=100", items(json!([session()]))),
        ("DELETE /api/v1/sessions/00000000-0000-7000-8000-000000000002", gone()),
        ("DELETE /api/v1/users/ada/sessions", gone()),
        ("DELETE /api/v1/users/bob/sessions", gone()),
        ("GET /api/v1/tokens?limit=100", items(json!([token("active")]))),
        ("GET /api/v1/tokens?user=bob&status=revoked&limit=500", items(json!([token("revoked")]))),
        ("POST /api/v1/tokens", vec![Answer::Json(201, made)]),
        ("DELETE /api/v1/tokens/00000000-0000-7000-8000-000000000003", gone()),
        ("GET /api/v1/operations?limit=100", items(json!([operation_line()]))),
        ("GET /api/v1/operations?requested_by=ada&sort=created_at&limit=2", items(json!([operation_line()]))),
        ("GET /api/v1/operations/00000000-0000-7000-8000-000000000004", ok(operation())),
    ])
}

#[test]
fn every_command_about_people_asks_for_it_and_writes_one_document() {
    let server = server();
    let home = Home::signed_in(&server.url);
    home.write("new", "a long enough password\n");
    home.write("old", "the password before\n");
    let (session, token, operation) = (id(2), id(3), id(4));
    for (line, code, pointer, expected) in [
        ("whoami", 0, "/token_id", json!(token)),
        ("user list", 0, "/1/name", json!("bob")),
        ("user list --role viewer --status disabled --sort=-created_at --limit 3", 0, "/0/name", json!("bob")),
        ("user show bob", 0, "/role", json!("viewer")),
        ("user create bob --role viewer --password-file new", 0, "/name", json!("bob")),
        ("user role bob admin", 0, "/role", json!("admin")),
        ("user password bob --password-file new", 0, "/name", json!("bob")),
        ("user password --password-file new --old-password-file old", 0, "/name", json!("ada")),
        ("user disable bob", 0, "/name", json!("bob")),
        ("user enable bob", 0, "/name", json!("bob")),
        ("user delete bob --yes", 0, "/deleted", json!(true)),
        ("session list", 0, "/0/current", json!(true)),
        ("session list --user bob --address 192.0.2.7 --sort expires_at", 0, "/0/id", json!(session)),
        (&format!("session revoke {session}"), 0, "/revoked", json!(session)),
        ("session revoke --all", 0, "/revoked", json!("all")),
        ("session revoke --all --user bob", 0, "/revoked", json!("all")),
        ("token create --name ci --role viewer --ttl 1h", 0, "/token", json!("sft_secret")),
        ("token list", 0, "/0/status", json!("active")),
        ("token list --user bob --status revoked --all", 0, "/0/status", json!("revoked")),
        (&format!("token revoke {token}"), 0, "/revoked", json!(token)),
        ("operation list", 0, "/0/operation_id", json!(operation)),
        ("operation list --requested-by ada --sort created_at --limit 2", 0, "/0/state", json!("failed")),
        (&format!("operation show {operation}"), 0, "/state", json!("failed")),
        (&format!("operation watch {operation}"), 1, "/commands/0/status", json!("failed")),
    ] {
        let mut arguments: Vec<&str> = line.split(' ').collect();
        arguments.push("--json");
        let document = home.run(&arguments).code(code).document();
        assert_eq!(document.pointer(pointer), Some(&expected), "{line}: {document}");
        assert!(!document.to_string().contains("a long enough password"), "{line}: a password that was given");
    }
}

#[test]
fn what_is_sent_is_what_was_said() {
    let server = server();
    let home = Home::signed_in(&server.url);
    home.write("new", "a long enough password\n");
    home.write("old", "the password before\n");
    let run = |line: &str| home.run(&line.split(' ').collect::<Vec<_>>()).code(0);
    let sent = |line: &str| server.heard_of(line).last().expect("it was asked for").json();

    run("user create bob --role viewer --password-file new");
    let body = json!({"name": "bob", "role": "viewer", "password": "a long enough password"});
    assert_eq!(sent("POST /api/v1/users"), body);
    let ran = run("user create bob --role viewer");
    let made = sent("POST /api/v1/users")["password"].as_str().expect("a password").to_owned();
    assert!(made.len() >= 20 && ran.stdout.contains(&format!("Password  {made}   (shown once)")), "{}", ran.stdout);
    run("user password --password-file new --old-password-file old");
    let body = json!({"password": "a long enough password", "old_password": "the password before"});
    assert_eq!(sent("PUT /api/v1/users/ada/password"), body);
    run("user password bob --password-file new");
    assert_eq!(sent("PUT /api/v1/users/bob/password"), json!({"password": "a long enough password"}));
    run("user role bob admin");
    assert_eq!(sent("PUT /api/v1/users/bob/role"), json!({"role": "admin"}));
    run("token create --name ci --role viewer --ttl 90d");
    assert_eq!(sent("POST /api/v1/tokens"), json!({"name": "ci", "role": "viewer", "ttl_seconds": 7_776_000}));
}

#[test]
fn people_are_told_what_they_are_in_words() {
    let server = server();
    let home = Home::signed_in(&server.url);
    for (line, words) in [
        ("whoami", "token's role   viewer\n"),
        ("whoami", &format!("API token      {}\n", id(3))),
        ("user list", "bob   viewer  active"),
        ("session list", "this one"),
        ("token list", "active"),
        ("token create", "shown once"),
        ("operation list", "1 failed"),
        (&format!("operation show {}", id(4)), "a: failed: no\n"),
    ] {
        let ran = home.run(&line.split(' ').collect::<Vec<_>>()).code(0);
        assert!(ran.stdout.contains(words), "{line}: {}", ran.stdout);
    }
    let ran = home.run(&["whoami"]).code(0);
    assert!(!ran.stdout.contains("session ends"), "{}", ran.stdout);
}

#[test]
fn refusals_come_through_with_their_words_and_their_code() {
    for (line, (request, status, kind, detail), code) in [
        (
            "user list",
            ("GET /api/v1/users?limit=100", 403, "not-allowed", "viewers may not list accounts; ask an admin"),
            3,
        ),
        ("user show eve", ("GET /api/v1/users/eve", 404, "user-not-found", "there is no account eve"), 2),
        ("user role ada viewer", ("PUT /api/v1/users/ada/role", 409, "last-owner", "this is the last owner"), 1),
        ("user disable ada", ("POST /api/v1/users/ada/disable", 409, "own-account", "ada is your own account"), 1),
        ("user delete bob --yes", ("DELETE /api/v1/users/bob", 409, "changed", "bob changed meanwhile"), 1),
        ("user create bob --role viewer", ("POST /api/v1/users", 409, "user-exists", "bob exists already"), 1),
        ("session list", ("GET /api/v1/sessions?limit=100", 401, "not-signed-in", "the session has ended"), 3),
        ("session revoke --all", ("GET /api/v1/session", 503, "busy", "try again in 3 s"), 4),
        ("token create", ("POST /api/v1/tokens", 409, "limit-reached", "100 API tokens, and no more are possible"), 1),
        ("token list", ("GET /api/v1/tokens?limit=100", 500, "internal", "the log says why"), 1),
        (
            "operation list --sort colour",
            ("GET /api/v1/operations?sort=colour&limit=100", 422, "invalid", "sort: one of created_at"),
            2,
        ),
    ] {
        let server = Server::new([(request, vec![problem(status, kind, detail)])]);
        let home = Home::signed_in(&server.url);
        let ran = home.run(&line.split(' ').collect::<Vec<_>>()).code(code);
        assert!(ran.stderr.contains(&format!("error: {detail}")) && ran.stdout.is_empty(), "{line}: {ran:?}");
        let mut arguments: Vec<&str> = line.split(' ').collect();
        arguments.push("--json");
        let document = home.run(&arguments).code(code).error_document();
        assert_eq!(document["type"], format!("urn:serverflow:{kind}"), "{line}");
        assert_eq!((&document["exit_code"], &document["http_status"]), (&json!(code), &json!(status)), "{line}");
    }
}

#[test]
fn nothing_is_deleted_and_no_password_is_set_without_a_word() {
    let server = server();
    let home = Home::signed_in(&server.url);
    assert!(home.run(&["user", "delete", "bob"]).code(2).stderr.contains("--yes"));
    home.write("empty", "\n");
    for line in
        ["user create bob --role viewer --password-file empty", "user create bob --role viewer --password-file none"]
    {
        home.run(&line.split(' ').collect::<Vec<_>>()).code(2);
    }
    home.run(&["user", "password", "--password-file", "empty"]).code(2);
    assert!(server.heard().iter().all(|heard| heard.line.starts_with("GET ")), "{:?}", server.heard());
}
