//! Networks: one bridge per network of an app.

use std::collections::BTreeMap;

use actions::effect::{EffectError, EffectErrorKind, label};
use bollard::{
    models::{NetworkCreateRequest, NetworkInspect},
    query_parameters::InspectNetworkOptions,
};
use ids::AppName;

use super::{
    engine::Session,
    failure,
    ownership::{self, pairs},
};
use crate::limits;

impl Session {
    async fn network_find(&self, name: &str) -> Result<Option<NetworkInspect>, EffectError> {
        ownership::check_name("network", name)?;
        let call = self.docker.inspect_network(name, None::<InspectNetworkOptions>);
        let found = self.find(&format!("read network {name:?}"), limits::READ_TIMEOUT, call).await?;
        // The engine also takes the beginning of an id for a name.
        Ok(found.filter(|found| found.name.as_deref() == Some(name)))
    }

    /// A network a container of `app` is about to join.
    pub(super) async fn network_needed(&self, name: &str, app: &AppName) -> Result<(), EffectError> {
        match self.network_find(name).await? {
            Some(found) => self.owner.demand_app("network", name, found.labels.as_ref(), app),
            None => Err(failure::error(
                EffectErrorKind::NotFound,
                format!("Network {name:?} is not there. It may have been removed by hand; deploy the app again."),
            )),
        }
    }

    /// A network that somebody else made: it must be there, whoever made it.
    pub(super) async fn network_external(&self, name: &str) -> Result<(), EffectError> {
        if self.network_find(name).await?.is_some() {
            return Ok(());
        }
        Err(failure::error(
            EffectErrorKind::NotFound,
            format!(
                "The external network {name:?} is not on this host. Make it there (`docker network create {name}`)."
            ),
        ))
    }

    pub(super) async fn network_create(
        &self,
        app: &AppName,
        name: &str,
        file_name: &str,
        internal: bool,
        labels: &BTreeMap<String, String>,
    ) -> Result<(), EffectError> {
        if let Some(found) = self.network_find(name).await? {
            self.owner.demand_app("network", name, found.labels.as_ref(), app)?;
            if found.internal.unwrap_or(false) == internal {
                return Ok(());
            }
            return Err(failure::error(
                EffectErrorKind::Conflict,
                format!(
                    "Network {name:?} exists with internal={}, but internal={internal} is asked for, and a network cannot \
                     be changed. Give it another name in the file, or remove the app first.",
                    !internal
                ),
            ));
        }
        let ours = [(label::APP, app.as_str().to_owned()), (label::NAME, file_name.to_owned())];
        let request = NetworkCreateRequest {
            name: name.to_owned(),
            driver: Some("bridge".to_owned()),
            internal: Some(internal),
            labels: Some(self.owner.labels(pairs(labels), ours)),
            ..NetworkCreateRequest::default()
        };
        let call = self.docker.create_network(request);
        self.call(&format!("create network {name:?}"), limits::CHANGE_TIMEOUT, call).await.map(|_| ())
    }

    pub(super) async fn network_remove(&self, name: &str) -> Result<(), EffectError> {
        let Some(found) = self.network_find(name).await? else { return Ok(()) };
        self.owner.demand("network", name, found.labels.as_ref())?;
        let users: Vec<String> =
            found.containers.unwrap_or_default().into_values().filter_map(|container| container.name).collect();
        if !users.is_empty() {
            return Err(failure::error(
                EffectErrorKind::Conflict,
                format!(
                    "Could not remove network {name:?}: {} still use it. Remove or disconnect them first.",
                    users.join(", ")
                ),
            ));
        }
        let id = found.id.unwrap_or_else(|| name.to_owned());
        let call = self.docker.remove_network(&id);
        self.find(&format!("remove network {name:?}"), limits::CHANGE_TIMEOUT, call).await.map(|_| ())
    }
}
