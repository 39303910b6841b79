//! `host …`

use anstyle::{AnsiColor, Style};
use api::{HostDetail, HostStatus, HostSummary, JoinTokenRequest, JoinTokenResponse};
use ids::{HostName, Role, UnixMs};
use serde::Serialize;

use crate::{
    arguments::Host,
    client::Client,
    clock,
    exit::{Ended, Failure},
    output::{Output, Paint, clean_line},
    prompt,
    spans::relative,
    table::{Cell, Table, fields},
};

pub(crate) async fn run(output: &Output, client: &Client, verb: Host) -> Result<Ended, Failure> {
    match verb {
        Host::Enroll { name, ttl, roles } => enroll(output, client, name, ttl, roles).await,
        Host::List => {
            let hosts: Vec<HostSummary> = client.get(&["hosts"]).await?;
            output.result(&hosts, |hosts, paint| list_words(hosts, clock::now(), paint))?;
            Ok(Ended::Well)
        }
        Host::Show { name } => {
            let host: HostDetail = client.get(&["hosts", name.as_str()]).await?;
            output.result(&host, |host, paint| show_words(host, clock::now(), paint))?;
            Ok(Ended::Well)
        }
        Host::Revoke { name, yes } => revoke(output, client, &name, yes).await,
    }
}

async fn enroll(
    output: &Output,
    client: &Client,
    name: HostName,
    ttl_seconds: u64,
    roles: Vec<Role>,
) -> Result<Ended, Failure> {
    let request = JoinTokenRequest { name, roles, ttl_seconds: Some(ttl_seconds) };
    let token: JoinTokenResponse = client.post(&["hosts"], &request).await?;
    output.result(&token, |token, paint| enroll_words(token, clock::now(), paint))?;
    Ok(Ended::Well)
}

fn enroll_words(token: &JoinTokenResponse, now: UnixMs, paint: Paint) -> String {
    format!(
        "Join token for {name}. It works once and ends {until}:\n\n  {token}\n\n\
         On the new host, as root:\n\n  serverflow-agent enroll --token-file -    # paste the token, then Enter and Ctrl-D\n  serverflow-agent run\n",
        name = paint.bold(&token.name),
        until = relative(now, token.expires_at.0),
        token = clean_line(&token.token),
    )
}

/// What `host revoke` prints as JSON.
#[derive(Serialize)]
struct Revoked<'a> {
    name: &'a HostName,
    status: HostStatus,
}

async fn revoke(output: &Output, client: &Client, name: &HostName, yes: bool) -> Result<Ended, Failure> {
    if !yes {
        let question = format!(
            "{name} will be shut out for good and its queue cancelled; its containers keep running.\nType its name to go on: "
        );
        let answer = prompt::line(&question, "repeat the command with --yes to revoke the host")?;
        if answer != name.as_str() {
            return Err(Failure::invalid(format!("that is not {name}; nothing was changed")));
        }
    }
    client.delete(&["hosts", name.as_str()]).await?;
    output.result(&Revoked { name, status: HostStatus::Revoked }, |_, _| {
        format!("{name} is revoked: its agent gets no orders any more. To use the machine again, enrol it anew\n")
    })?;
    Ok(Ended::Well)
}

/// A host's status in one word.
pub(crate) const fn status_word(status: HostStatus) -> &'static str {
    match status {
        HostStatus::Connected => "connected",
        HostStatus::Offline => "offline",
        HostStatus::Quarantined => "quarantined",
        HostStatus::Revoked => "revoked",
    }
}

const fn status_style(status: HostStatus) -> Style {
    match status {
        HostStatus::Connected => AnsiColor::Green.on_default(),
        HostStatus::Offline => AnsiColor::Yellow.on_default(),
        HostStatus::Quarantined => AnsiColor::Red.on_default(),
        HostStatus::Revoked => Style::new().dimmed(),
    }
}

fn roles_words(roles: &[Role]) -> String {
    roles.iter().map(|role| role.as_str()).collect::<Vec<_>>().join(", ")
}

fn seen_words(host: &HostSummary, now: UnixMs) -> String {
    match (host.status, host.last_seen) {
        (HostStatus::Connected, _) => "now".to_owned(),
        (_, Some(time)) => relative(now, time.0),
        (_, None) => "never".to_owned(),
    }
}

fn list_words(hosts: &[HostSummary], now: UnixMs, paint: Paint) -> String {
    let mut table = Table::new(["NAME", "STATUS", "ROLES", "AGENT", "LAST SEEN"]);
    for host in hosts {
        table.row([
            host.name.to_string().into(),
            Cell::styled(status_word(host.status), status_style(host.status)),
            roles_words(&host.roles).into(),
            host.agent_version.clone().into(),
            seen_words(host, now).into(),
        ]);
    }
    table.render(paint, "no hosts yet; enrol one with `serverflow host enroll NAME`")
}

fn show_words(host: &HostDetail, now: UnixMs, paint: Paint) -> String {
    let summary = &host.summary;
    let status = paint.on(status_style(summary.status), status_word(summary.status));
    let or_none = |text: String| if text.is_empty() { "-".to_owned() } else { clean_line(&text) };
    let mut rows = vec![
        ("name", summary.name.to_string()),
        ("status", status),
        ("id", summary.id.to_string()),
        ("roles", or_none(roles_words(&summary.roles))),
        ("apps", or_none(host.apps.join(", "))),
        ("actions", or_none(host.actions.join(", "))),
        ("agent", or_none(summary.agent_version.clone())),
        ("last seen", seen_words(summary, now)),
        ("enrolled", format!("{} ({})", relative(now, host.enrolled_at.0), host.enrolled_at)),
        ("identity key", clean_line(&host.identity_key)),
        ("sealing key", clean_line(&host.sealing_key)),
        ("root version", host.root_version.to_string()),
        ("orders", format!("{} given a number, {} acknowledged", host.highest_sequence, host.acknowledged_sequence)),
        ("last report", host.last_report_sequence.to_string()),
    ];
    if let Some(why) = &host.quarantine_reason {
        rows.insert(2, ("why", clean_line(why)));
    }
    fields(paint, &rows)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::sample::{self, NOW};

    fn summary(name: &str, status: &str, seen: Option<u64>) -> serde_json::Value {
        let seen = seen.map(|before| api::Timestamp(UnixMs(NOW.0 - before)).to_string());
        json!({"id": sample::id(1), "name": name, "status": status, "roles": ["app", "dns"],
               "agent_version": "0.1.0", "last_seen": seen})
    }

    #[test]
    fn hosts_stand_in_a_table() {
        let hosts: Vec<HostSummary> = serde_json::from_value(json!([
            summary("web-1", "connected", Some(0)),
            summary("a-much-longer-name", "offline", Some(3_600_000 * 3)),
            summary("new", "offline", None),
        ]))
        .unwrap();
        let expected = expect_test::expect![[r"
            NAME                STATUS     ROLES     AGENT  LAST SEEN
            web-1               connected  app, dns  0.1.0  now
            a-much-longer-name  offline    app, dns  0.1.0  3 h ago
            new                 offline    app, dns  0.1.0  never
        "]];
        expected.assert_eq(&list_words(&hosts, NOW, Paint(false)));
        assert!(list_words(&[], NOW, Paint(false)).starts_with("no hosts yet"));
    }

    #[test]
    fn one_host_is_shown_with_why_it_is_quarantined() {
        let mut value = summary("web-1", "quarantined", Some(60_000));
        let more = json!({
            "enrolled_at": "2023-11-13T22:13:20.000Z", "host_epoch": 1, "identity_key": "aWQ=", "sealing_key": "c2U=",
            "receipt": "cmU=", "root_version": 1, "highest_sequence": 7, "acknowledged_sequence": 6,
            "last_report_sequence": 5, "quarantine_reason": "its state was restored from an old copy",
            "actions": ["app.deploy@1", "host.facts@1"], "apps": [],
        });
        for (key, field) in more.as_object().unwrap() {
            value[key] = field.clone();
        }
        let host: HostDetail = serde_json::from_value(value).unwrap();
        let expected = expect_test::expect![[r"
            name          web-1
            status        quarantined
            why           its state was restored from an old copy
            id            00000000-0000-7000-8000-000000000001
            roles         app, dns
            apps          -
            actions       app.deploy@1, host.facts@1
            agent         0.1.0
            last seen     60 s ago
            enrolled      24 h ago (2023-11-13T22:13:20.000Z)
            identity key  aWQ=
            sealing key   c2U=
            root version  1
            orders        7 given a number, 6 acknowledged
            last report   5
        "]];
        expected.assert_eq(&show_words(&host, NOW, Paint(false)));
    }
}
