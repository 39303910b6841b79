//! A port over the simulated engine that can die before or after any effect and any record write,
//! and the smallest executor that can drive an action over it.

use std::{
    collections::BTreeMap,
    pin::pin,
    task::{Context, Poll, Waker},
};

use ids::{BootMs, DurationMs, UnixMs};

use super::SimulatedEngine;
use crate::{
    effect::{Effect, EffectError, EffectErrorKind, Observation},
    port::ActionPort,
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
            next: 0,
        }
    }

    /// Number of points passed.
    #[must_use]
    pub const fn points(&self) -> u64 {
        self.next
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
