//! The control plane's half of a session's handshake.
//!
//! The machine speaks first only after the agent did: hello in → the caller looks the host up →
//! root chain and signed hello out → proof and actions in → [`Authenticated`]. The caller then asks the
//! signer for a `session-open` (see [`Authenticated::open`]) and judges the hello with
//! [`super::judge`]. A `session-open` is sent whatever the judgement: it tells the agent the time and
//! lets it find its own quarantine. What the judgement decides is whether anything is delivered.

use envelope::{
    DecodeError, VerifyError,
    keys::{KeyError, SigningKey, VerifyingKey, role},
    messages::{AgentHello, ControlHello, PublicKeyBytes, SessionOpen, SessionProof},
    root::TrustedRoot,
    verify,
};
use ids::{Challenge, Epoch, FleetId, HostEpoch, HostId, Sha256, TlsExporter, UnixMs, sha256};

use super::{CredentialsError, HostRecord, KeysOnRecord, Presented};
use crate::{
    checks::first_failed,
    frames::{ActionRef, AgentFrame, ControlFrame, KeyRecord, RefusalCode},
    limits,
};

/// Why a handshake ends. [`HandshakeError::refusal`] is what the other side is told.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HandshakeError {
    /// A frame came that does not belong here.
    #[error("unexpected {frame} during the handshake")]
    Unexpected { frame: &'static str },
    /// The agent's hello does not decode.
    #[error("the agent's hello does not decode")]
    Hello {
        #[source]
        source: DecodeError,
    },
    /// It belongs to another fleet.
    #[error("the agent is of fleet {found}")]
    Fleet { found: FleetId },
    /// No host of this id may connect.
    #[error("host {host} is unknown or revoked")]
    Host { host: HostId },
    /// No protocol version both sides speak that the fleet still allows.
    #[error("host {host} speaks protocol versions {offered:?}, and {}", protocol_words(offered, *least))]
    Protocol {
        host: HostId,
        /// What the agent speaks, ascending.
        offered: Vec<u32>,
        /// The least that the fleet's root metadata allows.
        least: u32,
    },
    /// The stored identity key is unusable.
    #[error("the identity key on record for host {host} is not acceptable")]
    Key {
        host: HostId,
        #[source]
        source: KeyError,
    },
    /// The proof does not verify under the host's identity key.
    #[error("the proof of host {host} does not verify")]
    Proof {
        host: HostId,
        #[source]
        source: VerifyError,
    },
    /// The proof verifies, and is about something else.
    #[error("the proof of host {host} does not belong to this connection: {why}")]
    Binding { host: HostId, why: &'static str },
    /// What it brings does not show that it is this host.
    #[error("the credentials of host {host} do not count")]
    Credentials {
        host: HostId,
        #[source]
        source: Box<CredentialsError>,
    },
    /// The list of actions is too long or names one twice.
    #[error("host {host} lists more than {max} actions, or one twice")]
    Actions { host: HostId, max: usize },
    /// More root metadata than is taken from an agent: too many versions, or in more than one frame.
    #[error("host {host} sent more than {max} versions of root metadata, or sent them twice")]
    RootChain { host: HostId, max: usize },
}

impl HandshakeError {
    /// What the other side may know.
    #[must_use]
    pub const fn refusal(&self) -> RefusalCode {
        match self {
            Self::Host { .. } | Self::Fleet { .. } | Self::Key { .. } | Self::Credentials { .. } => {
                RefusalCode::HostRefused
            }
            Self::Protocol { .. } => RefusalCode::ProtocolVersion,
            Self::Actions { .. } | Self::RootChain { .. } => RefusalCode::LimitExceeded,
            Self::Unexpected { .. } | Self::Hello { .. } | Self::Proof { .. } | Self::Binding { .. } => {
                RefusalCode::NotAuthentic
            }
        }
    }

    /// The frame that says so. Its words are for the person at the host and give nothing else away.
    #[must_use]
    pub fn frame(&self) -> ControlFrame {
        let reason = self.refusal();
        let message = match (self, reason) {
            (Self::Protocol { offered, least, .. }, _) => {
                format!("no protocol version in common: {}", protocol_words(offered, *least))
            }
            (_, RefusalCode::HostRefused) => {
                "this host is unknown here or was revoked; enrol it anew with `serverflow host enroll NAME`".to_owned()
            }
            (_, RefusalCode::LimitExceeded) => "a limit of the handshake was passed".to_owned(),
            _ => "the handshake does not verify".to_owned(),
        };
        ControlFrame::Refused { reason, message }
    }
}

/// Which side is behind, and what to do.
fn protocol_words(offered: &[u32], least: u32) -> String {
    let newest = limits::PROTOCOLS.iter().copied().max().unwrap_or_default();
    if offered.iter().all(|version| *version > newest) {
        format!("the control plane speaks versions up to {newest}; upgrade the control plane")
    } else if offered.iter().all(|version| *version < least) {
        format!(
            "the fleet allows version {least} and later; upgrade the agent with the lines of `serverflow host upgrade NAME`"
        )
    } else {
        let ours = limits::PROTOCOLS;
        format!(
            "the control plane speaks {ours:?}, of which the fleet allows {least} and later; upgrade both to one release"
        )
    }
}

/// What a frame led to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HandshakeStep {
    /// Look this host up and call [`Handshake::answer`]. Nothing of the hello is verified yet.
    LookUp(Box<AgentHello>),
    /// The agent holds root metadata that may be newer: verify and store what follows from one's own.
    /// Nothing else changes in this session.
    RootChain(Vec<Vec<u8>>),
    /// The next frame is awaited.
    Wait,
    /// Send this: the host has to show who it is.
    Ask(ControlFrame),
    /// It is that host.
    Authenticated(Box<Authenticated>),
}

/// By which key a host is judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Identity {
    /// It is unknown, or revoked.
    Refused,
    /// The one on record, of the epoch that the hello names if that was rotated.
    OnRecord(PublicKeyBytes),
    /// This control plane was restored from a backup, which does not know the host, or knows older keys of it than it
    /// speaks with: by the one that its credentials lead to.
    Wanted(Option<KeysOnRecord>),
}

impl From<Option<PublicKeyBytes>> for Identity {
    fn from(key: Option<PublicKeyBytes>) -> Self {
        key.map_or(Self::Refused, Self::OnRecord)
    }
}

/// What an answer is made of.
pub struct Answer<'a> {
    pub identity: Identity,
    pub root: &'a TrustedRoot,
    /// A session key the root metadata lists.
    pub session_key: &'a SigningKey<role::Session>,
    /// Fresh.
    pub nonce: Challenge,
    pub time: UnixMs,
}

/// An authenticated host in an authenticated connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authenticated {
    pub host: HostId,
    pub hello: AgentHello,
    /// SHA-256 of the proof's payload: what the `session-open` answers.
    pub proof_sha256: Sha256,
    pub exporter: TlsExporter,
    pub protocol: u32,
    /// The nonce of the control plane's hello.
    pub control_nonce: Challenge,
    /// Ascending.
    pub actions: Vec<ActionRef>,
    /// It is known by what it brought alone.
    pub presented: Option<Box<Presented>>,
}

impl Authenticated {
    /// The `session-open` to be signed. The signer puts in its own time.
    #[must_use]
    pub fn open(&self, record: &HostRecord<'_>, epoch: Epoch, time: UnixMs) -> SessionOpen {
        SessionOpen {
            fleet: self.hello.fleet,
            host: self.host,
            host_epoch: record.host_epoch,
            epoch,
            exporter: self.exporter,
            proof_sha256: self.proof_sha256,
            time,
            acknowledged: record.acknowledged,
            last_report: record.last_report,
        }
    }
}

enum Phase {
    AwaitHello,
    AwaitAnswer { hello: Box<AgentHello>, hello_sha256: Sha256 },
    AwaitProof(Box<Expected>),
    AwaitActions { proved: Box<Proved>, unknown: Option<Box<Unknown>> },
    AwaitCredentials { proved: Box<Proved>, unknown: Box<Unknown> },
    Ended,
}

struct Expected {
    hello: Box<AgentHello>,
    protocol: u32,
    identity: ExpectedKey,
    nonce: Challenge,
    hello_sha256: Sha256,
}

enum ExpectedKey {
    Known(VerifyingKey<role::Agent>),
    Wanted { on_record: Option<KeysOnRecord>, root: Box<TrustedRoot> },
}

/// What a proof that verified stands for; of a host that has yet to show who it is, what one that will verify does.
struct Proved {
    hello: Box<AgentHello>,
    protocol: u32,
    control_nonce: Challenge,
    proof_sha256: Sha256,
    actions: Vec<ActionRef>,
}

/// Somebody who has yet to show who they are.
struct Unknown {
    on_record: Option<KeysOnRecord>,
    root: Box<TrustedRoot>,
    /// Its proof, which no key has verified.
    proof: Vec<u8>,
    hello_sha256: Sha256,
}

/// The machine. After an error it answers nothing more; the caller sends [`HandshakeError::frame`]
/// and closes. The caller also ends it after [`limits::AUTHENTICATION_MAX`].
pub struct Handshake {
    fleet: FleetId,
    exporter: TlsExporter,
    /// Root metadata was brought.
    has_chain: bool,
    phase: Phase,
}

impl Handshake {
    /// A new connection with its channel binding.
    #[must_use]
    pub const fn new(fleet: FleetId, exporter: TlsExporter) -> Self {
        Self { fleet, exporter, has_chain: false, phase: Phase::AwaitHello }
    }

    /// Takes a frame.
    ///
    /// # Errors
    /// When the handshake ends here.
    pub fn receive(&mut self, frame: AgentFrame) -> Result<HandshakeStep, HandshakeError> {
        match (core::mem::replace(&mut self.phase, Phase::Ended), frame) {
            (Phase::AwaitHello, AgentFrame::Hello(bytes)) => self.hello(&bytes),
            (Phase::AwaitProof(expected), AgentFrame::RootChain(chain)) => {
                let max = limits::ROOT_CHAIN_FROM_AGENT_MAX;
                // One frame: nobody has proved anything yet, and whoever calls keeps what was brought.
                if self.has_chain || chain.len() > max {
                    return Err(HandshakeError::RootChain { host: expected.hello.host, max });
                }
                self.has_chain = true;
                self.phase = Phase::AwaitProof(expected);
                Ok(HandshakeStep::RootChain(chain))
            }
            (Phase::AwaitProof(expected), AgentFrame::Proof(bytes)) => self.proof(expected, &bytes),
            (Phase::AwaitActions { mut proved, unknown }, AgentFrame::Actions(actions)) => {
                proved.actions = checked_actions(proved.hello.host, actions)?;
                let Some(unknown) = unknown else { return Ok(self.authenticated(*proved, None)) };
                let above = unknown.on_record.as_ref().map_or(HostEpoch(1), |known| known.host_epoch);
                self.phase = Phase::AwaitCredentials { proved, unknown };
                Ok(HandshakeStep::Ask(ControlFrame::CredentialsWanted { above }))
            }
            (Phase::AwaitCredentials { proved, unknown }, AgentFrame::Credentials { receipt, changes }) => {
                self.credentials(*proved, *unknown, receipt, changes)
            }
            (_, frame) => Err(HandshakeError::Unexpected { frame: frame.name() }),
        }
    }

    fn hello(&mut self, bytes: &[u8]) -> Result<HandshakeStep, HandshakeError> {
        let hello = AgentHello::decode(bytes).map_err(|source| HandshakeError::Hello { source })?;
        if hello.fleet != self.fleet {
            return Err(HandshakeError::Fleet { found: hello.fleet });
        }
        let hello = Box::new(hello);
        self.phase = Phase::AwaitAnswer { hello: hello.clone(), hello_sha256: sha256(bytes) };
        Ok(HandshakeStep::LookUp(hello))
    }

    /// What to send once the host was looked up: the root chain above the agent's version (always,
    /// even when empty) and the signed hello.
    ///
    /// # Errors
    /// When the host may not connect, or no protocol version fits.
    pub fn answer(&mut self, answer: &Answer<'_>) -> Result<Vec<ControlFrame>, HandshakeError> {
        let Phase::AwaitAnswer { hello, hello_sha256 } = core::mem::replace(&mut self.phase, Phase::Ended) else {
            return Err(HandshakeError::Unexpected { frame: "answer" });
        };
        let host = hello.host;
        let identity = match &answer.identity {
            Identity::Refused => return Err(HandshakeError::Host { host }),
            Identity::OnRecord(key) => {
                ExpectedKey::Known(VerifyingKey::try_from(*key).map_err(|source| HandshakeError::Key { host, source })?)
            }
            Identity::Wanted(on_record) => {
                ExpectedKey::Wanted { on_record: on_record.clone(), root: Box::new(answer.root.clone()) }
            }
        };
        let min = answer.root.current().protocol_min;
        let common =
            limits::PROTOCOLS.iter().rev().find(|version| **version >= min && hello.protocols.contains(version));
        let protocol = *common.ok_or_else(|| {
            let offered = hello.protocols.clone();
            HandshakeError::Protocol { host, offered, least: min.max(limits::PROTOCOLS[0]) }
        })?;
        if matches!(identity, ExpectedKey::Wanted { .. }) && protocol < limits::PROTOCOL_CREDENTIALS {
            return Err(HandshakeError::Host { host });
        }
        let signed = answer.session_key.sign(&ControlHello {
            protocol,
            fleet: self.fleet,
            host,
            agent_nonce: hello.nonce,
            control_nonce: answer.nonce,
            exporter: self.exporter,
            agent_hello_sha256: hello_sha256,
            time: answer.time,
            root_version: answer.root.version(),
        });
        let mut chain = answer.root.chain_above(hello.root_version);
        chain.truncate(limits::ROOT_CHAIN_PER_CONNECTION_MAX);
        let hello_sha256 = signed.payload_sha256();
        let expected = Expected { hello, protocol, identity, nonce: answer.nonce, hello_sha256 };
        self.phase = Phase::AwaitProof(Box::new(expected));
        Ok(vec![ControlFrame::RootChain(chain), ControlFrame::Hello(signed.into_envelope())])
    }

    fn proof(&mut self, expected: Box<Expected>, bytes: &[u8]) -> Result<HandshakeStep, HandshakeError> {
        let Expected { hello, protocol, identity, nonce, hello_sha256 } = *expected;
        let (proof_sha256, unknown) = match identity {
            ExpectedKey::Known(key) => (self.proved(hello.host, &key, bytes, nonce, hello_sha256)?, None),
            ExpectedKey::Wanted { on_record, root } => {
                (Sha256::ZERO, Some(Box::new(Unknown { on_record, root, proof: bytes.to_vec(), hello_sha256 })))
            }
        };
        let proved = Box::new(Proved { hello, protocol, control_nonce: nonce, proof_sha256, actions: Vec::new() });
        self.phase = Phase::AwaitActions { proved, unknown };
        Ok(HandshakeStep::Wait)
    }

    /// Whoever has yet to show who they are has brought something: it has to lead to the key that signed the proof.
    fn credentials(
        &self,
        mut proved: Proved,
        unknown: Unknown,
        receipt: Vec<u8>,
        changes: Vec<KeyRecord>,
    ) -> Result<HandshakeStep, HandshakeError> {
        let host = proved.hello.host;
        let Unknown { on_record, root, proof, hello_sha256 } = unknown;
        let presented = Presented::judge((self.fleet, host), on_record.as_ref(), &root, receipt, changes)
            .map_err(|source| HandshakeError::Credentials { host, source: Box::new(source) })?;
        let key =
            VerifyingKey::try_from(presented.identity_key).map_err(|source| HandshakeError::Key { host, source })?;
        proved.proof_sha256 = self.proved(host, &key, &proof, proved.control_nonce, hello_sha256)?;
        if presented.host_epoch != proved.hello.host_epoch {
            return Err(HandshakeError::Binding { host, why: "it names another epoch than its keys are of" });
        }
        Ok(self.authenticated(proved, Some(Box::new(presented))))
    }

    fn authenticated(&self, proved: Proved, presented: Option<Box<Presented>>) -> HandshakeStep {
        let Proved { hello, protocol, control_nonce, proof_sha256, actions } = proved;
        let (host, exporter, hello) = (hello.host, self.exporter, *hello);
        HandshakeStep::Authenticated(Box::new(Authenticated {
            host,
            hello,
            proof_sha256,
            exporter,
            protocol,
            control_nonce,
            actions,
            presented,
        }))
    }

    /// The hash of a proof that holds.
    fn proved(
        &self,
        host: HostId,
        identity: &VerifyingKey<role::Agent>,
        bytes: &[u8],
        nonce: Challenge,
        hello_sha256: Sha256,
    ) -> Result<Sha256, HandshakeError> {
        let proof = verify::<SessionProof>(bytes, core::slice::from_ref(identity))
            .map_err(|source| HandshakeError::Proof { host, source })?;
        let failed = first_failed(&[
            (proof.fleet == self.fleet, "it is for another fleet"),
            (proof.host == host, "it is of another host"),
            (proof.exporter == self.exporter, "it is bound to another TLS connection"),
            (proof.control_nonce == nonce, "it does not answer this nonce"),
            (proof.hello_sha256 == hello_sha256, "it answers another hello"),
        ]);
        if let Some(why) = failed {
            return Err(HandshakeError::Binding { host, why });
        }
        Ok(proof.payload_sha256())
    }
}

fn checked_actions(host: HostId, mut actions: Vec<ActionRef>) -> Result<Vec<ActionRef>, HandshakeError> {
    let max = limits::ACTIONS_COUNT_MAX;
    let count = actions.len();
    actions.sort();
    actions.dedup_by(|a, b| (&a.name, a.version) == (&b.name, b.version));
    if count > max || actions.len() != count { Err(HandshakeError::Actions { host, max }) } else { Ok(actions) }
}
