//! The control plane's own keys and changes of them, as the API shows them.

use api::{KeyChangeState, KeyChangeSummary, KeyRole, KeyState, KeySummary};
use envelope::root::{OnlineKey, OnlineRole, TrustedRoot, listed, listed_since};
use fleet::keys::{ChangeState, HeldOnlineKey, KeyChange, Reached, period};
use ids::{HostName, UnixMs};

use crate::limits;

const fn role(role: OnlineRole) -> KeyRole {
    match role {
        OnlineRole::Command => KeyRole::Command,
        OnlineRole::Session => KeyRole::Session,
        OnlineRole::Audit => KeyRole::Audit,
        OnlineRole::Tls => KeyRole::Tls,
    }
}

const fn state(state: ChangeState) -> KeyChangeState {
    match state {
        ChangeState::Prepared => KeyChangeState::Prepared,
        ChangeState::Published => KeyChangeState::Published,
        ChangeState::Activated => KeyChangeState::Activated,
        ChangeState::Withdrawn => KeyChangeState::Withdrawn,
        ChangeState::Retired => KeyChangeState::Retired,
        ChangeState::Aborted => KeyChangeState::Aborted,
    }
}

/// Every key that root metadata lists or somebody holds, by role.
pub(crate) fn keys(root: &TrustedRoot, held: &[HeldOnlineKey], changes: &[KeyChange]) -> Vec<KeySummary> {
    let mut all = Vec::new();
    for role in OnlineRole::ALL {
        let named = listed(root.current(), role);
        let of_role = held.iter().filter(|held| held.role == role);
        let unlisted = of_role.map(|held| held.key).filter(|key| !named.contains(key));
        let made = changes.iter().filter(|change| change.keys.role == role && !change.state.is_end());
        let mut every: Vec<OnlineKey> = named.iter().copied().chain(unlisted).collect();
        for fresh in made.map(|change| change.keys.fresh) {
            if !every.contains(&fresh) {
                every.push(fresh);
            }
        }
        all.extend(every.into_iter().map(|key| summary(root, held, changes, (role, key))));
    }
    all
}

fn summary(
    root: &TrustedRoot,
    held: &[HeldOnlineKey],
    changes: &[KeyChange],
    (of, key): (OnlineRole, OnlineKey),
) -> KeySummary {
    let is_listed = listed(root.current(), of).contains(&key);
    let found = held.iter().find(|held| held.role == of && held.key == key);
    let change = changes.iter().find(|change| change.keys.role == of && change.keys.fresh == key);
    let is_open = change.is_some_and(|change| !change.state.is_end());
    let since = || listed_since(root, of, key);
    let made_at = found.and_then(|held| held.made_at).or_else(|| change.map(|change| change.begun_at)).or_else(since);
    let state = match found {
        Some(held) if held.is_in_use && is_listed => KeyState::InUse,
        Some(held) if held.is_void => KeyState::Void,
        _ if is_listed => KeyState::Listed,
        _ => KeyState::Unlisted,
    };
    KeySummary {
        role: role(of),
        key: key.to_string(),
        key_id: (of != OnlineRole::Tls).then(|| key.id().to_string()),
        state,
        held: found.is_some() || is_open,
        made_at: made_at.map(Into::into),
        rotation_due_at: made_at.filter(|_| state == KeyState::InUse).map(|made_at| made_at.plus(period(of)).into()),
    }
}

fn names(hosts: &[HostName]) -> Vec<String> {
    hosts.iter().take(limits::KEY_HOSTS_SHOWN_MAX).map(ToString::to_string).collect()
}

pub(crate) fn change(
    change: &KeyChange,
    reached: &Reached,
    (orders_under_way, standing_orders): (u64, u64),
    now: UnixMs,
) -> KeyChangeSummary {
    let keys = &change.keys;
    KeyChangeSummary {
        role: role(keys.role),
        state: state(change.state),
        emergency: keys.is_emergency,
        old_key: keys.old.to_string(),
        new_key: keys.new.to_string(),
        fresh_key: keys.fresh.to_string(),
        begun_by: change.begun_by.clone(),
        begun_at: change.begun_at.into(),
        moved_at: change.moved_at.into(),
        stuck: change.is_stuck(now),
        root_version: change.root_version.map(|version| version.0),
        activated_at: change.activated_at.map(Into::into),
        activate_anyway: change.is_anyway,
        hosts: reached.all as u64,
        hosts_acknowledged: reached.acknowledged as u64,
        hosts_waiting: names(&reached.waiting),
        hosts_quarantined: names(&reached.quarantined),
        hosts_never_seen: names(&reached.never_seen),
        orders_under_way,
        standing_orders,
    }
}
