//! How many connections one address may hold. All of them together are bounded, so without this one
//! stranger could sit on every place, and people would find none.

use core::net::{IpAddr, SocketAddr};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use crate::{limits, rate::network};

/// Connections by network.
#[derive(Clone, Default)]
pub(crate) struct PeerPlaces(Arc<Mutex<HashMap<IpAddr, usize>>>);

/// One connection's place, until it is dropped. Loopback takes none: there a proxy may stand for everybody.
pub(crate) struct PeerPlace(Option<(PeerPlaces, IpAddr)>);

impl PeerPlaces {
    /// A place, unless this network has all that one may have.
    pub(crate) fn take(&self, peer: SocketAddr) -> Option<PeerPlace> {
        if peer.ip().to_canonical().is_loopback() {
            return Some(PeerPlace(None));
        }
        let network = network(peer.ip());
        let mut taken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = taken.entry(network).or_default();
        if *count >= limits::CONNECTIONS_PER_PEER_MAX {
            return None;
        }
        *count += 1;
        drop(taken);
        Some(PeerPlace(Some((self.clone(), network))))
    }
}

impl Drop for PeerPlace {
    fn drop(&mut self) {
        let Some((places, network)) = self.0.take() else { return };
        let mut taken = places.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = taken.get_mut(&network) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&network);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(ip: [u8; 4], port: u16) -> SocketAddr {
        SocketAddr::from((ip, port))
    }

    #[test]
    fn one_address_cannot_take_every_place() {
        let places = PeerPlaces::default();
        let port = |n: usize| u16::try_from(n).expect("a port");
        let mut held: Vec<_> =
            (0..limits::CONNECTIONS_PER_PEER_MAX).filter_map(|n| places.take(peer([192, 0, 2, 1], port(n)))).collect();
        assert_eq!(held.len(), limits::CONNECTIONS_PER_PEER_MAX);
        assert!(places.take(peer([192, 0, 2, 1], 9)).is_none());
        assert!(places.take(peer([192, 0, 2, 2], 9)).is_some(), "others have theirs");
        held.pop();
        assert!(places.take(peer([192, 0, 2, 1], 9)).is_some(), "a place that is free again");
        drop(held);
        assert!(places.0.lock().unwrap().is_empty(), "nothing is kept of those who left");
    }

    #[test]
    fn a_proxy_on_this_machine_is_not_held_up() {
        let places = PeerPlaces::default();
        let held: Vec<_> =
            (0..=limits::CONNECTIONS_PER_PEER_MAX).filter_map(|_| places.take(peer([127, 0, 0, 1], 1))).collect();
        assert_eq!(held.len(), limits::CONNECTIONS_PER_PEER_MAX + 1);
    }
}
