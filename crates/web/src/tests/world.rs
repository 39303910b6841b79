//! A control plane's people's side with everything real but the agents: their part is played here,
//! with real keys.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicU64, Ordering},
};

use axum::{
    Router,
    body::{Body, to_bytes},
    http::{HeaderMap, Method, Request, StatusCode, header},
};
use envelope::{
    audit::AuditKind,
    keys::{SigningKey, role},
    messages::{Command as Ordered, Report, ReportPosition, ReportStatus},
    root::{TrustedRoot, sign_root},
    seal::SealingSecretKey,
};
use fleet::{
    model::{Command, CommandStatus, Host, HostStanding, JoinTokenRecord, NewCommand, Seal, User, UserRole},
    ports::{
        AppChange, AuditEntry, AuditRecord, Event, HostChange, Notifier, Settlement, Store as _, StoreError,
        StreamLease, Write,
    },
};
use ids::{
    CommandId, DurationMs, Epoch, HostEpoch, HostId, Id, IdKind, Nonce, ReportSequence, Role, RootVersion, Sequence,
    SessionId, Sha256, UnixMs, sha256,
};
use prometheus_client::registry::Registry;
use serde_json::{Value, json};
use session::frames::{ActionRef, Stage};
use store::{SqliteStore, StoreConfig};
use tokio::sync::{broadcast, watch};
use tower::ServiceExt as _;
use zeroize::Zeroizing;

use super::{openapi::Asked, world_root::root_metadata};
use crate::{WebState, credentials, edge::Peer, routes, state::Shared};

pub(super) const NOW: UnixMs = UnixMs(1_790_000_000_000);
pub(super) const PASSWORD: &str = "correct horse battery";
pub(super) const NEW_PASSWORD: &str = "another horse battery";

fn now() -> UnixMs {
    NOW
}

/// Ids that differ and are the same in every run.
pub(super) fn fresh<K: IdKind>() -> Id<K> {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let mut random = [0u8; 10];
    random[2..].copy_from_slice(&NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes());
    Id::new_v7(NOW, random)
}

pub(super) fn entry(kind: AuditKind) -> AuditEntry {
    AuditEntry {
        time: NOW,
        kind,
        actor: "test".to_owned(),
        subject: "test".to_owned(),
        record: AuditRecord::Inline(b"{}".to_vec()),
    }
}

/// What the rest of the control plane was told.
pub(super) struct Told {
    pub(super) events: broadcast::Sender<Event>,
    pub(super) changes: Mutex<Vec<(HostId, HostChange)>>,
    pub(super) connected: Mutex<Vec<HostId>>,
    pub(super) leases: Mutex<Vec<(HostId, StreamLease)>>,
}

impl Notifier for Told {
    fn host_changed(&self, host: HostId, change: HostChange) {
        self.changes.lock().unwrap().push((host, change));
    }
    fn publish(&self, event: Event) {
        let _ = self.events.send(event);
    }
    fn stream_lease(&self, host: HostId, lease: StreamLease) {
        self.leases.lock().unwrap().push((host, lease));
    }
    fn connected(&self, host: HostId) -> Option<UnixMs> {
        self.connected.lock().unwrap().contains(&host).then_some(NOW)
    }
}

pub(super) struct World {
    pub(super) router: Router,
    pub(super) shared: Arc<Shared>,
    pub(super) store: Arc<SqliteStore>,
    pub(super) told: Arc<Told>,
    pub(super) token: String,
    /// The session of that token.
    pub(super) session: SessionId,
    pub(super) root: Arc<TrustedRoot>,
    pub(super) user: User,
    command_key: SigningKey<role::Command>,
    pub(super) closing: watch::Sender<bool>,
    directory: tempfile::TempDir,
}

/// What was answered.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) text: String,
    pub(super) json: Value,
}

impl Answer {
    pub(super) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// The kind of problem it is, without its prefix.
    pub(super) fn problem(&self) -> &str {
        assert_eq!(self.header("content-type"), "application/problem+json", "{self:?}");
        assert_eq!(self.json["status"], self.status.as_u16(), "{self:?}");
        self.json["type"].as_str().unwrap().strip_prefix("urn:serverflow:").unwrap()
    }
}

/// What the test's own state is made of, for those that serve it themselves.
pub(super) async fn state(role: UserRole) -> (WebState, WorldParts) {
    let directory = tempfile::tempdir().unwrap();
    let config = StoreConfig { path: directory.path().join("test.db"), data_key: Zeroizing::new([7; 32]) };
    let store = Arc::new(SqliteStore::open(config).await.unwrap());
    let (root_key, command_key) = (SigningKey::<role::Root>::from_seed(&[1; 32]), SigningKey::from_seed(&[2; 32]));
    let metadata = root_metadata(&root_key, &command_key);
    let envelope = sign_root(&[&root_key], &metadata);
    let root = Arc::new(TrustedRoot::from_stored(&[&envelope]).unwrap());
    let user = User {
        id: fresh(),
        name: "ada".parse().unwrap(),
        role,
        password_hash: credentials::password_hash(PASSWORD).unwrap(),
        created_at: NOW,
        disabled_at: None,
        approver: None,
    };
    let audit = vec![entry(AuditKind::FleetCreated)];
    store.write(Write::Initialise { root: envelope, admin: user.clone(), audit }).await.unwrap();
    let events = broadcast::channel(64).0;
    let told = Arc::new(Told {
        events: events.clone(),
        changes: Mutex::default(),
        connected: Mutex::default(),
        leases: Mutex::default(),
    });
    let (roots, in_force) = watch::channel(root.clone());
    let state = WebState {
        store: store.clone(),
        notifier: told.clone(),
        events,
        root: in_force,
        root_keeper: Arc::new(super::root::Keeper(roots)),
        key_keeper: Arc::new(super::keys::HeldHere::default()),
        tls_spki_sha256: Box::new(|| Sha256([9; 32])),
        version: "0.1.0-test",
        host_names: vec!["control.example.org".to_owned()],
        tls: None,
        agent_programs: Arc::new(super::agents::Served(directory.path().join("agent"))),
        streams: Arc::default(),
        clock: now,
        figures: Arc::new(super::figures::StoreFigures(store.clone())),
        registry: Registry::default(),
    };
    (state, WorldParts { store, told, root, user, command_key, directory })
}

pub(super) struct WorldParts {
    pub(super) store: Arc<SqliteStore>,
    told: Arc<Told>,
    root: Arc<TrustedRoot>,
    pub(super) user: User,
    command_key: SigningKey<role::Command>,
    directory: tempfile::TempDir,
}

impl World {
    /// The secret half of every host's sealing key.
    pub(super) const SEALING_SECRET: [u8; 32] = [8; 32];
    /// The secret half of the owner's recovery key.
    pub(super) const RECOVERY_SECRET: [u8; 32] = [1; 32];

    pub(super) async fn new() -> Self {
        Self::of(UserRole::Admin).await
    }

    /// Its one account has this role and is signed in.
    pub(super) async fn of(role: UserRole) -> Self {
        let (state, parts) = state(role).await;
        let (closing, closed) = watch::channel(false);
        let shared = Shared::new(state, closed).unwrap();
        let router = routes::router(&shared);
        let WorldParts { store, told, root, user, command_key, directory } = parts;
        let mut world = Self {
            router,
            shared,
            store,
            told,
            token: String::new(),
            session: fresh(),
            root,
            user,
            command_key,
            closing,
            directory,
        };
        (world.token, world.session) = world.signed_in(&world.user, NOW.plus(DurationMs::from_days(1))).await;
        world
    }

    pub(super) fn request(method: Method, path: &str, token: Option<&str>, body: Option<&Value>) -> Request<Body> {
        let mut request = Request::builder().method(method).uri(path).header(header::HOST, "localhost:8080");
        if let Some(token) = token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        if body.is_some() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        request.body(body.map_or_else(Body::empty, |body| Body::from(body.to_string()))).unwrap()
    }

    /// Sends a request from an address of its own: the clock stands still, so one address would soon
    /// have asked too often.
    pub(super) async fn send(&self, request: Request<Body>) -> Answer {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let [.., a, b, c] = NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes();
        self.send_from([10, a, b, c], request).await
    }

    pub(super) async fn send_from(&self, peer: [u8; 4], mut request: Request<Body>) -> Answer {
        request.extensions_mut().insert(Peer((peer, 50_000).into()));
        let (asked, request) = Asked::of(request).await;
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (head, body) = response.into_parts();
        let bytes = to_bytes(body, usize::MAX).await.unwrap();
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        let json = serde_json::from_str(&text).unwrap_or(Value::Null);
        let answer = Answer { status: head.status, headers: head.headers, text, json };
        asked.held_to_the_document(&answer);
        answer
    }

    pub(super) async fn get(&self, path: &str) -> Answer {
        self.send(Self::request(Method::GET, path, Some(&self.token), None)).await
    }

    pub(super) async fn post(&self, path: &str, body: &Value) -> Answer {
        self.send(Self::request(Method::POST, path, Some(&self.token), Some(body))).await
    }

    pub(super) async fn delete(&self, path: &str) -> Answer {
        self.send(Self::request(Method::DELETE, path, Some(&self.token), None)).await
    }

    /// Where a test may put an agent's program.
    pub(super) fn agent_file(&self) -> std::path::PathBuf {
        self.directory.path().join("agent")
    }

    pub(super) fn identity(name: &str) -> SigningKey<role::Agent> {
        SigningKey::from_seed(&sha256(name.as_bytes()).0)
    }

    /// An enrolled host whose agent has every action.
    pub(super) async fn host(&self, name: &str) -> Host {
        let host = Host {
            id: fresh(),
            name: name.parse().unwrap(),
            roles: vec![Role::App],
            labels: Default::default(),
            identity_key: Self::identity(name).public(),
            sealing_key: SealingSecretKey::from_bytes(&Self::SEALING_SECRET).public(),
            host_epoch: HostEpoch(1),
            standing: HostStanding::Active,
            quarantine: Default::default(),
            clock_skew_ms: None,
            allocated: Sequence(0),
            acknowledged: Sequence(0),
            last_report: ReportPosition::START,
            audit_head: None,
            boots: Vec::new(),
            actions: actions::actions()
                .iter()
                .map(|info| ActionRef {
                    name: info.name.parse().unwrap(),
                    version: info.version,
                    schema_sha256: info.schema_sha256(),
                })
                .collect(),
            agent_version: "0.1.0".to_owned(),
            root_version: RootVersion(1),
            enrolled_at: NOW,
            last_seen: None,
            receipt: format!("receipt of {name}").into_bytes(),
        };
        let token = JoinTokenRecord {
            id: fresh(),
            secret_sha256: Sha256([1; 32]),
            host_name: host.name.clone(),
            roles: host.roles.clone(),
            created_by: self.user.name.clone(),
            created_at: NOW,
            expires: NOW.plus(DurationMs::from_mins(5)),
            spent_by: None,
        };
        let id = token.id;
        self.store.write(Write::TokenCreate { token, audit: entry(AuditKind::TokenIssued) }).await.unwrap();
        let audit = entry(AuditKind::Enrolment);
        let write =
            Write::Enrol { token: id, secret_sha256: Sha256([1; 32]), now: NOW, host: Box::new(host.clone()), audit };
        self.store.write(write).await.unwrap();
        host
    }

    pub(super) async fn stored(&self, command: CommandId) -> Command {
        self.store.command(command).await.unwrap().unwrap()
    }

    fn announce(&self, command: &Command) {
        self.told.publish(Event::Command {
            command: command.order.command,
            operation: command.order.operation,
            host: command.order.host,
            status: command.status,
            message: command.message.clone(),
        });
    }

    /// Signs a command and has it started by its host.
    pub(super) async fn start(&self, id: CommandId) -> Command {
        let command = self.stored(id).await;
        let host = self.store.host(command.order.host).await.unwrap().unwrap();
        let sequence = host.allocated.next().unwrap();
        let expires = NOW.plus(DurationMs::from_mins(5));
        let signed = self.command_key.sign(&Ordered {
            order: command.order.clone(),
            host_epoch: HostEpoch(1),
            epoch: Epoch(0),
            sequence,
            nonce: Nonce([3; 16]),
            issued: NOW,
            not_before: NOW,
            expires,
        });
        let seal =
            Seal { sequence, expires, payload_sha256: signed.payload_sha256(), envelope: signed.envelope().to_vec() };
        let audit = AuditEntry { record: AuditRecord::Envelope(seal.envelope.clone()), ..entry(AuditKind::Command) };
        let (allocated_before, host) = (host.allocated, host.id);
        let write = Write::CommandSeal { command: id, host, allocated_before, seal, at: NOW, audit };
        self.store.write(write).await.unwrap();
        self.announce(&self.stored(id).await);
        let write = Write::CommandStage { command: id, host, sequence, stage: Stage::Started, at: NOW };
        self.store.write(write).await.unwrap();
        let command = self.stored(id).await;
        self.announce(&command);
        command
    }

    /// Ends a started command by its host's signed report.
    pub(super) async fn settle(
        &self,
        id: CommandId,
        (status, message, result): (ReportStatus, &str, Value),
        follow_up: Vec<NewCommand>,
        app: Option<AppChange>,
    ) -> Result<(), StoreError> {
        let command = self.stored(id).await;
        let host = self.store.host(command.order.host).await.unwrap().unwrap();
        let seal = command.seals.last().unwrap();
        let report = Self::identity(host.name.as_str()).sign(&Report {
            fleet: command.order.fleet,
            host: host.id,
            host_epoch: HostEpoch(1),
            command: id,
            command_sha256: seal.payload_sha256,
            command_sequence: seal.sequence,
            sequence: ReportSequence(host.last_report.sequence.0 + 1),
            previous: host.last_report.sha256,
            audit_head: None,
            status,
            finished_at: NOW,
            result: json!({ "message": message, "result": result }).to_string().into_bytes(),
            output_sha256: sha256(b""),
            output_truncated: false,
        });
        let envelope = report.envelope().to_vec();
        let settlement = Settlement {
            host: host.id,
            expected_last: host.last_report,
            position: ReportPosition { sequence: report.value().sequence, sha256: report.payload_sha256() },
            envelope: envelope.clone(),
            command: id,
            sequence: seal.sequence,
            status: CommandStatus::from(status),
            message: message.to_owned(),
            audit_head: None,
            at: NOW,
            follow_up,
            app,
            audit: vec![AuditEntry { record: AuditRecord::Envelope(envelope), ..entry(AuditKind::Report) }],
        };
        self.store.write(Write::CommandSettle(Box::new(settlement))).await?;
        self.announce(&self.stored(id).await);
        Ok(())
    }
}

/// A request for `host.facts` on some hosts.
pub(super) fn facts(hosts: &[&str]) -> Value {
    let id: ids::OperationId = fresh();
    json!({ "kind": "single", "operation_id": id, "action": "host.facts", "hosts": hosts, "parameters": {} })
}

/// A request for the stream of an app's logs.
pub(super) fn follow(hosts: &[&str]) -> Value {
    let mut request = facts(hosts);
    request["action"] = json!("app.logs.follow");
    request["parameters"] = json!({ "app": "shop" });
    request
}

/// A request for a deploy of an app of one service.
pub(super) fn deploy(hosts: &[&str]) -> Value {
    let id: ids::OperationId = fresh();
    json!({
        "kind": "deploy",
        "operation_id": id,
        "hosts": hosts,
        "spec": {
            "app": "shop",
            "services": { "web": { "image": "shop:1", "restart": "unless_stopped" } },
            "networks": {},
            "volumes": {},
        },
    })
}

/// The commands an answer about an operation lists.
pub(super) fn command_ids(answer: &Answer) -> Vec<CommandId> {
    let commands = answer.json["commands"].as_array().unwrap_or_else(|| panic!("{answer:?}"));
    commands.iter().map(|command| command["command_id"].as_str().unwrap().parse().unwrap()).collect()
}
