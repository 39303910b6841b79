//! Standing orders are installed, dropped and signed anew at any moment. What is due is decided by `fleet::standing`, as in
//! the control plane's shell; the signer here is the key that is in use.

use envelope::{messages::StandingOrder, standing::shown};
use fleet::{
    model::{Host, HostStanding},
    operation::{
        Grounds, StandingRequest, standing_drop, standing_install, standing_judge, standing_order, standing_renew,
    },
    ports::Write,
    standing::{StandingRecord, StandingState, Wanted},
};
use ids::{CommandId, HostEpoch, HostId, KeyId, OperationId, Revision, StandingOrderId};

use crate::{agent::SimHost, world::World};

/// Standing orders of a fleet at a time: enough to have several on one host.
const ORDERS_MAX: usize = 6;
/// What takes a look at every order is done once in so many steps.
const LOOK_EVERY: u32 = 8;

impl World {
    /// Somebody has an order installed, or dropped.
    pub(crate) fn standing(&mut self) {
        let records = self.control.store.standing_records();
        let living: Vec<&StandingRecord> = records
            .iter()
            .filter(|record| !matches!(record.state(), StandingState::Dropped | StandingState::Refused))
            .collect();
        if living.len() >= ORDERS_MAX || self.random.chance(250) {
            let record = self.random.pick(&living).map(|record| (*record).clone());
            return record.map_or((), |record| self.drop_order(&record));
        }
        self.install_order();
    }

    fn install_order(&mut self) {
        let index = self.random_host();
        let host = self.control.store.hosts[&self.hosts[index].id].clone();
        let (action, parameters) =
            if self.random.chance(500) { ("host.facts", "{}") } else { ("app.remove", r#"{"app":"shop-0"}"#) };
        let now = self.control_now();
        let request = StandingRequest {
            operation: OperationId::new_v7(self.now, self.random.bytes()),
            action: action.parse().expect("invariant: a registered action"),
            version: None,
            parameters: parameters.as_bytes().to_vec(),
            schedule: "30 3 * * *".to_owned(),
            zone: "UTC".to_owned(),
            valid_for: None,
            alone_for: None,
        };
        let id = StandingOrderId::new_v7(self.now, self.random.bytes());
        let actor = self.actor();
        // A host that is quarantined or revoked is refused here, in words.
        let Ok(standing) = standing_judge(self.control.fleet, &request, id, &actor, &host, now) else { return };
        let order =
            standing_order(standing, &host, self.control.root.current().epoch, self.next_revision(host.id), now);
        let Some(envelope) = self.signed(order) else { return };
        let grounds = Grounds { approvals: self.control.root.current().approvals, requester: None };
        let random = &mut self.random;
        let mut ids = || CommandId::new_v7(now, random.bytes());
        if let Ok(write) = standing_install(grounds, &request, envelope, &actor, &host, now, &mut ids) {
            self.order_of(index, &write);
        }
    }

    fn drop_order(&mut self, record: &StandingRecord) {
        let Some(index) = self.hosts.iter().position(|host| host.id == record.host) else { return };
        let host = self.control.store.hosts[&record.host].clone();
        let (now, actor, fleet) = (self.control_now(), self.actor(), self.control.fleet);
        let grounds = Grounds { approvals: self.control.root.current().approvals, requester: None };
        let id = OperationId::new_v7(self.now, self.random.bytes());
        let random = &mut self.random;
        let mut ids = || CommandId::new_v7(now, random.bytes());
        if let Ok(write) =
            standing_drop((fleet, grounds), id, (record.order, record.last()), &actor, &host, now, &mut ids)
        {
            self.order_of(index, &write);
        }
    }

    /// Now and then a number is signed and never stored.
    fn signed(&mut self, order: StandingOrder) -> Option<Vec<u8>> {
        let (host, revision) = (order.standing.host, order.revision);
        self.control.signed_revisions.insert(host, revision);
        let envelope = self.control.command_key.sign(&order).into_envelope();
        (!self.random.chance(50)).then_some(envelope)
    }

    fn next_revision(&self, host: HostId) -> Revision {
        let signed = self.control.signed_revisions.get(&host).copied().unwrap_or_default();
        Revision(signed.max(self.control.store.revision(host)).0 + 1)
    }

    fn order_of(&mut self, host: usize, write: &Write) {
        self.control.write(write, &mut self.ledger);
        self.tell(host, false);
    }

    fn wanted(&self, host: &Host) -> Wanted {
        let key: KeyId = self.control.command_key.key_id();
        Wanted::of(host, self.control.root.current(), key)
    }

    /// What is due is signed anew.
    pub(crate) fn keep_standing(&mut self) {
        if !self.is_control_up {
            return;
        }
        for record in self.control.store.standing_records() {
            let host = self.control.store.hosts[&record.host].clone();
            let now = self.control_now();
            if !record.is_renewal_due(&self.wanted(&host), None, now) || host.standing != HostStanding::Active {
                continue;
            }
            let Some(before) = self.control.store.standing_envelope(record.order) else { continue };
            let Ok((_, before)) = shown(&before) else { continue };
            let epoch = self.control.root.current().epoch;
            let order = standing_order(before.standing, &host, epoch, self.next_revision(host.id), now);
            let Some(envelope) = self.signed(order) else { continue };
            let id = OperationId::new_v7(self.now, self.random.bytes());
            let random = &mut self.random;
            let mut ids = || CommandId::new_v7(now, random.bytes());
            let Ok(write) = standing_renew(&record, envelope, id, &host, now, &mut ids) else { continue };
            let Some(index) = self.hosts.iter().position(|known| known.id == record.host) else { continue };
            self.summary.renewed += 1;
            self.order_of(index, &write);
        }
    }

    /// Whether any order could be signed anew now.
    pub(crate) fn is_standing_due(&self) -> bool {
        let is_due = |record: &StandingRecord| {
            let host = &self.control.store.hosts[&record.host];
            host.standing == HostStanding::Active && record.is_renewal_due(&self.wanted(host), None, self.control_now())
        };
        self.control.store.standing_records().iter().any(is_due)
    }

    /// How many orders a command key is kept for.
    pub(crate) fn standing_under(&self, key: KeyId) -> usize {
        let now = self.control_now();
        let waits = |record: &&StandingRecord| record.waits_under(key, &self.control.store.hosts[&record.host], now);
        self.control.store.standing_records().iter().filter(waits).count()
    }

    /// A key goes, and nobody was in need: no host that can be asked has anything on its disk that rests on it, unless it
    /// said no to the next signature.
    pub(crate) fn check_key_goes(&mut self, key: KeyId) {
        let records = self.control.store.standing_records();
        let now = self.control_now();
        for host in &self.hosts {
            let row = &self.control.store.hosts[&host.id];
            if row.standing != HostStanding::Active || self.ledger.was_restored(host.id) {
                continue;
            }
            for stored in &host.disk.standing {
                let Ok((signed_by, _)) = shown(&stored.envelope) else { continue };
                let record = records.iter().find(|record| record.order == stored.order);
                // One that is about to be dropped, or that was refused, keeps no key.
                let is_kept = record.is_some_and(|record| {
                    record.state() == StandingState::Installed && record.problem().is_none() && now < record.valid_until
                });
                if signed_by == key && is_kept {
                    let (order, host) = (stored.order, host.id);
                    self.ledger.break_it(format!(
                        "command key {key} goes while standing order {order} on host {host} still rests on it"
                    ));
                    return;
                }
            }
        }
    }

    /// After some steps: what a host says that it would run rests on a key and on epochs that are in force there, and what
    /// was dropped is nowhere.
    pub(crate) fn check_standing(&mut self, at_the_end: bool) {
        if !at_the_end && !self.step.is_multiple_of(LOOK_EVERY) {
            return;
        }
        let records = self.control.store.standing_records();
        let mut broken = None;
        for host in &self.hosts {
            let found = self.unfounded(host).or_else(|| self.back_again(host, &records));
            broken = broken.or(found);
            if at_the_end {
                broken = broken.or_else(|| self.missing(host, &records));
            }
        }
        if let Some(what) = broken {
            self.ledger.break_it(what);
        }
    }

    fn unfounded(&self, host: &SimHost) -> Option<String> {
        let root = self.control.root.current();
        // One that is behind judges by what it has; that is looked at once it is not.
        if host.disk.root_chain.len() as u64 != root.version.0 {
            return None;
        }
        let ours = host.disk.host_epoch.unwrap_or(HostEpoch(1));
        let process = host.process.as_ref()?;
        let shown_here = process.agent.standing_orders(host.clocks(self.now), &host.admission());
        let running = shown_here.iter().filter(|order| order.hindrance.is_none());
        for order in running {
            let Some(stored) = host.disk.standing.iter().find(|stored| stored.order == order.order) else { continue };
            let Ok((key, signed)) = shown(&stored.envelope) else { continue };
            // Memory runs ahead of the disk.
            if signed.revision != order.revision {
                continue;
            }
            let is_listed = root.command_keys.iter().any(|listed| envelope::key_id(listed) == key);
            let is_founded = is_listed && signed.epoch == root.epoch && signed.host_epoch == ours;
            let is_its_own = signed.standing.host == host.id && signed.revision <= host.disk.standing_revision;
            if !(is_founded && is_its_own) {
                return Some(format!("standing order {} would run on host {} without authority", order.order, host.id));
            }
        }
        None
    }

    fn back_again(&self, host: &SimHost, records: &[StandingRecord]) -> Option<String> {
        if self.ledger.was_restored(host.id) {
            return None;
        }
        let dropped =
            records.iter().filter(|record| record.host == host.id && record.state() == StandingState::Dropped);
        let mut dropped = dropped.map(|record| record.order);
        let back = dropped.find(|order| host.disk.standing.iter().any(|stored| stored.order == *order))?;
        Some(format!("standing order {back} was dropped, and host {} has it", host.id))
    }

    /// What the control plane says that a host has, it has.
    fn missing(&self, host: &SimHost, records: &[StandingRecord]) -> Option<String> {
        let row = &self.control.store.hosts[&host.id];
        if row.standing != HostStanding::Active || self.ledger.was_restored(host.id) {
            return None;
        }
        let is_current = |record: &&StandingRecord| {
            record.host == host.id
                && record.state() == StandingState::Installed
                && !record.is_open()
                && !record.is_outdated(&self.wanted(row))
        };
        let mut current = records.iter().filter(is_current);
        let gone = current.find(|record| {
            let stored = host.disk.standing.iter().find(|stored| stored.order == record.order);
            let signed = stored.and_then(|stored| shown(&stored.envelope).ok());
            signed.map(|(_, order)| order.revision) != record.held().map(|held| held.revision)
        })?;
        Some(format!("host {} does not have standing order {} as it said", host.id, gone.order))
    }
}
