//! Everything at once, in random order: deliveries, re-sealing, cuts, crashes at every write, finishes.
//! The shell in `support` checks at each effect that what it rests on is durable; here the end is checked.

mod support;

use std::collections::BTreeSet;

use envelope::messages::{Order, ReportPosition, ReportStatus};
use ids::{CommandId, DurationMs};
use proptest::prelude::*;
use session::{
    agent::io::CloseReason,
    control::{ReportVerdict, Standing},
    frames::{ControlFrame, Stage},
};
use support::World;

#[derive(Clone, Debug)]
enum Move {
    Dial,
    Cut,
    /// A new order of one of some kinds.
    Order(usize),
    /// The control plane sends an earlier order again: the same bytes, or sealed anew.
    Again {
        which: usize,
        sealed_anew: bool,
    },
    Cancel(usize),
    PlaneTakes,
    HostTakes,
    SyncOne,
    SyncAll,
    Finish(usize),
    /// The agent dies; the disk kept so many of the writes that were not acknowledged.
    Crash {
        keep: usize,
    },
    Pass(u64),
    /// A frame on its way to the agent comes twice.
    Duplicate,
    ForbidOrAllow,
}

fn any_move() -> impl Strategy<Value = Move> {
    prop_oneof![
        2 => Just(Move::Dial),
        1 => Just(Move::Cut),
        4 => (0..6usize).prop_map(Move::Order),
        3 => (any::<usize>(), any::<bool>()).prop_map(|(which, sealed_anew)| Move::Again { which, sealed_anew }),
        1 => any::<usize>().prop_map(Move::Cancel),
        12 => Just(Move::PlaneTakes),
        12 => Just(Move::HostTakes),
        12 => Just(Move::SyncOne),
        2 => Just(Move::SyncAll),
        4 => any::<usize>().prop_map(Move::Finish),
        2 => (0..4usize).prop_map(|keep| Move::Crash { keep }),
        2 => (0..400_000u64).prop_map(Move::Pass),
        1 => Just(Move::Duplicate),
        1 => Just(Move::ForbidOrAllow),
    ]
}

const KINDS: [(&str, &str); 6] = [
    ("host.facts", ""),
    ("app.deploy", "shop"),
    ("app.deploy", "blog"),
    ("app.restart", "shop"),
    ("job.run", "shop"),
    ("disk.wipe", ""),
];

struct Run {
    world: World,
    orders: Vec<(Order, Vec<u8>)>,
    /// Cancels, and what each is to stop.
    cancels: Vec<(CommandId, CommandId)>,
    /// Ids that ever were durably in the ring.
    taken: BTreeSet<CommandId>,
}

impl Run {
    fn new() -> Self {
        Self { world: World::new(), orders: Vec::new(), cancels: Vec::new(), taken: BTreeSet::new() }
    }

    fn send(&mut self, envelope: Vec<u8>) {
        if self.world.plane.is_fit() {
            self.world.to_host.push(ControlFrame::Deliver {
                command: envelope,
                sealed: Vec::new(),
                approvals: Vec::new(),
            });
        }
    }

    fn order(&mut self, action: &str, parameters: &str) {
        if !self.world.plane.is_fit() {
            return;
        }
        let order = self.world.order(action, parameters);
        let envelope = self.world.plane.seal(&self.world.keys.command, &order, self.world.host.now.wall);
        self.orders.push((order, envelope.clone()));
        self.send(envelope);
    }

    fn step(&mut self, step: &Move) {
        match step {
            Move::Dial => self.world.dial(),
            Move::Cut => self.world.cut(),
            Move::Order(kind) => self.order(KINDS[*kind].0, KINDS[*kind].1),
            Move::Again { which, sealed_anew } => self.again(*which, *sealed_anew),
            Move::Cancel(which) => {
                if let Some((order, _)) = self.orders.get(which % self.orders.len().max(1)) {
                    let (target, before) = (order.command, self.orders.len());
                    self.order("command.cancel", &target.to_string());
                    self.cancels.extend(self.orders.get(before).map(|(cancel, _)| (cancel.command, target)));
                }
            }
            Move::PlaneTakes => {
                self.world.step_plane();
            }
            Move::HostTakes => {
                self.world.step_host();
            }
            Move::SyncOne => {
                let sent = self.world.host.sync_one();
                self.world.to_plane.extend(sent);
            }
            Move::SyncAll => self.world.sync(),
            Move::Finish(which) => self.finish(*which),
            Move::Crash { keep } => self.world.crash(*keep),
            Move::Pass(milliseconds) => self.world.advance(DurationMs(*milliseconds)),
            Move::Duplicate => {
                if let Some(frame @ ControlFrame::Deliver { .. }) = self.world.to_host.first().cloned() {
                    self.world.to_host.insert(0, frame);
                }
            }
            Move::ForbidOrAllow => self.world.host.registry.forbidden ^= true,
        }
        self.check();
    }

    fn again(&mut self, which: usize, sealed_anew: bool) {
        if self.orders.is_empty() || !self.world.plane.is_fit() {
            return;
        }
        let at = which % self.orders.len();
        if sealed_anew {
            let order = self.orders[at].0.clone();
            self.orders[at].1 = self.world.plane.seal(&self.world.keys.command, &order, self.world.host.now.wall);
        }
        let envelope = self.orders[at].1.clone();
        self.send(envelope);
    }

    fn finish(&mut self, which: usize) {
        let running: Vec<CommandId> = self.world.host.running.keys().copied().collect();
        if let Some(id) = running.get(which % running.len().max(1)) {
            let end = session::agent::end_message(ReportStatus::Succeeded, "done", &serde_json::Value::Null);
            self.world.host.running.remove(id);
            self.world.host_input(session::agent::io::Input::Finished { command: *id, end });
        }
    }

    /// What must hold after every step.
    fn check(&mut self) {
        let disk = &self.world.host.disk;
        self.taken.extend(disk.ring.iter().map(|entry| entry.command));
        for entry in &disk.ring {
            let open = disk.open.iter().any(|open| open.id == entry.command && open.stage == entry.stage);
            assert_eq!(open, entry.stage != Stage::Done, "ring and open commands agree");
        }
        for (cancel, target) in &self.cancels {
            let is_taken = self.world.status(*cancel) == Some(ReportStatus::Succeeded);
            let is_lost = disk.open.iter().any(|open| open.id == *target && open.cancelled_by.is_none());
            assert!(!(is_taken && is_lost), "{cancel} was reported as taken, and {target} does not know of it");
        }
        let mut previous = disk.outbox.first().map(|first| first.sequence.0);
        for report in disk.outbox.iter().skip(1) {
            assert_eq!(Some(report.sequence.0), previous.map(|n| n + 1), "no gap in the outbox");
            previous = Some(report.sequence.0);
        }
        let last = disk.last_report.unwrap_or(ReportPosition::START);
        assert!(disk.outbox.last().is_none_or(|report| report.sequence == last.sequence));
        assert!(self.world.plane.last_report.sequence <= last.sequence, "nothing was sent that was not durable");
        assert!(self.world.plane.acknowledged <= disk.high, "nothing was acknowledged that was not durable");
        assert!(self.world.plane.standing.is_none() || self.world.plane.is_fit(), "{:?}", self.world.plane.standing);
        assert!(self.world.host.agent.quarantine().is_none());
        for verdict in self.world.plane.verdicts.drain(..) {
            assert!(matches!(verdict, ReportVerdict::Next | ReportVerdict::Duplicate), "{verdict:?}");
        }
        for (retry, why) in self.world.host.closed.drain(..) {
            let expected = matches!(why, CloseReason::AuthenticationTimeout { .. } | CloseReason::Renewal);
            assert!(retry && expected, "{why:?}");
        }
    }

    /// Everything calms down: connect, run everything to its end, take every report.
    fn calm(&mut self) {
        self.world.host.registry.forbidden = false;
        for _ in 0..3 {
            self.world.connect();
            self.check();
            while let Some(id) = self.world.host.running.keys().next().copied() {
                self.world.host.running.remove(&id);
                self.world.finish(id);
                self.check();
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_nothing_runs_twice_and_everything_ends_once(
        moves in proptest::collection::vec(any_move(), 1..300)
    ) {
        let mut run = Run::new();
        run.world.connect();
        for step in &moves {
            run.step(step);
        }
        run.calm();
        prop_assert_eq!(run.world.plane.standing.clone(), Some(Standing::Fit));
        prop_assert!(run.world.host.disk.open.is_empty(), "every command has an end");
        prop_assert!(run.world.host.disk.outbox.is_empty(), "every report was taken");
        for id in &run.taken {
            prop_assert_eq!(run.world.plane.reports_of(*id), 1, "one report for {}", id);
        }
        prop_assert_eq!(run.world.plane.reports.len(), run.taken.len());
        for (id, (_, fresh)) in &run.world.host.starts {
            prop_assert!(*fresh <= 1, "{} was started twice", id);
        }
    }
}
