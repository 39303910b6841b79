//! What must hold, whatever happens. Checked where a thing happens and after every step.

use std::collections::{BTreeMap, BTreeSet};

use actions::Request;
use envelope::{audit::AuditKind, messages::LogPosition};
use fleet::model::{Command, CommandStatus, HostStanding};
use ids::{CommandId, DurationMs, HostId, ReportSequence, UnixMs};
use session::{agent::io::StartCommand, frames::Stage};

use crate::{agent::SimHost, memory_store::MemoryStore};

/// Longest an agent's idea of the time lags behind the signer's: a session-open that is older than
/// the time an authentication may take is never taken.
const TIME_LAG_MAX: DurationMs = DurationMs::from_secs(5);
/// What the replay guard tolerates.
const SKEW_TOLERATED: DurationMs = DurationMs::from_secs(30);

/// Longest line of a trace.
const TRACE_CHARS_MAX: usize = 240;

/// An invariant that was broken. The seed and the step make it happen again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Seed of the run.
    pub seed: u64,
    /// Step after which it was seen.
    pub step: u32,
    /// What was broken, with ids.
    pub what: String,
    /// What happened, when the run was traced.
    pub trace: Vec<String>,
}

impl core::fmt::Display for Violation {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        for line in &self.trace {
            writeln!(f, "{line}")?;
        }
        write!(f, "seed {}, step {}: {}", self.seed, self.step, self.what)
    }
}

impl std::error::Error for Violation {}

/// What was really done to the hosts, kept outside every process that can be killed.
#[derive(Default)]
pub(crate) struct Ledger {
    work: BTreeMap<(HostId, CommandId), Work>,
    ended: BTreeMap<CommandId, CommandStatus>,
    /// Commands that a cancellation was reported to have stopped, and how often the effect of each had happened by then.
    stopped: BTreeMap<CommandId, u32>,
    /// Hosts that came back from an old copy of their disk: what they forgot, they do not know.
    restored: BTreeSet<HostId>,
    /// Least and most that the control plane's clock was off, in milliseconds.
    clock: (i64, i64),
    /// Times an agent refused the audit log it was shown.
    pub(crate) refusals: usize,
    pub(crate) broken: Option<String>,
    /// What happened, in lines, if anybody wants to read it.
    pub(crate) trace: Option<Vec<String>>,
}

/// What one command did to its host.
#[derive(Clone, Copy, Default)]
pub(crate) struct Work {
    /// Starts that did not say that they go on with an earlier one.
    fresh_starts: u32,
    /// How often its effect was performed (it is idempotent).
    pub(crate) effects: u32,
}

impl Ledger {
    /// Notes what happened, when the run is traced.
    pub(crate) fn note(&mut self, line: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            trace.push(line().chars().take(TRACE_CHARS_MAX).collect());
        }
    }

    pub(crate) fn break_it(&mut self, what: String) {
        self.broken.get_or_insert(what);
    }

    fn must(&mut self, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            self.break_it(what());
        }
    }

    /// Whether a machine ever did that.
    pub(crate) fn was_restored(&self, host: HostId) -> bool {
        self.restored.contains(&host)
    }

    /// Whether the control plane's clock was ever set.
    pub(crate) fn clock_was_set(&self) -> bool {
        self.clock != (0, 0)
    }

    /// A machine came back from an old copy of its disk.
    pub(crate) fn restored(&mut self, host: HostId) {
        self.restored.insert(host);
    }

    /// The control plane's clock is so far off now.
    pub(crate) fn control_clock(&mut self, skew: i64) {
        self.clock = (self.clock.0.min(skew), self.clock.1.max(skew));
    }

    /// How often the effect of a command had happened when its cancellation was reported to have stopped it.
    fn stopped(&self, host: HostId, command: CommandId) -> Option<u32> {
        self.stopped.get(&command).copied().filter(|_| !self.restored.contains(&host))
    }

    /// A command starts: only once, only what is durable, only in time.
    pub(crate) fn start(&mut self, host: &SimHost, start: &StartCommand, now: UnixMs) {
        let order = &start.command.order;
        let id = order.command;
        let stage = host.disk.ring.iter().find(|entry| entry.command == id).map(|entry| entry.stage);
        self.must(stage == Some(Stage::Started), || {
            format!("command {id} starts, and its start is not durable: {stage:?}")
        });
        self.must(order.host == host.id, || {
            format!("command {id} starts at host {}, and is for {}", host.id, order.host)
        });
        self.must(start.backwards_only || host.has_authority(&start.command), || {
            format!("command {id} starts, and its key or its epoch is not in root metadata any more")
        });
        let may_go_on = self.stopped(host.id, id).is_none() || (start.resumed && start.cancelled);
        self.must(may_go_on, || format!("command {id} starts, and a cancellation was reported to have stopped it"));
        let work = self.work.entry((host.id, id)).or_default();
        if start.resumed {
            return;
        }
        work.fresh_starts += 1;
        let starts = work.fresh_starts;
        self.must(starts == 1, || format!("command {id} starts {starts} times"));
        // Times in orders are the control plane's, whose clock may have been set in between.
        let set_by = DurationMs(self.clock.1.abs_diff(self.clock.0));
        let latest = order.deliver_by.plus(DurationMs(order.start_within_ms)).plus(SKEW_TOLERATED).plus(TIME_LAG_MAX);
        let latest = latest.plus(set_by);
        self.must(now <= latest, || format!("command {id} starts {} after it could have been", now.since(latest)));
    }

    /// An agent ends for good: its last report is stored, and its host dropped its secrets before.
    pub(crate) fn left(&mut self, host: &SimHost) {
        let is_over = host.disk.has_left() && !host.has_secrets;
        self.must(is_over, || format!("host {} leaves, and has not done with it", host.id));
    }

    /// Of a host that has left both ends know: the control plane when its agent has ended, and its secrets are gone when
    /// the control plane says so.
    pub(crate) fn check_retired(&mut self, store: &MemoryStore, host: &SimHost) {
        let is_retired = matches!(store.hosts[&host.id].standing, HostStanding::Revoked { is_retired: true, .. });
        let is_known = is_retired || matches!(store.hosts[&host.id].standing, HostStanding::Revoked { .. });
        self.must(!host.has_left || is_known, || format!("host {} has left, and nobody knows", host.id));
        self.must(!is_retired || !host.has_secrets || self.was_restored(host.id), || {
            format!("host {} is retired, and has its secrets", host.id)
        });
    }

    /// A command's effect happens.
    pub(crate) fn effect(&mut self, host: HostId, command: CommandId) {
        let may_go_on = self.stopped(host, command).is_none();
        self.must(may_go_on, || {
            format!("command {command} went on, and a cancellation was reported to have stopped it")
        });
        self.work.entry((host, command)).or_default().effects += 1;
    }

    fn work(&self, host: HostId, command: CommandId) -> Work {
        self.work.get(&(host, command)).copied().unwrap_or_default()
    }

    /// A command goes out: only what is stored.
    pub(crate) fn sent(&mut self, store: &MemoryStore, envelope: &[u8]) {
        let is_stored = |command: &Command| command.seals.iter().any(|seal| seal.envelope == envelope);
        self.must(store.commands.values().any(is_stored), || "a command was sent before it was stored".to_owned());
    }

    /// A report is acknowledged: only what is stored.
    pub(crate) fn acknowledged(&mut self, store: &MemoryStore, host: HostId, sequence: ReportSequence) {
        let stored = store.hosts[&host].last_report.sequence;
        self.must(sequence <= stored, || format!("report {sequence} was acknowledged, and only {stored} are stored"));
    }

    /// After every step.
    pub(crate) fn check(&mut self, store: &MemoryStore) {
        for (id, command) in &store.commands {
            self.check_approved(store, *id, command);
            if self.check_command(*id, command) {
                self.note_cancel(store, command);
            }
        }
        for host in store.hosts.values() {
            let (allocated, acknowledged) = (host.allocated, host.acknowledged);
            self.must(acknowledged <= allocated, || format!("host {} acknowledged what was never sent", host.name));
        }
    }

    /// No effect without authority: what people must approve has not begun before they had.
    fn check_approved(&mut self, store: &MemoryStore, id: CommandId, command: &Command) {
        let needed = store.operations.get(&command.order.operation).map_or(0, |operation| operation.approvals);
        let has_begun = self.work(command.order.host, id).fresh_starts > 0;
        let is_approved = command.approvals.len() >= usize::try_from(needed).unwrap_or(usize::MAX);
        self.must(command.order.dry_run || !has_begun || is_approved, || {
            format!("command {id} has begun, and {needed} people had to approve it")
        });
    }

    /// From here on what it stopped does nothing more.
    fn note_cancel(&mut self, store: &MemoryStore, command: &Command) {
        let order = &command.order;
        if command.status != CommandStatus::Succeeded || order.dry_run {
            return;
        }
        let request = Request::decode(&order.action, order.action_version, &order.parameters);
        let Ok(Request::CommandCancel(cancel)) = request else { return };
        let is_open = store.commands.get(&cancel.command_id).is_some_and(|target| !target.status.is_end());
        if is_open && !self.stopped.contains_key(&cancel.command_id) {
            let effects = self.work(order.host, cancel.command_id).effects;
            self.stopped.insert(cancel.command_id, effects);
        }
    }

    /// Whether it ended just now.
    fn check_command(&mut self, id: CommandId, command: &Command) -> bool {
        let status = command.status;
        if let Some(before) = self.ended.get(&id).copied() {
            self.must(before == status, || format!("command {id} ended {before} and is {status} now"));
            return false;
        }
        if !status.is_end() {
            return false;
        }
        self.ended.insert(id, status);
        let work = self.work(command.order.host, id);
        let has_report = command.report.is_some();
        match status {
            CommandStatus::Succeeded => {
                self.must(has_report, || format!("command {id} succeeded without a report"));
                self.must(work.fresh_starts <= 1, || format!("command {id} succeeded after several starts"));
                self.must(self.stopped(command.order.host, id) != Some(0), || {
                    format!("command {id} succeeded, and it was stopped before it did anything")
                });
            }
            CommandStatus::Rejected | CommandStatus::Expired => {
                self.must(work.fresh_starts == 0, || format!("command {id} ended {status} and had started"));
            }
            CommandStatus::Cancelled if !has_report => {
                self.must(work.fresh_starts == 0, || {
                    format!("command {id} was cancelled in the queue and had started")
                });
            }
            _ => {}
        }
        true
    }

    /// At the end the log and those who saw it agree: every head that a host holds or has reported is a beginning of
    /// the log, every sealed version has its leaf, and every report that ended a command.
    pub(crate) fn check_log(&mut self, store: &MemoryStore, seen: &[(HostId, Option<LogPosition>)]) {
        let reported = store.hosts.values().map(|host| (host.id, host.audit_head));
        for (host, head) in seen.iter().copied().chain(reported) {
            let Some(head) = head else { continue };
            let is_beginning = store.audit.root_at(head.size) == Some(head.root);
            self.must(is_beginning, || format!("host {host} saw the log at size {}, and it was another", head.size));
        }
        let leaves = |kind| store.audit.kinds.iter().filter(|found| **found == kind).count();
        let seals: usize = store.commands.values().map(|command| command.seals.len()).sum();
        let reports = store.commands.values().filter(|command| command.report.is_some()).count();
        let (sealed, reported) = (leaves(AuditKind::Command), leaves(AuditKind::Report));
        self.must(sealed == seals, || format!("{seals} sealed versions and {sealed} leaves of them"));
        self.must(reported >= reports, || format!("{reports} commands have a report, and there are {reported} leaves"));
    }

    /// At the end: nothing that started late may contradict an end that is final.
    pub(crate) fn check_end(&mut self, store: &MemoryStore) {
        for (id, command) in &store.commands {
            let work = self.work(command.order.host, *id);
            let never_ran = matches!(command.status, CommandStatus::Rejected | CommandStatus::Expired)
                || (command.status == CommandStatus::Cancelled && command.report.is_none());
            self.must(!never_ran || work.fresh_starts == 0, || {
                format!("command {id} ended {} and started", command.status)
            });
        }
    }
}
