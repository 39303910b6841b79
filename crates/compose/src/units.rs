//! Sizes, spans of time, CPU shares, permission bits and whole numbers, as the Compose
//! specification writes them. Reasons are `&'static str`: they cannot carry the value.

use crate::limits::{CPUS_MILLI_MAX, DURATION_MS_MAX};

/// Digits, optionally a point and more digits, as (whole, fraction, 10^digits of the fraction).
fn decimal(text: &str) -> Option<(u128, u128, u128)> {
    const DIGITS_MAX: usize = 18;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |part: &str| part.len() <= DIGITS_MAX && part.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole) || !digits(fraction) || (whole.is_empty() && fraction.is_empty()) {
        return None;
    }
    let value = |part: &str| if part.is_empty() { Some(0) } else { part.parse().ok() };
    Some((value(whole)?, value(fraction)?, 10u128.pow(u32::try_from(fraction.len()).ok()?)))
}

/// `512m`, `1.5gb`, `64KiB`, `64ki`, `1048576`: bytes. Units are powers of 1024, as for Docker.
pub(crate) fn bytes(text: &str) -> Result<u64, &'static str> {
    const FORM: &str = "a size is a number with b, k, m, g, t or p, such as 512m";
    let unit_at = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let (number, unit) = text.split_at(unit_at);
    let factor: u128 = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "ki" | "kb" | "kib" => 1 << 10,
        "m" | "mi" | "mb" | "mib" => 1 << 20,
        "g" | "gi" | "gb" | "gib" => 1 << 30,
        "t" | "ti" | "tb" | "tib" => 1 << 40,
        "p" | "pi" | "pb" | "pib" => 1 << 50,
        _ => return Err(FORM),
    };
    let number = number.strip_suffix(' ').unwrap_or(number);
    let (whole, fraction, scale) = decimal(number).ok_or(FORM)?;
    let total = whole * factor + fraction * factor / scale;
    i64::try_from(total).ok().and_then(|n| u64::try_from(n).ok()).ok_or("the size is too large")
}

/// `1m30s`, `500ms`, `1.5h`, `1d12h`: milliseconds. Units are w, d, h, m, s, ms, us (µs), ns.
pub(crate) fn duration_ms(text: &str) -> Result<u64, &'static str> {
    const FORM: &str = "a span of time is numbers with w, d, h, m, s, ms, us or ns, such as 1m30s or 500ms";
    if text == "0" {
        return Ok(0);
    }
    if text.bytes().all(|b| b.is_ascii_digit()) {
        return Err("the unit is missing: write 30s for seconds, 500ms for milliseconds");
    }
    if text.is_empty() {
        return Err(FORM);
    }
    let (mut rest, mut total_ns) = (text, 0u128);
    while !rest.is_empty() {
        let letter = |c: char| c.is_ascii_alphabetic() || matches!(c, 'µ' | 'μ');
        let unit_at = rest.find(letter).ok_or(FORM)?;
        let (number, after) = rest.split_at(unit_at);
        let unit_end = after.find(|c: char| !letter(c)).unwrap_or(after.len());
        let (unit, next) = after.split_at(unit_end);
        let factor: u128 = match unit {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60 * 1_000_000_000,
            "h" => 3_600 * 1_000_000_000,
            "d" => 24 * 3_600 * 1_000_000_000,
            "w" => 7 * 24 * 3_600 * 1_000_000_000,
            _ => return Err(FORM),
        };
        let (whole, fraction, scale) = decimal(number).ok_or(FORM)?;
        if !(fraction * factor).is_multiple_of(scale) {
            return Err("the span of time is finer than a nanosecond");
        }
        // At most TEXT_BYTES_MAX / 2 parts of 10^18 * 6.1 * 10^14 each, which is below 2^128 together.
        total_ns += whole * factor + fraction * factor / scale;
        rest = next;
    }
    if !total_ns.is_multiple_of(1_000_000) {
        return Err("the span of time is finer than a millisecond");
    }
    let total = u64::try_from(total_ns / 1_000_000).ok().filter(|&ms| ms <= DURATION_MS_MAX);
    total.ok_or("the span of time is longer than 30 days")
}

/// `0.5`, `2`: thousandths of a core, more than none.
pub(crate) fn cpus_milli(text: &str) -> Result<u64, &'static str> {
    let (whole, fraction, scale) = decimal(text).ok_or("a CPU limit is a number of cores, such as 0.5 or 2")?;
    if !(fraction * 1000).is_multiple_of(scale) {
        return Err("a CPU limit has at most three decimals");
    }
    let milli = u64::try_from(whole * 1000 + fraction * 1000 / scale).unwrap_or(u64::MAX);
    match milli {
        0 => Err("a CPU limit of 0 means none: leave the key out"),
        1..=CPUS_MILLI_MAX => Ok(milli),
        _ => Err("more than 1024 cores"),
    }
}

/// `0o1777`, `01777`: permission bits.
pub(crate) fn mode(text: &str) -> Result<u32, &'static str> {
    let digits = text.strip_prefix("0o").or_else(|| text.strip_prefix('0').filter(|rest| !rest.is_empty()));
    // `1777` without a zero is a decimal number to YAML and an octal one to its writer.
    let digits = digits.ok_or("permission bits are octal and begin with 0, such as 0o1777")?;
    if digits.is_empty() || !digits.bytes().all(|b| matches!(b, b'0'..=b'7')) {
        return Err("permission bits are octal digits, such as 0o1777");
    }
    u32::from_str_radix(digits, 8).ok().filter(|&mode| mode <= 0o7777).ok_or("permission bits above 0o7777")
}

/// A whole number without sign.
pub(crate) fn whole(text: &str) -> Result<u32, &'static str> {
    const FORM: &str = "expected a whole number";
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(FORM);
    }
    text.parse().map_err(|_| "the number is too large")
}

/// A whole number that may have a sign.
pub(crate) fn signed(text: &str) -> Result<i64, &'static str> {
    const FORM: &str = "expected a whole number";
    let digits = text.strip_prefix('-').unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(FORM);
    }
    text.parse().map_err(|_| "the number is too large")
}

/// `true` or `false` (YAML 1.2 core schema: also `True`, `TRUE` and so on).
pub(crate) fn switch(text: &str) -> Result<bool, &'static str> {
    match text {
        "true" | "True" | "TRUE" => Ok(true),
        "false" | "False" | "FALSE" => Ok(false),
        _ => Err("expected true or false"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check<T: PartialEq + core::fmt::Debug>(
        parse: fn(&str) -> Result<T, &'static str>,
        good: &[(&str, T)],
        bad: &[&str],
    ) {
        for (text, expected) in good {
            assert_eq!(parse(text).as_ref(), Ok(expected), "{text}");
        }
        for text in bad {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes() {
        let good = [
            ("0", 0),
            ("1048576", 1 << 20),
            ("512m", 512 << 20),
            ("512M", 512 << 20),
            ("1gb", 1 << 30),
            ("1.5g", 3 << 29),
            ("64 KiB", 64 << 10),
            ("10b", 10),
            (".5k", 512),
            ("64ki", 64 << 10),
            ("2Gi", 2 << 30),
            ("1p", 1 << 50),
        ];
        let bad = ["", "m", "-1m", "1x", "1 0", "1mm", "0x10", "1e3", "9999999t", "99999999999999999999", "1.2.3", "∞"];
        check(bytes, &good, &bad);
    }

    #[test]
    fn spans() {
        let good = [
            ("500ms", 500),
            ("1m30s", 90_000),
            ("1h", 3_600_000),
            ("1.5s", 1_500),
            ("0", 0),
            ("0s", 0),
            ("2000us", 2),
            ("1h30m15s10ms", 5_415_010),
            ("1d12h", 129_600_000),
            ("2w", 1_209_600_000),
            ("5000µs", 5),
            ("1000000ns", 1),
        ];
        let bad =
            ["", "30", "1y", "-1s", "s", "1m30", "1500us", "0.1ns", "1s ", "721h", "5w", "1µs", "1ns", "1.s.", "1 s"];
        check(duration_ms, &good, &bad);
    }

    #[test]
    fn cpu_limits_modes_numbers_and_switches() {
        check(
            cpus_milli,
            &[("0.5", 500), ("2", 2000), (".25", 250), ("1.125", 1125)],
            &["", ".", "0", "0.0", "-1", "1e1", "0.3333", "1025", "two"],
        );
        check(
            mode,
            &[("0o1777", 0o1777), ("01777", 0o1777), ("0755", 0o755)],
            &["1777", "0", "0o", "0o8", "0o17777", ""],
        );
        check(whole, &[("0", 0), ("65535", 65535)], &["", "-1", "+1", "1.0", "4294967296", "0x1"]);
        check(switch, &[("true", true), ("FALSE", false)], &["yes", "no", "on", "1", "", "tRUE"]);
    }

    #[test]
    fn numbers_with_a_sign() {
        check(
            signed,
            &[("-1", -1), ("0", 0), ("65536", 65_536)],
            &["", "-", "+1", "1.5", "99999999999999999999", "--1"],
        );
    }

    proptest! {
        #[test]
        fn whole_sizes_and_spans_come_back(n in 0u64..1 << 30, ms in 0u64..DURATION_MS_MAX) {
            prop_assert_eq!(bytes(&n.to_string()), Ok(n));
            prop_assert_eq!(bytes(&format!("{n}k")), Ok(n << 10));
            prop_assert_eq!(duration_ms(&format!("{ms}ms")), Ok(ms));
            let (h, m, s) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1_000 % 60);
            prop_assert_eq!(duration_ms(&format!("{h}h{m}m{s}s{}ms", ms % 1_000)), Ok(ms));
        }

        #[test]
        fn any_text_is_read_or_refused(text in any::<String>(), digits in "[0-9.]{0,40}[a-z]{0,3}") {
            for text in [&text, &digits] {
                let _ = (bytes(text), duration_ms(text), cpus_milli(text), mode(text), whole(text), switch(text));
            }
        }
    }
}
