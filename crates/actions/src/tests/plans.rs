//! A dry run is a plan that a person may have to approve: on a host that has not changed it says the very same,
//! byte for byte, whichever command of the operation asks; on one that has, something else.

use super::scene::{context, deploy, ends, lifecycle, picture, remove, run, shop_with, world};
use crate::{Request, outcome::OutcomeStatus::Succeeded, simulated::SimulatedWorld};

/// What the dry run says, for the n-th command of one operation.
fn plan(world: &mut SimulatedWorld, request: &Request, command: u8) -> String {
    let before = picture(world);
    let mut context = context(command);
    context.operation = super::scene::context(9).operation;
    context.dry_run = true;
    let outcome = run(world, request, &context);
    assert_eq!(outcome.status, Succeeded, "{}", outcome.message);
    assert_eq!(picture(world), before, "a dry run changes nothing");
    format!("{} {}", outcome.message, outcome.result)
}

#[test]
fn a_plan_is_the_same_until_the_host_changes() {
    // Whether it says something else when one service was stopped meanwhile: what is replaced or removed is the
    // same whether it runs or not.
    let orders = [
        (deploy(shop_with("web:2")), false),
        (remove(), false),
        (lifecycle("stop", &[]), true),
        (lifecycle("stop", &["web"]), true),
    ];
    for (order, differs) in &orders {
        let mut world = world();
        ends(&mut world, &deploy(shop_with("web:1")), 1, Succeeded);
        let first = plan(&mut world, order, 2);
        world.clock = world.clock.plus(ids::DurationMs(60_000));
        assert_eq!(plan(&mut world, order, 3), first, "nothing changed but the time");
        ends(&mut world, &lifecycle("stop", &["web"]), 4, Succeeded);
        let after = plan(&mut world, order, 5);
        assert_eq!(after != first, *differs, "{first}\n{after}");
        ends(&mut world, &lifecycle("start", &[]), 6, Succeeded);
        assert_eq!(plan(&mut world, order, 7), first, "it is as it was");
    }
}

#[test]
fn what_a_removal_takes_away_is_in_its_plan() {
    let mut world = world();
    ends(&mut world, &deploy(shop_with("web:1")), 1, Succeeded);
    let first = plan(&mut world, &remove(), 2);
    let only_db = {
        let mut spec = shop_with("web:1");
        spec["services"].as_object_mut().unwrap().remove("web");
        spec
    };
    ends(&mut world, &deploy(only_db), 3, Succeeded);
    assert_ne!(plan(&mut world, &remove(), 4), first);
}
