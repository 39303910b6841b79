//! `app …` but `app deploy`.

use api::{
    AppDetail, AppSummary, OperationCommand, OperationRequest, OperationResponse, OperationState, SingleRequest,
};
use ids::{AppName, HostName, OperationId, UnixMs};
use serde::Serialize;
use serde_json::{Value, json};

use crate::{
    app_move,
    arguments::{App, Lifecycle, Logs, Rise, SomeHosts},
    check,
    client::Client,
    clock, deploy,
    exit::{Ended, Failure},
    limits,
    list::{self, part},
    logs_follow::{self, Wanted},
    operation,
    operation::Wait,
    output::{Output, Paint, clean, clean_line, stdout_is_terminal},
    spans::relative,
    table::{Cell, Table},
};

pub(crate) async fn run(output: &Output, client: &Client, verb: App) -> Result<Ended, Failure> {
    match verb {
        App::Check(files) => check::run(output, &files),
        App::Deploy(arguments) => deploy::run(output, client, arguments).await,
        App::List { host, extent } => {
            let query: Vec<_> = [part("host", host.as_ref()), extent.sort()].into_iter().flatten().collect();
            let apps: Vec<AppSummary> = list::items(client, &["apps"], &query, extent.most()).await?;
            let none = match host {
                Some(host) => format!("no apps on {host}, or it is revoked"),
                None => NO_APPS.to_owned(),
            };
            output.result(&apps, |apps, paint| list_words(apps, &none, clock::now(), paint))?;
            Ok(Ended::Well)
        }
        App::Show { app } => {
            let app: AppDetail = client.get(&["apps", app.as_str()]).await?;
            output.result(&app, |app, paint| show_words(app, clock::now(), paint))?;
            Ok(Ended::Well)
        }
        App::Logs(Logs { app, follow: true, service, tail, since, hosts }) => {
            let since_ms = since.map(|seconds| seconds * 1000);
            logs_follow::run(output, client, Wanted { app, service, tail, since_ms, hosts }).await
        }
        App::Logs(arguments) => logs(output, client, arguments).await,
        App::Stop(order) => {
            let stop = Rise { order, healthy_within: None };
            lifecycle(output, client, ("app.stop", "stopping"), stop).await
        }
        App::Start(order) => lifecycle(output, client, ("app.start", "starting"), order).await,
        App::Restart(order) => lifecycle(output, client, ("app.restart", "restarting"), order).await,
        App::Move(asked) => app_move::run(output, client, asked).await,
        App::Remove { app, hosts, detach } => remove(output, client, &app, hosts, detach).await,
    }
}

/// One action on the hosts of an app, all of them when none is named.
pub(crate) fn request(action: &str, hosts: SomeHosts, parameters: Value) -> Result<SingleRequest, Failure> {
    Ok(SingleRequest {
        operation_id: clock::operation_id()?,
        action: action.to_owned(),
        hosts: hosts.names,
        selector: hosts.selector,
        parameters,
        sealed: Default::default(),
        dry_run: false,
        queue_for_seconds: None,
    })
}

/// Stops, starts or restarts.
async fn lifecycle(
    output: &Output,
    client: &Client,
    (action, doing): (&str, &str),
    Rise { order, healthy_within }: Rise,
) -> Result<Ended, Failure> {
    let Lifecycle { app, services, hosts, dry_run, detach } = order;
    let mut parameters = json!({ "app": app });
    if !services.is_empty() {
        parameters["services"] = json!(services);
    }
    if let Some(seconds) = healthy_within {
        parameters["timeout_ms"] = json!(seconds * 1000);
    }
    let mut request = request(action, hosts, parameters)?;
    request.dry_run = dry_run;
    let sent = operation::send(client, output, &OperationRequest::Single(request)).await?;
    let planning = if dry_run { "planning: " } else { "" };
    output.progress(format_args!("{planning}{doing} {app} (operation {})", sent.operation_id));
    let ended = operation::finish(client, output, sent, Wait::unless(detach)).await?;
    operation::show(output, &ended, &[])
}

async fn remove(
    output: &Output,
    client: &Client,
    app: &AppName,
    hosts: SomeHosts,
    detach: bool,
) -> Result<Ended, Failure> {
    let request = request("app.remove", hosts, json!({ "app": app }))?;
    let sent = operation::send(client, output, &OperationRequest::Single(request)).await?;
    output.progress(format_args!("removing {app} (operation {})", sent.operation_id));
    let ended = operation::finish(client, output, sent, Wait::unless(detach)).await?;
    operation::show(output, &ended, &[])
}

/// What `app logs --json` prints.
#[derive(Serialize)]
struct LogsDocument<'a> {
    operation_id: OperationId,
    logs: Vec<LogDocument<'a>>,
    commands: &'a [OperationCommand],
}

/// The last lines of one container.
#[derive(Serialize)]
struct LogDocument<'a> {
    host: &'a HostName,
    service: &'a str,
    container: &'a str,
    truncated: bool,
    text: &'a str,
}

async fn logs(output: &Output, client: &Client, arguments: Logs) -> Result<Ended, Failure> {
    let Logs { app, service, tail, hosts, .. } = arguments;
    let mut parameters = json!({ "app": app });
    if let Some(service) = service {
        parameters["service"] = json!(service);
    }
    if let Some(tail) = tail {
        parameters["tail"] = json!(tail);
    }
    let mut request = request("app.logs", hosts, parameters)?;
    // Whoever reads logs waits for them at the terminal.
    request.queue_for_seconds = Some(limits::LOGS_QUEUE_SECONDS);
    let sent = operation::send(client, output, &OperationRequest::Single(request)).await?;
    let ended = operation::finish(client, &output.without_progress(), sent, Wait::ToEnd).await?;
    let logs = logs_of(&ended);
    let document = LogsDocument { operation_id: ended.operation_id, logs, commands: &ended.commands };
    let terminal = stdout_is_terminal();
    output.result(&document, |document, paint| logs_words(&document.logs, terminal, paint))?;
    if ended.state == OperationState::Succeeded {
        return Ok(Ended::Well);
    }
    for command in ended.commands.iter().filter(|command| command.status != api::CommandStatus::Succeeded) {
        output.problem(format_args!("{}: {}", command.host, clean_line(&command.message)));
    }
    Ok(Ended::NotWell)
}

fn logs_of(operation: &OperationResponse) -> Vec<LogDocument<'_>> {
    let mut all = Vec::new();
    for command in &operation.commands {
        let Some(result) = &command.result else { continue };
        for log in result["logs"].as_array().into_iter().flatten() {
            all.push(LogDocument {
                host: &command.host,
                service: log["service"].as_str().unwrap_or_default(),
                container: log["container"].as_str().unwrap_or_default(),
                truncated: log["truncated"].as_bool().unwrap_or_default(),
                text: log["text"].as_str().unwrap_or_default(),
            });
        }
    }
    all
}

/// The lines as they were written; with several containers, each behind the name of its own.
fn logs_words(logs: &[LogDocument<'_>], terminal: bool, paint: Paint) -> String {
    let several_hosts = logs.iter().any(|log| log.host != logs[0].host);
    let name = |log: &LogDocument<'_>| match several_hosts {
        true => format!("{}/{}", log.host, clean_line(log.service)),
        false => clean_line(log.service),
    };
    let width = logs.iter().map(|log| name(log).len()).max().unwrap_or(0);
    let mut text = String::new();
    for log in logs {
        let shown = if terminal { clean(log.text) } else { log.text.into() };
        for line in shown.lines() {
            if logs.len() > 1 {
                text.push_str(&format!("{} | ", paint.bold(format!("{:width$}", name(log)))));
            }
            text.push_str(line);
            text.push('\n');
        }
    }
    text
}

/// When nothing is listed.
const NO_APPS: &str =
    "no apps, revoked hosts aside; deploy one with `serverflow app deploy -f compose.yaml --host NAME`";

fn list_words(apps: &[AppSummary], none: &str, now: UnixMs, paint: Paint) -> String {
    let mut table = Table::new(["APP", "HOST", "STATE", "DEPLOYED", "HEALTH", "RELEASE"]);
    for app in apps {
        for instance in &app.instances {
            let health = if instance.verified { "verified" } else { "unverified" };
            let style = if instance.verified { anstyle::AnsiColor::Green } else { anstyle::AnsiColor::Yellow };
            table.row([
                app.name.to_string().into(),
                instance.host.to_string().into(),
                state_cell(&instance.state),
                relative(now, instance.deployed_at.0).into(),
                Cell::styled(health, style.on_default()),
                instance.release.to_string().into(),
            ]);
        }
    }
    table.render(paint, none)
}

fn state_cell(state: &str) -> Cell {
    let words = clean_line(state).replace('_', " ");
    if state == "running" { words.into() } else { Cell::styled(&words, anstyle::AnsiColor::Yellow.on_default()) }
}

fn show_words(app: &AppDetail, now: UnixMs, paint: Paint) -> String {
    let mut text = list_words(std::slice::from_ref(&app.summary), NO_APPS, now, paint);
    for (host, result) in &app.results {
        let Some(services) = result["services"].as_object().filter(|services| !services.is_empty()) else { continue };
        let mut table = Table::new(["SERVICE", "STATE", "CONTAINER", "IMAGE"]);
        for (service, entry) in services {
            let part = |key: &str| Cell::from(entry[key].as_str().unwrap_or_default());
            table.row([service.into(), part("state"), part("container"), part("image")]);
        }
        text.push_str(&format!("\n{} as the last deploy left it:\n{}", paint.bold(host), table.render(paint, "")));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::{self, NOW};

    fn logs(entries: &[(&str, &str, &str)]) -> OperationResponse {
        let commands: Vec<Value> = entries
            .iter()
            .map(|(host, service, text)| {
                json!({"command_id": sample::id(1), "host": host, "action": "app.logs@1", "status": "succeeded",
                       "message": "", "result": {"app": "shop", "logs": [
                           {"service": service, "container": format!("shop-{service}"), "text": text, "truncated": false}]}})
            })
            .collect();
        serde_json::from_value(json!({"operation_id": sample::id(9), "state": "succeeded", "commands": commands}))
            .unwrap()
    }

    #[test]
    fn log_lines_of_one_container_are_plain() {
        let operation = logs(&[("a", "web", "one\n\u{1b}[31mtwo")]);
        let text = |terminal| logs_words(&logs_of(&operation), terminal, Paint(false));
        assert_eq!(text(false), "one\n\u{1b}[31mtwo\n");
        assert_eq!(text(true), "one\n\u{fffd}[31mtwo\n");
    }

    #[test]
    fn log_lines_of_several_containers_bear_their_name() {
        let one_host = logs(&[("a", "web", "one\ntwo\n"), ("a", "database", "three\n")]);
        let expected = expect_test::expect![[r"
            web      | one
            web      | two
            database | three
        "]];
        expected.assert_eq(&logs_words(&logs_of(&one_host), true, Paint(false)));
        let two_hosts = logs(&[("a", "web", "one\n"), ("b", "web", "two\n")]);
        let expected = expect_test::expect![[r"
            a/web | one
            b/web | two
        "]];
        expected.assert_eq(&logs_words(&logs_of(&two_hosts), true, Paint(false)));
        assert_eq!(logs_words(&[], true, Paint(false)), "");
    }

    #[test]
    fn an_app_is_shown_with_its_services() {
        let app: AppDetail = serde_json::from_value(json!({
            "name": "shop",
            "instances": [
                {"host": "a", "release": sample::id(3), "deployed_at": "2023-11-14T22:08:20.000Z", "verified": true},
                {"host": "b", "release": sample::id(3), "deployed_at": "2023-11-14T22:08:20.000Z", "verified": false,
                 "state": "partly_stopped"},
            ],
            "results": {"a": {"services": {
                "web": {"change": "create", "container": "shop-web", "state": "healthy", "image": "x@sha256:1"},
                "job": {"change": "create", "container": "shop-job", "state": "completed", "image": null}}}, "b": {}},
        }))
        .unwrap();
        let expected = expect_test::expect![[r"
            APP   HOST  STATE           DEPLOYED   HEALTH      RELEASE
            shop  a     running         5 min ago  verified    00000000-0000-7000-8000-000000000003
            shop  b     partly stopped  5 min ago  unverified  00000000-0000-7000-8000-000000000003

            a as the last deploy left it:
            SERVICE  STATE      CONTAINER  IMAGE
            job      completed  shop-job   -
            web      healthy    shop-web   x@sha256:1
        "]];
        expected.assert_eq(&show_words(&app, NOW, Paint(false)));
    }
}
