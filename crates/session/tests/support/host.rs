//! The agent's shell in memory. It checks, at every effect, that what the effect rests on is durable.

use std::collections::{BTreeMap, VecDeque};

use envelope::{
    keys::{SigningKey, role},
    messages::Report,
    verify,
};
use ids::*;
use session::{
    agent::{AgentIdentity, AgentLoop, io::*},
    frames::{AgentFrame, Stage},
};

use super::{AGENT_SEED, FLEET, HOST, Registry, START};

pub(crate) struct Host {
    pub(crate) agent: AgentLoop,
    pub(crate) disk: JournalState,
    pub(crate) unsynced: VecDeque<(WriteId, JournalWrite)>,
    pub(crate) running: BTreeMap<CommandId, bool>,
    /// Every start ever: how often, and how often not resumed.
    pub(crate) starts: BTreeMap<CommandId, (usize, usize)>,
    /// The plan that was approved, as its last start said.
    pub(crate) plans: BTreeMap<CommandId, Option<Sha256>>,
    /// Starts of the present process.
    started_now: Vec<CommandId>,
    /// Asked to stop, while it ran or with its start.
    pub(crate) cancelled: Vec<CommandId>,
    pub(crate) events: Vec<AgentEvent>,
    pub(crate) closed: Vec<(bool, CloseReason)>,
    pub(crate) registry: Registry,
    pub(crate) now: Clocks,
    pub(crate) boot: BootId,
    root_sha256: Sha256,
}

impl Host {
    pub(crate) fn start(disk: JournalState, root_sha256: Sha256) -> Self {
        Self::start_with(disk, root_sha256, false)
    }

    pub(crate) fn start_with(disk: JournalState, root_sha256: Sha256, state_missing: bool) -> Self {
        let now = Clocks { boot: BootMs(1_000), wall: START };
        let boot = BootId::from_bytes([0xb0; 16]);
        let registry = Registry::default();
        let (agent, effects) =
            AgentLoop::new(identity(boot, root_sha256), disk.clone(), state_missing, now, &registry).expect("it loads");
        assert!(effects.is_empty(), "nothing was under way: {effects:?}");
        Self {
            agent,
            disk,
            unsynced: VecDeque::new(),
            running: BTreeMap::new(),
            starts: BTreeMap::new(),
            plans: BTreeMap::new(),
            started_now: Vec::new(),
            cancelled: Vec::new(),
            events: Vec::new(),
            closed: Vec::new(),
            registry,
            now,
            boot,
            root_sha256,
        }
    }

    pub(crate) fn connect(&mut self, exporter: TlsExporter, n: u8) -> Vec<AgentFrame> {
        let (nonce, quarantine) = (Challenge([n; 32]), QuarantineId::from_bytes([n; 16]));
        self.input(Input::Connected { exporter, nonce, quarantine })
    }

    /// Hands in an input, does the effects, and gives back what was sent.
    pub(crate) fn input(&mut self, input: Input) -> Vec<AgentFrame> {
        let effects = self.agent.handle(self.now, input, &self.registry);
        self.perform(effects)
    }

    pub(crate) fn has_unsynced(&self) -> bool {
        !self.unsynced.is_empty()
    }

    pub(crate) fn sync_one(&mut self) -> Vec<AgentFrame> {
        let Some((id, write)) = self.unsynced.pop_front() else { return Vec::new() };
        self.disk.apply(&write);
        self.input(Input::Persisted(id))
    }

    /// Loses everything but the disk, which kept `keep` of the writes not acknowledged.
    pub(crate) fn crash(&mut self, keep: usize) {
        for (_, write) in self.unsynced.drain(..).take(keep) {
            self.disk.apply(&write);
        }
        self.unsynced.clear();
        self.running.clear();
        self.started_now.clear();
        let identity = identity(self.boot, self.root_sha256);
        // As the shell judges it: the enrolment put a chain into the journal.
        let missing = self.disk.root_chain.is_empty() && self.disk.quarantine.is_none();
        let (agent, effects) =
            AgentLoop::new(identity, self.disk.clone(), missing, self.now, &self.registry).expect("it loads again");
        self.agent = agent;
        let sent = self.perform(effects);
        assert!(sent.is_empty(), "nobody is connected");
    }

    fn perform(&mut self, effects: Vec<Effect>) -> Vec<AgentFrame> {
        let mut sent = Vec::new();
        for effect in effects {
            match effect {
                Effect::Send(frame) => {
                    self.check_durable(&frame);
                    sent.push(frame);
                }
                Effect::Close { retry, why } => self.closed.push((retry, why)),
                Effect::Persist(id, write) => self.unsynced.push_back((id, write)),
                Effect::Start(start) => self.begin(&start),
                Effect::OutputLease { .. } | Effect::MakeKeys { .. } => {}
                Effect::DropSecrets | Effect::Retired => panic!("no host is retired in these tests"),
                Effect::ReadReports { .. } => sent.extend(self.input(Input::ReportsRead(Vec::new()))),
                Effect::ReadCredentials { .. } => {}
                Effect::Cancel(command) => {
                    assert!(self.running.contains_key(&command), "only what runs can be stopped");
                    assert!(self.is_marked(command), "that it was asked to stop is durable");
                    self.cancelled.push(command);
                }
                Effect::Event(event) => self.events.push(event),
                Effect::WakeAt(at) => assert!(at >= self.now.boot || at.0 > 0),
            }
        }
        sent
    }

    fn begin(&mut self, start: &StartCommand) {
        let id = start.command.order.command;
        let durable = self.disk.open.iter().find(|open| open.id == id).expect("its acceptance is durable");
        assert_eq!(durable.stage, Stage::Started, "its start is durable");
        assert!(!self.started_now.contains(&id), "it was started twice in one life");
        self.started_now.push(id);
        let (all, fresh) = self.starts.entry(id).or_default();
        *all += 1;
        *fresh += usize::from(!start.resumed);
        assert!(*all == 1 || start.resumed, "a second start says so");
        assert_eq!(start.cancelled, durable.cancelled_by.is_some(), "a start says what is durable");
        if start.cancelled {
            assert!(start.resumed, "what was cancelled before it started does not start");
            self.cancelled.push(id);
        }
        self.plans.insert(id, start.plan);
        self.running.insert(id, start.backwards_only);
    }

    fn is_marked(&self, command: CommandId) -> bool {
        self.disk.open.iter().any(|open| open.id == command && open.cancelled_by.is_some())
    }

    /// What is said about a command or a report must be on the disk.
    fn check_durable(&self, frame: &AgentFrame) {
        match frame {
            AgentFrame::Accepted { command, sequence, stage } => {
                let entry = self.disk.ring.iter().find(|entry| entry.command == *command).expect("it is in the ring");
                assert_eq!((entry.sequence, entry.stage), (*sequence, *stage));
            }
            AgentFrame::Report(envelope) => {
                let key = SigningKey::<role::Agent>::from_seed(&AGENT_SEED).verifying();
                let report = verify::<Report>(envelope, &[key]).expect("its own report verifies");
                assert!(self.disk.last_report.is_some_and(|last| last.sequence >= report.sequence));
            }
            _ => {}
        }
    }
}

pub(crate) fn identity(boot: BootId, root_sha256: Sha256) -> AgentIdentity {
    AgentIdentity {
        fleet: FLEET,
        host: HOST,
        host_epoch: HostEpoch(1),
        identity: SigningKey::from_seed(&AGENT_SEED),
        keys_since: START,
        boot,
        agent_version: "0.1.0".to_owned(),
        actions: Vec::new(),
        root_sha256,
        next: None,
    }
}
