//! Audit entries of what people do here. Records hold names, ids and counts, never credentials.

use core::net::IpAddr;

use envelope::{
    audit::AuditKind,
    recovery::WrappedKey,
    root::{self, TrustedRoot},
};
use fleet::{
    keys::KeyChange,
    model::{Host, JoinTokenRecord, Principal, User},
    ports::{AuditEntry, AuditRecord},
};
use ids::{AppName, HostName, LabelKey, LabelValue, OperationId, QuarantineId, UnixMs};
use serde_json::{Value, json};

use crate::refusals::{Refused, ToTell};

/// Who acts when no account does.
const CONTROL_PLANE: &str = "control-plane";

fn entry(time: UnixMs, kind: AuditKind, actor: String, subject: String, record: &Value) -> AuditEntry {
    AuditEntry { time, kind, actor, subject, record: AuditRecord::Inline(record.to_string().into_bytes()) }
}

pub(crate) fn token_issued(token: &JoinTokenRecord) -> AuditEntry {
    let record = json!({
        "token": token.id, "host": token.host_name, "roles": token.roles,
        "created_by": token.created_by, "expires": token.expires,
    });
    let subject = format!("join token {} for host {}", token.id, token.host_name);
    entry(token.created_at, AuditKind::TokenIssued, token.created_by.to_string(), subject, &record)
}

pub(crate) fn host_revoked(host: &Host, actor: &Principal, now: UnixMs) -> AuditEntry {
    let record = json!({ "host": host.id, "name": host.name, "revoked_by": actor.user_name });
    let subject = format!("host {} ({})", host.name, host.id);
    entry(now, AuditKind::HostRevoked, actor.audit_name(), subject, &record)
}

pub(crate) fn quarantine_release(
    host: &Host,
    quarantine: Option<QuarantineId>,
    actor: &Principal,
    now: UnixMs,
) -> AuditEntry {
    let record = json!({
        "host": host.id, "name": host.name, "quarantine": quarantine, "is_alarm": host.quarantine.is_alarm,
        "released_by": actor.user_name,
    });
    let subject = format!("host {} ({})", host.name, host.id);
    entry(now, AuditKind::QuarantineRelease, actor.audit_name(), subject, &record)
}

pub(crate) fn host_renamed(host: &Host, to: &HostName, actor: &Principal, now: UnixMs) -> AuditEntry {
    let record = json!({ "host": host.id, "from": host.name, "to": to, "renamed_by": actor.user_name });
    let subject = format!("host {} ({}) is now {to}", host.name, host.id);
    entry(now, AuditKind::HostRenamed, actor.user_name.to_string(), subject, &record)
}

/// The secrets of a deploy are sealed to other owner recovery keys.
pub(crate) fn secrets_rewrapped(
    operation: OperationId,
    app: &AppName,
    keys: &[WrappedKey],
    actor: &Principal,
    now: UnixMs,
) -> AuditEntry {
    let keys: Vec<String> = keys.iter().map(|key| key.recovery_key.to_string()).collect();
    let record = json!({ "operation": operation, "app": app, "recovery_keys": keys, "by": actor.user_name });
    let subject = format!("secrets of {app}, operation {operation}");
    entry(now, AuditKind::SecretsRewrapped, actor.user_name.to_string(), subject, &record)
}

/// `labels` are those that change, with their new values.
pub(crate) fn host_labelled(
    host: &Host,
    labels: &[(LabelKey, Option<LabelValue>)],
    actor: &Principal,
    now: UnixMs,
) -> AuditEntry {
    let labels: Value = labels.iter().map(|(key, value)| (key.to_string(), json!(value))).collect();
    let record = json!({ "host": host.id, "name": host.name, "labels": labels, "labelled_by": actor.user_name });
    let subject = format!("host {} ({})", host.name, host.id);
    entry(now, AuditKind::HostLabelled, actor.user_name.to_string(), subject, &record)
}

pub(crate) fn sign_in(user: &User, expires: UnixMs, peer: IpAddr, now: UnixMs) -> AuditEntry {
    let record = json!({ "user": user.id, "name": user.name, "peer": peer, "expires": expires });
    entry(now, AuditKind::SignIn, user.name.to_string(), format!("user {}", user.name), &record)
}

/// Refusals of one kind, together. Names that no account has are not kept: they may be anything, even
/// a password typed into the wrong field.
pub(crate) fn refused(told: &ToTell, now: UnixMs) -> AuditEntry {
    let (what, name, token, subject) = match &told.what {
        Refused::SignIn(Some(name)) => ("sign-in", Some(name), None, format!("user {name}")),
        Refused::SignIn(None) => ("sign-in", None, None, "unknown user names".to_owned()),
        Refused::TooManySignIns(Some(name)) => {
            ("sign-in, too many", Some(name), None, format!("user {name}: too many sign-ins"))
        }
        Refused::TooManySignIns(None) => ("sign-in, too many", None, None, "too many sign-ins".to_owned()),
        Refused::Session(name) => ("session expired", Some(name), None, format!("user {name}: expired session")),
        Refused::Token(id, name) => ("API token", Some(name), Some(id), format!("user {name}: API token {id}")),
        Refused::Others => ("others", None, None, "more accounts and tokens than are told apart".to_owned()),
    };
    let record =
        json!({ "refused": what, "name": name, "token": token, "count": told.count, "last_peer": told.last_peer });
    entry(now, AuditKind::SignInRefused, CONTROL_PLANE.to_owned(), subject, &record)
}

/// The new version as it will be in force, with what is different, in words.
pub(crate) fn root_changed(actor: &Principal, before: &TrustedRoot, after: &TrustedRoot, now: UnixMs) -> AuditEntry {
    let changes: Vec<_> = root::changes(before.current(), after.current());
    let record = json!({
        "version": after.version(), "payload_sha256": after.payload_sha256(), "applied_by": actor.user_name,
        "changes": changes.iter().map(|change| json!({ "field": change.field, "words": change.words })).collect::<Vec<_>>(),
    });
    let subject = format!("root metadata version {}", after.version());
    entry(now, AuditKind::RootChange, actor.audit_name(), subject, &record)
}

/// A change of one of the control plane's own keys, the fresh one made.
pub(crate) fn key_change_begun(actor: &Principal, change: &KeyChange, now: UnixMs) -> AuditEntry {
    let what = if change.keys.is_emergency { "shut out" } else { "prepared" };
    key_change(actor, change, what, now)
}

/// What somebody did to it then.
pub(crate) fn key_change_moved(actor: &Principal, change: &KeyChange, what: &str, now: UnixMs) -> AuditEntry {
    key_change(actor, change, what, now)
}

fn key_change(actor: &Principal, change: &KeyChange, what: &str, now: UnixMs) -> AuditEntry {
    let keys = &change.keys;
    let record = json!({
        "role": keys.role.as_str(), "old": keys.old.to_string(), "new": keys.new.to_string(),
        "fresh": keys.fresh.to_string(), "emergency": keys.is_emergency, "state": change.state.as_str(), "what": what,
        "asked_by": actor.user_name,
    });
    let about = if keys.is_emergency { keys.old } else { keys.new };
    entry(now, AuditKind::KeyChange, actor.audit_name(), format!("{}: {what}", about.named(keys.role)), &record)
}

pub(crate) fn sign_out(session: &Principal, now: UnixMs) -> AuditEntry {
    let record = json!({ "user": session.user, "name": session.user_name });
    let subject = format!("user {}", session.user_name);
    entry(now, AuditKind::SignOut, session.user_name.to_string(), subject, &record)
}

pub(crate) fn audit_exported(actor: &Principal, size: u64, now: UnixMs) -> AuditEntry {
    let record = json!({ "user": actor.user, "name": actor.user_name, "size": size });
    let subject = format!("audit log up to entry {size}");
    entry(now, AuditKind::AuditExport, actor.audit_name(), subject, &record)
}
