//! `root init`: root keys, each in a file of its own, encrypted with a passphrase of its own.

use std::{
    fs,
    path::{Path, PathBuf},
};

use envelope::{
    keys::{SigningKey, key_id, role},
    messages::PublicKeyBytes,
    root::RootKeys,
};
use keyfile::{KeyFileError, KeyKind};
use serde::Serialize;
use zeroize::Zeroizing;

use super::files;
use crate::{
    arguments::RootInit,
    exit::{Ended, Failure, Kind},
    output::Output,
};

/// What `root init --json` prints; shown once, for it holds passphrases.
#[derive(Serialize)]
struct Made {
    threshold: u32,
    /// The public halves: for `root propose --root-keys` or `serverflow-control-plane init --root-keys`.
    root_keys_file: PathBuf,
    keys: Vec<MadeKey>,
}

#[derive(Serialize)]
struct MadeKey {
    file: PathBuf,
    public_key: PublicKey,
    id: String,
    #[serde(serialize_with = "reveal")]
    passphrase: Zeroizing<String>,
}

/// As text.
struct PublicKey(PublicKeyBytes);

impl Serialize for PublicKey {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

pub(crate) fn reveal<S: serde::Serializer>(secret: &Zeroizing<String>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(secret)
}

pub(super) fn run(output: &Output, asked: &RootInit) -> Result<Ended, Failure> {
    if asked.threshold > asked.keys {
        let (threshold, keys) = (asked.threshold, asked.keys);
        return Err(Failure::invalid(format!("of {keys} keys, {threshold} can never sign"))
            .hint("give a --threshold that is not above --keys"));
    }
    let mut written = Vec::new();
    let made = make(asked, &mut written);
    let shown = made.and_then(|made| output.result(&made, |made, _| words(made)));
    if shown.is_err() {
        // Keys whose passphrases nobody saw are of no use, and a second attempt needs their names.
        written.iter().for_each(|path| drop(fs::remove_file(path)));
    }
    shown.map(|()| Ended::Well)
}

fn make(asked: &RootInit, written: &mut Vec<PathBuf>) -> Result<Made, Failure> {
    fs::create_dir_all(&asked.out).map_err(|error| Failure::file("make", &asked.out, &error))?;
    let keys: Vec<MadeKey> =
        (1..=asked.keys).map(|number| key(&asked.out, number, written)).collect::<Result<_, _>>()?;
    let public = RootKeys { threshold: asked.threshold, keys: keys.iter().map(|key| key.public_key.0).collect() };
    let path = asked.out.join("root-keys.json");
    files::write_text(&path, &public.write().map_err(|error| files::unusable(&path, &error))?)?;
    written.push(path.clone());
    Ok(Made { threshold: asked.threshold, root_keys_file: path, keys })
}

fn key(folder: &Path, number: u32, written: &mut Vec<PathBuf>) -> Result<MadeKey, Failure> {
    let file = folder.join(format!("root-{number}.key.pem"));
    let passphrase = keyfile::passphrase().map_err(|error| failed(&error))?;
    let seed = keyfile::random().map_err(|error| failed(&error))?;
    keyfile::write_seed_encrypted(&file, KeyKind::Ed25519, &seed, &passphrase).map_err(|error| failed(&error))?;
    written.push(file.clone());
    let public = SigningKey::<role::Root>::from_seed(&seed).public();
    Ok(MadeKey { file, public_key: PublicKey(public), id: key_id(&public).to_string(), passphrase })
}

pub(crate) fn failed(error: &KeyFileError) -> Failure {
    let kind = if matches!(error, KeyFileError::Randomness) { Kind::NotWell } else { Kind::Invalid };
    Failure::new(kind, files::with_sources(error))
}

fn words(made: &Made) -> String {
    let mut text = String::new();
    for key in &made.keys {
        let (file, passphrase) = (key.file.display(), key.passphrase.as_str());
        text.push_str(&format!(
            "{file}\n  passphrase  {passphrase}   (shown once)\n  public key  {}\n\n",
            key.public_key.0
        ));
    }
    let (threshold, count, file) = (made.threshold, made.keys.len(), made.root_keys_file.display());
    text + &format!(
        "{threshold} of these {count} keys govern the fleet. Give each to a person of its own, and keep its passphrase \
         elsewhere; a control plane's machine keeps none.\n{file} holds the public halves. Next, for a fleet that runs:\n  \
         serverflow root propose --root-keys {file}\nor for a new one:\n  serverflow-control-plane init --root-keys {file}\n"
    )
}
