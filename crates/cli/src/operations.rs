//! `operation …`

use api::{OperationResponse, OperationState, OperationSummary};
use ids::UnixMs;

use crate::{
    arguments::{Operation, Operations},
    client::Client,
    clock,
    exit::{Ended, Failure},
    list::{self, part},
    operation::{self, Wait, status_words},
    output::{Output, Paint, operation_style},
    spans::relative,
    table::{Cell, Table},
};

pub(crate) async fn run(output: &Output, client: &Client, verb: Operation) -> Result<Ended, Failure> {
    match verb {
        Operation::List(asked) => list(output, client, asked).await,
        Operation::Show { id } => {
            let operation: OperationResponse = client.get(&["operations", &id.to_string()]).await?;
            operation::show(output, &operation, &[])?;
            Ok(Ended::Well)
        }
        Operation::Watch { id } => {
            let known: OperationResponse = client.get(&["operations", &id.to_string()]).await?;
            let ended = operation::finish(client, output, known, Wait::ToEndWithPlans).await?;
            operation::show(output, &ended, &[])
        }
    }
}

async fn list(output: &Output, client: &Client, asked: Operations) -> Result<Ended, Failure> {
    let query = [part("requested_by", asked.requested_by.as_ref()), asked.extent.sort()];
    let query: Vec<_> = query.into_iter().flatten().chain(asked.period.query()).collect();
    let operations: Vec<OperationSummary> = list::items(client, &["operations"], &query, asked.extent.most()).await?;
    output.result(&operations, |operations, paint| list_words(operations, clock::now(), paint))?;
    Ok(Ended::Well)
}

const fn state_word(state: OperationState) -> &'static str {
    match state {
        OperationState::Running => "running",
        OperationState::Succeeded => "succeeded",
        OperationState::Failed => "failed",
    }
}

fn list_words(operations: &[OperationSummary], now: UnixMs, paint: Paint) -> String {
    let mut table = Table::new(["OPERATION", "KIND", "STATE", "COMMANDS", "MADE", "BY"]);
    for operation in operations {
        let counts = operation.commands.iter().map(|(status, count)| format!("{count} {}", status_words(*status)));
        let kind = if operation.dry_run { format!("{} (dry run)", operation.kind) } else { operation.kind.clone() };
        table.row([
            operation.operation_id.into(),
            kind.into(),
            Cell::styled(state_word(operation.state), operation_style(operation.state)),
            counts.collect::<Vec<_>>().join(", ").into(),
            relative(now, operation.created_at.0).into(),
            operation.requested_by.to_string().into(),
        ]);
    }
    table.render(paint, "no such operations")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::sample::{self, NOW};

    #[test]
    fn operations_stand_in_a_table() {
        let operation = |number: u8, kind: &str, state: &str, dry_run: bool, commands: serde_json::Value| {
            json!({"operation_id": sample::id(number), "kind": kind, "state": state, "requested_by": "ada",
                "created_at": "2023-11-14T22:12:20.000Z", "dry_run": dry_run, "commands": commands})
        };
        let operations = json!([
            operation(1, "deploy", "failed", false, json!({"rolled_back": 1, "succeeded": 3})),
            operation(2, "single", "running", true, json!({"queued": 2})),
        ]);
        let operations: Vec<OperationSummary> = serde_json::from_value(operations).unwrap();
        let expected = expect_test::expect![[r#"
            OPERATION                             KIND              STATE    COMMANDS                    MADE      BY
            00000000-0000-7000-8000-000000000001  deploy            failed   3 succeeded, 1 rolled back  60 s ago  ada
            00000000-0000-7000-8000-000000000002  single (dry run)  running  2 queued                    60 s ago  ada
        "#]];
        expected.assert_eq(&list_words(&operations, NOW, Paint(false)));
    }
}
