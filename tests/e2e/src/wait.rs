//! Waiting for something to become true, with a deadline and words for when it does not.

use std::time::{Duration, Instant};

/// Long enough for anything here on a busy machine; a test that needs it all has failed.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// Pause between two looks: as long as the last look took, so that looking takes half of the time at most.
const PAUSE_MIN: Duration = Duration::from_millis(10);
const PAUSE_MAX: Duration = Duration::from_millis(250);

/// Looks until there is something to see.
///
/// # Panics
/// When the deadline passes; `what` says what was waited for.
pub fn wait_for<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    wait_within(PATIENCE, what, look)
}

/// [`wait_for`], with a deadline of its own.
///
/// # Panics
/// As [`wait_for`].
pub fn wait_within<T>(patience: Duration, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + patience;
    loop {
        let began = Instant::now();
        if let Some(seen) = look() {
            return seen;
        }
        assert!(Instant::now() < deadline, "waited {} s in vain: {what}", patience.as_secs());
        pause(began.elapsed());
    }
}

/// Waits until it holds.
///
/// # Panics
/// As [`wait_for`].
pub fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    wait_for(what, || holds().then_some(()));
}

/// Whether it comes to hold within `patience`.
#[must_use]
pub fn comes_to_hold(patience: Duration, mut holds: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + patience;
    loop {
        let began = Instant::now();
        if holds() {
            return true;
        }
        if began > deadline {
            return false;
        }
        pause(began.elapsed());
    }
}

/// Fails if it ever stops holding within `span`. For what must not happen: pick a span in which it would.
///
/// # Panics
/// When it does not hold; `what` says what should.
pub fn holds_for(span: Duration, what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + span;
    while Instant::now() < end {
        let began = Instant::now();
        assert!(holds(), "did not hold: {what}");
        pause(began.elapsed());
    }
}

/// Between two looks, of which the last took so long.
#[expect(clippy::disallowed_methods, reason = "the one place that polls: nothing here can announce itself")]
fn pause(look: Duration) {
    std::thread::sleep(look.clamp(PAUSE_MIN, PAUSE_MAX));
}
