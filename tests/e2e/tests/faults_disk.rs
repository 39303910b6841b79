//! Disks that are full, read-only or damaged: refused or recovered from, in words that help; nothing panics, and
//! nothing that was acknowledged is lost.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use e2e::{
    cli::run,
    fleet::{Fleet, Host, text_of},
    http,
    program::Program,
    wait::{wait_for, wait_until, wait_within},
};

/// Enough for a database and its log, little enough to fill at once.
const DISK_BYTES: u32 = 6 * 1024 * 1024;

/// A file system in place of a directory, with what the directory held. Gone with this.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn under(path: &Path) -> Self {
        let aside = path.with_extension("aside");
        fs::rename(path, &aside).expect("moved aside");
        fs::create_dir(path).expect("a place to mount at");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={DISK_BYTES},mode=0700"), "none"]).arg(path);
        run(mount).ok();
        let mut copy = Command::new("cp");
        copy.arg("-a").arg(aside.join(".")).arg(path);
        run(copy).ok();
        Self(path.to_owned())
    }

    /// Not a byte is free afterwards.
    fn fill(&self) {
        use std::io::Write as _;
        let mut file = fs::File::create(self.0.join("filler")).expect("a file");
        for size in [65_536, 4_096, 1] {
            while file.write_all(&vec![0; size]).is_ok() {}
        }
    }

    fn free(&self) {
        fs::remove_file(self.0.join("filler")).expect("removed");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        unmount(&self.0);
    }
}

fn unmount(path: &Path) {
    // What a program that is about to end still has open does not matter.
    let _ = Command::new("umount").arg("--lazy").arg(path).status();
}

/// The directory over itself, read-only: for root too.
struct ReadOnly(PathBuf);

impl ReadOnly {
    fn over(path: &Path) -> Self {
        for options in ["bind", "remount,ro,bind"] {
            let mut mount = Command::new("mount");
            mount.args(["-o", options]).arg(path).arg(path);
            run(mount).ok();
        }
        Self(path.to_owned())
    }
}

impl Drop for ReadOnly {
    fn drop(&mut self) {
        unmount(&self.0);
    }
}

fn facts(fleet: &Fleet) -> e2e::cli::Ran {
    fleet.cli(&["action", "run", "host.facts", "--host", "local", "--json"])
}

fn verified(fleet: &Fleet) {
    wait_until("the audit log verifies", || fleet.cli(&["audit", "verify", "--json"]).code == 0);
}

/// Ends by itself, in words, and not by a panic.
fn refuses(program: &mut Program, words: &[&str]) {
    let before = program.said().len();
    let ended = program.wait_ended();
    let said = program.said();
    assert_eq!(ended.code(), Some(1), "{said}");
    let last = &said[before.saturating_sub(4096).min(said.len())..];
    for word in words {
        assert!(said.contains(word), "it should say {word:?}: {last}");
    }
    assert!(!said.contains("panicked"), "{last}");
}

#[test]
fn a_control_plane_whose_disk_is_full_says_so_takes_nothing_and_goes_on_by_itself() {
    let mut fleet = Fleet::start();
    let mut host = fleet.host("local");
    facts(&fleet).ok();
    fleet.control_plane().terminate();
    let disk = SmallDisk::under(&fleet.data(""));
    fleet.control_plane_start();
    fleet.wait_host("local", "connected");
    let known = fleet.commands("host.facts").len();
    disk.fill();
    wait_until("an order is refused", || {
        let ran = facts(&fleet);
        assert!(ran.code == 0 || ran.all().contains("the control plane's database cannot be used now"), "{ran:#?}");
        ran.code != 0
    });
    let said = fleet.control_plane().said();
    assert!(said.contains("the disk is full; free some space") && !said.contains("panicked"), "{said}");
    let health = http::get(fleet.http_port, "/health").expect("an answer");
    assert_eq!(health.status, 503, "{health:?}");
    assert!(health.body.contains("the database cannot be written"), "{health:?}");
    disk.free();
    wait_until("it is well again by itself", || {
        http::get(fleet.http_port, "/health").is_some_and(|answer| answer.status == 200)
    });
    wait_until("orders go out again", || facts(&fleet).code == 0);
    assert!(fleet.commands("host.facts").len() > known);
    verified(&fleet);
    host.agent().terminate();
    fleet.control_plane().terminate();
}

#[test]
fn an_agent_whose_disk_is_full_ends_before_it_acts_and_resumes_when_there_is_space() {
    let fleet = Fleet::start();
    let mut host = fleet.host("local");
    facts(&fleet).ok();
    host.agent().terminate();
    let disk = SmallDisk::under(&host.state(""));
    host.start();
    fleet.wait_host("local", "connected");
    disk.fill();
    let mut orders = Vec::new();
    let ended = wait_for("the agent ends for want of space", || {
        orders.push(fleet.cli_start(&["action", "run", "host.facts", "--host", "local", "--json"]));
        wait_within(Duration::from_secs(30), "an order's end, or the agent's", || {
            let is_over = orders.last_mut().is_some_and(e2e::cli::Running::has_ended);
            let ended = host.agent().ended();
            (is_over || ended.is_some()).then_some(ended)
        })
    });
    assert_eq!(ended.code(), Some(1), "{}", host.said());
    assert!(host.said().contains("the disk is full; free some space"), "{}", host.said());
    assert!(!host.said().contains("panicked"), "{}", host.said());
    disk.free();
    host.start();
    for order in orders {
        let ran = order.wait().ok().json();
        assert_eq!(text_of(&ran["commands"][0], "status"), "succeeded", "{ran:#}");
    }
    verified(&fleet);
    host.agent().terminate();
}

#[test]
fn a_read_only_directory_is_named_at_the_start_and_nothing_is_lost() {
    let mut fleet = Fleet::start();
    let mut host = fleet.host("local");
    facts(&fleet).ok();

    host.agent().terminate();
    {
        let _read_only = ReadOnly::over(&host.state(""));
        host.start();
        refuses(host.agent(), &["journal.lock", "Read-only file system"]);
    }
    host.start();
    facts(&fleet).ok();

    fleet.control_plane().terminate();
    {
        let _read_only = ReadOnly::over(&fleet.data(""));
        fleet.control_plane_spawn();
        refuses(fleet.control_plane(), &["the file system is read-only"]);
    }
    fleet.control_plane_start();
    wait_until("orders go out again", || facts(&fleet).code == 0);
    verified(&fleet);
}

/// Bytes of one page of the database turned over.
fn damaged(bytes: &[u8], page: usize, page_bytes: usize) -> Vec<u8> {
    let mut damaged = bytes.to_vec();
    let end = ((page + 1) * page_bytes).min(damaged.len());
    let start = page * page_bytes;
    // Its head, which says what it is, and its middle, which holds what it says.
    for at in (start..end.min(start + 12)).chain(start + page_bytes / 2..end.min(start + page_bytes / 2 + 64)) {
        damaged[at] ^= 0x5a;
    }
    damaged
}

/// The database with its log written back, so that every page counts.
fn whole(path: &Path) -> Vec<u8> {
    let wal = path.with_extension("db-wal");
    assert!(fs::metadata(&wal).map_or(0, |file| file.len()) == 0, "an orderly end leaves no log behind");
    fs::read(path).expect("a database")
}

const PAGE_BYTES: usize = 4096;

#[test]
fn an_agent_with_a_damaged_journal_does_not_run_and_says_what_to_do() {
    let fleet = Fleet::start();
    let mut host = fleet.host("local");
    facts(&fleet).ok();
    host.agent().terminate();
    let path = host.state("journal.db");
    let good = whole(&path);
    let pages = good.len() / PAGE_BYTES;
    assert!(pages > 8, "{pages} pages");
    let mut refused = 0;
    for page in 0..pages {
        fs::write(&path, damaged(&good, page, PAGE_BYTES)).expect("written");
        let before = host.said().len();
        host.start();
        let ended = wait_for("the agent ends or runs", || {
            let ended = host.agent().ended();
            let runs = host.said()[before..].contains("agent started");
            (ended.is_some() || runs).then_some(ended)
        });
        let said = host.said()[before..].to_owned();
        assert!(!said.contains("panicked"), "page {page}: {said}");
        match ended {
            Some(status) => {
                assert_eq!(status.code(), Some(1), "page {page}: {said}");
                assert!(said.contains("is damaged") || said.contains("does not verify"), "page {page}: {said}");
                assert!(said.contains("enrol"), "page {page}: what to do: {said}");
                refused += 1;
            }
            None => host.kill_9(),
        }
    }
    assert!(refused * 2 > pages, "{refused} of {pages} damaged pages were noticed");
    fs::write(&path, &good).expect("written");
    for more in ["db-wal", "db-shm"] {
        let _ = fs::remove_file(path.with_extension(more));
    }
    host.start();
    facts(&fleet).ok();
}

#[test]
fn a_control_plane_with_a_damaged_database_does_not_run_and_says_what_to_do() {
    let mut fleet = Fleet::start();
    let mut host: Host = fleet.host("local");
    facts(&fleet).ok();
    host.agent().terminate();
    fleet.control_plane().terminate();
    let path = fleet.data("serverflow.db");
    let good = whole(&path);
    let pages = good.len() / PAGE_BYTES;
    let (mut refused, port) = (0, fleet.http_port);
    for page in 0..pages {
        fs::write(&path, damaged(&good, page, PAGE_BYTES)).expect("written");
        let before = fleet.path("control-plane.log").metadata().map_or(0, |file| file.len());
        fleet.control_plane_spawn();
        let ended = wait_for("the control plane ends or answers", || {
            let ended = fleet.control_plane().ended();
            (ended.is_some() || http::get(port, "/health").is_some()).then_some(ended)
        });
        let log = fs::read(fleet.path("control-plane.log")).expect("a log");
        let said = String::from_utf8_lossy(&log[usize::try_from(before).unwrap_or(0)..]).into_owned();
        assert!(!said.contains("panicked"), "page {page}: {said}");
        match ended {
            Some(status) => {
                assert_eq!(status.code(), Some(1), "page {page}: {said}");
                assert!(said.contains("backup"), "page {page}: what to do: {said}");
                refused += 1;
            }
            None => fleet.control_plane_kill_9(),
        }
        for more in ["db-wal", "db-shm"] {
            let _ = fs::remove_file(path.with_extension(more));
        }
    }
    assert!(refused * 2 > pages, "{refused} of {pages} damaged pages were noticed");
    fs::write(&path, &good).expect("written");
    fleet.control_plane_start();
    verified(&fleet);
}

/// A log cut or overwritten after a power cut: what it held after the first bad frame was never acknowledged.
#[test]
fn a_damaged_write_ahead_log_is_cut_where_it_breaks() {
    let fleet = Fleet::start();
    let mut host = fleet.host("local");
    facts(&fleet).ok();
    host.kill_9();
    let wal = host.state("journal.db-wal");
    let mut bytes = fs::read(&wal).expect("a log");
    let half = bytes.len() / 2;
    bytes[half..].fill(0xa5);
    fs::write(&wal, bytes).expect("written");
    let before = host.said().len();
    host.start();
    // An older state: the control plane knows more of this host than it does, and shuts it out.
    wait_for("it is connected, or quarantined", || {
        let status = text_of(&fleet.cli(&["host", "show", "local", "--json"]).ok().json(), "status");
        ["connected", "quarantined"].contains(&status.as_str()).then_some(())
    });
    assert!(!host.said()[before..].contains("panicked"), "{}", host.said());
}
