//! Standing orders: what this host does by itself at set times, who said so, and whether that still counts.
//!
//! Each is a signed message of its own that an ordinary command brings. It stays as it was installed, and counts as long as
//! a command key in force signed it for this host's present epoch and the fleet's: judged when it comes, when the agent
//! starts, when root metadata changes, and when the host has new keys. One that does not count stays in its place and does
//! not run, so that it can be signed anew. What is dropped cannot come back, nor come late: revisions of this host only rise,
//! the end of an order uses up all that was signed of it, and the highest is durable with what it came with.

use std::collections::BTreeMap;

use envelope::{
    Verified,
    messages::{Order, ReportStatus, SealedValue, Standing, StandingOrder},
    standing::{Ground, StandingError, Times, in_reach, install, load, may_run},
    verify,
};
use ids::{ActionName, Class, CommandId, Revision, StandingOrderId, UnixMs};
use serde_json::json;

use super::{
    AgentLoop, LoadError, QuarantineState, Turn, end::end_message, intake::Refusal, io::*, roots::Roots, writes::After,
};
use crate::{checks::words, limits};

/// One that is installed.
struct Held {
    envelope: Vec<u8>,
    sealed: Vec<SealedValue>,
    order: StandingOrder,
    /// Whether its signature counts now.
    counts: Result<(), StandingError>,
}

/// All that are installed.
pub(super) struct StandingOrders {
    held: BTreeMap<StandingOrderId, Held>,
    highest: Revision,
    /// When this host last opened a session, by the signer's clock.
    contact: Option<UnixMs>,
}

/// A standing order as this host's operator sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StandingShown {
    pub order: StandingOrderId,
    pub action: ActionName,
    pub action_version: u32,
    pub revision: Revision,
    pub schedule: String,
    pub zone: String,
    pub valid_until: UnixMs,
    /// Why it does not run now, if it does not.
    pub hindrance: Option<String>,
}

impl StandingOrders {
    /// Takes up what the journal holds. Each must be what a command key of this fleet once signed.
    pub(super) fn stored(
        stored: Vec<StoredStanding>,
        highest: Revision,
        contact: Option<UnixMs>,
        roots: &Roots,
    ) -> Result<Self, LoadError> {
        let mut held = BTreeMap::new();
        for StoredStanding { order: id, envelope, sealed } in stored {
            let refused = |source| LoadError::Standing { order: id, source };
            let order = verify::<StandingOrder>(&envelope, roots.command_keys_ever()).map_err(refused)?.into_value();
            // Judged at once, before anything looks at it.
            let counts = Err(StandingError::OtherHost);
            held.insert(id, Held { envelope, sealed, order, counts });
        }
        Ok(Self { held, highest, contact })
    }

    pub(super) const fn met(&mut self, at: UnixMs) {
        self.contact = Some(at);
    }

    pub(super) fn clear(&mut self) {
        self.held.clear();
    }
}

impl AgentLoop {
    fn standing_ground(&self) -> Ground<'_> {
        Ground {
            fleet: self.identity.fleet,
            host: self.identity.host,
            host_epoch: self.identity.host_epoch,
            epoch: self.epoch(),
            keys: self.roots.command_keys(),
        }
    }

    /// What each rests on may have changed.
    pub(super) fn judge_standing_again(&mut self) {
        let mut held = core::mem::take(&mut self.standing.held);
        let ground = self.standing_ground();
        for (id, held) in &mut held {
            held.counts = load(&held.envelope, ground).map(drop);
            // A journal that was put together by somebody else.
            if held.order.standing.order != *id {
                held.counts = Err(StandingError::OtherHost);
            }
        }
        self.standing.held = held;
    }

    fn standing_taken(&self, now: Clocks, envelope: &[u8]) -> Result<Verified<StandingOrder>, Refusal> {
        let taken = install(envelope, self.standing_ground(), self.standing.highest, self.latest(now));
        taken.map_err(|error| standing_refused(&error))
    }

    /// What an order about a standing order needs beyond its own admission. An installation counts as what it has run: so
    /// its approvals cover that, and the owner's policy is asked about it by its own name.
    pub(super) fn admit_standing(
        &self,
        turn: &Turn<'_, impl Admission>,
        order: &Order,
        admitted: Admitted,
    ) -> Result<Admitted, Refusal> {
        match &admitted.kind {
            AdmittedKind::StandingInstall(envelope) => {
                let standing = self.standing_taken(turn.now, envelope)?.into_value().standing;
                let inner = self.admit_installed(turn, order, &standing)?;
                let (class, approvals_min) =
                    (admitted.class.max(inner.class), admitted.approvals_min.max(inner.approvals_min));
                Ok(Admitted { class, approvals_min, ..admitted })
            }
            AdmittedKind::StandingRenew(envelope) => {
                self.renewed(turn.now, envelope)?;
                Ok(admitted)
            }
            AdmittedKind::StandingDrop(_, revision) => {
                in_reach(*revision, self.standing.highest).map_err(|error| standing_refused(&error))?;
                Ok(admitted)
            }
            _ => Ok(admitted),
        }
    }

    fn admit_installed(
        &self,
        turn: &Turn<'_, impl Admission>,
        order: &Order,
        standing: &Standing,
    ) -> Result<Admitted, Refusal> {
        let refused = |message: &str| Refusal::rejected("standing order", message.to_owned());
        if standing.operation != order.operation {
            return Err(refused("it belongs to another operation than the order that brings it"));
        }
        if standing.sealed != order.sealed {
            return Err(refused("its sealed values are others than those of the order that brings it"));
        }
        let is_room = self.standing.held.len() < limits::STANDING_ORDERS_MAX;
        if !is_room && !self.standing.held.contains_key(&standing.order) {
            let message =
                format!("this host has {} standing orders, which is the most; drop one", limits::STANDING_ORDERS_MAX);
            return Err(Refusal::rejected("standing order", message));
        }
        let inner = turn.admission.judge(&run_of(standing, order.command));
        let inner = inner.map_err(|rejection| Refusal::rejected("policy", rejection.message))?;
        match inner.kind {
            AdmittedKind::Free | AdmittedKind::Locked(_) => Ok(inner),
            _ => Err(refused("this action is the agent's own work, which no schedule can ask for")),
        }
    }

    /// The installed order that this one is, under another signature.
    fn renewed(&self, now: Clocks, envelope: &[u8]) -> Result<Verified<StandingOrder>, Refusal> {
        let taken = self.standing_taken(now, envelope)?;
        let Some(held) = self.standing.held.get(&taken.standing.order) else {
            let message = "it is not installed on this host; install it".to_owned();
            return Err(Refusal::rejected("standing order", message).telling("absent", true.into()));
        };
        if held.order.standing != taken.standing {
            let message = "its content is not that of the installed one; install it, which people may have to approve";
            return Err(Refusal::rejected("standing order", message.to_owned()));
        }
        Ok(taken)
    }

    /// An order about standing orders runs: one write that is its end. Keys and revisions are looked at once more, because
    /// root metadata may have come into force, or another order, since it was admitted.
    pub(super) fn change_standing(&mut self, now: Clocks, id: CommandId) {
        let Some(job) = self.jobs.get(&id) else { return };
        if job.backwards_only {
            return self.end_revoked(now, id);
        }
        match self.standing_change(now, id) {
            Ok(Some((change, message, detail))) => {
                self.keep_standing(&change);
                let Some(job) = self.jobs.get_mut(&id) else { return };
                job.state = super::run::JobState::Ending;
                let command = job.command.clone();
                let report = self.sign_report(now, &command, end_message(ReportStatus::Succeeded, &message, &detail));
                let write = JournalWrite::Standing { command: id, change, report: report.clone() };
                self.persist(write, After::Done { report });
            }
            Ok(None) => {}
            Err(refusal) => {
                self.event(AgentEvent::Refused { command: id, why: refusal.words() });
                self.end_job(now, id, refusal.end());
            }
        }
    }

    fn standing_change(
        &self,
        now: Clocks,
        id: CommandId,
    ) -> Result<Option<(StandingChange, String, serde_json::Value)>, Refusal> {
        let Some(job) = self.jobs.get(&id) else { return Ok(None) };
        let (taken, sealed, what) = match &job.admitted.kind {
            AdmittedKind::StandingInstall(envelope) => {
                (self.standing_taken(now, envelope)?, job.sealed.clone(), "is installed")
            }
            AdmittedKind::StandingRenew(envelope) => {
                let taken = self.renewed(now, envelope)?;
                let held = self.standing.held.get(&taken.standing.order);
                (taken, held.map(|held| held.sealed.clone()).unwrap_or_default(), "is signed anew")
            }
            AdmittedKind::StandingDrop(order, revision) => {
                let was_here = self.standing.held.contains_key(order);
                let what = if was_here { "is dropped" } else { "was not installed here" };
                let detail = json!({ "standing_order": order, "was_installed": was_here });
                let change = StandingChange::Drop { order: *order, revision: *revision };
                return Ok(Some((change, format!("standing order {order} {what}"), detail)));
            }
            _ => return Ok(None),
        };
        let Standing { order, action, schedule, zone, .. } = &taken.standing;
        let message = format!("standing order {order} ({action} at \"{schedule}\", {zone}) {what}");
        let detail = json!({ "standing_order": order, "revision": taken.revision });
        let (order, revision, envelope) = (*order, taken.revision, taken.envelope().to_vec());
        let change = StandingChange::Put { standing: StoredStanding { order, envelope, sealed }, revision };
        Ok(Some((change, message, detail)))
    }

    /// Memory runs ahead of the disk: whatever rests on it is written behind it.
    fn keep_standing(&mut self, change: &StandingChange) {
        match change {
            StandingChange::Put { standing, revision } => {
                self.standing.highest = self.standing.highest.max(*revision);
                let loaded = load(&standing.envelope, self.standing_ground());
                let StoredStanding { order: id, envelope, sealed } = standing.clone();
                if let Ok(order) = loaded {
                    let held = Held { envelope, sealed, order: order.into_value(), counts: Ok(()) };
                    self.standing.held.insert(id, held);
                }
            }
            StandingChange::Drop { order, revision } => {
                self.standing.highest = self.standing.highest.max(*revision);
                self.standing.held.remove(order);
            }
        }
    }

    /// What stands on this host, and why any of it does not run now.
    #[must_use]
    pub fn standing_orders(&self, now: Clocks, admission: &impl Admission) -> Vec<StandingShown> {
        let turn = Turn { now, admission };
        let shown = |(id, held): (&StandingOrderId, &Held)| {
            let standing = &held.order.standing;
            StandingShown {
                order: *id,
                action: standing.action.clone(),
                action_version: standing.action_version,
                revision: held.order.revision,
                schedule: standing.schedule.clone(),
                zone: standing.zone.clone(),
                valid_until: standing.valid_until,
                hindrance: self.standing_hindrance(&turn, held).err(),
            }
        };
        self.standing.held.iter().map(shown).collect()
    }

    /// Everything that is asked before a run, in this order.
    fn standing_hindrance(&self, turn: &Turn<'_, impl Admission>, held: &Held) -> Result<(), String> {
        let standing = &held.order.standing;
        if self.quarantine != QuarantineState::No || self.state_missing {
            return Err("this host is in quarantine".to_owned());
        }
        held.counts.as_ref().map_err(|error| format!("{}; it waits to be signed anew", words(error)))?;
        let times =
            Times { wall: self.latest(turn.now), floor: self.roots.issued_floor(), contact: self.standing.contact };
        may_run(standing, times).map_err(|not_now| not_now.to_string())?;
        let run = run_of(standing, CommandId::from_bytes([0; 16]));
        let admitted = turn.admission.judge(&run).map_err(|rejection| rejection.message)?;
        if admitted.class > Class::Read && self.roots.is_expired(turn.now.wall) {
            return Err("the fleet's root metadata has expired, so only read actions run".to_owned());
        }
        let skew = self.time(turn.now).map(|now| now.distance(turn.now.wall));
        if admitted.class == Class::Destructive && skew.is_none_or(|skew| skew > limits::CLOCK_SKEW_DESTRUCTIVE_MAX) {
            return Err(
                "this host's clock is more than 5 minutes wrong, or was not compared since it was started, so nothing \
                        destructive runs"
                    .to_owned(),
            );
        }
        Ok(())
    }
}

fn standing_refused(error: &StandingError) -> Refusal {
    let refusal = Refusal::rejected("standing order", words(error));
    match error {
        StandingError::OldRevision { highest, .. } | StandingError::FarRevision { highest, .. } => {
            refusal.telling("highest_revision", highest.0.into())
        }
        _ => refusal,
    }
}

/// What a standing order has run, as policy and registry are asked about it.
fn run_of(standing: &Standing, command: CommandId) -> Order {
    Order {
        fleet: standing.fleet,
        host: standing.host,
        command,
        operation: standing.operation,
        proposed_at: UnixMs(0),
        deliver_by: standing.valid_until,
        start_within_ms: 0,
        action: standing.action.clone(),
        action_version: standing.action_version,
        schema_sha256: standing.schema_sha256,
        parameters: standing.parameters.clone(),
        sealed: standing.sealed.clone(),
        requester: None,
        dry_run: false,
    }
}
