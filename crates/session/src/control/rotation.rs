//! A host's offer of new keys, as the control plane judges it.

use envelope::{
    VerifyError,
    keys::{VerifyingKey, role},
    messages::{KeyReceipt, KeyRotation, PublicKeyBytes, SealingKeyBytes},
    open_key_offer, verify,
};
use ids::{FleetId, HostEpoch, HostId, Sha256, UnixMs};

use super::Authenticated;
use crate::checks::first_failed;

/// Why an offer of new keys does not count.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RotationError {
    /// The old key did not sign it.
    #[error("its rotation of keys does not verify under its identity key")]
    Rotation(#[source] VerifyError),
    /// The new key did not sign it.
    #[error("its offer of new keys does not verify under the key it brings")]
    Offer(#[source] VerifyError),
    /// Both signatures hold, and it is about something else.
    #[error("its offer of new keys does not belong here: {0}")]
    Binding(&'static str),
}

/// New keys of a host, offered in this very session by whoever holds the old identity key and the new one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OfferedKeys {
    pub fleet: FleetId,
    pub host: HostId,
    pub host_epoch: HostEpoch,
    pub identity_key: PublicKeyBytes,
    pub sealing_key: SealingKeyBytes,
    /// SHA-256 of the payload of the rotation.
    pub rotation_sha256: Sha256,
}

impl OfferedKeys {
    /// Judges a rotation that came in the session `of`, whose host is in `host_epoch` and has the identity key `old`.
    ///
    /// # Errors
    /// See [`RotationError`].
    pub fn judge(
        envelope: &[u8],
        of: &Authenticated,
        host_epoch: HostEpoch,
        old: &VerifyingKey<role::Agent>,
    ) -> Result<Self, RotationError> {
        let (fleet, host) = (of.hello.fleet, of.host);
        let rotation = verify::<KeyRotation>(envelope, core::slice::from_ref(old)).map_err(RotationError::Rotation)?;
        let offer = open_key_offer(&rotation.offer).map_err(RotationError::Offer)?;
        let failed = first_failed(&[
            (rotation.fleet == fleet && offer.fleet == fleet, "it is for another fleet"),
            (rotation.host == host && offer.host == host, "it is for another host"),
            (offer.host_epoch.0 == host_epoch.0.saturating_add(1), "its epoch is not the next one of this host"),
            (offer.old_identity_key == old.bytes(), "it replaces another identity key"),
            (offer.control_nonce == of.control_nonce, "it does not answer this session's nonce"),
            (offer.exporter == of.exporter, "it is bound to another TLS connection"),
        ]);
        if let Some(why) = failed {
            return Err(RotationError::Binding(why));
        }
        Ok(Self {
            fleet,
            host,
            host_epoch: offer.host_epoch,
            identity_key: offer.identity_key,
            sealing_key: offer.sealing_key,
            rotation_sha256: rotation.payload_sha256(),
        })
    }

    /// What the host is told once they are stored.
    #[must_use]
    pub const fn receipt(&self, time: UnixMs) -> KeyReceipt {
        KeyReceipt {
            fleet: self.fleet,
            host: self.host,
            host_epoch: self.host_epoch,
            identity_key: self.identity_key,
            sealing_key: self.sealing_key,
            rotation_sha256: self.rotation_sha256,
            time,
        }
    }
}
