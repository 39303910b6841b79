//! What a service may use: memory, processors, processes, and the limits of `setrlimit(2)`.

use std::collections::BTreeMap;

use actions::spec::UlimitSpec;

use crate::{
    limits::MEMORY_BYTES_MIN,
    reading::{Field, Reading, is_extension},
    units,
};

/// Names of `setrlimit(2)`, as the engine spells them.
const ULIMITS: &[&str] = &[
    "as",
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
];

pub(super) fn memory(text: &str) -> Result<u64, &'static str> {
    match units::bytes(text)? {
        bytes if bytes < MEMORY_BYTES_MIN => Err("the engine takes no memory limit below 6m"),
        bytes => Ok(bytes),
    }
}

/// Memory and swap together; -1 for as much swap as the host has.
pub(super) fn memory_and_swap(text: &str) -> Result<i64, &'static str> {
    if text == "-1" {
        return Ok(-1);
    }
    i64::try_from(memory(text)?).map_err(|_| "the size is too large")
}

pub(super) fn some_bytes(text: &str) -> Result<u64, &'static str> {
    match units::bytes(text)? {
        0 => Err("a size of 0 means none: leave the key out for the engine's default"),
        bytes => Ok(bytes),
    }
}

pub(super) fn swappiness(text: &str) -> Result<u8, &'static str> {
    let number = units::whole(text)?;
    u8::try_from(number).ok().filter(|&number| number <= 100).ok_or("a whole number from 0 to 100")
}

pub(super) fn oom_score_adj(text: &str) -> Result<i32, &'static str> {
    const FORM: &str = "a whole number from -1000 to 1000";
    let number = units::signed(text).map_err(|_| FORM)?;
    i32::try_from(number).ok().filter(|number| (-1000..=1000).contains(number)).ok_or(FORM)
}

pub(super) fn cpu_shares(text: &str) -> Result<u64, &'static str> {
    match units::whole(text)? {
        shares @ 2..=262_144 => Ok(u64::from(shares)),
        _ => Err("a weight from 2 to 262144; the engine's default is 1024"),
    }
}

/// `0-2,4`.
pub(super) fn cpuset(text: &str) -> Result<String, &'static str> {
    let core = |text: &str| units::whole(text).ok().filter(|&core| core < 8192);
    let range = |part: &str| match part.split_once('-') {
        Some((first, last)) => core(first).zip(core(last)).is_some_and(|(first, last)| first <= last),
        None => core(part).is_some(),
    };
    if text.split(',').all(range) { Ok(text.to_owned()) } else { Err("cores are numbers and ranges, such as 0-2,4") }
}

/// Processes at most; -1 for no limit.
pub(super) fn pids(text: &str) -> Result<i64, &'static str> {
    match units::signed(text)? {
        -1 => Ok(-1),
        pids @ 1..=4_194_304 => Ok(pids),
        _ => Err("a number of processes up to 4194304, or -1 for no limit"),
    }
}

pub(super) fn stop_grace_ms(text: &str) -> Result<u64, &'static str> {
    match units::duration_ms(text)? {
        ms if ms > actions::limits::STOP_GRACE_MAX.0 => Err("a host waits for 10 minutes at most"),
        ms => Ok(ms),
    }
}

/// `nofile: 1024`, or with `soft` and `hard`.
pub(super) fn ulimits(reading: &mut Reading<'_>, field: &Field<'_>) -> BTreeMap<String, UlimitSpec> {
    let mut ulimits = BTreeMap::new();
    for entry in reading.mapping(field).unwrap_or_default() {
        if is_extension(entry.key) {
            continue;
        }
        if !ULIMITS.contains(&entry.key) {
            reading.unknown_key(&entry, "`ulimits`", ULIMITS, &[]);
            continue;
        }
        if let Some(ulimit) = ulimit(reading, &entry) {
            ulimits.insert(entry.key.to_owned(), ulimit);
        }
    }
    ulimits
}

fn ulimit(reading: &mut Reading<'_>, field: &Field<'_>) -> Option<UlimitSpec> {
    if !field.is_mapping() {
        let both = reading.parsed(field, ulimit_value)?;
        return Some(UlimitSpec { soft: both, hard: both });
    }
    let (mut soft, mut hard) = (None, None);
    for entry in reading.mapping(field)? {
        match entry.key {
            "soft" => soft = Some(reading.parsed(&entry, ulimit_value)?),
            "hard" => hard = Some(reading.parsed(&entry, ulimit_value)?),
            key if is_extension(key) => {}
            _ => reading.unknown_key(&entry, "a limit", &["soft", "hard"], &[]),
        }
    }
    let (Some(soft), Some(hard)) = (soft, hard) else {
        reading.refuse_with(field, "the limit has not both `soft` and `hard`", "write both, or one number for both");
        return None;
    };
    if hard != -1 && (soft == -1 || soft > hard) {
        reading.refuse(field, "the soft limit is above the hard one");
        return None;
    }
    Some(UlimitSpec { soft, hard })
}

fn ulimit_value(text: &str) -> Result<i64, &'static str> {
    const FORM: &str = "a limit is a whole number, or -1 for none";
    units::signed(text).map_err(|_| FORM).and_then(|number| if number >= -1 { Ok(number) } else { Err(FORM) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_have_bounds() {
        assert_eq!(memory("6m"), Ok(6 << 20));
        assert!(memory("5m").is_err());
        assert_eq!((memory_and_swap("-1"), memory_and_swap("1g")), (Ok(-1), Ok(1 << 30)));
        assert!(some_bytes("0").is_err() && memory_and_swap("-2").is_err());
        assert_eq!((swappiness("0"), swappiness("100")), (Ok(0), Ok(100)));
        assert!(swappiness("101").is_err() && swappiness("-1").is_err());
        assert_eq!((oom_score_adj("-1000"), oom_score_adj("500")), (Ok(-1000), Ok(500)));
        assert!(oom_score_adj("1001").is_err());
        assert!(cpu_shares("2").is_ok() && cpu_shares("1").is_err() && cpu_shares("262145").is_err());
        for good in ["0", "0-2,4", "3,1"] {
            assert!(cpuset(good).is_ok(), "{good}");
        }
        for bad in ["", "-", "2-0", "a", "0,", "99999"] {
            assert!(cpuset(bad).is_err(), "{bad}");
        }
        assert_eq!((pids("-1"), pids("100")), (Ok(-1), Ok(100)));
        assert!(pids("0").is_err() && pids("-2").is_err());
        assert_eq!(stop_grace_ms("10m"), Ok(600_000));
        assert!(stop_grace_ms("11m").is_err());
        assert_eq!((ulimit_value("-1"), ulimit_value("65536")), (Ok(-1), Ok(65_536)));
        assert!(ulimit_value("-2").is_err() && ulimit_value("unlimited").is_err());
    }
}
