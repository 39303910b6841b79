//! Many seeds, each a fleet under faults that must come to rest with every invariant whole.

use sim::{Summary, World};

const HOSTS: u8 = 3;
const STEPS: u32 = 300;
const SEEDS: u64 = 500;

/// Seeds that once found something; they stay.
const REGRESSIONS: [u64; 3] = [446, 844, 3176];

fn total(seeds: impl Iterator<Item = u64>) -> Summary {
    let mut total = Summary::default();
    for seed in seeds {
        match World::new(seed, HOSTS).run(STEPS) {
            Ok(run) => {
                total.proposed += run.proposed;
                total.ended += run.ended;
                total.succeeded += run.succeeded;
                total.kills += run.kills;
                total.cuts += run.cuts;
                total.meddled += run.meddled;
                total.quarantined += run.quarantined;
            }
            Err(_) => {
                let violation = World::new(seed, HOSTS).traced().run(STEPS).expect_err("the same seed, the same run");
                panic!("{violation}\nagain: SIM_SEED={seed} cargo nextest run -p serverflow-sim")
            }
        }
    }
    total
}

/// `SIM_SEED=n` runs that seed alone; `SIM_SEEDS=n` runs n seeds from a base the clock does not choose.
#[test]
fn every_seed_keeps_the_invariants_and_comes_to_rest() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    if let Some(seed) = number("SIM_SEED") {
        let _ = total(core::iter::once(seed));
        return;
    }
    let sum = total(REGRESSIONS.into_iter().chain(0..number("SIM_SEEDS").unwrap_or(SEEDS)));
    // The runs must have been about something.
    assert!(sum.succeeded * 4 > sum.proposed, "{sum:?}");
    assert!(sum.kills > 1000 && sum.cuts > 1000 && sum.meddled > 1000 && sum.quarantined > 0, "{sum:?}");
}
