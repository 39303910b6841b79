//! Hosts that a restored control plane knows by what they brought alone: enrolled after the backup was made, or with other keys
//! since. What they brought shows who they were. That they were not revoked meanwhile, nothing shows: until somebody has taken
//! them back they get no session.

use envelope::{
    key_chain::HostKeys,
    keys::key_id,
    messages::{EnrolReceipt, LogPosition, ReportPosition},
    root::TrustedRoot,
    verify,
};
use ids::{HostEpoch, HostId, RootVersion, Sequence, UnixMs, sha256};
use serde_json::json;
use session::control::Presented;

use super::{Heard, RecoveryHost, RecoveryWrite, leaf};
use crate::{
    model::{Host, HostStanding},
    ports::{AuditEntry, HostKeyRotation},
    record,
};

/// What one host brought, and what became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    pub presented: Presented,
    /// When it came first.
    pub first_at: UnixMs,
    pub heard: Heard,
    /// Somebody said that it does not count.
    pub refused_at: Option<UnixMs>,
}

impl Claim {
    /// Somebody has to say what is to become of it.
    #[must_use]
    pub const fn is_open(&self) -> bool {
        self.refused_at.is_none()
    }

    /// Which of two different claims of one host is believed: the one that a session key vouches for, then the later keys.
    const fn rank(&self) -> (bool, HostEpoch) {
        (self.presented.is_receipted, self.presented.host_epoch)
    }
}

/// Why a claim is not noted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotNoted {
    /// The same was refused before.
    Refused,
    /// Others' keys stand as this host's, by better evidence.
    Outranked,
}

/// What to write when a host brought that, if it is news. `known` is the claim of this host that is noted.
///
/// # Errors
/// See [`NotNoted`].
pub fn claimed(presented: Presented, heard: Heard, known: Option<&Claim>) -> Result<Option<RecoveryWrite>, NotNoted> {
    let same = known.filter(|known| known.presented.identity_key == presented.identity_key);
    let new = Claim { first_at: same.map_or(heard.at, |known| known.first_at), presented, heard, refused_at: None };
    let audit = match (same, known) {
        (Some(known), _) if !known.is_open() => return Err(NotNoted::Refused),
        (Some(known), _) if known.heard.is_same(&new.heard) && known.presented == new.presented => return Ok(None),
        (Some(_), _) => None,
        (None, Some(known)) if known.is_open() && known.rank() >= new.rank() => return Err(NotNoted::Outranked),
        (None, _) => Some(noted_leaf(&new)),
    };
    Ok(Some(RecoveryWrite::Claimed { claim: Box::new(new), audit }))
}

fn line(claim: &Claim, what: &str) -> serde_json::Value {
    let shown = &claim.presented;
    json!({
        "host": shown.host, "claim": what, "host_epoch": shown.host_epoch, "key": key_id(&shown.identity_key),
        "known_epoch": shown.on_record, "receipt_sha256": sha256(&shown.receipt), "receipted": shown.is_receipted,
        "dropped_key": shown.is_by_dropped_key,
    })
}

fn noted_leaf(claim: &Claim) -> AuditEntry {
    let record = line(claim, "shown");
    leaf(record::CONTROL_PLANE.to_owned(), subject(claim), &record, claim.heard.at)
}

fn subject(claim: &Claim) -> String {
    format!("host {} ({})", claim.presented.name, claim.presented.host)
}

/// A host that somebody has taken back.
#[derive(Clone, Debug)]
pub struct TakenHost {
    pub host: HostId,
    /// The host as its receipt has it, if it was not known.
    pub new: Option<Host>,
    /// The changes of its keys since.
    pub rotations: Vec<HostKeyRotation>,
    /// The decision, then a leaf for each rotation.
    pub audit: Vec<AuditEntry>,
}

/// A claim that somebody has refused.
#[derive(Clone, Debug)]
pub struct RefusedHost {
    pub host: HostId,
    /// A host that was not known is known from now on as one that is revoked.
    pub tombstone: Option<Host>,
    pub at: UnixMs,
    pub audit: AuditEntry,
}

/// Why a claim cannot be taken, in words for a person.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "what host {host} brought does not lead on from what is known of it by now ({why}); let it dial again, and look at the list"
)]
pub struct NotTaken {
    host: HostId,
    why: String,
}

/// The transaction that takes a host back. `record`: the host on record, if it is.
///
/// # Errors
/// When what it brought does not verify any more, or the record moved on.
pub fn taken(
    claim: &Claim,
    record: Option<&Host>,
    root: &TrustedRoot,
    actor: String,
    now: UnixMs,
) -> Result<RecoveryWrite, NotTaken> {
    let shown = &claim.presented;
    let failed = |why: String| NotTaken { host: shown.host, why };
    if record.map(|host| host.host_epoch) != shown.on_record {
        return Err(failed("its keys on record are others".to_owned()));
    }
    let (mut keys, new) = match record {
        Some(host) => (keys_of(root, host), None),
        None => {
            let host = enrolled(claim, root).map_err(failed)?;
            (keys_of(root, &host), Some(host))
        }
    };
    let name = record.map_or(&shown.name, |host| &host.name);
    let mut rotations = Vec::with_capacity(shown.rotations.len());
    for rotation in &shown.rotations {
        let was = keys.host_epoch;
        keys.follow(rotation).map_err(|error| failed(error.to_string()))?;
        let (host_epoch, identity_key, sealing_key) = (keys.host_epoch, keys.identity_key, keys.sealing_key);
        let audit = record::host_keys(name, host_epoch, rotation.clone(), now);
        let (host, rotation, released) = (shown.host, rotation.clone(), None);
        rotations.push(HostKeyRotation { host, was, host_epoch, identity_key, sealing_key, rotation, released, audit });
    }
    let decision = leaf(actor, subject(claim), &line(claim, "taken"), now);
    let audit = core::iter::once(decision).chain(rotations.iter().map(|rotation| rotation.audit.clone())).collect();
    Ok(RecoveryWrite::Taken(Box::new(TakenHost { host: shown.host, new, rotations, audit })))
}

/// The transaction that refuses a claim.
///
/// # Errors
/// When what it brought does not verify any more.
pub fn refused(claim: &Claim, root: &TrustedRoot, actor: String, now: UnixMs) -> Result<RecoveryWrite, NotTaken> {
    let host = claim.presented.host;
    let tombstone = match claim.presented.on_record {
        Some(_) => None,
        None => {
            let known = enrolled(claim, root).map_err(|why| NotTaken { host, why })?;
            Some(Host { standing: HostStanding::Revoked { at: now, is_retired: false }, ..known })
        }
    };
    let audit = leaf(actor, subject(claim), &line(claim, "refused"), now);
    Ok(RecoveryWrite::Refused(Box::new(RefusedHost { host, tombstone, at: now, audit })))
}

fn keys_of(root: &TrustedRoot, host: &Host) -> HostKeys {
    HostKeys {
        fleet: root.current().fleet,
        host: host.id,
        host_epoch: host.host_epoch,
        identity_key: host.identity_key,
        sealing_key: host.sealing_key,
    }
}

/// The host as it was when it was enrolled.
fn enrolled(claim: &Claim, root: &TrustedRoot) -> Result<Host, String> {
    let envelope = &claim.presented.receipt;
    let receipt = verify::<EnrolReceipt>(envelope, &root.session_keys_ever()).map_err(|error| error.to_string())?;
    Ok(Host {
        id: receipt.host,
        name: receipt.name.clone(),
        roles: receipt.roles.clone(),
        labels: Default::default(),
        identity_key: receipt.identity_key,
        sealing_key: receipt.sealing_key,
        host_epoch: receipt.host_epoch,
        standing: HostStanding::Active,
        quarantine: Default::default(),
        clock_skew_ms: None,
        allocated: Sequence(0),
        acknowledged: Sequence(0),
        last_report: ReportPosition::START,
        audit_head: None,
        boots: Vec::new(),
        actions: Vec::new(),
        agent_version: String::new(),
        root_version: RootVersion(0),
        enrolled_at: receipt.time,
        last_seen: None,
        receipt: envelope.clone(),
    })
}

/// Every head of an audit log that hosts said they were shown, whether they are on record or known by what they brought.
#[must_use]
pub fn heads(hosts: &[RecoveryHost], claims: &[Claim]) -> Vec<LogPosition> {
    let of_hosts = hosts.iter().filter_map(|host| host.heard.as_ref()?.head);
    of_hosts.chain(claims.iter().filter(|claim| claim.is_open()).filter_map(|claim| claim.heard.head)).collect()
}
