//! After a restore from a backup: how far it is, and that an owner confirms which hosts are revoked.

use std::sync::Arc;

use ::fleet::{
    model::{Host, HostStanding},
    ports::{Event, HostChange, StoreError, Write},
    recovery::{self, Claim, Heard, NotTaken, Recovery, RecoveryHost, RecoveryStage, RecoveryWrite},
};
use api::{
    LogPosition, RecoveryClaim, RecoveryClaimRef, RecoveryClaimsRequest, RecoveryConfirmRequest, RecoveryStatus,
    RevokedHost,
};
use axum::{Json, extract::State};
use envelope::keys::key_id;

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
        let (stage, hosts, claims) = ("none".to_owned(), Vec::new(), Vec::new());
        let at = None;
        return Ok(RecoveryStatus {
            stage,
            restored_at: at,
            backup_made_at: at,
            confirmed_at: at,
            log_before: None,
            hosts,
            claims,
            revoked,
        });
    };
    let (root, known) = (shared.root(), shared.store.recovery_hosts(None).await?);
    let claims = shared.store.recovery_claims(None).await?;
    let before = recovery::log_before(&recovery, &root, &recovery::heads(&known, &claims));
    let named = root.current().restored_log;
    let is_ahead = |heard: Option<&Heard>| {
        let head = heard.and_then(|heard| heard.head);
        head.zip(named).is_some_and(|(head, named)| head.log == named.log && head.size > named.size)
    };
    let line = |host: &RecoveryHost| api::RecoveryHost {
        host_id: host.host,
        name: host.name.clone(),
        heard_at: host.heard.as_ref().map(|heard| heard.at.into()),
        orders_lost: host.heard.as_ref().map(|heard| heard.high.0.saturating_sub(host.allocated.0)),
        is_ahead: is_ahead(host.heard.as_ref()),
        is_taken_up: host.adopted_at.is_some(),
    };
    Ok(RecoveryStatus {
        stage: stage_word(recovery.stage(&root)).to_owned(),
        restored_at: Some(recovery.restored_at.into()),
        backup_made_at: Some(recovery.backup_made_at.into()),
        confirmed_at: recovery.confirmed_at.map(Into::into),
        log_before: Some(LogPosition { log: before.log, size: before.size, root: before.root }),
        hosts: known.iter().filter(|host| !host.is_revoked).map(line).collect(),
        claims: claims.iter().filter(|claim| claim.is_open()).map(|it| claim(it, is_ahead(Some(&it.heard)))).collect(),
        revoked,
    })
}

fn claim(claim: &Claim, is_ahead: bool) -> RecoveryClaim {
    let shown = &claim.presented;
    RecoveryClaim {
        host_id: shown.host,
        name: shown.name.clone(),
        known_host_epoch: shown.on_record.map(|epoch| epoch.0),
        host_epoch: shown.host_epoch.0,
        key_id: key_id(&shown.identity_key).to_string(),
        enrolled_at: shown.enrolled_at.into(),
        first_heard_at: claim.first_at.into(),
        heard_at: claim.heard.at.into(),
        is_receipted: shown.is_receipted,
        is_by_dropped_key: shown.is_by_dropped_key,
        is_ahead,
    }
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
        RecoveryStage::Gathering => return Err(gathering()),
    }
    let claims = shared.store.recovery_claims(None).await?;
    let open: Vec<_> =
        claims.iter().filter(|claim| claim.is_open()).map(|claim| claim.presented.name.as_str()).collect();
    if !open.is_empty() {
        let (names, more) =
            (open.iter().take(limits::RECOVERY_CLAIMS_NAMED_MAX).copied().collect::<Vec<_>>().join(", "), open.len());
        let detail = format!(
            "{more} hosts that the backup does not know, or knows by older keys, wait to be taken back or refused ({names}): \
             `serverflow recovery take NAME` or `serverflow recovery refuse NAME`"
        );
        return Err(ApiError::new(Kind::Recovering, detail));
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

/// Takes hosts back by what they showed, or refuses them: each in a transaction of its own. Cut in between, it is repeated.
pub(super) async fn decide(
    State(shared): State<Arc<Shared>>,
    Actor(actor): Actor,
    JsonBody(RecoveryClaimsRequest { take, refuse }): JsonBody<RecoveryClaimsRequest>,
) -> Result<Json<RecoveryStatus>, ApiError> {
    let recovery =
        shared.store.recovery().await?.ok_or_else(|| nothing_to_confirm("was never restored from a backup"))?;
    if recovery.stage(&shared.root()) == RecoveryStage::Gathering {
        return Err(gathering());
    }
    if take.len() + refuse.len() > limits::RECOVERY_REVOKE_MAX {
        return Err(ApiError::field("take", format!("at most {} hosts at a time", limits::RECOVERY_REVOKE_MAX)));
    }
    // All of them wait before the first is decided on.
    let claims = shared.store.recovery_claims(None).await?;
    let found = |wanted: &[RecoveryClaimRef]| wanted.iter().map(|it| find(&claims, it)).collect::<Result<Vec<_>, _>>();
    let (take, refuse) = (found(&take)?, found(&refuse)?);
    for claim in refuse {
        let write = recovery::refused(claim, &shared.root(), actor.audit_name(), shared.now());
        decided(&shared, &actor, claim, write).await?;
    }
    for claim in take {
        let record = match claim.presented.on_record {
            Some(_) => shared.store.host(claim.presented.host).await?,
            None => None,
        };
        let write = recovery::taken(claim, record.as_ref(), &shared.root(), actor.audit_name(), shared.now());
        decided(&shared, &actor, claim, write).await?;
    }
    shown(&shared).await.map(Json)
}

/// The claim that somebody has seen, if it is still the one.
fn find<'a>(claims: &'a [Claim], wanted: &RecoveryClaimRef) -> Result<&'a Claim, ApiError> {
    let is_it = |claim: &&Claim| {
        let shown = &claim.presented;
        claim.is_open() && shown.host == wanted.host_id && key_id(&shown.identity_key).to_string() == wanted.key_id
    };
    claims.iter().find(is_it).ok_or_else(|| {
        let detail = format!(
            "host {} does not wait to be taken back with the key {}; look at `serverflow recovery status` again",
            wanted.host_id, wanted.key_id
        );
        ApiError::new(Kind::Changed, detail)
    })
}

async fn decided(
    shared: &Shared,
    actor: &::fleet::model::Principal,
    claim: &Claim,
    write: Result<RecoveryWrite, NotTaken>,
) -> Result<(), ApiError> {
    let write = write.map_err(|error| ApiError::new(Kind::Changed, error.to_string()))?;
    let write = access::by(shared, actor, Write::Recovery(Box::new(write)));
    let (store, notifier, id) = (shared.store.clone(), shared.notifier.clone(), claim.presented.host);
    let written = to_the_end(async move {
        let written = store.write(write).await;
        // Whoever speaks as this host begins anew.
        notifier.host_changed(id, HostChange::Renamed);
        notifier.publish(Event::Host { host: id });
        written
    });
    written.await?;
    Ok(())
}

fn gathering() -> ApiError {
    let detail =
        "root metadata of after the restore is not in force yet: make it with `serverflow root propose --restored`";
    ApiError::new(Kind::Recovering, detail)
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
