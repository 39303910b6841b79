//! Root metadata. The limits of its lists are checked here; its rules in [`crate::root`].

use ids::{Epoch, RootVersion, Sha256, UnixMs};

use super::{log_position_from, log_position_to};
use crate::{
    decode::{Convert, DecodeError, array, at_most, id, public_key, public_keys, required, sealing_key, text},
    limits,
    messages::{ApprovalThresholds, PublicKeyBytes, RootMetadata, SealingKeyBytes},
    proto,
};

fn keys_to(keys: &[PublicKeyBytes]) -> Vec<Vec<u8>> {
    keys.iter().map(|key| key.0.to_vec()).collect()
}

impl Convert for RootMetadata {
    const MESSAGE: &'static str = "root metadata";
    type Proto = proto::RootMetadata;

    fn to_proto(&self) -> Self::Proto {
        proto::RootMetadata {
            version: self.version.0,
            issued: self.issued.0,
            expires: self.expires.0,
            fleet: self.fleet.as_bytes().to_vec(),
            root_keys: keys_to(&self.root_keys),
            root_threshold: self.root_threshold,
            addresses: self.addresses.clone(),
            recovery_keys: self.recovery_keys.iter().map(|key| key.0.to_vec()).collect(),
            session_keys: keys_to(&self.session_keys),
            command_keys: keys_to(&self.command_keys),
            approver_keys: keys_to(&self.approver_keys),
            approvals: Some(proto::ApprovalThresholds {
                change: self.approvals.change,
                destructive: self.approvals.destructive,
            }),
            audit_key: self.audit_key.0.to_vec(),
            audit_log: self.audit_log.as_bytes().to_vec(),
            restored_log: self.restored_log.as_ref().map(log_position_to),
            tls_pins: self.tls_pins.iter().map(|pin| pin.as_bytes().to_vec()).collect(),
            protocol_min: self.protocol_min,
            epoch: self.epoch.0,
        }
    }

    fn from_proto(proto: Self::Proto) -> Result<Self, DecodeError> {
        let proto::RootMetadata {
            version,
            issued,
            expires,
            fleet,
            root_keys,
            root_threshold,
            addresses,
            recovery_keys,
            session_keys,
            command_keys,
            approver_keys,
            approvals,
            audit_key,
            audit_log,
            restored_log,
            tls_pins,
            protocol_min,
            epoch,
        } = proto;
        let approvals = required("root.approvals", approvals)?;
        Ok(Self {
            version: RootVersion(version),
            issued: UnixMs(issued),
            expires: UnixMs(expires),
            fleet: id("root.fleet", &fleet)?,
            root_keys: public_keys("root.root_keys", &root_keys, limits::ROOT_KEYS_COUNT_MAX)?,
            root_threshold,
            addresses: addresses_from(addresses)?,
            recovery_keys: recovery_keys_from(&recovery_keys)?,
            session_keys: public_keys("root.session_keys", &session_keys, limits::ONLINE_KEYS_COUNT_MAX)?,
            command_keys: public_keys("root.command_keys", &command_keys, limits::ONLINE_KEYS_COUNT_MAX)?,
            approver_keys: public_keys("root.approver_keys", &approver_keys, limits::APPROVER_KEYS_COUNT_MAX)?,
            approvals: ApprovalThresholds { change: approvals.change, destructive: approvals.destructive },
            audit_key: public_key("root.audit_key", &audit_key)?,
            audit_log: id("root.audit_log", &audit_log)?,
            restored_log: restored_log.map(|log| log_position_from("root.restored_log", log)).transpose()?,
            tls_pins: tls_pins_from(&tls_pins)?,
            protocol_min,
            epoch: Epoch(epoch),
        })
    }
}

fn addresses_from(addresses: Vec<String>) -> Result<Vec<String>, DecodeError> {
    at_most("root.addresses", addresses.len(), limits::ADDRESSES_COUNT_MAX)?;
    for address in &addresses {
        text("root.addresses", address, limits::ADDRESS_BYTES_MAX)?;
    }
    Ok(addresses)
}

fn recovery_keys_from(keys: &[Vec<u8>]) -> Result<Vec<SealingKeyBytes>, DecodeError> {
    at_most("root.recovery_keys", keys.len(), limits::RECOVERY_KEYS_COUNT_MAX)?;
    keys.iter().map(|key| sealing_key("root.recovery_keys", key)).collect()
}

fn tls_pins_from(pins: &[Vec<u8>]) -> Result<Vec<Sha256>, DecodeError> {
    at_most("root.tls_pins", pins.len(), limits::TLS_PINS_COUNT_MAX)?;
    pins.iter().map(|pin| array("root.tls_pins", pin).map(Sha256)).collect()
}
