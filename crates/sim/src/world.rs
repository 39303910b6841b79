//! The whole of it: one control plane, some hosts, the links between them, and a die.

use std::{collections::BTreeMap, sync::Arc};

use envelope::{
    keys::{SigningKey, role},
    messages::{ApprovalThresholds, ReportPosition, RootMetadata, SealingKeyBytes},
    root::{TrustedRoot, sign_root},
};
use fleet::{
    model::{CommandStatus, Host, HostStanding, UserRole, UserSession},
    operation::{CancelDecision, CancelOrigin, OperationRequest, Target, Work, command_cancel, operation_propose},
    ports::{AuditEntry, AuditRecord, Write},
};
use ids::{
    AuditLogId, BootId, CommandId, DurationMs, Epoch, FleetId, HostEpoch, HostId, OperationId, RootVersion, Sequence,
    Sha256, TlsExporter, UnixMs, UserId,
};
use session::agent::io::{Input, JournalState};

use crate::{
    agent::{self, SimHost},
    control::{self, Control, DiskFault},
    invariants::{Ledger, Violation},
    network::{Link, LinkId},
    random::Random,
};

/// When the world begins.
const BEGINNING: UnixMs = UnixMs(1_700_000_000_000);
/// Steps given to a world without faults to come to rest.
const REST_STEPS_MAX: u32 = 20_000;
/// Commands open at a time, so that a run is about faults and not about queues.
const OPEN_COMMANDS_MAX: usize = 12;

/// How a run went, to see that it was about something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Commands proposed.
    pub proposed: usize,
    /// Commands that ended.
    pub ended: usize,
    /// Of these, ended well.
    pub succeeded: usize,
    /// Agents killed, hosts rebooted, control planes killed.
    pub kills: usize,
    /// Connections cut.
    pub cuts: usize,
    /// Frames dropped, doubled or swapped.
    pub meddled: usize,
    /// Hosts in quarantine at the end.
    pub quarantined: usize,
}

/// A seeded world.
pub struct World {
    seed: u64,
    random: Random,
    now: UnixMs,
    control: Control,
    is_control_up: bool,
    hosts: Vec<SimHost>,
    links: BTreeMap<LinkId, Link>,
    last_link: u64,
    ledger: Ledger,
    step: u32,
    summary: Summary,
    /// Copies of disks, for restored machines.
    copies: BTreeMap<HostId, JournalState>,
}

/// Something that can happen now.
#[derive(Clone, Copy)]
enum Event {
    Up(LinkId),
    Down(LinkId),
    EndOfLink(LinkId),
    Answer(LinkId),
    Persist(usize),
    Work(usize, CommandId),
    Dial(usize),
    Start(usize),
    StartControl,
}

/// A person, or a fault.
#[derive(Clone, Copy)]
enum Surprise {
    Propose,
    Cancel,
    Revoke,
    Cut,
    Meddle,
    KillAgent,
    Reboot,
    KillControl,
    Skew,
    Policy,
    CopyDisk,
    RestoreDisk,
    Pass,
}

const SURPRISES: [(u64, Surprise); 13] = [
    (260, Surprise::Propose),
    (60, Surprise::Cancel),
    (3, Surprise::Revoke),
    (60, Surprise::Cut),
    (60, Surprise::Meddle),
    (60, Surprise::KillAgent),
    (12, Surprise::Reboot),
    (25, Surprise::KillControl),
    (10, Surprise::Skew),
    (10, Surprise::Policy),
    (10, Surprise::CopyDisk),
    (6, Surprise::RestoreDisk),
    (424, Surprise::Pass),
];

impl World {
    /// A fleet with `hosts` hosts, all of them enrolled and off.
    #[must_use]
    pub fn new(seed: u64, hosts: u8) -> Self {
        let mut random = Random::new(seed);
        let (control, root_sha256, root) = fleet(&mut random);
        let mut world = Self {
            seed,
            random,
            now: BEGINNING,
            control,
            is_control_up: true,
            hosts: Vec::new(),
            links: BTreeMap::new(),
            last_link: 0,
            ledger: Ledger::default(),
            step: 0,
            summary: Summary::default(),
            copies: BTreeMap::new(),
        };
        for number in 0..hosts {
            world.enrol(number, root_sha256, &root);
        }
        world
    }

    /// The same world, keeping a trace for the reader of a violation.
    #[must_use]
    pub fn traced(mut self) -> Self {
        self.ledger.trace = Some(Vec::new());
        self
    }

    fn enrol(&mut self, number: u8, root_sha256: Sha256, root: &[u8]) {
        let identity = self.random.bytes();
        let id = HostId::new_v7(self.now, self.random.bytes());
        let host = Host {
            id,
            name: format!("host-{number}").parse().expect("invariant: a valid name"),
            roles: Vec::new(),
            identity_key: SigningKey::<role::Agent>::from_seed(&identity).public(),
            sealing_key: SealingKeyBytes([9; 32]),
            host_epoch: HostEpoch(1),
            standing: HostStanding::Active,
            allocated: Sequence(0),
            acknowledged: Sequence(0),
            last_report: ReportPosition::START,
            audit_head: None,
            boots: Vec::new(),
            actions: agent::action_refs(),
            agent_version: String::new(),
            root_version: RootVersion(1),
            enrolled_at: self.now,
            last_seen: None,
            receipt: Vec::new(),
        };
        self.control.store.hosts.insert(id, host);
        self.hosts.push(SimHost {
            id,
            fleet: self.control.fleet,
            identity,
            root_sha256,
            disk: JournalState { root_chain: vec![root.to_vec()], ..JournalState::default() },
            boot: BootId::from_bytes(self.random.bytes()),
            booted_at: self.now.minus(DurationMs::from_mins(10)),
            skew: 0,
            refuses: false,
            process: None,
        });
    }

    /// Takes so many steps with faults, then lets the world come to rest without any.
    ///
    /// # Errors
    /// With the seed and the step when an invariant was broken, or the world found no rest.
    pub fn run(mut self, steps: u32) -> Result<Summary, Violation> {
        for _ in 0..steps {
            self.turn(true)?;
        }
        for _ in 0..REST_STEPS_MAX {
            if self.is_at_rest() {
                self.ledger.check_end(&self.control.store);
                self.check()?;
                return Ok(self.summed_up());
            }
            self.turn(false)?;
        }
        let open = self.control.unsettled();
        let what = format!("no rest: commands without an end: {open:?}");
        Err(self.violation(what))
    }

    fn turn(&mut self, with_surprises: bool) -> Result<(), Violation> {
        self.step += 1;
        if with_surprises && self.random.chance(350) {
            self.surprise();
        } else {
            self.happen(with_surprises);
        }
        self.check()
    }

    fn check(&mut self) -> Result<(), Violation> {
        self.ledger.check(&self.control.store);
        match self.ledger.broken.take() {
            None => Ok(()),
            Some(what) => Err(self.violation(what)),
        }
    }

    fn violation(&mut self, what: String) -> Violation {
        let trace = self.ledger.trace.take().unwrap_or_default();
        Violation { seed: self.seed, step: self.step, what, trace }
    }

    fn is_at_rest(&self) -> bool {
        self.control.unsettled().is_empty()
    }

    fn summed_up(&self) -> Summary {
        let store = &self.control.store;
        let count = |wanted: fn(CommandStatus) -> bool| store.commands.values().filter(|c| wanted(c.status)).count();
        let is_quarantined = |host: &&Host| matches!(host.standing, HostStanding::Quarantined { .. });
        Summary {
            proposed: store.commands.len(),
            ended: count(CommandStatus::is_end),
            succeeded: count(|status| status == CommandStatus::Succeeded),
            quarantined: store.hosts.values().filter(is_quarantined).count(),
            ..self.summary
        }
    }

    fn random_host(&mut self) -> usize {
        usize::try_from(self.random.below(self.hosts.len() as u64)).unwrap_or(0)
    }
}

/// A control plane with a root of one key.
fn fleet(random: &mut Random) -> (Control, Sha256, Vec<u8>) {
    let root_key = SigningKey::<role::Root>::from_seed(&random.bytes());
    let session = SigningKey::<role::Session>::from_seed(&random.bytes());
    let command = SigningKey::<role::Command>::from_seed(&random.bytes());
    let audit = SigningKey::<role::Audit>::from_seed(&random.bytes());
    let metadata = RootMetadata {
        version: RootVersion(1),
        issued: BEGINNING,
        expires: BEGINNING.plus(DurationMs::from_days(400)),
        fleet: FleetId::from_bytes(random.bytes()),
        root_keys: vec![root_key.public()],
        root_threshold: 1,
        addresses: vec!["control.example:7443".to_owned()],
        recovery_keys: Vec::new(),
        session_keys: vec![session.public()],
        command_keys: vec![command.public()],
        approver_keys: Vec::new(),
        approvals: ApprovalThresholds::default(),
        audit_key: audit.public(),
        audit_log: AuditLogId::from_bytes(random.bytes()),
        restored_log: None,
        tls_pins: vec![Sha256(random.bytes()), Sha256(random.bytes())],
        protocol_min: 1,
        epoch: Epoch(1),
    };
    let envelope = sign_root(&[&root_key], &metadata);
    let root = TrustedRoot::pin_key(&envelope, root_key.public()).expect("invariant: our own root verifies");
    let sha256 = root.payload_sha256();
    (Control::new(Arc::new(root), session, command), sha256, envelope)
}

/// What can happen by itself.
impl World {
    fn events(&self) -> Vec<Event> {
        let mut events = Vec::new();
        for (id, link) in &self.links {
            let peer = self.control.peers.get(id);
            if !link.up.is_empty() && peer.is_some_and(control::Peer::reads) {
                events.push(Event::Up(*id));
            }
            if !link.down.is_empty() {
                events.push(Event::Down(*id));
            } else if link.is_closing || (peer.is_none() && self.is_control_up) {
                events.push(Event::EndOfLink(*id));
            }
            if peer.is_some_and(control::Peer::waits) {
                events.push(Event::Answer(*id));
            }
        }
        for (index, host) in self.hosts.iter().enumerate() {
            let Some(process) = &host.process else {
                events.push(Event::Start(index));
                continue;
            };
            if !process.unsynced.is_empty() {
                events.push(Event::Persist(index));
            }
            events.extend(process.runs.keys().map(|command| Event::Work(index, *command)));
            if process.link.is_none() && !process.stays_away && self.is_control_up {
                events.push(Event::Dial(index));
            }
        }
        if !self.is_control_up {
            events.push(Event::StartControl);
        }
        events
    }

    fn happen(&mut self, with_faults: bool) {
        let events = self.events();
        let idle = events.is_empty();
        if idle || self.random.chance(if with_faults { 200 } else { 20 }) {
            self.pass_time(idle, with_faults);
        }
        let Some(event) = self.random.pick(&events).copied() else { return };
        match event {
            Event::Up(link) => self.deliver_up(link),
            Event::Down(link) => self.deliver_down(link),
            Event::EndOfLink(link) => self.cut(link),
            Event::Answer(link) => {
                let fault = match self.random.below(1000) {
                    0..20 if with_faults => DiskFault::Refused,
                    20..40 if with_faults => DiskFault::AnswerLost,
                    _ => DiskFault::None,
                };
                let said = self.control.answer(link, fault, self.now, &mut self.random, &mut self.ledger);
                self.control_says(said);
            }
            Event::Persist(host) => {
                let said = self.hosts[host].persist(self.now, &mut self.ledger);
                self.host_says(host, said);
            }
            Event::Work(host, command) => {
                let said = self.hosts[host].work(command, self.now, &mut self.random, &mut self.ledger);
                self.host_says(host, said);
            }
            Event::Dial(host) => self.dial(host),
            Event::Start(host) => self.hosts[host].start(self.now, &mut self.ledger),
            Event::StartControl => self.is_control_up = true,
        }
    }

    /// Time goes on, a little or a lot, and whoever asked to be woken is.
    fn pass_time(&mut self, idle: bool, with_faults: bool) {
        let span = if idle {
            self.next_wake().map_or(1_000, |span| span.0 + 1)
        } else if with_faults && self.random.chance(20) {
            self.random.below(900_000)
        } else {
            self.random.below(300)
        };
        self.now = self.now.plus(DurationMs(span));
        for host in 0..self.hosts.len() {
            if self.hosts[host].wakes_in(self.now) == Some(DurationMs(0)) {
                let said = self.hosts[host].input(Input::Tick, self.now, &mut self.ledger);
                self.host_says(host, said);
            }
        }
        let due = |peer: &control::Peer| peer.wake_at().is_some_and(|at| at <= self.now);
        let links: Vec<_> = self.control.peers.iter().filter(|(_, peer)| due(peer)).map(|(link, _)| *link).collect();
        for link in links {
            let tick = fleet::dispatch::Input::Tick;
            let said = self.control.input(link, tick, self.now, &mut self.random, &mut self.ledger);
            self.control_says(said);
        }
        if self.is_control_up {
            self.control.expire(self.now, &mut self.ledger);
        }
    }

    fn next_wake(&self) -> Option<DurationMs> {
        let hosts = self.hosts.iter().filter_map(|host| host.wakes_in(self.now));
        let peers = self.control.peers.values().filter_map(control::Peer::wake_at).map(|at| at.since(self.now));
        hosts.chain(peers).filter(|span| span.0 > 0).min()
    }

    fn dial(&mut self, host: usize) {
        self.last_link += 1;
        let (link, exporter) = (LinkId(self.last_link), TlsExporter(self.random.bytes()));
        self.links.insert(link, Link::new(self.hosts[host].id, exporter));
        let ends = &self.links[&link];
        self.control.accept(link, ends.control_exporter);
        let exporter = ends.agent_exporter;
        let (now, id) = (self.now.0, self.hosts[host].id);
        self.ledger.note(|| format!("{now} agent {id}: dials, {link:?}"));
        let said = self.hosts[host].connected(link, exporter, self.now, &mut self.random, &mut self.ledger);
        self.host_says(host, said);
    }

    fn deliver_up(&mut self, link: LinkId) {
        let Some(frame) = self.links.get_mut(&link).and_then(|link| link.up.pop_front()) else { return };
        let said = self.control.receive(link, frame, self.now, &mut self.random, &mut self.ledger);
        self.control_says(said);
    }

    fn deliver_down(&mut self, link: LinkId) {
        let Some(of_link) = self.links.get_mut(&link) else { return };
        let Some(frame) = of_link.down.pop_front() else { return };
        let Some(host) = self.hosts.iter().position(|host| host.id == of_link.host) else { return };
        let is_current = self.hosts[host].process.as_ref().is_some_and(|process| process.link == Some(link));
        if is_current {
            let said = self.hosts[host].input(Input::Received(frame), self.now, &mut self.ledger);
            self.host_says(host, said);
        }
    }

    fn host_says(&mut self, host: usize, said: Vec<agent::Said>) {
        for said in said {
            let Some(process) = &mut self.hosts[host].process else { return };
            let Some(link) = process.link else { continue };
            match said {
                agent::Said::Frame(frame) => {
                    if let Some(link) = self.links.get_mut(&link) {
                        link.up.push_back(frame);
                    }
                }
                agent::Said::Close => {
                    process.link = None;
                    self.links.remove(&link);
                    self.control.peers.remove(&link);
                }
            }
        }
    }

    fn control_says(&mut self, said: Vec<(LinkId, control::Said)>) {
        for (link, said) in said {
            let Some(link) = self.links.get_mut(&link) else { continue };
            match said {
                control::Said::Frame(frame) => link.down.push_back(frame),
                control::Said::Close => link.is_closing = true,
            }
        }
    }

    /// The connection is gone for both ends, with all that was under way on it.
    fn cut(&mut self, link: LinkId) {
        let Some(gone) = self.links.remove(&link) else { return };
        self.control.peers.remove(&link);
        let Some(host) = self.hosts.iter().position(|host| host.id == gone.host) else { return };
        let Some(process) = &mut self.hosts[host].process else { return };
        if process.link == Some(link) {
            process.link = None;
            let said = self.hosts[host].input(Input::Disconnected, self.now, &mut self.ledger);
            self.host_says(host, said);
        }
    }
}

/// What people and misfortune do.
impl World {
    fn surprise(&mut self) {
        let mut die = self.random.below(SURPRISES.iter().map(|(weight, _)| weight).sum());
        let chosen = SURPRISES.iter().find(|(weight, _)| {
            let is_it = die < *weight;
            die = die.saturating_sub(*weight);
            is_it
        });
        match chosen.map_or(Surprise::Pass, |(_, surprise)| *surprise) {
            Surprise::Propose => self.propose(),
            Surprise::Cancel => self.cancel(),
            Surprise::Revoke => self.revoke(),
            Surprise::Cut => self.cut_any(),
            Surprise::Meddle => self.meddle(),
            Surprise::KillAgent => self.kill_agent(false),
            Surprise::Reboot => self.kill_agent(true),
            Surprise::KillControl => self.kill_control(),
            Surprise::Skew => {
                let host = self.random_host();
                let milliseconds = i64::try_from(self.random.below(1_200_000)).unwrap_or(0);
                self.hosts[host].skew = milliseconds - 600_000;
            }
            Surprise::Policy => {
                let host = self.random_host();
                self.hosts[host].refuses = !self.hosts[host].refuses && self.random.chance(400);
            }
            Surprise::CopyDisk => {
                let host = self.random_host();
                self.copies.insert(self.hosts[host].id, self.hosts[host].disk.clone());
            }
            Surprise::RestoreDisk => self.restore_disk(),
            Surprise::Pass => self.pass_time(false, true),
        }
    }

    fn actor(&self) -> UserSession {
        UserSession {
            token_sha256: Sha256::ZERO,
            user: UserId::from_bytes([1; 16]),
            user_name: "admin".parse().expect("invariant: a valid name"),
            role: UserRole::Admin,
            created_at: BEGINNING,
            expires: BEGINNING.plus(DurationMs::from_days(4_000)),
        }
    }

    fn propose(&mut self) {
        if self.control.unsettled().len() >= OPEN_COMMANDS_MAX {
            return;
        }
        let (action, parameters) = match self.random.below(4) {
            0 => ("host.facts", "{}".to_owned()),
            1 => ("docker.containers", "{}".to_owned()),
            _ => ("app.remove", format!(r#"{{"app":"shop-{}"}}"#, self.random.below(2))),
        };
        let host = self.random_host();
        let queue_for = self.random.chance(300).then(|| DurationMs::from_secs(1 + self.random.below(120)));
        let request = OperationRequest {
            id: OperationId::new_v7(self.now, self.random.bytes()),
            work: Work::Action {
                action: action.parse().expect("invariant: a registered action"),
                version: None,
                parameters: parameters.into_bytes(),
            },
            targets: vec![Target { host: self.hosts[host].id, sealed: Vec::new() }],
            queue_for,
            dry_run: self.random.chance(100),
        };
        let hosts: Vec<Host> = self.control.store.hosts.values().cloned().collect();
        let (now, fleet, actor) = (self.now, self.control.fleet, self.actor());
        let random = &mut self.random;
        let mut ids = || CommandId::new_v7(now, random.bytes());
        // A host that is quarantined or revoked is refused here, in words.
        let Ok(proposed) = operation_propose(fleet, request, &actor, &hosts, now, &mut ids) else { return };
        self.control.write(&proposed.into_write(), &mut self.ledger);
        self.tell(host, false);
    }

    fn tell(&mut self, host: usize, is_revoked: bool) {
        let id = self.hosts[host].id;
        if self.is_control_up {
            let said = self.control.host_changed(id, is_revoked, self.now, &mut self.random, &mut self.ledger);
            self.control_says(said);
        }
    }

    fn cancel(&mut self) {
        let open = self.control.unsettled();
        let Some(command) = self.random.pick(&open).and_then(|id| self.control.store.commands.get(id)).cloned() else {
            return;
        };
        let Some(host) = self.hosts.iter().position(|host| host.id == command.order.host) else { return };
        let (now, actor, fleet) = (self.now, self.actor(), self.control.fleet);
        let operation = OperationId::new_v7(now, self.random.bytes());
        let random = &mut self.random;
        let mut ids = || CommandId::new_v7(now, random.bytes());
        let origin = CancelOrigin { fleet, operation, actor: &actor, now };
        let row = self.control.store.hosts[&command.order.host].clone();
        let write = match command_cancel(origin, &command, &row, &mut ids) {
            Ok(CancelDecision::End(write)) => *write,
            Ok(CancelDecision::Order(proposed)) => proposed.into_write(),
            // A cancellation cannot be cancelled, and a quarantined host gets no orders.
            Err(_) => return,
        };
        self.control.write(&write, &mut self.ledger);
        self.tell(host, false);
    }

    fn revoke(&mut self) {
        let host = self.random_host();
        let id = self.hosts[host].id;
        let audit = AuditEntry {
            time: self.now,
            kind: envelope::audit::AuditKind::HostRevoked,
            actor: "admin".to_owned(),
            subject: format!("host {id}"),
            record: AuditRecord::Inline(b"{}".to_vec()),
        };
        self.control.write(&Write::HostRevoke { host: id, at: self.now, audit }, &mut self.ledger);
        self.tell(host, true);
    }

    fn any_link(&mut self) -> Option<LinkId> {
        let links: Vec<_> = self.links.keys().copied().collect();
        self.random.pick(&links).copied()
    }

    fn cut_any(&mut self) {
        if let Some(link) = self.any_link() {
            self.summary.cuts += 1;
            self.ledger.note(|| format!("cut {link:?}"));
            self.cut(link);
        }
    }

    /// Somebody between the two drops, doubles or swaps frames.
    fn meddle(&mut self) {
        let Some(link) = self.any_link().and_then(|link| self.links.get_mut(&link)) else { return };
        self.summary.meddled += 1;
        match self.random.below(6) {
            0 => drop(link.up.pop_front()),
            1 => drop(link.down.pop_front()),
            2 => link.up.extend(link.up.front().cloned()),
            3 => link.down.extend(link.down.front().cloned()),
            4 if link.up.len() > 1 => link.up.swap(0, 1),
            5 if link.down.len() > 1 => link.down.swap(0, 1),
            _ => {}
        }
    }

    fn kill_agent(&mut self, with_reboot: bool) {
        let host = self.random_host();
        self.summary.kills += 1;
        let link =
            if with_reboot { self.hosts[host].reboot(self.now, &mut self.random) } else { self.hosts[host].kill() };
        // What it had sent still arrives; the control plane learns of the end later, or by a new session.
        if let Some(link) = link
            && self.random.chance(500)
        {
            self.cut(link);
        }
    }

    fn kill_control(&mut self) {
        self.summary.kills += 1;
        self.ledger.note(|| "control: killed".to_owned());
        self.is_control_up = false;
        let links: Vec<_> = self.links.keys().copied().collect();
        for link in links {
            self.cut(link);
        }
        self.control.peers.clear();
    }

    /// A machine comes back from an old copy of its disk, unless that could not be noticed: what was
    /// started and never acknowledged is forgotten with it, as the protocol's documentation says.
    fn restore_disk(&mut self) {
        let host = self.random_host();
        let id = self.hosts[host].id;
        let Some(copy) = self.copies.get(&id).cloned() else { return };
        let acknowledged = self.control.store.hosts[&id].acknowledged;
        if self.hosts[host].disk.high > acknowledged || copy.high >= acknowledged {
            return;
        }
        self.summary.kills += 1;
        if let Some(link) = self.hosts[host].reboot(self.now, &mut self.random) {
            self.cut(link);
        }
        self.hosts[host].disk = copy;
        let now = self.now.0;
        self.ledger.note(|| format!("{now} disk of {id}: an old copy"));
    }
}
