//! Cancels: what there is to stop, and what becomes durable before anything is told to stop.
//!
//! A command that a cancel reports as asked to stop must stop whatever happens to this process in
//! between. So that it was asked is written beside it, in the one transaction that ends the cancel: no
//! crash keeps the one and loses the other. Only then the action hears of it, and the report goes out.

use envelope::messages::ReportStatus;
use ids::{Class, CommandId};
use serde_json::{Value, json};

use super::{
    AgentLoop,
    end::end_message,
    io::*,
    run::{Job, JobState},
    writes::After,
};

/// What a cancel found, in a word and in words, and whether there is something to stop.
struct Found {
    is_stopped: bool,
    word: &'static str,
    message: String,
}

impl AgentLoop {
    /// Stops another command, and says what there was to stop. How that one ends is its own report's matter.
    pub(super) fn run_cancel(&mut self, now: Clocks, id: CommandId, target: CommandId, dry_run: bool) {
        let Found { is_stopped, word, message } = self.find(target);
        let status = if is_stopped { ReportStatus::Succeeded } else { ReportStatus::Failed };
        let message = if dry_run { format!("a dry run, nothing was stopped: {message}") } else { message };
        let end = end_message(status, &message, &json!({ "target": target, "found": word, "dry_run": dry_run }));
        if is_stopped && !dry_run {
            self.stop(now, id, target, end);
        } else {
            self.end_job(now, id, end);
        }
    }

    fn find(&self, target: CommandId) -> Found {
        let ended = || Found {
            is_stopped: false,
            word: "ended",
            message: format!("{target} had ended already: nothing was stopped"),
        };
        let Some(job) = self.jobs.get(&target) else {
            let message = format!("{target} is not known on this host: nothing was stopped");
            let unknown = Found { is_stopped: false, word: "unknown", message };
            return self.guard.memory.get(target).map_or(unknown, |_| ended());
        };
        if matches!(job.admitted.kind, AdmittedKind::Cancel(_)) {
            let message = format!("{target} is itself a cancel: nothing was stopped");
            return Found { is_stopped: false, word: "cancel", message };
        }
        match job.state {
            JobState::Ending => ended(),
            _ if job.has_begun() && job.admitted.kind == AdmittedKind::Retire => Found {
                is_stopped: false,
                word: "running",
                message: format!(
                    "{target} takes this host out of the fleet, which cannot be stopped any more: it goes on"
                ),
            },
            _ if job.has_begun() && job.admitted.kind == AdmittedKind::RotateKeys => Found {
                is_stopped: false,
                word: "running",
                message: format!("{target} gives this host new keys, which cannot be stopped any more: it goes on"),
            },
            _ if job.has_begun() && job.admitted.kind.is_standing() => Found {
                is_stopped: false,
                word: "running",
                message: format!("{target} is being written down, which cannot be stopped any more: it goes on"),
            },
            _ if job.has_begun() => Found {
                is_stopped: true,
                word: "running",
                message: format!("{target} is running and was asked to stop; its own report says how it ends"),
            },
            _ => {
                Found { is_stopped: true, word: "waiting", message: format!("{target} was waiting and will not start") }
            }
        }
    }

    /// Ends the cancel, and writes down with it whom it stops.
    fn stop(&mut self, now: Clocks, id: CommandId, target: CommandId, end: End) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        job.state = JobState::Ending;
        let command = job.command.clone();
        let report = self.sign_report(now, &command, end);
        let write = JournalWrite::Cancel { command: id, target, report: report.clone() };
        self.persist(write, After::Cancelled { report, target });
        // What has not begun ends at once: its end is written behind the cancel's.
        if self.jobs.get(&target).is_some_and(|job| !job.has_begun()) {
            self.end_job(now, target, before_it_started(id));
        }
    }

    /// That it was asked is durable: it is told now if it runs, else with its next start.
    pub(super) fn ask_to_stop(&mut self, target: CommandId, cancel: CommandId) {
        let Some(job) = self.jobs.get_mut(&target) else { return };
        job.cancelled_by.get_or_insert(cancel);
        if job.state == JobState::Running {
            self.out.push(Effect::Cancel(target));
        }
    }
}

impl Job {
    /// Whether it may have done something: it runs, or ran before a restart.
    fn has_begun(&self) -> bool {
        self.resumed || self.is_active()
    }

    /// The end of what was asked to stop and will not run (again) for it: there is nothing to put back.
    pub(super) fn stopped_end(&self) -> Option<End> {
        let by = self.cancelled_by?;
        if !self.resumed {
            return Some(before_it_started(by));
        }
        let message = format!(
            "cancelled by {by}. The agent was restarted while it ran; it only reads, so nothing is left to be put back"
        );
        (self.admitted.class == Class::Read).then(|| end_message(ReportStatus::Cancelled, &message, &Value::Null))
    }
}

fn before_it_started(cancel: CommandId) -> End {
    let message = format!("cancelled by {cancel} before it started");
    end_message(ReportStatus::Cancelled, &message, &Value::Null)
}
