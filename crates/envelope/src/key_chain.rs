//! From a host's enrolment receipt to the keys it has now: each rotation is signed by the identity key
//! before it and by the new one, so whoever knows the first key needs to trust nobody for the others.

use ids::{FleetId, HostEpoch, HostId};

use crate::{
    VerifyError,
    envelope::{open_key_offer, verify},
    keys::VerifyingKey,
    messages::{EnrolReceipt, KeyRotation, PublicKeyBytes, SealingKeyBytes},
};

/// Keys of one host in one of its epochs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostKeys {
    pub fleet: FleetId,
    pub host: HostId,
    pub host_epoch: HostEpoch,
    pub identity_key: PublicKeyBytes,
    pub sealing_key: SealingKeyBytes,
}

/// Why a rotation does not follow.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyChainError {
    /// The key before did not sign it, or the new one did not.
    #[error("a rotation of the host's keys does not verify")]
    Signature(#[source] VerifyError),
    /// It is about another host, another epoch or another key.
    #[error("a rotation of the host's keys does not follow from the keys before it")]
    Elsewhere,
}

impl HostKeys {
    /// The keys that a verified receipt names.
    #[must_use]
    pub fn enrolled(receipt: &EnrolReceipt) -> Self {
        let EnrolReceipt { fleet, host, host_epoch, identity_key, sealing_key, .. } = receipt;
        let (fleet, host, host_epoch) = (*fleet, *host, *host_epoch);
        Self { fleet, host, host_epoch, identity_key: *identity_key, sealing_key: *sealing_key }
    }

    /// Takes the next rotation: a [`KeyRotation`]'s envelope.
    ///
    /// # Errors
    /// See [`KeyChainError`]; then nothing changed.
    pub fn follow(&mut self, rotation: &[u8]) -> Result<(), KeyChainError> {
        let signature = KeyChainError::Signature;
        let old = VerifyingKey::try_from(self.identity_key).map_err(|source| signature(VerifyError::Key { source }))?;
        let rotation = verify::<KeyRotation>(rotation, &[old]).map_err(signature)?;
        let offer = open_key_offer(&rotation.offer).map_err(signature)?;
        let follows = (rotation.fleet, rotation.host) == (self.fleet, self.host)
            && (offer.fleet, offer.host) == (self.fleet, self.host)
            && offer.old_identity_key == self.identity_key
            && self.host_epoch.0.checked_add(1) == Some(offer.host_epoch.0);
        if !follows {
            return Err(KeyChainError::Elsewhere);
        }
        (self.host_epoch, self.identity_key, self.sealing_key) =
            (offer.host_epoch, offer.identity_key, offer.sealing_key);
        Ok(())
    }
}
