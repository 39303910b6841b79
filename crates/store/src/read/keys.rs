//! Changes of the control plane's own keys, and the orders that one of them waits for.

use envelope::root::{OnlineKey, StagedKeys};
use fleet::{
    keys::{ChangeState, KeyChange},
    limits::KEY_CHANGES_MAX,
    ports::StoreError,
};
use ids::{RootVersion, UnixMs};
use sqlx::sqlite::SqliteRow;

use crate::{
    rows::{Fields, int},
    sqlite::Reader,
};

impl Reader {
    pub(crate) async fn key_changes(&self) -> Result<Vec<KeyChange>, StoreError> {
        let select = sqlx::query(
            "SELECT role, old_key, new_key, fresh_key, is_emergency, state, begun_by, begun_at, moved_at, root_version, \
             activated_at, is_anyway FROM key_changes ORDER BY is_open DESC, number DESC LIMIT $1",
        )
        .bind(i64::from(KEY_CHANGES_MAX));
        let rows = self.rows("reading changes of keys", select).await?;
        rows.iter().map(change).collect()
    }

    pub(crate) async fn orders_under_way(&self, from: UnixMs, until: UnixMs) -> Result<u64, StoreError> {
        let select = sqlx::query(
            "SELECT count(*) FROM commands WHERE settled_at IS NULL AND delivered_at >= $1 AND delivered_at <= $2",
        )
        .bind(int(from.0)?)
        .bind(int(until.0)?);
        let rows = self.rows("counting orders under way", select).await?;
        rows.first().map_or(Ok(0), |row| Fields::of(row, "the commands").number())
    }
}

fn change(row: &SqliteRow) -> Result<KeyChange, StoreError> {
    let mut fields = Fields::of(row, "the changes of keys");
    let keys = StagedKeys {
        role: fields.word()?,
        old: OnlineKey(fields.bytes()?),
        new: OnlineKey(fields.bytes()?),
        fresh: OnlineKey(fields.bytes()?),
        is_emergency: fields.get()?,
    };
    let word: &str = fields.get()?;
    let state = ChangeState::named(word).ok_or_else(|| {
        StoreError::Corrupt("a change of a key is in a state that no program wrote; restore the database".to_owned())
    })?;
    Ok(KeyChange {
        keys,
        state,
        begun_by: fields.get()?,
        begun_at: fields.time()?,
        moved_at: fields.time()?,
        root_version: fields.get::<Option<i64>>()?.and_then(|version| u64::try_from(version).ok()).map(RootVersion),
        activated_at: fields.time_maybe()?,
        is_anyway: fields.get()?,
    })
}
