//! `app logs --follow` when the way to the control plane is cut, and when nobody may go on reading.

use serde_json::{Value, json};

use crate::{
    program::{Home, Ran, id},
    server::{Answer, Server},
};

const OUTPUT: &str = "GET /api/v1/operations/00000000-0000-7000-8000-000000000002/output";
const OPERATION: &str = "GET /api/v1/operations/00000000-0000-7000-8000-000000000002";

fn operation(status: &str, state: &str, message: &str, result: Value) -> Value {
    let command = json!({"command_id": id(1), "host": "a", "action": "app.logs.follow@1", "status": status,
        "message": message, "result": result});
    json!({"operation_id": id(2), "state": state, "commands": [command]})
}

fn running() -> Value {
    operation("running", "running", "", json!(null))
}

/// A line of a container, as it stands in the stream.
fn line(text: &str) -> String {
    let record = json!({"service": "web", "container": "shop-web-1", "time": "2023-11-14T22:13:20Z", "line": text});
    format!("{record}\n")
}

fn output(offset: usize, text: &str) -> Value {
    json!({"event": "output", "command_id": id(1), "host": "a", "offset": offset, "text": text})
}

fn ended(message: &str) -> Value {
    let ended = operation("succeeded", "succeeded", message, json!({"ended": "gone"}));
    json!({"event": "operation", "operation": ended})
}

fn follow(streams: Vec<Answer>, states: Vec<Answer>) -> Ran {
    let server = Server::new([
        ("POST /api/v1/operations", vec![Answer::Json(202, running())]),
        (OUTPUT, streams),
        (OPERATION, states),
    ]);
    Home::signed_in(&server.url).run(&["app", "logs", "shop", "--follow"])
}

#[test]
fn a_cut_is_said_once_and_reading_goes_on_where_it_was() {
    let (one, two) = (line("one"), line("two"));
    let streams = vec![
        // Half a line, and the connection ends; then nobody is there; then the rest.
        Answer::Events(vec![output(0, &one), output(one.len(), &two[..9])]),
        Answer::Cut,
        Answer::Text(503, String::new()),
        Answer::Events(vec![output(one.len() + 9, &two[9..]), ended("the app is gone")]),
    ];
    let states = vec![Answer::Json(200, running()), Answer::Cut, Answer::Json(200, running())];
    let ran = follow(streams, states).code(0);
    assert_eq!(ran.stdout, "one\ntwo\n");
    assert_eq!(ran.stderr, "the stream broke off; trying again\na: the app is gone\n");
}

#[test]
fn what_was_lost_on_the_way_is_said_and_so_is_what_the_host_left_out() {
    let lost = "{\"lost_lines\":7}\n".to_owned();
    let streams = vec![Answer::Events(vec![
        output(0, &line("one")),
        output(9_000, &lost),
        output(9_000 + lost.len(), &line("two")),
        ended("the app is gone"),
    ])];
    let ran = follow(streams, vec![Answer::Json(200, running())]).code(0);
    assert_eq!(ran.stdout, "one\ntwo\n");
    assert!(ran.stderr.contains("a: part of the output was lost on its way\n"), "{}", ran.stderr);
    assert!(
        ran.stderr.contains("a: 7 lines were left out here: they came faster than they are read\n"),
        "{}",
        ran.stderr
    );
}

#[test]
fn a_follow_that_ended_at_its_host_while_the_way_was_cut_tells_how() {
    let message = "nobody watched any more";
    let over = operation("succeeded", "succeeded", message, json!({"ended": "unwatched"}));
    let ran =
        follow(vec![Answer::Events(vec![output(0, &line("one"))]), Answer::Cut], vec![Answer::Json(200, over)]).code(0);
    assert_eq!((ran.stdout.as_str(), ran.stderr.as_str()), ("one\n", "a: nobody watched any more\n"));
}

#[test]
fn whoever_is_signed_out_in_the_middle_is_told_and_reads_no_more() {
    let problem =
        json!({"type": "urn:serverflow:not-signed-in", "title": "x", "status": 401, "detail": "the session has ended"});
    let refused = || Answer::Json(401, problem.clone());
    let ran = follow(vec![Answer::Events(vec![output(0, &line("one"))]), refused()], vec![refused()]).code(3);
    assert_eq!(ran.stdout, "one\n");
    assert!(
        ran.stderr.contains("error: the session has ended\n") && ran.stderr.contains("serverflow login"),
        "{}",
        ran.stderr
    );
}
