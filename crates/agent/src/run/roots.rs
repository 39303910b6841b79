//! The root metadata in force, for what the shell needs of it: where to dial, which keys to accept, and what
//! somebody who hands over newer metadata is told.

use std::{collections::VecDeque, sync::Arc};

use envelope::root::{RootError, TrustedRoot};
use ids::{RootVersion, Sha256};
use tokio::sync::oneshot;

use super::link::{Asks, Directions};
use crate::{
    state_dir::Enrolment,
    status::{DirectionsStatus, RootStatus},
    trust::{self, Handed},
};

pub(super) struct Roots {
    pin: Sha256,
    trusted: Option<Arc<TrustedRoot>>,
    /// On their way to the disk.
    pub(super) pending: VecDeque<(RootVersion, Vec<u8>)>,
    pub(super) directions: Directions,
    /// Who waits for a version to be durable.
    waiting: Vec<(RootVersion, oneshot::Sender<trust::Answer>)>,
}

impl Roots {
    /// Verifies the chain once more for addresses and pins; the loop keeps its own.
    pub(super) fn load(enrolment: &Enrolment, chain: &[Vec<u8>]) -> Result<Self, RootError> {
        let asks = Asks { fleet: enrolment.fleet, host: enrolment.host, held: None };
        // Before any chain: what the receipt came with.
        let directions = Directions { addresses: enrolment.addresses.clone(), pins: enrolment.tls_pins.clone(), asks };
        let mut roots = Self {
            pin: enrolment.root_sha256,
            trusted: None,
            pending: VecDeque::new(),
            directions,
            waiting: Vec::new(),
        };
        for envelope in chain {
            roots.advance(envelope)?;
        }
        Ok(roots)
    }

    fn advance(&mut self, envelope: &[u8]) -> Result<(), RootError> {
        let mut trusted = self.trusted.as_deref().cloned();
        trust::advance(&mut trusted, self.pin, envelope)?;
        self.trusted = trusted.map(Arc::new);
        if let Some(trusted) = &self.trusted {
            let current = trusted.current();
            self.directions.addresses.clone_from(&current.addresses);
            self.directions.pins.clone_from(&current.tls_pins);
            self.directions.asks.held = Some(trusted.clone());
        }
        Ok(())
    }

    pub(super) fn status(&self) -> Option<RootStatus> {
        let current = self.trusted.as_ref()?.current();
        Some(RootStatus { version: current.version, expires: current.expires })
    }

    pub(super) fn directions_status(&self) -> DirectionsStatus {
        let Directions { addresses, pins, .. } = self.directions.clone();
        DirectionsStatus { addresses, tls_pins: pins }
    }

    fn version(&self) -> RootVersion {
        self.trusted.as_ref().map_or(RootVersion(0), |root| root.version())
    }

    /// The loop has made the versions up to this one durable.
    pub(super) fn durable(&mut self, version: RootVersion) {
        while self.pending.front().is_some_and(|(pending, _)| *pending <= version) {
            if let Some((_, envelope)) = self.pending.pop_front()
                && let Err(error) = self.advance(&envelope)
            {
                // The loop verified the same bytes by the same rules.
                let error = crate::failure::words(&error);
                tracing::error!(error, "root metadata taken up by the loop is refused here");
            }
        }
        let now = self.version();
        for (_, answer) in self.waiting.extract_if(.., |(wanted, _)| *wanted <= now) {
            // Whoever asked may have gone.
            let _ = answer.send(Ok(chain(self.trusted.as_deref())));
        }
    }

    /// Judges what somebody on this machine hands over: what of it is new goes to the loop.
    pub(super) fn hand(&mut self, handed: Handed) -> Option<Vec<Vec<u8>>> {
        let Handed { chain: handed, answer } = handed;
        let (newest, new) = match self.newer(&handed) {
            Ok(newer) => newer,
            Err(error) => {
                let _ = answer.send(Err(crate::failure::words(&error)));
                return None;
            }
        };
        if new.is_empty() {
            let _ = answer.send(Ok(chain(self.trusted.as_deref())));
            return None;
        }
        tracing::warn!(version = %newest, "root metadata was handed over on this machine");
        self.waiting.push((newest, answer));
        Some(new)
    }

    /// Of chains from servers that nobody vouches for, what is new in the first that verifies.
    pub(super) fn first_newer(&self, chains: Vec<Vec<Vec<u8>>>) -> Option<Vec<Vec<u8>>> {
        chains.into_iter().find_map(|chain| match self.newer(&chain) {
            Ok((_, new)) if new.is_empty() => None,
            Ok((version, new)) => {
                tracing::info!(%version, "no TLS key was known there; newer root metadata from there verifies");
                Some(new)
            }
            Err(error) => {
                let error = crate::failure::words(&error);
                tracing::warn!(error, "no TLS key was known there, and root metadata from there does not verify");
                None
            }
        })
    }

    /// What in a chain follows what is held, and its last version.
    fn newer(&self, chain: &[Vec<u8>]) -> Result<(RootVersion, Vec<Vec<u8>>), RootError> {
        trust::newer(self.trusted.as_deref(), self.pin, chain)
    }
}

fn chain(trusted: Option<&TrustedRoot>) -> Vec<Vec<u8>> {
    trusted.map_or_else(Vec::new, |root| root.chain().to_vec())
}
