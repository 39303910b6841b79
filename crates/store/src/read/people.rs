//! Accounts, their sessions and their API tokens, and the lists of each.

use envelope::messages::PublicKeyBytes;
use fleet::{
    list::{CredentialSort, ListKey, ListPage, ListValue, Listed, SessionFilter, TokenFilter, UserFilter, UserSort},
    model::{ApiToken, TokenStanding, User, UserSession},
    ports::StoreError,
};
use ids::{ApiTokenId, SessionId, Sha256, UnixMs, UserName};
use sqlx::{QueryBuilder, Sqlite, sqlite::SqliteRow};

use super::keyset::{Order, listed, number_key};
use crate::{
    codes,
    rows::{Fields, int},
    sqlite::Reader,
    write::Statement,
};

const USER: &str = "SELECT number, id, name, role, password_hash, created_at, disabled_at, approver_key, approver_key_at \
     FROM users WHERE deleted_at IS NULL";
const SESSION: &str = "SELECT s.number, s.id, s.token_sha256, u.id, u.name, u.role, s.created_at, s.expires, s.peer \
    FROM user_sessions s JOIN users u ON u.number = s.user_number \
    WHERE u.disabled_at IS NULL AND u.deleted_at IS NULL";
const TOKEN: &str = "SELECT t.number, t.id, t.name, u.id, u.name, t.role, u.role, u.disabled_at IS NOT NULL, t.secret_sha256, \
    t.created_at, t.expires, t.last_used_at, t.revoked_at \
    FROM api_tokens t JOIN users u ON u.number = t.user_number WHERE u.deleted_at IS NULL";

fn user(row: &SqliteRow) -> Result<User, StoreError> {
    let mut fields = Fields::from(row, "the accounts", 1);
    Ok(User {
        id: fields.id()?,
        name: fields.word()?,
        role: codes::user_role(fields.get()?)?,
        password_hash: fields.get()?,
        created_at: fields.time()?,
        disabled_at: fields.time_maybe()?,
        approver: approver(fields.get()?, fields.time_maybe()?)?,
    })
}

fn approver(key: Option<&[u8]>, at: Option<UnixMs>) -> Result<Option<(PublicKeyBytes, UnixMs)>, StoreError> {
    let Some((key, at)) = key.zip(at) else { return Ok(None) };
    let damaged = |_| StoreError::Corrupt("an account's approver key is no key; restore the database".to_owned());
    Ok(Some((PublicKeyBytes(key.try_into().map_err(damaged)?), at)))
}

pub(crate) fn session_of(row: &SqliteRow) -> Result<UserSession, StoreError> {
    let mut fields = Fields::from(row, "the sign-in sessions", 1);
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
    let mut fields = Fields::from(row, "the API tokens", 1);
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

pub(super) fn users(filter: &UserFilter, sort: UserSort, page: &ListPage) -> QueryBuilder<Sqlite> {
    let mut select = QueryBuilder::new(USER);
    if let Some(role) = filter.role {
        select.push(" AND role = ").push_bind(role.as_str());
    }
    match filter.is_disabled {
        None => {}
        Some(true) => {
            select.push(" AND disabled_at IS NOT NULL");
        }
        Some(false) => {
            select.push(" AND disabled_at IS NULL");
        }
    }
    let order = match sort {
        UserSort::Name => Order::text("name", "number"),
        UserSort::CreatedAt => Order::number("created_at", "number"),
    };
    order.end(&mut select, page);
    select
}

pub(super) fn sessions(
    filter: &SessionFilter,
    sort: CredentialSort,
    page: &ListPage,
) -> Result<QueryBuilder<Sqlite>, StoreError> {
    let mut select = QueryBuilder::new(SESSION);
    select.push(" AND u.id = ").push_bind(filter.user.as_bytes().to_vec());
    select.push(" AND s.expires > ").push_bind(int(filter.now.0)?);
    if let Some(peer) = &filter.peer {
        select.push(" AND s.peer = ").push_bind(peer.clone());
    }
    let order = match sort {
        CredentialSort::CreatedAt => Order::number("s.created_at", "s.number"),
        CredentialSort::Expires => Order::number("s.expires", "s.number"),
    };
    order.end(&mut select, page);
    Ok(select)
}

/// Says the same as [`ApiToken::standing`]; the conformance suite compares them.
pub(super) fn tokens(
    filter: &TokenFilter,
    sort: CredentialSort,
    page: &ListPage,
) -> Result<QueryBuilder<Sqlite>, StoreError> {
    let mut select = QueryBuilder::new(TOKEN);
    select.push(" AND u.id = ").push_bind(filter.user.as_bytes().to_vec());
    match filter.standing {
        None => {}
        Some(TokenStanding::Revoked) => {
            select.push(" AND t.revoked_at IS NOT NULL");
        }
        Some(TokenStanding::Expired) => {
            select.push(" AND t.revoked_at IS NULL AND t.expires <= ").push_bind(int(filter.now.0)?);
        }
        Some(standing) => {
            let disabled = if standing == TokenStanding::Good { "IS NULL" } else { "IS NOT NULL" };
            select.push(format_args!(" AND t.revoked_at IS NULL AND u.disabled_at {disabled} AND t.expires > "));
            select.push_bind(int(filter.now.0)?);
        }
    }
    let order = match sort {
        CredentialSort::CreatedAt => Order::number("t.created_at", "t.number"),
        CredentialSort::Expires => Order::number("t.expires", "t.number"),
    };
    order.end(&mut select, page);
    Ok(select)
}

fn credential_key(
    sort: CredentialSort,
    created_at: UnixMs,
    expires: UnixMs,
    row: &SqliteRow,
) -> Result<ListKey, StoreError> {
    let time = match sort {
        CredentialSort::CreatedAt => created_at,
        CredentialSort::Expires => expires,
    };
    Ok(number_key(time.0, Fields::of(row, "the credentials").number()?))
}

impl Reader {
    pub(crate) async fn users(&self) -> Result<Vec<User>, StoreError> {
        let rows = self.rows("reading the accounts", sqlx::query(text(USER, "ORDER BY name"))).await?;
        rows.iter().map(user).collect()
    }

    pub(crate) async fn users_list(
        &self,
        filter: UserFilter,
        sort: UserSort,
        page: ListPage,
    ) -> Result<Listed<User>, StoreError> {
        let rows = self.rows("listing the accounts", users(&filter, sort, &page).build()).await?;
        listed(rows, &page, |row| {
            let (number, user) = (Fields::of(row, "the accounts").number()?, user(row)?);
            let key = match sort {
                UserSort::Name => ListKey { value: ListValue::Text(user.name.to_string()), row: number },
                UserSort::CreatedAt => number_key(user.created_at.0, number),
            };
            Ok((key, user))
        })
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

    pub(crate) async fn user_sessions_list(
        &self,
        filter: SessionFilter,
        sort: CredentialSort,
        page: ListPage,
    ) -> Result<Listed<UserSession>, StoreError> {
        let rows = self.rows("listing an account's sessions", sessions(&filter, sort, &page)?.build()).await?;
        listed(rows, &page, |row| {
            let session = session_of(row)?;
            Ok((credential_key(sort, session.created_at, session.expires, row)?, session))
        })
    }

    pub(crate) async fn api_token(&self, id: ApiTokenId) -> Result<Option<ApiToken>, StoreError> {
        self.row("reading an API token", token_by_id(&id)).await?.as_ref().map(token_of).transpose()
    }

    pub(crate) async fn api_tokens_list(
        &self,
        filter: TokenFilter,
        sort: CredentialSort,
        page: ListPage,
    ) -> Result<Listed<ApiToken>, StoreError> {
        let rows = self.rows("listing an account's API tokens", tokens(&filter, sort, &page)?.build()).await?;
        listed(rows, &page, |row| {
            let token = token_of(row)?;
            Ok((credential_key(sort, token.created_at, token.expires, row)?, token))
        })
    }
}
