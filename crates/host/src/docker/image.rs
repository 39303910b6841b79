//! Images: inspect, pull, and the tags of ours that keep them from a prune.

use std::collections::HashMap;

use actions::effect::{EffectError, EffectErrorKind, ImageState};
use bollard::{
    models::{HealthConfig, ImageInspect},
    query_parameters::{CreateImageOptionsBuilder, RemoveImageOptionsBuilder, TagImageOptionsBuilder},
};
use futures_util::{StreamExt as _, pin_mut};
use tokio::time::Instant;

use super::{credentials, engine::Session, failure, ownership, pull::PullProgress};
use crate::limits;

impl Session {
    pub(super) async fn image_inspect(&self, image: &str) -> Result<Option<ImageState>, EffectError> {
        ownership::check_image(image)?;
        let call = self.docker.inspect_image(image);
        let found = self.find(&format!("read image {image:?}"), limits::READ_TIMEOUT, call).await?;
        Ok(found.map(image_state))
    }

    /// The labels of an image, by its id; none when it is gone.
    pub(super) async fn image_labels(&self, id: &str) -> Result<HashMap<String, String>, EffectError> {
        ownership::check_image(id)?;
        let call = self.docker.inspect_image(id);
        let found = self.find(&format!("read image {id:?}"), limits::READ_TIMEOUT, call).await?;
        Ok(found.and_then(|image| image.config).and_then(|config| config.labels).unwrap_or_default())
    }

    pub(super) async fn image_pull(
        &self,
        reference: &str,
        platform: Option<&str>,
        progress: &mut (dyn FnMut(String) + Send),
    ) -> Result<(), EffectError> {
        ownership::check_image(reference)?;
        if !names_one_image(reference) {
            // The engine would take it for every tag of the repository.
            return Err(failure::error(
                EffectErrorKind::Refused,
                format!(
                    "Could not pull {reference:?}: it names neither a tag nor a digest. Write {reference}:latest if that is what you mean."
                ),
            ));
        }
        let doing = format!("pull image {reference:?}");
        let login = match &self.credentials {
            Some(path) => credentials::find(path, reference)?,
            None => None,
        };
        let _turn = self.pull_turn(reference, progress).await;
        let options = CreateImageOptionsBuilder::default().from_image(reference);
        let options = match platform {
            Some(platform) => options.platform(platform).build(),
            None => options.build(),
        };
        let stream = self.docker.create_image(Some(options), None, login);
        pin_mut!(stream);
        let deadline = Instant::now() + limits::PULL_TIMEOUT;
        let mut told = PullProgress::new(reference);
        loop {
            let silence = (Instant::now() + limits::PULL_SILENCE_TIMEOUT).min(deadline);
            let limit = if silence == deadline { limits::PULL_TIMEOUT } else { limits::PULL_SILENCE_TIMEOUT };
            let next = tokio::time::timeout_at(silence, stream.next()).await;
            let next = next.map_err(|_| failure::timed_out(&doing, limit.as_secs()))?;
            let Some(piece) = next else { break };
            let piece = piece.map_err(|failed| failure::explain(&doing, &self.socket, &failed))?;
            if let Some(line) = told.hear(&piece, Instant::now()) {
                progress(line);
            }
        }
        progress(told.last());
        Ok(())
    }

    pub(super) async fn image_tag(&self, image: &str, repository: &str, tag: &str) -> Result<(), EffectError> {
        ownership::check_image(image)?;
        ownership::check_image(&format!("{repository}:{tag}"))?;
        let options = TagImageOptionsBuilder::default().repo(repository).tag(tag).build();
        let call = self.docker.tag_image(image, Some(options));
        self.call(&format!("tag image {image:?} as {repository}:{tag}"), limits::CHANGE_TIMEOUT, call).await
    }

    /// Not forced: an image that somebody's container still uses stays, and its last tag with it. That is
    /// no failure: the app it kept the image for does not need it any more.
    pub(super) async fn image_untag(&self, repository: &str, tag: &str) -> Result<(), EffectError> {
        let name = format!("{repository}:{tag}");
        ownership::check_image(&name)?;
        let options = RemoveImageOptionsBuilder::default().force(false).build();
        let call = async {
            match self.docker.remove_image(&name, Some(options), None).await {
                Err(failed) if failure::status(&failed) == Some(409) => Ok(Vec::new()),
                other => other,
            }
        };
        self.find(&format!("remove tag {name:?}"), limits::CHANGE_TIMEOUT, call).await.map(|_| ())
    }
}

/// Whether a reference has a tag or a digest.
fn names_one_image(reference: &str) -> bool {
    reference.contains('@') || reference.rsplit('/').next().is_some_and(|last| last.contains(':'))
}

fn image_state(found: ImageInspect) -> ImageState {
    let probe = found.config.and_then(|config| config.healthcheck);
    ImageState {
        id: found.id.unwrap_or_default(),
        repo_digests: found.repo_digests.unwrap_or_default(),
        has_healthcheck: probe.as_ref().is_some_and(has_probe),
        platform: format!("{}/{}", found.os.unwrap_or_default(), found.architecture.unwrap_or_default()),
    }
}

fn has_probe(check: &HealthConfig) -> bool {
    check.test.as_ref().and_then(|test| test.first()).is_some_and(|first| first != "NONE")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_not_a_tag() {
        for reference in ["nginx:1", "localhost:5000/nginx:1", "nginx@sha256:00"] {
            assert!(names_one_image(reference), "{reference}");
        }
        for reference in ["nginx", "localhost:5000/nginx", "docker.io/library/nginx"] {
            assert!(!names_one_image(reference), "{reference}");
        }
    }
}
