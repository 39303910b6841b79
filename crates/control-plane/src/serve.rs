//! `serve`: opens everything, listens on both sides, and drains at the end.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use envelope::root::{RootError, TrustedRoot};
use fleet::{
    ports::{Store as _, StoreError},
    recovery::RecoveryStage,
};
use prometheus_client::registry::Registry;
use signer::{RemoteSigner, Standing};
use store::{SqliteStore, StoreConfig};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    sync::{Notify, watch},
    time::timeout,
};
use tonic::transport::Server;
use wire::v1::agent_link_server::AgentLinkServer;

use crate::{
    admin_socket,
    agent_programs::Programs,
    agents::{AgentService, Agents},
    chores, clock,
    config::Config,
    files::Files,
    hub::Hub,
    key_keeper::KeyKeeper,
    keys, limits, listener,
    online_keys::OnlineKeys,
    people_tls::{CertificateError, PeopleTls},
    root_keeper::RootKeeper,
    signer_process::{self, OwnSigner},
    tls::ServedTls,
};

/// Why the control plane does not run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ServeError {
    #[error("{path} does not hold a control plane: run `serverflow-control-plane init --data-dir {path}` first")]
    NotInitialised { path: PathBuf },
    #[error(
        "the root metadata of this fleet is not signed yet: have {path} signed with `serverflow root sign`, then run \
         `serverflow-control-plane init --finish FILE`"
    )]
    RootUnsigned { path: PathBuf },
    #[error("{0}")]
    Keys(#[from] keys::KeysError),
    #[error("{0}")]
    Tls(#[from] crate::tls::TlsError),
    #[error("people get no HTTPS: {0}")]
    Certificate(#[from] CertificateError),
    #[error("{0}")]
    Store(#[from] StoreError),
    #[error("the stored root metadata does not verify: {0}")]
    Root(#[from] RootError),
    #[error("the {what} in {path} is not the one that root metadata lists; restore the right key file from a backup")]
    WrongKey { what: &'static str, path: PathBuf },
    #[error(
        "there are no command keys in {path}; if the signer is a service of its own, say where it listens (--signer-socket, signer_socket), otherwise bring its directory back from the newest backup"
    )]
    NoSigner { path: PathBuf },
    #[error(
        "cannot listen on {address} for {whom}: {source}. Another program may have that port; choose another with {flag}"
    )]
    Listen { address: SocketAddr, whom: &'static str, flag: &'static str, source: std::io::Error },
    #[error("the {whom} listener failed")]
    Server {
        whom: &'static str,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error(
        "one of the two listeners ended though nobody asked for it; start the control plane again and look at its log"
    )]
    Early,
    #[error("signals cannot be awaited")]
    Signal(#[source] std::io::Error),
}

/// Runs until it is asked to end.
///
/// # Errors
/// See [`ServeError`]; each says what to do.
pub(crate) async fn serve(config: Config) -> Result<(), ServeError> {
    let files = Files::new(&config.data_dir);
    initialised(&files)?;
    let people_tls = config.https.as_ref().map(|(cert, key)| PeopleTls::load(cert, key)).transpose()?;
    let agent_listener = listen(config.agent_listen, "agents", "--agent-listen").await?;
    let people_listener = listen(config.http_listen, "people", "--http-listen").await?;

    let keys = keys::load(&files)?;
    let data_key = keys.data.clone();
    let store = Arc::new(SqliteStore::open(StoreConfig { path: files.database(), data_key }).await?);
    let root = Arc::new(TrustedRoot::from_stored(&store.root_chain().await?)?);
    check_keys(&files, &root, &keys)?;
    let online = Arc::new(OnlineKeys::new(files.clone(), keys)?);
    let own_signer = own_signer(&config, &files)?;
    let signer = Arc::new(RemoteSigner::dial(&signer_process::socket(&config)));
    let hub = Hub::new();
    let agents = Arc::new(Agents::new(root.clone(), store.clone(), signer.clone(), online.clone(), hub.clone()));
    agents.recovery_set(store.recovery().await?);
    warn_of_recovery(&agents);
    let hosts = chores::host_count(&agents).await?;
    tracing::info!(
        fleet = %root.current().fleet, hosts, agents = %config.agent_listen, people = %config.http_listen,
        "the control plane is ready"
    );
    warn_of_expiry(&root);

    let (stop, stopping) = watch::channel(false);
    let admin = admin_door(&config.data_dir, &store, &hub);
    let keeper = Arc::new(KeyKeeper::new(agents.clone(), store.clone(), signer.clone()));
    let chores = chores::start(&agents, &store, &signer, &keeper);
    let ended = Arc::new(Notify::new());
    let agents_side = serve_agents(agents.clone(), agent_listener, online.tls(), stopping.clone());
    let agents_side = tokio::spawn(told(ended.clone(), agents_side));
    let watching = people_tls.clone().map(|tls| tokio::spawn(tls.watch()));
    let state = web::WebState {
        host_names: host_names(&config),
        tls: people_tls.map(|tls| tls as Arc<dyn web::Tls>),
        agent_programs: programs(&config),
        ..people(&keeper, &hub)
    };
    let people_side = tokio::spawn(told(ended.clone(), web::serve(people_listener, state, stopped(stopping))));

    // With one side gone it must not look alive: whoever started it sees it end and starts it anew.
    let (reason, is_early) = tokio::select! {
        reason = asked_to_end() => (reason.map_err(ServeError::Signal)?, false),
        () = ended.notified() => ("one side ended by itself", true),
    };
    tracing::info!(reason, "ending: sessions are closed, what was accepted stays stored");
    hub.shut_down();
    stop.send_replace(true);
    let drained = timeout(limits::SHUTDOWN_TIMEOUT, async {
        join("agents", agents_side).await?;
        join("people", people_side).await
    });
    let result = drained.await.unwrap_or_else(|_| {
        tracing::warn!("some connections did not end in time and are cut");
        Ok(())
    });
    let result = if is_early { result.and(Err(ServeError::Early)) } else { result };
    for chore in chores.into_iter().chain(watching).chain(admin) {
        chore.abort();
    }
    if let Some(own_signer) = own_signer {
        own_signer.end().await;
    }
    store.close().await;
    result
}

/// Whether there is a fleet to serve.
fn initialised(files: &Files) -> Result<(), ServeError> {
    if files.database().exists() {
        return Ok(());
    }
    if files.root_proposal().exists() {
        return Err(ServeError::RootUnsigned { path: files.root_proposal() });
    }
    Err(ServeError::NotInitialised { path: files.directory().to_owned() })
}

/// Starts a signer, unless the configuration names one that runs already.
fn own_signer(config: &Config, files: &Files) -> Result<Option<OwnSigner>, ServeError> {
    if config.signer_socket.is_some() {
        return Ok(None);
    }
    let place = files.signer();
    if !place.trust().exists() && !files.earlier_command_key().exists() {
        return Err(ServeError::NoSigner { path: place.directory().to_owned() });
    }
    Ok(Some(OwnSigner::start(config.clone())))
}

/// The door for `admin` on this machine, open as long as its task runs.
fn admin_door(data_dir: &Path, store: &Arc<SqliteStore>, hub: &Arc<Hub>) -> Option<tokio::task::JoinHandle<()>> {
    match admin_socket::listen(data_dir) {
        Ok(listener) => Some(tokio::spawn(admin_socket::serve(listener, store.clone(), hub.clone()))),
        Err(error) => {
            tracing::warn!(%error, "the machine's own socket cannot be made: `admin` works only while this control plane is stopped");
            None
        }
    }
}

async fn listen(address: SocketAddr, whom: &'static str, flag: &'static str) -> Result<TcpListener, ServeError> {
    TcpListener::bind(address).await.map_err(|source| ServeError::Listen { address, whom, flag, source })
}

/// A control plane with keys that root metadata does not list would be refused by every agent; better
/// to say so here. Of command keys the signer says so itself.
pub(crate) fn check_keys(files: &Files, root: &TrustedRoot, keys: &keys::Keys) -> Result<(), ServeError> {
    let keys::Keys { session, audit, audit_next, tls, .. } = keys;
    let metadata = root.current();
    let checks = [
        ("session key", files.session_key(), metadata.session_keys.contains(&session.public())),
        (
            "audit key",
            files.audit_key(),
            [Some(audit), audit_next.as_ref()].into_iter().flatten().any(|key| metadata.audit_key == key.public()),
        ),
        ("TLS key", files.tls_key(), metadata.tls_pins.contains(&tls.pin())),
    ];
    match checks.into_iter().find(|(_, _, is_listed)| !is_listed) {
        Some((what, path, _)) => Err(ServeError::WrongKey { what, path }),
        None => Ok(()),
    }
}

fn warn_of_recovery(agents: &Agents) {
    let missing = match agents.stage(&agents.root()) {
        RecoveryStage::Over => return,
        RecoveryStage::Gathering => "root metadata of after the restore",
        RecoveryStage::Confirming => "which hosts are revoked",
    };
    tracing::warn!(
        missing,
        "this control plane was restored from a backup and orders nothing yet; `serverflow recovery status` says what to do"
    );
}

fn warn_of_expiry(root: &TrustedRoot) {
    let left = root.current().expires.since(clock::now());
    if left < limits::ROOT_EXPIRY_WARNING {
        tracing::warn!(%left, "root metadata expires soon: past that, hosts take no orders but reads");
    }
}

/// The names the configuration has, and the address listened on, if it is one.
pub(crate) fn host_names(config: &Config) -> Vec<String> {
    let ip = config.http_listen.ip();
    let own = (!ip.is_unspecified()).then(|| ip.to_string());
    config.host_names.iter().cloned().chain(own).collect()
}

/// The agent's programs for new machines.
fn programs(config: &Config) -> Arc<Programs> {
    let programs = Arc::new(Programs::new(config.agent_dir.as_deref()));
    // Hashing takes a moment, and nobody waits for it.
    let told = programs.clone();
    tokio::task::spawn_blocking(move || told.tell());
    programs
}

fn people(keeper: &Arc<KeyKeeper>, hub: &Arc<Hub>) -> web::WebState {
    let KeyKeeper { agents, store, signer, .. } = &**keeper;
    let tls = agents.keys.tls();
    web::WebState {
        store: store.clone(),
        notifier: hub.clone(),
        events: hub.events(),
        root: agents.roots(),
        tls_spki_sha256: Box::new(move || tls.pin()),
        root_keeper: Arc::new(RootKeeper(agents.clone())),
        key_keeper: keeper.clone(),
        version: env!("CARGO_PKG_VERSION"),
        host_names: Vec::new(),
        streams: hub.streams(),
        tls: None,
        agent_programs: Arc::new(Programs::new(None)),
        clock: clock::now,
        figures: Arc::new(Figures { hub: hub.clone(), store: store.clone(), signer: signer.clone() }),
        registry: Registry::default(),
    }
}

/// What the people's side shows of the rest.
struct Figures {
    hub: Arc<Hub>,
    store: Arc<SqliteStore>,
    signer: Arc<RemoteSigner>,
}

const SIGNER_AWAY: &str =
    "the signer does not answer, so no order goes out; orders wait. `serverflow-control-plane doctor` says more";
const SIGNER_IMPAIRED: &str =
    "the signer cannot write its record, so no order goes out; see to the disk, it goes on by itself";
const SIGNER_KEYLESS: &str = "the signer has no active command key that root metadata lists, so no order goes out; `serverflow-control-plane doctor` says more";

impl web::Figures for Figures {
    fn sessions_open(&self) -> u64 {
        self.hub.open_count() as u64
    }

    fn audit_size(&self) -> u64 {
        self.store.audit_position().size
    }

    fn problems(&self) -> Vec<&'static str> {
        let store = "the database cannot be written, so nothing new is taken; see to the disk, it goes on by itself";
        let signer = match self.signer.standing() {
            Standing::Away { .. } => (true, SIGNER_AWAY),
            Standing::Here(keys) if keys.is_impaired => (true, SIGNER_IMPAIRED),
            Standing::Here(keys) => (!keys.can_sign(), SIGNER_KEYLESS),
        };
        let problems = [(self.store.is_impaired(), store), signer];
        problems.into_iter().filter(|(is_so, _)| *is_so).map(|(_, words)| words).collect()
    }
}

async fn serve_agents(
    agents: Arc<Agents>,
    listener: TcpListener,
    tls: Arc<ServedTls>,
    stopping: watch::Receiver<bool>,
) -> Result<(), tonic::transport::Error> {
    let service = AgentLinkServer::new(AgentService(agents))
        .max_decoding_message_size(wire::limits::FRAME_BYTES_MAX)
        .max_encoding_message_size(wire::limits::FRAME_BYTES_MAX);
    Server::builder()
        .http2_keepalive_interval(Some(limits::PING_INTERVAL))
        .http2_keepalive_timeout(Some(limits::PING_TIMEOUT))
        .max_concurrent_streams(limits::STREAMS_MAX)
        .initial_stream_window_size(limits::WINDOW_BYTES)
        .initial_connection_window_size(limits::WINDOW_BYTES)
        .add_service(service)
        .serve_with_incoming_shutdown(listener::accept(listener, tls), stopped(stopping))
        .await
}

/// Runs one side, and tells when it ends, however it ends.
async fn told<T>(ended: Arc<Notify>, side: impl Future<Output = T>) -> T {
    struct Tell(Arc<Notify>);
    impl Drop for Tell {
        fn drop(&mut self) {
            self.0.notify_one();
        }
    }
    let _tell = Tell(ended);
    side.await
}

async fn stopped(mut stopping: watch::Receiver<bool>) {
    // An error means that the sender is gone, which is the end as well.
    let _ = stopping.wait_for(|stop| *stop).await;
}

/// Waits for the signal that ends a service.
pub(crate) async fn asked_to_end() -> std::io::Result<&'static str> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    })
}

async fn join<E: std::error::Error + Send + Sync + 'static>(
    whom: &'static str,
    task: tokio::task::JoinHandle<Result<(), E>>,
) -> Result<(), ServeError> {
    match task.await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(source)) => Err(ServeError::Server { whom, source: Box::new(source) }),
        Err(source) => Err(ServeError::Server { whom, source: Box::new(source) }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_side_that_ends_or_panics_is_told() {
        let ended = Arc::new(Notify::new());
        assert_eq!(tokio::spawn(told(ended.clone(), async { 1 })).await.ok(), Some(1));
        ended.notified().await;
        let panicked = tokio::spawn(told(ended.clone(), async { assert_eq!(1, 2, "on purpose") })).await;
        assert!(panicked.is_err_and(|error| error.is_panic()));
        ended.notified().await;
    }
}
