//! The control plane's clock: the one place of this program that reads it.

use std::time::{SystemTime, UNIX_EPOCH};

use ids::UnixMs;

/// Now. A clock before 1970 reads as 1970, which every check then refuses.
pub(crate) fn now() -> UnixMs {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixMs(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
