//! The real agent loop, on a disk that can lose what was not synced.

use std::collections::{BTreeMap, VecDeque};

use actions::Request;
use envelope::{
    keys::SigningKey,
    messages::{Order, ReportStatus},
    seal::SealingSecretKey,
};
use ids::*;
use serde_json::Value;
use session::{
    agent::{AgentIdentity, AgentLoop, NextKeys, end_message, io::*},
    frames::{ActionRef, AgentFrame},
};

use super::world::{AGENT_SEED, FLEET, HOST, START};

/// Judges by the real registry; a policy may forbid one action.
#[derive(Clone, Default)]
pub(crate) struct Registry {
    pub(crate) forbidden: Option<&'static str>,
}

impl Admission for Registry {
    fn judge(&self, order: &Order) -> Result<Admitted, Rejection> {
        if self.forbidden == Some(order.action.as_str()) {
            return Err(Rejection { message: "policy.toml line 3 does not allow it".to_owned() });
        }
        self.declared(order).ok_or_else(|| Rejection { message: format!("{} is not registered", order.action) })
    }

    fn declared(&self, order: &Order) -> Option<Admitted> {
        let request = Request::decode(&order.action, order.action_version, &order.parameters).ok()?;
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
        Some(Admitted { class: Class::Change, on_restart: OnRestart::Rerun, kind, approvals_min: 0 })
    }
}

pub(crate) fn actions_here() -> Vec<ActionRef> {
    let refs = actions::actions().iter().map(|info| ActionRef {
        name: info.name.parse().expect("a registered name"),
        version: info.version,
        schema_sha256: info.schema_sha256(),
    });
    let mut refs: Vec<ActionRef> = refs.collect();
    refs.sort();
    refs
}

pub(crate) struct Agent {
    machine: AgentLoop,
    pub(crate) disk: JournalState,
    unsynced: VecDeque<(WriteId, JournalWrite)>,
    pub(crate) running: Vec<CommandId>,
    /// Starts that did not say they were resumed: each command's must stay at one.
    pub(crate) fresh_starts: BTreeMap<CommandId, usize>,
    pub(crate) stopped: Vec<CommandId>,
    /// The last epoch for which there are keys beside the journal.
    pub(crate) keys: HostEpoch,
    /// Whether the keys to this host's secrets are there.
    pub(crate) has_secrets: bool,
    /// Why they cannot be destroyed, if they cannot.
    pub(crate) keeps_secrets: Option<String>,
    /// It has left its fleet and ended.
    pub(crate) has_left: bool,
    pub(crate) leases: Vec<(CommandId, u64, bool)>,
    pub(crate) closed: Vec<CloseReason>,
    pub(crate) registry: Registry,
    pub(crate) now: Clocks,
    pub(crate) boot: BootId,
    root_sha256: Sha256,
}

impl Agent {
    pub(crate) fn new(disk: JournalState, root_sha256: Sha256) -> Self {
        let now = Clocks { boot: BootMs(1_000), wall: START };
        let boot = BootId::from_bytes([0xb0; 16]);
        let registry = Registry::default();
        let machine = load(boot, root_sha256, &disk, HostEpoch(1), now, &registry).0;
        Self {
            machine,
            disk,
            unsynced: VecDeque::new(),
            running: Vec::new(),
            fresh_starts: BTreeMap::new(),
            stopped: Vec::new(),
            keys: HostEpoch(1),
            has_secrets: true,
            keeps_secrets: None,
            has_left: false,
            leases: Vec::new(),
            closed: Vec::new(),
            registry,
            now,
            boot,
            root_sha256,
        }
    }

    pub(crate) fn input(&mut self, input: Input) -> Vec<AgentFrame> {
        let effects = self.machine.handle(self.now, input, &self.registry);
        self.perform(effects)
    }

    /// Makes everything durable, and gives what that releases.
    pub(crate) fn sync(&mut self) -> Vec<AgentFrame> {
        let mut sent = Vec::new();
        while let Some((id, write)) = self.unsynced.pop_front() {
            self.disk.apply(&write);
            sent.extend(self.input(Input::Persisted(id)));
        }
        sent
    }

    /// Everything that runs ends.
    pub(crate) fn finish(&mut self, status: ReportStatus, result: &Value) -> Vec<AgentFrame> {
        let running = core::mem::take(&mut self.running);
        running
            .into_iter()
            .flat_map(|command| self.input(Input::Finished { command, end: end_message(status, "done", result) }))
            .collect()
    }

    /// Dies, and comes back from its disk, in the state `disk` if one is given (a restored copy).
    pub(crate) fn restart(&mut self, disk: Option<JournalState>) {
        self.unsynced.clear();
        self.running.clear();
        self.disk = disk.unwrap_or_else(|| self.disk.clone());
        let (machine, effects) = load(self.boot, self.root_sha256, &self.disk, self.keys, self.now, &self.registry);
        self.machine = machine;
        let sent = self.perform(effects);
        assert!(sent.is_empty(), "nobody is connected");
    }

    fn perform(&mut self, effects: Vec<Effect>) -> Vec<AgentFrame> {
        let mut sent = Vec::new();
        for effect in effects {
            match effect {
                Effect::Send(frame) => sent.push(frame),
                Effect::Close { why, .. } => self.closed.push(why),
                Effect::Persist(id, write) => self.unsynced.push_back((id, write)),
                Effect::Start(start) => {
                    let id = start.command.order.command;
                    *self.fresh_starts.entry(id).or_default() += usize::from(!start.resumed);
                    assert!(self.fresh_starts[&id] <= 1, "command {id} was started twice");
                    self.running.push(id);
                }
                Effect::Cancel(command) => self.stopped.push(command),
                Effect::MakeKeys { host_epoch } => {
                    self.keys = self.keys.max(host_epoch);
                    sent.extend(self.input(Input::KeysMade(Box::new(keys_of(host_epoch)))));
                }
                Effect::DropSecrets => {
                    assert!(self.disk.retirement.is_some(), "that it has begun is durable");
                    self.has_secrets &= self.keeps_secrets.is_some();
                    sent.extend(self.input(Input::SecretsDropped { failed: self.keeps_secrets.clone() }));
                }
                Effect::Retired => {
                    assert!(self.disk.has_left() && !self.has_secrets, "all of it is durable");
                    self.has_left = true;
                }
                Effect::OutputLease { command, until, over } => self.leases.push((command, until, over)),
                Effect::ReadReports { .. } => sent.extend(self.input(Input::ReportsRead(Vec::new()))),
                Effect::ReadCredentials { .. } => {}
                Effect::WakeAt(_) | Effect::Event(_) => {}
            }
        }
        sent
    }
}

fn load(
    boot: BootId,
    root_sha256: Sha256,
    disk: &JournalState,
    keys: HostEpoch,
    now: Clocks,
    registry: &Registry,
) -> (AgentLoop, Vec<Effect>) {
    let host_epoch = disk.host_epoch.unwrap_or(HostEpoch(1));
    let identity = AgentIdentity {
        fleet: FLEET,
        host: HOST,
        host_epoch,
        identity: keys_of(host_epoch).identity,
        keys_since: disk.keys_since.unwrap_or(START),
        boot,
        agent_version: "0.1.0".to_owned(),
        actions: actions_here(),
        root_sha256,
        next: (keys > host_epoch).then(|| keys_of(HostEpoch(host_epoch.0 + 1))),
    };
    AgentLoop::new(identity, disk.clone(), false, now, registry).expect("its own state loads")
}

/// The keys of this host in each of its epochs.
fn keys_of(host_epoch: HostEpoch) -> NextKeys {
    let seed = match host_epoch {
        HostEpoch(1) => AGENT_SEED,
        HostEpoch(epoch) => sha256(&epoch.to_be_bytes()).0,
    };
    let sealing = SealingSecretKey::from_bytes(&seed).public();
    NextKeys { host_epoch, identity: SigningKey::from_seed(&seed), sealing }
}
