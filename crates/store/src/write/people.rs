//! Accounts, sign-in sessions, root metadata and audit heads.

use envelope::messages::LogPosition;
use fleet::{
    model::{User, UserSession},
    ports::Written,
};
use ids::{RootVersion, Sha256, UserId};

use super::{Transaction, unknown};
use crate::{
    codes::user_role_word,
    fault::Failure,
    limits,
    rows::{Fields, int},
};

pub(super) async fn initialise(t: &mut Transaction<'_>, root: &[u8], admin: &User) -> Result<Written, Failure> {
    let before = sqlx::query("SELECT 1 FROM root_chain UNION ALL SELECT 1 FROM users LIMIT 1");
    if t.row("looking for an earlier initialisation", before).await?.is_some() {
        return Err(Failure::conflict("this database was initialised before; a fleet is made once"));
    }
    let insert = sqlx::query("INSERT INTO root_chain (version, envelope) VALUES (1, $1)").bind(root);
    t.run("storing the root metadata", insert).await?;
    let insert = sqlx::query("INSERT INTO users (id, name, role, password_hash) VALUES ($1, $2, $3, $4)")
        .bind(&admin.id.as_bytes()[..])
        .bind(admin.name.as_str())
        .bind(user_role_word(admin.role))
        .bind(admin.password_hash.as_str());
    t.run("storing the first administrator", insert).await?;
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

pub(super) async fn session_create(t: &mut Transaction<'_>, session: &UserSession) -> Result<Written, Failure> {
    let user = sqlx::query("SELECT number FROM users WHERE id = $1").bind(&session.user.as_bytes()[..]);
    let user = t.row("looking for the account", user).await?.ok_or_else(|| unknown("account", session.user))?;
    let user: i64 = Fields::of(&user, "the accounts").get()?;
    // Old sessions go where new ones come, so that the table stays as long as the sign-ins of a month.
    let purge = sqlx::query(
        "DELETE FROM user_sessions WHERE number IN (SELECT number FROM user_sessions WHERE expires <= $1 ORDER BY number LIMIT $2)",
    )
    .bind(int(session.created_at.0)?)
    .bind(limits::EXPIRED_SESSIONS_PER_SIGN_IN_MAX);
    t.run("dropping expired sessions", purge).await?;
    let insert = sqlx::query(
        "INSERT INTO user_sessions (token_sha256, user_number, created_at, expires) VALUES ($1, $2, $3, $4)",
    )
    .bind(&session.token_sha256.0[..])
    .bind(user)
    .bind(int(session.created_at.0)?)
    .bind(int(session.expires.0)?);
    t.run("storing a sign-in session", insert).await?;
    Ok(Written::Done)
}

/// Whether there was one.
pub(super) async fn session_end(t: &mut Transaction<'_>, token: Sha256) -> Result<bool, Failure> {
    let delete = sqlx::query("DELETE FROM user_sessions WHERE token_sha256 = $1").bind(&token.0[..]);
    Ok(t.run("ending a sign-in session", delete).await? > 0)
}

pub(super) async fn password_set(t: &mut Transaction<'_>, user: UserId, hash: &str) -> Result<Written, Failure> {
    let update = sqlx::query("UPDATE users SET password_hash = $1 WHERE id = $2").bind(hash).bind(&user.as_bytes()[..]);
    if t.run("storing a password", update).await? == 0 {
        return Err(unknown("account", user));
    }
    let delete = sqlx::query("DELETE FROM user_sessions WHERE user_number = (SELECT number FROM users WHERE id = $1)")
        .bind(&user.as_bytes()[..]);
    t.run("ending the account's sessions", delete).await?;
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
