//! The accounts of a test's world, their sessions and API tokens, the standing of its hosts, and its audit log, behind the API.

use envelope::audit::AuditKind;
use fleet::{
    model::{ApiToken, Credential, Host, Principal, QuarantineSeen, User, UserChange, UserRole, UserSession},
    ports::{Store as _, Write},
};
use ids::{ApiTokenId, DurationMs, QuarantineId, ReportSequence, Sequence, SessionId, UnixMs};

use super::world::{NOW, World, entry, fresh};
use crate::credentials;

impl World {
    /// A signed-in person's token that expires at that time.
    pub(super) async fn token_until(&self, expires: UnixMs) -> String {
        self.signed_in(&self.user, expires).await.0
    }

    /// A session of an account: its bearer token and its id.
    pub(super) async fn signed_in(&self, user: &User, expires: UnixMs) -> (String, SessionId) {
        let (token, token_sha256) = credentials::bearer_token().unwrap();
        let id = fresh();
        let session = UserSession {
            id,
            token_sha256,
            user: user.id,
            user_name: user.name.clone(),
            role: user.role,
            created_at: NOW,
            expires,
            peer: "192.0.2.9".to_owned(),
        };
        let password_hash = user.password_hash.clone();
        let write = Write::UserSessionCreate { session, password_hash, audit: entry(AuditKind::SignIn) };
        self.store.write(write).await.unwrap();
        (token.to_string(), id)
    }

    /// Another account, made behind the API. Its password is [`PASSWORD`].
    pub(super) async fn user(&self, name: &str, role: UserRole) -> User {
        let user = User { id: fresh(), name: name.parse().unwrap(), role, ..self.user.clone() };
        let write = Write::UserCreate { user: user.clone(), audit: entry(AuditKind::AccountChange) };
        self.store.write(write).await.unwrap();
        user
    }

    /// An API token of an account: its text and its id.
    pub(super) async fn api_token(&self, user: &User, role: UserRole, expires: UnixMs) -> (String, ApiTokenId) {
        let id = fresh();
        let (text, secret_sha256) = credentials::api_token(id).unwrap();
        let token = ApiToken {
            id,
            name: "ci".to_owned(),
            user: user.id,
            user_name: user.name.clone(),
            role,
            user_role: user.role,
            user_disabled: false,
            secret_sha256,
            created_at: NOW,
            expires,
            last_used_at: None,
            revoked_at: None,
        };
        self.store.write(Write::ApiTokenCreate { token, audit: entry(AuditKind::AccountChange) }).await.unwrap();
        (text.to_string(), id)
    }

    /// Changes an account behind the API.
    pub(super) async fn change(&self, was: &User, change: UserChange) {
        let write = Write::UserChange { was: was.clone(), change, audit: entry(AuditKind::AccountChange) };
        self.store.write(write).await.unwrap();
    }

    /// Who the world's own token is of.
    pub(super) fn principal(&self) -> Principal {
        Principal {
            user: self.user.id,
            user_name: self.user.name.clone(),
            role: self.user.role,
            credential: Credential::Session { id: self.session, token_sha256: credentials::bearer_sha256(&self.token) },
            expires: NOW.plus(DurationMs::from_days(1)),
        }
    }

    /// The host is in quarantine, and its agent has said so, if it knows.
    pub(super) async fn quarantine(&self, host: &Host, is_known: bool) -> QuarantineId {
        let audit = entry(AuditKind::Quarantine);
        let write = Write::HostQuarantine { host: host.id, why: "an old copy".to_owned(), audit };
        self.store.write(write).await.unwrap();
        let id: QuarantineId = fresh();
        if is_known {
            let (boot, host_epoch, high) = (fresh(), host.host_epoch, Sequence(0));
            let last_report = ReportSequence(0);
            let seen = QuarantineSeen { id, at: NOW, boot, host_epoch, protocol: 2, high, last_report };
            self.store.write(Write::HostQuarantineSeen { host: host.id, seen }).await.unwrap();
        }
        id
    }

    /// Kinds of all audit entries.
    pub(super) async fn audit_kinds(&self) -> Vec<AuditKind> {
        self.store.audit(0, 1000).await.unwrap().into_iter().map(|row| row.kind).collect()
    }
}
