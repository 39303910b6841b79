//! Who may do what to whose account. The least role of each request is in the table of routes; this is
//! the rest of the rule, and the only place it stands in:
//!
//! - Everyone looks after the own account: password, sessions, tokens.
//! - An admin looks after viewers and operators; an owner after everyone. To look after an account is
//!   to make it, to change its role (both the role it has and the one it gets count), to set its
//!   password, to disable, enable or delete it, and to end its sessions and tokens.
//! - Nobody disables or deletes the own account, and no change leaves the fleet without an owner who
//!   can sign in; the store sees to that, in the transaction of the change.
//! - A token is never stronger than its maker, and weakens with them ([`ApiToken::effective_role`]).

mod record;

use envelope::messages::PublicKeyBytes;
use ids::{ApiTokenId, DurationMs, Sha256, UnixMs, UserName};

use crate::{
    limits,
    model::{ApiToken, Principal, User, UserChange, UserRole, UserSession},
    ports::Write,
};

/// Names that the audit log uses for those that are no account.
const RESERVED: [&str; 6] = ["control-plane", "init", "machine", "serverflow", "strangers", "system"];

/// Why something about an account is not granted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PeopleError {
    /// The account, or the role it would get, is beyond the one who asks.
    #[error("{has}s may not do this to an account that is or becomes {target}; ask an owner", target = with_article(*target))]
    NotAllowed {
        /// The role of who asks.
        has: UserRole,
        /// The role it is about.
        target: UserRole,
    },
    /// It is about the own account.
    #[error("{name} is your own account; ask another {role} to {what} it")]
    Own {
        /// The account.
        name: UserName,
        /// Its role.
        role: UserRole,
        /// Disable or delete.
        what: &'static str,
    },
    /// It is for the holder of the account alone.
    #[error("only {name} registers an approver key of {name}, from the machine that made it")]
    NotOwn {
        /// The account.
        name: UserName,
    },
    /// A field breaks its rule.
    #[error("{field}: {message}")]
    Invalid {
        /// The request's field.
        field: &'static str,
        /// What is wrong with it.
        message: String,
    },
}

fn with_article(role: UserRole) -> String {
    let article = if role == UserRole::Viewer { "a" } else { "an" };
    format!("{article} {role}")
}

fn invalid(field: &'static str, message: impl Into<String>) -> PeopleError {
    PeopleError::Invalid { field, message: message.into() }
}

/// Whether that role looks after accounts of this one.
#[must_use]
pub fn looks_after(actor: UserRole, target: UserRole) -> bool {
    match actor {
        UserRole::Owner => true,
        UserRole::Admin => target < UserRole::Admin,
        UserRole::Operator | UserRole::Viewer => false,
    }
}

/// Whether that role looks after any account but the own one.
#[must_use]
pub fn looks_after_any(actor: UserRole) -> bool {
    UserRole::ALL.into_iter().any(|target| looks_after(actor, target))
}

fn authorise(actor: &Principal, target: UserRole) -> Result<(), PeopleError> {
    if looks_after(actor.role, target) {
        return Ok(());
    }
    Err(PeopleError::NotAllowed { has: actor.role, target })
}

/// Whether the account is the own one or one that the role looks after.
///
/// # Errors
/// When it is neither.
pub fn may_see(actor: &Principal, user: &User) -> Result<(), PeopleError> {
    if actor.user == user.id { Ok(()) } else { authorise(actor, user.role) }
}

/// A new account.
///
/// # Errors
/// When the role is beyond the one who asks, or the name is reserved.
pub fn user_create(actor: &Principal, user: User) -> Result<Write, PeopleError> {
    authorise(actor, user.role)?;
    if RESERVED.contains(&user.name.as_str()) {
        return Err(invalid("name", format!("{} stands for the control plane itself in the audit log", user.name)));
    }
    let audit = record::user_created(actor, &user);
    Ok(Write::UserCreate { user, audit })
}

/// Another role.
///
/// # Errors
/// When the account's role, or the new one, is beyond the one who asks.
pub fn user_role_set(actor: &Principal, was: User, role: UserRole, now: UnixMs) -> Result<Write, PeopleError> {
    authorise(actor, was.role)?;
    authorise(actor, role)?;
    let change = UserChange::Role(role);
    Ok(changed(actor, was, change, now))
}

/// Another password; whoever changes the own one has shown the old one.
///
/// # Errors
/// When the account is not one that the asker looks after.
pub fn user_password_set(actor: &Principal, was: User, hash: String, now: UnixMs) -> Result<Write, PeopleError> {
    may_see(actor, &was)?;
    Ok(changed(actor, was, UserChange::Password(hash), now))
}

/// The own approver key, instead of the one before.
///
/// # Errors
/// When the account is another's: whoever registers a key for somebody could approve in their name.
pub fn user_approver_set(actor: &Principal, was: User, key: PublicKeyBytes, now: UnixMs) -> Result<Write, PeopleError> {
    if actor.user != was.id {
        return Err(PeopleError::NotOwn { name: was.name });
    }
    Ok(changed(actor, was, UserChange::Approver(key, now), now))
}

/// Shuts an account, or opens it again.
///
/// # Errors
/// When the account is the own one, or not one that the asker looks after.
pub fn user_enabled_set(actor: &Principal, was: User, enabled: bool, now: UnixMs) -> Result<Write, PeopleError> {
    authorise(actor, was.role)?;
    if enabled {
        return Ok(changed(actor, was, UserChange::Enable, now));
    }
    not_own(actor, &was, "disable")?;
    Ok(changed(actor, was, UserChange::Disable(now), now))
}

/// Removes an account for good.
///
/// # Errors
/// As [`user_enabled_set`].
pub fn user_delete(actor: &Principal, was: User, now: UnixMs) -> Result<Write, PeopleError> {
    authorise(actor, was.role)?;
    not_own(actor, &was, "delete")?;
    Ok(changed(actor, was, UserChange::Delete(now), now))
}

fn not_own(actor: &Principal, was: &User, what: &'static str) -> Result<(), PeopleError> {
    if actor.user != was.id {
        return Ok(());
    }
    Err(PeopleError::Own { name: was.name.clone(), role: was.role, what })
}

fn changed(actor: &Principal, was: User, change: UserChange, now: UnixMs) -> Write {
    let audit = record::user_changed(&actor.audit_name(), &was, &change, now);
    Write::UserChange { was, change, audit }
}

/// A password set on the control plane's own machine, by whoever may read its keys. `by` is the number
/// of the operating system's user.
#[must_use]
pub fn machine_password_set(was: User, hash: String, by: u32, now: UnixMs) -> Write {
    let change = UserChange::Password(hash);
    let audit = record::user_changed(&format!("machine (user {by})"), &was, &change, now);
    Write::UserChange { was, change, audit }
}

/// Ends one session.
///
/// # Errors
/// When it is neither an own one nor of an account that the asker looks after.
pub fn session_end(actor: &Principal, session: &UserSession, now: UnixMs) -> Result<Write, PeopleError> {
    if session.user != actor.user {
        authorise(actor, session.role)?;
    }
    let audit = record::session_ended(actor, session, now);
    Ok(Write::UserSessionEnd { session: session.id, audit })
}

/// Ends every session of an account.
///
/// # Errors
/// As [`session_end`].
pub fn sessions_end(actor: &Principal, user: &User, now: UnixMs) -> Result<Write, PeopleError> {
    may_see(actor, user)?;
    let audit = record::sessions_ended(actor, user, now);
    Ok(Write::UserSessionsEnd { user: user.id, audit })
}

/// What somebody wants an API token to be like.
#[derive(Clone, Debug)]
pub struct TokenRequest {
    /// Its id, fresh.
    pub id: ApiTokenId,
    /// Hash of its secret, fresh.
    pub secret_sha256: Sha256,
    /// What its owner calls it.
    pub name: String,
    /// The most it may do; the maker's role when absent.
    pub role: Option<UserRole>,
    /// How long it lives.
    pub lifetime: Option<DurationMs>,
}

/// A new API token of the own account.
///
/// # Errors
/// When the asker came with a token, or a field breaks its rule.
pub fn token_create(actor: &Principal, request: TokenRequest, now: UnixMs) -> Result<ApiToken, PeopleError> {
    if !actor.credential.is_session() {
        return Err(invalid("token", "an API token makes no other; sign in"));
    }
    let TokenRequest { id, secret_sha256, name, role, lifetime } = request;
    let role = role.unwrap_or(actor.role);
    if role > actor.role {
        return Err(invalid("role", format!("a token is at most what its maker is: {}", actor.role)));
    }
    let lifetime = lifetime.unwrap_or(limits::API_TOKEN_LIFETIME_DEFAULT);
    let (least, most) = (limits::API_TOKEN_LIFETIME_MIN, limits::API_TOKEN_LIFETIME_MAX);
    if !(least..=most).contains(&lifetime) {
        return Err(invalid("ttl_seconds", format!("between {} and {}", least.0 / 1000, most.0 / 1000)));
    }
    if name.chars().count() > limits::API_TOKEN_NAME_CHARS_MAX || name.chars().any(char::is_control) {
        let most = limits::API_TOKEN_NAME_CHARS_MAX;
        return Err(invalid("name", format!("at most {most} characters, none of them a control character")));
    }
    Ok(ApiToken {
        id,
        name,
        user: actor.user,
        user_name: actor.user_name.clone(),
        role,
        user_role: actor.role,
        user_disabled: false,
        secret_sha256,
        created_at: now,
        expires: now.plus(lifetime),
        last_used_at: None,
        revoked_at: None,
    })
}

/// Stores a token that [`token_create`] granted.
#[must_use]
pub fn token_created(actor: &Principal, token: ApiToken) -> Write {
    let audit = record::token_created(actor, &token);
    Write::ApiTokenCreate { token, audit }
}

/// Ends an API token.
///
/// # Errors
/// When it is neither an own one nor of an account that the asker looks after.
pub fn token_revoke(actor: &Principal, token: &ApiToken, now: UnixMs) -> Result<Write, PeopleError> {
    if token.user != actor.user {
        authorise(actor, token.user_role)?;
    }
    let audit = record::token_revoked(actor, token, now);
    Ok(Write::ApiTokenRevoke { token: token.id, at: now, audit })
}

#[cfg(test)]
mod tests;
