//! The control plane's clock: the one place of this program that reads it.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use ids::{DurationMs, UnixMs};

/// Now. A clock before 1970 reads as 1970, which every check then refuses.
pub(crate) fn now() -> UnixMs {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixMs(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// One moment on two clocks: the wall's, which can be set, and one that only runs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment {
    pub(crate) wall: UnixMs,
    steady: Instant,
}

impl Moment {
    pub(crate) fn now() -> Self {
        Self { wall: now(), steady: Instant::now() }
    }

    /// By how much the wall's clock was set between the two, if it is more than a host may be told wrong. (A machine
    /// that slept looks the same, and sessions of before its sleep are none any more.)
    pub(crate) fn set_by(&self, later: &Self) -> Option<DurationMs> {
        let elapsed = later.steady.saturating_duration_since(self.steady).as_millis();
        let expected = self.wall.plus(DurationMs(u64::try_from(elapsed).unwrap_or(u64::MAX)));
        let by = later.wall.distance(expected);
        (by > session::limits::CLOCK_DRIFT_MAX).then_some(by)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_clock_that_was_set_is_told_from_one_that_runs() {
        let (wall, steady) = (UnixMs(1_000_000_000), Instant::now());
        let begun = Moment { wall, steady };
        let later = |wall_ms: i64, seconds: u64| {
            let wall = UnixMs(wall.0.saturating_add_signed(wall_ms));
            begun.set_by(&Moment { wall, steady: steady + Duration::from_secs(seconds) })
        };
        assert_eq!(later(3_600_000, 3_600), None, "it ran");
        assert_eq!(later(3_630_000, 3_600), None, "it drifted");
        assert_eq!(later(3_630_001, 3_600), Some(DurationMs(30_001)), "it was set forward");
        assert_eq!(later(-1, 3_600), Some(DurationMs(3_600_001)), "it was set back");
    }
}
