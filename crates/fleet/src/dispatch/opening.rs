//! The beginning of a session: does the agent's state agree with ours, and may orders go out?
//!
//! Three kinds of disagreement (`docs/PROTOCOL.md`, quarantine). An agent that is *behind* what it
//! acknowledged runs on a restored copy of its state: the signed session-open tells it, and it
//! quarantines itself. Two boot ids taking turns are two machines with one identity: neither can
//! see that, so the session is refused. An agent *ahead* of every number ever allocated was given
//! orders by someone else who holds the command key: an alarm, and nothing more is signed for it.

use envelope::{
    VerifyingKey,
    audit::AuditKind,
    messages::{AgentHello, SessionOpen},
    signer_port::SignError,
};
use ids::UnixMs;
use session::frames::{ControlFrame, RefusalCode};

use super::{Effect, HostSession, Note, Phase, lane::After};
use crate::{
    model::{Host, HostStanding},
    ports::{Event, Write},
    record,
};

/// What does not agree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Disagreement {
    pub(super) kind: AuditKind,
    pub(super) why: String,
}

/// Whether the session-open by itself will make the agent enter quarantine (or it is in one).
fn agent_sees(host: &Host, hello: &AgentHello) -> bool {
    hello.quarantine.is_some()
        || hello.host_epoch != host.host_epoch
        || hello.high < host.acknowledged
        || hello.last_report.sequence < host.last_report.sequence
        || (hello.last_report.sequence == host.last_report.sequence && hello.last_report != host.last_report)
}

/// Compares an agent's hello with what is stored.
pub(super) fn judge(host: &Host, hello: &AgentHello) -> Option<Disagreement> {
    let say = |kind, why: String| Some(Disagreement { kind, why });
    if hello.high > host.allocated {
        let (theirs, ours) = (hello.high, host.allocated);
        return say(
            AuditKind::Alarm,
            format!(
                "its agent saw order {theirs}, but only {ours} were ever signed here: someone else may hold the command key"
            ),
        );
    }
    if hello.host_epoch != host.host_epoch {
        return say(
            AuditKind::Quarantine,
            format!("its agent is in host epoch {}, here it is {}", hello.host_epoch, host.host_epoch),
        );
    }
    if hello.high < host.acknowledged {
        return say(
            AuditKind::Quarantine,
            format!(
                "its agent's highest order is {}, but it acknowledged {}: its state is an old copy",
                hello.high, host.acknowledged
            ),
        );
    }
    let (theirs, ours) = (hello.last_report, host.last_report);
    if theirs.sequence < ours.sequence {
        return say(
            AuditKind::Quarantine,
            format!(
                "its agent's last report is {}, but {} is stored here: its state is an old copy",
                theirs.sequence, ours.sequence
            ),
        );
    }
    if theirs.sequence == ours.sequence && theirs.sha256 != ours.sha256 {
        return say(
            AuditKind::Fork,
            format!("its agent holds another report {} than the one stored here", ours.sequence),
        );
    }
    if hello.quarantine.is_some() {
        return say(AuditKind::Quarantine, "its agent quarantined itself".to_owned());
    }
    if let [latest, before] = host.boots.as_slice()
        && hello.boot == *before
        && hello.boot != *latest
    {
        return say(
            AuditKind::Quarantine,
            "two boots of it take turns: two machines have its identity (a clone)".to_owned(),
        );
    }
    None
}

impl HostSession {
    /// The host was read for the first time.
    pub(super) fn begin(&mut self, now: UnixMs) {
        let Some(host) = &self.host else { return };
        match VerifyingKey::try_from(host.identity_key) {
            Ok(key) => self.identity = Some(key),
            Err(error) => {
                self.note(Note::Alarm(format!(
                    "the stored identity key of host {} is not acceptable: {error}",
                    host.name
                )));
                return self.close(RefusalCode::Unavailable, "the control plane's record of this host is damaged");
            }
        }
        let sees = agent_sees(host, &self.peer.hello);
        let disagreement = judge(host, &self.peer.hello);
        let standing = host.standing.clone();
        match (standing, disagreement) {
            (HostStanding::Active, None) => self.open(),
            (HostStanding::Active, Some(Disagreement { kind, why })) => {
                self.stand_quarantined(why.clone());
                let close = (!sees).then_some(RefusalCode::Quarantined);
                self.quarantine_as(kind, why, close, now);
                if sees {
                    self.open();
                }
            }
            (HostStanding::Quarantined { why }, _) if sees => {
                self.note(Note::Quarantined(why));
                self.open();
            }
            (HostStanding::Quarantined { why }, _) => {
                self.close(
                    RefusalCode::Quarantined,
                    format!("this host is quarantined: {why}; revoke it and enrol the machine anew"),
                );
            }
            (HostStanding::Revoked { .. }, _) => {
                self.close(RefusalCode::HostRefused, "this host was revoked; enrol the machine anew");
            }
        }
    }

    fn open(&mut self) {
        let Some(host) = &self.host else { return };
        let open = SessionOpen {
            fleet: self.peer.fleet,
            host: host.id,
            host_epoch: host.host_epoch,
            epoch: self.peer.root.current().epoch,
            exporter: self.peer.exporter,
            proof_sha256: self.peer.proof_sha256,
            // The signer puts in its own.
            time: UnixMs(0),
            acknowledged: host.acknowledged,
            last_report: host.last_report,
        };
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
                self.out.push(Effect::Publish(Event::Host { host: self.peer.host }));
            }
            Err(error) => {
                self.close(RefusalCode::Unavailable, format!("the session could not be opened: {error}; dial again"));
            }
        }
    }

    /// From now on no order goes out in this session, whether or not the store can say so yet.
    fn stand_quarantined(&mut self, why: String) {
        if let Some(host) = &mut self.host
            && host.standing == HostStanding::Active
        {
            host.standing = HostStanding::Quarantined { why };
        }
    }

    /// Puts the host into quarantine; `close` ends the session once that is durable.
    pub(super) fn quarantine(&mut self, why: String, close: Option<RefusalCode>, now: UnixMs) {
        self.quarantine_as(AuditKind::Quarantine, why, close, now);
    }

    pub(super) fn quarantine_as(&mut self, kind: AuditKind, why: String, close: Option<RefusalCode>, now: UnixMs) {
        self.stand_quarantined(why.clone());
        let Some(host) = &self.host else { return };
        let audit = record::host_event(kind, host.id, &host.name, &why, now);
        let write = Write::HostQuarantine { host: host.id, why: why.clone(), audit };
        self.write_first(write, After::Quarantined { why, close });
    }

    pub(super) fn quarantined(&mut self, why: String, close: Option<RefusalCode>) {
        self.note(Note::Quarantined(why.clone()));
        self.out.push(Effect::Publish(Event::Host { host: self.peer.host }));
        if let Some(code) = close {
            self.close(code, format!("this host is quarantined: {why}; revoke it and enrol the machine anew"));
        }
    }
}
