//! Counters that must not be mixed up with each other.

use core::fmt;

use serde::{Deserialize, Serialize};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub u64);

        impl $name {
            /// The one after this, or `None` at the end of the range.
            #[must_use]
            pub const fn next(self) -> Option<Self> {
                match self.0.checked_add(1) {
                    Some(n) => Some(Self(n)),
                    None => None,
                }
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
    )*};
}

counters! {
    /// Position of a sealed command in its host's order. Strictly rising, gaps are legal, never reset. First is 1.
    Sequence;
    /// Position of a report in its host's chain. No gaps, never reset. First is 1.
    ReportSequence;
    /// Raised by the root to void everything signed before.
    Epoch;
    /// Raised by a key rotation or a guard reset of one host.
    HostEpoch;
    /// Version of root metadata. First is 1.
    RootVersion;
    /// Revision of a host's standing orders: strictly rising per host, whichever order it is about. First is 1.
    Revision;
}
