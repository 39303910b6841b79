//! What the signer knows of its fleet by itself: root metadata, taken only as a chain that verifies, and which command
//! keys it holds. One file, replaced whole at each change, so that the two cannot disagree after a crash. The
//! private keys lie beside it in files of their own.

use std::{
    io,
    path::{Path, PathBuf},
};

use data_encoding::BASE64;
use envelope::{
    messages::PublicKeyBytes,
    root::{RootError, TrustedRoot},
    signer_port::{HeldKey, SignError, SignerKeys},
};
use ids::{FleetId, KeyId, RootVersion, UnixMs};
use serde::{Deserialize, Serialize};

use crate::{
    limits,
    place::{PlaceError, io_at, replace},
};

const FORMAT: u32 = 1;

/// The file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    format: u32,
    /// Envelopes, base64, ascending; empty before there is a fleet.
    root_chain: Vec<String>,
    active: Option<KeyId>,
    keys: Vec<WrittenKey>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenKey {
    public: String,
    created_ms: UnixMs,
    is_void: bool,
}

/// What is known of one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KeyRecord {
    pub(crate) id: KeyId,
    pub(crate) public: PublicKeyBytes,
    pub(crate) created_at: UnixMs,
    /// Root metadata listed it and does not any more.
    pub(crate) is_void: bool,
}

impl KeyRecord {
    pub(crate) fn new(public: PublicKeyBytes, created_at: UnixMs) -> Self {
        Self { id: envelope::key_id(&public), public, created_at, is_void: false }
    }
}

/// Root metadata and keys. A change is made to a copy, stored, and only then taken.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Trust {
    root: Option<TrustedRoot>,
    active: Option<KeyId>,
    /// Oldest first.
    keys: Vec<KeyRecord>,
}

fn refused<T>(why: String) -> Result<T, SignError> {
    Err(SignError::Refused(why))
}

impl Trust {
    /// Before there is a fleet.
    pub(crate) fn unborn(key: Option<KeyRecord>) -> Self {
        Self { root: None, active: None, keys: key.into_iter().collect() }
    }

    /// Reads it; `None` when there is none yet.
    pub(crate) fn load(path: &Path) -> Result<Option<Self>, PlaceError> {
        let damaged = |why: String| PlaceError::Damaged { path: path.to_owned(), why };
        let length = match std::fs::metadata(path) {
            Ok(metadata) => metadata.len(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(io_at("reading", path)(error)),
        };
        if length > limits::TRUST_BYTES_MAX {
            return Err(damaged(format!("longer than {} bytes", limits::TRUST_BYTES_MAX)));
        }
        let bytes = std::fs::read(path).map_err(io_at("reading", path))?;
        let written: Written = serde_json::from_slice(&bytes).map_err(|error| damaged(error.to_string()))?;
        Self::from_written(&written).map(Some).map_err(damaged)
    }

    fn from_written(written: &Written) -> Result<Self, String> {
        if written.format != FORMAT {
            return Err(format!("format {}; this program knows {FORMAT}: a newer one wrote it", written.format));
        }
        let decode = |text: &String| BASE64.decode(text.as_bytes()).map_err(|error| error.to_string());
        let chain = written.root_chain.iter().map(decode).collect::<Result<Vec<_>, _>>()?;
        let root = (!chain.is_empty()).then(|| TrustedRoot::from_stored(&chain)).transpose();
        let root = root.map_err(|error| error.to_string())?;
        let key = |key: &WrittenKey| {
            let public: PublicKeyBytes = key.public.parse()?;
            Ok(KeyRecord { is_void: key.is_void, ..KeyRecord::new(public, key.created_ms) })
        };
        let keys = written.keys.iter().map(key).collect::<Result<Vec<_>, &str>>()?;
        let trust = Self { root, active: written.active, keys };
        match trust.active {
            Some(id) if trust.key(id).is_none() => Err(format!("the active key {id} is not among its keys")),
            _ => Ok(trust),
        }
    }

    /// Puts it in the file's place, durably.
    pub(crate) fn store(&self, path: &Path) -> Result<(), PlaceError> {
        let chain = self.root.as_ref().map_or(&[][..], TrustedRoot::chain);
        let written = Written {
            format: FORMAT,
            root_chain: chain.iter().map(|envelope| BASE64.encode(envelope)).collect(),
            active: self.active,
            keys: self.keys.iter().map(written_key).collect(),
        };
        let mut bytes = serde_json::to_vec_pretty(&written).expect("invariant: words, numbers and lists");
        bytes.push(b'\n');
        #[cfg(feature = "crash-points")]
        let point = crash_points::Point::before("signer", "trust", crash_points::Passage::Aside);
        replace(path, &bytes)?;
        #[cfg(feature = "crash-points")]
        point.after();
        Ok(())
    }

    pub(crate) const fn root(&self) -> Option<&TrustedRoot> {
        self.root.as_ref()
    }

    pub(crate) fn fleet(&self) -> Option<FleetId> {
        self.root.as_ref().map(|root| root.current().fleet)
    }

    pub(crate) fn keys(&self) -> &[KeyRecord] {
        &self.keys
    }

    pub(crate) fn key(&self, id: KeyId) -> Option<&KeyRecord> {
        self.keys.iter().find(|key| key.id == id)
    }

    fn is_listed(&self, key: &KeyRecord) -> bool {
        self.root.as_ref().is_some_and(|root| root.current().command_keys.contains(&key.public))
    }

    /// Whether it may sign: root metadata lists it, and never stopped to.
    fn may_sign(&self, key: &KeyRecord) -> bool {
        !key.is_void && self.is_listed(key)
    }

    /// Whether the key's file must be there.
    pub(crate) fn is_needed(&self, key: &KeyRecord) -> bool {
        self.active == Some(key.id) || self.is_listed(key)
    }

    /// The key that signs, and the root metadata that lists it.
    pub(crate) fn signing(&self) -> Result<(KeyId, &TrustedRoot), SignError> {
        let Some(root) = &self.root else {
            return Err(SignError::Unavailable("it has no fleet yet; run `serverflow-control-plane init`".to_owned()));
        };
        let listed = self.active.and_then(|id| self.key(id)).filter(|key| self.may_sign(key));
        // Whoever waits may see a key activated.
        listed.map(|key| (key.id, root)).ok_or_else(|| {
            let version = root.version();
            SignError::Unavailable(format!(
                "it has no active command key that root metadata version {version} lists; prepare one, have root metadata list it, and activate it"
            ))
        })
    }

    /// What it shows of itself.
    pub(crate) fn shown(&self, is_impaired: bool) -> SignerKeys {
        let held = |key: &KeyRecord| HeldKey {
            public: key.public,
            created_at: key.created_at,
            is_active: self.active == Some(key.id),
            is_listed: self.is_listed(key),
            is_void: key.is_void,
        };
        SignerKeys {
            root: self.root.as_ref().map(|root| (root.version(), root.payload_sha256())),
            is_impaired,
            keys: self.keys.iter().map(held).collect(),
        }
    }

    /// Takes newer root metadata, or its first. Without any change it stays as it is.
    pub(crate) fn advance(&mut self, chain: &[Vec<u8>]) -> Result<RootVersion, SignError> {
        if self.root.is_none() {
            return self.begin(chain);
        }
        for envelope in chain {
            self.step(envelope).or_else(|error| refused(error.to_string()))?;
        }
        self.root.as_ref().map(TrustedRoot::version).ok_or_else(|| SignError::Unavailable("it has no fleet".to_owned()))
    }

    fn step(&mut self, envelope: &[u8]) -> Result<(), RootError> {
        let Some(root) = &mut self.root else { return Ok(()) };
        if root.chain().iter().any(|held| held == envelope) {
            return Ok(());
        }
        let before = root.current().command_keys.clone();
        root.advance(envelope)?;
        let now = &root.current().command_keys;
        for key in &mut self.keys {
            key.is_void |= before.contains(&key.public) && !now.contains(&key.public);
        }
        let is_void = |id| self.keys.iter().any(|key| key.id == id && key.is_void);
        if self.active.is_some_and(is_void) {
            // The version that shuts a key out names the one that takes its place, so that nothing stands between.
            let next = self.keys.iter().find(|key| !key.is_void && now.contains(&key.public));
            self.active = next.map(|key| key.id);
        }
        Ok(())
    }

    fn begin(&mut self, chain: &[Vec<u8>]) -> Result<RootVersion, SignError> {
        let root = TrustedRoot::from_stored(chain).or_else(|error| refused(error.to_string()))?;
        let listed = self.keys.iter().find(|key| root.current().command_keys.contains(&key.public));
        let Some(key) = listed else {
            return refused(format!(
                "root metadata version {} lists none of its keys, so this is not the signer of fleet {}",
                root.version(),
                root.current().fleet
            ));
        };
        self.active = Some(key.id);
        let version = root.version();
        self.root = Some(root);
        Ok(version)
    }

    /// A key made before that waits to be listed.
    pub(crate) fn prepared(&self) -> Option<&KeyRecord> {
        self.keys.iter().find(|key| !key.is_void && self.active != Some(key.id) && !self.is_listed(key))
    }

    /// A new key.
    pub(crate) fn add(&mut self, key: KeyRecord) -> Result<(), SignError> {
        if self.keys.len() >= limits::KEYS_MAX {
            let words = "keys already; drop those that root metadata does not list any more";
            return refused(format!("it holds {} {words}", self.keys.len()));
        }
        self.keys.push(key);
        Ok(())
    }

    pub(crate) fn activate(&mut self, id: KeyId) -> Result<(), SignError> {
        let Some(key) = self.key(id) else { return refused(format!("it holds no command key {id}")) };
        if key.is_void {
            let words = "was dropped by root metadata before, so it never signs again; prepare another";
            return refused(format!("command key {id} {words}"));
        }
        if !self.may_sign(key) {
            return refused(format!("root metadata in force does not list command key {id}; have it listed first"));
        }
        self.active = Some(id);
        Ok(())
    }

    /// Forgets a key. One that is not there is forgotten.
    pub(crate) fn forget(&mut self, id: KeyId) -> Result<(), SignError> {
        let Some(key) = self.key(id) else { return Ok(()) };
        if self.active == Some(id) {
            return refused(format!("command key {id} is the one that signs; activate another first"));
        }
        if self.is_listed(key) {
            let words = "is still listed in root metadata in force; issue a version without it first";
            return refused(format!("command key {id} {words}"));
        }
        self.keys.retain(|key| key.id != id);
        Ok(())
    }
}

/// What stands in a signer's directory, without any of its keys.
///
/// # Errors
/// When it cannot be read, or there is nothing.
pub fn examine(place: &crate::Place) -> Result<SignerKeys, PlaceError> {
    let path: PathBuf = place.trust();
    let trust = Trust::load(&path)?.ok_or_else(|| PlaceError::Io {
        doing: "reading",
        path: path.clone(),
        source: io::ErrorKind::NotFound.into(),
    })?;
    for key in trust.keys().iter().filter(|key| trust.is_needed(key)) {
        let file = place.key(key.id);
        if file.symlink_metadata().is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
            return Err(PlaceError::KeyMissing { path: file });
        }
    }
    Ok(trust.shown(false))
}

fn written_key(key: &KeyRecord) -> WrittenKey {
    WrittenKey { public: key.public.to_string(), created_ms: key.created_at, is_void: key.is_void }
}
