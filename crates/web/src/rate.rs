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
    /// Sign-ins with a name from an address.
    NameAt(UserName, IpAddr),
    /// Sign-ins with a name from anywhere.
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
    /// The buckets of a sign-in with a name from a peer; that of the peer comes last.
    pub(crate) fn sign_in(name: &UserName, peer: IpAddr) -> [Self; 3] {
        [Self::NameAt(name.clone(), network(peer)), Self::Name(name.clone()), Self::Peer(network(peer))]
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
            Self::NameAt(..) => (limits::SIGN_INS_PER_NAME_AND_PEER, limits::SIGN_IN_NAME_AND_PEER_REFILL),
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
            let after = full_at(&mut buckets, key, now).plus(key.measure().1);
            wait = wait.max(after.since(now).0.saturating_sub(key.span_ms()));
        }
        if wait > 0 {
            return Err(DurationMs(wait));
        }
        for key in keys {
            let after = full_at(&mut buckets, key, now).plus(key.measure().1);
            if buckets.len() >= limits::RATE_KEYS_MAX && !buckets.contains_key(key) {
                make_room(&mut buckets, now);
            }
            buckets.insert(key.clone(), after);
        }
        Ok(())
    }

    /// Takes what a sign-in costs. One that is refused costs its address one all the same, so that nobody
    /// keeps a name's bucket empty for nothing.
    ///
    /// # Errors
    /// As [`Self::take`].
    pub(crate) fn take_sign_in(&self, keys: &[Key; 3], now: UnixMs) -> Result<(), DurationMs> {
        self.take(keys, now).inspect_err(|_| {
            // An error means that the address has none left either.
            let _ = self.take(&keys[2..], now);
        })
    }

    /// Gives one back to each: it was a good one.
    pub(crate) fn give_back(&self, keys: &[Key], now: UnixMs) {
        let mut buckets = lock(&self.0);
        for key in keys {
            let before = full_at(&mut buckets, key, now).minus(key.measure().1);
            if before <= now {
                buckets.remove(key);
            } else {
                buckets.insert(key.clone(), before);
            }
        }
    }
}

/// The time at which a bucket is full again; never further ahead than an empty one. One that is can only
/// come of a clock that was set back, and is an empty one from now on: else it would stay empty until the
/// clock has caught up, and lock everybody out so long.
fn full_at(buckets: &mut HashMap<Key, UnixMs>, key: &Key, now: UnixMs) -> UnixMs {
    buckets.get_mut(key).map_or(now, |at| {
        *at = (*at).min(now.plus(DurationMs(key.span_ms())));
        (*at).max(now)
    })
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

    fn sign_in(name: &str, peer: IpAddr) -> [Key; 3] {
        Key::sign_in(&name.parse().unwrap(), peer)
    }

    fn peer(n: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, n])
    }

    const START: UnixMs = UnixMs(1_700_000_000_000);

    #[test]
    fn a_name_runs_out_for_one_peer_and_comes_back_with_time() {
        let rate = Rate::default();
        for _ in 0..limits::SIGN_INS_PER_NAME_AND_PEER {
            assert_eq!(rate.take(&sign_in("ada", peer(1)), START), Ok(()));
        }
        let refill = limits::SIGN_IN_NAME_AND_PEER_REFILL;
        assert_eq!(rate.take(&sign_in("ada", peer(1)), START), Err(refill));
        assert_eq!(rate.take(&sign_in("bob", peer(1)), START), Ok(()), "another name has its own");
        assert_eq!(rate.take(&sign_in("ada", peer(2)), START), Ok(()), "and so has another peer");
        let later = START.plus(refill);
        assert_eq!(rate.take(&sign_in("ada", peer(1)), later), Ok(()));
        assert!(rate.take(&sign_in("ada", peer(1)), later).is_err());
    }

    #[test]
    fn a_name_runs_out_for_many_peers_together() {
        let rate = Rate::default();
        let far = |n: u32| IpAddr::from([10, 1, (n / 250) as u8, (n % 250) as u8]);
        for n in 0..limits::SIGN_INS_PER_NAME {
            assert_eq!(rate.take(&sign_in("ada", far(n)), START), Ok(()));
        }
        assert_eq!(rate.take(&sign_in("ada", peer(1)), START), Err(limits::SIGN_IN_NAME_REFILL));
        assert_eq!(rate.take(&sign_in("ada", peer(1)), START.plus(limits::SIGN_IN_NAME_REFILL)), Ok(()));
    }

    /// A stranger who never stops trying, as fast as they are answered: the owner of the name still gets in.
    #[test]
    fn one_peer_shuts_nobody_out_of_a_name() {
        let rate = Rate::default();
        let mut looked_at = 0;
        for second in 0..3_600u64 {
            let now = START.plus(DurationMs::from_secs(second));
            for _ in 0..10 {
                looked_at += u64::from(rate.take_sign_in(&sign_in("ada", peer(66)), now).is_ok());
            }
            let owner = sign_in("ada", peer(1));
            assert_eq!(rate.take_sign_in(&owner, now), Ok(()), "after {second} s");
            rate.give_back(&owner, now);
        }
        let most = u64::from(limits::SIGN_INS_PER_NAME_AND_PEER) + 3_600_000 / limits::SIGN_IN_NAME_AND_PEER_REFILL.0;
        assert!((1..=most).contains(&looked_at), "{looked_at}");
    }

    #[test]
    fn tries_that_are_refused_cost_their_peer() {
        let rate = Rate::default();
        while rate.take_sign_in(&sign_in("ada", peer(1)), START).is_ok() {}
        // The one that was refused has cost one, and so does each from now on.
        let left = limits::SIGN_INS_PER_PEER - limits::SIGN_INS_PER_NAME_AND_PEER - 1;
        for _ in 0..left {
            assert!(rate.take_sign_in(&sign_in("ada", peer(1)), START).is_err());
        }
        assert!(rate.take_sign_in(&sign_in("bob", peer(1)), START).is_err(), "another name from there");
        assert_eq!(rate.take_sign_in(&sign_in("bob", peer(2)), START), Ok(()));
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
        assert_eq!(rate.take(&sign_in("ada", peer(1)), year_back), Err(limits::SIGN_IN_NAME_AND_PEER_REFILL));
        let later = year_back.plus(limits::SIGN_IN_NAME_AND_PEER_REFILL);
        assert_eq!(rate.take(&sign_in("ada", peer(1)), later), Ok(()), "it comes back with time, not a year later");
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
