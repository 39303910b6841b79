//! The loop: look which containers there are, read what they write, pass it on, and know when to stop.

use std::collections::BTreeMap;

use ids::BootMs;
use serde_json::json;

use super::AppLogsFollow;
use crate::{
    effect::{AppState, ContainerState, Effect, EffectError, EffectErrorKind, Observation},
    limits,
    outcome::{Outcome, OutcomeStatus},
    port::{ActionPort, LogPiece, LogStart, StreamRecord},
    release::{Before, app_key, has_pending, is_parked},
};

/// A container whose log is, or was, read.
struct Followed {
    service: String,
    name: String,
    /// Which start of it that is.
    started_at: String,
    /// Time of its last line, as the engine prints it.
    last: Option<String>,
    is_open: bool,
    /// Its log cannot be read at all.
    is_closed_to_us: bool,
}

/// Why it ends.
enum End {
    Unwatched,
    Gone,
    Limit,
    Cancelled,
    Failed(String),
}

struct Follow<'a, P> {
    order: &'a AppLogsFollow,
    port: &'a mut P,
    /// By the engine's id.
    containers: BTreeMap<String, Followed>,
    has_looked: bool,
    idle_since: Option<BootMs>,
}

pub(super) async fn run<P: ActionPort>(order: &AppLogsFollow, port: &mut P) -> Outcome {
    let mut follow = Follow { order, port, containers: BTreeMap::new(), has_looked: false, idle_since: None };
    let end = follow.until_end().await;
    let app = &order.app;
    let (status, ended, message) = match end {
        End::Unwatched => (OutcomeStatus::Succeeded, "unwatched", format!("nobody watches the logs of {app} any more")),
        End::Gone => {
            let message = format!("none of the containers of {app} runs any more; see `serverflow app show {app}`");
            (OutcomeStatus::Succeeded, "gone", message)
        }
        End::Limit => {
            let most = limits::FOLLOW_TIME_MAX;
            let message =
                format!("the logs of {app} were followed for {most}, which is the most at a time; follow them again");
            (OutcomeStatus::Succeeded, "limit", message)
        }
        End::Cancelled => (OutcomeStatus::Cancelled, "cancelled", format!("following the logs of {app} was cancelled")),
        End::Failed(message) => (OutcomeStatus::Failed, "failed", message),
    };
    Outcome { status, message, result: json!({ "app": app, "ended": ended }) }
}

impl<P: ActionPort> Follow<'_, P> {
    async fn until_end(&mut self) -> End {
        let began = self.port.boot_now();
        let mut look_at = began;
        loop {
            let now = self.port.boot_now();
            if self.port.is_cancelled() {
                return End::Cancelled;
            }
            if now.since(began) >= limits::FOLLOW_TIME_MAX {
                return End::Limit;
            }
            if now >= self.port.watched_until() {
                return End::Unwatched;
            }
            if now >= look_at {
                if let Some(end) = self.look(now).await {
                    return end;
                }
                look_at = self.port.boot_now().plus(limits::FOLLOW_LOOK);
            }
            let pieces = self.port.logs_next(look_at.since(now).min(limits::FOLLOW_LOOK)).await;
            if self.pass_on(pieces) {
                // Whoever watches is slower than the containers: reading on at full speed would only heat the host.
                self.port.wait(limits::FOLLOW_SLOW_DOWN).await;
            }
        }
    }

    /// Passes pieces on; answers whether some had to be left out.
    fn pass_on(&mut self, pieces: Vec<LogPiece>) -> bool {
        let mut has_lost = false;
        for piece in pieces {
            match piece {
                LogPiece::Line { container, time, text, cut } => {
                    let Some(known) = self.containers.get_mut(&container) else { continue };
                    let (service, name) = (known.service.clone(), known.name.clone());
                    known.last = Some(time.clone());
                    has_lost |= self.port.stream(StreamRecord::Line { service, container: name, time, text, cut });
                }
                LogPiece::Ended { container, error } => {
                    let Some(known) = self.containers.get_mut(&container) else { continue };
                    known.is_open = false;
                    if let Some(error) = error {
                        known.is_closed_to_us = true;
                        let note = format!("{}: {error}", known.service);
                        self.port.stream(StreamRecord::Note(note));
                    }
                }
            }
        }
        has_lost
    }

    /// Looks which containers there are, and opens the logs of those that are new or run again.
    async fn look(&mut self, now: BootMs) -> Option<End> {
        let state = match self.observe().await {
            Ok(state) => state,
            // The engine may come back, and its containers with it; lease and limit bound the wait.
            Err(error) if error.kind == EffectErrorKind::EngineUnreachable && self.has_looked => return None,
            Err(error) => return Some(self.unreadable(&error)),
        };
        let mut chosen: Vec<ContainerState> =
            state.containers.into_iter().filter(|container| !is_parked(&container.name)).collect();
        chosen.sort_by(|a, b| a.name.cmp(&b.name));
        if !self.has_looked
            && let Some(end) = self.unknown(&chosen)
        {
            return Some(end);
        }
        chosen
            .retain(|container| self.order.service.as_ref().is_none_or(|wanted| container.service == wanted.as_str()));
        for container in &chosen {
            if let Err(error) = self.follow(container).await {
                return Some(self.unreadable(&error));
            }
        }
        self.has_looked = true;
        self.containers.retain(|id, known| known.is_open || chosen.iter().any(|container| container.id == *id));
        let runs = chosen.iter().any(|container| Before::of(container).ran());
        self.is_gone(runs, now).await
    }

    async fn observe(&mut self) -> Result<AppState, EffectError> {
        match self.port.perform(Effect::AppObserve { app: self.order.app.clone() }).await? {
            Observation::App(state) => Ok(state),
            _ => Err(EffectError {
                kind: EffectErrorKind::Refused,
                message: "Docker answered with something else than an app; this is a defect of the agent".to_owned(),
            }),
        }
    }

    fn unreadable(&self, error: &EffectError) -> End {
        End::Failed(format!("the logs of {} cannot be followed: {error}", self.order.app))
    }

    /// An app or a service that is not there is probably mistyped.
    fn unknown(&self, containers: &[ContainerState]) -> Option<End> {
        let app = &self.order.app;
        if containers.is_empty() {
            return Some(End::Failed(format!("this host runs no app named {app}; see `serverflow app list`")));
        }
        let wanted = self.order.service.as_ref()?;
        let known: Vec<&str> = containers.iter().map(|container| container.service.as_str()).collect();
        let is_known = known.contains(&wanted.as_str());
        (!is_known).then(|| End::Failed(format!("app {app} has no service {wanted} here; it has {}", known.join(", "))))
    }

    async fn follow(&mut self, container: &ContainerState) -> Result<(), EffectError> {
        let runs = Before::of(container).ran();
        let start = match self.containers.get(&container.id) {
            Some(known) if known.is_open || known.is_closed_to_us => return Ok(()),
            Some(known) if !runs || known.started_at == container.started_at => return Ok(()),
            Some(known) => LogStart { tail: None, since: None, after: known.last.clone() },
            None if self.has_looked => LogStart { tail: None, since: None, after: None },
            None => {
                let since = self.order.since_ms.map(|span| self.port.now().0.saturating_sub(span));
                let tail = Some(self.order.tail.unwrap_or(limits::LOGS_TAIL_DEFAULT));
                LogStart { tail, since: since.map(ids::UnixMs), after: None }
            }
        };
        let last = start.after.clone();
        match self.port.logs_open(&container.name, &container.id, start).await {
            Ok(()) => {}
            // It went away since it was seen, or the engine is away: the next look knows better.
            Err(error) if matches!(error.kind, EffectErrorKind::NotFound | EffectErrorKind::EngineUnreachable) => {
                return Ok(());
            }
            Err(error) => return Err(error),
        }
        if self.has_looked {
            let note = format!("{}: following container {}", container.service, container.name);
            self.port.stream(StreamRecord::Note(note));
        }
        let (service, name, started_at) =
            (container.service.clone(), container.name.clone(), container.started_at.clone());
        let followed = Followed { service, name, started_at, last, is_open: true, is_closed_to_us: false };
        self.containers.insert(container.id.clone(), followed);
        Ok(())
    }

    /// Whether there will be nothing more: nothing runs, nothing is being changed, and that for a while.
    async fn is_gone(&mut self, runs: bool, now: BootMs) -> Option<End> {
        if runs || self.is_being_changed().await {
            self.idle_since = None;
            return None;
        }
        let since = *self.idle_since.get_or_insert(now);
        (now.since(since) >= limits::FOLLOW_GONE_AFTER).then_some(End::Gone)
    }

    async fn is_being_changed(&mut self) -> bool {
        let record = self.port.record_read(&app_key(&self.order.app)).await;
        // A journal that cannot be read ends the agent; until then nothing is known.
        record.is_ok_and(|record| record.is_some_and(|record| has_pending(&record)))
    }
}
