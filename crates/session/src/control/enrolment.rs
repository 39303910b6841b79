//! The control plane's half of an enrolment.
//!
//! Token id in → the caller looks it up (unknown, spent or expired: nothing is signed) → root chain and
//! signed hello out → proof and secret in → the caller redeems both in one transaction → receipt out.
//! Or, when a receipt was lost, a signed request for it instead of proof and secret.

use envelope::{
    VerifyError,
    keys::{SigningKey, role},
    messages::{EnrolHello, EnrolProof, EnrolReceipt, PublicKeyBytes, ReceiptRequest, SealingKeyBytes},
    open_enrol_proof, open_receipt_request,
    root::TrustedRoot,
};
use ids::{Challenge, FleetId, HostEpoch, HostId, HostName, Role, Sha256, TlsExporter, TokenId, UnixMs};

use crate::{
    checks::first_failed,
    frames::{AgentFrame, ControlFrame, RefusalCode, TokenSecret},
};

/// Why an enrolment ends. The other side is told [`EnrolmentError::frame`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EnrolmentError {
    /// A frame came that does not belong here.
    #[error("unexpected {frame} during enrolment")]
    Unexpected { frame: &'static str },
    /// Proof or request does not verify under the key it brings.
    #[error("the {what} for join token {token} does not verify")]
    NotAuthentic {
        token: TokenId,
        what: &'static str,
        #[source]
        source: VerifyError,
    },
    /// It verifies, and is about something else.
    #[error("the {what} for join token {token} does not belong to this connection: {why}")]
    Binding { token: TokenId, what: &'static str, why: &'static str },
}

impl EnrolmentError {
    /// What the other side is told.
    #[must_use]
    pub fn frame(&self) -> ControlFrame {
        let message = "the enrolment does not verify".to_owned();
        ControlFrame::Refused { reason: RefusalCode::NotAuthentic, message }
    }
}

/// What a frame led to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EnrolmentStep {
    /// Look this token up. If it may be used (or was used within the last 24 hours, for a lost receipt),
    /// call [`Enrolment::answer`]; else refuse and sign nothing.
    LookUp(TokenId),
    /// Redeem it: check the secret and burn the token in the transaction that inserts the host.
    Redeem(Box<Redemption>),
    /// Send the receipt again if this very key spent this token within 24 hours.
    ReceiptWanted(ReceiptWanted),
}

/// A proof that verified. It shows that the sender holds the key; the secret shows that it may come in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redemption {
    pub fleet: FleetId,
    pub token: TokenId,
    /// To be compared, hashed, in constant time.
    pub secret: TokenSecret,
    pub identity_key: PublicKeyBytes,
    pub sealing_key: SealingKeyBytes,
}

impl Redemption {
    /// The receipt to be signed with a session key once the host is stored.
    #[must_use]
    pub fn receipt(&self, host: HostId, name: HostName, roles: Vec<Role>, time: UnixMs) -> EnrolReceipt {
        EnrolReceipt {
            fleet: self.fleet,
            host,
            host_epoch: HostEpoch(1),
            name,
            roles,
            token: self.token,
            identity_key: self.identity_key,
            sealing_key: self.sealing_key,
            time,
        }
    }
}

/// A request for a lost receipt that verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReceiptWanted {
    pub token: TokenId,
    pub identity_key: PublicKeyBytes,
}

enum Phase {
    AwaitStart,
    AwaitAnswer { token: TokenId, nonce: Challenge },
    AwaitProof { token: TokenId, agent_nonce: Challenge, control_nonce: Challenge, hello_sha256: Sha256 },
    Ended,
}

/// The machine. After an error it answers nothing more.
pub struct Enrolment {
    fleet: FleetId,
    exporter: TlsExporter,
    phase: Phase,
}

impl Enrolment {
    /// A new connection with its channel binding.
    #[must_use]
    pub const fn new(fleet: FleetId, exporter: TlsExporter) -> Self {
        Self { fleet, exporter, phase: Phase::AwaitStart }
    }

    /// Takes a frame.
    ///
    /// # Errors
    /// When the enrolment ends here.
    pub fn receive(&mut self, frame: AgentFrame) -> Result<EnrolmentStep, EnrolmentError> {
        match (core::mem::replace(&mut self.phase, Phase::Ended), frame) {
            (Phase::AwaitStart, AgentFrame::EnrolStart { token, nonce }) => {
                self.phase = Phase::AwaitAnswer { token, nonce };
                Ok(EnrolmentStep::LookUp(token))
            }
            (phase @ Phase::AwaitProof { token, .. }, AgentFrame::EnrolProof { proof, secret }) => {
                let what = "proof";
                let proof =
                    open_enrol_proof(&proof).map_err(|source| EnrolmentError::NotAuthentic { token, what, source })?;
                let EnrolProof { fleet, agent_nonce, control_nonce, exporter, hello_sha256, .. } = *proof;
                let said = (fleet, proof.token, agent_nonce, control_nonce, exporter, hello_sha256);
                self.check_binding(&phase, what, said)?;
                let (identity_key, sealing_key) = (proof.identity_key, proof.sealing_key);
                let redemption = Redemption { fleet, token, secret, identity_key, sealing_key };
                Ok(EnrolmentStep::Redeem(Box::new(redemption)))
            }
            (phase @ Phase::AwaitProof { token, .. }, AgentFrame::ReceiptRequest(request)) => {
                let what = "request for a receipt";
                let request = open_receipt_request(&request).map_err(|source| EnrolmentError::NotAuthentic {
                    token,
                    what,
                    source,
                })?;
                let ReceiptRequest { fleet, agent_nonce, control_nonce, exporter, hello_sha256, .. } = *request;
                let said = (fleet, request.token, agent_nonce, control_nonce, exporter, hello_sha256);
                self.check_binding(&phase, what, said)?;
                Ok(EnrolmentStep::ReceiptWanted(ReceiptWanted { token, identity_key: request.identity_key }))
            }
            (_, frame) => Err(EnrolmentError::Unexpected { frame: frame.name() }),
        }
    }

    /// What to send to someone who named a token that may be used: the root chain from the version
    /// the token names (or from version 1) and the signed hello.
    ///
    /// # Errors
    /// When no token was named.
    pub fn answer(
        &mut self,
        root: &TrustedRoot,
        session_key: &SigningKey<role::Session>,
        nonce: Challenge,
        time: UnixMs,
    ) -> Result<Vec<ControlFrame>, EnrolmentError> {
        let Phase::AwaitAnswer { token, nonce: agent_nonce } = core::mem::replace(&mut self.phase, Phase::Ended) else {
            return Err(EnrolmentError::Unexpected { frame: "answer" });
        };
        let hello = session_key.sign(&EnrolHello {
            fleet: self.fleet,
            token,
            agent_nonce,
            control_nonce: nonce,
            exporter: self.exporter,
            root_version: root.version(),
            time,
        });
        let hello_sha256 = hello.payload_sha256();
        self.phase = Phase::AwaitProof { token, agent_nonce, control_nonce: nonce, hello_sha256 };
        Ok(vec![ControlFrame::RootChain(root.chain().to_vec()), ControlFrame::EnrolHello(hello.into_envelope())])
    }

    fn check_binding(
        &self,
        phase: &Phase,
        what: &'static str,
        said: (FleetId, TokenId, Challenge, Challenge, TlsExporter, Sha256),
    ) -> Result<(), EnrolmentError> {
        let Phase::AwaitProof { token, agent_nonce, control_nonce, hello_sha256 } = *phase else {
            return Err(EnrolmentError::Unexpected { frame: what });
        };
        let failed = first_failed(&[
            (said.0 == self.fleet, "it is for another fleet"),
            (said.1 == token, "it is for another join token"),
            (said.2 == agent_nonce, "it names another nonce of the agent"),
            (said.3 == control_nonce, "it does not answer this nonce"),
            (said.4 == self.exporter, "it is bound to another TLS connection"),
            (said.5 == hello_sha256, "it answers another hello"),
        ]);
        failed.map_or(Ok(()), |why| Err(EnrolmentError::Binding { token, what, why }))
    }
}

/// The one answer to a token that is unknown, spent, expired, or for another host.
#[must_use]
pub fn token_refused() -> ControlFrame {
    let message = "the join token is not valid (unknown, used, expired, or for another host); ask for a new one with \
                   `serverflow host enroll NAME`";
    ControlFrame::Refused { reason: RefusalCode::TokenRefused, message: message.to_owned() }
}
