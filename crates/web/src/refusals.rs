//! Refusals that the audit log is told of together: one entry a minute for each account and token, so
//! that nobody fills the log by knocking.

use core::net::IpAddr;
use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use ids::{ApiTokenId, UnixMs, UserName};
use tokio::sync::Notify;

use crate::limits;

/// What was refused.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Refused {
    /// A sign-in; the account's name, or none for names that no account has.
    SignIn(Option<UserName>),
    /// Sign-ins that were too many to be looked at; the account's name, or none for names that no account has.
    TooManySignIns(Option<UserName>),
    /// A session that had expired.
    Session(UserName),
    /// An API token that had expired, was revoked, or whose account is disabled.
    Token(ApiTokenId, UserName),
    /// More than is kept apart.
    Others,
}

/// Refusals that are to be told now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ToTell {
    pub(crate) what: Refused,
    pub(crate) count: u64,
    pub(crate) last_peer: IpAddr,
}

struct Counted {
    /// Never, or when it was told last.
    told_at: Option<UnixMs>,
    untold: u64,
    last_peer: IpAddr,
}

/// Refusals that the audit log has not been told of.
#[derive(Default)]
pub(crate) struct Refusals {
    counted: Mutex<HashMap<Refused, Counted>>,
    /// Someone should look for what is due.
    pub(crate) news: Notify,
}

impl Refusals {
    fn counted(&self) -> std::sync::MutexGuard<'_, HashMap<Refused, Counted>> {
        // A panic elsewhere leaves the map whole: each change is one insertion or removal.
        self.counted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts one. The first in a while is due at once, those after it together.
    pub(crate) fn note(&self, what: Refused, peer: IpAddr) {
        self.add(what, 1, peer);
    }

    /// Counts again what could not be told.
    pub(crate) fn put_back(&self, told: ToTell) {
        self.add(told.what, told.count, told.last_peer);
    }

    fn add(&self, what: Refused, count: u64, peer: IpAddr) {
        let mut counted = self.counted();
        let has_room = counted.len() < limits::REFUSAL_KEYS_MAX || counted.contains_key(&what);
        let what = if has_room { what } else { Refused::Others };
        let counted = counted.entry(what).or_insert(Counted { told_at: None, untold: 0, last_peer: peer });
        counted.untold += count;
        counted.last_peer = peer;
        if counted.told_at.is_none() {
            self.news.notify_one();
        }
    }

    /// What has come due; with `all`, everything.
    pub(crate) fn due(&self, now: UnixMs, all: bool) -> Vec<ToTell> {
        let mut due = Vec::new();
        self.counted().retain(|what, counted| {
            let waits = counted.told_at.is_some_and(|at| now.since(at) < limits::REFUSALS_PER);
            if waits && !all {
                return true;
            }
            let count = core::mem::take(&mut counted.untold);
            counted.told_at = Some(now);
            if count > 0 {
                due.push(ToTell { what: what.clone(), count, last_peer: counted.last_peer });
            }
            count > 0
        });
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: UnixMs = UnixMs(1_700_000_000_000);

    fn peer() -> IpAddr {
        IpAddr::from([10, 0, 0, 1])
    }

    fn told(what: &Refused, count: u64) -> ToTell {
        ToTell { what: what.clone(), count, last_peer: peer() }
    }

    #[test]
    fn refusals_are_told_once_a_minute_per_account_and_none_is_lost() {
        let refusals = Refusals::default();
        let ada = Refused::SignIn(Some("ada".parse().unwrap()));
        refusals.note(ada.clone(), peer());
        assert_eq!(refusals.due(START, false), [told(&ada, 1)], "the first one at once");
        for _ in 0..5 {
            refusals.note(ada.clone(), peer());
        }
        refusals.note(Refused::SignIn(None), peer());
        assert_eq!(refusals.due(START, false), [told(&Refused::SignIn(None), 1)]);
        let minute = START.plus(limits::REFUSALS_PER);
        assert_eq!(refusals.due(minute, false), [told(&ada, 5)]);
        refusals.put_back(told(&ada, 5));
        assert_eq!(refusals.due(minute, false), [], "its next minute has begun");
        refusals.note(ada.clone(), peer());
        assert_eq!(refusals.due(minute, true), [told(&ada, 6)], "what could not be told is told with the next");
        assert_eq!(refusals.due(minute.plus(limits::REFUSALS_PER), false), []);
        assert!(refusals.counted().is_empty(), "nothing is kept of quiet names");
    }

    #[test]
    fn what_is_remembered_is_bounded_and_still_counted() {
        let refusals = Refusals::default();
        for n in 0..limits::REFUSAL_KEYS_MAX + 7 {
            refusals.note(Refused::Session(format!("u{n}").parse().unwrap()), peer());
        }
        let due = refusals.due(START, true);
        assert_eq!(due.iter().map(|told| told.count).sum::<u64>(), limits::REFUSAL_KEYS_MAX as u64 + 7);
        assert!(due.contains(&told(&Refused::Others, 7)) && due.len() == limits::REFUSAL_KEYS_MAX + 1);
    }
}
