//! What deploys, removals and single actions have in common: an operation is sent, followed, and its
//! end shown.

use std::collections::{BTreeMap, BTreeSet};

use api::{CommandStatus, OperationCommand, OperationRequest, OperationResponse, OperationState};
use ids::{HostName, OperationId};
use serde::Serialize;

use crate::{
    client::Client,
    exit::{Ended, Failure, Kind},
    follow,
    output::{Output, Paint, clean, clean_line, status_style},
};

/// What `--json` prints about an operation.
#[derive(Serialize)]
pub(crate) struct OperationDocument<'a> {
    operation_id: OperationId,
    state: OperationState,
    /// What the hosts were selected by.
    #[serde(skip_serializing_if = "Option::is_none")]
    selector: Option<&'a str>,
    commands: &'a [OperationCommand],
    /// What is worth knowing about the files it came from.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    notes: &'a [compose::Problem],
}

impl<'a> OperationDocument<'a> {
    pub(crate) fn new(operation: &'a OperationResponse, notes: &'a [compose::Problem]) -> Self {
        Self {
            operation_id: operation.operation_id,
            state: operation.state,
            selector: operation.selector.as_deref(),
            commands: &operation.commands,
            notes,
        }
    }
}

/// Sends an operation, again when the connection breaks: its id makes it the same request.
pub(crate) async fn send(
    client: &Client,
    output: &Output,
    request: &OperationRequest,
) -> Result<OperationResponse, Failure> {
    let sent: OperationResponse = client
        .post_repeatedly(&["operations"], request, |_| {
            output.progress("the control plane does not answer; sending the same request again");
        })
        .await
        .map_err(|failure| match failure.kind {
            Kind::Unreachable => failure.and_hint(format!(
                "if the order arrived nevertheless, `serverflow command list --operation {}` shows it",
                id_of(request)
            )),
            _ => failure,
        })?;
    if let Some(selector) = &sent.selector {
        let hosts: BTreeSet<&str> = sent.commands.iter().map(|command| command.host.as_str()).collect();
        let hosts: Vec<&str> = hosts.into_iter().collect();
        output.progress(format_args!("{} selects {}", clean_line(selector), hosts.join(", ")));
    }
    Ok(sent)
}

const fn id_of(request: &OperationRequest) -> OperationId {
    match request {
        OperationRequest::Single(request) => request.operation_id,
        OperationRequest::Deploy(request) => request.operation_id,
        OperationRequest::DeployBundle(request) => request.operation_id,
    }
}

/// Whether to wait for an operation's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wait {
    /// Leave it.
    Detached,
    /// To the end.
    ToEnd,
    /// To the end, showing plans as they come in: they are not what will be shown at the end.
    ToEndWithPlans,
}

impl Wait {
    /// As `--detach` says.
    pub(crate) const fn unless(detach: bool) -> Self {
        if detach { Self::Detached } else { Self::ToEnd }
    }
}

/// Follows what was sent to its end, if it is to be waited for.
pub(crate) async fn finish(
    client: &Client,
    output: &Output,
    sent: OperationResponse,
    wait: Wait,
) -> Result<OperationResponse, Failure> {
    if wait == Wait::Detached || sent.state != OperationState::Running {
        return Ok(sent);
    }
    follow::operation(client, output, &sent, wait == Wait::ToEndWithPlans).await
}

/// Shows how it ended, or that it goes on.
pub(crate) fn show(
    output: &Output,
    operation: &OperationResponse,
    notes: &[compose::Problem],
) -> Result<Ended, Failure> {
    output.result(&OperationDocument::new(operation, notes), |_, paint| words(operation, paint))?;
    Ok(Ended::well_if(operation.state != OperationState::Failed))
}

/// One line for each host, with the last words of what failed below it.
pub(crate) fn words(operation: &OperationResponse, paint: Paint) -> String {
    let mut text = String::new();
    for command in last_by_host(operation) {
        let status = paint.on(status_style(command.status), status_words(command.status));
        let message = clean_line(&command.message);
        let message = if message.is_empty() { String::new() } else { format!(": {message}") };
        text.push_str(&format!("{}: {status}{message}\n", paint.bold(&command.host)));
        if let Some(result) = &command.result {
            text.push_str(&failing_words(result));
        }
    }
    if operation.state == OperationState::Running {
        let id = operation.operation_id;
        text.push_str(&format!("operation {id} goes on; watch it with `serverflow operation watch {id}`\n"));
    }
    text
}

/// The latest command of each host: a deploy's second stage stands for its first.
pub(crate) fn last_by_host(operation: &OperationResponse) -> Vec<&OperationCommand> {
    let mut places: BTreeMap<&HostName, usize> = BTreeMap::new();
    let mut last: Vec<&OperationCommand> = Vec::new();
    for command in &operation.commands {
        let place = *places.entry(&command.host).or_insert(last.len());
        if place == last.len() {
            last.push(command);
        } else {
            last[place] = command;
        }
    }
    last
}

/// A status as people say it.
pub(crate) const fn status_words(status: CommandStatus) -> &'static str {
    match status {
        CommandStatus::RolledBack => "rolled back",
        other => other.as_str(),
    }
}

/// The last log lines of the containers that failed, as a deploy's result holds them.
pub(crate) fn failing_words(result: &serde_json::Value) -> String {
    let mut text = String::new();
    for failing in result["failing"].as_array().into_iter().flatten() {
        let (Some(service), Some(logs)) = (failing["service"].as_str(), failing["logs"].as_str()) else { continue };
        let logs = clean(logs);
        if logs.trim().is_empty() {
            text.push_str(&format!("  {} wrote no log lines\n", clean_line(service)));
            continue;
        }
        text.push_str(&format!("  last log lines of {}:\n", clean_line(service)));
        for line in logs.lines() {
            text.push_str(&format!("    {line}\n"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::sample;

    fn operation(commands: serde_json::Value, state: &str) -> OperationResponse {
        serde_json::from_value(json!({"operation_id": sample::id(9), "state": state, "commands": commands})).unwrap()
    }

    #[test]
    fn a_roll_back_shows_the_last_log_lines_of_what_failed() {
        let operation = operation(
            json!([
                {"command_id": sample::id(1), "host": "local", "action": "app.plan@1", "status": "succeeded",
                 "message": "would create 1 service of sample", "result": {}},
                {"command_id": sample::id(2), "host": "local", "action": "app.deploy@1", "status": "rolled_back",
                 "message": "web became unhealthy. sample was put back as it was, and verified",
                 "result": {"failing": [
                    {"service": "web", "container": "sample-web", "logs": "starting\nno \u{1b}[31mdatabase\n"},
                    {"service": "job", "container": "sample-job", "logs": ""}]}},
            ]),
            "failed",
        );
        let expected = expect_test::expect![[r"
            local: rolled back: web became unhealthy. sample was put back as it was, and verified
              last log lines of web:
                starting
                no �[31mdatabase
              job wrote no log lines
        "]];
        expected.assert_eq(&words(&operation, Paint(false)));
    }

    #[test]
    fn what_goes_on_says_how_to_watch_it() {
        let operation = operation(
            json!([{"command_id": sample::id(1), "host": "a", "action": "app.plan@1", "status": "queued", "message": ""}]),
            "running",
        );
        let expected = expect_test::expect![[r"
            a: queued
            operation 00000000-0000-7000-8000-000000000009 goes on; watch it with `serverflow operation watch 00000000-0000-7000-8000-000000000009`
        "]];
        expected.assert_eq(&words(&operation, Paint(false)));
    }
}
