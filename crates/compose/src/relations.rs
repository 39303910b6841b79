//! What must hold between the parts of an app: names that are used exist, nobody waits in a circle,
//! no two services want one port of the host.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use actions::spec::{NetworkSpec, PortProtocol, PortSpec, VolumeSpec};
use ids::ServiceName;

use crate::{
    reading::{Field, Reading},
    service::Draft,
};

pub(crate) fn check(
    reading: &mut Reading<'_>,
    drafts: &BTreeMap<ServiceName, Draft<'_>>,
    left_out: &BTreeSet<ServiceName>,
    networks: &BTreeMap<ServiceName, NetworkSpec>,
    volumes: &BTreeMap<ServiceName, VolumeSpec>,
) {
    for draft in drafts.values() {
        let waits = draft.dependencies.iter().map(|wait| (&wait.service, &wait.field));
        for (name, field) in waits.chain(draft.shared.iter().map(|(name, field)| (name, field))) {
            if left_out.contains(name) {
                let message = "the service it needs is left out, for none of its profiles is asked for";
                let hint = "pass `--profile` for it, give both the same profile, or write `required: false`";
                reading.refuse_with(field, message, hint);
            } else if !drafts.contains_key(name) {
                unknown(reading, field, "service", name, &names(drafts.keys()));
            }
        }
        for (name, field) in &draft.networks {
            if !networks.contains_key(name) {
                unknown(reading, field, "network", name, &names(networks.keys()));
            }
        }
        for (name, field) in &draft.volumes {
            if !volumes.contains_key(name) {
                unknown(reading, field, "volume", name, &names(volumes.keys()));
            }
        }
    }
    cycles(reading, drafts);
    ports(reading, drafts);
}

/// Drops dependencies with `required: false` on services that are left out or do not exist.
pub(crate) fn forget_optional(reading: &mut Reading<'_>, drafts: &mut BTreeMap<ServiceName, Draft<'_>>) {
    let here: BTreeSet<ServiceName> = drafts.keys().cloned().collect();
    for draft in drafts.values_mut() {
        draft.dependencies.retain(|wait| wait.required || here.contains(&wait.service));
        for wait in draft.dependencies.iter().filter(|wait| !wait.required) {
            reading.note_plain(&wait.field, "it takes part in this deploy, so it is waited for as if it were required");
        }
    }
}

fn names<'k>(names: impl Iterator<Item = &'k ServiceName>) -> Vec<&'k str> {
    names.map(ServiceName::as_str).collect()
}

/// Refuses a name that nothing has.
pub(crate) fn unknown(reading: &mut Reading<'_>, field: &Field<'_>, what: &str, name: &ServiceName, known: &[&str]) {
    let Some(shown) = reading.shown_name(name) else {
        return reading.refuse(field, format!("no {what} has this name (hidden: a variable reached it)"));
    };
    let message = format!("no {what} is called `{shown}`");
    match (reading.nearest(shown, known), what) {
        (Some(meant), _) => reading.refuse_with(field, message, format!("did you mean `{meant}`?")),
        (None, "service") => reading.refuse(field, message),
        (None, _) => reading.refuse_with(field, message, format!("declare it at the top: `{what}s: {{{shown}: }}`")),
    }
}

/// Names each circle of waiting services once.
fn cycles(reading: &mut Reading<'_>, drafts: &BTreeMap<ServiceName, Draft<'_>>) {
    let mut edges: BTreeMap<&ServiceName, BTreeMap<&ServiceName, &Field<'_>>> = BTreeMap::new();
    for (name, draft) in drafts {
        let waits = draft.dependencies.iter().map(|wait| (&wait.service, &wait.field));
        let shares = draft.shared.iter().map(|(to, field)| (to, field));
        edges.insert(name, shares.chain(waits).filter(|(to, _)| drafts.contains_key(*to)).collect());
    }
    let mut done: BTreeSet<&ServiceName> = BTreeSet::new();
    for start in drafts.keys() {
        // Depth first with an own stack: (service, those it waits for that are still to visit).
        let mut trail: Vec<(&ServiceName, Vec<&ServiceName>)> = Vec::new();
        let mut next = Some(start);
        loop {
            if let Some(name) = next.take()
                && !done.contains(name)
            {
                let onward = edges.get(name).map(|to| to.keys().rev().copied().collect()).unwrap_or_default();
                trail.push((name, onward));
            }
            let Some((name, onward)) = trail.last_mut() else { break };
            let name = *name;
            let Some(to) = onward.pop() else {
                done.insert(name);
                trail.pop();
                continue;
            };
            match trail.iter().position(|(seen, _)| *seen == to) {
                Some(from) => {
                    let circle: Vec<&str> = trail[from..].iter().map(|(name, _)| name.as_str()).collect();
                    let message = format!("services wait for each other in a circle: {} → {to}", circle.join(" → "));
                    if let Some(field) = edges.get(name).and_then(|to_field| to_field.get(to)) {
                        reading.refuse_with(field, message, "remove one of these dependencies");
                    }
                }
                None => next = Some(to),
            }
        }
    }
}

/// Refuses a port of the host that is asked for twice.
fn ports(reading: &mut Reading<'_>, drafts: &BTreeMap<ServiceName, Draft<'_>>) {
    let mut taken: BTreeMap<(u16, PortProtocol, bool), BTreeMap<IpAddr, &Field<'_>>> = BTreeMap::new();
    for (port, field) in drafts.values().flat_map(|draft| &draft.ports) {
        let PortSpec { host_ip, host_port: Some(host_port), protocol, .. } = port else { continue };
        let others = taken.entry((*host_port, *protocol, host_ip.is_ipv6())).or_default();
        let everywhere = if host_ip.is_ipv6() { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
        let same = others.get(host_ip).or_else(|| others.get(&everywhere));
        let first = if host_ip.is_unspecified() { others.values().next() } else { same };
        if let Some(first) = first {
            // Not shown where a variable may have chosen it.
            let port = match field.raw() {
                Some(raw) if !raw.contains('$') => format!("port {host_port}"),
                _ => "this port".to_owned(),
            };
            let message = format!("{port} of the host is taken already, by {}", first.path);
            reading.refuse_with(field, message, "give one of them another port");
        }
        others.entry(*host_ip).or_insert(field);
    }
}
