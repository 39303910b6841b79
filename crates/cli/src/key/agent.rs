//! `key rotate agent`: hosts get new keys, wave after wave.

use std::collections::BTreeSet;

use api::{CommandStatus, HostStatus, HostSummary, OperationRequest, OperationResponse, SingleRequest};
use ids::HostName;
use serde::Serialize;

use crate::{
    arguments::RotateAgent,
    client::Client,
    clock,
    exit::{Ended, Failure},
    list,
    operation::{self, Wait},
    output::{Output, Paint, clean_line},
};

/// What `key rotate agent` prints as JSON.
#[derive(Default, Serialize)]
struct Rotated {
    rotated: Vec<HostName>,
    failed: Vec<NotRotated>,
    /// Not begun: away, in quarantine, or of a wave behind one that failed.
    left: Vec<NotRotated>,
}

/// A host that has its old keys.
#[derive(Serialize)]
struct NotRotated {
    host: HostName,
    why: String,
}

pub(super) async fn rotate(output: &Output, client: &Client, choice: RotateAgent) -> Result<Ended, Failure> {
    let mut rotated = Rotated::default();
    let hosts = if choice.all { connected(client, &mut rotated.left).await? } else { choice.hosts };
    let hosts: BTreeSet<HostName> = hosts.into_iter().collect();
    let hosts: Vec<HostName> = hosts.into_iter().collect();
    let waves: Vec<&[HostName]> = hosts.chunks(usize::try_from(choice.wave).unwrap_or(usize::MAX)).collect();
    for (at, wave) in waves.iter().enumerate() {
        if !rotated.failed.is_empty() {
            let why = "a wave before its own failed";
            rotated.left.extend(wave.iter().map(|host| NotRotated { host: host.clone(), why: why.to_owned() }));
            continue;
        }
        output.progress(format_args!("wave {} of {}: {} hosts", at + 1, waves.len(), wave.len()));
        let request = SingleRequest {
            operation_id: clock::operation_id()?,
            action: "host.keys.rotate".to_owned(),
            hosts: wave.to_vec(),
            selector: None,
            parameters: serde_json::json!({}),
            sealed: Default::default(),
            dry_run: false,
            queue_for_seconds: choice.queue_for,
        };
        let sent = operation::send(client, output, &OperationRequest::Single(request)).await?;
        take(&mut rotated, operation::finish(client, output, sent, Wait::ToEnd).await?);
    }
    output.result(&rotated, words)?;
    Ok(Ended::well_if(rotated.failed.is_empty()))
}

/// Names of hosts with a session; those that have none, and why they are left, go to `left`.
async fn connected(client: &Client, left: &mut Vec<NotRotated>) -> Result<Vec<HostName>, Failure> {
    let mut names = Vec::new();
    for host in list::items::<HostSummary>(client, &["hosts"], &[], None).await? {
        match host.status {
            HostStatus::Connected => names.push(host.name),
            HostStatus::Offline => left.push(NotRotated { host: host.name, why: "it is offline".to_owned() }),
            HostStatus::Quarantined => left.push(NotRotated { host: host.name, why: "it is in quarantine".to_owned() }),
            HostStatus::Revoked => {}
        }
    }
    Ok(names)
}

fn take(rotated: &mut Rotated, ended: OperationResponse) {
    for command in ended.commands {
        if command.status == CommandStatus::Succeeded {
            rotated.rotated.push(command.host);
        } else {
            let why = format!("{}: {}", command.status.as_str(), command.message);
            rotated.failed.push(NotRotated { host: command.host, why });
        }
    }
}

fn words(rotated: &Rotated, paint: Paint) -> String {
    let count = rotated.rotated.len();
    let mut text = format!("{count} {} new keys\n", if count == 1 { "host has" } else { "hosts have" });
    for (what, hosts) in [("failed", &rotated.failed), ("left as they are", &rotated.left)] {
        if !hosts.is_empty() {
            text.push_str(&format!("{what}:\n"));
        }
        for NotRotated { host, why } in hosts {
            text.push_str(&format!("  {}: {}\n", paint.bold(host), clean_line(why)));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_new_keys_and_who_has_not_is_said_with_the_reason() {
        let host = |name: &str| name.parse::<HostName>().unwrap();
        let not = |name: &str, why: &str| NotRotated { host: host(name), why: why.to_owned() };
        let rotated = Rotated {
            rotated: vec![host("a")],
            failed: vec![not("b", "rejected: policy")],
            left: vec![not("c", "it is offline")],
        };
        let expected = "1 host has new keys\nfailed:\n  b: rejected: policy\nleft as they are:\n  c: it is offline\n";
        assert_eq!(words(&rotated, Paint(false)), expected);
        assert_eq!(words(&Rotated::default(), Paint(false)), "0 hosts have new keys\n");
    }
}
