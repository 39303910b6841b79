//! Whether enough people stand behind an order. One judgement for everybody who makes it: the host, which
//! enforces it, and the control plane, which would rather say so before it sends.
//!
//! An approval counts when its key is in force, is not the requester's, has not counted yet, everything it
//! names is the order's own, and it has not expired. What does not count is left aside and said; only two
//! approvals that are bound to different plans spoil each other, because no plan can be both.

use ids::{DurationMs, HostEpoch, KeyId, Sha256, UnixMs, sha256};

use crate::{
    VerifyError,
    envelope::{Verified, verify},
    keys::{VerifyingKey, role},
    limits,
    messages::{Approval, Order},
};

/// What approvals are judged by.
#[derive(Clone, Copy, Debug)]
pub struct Terms<'a> {
    /// Approver keys in force.
    pub keys: &'a [VerifyingKey<role::Approver>],
    /// The host's epoch.
    pub host_epoch: HostEpoch,
    /// The latest that it can be: the largest of all clocks at hand. None: they are not judged by time once more.
    pub now: Option<UnixMs>,
}

/// Enough people agreed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Consent {
    /// Whose approvals count, ascending.
    pub keys: Vec<KeyId>,
    /// The plan that the host must still come to before it begins, if any of them is bound to one.
    pub plan: Option<Sha256>,
    /// When the last of them expires.
    pub expires: UnixMs,
}

/// Why one approval does not count.
#[derive(Debug, thiserror::Error)]
pub enum NotCounted {
    /// It is no approval by a key in force.
    #[error("one does not verify: {source}")]
    Signature {
        /// Why not.
        source: VerifyError,
    },
    /// It is about something else than this order.
    #[error("the one by {key} names another {what}")]
    Other {
        /// Whose it is.
        key: KeyId,
        /// What differs.
        what: &'static str,
    },
    /// Its time is over.
    #[error("the one by {key} expired {late} ago")]
    Expired {
        /// Whose it is.
        key: KeyId,
        /// For how long.
        late: DurationMs,
    },
    /// It would last longer from now on than one may: it was dated ahead.
    #[error("the one by {key} is dated {ahead} ahead; check the clock of the machine it was given on")]
    Ahead {
        /// Whose it is.
        key: KeyId,
        /// How far.
        ahead: DurationMs,
    },
    /// Whoever asks cannot approve.
    #[error("the one by {key} is the requester's own")]
    Own {
        /// Whose it is.
        key: KeyId,
    },
    /// One person counts once.
    #[error("{key} approved twice")]
    Twice {
        /// Whose they are.
        key: KeyId,
    },
}

/// Why an order may not run.
#[derive(Debug, thiserror::Error)]
pub enum ApprovalError {
    /// More than ever travel with one order.
    #[error("{count} approvals came with it; at most {max} may", max = limits::APPROVALS_COUNT_MAX)]
    TooMany {
        /// How many.
        count: usize,
    },
    /// Not enough of them count.
    #[error("it needs {needed}, and {counted} of the {given} that came with it {}{}", if *counted == 1 { "counts" } else { "count" }, said(left))]
    TooFew {
        /// How many it needs.
        needed: u32,
        /// How many count.
        counted: usize,
        /// How many came.
        given: usize,
        /// Why the others do not.
        left: Vec<NotCounted>,
    },
    /// Two of them are bound to different plans.
    #[error("they are bound to different plans, so no plan is what was approved; propose it again")]
    PlansDiffer,
}

fn said(left: &[NotCounted]) -> String {
    left.iter().map(|why| format!("; {why}")).collect()
}

/// Whether one approval counts for that order, by itself.
///
/// # Errors
/// The first reason why not.
pub fn counts(approval: &[u8], order: &Order, terms: Terms<'_>) -> Result<Verified<Approval>, NotCounted> {
    let approval = verify::<Approval>(approval, terms.keys).map_err(|source| NotCounted::Signature { source })?;
    let key = approval.key_id();
    let checks = [
        (approval.fleet == order.fleet, "fleet"),
        (approval.host == order.host, "host"),
        (approval.host_epoch == terms.host_epoch, "epoch of the host"),
        (approval.operation == order.operation, "operation"),
        (approval.action == order.action, "action"),
        (approval.action_version == order.action_version, "version of the action"),
        (approval.parameters_sha256 == sha256(&order.parameters), "parameters"),
        (approval.sealed == order.sealed, "sealed values"),
    ];
    if let Some((_, what)) = checks.into_iter().find(|(same, _)| !same) {
        return Err(NotCounted::Other { key, what });
    }
    if let Some(now) = terms.now {
        if now > approval.expires {
            return Err(NotCounted::Expired { key, late: now.since(approval.expires) });
        }
        let ahead = approval.approved_at.since(now);
        if ahead > limits::APPROVAL_AHEAD_MAX {
            return Err(NotCounted::Ahead { key, ahead });
        }
    }
    if order.requester == Some(key) {
        return Err(NotCounted::Own { key });
    }
    Ok(approval)
}

/// Whether `needed` people stand behind an order.
///
/// # Errors
/// See [`ApprovalError`].
pub fn judge(approvals: &[Vec<u8>], needed: u32, order: &Order, terms: Terms<'_>) -> Result<Consent, ApprovalError> {
    if approvals.len() > limits::APPROVALS_COUNT_MAX {
        return Err(ApprovalError::TooMany { count: approvals.len() });
    }
    let mut consent = Consent { keys: Vec::new(), plan: None, expires: UnixMs(0) };
    let mut left = Vec::new();
    for bytes in approvals {
        let approval = match counts(bytes, order, terms) {
            Ok(approval) if consent.keys.contains(&approval.key_id()) => {
                left.push(NotCounted::Twice { key: approval.key_id() });
                continue;
            }
            Ok(approval) => approval,
            Err(why) => {
                left.push(why);
                continue;
            }
        };
        if approval.bind_plan && consent.plan.replace(approval.plan_sha256).is_some_and(|p| p != approval.plan_sha256) {
            return Err(ApprovalError::PlansDiffer);
        }
        consent.keys.push(approval.key_id());
        consent.expires = consent.expires.max(approval.expires);
    }
    consent.keys.sort_unstable();
    let counted = consent.keys.len();
    if u32::try_from(counted).unwrap_or(u32::MAX) < needed {
        return Err(ApprovalError::TooFew { needed, counted, given: approvals.len(), left });
    }
    Ok(consent)
}
