//! Misbehaviour on request, so that a failing deploy can be shown and tested: the value of `FAIL`.

use std::{str::FromStr, time::Duration};

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// `unhealthy`: `/health` always answers 503.
    Unhealthy,
    /// `exit:<code>`: ends at once.
    Exit(u8),
    /// `crash-after:<ms>`: serves, then ends with 1.
    CrashAfter(Duration),
    /// `slow-health:<ms>`: `/health` answers 503 until then.
    SlowHealth(Duration),
}

impl FromStr for Fault {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("FAIL is {text:?}; use unhealthy, exit:<code>, crash-after:<ms>, slow-health:<ms> or nothing");
        let millis = |value: &str| value.parse().map(Duration::from_millis).map_err(|_| wrong());
        match text.split_once(':') {
            None if text == "unhealthy" => Ok(Self::Unhealthy),
            Some(("exit", code)) => code.parse().map(Self::Exit).map_err(|_| wrong()),
            Some(("crash-after", span)) => millis(span).map(Self::CrashAfter),
            Some(("slow-health", span)) => millis(span).map(Self::SlowHealth),
            _ => Err(wrong()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_fault_is_read_and_others_are_refused() {
        assert_eq!("unhealthy".parse(), Ok(Fault::Unhealthy));
        assert_eq!("exit:3".parse(), Ok(Fault::Exit(3)));
        assert_eq!("crash-after:250".parse(), Ok(Fault::CrashAfter(Duration::from_millis(250))));
        assert_eq!("slow-health:1000".parse(), Ok(Fault::SlowHealth(Duration::from_secs(1))));
        for text in ["", "exit", "exit:256", "crash-after:soon", "unhealthy:1"] {
            assert!(text.parse::<Fault>().is_err(), "{text}");
        }
    }
}
