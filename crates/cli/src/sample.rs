//! Values for tests.

use ids::UnixMs;

/// The text of an id that ends in this number.
pub(crate) fn id(number: u8) -> String {
    format!("00000000-0000-7000-8000-0000000000{number:02x}")
}

/// 2023-11-14T22:13:20Z.
pub(crate) const NOW: UnixMs = UnixMs(1_700_000_000_000);
