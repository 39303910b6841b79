//! A version of root metadata that somebody's change of a key waits for: drafted, signed as far as keys are at hand, and put
//! in force or written down.

use std::path::{Path, PathBuf};

use envelope::{
    keys::{SigningKey, role},
    messages::RootMetadata,
    root::{Edit, Proposal, RootFile, TrustedRoot, next_version},
};
use ids::RootVersion;

use super::{files, put, sign};
use crate::{
    arguments::KeySigning,
    client::Client,
    clock,
    exit::{Failure, Kind},
    output::Output,
};

/// What became of it.
pub(crate) enum Drafted {
    InForce(RootVersion),
    /// It lacks signatures, and stands in this file.
    Written(PathBuf),
}

/// # Errors
/// When there can be no such version, somebody says no, or the file cannot be used.
pub(crate) async fn draft(
    output: &Output,
    client: &Client,
    current: TrustedRoot,
    edits: &[Edit],
    keys: &[SigningKey<role::Root>],
    asked: &KeySigning,
) -> Result<Drafted, Failure> {
    let next = next_version(current.current(), edits, clock::now())
        .map_err(|error| Failure::invalid(files::with_sources(&error)))?;
    let version = next.version;
    let path = asked.out.clone().unwrap_or_else(|| format!("root-v{version}.json").into());
    let (mut made, was_there) = begun(&path, current, &next)?;
    if !keys.is_empty() {
        sign::ask(output, &made, asked.yes, "Sign this")?;
        for key in keys {
            sign::add(&mut made, key)?;
        }
    }
    if made.proposed.progress(made.chain.as_ref()).is_complete() {
        put(client, &made).await?;
        return Ok(Drafted::InForce(version));
    }
    match (was_there, keys.is_empty()) {
        (false, _) => files::write_new(&path, &made)?,
        (true, false) => files::replace(&path, &made)?,
        (true, true) => {}
    }
    Ok(Drafted::Written(path))
}

/// What stands in the file, with the signatures it has, if it proposes the very same; else a new proposal.
fn begun(path: &Path, current: TrustedRoot, next: &RootMetadata) -> Result<(RootFile, bool), Failure> {
    if path.exists() {
        let file = files::read(path)?;
        let there = file.proposed.metadata();
        let timeless = RootMetadata { issued: next.issued, expires: next.expires, ..there.clone() };
        let follows = file.chain.as_ref().is_some_and(|chain| chain.payload_sha256() == current.payload_sha256());
        if follows && timeless == *next {
            return Ok((file, true));
        }
        let why = format!("{} is there, and proposes something else than is needed now", path.display());
        return Err(Failure::new(Kind::Invalid, why).hint("take it away, or name another file with --out"));
    }
    let proposed = Proposal::new(next).map_err(|error| files::broken(&error))?;
    Ok((RootFile { chain: Some(current), proposed }, false))
}
