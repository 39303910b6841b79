//! The beginning of a fleet, root metadata and audit heads.

use envelope::messages::LogPosition;
use fleet::{model::User, ports::Written};
use ids::RootVersion;

use super::{Transaction, accounts, unknown};
use crate::{
    fault::Failure,
    rows::{Fields, int},
};

pub(super) async fn initialise(t: &mut Transaction<'_>, root: &[u8], admin: &User) -> Result<Written, Failure> {
    let before = sqlx::query("SELECT 1 FROM root_chain UNION ALL SELECT 1 FROM users LIMIT 1");
    if t.row("looking for an earlier initialisation", before).await?.is_some() {
        return Err(Failure::conflict("this database was initialised before; a fleet is made once"));
    }
    let insert = sqlx::query("INSERT INTO root_chain (version, envelope) VALUES (1, $1)").bind(root);
    t.run("storing the root metadata", insert).await?;
    accounts::insert(t, admin).await?;
    Ok(Written::Done)
}

pub(super) async fn root_advance(
    t: &mut Transaction<'_>,
    version: RootVersion,
    envelope: &[u8],
) -> Result<Written, Failure> {
    let last = t.row("reading the root chain", sqlx::query("SELECT COALESCE(MAX(version), 0) FROM root_chain")).await?;
    let last = last.ok_or_else(|| unknown("root metadata of version", version))?;
    let last = RootVersion(Fields::of(&last, "the root chain").number()?);
    if last.next() != Some(version) || last.0 == 0 {
        return Err(Failure::conflict(format!(
            "root metadata stands at version {last}; version {version} does not follow"
        )));
    }
    let insert =
        sqlx::query("INSERT INTO root_chain (version, envelope) VALUES ($1, $2)").bind(int(version.0)?).bind(envelope);
    t.run("storing root metadata", insert).await?;
    Ok(Written::Done)
}

/// The caller has checked the position.
pub(super) async fn audit_head(
    t: &mut Transaction<'_>,
    position: &LogPosition,
    envelope: &[u8],
) -> Result<Written, Failure> {
    let insert = sqlx::query("INSERT INTO audit_heads (size, log, root, envelope) VALUES ($1, $2, $3, $4)")
        .bind(int(position.size)?)
        .bind(&position.log.as_bytes()[..])
        .bind(&position.root.0[..])
        .bind(envelope);
    t.run("storing an audit head", insert).await?;
    Ok(Written::Done)
}
