//! What the control plane kept itself before its signer had a directory of its own: one command key and the record of
//! sequences. Copies first, then the list of keys that makes them count, and at last the originals go: cut at any place,
//! it is finished by the next start.

use std::{io, os::unix::fs::MetadataExt as _, path::Path};

use envelope::{SigningKey, keys::role};
use ids::UnixMs;
use keyfile::KeyKind;

use crate::{
    place::{self, Place, PlaceError, io_at},
    state_file::{self, StateError},
    trust::{KeyRecord, Trust},
};

const KEY: &str = "keys/command.key.pem";
const STATE: &str = "signer.state";

fn exists(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

/// Brings over what lies below `from`; `None` when nothing does.
pub(crate) fn bring_over(place: &Place, from: &Path) -> Result<Option<Trust>, PlaceError> {
    let (key_path, state_path) = (from.join(KEY), from.join(STATE));
    if !exists(&key_path) {
        return Ok(None);
    }
    let _lock = state_file::lock(&state_path)?;
    let sequences = std::fs::read(&state_path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => PlaceError::State(StateError::Missing { path: state_path.clone() }),
        _ => io_at("reading", &state_path)(error),
    })?;
    let seed = keyfile::read_seed(&key_path, KeyKind::Ed25519)?;
    let made = std::fs::metadata(&key_path).map_err(io_at("reading", &key_path))?.mtime();
    let public = SigningKey::<role::Command>::from_seed(&seed).public();
    let record = KeyRecord::new(public, UnixMs(u64::try_from(made).unwrap_or(0).saturating_mul(1_000)));
    // An earlier attempt may have left one.
    place::remove(&place.key(record.id))?;
    keyfile::write_seed(&place.key(record.id), KeyKind::Ed25519, &seed)?;
    place::replace(&place.sequences(), &sequences)?;
    let trust = Trust::unborn(Some(record));
    trust.store(&place.trust())?;
    tracing::info!(key = %record.id, from = %from.display(), "the command key and the record of sequences were brought over");
    Ok(Some(trust))
}

/// Removes the originals of what was brought over. Another key, which this signer does not hold, is left alone.
pub(crate) fn remove_originals(place: &Place, from: &Path, trust: &Trust) -> Result<(), PlaceError> {
    let (key_path, state_path) = (from.join(KEY), from.join(STATE));
    if !exists(&key_path) {
        return Ok(());
    }
    let seed = keyfile::read_seed(&key_path, KeyKind::Ed25519)?;
    let id = SigningKey::<role::Command>::from_seed(&seed).key_id();
    if trust.key(id).is_none() || !exists(&place.key(id)) || !exists(&place.sequences()) {
        tracing::warn!(path = %key_path.display(), "a command key that is not this signer's lies here; it is not used");
        return Ok(());
    }
    place::remove(&state_path)?;
    place::remove(&state_path.with_added_extension("lock"))?;
    // Last: as long as it is there, the rest is looked for.
    place::remove(&key_path)
}
