//! The exchange of root metadata, message to value and back.

use ids::{FleetId, HostId, RootVersion};
use session::{
    frames::{RootsAnswer, RootsRequest},
    limits::ROOT_CHAIN_FROM_AGENT_MAX,
};

use crate::{FrameError, convert::root_chain, limits, v1};

impl TryFrom<v1::RootsRequest> for RootsRequest {
    type Error = FrameError;

    fn try_from(request: v1::RootsRequest) -> Result<Self, FrameError> {
        let chain = request.chain.map(root_chain).transpose()?.unwrap_or_default();
        if chain.len() > ROOT_CHAIN_FROM_AGENT_MAX {
            return Err(FrameError::TooLarge { field: "chain", limit: ROOT_CHAIN_FROM_AGENT_MAX });
        }
        Ok(Self {
            fleet: FleetId::try_from_slice(&request.fleet).map_err(|_| FrameError::Malformed { field: "fleet" })?,
            host: HostId::try_from_slice(&request.host).map_err(|_| FrameError::Malformed { field: "host" })?,
            root_version: RootVersion(request.root_version),
            chain,
        })
    }
}

impl From<RootsRequest> for v1::RootsRequest {
    fn from(request: RootsRequest) -> Self {
        Self {
            fleet: request.fleet.as_bytes().to_vec(),
            host: request.host.as_bytes().to_vec(),
            root_version: request.root_version.0,
            chain: Some(v1::RootChain { envelopes: fitting(request.chain) }),
        }
    }
}

impl TryFrom<v1::RootsAnswer> for RootsAnswer {
    type Error = FrameError;

    fn try_from(answer: v1::RootsAnswer) -> Result<Self, FrameError> {
        let chain = answer.chain.map(root_chain).transpose()?.unwrap_or_default();
        Ok(Self { root_version: RootVersion(answer.root_version), chain })
    }
}

impl From<RootsAnswer> for v1::RootsAnswer {
    fn from(answer: RootsAnswer) -> Self {
        let chain = Some(v1::RootChain { envelopes: fitting(answer.chain) });
        Self { root_version: answer.root_version.0, chain }
    }
}

/// The first of them, as many as one message holds: the next exchange goes on where this one ended.
fn fitting(mut chain: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    let mut room = limits::ROOTS_BYTES_MAX;
    let fits = chain.iter().take_while(|envelope| {
        let left = room.checked_sub(envelope.len());
        room = left.unwrap_or(0);
        left.is_some()
    });
    let count = fits.count().min(limits::ROOT_CHAIN_MAX);
    chain.truncate(count);
    chain
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(chain: Vec<Vec<u8>>) -> RootsRequest {
        let (fleet, host) = (FleetId::from_bytes([1; 16]), HostId::from_bytes([2; 16]));
        RootsRequest { fleet, host, root_version: RootVersion(3), chain }
    }

    #[test]
    fn what_is_sent_arrives() {
        for chain in [Vec::new(), vec![vec![1], vec![2, 3]]] {
            let sent = request(chain.clone());
            assert_eq!(RootsRequest::try_from(v1::RootsRequest::from(sent.clone())), Ok(sent));
            let sent = RootsAnswer { root_version: RootVersion(9), chain };
            assert_eq!(RootsAnswer::try_from(v1::RootsAnswer::from(sent.clone())), Ok(sent));
        }
    }

    #[test]
    fn what_is_malformed_or_too_much_is_refused() {
        let good = v1::RootsRequest::from(request(Vec::new()));
        let refused = |request: v1::RootsRequest| RootsRequest::try_from(request).expect_err("refused");
        assert_eq!(
            refused(v1::RootsRequest { fleet: vec![1; 15], ..good.clone() }),
            FrameError::Malformed { field: "fleet" }
        );
        assert_eq!(refused(v1::RootsRequest { host: vec![], ..good.clone() }), FrameError::Malformed { field: "host" });
        let many = Some(v1::RootChain { envelopes: vec![vec![]; ROOT_CHAIN_FROM_AGENT_MAX + 1] });
        assert!(matches!(refused(v1::RootsRequest { chain: many, ..good.clone() }), FrameError::TooLarge { .. }));
        let large = Some(v1::RootChain { envelopes: vec![vec![0; limits::ENVELOPE_BYTES_MAX + 1]] });
        assert!(matches!(refused(v1::RootsRequest { chain: large.clone(), ..good }), FrameError::TooLarge { .. }));
        let answer = v1::RootsAnswer { root_version: 1, chain: large };
        assert!(matches!(RootsAnswer::try_from(answer), Err(FrameError::TooLarge { .. })));
    }

    #[test]
    fn what_does_not_fit_into_one_message_is_left_for_the_next() {
        let chain = vec![vec![0; limits::ENVELOPE_BYTES_MAX]; 8];
        let sent = v1::RootsAnswer::from(RootsAnswer { root_version: RootVersion(8), chain });
        let count = sent.chain.map_or(0, |chain| chain.envelopes.len());
        assert!((1..8).contains(&count) && count * limits::ENVELOPE_BYTES_MAX < limits::FRAME_BYTES_MAX, "{count}");
    }
}
