//! The thread that signs: takes what waits, judges it, makes it durable, and only then signs.

use std::{
    collections::HashMap,
    mem,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use envelope::{
    SigningKey,
    keys::role,
    messages::{Command, GuardReset, PublicKeyBytes, SessionOpen, StandingOrder},
    signer_port::{SignError, SignedCommand, SignerKeys, payload_bytes},
};
use ids::{HostId, KeyId, RootVersion, Sequence, UnixMs, sha256};
use keyfile::KeyKind;
use tokio::sync::{mpsc, oneshot};

use crate::{
    judge::{Judge, Raised},
    limits,
    log::{Line, Log},
    place::{self, Place, PlaceError},
    signer::{Clock, open_revisions},
    state_file::{Record, StateError, StateFile},
    trust::{KeyRecord, Trust},
};

pub(crate) type Answer<T> = oneshot::Sender<Result<T, SignError>>;

pub(crate) enum Request {
    Command { command: Box<Command>, approvals: Vec<Vec<u8>>, answer: Answer<SignedCommand> },
    Open { open: Box<SessionOpen>, answer: Answer<Vec<u8>> },
    Reset { reset: Box<GuardReset>, answer: Answer<Vec<u8>> },
    Standing { order: Box<StandingOrder>, answer: Answer<Vec<u8>> },
    AdvanceRoot { chain: Vec<Vec<u8>>, answer: Answer<RootVersion> },
    Keys { answer: Answer<SignerKeys> },
    PrepareKey { answer: Answer<PublicKeyBytes> },
    ActivateKey { key: KeyId, answer: Answer<()> },
    DropKey { key: KeyId, answer: Answer<()> },
    Mend,
}

/// What a decided request gets once the decision stands on disk.
enum Reply {
    Command(Box<Command>, KeyId, Answer<SignedCommand>),
    Open(Box<SessionOpen>, KeyId, Answer<Vec<u8>>),
    Reset(Box<GuardReset>, KeyId, Answer<Vec<u8>>),
    Standing(Box<StandingOrder>, KeyId, Answer<Vec<u8>>),
    NoCommand(SignError, Answer<SignedCommand>),
    NoEnvelope(SignError, Answer<Vec<u8>>),
}

/// What one write to disk covers.
#[derive(Default)]
struct Decided {
    raised: Raised,
    /// Revisions of standing orders.
    revised: Raised,
    lines: Vec<Line>,
    replies: Vec<Reply>,
}

/// What the thread owns.
pub(crate) struct Signing {
    pub(crate) place: Place,
    pub(crate) trust: Trust,
    pub(crate) keys: HashMap<KeyId, SigningKey<role::Command>>,
    /// None before there is a fleet.
    pub(crate) state: Option<StateFile>,
    /// Highest revisions of standing orders; likewise.
    pub(crate) revisions: Option<StateFile>,
    pub(crate) judge: Judge,
    pub(crate) log: Log,
    pub(crate) clock: Clock,
    pub(crate) impaired: Arc<AtomicBool>,
}

fn unavailable(error: &(dyn core::error::Error + 'static)) -> SignError {
    tracing::error!(error, "the signer's directory cannot be written");
    SignError::Unavailable(error.to_string())
}

impl Line {
    fn unless(mut self, error: &SignError) -> Self {
        self.decision = if matches!(error, SignError::Refused(_)) { "refused" } else { "not_now" };
        self.why = Some(error.to_string());
        self
    }
}

impl Signing {
    pub(crate) fn run(mut self, mut requests: mpsc::Receiver<Request>) {
        let mut batch = Vec::with_capacity(limits::QUEUE_MAX);
        while requests.blocking_recv_many(&mut batch, limits::QUEUE_MAX) > 0 {
            let now = (self.clock)();
            let mut decided = Decided::default();
            for request in batch.drain(..) {
                match request {
                    Request::Command { command, approvals, answer } => {
                        self.command(command, &approvals, answer, now, &mut decided);
                    }
                    Request::Open { open, answer } => self.open(open, answer, now, &mut decided),
                    Request::Reset { reset, answer } => self.reset(reset, answer, now, &mut decided),
                    Request::Standing { order, answer } => self.standing(order, answer, now, &mut decided),
                    // What came before it is settled under what was in force before it.
                    other => {
                        self.settle(mem::take(&mut decided));
                        self.manage(other, now);
                    }
                }
            }
            self.settle(decided);
        }
    }

    fn command(
        &mut self,
        command: Box<Command>,
        approvals: &[Vec<u8>],
        answer: Answer<SignedCommand>,
        now: UnixMs,
        decided: &mut Decided,
    ) {
        let order = &command.order;
        let host = order.host;
        let mut line = Line {
            host: Some(host),
            command: Some(order.command),
            operation: Some(order.operation),
            action: Some(format!("{}@{}", order.action, order.action_version)),
            sequence: Some(command.sequence),
            ..Line::new("command", now)
        };
        let high = self.high(host, decided);
        let judge = &mut self.judge;
        let judged = self
            .trust
            .signing()
            .and_then(|(key, root)| judge.command(&command, approvals, high, now, root).map(|()| key));
        match judged {
            Ok(key) => {
                decided.raised.insert(host, command.sequence);
                (line.payload_sha256, line.key_id) = (Some(sha256(&payload_bytes(&*command))), Some(key));
                decided.lines.push(line);
                decided.replies.push(Reply::Command(command, key, answer));
            }
            Err(error) => {
                decided.lines.push(line.unless(&error));
                decided.replies.push(Reply::NoCommand(error, answer));
            }
        }
    }

    fn open(&mut self, mut open: Box<SessionOpen>, answer: Answer<Vec<u8>>, now: UnixMs, decided: &mut Decided) {
        open.time = now;
        let mut line = Line { host: Some(open.host), ..Line::new("session_open", now) };
        let judge = &mut self.judge;
        match self.trust.signing().and_then(|(key, root)| judge.open(&open, now, root).map(|()| key)) {
            Ok(key) => {
                (line.payload_sha256, line.key_id) = (Some(sha256(&payload_bytes(&*open))), Some(key));
                decided.lines.push(line);
                decided.replies.push(Reply::Open(open, key, answer));
            }
            Err(error) => {
                decided.lines.push(line.unless(&error));
                decided.replies.push(Reply::NoEnvelope(error, answer));
            }
        }
    }

    fn reset(&mut self, mut reset: Box<GuardReset>, answer: Answer<Vec<u8>>, now: UnixMs, decided: &mut Decided) {
        reset.time = now;
        let host = reset.host;
        let mut line = Line { host: Some(host), sequence: Some(reset.high), ..Line::new("guard_reset", now) };
        let high = self.high(host, decided);
        let judge = &mut self.judge;
        match self.trust.signing().and_then(|(key, root)| judge.reset(&reset, high, now, root).map(|()| key)) {
            Ok(key) => {
                decided.raised.insert(host, reset.high);
                (line.payload_sha256, line.key_id) = (Some(sha256(&payload_bytes(&*reset))), Some(key));
                decided.lines.push(line);
                decided.replies.push(Reply::Reset(reset, key, answer));
            }
            Err(error) => {
                decided.lines.push(line.unless(&error));
                decided.replies.push(Reply::NoEnvelope(error, answer));
            }
        }
    }

    fn standing(&mut self, mut order: Box<StandingOrder>, answer: Answer<Vec<u8>>, now: UnixMs, decided: &mut Decided) {
        order.issued = now;
        let standing = &order.standing;
        let host = standing.host;
        let mut line = Line {
            host: Some(host),
            operation: Some(standing.operation),
            action: Some(format!("{}@{}", standing.action, standing.action_version)),
            sequence: Some(Sequence(order.revision.0)),
            ..Line::new("standing_order", now)
        };
        let before = self.revisions.as_ref().map(|revisions| revisions.high(host));
        let highest = decided.revised.get(&host).copied().or(before).unwrap_or_default();
        let judge = &mut self.judge;
        match self.trust.signing().and_then(|(key, root)| judge.standing(&order, highest, now, root).map(|()| key)) {
            Ok(key) => {
                decided.revised.insert(host, Sequence(order.revision.0));
                (line.payload_sha256, line.key_id) = (Some(sha256(&payload_bytes(&*order))), Some(key));
                decided.lines.push(line);
                decided.replies.push(Reply::Standing(order, key, answer));
            }
            Err(error) => {
                decided.lines.push(line.unless(&error));
                decided.replies.push(Reply::NoEnvelope(error, answer));
            }
        }
    }

    /// Highest sequence given to this host, in this batch or before it.
    fn high(&self, host: HostId, decided: &Decided) -> Sequence {
        let before = self.state.as_ref().map(|state| state.high(host));
        decided.raised.get(&host).copied().or(before).unwrap_or_default()
    }

    /// Whoever asked may have gone: an answer nobody takes is no loss, the sequence is burned.
    fn settle(&mut self, decided: Decided) {
        if decided.replies.is_empty() {
            return;
        }
        // The order matters: nothing is signed whose sequence could be given again after a crash.
        let durable = self.record(&decided);
        for reply in decided.replies {
            match reply {
                Reply::Command(command, key, answer) => {
                    let signed = durable.clone().and_then(|()| self.key(key)).map(|key| {
                        let signed = key.sign(&*command);
                        let payload_sha256 = signed.payload_sha256();
                        SignedCommand { envelope: signed.into_envelope(), payload_sha256 }
                    });
                    let _ = answer.send(signed);
                }
                // It orders nothing and uses up nothing: hosts stay in touch while the disk takes nothing.
                Reply::Open(open, key, answer) => {
                    let _ = answer.send(self.key(key).map(|key| key.sign(&*open).into_envelope()));
                }
                Reply::Reset(reset, key, answer) => {
                    let key = durable.clone().and_then(|()| self.key(key));
                    let _ = answer.send(key.map(|key| key.sign(&*reset).into_envelope()));
                }
                Reply::Standing(order, key, answer) => {
                    let key = durable.clone().and_then(|()| self.key(key));
                    let _ = answer.send(key.map(|key| key.sign(&*order).into_envelope()));
                }
                Reply::NoCommand(error, answer) => {
                    let _ = answer.send(Err(error));
                }
                Reply::NoEnvelope(error, answer) => {
                    let _ = answer.send(Err(error));
                }
            }
        }
    }

    fn key(&self, id: KeyId) -> Result<&SigningKey<role::Command>, SignError> {
        self.keys.get(&id).ok_or_else(|| SignError::Unavailable(format!("it does not hold command key {id}")))
    }

    /// Sequences and log, durable when it returns; the two files at the same time, so that it takes as long as one.
    fn record(&mut self, decided: &Decided) -> Result<(), SignError> {
        let Self { state, revisions, log, .. } = self;
        let (raised, lines) = (&decided.raised, decided.lines.as_slice());
        // Rare, so it may wait for a disk of its own; an empty one is nothing to write.
        let revised = revisions.as_mut().map_or(Ok(()), |revisions| revisions.raise(&decided.revised));
        let (logged, recorded) = match state {
            Some(state) if !raised.is_empty() => thread::scope(|scope| {
                let logging = scope.spawn(|| log.write(lines, true));
                let recorded = state.raise(raised);
                let logged = logging.join().unwrap_or_else(|_| Err(std::io::Error::other("a panic")));
                (logged, recorded)
            }),
            _ => (log.write(lines, !decided.revised.is_empty()), Ok(())),
        };
        let logged = logged.map_err(|source| place::io_at("writing", &self.place.log())(source));
        let recorded = recorded.and(revised).map_err(PlaceError::State).and(logged);
        if let Err(error) = &recorded {
            let time = (self.clock)();
            let why = Some(format!("nothing of the lines just above was signed: {error}"));
            // Best effort: it is the disk that fails.
            let _ = self.log.write(&[Line { decision: "not_now", why, ..Line::new("write_failed", time) }], false);
        }
        self.is_impaired();
        recorded.map_err(|error| unavailable(&error))
    }

    fn is_impaired(&self) -> bool {
        let records = [&self.state, &self.revisions];
        let is = records.into_iter().flatten().any(StateFile::is_doubtful) || !self.log.is_open();
        self.impaired.store(is, Ordering::Relaxed);
        is
    }

    fn manage(&mut self, request: Request, now: UnixMs) {
        match request {
            Request::Keys { answer } => {
                let _ = answer.send(Ok(self.trust.shown(self.is_impaired())));
            }
            Request::AdvanceRoot { chain, answer } => {
                let _ = answer.send(self.advance(&chain, now));
            }
            Request::PrepareKey { answer } => {
                let _ = answer.send(self.prepare(now));
            }
            Request::ActivateKey { key, answer } => {
                let line = Line { key_id: Some(key), ..Line::new("key_activate", now) };
                let done = self.change(|trust| trust.activate(key));
                let _ = answer.send(self.noted(line, done));
            }
            Request::DropKey { key, answer } => {
                let line = Line { key_id: Some(key), ..Line::new("key_drop", now) };
                let done = self.drop_key(key);
                let _ = answer.send(self.noted(line, done));
            }
            Request::Mend => self.mend(),
            // Judged, not managed.
            Request::Command { .. } | Request::Open { .. } | Request::Reset { .. } | Request::Standing { .. } => {}
        }
    }

    /// Writes down what came of it. What was done is done, also when that cannot be written.
    fn noted<T>(&mut self, line: Line, done: Result<T, SignError>) -> Result<T, SignError> {
        let line = match &done {
            Ok(_) => line,
            Err(error) => line.unless(error),
        };
        if let Err(error) = self.log.write(&[line], true) {
            tracing::error!(%error, "the signer's log cannot be written");
        }
        self.is_impaired();
        done
    }

    /// Changes a copy, stores it, and only then takes it.
    fn change<T>(&mut self, change: impl FnOnce(&mut Trust) -> Result<T, SignError>) -> Result<T, SignError> {
        let mut next = self.trust.clone();
        let done = change(&mut next)?;
        if next != self.trust {
            next.store(&self.place.trust()).map_err(|error| unavailable(&error))?;
            self.trust = next;
        }
        Ok(done)
    }

    fn advance(&mut self, chain: &[Vec<u8>], now: UnixMs) -> Result<RootVersion, SignError> {
        let before = self.trust.root().map(|root| root.version());
        let advanced = self.advance_unnoted(chain);
        if advanced.as_ref().is_ok_and(|version| Some(*version) == before) {
            return advanced;
        }
        let root_version = advanced.as_ref().ok().copied();
        self.noted(Line { root_version, ..Line::new("root_advance", now) }, advanced)
    }

    fn advance_unnoted(&mut self, chain: &[Vec<u8>]) -> Result<RootVersion, SignError> {
        let mut next = self.trust.clone();
        next.advance(chain)?;
        if let (None, Some(fleet)) = (&self.state, next.fleet()) {
            let path = self.place.sequences();
            let made = match StateFile::create(Record::Sequences, &path, fleet) {
                // Of an earlier version, or of a beginning that was cut short.
                Err(StateError::Exists { .. }) | Ok(()) => StateFile::open(Record::Sequences, &path, fleet),
                Err(error) => Err(error),
            };
            self.revisions = Some(open_revisions(&self.place, fleet).map_err(|error| unavailable(&error))?);
            self.state = Some(made.map_err(|error| unavailable(&error))?);
        }
        self.change(|trust| {
            *trust = next;
            Ok(trust.root().map_or(RootVersion(0), |root| root.version()))
        })
    }

    fn prepare(&mut self, now: UnixMs) -> Result<PublicKeyBytes, SignError> {
        if let Some(key) = self.trust.prepared() {
            return Ok(key.public);
        }
        let made = self.make_key(now);
        let key_id = made.as_ref().ok().map(envelope::key_id);
        self.noted(Line { key_id, ..Line::new("key_prepare", now) }, made)
    }

    /// Named first and written then, whole: a name whose key never came is forgotten at the next start.
    fn make_key(&mut self, now: UnixMs) -> Result<PublicKeyBytes, SignError> {
        let seed = keyfile::random().map_err(|error| unavailable(&error))?;
        let key = SigningKey::from_seed(&seed);
        let record = KeyRecord::new(key.public(), now);
        self.change(|trust| trust.add(record))?;
        if let Err(error) = keyfile::write_seed(&self.place.key(record.id), KeyKind::Ed25519, &seed) {
            // Best effort, as above.
            let _ = self.change(|trust| trust.forget(record.id));
            return Err(unavailable(&error));
        }
        self.keys.insert(record.id, key);
        Ok(record.public)
    }

    /// The file goes first: a name without its key, or with zeros in its place, is forgotten at the next start.
    fn drop_key(&mut self, id: KeyId) -> Result<(), SignError> {
        self.trust.clone().forget(id)?;
        keyfile::destroy(&self.place.key(id)).map_err(|error| unavailable(&error))?;
        self.keys.remove(&id);
        self.change(|trust| trust.forget(id))
    }

    fn mend(&mut self) {
        let records = [&mut self.state, &mut self.revisions];
        let state = records.into_iter().flatten().try_for_each(StateFile::mend).map_err(PlaceError::State);
        let mended = state.and(self.log.mend().map_err(|source| place::io_at("opening", &self.place.log())(source)));
        if self.is_impaired() {
            tracing::debug!(error = ?mended.err(), "the signer's directory still cannot be written");
        } else {
            tracing::info!("the signer's directory can be written again");
        }
    }
}
