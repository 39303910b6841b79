//! `host …`

use std::collections::BTreeMap;

use anstyle::{AnsiColor, Style};
use api::{
    AgentProgram, AgentRelease, HostDetail, HostLabelRequest, HostRenameRequest, HostStatus, HostSummary,
    JoinTokenRequest, JoinTokenResponse,
};
use ids::{HostName, LabelKey, LabelValue, Role, UnixMs};
use reqwest::Url;
use serde::Serialize;

use crate::{
    arguments::{AgentSource, Host},
    client::Client,
    clock,
    exit::{Ended, Failure, Kind},
    join::{self, Join},
    limits,
    list::{self, part},
    output::{Output, Paint, clean_line},
    prompt, quarantine, retire, session_file,
    spans::relative,
    table::{Cell, Table, fields},
};

pub(crate) async fn run(output: &Output, client: &Client, verb: Host) -> Result<Ended, Failure> {
    match verb {
        Host::Enroll { name, ttl, roles, token_only, source } => {
            let request = JoinTokenRequest { name, roles, ttl_seconds: Some(ttl) };
            enroll(output, client, &request, (!token_only).then_some(&source)).await
        }
        Host::Upgrade { name, source } => upgrade(output, client, &name, &source).await,
        Host::List(choice) => {
            let query = [
                choice.status.map(|status| ("status", status_word(status).to_owned())),
                choice.selector().map(|selector| ("selector", selector)),
                part("app", choice.app.as_ref()),
                choice.extent.sort(),
            ];
            let query: Vec<_> = query.into_iter().flatten().collect();
            let hosts: Vec<HostSummary> = list::items(client, &["hosts"], &query, choice.extent.most()).await?;
            let is_filtered = !query.is_empty();
            output.result(&hosts, |hosts, paint| list_words(hosts, is_filtered, clock::now(), paint))?;
            Ok(Ended::Well)
        }
        Host::Show { name } => {
            let host: HostDetail = client.get(&["hosts", name.as_str()]).await?;
            output.result(&host, |host, paint| show_words(host, clock::now(), paint))?;
            Ok(Ended::Well)
        }
        Host::Rename { name, new } => {
            let request = HostRenameRequest { name: new };
            let host: HostSummary = client.post(&["hosts", name.as_str(), "rename"], &request).await?;
            output.result(&host, |host, paint| format!("{name} is now {}\n", paint.bold(&host.name)))?;
            Ok(Ended::Well)
        }
        Host::Label { name, labels } => {
            let request = HostLabelRequest { labels: labels.into_iter().collect() };
            let host: HostSummary = client.patch(&["hosts", name.as_str(), "labels"], &request).await?;
            output.result(&host, |host, paint| {
                format!("{}: {}\n", paint.bold(&host.name), or_none(labels_words(&host.labels)))
            })?;
            Ok(Ended::Well)
        }
        Host::Quarantine(verb) => quarantine::run(output, client, verb).await,
        Host::Retire(choice) => retire::run(output, client, choice).await,
        Host::Revoke { name, yes } => revoke(output, client, &name, yes).await,
    }
}

/// What `host enroll` prints as JSON.
#[derive(Serialize)]
struct Enrolling<'a> {
    #[serde(flatten)]
    token: &'a JoinTokenResponse,
    /// The lines for the new machine; absent with `--token-only`.
    #[serde(skip_serializing_if = "Option::is_none")]
    install: Option<String>,
}

/// What `host upgrade` prints as JSON.
#[derive(Serialize)]
struct Upgrading<'a> {
    name: &'a HostName,
    install: String,
}

async fn enroll(
    output: &Output,
    client: &Client,
    request: &JoinTokenRequest,
    source: Option<&AgentSource>,
) -> Result<Ended, Failure> {
    // What is served is asked first: with another agent than the one that is wanted, no token is made.
    let served = match source {
        Some(source) => Some(served(client, source).await?).filter(|(_, programs)| !programs.is_empty()),
        None => None,
    };
    let token: JoinTokenResponse = client.post(&["hosts"], request).await?;
    let install = match &served {
        Some((url, programs)) => {
            let (purpose, name) = ("Make this machine the ServerFlow host", &token.name);
            let join = Join { purpose, name, url, ca: client.trusted(), programs, token: Some(&token.token) };
            join.caveats().iter().for_each(|caveat| output.progress(format_args!("note: {caveat}")));
            Some(join.lines()?)
        }
        None => {
            if source.is_some() {
                output.progress(format_args!("note: {}", join::NO_PROGRAMS));
            }
            None
        }
    };
    let enrolling = Enrolling { token: &token, install };
    output.result(&enrolling, |enrolling, paint| enroll_words(enrolling, clock::now(), paint))?;
    Ok(Ended::Well)
}

/// Where the machine fetches from, and which programs are there.
async fn served(client: &Client, source: &AgentSource) -> Result<(Url, Vec<AgentProgram>), Failure> {
    let url = source.from.as_deref().map_or_else(|| Ok(client.base().clone()), session_file::address)?;
    let mut programs: Vec<AgentProgram> = match client.get(&["agents"]).await {
        Ok(programs) => programs,
        // A control plane of before 0.2 has no such path.
        Err(failure) if failure.is_not_found() => Vec::new(),
        Err(failure) => return Err(failure),
    };
    if let Some(wanted) = source.agent_sha256 {
        programs.retain(|program| program.sha256 == wanted);
        if programs.is_empty() {
            let why = format!("the control plane serves no agent with the SHA-256 {wanted}, so no lines are printed");
            return Err(Failure::new(Kind::NotWell, why)
                .hint("ask whoever runs the control plane which agent it serves, and why it is another one"));
        }
    }
    Ok((url, programs))
}

fn enroll_words(enrolling: &Enrolling<'_>, now: UnixMs, paint: Paint) -> String {
    let token = enrolling.token;
    let (name, until) = (paint.bold(&token.name), relative(now, token.expires_at.0));
    match &enrolling.install {
        Some(lines) => format!(
            "On the new machine, as root, paste this. It makes it the host {name}, once, until its token ends {until};\n\
             afterwards the same lines install that agent again.\n\n{lines}\n"
        ),
        None => format!(
            "Join token for {name}. It works once and ends {until}:\n\n  {token}\n\n\
             On the new host, as root:\n\n  serverflow-agent enroll --token-file -    # paste the token, then Enter and Ctrl-D\n  serverflow-agent run\n",
            token = clean_line(&token.token),
        ),
    }
}

async fn upgrade(output: &Output, client: &Client, name: &HostName, source: &AgentSource) -> Result<Ended, Failure> {
    let host: HostDetail = client.get(&["hosts", name.as_str()]).await?;
    if host.summary.status == HostStatus::Revoked {
        return Err(Failure::new(Kind::NotWell, format!("host {name} is revoked; its agent is of no use any more"))
            .hint("enrol the machine anew with `serverflow host enroll NAME`"));
    }
    let (url, programs) = served(client, source).await?;
    let purpose = "Upgrade the agent of the ServerFlow host";
    let join = Join { purpose, name, url: &url, ca: client.trusted(), programs: &programs, token: None };
    join.caveats().iter().for_each(|caveat| output.progress(format_args!("note: {caveat}")));
    let upgrading = Upgrading { name, install: join.lines()? };
    output.result(&upgrading, |upgrading, paint| {
        let (name, version) = (paint.bold(name), clean_line(&host.summary.agent_version));
        format!("On {name}, whose agent has version {version}, as root, paste this:\n\n{}\n", upgrading.install)
    })?;
    Ok(Ended::Well)
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
        format!(
            "{name} is revoked: its agent gets no orders any more. Its containers run on there, until somebody on that \
             machine stops them. To use the machine again, enrol it anew\n"
        )
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

fn labels_words(labels: &BTreeMap<LabelKey, LabelValue>) -> String {
    labels.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(", ")
}

fn or_none(text: String) -> String {
    if text.is_empty() { "-".to_owned() } else { clean_line(&text) }
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

/// Its version, and in a word whether it goes with the control plane.
fn agent_words(host: &HostSummary) -> String {
    match host.agent_release {
        None => host.agent_version.clone(),
        Some(AgentRelease::Newer) => format!("{} (newer)", host.agent_version),
        Some(AgentRelease::TooOld) => format!("{} (too old)", host.agent_version),
    }
}

/// The same, with what to do.
fn release_words(host: &HostSummary) -> Option<String> {
    Some(match host.agent_release? {
        AgentRelease::Newer => {
            "of a later release than the control plane: it is asked for what both know. Upgrade the control plane"
                .to_owned()
        }
        AgentRelease::TooOld => format!(
            "more than one release behind the control plane, which is not supported. Upgrade it, release by release, \
             with the lines of `serverflow host upgrade {}`",
            host.name
        ),
    })
}

/// Whether its clock is so far off that somebody should see to it.
pub(crate) fn is_clock_wrong(host: &HostSummary) -> bool {
    let skew = host.clock_skew_ms.filter(|_| host.status != HostStatus::Revoked);
    skew.is_some_and(|skew| skew.unsigned_abs() > limits::CLOCK_SKEW_WARN.0)
}

fn clock_words(host: &HostSummary) -> String {
    match host.clock_skew_ms {
        None => "-".to_owned(),
        Some(skew) => {
            let side = if skew < 0 { "behind" } else { "ahead" };
            format!("{}.{:03} s {side}", skew.unsigned_abs() / 1000, skew.unsigned_abs() % 1000)
        }
    }
}

fn list_words(hosts: &[HostSummary], is_filtered: bool, now: UnixMs, paint: Paint) -> String {
    // Only where it says something: clocks are right, as a rule.
    let with_clocks = hosts.iter().any(is_clock_wrong);
    let mut table = if with_clocks {
        Table::new(["NAME", "STATUS", "ROLES", "LABELS", "AGENT", "LAST SEEN", "CLOCK"])
    } else {
        Table::new(["NAME", "STATUS", "ROLES", "LABELS", "AGENT", "LAST SEEN"])
    };
    for host in hosts {
        let cells: [Cell; 6] = [
            host.name.to_string().into(),
            Cell::styled(status_word(host.status), status_style(host.status)),
            roles_words(&host.roles).into(),
            labels_words(&host.labels).into(),
            agent_words(host).into(),
            seen_words(host, now).into(),
        ];
        if with_clocks {
            let [name, status, roles, labels, agent, seen] = cells;
            table.row([name, status, roles, labels, agent, seen, clock_words(host).into()]);
        } else {
            table.row(cells);
        }
    }
    let none = if is_filtered { "no such hosts" } else { "no hosts yet; enrol one with `serverflow host enroll NAME`" };
    table.render(paint, none)
}

fn show_words(host: &HostDetail, now: UnixMs, paint: Paint) -> String {
    let summary = &host.summary;
    let mut status = paint.on(status_style(summary.status), status_word(summary.status));
    if host.retired {
        status.push_str(" (retired: it left by itself, and its secrets are gone there)");
    }
    let mut rows = vec![
        ("name", summary.name.to_string()),
        ("status", status),
        ("id", summary.id.to_string()),
        ("roles", or_none(roles_words(&summary.roles))),
        ("labels", or_none(labels_words(&summary.labels))),
        ("apps", or_none(host.apps.join(", "))),
        ("actions", or_none(host.actions.join(", "))),
        ("agent", or_none(summary.agent_version.clone())),
        ("last seen", seen_words(summary, now)),
        ("clock", clock_words(summary)),
        ("enrolled", format!("{} ({})", relative(now, host.enrolled_at.0), host.enrolled_at)),
        ("identity key", clean_line(&host.identity_key)),
        ("keys since", keys_since_words(host, now)),
        ("sealing key", clean_line(&host.sealing_key)),
        ("root version", host.root_version.to_string()),
        ("orders", format!("{} given a number, {} acknowledged", host.highest_sequence, host.acknowledged_sequence)),
        ("last report", host.last_report_sequence.to_string()),
    ];
    if let Some(what) = release_words(summary) {
        rows.insert(8, ("", what));
    }
    if let Some(why) = &host.quarantine_reason {
        rows.insert(2, ("why", clean_line(why)));
    }
    fields(paint, &rows)
}

/// How old its keys are; a control plane of before does not say.
fn keys_since_words(host: &HostDetail, now: UnixMs) -> String {
    let since = host.keys_since.map(|since| format!("{} ({since})", relative(now, since.0)));
    since.unwrap_or_else(|| "-".to_owned())
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

    fn with(mut host: serde_json::Value, agent_release: &str) -> serde_json::Value {
        host["agent_release"] = agent_release.into();
        host
    }

    #[test]
    fn hosts_stand_in_a_table() {
        let hosts: Vec<HostSummary> = serde_json::from_value(json!([
            summary("web-1", "connected", Some(0)),
            summary("a-much-longer-name", "offline", Some(3_600_000 * 3)),
            with(summary("new", "offline", None), "too_old"),
            with(summary("next", "connected", Some(0)), "newer"),
        ]))
        .unwrap();
        let expected = expect_test::expect![[r#"
            NAME                STATUS     ROLES     LABELS  AGENT            LAST SEEN
            web-1               connected  app, dns  -       0.1.0            now
            a-much-longer-name  offline    app, dns  -       0.1.0            3 h ago
            new                 offline    app, dns  -       0.1.0 (too old)  never
            next                connected  app, dns  -       0.1.0 (newer)    now
        "#]];
        expected.assert_eq(&list_words(&hosts, false, NOW, Paint(false)));
        assert!(list_words(&[], false, NOW, Paint(false)).starts_with("no hosts yet"));
        assert_eq!(list_words(&[], true, NOW, Paint(false)), "no such hosts\n");
    }

    #[test]
    fn clocks_are_shown_when_one_is_wrong() {
        let with_clock = |name: &str, skew: i64| {
            let mut host = summary(name, "connected", Some(0));
            host["clock_skew_ms"] = skew.into();
            host
        };
        let words = |skews: [i64; 2]| {
            let hosts = json!([with_clock("a", skews[0]), with_clock("b", skews[1])]);
            list_words(&serde_json::from_value::<Vec<HostSummary>>(hosts).unwrap(), false, NOW, Paint(false))
        };
        assert!(!words([30_000, -30_000]).contains("CLOCK"));
        let wrong = words([-30_001, 5]);
        assert!(
            wrong.contains("CLOCK") && wrong.contains("30.001 s behind") && wrong.contains("0.005 s ahead"),
            "{wrong}"
        );
    }

    #[test]
    fn one_host_is_shown_with_why_it_is_quarantined() {
        let mut value = with(summary("web-1", "quarantined", Some(60_000)), "newer");
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
        let expected = expect_test::expect![[r#"
            name          web-1
            status        quarantined
            why           its state was restored from an old copy
            id            00000000-0000-7000-8000-000000000001
            roles         app, dns
            labels        -
            apps          -
            actions       app.deploy@1, host.facts@1
            agent         0.1.0
                          of a later release than the control plane: it is asked for what both know. Upgrade the control plane
            last seen     60 s ago
            clock         -
            enrolled      24 h ago (2023-11-13T22:13:20.000Z)
            identity key  aWQ=
            keys since    -
            sealing key   c2U=
            root version  1
            orders        7 given a number, 6 acknowledged
            last report   5
        "#]];
        expected.assert_eq(&show_words(&host, NOW, Paint(false)));
    }
}
