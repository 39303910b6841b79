//! People: accounts with roles, API tokens, and the way back in on the machine itself, with the real programs.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    process::Command,
    time::Duration,
};

use e2e::{
    cli::{Ran, run},
    fleet::{Fleet, text_of},
    program::{binary, command},
};

/// A person with a home of their own, where the CLI keeps a session.
struct Person<'f> {
    fleet: &'f Fleet,
    name: &'static str,
}

impl Person<'_> {
    fn command(&self, words: &[&str]) -> Command {
        let mut command = self.fleet.cli_stranger(words);
        command.env("HOME", self.fleet.path(self.name)).env_remove("XDG_CONFIG_HOME");
        command
    }

    fn cli(&self, words: &[&str]) -> Ran {
        run(self.command(words))
    }

    fn login(&self, password: &str) -> Ran {
        let file = self.fleet.path(&format!("{}.password", self.name));
        fs::write(&file, format!("{password}\n")).expect("a password file");
        let url = format!("http://127.0.0.1:{}", self.fleet.http_port);
        let file = file.to_str().expect("a path in UTF-8");
        self.cli(&["login", &url, "--user", self.name, "--password-file", file])
    }

    fn with_token(&self, token: &str, words: &[&str]) -> Ran {
        let mut command = self.command(words);
        command.env("SERVERFLOW_TOKEN", token);
        run(command)
    }
}

fn admin(fleet: &Fleet, words: &[&str]) -> Ran {
    let mut admin = command(&binary("serverflow-control-plane"));
    admin.arg("admin").args(words).arg("--data-dir").arg(fleet.path("control-plane"));
    run(admin)
}

fn is_told(fleet: &Fleet, kind: &str, subject: &str) -> bool {
    let log = fleet.cli(&["audit", "list", "--json"]).ok().json();
    let log = log.as_array().expect("a list").clone();
    log.iter().any(|it| it["kind"] == kind && it["subject"].as_str().is_some_and(|text| text.contains(subject)))
}

/// An event stream, opened by hand: what the CLI would reconnect.
struct Stream(TcpStream);

impl Stream {
    fn open(fleet: &Fleet, token: &str, path: &str) -> Self {
        let mut stream = TcpStream::connect(("127.0.0.1", fleet.http_port)).expect("connected");
        stream.set_read_timeout(Some(Duration::from_secs(25))).expect("a time limit");
        let head = format!(
            "GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n\r\n",
            fleet.http_port
        );
        stream.write_all(head.as_bytes()).expect("asked");
        let mut read = Vec::new();
        while !String::from_utf8_lossy(&read).contains("data:") {
            let mut piece = [0; 4096];
            let count = stream.read(&mut piece).expect("an event in time");
            assert!(count > 0, "the stream ended at once: {}", String::from_utf8_lossy(&read));
            read.extend_from_slice(&piece[..count]);
        }
        Self(stream)
    }

    /// Reads to its end, which comes sooner than the 30 s after which it would ask by itself.
    fn ends(mut self) {
        let mut rest = Vec::new();
        self.0.read_to_end(&mut rest).expect("an end before the time limit");
    }
}

#[test]
fn an_operator_does_what_operators_do_and_no_more() {
    let fleet = Fleet::start();
    let made = fleet.cli(&["user", "create", "olga", "--role", "operator", "--json"]).ok().json();
    let password = text_of(&made, "password");
    let olga = Person { fleet: &fleet, name: "olga" };
    olga.login("not the password").expect(3).says("the user name or the password is wrong");
    olga.login(&password).ok().says("as olga (operator)");
    assert_eq!(olga.cli(&["whoami", "--json"]).ok().json()["role"], "operator");
    olga.cli(&["host", "list"]).ok();
    for denied in [
        &["host", "enroll", "web-1", "--token-only"][..],
        &["user", "list"],
        &["user", "create", "eve", "--role", "viewer"],
        &["user", "role", "olga", "owner"],
        &["user", "show", "admin"],
        &["session", "list", "--user", "admin"],
    ] {
        olga.cli(denied).expect(3);
    }
    assert!(is_told(&fleet, "account-change", "user olga: created as operator"));
    assert!(is_told(&fleet, "sign-in-refused", "user olga"));

    fleet.cli(&["user", "role", "admin", "viewer"]).expect(1).says("last owner");
    fleet.cli(&["user", "disable", "olga"]).ok();
    olga.cli(&["host", "list"]).expect(3);
    olga.login(&password).expect(3);
    fleet.cli(&["user", "enable", "olga"]).ok();
    olga.login(&password).ok();
    olga.cli(&["session", "revoke", "--all"]).ok();
    olga.cli(&["host", "list"]).expect(3);
}

#[test]
fn a_token_works_until_it_is_revoked_and_then_nowhere() {
    let fleet = Fleet::start();
    let made = fleet.cli(&["user", "create", "olga", "--role", "operator", "--json"]).ok().json();
    let olga = Person { fleet: &fleet, name: "olga" };
    olga.login(&text_of(&made, "password")).ok();
    let made = olga.cli(&["token", "create", "--name", "ci", "--ttl", "1h", "--json"]).ok().json();
    let (token, id) = (text_of(&made, "token"), text_of(&made, "id"));
    assert!(token.starts_with("sft_"), "{}", token.len());
    olga.with_token(&token, &["host", "list"]).ok();
    olga.with_token(&token, &["token", "create"]).expect(3).says("an API token may not do this");
    let listed = olga.cli(&["token", "list", "--json"]).ok();
    assert!(!listed.stdout.contains(&token), "shown once");
    assert!(listed.json()[0]["last_used_at"].is_string());

    // Something to watch: an order to a host that is away.
    drop(fleet.host("away"));
    let order = fleet.cli(&["action", "run", "host.facts", "--host", "away", "--detach", "--json"]).ok().json();
    let path = format!("/api/v1/operations/{}/events", text_of(&order, "operation_id"));
    let stream = Stream::open(&fleet, &token, &path);
    olga.cli(&["token", "revoke", &id]).ok();
    stream.ends();
    olga.with_token(&token, &["host", "list"]).expect(3).says("was revoked");
    assert!(is_told(&fleet, "account-change", &format!("API token {id} revoked")));
    assert!(is_told(&fleet, "sign-in-refused", &format!("API token {id}")));
}

#[test]
fn the_machine_is_the_way_back_in_with_the_control_plane_running_and_stopped() {
    let mut fleet = Fleet::start();
    let listed = admin(&fleet, &["list", "--json"]).ok().json();
    assert_eq!((&listed[0]["name"], &listed[0]["role"]), (&"admin".into(), &"owner".into()));
    let reset = admin(&fleet, &["reset-password", "admin", "--json"]).ok().json();
    fleet.cli(&["host", "list"]).expect(3).says("sign in");
    let me = Person { fleet: &fleet, name: "admin" };
    me.login(&text_of(&fleet.init["admin"], "password")).expect(3);
    me.login(&text_of(&reset, "password")).ok();
    admin(&fleet, &["reset-password", "nobody"]).expect(2).says("there is no account nobody");
    me.cli(&["audit", "list"]).ok().says("machine (user ");

    fleet.control_plane_kill_9();
    let password = fleet.path("new.password");
    fs::write(&password, "a password of my own\n").expect("a password file");
    let file = password.to_str().expect("a path in UTF-8").to_owned();
    let short = fleet.path("short.password");
    fs::write(&short, "short\n").expect("a password file");
    admin(&fleet, &["reset-password", "admin", "--password-file", short.to_str().expect("UTF-8")])
        .expect(2)
        .says("at least 12 characters");
    let reset = admin(&fleet, &["reset-password", "admin", "--password-file", &file]).ok();
    assert!(!reset.all().contains("a password of my own"), "what was given is not shown");
    fleet.control_plane_start();
    let me = Person { fleet: &fleet, name: "admin" };
    me.login("a password of my own").ok();
    me.cli(&["audit", "verify"]).ok();
}
