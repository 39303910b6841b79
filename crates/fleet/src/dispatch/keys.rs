//! A host's identity keys: the one on record, and those before it, whose reports may still come.
//!
//! A rotation is stored before its receipt is sent; both may be lost on the way, so the key before it
//! opens sessions until the host has opened one with the new key. Such a session gets no orders: its
//! session-open names the epoch on record, by which an agent that made the new keys learns that they are
//! stored, and any other one that its state is an old copy. The first session under the new key fixes where
//! the old one's reports end, once the host has shown that it saw it open; from then on the old key is good for those reports alone.

use envelope::{
    Verified, VerifyError, VerifyingKey,
    audit::AuditKind,
    keys::{KeyError, role},
    messages::Report,
    verify,
};
use ids::{HostEpoch, ReportSequence, UnixMs};
use session::{control::OfferedKeys, frames::RefusalCode, limits::PROTOCOL_KEY_ROTATION};

use super::{Effect, HostSession, Note, Phase, lane::After};
use crate::{
    model::{FormerKey, Host, HostStanding},
    ports::{Event, HostKeyRotation, Write},
    record,
};

struct HostKey {
    host_epoch: HostEpoch,
    key: VerifyingKey<role::Agent>,
    /// The last report it may have signed, once that is fixed.
    until: Option<ReportSequence>,
}

/// Every identity key of one host that may still verify something.
#[derive(Default)]
pub(super) struct HostKeys(Vec<HostKey>);

impl HostKeys {
    pub(super) fn of(host: &Host, former: &[FormerKey]) -> Result<Self, KeyError> {
        let mut keys =
            vec![HostKey { host_epoch: host.host_epoch, key: VerifyingKey::try_from(host.identity_key)?, until: None }];
        for former in former.iter().filter(|former| former.host_epoch < host.host_epoch) {
            let key = VerifyingKey::try_from(former.identity_key)?;
            keys.push(HostKey { host_epoch: former.host_epoch, key, until: former.last_report });
        }
        Ok(Self(keys))
    }

    fn of_epoch(&self, host_epoch: HostEpoch) -> Option<&HostKey> {
        self.0.iter().find(|key| key.host_epoch == host_epoch)
    }

    /// Verifies a report under one of these keys.
    pub(super) fn open(&self, envelope: &[u8]) -> Result<Verified<Report>, VerifyError> {
        let keys: Vec<_> = self.0.iter().map(|key| key.key).collect();
        verify(envelope, &keys)
    }

    /// Whether the key that signed a report may have signed it: it is that of the report's own epoch, and its reports
    /// did not end before.
    pub(super) fn may_sign(&self, report: &Verified<Report>) -> bool {
        let key = self.of_epoch(report.host_epoch).filter(|key| key.key.key_id() == report.key_id());
        key.is_some_and(|key| key.until.is_none_or(|until| report.sequence <= until))
    }
}

impl HostSession {
    /// Whether this session was opened with the key before the one on record, and the host has not used that one yet.
    fn is_before_rotation(&self, host: &Host) -> bool {
        let epoch = self.peer.authenticated.hello.host_epoch;
        epoch.0.checked_add(1) == Some(host.host_epoch.0)
            && self.keys.of_epoch(epoch).is_some_and(|key| key.until.is_none())
    }

    /// The same for an agent that is well, or does not know yet that its quarantine was ended by that rotation.
    pub(super) fn learns_of_rotation(&self, host: &Host) -> bool {
        let quarantine = self.peer.authenticated.hello.quarantine;
        let is_well = quarantine.is_none() || quarantine == host.quarantine.release;
        host.standing == HostStanding::Active && is_well && self.is_before_rotation(host)
    }

    /// The host has shown that it opened a session under the key on record. Its hello says where the reports of those
    /// before end: it signs none by them between its hello and the open, but may when it never saw the open.
    pub(super) fn retire_keys(&mut self) {
        let Some(host) = &self.host else { return };
        let hello = &self.peer.authenticated.hello;
        let is_open = |key: &HostKey| key.host_epoch < host.host_epoch && key.until.is_none();
        if self.is_retiring || hello.host_epoch != host.host_epoch || !self.keys.0.iter().any(is_open) {
            return;
        }
        self.is_retiring = true;
        let last_report = hello.last_report.sequence.max(host.last_report.sequence);
        let write = Write::HostKeysRetire { host: host.id, host_epoch: host.host_epoch, last_report };
        self.write_first(write, After::KeysRetired { last_report });
    }

    pub(super) fn keys_retired(&mut self, last_report: ReportSequence) {
        let Some(epoch) = self.host.as_ref().map(|host| host.host_epoch) else { return };
        for key in self.keys.0.iter_mut().filter(|key| key.host_epoch < epoch) {
            key.until.get_or_insert(last_report);
        }
    }

    /// The host offers new keys.
    pub(super) fn key_rotation(&mut self, envelope: Vec<u8>, now: UnixMs) {
        let Some(host) = &self.host else { return };
        let authenticated = &self.peer.authenticated;
        if self.phase != Phase::Open || authenticated.protocol < PROTOCOL_KEY_ROTATION {
            return self.close(RefusalCode::NotAuthentic, "a frame that does not belong into a session");
        }
        let released = self.released();
        let is_fit = released.is_some() || (!self.quarantined && host.standing == HostStanding::Active);
        if !is_fit || self.is_rotating {
            return self.note(Note::Dropped("new keys of a host that may not change them now".to_owned()));
        }
        let Some(old) = self.keys.of_epoch(host.host_epoch) else { return };
        let keys = match OfferedKeys::judge(&envelope, authenticated, host.host_epoch, &old.key) {
            Ok(keys) => keys,
            Err(error) => {
                let why = format!("host {}: {error}", host.name);
                let audit = record::host_event(AuditKind::Alarm, host.id, &host.name, &why, now);
                return self.write_first(Write::Audit(audit), After::Alarmed { why, close: RefusalCode::NotAuthentic });
            }
        };
        let rotation = HostKeyRotation {
            host: host.id,
            was: host.host_epoch,
            host_epoch: keys.host_epoch,
            identity_key: keys.identity_key,
            sealing_key: keys.sealing_key,
            audit: record::host_keys(&host.name, keys.host_epoch, envelope.clone(), now),
            rotation: envelope,
            released,
        };
        // What is sealed from here on would be sealed for an epoch that ends.
        self.is_rotating = true;
        self.write_first(Write::HostKeysRotate(Box::new(rotation)), After::KeysRotated(Box::new(keys)));
    }

    /// The new keys are stored: the host is told, and will come back with them.
    pub(super) fn keys_rotated(&mut self, keys: &OfferedKeys, now: UnixMs) {
        if let Some(host) = &mut self.host {
            (host.host_epoch, host.identity_key, host.sealing_key) =
                (keys.host_epoch, keys.identity_key, keys.sealing_key);
        }
        if self.released().is_some() {
            self.note(Note::Released);
        }
        self.note(Note::KeysRotated(keys.host_epoch));
        self.out.push(Effect::SendKeyReceipt(keys.receipt(now)));
        self.out.push(Effect::Publish(Event::Host { host: self.host_id() }));
    }

    /// Whether anything was wrong with a report's signature.
    pub(super) fn report_key_fault(&self, report: &Verified<Report>) -> Option<String> {
        let host = self.host.as_ref()?;
        let is_its_own = (report.fleet, report.host) == (self.peer.authenticated.hello.fleet, host.id);
        if !is_its_own {
            return Some(format!("host {} sent a report of another fleet or host", host.name));
        }
        (!self.keys.may_sign(report)).then(|| {
            let (sequence, epoch) = (report.sequence, report.host_epoch);
            format!("host {} sent report {sequence} under a key that may not sign it (host epoch {epoch})", host.name)
        })
    }
}
