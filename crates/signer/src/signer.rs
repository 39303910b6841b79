//! The signer in this process: its queue, and how its directory is opened.

use std::{
    collections::HashMap,
    fs::File,
    io,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
};

use envelope::{
    SigningKey,
    keys::role,
    messages::{Command, GuardReset, PublicKeyBytes, SessionOpen, StandingOrder},
    signer_port::{Later, SignError, SignedCommand, Signer, SignerKeys},
};
use ids::{FleetId, KeyId, RootVersion, UnixMs};
use keyfile::KeyKind;
use tokio::sync::{mpsc, oneshot};

use crate::{
    bring_over::{bring_over, remove_originals},
    judge::{ClassOf, Judge},
    limits,
    log::Log,
    place::{Place, PlaceError},
    signing::{Answer, Request, Signing},
    state_file::{Record, StateError, StateFile},
    trust::{KeyRecord, Trust},
};

/// The signer's own clock: Unix milliseconds, from the system and not from whoever asks.
pub type Clock = Arc<dyn Fn() -> UnixMs + Send + Sync>;

/// What a signer needs.
pub struct SignerConfig {
    /// Its directory, made if it is not there.
    pub place: Place,
    /// Where a control plane of before kept command key and sequences, to be brought over if there are any.
    pub earlier: Option<PathBuf>,
    /// See [`ClassOf`].
    pub class_of: ClassOf,
    /// See [`Clock`].
    pub clock: Clock,
}

/// A signer in this process. Dropping it finishes what is queued and gives up the directory.
pub struct LocalSigner {
    /// `None` only while it is dropped.
    queue: Option<mpsc::Sender<Request>>,
    thread: Option<JoinHandle<()>>,
    /// What it writes could not be written when last tried.
    impaired: Arc<AtomicBool>,
    _lock: File,
}

impl LocalSigner {
    /// Opens the directory and starts signing. An empty one is a signer without a fleet: it makes a key when
    /// asked to, and signs once it was given root metadata that lists that key.
    ///
    /// # Errors
    /// When something is missing, damaged, another fleet's, or in use.
    pub fn open(config: SignerConfig) -> Result<Self, PlaceError> {
        let SignerConfig { place, earlier, class_of, clock } = config;
        let lock = place.take()?;
        let (trust, keys) = open_trust(&place, earlier.as_ref())?;
        let open = |fleet| StateFile::open(Record::Sequences, &place.sequences(), fleet);
        let state = trust.fleet().map(open).transpose()?;
        let revisions = trust.fleet().map(|fleet| open_revisions(&place, fleet)).transpose()?;
        let mut log = Log::new(place.log());
        if let Err(error) = log.mend() {
            tracing::error!(%error, "the signer's log cannot be written");
        }
        let (queue, requests) = mpsc::channel(limits::QUEUE_MAX);
        let impaired = Arc::new(AtomicBool::new(!log.is_open()));
        let directory = place.directory().to_owned();
        let judge = Judge::new(class_of);
        let signing = Signing { place, trust, keys, state, revisions, judge, log, clock, impaired: impaired.clone() };
        let thread = std::thread::Builder::new()
            .name("signer".to_owned())
            .spawn(move || signing.run(requests))
            .map_err(|source| PlaceError::Io { doing: "starting the thread for", path: directory, source })?;
        Ok(Self { queue: Some(queue), thread: Some(thread), impaired, _lock: lock })
    }

    /// Whether what it writes could not be written when last tried: no order is signed meanwhile.
    #[must_use]
    pub fn is_impaired(&self) -> bool {
        self.impaired.load(Ordering::Relaxed)
    }

    /// Has it try again to write, without waiting for an order to sign.
    pub fn mend(&self) {
        if let Some(queue) = &self.queue {
            // A full queue holds orders, which try the same.
            let _ = queue.try_send(Request::Mend);
        }
    }

    async fn ask<T>(&self, request: impl FnOnce(Answer<T>) -> Request) -> Result<T, SignError> {
        let (answer, wait) = oneshot::channel();
        let stopped = || SignError::Unavailable("it has stopped; start it again".to_owned());
        let queue = self.queue.as_ref().ok_or_else(stopped)?;
        queue.send(request(answer)).await.map_err(|_| stopped())?;
        wait.await.map_err(|_| stopped())?
    }
}

/// The record of revisions. A signer of before knew no standing orders, so it begins without one; hosts keep their own, which
/// is what decides.
pub(crate) fn open_revisions(place: &Place, fleet: FleetId) -> Result<StateFile, StateError> {
    let path = place.revisions();
    match StateFile::create(Record::Revisions, &path, fleet) {
        Err(StateError::Exists { .. }) | Ok(()) => StateFile::open(Record::Revisions, &path, fleet),
        Err(error) => Err(error),
    }
}

type Keys = HashMap<KeyId, SigningKey<role::Command>>;

/// What the directory says, and the keys in it.
fn open_trust(place: &Place, earlier: Option<&PathBuf>) -> Result<(Trust, Keys), PlaceError> {
    let incoming = place.incoming();
    let sources = [Some(&incoming), earlier];
    let mut trust = Trust::load(&place.trust())?;
    for from in sources.into_iter().flatten() {
        if trust.is_none() {
            trust = bring_over(place, from)?;
        }
        if let Some(trust) = &trust {
            remove_originals(place, from, trust)?;
        }
    }
    let mut trust = trust.unwrap_or_default();
    let mut keys = Keys::new();
    for key in trust.clone().keys() {
        if let Some(signing) = key_in(place, key, trust.is_needed(key))? {
            keys.insert(key.id, signing);
            continue;
        }
        // Made or dropped, and cut short: nobody was told of it, or it was to go.
        tracing::warn!(key = %key.id, "a command key that was never finished, or was to go, is forgotten");
        let path = place.key(key.id);
        keyfile::destroy(&keyfile::beside(&path))?;
        keyfile::destroy(&path)?;
        trust.forget(key.id).map_err(|error| PlaceError::Damaged { path: place.trust(), why: error.to_string() })?;
        trust.store(&place.trust())?;
    }
    Ok((trust, keys))
}

/// The key in its file. `None` when it is not there, or only a torn or zeroed file is, and it is not needed.
fn key_in(place: &Place, key: &KeyRecord, is_needed: bool) -> Result<Option<SigningKey<role::Command>>, PlaceError> {
    let path = place.key(key.id);
    if path.symlink_metadata().is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
        return if is_needed { Err(PlaceError::KeyMissing { path }) } else { Ok(None) };
    }
    let signing = match keyfile::read_seed(&path, KeyKind::Ed25519) {
        Err(error) if error.is_torn() && !is_needed => return Ok(None),
        read => SigningKey::from_seed(&*read?),
    };
    if signing.key_id() != key.id {
        return Err(PlaceError::Damaged { path, why: format!("it is not command key {}", key.id) });
    }
    Ok(Some(signing))
}

impl Signer for LocalSigner {
    fn sign_command(&self, command: Command, approvals: Vec<Vec<u8>>) -> Later<'_, Result<SignedCommand, SignError>> {
        Box::pin(self.ask(|answer| Request::Command { command: Box::new(command), approvals, answer }))
    }

    fn sign_open(&self, open: SessionOpen) -> Later<'_, Result<Vec<u8>, SignError>> {
        Box::pin(self.ask(|answer| Request::Open { open: Box::new(open), answer }))
    }

    fn sign_reset(&self, reset: GuardReset) -> Later<'_, Result<Vec<u8>, SignError>> {
        Box::pin(self.ask(|answer| Request::Reset { reset: Box::new(reset), answer }))
    }

    fn sign_standing(&self, order: StandingOrder) -> Later<'_, Result<Vec<u8>, SignError>> {
        Box::pin(self.ask(|answer| Request::Standing { order: Box::new(order), answer }))
    }

    fn advance_root(&self, chain: Vec<Vec<u8>>) -> Later<'_, Result<RootVersion, SignError>> {
        Box::pin(self.ask(|answer| Request::AdvanceRoot { chain, answer }))
    }

    fn keys(&self) -> Later<'_, Result<SignerKeys, SignError>> {
        Box::pin(self.ask(|answer| Request::Keys { answer }))
    }

    fn prepare_key(&self) -> Later<'_, Result<PublicKeyBytes, SignError>> {
        Box::pin(self.ask(|answer| Request::PrepareKey { answer }))
    }

    fn activate_key(&self, key: KeyId) -> Later<'_, Result<(), SignError>> {
        Box::pin(self.ask(move |answer| Request::ActivateKey { key, answer }))
    }

    fn drop_key(&self, key: KeyId) -> Later<'_, Result<(), SignError>> {
        Box::pin(self.ask(move |answer| Request::DropKey { key, answer }))
    }
}

impl Drop for LocalSigner {
    fn drop(&mut self) {
        self.queue = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the signer's thread ended by a panic");
        }
    }
}
