//! Stopping, starting and restarting what is deployed: one straight line for the three actions.
//!
//! Nothing is made or removed here, so the way back is short: what ran is started, what did not run is
//! stopped. As with a deploy, the intention is written down before the first container is touched,
//! and the end is one write, after which the record says what the host does.

mod back;
mod carry;
mod decide;

use ids::{AppName, DurationMs, ServiceName};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

pub(crate) use self::back::{go_back, put_back};
use self::decide::Decision;
use crate::{
    app_deploy::{Settled, commit::state_word, deploy::masked, put_back::last_words, settle_earlier},
    effect::AppState,
    engine::{Engine, count},
    limits,
    outcome::{Outcome, OutcomeStatus},
    port::{ActionContext, ActionPort},
    registry::Fault,
    release::{Before, Book, Pending, PendingRun, RecordedEnd, ReleaseRecord, RunPhase},
    spec_read,
    stop::Stop,
};

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Verb {
    /// Down, and to stay down.
    Stop,
    /// Up again.
    Start,
    /// Down and up.
    Restart,
}

impl Verb {
    pub(crate) const fn noun(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Start => "start",
            Self::Restart => "restart",
        }
    }

    const fn participle(self) -> &'static str {
        match self {
            Self::Stop => "stopped",
            Self::Start => "started",
            Self::Restart => "restarted",
        }
    }
}

/// What happens to one service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum RunChange {
    /// Its container is stopped, and nothing starts it but an order.
    Stop,
    /// Its container is started.
    Start,
    /// Its container is stopped and started.
    Restart,
}

/// One of the three orders.
pub(crate) struct Order<'a> {
    pub(crate) verb: Verb,
    pub(crate) app: &'a AppName,
    /// Empty means all.
    pub(crate) services: &'a [ServiceName],
    pub(crate) health_deadline: DurationMs,
}

/// The release that runs, and what is to be done to its services.
struct Survey {
    release: ReleaseRecord,
    decision: Decision,
    state: AppState,
}

pub(crate) async fn run<P: ActionPort>(order: &Order<'_>, context: &ActionContext, port: &mut P) -> Outcome {
    let mut engine = Engine::patient(port, limits::CHANGE_TIMEOUT);
    let (app, untouched) = (order.app, format!("{} was not {}", order.app, order.verb.participle()));
    let mut book = match Book::open(&mut engine, app).await {
        Ok(book) => book,
        Err(error) => return Stop::from(error).untouched(&untouched),
    };
    if context.dry_run {
        return match survey(order, &book, &mut engine).await {
            Ok(survey) => planned(order, &survey),
            Err(stop) => stop.untouched(&format!("{app} cannot be {}", order.verb.participle())),
        };
    }
    if let Some(end) = book.end_of(context.command) {
        return end.into_outcome();
    }
    let settled = match settle_earlier(context, &mut book, &mut engine).await {
        Settled::Before(earlier) => earlier,
        Settled::Forward if context.backwards_only => {
            let why = "the order became void while it was carried out (its key was dropped)";
            let end = recorded(order, context, OutcomeStatus::RolledBack, why.to_owned(), &[]);
            return put_back(end, context, &mut book, &mut engine).await;
        }
        Settled::Forward => return go_on(order, context, &mut book, &mut engine).await,
        Settled::Ended(outcome) => return outcome,
    };
    if context.backwards_only {
        return settled.untouched(Stop::fault("the order became void before it began"), &untouched);
    }
    let survey = match survey(order, &book, &mut engine).await {
        Ok(survey) => survey,
        Err(stop) => return settled.untouched(stop, &untouched),
    };
    if survey.decision.changes.is_empty() {
        return nothing_to_change(order, &book, &survey);
    }
    if let Err(stop) = engine.may_go_on() {
        return settled.untouched(stop, &untouched);
    }
    if let Err(stop) = begin(order, context, &survey, &mut book, &mut engine).await {
        return settled.untouched(stop, &untouched);
    }
    go_on(order, context, &mut book, &mut engine).await
}

async fn survey<P: ActionPort>(order: &Order<'_>, book: &Book, engine: &mut Engine<'_, P>) -> Result<Survey, Stop> {
    let Some(release) = book.release(engine, book.record.current).await? else {
        let app = order.app;
        return Err(Stop::fault(format!("this host has no app named {app}; see `serverflow app list`")));
    };
    let state = engine.observe(order.app).await?;
    let decision = decide::decide(order, &release.spec, &book.record.stopped, &state).map_err(Stop::fault)?;
    Ok(Survey { release, decision, state })
}

/// Writes down what is to be done and how everything was. From here on every failure goes back.
async fn begin<P: ActionPort>(
    order: &Order<'_>,
    context: &ActionContext,
    survey: &Survey,
    book: &mut Book,
    engine: &mut Engine<'_, P>,
) -> Result<(), Stop> {
    let concerned = |service: &str| survey.decision.changes.keys().any(|name| name.as_str() == service);
    let containers = survey.state.containers.iter().filter(|container| concerned(&container.service));
    book.record.pending = Some(Pending::Run(Box::new(PendingRun {
        command: context.command,
        verb: order.verb,
        changes: survey.decision.changes.clone(),
        phase: if order.verb == Verb::Start { RunPhase::Starting } else { RunPhase::Stopping },
        before: containers.map(Before::of).collect(),
    })));
    book.write(engine).await?;
    Ok(())
}

/// From the written intention to the end, whichever it is.
async fn go_on<P: ActionPort>(
    order: &Order<'_>,
    context: &ActionContext,
    book: &mut Book,
    engine: &mut Engine<'_, P>,
) -> Outcome {
    engine.touched();
    let stop = match carry::carry(order, book, engine).await {
        Ok(carried) => match commit(order, context, carried, book, engine).await {
            Ok(end) => return end.into_outcome(),
            Err(stop) => stop,
        },
        Err(stop) => stop,
    };
    let verb = order.verb.noun();
    let (status, message, failing) = match stop {
        Stop::Journal(why) => return half_way(order, &format!("the agent's journal cannot be written ({why})")),
        Stop::Unreachable(why) => {
            let why = format!("Docker did not answer until the time for this order was over ({why})");
            return half_way(order, &why);
        }
        Stop::Cancelled => (OutcomeStatus::Cancelled, format!("the {verb} of {} was cancelled", order.app), Vec::new()),
        Stop::Fault(fault) => {
            let logs = last_words(&fault, engine).await;
            (OutcomeStatus::RolledBack, fault.message, logs)
        }
    };
    put_back(recorded(order, context, status, message, &failing), context, book, engine).await
}

/// What was reached.
struct Carried {
    release: ReleaseRecord,
    state: AppState,
    /// Services that were started and have no health check.
    without_probe: Vec<ServiceName>,
}

/// One write: the change is done, and the record says what the host does.
async fn commit<P: ActionPort>(
    order: &Order<'_>,
    context: &ActionContext,
    carried: Carried,
    book: &mut Book,
    engine: &mut Engine<'_, P>,
) -> Result<RecordedEnd, Stop> {
    let Some(Pending::Run(pending)) = book.record.pending.clone() else {
        return Err(Stop::fault(LOST));
    };
    let before = book.record.clone();
    for name in pending.changes.keys() {
        match order.verb {
            Verb::Stop => book.record.stopped.insert(name.clone()),
            Verb::Start | Verb::Restart => book.record.stopped.remove(name),
        };
    }
    let mut result = shape(order, book, &carried.release, &carried.state, &pending.changes);
    if order.verb != Verb::Stop {
        result["verified"] = json!(carried.without_probe.is_empty());
    }
    let message = message(order, pending.changes.len(), &carried.without_probe);
    let end = RecordedEnd { command: context.command, status: OutcomeStatus::Succeeded, message, result };
    let end = masked(context, end);
    book.record.pending = None;
    book.record.last_end = Some(end.clone());
    if let Err(error) = book.write(engine).await {
        book.record = before;
        return Err(error.into());
    }
    Ok(end)
}

const LOST: &str = "the agent lost track of this change; order it again";

fn message(order: &Order<'_>, changed: usize, without_probe: &[ServiceName]) -> String {
    let (app, done, services) = (order.app, order.verb.participle(), count(changed, "service"));
    let names: Vec<&str> = without_probe.iter().map(ServiceName::as_str).collect();
    match (order.verb, names.as_slice()) {
        (Verb::Stop, _) => {
            format!("{app}: {services} stopped. They stay so until `serverflow app start {app}` or the next deploy")
        }
        (_, []) => format!("{app}: {services} {done}, all healthy"),
        (_, [one]) => format!("unverified: {app}: {services} {done}, but {one} has no health check"),
        (_, many) => {
            format!("unverified: {app}: {services} {done}, but these have no health check: {}", many.join(", "))
        }
    }
}

/// The result's common part.
fn shape(
    order: &Order<'_>,
    book: &Book,
    release: &ReleaseRecord,
    state: &AppState,
    changes: &std::collections::BTreeMap<ServiceName, RunChange>,
) -> Value {
    let mut services = Map::new();
    for name in release.spec.services.keys() {
        let container = spec_read::container_name(order.app, name.as_str());
        let found = state.containers.iter().find(|other| other.name == container);
        let word = match found {
            None => "absent",
            Some(found) if book.record.stopped.contains(name) && !Before::of(found).ran() => "stopped",
            Some(found) => state_word(found),
        };
        let change = changes.get(name).map_or(json!("unchanged"), |change| json!(change));
        services.insert(name.to_string(), json!({ "change": change, "container": container, "state": word }));
    }
    json!({
        "app": order.app,
        "release": book.record.current,
        "changed": !changes.is_empty(),
        "state": decide::app_state(&release.spec, &book.record.stopped),
        "services": services,
    })
}

fn recorded(
    order: &Order<'_>,
    context: &ActionContext,
    status: OutcomeStatus,
    message: String,
    failing: &[Value],
) -> RecordedEnd {
    let result = json!({ "app": order.app, "changed": false, "failing": failing });
    masked(context, RecordedEnd { command: context.command, status, message, result })
}

fn planned(order: &Order<'_>, survey: &Survey) -> Outcome {
    let Decision { order: sequence, changes } = &survey.decision;
    let sequence: Vec<&ServiceName> = match order.verb {
        Verb::Stop => sequence.iter().rev().collect(),
        Verb::Start | Verb::Restart => sequence.iter().collect(),
    };
    let entries: Vec<Value> = sequence
        .into_iter()
        .filter_map(|name| changes.get(name).map(|change| json!({ "service": name, "change": change })))
        .collect();
    let names: Vec<&str> = entries.iter().filter_map(|entry| entry["service"].as_str()).collect();
    let message = match names.as_slice() {
        [] => format!("dry run: there is nothing to {} of {}", order.verb.noun(), order.app),
        names => {
            format!("dry run: would {} {} of {}; nothing was changed", order.verb.noun(), names.join(", "), order.app)
        }
    };
    let result = json!({ "app": order.app, "dry_run": true, "changed": !entries.is_empty(), "changes": entries });
    Outcome::succeeded(message, result)
}

fn nothing_to_change(order: &Order<'_>, book: &Book, survey: &Survey) -> Outcome {
    let app = order.app;
    let message = match (order.verb, order.services) {
        (Verb::Stop, []) => format!("nothing to change: {app} is stopped already"),
        (Verb::Stop, _) => format!("nothing to change: these services of {app} are stopped already"),
        (Verb::Restart, _) => format!(
            "nothing to restart: each service of {app} has completed; `serverflow app restart {app} --service NAME` runs \
             one again"
        ),
        (Verb::Start, []) => format!("nothing to change: {app} runs already"),
        (Verb::Start, _) => format!("nothing to change: these services of {app} run already"),
    };
    Outcome::succeeded(message, shape(order, book, &survey.release, &survey.state, &survey.decision.changes))
}

/// Neither forward nor backward is possible now; the record stays, and the next change goes back first.
fn half_way(order: &Order<'_>, why: &str) -> Outcome {
    let (app, verb) = (order.app, order.verb.noun());
    let mut outcome = Outcome::failed(format!(
        "the {verb} of {app} stopped half-way: {why}. What it began is put back before the next change to {app}; mend the cause, then order it again"
    ));
    outcome.result = json!({ "app": app, "changed": true, "rollback_pending": true });
    outcome
}

/// Names of services: some, and each once.
pub(crate) fn services_check(services: Option<&[ServiceName]>) -> Result<(), Fault> {
    let Some(services) = services else { return Ok(()) };
    if services.is_empty() || services.len() > limits::SERVICES_MAX {
        let message =
            format!("{} services: name 1 to {}, or leave it out for all", services.len(), limits::SERVICES_MAX);
        return Err(Fault::new("services", message));
    }
    let twice = services.iter().enumerate().find(|(at, name)| services[..*at].contains(name));
    twice.map_or(Ok(()), |(at, name)| Err(Fault::new(format!("services[{at}]"), format!("{name} is named twice"))))
}

/// A health deadline, if one is asked for.
pub(crate) fn timeout_check(timeout_ms: Option<u64>) -> Result<(), Fault> {
    let (least, most) = (limits::HEALTH_DEADLINE_MIN, limits::HEALTH_DEADLINE_MAX);
    match timeout_ms {
        Some(span) if !(least.0..=most.0).contains(&span) => {
            Err(Fault::new("timeout_ms", format!("between {} and {} milliseconds", least.0, most.0)))
        }
        _ => Ok(()),
    }
}
