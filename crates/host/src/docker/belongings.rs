//! Everything in the engine that carries this host's mark, whatever app it belongs to: what stays when
//! the agent goes.

use actions::effect::EffectError;
use bollard::query_parameters::{ListContainersOptionsBuilder, ListNetworksOptionsBuilder, ListVolumesOptionsBuilder};

use super::engine::{Engine, Session};
use crate::limits;

/// Names of this host's things, sorted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Belongings {
    /// Containers, running or not.
    pub containers: Vec<String>,
    /// Networks.
    pub networks: Vec<String>,
    /// Volumes. They hold data.
    pub volumes: Vec<String>,
}

impl Engine {
    /// What of this host's is in the engine.
    ///
    /// # Errors
    /// When the engine does not answer.
    pub async fn belongings(&self) -> Result<Belongings, EffectError> {
        let session = self.session().await?;
        self.noticing(session.belongings().await)
    }
}

impl Session {
    async fn belongings(&self) -> Result<Belongings, EffectError> {
        let filter = self.owner.filter_host();
        let options = ListContainersOptionsBuilder::default().all(true).filters(&filter).build();
        let doing = "list this host's containers";
        let listed = self.call(doing, limits::READ_TIMEOUT, self.docker.list_containers(Some(options))).await?;
        let name = |names: Option<Vec<String>>| names?.first().map(|name| name.trim_start_matches('/').to_owned());
        let containers = sorted(listed.into_iter().filter_map(|container| name(container.names)));

        let options = ListNetworksOptionsBuilder::default().filters(&filter).build();
        let doing = "list this host's networks";
        let listed = self.call(doing, limits::READ_TIMEOUT, self.docker.list_networks(Some(options))).await?;
        let networks = sorted(listed.into_iter().filter_map(|network| network.name));

        let options = ListVolumesOptionsBuilder::default().filters(&filter).build();
        let doing = "list this host's volumes";
        let listed = self.call(doing, limits::READ_TIMEOUT, self.docker.list_volumes(Some(options))).await?;
        let volumes = sorted(listed.volumes.unwrap_or_default().into_iter().map(|volume| volume.name));
        Ok(Belongings { containers, networks, volumes })
    }
}

fn sorted(names: impl Iterator<Item = String>) -> Vec<String> {
    let mut names: Vec<_> = names.collect();
    names.sort();
    names
}
