//! The way forward: down in reverse starting order, each with its own grace; up in starting order,
//! each after what it waits for.
//!
//! Every step may run twice, because after a crash all of its phase runs again.

use ids::ServiceName;

use super::{Carried, LOST, Order, RunChange, Verb};
use crate::{
    app_deploy::{
        health::{Goal, Watch},
        switch::{grace_of, refused, restart_of},
    },
    effect::{AppState, Effect, RunState},
    engine::Engine,
    limits,
    port::ActionPort,
    release::{Before, Book, Pending, PendingRun, ReleaseRecord, RunPhase},
    spec::RestartPolicy,
    spec_read,
    stop::Stop,
};

pub(super) async fn carry<P: ActionPort>(
    order: &Order<'_>,
    book: &mut Book,
    engine: &mut Engine<'_, P>,
) -> Result<Carried, Stop> {
    let Some(release) = book.release(engine, book.record.current).await? else {
        return Err(Stop::fault("the record of the release is missing; deploy the app again"));
    };
    let Some(Pending::Run(pending)) = book.record.pending.clone() else {
        return Err(Stop::fault(LOST));
    };
    let mut sequence = spec_read::start_order(&release.spec).map_err(|_| Stop::fault(LOST))?;
    sequence.retain(|name| pending.changes.contains_key(name));
    if pending.phase == RunPhase::Stopping {
        let state = engine.observe(order.app).await?;
        for name in sequence.iter().rev() {
            engine.may_go_on()?;
            stop(order, &release, name, &state, engine).await?;
        }
    }
    if order.verb == Verb::Stop {
        let state = engine.observe(order.app).await?;
        stopped_verified(&pending, &state)?;
        return Ok(Carried { release, state, without_probe: Vec::new() });
    }
    if pending.phase == RunPhase::Stopping {
        if let Some(Pending::Run(pending)) = &mut book.record.pending {
            pending.phase = RunPhase::Starting;
        }
        book.write(engine).await?;
    }
    let min_healthy = limits::MIN_HEALTHY_DEFAULT.min(order.health_deadline);
    let mut watch = Watch::new(&release.spec, order.health_deadline, min_healthy);
    for name in &sequence {
        engine.may_go_on()?;
        start(book, (&release, &pending), name, &mut watch, engine).await?;
    }
    let health = watch.until(Goal::All, engine).await?;
    let mut without_probe = health.without_probe;
    without_probe.retain(|name| pending.changes.contains_key(name));
    Ok(Carried { state: health.state, release, without_probe })
}

/// Stops a service's container. One that is to stay down first loses its restart policy, or the engine
/// would start it when it starts itself.
async fn stop<P: ActionPort>(
    order: &Order<'_>,
    release: &ReleaseRecord,
    name: &ServiceName,
    state: &AppState,
    engine: &mut Engine<'_, P>,
) -> Result<(), Stop> {
    let container = spec_read::container_name(order.app, name.as_str());
    let Some(current) = state.containers.iter().find(|other| other.name == container) else { return Ok(()) };
    if order.verb == Verb::Stop && restart_of(Some(release), name.as_str()) != RestartPolicy::No {
        let effect = Effect::ContainerRestartPolicy { name: container.clone(), restart: RestartPolicy::No };
        engine.done(effect).await?;
    }
    if !matches!(current.run, RunState::Created | RunState::Exited { .. } | RunState::Dead) {
        engine.progress(format!("{name}: stopping {container}"));
        let grace_ms = grace_of(Some(release), name.as_str()).0;
        engine.done(Effect::ContainerStop { name: container, grace_ms }).await?;
    }
    Ok(())
}

fn stopped_verified(pending: &PendingRun, state: &AppState) -> Result<(), Stop> {
    for old in &pending.before {
        let current = state.containers.iter().find(|container| container.id == old.id);
        if let Some(current) = current.filter(|current| Before::of(current).ran()) {
            let message = format!("service {}: container {} runs although it was stopped", old.service, current.name);
            return Err(Stop::failing(&old.service, &current.name, message));
        }
    }
    Ok(())
}

async fn start<P: ActionPort>(
    book: &Book,
    (release, pending): (&ReleaseRecord, &PendingRun),
    name: &ServiceName,
    watch: &mut Watch<'_>,
    engine: &mut Engine<'_, P>,
) -> Result<(), Stop> {
    let service = &release.spec.services[name];
    for (dependency, condition) in spec_read::dependencies(&release.spec, service) {
        // What an order has stopped is not waited for: it would be in vain.
        if pending.changes.contains_key(&dependency) || !book.record.stopped.contains(&dependency) {
            watch.until(Goal::Dependency { of: name.clone(), dependency, condition }, engine).await?;
        }
    }
    let container = spec_read::container_name(&release.spec.app, name.as_str());
    if pending.changes.get(name) == Some(&RunChange::Start) && service.restart != RestartPolicy::No {
        let effect = Effect::ContainerRestartPolicy { name: container.clone(), restart: service.restart };
        engine.done(effect).await?;
    }
    engine.progress(format!("{name}: starting {container}"));
    engine
        .done(Effect::ContainerStart { name: container.clone() })
        .await
        .map_err(|error| refused(name, &container, "could not be started", error))?;
    watch.started(name.clone());
    Ok(())
}
