//! `healthcheck`: how the engine judges whether a container is well.

use actions::spec::{HealthTest, HealthcheckSpec};

use crate::{
    reading::{Field, Reading, is_extension},
    units,
};

pub(crate) const KEYS: &[&str] =
    &["test", "interval", "timeout", "retries", "start_period", "start_interval", "disable"];

pub(crate) fn read(reading: &mut Reading<'_>, service: &str, field: &Field<'_>) -> Option<HealthcheckSpec> {
    let mut check = HealthcheckSpec {
        test: HealthTest::Inherit,
        interval_ms: None,
        timeout_ms: None,
        retries: None,
        start_period_ms: None,
    };
    let (mut test, mut disabled) = (None, false);
    for entry in reading.mapping(field)? {
        match entry.key {
            "test" => test = self::test(reading, service, &entry),
            "interval" => check.interval_ms = reading.parsed(&entry, positive_ms),
            "timeout" => check.timeout_ms = reading.parsed(&entry, positive_ms),
            "start_period" => check.start_period_ms = reading.parsed(&entry, units::duration_ms),
            "start_interval" => {
                reading.parsed(&entry, positive_ms);
                let hint = "shorten `interval` if that is too slow";
                reading.note(&entry, "`interval` holds during the start period as well", hint);
            }
            "retries" => {
                check.retries = reading.parsed(&entry, |text| match units::whole(text)? {
                    0 => Err("at least 1 probe must have failed"),
                    n => Ok(n),
                });
            }
            "disable" => disabled = reading.parsed(&entry, units::switch)?,
            key if is_extension(key) => {}
            _ => reading.unknown_key(&entry, "a health check", KEYS, &[]),
        }
    }
    if disabled && test.as_ref().is_some_and(|test| *test != HealthTest::Disabled) {
        reading.refuse_with(field, "the health check has a `test` and `disable: true`", "remove one of them");
    }
    check.test = if disabled { HealthTest::Disabled } else { test.unwrap_or(HealthTest::Inherit) };
    Some(check)
}

/// The engine takes 0 for "as the image says"; a person who writes 0 means something else.
fn positive_ms(text: &str) -> Result<u64, &'static str> {
    match units::duration_ms(text)? {
        0 => Err("at least 1ms; leave the key out for the engine's default"),
        ms => Ok(ms),
    }
}

/// A line for the container's shell, or `["NONE"]`, `["CMD", …]`, `["CMD-SHELL", line]`.
fn test(reading: &mut Reading<'_>, service: &str, field: &Field<'_>) -> Option<HealthTest> {
    const FORMS: &str = "write [\"CMD\", program, argument…], [\"CMD-SHELL\", line], [\"NONE\"], or one line of text";
    let name = |index: usize| format!("{service}/healthcheck/test/{index}");
    if !field.is_list() {
        let value = reading.value(field)?;
        if value.text.trim().is_empty() {
            reading.refuse_with(field, "the probe is empty", FORMS);
            return None;
        }
        return Some(HealthTest::Shell(reading.text(name(0), value)));
    }
    let items = reading.list(field)?;
    let Some((first, rest)) = items.split_first() else {
        reading.refuse_with(field, "the probe is empty", FORMS);
        return None;
    };
    let kind = reading.value(first)?;
    let mut arguments = Vec::new();
    for (index, item) in rest.iter().enumerate() {
        let value = reading.value(item)?;
        arguments.push(reading.text(name(index), value));
    }
    match (kind.text.as_str(), arguments.len()) {
        ("NONE", 0) => Some(HealthTest::Disabled),
        ("CMD", 1..) => Some(HealthTest::Command(arguments)),
        ("CMD-SHELL", 1) => arguments.pop().map(HealthTest::Shell),
        ("NONE" | "CMD" | "CMD-SHELL", _) => {
            reading.refuse_with(field, "the probe has the wrong number of parts", FORMS);
            None
        }
        _ => {
            reading.refuse_value(first, &kind, "a probe begins with CMD, CMD-SHELL or NONE");
            None
        }
    }
}
