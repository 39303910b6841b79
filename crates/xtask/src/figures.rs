//! `cargo xtask figures`: how long one command takes until its report is durable, and what the two
//! programs hold in memory, measured against a fleet that runs (the quick start's, say).
//!
//! Each round is one operation over REST, from the request's first byte until the event that says it
//! ended, with one command at a time: `host.facts` as a dry run, so that the path is whole (proposal,
//! number, signature, audit leaves, acceptance, start and report on disk at both ends) and Docker is
//! not in it. HTTP is spoken by hand: one request per connection needs no library.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

const ROUNDS_DEFAULT: usize = 500;
const ROUNDS_MAX: usize = 100_000;
/// Rounds before the measured ones.
const WARM_UP_ROUNDS: usize = 20;
const TIMEOUT: Duration = Duration::from_secs(30);
/// Largest answer read.
const ANSWER_BYTES_MAX: u64 = 1024 * 1024;

struct Target {
    address: String,
    token: String,
    host: String,
}

/// Measures and prints. `arguments`: `HOST [ROUNDS] [PID…]`; URL and token come from the environment.
pub(crate) fn run(arguments: &[&str]) -> Result<(), String> {
    let variable =
        |name: &str| std::env::var(name).map_err(|_| format!("set {name} (source the quick start's env file)"));
    let url = variable("SERVERFLOW_URL")?;
    let address = url.strip_prefix("http://").ok_or("SERVERFLOW_URL must begin with http://")?;
    let (host, rest) = arguments.split_first().ok_or("name the host to measure")?;
    let (rounds, pids) = match rest.split_first() {
        Some((rounds, pids)) => (rounds.parse().map_err(|_| format!("{rounds} is no number of rounds"))?, pids),
        None => (ROUNDS_DEFAULT, rest),
    };
    if !(1..=ROUNDS_MAX).contains(&rounds) {
        return Err(format!("rounds must lie between 1 and {ROUNDS_MAX}"));
    }
    let target = Target {
        address: address.trim_end_matches('/').to_owned(),
        token: variable("SERVERFLOW_TOKEN")?,
        host: (*host).to_owned(),
    };
    let mut spans = Vec::with_capacity(rounds);
    for round in 0..WARM_UP_ROUNDS + rounds {
        let span = target.round()?;
        if round >= WARM_UP_ROUNDS {
            spans.push(span);
        }
    }
    spans.sort_unstable();
    let at = |share: usize| spans[(spans.len() - 1) * share / 100].as_secs_f64() * 1000.0;
    println!("one command until its report is durable, {rounds} rounds, over REST:");
    println!("  p50 {:.2} ms   p99 {:.2} ms   worst {:.2} ms", at(50), at(99), at(100));
    for pid in pids {
        println!("{}", resident(pid)?);
    }
    Ok(())
}

/// What the audit log costs: `arguments` is how many leaves, or nothing.
pub(crate) fn audit(arguments: &[&str]) -> Result<(), String> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let mut command = std::process::Command::new(cargo);
    command.args(["run", "--release", "--package", "serverflow-store", "--example", "audit_figures", "--"]);
    let status = command.args(arguments).status().map_err(|error| format!("cargo cannot be started: {error}"))?;
    if status.success() { Ok(()) } else { Err("there are no figures; what went wrong stands above".to_owned()) }
}

/// Resident memory of a process, from the kernel.
fn resident(pid: &str) -> Result<String, String> {
    let status =
        fs::read_to_string(format!("/proc/{pid}/status")).map_err(|error| format!("process {pid}: {error}"))?;
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or("unknown").trim();
    Ok(format!("{} ({pid}): resident {}, peak {}", field("Name:"), field("VmRSS:"), field("VmHWM:")))
}

impl Target {
    fn round(&self) -> Result<Duration, String> {
        let operation = fresh_id()?;
        let body = json!({
            "kind": "single",
            "operation_id": operation,
            "action": "host.facts",
            "hosts": [self.host],
            "parameters": {},
            "dry_run": true,
        });
        let begin = Instant::now();
        let mut answer = self.ask("POST", "/api/v1/operations", &body.to_string())?;
        let status = status_line(&mut answer)?;
        if !status.contains(" 202 ") {
            let mut text = String::new();
            let _ = answer.read_to_string(&mut text);
            return Err(format!("the control plane answered {status}: {text}"));
        }
        let mut events = self.ask("GET", &format!("/api/v1/operations/{operation}/events"), "")?;
        let mut line = String::new();
        while events.read_line(&mut line).map_err(|error| format!("events: {error}"))? > 0 {
            if let Some(state) = ended(&line) {
                let span = begin.elapsed();
                return if state == "succeeded" { Ok(span) } else { Err(format!("the operation ended {state}")) };
            }
            line.clear();
        }
        Err("the events ended before the operation did".to_owned())
    }

    fn ask(&self, method: &str, path: &str, body: &str) -> Result<BufReader<std::io::Take<TcpStream>>, String> {
        let failed = |error: std::io::Error| format!("{}: {error}", self.address);
        let mut stream = TcpStream::connect(&self.address).map_err(failed)?;
        stream.set_read_timeout(Some(TIMEOUT)).map_err(failed)?;
        stream.set_nodelay(true).map_err(failed)?;
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            self.address,
            self.token.trim(),
            body.len()
        );
        stream.write_all(request.as_bytes()).map_err(failed)?;
        Ok(BufReader::new(stream.take(ANSWER_BYTES_MAX)))
    }
}

fn status_line(answer: &mut impl std::io::BufRead) -> Result<String, String> {
    let mut line = String::new();
    answer.read_line(&mut line).map_err(|error| format!("no answer: {error}"))?;
    Ok(line.trim_end().to_owned() + " ")
}

/// The state of an operation, when the line is the data of the event that it ended.
fn ended(line: &str) -> Option<String> {
    let data: Value = serde_json::from_str(line.strip_prefix("data:")?.trim()).ok()?;
    let operation = data.get("operation")?;
    Some(operation.get("state")?.as_str()?.to_owned())
}

/// A random UUID (RFC 9562 version 4), from the kernel.
fn fresh_id() -> Result<String, String> {
    let path = "/proc/sys/kernel/random/uuid";
    fs::read_to_string(path).map(|text| text.trim().to_owned()).map_err(|error| format!("{path}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_event_of_the_end_ends_a_round() {
        let end = r#"data: {"event":"operation","operation":{"state":"succeeded","commands":[]}}"#;
        assert_eq!(ended(end).as_deref(), Some("succeeded"));
        assert_eq!(ended(r#"data: {"event":"command","status":"succeeded"}"#), None);
        assert_eq!(ended(": comment"), None);
    }
}
