//! How a service's process is run and ended, and what it may touch on the host.

use actions::spec::{RestartPolicy, Text};

use crate::{
    limits::MEMORY_BYTES_MIN,
    paths,
    reading::{Field, Reading, is_extension},
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

pub(super) fn memory(text: &str) -> Result<u64, &'static str> {
    match units::bytes(text)? {
        bytes if bytes < MEMORY_BYTES_MIN => Err("the engine takes no memory limit below 6m"),
        bytes => Ok(bytes),
    }
}

/// A capability in the one spelling that policy compares: upper case, without `CAP_`.
pub(super) fn capability(text: &str) -> Result<String, &'static str> {
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("CAP_").unwrap_or(&upper);
    if (1..=32).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_uppercase() || b == b'_') {
        Ok(name.to_owned())
    } else {
        Err("a capability is a name such as NET_ADMIN")
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

/// `devices`, each in full: `/dev/here:/dev/there:rwm`.
pub(super) fn devices(reading: &mut Reading<'_>, field: &Field<'_>) -> Vec<String> {
    let mut devices = Vec::new();
    for item in reading.list(field).unwrap_or_default() {
        let read = if item.is_mapping() { device_long(reading, &item) } else { reading.parsed(&item, device) };
        devices.extend(read);
    }
    devices
}

fn device(text: &str) -> Result<String, &'static str> {
    let mut parts = text.split(':');
    let source = parts.next().unwrap_or_default();
    let target = parts.next().unwrap_or(source);
    let permissions = parts.next().unwrap_or("rwm");
    if parts.next().is_some() {
        return Err("a device is written /dev/here:/dev/there:rwm");
    }
    Ok(format!("{}:{}:{}", device_path(source)?, device_path(target)?, device_permissions(permissions)?))
}

fn device_path(text: &str) -> Result<String, &'static str> {
    if text.contains(':') {
        return Err("a device's path has no colon");
    }
    match paths::absolute(text) {
        Ok(path) => Ok(path),
        Err(_) => Err("a device is written by its absolute path, such as /dev/ttyUSB0"),
    }
}

fn device_permissions(text: &str) -> Result<String, &'static str> {
    let distinct = text.chars().enumerate().all(|(i, c)| !text.chars().take(i).any(|before| before == c));
    if !text.is_empty() && distinct && text.chars().all(|c| matches!(c, 'r' | 'w' | 'm')) {
        Ok(text.to_owned())
    } else {
        Err("a device's permissions are r, w and m")
    }
}

fn device_long(reading: &mut Reading<'_>, field: &Field<'_>) -> Option<String> {
    let (mut source, mut target, mut permissions) = (None, None, "rwm".to_owned());
    for entry in reading.mapping(field)? {
        match entry.key {
            "source" => source = Some(reading.parsed(&entry, device_path)?),
            "target" => target = Some(reading.parsed(&entry, device_path)?),
            "permissions" => permissions = reading.parsed(&entry, device_permissions)?,
            key if is_extension(key) => {}
            _ => reading.unknown_key(&entry, "a device", &["source", "target", "permissions"], &[]),
        }
    }
    let Some(source) = source else {
        reading.refuse(field, "the device has no `source`");
        return None;
    };
    let target = target.unwrap_or_else(|| source.clone());
    Some(format!("{source}:{target}:{permissions}"))
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
    fn signals_capabilities_and_devices() {
        check(
            signal,
            &[("SIGTERM", "SIGTERM"), ("INT", "INT"), ("9", "9"), ("SIGRTMIN+3", "SIGRTMIN+3")],
            &["", "SIGTREM", "sigterm", "0", "65", "SIGRTMIN+99", "SIGRTMAX+1", "-9"],
        );
        check(
            capability,
            &[("NET_ADMIN", "NET_ADMIN"), ("cap_sys_time", "SYS_TIME")],
            &["", "NET ADMIN", "CAP_", "A;B"],
        );
        check(
            device,
            &[("/dev/a", "/dev/a:/dev/a:rwm"), ("/dev/a:/dev/b", "/dev/a:/dev/b:rwm"), ("/dev/a:/b:r", "/dev/a:/b:r")],
            &[
                "",
                "dev/a",
                "/dev/a:/dev/b:x",
                "/dev/a:/dev/b:rr",
                "/dev/a:/dev/b:r:w",
                "/dev/../etc/shadow",
                "vendor.com/gpu=0",
            ],
        );
    }

    #[test]
    fn memory_has_a_least() {
        assert_eq!(memory("6m"), Ok(6 << 20));
        assert!(memory("5m").is_err());
    }
}
