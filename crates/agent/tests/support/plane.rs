//! The control plane's side, in memory.

use std::{
    sync::{Arc, Mutex, MutexGuard},
    time::{SystemTime, UNIX_EPOCH},
};

use envelope::{
    keys::{SigningKey, role},
    messages::*,
    root::{TrustedRoot, sign_root},
    token::JoinToken,
    verify,
};
use ids::*;
use session::{
    control::{Answer, Enrolment, EnrolmentStep, Handshake, HandshakeStep, HostRecord, Identity, token_refused},
    frames::{AgentFrame, ControlFrame, Stage},
};
use tokio::sync::{mpsc, watch};
use zeroize::Zeroizing;

use super::{
    listener::{Listener, ServerKey, Stream},
    within,
};
use link::Purpose;

pub(crate) fn now() -> UnixMs {
    UnixMs(SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis() as u64)
}

pub(crate) fn random<const N: usize>() -> [u8; N] {
    *keyfile::random::<N>().expect("randomness")
}

/// What goes wrong with an enrolment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EnrolFault {
    None,
    /// The secret gets lost on its way: nothing is redeemed.
    SecretLost,
    /// The token is redeemed, and the receipt gets lost.
    ReceiptLost,
    /// As before, and the connection stays open in silence.
    Silence,
}

/// What the agent said.
#[derive(Debug)]
pub(crate) enum Heard {
    Hello(Box<AgentHello>),
    Accepted(CommandId, Stage),
    Report(Box<Report>),
    Ended,
}

struct Enrolled {
    receipt: EnrolReceipt,
    signed: Vec<u8>,
}

struct Ledger {
    fault: EnrolFault,
    enrolled: Option<Enrolled>,
    enrolments: usize,
    acknowledged: Sequence,
    last_report: ReportPosition,
    sequence: Sequence,
}

/// One fleet.
pub(crate) struct Fleet {
    pub(crate) token: JoinToken,
    root: TrustedRoot,
    session_key: SigningKey<role::Session>,
    command_key: SigningKey<role::Command>,
    ledger: Mutex<Ledger>,
    heard: mpsc::UnboundedSender<Heard>,
    /// Frames for the open session, and how many there were so far.
    orders: watch::Sender<Vec<ControlFrame>>,
}

/// A fleet that listens.
pub(crate) struct Plane {
    pub(crate) fleet: Arc<Fleet>,
    pub(crate) listener: Listener,
    heard: mpsc::UnboundedReceiver<Heard>,
}

impl Plane {
    pub(crate) async fn start() -> Self {
        let tcp = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let key = ServerKey::self_signed();
        let address = tcp.local_addr().expect("it listens").to_string();
        let (heard, hears) = mpsc::unbounded_channel();
        let fleet = Arc::new(Fleet::new(&address, key.pin, heard));
        let handler = fleet.clone();
        let listener = Listener::start_on(tcp, key, move |stream| serve(handler.clone(), stream));
        Self { fleet, listener, heard: hears }
    }

    pub(crate) async fn hear(&mut self) -> Heard {
        within("a word of the agent", self.heard.recv()).await.expect("the fleet lives")
    }

    /// The next report; what else is said is passed over.
    pub(crate) async fn report(&mut self) -> Report {
        loop {
            if let Heard::Report(report) = self.hear().await {
                return *report;
            }
        }
    }

    pub(crate) async fn hello(&mut self) -> AgentHello {
        loop {
            if let Heard::Hello(hello) = self.hear().await {
                return *hello;
            }
        }
    }
}

impl Fleet {
    fn new(address: &str, pin: Sha256, heard: mpsc::UnboundedSender<Heard>) -> Self {
        let root_key = SigningKey::<role::Root>::from_seed(&random());
        let session_key = SigningKey::<role::Session>::from_seed(&random());
        let command_key = SigningKey::<role::Command>::from_seed(&random());
        let audit_key = SigningKey::<role::Audit>::from_seed(&random());
        let metadata = RootMetadata {
            version: RootVersion(1),
            issued: now(),
            expires: now().plus(DurationMs::from_days(400)),
            fleet: FleetId::from_bytes(random()),
            root_keys: vec![root_key.public()],
            root_threshold: 1,
            addresses: vec![address.to_owned()],
            recovery_keys: Vec::new(),
            session_keys: vec![session_key.public()],
            command_keys: vec![command_key.public()],
            approver_keys: Vec::new(),
            approvals: ApprovalThresholds::default(),
            audit_key: audit_key.public(),
            audit_log: AuditLogId::from_bytes(random()),
            restored_log: None,
            tls_pins: vec![pin, Sha256(random())],
            protocol_min: 1,
            epoch: Epoch(1),
        };
        let signed = sign_root(&[&root_key], &metadata);
        let root = TrustedRoot::pin_key(&signed, root_key.public()).expect("a proper root");
        let token = JoinToken {
            fleet: metadata.fleet,
            token: TokenId::from_bytes(random()),
            secret: Zeroizing::new(random()),
            root_sha256: root.payload_sha256(),
            spki_sha256: pin,
            address: address.to_owned(),
        };
        let ledger = Ledger {
            fault: EnrolFault::None,
            enrolled: None,
            enrolments: 0,
            acknowledged: Sequence(0),
            last_report: ReportPosition::START,
            sequence: Sequence(0),
        };
        let orders = watch::Sender::new(Vec::new());
        Self { token, root, session_key, command_key, ledger: Mutex::new(ledger), heard, orders }
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().expect("no test panicked here")
    }

    pub(crate) fn token_text(&self) -> String {
        self.token.to_text().expect("a token").to_string()
    }

    pub(crate) fn fail_with(&self, fault: EnrolFault) {
        self.ledger().fault = fault;
    }

    pub(crate) fn enrolments(&self) -> usize {
        self.ledger().enrolments
    }

    pub(crate) fn receipt(&self) -> EnrolReceipt {
        self.ledger().enrolled.as_ref().expect("enrolled").receipt.clone()
    }

    /// Says a frame in the open session (or in the next, if there is none).
    pub(crate) fn say(&self, frame: ControlFrame) {
        self.orders.send_modify(|frames| frames.push(frame));
    }

    /// A signed order with the next sequence.
    pub(crate) fn order(&self, action: &str, parameters: &str) -> (CommandId, Vec<u8>) {
        let host = self.receipt().host;
        let action: ActionName = action.parse().expect("an action's name");
        let info = actions::find(&action, 1).expect("a known action");
        let command = CommandId::from_bytes(random());
        let order = Order {
            fleet: self.token.fleet,
            host,
            command,
            operation: OperationId::from_bytes(random()),
            proposed_at: now(),
            deliver_by: now().plus(DurationMs::from_mins(10)),
            start_within_ms: 60_000,
            action,
            action_version: 1,
            schema_sha256: info.schema_sha256(),
            parameters: parameters.as_bytes().to_vec(),
            sealed: Vec::new(),
            requester: None,
            dry_run: false,
        };
        let mut ledger = self.ledger();
        ledger.sequence = Sequence(ledger.sequence.0 + 1);
        let signed = self.command_key.sign(&Command {
            order,
            host_epoch: HostEpoch(1),
            epoch: Epoch(1),
            sequence: ledger.sequence,
            nonce: Nonce(random()),
            issued: now(),
            not_before: now(),
            expires: now().plus(DurationMs::from_mins(4)),
        });
        (command, signed.into_envelope())
    }
}

async fn serve(fleet: Arc<Fleet>, stream: Stream) {
    match stream.purpose {
        Purpose::Enrol => enrol(&fleet, stream).await,
        Purpose::Session => {
            let heard = fleet.heard.clone();
            session(&fleet, stream).await;
            let _ = heard.send(Heard::Ended);
        }
    }
}

async fn enrol(fleet: &Fleet, mut stream: Stream) {
    let mut machine = Enrolment::new(fleet.token.fleet, stream.exporter);
    while let Some(frame) = stream.receive().await {
        match machine.receive(frame).expect("an honest agent") {
            EnrolmentStep::LookUp(token) if token == fleet.token.token => {
                let frames = machine.answer(&fleet.root, &fleet.session_key, Challenge(random()), now());
                for frame in frames.expect("a token was named") {
                    stream.send(frame).await;
                }
            }
            EnrolmentStep::LookUp(_) => return stream.send(token_refused()).await,
            EnrolmentStep::Redeem(redemption) => {
                let fault = fleet.ledger().fault;
                if fault == EnrolFault::SecretLost {
                    return;
                }
                assert_eq!(redemption.secret.0, fleet.token.secret);
                let spent = fleet.ledger().enrolled.is_some();
                if spent {
                    return stream.send(token_refused()).await;
                }
                let name = "web1".parse().expect("a host's name");
                let receipt = redemption.receipt(HostId::from_bytes(random()), name, vec![Role::App], now());
                let signed = fleet.session_key.sign(&receipt).into_envelope();
                {
                    let mut ledger = fleet.ledger();
                    ledger.enrolments += 1;
                    ledger.enrolled = Some(Enrolled { receipt, signed: signed.clone() });
                }
                match fault {
                    EnrolFault::ReceiptLost => return,
                    EnrolFault::Silence => return drop(stream.receive().await),
                    _ => stream.send(ControlFrame::EnrolReceipt(signed)).await,
                }
            }
            EnrolmentStep::ReceiptWanted(wanted) => {
                let ledger_receipt =
                    fleet.ledger().enrolled.as_ref().map(|it| (it.receipt.identity_key, it.signed.clone()));
                match ledger_receipt {
                    Some((key, signed)) if key == wanted.identity_key => {
                        stream.send(ControlFrame::EnrolReceipt(signed)).await;
                    }
                    _ => return stream.send(token_refused()).await,
                }
            }
        }
    }
}

async fn session(fleet: &Fleet, mut stream: Stream) {
    let mut handshake = Handshake::new(fleet.token.fleet, stream.exporter);
    let receipt = fleet.receipt();
    let authenticated = loop {
        let Some(frame) = stream.receive().await else { return };
        match handshake.receive(frame).expect("an honest agent") {
            HandshakeStep::LookUp(hello) => {
                let _ = fleet.heard.send(Heard::Hello(hello));
                let answer = Answer {
                    identity: Identity::OnRecord(receipt.identity_key),
                    root: &fleet.root,
                    session_key: &fleet.session_key,
                    nonce: Challenge(random()),
                    time: now(),
                };
                for frame in handshake.answer(&answer).expect("a hello came") {
                    stream.send(frame).await;
                }
            }
            HandshakeStep::RootChain(_) | HandshakeStep::Wait | HandshakeStep::Ask(_) => {}
            HandshakeStep::Authenticated(authenticated) => break authenticated,
        }
    };
    let open = {
        let ledger = fleet.ledger();
        let record = HostRecord {
            host_epoch: HostEpoch(1),
            acknowledged: ledger.acknowledged,
            allocated: ledger.sequence,
            last_report: ledger.last_report,
            boots: &[],
        };
        authenticated.open(&record, Epoch(1), now())
    };
    stream.send(ControlFrame::Open(fleet.command_key.sign(&open).into_envelope())).await;
    let mut orders = fleet.orders.subscribe();
    orders.mark_changed();
    loop {
        let frame = tokio::select! {
            changed = orders.changed() => {
                changed.expect("the fleet lives");
                let mut frames = Vec::new();
                fleet.orders.send_if_modified(|waiting| {
                    frames = std::mem::take(waiting);
                    false
                });
                for frame in frames {
                    stream.send(frame).await;
                }
                continue;
            }
            frame = stream.receive() => frame,
        };
        match frame {
            None => return,
            Some(AgentFrame::Accepted { command, sequence, stage }) => {
                let mut ledger = fleet.ledger();
                ledger.acknowledged = ledger.acknowledged.max(sequence);
                let _ = fleet.heard.send(Heard::Accepted(command, stage));
            }
            Some(AgentFrame::Report(bytes)) => {
                let acknowledged = take_report(fleet, &receipt, &bytes);
                stream.send(acknowledged).await;
            }
            Some(_) => {}
        }
    }
}

fn take_report(fleet: &Fleet, receipt: &EnrolReceipt, bytes: &[u8]) -> ControlFrame {
    let key = receipt.identity_key.try_into().expect("a proper key");
    let report = verify::<Report>(bytes, &[key]).expect("signed by this host");
    let (sequence, sha256) = (report.sequence, report.payload_sha256());
    let mut ledger = fleet.ledger();
    if sequence.0 == ledger.last_report.sequence.0 + 1 {
        assert_eq!(report.previous, ledger.last_report.sha256, "reports form a chain");
        ledger.last_report = ReportPosition { sequence, sha256 };
        let _ = fleet.heard.send(Heard::Report(Box::new((*report).clone())));
    }
    ControlFrame::ReportAcknowledged { sequence, sha256 }
}
