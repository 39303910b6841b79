//! Accounts, how they sign in, and who a request comes from.

use core::{fmt, str::FromStr};

use envelope::messages::PublicKeyBytes;
use ids::{ApiTokenId, SessionId, Sha256, UnixMs, UserId, UserName};

/// An account. A deleted one leaves only its name behind, which is never given again.
#[derive(Clone, PartialEq, Eq)]
pub struct User {
    pub id: UserId,
    pub name: UserName,
    pub role: UserRole,
    /// Argon2id in PHC string form.
    pub password_hash: String,
    pub created_at: UnixMs,
    /// Since when nobody signs in with it, if so.
    pub disabled_at: Option<UnixMs>,
    /// Its approver key, and since when.
    pub approver: Option<(PublicKeyBytes, UnixMs)>,
}

impl fmt::Debug for User {
    /// Without the hash, which no log needs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, name, role, created_at, disabled_at, .. } = self;
        write!(f, "User({name} {id} {role} {created_at:?} {disabled_at:?})")
    }
}

/// What becomes of an account.
#[derive(Clone, PartialEq, Eq)]
pub enum UserChange {
    Role(UserRole),
    /// A new password's hash. Ends the account's sessions.
    Password(String),
    /// Nobody signs in with it from then on; ends its sessions.
    Disable(UnixMs),
    Enable,
    /// For good: its sessions and tokens go, its name stays taken.
    Delete(UnixMs),
    /// The approver key on its holder's machine, instead of the one before.
    Approver(PublicKeyBytes, UnixMs),
}

impl fmt::Debug for UserChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Role(role) => write!(f, "Role({role})"),
            Self::Password(_) => f.write_str("Password"),
            Self::Disable(at) => write!(f, "Disable({at:?})"),
            Self::Enable => f.write_str("Enable"),
            Self::Delete(at) => write!(f, "Delete({at:?})"),
            Self::Approver(key, at) => write!(f, "Approver({key:?} {at:?})"),
        }
    }
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

impl fmt::Display for UserRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
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
    pub id: SessionId,
    /// SHA-256 of the bearer token (256 bits of entropy).
    pub token_sha256: Sha256,
    pub user: UserId,
    pub user_name: UserName,
    /// The account's role now.
    pub role: UserRole,
    pub created_at: UnixMs,
    pub expires: UnixMs,
    /// The address it came from; empty when there was none.
    pub peer: String,
}

/// A bearer token that programs use in an account's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiToken {
    pub id: ApiTokenId,
    /// What its owner calls it.
    pub name: String,
    pub user: UserId,
    pub user_name: UserName,
    /// The most it may do.
    pub role: UserRole,
    /// The account's role now.
    pub user_role: UserRole,
    /// Whether the account is disabled now.
    pub user_disabled: bool,
    /// SHA-256 of the 32-byte secret (256 bits of entropy, so a plain hash is enough).
    pub secret_sha256: Sha256,
    pub created_at: UnixMs,
    pub expires: UnixMs,
    /// When it was last seen in use, to within [`crate::limits::API_TOKEN_USE_NOTED_PER`].
    pub last_used_at: Option<UnixMs>,
    pub revoked_at: Option<UnixMs>,
}

/// Whether an API token is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenStanding {
    Good,
    Expired,
    Revoked,
    /// Its account is disabled; it works again when that is enabled.
    AccountDisabled,
}

impl ApiToken {
    /// What it may do: never more than its account may now.
    #[must_use]
    pub fn effective_role(&self) -> UserRole {
        self.role.min(self.user_role)
    }

    /// Whether it is taken at `now`.
    #[must_use]
    pub fn standing(&self, now: UnixMs) -> TokenStanding {
        match self {
            _ if self.revoked_at.is_some() => TokenStanding::Revoked,
            _ if self.expires <= now => TokenStanding::Expired,
            _ if self.user_disabled => TokenStanding::AccountDisabled,
            _ => TokenStanding::Good,
        }
    }
}

/// Who asks for something, and with what authority: an account, by one of its credentials.
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

impl Principal {
    /// The name under which the audit log keeps what was done: the account's, with the token's id if
    /// it was a token.
    #[must_use]
    pub fn audit_name(&self) -> String {
        match self.credential {
            Credential::Session { .. } => self.user_name.to_string(),
            Credential::Token(id) => format!("{} (token {id})", self.user_name),
        }
    }
}

/// What a request was authenticated by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Credential {
    /// A sign-in, and SHA-256 of its bearer token.
    Session { id: SessionId, token_sha256: Sha256 },
    /// An API token.
    Token(ApiTokenId),
}

impl Credential {
    /// Whether a person signed in with the account's password.
    #[must_use]
    pub const fn is_session(self) -> bool {
        matches!(self, Self::Session { .. })
    }
}
