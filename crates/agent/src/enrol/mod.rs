//! `serverflow-agent enroll`: how this machine becomes a host, whatever interrupts it.
//!
//! The order of writes is the whole of it. Keys, then the token without its secret, are durable before
//! the secret leaves; the receipt's content (journal with the root metadata, fingerprint key, policy)
//! is durable before `enrolment.json`, whose presence means "enrolled"; the note of the begun enrolment
//! goes last. Each step finds what an earlier, interrupted run did, and goes on from there.

mod exchange;
mod token;

use std::{
    fs::{File, OpenOptions, TryLockError},
    io,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use actions::policy::Policy;
use envelope::{
    root::{RootError, TrustedRoot},
    seal::SealingSecretKey,
    token::JoinToken,
};
use journal::{Journal, JournalError};
use keyfile::{KeyFileError, KeyKind};
use session::agent::{Enrolled, PendingEnrolment, io::JournalWrite};

use self::{
    exchange::{AttemptError, Keys},
    token::TokenReadError,
};
use crate::{
    failure::{Failure, FailureKind},
    state_dir::{self, Enrolment, StateDir, StateError, pending_read, pending_remove},
};

/// Why this machine is not a host (yet).
#[derive(Debug, thiserror::Error)]
enum EnrolFailure {
    #[error(transparent)]
    Token(#[from] TokenReadError),
    #[error(transparent)]
    Attempt(#[from] AttemptError),
    #[error(transparent)]
    State(#[from] StateError),
    #[error(transparent)]
    Key(#[from] KeyFileError),
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error("the root metadata just received does not verify")]
    Root(#[from] RootError),
    #[error("another `serverflow-agent enroll` works on {path}; wait for it to end")]
    Busy { path: PathBuf },
    #[error("cannot lock {path}")]
    Lock {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(
        "{path} belongs to another fleet ({enrolled}) than the token ({token}): choose another --state-dir, or move this \
         one away after revoking its host"
    )]
    OtherFleet { path: PathBuf, enrolled: ids::FleetId, token: ids::FleetId },
    #[error(
        "the journal {path} holds the root metadata of another fleet; move it away if this machine is to join a new one"
    )]
    OtherRoot { path: PathBuf },
}

impl From<EnrolFailure> for Failure {
    fn from(error: EnrolFailure) -> Self {
        let kind = match &error {
            EnrolFailure::Token(_) => FailureKind::Usage,
            EnrolFailure::Attempt(attempt) if attempt.is_unreachable() => FailureKind::Unreachable,
            _ => FailureKind::Failed,
        };
        let mut failure = Self::of(kind, &error);
        if let EnrolFailure::Attempt(AttemptError::Dial(dial)) = &error {
            failure.message.push_str(". ");
            failure.message.push_str(dial.advice());
        }
        failure
    }
}

/// Makes this machine a host, or says that it is one.
///
/// # Errors
/// In words for a person; running it again goes on where it ended.
pub(crate) async fn enrol(
    state: &StateDir,
    token_file: Option<&Path>,
    policy: Option<PathBuf>,
    next: Next,
) -> Result<(), Failure> {
    Ok(enrol_locked(state, token_file, policy, next).await?)
}

/// Whether a person is told what to do after an enrolment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    Said,
    /// What comes next is done already.
    Unsaid,
}

async fn enrol_locked(
    state: &StateDir,
    token_file: Option<&Path>,
    policy: Option<PathBuf>,
    next: Next,
) -> Result<(), EnrolFailure> {
    if let Some(enrolment) = Enrolment::read(state)? {
        return already(state, &enrolment, token_file, next);
    }
    let pending = if state.path().exists() { pending_read(state)? } else { None };
    // A begun enrolment can end without a token; otherwise a wrong one shall leave no traces.
    let token = match (&pending, token_file) {
        (Some(_), None) => None,
        _ => Some(token::read(token_file)?),
    };
    keyfile::private_directory(state.path())?;
    state.guard()?;
    let _lock = lock(state)?;
    let keys = keys(state)?;
    let enrolled = match pending {
        None => with_token(state, token.as_ref(), &keys).await?,
        Some(pending) => go_on(state, pending, token.as_ref(), &keys).await?,
    };
    let enrolment = settle(state, &enrolled, policy).await?;
    let policy = enrolment.policy.clone().unwrap_or_else(|| state.policy());
    eprintln!("This machine is now host '{}' ({}).", enrolment.name, enrolment.host);
    eprintln!("  Fleet          {}", enrolment.fleet);
    eprintln!("  Roles          {}", roles(&enrolment));
    eprintln!("  State          {} (0700; the keys in it never leave this machine)", state.path().display());
    eprintln!("  Policy         {} (what this host allows; yours to edit)", policy.display());
    if next == Next::Said {
        eprintln!("Next: start the agent with `serverflow-agent run{}`.", state.option());
    }
    Ok(())
}

fn roles(enrolment: &Enrolment) -> String {
    if enrolment.roles.is_empty() {
        return "none".to_owned();
    }
    enrolment.roles.iter().map(|role| role.as_str()).collect::<Vec<_>>().join(", ")
}

/// Enrolled already: said, and no failure, unless the token is for another fleet.
fn already(state: &StateDir, enrolment: &Enrolment, token_file: Option<&Path>, next: Next) -> Result<(), EnrolFailure> {
    if token_file.is_some() {
        let token = token::read(token_file)?;
        if token.fleet != enrolment.fleet {
            let path = state.path().to_owned();
            return Err(EnrolFailure::OtherFleet { path, enrolled: enrolment.fleet, token: token.fleet });
        }
    }
    // An interruption between the last two writes leaves this behind.
    pending_remove(state)?;
    eprintln!("This machine is host '{}' ({}) already; nothing was changed.", enrolment.name, enrolment.host);
    eprintln!("  Fleet          {}", enrolment.fleet);
    eprintln!(
        "  If it was revoked or retired, move {} away and enrol anew: a host id is never used again.",
        state.path().display()
    );
    if next == Next::Said {
        eprintln!("Next: `serverflow-agent status{0}`, or `serverflow-agent doctor{0}`.", state.option());
    }
    Ok(())
}

fn lock(state: &StateDir) -> Result<File, EnrolFailure> {
    let path = state.enrolment_lock();
    let opened = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path);
    let file = opened.map_err(|source| EnrolFailure::Lock { path: path.clone(), source })?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(EnrolFailure::Busy { path: state.path().to_owned() }),
        Err(TryLockError::Error(source)) => Err(EnrolFailure::Lock { path, source }),
    }
}

/// The keys of this host: those of an earlier attempt, or new ones, each whole or not there.
fn keys(state: &StateDir) -> Result<Keys, KeyFileError> {
    let key = |path: &Path, kind| {
        if path.exists() {
            return keyfile::read_seed(path, kind);
        }
        let seed = keyfile::random::<32>()?;
        keyfile::write_seed(path, kind, &seed)?;
        Ok(seed)
    };
    let identity = key(&state.identity_key(), KeyKind::Ed25519)?;
    let sealing = SealingSecretKey::from_bytes(&*key(&state.sealing_key(), KeyKind::X25519)?);
    Ok(Keys { identity: *identity, sealing: sealing.public() })
}

async fn with_token(state: &StateDir, token: Option<&JoinToken>, keys: &Keys) -> Result<Enrolled, EnrolFailure> {
    let token = token.ok_or(TokenReadError::None)?;
    eprintln!("Enrolling with the control plane at {} …", token.address);
    Ok(exchange::with_token(state, token, keys).await?)
}

/// An earlier attempt was interrupted after the secret may have been sent: the receipt may be there.
async fn go_on(
    state: &StateDir,
    pending: PendingEnrolment,
    token: Option<&JoinToken>,
    keys: &Keys,
) -> Result<Enrolled, EnrolFailure> {
    if let Some(token) = token
        && token.fleet != pending.fleet
    {
        let path = state.path().to_owned();
        return Err(EnrolFailure::OtherFleet { path, enrolled: pending.fleet, token: token.fleet });
    }
    eprintln!("An earlier enrolment was interrupted; asking {} for its receipt …", pending.address);
    match (exchange::for_receipt(state, pending, keys).await, token) {
        (Ok(enrolled), _) => Ok(enrolled),
        // The earlier secret never arrived, so its token is still good, or this is a new one.
        (Err(error), Some(_)) if error.is_token_refused() => with_token(state, token, keys).await,
        // The address of then may be wrong by now; a fresh token names the present one.
        (Err(error), Some(fresh)) if error.is_unreachable() => {
            tracing::debug!(error = crate::failure::words(&error), "no receipt");
            with_token(state, Some(fresh), keys).await
        }
        (Err(error), _) => Err(error.into()),
    }
}

/// Makes durable what the receipt brought. Each step may have been done before.
async fn settle(state: &StateDir, enrolled: &Enrolled, policy: Option<PathBuf>) -> Result<Enrolment, EnrolFailure> {
    let root = journal(state, enrolled).await?;
    if !state.fingerprint_key().exists() {
        keyfile::write_symmetric(&state.fingerprint_key())?;
    }
    let policy_path = policy.clone().unwrap_or_else(|| state.policy());
    state_dir::write_new(&policy_path, Policy::default_text(), 0o640)?;
    let receipt = &enrolled.receipt;
    let enrolment = Enrolment {
        fleet: receipt.fleet,
        host: receipt.host,
        host_epoch: receipt.host_epoch,
        name: receipt.name.clone(),
        roles: receipt.roles.clone(),
        addresses: root.current().addresses.clone(),
        tls_pins: root.current().tls_pins.clone(),
        root_sha256: enrolled.root_sha256,
        receipt: receipt.envelope().to_vec(),
        enrolled_at: receipt.time,
        policy,
    };
    enrolment.write(state)?;
    pending_remove(state)?;
    Ok(enrolment)
}

/// Stores the root metadata; what an earlier run stored stays.
async fn journal(state: &StateDir, enrolled: &Enrolled) -> Result<TrustedRoot, EnrolFailure> {
    let opened = Journal::open(&state.journal()).await?;
    let known = opened.state.root_chain.len();
    let begins_alike = enrolled.root_chain.iter().zip(&opened.state.root_chain).all(|(new, old)| new == old);
    if known > enrolled.root_chain.len() || !begins_alike {
        return Err(EnrolFailure::OtherRoot { path: state.journal() });
    }
    let mut root: Option<TrustedRoot> = None;
    for (index, envelope) in enrolled.root_chain.iter().enumerate() {
        let version = match &mut root {
            Some(root) => root.advance(envelope)?,
            None => root.insert(TrustedRoot::pin(envelope, enrolled.root_sha256)?).version(),
        };
        if index >= known {
            let envelope = envelope.clone();
            opened.journal.write(JournalWrite::Root { version, envelope }).await?;
        }
    }
    opened.journal.close().await;
    root.ok_or_else(|| EnrolFailure::OtherRoot { path: state.journal() })
}
