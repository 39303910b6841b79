//! Following an operation or a command to its end.
//!
//! Truth is what `GET` answers; the stream of events only says sooner that there is something new.
//! So a stream that breaks, a control plane that restarts or events that are lost cost time, never
//! correctness: state is read again and the stream opened anew. Without any stream this is polling.

use std::{collections::BTreeMap, time::Duration};

use actions::app_plan::{PlanResult, render_plan};
use api::{CommandDetail, CommandStatus, Event, OperationCommand, OperationResponse, OperationState};
use ids::{CommandId, HostName};
use serde::de::DeserializeOwned;
use tokio::time::{Instant, sleep};

use crate::{
    client::Client,
    events::Events,
    exit::{Failure, Kind},
    limits,
    operation::status_words,
    output::{Output, clean, clean_line, status_style},
};

/// Where a command stands, as state or an event says it.
struct Standing<'a> {
    command: CommandId,
    host: &'a HostName,
    action: &'a str,
    status: CommandStatus,
    message: &'a str,
    result: Option<&'a serde_json::Value>,
}

impl<'a> Standing<'a> {
    fn of(command: &'a OperationCommand) -> Self {
        Self {
            command: command.command_id,
            host: &command.host,
            action: &command.action,
            status: command.status,
            message: &command.message,
            result: command.result.as_ref(),
        }
    }
}

/// State that can be followed.
trait Followed: DeserializeOwned {
    fn standings(&self) -> Vec<Standing<'_>>;
    fn is_over(&self) -> bool;
}

impl Followed for OperationResponse {
    fn standings(&self) -> Vec<Standing<'_>> {
        self.commands.iter().map(Standing::of).collect()
    }

    fn is_over(&self) -> bool {
        self.state != OperationState::Running
    }
}

impl Followed for CommandDetail {
    fn standings(&self) -> Vec<Standing<'_>> {
        let summary = &self.summary;
        vec![Standing {
            command: summary.command_id,
            host: &summary.host,
            action: &summary.action,
            status: summary.status,
            message: &summary.message,
            result: self.report.as_ref().map(|report| &report.result),
        }]
    }

    fn is_over(&self) -> bool {
        self.summary.status.is_final()
    }
}

/// Follows an operation to its end, telling people what happens; with `plans`, also what each host
/// plans, unless there are too many.
pub(crate) async fn operation(
    client: &Client,
    output: &Output,
    known: &OperationResponse,
    plans: bool,
) -> Result<OperationResponse, Failure> {
    let hosts = known.commands.len();
    let tells_plans = plans && hosts <= limits::PLANS_SHOWN_HOSTS_MAX;
    let mut follower =
        Follower { client, output, told: BTreeMap::new(), held: BTreeMap::new(), tells_ends: hosts > 1, tells_plans };
    follower.all_told(known);
    follower.follow(&["operations", &known.operation_id.to_string()]).await
}

/// Follows one command to its end, telling people what happens.
pub(crate) async fn command(client: &Client, output: &Output, id: CommandId) -> Result<CommandDetail, Failure> {
    let mut follower = Follower {
        client,
        output,
        told: BTreeMap::new(),
        held: BTreeMap::new(),
        tells_ends: false,
        tells_plans: false,
    };
    follower.follow(&["commands", &id.to_string()]).await
}

struct Follower<'a> {
    client: &'a Client,
    output: &'a Output,
    /// The last status told of each command.
    told: BTreeMap<CommandId, CommandStatus>,
    /// What was told of each that is held: how many have approved it.
    held: BTreeMap<CommandId, String>,
    /// Ends are told as they come when there are several hosts; for one, the result says it.
    tells_ends: bool,
    tells_plans: bool,
}

/// What made reading a stream stop.
enum Stopped {
    /// Something ended: read the state.
    Look,
    /// The stream broke off or ended.
    Broken,
}

impl Follower<'_> {
    async fn follow<T: Followed>(&mut self, path: &[&str]) -> Result<T, Failure> {
        let ended = tokio::select! {
            ended = self.until_over(path) => Some(ended),
            _ = tokio::signal::ctrl_c() => None,
        };
        ended.unwrap_or_else(|| Err(self.left(Failure::new(Kind::Interrupted, "interrupted; the operation goes on"))))
    }

    async fn until_over<T: Followed>(&mut self, path: &[&str]) -> Result<T, Failure> {
        let mut events_path = path.to_vec();
        events_path.push("events");
        let mut wait = limits::BACKOFF_FIRST;
        let mut away_since: Option<Instant> = None;
        loop {
            match self.client.get::<T>(path).await {
                Ok(state) => {
                    if away_since.take().is_some() {
                        self.output.progress("the control plane answers again");
                    }
                    self.all_told(&state);
                    if state.is_over() {
                        return Ok(state);
                    }
                }
                Err(failure) => self.is_away(failure, &mut away_since)?,
            }
            if away_since.is_none() && self.listen::<T>(path, &events_path).await? {
                wait = limits::BACKOFF_FIRST;
            } else {
                sleep(wait).await;
                wait = longer(wait);
            }
        }
    }

    /// The control plane did not answer: goes on for a while.
    fn is_away(&self, failure: Failure, since: &mut Option<Instant>) -> Result<(), Failure> {
        if failure.kind != Kind::Unreachable {
            return Err(failure);
        }
        if since.is_none() {
            self.output.progress("the control plane does not answer; the operation may go on, trying again");
        }
        if since.get_or_insert_with(Instant::now).elapsed() > limits::AWAY_MAX {
            return Err(self.left(failure));
        }
        Ok(())
    }

    /// Reads one stream of events until it is time to look at the state. Whether it was of use.
    async fn listen<T: Followed>(&mut self, path: &[&str], events_path: &[&str]) -> Result<bool, Failure> {
        let mut response = match self.client.events(events_path).await {
            Ok(response) => response,
            // Too many streams, or away: the state tells, in time.
            Err(failure) if matches!(failure.kind, Kind::Unreachable | Kind::NotWell) => return Ok(false),
            Err(failure) => return Err(failure),
        };
        let mut events = Events::default();
        let mut useful = false;
        loop {
            let piece = match self.client.piece(&mut response).await {
                Ok(Some(piece)) => piece,
                Ok(None) | Err(_) => return Ok(useful),
            };
            let whole = events.push(&piece).map_err(|e| Failure::new(Kind::NotWell, e.to_string()))?;
            for data in whole {
                useful = true;
                match self.event(&data) {
                    None => {}
                    Some(Stopped::Broken) => return Ok(useful),
                    Some(Stopped::Look) => {
                        let Ok(state) = self.client.get::<T>(path).await else { return Ok(useful) };
                        self.all_told(&state);
                        if state.is_over() {
                            return Ok(useful);
                        }
                    }
                }
            }
        }
    }

    /// Tells of one event.
    fn event(&mut self, data: &[u8]) -> Option<Stopped> {
        // A newer control plane may send events this program does not know.
        match serde_json::from_slice::<Event>(data).ok()? {
            Event::Command { command_id, host, action, status, message } => {
                let (host, action, message) = (&host, action.as_str(), message.as_str());
                if status.is_final() {
                    // Its result comes with the state.
                    return Some(Stopped::Look);
                }
                self.tell(&Standing { command: command_id, host, action, status, message, result: None });
                None
            }
            Event::Progress { host, text, .. } => {
                for line in clean(&text).lines().filter(|line| !line.trim().is_empty()) {
                    self.output.progress(format_args!("{host}: {line}"));
                }
                None
            }
            // Streams have a path of their own.
            Event::Output { .. } => None,
            Event::Operation { .. } => Some(Stopped::Broken),
        }
    }

    fn all_told<T: Followed>(&mut self, state: &T) {
        for standing in state.standings() {
            self.tell(&standing);
        }
    }

    /// Tells where a command stands, unless that was told or something later was.
    fn tell(&mut self, standing: &Standing<'_>) {
        let before = self.told.get(&standing.command).copied();
        let is_old = before.is_some_and(|before| before.is_final() || stage(before) >= stage(standing.status));
        let is_held = standing.status == CommandStatus::Held && before.is_none_or(|before| before == standing.status);
        let is_news = is_held
            && self.held.insert(standing.command, standing.message.to_owned()).as_deref() != Some(standing.message);
        if is_old && !is_news {
            return;
        }
        self.told.insert(standing.command, standing.status);
        if let Some(text) = self.words(standing) {
            self.output.progress(text.trim_end());
        }
    }

    fn words(&self, standing: &Standing<'_>) -> Option<String> {
        let Standing { host, action, status, message, result, .. } = standing;
        let is_plan = action.starts_with("app.plan@");
        let name = action.split('@').next().unwrap_or(action);
        let word = self.output.progress_paint().on(status_style(*status), status_words(*status));
        match status {
            CommandStatus::Delivered | CommandStatus::Accepted => None,
            CommandStatus::Held => Some(format!("{host}: {name}: {word}: {}", clean_line(message))),
            CommandStatus::Queued | CommandStatus::Running => Some(format!("{host}: {name}: {word}")),
            CommandStatus::Succeeded if is_plan && self.tells_plans => {
                let plan = result.and_then(plan_words);
                Some(plan.map_or_else(
                    || format!("{host}: {name}: {}", clean_line(message)),
                    |plan| format!("{host}: {plan}"),
                ))
            }
            _ if self.tells_ends => Some(format!("{host}: {name}: {word}: {}", clean_line(message))),
            _ => None,
        }
    }

    /// A failure that leaves the operation running: says how to go on.
    fn left(&self, failure: Failure) -> Failure {
        let mut open = self.told.iter().filter(|(_, status)| !status.is_final()).map(|(id, _)| id);
        match (open.next(), open.next()) {
            (Some(id), None) => failure.hint(format!(
                "watch it with `serverflow command watch {id}`, stop it with `serverflow command cancel {id}`"
            )),
            (Some(id), Some(_)) => failure.hint(format!(
                "see `serverflow command list`; watch one with `serverflow command watch {id}`, stop one with `serverflow command cancel {id}`"
            )),
            (None, _) => failure.hint("see `serverflow command list` for what became of it"),
        }
    }
}

/// How far a command is: statuses stand in the order of its life.
fn stage(status: CommandStatus) -> Option<usize> {
    CommandStatus::ALL.iter().position(|other| *other == status)
}

fn longer(wait: Duration) -> Duration {
    (wait * 2).min(limits::BACKOFF_MAX)
}

/// A plan's result as lines for a person, if it is one.
pub(crate) fn plan_words(result: &serde_json::Value) -> Option<String> {
    let plan: PlanResult = serde_json::from_value(result.clone()).ok()?;
    Some(clean(&render_plan(&plan)).into_owned())
}
