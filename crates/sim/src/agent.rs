//! One host: its disk, its clock, its agent's process, and what runs in it.

use std::collections::{BTreeMap, VecDeque};

use actions::{Request, policy::ALWAYS_ALLOWED};
use envelope::{
    Verified, VerifyingKey,
    keys::{SigningKey, role},
    messages::{Command, Order, ReportStatus},
    root::TrustedRoot,
    seal::SealingSecretKey,
};
use ids::{
    ActionName, BootId, BootMs, Challenge, CommandId, DurationMs, FleetId, HostEpoch, HostId, QuarantineId, Sha256,
    UnixMs, sha256,
};
use session::{
    agent::{
        AgentIdentity, AgentLoop, NextKeys,
        io::{
            Admission, Admitted, AdmittedKind, AgentEvent, Clocks, Effect, End, Input, JournalState, JournalWrite,
            Rejection, StartCommand, WriteId,
        },
    },
    frames::{ActionRef, AgentFrame},
};

use crate::{invariants::Ledger, network::LinkId, random::Random};

/// A host. What is not `disk` is lost when its agent is killed.
pub(crate) struct SimHost {
    pub(crate) id: HostId,
    pub(crate) fleet: FleetId,
    /// Seeds of its keys, one for each of its epochs: each is on disk before it is used.
    pub(crate) keys: Vec<[u8; 32]>,
    /// How often it came back from an old copy: the keys it makes then are others.
    pub(crate) lives: u64,
    pub(crate) root_sha256: Sha256,
    pub(crate) disk: JournalState,
    /// When its first keys came into force.
    pub(crate) enrolled_at: UnixMs,
    pub(crate) boot: BootId,
    pub(crate) booted_at: UnixMs,
    /// How far its wall clock is off, in milliseconds.
    pub(crate) skew: i64,
    /// Whether its owner's policy refuses everything now.
    pub(crate) refuses: bool,
    /// Whether the keys to its secrets are there.
    pub(crate) has_secrets: bool,
    /// Its agent has ended for good.
    pub(crate) has_left: bool,
    pub(crate) process: Option<Process>,
}

/// A running agent.
pub(crate) struct Process {
    pub(crate) agent: AgentLoop,
    /// Asked for and not durable yet, in order.
    pub(crate) unsynced: VecDeque<(WriteId, JournalWrite)>,
    pub(crate) link: Option<LinkId>,
    pub(crate) runs: BTreeMap<CommandId, Run>,
    /// It was told to stay away.
    pub(crate) stays_away: bool,
    pub(crate) wake_at: Option<BootMs>,
}

/// An action at work.
pub(crate) struct Run {
    is_done: bool,
    is_cancelled: bool,
    backwards_only: bool,
}

/// What an agent's process asks of the network.
pub(crate) enum Said {
    Frame(AgentFrame),
    Close,
}

/// The registry of the real actions, and a policy that says yes or no to everything.
pub(crate) struct SimAdmission {
    pub(crate) refuses: bool,
}

impl Admission for SimAdmission {
    fn judge(&self, order: &Order) -> Result<Admitted, Rejection> {
        let admitted = self.declared(order).ok_or_else(|| Rejection { message: "not registered".to_owned() })?;
        if self.refuses && !ALWAYS_ALLOWED.contains(&order.action.as_str()) {
            return Err(Rejection { message: "the owner's policy refuses everything".to_owned() });
        }
        Ok(admitted)
    }

    fn declared(&self, order: &Order) -> Option<Admitted> {
        let request = Request::decode(&order.action, order.action_version, &order.parameters).ok()?;
        let info = actions::find(&order.action, order.action_version)?;
        if info.schema_sha256() != order.schema_sha256 {
            return None;
        }
        let kind = match (&request, request.lock()) {
            (Request::CommandCancel(cancel), _) => AdmittedKind::Cancel(cancel.command_id),
            (Request::HostKeysRotate(_), _) => AdmittedKind::RotateKeys,
            (Request::HostRetire(_), _) => AdmittedKind::Retire,
            (Request::StandingInstall(install), _) => AdmittedKind::StandingInstall(install.envelope()),
            (Request::StandingRenew(renew), _) => AdmittedKind::StandingRenew(renew.envelope()),
            (Request::StandingDrop(drop), _) => AdmittedKind::StandingDrop(drop.standing_order, drop.revision),
            (_, actions::Lock::App(app)) => AdmittedKind::Locked(app),
            (_, actions::Lock::None) => AdmittedKind::Free,
        };
        Some(Admitted { class: info.class, on_restart: info.on_restart, kind, approvals_min: 0 })
    }
}

/// The actions every simulated agent has: the real registry.
pub(crate) fn action_refs() -> Vec<ActionRef> {
    let action = |info: &actions::ActionInfo| ActionRef {
        name: info.name.parse::<ActionName>().expect("invariant: registered names obey the rule"),
        version: info.version,
        schema_sha256: info.schema_sha256(),
    };
    actions::actions().iter().map(action).collect()
}

impl SimHost {
    pub(crate) fn clocks(&self, now: UnixMs) -> Clocks {
        let boot = BootMs(now.since(self.booted_at).0);
        Clocks { boot, wall: UnixMs(now.0.saturating_add_signed(self.skew)) }
    }

    /// What its owner says.
    pub(crate) const fn admission(&self) -> SimAdmission {
        SimAdmission { refuses: self.refuses }
    }

    /// Whether root metadata that is durable here lists the key that signed it, in the epoch it was signed for.
    pub(crate) fn has_authority(&self, command: &Verified<Command>) -> bool {
        let Ok(root) = TrustedRoot::from_stored(&self.disk.root_chain) else { return false };
        let signed = |key: &VerifyingKey<role::Command>| key.key_id() == command.key_id();
        root.command_keys().iter().any(signed) && root.current().epoch == command.epoch
    }

    /// Starts the agent from what is durable.
    pub(crate) fn start(&mut self, now: UnixMs, ledger: &mut Ledger) {
        if self.disk.has_left() {
            ledger.left(self);
            self.has_left = true;
            return;
        }
        let host_epoch = self.disk.host_epoch.unwrap_or(HostEpoch(1));
        let identity = AgentIdentity {
            fleet: self.fleet,
            host: self.id,
            host_epoch,
            identity: self.keys_of(host_epoch).identity,
            keys_since: self.disk.keys_since.unwrap_or(self.enrolled_at),
            boot: self.boot,
            agent_version: "0.1.0".to_owned(),
            actions: action_refs(),
            root_sha256: self.root_sha256,
            next: (self.keys.len() as u64 > host_epoch.0).then(|| self.keys_of(HostEpoch(host_epoch.0 + 1))),
        };
        let admission = SimAdmission { refuses: self.refuses };
        match AgentLoop::new(identity, self.disk.clone(), false, self.clocks(now), &admission) {
            Ok((agent, effects)) => {
                self.process = Some(Process {
                    agent,
                    unsynced: VecDeque::new(),
                    link: None,
                    runs: BTreeMap::new(),
                    stays_away: false,
                    wake_at: None,
                });
                self.perform(effects, now, ledger);
            }
            Err(error) => ledger.break_it(format!("host {} cannot start from its own disk: {error}", self.id)),
        }
    }

    /// Its keys in one of its epochs.
    fn keys_of(&self, host_epoch: HostEpoch) -> NextKeys {
        let index = usize::try_from(host_epoch.0).unwrap_or(0).saturating_sub(1);
        let seed = self.keys[index];
        let sealing = SealingSecretKey::from_bytes(&seed).public();
        NextKeys { host_epoch, identity: SigningKey::from_seed(&seed), sealing }
    }

    /// Kills the agent: everything not durable is gone, and so is what ran. The disk may have kept so many
    /// writes whose acknowledgement the process did not live to see.
    pub(crate) fn kill(&mut self, kept: usize) -> Option<LinkId> {
        let process = self.process.take()?;
        for (_, write) in process.unsynced.iter().take(kept) {
            self.disk.apply(write);
        }
        process.link
    }

    /// Reboots the host: a new boot id, a boot-time clock from zero.
    pub(crate) fn reboot(&mut self, kept: usize, now: UnixMs, random: &mut Random) -> Option<LinkId> {
        let link = self.kill(kept);
        (self.boot, self.booted_at) = (BootId::from_bytes(random.bytes()), now);
        link
    }

    pub(crate) fn input(&mut self, input: Input, now: UnixMs, ledger: &mut Ledger) -> Vec<Said> {
        let clocks = self.clocks(now);
        let admission = SimAdmission { refuses: self.refuses };
        let Some(process) = &mut self.process else { return Vec::new() };
        let effects = process.agent.handle(clocks, input, &admission);
        self.perform(effects, now, ledger)
    }

    pub(crate) fn connected(
        &mut self,
        link: LinkId,
        exporter: ids::TlsExporter,
        now: UnixMs,
        random: &mut Random,
        ledger: &mut Ledger,
    ) -> Vec<Said> {
        if let Some(process) = &mut self.process {
            process.link = Some(link);
        }
        let nonce = Challenge(random.bytes());
        let quarantine = QuarantineId::from_bytes(random.bytes());
        self.input(Input::Connected { exporter, nonce, quarantine }, now, ledger)
    }

    fn perform(&mut self, effects: Vec<Effect>, now: UnixMs, ledger: &mut Ledger) -> Vec<Said> {
        let mut said = Vec::new();
        for effect in effects {
            if let Effect::Start(start) = &effect {
                ledger.start(self, start, now);
            }
            if let Effect::MakeKeys { host_epoch } = effect {
                if (self.keys.len() as u64) < host_epoch.0 {
                    let parts = [self.keys[0].as_slice(), &host_epoch.0.to_be_bytes(), &self.lives.to_be_bytes()];
                    self.keys.push(sha256(&parts.concat()).0);
                }
                let next = Box::new(self.keys_of(host_epoch));
                said.extend(self.input(Input::KeysMade(next), now, ledger));
                continue;
            }
            if let Effect::DropSecrets = effect {
                self.has_secrets = false;
                said.extend(self.input(Input::SecretsDropped { failed: None }, now, ledger));
                continue;
            }
            if let Effect::Retired = effect {
                ledger.left(self);
                self.has_left = true;
            }
            if let Effect::ReadReports { .. } = effect {
                said.extend(self.input(Input::ReportsRead(Vec::new()), now, ledger));
                continue;
            }
            let Some(process) = &mut self.process else { return said };
            match effect {
                Effect::Send(frame) => said.push(Said::Frame(frame)),
                Effect::Close { retry, .. } => {
                    process.stays_away |= !retry;
                    said.push(Said::Close);
                }
                Effect::Persist(id, write) => process.unsynced.push_back((id, write)),
                Effect::Start(start) => {
                    process.runs.insert(start.command.order.command, Run::new(&start));
                }
                Effect::OutputLease { .. }
                | Effect::MakeKeys { .. }
                | Effect::DropSecrets
                | Effect::Retired
                | Effect::ReadReports { .. }
                | Effect::ReadCredentials { .. } => {}
                Effect::Cancel(command) => {
                    if let Some(run) = process.runs.get_mut(&command) {
                        run.is_cancelled = true;
                    }
                }
                Effect::WakeAt(at) => process.wake_at = Some(at),
                Effect::Event(AgentEvent::AuditRefused { why }) => {
                    ledger.refusals += 1;
                    ledger.note(|| format!("{} agent {}: refuses the audit log: {why}", now.0, self.id));
                }
                Effect::Event(event) => ledger.note(|| format!("{} agent {}: {event:?}", now.0, self.id)),
            }
        }
        if self.has_left {
            // The process ends. Whoever it spoke with notices.
            self.process = None;
        }
        said
    }

    /// The oldest write becomes durable.
    pub(crate) fn persist(&mut self, now: UnixMs, ledger: &mut Ledger) -> Vec<Said> {
        let Some((id, write)) = self.process.as_mut().and_then(|process| process.unsynced.pop_front()) else {
            return Vec::new();
        };
        self.disk.apply(&write);
        ledger.note(|| format!("{} disk of {}: {write:?}", now.0, self.id));
        self.input(Input::Persisted(id), now, ledger)
    }

    /// Something that runs gets on: its effect, then its end.
    pub(crate) fn work(
        &mut self,
        command: CommandId,
        now: UnixMs,
        random: &mut Random,
        ledger: &mut Ledger,
    ) -> Vec<Said> {
        let id = self.id;
        let Some(run) = self.process.as_mut().and_then(|process| process.runs.get_mut(&command)) else {
            return Vec::new();
        };
        if !run.is_done && !run.is_cancelled && !run.backwards_only {
            run.is_done = true;
            ledger.effect(id, command);
            let text = "half way".to_owned();
            return self.input(Input::Progress { command, text }, now, ledger);
        }
        let status = match (run.backwards_only, run.is_done, run.is_cancelled) {
            (true, ..) => ReportStatus::RolledBack,
            (false, false, true) => ReportStatus::Cancelled,
            _ if random.chance(100) => ReportStatus::Failed,
            _ => ReportStatus::Succeeded,
        };
        if let Some(process) = &mut self.process {
            process.runs.remove(&command);
        }
        let result = br#"{"message":"simulated","result":{}}"#.to_vec();
        let end = End { status, result, output_sha256: sha256(b""), output_truncated: false };
        self.input(Input::Finished { command, end }, now, ledger)
    }

    /// How long until it wants to be woken, if it does.
    pub(crate) fn wakes_in(&self, now: UnixMs) -> Option<DurationMs> {
        let at = self.process.as_ref()?.wake_at?;
        Some(at.since(self.clocks(now).boot))
    }
}

/// Some orders end the agent's process each time they are run.
pub(crate) fn is_poison(command: CommandId) -> bool {
    command.as_bytes()[15] % 64 == 1
}

impl Run {
    const fn new(start: &StartCommand) -> Self {
        Self { is_done: false, is_cancelled: start.cancelled, backwards_only: start.backwards_only }
    }
}
