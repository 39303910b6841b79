//! New keys for this host: made and durable before they are offered, offered inside a signature of the
//! old identity key, and taken with the first session that opens under the new one.
//!
//! Until then both keys are kept. The offer's storing and its receipt may be lost on the way, so an
//! agent that has offered keys dials with the new one first and, when that is refused, with the old one:
//! exactly one of them is on record. What decides is a `session-open`, which a command key signs: under
//! the new key it retires the old one here; under the old key it says, by the host epoch it names,
//! whether the new one was stored meanwhile. Reports carry the old key's epoch up to that moment.

use core::fmt;

use envelope::{
    keys::{SigningKey, role},
    messages::{GuardReset, KeyOffer, KeyReceipt, KeyRotation, ReportStatus, SealingKeyBytes, SessionOpen},
    verify,
};
use ids::{Challenge, CommandId, DurationMs, HostEpoch, HostId, Sha256, TlsExporter, UnixMs, sha256};
use serde_json::{Value, json};

use super::{
    AgentIdentity, AgentLoop, Clocks, QuarantineState,
    end::end_message,
    handshake::{Connection, Phase},
    io::*,
    run::JobState,
    writes::After,
};
use crate::{
    checks::{first_failed, words},
    frames::{AgentFrame, RefusalCode},
    limits,
};

/// Keys of this host that are durable here and not yet in force.
pub struct NextKeys {
    /// From which on they count.
    pub host_epoch: HostEpoch,
    pub identity: SigningKey<role::Agent>,
    pub sealing: SealingKeyBytes,
}

impl fmt::Debug for NextKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NextKeys").field("host_epoch", &self.host_epoch).finish_non_exhaustive()
    }
}

/// Where a change of keys stands.
#[derive(Default)]
pub(super) struct KeyChange {
    next: Option<NextKeys>,
    is_making: bool,
    /// The offer was made durable, so it may have been sent.
    is_offered: bool,
    /// The last session tried with the new key was refused.
    is_refused: bool,
    /// How often in a row an open under the old key said that the new one is stored.
    told: u32,
    /// The guard reset that asked for the keys that were offered.
    reset: Option<GuardReset>,
}

impl KeyChange {
    pub(super) fn stored(next: Option<NextKeys>, offered: Option<HostEpoch>, reset: Option<GuardReset>) -> Self {
        let next_epoch = next.as_ref().map(|next| next.host_epoch);
        let is_offered = next_epoch.is_some() && offered >= next_epoch;
        let reset = reset.filter(|reset| is_offered && Some(reset.host_epoch) == next_epoch);
        Self { next, is_offered, reset, ..Self::default() }
    }

    pub(super) const fn reset(&self) -> Option<&GuardReset> {
        self.reset.as_ref()
    }

    /// Whether this host's keys are changing.
    pub(super) const fn is_under_way(&self) -> bool {
        self.is_making || self.next.is_some()
    }

    /// Whether the next session is tried with the new key.
    pub(super) const fn dials_next(&self) -> bool {
        self.next.is_some() && self.is_offered && !self.is_refused
    }
}

/// A rotation that was signed for this very session.
pub(super) struct Offered {
    envelope: Vec<u8>,
    sha256: Sha256,
}

impl AgentLoop {
    /// Which key this connection speaks with, and of which epoch of this host.
    pub(super) fn speaker(&self) -> (&SigningKey<role::Agent>, HostEpoch) {
        match (&self.connection, &self.keys.next) {
            (Some(connection), Some(next)) if connection.with_next => (&next.identity, next.host_epoch),
            _ => (&self.identity.identity, self.identity.host_epoch),
        }
    }

    /// Whether it is open which key signs the next report: none is signed meanwhile, because the first
    /// hello under a new key says where the old one's reports end.
    pub(super) fn is_switching(&self) -> bool {
        self.connection.as_ref().is_some_and(|it| it.with_next && !matches!(it.phase, Phase::Live(_)))
    }

    /// The session was refused: with one of two keys perhaps because the other one is on record.
    pub(super) fn note_refusal(&mut self, reason: RefusalCode) {
        if reason == RefusalCode::NotAuthentic
            && let Some(connection) = &self.connection
        {
            self.keys.is_refused = connection.with_next;
        }
    }

    /// Keys past half their life are replaced without being asked for. Sessions begin at least hourly, so that this is
    /// the time to look.
    pub(super) fn renew_keys(&mut self, now: Clocks) {
        let Some(Connection { phase: Phase::Live(live), .. }) = &self.connection else { return };
        let may_rotate = live.protocol >= limits::PROTOCOL_KEY_ROTATION
            && self.quarantine == QuarantineState::No
            && !self.is_retiring();
        let Some(time) = self.time(now) else { return };
        let AgentIdentity { host, host_epoch, keys_since, .. } = &self.identity;
        if may_rotate && self.keys.next.is_none() && is_due(*host, *host_epoch, *keys_since, time) {
            self.rotate_keys(now);
        }
    }

    /// An order to rotate runs. One that was interrupted goes on with the keys that were made for it.
    pub(super) fn rotate_keys(&mut self, now: Clocks) {
        if self.keys.next.is_some() {
            self.offer_keys(now);
        } else if !self.keys.is_making {
            self.keys.is_making = true;
            self.out.push(Effect::MakeKeys { host_epoch: HostEpoch(self.identity.host_epoch.0 + 1) });
        }
    }

    /// The new keys are durable.
    pub(super) fn keys_made(&mut self, now: Clocks, next: NextKeys) {
        self.keys.is_making = false;
        if self.keys.next.is_none() && next.host_epoch.0 == self.identity.host_epoch.0 + 1 {
            self.keys.next = Some(next);
        }
        self.offer_keys(now);
    }

    pub(super) fn keys_failed(&mut self, now: Clocks, why: &str) {
        self.keys.is_making = false;
        self.end_rotations(now, &format!("no new keys could be made: {why}"));
    }

    /// Offers the new keys in this session, once. What was begun is carried through, whoever asked for it.
    pub(super) fn offer_keys(&mut self, now: Clocks) {
        let Some(next) = &self.keys.next else { return };
        let Some(Connection { exporter, with_next: false, phase: Phase::Live(live), .. }) = &self.connection else {
            return;
        };
        let may_offer = self.quarantine == QuarantineState::No || live.reset.is_some();
        if !may_offer || live.offered.is_some() {
            return;
        }
        if live.protocol < limits::PROTOCOL_KEY_ROTATION {
            return self.end_rotations(now, "this control plane knows no rotation of keys; upgrade it");
        }
        let host_epoch = next.host_epoch;
        let offered = self.sign_rotation(next, *exporter, live.control_nonce);
        let (rotation, sha256) = (offered.envelope.clone(), offered.sha256);
        let reset = live.reset.as_ref().map(|reset| reset.envelope().to_vec());
        self.keys.reset = live.reset.as_deref().map(|reset| GuardReset::clone(reset));
        if let Some(Connection { phase: Phase::Live(live), .. }) = &mut self.connection {
            live.offered = Some(offered);
        }
        self.persist(JournalWrite::KeyOffer { host_epoch, rotation, reset }, After::KeyOffer(sha256));
    }

    fn sign_rotation(&self, next: &NextKeys, exporter: TlsExporter, control_nonce: Challenge) -> Offered {
        let (fleet, host) = (self.identity.fleet, self.identity.host);
        let offer = next.identity.sign(&KeyOffer {
            identity_key: next.identity.public(),
            fleet,
            host,
            host_epoch: next.host_epoch,
            old_identity_key: self.identity.identity.public(),
            sealing_key: next.sealing,
            control_nonce,
            exporter,
        });
        let rotation = self.identity.identity.sign(&KeyRotation { fleet, host, offer: offer.into_envelope() });
        Offered { sha256: rotation.payload_sha256(), envelope: rotation.into_envelope() }
    }

    /// From now on the new keys may be on record, so they are dialled with.
    pub(super) fn key_offer_durable(&mut self, sha256: Sha256) {
        self.keys.is_offered = self.keys.next.is_some();
        let Some(Connection { phase: Phase::Live(live), .. }) = &self.connection else { return };
        if let Some(offered) = live.offered.as_ref().filter(|offered| offered.sha256 == sha256) {
            let envelope = offered.envelope.clone();
            self.send(AgentFrame::KeyRotation(envelope));
        }
    }

    /// The control plane says that the new keys are stored.
    pub(super) fn key_receipt(&mut self, bytes: &[u8]) {
        let Some(Connection { phase: Phase::Live(live), .. }) = &self.connection else { return };
        let (Some(next), Some(offered)) = (&self.keys.next, &live.offered) else {
            return self.reject("receipt of keys", "no keys were offered in this session".to_owned());
        };
        let receipt = match verify::<KeyReceipt>(bytes, self.roots.session_keys()) {
            Ok(receipt) => receipt,
            Err(error) => return self.reject("receipt of keys", words(&error)),
        };
        let failed = first_failed(&[
            (receipt.fleet == self.identity.fleet, "it is for another fleet"),
            (receipt.host == self.identity.host, "it is for another host"),
            (receipt.host_epoch == next.host_epoch, "it is for another epoch of this host"),
            (receipt.identity_key == next.identity.public(), "it names another identity key"),
            (receipt.sealing_key == next.sealing, "it names another sealing key"),
            (receipt.rotation_sha256 == offered.sha256, "it answers another rotation than the one sent"),
        ]);
        if let Some(why) = failed {
            return self.reject("receipt of keys", why.to_owned());
        }
        let host_epoch = next.host_epoch;
        self.persist(JournalWrite::KeyReceipt { host_epoch, receipt: bytes.to_vec() }, After::KeyReceipt);
    }

    /// The receipt is durable: the next session is tried with the new key.
    pub(super) fn key_receipt_durable(&mut self) {
        if self.keys.next.is_some() {
            self.keys.is_refused = false;
            self.close(true, CloseReason::KeysStored);
        }
    }

    /// Whether a session that opens under the old key says that the new one is on record: the receipt was
    /// lost. Then it ends, and the next is tried with the new key. False when it was said again and again
    /// and the new key refused each time: then others' keys are on record.
    pub(super) fn keys_are_stored(&mut self, open: &SessionOpen) -> bool {
        let is_next = self.keys.is_offered
            && self.keys.next.as_ref().is_some_and(|next| next.host_epoch == open.host_epoch)
            && self.connection.as_ref().is_some_and(|connection| !connection.with_next);
        if !is_next || self.keys.told >= limits::NEXT_KEYS_REFUSED_MAX {
            return false;
        }
        self.keys.told += 1;
        self.keys.is_refused = false;
        self.close(true, CloseReason::KeysStored);
        true
    }

    /// A session opens under the new key: from now on it is this host's only one. The orders that asked
    /// for it end in the same transaction, so none of them makes further keys after a restart.
    pub(super) fn take_keys(&mut self, now: Clocks, open: &SessionOpen) {
        let reset = self.reset_that_fits(open);
        let Some(next) = self.keys.next.take() else { return };
        self.keys = KeyChange::default();
        let host_epoch = next.host_epoch;
        (self.identity.identity, self.identity.host_epoch) = (next.identity, host_epoch);
        self.identity.keys_since = open.time;
        self.judge_standing_again();
        if let Some(connection) = &mut self.connection {
            // What this session speaks with is the key in force from here on, which a further rotation replaces.
            connection.with_next = false;
        }
        let (reset, mut done) = match reset {
            Some(reset) => {
                let (taken, done) = self.carry_out_reset(now, &reset);
                (Some(taken), done)
            }
            None => (None, Vec::new()),
        };
        if self.quarantine == QuarantineState::No {
            let message = "the host has new identity and sealing keys, and the identity key before them is retired";
            let key = self.identity.identity.key_id();
            let detail = json!({ "host_epoch": host_epoch.0, "key_id": key.to_string() });
            for id in self.rotations() {
                let Some(job) = self.jobs.get_mut(&id) else { continue };
                job.state = JobState::Ending;
                let command = job.command.clone();
                done.push(self.sign_report(now, &command, end_message(ReportStatus::Succeeded, message, &detail)));
            }
        }
        let since = open.time;
        let write = JournalWrite::KeysTaken { host_epoch, since, reset: reset.clone(), done: done.clone() };
        self.persist(write, After::KeysTaken { host_epoch, reset, done });
    }

    /// Orders to rotate that had begun.
    fn rotations(&self) -> Vec<CommandId> {
        let begun = self.jobs.iter().filter(|(_, job)| {
            job.admitted.kind == AdmittedKind::RotateKeys
                && (job.state == JobState::Running || (job.resumed && job.state == JobState::Waiting))
        });
        begun.map(|(id, _)| *id).collect()
    }

    fn end_rotations(&mut self, now: Clocks, why: &str) {
        for id in self.rotations() {
            self.end_job(now, id, end_message(ReportStatus::Failed, why, &Value::Null));
        }
    }
}

/// Whether keys that came into force at `since` are past half their life.
fn is_due(host: HostId, host_epoch: HostEpoch, since: UnixMs, now: UnixMs) -> bool {
    let half = limits::HOST_KEY_LIFETIME.0 / 2;
    let spread = half * limits::HOST_KEY_SPREAD_PERCENT / 100;
    let Sha256(hash) = sha256(&[host.as_bytes().as_slice(), &host_epoch.0.to_be_bytes()].concat());
    let die = hash.iter().take(8).fold(0u64, |die, byte| die << 8 | u64::from(*byte));
    let due = since.plus(DurationMs(half - spread + die % (2 * spread + 1)));
    now >= due || since > now.plus(limits::HOST_KEY_AHEAD_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_replaced_around_half_their_life_each_host_at_its_own_time() {
        const SINCE: UnixMs = UnixMs(1_700_000_000_000);
        let due_on = |number: u8, epoch: u64| {
            let host = HostId::from_bytes([number; 16]);
            let is_due_after =
                |days: u64| is_due(host, HostEpoch(epoch), SINCE, SINCE.plus(DurationMs::from_days(days)));
            (0..=90).find(|days| is_due_after(*days)).expect("before its end")
        };
        let days: Vec<u64> = (0..200).map(|number| due_on(number, 1)).collect();
        assert!(days.iter().all(|days| (41..=50).contains(days)), "{days:?}");
        assert!(days.contains(&42) && days.contains(&49), "spread: {days:?}");
        assert!((0..200).any(|number| due_on(number, 1) != due_on(number, 2)), "another time with each key");
        // A clock that was wrong when they were taken.
        let host = HostId::from_bytes([1; 16]);
        assert!(is_due(host, HostEpoch(2), SINCE.plus(DurationMs::from_days(2)), SINCE));
        assert!(!is_due(host, HostEpoch(2), SINCE.plus(DurationMs::from_secs(3600)), SINCE));
    }
}
