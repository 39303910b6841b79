//! `approver …`: a person's approver key. It is made on their machine and never leaves it; the control plane
//! is told its public half, and root metadata says whether it counts.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anstyle::AnsiColor;
use api::{ApproverRequest, ApproverSummary, WhoAmI};
use envelope::{
    keys::{SigningKey, role},
    messages::PublicKeyBytes,
};
use ids::UnixMs;
use keyfile::KeyKind;
use serde::Serialize;
use zeroize::Zeroizing;

use crate::{
    arguments::{Approver, ApproverInit},
    client::Client,
    clock,
    exit::{Ended, Failure, Kind},
    output::{Output, Paint, clean_line},
    password, prompt,
    root::{key_failed, reveal},
    session_file,
    spans::relative,
    table::{Cell, Table},
};

/// Name of the file, beside the session.
const FILE: &str = "approver.key.pem";

pub(crate) async fn run(output: &Output, client: &Client, verb: Approver) -> Result<Ended, Failure> {
    match verb {
        Approver::Init(asked) => init(output, client, &asked).await,
        Approver::List => {
            let keys: Vec<ApproverSummary> = client.get(&["approvers"]).await?;
            output.result(&keys, |keys, paint| list_words(keys, clock::now(), paint))?;
            Ok(Ended::Well)
        }
    }
}

/// Where the key is, unless it is said otherwise.
pub(crate) fn usual_file() -> Result<PathBuf, Failure> {
    Ok(session_file::path()?.with_file_name(FILE))
}

/// Opens the key's file.
pub(crate) fn open(file: Option<&Path>, passphrase: Option<&Path>) -> Result<SigningKey<role::Approver>, Failure> {
    let path = file.map_or_else(usual_file, |file| Ok(file.to_owned()))?;
    if !path.exists() {
        let why = format!("there is no approver key at {}", path.display());
        return Err(Failure::invalid(why).hint("make one with `serverflow approver init`, or name its file with --key"));
    }
    let passphrase: Zeroizing<String> = match passphrase {
        Some(file) => password::of_file(file)?,
        None => prompt::password(&format!("Passphrase of {}: ", path.display()))
            .map_err(|failure| failure.hint("give its file with --passphrase-file FILE, or `-` for standard input"))?,
    };
    let seed =
        keyfile::read_seed_encrypted(&path, KeyKind::Ed25519, &passphrase).map_err(|error| key_failed(&error))?;
    Ok(SigningKey::from_seed(&seed))
}

/// What `approver init --json` prints; the passphrase is shown once.
#[derive(Serialize)]
struct Made {
    file: PathBuf,
    #[serde(flatten)]
    key: ApproverSummary,
    /// If it was made here.
    #[serde(serialize_with = "reveal", skip_serializing_if = "String::is_empty")]
    passphrase: Zeroizing<String>,
}

async fn init(output: &Output, client: &Client, asked: &ApproverInit) -> Result<Ended, Failure> {
    let me: WhoAmI = client.get(&["session"]).await?;
    let file = asked.out.clone().map_or_else(usual_file, Ok)?;
    let given = asked.passphrase_file.as_deref().map(password::of_file).transpose()?;
    let made_here = given.is_none();
    let passphrase = given.map_or_else(|| keyfile::passphrase().map_err(|error| key_failed(&error)), Ok)?;
    let public = write(&file, &passphrase)?;
    let registered = register(client, me.name.as_str(), public).await;
    let shown = registered.and_then(|key| {
        let passphrase = if made_here { passphrase } else { Zeroizing::default() };
        let made = Made { file: file.clone(), key, passphrase };
        output.result(&made, made_words)
    });
    if shown.is_err() {
        // A key that is registered nowhere, or whose passphrase nobody saw, is of no use, and a second attempt needs its name.
        drop(fs::remove_file(&file));
    }
    shown.map(|()| Ended::Well)
}

fn write(file: &Path, passphrase: &str) -> Result<PublicKeyBytes, Failure> {
    if let Some(folder) = file.parent().filter(|folder| !folder.as_os_str().is_empty() && !folder.exists()) {
        keyfile::private_directory(folder).map_err(|error| key_failed(&error))?;
    }
    let seed = keyfile::random().map_err(|error| key_failed(&error))?;
    keyfile::write_seed_encrypted(file, KeyKind::Ed25519, &seed, passphrase).map_err(|error| key_failed(&error))?;
    Ok(SigningKey::<role::Approver>::from_seed(&seed).public())
}

async fn register(client: &Client, name: &str, public: PublicKeyBytes) -> Result<ApproverSummary, Failure> {
    let request = ApproverRequest { public_key: public.to_string() };
    let answer: ApproverSummary = client.put(&["users", name, "approver"], &request).await?;
    if answer.public_key != request.public_key {
        let why = format!("{} answered with another key than was sent", client.address());
        return Err(Failure::new(Kind::NotWell, why).hint("look at `serverflow approver list`"));
    }
    Ok(answer)
}

fn made_words(made: &Made, paint: Paint) -> String {
    let mut text = format!("{}\n", made.file.display());
    if !made.passphrase.is_empty() {
        text.push_str(&format!("  passphrase  {}   (shown once)\n", paint.bold(made.passphrase.as_str())));
    }
    let public = clean_line(&made.key.public_key);
    text.push_str(&format!("  public key  {public}\n  key id      {}\n\n", clean_line(&made.key.key_id)));
    text.push_str(&match made.key.in_force {
        true => "It counts from now on.\n".to_owned(),
        false => format!(
            "It counts once root metadata lists it. Whoever keeps the root key, next:\n  serverflow root propose --add-approver {public}\n"
        ),
    });
    text
}

fn list_words(keys: &[ApproverSummary], now: UnixMs, paint: Paint) -> String {
    let mut table = Table::new(["ACCOUNT", "KEY", "REGISTERED", "COUNTS", "PUBLIC KEY"]);
    for key in keys {
        let counts = match key.in_force {
            true => Cell::styled("yes", AnsiColor::Green.on_default()),
            false => Cell::styled("not in root metadata", AnsiColor::Yellow.on_default()),
        };
        table.row([
            key.user.as_ref().map(ToString::to_string).unwrap_or_default().into(),
            key.key_id.as_str().into(),
            key.registered_at.map(|at| relative(now, at.0)).unwrap_or_default().into(),
            counts,
            key.public_key.as_str().into(),
        ]);
    }
    let mut text = table.render(paint, "no approver keys that you may see; make yours with `serverflow approver init`");
    if keys.iter().any(|key| !key.in_force) {
        text.push_str("Keys come into root metadata with `serverflow root propose --add-approver PUBLIC_KEY`.\n");
    }
    if keys.iter().any(|key| key.user.is_none()) {
        text.push_str("A key without an account counts at hosts, but nobody can bring its approvals here.\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::sample::NOW;

    #[test]
    fn keys_stand_in_a_table_with_what_to_do() {
        let keys = json!([
            {"user": "ada", "key_id": "k1", "public_key": "aa", "registered_at": "2023-11-14T22:12:20.000Z", "in_force": true},
            {"user": "bob", "key_id": "k2", "public_key": "bb", "registered_at": "2023-11-14T22:12:20.000Z", "in_force": false},
            {"key_id": "k3", "public_key": "cc", "in_force": true},
        ]);
        let keys: Vec<ApproverSummary> = serde_json::from_value(keys).unwrap();
        let expected = expect_test::expect![[r"
            ACCOUNT  KEY  REGISTERED  COUNTS                PUBLIC KEY
            ada      k1   60 s ago    yes                   aa
            bob      k2   60 s ago    not in root metadata  bb
            -        k3   -           yes                   cc
            Keys come into root metadata with `serverflow root propose --add-approver PUBLIC_KEY`.
            A key without an account counts at hosts, but nobody can bring its approvals here.
        "]];
        expected.assert_eq(&list_words(&keys, NOW, Paint(false)));
    }
}
