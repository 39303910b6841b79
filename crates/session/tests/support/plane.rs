//! The control plane in memory: its real machines, and a ledger in place of a store.

use std::collections::BTreeMap;

use envelope::{
    keys::{SigningKey, VerifyingKey, role},
    messages::*,
    root::TrustedRoot,
    verify,
};
use ids::*;
use session::{
    agent::io::Clocks,
    control::{
        Answer, Handshake, HandshakeError, HandshakeStep, HostRecord, Identity, ReportVerdict, Standing,
        acknowledged_after, boots_after, judge, judge_report,
    },
    frames::{AgentFrame, ControlFrame, Stage},
};

use super::{FLEET, HOST, Keys};

pub(crate) struct Plane {
    pub(crate) root: TrustedRoot,
    pub(crate) identity_key: PublicKeyBytes,
    pub(crate) host_epoch: HostEpoch,
    pub(crate) acknowledged: Sequence,
    pub(crate) allocated: Sequence,
    pub(crate) last_report: ReportPosition,
    pub(crate) boots: Vec<BootId>,
    pub(crate) stages: BTreeMap<CommandId, Stage>,
    pub(crate) reports: BTreeMap<u64, (Sha256, Report)>,
    /// How often each report came.
    pub(crate) received: BTreeMap<u64, usize>,
    pub(crate) verdicts: Vec<ReportVerdict>,
    pub(crate) standing: Option<Standing>,
    pub(crate) error: Option<HandshakeError>,
    /// Added to the time told in `session-open`.
    pub(crate) time_offset: DurationMs,
    /// While true, reports are taken and not acknowledged.
    pub(crate) silent: bool,
    pub(crate) progress: Vec<String>,
    /// Changed by a test before the next handshake.
    pub(crate) acknowledged_claim: Option<Sequence>,
    handshake: Option<Handshake>,
    nonce: u8,
}

impl Plane {
    pub(crate) fn new(root: TrustedRoot, identity_key: PublicKeyBytes) -> Self {
        Self {
            root,
            identity_key,
            host_epoch: HostEpoch(1),
            acknowledged: Sequence(0),
            allocated: Sequence(0),
            last_report: ReportPosition::START,
            boots: Vec::new(),
            stages: BTreeMap::new(),
            reports: BTreeMap::new(),
            received: BTreeMap::new(),
            verdicts: Vec::new(),
            standing: None,
            error: None,
            time_offset: DurationMs(0),
            silent: false,
            progress: Vec::new(),
            acknowledged_claim: None,
            handshake: None,
            nonce: 0x80,
        }
    }

    pub(crate) fn connected(&mut self, exporter: TlsExporter) {
        self.handshake = Some(Handshake::new(FLEET, exporter));
        self.standing = None;
        self.error = None;
    }

    pub(crate) fn disconnected(&mut self) {
        self.handshake = None;
        self.standing = None;
    }

    pub(crate) fn is_fit(&self) -> bool {
        self.standing == Some(Standing::Fit)
    }

    pub(crate) fn receive(&mut self, keys: &Keys, frame: AgentFrame, now: Clocks) -> Vec<ControlFrame> {
        if self.standing.is_some() {
            return self.live(frame);
        }
        let Some(handshake) = &mut self.handshake else { return Vec::new() };
        match handshake.receive(frame) {
            Ok(step) => self.step(keys, step, now),
            Err(error) => self.fail(error),
        }
    }

    fn fail(&mut self, error: HandshakeError) -> Vec<ControlFrame> {
        let frame = error.frame();
        self.error = Some(error);
        self.handshake = None;
        vec![frame]
    }

    fn step(&mut self, keys: &Keys, step: HandshakeStep, now: Clocks) -> Vec<ControlFrame> {
        match step {
            HandshakeStep::LookUp(hello) => {
                self.nonce = self.nonce.wrapping_add(1);
                let answer = Answer {
                    identity: Identity::from((hello.host == HOST).then_some(self.identity_key)),
                    root: &self.root,
                    session_key: &keys.session,
                    nonce: Challenge([self.nonce; 32]),
                    time: now.wall,
                };
                let handshake = self.handshake.as_mut().expect("it is under way");
                handshake.answer(&answer).unwrap_or_else(|error| self.fail(error))
            }
            HandshakeStep::RootChain(chain) => {
                for envelope in chain {
                    let _known_already = self.root.advance(&envelope);
                }
                Vec::new()
            }
            HandshakeStep::Wait => Vec::new(),
            HandshakeStep::Ask(frame) => vec![frame],
            HandshakeStep::Authenticated(session) => {
                let record = self.record();
                let standing = judge(&session.hello, &record);
                let epoch = self.root.current().epoch;
                let mut open = session.open(&record, epoch, now.wall.plus(self.time_offset));
                open.acknowledged = self.acknowledged_claim.unwrap_or(open.acknowledged);
                self.standing = Some(standing);
                self.boots = boots_after(&self.boots, session.hello.boot, 2);
                vec![ControlFrame::Open(keys.command.sign(&open).into_envelope())]
            }
        }
    }

    pub(crate) fn record(&self) -> HostRecord<'_> {
        HostRecord {
            host_epoch: self.host_epoch,
            acknowledged: self.acknowledged,
            allocated: self.allocated,
            last_report: self.last_report,
            boots: &self.boots,
        }
    }

    fn live(&mut self, frame: AgentFrame) -> Vec<ControlFrame> {
        match frame {
            AgentFrame::Accepted { command, sequence, stage } => {
                self.acknowledged = acknowledged_after(&self.record(), sequence);
                let known = self.stages.entry(command).or_insert(stage);
                *known = (*known).max(stage);
                Vec::new()
            }
            AgentFrame::Report(envelope) => self.report(&envelope),
            AgentFrame::Progress { text, .. } => {
                self.progress.push(text);
                Vec::new()
            }
            AgentFrame::Clock { .. } => Vec::new(),
            other => panic!("unexpected {} in an open session", other.name()),
        }
    }

    fn report(&mut self, envelope: &[u8]) -> Vec<ControlFrame> {
        let key = VerifyingKey::<role::Agent>::try_from(self.identity_key).expect("a good key");
        let report = verify::<Report>(envelope, &[key]).expect("a report verifies");
        let sha256 = report.payload_sha256();
        let recorded = self.reports.get(&report.sequence.0).map(|(sha256, _)| *sha256);
        *self.received.entry(report.sequence.0).or_default() += 1;
        let verdict = judge_report(self.last_report, &report, sha256, recorded);
        self.verdicts.push(verdict);
        match verdict {
            ReportVerdict::Next => {
                self.last_report = ReportPosition { sequence: report.sequence, sha256 };
                self.acknowledged = acknowledged_after(&self.record(), report.command_sequence);
                self.reports.insert(report.sequence.0, (sha256, (*report).clone()));
            }
            ReportVerdict::Duplicate => {}
            other => panic!("report {}: {other:?}", report.sequence),
        }
        if self.silent {
            return Vec::new();
        }
        vec![ControlFrame::ReportAcknowledged { sequence: report.sequence, sha256 }]
    }

    pub(crate) fn report_of(&self, command: CommandId) -> Option<&Report> {
        self.reports.values().map(|(_, report)| report).find(|report| report.command == command)
    }

    pub(crate) fn reports_of(&self, command: CommandId) -> usize {
        self.reports.values().filter(|(_, report)| report.command == command).count()
    }

    pub(crate) fn order(&mut self, action: &str, parameters: &str, n: u8, now: UnixMs) -> Order {
        // The ledger's length makes the id differ when the counter wraps.
        let mut random = [n; 10];
        random[..8].copy_from_slice(&self.allocated.0.to_be_bytes());
        Order {
            fleet: FLEET,
            host: HOST,
            command: CommandId::new_v7(now, random),
            operation: OperationId::from_bytes([n; 16]),
            proposed_at: now,
            deliver_by: now.plus(DurationMs::from_mins(10)),
            start_within_ms: DurationMs::from_mins(30).0,
            action: action.parse().expect("an action name"),
            action_version: 1,
            schema_sha256: Sha256([9; 32]),
            parameters: parameters.as_bytes().to_vec(),
            sealed: Vec::new(),
            requester: None,
            dry_run: false,
        }
    }

    /// The next sequence for an order.
    pub(crate) fn seal(&mut self, key: &SigningKey<role::Command>, order: &Order, now: UnixMs) -> Vec<u8> {
        let command = self.command(order, now);
        key.sign(&command).into_envelope()
    }

    pub(crate) fn command(&mut self, order: &Order, now: UnixMs) -> Command {
        self.allocated = Sequence(self.allocated.0 + 1);
        Command {
            order: order.clone(),
            host_epoch: self.host_epoch,
            epoch: self.root.current().epoch,
            sequence: self.allocated,
            nonce: Nonce([u8::try_from(self.allocated.0 % 251).expect("small"); 16]),
            issued: now,
            not_before: now,
            expires: now.plus(DurationMs::from_mins(5)),
        }
    }
}
