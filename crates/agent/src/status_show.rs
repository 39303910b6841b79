//! `serverflow-agent status`: how the agent stands, from its status file and the process table.

use std::process::ExitCode;

use host::clock;
use ids::{DurationMs, UnixMs};
use serde_json::json;

use crate::{
    failure::{Failure, FailureKind, printable},
    state_dir::{Enrolment, StateDir},
    status::{ConnectionStatus, StandingStatus, Status},
};

/// Says how it stands; the exit code says it to scripts.
pub(crate) fn status(state: &StateDir, as_json: bool) -> Result<ExitCode, Failure> {
    let enrolment = Enrolment::read(state).map_err(Failure::failed)?;
    let status = Status::read(state).map_err(Failure::failed)?;
    let running = status.as_ref().is_some_and(Status::is_alive);
    if as_json {
        let host = enrolment.as_ref().map(|it| json!({ "id": it.host, "name": it.name, "fleet": it.fleet }));
        println!("{}", json!({ "enrolled": host, "running": running, "last": status }));
    } else {
        let now = clock::wall_now();
        match (&enrolment, &status) {
            (None, _) => println!("This machine is not enrolled (state directory {}).", state.path().display()),
            (Some(enrolment), None) => {
                println!(
                    "Host '{}' ({}): the agent never ran here. Start it with `serverflow-agent run{}`.",
                    enrolment.name,
                    enrolment.host,
                    state.option()
                );
            }
            (Some(_), Some(status)) => {
                print!("{}", printable(&render(status, running, now, &state.option())));
            }
        }
    }
    Ok(exit_code(enrolment.is_some(), status.as_ref().filter(|_| running)))
}

fn exit_code(enrolled: bool, running: Option<&Status>) -> ExitCode {
    match running {
        Some(status) if enrolled && status.quarantine.is_none() && status.audit.refused.is_none() => {
            match status.connection {
                ConnectionStatus::Connected { .. } => ExitCode::SUCCESS,
                ConnectionStatus::Retired { .. } => FailureKind::Failed.exit_code(),
                _ => FailureKind::Unreachable.exit_code(),
            }
        }
        _ => FailureKind::Failed.exit_code(),
    }
}

fn render(status: &Status, running: bool, now: UnixMs, option: &str) -> String {
    let mut lines = Vec::new();
    let mut line = |name: &str, value: String| lines.push(format!("  {name:<12} {value}"));
    let ago = |at: UnixMs| format!("{} ago", now.since(at));
    let agent = if let ConnectionStatus::Retired { since } = status.connection {
        format!(
            "left its fleet {}: its orders and the keys to its secrets are gone, its containers run on. It never dials \
             again; `serverflow-agent uninstall{option} --purge` removes what is left of it",
            ago(since)
        )
    } else if running {
        format!("version {}, pid {}, started {}", status.agent_version, status.pid, ago(status.started_at))
    } else {
        format!("not running; start it with `serverflow-agent run{option}`. What follows is how it was")
    };
    line("Agent", agent);
    line("Connection", connection(&status.connection, now));
    if let Some(id) = status.quarantine {
        line("Quarantine", format!("{id}: no order runs. `serverflow host quarantine list` says what can be done"));
    }
    if let Some(refused) = &status.audit.refused {
        let since = ago(refused.since);
        line(
            "Audit log",
            format!("REFUSED {since}, no order runs: {}. Find out what happened to the control plane", refused.why),
        );
    } else if let Some(seen) = status.audit.seen {
        line("Audit log", format!("{seen} entries seen"));
    }
    let commands = &status.commands;
    line("Commands", format!("{} running, {} without an end", commands.running.len(), commands.open));
    line("Reports", format!("{} waiting for the control plane", status.reports_waiting));
    for order in &status.standing {
        line("Standing", standing(order));
    }
    if let Some(root) = status.root {
        let left = DurationMs(root.expires.since(now).0);
        line("Root", format!("version {}, valid for {left}", root.version));
    }
    let policy = match &status.policy.error {
        None => status.policy.path.display().to_string(),
        Some(error) => format!("EVERYTHING IS REFUSED: {error}"),
    };
    line("Policy", policy);
    format!("Host '{}' ({})\n{}\n", status.name, status.host, lines.join("\n"))
}

/// A standing order, and why it does not run.
fn standing(order: &StandingStatus) -> String {
    let StandingStatus { standing_order, action, schedule, zone, hindrance, .. } = order;
    let what = format!("{standing_order} {action} at \"{schedule}\" ({zone})");
    match hindrance {
        None => what,
        Some(why) => format!("{what}: DOES NOT RUN: {why}"),
    }
}

fn connection(connection: &ConnectionStatus, now: UnixMs) -> String {
    match connection {
        ConnectionStatus::Connecting => "connecting".to_owned(),
        ConnectionStatus::Authenticating { address } => format!("authenticating with {address}"),
        ConnectionStatus::Connected { address, since } => format!("connected to {address} for {}", now.since(*since)),
        ConnectionStatus::Disconnected { since, error, .. } => {
            format!("not connected for {}: {error}", now.since(*since))
        }
        ConnectionStatus::Stopped { since } => format!("ended in order {} ago", now.since(*since)),
        ConnectionStatus::Retired { .. } => "none any more".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use ids::{CommandId, FleetId, HostId, QuarantineId, Revision, RootVersion, StandingOrderId};

    use super::*;
    use crate::status::{AuditRefusal, AuditStatus, CommandsStatus, PolicyStatus, RootStatus};

    fn connected() -> Status {
        Status {
            agent_version: "1.2.3".to_owned(),
            fleet: FleetId::from_bytes([1; 16]),
            host: HostId::from_bytes([2; 16]),
            name: "web1".parse().expect("a host's name"),
            pid: 42,
            process_start: Some(1),
            started_at: UnixMs(0),
            updated_at: UnixMs(0),
            connection: ConnectionStatus::Connected {
                address: "control.example:7443".to_owned(),
                since: UnixMs(60_000),
            },
            clock: None,
            quarantine: None,
            audit: AuditStatus { seen: Some(17), refused: None },
            commands: CommandsStatus { open: 2, running: vec![CommandId::from_bytes([3; 16])] },
            reports_waiting: 1,
            root: Some(RootStatus { version: RootVersion(3), expires: UnixMs(86_400_000 * 100) }),
            directions: None,
            policy: PolicyStatus { path: "/etc/policy.toml".into(), error: None },
            standing: Vec::new(),
        }
    }

    #[test]
    fn a_connected_agent_in_words() {
        let text = render(&connected(), true, UnixMs(3_600_000 * 3), "");
        expect![[r"
            Host 'web1' (02020202-0202-0202-0202-020202020202)
              Agent        version 1.2.3, pid 42, started 3 h ago
              Connection   connected to control.example:7443 for 2 h
              Audit log    17 entries seen
              Commands     1 running, 2 without an end
              Reports      1 waiting for the control plane
              Root         version 3, valid for 99 days
              Policy       /etc/policy.toml
        "]]
        .assert_eq(&text);
    }

    #[test]
    fn a_stopped_quarantined_one_with_a_broken_policy_in_words() {
        let mut status = connected();
        status.connection = ConnectionStatus::Stopped { since: UnixMs(0) };
        status.quarantine = Some(QuarantineId::from_bytes([4; 16]));
        status.policy.error = Some("line 3".to_owned());
        let text = render(&status, false, UnixMs(30_000), " --state-dir /x");
        assert!(
            text.contains("with `serverflow-agent run --state-dir /x`") && text.contains("ended in order 30 s ago"),
            "{text}"
        );
        assert!(text.contains("EVERYTHING IS REFUSED: line 3") && text.contains("04040404"), "{text}");
    }

    #[test]
    fn one_that_has_left_its_fleet_says_so() {
        let mut status = connected();
        status.connection = ConnectionStatus::Retired { since: UnixMs(0) };
        let text = render(&status, false, UnixMs(30_000), "");
        assert!(text.contains("left its fleet 30 s ago") && text.contains("uninstall --purge"), "{text}");
        assert!(!text.contains("serverflow-agent run"), "nobody is to start it: {text}");
        assert_eq!(exit_code(true, Some(&status)), ExitCode::from(1));
    }

    #[test]
    fn standing_orders_are_listed_with_what_keeps_them() {
        let mut status = connected();
        let order = StandingStatus {
            standing_order: StandingOrderId::from_bytes([5; 16]),
            action: "app.restart".parse().expect("an action's name"),
            action_version: 1,
            revision: Revision(7),
            schedule: "30 3 * * *".to_owned(),
            zone: "UTC".to_owned(),
            valid_until: UnixMs(0),
            hindrance: None,
        };
        let kept = StandingStatus { hindrance: Some("it was valid until 1 s ago".to_owned()), ..order.clone() };
        status.standing = vec![order, kept];
        let text = render(&status, true, UnixMs(30_000), "");
        let line = "Standing     05050505-0505-0505-0505-050505050505 app.restart at \"30 3 * * *\" (UTC)";
        assert!(text.contains(&format!("{line}\n")), "{text}");
        assert!(text.contains(&format!("{line}: DOES NOT RUN: it was valid until 1 s ago\n")), "{text}");
    }

    #[test]
    fn a_log_that_does_not_continue_is_said() {
        let mut status = connected();
        status.audit.refused = Some(AuditRefusal { since: UnixMs(0), why: "it was cut".to_owned() });
        let text = render(&status, true, UnixMs(30_000), "");
        assert!(text.contains("Audit log    REFUSED 30 s ago, no order runs: it was cut"), "{text}");
        assert_eq!(exit_code(true, Some(&status)), ExitCode::from(1));
    }

    #[test]
    fn scripts_can_tell_the_states_apart() {
        let code = |status: Option<&Status>| exit_code(true, status);
        assert_eq!(code(Some(&connected())), ExitCode::SUCCESS);
        assert_eq!(code(None), ExitCode::from(1));
        let mut status = connected();
        status.connection = ConnectionStatus::Connecting;
        assert_eq!(code(Some(&status)), ExitCode::from(4));
        status.quarantine = Some(QuarantineId::from_bytes([4; 16]));
        assert_eq!(code(Some(&status)), ExitCode::from(1));
    }
}
