//! `doctor`: is everything right from here to the hosts, and if not, what to do.

use anstyle::{AnsiColor, Style};
use api::{AgentRelease, FleetInfo, HostStatus, HostSummary, KeyList, WhoAmI};
use ids::{DurationMs, UnixMs};
use serde::Serialize;

use crate::{
    client::Client,
    clock,
    exit::{Ended, Failure, Kind},
    host::is_clock_wrong,
    key, limits, list,
    output::{Output, Paint, clean, clean_line},
    roots,
    session_file::{Place, variable},
    spans::relative,
};

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
enum Verdict {
    Ok,
    /// Works, but a person should look.
    Warn,
    /// Has to be mended.
    Fail,
}

/// One thing looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Finding {
    check: &'static str,
    verdict: Verdict,
    found: String,
    /// What to do next; nothing when all is well.
    #[serde(skip_serializing_if = "Option::is_none")]
    advice: Option<String>,
}

impl Finding {
    fn ok(check: &'static str, found: impl Into<String>) -> Self {
        Self { check, verdict: Verdict::Ok, found: found.into(), advice: None }
    }

    fn warn(check: &'static str, found: impl Into<String>, advice: &str) -> Self {
        Self { check, verdict: Verdict::Warn, found: found.into(), advice: Some(advice.to_owned()) }
    }

    /// What stands in the way is said in the failure's own words.
    fn failed(check: &'static str, failure: &Failure) -> Self {
        let (found, advice) = failure.words();
        Self { check, verdict: Verdict::Fail, found: found.to_owned(), advice: advice.map(str::to_owned) }
    }
}

/// What `doctor --json` prints.
#[derive(Serialize)]
struct Document {
    verdict: Verdict,
    findings: Vec<Finding>,
}

pub(crate) async fn run(output: &Output, place: Place<'_>) -> Result<Ended, Failure> {
    let findings = examine(output, place).await;
    let verdict = findings.iter().map(|finding| finding.verdict).max().unwrap_or(Verdict::Ok);
    output.result(&Document { verdict, findings }, |document, paint| words(&document.findings, paint))?;
    Ok(Ended::well_if(verdict != Verdict::Fail))
}

/// Each check needs those before it; the first that fails is the last.
async fn examine(output: &Output, place: Place<'_>) -> Vec<Finding> {
    let client = match Client::signed_in(place) {
        Ok(client) => client,
        Err(failure) => return vec![Finding::failed("sign-in", &failure)],
    };
    let now = clock::now();
    let mut findings = Vec::new();
    match client.get::<WhoAmI>(&["session"]).await {
        Err(failure) => {
            let check = if failure.kind == Kind::NotAllowed { "sign-in" } else { "reach" };
            return vec![Finding::failed(check, &failure)];
        }
        Ok(user) => {
            findings.extend([Finding::ok("reach", format!("{} answers", client.address())), sign_in(&user, now)])
        }
    }
    match client.get::<FleetInfo>(&["fleet"]).await {
        Err(failure) => findings.push(Finding::failed("version", &failure)),
        Ok(fleet) => {
            findings.push(version(&fleet.version, env!("CARGO_PKG_VERSION")));
            findings.push(root_expiry(&fleet, now));
            match list::items::<HostSummary>(&client, &["hosts"], &[], None).await {
                Err(failure) => findings.push(Finding::failed("hosts", &failure)),
                Ok(hosts) => findings.extend(self::hosts(&hosts, &fleet.version)),
            }
        }
    }
    match client.get::<KeyList>(&["keys"]).await {
        // A control plane of before has none of it.
        Err(failure) if failure.is_not_found() => {}
        Err(failure) => findings.push(Finding::failed("keys", &failure)),
        Ok(list) => findings.extend(keys(&list, now)),
    }
    let (check, known) = ("root-key", client.root().is_some() || variable("SERVERFLOW_ROOT").is_some());
    findings.push(match roots::known(&client, &output.without_progress()).await {
        Err(failure) => Finding::failed(check, &failure),
        Ok(_) if known => Finding::ok(check, "the fleet's root metadata begins with the root key known here"),
        Ok(_) => Finding::warn(
            check,
            "no root key is known here, so secrets are sealed on the control plane's word",
            "Sign in with `serverflow login --root FILE`, or name the file with SERVERFLOW_ROOT.",
        ),
    });
    findings
}

fn sign_in(user: &WhoAmI, now: UnixMs) -> Finding {
    let (left, end) = (user.expires_at.0.since(now), relative(now, user.expires_at.0));
    let found = format!("signed in as {} ({}); that ends {end}", user.name, clean_line(&user.role));
    if left < limits::SESSION_WARN {
        return Finding::warn("sign-in", found, "Sign in again with `serverflow login` before it ends.");
    }
    Finding::ok("sign-in", found)
}

/// Major and minor version: between those of one, everything works.
fn release(version: &str) -> &str {
    let end = version.match_indices('.').nth(1).map_or(version.len(), |(at, _)| at);
    &version[..end]
}

fn version(control_plane: &str, mine: &str) -> Finding {
    let found = format!("control plane {}, this program {mine}", clean_line(control_plane));
    if release(control_plane) == release(mine) {
        return Finding::ok("version", found);
    }
    Finding::warn("version", found, "Bring this program and the control plane to the same release.")
}

fn root_expiry(fleet: &FleetInfo, now: UnixMs) -> Finding {
    let left = fleet.root_expires_at.0.since(now);
    let advice = "Let the owner issue new root metadata: past its end, hosts take read actions only.";
    let version = fleet.root_version;
    match left {
        DurationMs(0) => Finding {
            verdict: Verdict::Fail,
            ..Finding::warn("root", format!("root metadata version {version} has expired"), advice)
        },
        left if left < limits::ROOT_EXPIRY_WARN => {
            Finding::warn("root", format!("root metadata version {version} expires in {left}"), advice)
        }
        left => Finding::ok("root", format!("root metadata version {version} is valid for {left}")),
    }
}

fn hosts(hosts: &[HostSummary], control_plane: &str) -> Vec<Finding> {
    let with = |status| hosts.iter().filter(move |host| host.status == status);
    let connected = with(HostStatus::Connected).count();
    let all = connected + with(HostStatus::Offline).count() + with(HostStatus::Quarantined).count();
    let mut findings = vec![Finding::ok("hosts", format!("{connected} of {all} are connected"))];
    let mut note = |check, hosts: Vec<&HostSummary>, what: &str, advice: &str| {
        if !hosts.is_empty() {
            findings.push(Finding::warn(check, format!("{} {what}", names(&hosts)), advice));
        }
    };
    let advice = "Run `serverflow-agent doctor` there.";
    note("offline", with(HostStatus::Offline).collect(), "without a connection", advice);
    let advice = "See why, and what can be done, with `serverflow host quarantine list`.";
    note("quarantine", with(HostStatus::Quarantined).collect(), "in quarantine: no order runs there", advice);
    let wrong = hosts.iter().filter(|host| is_clock_wrong(host)).collect();
    let advice = "Set up time synchronisation there (chrony, systemd-timesyncd): past 5 minutes, destructive actions are refused.";
    note("clocks", wrong, "with a clock more than 30 s off", advice);
    let is_other = |host: &&HostSummary| {
        host.status != HostStatus::Revoked
            && !host.agent_version.is_empty()
            && release(&host.agent_version) != release(control_plane)
    };
    let is_newer = |host: &&HostSummary| host.agent_release == Some(AgentRelease::Newer);
    let (newer, old): (Vec<_>, Vec<_>) = hosts.iter().filter(is_other).partition(is_newer);
    let advice = "Upgrade the agent with the lines of `serverflow host upgrade NAME`.";
    note("agents", old, "with an agent of another release", advice);
    let advice = "Upgrade the control plane: until then they are asked for what both know.";
    note("agents", newer, "with an agent of a later release than the control plane", advice);
    findings
}

/// Changes of the control plane's keys that stand still, and keys whose rotation is due.
fn keys(list: &KeyList, now: UnixMs) -> Vec<Finding> {
    let mut findings = Vec::new();
    if let Some(problem) = &list.problem {
        let advice = "Run `serverflow-control-plane doctor` on the control plane's machine.";
        findings.push(Finding::warn("keys", format!("which command keys there are is not known: {problem}"), advice));
    }
    for change in list.changes.iter().filter(|change| change.stuck) {
        let found = format!(
            "the change of the {} key is {} since {} and waits for {}",
            key::word(change.role),
            key::state_word(change.state),
            relative(now, change.moved_at.0),
            key::waits_for(change)
        );
        let advice = "Go on with `serverflow key rotate`, or give it up with --abort.";
        findings.push(Finding::warn("keys", found, advice));
    }
    let is_due = |key: &&api::KeySummary| key.rotation_due_at.is_some_and(|at| at.0 <= now);
    let due: Vec<_> = list.keys.iter().filter(is_due).map(|key| key::word(key.role)).collect();
    if !due.is_empty() {
        let found = format!("due for rotation: {}", due.join(", "));
        findings.push(Finding::warn("keys", found, "Change them one after the other with `serverflow key rotate`."));
    }
    if findings.is_empty() {
        findings.push(Finding::ok("keys", "no change of a key is stuck, and none is due"));
    }
    findings
}

/// Some by name, the rest by their number.
fn names(hosts: &[&HostSummary]) -> String {
    let shown: Vec<&str> = hosts.iter().take(limits::DOCTOR_NAMES_MAX).map(|host| host.name.as_str()).collect();
    match hosts.len() - shown.len() {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

fn words(findings: &[Finding], paint: Paint) -> String {
    let mut text = String::new();
    for finding in findings {
        let (mark, style) = match finding.verdict {
            Verdict::Ok => ("ok  ", AnsiColor::Green.on_default()),
            Verdict::Warn => ("warn", AnsiColor::Yellow.on_default()),
            Verdict::Fail => ("FAIL", AnsiColor::Red.on_default().bold()),
        };
        text.push_str(&format!("{}  {:<10} {}\n", paint.on(style, mark), finding.check, clean(&finding.found)));
        if let Some(advice) = &finding.advice {
            text.push_str(&format!("                 → {}\n", paint.on(Style::new(), clean(advice))));
        }
    }
    let count = |verdict| findings.iter().filter(|finding| finding.verdict == verdict).count();
    let end = match (count(Verdict::Fail), count(Verdict::Warn)) {
        (0, 0) => "Everything is right.".to_owned(),
        (0, warnings) => format!("Nothing to mend; {warnings} to look at."),
        (failures, warnings) => format!("{failures} to mend, {warnings} to look at."),
    };
    text.push_str(&format!("\n{end}\n"));
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::sample::{self, NOW};

    fn host(number: u8, status: &str, agent: &str) -> HostSummary {
        serde_json::from_value(json!({"id": sample::id(number), "name": format!("host-{number}"), "status": status,
            "roles": [], "agent_version": agent, "last_seen": null}))
        .unwrap()
    }

    fn fleet(days: u64) -> FleetInfo {
        let expires: api::Timestamp = NOW.plus(DurationMs::from_days(days)).into();
        serde_json::from_value(json!({"fleet_id": sample::id(7), "version": "0.2.1", "epoch": 1, "root_version": 3,
            "root_expires_at": expires, "agent_addresses": []}))
        .unwrap()
    }

    /// A change under way, and a command key that is due so many days on.
    fn key_list(stuck: bool, days: u64) -> KeyList {
        let at = |ms: u64| api::Timestamp(UnixMs(ms)).to_string();
        let due = NOW.plus(DurationMs::from_days(days)).0;
        let begun = at(NOW.0 - 3 * 86_400_000);
        serde_json::from_value(json!({
            "keys": [{"role": "command", "key": "01", "key_id": "02", "state": "in_use", "held": true, "rotation_due_at": at(due)}],
            "changes": [{"role": "tls", "state": "published", "emergency": false, "old_key": "01", "new_key": "02",
                "fresh_key": "03", "begun_by": "ada", "begun_at": begun, "moved_at": begun, "stuck": stuck, "root_version": 4,
                "activate_anyway": false, "hosts": 2, "hosts_acknowledged": 1, "hosts_waiting": ["a"],
                "hosts_quarantined": [], "hosts_never_seen": [], "orders_under_way": 0}],
            "problem": stuck.then_some("the signer does not answer"),
        }))
        .unwrap()
    }

    fn user(hours: u64) -> WhoAmI {
        let expires: api::Timestamp = NOW.plus(DurationMs::from_secs(hours * 3600)).into();
        serde_json::from_value(json!({"name": "ada", "role": "admin", "expires_at": expires})).unwrap()
    }

    #[test]
    fn what_is_found_becomes_words() {
        let mut all = vec![
            sign_in(&user(100), NOW),
            sign_in(&user(3), NOW),
            version("0.2.9", "0.2.0"),
            version("0.3.0", "0.2.0"),
        ];
        all.extend([root_expiry(&fleet(300), NOW), root_expiry(&fleet(20), NOW), root_expiry(&fleet(0), NOW)]);
        all.extend(hosts(&[host(1, "connected", "0.2.0"), host(2, "revoked", "0.1.0")], "0.2.1"));
        let mut many: Vec<HostSummary> = (1..=9).map(|number| host(number, "offline", "0.1.0")).collect();
        many.extend([host(10, "quarantined", "0.2.0"), host(11, "offline", "")]);
        all.extend(hosts(&many, "0.2.1"));
        all.extend(keys(&key_list(false, 100), NOW));
        all.extend(keys(&key_list(true, 0), NOW));
        all.push(Finding::failed("reach", &Failure::new(Kind::Unreachable, "nobody answers").hint("start it")));
        expect_test::expect_file!["golden/doctor.txt"].assert_eq(&words(&all, Paint(false)));
    }
}
