//! Hosts and the tokens they come by.

use fleet::{
    command::CommandEvent,
    limits::LABELS_PER_HOST_MAX,
    model::{CommandStatus, Host, HostStanding, JoinTokenRecord},
    ports::{HostEdit, StoreError, Written},
};
use ids::{BootId, HostId, RootVersion, Sha256, TokenId, UnixMs};
use session::frames::ActionRef;
use subtle::ConstantTimeEq as _;

use super::{Transaction, restores, unknown};
use crate::{
    cipher::Place,
    codes,
    fault::Failure,
    rows::{Fields, int, roles_text},
};

pub(super) async fn token_create(t: &mut Transaction<'_>, token: &JoinTokenRecord) -> Result<Written, Failure> {
    restores::require_none(t).await?;
    require_free(t, token.host_name.as_str()).await?;
    let insert = sqlx::query(
        "INSERT INTO join_tokens (id, secret_sha256, host_name, roles, created_by, created_at, expires) \
         VALUES ($1, $2, $3, $4, $5, $6, $7)",
    )
    .bind(&token.id.as_bytes()[..])
    .bind(&token.secret_sha256.0[..])
    .bind(token.host_name.as_str())
    .bind(roles_text(&token.roles))
    .bind(token.created_by.as_str())
    .bind(int(token.created_at.0)?)
    .bind(int(token.expires.0)?);
    t.run("storing a join token", insert).await?;
    Ok(Written::Done)
}

/// Whether no host that is not revoked has that name.
pub(super) async fn require_free(t: &mut Transaction<'_>, name: &str) -> Result<(), Failure> {
    let taken = sqlx::query("SELECT 1 FROM hosts WHERE name = $1 AND revoked_at IS NULL").bind(name);
    match t.row("looking for the host's name", taken).await? {
        Some(_) => Err(name_taken(name)),
        None => Ok(()),
    }
}

fn name_taken(name: &str) -> Failure {
    Failure::conflict(format!(
        "a host named {name} exists; choose another name, or revoke that host first with `serverflow host revoke {name}`"
    ))
}

pub(super) async fn enrol(
    t: &mut Transaction<'_>,
    token: TokenId,
    secret_sha256: Sha256,
    now: UnixMs,
    host: &Host,
) -> Result<Written, Failure> {
    restores::require_none(t).await?;
    let select = sqlx::query(
        "SELECT secret_sha256, host_name, roles, expires, spent_by IS NOT NULL FROM join_tokens WHERE id = $1",
    )
    .bind(&token.as_bytes()[..]);
    let row = t.row("looking for a join token", select).await?;
    let mut good = false;
    if let Some(row) = &row {
        let mut fields = Fields::of(row, "the join tokens");
        // No check ends early: how long a refusal takes says nothing about the secret.
        let secret = fields.hash()?.0.ct_eq(&secret_sha256.0);
        let name: &str = fields.get()?;
        let (roles, expires, spent) = (fields.roles()?, fields.time()?, fields.get::<bool>()?);
        let fits = name == host.name.as_str() && roles == host.roles && now < expires && !spent;
        good = bool::from(secret) & fits;
    }
    if !good {
        return Err(Failure::Refused(StoreError::TokenRefused));
    }
    require_free(t, host.name.as_str()).await?;
    let burn = sqlx::query("UPDATE join_tokens SET spent_by = $1 WHERE id = $2 AND spent_by IS NULL")
        .bind(&host.id.as_bytes()[..])
        .bind(&token.as_bytes()[..]);
    t.run("spending a join token", burn).await?;
    insert(t, host).await?;
    Ok(Written::Done)
}

pub(super) async fn insert(t: &mut Transaction<'_>, host: &Host) -> Result<(), Failure> {
    let (quarantine_why, revoked_at) = match &host.standing {
        HostStanding::Active => (None, None),
        HostStanding::Quarantined { why } => (Some(why.as_str()), None),
        HostStanding::Revoked { at, .. } => (None, Some(int(at.0)?)),
    };
    let statement = sqlx::query(
        "INSERT INTO hosts (id, name, roles, identity_key, sealing_key, host_epoch, quarantine_why, revoked_at, boots, \
         actions, agent_version, root_version, enrolled_at, last_seen, receipt) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)",
    )
    .bind(&host.id.as_bytes()[..])
    .bind(host.name.as_str())
    .bind(roles_text(&host.roles))
    .bind(&host.identity_key.0[..])
    .bind(&host.sealing_key.0[..])
    .bind(int(host.host_epoch.0)?)
    .bind(quarantine_why)
    .bind(revoked_at)
    .bind(codes::boots_encode(&host.boots))
    .bind(codes::actions_encode(&host.actions))
    .bind(host.agent_version.as_str())
    .bind(int(host.root_version.0)?)
    .bind(int(host.enrolled_at.0)?)
    .bind(host.last_seen.map(|at| int(at.0)).transpose()?)
    .bind(&host.receipt[..]);
    t.run("storing a host", statement).await?;
    let head = host.audit_head.as_ref();
    let statement = sqlx::query(
        "INSERT INTO host_state (host, allocated, acknowledged, report_sequence, report_sha256, head_log, head_size, head_root) \
         VALUES ((SELECT number FROM hosts WHERE id = $1), $2, $3, $4, $5, $6, $7, $8)",
    )
    .bind(&host.id.as_bytes()[..])
    .bind(int(host.allocated.0)?)
    .bind(int(host.acknowledged.0)?)
    .bind(int(host.last_report.sequence.0)?)
    .bind(&host.last_report.sha256.0[..])
    .bind(head.map(|head| head.log.as_bytes().to_vec()))
    .bind(head.map(|head| int(head.size)).transpose()?)
    .bind(head.map(|head| head.root.0.to_vec()));
    t.run("storing a host", statement).await?;
    Ok(())
}

pub(super) async fn revoke(
    t: &mut Transaction<'_>,
    host: HostId,
    at: UnixMs,
    is_retired: bool,
) -> Result<Written, Failure> {
    let select = sqlx::query("SELECT number, revoked_at FROM hosts WHERE id = $1").bind(&host.as_bytes()[..]);
    let row = t.row("looking for a host", select).await?.ok_or_else(|| unknown("host", host))?;
    let mut fields = Fields::of(&row, "the hosts");
    let (number, revoked): (i64, Option<UnixMs>) = (fields.get()?, fields.time_maybe()?);
    if revoked.is_some() {
        return Err(Failure::conflict(format!("host {host} was revoked before; it stays so for good")));
    }
    let update = sqlx::query(
        "UPDATE hosts SET revoked_at = $1, is_retired = $2, quarantine_why = NULL, quarantine_release = NULL \
         WHERE number = $3",
    );
    t.run("revoking a host", update.bind(int(at.0)?).bind(is_retired).bind(number)).await?;
    let claims = sqlx::query("DELETE FROM recovery_claims WHERE host = $1").bind(&host.as_bytes()[..]);
    t.run("forgetting what a revoked host brought", claims).await?;

    let was = if is_retired { "retired" } else { "revoked" };
    let open = sqlx::query("SELECT number, status FROM commands WHERE host = $1 AND settled_at IS NULL").bind(number);
    for row in t.rows("reading the host's open commands", open).await? {
        let mut fields = Fields::of(&row, "the commands");
        let command: i64 = fields.get()?;
        let before: CommandStatus = fields.word()?;
        let status = before.after(CommandEvent::HostRevoked).map_err(|error| Failure::conflict(error.to_string()))?;
        let message = match status {
            CommandStatus::Cancelled => format!("cancelled: the host was {was} before it got this command"),
            _ => format!("the host was {was} before it reported an end; whether this ran is not known"),
        };
        let message = t.cipher.seal(Place::COMMAND_MESSAGE, command, message.as_bytes())?;
        let update = sqlx::query("UPDATE commands SET status = $1, message = $2, settled_at = $3 WHERE number = $4")
            .bind(status.as_str())
            .bind(message)
            .bind(int(at.0)?)
            .bind(command);
        t.run("ending a revoked host's command", update).await?;
    }
    Ok(Written::Done)
}

pub(super) async fn edit(t: &mut Transaction<'_>, edit: &HostEdit) -> Result<Written, Failure> {
    let select = sqlx::query("SELECT number, name FROM hosts WHERE id = $1 AND revoked_at IS NULL");
    let row = t.row("looking for a host", select.bind(&edit.host.as_bytes()[..])).await?;
    let row = row.ok_or_else(|| Failure::conflict(format!("host {} is not known, or was revoked", edit.was)))?;
    let mut fields = Fields::of(&row, "the hosts");
    let (number, name): (i64, &str) = (fields.get()?, fields.get()?);
    if name != edit.was.as_str() {
        return Err(Failure::conflict(format!("host {} is called {name} by now", edit.was)));
    }
    if let Some(name) = edit.name.as_ref().filter(|name| **name != edit.was) {
        rename(t, number, edit, name.as_str()).await?;
    }
    for (key, value) in &edit.labels {
        let change = match value {
            Some(value) => sqlx::query("INSERT OR REPLACE INTO host_labels (host, key, value) VALUES ($1, $2, $3)")
                .bind(number)
                .bind(key.as_str())
                .bind(value.as_str()),
            None => sqlx::query("DELETE FROM host_labels WHERE host = $1 AND key = $2").bind(number).bind(key.as_str()),
        };
        t.run("storing a host's labels", change).await?;
    }
    let count = sqlx::query("SELECT count(*) FROM host_labels WHERE host = $1").bind(number);
    let row = t.row("counting a host's labels", count).await?.ok_or_else(|| unknown("host", edit.host))?;
    if Fields::of(&row, "the labels").number()? > LABELS_PER_HOST_MAX as u64 {
        return Err(Failure::conflict(format!(
            "a host has at most {LABELS_PER_HOST_MAX} labels; take some away first"
        )));
    }
    Ok(Written::Done)
}

async fn rename(t: &mut Transaction<'_>, number: i64, edit: &HostEdit, name: &str) -> Result<(), Failure> {
    require_free(t, name).await?;
    let update = sqlx::query("UPDATE hosts SET name = $1 WHERE number = $2").bind(name).bind(number);
    t.run("renaming a host", update).await?;
    let void = sqlx::query(
        "UPDATE join_tokens SET expires = $1 WHERE host_name IN ($2, $3) AND spent_by IS NULL AND expires > $1",
    )
    .bind(int(edit.at.0)?)
    .bind(edit.was.as_str())
    .bind(name);
    t.run("voiding join tokens", void).await?;
    Ok(())
}

pub(super) async fn seen(
    t: &mut Transaction<'_>,
    host: HostId,
    actions: &[ActionRef],
    agent_version: &str,
    boots: &[BootId],
    root_version: RootVersion,
) -> Result<Written, Failure> {
    let update = sqlx::query(
        "UPDATE hosts SET actions = $1, agent_version = $2, boots = $3, root_version = $4 \
         WHERE id = $5 AND revoked_at IS NULL",
    )
    .bind(codes::actions_encode(actions))
    .bind(agent_version)
    .bind(codes::boots_encode(boots))
    .bind(int(root_version.0)?)
    .bind(&host.as_bytes()[..]);
    changed_one(t.run("storing what a session showed", update).await?, host)
}

pub(super) async fn clock(t: &mut Transaction<'_>, host: HostId, skew_ms: i64) -> Result<Written, Failure> {
    let update = sqlx::query("UPDATE hosts SET clock_skew_ms = $1 WHERE id = $2");
    let update = update.bind(skew_ms).bind(&host.as_bytes()[..]);
    changed_one(t.run("storing how far a clock is off", update).await?, host)
}

pub(super) async fn left(t: &mut Transaction<'_>, host: HostId, at: UnixMs) -> Result<Written, Failure> {
    let update =
        sqlx::query("UPDATE hosts SET last_seen = CASE WHEN last_seen > $1 THEN last_seen ELSE $1 END WHERE id = $2");
    if t.run("storing when a host left", update.bind(int(at.0)?).bind(&host.as_bytes()[..])).await? == 0 {
        return Err(unknown("host", host));
    }
    Ok(Written::Done)
}

fn changed_one(rows: u64, host: HostId) -> Result<Written, Failure> {
    if rows == 0 {
        return Err(Failure::conflict(format!("host {host} is not known, or was revoked")));
    }
    Ok(Written::Done)
}
