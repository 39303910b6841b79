//! One host's stream: the handshake, then [`HostSession`] with its effects carried out.

use std::{pin::Pin, sync::Arc, time::Duration};

use envelope::{messages::LogPosition, root::TrustedRoot};
use fleet::{
    dispatch::{Effect, Established, HeadSeen, HostSession, Input, Note, RETIRED, Recovering, farewell},
    model::Host,
    ports::{Notifier as _, StoreError},
};
use ids::{Challenge, HostEpoch, HostId, UnixMs};
use session::{
    control::{Answer, Authenticated, Handshake, HandshakeError, HandshakeStep, Identity},
    frames::{AgentFrame, ControlFrame, RefusalCode},
};
use tokio::time::{Instant, Sleep, sleep_until, timeout};
use tracing::Instrument as _;

use crate::{
    agents::{Agents, Stream, StreamError},
    clock::Moment,
    hub::{News, Registration},
    limits, random, recovering, roots_taken,
};

/// An answer the machine waits for.
type Answering = Pin<Box<dyn Future<Output = Input> + Send>>;

/// Why a handshake came to nothing.
#[derive(Debug, thiserror::Error)]
enum Unauthenticated {
    #[error("{0}")]
    Handshake(#[from] HandshakeError),
    #[error("{0}")]
    Stream(#[from] StreamError),
    #[error("the host could not be looked up: {0}")]
    Store(#[from] StoreError),
}

/// Serves one stream to its end.
pub(crate) async fn run(agents: Arc<Agents>, mut stream: Stream) {
    let peer = stream.info.peer;
    let mut brought = Brought::default();
    let authenticated = timeout(limits::AUTHENTICATION_TIMEOUT, authenticate(&agents, &mut stream, &mut brought)).await;
    let Brought { host, chains } = brought;
    let has_proved = matches!(authenticated, Ok(Ok(_)));
    // Before the session, which the agent may end before it is stored: what opens it may be void by that metadata.
    // And without a session, for an agent that finds the session key dropped does not prove itself to it.
    if let (Some(host), Some(chain)) = (host, chains.first())
        && roots_taken::take_from(&agents, host, chain, has_proved).await
    {
        let message = "newer root metadata is in force; dial again".to_owned();
        let _ = stream.send(ControlFrame::Refused { reason: RefusalCode::Unavailable, message }).await;
        return;
    }
    match authenticated {
        Ok(Ok(established)) => {
            let host = established.authenticated.host;
            if let Some((reason, message)) = recovering::known_by_credentials(&agents, &established).await {
                tracing::warn!(%host, %peer, message, "a host showed by its receipt who it is");
                let _ = stream.send(ControlFrame::Refused { reason, message }).await;
                return;
            }
            if let Some(message) = recovering::turned_away(&agents, &established).await {
                tracing::info!(%host, %peer, message, "a host was heard and sent away");
                let _ = stream.send(ControlFrame::Refused { reason: RefusalCode::Unavailable, message }).await;
                return;
            }
            if let Some(frames) = retired(&agents, &established).await {
                tracing::info!(%host, %peer, "a host that has left the fleet was told so");
                for frame in frames {
                    let _ = stream.send(frame).await;
                }
                return;
            }
            let span = tracing::info_span!("session", %host, %peer);
            let _proved = stream.info.proved.session();
            serve(agents, stream, established, chains).instrument(span).await;
        }
        Ok(Err(error)) => {
            agents.stranger_refused();
            match &error {
                // Of a host that is known here: whoever looks for it must find why it does not come.
                Unauthenticated::Handshake(HandshakeError::Protocol { .. }) => {
                    tracing::warn!(%peer, %error, "a session was refused");
                }
                _ => tracing::debug!(%peer, %error, "a session was refused"),
            }
            if let Unauthenticated::Handshake(error) = error {
                let _ = stream.send(error.frame()).await;
            }
        }
        Err(_) => {
            agents.stranger_refused();
            tracing::debug!(%peer, "a handshake took too long");
        }
    }
}

/// What a host is told that has left the fleet and did not hear that its last report is stored.
async fn retired(agents: &Agents, established: &Established) -> Option<Vec<ControlFrame>> {
    let host = agents.store.host(established.authenticated.host).await.ok()??;
    let open = farewell(established, &host)?;
    let refused = |reason, message| ControlFrame::Refused { reason, message };
    match agents.signer.sign_open(open).await {
        Ok(open) => Some(vec![ControlFrame::Open(open), refused(RefusalCode::HostRefused, RETIRED.to_owned())]),
        Err(error) => {
            let message = format!("its last report could not be acknowledged: {error}; dial again");
            Some(vec![refused(RefusalCode::Unavailable, message)])
        }
    }
}

/// What a handshake leaves, however it ends.
#[derive(Default)]
struct Brought {
    /// Who it says it is.
    host: Option<HostId>,
    /// Root metadata: one frame of it at most. What is not taken goes to the session, for which it is an alarm.
    chains: Vec<Vec<Vec<u8>>>,
}

async fn authenticate(
    agents: &Agents,
    stream: &mut Stream,
    brought: &mut Brought,
) -> Result<Established, Unauthenticated> {
    let root = agents.root();
    let mut handshake = Handshake::new(agents.fleet, stream.info.exporter);
    let mut former = Vec::new();
    loop {
        match handshake.receive(stream.receive().await?)? {
            HandshakeStep::LookUp(hello) => {
                brought.host = Some(hello.host);
                let host = agents.store.host(hello.host).await?;
                let wanted = recovering::credentials_wanted(agents, &hello, host.as_ref());
                if host.as_ref().is_some_and(|host| host.host_epoch > HostEpoch(1)) {
                    former = agents.store.host_former_keys(hello.host).await?;
                }
                let allowed = host.filter(Host::may_prove_itself);
                let known = allowed.map(|host| host.identity_key_of(hello.host_epoch, &former));
                let answer = Answer {
                    identity: wanted.unwrap_or_else(|| Identity::from(known)),
                    root: &root,
                    session_key: &agents.keys.session(),
                    nonce: Challenge(random::bytes()),
                    time: agents.now(),
                };
                for frame in handshake.answer(&answer)? {
                    stream.send(frame).await?;
                }
            }
            HandshakeStep::RootChain(chain) => brought.chains.push(chain),
            HandshakeStep::Ask(frame) => stream.send(frame).await?,
            HandshakeStep::Wait => {}
            HandshakeStep::Authenticated(authenticated) => {
                let authenticated: Authenticated = *authenticated;
                let head = head_seen(agents, &root, authenticated.hello.audit_head).await?;
                return Ok(Established { authenticated, root, head, former, recovery: Recovering::default() });
            }
        }
    }
}

/// Whether what the host has seen of the audit log is a beginning of it.
async fn head_seen(agents: &Agents, root: &TrustedRoot, held: Option<LogPosition>) -> Result<HeadSeen, StoreError> {
    let (log, before) = (root.current().audit_log, root.current().restored_log);
    let signed = match held.filter(|held| held.log == log) {
        Some(held) => agents.store.audit_head_at(held.size).await?,
        None => None,
    };
    Ok(HeadSeen::judge(held, log, before, signed))
}

async fn serve(agents: Arc<Agents>, stream: Stream, mut established: Established, chains: Vec<Vec<Vec<u8>>>) {
    let host = established.authenticated.host;
    let registration = agents.hub.register(host, established.root.version(), agents.now());
    // After the registration: what changes from now on, this session is told.
    match recovering::of(&agents, &established).await {
        Ok(recovery) => established.recovery = recovery,
        Err(error) => return tracing::warn!(%error, "a host could not be looked up"),
    }
    let (machine, effects) = HostSession::new(established, agents.now());
    let (begun, wake) = (Moment::now(), Box::pin(sleep_until(far_future())));
    let mut driver = Driver { agents, stream, machine, begun, registration, store: None, sign: None, wake };
    let ended = driver.run(effects, chains).await;
    match ended {
        Ok(()) => tracing::info!("session closed"),
        Err(error) => tracing::info!(%error, "session ended"),
    }
    let left = driver.machine.left(driver.agents.now());
    if let Err(error) = driver.agents.store.write(left).await {
        tracing::warn!(%error, "when the host was last seen could not be stored");
    }
}

fn far_future() -> Instant {
    Instant::now() + Duration::from_secs(24 * 3600)
}

/// Carries out what the machine asks for.
struct Driver {
    agents: Arc<Agents>,
    stream: Stream,
    machine: HostSession,
    /// When it began: the host is told the time after this.
    begun: Moment,
    /// The one read or write under way.
    store: Option<Answering>,
    /// The one signature under way.
    sign: Option<Answering>,
    registration: Registration,
    wake: Pin<Box<Sleep>>,
}

impl Driver {
    async fn run(&mut self, effects: Vec<Effect>, chains: Vec<Vec<Vec<u8>>>) -> Result<(), StreamError> {
        self.perform(effects).await?;
        for chain in chains {
            self.step(Input::Received(AgentFrame::RootChain(chain))).await?;
        }
        while !self.machine.is_closed() {
            let reading = self.machine.is_reading();
            let input = tokio::select! {
                frame = self.stream.receive(), if reading => Input::Received(frame?),
                input = answer(&mut self.store) => input,
                input = answer(&mut self.sign) => input,
                news = self.registration.mailbox.take() => {
                    self.hear(news).await?;
                    continue;
                }
                () = self.wake.as_mut() => {
                    self.wake.as_mut().reset(far_future());
                    Input::Tick
                }
            };
            self.step(input).await?;
        }
        Ok(())
    }

    /// News in the order of how much they end.
    async fn hear(&mut self, news: News) -> Result<(), StreamError> {
        let News { queue_changed, revoked, superseded, root_changed, shutting_down, leases } = news;
        let told = [
            (revoked, Input::Revoked),
            (superseded, Input::Superseded),
            (shutting_down, Input::ShuttingDown),
            (root_changed, Input::RootChanged),
            (queue_changed, Input::QueueChanged),
        ];
        for (_, input) in told.into_iter().filter(|(is_new, _)| *is_new) {
            self.step(input).await?;
        }
        for lease in leases.into_values() {
            self.step(Input::StreamLease(lease)).await?;
        }
        Ok(())
    }

    async fn step(&mut self, input: Input) -> Result<(), StreamError> {
        let now = Moment::now();
        // What came will come again in the next session.
        let input = self.begun.set_by(&now).map_or(input, Input::ClockSet);
        // Before the input, so that what is sent for it takes the head along.
        if let Some(head) = self.registration.newer_audit_head() {
            let effects = self.machine.handle(Input::AuditHead(head), now.wall, &mut random::fill);
            self.perform(effects).await?;
        }
        let effects = self.machine.handle(input, now.wall, &mut random::fill);
        self.perform(effects).await
    }

    async fn perform(&mut self, effects: Vec<Effect>) -> Result<(), StreamError> {
        for effect in effects {
            match effect {
                Effect::Send(frame) => self.stream.send(frame).await?,
                Effect::SendKeyReceipt(receipt) => {
                    let envelope = self.agents.keys.session().sign(&receipt).into_envelope();
                    self.stream.send(ControlFrame::KeyReceipt(envelope)).await?;
                }
                Effect::SendAuditProof { head, from_size } => {
                    let hashes = self.agents.store.audit_consistency(from_size, head.position.size).await;
                    let hashes = hashes.map_err(StreamError::Proof)?.to_vec();
                    let head = head.envelope.to_vec();
                    self.stream.send(ControlFrame::AuditConsistency { head, from_size, hashes }).await?;
                }
                Effect::Close { code, message } => {
                    tracing::info!(?code, message, "closing the session");
                    self.stream.send(ControlFrame::Refused { reason: code, message }).await?;
                }
                Effect::Publish(event) => self.agents.hub.publish(event),
                Effect::Output(piece) => self.agents.hub.streams().put(piece),
                Effect::Note(note) => log(&note),
                Effect::RootAdvanced(root) => self.agents.root_advance(root),
                Effect::WakeAt(at) => self.wake.as_mut().reset(Instant::now() + until(at, self.agents.now())),
                Effect::SignOpen(_) | Effect::SignCommand { .. } | Effect::SignReset(_) => {
                    self.sign = Some(signing(&self.agents, effect))
                }
                Effect::Load(_) | Effect::LoadCommand(_) | Effect::LoadOperation(_) | Effect::Write(..) => {
                    self.store = Some(storing(&self.agents, effect));
                }
            }
        }
        Ok(())
    }
}

/// Resolves when the answer is in; never when none is awaited.
async fn answer(slot: &mut Option<Answering>) -> Input {
    match slot {
        Some(answering) => {
            let input = answering.await;
            *slot = None;
            input
        }
        None => std::future::pending().await,
    }
}

fn until(at: UnixMs, now: UnixMs) -> Duration {
    Duration::from_millis(at.since(now).0).min(Duration::from_secs(24 * 3600))
}

fn signing(agents: &Arc<Agents>, effect: Effect) -> Answering {
    let signer = agents.signer.clone();
    Box::pin(async move {
        match effect {
            Effect::SignOpen(open) => Input::OpenSigned(signer.sign_open(open).await),
            Effect::SignCommand { command, approvals } => {
                Input::CommandSigned(signer.sign_command(*command, approvals).await)
            }
            Effect::SignReset(reset) => Input::ResetSigned(signer.sign_reset(*reset).await),
            _ => Input::Tick,
        }
    })
}

fn storing(agents: &Arc<Agents>, effect: Effect) -> Answering {
    let agents = agents.clone();
    Box::pin(async move {
        match effect {
            Effect::Load(host) => Input::Loaded(agents.store.host_open(host).await),
            Effect::LoadCommand(command) => Input::CommandLoaded(agents.store.command(command).await),
            Effect::LoadOperation(operation) => Input::OperationLoaded(agents.store.operation(operation).await),
            Effect::Write(id, write) => Input::Written(id, agents.store.write(*write).await),
            _ => Input::Tick,
        }
    })
}

fn log(note: &Note) {
    match note {
        Note::Open => tracing::info!("session open"),
        Note::Quarantined(_) | Note::Alarm(_) => tracing::error!("{note}"),
        Note::StoreFailed { .. } | Note::SignFailed { .. } | Note::AgentRelease(_) => tracing::warn!("{note}"),
        Note::Dropped(_)
        | Note::Report(_)
        | Note::KeysRotated(_)
        | Note::ResetSent
        | Note::Released
        | Note::Retired => {
            tracing::info!("{note}")
        }
    }
}
