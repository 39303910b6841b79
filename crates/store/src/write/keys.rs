//! Changes of the control plane's own keys.

use fleet::{
    keys::{KeyChange, KeyChangeMove},
    ports::Written,
};

use super::Transaction;
use crate::{fault::Failure, rows::int};

/// One open change for each role; a stolen key does not wait for another change to end.
pub(super) async fn begin(t: &mut Transaction<'_>, change: &KeyChange) -> Result<Written, Failure> {
    let KeyChange { keys, state, begun_by, begun_at, moved_at, .. } = change;
    if keys.is_emergency {
        let end = sqlx::query(
            "UPDATE key_changes SET is_open = 0, state = 'aborted', moved_at = $1 WHERE role = $2 AND is_open",
        )
        .bind(int(moved_at.0)?)
        .bind(keys.role.as_str());
        t.run("ending a change of a key", end).await?;
    }
    let open = sqlx::query("SELECT 1 FROM key_changes WHERE role = $1 AND is_open").bind(keys.role.as_str());
    if t.row("looking for an open change of a key", open).await?.is_some() {
        return Err(Failure::conflict(format!("a change of the {} is under way already", keys.role.words())));
    }
    let insert = sqlx::query(
        "INSERT INTO key_changes (role, old_key, new_key, fresh_key, is_emergency, state, begun_by, begun_at, moved_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
    )
    .bind(keys.role.as_str())
    .bind(&keys.old.0[..])
    .bind(&keys.new.0[..])
    .bind(&keys.fresh.0[..])
    .bind(keys.is_emergency)
    .bind(state.as_str())
    .bind(begun_by.as_str())
    .bind(int(begun_at.0)?)
    .bind(int(moved_at.0)?);
    t.run("storing a change of a key", insert).await?;
    Ok(Written::Done)
}

/// Refused when the change is not where it is moved from.
pub(super) async fn change_move(t: &mut Transaction<'_>, moved: &KeyChangeMove) -> Result<Written, Failure> {
    let KeyChangeMove { role, new, from, to, root_version, activated_at, is_anyway, at, .. } = moved;
    let update = sqlx::query(
        "UPDATE key_changes SET state = $1, is_open = $2, moved_at = $3, root_version = COALESCE($4, root_version), \
         activated_at = COALESCE($5, activated_at), is_anyway = is_anyway OR $6 \
         WHERE role = $7 AND new_key = $8 AND state = $9 AND is_open",
    )
    .bind(to.as_str())
    .bind(!to.is_end())
    .bind(int(at.0)?)
    .bind(root_version.map(|version| int(version.0)).transpose()?)
    .bind(activated_at.map(|at| int(at.0)).transpose()?)
    .bind(is_anyway)
    .bind(role.as_str())
    .bind(&new.0[..])
    .bind(from.as_str());
    if t.run("moving a change of a key on", update).await? == 0 {
        return Err(Failure::conflict(format!(
            "the change of the {} is not {} any more; look with `serverflow key list`",
            role.words(),
            from.as_str()
        )));
    }
    Ok(Written::Done)
}
