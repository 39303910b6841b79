//! The way forward: networks and volumes, then service by service in starting order, the old
//! container stopped and renamed, the new one made, started and waited for.
//!
//! Every step looks at what is there and does only what is missing, because after a crash all of
//! this runs again.

use std::collections::BTreeMap;

use ids::{DurationMs, ServiceName};

use super::{
    deploy::{Deploy, release_record},
    health::{self, Goal, Health},
};
use crate::{
    app_plan::Change,
    effect::{AppState, ContainerSpec, Effect, EffectError, EffectErrorKind, RunState},
    engine::Engine,
    foreign, limits,
    port::ActionPort,
    release::{Before, Book, Pending, PendingDeploy, ReleaseRecord, parked_name},
    spec::RestartPolicy,
    spec_read,
    stop::Stop,
};

/// Makes the new release run, and waits until all of it is healthy.
pub(super) async fn switch<P: ActionPort>(
    deploy: &Deploy<'_>,
    book: &Book,
    engine: &mut Engine<'_, P>,
) -> Result<Health, Stop> {
    let Some(Pending::Deploy(pending)) = &book.record.pending else {
        return Err(Stop::fault("the agent lost track of this deploy; deploy again"));
    };
    book.release_write(engine, &release_record(deploy, engine)).await?;
    tag_images(deploy, pending, engine).await?;
    networks_and_volumes(deploy, engine).await?;
    let before: BTreeMap<&str, &Before> = pending.before.iter().map(|b| (b.id.as_str(), b)).collect();
    let early = deploy.decision.early.iter().filter_map(|name| deploy.decision.old.get(name));
    for id in deploy.decision.orphans.iter().chain(early) {
        park(deploy, &before, id, engine).await?;
    }
    let mut watch = health::Watch::new(&deploy.order.spec, deploy.order.health_deadline(), deploy.order.min_healthy());
    for name in &deploy.decision.order {
        engine.may_go_on()?;
        service_switch(deploy, book, (&before, name), &mut watch, engine).await?;
    }
    watch.until(Goal::All, engine).await
}

async fn service_switch<P: ActionPort>(
    deploy: &Deploy<'_>,
    book: &Book,
    (before, name): (&BTreeMap<&str, &Before>, &ServiceName),
    watch: &mut health::Watch<'_>,
    engine: &mut Engine<'_, P>,
) -> Result<(), Stop> {
    let change = deploy.decision.changes.get(name).copied().unwrap_or(Change::Unchanged);
    if change == Change::Unchanged {
        return Ok(());
    }
    let service = &deploy.order.spec.services[name];
    for (dependency, condition) in spec_read::dependencies(&deploy.order.spec, service) {
        watch.until(Goal::Dependency { of: name.clone(), dependency, condition }, engine).await?;
    }
    let container = &deploy.desired[name];
    if matches!(change, Change::Create | Change::Replace) {
        if let Some(old) = deploy.decision.old.get(name) {
            engine.progress(format!("{name}: stopping the old container"));
            park(deploy, before, old, engine).await?;
        }
        engine.progress(format!("{name}: creating {}", container.name));
        create(deploy, name, container, engine).await?;
    }
    if change == Change::Restart {
        foreign::check_service(&deploy.order.spec, name, false, &deploy.context.policy, engine).await?;
    }
    if change == Change::Restart && book.record.stopped.contains(name) {
        let effect = Effect::ContainerRestartPolicy { name: container.name.clone(), restart: container.restart };
        engine.done(effect).await?;
    }
    engine.progress(format!("{name}: starting {}", container.name));
    engine
        .done(Effect::ContainerStart { name: container.name.clone() })
        .await
        .map_err(|error| refused(name, &container.name, "could not be started", error))?;
    watch.started(name.clone());
    Ok(())
}

/// Makes a container with what it stands on judged right before, and once more right after: what was
/// judged is resolved anew when it starts.
async fn create<P: ActionPort>(
    deploy: &Deploy<'_>,
    name: &ServiceName,
    container: &ContainerSpec,
    engine: &mut Engine<'_, P>,
) -> Result<(), Stop> {
    let (spec, policy) = (&deploy.order.spec, &deploy.context.policy);
    foreign::check_service(spec, name, true, policy, engine).await?;
    if !container.files.is_empty() {
        let (directory, files) = (container.files_directory(), container.files.clone());
        engine
            .done(Effect::FilesWrite { app: spec.app.clone(), directory, files })
            .await
            .map_err(|error| Stop::from(error).context(&format!("the files of service {name} could not be written")))?;
    }
    engine
        .done(Effect::ContainerCreate(Box::new(container.clone())))
        .await
        .map_err(|error| refused(name, &container.name, "could not be created", error))?;
    foreign::check_service(spec, name, false, policy, engine).await
}

pub(crate) fn refused(service: &ServiceName, container: &str, what: &str, error: EffectError) -> Stop {
    if matches!(error.kind, EffectErrorKind::Journal | EffectErrorKind::EngineUnreachable) {
        return error.into();
    }
    Stop::failing(
        service.as_str(),
        container,
        format!("service {service}: container {container} {what}: {}", error.message),
    )
}

async fn tag_images<P: ActionPort>(
    deploy: &Deploy<'_>,
    pending: &PendingDeploy,
    engine: &mut Engine<'_, P>,
) -> Result<(), Stop> {
    // Tags were made from the same map, so they come in the same order.
    for (image, tag) in deploy.order.images.values().zip(&pending.tags) {
        let effect =
            Effect::ImageTag { image: image.pinned.clone(), repository: tag.repository.clone(), tag: tag.tag.clone() };
        engine.done(effect).await?;
    }
    Ok(())
}

async fn networks_and_volumes<P: ActionPort>(deploy: &Deploy<'_>, engine: &mut Engine<'_, P>) -> Result<(), Stop> {
    let spec = &deploy.order.spec;
    for (file_name, name) in &deploy.decision.networks_create {
        let settings = spec_read::network_spec(spec, file_name);
        engine.progress(format!("creating network {name}"));
        engine
            .done(Effect::NetworkCreate {
                app: spec.app.clone(),
                name: name.clone(),
                file_name: file_name.clone(),
                internal: settings.internal,
                labels: settings.labels,
            })
            .await?;
    }
    for (file_name, name) in &deploy.decision.volumes_create {
        let settings = spec.volumes.get(file_name).cloned().unwrap_or_default();
        engine.progress(format!("creating volume {name}"));
        engine
            .done(Effect::VolumeCreate {
                app: spec.app.clone(),
                name: name.clone(),
                file_name: file_name.to_string(),
                driver_opts: settings.driver_opts,
                labels: settings.labels,
            })
            .await?;
    }
    Ok(())
}

/// Stops a container of the release before and renames it out of the way. It must still be there.
async fn park<P: ActionPort>(
    deploy: &Deploy<'_>,
    before: &BTreeMap<&str, &Before>,
    id: &str,
    engine: &mut Engine<'_, P>,
) -> Result<(), Stop> {
    let Some(old) = before.get(id) else {
        return Err(Stop::fault("the agent lost track of an old container; deploy again"));
    };
    let state: AppState = engine.observe(&deploy.order.spec.app).await?;
    let Some(current) = state.containers.iter().find(|container| container.id == id) else {
        return Err(Stop::fault(format!("container {} disappeared while it was being replaced", old.name)));
    };
    if restarts_always(deploy.from_record.as_ref(), &old.service) {
        // The engine starts such a container whenever it starts itself, stopped or not: after a reboot in
        // the middle of this, the old one would run beside the new, on the same volumes.
        let effect = Effect::ContainerRestartPolicy { name: current.name.clone(), restart: RestartPolicy::No };
        engine.done(effect).await?;
    }
    if !matches!(current.run, RunState::Created | RunState::Exited { .. } | RunState::Dead) {
        let grace = grace_of(deploy.from_record.as_ref(), &old.service);
        engine.done(Effect::ContainerStop { name: current.name.clone(), grace_ms: grace.0 }).await?;
    }
    let names: Vec<&str> = before.values().map(|other| other.name.as_str()).collect();
    let parked = parked_name(&old.name, &names);
    if current.name == old.name {
        engine.rename(id, &old.name, &parked).await?;
    }
    Ok(())
}

/// Whether a release's container of that service is started whenever the engine starts.
fn restarts_always(release: Option<&ReleaseRecord>, service: &str) -> bool {
    restart_of(release, service) == RestartPolicy::Always
}

/// When a release has the engine start that service's container again.
pub(crate) fn restart_of(release: Option<&ReleaseRecord>, service: &str) -> RestartPolicy {
    let mut services = release.into_iter().flat_map(|record| &record.spec.services);
    services.find(|(name, _)| name.as_str() == service).map_or(RestartPolicy::No, |(_, spec)| spec.restart)
}

/// How long a release's container of that service may take to end.
pub(crate) fn grace_of(release: Option<&ReleaseRecord>, service: &str) -> DurationMs {
    let mut services = release.into_iter().flat_map(|record| &record.spec.services);
    let found = services.find(|(name, _)| name.as_str() == service);
    found.and_then(|(_, spec)| spec.stop_grace_period_ms).map_or(limits::STOP_GRACE_DEFAULT, DurationMs)
}
