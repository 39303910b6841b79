//! The audit log's entries about accounts. Records hold names, ids and roles, never a credential or
//! anything made from one.

use envelope::{audit::AuditKind, key_id};
use ids::UnixMs;
use serde_json::{Value, json};

use crate::{
    model::{ApiToken, Principal, User, UserChange, UserSession},
    ports::{AuditEntry, AuditRecord},
};

fn entry(time: UnixMs, kind: AuditKind, actor: String, subject: String, record: &Value) -> AuditEntry {
    AuditEntry { time, kind, actor, subject, record: AuditRecord::Inline(record.to_string().into_bytes()) }
}

fn account(time: UnixMs, actor: String, subject: String, record: &Value) -> AuditEntry {
    entry(time, AuditKind::AccountChange, actor, subject, record)
}

pub(super) fn user_created(actor: &Principal, user: &User) -> AuditEntry {
    let record = json!({ "change": "created", "user": user.id, "name": user.name, "role": user.role.as_str() });
    account(user.created_at, actor.audit_name(), format!("user {}: created as {}", user.name, user.role), &record)
}

pub(super) fn user_changed(actor: &str, was: &User, change: &UserChange, now: UnixMs) -> AuditEntry {
    let (word, to) = match change {
        UserChange::Role(role) => (format!("role {} to {role}", was.role), Some(role.as_str())),
        UserChange::Password(_) => ("password set".to_owned(), None),
        UserChange::Disable(_) => ("disabled".to_owned(), None),
        UserChange::Enable => ("enabled".to_owned(), None),
        UserChange::Delete(_) => ("deleted".to_owned(), None),
        UserChange::Approver(key, _) => {
            let instead = was.approver.map(|(key, _)| format!(" instead of {}", key_id(&key))).unwrap_or_default();
            (format!("approver key {}{instead}", key_id(key)), None)
        }
    };
    let record =
        json!({ "change": word, "user": was.id, "name": was.name, "role_before": was.role.as_str(), "role": to });
    account(now, actor.to_owned(), format!("user {}: {word}", was.name), &record)
}

pub(super) fn session_ended(actor: &Principal, session: &UserSession, now: UnixMs) -> AuditEntry {
    let record = json!({ "session": session.id, "user": session.user, "name": session.user_name });
    let subject = format!("user {}: session {}", session.user_name, session.id);
    entry(now, AuditKind::SignOut, actor.audit_name(), subject, &record)
}

pub(super) fn sessions_ended(actor: &Principal, user: &User, now: UnixMs) -> AuditEntry {
    let record = json!({ "sessions": "all", "user": user.id, "name": user.name });
    entry(now, AuditKind::SignOut, actor.audit_name(), format!("user {}: every session", user.name), &record)
}

fn token(actor: &Principal, token: &ApiToken, word: &str, now: UnixMs) -> AuditEntry {
    let record = json!({
        "change": format!("token {word}"), "token": token.id, "name": token.name, "user": token.user,
        "role": token.role.as_str(), "expires": token.expires,
    });
    let subject = format!("user {}: API token {} {word}", token.user_name, token.id);
    account(now, actor.audit_name(), subject, &record)
}

pub(super) fn token_created(actor: &Principal, of: &ApiToken) -> AuditEntry {
    token(actor, of, "created", of.created_at)
}

pub(super) fn token_revoked(actor: &Principal, of: &ApiToken, now: UnixMs) -> AuditEntry {
    token(actor, of, "revoked", now)
}
