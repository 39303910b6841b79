//! `serverflow-agent trust`: which root metadata this host goes by, and newer one from a file.
//!
//! A host that no control plane reaches takes root metadata from its own machine. What counts is the chain from
//! the version that its join token named; who brings the file does not. While the agent runs, it alone writes its
//! journal, so it is asked through a socket in its state directory; otherwise this program writes it.

mod show;
mod socket;

use std::{fs::File, io::Read as _, path::Path, process::ExitCode};

use envelope::root::{FILE_BYTES_MAX, Proposal, RootError, RootFile, TrustedRoot};
use host::clock;
use ids::{RootVersion, Sha256};
use journal::{Journal, JournalError};
use session::agent::io::JournalWrite;

use self::socket::Request;
pub(crate) use self::socket::{Answer, Handed, door};
use crate::{
    failure::{Failure, FailureKind, words},
    state_dir::{Enrolment, StateDir},
};

/// Takes one version up, or the pinned one when there is none yet.
pub(crate) fn advance(trusted: &mut Option<TrustedRoot>, pin: Sha256, envelope: &[u8]) -> Result<(), RootError> {
    match trusted {
        Some(root) => root.advance(envelope).map(drop),
        None => {
            *trusted = Some(TrustedRoot::pin(envelope, pin)?);
            Ok(())
        }
    }
}

/// What in a chain follows what is held, and the version that leads to. Older versions are passed over.
pub(crate) fn newer(
    held: Option<&TrustedRoot>,
    pin: Sha256,
    chain: &[Vec<u8>],
) -> Result<(RootVersion, Vec<Vec<u8>>), RootError> {
    let mut trusted = held.cloned();
    let version = held.map_or(RootVersion(0), TrustedRoot::version);
    let mut new = Vec::new();
    for envelope in chain {
        if is_up_to(envelope, version) {
            continue;
        }
        match advance(&mut trusted, pin, envelope) {
            Ok(()) => new.push(envelope.clone()),
            Err(RootError::NotPinned { .. }) if trusted.is_none() => {}
            Err(error) => return Err(error),
        }
    }
    Ok((trusted.map_or(RootVersion(0), |root| root.version()), new))
}

/// What a host holds it does not judge again, and what was before it was enrolled it cannot judge.
fn is_up_to(envelope: &[u8], version: RootVersion) -> bool {
    Proposal::parse(envelope).is_ok_and(|it| it.metadata().version <= version)
}

fn enrolled(state: &StateDir) -> Result<Enrolment, Failure> {
    let enrolment = Enrolment::read(state).map_err(Failure::failed)?;
    let missing =
        || Failure::new(FailureKind::Usage, "this machine is not enrolled, so it trusts no root metadata yet");
    enrolment.ok_or_else(missing)
}

/// The chain this host goes by, and whether its agent runs.
struct Held {
    chain: Vec<Vec<u8>>,
    running: bool,
}

/// `trust show`.
pub(crate) async fn show(state: &StateDir, as_json: bool) -> Result<ExitCode, Failure> {
    let enrolment = enrolled(state)?;
    let held = match opened(state).await? {
        Some(opened) => {
            opened.journal.close().await;
            Held { chain: opened.state.root_chain, running: false }
        }
        None => Held { chain: asked(state, &Request::Show).await?, running: true },
    };
    show::print(&verified(&enrolment, &held.chain)?, held.running, clock::wall_now(), as_json);
    Ok(ExitCode::SUCCESS)
}

/// `trust apply`.
pub(crate) async fn apply(state: &StateDir, file: &Path, as_json: bool) -> Result<ExitCode, Failure> {
    let enrolment = enrolled(state)?;
    state.guard().map_err(Failure::failed)?;
    let chain = read(file)?;
    let wanted = chain.last().cloned().unwrap_or_default();
    let held = match opened(state).await? {
        Some(opened) => {
            let chain = write(&enrolment, &opened, &chain).await;
            opened.journal.close().await;
            Held { chain: chain?, running: false }
        }
        None => Held { chain: asked(state, &Request::apply(&chain)).await?, running: true },
    };
    let root = verified(&enrolment, &held.chain)?;
    if !root.holds(&wanted) {
        let version = root.version();
        let why = format!(
            "this host goes by version {version}, and what the file ends with is not part of that: look at both with \
             `serverflow root show FILE` and `serverflow-agent trust show{}`",
            state.option()
        );
        return Err(Failure::new(FailureKind::Failed, why));
    }
    show::print(&root, held.running, clock::wall_now(), as_json);
    Ok(ExitCode::SUCCESS)
}

/// The whole chain in a file; one that lacks signatures is refused here already.
fn read(path: &Path) -> Result<Vec<Vec<u8>>, Failure> {
    let unusable = |why: String| Failure::new(FailureKind::Usage, format!("{} cannot be used: {why}", path.display()));
    let mut bytes = Vec::new();
    let most = FILE_BYTES_MAX as u64 + 1;
    let read = File::open(path).and_then(|file| file.take(most).read_to_end(&mut bytes));
    read.map_err(|error| unusable(error.to_string()))?;
    let file = RootFile::read(&bytes).map_err(|error| unusable(words(&error)))?;
    let root = file.completed().map_err(|error| unusable(format!("proposed: {}", words(&error))))?;
    Ok(root.chain().to_vec())
}

/// The journal, unless a running agent has it.
async fn opened(state: &StateDir) -> Result<Option<journal::Opened>, Failure> {
    let path = state.journal();
    if !path.exists() {
        // Making one would hide that it was lost, and with it what this host had accepted.
        return Err(Failure::new(
            FailureKind::Failed,
            format!(
                "{} is missing: this host's state is lost. Start the agent; it quarantines this host, and takes root \
                 metadata from the control plane",
                path.display()
            ),
        ));
    }
    match Journal::open(&path).await {
        Ok(opened) => Ok(Some(opened)),
        Err(JournalError::InUse { .. }) => Ok(None),
        Err(error) => Err(Failure::failed(error)),
    }
}

async fn asked(state: &StateDir, request: &Request) -> Result<Vec<Vec<u8>>, Failure> {
    let answer = socket::ask(state, request).await.map_err(Failure::failed)?;
    answer.map_err(|why| Failure::new(FailureKind::Failed, format!("the running agent does not take it: {why}")))
}

/// Makes what is new durable, version by version; a crash leaves a shorter chain, never a torn one.
async fn write(enrolment: &Enrolment, opened: &journal::Opened, chain: &[Vec<u8>]) -> Result<Vec<Vec<u8>>, Failure> {
    let held = verified(enrolment, &opened.state.root_chain)?;
    let (_, new) = newer(Some(&held), enrolment.root_sha256, chain).map_err(Failure::failed)?;
    let mut root = held;
    for envelope in new {
        let version = root.advance(&envelope).map_err(Failure::failed)?;
        let pending = opened.journal.queue(JournalWrite::Root { version, envelope }).await.map_err(Failure::failed)?;
        pending.durable().await.map_err(Failure::failed)?;
    }
    Ok(root.chain().to_vec())
}

fn verified(enrolment: &Enrolment, chain: &[Vec<u8>]) -> Result<TrustedRoot, Failure> {
    let mut trusted = None;
    for envelope in chain {
        advance(&mut trusted, enrolment.root_sha256, envelope).map_err(Failure::failed)?;
    }
    let missing = "this host has lost its root metadata; its agent takes it anew from the control plane";
    trusted.ok_or_else(|| Failure::new(FailureKind::Failed, missing))
}
