//! What people and misfortune do: orders and cancellations, cut cables, killed processes, wrong clocks,
//! old disks.

use std::collections::BTreeMap;

use envelope::{limits::APPROVAL_LIFETIME_MAX, messages::Approval};
use fleet::{
    approval::{self, Matter},
    model::{CommandStatus, Credential, Host, HostStanding, Principal, User, UserRole},
    operation::{
        CancelDecision, CancelOrigin, Grounds, OperationRequest, Target, Work, command_cancel, operation_propose,
    },
    ports::{AuditEntry, AuditRecord, Write},
};
use ids::{ApiTokenId, CommandId, DurationMs, OperationId, UserId, sha256};

use crate::{
    network::LinkId,
    world::{BEGINNING, World},
};

/// Commands open at a time, so that a run is about faults and not about queues.
const OPEN_COMMANDS_MAX: usize = 12;

/// A person, or a fault.
#[derive(Clone, Copy)]
enum Surprise {
    Propose,
    Approve,
    Cancel,
    Revoke,
    Cut,
    Meddle,
    KillAgent,
    Reboot,
    KillControl,
    Skew,
    ControlClock,
    Policy,
    CopyDisk,
    RestoreDisk,
    Release,
    Rotate,
    Standing,
    Pass,
    Retire,
}

const SURPRISES: [(u64, Surprise); 19] = [
    (260, Surprise::Propose),
    (120, Surprise::Approve),
    (60, Surprise::Cancel),
    (3, Surprise::Revoke),
    (60, Surprise::Cut),
    (60, Surprise::Meddle),
    (60, Surprise::KillAgent),
    (12, Surprise::Reboot),
    (25, Surprise::KillControl),
    (10, Surprise::Skew),
    (8, Surprise::ControlClock),
    (10, Surprise::Policy),
    (20, Surprise::CopyDisk),
    (60, Surprise::RestoreDisk),
    (120, Surprise::Release),
    (30, Surprise::Rotate),
    (40, Surprise::Standing),
    (80, Surprise::Pass),
    (2, Surprise::Retire),
];

impl World {
    pub(crate) fn surprise(&mut self) {
        let mut die = self.random.below(SURPRISES.iter().map(|(weight, _)| weight).sum());
        let chosen = SURPRISES.iter().find(|(weight, _)| {
            let is_it = die < *weight;
            die = die.saturating_sub(*weight);
            is_it
        });
        match chosen.map_or(Surprise::Pass, |(_, surprise)| *surprise) {
            Surprise::Propose => self.propose(),
            Surprise::Approve => self.approve(),
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
            Surprise::ControlClock => self.set_control_clock(),
            Surprise::Policy => {
                let host = self.random_host();
                self.hosts[host].refuses = !self.hosts[host].refuses && self.random.chance(400);
            }
            Surprise::CopyDisk => {
                let host = self.random_host();
                let (disk, keys) = (self.hosts[host].disk.clone(), self.hosts[host].keys.clone());
                self.copies.insert(self.hosts[host].id, (disk, keys));
            }
            Surprise::RestoreDisk => self.restore_disk(),
            Surprise::Release => self.release(),
            Surprise::Rotate => self.rotate(true),
            Surprise::Standing => self.standing(),
            Surprise::Pass => self.pass_time(false, true),
            Surprise::Retire => self.order("host.retire", "{}".to_owned()),
        }
    }

    pub(crate) fn actor(&self) -> Principal {
        Principal {
            user: UserId::from_bytes([1; 16]),
            user_name: "admin".parse().expect("invariant: a valid name"),
            role: UserRole::Admin,
            credential: Credential::Token(ApiTokenId::from_bytes([6; 16])),
            expires: BEGINNING.plus(DurationMs::from_days(4_000)),
        }
    }

    fn propose(&mut self) {
        if self.control.unsettled().len() >= OPEN_COMMANDS_MAX {
            return;
        }
        let (action, parameters) = match self.random.below(16) {
            0 => ("host.keys.rotate", "{}".to_owned()),
            1..=4 => ("host.facts", "{}".to_owned()),
            5..=8 => ("docker.containers", "{}".to_owned()),
            _ => ("app.remove", format!(r#"{{"app":"shop-{}"}}"#, self.random.below(2))),
        };
        self.order(action, parameters);
    }

    fn order(&mut self, action: &str, parameters: String) {
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
            selector: None,
            recovery: None,
        };
        let hosts: Vec<Host> = self.control.store.hosts.values().cloned().collect();
        let (now, fleet, actor) = (self.control_now(), self.control.fleet, self.actor());
        let grounds = Grounds { approvals: self.control.root.current().approvals, requester: None };
        let random = &mut self.random;
        let mut ids = || CommandId::new_v7(now, random.bytes());
        // A host that is quarantined or revoked is refused here, in words.
        let Ok(proposed) = operation_propose(fleet, grounds, request, &actor, &hosts, now, &mut ids) else {
            return;
        };
        self.control.write(&proposed.into_write(), &mut self.ledger);
        self.tell(host, false);
    }

    /// A second person approves one of the commands that wait for it.
    pub(crate) fn approve(&mut self) {
        let store = &self.control.store;
        let held: Vec<_> = store.proposed.iter().filter_map(|id| store.commands.get(id)).collect();
        let held: Vec<_> = held.into_iter().filter(|command| command.status == CommandStatus::Held).cloned().collect();
        let Some(command) = self.random.pick(&held).cloned() else { return };
        let (order, now) = (&command.order, self.control_now());
        let host = &store.hosts[&order.host];
        let approval = Approval {
            fleet: order.fleet,
            host: order.host,
            host_epoch: host.host_epoch,
            operation: order.operation,
            action: order.action.clone(),
            action_version: order.action_version,
            parameters_sha256: sha256(&order.parameters),
            sealed: order.sealed.clone(),
            plan_sha256: sha256(b"what was shown"),
            bind_plan: self.random.chance(500),
            approved_at: now,
            expires: now.plus(APPROVAL_LIFETIME_MAX),
        };
        let envelope = self.control.approver.sign(&approval).into_envelope();
        let user = User {
            id: UserId::from_bytes([2; 16]),
            name: "second".parse().expect("invariant: a valid name"),
            role: UserRole::Viewer,
            password_hash: String::new(),
            created_at: BEGINNING,
            disabled_at: None,
            approver: Some((self.control.approver.public(), BEGINNING)),
        };
        let actor = Principal { user: user.id, user_name: user.name.clone(), role: user.role, ..self.actor() };
        let hosts = BTreeMap::from([(host.id, host.clone())]);
        let (operation, root) = (&store.operations[&order.operation], &*self.control.root);
        let matter = Matter { operation, commands: core::slice::from_ref(&command), hosts: &hosts, root, now };
        // The clock may have been set to before root metadata was issued.
        let Ok(write) = approval::approve(&matter, &actor, &user, vec![envelope]) else { return };
        self.summary.approved += 1;
        let host = self.hosts.iter().position(|host| host.id == command.order.host);
        self.control.write(&write, &mut self.ledger);
        if let Some(host) = host {
            self.tell(host, false);
        }
    }

    pub(crate) fn tell(&mut self, host: usize, is_revoked: bool) {
        let id = self.hosts[host].id;
        if self.is_control_up {
            let said =
                self.control.host_changed(id, is_revoked, self.control_now(), &mut self.random, &mut self.ledger);
            self.control_says(said);
        }
    }

    fn cancel(&mut self) {
        let open = self.control.unsettled();
        let Some(command) = self.random.pick(&open).and_then(|id| self.control.store.commands.get(id)).cloned() else {
            return;
        };
        let Some(host) = self.hosts.iter().position(|host| host.id == command.order.host) else { return };
        let (now, actor, fleet) = (self.control_now(), self.actor(), self.control.fleet);
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
        let at = self.control_now();
        let audit = AuditEntry {
            time: at,
            kind: envelope::audit::AuditKind::HostRevoked,
            actor: "admin".to_owned(),
            subject: format!("host {id}"),
            record: AuditRecord::Inline(b"{}".to_vec()),
        };
        self.control.write(&Write::HostRevoke { host: id, at, audit }, &mut self.ledger);
        self.tell(host, true);
    }

    /// An admin ends the quarantine that the host's agent said last it is in, or has it enter one.
    fn release(&mut self) {
        let host = self.random_host();
        let id = self.hosts[host].id;
        let row = &self.control.store.hosts[&id];
        let (epoch, is_alarm) = (row.host_epoch, row.quarantine.is_alarm);
        if !matches!(row.standing, HostStanding::Quarantined { .. }) {
            return;
        }
        let seen = self.control.store.quarantines.get(&id).and_then(|seen| seen.last());
        let quarantine = seen.filter(|seen| seen.host_epoch == epoch).map(|seen| seen.id);
        if quarantine.is_none() && !is_alarm {
            return;
        }
        let audit = AuditEntry {
            time: self.control_now(),
            kind: envelope::audit::AuditKind::QuarantineRelease,
            actor: "admin".to_owned(),
            subject: format!("host {id}"),
            record: AuditRecord::Inline(b"{}".to_vec()),
        };
        self.control.write(&Write::HostRelease { host: id, quarantine, audit }, &mut self.ledger);
        self.tell(host, false);
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
        let kept = usize::try_from(self.random.below(4)).unwrap_or(0);
        let (now, id) = (self.now, self.hosts[host].id);
        self.ledger.note(|| format!("{} agent {id}: killed, its disk kept up to {kept} more writes", now.0));
        let link = if with_reboot {
            self.hosts[host].reboot(kept, now, &mut self.random)
        } else {
            self.hosts[host].kill(kept)
        };
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

    /// Somebody, or a time server, sets the control plane's clock: right, a little wrong, or far off.
    fn set_control_clock(&mut self) {
        let far = i64::try_from(self.random.below(2_400_000)).unwrap_or(0) - 1_200_000;
        self.control.skew = match self.random.below(5) {
            0..3 => 0,
            3 => far / 40,
            _ => far,
        };
        let skew = self.control.skew;
        self.ledger.control_clock(skew);
        self.ledger.note(|| format!("control: its clock is {skew} ms off"));
    }

    /// A machine comes back from an old copy of its disk, unless that could not be noticed: what was
    /// started and never acknowledged is forgotten with it, as the protocol's documentation says.
    fn restore_disk(&mut self) {
        let host = self.random_host();
        let id = self.hosts[host].id;
        let Some((copy, keys)) = self.copies.get(&id).cloned() else { return };
        let acknowledged = self.control.store.hosts[&id].acknowledged;
        if self.hosts[host].disk.high > acknowledged || copy.high >= acknowledged {
            return;
        }
        self.summary.kills += 1;
        if let Some(link) = self.hosts[host].reboot(0, self.now, &mut self.random) {
            self.cut(link);
        }
        (self.hosts[host].disk, self.hosts[host].keys) = (copy, keys);
        self.hosts[host].lives += 1;
        // With its keys, and it does not know that it ever left.
        (self.hosts[host].has_secrets, self.hosts[host].has_left) = (true, false);
        self.ledger.restored(id);
        let now = self.now.0;
        self.ledger.note(|| format!("{now} disk of {id}: an old copy"));
    }
}
