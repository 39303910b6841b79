//! How often one may try to sign in, and how refused tries are told to the audit log. In memory: a
//! restart forgets it, and gives an attacker one more burst.
//!
//! Each name and each peer address has a bucket of tries that refills with time. Behind a reverse
//! proxy every peer is the proxy, so its bucket is shared; the name's is what counts then.

use core::net::{IpAddr, Ipv6Addr};
use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use ids::{DurationMs, UnixMs, UserName};

use crate::limits;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic elsewhere leaves the maps whole: each change is one insertion or removal.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Key {
    Name(UserName),
    Peer(IpAddr),
}

impl Key {
    /// Tries in a full bucket, and the time one takes to come back.
    const fn measure(&self) -> (u32, DurationMs) {
        match self {
            Self::Name(_) => (limits::SIGN_INS_PER_NAME, limits::SIGN_IN_NAME_REFILL),
            Self::Peer(_) => (limits::SIGN_INS_PER_PEER, limits::SIGN_IN_PEER_REFILL),
        }
    }

    /// How far ahead of now a bucket may be empty.
    const fn span_ms(&self) -> u64 {
        let (burst, refill) = self.measure();
        burst as u64 * refill.0
    }
}

/// The buckets, as the time at which each is full again.
#[derive(Default)]
pub(crate) struct SignInRate(Mutex<HashMap<Key, UnixMs>>);

impl SignInRate {
    /// Takes one try of a name and of a peer.
    ///
    /// # Errors
    /// How long until there is one, when either has none left.
    pub(crate) fn take(&self, name: &UserName, peer: IpAddr, now: UnixMs) -> Result<(), DurationMs> {
        let keys = [Key::Name(name.clone()), Key::Peer(network(peer))];
        let mut buckets = lock(&self.0);
        let mut wait = 0;
        for key in &keys {
            let after = full_at(&buckets, key, now).plus(key.measure().1);
            wait = wait.max(after.since(now).0.saturating_sub(key.span_ms()));
        }
        if wait > 0 {
            return Err(DurationMs(wait));
        }
        for key in keys {
            let after = full_at(&buckets, &key, now).plus(key.measure().1);
            if buckets.len() >= limits::SIGN_IN_KEYS_MAX && !buckets.contains_key(&key) {
                make_room(&mut buckets, now);
            }
            buckets.insert(key, after);
        }
        Ok(())
    }

    /// Gives the try back: it was a good one.
    pub(crate) fn give_back(&self, name: &UserName, peer: IpAddr, now: UnixMs) {
        let mut buckets = lock(&self.0);
        for key in [Key::Name(name.clone()), Key::Peer(network(peer))] {
            let before = full_at(&buckets, &key, now).minus(key.measure().1);
            if before <= now {
                buckets.remove(&key);
            } else {
                buckets.insert(key, before);
            }
        }
    }
}

/// The time at which a bucket is full again; never further ahead than an empty one, so that a clock
/// that was set back locks nobody out.
fn full_at(buckets: &HashMap<Key, UnixMs>, key: &Key, now: UnixMs) -> UnixMs {
    buckets.get(key).map_or(now, |at| (*at).clamp(now, now.plus(DurationMs(key.span_ms()))))
}

/// Forgets full buckets, or at least the one that is nearest to full.
fn make_room(buckets: &mut HashMap<Key, UnixMs>, now: UnixMs) {
    buckets.retain(|_, full_at| *full_at > now);
    if buckets.len() >= limits::SIGN_IN_KEYS_MAX
        && let Some(key) = buckets.iter().min_by_key(|(_, full_at)| **full_at).map(|(key, _)| key.clone())
    {
        buckets.remove(&key);
    }
}

/// Whoever has one IPv6 address has its whole /64.
pub(crate) fn network(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX))),
        v4 => v4,
    }
}

/// Refused sign-ins that the audit log has not been told of.
#[derive(Default)]
pub(crate) struct Refusals(Mutex<HashMap<Option<UserName>, Refused>>);

struct Refused {
    told_at: UnixMs,
    untold: u64,
    last_peer: IpAddr,
}

/// Refused sign-ins that are to be told to the audit log now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RefusalsToTell {
    /// An account's name, or none for names that no account has.
    pub(crate) name: Option<UserName>,
    pub(crate) count: u64,
    pub(crate) last_peer: IpAddr,
}

impl Refusals {
    /// Counts one. The first in a while is told at once, those after it together. The number of
    /// accounts bounds what is remembered.
    pub(crate) fn note(&self, name: Option<UserName>, peer: IpAddr, now: UnixMs) -> Option<RefusalsToTell> {
        let mut all = lock(&self.0);
        match all.get_mut(&name) {
            Some(refused) => {
                refused.untold += 1;
                refused.last_peer = peer;
                None
            }
            None => {
                all.insert(name.clone(), Refused { told_at: now, untold: 0, last_peer: peer });
                Some(RefusalsToTell { name, count: 1, last_peer: peer })
            }
        }
    }

    /// What has come due; with `all`, everything.
    pub(crate) fn due(&self, now: UnixMs, all: bool) -> Vec<RefusalsToTell> {
        let mut due = Vec::new();
        lock(&self.0).retain(|name, refused| {
            if !all && now.since(refused.told_at) < limits::REFUSALS_PER {
                return true;
            }
            let count = core::mem::take(&mut refused.untold);
            refused.told_at = now;
            if count > 0 {
                due.push(RefusalsToTell { name: name.clone(), count, last_peer: refused.last_peer });
            }
            count > 0
        });
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> UserName {
        text.parse().unwrap()
    }

    fn peer(n: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, n])
    }

    const START: UnixMs = UnixMs(1_700_000_000_000);

    #[test]
    fn a_name_runs_out_from_any_peer_and_comes_back_with_time() {
        let rate = SignInRate::default();
        for n in 0..limits::SIGN_INS_PER_NAME {
            assert_eq!(rate.take(&name("ada"), peer(n as u8), START), Ok(()));
        }
        assert_eq!(rate.take(&name("ada"), peer(200), START), Err(limits::SIGN_IN_NAME_REFILL));
        assert_eq!(rate.take(&name("bob"), peer(200), START), Ok(()), "another name has its own");
        let later = START.plus(limits::SIGN_IN_NAME_REFILL);
        assert_eq!(rate.take(&name("ada"), peer(201), later), Ok(()));
        assert!(rate.take(&name("ada"), peer(202), later).is_err());
    }

    #[test]
    fn a_peer_runs_out_with_any_name_and_an_ipv6_network_is_one_peer() {
        let rate = SignInRate::default();
        for n in 0..limits::SIGN_INS_PER_PEER {
            let peer = format!("2001:db8::{n:x}").parse().unwrap();
            assert_eq!(rate.take(&name(&format!("user{n}")), peer, START), Ok(()));
        }
        assert!(rate.take(&name("fresh"), "2001:db8::ffff".parse().unwrap(), START).is_err());
        assert_eq!(rate.take(&name("fresh"), "2001:db8:0:1::1".parse().unwrap(), START), Ok(()));
    }

    #[test]
    fn good_sign_ins_cost_nothing_and_a_clock_set_back_locks_nobody_out() {
        let rate = SignInRate::default();
        for _ in 0..10 * limits::SIGN_INS_PER_NAME {
            assert_eq!(rate.take(&name("ada"), peer(1), START), Ok(()));
            rate.give_back(&name("ada"), peer(1), START);
        }
        assert!(lock(&rate.0).is_empty());
        while rate.take(&name("ada"), peer(1), START).is_ok() {}
        let year_back = START.minus(DurationMs::from_days(365));
        assert_eq!(rate.take(&name("ada"), peer(2), year_back), Err(limits::SIGN_IN_NAME_REFILL));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let rate = SignInRate::default();
        for n in 0..limits::SIGN_IN_KEYS_MAX + 50 {
            let peer = IpAddr::from(Ipv6Addr::from_bits((n as u128) << 64));
            assert_eq!(rate.take(&name(&format!("u{n}")), peer, START), Ok(()));
        }
        assert!(lock(&rate.0).len() <= limits::SIGN_IN_KEYS_MAX);
    }

    #[test]
    fn refusals_are_told_once_a_minute_per_account() {
        let refusals = Refusals::default();
        let ada = Some(name("ada"));
        let told = |name: &Option<UserName>, count| RefusalsToTell { name: name.clone(), count, last_peer: peer(1) };
        assert_eq!(refusals.note(ada.clone(), peer(1), START), Some(told(&ada, 1)));
        assert_eq!(refusals.note(None, peer(1), START), Some(told(&None, 1)));
        for _ in 0..5 {
            assert_eq!(refusals.note(ada.clone(), peer(1), START), None);
        }
        assert_eq!(refusals.due(START, false), []);
        let minute = START.plus(limits::REFUSALS_PER);
        assert_eq!(refusals.due(minute, false), [told(&ada, 5)]);
        assert_eq!(refusals.note(ada.clone(), peer(1), minute), None, "its next minute has begun");
        assert_eq!(refusals.due(minute, true), [told(&ada, 1)]);
        assert_eq!(refusals.due(minute.plus(limits::REFUSALS_PER), false), []);
        assert!(lock(&refusals.0).is_empty(), "nothing is kept of quiet names");
    }
}
