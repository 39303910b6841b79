//! Root metadata and its chain: who may sign what, and how that changes.
//!
//! Version N+1 counts only when it is exactly N+1, when enough root keys of version N and enough of
//! its own signed it, when it speaks of the same fleet, and when it leaves the fleet governable
//! (see [`check_structure`]). Signatures of distinct keys are counted. Expiry is judged for the last
//! of a chain only, by the caller's time.

mod changes;
mod draft;
mod file;
mod in_force;
mod online;
mod proposal;

use std::collections::BTreeSet;

use ids::{Epoch, FleetId, RootVersion, Sha256, UnixMs};

use crate::{
    address,
    decode::{Convert, DecodeError},
    envelope::{Opened, VerifyError, assemble, pre_authentication_encoding},
    keys::{KeyError, SigningKey, VerifyingKey, role},
    limits,
    messages::{PublicKeyBytes, RootMetadata},
};

pub use self::{
    changes::{Change, changes},
    draft::{DraftError, Edit, next_version},
    file::{FILE_BYTES_MAX, FileError, RootFile, RootKeys},
    online::{OnlineKey, OnlineRole, StagedKeys, listed, listed_since},
    proposal::{Added, Progress, Proposal, Threshold},
};

/// The payload type of root metadata.
pub const ROOT_TYPE: &str = "application/vnd.serverflow.root.v1";

/// Why root metadata is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RootError {
    /// The envelope is too large or not well-formed.
    #[error("root metadata: the envelope is refused")]
    Envelope { source: VerifyError },
    /// The envelope holds something else.
    #[error("root metadata: expected {ROOT_TYPE}, found {found}")]
    WrongType { found: String },
    /// The content is malformed, not canonical, or breaks a limit.
    #[error("root metadata: the content is refused")]
    Content { source: DecodeError },
    /// Its hash is not the pinned one.
    #[error("root metadata: its hash is {found}, pinned is {pinned}")]
    NotPinned { pinned: Sha256, found: Sha256 },
    /// Not the version that comes next.
    #[error("root metadata: version {found} cannot follow version {current}; exactly the next one can")]
    NotNext { current: RootVersion, found: RootVersion },
    /// Where a chain begins with version 1, another came.
    #[error("root metadata: the chain begins with version {found} instead of 1")]
    NotFirst { found: RootVersion },
    /// Too few distinct root keys of one version signed it.
    #[error(
        "root metadata version {version}: {valid} valid signatures by root keys of version {by}; {needed} are needed"
    )]
    Threshold { version: RootVersion, by: RootVersion, valid: usize, needed: u32 },
    /// It speaks of another fleet.
    #[error("root metadata: it governs fleet {found}, expected {expected}")]
    OtherFleet { expected: FleetId, found: FleetId },
    /// It lowers the fleet's epoch, which would revive what was voided.
    #[error("root metadata: it lowers the epoch from {current} to {found}")]
    EpochLowered { current: Epoch, found: Epoch },
    /// It would leave the fleet without what it needs, or mixes roles.
    #[error("root metadata: {rule}")]
    Structure { rule: &'static str },
    /// A key in it is not acceptable.
    #[error("root metadata: a key is not acceptable")]
    Key { source: KeyError },
    /// No chain at all, or one longer than is held.
    #[error("root metadata: a chain of {length} versions; 1 to {max} are possible")]
    ChainLength { length: usize, max: usize },
    /// Signed with a key that has no say in it.
    #[error("root metadata version {version}: {key} is a root key neither of it nor of the version before")]
    NotARootKey { version: RootVersion, key: PublicKeyBytes },
    /// A candidate was judged against another version than the one in force now.
    #[error("root metadata: version {found} was judged against other root metadata than is in force")]
    StaleCandidate { found: RootVersion },
}

/// Signs root metadata with one or more root keys; the same key given twice signs once. Check the
/// content first with [`check_structure`]: this does not.
#[must_use]
pub fn sign_root(keys: &[&SigningKey<role::Root>], metadata: &RootMetadata) -> Vec<u8> {
    let payload = metadata.to_bytes();
    let bytes = pre_authentication_encoding(ROOT_TYPE, &payload);
    let mut signatures: Vec<_> = keys.iter().map(|key| (key.key_id(), key.sign_bytes(&bytes))).collect();
    signatures.sort_unstable_by_key(|(key, _)| *key);
    signatures.dedup_by_key(|(key, _)| *key);
    assemble(ROOT_TYPE, payload, &signatures)
}

/// The rules one version must keep by itself, whatever came before: nothing empty that must not
/// be, thresholds that can be met, an end after its beginning, no key in two roles.
///
/// # Errors
/// [`RootError::Structure`] names the first rule broken, [`RootError::Content`] a limit.
pub fn check_structure(metadata: &RootMetadata) -> Result<(), RootError> {
    RootMetadata::from_bytes(&metadata.to_bytes()).map_err(|source| RootError::Content { source })?;
    check_rules(metadata)
}

/// The same of metadata that was decoded just now, which checked its limits and keys.
fn check_rules(metadata: &RootMetadata) -> Result<(), RootError> {
    let rule = |holds: bool, rule: &'static str| if holds { Ok(()) } else { Err(RootError::Structure { rule }) };
    let meetable = |threshold: u32, keys: usize| usize::try_from(threshold).is_ok_and(|needed| needed <= keys);

    rule(metadata.version.0 >= 1, "versions begin with 1")?;
    rule(metadata.expires > metadata.issued, "it must expire after it was issued")?;
    rule(!metadata.root_keys.is_empty(), "at least one root key is needed")?;
    rule(metadata.root_threshold >= 1, "the root threshold must be at least 1")?;
    rule(
        meetable(metadata.root_threshold, metadata.root_keys.len()),
        "the root threshold must not exceed the number of root keys",
    )?;
    rule(!metadata.session_keys.is_empty(), "at least one session key is needed")?;
    rule(!metadata.command_keys.is_empty(), "at least one command key is needed")?;
    let approvals = metadata.approvals.change.max(metadata.approvals.destructive);
    rule(
        meetable(approvals, metadata.approver_keys.len()),
        "an approval threshold must not exceed the number of approver keys",
    )?;
    rule(metadata.tls_pins.len() >= limits::TLS_PINS_COUNT_MIN, "at least two TLS pins are needed: now and next")?;
    let pins: BTreeSet<_> = metadata.tls_pins.iter().collect();
    rule(pins.len() == metadata.tls_pins.len(), "a TLS pin is listed twice")?;
    rule(!metadata.addresses.is_empty(), "at least one address is needed")?;
    rule(metadata.addresses.iter().all(|text| address::is_valid(text)), "an address is not of the form host:port")?;
    rule(
        metadata.restored_log.is_none_or(|log| log.log != metadata.audit_log),
        "the audit log before a restore must be another log",
    )?;
    let mut seen = BTreeSet::new();
    rule(all_keys(metadata).all(|key| seen.insert(key)), "a key is listed twice, or in two roles")
}

fn all_keys(metadata: &RootMetadata) -> impl Iterator<Item = &[u8; 32]> {
    let lists = [&metadata.root_keys, &metadata.session_keys, &metadata.command_keys, &metadata.approver_keys];
    let listed = lists.into_iter().flatten().chain([&metadata.audit_key]).map(|key| &key.0);
    listed.chain(metadata.recovery_keys.iter().map(|key| &key.0))
}

/// The keys of one version, ready to verify.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Keys {
    root: Vec<VerifyingKey<role::Root>>,
    session: Vec<VerifyingKey<role::Session>>,
    command: Vec<VerifyingKey<role::Command>>,
    approver: Vec<VerifyingKey<role::Approver>>,
    audit: VerifyingKey<role::Audit>,
}

impl Keys {
    /// Of metadata that was decoded just now: whether a key may be one is checked there, once. It costs more than all else here.
    fn of(metadata: &RootMetadata) -> Result<Self, RootError> {
        fn list<R: crate::keys::KeyRole>(keys: &[PublicKeyBytes]) -> Result<Vec<VerifyingKey<R>>, RootError> {
            keys.iter().map(|&key| VerifyingKey::checked(key).map_err(|source| RootError::Key { source })).collect()
        }
        Ok(Self {
            root: list(&metadata.root_keys)?,
            session: list(&metadata.session_keys)?,
            command: list(&metadata.command_keys)?,
            approver: list(&metadata.approver_keys)?,
            audit: VerifyingKey::checked(metadata.audit_key).map_err(|source| RootError::Key { source })?,
        })
    }
}

/// Root metadata judged acceptable, not yet in force: store it durably, then
/// [`TrustedRoot::apply`] it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    metadata: RootMetadata,
    keys: Keys,
    envelope: Vec<u8>,
    payload_sha256: Sha256,
    /// Payload hash of the version it was judged against; none for the first of a chain.
    follows: Option<Sha256>,
}

impl Candidate {
    /// What it says.
    #[must_use]
    pub const fn metadata(&self) -> &RootMetadata {
        &self.metadata
    }
    /// The envelope, to be stored.
    #[must_use]
    pub fn envelope(&self) -> &[u8] {
        &self.envelope
    }
    /// SHA-256 of the payload.
    #[must_use]
    pub const fn payload_sha256(&self) -> Sha256 {
        self.payload_sha256
    }
}

/// The root metadata in force and the chain that leads to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustedRoot {
    last: Candidate,
    /// Ascending, without gaps; the last is in force.
    chain: Vec<Vec<u8>>,
    /// Their payload hashes.
    payloads: Vec<Sha256>,
    issued_floor: UnixMs,
    restored_at: Option<UnixMs>,
}

/// An envelope of root metadata whose signatures were not counted yet.
struct Unverified {
    opened: Opened,
    metadata: RootMetadata,
    keys: Keys,
}

impl Unverified {
    /// Unlike other messages, root metadata has to be decoded before it is verified: the keys of its
    /// own threshold are in it. Nothing is done with it before both thresholds are met.
    fn parse(envelope: &[u8]) -> Result<Self, RootError> {
        let opened =
            Opened::parse(envelope, limits::ENVELOPE_BYTES_MAX).map_err(|source| RootError::Envelope { source })?;
        if opened.payload_type != ROOT_TYPE {
            return Err(RootError::WrongType { found: opened.payload_type });
        }
        let metadata = RootMetadata::from_bytes(&opened.payload).map_err(|source| RootError::Content { source })?;
        check_rules(&metadata)?;
        let keys = Keys::of(&metadata)?;
        Ok(Self { opened, metadata, keys })
    }

    fn payload_sha256(&self) -> Sha256 {
        ids::sha256(&self.opened.payload)
    }

    /// The distinct keys among `keys` whose signature verifies.
    fn signers(&self, keys: &[VerifyingKey<role::Root>]) -> BTreeSet<PublicKeyBytes> {
        let bytes = self.opened.signed_bytes();
        let signed_by = |key: &&VerifyingKey<role::Root>| {
            let mut signatures = self.opened.signatures.iter();
            signatures.any(|(id, signature)| *id == key.key_id() && key.is_signed(&bytes, signature))
        };
        keys.iter().filter(signed_by).map(VerifyingKey::bytes).collect()
    }

    /// Distinct keys count, not signatures.
    fn require(&self, by: RootVersion, keys: &[VerifyingKey<role::Root>], needed: u32) -> Result<(), RootError> {
        let valid = self.signers(keys).len();
        if needed >= 1 && usize::try_from(needed).is_ok_and(|needed| valid >= needed) {
            return Ok(());
        }
        Err(RootError::Threshold { version: self.metadata.version, by, valid, needed })
    }

    fn require_own(&self) -> Result<(), RootError> {
        self.require(self.metadata.version, &self.keys.root, self.metadata.root_threshold)
    }

    fn into_candidate(self, envelope: &[u8], follows: Option<Sha256>) -> Candidate {
        let payload_sha256 = self.payload_sha256();
        Candidate { metadata: self.metadata, keys: self.keys, envelope: envelope.to_vec(), payload_sha256, follows }
    }
}

impl TrustedRoot {
    fn begin(first: Candidate) -> Self {
        let payloads = vec![first.payload_sha256];
        let restored_at = first.metadata.restored_log.map(|_| first.metadata.issued);
        let issued_floor = first.metadata.issued;
        Self { chain: vec![first.envelope.clone()], payloads, issued_floor, restored_at, last: first }
    }

    /// Begins with the version whose payload has the hash a join token names.
    ///
    /// # Errors
    /// When the hash differs, its own threshold is not met, or a rule is broken.
    pub fn pin(envelope: &[u8], payload_sha256: Sha256) -> Result<Self, RootError> {
        let opened =
            Opened::parse(envelope, limits::ENVELOPE_BYTES_MAX).map_err(|source| RootError::Envelope { source })?;
        // The hash comes first: bytes that nobody vouches for are not decoded.
        let found = ids::sha256(&opened.payload);
        if found != payload_sha256 {
            return Err(RootError::NotPinned { pinned: payload_sha256, found });
        }
        let unverified = Unverified::parse(envelope)?;
        unverified.require_own()?;
        Ok(Self::begin(unverified.into_candidate(envelope, None)))
    }

    /// Begins with version 1, signed by the root key someone holds in their hand.
    ///
    /// # Errors
    /// When it is not version 1, `root_key` is not among its root keys or did not sign it, its own
    /// threshold is not met, or a rule is broken.
    pub fn pin_key(envelope: &[u8], root_key: PublicKeyBytes) -> Result<Self, RootError> {
        let key = VerifyingKey::try_from(root_key).map_err(|source| RootError::Key { source })?;
        let unverified = Unverified::parse(envelope)?;
        let version = unverified.metadata.version;
        if version.0 != 1 {
            return Err(RootError::NotFirst { found: version });
        }
        if !unverified.keys.root.contains(&key) {
            return Err(RootError::Threshold { version, by: version, valid: 0, needed: 1 });
        }
        unverified.require(version, &[key], 1)?;
        unverified.require_own()?;
        Ok(Self::begin(unverified.into_candidate(envelope, None)))
    }

    /// Begins with version 1, whoever made it: what somebody else vouches for, or nobody yet.
    ///
    /// # Errors
    /// When it is not version 1, its own threshold is not met, or a rule is broken.
    pub fn first(envelope: &[u8]) -> Result<Self, RootError> {
        let unverified = Unverified::parse(envelope)?;
        let found = unverified.metadata.version;
        if found.0 != 1 {
            return Err(RootError::NotFirst { found });
        }
        unverified.require_own()?;
        Ok(Self::begin(unverified.into_candidate(envelope, None)))
    }

    /// Takes up a chain from one's own durable store: the first is trusted because it was pinned when
    /// it was stored; everything after it is verified again.
    ///
    /// # Errors
    /// When the chain is empty, too long, or a version in it does not follow the one before.
    pub fn from_stored<E: AsRef<[u8]>>(chain: &[E]) -> Result<Self, RootError> {
        let (length, max) = (chain.len(), limits::ROOT_CHAIN_COUNT_MAX);
        let [first, later @ ..] = chain else { return Err(RootError::ChainLength { length, max }) };
        let unverified = Unverified::parse(first.as_ref())?;
        unverified.require_own()?;
        let mut root = Self::begin(unverified.into_candidate(first.as_ref(), None));
        for envelope in later {
            root.advance(envelope.as_ref())?;
        }
        Ok(root)
    }

    /// Judges the next version without taking it: store its envelope first, then [`Self::apply`].
    ///
    /// # Errors
    /// The first rule it breaks.
    pub fn preview(&self, envelope: &[u8]) -> Result<Candidate, RootError> {
        let current = self.current();
        if self.chain.len() >= limits::ROOT_CHAIN_COUNT_MAX {
            return Err(RootError::ChainLength { length: self.chain.len() + 1, max: limits::ROOT_CHAIN_COUNT_MAX });
        }
        let unverified = Unverified::parse(envelope)?;
        let found = &unverified.metadata;
        self.require_next(found.version)?;
        unverified.require(current.version, &self.last.keys.root, current.root_threshold)?;
        unverified.require_own()?;
        self.require_continued(found)?;
        Ok(unverified.into_candidate(envelope, Some(self.payload_sha256())))
    }

    fn require_next(&self, found: RootVersion) -> Result<(), RootError> {
        let current = self.version();
        if current.next() == Some(found) { Ok(()) } else { Err(RootError::NotNext { current, found }) }
    }

    /// What a version must have kept of the one before.
    fn require_continued(&self, found: &RootMetadata) -> Result<(), RootError> {
        let current = self.current();
        if found.fleet != current.fleet {
            return Err(RootError::OtherFleet { expected: current.fleet, found: found.fleet });
        }
        if found.epoch < current.epoch {
            return Err(RootError::EpochLowered { current: current.epoch, found: found.epoch });
        }
        Ok(())
    }

    /// Whether that is a version held here, whoever of its root keys signed it: two envelopes of one
    /// version may differ in which keys met the threshold.
    #[must_use]
    pub fn holds(&self, envelope: &[u8]) -> bool {
        let opened = Opened::parse(envelope, limits::ENVELOPE_BYTES_MAX);
        opened.is_ok_and(|opened| self.payloads.contains(&ids::sha256(&opened.payload)))
    }

    /// Whether that is the version in force, whoever of its root keys signed it.
    #[must_use]
    pub fn is_present(&self, envelope: &[u8]) -> bool {
        let opened = Opened::parse(envelope, limits::ENVELOPE_BYTES_MAX);
        opened.is_ok_and(|opened| self.payload_sha256() == ids::sha256(&opened.payload))
    }

    /// Puts a judged version into force.
    ///
    /// # Errors
    /// When it was judged against another version than the one in force.
    pub fn apply(&mut self, candidate: Candidate) -> Result<RootVersion, RootError> {
        if candidate.follows != Some(self.payload_sha256()) {
            return Err(RootError::StaleCandidate { found: candidate.metadata.version });
        }
        self.chain.push(candidate.envelope.clone());
        self.payloads.push(candidate.payload_sha256);
        self.issued_floor = self.issued_floor.max(candidate.metadata.issued);
        if candidate.metadata.restored_log != self.current().restored_log {
            self.restored_at = candidate.metadata.restored_log.map(|_| candidate.metadata.issued);
        }
        self.last = candidate;
        Ok(self.current().version)
    }

    /// [`Self::preview`] and [`Self::apply`] in one, for whoever need not store.
    ///
    /// # Errors
    /// The first rule it breaks.
    pub fn advance(&mut self, envelope: &[u8]) -> Result<RootVersion, RootError> {
        let candidate = self.preview(envelope)?;
        self.apply(candidate)
    }

    /// The version in force.
    #[must_use]
    pub const fn current(&self) -> &RootMetadata {
        &self.last.metadata
    }

    /// The version number in force.
    #[must_use]
    pub const fn version(&self) -> RootVersion {
        self.last.metadata.version
    }

    /// The first version held: 1, or the one that was pinned.
    #[must_use]
    pub fn chain_begins(&self) -> RootVersion {
        RootVersion(self.version().0 + 1 - self.chain.len() as u64)
    }

    /// SHA-256 of the payload in force: what a join token names.
    #[must_use]
    pub const fn payload_sha256(&self) -> Sha256 {
        self.last.payload_sha256
    }

    /// Every envelope held, ascending; the last is in force.
    #[must_use]
    pub fn chain(&self) -> &[Vec<u8>] {
        &self.chain
    }

    /// The envelopes of the versions above `version`, ascending; from the first held on, if that is
    /// higher.
    #[must_use]
    pub fn chain_above(&self, version: RootVersion) -> Vec<Vec<u8>> {
        let above = self.version().0.saturating_sub(version.0);
        let count = usize::try_from(above).map_or(self.chain.len(), |count| count.min(self.chain.len()));
        self.chain[self.chain.len() - count..].to_vec()
    }

    /// Whether the version in force has expired at that time. `at` should be the larger of the
    /// system clock and [`Self::issued_floor`].
    #[must_use]
    pub fn is_expired(&self, at: UnixMs) -> bool {
        at > self.last.metadata.expires
    }

    /// The latest time at which any version of the chain was issued: it cannot be earlier than this.
    #[must_use]
    pub const fn issued_floor(&self) -> UnixMs {
        self.issued_floor
    }

    /// When the version was issued that last named another log before it: the control plane was restored then.
    #[must_use]
    pub const fn restored_at(&self) -> Option<UnixMs> {
        self.restored_at
    }
}
