//! One host and its control plane in memory: the real machines of both ends, a store that checks
//! every precondition, and wires that can be cut. What must hold of each effect is checked here.

use std::{collections::VecDeque, sync::Arc};

use envelope::{
    audit::AuditLeaf,
    keys::{SigningKey, role},
    messages::*,
    root::{TrustedRoot, sign_root},
    signer_port::{SignError, SignedCommand},
};
use ids::*;
use serde_json::Value;
use session::{
    agent::io::{Input as AgentInput, JournalState},
    control::{Answer, Handshake, HandshakeError, HandshakeStep, Identity},
    frames::{AgentFrame, ControlFrame, RefusalCode},
};

use super::{
    super::{Effect, Established, HeadSeen, HostSession, Input, Note, Recovering, SignedHead},
    agent::Agent,
    store::MemoryStore,
};
use crate::{
    model::*,
    operation::{CancelDecision, CancelOrigin, OperationRequest, Target, Work, command_cancel, operation_propose},
    ports::{AuditEntry, AuditRecord, Event, StoreError, StreamPiece},
};

pub(crate) use super::fixture::*;

/// How the store treats a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Applied,
    Lost,
    /// It was applied, but the answer says that nobody knows.
    AppliedUnknown,
}

pub(crate) struct World {
    pub(crate) keys: Keys,
    pub(crate) root: Arc<TrustedRoot>,
    pub(crate) recovery: Recovering,
    pub(crate) store: MemoryStore,
    pub(crate) agent: Agent,
    handshake: Option<Handshake>,
    exporter: TlsExporter,
    pub(crate) session: Option<HostSession>,
    /// What the session asked for and is not done.
    pub(crate) work: VecDeque<Effect>,
    pub(crate) to_control: VecDeque<AgentFrame>,
    pub(crate) to_agent: VecDeque<ControlFrame>,
    /// Fates of the next transactions; applied when empty.
    pub(crate) fates: VecDeque<Fate>,
    pub(crate) signer_down: bool,
    /// What the signer refuses for good.
    pub(crate) never_signed: Vec<CommandId>,
    pub(crate) now: UnixMs,
    counter: u64,
    /// Highest sequence newly delivered in this session.
    delivered: Sequence,
    pub(crate) delivered_count: usize,
    pub(crate) acknowledged_count: usize,
    pub(crate) closes: Vec<RefusalCode>,
    pub(crate) notes: Vec<Note>,
    pub(crate) events: Vec<Event>,
    pub(crate) output: Vec<StreamPiece>,
    pub(crate) opened: usize,
    pub(crate) signed_count: usize,
    /// The signer's own record.
    signed_high: Sequence,
    /// Heads of the audit log that were signed.
    pub(crate) heads: Vec<SignedHead>,
}

impl World {
    pub(crate) fn new() -> Self {
        Self::with_root(|_| {})
    }

    pub(crate) fn with_root(change: impl FnOnce(&mut RootMetadata)) -> Self {
        let keys = keys();
        let mut metadata = metadata(&keys);
        change(&mut metadata);
        let root = TrustedRoot::pin_key(&sign_root(&[&keys.root], &metadata), keys.root.public()).expect("valid");
        let disk = JournalState { root_chain: root.chain().to_vec(), ..JournalState::default() };
        let agent = Agent::new(disk, root.payload_sha256());
        Self {
            keys,
            root: Arc::new(root),
            recovery: Recovering::default(),
            store: MemoryStore::new(host_record()),
            agent,
            handshake: None,
            exporter: TlsExporter([0; 32]),
            session: None,
            work: VecDeque::new(),
            to_control: VecDeque::new(),
            to_agent: VecDeque::new(),
            fates: VecDeque::new(),
            signer_down: false,
            never_signed: Vec::new(),
            now: START,
            counter: 0,
            delivered: Sequence(0),
            delivered_count: 0,
            acknowledged_count: 0,
            closes: Vec::new(),
            notes: Vec::new(),
            events: Vec::new(),
            output: Vec::new(),
            opened: 0,
            signed_count: 0,
            signed_high: Sequence(0),
            heads: Vec::new(),
        }
    }

    fn fresh(&mut self) -> u64 {
        self.counter += 1;
        self.counter
    }

    pub(crate) fn fresh_bytes(&mut self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[8..].copy_from_slice(&self.fresh().to_be_bytes());
        bytes
    }

    pub(crate) fn advance(&mut self, span: DurationMs) {
        self.now = self.now.plus(span);
        self.agent.now.boot = self.agent.now.boot.plus(span);
        self.agent.now.wall = self.agent.now.wall.plus(span);
    }

    // What people do.

    pub(crate) fn request(&mut self, action: &str, parameters: &str) -> OperationRequest {
        OperationRequest {
            id: OperationId::from_bytes(self.fresh_bytes()),
            work: Work::Action {
                action: action.parse().expect("an action name"),
                version: None,
                parameters: parameters.as_bytes().to_vec(),
            },
            targets: vec![Target { host: HOST, sealed: Vec::new() }],
            queue_for: None,
            dry_run: false,
            selector: None,
            recovery: None,
        }
    }

    pub(crate) fn propose(&mut self, request: OperationRequest) -> CommandId {
        let id = CommandId::from_bytes(self.fresh_bytes());
        let hosts = [self.store.host.clone()];
        let actor = session_of(UserRole::Admin);
        let proposed = operation_propose(
            FLEET,
            crate::operation::Grounds { approvals: self.root.current().approvals, requester: None },
            request,
            &actor,
            &hosts,
            self.now,
            &mut || id,
        )
        .expect("it is granted");
        self.store.apply(proposed.into_write()).expect("it is stored");
        self.tell(Input::QueueChanged);
        id
    }

    pub(crate) fn order(&mut self, action: &str, parameters: &str) -> CommandId {
        let request = self.request(action, parameters);
        self.propose(request)
    }

    pub(crate) fn facts(&mut self) -> CommandId {
        self.order("host.facts", "{}")
    }

    pub(crate) fn rotate(&mut self) -> CommandId {
        self.order("host.keys.rotate", "{}")
    }

    pub(crate) fn remove(&mut self) -> CommandId {
        self.order("app.remove", r#"{"app":"shop"}"#)
    }

    pub(crate) fn cancel(&mut self, command: CommandId) {
        let operation = OperationId::from_bytes(self.fresh_bytes());
        let id = CommandId::from_bytes(self.fresh_bytes());
        let actor = session_of(UserRole::Operator);
        let origin = CancelOrigin { fleet: FLEET, operation, actor: &actor, now: self.now };
        let stored = self.store.command(command).expect("it is stored").clone();
        match command_cancel(origin, &stored, &self.store.host.clone(), &mut || id).expect("it can be cancelled") {
            CancelDecision::End(write) => self.store.apply(*write),
            CancelDecision::Order(proposed) => self.store.apply(proposed.into_write()),
        }
        .expect("it is stored");
        self.tell(Input::QueueChanged);
    }

    // The wires.

    /// A new connection, the handshake under way; the old one is gone.
    pub(crate) fn dial(&mut self) {
        self.cut();
        let n = self.fresh();
        let exporter = TlsExporter([n as u8; 32]);
        self.exporter = exporter;
        self.handshake = Some(Handshake::new(FLEET, exporter));
        let nonce = Challenge([n as u8; 32]);
        let quarantine = QuarantineId::from_bytes(self.fresh_bytes());
        let sent = self.agent.input(AgentInput::Connected { exporter, nonce, quarantine });
        self.to_control.extend(sent);
    }

    /// The connection breaks: what is under way is lost, and the session's machine with it. What it
    /// asked of the store last is done all the same.
    pub(crate) fn cut(&mut self) {
        self.to_control.clear();
        self.to_agent.clear();
        self.handshake = None;
        self.session = None;
        for effect in core::mem::take(&mut self.work) {
            if let Effect::Write(_, write) = effect {
                let _ = self.store.apply(*write);
            }
        }
        let sent = self.agent.input(AgentInput::Disconnected);
        assert!(sent.is_empty(), "nobody is connected");
        self.delivered = Sequence(0);
    }

    /// Of the present connection, as [`Self::dial`] makes it.
    pub(crate) fn exporter(&self) -> TlsExporter {
        self.exporter
    }

    pub(crate) fn connect(&mut self) {
        self.dial();
        self.settle();
    }

    pub(crate) fn tell(&mut self, input: Input) {
        let Some(mut session) = self.session.take() else { return };
        let mut counter = self.counter;
        let effects = session.handle(input, self.now, &mut |bytes: &mut [u8]| {
            counter += 1;
            bytes[..8].copy_from_slice(&counter.to_be_bytes());
        });
        self.counter = counter;
        self.session = Some(session);
        self.take(effects);
    }

    /// Effects that need no answer are done at once, and checked.
    fn take(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Send(frame) => {
                    self.check_sent(&frame);
                    self.to_agent.push_back(frame);
                }
                Effect::SendKeyReceipt(receipt) => {
                    let envelope = self.keys.session.sign(&receipt).into_envelope();
                    self.to_agent.push_back(ControlFrame::KeyReceipt(envelope));
                }
                Effect::SendAuditProof { head, from_size } => {
                    let leaves = &self.leaves()[..usize::try_from(head.position.size).expect("small")];
                    let hashes = envelope::merkle::consistency_proof(leaves, from_size).expect("it grew");
                    let head = head.envelope.to_vec();
                    self.to_agent.push_back(ControlFrame::AuditConsistency { head, from_size, hashes });
                }
                Effect::Publish(event) => self.events.push(event),
                Effect::Output(piece) => self.output.push(piece),
                Effect::Note(note) => self.notes.push(note),
                Effect::RootAdvanced(root) => self.root = root,
                Effect::Close { code, message } => {
                    self.closes.push(code);
                    self.to_agent.push_back(ControlFrame::Refused { reason: code, message });
                }
                Effect::WakeAt(at) => assert!(at >= self.now, "a wake-up in the past"),
                work => self.work.push_back(work),
            }
        }
        let is_signing =
            |work: &&Effect| matches!(work, Effect::SignCommand { .. } | Effect::SignOpen(_) | Effect::SignReset(_));
        let signing = self.work.iter().filter(is_signing).count();
        assert!(signing <= 1, "one signature at a time");
        assert!(self.work.len() - signing <= 1, "one read or write at a time: {:?}", self.work);
    }

    /// What is sent rests on what is stored.
    fn check_sent(&mut self, frame: &ControlFrame) {
        match frame {
            ControlFrame::Deliver { command, .. } => {
                let sealed = self.store.commands.iter().flat_map(|stored| &stored.seals);
                let seal = sealed.into_iter().find(|seal| seal.envelope == *command).expect("stored before it is sent");
                assert!(self.store.has_envelope(command), "its audit leaf is durable before it is sent");
                let hello = self.agent.disk.high;
                if seal.sequence > hello {
                    assert!(seal.sequence > self.delivered, "sent in order of number");
                    self.delivered = seal.sequence;
                }
                self.delivered_count += 1;
            }
            ControlFrame::ReportAcknowledged { sequence, .. } => {
                assert!(self.store.host.last_report.sequence >= *sequence, "durable before it is acknowledged");
                self.acknowledged_count += 1;
            }
            ControlFrame::Open(_) => self.opened += 1,
            _ => {}
        }
    }

    /// Does the first piece of work the session asked for. False when there is none.
    pub(crate) fn step_work(&mut self) -> bool {
        let Some(work) = self.work.pop_front() else { return false };
        let input = match work {
            Effect::Load(host) => Input::Loaded(Ok(self.store.load(host))),
            Effect::LoadCommand(id) => Input::CommandLoaded(Ok(self.store.command(id).cloned())),
            Effect::LoadOperation(id) => Input::OperationLoaded(Ok(self.store.operations.get(&id).cloned())),
            Effect::Write(id, write) => {
                let lost = || Err(StoreError::Unavailable("the disk is full".to_owned()));
                let answer = match self.fates.pop_front().unwrap_or(Fate::Applied) {
                    Fate::Applied => self.store.apply(*write),
                    Fate::Lost => lost(),
                    Fate::AppliedUnknown => self.store.apply(*write).and_then(|_| lost()),
                };
                Input::Written(id, answer)
            }
            Effect::SignOpen(mut open) => {
                open.time = self.now;
                Input::OpenSigned(Ok(self.keys.command.sign(&open).into_envelope()))
            }
            Effect::SignCommand { .. } if self.signer_down => {
                Input::CommandSigned(Err(SignError::Unavailable("it is restarting".to_owned())))
            }
            Effect::SignCommand { command, .. } if self.never_signed.contains(&command.order.command) => {
                Input::CommandSigned(Err(SignError::Refused("it is not well-formed".to_owned())))
            }
            Effect::SignCommand { command, .. } if command.sequence <= self.signed_high => {
                Input::CommandSigned(Err(SignError::SequenceTaken { high: self.signed_high }))
            }
            Effect::SignCommand { command, .. } => {
                self.signed_high = command.sequence;
                self.signed_count += 1;
                let signed = self.keys.command.sign(&*command);
                let payload_sha256 = signed.payload_sha256();
                Input::CommandSigned(Ok(SignedCommand { envelope: signed.into_envelope(), payload_sha256 }))
            }
            Effect::SignReset(reset) if reset.high < self.signed_high => {
                Input::ResetSigned(Err(SignError::SequenceTaken { high: self.signed_high }))
            }
            Effect::SignReset(mut reset) => {
                (self.signed_high, reset.time) = (reset.high, self.now);
                Input::ResetSigned(Ok(self.keys.command.sign(&*reset).into_envelope()))
            }
            other => panic!("not work: {other:?}"),
        };
        self.tell(input);
        true
    }

    /// One frame reaches the control plane.
    pub(crate) fn step_control(&mut self) -> bool {
        if self.session.as_ref().is_some_and(|session| !session.is_reading()) {
            return false;
        }
        let Some(frame) = self.to_control.pop_front() else { return false };
        if self.session.is_some() {
            self.tell(Input::Received(frame));
            return true;
        }
        let Some(handshake) = &mut self.handshake else { return true };
        let step = match handshake.receive(frame) {
            Ok(step) => step,
            // With one of two keys while it is open which of them is on record.
            Err(error @ HandshakeError::Proof { .. }) => {
                self.handshake = None;
                self.to_agent.push_back(error.frame());
                return true;
            }
            Err(error) => panic!("an honest handshake: {error}"),
        };
        match step {
            HandshakeStep::LookUp(hello) => {
                let host = &self.store.host;
                let key = host.identity_key_of(hello.host_epoch, &self.store.former);
                let identity = Identity::from(host.may_prove_itself().then_some(key));
                let (nonce, session_key) = (Challenge([0xcc; 32]), &self.keys.session);
                let answer = Answer { identity, root: &self.root, session_key, nonce, time: self.now };
                match handshake.answer(&answer) {
                    Ok(frames) => self.to_agent.extend(frames),
                    Err(error) => self.to_agent.push_back(error.frame()),
                }
            }
            HandshakeStep::Authenticated(authenticated) => {
                let head = self.head_seen(authenticated.hello.audit_head);
                let (root, former, recovery) = (self.root.clone(), self.store.former.clone(), self.recovery.clone());
                let established = Established { authenticated: *authenticated, root, head, former, recovery };
                if let Some(frames) = self.farewell(&established) {
                    self.to_agent.extend(frames);
                    return true;
                }
                let (session, effects) = HostSession::new(established, self.now);
                self.session = Some(session);
                self.take(effects);
                if let Some(head) = self.heads.last().cloned() {
                    self.tell(Input::AuditHead(head));
                }
            }
            HandshakeStep::Ask(frame) => self.to_agent.push_back(frame),
            HandshakeStep::RootChain(_) | HandshakeStep::Wait => {}
        }
        true
    }

    /// One frame reaches the agent.
    pub(crate) fn step_agent(&mut self) -> bool {
        let Some(frame) = self.to_agent.pop_front() else { return false };
        let sent = self.agent.input(AgentInput::Received(frame));
        self.to_control.extend(sent);
        true
    }

    pub(crate) fn sync_agent(&mut self) {
        let sent = self.agent.sync();
        self.to_control.extend(sent);
    }

    /// Until nothing is under way. Retries are waited for.
    pub(crate) fn settle(&mut self) {
        for _ in 0..100_000 {
            let moved = self.step_work() | self.step_control() | self.step_agent();
            self.sync_agent();
            if !moved {
                return;
            }
        }
        panic!("it never comes to rest");
    }

    /// Lets time pass, as the wake-ups ask for.
    pub(crate) fn pass(&mut self, span: DurationMs) {
        self.advance(span);
        self.tell(Input::Tick);
        self.settle();
    }

    pub(crate) fn finish(&mut self, status: ReportStatus) {
        self.finish_with(status, &Value::Null);
    }

    pub(crate) fn finish_with(&mut self, status: ReportStatus, result: &Value) {
        let sent = self.agent.finish(status, result);
        self.to_control.extend(sent);
        self.sync_agent();
        self.settle();
    }

    pub(super) fn leaves(&self) -> Vec<Sha256> {
        let leaf = |entry: &AuditEntry| {
            let (AuditRecord::Inline(record) | AuditRecord::Envelope(record)) = &entry.record;
            AuditLeaf::new(entry.time, entry.kind, &entry.actor, &entry.subject, sha256(record)).leaf_hash()
        };
        self.store.audit.iter().map(leaf).collect()
    }

    /// Signs a head over the log so far, and keeps it.
    pub(crate) fn sign_head(&mut self) -> SignedHead {
        let leaves = self.leaves();
        let log = self.root.current().audit_log;
        let position = LogPosition { log, size: leaves.len() as u64, root: envelope::merkle::root(&leaves) };
        let head = AuditHead { fleet: FLEET, position, time: self.now };
        let envelope = SigningKey::<role::Audit>::from_seed(&AUDIT_SEED).sign(&head).into_envelope().into();
        let head = SignedHead { position, envelope };
        self.heads.push(head.clone());
        head
    }

    fn head_seen(&self, held: Option<LogPosition>) -> HeadSeen {
        let root = self.root.current();
        let signed = held.and_then(|held| self.heads.iter().find(|head| head.position.size == held.size));
        HeadSeen::judge(held, root.audit_log, root.restored_log, signed.map(|head| head.position))
    }

    pub(crate) fn status(&self, command: CommandId) -> CommandStatus {
        self.store.command(command).expect("it is stored").status
    }

    pub(crate) fn seals(&self, command: CommandId) -> usize {
        self.store.command(command).expect("it is stored").seals.len()
    }
}
