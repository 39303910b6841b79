//! Accounts, how they sign in, and who a request comes from.

use core::str::FromStr;

use ids::{ApiTokenId, Sha256, UnixMs, UserId, UserName};

/// An account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    pub id: UserId,
    pub name: UserName,
    pub role: UserRole,
    /// Argon2id in PHC string form.
    pub password_hash: String,
}

/// What an account may do. Each role may do all that those before it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum UserRole {
    /// Looks.
    Viewer,
    /// Deploys and runs actions.
    Operator,
    /// Enrols and revokes hosts, and looks after viewers and operators.
    Admin,
    /// Looks after admins and owners as well. A fleet has at least one.
    Owner,
}

impl UserRole {
    /// Every role, from the least on.
    pub const ALL: [Self; 4] = [Self::Viewer, Self::Operator, Self::Admin, Self::Owner];

    /// The word used in the API, the database and the CLI.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Admin => "admin",
            Self::Owner => "owner",
        }
    }
}

impl core::fmt::Display for UserRole {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.pad(self.as_str())
    }
}

/// A word that names no role.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no role; there are viewer, operator, admin and owner")]
pub struct NoSuchRole;

impl FromStr for UserRole {
    type Err = NoSuchRole;

    fn from_str(text: &str) -> Result<Self, NoSuchRole> {
        Self::ALL.into_iter().find(|role| role.as_str() == text).ok_or(NoSuchRole)
    }
}

/// A sign-in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserSession {
    /// SHA-256 of the bearer token (256 bits of entropy).
    pub token_sha256: Sha256,
    pub user: UserId,
    pub user_name: UserName,
    pub role: UserRole,
    pub created_at: UnixMs,
    pub expires: UnixMs,
}

/// Who asks for something, and what for authority: an account, by one of its credentials.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    pub user: UserId,
    pub user_name: UserName,
    /// What this request may do: the account's role, or a token's if that is less.
    pub role: UserRole,
    pub credential: Credential,
    /// When the credential ends.
    pub expires: UnixMs,
}

/// What a request was authenticated by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Credential {
    /// A sign-in; SHA-256 of its bearer token.
    Session(Sha256),
    /// An API token.
    Token(ApiTokenId),
}

impl Credential {
    /// Whether a person signed in with the account's password.
    #[must_use]
    pub const fn is_session(self) -> bool {
        matches!(self, Self::Session(_))
    }
}
