//! A host leaves the fleet at its word: once, whole, and both ends know, whatever is lost on the way.

use envelope::{audit::AuditKind, audit_verify::verify_export, messages::*};
use ids::*;
use session::{
    agent::io::{CloseReason, Retirement},
    frames::{AgentFrame, ControlFrame, RefusalCode},
};

use super::{
    super::{Established, Note, RETIRED, farewell},
    world::{Fate, World},
};
use crate::{
    model::{CommandStatus, HostStanding},
    operation::OperationRequest,
};

impl World {
    fn retire(&mut self) -> CommandId {
        self.order("host.retire", "{}")
    }

    /// What a host that has left is told in place of a session, as the shell does it.
    pub(super) fn farewell(&self, established: &Established) -> Option<[ControlFrame; 2]> {
        let mut open = farewell(established, &self.store.host)?;
        open.time = self.now;
        let open = ControlFrame::Open(self.keys.command.sign(&open).into_envelope());
        Some([open, ControlFrame::Refused { reason: RefusalCode::HostRefused, message: RETIRED.to_owned() }])
    }

    fn has_left(&self) -> bool {
        matches!(self.store.host.standing, HostStanding::Revoked { is_retired: true, .. })
    }

    /// Until the agent is about to say this.
    fn until_said(&mut self, is_it: impl Fn(&AgentFrame) -> bool) {
        while !self.to_control.iter().any(&is_it) {
            let moved = self.step_work() | self.step_control() | self.step_agent();
            self.sync_agent();
            assert!(moved, "it is said");
        }
    }
}

#[test]
fn a_host_that_is_told_to_leave_drops_its_secrets_reports_and_is_gone() {
    let mut world = World::new();
    world.connect();
    let before = world.facts();
    world.settle();
    world.finish(ReportStatus::Succeeded);
    let id = world.retire();
    world.settle();
    assert_eq!((world.status(before), world.status(id)), (CommandStatus::Succeeded, CommandStatus::Succeeded));
    assert!(world.has_left() && world.agent.has_left && !world.agent.has_secrets);
    assert!(world.agent.closed.contains(&CloseReason::Retired));
    assert_eq!(world.closes, [RefusalCode::HostRefused]);
    assert!(world.notes.contains(&Note::Retired));
    assert_eq!(world.store.leaves(AuditKind::HostRevoked), 1);
    let last = world.store.audit.last().map(|entry| entry.kind);
    assert_eq!(last, Some(AuditKind::HostRevoked), "right behind the report, in its transaction");
    verify_export(&world.export(), world.keys.root.public()).expect("the log verifies");
}

#[test]
fn a_dry_run_and_one_that_fails_leave_the_host_where_it_is() {
    let mut world = World::new();
    world.connect();
    let request = world.request("host.retire", "{}");
    let dry = world.propose(OperationRequest { dry_run: true, ..request });
    world.settle();
    world.finish(ReportStatus::Succeeded);
    assert_eq!(world.status(dry), CommandStatus::Succeeded);
    assert!(!world.has_left() && world.agent.has_secrets);
    // Its disk does not let go of them.
    world.agent.keeps_secrets = Some("a read-only file system".to_owned());
    let failed = world.retire();
    world.settle();
    assert_eq!(world.status(failed), CommandStatus::Failed);
    assert!(!world.has_left() && !world.agent.has_left);
    let other = world.facts();
    world.settle();
    assert_eq!(world.status(other), CommandStatus::Rejected, "half gone, it takes no orders");
    // The control: mended, the same order is carried out.
    world.agent.keeps_secrets = None;
    let again = world.retire();
    world.settle();
    assert_eq!(world.status(again), CommandStatus::Succeeded);
    assert!(world.has_left() && world.agent.has_left);
}

#[test]
fn it_waits_for_what_runs_and_nothing_starts_behind_it() {
    let mut world = World::new();
    world.connect();
    let running = world.facts();
    world.settle();
    let id = world.retire();
    let behind = world.facts();
    world.settle();
    assert_eq!(world.agent.running, [running], "nothing starts behind it");
    assert!(world.agent.has_secrets, "what runs may need them");
    // A cancel does not wait, and finds it waiting.
    world.cancel(id);
    world.settle();
    assert_eq!(world.status(id), CommandStatus::Cancelled);
    assert_eq!(world.agent.running.len(), 2, "what was behind it starts now");
    let again = world.retire();
    world.settle();
    world.finish(ReportStatus::Succeeded);
    let ends = [running, behind, again].map(|id| world.status(id));
    assert_eq!(ends, [CommandStatus::Succeeded; 3]);
    assert!(world.has_left() && world.agent.has_left);
}

/// Everything it was told and did not start ends in its own reports, before the last one.
#[test]
fn what_waited_ends_as_refused_and_what_never_arrived_as_cancelled() {
    let mut world = World::new();
    world.connect();
    let running = world.facts();
    world.settle();
    let id = world.retire();
    let waiting = world.facts();
    world.settle();
    world.finish(ReportStatus::Succeeded);
    assert_eq!(world.status(running), CommandStatus::Succeeded);
    assert_eq!(world.status(waiting), CommandStatus::Rejected);
    assert_eq!(world.status(id), CommandStatus::Succeeded);
    assert!(world.store.commands.iter().all(|command| command.status.is_end()));
}

#[test]
fn a_host_that_did_not_hear_that_it_has_left_is_told_so_signed_and_gets_no_session() {
    for fate in [Fate::Applied, Fate::AppliedUnknown, Fate::Lost] {
        let mut world = World::new();
        world.connect();
        let id = world.retire();
        world.until_said(|frame| matches!(frame, AgentFrame::Report(_)));
        while !world.work.iter().any(|work| format!("{work:?}").contains("HostRetire")) {
            assert!(world.step_control() || world.step_work(), "it is stored");
        }
        world.fates.push_back(fate);
        world.step_work();
        // Whatever was said then is lost, and so is the agent's process.
        world.cut();
        world.agent.restart(None);
        assert_eq!(world.agent.disk.retirement, Some(Retirement::Reported), "{fate:?}");
        assert!(!world.agent.disk.has_left(), "{fate:?}: it does not know");
        let opened = world.opened;
        world.connect();
        assert_eq!(world.status(id), CommandStatus::Succeeded, "{fate:?}");
        assert!(world.has_left() && world.agent.has_left, "{fate:?}");
        let is_stored = fate != Fate::Lost;
        assert_eq!(world.opened == opened, is_stored, "{fate:?}: no session follows once it has left");
        assert_eq!(world.store.leaves(AuditKind::HostRevoked), 1, "{fate:?}");
    }
}

#[test]
fn an_agent_killed_anywhere_leaves_all_the_same() {
    // After so many steps of either end it dies, with what was durable by then.
    for steps in 0..200 {
        let mut world = World::new();
        world.connect();
        let id = world.retire();
        let mut moved = true;
        for _ in 0..steps {
            moved = world.step_work() | world.step_control() | world.step_agent();
            if !moved {
                world.sync_agent();
                moved = !world.to_control.is_empty();
            }
        }
        world.cut();
        if !world.agent.has_left {
            world.agent.restart(None);
            world.connect();
        }
        assert_eq!(world.status(id), CommandStatus::Succeeded, "killed after {steps} steps");
        assert!(world.has_left() && world.agent.has_left && !world.agent.has_secrets, "killed after {steps} steps");
        if !moved {
            return;
        }
    }
    panic!("it never comes to an end");
}

#[test]
fn a_word_that_is_not_signed_ends_no_agent() {
    let mut world = World::new();
    world.connect();
    world.retire();
    world.until_said(|frame| matches!(frame, AgentFrame::Report(_)));
    // Somebody with the TLS key alone: the report is thrown away, and the host told that it is revoked.
    world.to_control.clear();
    world.to_agent.clear();
    let message = "revoked".to_owned();
    world.to_agent.push_back(ControlFrame::Refused { reason: RefusalCode::HostRefused, message });
    world.step_agent();
    world.sync_agent();
    assert!(!world.agent.has_left && !world.agent.disk.has_left());
    // The control: the control plane's own word.
    world.connect();
    assert!(world.has_left() && world.agent.has_left);
}
