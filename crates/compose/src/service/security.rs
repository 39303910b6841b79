//! What a container may touch: capabilities, devices, security options.

use crate::{
    paths,
    reading::{Field, Reading, is_extension},
};

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

/// `name=value` in the one spelling that policy compares.
pub(super) fn option(text: &str) -> Result<String, &'static str> {
    let at = text.find(['=', ':']);
    let (name, value) = at.map_or((text, None), |at| (&text[..at], Some(&text[at + 1..])));
    let plain =
        |text: &str| (1..=255).contains(&text.len()) && !text.chars().any(|c| c.is_control() || c.is_whitespace());
    match (name, value) {
        ("no-new-privileges", None | Some("true")) => Ok("no-new-privileges=true".to_owned()),
        ("no-new-privileges", Some("false")) => Ok("no-new-privileges=false".to_owned()),
        ("seccomp", Some("unconfined")) => Ok("seccomp=unconfined".to_owned()),
        ("seccomp", _) => Err("of seccomp only `seccomp=unconfined` is known: profiles of your own are not sent along"),
        ("systempaths", Some("unconfined")) => Ok("systempaths=unconfined".to_owned()),
        ("apparmor" | "label", Some(value)) if plain(value) => Ok(format!("{name}={value}")),
        _ => Err("write no-new-privileges, seccomp=unconfined, apparmor=PROFILE, label=…, or systempaths=unconfined"),
    }
}

/// `c 1:3 mr`.
pub(super) fn device_rule(text: &str) -> Result<String, &'static str> {
    const FORM: &str = "a device rule is written `c 1:3 mr`: kind, numbers, permissions";
    let number = |text: &str| text == "*" || (!text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()));
    let [kind, numbers, permissions] = text.split(' ').collect::<Vec<_>>()[..] else { return Err(FORM) };
    let (major, minor) = numbers.split_once(':').ok_or(FORM)?;
    let known = matches!(kind, "a" | "b" | "c") && number(major) && number(minor);
    if known && text.len() <= 64 && device_permissions(permissions).is_ok() { Ok(text.to_owned()) } else { Err(FORM) }
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
    fn options_and_rules_have_one_spelling() {
        check(
            option,
            &[
                ("no-new-privileges", "no-new-privileges=true"),
                ("no-new-privileges:true", "no-new-privileges=true"),
                ("no-new-privileges=false", "no-new-privileges=false"),
                ("seccomp:unconfined", "seccomp=unconfined"),
                ("apparmor:unconfined", "apparmor=unconfined"),
                ("label:type:svirt_t", "label=type:svirt_t"),
                ("label=disable", "label=disable"),
            ],
            &[
                "",
                "seccomp:./profile.json",
                "seccomp",
                "apparmor=",
                "label=a b",
                "credentialspec=x",
                "no-new-privileges=maybe",
            ],
        );
        check(
            device_rule,
            &[("c 1:3 mr", "c 1:3 mr"), ("a *:* rwm", "a *:* rwm")],
            &["", "c 1:3", "x 1:3 r", "c 1 r", "c 1:3 q", "c 1:3 r "],
        );
    }

    #[test]
    fn capabilities_and_devices() {
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
}
