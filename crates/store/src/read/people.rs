//! Accounts, their sessions and their API tokens.

use fleet::{
    limits as fleet_limits,
    model::{ApiToken, User, UserSession},
    ports::StoreError,
};
use ids::{ApiTokenId, SessionId, Sha256, UnixMs, UserId, UserName};
use sqlx::sqlite::SqliteRow;

use crate::{
    codes,
    rows::{Fields, int},
    sqlite::Reader,
    write::Statement,
};

const USER: &str = "SELECT id, name, role, password_hash, created_at, disabled_at FROM users WHERE deleted_at IS NULL";
const SESSION: &str = "SELECT s.id, s.token_sha256, u.id, u.name, u.role, s.created_at, s.expires, s.peer \
    FROM user_sessions s JOIN users u ON u.number = s.user_number \
    WHERE u.disabled_at IS NULL AND u.deleted_at IS NULL";
const TOKEN: &str = "SELECT t.id, t.name, u.id, u.name, t.role, u.role, u.disabled_at IS NOT NULL, t.secret_sha256, \
    t.created_at, t.expires, t.last_used_at, t.revoked_at \
    FROM api_tokens t JOIN users u ON u.number = t.user_number WHERE u.deleted_at IS NULL";

fn user(row: &SqliteRow) -> Result<User, StoreError> {
    let mut fields = Fields::of(row, "the accounts");
    Ok(User {
        id: fields.id()?,
        name: fields.word()?,
        role: codes::user_role(fields.get()?)?,
        password_hash: fields.get()?,
        created_at: fields.time()?,
        disabled_at: fields.time_maybe()?,
    })
}

pub(crate) fn session_of(row: &SqliteRow) -> Result<UserSession, StoreError> {
    let mut fields = Fields::of(row, "the sign-in sessions");
    Ok(UserSession {
        id: fields.id()?,
        token_sha256: fields.hash()?,
        user: fields.id()?,
        user_name: fields.word()?,
        role: codes::user_role(fields.get()?)?,
        created_at: fields.time()?,
        expires: fields.time()?,
        peer: fields.get()?,
    })
}

pub(crate) fn token_of(row: &SqliteRow) -> Result<ApiToken, StoreError> {
    let mut fields = Fields::of(row, "the API tokens");
    Ok(ApiToken {
        id: fields.id()?,
        name: fields.get()?,
        user: fields.id()?,
        user_name: fields.word()?,
        role: codes::user_role(fields.get()?)?,
        user_role: codes::user_role(fields.get()?)?,
        user_disabled: fields.get()?,
        secret_sha256: fields.hash()?,
        created_at: fields.time()?,
        expires: fields.time()?,
        last_used_at: fields.time_maybe()?,
        revoked_at: fields.time_maybe()?,
    })
}

/// The texts are put together from constants of this program.
fn text(select: &str, more: &str) -> sqlx::AssertSqlSafe<String> {
    sqlx::AssertSqlSafe(format!("{select} {more}"))
}

/// A session of an account that may be used, by the hash of its bearer token.
pub(crate) fn session_by_token(token: &Sha256) -> Statement<'_> {
    sqlx::query(text(SESSION, "AND s.token_sha256 = $1")).bind(&token.0[..])
}

pub(crate) fn token_by_id(id: &ApiTokenId) -> Statement<'_> {
    sqlx::query(text(TOKEN, "AND t.id = $1")).bind(&id.as_bytes()[..])
}

impl Reader {
    pub(crate) async fn users(&self) -> Result<Vec<User>, StoreError> {
        let rows = self.rows("reading the accounts", sqlx::query(text(USER, "ORDER BY name"))).await?;
        rows.iter().map(user).collect()
    }

    pub(crate) async fn user_by_name(&self, name: UserName) -> Result<Option<User>, StoreError> {
        let select = sqlx::query(text(USER, "AND name = $1")).bind(name.as_str());
        self.row("reading an account", select).await?.as_ref().map(user).transpose()
    }

    pub(crate) async fn user_session(&self, token: Sha256) -> Result<Option<UserSession>, StoreError> {
        let select = session_by_token(&token);
        self.row("reading a sign-in session", select).await?.as_ref().map(session_of).transpose()
    }

    pub(crate) async fn user_session_by_id(&self, id: SessionId) -> Result<Option<UserSession>, StoreError> {
        let select = sqlx::query(text(SESSION, "AND s.id = $1")).bind(&id.as_bytes()[..]);
        self.row("reading a sign-in session", select).await?.as_ref().map(session_of).transpose()
    }

    pub(crate) async fn user_sessions(&self, user: UserId, now: UnixMs) -> Result<Vec<UserSession>, StoreError> {
        let select = sqlx::query(text(SESSION, "AND u.id = $1 AND s.expires > $2 ORDER BY s.number DESC LIMIT $3"))
            .bind(&user.as_bytes()[..])
            .bind(int(now.0)?)
            .bind(i64::from(fleet_limits::SESSIONS_PER_USER_MAX));
        let rows = self.rows("reading an account's sessions", select).await?;
        rows.iter().map(session_of).collect()
    }

    pub(crate) async fn api_token(&self, id: ApiTokenId) -> Result<Option<ApiToken>, StoreError> {
        self.row("reading an API token", token_by_id(&id)).await?.as_ref().map(token_of).transpose()
    }

    pub(crate) async fn api_tokens(&self, user: UserId) -> Result<Vec<ApiToken>, StoreError> {
        let select = sqlx::query(text(TOKEN, "AND u.id = $1 ORDER BY t.number DESC LIMIT $2"))
            .bind(&user.as_bytes()[..])
            .bind(i64::from(fleet_limits::API_TOKENS_PER_USER_MAX + fleet_limits::API_TOKENS_ENDED_KEPT_MAX));
        let rows = self.rows("reading an account's API tokens", select).await?;
        rows.iter().map(token_of).collect()
    }
}
