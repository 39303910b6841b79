//! The checks of what is on this machine.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use host::{Engine, EngineConfig, clock};
use ids::{BootId, DurationMs, FleetId, HostId};

use super::{Enrolled, Finding};
use crate::{
    admission::{PolicyFileError, read_policy},
    failure::words,
    host_keys::HostKeys,
    limits,
    policy_check::{allowed_actions, list},
    state_dir::{Enrolment, StateDir},
    status::{ClockStatus, ConnectionStatus, RootStatus, Status},
};

const REVOKE: &str =
    "Revoke this host with `serverflow host revoke NAME`, move the state directory away and enrol anew.";

const QUARANTINED: &str =
    "See what can be done with `serverflow host quarantine list`, on the machine you give orders from.";

/// Is this machine a host, and are its keys there?
pub(super) fn enrolment(state: &StateDir) -> (Enrolled, Finding) {
    let check = "enrolment";
    let enrolment = match Enrolment::read(state) {
        Ok(Some(enrolment)) => enrolment,
        Ok(None) if state.pending().exists() => {
            let found = "an enrolment was begun and not finished".to_owned();
            return (
                None,
                Finding::fail(
                    check,
                    found,
                    format!("Run `serverflow-agent enroll{}` again; it goes on where it ended.", state.option()),
                ),
            );
        }
        Ok(None) => {
            let found = format!("this machine is not enrolled ({} has no enrolment.json)", state.path().display());
            let advice = format!(
                "Get a token with `serverflow host enroll NAME` and run `serverflow-agent enroll{} --token-file FILE`.",
                state.option()
            );
            return (None, Finding::fail(check, found, advice));
        }
        Err(error) => return (None, Finding::fail(check, words(&error), REVOKE)),
    };
    let keys = HostKeys::read(state, enrolment.host_epoch, None, false)
        .and_then(|_| keyfile::read_symmetric(&state.fingerprint_key()));
    let finding = match keys {
        Ok(_) => {
            Finding::ok(check, format!("host '{}' ({}) of fleet {}", enrolment.name, enrolment.host, enrolment.fleet))
        }
        Err(error @ keyfile::KeyFileError::Permissions { .. }) => {
            Finding::fail(check, words(&error), "Close the file as said, and ask who could read it meanwhile.")
        }
        Err(error) => Finding::fail(check, words(&error), REVOKE),
    };
    (Some(enrolment), finding)
}

/// May anybody else read or write the agent's state?
pub(super) fn state_directory(state: &StateDir) -> Option<Finding> {
    let (check, path) = ("state", state.path());
    let metadata = fs::metadata(path).ok()?;
    let (mode, shown) = (metadata.mode() & 0o777, path.display());
    if mode & 0o077 != 0 {
        let found = format!("{shown} can be entered by others (mode {mode:o})");
        return Some(Finding::fail(check, found, format!("Run `chmod 700 {shown}`.")));
    }
    let me = rustix::process::geteuid().as_raw();
    if metadata.uid() != me && me != 0 {
        let found = format!("{shown} belongs to user {}, and this runs as user {me}", metadata.uid());
        return Some(Finding::fail(check, found, "Run the agent as the user who owns the directory."));
    }
    Some(Finding::ok(check, format!("{shown} is private")))
}

/// Is there a valid policy, and what does it allow?
pub(super) fn policy(path: &Path) -> Finding {
    let check = "policy";
    let policy = match read_policy(path) {
        Ok(policy) => policy,
        Err(error @ PolicyFileError::Missing { .. }) => {
            return Finding::fail(
                check,
                words(&error),
                "Write one; docs/POLICY.md has each line, enrolment writes a first one.",
            );
        }
        Err(error @ PolicyFileError::Changeable { .. }) => {
            let shown = path.display();
            let advice =
                format!("Run `chown root {shown}` and `chmod go-w {shown}`, and read it: who wrote it meanwhile?");
            return Finding::fail(check, words(&error), advice);
        }
        Err(error) => {
            return Finding::fail(check, words(&error), "Mend that line; the agent reads the file again by itself.");
        }
    };
    let (allowed, _) = allowed_actions(&policy);
    let shown = path.display();
    if allowed.iter().all(|name| actions::policy::ALWAYS_ALLOWED.contains(name)) {
        let found = format!("{shown} is valid and allows no action");
        return Finding::warn(check, found, "List what this host may do under `actions`, such as \"app.*\".");
    }
    Finding::ok(check, format!("{shown} allows {}", list(&allowed)))
}

/// What to do about a log that was cut, rewritten or forked.
const LOG_REFUSED: &str = "No order is taken from it. Either the control plane was restored from an old backup (then issue root \
     metadata that names where the old log stood), or somebody changed its past: keep this host's state as evidence and \
     compare it with an export (`serverflow audit verify`).";

/// Has this host left its fleet? Then nothing else matters.
pub(super) fn retired(state: &StateDir, status: Option<&Status>) -> Option<Finding> {
    let ConnectionStatus::Retired { .. } = status?.connection else { return None };
    let found = "this host has left its fleet: the keys to its secrets are gone, its containers run on";
    let advice = format!(
        "Run `serverflow-agent uninstall{} --purge` to remove what is left of the agent, or enrol the machine anew after that.",
        state.option()
    );
    Some(Finding::warn("agent", found, advice))
}

/// Does the agent run, is it connected, is it quarantined or shut out?
pub(super) fn agent(state: &StateDir, status: Option<&Status>) -> Finding {
    let check = "agent";
    let option = state.option();
    let start =
        || format!("Start it with `serverflow-agent run{option}` (or the service that does so) and read its log.");
    let Some(status) = status else { return Finding::warn(check, "it never ran on this state directory", start()) };
    if let Some(id) = status.quarantine {
        let found =
            format!("this host is in quarantine ({id}): its state and the control plane's disagree, no order runs");
        return Finding::fail(check, found, QUARANTINED);
    }
    if let Some(refused) = &status.audit.refused {
        let found = format!("the control plane's audit log does not continue what this host has seen: {}", refused.why);
        return Finding::fail(check, found, LOG_REFUSED);
    }
    if !status.is_alive() {
        return Finding::warn(check, "it does not run", start());
    }
    match &status.connection {
        ConnectionStatus::Connected { address, .. } => {
            Finding::ok(check, format!("runs (pid {}), connected to {address}", status.pid))
        }
        ConnectionStatus::Disconnected { is_refused: true, .. } => {
            let found = "the control plane refuses this host: it is unknown there, or was revoked";
            let advice = format!(
                "A revoked host stays shut out. Move {} away, or run `serverflow-agent uninstall{option} --purge`, and enrol \
                 anew with a token from `serverflow host enroll NAME`. Containers run on meanwhile.",
                state.path().display()
            );
            Finding::fail(check, found, advice)
        }
        ConnectionStatus::Disconnected { error, .. } => {
            let found = format!("runs (pid {}), and is not connected: {error}", status.pid);
            Finding::warn(
                check,
                found,
                "The checks of the address below tell whether it is the network; if not, read the control plane's log.",
            )
        }
        _ => Finding::warn(check, format!("runs (pid {}), and is connecting", status.pid), "Ask again in a moment."),
    }
}

/// Is the clock right, by what the control plane said last?
pub(super) fn clock(status: Option<&Status>) -> Finding {
    let boot = clock::boot_id().ok();
    clock_finding(status.and_then(|status| status.clock), boot, clock::boot_now(), clock::wall_now())
}

fn clock_finding(known: Option<ClockStatus>, boot: Option<BootId>, now: ids::BootMs, wall: ids::UnixMs) -> Finding {
    let check = "clock";
    let Some(known) = known.filter(|known| Some(known.boot) == boot) else {
        let found = "not compared: there was no session since this machine started";
        return Finding::warn(
            check,
            found,
            "Start the agent; it learns the control plane's time with its first session.",
        );
    };
    let right = known.time.plus(now.since(known.at));
    let skew = wall.distance(right);
    if skew <= limits::SKEW_WARN {
        return Finding::ok(check, format!("within {skew} of the control plane's"));
    }
    let direction = if wall > right { "ahead of" } else { "behind" };
    let found = format!("{skew} {direction} the control plane's");
    let advice = "Set up time synchronisation (chrony, systemd-timesyncd). Orders are judged by the control plane's time and \
                  still run; times in logs are wrong.";
    let finding = Finding::warn(check, found, advice);
    if skew > session::limits::CLOCK_SKEW_DESTRUCTIVE_MAX {
        return Finding { verdict: super::Verdict::Fail, ..finding };
    }
    finding
}

/// How long is the root metadata valid?
pub(super) fn root(status: Option<&Status>) -> Option<Finding> {
    status.and_then(|status| status.root).map(|root| root_finding(root, clock::wall_now()))
}

fn root_finding(root: RootStatus, now: ids::UnixMs) -> Finding {
    let (check, version) = ("root", root.version);
    let left = root.expires.since(now);
    let advice =
        "Let an administrator issue new root metadata; past its end this host takes nothing but that and read actions.";
    match left {
        DurationMs(0) => Finding::fail(check, format!("root metadata version {version} has expired"), advice),
        left if left <= limits::ROOT_EXPIRY_WARN => {
            Finding::warn(check, format!("root metadata version {version} expires in {left}"), advice)
        }
        left => Finding::ok(check, format!("root metadata version {version} is valid for {left}")),
    }
}

/// Is each file of the state its owner's alone to change?
pub(super) fn state_files(state: &StateDir) -> Option<Finding> {
    let check = "files";
    let directory = fs::metadata(state.path()).ok()?;
    let mut wrong = Vec::new();
    for entry in fs::read_dir(state.path()).ok()?.flatten() {
        let Ok(metadata) = entry.metadata() else { continue };
        let (name, mode) = (entry.file_name().display().to_string(), metadata.mode() & 0o777);
        if metadata.uid() != directory.uid() {
            wrong.push(format!("{name} belongs to user {}", metadata.uid()));
        } else if !metadata.is_symlink() && mode & 0o022 != 0 {
            wrong.push(format!("{name} has mode {mode:03o}"));
        }
    }
    wrong.sort();
    let shown = state.path().display();
    if wrong.is_empty() {
        return Some(Finding::ok(check, format!("each file in {shown} is its owner's alone to change")));
    }
    let found = format!("in {shown} others may change what the agent relies on: {}", wrong.join(", "));
    let advice = format!("Run `chown -R {} {shown}` and `chmod -R go-rwx {shown}`; ask who did that.", directory.uid());
    Some(Finding::fail(check, found, advice))
}

/// Does Docker answer, and how is it set up? Also gives the engine's data directory.
pub(super) async fn docker(enrolment: Option<&Enrolment>) -> (Vec<Finding>, Option<PathBuf>) {
    let check = "docker";
    // Before enrolment the labels do not matter: nothing is made here.
    let (fleet, host) =
        enrolment.map_or((FleetId::from_bytes([0; 16]), HostId::from_bytes([0; 16])), |it| (it.fleet, it.host));
    let engine = match Engine::new(EngineConfig { socket: None, fleet, host }) {
        Ok(engine) => engine,
        Err(error) => {
            let finding = Finding::fail(check, words(&error), "Correct DOCKER_HOST in the agent's environment.");
            return (vec![finding], None);
        }
    };
    match engine.check().await {
        Ok(found) => {
            let text = format!("Docker {} (API {}) at {}", found.version, found.api_version, found.socket.display());
            let finding = if found.warnings.is_empty() {
                Finding::ok(check, text)
            } else {
                Finding::warn(check, text, format!("Docker itself warns: {}", found.warnings.join("; ")))
            };
            let mut findings = vec![finding];
            findings.extend(super::engine::findings(&found));
            (findings, Some(found.root))
        }
        // Its words say what to do already.
        Err(error) => (vec![Finding { advice: None, ..Finding::fail(check, error.message, "") }], None),
    }
}

/// Is there room where the agent and Docker write?
pub(super) fn disks(state: &StateDir, docker_root: Option<&Path>) -> Vec<Finding> {
    let places = [("its state", Some(state.path())), ("Docker", docker_root)];
    places.into_iter().filter_map(|(whose, path)| disk(whose, path?)).flatten().collect()
}

fn disk(whose: &str, path: &Path) -> Option<Vec<Finding>> {
    let place = path.ancestors().find(|path| path.exists())?;
    let stat = rustix::fs::statvfs(place).ok()?;
    let free = stat.f_bavail.saturating_mul(stat.f_frsize);
    let mut findings = vec![disk_finding(whose, place, free)];
    findings.extend(inodes_finding(whose, place, stat.f_favail, stat.f_files));
    Some(findings)
}

/// Nothing where the file system has no fixed number of them.
fn inodes_finding(whose: &str, place: &Path, free: u64, total: u64) -> Option<Finding> {
    if total == 0 {
        return None;
    }
    let check = "inodes";
    let found = format!("{free} of {total} inodes free for {whose} ({})", place.display());
    let advice = "Remove many small files, for example with `docker image prune`; new files cannot be made without \
                  inodes, however much space is free.";
    Some(if free < limits::INODES_FAIL {
        Finding::fail(check, found, advice)
    } else if free < limits::INODES_WARN {
        Finding::warn(check, found, advice)
    } else {
        Finding::ok(check, found)
    })
}

fn disk_finding(whose: &str, place: &Path, free: u64) -> Finding {
    let (check, mebibytes) = ("disk", free / (1024 * 1024));
    let found = format!("{mebibytes} MiB free for {whose} ({})", place.display());
    if free < limits::DISK_FAIL_BYTES {
        return Finding::fail(
            check,
            found,
            "Free some space: without it the agent cannot note what it accepts, and ends.",
        );
    }
    if free < limits::DISK_WARN_BYTES {
        return Finding::warn(
            check,
            found,
            "Free some space before the next image is pulled, for example with `docker image prune`.",
        );
    }
    Finding::ok(check, found)
}

#[cfg(test)]
mod tests {
    use expect_test::expect_file;
    use ids::{BootMs, RootVersion, UnixMs};

    use super::*;
    use crate::doctor::render;

    const BOOT: BootId = BootId::from_bytes([1; 16]);

    fn clock_at(wall: u64) -> Finding {
        let known = ClockStatus { boot: BOOT, time: UnixMs(1_000_000), at: BootMs(5_000) };
        clock_finding(Some(known), Some(BOOT), BootMs(6_000), UnixMs(wall))
    }

    /// Every branch that depends on numbers alone, in one golden file.
    #[test]
    fn numbers_become_words() {
        let root = |days: u64| RootStatus { version: RootVersion(2), expires: UnixMs(days * 86_400_000) };
        let gone = BootId::from_bytes([2; 16]);
        let stale = ClockStatus { boot: gone, time: UnixMs(0), at: BootMs(0) };
        let place = Path::new("/var/lib");
        let findings = [
            clock_at(1_001_010),
            clock_at(1_061_000),
            clock_at(1_001_000 - 400_000),
            clock_finding(Some(stale), Some(BOOT), BootMs(1), UnixMs(0)),
            root_finding(root(400), UnixMs(0)),
            root_finding(root(59), UnixMs(0)),
            root_finding(root(0), UnixMs(1)),
            disk_finding("Docker", place, 5 * limits::DISK_WARN_BYTES),
            disk_finding("Docker", place, limits::DISK_WARN_BYTES - 1),
            disk_finding("its state", place, limits::DISK_FAIL_BYTES - 1),
            inodes_finding("its state", place, limits::INODES_WARN, 1_000_000).expect("a number"),
            inodes_finding("Docker", place, limits::INODES_WARN - 1, 1_000_000).expect("a number"),
            inodes_finding("Docker", place, limits::INODES_FAIL - 1, 1_000_000).expect("a number"),
        ];
        assert_eq!(inodes_finding("Docker", place, 0, 0), None, "a file system without a number of inodes");
        expect_file!["golden/numbers.txt"].assert_eq(&render(&findings));
    }

    #[test]
    fn a_fresh_machine_is_told_what_to_do() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let state = StateDir::new(directory.path().to_owned());
        let (enrolment, finding) = enrolment(&state);
        assert!(enrolment.is_none());
        assert!(finding.advice.expect("advice").contains("serverflow host enroll NAME"));
        let policy = policy(&state.policy());
        assert!(policy.found.contains("does not exist"), "{policy:?}");
        std::fs::write(state.policy(), "").expect("written");
        let empty = super::policy(&state.policy());
        assert_eq!(empty.verdict, crate::doctor::Verdict::Warn, "{empty:?}");
    }

    #[test]
    fn a_host_that_is_shut_out_is_told_how_to_become_one_again() {
        let pid = std::process::id();
        let status = |is_refused: bool| -> Status {
            let ids = "01010101-0101-0101-0101-010101010101";
            serde_json::from_value(serde_json::json!({
                "agent_version": "0.2.0", "fleet": ids, "host": ids, "name": "web1", "pid": pid,
                "process_start": crate::status::process_start(pid), "started_at": 0, "updated_at": 0,
                "connection": {"state": "disconnected", "since": 0, "error": "no", "next_attempt_at": null,
                               "is_refused": is_refused},
                "clock": null, "quarantine": null, "commands": {"open": 0, "running": []}, "reports_waiting": 0,
                "root": null, "directions": null, "policy": {"path": "/p", "error": null},
            }))
            .expect("a status")
        };
        let state = StateDir::new("/var/lib/second".into());
        assert_eq!(agent(&state, Some(&status(false))).verdict, crate::doctor::Verdict::Warn);
        let refused = agent(&state, Some(&status(true)));
        assert_eq!(refused.verdict, crate::doctor::Verdict::Fail);
        let mut other_log = status(false);
        other_log.audit.refused =
            Some(crate::status::AuditRefusal { since: ids::UnixMs(0), why: "it was cut".to_owned() });
        let other_log = agent(&state, Some(&other_log));
        assert!(
            other_log.verdict == crate::doctor::Verdict::Fail && other_log.found.contains("it was cut"),
            "{other_log:?}"
        );
        let advice = refused.advice.expect("advice");
        assert!(advice.contains("`serverflow-agent uninstall --state-dir /var/lib/second --purge`"), "{advice}");
        let never = agent(&state, None).advice.expect("advice");
        assert!(never.contains("`serverflow-agent run --state-dir /var/lib/second`"), "{never}");
    }

    #[test]
    fn a_file_that_others_may_change_is_found_and_a_policy_of_that_kind_is_none() {
        use std::os::unix::fs::PermissionsExt as _;
        let directory = tempfile::tempdir().expect("a temporary directory");
        let state = StateDir::new(directory.path().to_owned());
        let set = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("mode set");
        fs::write(state.policy(), "actions = [\"app.*\"]\n").expect("written");
        set(&state.policy(), 0o644);
        assert_eq!(state_files(&state).expect("it exists").verdict, crate::doctor::Verdict::Ok);
        let before = policy(&state.policy());
        assert_ne!(before.verdict, crate::doctor::Verdict::Fail, "{before:?}");
        for mode in [0o664, 0o646] {
            set(&state.policy(), mode);
            let files = state_files(&state).expect("it exists");
            assert!(files.found.contains(&format!("policy.toml has mode {mode:03o}")), "{files:?}");
            let policy = policy(&state.policy());
            assert_eq!(policy.verdict, crate::doctor::Verdict::Fail);
            assert!(policy.found.contains(&format!("its mode is {mode:04o}")), "{policy:?}");
            assert!(policy.advice.expect("advice").contains("chmod go-w"));
        }
    }

    #[test]
    fn an_open_state_directory_is_found() {
        use std::os::unix::fs::PermissionsExt as _;
        let directory = tempfile::tempdir().expect("a temporary directory");
        let state = StateDir::new(directory.path().to_owned());
        let verdict = |mode| {
            fs::set_permissions(directory.path(), fs::Permissions::from_mode(mode)).expect("mode set");
            state_directory(&state).expect("it exists").verdict
        };
        assert_eq!(verdict(0o700), crate::doctor::Verdict::Ok);
        assert_eq!(verdict(0o750), crate::doctor::Verdict::Fail);
    }
}
