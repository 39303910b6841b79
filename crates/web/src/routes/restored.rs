//! After a restore from a backup: how far it is, and that an owner confirms which hosts are revoked.

use std::sync::Arc;

use ::fleet::{
    model::{Host, HostStanding},
    ports::{Event, HostChange, StoreError, Write},
    recovery::{self, Recovery, RecoveryHost, RecoveryStage},
};
use api::{LogPosition, RecoveryConfirmRequest, RecoveryStatus, RevokedHost};
use axum::{Json, extract::State};

use crate::{
    access::{self, Actor},
    input::JsonBody,
    lasting::to_the_end,
    limits,
    problem::{ApiError, Kind},
    records,
    state::Shared,
};

pub(super) async fn status(State(shared): State<Arc<Shared>>) -> Result<Json<RecoveryStatus>, ApiError> {
    shown(&shared).await.map(Json)
}

async fn shown(shared: &Shared) -> Result<RecoveryStatus, ApiError> {
    let hosts = shared.store.hosts().await?;
    let revoked = hosts.iter().filter_map(revoked_host).collect();
    let Some(recovery) = shared.store.recovery().await? else {
        let (stage, hosts) = ("none".to_owned(), Vec::new());
        let at = None;
        return Ok(RecoveryStatus {
            stage,
            restored_at: at,
            backup_made_at: at,
            confirmed_at: at,
            log_before: None,
            hosts,
            revoked,
        });
    };
    let (root, known) = (shared.root(), shared.store.recovery_hosts(None).await?);
    let before = recovery::log_before(&recovery, &root, &known);
    let named = root.current().restored_log;
    let is_ahead = |host: &RecoveryHost| {
        let head = host.heard.as_ref().and_then(|heard| heard.head);
        head.zip(named).is_some_and(|(head, named)| head.log == named.log && head.size > named.size)
    };
    let line = |host: &RecoveryHost| api::RecoveryHost {
        host_id: host.host,
        name: host.name.clone(),
        heard_at: host.heard.as_ref().map(|heard| heard.at.into()),
        orders_lost: host.heard.as_ref().map(|heard| heard.high.0.saturating_sub(host.allocated.0)),
        is_ahead: is_ahead(host),
        is_taken_up: host.adopted_at.is_some(),
    };
    Ok(RecoveryStatus {
        stage: stage_word(recovery.stage(&root)).to_owned(),
        restored_at: Some(recovery.restored_at.into()),
        backup_made_at: Some(recovery.backup_made_at.into()),
        confirmed_at: recovery.confirmed_at.map(Into::into),
        log_before: Some(LogPosition { log: before.log, size: before.size, root: before.root }),
        hosts: known.iter().filter(|host| !host.is_revoked).map(line).collect(),
        revoked,
    })
}

const fn stage_word(stage: RecoveryStage) -> &'static str {
    match stage {
        RecoveryStage::Gathering => "gathering",
        RecoveryStage::Confirming => "confirming",
        RecoveryStage::Over => "over",
    }
}

fn revoked_host(host: &Host) -> Option<RevokedHost> {
    let HostStanding::Revoked { at, .. } = host.standing else { return None };
    Some(RevokedHost { host_id: host.id, name: host.name.clone(), revoked_at: at.into() })
}

/// Revokes those named, then lets orders out again. Cut in between, it is repeated.
pub(super) async fn confirm(
    State(shared): State<Arc<Shared>>,
    Actor(actor): Actor,
    JsonBody(RecoveryConfirmRequest { revoke }): JsonBody<RecoveryConfirmRequest>,
) -> Result<Json<RecoveryStatus>, ApiError> {
    let recovery =
        shared.store.recovery().await?.ok_or_else(|| nothing_to_confirm("was never restored from a backup"))?;
    match recovery.stage(&shared.root()) {
        RecoveryStage::Confirming => {}
        RecoveryStage::Over => return Err(nothing_to_confirm("was restored and confirmed before")),
        RecoveryStage::Gathering => {
            let detail = "root metadata of after the restore is not in force yet: make it with `serverflow root propose --restored`";
            return Err(ApiError::new(Kind::Recovering, detail));
        }
    }
    if revoke.len() > limits::RECOVERY_REVOKE_MAX {
        let message = format!("at most {} at a time", limits::RECOVERY_REVOKE_MAX);
        return Err(ApiError::field("revoke", message));
    }
    // All of them are known before the first is revoked.
    let mut hosts = Vec::with_capacity(revoke.len());
    for name in &revoke {
        hosts.push(super::hosts::find(&shared, name).await?);
    }
    for host in hosts.iter().filter(|host| !matches!(host.standing, HostStanding::Revoked { .. })) {
        revoked(&shared, &actor, host).await?;
    }
    let now = shared.now();
    let all: Vec<_> = shared.store.hosts().await?.iter().filter_map(revoked_host).map(|host| host.host_id).collect();
    let write = Write::Recovery(Box::new(recovery::confirmed(actor.audit_name(), &all, now)));
    let write = access::by(&shared, &actor, write);
    let (store, keeper) = (shared.store.clone(), shared.root_keeper.clone());
    let written = to_the_end(async move {
        let written = store.write(write).await;
        if written.is_ok() {
            keeper.recovered(Recovery { confirmed_at: Some(now), ..recovery });
        }
        written
    });
    written.await?;
    shown(&shared).await.map(Json)
}

async fn revoked(shared: &Shared, actor: &::fleet::model::Principal, host: &Host) -> Result<(), StoreError> {
    let now = shared.now();
    let audit = records::host_revoked(host, actor, now);
    let write = access::by(shared, actor, Write::HostRevoke { host: host.id, at: now, audit });
    let (store, notifier, id) = (shared.store.clone(), shared.notifier.clone(), host.id);
    let written = to_the_end(async move {
        let written = store.write(write).await;
        notifier.host_changed(id, HostChange::Revoked);
        notifier.publish(Event::Host { host: id });
        written
    });
    written.await.map(drop)
}

fn nothing_to_confirm(why: &str) -> ApiError {
    ApiError::new(Kind::Changed, format!("this control plane {why}: there is nothing to confirm"))
}
