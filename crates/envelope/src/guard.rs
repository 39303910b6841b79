//! The replay guard: what makes a command run at most once, whatever is played again.
//!
//! It remembers the highest sequence and the last [`RING_MAX`] commands. It only judges and
//! remembers; its owner makes each change durable before acting on it, and brings the time. The
//! checks go in the order of [`ReplayGuard::judge`]. Two points deserve saying why:
//!
//! - A sequence at or below the highest is UNKNOWN before time is looked at: such a command may have
//!   run long ago, and "expired" would claim that it never did.
//! - A sequence too far ahead never raises the highest, or one stolen signature would use up all
//!   numbers.

use std::collections::{BTreeMap, VecDeque};

use ids::{CommandId, DurationMs, Sequence, Sha256, UnixMs};

use crate::{
    limits::{CLOCK_SKEW_MAX, COMMAND_LIFETIME_MAX, RING_MAX, SEQUENCE_JUMP_MAX},
    messages::Command,
};

/// How far a command got at its host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stage {
    /// Durably accepted, waiting to start.
    Accepted,
    /// Durably started.
    Started,
    /// Ended; its report is on the way.
    Done,
}

/// What the guard remembers of one command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RingEntry {
    pub command: CommandId,
    pub sequence: Sequence,
    /// SHA-256 of the order's encoding: the part that sealing does not change.
    pub order_sha256: Sha256,
    pub stage: Stage,
}

impl RingEntry {
    /// The entry for a command.
    #[must_use]
    pub fn new(command: &Command, stage: Stage) -> Self {
        Self { command: command.order.command, sequence: command.sequence, order_sha256: command.order.sha256(), stage }
    }
}

/// What is to be done with a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// Known from before: answer with the stage, run nothing.
    Known(Stage),
    /// Its id is known with other content: run nothing, and leave the true one's status alone.
    Conflict,
    /// At or below the highest sequence and not remembered: it may or may not have run. Report UNKNOWN.
    Unknown,
    /// Its sequence jumps too far: refuse it, without raising the highest.
    TooFarAhead,
    /// Not its time: refuse it.
    Untimely(Untimely),
    /// New: further checks may accept it.
    Fresh,
}

/// Why it is not a command's time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Untimely {
    /// Its own times contradict each other, or it claims to be valid for longer than any may be.
    #[error("it is valid for longer than {max}, or for no time at all", max = COMMAND_LIFETIME_MAX)]
    Lifetime,
    /// Not yet valid, beyond what clocks may differ.
    #[error("it is valid only {early} from now")]
    NotYet { early: DurationMs },
    /// Came too late to be accepted.
    #[error("it expired {late} ago")]
    Expired { late: DurationMs },
    /// Waited in the queue for longer than whoever ordered it wanted.
    #[error("it had to be delivered {late} ago; order it again")]
    Stale { late: DurationMs },
}

/// Judges a command's times. `now` is the agent's trusted time.
///
/// # Errors
/// The first of: lifetime, not yet, expired, stale.
pub fn check_time(command: &Command, now: UnixMs) -> Result<(), Untimely> {
    if command.expires < command.not_before || command.expires.since(command.not_before) > COMMAND_LIFETIME_MAX {
        return Err(Untimely::Lifetime);
    }
    if now.plus(CLOCK_SKEW_MAX) < command.not_before {
        return Err(Untimely::NotYet { early: command.not_before.since(now) });
    }
    if now > command.expires {
        return Err(Untimely::Expired { late: now.since(command.expires) });
    }
    if now > command.order.deliver_by {
        return Err(Untimely::Stale { late: now.since(command.order.deliver_by) });
    }
    Ok(())
}

/// The highest sequence after a command with `sequence` was accepted or refused.
#[must_use]
pub const fn raise_high(high: Sequence, sequence: Sequence) -> Sequence {
    if sequence.0 > high.0 && !is_too_far(high, sequence) { sequence } else { high }
}

const fn is_too_far(high: Sequence, sequence: Sequence) -> bool {
    sequence.0.saturating_sub(high.0) > SEQUENCE_JUMP_MAX
}

/// Whether one more command can be remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// Yes.
    Free,
    /// Yes, when this one is forgotten in the same transaction.
    Evict(CommandId),
    /// No: every remembered command is open or unreported. Stop reading until one is settled.
    Full,
}

/// Why stored state cannot be a guard's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GuardError {
    /// More entries than are ever kept.
    #[error("the stored replay guard has {count} entries; at most {max} are ever kept", max = RING_MAX)]
    TooMany { count: usize },
    /// Two entries for one command.
    #[error("the stored replay guard names command {command} twice")]
    Duplicate { command: CommandId },
}

/// The guard's memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReplayGuard {
    high: Sequence,
    /// Oldest first.
    order: VecDeque<CommandId>,
    entries: BTreeMap<CommandId, RingEntry>,
}

impl ReplayGuard {
    /// Takes up what was stored; `ring` oldest first.
    ///
    /// # Errors
    /// When the entries cannot have been stored by a guard.
    pub fn restore(high: Sequence, ring: impl IntoIterator<Item = RingEntry>) -> Result<Self, GuardError> {
        let mut guard = Self { high, ..Self::default() };
        for entry in ring {
            let command = entry.command;
            guard.order.push_back(command);
            if guard.entries.insert(command, entry).is_some() {
                return Err(GuardError::Duplicate { command });
            }
        }
        let count = guard.order.len();
        if count > RING_MAX { Err(GuardError::TooMany { count }) } else { Ok(guard) }
    }

    /// The highest sequence seen; 0 before the first.
    #[must_use]
    pub const fn high(&self) -> Sequence {
        self.high
    }

    /// What is remembered of a command.
    #[must_use]
    pub fn get(&self, command: CommandId) -> Option<&RingEntry> {
        self.entries.get(&command)
    }

    /// Everything remembered, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &RingEntry> {
        self.order.iter().filter_map(|command| self.entries.get(command))
    }

    /// Judges a verified command for this host and its epochs: known id, then sequence, then time.
    #[must_use]
    pub fn judge(&self, command: &Command, now: UnixMs) -> Judgement {
        if let Some(entry) = self.get(command.order.command) {
            let same = entry.order_sha256 == command.order.sha256();
            return if same { Judgement::Known(entry.stage) } else { Judgement::Conflict };
        }
        if command.sequence <= self.high {
            return Judgement::Unknown;
        }
        if is_too_far(self.high, command.sequence) {
            return Judgement::TooFarAhead;
        }
        match check_time(command, now) {
            Err(why) => Judgement::Untimely(why),
            Ok(()) => Judgement::Fresh,
        }
    }

    /// Whether one more can be remembered. `is_settled` says of a command that is done whether its
    /// report has been acknowledged; one that is not done is never forgotten.
    pub fn room(&self, is_settled: impl Fn(&RingEntry) -> bool) -> Room {
        if self.order.len() < RING_MAX {
            return Room::Free;
        }
        let settled = |entry: &&RingEntry| entry.stage == Stage::Done && is_settled(entry);
        self.iter().find(settled).map_or(Room::Full, |entry| Room::Evict(entry.command))
    }

    /// Remembers a command that was accepted or refused, forgetting `evict`, and raises the highest
    /// sequence. An entry for the same command is replaced where it stands.
    pub fn remember(&mut self, entry: RingEntry, evict: Option<CommandId>) {
        if let Some(evicted) = evict {
            self.entries.remove(&evicted);
            self.order.retain(|command| *command != evicted);
        }
        self.high = raise_high(self.high, entry.sequence);
        let command = entry.command;
        if self.entries.insert(command, entry).is_none() {
            self.order.push_back(command);
        }
    }

    /// Uses up every sequence up to this one: what was given out under them is not known here and never runs.
    pub fn use_up(&mut self, high: Sequence) {
        self.high = self.high.max(high);
    }

    /// Notes how far a remembered command got. Stages only rise; nothing happens for others.
    pub fn set_stage(&mut self, command: CommandId, stage: Stage) {
        if let Some(entry) = self.entries.get_mut(&command) {
            entry.stage = entry.stage.max(stage);
        }
    }
}
