//! How often one address may fetch a program, and how many fetch at once. Nobody has to be signed in
//! for that, so it must not cost much.

use core::net::IpAddr;
use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use ids::{DurationMs, UnixMs};

use crate::{limits, rate::network};

/// One bucket for each network, as the time at which it is full again.
#[derive(Default)]
pub(crate) struct DownloadRate(Mutex<HashMap<IpAddr, UnixMs>>);

impl DownloadRate {
    /// Takes one download of a peer.
    ///
    /// # Errors
    /// How long until there is one.
    pub(crate) fn take(&self, peer: IpAddr, now: UnixMs) -> Result<(), DurationMs> {
        const SPAN: DurationMs = DurationMs(limits::DOWNLOADS_PER_PEER * limits::DOWNLOAD_REFILL.0);
        let peer = network(peer);
        // A panic elsewhere leaves the map whole: each change is one insertion or removal.
        let mut buckets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Never further ahead than an empty bucket: a clock that was set back locks nobody out.
        let full_at = buckets.get_mut(&peer).map_or(now, |at| {
            *at = (*at).min(now.plus(SPAN));
            (*at).max(now)
        });
        let after = full_at.plus(limits::DOWNLOAD_REFILL);
        let wait = after.since(now).0.saturating_sub(SPAN.0);
        if wait > 0 {
            return Err(DurationMs(wait));
        }
        if buckets.len() >= limits::DOWNLOAD_PEERS_MAX && !buckets.contains_key(&peer) {
            buckets.retain(|_, full_at| *full_at > now);
            if buckets.len() >= limits::DOWNLOAD_PEERS_MAX {
                return Err(limits::DOWNLOAD_REFILL);
            }
        }
        buckets.insert(peer, after);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: UnixMs = UnixMs(1_000_000);

    fn peer(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    #[test]
    fn one_address_gets_a_burst_and_then_one_by_one() {
        let rate = DownloadRate::default();
        for _ in 0..limits::DOWNLOADS_PER_PEER {
            assert_eq!(rate.take(peer(1), START), Ok(()));
        }
        assert_eq!(rate.take(peer(1), START), Err(limits::DOWNLOAD_REFILL));
        assert_eq!(rate.take(peer(2), START), Ok(()), "others are not held up");
        let later = START.plus(limits::DOWNLOAD_REFILL);
        assert_eq!(rate.take(peer(1), later), Ok(()));
        assert!(rate.take(peer(1), later).is_err());
        let set_back = UnixMs(START.0 / 2);
        assert!(rate.take(peer(1), set_back).is_err());
        assert_eq!(rate.take(peer(1), set_back.plus(limits::DOWNLOAD_REFILL)), Ok(()), "it comes back with time");
    }

    #[test]
    fn what_is_remembered_is_bounded_and_forgotten() {
        let rate = DownloadRate::default();
        let address = |n: usize| IpAddr::from((0x0a00_0000 + u32::try_from(n).expect("small")).to_be_bytes());
        for n in 0..limits::DOWNLOAD_PEERS_MAX {
            assert_eq!(rate.take(address(n), START), Ok(()));
        }
        assert!(rate.take(peer(1), START).is_err(), "full");
        assert_eq!(rate.take(peer(1), START.plus(limits::DOWNLOAD_REFILL)), Ok(()));
    }
}
