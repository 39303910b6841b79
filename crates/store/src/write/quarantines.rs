//! Hosts in quarantine: how they come into it, what their agents say of it, and who ends it.

use envelope::audit::AuditKind;
use fleet::{
    model::QuarantineSeen,
    ports::{AuditEntry, Released, Written},
};
use ids::{HostId, QuarantineId};

use super::{Transaction, unknown};
use crate::{
    fault::Failure,
    limits,
    rows::{Fields, int},
};

pub(super) async fn enter(
    t: &mut Transaction<'_>,
    host: HostId,
    why: &str,
    audit: &AuditEntry,
) -> Result<Written, Failure> {
    let update = sqlx::query(
        "UPDATE hosts SET quarantine_why = $1, quarantined_at = $2, quarantine_is_alarm = ($3 OR (quarantine_why IS NOT NULL AND quarantine_is_alarm)), quarantine_is_told = 0, \
         quarantine_release = NULL WHERE id = $4 AND revoked_at IS NULL",
    )
    .bind(why)
    .bind(int(audit.time.0)?)
    .bind(audit.kind == AuditKind::Alarm)
    .bind(&host.as_bytes()[..]);
    if t.run("quarantining a host", update).await? == 0 {
        return Err(Failure::conflict(format!("host {host} is not known, or was revoked")));
    }
    Ok(Written::Done)
}

pub(super) async fn seen(t: &mut Transaction<'_>, host: HostId, seen: &QuarantineSeen) -> Result<Written, Failure> {
    let number = number(t, host).await?;
    let put = sqlx::query(
        "INSERT OR REPLACE INTO host_quarantines (host, id, seen_at, boot, host_epoch, protocol, high, report_sequence) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
    )
    .bind(number)
    .bind(&seen.id.as_bytes()[..])
    .bind(int(seen.at.0)?)
    .bind(&seen.boot.as_bytes()[..])
    .bind(int(seen.host_epoch.0)?)
    .bind(i64::from(seen.protocol))
    .bind(int(seen.high.0)?)
    .bind(int(seen.last_report.0)?);
    t.run("storing a quarantine of an agent", put).await?;
    let forget = sqlx::query(
        "DELETE FROM host_quarantines WHERE host = $1 AND id NOT IN \
         (SELECT id FROM host_quarantines WHERE host = $1 ORDER BY seen_at DESC, id LIMIT $2)",
    );
    t.run("forgetting old quarantines", forget.bind(number).bind(limits::QUARANTINES_SEEN_MAX)).await?;
    Ok(Written::Done)
}

async fn number(t: &mut Transaction<'_>, host: HostId) -> Result<i64, Failure> {
    let select = sqlx::query("SELECT number FROM hosts WHERE id = $1").bind(&host.as_bytes()[..]);
    let row = t.row("looking for a host", select).await?.ok_or_else(|| unknown("host", host))?;
    Ok(Fields::of(&row, "the hosts").get()?)
}

pub(super) async fn release(
    t: &mut Transaction<'_>,
    host: HostId,
    quarantine: Option<QuarantineId>,
) -> Result<Written, Failure> {
    let number = number(t, host).await?;
    let is_quarantined = "quarantine_why IS NOT NULL AND revoked_at IS NULL";
    if let Some(quarantine) = quarantine {
        let select = sqlx::query(
            "SELECT q.host_epoch = h.host_epoch FROM host_quarantines q JOIN hosts h ON h.number = q.host \
             WHERE q.host = $1 AND q.id = $2",
        );
        let row = t.row("looking for a quarantine", select.bind(number).bind(&quarantine.as_bytes()[..])).await?;
        let has_keys: Option<bool> = row.map(|row| Fields::of(&row, "the hosts' quarantines").get()).transpose()?;
        match has_keys {
            Some(true) => {}
            Some(false) => {
                return Err(Failure::conflict(format!(
                    "the state of the agent in quarantine {quarantine} is from before its host's keys were rotated, so it \
                     does not have the keys on record; revoke the host and enrol the machine anew"
                )));
            }
            None => return Err(Failure::conflict(format!("no agent of host {host} is in quarantine {quarantine}"))),
        }
    }
    let update = match quarantine {
        Some(_) => format!("UPDATE hosts SET quarantine_release = $1 WHERE number = $2 AND {is_quarantined}"),
        None => format!(
            "UPDATE hosts SET quarantine_is_told = 1, quarantine_release = $1 WHERE number = $2 AND {is_quarantined}"
        ),
    };
    let release = quarantine.map(|id| id.as_bytes().to_vec());
    let update = sqlx::query(sqlx::AssertSqlSafe(update)).bind(release).bind(number);
    match t.run("releasing a host", update).await? {
        0 => Err(Failure::conflict(format!("host {host} is not quarantined"))),
        _ => Ok(Written::Done),
    }
}

/// The rotation that answers a guard reset: the host takes orders again. Which quarantine it was stays until the new keys
/// were used, for an agent that has not heard of it.
pub(super) async fn released(t: &mut Transaction<'_>, number: i64, released: &Released) -> Result<(), Failure> {
    let state = sqlx::query(
        "UPDATE host_state SET allocated = $1 WHERE host = $2 AND allocated <= $1 \
         AND report_sequence = $3 AND report_sha256 = $4",
    )
    .bind(int(released.high.0)?)
    .bind(number)
    .bind(int(released.last_report.sequence.0)?)
    .bind(&released.last_report.sha256.0[..]);
    if t.run("using up a host's sequences", state).await? == 0 {
        return Err(Failure::conflict("the host's reports went on since its reset was signed".to_owned()));
    }
    let host = sqlx::query(
        "UPDATE hosts SET quarantine_why = NULL, quarantined_at = NULL, quarantine_is_alarm = 0, quarantine_is_told = 0, \
         boots = $2 WHERE number = $1 AND quarantine_why IS NOT NULL",
    );
    let boots = crate::codes::boots_encode(&[]);
    if t.run("releasing a host", host.bind(number).bind(boots)).await? == 0 {
        return Err(Failure::conflict("the host is not quarantined any more".to_owned()));
    }
    let forget = sqlx::query("DELETE FROM host_quarantines WHERE host = $1").bind(number);
    t.run("forgetting quarantines", forget).await?;
    Ok(())
}
