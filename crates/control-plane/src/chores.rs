//! What the control plane does by the clock: heads of the audit log, orders that waited too long,
//! who was refused.

use std::sync::Arc;

use envelope::{
    keys::key_id,
    messages::{AuditHead, LogPosition},
    signer_port::Signer as _,
    verify,
};
use fleet::{
    dispatch::{SignedHead, cancel_void, expire_queued},
    model::{Command, HostStanding},
    ports::{Event, HostChange, Notifier as _, Store as _, StoreError, Write},
    recovery::RecoveryStage,
};
use ids::{RootVersion, UnixMs};
use signer::{RemoteSigner, Standing};
use store::{AuditPosition, SqliteStore};
use tokio::{
    task::JoinHandle,
    time::{Instant, MissedTickBehavior, interval, sleep, sleep_until},
};

use crate::{agents::Agents, clock::Moment, key_keeper::KeyKeeper, limits, standing_keeper::StandingKeeper};

/// Begins all of them; they run until they are aborted.
pub(crate) fn start(
    agents: &Arc<Agents>,
    store: &Arc<SqliteStore>,
    signer: &Arc<RemoteSigner>,
    keeper: &Arc<KeyKeeper>,
) -> [JoinHandle<()>; 8] {
    [
        tokio::spawn(audit_heads(agents.clone(), store.clone())),
        tokio::spawn(expiry(agents.clone())),
        tokio::spawn(refused(agents.clone())),
        tokio::spawn(mend(store.clone())),
        tokio::spawn(signer_root(agents.clone(), signer.clone())),
        tokio::spawn(void_orders(agents.clone())),
        tokio::spawn(keeper.clone().run()),
        tokio::spawn(StandingKeeper { agents: agents.clone(), signer: signer.clone() }.run()),
    ]
}

/// Signs a head whenever the log has grown, at most every [`limits::HEAD_INTERVAL`]; and the last one anew when root
/// metadata names another audit key, because from then on hosts verify heads by that one alone.
async fn audit_heads(agents: Arc<Agents>, store: Arc<SqliteStore>) {
    let (mut positions, mut roots) = (store.audit_positions(), agents.roots());
    positions.mark_changed();
    // Hosts are shown a head before their first order, and a log at rest gets no new one.
    while let Err(error) = last_head(&agents, &store).await {
        tracing::error!(%error, "the last audit head could not be read; trying again");
        sleep_until(Instant::now() + limits::HEAD_INTERVAL).await;
    }
    let mut key = roots.borrow_and_update().current().audit_key;
    loop {
        let changed = tokio::select! {
            changed = positions.changed() => changed,
            changed = roots.changed() => {
                let is_same = core::mem::replace(&mut key, roots.borrow_and_update().current().audit_key) == key;
                if changed.is_ok() && is_same {
                    continue;
                }
                changed
            }
        };
        if changed.is_err() {
            return;
        }
        let next = Instant::now() + limits::HEAD_INTERVAL;
        let root = agents.root();
        if agents.stage(&root) == RecoveryStage::Gathering {
            // The log went on elsewhere since the backup: to sign it on from there would fork it.
            positions.mark_changed();
            sleep_until(next).await;
            continue;
        }
        let position = *positions.borrow_and_update();
        if let Err(error) = sign_head(&agents, &store, position).await {
            tracing::error!(%error, "an audit head could not be signed and stored; trying again");
            positions.mark_changed();
        }
        // Another key is another matter than another leaf.
        let is_other = tokio::select! {
            () = sleep_until(next) => false,
            other = roots.wait_for(|root| root.current().audit_key != key) => other.is_ok(),
        };
        if is_other {
            roots.mark_changed();
        }
    }
}

async fn sign_head(agents: &Agents, store: &SqliteStore, position: AuditPosition) -> Result<(), StoreError> {
    let root = agents.root();
    let position = LogPosition { log: root.current().audit_log, size: position.size, root: position.root };
    let public = root.current().audit_key;
    let key = agents.keys.audit(public).ok_or_else(|| {
        StoreError::Unavailable(format!(
            "the audit key that root metadata names, {}, is not held here",
            key_id(&public)
        ))
    })?;
    let head = AuditHead { fleet: agents.fleet, position, time: agents.now() };
    let envelope = key.sign(&head).into_envelope();
    match store.write(Write::AuditHead { position, envelope: envelope.clone() }).await {
        Ok(_) => {}
        // Signed before, by this key or by the one before it: what is stored of it stands, and hosts are shown this.
        Err(StoreError::Conflict(_)) if store.audit_head_at(position.size).await? == Some(position) => {}
        // An older head than the stored one: after a restart, or when a write raced; the next one comes.
        Err(StoreError::Conflict(why)) => {
            tracing::debug!(why, "an audit head was not needed");
            return Ok(());
        }
        Err(error) => return Err(error),
    }
    agents.hub.audit_head(SignedHead { position, envelope: envelope.into() });
    Ok(())
}

/// Tells of the head that was signed last, before this process ran.
async fn last_head(agents: &Agents, store: &SqliteStore) -> Result<(), StoreError> {
    let Some(envelope) = store.audit_heads(true).await?.pop() else { return Ok(()) };
    // One that another audit key signed before it was replaced is not shown: it is signed anew at once. One of a log that a
    // restore is about to end would soon be no head of the log in force any more.
    match verify::<AuditHead>(&envelope, &[*agents.root().audit_key()]) {
        Ok(head)
            if head.position.log == agents.root().current().audit_log
                && agents.stage(&agents.root()) != RecoveryStage::Gathering =>
        {
            agents.hub.audit_head(SignedHead { position: head.position, envelope: envelope.into() });
        }
        Ok(_) => {}
        Err(error) => tracing::info!(%error, "the last stored audit head is of another audit key than the one in use"),
    }
    Ok(())
}

/// Ends queued commands whose time has passed at hosts that have no session; sessions end their own.
async fn expiry(agents: Arc<Agents>) {
    let mut ticks = interval(limits::EXPIRY_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut last = Moment::now();
    loop {
        ticks.tick().await;
        let now = Moment::now();
        if let Some(by) = last.set_by(&now) {
            tracing::warn!(
                %by,
                "this machine's clock was set, or it slept: hosts are told the time anew before their next order. Waiting \
                 orders, join tokens and sign-ins are judged by the time it shows now; if that is wrong, set it right \
                 (chrony, systemd-timesyncd)"
            );
        }
        last = now;
        if let Err(error) = expire_once(&agents).await {
            tracing::warn!(%error, "commands that waited too long could not be ended; trying again");
        }
    }
}

async fn expire_once(agents: &Agents) -> Result<(), StoreError> {
    let limit = fleet::limits::LIST_MAX;
    loop {
        let overdue = agents.store.commands_overdue(agents.now(), limit).await?;
        expire_page(agents, &overdue).await?;
        // What ended is not overdue any more, so each look finds others.
        if overdue.len() < limit as usize {
            return Ok(());
        }
    }
}

async fn expire_page(agents: &Agents, queued: &[Command]) -> Result<(), StoreError> {
    end_page(agents, queued, expire_queued(agents.now(), queued)).await
}

async fn end_page(agents: &Agents, queued: &[Command], writes: Vec<Write>) -> Result<(), StoreError> {
    for write in writes {
        let Write::CommandEnd { command, status, message, .. } = &write else { continue };
        let (command, status, message) = (*command, *status, message.clone());
        let Some(ended) = queued.iter().find(|queued| queued.order.command == command) else { continue };
        match agents.store.write(write).await {
            Ok(_) => {
                let (operation, host) = (ended.order.operation, ended.order.host);
                agents.hub.publish(Event::Command { command, operation, host, status, message });
                agents.hub.host_changed(host, HostChange::Queue);
            }
            // A session or a person was first.
            Err(StoreError::Conflict(_)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Records once a minute who was refused, if anybody was.
async fn refused(agents: Arc<Agents>) {
    let mut ticks = interval(limits::REFUSALS_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        for entry in agents.refusals_take() {
            tracing::warn!(kind = %entry.kind, who = entry.actor, "the agents' listener refused somebody");
            if let Err(error) = agents.store.write(Write::Audit(entry)).await {
                tracing::error!(%error, "refusals could not be recorded");
            }
        }
    }
}

/// Has the store try again to write, after a write that failed: what it waits for is the disk, and nobody
/// may come with work until then. (The signer looks after itself.)
async fn mend(store: Arc<SqliteStore>) {
    let mut ticks = interval(limits::MEND_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if store.is_impaired() {
            store.mend();
        }
    }
}

/// Hands root metadata to a signer that has older: it takes it only as a chain that verifies, and judges by its own.
async fn signer_root(agents: Arc<Agents>, signer: Arc<RemoteSigner>) {
    let (mut roots, mut standings) = (agents.roots(), signer.standings());
    loop {
        let root = roots.borrow_and_update().clone();
        let standing = standings.borrow_and_update().clone();
        if let Standing::Here(keys) = standing
            && keys.root.is_none_or(|(version, _)| version < root.version())
        {
            let held = keys.root.map_or(RootVersion(0), |(version, _)| version);
            match signer.advance_root(root.chain_above(held)).await {
                Ok(version) => tracing::info!(%version, "the signer took root metadata"),
                Err(error) => {
                    tracing::error!(%error, "the signer did not take root metadata; trying again");
                    sleep(limits::MEND_INTERVAL).await;
                    continue;
                }
            }
        }
        let changed = tokio::select! {
            changed = roots.changed() => changed,
            changed = standings.changed() => changed,
        };
        if changed.is_err() {
            return;
        }
    }
}

/// Cancels what was queued before a restore from a backup, once root metadata says when that was. A session does the same
/// for its host; nothing of it is ever sealed, whoever comes first.
async fn void_orders(agents: Arc<Agents>) {
    let mut roots = agents.roots();
    loop {
        let root = roots.borrow_and_update().clone();
        let restored_at = root.restored_at().filter(|_| agents.stage(&root) != RecoveryStage::Gathering);
        if let Some(restored_at) = restored_at.filter(|_| agents.was_restored())
            && let Err(error) = void_once(&agents, restored_at).await
        {
            tracing::warn!(%error, "orders of before the restore could not be cancelled; trying again");
            sleep(limits::MEND_INTERVAL).await;
            continue;
        }
        if roots.changed().await.is_err() {
            return;
        }
    }
}

async fn void_once(agents: &Agents, restored_at: UnixMs) -> Result<(), StoreError> {
    loop {
        // Whatever waits has a deadline, and nothing new waits before the restore is confirmed.
        let queued = agents.store.commands_overdue(UnixMs(i64::MAX as u64), fleet::limits::LIST_MAX).await?;
        let writes = cancel_void(restored_at, agents.now(), &queued);
        if writes.is_empty() {
            return Ok(());
        }
        end_page(agents, &queued, writes).await?;
    }
}

/// Hosts known and not revoked, for the log at start.
pub(crate) async fn host_count(agents: &Agents) -> Result<usize, StoreError> {
    let hosts = agents.store.hosts().await?;
    Ok(hosts.iter().filter(|host| !matches!(host.standing, HostStanding::Revoked { .. })).count())
}
