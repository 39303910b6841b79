//! The host's clocks. Deadlines live on the boot-time clock, which nobody can set and which goes on
//! while the machine sleeps; together with the boot id they survive a restart of the agent and are
//! known to be void after a reboot. The calendar clock is for records that people read.

use std::{
    fs, io,
    time::{SystemTime, UNIX_EPOCH},
};

use ids::{BootId, BootMs, UnixMs};
use rustix::time::{ClockId, clock_gettime};

/// The kernel's random name of this boot (random(4)).
const BOOT_ID_FILE: &str = "/proc/sys/kernel/random/boot_id";

/// Milliseconds of `CLOCK_BOOTTIME` (`clock_gettime(2)`).
#[must_use]
pub fn boot_now() -> BootMs {
    let now = clock_gettime(ClockId::Boottime);
    let millis = i128::from(now.tv_sec) * 1000 + i128::from(now.tv_nsec) / 1_000_000;
    BootMs(u64::try_from(millis).unwrap_or(0))
}

/// Milliseconds of the calendar clock. A clock set before 1970 reads as 1970.
#[must_use]
pub fn wall_now() -> UnixMs {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixMs(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// The id of this boot.
///
/// # Errors
/// When the kernel's file cannot be read (no `/proc`) or does not hold an id.
pub fn boot_id() -> io::Result<BootId> {
    let text = fs::read_to_string(BOOT_ID_FILE)?;
    text.trim().parse().map_err(|error| io::Error::new(io::ErrorKind::InvalidData, format!("{BOOT_ID_FILE}: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boot_clock_goes_on_and_agrees_with_the_uptime() {
        let first = boot_now();
        let text = fs::read_to_string("/proc/uptime").expect("the kernel tells its uptime");
        let uptime: f64 = text.split(' ').next().and_then(|word| word.parse().ok()).expect("a number of seconds");
        let second = boot_now();
        assert!(first <= second);
        // The file has hundredths of a second.
        let uptime = (uptime * 1000.0) as u64;
        assert!(first.0 <= uptime + 10 && uptime <= second.0 + 10, "{first:?} {uptime} {second:?}");
    }

    #[test]
    fn boot_id_does_not_change_within_a_boot() {
        assert_eq!(boot_id().expect("a boot id"), boot_id().expect("a boot id"));
    }
}
