//! What an app is to stand on and did not make itself: which effect judges it, and what is wrong with
//! it before anyone looks at the host.
//!
//! A bind is resolved anew whenever its container starts, and whoever can write to a directory on the
//! way can make it lead elsewhere. So nothing that runs in a container may be able to: no bind lies
//! below a directory that another mount lets a container write to. This file sees to that within one
//! specification; `host` sees to it against all containers of the engine.

use std::collections::BTreeSet;

use ids::ServiceName;

use crate::{
    effect::{Effect, Foreign, ForeignBind},
    engine::Engine,
    policy::Policy,
    port::ActionPort,
    spec::{AppSpec, MountSpec, ServiceSpec},
    spec_read,
    stop::Stop,
};

/// Judges everything foreign of a specification, before anything is touched.
pub(crate) async fn check<P: ActionPort>(
    spec: &AppSpec,
    policy: &Policy,
    engine: &mut Engine<'_, P>,
) -> Result<(), Stop> {
    let services: Vec<(&ServiceName, &ServiceSpec)> = spec.services.iter().collect();
    let mut foreign = of_services(spec, &services, policy)?;
    nested(&foreign.binds).map_or(Ok(()), |words| Err(Stop::fault(words)))?;
    if may_share_names(spec) {
        foreign.containers = names(spec);
    }
    perform(foreign, engine).await
}

/// Judges it again for one service, right before its container is made (`make`) and once more before it starts.
pub(crate) async fn check_service<P: ActionPort>(
    spec: &AppSpec,
    name: &ServiceName,
    make: bool,
    policy: &Policy,
    engine: &mut Engine<'_, P>,
) -> Result<(), Stop> {
    let Some(service) = spec.services.get(name) else { return Ok(()) };
    let foreign = Foreign { make, ..of_services(spec, &[(name, service)], policy)? };
    perform(foreign, engine).await
}

async fn perform<P: ActionPort>(foreign: Foreign, engine: &mut Engine<'_, P>) -> Result<(), Stop> {
    let nothing = foreign.binds.is_empty()
        && foreign.networks.is_empty()
        && foreign.volumes.is_empty()
        && foreign.containers.is_empty();
    if nothing {
        return Ok(());
    }
    engine.done(Effect::ForeignCheck(Box::new(foreign))).await.map_err(Stop::from)
}

fn of_services(spec: &AppSpec, services: &[(&ServiceName, &ServiceSpec)], policy: &Policy) -> Result<Foreign, Stop> {
    let mut foreign = Foreign {
        app: spec.app.clone(),
        roots: policy.bind_roots().to_vec(),
        docker_socket: policy.docker_socket(),
        binds: Vec::new(),
        networks: BTreeSet::new(),
        volumes: BTreeSet::new(),
        containers: BTreeSet::new(),
        make: false,
    };
    for (name, service) in services {
        for mount in &service.mounts {
            match mount {
                MountSpec::Bind { source, read_only, create, .. } => foreign.binds.push(ForeignBind {
                    service: name.to_string(),
                    source: policy.bind_source(&spec.app, source).ok_or_else(|| {
                        Stop::fault(format!(
                            "service {name} mounts {source}, but this host's policy has no root for it"
                        ))
                    })?,
                    read_only: *read_only,
                    create: *create,
                }),
                MountSpec::Volume { volume, .. } => {
                    foreign.volumes.extend(spec.volumes.get(volume).and_then(|volume| volume.external.clone()));
                }
                MountSpec::Tmpfs { .. } => {}
            }
        }
        let networks = spec_read::service_networks(service).into_keys();
        foreign.networks.extend(networks.filter_map(|name| spec_read::network_spec(spec, &name).external));
    }
    Ok(foreign)
}

/// A bind below one that a container of the same app may write to, in words.
fn nested(binds: &[ForeignBind]) -> Option<String> {
    let inside = |inner: &ForeignBind, outer: &ForeignBind| {
        inner.source.strip_prefix(&outer.source).is_some_and(|rest| rest.starts_with('/'))
    };
    let pairs = binds.iter().flat_map(|inner| binds.iter().map(move |outer| (inner, outer)));
    let (inner, outer) = pairs.into_iter().find(|(inner, outer)| !outer.read_only && inside(inner, outer))?;
    Some(format!(
        "service {} mounts {}, which lies below {}, where service {} may write: it could make that path lead anywhere on the host. Mount the outer one read-only, or put the two beside each other",
        inner.service, inner.source, outer.source, outer.service
    ))
}

/// Whether another app's container could have the name of one of this app's: `a-b` with `c`, and `a` with `b-c`.
fn may_share_names(spec: &AppSpec) -> bool {
    spec.app.as_str().contains('-') || spec.services.keys().any(|name| name.as_str().contains('-'))
}

fn names(spec: &AppSpec) -> BTreeSet<String> {
    spec.services.keys().map(|name| spec_read::container_name(&spec.app, name.as_str())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bind(source: &str, read_only: bool) -> ForeignBind {
        ForeignBind { service: "web".to_owned(), source: source.to_owned(), read_only, create: false }
    }

    #[test]
    fn nothing_lies_below_what_a_container_may_write_to() {
        let refused = |binds: &[ForeignBind]| nested(binds).is_some();
        assert!(refused(&[bind("/srv/a", false), bind("/srv/a/b", true)]));
        assert!(refused(&[bind("/srv/a/b/c", false), bind("/srv/a", false)]));
        assert!(!refused(&[bind("/srv/a", true), bind("/srv/a/b", false)]));
        assert!(!refused(&[bind("/srv/a", false), bind("/srv/ab", false)]));
        // Two services on one directory: neither can move it.
        assert!(!refused(&[bind("/srv/a", false), bind("/srv/a", false)]));
    }
}
