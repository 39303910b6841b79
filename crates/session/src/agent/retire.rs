//! This host leaves its fleet: `host.retire`.
//!
//! Four steps, each durable before the next. That it has begun: from then on no other order is taken, and what the
//! journal kept of apps is gone. The keys that open this host's secrets are destroyed, by the shell. The orders that
//! waited end, and the retirement is reported. The report is stored at the control plane, in whose transaction the host
//! is revoked: now this agent's work is done, its identity key goes too, and it never dials again.
//!
//! Whatever ends this process in between, the next one goes on. What is said last may be lost on the way: the
//! acknowledgement of the report. Then the next `session-open`, which a command key signs, names that report as the
//! last on record, and no word that is not signed ends an agent.

use envelope::messages::{ReportStatus, SessionOpen};
use ids::CommandId;
use serde_json::{Value, json};

use super::{
    AgentLoop, Turn,
    end::end_message,
    intake::Refusal,
    io::*,
    run::{Job, JobState},
    writes::After,
};

impl AgentLoop {
    /// Whether this host leaves its fleet: it takes no other order, and makes no keys.
    pub(super) const fn is_retiring(&self) -> bool {
        self.retirement.is_some()
    }

    /// Why an order of that kind is not taken any more.
    pub(super) fn retirement_refusal(&self, kind: &AdmittedKind) -> Option<Refusal> {
        let is_taken = matches!(kind, AdmittedKind::Retire | AdmittedKind::Cancel(_));
        (self.is_retiring() && !is_taken).then(has_left)
    }

    /// Whether it has to wait: what runs holds what is to go, and keys under way are this host's name.
    pub(super) fn must_retire_later(&self) -> bool {
        let is_cancel = |job: &Job| matches!(job.admitted.kind, AdmittedKind::Cancel(_));
        self.jobs.values().any(|job| job.is_active() && !is_cancel(job)) || self.keys.is_under_way()
    }

    /// Whether a command is a retirement that had begun before a restart. Nothing but its end is left to it.
    pub(super) fn goes_on_retiring(&self, job: &Job) -> bool {
        job.resumed && job.is_retirement() && self.is_retiring()
    }

    /// The order to retire runs.
    pub(super) fn retire(&mut self, id: CommandId) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        job.state = JobState::Running;
        self.retirement = Some(Retirement::Begun);
        self.standing.clear();
        self.persist(JournalWrite::Retire { command: id }, After::RetireBegun);
    }

    /// From here on there is no way back.
    pub(super) fn retire_begun(&mut self) {
        self.out.push(Effect::DropSecrets);
    }

    /// The keys that open this host's secrets are gone, or why they are not.
    pub(super) fn secrets_dropped(&mut self, turn: &Turn<'_, impl Admission>, failed: Option<&str>) {
        // Of other orders only such that wait: it began when nothing ran.
        let is_open =
            |job: &Job| job.state == JobState::Waiting || (job.state == JobState::Running && job.is_retirement());
        let open = self.jobs.iter().filter(|(_, job)| is_open(job));
        let open = open.map(|(id, job)| (*id, job.is_retirement()));
        let (own, others): (Vec<_>, Vec<_>) = open.partition(|(_, is_own)| *is_own);
        for (id, _) in others {
            self.refuse_start(turn, id, &has_left());
        }
        for (id, _) in own {
            self.end_job(turn.now, id, end_of(failed));
        }
    }

    /// How the end of a command is written down.
    pub(super) fn end_write(&self, id: CommandId, kind: &AdmittedKind, report: StoredReport) -> JournalWrite {
        let is_retired = *kind == AdmittedKind::Retire && self.retirement == Some(Retirement::Reported);
        if is_retired {
            JournalWrite::Retired { command: id, report }
        } else {
            JournalWrite::Done { command: id, report }
        }
    }

    /// A session opens: perhaps the control plane has stored the last report, and the word that it has was lost.
    /// True when that was so.
    pub(super) fn is_known_to_have_left(&mut self, open: &SessionOpen) -> bool {
        let last = self.outbox.durable;
        let is_it = self.retirement == Some(Retirement::Reported)
            && self.jobs.is_empty()
            && open.host_epoch == self.identity.host_epoch
            && open.last_report == last;
        if is_it && self.outbox.len() > 0 {
            self.outbox.take_all();
            self.persist(JournalWrite::Acknowledge { sequence: last.sequence }, After::Acknowledged(last.sequence));
        }
        is_it
    }

    /// Every report is stored at the control plane: this agent has nothing left to do.
    pub(super) fn leave(&mut self) {
        let is_over = self.retirement == Some(Retirement::Reported) && self.jobs.is_empty() && self.outbox.len() == 0;
        if is_over && self.writes.is_empty() {
            self.close(false, CloseReason::Retired);
            self.out.push(Effect::Retired);
        }
    }
}

impl Job {
    pub(super) fn is_retirement(&self) -> bool {
        self.admitted.kind == AdmittedKind::Retire
    }
}

fn has_left() -> Refusal {
    Refusal::rejected("retired", "this host is leaving the fleet, and takes no orders".to_owned())
}

fn end_of(failed: Option<&str>) -> End {
    if let Some(why) = failed {
        let message = format!(
            "not all secrets of this host could be destroyed: {why}. It takes no other order: mend that on the host and \
             order it again, or revoke the host"
        );
        return end_message(ReportStatus::Failed, &message, &Value::Null);
    }
    let message =
        "the host has left the fleet: its orders and the keys to its secrets are gone, and its containers run on";
    end_message(ReportStatus::Succeeded, message, &json!({ "retired": true }))
}
