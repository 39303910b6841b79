//! Which services an order concerns, and what happens to each, without looking at anything.

use std::collections::{BTreeMap, BTreeSet};

use ids::ServiceName;

use super::{Order, RunChange, Verb};
use crate::{
    effect::{AppState, ContainerState, RunState},
    release::Before,
    spec::AppSpec,
    spec_read,
};

/// What is to be done.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Decision {
    /// All services in starting order.
    pub(super) order: Vec<ServiceName>,
    pub(super) changes: BTreeMap<ServiceName, RunChange>,
}

/// Decides, or says in words why it cannot be done.
pub(super) fn decide(
    order: &Order<'_>,
    spec: &AppSpec,
    stopped: &BTreeSet<ServiceName>,
    state: &AppState,
) -> Result<Decision, String> {
    let sequence = spec_read::start_order(spec)
        .map_err(|circle| format!("services wait for each other in a circle: {circle:?}"))?;
    let chosen = chosen(order, spec)?;
    let mut changes = BTreeMap::new();
    for name in sequence.iter().filter(|name| chosen.contains(name)) {
        let container = spec_read::container_name(&spec.app, name.as_str());
        let container = state.containers.iter().find(|other| other.name == container);
        let service = Service {
            name,
            container,
            is_named: order.services.contains(name),
            is_stopped: stopped.contains(name),
            is_one_shot: spec_read::is_one_shot(spec, name),
        };
        changes.extend(service.change(order)?.map(|change| (name.clone(), change)));
    }
    // What an order did not stop has completed, when there is nothing to restart.
    let is_stopped = changes.is_empty() && chosen.iter().any(|name| stopped.contains(name));
    if order.verb == Verb::Restart && is_stopped {
        return Err(format!("{0} is stopped; start it with `serverflow app start {0}`", spec.app));
    }
    Ok(Decision { order: sequence, changes })
}

/// One service and what is known of it.
struct Service<'a> {
    name: &'a ServiceName,
    container: Option<&'a ContainerState>,
    is_named: bool,
    is_stopped: bool,
    is_one_shot: bool,
}

impl Service<'_> {
    fn change(&self, order: &Order<'_>) -> Result<Option<RunChange>, String> {
        let app = order.app;
        let Some(container) = self.container else {
            return match order.verb {
                Verb::Stop => Ok(None),
                Verb::Start | Verb::Restart => Err(format!(
                    "service {} of {app} has no container on this host any more; deploy the app again",
                    self.name
                )),
            };
        };
        let runs = Before::of(container).ran();
        // One that an order stopped may have ended with 0, too, and has completed nothing.
        let completed = self.is_one_shot && container.run == RunState::Exited { code: 0 } && !self.is_stopped;
        Ok(match order.verb {
            Verb::Stop => (!completed && (runs || !self.is_stopped)).then_some(RunChange::Stop),
            Verb::Start => (!completed && (!runs || self.is_stopped)).then_some(RunChange::Start),
            Verb::Restart if self.is_stopped && self.is_named => {
                return Err(format!(
                    "service {0} is stopped; start it with `serverflow app start {app} --service {0}`",
                    self.name
                ));
            }
            Verb::Restart => (!self.is_stopped && (!completed || self.is_named)).then_some(RunChange::Restart),
        })
    }
}

/// The services asked for, and those that must go along: whoever shares a namespace of one that stops
/// would lose it, and one that starts needs what it depends on.
fn chosen(order: &Order<'_>, spec: &AppSpec) -> Result<BTreeSet<ServiceName>, String> {
    if order.services.is_empty() {
        return Ok(spec.services.keys().cloned().collect());
    }
    if let Some(stranger) = order.services.iter().find(|name| !spec.services.contains_key(*name)) {
        let known: Vec<&str> = spec.services.keys().map(ServiceName::as_str).collect();
        return Err(format!("app {} has no service {stranger}; it has {}", order.app, known.join(", ")));
    }
    let mut chosen: BTreeSet<ServiceName> = order.services.iter().cloned().collect();
    loop {
        let before = chosen.len();
        let more: Vec<ServiceName> = match order.verb {
            Verb::Start => chosen.iter().flat_map(|name| needed(spec, name)).collect(),
            Verb::Stop | Verb::Restart => {
                spec.services.keys().filter(|name| rides(spec, name, &chosen)).cloned().collect()
            }
        };
        chosen.extend(more);
        if chosen.len() == before {
            return Ok(chosen);
        }
    }
}

fn needed(spec: &AppSpec, name: &ServiceName) -> Vec<ServiceName> {
    let service = spec.services.get(name);
    service.map(|service| spec_read::dependencies(spec, service).into_keys().collect()).unwrap_or_default()
}

fn rides(spec: &AppSpec, name: &ServiceName, chosen: &BTreeSet<ServiceName>) -> bool {
    let service = spec.services.get(name);
    service.is_some_and(|service| {
        spec_read::namespace_parents(service).any(|parent| chosen.iter().any(|name| name.as_str() == parent))
    })
}

/// How the app stands as orders left it, in one word.
pub(super) fn app_state(spec: &AppSpec, stopped: &BTreeSet<ServiceName>) -> &'static str {
    let down = |name: &ServiceName| stopped.contains(name) || spec_read::is_one_shot(spec, name);
    if stopped.is_empty() {
        "running"
    } else if spec.services.keys().all(down) {
        "stopped"
    } else {
        "partly_stopped"
    }
}
