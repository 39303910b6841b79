//! The control plane's process: its sessions, and the reads, writes and signatures they wait for.

use std::{collections::BTreeMap, sync::Arc};

use envelope::{
    keys::{SigningKey, role},
    merkle::consistency_proof,
    messages::{AuditHead, GuardReset, LogPosition},
    root::TrustedRoot,
    signer_port::{SignError, SignedCommand},
};
use fleet::{
    dispatch::{Effect, Established, HeadSeen, HostSession, Input, RETIRED, Recovering, SignedHead, farewell},
    model::{CommandStatus, HostStanding},
    ports::{StoreError, Write},
};
use ids::{Challenge, CommandId, DurationMs, FleetId, HostId, Revision, Sequence, UnixMs};
use session::{
    control::{Answer, Handshake, HandshakeStep, Identity},
    frames::{AgentFrame, ControlFrame, RefusalCode},
    limits::CLOCK_DRIFT_MAX,
};

use crate::{invariants::Ledger, memory_store::MemoryStore, network::LinkId, random::Random};

/// What survives a kill is `store` and `signed_high`.
pub(crate) struct Control {
    pub(crate) fleet: FleetId,
    pub(crate) store: MemoryStore,
    /// The signer's own record: highest sequence signed for each host.
    signed_high: BTreeMap<HostId, Sequence>,
    /// The signer's own record of standing orders' revisions.
    pub(crate) signed_revisions: BTreeMap<HostId, Revision>,
    pub(crate) root: Arc<TrustedRoot>,
    pub(crate) session_key: SigningKey<role::Session>,
    pub(crate) command_key: SigningKey<role::Command>,
    /// Whoever looks at what others ask for.
    pub(crate) approver: SigningKey<role::Approver>,
    audit_key: SigningKey<role::Audit>,
    /// It hides from itself that hosts hold heads it cannot continue: somebody else runs it.
    pub(crate) is_lying: bool,
    pub(crate) peers: BTreeMap<LinkId, Peer>,
    /// How far its clock is off, in milliseconds.
    pub(crate) skew: i64,
}

pub(crate) enum Peer {
    /// Judged by the root metadata that was in force when it began.
    Strange {
        handshake: Box<Handshake>,
        chains: Vec<Vec<Vec<u8>>>,
        root: Arc<TrustedRoot>,
    },
    Known(Box<Known>),
}

/// An authenticated host's session.
pub(crate) struct Known {
    pub(crate) host: HostId,
    machine: HostSession,
    /// How far the clock was off when it began.
    skew: i64,
    /// Size of the newest head its machine was told of.
    head_size: u64,
    /// The read or write under way.
    storing: Option<Effect>,
    /// The signature under way.
    signing: Option<Effect>,
    wake_at: Option<UnixMs>,
}

/// What the control plane says on a link.
pub(crate) enum Said {
    Frame(ControlFrame),
    Close,
}

/// How a transaction goes wrong.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum DiskFault {
    None,
    /// It did not happen.
    Refused,
    /// It happened, and the answer was lost.
    AnswerLost,
}

impl Peer {
    /// Whether a read, a write or a signature is under way.
    pub(crate) fn waits(&self) -> bool {
        matches!(self, Self::Known(known) if known.storing.is_some() || known.signing.is_some())
    }

    /// Whether it would read a frame now.
    pub(crate) fn reads(&self) -> bool {
        match self {
            Self::Strange { .. } => true,
            Self::Known(known) => known.machine.is_reading(),
        }
    }

    pub(crate) fn wake_at(&self) -> Option<UnixMs> {
        match self {
            Self::Strange { .. } => None,
            Self::Known(known) => known.wake_at,
        }
    }
}

impl Control {
    pub(crate) fn new(
        root: Arc<TrustedRoot>,
        session_key: SigningKey<role::Session>,
        command_key: SigningKey<role::Command>,
        audit_key: SigningKey<role::Audit>,
        approver: SigningKey<role::Approver>,
    ) -> Self {
        Self {
            fleet: root.current().fleet,
            store: MemoryStore::default(),
            signed_high: BTreeMap::new(),
            signed_revisions: BTreeMap::new(),
            root,
            session_key,
            command_key,
            audit_key,
            approver,
            is_lying: false,
            peers: BTreeMap::new(),
            skew: 0,
        }
    }

    /// The time as its clock has it.
    pub(crate) const fn clock(&self, now: UnixMs) -> UnixMs {
        UnixMs(now.0.saturating_add_signed(self.skew))
    }

    pub(crate) fn accept(&mut self, link: LinkId, exporter: ids::TlsExporter) {
        let handshake = Box::new(Handshake::new(self.fleet, exporter));
        let root = self.root.clone();
        self.peers.insert(link, Peer::Strange { handshake, chains: Vec::new(), root });
    }

    /// A frame arrives.
    pub(crate) fn receive(
        &mut self,
        link: LinkId,
        frame: AgentFrame,
        now: UnixMs,
        random: &mut Random,
        ledger: &mut Ledger,
    ) -> Vec<(LinkId, Said)> {
        match self.peers.get_mut(&link) {
            None => Vec::new(),
            Some(Peer::Known(_)) => self.input(link, Input::Received(frame), now, random, ledger),
            Some(Peer::Strange { handshake, chains, root }) => match handshake.receive(frame) {
                Ok(HandshakeStep::Wait) => Vec::new(),
                Ok(HandshakeStep::Ask(frame)) => vec![(link, Said::Frame(frame))],
                Ok(HandshakeStep::RootChain(chain)) => {
                    chains.push(chain);
                    Vec::new()
                }
                Ok(HandshakeStep::LookUp(hello)) => {
                    let host = self.store.hosts.get(&hello.host);
                    let former = self.store.former_keys.get(&hello.host).map_or(&[][..], Vec::as_slice);
                    let host = host.filter(|host| host.may_prove_itself());
                    let answer = Answer {
                        identity: Identity::from(host.map(|host| host.identity_key_of(hello.host_epoch, former))),
                        root: &*root,
                        session_key: &self.session_key,
                        nonce: Challenge(random.bytes()),
                        time: now,
                    };
                    match handshake.answer(&answer) {
                        Ok(frames) => frames.into_iter().map(|frame| (link, Said::Frame(frame))).collect(),
                        Err(error) => self.refuse(link, error.frame()),
                    }
                }
                Ok(HandshakeStep::Authenticated(authenticated)) => {
                    let (chains, root) = (core::mem::take(chains), root.clone());
                    let head = self.head_seen(authenticated.hello.audit_head);
                    let former = self.store.former_keys.get(&authenticated.host).cloned().unwrap_or_default();
                    let recovery = Recovering::default();
                    let established = Established { authenticated: *authenticated, root, head, former, recovery };
                    self.establish(link, established, chains, now, random, ledger)
                }
                Err(error) => self.refuse(link, error.frame()),
            },
        }
    }

    fn head_seen(&self, held: Option<LogPosition>) -> HeadSeen {
        let root = self.root.current();
        let signed = held.and_then(|held| self.store.audit.head_at(held.size));
        if self.is_lying {
            return HeadSeen::Continues;
        }
        HeadSeen::judge(held, root.audit_log, root.restored_log, signed)
    }

    /// Signs a head over the log so far, if it has grown.
    pub(crate) fn sign_head(&mut self, now: UnixMs) {
        let size = self.store.audit.size();
        let signed = self.store.audit.heads.last().map_or(0, |head| head.position.size);
        let Some(root) = self.store.audit.root_at(size).filter(|_| size > signed) else { return };
        let position = LogPosition { log: self.root.current().audit_log, size, root };
        let head = AuditHead { fleet: self.fleet, position, time: now };
        let envelope = self.audit_key.sign(&head).into_envelope().into();
        self.store.audit.heads.push(SignedHead { position, envelope });
    }

    fn refuse(&mut self, link: LinkId, frame: ControlFrame) -> Vec<(LinkId, Said)> {
        self.peers.remove(&link);
        vec![(link, Said::Frame(frame)), (link, Said::Close)]
    }

    fn establish(
        &mut self,
        link: LinkId,
        established: Established,
        chains: Vec<Vec<Vec<u8>>>,
        now: UnixMs,
        random: &mut Random,
        ledger: &mut Ledger,
    ) -> Vec<(LinkId, Said)> {
        let host = established.authenticated.host;
        if let Some(mut open) = self.store.hosts.get(&host).and_then(|host| farewell(&established, host)) {
            open.time = now;
            let open = ControlFrame::Open(self.command_key.sign(&open).into_envelope());
            let refused = ControlFrame::Refused { reason: RefusalCode::HostRefused, message: RETIRED.to_owned() };
            let mut said = vec![(link, Said::Frame(open))];
            said.extend(self.refuse(link, refused));
            return said;
        }
        // It came into force during the handshake, when nobody could be told.
        let is_behind = established.root.version() < self.root.version();
        let mut said = Vec::new();
        for older in self.links_of(host) {
            said.extend(self.input(older, Input::Superseded, now, random, ledger));
        }
        let (machine, effects) = HostSession::new(established, now);
        let known = Known { host, machine, skew: self.skew, head_size: 0, storing: None, signing: None, wake_at: None };
        self.peers.insert(link, Peer::Known(Box::new(known)));
        said.extend(self.perform(link, effects, ledger));
        if is_behind {
            said.extend(self.input(link, Input::RootChanged, now, random, ledger));
        }
        for chain in chains {
            said.extend(self.input(link, Input::Received(AgentFrame::RootChain(chain)), now, random, ledger));
        }
        said
    }

    pub(crate) fn links_of(&self, host: HostId) -> Vec<LinkId> {
        let of_host = |(link, peer): (&LinkId, &Peer)| match peer {
            Peer::Known(known) if known.host == host => Some(*link),
            _ => None,
        };
        self.peers.iter().filter_map(of_host).collect()
    }

    pub(crate) fn input(
        &mut self,
        link: LinkId,
        input: Input,
        now: UnixMs,
        random: &mut Random,
        ledger: &mut Ledger,
    ) -> Vec<(LinkId, Said)> {
        let Some(Peer::Known(known)) = self.peers.get_mut(&link) else { return Vec::new() };
        // As the shell does, which has a clock that nobody can set beside this one.
        let set_by = DurationMs(known.skew.abs_diff(self.skew));
        let input = if set_by > CLOCK_DRIFT_MAX { Input::ClockSet(set_by) } else { input };
        let mut said = Vec::new();
        let newest = self.store.audit.heads.last().filter(|head| known.head_size < head.position.size).cloned();
        if let Some(head) = newest {
            known.head_size = head.position.size;
            let effects = known.machine.handle(Input::AuditHead(head), now, &mut |bytes: &mut [u8]| random.fill(bytes));
            said.extend(self.perform(link, effects, ledger));
        }
        let Some(Peer::Known(known)) = self.peers.get_mut(&link) else { return said };
        let effects = known.machine.handle(input, now, &mut |bytes: &mut [u8]| random.fill(bytes));
        said.extend(self.perform(link, effects, ledger));
        said
    }

    fn perform(&mut self, link: LinkId, effects: Vec<Effect>, ledger: &mut Ledger) -> Vec<(LinkId, Said)> {
        let mut said = Vec::new();
        for effect in effects {
            let Some(Peer::Known(known)) = self.peers.get_mut(&link) else { return said };
            match effect {
                Effect::Send(frame) => {
                    match &frame {
                        ControlFrame::Deliver { command, .. } => ledger.sent(&self.store, command),
                        ControlFrame::ReportAcknowledged { sequence, .. } => {
                            ledger.acknowledged(&self.store, known.host, *sequence);
                        }
                        _ => {}
                    }
                    said.push((link, Said::Frame(frame)));
                }
                Effect::SendKeyReceipt(receipt) => {
                    let envelope = self.session_key.sign(&receipt).into_envelope();
                    said.push((link, Said::Frame(ControlFrame::KeyReceipt(envelope))));
                }
                Effect::SendAuditProof { head, from_size } => {
                    let leaves =
                        usize::try_from(head.position.size).ok().and_then(|size| self.store.audit.leaves.get(..size));
                    let Some(hashes) = leaves.and_then(|leaves| consistency_proof(leaves, from_size)) else {
                        // As the shell does without a proof, unless somebody who lies runs it.
                        if !self.is_lying {
                            ledger.break_it(format!("no proof from {from_size} to {}", head.position.size));
                        }
                        said.push((link, Said::Close));
                        self.peers.remove(&link);
                        return said;
                    };
                    let head = head.envelope.to_vec();
                    said.push((link, Said::Frame(ControlFrame::AuditConsistency { head, from_size, hashes })));
                }
                Effect::Close { code, message } => {
                    said.push((link, Said::Frame(ControlFrame::Refused { reason: code, message })));
                    said.push((link, Said::Close));
                    self.peers.remove(&link);
                }
                Effect::WakeAt(at) => known.wake_at = Some(at),
                effect @ (Effect::SignOpen(_) | Effect::SignCommand { .. } | Effect::SignReset(_)) => {
                    known.signing = Some(effect)
                }
                effect @ (Effect::Load(_) | Effect::LoadCommand(_) | Effect::LoadOperation(_) | Effect::Write(..)) => {
                    known.storing = Some(effect);
                }
                Effect::Note(note) => ledger.note(|| format!("control: {note}")),
                Effect::Publish(_) | Effect::Output(_) | Effect::RootAdvanced(_) => {}
            }
        }
        said
    }

    /// The read, write or signature of one session is answered.
    pub(crate) fn answer(
        &mut self,
        link: LinkId,
        fault: DiskFault,
        now: UnixMs,
        random: &mut Random,
        ledger: &mut Ledger,
    ) -> Vec<(LinkId, Said)> {
        let Some(Peer::Known(known)) = self.peers.get_mut(&link) else { return Vec::new() };
        let sign_first = known.storing.is_none() || (known.signing.is_some() && random.chance(500));
        let taken = if sign_first { known.signing.take() } else { known.storing.take() };
        let Some(effect) = taken else { return Vec::new() };
        let failed = || StoreError::Unavailable("simulated".to_owned());
        let refused = fault == DiskFault::Refused;
        let input = match effect {
            Effect::SignOpen(mut open) => {
                open.time = now;
                Input::OpenSigned(Ok(self.command_key.sign(&open).into_envelope()))
            }
            Effect::SignCommand { command, .. } => Input::CommandSigned(self.sign(&command)),
            Effect::SignReset(reset) => Input::ResetSigned(self.sign_reset(*reset, now)),
            _ if refused => match effect {
                Effect::Write(id, _) => Input::Written(id, Err(failed())),
                Effect::LoadCommand(_) => Input::CommandLoaded(Err(failed())),
                Effect::LoadOperation(_) => Input::OperationLoaded(Err(failed())),
                _ => Input::Loaded(Err(failed())),
            },
            Effect::Write(id, write) => {
                let written = self.store.apply(&write);
                ledger.note(|| {
                    format!("{} control: {:?} ({}) {write:?}", now.0, written, fault == DiskFault::AnswerLost)
                });
                let answer = if fault == DiskFault::AnswerLost { Err(failed()) } else { written };
                Input::Written(id, answer)
            }
            Effect::LoadCommand(command) => Input::CommandLoaded(Ok(self.store.commands.get(&command).cloned())),
            Effect::LoadOperation(operation) => {
                Input::OperationLoaded(Ok(self.store.operations.get(&operation).cloned()))
            }
            Effect::Load(host) => {
                let row = self.store.hosts.get(&host).cloned();
                Input::Loaded(Ok(row.map(|row| (row, self.store.commands_open(host)))))
            }
            _ => Input::Tick,
        };
        self.input(link, input, now, random, ledger)
    }

    fn sign(&mut self, command: &envelope::messages::Command) -> Result<SignedCommand, SignError> {
        // Some orders are such that no signer would ever sign them.
        if command.order.command.as_bytes()[15].is_multiple_of(64) {
            return Err(SignError::Refused("simulated".to_owned()));
        }
        let high = self.signed_high.entry(command.order.host).or_default();
        if command.sequence <= *high {
            return Err(SignError::SequenceTaken { high: *high });
        }
        *high = command.sequence;
        let signed = self.command_key.sign(command);
        let payload_sha256 = signed.payload_sha256();
        Ok(SignedCommand { envelope: signed.into_envelope(), payload_sha256 })
    }

    fn sign_reset(&mut self, mut reset: GuardReset, now: UnixMs) -> Result<Vec<u8>, SignError> {
        let high = self.signed_high.entry(reset.host).or_default();
        if reset.high < *high {
            return Err(SignError::SequenceTaken { high: *high });
        }
        (*high, reset.time) = (reset.high, now);
        Ok(self.command_key.sign(&reset).into_envelope())
    }

    /// A person's change to a host's queue: its session, if any, hears of it.
    pub(crate) fn host_changed(
        &mut self,
        host: HostId,
        is_revoked: bool,
        now: UnixMs,
        random: &mut Random,
        ledger: &mut Ledger,
    ) -> Vec<(LinkId, Said)> {
        let mut said = Vec::new();
        for link in self.links_of(host) {
            let input = if is_revoked { Input::Revoked } else { Input::QueueChanged };
            said.extend(self.input(link, input, now, random, ledger));
        }
        said
    }

    /// The timer over hosts that have no session.
    pub(crate) fn expire(&mut self, now: UnixMs, ledger: &mut Ledger) {
        let is_queued =
            |command: &&fleet::model::Command| matches!(command.status, CommandStatus::Held | CommandStatus::Queued);
        let commands: Vec<_> = self.store.commands.values().filter(is_queued).cloned().collect();
        for write in fleet::dispatch::expire_queued(now, &commands) {
            // A conflict means that something else came first.
            let written = self.store.apply(&write);
            ledger.note(|| format!("{} timer: {written:?} {write:?}", now.0));
        }
    }

    /// Whether nothing is left to do for the commands of hosts that take orders.
    pub(crate) fn unsettled(&self) -> Vec<CommandId> {
        let is_active = |host: &HostId| matches!(self.store.hosts[host].standing, HostStanding::Active);
        let open = self.store.commands.values().filter(|command| !command.status.is_end());
        open.filter(|command| is_active(&command.order.host)).map(|command| command.order.command).collect()
    }

    pub(crate) fn write(&mut self, write: &Write, ledger: &mut Ledger) {
        ledger.note(|| format!("person: {write:?}"));
        match self.store.apply(write) {
            Ok(_) | Err(StoreError::Conflict(_)) => {}
            Err(error) => ledger.break_it(format!("a write of a person failed: {error}")),
        }
    }
}
