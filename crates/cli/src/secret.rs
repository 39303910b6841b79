//! `secret …`: the owner's recovery key, and what is sealed to it.

use std::{fs, path::Path};

use api::{
    AppSummary, HostSummary, OperationRequest, OperationResponse, OperationState, RecoveryRewrapRequest, ReleaseDetail,
};
use envelope::seal::SealingSecretKey;
use ids::{AppName, HostName, OperationId};
use keyfile::KeyKind;
use rand::{rand_core::UnwrapErr, rngs::SysRng};
use serde::Serialize;
use serde_json::json;

use crate::{
    app,
    arguments::{Rewrap, Secret, SomeHosts},
    client::Client,
    exit::{Ended, Failure, Kind},
    list,
    operation::{self, OperationDocument, Wait},
    output::{Output, Paint},
    owner, root, roots,
    roots::Roots,
    session_file::Place,
    table::Table,
};

pub(crate) async fn run(output: &Output, place: Place<'_>, verb: Secret) -> Result<Ended, Failure> {
    match verb {
        Secret::RecoveryKey { out } => recovery_key(output, &out),
        Secret::Rewrap(asked) if asked.owner.recovery_key.is_some() => {
            rewrap(output, &Client::signed_in(place)?, &asked).await
        }
        Secret::Rewrap(asked) => on_hosts(output, &Client::signed_in(place)?, asked).await,
    }
}

/// One app on the hosts that carry it.
#[derive(Serialize)]
struct OnHosts<'a> {
    app: &'a AppName,
    #[serde(flatten)]
    operation: OperationDocument<'a>,
}

/// Each host seals what it keeps to its newest key, app by app.
async fn on_hosts(output: &Output, client: &Client, asked: Rewrap) -> Result<Ended, Failure> {
    let mut ended: Vec<(AppName, OperationResponse)> = Vec::new();
    for (app, hosts) in apps_on(client, &asked).await? {
        let hosts = SomeHosts { names: hosts, selector: None };
        let request = app::request("app.secrets.rewrap", hosts, json!({ "app": app }))?;
        let sent = operation::send(client, output, &OperationRequest::Single(request)).await?;
        output.progress(format_args!("sealing the secrets of {app} anew (operation {})", sent.operation_id));
        ended.push((app, operation::finish(client, output, sent, Wait::ToEnd).await?));
    }
    let documents: Vec<OnHosts<'_>> = ended
        .iter()
        .map(|(app, operation)| OnHosts { app, operation: OperationDocument::new(operation, &[]) })
        .collect();
    output.result(&documents, |_, paint| {
        if ended.is_empty() {
            return "no apps on these hosts\n".to_owned();
        }
        let words = |(app, operation): &(AppName, OperationResponse)| {
            format!("{}\n{}", paint.bold(app), operation::words(operation, paint))
        };
        ended.iter().map(words).collect()
    })?;
    Ok(Ended::well_if(ended.iter().all(|(_, operation)| operation.state == OperationState::Succeeded)))
}

/// The apps that are meant, each with those of the hosts that carry it.
async fn apps_on(client: &Client, asked: &Rewrap) -> Result<Vec<(AppName, Vec<HostName>)>, Failure> {
    let chosen: Vec<HostName> = match &asked.hosts.selector {
        None => asked.hosts.names.clone(),
        Some(selector) => {
            let hosts: Vec<HostSummary> =
                list::items(client, &["hosts"], &[("selector", selector.clone())], None).await?;
            hosts.into_iter().map(|host| host.name).collect()
        }
    };
    let apps: Vec<AppSummary> = list::items(client, &["apps"], &[], None).await?;
    let mut found = Vec::new();
    for app in apps.into_iter().filter(|app| asked.apps.is_empty() || asked.apps.contains(&app.name)) {
        let carries = app.instances.into_iter().map(|instance| instance.host);
        let hosts: Vec<HostName> = carries.filter(|host| chosen.contains(host)).collect();
        if !hosts.is_empty() {
            found.push((app.name, hosts));
        }
    }
    Ok(found)
}

/// What `secret recovery-key --json` prints; shown once, for it holds the passphrase.
#[derive(Serialize)]
struct Made<'a> {
    file: &'a Path,
    public_key: String,
    passphrase: &'a str,
}

fn recovery_key(output: &Output, file: &Path) -> Result<Ended, Failure> {
    let failed = |error: keyfile::KeyFileError| Failure::invalid(root::with_sources(&error));
    let passphrase = keyfile::passphrase().map_err(failed)?;
    let seed = keyfile::random().map_err(failed)?;
    keyfile::write_seed_encrypted(file, KeyKind::X25519, &seed, &passphrase).map_err(failed)?;
    let public_key = SealingSecretKey::from_bytes(&seed).public().to_string();
    let made = Made { file, public_key, passphrase: &passphrase };
    let shown = output.result(&made, |made, _| {
        format!(
            "{}\n  passphrase  {}   (shown once)\n  public key  {}\n\nKeep the file offline, and its passphrase elsewhere. \
             Next, so that secrets are sealed to it from now on:\n  serverflow root propose --add-recovery-key {}\n",
            file.display(),
            made.passphrase,
            made.public_key,
            made.public_key,
        )
    });
    if shown.is_err() {
        // A key whose passphrase nobody saw is of no use, and a second attempt needs its name.
        drop(fs::remove_file(file));
    }
    shown.map(|()| Ended::Well)
}

/// One release whose secrets were looked at.
#[derive(Serialize)]
struct Rewrapped {
    app: AppName,
    operation_id: OperationId,
    /// `rewrapped`, `unchanged`, `no_secrets`, `not_recoverable`
    outcome: Outcome,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Outcome {
    Rewrapped,
    Unchanged,
    NoSecrets,
    NotRecoverable,
}

impl Outcome {
    const fn words(self) -> &'static str {
        match self {
            Self::Rewrapped => "sealed to the recovery keys of today",
            Self::Unchanged => "sealed to them already",
            Self::NoSecrets => "has no secrets",
            Self::NotRecoverable => "not sealed to any recovery key; deploy it again to have it so",
        }
    }
}

async fn rewrap(output: &Output, client: &Client, asked: &Rewrap) -> Result<Ended, Failure> {
    let roots = roots::known(client, output).await?;
    if roots.recovery_keys.is_empty() {
        return Err(Failure::invalid("root metadata names no owner recovery key, so there is nothing to seal to")
            .hint("make one with `serverflow secret recovery-key`"));
    }
    let apps: Vec<AppSummary> = list::items(client, &["apps"], &[], None).await?;
    if let Some(missing) = asked.apps.iter().find(|name| apps.iter().all(|app| app.name != **name)) {
        return Err(Failure::invalid(format!("no app {missing} is deployed; see `serverflow app list`")));
    }
    let key = owner::key(&asked.owner)?;
    let mut done = Vec::new();
    for app in apps.iter().filter(|app| asked.apps.is_empty() || asked.apps.contains(&app.name)) {
        let mut releases: Vec<OperationId> = app.instances.iter().map(|instance| instance.release).collect();
        releases.sort_unstable();
        releases.dedup();
        for operation_id in releases {
            let outcome = one(client, &roots, &key, operation_id).await?;
            done.push(Rewrapped { app: app.name.clone(), operation_id, outcome });
        }
    }
    output.result(&done, |done, paint| words(done, paint))?;
    Ok(Ended::well_if(done.iter().all(|one| one.outcome != Outcome::NotRecoverable)))
}

async fn one(client: &Client, roots: &Roots, key: &SealingSecretKey, id: OperationId) -> Result<Outcome, Failure> {
    let id = id.to_string();
    let release: ReleaseDetail = client.get(&["operations", &id, "release"]).await?;
    let Some(copy) = owner::copy_of(&release)? else {
        return Ok(if owner::has_secrets(&release.spec) { Outcome::NotRecoverable } else { Outcome::NoSecrets });
    };
    let mut sealed_to: Vec<_> = copy.keys.iter().map(|wrapped| wrapped.recovery_key.0).collect();
    let mut wanted: Vec<_> = roots.recovery_keys.iter().map(|key| key.0).collect();
    sealed_to.sort_unstable();
    wanted.sort_unstable();
    if sealed_to == wanted {
        return Ok(Outcome::Unchanged);
    }
    let context = owner::context(roots.fleet, &release);
    // What does not open must not be said to be recoverable.
    owner::secrets(&copy, key, &context)?;
    let keys = copy.rewrapped(key, &roots.recovery_keys, &context, &mut UnwrapErr(SysRng));
    let keys = keys.map_err(|error| owner::refused(&error, context.app))?;
    let body = RecoveryRewrapRequest { keys: owner::keys_shown(&keys) };
    let stored: ReleaseDetail = client.put(&["operations", &id, "recovery"], &body).await?;
    if owner::copy_of(&stored)?.is_none_or(|stored| stored.keys != keys) {
        let why = format!("the control plane did not keep the new keys of {}", release.app);
        return Err(Failure::new(Kind::NotWell, why).hint("keep the recovery keys before, and try again"));
    }
    Ok(Outcome::Rewrapped)
}

fn words(done: &[Rewrapped], paint: Paint) -> String {
    if done.is_empty() {
        return "no apps are deployed\n".to_owned();
    }
    let mut table = Table::new(["APP", "RELEASE", "SECRETS"]);
    for one in done {
        table.row([one.app.as_str().into(), one.operation_id.to_string().into(), one.outcome.words().into()]);
    }
    table.render(paint, "")
}
