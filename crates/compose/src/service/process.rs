//! How a service's process is run and ended.

use actions::spec::{RestartPolicy, Text};

use crate::{
    reading::{Field, Reading},
    units, words,
};

/// `command` and `entrypoint`: a list as it is, or a line that is split into words. An empty one
/// (`[]` or `""`) takes the image's away.
pub(super) fn argv(reading: &mut Reading<'_>, service: &str, field: &Field<'_>) -> Option<Vec<Text>> {
    let name = |index: usize| format!("{service}/{}/{index}", field.key);
    let mut argv = Vec::new();
    if field.is_list() {
        for (index, item) in reading.list(field)?.iter().enumerate() {
            let Some(value) = reading.value(item) else { continue };
            argv.push(reading.text(name(index), value));
        }
        return Some(argv);
    }
    let value = reading.value(field)?;
    match words::split(&value.text) {
        Ok(words) if value.reached => {
            argv.extend(words.into_iter().enumerate().map(|(index, word)| reading.sealed(name(index), word)));
        }
        Ok(words) => argv.extend(words.iter().map(|word| Text::Plain(word.to_string()))),
        Err(reason) => {
            let hint = "put quotes around it, or run a shell: [\"sh\", \"-c\", \"…\"]";
            reading.refuse_with(field, format!("the line has {reason}"), hint);
            return None;
        }
    }
    Some(argv)
}

pub(super) fn restart(reading: &mut Reading<'_>, field: &Field<'_>) -> Option<RestartPolicy> {
    reading.parsed(field, |text| match text {
        "no" => Ok(RestartPolicy::No),
        "always" => Ok(RestartPolicy::Always),
        "unless-stopped" => Ok(RestartPolicy::UnlessStopped),
        "on-failure" => Ok(RestartPolicy::OnFailure { max_attempts: None }),
        _ => match text.strip_prefix("on-failure:").map(units::whole) {
            Some(Ok(attempts @ 1..)) => Ok(RestartPolicy::OnFailure { max_attempts: Some(attempts) }),
            _ => Err("write no, always, unless-stopped, on-failure or on-failure:3"),
        },
    })
}

/// A signal by name (with or without SIG) or number.
pub(super) fn signal(text: &str) -> Result<String, &'static str> {
    const NAMES: &[&str] = &[
        "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "IOT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE",
        "ALRM", "TERM", "STKFLT", "CHLD", "CLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ",
        "VTALRM", "PROF", "WINCH", "IO", "POLL", "PWR", "SYS", "RTMIN", "RTMAX",
    ];
    if units::whole(text).is_ok_and(|number| (1..=64).contains(&number)) {
        return Ok(text.to_owned());
    }
    let name = text.strip_prefix("SIG").unwrap_or(text);
    let offset = |prefix: &str, sign: char, most: u32| {
        let offset = name.strip_prefix(prefix).and_then(|rest| rest.strip_prefix(sign)).map(units::whole);
        matches!(offset, Some(Ok(n)) if (1..=most).contains(&n))
    };
    if NAMES.contains(&name) || offset("RTMIN", '+', 15) || offset("RTMAX", '-', 14) {
        Ok(text.to_owned())
    } else {
        Err("a signal is a name such as SIGTERM or SIGINT, or a number from 1 to 64")
    }
}

/// A list of single values, none of them twice.
pub(super) fn distinct(
    reading: &mut Reading<'_>,
    field: &Field<'_>,
    parse: fn(&str) -> Result<String, &'static str>,
) -> Vec<String> {
    let mut list = Vec::new();
    for item in reading.list(field).unwrap_or_default() {
        let Some(parsed) = reading.parsed(&item, parse) else { continue };
        if list.contains(&parsed) {
            reading.refuse_with(&item, "it is in the list twice", "remove one of them");
        } else {
            list.push(parsed);
        }
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(parse: fn(&str) -> Result<String, &'static str>, good: &[(&str, &str)], bad: &[&str]) {
        for (text, expected) in good {
            assert_eq!(parse(text).as_deref(), Ok(*expected), "{text}");
        }
        for text in bad {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn signals() {
        check(
            signal,
            &[("SIGTERM", "SIGTERM"), ("INT", "INT"), ("9", "9"), ("SIGRTMIN+3", "SIGRTMIN+3")],
            &["", "SIGTREM", "sigterm", "0", "65", "SIGRTMIN+99", "SIGRTMAX+1", "-9"],
        );
    }
}
