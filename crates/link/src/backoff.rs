//! When to dial again: exponential windows with full jitter, so that ten thousand agents do not
//! return in one second.

use ids::DurationMs;

use crate::limits::{BACKOFF_ATTEMPTS_OPENED, BACKOFF_RESET_AFTER_MS, BACKOFF_WINDOW_MS_MAX, BACKOFF_WINDOW_MS_MIN};

/// Grows with each attempt, starts over only after a session that lasted.
#[derive(Clone, Debug, Default)]
pub struct Backoff {
    attempts: u32,
}

impl Backoff {
    /// How long to wait now. `random` is any uniformly distributed number.
    pub fn next_wait(&mut self, random: u64) -> DurationMs {
        let window = BACKOFF_WINDOW_MS_MIN.saturating_shl(self.attempts).min(BACKOFF_WINDOW_MS_MAX);
        self.attempts = self.attempts.saturating_add(1);
        DurationMs(random % (window + 1))
    }

    /// A session was opened: whoever is there is the control plane, and well. That it ends soon, as with each change of root
    /// metadata, is no reason to stay away for long.
    pub fn session_opened(&mut self) {
        self.attempts = self.attempts.min(BACKOFF_ATTEMPTS_OPENED);
    }

    /// A session ended after so long.
    pub const fn session_ended(&mut self, lasted: DurationMs) {
        if lasted.0 >= BACKOFF_RESET_AFTER_MS {
            self.attempts = 0;
        }
    }
}

trait SaturatingShl {
    fn saturating_shl(self, by: u32) -> Self;
}

impl SaturatingShl for u64 {
    fn saturating_shl(self, by: u32) -> Self {
        if by >= self.leading_zeros() { Self::MAX } else { self << by }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_double_up_to_the_limit_and_reset_after_a_lasting_session() {
        let mut backoff = Backoff::default();
        for attempt in 0..100u32 {
            let window = BACKOFF_WINDOW_MS_MIN.saturating_shl(attempt).min(BACKOFF_WINDOW_MS_MAX);
            assert_eq!(backoff.clone().next_wait(window), DurationMs(window), "attempt {attempt}");
            assert_eq!(backoff.next_wait(window + 1), DurationMs(0), "attempt {attempt}");
        }
        assert_eq!(backoff.next_wait(BACKOFF_WINDOW_MS_MAX), DurationMs(BACKOFF_WINDOW_MS_MAX));
        backoff.session_ended(DurationMs(BACKOFF_RESET_AFTER_MS - 1));
        assert_eq!(backoff.clone().next_wait(BACKOFF_WINDOW_MS_MAX), DurationMs(BACKOFF_WINDOW_MS_MAX));
        backoff.session_opened();
        let window = BACKOFF_WINDOW_MS_MIN << BACKOFF_ATTEMPTS_OPENED;
        assert_eq!(backoff.clone().next_wait(window), DurationMs(window), "after one that was opened, seconds at most");
        backoff.session_ended(DurationMs(BACKOFF_RESET_AFTER_MS));
        assert!(backoff.next_wait(u64::MAX).0 <= BACKOFF_WINDOW_MS_MIN);
    }
}
