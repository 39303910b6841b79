//! Waiting for containers to be what their service promises, and knowing at once when they never
//! will be.

use std::collections::BTreeMap;

use ids::{AppName, BootMs, DurationMs, ServiceName};

use crate::{
    effect::{AppState, ContainerState, Health as Probe, RunState},
    engine::Engine,
    limits,
    port::ActionPort,
    spec::{AppSpec, DependencyCondition, RestartPolicy},
    spec_read,
    stop::Stop,
};

/// What one look at a container says.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Verdict {
    /// Not decided yet; what it is doing, in words.
    Waiting(&'static str),
    /// It runs, and its probe passes.
    Healthy,
    /// It runs, and there is no probe.
    Running,
    /// It ended with exit code 0, as it was meant to.
    Completed,
    /// It will not become what it should; why, in words.
    Bad(String),
}

/// What a container is held against.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Promise {
    /// It is meant to end with exit code 0.
    pub(crate) one_shot: bool,
    /// The engine may start it again after a failure, because its file says so.
    pub(crate) may_retry: bool,
}

/// Judges one container.
pub(crate) fn judge(state: &ContainerState, promise: Promise) -> Verdict {
    if state.oom_killed && !matches!(state.run, RunState::Running) {
        return Verdict::Bad("was killed because it used more memory than it may (out of memory)".to_owned());
    }
    match state.run {
        RunState::Created if state.error.is_empty() => Verdict::Waiting("starting"),
        RunState::Created => Verdict::Bad(format!("could not be started: {}", state.error)),
        RunState::Paused => Verdict::Waiting("paused"),
        RunState::Dead => Verdict::Bad("could not be taken down by Docker".to_owned()),
        RunState::Restarting if promise.may_retry => Verdict::Waiting("being tried again"),
        RunState::Restarting => {
            let code = state.last_exit_code.map(|code| format!(" with exit code {code}")).unwrap_or_default();
            Verdict::Bad(format!("ended{code} and is being restarted over and over"))
        }
        RunState::Exited { code: 0 } if promise.one_shot => Verdict::Completed,
        RunState::Exited { code: 0 } => Verdict::Bad("ended (exit code 0) though it should keep running".to_owned()),
        RunState::Exited { code } if state.error.is_empty() => Verdict::Bad(format!("ended with exit code {code}")),
        RunState::Exited { code } => Verdict::Bad(format!("ended with exit code {code}: {}", state.error)),
        RunState::Running if state.restart_count > 0 && !promise.may_retry => {
            let times =
                if state.restart_count == 1 { "once".to_owned() } else { format!("{} times", state.restart_count) };
            let code = state.last_exit_code.map(|code| format!(" with exit code {code}")).unwrap_or_default();
            Verdict::Bad(format!("ended{code} and was restarted {times}"))
        }
        RunState::Running => match state.health {
            Probe::None => Verdict::Running,
            Probe::Starting => Verdict::Waiting("not healthy yet"),
            Probe::Healthy => Verdict::Healthy,
            Probe::Unhealthy => Verdict::Bad("is unhealthy: its health check failed too often".to_owned()),
        },
    }
}

/// What is waited for.
pub(crate) enum Goal {
    /// One service's dependency has reached its condition.
    Dependency { of: ServiceName, dependency: ServiceName, condition: DependencyCondition },
    /// Everything that was started holds.
    All,
}

/// What was seen at the end.
pub(crate) struct Health {
    pub(crate) state: AppState,
    /// Services that keep running without any probe.
    pub(crate) without_probe: Vec<ServiceName>,
}

/// Watches the containers that a change has started.
pub(crate) struct Watch<'a> {
    spec: &'a AppSpec,
    /// Containers of all services, started by this change or not.
    containers: BTreeMap<&'a ServiceName, String>,
    started: Vec<ServiceName>,
    good_since: BTreeMap<ServiceName, (BootMs, String)>,
    deadline: DurationMs,
    min_healthy: DurationMs,
}

impl<'a> Watch<'a> {
    pub(crate) fn new(spec: &'a AppSpec, deadline: DurationMs, min_healthy: DurationMs) -> Self {
        let container = |name: &ServiceName| spec_read::container_name(&spec.app, name.as_str());
        Self {
            spec,
            containers: spec.services.keys().map(|name| (name, container(name))).collect(),
            started: Vec::new(),
            good_since: BTreeMap::new(),
            deadline,
            min_healthy,
        }
    }

    /// From now on this service must not fail.
    pub(crate) fn started(&mut self, name: ServiceName) {
        self.started.push(name);
    }

    /// Waits for a goal. The first container that will never make it ends the wait at once. Time in
    /// which Docker did not answer does not count.
    pub(crate) async fn until<P: ActionPort>(
        &mut self,
        goal: Goal,
        engine: &mut Engine<'_, P>,
    ) -> Result<Health, Stop> {
        let began = engine.boot_now();
        let unreachable_before = engine.unreachable();
        let mut told = String::new();
        for _ in 0..limits::HEALTH_POLLS_MAX {
            let app: &AppName = &self.spec.app;
            let state = engine.observe(app).await?;
            let open = self.open(&goal, &state, engine.boot_now())?;
            if open.is_empty() {
                return Ok(Health { without_probe: self.without_probe(&state), state });
            }
            engine.may_go_on()?;
            let words: Vec<String> = open.iter().map(|(name, doing)| format!("{name} ({doing})")).collect();
            let words = words.join(", ");
            let spent = engine.boot_now().since(began).0.saturating_sub(engine.unreachable().0 - unreachable_before.0);
            if spent >= self.deadline.0 {
                return Err(self.too_late(&open, &words));
            }
            if words != told {
                engine.progress(format!("waiting for {words}"));
                told = words;
            }
            engine.wait(limits::HEALTH_POLL).await;
        }
        Err(Stop::fault("waited for health far too often; this is a defect of the agent, please report it"))
    }

    fn too_late(&self, open: &[(ServiceName, &'static str)], words: &str) -> Stop {
        let failing = open
            .iter()
            .filter_map(|(name, _)| self.containers.get(name).map(|container| (name.to_string(), container.clone())))
            .collect();
        let message = format!(
            "not healthy within {}: {words}. See the last log lines; allow more time with `--healthy-within` if the app needs it",
            self.deadline
        );
        Stop::Fault(crate::stop::Fault { message, failing })
    }

    /// The services that the goal still waits for; an error if one of them, or one already started, is lost.
    fn open(&mut self, goal: &Goal, state: &AppState, now: BootMs) -> Result<Vec<(ServiceName, &'static str)>, Stop> {
        let mut open = Vec::new();
        for name in self.started.clone() {
            let (verdict, since) = self.look(&name, state)?;
            if let Goal::All = goal
                && let Some(doing) = self.not_held(&name, &verdict, since, now)
            {
                open.push((name, doing));
            }
        }
        if let Goal::Dependency { of, dependency, condition } = goal {
            let (verdict, _) = self.look(dependency, state)?;
            if let Some(doing) = self.not_reached(of, dependency, *condition, &verdict)? {
                open.push((dependency.clone(), doing));
            }
        }
        Ok(open)
    }

    /// Judges a service's container, and says which start of it this is.
    fn look(&self, name: &ServiceName, state: &AppState) -> Result<(Verdict, String), Stop> {
        let container_name = self.containers.get(name).map(String::as_str).unwrap_or_default();
        let Some(container) = state.containers.iter().find(|container| container.name == container_name) else {
            let message = format!("service {name}: its container {container_name} disappeared");
            return Err(Stop::failing(name.as_str(), container_name, message));
        };
        let restart = self.spec.services.get(name).map(|service| service.restart);
        let promise = Promise {
            one_shot: spec_read::is_one_shot(self.spec, name),
            may_retry: matches!(restart, Some(RestartPolicy::OnFailure { .. })),
        };
        match judge(container, promise) {
            Verdict::Bad(why) if self.started.contains(name) || !matches!(container.run, RunState::Running) => {
                Err(Stop::failing(
                    name.as_str(),
                    container_name,
                    format!("service {name}: container {container_name} {why}"),
                ))
            }
            // A service this deploy leaves alone may have been restarted long ago; what counts is how it is now.
            Verdict::Bad(_) if container.health == Probe::Healthy => {
                Ok((Verdict::Healthy, container.started_at.clone()))
            }
            Verdict::Bad(why) if container.health == Probe::Unhealthy => Err(Stop::failing(
                name.as_str(),
                container_name,
                format!("service {name}: container {container_name} {why}"),
            )),
            Verdict::Bad(_) => Ok((Verdict::Running, container.started_at.clone())),
            verdict => Ok((verdict, container.started_at.clone())),
        }
    }

    /// What a started service still lacks, once all are to hold.
    fn not_held(&mut self, name: &ServiceName, verdict: &Verdict, start: String, now: BootMs) -> Option<&'static str> {
        match verdict {
            Verdict::Completed => None,
            Verdict::Waiting(doing) => {
                self.good_since.remove(name);
                Some(doing)
            }
            Verdict::Healthy | Verdict::Running => {
                let since = self.good_since.entry(name.clone()).or_insert_with(|| (now, start.clone()));
                if since.1 != start {
                    *since = (now, start);
                }
                (now.since(since.0) < self.min_healthy).then_some("has to stay so for a moment")
            }
            Verdict::Bad(_) => Some("failing"),
        }
    }

    fn not_reached(
        &self,
        of: &ServiceName,
        dependency: &ServiceName,
        condition: DependencyCondition,
        verdict: &Verdict,
    ) -> Result<Option<&'static str>, Stop> {
        use DependencyCondition::{ServiceCompletedSuccessfully, ServiceHealthy, ServiceStarted};
        let container = self.containers.get(dependency).map(String::as_str).unwrap_or_default();
        Ok(match (condition, verdict) {
            (ServiceStarted, Verdict::Waiting("starting" | "paused")) => Some("starting"),
            (ServiceStarted, _) | (ServiceHealthy, Verdict::Healthy | Verdict::Completed) => None,
            (ServiceHealthy, Verdict::Running) => {
                let words = format!(
                    "service {of} waits for {dependency} to be healthy, but {dependency} has no health check; add one, or wait for service_started"
                );
                return Err(Stop::failing(dependency.as_str(), container, words));
            }
            (ServiceCompletedSuccessfully, Verdict::Completed) => None,
            (ServiceCompletedSuccessfully, Verdict::Healthy | Verdict::Running) => Some("not finished yet"),
            (_, Verdict::Waiting(doing)) => Some(doing),
            (_, Verdict::Bad(_)) => Some("failing"),
        })
    }

    fn without_probe(&self, state: &AppState) -> Vec<ServiceName> {
        let no_probe = |name: &ServiceName, container: &str| {
            let found = state.containers.iter().find(|other| other.name == container);
            found.is_some_and(|found| found.run == RunState::Running && found.health == Probe::None)
                && !spec_read::is_one_shot(self.spec, name)
        };
        let names = self.containers.iter().filter(|(name, container)| no_probe(name, container));
        names.map(|(name, _)| (*name).clone()).collect()
    }
}
