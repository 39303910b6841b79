//! The control plane's own keys in root metadata, and what its next versions must say so that one of them is
//! replaced without a gap: listed before it is used, dropped when nobody needs it any more.

use core::{fmt, str::FromStr};

use ids::{KeyId, UnixMs};

use super::{Edit, Proposal, TrustedRoot};
use crate::messages::{PublicKeyBytes, RootMetadata};

/// The roles of keys that a running control plane uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum OnlineRole {
    Command,
    Session,
    Audit,
    Tls,
}

impl OnlineRole {
    /// Every one.
    pub const ALL: [Self; 4] = [Self::Command, Self::Session, Self::Audit, Self::Tls];

    /// As people, the database and the API write it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Command => "command",
            Self::Session => "session",
            Self::Audit => "audit",
            Self::Tls => "tls",
        }
    }

    /// For sentences.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::Command => "command key",
            Self::Session => "session key",
            Self::Audit => "audit key",
            Self::Tls => "TLS key",
        }
    }
}

impl fmt::Display for OnlineRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for OnlineRole {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL.into_iter().find(|role| role.as_str() == text);
        found.ok_or("say command, session, audit or tls")
    }
}

/// What root metadata says of such a key: its public key; of a TLS key, the SHA-256 of its SubjectPublicKeyInfo.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OnlineKey(pub [u8; 32]);

impl OnlineKey {
    /// See [`crate::key_id`]; a TLS key has none.
    #[must_use]
    pub fn id(&self) -> KeyId {
        crate::key_id(&PublicKeyBytes(self.0))
    }

    /// The key with its role, for sentences: by its id, a TLS key by its pin.
    #[must_use]
    pub fn named(&self, role: OnlineRole) -> String {
        match role {
            OnlineRole::Tls => format!("{} with pin {self}", role.words()),
            _ => format!("{} {}", role.words(), self.id()),
        }
    }
}

impl fmt::Display for OnlineKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&ids::hex(&self.0))
    }
}

impl FromStr for OnlineKey {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse::<ids::Sha256>().map(|bytes| Self(bytes.0)).map_err(|_| "expected 64 hexadecimal digits")
    }
}

impl From<PublicKeyBytes> for OnlineKey {
    fn from(key: PublicKeyBytes) -> Self {
        Self(key.0)
    }
}

/// The keys of that role in a version, in its order.
#[must_use]
pub fn listed(root: &RootMetadata, role: OnlineRole) -> Vec<OnlineKey> {
    match role {
        OnlineRole::Command => root.command_keys.iter().copied().map(OnlineKey::from).collect(),
        OnlineRole::Session => root.session_keys.iter().copied().map(OnlineKey::from).collect(),
        OnlineRole::Audit => vec![root.audit_key.into()],
        OnlineRole::Tls => root.tls_pins.iter().map(|pin| OnlineKey(pin.0)).collect(),
    }
}

/// When the version was issued that listed the key first; none when none did.
#[must_use]
pub fn listed_since(root: &TrustedRoot, role: OnlineRole, key: OnlineKey) -> Option<UnixMs> {
    let versions = root.chain().iter().filter_map(|envelope| Proposal::parse(envelope).ok());
    let mut listing = versions.filter(|version| listed(version.metadata(), role).contains(&key));
    listing.next().map(|version| version.metadata().issued)
}

/// The keys of one change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StagedKeys {
    pub role: OnlineRole,
    /// In use before; dropped at the end.
    pub old: OnlineKey,
    /// In use after.
    pub new: OnlineKey,
    /// The one that was made for this change: `new`; of TLS keys the one after it, for `new` was made by the change before.
    pub fresh: OnlineKey,
    /// The old key is in wrong hands: it is dropped in the very version that lists the new one, and everything signed
    /// before is void.
    pub is_emergency: bool,
}

impl StagedKeys {
    fn has(&self, root: &RootMetadata, key: OnlineKey) -> bool {
        listed(root, self.role).contains(&key)
    }

    /// Whether the new key may be used under that version, as far as the control plane goes.
    #[must_use]
    pub fn is_published(&self, root: &RootMetadata) -> bool {
        self.has(root, self.fresh) && self.has(root, self.new) && (!self.is_emergency || self.is_dropped(root))
    }

    /// Whether that version has no place for the old key.
    #[must_use]
    pub fn is_dropped(&self, root: &RootMetadata) -> bool {
        !self.has(root, self.old)
    }

    /// Whether that version has no place for what was made for this change.
    #[must_use]
    pub fn is_withdrawn(&self, root: &RootMetadata) -> bool {
        !self.has(root, self.fresh)
    }

    /// What the version after `root` must say so that [`Self::is_published`]; empty when it is.
    #[must_use]
    pub fn publish(&self, root: &RootMetadata) -> Vec<Edit> {
        let mut edits = Vec::new();
        for key in [self.new, self.fresh] {
            let edit = self.add(key);
            if !self.has(root, key) && !edits.contains(&edit) {
                edits.push(edit);
            }
        }
        if self.is_emergency && !self.is_dropped(root) {
            edits.extend(self.without(self.old));
            edits.push(Edit::RaiseEpoch);
        }
        edits
    }

    /// What the version after `root` must say so that [`Self::is_dropped`].
    #[must_use]
    pub fn drop_old(&self, root: &RootMetadata) -> Vec<Edit> {
        if self.is_dropped(root) { Vec::new() } else { self.without(self.old).into_iter().collect() }
    }

    /// What the version after `root` must say so that [`Self::is_withdrawn`].
    #[must_use]
    pub fn withdraw(&self, root: &RootMetadata) -> Vec<Edit> {
        if self.is_withdrawn(root) { Vec::new() } else { self.without(self.fresh).into_iter().collect() }
    }

    fn add(&self, key: OnlineKey) -> Edit {
        let public = PublicKeyBytes(key.0);
        match self.role {
            OnlineRole::Command => Edit::AddCommandKey(public),
            OnlineRole::Session => Edit::AddSessionKey(public),
            OnlineRole::Audit => Edit::AuditKey(public),
            OnlineRole::Tls => Edit::AddTlsPin(ids::Sha256(key.0)),
        }
    }

    /// An audit key goes when another takes its place, and in no other way.
    fn without(&self, key: OnlineKey) -> Option<Edit> {
        let public = PublicKeyBytes(key.0);
        match self.role {
            OnlineRole::Command => Some(Edit::DropCommandKey(public)),
            OnlineRole::Session => Some(Edit::DropSessionKey(public)),
            OnlineRole::Audit => None,
            OnlineRole::Tls => Some(Edit::DropTlsPin(ids::Sha256(key.0))),
        }
    }
}
