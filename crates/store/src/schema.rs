//! The schema's history: forward only, embedded in the program, each step with the hash of its text,
//! so that a database made by a newer program, or by a changed history, is refused in words.

use fleet::ports::StoreError;
use ids::sha256;
use sqlx::{AssertSqlSafe, Connection as _, Row as _, SqliteConnection};

use crate::fault::Location;

/// One step. A released step never changes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Migration {
    pub(crate) version: i64,
    pub(crate) name: &'static str,
    pub(crate) sql: &'static str,
}

/// Every step, ascending by version.
pub(crate) const MIGRATIONS: &[Migration] = &[
    Migration { version: 1, name: "first", sql: include_str!("../migrations/0001_first.sql") },
    Migration { version: 2, name: "app_state", sql: include_str!("../migrations/0002_app_state.sql") },
    Migration { version: 3, name: "lists", sql: include_str!("../migrations/0003_lists.sql") },
    Migration { version: 4, name: "people", sql: include_str!("../migrations/0004_people.sql") },
    Migration { version: 5, name: "accounts_by_age", sql: include_str!("../migrations/0005_accounts_by_age.sql") },
    Migration { version: 6, name: "audit_nodes", sql: include_str!("../migrations/0006_audit_nodes.sql") },
    Migration { version: 7, name: "host_keys", sql: include_str!("../migrations/0007_host_keys.sql") },
    Migration { version: 8, name: "recovery_copies", sql: include_str!("../migrations/0008_recovery_copies.sql") },
    Migration { version: 9, name: "restores", sql: include_str!("../migrations/0009_restores.sql") },
    Migration { version: 10, name: "approvals", sql: include_str!("../migrations/0010_approvals.sql") },
    Migration { version: 11, name: "quarantines", sql: include_str!("../migrations/0011_quarantines.sql") },
    Migration { version: 12, name: "host_clocks", sql: include_str!("../migrations/0012_host_clocks.sql") },
    Migration { version: 13, name: "key_changes", sql: include_str!("../migrations/0013_key_changes.sql") },
    Migration { version: 14, name: "retired_hosts", sql: include_str!("../migrations/0014_retired_hosts.sql") },
    Migration { version: 15, name: "recovery_claims", sql: include_str!("../migrations/0015_recovery_claims.sql") },
    Migration { version: 16, name: "standing_orders", sql: include_str!("../migrations/0016_standing_orders.sql") },
];

/// Brings the database to the last of `migrations`; each step is one transaction.
pub(crate) async fn migrate(
    connection: &mut SqliteConnection,
    location: &Location,
    migrations: &[Migration],
) -> Result<(), StoreError> {
    let failed = |error: &sqlx::Error| location.error("preparing the schema", error);
    sqlx::raw_sql(
        "CREATE TABLE IF NOT EXISTS schema_migrations (
            version INTEGER NOT NULL PRIMARY KEY, name TEXT NOT NULL, sql_sha256 BLOB NOT NULL)",
    )
    .execute(&mut *connection)
    .await
    .map_err(|error| failed(&error))?;
    let applied = sqlx::query("SELECT version, name, sql_sha256 FROM schema_migrations ORDER BY version")
        .fetch_all(&mut *connection)
        .await
        .map_err(|error| failed(&error))?;
    let path = location.0.display();
    for (index, row) in applied.iter().enumerate() {
        let version: i64 = row.try_get(0).map_err(|error| failed(&error))?;
        let name: String = row.try_get(1).map_err(|error| failed(&error))?;
        let hash: Vec<u8> = row.try_get(2).map_err(|error| failed(&error))?;
        match migrations.get(index) {
            None => {
                return Err(StoreError::Unavailable(format!(
                    "{path} was written by a newer control plane (schema {version}, {name}); this one knows up to {}: \
                     run the newer program, or restore the backup made before the upgrade",
                    migrations.last().map_or(0, |last| last.version)
                )));
            }
            Some(known) if known.version != version || sha256(known.sql.as_bytes()).as_bytes()[..] != hash[..] => {
                return Err(StoreError::Corrupt(format!(
                    "{path} has schema {version} ({name}) with another content than this program's; \
                     it was made by a build that was never released: make it anew, or restore it from a backup"
                )));
            }
            Some(_) => {}
        }
    }
    for migration in &migrations[applied.len().min(migrations.len())..] {
        apply(connection, migration).await.map_err(|error| failed(&error))?;
        tracing::info!(version = migration.version, name = migration.name, "schema brought forward");
    }
    Ok(())
}

async fn apply(connection: &mut SqliteConnection, migration: &Migration) -> Result<(), sqlx::Error> {
    let mut transaction = connection.begin().await?;
    // The text is a constant of this program.
    sqlx::raw_sql(AssertSqlSafe(migration.sql)).execute(&mut *transaction).await?;
    sqlx::query("INSERT INTO schema_migrations (version, name, sql_sha256) VALUES ($1, $2, $3)")
        .bind(migration.version)
        .bind(migration.name)
        .bind(&sha256(migration.sql.as_bytes()).0[..])
        .execute(&mut *transaction)
        .await?;
    transaction.commit().await
}

#[cfg(test)]
mod upgrade;

#[cfg(test)]
mod tests {
    use super::*;

    async fn memory() -> (SqliteConnection, Location) {
        (SqliteConnection::connect("sqlite::memory:").await.unwrap(), Location("test.db".into()))
    }

    #[tokio::test]
    async fn steps_run_once_and_in_order() {
        let (mut connection, location) = memory().await;
        let one = Migration { version: 1, name: "one", sql: "CREATE TABLE a (x INTEGER)" };
        let two = Migration { version: 2, name: "two", sql: "INSERT INTO a VALUES (1); INSERT INTO a VALUES (2)" };
        migrate(&mut connection, &location, &[one]).await.unwrap();
        migrate(&mut connection, &location, &[one, two]).await.unwrap();
        migrate(&mut connection, &location, &[one, two]).await.unwrap();
        let rows: i64 = sqlx::query("SELECT count(*) FROM a").fetch_one(&mut connection).await.unwrap().get(0);
        assert_eq!(rows, 2);

        let newer = migrate(&mut connection, &location, &[one]).await.unwrap_err().to_string();
        assert!(newer.contains("newer control plane (schema 2, two)"), "{newer}");
        let other = Migration { sql: "CREATE TABLE b (x INTEGER)", ..one };
        let changed = migrate(&mut connection, &location, &[other, two]).await.unwrap_err();
        assert!(matches!(changed, StoreError::Corrupt(_)), "{changed}");
    }

    #[tokio::test]
    async fn a_step_that_fails_leaves_nothing() {
        let (mut connection, location) = memory().await;
        let bad = Migration { version: 1, name: "bad", sql: "CREATE TABLE a (x INTEGER); CREATE TABLE a (x INTEGER)" };
        assert!(migrate(&mut connection, &location, &[bad]).await.is_err());
        let good = Migration { version: 1, name: "good", sql: "CREATE TABLE a (x INTEGER)" };
        migrate(&mut connection, &location, &[good]).await.unwrap();
    }

    #[tokio::test]
    async fn the_oldest_admin_of_a_first_database_becomes_its_owner() {
        let (mut connection, location) = memory().await;
        migrate(&mut connection, &location, &MIGRATIONS[..1]).await.unwrap();
        sqlx::raw_sql(
            "INSERT INTO users (id, name, role, password_hash) VALUES \
             (x'01', 'vera', 'viewer', 'h'), (x'02', 'ada', 'admin', 'h'), (x'03', 'bob', 'admin', 'h'); \
             INSERT INTO user_sessions (token_sha256, user_number, created_at, expires) VALUES (x'aa', 2, 5, 9), (x'bb', 2, 6, 9); \
             INSERT INTO audit_leaves (leaf, time, kind, actor, subject, record_sha256, leaf_sha256) VALUES (0, 1234, 1, 'init', 'fleet', x'', x'')",
        )
        .execute(&mut connection)
        .await
        .unwrap();
        migrate(&mut connection, &location, MIGRATIONS).await.unwrap();
        let rows = sqlx::query("SELECT name, role, created_at FROM users ORDER BY number").fetch_all(&mut connection);
        let rows: Vec<(String, String, i64)> =
            rows.await.unwrap().iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect();
        let row = |name: &str, role: &str| (name.to_owned(), role.to_owned(), 1234);
        assert_eq!(rows, [row("vera", "viewer"), row("ada", "owner"), row("bob", "admin")]);
        let named: i64 = sqlx::query("SELECT count(DISTINCT id) FROM user_sessions WHERE length(id) = 16")
            .fetch_one(&mut connection)
            .await
            .unwrap()
            .get(0);
        assert_eq!(named, 2, "sessions go on, each with an id");
    }

    #[test]
    fn versions_count_from_one() {
        assert!(MIGRATIONS.iter().map(|m| m.version).eq(1..=MIGRATIONS.len() as i64));
    }
}
