//! `host retire`: a host leaves the fleet, and knows it.

use api::{HostDetail, HostStatus, OperationRequest};
use serde_json::json;

use crate::{
    app,
    arguments::{Retire, SomeHosts},
    client::Client,
    exit::{Ended, Failure, Kind},
    operation::{self, Wait},
    output::{Output, clean_line},
    prompt,
};

pub(crate) async fn run(output: &Output, client: &Client, choice: Retire) -> Result<Ended, Failure> {
    let Retire { name, dry_run, detach, yes } = choice;
    let host: HostDetail = client.get(&["hosts", name.as_str()]).await?;
    if let Some(failure) = hindrance(&host) {
        return Err(failure);
    }
    if !yes && !dry_run {
        let answer = prompt::line(&question(&host), "repeat the command with --yes to retire the host")?;
        if answer != name.as_str() {
            return Err(Failure::invalid(format!("that is not {name}; nothing was changed")));
        }
    }
    let hosts = SomeHosts { names: vec![name.clone()], selector: None };
    let mut request = app::request("host.retire", hosts, json!({}))?;
    request.dry_run = dry_run;
    let sent = operation::send(client, output, &OperationRequest::Single(request)).await?;
    let planning = if dry_run { "planning: " } else { "" };
    output.progress(format_args!("{planning}retiring {name} (operation {})", sent.operation_id));
    let ended = operation::finish(client, output, sent, Wait::unless(detach)).await?;
    operation::show(output, &ended, &[])
}

/// Why its agent cannot be told to leave now, and what can be done.
fn hindrance(host: &HostDetail) -> Option<Failure> {
    let name = &host.summary.name;
    let (why, hint) = match host.summary.status {
        HostStatus::Connected => return None,
        HostStatus::Offline => (
            format!("host {name} is offline, so its agent cannot be told to drop its orders and secrets"),
            format!("start the agent there, or shut the host out without it: `serverflow host revoke {name}`"),
        ),
        HostStatus::Quarantined => (
            format!("host {name} is in quarantine, and gets no orders"),
            format!("see `serverflow host quarantine list`, or shut the host out: `serverflow host revoke {name}`"),
        ),
        HostStatus::Revoked if host.retired => {
            (format!("host {name} has left the fleet already"), "nothing is left to be done".to_owned())
        }
        HostStatus::Revoked => (
            format!("host {name} is revoked: its agent is shut out, and hears nothing any more"),
            "on that machine, `serverflow-agent uninstall --purge` destroys what its agent keeps".to_owned(),
        ),
    };
    Some(Failure::new(Kind::NotWell, why).hint(hint))
}

fn question(host: &HostDetail) -> String {
    let name = &host.summary.name;
    let apps = if host.apps.is_empty() {
        "no apps run there".to_owned()
    } else {
        format!("its apps run on there without anybody who looks after them: {}", clean_line(&host.apps.join(", ")))
    };
    format!(
        "{name} will leave the fleet for good. Its agent waits until nothing else runs, drops its orders and the keys to its \
         secrets, and ends; {apps}.\nType its name to go on: "
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::{NOW, id};

    fn host(status: &str, retired: bool) -> HostDetail {
        serde_json::from_value(json!({
            "id": id(1), "name": "web-1", "status": status, "roles": [], "agent_version": "0.2.0", "last_seen": null,
            "enrolled_at": api::Timestamp(NOW).to_string(), "host_epoch": 1, "identity_key": "", "sealing_key": "",
            "receipt": "", "root_version": 1, "highest_sequence": 9, "acknowledged_sequence": 8,
            "last_report_sequence": 5, "retired": retired, "actions": [], "apps": ["shop"],
        }))
        .expect("a host")
    }

    #[test]
    fn a_host_that_cannot_be_told_is_named_with_what_can_be_done() {
        assert!(hindrance(&host("connected", false)).is_none());
        for (status, retired, words) in [
            ("offline", false, "serverflow host revoke web-1"),
            ("quarantined", false, "host quarantine list"),
            ("revoked", false, "uninstall --purge"),
            ("revoked", true, "has left the fleet already"),
        ] {
            let failure = hindrance(&host(status, retired)).map(|failure| format!("{failure:?}")).unwrap_or_default();
            assert!(failure.contains(words), "{status}: {failure}");
        }
        assert!(question(&host("connected", false)).contains("shop"));
    }
}
