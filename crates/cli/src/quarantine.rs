//! `host quarantine …`

use api::{HostDetail, HostQuarantine, HostReleaseRequest, HostReleaseResponse, HostStatus, HostSummary};
use ids::{HostName, QuarantineId, UnixMs};
use serde::Serialize;
use tokio::time::{Instant, sleep};

use crate::{
    arguments::Quarantine,
    client::Client,
    clock,
    exit::{Ended, Failure, Kind},
    limits, list,
    output::{Output, Paint, clean_line},
    prompt,
    spans::relative,
};

/// What `host quarantine release` prints as JSON.
#[derive(Serialize)]
struct Released<'a> {
    name: &'a HostName,
    status: HostStatus,
    /// It ends with the next session of its agent.
    is_pending: bool,
}

pub(crate) async fn run(output: &Output, client: &Client, verb: Quarantine) -> Result<Ended, Failure> {
    match verb {
        Quarantine::List => {
            let query = [("status", "quarantined".to_owned())];
            let hosts: Vec<HostSummary> = list::items(client, &["hosts"], &query, None).await?;
            let mut found = Vec::new();
            for host in hosts {
                found.push(client.get::<HostDetail>(&["hosts", host.name.as_str()]).await?);
            }
            output.result(&found, |found, paint| list_words(found, clock::now(), paint))?;
            Ok(Ended::Well)
        }
        Quarantine::Release { name, quarantine, yes } => release(output, client, &name, quarantine, yes).await,
    }
}

fn list_words(hosts: &[HostDetail], now: UnixMs, paint: Paint) -> String {
    if hosts.is_empty() {
        return "no host is in quarantine\n".to_owned();
    }
    let found = hosts.iter().filter_map(|host| host.quarantine.as_ref().map(|quarantine| (host, quarantine)));
    found.map(|(host, quarantine)| one_words(host, quarantine, now, paint)).collect()
}

/// What is known of one quarantine.
fn one_words(host: &HostDetail, quarantine: &HostQuarantine, now: UnixMs, paint: Paint) -> String {
    let since = quarantine.since.map_or(String::new(), |since| format!(", quarantined {}", relative(now, since.0)));
    let alarm = if quarantine.is_alarm { " (an alarm: only an owner ends it)" } else { "" };
    let why = clean_line(host.quarantine_reason.as_deref().unwrap_or_default());
    let mut text = format!("{}{since}{alarm}\n  {why}\n", paint.bold(&host.summary.name));
    text.push_str(&format!(
        "  on record: orders up to {} given a number, {} acknowledged, reports up to {}\n",
        host.highest_sequence, host.acknowledged_sequence, host.last_report_sequence
    ));
    for agent in &quarantine.agents {
        let asked = if quarantine.release == Some(agent.quarantine_id) { ", its release was asked for" } else { "" };
        text.push_str(&format!(
            "  its agent: in quarantine {} {}, boot {}; orders up to {}, reports up to {}{asked}\n",
            agent.quarantine_id,
            relative(now, agent.seen_at.0),
            agent.boot_id,
            agent.highest_sequence,
            agent.last_report_sequence
        ));
        if let Some(hindrance) = &agent.hindrance {
            text.push_str(&format!("    it cannot be released: {}\n", clean_line(hindrance)));
        }
    }
    match quarantine.agents.len() {
        0 => text.push_str("  no agent has said yet that it knows of it\n"),
        1 => {}
        _ => text.push_str("  several machines say that they are this host: see that all but one never come back\n"),
    }
    text
}

/// What whoever releases it gives up.
fn given_up(quarantine: &HostQuarantine) -> String {
    format!(
        "{} of the orders sent to it have no end. They, and whatever else it did and never reported, may have run; \
         none of it is run again, and what its state cannot tell ends as unknown. It gets new keys.",
        quarantine.commands_open
    )
}

async fn release(
    output: &Output,
    client: &Client,
    name: &HostName,
    quarantine: Option<QuarantineId>,
    yes: bool,
) -> Result<Ended, Failure> {
    let path = ["hosts", name.as_str()];
    let host: HostDetail = client.get(&path).await?;
    let Some(found) = &host.quarantine else {
        return Err(Failure::new(Kind::NotWell, format!("host {name} is not in quarantine; nothing was changed")));
    };
    if !yes {
        output.progress(format_args!("{}", one_words(&host, found, clock::now(), Paint(false)).trim_end()));
        let question = format!("{}\nType its name to let it come back: ", given_up(found));
        let answer = prompt::line(&question, "repeat the command with --yes to release the host")?;
        if answer != name.as_str() {
            return Err(Failure::invalid(format!("that is not {name}; nothing was changed")));
        }
    }
    let until = Instant::now() + limits::RELEASE_WAIT;
    let mut request = HostReleaseRequest { quarantine_id: quarantine };
    let mut asked: HostReleaseResponse =
        client.post(&["hosts", name.as_str(), "quarantine", "release"], &request).await?;
    loop {
        let now: HostDetail = client.get(&path).await?;
        let agents = now.quarantine.as_ref().map(|quarantine| quarantine.agents.as_slice());
        match agents {
            None => return said(output, name, now.summary.status, false),
            // Its agent was told, and has said which quarantine it is in.
            Some([only]) if asked.quarantine_id.is_none() => {
                request.quarantine_id = Some(only.quarantine_id);
                asked = client.post(&["hosts", name.as_str(), "quarantine", "release"], &request).await?;
            }
            Some(_) if Instant::now() >= until => return said(output, name, now.summary.status, true),
            Some(_) => sleep(limits::BACKOFF_FIRST).await,
        }
    }
}

fn said(output: &Output, name: &HostName, status: HostStatus, is_pending: bool) -> Result<Ended, Failure> {
    output.result(&Released { name, status, is_pending }, |_, _| {
        if is_pending {
            format!(
                "{name} is released with the next session of its agent, which has not come yet: see that it runs \
                 (`serverflow-agent doctor` there), and look again with `serverflow host quarantine list`\n"
            )
        } else {
            format!("{name} is in quarantine no more, and has new keys\n")
        }
    })?;
    Ok(Ended::Well)
}

#[cfg(test)]
mod tests {
    use api::{QuarantinedAgent, Timestamp};

    use super::*;
    use crate::sample::{NOW, id};

    #[test]
    fn what_is_known_and_what_is_given_up_is_said() {
        let agent = |n: u8, hindrance: Option<&str>| QuarantinedAgent {
            quarantine_id: QuarantineId::from_bytes([n; 16]),
            seen_at: Timestamp(NOW),
            boot_id: ids::BootId::from_bytes([n; 16]),
            host_epoch: 1,
            highest_sequence: 7,
            last_report_sequence: 3,
            hindrance: hindrance.map(str::to_owned),
        };
        let mut quarantine = HostQuarantine {
            since: Some(Timestamp(UnixMs(NOW.0 - 3 * 3_600_000))),
            is_alarm: true,
            release: Some(QuarantineId::from_bytes([1; 16])),
            agents: vec![agent(1, None), agent(2, Some("it has old keys"))],
            commands_open: 4,
        };
        let host: HostDetail = serde_json::from_value(serde_json::json!({
            "id": id(1), "name": "web-1", "status": "quarantined", "roles": [], "agent_version": "0.2.0",
            "last_seen": null, "enrolled_at": Timestamp(NOW).to_string(), "host_epoch": 1, "identity_key": "",
            "sealing_key": "", "receipt": "", "root_version": 1, "highest_sequence": 9, "acknowledged_sequence": 8,
            "last_report_sequence": 5, "quarantine_reason": "its state is an old copy", "actions": [], "apps": [],
        }))
        .expect("a host");
        let words = one_words(&host, &quarantine, NOW, Paint(false));
        for part in [
            "web-1, quarantined 3 h ago (an alarm: only an owner ends it)",
            "its state is an old copy",
            "orders up to 9 given a number, 8 acknowledged, reports up to 5",
            "orders up to 7, reports up to 3, its release was asked for",
            "it cannot be released: it has old keys",
            "several machines",
        ] {
            assert!(words.contains(part), "{part} is missing in:\n{words}");
        }
        assert!(given_up(&quarantine).starts_with("4 of the orders sent to it have no end."));
        quarantine.agents.clear();
        assert!(one_words(&host, &quarantine, NOW, Paint(false)).contains("no agent has said yet"));
        assert_eq!(list_words(&[], NOW, Paint(false)), "no host is in quarantine\n");
    }
}
