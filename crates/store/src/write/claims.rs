//! Hosts that a restored control plane knows by what they brought, and what becomes of them.

use fleet::{
    limits::RECOVERY_CLAIMS_MAX,
    ports::Written,
    recovery::{Claim, RefusedHost, TakenHost},
};
use ids::HostId;

use super::{Transaction, host_keys, hosts};
use crate::{
    fault::Failure,
    rows::{Fields, int, named_encode},
};

/// In place of what the host brought before.
pub(super) async fn claimed(t: &mut Transaction<'_>, claim: &Claim) -> Result<Written, Failure> {
    let shown = &claim.presented;
    if shown.on_record.is_none() {
        let known = sqlx::query("SELECT 1 FROM hosts WHERE id = $1").bind(&shown.host.as_bytes()[..]);
        if t.row("looking for a host", known).await?.is_some() {
            return Err(Failure::conflict(format!("host {} is known by now", shown.host)));
        }
    }
    forget(t, shown.host).await?;
    let count = t.row("counting what hosts brought", sqlx::query("SELECT count(*) FROM recovery_claims")).await?;
    let count = count.map(|row| Fields::of(&row, "what hosts brought").number()).transpose()?.unwrap_or_default();
    if count >= RECOVERY_CLAIMS_MAX {
        return Err(Failure::conflict(format!(
            "{RECOVERY_CLAIMS_MAX} hosts wait already to be taken back or refused; no more are noted"
        )));
    }
    let rotations = named_encode(shown.rotations.iter().map(|rotation| ("", rotation.as_slice())));
    let head = claim.heard.head;
    let insert = sqlx::query(
        "INSERT INTO recovery_claims (host, name, enrolled_at, receipt, rotations, on_record, host_epoch, identity_key, \
         is_receipted, is_by_dropped_key, first_at, heard_at, high, report_sequence, report_sha256, head_log, head_size, \
         head_root) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18)",
    )
    .bind(&shown.host.as_bytes()[..])
    .bind(shown.name.as_str())
    .bind(int(shown.enrolled_at.0)?)
    .bind(&shown.receipt[..])
    .bind(rotations)
    .bind(shown.on_record.map(|epoch| int(epoch.0)).transpose()?)
    .bind(int(shown.host_epoch.0)?)
    .bind(&shown.identity_key.0[..])
    .bind(shown.is_receipted)
    .bind(shown.is_by_dropped_key)
    .bind(int(claim.first_at.0)?)
    .bind(int(claim.heard.at.0)?)
    .bind(int(claim.heard.high.0)?)
    .bind(int(claim.heard.last_report.sequence.0)?)
    .bind(&claim.heard.last_report.sha256.0[..])
    .bind(head.map(|head| head.log.as_bytes().to_vec()))
    .bind(head.map(|head| int(head.size)).transpose()?)
    .bind(head.map(|head| head.root.0.to_vec()));
    t.run("noting what a host brought", insert).await?;
    Ok(Written::Done)
}

async fn forget(t: &mut Transaction<'_>, host: HostId) -> Result<u64, Failure> {
    let delete = sqlx::query("DELETE FROM recovery_claims WHERE host = $1").bind(&host.as_bytes()[..]);
    t.run("forgetting what a host brought", delete).await
}

async fn require_open(t: &mut Transaction<'_>, host: HostId) -> Result<(), Failure> {
    let open = sqlx::query("SELECT 1 FROM recovery_claims WHERE host = $1 AND refused_at IS NULL");
    match t.row("looking for what a host brought", open.bind(&host.as_bytes()[..])).await? {
        Some(_) => Ok(()),
        None => Err(Failure::conflict(format!("host {host} does not wait to be taken back or refused any more"))),
    }
}

/// Nothing is confirmed while somebody has still to say what becomes of a host.
pub(super) async fn require_none_open(t: &mut Transaction<'_>) -> Result<(), Failure> {
    let open = sqlx::query("SELECT 1 FROM recovery_claims WHERE refused_at IS NULL LIMIT 1");
    match t.row("looking for what hosts brought", open).await? {
        Some(_) => Err(Failure::conflict(
            "hosts that the backup does not know, or knows by older keys, wait to be taken back or refused: see \
             `serverflow recovery status`, then `serverflow recovery take` or `serverflow recovery refuse`",
        )),
        None => Ok(()),
    }
}

pub(super) async fn taken(t: &mut Transaction<'_>, taken: &TakenHost) -> Result<Written, Failure> {
    require_open(t, taken.host).await?;
    if let Some(host) = &taken.new {
        hosts::require_free(t, host.name.as_str()).await?;
        hosts::insert(t, host).await?;
    }
    for rotation in &taken.rotations {
        host_keys::rotate(t, rotation).await?;
    }
    // It is taken up anew where it says that it stands, whoever spoke as it before.
    let note = sqlx::query(
        "INSERT INTO recovery_hosts (host, allocated) SELECT h.number, s.allocated FROM hosts h \
         JOIN host_state s ON s.host = h.number WHERE h.id = $1 \
         ON CONFLICT (host) DO UPDATE SET adopted_at = NULL, heard_at = NULL",
    );
    t.run("noting a host", note.bind(&taken.host.as_bytes()[..])).await?;
    forget(t, taken.host).await?;
    Ok(Written::Done)
}

pub(super) async fn refused(t: &mut Transaction<'_>, refused: &RefusedHost) -> Result<Written, Failure> {
    require_open(t, refused.host).await?;
    match &refused.tombstone {
        Some(host) => {
            hosts::insert(t, host).await?;
            forget(t, refused.host).await?;
        }
        None => {
            let update = sqlx::query("UPDATE recovery_claims SET refused_at = $1 WHERE host = $2");
            let update = update.bind(int(refused.at.0)?).bind(&refused.host.as_bytes()[..]);
            t.run("refusing what a host brought", update).await?;
        }
    }
    Ok(Written::Done)
}
