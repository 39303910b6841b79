//! A version of root metadata on its way from one root key to the next: what it says, who has signed
//! it, and who is missing.

use ids::{RootVersion, Sha256};

use super::{ROOT_TYPE, RootError, TrustedRoot, Unverified, sign_root};
use crate::{
    envelope::assemble,
    keys::{SigningKey, VerifyingKey, role},
    messages::{PublicKeyBytes, RootMetadata},
};

/// A version of root metadata with any number of signatures, none among them.
pub struct Proposal {
    unverified: Unverified,
}

/// What adding a signature did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Added {
    /// The signature is new.
    Signed,
    /// This key had signed already.
    WasThere,
}

/// How far one version's root keys have signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Threshold {
    /// Whose root keys.
    pub version: RootVersion,
    /// How many distinct ones must sign.
    pub needed: u32,
    /// Those whose signature verifies, in the order of the metadata.
    pub signed: Vec<PublicKeyBytes>,
    /// The others.
    pub unsigned: Vec<PublicKeyBytes>,
}

impl Threshold {
    /// Signatures still needed.
    #[must_use]
    pub fn missing(&self) -> u32 {
        self.needed.saturating_sub(u32::try_from(self.signed.len()).unwrap_or(u32::MAX))
    }
}

/// Who has signed, and who is missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Root keys of the version before; none when this is the first.
    pub before: Option<Threshold>,
    /// Its own.
    pub own: Threshold,
}

impl Progress {
    /// Whether nobody is missing.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.own.missing() == 0 && self.before.as_ref().is_none_or(|before| before.missing() == 0)
    }
}

impl Proposal {
    /// A version that nobody has signed.
    ///
    /// # Errors
    /// When it breaks a rule of [`super::check_structure`].
    pub fn new(metadata: &RootMetadata) -> Result<Self, RootError> {
        Self::parse(&sign_root(&[], metadata))
    }

    /// Takes an envelope apart. Its signatures are not judged: see [`Proposal::progress`].
    ///
    /// # Errors
    /// When it is no envelope of root metadata, or breaks a rule.
    pub fn parse(envelope: &[u8]) -> Result<Self, RootError> {
        Ok(Self { unverified: Unverified::parse(envelope)? })
    }

    /// What it says.
    #[must_use]
    pub const fn metadata(&self) -> &RootMetadata {
        &self.unverified.metadata
    }

    /// SHA-256 of its payload, the same whoever has signed: what people compare.
    #[must_use]
    pub fn payload_sha256(&self) -> Sha256 {
        self.unverified.payload_sha256()
    }

    /// The envelope with the signatures it has.
    #[must_use]
    pub fn envelope(&self) -> Vec<u8> {
        let opened = &self.unverified.opened;
        assemble(ROOT_TYPE, opened.payload.clone(), &opened.signatures)
    }

    /// Whether it can follow that version at all, whoever signs it; without one, whether it is the first.
    ///
    /// # Errors
    /// The rule that it breaks.
    pub fn check_follows(&self, current: Option<&TrustedRoot>) -> Result<(), RootError> {
        let found = self.metadata();
        match current {
            Some(current) => {
                current.require_next(found.version)?;
                current.require_continued(found)
            }
            None if found.version == RootVersion(1) => Ok(()),
            None => Err(RootError::NotFirst { found: found.version }),
        }
    }

    /// Adds a signature. Those that do not verify under a root key of either version are dropped.
    ///
    /// # Errors
    /// When it does not follow `current`, or the key is a root key neither of `current` nor of it.
    pub fn add_signature(
        &mut self,
        current: Option<&TrustedRoot>,
        key: &SigningKey<role::Root>,
    ) -> Result<Added, RootError> {
        self.check_follows(current)?;
        let voters: Vec<_> = self.voters(current).copied().collect();
        if !voters.contains(&key.verifying()) {
            let version = self.metadata().version;
            return Err(RootError::NotARootKey { version, key: key.public() });
        }
        let bytes = self.unverified.opened.signed_bytes();
        let signatures = &mut self.unverified.opened.signatures;
        signatures.retain(|(id, signature)| {
            voters.iter().any(|voter| voter.key_id() == *id && voter.is_signed(&bytes, signature))
        });
        if signatures.iter().any(|(id, _)| *id == key.key_id()) {
            return Ok(Added::WasThere);
        }
        signatures.push((key.key_id(), key.sign_bytes(&bytes)));
        signatures.sort_unstable_by_key(|(id, _)| *id);
        Ok(Added::Signed)
    }

    fn voters<'a>(&'a self, current: Option<&'a TrustedRoot>) -> impl Iterator<Item = &'a VerifyingKey<role::Root>> {
        let before = current.map_or(&[][..], TrustedRoot::root_keys);
        before.iter().chain(&self.unverified.keys.root)
    }

    /// Who has signed, and who is missing, if it is to follow `current`.
    #[must_use]
    pub fn progress(&self, current: Option<&TrustedRoot>) -> Progress {
        let threshold = |version, needed, keys: &[VerifyingKey<role::Root>]| {
            let valid = self.unverified.signers(keys);
            let (signed, unsigned) =
                keys.iter().map(VerifyingKey::bytes).partition(|key: &PublicKeyBytes| valid.contains(key));
            Threshold { version, needed, signed, unsigned }
        };
        let own = self.metadata();
        Progress {
            before: current.map(|root| threshold(root.version(), root.current().root_threshold, root.root_keys())),
            own: threshold(own.version, own.root_threshold, &self.unverified.keys.root),
        }
    }

    /// Whether that key signed it.
    #[must_use]
    pub fn is_signed_by(&self, key: &VerifyingKey<role::Root>) -> bool {
        !self.unverified.signers(core::slice::from_ref(key)).is_empty()
    }
}
