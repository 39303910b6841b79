//! Kills the process before and after every effect and every record write, resumes, and looks at
//! what is on the host: exactly one release or the other, and the end says which.

use super::scene::{context, deploy, ends, lifecycle, picture, remove, shop_with, world};
use crate::{
    Request,
    outcome::{Outcome, OutcomeStatus},
    port::ActionContext,
    simulated::{Behaviour, Death, Point, SimulatedImage, SimulatedPort, SimulatedWorld, drive},
};

/// One operation that is interrupted everywhere.
struct Case {
    prepared: fn() -> SimulatedWorld,
    order: Request,
    /// How it ends, and what is there then.
    end: OutcomeStatus,
    /// Ends that are right when the order is only allowed to go back.
    end_backwards: &'static [OutcomeStatus],
}

fn nothing() -> SimulatedWorld {
    world()
}

fn first_release() -> SimulatedWorld {
    let mut world = world();
    ends(&mut world, &deploy(shop_with("web:1")), 1, OutcomeStatus::Succeeded);
    world
}

/// A release that an order has stopped.
fn stopped_release() -> SimulatedWorld {
    let mut world = first_release();
    ends(&mut world, &lifecycle("stop", &[]), 2, OutcomeStatus::Succeeded);
    world
}

/// One that always restarts, and of which one service is stopped.
fn partly_stopped_release() -> SimulatedWorld {
    let mut world = world();
    let mut spec = shop_with("web:1");
    spec["services"]["web"]["restart"] = serde_json::json!("always");
    ends(&mut world, &deploy(spec), 1, OutcomeStatus::Succeeded);
    ends(&mut world, &lifecycle("stop", &["web"]), 2, OutcomeStatus::Succeeded);
    world
}

/// Stopped, and its web server has become unhealthy since.
fn stopped_and_sick() -> SimulatedWorld {
    let mut world = stopped_release();
    let mut sick = SimulatedImage::local("web:1", Behaviour::Unhealthy { after_ms: 2_000 });
    sick.state.has_healthcheck = true;
    world.engine.image_add("web:1", sick);
    world
}

/// As many releases as are kept, so that the next one drops the oldest.
fn many_releases() -> SimulatedWorld {
    let mut world = world();
    for n in 1..=5 {
        let web = if n % 2 == 0 { "web:2" } else { "web:1" };
        ends(&mut world, &deploy(shop_with(web)), n, OutcomeStatus::Succeeded);
    }
    world
}

fn resumed(backwards_only: bool) -> ActionContext {
    ActionContext { resumed: true, backwards_only, ..context(9) }
}

/// Runs with a death, then again without; says whether the death happened.
fn interrupted(case: &Case, death: Death, backwards_only: bool) -> (bool, SimulatedWorld, Outcome) {
    let mut world = (case.prepared)();
    let context = context(9);
    let mut port = SimulatedPort::new(&mut world);
    port.death = Some(death);
    let first = drive(case.order.run(&context, &mut port));
    let died = first.is_none();
    let mut port = SimulatedPort::new(&mut world);
    let outcome = drive(case.order.run(&resumed(backwards_only), &mut port)).expect("the second run lives");
    (died, world, outcome)
}

fn enumerate(case: &Case) {
    let mut clean = (case.prepared)();
    let old = picture(&clean);
    let context = context(9);
    let mut port = SimulatedPort::new(&mut clean);
    let outcome = drive(case.order.run(&context, &mut port)).unwrap();
    let points = port.points();
    assert_eq!(outcome.status, case.end, "{}", outcome.message);
    let new = picture(&clean);
    assert!(points > 6, "only {points} points");
    for point in (0..points).map(Point) {
        for death in [Death::Before(point), Death::After(point)] {
            let (died, world, outcome) = interrupted(case, death, false);
            assert!(died, "{death:?} of {points} was not visited");
            assert_eq!(outcome.status, case.end, "{death:?}: {}", outcome.message);
            assert_eq!(picture(&world), new, "{death:?}: {}", outcome.message);

            let (died, world, outcome) = interrupted(case, death, true);
            assert!(died, "{death:?} of {points} was not visited");
            backwards(case, death, &picture(&world), &outcome, &old, &new);
        }
    }
}

/// An order that became void only goes back, or ends as it had ended already.
fn backwards(case: &Case, death: Death, now: &str, outcome: &Outcome, old: &str, new: &str) {
    let without_record = |text: &str| text.replace("record app/shop\n", "");
    match outcome.status {
        // A removal that is left off: whatever is still there runs.
        OutcomeStatus::Failed if outcome.result["started_again"].is_array() => {
            let is_idle = |line: &&str| line.starts_with("container") && !line.contains("Running");
            let idle = now.lines().find(|line| is_idle(line) && !old.contains(line));
            assert_eq!(idle, None, "{death:?} backwards: {}", outcome.message);
        }
        OutcomeStatus::Succeeded => assert_eq!(now, new, "{death:?} backwards: {}", outcome.message),
        status => {
            assert!(case.end_backwards.contains(&status), "{death:?} backwards: {status:?} {}", outcome.message);
            // A first deploy that went back leaves its volumes, and its record says how it ended.
            let volumes_too = |text: &str| without_record(text).replace("volume shop_data\n", "");
            assert_eq!(volumes_too(now), volumes_too(old), "{death:?} backwards: {}", outcome.message);
        }
    }
}

const BACK: &[OutcomeStatus] = &[OutcomeStatus::RolledBack, OutcomeStatus::Failed];

#[test]
fn first_deploy() {
    let order = deploy(shop_with("web:1"));
    enumerate(&Case { prepared: nothing, order, end: OutcomeStatus::Succeeded, end_backwards: BACK });
}

#[test]
fn second_deploy() {
    let order = deploy(shop_with("web:2"));
    enumerate(&Case { prepared: first_release, order, end: OutcomeStatus::Succeeded, end_backwards: BACK });
}

#[test]
fn deploy_that_drops_the_oldest_release() {
    let order = deploy(shop_with("web:2"));
    enumerate(&Case { prepared: many_releases, order, end: OutcomeStatus::Succeeded, end_backwards: BACK });
}

#[test]
fn deploy_that_is_rolled_back() {
    let order = deploy(shop_with("web:sick"));
    enumerate(&Case { prepared: first_release, order, end: OutcomeStatus::RolledBack, end_backwards: BACK });
}

#[test]
fn first_deploy_that_is_rolled_back_to_nothing() {
    let order = deploy(shop_with("web:crash"));
    enumerate(&Case { prepared: nothing, order, end: OutcomeStatus::RolledBack, end_backwards: BACK });
}

#[test]
fn deploy_that_drops_a_service() {
    let order = deploy(super::scene::shop(serde_json::json!({ "web": super::scene::service("web:2") })));
    enumerate(&Case { prepared: first_release, order, end: OutcomeStatus::Succeeded, end_backwards: BACK });
}

fn on_the_host() -> SimulatedWorld {
    let mut world = super::scene::world_with_places();
    ends(&mut world, &deploy(super::scene::shop_on_the_host("web:1")), 1, OutcomeStatus::Succeeded);
    world
}

#[test]
fn first_deploy_with_files_and_binds() {
    let order = deploy(super::scene::shop_on_the_host("web:1"));
    let prepared = super::scene::world_with_places;
    enumerate(&Case { prepared, order, end: OutcomeStatus::Succeeded, end_backwards: BACK });
}

#[test]
fn second_deploy_with_files_and_binds() {
    let order = deploy(super::scene::shop_on_the_host("web:2"));
    enumerate(&Case { prepared: on_the_host, order, end: OutcomeStatus::Succeeded, end_backwards: BACK });
}

#[test]
fn deploy_with_files_and_binds_that_is_rolled_back() {
    let order = deploy(super::scene::shop_on_the_host("web:sick"));
    enumerate(&Case { prepared: on_the_host, order, end: OutcomeStatus::RolledBack, end_backwards: BACK });
}

#[test]
fn removal_with_files_and_binds() {
    enumerate(&Case { prepared: on_the_host, order: remove(), end: OutcomeStatus::Succeeded, end_backwards: BACK });
}

#[test]
fn removal() {
    let order = remove();
    enumerate(&Case { prepared: first_release, order, end: OutcomeStatus::Succeeded, end_backwards: BACK });
}

#[test]
fn stop() {
    let order = lifecycle("stop", &[]);
    enumerate(&Case { prepared: first_release, order, end: OutcomeStatus::Succeeded, end_backwards: BACK });
}

#[test]
fn stop_of_what_still_runs() {
    let order = lifecycle("stop", &["db"]);
    enumerate(&Case { prepared: partly_stopped_release, order, end: OutcomeStatus::Succeeded, end_backwards: BACK });
}

#[test]
fn start() {
    let order = lifecycle("start", &[]);
    enumerate(&Case { prepared: stopped_release, order, end: OutcomeStatus::Succeeded, end_backwards: BACK });
}

#[test]
fn start_that_is_rolled_back() {
    let order = lifecycle("start", &[]);
    enumerate(&Case { prepared: stopped_and_sick, order, end: OutcomeStatus::RolledBack, end_backwards: BACK });
}

#[test]
fn restart() {
    let order = lifecycle("restart", &[]);
    enumerate(&Case { prepared: first_release, order, end: OutcomeStatus::Succeeded, end_backwards: BACK });
}

#[test]
fn deploy_of_a_stopped_app() {
    let order = deploy(shop_with("web:2"));
    enumerate(&Case { prepared: stopped_release, order, end: OutcomeStatus::Succeeded, end_backwards: BACK });
}

#[test]
fn deploy_of_a_partly_stopped_app_that_is_rolled_back() {
    let order = deploy(shop_with("web:sick"));
    enumerate(&Case { prepared: partly_stopped_release, order, end: OutcomeStatus::RolledBack, end_backwards: BACK });
}

#[test]
fn removal_of_a_stopped_app() {
    let order = remove();
    enumerate(&Case { prepared: stopped_release, order, end: OutcomeStatus::Succeeded, end_backwards: BACK });
}

/// Two deaths in a row, the second while the first is being made good.
#[test]
fn death_while_resuming() {
    let order = deploy(shop_with("web:sick"));
    let old = picture(&first_release());
    let mut visited = 0;
    for first in (0..60).map(Point) {
        for second in (0..60).step_by(3).map(Point) {
            let mut world = first_release();
            let context = context(9);
            let mut port = SimulatedPort::new(&mut world);
            port.death = Some(Death::After(first));
            if drive(order.run(&context, &mut port)).is_some() {
                break;
            }
            let mut port = SimulatedPort::new(&mut world);
            port.death = Some(Death::After(second));
            if drive(order.run(&resumed(false), &mut port)).is_some() {
                break;
            }
            visited += 1;
            let mut port = SimulatedPort::new(&mut world);
            let outcome = drive(order.run(&resumed(false), &mut port)).unwrap();
            assert_eq!(outcome.status, OutcomeStatus::RolledBack, "{first:?} {second:?}: {}", outcome.message);
            assert_eq!(picture(&world), old, "{first:?} {second:?}");
        }
    }
    assert!(visited > 100, "only {visited} pairs were visited");
}

/// The app heals while the agent is away. An order that had turned back by then, or had ended, says
/// so and does not try again; one that had not goes on and succeeds.
#[test]
fn once_it_goes_back_it_stays_back() {
    let order = deploy(shop_with("web:sick"));
    let old = picture(&first_release());
    let (mut back, mut forward) = (0, 0);
    for point in (0..).map(Point) {
        let mut world = first_release();
        let context = context(9);
        let mut port = SimulatedPort::new(&mut world);
        port.death = Some(Death::After(point));
        if drive(order.run(&context, &mut port)).is_some() {
            break;
        }
        let record: serde_json::Value = serde_json::from_slice(&world.records["app/shop"]).unwrap();
        // Once it has turned back, every later point must know that.
        let turned = back > 0 || record["pending"]["deploy"]["phase"]["back"].is_object();
        world.engine.image_add("web:sick", SimulatedImage::local("web:sick", Behaviour::Healthy { after_ms: 10 }));
        let mut port = SimulatedPort::new(&mut world);
        let outcome = drive(order.run(&resumed(false), &mut port)).unwrap();
        if turned {
            back += 1;
            assert_eq!(outcome.status, OutcomeStatus::RolledBack, "{point:?}: {}", outcome.message);
            assert_eq!(picture(&world), old, "{point:?}");
        } else {
            forward += 1;
            assert_eq!(outcome.status, OutcomeStatus::Succeeded, "{point:?}: {}", outcome.message);
        }
    }
    assert!(back > 5 && forward > 10, "{back} back, {forward} forward");
}

/// A host that goes down in the middle of a deploy starts its containers before the agent can look.
#[test]
fn a_reboot_in_the_middle_never_starts_old_and_new_together() {
    let always = |image: &str| {
        let mut spec = shop_with(image);
        spec["services"]["web"]["restart"] = serde_json::json!("always");
        spec
    };
    for image in ["web:2", "web:sick"] {
        for point in 0.. {
            let mut world = world();
            ends(&mut world, &deploy(always("web:1")), 1, OutcomeStatus::Succeeded);
            let order = deploy(always(image));
            let mut port = SimulatedPort::new(&mut world);
            port.death = Some(Death::After(Point(point)));
            let died = drive(order.run(&context(9), &mut port)).is_none();
            let started = world.engine.started_by_engine();
            let web = started.iter().filter(|name| name.starts_with("shop-web-1")).count();
            assert!(web <= 1, "{image} at {point}: {started:?}");
            let mut port = SimulatedPort::new(&mut world);
            let outcome = drive(order.run(&resumed(false), &mut port)).expect("the second run lives");
            let started = world.engine.started_by_engine();
            assert!(started.contains(&"shop-web-1".to_owned()), "{image} at {point}: {outcome:?}: {started:?}");
            if !died {
                assert!(point > 10, "only {point} places were tried");
                break;
            }
        }
    }
}
