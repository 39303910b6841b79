//! Following what takes time: streams that break, a control plane that goes away, Ctrl-C.

use std::io::{BufRead as _, BufReader, Read as _};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::{
    program::{Home, id},
    server::{Answer, Server},
};

const COMMAND: &str = "GET /api/v1/commands/00000000-0000-7000-8000-000000000001";
const EVENTS: &str = "GET /api/v1/commands/00000000-0000-7000-8000-000000000001/events";

fn command(status: &str, message: &str) -> Answer {
    Answer::Json(
        200,
        json!({
            "command_id": id(1), "operation_id": id(2), "host": "a", "action": "host.facts@1", "app": null,
            "dry_run": false, "status": status, "message": message, "requested_by": "admin",
            "proposed_at": "2023-11-14T22:13:20.000Z", "settled_at": null, "parameters": {}, "sealed_values": [],
            "deliver_by": "2023-11-14T22:13:20.000Z", "delivered_at": null, "accepted_at": null, "started_at": null,
            "orders": [], "report": null,
        }),
    )
}

fn event(status: &str) -> Value {
    json!({"event": "command", "command_id": id(1), "host": "a", "action": "host.facts@1", "status": status, "message": "x"})
}

fn watch(server: &Server) -> crate::program::Ran {
    Home::signed_in(&server.url).run(&["command", "watch", &id(1)])
}

#[test]
fn the_end_that_an_event_tells_is_read_from_the_state() {
    let server = Server::new([
        (COMMAND, vec![command("queued", ""), command("succeeded", "all well")]),
        (EVENTS, vec![Answer::EventsForEver(vec![event("running"), event("succeeded")])]),
    ]);
    let ran = watch(&server).code(0);
    assert_eq!(ran.stdout, "a: succeeded: all well\n");
    assert_eq!(ran.stderr, "a: host.facts: queued\na: host.facts: running\n");
}

#[test]
fn streams_that_break_and_answers_that_fail_cost_time_only() {
    let server = Server::new([
        (
            COMMAND,
            vec![
                command("queued", ""),
                Answer::Cut,
                Answer::Text(502, String::new()),
                command("running", ""),
                command("failed", "it broke"),
            ],
        ),
        (EVENTS, vec![Answer::Cut, Answer::Text(503, String::new()), Answer::Events(vec![])]),
    ]);
    let ran = watch(&server).code(1);
    assert_eq!(ran.stdout, "a: failed: it broke\n");
    assert_eq!(ran.stderr.matches("does not answer").count(), 1, "{}", ran.stderr);
    assert_eq!(ran.stderr.matches("answers again").count(), 1, "{}", ran.stderr);
}

#[test]
fn a_status_is_told_once_and_never_backwards() {
    let server = Server::new([
        (COMMAND, vec![command("running", ""), command("succeeded", "")]),
        (EVENTS, vec![Answer::Events(vec![event("queued"), event("running"), event("accepted")])]),
    ]);
    assert_eq!(watch(&server).code(0).stderr, "a: host.facts: running\n");
}

#[test]
fn a_command_that_is_not_there_ends_the_watch() {
    let problem =
        json!({"type": "urn:serverflow:command-not-found", "title": "x", "status": 404, "detail": "no such command"});
    let server = Server::new([(COMMAND, vec![Answer::Json(404, problem)])]);
    assert!(watch(&server).code(2).stderr.contains("no such command"));
}

#[test]
fn ctrl_c_ends_followed_logs_with_the_last_document() {
    let operation = json!({"operation_id": id(2), "state": "running", "commands": [
        {"command_id": id(1), "host": "a", "action": "app.logs.follow@1", "status": "running", "message": ""}]});
    let line = "{\"service\":\"web\",\"container\":\"c\",\"time\":\"t\",\"line\":\"one\"}\n";
    let output = json!({"event": "output", "command_id": id(1), "host": "a", "offset": 0, "text": line});
    let server = Server::new([
        ("POST /api/v1/operations", vec![Answer::Json(201, operation.clone())]),
        ("GET /api/v1/operations/00000000-0000-7000-8000-000000000002", vec![Answer::Json(200, operation)]),
        (
            "GET /api/v1/operations/00000000-0000-7000-8000-000000000002/output",
            vec![Answer::EventsForEver(vec![output])],
        ),
    ]);
    let mut child =
        Home::signed_in(&server.url).command(&["app", "logs", "shop", "-f", "--json"]).spawn().expect("runs");
    let mut stdout = BufReader::new(child.stdout.take().expect("piped")).lines();
    let mut next =
        || -> Value { serde_json::from_str(&stdout.next().expect("a line").expect("UTF-8")).expect("a document") };
    assert_eq!(next()["line"], "one");
    let pid = Pid::from_raw(i32::try_from(child.id()).expect("a pid")).expect("not 0");
    kill_process(pid, Signal::INT).expect("signalled");
    let end = next();
    assert_eq!((&end["end"]["operation_id"], &end["end"]["state"]), (&json!(id(2)), &json!("running")));
    assert_eq!(child.wait().expect("ends").code(), Some(0));
}

#[test]
fn ctrl_c_leaves_the_operation_running_and_says_how_to_go_on() {
    let server = Server::new([
        (COMMAND, vec![command("running", "")]),
        (EVENTS, vec![Answer::EventsForEver(vec![event("running")])]),
    ]);
    let home = Home::signed_in(&server.url);
    let mut child = home.command(&["command", "watch", &id(1)]).spawn().expect("runs");
    server.wait_for(EVENTS);
    let pid = Pid::from_raw(i32::try_from(child.id()).expect("a pid")).expect("not 0");
    kill_process(pid, Signal::INT).expect("signalled");
    let status = child.wait().expect("ends");
    let mut stderr = String::new();
    child.stderr.take().expect("piped").read_to_string(&mut stderr).expect("UTF-8");
    assert_eq!(status.code(), Some(130), "{stderr}");
    assert!(stderr.contains("interrupted; the operation goes on"), "{stderr}");
    assert!(stderr.contains(&format!("serverflow command cancel {}", id(1))), "{stderr}");
}
