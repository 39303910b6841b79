//! What is ordered about standing orders.

use fleet::{
    limits::STANDING_PER_HOST_MAX,
    model::Operation,
    ports::{NewStanding, SignedStanding, StandingProposal, Written},
};
use ids::{Revision, StandingOrderId, UnixMs};

use super::{Transaction, operations, unknown};
use crate::{
    cipher::Place,
    fault::Failure,
    rows::{Fields, int},
};

/// A step whose command succeeded on its host.
const IS_DONE: &str =
    "EXISTS (SELECT 1 FROM commands c WHERE c.operation = st.operation AND c.status = 'succeeded' AND NOT c.dry_run)";

/// The operation and what is kept beside it, or nothing.
pub(super) async fn propose(t: &mut Transaction<'_>, proposal: &StandingProposal) -> Result<Written, Failure> {
    let StandingProposal { host, order, kind, new, sealed, last, operation, commands, at, .. } = proposal;
    let written = operations::propose(t, operation, commands, None).await?;
    if written != Written::Done {
        return Ok(written);
    }
    let select = sqlx::query("SELECT number FROM hosts WHERE id = $1 AND revoked_at IS NULL");
    let row = t.row("looking for a host", select.bind(host.as_bytes().to_vec())).await?;
    let host_number: i64 = Fields::of(&row.ok_or_else(|| unknown("host", host))?, "the hosts").get()?;
    if let Some(sealed) = sealed {
        revision_raise(t, host_number, sealed).await?;
    }
    if let Some(new) = new {
        make_room(t, host_number).await?;
        insert(t, *order, host_number, new, operation, *at).await?;
    }
    let Some(standing) = number_of(t, *order, host_number).await? else {
        // Only the end of an order that is not on record here: the host may have it all the same.
        return if sealed.is_none() { Ok(Written::Done) } else { Err(unknown("standing order", order)) };
    };
    if new.is_none() {
        nothing_came_between(t, standing, *last, sealed.is_some()).await?;
    }
    forget_steps(t, standing).await?;
    step(t, standing, kind.as_str(), operation, sealed.as_ref(), *at).await?;
    Ok(Written::Done)
}

/// Numbers only rise: two that were signed at the same time cannot both be stored.
async fn revision_raise(t: &mut Transaction<'_>, host: i64, sealed: &SignedStanding) -> Result<(), Failure> {
    let revision = int(sealed.seal.revision.0)?;
    let raise = sqlx::query(
        "INSERT INTO standing_revisions (host, revision) VALUES ($1, $2) \
         ON CONFLICT (host) DO UPDATE SET revision = excluded.revision WHERE excluded.revision > revision",
    );
    if t.run("giving out a revision", raise.bind(host).bind(revision)).await? == 0 {
        return Err(Failure::conflict(format!(
            "revision {revision} of the host's standing orders, or a higher one, was given out meanwhile"
        )));
    }
    Ok(())
}

/// What ends an order names all that was signed of it, and nothing is signed of one that ends.
async fn nothing_came_between(
    t: &mut Transaction<'_>,
    standing: i64,
    last: Revision,
    is_signed: bool,
) -> Result<(), Failure> {
    let select = sqlx::query(
        "SELECT 1 FROM standing_steps st JOIN commands c ON c.operation = st.operation \
         WHERE st.standing = $1 AND (st.revision > $2 \
         OR ($3 AND st.kind = 'drop' AND (c.settled_at IS NULL OR c.status = 'succeeded'))) LIMIT 1",
    );
    let row =
        t.row("looking at a standing order's steps", select.bind(standing).bind(int(last.0)?).bind(is_signed)).await?;
    if row.is_some() {
        return Err(Failure::conflict("the standing order was signed anew meanwhile, or is being dropped".to_owned()));
    }
    Ok(())
}

/// Those that ended give way when there are as many as may be.
async fn make_room(t: &mut Transaction<'_>, host: i64) -> Result<(), Failure> {
    let most = i64::try_from(STANDING_PER_HOST_MAX).unwrap_or(i64::MAX);
    if count(t, host).await? < most {
        return Ok(());
    }
    let is_open = "EXISTS (SELECT 1 FROM standing_steps st JOIN commands c ON c.operation = st.operation \
                   WHERE st.standing = o.number AND c.settled_at IS NULL)";
    let ended = format!(
        "SELECT o.number FROM standing_orders o WHERE o.host = ?1 AND NOT {is_open} AND \
         (EXISTS (SELECT 1 FROM standing_steps st WHERE st.standing = o.number AND st.kind = 'drop' AND {IS_DONE}) \
         OR NOT EXISTS (SELECT 1 FROM standing_steps st WHERE st.standing = o.number AND {IS_DONE}))"
    );
    let steps = format!("DELETE FROM standing_steps WHERE standing IN ({ended})");
    let orders = "DELETE FROM standing_orders WHERE host = ?1 \
                  AND NOT EXISTS (SELECT 1 FROM standing_steps st WHERE st.standing = standing_orders.number)";
    // A text of this program alone.
    t.run("forgetting their steps", sqlx::query(sqlx::AssertSqlSafe(steps)).bind(host)).await?;
    t.run("forgetting standing orders that ended", sqlx::query(orders).bind(host)).await?;
    if count(t, host).await? < most {
        return Ok(());
    }
    Err(Failure::conflict(format!(
        "the host has {most} standing orders, which is the most; drop one with `serverflow standing drop`"
    )))
}

async fn count(t: &mut Transaction<'_>, host: i64) -> Result<i64, Failure> {
    let select = sqlx::query("SELECT count(*) FROM standing_orders WHERE host = $1").bind(host);
    let row = t.row("counting standing orders", select).await?.ok_or_else(|| unknown("host", host))?;
    Ok(Fields::of(&row, "the standing orders").get()?)
}

async fn insert(
    t: &mut Transaction<'_>,
    order: StandingOrderId,
    host: i64,
    new: &NewStanding,
    operation: &Operation,
    at: UnixMs,
) -> Result<(), Failure> {
    let insert = sqlx::query(
        "INSERT INTO standing_orders (id, host, action, action_version, schedule, zone, valid_until, alone_for_ms, \
         requested_by, created_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
    )
    .bind(order.as_bytes().to_vec())
    .bind(host)
    .bind(new.action.as_str())
    .bind(i64::from(new.action_version))
    .bind(new.schedule.as_str())
    .bind(new.zone.as_str())
    .bind(int(new.valid_until.0)?)
    .bind(int(new.alone_for.0)?)
    .bind(operation.requested_by.as_str())
    .bind(int(at.0)?);
    t.run("storing a standing order", insert).await?;
    Ok(())
}

async fn number_of(t: &mut Transaction<'_>, order: StandingOrderId, host: i64) -> Result<Option<i64>, Failure> {
    let select = sqlx::query("SELECT number FROM standing_orders WHERE id = $1 AND host = $2");
    let row = t.row("looking for a standing order", select.bind(order.as_bytes().to_vec()).bind(host)).await?;
    Ok(row.map(|row| Fields::of(&row, "the standing orders").get()).transpose()?)
}

/// What came before the last signature that the host has taken says nothing any more.
async fn forget_steps(t: &mut Transaction<'_>, standing: i64) -> Result<(), Failure> {
    let text = format!(
        "DELETE FROM standing_steps WHERE standing = ?1 AND number < \
         (SELECT max(st.number) FROM standing_steps st WHERE st.standing = ?1 AND st.envelope IS NOT NULL AND {IS_DONE})"
    );
    t.run("forgetting steps of a standing order", sqlx::query(sqlx::AssertSqlSafe(text)).bind(standing)).await?;
    Ok(())
}

async fn step(
    t: &mut Transaction<'_>,
    standing: i64,
    kind: &'static str,
    operation: &Operation,
    sealed: Option<&SignedStanding>,
    at: UnixMs,
) -> Result<(), Failure> {
    let last = sqlx::query("SELECT COALESCE(MAX(number), 0) FROM standing_steps");
    let row = t.row("numbering a step", last).await?.ok_or_else(|| unknown("step", standing))?;
    let number = Fields::of(&row, "the steps").get::<i64>()? + 1;
    let envelope =
        sealed.map(|sealed| t.cipher.seal(Place::STANDING_ENVELOPE, number, &sealed.envelope)).transpose()?;
    let seal = sealed.map(|sealed| sealed.seal);
    let insert = sqlx::query(
        "INSERT INTO standing_steps (number, standing, kind, operation, at, revision, key, host_epoch, epoch, envelope) \
         VALUES ($1, $2, $3, (SELECT number FROM operations WHERE id = $4), $5, $6, $7, $8, $9, $10)",
    )
    .bind(number)
    .bind(standing)
    .bind(kind)
    .bind(operation.id.as_bytes().to_vec())
    .bind(int(at.0)?)
    .bind(seal.map(|seal| int(seal.revision.0)).transpose()?)
    .bind(seal.map(|seal| seal.key.as_bytes().to_vec()))
    .bind(seal.map(|seal| int(seal.host_epoch.0)).transpose()?)
    .bind(seal.map(|seal| int(seal.epoch.0)).transpose()?)
    .bind(envelope);
    t.run("storing a step of a standing order", insert).await?;
    Ok(())
}
