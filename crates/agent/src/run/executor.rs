//! Runs commands: opens what was sealed, gives the action its doors, watches its time, and makes a
//! reportable end of whatever comes of it, a panic included.

mod approved;

use std::{collections::HashMap, future::Future, pin::pin, sync::Arc, time::Duration};

use actions::{
    Request, mask::Masker, outcome::Outcome, policy::Policy, port::ActionContext, release, spec::SecretName,
};
use envelope::{
    messages::{Order, ReportStatus, SealedValue},
    seal::{SealContext, SealError, check_sealed_values},
};
use futures_util::stream::SelectAll;
use host::Engine;
use ids::{AppName, CommandId, DurationMs, OperationId};
use journal::{Journal, JournalError};
use serde_json::{Value, json};
use session::agent::{
    end_message,
    io::{End, StartCommand},
};
use tokio::{
    sync::{mpsc, watch},
    task::{Id, JoinError, JoinSet},
    time::{sleep, sleep_until},
};
use zeroize::Zeroizing;

use super::{
    port::{HostPort, SharedOutput},
    result,
    stream::{Lease, Piece, Stream},
};
use crate::{host_keys::SealingKeys, limits};

/// What comes from running commands.
#[derive(Debug)]
pub(super) enum ExecutorEvent {
    Progress {
        command: CommandId,
        text: String,
    },
    Finished {
        command: CommandId,
        end: End,
    },
    /// A record could not be written: the agent must end.
    JournalFailed(JournalError),
}

/// What every command needs of this host.
pub(super) struct Tools {
    pub(super) engine: Engine,
    pub(super) journal: Journal,
    pub(super) sealing: SealingKeys,
    pub(super) fingerprint_key: Zeroizing<[u8; 32]>,
}

struct Running {
    command: CommandId,
    action: String,
    reads_only: bool,
}

/// The running commands.
pub(super) struct Executor {
    tools: Arc<Tools>,
    tasks: JoinSet<End>,
    running: HashMap<Id, Running>,
    cancels: HashMap<CommandId, watch::Sender<bool>>,
    leases: HashMap<CommandId, watch::Sender<Lease>>,
    pieces: mpsc::Sender<Piece>,
    sender: mpsc::Sender<ExecutorEvent>,
    events: mpsc::Receiver<ExecutorEvent>,
}

impl Executor {
    /// With it come the pieces of commands' streams. One waits at a time: what was taken is on its way.
    pub(super) fn new(tools: Tools) -> (Self, mpsc::Receiver<Piece>) {
        let (sender, events) = mpsc::channel(limits::EXECUTOR_EVENTS_MAX);
        let tools = Arc::new(tools);
        let (pieces, pieces_taken) = mpsc::channel(1);
        let (tasks, running, cancels, leases) = (JoinSet::new(), HashMap::new(), HashMap::new(), HashMap::new());
        (Self { tools, tasks, running, cancels, leases, pieces, sender, events }, pieces_taken)
    }

    /// Runs it. Its end comes out of [`Executor::next`].
    pub(super) fn start(&mut self, start: StartCommand, policy: Policy) {
        let order = &start.command.order;
        let (command, action) = (order.command, order.action.to_string());
        let reads_only =
            actions::find(&order.action, order.action_version).is_some_and(|info| info.class == actions::Class::Read);
        tracing::info!(%command, action, resumed = start.resumed, cancelled = start.cancelled, "command started");
        let (cancel, cancelled) = watch::channel(start.cancelled);
        self.cancels.insert(command, cancel);
        let (renew, lease) = watch::channel(Lease::first());
        self.leases.insert(command, renew);
        let streams = self.running.values().filter(|running| running.action == FOLLOW).count();
        let doors = Doors {
            tools: self.tools.clone(),
            cancelled,
            events: self.sender.clone(),
            lease,
            pieces: self.pieces.clone(),
            may_stream: streams < actions::limits::STREAMS_MAX,
        };
        let task = execute(start, doors, policy);
        let id = self.tasks.spawn(task).id();
        self.running.insert(id, Running { command, action, reads_only });
    }

    /// Asks a running command to stop and to put things back.
    pub(super) fn cancel(&self, command: CommandId) {
        if let Some(cancel) = self.cancels.get(&command) {
            tracing::info!(%command, "command asked to stop");
            cancel.send_replace(true);
        }
    }

    /// Somebody watches a running command's stream, or nobody does any more.
    pub(super) fn lease(&self, command: CommandId, until: u64, over: bool) {
        if let Some(lease) = self.leases.get(&command) {
            lease.send_modify(|lease| *lease = lease.renewed(until, over));
        }
    }

    /// Ids of what runs.
    pub(super) fn running(&self) -> Vec<CommandId> {
        let mut ids: Vec<_> = self.cancels.keys().copied().collect();
        ids.sort_unstable();
        ids
    }

    /// The next event; waits for ever while nothing runs. Cancel-safe. What a command said comes
    /// before its end.
    pub(super) async fn next(&mut self) -> ExecutorEvent {
        tokio::select! {
            biased;
            Some(event) = self.events.recv() => event,
            Some(ended) = self.tasks.join_next_with_id(), if !self.tasks.is_empty() => self.ended(ended),
            else => std::future::pending().await,
        }
    }

    fn ended(&mut self, ended: Result<(Id, End), JoinError>) -> ExecutorEvent {
        let (id, end) = match ended {
            Ok((id, end)) => (id, Some(end)),
            Err(error) => (error.id(), None),
        };
        let running = self.running.remove(&id).expect("invariant: every task was entered when it was spawned");
        self.cancels.remove(&running.command);
        self.leases.remove(&running.command);
        let end = end.unwrap_or_else(|| broke_down(&running));
        tracing::info!(command = %running.command, action = running.action, status = ?end.status, "command ended");
        ExecutorEvent::Finished { command: running.command, end }
    }

    /// Stops everything where it stands, as a crash would: what is recorded is resumed at the next start.
    pub(super) async fn abandon(&mut self) {
        self.tasks.shutdown().await;
        self.running.clear();
        self.cancels.clear();
        self.leases.clear();
    }
}

/// A panic is a defect of ours. It ends one command, in words, and nothing else.
fn broke_down(running: &Running) -> End {
    tracing::error!(command = %running.command, action = running.action, "the action panicked: this is a defect in ServerFlow");
    let (status, state) = if running.reads_only {
        (ReportStatus::Failed, "nothing was changed")
    } else {
        (ReportStatus::Unknown, "how far it got is not known; look at the host before ordering it again")
    };
    let message = format!(
        "the agent's code for {} broke down, which is a defect in ServerFlow; {state}. The agent's log has the place",
        running.action
    );
    end_message(status, &message, &Value::Null)
}

/// The action whose output is a stream.
const FOLLOW: &str = "app.logs.follow";

/// What one command is given.
struct Doors {
    tools: Arc<Tools>,
    cancelled: watch::Receiver<bool>,
    events: mpsc::Sender<ExecutorEvent>,
    lease: watch::Receiver<Lease>,
    pieces: mpsc::Sender<Piece>,
    may_stream: bool,
}

/// Where the values stand that a command's app may write.
pub(super) struct Known {
    tools: Arc<Tools>,
    order: Order,
    app: Option<AppName>,
}

impl Known {
    /// Hides the values of the app's present releases.
    pub(super) async fn masker(&self) -> Masker {
        let remembered = remembered(self.app.as_ref(), &self.order, &self.tools).await;
        let masker = Masker::new(remembered.iter().map(|value| value.as_str()));
        masker.except_open(self.app.as_ref().map_or("", AppName::as_str))
    }

    pub(super) fn reseal(
        &self,
        app: &AppName,
        version: OperationId,
        name: &SecretName,
        sealed: &[u8],
    ) -> Result<Option<Vec<u8>>, SealError> {
        let Order { fleet, host, .. } = self.order;
        self.tools.sealing.reseal(&SealContext { fleet, host, app: app.as_str(), name: &name.0, version }, sealed)
    }
}

impl Doors {
    fn port(
        &self,
        order: &Order,
        request: &Request,
        masker: &Arc<Masker>,
        output: &Arc<SharedOutput>,
        stream: &Arc<Stream>,
    ) -> HostPort {
        HostPort {
            engine: self.tools.engine.clone(),
            journal: self.tools.journal.clone(),
            events: self.events.clone(),
            cancelled: self.cancelled.clone(),
            masker: masker.clone(),
            output: output.clone(),
            known: Known { tools: self.tools.clone(), order: order.clone(), app: request.app().cloned() },
            stream: stream.clone(),
            lease: self.lease.clone(),
            logs: SelectAll::new(),
        }
    }
}

/// Hides what the order brought and what the app's releases know.
fn masker(context: &ActionContext, request: &Request) -> Arc<Masker> {
    let known = context.secrets.values().chain(&context.remembered);
    let masker = Masker::new(known.map(|value| value.as_str()));
    // The app's name stands in every message, and is no secret whatever a variable says.
    Arc::new(masker.except_open(request.app().map_or("", AppName::as_str)))
}

async fn execute(start: StartCommand, doors: Doors, policy: Policy) -> End {
    let (order, tools, events) = (&start.command.order, &doors.tools, &doors.events);
    let request = match Request::decode(&order.action, order.action_version, &order.parameters) {
        Ok(request) => request,
        Err(error) => return end_message(ReportStatus::Failed, &error.to_string(), &Value::Null),
    };
    let streams = order.action.as_str() == FOLLOW && !order.dry_run;
    if streams && !doors.may_stream {
        let most = actions::limits::STREAMS_MAX;
        let message = format!("{most} streams run on this host already; end one of them, or use app.logs");
        return end_message(ReportStatus::Failed, &message, &Value::Null);
    }
    let mut context = match context(&start, &request, tools, policy) {
        Ok(context) => context,
        Err(error) => {
            let message = format!("{error}; nothing was done. Order it again, so that the values are sealed anew");
            return end_message(ReportStatus::Failed, &message, &Value::Null);
        }
    };
    context.remembered = remembered(request.app(), order, tools).await;
    if let Some(end) = approved::check(&start, &request, &mut context, &doors).await {
        return end;
    }
    let masker = masker(&context, &request);
    let (output, stream) = (Arc::new(SharedOutput::default()), Arc::new(Stream::default()));
    let mut port = doors.port(order, &request, &masker, &output, &stream);
    let run = request.run(&context, &mut port);
    let run = watched(run, hard_limit(&request), &output, order.command, events);
    let mut outcome = tokio::select! {
        outcome = run => outcome,
        () = stream.pump(order.command, doors.lease.clone(), &doors.pieces), if streams => None,
    };
    hand_on(&output, order.command, events).await;
    let (mut output_sha256, mut output_truncated) = output.lock().finish();
    if streams {
        stream.drain(order.command, doors.lease, &doors.pieces).await;
        let sent = stream.sent();
        (output_sha256, output_truncated) = (sent.sha256, sent.lost > 0);
        if let Some(Value::Object(result)) = outcome.as_mut().map(|outcome| &mut outcome.result) {
            result.insert("output_bytes".to_owned(), sent.bytes.into());
            result.insert("output_sha256".to_owned(), sent.sha256.to_string().into());
            result.insert("lost_lines".to_owned(), sent.lost.into());
        }
    }
    let (status, result) = match outcome {
        Some(outcome) => result::encode(outcome, &masker),
        None => {
            let end = timed_out(&request);
            (end.status, end.result)
        }
    };
    End { status, result, output_sha256, output_truncated }
}

/// An action ends by itself: one that changes something turns back when its time is over, by the boot-time
/// clock, and all that it then waits for is bounded. The hard limit is for a defect only, so it leaves room
/// for the longest way back, and counts only time in which this machine was awake: it never comes first.
/// Reading is simply stopped.
fn hard_limit(request: &Request) -> DurationMs {
    let info = request.info();
    let margin = if info.class == actions::Class::Read { 0 } else { limits::TIMEOUT_MARGIN.0 };
    DurationMs(info.timeout.0.saturating_add(margin))
}

fn timed_out(request: &Request) -> End {
    let (info, limit) = (request.info(), hard_limit(request));
    let message = if info.class == actions::Class::Read {
        format!("{} did not end within {limit} and was stopped; try again, or see what holds the host up", info.name)
    } else {
        format!(
            "{} did not end within {limit} and was stopped where it stood. What it recorded is put back before the \
             next change to the same app; look at the host with `serverflow app show`",
            info.name
        )
    };
    let result = match (info.class, request.app()) {
        (actions::Class::Read, _) => Value::Null,
        (_, app) => json!({ "app": app, "changed": true, "rollback_pending": true }),
    };
    end_message(ReportStatus::Failed, &message, &result)
}

/// Runs the action to its end or to its hard limit, and hands on its output meanwhile.
async fn watched(
    run: impl Future<Output = Outcome>,
    limit: DurationMs,
    output: &SharedOutput,
    command: CommandId,
    events: &mpsc::Sender<ExecutorEvent>,
) -> Option<Outcome> {
    let deadline = tokio::time::Instant::now() + Duration::from_millis(limit.0);
    let mut run = pin!(run);
    loop {
        let mut due = pin!(async {
            output.arrived.notified().await;
            sleep(limits::PROGRESS_INTERVAL).await;
        });
        tokio::select! {
            outcome = &mut run => return Some(outcome),
            () = &mut due => {}
            () = sleep_until(deadline) => return None,
        }
        // The loop is always there to take it, so this does not hold the action up for long.
        hand_on(output, command, events).await;
    }
}

/// Hands on what was said so far.
async fn hand_on(output: &SharedOutput, command: CommandId, events: &mpsc::Sender<ExecutorEvent>) {
    loop {
        let text = {
            let mut output = output.lock();
            if !output.is_pending() {
                return;
            }
            output.take(session::limits::PROGRESS_BYTES_MAX)
        };
        if events.send(ExecutorEvent::Progress { command, text }).await.is_err() {
            return;
        }
    }
}

/// Why the values of an order could not be opened.
#[derive(Debug, thiserror::Error)]
enum OpenError {
    #[error(transparent)]
    Seal(#[from] SealError),
    #[error("the sealed value {name:?} is not text")]
    NotText { name: String },
    #[error("the order brings sealed values, but its action {action} concerns no app they could belong to")]
    NoApp { action: &'static str },
}

fn context(start: &StartCommand, request: &Request, tools: &Tools, policy: Policy) -> Result<ActionContext, OpenError> {
    let order = &start.command.order;
    let mut context = ActionContext {
        fleet: order.fleet,
        host: order.host,
        command: order.command,
        operation: order.operation,
        secrets: std::collections::BTreeMap::new(),
        remembered: Vec::new(),
        sealed: std::collections::BTreeMap::new(),
        fingerprint_key: tools.fingerprint_key.clone(),
        resumed: start.resumed,
        backwards_only: start.backwards_only,
        dry_run: order.dry_run,
        policy,
    };
    check_sealed_values(order, &start.sealed)?;
    for value in &start.sealed {
        let name = SecretName(value.name.clone());
        context.secrets.insert(name.clone(), open(order, request, tools, value)?);
        context.sealed.insert(name, value.bytes.clone());
    }
    Ok(context)
}

fn open(order: &Order, request: &Request, tools: &Tools, value: &SealedValue) -> Result<Zeroizing<String>, OpenError> {
    let app = request.app().ok_or(OpenError::NoApp { action: request.info().name })?;
    open_for(order, app, order.operation, tools, value)
}

fn open_for(
    order: &Order,
    app: &AppName,
    version: OperationId,
    tools: &Tools,
    value: &SealedValue,
) -> Result<Zeroizing<String>, OpenError> {
    let context = SealContext { fleet: order.fleet, host: order.host, app: app.as_str(), name: &value.name, version };
    let bytes = tools.sealing.open(&context, &value.bytes)?;
    let text = std::str::from_utf8(&bytes).map_err(|_| OpenError::NotText { name: value.name.clone() })?;
    Ok(Zeroizing::new(text.to_owned()))
}

/// The values of the app's releases that may run now. Its containers know them, and may write them into
/// the logs that this command reads, which brings no values itself.
async fn remembered(app: Option<&AppName>, order: &Order, tools: &Tools) -> Vec<Zeroizing<String>> {
    let Some(app) = app else { return Vec::new() };
    let record = tools.journal.record_read(&release::app_key(app)).await;
    // A journal that cannot be read ends the agent at the action's own first look into it.
    let Ok(Some(record)) = record else { return Vec::new() };
    let mut values = Vec::new();
    for id in release::live_releases(&record) {
        let record = tools.journal.record_read(&release::release_key(app, id)).await;
        let Ok(Some(record)) = record else { continue };
        let Some((version, sealed)) = release::sealed_values(&record) else { continue };
        for (name, bytes) in sealed {
            let value = SealedValue { name: name.0, bytes };
            match open_for(order, app, version, tools, &value) {
                Ok(text) => values.push(text),
                Err(error) => {
                    tracing::warn!(%app, release = %id, %error, "a value of a release cannot be opened, so it is not masked");
                }
            }
        }
    }
    values
}

#[cfg(test)]
mod tests;
