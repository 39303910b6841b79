//! A limit per host: a bucket of tokens that fills with time. A control plane that runs wild, or is
//! no longer its owner's, cannot flood a host faster than this.

use std::collections::HashMap;

use ids::{HostId, UnixMs};

use crate::limits;

/// How much at once, how much for long.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rate {
    pub(crate) burst: u32,
    pub(crate) per_second: u32,
}

/// Thousandths of a token, and when they were counted.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    milli: u64,
    at: UnixMs,
}

/// One kind of request, all hosts.
#[derive(Debug)]
pub(crate) struct Rates {
    rate: Rate,
    buckets: HashMap<HostId, Bucket>,
}

impl Rates {
    pub(crate) fn new(rate: Rate) -> Self {
        Self { rate, buckets: HashMap::new() }
    }

    fn full(&self) -> u64 {
        u64::from(self.rate.burst) * 1_000
    }

    fn refilled(&self, bucket: Bucket, now: UnixMs) -> u64 {
        // Tokens per second are thousandths per millisecond.
        let since = now.since(bucket.at).0.saturating_mul(u64::from(self.rate.per_second));
        bucket.milli.saturating_add(since).min(self.full())
    }

    /// Takes one token; false when there is none.
    pub(crate) fn take(&mut self, host: HostId, now: UnixMs) -> bool {
        if self.buckets.len() >= limits::RATES_REMEMBERED_MAX && !self.buckets.contains_key(&host) {
            self.forget_the_rested(now);
        }
        let full = self.full();
        let milli = self.buckets.get(&host).map_or(full, |bucket| self.refilled(*bucket, now));
        let left = milli.checked_sub(1_000);
        self.buckets.insert(host, Bucket { milli: left.unwrap_or(milli), at: now });
        left.is_some()
    }

    /// A full bucket says nothing that an absent one does not.
    fn forget_the_rested(&mut self, now: UnixMs) {
        let full = self.full();
        let rested: Vec<HostId> =
            self.buckets.iter().filter(|(_, b)| self.refilled(**b, now) == full).map(|(host, _)| *host).collect();
        for host in rested {
            self.buckets.remove(&host);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: HostId = HostId::from_bytes([1; 16]);
    const OTHER: HostId = HostId::from_bytes([2; 16]);

    fn rates() -> Rates {
        Rates::new(Rate { burst: 3, per_second: 2 })
    }

    #[test]
    fn a_burst_then_a_steady_rate_per_host() {
        let mut rates = rates();
        let now = UnixMs(1_000_000);
        assert_eq!([(); 4].map(|()| rates.take(HOST, now)), [true, true, true, false]);
        assert!(rates.take(OTHER, now), "another host has its own");
        assert!(!rates.take(HOST, UnixMs(now.0 + 499)));
        assert!(rates.take(HOST, UnixMs(now.0 + 500)));
        assert!(!rates.take(HOST, UnixMs(now.0 + 501)));
    }

    #[test]
    fn a_clock_set_back_gives_nothing_and_takes_nothing_for_good() {
        let mut rates = rates();
        assert_eq!([5_000; 3].map(|at| rates.take(HOST, UnixMs(at))), [true; 3]);
        assert!(!rates.take(HOST, UnixMs(1_000)));
        assert!(rates.take(HOST, UnixMs(1_500)));
    }

    #[test]
    fn memory_is_bounded_by_the_hosts_that_are_busy() {
        let mut rates = rates();
        for n in 0..limits::RATES_REMEMBERED_MAX as u128 {
            assert!(rates.take(HostId::from_bytes(n.to_be_bytes()), UnixMs(0)));
        }
        assert!(rates.take(HostId::from_bytes([0xff; 16]), UnixMs(60_000)));
        assert_eq!(rates.buckets.len(), 1);
    }
}
