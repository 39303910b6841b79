//! Many seeds, each a fleet under faults that must come to rest with every invariant whole.
//!
//! The seeds are cut into slices, one test each, so that every core has work. Three variables change what is run:
//! `SIM_SEED=n` runs that seed alone; `SIM_SEEDS=n` so many in all, `SIM_FIRST=n` from that one on;
//! `SIM_STEPS=n` with so many steps each. `cargo xtask sim` sets them for a night.

use sim::{Summary, World};

const HOSTS: u8 = 3;
const STEPS: u32 = 500;
const SEEDS: u64 = 10_000;
const SLICES: u64 = 16;

/// Seeds that once found something, with the steps it took. A seed means the same run only as long as the same things can
/// happen in it: since then faults were added, so these are three runs like any other, kept for their numbers in the
/// history. What they found is held by tests that need no die: 446 by
/// `what_arrived_under_an_earlier_seal_does_not_expire_under_a_later_one` (`fleet`), 844 by
/// `a_hello_counts_orders_being_written_and_only_durable_reports` and 3176 by
/// `an_acknowledgement_that_skips_a_report_drops_nothing_and_brings_all_again` (`session`). What a seed finds next gets
/// such a test before its number.
const REGRESSIONS: [(u64, u32); 3] = [(446, 300), (844, 300), (3176, 300)];

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is {text:?}; give a number")))
}

fn steps() -> u32 {
    number("SIM_STEPS").map_or(STEPS, |steps| u32::try_from(steps).expect("SIM_STEPS is too large"))
}

fn total(runs: impl Iterator<Item = (u64, u32)>) -> Summary {
    let mut total = Summary::default();
    for (seed, steps) in runs {
        match World::new(seed, HOSTS).run(steps) {
            Ok(run) => {
                total.proposed += run.proposed;
                total.ended += run.ended;
                total.succeeded += run.succeeded;
                total.kills += run.kills;
                total.cuts += run.cuts;
                total.approved += run.approved;
                total.meddled += run.meddled;
                total.quarantined += run.quarantined;
                total.rotated += run.rotated;
                total.released += run.released;
                total.keys_changed += run.keys_changed;
                total.revoked += run.revoked;
                total.retired += run.retired;
                total.renewed += run.renewed;
            }
            Err(_) => {
                let violation = World::new(seed, HOSTS).traced().run(steps).expect_err("the same seed, the same run");
                panic!("{violation}\nagain: SIM_SEED={seed} SIM_STEPS={steps} cargo nextest run -p serverflow-sim")
            }
        }
    }
    total
}

#[test]
fn seeds_that_once_found_something() {
    if number("SIM_SEED").is_none() {
        let _ = total(REGRESSIONS.into_iter());
    }
}

fn slice(slice: u64) {
    let steps = steps();
    if let Some(seed) = number("SIM_SEED") {
        if slice == 0 {
            let _ = total(core::iter::once((seed, steps)));
        }
        return;
    }
    let (first, seeds) = (number("SIM_FIRST").unwrap_or(0), number("SIM_SEEDS").unwrap_or(SEEDS));
    let mine = (first..first + seeds).filter(|seed| seed % SLICES == slice);
    let count = mine.clone().count();
    let sum = total(mine.map(|seed| (seed, steps)));
    println!("slice {slice}: {count} seeds of {steps} steps: {sum:?}");
    // The runs must have been about something. (Orders that end their agent, or that the signer refuses, never succeed.)
    if count >= 100 && steps >= 300 {
        assert!(sum.succeeded * 7 > sum.proposed, "{sum:?}");
        assert!(sum.approved > count / 4, "{sum:?}");
        assert!(sum.kills > count && sum.cuts > count && sum.meddled > count, "{sum:?}");
        assert!(sum.quarantined > 0 && sum.released > 0 && sum.rotated > count / 4, "{sum:?}");
        assert!(sum.keys_changed * 2 > count && sum.revoked * 40 > count, "{sum:?}");
        assert!(sum.retired * 40 > count, "{sum:?}");
        assert!(sum.renewed * 4 > count, "{sum:?}");
    }
}

macro_rules! slices {
    ($($name:ident: $number:literal),+ $(,)?) => {
        $(#[test]
        fn $name() {
            slice($number);
        })+
        /// Every slice has its test.
        const _: () = assert!(SLICES == [$($number),+].len() as u64);
    };
}

slices! {
    every_seed_keeps_the_invariants_and_comes_to_rest_00: 0,
    every_seed_keeps_the_invariants_and_comes_to_rest_01: 1,
    every_seed_keeps_the_invariants_and_comes_to_rest_02: 2,
    every_seed_keeps_the_invariants_and_comes_to_rest_03: 3,
    every_seed_keeps_the_invariants_and_comes_to_rest_04: 4,
    every_seed_keeps_the_invariants_and_comes_to_rest_05: 5,
    every_seed_keeps_the_invariants_and_comes_to_rest_06: 6,
    every_seed_keeps_the_invariants_and_comes_to_rest_07: 7,
    every_seed_keeps_the_invariants_and_comes_to_rest_08: 8,
    every_seed_keeps_the_invariants_and_comes_to_rest_09: 9,
    every_seed_keeps_the_invariants_and_comes_to_rest_10: 10,
    every_seed_keeps_the_invariants_and_comes_to_rest_11: 11,
    every_seed_keeps_the_invariants_and_comes_to_rest_12: 12,
    every_seed_keeps_the_invariants_and_comes_to_rest_13: 13,
    every_seed_keeps_the_invariants_and_comes_to_rest_14: 14,
    every_seed_keeps_the_invariants_and_comes_to_rest_15: 15,
}
