//! A fleet of one host in memory: the real agent loop on a disk that can lose what was not synced, and
//! a control plane made of the real machines and a small ledger.
#![allow(dead_code, reason = "each test file uses its own part")]

pub(crate) mod host;
pub(crate) mod plane;

use envelope::{
    keys::{SigningKey, role},
    messages::*,
    root::{TrustedRoot, sign_root},
};
use ids::*;
use session::{
    agent::io::*,
    frames::{AgentFrame, ControlFrame},
};

pub(crate) use self::{host::Host, plane::Plane};

pub(crate) const START: UnixMs = UnixMs(1_700_000_000_000);
pub(crate) const FLEET: FleetId = FleetId::from_bytes([0xf1; 16]);
pub(crate) const HOST: HostId = HostId::from_bytes([0xa1; 16]);
pub(crate) const LOG: AuditLogId = AuditLogId::from_bytes([0x10; 16]);

pub(crate) struct Keys {
    pub(crate) root: SigningKey<role::Root>,
    pub(crate) session: SigningKey<role::Session>,
    pub(crate) command: SigningKey<role::Command>,
    pub(crate) command_next: SigningKey<role::Command>,
    pub(crate) audit: SigningKey<role::Audit>,
}

pub(crate) const AGENT_SEED: [u8; 32] = [5; 32];

impl Keys {
    pub(crate) fn new() -> Self {
        Self {
            root: SigningKey::from_seed(&[1; 32]),
            session: SigningKey::from_seed(&[2; 32]),
            command: SigningKey::from_seed(&[3; 32]),
            command_next: SigningKey::from_seed(&[33; 32]),
            audit: SigningKey::from_seed(&[4; 32]),
        }
    }

    pub(crate) fn metadata(&self, version: u64) -> RootMetadata {
        RootMetadata {
            version: RootVersion(version),
            issued: UnixMs(START.0 - 86_400_000 + version),
            expires: START.plus(DurationMs::from_days(300)),
            fleet: FLEET,
            root_keys: vec![self.root.public()],
            root_threshold: 1,
            addresses: vec!["control.example:7443".to_owned()],
            recovery_keys: Vec::new(),
            session_keys: vec![self.session.public()],
            command_keys: vec![self.command.public()],
            approver_keys: Vec::new(),
            approvals: ApprovalThresholds::default(),
            audit_key: self.audit.public(),
            audit_log: LOG,
            restored_log: None,
            tls_pins: vec![Sha256([1; 32]), Sha256([2; 32])],
            protocol_min: 1,
            epoch: Epoch(1),
        }
    }

    /// Version 1, changed, as a chain of one.
    pub(crate) fn chain(&self, change: impl FnOnce(&mut RootMetadata)) -> TrustedRoot {
        let mut metadata = self.metadata(1);
        change(&mut metadata);
        TrustedRoot::pin_key(&sign_root(&[&self.root], &metadata), self.root.public()).expect("a valid first version")
    }

    /// The next version of `root`, changed.
    pub(crate) fn next(&self, root: &TrustedRoot, change: impl FnOnce(&mut RootMetadata)) -> Vec<u8> {
        let mut metadata = root.current().clone();
        metadata.version = RootVersion(metadata.version.0 + 1);
        metadata.issued = metadata.issued.plus(DurationMs(1));
        change(&mut metadata);
        sign_root(&[&self.root], &metadata)
    }
}

/// Judges by the action's name; the app and the target of a cancel come in the parameters.
#[derive(Clone, Default)]
pub(crate) struct Registry {
    pub(crate) forbidden: bool,
    pub(crate) approvals_min: u32,
}

impl Admission for Registry {
    fn judge(&self, order: &Order) -> Result<Admitted, Rejection> {
        if self.forbidden {
            return Err(Rejection { message: "policy.toml line 3 says no".to_owned() });
        }
        self.declared(order).ok_or_else(|| Rejection { message: format!("{} is not registered", order.action) })
    }

    fn declared(&self, order: &Order) -> Option<Admitted> {
        let text = String::from_utf8(order.parameters.clone()).ok()?;
        let locked = || Some(AdmittedKind::Locked(text.parse().ok()?));
        let (class, on_restart, kind) = match order.action.as_str() {
            "host.facts" => (Class::Read, OnRestart::Rerun, AdmittedKind::Free),
            "app.deploy" => (Class::Change, OnRestart::Resume, locked()?),
            "app.restart" => (Class::Change, OnRestart::Rerun, locked()?),
            "job.run" => (Class::Change, OnRestart::Unknown, locked()?),
            "disk.wipe" => (Class::Destructive, OnRestart::Unknown, AdmittedKind::Free),
            "command.cancel" => (Class::Change, OnRestart::Rerun, AdmittedKind::Cancel(text.parse().ok()?)),
            "standing.install" => (Class::Change, OnRestart::Rerun, AdmittedKind::StandingInstall(unhex(&text)?)),
            "standing.renew" => (Class::Change, OnRestart::Rerun, AdmittedKind::StandingRenew(unhex(&text)?)),
            "standing.drop" => {
                let (order, revision) = text.split_once(' ')?;
                let kind = AdmittedKind::StandingDrop(order.parse().ok()?, Revision(revision.parse().ok()?));
                (Class::Change, OnRestart::Rerun, kind)
            }
            _ => return None,
        };
        Some(Admitted { class, on_restart, kind, approvals_min: self.approvals_min })
    }
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    text.as_bytes().chunks(2).map(|pair| Some(digit(pair[0])? << 4 | digit(*pair.get(1)?)?)).collect()
}

/// Both ends and what is under way between them.
pub(crate) struct World {
    pub(crate) keys: Keys,
    pub(crate) plane: Plane,
    pub(crate) host: Host,
    /// Under way, oldest first.
    pub(crate) to_plane: Vec<AgentFrame>,
    pub(crate) to_host: Vec<ControlFrame>,
    counter: u8,
}

impl World {
    pub(crate) fn new() -> Self {
        Self::with_root(|_| {})
    }

    pub(crate) fn with_root(change: impl FnOnce(&mut RootMetadata)) -> Self {
        let keys = Keys::new();
        let root = keys.chain(change);
        let state = JournalState { root_chain: root.chain().to_vec(), ..JournalState::default() };
        let host = Host::start(state, root.payload_sha256());
        let plane = Plane::new(root, SigningKey::<role::Agent>::from_seed(&AGENT_SEED).public());
        Self { keys, plane, host, to_plane: Vec::new(), to_host: Vec::new(), counter: 0 }
    }

    pub(crate) fn fresh(&mut self) -> u8 {
        self.counter = self.counter.wrapping_add(1);
        self.counter
    }

    /// A new connection; the handshake is under way.
    pub(crate) fn dial(&mut self) {
        self.to_plane.clear();
        self.to_host.clear();
        let n = self.fresh();
        let exporter = TlsExporter([n; 32]);
        self.plane.connected(exporter);
        let sent = self.host.connect(exporter, n);
        self.to_plane.extend(sent);
    }

    /// Goes through a handshake in which every frame to the agent is changed; says why the agent closed.
    pub(crate) fn tampered(&mut self, mut tamper: impl FnMut(ControlFrame) -> ControlFrame) -> Option<CloseReason> {
        let closed = self.host.closed.len();
        self.dial();
        while self.step_plane() || !self.to_host.is_empty() {
            for frame in std::mem::take(&mut self.to_host) {
                self.host_input(Input::Received(tamper(frame)));
                self.sync();
            }
        }
        self.host.closed.get(closed).map(|(_, why)| why.clone())
    }

    pub(crate) fn cut(&mut self) {
        self.to_plane.clear();
        self.to_host.clear();
        self.plane.disconnected();
        let sent = self.host.input(Input::Disconnected);
        self.to_plane.extend(sent);
    }

    pub(crate) fn host_input(&mut self, input: Input) {
        let sent = self.host.input(input);
        self.to_plane.extend(sent);
    }

    pub(crate) fn sync(&mut self) {
        while self.host.has_unsynced() {
            let sent = self.host.sync_one();
            self.to_plane.extend(sent);
        }
    }

    pub(crate) fn step_plane(&mut self) -> bool {
        if self.to_plane.is_empty() {
            return false;
        }
        let frame = self.to_plane.remove(0);
        self.to_host.extend(self.plane.receive(&self.keys, frame, self.host.now));
        true
    }

    pub(crate) fn step_host(&mut self) -> bool {
        if self.to_host.is_empty() {
            return false;
        }
        let frame = self.to_host.remove(0);
        let sent = self.host.input(Input::Received(frame));
        self.to_plane.extend(sent);
        true
    }

    /// Until nothing is under way and everything is durable.
    pub(crate) fn settle(&mut self) {
        loop {
            let moved = self.step_plane() | self.step_host();
            self.sync();
            if !moved && self.to_plane.is_empty() && self.to_host.is_empty() {
                return;
            }
        }
    }

    /// A new connection, to its end.
    pub(crate) fn connect(&mut self) {
        self.dial();
        self.settle();
    }

    /// Dies and comes back with what was durable. The disk may have kept some writes that were never
    /// acknowledged.
    pub(crate) fn crash(&mut self, keep: usize) {
        self.to_plane.clear();
        self.to_host.clear();
        self.plane.disconnected();
        self.host.crash(keep);
    }

    pub(crate) fn advance(&mut self, span: DurationMs) {
        self.host.now.boot = self.host.now.boot.plus(span);
        self.host.now.wall = self.host.now.wall.plus(span);
    }

    pub(crate) fn order(&mut self, action: &str, parameters: &str) -> Order {
        let n = self.fresh();
        self.plane.order(action, parameters, n, self.host.now.wall)
    }

    /// Orders, seals and sends; not yet settled.
    pub(crate) fn command(&mut self, action: &str, parameters: &str) -> CommandId {
        let order = self.order(action, parameters);
        self.send_order(&order);
        order.command
    }

    pub(crate) fn send_order(&mut self, order: &Order) {
        let envelope = self.plane.seal(&self.keys.command, order, self.host.now.wall);
        self.to_host.push(ControlFrame::Deliver { command: envelope, sealed: Vec::new(), approvals: Vec::new() });
    }

    /// Hands over bytes as a delivered command and settles.
    pub(crate) fn deliver(&mut self, envelope: Vec<u8>) {
        self.to_host.push(ControlFrame::Deliver { command: envelope, sealed: Vec::new(), approvals: Vec::new() });
        self.settle();
    }

    /// A running command ends well.
    pub(crate) fn finish(&mut self, command: CommandId) {
        let end = session::agent::end_message(ReportStatus::Succeeded, "done", &serde_json::Value::Null);
        self.host_input(Input::Finished { command, end });
        self.settle();
    }

    pub(crate) fn status(&self, command: CommandId) -> Option<ReportStatus> {
        self.plane.report_of(command).map(|report| report.status)
    }

    pub(crate) fn message(&self, command: CommandId) -> String {
        let report = self.plane.report_of(command).expect("a report");
        let value: serde_json::Value = serde_json::from_slice(&report.result).expect("JSON");
        value["message"].as_str().expect("a message").to_owned()
    }
}
