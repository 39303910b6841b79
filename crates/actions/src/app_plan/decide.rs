//! From what runs and what shall run to what is to be done, without looking at anything.
//!
//! A deploy calls this with the containers as they were *before* it began, also when it resumes
//! after a crash, so that it always comes to the same decisions.

use std::collections::{BTreeMap, BTreeSet};

use ids::{ReleaseId, ServiceName};

use super::{Change, PlanResult, ServiceChange, Strategy, ThingChange, compare};
use crate::{
    effect::{ContainerSpec, ImageState, RunState},
    release::{Before, ReleaseRecord, is_parked},
    spec::{AppSpec, DependencyCondition, PinnedImage, PortSpec},
    spec_read,
};

/// All that a decision rests on.
pub(crate) struct Known<'a> {
    pub(crate) spec: &'a AppSpec,
    pub(crate) images: &'a BTreeMap<ServiceName, PinnedImage>,
    pub(crate) image_states: &'a BTreeMap<ServiceName, ImageState>,
    /// Containers as they shall be; a service is missing here when its image is not resolved.
    pub(crate) desired: &'a BTreeMap<ServiceName, ContainerSpec>,
    pub(crate) before: &'a [Before],
    pub(crate) networks: &'a [String],
    pub(crate) volumes: &'a [String],
    pub(crate) from: Option<ReleaseId>,
    pub(crate) from_record: Option<&'a ReleaseRecord>,
    pub(crate) fingerprints: &'a BTreeMap<crate::spec::SecretName, String>,
    /// Services that an order has stopped.
    pub(crate) stopped: &'a BTreeSet<ServiceName>,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Decision {
    /// Services in starting order.
    pub(crate) order: Vec<ServiceName>,
    pub(crate) changes: BTreeMap<ServiceName, Change>,
    /// Id of the container that each service has now.
    pub(crate) old: BTreeMap<ServiceName, String>,
    /// Ids of containers that no service of the specification owns.
    pub(crate) orphans: Vec<String>,
    /// Services whose old container must stop before any new one starts, because another service
    /// takes its port.
    pub(crate) early: BTreeSet<ServiceName>,
    /// Networks to be made: name in the file → name on the engine.
    pub(crate) networks_create: BTreeMap<String, String>,
    pub(crate) networks_remove: Vec<String>,
    /// Volumes to be made: name in the file → name on the engine.
    pub(crate) volumes_create: BTreeMap<ServiceName, String>,
    /// The same for people.
    pub(crate) plan: PlanResult,
}

/// Decides, or says in words why the specification cannot work on this host.
pub(crate) fn decide(known: &Known<'_>) -> Result<Decision, String> {
    impossible(known)?;
    let order = spec_read::start_order(known.spec)
        .map_err(|circle| format!("services wait for each other in a circle: {circle:?}"))?;
    let old = old_containers(known);
    let mut entries: BTreeMap<ServiceName, ServiceChange> = BTreeMap::new();
    for name in &order {
        let current = old.get(name).and_then(|id| known.before.iter().find(|container| container.id == *id));
        let (change, reasons) = service_change(known, name, current, &entries);
        entries.insert(name.clone(), ServiceChange { service: name.to_string(), change, reasons });
    }
    let orphans: Vec<&Before> =
        known.before.iter().filter(|container| !old.values().any(|id| *id == container.id)).collect();
    let changes: BTreeMap<ServiceName, Change> =
        entries.iter().map(|(name, entry)| (name.clone(), entry.change)).collect();
    let networks_used = spec_read::networks_used(known.spec);
    let mut networks_create = networks_used.clone();
    networks_create.retain(|_, engine_name| !known.networks.contains(engine_name));
    let networks_remove: Vec<String> =
        known.networks.iter().filter(|name| !networks_used.values().any(|used| used == *name)).cloned().collect();
    let mut volumes_create = spec_read::volumes_used(known.spec);
    volumes_create.retain(|_, engine_name| !known.volumes.contains(engine_name));
    let mut decision = Decision {
        early: early(known, &changes),
        orphans: orphans.iter().map(|container| container.id.clone()).collect(),
        plan: plan_result(known, &order, &mut entries, &orphans),
        order,
        changes,
        old,
        networks_create,
        networks_remove,
        volumes_create,
    };
    decision.finish_plan();
    Ok(decision)
}

impl Decision {
    fn finish_plan(&mut self) {
        let thing = |name: &String, change| ThingChange { name: name.clone(), change };
        self.plan.networks = self.networks_create.values().map(|name| thing(name, Change::Create)).collect();
        self.plan.networks.extend(self.networks_remove.iter().map(|name| thing(name, Change::Remove)));
        self.plan.volumes = self.volumes_create.values().map(|name| thing(name, Change::Create)).collect();
        self.plan.unchanged = self.plan.changes.iter().all(|entry| entry.change == Change::Unchanged)
            && self.plan.networks.is_empty()
            && self.plan.volumes.is_empty();
        let bytes = serde_json::to_vec(&self.plan).unwrap_or_default();
        self.plan.plan_sha256 = ids::sha256(&bytes);
    }
}

/// The container that each service of the specification has now.
fn old_containers(known: &Known<'_>) -> BTreeMap<ServiceName, String> {
    let of = |name: &ServiceName| {
        let mut candidates: Vec<&Before> = known.before.iter().filter(|it| it.service == name.as_str()).collect();
        candidates.retain(|container| !is_parked(&container.name));
        // One that somebody renamed comes after the one that has the service's name.
        let wanted = spec_read::container_name(&known.spec.app, name.as_str());
        candidates.sort_by_key(|container| container.name != wanted);
        candidates.first().map(|container| (name.clone(), container.id.clone()))
    };
    known.spec.services.keys().filter_map(of).collect()
}

fn service_change(
    known: &Known<'_>,
    name: &ServiceName,
    current: Option<&Before>,
    decided: &BTreeMap<ServiceName, ServiceChange>,
) -> (Change, Vec<String>) {
    let Some(current) = current else {
        return (Change::Create, vec!["it has no container yet".to_owned()]);
    };
    let Some(desired) = known.desired.get(name) else {
        return (Change::Replace, vec!["its image is not on this host and would be pulled".to_owned()]);
    };
    if current.config != desired.config {
        return (Change::Replace, compare::reasons(known, name));
    }
    let wanted = spec_read::container_name(&known.spec.app, name.as_str());
    if current.name != wanted {
        return (Change::Replace, vec![format!("its container is called {}, not {wanted}", current.name)]);
    }
    // A namespace ends with its container, so whoever shares it goes along.
    let service = &known.spec.services[name];
    let parent_replaced = spec_read::namespace_parents(service).find(|parent| {
        decided.iter().any(|(other, entry)| {
            other.as_str() == *parent && matches!(entry.change, Change::Create | Change::Replace | Change::Restart)
        })
    });
    if let Some(parent) = parent_replaced {
        return (Change::Replace, vec![format!("it shares a namespace of {parent}, which is replaced")]);
    }
    if known.stopped.contains(name) {
        return (Change::Restart, vec!["it was stopped by an order".to_owned()]);
    }
    match current.run {
        RunState::Running | RunState::Paused => (Change::Unchanged, Vec::new()),
        RunState::Exited { code: 0 } if spec_read::is_one_shot(known.spec, name) => (Change::Unchanged, Vec::new()),
        RunState::Restarting => (Change::Restart, vec!["it keeps ending and being restarted".to_owned()]),
        RunState::Created => (Change::Restart, vec!["it was never started".to_owned()]),
        RunState::Exited { code } => (Change::Restart, vec![format!("it ended with exit code {code}")]),
        RunState::Dead => (Change::Replace, vec!["Docker could not take it down properly".to_owned()]),
    }
}

/// What cannot work whatever is tried, found before anything is touched.
fn impossible(known: &Known<'_>) -> Result<(), String> {
    for (name, service) in &known.spec.services {
        for (dependency, condition) in &service.depends_on {
            let (Some(image), Some(target)) = (known.image_states.get(dependency), known.spec.services.get(dependency))
            else {
                continue;
            };
            if *condition == DependencyCondition::ServiceHealthy && !spec_read::has_probe(target, image) {
                return Err(format!(
                    "service {name} waits for {dependency} to be healthy, but neither the file nor the image of {dependency} has a health check; add one, or wait for service_started"
                ));
            }
        }
    }
    let Some(from) = known.from_record else { return Ok(()) };
    for (name, volume) in &known.spec.volumes {
        let exists = known.volumes.contains(&spec_read::volume_name(&known.spec.app, name.as_str()));
        let earlier = from.spec.volumes.get(name);
        if exists && earlier.is_some_and(|earlier| earlier.driver_opts != volume.driver_opts) {
            return Err(format!(
                "the driver_opts of volume {name} changed, but a volume cannot be altered without losing its data; give the new one another name"
            ));
        }
    }
    Ok(())
}

/// Services to be replaced whose port another service takes over.
fn early(known: &Known<'_>, changes: &BTreeMap<ServiceName, Change>) -> BTreeSet<ServiceName> {
    let Some(from) = known.from_record else { return BTreeSet::new() };
    let clash = |a: &PortSpec, b: &PortSpec| {
        a.host_port.is_some()
            && a.host_port == b.host_port
            && a.protocol == b.protocol
            && (a.host_ip == b.host_ip || a.host_ip.is_unspecified() || b.host_ip.is_unspecified())
    };
    let taken_over = |name: &ServiceName| {
        let Some(earlier) = from.spec.services.get(name) else { return false };
        known
            .spec
            .services
            .iter()
            .filter(|(other, _)| *other != name)
            .any(|(_, other)| other.ports.iter().any(|new| earlier.ports.iter().any(|old| clash(old, new))))
    };
    changes
        .iter()
        .filter(|(name, change)| **change == Change::Replace && taken_over(name))
        .map(|(name, _)| name.clone())
        .collect()
}

fn plan_result(
    known: &Known<'_>,
    order: &[ServiceName],
    entries: &mut BTreeMap<ServiceName, ServiceChange>,
    orphans: &[&Before],
) -> PlanResult {
    let mut changes: Vec<ServiceChange> = order.iter().filter_map(|name| entries.remove(name)).collect();
    changes.extend(orphans.iter().map(|container| ServiceChange {
        service: container.service.clone(),
        change: Change::Remove,
        reasons: vec![format!("container {} belongs to no service of the file", container.name)],
    }));
    let without_probe: Vec<ServiceName> = order
        .iter()
        .filter(|name| !spec_read::is_one_shot(known.spec, name))
        .filter(|name| {
            let service = &known.spec.services[*name];
            known.image_states.get(*name).is_some_and(|image| !spec_read::has_probe(service, image))
        })
        .cloned()
        .collect();
    PlanResult {
        app: known.spec.app.clone(),
        release_from: known.from,
        images: known.images.clone(),
        unresolved: order.iter().filter(|name| !known.images.contains_key(*name)).cloned().collect(),
        changes,
        networks: Vec::new(),
        volumes: Vec::new(),
        strategy: Strategy::StopFirst,
        why: "each service has one container under a fixed name, so the old one stops before the new one starts"
            .to_owned(),
        unchanged: false,
        verifiable: without_probe.is_empty(),
        without_probe,
        plan_sha256: ids::Sha256::ZERO,
    }
}
