//! A control plane whose audit log lost its end, and went on from there as if nothing had been: after an old backup
//! was restored, or because somebody has the audit key and wants a past to be gone.

use sim::{Cut, World};

const HOSTS: u8 = 3;
const STEPS: u32 = 300;
const SEEDS: u64 = 400;

fn runs(is_lying: bool) -> Cut {
    let mut total = Cut::default();
    let mut cuts = 0;
    for seed in 0..SEEDS {
        match World::new(seed, HOSTS).run_cut(STEPS, is_lying) {
            Ok(run) => {
                cuts += usize::from(run.was_cut);
                total.held += run.held;
                total.quarantined += run.quarantined;
                total.refusals += if run.was_cut { run.refusals } else { 0 };
            }
            Err(violation) => panic!("{violation}"),
        }
    }
    println!("{cuts} of {SEEDS} logs were cut: {total:?}");
    assert!(cuts > 100 && total.held > 100, "there was something to lose: {total:?}");
    total
}

#[test]
fn hosts_that_saw_more_take_nothing_from_whoever_cut_the_log() {
    let total = runs(true);
    assert!(total.refusals > total.held / 2, "they refuse by themselves: {total:?}");
}

#[test]
fn a_control_plane_that_lost_its_end_says_which_hosts_saw_more() {
    let total = runs(false);
    assert!(total.quarantined * 2 > total.held, "those that came back are shown: {total:?}");
}
