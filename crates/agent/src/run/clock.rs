//! The two clocks of this host, read together.

use host::clock;
use session::agent::io::Clocks;

pub(super) fn now() -> Clocks {
    Clocks { boot: clock::boot_now(), wall: clock::wall_now() }
}
