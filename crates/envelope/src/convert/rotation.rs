//! A host's new keys, and the end of a quarantine.

use ids::{Challenge, Epoch, HostEpoch, Sequence, Sha256, TlsExporter, UnixMs};

use super::{report_position_from, report_position_to};
use crate::{
    decode::{Convert, DecodeError, array, at_most, id, in_range, public_key, sealing_key},
    limits,
    messages::{GuardReset, KeyOffer, KeyReceipt, KeyRotation},
    proto,
};

impl Convert for GuardReset {
    const MESSAGE: &'static str = "guard reset";
    type Proto = proto::GuardReset;

    fn to_proto(&self) -> Self::Proto {
        proto::GuardReset {
            fleet: self.fleet.as_bytes().to_vec(),
            host: self.host.as_bytes().to_vec(),
            epoch: self.epoch.0,
            quarantine: self.quarantine.as_bytes().to_vec(),
            host_epoch: self.host_epoch.0,
            high: self.high.0,
            last_report: Some(report_position_to(&self.last_report)),
            time: self.time.0,
        }
    }

    fn from_proto(proto: Self::Proto) -> Result<Self, DecodeError> {
        let proto::GuardReset { fleet, host, epoch, quarantine, host_epoch, high, last_report, time } = proto;
        // The first epoch comes with the enrolment: a reset leads to a later one.
        in_range("guard-reset.host_epoch", host_epoch > 1)?;
        Ok(Self {
            fleet: id("guard-reset.fleet", &fleet)?,
            host: id("guard-reset.host", &host)?,
            epoch: Epoch(epoch),
            quarantine: id("guard-reset.quarantine", &quarantine)?,
            host_epoch: HostEpoch(host_epoch),
            high: Sequence(high),
            last_report: report_position_from("guard-reset.last_report", last_report)?,
            time: UnixMs(time),
        })
    }
}

impl Convert for KeyOffer {
    const MESSAGE: &'static str = "key offer";
    type Proto = proto::KeyOffer;

    fn to_proto(&self) -> Self::Proto {
        proto::KeyOffer {
            identity_key: self.identity_key.0.to_vec(),
            fleet: self.fleet.as_bytes().to_vec(),
            host: self.host.as_bytes().to_vec(),
            host_epoch: self.host_epoch.0,
            old_identity_key: self.old_identity_key.0.to_vec(),
            sealing_key: self.sealing_key.0.to_vec(),
            control_nonce: self.control_nonce.as_bytes().to_vec(),
            exporter: self.exporter.as_bytes().to_vec(),
        }
    }

    fn from_proto(proto: Self::Proto) -> Result<Self, DecodeError> {
        let proto::KeyOffer {
            identity_key,
            fleet,
            host,
            host_epoch,
            old_identity_key,
            sealing_key: sealing,
            control_nonce,
            exporter,
        } = proto;
        in_range("key-offer.host_epoch", host_epoch > 1)?;
        // The same key under another epoch would be no rotation, and its signature no second one.
        in_range("key-offer.identity_key", identity_key != old_identity_key)?;
        Ok(Self {
            identity_key: public_key("key-offer.identity_key", &identity_key)?,
            fleet: id("key-offer.fleet", &fleet)?,
            host: id("key-offer.host", &host)?,
            host_epoch: HostEpoch(host_epoch),
            old_identity_key: public_key("key-offer.old_identity_key", &old_identity_key)?,
            sealing_key: sealing_key("key-offer.sealing_key", &sealing)?,
            control_nonce: Challenge(array("key-offer.control_nonce", &control_nonce)?),
            exporter: TlsExporter(array("key-offer.exporter", &exporter)?),
        })
    }
}

impl Convert for KeyRotation {
    const MESSAGE: &'static str = "key rotation";
    type Proto = proto::KeyRotation;

    fn to_proto(&self) -> Self::Proto {
        proto::KeyRotation {
            fleet: self.fleet.as_bytes().to_vec(),
            host: self.host.as_bytes().to_vec(),
            offer: self.offer.clone(),
        }
    }

    fn from_proto(proto: Self::Proto) -> Result<Self, DecodeError> {
        let proto::KeyRotation { fleet, host, offer } = proto;
        at_most("key-rotation.offer", offer.len(), limits::SELF_SIGNED_BYTES_MAX)?;
        Ok(Self { fleet: id("key-rotation.fleet", &fleet)?, host: id("key-rotation.host", &host)?, offer })
    }
}

impl Convert for KeyReceipt {
    const MESSAGE: &'static str = "key receipt";
    type Proto = proto::KeyReceipt;

    fn to_proto(&self) -> Self::Proto {
        proto::KeyReceipt {
            fleet: self.fleet.as_bytes().to_vec(),
            host: self.host.as_bytes().to_vec(),
            host_epoch: self.host_epoch.0,
            identity_key: self.identity_key.0.to_vec(),
            sealing_key: self.sealing_key.0.to_vec(),
            rotation_sha256: self.rotation_sha256.as_bytes().to_vec(),
            time: self.time.0,
        }
    }

    fn from_proto(proto: Self::Proto) -> Result<Self, DecodeError> {
        let proto::KeyReceipt { fleet, host, host_epoch, identity_key, sealing_key: sealing, rotation_sha256, time } =
            proto;
        in_range("key-receipt.host_epoch", host_epoch > 1)?;
        Ok(Self {
            fleet: id("key-receipt.fleet", &fleet)?,
            host: id("key-receipt.host", &host)?,
            host_epoch: HostEpoch(host_epoch),
            identity_key: public_key("key-receipt.identity_key", &identity_key)?,
            sealing_key: sealing_key("key-receipt.sealing_key", &sealing)?,
            rotation_sha256: Sha256(array("key-receipt.rotation_sha256", &rotation_sha256)?),
            time: UnixMs(time),
        })
    }
}
