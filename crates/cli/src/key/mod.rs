//! `key …`: the control plane's own keys. Private halves never come here; what this does is to draft and sign the root
//! metadata that a change waits for, from a chain verified here, and to say how far the change is.

mod agent;
mod list;
mod rotate;

use api::{KeyChangeState, KeyChangeSummary, KeyList, KeyRevocationRequest, KeyRole};

pub(crate) use self::rotate::waits_for;
use crate::{
    arguments::{Key, KeyRevoke, Rotate, RotateOwn},
    client::Client,
    exit::{Ended, Failure},
    output::Output,
    session_file::Place,
};

pub(crate) async fn run(output: &Output, place: Place<'_>, verb: Key) -> Result<Ended, Failure> {
    let client = Client::signed_in(place)?;
    match verb {
        Key::List => list::run(output, &client).await,
        Key::Rotate(Rotate::Agent(choice)) => agent::rotate(output, &client, choice).await,
        Key::Rotate(Rotate::Command(asked)) => rotate(output, &client, KeyRole::Command, &asked).await,
        Key::Rotate(Rotate::Session(asked)) => rotate(output, &client, KeyRole::Session, &asked).await,
        Key::Rotate(Rotate::Audit(asked)) => rotate(output, &client, KeyRole::Audit, &asked).await,
        Key::Rotate(Rotate::Tls(asked)) => rotate(output, &client, KeyRole::Tls, &asked).await,
        Key::Revoke(asked) => revoke(output, &client, &asked).await,
    }
}

/// As paths and sentences have it.
pub(crate) const fn word(role: KeyRole) -> &'static str {
    match role {
        KeyRole::Command => "command",
        KeyRole::Session => "session",
        KeyRole::Audit => "audit",
        KeyRole::Tls => "tls",
    }
}

pub(crate) const fn state_word(state: KeyChangeState) -> &'static str {
    match state {
        KeyChangeState::Prepared => "prepared",
        KeyChangeState::Published => "published",
        KeyChangeState::Activated => "activated",
        KeyChangeState::Withdrawn => "withdrawn",
        KeyChangeState::Retired => "retired",
        KeyChangeState::Aborted => "aborted",
    }
}

/// Whether nothing follows.
const fn is_end(state: KeyChangeState) -> bool {
    matches!(state, KeyChangeState::Retired | KeyChangeState::Aborted)
}

async fn rotate(output: &Output, client: &Client, role: KeyRole, asked: &RotateOwn) -> Result<Ended, Failure> {
    let path = ["keys", word(role), "rotation"];
    let change: KeyChangeSummary = if asked.abort {
        let open = newest(client, role).await?.filter(|change| !is_end(change.state));
        match open {
            Some(open) if open.state == KeyChangeState::Withdrawn => open,
            _ => client.delete_for(&path).await?,
        }
    } else {
        let begun: KeyChangeSummary = client.post(&path, &()).await?;
        // Further on, every host has been waited for, or was not to be.
        let waits = matches!(begun.state, KeyChangeState::Prepared | KeyChangeState::Published);
        if asked.activate_anyway && waits && !begun.activate_anyway {
            client.post(&["keys", word(role), "rotation", "activate"], &()).await?
        } else {
            begun
        }
    };
    rotate::Going::new(output, client, &asked.signing, asked.retire_anyway).follow(change).await
}

async fn revoke(output: &Output, client: &Client, asked: &KeyRevoke) -> Result<Ended, Failure> {
    let list: KeyList = client.get(&["keys"]).await?;
    let is_it = |text: &str| text.eq_ignore_ascii_case(&asked.key);
    let found = list
        .keys
        .iter()
        .find(|key| key.role == KeyRole::Command && (is_it(&key.key) || key.key_id.as_deref().is_some_and(is_it)));
    // A change that was begun goes on, also when root metadata has dropped the key by now.
    let begun = list.changes.iter().find(|change| {
        change.role == KeyRole::Command
            && change.emergency
            && (is_it(&change.old_key) || found.is_some_and(|key| key.key == change.old_key))
    });
    let key = found.map(|key| key.key.clone()).or_else(|| begun.map(|change| change.old_key.clone()));
    let key = key.ok_or_else(|| {
        Failure::invalid(format!("{} is no command key of this fleet, nor the id of one", asked.key))
            .hint("see `serverflow key list`")
    })?;
    let change = match begun.filter(|change| is_end(change.state)) {
        Some(done) => done.clone(),
        None => client.post(&["keys", "command", "revocation"], &KeyRevocationRequest { key }).await?,
    };
    rotate::Going::new(output, client, &asked.signing, true).follow(change).await
}

/// The change of that role that is open, or the newest.
async fn newest(client: &Client, role: KeyRole) -> Result<Option<KeyChangeSummary>, Failure> {
    let list: KeyList = client.get(&["keys"]).await?;
    Ok(list.changes.into_iter().find(|change| change.role == role))
}
