//! Accounts, their sessions and their API tokens.

use envelope::{key_id, messages::PublicKeyBytes};
use fleet::{
    limits as fleet_limits,
    model::{ApiToken, Credential, Principal, TokenStanding, User, UserChange, UserRole, UserSession},
    ports::{StoreError, Written},
};
use ids::{ApiTokenId, SessionId, UnixMs, UserId};
use subtle::ConstantTimeEq as _;

use super::{Transaction, unknown};
use crate::{
    fault::Failure,
    limits,
    read::{session_by_token, session_of, token_by_id, token_of},
    rows::{Fields, int},
};

/// That whoever asked may do now what they could when they were judged.
pub(super) async fn stands(t: &mut Transaction<'_>, actor: &Principal, at: UnixMs) -> Result<(), Failure> {
    let role = match &actor.credential {
        Credential::Session { token_sha256, .. } => {
            let row = t.row("reading a sign-in session", session_by_token(token_sha256)).await?;
            let session = row.as_ref().map(session_of).transpose()?;
            session.filter(|session| session.expires > at).map(|session| session.role)
        }
        Credential::Token(id) => {
            let row = t.row("reading an API token", token_by_id(id)).await?;
            let token = row.as_ref().map(token_of).transpose()?;
            token.filter(|token| token.standing(at) == TokenStanding::Good).map(|token| token.effective_role())
        }
    };
    match role {
        None => Err(Failure::Refused(StoreError::CredentialEnded)),
        Some(role) if role < actor.role => Err(Failure::Refused(StoreError::RoleLowered)),
        Some(_) => Ok(()),
    }
}

pub(super) async fn insert(t: &mut Transaction<'_>, user: &User) -> Result<(), Failure> {
    let insert = sqlx::query(
        "INSERT INTO users (id, name, role, password_hash, created_at, disabled_at) VALUES ($1, $2, $3, $4, $5, $6)",
    )
    .bind(&user.id.as_bytes()[..])
    .bind(user.name.as_str())
    .bind(user.role.as_str())
    .bind(user.password_hash.as_str())
    .bind(int(user.created_at.0)?)
    .bind(user.disabled_at.map(|at| int(at.0)).transpose()?);
    t.run("storing an account", insert).await.map(drop)
}

pub(super) async fn create(t: &mut Transaction<'_>, user: &User) -> Result<Written, Failure> {
    let named = sqlx::query("SELECT deleted_at IS NOT NULL FROM users WHERE name = $1").bind(user.name.as_str());
    if let Some(row) = t.row("looking for the account's name", named).await? {
        let deleted: bool = Fields::of(&row, "the accounts").get()?;
        return Err(Failure::conflict(if deleted {
            format!(
                "{} was an account that is deleted; its name stays its own in the audit log, choose another",
                user.name
            )
        } else {
            format!("there is an account {} already; choose another name", user.name)
        }));
    }
    let count = sqlx::query("SELECT count(*) FROM users WHERE deleted_at IS NULL");
    let count = t.row("counting the accounts", count).await?.ok_or_else(|| unknown("account", user.id))?;
    if Fields::of(&count, "the accounts").number()? >= fleet_limits::USERS_MAX as u64 {
        let most = fleet_limits::USERS_MAX;
        return Err(Failure::conflict(format!(
            "there are {most} accounts, and no more are possible; delete some first"
        )));
    }
    insert(t, user).await?;
    Ok(Written::Done)
}

pub(super) async fn change(t: &mut Transaction<'_>, was: &User, change: &UserChange) -> Result<Written, Failure> {
    let set = match change {
        UserChange::Role(_) => "UPDATE users SET role = $1",
        UserChange::Password(_) => "UPDATE users SET password_hash = $1",
        UserChange::Disable(_) => "UPDATE users SET disabled_at = COALESCE(disabled_at, $1)",
        UserChange::Enable => "UPDATE users SET disabled_at = $1",
        // No password matches an empty hash.
        UserChange::Delete(_) => "UPDATE users SET password_hash = '', approver_key = NULL, deleted_at = $1",
        UserChange::Approver(..) => "UPDATE users SET approver_key = $1, approver_key_at = $5",
    };
    if let UserChange::Approver(key, _) = change {
        nobody_else_has(t, was, key).await?;
    }
    // The text is made of constants of this program.
    let update =
        sqlx::AssertSqlSafe(format!("{set} WHERE id = $2 AND role = $3 AND password_hash = $4 AND deleted_at IS NULL"));
    let update = sqlx::query(update);
    let update = match change {
        UserChange::Role(role) => update.bind(role.as_str()),
        UserChange::Password(hash) => update.bind(hash.as_str()),
        UserChange::Disable(at) | UserChange::Delete(at) => update.bind(int(at.0)?),
        UserChange::Enable => update.bind(None::<i64>),
        UserChange::Approver(key, _) => update.bind(key.0.to_vec()),
    };
    let update = update.bind(&was.id.as_bytes()[..]).bind(was.role.as_str()).bind(was.password_hash.as_str());
    let update = if let UserChange::Approver(_, at) = change { update.bind(int(at.0)?) } else { update };
    if t.run("changing an account", update).await? == 0 {
        return Err(Failure::conflict(format!("account {} was changed meanwhile, or is gone", was.name)));
    }
    if was.role == UserRole::Owner {
        an_owner_is_left(t).await?;
    }
    if matches!(change, UserChange::Password(_) | UserChange::Disable(_) | UserChange::Delete(_)) {
        sessions_end(t, was.id).await?;
    }
    if let UserChange::Delete(_) = change {
        let delete = sqlx::query("DELETE FROM api_tokens WHERE user_number = (SELECT number FROM users WHERE id = $1)")
            .bind(&was.id.as_bytes()[..]);
        t.run("removing the account's tokens", delete).await?;
    }
    Ok(Written::Done)
}

async fn nobody_else_has(t: &mut Transaction<'_>, user: &User, key: &PublicKeyBytes) -> Result<(), Failure> {
    let other = sqlx::query("SELECT 1 FROM users WHERE approver_key = $1 AND id <> $2")
        .bind(key.0.to_vec())
        .bind(user.id.as_bytes().to_vec());
    match t.row("looking for an approver key", other).await? {
        None => Ok(()),
        Some(_) => Err(Failure::conflict(format!("approver key {} is registered to another account", key_id(key)))),
    }
}

/// In the transaction of the change: two owners who shut each other out at once cannot both succeed.
async fn an_owner_is_left(t: &mut Transaction<'_>) -> Result<(), Failure> {
    let owner =
        sqlx::query("SELECT 1 FROM users WHERE role = 'owner' AND disabled_at IS NULL AND deleted_at IS NULL LIMIT 1");
    match t.row("looking for an owner", owner).await? {
        Some(_) => Ok(()),
        None => Err(Failure::Refused(StoreError::LastOwner)),
    }
}

/// Row number of an account that may be used, and its password's hash.
async fn usable(t: &mut Transaction<'_>, user: UserId) -> Result<(i64, String), Failure> {
    let select = sqlx::query(
        "SELECT number, password_hash FROM users WHERE id = $1 AND disabled_at IS NULL AND deleted_at IS NULL",
    )
    .bind(&user.as_bytes()[..]);
    let row = t.row("looking for the account", select).await?;
    let row = row.ok_or_else(|| Failure::conflict(format!("account {user} is not known, or is disabled")))?;
    let mut fields = Fields::of(&row, "the accounts");
    Ok((fields.get()?, fields.get()?))
}

pub(super) async fn session_create(
    t: &mut Transaction<'_>,
    session: &UserSession,
    password_hash: &str,
) -> Result<Written, Failure> {
    let (user, hash) = usable(t, session.user).await?;
    if !bool::from(hash.as_bytes().ct_eq(password_hash.as_bytes())) {
        return Err(Failure::conflict(format!("the password of {} was changed meanwhile", session.user_name)));
    }
    // Old sessions go where new ones come, so that the table stays as long as the sign-ins of a month.
    let purge = sqlx::query(
        "DELETE FROM user_sessions WHERE number IN (SELECT number FROM user_sessions WHERE expires <= $1 ORDER BY number LIMIT $2)",
    )
    .bind(int(session.created_at.0.saturating_sub(limits::EXPIRED_SESSIONS_KEPT.0))?)
    .bind(limits::EXPIRED_SESSIONS_PER_SIGN_IN_MAX);
    t.run("dropping expired sessions", purge).await?;
    let oldest = sqlx::query(
        "DELETE FROM user_sessions WHERE user_number = $1 AND number NOT IN \
         (SELECT number FROM user_sessions WHERE user_number = $1 ORDER BY number DESC LIMIT $2)",
    )
    .bind(user)
    .bind(i64::from(fleet_limits::SESSIONS_PER_USER_MAX) - 1);
    t.run("dropping the account's oldest sessions", oldest).await?;
    let insert = sqlx::query(
        "INSERT INTO user_sessions (id, token_sha256, user_number, created_at, expires, peer) VALUES ($1, $2, $3, $4, $5, $6)",
    )
    .bind(&session.id.as_bytes()[..])
    .bind(&session.token_sha256.0[..])
    .bind(user)
    .bind(int(session.created_at.0)?)
    .bind(int(session.expires.0)?)
    .bind(session.peer.as_str());
    t.run("storing a sign-in session", insert).await?;
    Ok(Written::Done)
}

/// Whether there was one.
pub(super) async fn session_end(t: &mut Transaction<'_>, session: SessionId) -> Result<bool, Failure> {
    let delete = sqlx::query("DELETE FROM user_sessions WHERE id = $1").bind(&session.as_bytes()[..]);
    Ok(t.run("ending a sign-in session", delete).await? > 0)
}

/// Whether there were any.
pub(super) async fn sessions_end(t: &mut Transaction<'_>, user: UserId) -> Result<bool, Failure> {
    let delete = sqlx::query("DELETE FROM user_sessions WHERE user_number = (SELECT number FROM users WHERE id = $1)")
        .bind(&user.as_bytes()[..]);
    Ok(t.run("ending the account's sessions", delete).await? > 0)
}

pub(super) async fn token_create(t: &mut Transaction<'_>, token: &ApiToken) -> Result<Written, Failure> {
    let (user, _) = usable(t, token.user).await?;
    let now = int(token.created_at.0)?;
    let count =
        sqlx::query("SELECT count(*) FROM api_tokens WHERE user_number = $1 AND revoked_at IS NULL AND expires > $2")
            .bind(user)
            .bind(now);
    let count = t.row("counting the account's tokens", count).await?.ok_or_else(|| unknown("account", token.user))?;
    let most = fleet_limits::API_TOKENS_PER_USER_MAX;
    if Fields::of(&count, "the API tokens").number()? >= u64::from(most) {
        let name = &token.user_name;
        return Err(Failure::conflict(format!(
            "{name} has {most} API tokens, and no more are possible; revoke some first"
        )));
    }
    let purge = sqlx::query(
        "DELETE FROM api_tokens WHERE user_number = $1 AND (revoked_at IS NOT NULL OR expires <= $2) AND number NOT IN \
         (SELECT number FROM api_tokens WHERE user_number = $1 AND (revoked_at IS NOT NULL OR expires <= $2) \
          ORDER BY number DESC LIMIT $3)",
    )
    .bind(user)
    .bind(now)
    .bind(i64::from(fleet_limits::API_TOKENS_ENDED_KEPT_MAX));
    t.run("dropping ended API tokens", purge).await?;
    let insert = sqlx::query(
        "INSERT INTO api_tokens (id, user_number, name, role, secret_sha256, created_at, expires) \
         VALUES ($1, $2, $3, $4, $5, $6, $7)",
    )
    .bind(&token.id.as_bytes()[..])
    .bind(user)
    .bind(token.name.as_str())
    .bind(token.role.as_str())
    .bind(&token.secret_sha256.0[..])
    .bind(now)
    .bind(int(token.expires.0)?);
    t.run("storing an API token", insert).await?;
    Ok(Written::Done)
}

/// Whether it was not revoked before.
pub(super) async fn token_revoke(t: &mut Transaction<'_>, token: ApiTokenId, at: UnixMs) -> Result<bool, Failure> {
    let update = sqlx::query("UPDATE api_tokens SET revoked_at = $1 WHERE id = $2 AND revoked_at IS NULL")
        .bind(int(at.0)?)
        .bind(&token.as_bytes()[..]);
    Ok(t.run("revoking an API token", update).await? > 0)
}

/// Time only moves on, whatever order these come in.
pub(super) async fn token_used(t: &mut Transaction<'_>, token: ApiTokenId, at: UnixMs) -> Result<Written, Failure> {
    let update = sqlx::query("UPDATE api_tokens SET last_used_at = MAX(COALESCE(last_used_at, 0), $1) WHERE id = $2")
        .bind(int(at.0)?)
        .bind(&token.as_bytes()[..]);
    t.run("noting the use of an API token", update).await?;
    Ok(Written::Done)
}
