//! The way back: what the deploy made is removed, what it renamed gets its name again, what ran is
//! started, and then it is verified, not assumed.

use serde_json::{Value, json};

use super::{
    commit::state_word,
    switch::{grace_of, restart_of},
    verify::{Findings, verify},
};
use crate::{
    effect::{AppState, ContainerState, Effect, RunState},
    engine::{Engine, last_lines},
    limits,
    outcome::{Outcome, OutcomeStatus},
    port::{ActionContext, ActionPort},
    release::{Before, Book, Pending, PendingDeploy, Phase, RecordedEnd, ReleaseRecord, is_parked},
    spec::RestartPolicy,
    spec_read,
    stop::{Fault, Stop},
};

/// The last lines of the containers that failed, while they still exist.
pub(crate) async fn last_words<P: ActionPort>(fault: &Fault, engine: &mut Engine<'_, P>) -> Vec<Value> {
    let mut all = Vec::new();
    let bytes_max = limits::FAILURE_LOG_BYTES_MAX.min(limits::FAILURE_LOGS_BYTES_MAX / fault.failing.len().max(1));
    for (service, container) in &fault.failing {
        // Without logs the failure is still worth reporting.
        let logs = engine.logs(container, limits::FAILURE_LOG_LINES).await.unwrap_or_default();
        let logs = last_lines(&logs, bytes_max);
        all.push(json!({ "service": service, "container": container, "logs": logs }));
    }
    all
}

/// Writes down that this deploy goes back and how it will have ended, then goes back.
pub(super) async fn put_back<P: ActionPort>(
    end: RecordedEnd,
    context: &ActionContext,
    book: &mut Book,
    engine: &mut Engine<'_, P>,
) -> Outcome {
    let Some(Pending::Deploy(pending)) = &mut book.record.pending else {
        return end.into_outcome();
    };
    pending.phase = Phase::Back(end);
    if let Err(error) = book.write(engine).await {
        return stuck(book, &error.to_string());
    }
    go_back(context, book, engine).await
}

/// Goes back, or goes on with that.
pub(super) async fn go_back<P: ActionPort>(
    context: &ActionContext,
    book: &mut Book,
    engine: &mut Engine<'_, P>,
) -> Outcome {
    let Some(Pending::Deploy(pending)) = book.record.pending.clone() else {
        return Outcome::failed("the agent lost track of this deploy; deploy again");
    };
    let Phase::Back(end) = pending.phase.clone() else {
        return Outcome::failed("the agent lost track of this deploy; deploy again");
    };
    engine.turned_back();
    engine.progress(format!("putting {} back: {}", book.record.app, end.message));
    match restore(&pending, book, engine).await {
        Ok(restored) => finish(restored, end, context, book, engine).await,
        Err(stop) => stuck_with(stop, &end, book),
    }
}

/// What is there after going back.
struct Restored {
    state: AppState,
    /// What is not as it was, in words.
    wrong: Vec<String>,
}

async fn restore<P: ActionPort>(
    pending: &PendingDeploy,
    book: &Book,
    engine: &mut Engine<'_, P>,
) -> Result<Restored, Stop> {
    let app = &book.record.app;
    let from_record = book.release(engine, pending.from).await?;
    let state = engine.observe(app).await?;
    let is_old = |id: &str| pending.before.iter().any(|old| old.id == id);
    let to_record = book.release(engine, Some(pending.to)).await?;
    let mut found = Findings::default();
    for container in state.containers.iter().filter(|container| !is_old(&container.id)) {
        let removed = remove_new(container, to_record.as_ref(), engine).await;
        found.note(&container.name, "be removed", removed)?;
    }
    for old in in_starting_order(&pending.before, from_record.as_ref()) {
        match state.containers.iter().find(|container| container.id == old.id) {
            Some(current) => old_back(old, current, (book, from_record.as_ref()), &mut found, engine).await?,
            None => found.lose(old, format!("container {} does not exist any more", old.name)),
        }
    }
    let state = verify(&pending.before, from_record.as_ref(), app, &mut found, engine).await?;
    // Every service that could come back has; the rest is tried again before the next change.
    let wrong = found.all_done()?;
    for name in state.networks.iter().filter(|name| !pending.networks_before.contains(name)) {
        engine.network_drop(name).await?;
    }
    engine.files_sweep(app).await?;
    if !book.keeps(pending.to) {
        for tag in &pending.tags {
            let effect = Effect::ImageUntag { repository: tag.repository.clone(), tag: tag.tag.clone() };
            engine.done(effect).await?;
        }
        book.release_forget(engine, pending.to).await?;
    }
    Ok(Restored { state, wrong })
}

/// Gives one container its name and its restart policy back, and has it run if it ran. What cannot be
/// done is noted: it holds up no other container.
async fn old_back<P: ActionPort>(
    old: &Before,
    current: &ContainerState,
    (book, from_record): (&Book, Option<&ReleaseRecord>),
    found: &mut Findings,
    engine: &mut Engine<'_, P>,
) -> Result<(), Stop> {
    if current.name != old.name {
        let renamed = engine.rename(&old.id, &current.name, &old.name).await.map_err(Stop::from);
        if !found.note(&current.name, &format!("get its name {} back", old.name), renamed)? {
            // Whatever has its name may be using what it stands on.
            found.give_up(old);
            return Ok(());
        }
    }
    if let Some(restart) = restart_before(old, book, from_record) {
        let done = engine.done(Effect::ContainerRestartPolicy { name: old.name.clone(), restart }).await;
        found.note(&old.name, "get its restart policy back", done.map_err(Stop::from))?;
    }
    if old.ran() {
        start(old, current, found, engine).await?;
    } else if Before::of(current).ran() {
        let grace_ms = limits::STOP_GRACE_DEFAULT.0;
        let stopped = engine.done(Effect::ContainerStop { name: old.name.clone(), grace_ms }).await;
        found.note(&old.name, "be stopped", stopped.map_err(Stop::from))?;
    }
    Ok(())
}

/// The restart policy that a container had before, if the deploy may have changed it: it takes it from
/// one that is replaced and always restarts, and gives it back to one that an order had stopped.
fn restart_before(old: &Before, book: &Book, from: Option<&ReleaseRecord>) -> Option<RestartPolicy> {
    let restart = restart_of(from, &old.service);
    let stopped = book.record.stopped.iter().any(|name| name.as_str() == old.service);
    match restart {
        RestartPolicy::No => None,
        _ if stopped => Some(RestartPolicy::No),
        RestartPolicy::Always => Some(restart),
        RestartPolicy::OnFailure { .. } | RestartPolicy::UnlessStopped => None,
    }
}

/// Removes a container of the release that did not make it. It gets its time to end: it may be a
/// database that has begun to write.
async fn remove_new<P: ActionPort>(
    container: &ContainerState,
    to_record: Option<&ReleaseRecord>,
    engine: &mut Engine<'_, P>,
) -> Result<(), Stop> {
    if matches!(container.run, RunState::Running | RunState::Restarting | RunState::Paused) {
        let grace_ms = grace_of(to_record, &container.service).0;
        engine.done(Effect::ContainerStop { name: container.name.clone(), grace_ms }).await?;
    }
    engine.done(Effect::ContainerRemove { name: container.name.clone() }).await?;
    Ok(())
}

/// Starts an old container that does not run. That it cannot be started is a finding, not a reason to
/// leave the rest.
pub(crate) async fn start<P: ActionPort>(
    old: &Before,
    current: &ContainerState,
    found: &mut Findings,
    engine: &mut Engine<'_, P>,
) -> Result<(), Stop> {
    if Before::of(current).ran() {
        return Ok(());
    }
    match engine.done(Effect::ContainerStart { name: old.name.clone() }).await.map_err(Stop::from) {
        Ok(()) => Ok(()),
        Err(Stop::Fault(fault)) => {
            found.lose(old, format!("container {} could not be started again: {}", old.name, fault.message));
            Ok(())
        }
        Err(stop) => Err(stop),
    }
}

pub(crate) fn in_starting_order<'a>(before: &'a [Before], from_record: Option<&ReleaseRecord>) -> Vec<&'a Before> {
    let order = from_record.and_then(|record| spec_read::start_order(&record.spec).ok()).unwrap_or_default();
    let place = |old: &Before| order.iter().position(|name| name.as_str() == old.service).unwrap_or(order.len());
    let mut sorted: Vec<&Before> = before.iter().collect();
    sorted.sort_by(|a, b| place(a).cmp(&place(b)).then_with(|| a.name.cmp(&b.name)));
    sorted
}

/// Says how it ended: rolled back or cancelled if all is as it was, failed otherwise.
async fn finish<P: ActionPort>(
    restored: Restored,
    mut end: RecordedEnd,
    context: &ActionContext,
    book: &mut Book,
    engine: &mut Engine<'_, P>,
) -> Outcome {
    let why = end.message.trim_end_matches('.').to_owned();
    let app = book.record.app.clone();
    let first = restored.state.containers.is_empty();
    if restored.wrong.is_empty() {
        end.message = match (first, restored.state.volumes.as_slice()) {
            (false, _) => format!("{why}. {app} was put back as it was, and verified"),
            (true, []) => format!("{why}. Nothing of {app} is left on this host"),
            (true, volumes) => {
                format!("{why}. Nothing of {app} is left on this host but its volumes: {}", volumes.join(", "))
            }
        };
    } else {
        end.status = OutcomeStatus::Failed;
        end.message = format!(
            "{why}. Putting {app} back failed as well: {}. Look at it with `serverflow app logs {app}`, then deploy a release that works",
            restored.wrong.join("; ")
        );
    }
    if let Value::Object(result) = &mut end.result {
        let services =
            restored.state.containers.iter().filter(|container| !is_parked(&container.name)).map(|container| {
                (container.service.clone(), json!({ "container": container.name, "state": state_word(container) }))
            });
        result.insert("services".to_owned(), Value::Object(services.collect()));
        result.insert("release".to_owned(), json!(book.record.current));
        result.insert("volumes_kept".to_owned(), json!(restored.state.volumes));
        if !restored.wrong.is_empty() {
            result.insert("rollback_failed".to_owned(), Value::Bool(true));
        }
    }
    let end = super::deploy::masked(context, end);
    let record = book.record.clone();
    book.record.pending = None;
    book.record.last_end = Some(end.clone());
    if let Err(error) = book.write(engine).await {
        book.record = record;
        return stuck(book, &error.to_string());
    }
    end.into_outcome()
}

/// Going back is not finished; the record stays, and the next change goes on with it.
fn stuck_with(stop: Stop, end: &RecordedEnd, book: &Book) -> Outcome {
    let why = end.message.trim_end_matches('.');
    let app = &book.record.app;
    let mut outcome = Outcome::failed(format!(
        "{why}. Putting {app} back is not finished: {}. It goes on before the next change to {app}; mend the cause, then deploy again",
        stop.words().trim_end_matches('.')
    ));
    outcome.result = end.result.clone();
    if let Value::Object(result) = &mut outcome.result {
        result.insert("changed".to_owned(), Value::Bool(true));
        result.insert("rollback_pending".to_owned(), Value::Bool(true));
        result.insert("rollback_failed".to_owned(), Value::Bool(!matches!(stop, Stop::Unreachable(_))));
    }
    outcome
}

fn stuck(book: &Book, why: &str) -> Outcome {
    let app = &book.record.app;
    let mut outcome = Outcome::failed(format!(
        "the agent's journal cannot be written ({why}), so nothing more was done to {app}. What was begun is put back before the next change; mend the disk, then deploy again"
    ));
    outcome.result = json!({ "app": app, "changed": true, "rollback_pending": true });
    outcome
}
