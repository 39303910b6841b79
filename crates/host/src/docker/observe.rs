//! Reading: one container, an app's things, everything the engine runs.

use actions::effect::{AppState, ContainerState, EffectError, EffectErrorKind, Health, RunState, label};
use bollard::{
    models::{ContainerInspectResponse, ContainerStateStatusEnum, ContainerSummary, HealthStatusEnum, PortSummary},
    query_parameters::{ListContainersOptionsBuilder, ListNetworksOptionsBuilder, ListVolumesOptionsBuilder},
};
use ids::AppName;
use serde_json::{Value, json};

use super::{
    engine::Session,
    failure,
    ownership::{self, Owner},
};
use crate::limits;

/// What the engine prints for a moment that has not been.
const NEVER: &str = "0001-01-01T00:00:00Z";
/// Digits of a container's id that people are used to.
const SHORT_ID_LENGTH: usize = 12;

impl Session {
    /// A container if it exists and is ours.
    pub(super) async fn container_observe(&self, name: &str) -> Result<Option<ContainerState>, EffectError> {
        let found = self.container_find(name).await?;
        match found {
            Some(found) if self.is_own(&found).await? => Ok(Some(state_of(&found))),
            _ => Ok(None),
        }
    }

    pub(super) async fn app_observe(&self, app: &AppName) -> Result<AppState, EffectError> {
        let filter = self.owner.filter(app);
        let options = ListContainersOptionsBuilder::default().all(true).filters(&filter).build();
        let doing = format!("list the containers of app {:?}", app.as_str());
        let listed = self.call(&doing, limits::READ_TIMEOUT, self.docker.list_containers(Some(options))).await?;
        let names: Vec<String> = listed.iter().filter_map(own_name).collect();
        bounded(&doing, names.len())?;
        let mut containers = Vec::with_capacity(names.len());
        for name in names {
            // One that went away since the listing is simply not there.
            containers.extend(self.container_observe(&name).await?);
        }
        containers.sort_by(|a, b| a.name.cmp(&b.name));

        let options = ListNetworksOptionsBuilder::default().filters(&filter).build();
        let doing = format!("list the networks of app {:?}", app.as_str());
        let listed = self.call(&doing, limits::READ_TIMEOUT, self.docker.list_networks(Some(options))).await?;
        let mut networks: Vec<String> = listed.into_iter().filter_map(|network| network.name).collect();
        bounded(&doing, networks.len())?;
        networks.sort();

        let options = ListVolumesOptionsBuilder::default().filters(&filter).build();
        let doing = format!("list the volumes of app {:?}", app.as_str());
        let listed = self.call(&doing, limits::READ_TIMEOUT, self.docker.list_volumes(Some(options))).await?;
        let mut volumes: Vec<String> =
            listed.volumes.unwrap_or_default().into_iter().map(|volume| volume.name).collect();
        bounded(&doing, volumes.len())?;
        volumes.sort();
        Ok(AppState { containers, networks, volumes })
    }

    /// Every container of the engine, newest first.
    pub(super) async fn containers_list(
        &self,
        progress: &mut (dyn FnMut(String) + Send),
    ) -> Result<Value, EffectError> {
        let options = ListContainersOptionsBuilder::default().all(true).limit(limits::CONTAINERS_MAX + 1).build();
        let doing = "list the containers of this host";
        let mut listed = self.call(doing, limits::READ_TIMEOUT, self.docker.list_containers(Some(options))).await?;
        let most = usize::try_from(limits::CONTAINERS_MAX).unwrap_or(usize::MAX);
        if listed.len() > most {
            listed.truncate(most);
            progress(format!("There are more than {most} containers; the newest {most} are listed."));
        }
        Ok(listed.iter().map(|container| summary(self.owner, container)).collect())
    }
}

fn bounded(doing: &str, count: usize) -> Result<(), EffectError> {
    if count <= limits::APP_THINGS_MAX {
        return Ok(());
    }
    Err(failure::error(
        EffectErrorKind::Refused,
        format!(
            "Could not {doing}: there are {count}, and at most {} are handled. Remove what is no longer needed.",
            limits::APP_THINGS_MAX
        ),
    ))
}

/// A container's own name among those that other containers' links gave it (`/a/b`).
pub(super) fn own_name(container: &ContainerSummary) -> Option<String> {
    let names = container.names.as_ref()?;
    names.iter().map(|name| name.trim_start_matches('/')).find(|name| !name.contains('/')).map(str::to_owned)
}

pub(super) fn state_of(found: &ContainerInspectResponse) -> ContainerState {
    let config = found.config.as_ref();
    let labels = config.and_then(|config| config.labels.as_ref());
    let label = |key: &str| labels.and_then(|labels| labels.get(key)).cloned().unwrap_or_default();
    let state = found.state.as_ref();
    let started_at = state.and_then(|state| state.started_at.clone()).filter(|at| at != NEVER);
    ContainerState {
        id: found.id.clone().unwrap_or_default(),
        name: found.name.as_deref().unwrap_or_default().trim_start_matches('/').to_owned(),
        service: label(label::SERVICE),
        release: label(label::RELEASE),
        config: label(label::CONFIG),
        image: config.and_then(|config| config.image.clone()).unwrap_or_default(),
        run: run_state(state.and_then(|state| state.status), state.and_then(|state| state.exit_code)),
        health: health(state.and_then(|state| state.health.as_ref()).and_then(|health| health.status)),
        last_exit_code: last_exit_code(state),
        restart_count: found.restart_count.and_then(|count| u64::try_from(count).ok()).unwrap_or(0),
        started_at: started_at.unwrap_or_default(),
        error: failure::clip(state.and_then(|state| state.error.as_deref()).unwrap_or_default()),
        oom_killed: state.and_then(|state| state.oom_killed).unwrap_or(false),
    }
}

/// The code of the last end: of one that ended and is to run again, or does so already.
fn last_exit_code(state: Option<&bollard::models::ContainerState>) -> Option<i64> {
    let state = state?;
    let has_ended = state.finished_at.as_deref().is_some_and(|at| at != NEVER && !at.is_empty());
    state.exit_code.filter(|_| has_ended && state.status != Some(ContainerStateStatusEnum::RUNNING))
}

fn run_state(status: Option<ContainerStateStatusEnum>, exit_code: Option<i64>) -> RunState {
    use ContainerStateStatusEnum as Status;
    match status {
        Some(Status::CREATED) => RunState::Created,
        Some(Status::RUNNING) => RunState::Running,
        Some(Status::RESTARTING) => RunState::Restarting,
        Some(Status::PAUSED) => RunState::Paused,
        Some(Status::EXITED) => RunState::Exited { code: exit_code.unwrap_or(-1) },
        // Being stopped, being removed, or stuck: not to be counted on.
        Some(Status::REMOVING | Status::STOPPING | Status::DEAD | Status::EMPTY) | None => RunState::Dead,
    }
}

fn health(status: Option<HealthStatusEnum>) -> Health {
    match status {
        None | Some(HealthStatusEnum::EMPTY | HealthStatusEnum::NONE) => Health::None,
        Some(HealthStatusEnum::STARTING) => Health::Starting,
        Some(HealthStatusEnum::HEALTHY) => Health::Healthy,
        Some(HealthStatusEnum::UNHEALTHY) => Health::Unhealthy,
    }
}

/// One row of `docker.containers`. No environment, and of the labels only ours: both may hold secrets
/// of people who do not know of this agent.
fn summary(owner: Owner, container: &ContainerSummary) -> Value {
    let name = own_name(container).unwrap_or_default();
    let labels = container.labels.as_ref().filter(|labels| owner.owns(labels) && ownership::is_named_by(&name, labels));
    let label = |key: &str| labels.and_then(|labels| labels.get(key));
    let id: String = container.id.as_deref().unwrap_or_default().chars().take(SHORT_ID_LENGTH).collect();
    let mut ports: Vec<String> = container.ports.iter().flatten().map(port).collect();
    ports.sort();
    json!({
        "id": id,
        "name": name,
        "image": container.image,
        "state": container.state.map(|state| state.to_string()),
        "status": container.status,
        "app": label(label::APP),
        "service": label(label::SERVICE),
        "ours": labels.is_some(),
        "ports": ports,
    })
}

/// `127.0.0.1:8088->8080/tcp`, or `8080/tcp` when not published.
fn port(port: &PortSummary) -> String {
    let inside = format!("{}/{}", port.private_port, port.typ.map_or_else(String::new, |typ| typ.to_string()));
    match (&port.ip, port.public_port) {
        (Some(ip), Some(public)) if ip.contains(':') => format!("[{ip}]:{public}->{inside}"),
        (Some(ip), Some(public)) => format!("{ip}:{public}->{inside}"),
        (None, Some(public)) => format!("{public}->{inside}"),
        _ => inside,
    }
}
