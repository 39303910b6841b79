//! How often one may try to sign in, or ask at all. In memory: a restart forgets it, and gives an
//! attacker one more burst.
//!
//! Names, accounts, tokens and peer addresses each have a bucket that refills with time. Behind a
//! reverse proxy every peer is the proxy, so an address's bucket is shared by all behind it.

use core::net::{IpAddr, Ipv6Addr};
use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use ids::{ApiTokenId, DurationMs, UnixMs, UserId, UserName};

use crate::limits;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic elsewhere leaves the maps whole: each change is one insertion or removal.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What has a bucket.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Key {
    /// Sign-ins with a name.
    Name(UserName),
    /// Sign-ins from an address.
    Peer(IpAddr),
    /// Requests of any kind from an address.
    Address(IpAddr),
    /// Requests from an address without a credential that is taken.
    Stranger(IpAddr),
    /// Requests of an account's sessions.
    Account(UserId),
    /// Requests of an API token.
    Token(ApiTokenId),
}

impl Key {
    /// The bucket of sign-ins from a peer.
    pub(crate) fn peer(peer: IpAddr) -> Self {
        Self::Peer(network(peer))
    }

    pub(crate) fn address(peer: IpAddr) -> Self {
        Self::Address(network(peer))
    }

    pub(crate) fn stranger(peer: IpAddr) -> Self {
        Self::Stranger(network(peer))
    }

    /// How many fit into a full bucket, and the time one takes to come back.
    const fn measure(&self) -> (u32, DurationMs) {
        match self {
            Self::Name(_) => (limits::SIGN_INS_PER_NAME, limits::SIGN_IN_NAME_REFILL),
            Self::Peer(_) => (limits::SIGN_INS_PER_PEER, limits::SIGN_IN_PEER_REFILL),
            Self::Address(_) => (limits::REQUESTS_PER_ADDRESS, limits::REQUEST_ADDRESS_REFILL),
            Self::Stranger(_) => (limits::REQUESTS_PER_STRANGER, limits::REQUEST_STRANGER_REFILL),
            Self::Account(_) => (limits::REQUESTS_PER_ACCOUNT, limits::REQUEST_ACCOUNT_REFILL),
            Self::Token(_) => (limits::REQUESTS_PER_TOKEN, limits::REQUEST_TOKEN_REFILL),
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
pub(crate) struct Rate(Mutex<HashMap<Key, UnixMs>>);

impl Rate {
    /// Takes one from each bucket, or from none.
    ///
    /// # Errors
    /// How long until there is one, when any has none left.
    pub(crate) fn take(&self, keys: &[Key], now: UnixMs) -> Result<(), DurationMs> {
        let mut buckets = lock(&self.0);
        let mut wait = 0;
        for key in keys {
            let after = full_at(&buckets, key, now).plus(key.measure().1);
            wait = wait.max(after.since(now).0.saturating_sub(key.span_ms()));
        }
        if wait > 0 {
            return Err(DurationMs(wait));
        }
        for key in keys {
            let after = full_at(&buckets, key, now).plus(key.measure().1);
            if buckets.len() >= limits::RATE_KEYS_MAX && !buckets.contains_key(key) {
                make_room(&mut buckets, now);
            }
            buckets.insert(key.clone(), after);
        }
        Ok(())
    }

    /// Gives one back to each: it was a good one.
    pub(crate) fn give_back(&self, keys: &[Key], now: UnixMs) {
        let mut buckets = lock(&self.0);
        for key in keys {
            let before = full_at(&buckets, key, now).minus(key.measure().1);
            if before <= now {
                buckets.remove(key);
            } else {
                buckets.insert(key.clone(), before);
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
    if buckets.len() >= limits::RATE_KEYS_MAX
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

#[cfg(test)]
mod tests {
    use super::*;

    fn sign_in(name: &str, peer: IpAddr) -> [Key; 2] {
        [Key::Name(name.parse().unwrap()), Key::peer(peer)]
    }

    fn peer(n: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, n])
    }

    const START: UnixMs = UnixMs(1_700_000_000_000);

    #[test]
    fn a_name_runs_out_from_any_peer_and_comes_back_with_time() {
        let rate = Rate::default();
        for n in 0..limits::SIGN_INS_PER_NAME {
            assert_eq!(rate.take(&sign_in("ada", peer(n as u8)), START), Ok(()));
        }
        assert_eq!(rate.take(&sign_in("ada", peer(200)), START), Err(limits::SIGN_IN_NAME_REFILL));
        assert_eq!(rate.take(&sign_in("bob", peer(200)), START), Ok(()), "another name has its own");
        let later = START.plus(limits::SIGN_IN_NAME_REFILL);
        assert_eq!(rate.take(&sign_in("ada", peer(201)), later), Ok(()));
        assert!(rate.take(&sign_in("ada", peer(202)), later).is_err());
    }

    #[test]
    fn a_peer_runs_out_with_any_name_and_an_ipv6_network_is_one_peer() {
        let rate = Rate::default();
        for n in 0..limits::SIGN_INS_PER_PEER {
            let peer = format!("2001:db8::{n:x}").parse().unwrap();
            assert_eq!(rate.take(&sign_in(&format!("user{n}"), peer), START), Ok(()));
        }
        assert!(rate.take(&sign_in("fresh", "2001:db8::ffff".parse().unwrap()), START).is_err());
        assert_eq!(rate.take(&sign_in("fresh", "2001:db8:0:1::1".parse().unwrap()), START), Ok(()));
    }

    #[test]
    fn good_sign_ins_cost_nothing_and_a_clock_set_back_locks_nobody_out() {
        let rate = Rate::default();
        for _ in 0..10 * limits::SIGN_INS_PER_NAME {
            assert_eq!(rate.take(&sign_in("ada", peer(1)), START), Ok(()));
            rate.give_back(&sign_in("ada", peer(1)), START);
        }
        assert!(lock(&rate.0).is_empty());
        while rate.take(&sign_in("ada", peer(1)), START).is_ok() {}
        let year_back = START.minus(DurationMs::from_days(365));
        assert_eq!(rate.take(&sign_in("ada", peer(2)), year_back), Err(limits::SIGN_IN_NAME_REFILL));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let rate = Rate::default();
        for n in 0..limits::RATE_KEYS_MAX + 50 {
            let peer = IpAddr::from(Ipv6Addr::from_bits((n as u128) << 64));
            assert_eq!(rate.take(&sign_in(&format!("u{n}"), peer), START), Ok(()));
        }
        assert!(lock(&rate.0).len() <= limits::RATE_KEYS_MAX);
    }
}
