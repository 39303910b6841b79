//! Enrolment, both ends against each other, and everyone who should not get in.

mod support;

use envelope::{
    keys::{SigningKey, role},
    messages::*,
    root::TrustedRoot,
    token::JoinToken,
};
use ids::*;
use session::{
    agent::{EnrolEffect, EnrolError, EnrolInput, EnrolLoop, Enrolled, PendingEnrolment},
    control::{Enrolment, EnrolmentStep, ReceiptWanted, Redemption},
    frames::{AgentFrame, ControlFrame, RefusalCode},
};
use support::{FLEET, HOST, Keys, START};
use zeroize::Zeroizing;

const EXPORTER: TlsExporter = TlsExporter([0x55; 32]);
const SEALING: SealingKeyBytes = SealingKeyBytes([9; 32]);

fn identity() -> SigningKey<role::Agent> {
    SigningKey::from_seed(&support::AGENT_SEED)
}

/// A control plane that knows one token, and how far the enrolment got.
struct Plane {
    keys: Keys,
    root: TrustedRoot,
    machine: Enrolment,
    token: TokenId,
    secret: [u8; 32],
    redeemed: Option<Redemption>,
    /// The receipt of a redemption is not sent.
    loses_receipt: bool,
    errors: Vec<String>,
}

impl Plane {
    fn new() -> Self {
        let keys = Keys::new();
        let root = keys.chain(|_| {});
        let token = TokenId::from_bytes([0x70; 16]);
        let machine = Enrolment::new(FLEET, EXPORTER);
        let (secret, redeemed, loses_receipt, errors) = ([0x5e; 32], None, false, Vec::new());
        Self { keys, root, machine, token, secret, redeemed, loses_receipt, errors }
    }

    fn join_token(&self) -> JoinToken {
        JoinToken {
            fleet: FLEET,
            token: self.token,
            secret: Zeroizing::new(self.secret),
            root_sha256: self.root.payload_sha256(),
            spki_sha256: Sha256([1; 32]),
            address: "control.example:7443".to_owned(),
        }
    }

    fn receipt(&self, redemption: &Redemption) -> ControlFrame {
        let name = "web-1".parse().expect("a host name");
        let receipt = redemption.receipt(HOST, name, vec![Role::App], START);
        ControlFrame::EnrolReceipt(self.keys.session.sign(&receipt).into_envelope())
    }

    fn receive(&mut self, frame: AgentFrame) -> Vec<ControlFrame> {
        match self.machine.receive(frame) {
            Err(error) => {
                self.errors.push(error.to_string());
                vec![error.frame()]
            }
            Ok(EnrolmentStep::LookUp(token)) if token != self.token => vec![session::control::token_refused()],
            Ok(EnrolmentStep::LookUp(_)) => {
                let nonce = Challenge([0xc0; 32]);
                self.machine.answer(&self.root, &self.keys.session, nonce, START).expect("a token was named")
            }
            Ok(EnrolmentStep::Redeem(redemption)) if *redemption.secret.0 != self.secret => {
                vec![session::control::token_refused()]
            }
            Ok(EnrolmentStep::Redeem(redemption)) => {
                let receipt = self.receipt(&redemption);
                self.redeemed = Some(*redemption);
                if self.loses_receipt { Vec::new() } else { vec![receipt] }
            }
            Ok(EnrolmentStep::ReceiptWanted(ReceiptWanted { token, identity_key })) => match &self.redeemed {
                Some(redeemed) if redeemed.token == token && redeemed.identity_key == identity_key => {
                    vec![self.receipt(redeemed)]
                }
                _ => vec![session::control::token_refused()],
            },
        }
    }
}

/// How an attempt ended, and what was made durable on the way.
#[derive(Default)]
struct Attempt {
    enrolled: Option<Enrolled>,
    error: Option<EnrolError>,
    pending: Option<PendingEnrolment>,
    /// The secret left the machine.
    secret_sent: bool,
}

/// Drives an attempt to its end; `tamper` may change every frame to the agent.
fn attempt(
    plane: &mut Plane,
    mut agent: EnrolLoop,
    mut tamper: impl FnMut(&Plane, ControlFrame) -> ControlFrame,
) -> Attempt {
    let mut attempt = Attempt::default();
    let now = BootMs(1);
    let mut inputs = vec![EnrolInput::Connected { exporter: EXPORTER, nonce: Challenge([0xa0; 32]) }];
    while !inputs.is_empty() {
        for effect in agent.handle(now, inputs.remove(0)) {
            match effect {
                EnrolEffect::Send(frame) => {
                    if matches!(frame, AgentFrame::EnrolProof { .. }) {
                        assert!(attempt.pending.is_some(), "everything else is durable before the secret leaves");
                        attempt.secret_sent = true;
                    }
                    let answers = plane.receive(frame);
                    inputs.extend(answers.into_iter().map(|frame| EnrolInput::Received(tamper(plane, frame))));
                }
                EnrolEffect::PersistPending(pending) => {
                    attempt.pending = Some(pending);
                    inputs.push(EnrolInput::Persisted);
                }
                EnrolEffect::Enrolled(enrolled) => attempt.enrolled = Some(enrolled),
                EnrolEffect::Failed(error) => attempt.error = Some(error),
                EnrolEffect::WakeAt(_) => {}
            }
        }
    }
    attempt
}

fn untouched(_: &Plane, frame: ControlFrame) -> ControlFrame {
    frame
}

#[test]
fn a_machine_becomes_a_host() {
    let mut plane = Plane::new();
    let token = plane.join_token();
    let attempt = attempt(&mut plane, EnrolLoop::new(&token, identity(), SEALING), untouched);
    let enrolled = attempt.enrolled.expect("a receipt");
    assert_eq!((enrolled.receipt.host, enrolled.receipt.host_epoch), (HOST, HostEpoch(1)));
    assert_eq!(enrolled.root_chain, plane.root.chain());
    assert_eq!(enrolled.root_sha256, token.root_sha256);
    let redeemed = plane.redeemed.expect("redeemed");
    assert_eq!((redeemed.identity_key, redeemed.sealing_key), (identity().public(), SEALING));
}

#[test]
fn a_lost_receipt_is_asked_for_by_signature_without_the_secret() {
    let mut plane = Plane::new();
    plane.loses_receipt = true;
    let token = plane.join_token();
    let first = attempt(&mut plane, EnrolLoop::new(&token, identity(), SEALING), untouched);
    assert!(first.enrolled.is_none() && first.secret_sent);
    let pending = first.pending.expect("durable");
    plane.machine = Enrolment::new(FLEET, EXPORTER);
    let second = attempt(&mut plane, EnrolLoop::resume(pending.clone(), identity(), SEALING), untouched);
    assert!(!second.secret_sent);
    assert_eq!(second.enrolled.expect("the receipt").receipt.host, HOST);
    // Another key gets none.
    plane.machine = Enrolment::new(FLEET, EXPORTER);
    let other = EnrolLoop::resume(pending, SigningKey::from_seed(&[0x66; 32]), SEALING);
    let third = attempt(&mut plane, other, untouched);
    assert!(matches!(third.error, Some(EnrolError::Refused { reason: RefusalCode::TokenRefused, .. })));
}

#[test]
fn nothing_is_signed_for_an_unknown_token() {
    let mut plane = Plane::new();
    let mut token = plane.join_token();
    token.token = TokenId::from_bytes([0x71; 16]);
    let attempt = attempt(&mut plane, EnrolLoop::new(&token, identity(), SEALING), untouched);
    assert!(matches!(attempt.error, Some(EnrolError::Refused { reason: RefusalCode::TokenRefused, .. })));
    assert!(!attempt.secret_sent && attempt.pending.is_none());
}

/// A false control plane: every frame to the agent is changed. The secret must not leave.
#[track_caller]
fn false_plane(words: &str, tamper: impl FnMut(&Plane, ControlFrame) -> ControlFrame) {
    let mut plane = Plane::new();
    let token = plane.join_token();
    let attempt = attempt(&mut plane, EnrolLoop::new(&token, identity(), SEALING), tamper);
    assert!(!attempt.secret_sent && attempt.enrolled.is_none());
    let error = attempt.error.expect("it fails");
    let text = format!("{error:?} {error}");
    assert!(text.contains(words), "{text}");
}

fn changed_hello(change: impl Fn(&mut EnrolHello)) -> impl FnMut(&Plane, ControlFrame) -> ControlFrame {
    move |plane, frame| match frame {
        ControlFrame::EnrolHello(bytes) => {
            let keys = [plane.keys.session.verifying()];
            let mut hello = envelope::verify::<EnrolHello>(&bytes, &keys).expect("it verifies").into_value();
            change(&mut hello);
            ControlFrame::EnrolHello(plane.keys.session.sign(&hello).into_envelope())
        }
        frame => frame,
    }
}

#[test]
fn a_false_control_plane_does_not_get_the_secret() {
    let stranger = |plane: &Plane| {
        let key = SigningKey::<role::Root>::from_seed(&[0x77; 32]);
        let mut metadata = plane.keys.metadata(1);
        metadata.root_keys = vec![key.public()];
        envelope::root::sign_root(&[&key], &metadata)
    };
    false_plane("root metadata is not what", move |plane, frame| match frame {
        ControlFrame::RootChain(_) => ControlFrame::RootChain(vec![stranger(plane)]),
        frame => frame,
    });
    false_plane("there is none", |_, frame| match frame {
        ControlFrame::RootChain(_) => ControlFrame::RootChain(Vec::new()),
        frame => frame,
    });
    false_plane("BadSignature", |_, frame| match frame {
        ControlFrame::EnrolHello(mut bytes) => {
            *bytes.last_mut().expect("bytes") ^= 1;
            ControlFrame::EnrolHello(bytes)
        }
        frame => frame,
    });
    false_plane("NoKey", |_, frame| match frame {
        ControlFrame::EnrolHello(_) => {
            let key = SigningKey::<role::Session>::from_seed(&[0x88; 32]);
            let hello = EnrolHello {
                fleet: FLEET,
                token: TokenId::from_bytes([0x70; 16]),
                agent_nonce: Challenge([0xa0; 32]),
                control_nonce: Challenge([1; 32]),
                exporter: EXPORTER,
                root_version: RootVersion(1),
                time: START,
            };
            ControlFrame::EnrolHello(key.sign(&hello).into_envelope())
        }
        frame => frame,
    });
    false_plane("another fleet", changed_hello(|hello| hello.fleet = FleetId::from_bytes([1; 16])));
    false_plane("another join token", changed_hello(|hello| hello.token = TokenId::from_bytes([1; 16])));
    false_plane("nonce", changed_hello(|hello| hello.agent_nonce = Challenge([1; 32])));
    false_plane("TLS connection", changed_hello(|hello| hello.exporter = TlsExporter([1; 32])));
    false_plane("other root metadata", changed_hello(|hello| hello.root_version = RootVersion(2)));
    false_plane("unexpected receipt", |_, frame| match frame {
        ControlFrame::EnrolHello(bytes) => ControlFrame::EnrolReceipt(bytes),
        frame => frame,
    });
}

/// Changes the receipt, signed with the true session key.
#[track_caller]
fn false_receipt(words: &str, change: impl Fn(&mut EnrolReceipt)) {
    let mut plane = Plane::new();
    let token = plane.join_token();
    let attempt = attempt(&mut plane, EnrolLoop::new(&token, identity(), SEALING), |plane, frame| match frame {
        ControlFrame::EnrolReceipt(bytes) => {
            let keys = [plane.keys.session.verifying()];
            let mut receipt = envelope::verify::<EnrolReceipt>(&bytes, &keys).expect("it verifies").into_value();
            change(&mut receipt);
            ControlFrame::EnrolReceipt(plane.keys.session.sign(&receipt).into_envelope())
        }
        frame => frame,
    });
    assert!(attempt.enrolled.is_none());
    let error = attempt.error.expect("it fails").to_string();
    assert!(error.contains(words), "{error}");
}

#[test]
fn a_receipt_for_someone_else_is_not_taken() {
    false_receipt("another fleet", |receipt| receipt.fleet = FleetId::from_bytes([1; 16]));
    false_receipt("another join token", |receipt| receipt.token = TokenId::from_bytes([1; 16]));
    false_receipt("another identity key", |receipt| {
        receipt.identity_key = SigningKey::<role::Agent>::from_seed(&[0x66; 32]).public();
    });
    false_receipt("another sealing key", |receipt| receipt.sealing_key = SealingKeyBytes([8; 32]));
}

#[test]
fn the_control_plane_refuses_a_proof_of_another_connection() {
    type Change = (&'static str, fn(&mut EnrolProof));
    let changes: [Change; 6] = [
        ("another fleet", |proof| proof.fleet = FleetId::from_bytes([1; 16])),
        ("another join token", |proof| proof.token = TokenId::from_bytes([1; 16])),
        ("another nonce", |proof| proof.agent_nonce = Challenge([1; 32])),
        ("this nonce", |proof| proof.control_nonce = Challenge([1; 32])),
        ("TLS connection", |proof| proof.exporter = TlsExporter([1; 32])),
        ("another hello", |proof| proof.hello_sha256 = Sha256([1; 32])),
    ];
    for (words, change) in changes {
        let mut plane = Plane::new();
        plane.receive(AgentFrame::EnrolStart { token: plane.token, nonce: Challenge([0xa0; 32]) });
        let hello = EnrolHello {
            fleet: FLEET,
            token: plane.token,
            agent_nonce: Challenge([0xa0; 32]),
            control_nonce: Challenge([0xc0; 32]),
            exporter: EXPORTER,
            root_version: RootVersion(1),
            time: START,
        };
        let mut proof = EnrolProof {
            fleet: FLEET,
            token: plane.token,
            identity_key: identity().public(),
            sealing_key: SEALING,
            agent_nonce: hello.agent_nonce,
            control_nonce: hello.control_nonce,
            exporter: EXPORTER,
            hello_sha256: plane.keys.session.sign(&hello).payload_sha256(),
        };
        change(&mut proof);
        let secret = session::frames::TokenSecret(Zeroizing::new(plane.secret));
        plane.receive(AgentFrame::EnrolProof { proof: identity().sign(&proof).into_envelope(), secret });
        assert!(plane.redeemed.is_none());
        assert!(plane.errors[0].contains(words), "{:?}", plane.errors);
    }
}

#[test]
fn a_wrong_secret_is_refused() {
    let mut plane = Plane::new();
    let mut token = plane.join_token();
    token.secret = Zeroizing::new([1; 32]);
    let attempt = attempt(&mut plane, EnrolLoop::new(&token, identity(), SEALING), untouched);
    assert!(matches!(attempt.error, Some(EnrolError::Refused { reason: RefusalCode::TokenRefused, .. })));
}

#[test]
fn the_pinned_version_need_not_be_the_first_or_the_last() {
    let mut plane = Plane::new();
    let second = plane.keys.next(&plane.root, |_| {});
    plane.root.advance(&second).expect("it follows");
    let token = plane.join_token();
    let third = plane.keys.next(&plane.root, |_| {});
    plane.root.advance(&third).expect("it follows");
    let attempt = attempt(&mut plane, EnrolLoop::new(&token, identity(), SEALING), untouched);
    assert_eq!(attempt.enrolled.expect("a receipt").root_chain.last(), Some(&third));
}

#[test]
fn an_enrolment_ends_when_nobody_answers() {
    let plane = Plane::new();
    let mut agent = EnrolLoop::new(&plane.join_token(), identity(), SEALING);
    agent.handle(BootMs(0), EnrolInput::Connected { exporter: EXPORTER, nonce: Challenge([0; 32]) });
    assert!(agent.handle(BootMs(14_999), EnrolInput::Tick).is_empty());
    let effects = agent.handle(BootMs(15_000), EnrolInput::Tick);
    assert!(matches!(effects.as_slice(), [EnrolEffect::Failed(EnrolError::Timeout { seconds: 15 })]));
}

#[test]
fn the_secret_is_not_shown() {
    let secret = session::frames::TokenSecret(Zeroizing::new([0x5e; 32]));
    let frame = AgentFrame::EnrolProof { proof: Vec::new(), secret };
    assert!(!format!("{frame:?}").contains("94"), "{frame:?}");
}
