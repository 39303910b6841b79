//! This host's keys on disk: a pair of files for each of its epochs, beside one another. Those of the
//! first come with the enrolment. A pair is whole and durable before anything is said of it; an identity key
//! for the epoch after the one in force is the mark of a rotation that was begun. Identity keys that were
//! replaced are removed, sealing keys stay.

use std::{
    fs,
    path::Path,
    sync::{Arc, RwLock},
};

use envelope::{
    keys::{SigningKey, role},
    messages::SealingKeyBytes,
    seal::{SealContext, SealError, SealingSecretKey},
};
use ids::HostEpoch;
use keyfile::{KeyFileError, KeyKind};
use rand::{rand_core::UnwrapErr, rngs::SysRng};
use session::agent::NextKeys;
use zeroize::Zeroizing;

use crate::{limits, state_dir::StateDir};

/// Every sealing key of this host, the newest first: what was sealed to one of them before a rotation is
/// opened after it.
#[derive(Clone)]
pub(crate) struct SealingKeys(Arc<RwLock<Vec<SealingSecretKey>>>);

impl SealingKeys {
    pub(crate) fn new(keys: Vec<SealingSecretKey>) -> Self {
        Self(Arc::new(RwLock::new(keys)))
    }

    fn add(&self, key: SealingSecretKey) {
        let mut keys = self.0.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        if !keys.iter().any(|known| known.public() == key.public()) {
            keys.insert(0, key);
        }
    }

    /// From now on nothing opens.
    fn forget(&self) {
        self.0.write().unwrap_or_else(std::sync::PoisonError::into_inner).clear();
    }

    /// Opens a value with the key that fits.
    ///
    /// # Errors
    /// When none does: the words of the newest.
    pub(crate) fn open(&self, context: &SealContext<'_>, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, SealError> {
        let keys = self.0.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        let mut answers = keys.iter().take(limits::SEALING_KEYS_MAX).map(|key| key.open(context, sealed));
        let newest = answers.next().unwrap_or_else(|| Err(SealError::Open { name: context.name.to_owned() }));
        if newest.is_ok() { newest } else { answers.find(Result::is_ok).unwrap_or(newest) }
    }

    /// The value sealed to the newest key, in the same context; `None` when it is so already.
    ///
    /// # Errors
    /// When no key opens it, or there is no randomness.
    pub(crate) fn reseal(&self, context: &SealContext<'_>, sealed: &[u8]) -> Result<Option<Vec<u8>>, SealError> {
        let newest = {
            let keys = self.0.read().unwrap_or_else(std::sync::PoisonError::into_inner);
            let newest: &SealingSecretKey =
                keys.first().ok_or_else(|| SealError::Open { name: context.name.to_owned() })?;
            if newest.open(context, sealed).is_ok() {
                return Ok(None);
            }
            newest.public()
        };
        let value = self.open(context, sealed)?;
        // Without randomness nothing may be sealed, and `UnwrapErr` then ends this command.
        envelope::seal::seal(&newest, context, &value, &mut UnwrapErr(SysRng)).map(Some)
    }
}

/// The identity key in force.
pub(crate) struct CurrentKey {
    pub(crate) host_epoch: HostEpoch,
    pub(crate) identity: SigningKey<role::Agent>,
}

/// The keys of this host at the start of the agent.
pub(crate) struct HostKeys {
    pub(crate) current: CurrentKey,
    /// Of a rotation that was begun.
    pub(crate) next: Option<NextKeys>,
    pub(crate) sealing: SealingKeys,
}

impl HostKeys {
    /// Reads the keys in force in `host_epoch`, and what lies beside them. Without a journal nobody knows which
    /// epoch is in force (`None`): of two identity keys either may be, and both are tried. Of a host that is leaving its
    /// fleet (`is_retiring`) sealing keys are gone, or half gone, and none is read.
    ///
    /// # Errors
    /// When a key cannot be read, or an identity key that was replaced cannot be removed.
    pub(crate) fn read(
        state: &StateDir,
        enrolled: HostEpoch,
        host_epoch: Option<HostEpoch>,
        is_retiring: bool,
    ) -> Result<Self, KeyFileError> {
        let mut last = host_epoch.unwrap_or(enrolled);
        while state.sealing_key_of(after(last)).exists() {
            last = after(last);
        }
        let has_identity = |epoch| state.identity_key_of(epoch).exists();
        let current = host_epoch.unwrap_or_else(|| {
            let before = HostEpoch(last.0.saturating_sub(1)).max(enrolled);
            if has_identity(before) { before } else { last }
        });
        let next = after(current);
        let mut sealing = Vec::new();
        if !is_retiring {
            for epoch in (enrolled.0..=last.0).rev() {
                sealing.push(sealing_key(state, HostEpoch(epoch))?);
            }
        }
        Ok(Self {
            current: CurrentKey { host_epoch: current, identity: identity_key(state, current)? },
            // Its identity key was made last.
            next: has_identity(next).then(|| keys(state, next)).transpose()?,
            sealing: SealingKeys::new(sealing),
        })
    }
}

const fn after(epoch: HostEpoch) -> HostEpoch {
    HostEpoch(epoch.0 + 1)
}

/// Removes the identity keys that were replaced by those of `host_epoch`, so that nobody finds them here. Their sealing
/// keys stay.
///
/// # Errors
/// When one cannot be removed.
pub(crate) fn retire(state: &StateDir, host_epoch: HostEpoch) -> Result<(), KeyFileError> {
    for epoch in (1..host_epoch.0).rev() {
        let path = state.identity_key_of(HostEpoch(epoch));
        match fs::remove_file(&path) {
            Ok(()) => sync_directory(&path)?,
            // Those before it went when it came.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => break,
            Err(source) => return Err(KeyFileError::Io { what: "remove", path, source }),
        }
    }
    Ok(())
}

/// Destroys every key by which a secret of this host is opened, or told from another. They are gone when this returns.
///
/// # Errors
/// When one cannot be destroyed.
pub(crate) fn drop_secrets(state: &StateDir, sealing: &SealingKeys) -> Result<(), KeyFileError> {
    sealing.forget();
    let fingerprint = state.fingerprint_key();
    destroy(state, |path, name| name.starts_with("sealing.") || path == fingerprint)
}

/// Destroys every identity key of this host: nobody speaks as it any more.
///
/// # Errors
/// When one cannot be destroyed.
pub(crate) fn drop_identity(state: &StateDir) -> Result<(), KeyFileError> {
    destroy(state, |_, name| name.starts_with("identity."))
}

fn destroy(state: &StateDir, is_meant: impl Fn(&Path, &str) -> bool) -> Result<(), KeyFileError> {
    let fail = |source| KeyFileError::Io { what: "look through", path: state.path().to_owned(), source };
    for entry in fs::read_dir(state.path()).map_err(fail)? {
        let entry = entry.map_err(fail)?;
        let path = state.path().join(entry.file_name());
        if !is_meant(&path, &entry.file_name().to_string_lossy()) {
            continue;
        }
        #[cfg(feature = "crash-points")]
        let point = crash_points::Point::before("file", "destroyed", crash_points::Passage::Aside);
        keyfile::destroy(&path)?;
        #[cfg(feature = "crash-points")]
        point.after();
    }
    Ok(())
}

fn sync_directory(path: &Path) -> Result<(), KeyFileError> {
    let directory = path.parent().unwrap_or(Path::new("."));
    fs::File::open(directory).and_then(|directory| directory.sync_all()).map_err(|source| KeyFileError::Io {
        what: "write the directory of",
        path: path.to_owned(),
        source,
    })
}

fn sealing_key(state: &StateDir, epoch: HostEpoch) -> Result<SealingSecretKey, KeyFileError> {
    let seed = keyfile::read_seed(&state.sealing_key_of(epoch), KeyKind::X25519)?;
    Ok(SealingSecretKey::from_bytes(&seed))
}

fn identity_key(state: &StateDir, epoch: HostEpoch) -> Result<SigningKey<role::Agent>, KeyFileError> {
    keyfile::read_seed(&state.identity_key_of(epoch), KeyKind::Ed25519).map(|seed| SigningKey::from_seed(&seed))
}

fn keys(state: &StateDir, epoch: HostEpoch) -> Result<NextKeys, KeyFileError> {
    let sealing: SealingKeyBytes = sealing_key(state, epoch)?.public();
    Ok(NextKeys { host_epoch: epoch, identity: identity_key(state, epoch)?, sealing })
}

/// Makes the keys of an epoch, or takes those an earlier process made. They are durable when this returns.
///
/// # Errors
/// When a file cannot be written or read.
pub(crate) fn make(state: &StateDir, epoch: HostEpoch, sealing: &SealingKeys) -> Result<NextKeys, KeyFileError> {
    write(&state.sealing_key_of(epoch), KeyKind::X25519)?;
    write(&state.identity_key_of(epoch), KeyKind::Ed25519)?;
    sealing.add(sealing_key(state, epoch)?);
    keys(state, epoch)
}

/// A new key under this name, whole or not at all; one that is there stays.
fn write(path: &Path, kind: KeyKind) -> Result<(), KeyFileError> {
    if path.exists() {
        return Ok(());
    }
    #[cfg(feature = "crash-points")]
    let point = {
        let what = if kind == KeyKind::Ed25519 { "identity" } else { "sealing" };
        crash_points::Point::before("file", what, crash_points::Passage::Aside)
    };
    let seed = keyfile::random::<32>()?;
    keyfile::write_seed(path, kind, &seed)?;
    #[cfg(feature = "crash-points")]
    point.after();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn enrolled() -> (tempfile::TempDir, StateDir) {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let state = StateDir::new(directory.path().to_owned());
        make(&state, HostEpoch(1), &SealingKeys::new(Vec::new())).expect("made");
        (directory, state)
    }

    #[test]
    fn keys_that_were_made_are_found_and_never_made_again() {
        let (_directory, state) = enrolled();
        let keys = HostKeys::read(&state, HostEpoch(1), Some(HostEpoch(1)), false).expect("readable");
        assert!(keys.next.is_none());
        // An earlier process died while it wrote.
        fs::write(state.identity_key_of(HostEpoch(2)).with_extension("new"), "half").expect("written");
        let made = make(&state, HostEpoch(2), &keys.sealing).expect("made");
        let again = make(&state, HostEpoch(2), &keys.sealing).expect("taken");
        assert_eq!(made.identity.public(), again.identity.public());
        let begun = HostKeys::read(&state, HostEpoch(1), Some(HostEpoch(1)), false).expect("readable");
        assert_eq!(begun.current.identity.public(), keys.current.identity.public());
        assert_eq!(begun.next.expect("begun").identity.public(), made.identity.public());
        let taken = HostKeys::read(&state, HostEpoch(1), Some(HostEpoch(2)), false).expect("readable");
        assert_eq!(taken.current.identity.public(), made.identity.public());
        assert!(taken.next.is_none());
        let lost = HostKeys::read(&state, HostEpoch(1), None, false).expect("readable");
        assert_eq!((lost.current.host_epoch, lost.next.expect("tried").host_epoch), (HostEpoch(1), HostEpoch(2)));
        for _ in 0..2 {
            retire(&state, HostEpoch(2)).expect("removed");
            assert!(!state.identity_key().exists() && state.sealing_key().exists());
        }
        for known in [None, Some(HostEpoch(2))] {
            let only = HostKeys::read(&state, HostEpoch(1), known, false).expect("readable");
            assert_eq!((only.current.host_epoch, only.next.is_none()), (HostEpoch(2), true));
        }
    }

    #[test]
    fn a_value_opens_with_the_key_it_was_sealed_to() {
        let (_directory, state) = enrolled();
        let keys = HostKeys::read(&state, HostEpoch(1), None, false).expect("readable");
        let first = sealing_key(&state, HostEpoch(1)).expect("readable").public();
        let context = SealContext {
            fleet: ids::FleetId::from_bytes([1; 16]),
            host: ids::HostId::from_bytes([2; 16]),
            app: "shop",
            name: "web/PASSWORD",
            version: ids::OperationId::from_bytes([3; 16]),
        };
        let mut random = rand::rand_core::UnwrapErr(rand::rngs::SysRng);
        let old = envelope::seal::seal(&first, &context, b"old", &mut random).expect("sealed");
        let next = make(&state, HostEpoch(2), &keys.sealing).expect("made");
        let next_alone = sealing_key(&state, HostEpoch(2)).expect("readable");
        let new = envelope::seal::seal(&next.sealing, &context, b"new", &mut random).expect("sealed");
        for sealing in
            [keys.sealing, HostKeys::read(&state, HostEpoch(1), Some(HostEpoch(2)), false).expect("read").sealing]
        {
            assert_eq!(sealing.open(&context, &old).expect("opened").as_slice(), b"old");
            assert_eq!(sealing.open(&context, &new).expect("opened").as_slice(), b"new");
            assert!(sealing.open(&SealContext { app: "blog", ..context }, &old).is_err());
            assert_eq!(sealing.reseal(&context, &new), Ok(None));
            let anew = sealing.reseal(&context, &old).expect("opened").expect("sealed to the newest");
            assert_eq!(next_alone.open(&context, &anew).expect("by the newest alone").as_slice(), b"old");
            assert!(next_alone.open(&context, &old).is_err());
            assert!(sealing.reseal(&SealContext { app: "blog", ..context }, &old).is_err());
        }
    }

    #[test]
    fn of_a_host_that_leaves_first_the_keys_to_its_secrets_go_and_then_its_name() {
        let (_directory, state) = enrolled();
        keyfile::write_symmetric(&state.fingerprint_key()).expect("written");
        let keys = HostKeys::read(&state, HostEpoch(1), Some(HostEpoch(1)), false).expect("readable");
        make(&state, HostEpoch(2), &keys.sealing).expect("made");
        fs::write(state.sealing_key_of(HostEpoch(3)).with_extension("new"), "half").expect("written");
        fs::write(state.policy(), "actions = []").expect("written");
        let left = || {
            let entries = fs::read_dir(state.path()).expect("the directory");
            let mut names: Vec<_> = entries.map(|it| it.expect("an entry").file_name()).collect();
            names.sort_unstable();
            names
        };
        assert!(!keys.sealing.0.read().expect("whole").is_empty(), "the control");
        for _ in 0..2 {
            drop_secrets(&state, &keys.sealing).expect("destroyed");
            assert_eq!(left(), ["identity.2.key.pem", "identity.key.pem", "policy.toml"]);
            assert!(keys.sealing.0.read().expect("whole").is_empty(), "nothing opens in this process either");
        }
        assert!(HostKeys::read(&state, HostEpoch(1), Some(HostEpoch(2)), false).is_err());
        let leaving = HostKeys::read(&state, HostEpoch(1), Some(HostEpoch(2)), true).expect("it can still report");
        assert_eq!(leaving.current.host_epoch, HostEpoch(2));
        drop_identity(&state).expect("destroyed");
        assert_eq!(left(), ["policy.toml"]);
    }
}
