//! One attempt to enrol: a connection, the machine of `session`, and the disk.

use std::time::Duration;

use envelope::{
    keys::{SigningKey, role},
    messages::SealingKeyBytes,
    token::JoinToken,
};
use host::clock;
use ids::{BootMs, Challenge, Sha256};
use keyfile::KeyFileError;
use link::{DialError, FrameReceiver, FrameSender, Purpose, Target, dial};
use session::{
    agent::{EnrolEffect, EnrolError, EnrolInput, EnrolLoop, Enrolled, PendingEnrolment},
    frames::RefusalCode,
};
use tokio::time::sleep;

use crate::state_dir::{StateDir, StateError, pending_write};

/// Why an attempt did not lead to a receipt.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AttemptError {
    #[error(transparent)]
    Dial(#[from] DialError),
    #[error(transparent)]
    Enrol(#[from] EnrolError),
    #[error(transparent)]
    State(#[from] StateError),
    #[error(transparent)]
    Random(#[from] KeyFileError),
}

impl AttemptError {
    /// Whether the control plane does not take the token (or knows nothing of a receipt for it).
    pub(crate) fn is_token_refused(&self) -> bool {
        matches!(self, Self::Enrol(EnrolError::Refused { reason: RefusalCode::TokenRefused, .. }))
    }

    /// Whether the control plane did not answer at all.
    pub(crate) fn is_unreachable(&self) -> bool {
        matches!(
            self,
            Self::Dial(DialError::Connect { .. } | DialError::Timeout { .. } | DialError::Call { .. })
                | Self::Enrol(EnrolError::Disconnected | EnrolError::Timeout { .. })
        )
    }
}

/// The private halves made on this host.
pub(crate) struct Keys {
    pub(crate) identity: [u8; 32],
    pub(crate) sealing: SealingKeyBytes,
}

impl Keys {
    fn signing(&self) -> SigningKey<role::Agent> {
        SigningKey::from_seed(&self.identity)
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(&mut self.identity);
    }
}

/// Sends the token's secret (after everything needed without it is durable) and waits for the receipt.
pub(crate) async fn with_token(state: &StateDir, token: &JoinToken, keys: &Keys) -> Result<Enrolled, AttemptError> {
    let machine = EnrolLoop::new(token, keys.signing(), keys.sealing);
    drive(state, machine, &token.address, token.spki_sha256).await
}

/// Asks for the receipt of an earlier attempt.
pub(crate) async fn for_receipt(
    state: &StateDir,
    pending: PendingEnrolment,
    keys: &Keys,
) -> Result<Enrolled, AttemptError> {
    let (address, pin) = (pending.address.clone(), pending.spki_sha256);
    let machine = EnrolLoop::resume(pending, keys.signing(), keys.sealing);
    drive(state, machine, &address, pin).await
}

async fn drive(state: &StateDir, mut machine: EnrolLoop, address: &str, pin: Sha256) -> Result<Enrolled, AttemptError> {
    let target = Target { address: address.to_owned(), pins: vec![pin] };
    let connection = dial(&target, Purpose::Enrol).await?;
    let nonce = Challenge(*keyfile::random::<32>()?);
    let mut exchange =
        Exchange { state, sender: connection.sender, receiver: connection.receiver, wake: None, input: None };
    let mut input = EnrolInput::Connected { exporter: connection.exporter, nonce };
    loop {
        let effects = machine.handle(clock::boot_now(), input);
        if let Some(enrolled) = exchange.perform(effects).await? {
            return Ok(enrolled);
        }
        input = exchange.next().await;
    }
}

struct Exchange<'a> {
    state: &'a StateDir,
    sender: FrameSender,
    receiver: FrameReceiver,
    wake: Option<BootMs>,
    /// What performing an effect led to.
    input: Option<EnrolInput>,
}

impl Exchange<'_> {
    async fn perform(&mut self, effects: Vec<EnrolEffect>) -> Result<Option<Enrolled>, AttemptError> {
        for effect in effects {
            match effect {
                EnrolEffect::Send(frame) => {
                    if self.sender.send(frame).await.is_err() {
                        self.input = Some(EnrolInput::Disconnected);
                    }
                }
                EnrolEffect::PersistPending(pending) => {
                    // The keys were written, durably, before the first dial.
                    pending_write(self.state, &pending)?;
                    self.input = Some(EnrolInput::Persisted);
                }
                EnrolEffect::Enrolled(enrolled) => return Ok(Some(enrolled)),
                EnrolEffect::Failed(error) => return Err(error.into()),
                EnrolEffect::WakeAt(at) => self.wake = Some(at),
            }
        }
        Ok(None)
    }

    async fn next(&mut self) -> EnrolInput {
        if let Some(input) = self.input.take() {
            return input;
        }
        let until = self.wake.map_or(Duration::MAX, |at| Duration::from_millis(at.since(clock::boot_now()).0));
        tokio::select! {
            received = self.receiver.receive() => received.map_or(EnrolInput::Disconnected, EnrolInput::Received),
            () = sleep(until) => EnrolInput::Tick,
        }
    }
}
