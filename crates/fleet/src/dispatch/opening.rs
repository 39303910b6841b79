//! The beginning of a session: does the agent's state agree with ours, and may orders go out?
//!
//! Three kinds of disagreement (`docs/PROTOCOL.md`, quarantine). An agent that is *behind* what it
//! acknowledged runs on a restored copy of its state: the signed session-open tells it, and it
//! quarantines itself. Two boot ids taking turns are two machines with one identity: neither can
//! see that, so both are told by an epoch that is not theirs. An agent *ahead* of every number ever allocated was given
//! orders by someone else who holds the command key, and an agent that was shown another audit log
//! than this one was shown it by someone: alarms, and nothing more is signed for it.

use envelope::{audit::AuditKind, messages::AgentHello, signer_port::SignError};
use ids::{HostEpoch, UnixMs};
use session::{
    control::{HostRecord, Standing, judge},
    frames::{ControlFrame, RefusalCode},
};

use super::{Effect, HeadSeen, HostSession, Note, Phase, keys::HostKeys, lane::After};
use crate::{
    model::{Host, HostStanding, QuarantineSeen},
    ports::{Event, Write},
    record,
    releases::AgentRelease,
};

/// What a revoked host is told.
pub(super) const REVOKED: &str = "this host was revoked; enrol the machine anew";

fn quarantine_words(why: &str) -> String {
    format!("this host is quarantined: {why}; `serverflow host quarantine list` says what can be done")
}

/// Whether the session-open by itself will make the agent enter quarantine (or it is in one).
fn agent_sees(host: &Host, hello: &AgentHello) -> bool {
    hello.quarantine.is_some()
        || hello.host_epoch != host.host_epoch
        || hello.high < host.acknowledged
        || hello.last_report.sequence < host.last_report.sequence
        || (hello.last_report.sequence == host.last_report.sequence && hello.last_report != host.last_report)
}

pub(super) fn host_record(host: &Host) -> HostRecord<'_> {
    HostRecord {
        host_epoch: host.host_epoch,
        acknowledged: host.acknowledged,
        allocated: host.allocated,
        last_report: host.last_report,
        boots: &host.boots,
    }
}

impl HostSession {
    /// The host was read for the first time.
    pub(super) fn begin(&mut self, now: UnixMs) {
        let Some(host) = &self.host else { return };
        match HostKeys::of(host, &self.peer.former) {
            Ok(keys) => self.keys = keys,
            Err(error) => {
                self.note(Note::Alarm(format!(
                    "the stored identity key of host {} is not acceptable: {error}",
                    host.name
                )));
                return self.close(RefusalCode::Unavailable, "the control plane's record of this host is damaged");
            }
        }
        if self.learns_of_rotation(host) {
            // It learns from the session-open that its new keys are stored, and comes back with them.
            self.quarantined = true;
            return self.open(host.host_epoch);
        }
        let hello = &self.peer.authenticated.hello;
        let standing = match (judge(hello, &host_record(host)), &self.peer.head) {
            (Standing::Fit | Standing::Quarantined(_), HeadSeen::Foreign(why)) => Standing::Alarm(why.clone()),
            (standing, _) => standing,
        };
        let (stored, told) = (host.standing.clone(), self.told_epoch(host, &standing));
        let is_alarm = host.quarantine.is_alarm;
        if let Some(id) = hello.quarantine {
            let seen = QuarantineSeen {
                id,
                at: now,
                boot: hello.boot,
                host_epoch: hello.host_epoch,
                protocol: self.peer.authenticated.protocol,
                high: hello.high,
                last_report: hello.last_report.sequence,
            };
            self.write_first(Write::HostQuarantineSeen { host: self.host_id(), seen }, After::Noted);
        }
        match (stored, standing) {
            (HostStanding::Revoked { .. }, _) => return self.close(RefusalCode::HostRefused, REVOKED),
            (HostStanding::Active, Standing::Fit) => self.seen(),
            (HostStanding::Active, Standing::Quarantined(why)) => self.quarantine(why, None, now),
            (HostStanding::Active, Standing::Alarm(why)) => self.alarm(why, now),
            // Quarantined for less: who may end it is another matter from now on.
            (HostStanding::Quarantined { .. }, Standing::Alarm(why)) if !is_alarm => self.alarm(why, now),
            (HostStanding::Quarantined { why }, _) => self.note(Note::Quarantined(why)),
        }
        self.open(told);
    }

    /// The epoch that the session-open names. An agent that cannot see by itself that its host is quarantined (one of
    /// two clones, a fork of reports) is told the next one: then it enters quarantine, each of two clones its own. Not
    /// for an alarm, before somebody asked for its end: it may be this control plane that is not in its place.
    fn told_epoch(&self, host: &Host, standing: &Standing) -> HostEpoch {
        let is_unseen = !agent_sees(host, &self.peer.authenticated.hello);
        let is_to_be_told = match (&host.standing, standing) {
            (HostStanding::Active, Standing::Quarantined(_)) => true,
            (HostStanding::Quarantined { .. }, _) => !host.quarantine.is_alarm || host.quarantine.is_told,
            _ => false,
        };
        HostEpoch(host.host_epoch.0 + u64::from(is_unseen && is_to_be_told))
    }

    fn open(&mut self, host_epoch: HostEpoch) {
        let Some(host) = &self.host else { return };
        let record = HostRecord { host_epoch, ..host_record(host) };
        // The signer puts in its own time.
        let open = self.peer.authenticated.open(&record, self.peer.root.current().epoch, UnixMs(0));
        self.phase = Phase::Opening;
        self.out.push(Effect::SignOpen(open));
    }

    pub(super) fn open_signed(&mut self, answer: Result<Vec<u8>, SignError>) {
        if self.phase != Phase::Opening {
            return;
        }
        match answer {
            Ok(envelope) => {
                self.phase = Phase::Open;
                self.send(ControlFrame::Open(envelope));
                self.note(Note::Open);
                let agent = &self.peer.authenticated.hello.agent_version;
                if let Some(words) = AgentRelease::of(agent).map(|release| release.words(agent)) {
                    self.note(Note::AgentRelease(words));
                }
                self.out.push(Effect::Publish(Event::Host { host: self.host_id() }));
            }
            Err(error) => {
                self.close(RefusalCode::Unavailable, format!("the session could not be opened: {error}; dial again"));
            }
        }
    }

    fn alarm(&mut self, why: String, now: UnixMs) {
        self.note(Note::Alarm(why.clone()));
        self.quarantine_as(AuditKind::Alarm, why, None, now);
    }

    /// Puts the host into quarantine; `close` ends the session once that is durable.
    pub(super) fn quarantine(&mut self, why: String, close: Option<RefusalCode>, now: UnixMs) {
        self.quarantine_as(AuditKind::Quarantine, why, close, now);
    }

    pub(super) fn quarantine_as(&mut self, kind: AuditKind, why: String, close: Option<RefusalCode>, now: UnixMs) {
        // From now on no order goes out in this session, whether or not the store can say so yet.
        self.quarantined = true;
        let Some(host) = &self.host else { return };
        let audit = record::host_event(kind, host.id, &host.name, &why, now);
        let write = match host.standing {
            HostStanding::Active => Write::HostQuarantine { host: host.id, why: why.clone(), audit },
            HostStanding::Quarantined { .. } if kind == AuditKind::Alarm && !host.quarantine.is_alarm => {
                Write::HostQuarantine { host: host.id, why: why.clone(), audit }
            }
            HostStanding::Quarantined { .. } | HostStanding::Revoked { .. } => Write::Audit(audit),
        };
        self.write_first(write, After::Quarantined { why, close });
    }

    pub(super) fn quarantined(&mut self, why: String, close: Option<RefusalCode>) {
        if let Some(host) = &mut self.host
            && host.standing == HostStanding::Active
        {
            host.standing = HostStanding::Quarantined { why: why.clone() };
        }
        self.note(Note::Quarantined(why.clone()));
        self.out.push(Effect::Publish(Event::Host { host: self.host_id() }));
        if let Some(code) = close {
            self.close(code, quarantine_words(&why));
        }
    }
}
