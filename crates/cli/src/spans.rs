//! Spans of time as people write and read them.

use ids::{DurationMs, UnixMs};

/// Reads `90s`, `15m`, `1h30m`, `7d` as seconds.
///
/// # Errors
/// In words for a person.
pub(crate) fn seconds(text: &str) -> Result<u64, String> {
    let wrong = || "expected a span such as 90s, 15m, 1h or 7d".to_owned();
    let mut total: u64 = 0;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let number: u64 = rest[..digits].parse().map_err(|_| wrong())?;
        let mut after = rest[digits..].chars();
        let unit = match after.next() {
            Some('s') => 1,
            Some('m') => 60,
            Some('h') => 3_600,
            Some('d') => 86_400,
            _ => return Err(wrong()),
        };
        total = number.checked_mul(unit).and_then(|more| total.checked_add(more)).ok_or_else(wrong)?;
        rest = after.as_str();
    }
    if text.is_empty() || total == 0 { Err(wrong()) } else { Ok(total) }
}

/// [`seconds`] up to a bound.
fn bounded(text: &str, max: u64) -> Result<u64, String> {
    between(text, 1, max)
}

/// [`seconds`] within bounds.
fn between(text: &str, min: u64, max: u64) -> Result<u64, String> {
    let span = seconds(text)?;
    if span < min {
        return Err(format!("at least {} are needed", DurationMs::from_secs(min)));
    }
    if span > max {
        return Err(format!("at most {} are possible", DurationMs::from_secs(max)));
    }
    Ok(span)
}

/// How long a join token lives.
pub(crate) fn token_seconds(text: &str) -> Result<u64, String> {
    between(text, crate::limits::TOKEN_SECONDS_MIN, crate::limits::TOKEN_SECONDS_MAX)
}

/// How long an API token is taken.
pub(crate) fn api_token_seconds(text: &str) -> Result<u64, String> {
    between(text, crate::limits::API_TOKEN_SECONDS_MIN, crate::limits::API_TOKEN_SECONDS_MAX)
}

/// How long an order may wait for its host.
pub(crate) fn queue_seconds(text: &str) -> Result<u64, String> {
    bounded(text, crate::limits::QUEUE_SECONDS_MAX)
}

/// How long an approval holds.
pub(crate) fn approval_seconds(text: &str) -> Result<u64, String> {
    bounded(text, envelope::limits::APPROVAL_LIFETIME_MAX.0 / 1_000)
}

/// How long a standing order is valid.
pub(crate) fn standing_seconds(text: &str) -> Result<u64, String> {
    bounded(text, crate::limits::STANDING_SECONDS_MAX)
}

/// How long a standing order goes on without a session of its host.
pub(crate) fn alone_seconds(text: &str) -> Result<u64, String> {
    bounded(text, envelope::limits::ALONE_FOR_MAX.0 / 1_000)
}

/// How long a change of a key is followed.
pub(crate) fn wait_seconds(text: &str) -> Result<u64, String> {
    bounded(text, crate::limits::KEY_CHANGE_SECONDS_MAX)
}

/// How far back logs begin.
pub(crate) fn since_seconds(text: &str) -> Result<u64, String> {
    bounded(text, crate::limits::SINCE_SECONDS_MAX)
}

/// Within which time a deploy must be healthy.
pub(crate) fn healthy_within_seconds(text: &str) -> Result<u64, String> {
    bounded(text, actions::limits::HEALTH_DEADLINE_MAX.0 / 1_000)
}

/// How long a service must stay healthy.
pub(crate) fn min_healthy_seconds(text: &str) -> Result<u64, String> {
    bounded(text, actions::limits::MIN_HEALTHY_MAX.0 / 1_000)
}

/// Half of the unit that is shown is added, since [`DurationMs`] shows whole units only: a token made a
/// moment ago ends in 15 minutes, not in 14.
const fn rounded(span: DurationMs) -> DurationMs {
    let half_ms = match span.0 {
        0..120_000 => 500,
        120_000..7_200_000 => 30_000,
        7_200_000..172_800_000 => 1_800_000,
        _ => 43_200_000,
    };
    DurationMs(span.0.saturating_add(half_ms))
}

/// `time` as seen from `now`.
pub(crate) fn relative(now: UnixMs, time: UnixMs) -> String {
    let distance = rounded(now.distance(time));
    match (distance.0 < 1_000, time > now) {
        (true, _) => "just now".to_owned(),
        (false, true) => format!("in {distance}"),
        (false, false) => format!("{distance} ago"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_read() {
        assert_eq!(seconds("90s"), Ok(90));
        assert_eq!(seconds("1h30m"), Ok(5_400));
        assert_eq!(token_seconds("7d"), Ok(604_800));
        for wrong in ["", "0s", "15", "m", "1w", "-1s", "1h ", "99999999999999999999s", "300000000000000d", "é"] {
            assert!(seconds(wrong).is_err(), "{wrong:?}");
        }
        assert_eq!((healthy_within_seconds("20m"), min_healthy_seconds("10m")), (Ok(1_200), Ok(600)));
        assert_eq!(healthy_within_seconds("20m1s"), Err("at most 20 min are possible".to_owned()));
        assert_eq!(min_healthy_seconds("11m"), Err("at most 10 min are possible".to_owned()));
        assert_eq!(token_seconds("8d"), Err("at most 7 days are possible".to_owned()));
        assert_eq!((token_seconds("10s"), api_token_seconds("1m")), (Ok(10), Ok(60)));
        assert_eq!(token_seconds("9s"), Err("at least 10 s are needed".to_owned()));
        assert_eq!(api_token_seconds("59s"), Err("at least 60 s are needed".to_owned()));
    }

    #[test]
    fn times_are_told_from_now() {
        let now = UnixMs(1_000_000_000);
        assert_eq!(relative(now, UnixMs(now.0 - 400)), "just now");
        assert_eq!(relative(now, UnixMs(now.0 - 12_000)), "12 s ago");
        assert_eq!(relative(now, UnixMs(now.0 + 899_900)), "in 15 min");
        assert_eq!(relative(now, UnixMs(now.0 + 7 * 86_400_000 - 1)), "in 7 days");
    }
}
