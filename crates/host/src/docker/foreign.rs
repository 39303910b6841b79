//! What an app is to stand on and did not make itself, held against everything the engine has.

use std::collections::HashMap;

use actions::effect::{EffectError, EffectErrorKind, Foreign, label};
use bollard::{
    models::ContainerSummary,
    query_parameters::{ListContainersOptionsBuilder, ListVolumesOptions},
};

use super::{engine::Session, failure, observe::own_name};
use crate::{
    bind::{self, Mounted, Surroundings},
    facts, limits,
};

impl Session {
    pub(super) async fn foreign_check(&self, foreign: Foreign) -> Result<(), EffectError> {
        for name in &foreign.networks {
            self.network_external(name).await?;
        }
        for name in &foreign.volumes {
            self.volume_external(name).await?;
        }
        for name in &foreign.containers {
            self.container_name_free(name, &foreign).await?;
        }
        if foreign.binds.is_empty() {
            return Ok(());
        }
        let surroundings = self.surroundings(&foreign).await?;
        // Small calls of the kernel, but a disk or a network share that hangs must not hang the agent.
        let judged = tokio::task::spawn_blocking(move || bind::judge(&foreign, &surroundings)).await;
        let judged = judged.unwrap_or_else(|_| Err("it could not be judged".to_owned()));
        judged.map_err(|message| failure::error(EffectErrorKind::Refused, message))
    }

    /// A name that another app's container has: `a-b` with `c`, and `a` with `b-c`.
    async fn container_name_free(&self, name: &str, foreign: &Foreign) -> Result<(), EffectError> {
        let Some(found) = self.container_find(name).await? else { return Ok(()) };
        let labels = found.config.as_ref().and_then(|config| config.labels.as_ref());
        self.owner.demand_app("container", name, labels, &foreign.app)
    }

    async fn surroundings(&self, foreign: &Foreign) -> Result<Surroundings, EffectError> {
        let options = ListContainersOptionsBuilder::default().all(true).build();
        let doing = "see what the containers of this host mount";
        let containers = self.call(doing, limits::READ_TIMEOUT, self.docker.list_containers(Some(options))).await?;
        let call = self.docker.list_volumes(None::<ListVolumesOptions>);
        let volumes = self.call("list the volumes of this host", limits::READ_TIMEOUT, call).await?;
        let devices: HashMap<String, String> = volumes
            .volumes
            .unwrap_or_default()
            .into_iter()
            .filter_map(|volume| Some((volume.name, volume.options.get("device").cloned()?)))
            .collect();
        let info = self.call("ask Docker where its data lies", limits::READ_TIMEOUT, self.docker.info()).await?;
        let root = info.docker_root_dir.unwrap_or_else(|| facts::DOCKER_ROOT_DEFAULT.to_owned());
        let state = self.files.parent().unwrap_or(&self.files).to_owned();
        Ok(Surroundings {
            mounted: containers.iter().flat_map(|container| self.mounted(container, foreign, &devices)).collect(),
            socket: self.socket.clone(),
            private: vec![state, root.into()],
        })
    }

    /// Where one container's mounts come from; a volume that is a bind in disguise, by what it binds.
    fn mounted(
        &self,
        container: &ContainerSummary,
        foreign: &Foreign,
        devices: &HashMap<String, String>,
    ) -> Vec<Mounted> {
        let own = container.labels.as_ref().is_some_and(|labels| {
            self.owner.owns(labels) && labels.get(label::APP).is_some_and(|app| app == foreign.app.as_str())
        });
        let mounts = container.mounts.iter().flatten();
        let sources = mounts.flat_map(|mount| {
            let device = mount.name.as_ref().and_then(|name| devices.get(name)).cloned();
            let source = mount.source.clone();
            let writable = mount.rw.unwrap_or(true);
            source.into_iter().chain(device).map(move |source| (source, writable))
        });
        let name = own_name(container).unwrap_or_default();
        sources
            .filter(|(source, _)| source.starts_with('/'))
            .map(|(source, writable)| Mounted { container: name.clone(), source, writable, own })
            .collect()
    }
}
