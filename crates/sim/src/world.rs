//! The whole of it: one control plane, some hosts, the links between them, and a die.

use std::{collections::BTreeMap, sync::Arc};

use envelope::{
    audit::AuditKind,
    keys::{SigningKey, role},
    messages::{ApprovalThresholds, ReportPosition, RootMetadata, SealingKeyBytes},
    root::{TrustedRoot, sign_root},
};
use fleet::model::{CommandStatus, Host, HostStanding};
use ids::{AuditLogId, BootId, DurationMs, Epoch, FleetId, HostEpoch, HostId, RootVersion, Sequence, Sha256, UnixMs};
use session::agent::io::JournalState;

use crate::{
    agent::{self, SimHost},
    control::Control,
    invariants::{Ledger, Violation},
    network::{Link, LinkId},
    random::Random,
    rotation::Rotation,
};

/// When the world begins.
pub(crate) const BEGINNING: UnixMs = UnixMs(1_700_000_000_000);
/// Steps given to a world without faults to come to rest.
const REST_STEPS_MAX: u32 = 20_000;
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
    /// Commands that somebody approved.
    pub approved: usize,
    /// Frames dropped, doubled or swapped.
    pub meddled: usize,
    /// Times a host was quarantined.
    pub quarantined: usize,
    /// Changes of hosts' keys.
    pub rotated: usize,
    /// Quarantines that were ended.
    pub released: usize,
    /// Changes of the control plane's keys that were carried through.
    pub keys_changed: usize,
    /// Of these, stolen command keys that were shut out.
    pub revoked: usize,
    /// Hosts that left the fleet when they were told to.
    pub retired: usize,
    /// Standing orders that were signed anew.
    pub renewed: usize,
}

/// How a run with a cut log went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cut {
    /// Signed heads went with what was cut.
    pub was_cut: bool,
    /// Hosts that had seen more than was left.
    pub held: usize,
    /// Of these, shown by the control plane as what gets no orders.
    pub quarantined: usize,
    /// Times an agent refused the log it was shown.
    pub refusals: usize,
}

/// A seeded world.
pub struct World {
    pub(crate) seed: u64,
    pub(crate) random: Random,
    pub(crate) now: UnixMs,
    pub(crate) control: Control,
    pub(crate) is_control_up: bool,
    pub(crate) hosts: Vec<SimHost>,
    pub(crate) links: BTreeMap<LinkId, Link>,
    pub(crate) last_link: u64,
    pub(crate) ledger: Ledger,
    pub(crate) rotation: Rotation,
    pub(crate) step: u32,
    pub(crate) summary: Summary,
    /// Copies of disks, for restored machines.
    pub(crate) copies: BTreeMap<HostId, (JournalState, Vec<[u8; 32]>)>,
}

impl World {
    /// A fleet with `hosts` hosts, all of them enrolled and off.
    #[must_use]
    pub fn new(seed: u64, hosts: u8) -> Self {
        let mut random = Random::new(seed);
        let (control, root_sha256, root, rotation) = fleet(&mut random);
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
            rotation,
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
            labels: Default::default(),
            identity_key: SigningKey::<role::Agent>::from_seed(&identity).public(),
            sealing_key: SealingKeyBytes([9; 32]),
            host_epoch: HostEpoch(1),
            standing: HostStanding::Active,
            quarantine: Default::default(),
            clock_skew_ms: None,
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
            keys: vec![identity],
            lives: 0,
            root_sha256,
            disk: JournalState { root_chain: vec![root.to_vec()], ..JournalState::default() },
            // Around half the life of its keys: some are due to be replaced, some become due.
            enrolled_at: self.now.minus(DurationMs::from_days(self.random.below(50))),
            boot: BootId::from_bytes(self.random.bytes()),
            booted_at: self.now.minus(DurationMs::from_mins(10)),
            skew: 0,
            refuses: false,
            has_secrets: true,
            has_left: false,
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
                let seen: Vec<_> = self.hosts.iter().map(|host| (host.id, host.disk.audit_head)).collect();
                self.ledger.check_log(&self.control.store, &seen);
                self.check_refusals();
                self.check_standing(true);
                self.check()?;
                return Ok(self.summed_up());
            }
            if self.random.chance(100) {
                self.rotate(false);
            }
            self.turn(false)?;
        }
        let open = self.control.unsettled();
        let what = format!(
            "no rest: commands without an end: {open:?}, with other keys: {:?}, not released: {:?}, behind: {:?}",
            self.stranded(),
            self.unreleased(),
            self.behind()
        );
        Err(self.violation(what))
    }

    /// Takes steps with faults; then the audit log at the control plane loses its end, and goes on from there, for
    /// as many steps again. A host that had seen more takes nothing from then on; the others go on.
    ///
    /// `is_lying`: whoever cut the log also runs the control plane, so it says nothing of what hosts hold.
    ///
    /// # Errors
    /// When an invariant was broken, or a host that had seen more took an order or another head.
    pub fn run_cut(mut self, steps: u32, is_lying: bool) -> Result<Cut, Violation> {
        for _ in 0..steps {
            self.turn(true)?;
        }
        self.settle_disks();
        let kept = usize::try_from(self.random.below(self.control.store.audit.size() + 1)).unwrap_or(0);
        let before = self.control.store.audit.heads.last().map_or(0, |head| head.position.size);
        self.control.store.audit.cut(kept);
        self.control.is_lying = is_lying;
        let seen_more = |host: &SimHost| host.disk.audit_head.is_some_and(|head| head.size > kept as u64);
        let held: Vec<_> =
            self.hosts.iter().filter(|host| seen_more(host)).map(|host| (host.id, host.disk.clone())).collect();
        for _ in 0..steps {
            // Old disks come back in the other runs; here they would forget what they had seen.
            self.copies.clear();
            self.turn(true)?;
        }
        let mut cut = Cut { refusals: self.ledger.refusals, was_cut: before > kept as u64, ..Cut::default() };
        for (id, then) in held {
            let Some(host) = self.hosts.iter().find(|host| host.id == id) else { continue };
            cut.held += 1;
            cut.quarantined += usize::from(!matches!(self.control.store.hosts[&id].standing, HostStanding::Active));
            if (host.disk.high, host.disk.audit_head) != (then.high, then.audit_head) {
                let what = format!("host {id} had seen {:?}, and took {:?}", then.audit_head, host.disk.audit_head);
                return Err(self.violation(what));
            }
        }
        Ok(cut)
    }

    /// What was under way at every host becomes durable, and every connection ends.
    fn settle_disks(&mut self) {
        let links: Vec<_> = self.links.keys().copied().collect();
        links.into_iter().for_each(|link| self.cut(link));
        for host in &mut self.hosts {
            while host.process.as_ref().is_some_and(|process| !process.unsynced.is_empty()) {
                host.persist(self.now, &mut self.ledger);
            }
        }
    }

    fn turn(&mut self, with_surprises: bool) -> Result<(), Violation> {
        self.step += 1;
        if self.random.chance(60) {
            self.keep_standing();
        }
        if with_surprises && self.random.chance(350) {
            self.surprise();
        } else if !with_surprises && self.random.chance(20) {
            self.approve();
        } else {
            self.happen(with_surprises);
        }
        self.check()
    }

    fn check(&mut self) -> Result<(), Violation> {
        self.ledger.check(&self.control.store);
        for host in &self.hosts {
            self.ledger.check_retired(&self.control.store, host);
        }
        self.check_standing(false);
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
            && self.stranded().is_none()
            && self.unreleased().is_none()
            && !self.is_rotating()
            && !self.is_standing_due()
    }

    /// A host that takes orders, and whose keys in force are not those on record: a rotation that is not through.
    fn stranded(&self) -> Option<HostId> {
        let is_stranded = |host: &&SimHost| {
            let record = &self.control.store.hosts[&host.id];
            let ours = host.disk.host_epoch.unwrap_or(HostEpoch(1));
            record.standing == HostStanding::Active && record.host_epoch != ours
        };
        self.hosts.iter().find(is_stranded).map(|host| host.id)
    }

    /// A host whose release an admin asked for, and whose agent could be led on from where it is.
    fn unreleased(&self) -> Option<HostId> {
        let is_unreleased = |host: &&SimHost| {
            let record = &self.control.store.hosts[&host.id];
            let ours = host.disk.host_epoch.unwrap_or(HostEpoch(1));
            matches!(record.standing, HostStanding::Quarantined { .. })
                && record.quarantine.release.is_some()
                && record.quarantine.release == host.disk.quarantine
                && record.host_epoch == ours
        };
        self.hosts.iter().find(is_unreleased).map(|host| host.id)
    }

    fn summed_up(&self) -> Summary {
        let store = &self.control.store;
        let count = |wanted: fn(CommandStatus) -> bool| store.commands.values().filter(|c| wanted(c.status)).count();
        let leaves = |kinds: &[AuditKind]| store.audit.kinds.iter().filter(|kind| kinds.contains(kind)).count();
        Summary {
            proposed: store.commands.len(),
            ended: count(CommandStatus::is_end),
            succeeded: count(|status| status == CommandStatus::Succeeded),
            quarantined: leaves(&[AuditKind::Quarantine, AuditKind::Alarm, AuditKind::Fork]),
            rotated: store.former_keys.values().map(Vec::len).sum(),
            released: leaves(&[AuditKind::GuardReset]),
            keys_changed: self.rotation.rotated,
            revoked: self.rotation.revoked,
            retired: store.hosts.values().filter(|host| is_retired(host)).count(),
            ..self.summary
        }
    }

    /// The time as the control plane's clock has it.
    pub(crate) const fn control_now(&self) -> UnixMs {
        self.control.clock(self.now)
    }

    pub(crate) fn random_host(&mut self) -> usize {
        usize::try_from(self.random.below(self.hosts.len() as u64)).unwrap_or(0)
    }
}

const fn is_retired(host: &Host) -> bool {
    matches!(host.standing, HostStanding::Revoked { is_retired: true, .. })
}

/// A control plane with a root of one key.
fn fleet(random: &mut Random) -> (Control, Sha256, Vec<u8>, Rotation) {
    let root_key = SigningKey::<role::Root>::from_seed(&random.bytes());
    let session = SigningKey::<role::Session>::from_seed(&random.bytes());
    let command = SigningKey::<role::Command>::from_seed(&random.bytes());
    let audit = SigningKey::<role::Audit>::from_seed(&random.bytes());
    let approver = SigningKey::<role::Approver>::from_seed(&random.bytes());
    // In some fleets somebody must look at what destroys.
    let destructive = u32::from(random.chance(400));
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
        approver_keys: vec![approver.public()],
        approvals: ApprovalThresholds { change: 0, destructive },
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
    (Control::new(Arc::new(root), session, command, audit, approver), sha256, envelope, Rotation::new(root_key))
}
