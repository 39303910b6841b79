//! The form of a schedule: five fields, as in crontab(5). What it means is worked out by whoever runs orders; here it is
//! only made sure that it means something.

/// Why a schedule means nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScheduleError {
    /// Not five.
    #[error("{count} fields; a schedule has five: minute, hour, day of the month, month, day of the week")]
    Fields { count: usize },
    /// One of them.
    #[error(
        "the {field} {text:?}: use *, a number from {min} to {max}, a range as 1-5, a step as */10, or several with commas"
    )]
    Field { field: &'static str, text: String, min: u32, max: u32 },
    /// Not a name that a time zone can have.
    #[error("the time zone {zone:?}: use a name of the IANA time zone database, as UTC or Europe/Zurich")]
    Zone { zone: String },
}

const FIELDS: [(&str, u32, u32); 5] =
    [("minute", 0, 59), ("hour", 0, 23), ("day of the month", 1, 31), ("month", 1, 12), ("day of the week", 0, 7)];

/// Whether a schedule and the time zone it is meant in have the right form. Names of months and days are not taken.
///
/// # Errors
/// The first field that is wrong.
pub fn check_schedule(schedule: &str, zone: &str) -> Result<(), ScheduleError> {
    let texts: Vec<&str> = schedule.split(' ').filter(|text| !text.is_empty()).collect();
    if texts.len() != FIELDS.len() {
        return Err(ScheduleError::Fields { count: texts.len() });
    }
    for (text, (field, min, max)) in texts.into_iter().zip(FIELDS) {
        if !text.split(',').all(|part| is_part(part, min, max)) {
            return Err(ScheduleError::Field { field, text: text.to_owned(), min, max });
        }
    }
    let is_name = |part: &str| {
        part.starts_with(|first: char| first.is_ascii_alphabetic())
            && part.chars().all(|it| it.is_ascii_alphanumeric() || matches!(it, '_' | '-' | '+'))
    };
    if zone.split('/').all(is_name) { Ok(()) } else { Err(ScheduleError::Zone { zone: zone.to_owned() }) }
}

/// `*`, `n`, `n-m`, each but the number alone with a `/step`.
fn is_part(part: &str, min: u32, max: u32) -> bool {
    let (range, step) = part.split_once('/').map_or((part, None), |(range, step)| (range, Some(step)));
    let steps_well = step.is_none_or(|step| number(step).is_some_and(|step| (1..=max).contains(&step)));
    let within = |text: &str| number(text).filter(|number| (min..=max).contains(number));
    steps_well
        && match range.split_once('-') {
            None if range == "*" => true,
            None => step.is_none() && within(range).is_some(),
            Some((from, to)) => within(from).zip(within(to)).is_some_and(|(from, to)| from <= to),
        }
}

/// Digits alone, and not many.
fn number(text: &str) -> Option<u32> {
    let is_digits = (1..=2).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    if is_digits { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_crontab_takes_is_taken_and_what_means_nothing_is_not() {
        for good in ["* * * * *", "30 3 * * 1-5", "*/10 0-6/2 1,15 * 7", "0  0 31 12 0", "59 23 1-31/5 1-12 *"] {
            assert_eq!(check_schedule(good, "Europe/Zurich"), Ok(()), "{good}");
        }
        for bad in [
            "",
            "* * * *",
            "* * * * * *",
            "60 * * * *",
            "* 24 * * *",
            "* * 0 * *",
            "* * * 13 *",
            "* * * * 8",
            "5-1 * * * *",
            "*/0 * * * *",
            "5/10 * * * *",
            "1, * * * *",
            "-1 * * * *",
            "+1 * * * *",
            "001 * * * *",
            "@daily",
            "* * * jan *",
            "1-2-3 * * * *",
            "*/ * * * *",
        ] {
            assert!(check_schedule(bad, "UTC").is_err(), "{bad}");
        }
        for bad in ["", "/", "Europe/", "../etc/passwd", "Europe Zurich", "1", "A;b"] {
            assert!(matches!(check_schedule("* * * * *", bad), Err(ScheduleError::Zone { .. })), "{bad}");
        }
        assert_eq!(check_schedule("* * * * *", "Etc/GMT+12"), Ok(()));
    }

    proptest! {
        #[test]
        fn any_text_is_judged_without_panic(schedule in ".{0,40}", zone in ".{0,20}") {
            let _ = check_schedule(&schedule, &zone);
        }
    }
}
