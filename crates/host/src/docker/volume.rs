//! Named volumes. There is no effect that removes one: data goes only by hand.

use std::collections::{BTreeMap, HashMap};

use actions::effect::{EffectError, EffectErrorKind, label};
use bollard::models::{Volume, VolumeCreateRequest};
use ids::AppName;

use super::{
    engine::Session,
    failure,
    ownership::{self, pairs},
};
use crate::limits;

impl Session {
    async fn volume_find(&self, name: &str) -> Result<Option<Volume>, EffectError> {
        ownership::check_name("volume", name)?;
        let call = self.docker.inspect_volume(name);
        self.find(&format!("read volume {name:?}"), limits::READ_TIMEOUT, call).await
    }

    /// A volume a container of `app` is about to mount.
    pub(super) async fn volume_needed(&self, name: &str, app: &AppName) -> Result<(), EffectError> {
        match self.volume_find(name).await? {
            Some(found) => self.owner.demand_app("volume", name, Some(&found.labels), app),
            None => Err(failure::error(
                EffectErrorKind::NotFound,
                format!("Volume {name:?} is not there. It may have been removed by hand; deploy the app again."),
            )),
        }
    }

    /// A volume that somebody else made: it must be there, whoever made it.
    pub(super) async fn volume_external(&self, name: &str) -> Result<(), EffectError> {
        if self.volume_find(name).await?.is_some() {
            return Ok(());
        }
        Err(failure::error(
            EffectErrorKind::NotFound,
            format!("The external volume {name:?} is not on this host. Make it there (`docker volume create {name}`)."),
        ))
    }

    pub(super) async fn volume_create(
        &self,
        app: &AppName,
        name: &str,
        file_name: &str,
        driver_opts: &BTreeMap<String, String>,
        labels: &BTreeMap<String, String>,
    ) -> Result<(), EffectError> {
        let options: HashMap<String, String> = driver_opts.clone().into_iter().collect();
        if let Some(found) = self.volume_find(name).await? {
            self.owner.demand_app("volume", name, Some(&found.labels), app)?;
            if found.options == options {
                return Ok(());
            }
            return Err(failure::error(
                EffectErrorKind::Conflict,
                format!(
                    "Volume {name:?} exists with other driver options, and a volume cannot be changed; its data was left \
                     as it is. Give it another name in the file, or put the options back."
                ),
            ));
        }
        let ours = [(label::APP, app.as_str().to_owned()), (label::NAME, file_name.to_owned())];
        let request = VolumeCreateRequest {
            name: Some(name.to_owned()),
            driver: Some("local".to_owned()),
            driver_opts: Some(options),
            labels: Some(self.owner.labels(pairs(labels), ours)),
            ..VolumeCreateRequest::default()
        };
        let call = self.docker.create_volume(request);
        self.call(&format!("create volume {name:?}"), limits::CHANGE_TIMEOUT, call).await.map(|_| ())
    }
}
