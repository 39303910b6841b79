//! The end of a quarantine, once an admin asked for it: a guard reset, signed by the command key, and the rotation of
//! keys that answers it in the same session. The transaction of that rotation is what releases the host.
//!
//! From the moment the reset is made out this session takes no report: the reset says where the chain goes on, and what
//! waits at the host is signed anew behind that.

use envelope::{messages::GuardReset, signer_port::SignError};
use ids::{Sequence, UnixMs};
use session::{
    frames::{ControlFrame, RefusalCode},
    limits::PROTOCOL_GUARD_RESET,
};

use super::{Effect, HeadSeen, HostSession, Note, Phase, lane::After};
use crate::{
    model::HostStanding,
    ports::{Released, Write},
    record,
};

/// Where a reset stands in this session.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Resetting {
    #[default]
    No,
    Signing(Box<GuardReset>),
    /// Its audit leaf is being stored.
    Storing,
    /// The agent has it, or will.
    Sent(Released),
}

impl HostSession {
    /// Whether an admin ended the very quarantine that this agent says it is in, and its state can be led on from.
    fn is_release_due(&self) -> bool {
        let Some(host) = &self.host else { return false };
        let (authenticated, release) = (&self.peer.authenticated, host.quarantine.release);
        let hello = &authenticated.hello;
        self.phase == Phase::Open
            && self.resetting == Resetting::No
            && matches!(host.standing, HostStanding::Quarantined { .. })
            && (release.is_some() && hello.quarantine == release)
            && hello.host_epoch == host.host_epoch
            && authenticated.protocol >= PROTOCOL_GUARD_RESET
            && !self.peer.recovery.is_held
            && self.peer.head == HeadSeen::Continues
    }

    pub(super) fn reset_next(&mut self, now: UnixMs) {
        if !self.is_release_due() || !self.lane.is_quiet() || !self.reports.is_empty() {
            return;
        }
        let Some(host) = &self.host else { return };
        let hello = &self.peer.authenticated.hello;
        let Some(quarantine) = hello.quarantine else { return };
        let reset = GuardReset {
            fleet: hello.fleet,
            host: host.id,
            epoch: self.peer.root.current().epoch,
            quarantine,
            host_epoch: ids::HostEpoch(host.host_epoch.0 + 1),
            // Also what someone else gave out, if the host has seen it.
            high: host.allocated.max(hello.high).max(self.reset_high),
            last_report: host.last_report,
            time: now,
        };
        self.resetting = Resetting::Signing(Box::new(reset.clone()));
        self.out.push(Effect::SignReset(Box::new(reset)));
    }

    pub(super) fn reset_signed(&mut self, answer: Result<Vec<u8>, SignError>, now: UnixMs) {
        let Resetting::Signing(reset) = core::mem::take(&mut self.resetting) else { return };
        let Some(host) = &self.host else { return };
        match answer {
            Ok(envelope) => {
                let released = Released { high: reset.high, last_report: reset.last_report };
                self.resetting = Resetting::Storing;
                let audit = record::guard_reset(host.id, &host.name, envelope.clone(), now);
                self.write_first(Write::Audit(audit), After::ResetStored { envelope, released });
            }
            // Numbers that were signed and never stored are used up as well.
            Err(SignError::SequenceTaken { high }) if high > self.reset_high => self.reset_high = high,
            Err(error) => {
                let message = format!("the end of this host's quarantine could not be signed: {error}; dial again");
                self.note(Note::Quarantined(message.clone()));
                self.close(RefusalCode::Unavailable, message);
            }
        }
    }

    pub(super) fn reset_stored(&mut self, envelope: Vec<u8>, released: Released) {
        self.resetting = Resetting::Sent(released);
        self.note(Note::ResetSent);
        // As before an order: the host takes it only from the log that it has seen.
        self.send_audit_head();
        self.send(ControlFrame::GuardReset(envelope));
    }

    /// What a rotation of keys in this session ends, if it answers a reset.
    pub(super) fn released(&self) -> Option<Released> {
        if let Resetting::Sent(released) = &self.resetting { Some(*released) } else { None }
    }

    pub(super) const fn takes_reports(&self) -> bool {
        matches!(self.resetting, Resetting::No) && !self.is_forked
    }
}

/// No sequence.
pub(super) const NONE: Sequence = Sequence(0);
