//! The one lane to the store: reads and writes one after the other, and what each answer changes.

use std::{collections::VecDeque, sync::Arc};

use envelope::{Verified, messages::Report, root::TrustedRoot};
use ids::{CommandId, DurationMs, ReportSequence, UnixMs};
use session::{
    control::OfferedKeys,
    frames::{ActionRef, RefusalCode},
};

use super::{Effect, Entropy, HostSession, Note, Phase, WriteId, opening, reports::Settled, slot};
use crate::{
    limits,
    model::{Command, CommandStatus, Host, HostStanding, Seal},
    ports::{Event, StoreError, Write, Written},
};

/// What is under way.
pub(super) enum Busy {
    Idle,
    Loading,
    /// The command of the first report is being read.
    LoadingCommand(Box<Verified<Report>>),
    /// The operation of the first report's command is being read.
    LoadingOperation(Box<Verified<Report>>, Box<Command>),
    Writing(WriteId, After),
}

/// What follows when a transaction is durable.
pub(super) enum After {
    Sealed { command: CommandId, seal: Seal },
    Staged { command: CommandId, status: CommandStatus, sequence: ids::Sequence },
    Settled(Box<Settled>),
    Ended { command: CommandId, status: CommandStatus, message: String },
    Seen { actions: Vec<ActionRef>, agent_version: String, boots: Vec<ids::BootId>, root_version: ids::RootVersion },
    Quarantined { why: String, close: Option<RefusalCode> },
    Rooted(Option<Arc<TrustedRoot>>),
    Alarmed { why: String, close: RefusalCode },
    KeysRotated(Box<OfferedKeys>),
    KeysRetired { last_report: ReportSequence },
}

impl After {
    fn what(&self) -> &'static str {
        match self {
            Self::Sealed { .. } => "storing a sealed command",
            Self::Staged { .. } => "storing how far a command is",
            Self::Settled(_) => "storing a report",
            Self::Ended { .. } => "ending a command",
            Self::Seen { .. } => "storing what the agent is",
            Self::Quarantined { .. } => "storing a quarantine",
            Self::Rooted(_) => "storing root metadata",
            Self::Alarmed { .. } => "storing an alarm",
            Self::KeysRotated(_) => "storing a host's new keys",
            Self::KeysRetired { .. } => "retiring a host's old key",
        }
    }
}

/// A wait that grows with each failure.
#[derive(Default)]
pub(super) struct Retry {
    at: Option<UnixMs>,
    failures: u32,
}

impl Retry {
    pub(super) const fn at(&self) -> Option<UnixMs> {
        self.at
    }

    /// No wait is longer than [`limits::RETRY_MAX`]: one that seems to be was begun before the clock
    /// was set back, and is over.
    pub(super) fn is_waiting(&self, now: UnixMs) -> bool {
        self.at.is_some_and(|at| now < at && at.since(now) <= limits::RETRY_MAX)
    }

    pub(super) fn failed(&mut self, now: UnixMs, at_once: bool) {
        let delay = limits::RETRY_FIRST.0.saturating_mul(1 << self.failures.min(16)).min(limits::RETRY_MAX.0);
        let delay = if at_once && self.failures == 0 { 0 } else { delay };
        self.at = Some(now.plus(DurationMs(delay)));
        self.failures = self.failures.saturating_add(1);
    }

    /// It may be tried now. How long the next wait is, is not forgotten: reads that succeed say
    /// nothing of writes.
    pub(super) fn ready(&mut self) {
        self.at = None;
    }

    pub(super) fn succeeded(&mut self) {
        *self = Self::default();
    }
}

/// The lane's state.
pub(super) struct Lane {
    pub(super) busy: Busy,
    pub(super) needs_load: bool,
    pub(super) retry: Retry,
    /// Transactions that wait for their turn before everything else.
    pub(super) first: VecDeque<(Write, After)>,
    next_id: u64,
}

impl Lane {
    pub(super) fn new() -> Self {
        Self { busy: Busy::Idle, needs_load: true, retry: Retry::default(), first: VecDeque::new(), next_id: 1 }
    }
}

impl HostSession {
    /// Gives the store its next work, if it has none and nothing must be waited for.
    pub(super) fn lane_next(&mut self, now: UnixMs, entropy: &mut dyn Entropy) {
        while self.phase != Phase::Closed && matches!(self.lane.busy, Busy::Idle) && !self.lane.retry.is_waiting(now) {
            if self.lane.needs_load {
                self.lane.needs_load = false;
                self.lane.busy = Busy::Loading;
                self.out.push(Effect::Load(self.host_id()));
            } else if let Some((write, after)) = self.lane.first.pop_front() {
                self.write(write, after);
            } else if !self.reports.is_empty() {
                self.report_next(now, entropy);
            } else if !self.seal_next(now)
                && !self.void_next(now)
                && !self.refuse_next(now)
                && !self.stage_next(now)
                && !self.expire_next(now)
            {
                break;
            }
        }
    }

    pub(super) fn write(&mut self, write: Write, after: After) {
        let id = WriteId(self.lane.next_id);
        self.lane.next_id += 1;
        self.lane.busy = Busy::Writing(id, after);
        self.out.push(Effect::Write(id, Box::new(write)));
    }

    /// Queues a transaction that goes before everything else.
    pub(super) fn write_first(&mut self, write: Write, after: After) {
        if self.lane.first.len() >= limits::WRITES_WAITING_MAX {
            return self.close(RefusalCode::LimitExceeded, "more changes at once than a session may make");
        }
        self.lane.first.push_back((write, after));
    }

    /// Something with the store failed: nothing more is sent before the state was read again.
    pub(super) fn store_failed(&mut self, what: &'static str, error: StoreError, now: UnixMs) {
        let at_once = matches!(error, StoreError::Conflict(_));
        let corrupt = matches!(error, StoreError::Corrupt(_));
        self.note(Note::StoreFailed { what, error });
        if corrupt {
            return self
                .close(RefusalCode::Unavailable, "the control plane's database is damaged; its owner must look");
        }
        self.lane.needs_load = true;
        self.lane.retry.failed(now, at_once);
        // Their numbers are burned: a failed transaction may or may not have been applied, and what
        // was signed after it must not overtake it.
        self.sealing.burn_waiting();
        for slot in &mut self.slots {
            slot.sealing = false;
        }
    }

    /// The answer to a read.
    pub(super) fn loaded(&mut self, answer: Result<Option<(Host, Vec<Command>)>, StoreError>, now: UnixMs) {
        if !matches!(self.lane.busy, Busy::Loading) {
            return;
        }
        self.lane.busy = Busy::Idle;
        let (host, commands) = match answer {
            Err(error) => return self.store_failed("reading the host", error, now),
            Ok(None) => return self.close(RefusalCode::HostRefused, "no such host; enrol the machine anew"),
            Ok(Some(read)) => read,
        };
        self.lane.retry.ready();
        if matches!(host.standing, HostStanding::Revoked { .. }) {
            return self.close(RefusalCode::HostRefused, opening::REVOKED);
        }
        let first = self.host.is_none();
        self.slots = slot::merge(core::mem::take(&mut self.slots), commands);
        self.sealing.allocated(host.allocated);
        let slots = &self.slots;
        self.stages.retain(|id, _| slots.iter().any(|slot| slot.id() == *id));
        self.host = Some(host);
        self.refuse_unapprovable();
        if first {
            self.begin(now);
            for frame in core::mem::take(&mut self.early) {
                if self.phase != Phase::Closed {
                    self.frame(frame, now);
                }
            }
        }
    }

    /// The answer to a write.
    pub(super) fn written(&mut self, id: WriteId, answer: Result<Written, StoreError>, now: UnixMs) {
        if !matches!(&self.lane.busy, Busy::Writing(current, _) if *current == id) {
            return;
        }
        let Busy::Writing(_, after) = core::mem::replace(&mut self.lane.busy, Busy::Idle) else { return };
        if let Err(error) = answer {
            let what = after.what();
            self.store_failed(what, error, now);
            return self.write_failed(after, now);
        }
        self.lane.retry.succeeded();
        match after {
            After::Sealed { command, seal } => self.sealed(command, seal, now),
            After::Staged { command, status, sequence } => self.staged(command, status, sequence),
            After::Settled(settled) => self.settled(*settled, now),
            After::Ended { command, status, message } => self.ended(command, status, message),
            After::Seen { actions, agent_version, boots, root_version } => {
                if let Some(host) = &mut self.host {
                    (host.actions, host.agent_version) = (actions, agent_version);
                    (host.boots, host.root_version) = (boots, root_version);
                }
                self.out.push(Effect::Publish(Event::Host { host: self.host_id() }));
            }
            After::Quarantined { why, close } => self.quarantined(why, close),
            After::Rooted(None) => {}
            After::Rooted(Some(root)) => {
                self.out.push(Effect::RootAdvanced(root));
                self.close(RefusalCode::Unavailable, "newer root metadata is in force; dial again");
            }
            After::Alarmed { why, close } => {
                self.note(Note::Alarm(why.clone()));
                self.close(close, why);
            }
            After::KeysRotated(keys) => self.keys_rotated(&keys, now),
            After::KeysRetired { last_report } => self.keys_retired(last_report),
        }
    }

    /// What a failed transaction leaves to be done. Reports stay in their queue, stages in theirs,
    /// commands without a number are found again when the state was read.
    fn write_failed(&mut self, after: After, now: UnixMs) {
        match after {
            // Its cause is judged again from what is read, and if it is gone, so is the need.
            After::Quarantined { why, close } => self.quarantine(why, close, now),
            // Whatever is not stored cannot be proven: the session ends all the same.
            After::Alarmed { why, close } => {
                self.note(Note::Alarm(why.clone()));
                self.close(close, why);
            }
            After::Rooted(_) => {
                self.close(RefusalCode::Unavailable, "newer root metadata could not be stored; dial again");
            }
            // It may have been stored or not: the next session shows which.
            After::KeysRotated(_) | After::KeysRetired { .. } => {
                self.close(RefusalCode::Unavailable, "a change of this host's keys could not be stored; dial again");
            }
            After::Sealed { .. }
            | After::Staged { .. }
            | After::Settled(_)
            | After::Ended { .. }
            | After::Seen { .. } => {}
        }
    }

    fn ended(&mut self, command: CommandId, status: CommandStatus, message: String) {
        if let Some(slot) = self.slot_remove(command) {
            self.publish_command(&slot.command, status, message);
        }
    }

    pub(super) fn slot_remove(&mut self, command: CommandId) -> Option<slot::Slot> {
        self.stages.remove(&command);
        let at = self.slots.iter().position(|slot| slot.id() == command)?;
        Some(self.slots.remove(at))
    }

    pub(super) fn slot_mut(&mut self, command: CommandId) -> Option<&mut slot::Slot> {
        self.slots.iter_mut().find(|slot| slot.id() == command)
    }

    pub(super) fn publish_command(&mut self, command: &Command, status: CommandStatus, message: String) {
        let order = &command.order;
        let (command, operation, host) = (order.command, order.operation, order.host);
        self.out.push(Effect::Publish(Event::Command { command, operation, host, status, message }));
    }
}
