//! The database and what it says of root and clock, room on the disk, listeners, and agent programs.

use std::{io, net::SocketAddr, os::unix::fs::MetadataExt as _, path::Path};

use envelope::root::TrustedRoot;
use ids::{DurationMs, Sha256, UnixMs};
use store::StoreConfig;
use tokio::net::TcpListener;
use web::AgentPrograms as _;

use super::{Finding, Verdict};
use crate::{agent_programs::Programs, config::Config, files::Files, health, keys::Keys, limits, serve};

/// Whether a control plane has the database open.
pub(super) fn is_running(files: &Files) -> bool {
    store::is_in_use(&files.database()).unwrap_or(false)
}

/// Is the database whole, does its key fit, and do the keys stand in its root metadata? Also that root metadata.
pub(super) async fn database(files: &Files, keys: Option<&Keys>, now: UnixMs) -> (Vec<Finding>, Option<TrustedRoot>) {
    let check = "database";
    let path = files.database();
    let Some(keys) = keys else {
        let found = format!("{} was not looked into: that takes the data key", path.display());
        return (vec![Finding::warn(check, found, "Mend the keys, then run `doctor` again.")], None);
    };
    let examined = match store::examine(StoreConfig { path: path.clone(), data_key: keys.data.clone() }).await {
        Ok(examined) => examined,
        Err(error) => return (vec![Finding::error(check, &error)], None),
    };
    let in_use = if is_running(files) { "a control plane has it open" } else { "no control plane has it open" };
    let mut findings = vec![Finding::ok(check, format!("{} is whole and its key fits; {in_use}", path.display()))];
    let found = format!("all {} leaves of the audit log are as they were when it was signed", examined.audit.leaves);
    findings.push(Finding::ok("audit", found));
    let root = TrustedRoot::from_stored(&examined.root_chain);
    match &root {
        Err(error) => {
            let found = format!("the stored root metadata does not verify: {error}");
            findings.push(Finding::fail("root", found, "Restore the database from a backup."));
        }
        Ok(root) => {
            findings.push(match serve::check_keys(files, root, keys) {
                Err(error) => Finding::error("root", &error),
                Ok(()) => root_finding(root.current().version.0, root.current().expires.since(now)),
            });
            findings.push(clock_finding(now, root.current().issued.max(written(&path))));
        }
    }
    (findings, root.ok())
}

/// When the database was written last, by the clock of that moment.
fn written(database: &Path) -> UnixMs {
    let seconds = std::fs::metadata(database).map_or(0, |file| file.mtime());
    UnixMs(u64::try_from(seconds).unwrap_or(0).saturating_mul(1000))
}

pub(super) fn root_finding(version: u64, left: DurationMs) -> Finding {
    let check = "root";
    let advice =
        "Let an administrator issue new root metadata; past its end hosts take nothing but that and read actions.";
    match left {
        DurationMs(0) => Finding::fail(check, format!("root metadata version {version} has expired"), advice),
        left if left < limits::ROOT_EXPIRY_WARNING => {
            Finding::warn(check, format!("root metadata version {version} expires in {left}"), advice)
        }
        left => Finding::ok(check, format!("root metadata version {version} lists the keys and is valid for {left}")),
    }
}

/// A clock that was set back would have orders expire before they are made.
pub(super) fn clock_finding(now: UnixMs, seen: UnixMs) -> Finding {
    let (check, behind) = ("clock", seen.since(now));
    if behind > limits::CLOCK_BEHIND_MAX {
        let found = format!("the clock is {behind} behind what was written here before");
        let advice =
            "Set up time synchronisation (chrony, systemd-timesyncd). Orders are judged by this machine's time.";
        return Finding::fail(check, found, advice);
    }
    Finding::ok(check, "not behind anything that was written here before")
}

/// Is there room where the control plane writes?
pub(super) fn disks(place: &Path) -> Vec<Finding> {
    match rustix::fs::statvfs(place) {
        Ok(stat) => {
            let disk = disk_finding(place, stat.f_bavail.saturating_mul(stat.f_frsize));
            [Some(disk), inodes_finding(place, stat.f_favail, stat.f_files)].into_iter().flatten().collect()
        }
        Err(error) => vec![Finding::error("disk", &error)],
    }
}

pub(super) fn disk_finding(place: &Path, free: u64) -> Finding {
    let (check, found) = ("disk", format!("{} MiB free for {}", free / (1024 * 1024), place.display()));
    let advice = "Free some space: when nothing can be written, no order goes out and no report is taken.";
    match free {
        free if free < limits::DISK_FAIL_BYTES => Finding::fail(check, found, advice),
        free if free < limits::DISK_WARN_BYTES => Finding::warn(check, found, advice),
        _ => Finding::ok(check, found),
    }
}

/// Nothing where the file system has no fixed number of them.
pub(super) fn inodes_finding(place: &Path, free: u64, total: u64) -> Option<Finding> {
    let (check, found) = ("inodes", format!("{free} of {total} inodes free for {}", place.display()));
    let advice = "Remove many small files: without inodes no file can be made, however much space is free.";
    match free {
        _ if total == 0 => None,
        free if free < limits::INODES_FAIL => Some(Finding::fail(check, found, advice)),
        free if free < limits::INODES_WARN => Some(Finding::warn(check, found, advice)),
        _ => Some(Finding::ok(check, found)),
    }
}

/// Does the control plane answer where it should, or could it listen there? `pin` is of its TLS key.
pub(super) async fn listeners(config: &Config, is_running: bool, pin: Option<Sha256>) -> Vec<Finding> {
    let (agents_at, people_at) = (config.agent_listen, config.http_listen);
    let mut agents = port("agents", agents_at, "agent_listen", is_running).await;
    let mut people = port("people", people_at, "http_listen", is_running).await;
    // Who listens proves that it is ours, by its key or certificate.
    if let Some(pin) = pin.filter(|_| is_running && agents.verdict == Verdict::Ok) {
        agents = match health::agents(agents_at, pin).await {
            Ok(()) => Finding::ok("agents", format!("the control plane answers at {agents_at} with its pinned key")),
            Err(error) => Finding::error("agents", &error),
        };
    }
    if is_running && people.verdict == Verdict::Ok {
        people = match health::run(config.clone()).await {
            Ok(()) => Finding::ok("people", format!("the control plane answers at {people_at} and is well")),
            Err(error) => Finding::error("people", &error),
        };
    }
    vec![agents, people]
}

async fn port(whom: &'static str, address: SocketAddr, key: &str, is_running: bool) -> Finding {
    // For a moment only, and given back at once.
    let bound = TcpListener::bind(address).await.map(drop);
    match (bound, is_running) {
        (Ok(()), false) => Finding::ok(whom, format!("{address} is free")),
        (Ok(()), true) => {
            let found = format!("nobody listens on {address}, though a control plane has the database open");
            let advice =
                format!("It runs with another {key}, or just starts or ends; run `doctor` with its configuration.");
            Finding::fail(whom, found, advice)
        }
        (Err(error), true) if error.kind() == io::ErrorKind::AddrInUse => {
            Finding::ok(whom, format!("{address} is taken while a control plane has the database open"))
        }
        (Err(error), _) => {
            let found = format!("the control plane cannot listen on {address}: {error}");
            let advice = match error.kind() {
                io::ErrorKind::AddrInUse => {
                    format!("Another program has that port (`ss -ltnp` names it); end it or change {key}.")
                }
                io::ErrorKind::AddrNotAvailable => format!("This machine has no such address; correct {key}."),
                io::ErrorKind::PermissionDenied => format!("Ports below 1024 take a privilege; change {key}."),
                _ => format!("Correct {key}."),
            };
            Finding::fail(whom, found, advice)
        }
    }
}

/// Which programs can new machines fetch?
pub(super) fn agents(config: &Config) -> Finding {
    let check = "programs";
    let served = Programs::new(config.agent_dir.as_deref()).list();
    let names: Vec<_> = served.iter().map(|program| program.architecture.as_str()).collect();
    if names.is_empty() {
        let advice = "Install the package with the agent's programs, or say with agent_dir where they are (DIR/x86_64/serverflow-agent).";
        return Finding::warn(check, "no agent's program is served: new machines have nothing to fetch", advice);
    }
    Finding::ok(check, format!("new machines can fetch the agent for {}", names.join(" and ")))
}
