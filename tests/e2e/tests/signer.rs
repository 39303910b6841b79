//! The signer is a process of its own: it may be stopped and killed, and the process that faces the network has no command key.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{Read as _, Seek as _, SeekFrom},
    path::Path,
};

use e2e::{
    cli::Running,
    fleet::{Fleet, text_of},
    http,
    program::{children, signal},
    wait::{wait_for, wait_until},
};

fn health(fleet: &Fleet) -> (u16, String) {
    http::get(fleet.http_port, "/health").map_or((0, String::new()), |answer| (answer.status, answer.body))
}

/// The signer that the control plane started.
fn signer_of(fleet: &mut Fleet) -> u32 {
    let control_plane = fleet.control_plane().pid();
    wait_for("a signer", || children(control_plane).first().copied())
}

fn facts(fleet: &Fleet) -> Running {
    fleet.cli_start(&["action", "run", "host.facts", "--host", "local", "--json"])
}

#[test]
fn orders_wait_for_a_signer_that_stands_still_or_is_killed_and_no_number_is_given_twice() {
    let mut fleet = Fleet::start();
    let _host = fleet.host("local");
    facts(&fleet).wait().ok();

    let signer = signer_of(&mut fleet);
    signal(signer, "STOP");
    let waiting: Vec<Running> = (0..4).map(|_| facts(&fleet)).collect();
    wait_until("health says that the signer does not answer", || {
        let (status, body) = health(&fleet);
        status == 503 && body.contains("the signer does not answer")
    });
    let doctor = fleet.control_plane_verb(&["doctor"]).expect(1);
    doctor.says("FAIL  signer");
    for command in fleet.commands("host.facts").iter().take(waiting.len()) {
        assert_eq!(command["status"], "queued", "{command:#}");
    }
    signal(signer, "KILL");
    for order in waiting {
        order.wait().ok();
    }
    wait_until("all is well again", || health(&fleet).0 == 200);
    assert_ne!(signer_of(&mut fleet), signer, "another process");

    // In the middle of work, again and again.
    for _ in 0..5 {
        let orders: Vec<Running> = (0..4).map(|_| facts(&fleet)).collect();
        let signer = signer_of(&mut fleet);
        signal(signer, "KILL");
        for order in orders {
            order.wait().ok();
        }
        wait_until("it is followed by another", || signer_of(&mut fleet) != signer);
    }
    let mut numbers = BTreeSet::new();
    for command in fleet.commands("host.facts") {
        assert_eq!(command["status"], "succeeded", "{command:#}");
        let shown = fleet.command(&text_of(&command, "command_id"));
        for order in shown["orders"].as_array().expect("orders") {
            assert!(numbers.insert(order["sequence"].to_string()), "given twice: {order:#}");
        }
    }
    assert!(numbers.len() >= 25, "{numbers:?}");
    fleet.cli(&["audit", "verify", "--json"]).ok();
    let log = fs::read_to_string(fleet.data("signer/log.jsonl")).expect("the signer's log");
    for number in numbers {
        let line = log.lines().find(|line| line.contains(&format!("\"sequence\":{number},")));
        assert!(line.is_some_and(|line| line.contains("\"decision\":\"granted\"")), "number {number} is in the log");
    }
}

#[test]
fn a_signer_ends_with_its_control_plane_however_that_ends() {
    let mut fleet = Fleet::start();
    let signer = signer_of(&mut fleet);
    fleet.control_plane_kill_9();
    wait_until("the signer has ended", || !Path::new(&format!("/proc/{signer}")).exists());
    fleet.control_plane_start();
    let signer = signer_of(&mut fleet);
    // A terminal sends its signal to all of them; the signer waits for its parent.
    signal(signer, "TERM");
    signal(signer, "INT");
    wait_until("it is well", || health(&fleet).0 == 200);
    assert_eq!(signer_of(&mut fleet), signer);
    assert!(fleet.control_plane().terminate().success());
    assert!(!Path::new(&format!("/proc/{signer}")).exists(), "it ended before the control plane did");
}

/// Whether a process has these bytes anywhere in its memory.
fn holds(pid: u32, wanted: &[u8]) -> std::io::Result<bool> {
    let mut memory = File::open(format!("/proc/{pid}/mem"))?;
    let maps = fs::read_to_string(format!("/proc/{pid}/maps"))?;
    let mut looked_at = 0;
    for line in maps.lines() {
        let (range, rest) = line.split_once(' ').expect("a range");
        // Not the kernel's own pages.
        if !rest.starts_with('r') || rest.contains("[v") {
            continue;
        }
        let (from, to) = range.split_once('-').expect("a range");
        let address = |text| u64::from_str_radix(text, 16).expect("an address");
        memory.seek(SeekFrom::Start(address(from)))?;
        let mut bytes = Vec::new();
        // What was mapped a moment ago may be gone.
        let _ = (&memory).take(address(to) - address(from)).read_to_end(&mut bytes);
        looked_at += bytes.len();
        if bytes.windows(wanted.len()).any(|window| window == wanted) {
            return Ok(true);
        }
    }
    assert!(looked_at > 1024 * 1024, "only {looked_at} bytes of process {pid} could be looked at");
    Ok(false)
}

#[test]
fn the_process_that_faces_the_network_holds_no_command_key() {
    let mut fleet = Fleet::start();
    let _host = fleet.host("local");
    facts(&fleet).wait().ok();
    let (control_plane, signer, seed) = (fleet.control_plane().pid(), signer_of(&mut fleet), fleet.command_seed());
    if let Err(error) = File::open(format!("/proc/{control_plane}/mem")) {
        eprintln!("SKIPPED: the memory of another process cannot be read here ({error}); run the tests as root");
        return;
    }
    assert!(holds(signer, &seed).expect("looked at"), "the search finds the key where it is");
    assert!(!holds(control_plane, &seed).expect("looked at"), "the command key is in the control plane's memory");
}
