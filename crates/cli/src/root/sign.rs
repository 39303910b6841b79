//! `root sign`: one more signature, by whoever has read what it is for.

use std::path::Path;

use envelope::{
    keys::{SigningKey, role},
    root::{Added, Proposal, RootFile, TrustedRoot},
};
use keyfile::KeyKind;
use zeroize::Zeroizing;

use super::{
    before, confirmed,
    document::Shown,
    files::{self, with_sources},
    init::failed,
};
use crate::{
    arguments::RootSign,
    exit::{Ended, Failure},
    output::Output,
    password, prompt, roots,
};

pub(super) fn run(output: &Output, asked: &RootSign) -> Result<Ended, Failure> {
    let mut file = files::read(&asked.file)?;
    let key = open_key(&asked.key, asked.passphrase_file.as_deref())?;
    has_a_say(&file, &key)?;
    vouched(&file, &key, asked.root.as_deref())?;
    ask(output, &file, asked.yes, "Sign this")?;
    let added = add(&mut file, &key)?;
    if added == Added::Signed {
        files::replace(&asked.file, &file)?;
    }
    output.result(&Shown::of(&file).in_file(&asked.file), |shown, _| {
        let said = match added {
            Added::Signed => "signed",
            Added::WasThere => "this key had signed already",
        };
        let path = asked.file.display();
        let then = match shown.missing() {
            missing if missing.is_empty() && file.chain.is_some() => format!("Next: serverflow root apply {path}"),
            missing if missing.is_empty() => format!("Next: serverflow-control-plane init --finish {path}"),
            missing => format!("Still needed: {missing}"),
        };
        format!("{path}: {said}\n{then}\n")
    })?;
    Ok(Ended::Well)
}

/// Opens a root key's file.
pub(crate) fn open_key(path: &Path, passphrase_file: Option<&Path>) -> Result<SigningKey<role::Root>, Failure> {
    let passphrase = match passphrase_file {
        Some(file) => password::of_file(file)?,
        None => prompt::password(&format!("Passphrase of {}: ", path.display()))
            .map_err(|failure| failure.hint("give its file with --passphrase-file FILE, or `-` for standard input"))?,
    };
    let passphrase: Zeroizing<String> = passphrase;
    let seed = keyfile::read_seed_encrypted(path, KeyKind::Ed25519, &passphrase).map_err(|error| failed(&error))?;
    Ok(SigningKey::from_seed(&seed))
}

fn has_a_say(file: &RootFile, key: &SigningKey<role::Root>) -> Result<(), Failure> {
    let listed = before(file).is_some_and(|root| root.root_keys().contains(&key.verifying()));
    if listed || file.proposed.metadata().root_keys.contains(&key.public()) {
        return Ok(());
    }
    Err(Failure::invalid(format!("{} is a root key neither of this version nor of the one before", key.public()))
        .hint("sign with one of the keys that `serverflow root show FILE` lists"))
}

/// A chain can be made up by anyone, with other people's public keys in it. What no one can make up is a
/// signature: of the key at hand under an earlier version, or of the key whose public half one brought along. A
/// key that is only about to become a root key has no power to be tricked out of.
fn vouched(file: &RootFile, key: &SigningKey<role::Root>, root: Option<&Path>) -> Result<(), Failure> {
    let Some(chain) = before(file) else { return Ok(()) };
    let [first, ..] = chain.chain() else { return Ok(()) };
    if let Some(root) = root.filter(|root| !root.as_os_str().is_empty()) {
        let begins = TrustedRoot::pin_key(first, roots::read_key(root)?);
        return begins.map(drop).map_err(|error| {
            Failure::invalid(format!("the chain does not begin with the key in {}: {error}", root.display()))
                .hint("this file is another fleet's, or somebody made it up: do not sign it")
        });
    }
    let signed = |envelope: &Vec<u8>| Proposal::parse(envelope).is_ok_and(|it| it.is_signed_by(&key.verifying()));
    if !chain.root_keys().contains(&key.verifying()) || chain.chain().iter().any(signed) {
        return Ok(());
    }
    Err(Failure::invalid(
        "this key has signed nothing in this chain, so nothing here shows that the chain is your fleet's",
    )
    .hint("name a file with a root public key that signed version 1 (root.pub) with --root FILE"))
}

/// Shows what is about to happen, and asks.
pub(super) fn ask(output: &Output, file: &RootFile, yes: bool, question: &str) -> Result<(), Failure> {
    if yes {
        return Ok(());
    }
    // For people, whether or not the result is a document: they are being asked.
    eprint!("{}", Shown::of(file).words(output.progress_paint()));
    if confirmed(question)? { Ok(()) } else { Err(Failure::invalid("that is not yes; nothing was changed")) }
}

/// Adds the signature.
pub(super) fn add(file: &mut RootFile, key: &SigningKey<role::Root>) -> Result<Added, Failure> {
    let RootFile { chain, proposed } = file;
    proposed.add_signature(chain.as_ref(), key).map_err(|error| Failure::invalid(with_sources(&error)))
}
