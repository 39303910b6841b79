//! What tests against a real engine share: the image of the sample app, an agent's engine with ids of
//! its own, and the removal of everything made under them.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use actions::{
    effect::{
        ContainerHealthcheck, ContainerRuntime, ContainerSpec, ContainerState, Effect, EffectError, EffectErrorKind,
        Observation, label,
    },
    spec::{HealthTest, HealthcheckSpec, RestartPolicy},
};
use host::{Engine, EngineConfig};
use ids::{AppName, FleetId, HostId};
use zeroize::Zeroizing;

/// The sample app's image, made by [`image`].
pub(crate) const IMAGE: &str = "serverflow-sample:1";
/// How long a test waits for the engine to get somewhere.
const PATIENCE: Duration = Duration::from_secs(30);

/// Builds the sample image once if it is absent or old, and says its name.
pub(crate) fn image() -> &'static str {
    static BUILT: OnceLock<()> = OnceLock::new();
    BUILT.get_or_init(|| {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/sample/build-image.sh");
        let built = Command::new(&script).env_remove("CARGO_TARGET_DIR").output().expect("the script starts");
        assert!(built.status.success(), "{}: {}", script.display(), String::from_utf8_lossy(&built.stderr));
    });
    IMAGE
}

/// Runs the docker command, as the owner of the host would.
pub(crate) fn docker(args: &[&str]) -> String {
    let ran = Command::new("docker").args(args).output().expect("the docker command is installed");
    assert!(ran.status.success(), "docker {args:?}: {}", String::from_utf8_lossy(&ran.stderr));
    String::from_utf8(ran.stdout).expect("docker prints text").trim().to_owned()
}

/// One agent with a fleet and a host of its own. Dropping it removes what carries its fleet's label.
pub(crate) struct Agent {
    pub(crate) engine: Engine,
    pub(crate) fleet: FleetId,
    pub(crate) app: AppName,
    unique: String,
}

impl Agent {
    pub(crate) fn new() -> Self {
        Self::with_socket(None)
    }

    pub(crate) fn with_socket(socket: Option<PathBuf>) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&host::clock::wall_now().0.to_be_bytes());
        bytes[8..12].copy_from_slice(&std::process::id().to_be_bytes());
        bytes[12..].copy_from_slice(&count.to_be_bytes());
        let fleet = FleetId::from_bytes(bytes);
        let unique = format!("sf-test-{}-{count}-{}", std::process::id(), host::clock::wall_now().0);
        let app = unique.parse().expect("an app name");
        let config = EngineConfig { socket, fleet, host: HostId::from_bytes([1; 16]) };
        Self { engine: Engine::new(config).expect("an absolute path"), fleet, app, unique }
    }

    /// Another host of the same fleet, on the same engine.
    pub(crate) fn other_host(&self) -> Engine {
        let config = EngineConfig { socket: None, fleet: self.fleet, host: HostId::from_bytes([2; 16]) };
        Engine::new(config).expect("an absolute path")
    }

    /// A name nothing else on this engine has.
    pub(crate) fn name(&self, what: &str) -> String {
        format!("{}-{what}", self.unique)
    }

    pub(crate) fn spec(&self, service: &str) -> ContainerSpec {
        ContainerSpec {
            app: self.app.clone(),
            service: service.to_owned(),
            release: "r1".to_owned(),
            config: "c1".to_owned(),
            name: self.name(service),
            image: image().to_owned(),
            command: None,
            entrypoint: None,
            environment: BTreeMap::new(),
            ports: Vec::new(),
            mounts: Vec::new(),
            healthcheck: Some(probe(&["CMD", "/sample", "check"])),
            restart: RestartPolicy::No,
            labels: BTreeMap::new(),
            user: None,
            working_dir: None,
            read_only: true,
            init: None,
            networks: BTreeMap::new(),
            log_driver: "json-file".to_owned(),
            log_options: BTreeMap::new(),
            stop_signal: None,
            stop_grace_period_ms: None,
            mem_limit_bytes: None,
            cpus_milli: None,
            privileged: false,
            cap_add: Vec::new(),
            devices: Vec::new(),
            network_mode: None,
            pid: None,
            ipc: None,
            security_opt: vec!["no-new-privileges".to_owned()],
            runtime: ContainerRuntime::default(),
            files: Vec::new(),
        }
    }

    pub(crate) async fn perform(&self, effect: Effect) -> Result<Observation, EffectError> {
        self.engine.perform(effect, &mut |_| ()).await
    }

    pub(crate) async fn done(&self, effect: Effect) {
        let shown = format!("{effect:?}");
        match self.perform(effect).await {
            Ok(Observation::Done) => {}
            other => panic!("{shown}: {other:?}"),
        }
    }

    pub(crate) async fn create_and_start(&self, spec: ContainerSpec) -> String {
        let name = spec.name.clone();
        self.done(Effect::ContainerCreate(Box::new(spec))).await;
        self.done(Effect::ContainerStart { name: name.clone() }).await;
        name
    }

    pub(crate) async fn inspect(&self, name: &str) -> Option<ContainerState> {
        match self.perform(Effect::ContainerInspect { name: name.to_owned() }).await {
            Ok(Observation::Container(state)) => state,
            other => panic!("inspect {name}: {other:?}"),
        }
    }

    pub(crate) async fn logs(&self, name: &str, tail: u32) -> String {
        match self.perform(Effect::ContainerLogs { name: name.to_owned(), tail }).await {
            Ok(Observation::Logs(text)) => text,
            other => panic!("logs {name}: {other:?}"),
        }
    }

    /// Looks at a container until it is as wanted.
    pub(crate) async fn wait(&self, name: &str, wanted: impl Fn(&ContainerState) -> bool) -> ContainerState {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let state = self.inspect(name).await.expect("the container is there");
            if wanted(&state) {
                return state;
            }
            assert!(Instant::now() < deadline, "{name} did not get there: {state:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let filter = format!("label={}={}", label::FLEET, self.fleet);
        for (list, remove) in [
            (["ps", "-aq"].as_slice(), ["rm", "-fv"].as_slice()),
            (&["network", "ls", "-q"], &["network", "rm"]),
            (&["volume", "ls", "-q"], &["volume", "rm"]),
        ] {
            let listed = Command::new("docker").args(list).args(["--filter", &filter]).output();
            let listed = listed.map(|ran| String::from_utf8_lossy(&ran.stdout).into_owned()).unwrap_or_default();
            let ids: Vec<&str> = listed.split_whitespace().collect();
            if !ids.is_empty() {
                let _ = Command::new("docker").args(remove).args(ids).output();
            }
        }
    }
}

/// A quick probe, so that tests need not wait.
pub(crate) fn probe(test: &[&str]) -> ContainerHealthcheck {
    ContainerHealthcheck {
        test: test.iter().map(|word| secret(word)).collect(),
        timing: HealthcheckSpec {
            test: HealthTest::Inherit,
            interval_ms: Some(200),
            timeout_ms: Some(2_000),
            retries: Some(2),
            start_period_ms: None,
        },
    }
}

pub(crate) fn secret(text: &str) -> Zeroizing<String> {
    Zeroizing::new(text.to_owned())
}

pub(crate) fn environment(pairs: &[(&str, &str)]) -> BTreeMap<String, Zeroizing<String>> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), secret(value))).collect()
}

/// Demands a failure of this kind whose words say all of `words`.
pub(crate) fn refused(result: Result<Observation, EffectError>, kind: EffectErrorKind, words: &[&str]) {
    let failed = result.expect_err("this must be refused");
    assert_eq!(failed.kind, kind, "{}", failed.message);
    for word in words {
        assert!(failed.message.contains(word), "{word:?} is not in {:?}", failed.message);
    }
}
