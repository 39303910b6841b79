//! Whether what was put back is as it was: looked at until it has held, not assumed.

use std::collections::{BTreeMap, BTreeSet};

use ids::{AppName, BootMs, DurationMs};

use super::health::{Promise, Verdict, judge};
use crate::{
    effect::{AppState, ContainerState, Health as Probe, RunState},
    engine::Engine,
    limits,
    port::ActionPort,
    release::{Before, ReleaseRecord},
    spec_read,
    stop::Stop,
};

/// What going back found.
#[derive(Default)]
pub(crate) struct Findings {
    /// What is not as it was, in words.
    wrong: Vec<String>,
    /// What could not be put back yet, in words.
    left: Vec<String>,
    /// Ids of containers that are known not to run: nothing is waited for.
    lost: BTreeSet<String>,
}

impl Findings {
    /// A container that will not run as it did.
    pub(crate) fn lose(&mut self, old: &Before, words: String) {
        self.wrong.push(words);
        self.give_up(old);
    }

    /// Nothing is waited for.
    pub(crate) fn give_up(&mut self, old: &Before) {
        self.lost.insert(old.id.clone());
    }

    /// Notes what could not be done with one container, so that the others are put back all the same.
    /// Answers whether it was done.
    ///
    /// # Errors
    /// When nothing at all can be done now.
    pub(crate) fn note(&mut self, container: &str, what: &str, done: Result<(), Stop>) -> Result<bool, Stop> {
        match done {
            Ok(()) => Ok(true),
            Err(Stop::Fault(fault)) => {
                self.left.push(format!("container {container} could not {what}: {}", fault.message));
                Ok(false)
            }
            Err(stop) => Err(stop),
        }
    }

    /// What is not as it was and will not be.
    ///
    /// # Errors
    /// When something is left to be done, with all of it in words.
    pub(crate) fn all_done(self) -> Result<Vec<String>, Stop> {
        let Self { wrong, mut left, .. } = self;
        if left.is_empty() {
            return Ok(wrong);
        }
        left.extend(wrong);
        Err(Stop::fault(left.join("; ")))
    }
}

/// Waits until everything that ran runs again and has held, and what was healthy is healthy. What was
/// not touched at all has held long enough.
pub(crate) async fn verify<P: ActionPort>(
    before: &[Before],
    release: Option<&ReleaseRecord>,
    app: &AppName,
    found: &mut Findings,
    engine: &mut Engine<'_, P>,
) -> Result<AppState, Stop> {
    let began = engine.boot_now();
    let unreachable_before = engine.unreachable();
    let mut held = BTreeMap::new();
    let mut state = engine.observe(app).await?;
    for _ in 0..limits::HEALTH_POLLS_MAX {
        let (mut open, mut bad) = (Vec::new(), Vec::new());
        for old in before.iter().filter(|old| old.ran() && !found.lost.contains(&old.id)) {
            match as_before(old, release, &state) {
                AsBefore::Yes => {}
                AsBefore::Runs(current) => {
                    if !has_held(&mut held, current, engine.boot_now()) {
                        open.push(format!("container {} does not keep running", old.name));
                    }
                }
                AsBefore::NotYet(words) => {
                    held.remove(&old.id);
                    open.push(words);
                }
                AsBefore::No(words) => bad.push(words),
            }
        }
        let away = DurationMs(engine.unreachable().0 - unreachable_before.0);
        let spent = DurationMs(engine.boot_now().since(began).0.saturating_sub(away.0));
        let late = spent >= limits::HEALTH_DEADLINE_DEFAULT;
        if !bad.is_empty() || open.is_empty() || late {
            found.wrong.extend(bad);
            found.wrong.extend(open);
            return Ok(state);
        }
        engine.wait(limits::HEALTH_POLL).await;
        state = engine.observe(app).await?;
    }
    Ok(state)
}

/// Whether one and the same start of a container was seen running for as long as a deploy asks for.
fn has_held(held: &mut BTreeMap<String, (BootMs, String)>, current: &ContainerState, now: BootMs) -> bool {
    let since = held.entry(current.id.clone()).or_insert_with(|| (now, current.started_at.clone()));
    if since.1 != current.started_at {
        *since = (now, current.started_at.clone());
    }
    now.since(since.0) >= limits::MIN_HEALTHY_DEFAULT
}

enum AsBefore<'a> {
    Yes,
    /// It runs, and has to hold.
    Runs(&'a ContainerState),
    NotYet(String),
    No(String),
}

fn as_before<'a>(old: &Before, release: Option<&ReleaseRecord>, state: &'a AppState) -> AsBefore<'a> {
    let Some(current) = state.containers.iter().find(|container| container.id == old.id) else {
        return AsBefore::No(format!("container {} does not exist any more", old.name));
    };
    // One that kept ending before may do so now, and one that somebody paused stays so.
    if old.run == RunState::Restarting || (old.run, current.run) == (RunState::Paused, RunState::Paused) {
        return AsBefore::Yes;
    }
    // It may have to wait for others, as when the engine starts, and end until they are there.
    let promise = Promise { one_shot: may_complete(old, release), may_retry: true };
    let runs = || {
        let is_same_start = !old.started_at.is_empty() && old.started_at == current.started_at;
        if is_same_start { AsBefore::Yes } else { AsBefore::Runs(current) }
    };
    match judge(current, promise) {
        Verdict::Completed => AsBefore::Yes,
        Verdict::Healthy | Verdict::Running => runs(),
        // What was not healthy before need not be now, but it has to run.
        Verdict::Bad(_) if current.run == RunState::Running && old.health == Probe::Unhealthy => runs(),
        Verdict::Waiting(_) if current.run == RunState::Running && old.health != Probe::Healthy => runs(),
        Verdict::Bad(why) => AsBefore::No(format!("container {} {why}", old.name)),
        Verdict::Waiting(doing) => AsBefore::NotYet(format!("container {} is {doing}", old.name)),
    }
}

/// Whether a container may have ended with 0: one that is meant to, or of which nothing is known.
fn may_complete(old: &Before, release: Option<&ReleaseRecord>) -> bool {
    let Some(release) = release else { return true };
    let mut names = release.spec.services.keys();
    names.find(|name| name.as_str() == old.service).is_none_or(|name| spec_read::is_one_shot(&release.spec, name))
}
