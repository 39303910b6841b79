//! The end of a quarantine: a guard reset, and what becomes of this host's memory by it.
//!
//! A reset is good for the one quarantine it names, and only together with new keys: it is stored with the
//! offer that it asks for, and carried out in the transaction that takes those keys. Until then this host is
//! quarantined as before, so a reset that gets lost on the way leaves nothing half done. Afterwards nothing
//! of before runs: what had no end has run already in a past that this state does not know, or may have.

use envelope::{
    Verified,
    messages::{GuardReset, Report, ReportPosition, ReportStatus, SessionOpen},
    own_report, verify,
};
use ids::{CommandId, HostEpoch, ReportSequence};
use serde_json::Value;

use super::{
    AgentLoop, Clocks, QuarantineState,
    end::end_message,
    handshake::{Connection, Phase},
    io::*,
    outbox::Outbox,
    run::JobState,
};
use crate::checks::{first_failed, words};

impl AgentLoop {
    /// Somebody ended this quarantine: new keys are made, if there are none yet, and offered in this session.
    pub(super) fn guard_reset(&mut self, now: Clocks, bytes: &[u8]) {
        let reset = match verify::<GuardReset>(bytes, self.roots.command_keys()) {
            Ok(reset) => reset,
            Err(error) => return self.reject("guard reset", words(&error)),
        };
        let QuarantineState::In(quarantine) = self.quarantine else {
            return self.reject("guard reset", "this host is not quarantined".to_owned());
        };
        let failed = first_failed(&[
            (reset.fleet == self.identity.fleet, "it is for another fleet"),
            (reset.host == self.identity.host, "it is for another host"),
            (Some(reset.epoch) == self.epoch(), "its epoch is void"),
            (reset.quarantine == quarantine, "it ends another quarantine than the one this host is in"),
            (
                self.identity.host_epoch.0.checked_add(1) == Some(reset.host_epoch.0),
                "its epoch is not the next one of this host",
            ),
            (reset.high >= self.guard.memory.high(), "it leaves command sequences open that this host has seen"),
        ]);
        if let Some(why) = failed {
            return self.reject("guard reset", why.to_owned());
        }
        let Some(Connection { phase: Phase::Live(live), .. }) = &mut self.connection else { return };
        live.reset = Some(Box::new(reset));
        self.rotate_keys(now);
    }

    /// The reset by which the keys that this connection speaks with were asked for, if it ends the quarantine.
    pub(super) fn reset_under_way(&self) -> Option<&GuardReset> {
        let is_with_next = self.connection.as_ref().is_some_and(|connection| connection.with_next);
        let reset = self.keys.reset().filter(|_| is_with_next)?;
        (self.quarantine == QuarantineState::In(reset.quarantine)).then_some(reset)
    }

    /// The same, if the control plane's record is what it says.
    pub(super) fn reset_that_fits(&self, open: &SessionOpen) -> Option<GuardReset> {
        let fits = |reset: &&GuardReset| {
            reset.host_epoch == open.host_epoch
                && reset.last_report == open.last_report
                && reset.high >= open.acknowledged
        };
        self.reset_under_way().filter(fits).cloned()
    }

    /// The quarantine is over. What waits is signed anew, what has no end gets one, and both are one transaction
    /// with the new keys, which are in force in memory already.
    pub(super) fn carry_out_reset(&mut self, now: Clocks, reset: &GuardReset) -> (ResetTaken, Vec<StoredReport>) {
        let waiting = self.outbox.take_all();
        self.quarantine = QuarantineState::No;
        (self.state_missing, self.cleared) = (false, true);
        self.guard.memory.use_up(reset.high);
        self.outbox = Outbox::new(Some(reset.last_report), Vec::new());
        let outbox = waiting.iter().filter_map(|report| self.sign_again(report)).collect();
        let open: Vec<CommandId> =
            self.jobs.iter().filter(|(_, job)| !self.is_at_work(job)).map(|(id, _)| *id).collect();
        let message = "this host's state was an old copy or a clone when it was quarantined, so whether this ran, and how \
                       far it got, is not known; look at the host before ordering it again";
        let mut done = Vec::new();
        for id in open {
            let Some(job) = self.jobs.get_mut(&id) else { continue };
            job.state = JobState::Ending;
            let command = job.command.clone();
            done.push(self.sign_report(now, &command, end_message(ReportStatus::Unknown, message, &Value::Null)));
        }
        self.waiting.retain(|id| self.jobs.get(id).is_some_and(|job| job.state == JobState::Waiting));
        // One of them may have been dropped in the past that this state does not know.
        self.standing.clear();
        (ResetTaken { high: reset.high, last_report: reset.last_report, outbox }, done)
    }

    /// Whether it ended, or runs in this very process: then its end is its own. A host that had begun to leave its fleet
    /// goes on with that, too.
    fn is_at_work(&self, job: &super::run::Job) -> bool {
        let runs = job.state == JobState::Running && job.admitted.kind != AdmittedKind::RotateKeys;
        runs || job.state == JobState::Ending || self.goes_on_retiring(job)
    }

    fn sign_again(&mut self, stored: &StoredReport) -> Option<StoredReport> {
        // Its own, from its own disk: one that cannot be read was not written by this program.
        let report = own_report(&stored.envelope).ok()?;
        let sequence = ReportSequence(self.outbox.last.sequence.0 + 1);
        let (host_epoch, previous): (HostEpoch, _) = (self.identity.host_epoch, self.outbox.last.sha256);
        let signed = self.identity.identity.sign(&Report { host_epoch, sequence, previous, ..report });
        let sha256 = signed.payload_sha256();
        self.outbox.last = ReportPosition { sequence, sha256 };
        Some(StoredReport { command: stored.command, sequence, sha256, envelope: signed.into_envelope() })
    }

    /// It is durable.
    pub(super) fn reset_durable(&mut self, reset: ResetTaken) {
        self.guard.durable_high = self.guard.durable_high.max(reset.high);
        for report in reset.outbox {
            self.outbox.store(report);
        }
        self.event(AgentEvent::Released);
    }
}

/// A reset that came in this session.
pub(super) type Reset = Verified<GuardReset>;
