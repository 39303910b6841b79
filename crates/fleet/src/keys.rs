//! Changes of the control plane's own keys, step by step. A key is made and durable before root metadata lists it, is
//! listed before it is used, and is destroyed only when root metadata has dropped it and nobody needs it any more. Each step
//! is durable and rests on what is so (root metadata in force, what hosts hold), so a change goes on wherever it was cut.

use envelope::{
    messages::RootMetadata,
    root::{OnlineKey, OnlineRole, StagedKeys},
};
use ids::{DurationMs, HostId, HostName, RootVersion, UnixMs};

use crate::{
    limits,
    model::{Host, HostStanding},
    ports::AuditEntry,
};

/// How far a change is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ChangeState {
    /// The fresh key is made; root metadata is to list it.
    Prepared,
    /// Root metadata lists it; hosts are to take that.
    Published,
    /// The new key is in use; root metadata is to drop the old one.
    Activated,
    /// Given up before its activation; root metadata is to drop the fresh key, if it lists it.
    Withdrawn,
    /// Done: the old key is destroyed.
    Retired,
    /// Given up: the fresh key is destroyed, or another change took over.
    Aborted,
}

impl ChangeState {
    /// Every one.
    pub const ALL: [Self; 6] =
        [Self::Prepared, Self::Published, Self::Activated, Self::Withdrawn, Self::Retired, Self::Aborted];

    /// As the database and the API have it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Prepared => "prepared",
            Self::Published => "published",
            Self::Activated => "activated",
            Self::Withdrawn => "withdrawn",
            Self::Retired => "retired",
            Self::Aborted => "aborted",
        }
    }

    /// The state of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == name)
    }

    /// Whether nothing follows.
    #[must_use]
    pub const fn is_end(self) -> bool {
        matches!(self, Self::Retired | Self::Aborted)
    }

    /// Whether it may be given up.
    #[must_use]
    pub const fn is_abortable(self) -> bool {
        matches!(self, Self::Prepared | Self::Published)
    }
}

/// One change, as stored. At most one of each role is open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyChange {
    pub keys: StagedKeys,
    pub state: ChangeState,
    /// Who began it, as the audit log names them.
    pub begun_by: String,
    pub begun_at: UnixMs,
    /// When it reached its state.
    pub moved_at: UnixMs,
    /// The version under which it was published: a host that holds it, or a later one, knows the new key.
    pub root_version: Option<RootVersion>,
    pub activated_at: Option<UnixMs>,
    /// Somebody said not to wait for all hosts.
    pub is_anyway: bool,
}

impl KeyChange {
    /// One that just began.
    #[must_use]
    pub const fn new(keys: StagedKeys, begun_by: String, now: UnixMs) -> Self {
        Self {
            keys,
            state: ChangeState::Prepared,
            begun_by,
            begun_at: now,
            moved_at: now,
            root_version: None,
            activated_at: None,
            is_anyway: false,
        }
    }

    /// Whether it has not moved for longer than it should take.
    #[must_use]
    pub fn is_stuck(&self, now: UnixMs) -> bool {
        !self.state.is_end() && now.since(self.moved_at) > limits::KEY_CHANGE_STUCK
    }

    /// From when to when orders were delivered that the old key may have signed and that may not have started yet.
    #[must_use]
    pub fn orders_before(&self, now: UnixMs) -> Option<(UnixMs, UnixMs)> {
        let until = self.activated_at?.plus(limits::KEY_ACTIVATION_SLACK);
        let from = now.minus(limits::START_WITHIN);
        (self.keys.role == OnlineRole::Command && from < until).then_some((from, until))
    }
}

/// A step of a change of one of the control plane's own keys.
#[derive(Clone, Debug)]
pub struct KeyChangeMove {
    pub role: OnlineRole,
    /// Of the change, as it must be.
    pub new: OnlineKey,
    pub from: ChangeState,
    pub to: ChangeState,
    /// Under which it was published, if that is this step.
    pub root_version: Option<RootVersion>,
    /// When it was activated, if that is this step.
    pub activated_at: Option<UnixMs>,
    /// Nobody is to be waited for from now on.
    pub is_anyway: bool,
    pub at: UnixMs,
    pub audit: AuditEntry,
}

/// What of a fleet has taken a version of root metadata.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reached {
    /// Hosts that are waited for, with those that have it.
    pub all: usize,
    pub acknowledged: usize,
    /// Those that have not, by name.
    pub waiting: Vec<HostName>,
    /// Hosts in quarantine that have not: they get no orders, and take it before they get any.
    pub quarantined: Vec<HostName>,
    /// Hosts that were enrolled and never came: likewise.
    pub never_seen: Vec<HostName>,
}

impl Reached {
    /// Who has taken `version`. Revoked hosts count nowhere.
    #[must_use]
    pub fn of(hosts: &[Host], version: RootVersion, is_connected: impl Fn(HostId) -> bool) -> Self {
        let mut reached = Self::default();
        for host in hosts {
            let has = host.root_version >= version;
            match host.standing {
                HostStanding::Revoked { .. } => continue,
                HostStanding::Quarantined { .. } if !has => reached.quarantined.push(host.name.clone()),
                _ if !has && host.last_seen.is_none() && !is_connected(host.id) => {
                    reached.never_seen.push(host.name.clone());
                }
                _ => {
                    reached.all += 1;
                    if has {
                        reached.acknowledged += 1;
                    } else {
                        reached.waiting.push(host.name.clone());
                    }
                }
            }
        }
        reached
    }

    /// Whether nobody is waited for.
    #[must_use]
    pub const fn is_complete(&self) -> bool {
        self.waiting.is_empty()
    }
}

/// What a shell is to do next for a change; each may be done again after a crash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Note under which version it is published.
    Publish,
    /// Use the new key.
    Activate,
    /// Destroy the old key.
    Retire,
    /// Destroy the fresh key.
    Abort,
}

impl Step {
    /// The state it leads to.
    #[must_use]
    pub const fn leads_to(self) -> ChangeState {
        match self {
            Self::Publish => ChangeState::Published,
            Self::Activate => ChangeState::Activated,
            Self::Retire => ChangeState::Retired,
            Self::Abort => ChangeState::Aborted,
        }
    }
}

/// What can be done now; nothing when it waits for root metadata or for hosts.
#[must_use]
pub fn next_step(change: &KeyChange, root: &RootMetadata, reached: &Reached) -> Option<Step> {
    let keys = &change.keys;
    match change.state {
        ChangeState::Prepared => keys.is_published(root).then_some(Step::Publish),
        ChangeState::Published if !keys.is_published(root) => None,
        // Of the audit key a version lists one: with it, every session verifies heads by the new one. And a stolen key is
        // signed with no longer, whoever has heard of it.
        ChangeState::Published if keys.role == OnlineRole::Audit || keys.is_emergency => Some(Step::Activate),
        ChangeState::Published => (reached.is_complete() || change.is_anyway).then_some(Step::Activate),
        // Standing orders are signed anew between these two: root metadata that drops the key is not taken before hosts that
        // can be asked have them.
        ChangeState::Activated => keys.is_dropped(root).then_some(Step::Retire),
        // It came into force while somebody gave it up: there is one audit key, so this is it.
        ChangeState::Withdrawn if keys.role == OnlineRole::Audit && keys.is_published(root) => Some(Step::Publish),
        ChangeState::Withdrawn => keys.is_withdrawn(root).then_some(Step::Abort),
        ChangeState::Retired | ChangeState::Aborted => None,
    }
}

/// How long a key of that role is used before its rotation is advised.
#[must_use]
pub const fn period(role: OnlineRole) -> DurationMs {
    match role {
        OnlineRole::Command | OnlineRole::Session => limits::SIGNING_KEY_PERIOD,
        OnlineRole::Audit | OnlineRole::Tls => limits::LONG_KEY_PERIOD,
    }
}

/// A key that the control plane or its signer holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeldOnlineKey {
    pub role: OnlineRole,
    pub key: OnlineKey,
    /// It signs, or answers, now.
    pub is_in_use: bool,
    /// Root metadata dropped it: it is never used again.
    pub is_void: bool,
    /// When it was made, where that is known.
    pub made_at: Option<UnixMs>,
}

#[cfg(test)]
mod tests;
