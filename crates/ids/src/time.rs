//! Points in time and spans, as values. Where they come from is the shells' business.

use core::fmt;

use serde::{Deserialize, Serialize};

/// Milliseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct UnixMs(pub u64);

/// Milliseconds of the boot-time clock (`CLOCK_BOOTTIME`): it counts suspend, and nobody can set it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct BootMs(pub u64);

/// A span in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DurationMs(pub u64);

impl DurationMs {
    /// `n` seconds.
    #[must_use]
    pub const fn from_secs(n: u64) -> Self {
        Self(n * 1000)
    }
    /// `n` minutes.
    #[must_use]
    pub const fn from_mins(n: u64) -> Self {
        Self(n * 60_000)
    }
    /// `n` days of 24 hours.
    #[must_use]
    pub const fn from_days(n: u64) -> Self {
        Self(n * 86_400_000)
    }
}

impl UnixMs {
    /// This much later; stops at the end of time rather than wrap.
    #[must_use]
    pub const fn plus(self, span: DurationMs) -> Self {
        Self(self.0.saturating_add(span.0))
    }
    /// This much earlier; stops at zero rather than wrap.
    #[must_use]
    pub const fn minus(self, span: DurationMs) -> Self {
        Self(self.0.saturating_sub(span.0))
    }
    /// How long after `earlier` this is; zero when it is not after.
    #[must_use]
    pub const fn since(self, earlier: Self) -> DurationMs {
        DurationMs(self.0.saturating_sub(earlier.0))
    }
    /// The distance between two points, whichever is first.
    #[must_use]
    pub const fn distance(self, other: Self) -> DurationMs {
        DurationMs(self.0.abs_diff(other.0))
    }
}

impl BootMs {
    /// How long after `earlier` this is; zero when it is not after.
    #[must_use]
    pub const fn since(self, earlier: Self) -> DurationMs {
        DurationMs(self.0.saturating_sub(earlier.0))
    }
    /// This much later; stops at the end of time rather than wrap.
    #[must_use]
    pub const fn plus(self, span: DurationMs) -> Self {
        Self(self.0.saturating_add(span.0))
    }
}

impl fmt::Display for DurationMs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            ms if ms < 1_000 => write!(f, "{ms} ms"),
            ms if ms < 120_000 => write!(f, "{} s", ms / 1_000),
            ms if ms < 7_200_000 => write!(f, "{} min", ms / 60_000),
            ms if ms < 172_800_000 => write!(f, "{} h", ms / 3_600_000),
            ms => write!(f, "{} days", ms / 86_400_000),
        }
    }
}
