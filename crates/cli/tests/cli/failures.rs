//! What can go wrong on the way, the exit code it leads to, and that it is said.

use serde_json::json;

use crate::{
    program::Home,
    server::{Answer, Server},
};

fn problem(status: u16, kind: &str, detail: &str) -> Answer {
    let kind = format!("urn:serverflow:{kind}");
    Answer::Json(status, json!({"type": kind, "title": kind, "status": status, "detail": detail}))
}

#[test]
fn each_refusal_has_its_exit_code_and_keeps_the_control_planes_words() {
    for (status, code) in [(401, 3), (403, 3), (404, 2), (409, 1), (422, 2), (429, 1), (500, 1), (503, 4)] {
        let server =
            Server::new([("GET /api/v1/hosts?limit=100", vec![problem(status, "x", "the words of the problem")])]);
        let home = Home::signed_in(&server.url);
        let ran = home.run(&["host", "list"]).code(code);
        assert!(ran.stderr.contains("error: the words of the problem\n"), "{status}: {}", ran.stderr);
        let document = home.run(&["host", "list", "--json"]).code(code).error_document();
        assert_eq!(document["type"], "urn:serverflow:x");
        assert_eq!((&document["http_status"], &document["exit_code"]), (&json!(status), &json!(code)));
    }
}

#[test]
fn a_control_plane_that_is_not_there_is_named() {
    // A port that was free a moment ago: nobody listens.
    let port = std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port").port();
    let url = format!("http://127.0.0.1:{port}");
    let ran = Home::signed_in(&url).run(&["host", "list"]).code(4);
    assert!(ran.stderr.contains(&format!("error: cannot reach the control plane at {url}: ")), "{}", ran.stderr);
    assert!(ran.stderr.contains("connection refused") && ran.stderr.contains("SERVERFLOW_URL"), "{}", ran.stderr);
    let document = Home::signed_in(&url).run(&["host", "list", "--json"]).code(4).error_document();
    assert_eq!(document["type"], "urn:serverflow:cli:unreachable");
}

#[test]
fn a_connection_that_is_cut_counts_as_not_reachable() {
    let server = Server::new([("GET /api/v1/hosts?limit=100", vec![Answer::Cut])]);
    Home::signed_in(&server.url).run(&["host", "list"]).code(4);
}

#[test]
fn an_answer_that_is_none_of_ours_is_said_to_be_so() {
    let server = Server::new([("GET /api/v1/hosts?limit=100", vec![Answer::Text(200, "<html>".to_owned())])]);
    let ran = Home::signed_in(&server.url).run(&["host", "list"]).code(1);
    assert!(ran.stderr.contains("does not understand: no JSON document"), "{}", ran.stderr);
    let server = Server::new([("GET /api/v1/hosts?limit=100", vec![Answer::Text(301, String::new())])]);
    let ran = Home::signed_in(&server.url).run(&["host", "list"]).code(2);
    assert!(ran.stderr.contains("301"), "{}", ran.stderr);
}

#[test]
fn nobody_signed_in_is_told_how_to() {
    let ran = Home::new().run(&["host", "list"]).code(3);
    assert!(ran.stderr.contains("serverflow login URL"), "{}", ran.stderr);
}

#[test]
fn a_token_without_an_address_asks_for_the_address() {
    let ran = Home::new().with("SERVERFLOW_TOKEN", "sft_x").run(&["host", "list"]).code(2);
    assert!(ran.stderr.contains("set SERVERFLOW_URL to its address"), "{}", ran.stderr);
}

#[test]
fn an_order_that_is_refused_is_not_announced() {
    let server = Server::new([("POST /api/v1/operations", vec![problem(409, "host-not-active", "web-1 is revoked")])]);
    let home = Home::signed_in(&server.url);
    for order in [&["app", "stop", "shop"][..], &["app", "remove", "shop"]] {
        let ran = home.run(order).code(1);
        assert_eq!(ran.stderr, "error: web-1 is revoked\n");
    }
}

#[test]
fn a_token_that_cannot_be_one_is_not_sent_and_not_shown() {
    let server = Server::new([]);
    let home = Home::new().with("SERVERFLOW_URL", &server.url).with("SERVERFLOW_TOKEN", "sfs_a\nb");
    let ran = home.run(&["host", "list"]).code(3);
    assert!(!ran.stderr.contains("sfs_a"), "{}", ran.stderr);
    assert!(server.heard().is_empty());
}

#[test]
fn usage_errors_are_code_2_in_both_forms() {
    let home = Home::new();
    let ran = home.run(&["host", "enroll", "Web_1"]).code(2);
    assert!(ran.stderr.contains("lower-case letters, digits and hyphens"), "{}", ran.stderr);
    let document = home.run(&["host", "enroll", "Web_1", "--json"]).code(2).error_document();
    assert!(document["detail"].as_str().is_some_and(|text| text.contains("lower-case")), "{document}");
    home.run(&["frobnicate"]).code(2);
}

#[test]
fn help_and_version_need_nobody() {
    let home = Home::new();
    let help = home.run(&["app", "deploy", "--help"]).code(0).stdout;
    assert!(help.contains("Example:"), "{help}");
    let (own, global) = help.split_once("Global options:").expect("a heading of their own");
    assert!(own.contains("--dry-run") && !own.contains("--json") && global.contains("--json"), "{help}");
    assert!(home.run(&["--version"]).code(0).stdout.starts_with("serverflow "));
    assert!(home.run(&["version", "--json"]).code(0).document()["version"].is_string());
}

#[test]
fn a_wrong_parameter_is_named_with_those_there_are() {
    let schema = json!({"properties": {"tail": {"type": "integer"}}, "required": [], "additionalProperties": false});
    let action = json!({"name": "app.logs", "version": 1, "title": "x", "class": "read", "timeout_seconds": 60,
        "schema_sha256": "", "schema": schema});
    let server = Server::new([("GET /api/v1/actions/app.logs", vec![Answer::Json(200, action)])]);
    let line = ["action", "run", "app.logs", "--host", "a", "--param", "tial=1", "--param", "tail=x"];
    let ran = Home::signed_in(&server.url).run(&line).code(2);
    assert!(ran.stderr.contains("  tial: there is no such parameter; there are: tail\n"), "{}", ran.stderr);
    assert!(ran.stderr.contains("  tail: \"x\" is not a whole number\n"), "{}", ran.stderr);
    assert!(server.heard_of("POST").is_empty());
}
