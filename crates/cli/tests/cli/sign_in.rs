//! `login`, `whoami`, `logout`, and which session is used where.

use std::os::unix::fs::PermissionsExt as _;

use serde_json::json;

use crate::{
    fleet_root,
    program::Home,
    server::{Answer, Server},
};

fn server() -> Server {
    let user = json!({"name": "admin", "role": "admin", "expires_at": "2099-01-01T00:00:00.000Z"});
    let signed_in = json!({"token": "sfs_kept", "expires_at": "2099-01-01T00:00:00.000Z", "user": user});
    Server::new([
        ("POST /api/v1/session", vec![Answer::Json(201, signed_in)]),
        ("GET /api/v1/session", vec![Answer::Json(200, user)]),
        (
            "GET /api/v1/fleet/root",
            vec![Answer::Json(200, fleet_root::chain(1)), Answer::Json(200, fleet_root::chain(2))],
        ),
        ("DELETE /api/v1/session", vec![Answer::Json(204, json!(null))]),
    ])
}

#[test]
fn a_session_is_kept_used_and_ended() {
    let server = server();
    let home = Home::new();
    home.write("password", "correct horse\n");
    let login = ["login", &server.url, "--user", "admin", "--password-file", "password", "--json"];
    let document = home.run(&login).code(0).document();
    assert_eq!((&document["name"], &document["url"]), (&json!("admin"), &json!(server.url)));
    assert!(document.get("token").is_none(), "the token stays in its file");
    assert_eq!(server.heard_of("POST")[0].json(), json!({"name": "admin", "password": "correct horse"}));
    let file = home.path().join(".config/serverflow/session.json");
    assert_eq!(std::fs::metadata(&file).expect("kept").permissions().mode() & 0o777, 0o600);

    let who = home.run(&["whoami"]).code(0);
    assert!(who.stdout.contains("account        admin\n"), "{}", who.stdout);
    assert_eq!(server.heard_of("GET /api/v1/session")[0].authorization.as_deref(), Some("Bearer sfs_kept"));

    home.run(&["logout"]).code(0);
    assert!(!file.exists());
    assert_eq!(server.heard_of("DELETE")[0].authorization.as_deref(), Some("Bearer sfs_kept"));
    home.run(&["whoami"]).code(3);
}

#[test]
fn a_kept_session_is_not_sent_to_another_address() {
    let (mine, other) = (server(), server());
    let home = Home::new();
    home.write("password", "correct horse");
    home.run(&["login", &mine.url, "--user", "admin", "--password-file", "password"]).code(0);
    let refused = home.run(&["whoami", "--url", &other.url]).code(3);
    assert!(refused.stderr.contains("the session that is kept is for"), "{}", refused.stderr);
    assert!(other.heard().is_empty());
    home.run(&["whoami", "--url", &mine.url]).code(0);
}

#[test]
fn the_environment_wins_over_the_kept_session() {
    let server = server();
    let home = Home::new().with("SERVERFLOW_TOKEN", "sfs_environment");
    home.write("password", "correct horse");
    home.run(&["login", &server.url, "--user", "admin", "--password-file", "password"]).code(0);
    home.run(&["whoami"]).code(0);
    assert_eq!(server.heard_of("GET /api/v1/session")[0].authorization.as_deref(), Some("Bearer sfs_environment"));
}

#[test]
fn a_wrong_password_is_refused_and_nothing_is_kept() {
    let problem = json!({"type": "urn:serverflow:sign-in-refused", "title": "Sign-in refused", "status": 401,
        "detail": "the name or the password is wrong"});
    let server = Server::new([("POST /api/v1/session", vec![Answer::Json(401, problem)])]);
    let home = Home::new();
    home.write("password", "wrong");
    let ran = home.run(&["login", &server.url, "--user", "admin", "--password-file", "password"]).code(3);
    assert!(ran.stderr.contains("error: the name or the password is wrong\n  check the name"), "{}", ran.stderr);
    assert!(!home.path().join(".config").exists());
}

#[test]
fn a_password_is_never_sent_unencrypted_to_another_machine() {
    let home = Home::new();
    home.write("password", "secret");
    let ran = home.run(&["login", "http://192.0.2.1:8080", "--user", "admin", "--password-file", "password"]).code(2);
    assert!(ran.stderr.contains("unencrypted") && ran.stderr.contains("https"), "{}", ran.stderr);
}

#[test]
fn two_addresses_are_one_too_many() {
    let server = server();
    let home = Home::new();
    home.write("password", "correct horse");
    let login = ["login", &server.url, "--user", "admin", "--password-file", "password", "--url"];
    let refused = home.run(&[&login[..], &["https://other.example"]].concat()).code(2);
    assert!(refused.stderr.contains("leave --url out"), "{}", refused.stderr);
    assert!(server.heard().is_empty());
    home.run(&[&login[..], &[&server.url]].concat()).code(0);
    let (server, home) = (self::server(), Home::new().with("SERVERFLOW_URL", "https://other.example"));
    home.write("password", "correct horse");
    let elsewhere = home.run(&["login", &server.url, "--user", "admin", "--password-file", "password"]).code(0);
    assert!(elsewhere.stderr.contains("SERVERFLOW_URL is set"), "{}", elsewhere.stderr);
}

#[test]
fn without_a_terminal_nothing_is_asked() {
    let server = server();
    let home = Home::new();
    let ran = home.run(&["login", &server.url]).code(2);
    assert!(ran.stderr.contains("--user NAME"), "{}", ran.stderr);
    let signed_in = Home::signed_in(&server.url);
    let ran = signed_in.run(&["host", "revoke", "web-1"]).code(2);
    assert!(ran.stderr.contains("--yes"), "{}", ran.stderr);
    assert!(server.heard().is_empty());
}

#[test]
fn logout_leaves_a_token_of_the_environment_alone() {
    let server = server();
    let ran = Home::signed_in(&server.url).run(&["logout"]).code(2);
    assert!(ran.stderr.contains("unset SERVERFLOW_TOKEN"), "{}", ran.stderr);
    assert!(server.heard().is_empty());
}

/// The server above shows another root from the second time on.
#[test]
fn a_root_is_trusted_at_the_first_sign_in_and_held_to_from_then_on() {
    let server = server();
    let home = Home::new();
    home.write("password", "correct horse");
    home.write("other.pub", &fleet_root::root_key(2));
    let login = ["login", &server.url, "--user", "admin", "--password-file", "password"];
    let first = home.run(&login).code(0);
    assert!(
        first.stderr.contains("trusted from now on") && first.stderr.contains(&fleet_root::root_key(1)),
        "{}",
        first.stderr
    );
    let changed = home.run(&login).code(1);
    assert!(changed.stderr.contains("does not begin with the root key known here"), "{}", changed.stderr);
    assert_eq!(server.heard_of("DELETE").len(), 1, "the session that nobody keeps is ended");
    let asked = server.heard_of("POST").len();
    home.run(&[&login[..], &["--root", "none.pub"]].concat()).code(2);
    assert_eq!(server.heard_of("POST").len(), asked, "no password is sent");
    home.run(&["whoami"]).code(0);
    let named = home.run(&[&login[..], &["--root", "other.pub"]].concat()).code(0);
    assert!(!named.stderr.contains("trusted from now on"), "{}", named.stderr);
    home.write("other.pub", &fleet_root::root_key(3));
    home.run(&[&login[..], &["--root", "other.pub"]].concat()).code(1);
}
