//! Whatever the order of events, whatever is lost: every command that was ordered comes to one end,
//! and none runs twice. The world checks what is sent against what is stored at every step.

use envelope::messages::ReportStatus;
use ids::DurationMs;
use proptest::prelude::*;

use super::{
    super::Input,
    world::{Fate, World},
};
use crate::{limits, model::CommandStatus};

#[derive(Clone, Copy, Debug)]
enum Move {
    Work,
    Control,
    Agent,
    Sync,
    Order,
    Rotate,
    Cancel(usize),
    Finish,
    Cut,
    Dial,
    Crash,
    Tick(u64),
    Fate(Fate),
    SignerDown(bool),
    QueueChanged,
}

fn moves() -> impl Strategy<Value = Move> {
    prop_oneof![
        20 => Just(Move::Work),
        20 => Just(Move::Control),
        20 => Just(Move::Agent),
        10 => Just(Move::Sync),
        4 => Just(Move::Order),
        1 => Just(Move::Rotate),
        1 => (0usize..8).prop_map(Move::Cancel),
        4 => Just(Move::Finish),
        1 => Just(Move::Cut),
        3 => Just(Move::Dial),
        1 => Just(Move::Crash),
        4 => (1u64..2_000).prop_map(Move::Tick),
        2 => prop_oneof![Just(Fate::Lost), Just(Fate::AppliedUnknown)].prop_map(Move::Fate),
        1 => any::<bool>().prop_map(Move::SignerDown),
        2 => Just(Move::QueueChanged),
    ]
}

fn play(world: &mut World, next: Move) {
    match next {
        Move::Work => drop(world.step_work()),
        Move::Control => drop(world.step_control()),
        Move::Agent => drop(world.step_agent()),
        Move::Sync => world.sync_agent(),
        Move::Order => drop(world.facts()),
        Move::Rotate => drop(world.rotate()),
        Move::Cancel(at) => {
            let open = world.store.commands.iter().filter(|command| !command.status.is_end());
            let mut plain = open.filter(|command| command.order.action.as_str() != "command.cancel");
            if let Some(command) = plain.nth(at).map(|command| command.order.command) {
                world.cancel(command);
            }
        }
        Move::Finish => {
            let sent = world.agent.finish(ReportStatus::Succeeded, &serde_json::Value::Null);
            world.to_control.extend(sent);
        }
        Move::Cut => world.cut(),
        Move::Dial => world.dial(),
        Move::Crash => {
            world.cut();
            world.agent.restart(None);
        }
        Move::Tick(ms) => {
            world.advance(DurationMs(ms));
            world.tell(Input::Tick);
        }
        Move::Fate(fate) => world.fates.push_back(fate),
        Move::SignerDown(down) => world.signer_down = down,
        Move::QueueChanged => world.tell(Input::QueueChanged),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, max_shrink_iters: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn every_command_comes_to_one_end_and_none_runs_twice(moves in proptest::collection::vec(moves(), 1..300)) {
        let mut world = World::new();
        world.dial();
        for next in moves {
            play(&mut world, next);
        }
        world.fates.clear();
        world.signer_down = false;
        world.connect();
        for round in 0..60 {
            if round % 6 == 0 {
                // After a rotation an agent dials anew.
                world.connect();
            }
            world.finish(ReportStatus::Succeeded);
            world.pass(limits::RETRY_MAX);
        }
        for command in &world.store.commands {
            prop_assert!(command.status.is_end(), "{} {} is {}", command.order.action, command.order.command, command.status);
            prop_assert_ne!(command.status, CommandStatus::Unknown);
        }
        prop_assert!(world.agent.disk.outbox.is_empty());
        prop_assert_eq!(&world.store.host.standing, &crate::model::HostStanding::Active);
    }
}

/// Three orders are lost. The first one comes anew, under a number above theirs, and changes the host's keys before the
/// last is sent: the next session must not take that one for arrived.
#[test]
fn a_number_that_overtakes_does_not_make_unknown_what_never_arrived() {
    let mut world = World::new();
    world.connect();
    world.rotate();
    world.facts();
    let last = world.facts();
    while world.store.command(last).is_none_or(|command| command.seals.is_empty()) {
        world.step_work();
    }
    world.cut();
    for _ in 0..3 {
        world.connect();
        world.finish(ReportStatus::Succeeded);
    }
    assert_eq!(world.status(last), CommandStatus::Succeeded);
    assert!(world.store.command(last).is_some_and(|command| command.seals.len() > 1), "it was lost once");
}
