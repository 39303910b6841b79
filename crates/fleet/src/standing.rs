//! Standing orders as the control plane keeps them: what was signed of each, what its host has taken, and what is to be
//! signed anew. A host's word is the end of the command that brought a signature; nothing else is kept of it, so what is
//! said here follows from those commands.

use envelope::messages::RootMetadata;
use ids::{
    ActionName, DurationMs, Epoch, HostEpoch, HostId, HostName, KeyId, OperationId, Revision, StandingOrderId, UnixMs,
    UserName,
};

use crate::{
    limits,
    model::{CommandStatus, Host, HostStanding},
};

/// One standing order of one host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StandingRecord {
    pub order: StandingOrderId,
    pub host: HostId,
    pub host_name: HostName,
    pub action: ActionName,
    pub action_version: u32,
    pub schedule: String,
    pub zone: String,
    pub valid_until: UnixMs,
    /// How long it goes on without a session of its host.
    pub alone_for: DurationMs,
    pub requested_by: UserName,
    pub created_at: UnixMs,
    /// What was ordered about it, oldest first: from the last signature that its host has taken on. At least one.
    pub steps: Vec<StandingStep>,
}

/// Something that was ordered about a standing order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StandingStep {
    pub kind: StepKind,
    pub operation: OperationId,
    /// What was signed for it; nothing for the end of the order.
    pub seal: Option<StandingSeal>,
    pub at: UnixMs,
    /// How its command ended; none while it has no end.
    pub ended: Option<CommandStatus>,
    /// Its command has no end, and waits for nobody's approval.
    pub is_under_way: bool,
    /// What is said of it.
    pub message: String,
}

/// Kinds of step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StepKind {
    Install,
    Renew,
    Drop,
}

impl StepKind {
    /// Every one.
    pub const ALL: [Self; 3] = [Self::Install, Self::Renew, Self::Drop];

    /// As the database has it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Install => "install",
            Self::Renew => "renew",
            Self::Drop => "drop",
        }
    }

    /// The kind of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name)
    }
}

/// What makes a signature count on its host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StandingSeal {
    pub revision: Revision,
    /// The command key that signed.
    pub key: KeyId,
    pub host_epoch: HostEpoch,
    pub epoch: Epoch,
}

impl StandingSeal {
    /// Whether it counts as that one does.
    #[must_use]
    pub fn counts_as(&self, other: &Wanted) -> bool {
        (self.key, self.host_epoch, self.epoch) == (other.key, other.host_epoch, other.epoch)
    }
}

/// What a signature has to be made with now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The command key in use.
    pub key: KeyId,
    pub host_epoch: HostEpoch,
    pub epoch: Epoch,
}

impl Wanted {
    /// Of that host, under that root metadata.
    #[must_use]
    pub const fn of(host: &Host, root: &RootMetadata, key: KeyId) -> Self {
        Self { key, host_epoch: host.host_epoch, epoch: root.epoch }
    }
}

/// How a standing order stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StandingState {
    /// On its way to its host, or waits for people.
    Installing,
    /// Its host has it.
    Installed,
    /// Its host never took it.
    Refused,
    /// Its host is told to drop it.
    Dropping,
    /// Its host has dropped it.
    Dropped,
}

impl StandingState {
    /// As the API has it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Installing => "installing",
            Self::Installed => "installed",
            Self::Refused => "refused",
            Self::Dropping => "dropping",
            Self::Dropped => "dropped",
        }
    }
}

impl StandingRecord {
    /// What its host has taken last.
    #[must_use]
    pub fn held(&self) -> Option<StandingSeal> {
        self.steps.iter().rev().filter(|step| step.is_done()).find_map(|step| step.seal)
    }

    /// The highest revision that was signed of it.
    #[must_use]
    pub fn last(&self) -> Revision {
        self.steps.iter().filter_map(|step| step.seal).map(|seal| seal.revision).max().unwrap_or_default()
    }

    /// How it stands.
    #[must_use]
    pub fn state(&self) -> StandingState {
        let drops = || self.steps.iter().filter(|step| step.kind == StepKind::Drop);
        if drops().any(StandingStep::is_done) {
            return StandingState::Dropped;
        }
        if drops().any(|step| step.ended.is_none()) {
            return StandingState::Dropping;
        }
        match (self.held(), self.is_open()) {
            (Some(_), _) => StandingState::Installed,
            (None, true) => StandingState::Installing,
            (None, false) => StandingState::Refused,
        }
    }

    /// Whether something ordered about it has no end yet.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.steps.iter().any(|step| step.ended.is_none())
    }

    /// Why what was ordered last did not come about, if it did not.
    #[must_use]
    pub fn problem(&self) -> Option<&str> {
        let last = self.steps.last()?;
        (last.ended.is_some() && !last.is_done()).then_some(last.message.as_str())
    }

    /// Whether it does not run on its host any more until it is signed anew.
    #[must_use]
    pub fn is_outdated(&self, wanted: &Wanted) -> bool {
        self.state() == StandingState::Installed && self.held().is_some_and(|held| !held.counts_as(wanted))
    }

    /// Whether it is to be signed anew now. `told` is the highest revision that its host, by its own last word, has taken.
    #[must_use]
    pub fn is_renewal_due(&self, wanted: &Wanted, told: Option<Revision>, now: UnixMs) -> bool {
        if !self.is_outdated(wanted) || self.is_open() || now >= self.valid_until {
            return false;
        }
        let Some(last) = self.steps.last() else { return false };
        match (last.kind, last.seal, last.ended) {
            // The host says no, and nothing has changed since that could change its answer.
            (StepKind::Renew, Some(seal), Some(CommandStatus::Rejected)) if seal.counts_as(wanted) => {
                told.is_some_and(|told| told >= seal.revision)
            }
            (StepKind::Renew, _, Some(CommandStatus::Succeeded)) => true,
            (StepKind::Renew, Some(seal), _) if seal.counts_as(wanted) => {
                now.since(last.at) >= limits::STANDING_RENEWAL_RETRY
            }
            _ => true,
        }
    }

    /// Whether it still rests on that command key, or is about to, and its host, which can be asked, has not said otherwise.
    #[must_use]
    pub fn waits_under(&self, key: KeyId, host: &Host, now: UnixMs) -> bool {
        let is_of_key = |seal: Option<StandingSeal>| seal.is_some_and(|seal| seal.key == key);
        let refused_since = self.steps.last().is_some_and(|last| {
            last.ended == Some(CommandStatus::Rejected) && last.seal.is_some_and(|seal| seal.key != key)
        });
        let rests = match self.state() {
            StandingState::Installed => is_of_key(self.held()) && !refused_since,
            StandingState::Installing => self.steps.iter().any(|step| step.is_under_way && is_of_key(step.seal)),
            StandingState::Refused | StandingState::Dropping | StandingState::Dropped => false,
        };
        rests && host.standing == HostStanding::Active && now < self.valid_until
    }
}

impl StandingStep {
    fn is_done(&self) -> bool {
        self.ended == Some(CommandStatus::Succeeded)
    }
}

/// The highest revision that a host says it has taken, in the result of a report that refuses an order of it.
#[must_use]
pub fn told_revision(result: &serde_json::Value) -> Option<Revision> {
    result.get("highest_revision")?.as_u64().map(Revision)
}

#[cfg(test)]
mod tests;
