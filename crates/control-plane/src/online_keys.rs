//! The session, audit and TLS keys that this process signs and answers with, as they change while it runs.
//!
//! The file of a role always holds the key in use: putting another to use exchanges two files in one step of the file
//! system, so that a start after a crash finds either the one key in use or the other, and no record elsewhere is needed
//! to tell which. Every step may be taken again.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
};

use envelope::{
    keys::{KeyRole, SigningKey, role},
    messages::PublicKeyBytes,
    root::{OnlineKey, OnlineRole, StagedKeys},
};
use ids::Sha256;
use keyfile::{KeyFileError, KeyKind};
use rustix::fs::{CWD, RenameFlags, renameat_with};

use crate::{
    files::Files,
    keys::Keys,
    tls::{ServedTls, TlsError, TlsKey},
};

/// Why a key could not be changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KeyChangeError {
    #[error("{0}")]
    File(#[from] KeyFileError),
    #[error("{0}")]
    Tls(#[from] TlsError),
    #[error("{path} does not hold {expected}; look whether a backup of the key directory was put back")]
    OtherKey { path: PathBuf, expected: String },
    #[error(
        "{from} and {to} cannot be exchanged: {source}. The key directory must be on a file system that can (ext4, xfs, btrfs, tmpfs)"
    )]
    Exchange { from: PathBuf, to: PathBuf, source: io::Error },
}

/// See the head of this file.
pub(crate) struct OnlineKeys {
    files: Files,
    session: RwLock<Arc<SigningKey<role::Session>>>,
    /// The one in use, and the one that root metadata names next, or named before.
    audit: RwLock<Vec<Arc<SigningKey<role::Audit>>>>,
    tls: Arc<ServedTls>,
}

/// A panic elsewhere leaves what is in it whole: each change is one assignment.
fn read<T: Clone>(lock: &RwLock<T>) -> T {
    lock.read().unwrap_or_else(PoisonError::into_inner).clone()
}

fn put<T>(lock: &RwLock<T>, value: T) {
    *lock.write().unwrap_or_else(PoisonError::into_inner) = value;
}

impl OnlineKeys {
    /// Over the keys that were loaded from these files.
    ///
    /// # Errors
    /// When no certificate can be made.
    pub(crate) fn new(files: Files, keys: Keys) -> Result<Self, TlsError> {
        let audit = [Some(keys.audit), keys.audit_next].into_iter().flatten().map(Arc::new).collect();
        Ok(Self {
            files,
            session: RwLock::new(Arc::new(keys.session)),
            audit: RwLock::new(audit),
            tls: Arc::new(ServedTls::new(&keys.tls)?),
        })
    }

    /// The session key in use.
    pub(crate) fn session(&self) -> Arc<SigningKey<role::Session>> {
        read(&self.session)
    }

    /// The private half of that audit key, if it is held.
    pub(crate) fn audit(&self, public: PublicKeyBytes) -> Option<Arc<SigningKey<role::Audit>>> {
        read(&self.audit).into_iter().find(|key| key.public() == public)
    }

    /// What the agents' listener answers with.
    pub(crate) fn tls(&self) -> Arc<ServedTls> {
        self.tls.clone()
    }

    /// The key of that role in use; of the audit key, the one in its file.
    pub(crate) fn in_use(&self, role: OnlineRole) -> Option<OnlineKey> {
        match role {
            OnlineRole::Command => None,
            OnlineRole::Session => Some(self.session().public().into()),
            OnlineRole::Audit => read(&self.audit).first().map(|key| key.public().into()),
            OnlineRole::Tls => Some(pin(self.tls.pin())),
        }
    }

    /// The TLS key that comes next.
    pub(crate) fn tls_next(&self) -> Result<OnlineKey, KeyChangeError> {
        tls_in(&self.files.tls_key_next())
    }

    /// Makes the fresh key of a change, durably, in place of one that no change knows of.
    pub(crate) fn prepare(&self, role: OnlineRole) -> Result<OnlineKey, KeyChangeError> {
        let path = self.fresh_file(role);
        keyfile::destroy(&path)?;
        match role {
            OnlineRole::Tls => {
                let key = TlsKey::generate()?;
                keyfile::write_text(&path, &key.to_pem())?;
                Ok(pin(key.pin()))
            }
            OnlineRole::Audit => {
                let key = made::<role::Audit>(&path)?;
                let public = key.public();
                let in_use = read(&self.audit).into_iter().take(1);
                put(&self.audit, in_use.chain([Arc::new(key)]).collect());
                Ok(public.into())
            }
            OnlineRole::Command | OnlineRole::Session => Ok(made::<role::Session>(&path)?.public().into()),
        }
    }

    /// Puts the new key of a change to use.
    pub(crate) fn activate(&self, keys: &StagedKeys) -> Result<(), KeyChangeError> {
        let files = &self.files;
        match keys.role {
            OnlineRole::Command => {}
            OnlineRole::Session => {
                let path = files.session_key();
                if held_in(&path)? != keys.new {
                    expect(&files.session_key_next(), keys, held_in(&files.session_key_next())?)?;
                    exchange(&files.session_key_next(), &path)?;
                }
                put(&self.session, Arc::new(seed_in(&path)?));
            }
            OnlineRole::Audit => {
                let path = files.audit_key();
                if held_in(&path)? != keys.new {
                    expect(&files.audit_key_next(), keys, held_in(&files.audit_key_next())?)?;
                    exchange(&files.audit_key_next(), &path)?;
                }
                let mut both = read(&self.audit);
                both.sort_by_key(|key| OnlineKey::from(key.public()) != keys.new);
                put(&self.audit, both);
            }
            OnlineRole::Tls => {
                let path = files.tls_key();
                if tls_in(&path)? != keys.new {
                    expect(&files.tls_key_next(), keys, tls_in(&files.tls_key_next())?)?;
                    exchange(&files.tls_key_next(), &path)?;
                }
                self.tls.serve(&TlsKey::from_pem(&keyfile::read_private(&path)?)?)?;
            }
        }
        Ok(())
    }

    /// Destroys the old key of a change whose new key is in use.
    pub(crate) fn retire(&self, keys: &StagedKeys) -> Result<(), KeyChangeError> {
        let files = &self.files;
        if self.in_use(keys.role).is_some_and(|key| key != keys.new) {
            return Err(other(&self.used_file(keys.role), keys.role, keys.new));
        }
        match keys.role {
            OnlineRole::Command => Ok(()),
            OnlineRole::Session => Ok(keyfile::destroy(&files.session_key_next())?),
            OnlineRole::Audit => {
                keyfile::destroy(&files.audit_key_next())?;
                put(&self.audit, read(&self.audit).into_iter().take(1).collect());
                Ok(())
            }
            OnlineRole::Tls => {
                let (next, after) = (files.tls_key_next(), files.tls_key_after());
                let is_there = |path: &Path| path.symlink_metadata().is_ok();
                if is_there(&after) {
                    keyfile::destroy(&next)?;
                    std::fs::rename(&after, &next)
                        .and_then(|()| sync(&next))
                        .map_err(|source| KeyChangeError::Exchange { from: after.clone(), to: next.clone(), source })?;
                }
                let found = tls_in(&next)?;
                if found == keys.fresh { Ok(()) } else { Err(other(&next, keys.role, keys.fresh)) }
            }
        }
    }

    /// Destroys the fresh key of a change that was given up.
    pub(crate) fn abort(&self, keys: &StagedKeys) -> Result<(), KeyChangeError> {
        if keys.role == OnlineRole::Command {
            return Ok(());
        }
        keyfile::destroy(&self.fresh_file(keys.role))?;
        if keys.role == OnlineRole::Audit {
            put(&self.audit, read(&self.audit).into_iter().take(1).collect());
        }
        Ok(())
    }

    fn used_file(&self, role: OnlineRole) -> PathBuf {
        match role {
            OnlineRole::Command | OnlineRole::Session => self.files.session_key(),
            OnlineRole::Audit => self.files.audit_key(),
            OnlineRole::Tls => self.files.tls_key(),
        }
    }

    fn fresh_file(&self, role: OnlineRole) -> PathBuf {
        match role {
            // Command keys are the signer's; nothing lies here for them.
            OnlineRole::Command | OnlineRole::Session => self.files.session_key_next(),
            OnlineRole::Audit => self.files.audit_key_next(),
            OnlineRole::Tls => self.files.tls_key_after(),
        }
    }
}

fn pin(pin: Sha256) -> OnlineKey {
    OnlineKey(pin.0)
}

fn made<R: KeyRole>(path: &Path) -> Result<SigningKey<R>, KeyChangeError> {
    let seed = keyfile::random()?;
    keyfile::write_seed(path, KeyKind::Ed25519, &seed)?;
    Ok(SigningKey::from_seed(&seed))
}

fn seed_in<R: KeyRole>(path: &Path) -> Result<SigningKey<R>, KeyChangeError> {
    Ok(SigningKey::from_seed(&*keyfile::read_seed(path, KeyKind::Ed25519)?))
}

/// Whose key of the roles that are seeds lies there.
fn held_in(path: &Path) -> Result<OnlineKey, KeyChangeError> {
    Ok(seed_in::<role::Session>(path)?.public().into())
}

fn tls_in(path: &Path) -> Result<OnlineKey, KeyChangeError> {
    Ok(pin(TlsKey::from_pem(&keyfile::read_private(path)?)?.pin()))
}

fn other(path: &Path, role: OnlineRole, expected: OnlineKey) -> KeyChangeError {
    KeyChangeError::OtherKey { path: path.to_owned(), expected: expected.named(role) }
}

fn expect(path: &Path, keys: &StagedKeys, found: OnlineKey) -> Result<(), KeyChangeError> {
    if found == keys.new { Ok(()) } else { Err(other(path, keys.role, keys.new)) }
}

fn sync(path: &Path) -> io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("."));
    std::fs::File::open(directory)?.sync_all()
}

/// Each file has the other's name after it, durably; at no moment has a name none.
fn exchange(from: &Path, to: &Path) -> Result<(), KeyChangeError> {
    let exchanged = renameat_with(CWD, from, CWD, to, RenameFlags::EXCHANGE).map_err(io::Error::from);
    exchanged.and_then(|()| sync(to)).map_err(|source| KeyChangeError::Exchange {
        from: from.to_owned(),
        to: to.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests;
