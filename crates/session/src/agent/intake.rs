//! The checks of a command, in their order: size → signature → type and canonical form → ids and
//! epochs → known id → sequence → time → action and schema → approvals → policy → durable acceptance.
//!
//! What fails before "known id" cannot be tied to an order of this host: it is counted and ends the
//! session. From there on every command ends durably: it is accepted, or a signed refusal is stored,
//! and after either it never comes to a start by another way.
//!
//! Two notes on the order. Registry, parameters and policy are asked in one question, because the
//! class that decides on approvals is part of the answer; so a command that fails both names policy.
//! And a known id with another content (a conflict) ends the session without a report: a report under
//! that id would contradict the true one's.

use envelope::{
    Verified,
    approval::Consent,
    guard::{Judgement, Room, Untimely},
    messages::{Command, Order, ReportStatus, SealedValue},
    seal::check_sealed_values,
    verify,
};
use ids::{Class, CommandId, OnRestart};
use serde_json::{Value, json};

use super::{
    AgentLoop, QuarantineState, Turn,
    end::end_message,
    io::*,
    run::{Job, JobState},
    writes::After,
};
use crate::{
    checks::{first_failed, words},
    frames::{AgentFrame, Stage},
    limits,
};

/// Why a command is refused: the check that failed, in a word and in words.
pub(super) struct Refusal {
    status: ReportStatus,
    check: &'static str,
    message: String,
    /// Something more that a program may go by.
    told: Option<(&'static str, Value)>,
}

impl Refusal {
    pub(super) fn new(status: ReportStatus, check: &'static str, message: String) -> Self {
        Self { status, check, message, told: None }
    }

    pub(super) fn rejected(check: &'static str, message: String) -> Self {
        Self::new(ReportStatus::Rejected, check, message)
    }

    pub(super) fn telling(self, what: &'static str, value: Value) -> Self {
        Self { told: Some((what, value)), ..self }
    }

    pub(super) fn words(&self) -> String {
        format!("{}: {}", self.check, self.message)
    }

    pub(super) fn end(&self) -> End {
        let mut detail = json!({ "refused_by": self.check });
        if let Some((what, value)) = &self.told {
            detail[*what] = value.clone();
        }
        end_message(self.status, &self.words(), &detail)
    }
}

/// What travels beside a command.
#[derive(Clone)]
pub(super) struct Beside {
    pub(super) sealed: Vec<SealedValue>,
    pub(super) approvals: Vec<Vec<u8>>,
}

/// What is known of an order that may run.
pub(super) struct Granted {
    pub(super) admitted: Admitted,
    /// Of those who approved it, if it needs any.
    pub(super) consent: Option<Consent>,
}

impl AgentLoop {
    /// Takes a delivered command (or the question how a known one stands).
    pub(super) fn deliver(&mut self, turn: &Turn<'_, impl Admission>, bytes: &[u8], beside: Beside) {
        let command = match verify::<Command>(bytes, self.roots.command_keys_ever()) {
            Ok(command) => command,
            Err(error) => return self.reject("command", words(&error)),
        };
        let failed = first_failed(&[
            (command.order.fleet == self.identity.fleet, "ids: it is for another fleet"),
            (command.order.host == self.identity.host, "ids: it is for another host"),
            (command.host_epoch <= self.identity.host_epoch, "epochs: it is for another epoch of this host"),
            (Some(command.epoch) <= self.epoch(), "epochs: its epoch is not that of this host's root metadata"),
        ]);
        if let Some(why) = failed {
            return self.reject("command", why.to_owned());
        }
        if self.quarantine != QuarantineState::No {
            return self.drop_message(format!("command {}: this host is in quarantine", command.order.command));
        }
        let Some(now) = self.time(turn.now) else { return };
        let judgement = self.guard.memory.judge(&command, now);
        // Root metadata dropped its key or voided its epoch: it is good for the question what became of it, and for nothing
        // else. Its number is used up, so that nothing of it moves the guard on.
        if !self.stands(&command) && !is_past(&judgement) {
            return self
                .reject("command", "key: root metadata voided the key or the epoch it was sealed under".to_owned());
        }
        if command.host_epoch < self.identity.host_epoch && !is_only_asked_for(&judgement) {
            return self.reject("command", "epochs: it was sealed before this host's keys were rotated".to_owned());
        }
        match judgement {
            Judgement::Known(stage) => self.known_command(command.order.command, stage),
            Judgement::Conflict => {
                let id = command.order.command;
                self.reject("command", format!("conflict: {id} is known with another content"));
            }
            judgement => match self.examine(turn, &command, &beside, judgement) {
                Ok(granted) => self.accept(turn, command, beside, granted),
                Err(refusal) => self.refuse(turn, &command, &refusal),
            },
        }
    }

    /// A known id: its stored status is the answer, under the sequence it was taken with.
    fn known_command(&mut self, command: CommandId, stage: Stage) {
        if self.guard.pending.contains(&command) {
            return; // the write's acknowledgement will answer
        }
        let Some(sequence) = self.guard.memory.get(command).map(|entry| entry.sequence) else { return };
        self.send(AgentFrame::Accepted { command, sequence, stage });
        if stage == Stage::Done
            && let Some(report) = self.outbox.again(command)
        {
            self.send(AgentFrame::Report(report));
        }
    }

    fn examine(
        &self,
        turn: &Turn<'_, impl Admission>,
        command: &Command,
        beside: &Beside,
        judgement: Judgement,
    ) -> Result<Granted, Refusal> {
        let (sequence, high) = (command.sequence, self.guard.memory.high());
        match judgement {
            Judgement::Unknown => {
                let message = format!(
                    "its sequence {sequence} is not above {high}, and this host does not remember it: it may or may \
                     not have run"
                );
                return Err(Refusal::new(ReportStatus::Unknown, "sequence", message));
            }
            Judgement::TooFarAhead => {
                return Err(Refusal::rejected("sequence", format!("{sequence} is too far above {high}")));
            }
            Judgement::Untimely(why @ (Untimely::Expired { .. } | Untimely::Stale { .. })) => {
                return Err(Refusal::new(ReportStatus::Expired, "time", why.to_string()));
            }
            Judgement::Untimely(why) => return Err(Refusal::rejected("time", why.to_string())),
            Judgement::Known(_) | Judgement::Conflict | Judgement::Fresh => {}
        }
        if self.roots.restored_at().is_some_and(|restored| command.order.proposed_at < restored) {
            let message = "it was proposed before the control plane was restored; order it again".to_owned();
            return Err(Refusal::new(ReportStatus::Expired, "time", message));
        }
        check_sealed(&command.order, &beside.sealed)?;
        let granted = self.admit(turn, command, &beside.approvals)?;
        self.check_room(&granted.admitted)?;
        Ok(granted)
    }

    /// Registry, parameters, policy, approvals, age of the root, state of the clock. Asked at
    /// acceptance and again at the start.
    pub(super) fn admit(
        &self,
        turn: &Turn<'_, impl Admission>,
        command: &Command,
        approvals: &[Vec<u8>],
    ) -> Result<Granted, Refusal> {
        let order = &command.order;
        let judged = turn.admission.judge(order);
        let admitted = judged.map_err(|rejection| Refusal::rejected("policy", rejection.message))?;
        let admitted = as_ordered(order, self.admit_standing(turn, order, admitted)?);
        if let Some(refusal) = self.retirement_refusal(&admitted.kind) {
            return Err(refusal);
        }
        // Stopping something needs no approval, no fresh root and no right clock: it can only put back. And under another
        // signature a standing order is what people approved.
        if matches!(admitted.kind, AdmittedKind::Cancel(_) | AdmittedKind::StandingRenew(_)) {
            return Ok(Granted { admitted, consent: None });
        }
        let consent = self.check_approvals(turn.now, &admitted, command, approvals)?;
        if admitted.class > Class::Read && self.roots.is_expired(turn.now.wall) {
            let message = "the fleet's root metadata has expired, so only read actions run; sign new root metadata";
            return Err(Refusal::rejected("root metadata", message.to_owned()));
        }
        let skew = self.time(turn.now).map(|now| now.distance(turn.now.wall));
        if admitted.class == Class::Destructive && skew.is_none_or(|skew| skew > limits::CLOCK_SKEW_DESTRUCTIVE_MAX) {
            let message = "this host's clock is more than 5 minutes wrong, so nothing destructive runs; set it right";
            return Err(Refusal::rejected("clock", message.to_owned()));
        }
        Ok(Granted { admitted, consent })
    }

    /// Places left for reports.
    pub(super) fn places_free(&self) -> usize {
        let taken = self.outbox.len() + self.refusals_pending + self.jobs.len();
        limits::OUTBOX_PLACES_MAX.saturating_sub(taken)
    }

    fn check_room(&self, admitted: &Admitted) -> Result<(), Refusal> {
        let cancel = matches!(admitted.kind, AdmittedKind::Cancel(_));
        let room =
            cancel || (self.places_free() > limits::OUTBOX_PLACES_RESERVED && self.jobs.len() < limits::OPEN_MAX);
        if room {
            return Ok(());
        }
        let message = format!(
            "this host has {} commands without an end and {} reports not yet taken; order it again when they are done",
            self.jobs.len(),
            self.outbox.len()
        );
        Err(Refusal::rejected("room", message))
    }

    fn accept(
        &mut self,
        turn: &Turn<'_, impl Admission>,
        command: Verified<Command>,
        beside: Beside,
        granted: Granted,
    ) {
        let id = command.order.command;
        let burn = granted.consent.as_ref().map(|consent| self.burn(turn.now, &command.order, consent));
        let (entry, evict) = self.remember(&command, Stage::Accepted);
        let bytes = command.envelope().to_vec();
        let Beside { sealed, approvals } = beside.clone();
        let write = JournalWrite::Accept { entry, command: bytes, sealed, approvals, burn, evict };
        self.jobs.insert(id, Job::new(command, beside, granted.admitted, JobState::Accepting));
        self.persist(write, After::Accepted(id));
    }

    fn refuse(&mut self, turn: &Turn<'_, impl Admission>, command: &Verified<Command>, refusal: &Refusal) {
        let (entry, evict) = self.remember(command, Stage::Done);
        let report = self.sign_report(turn.now, command, refusal.end());
        self.refusals_pending += 1;
        let write = JournalWrite::Refuse { entry, report: report.clone(), evict };
        self.persist(write, After::Refused { report, why: refusal.words() });
    }

    /// A new entry of the ring, and which one makes room for it: the oldest that is settled.
    fn remember(&mut self, command: &Command, stage: Stage) -> (RingEntry, Option<CommandId>) {
        let evict = match self.ring_room() {
            Room::Evict(settled) => Some(settled),
            // Full does not come here: deliveries wait then, see `must_wait`.
            Room::Free | Room::Full => None,
        };
        let entry = RingEntry::new(command, stage);
        self.guard.memory.remember(entry.clone(), evict);
        self.guard.pending.insert(entry.command);
        (entry, evict)
    }

    pub(super) fn ring_room(&self) -> Room {
        self.guard
            .memory
            .room(|entry| !self.guard.pending.contains(&entry.command) && !self.outbox.holds(entry.command))
    }
}

/// Whether the guard has a command or its number behind it.
const fn is_past(judgement: &Judgement) -> bool {
    matches!(judgement, Judgement::Known(_) | Judgement::Conflict | Judgement::Unknown)
}

/// Whether a command that was sealed before a rotation is one whose end is asked for: it is known, or its number is used up,
/// or its time is over. None of these starts anything; one that still could is sealed again.
const fn is_only_asked_for(judgement: &Judgement) -> bool {
    matches!(
        judgement,
        Judgement::Known(_)
            | Judgement::Conflict
            | Judgement::Unknown
            | Judgement::Untimely(Untimely::Expired { .. } | Untimely::Stale { .. })
    )
}

/// A dry run changes nothing: it is judged as reading, waits for no lock, and may be run again.
pub(super) fn as_ordered(order: &Order, admitted: Admitted) -> Admitted {
    if !order.dry_run {
        return admitted;
    }
    Admitted { class: Class::Read, on_restart: OnRestart::Rerun, kind: AdmittedKind::Free, approvals_min: 0 }
}

/// Exactly the sealed values the order names must have come with it.
fn check_sealed(order: &Order, sealed: &[SealedValue]) -> Result<(), Refusal> {
    check_sealed_values(order, sealed).map_err(|error| Refusal::rejected("sealed values", error.to_string()))
}
