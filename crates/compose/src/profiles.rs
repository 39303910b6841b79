//! `profiles`: which services a deploy is about. A service without profiles always is; one with
//! profiles is if one of them is asked for. What is left out is not read further, and a note says so.

use std::collections::BTreeSet;

use crate::{
    Options,
    problem::excerpt,
    reading::{Field, Reading},
    sources::OUTERMOST,
};

/// The profiles asked for.
pub(crate) struct Profiles {
    asked: BTreeSet<String>,
    all: bool,
    /// Those that the caller named itself, not through a variable.
    named: BTreeSet<String>,
    seen: BTreeSet<String>,
}

impl Profiles {
    pub(crate) fn new(reading: &Reading<'_>, options: &Options<'_>) -> Self {
        let mut named: BTreeSet<String> = options.profiles.iter().cloned().collect();
        named.remove("*");
        let mut asked: BTreeSet<String> = options.profiles.iter().cloned().collect();
        if asked.is_empty() {
            let list = reading.sources.variable(OUTERMOST, "COMPOSE_PROFILES").unwrap_or_default();
            asked = list.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect();
        }
        let all = asked.remove("*");
        Self { asked, all, named, seen: BTreeSet::new() }
    }

    /// Whether the service takes part.
    pub(crate) fn take(&mut self, reading: &mut Reading<'_>, service: &Field<'_>) -> bool {
        let Some(field) = service.find("profiles") else { return true };
        let (mut names, mut shown) = (Vec::new(), Vec::new());
        for item in reading.list(&field).unwrap_or_default() {
            names.extend(reading.parsed(&item, profile));
            // Not what a variable brought.
            shown.extend(item.raw().filter(|raw| !raw.contains('$')).map(excerpt));
        }
        let takes_part = names.is_empty() || self.all || names.iter().any(|name| self.asked.contains(name));
        if !takes_part {
            let message = format!("the service is left out: its profiles ({}) are not asked for", shown.join(", "));
            reading.note(service, message, "pass `--profile NAME` for one of them");
        }
        self.seen.extend(names);
        takes_part
    }

    /// Tells of profiles that no service has.
    pub(crate) fn tell_unknown(&self, reading: &mut Reading<'_>, root: &Field<'_>) {
        let known: Vec<&str> = self.seen.iter().map(String::as_str).collect();
        for name in self.named.iter().filter(|name| !self.seen.contains(*name)) {
            let hint = match reading.nearest(name, &known) {
                Some(meant) => format!("did you mean `{meant}`?"),
                None => "look at `profiles` of the services".to_owned(),
            };
            reading.note(root, format!("no service has the profile {}", excerpt(name)), hint);
        }
    }
}

fn profile(text: &str) -> Result<String, &'static str> {
    let known = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
    if text.len() <= 128 && text.bytes().all(known) && text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric()) {
        Ok(text.to_owned())
    } else {
        Err("a profile's name has letters, digits, hyphens, underscores and dots, and begins with a letter or digit")
    }
}
