//! From the state directory to a running loop.

use std::path::PathBuf;

use envelope::root::RootError;
use host::{Engine, EngineConfig, EngineError, clock};
use ids::{FleetId, HostId};
use journal::{Journal, JournalError};
use keyfile::KeyFileError;
use session::agent::{AgentIdentity, AgentLoop, LoadError};

use super::{
    clock::now,
    executor::{Executor, Tools},
    roots::Roots,
    shell::{Ran, Shell},
    status::StatusKeeper,
};
use crate::{
    admission::{HostAdmission, PolicyFile, action_refs},
    host_keys::{self, HostKeys},
    state_dir::{Enrolment, StateDir, StateError},
    status::{AuditStatus, CommandsStatus, ConnectionStatus, PolicyStatus, Status, process_start},
    trust,
};

/// Why the agent does not run, or ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RunError {
    #[error(
        "this machine is not enrolled (no {path}): get a token with `serverflow host enroll NAME` and run \
         `serverflow-agent enroll{option} --token-file FILE`"
    )]
    NotEnrolled { path: PathBuf, option: String },
    #[error("another serverflow-agent has {path} open; stop it first (`serverflow-agent status{option}` says which)")]
    InUse { path: PathBuf, option: String },
    #[error(transparent)]
    State(#[from] StateError),
    #[error(transparent)]
    Key(#[from] KeyFileError),
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error("the journal's root metadata does not verify; restore the journal or enrol this host anew")]
    Root(#[source] RootError),
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error("cannot read the id of this boot; is /proc mounted?")]
    Boot(#[source] std::io::Error),
    #[error("cannot listen for signals")]
    Signals(#[source] std::io::Error),
    #[error("the journal cannot be written, so the agent ends: what is durable is resumed at its next start")]
    JournalLost(#[source] JournalError),
}

/// Runs until a signal ends it, the host has left its fleet, or the journal fails.
///
/// # Errors
/// See [`RunError`].
pub(crate) async fn run(state: StateDir, policy: Option<PathBuf>) -> Result<Ran, RunError> {
    let enrolment = Enrolment::read(&state)?
        .ok_or_else(|| RunError::NotEnrolled { path: state.enrolment(), option: state.option() })?;
    state.guard()?;
    let boot = clock::boot_id().map_err(RunError::Boot)?;
    let engine = Engine::new(EngineConfig { socket: None, fleet: enrolment.fleet, host: enrolment.host })?;
    let engine = engine.with_files(state.files());
    let policy = policy.or_else(|| enrolment.policy.clone()).unwrap_or_else(|| state.policy());
    let admission = HostAdmission { policy: PolicyFile::new(policy) };

    let mut opened = Journal::open(&state.journal()).await.map_err(|error| match error {
        JournalError::InUse { path } => RunError::InUse { path, option: state.option() },
        error => error.into(),
    })?;
    // Enrolment ends only after the root metadata is in the journal: one without it is not the one
    // that belongs to this key, even if an earlier start already made it.
    let state_missing = opened.created || (opened.state.root_chain.is_empty() && opened.state.quarantine.is_none());
    if state_missing {
        tracing::error!(path = %state.journal().display(), "the journal is lost: this host will be quarantined");
    }
    let (has_left, is_retiring) = (opened.state.has_left(), opened.state.retirement.is_some());
    let fingerprint_key = match is_retiring {
        false => keyfile::read_symmetric(&state.fingerprint_key())?,
        // It is gone, and nothing is compared any more.
        true => keyfile::random::<32>()?,
    };
    let known = (!state_missing).then(|| opened.state.host_epoch.unwrap_or(enrolment.host_epoch));
    let roots = Roots::load(&enrolment, &opened.state.root_chain).map_err(RunError::Root)?;
    if has_left {
        return left(&state, first_status(&enrolment, &admission, &roots, None));
    }
    let keys = HostKeys::read(&state, enrolment.host_epoch, known, is_retiring)?;
    if let Some(in_force) = known {
        // An earlier process may have ended before it did.
        host_keys::retire(&state, in_force)?;
    } else {
        // Whether they were offered is lost with the journal: they are tried.
        opened.state.keys_offered = keys.next.as_ref().map(|next| next.host_epoch);
    }
    let reports: Vec<_> = opened.state.outbox.iter().map(|report| report.sequence).collect();
    let seen = opened.state.audit_head.map(|head| head.size);
    let keeper = StatusKeeper::new(state.clone(), first_status(&enrolment, &admission, &roots, seen), reports);

    let agent_identity = AgentIdentity {
        fleet: enrolment.fleet,
        host: enrolment.host,
        host_epoch: keys.current.host_epoch,
        identity: keys.current.identity,
        keys_since: opened.state.keys_since.unwrap_or(enrolment.enrolled_at),
        boot,
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        actions: action_refs(),
        root_sha256: enrolment.root_sha256,
        next: keys.next,
    };
    let (agent, effects) = AgentLoop::new(agent_identity, opened.state, state_missing, now(), &admission)?;
    announce(&enrolment, &admission);
    let sealing = keys.sealing;
    let tools = Tools { engine, journal: opened.journal.clone(), sealing: sealing.clone(), fingerprint_key };
    let (door, handed) = trust::door(&state);
    let beside = (boot, handed, (state.clone(), sealing));
    let shell = Shell::new(agent, admission, opened.journal, Executor::new(tools), roots, keeper, beside);
    let ended = shell.run(effects).await;
    door.close();
    if matches!(ended, Ok(Ran::Retired)) {
        host_keys::drop_identity(&state)?;
    }
    ended
}

/// This host has left its fleet. An earlier process may have ended before it had done and said so.
fn left(state: &StateDir, status: Status) -> Result<Ran, RunError> {
    host_keys::drop_identity(state)?;
    let is_said = |status: &Status| matches!(status.connection, ConnectionStatus::Retired { .. });
    if !Status::read(state).ok().flatten().is_some_and(|status| is_said(&status)) {
        let since = status.updated_at;
        Status { connection: ConnectionStatus::Retired { since }, ..status }.write(state)?;
    }
    Ok(Ran::Retired)
}

fn announce(enrolment: &Enrolment, admission: &HostAdmission) {
    let (host, fleet, name): (HostId, FleetId, &str) = (enrolment.host, enrolment.fleet, enrolment.name.as_str());
    let version = env!("CARGO_PKG_VERSION");
    tracing::info!(%host, %fleet, name, version, pid = std::process::id(), "agent started");
    // Read now, so that a missing or broken file is in the log before the first order.
    let _ = admission.policy.current();
}

fn first_status(enrolment: &Enrolment, admission: &HostAdmission, roots: &Roots, seen: Option<u64>) -> Status {
    let (pid, now) = (std::process::id(), now());
    Status {
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        fleet: enrolment.fleet,
        host: enrolment.host,
        name: enrolment.name.clone(),
        pid,
        process_start: process_start(pid),
        started_at: now.wall,
        updated_at: now.wall,
        connection: ConnectionStatus::Connecting,
        clock: None,
        quarantine: None,
        audit: AuditStatus { seen, refused: None },
        commands: CommandsStatus::default(),
        reports_waiting: 0,
        root: roots.status(),
        directions: Some(roots.directions_status()),
        policy: PolicyStatus { path: admission.policy.path().to_owned(), error: admission.policy.current().err() },
        standing: Vec::new(),
    }
}
