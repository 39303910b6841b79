//! One agent of the load: the real machines of `session` over the real `link`, without Docker.
//!
//! Its one action is `host.facts`, whose result is a constant of the usual size: what is measured is
//! the way of an order, and no engine is on it.

use std::{
    collections::VecDeque,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use actions::{Lock, Request};
use envelope::{
    keys::{SigningKey, role},
    messages::{Order, ReportStatus, SealingKeyBytes},
    root::TrustedRoot,
    seal::SealingSecretKey,
    token::JoinToken,
};
use ids::{BootId, BootMs, Challenge, QuarantineId, UnixMs, sha256};
use keyfile::random;
use link::{Backoff, Connection, Purpose, Target, dial};
use session::{
    agent::{
        AgentIdentity, AgentLoop, EnrolEffect, EnrolInput, EnrolLoop, Enrolled,
        io::{
            Admission, Admitted, AdmittedKind, AgentEvent, Clocks, Effect, End, Input, JournalState, Rejection, WriteId,
        },
    },
    frames::ActionRef,
};
use tokio::{
    sync::{mpsc, watch},
    time::sleep,
};

use crate::{Fault, journal::Journal};

/// Since when this process counts. Any clock that only rises can be the boot-time clock here.
static BEGAN: LazyLock<Instant> = LazyLock::new(Instant::now);
/// Longest sleep of an agent's loop.
const SLEEP_MAX: Duration = Duration::from_secs(60);

/// What all agents share.
pub(crate) struct World {
    pub(crate) journal: Journal,
    boot: BootId,
    actions: Vec<ActionRef>,
    /// Sessions open now.
    pub(crate) open: watch::Sender<usize>,
    /// Reports acknowledged since the beginning, but those of agent 0, which gets the single commands. Each is
    /// verified and durable at the control plane.
    pub(crate) acknowledged: watch::Sender<usize>,
    /// Versions of root metadata taken since the beginning, by all agents.
    pub(crate) roots_taken: watch::Sender<usize>,
    /// Orders refused, messages dropped, quarantines: none is expected.
    pub(crate) troubles: AtomicUsize,
}

impl World {
    pub(crate) fn new(journal: Journal) -> Result<Arc<Self>, Fault> {
        let reference = |info: &actions::ActionInfo| {
            let name = info.name.parse().expect("invariant: the registry's names obey the rule for action names");
            ActionRef { name, version: info.version, schema_sha256: info.schema_sha256() }
        };
        Ok(Arc::new(Self {
            journal,
            boot: BootId::from_bytes(*random::<16>()?),
            actions: actions::actions().iter().map(reference).collect(),
            open: watch::Sender::new(0),
            acknowledged: watch::Sender::new(0),
            roots_taken: watch::Sender::new(0),
            troubles: AtomicUsize::new(0),
        }))
    }
}

fn milliseconds(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// This machine's time, in Unix milliseconds.
pub(crate) fn wall_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, milliseconds)
}

fn now() -> Clocks {
    // Past zero, as after a real boot.
    let boot = BootMs(milliseconds(BEGAN.elapsed()) + 60_000);
    Clocks { boot, wall: UnixMs(wall_ms()) }
}

/// A machine that has become a host, and its keys.
pub(crate) struct Member {
    number: usize,
    identity: [u8; 32],
    enrolled: Enrolled,
}

impl Member {
    /// Enrols with a real join token, by the real protocol.
    pub(crate) async fn enrol(world: &World, number: usize, token: &JoinToken) -> Result<Self, Fault> {
        let identity = *random::<32>()?;
        let sealing: SealingKeyBytes = SealingSecretKey::from_bytes(&*random::<32>()?).public();
        let mut machine = EnrolLoop::new(token, SigningKey::from_seed(&identity), sealing);
        let target = Target { address: token.address.clone(), pins: vec![token.spki_sha256] };
        let Connection { exporter, sender, mut receiver } = dial(&target, Purpose::Enrol).await?;
        let (done, mut durable) = mpsc::unbounded_channel();
        let mut input = EnrolInput::Connected { exporter, nonce: Challenge(*random::<32>()?) };
        loop {
            for effect in machine.handle(now().boot, input) {
                match effect {
                    EnrolEffect::Send(frame) => sender.send(frame).await?,
                    EnrolEffect::PersistPending(pending) => world.journal.pending(number, &pending, &done),
                    EnrolEffect::Enrolled(enrolled) => return Ok(Self { number, identity, enrolled }),
                    EnrolEffect::Failed(error) => return Err(error.into()),
                    // A connection that says nothing ends by its own limits.
                    EnrolEffect::WakeAt(_) => {}
                }
            }
            input = tokio::select! {
                Some(_) = durable.recv() => EnrolInput::Persisted,
                frame = receiver.receive() => EnrolInput::Received(frame?),
            };
        }
    }

    /// Is a host until the program ends.
    pub(crate) async fn run(self, world: Arc<World>) -> Result<(), Fault> {
        let Enrolled { receipt, root_chain, root_sha256 } = self.enrolled;
        let mut root = TrustedRoot::pin(&root_chain[0], root_sha256)?;
        for envelope in &root_chain[1..] {
            root.advance(envelope)?;
        }
        let address = root.current().addresses.first().cloned().unwrap_or_default();
        let target = Target { address, pins: root.current().tls_pins.clone() };
        let identity = AgentIdentity {
            fleet: receipt.fleet,
            host: receipt.host,
            host_epoch: receipt.host_epoch,
            identity: SigningKey::<role::Agent>::from_seed(&self.identity),
            keys_since: receipt.time,
            boot: world.boot,
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            actions: world.actions.clone(),
            root_sha256,
            next: None,
        };
        let state = JournalState { root_chain, ..JournalState::default() };
        let (machine, _) = AgentLoop::new(identity, state, false, now(), &Registered)?;
        let (done, durable) = mpsc::unbounded_channel();
        let mut running = Running {
            number: self.number,
            world,
            machine,
            done,
            durable,
            wake: None,
            is_open: false,
            has_opened: false,
        };
        let mut backoff = Backoff::default();
        loop {
            if let Ok(connection) = dial(&target, Purpose::Session).await {
                let began = now().boot;
                running.session(connection).await?;
                if core::mem::take(&mut running.has_opened) {
                    backoff.session_opened();
                }
                backoff.session_ended(now().boot.since(began));
            }
            let wait = backoff.next_wait(u64::from_le_bytes(*random::<8>()?));
            sleep(Duration::from_millis(wait.0)).await;
        }
    }
}

/// The agent's shell, as small as it can be.
struct Running {
    number: usize,
    world: Arc<World>,
    machine: AgentLoop,
    done: mpsc::UnboundedSender<WriteId>,
    durable: mpsc::UnboundedReceiver<WriteId>,
    wake: Option<BootMs>,
    is_open: bool,
    /// One was, since last asked.
    has_opened: bool,
}

impl Running {
    /// One connection, to its end. Writes that are under way then are waited for in the next one.
    async fn session(&mut self, connection: Connection) -> Result<(), Fault> {
        let Connection { exporter, sender, mut receiver } = connection;
        let quarantine = QuarantineId::from_bytes(*random::<16>()?);
        let mut input = Input::Connected { exporter, nonce: Challenge(*random::<32>()?), quarantine };
        loop {
            let (frames, stays) = self.feed(input);
            for frame in frames {
                if sender.send(frame).await.is_err() {
                    break;
                }
            }
            if !stays {
                break;
            }
            let wait = self.wake.map_or(SLEEP_MAX, |at| Duration::from_millis(at.since(now().boot).0).min(SLEEP_MAX));
            let may_read = self.machine.may_read();
            input = tokio::select! {
                biased;
                Some(id) = self.durable.recv() => Input::Persisted(id),
                frame = receiver.receive(), if may_read => match frame {
                    Ok(frame) => Input::Received(frame),
                    Err(_) => break,
                },
                () = sleep(wait) => { self.wake = None; Input::Tick }
            };
        }
        drop(sender);
        self.feed(Input::Disconnected);
        self.opened(false);
        Ok(())
    }

    /// Hands an input to the machine and does what it answers; what is to be sent, and whether to stay.
    fn feed(&mut self, input: Input) -> (Vec<session::frames::AgentFrame>, bool) {
        let (mut inputs, mut frames, mut stays) = (VecDeque::from([input]), Vec::new(), true);
        while let Some(input) = inputs.pop_front() {
            for effect in self.machine.handle(now(), input, &Registered) {
                match effect {
                    Effect::Send(frame) => frames.push(frame),
                    Effect::Close { .. } => {
                        inputs.push_back(Input::Disconnected);
                        stays = false;
                    }
                    Effect::Persist(id, write) => {
                        self.world.journal.write(self.number, id, &write, &self.done);
                    }
                    Effect::Start(start) => {
                        inputs.push_back(Input::Finished { command: start.command.order.command, end: facts() });
                    }
                    Effect::Cancel(_)
                    | Effect::OutputLease { .. }
                    | Effect::MakeKeys { .. }
                    | Effect::DropSecrets
                    | Effect::Retired
                    | Effect::ReadCredentials { .. } => {}
                    Effect::ReadReports { .. } => inputs.push_back(Input::ReportsRead(Vec::new())),
                    Effect::WakeAt(at) => self.wake = Some(at),
                    Effect::Event(event) => self.event(&event),
                }
            }
        }
        (frames, stays)
    }

    fn event(&mut self, event: &AgentEvent) {
        match event {
            AgentEvent::SessionOpen { .. } => {
                self.has_opened = true;
                self.opened(true);
            }
            AgentEvent::Acknowledged { .. } if self.number > 0 => {
                self.world.acknowledged.send_modify(|count| *count += 1);
            }
            AgentEvent::RootAdvanced { .. } => self.world.roots_taken.send_modify(|count| *count += 1),
            AgentEvent::Acknowledged { .. } | AgentEvent::Accepted { .. } | AgentEvent::AuditContinues { .. } => {}
            AgentEvent::Refused { .. }
            | AgentEvent::Dropped { .. }
            | AgentEvent::KeysTaken { .. }
            | AgentEvent::Released
            | AgentEvent::Quarantined { .. }
            | AgentEvent::AuditRefused { .. } => {
                eprintln!("load: agent {}: {event:?}", self.number);
                self.world.troubles.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    fn opened(&mut self, is_open: bool) {
        if self.is_open != is_open {
            self.is_open = is_open;
            self.world.open.send_modify(|count| if is_open { *count += 1 } else { *count -= 1 });
        }
    }
}

/// What `host.facts` answers, in about the size that a real host's answer has.
fn facts() -> End {
    const RESULT: &str = r#"{"message":"facts read","result":{"hostname":"load","os":"Debian GNU/Linux 12 (bookworm)","kernel":"6.1.0-18-amd64","architecture":"x86_64","cpus":2,"memory_bytes":25159413760,"disk":{"path":"/","total_bytes":269509410816,"available_bytes":79456894976},"docker":{"version":"20.10.24","api":"1.41","storage_driver":"overlay2","containers_running":3},"uptime_seconds":86400}}"#;
    End {
        status: ReportStatus::Succeeded,
        result: RESULT.as_bytes().to_vec(),
        output_sha256: sha256(b""),
        output_truncated: false,
    }
}

/// Decodes orders as an agent does; its owner allows what is registered and reads only.
struct Registered;

impl Registered {
    fn admitted(order: &Order) -> Result<Admitted, Rejection> {
        let request = Request::decode(&order.action, order.action_version, &order.parameters)
            .map_err(|error| Rejection { message: error.to_string() })?;
        let info = request.info();
        let kind = match request.lock() {
            Lock::App(app) => AdmittedKind::Locked(app),
            Lock::None => AdmittedKind::Free,
        };
        if info.class == ids::Class::Read {
            Ok(Admitted { class: info.class, on_restart: info.on_restart, kind, approvals_min: 0 })
        } else {
            Err(Rejection { message: "agents of a load only read".to_owned() })
        }
    }
}

impl Admission for Registered {
    fn judge(&self, order: &Order) -> Result<Admitted, Rejection> {
        Self::admitted(order)
    }

    fn declared(&self, order: &Order) -> Option<Admitted> {
        Self::admitted(order).ok()
    }
}
