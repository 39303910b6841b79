//! From the durable state to a running loop: the root chain and every open command are verified
//! again, and what had been started goes on as its action declares.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use envelope::{
    Verified, VerifyError,
    guard::{GuardError, ReplayGuard},
    messages::{Command, GuardReset},
    root::RootError,
    verify,
};
use ids::{Class, CommandId, OnRestart, StandingOrderId};

use super::{
    AgentIdentity, AgentLoop, Guard, QuarantineState, TrustedClock, Turn,
    approvals::Burns,
    audit::AuditSeen,
    intake::{Beside, as_ordered},
    io::*,
    outbox::Outbox,
    roots::Roots,
    rotation::KeyChange,
    run::{Job, JobState},
    standing::StandingOrders,
};
use crate::frames::Stage;

/// Why an agent cannot start from what its journal holds.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The stored chain does not begin with what was pinned at enrolment, or does not follow its rules.
    #[error("the journal's root metadata does not verify; restore the journal or enrol this host anew")]
    Root(#[source] RootError),
    /// The stored replay guard cannot have been stored by one.
    #[error("the journal's replay guard is damaged; restore the journal or enrol this host anew")]
    Guard(#[source] GuardError),
    /// The guard reset that goes with keys under way is not what a command key signed.
    #[error("the journal's guard reset does not verify; restore the journal or enrol this host anew")]
    Reset(#[source] VerifyError),
    /// A standing order is not what a command key signed.
    #[error("the journal's standing order {order} does not verify; restore the journal or enrol this host anew")]
    Standing {
        order: StandingOrderId,
        #[source]
        source: VerifyError,
    },
    /// An accepted command is not what a command key signed.
    #[error("the journal's command {command} does not verify; restore the journal or enrol this host anew")]
    Command {
        command: CommandId,
        #[source]
        source: VerifyError,
    },
    /// A stored command is another than its record says.
    #[error(
        "the journal's command {command} is another than its record says; restore the journal or enrol this host anew"
    )]
    CommandMismatch { command: CommandId },
}

impl AgentLoop {
    /// Takes up the durable state. `state_missing`: the identity key was found and the journal was
    /// not, so this host enters quarantine with its first connection.
    ///
    /// The effects are to be done before the first input is handed in.
    ///
    /// # Errors
    /// When what the journal holds does not verify. Nothing may run then.
    pub fn new(
        mut identity: AgentIdentity,
        state: JournalState,
        state_missing: bool,
        now: Clocks,
        admission: &impl Admission,
    ) -> Result<(Self, Vec<Effect>), LoadError> {
        let roots = Roots::load(identity.root_sha256, &state.root_chain).map_err(LoadError::Root)?;
        let clock = state.clock.filter(|clock| clock.boot == identity.boot && clock.at <= now.boot);
        let reset = state.reset.as_deref().map(|reset| verify::<GuardReset>(reset, roots.command_keys_ever()));
        let reset = reset.transpose().map_err(LoadError::Reset)?.map(Verified::into_value);
        let keys = KeyChange::stored(identity.next.take(), state.keys_offered, reset);
        let contact = state.clock.map(|clock| clock.time);
        let standing = StandingOrders::stored(state.standing, state.standing_revision, contact, &roots)?;
        let mut agent = Self {
            identity,
            keys,
            standing,
            roots,
            roots_next: None,
            guard: Guard {
                memory: ReplayGuard::restore(state.high, state.ring).map_err(LoadError::Guard)?,
                durable_high: state.high,
                pending: BTreeSet::new(),
            },
            burned: Burns::stored(state.burned),
            jobs: BTreeMap::new(),
            waiting: VecDeque::new(),
            outbox: Outbox::new(state.last_report, state.outbox),
            refusals_pending: 0,
            unnumbered: Vec::new(),
            audit: AuditSeen::stored(state.audit_head, state.audit_proved),
            retirement: state.retirement,
            quarantine: state.quarantine.map_or(QuarantineState::No, QuarantineState::In),
            quarantine_why: String::new(),
            state_missing,
            cleared: false,
            clock: clock.map(|clock| TrustedClock { time: clock.time, at: clock.at }),
            connection: None,
            writes_next: 0,
            writes: VecDeque::new(),
            dropped: 0,
            wake: None,
            out: Vec::new(),
        };
        agent.judge_standing_again();
        let turn = Turn { now, admission };
        let (started, accepted): (Vec<_>, Vec<_>) =
            state.open.into_iter().partition(|open| open.stage == Stage::Started);
        // Those that had been started come first: what they hold, they hold already.
        for open in started.into_iter().chain(accepted) {
            agent.take_up(&turn, open)?;
        }
        agent.ask_to_wake(now);
        let effects = core::mem::take(&mut agent.out);
        Ok((agent, effects))
    }

    /// One command without an end.
    fn take_up(&mut self, turn: &Turn<'_, impl Admission>, open: OpenCommand) -> Result<(), LoadError> {
        let id = open.id;
        let command = verify::<Command>(&open.command, self.roots.command_keys_ever())
            .map_err(|source| LoadError::Command { command: id, source })?;
        if command.order.command != id || command.order.host != self.identity.host {
            return Err(LoadError::CommandMismatch { command: id });
        }
        let started = open.stage == Stage::Started;
        let declared = turn.admission.declared(&command.order).map(|admitted| as_ordered(&command.order, admitted));
        let unknown = Admitted {
            class: Class::Destructive,
            on_restart: OnRestart::Unknown,
            kind: AdmittedKind::Free,
            approvals_min: 0,
        };
        let mut admitted = declared.unwrap_or(unknown);
        if matches!(admitted.kind, AdmittedKind::Cancel(_)) {
            // A cancel is done by this loop, and doing it twice does what doing it once does.
            admitted.on_restart = OnRestart::Rerun;
        }
        let on_restart = admitted.on_restart;
        let beside = Beside { sealed: open.sealed, approvals: open.approvals };
        let mut job = Job::new(command, beside, admitted, JobState::Waiting);
        (job.resumed, job.resumptions) = (started, open.resumptions);
        job.cancelled_by = open.cancelled_by;
        // Policy and approvals are asked as well: what they forbid by now may be put back, never carried on.
        job.backwards_only = !self.stands(&job.command);
        match turn.admission.judge(&job.command.order) {
            Ok(judged) => match self.still_approved(&as_ordered(&job.command.order, judged), &job) {
                Ok(plan) => job.plan = plan,
                Err(_) => job.backwards_only = true,
            },
            Err(_) => job.backwards_only = true,
        }
        let resume = started && on_restart == OnRestart::Resume && !job.is_worn_out();
        self.jobs.insert(id, job);
        if resume && self.quarantine == QuarantineState::No && !self.state_missing {
            self.resume(id);
        } else {
            // Everything else waits for a session that shows this state to be no old copy.
            self.waiting.push_back(id);
        }
        Ok(())
    }
}
