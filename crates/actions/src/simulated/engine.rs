//! The engine: images, containers, networks and volumes, and how containers behave over time.

use std::collections::{BTreeMap, BTreeSet};

use ids::{AppName, BootMs};
use serde_json::json;

use super::SimulatedPlaces;
use crate::{
    effect::{
        AppState, ContainerMount, ContainerSpec, ContainerState, Effect, EffectError, EffectErrorKind, Health,
        ImageState, Observation, RunState,
    },
    policy::image::ImageReference,
    spec::RestartPolicy,
};

/// What a container of an image does once it is started. Times are milliseconds from its start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Behaviour {
    /// Its probe passes from then on.
    Healthy {
        /// Until then the probe is undecided.
        after_ms: u64,
    },
    /// Its probe has failed too often from then on.
    Unhealthy {
        /// Until then the probe is undecided.
        after_ms: u64,
    },
    /// Runs, and has no probe.
    Runs,
    /// The same, and ends with code 0 when it is stopped.
    EndsWellWhenStopped,
    /// Ends.
    Exits {
        /// When.
        after_ms: u64,
        /// With which code.
        code: i64,
    },
    /// Is killed for using too much memory.
    OutOfMemory {
        /// When.
        after_ms: u64,
    },
    /// The engine cannot start it.
    RefusesToStart,
}

/// An image, and what its containers do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SimulatedImage {
    /// As the engine shows it.
    pub state: ImageState,
    /// What its containers do.
    pub behaviour: Behaviour,
}

impl SimulatedImage {
    /// An image only this host has; its id is made from `name`.
    #[must_use]
    pub fn local(name: &str, behaviour: Behaviour) -> Self {
        let has_healthcheck = matches!(behaviour, Behaviour::Healthy { .. } | Behaviour::Unhealthy { .. });
        let id = format!("sha256:{}", ids::sha256(name.as_bytes()));
        let platform = "linux/amd64".to_owned();
        Self { state: ImageState { id, repo_digests: Vec::new(), has_healthcheck, platform }, behaviour }
    }

    /// An image of a registry; its digest is made from `reference`.
    #[must_use]
    pub fn registry(reference: &str, behaviour: Behaviour) -> Self {
        let mut image = Self::local(reference, behaviour);
        let repository = reference.parse::<ImageReference>().map(|r| r.repository()).unwrap_or_default();
        let digest = ids::sha256(format!("digest of {reference}").as_bytes());
        image.state.repo_digests = vec![format!("{repository}@sha256:{digest}")];
        image
    }
}

struct Container {
    spec: ContainerSpec,
    id: String,
    name: String,
    started: Option<BootMs>,
    stopped: bool,
    paused: bool,
    error: String,
}

/// A Docker engine in memory, for one host.
#[derive(Default)]
pub struct SimulatedEngine {
    images: BTreeMap<String, SimulatedImage>,
    registry: BTreeMap<String, SimulatedImage>,
    tags: BTreeMap<(String, String), String>,
    containers: Vec<Container>,
    networks: BTreeMap<String, AppName>,
    volumes: BTreeMap<String, AppName>,
    containers_made: u64,
    effects_seen: u64,
    files: BTreeSet<(AppName, String)>,
    /// Directories of the host, and networks and volumes that somebody else made.
    pub places: SimulatedPlaces,
    /// Names of containers that are not ours.
    pub foreign_names: BTreeSet<String>,
    /// Networks that containers which are not ours have joined.
    pub foreign_joined: BTreeSet<String>,
    /// Ports of the host that something else listens on.
    pub foreign_ports: BTreeSet<u16>,
    /// The engine does not answer before that time.
    pub down_until: Option<BootMs>,
    /// From that effect on (counted from 0) the engine does not answer until `down_until`, or for ever.
    pub down_from_effect: Option<u64>,
    /// That effect is carried out, but its answer is lost.
    pub answer_lost_at_effect: Option<u64>,
}

fn refuse(kind: EffectErrorKind, message: impl Into<String>) -> EffectError {
    EffectError { kind, message: message.into() }
}

impl SimulatedEngine {
    /// An engine with nothing in it.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts an image on the host under `reference`.
    pub fn image_add(&mut self, reference: &str, image: SimulatedImage) {
        self.images.insert(normal(reference), image);
    }

    /// Puts an image into a registry, from where it can be pulled.
    pub fn registry_add(&mut self, reference: &str, image: SimulatedImage) {
        self.registry.insert(normal(reference), image);
    }

    /// Every container, as it is at `now`.
    #[must_use]
    pub fn containers(&self, now: BootMs) -> Vec<ContainerState> {
        self.containers.iter().map(|container| self.state(container, now)).collect()
    }

    /// Every network.
    #[must_use]
    pub fn networks(&self) -> Vec<String> {
        self.networks.keys().cloned().collect()
    }

    /// Every volume.
    #[must_use]
    pub fn volumes(&self) -> Vec<String> {
        self.volumes.keys().cloned().collect()
    }

    /// Every directory of files, as `app/directory`.
    #[must_use]
    pub fn files(&self) -> Vec<String> {
        self.files.iter().map(|(app, directory)| format!("{app}/{directory}")).collect()
    }

    /// Every tag of ours, as `repository:tag`.
    #[must_use]
    pub fn tags(&self) -> Vec<String> {
        self.tags.keys().map(|(repository, tag)| format!("{repository}:{tag}")).collect()
    }

    /// Number of effects asked for so far.
    #[must_use]
    pub const fn effects_seen(&self) -> u64 {
        self.effects_seen
    }

    /// Ends a container behind everyone's back, as a person with a shell would.
    pub fn container_kill(&mut self, name: &str) {
        let _ = self.named(name).map(|container| container.stopped = true);
    }

    /// Does to a container what a person with a shell may: gives it another name.
    pub fn container_rename(&mut self, name: &str, to: &str) {
        let _ = self.named(name).map(|container| to.clone_into(&mut container.name));
    }

    /// The same: freezes it.
    pub fn container_pause(&mut self, name: &str) {
        let _ = self.named(name).map(|container| container.paused = true);
    }

    fn named(&mut self, name: &str) -> Result<&mut Container, EffectError> {
        let found = self.containers.iter_mut().find(|container| container.name == name);
        found.ok_or_else(|| refuse(EffectErrorKind::NotFound, format!("no container {name}")))
    }

    /// Performs one effect at `now`.
    ///
    /// # Errors
    /// As Docker would, and when it is made not to answer.
    pub fn perform(&mut self, now: BootMs, effect: &Effect) -> Result<Observation, EffectError> {
        let number = self.effects_seen;
        self.effects_seen += 1;
        let cut_off = self.down_from_effect.is_some_and(|from| number >= from);
        let away = match self.down_until {
            Some(until) => now < until && (self.down_from_effect.is_none() || cut_off),
            None => cut_off,
        };
        let gone = || refuse(EffectErrorKind::EngineUnreachable, "Docker does not answer; is it running?");
        if away {
            return Err(gone());
        }
        let answer = self.apply(now, effect);
        if self.answer_lost_at_effect == Some(number) { Err(gone()) } else { answer }
    }

    fn apply(&mut self, now: BootMs, effect: &Effect) -> Result<Observation, EffectError> {
        match effect {
            Effect::ImageInspect { image } => {
                return Ok(Observation::Image(self.image(image).map(|image| image.state.clone())));
            }
            Effect::ImagePull { reference, .. } => self.pull(reference)?,
            Effect::ImageTag { image, repository, tag } => {
                let id = self.image(image).map(|image| image.state.id.clone());
                let id = id.ok_or_else(|| refuse(EffectErrorKind::ImageNotFound, format!("no image {image}")))?;
                self.tags.insert((repository.clone(), tag.clone()), id);
            }
            Effect::ImageUntag { repository, tag } => {
                self.tags.remove(&(repository.clone(), tag.clone()));
            }
            Effect::AppObserve { app } => return Ok(Observation::App(self.observe(app, now))),
            Effect::NetworkCreate { app, name, .. } => own(&mut self.networks, app, name)?,
            Effect::VolumeCreate { app, name, .. } => own(&mut self.volumes, app, name)?,
            Effect::NetworkRemove { name } => self.network_remove(name, now)?,
            Effect::ForeignCheck(foreign) => self.places.check(foreign, &self.networks, &self.volumes)?,
            Effect::FilesWrite { app, directory, .. } => {
                self.files.insert((app.clone(), directory.clone()));
            }
            Effect::FilesSweep { app, keep } => self.files.retain(|(owner, name)| owner != app || keep.contains(name)),
            Effect::ContainerCreate(spec) => self.create(spec)?,
            Effect::ContainerStart { name } => self.start(name, now)?,
            Effect::ContainerStop { name, .. } => {
                let ends = |c: &Container| matches!(self.state(c, now).run, RunState::Exited { .. });
                let at = self.containers.iter().position(|container| container.name == *name);
                if let Some(at) = at.filter(|at| !ends(&self.containers[*at])) {
                    self.containers[at].stopped = self.containers[at].started.is_some();
                    self.containers[at].paused = false;
                }
            }
            Effect::ContainerRestartPolicy { name, restart } => self.restart_policy(name, *restart)?,
            Effect::ContainerRename { from, to } => self.rename(from, to)?,
            Effect::ContainerRemove { name } => self.containers.retain(|container| container.name != *name),
            Effect::ContainerInspect { name } => {
                let found = self.containers.iter().find(|container| container.name == *name);
                return Ok(Observation::Container(found.map(|container| self.state(container, now))));
            }
            Effect::ContainerLogs { name, .. } => {
                let found = self.containers.iter().find(|container| container.name == *name);
                let found = found.ok_or_else(|| refuse(EffectErrorKind::NotFound, format!("no container {name}")))?;
                let mut text = format!("{} says hello\n", found.spec.service);
                for (key, value) in &found.spec.environment {
                    text.push_str(&format!("{key}={}\n", value.as_str()));
                }
                return Ok(Observation::Logs(text));
            }
            Effect::ContainersList => {
                let list = self.containers.iter().map(|c| json!({ "name": c.name, "image": c.spec.image })).collect();
                return Ok(Observation::Json(serde_json::Value::Array(list)));
            }
            Effect::HostFacts => return Ok(Observation::Json(json!({ "os": "simulated", "cpus": 2 }))),
        }
        Ok(Observation::Done)
    }

    fn image(&self, name: &str) -> Option<&SimulatedImage> {
        let by_tag = || {
            let tagged = self.tags.iter().find(|((repository, tag), _)| format!("{repository}:{tag}") == name);
            tagged.and_then(|(_, id)| self.images.values().find(|image| image.state.id == *id))
        };
        self.images
            .get(&normal(name))
            .or_else(|| self.images.values().find(|image| image.state.id == name))
            .or_else(|| self.images.values().find(|image| image.state.repo_digests.iter().any(|digest| digest == name)))
            .or_else(by_tag)
    }

    fn pull(&mut self, reference: &str) -> Result<(), EffectError> {
        let key = normal(reference);
        let by_digest = |image: &SimulatedImage| image.state.repo_digests.iter().any(|digest| digest == reference);
        let found = self.registry.iter().find(|(name, image)| **name == key || by_digest(image));
        let (name, image) = found
            .map(|(name, image)| (name.clone(), image.clone()))
            .ok_or_else(|| refuse(EffectErrorKind::ImageNotFound, format!("manifest for {reference} not found")))?;
        self.images.insert(name, image);
        Ok(())
    }

    fn observe(&self, app: &AppName, now: BootMs) -> AppState {
        let of_app = |things: &BTreeMap<String, AppName>| {
            things.iter().filter(|(_, owner)| *owner == app).map(|(name, _)| name.clone()).collect()
        };
        AppState {
            containers: self.containers.iter().filter(|c| c.spec.app == *app).map(|c| self.state(c, now)).collect(),
            networks: of_app(&self.networks),
            volumes: of_app(&self.volumes),
        }
    }

    fn network_remove(&mut self, name: &str, now: BootMs) -> Result<(), EffectError> {
        let joined = |container: &&Container| {
            container.spec.networks.contains_key(name)
                && matches!(self.state(container, now).run, RunState::Running | RunState::Restarting)
        };
        if let Some(container) = self.containers.iter().find(joined) {
            let words = format!("network {name} is in use by {}", container.name);
            return Err(refuse(EffectErrorKind::Refused, words));
        }
        if self.foreign_joined.contains(name) {
            return Err(refuse(EffectErrorKind::Conflict, format!("network {name} is in use by a foreign container")));
        }
        self.networks.remove(name);
        Ok(())
    }

    fn create(&mut self, spec: &ContainerSpec) -> Result<(), EffectError> {
        let conflict = || {
            let words = format!("the container name {} is taken by one that is not part of this app", spec.name);
            refuse(EffectErrorKind::Conflict, words)
        };
        if self.foreign_names.contains(&spec.name) {
            return Err(conflict());
        }
        if let Some(existing) = self.containers.iter().find(|container| container.name == spec.name) {
            return if existing.spec.config == spec.config { Ok(()) } else { Err(conflict()) };
        }
        if self.image(&spec.image).is_none() {
            return Err(refuse(EffectErrorKind::ImageNotFound, format!("no image {}", spec.image)));
        }
        let external = |name: &&String| spec.runtime.external_networks.contains(*name);
        if let Some(missing) =
            spec.networks.keys().filter(|name| !external(name)).find(|name| !self.networks.contains_key(*name))
        {
            return Err(refuse(EffectErrorKind::NotFound, format!("no network {missing}")));
        }
        for mount in &spec.mounts {
            if let ContainerMount::Volume { volume, .. } = mount
                && !spec.runtime.external_volumes.contains(volume)
                && !self.volumes.contains_key(volume)
            {
                return Err(refuse(EffectErrorKind::NotFound, format!("no volume {volume}")));
            }
        }
        if !spec.files.is_empty() && !self.files.contains(&(spec.app.clone(), spec.files_directory())) {
            return Err(refuse(EffectErrorKind::NotFound, format!("no files of {}", spec.name)));
        }
        self.places.swap_after_create();
        self.containers_made += 1;
        self.containers.push(Container {
            id: format!("c{:04}", self.containers_made),
            name: spec.name.clone(),
            spec: spec.clone(),
            started: None,
            stopped: false,
            paused: false,
            error: String::new(),
        });
        Ok(())
    }

    fn start(&mut self, name: &str, now: BootMs) -> Result<(), EffectError> {
        let at = self.containers.iter().position(|container| container.name == name);
        let at = at.ok_or_else(|| refuse(EffectErrorKind::NotFound, format!("no container {name}")))?;
        if matches!(self.state(&self.containers[at], now).run, RunState::Running | RunState::Restarting) {
            return Ok(());
        }
        if self.containers[at].paused {
            return Err(refuse(EffectErrorKind::Conflict, "cannot start a paused container, try unpause instead"));
        }
        let wanted: Vec<u16> = self.containers[at].spec.ports.iter().filter_map(|port| port.host_port).collect();
        let taken = |port: &u16| {
            self.foreign_ports.contains(port)
                || self.containers.iter().any(|other| {
                    other.name != name
                        && self.state(other, now).run == RunState::Running
                        && other.spec.ports.iter().any(|theirs| theirs.host_port == Some(*port))
                })
        };
        if let Some(port) = wanted.iter().find(|port| taken(port)) {
            let words = format!("port {port} of the host is taken by something else");
            self.containers[at].error = words.clone();
            return Err(refuse(EffectErrorKind::Conflict, words));
        }
        if self.behaviour(&self.containers[at]) == Behaviour::RefusesToStart {
            self.containers[at].error = "exec format error".to_owned();
            return Err(refuse(EffectErrorKind::Refused, format!("cannot start {name}: exec format error")));
        }
        let container = &mut self.containers[at];
        container.started = Some(now);
        container.stopped = false;
        container.error = String::new();
        Ok(())
    }

    fn restart_policy(&mut self, name: &str, restart: RestartPolicy) -> Result<(), EffectError> {
        self.named(name)?.spec.restart = restart;
        Ok(())
    }

    /// Names of the containers that a restart of the engine would start.
    #[must_use]
    pub fn started_by_engine(&self) -> Vec<String> {
        let starts = |container: &&Container| match container.spec.restart {
            RestartPolicy::Always => true,
            RestartPolicy::UnlessStopped => !container.stopped,
            RestartPolicy::No | RestartPolicy::OnFailure { .. } => false,
        };
        self.containers.iter().filter(starts).map(|container| container.name.clone()).collect()
    }

    fn rename(&mut self, from: &str, to: &str) -> Result<(), EffectError> {
        if self.foreign_names.contains(to) || self.containers.iter().any(|container| container.name == to) {
            return Err(refuse(EffectErrorKind::Conflict, format!("the container name {to} is taken")));
        }
        to.clone_into(&mut self.named(from)?.name);
        Ok(())
    }

    fn behaviour(&self, container: &Container) -> Behaviour {
        self.image(&container.spec.image).map_or(Behaviour::Runs, |image| image.behaviour.clone())
    }

    fn state(&self, container: &Container, now: BootMs) -> ContainerState {
        let last_exit_code = match self.behaviour(container) {
            Behaviour::Exits { code, .. } => Some(code),
            _ => None,
        };
        let (run, health, restart_count, oom_killed) = match container.started {
            None => (RunState::Created, Health::None, 0, false),
            Some(_) if container.stopped => {
                let well = self.behaviour(container) == Behaviour::EndsWellWhenStopped;
                (RunState::Exited { code: if well { 0 } else { 143 } }, Health::None, 0, false)
            }
            Some(_) if container.paused => (RunState::Paused, Health::None, 0, false),
            Some(started) => running(&self.behaviour(container), container.spec.restart, now.since(started).0),
        };
        ContainerState {
            id: container.id.clone(),
            name: container.name.clone(),
            service: container.spec.service.clone(),
            release: container.spec.release.clone(),
            config: container.spec.config.clone(),
            image: container.spec.image.clone(),
            run,
            health,
            restart_count,
            last_exit_code,
            started_at: container.started.map(|at| at.0.to_string()).unwrap_or_default(),
            error: container.error.clone(),
            oom_killed,
        }
    }
}

/// What a container that was started `age` milliseconds ago is like.
fn running(behaviour: &Behaviour, restart: RestartPolicy, age: u64) -> (RunState, Health, u64, bool) {
    let ended = |code: i64, oom: bool| {
        let again = match restart {
            RestartPolicy::No => false,
            RestartPolicy::OnFailure { .. } => code != 0,
            RestartPolicy::Always | RestartPolicy::UnlessStopped => true,
        };
        let run = if again { RunState::Restarting } else { RunState::Exited { code } };
        (run, Health::None, u64::from(again), oom)
    };
    let probed = |after: u64, health: Health| if age < after { Health::Starting } else { health };
    match *behaviour {
        Behaviour::Healthy { after_ms } => (RunState::Running, probed(after_ms, Health::Healthy), 0, false),
        Behaviour::Unhealthy { after_ms } => (RunState::Running, probed(after_ms, Health::Unhealthy), 0, false),
        Behaviour::Exits { after_ms, code } if age >= after_ms => ended(code, false),
        Behaviour::OutOfMemory { after_ms } if age >= after_ms => ended(137, true),
        Behaviour::Runs
        | Behaviour::EndsWellWhenStopped
        | Behaviour::Exits { .. }
        | Behaviour::OutOfMemory { .. }
        | Behaviour::RefusesToStart => (RunState::Running, Health::None, 0, false),
    }
}

fn normal(reference: &str) -> String {
    reference.parse::<ImageReference>().map_or_else(|_| reference.to_owned(), |parsed| parsed.to_string())
}

fn own(things: &mut BTreeMap<String, AppName>, app: &AppName, name: &str) -> Result<(), EffectError> {
    let owner = things.entry(name.to_owned()).or_insert_with(|| app.clone());
    if owner == app {
        Ok(())
    } else {
        Err(refuse(EffectErrorKind::Conflict, format!("{name} belongs to the app {owner}")))
    }
}
