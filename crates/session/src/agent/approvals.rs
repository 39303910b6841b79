//! Check 14: enough people stand behind what needs them, and what they agreed to happens once.
//!
//! How many an order needs is the larger of what root metadata and what the host's owner say of its class.
//! The approvals of one operation for one action are used up by the first command that is accepted with
//! them; that is durable in the transaction of the acceptance, and outlives their expiry.

use std::collections::BTreeMap;

use envelope::{
    approval::{Consent, Terms, judge},
    messages::{Command, Order},
};
use ids::{ActionName, Class, CommandId, OperationId, Sha256, UnixMs};

use super::{
    AgentLoop, Turn,
    intake::{Granted, Refusal},
    io::*,
    run::Job,
};
use crate::limits;

/// Approvals that were used up.
pub(super) struct Burns(BTreeMap<(OperationId, ActionName), (CommandId, UnixMs)>);

impl Burns {
    pub(super) fn stored(burned: Vec<Burned>) -> Self {
        let entry = |it: Burned| ((it.operation, it.action), (it.command, it.until));
        Self(burned.into_iter().map(entry).collect())
    }

    /// The command that used them, unless it is this one or none did.
    fn used_by(&self, order: &Order) -> Option<CommandId> {
        let (command, _) = self.0.get(&(order.operation, order.action.clone()))?;
        Some(*command).filter(|used| *used != order.command)
    }

    fn is_used_by(&self, order: &Order) -> bool {
        let used = self.0.get(&(order.operation, order.action.clone()));
        used.is_some_and(|(command, _)| *command == order.command)
    }

    /// Whether one more can be remembered, once what may be forgotten is.
    fn has_room(&self, forget_before: UnixMs) -> bool {
        self.0.len() < limits::BURNED_MAX || self.0.values().any(|(_, until)| *until < forget_before)
    }

    fn burn(&mut self, burn: &Burn) {
        self.0.retain(|_, (_, until)| *until >= burn.forget_before);
        let Burned { operation, action, command, until } = burn.burned.clone();
        self.0.insert((operation, action), (command, until));
    }
}

impl AgentLoop {
    /// Whether enough people agreed to an order of that class. `None`: it needs nobody.
    pub(super) fn check_approvals(
        &self,
        now: Clocks,
        admitted: &Admitted,
        command: &Command,
        approvals: &[Vec<u8>],
    ) -> Result<Option<Consent>, Refusal> {
        let needed = self.approvals_needed(admitted);
        if needed == 0 {
            return Ok(None);
        }
        let (order, class) = (&command.order, admitted.class);
        if let Some(used) = self.burned.used_by(order) {
            let message =
                format!("those of operation {} were used by command {used}; propose it again", order.operation);
            return Err(Refusal::rejected("approvals", message));
        }
        let terms = self.terms(Some(self.latest(now)), command);
        let judged = judge(approvals, needed, order, terms);
        let consent = judged.map_err(|error| Refusal::rejected("approvals", format!("{class} action: {error}")))?;
        if !self.burned.has_room(self.earliest(now)) {
            let message = format!(
                "this host remembers {} operations whose approvals were used, and more than that it does not keep; sign \
                 new root metadata, so that old ones can be forgotten",
                limits::BURNED_MAX
            );
            return Err(Refusal::rejected("approvals", message));
        }
        Ok(Some(consent))
    }

    /// The full check at a start: as at acceptance, and what needs approvals must have used them there.
    pub(super) fn admit_start(&self, turn: &Turn<'_, impl Admission>, job: &Job) -> Result<Granted, Refusal> {
        let granted = self.admit(turn, &job.command, &job.approvals)?;
        if granted.consent.is_some() && !self.burned.is_used_by(&job.command.order) {
            let message = "it was accepted when it needed none; propose it again".to_owned();
            return Err(Refusal::rejected("approvals", message));
        }
        Ok(granted)
    }

    /// Whether the approvals of a command that had been started still stand, whatever their time; and the plan
    /// they are bound to.
    pub(super) fn still_approved(&self, admitted: &Admitted, job: &Job) -> Result<Option<Sha256>, ()> {
        let needed = self.approvals_needed(admitted);
        if needed == 0 || matches!(admitted.kind, AdmittedKind::Cancel(_) | AdmittedKind::StandingRenew(_)) {
            return Ok(None);
        }
        let terms = self.terms(None, &job.command);
        judge(&job.approvals, needed, &job.command.order, terms).map(|consent| consent.plan).map_err(|_| ())
    }

    /// They are used up by this order from now on.
    pub(super) fn burn(&mut self, now: Clocks, order: &Order, consent: &Consent) -> Burn {
        let burned = Burned {
            operation: order.operation,
            action: order.action.clone(),
            command: order.command,
            until: consent.expires.plus(limits::BURNED_KEPT),
        };
        let burn = Burn { burned, forget_before: self.earliest(now) };
        self.burned.burn(&burn);
        burn
    }

    fn approvals_needed(&self, admitted: &Admitted) -> u32 {
        let approvals = self.roots.current().map(|root| root.approvals).unwrap_or_default();
        let needed = match admitted.class {
            Class::Read => return 0,
            Class::Change => approvals.change,
            Class::Destructive => approvals.destructive,
        };
        needed.max(admitted.approvals_min)
    }

    fn terms(&self, now: Option<UnixMs>, command: &Command) -> Terms<'_> {
        Terms { keys: self.roots.approver_keys(), host_epoch: command.host_epoch, now }
    }

    /// The latest that it can be: a clock set back does not bring an approval to life.
    pub(super) fn latest(&self, now: Clocks) -> UnixMs {
        now.wall.max(self.roots.issued_floor()).max(self.time(now).unwrap_or(UnixMs(0)))
    }

    /// The earliest that it can be: a clock set on does not make anything forgotten.
    fn earliest(&self, now: Clocks) -> UnixMs {
        now.wall.min(self.roots.issued_floor()).min(self.time(now).unwrap_or(UnixMs(0)))
    }
}
