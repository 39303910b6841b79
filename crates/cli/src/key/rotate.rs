//! A change of a key, followed as far as it goes: what root metadata must say next is drafted here, signed with the root
//! keys that are at hand, and put in force when that is enough.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use api::{KeyChangeState, KeyChangeSummary, KeyRole};
use envelope::{
    keys::{SigningKey, role},
    root::{Edit, OnlineKey, OnlineRole, StagedKeys, TrustedRoot},
};
use serde::Serialize;
use tokio::time::{Instant, sleep};

use super::{is_end, list::not_reached, newest, state_word, word};
use crate::{
    arguments::KeySigning,
    client::Client,
    exit::{Ended, Failure, Kind},
    limits,
    output::Output,
    root::{self, Drafted},
    roots,
};

/// What `key rotate --json` and `key revoke --json` print.
#[derive(Serialize)]
struct Document<'a> {
    change: &'a KeyChangeSummary,
    /// Nothing follows.
    done: bool,
    /// What it waits for; absent when it is done.
    #[serde(skip_serializing_if = "Option::is_none")]
    waits_for: Option<String>,
    /// Root metadata that lacks signatures.
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<&'a Path>,
}

/// One change on its way.
pub(super) struct Going<'a> {
    output: &'a Output,
    client: &'a Client,
    signing: &'a KeySigning,
    is_retired_anyway: bool,
    /// Opened when they are needed first.
    keys: Option<Vec<SigningKey<role::Root>>>,
}

/// What a look at a change came to.
enum Next {
    /// Look again.
    Again,
    /// Nobody here can do more.
    File(PathBuf),
}

impl<'a> Going<'a> {
    pub(super) const fn new(
        output: &'a Output,
        client: &'a Client,
        signing: &'a KeySigning,
        is_retired_anyway: bool,
    ) -> Self {
        Self { output, client, signing, is_retired_anyway, keys: None }
    }

    pub(super) async fn follow(mut self, mut change: KeyChangeSummary) -> Result<Ended, Failure> {
        let until = Instant::now() + Duration::from_secs(self.signing.wait);
        let mut said = None;
        let mut file = None;
        let mut shut_out = None;
        loop {
            let words = told(&change);
            if said.as_ref() != Some(&words) {
                self.output.progress(&words);
                said = Some(words);
            }
            if is_end(change.state) {
                // Those that are connected take it within moments: who is named at the end is really out of reach.
                let since = *shut_out.get_or_insert_with(Instant::now);
                if !change.emergency || change.hosts_waiting.is_empty() || since.elapsed() > limits::KEY_REVOKED_LOOK {
                    break;
                }
            } else if let Next::File(written) = self.go_on(&change).await? {
                file = Some(written);
                break;
            }
            if Instant::now() >= until {
                break;
            }
            sleep(limits::KEY_CHANGE_LOOK).await;
            let same = |now: &KeyChangeSummary| now.begun_at == change.begun_at && now.new_key == change.new_key;
            let gone = || {
                Failure::new(Kind::NotWell, "another change took the place of this one")
                    .hint("see `serverflow key list`")
            };
            change = newest(self.client, change.role).await?.filter(same).ok_or_else(gone)?;
        }
        self.end(&change, file.as_deref())
    }

    /// Puts the root metadata in force that the change waits for, if it waits for any.
    async fn go_on(&mut self, change: &KeyChangeSummary) -> Result<Next, Failure> {
        let needs_root = match change.state {
            KeyChangeState::Prepared | KeyChangeState::Withdrawn => true,
            KeyChangeState::Activated => self.is_retired_anyway || is_free_of(change),
            KeyChangeState::Published | KeyChangeState::Retired | KeyChangeState::Aborted => false,
        };
        if !needs_root {
            return Ok(Next::Again);
        }
        let root = roots::trusted(self.client, &self.output.without_progress()).await?;
        let edits = edits(change, &root)?;
        if edits.is_empty() {
            // It is in force, and the control plane is about to see it.
            return Ok(Next::Again);
        }
        self.open_keys()?;
        let keys = self.keys.as_deref().unwrap_or_default();
        match root::draft(self.output, self.client, root, &edits, keys, self.signing).await? {
            Drafted::InForce(version) => {
                self.output.progress(format!("root metadata version {version} is in force"));
                Ok(Next::Again)
            }
            Drafted::Written(file) => Ok(Next::File(file)),
        }
    }

    fn open_keys(&mut self) -> Result<(), Failure> {
        if self.keys.is_some() {
            return Ok(());
        }
        let mut keys = Vec::with_capacity(self.signing.keys.len());
        for (at, path) in self.signing.keys.iter().enumerate() {
            keys.push(root::open_key(path, self.signing.passphrase_files.get(at).map(PathBuf::as_path))?);
        }
        self.keys = Some(keys);
        Ok(())
    }

    fn end(&self, change: &KeyChangeSummary, file: Option<&Path>) -> Result<Ended, Failure> {
        let done = is_end(change.state);
        let waits_for = (!done).then(|| match file {
            Some(file) => format!("the signatures that {} lacks", file.display()),
            None => waits_for(change),
        });
        let document = Document { change, done, waits_for, file };
        self.output.result(&document, |document, _| end_words(document))?;
        Ok(Ended::well_if(done))
    }
}

/// Whether nothing rests on the old key any more.
const fn is_free_of(change: &KeyChangeSummary) -> bool {
    change.orders_under_way == 0 && change.standing_orders == 0
}

/// What root metadata must say next for this change.
fn edits(change: &KeyChangeSummary, root: &TrustedRoot) -> Result<Vec<Edit>, Failure> {
    let key = |text: &str| {
        let strange =
            || Failure::new(Kind::NotWell, format!("the control plane calls {text:?} a key, which it is not"));
        text.parse::<OnlineKey>().map_err(|_| strange())
    };
    let staged = StagedKeys {
        role: match change.role {
            KeyRole::Command => OnlineRole::Command,
            KeyRole::Session => OnlineRole::Session,
            KeyRole::Audit => OnlineRole::Audit,
            KeyRole::Tls => OnlineRole::Tls,
        },
        old: key(&change.old_key)?,
        new: key(&change.new_key)?,
        fresh: key(&change.fresh_key)?,
        is_emergency: change.emergency,
    };
    Ok(match change.state {
        KeyChangeState::Prepared => staged.publish(root.current()),
        KeyChangeState::Activated => staged.drop_old(root.current()),
        KeyChangeState::Withdrawn => staged.withdraw(root.current()),
        KeyChangeState::Published | KeyChangeState::Retired | KeyChangeState::Aborted => Vec::new(),
    })
}

/// What a change waits for, as the end of a sentence.
pub(crate) fn waits_for(change: &KeyChangeSummary) -> String {
    let role = word(change.role);
    match change.state {
        KeyChangeState::Prepared if change.emergency => {
            "root metadata that drops the stolen key; until it is in force, hosts take orders of it".to_owned()
        }
        KeyChangeState::Prepared => "root metadata that lists the new key".to_owned(),
        KeyChangeState::Published => {
            let (all, have) = (change.hosts, change.hosts_acknowledged);
            let names = match change.hosts_waiting.as_slice() {
                [] => String::new(),
                hosts => format!(" (not yet: {})", hosts.join(", ")),
            };
            format!(
                "hosts to acknowledge it: {have} of {all} have{names}; `serverflow key rotate {role} --activate-anyway` waits no longer"
            )
        }
        KeyChangeState::Activated if change.orders_under_way > 0 => {
            let count = change.orders_under_way;
            format!(
                "{count} orders that the old key may have signed to start or end; `--retire-anyway` waits no longer"
            )
        }
        KeyChangeState::Activated if change.standing_orders > 0 => format!(
            "{} standing orders to be signed anew and taken by their hosts (`serverflow standing list`); `--retire-anyway` waits \
             no longer, and they run again once they are",
            change.standing_orders
        ),
        KeyChangeState::Activated => "root metadata that drops the old key".to_owned(),
        KeyChangeState::Withdrawn => "root metadata that drops the key made for it".to_owned(),
        KeyChangeState::Retired | KeyChangeState::Aborted => "nothing".to_owned(),
    }
}

/// A line of progress.
fn told(change: &KeyChangeSummary) -> String {
    let role = word(change.role);
    let (all, have) = (change.hosts, change.hosts_acknowledged);
    let state = state_word(change.state);
    match change.state {
        KeyChangeState::Prepared => format!("{role} key: {state}; the new one is {}", change.new_key),
        KeyChangeState::Published => format!("{role} key: {state}; {have} of {all} hosts have acknowledged it"),
        KeyChangeState::Activated if change.orders_under_way > 0 => {
            format!(
                "{role} key: {state}; {} orders that the old one may have signed are under way",
                change.orders_under_way
            )
        }
        KeyChangeState::Activated if change.standing_orders > 0 => {
            format!("{role} key: {state}; {} standing orders are being signed anew", change.standing_orders)
        }
        KeyChangeState::Activated => format!("{role} key: {state}; the new one is in use"),
        KeyChangeState::Retired => format!("{role} key: {state}; the old one is destroyed"),
        KeyChangeState::Withdrawn | KeyChangeState::Aborted => format!("{role} key: {state}"),
    }
}

fn end_words(document: &Document<'_>) -> String {
    let Document { change, done, waits_for, file } = document;
    let role = word(change.role);
    let mut text = match (change.state, waits_for) {
        (KeyChangeState::Aborted, _) => format!("The change of the {role} key was given up; the key in use stays.\n"),
        (_, Some(waits_for)) => {
            format!("The {role} key is not changed yet ({}). It waits for {waits_for}.\n", state_word(change.state))
        }
        _ if change.emergency => {
            format!("The {role} key {} is shut out, and everything it signed is void.\n", change.old_key)
        }
        _ => format!("The {role} key is changed: {} is in use, and the one before is destroyed.\n", change.new_key),
    };
    if let Some(file) = file {
        let (file, again) = (file.display(), if change.emergency { "revoke" } else { "rotate" });
        text.push_str(&format!(
            "Next:\n  serverflow root sign --key KEYFILE {file}\n  serverflow root apply {file}\n  serverflow key {again} {role} …   # again: it goes on\n"
        ));
    }
    if change.emergency && *done && !change.hosts_waiting.is_empty() {
        text.push_str(&not_reached(change));
        text.push('\n');
    }
    for (hosts, what) in [(&change.hosts_quarantined, "in quarantine"), (&change.hosts_never_seen, "never seen")] {
        if !hosts.is_empty() {
            text.push_str(&format!("Not waited for ({what}): {}.\n", hosts.join(", ")));
        }
    }
    text
}
