//! What is different between two versions of root metadata, in words.

use core::fmt;

use ids::UnixMs;

use crate::{
    keys::key_id,
    messages::{LogPosition, PublicKeyBytes, RootMetadata},
};

/// One difference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Name of the field of root metadata that differs.
    pub field: &'static str,
    /// What happens, for people.
    pub words: String,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words)
    }
}

/// Everything that differs. Never empty for a version and its next one: at least the times differ.
#[must_use]
pub fn changes(from: &RootMetadata, to: &RootMetadata) -> Vec<Change> {
    let mut said = Said(Vec::new());
    if from.fleet != to.fleet {
        said.put("fleet", format!("it is for another fleet: {} instead of {}", to.fleet, from.fleet));
    }
    said.keys("root_keys", "root key", &from.root_keys, &to.root_keys);
    if from.root_threshold != to.root_threshold {
        let (before, after, of) = (from.root_threshold, to.root_threshold, to.root_keys.len());
        said.put("root_threshold", format!("{after} of {of} root keys must sign from then on ({before} until then)"));
    }
    said.keys("session_keys", "session key", &from.session_keys, &to.session_keys);
    said.keys("command_keys", "command key", &from.command_keys, &to.command_keys);
    said.keys("audit_key", "audit key", &[from.audit_key], &[to.audit_key]);
    said.keys("approver_keys", "approver key", &from.approver_keys, &to.approver_keys);
    let needs = [
        ("approvals.change", "change", from.approvals.change, to.approvals.change),
        ("approvals.destructive", "destructive", from.approvals.destructive, to.approvals.destructive),
    ];
    for (field, class, before, after) in needs.into_iter().filter(|(_, _, before, after)| before != after) {
        said.put(field, format!("actions of class {class} need {after} approvals ({before} until then)"));
    }
    said.list("recovery_keys", "recovery key", &from.recovery_keys, &to.recovery_keys);
    said.list("tls_pins", "TLS pin", &from.tls_pins, &to.tls_pins);
    if from.addresses != to.addresses {
        said.put(
            "addresses",
            format!("agents dial {} (until then {})", to.addresses.join(", "), from.addresses.join(", ")),
        );
    }
    said.rest(from, to);
    said.0
}

struct Said(Vec<Change>);

impl Said {
    fn put(&mut self, field: &'static str, words: String) {
        self.0.push(Change { field, words });
    }

    fn keys(&mut self, field: &'static str, what: &str, from: &[PublicKeyBytes], to: &[PublicKeyBytes]) {
        let named =
            |keys: &[PublicKeyBytes]| keys.iter().map(|key| format!("{key} (id {})", key_id(key))).collect::<Vec<_>>();
        self.list(field, what, &named(from), &named(to));
    }

    fn list<T: PartialEq + fmt::Display>(&mut self, field: &'static str, what: &str, from: &[T], to: &[T]) {
        for added in to.iter().filter(|item| !from.contains(item)) {
            self.put(field, format!("{what} {added} is added"));
        }
        for dropped in from.iter().filter(|item| !to.contains(item)) {
            self.put(field, format!("{what} {dropped} is dropped"));
        }
        let both = |list: &[T], other: &[T]| {
            list.iter().filter(|item| other.contains(item)).map(T::to_string).collect::<Vec<_>>()
        };
        if both(from, to) != both(to, from) {
            self.put(field, format!("the {what}s stand in another order"));
        }
    }

    fn rest(&mut self, from: &RootMetadata, to: &RootMetadata) {
        if from.epoch != to.epoch {
            let (before, after) = (from.epoch, to.epoch);
            let words = format!("the epoch goes from {before} to {after}: everything signed before is void");
            self.put("epoch", words);
        }
        if from.audit_log != to.audit_log {
            self.put(
                "audit_log",
                format!("audit log {} is kept from then on, no longer {}", to.audit_log, from.audit_log),
            );
        }
        if from.restored_log != to.restored_log {
            let stood = |log: Option<LogPosition>| {
                log.map_or("none".to_owned(), |log| format!("{} of {} entries", log.log, log.size))
            };
            let (before, after) = (stood(from.restored_log), stood(to.restored_log));
            self.put("restored_log", format!("the log before a restore is {after} (until then {before})"));
        }
        if from.protocol_min != to.protocol_min {
            let (before, after) = (from.protocol_min, to.protocol_min);
            self.put("protocol_min", format!("agents must speak protocol {after} or later ({before} until then)"));
        }
        if from.expires != to.expires {
            let (before, after) = (Day(from.expires), Day(to.expires));
            self.put("expires", format!("it is valid until {after} (until then {before})"));
        }
    }
}

/// A day of the Gregorian calendar in UTC, as ISO 8601 writes it.
struct Day(UnixMs);

impl fmt::Display for Day {
    /// Civil date from days since 1970-01-01, in eras of 400 years that begin on 1 March
    /// (Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", `civil_from_days`).
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let days = self.0.0 / 86_400_000 + 719_468;
        let (era, of_era) = (days / 146_097, days % 146_097);
        let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
        let of_year = of_era - (365 * year + year / 4 - year / 100);
        let month = (5 * of_year + 2) / 153;
        let day = of_year - (153 * month + 2) / 5 + 1;
        let (month, year) = if month < 10 { (month + 3, year) } else { (month - 9, year + 1) };
        write!(f, "{:04}-{month:02}-{day:02}", era * 400 + year)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_those_of_the_calendar() {
        let check = |ms: u64, day: &str| assert_eq!(Day(UnixMs(ms)).to_string(), day);
        check(0, "1970-01-01");
        check(86_399_999, "1970-01-01");
        check(951_782_400_000, "2000-02-29");
        check(951_868_800_000, "2000-03-01");
        check(1_798_675_200_000, "2026-12-31");
        check(1_798_761_600_000, "2027-01-01");
        check(4_107_542_400_000, "2100-03-01");
    }
}
