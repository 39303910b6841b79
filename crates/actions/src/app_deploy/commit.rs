//! The new release is healthy: it becomes the current one, and what it replaced goes away.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{deploy::Deploy, health::Health};
use crate::{
    app_plan::Change,
    effect::{AppState, ContainerState, Effect, Health as Probe, RunState},
    engine::Engine,
    limits,
    outcome::{Outcome, OutcomeStatus},
    port::ActionPort,
    release::{Book, Pending, PendingDeploy, Phase, RecordedEnd, ReleaseEntry},
    spec_read,
    stop::Stop,
};

/// Writes down that the new release is the one, then cleans up.
pub(super) async fn commit<P: ActionPort>(
    deploy: &Deploy<'_>,
    health: &Health,
    book: &mut Book,
    engine: &mut Engine<'_, P>,
) -> Outcome {
    let Some(Pending::Deploy(mut pending)) = book.record.pending.clone() else {
        return Outcome::failed("the agent lost track of this deploy; deploy again");
    };
    let end = end(deploy, health, &pending);
    pending.phase = Phase::Clean(end.clone());
    let mut releases = book.record.releases.clone();
    releases.retain(|entry| entry.release != pending.to);
    releases.push(ReleaseEntry { release: pending.to, tags: pending.tags.clone() });
    let before = book.record.clone();
    book.record.current = Some(pending.to);
    book.record.releases = releases;
    book.record.stopped.clear();
    book.record.pending = Some(Pending::Deploy(pending));
    if let Err(error) = book.write(engine).await {
        book.record = before;
        let mut outcome = Outcome::failed(format!(
            "the new release of {} is up, but the agent's journal cannot be written ({error}), so it does not count. It is put back before the next change; mend the disk, then deploy again",
            deploy.order.spec.app
        ));
        outcome.result = json!({ "app": deploy.order.spec.app, "changed": true, "rollback_pending": true });
        return outcome;
    }
    clean(book, engine).await
}

fn end(deploy: &Deploy<'_>, health: &Health, pending: &PendingDeploy) -> RecordedEnd {
    let app = &deploy.order.spec.app;
    let changed = deploy.decision.changes.values().filter(|change| **change != Change::Unchanged).count();
    let count = crate::engine::count(changed, "service");
    let names: Vec<&str> = health.without_probe.iter().map(ids::ServiceName::as_str).collect();
    let message = match names.as_slice() {
        [] => format!("{app} is deployed: {count} changed, all healthy"),
        [one] => format!("unverified: {app} is deployed and runs ({count} changed), but {one} has no health check"),
        many => {
            format!(
                "unverified: {app} is deployed and runs ({count} changed), but these have no health check: {}",
                many.join(", ")
            )
        }
    };
    let result = json!({
        "app": app,
        "release": pending.to,
        "from": pending.from,
        "changed": true,
        "verified": names.is_empty(),
        "services": services(deploy, &health.state),
    });
    let end = RecordedEnd { command: deploy.context.command, status: OutcomeStatus::Succeeded, message, result };
    super::deploy::masked(deploy.context, end)
}

/// Each service's change and state, for the result.
pub(super) fn services(deploy: &Deploy<'_>, state: &AppState) -> BTreeMap<String, Value> {
    let entry = |name: &ids::ServiceName, change: &Change| {
        let container_name = spec_read::container_name(&deploy.order.spec.app, name.as_str());
        let container = state.containers.iter().find(|container| container.name == container_name);
        let value = json!({
            "change": change,
            "container": container_name,
            "state": container.map_or("absent", state_word),
            "image": deploy.order.images.get(name).map(|image| image.pinned.as_str()),
        });
        (name.to_string(), value)
    };
    deploy.decision.changes.iter().map(|(name, change)| entry(name, change)).collect()
}

/// A container's state in one word.
pub(crate) fn state_word(container: &ContainerState) -> &'static str {
    match (container.run, container.health) {
        (RunState::Running, Probe::Healthy) => "healthy",
        (RunState::Running, Probe::Unhealthy) => "unhealthy",
        (RunState::Running, Probe::Starting) => "starting",
        (RunState::Running, Probe::None) => "running",
        (RunState::Exited { code: 0 }, _) => "completed",
        (RunState::Exited { .. }, _) => "failed",
        (RunState::Created, _) => "created",
        (RunState::Restarting, _) => "restarting",
        (RunState::Paused, _) => "paused",
        (RunState::Dead, _) => "dead",
    }
}

/// Removes what the current release replaced. The release counts already: what cannot be removed now
/// is removed before the next change.
pub(super) async fn clean<P: ActionPort>(book: &mut Book, engine: &mut Engine<'_, P>) -> Outcome {
    let Some(Pending::Deploy(pending)) = book.record.pending.clone() else {
        return Outcome::failed("the agent lost track of this deploy; deploy again");
    };
    let Phase::Clean(mut end) = pending.phase.clone() else {
        return Outcome::failed("the agent lost track of this deploy; deploy again");
    };
    match clean_up(&pending, book, engine).await {
        Ok(()) => end.into_outcome(),
        Err(stop) => {
            end.message = format!(
                "{}. What it replaced could not be removed yet ({}); that happens before the next change",
                end.message,
                stop.words().trim_end_matches('.')
            );
            if let Value::Object(result) = &mut end.result {
                result.insert("cleanup_pending".to_owned(), Value::Bool(true));
            }
            end.into_outcome()
        }
    }
}

async fn clean_up<P: ActionPort>(
    pending: &PendingDeploy,
    book: &mut Book,
    engine: &mut Engine<'_, P>,
) -> Result<(), Stop> {
    engine.touched();
    let app = book.record.app.clone();
    let Some(current) = book.release(engine, Some(pending.to)).await? else {
        return Err(Stop::fault("the record of the new release is missing"));
    };
    let mine: Vec<String> =
        current.spec.services.keys().map(|name| spec_read::container_name(&app, name.as_str())).collect();
    let state = engine.observe(&app).await?;
    for container in state.containers.iter().filter(|container| !mine.contains(&container.name)) {
        engine.progress(format!("removing {}", container.name));
        engine.done(Effect::ContainerRemove { name: container.name.clone() }).await?;
    }
    engine.files_sweep(&app).await?;
    let networks = spec_read::networks_used(&current.spec);
    for name in state.networks.iter().filter(|name| !networks.values().any(|used| used == *name)) {
        engine.network_drop(name).await?;
    }
    while book.record.releases.len() > limits::RELEASES_KEPT {
        let oldest = book.record.releases[0].clone();
        for tag in oldest.tags {
            engine.done(Effect::ImageUntag { repository: tag.repository, tag: tag.tag }).await?;
        }
        book.release_forget(engine, oldest.release).await?;
        // In memory only: the last write below makes it durable, and until then this repeats.
        book.record.releases.remove(0);
    }
    let Phase::Clean(end) = &pending.phase else { return Ok(()) };
    let record = book.record.clone();
    book.record.pending = None;
    book.record.last_end = Some(end.clone());
    if let Err(error) = book.write(engine).await {
        book.record = record;
        return Err(error.into());
    }
    Ok(())
}
