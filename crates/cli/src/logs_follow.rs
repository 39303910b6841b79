//! `app logs -f`: an order whose output streams here for as long as this program reads it.
//!
//! Ending it is reading no more: the control plane gives the lease back, and the host stops. What came
//! can be checked against the signed report when nothing of it was left out on the way.

use std::collections::BTreeMap;

use api::{CommandStatus, Event, OperationRequest, OperationResponse, OperationState};
use ids::{AppName, CommandId, HostName, ServiceName, Sha256};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256 as Hasher};
use tokio::time::{Instant, sleep, timeout};

use crate::{
    app,
    arguments::SomeHosts,
    client::Client,
    events::Events,
    exit::{Ended, Failure, Kind},
    limits, operation,
    output::{Output, Paint, clean, clean_line, stdout_is_terminal, to_stdout},
};

/// What is to be followed.
pub(crate) struct Wanted {
    pub(crate) app: AppName,
    pub(crate) service: Option<ServiceName>,
    pub(crate) tail: Option<u32>,
    pub(crate) since_ms: Option<u64>,
    pub(crate) hosts: SomeHosts,
}

pub(crate) async fn run(output: &Output, client: &Client, wanted: Wanted) -> Result<Ended, Failure> {
    let Wanted { app: name, service, tail, since_ms, hosts } = wanted;
    let mut parameters = json!({ "app": name });
    let given = [
        ("service", service.map(|service| json!(service))),
        ("tail", tail.map(|lines| json!(lines))),
        ("since_ms", since_ms.map(|span| json!(span))),
    ];
    for (name, value) in given.into_iter().filter_map(|(name, value)| value.map(|value| (name, value))) {
        parameters[name] = value;
    }
    let mut request = app::request("app.logs.follow", hosts, parameters)?;
    // Whoever reads logs waits for them at the terminal.
    request.queue_for_seconds = Some(limits::LOGS_QUEUE_SECONDS);
    let sent = operation::send(client, output, &OperationRequest::Single(request)).await?;
    let mut reader = Reader::new(output, &sent);
    tokio::select! {
        ended = reader.until_over(client, &sent) => reader.end(&ended?),
        _ = tokio::signal::ctrl_c() => {
            output.progress("not watching any more; the host stops by itself");
            if output.is_json() {
                let id = sent.operation_id.to_string();
                let now = timeout(limits::LAST_LOOK, client.get(&["operations", &id])).await;
                print_end(&now.ok().and_then(Result::ok).unwrap_or(sent))?;
            }
            Ok(Ended::Well)
        }
    }
}

/// What came of one command's stream.
struct Received {
    host: HostName,
    /// The record that is not whole yet.
    half: String,
    offset: u64,
    hasher: Hasher,
    has_gap: bool,
}

struct Reader<'a> {
    output: &'a Output,
    commands: BTreeMap<CommandId, Received>,
    several_hosts: bool,
    is_terminal: bool,
    /// Widest name so far, so that lines stand below each other.
    width: usize,
    services: Vec<String>,
}

impl<'a> Reader<'a> {
    fn new(output: &'a Output, sent: &OperationResponse) -> Self {
        let commands: BTreeMap<CommandId, Received> = sent
            .commands
            .iter()
            .map(|command| {
                let (host, half, hasher) = (command.host.clone(), String::new(), Hasher::new());
                (command.command_id, Received { host, half, offset: 0, hasher, has_gap: false })
            })
            .collect();
        let several_hosts = commands.len() > 1;
        Self { output, commands, several_hosts, is_terminal: stdout_is_terminal(), width: 0, services: Vec::new() }
    }

    /// Reads until the operation is over; a broken stream is opened again.
    async fn until_over(&mut self, client: &Client, sent: &OperationResponse) -> Result<OperationResponse, Failure> {
        let id = sent.operation_id.to_string();
        let path = ["operations", id.as_str()];
        let (mut wait, mut away_since) = (limits::BACKOFF_FIRST, None);
        loop {
            match self.listen(client, &[path[0], path[1], "output"]).await {
                Ok(Some(ended)) => return Ok(ended),
                Ok(None) => away_since = None,
                Err(failure) if matches!(failure.kind, Kind::Unreachable | Kind::NotWell) => {
                    if away_since.is_none() {
                        self.output.progress("the stream broke off; trying again");
                    }
                    if away_since.get_or_insert_with(Instant::now).elapsed() > limits::AWAY_MAX {
                        return Err(failure);
                    }
                }
                Err(failure) => return Err(failure),
            }
            sleep(wait).await;
            wait = (wait * 2).min(limits::BACKOFF_MAX);
            if let Ok(state) = client.get::<OperationResponse>(&path).await
                && state.state != OperationState::Running
            {
                return Ok(state);
            }
        }
    }

    async fn listen(&mut self, client: &Client, path: &[&str]) -> Result<Option<OperationResponse>, Failure> {
        let mut response = client.events(path).await?;
        let mut events = Events::default();
        while let Some(piece) = client.piece(&mut response).await? {
            for data in events.push(&piece).map_err(|e| Failure::new(Kind::NotWell, e.to_string()))? {
                match serde_json::from_slice(&data) {
                    Ok(Event::Output { command_id, offset, text, .. }) => self.take(command_id, offset, &text)?,
                    Ok(Event::Operation { operation }) => return Ok(Some(operation)),
                    // Of a newer control plane, or nothing for this program.
                    _ => {}
                }
            }
        }
        Ok(None)
    }

    fn take(&mut self, command: CommandId, offset: u64, text: &str) -> Result<(), Failure> {
        let Some(received) = self.commands.get_mut(&command) else { return Ok(()) };
        if offset != received.offset {
            received.has_gap = true;
            received.half.clear();
            received.offset = offset;
            let note = format!("{}: part of the output was lost on its way", received.host);
            self.output.problem(&note);
        }
        let Some(received) = self.commands.get_mut(&command) else { return Ok(()) };
        received.offset += text.len() as u64;
        received.hasher.update(text.as_bytes());
        received.half.push_str(text);
        let whole = received.half.rfind('\n').map_or(0, |at| at + 1);
        let rest = received.half.split_off(whole);
        let lines = core::mem::replace(&mut received.half, rest);
        let host = received.host.clone();
        let mut words = String::new();
        for line in lines.lines() {
            words.push_str(&self.line(&host, line));
        }
        to_stdout(words.as_bytes())
    }

    /// One record as it is printed; empty when it is half a record, left by a gap.
    fn line(&mut self, host: &HostName, line: &str) -> String {
        let Ok(Value::Object(mut record)) = serde_json::from_str(line) else { return String::new() };
        if self.output.is_json() {
            record.insert("host".to_owned(), json!(host));
            return Value::Object(record).to_string() + "\n";
        }
        let text = |key: &str| record.get(key).and_then(Value::as_str).unwrap_or_default();
        if let Some(lost) = record.get("lost_lines").and_then(Value::as_u64) {
            self.output
                .problem(format_args!("{host}: {lost} lines were left out here: they came faster than they are read"));
            return String::new();
        }
        if record.contains_key("note") {
            self.output.progress(format_args!("{host}: {}", clean_line(text("note"))));
            return String::new();
        }
        let name = match self.several_hosts {
            true => format!("{host}/{}", clean_line(text("service"))),
            false => clean_line(text("service")),
        };
        let line = if self.is_terminal { clean(text("line")) } else { text("line").into() };
        let cut = if record.contains_key("cut") { "…" } else { "" };
        self.width = self.width.max(name.len());
        if !self.services.contains(&name) {
            self.services.push(name.clone());
        }
        // Plain as long as there is one container only, as `app logs` has it.
        if self.services.len() == 1 && !self.several_hosts {
            return format!("{line}{cut}\n");
        }
        let width = self.width;
        format!("{} | {line}{cut}\n", self.paint().bold(format!("{name:width$}")))
    }

    fn paint(&self) -> Paint {
        self.output.paint()
    }

    /// Says how it ended, and whether what came is what the hosts signed.
    fn end(&self, ended: &OperationResponse) -> Result<Ended, Failure> {
        let mut well = ended.state != OperationState::Failed;
        for command in &ended.commands {
            let message = clean_line(&command.message);
            if command.status == CommandStatus::Succeeded {
                self.output.progress(format_args!("{}: {message}", command.host));
            } else {
                self.output.problem(format_args!("{}: {message}", command.host));
            }
            let (Some(received), Some(result)) = (self.commands.get(&command.command_id), &command.result) else {
                continue;
            };
            if received.differs(result) {
                well = false;
                let words = "what came here is not what the host signed: something between changed it";
                self.output.problem(format_args!("{}: {words}", command.host));
            }
        }
        if self.output.is_json() {
            print_end(ended)?;
        }
        Ok(Ended::well_if(well))
    }
}

/// The last document.
fn print_end(operation: &OperationResponse) -> Result<(), Failure> {
    let document = json!({ "end": operation::OperationDocument::new(operation, &[]) });
    to_stdout((document.to_string() + "\n").as_bytes())
}

impl Received {
    /// Whether everything came, and is not what the report says.
    fn differs(&self, result: &Value) -> bool {
        let is_whole = !self.has_gap && result["output_bytes"].as_u64() == Some(self.offset);
        let sha256 = Sha256(self.hasher.clone().finalize().into()).to_string();
        is_whole && result["output_sha256"].as_str().is_some_and(|signed| signed != sha256)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{arguments::Color, sample};

    fn sent(hosts: &[&str]) -> OperationResponse {
        let command = |(n, host): (usize, &&str)| {
            json!({"command_id": sample::id(n as u8 + 1), "host": host, "action": "app.logs.follow@1", "status": "running",
                   "message": ""})
        };
        let commands: Vec<Value> = hosts.iter().enumerate().map(command).collect();
        serde_json::from_value(json!({"operation_id": sample::id(9), "state": "running", "commands": commands}))
            .unwrap()
    }

    fn record(service: &str, line: &str) -> String {
        json!({"service": service, "container": "c", "time": "t", "line": line}).to_string()
    }

    #[test]
    fn lines_are_plain_until_a_second_container_speaks() {
        let (output, host) = (Output::new(false, true, Color::Never), "a".parse().unwrap());
        let mut reader = Reader::new(&output, &sent(&["a"]));
        assert_eq!(reader.line(&host, &record("web", "one")), "one\n");
        assert_eq!(reader.line(&host, &record("worker", "two")), "worker | two\n");
        assert_eq!(reader.line(&host, &record("web", "three")), "web    | three\n");
        assert_eq!(reader.line(&host, "half a rec"), "");
        let mut reader = Reader::new(&output, &sent(&["a", "b"]));
        assert_eq!(reader.line(&host, &record("web", "one")), "a/web | one\n");
        let json = Output::new(true, true, Color::Never);
        let line = Reader::new(&json, &sent(&["a"])).line(&host, &record("web", "one"));
        let line: Value = serde_json::from_str(&line).unwrap();
        assert_eq!((&line["host"], &line["line"]), (&json!("a"), &json!("one")));
    }

    #[test]
    fn what_came_is_held_against_what_was_signed() {
        let (output, command) = (Output::new(true, true, Color::Never), sent(&["a"]).commands[0].command_id);
        let mut reader = Reader::new(&output, &sent(&["a"]));
        reader.take(command, 0, "{\"no").unwrap();
        reader.take(command, 4, "te\":1}").unwrap();
        let received = &reader.commands[&command];
        let signed = |bytes: u64, text: &str| json!({"output_bytes": bytes, "output_sha256": ids::sha256(text.as_bytes()).to_string()});
        assert!(!received.differs(&signed(10, "{\"note\":1}")));
        assert!(received.differs(&signed(10, "{\"note\":2}")));
        assert!(!received.differs(&signed(99, "{\"note\":2}")), "part of it never came");
    }
}
