//! How many connections, or downloads, one address may hold. All of them together are bounded, so without this one
//! stranger could sit on every place, and people would find none.

use core::net::{IpAddr, SocketAddr};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use crate::rate::network;

/// Places taken, by network.
#[derive(Clone)]
pub(crate) struct PeerPlaces {
    taken: Arc<Mutex<HashMap<IpAddr, usize>>>,
    /// What one network may have.
    most: usize,
}

/// One place, until it is dropped. Loopback takes none: there a proxy may stand for everybody.
pub(crate) struct PeerPlace(Option<(PeerPlaces, IpAddr)>);

impl PeerPlaces {
    pub(crate) fn new(most: usize) -> Self {
        Self { taken: Arc::default(), most }
    }

    /// A place, unless this network has all that one may have.
    pub(crate) fn take(&self, peer: SocketAddr) -> Option<PeerPlace> {
        if peer.ip().to_canonical().is_loopback() {
            return Some(PeerPlace(None));
        }
        let network = network(peer.ip());
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let count = taken.entry(network).or_default();
        if *count >= self.most {
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
        let mut taken = places.taken.lock().unwrap_or_else(PoisonError::into_inner);
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
    use crate::limits;

    fn peer(ip: [u8; 4], port: u16) -> SocketAddr {
        SocketAddr::from((ip, port))
    }

    #[test]
    fn one_address_cannot_take_every_place() {
        let places = PeerPlaces::new(limits::CONNECTIONS_PER_PEER_MAX);
        let port = |n: usize| u16::try_from(n).expect("a port");
        let mut held: Vec<_> =
            (0..limits::CONNECTIONS_PER_PEER_MAX).filter_map(|n| places.take(peer([192, 0, 2, 1], port(n)))).collect();
        assert_eq!(held.len(), limits::CONNECTIONS_PER_PEER_MAX);
        assert!(places.take(peer([192, 0, 2, 1], 9)).is_none());
        assert!(places.take(peer([192, 0, 2, 2], 9)).is_some(), "others have theirs");
        held.pop();
        assert!(places.take(peer([192, 0, 2, 1], 9)).is_some(), "a place that is free again");
        drop(held);
        assert!(places.taken.lock().unwrap().is_empty(), "nothing is kept of those who left");
    }

    #[test]
    fn a_proxy_on_this_machine_is_not_held_up() {
        let places = PeerPlaces::new(limits::CONNECTIONS_PER_PEER_MAX);
        let held: Vec<_> =
            (0..=limits::CONNECTIONS_PER_PEER_MAX).filter_map(|_| places.take(peer([127, 0, 0, 1], 1))).collect();
        assert_eq!(held.len(), limits::CONNECTIONS_PER_PEER_MAX + 1);
    }
}
