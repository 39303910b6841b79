//! From acceptance to an end: who may start now, and what is checked again at the start.
//!
//! Per app one command at a time, first come first served; what needs no lock never waits for one.
//! The start is its own durable write, before which key, epoch, policy and time are checked again:
//! dropping a key also stops what it had ordered and is still waiting.

use std::collections::BTreeSet;

use envelope::{
    Verified,
    messages::{Command, ReportStatus, SealedValue},
};
use ids::{AppName, BootMs, CommandId, DurationMs, OnRestart, Sha256};
use serde_json::Value;

use super::{
    AgentLoop, QuarantineState, Turn,
    end::end_message,
    intake::{Beside, Granted, Refusal},
    io::*,
    writes::After,
};
use crate::limits;

/// Where a command without an end stands in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum JobState {
    /// Its acceptance is being written.
    Accepting,
    Waiting,
    /// Its start is being written.
    Starting,
    Running,
    /// Its end is being written, or waits in quarantine.
    Ending,
}

/// One command without an end.
pub(super) struct Job {
    pub(super) command: Verified<Command>,
    pub(super) sealed: Vec<SealedValue>,
    pub(super) approvals: Vec<Vec<u8>>,
    /// The plan that was approved.
    pub(super) plan: Option<Sha256>,
    pub(super) admitted: Admitted,
    pub(super) state: JobState,
    /// It had been started before this process began.
    pub(super) resumed: bool,
    /// How often it was run again, durably.
    pub(super) resumptions: u32,
    pub(super) backwards_only: bool,
    /// The first cancel that asked it to stop, durably.
    pub(super) cancelled_by: Option<CommandId>,
}

impl Job {
    pub(super) fn new(command: Verified<Command>, beside: Beside, admitted: Admitted, state: JobState) -> Self {
        Self {
            command,
            sealed: beside.sealed,
            approvals: beside.approvals,
            plan: None,
            admitted,
            state,
            resumed: false,
            resumptions: 0,
            backwards_only: false,
            cancelled_by: None,
        }
    }

    /// Whether it was run again as often as a command may be.
    pub(super) fn is_worn_out(&self) -> bool {
        self.resumed && self.resumptions >= limits::RESUMPTIONS_MAX
    }

    pub(super) fn is_active(&self) -> bool {
        matches!(self.state, JobState::Starting | JobState::Running)
    }
}

/// What is taken by running commands.
struct Busy {
    apps: BTreeSet<AppName>,
    locked: usize,
    free: usize,
}

impl Busy {
    fn take(&mut self, kind: &AdmittedKind) {
        if let AdmittedKind::Locked(app) = kind {
            self.apps.insert(app.clone());
        }
        self.count(kind);
    }

    const fn count(&mut self, kind: &AdmittedKind) {
        match kind {
            AdmittedKind::Locked(_) => self.locked += 1,
            AdmittedKind::Free => self.free += 1,
            AdmittedKind::Cancel(_)
            | AdmittedKind::RotateKeys
            | AdmittedKind::Retire
            | AdmittedKind::StandingInstall(_)
            | AdmittedKind::StandingRenew(_)
            | AdmittedKind::StandingDrop(..) => {}
        }
    }

    /// Whether it may start now. An app asked for counts as taken for those behind it.
    fn has_room(&mut self, kind: &AdmittedKind) -> bool {
        match kind {
            AdmittedKind::Locked(app) => self.apps.insert(app.clone()) && self.locked < limits::RUNNING_LOCKED_MAX,
            AdmittedKind::Free => self.free < limits::RUNNING_FREE_MAX,
            AdmittedKind::Cancel(_)
            | AdmittedKind::RotateKeys
            | AdmittedKind::Retire
            | AdmittedKind::StandingInstall(_)
            | AdmittedKind::StandingRenew(_)
            | AdmittedKind::StandingDrop(..) => true,
        }
    }
}

fn revoked() -> Refusal {
    let message = "the key or the epoch it was ordered under was withdrawn while it waited".to_owned();
    Refusal::new(ReportStatus::Revoked, "key", message)
}

impl AgentLoop {
    /// Starts what may start, in the order of acceptance.
    pub(super) fn schedule(&mut self, turn: &Turn<'_, impl Admission>) {
        let stands_still = self.quarantine != QuarantineState::No || self.is_switching();
        if !self.cleared || stands_still || self.waiting.is_empty() {
            return;
        }
        let mut busy = Busy { apps: BTreeSet::new(), locked: 0, free: 0 };
        for job in self.jobs.values().filter(|job| job.is_active()) {
            busy.take(&job.admitted.kind);
        }
        // Nothing starts behind a retirement, whether it waits or runs.
        let mut is_retiring = self.jobs.values().any(|job| job.is_active() && job.is_retirement());
        for id in core::mem::take(&mut self.waiting) {
            // A cancel further ahead may have ended it.
            let Some(job) = self.jobs.get(&id).filter(|job| job.state == JobState::Waiting) else { continue };
            let waits_for_nothing = matches!(job.admitted.kind, AdmittedKind::Cancel(_));
            if self.goes_on_retiring(job) {
                is_retiring = true;
                self.retire(id);
            } else if let Some(end) = job.stopped_end() {
                self.end_job(turn.now, id, end);
            } else if job.resumed && job.admitted.on_restart == OnRestart::Unknown {
                self.end_unknown(turn.now, id);
            } else if job.is_worn_out() {
                self.end_worn_out(turn.now, id);
            } else if let Some(refusal) = self.start_refusal(turn, job) {
                self.refuse_start(turn, id, &refusal);
            } else if is_retiring && !waits_for_nothing {
                self.waiting.push_back(id);
            } else if job.is_retirement() && self.must_retire_later() {
                is_retiring = true;
                self.waiting.push_back(id);
            } else if busy.has_room(&job.admitted.kind) {
                is_retiring |= job.is_retirement();
                self.start(turn, id, &mut busy);
            } else {
                self.waiting.push_back(id);
            }
        }
    }

    /// Whether its key and epoch still stand.
    pub(super) fn stands(&self, command: &Verified<Command>) -> bool {
        let key = command.key_id();
        Some(command.epoch) == self.epoch() && self.roots.command_keys().iter().any(|known| known.key_id() == key)
    }

    /// The cheap checks, made for everything that waits: key, epoch and time.
    fn start_refusal(&self, turn: &Turn<'_, impl Admission>, job: &Job) -> Option<Refusal> {
        if !self.stands(&job.command) {
            return Some(revoked());
        }
        let now = self.time(turn.now)?;
        if job.resumed || now <= job.command.start_by() {
            return None;
        }
        let late = now.since(job.command.start_by());
        let message = format!("it waited too long and had to start {late} ago; order it again");
        Some(Refusal::new(ReportStatus::Expired, "time", message))
    }

    /// Ends a command at its start. One that had been started before a restart may have done
    /// something: it cannot be said that it never ran.
    pub(super) fn refuse_start(&mut self, turn: &Turn<'_, impl Admission>, id: CommandId, refusal: &Refusal) {
        let resumed = self.jobs.get(&id).is_some_and(|job| job.resumed);
        let end = if resumed {
            let message = format!("it was interrupted and may not run again ({})", refusal.words());
            end_message(ReportStatus::Unknown, &message, &Value::Null)
        } else {
            refusal.end()
        };
        let why = refusal.words();
        self.event(AgentEvent::Refused { command: id, why });
        self.end_job(turn.now, id, end);
    }

    /// Ends a command that was about to run, and whose key or epoch is void by now.
    pub(super) fn end_revoked(&mut self, now: Clocks, id: CommandId) {
        let refusal = revoked();
        self.event(AgentEvent::Refused { command: id, why: refusal.words() });
        self.end_job(now, id, refusal.end());
    }

    /// Interrupted by a restart, and its action cannot go on. It is said only once a session has shown
    /// that this state is no old copy, or a restored host would contradict its own earlier report.
    fn end_unknown(&mut self, now: Clocks, id: CommandId) {
        let message = "the agent was restarted while it ran, and this action cannot tell how far it got; look at the \
                       host before ordering it again";
        self.end_job(now, id, end_message(ReportStatus::Unknown, message, &Value::Null));
    }

    /// Each run of it ended with the agent's process. Whatever the cause, running it once more would most
    /// likely end that way too, and keep the host from everything else.
    fn end_worn_out(&mut self, now: Clocks, id: CommandId) {
        let message = format!(
            "the agent's process ended each of the {} times it ran this, so it is not tried again and how far it got \
             is not known; what it recorded is put back before the next change to the same app. Look at the host and \
             at the agent's log (memory, disk, power) before ordering it again",
            limits::RESUMPTIONS_MAX + 1
        );
        self.end_job(now, id, end_message(ReportStatus::Unknown, &message, &Value::Null));
    }

    /// A further run of a command that had been started: counted durably, then run.
    pub(super) fn resume(&mut self, id: CommandId) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        job.state = JobState::Starting;
        job.resumptions += 1;
        self.persist(JournalWrite::Resume { command: id }, After::Resumed(id));
    }

    /// The full check, and the durable start.
    fn start(&mut self, turn: &Turn<'_, impl Admission>, id: CommandId, busy: &mut Busy) {
        let Some(job) = self.jobs.get(&id) else { return };
        let Granted { admitted, consent } = match self.admit_start(turn, job) {
            Ok(granted) => granted,
            Err(refusal) => return self.refuse_start(turn, id, &refusal),
        };
        // What it needs may have changed with the registry since it was accepted.
        let needs_other = admitted.kind != job.admitted.kind;
        let Some(job) = self.jobs.get_mut(&id) else { return };
        job.admitted = admitted;
        job.plan = consent.and_then(|consent| consent.plan);
        if needs_other && !busy.has_room(&job.admitted.kind) {
            return self.waiting.push_back(id);
        }
        busy.count(&job.admitted.kind);
        job.state = JobState::Starting;
        job.backwards_only = false;
        if job.resumed {
            self.resume(id);
        } else {
            self.persist(JournalWrite::Start { command: id }, After::Started(id));
        }
    }

    /// Its start is durable: it runs.
    pub(super) fn run_job(&mut self, now: Clocks, id: CommandId) {
        let is_switching = self.is_switching();
        let Some(job) = self.jobs.get(&id) else { return };
        let is_void = !self.stands(&job.command);
        let Some(job) = self.jobs.get_mut(&id) else { return };
        if self.quarantine != QuarantineState::No {
            // Entered while the start was being written: it stands as after a restart.
            job.state = JobState::Waiting;
            job.resumed = true;
            return self.waiting.push_back(id);
        }
        // Its end is signed at once, and it is open by which key: it waits, and does the same then.
        let ends_at_once = matches!(job.admitted.kind, AdmittedKind::Cancel(_)) || job.admitted.kind.is_standing();
        if is_switching && ends_at_once {
            (job.state, job.resumed) = (JobState::Waiting, true);
            return self.waiting.push_back(id);
        }
        // Root metadata came into force while the start was being written. Nothing of it has run, unless it had before.
        if is_void && !job.resumed {
            return self.end_revoked(now, id);
        }
        job.backwards_only |= is_void;
        job.state = JobState::Running;
        match job.admitted.kind {
            AdmittedKind::RotateKeys => return self.rotate_keys(now),
            AdmittedKind::Retire => return self.retire(id),
            AdmittedKind::StandingInstall(_) | AdmittedKind::StandingRenew(_) | AdmittedKind::StandingDrop(..) => {
                return self.change_standing(now, id);
            }
            _ => {}
        }
        if let AdmittedKind::Cancel(target) = job.admitted.kind {
            let dry_run = job.command.order.dry_run;
            return self.run_cancel(now, id, target, dry_run);
        }
        let start = StartCommand {
            command: job.command.clone(),
            sealed: core::mem::take(&mut job.sealed),
            resumed: job.resumed,
            backwards_only: job.backwards_only,
            cancelled: job.cancelled_by.is_some(),
            plan: job.plan,
        };
        self.out.push(Effect::Start(Box::new(start)));
    }

    /// An action ended.
    pub(super) fn finished(&mut self, now: Clocks, id: CommandId, end: End) {
        if self.jobs.get(&id).is_some_and(|job| job.state == JobState::Running) {
            self.end_job(now, id, end);
        }
    }

    /// When the next waiting command will have waited too long, by the boot-time clock.
    pub(super) fn next_start_deadline(&self) -> Option<BootMs> {
        let clock = self.clock?;
        let waiting = self.waiting.iter().filter_map(|id| self.jobs.get(id));
        let waiting = waiting.filter(|job| job.state == JobState::Waiting && !job.resumed);
        let first = waiting.map(|job| job.command.start_by()).min()?;
        Some(clock.at.plus(first.since(clock.time)).plus(DurationMs(1)))
    }
}
