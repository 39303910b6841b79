//! `command …`

use api::{CancelRequest, CancelResponse, CommandDetail, CommandStatus, CommandSummary, OperationResponse, Timestamp};
use ids::{CommandId, UnixMs};

use crate::{
    action::{has_content, value_words},
    arguments::{Command, Commands},
    client::Client,
    clock,
    exit::{Ended, Failure},
    follow,
    list::{self, part},
    operation::{failing_words, status_words},
    output::{Output, Paint, clean_line, status_style},
    spans::relative,
    table::{Cell, Table, fields},
};

pub(crate) async fn run(output: &Output, client: &Client, verb: Command) -> Result<Ended, Failure> {
    match verb {
        Command::List(asked) => list(output, client, asked).await,
        Command::Show { id } => {
            let command: CommandDetail = client.get(&["commands", &id.to_string()]).await?;
            output.result(&command, |command, paint| show_words(command, clock::now(), paint))?;
            Ok(Ended::Well)
        }
        Command::Watch { id } => watch(output, client, id).await,
        Command::Cancel { id } => cancel(output, client, id).await,
    }
}

async fn list(output: &Output, client: &Client, asked: Commands) -> Result<Ended, Failure> {
    let query = [
        part("host", asked.host.as_ref()),
        asked.status.map(|status| ("status", status.as_str().to_owned())),
        part("app", asked.app.as_ref()),
        part("action", asked.action.as_ref()),
        part("operation", asked.operation.as_ref()),
        part("requested_by", asked.requested_by.as_ref()),
        asked.extent.sort(),
    ];
    let query: Vec<_> = query.into_iter().flatten().chain(asked.period.query()).collect();
    let commands: Vec<CommandSummary> = list::items(client, &["commands"], &query, asked.extent.most()).await?;
    output.result(&commands, |commands, paint| list_words(commands, clock::now(), paint))?;
    Ok(Ended::Well)
}

async fn watch(output: &Output, client: &Client, id: CommandId) -> Result<Ended, Failure> {
    let command = follow::command(client, output, id).await?;
    let next = next_stage(client, &command.summary).await;
    output.result(&command, |command, paint| {
        let summary = &command.summary;
        let status = paint.on(status_style(summary.status), status_words(summary.status));
        let mut text = format!("{}: {status}: {}\n", paint.bold(&summary.host), clean_line(&summary.message));
        if let Some(report) = &command.report {
            text.push_str(&failing_words(&report.result));
        }
        if let Some(next) = next {
            text.push_str(&format!("the deploy goes on; watch it with `serverflow command watch {next}`\n"));
        }
        text
    })?;
    Ok(Ended::well_if(command.summary.status == CommandStatus::Succeeded))
}

/// The command that a plan was made for, while it goes on.
async fn next_stage(client: &Client, plan: &CommandSummary) -> Option<CommandId> {
    if !plan.action.starts_with("app.plan@") || plan.status != CommandStatus::Succeeded {
        return None;
    }
    let path = ["operations", &plan.operation_id.to_string()];
    // Only a hint: without it the watch has ended all the same.
    let operation: OperationResponse = client.get(&path).await.ok()?;
    let later = |command: &&api::OperationCommand| {
        command.host == plan.host && command.command_id != plan.command_id && !command.status.is_final()
    };
    operation.commands.iter().find(later).map(|command| command.command_id)
}

async fn cancel(output: &Output, client: &Client, id: CommandId) -> Result<Ended, Failure> {
    let request = CancelRequest { operation_id: Some(clock::operation_id()?) };
    let path = ["commands", &id.to_string(), "cancel"];
    let answer: CancelResponse = client
        .post_repeatedly(&path, &request, |_| {
            output.progress("the control plane does not answer; sending the same request again");
        })
        .await?;
    output.result(&answer, |answer, _| match answer.operation {
        // Its message says whether it never got to its host, or was put back there before.
        None => format!("{id} is {}: {}\n", status_words(answer.command.status), clean_line(&answer.command.message)),
        Some(_) => format!(
            "{} was told to stop {id} and to put back what it did; watch it with `serverflow command watch {id}`\n",
            answer.command.host
        ),
    })?;
    Ok(Ended::Well)
}

fn list_words(commands: &[CommandSummary], now: UnixMs, paint: Paint) -> String {
    let mut table = Table::new(["COMMAND", "HOST", "ACTION", "APP", "STATUS", "PROPOSED", "BY"]);
    for command in commands {
        let action = if command.dry_run { format!("{} (dry run)", command.action) } else { command.action.clone() };
        table.row([
            command.command_id.into(),
            command.host.to_string().into(),
            action.into(),
            command.app.as_ref().map(ToString::to_string).unwrap_or_default().into(),
            Cell::styled(status_words(command.status), status_style(command.status)),
            relative(now, command.proposed_at.0).into(),
            command.requested_by.to_string().into(),
        ]);
    }
    table.render(paint, "no such commands")
}

fn show_words(command: &CommandDetail, now: UnixMs, paint: Paint) -> String {
    let summary = &command.summary;
    let status = paint.on(status_style(summary.status), status_words(summary.status));
    let when = |time: Timestamp| format!("{} ({time})", relative(now, time.0));
    let mut rows = vec![
        ("command", summary.command_id.to_string()),
        ("operation", summary.operation_id.to_string()),
        ("host", summary.host.to_string()),
        ("action", clean_line(&summary.action) + if summary.dry_run { " (dry run)" } else { "" }),
        ("status", status),
        ("message", clean_line(&summary.message)),
        ("asked by", summary.requested_by.to_string()),
        ("proposed", when(summary.proposed_at)),
        ("deliver by", when(command.deliver_by)),
    ];
    let steps = [
        ("delivered", command.delivered_at),
        ("accepted", command.accepted_at),
        ("started", command.started_at),
        ("settled", summary.settled_at),
    ];
    rows.extend(steps.into_iter().filter_map(|(name, time)| Some((name, when(time?)))));
    if let Some(app) = &summary.app {
        rows.insert(4, ("app", app.to_string()));
    }
    if !command.sealed_values.is_empty() {
        rows.push(("sealed values", clean_line(&command.sealed_values.join(", "))));
    }
    let mut text = fields(paint, &rows);
    text.push_str(&format!("\n{}\n{}", paint.bold("Parameters, as signed"), value_words(&command.parameters)));
    text.push_str(&orders_words(command, paint));
    text.push_str(&report_words(command, paint));
    text
}

fn orders_words(command: &CommandDetail, paint: Paint) -> String {
    if command.orders.is_empty() {
        return "\nNo order was signed yet: that happens when it is about to be delivered.\n".to_owned();
    }
    let mut text = String::new();
    for order in &command.orders {
        text.push_str(&format!("\n{}\n", paint.bold("Signed order")));
        let rows = [
            ("  sequence", order.sequence.to_string()),
            ("  verified by", format!("command key {}", clean_line(&order.verified_by))),
            ("  had to be accepted by", order.expires_at.to_string()),
            ("  type", clean_line(&order.payload_type)),
        ];
        text.push_str(&fields(Paint(false), &rows));
    }
    text
}

fn report_words(command: &CommandDetail, paint: Paint) -> String {
    let Some(report) = &command.report else {
        return "\nNo report yet.\n".to_owned();
    };
    let rows = [
        ("  sequence", report.sequence.to_string()),
        ("  verified by", format!("identity key {}", clean_line(&report.verified_by))),
        ("  says", clean_line(&report.status).replace('_', " ")),
        ("  finished", report.finished_at.to_string()),
        ("  type", clean_line(&report.payload_type)),
    ];
    let mut text = format!("\n{}\n{}", paint.bold("Signed report"), fields(Paint(false), &rows));
    text.push_str(&failing_words(&report.result));
    if has_content(&report.result) {
        text.push_str(&format!("  result\n{}", value_words(&report.result)));
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::sample::{self, NOW};

    fn detail() -> serde_json::Value {
        json!({
            "command_id": sample::id(1), "operation_id": sample::id(2), "host": "local", "action": "app.deploy@1",
            "app": "sample", "dry_run": false, "status": "rolled_back", "message": "web became unhealthy",
            "requested_by": "admin", "proposed_at": "2023-11-14T22:12:20.000Z", "settled_at": "2023-11-14T22:13:00.000Z",
            "parameters": {"spec": {"app": "sample"}}, "sealed_values": ["web/environment/A"],
            "deliver_by": "2023-11-14T22:22:20.000Z", "delivered_at": "2023-11-14T22:12:21.000Z",
            "accepted_at": "2023-11-14T22:12:21.000Z", "started_at": null,
            "orders": [{"sequence": 4, "expires_at": "2023-11-14T22:17:21.000Z", "envelope": "AA==",
                        "payload_type": "application/vnd.serverflow.command.v1", "verified_by": "key-1"}],
            "report": {"sequence": 3, "status": "rolled_back", "finished_at": "2023-11-14T22:13:00.000Z",
                       "result": {"failing": [{"service": "web", "container": "sample-web", "logs": "no database"}]},
                       "envelope": "AA==", "payload_type": "application/vnd.serverflow.report.v1", "verified_by": "key-2"},
        })
    }

    #[test]
    fn a_command_is_shown_with_what_was_signed_and_what_verified_it() {
        let command: CommandDetail = serde_json::from_value(detail()).unwrap();
        let expected = expect_test::expect![[r#"
            command        00000000-0000-7000-8000-000000000001
            operation      00000000-0000-7000-8000-000000000002
            host           local
            action         app.deploy@1
            app            sample
            status         rolled back
            message        web became unhealthy
            asked by       admin
            proposed       60 s ago (2023-11-14T22:12:20.000Z)
            deliver by     in 9 min (2023-11-14T22:22:20.000Z)
            delivered      59 s ago (2023-11-14T22:12:21.000Z)
            accepted       59 s ago (2023-11-14T22:12:21.000Z)
            settled        20 s ago (2023-11-14T22:13:00.000Z)
            sealed values  web/environment/A

            Parameters, as signed
              {
                "spec": {
                  "app": "sample"
                }
              }

            Signed order
              sequence               4
              verified by            command key key-1
              had to be accepted by  2023-11-14T22:17:21.000Z
              type                   application/vnd.serverflow.command.v1

            Signed report
              sequence     3
              verified by  identity key key-2
              says         rolled back
              finished     2023-11-14T22:13:00.000Z
              type         application/vnd.serverflow.report.v1
              last log lines of web:
                no database
              result
              {
                "failing": [
                  {
                    "container": "sample-web",
                    "logs": "no database",
                    "service": "web"
                  }
                ]
              }
        "#]];
        expected.assert_eq(&show_words(&command, NOW, Paint(false)));
    }

    #[test]
    fn a_command_without_order_and_report_says_so() {
        let mut value = detail();
        value["orders"] = json!([]);
        value["report"] = json!(null);
        let command: CommandDetail = serde_json::from_value(value).unwrap();
        let text = show_words(&command, NOW, Paint(false));
        assert!(text.contains("No order was signed yet") && text.ends_with("No report yet.\n"), "{text}");
    }

    #[test]
    fn commands_stand_in_a_table() {
        let command: CommandDetail = serde_json::from_value(detail()).unwrap();
        let expected = expect_test::expect![[r#"
            COMMAND                               HOST   ACTION        APP     STATUS       PROPOSED  BY
            00000000-0000-7000-8000-000000000001  local  app.deploy@1  sample  rolled back  60 s ago  admin
        "#]];
        expected.assert_eq(&list_words(&[command.summary], NOW, Paint(false)));
    }
}
