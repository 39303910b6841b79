//! Rotations of hosts' keys.

use fleet::ports::{HostKeyRotation, Written};
use ids::{HostEpoch, HostId, ReportSequence};

use super::{Transaction, quarantines, unknown};
use crate::{
    fault::Failure,
    rows::{Fields, int},
};

pub(super) async fn rotate(t: &mut Transaction<'_>, rotation: &HostKeyRotation) -> Result<Written, Failure> {
    let host = rotation.host;
    let select = sqlx::query("SELECT number, host_epoch FROM hosts WHERE id = $1 AND revoked_at IS NULL");
    let row = t.row("looking for a host", select.bind(&host.as_bytes()[..])).await?;
    let row = row.ok_or_else(|| Failure::conflict(format!("host {host} is not known, or was revoked")))?;
    let mut fields = Fields::of(&row, "the hosts");
    let (number, epoch): (i64, u64) = (fields.get()?, fields.number()?);
    if epoch != rotation.was.0 {
        return Err(Failure::conflict(format!("the keys of host {host} were changed meanwhile (epoch {epoch})")));
    }
    let key = &rotation.identity_key.0[..];
    let taken = sqlx::query(
        "SELECT 1 FROM hosts WHERE identity_key = $1 UNION ALL SELECT 1 FROM host_keys WHERE identity_key = $1",
    );
    if t.row("looking for an identity key", taken.bind(key)).await?.is_some() {
        return Err(Failure::conflict(format!("the identity key that host {host} offers has been a host's before")));
    }
    let keep = sqlx::query(
        "INSERT INTO host_keys (host, host_epoch, identity_key, sealing_key, replaced_at, rotation) \
         SELECT number, host_epoch, identity_key, sealing_key, $2, $3 FROM hosts WHERE number = $1",
    );
    let keep = keep.bind(number).bind(int(rotation.audit.time.0)?).bind(&rotation.rotation[..]);
    t.run("keeping a host's old keys", keep).await?;
    let update = sqlx::query("UPDATE hosts SET host_epoch = $1, identity_key = $2, sealing_key = $3 WHERE number = $4")
        .bind(int(rotation.host_epoch.0)?)
        .bind(key)
        .bind(&rotation.sealing_key.0[..])
        .bind(number);
    t.run("storing a host's new keys", update).await?;
    if let Some(released) = &rotation.released {
        quarantines::released(t, number, released).await?;
    }
    Ok(Written::Done)
}

pub(super) async fn retire(
    t: &mut Transaction<'_>,
    host: HostId,
    before: HostEpoch,
    last_report: ReportSequence,
) -> Result<Written, Failure> {
    let update = sqlx::query(
        "UPDATE host_keys SET last_report = $1 \
         WHERE host = (SELECT number FROM hosts WHERE id = $2) AND host_epoch < $3 AND last_report IS NULL",
    )
    .bind(int(last_report.0)?)
    .bind(&host.as_bytes()[..])
    .bind(int(before.0)?);
    if t.run("retiring a host's old keys", update).await? == 0 {
        return Err(unknown("former key of host", host));
    }
    let forget = sqlx::query("UPDATE hosts SET quarantine_release = NULL WHERE id = $1 AND quarantine_why IS NULL");
    t.run("forgetting a release", forget.bind(&host.as_bytes()[..])).await?;
    Ok(Written::Done)
}
