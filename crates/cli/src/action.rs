//! `action …`

use std::path::Path;

use api::{ActionSummary, OperationRequest, SingleRequest};
use ids::{ActionName, DurationMs};
use serde_json::Value;

use crate::{
    arguments::{Action, Run},
    client::Client,
    clock,
    exit::{Ended, Failure},
    files, limits, operation,
    operation::Wait,
    output::{Output, Paint, clean, clean_line},
    parameters,
    table::{Table, fields},
};

pub(crate) async fn run(output: &Output, client: &Client, verb: Action) -> Result<Ended, Failure> {
    match verb {
        Action::List => {
            let actions: Vec<ActionSummary> = client.get(&["actions"]).await?;
            output.result(&actions, |actions, paint| list_words(actions, paint))?;
            Ok(Ended::Well)
        }
        Action::Show { name } => {
            let action = find(client, &name).await?;
            output.result(&action, show_words)?;
            Ok(Ended::Well)
        }
        Action::Run(run) => run_one(output, client, run).await,
    }
}

async fn find(client: &Client, name: &ActionName) -> Result<ActionSummary, Failure> {
    client.get(&["actions", name.as_str()]).await
}

/// The parameters of an action, from a file and one by one, checked by its schema before anything is sent.
pub(crate) async fn parameters(
    client: &Client,
    name: &ActionName,
    file: Option<&Path>,
    pairs: &[(String, String)],
) -> Result<Value, Failure> {
    let file = match file {
        None => None,
        Some(path) => {
            let bytes = files::read(path, limits::PARAMETERS_FILE_BYTES_MAX)?;
            let parsed: Result<Value, _> = serde_json::from_slice(&bytes);
            Some(parsed.map_err(|e| Failure::invalid(format!("{} is no JSON document: {e}", path.display())))?)
        }
    };
    let action = find(client, name).await?;
    parameters::read(&action.schema, file, pairs).map_err(|errors| {
        Failure::invalid(format!("the parameters of {name} are wrong; nothing was sent"))
            .fields(errors)
            .hint(format!("see `serverflow action show {name}`"))
    })
}

async fn run_one(output: &Output, client: &Client, run: Run) -> Result<Ended, Failure> {
    let parameters = parameters(client, &run.name, run.file.as_deref(), &run.parameters).await?;
    let mut hosts = run.hosts.names;
    hosts.sort();
    hosts.dedup();
    let request = SingleRequest {
        operation_id: clock::operation_id()?,
        action: run.name.to_string(),
        hosts,
        selector: run.hosts.selector,
        parameters,
        sealed: Default::default(),
        dry_run: run.dry_run,
        queue_for_seconds: run.queue_for,
    };
    let sent = operation::send(client, output, &OperationRequest::Single(request)).await?;
    let ended = operation::finish(client, output, sent, Wait::unless(run.detach)).await?;
    let document = operation::OperationDocument::new(&ended, &[]);
    output.result(&document, |_, paint| {
        let mut text = operation::words(&ended, paint);
        for command in &ended.commands {
            if let Some(result) = command.result.as_ref().filter(|result| has_content(result)) {
                text.push_str(&format!("\n{}\n", paint.bold(&command.host)));
                text.push_str(&value_words(result));
            }
        }
        text
    })?;
    Ok(Ended::well_if(ended.state != api::OperationState::Failed))
}

/// Whether there is anything to show of a result.
pub(crate) fn has_content(result: &Value) -> bool {
    match result {
        Value::Null => false,
        Value::Object(map) => !map.is_empty(),
        _ => true,
    }
}

/// A result as people read it best: indented JSON.
pub(crate) fn value_words(result: &Value) -> String {
    let text = serde_json::to_string_pretty(result).unwrap_or_default();
    clean(&text).lines().map(|line| format!("  {line}\n")).collect()
}

fn list_words(actions: &[ActionSummary], paint: Paint) -> String {
    let mut table = Table::new(["NAME", "VERSION", "CLASS", "TITLE"]);
    for action in actions {
        table.row([
            action.name.as_str().into(),
            action.version.into(),
            action.class.as_str().into(),
            action.title.as_str().into(),
        ]);
    }
    table.render(paint, "the control plane knows no actions")
}

fn show_words(action: &ActionSummary, paint: Paint) -> String {
    let mut text = fields(
        paint,
        &[
            ("name", clean_line(&action.name)),
            ("version", action.version.to_string()),
            ("title", clean_line(&action.title)),
            ("class", clean_line(&action.class)),
            ("ends within", DurationMs::from_secs(action.timeout_seconds).to_string()),
            ("schema SHA-256", clean_line(&action.schema_sha256)),
        ],
    );
    text.push_str("\nParameters\n");
    let described = parameters::described(&action.schema);
    if described.is_empty() {
        text.push_str("  none\n");
    }
    for parameter in described {
        let needed = if parameter.required { "required" } else { "optional" };
        text.push_str(&format!("  {} ({}, {needed})\n", paint.bold(clean_line(parameter.name)), parameter.kind));
        if !parameter.description.is_empty() {
            text.push_str(&format!("      {}\n", clean_line(parameter.description)));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn action(name: &str) -> ActionSummary {
        let info = actions::latest(&name.parse().unwrap()).unwrap();
        ActionSummary {
            name: info.name.to_owned(),
            version: info.version,
            title: info.title.to_owned(),
            class: info.class.to_string(),
            timeout_seconds: info.timeout.0 / 1000,
            schema_sha256: "ab".repeat(32),
            schema: serde_json::from_str(info.schema).unwrap(),
        }
    }

    #[test]
    fn an_action_is_shown_with_its_parameters() {
        let expected = expect_test::expect![[r"
            name            app.logs
            version         1
            title           Show an app's last log lines
            class           read
            ends within     60 s
            schema SHA-256  abababababababababababababababababababababababababababababababab

            Parameters
              app (text, required)
                  The app.
              service (text, optional)
                  One of its services; absent means all of them.
              tail (a whole number, optional)
                  Lines per service, counted from the end: 1 to 2000, 100 when absent.
        "]];
        expected.assert_eq(&show_words(&action("app.logs"), Paint(false)));
        assert!(show_words(&action("host.facts"), Paint(false)).ends_with("Parameters\n  none\n"));
    }

    #[test]
    fn actions_stand_in_a_table() {
        let expected = expect_test::expect![[r#"
            NAME        VERSION  CLASS        TITLE
            host.facts  1        read         Show what a host is
            app.remove  1        destructive  Remove an app
        "#]];
        expected.assert_eq(&list_words(&[action("host.facts"), action("app.remove")], Paint(false)));
    }
}
