//! The control plane's own keys: what there is, and changes of them. What follows from root metadata and from the hosts
//! happens by itself; here people begin a change, hasten it, or give it up.

use std::sync::Arc;

use ::fleet::{
    keys::{ChangeState, HeldOnlineKey, KeyChange, KeyChangeMove, Reached},
    model::{Host, Principal},
    ports::{StoreError, Write},
    standing::StandingRecord,
};
use api::{KeyChangeSummary, KeyList, KeyRevocationRequest};
use axum::{Json, extract::State};
use envelope::root::{OnlineKey, OnlineRole, StagedKeys, listed};

use crate::{
    access::{self, Actor},
    input::{JsonBody, PathParameter},
    lasting::to_the_end,
    problem::{ApiError, Kind},
    records,
    state::Shared,
    view::keys as view,
};

pub(super) async fn list(State(shared): State<Arc<Shared>>) -> Result<Json<KeyList>, ApiError> {
    let (held, problem): (Vec<HeldOnlineKey>, _) = match shared.key_keeper.held().await {
        Ok(held) => (held, None),
        Err(why) => (Vec::new(), Some(why)),
    };
    let root = shared.root();
    let stored = shared.store.key_changes().await?;
    let changes = shown(&shared, &stored).await?;
    Ok(Json(KeyList { keys: view::keys(&root, &held, &stored), changes, problem }))
}

/// Whether it is of interest who has taken its root metadata.
fn is_followed(change: &KeyChange) -> bool {
    change.root_version.is_some() && (!change.state.is_end() || change.keys.is_emergency)
}

async fn shown(shared: &Shared, changes: &[KeyChange]) -> Result<Vec<KeyChangeSummary>, ApiError> {
    let now = shared.now();
    // Once for all of them.
    let hosts: Vec<Host> = if changes.iter().any(is_followed) { shared.store.hosts().await? } else { Vec::new() };
    let mut shown = Vec::with_capacity(changes.len());
    for change in changes {
        let reached = match change.root_version.filter(|_| is_followed(change)) {
            Some(version) => Reached::of(&hosts, version, |host| shared.notifier.connected(host).is_some()),
            None => Reached::default(),
        };
        let under_way = match change.orders_before(now).filter(|_| change.state == ChangeState::Activated) {
            Some((from, until)) => shared.store.orders_under_way(from, until).await?,
            None => 0,
        };
        let standing = standing_under(shared, change).await?;
        shown.push(view::change(change, &reached, (under_way, standing), now));
    }
    Ok(shown)
}

/// Standing orders that rest on the key that is to be dropped.
async fn standing_under(shared: &Shared, change: &KeyChange) -> Result<u64, ApiError> {
    if change.keys.role != OnlineRole::Command || change.state != ChangeState::Activated {
        return Ok(0);
    }
    let (key, now) = (change.keys.old.id(), shared.now());
    let records = shared.store.standing_orders(None).await?;
    let hosts = if records.is_empty() { Vec::new() } else { shared.store.hosts().await? };
    let waits = |record: &&StandingRecord| {
        hosts.iter().any(|host| host.id == record.host && record.waits_under(key, host, now))
    };
    Ok(records.iter().filter(waits).count() as u64)
}

async fn open(shared: &Shared, role: OnlineRole) -> Result<Option<KeyChange>, ApiError> {
    let changes = shared.store.key_changes().await?;
    Ok(changes.into_iter().find(|change| change.keys.role == role && !change.state.is_end()))
}

async fn answer(shared: &Shared, role: OnlineRole) -> Result<Json<KeyChangeSummary>, ApiError> {
    let changes = shared.store.key_changes().await?;
    // Open ones come first, then the newest: whatever became of it meanwhile.
    let change = changes.iter().find(|change| change.keys.role == role).ok_or_else(|| none_open(role))?;
    let shown = shown(shared, core::slice::from_ref(change)).await?.pop();
    shown.map(Json).ok_or_else(|| none_open(role))
}

/// Begins a change, or answers the one that is under way.
pub(super) async fn rotate(
    State(shared): State<Arc<Shared>>,
    Actor(actor): Actor,
    PathParameter(role): PathParameter<OnlineRole>,
) -> Result<Json<KeyChangeSummary>, ApiError> {
    let begun = shared.clone();
    // A key that was made is one that somebody must know of.
    to_the_end(async move {
        let _turn = begun.key_keeper.turn().await;
        match open(&begun, role).await? {
            Some(change) if change.state == ChangeState::Withdrawn => {
                let detail = format!(
                    "a change of the {} was given up and is not undone yet: root metadata must drop the key made for it first; \
                     `serverflow key rotate {role} --abort` goes on with that",
                    role.words()
                );
                Err(ApiError::new(Kind::KeyChangeOpen, detail))
            }
            Some(change) if change.keys.is_emergency => {
                let detail = format!(
                    "{} is being shut out as stolen; go on with `serverflow key revoke command {} --emergency`, or give \
                     that up with `serverflow key rotate {role} --abort`",
                    change.keys.old.named(role),
                    change.keys.old.id()
                );
                Err(ApiError::new(Kind::KeyChangeOpen, detail))
            }
            Some(_) => Ok(()),
            None => begin(&begun, &actor, role, None).await,
        }
    })
    .await?;
    shared.key_keeper.look();
    answer(&shared, role).await
}

async fn begin(
    shared: &Shared,
    actor: &Principal,
    role: OnlineRole,
    stolen: Option<OnlineKey>,
) -> Result<(), ApiError> {
    let keys: StagedKeys = shared.key_keeper.prepare(role, stolen).await.map_err(unavailable)?;
    let now = shared.now();
    let change = KeyChange::new(keys, actor.audit_name(), now);
    let audit = records::key_change_begun(actor, &change, now);
    let write = Write::KeyChangeBegin { change: Box::new(change), audit };
    access::write(shared, actor, write).await?;
    Ok(())
}

fn unavailable(why: String) -> ApiError {
    tracing::error!(why, "a key could not be made");
    ApiError::new(Kind::KeysUnavailable, format!("no key was made: {why}"))
}

fn none_open(role: OnlineRole) -> ApiError {
    let detail = format!(
        "no change of the {} is under way; begin one with `serverflow key rotate {role}`, or look with `serverflow key list`",
        role.words()
    );
    ApiError::new(Kind::KeyChangeNotFound, detail)
}

/// Puts the new key to use without waiting for more hosts.
pub(super) async fn activate(
    State(shared): State<Arc<Shared>>,
    Actor(actor): Actor,
    PathParameter(role): PathParameter<OnlineRole>,
) -> Result<Json<KeyChangeSummary>, ApiError> {
    let change = open(&shared, role).await?.ok_or_else(|| none_open(role))?;
    if !change.state.is_abortable() {
        let detail = format!("the change of the {} is {} already", role.words(), change.state.as_str());
        return Err(ApiError::new(Kind::KeyChangeOpen, detail));
    }
    moved(&shared, &actor, &change, change.state, true).await?;
    answer(&shared, role).await
}

/// Gives a change up before its new key is used.
pub(super) async fn abort(
    State(shared): State<Arc<Shared>>,
    Actor(actor): Actor,
    PathParameter(role): PathParameter<OnlineRole>,
) -> Result<Json<KeyChangeSummary>, ApiError> {
    let turn = shared.key_keeper.turn().await;
    let change = open(&shared, role).await?.ok_or_else(|| none_open(role))?;
    if change.state == ChangeState::Withdrawn {
        return answer(&shared, role).await;
    }
    let is_dropped = change.keys.is_emergency && change.keys.is_dropped(shared.root().current());
    if !change.state.is_abortable() || is_dropped {
        let detail = format!(
            "the new {} is in use, so the change cannot be given up any more; finish it, and change the key again",
            role.words()
        );
        return Err(ApiError::new(Kind::KeyChangeOpen, detail));
    }
    moved(&shared, &actor, &change, ChangeState::Withdrawn, false).await?;
    drop(turn);
    answer(&shared, role).await
}

async fn moved(
    shared: &Shared,
    actor: &Principal,
    change: &KeyChange,
    to: ChangeState,
    is_anyway: bool,
) -> Result<(), ApiError> {
    let now = shared.now();
    let what = if is_anyway { "not to wait for more hosts" } else { "given up" };
    let moved = KeyChangeMove {
        role: change.keys.role,
        new: change.keys.new,
        from: change.state,
        to,
        root_version: None,
        activated_at: None,
        is_anyway,
        at: now,
        audit: records::key_change_moved(actor, change, what, now),
    };
    let written = access::write(shared, actor, Write::KeyChangeMove(Box::new(moved))).await;
    shared.key_keeper.look();
    written.map(drop).map_err(|error| match error {
        StoreError::Conflict(why) => ApiError::new(Kind::KeyChangeOpen, format!("{why}; try again")),
        other => other.into(),
    })
}

/// Makes ready to shut out a command key that is in wrong hands. Root metadata does it.
pub(super) async fn revoke(
    State(shared): State<Arc<Shared>>,
    Actor(actor): Actor,
    JsonBody(request): JsonBody<KeyRevocationRequest>,
) -> Result<Json<KeyChangeSummary>, ApiError> {
    let role = OnlineRole::Command;
    let stolen: OnlineKey = request.key.parse().map_err(|why: &str| ApiError::field("key", why))?;
    let begun = shared.clone();
    to_the_end(async move {
        let _turn = begun.key_keeper.turn().await;
        let open = open(&begun, role).await?.filter(|open| open.keys.is_emergency && open.keys.old == stolen);
        if open.is_some() {
            return Ok(());
        }
        if !listed(begun.root().current(), role).contains(&stolen) {
            let why = "root metadata in force does not list this command key, so no host takes an order of it; see `serverflow key list`";
            return Err(ApiError::field("key", why));
        }
        begin(&begun, &actor, role, Some(stolen)).await
    })
    .await?;
    shared.key_keeper.look();
    answer(&shared, role).await
}
