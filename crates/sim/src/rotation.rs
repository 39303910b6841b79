//! The command key and the session key are changed, step by step and at any moment; now and then one is stolen and shut
//! out. What is next is decided by `fleet::keys`, as in the control plane's shell; what is drafted and signed here is
//! what a person with the root key does.

use std::sync::Arc;

use envelope::{
    VerifyingKey,
    keys::{SigningKey, role},
    messages::{Report, ReportStatus},
    root::{Edit, OnlineRole, StagedKeys, TrustedRoot, next_version, sign_root},
    verify,
};
use fleet::{
    dispatch::Input,
    keys::{ChangeState, KeyChange, Reached, next_step},
    model::{Command, Host, HostStanding},
};
use ids::{DurationMs, HostId, UnixMs};

use crate::world::World;

/// What of a change survives a kill: here, all of it.
pub(crate) struct Rotation {
    root_key: SigningKey<role::Root>,
    open: Option<(KeyChange, [u8; 32])>,
    /// Changes that were carried through, and stolen keys that were shut out.
    pub(crate) rotated: usize,
    pub(crate) revoked: usize,
}

impl Rotation {
    pub(crate) const fn new(root_key: SigningKey<role::Root>) -> Self {
        Self { root_key, open: None, rotated: 0, revoked: 0 }
    }
}

impl World {
    /// The next step of the change that is open, or the first of another one.
    pub(crate) fn rotate(&mut self, may_begin: bool) {
        if !self.is_control_up {
            return;
        }
        match self.rotation.open.take() {
            Some((change, seed)) => self.go_on(change, seed),
            None if may_begin => self.begin_rotation(),
            None => {}
        }
    }

    fn begin_rotation(&mut self) {
        let seed = self.random.bytes();
        let fresh = SigningKey::<role::Command>::from_seed(&seed).public().into();
        let is_emergency = self.random.chance(100);
        let is_command = is_emergency || self.random.chance(600);
        let (role, old) = if is_command {
            (OnlineRole::Command, self.control.command_key.public().into())
        } else {
            (OnlineRole::Session, self.control.session_key.public().into())
        };
        let keys = StagedKeys { role, old, new: fresh, fresh, is_emergency };
        let change = KeyChange::new(keys, "sim".to_owned(), self.control_now());
        self.ledger.note(|| format!("rotation: {role} {keys:?}"));
        self.publish(&keys.publish(self.control.root.current()));
        self.rotation.open = Some((change, seed));
        if is_emergency {
            // Nothing stands between: the signer goes on with the key that the version names.
            self.rotation.revoked += 1;
            self.control.command_key = SigningKey::from_seed(&seed);
        }
    }

    fn go_on(&mut self, mut change: KeyChange, seed: [u8; 32]) {
        let now = self.control_now();
        let hosts: Vec<Host> = self.control.store.hosts.values().cloned().collect();
        let version = change.root_version.unwrap_or(self.control.root.version());
        let reached = Reached::of(&hosts, version, |_| true);
        while let Some(step) = next_step(&change, self.control.root.current(), &reached) {
            change.state = step.leads_to();
            match change.state {
                ChangeState::Published => {
                    change.root_version = Some(self.control.root.version());
                    // Who has that version is seen with the next look.
                    break;
                }
                ChangeState::Activated => {
                    change.activated_at = Some(now);
                    match change.keys.role {
                        OnlineRole::Session => self.control.session_key = SigningKey::from_seed(&seed),
                        _ => self.control.command_key = SigningKey::from_seed(&seed),
                    }
                }
                _ => {}
            }
        }
        let state = change.state;
        self.ledger.note(|| format!("{} rotation: {}", now.0, state.as_str()));
        if state.is_end() {
            self.rotation.rotated += 1;
            return;
        }
        let rests = self.standing_under(change.keys.old.id());
        if state == ChangeState::Activated && self.orders_before(&change, now) == 0 && rests == 0 {
            if change.keys.role == OnlineRole::Command {
                self.check_key_goes(change.keys.old.id());
            }
            self.publish(&change.keys.drop_old(self.control.root.current()));
        }
        self.rotation.open = Some((change, seed));
    }

    fn orders_before(&self, change: &KeyChange, now: UnixMs) -> usize {
        let Some((from, until)) = change.orders_before(now) else { return 0 };
        let is_waited_for = |command: &&Command| {
            !command.status.is_end() && command.delivered_at.is_some_and(|at| (from..=until).contains(&at))
        };
        self.control.store.commands.values().filter(is_waited_for).count()
    }

    /// The next version of root metadata: stored, in force, and every session is told.
    fn publish(&mut self, edits: &[Edit]) {
        let current = self.control.root.current();
        let issued = self.control_now().max(current.issued);
        let next = next_version(current, edits, issued).expect("invariant: edits fit the version they were made from");
        let mut root = TrustedRoot::clone(&self.control.root);
        let envelope = sign_root(&[&self.rotation.root_key], &next);
        root.advance(&envelope).expect("invariant: our own root key signed it");
        self.control.root = Arc::new(root);
        let now = self.control_now();
        let links: Vec<_> = self.control.peers.keys().copied().collect();
        for link in links {
            let said = self.control.input(link, Input::RootChanged, now, &mut self.random, &mut self.ledger);
            self.control_says(said);
        }
    }

    /// A change that is under way, or a host that takes orders and does not hold the root metadata in force.
    pub(crate) fn is_rotating(&self) -> bool {
        self.rotation.open.is_some() || self.behind().is_some()
    }

    pub(crate) fn behind(&self) -> Option<HostId> {
        let versions = self.control.root.chain().len();
        let is_active = |id: &HostId| self.control.store.hosts[id].standing == HostStanding::Active;
        let is_behind = |host: &&crate::agent::SimHost| is_active(&host.id) && host.disk.root_chain.len() < versions;
        self.hosts.iter().find(is_behind).map(|host| host.id)
    }

    /// At the end: unless a key was shut out, or a clock was set, which is what such times are judged by, no host ended an
    /// order because of its key while it could still have been started.
    pub(crate) fn check_refusals(&mut self) {
        if self.rotation.revoked > 0 || self.ledger.clock_was_set() {
            return;
        }
        let commands: Vec<Command> = self.control.store.commands.values().cloned().collect();
        for command in commands {
            let (host, id) = (command.order.host, command.order.command);
            let Some((envelope, seal)) = command.report.as_ref().zip(command.seals.last()) else { continue };
            let keys = self.control.store.identities(host);
            let keys: Vec<_> = keys.into_iter().filter_map(|key| VerifyingKey::try_from(key).ok()).collect();
            let Ok(report) = verify::<Report>(envelope, &keys) else { continue };
            let issued = seal.expires.minus(fleet::limits::SEAL_LIFETIME);
            let could_start = report.finished_at < issued.plus(DurationMs(command.order.start_within_ms));
            if report.status == ReportStatus::Revoked && could_start && !self.ledger.was_restored(host) {
                self.ledger
                    .break_it(format!("command {id} was refused because of its key, and nobody dropped it in need"));
            }
        }
    }
}
