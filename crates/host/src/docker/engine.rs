//! The door to the engine: connecting, agreeing on an API version, time limits, and which effect goes
//! where.
//!
//! Nothing is connected until the first effect, and a connection that broke is forgotten, so an engine
//! that is down at start, restarted or upgraded in between is met anew, version included.

use std::{
    env,
    future::Future,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use actions::effect::{Effect, EffectError, EffectErrorKind, Observation};
use bollard::{API_DEFAULT_VERSION, Docker, models::SystemInfo};
use ids::{FleetId, HostId};
use serde_json::json;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{credentials, failure, ownership::Owner};
use crate::{facts, files, limits};

/// Where the engine listens when nothing else is said.
const SOCKET_DEFAULT: &str = "/var/run/docker.sock";
/// Where the files of containers lie when nothing else is said.
const FILES_DEFAULT: &str = "/var/lib/serverflow-agent/files";
/// Oldest API this room speaks: Docker 20.10.
const API_MIN: (usize, usize) = (1, 41);

/// What an [`Engine`] is told.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// Unix socket of the engine; absent means `DOCKER_HOST` if set, else `/var/run/docker.sock`.
    pub socket: Option<PathBuf>,
    /// Fleet whose things these are.
    pub fleet: FleetId,
    /// Host whose things these are.
    pub host: HostId,
}

/// Why there can be no [`Engine`].
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// `DOCKER_HOST` asks for something other than a Unix socket.
    #[error(
        "DOCKER_HOST is {value:?}, but the agent speaks to Docker over a Unix socket only: set it to unix:///path, or unset it"
    )]
    NotUnix {
        /// What it is set to.
        value: String,
    },
    /// A socket path that is not absolute, or not text.
    #[error("Docker's socket is set to {path:?}: give an absolute path")]
    NotAbsolute {
        /// What it is set to.
        path: PathBuf,
    },
}

/// What the engine says of itself; for `doctor` and `host.facts`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineVersion {
    /// Version of the engine, such as `28.2.2`.
    pub version: String,
    /// API version spoken with it.
    pub api_version: String,
    /// Storage driver, such as `overlay2`.
    pub storage_driver: String,
    /// Version and driver of control groups, such as `2 (systemd)`.
    pub cgroup: String,
    /// Log driver of containers that name none, such as `json-file`.
    pub logging_driver: String,
    /// Directory in which the engine keeps its data.
    pub root: PathBuf,
    /// Socket it was reached by.
    pub socket: PathBuf,
    /// Whether containers survive a restart of the engine.
    pub live_restore: bool,
    /// What the engine itself warns of.
    pub warnings: Vec<String>,
}

/// The host's Docker Engine. Cheap to clone; all clones share one connection.
#[derive(Clone)]
pub struct Engine {
    inner: Arc<Inner>,
}

struct Inner {
    socket: PathBuf,
    owner: Owner,
    credentials: Option<PathBuf>,
    files: PathBuf,
    pulls: Arc<Semaphore>,
    connected: Mutex<Option<Connected>>,
}

#[derive(Clone)]
struct Connected {
    docker: Docker,
    version: String,
    api_version: String,
}

impl Engine {
    /// Takes note of where the engine is; does not talk to it yet. Credentials of registries are read,
    /// at each pull, where `docker login` writes them: `$DOCKER_CONFIG` or `$HOME/.docker`.
    ///
    /// # Errors
    /// When the engine is not to be reached over a Unix socket with an absolute path.
    pub fn new(config: EngineConfig) -> Result<Self, EngineError> {
        let socket = match config.socket {
            Some(path) => path,
            None => socket_from_environment(env::var("DOCKER_HOST").ok().as_deref())?,
        };
        if !socket.is_absolute() || socket.to_str().is_none() {
            return Err(EngineError::NotAbsolute { path: socket });
        }
        let owner = Owner { fleet: config.fleet, host: config.host };
        Ok(Self::of(socket, owner, credentials::default_path(), PathBuf::from(FILES_DEFAULT)))
    }

    fn of(socket: PathBuf, owner: Owner, credentials: Option<PathBuf>, files: PathBuf) -> Self {
        let pulls = Arc::new(Semaphore::new(limits::PULLS_MAX));
        Self { inner: Arc::new(Inner { socket, owner, credentials, files, pulls, connected: Mutex::new(None) }) }
    }

    /// The same engine, with registry credentials read from another file of Docker's `config.json` form.
    #[must_use]
    pub fn with_credentials(&self, path: PathBuf) -> Self {
        Self::of(self.inner.socket.clone(), self.inner.owner, Some(path), self.inner.files.clone())
    }

    /// The same engine, with the files of containers below another directory. It must be absolute, on
    /// a disk that outlives a reboot, and be called the same where the engine runs. The directory that
    /// holds it is the agent's own: no app can mount it.
    #[must_use]
    pub fn with_files(&self, path: PathBuf) -> Self {
        Self::of(self.inner.socket.clone(), self.inner.owner, self.inner.credentials.clone(), path)
    }

    /// Socket by which the engine is reached.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.inner.socket
    }

    /// Performs one effect and says what was found. `progress` hears a line from time to time, at most
    /// about two in a second. Dropping the future leaves the effect done or not done, never half noted:
    /// performing it again is safe.
    ///
    /// # Errors
    /// When it could not be done; the message says what, to what, and what to do next.
    pub async fn perform(
        &self,
        effect: Effect,
        progress: &mut (dyn FnMut(String) + Send),
    ) -> Result<Observation, EffectError> {
        #[cfg(feature = "crash-points")]
        let point = crash_points::Point::before("effect", &format!("{effect:?}"), passage(&effect));
        let performed = self.performed(effect, progress).await;
        #[cfg(feature = "crash-points")]
        point.after();
        performed
    }

    async fn performed(
        &self,
        effect: Effect,
        progress: &mut (dyn FnMut(String) + Send),
    ) -> Result<Observation, EffectError> {
        let effect = match effect {
            Effect::HostFacts => return Ok(self.host_facts().await),
            Effect::FilesWrite { app, directory, files } => {
                return self.on_disk(move |root| files::write(root, &app, &directory, &files)).await;
            }
            Effect::FilesSweep { app, keep } => return self.on_disk(move |root| files::sweep(root, &app, &keep)).await,
            effect => effect,
        };
        let session = self.session().await?;
        // On the heap: it holds the largest of all effects' futures, too much for a thread's stack.
        self.noticing(Box::pin(session.perform(effect, progress)).await)
    }

    /// Asks the engine who it is.
    ///
    /// # Errors
    /// When it does not answer, or is too old or too new to be spoken with.
    pub async fn check(&self) -> Result<EngineVersion, EffectError> {
        let session = self.session().await?;
        let info =
            self.noticing(session.call("ask Docker who it is", limits::READ_TIMEOUT, session.docker.info()).await)?;
        Ok(session.version(info))
    }

    async fn on_disk(
        &self,
        work: impl FnOnce(&Path) -> Result<(), EffectError> + Send + 'static,
    ) -> Result<Observation, EffectError> {
        let root = self.inner.files.clone();
        match tokio::task::spawn_blocking(move || work(&root)).await {
            Ok(done) => done.map(|()| Observation::Done),
            Err(_) => Err(failure::error(
                EffectErrorKind::Refused,
                "The work on the agent's files was cut off. Try again.".to_owned(),
            )),
        }
    }

    async fn host_facts(&self) -> Observation {
        let engine = self.check().await;
        let root =
            engine.as_ref().map_or_else(|_| PathBuf::from(facts::DOCKER_ROOT_DEFAULT), |found| found.root.clone());
        // Small files of the kernel, but a disk that hangs must not hang the agent.
        let read = tokio::task::spawn_blocking(move || facts::read(&root)).await;
        let mut facts = read.unwrap_or_else(|_| json!({}));
        facts["docker"] = match engine {
            Ok(found) => json!({
                "version": found.version,
                "api_version": found.api_version,
                "storage_driver": found.storage_driver,
                "cgroup": found.cgroup,
                "root": found.root,
                "live_restore": found.live_restore,
                "warnings": found.warnings,
            }),
            Err(failed) => json!({ "error": failed.message }),
        };
        Observation::Json(facts)
    }

    /// Forgets the connection when it turned out to be broken.
    pub(super) fn noticing<T>(&self, result: Result<T, EffectError>) -> Result<T, EffectError> {
        if result.as_ref().is_err_and(|failed| failed.kind == EffectErrorKind::EngineUnreachable) {
            *self.inner.connected.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
        result
    }

    pub(super) async fn session(&self) -> Result<Session, EffectError> {
        let known = self.inner.connected.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let connected = match known {
            Some(connected) => connected,
            None => {
                let connected = connect(&self.inner.socket).await?;
                *self.inner.connected.lock().unwrap_or_else(PoisonError::into_inner) = Some(connected.clone());
                connected
            }
        };
        Ok(Session {
            docker: connected.docker,
            owner: self.inner.owner,
            socket: self.inner.socket.clone(),
            credentials: self.inner.credentials.clone(),
            files: self.inner.files.clone(),
            pulls: Arc::clone(&self.inner.pulls),
            version: connected.version,
            api_version: connected.api_version,
        })
    }
}

/// An effect that is not listed here counts as a change, which is the careful way round.
#[cfg(feature = "crash-points")]
const fn passage(effect: &Effect) -> crash_points::Passage {
    match effect {
        Effect::ImageInspect { .. }
        | Effect::AppObserve { .. }
        | Effect::ContainerInspect { .. }
        | Effect::ContainerLogs { .. }
        | Effect::ContainersList
        | Effect::ForeignCheck(_)
        | Effect::HostFacts => crash_points::Passage::Look,
        _ => crash_points::Passage::Change,
    }
}

fn socket_from_environment(docker_host: Option<&str>) -> Result<PathBuf, EngineError> {
    match docker_host {
        None | Some("") => Ok(PathBuf::from(SOCKET_DEFAULT)),
        Some(value) => match value.strip_prefix("unix://") {
            Some(path) => Ok(PathBuf::from(path)),
            None => Err(EngineError::NotUnix { value: value.to_owned() }),
        },
    }
}

/// Connects and agrees on a version. bollard leaves the version out of its request paths, and the
/// engine would then speak its newest; answers of an engine from the future must have the shapes
/// known here, so the version is put into every path.
async fn connect(socket: &Path) -> Result<Connected, EffectError> {
    let doing = "reach Docker";
    let path = socket.to_str().unwrap_or(SOCKET_DEFAULT);
    let docker = Docker::connect_with_unix(path, limits::PULL_TIMEOUT.as_secs(), API_DEFAULT_VERSION)
        .map_err(|failed| failure::explain(doing, socket, &failed))?;
    let found = limited(doing, limits::READ_TIMEOUT, socket, docker.version()).await?;
    let text = found.api_version.unwrap_or_default();
    let ours = (API_DEFAULT_VERSION.major_version, API_DEFAULT_VERSION.minor_version);
    let api = parse_api(&text).unwrap_or((0, 0)).min(ours);
    if api < API_MIN {
        return Err(failure::error(
            EffectErrorKind::Refused,
            format!(
                "Docker at {} speaks API {text:?}, which is too old: update it to 20.10 or newer.",
                socket.display()
            ),
        ));
    }
    let least = parse_api(&found.min_api_version.unwrap_or_default());
    if least.is_some_and(|least| least > ours) {
        return Err(failure::error(
            EffectErrorKind::Refused,
            format!(
                "Docker at {} speaks API {text:?}, which this agent is too old for: update the agent.",
                socket.display()
            ),
        ));
    }
    let api_version = format!("{}.{}", api.0, api.1);
    let prefix = format!("/v{api_version}");
    let docker = docker.with_request_modifier(move |mut request| {
        let uri = request.uri();
        let (scheme, authority) = (uri.scheme_str().unwrap_or("unix"), uri.authority().map_or("", |it| it.as_str()));
        let path = uri.path_and_query().map_or("/", |it| it.as_str());
        if let Ok(versioned) = format!("{scheme}://{authority}{prefix}{path}").parse() {
            *request.uri_mut() = versioned;
        }
        request
    });
    Ok(Connected { docker, version: found.version.unwrap_or_default(), api_version })
}

fn parse_api(text: &str) -> Option<(usize, usize)> {
    let (major, minor) = text.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

async fn limited<T>(
    doing: &str,
    limit: Duration,
    socket: &Path,
    call: impl Future<Output = Result<T, bollard::errors::Error>>,
) -> Result<T, EffectError> {
    match tokio::time::timeout(limit, call).await {
        Ok(answer) => answer.map_err(|failed| failure::explain(doing, socket, &failed)),
        Err(_) => Err(failure::timed_out(doing, limit.as_secs())),
    }
}

/// One agreed connection, as the modules below use it.
pub(super) struct Session {
    pub(super) docker: Docker,
    pub(super) owner: Owner,
    pub(super) socket: PathBuf,
    pub(super) credentials: Option<PathBuf>,
    /// Below it lie the files of containers.
    pub(super) files: PathBuf,
    pulls: Arc<Semaphore>,
    version: String,
    api_version: String,
}

impl Session {
    /// Makes one call within `limit`, its failure explained as a failure of `doing`.
    pub(super) async fn call<T>(
        &self,
        doing: &str,
        limit: Duration,
        call: impl Future<Output = Result<T, bollard::errors::Error>>,
    ) -> Result<T, EffectError> {
        limited(doing, limit, &self.socket, call).await
    }

    /// Whether the engine speaks at least this version.
    pub(super) fn speaks(&self, least: (usize, usize)) -> bool {
        parse_api(&self.api_version).is_some_and(|ours| ours >= least)
    }

    /// Waits for one of the places in which pulls run; `None` never happens, because they are never closed.
    pub(super) async fn pull_turn(
        &self,
        reference: &str,
        progress: &mut (dyn FnMut(String) + Send),
    ) -> Option<OwnedSemaphorePermit> {
        if self.pulls.available_permits() == 0 {
            progress(format!("{reference}: waiting for other pulls of this host"));
        }
        Arc::clone(&self.pulls).acquire_owned().await.ok()
    }

    /// Like [`Session::call`], for which "there is no such thing" is an answer.
    pub(super) async fn find<T>(
        &self,
        doing: &str,
        limit: Duration,
        call: impl Future<Output = Result<T, bollard::errors::Error>>,
    ) -> Result<Option<T>, EffectError> {
        let call = async {
            match call.await {
                Ok(found) => Ok(Some(found)),
                Err(failed) if failure::status(&failed) == Some(404) => Ok(None),
                Err(failed) => Err(failed),
            }
        };
        self.call(doing, limit, call).await
    }

    async fn perform(
        &self,
        effect: Effect,
        progress: &mut (dyn FnMut(String) + Send),
    ) -> Result<Observation, EffectError> {
        match effect {
            Effect::ImageInspect { image } => Ok(Observation::Image(self.image_inspect(&image).await?)),
            Effect::ImagePull { reference, platform } => {
                self.image_pull(&reference, platform.as_deref(), progress).await.map(done)
            }
            Effect::ImageTag { image, repository, tag } => self.image_tag(&image, &repository, &tag).await.map(done),
            Effect::ImageUntag { repository, tag } => self.image_untag(&repository, &tag).await.map(done),
            Effect::AppObserve { app } => Ok(Observation::App(self.app_observe(&app).await?)),
            Effect::NetworkCreate { app, name, file_name, internal, labels } => {
                self.network_create(&app, &name, &file_name, internal, &labels).await.map(done)
            }
            Effect::NetworkRemove { name } => self.network_remove(&name).await.map(done),
            Effect::VolumeCreate { app, name, file_name, driver_opts, labels } => {
                self.volume_create(&app, &name, &file_name, &driver_opts, &labels).await.map(done)
            }
            Effect::ForeignCheck(foreign) => self.foreign_check(*foreign).await.map(done),
            Effect::ContainerCreate(spec) => self.container_create(&spec).await.map(done),
            Effect::ContainerStart { name } => self.container_start(&name).await.map(done),
            Effect::ContainerStop { name, grace_ms } => self.container_stop(&name, grace_ms).await.map(done),
            Effect::ContainerRestartPolicy { name, restart } => {
                self.container_restart_policy(&name, restart).await.map(done)
            }
            Effect::ContainerRename { from, to } => self.container_rename(&from, &to).await.map(done),
            Effect::ContainerRemove { name } => self.container_remove(&name).await.map(done),
            Effect::ContainerInspect { name } => Ok(Observation::Container(self.container_observe(&name).await?)),
            Effect::ContainerLogs { name, tail } => Ok(Observation::Logs(self.container_logs(&name, tail).await?)),
            Effect::ContainersList => Ok(Observation::Json(self.containers_list(progress).await?)),
            // Answered above, without a connection.
            Effect::FilesWrite { .. } | Effect::FilesSweep { .. } => Ok(Observation::Done),
            Effect::HostFacts => Ok(Observation::Json(facts::read(Path::new(facts::DOCKER_ROOT_DEFAULT)))),
        }
    }

    fn version(&self, info: SystemInfo) -> EngineVersion {
        let cgroup_version = info.cgroup_version.map_or_else(|| "unknown".to_owned(), |it| it.to_string());
        let cgroup_driver = info.cgroup_driver.map_or_else(|| "unknown".to_owned(), |it| it.to_string());
        EngineVersion {
            version: self.version.clone(),
            api_version: self.api_version.clone(),
            storage_driver: info.driver.unwrap_or_default(),
            cgroup: format!("{cgroup_version} ({cgroup_driver})"),
            logging_driver: info.logging_driver.unwrap_or_default(),
            root: info.docker_root_dir.unwrap_or_else(|| facts::DOCKER_ROOT_DEFAULT.to_owned()).into(),
            socket: self.socket.clone(),
            live_restore: info.live_restore_enabled.unwrap_or(false),
            warnings: info.warnings.unwrap_or_default(),
        }
    }
}

fn done((): ()) -> Observation {
    Observation::Done
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_unix_sockets_are_taken_from_the_environment() {
        let check = |value: Option<&str>| socket_from_environment(value).ok().map(|path| path.display().to_string());
        assert_eq!(check(None).as_deref(), Some(SOCKET_DEFAULT));
        assert_eq!(check(Some("")).as_deref(), Some(SOCKET_DEFAULT));
        assert_eq!(check(Some("unix:///run/user/1000/docker.sock")).as_deref(), Some("/run/user/1000/docker.sock"));
        assert_eq!(check(Some("tcp://10.0.0.1:2375")), None);
        assert_eq!(check(Some("ssh://host")), None);
    }

    #[test]
    fn api_versions_compare_as_numbers() {
        assert_eq!(parse_api("1.41"), Some((1, 41)));
        assert!(parse_api("1.9") < parse_api("1.41"));
        assert_eq!(parse_api("latest"), None);
    }
}
