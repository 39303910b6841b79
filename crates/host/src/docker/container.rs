//! Containers: create, start, stop, rename, remove.
//!
//! A container is found by its name, judged by its labels, and then changed by its id, so that what
//! is changed is what was judged, even if someone renames things in between.

use std::time::Duration;

use actions::{
    effect::{ContainerMount, ContainerSpec, EffectError, EffectErrorKind, label},
    spec::RestartPolicy,
};
use bollard::{
    models::{ContainerInspectResponse, ContainerStateStatusEnum, ContainerUpdateBody, NetworkConnectRequest},
    query_parameters::{
        CreateContainerOptionsBuilder, InspectContainerOptions, RemoveContainerOptionsBuilder,
        RenameContainerOptionsBuilder, StartContainerOptions, StopContainerOptionsBuilder,
    },
};
use tokio::time::Instant;

use super::{body, engine::Session, failure, ownership};
use crate::limits;

/// First API with annotations of containers: Docker 24.0.
const ANNOTATIONS_API: (usize, usize) = (1, 43);

/// A container of ours, judged.
pub(super) struct Own {
    pub(super) id: String,
    pub(super) found: ContainerInspectResponse,
}

impl Own {
    fn label(&self, key: &str) -> &str {
        let labels = self.found.config.as_ref().and_then(|config| config.labels.as_ref());
        labels.and_then(|labels| labels.get(key)).map_or("", String::as_str)
    }

    fn status(&self) -> Option<ContainerStateStatusEnum> {
        self.found.state.as_ref().and_then(|state| state.status)
    }
}

impl Session {
    /// The container of exactly this name, whoever made it.
    pub(super) async fn container_find(&self, name: &str) -> Result<Option<ContainerInspectResponse>, EffectError> {
        ownership::check_name("container", name)?;
        let call = self.docker.inspect_container(name, None::<InspectContainerOptions>);
        let found = self.find(&format!("read container {name:?}"), limits::READ_TIMEOUT, call).await?;
        // The engine also takes the beginning of an id for a name.
        Ok(found.filter(|found| found.name.as_deref().is_some_and(|it| it.trim_start_matches('/') == name)))
    }

    /// The container of this name if it is ours; refuses one that is not.
    pub(super) async fn container_own(&self, name: &str) -> Result<Option<Own>, EffectError> {
        let Some(found) = self.container_find(name).await? else { return Ok(None) };
        if !self.is_own(&found).await? {
            self.owner.demand("container", name, None)?;
        }
        let id = found.id.clone().unwrap_or_else(|| name.to_owned());
        Ok(Some(Own { id, found }))
    }

    /// Whether it carries our labels, and got them from us and not from an image that has them.
    pub(super) async fn is_own(&self, found: &ContainerInspectResponse) -> Result<bool, EffectError> {
        let Some(labels) = found.config.as_ref().and_then(|config| config.labels.as_ref()) else { return Ok(false) };
        if !self.owner.owns(labels) {
            return Ok(false);
        }
        let name = found.name.as_deref().unwrap_or_default().trim_start_matches('/');
        if ownership::is_named_by(name, labels) {
            return Ok(true);
        }
        // Somebody renamed it, or made it from an image of one of ours: the image tells.
        let Some(image) = found.image.as_deref() else { return Ok(false) };
        let inherited = self.image_labels(image).await?;
        Ok(!self.owner.owns(&inherited))
    }

    pub(super) async fn container_create(&self, spec: &ContainerSpec) -> Result<(), EffectError> {
        let name = spec.name.as_str();
        ownership::check_image(&spec.image)?;
        self.annotations_known(spec)?;
        self.container_needs(spec).await?;
        let there = match self.container_own(name).await? {
            Some(own) => Some(own),
            None => self.container_make(spec).await?,
        };
        let joined: Vec<String> = match there {
            Some(own) => {
                same_container(&own, spec)?;
                let networks = own.found.network_settings.and_then(|settings| settings.networks);
                networks.map(|networks| networks.into_keys().collect()).unwrap_or_default()
            }
            None => spec.networks.keys().take(1).cloned().collect(),
        };
        // Also after a crash between creating and connecting.
        self.container_join(spec, &joined).await
    }

    /// Has it made. Answers with one of ours that came to be meanwhile under its name.
    async fn container_make(&self, spec: &ContainerSpec) -> Result<Option<Own>, EffectError> {
        let name = spec.name.as_str();
        let options = CreateContainerOptionsBuilder::default().name(name);
        let options = match &spec.runtime.platform {
            Some(platform) => options.platform(platform),
            None => options,
        };
        let body = body::create_body(spec, self.owner, &self.files);
        let call = self.docker.create_container(Some(options.build()), body);
        let created = self.call(&format!("create container {name:?}"), limits::CHANGE_TIMEOUT, call).await;
        let refused = match created {
            Ok(_) => return Ok(None),
            Err(failed) if failed.kind == EffectErrorKind::Conflict => failed,
            Err(failed) => return Err(naming_image(failed, &spec.image)),
        };
        // The engine keeps the name of a container that it is still making, before that can be found. It may
        // be making ours: an earlier call took longer than anybody waited for it.
        let deadline = Instant::now() + limits::CREATION_WAIT;
        loop {
            if let Some(own) = self.container_own(name).await? {
                return Ok(Some(own));
            }
            if Instant::now() >= deadline {
                return Err(refused);
            }
            tokio::time::sleep(limits::CREATION_POLL).await;
        }
    }

    /// What the container stands on must be there and be its own app's: the engine would make an
    /// absent volume by itself, without our labels, and would hand over a foreign one.
    async fn container_needs(&self, spec: &ContainerSpec) -> Result<(), EffectError> {
        for mount in &spec.mounts {
            if let ContainerMount::Volume { volume, .. } = mount {
                if spec.runtime.external_volumes.contains(volume) {
                    self.volume_external(volume).await?;
                } else {
                    self.volume_needed(volume, &spec.app).await?;
                }
            }
        }
        if spec.network_mode.is_none() {
            for network in spec.networks.keys() {
                if spec.runtime.external_networks.contains(network) {
                    self.network_external(network).await?;
                } else {
                    self.network_needed(network, &spec.app).await?;
                }
            }
        }
        Ok(())
    }

    /// Older engines drop annotations without a word.
    fn annotations_known(&self, spec: &ContainerSpec) -> Result<(), EffectError> {
        if spec.runtime.annotations.is_empty() || self.speaks(ANNOTATIONS_API) {
            return Ok(());
        }
        Err(failure::error(
            EffectErrorKind::Refused,
            "This Docker does not know annotations of containers (24.0 and newer do): update it, or leave them out."
                .to_owned(),
        ))
    }

    async fn container_join(&self, spec: &ContainerSpec, joined: &[String]) -> Result<(), EffectError> {
        if spec.network_mode.is_some() {
            return Ok(());
        }
        for (network, aliases) in spec.networks.iter().filter(|(network, _)| !joined.contains(network)) {
            let request = NetworkConnectRequest {
                container: spec.name.clone(),
                endpoint_config: Some(body::endpoint(aliases, spec)),
            };
            let doing = format!("connect container {:?} to network {network:?}", spec.name);
            self.call(&doing, limits::CHANGE_TIMEOUT, self.docker.connect_network(network, request)).await?;
        }
        Ok(())
    }

    pub(super) async fn container_start(&self, name: &str) -> Result<(), EffectError> {
        let own = self.container_own(name).await?.ok_or_else(|| absent("start", name))?;
        let call = self.docker.start_container(&own.id, None::<StartContainerOptions>);
        self.call(&format!("start container {name:?}"), limits::START_TIMEOUT, call).await
    }

    pub(super) async fn container_stop(&self, name: &str, grace_ms: u64) -> Result<(), EffectError> {
        let Some(own) = self.container_own(name).await? else { return Ok(()) };
        if matches!(own.status(), Some(ContainerStateStatusEnum::CREATED | ContainerStateStatusEnum::EXITED)) {
            return Ok(());
        }
        let seconds = body::grace_seconds(grace_ms);
        let options = StopContainerOptionsBuilder::default().t(seconds).build();
        let limit = Duration::from_secs(u64::from(seconds.unsigned_abs())) + limits::STOP_MARGIN;
        let call = self.docker.stop_container(&own.id, Some(options));
        self.find(&format!("stop container {name:?}"), limit, call).await.map(|_| ())
    }

    pub(super) async fn container_restart_policy(&self, name: &str, restart: RestartPolicy) -> Result<(), EffectError> {
        let own = self.container_own(name).await?.ok_or_else(|| absent("change", name))?;
        let body = ContainerUpdateBody { restart_policy: Some(body::restart_policy(restart)), ..Default::default() };
        let call = self.docker.update_container(&own.id, body);
        self.call(&format!("change the restart policy of container {name:?}"), limits::CHANGE_TIMEOUT, call).await
    }

    pub(super) async fn container_rename(&self, from: &str, to: &str) -> Result<(), EffectError> {
        let taken = self.container_own(to).await?;
        // Not "done already" when the new name exists: only whoever knows the id can tell that.
        let own = self.container_own(from).await?.ok_or_else(|| absent("rename", from))?;
        if taken.is_some() {
            return Err(failure::error(
                EffectErrorKind::Conflict,
                format!(
                    "Could not rename container {from:?} to {to:?}: both exist. Remove the one that is not needed."
                ),
            ));
        }
        let options = RenameContainerOptionsBuilder::default().name(to).build();
        let call = self.docker.rename_container(&own.id, options);
        self.call(&format!("rename container {from:?} to {to:?}"), limits::CHANGE_TIMEOUT, call).await
    }

    pub(super) async fn container_remove(&self, name: &str) -> Result<(), EffectError> {
        let Some(own) = self.container_own(name).await? else { return Ok(()) };
        let doing = format!("remove container {name:?}");
        let deadline = Instant::now() + limits::REMOVAL_WAIT;
        loop {
            let options = RemoveContainerOptionsBuilder::default().force(true).v(true).build();
            let call = async {
                match self.docker.remove_container(&own.id, Some(options)).await {
                    // Another removal is under way: look again.
                    Err(failed) if failure::status(&failed) == Some(409) && Instant::now() < deadline => Ok(false),
                    other => other.map(|()| true),
                }
            };
            if self.find(&doing, limits::CHANGE_TIMEOUT, call).await?.unwrap_or(true) {
                return Ok(());
            }
            tokio::time::sleep(limits::REMOVAL_POLL).await;
        }
    }
}

fn same_container(own: &Own, spec: &ContainerSpec) -> Result<(), EffectError> {
    let same = own.label(label::APP) == spec.app.as_str()
        && own.label(label::SERVICE) == spec.service
        && own.label(label::CONFIG) == spec.config;
    if same {
        return Ok(());
    }
    Err(failure::error(
        EffectErrorKind::Conflict,
        format!(
            "Could not create container {:?}: one of that name exists with another configuration (app {:?}, service {:?}, \
             release {:?}). Remove or rename it first.",
            spec.name,
            own.label(label::APP),
            own.label(label::SERVICE),
            own.label(label::RELEASE),
        ),
    ))
}

fn naming_image(failed: EffectError, image: &str) -> EffectError {
    if failed.kind == EffectErrorKind::ImageNotFound && !failed.message.contains(image) {
        return failure::error(failed.kind, format!("{} (image {image:?})", failed.message));
    }
    failed
}

pub(super) fn absent(verb: &str, name: &str) -> EffectError {
    failure::error(
        EffectErrorKind::NotFound,
        format!(
            "Could not {verb} container {name:?}: there is none of that name. It may have been removed by hand; deploy again."
        ),
    )
}

#[cfg(test)]
mod tests {
    use std::{
        collections::BTreeMap,
        io::{BufRead as _, BufReader, Read as _, Write as _},
        os::unix::net::{UnixListener, UnixStream},
        path::Path,
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering},
        },
        thread,
    };

    use actions::effect::{Effect, Observation};

    use super::{
        super::{Engine, EngineConfig},
        *,
    };

    /// How often the container is looked for before the engine has made it.
    const LOOKS: usize = 3;

    /// What an engine answers that is still making that container, for somebody who waits no more.
    fn answer(request: &str, spec: &ContainerSpec, looks: &AtomicUsize) -> (u16, String) {
        let path = request.split(' ').nth(1).unwrap_or_default();
        if path.ends_with("/version") {
            return (200, r#"{"Version":"20.10.24","ApiVersion":"1.41","MinAPIVersion":"1.12"}"#.to_owned());
        }
        if path.contains("/containers/create") {
            return (409, r#"{"message":"Conflict. The container name is already in use by container 77"}"#.to_owned());
        }
        if looks.fetch_add(1, Ordering::Relaxed) < LOOKS {
            return (404, r#"{"message":"No such container"}"#.to_owned());
        }
        let labels = body::create_body(spec, body::tests::owner(), Path::new("/files")).labels;
        let labels = labels.expect("labels").into_iter().map(|(key, value)| format!("{key:?}:{value:?}"));
        let labels = labels.collect::<Vec<_>>().join(",");
        (200, format!(r#"{{"Id":"77","Name":"/{}","Config":{{"Labels":{{{labels}}}}}}}"#, spec.name))
    }

    fn serve(stream: UnixStream, spec: &ContainerSpec, looks: &AtomicUsize) -> std::io::Result<()> {
        let mut reader = BufReader::new(stream.try_clone()?);
        let (mut stream, mut request, mut length) = (stream, String::new(), 0);
        while reader.read_line(&mut request)? > 0 {
            let line = request.lines().last().unwrap_or_default().to_ascii_lowercase();
            if let Some(value) = line.strip_prefix("content-length:") {
                length = value.trim().parse().unwrap_or(0);
            }
            if line.is_empty() {
                reader.read_exact(&mut vec![0; length])?;
                let (status, body) = answer(&request, spec, looks);
                let head =
                    format!("HTTP/1.1 {status} It\r\nContent-Type: application/json\r\nContent-Length: {}", body.len());
                stream.write_all(format!("{head}\r\n\r\n{body}").as_bytes())?;
                (request, length) = (String::new(), 0);
            }
        }
        Ok(())
    }

    fn engine(spec: &ContainerSpec) -> (tempfile::TempDir, Engine, Arc<AtomicUsize>) {
        let directory = tempfile::tempdir().expect("a directory");
        let socket = directory.path().join("docker.sock");
        let listener = UnixListener::bind(&socket).expect("a socket");
        let looks = Arc::new(AtomicUsize::new(0));
        let (seen, spec) = (looks.clone(), spec.clone());
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (spec, seen) = (spec.clone(), seen.clone());
                thread::spawn(move || serve(stream, &spec, &seen));
            }
        });
        let owner = body::tests::owner();
        let config = EngineConfig { socket: Some(socket), fleet: owner.fleet, host: owner.host };
        (directory, Engine::new(config).expect("an engine"), looks)
    }

    #[tokio::test]
    async fn what_an_earlier_call_is_still_making_is_waited_for() {
        let spec = ContainerSpec { networks: BTreeMap::new(), ..body::tests::least() };
        let (_directory, ours, looks) = engine(&spec);
        let made = ours.perform(Effect::ContainerCreate(Box::new(spec.clone())), &mut |_| {}).await;
        assert!(matches!(made, Ok(Observation::Done)), "{made:?}");
        assert_eq!(looks.load(Ordering::Relaxed), LOOKS + 1);

        let other = ContainerSpec { config: "other".to_owned(), ..spec.clone() };
        let (_directory, theirs, _) = engine(&other);
        let refused = theirs.perform(Effect::ContainerCreate(Box::new(spec)), &mut |_| {}).await;
        assert_eq!(refused.expect_err("another configuration").kind, EffectErrorKind::Conflict);
    }
}
