//! What the people's side is given, and what it keeps beside.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use envelope::{
    messages::{RootMetadata, StandingOrder},
    root::{OnlineKey, OnlineRole, StagedKeys, TrustedRoot},
    signer_port::SignError,
};
use fleet::{
    keys::HeldOnlineKey,
    ports::{Event, Later, Notifier, Store},
    recovery::Recovery,
};
use ids::{Sha256, UnixMs, UserId};
use prometheus_client::registry::Registry;
use tokio::sync::{OwnedMutexGuard, Semaphore, broadcast, watch};

use crate::{
    access::TokensUsed, agent_programs::AgentPrograms, credentials::CredentialError, download_rate::DownloadRate,
    fresh, limits, metrics::Metrics, peer_places::PeerPlaces, rate::Rate, refusals::Refusals, streams::Streams,
    tls::Tls,
};

/// Everything [`crate::serve`] needs.
pub struct WebState {
    /// Durable state.
    pub store: Arc<dyn Store>,
    /// Told of new commands and revoked hosts.
    pub notifier: Arc<dyn Notifier>,
    /// Where [`Notifier::publish`] sends to.
    pub events: broadcast::Sender<Event>,
    /// Root metadata in force. Its first address goes into join tokens.
    pub root: watch::Receiver<Arc<TrustedRoot>>,
    /// SHA-256 of the SubjectPublicKeyInfo of the TLS key that the agents' listener uses now.
    pub tls_spki_sha256: PinInUse,
    /// Version of the control plane.
    pub version: &'static str,
    /// Host names (no port) under which people reach this listener, beside `localhost` and loopback
    /// addresses. Requests for any other name are refused (DNS rebinding).
    pub host_names: Vec<String>,
    /// Who encrypts connections; without it they are plain HTTP. Names in its certificate are names of
    /// this listener too.
    pub tls: Option<Arc<dyn Tls>>,
    /// The agent's programs for new machines.
    pub agent_programs: Arc<dyn AgentPrograms>,
    /// Streams of commands; the hosts' sessions put into it.
    pub streams: Arc<Streams>,
    /// The time.
    pub clock: fn() -> UnixMs,
    /// Who goes by root metadata beside this room.
    pub root_keeper: Arc<dyn RootKeeper>,
    /// Who holds the control plane's own keys.
    pub key_keeper: Arc<dyn KeyKeeper>,
    /// Figures that others keep.
    pub figures: Arc<dyn Figures>,
    /// Metrics that others have registered; this room's are added to it.
    pub registry: Registry,
}

/// Figures for `/metrics` and the audit log that are kept elsewhere in the process.
pub trait Figures: Send + Sync {
    /// Sessions with agents open now.
    fn sessions_open(&self) -> u64;
    /// Entries of the audit log.
    fn audit_size(&self) -> u64;
    /// What keeps this control plane from its work now, in words that tell strangers nothing.
    fn problems(&self) -> Vec<&'static str> {
        Vec::new()
    }
}

/// Whoever holds the keys that root metadata lists.
pub trait RootKeeper: Send + Sync {
    /// What this control plane could not do any more under that version, and what to do first; nothing
    /// when it can go on.
    fn hindered_by<'a>(&'a self, next: &'a RootMetadata) -> Later<'a, Option<String>>;
    /// It is stored: from now on everything is judged by it.
    fn in_force(&self, root: Arc<TrustedRoot>) -> Later<'_, ()>;
    /// The recovery after a restore stands like this by now.
    fn recovered(&self, recovery: Recovery);
}

/// The hash of the TLS key's SubjectPublicKeyInfo, as it is when asked.
pub type PinInUse = Box<dyn Fn() -> Sha256 + Send + Sync>;

/// Whoever holds the control plane's own keys. Private halves never come this way.
pub trait KeyKeeper: Send + Sync {
    /// One at a time changes keys or root metadata: waits for its turn, which lasts as long as the answer lives.
    fn turn(&self) -> Later<'_, OwnedMutexGuard<()>>;
    /// Every key that is held; of command keys, the signer says so. The error is in words.
    fn held(&self) -> Later<'_, Result<Vec<HeldOnlineKey>, String>>;
    /// Makes the fresh key of a change, durably, and says which keys the change is about. `stolen` is a command key that
    /// is to be shut out. The error is in words.
    fn prepare(&self, role: OnlineRole, stolen: Option<OnlineKey>) -> Later<'_, Result<StagedKeys, String>>;
    /// Has the signer sign a standing order. The signer is asked by nobody else on behalf of people.
    fn sign_standing(&self, order: StandingOrder) -> Later<'_, Result<Vec<u8>, SignError>>;
    /// A change was begun, moved or given up: see what can be done.
    fn look(&self);
}

/// What every handler shares.
pub(crate) struct Shared {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) notifier: Arc<dyn Notifier>,
    pub(crate) streams: Arc<Streams>,
    pub(crate) events: broadcast::Sender<Event>,
    root: watch::Receiver<Arc<TrustedRoot>>,
    pub(crate) tls_spki_sha256: PinInUse,
    pub(crate) version: &'static str,
    pub(crate) host_names: Vec<String>,
    pub(crate) tls: Option<Arc<dyn Tls>>,
    pub(crate) agent_programs: Arc<dyn AgentPrograms>,
    pub(crate) download_rate: DownloadRate,
    pub(crate) downloads: Arc<Semaphore>,
    pub(crate) download_places: PeerPlaces,
    /// Whoever reads a request's Compose files.
    pub(crate) bundle_readers: Arc<Semaphore>,
    clock: fn() -> UnixMs,
    pub(crate) root_keeper: Arc<dyn RootKeeper>,
    pub(crate) key_keeper: Arc<dyn KeyKeeper>,
    pub(crate) figures: Arc<dyn Figures>,
    pub(crate) metrics: Metrics,
    pub(crate) request_ids: fresh::RequestIds,
    /// Sign-ins, by name and address.
    pub(crate) sign_in_rate: Rate,
    /// Requests, by account, token and address.
    pub(crate) request_rate: Rate,
    pub(crate) tokens_used: TokensUsed,
    pub(crate) refusals: Refusals,
    pub(crate) password_checks: Arc<Semaphore>,
    pub(crate) event_streams: Arc<Semaphore>,
    pub(crate) event_streams_of: Mutex<HashMap<UserId, usize>>,
    /// Turns true when the program is asked to end.
    pub(crate) closing: watch::Receiver<bool>,
}

impl Shared {
    pub(crate) fn new(state: WebState, closing: watch::Receiver<bool>) -> Result<Arc<Self>, CredentialError> {
        Ok(Arc::new(Self {
            store: state.store,
            notifier: state.notifier,
            streams: state.streams,
            events: state.events,
            root: state.root,
            tls_spki_sha256: state.tls_spki_sha256,
            version: state.version,
            host_names: state.host_names.into_iter().map(|name| name.to_ascii_lowercase()).collect(),
            tls: state.tls,
            agent_programs: state.agent_programs,
            download_rate: DownloadRate::default(),
            downloads: Arc::new(Semaphore::new(limits::DOWNLOADS_MAX)),
            download_places: PeerPlaces::new(limits::DOWNLOADS_AT_ONCE_PER_PEER_MAX),
            bundle_readers: Arc::new(Semaphore::new(limits::BUNDLE_READERS_MAX)),
            clock: state.clock,
            root_keeper: state.root_keeper,
            key_keeper: state.key_keeper,
            figures: state.figures,
            metrics: Metrics::new(state.registry),
            request_ids: fresh::RequestIds::new()?,
            sign_in_rate: Rate::default(),
            request_rate: Rate::default(),
            tokens_used: TokensUsed::default(),
            refusals: Refusals::default(),
            password_checks: Arc::new(Semaphore::new(limits::PASSWORD_CHECKS_MAX)),
            event_streams: Arc::new(Semaphore::new(limits::EVENT_STREAMS_MAX)),
            event_streams_of: Mutex::default(),
            closing,
        }))
    }

    pub(crate) fn now(&self) -> UnixMs {
        (self.clock)()
    }

    /// Whether people may call this server so: a name it was told, in lower case, or one that its
    /// certificate is valid for.
    pub(crate) fn is_called(&self, name: &str) -> bool {
        self.host_names.iter().any(|ours| ours == name) || self.tls.as_ref().is_some_and(|tls| tls.certifies(name))
    }

    pub(crate) fn root(&self) -> Arc<TrustedRoot> {
        self.root.borrow().clone()
    }
}

/// Resolves when the program is asked to end.
pub(crate) async fn asked_to_end(closing: &mut watch::Receiver<bool>) {
    // An error means that whoever would ask is gone: that is an end as well.
    let _ = closing.wait_for(|closing| *closing).await;
}
