//! The recovery after a restore from a backup.

use fleet::{
    ports::{StoreError, Written},
    recovery::{Heard, Recovery, RecoveryWrite},
};
use ids::HostId;

use super::{Transaction, claims, unknown};
use crate::{
    fault::Failure,
    rows::{Fields, int},
};

pub(super) async fn change(t: &mut Transaction<'_>, write: &RecoveryWrite) -> Result<Written, Failure> {
    match write {
        RecoveryWrite::Restored { recovery, .. } => restored(t, recovery).await,
        RecoveryWrite::Heard { host, heard } => said(t, *host, heard, None).await,
        RecoveryWrite::Adopted { host, heard, .. } => adopted(t, *host, heard).await,
        RecoveryWrite::Claimed { claim, .. } => claims::claimed(t, claim).await,
        RecoveryWrite::Taken(taken) => claims::taken(t, taken).await,
        RecoveryWrite::Refused(refused) => claims::refused(t, refused).await,
        RecoveryWrite::Confirmed { at, .. } => {
            claims::require_none_open(t).await?;
            let update = sqlx::query(
                "UPDATE recoveries SET confirmed_at = $1 WHERE confirmed_at IS NULL \
                 AND number = (SELECT MAX(number) FROM recoveries)",
            );
            match t.run("confirming a restore", update.bind(int(at.0)?)).await? {
                0 => Err(Failure::conflict("there is no restore that waits to be confirmed")),
                _ => Ok(Written::Done),
            }
        }
    }
}

/// Whether orders, join tokens and new hosts have to wait for a restore to be confirmed.
pub(super) async fn require_none(t: &mut Transaction<'_>) -> Result<(), Failure> {
    let open = sqlx::query("SELECT 1 FROM recoveries WHERE confirmed_at IS NULL LIMIT 1");
    match t.row("looking for a restore", open).await? {
        Some(_) => Err(Failure::Refused(StoreError::Recovering)),
        None => Ok(()),
    }
}

async fn restored(t: &mut Transaction<'_>, recovery: &Recovery) -> Result<Written, Failure> {
    let at = int(recovery.restored_at.0)?;
    // Whoever was signed in when the backup was made may have been shut out since.
    t.run("ending sign-ins", sqlx::query("DELETE FROM user_sessions")).await?;
    let tokens = sqlx::query("UPDATE api_tokens SET revoked_at = $1 WHERE revoked_at IS NULL").bind(at);
    t.run("ending API tokens", tokens).await?;
    // A token that is unspent here may have been spent since.
    let joins = sqlx::query("UPDATE join_tokens SET expires = MIN(expires, $1) WHERE spent_by IS NULL").bind(at);
    t.run("ending join tokens", joins).await?;
    t.run("forgetting an earlier restore's hosts", sqlx::query("DELETE FROM recovery_hosts")).await?;
    // What hosts brought then is to be brought anew.
    t.run("forgetting what hosts brought", sqlx::query("DELETE FROM recovery_claims")).await?;
    // One that was restored before and never confirmed is now this restore.
    let earlier = sqlx::query("UPDATE recoveries SET confirmed_at = $1 WHERE confirmed_at IS NULL").bind(at);
    t.run("ending an earlier restore", earlier).await?;
    let hosts = sqlx::query(
        "INSERT INTO recovery_hosts (host, allocated) SELECT h.number, s.allocated FROM hosts h \
         JOIN host_state s ON s.host = h.number WHERE h.revoked_at IS NULL",
    );
    t.run("noting the hosts", hosts).await?;
    let insert = sqlx::query(
        "INSERT INTO recoveries (restored_at, backup_made_at, log, log_size, log_root) VALUES ($1, $2, $3, $4, $5)",
    )
    .bind(at)
    .bind(int(recovery.backup_made_at.0)?)
    .bind(&recovery.log.log.as_bytes()[..])
    .bind(int(recovery.log.size)?)
    .bind(&recovery.log.root.0[..]);
    t.run("noting a restore", insert).await?;
    Ok(Written::Done)
}

/// Stores what a host said; `adopted` is set only where it was not.
async fn said(t: &mut Transaction<'_>, host: HostId, heard: &Heard, adopted: Option<i64>) -> Result<Written, Failure> {
    let head = heard.head;
    let update = sqlx::query(
        "UPDATE recovery_hosts SET heard_at = $1, high = $2, report_sequence = $3, report_sha256 = $4, head_log = $5, \
         head_size = $6, head_root = $7, adopted_at = $8 \
         WHERE host = (SELECT number FROM hosts WHERE id = $9) AND adopted_at IS NULL",
    )
    .bind(int(heard.at.0)?)
    .bind(int(heard.high.0)?)
    .bind(int(heard.last_report.sequence.0)?)
    .bind(&heard.last_report.sha256.0[..])
    .bind(head.map(|head| head.log.as_bytes().to_vec()))
    .bind(head.map(|head| int(head.size)).transpose()?)
    .bind(head.map(|head| head.root.0.to_vec()))
    .bind(adopted)
    .bind(&host.as_bytes()[..]);
    match t.run("noting what a host said", update).await? {
        0 => Err(Failure::conflict(format!("host {host} does not wait for a restore any more"))),
        _ => Ok(Written::Done),
    }
}

async fn adopted(t: &mut Transaction<'_>, host: HostId, heard: &Heard) -> Result<Written, Failure> {
    said(t, host, heard, Some(int(heard.at.0)?)).await?;
    let update = sqlx::query(
        "UPDATE host_state SET allocated = MAX(allocated, $1) WHERE host = (SELECT number FROM hosts WHERE id = $2) \
         RETURNING allocated",
    );
    let row = t.row("raising a host's numbers", update.bind(int(heard.high.0)?).bind(&host.as_bytes()[..])).await?;
    let row = row.ok_or_else(|| unknown("host", host))?;
    Fields::of(&row, "the hosts' states").number()?;
    Ok(Written::Done)
}
