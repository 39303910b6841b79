//! A port over the simulated engine that can die before or after any effect and any record write,
//! and the smallest executor that can drive an action over it.

use std::{
    collections::BTreeMap,
    pin::pin,
    task::{Context, Poll, Waker},
};

use ids::{AppName, BootMs, DurationMs, OperationId, UnixMs};

use super::SimulatedEngine;
use crate::{
    effect::{Effect, EffectError, EffectErrorKind, Observation},
    port::{ActionPort, LogPiece, LogStart, StreamRecord},
    spec::SecretName,
};

/// What outlives a process: the engine, the journal, and time.
#[derive(Default)]
pub struct SimulatedWorld {
    /// The engine.
    pub engine: SimulatedEngine,
    /// The agent's durable records.
    pub records: BTreeMap<String, Vec<u8>>,
    /// The boot-time clock. Waiting moves it.
    pub clock: BootMs,
}

/// A place where a process can die: the n-th call that changes something, counted from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Point(pub u64);

/// When a process dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Death {
    /// The call was never made.
    Before(Point),
    /// The call took effect, and nobody heard of it.
    After(Point),
}

/// Something that happens to the host by itself.
pub type Surprise = fn(&mut SimulatedWorld);

/// A log that is being followed.
struct OpenLog {
    id: String,
    started_at: String,
}

/// One process's doors.
pub struct SimulatedPort<'w> {
    world: &'w mut SimulatedWorld,
    /// When it dies.
    pub death: Option<Death>,
    /// From that point on the action is cancelled.
    pub cancel_from: Option<Point>,
    /// From that point on the journal cannot be written.
    pub journal_fails_from: Option<Point>,
    /// What it told those who watch.
    pub progress: Vec<String>,
    /// What was done, in short, call by call.
    pub calls: Vec<String>,
    /// What it put on its stream.
    pub streamed: Vec<StreamRecord>,
    /// Until when somebody watches its stream.
    pub watched_until: BootMs,
    /// What others do to the host, and when; the earliest last.
    pub surprises: Vec<(BootMs, Surprise)>,
    logs: Vec<OpenLog>,
    waiting: Vec<LogPiece>,
    next: u64,
}

impl<'w> SimulatedPort<'w> {
    /// A process that lives.
    #[must_use]
    pub fn new(world: &'w mut SimulatedWorld) -> Self {
        Self {
            world,
            death: None,
            cancel_from: None,
            journal_fails_from: None,
            progress: Vec::new(),
            calls: Vec::new(),
            streamed: Vec::new(),
            watched_until: BootMs(u64::MAX),
            surprises: Vec::new(),
            logs: Vec::new(),
            waiting: Vec::new(),
            next: 0,
        }
    }

    /// Number of points passed.
    #[must_use]
    pub const fn points(&self) -> u64 {
        self.next
    }

    fn surprise(&mut self) {
        while let Some((at, surprise)) = self.surprises.last().copied()
            && at <= self.world.clock
        {
            self.surprises.pop();
            surprise(self.world);
        }
    }

    async fn die_if(&self, death: Death) {
        if self.death == Some(death) {
            // Whoever drives this drops it here: that is the death.
            core::future::pending::<()>().await;
        }
    }
}

impl ActionPort for SimulatedPort<'_> {
    async fn perform(&mut self, effect: Effect) -> Result<Observation, EffectError> {
        let point = Point(self.next);
        self.next += 1;
        self.calls.push(short(&effect));
        self.die_if(Death::Before(point)).await;
        self.world.clock.0 += 1;
        let answer = self.world.engine.perform(self.world.clock, &effect);
        self.die_if(Death::After(point)).await;
        answer
    }

    async fn logs_open(&mut self, name: &str, id: &str, start: LogStart) -> Result<(), EffectError> {
        self.calls.push(format!("container follow {name}"));
        self.world.clock.0 += 1;
        let containers = self.world.engine.containers(self.world.clock);
        let found = containers.into_iter().find(|container| container.name == name && container.id == id);
        let found = found
            .ok_or_else(|| EffectError { kind: EffectErrorKind::NotFound, message: format!("no container {name}") })?;
        let line = |text: String| LogPiece::Line {
            container: id.to_owned(),
            time: found.started_at.clone(),
            text,
            cut: false,
        };
        let number = |time: &str| time.parse::<u64>().unwrap_or_default();
        // Each start of a container writes one line.
        if start.tail != Some(0) && start.after.as_ref().is_none_or(|after| number(&found.started_at) > number(after)) {
            self.waiting.push(line(format!("{} started at {}", found.service, found.started_at)));
        }
        self.logs.push(OpenLog { id: id.to_owned(), started_at: found.started_at.clone() });
        Ok(())
    }

    async fn logs_next(&mut self, span: DurationMs) -> Vec<LogPiece> {
        if self.waiting.is_empty() {
            self.world.clock = self.world.clock.plus(span);
            self.surprise();
        }
        let mut pieces = core::mem::take(&mut self.waiting);
        let containers = self.world.engine.containers(self.world.clock);
        self.logs.retain(|log| {
            let goes_on = containers.iter().any(|container| {
                let runs = matches!(container.run, crate::effect::RunState::Running);
                container.id == log.id && runs && container.started_at == log.started_at
            });
            if !goes_on {
                pieces.push(LogPiece::Ended { container: log.id.clone(), error: None });
            }
            goes_on
        });
        pieces
    }

    /// Here a value that begins with `old:` is sealed to an earlier key, and one that begins with `lost:` to none.
    fn reseal(
        &mut self,
        app: &AppName,
        version: OperationId,
        name: &SecretName,
        sealed: &[u8],
    ) -> Result<Option<Vec<u8>>, EffectError> {
        self.calls.push(format!("reseal {app} {version} {}", name.0));
        if sealed.starts_with(b"lost:") {
            let message = format!("{:?} does not open", name.0);
            return Err(EffectError { kind: EffectErrorKind::Refused, message });
        }
        Ok(sealed.strip_prefix(b"old:").map(|rest| [b"new:", rest].concat()))
    }

    fn stream(&mut self, record: StreamRecord) -> bool {
        self.streamed.push(record);
        false
    }

    fn watched_until(&self) -> BootMs {
        self.watched_until
    }

    async fn record_write(&mut self, key: &str, record: Option<Vec<u8>>) -> Result<(), EffectError> {
        let point = Point(self.next);
        self.next += 1;
        self.calls.push(format!("{} {key}", if record.is_some() { "write" } else { "forget" }));
        self.die_if(Death::Before(point)).await;
        if self.journal_fails_from.is_some_and(|from| point.0 >= from.0) {
            return Err(EffectError { kind: EffectErrorKind::Journal, message: "no space left on device".to_owned() });
        }
        match record {
            Some(bytes) => self.world.records.insert(key.to_owned(), bytes),
            None => self.world.records.remove(key),
        };
        self.die_if(Death::After(point)).await;
        Ok(())
    }

    async fn record_read(&mut self, key: &str) -> Result<Option<Vec<u8>>, EffectError> {
        Ok(self.world.records.get(key).cloned())
    }

    fn progress(&mut self, text: String) {
        self.progress.push(text);
    }

    async fn wait(&mut self, span: DurationMs) {
        self.world.clock = self.world.clock.plus(span);
    }

    fn boot_now(&self) -> BootMs {
        self.world.clock
    }

    fn now(&self) -> UnixMs {
        UnixMs(1_800_000_000_000 + self.world.clock.0)
    }

    fn is_cancelled(&self) -> bool {
        self.cancel_from.is_some_and(|from| self.next >= from.0)
    }
}

fn short(effect: &Effect) -> String {
    match effect {
        Effect::ImageInspect { image } => format!("image inspect {image}"),
        Effect::ImagePull { reference, .. } => format!("image pull {reference}"),
        Effect::ImageTag { repository, tag, .. } => format!("image tag {repository}:{tag}"),
        Effect::ImageUntag { repository, tag } => format!("image untag {repository}:{tag}"),
        Effect::AppObserve { app } => format!("app observe {app}"),
        Effect::NetworkCreate { name, .. } => format!("network create {name}"),
        Effect::NetworkRemove { name } => format!("network remove {name}"),
        Effect::VolumeCreate { name, .. } => format!("volume create {name}"),
        Effect::ForeignCheck(foreign) => format!("foreign check {}", foreign.app),
        Effect::FilesWrite { app, directory, .. } => format!("files write {app}/{directory}"),
        Effect::FilesSweep { app, keep } => format!("files sweep {app} ({} kept)", keep.len()),
        Effect::ContainerCreate(spec) => format!("container create {}", spec.name),
        Effect::ContainerStart { name } => format!("container start {name}"),
        Effect::ContainerStop { name, grace_ms } => format!("container stop {name} ({grace_ms} ms)"),
        Effect::ContainerRestartPolicy { name, .. } => format!("container restart policy {name}"),
        Effect::ContainerRename { from, to } => format!("container rename {from} to {to}"),
        Effect::ContainerRemove { name } => format!("container remove {name}"),
        Effect::ContainerInspect { name } => format!("container inspect {name}"),
        Effect::ContainerLogs { name, tail } => format!("container logs {name} ({tail})"),
        Effect::ContainersList => "containers list".to_owned(),
        Effect::HostFacts => "host facts".to_owned(),
    }
}

/// Drives a future that never has to wait for anyone. `None` means that it hangs: its process died.
pub fn drive<T>(future: impl Future<Output = T>) -> Option<T> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => Some(value),
        Poll::Pending => None,
    }
}
