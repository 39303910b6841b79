//! How a machine becomes a host: from a join token to a signed receipt.
//!
//! The token pins TLS key and root metadata before anything is said. The secret leaves this machine
//! only after everything needed to go on without it is durable: if the receipt is lost, the identity
//! key asks for it again, and the token's secret is never needed twice.

use std::collections::VecDeque;

use envelope::{
    Verified, VerifyError,
    keys::{SigningKey, role},
    messages::{EnrolHello, EnrolProof, EnrolReceipt, ReceiptRequest, SealingKeyBytes},
    root::{RootError, TrustedRoot},
    token::JoinToken,
    verify,
};
use ids::{BootMs, Challenge, FleetId, Sha256, TlsExporter, TokenId};

use crate::{
    checks::first_failed,
    frames::{AgentFrame, ControlFrame, RefusalCode, TokenSecret},
    limits,
};

/// What must be durable before the secret is sent: the token without its secret, and the root
/// metadata. The shell stores the private keys with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PendingEnrolment {
    pub fleet: FleetId,
    pub token: TokenId,
    /// SHA-256 of the first root metadata's payload: the pin, for life.
    pub root_sha256: Sha256,
    /// SHA-256 of the control plane's TLS SubjectPublicKeyInfo.
    pub spki_sha256: Sha256,
    /// `host:port`.
    pub address: String,
    /// Verified root metadata envelopes, ascending from the pinned one. Empty before the first connection.
    pub root_chain: Vec<Vec<u8>>,
}

impl PendingEnrolment {
    /// Everything of the token but its secret.
    #[must_use]
    pub fn of(token: &JoinToken) -> Self {
        Self {
            fleet: token.fleet,
            token: token.token,
            root_sha256: token.root_sha256,
            spki_sha256: token.spki_sha256,
            address: token.address.clone(),
            root_chain: Vec::new(),
        }
    }
}

/// Something that happened.
#[derive(Debug)]
pub enum EnrolInput {
    /// A TLS connection to the pinned key is up; `nonce` is fresh.
    Connected {
        exporter: TlsExporter,
        nonce: Challenge,
    },
    Received(ControlFrame),
    /// What [`EnrolEffect::PersistPending`] asked for is durable.
    Persisted,
    Disconnected,
    /// The time asked for has come (or any time passed).
    Tick,
}

/// Something the shell must do, in order.
#[derive(Debug)]
pub enum EnrolEffect {
    Send(AgentFrame),
    /// Make this and both private keys durable, then say `Persisted`.
    PersistPending(PendingEnrolment),
    /// This machine is a host now: make receipt and chain durable. The connection may be closed.
    Enrolled(Enrolled),
    /// Enrolment ended otherwise. Close the connection.
    Failed(EnrolError),
    WakeAt(BootMs),
}

/// The end of an enrolment.
#[derive(Clone, Debug)]
pub struct Enrolled {
    /// Kept for life.
    pub receipt: Verified<EnrolReceipt>,
    pub root_chain: Vec<Vec<u8>>,
    pub root_sha256: Sha256,
}

/// Why a machine did not become a host (yet).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EnrolError {
    /// The control plane refused.
    #[error("the control plane refused: {message}")]
    Refused { reason: RefusalCode, message: String },
    /// The root metadata is not what the token pinned.
    #[error(
        "the control plane's root metadata is not what the join token names; make sure token and address belong together"
    )]
    Root {
        #[source]
        source: RootError,
    },
    /// A signature does not verify.
    #[error("the control plane's {what} does not verify")]
    NotAuthentic {
        what: &'static str,
        #[source]
        source: VerifyError,
    },
    /// It verifies, and is about something else.
    #[error("the control plane's {what} does not belong here: {why}")]
    Mismatch { what: &'static str, why: &'static str },
    /// A frame came that does not belong here.
    #[error("unexpected {frame} from the control plane")]
    Unexpected { frame: &'static str },
    /// Took too long.
    #[error("no answer within {seconds} s; try again (nothing is lost)")]
    Timeout { seconds: u64 },
    /// The connection broke.
    #[error("the connection was lost; try again (nothing is lost)")]
    Disconnected,
}

enum EnrolPhase {
    Idle,
    AwaitRoot { exporter: TlsExporter, nonce: Challenge },
    AwaitHello { exporter: TlsExporter, nonce: Challenge, root: TrustedRoot },
    Persisting { root: TrustedRoot, proof: Vec<u8> },
    AwaitReceipt { root: TrustedRoot },
    Ended,
}

/// One attempt to enrol. After [`EnrolEffect::Failed`] a new one is made for another attempt.
pub struct EnrolLoop {
    pending: PendingEnrolment,
    /// `None`: it was sent in an earlier attempt, and the receipt is asked for by signature.
    secret: Option<TokenSecret>,
    identity: SigningKey<role::Agent>,
    sealing: SealingKeyBytes,
    phase: EnrolPhase,
    deadline: Option<BootMs>,
    out: VecDeque<EnrolEffect>,
}

impl EnrolLoop {
    /// A first attempt, with a token as it was handed over and new keys.
    #[must_use]
    pub fn new(token: &JoinToken, identity: SigningKey<role::Agent>, sealing: SealingKeyBytes) -> Self {
        Self::begin(PendingEnrolment::of(token), Some(TokenSecret(token.secret.clone())), identity, sealing)
    }

    /// Asks again for the receipt of an earlier attempt, with the keys of then. Works for 24 hours
    /// after the token was spent. If it is refused, the earlier secret never arrived: [`Self::new`]
    /// with the token and the same keys.
    #[must_use]
    pub fn resume(pending: PendingEnrolment, identity: SigningKey<role::Agent>, sealing: SealingKeyBytes) -> Self {
        Self::begin(pending, None, identity, sealing)
    }

    fn begin(
        pending: PendingEnrolment,
        secret: Option<TokenSecret>,
        identity: SigningKey<role::Agent>,
        sealing: SealingKeyBytes,
    ) -> Self {
        let (phase, out) = (EnrolPhase::Idle, VecDeque::new());
        Self { pending, secret, identity, sealing, phase, deadline: None, out }
    }

    /// Takes one input and says what to do, in order.
    pub fn handle(&mut self, now: BootMs, input: EnrolInput) -> Vec<EnrolEffect> {
        let outcome = match (core::mem::replace(&mut self.phase, EnrolPhase::Ended), input) {
            (EnrolPhase::Ended, _) => Ok(EnrolPhase::Ended),
            (phase @ EnrolPhase::Idle, EnrolInput::Tick | EnrolInput::Persisted) => Ok(phase),
            (_, EnrolInput::Connected { exporter, nonce }) => {
                let deadline = now.plus(limits::ENROLMENT_MAX);
                self.deadline = Some(deadline);
                self.out.push_back(EnrolEffect::WakeAt(deadline));
                self.send(AgentFrame::EnrolStart { token: self.pending.token, nonce });
                Ok(EnrolPhase::AwaitRoot { exporter, nonce })
            }
            (_, EnrolInput::Disconnected) => Err(EnrolError::Disconnected),
            _ if self.deadline.is_some_and(|deadline| now >= deadline) => {
                Err(EnrolError::Timeout { seconds: limits::ENROLMENT_MAX.0 / 1000 })
            }
            (EnrolPhase::Persisting { root, proof }, EnrolInput::Persisted) => Ok(self.send_secret(root, proof)),
            (phase, EnrolInput::Tick | EnrolInput::Persisted) => Ok(phase),
            (phase, EnrolInput::Received(frame)) => self.receive(phase, frame),
        };
        match outcome {
            Ok(phase) => self.phase = phase,
            Err(error) => self.out.push_back(EnrolEffect::Failed(error)),
        }
        self.out.drain(..).collect()
    }

    fn send(&mut self, frame: AgentFrame) {
        self.out.push_back(EnrolEffect::Send(frame));
    }

    fn receive(&mut self, phase: EnrolPhase, frame: ControlFrame) -> Result<EnrolPhase, EnrolError> {
        match (phase, frame) {
            (_, ControlFrame::Refused { reason, message }) => Err(EnrolError::Refused { reason, message }),
            (EnrolPhase::AwaitRoot { exporter, nonce }, ControlFrame::RootChain(chain)) => {
                let root = pinned_chain(&chain, self.pending.root_sha256)?;
                if root.current().fleet != self.pending.fleet {
                    return Err(EnrolError::Mismatch { what: "root metadata", why: "it is of another fleet" });
                }
                Ok(EnrolPhase::AwaitHello { exporter, nonce, root })
            }
            (EnrolPhase::AwaitHello { exporter, nonce, root }, ControlFrame::EnrolHello(bytes)) => {
                self.hello(exporter, nonce, root, &bytes)
            }
            (EnrolPhase::AwaitReceipt { root }, ControlFrame::EnrolReceipt(bytes)) => self.receipt(&root, &bytes),
            (_, frame) => Err(EnrolError::Unexpected { frame: frame.name() }),
        }
    }

    fn hello(
        &mut self,
        exporter: TlsExporter,
        nonce: Challenge,
        root: TrustedRoot,
        bytes: &[u8],
    ) -> Result<EnrolPhase, EnrolError> {
        let hello = verify::<EnrolHello>(bytes, root.session_keys())
            .map_err(|source| EnrolError::NotAuthentic { what: "hello", source })?;
        let failed = first_failed(&[
            (hello.fleet == self.pending.fleet, "it is for another fleet"),
            (hello.token == self.pending.token, "it is for another join token"),
            (hello.agent_nonce == nonce, "it does not answer this machine's nonce"),
            (hello.exporter == exporter, "it is bound to another TLS connection (someone may be in between)"),
            (hello.root_version == root.version(), "it names other root metadata than was sent"),
        ]);
        if let Some(why) = failed {
            return Err(EnrolError::Mismatch { what: "hello", why });
        }
        self.pending.root_chain = root.chain().to_vec();
        let (fleet, token, identity_key) = (self.pending.fleet, self.pending.token, self.identity.public());
        let (control_nonce, hello_sha256) = (hello.control_nonce, hello.payload_sha256());
        if self.secret.is_none() {
            let agent_nonce = nonce;
            let request =
                ReceiptRequest { fleet, token, identity_key, agent_nonce, control_nonce, exporter, hello_sha256 };
            self.send(AgentFrame::ReceiptRequest(self.identity.sign(&request).into_envelope()));
            return Ok(EnrolPhase::AwaitReceipt { root });
        }
        let proof = EnrolProof {
            fleet,
            token,
            identity_key,
            sealing_key: self.sealing,
            agent_nonce: nonce,
            control_nonce,
            exporter,
            hello_sha256,
        };
        self.out.push_back(EnrolEffect::PersistPending(self.pending.clone()));
        Ok(EnrolPhase::Persisting { root, proof: self.identity.sign(&proof).into_envelope() })
    }

    /// Everything needed to go on without the secret is durable.
    fn send_secret(&mut self, root: TrustedRoot, proof: Vec<u8>) -> EnrolPhase {
        if let Some(secret) = self.secret.take() {
            self.send(AgentFrame::EnrolProof { proof, secret });
        }
        EnrolPhase::AwaitReceipt { root }
    }

    fn receipt(&mut self, root: &TrustedRoot, bytes: &[u8]) -> Result<EnrolPhase, EnrolError> {
        let receipt = verify::<EnrolReceipt>(bytes, root.session_keys())
            .map_err(|source| EnrolError::NotAuthentic { what: "receipt", source })?;
        let failed = first_failed(&[
            (receipt.fleet == self.pending.fleet, "it is for another fleet"),
            (receipt.token == self.pending.token, "it is for another join token"),
            (receipt.identity_key == self.identity.public(), "it names another identity key"),
            (receipt.sealing_key == self.sealing, "it names another sealing key"),
        ]);
        if let Some(why) = failed {
            return Err(EnrolError::Mismatch { what: "receipt", why });
        }
        let (root_chain, root_sha256) = (root.chain().to_vec(), self.pending.root_sha256);
        self.out.push_back(EnrolEffect::Enrolled(Enrolled { receipt, root_chain, root_sha256 }));
        Ok(EnrolPhase::Ended)
    }
}

/// The chain from the pinned version on; what precedes it is passed over.
fn pinned_chain(chain: &[Vec<u8>], pin: Sha256) -> Result<TrustedRoot, EnrolError> {
    let too_long = chain.len() > limits::ROOT_CHAIN_PER_CONNECTION_MAX;
    if chain.is_empty() || too_long {
        return Err(EnrolError::Mismatch { what: "root metadata", why: "there is none, or too much of it" });
    }
    let mut pinned: Result<TrustedRoot, RootError> = TrustedRoot::pin(&chain[0], pin);
    for envelope in &chain[1..] {
        match &mut pinned {
            Ok(root) => {
                root.advance(envelope).map_err(|source| EnrolError::Root { source })?;
            }
            Err(_) => pinned = TrustedRoot::pin(envelope, pin),
        }
    }
    pinned.map_err(|source| EnrolError::Root { source })
}
