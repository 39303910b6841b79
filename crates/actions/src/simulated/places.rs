//! What apps stand on and did not make themselves: directories of the host, and networks and volumes
//! that somebody else made.

use std::collections::{BTreeMap, BTreeSet};

use ids::AppName;

use crate::effect::{EffectError, EffectErrorKind, Foreign};

/// Directories and things of others, on a simulated host.
#[derive(Clone, Debug, Default)]
pub struct SimulatedPlaces {
    /// Directories that exist.
    pub directories: BTreeSet<String>,
    /// Paths with a symbolic link in them.
    pub links: BTreeSet<String>,
    /// Directories that become symbolic links as soon as the next container was made, as somebody
    /// who can write beside them would swap them.
    pub swapped_after_create: BTreeSet<String>,
    /// Networks of others.
    pub networks: BTreeSet<String>,
    /// Volumes of others.
    pub volumes: BTreeSet<String>,
    /// Names of containers that other apps of ours have.
    pub containers: BTreeSet<String>,
}

impl SimulatedPlaces {
    pub(super) fn swap_after_create(&mut self) {
        self.links.append(&mut self.swapped_after_create);
    }

    pub(super) fn check(
        &mut self,
        foreign: &Foreign,
        networks: &BTreeMap<String, AppName>,
        volumes: &BTreeMap<String, AppName>,
    ) -> Result<(), EffectError> {
        let refuse = |message: String| Err(EffectError { kind: EffectErrorKind::Refused, message });
        for bind in &foreign.binds {
            if self.links.contains(&bind.source) {
                return refuse(format!("{} has a symbolic link in it", bind.source));
            }
            if self.directories.contains(&bind.source) {
                continue;
            }
            if !bind.create {
                return refuse(format!("{} does not exist", bind.source));
            }
            if foreign.make {
                self.directories.insert(bind.source.clone());
            }
        }
        if let Some(name) = foreign.networks.iter().find(|n| !self.networks.contains(*n) && !networks.contains_key(*n))
        {
            return refuse(format!("there is no network {name}"));
        }
        if let Some(name) = foreign.volumes.iter().find(|n| !self.volumes.contains(*n) && !volumes.contains_key(*n)) {
            return refuse(format!("there is no volume {name}"));
        }
        match foreign.containers.iter().find(|name| self.containers.contains(*name)) {
            Some(name) => refuse(format!("the container name {name} is taken by another app")),
            None => Ok(()),
        }
    }
}
