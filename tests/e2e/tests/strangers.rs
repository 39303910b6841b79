//! Those who knock at the agents' listener without being who they say: with one token, with none, with another's name,
//! slowly, loudly, or in numbers. Nothing here needs Docker.

use std::{fs, net::TcpStream, time::Duration};

use e2e::{
    evil::{Evil, Stolen},
    fleet::{Fleet, Host},
    stranger::{Stranger, identity_of},
    wait::{holds_for, wait_until},
};
use ids::TlsExporter;
use wire::v1::{agent_frame::Frame as FromAgent, control_frame::Frame as FromControl};

fn restart(host: &mut Host) {
    host.kill_9();
    host.start();
}

fn says_nothing_of_a_command(said: &[FromAgent]) -> bool {
    !said.iter().any(|frame| matches!(frame, FromAgent::Accepted(_) | FromAgent::Report(_)))
}

#[test]
fn an_agent_speaks_for_itself_alone_and_a_revoked_one_not_at_all() {
    let fleet = Fleet::start();
    let (stolen, mut host) = (Stolen::from(&fleet), fleet.host("local"));
    let thief = fleet.host_enrolled("thief");
    let listen = fleet.agent_listen();
    let id = |host: &Host| host.id().parse().expect("a host id");

    // Its own key, and a proof bound to this connection: the control.
    let mut itself = Stranger::session(listen);
    let exporter = itself.exporter;
    itself.authenticate(&stolen, id(&thief), &identity_of(&thief), exporter).expect("a session of its own");
    // Another host's name; a proof for another connection; nobody's name.
    let mut stranger = Stranger::session(listen);
    let exporter = stranger.exporter;
    stranger.authenticate(&stolen, id(&host), &identity_of(&thief), exporter).expect_err("as another host");
    let mut stranger = Stranger::session(listen);
    stranger
        .authenticate(&stolen, id(&thief), &identity_of(&thief), TlsExporter([1; 32]))
        .expect_err("with another connection's proof");
    let mut stranger = Stranger::session(listen);
    let nobody = "00000000-0000-7000-8000-000000000001".parse().expect("an id");
    let exporter = stranger.exporter;
    stranger.authenticate(&stolen, nobody, &identity_of(&thief), exporter).expect_err("as nobody");
    fleet.wait_host("local", "connected");

    // Revoked: the open stream ends now, and neither the agent nor its key comes back.
    fleet.cli(&["host", "revoke", "thief", "--yes"]).ok();
    assert!(itself.rest().iter().any(|frame| matches!(frame, FromControl::Refused(_))), "it is told, and shut out");
    let mut again = Stranger::session(listen);
    let exporter = again.exporter;
    again.authenticate(&stolen, id(&thief), &identity_of(&thief), exporter).expect_err("revoked");
    fleet.cli(&["host", "revoke", "local", "--yes"]).ok();
    host.wait_says_again("this host was revoked", 0);
    fleet.wait_host("local", "revoked");
    restart(&mut host);
    host.wait_says_again("an administrator has to act", 1);
    assert_eq!(host.said_times("session open"), 1, "it does not come back");
    let status = fleet.cli(&["host", "show", "local", "--json"]).ok().json();
    assert_eq!(status["status"], "revoked");
    fleet.cli(&["action", "run", "host.facts", "--host", "local"]).expect(1).says("is revoked");
}

#[test]
fn one_token_makes_one_host_however_many_try() {
    let fleet = Fleet::start();
    let token = fleet.join_token("local", &[]);
    let hosts: Vec<Host> = (0..100).map(|number| Host::unborn(&fleet, &format!("racer-{number}"))).collect();
    let racing: Vec<_> = hosts.iter().map(|host| host.enrol_start(&token)).collect();
    let ended: Vec<_> = racing.into_iter().map(e2e::cli::Running::wait).collect();
    let won = ended.iter().filter(|ran| ran.code == 0).count();
    assert_eq!(won, 1, "{ended:#?}");
    assert!(ended.iter().filter(|ran| ran.code != 0).all(|ran| ran.stderr.contains("token")), "{ended:#?}");
    let listed = fleet.cli(&["host", "list", "--json"]).ok().json();
    assert_eq!(listed.as_array().map(Vec::len), Some(1), "{listed:#}");
    // The winner is that host, and can work as it.
    let mut winner = hosts.into_iter().find(|host| host.state("enrolment.json").exists()).expect("a winner");
    winner.start();
    fleet.wait_host("local", "connected");
}

#[test]
fn a_token_that_is_wrong_old_or_spent_makes_no_host() {
    let fleet = Fleet::start();
    let good = fleet.join_token("local", &[]);
    let text = fs::read_to_string(&good).expect("a token");

    let garbage = fleet.path("garbage.token");
    fs::write(&garbage, "not a token at all\n").expect("a file");
    Host::unborn(&fleet, "a").enrol(&garbage).expect(2).says("token");

    // The right id with another secret: the last characters are the secret's.
    let mut wrong = text.trim().as_bytes().to_vec();
    let at = wrong.len() - 12;
    wrong[at] = if wrong[at] == b'A' { b'B' } else { b'A' };
    let path = fleet.path("wrong.token");
    fs::write(&path, wrong).expect("a file");
    let refused = Host::unborn(&fleet, "b").enrol(&path);
    assert_ne!(refused.code, 0, "{refused:#?}");

    let short = fleet.join_token("brief", &["--ttl", "10s"]);
    let host = Host::unborn(&fleet, "c");
    let begun = std::time::Instant::now();
    wait_until("the token's ten seconds are over", || begun.elapsed() > Duration::from_millis(10_500));
    host.enrol(&short).expect(1).says("token");

    // The control; then the same machine again, and the spent token on another one.
    let host = Host::unborn(&fleet, "d");
    host.enrol(&good).ok();
    host.enrol(&good).ok().says("already");
    Host::unborn(&fleet, "e").enrol(&good).expect(1).says("token");
    let listed = fleet.cli(&["host", "list", "--json"]).ok().json();
    assert_eq!(listed.as_array().map(Vec::len), Some(1), "{listed:#}");
}

#[test]
fn strangers_who_are_slow_many_or_loud_do_not_keep_a_good_agent_out() {
    let fleet = Fleet::start();
    let mut host = fleet.host_enrolled("local");
    let listen = fleet.agent_listen();
    // More half-open handshakes than are served at a time, and streams that say nothing.
    let half_open: Vec<TcpStream> = (0..300).map(|_| TcpStream::connect(listen).expect("a connection")).collect();
    let mut silent: Vec<Stranger> = Vec::new();
    host.start();
    fleet.wait_host("local", "connected");
    silent.extend((0..20).map(|_| Stranger::session(listen)));
    for stranger in &mut silent {
        assert!(
            stranger.rest().iter().all(|frame| !matches!(frame, FromControl::Hello(_))),
            "closed after its five seconds"
        );
    }
    drop(half_open);

    // Larger than any frame may be: that stream ends, and nobody else's.
    let mut loud = Stranger::session(listen);
    loud.send(FromAgent::Hello(vec![0; 3 * 1024 * 1024]));
    assert!(loud.rest().iter().all(|frame| matches!(frame, FromControl::Refused(_))));
    let mut loud = Stranger::session(listen);
    loud.send(FromAgent::Hello(vec![0; 8 * 1024]));
    assert!(loud.rest().iter().all(|frame| matches!(frame, FromControl::Refused(_))));
    // Out of turn.
    let mut forward = Stranger::enrolment(listen);
    forward.send(FromAgent::Report(vec![1, 2, 3]));
    assert!(forward.rest().iter().all(|frame| matches!(frame, FromControl::Refused(_))));
    fleet.cli(&["action", "run", "host.facts", "--host", "local"]).ok();

    // And an agent does not swallow everything either.
    let stolen = Stolen::from(&fleet);
    let evil = Evil::start(&stolen.tls);
    fleet.proxy.lead_to(evil.address());
    restart(&mut host);
    let mut stream = evil.stream();
    stream.open(&stolen);
    stream.deliver(&vec![0; 3 * 1024 * 1024]);
    assert!(says_nothing_of_a_command(&stream.rest()));
    holds_for(Duration::from_millis(500), "the agent lives on", || host.agent().is_running());
}

#[test]
fn an_enrolment_cut_anywhere_is_finished_by_running_it_again() {
    let fleet = Fleet::start();
    // How much the control plane says in a whole enrolment.
    let before = fleet.proxy.bytes_down();
    let _whole = fleet.host_enrolled("whole");
    let whole = fleet.proxy.bytes_down() - before;
    let (mut cut_short, mut spent) = (0, 0);
    for part in 1..=9 {
        let name = format!("host-{part}");
        let token = fleet.join_token(&name, &[]);
        let mut host = Host::unborn(&fleet, &name);
        // The last of them lose the end of the receipt alone.
        let passes = if part < 7 { whole * part / 7 } else { whole - 400 / (part - 6) };
        fleet.proxy.cut_after(passes);
        let first = host.enrol(&token);
        fleet.proxy.mend();
        if first.code != 0 {
            cut_short += 1;
            assert!([1, 4].contains(&first.code) && first.stderr.lines().count() >= 2, "it says so: {first:#?}");
            spent += usize::from(fleet.cli(&["host", "show", &name]).code == 0);
            host.enrol(&token).ok();
        }
        let shown = fleet.cli(&["host", "show", &name, "--json"]).ok().json();
        assert_eq!(shown["id"], host.id(), "one machine, one host");
        if part == 9 {
            host.start();
            fleet.wait_host(&name, "connected");
        }
    }
    assert!(cut_short >= 6, "{cut_short} were cut short");
    assert!(spent >= 1, "at least one had lost nothing but its receipt");
    let listed = fleet.cli(&["host", "list", "--json"]).ok().json();
    assert_eq!(listed.as_array().map(Vec::len), Some(10), "{listed:#}");
}
