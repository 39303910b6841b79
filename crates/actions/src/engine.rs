//! The engine behind the port, as actions like to see it: typed answers, and patience when Docker
//! does not answer.
//!
//! Patience has two lengths. Before anything on the host was touched, an action gives up after a
//! short while, because nothing depends on it. Once it is in the middle of a change it keeps trying
//! until its own deadline, because the host waits for it.

use ids::{AppName, BootMs, DurationMs, OperationId, UnixMs};
use serde_json::{Value, json};

use crate::{
    effect::{
        AppState, ContainerState, Effect, EffectError, EffectErrorKind, ImageState, Observation, files_directory,
    },
    limits,
    outcome::Outcome,
    port::ActionPort,
    spec::SecretName,
    stop::Stop,
};

/// A port, the action's deadline, and how patient it is.
pub(crate) struct Engine<'p, P> {
    port: &'p mut P,
    deadline: BootMs,
    patience: Patience,
    unreachable: DurationMs,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Patience {
    None,
    Short,
    UntilDeadline,
}

impl<'p, P: ActionPort> Engine<'p, P> {
    /// For reads: the first failure is the answer.
    pub(crate) fn impatient(port: &'p mut P) -> Self {
        let deadline = port.boot_now();
        Self { port, deadline, patience: Patience::None, unreachable: DurationMs(0) }
    }

    /// For changes, that nothing was touched by yet.
    pub(crate) fn patient(port: &'p mut P, timeout: DurationMs) -> Self {
        let deadline = port.boot_now().plus(timeout);
        Self { port, deadline, patience: Patience::Short, unreachable: DurationMs(0) }
    }

    /// From now on the host is in the middle of a change.
    pub(crate) fn touched(&mut self) {
        self.patience = Patience::UntilDeadline;
    }

    /// From now on the host is put back. That has its own time, however much the way forward took.
    pub(crate) fn turned_back(&mut self) {
        self.touched();
        self.deadline = self.deadline.max(self.port.boot_now().plus(limits::BACK_PATIENCE));
    }

    /// Looked at before each step forward: whether somebody asked to stop, and whether the time for this
    /// order is over. Nothing asks this on the way back.
    pub(crate) fn may_go_on(&self) -> Result<(), Stop> {
        if self.port.is_cancelled() {
            return Err(Stop::Cancelled);
        }
        self.in_time()
    }

    /// The same for what is not to be cancelled.
    pub(crate) fn in_time(&self) -> Result<(), Stop> {
        if self.port.boot_now() < self.deadline {
            return Ok(());
        }
        Err(Stop::fault("the time for this order was over before it was done"))
    }

    /// How long Docker was away so far: time that a container had no chance to become healthy in.
    pub(crate) fn unreachable(&self) -> DurationMs {
        self.unreachable
    }

    pub(crate) fn boot_now(&self) -> BootMs {
        self.port.boot_now()
    }

    pub(crate) fn now(&self) -> UnixMs {
        self.port.now()
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        self.port.is_cancelled()
    }

    pub(crate) fn progress(&mut self, text: impl Into<String>) {
        self.port.progress(text.into());
    }

    pub(crate) async fn wait(&mut self, span: DurationMs) {
        self.port.wait(span).await;
    }

    pub(crate) async fn record_read(&mut self, key: &str) -> Result<Option<Vec<u8>>, EffectError> {
        self.port.record_read(key).await
    }

    pub(crate) async fn record_write(&mut self, key: &str, record: Option<Vec<u8>>) -> Result<(), EffectError> {
        self.port.record_write(key, record).await
    }

    /// The value sealed to the host's newest key; `None` when it is so already.
    pub(crate) fn reseal(
        &mut self,
        app: &AppName,
        version: OperationId,
        name: &SecretName,
        sealed: &[u8],
    ) -> Result<Option<Vec<u8>>, EffectError> {
        self.port.reseal(app, version, name, sealed)
    }

    /// Performs an effect, and again while Docker does not answer. Effects are idempotent by name
    /// and label; the one that is not (rename) has its own method below.
    pub(crate) async fn perform(&mut self, effect: Effect) -> Result<Observation, EffectError> {
        let began = self.port.boot_now();
        let give_up = match self.patience {
            Patience::None => began,
            Patience::Short => self.deadline.min(began.plus(limits::ENGINE_PATIENCE_SHORT)),
            Patience::UntilDeadline => self.deadline,
        };
        let mut pause = limits::ENGINE_RETRY_FIRST;
        for _ in 0..limits::ENGINE_ATTEMPTS_MAX {
            let error = match self.port.perform(effect.clone()).await {
                Err(error) if error.kind == EffectErrorKind::EngineUnreachable => error,
                answer => {
                    if pause != limits::ENGINE_RETRY_FIRST {
                        self.unreachable.0 += self.port.boot_now().since(began).0;
                        self.progress("Docker answers again");
                    }
                    return answer;
                }
            };
            let now = self.port.boot_now();
            let stop_early = self.patience == Patience::Short && self.port.is_cancelled();
            if now >= give_up || stop_early {
                return Err(error);
            }
            self.progress(format!("Docker does not answer; trying again in {pause} ({error})"));
            self.port.wait(pause.min(give_up.since(now))).await;
            pause = DurationMs(pause.0 * 2).min(limits::ENGINE_RETRY_MAX);
        }
        Err(EffectError {
            kind: EffectErrorKind::EngineUnreachable,
            message: "Docker did not answer; start it, and try again".to_owned(),
        })
    }

    /// An effect that has no answer but that it is done.
    pub(crate) async fn done(&mut self, effect: Effect) -> Result<(), EffectError> {
        self.perform(effect).await.map(drop)
    }

    pub(crate) async fn observe(&mut self, app: &AppName) -> Result<AppState, EffectError> {
        match self.perform(Effect::AppObserve { app: app.clone() }).await? {
            Observation::App(state) => Ok(state),
            other => Err(unexpected("an app", &other)),
        }
    }

    /// Removes the files of containers that are gone.
    pub(crate) async fn files_sweep(&mut self, app: &AppName) -> Result<(), EffectError> {
        let state = self.observe(app).await?;
        let directory = |container: &ContainerState| files_directory(&container.service, &container.config);
        let keep = state.containers.iter().map(directory).collect();
        self.done(Effect::FilesSweep { app: app.clone(), keep }).await
    }

    pub(crate) async fn container(&mut self, name: &str) -> Result<Option<ContainerState>, EffectError> {
        match self.perform(Effect::ContainerInspect { name: name.to_owned() }).await? {
            Observation::Container(state) => Ok(state),
            other => Err(unexpected("a container", &other)),
        }
    }

    pub(crate) async fn image(&mut self, image: &str) -> Result<Option<ImageState>, EffectError> {
        match self.perform(Effect::ImageInspect { image: image.to_owned() }).await? {
            Observation::Image(state) => Ok(state),
            other => Err(unexpected("an image", &other)),
        }
    }

    pub(crate) async fn logs(&mut self, name: &str, tail: u32) -> Result<String, EffectError> {
        match self.perform(Effect::ContainerLogs { name: name.to_owned(), tail }).await? {
            Observation::Logs(text) => Ok(text),
            other => Err(unexpected("logs", &other)),
        }
    }

    pub(crate) async fn json(&mut self, effect: Effect) -> Result<Value, EffectError> {
        match self.perform(effect).await? {
            Observation::Json(value) => Ok(value),
            other => Err(unexpected("a JSON document", &other)),
        }
    }

    /// Removes a network that no release needs any more. One that somebody else's container has joined
    /// stays until a later change finds it free: that must not stand before every change of the app.
    /// Answers whether it is gone.
    pub(crate) async fn network_drop(&mut self, name: &str) -> Result<bool, EffectError> {
        match self.done(Effect::NetworkRemove { name: name.to_owned() }).await {
            Err(error) if error.kind == EffectErrorKind::Conflict => {
                self.progress(format!("network {name} stays for now: {error}"));
                Ok(false)
            }
            answer => answer.map(|()| true),
        }
    }

    /// Renames the container `id`. When Docker went away in the middle, the first attempt may have
    /// succeeded, and the second finds nothing under the old name: then the id under the new name decides.
    pub(crate) async fn rename(&mut self, id: &str, from: &str, to: &str) -> Result<(), EffectError> {
        let effect = Effect::ContainerRename { from: from.to_owned(), to: to.to_owned() };
        match self.done(effect).await {
            Err(error) if matches!(error.kind, EffectErrorKind::NotFound | EffectErrorKind::Conflict) => {
                match self.container(to).await? {
                    Some(state) if state.id == id => Ok(()),
                    _ => Err(error),
                }
            }
            answer => answer,
        }
    }
}

fn unexpected(wanted: &str, got: &Observation) -> EffectError {
    let got = match got {
        Observation::Done => "nothing",
        Observation::Image(_) => "an image",
        Observation::App(_) => "an app",
        Observation::Container(_) => "a container",
        Observation::Logs(_) => "logs",
        Observation::Json(_) => "a JSON document",
    };
    EffectError {
        kind: EffectErrorKind::Refused,
        message: format!("asked Docker for {wanted} and got {got}; this is a defect of the agent, please report it"),
    }
}

/// The outcome of a dry run of something that has no plan of its own.
pub(crate) fn would(steps: &[&str]) -> Outcome {
    let message = format!("dry run: would {}", steps.join(", then "));
    Outcome::succeeded(message, json!({ "dry_run": true, "would": steps }))
}

/// `1 container`, `2 containers`.
pub(crate) fn count(n: usize, thing: &str) -> String {
    if n == 1 { format!("1 {thing}") } else { format!("{n} {thing}s") }
}

/// As many whole lines from the end of `text` as fit into `bytes_max`; of a single longer line, its end.
pub(crate) fn last_lines(text: &str, bytes_max: usize) -> &str {
    if text.len() <= bytes_max {
        return text;
    }
    let mut from = text.len() - bytes_max;
    while !text.is_char_boundary(from) {
        from += 1;
    }
    match text[from..].find('\n') {
        Some(line_end) if from + line_end + 1 < text.len() => &text[from + line_end + 1..],
        _ => &text[from..],
    }
}
