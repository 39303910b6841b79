//! `app deploy`: Compose files become a specification with its secrets sealed, goes to the control
//! plane as one operation, and is followed to its end.

use api::{CommandStatus, DeployRequest, HostDetail, HostStatus, HostSummary, OperationRequest, OperationResponse};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use ids::{CommandId, HostName, OperationId};
use serde::Serialize;
use serde_json::Value;

use crate::{
    app_files,
    arguments::{Deploy, Hosts},
    client::Client,
    clock,
    exit::{Ended, Failure, Kind},
    follow, limits, list, operation,
    operation::Wait,
    output::{Output, Paint, clean, clean_line, status_style},
    roots,
    sealing::Sealing,
};

pub(crate) async fn run(output: &Output, client: &Client, deploy: Deploy) -> Result<Ended, Failure> {
    let composed = app_files::read(&deploy.files)?;
    for note in &composed.notes {
        output.progress(format_args!("note: {}", clean(&note.to_string())));
    }
    let hosts = chosen(client, &deploy.hosts).await?;
    let details = hosts_of(client, &hosts).await?;
    if let Some(revoked) = details.iter().find(|host| host.summary.status == HostStatus::Revoked) {
        let why = format!("host {} is revoked and gets no orders; nothing was sent", revoked.summary.name);
        return Err(Failure::new(Kind::NotWell, why).hint("enrol the machine anew with `serverflow host enroll NAME`"));
    }
    let roots = roots::known(client, output).await?;
    let operation_id = clock::operation_id()?;
    let app = &composed.spec.app;
    let sealing = Sealing { roots: &roots, app, operation: operation_id, secrets: &composed.secrets };
    let request = DeployRequest {
        operation_id,
        sealed: sealing.to_hosts(&details)?,
        recovery: if deploy.dry_run { None } else { sealing.to_owner()? },
        // The control plane selects once more; were it others by now, their values would be missing, and nothing begins.
        hosts: if deploy.hosts.selector.is_some() { Vec::new() } else { hosts },
        selector: deploy.hosts.selector,
        spec: serde_json::to_value(&composed.spec)
            .map_err(|e| Failure::new(Kind::NotWell, format!("the specification could not be written as JSON: {e}")))?,
        dry_run: deploy.dry_run,
        queue_for_seconds: deploy.queue_for,
        healthy_within_seconds: deploy.healthy_within,
        min_healthy_seconds: deploy.min_healthy,
    };
    let queue_for = request.queue_for_seconds;
    let sent = operation::send(client, output, &OperationRequest::Deploy(request)).await?;
    let verb = if deploy.dry_run { "planning" } else { "deploying" };
    let names: Vec<&str> = details.iter().map(|host| host.summary.name.as_str()).collect();
    output.progress(format_args!("{verb} {app} on {} (operation {operation_id})", names.join(", ")));
    let queue_for = queue_for.or(sent.approvals_needed.map(|_| limits::APPROVAL_QUEUE_SECONDS));
    wait_words(output, queue_for, &details);
    let wait = match (deploy.detach, deploy.dry_run) {
        (true, _) => Wait::Detached,
        (false, true) => Wait::ToEnd,
        (false, false) => Wait::ToEndWithPlans,
    };
    let ended = operation::finish(client, output, sent, wait).await?;
    if deploy.dry_run {
        show_plan(output, &ended, &composed.notes)
    } else {
        operation::show(output, &ended, &composed.notes)
    }
}

/// Which hosts it has to wait for.
fn wait_words(output: &Output, queue_for_seconds: Option<u64>, hosts: &[HostDetail]) {
    for host in hosts.iter().filter(|host| host.summary.status == HostStatus::Offline) {
        let wait = queue_for_seconds.map_or(ids::DurationMs::from_mins(10), ids::DurationMs::from_secs);
        output.progress(format_args!("note: {} is offline; the order waits for it up to {wait}", host.summary.name));
    }
}

/// The hosts that were named, or those that are selected now: they must be known before anything can be
/// sealed to them.
async fn chosen(client: &Client, hosts: &Hosts) -> Result<Vec<HostName>, Failure> {
    let Some(selector) = &hosts.selector else { return Ok(distinct(&hosts.names)) };
    let selected: Vec<HostSummary> = list::items(client, &["hosts"], &[("selector", selector.clone())], None).await?;
    let may_get_orders = |host: &HostSummary| matches!(host.status, HostStatus::Connected | HostStatus::Offline);
    let names: Vec<HostName> = selected.into_iter().filter(may_get_orders).map(|host| host.name).collect();
    if names.is_empty() {
        let why = format!("no host that may get orders is selected by {selector}; nothing was sent");
        return Err(
            Failure::invalid(why).hint("see `serverflow host list`, and set labels with `serverflow host label`")
        );
    }
    Ok(names)
}

/// Each host once, in the order given.
fn distinct(hosts: &[HostName]) -> Vec<HostName> {
    let mut once: Vec<HostName> = Vec::with_capacity(hosts.len());
    for host in hosts {
        if !once.contains(host) {
            once.push(host.clone());
        }
    }
    once
}

pub(crate) async fn hosts_of(client: &Client, names: &[HostName]) -> Result<Vec<HostDetail>, Failure> {
    stream::iter(names)
        .map(|name| async move { client.get::<HostDetail>(&["hosts", name.as_str()]).await })
        .buffered(limits::HOSTS_AT_ONCE)
        .try_collect()
        .await
}

/// What `--dry-run --json` prints.
#[derive(Serialize)]
struct PlanDocument<'a> {
    operation_id: OperationId,
    commands: Vec<PlanCommand<'a>>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    notes: &'a [compose::Problem],
}

/// One host's plan.
#[derive(Serialize)]
struct PlanCommand<'a> {
    command_id: CommandId,
    host: &'a HostName,
    status: CommandStatus,
    message: &'a str,
    /// An `app.plan` result; absent when the host could not plan.
    plan: Option<&'a Value>,
}

pub(crate) fn show_plan(
    output: &Output,
    operation: &OperationResponse,
    notes: &[compose::Problem],
) -> Result<Ended, Failure> {
    let commands: Vec<PlanCommand<'_>> = operation::last_by_host(operation)
        .into_iter()
        .map(|command| PlanCommand {
            command_id: command.command_id,
            host: &command.host,
            status: command.status,
            message: &command.message,
            plan: command.result.as_ref().filter(|_| command.status == CommandStatus::Succeeded),
        })
        .collect();
    let document = PlanDocument { operation_id: operation.operation_id, commands, notes };
    output.result(&document, plan_words)?;
    Ok(Ended::well_if(operation.state == api::OperationState::Succeeded))
}

fn plan_words(document: &PlanDocument<'_>, paint: Paint) -> String {
    let mut text = String::new();
    for command in &document.commands {
        let host = paint.bold(command.host);
        match command.plan.and_then(follow::plan_words) {
            Some(plan) => text.push_str(&format!("{host}: {plan}")),
            None => {
                let status = paint.on(status_style(command.status), operation::status_words(command.status));
                text.push_str(&format!("{host}: {status}: {}\n", clean_line(command.message)));
            }
        }
    }
    text.push_str("dry run: nothing was changed\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_named_twice_are_meant_once() {
        let names: Vec<HostName> = ["b", "a", "b"].iter().map(|name| name.parse().unwrap()).collect();
        assert_eq!(distinct(&names), names[..2]);
    }
}
