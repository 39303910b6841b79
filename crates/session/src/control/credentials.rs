//! A host that this control plane does not know, or knows by older keys only, because it was restored from a backup: by what it
//! brings it is known again. The receipt of its enrolment, which a session key signed, and each change of its keys since, which the
//! keys before and after it signed, lead to the key that it speaks with now.
//!
//! It says who a host *was*. Whether it was revoked meanwhile only a person knows.

use envelope::{
    VerifyError,
    key_chain::{HostKeys, KeyChainError},
    keys::{VerifyingKey, role},
    messages::{EnrolReceipt, KeyReceipt, KeyRotation, PublicKeyBytes},
    root::TrustedRoot,
    verify,
};
use ids::{FleetId, HostEpoch, HostId, HostName, Sha256, UnixMs};

use crate::{checks::first_failed, frames::KeyRecord, limits};

/// Why what a host brings does not show who it is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CredentialsError {
    /// No session key of this fleet signed its receipt.
    #[error("its enrolment receipt does not verify under any session key that this fleet ever had")]
    Receipt(#[source] VerifyError),
    /// A change of its keys is not what both keys signed, or does not follow.
    #[error("change {number} of its keys does not count")]
    Change {
        number: usize,
        #[source]
        source: KeyChainError,
    },
    /// A receipt of such a change is not by a session key.
    #[error(
        "the receipt for change {number} of its keys does not verify under any session key that this fleet ever had"
    )]
    ChangeReceipt {
        number: usize,
        #[source]
        source: VerifyError,
    },
    /// All of it verifies, and is about something else.
    #[error("what it brings does not show that it is this host: {0}")]
    Elsewhere(&'static str),
    /// More than is looked at.
    #[error("it brings {count} changes of its keys; at most {max} are looked at")]
    TooMany { count: usize, max: usize },
}

/// The keys on record of a host that speaks with later ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeysOnRecord {
    pub host_epoch: HostEpoch,
    pub identity_key: PublicKeyBytes,
}

/// A host that is known by what it brought, and by nothing else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Presented {
    pub host: HostId,
    /// Its name when it was enrolled.
    pub name: HostName,
    pub enrolled_at: UnixMs,
    /// Envelope of its enrolment receipt.
    pub receipt: Vec<u8>,
    /// Envelopes of the rotations from the keys on record, or from those of the receipt, ascending.
    pub rotations: Vec<Vec<u8>>,
    /// Epoch of the keys on record; `None` for a host that is not.
    pub on_record: Option<HostEpoch>,
    pub host_epoch: HostEpoch,
    pub identity_key: PublicKeyBytes,
    /// A session key has signed that each of these rotations was stored.
    pub is_receipted: bool,
    /// One of the session keys that signed all that has been dropped since: a thief may have had it.
    pub is_by_dropped_key: bool,
}

/// What verifies receipts, and what of it is in force no more.
struct Sessions<'a> {
    root: &'a TrustedRoot,
    ever: Vec<VerifyingKey<role::Session>>,
    is_dropped: bool,
}

impl Sessions<'_> {
    fn note(&mut self, key: ids::KeyId) {
        self.is_dropped |= !self.root.session_keys().iter().any(|known| known.key_id() == key);
    }
}

impl Presented {
    /// Judges what the host `host` of `fleet` brings. Keys on record have to be led on from; without any, the receipt's are.
    /// Whether it holds the key that this ends with, its proof has to show.
    ///
    /// # Errors
    /// See [`CredentialsError`].
    pub fn judge(
        (fleet, host): (FleetId, HostId),
        on_record: Option<&KeysOnRecord>,
        root: &TrustedRoot,
        receipt: Vec<u8>,
        changes: Vec<KeyRecord>,
    ) -> Result<Self, CredentialsError> {
        let (count, max) = (changes.len(), limits::KEY_CHANGES_SHOWN_MAX);
        if count > max {
            return Err(CredentialsError::TooMany { count, max });
        }
        let mut sessions = Sessions { root, ever: root.session_keys_ever(), is_dropped: false };
        let enrolled = verify::<EnrolReceipt>(&receipt, &sessions.ever).map_err(CredentialsError::Receipt)?;
        let failed = first_failed(&[
            (enrolled.fleet == fleet, "its receipt is of another fleet"),
            (enrolled.host == host, "its receipt is another host's"),
            (on_record.is_none() || !changes.is_empty(), "it brings no change of the keys on record"),
        ]);
        if let Some(why) = failed {
            return Err(CredentialsError::Elsewhere(why));
        }
        sessions.note(enrolled.key_id());
        let mut keys = HostKeys::enrolled(&enrolled);
        if let Some(known) = on_record {
            (keys.host_epoch, keys.identity_key) = (known.host_epoch, known.identity_key);
        }
        let (mut rotations, mut is_receipted) = (Vec::with_capacity(count), true);
        for (number, change) in (1..).zip(changes) {
            let before = keys.identity_key;
            keys.follow(&change.rotation).map_err(|source| CredentialsError::Change { number, source })?;
            match &change.receipt {
                Some(envelope) => {
                    let rotation = rotation_sha256(&change.rotation, before)
                        .map_err(|source| CredentialsError::Change { number, source })?;
                    receipt_of_change(&mut sessions, number, envelope, &keys, rotation)?;
                }
                // The answer to it was lost, and a session-open told the host.
                None => is_receipted = false,
            }
            rotations.push(change.rotation);
        }
        Ok(Self {
            host,
            name: enrolled.name.clone(),
            enrolled_at: enrolled.time,
            receipt,
            rotations,
            on_record: on_record.map(|known| known.host_epoch),
            host_epoch: keys.host_epoch,
            identity_key: keys.identity_key,
            is_receipted,
            is_by_dropped_key: sessions.is_dropped,
        })
    }
}

fn rotation_sha256(envelope: &[u8], old: PublicKeyBytes) -> Result<Sha256, KeyChainError> {
    let old = VerifyingKey::try_from(old).map_err(|source| KeyChainError::Signature(VerifyError::Key { source }))?;
    Ok(verify::<KeyRotation>(envelope, &[old]).map_err(KeyChainError::Signature)?.payload_sha256())
}

fn receipt_of_change(
    sessions: &mut Sessions<'_>,
    number: usize,
    envelope: &[u8],
    keys: &HostKeys,
    rotation: Sha256,
) -> Result<(), CredentialsError> {
    let receipt = verify::<KeyReceipt>(envelope, &sessions.ever)
        .map_err(|source| CredentialsError::ChangeReceipt { number, source })?;
    let is_its_own = (receipt.fleet, receipt.host, receipt.host_epoch) == (keys.fleet, keys.host, keys.host_epoch)
        && (receipt.identity_key, receipt.sealing_key) == (keys.identity_key, keys.sealing_key)
        && receipt.rotation_sha256 == rotation;
    if !is_its_own {
        return Err(CredentialsError::Elsewhere("the receipt of a change of its keys is for another change"));
    }
    sessions.note(receipt.key_id());
    Ok(())
}
