//! A second machine, from the printed lines to an app on it, an upgrade, and back to a machine with nothing
//! of ours. It has namespaces, a root and a Docker Engine of its own, and no service manager.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, TcpListener, TcpStream},
    process::Command,
    sync::Arc,
};

use e2e::{
    cli::run,
    far_fleet::{FarFleet, another},
    fleet::text_of,
    machine::Machine,
    program::binary,
    sample::web,
    wait::wait_until,
};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection, StreamOwned,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};

const NAME: &str = "control.test";
const AGENT: &str = "/usr/local/bin/serverflow-agent";

fn is_connected(fleet: &FarFleet, name: &str) -> bool {
    fleet.host(name)["status"] == "connected"
}

fn running_agents(machine: &Machine) -> Vec<String> {
    machine.processes(&format!("{AGENT} run"))
}

fn container(machine: &Machine) -> String {
    machine.docker(&["ps", "--no-trunc", "--format", "{{.ID}} {{.Names}}"]).ok().stdout
}

#[test]
fn by_name_from_paste_to_app_to_upgrade_to_nothing() {
    let machine = Machine::start(NAME);
    let fleet = FarFleet::start(machine.near, NAME);
    let _engine = machine.docker_start();
    let from = format!("https://{NAME}:{}", fleet.https_port);

    let lines = fleet.lines(&["enroll", "web-1", "--role", "app", "--from", &from]);
    assert!(lines.starts_with(" sh <<'SERVERFLOW'\n") && lines.lines().count() < 50, "{lines}");
    let pasted = machine.paste(&lines).ok();
    for words in ["This machine is now host 'web-1'", "its session is open", "no service manager", "ok    docker"] {
        assert!(pasted.all().contains(words), "{words}: {pasted:#?}");
    }
    assert!(is_connected(&fleet, "web-1"));
    assert_eq!(machine.files_named(".serverflow-agent."), [""; 0], "what was fetched is tidied away");
    assert_eq!(machine.processes("sf1."), [""; 0], "the token is in nobody's arguments");

    fleet.deploy("shop", "web-1", &web(18_080, &[])).ok();
    wait_until("the app serves there", || {
        machine.run(&["curl", "-fsS", "--max-time", "2", "http://127.0.0.1:18080/health"]).code == 0
    });
    let app = container(&machine);

    // The same lines again: nothing is replaced, nothing is started twice.
    let agents = running_agents(&machine);
    machine.paste(&lines).ok().says("is this program already").says("it was left alone").says("host 'web-1'");
    assert_eq!(agents.len(), 1, "{agents:?}");
    assert_eq!(running_agents(&machine), agents);

    upgraded(&fleet, &machine, &from);
    assert_eq!(container(&machine), app, "an upgrade leaves apps alone");
    assert!(is_connected(&fleet, "web-1"));

    uninstalled(&fleet, &machine, &app);
}

/// Another program is served: its lines replace the old one, and its session opens.
fn upgraded(fleet: &FarFleet, machine: &Machine, from: &str) {
    let old = fs::read(machine.path(AGENT)).expect("an agent");
    fleet.serve(&another(&binary("serverflow-agent")));
    let lines = fleet.lines(&["upgrade", "web-1", "--from", from]);
    assert!(!lines.contains("sf1."), "no token in it: {lines}");
    machine.paste(&lines).ok().says("the old one is kept until").says("its session is open");
    let new = fs::read(machine.path(AGENT)).expect("an agent");
    assert!(new != old && new == another(&binary("serverflow-agent")));
    assert_eq!(machine.files_named(".serverflow-agent."), [""; 0], "the old one is gone");
    assert_eq!(running_agents(machine).len(), 1);
}

fn uninstalled(fleet: &FarFleet, machine: &Machine, app: &str) {
    machine.run(&[AGENT, "uninstall", "--purge"]).expect(2).says("nobody is there to confirm");
    assert_eq!(running_agents(machine).len(), 1, "nothing was changed");
    let gone = machine.run(&[AGENT, "uninstall", "--purge", "--yes"]).ok();
    for words in ["docker rm --force shop-web-1", "docker network rm shop_default", "serverflow host revoke web-1"] {
        assert!(gone.stdout.contains(words), "{words}: {gone:#?}");
    }
    assert_eq!(machine.processes("serverflow"), [""; 0]);
    assert_eq!(machine.files_named("serverflow"), [""; 0]);
    assert_eq!(container(machine), app, "it leaves running what it said");
    wait_until("the control plane misses it", || !is_connected(fleet, "web-1"));
}

#[test]
fn by_bare_address_without_curl_and_first_without_docker() {
    let mut machine = Machine::start(NAME);
    let host = machine.near.to_string();
    let fleet = FarFleet::start(machine.near, &host);
    machine.only_programs(&["sh", "uname", "id", "mkdir", "mktemp", "rm", "cat", "wget", "sha256sum", "chmod", "env"]);

    let lines = fleet.lines(&["enroll", "web-2"]);
    assert!(lines.contains(&format!("https://{host}:")), "{lines}");
    let pasted = machine.paste(&lines).expect(1);
    assert!(
        pasted.stdout.contains("FAIL  docker") && pasted.stdout.contains("apt-get install docker.io"),
        "{pasted:#?}"
    );
    assert!(is_connected(&fleet, "web-2"), "it is a host all the same");

    let _engine = machine.docker_start();
    machine.paste(&lines).ok().says("it was left alone").says("ok    docker");
    fleet.deploy("shop", "web-2", &web(18_080, &[])).ok();

    // Kept: the same host again, from its state, without a token.
    machine.run(&[AGENT, "uninstall"]).ok().says("stays: `install` makes it the same host again");
    assert_eq!(machine.files_named("serverflow"), ["/var/lib/serverflow-agent"]);
    let id = text_of(&fleet.host("web-2"), "id");
    machine.paste(&fleet.lines(&["upgrade", "web-2"])).ok().says("its session is open");
    assert_eq!(text_of(&fleet.host("web-2"), "id"), id);
}

#[test]
fn what_does_not_open_a_session_is_put_back() {
    let machine = Machine::start(NAME);
    let mut fleet = FarFleet::start(machine.near, NAME);
    let _engine = machine.docker_start();
    let from = format!("https://{NAME}:{}", fleet.https_port);
    machine.paste(&fleet.lines(&["enroll", "web-1", "--from", &from])).ok();
    let old = fs::read(machine.path(AGENT)).expect("an agent");

    fs::write(machine.path("opt/new-agent"), another(&binary("serverflow-agent"))).expect("a program");
    machine.run(&["chmod", "755", "/opt/new-agent"]).ok();
    fleet.down();
    let failed = machine.run(&["/opt/new-agent", "install", "--wait", "3"]).expect(1);
    assert!(
        failed.stderr.contains("opened no session within 3 s") && failed.stderr.contains("the old one is back"),
        "{failed:#?}"
    );
    assert!(fs::read(machine.path(AGENT)).expect("an agent") == old, "the old program is back");
    assert_eq!(machine.files_named(".serverflow-agent."), [""; 0]);
    assert_eq!(running_agents(&machine).len(), 1, "and runs");
    fleet.up();
    wait_until("the old one is connected again", || is_connected(&fleet, "web-1"));
}

/// Somebody between, with the control plane's own certificate, who answers with something else.
fn somebody_between(fleet: &FarFleet, answer: Vec<u8>) -> u16 {
    let chain = CertificateDer::pem_file_iter(fleet.cert()).expect("a file").map(|it| it.expect("PEM")).collect();
    let key = PrivateKeyDer::from_pem_file(text_of(&fleet.init, "http_key")).expect("a key");
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3")
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .expect("a pair");
    let config = Arc::new(config);
    let listener = TcpListener::bind((fleet.address, 0)).expect("a port");
    let port = listener.local_addr().expect("its address").port();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let session = ServerConnection::new(config.clone()).expect("a session");
            let mut stream = StreamOwned::new(session, stream);
            // Who does not take it has seen enough.
            let _ = stream.read(&mut [0; 4096]);
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", answer.len());
            let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&answer));
            stream.conn.send_close_notify();
            let _ = stream.flush();
        }
    });
    port
}

#[test]
fn another_program_another_authority_or_another_fleet_is_refused() {
    let machine = Machine::start(NAME);
    let fleet = FarFleet::start(machine.near, NAME);
    let nothing = |when: &str| {
        assert_eq!(machine.files_named("serverflow"), [""; 0], "{when}");
        assert_eq!(machine.processes("serverflow"), [""; 0], "{when}");
    };

    let (cert, key, other) = (fleet.cert(), fleet.key(), fleet.path("other.cert.pem"));
    fleet.health(&[("--http-cert", &cert), ("--http-key", &key)]).ok();
    // Another certificate that is as good: the listener does not show it.
    let made = rcgen::generate_simple_self_signed([NAME.to_owned()]).expect("a certificate");
    fs::write(&other, made.cert.pem()).expect("a certificate");
    let health = fleet.health(&[("--http-cert", &other), ("--http-key", &key)]).expect(1);
    assert!(health.stderr.contains("is not this control plane"), "{health:#?}");
    let health = fleet.health(&[]);
    assert!(health.code == 2 && health.stderr.contains("plain HTTP is served on loopback only"), "{health:#?}");

    // The right certificate, and another program: the hash in the lines decides.
    let port = somebody_between(&fleet, another(&binary("serverflow-agent")));
    let lines = fleet.lines(&["enroll", "web-1", "--from", &format!("https://{NAME}:{port}")]);
    machine.paste(&lines).expect(1).says("what came is not the agent of these lines");
    nothing("another program");

    // An authority that did not make the certificate.
    let other = FarFleet::start(machine.near, NAME);
    let pem = |fleet: &FarFleet| fs::read_to_string(fleet.cert()).expect("a certificate").trim().to_owned();
    let lines = fleet.lines(&["enroll", "web-2", "--from", &format!("https://{NAME}:{}", fleet.https_port)]);
    let foreign = lines.replace(&pem(&fleet), &pem(&other));
    assert_ne!(foreign, lines);
    machine.paste(&foreign).expect(1).says("the agent did not come from");
    nothing("another authority");

    // Lines of a program that is not served any more.
    fleet.serve(&another(&binary("serverflow-agent")));
    machine.paste(&lines).expect(1).says("Print new ones");
    nothing("old lines");

    // Another processor: which there are is said.
    fs::write(machine.path("usr/local/bin/uname"), "#!/bin/sh\necho riscv64\n").expect("a program");
    machine.run(&["chmod", "755", "/usr/local/bin/uname"]).ok();
    let arch = std::env::consts::ARCH;
    machine.paste(&lines).expect(1).says(&format!("no agent is served for riscv64; there are: {arch}"));
    fs::remove_file(machine.path("usr/local/bin/uname")).expect("removed");
    nothing("another processor");

    // And a name that the certificate does not have.
    let lines = fleet.lines(&["enroll", "web-3", "--from", &format!("https://localhost:{}", fleet.https_port)]);
    machine.paste(&lines).expect(1).says("the agent did not come from");
    nothing("another name");
}

/// Debian 12's; Ubuntu 24.04 has 2.39.
const GLIBC_MAX: [u32; 2] = [2, 36];

#[test]
fn the_agent_needs_glibc_and_nothing_newer_than_debian_12_has() {
    let agent = binary("serverflow-agent");
    let agent = agent.to_str().expect("a path in UTF-8");
    let readelf = |flag: &str| run(command("readelf", &["--wide", flag, agent])).ok().stdout;
    let needed: Vec<String> = readelf("--dynamic")
        .lines()
        .filter(|line| line.contains("(NEEDED)"))
        .filter_map(|line| Some(line.split_once('[')?.1.trim_end_matches(']').to_owned()))
        .collect();
    // libgcc_s (unwinding) comes with glibc: it needs the library itself to end threads.
    let ours = |name: &str| {
        name == "libc.so.6" || name == "libm.so.6" || name == "libgcc_s.so.1" || name.starts_with("ld-linux")
    };
    assert!(needed.iter().any(|name| name == "libc.so.6"), "{needed:?}");
    assert!(needed.iter().all(|name| ours(name)), "{needed:?}");

    let text = readelf("--version-info");
    let versions: Vec<[u32; 2]> = text
        .split("GLIBC_")
        .skip(1)
        .filter_map(|rest| {
            let version: String = rest.chars().take_while(|c| c.is_ascii_digit() || *c == '.').collect();
            let mut parts = version.split('.').map(str::parse);
            Some([parts.next()?.ok()?, parts.next()?.ok()?])
        })
        .collect();
    let newest = versions.iter().max().expect("versions");
    assert!(*newest <= GLIBC_MAX, "it needs glibc {newest:?}");
}

#[test]
fn a_new_certificate_is_for_new_connections_and_open_ones_go_on() {
    let fleet = FarFleet::start(Ipv4Addr::LOCALHOST, "localhost");
    let config = |pem: &[u8]| {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(pem).expect("PEM")).expect("a certificate");
        let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("TLS 1.3");
        Arc::new(config.with_root_certificates(roots).with_no_client_auth())
    };
    let dial = |pem: &[u8]| {
        let name = "localhost".try_into().expect("a name");
        let session = ClientConnection::new(config(pem), name).expect("a session");
        StreamOwned::new(session, TcpStream::connect((fleet.address, fleet.https_port)).expect("a connection"))
    };
    let ask = |stream: &mut StreamOwned<ClientConnection, TcpStream>| -> std::io::Result<String> {
        stream.write_all(b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n")?;
        let mut answer = [0; 4096];
        let count = stream.read(&mut answer)?;
        Ok(String::from_utf8_lossy(&answer[..count]).into_owned())
    };
    let old = fs::read(fleet.cert()).expect("a certificate");
    let mut open = dial(&old);
    assert!(ask(&mut open).expect("an answer").starts_with("HTTP/1.1 200"));

    let mut anew = command(binary("serverflow-control-plane").to_str().expect("a path"), &["certificate"]);
    anew.args(["--name", "localhost", "--data-dir"]).arg(fleet.path("control-plane"));
    run(anew).ok();
    let new = fs::read(fleet.cert()).expect("a certificate");
    assert_ne!(new, old);
    fleet.hang_up();
    wait_until("new connections get the new certificate", || ask(&mut dial(&new)).is_ok());
    assert!(ask(&mut dial(&old)).is_err(), "and not the old one");
    assert!(ask(&mut open).expect("an answer").starts_with("HTTP/1.1 200"), "the open one goes on");
}

fn command(program: &str, words: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(words);
    command
}
